//! SQL text is whole when its last words are there.
//!
//! A killed tool ends its output in the middle and nothing tells. The last words are three comment lines; since 15.14,
//! 16.10 and 17.6 a `\unrestrict` stands after or before them, whose token is the one of `\restrict` at the beginning. A
//! newcomer would look for the words alone; a table may hold them.

use crate::stream::Inspect;

/// What is kept of either end.
const KEPT: usize = 4096;

/// Looks for the last words.
#[derive(Debug)]
pub struct Trailer {
    words: &'static str,
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Trailer {
    /// Of `pg_dump`.
    pub fn of_dump() -> Self {
        Self::new("-- PostgreSQL database dump complete")
    }

    /// Of `pg_dumpall`.
    pub fn of_globals() -> Self {
        Self::new("-- PostgreSQL database cluster dump complete")
    }

    fn new(words: &'static str) -> Self {
        Self { words, head: Vec::new(), tail: Vec::new() }
    }

    fn check(&self) -> Result<(), String> {
        let (head, tail) = (String::from_utf8_lossy(&self.head), String::from_utf8_lossy(&self.tail));
        let token = |line: &str, command: &str| line.strip_prefix(command).map(str::to_owned);
        let restrict = head.lines().find_map(|line| token(line, r"\restrict "));
        let unrestrict = tail.lines().rev().find_map(|line| token(line, r"\unrestrict "));
        let lines = tail.lines().filter(|line| !line.is_empty() && !line.starts_with(r"\unrestrict "));
        let last: Vec<&str> = lines.rev().take(3).collect();
        if last != ["--", self.words, "--"] {
            return Err(format!("the dump does not end with `{}`: it is not whole", self.words));
        }
        match (restrict, unrestrict) {
            (Some(_), None) => Err(r"the dump has `\restrict` and no `\unrestrict`: it is not whole".to_owned()),
            (Some(begun), Some(ended)) if begun != ended => {
                Err(r"`\unrestrict` does not belong to `\restrict`: the dump is of two parts".to_owned())
            }
            _ => Ok(()),
        }
    }
}

impl Inspect for Trailer {
    fn see(&mut self, bytes: &[u8]) {
        let room = KEPT - self.head.len();
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        let newest = &bytes[bytes.len().saturating_sub(KEPT)..];
        let surplus = (self.tail.len() + newest.len()).saturating_sub(KEPT);
        self.tail.drain(..surplus);
        self.tail.extend_from_slice(newest);
    }

    fn end(self: Box<Self>) -> Result<(), String> {
        self.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "--\n-- PostgreSQL database dump\n--\n\n\\restrict k0xb\n\nCOPY public.big (id, t) FROM stdin;\n1\t--\n\
                        2\t-- PostgreSQL database dump complete\n\\.\n\n\n--\n-- PostgreSQL database dump complete\n--\n\n\
                        \\unrestrict k0xb\n\n";

    fn inspect(trailer: Trailer, text: &str, step: usize) -> Result<(), String> {
        let mut trailer = Box::new(trailer);
        text.as_bytes().chunks(step).for_each(|chunk| trailer.see(chunk));
        trailer.end()
    }

    #[test]
    fn a_whole_dump_is_whole_however_it_is_cut_into_pieces() {
        let long = DUMP.replace("1\t--\n", &"1\t--\n".repeat(5000));
        for step in [1, 7, 4096, 5000, 1 << 20] {
            assert_eq!(inspect(Trailer::of_dump(), DUMP, step), Ok(()));
            assert_eq!(inspect(Trailer::of_dump(), &long, step), Ok(()));
        }
        let old = DUMP.replace("\\restrict k0xb\n", "").replace("\\unrestrict k0xb\n", "");
        assert_eq!(inspect(Trailer::of_dump(), &old, 9), Ok(()));
    }

    #[test]
    fn a_dump_that_ends_early_is_not_whole_wherever_it_ends() {
        let whole = DUMP.trim_end().len();
        for end in 0..whole {
            assert!(inspect(Trailer::of_dump(), &DUMP[..end], 64).is_err(), "{:?}", &DUMP[..end]);
        }
        assert_eq!(inspect(Trailer::of_dump(), &DUMP[..whole], 64), Ok(()));
    }

    #[test]
    fn the_end_of_another_dump_is_not_the_end_of_this_one() {
        let other = DUMP.replace(r"\unrestrict k0xb", r"\unrestrict zzzz");
        assert!(inspect(Trailer::of_dump(), &other, 64).unwrap_err().contains("two parts"));
    }

    #[test]
    fn globals_have_an_end_of_their_own() {
        let globals = "--\n-- PostgreSQL database cluster dump\n--\n\n\\restrict a1\n\nCREATE ROLE app;\n\n\
                       \\unrestrict a1\n\n--\n-- PostgreSQL database cluster dump complete\n--\n\n";
        assert_eq!(inspect(Trailer::of_globals(), globals, 5), Ok(()));
        assert!(inspect(Trailer::of_dump(), globals, 5).is_err());
        assert!(inspect(Trailer::of_globals(), "", 5).is_err());
    }
}
