//! Whether a dump is whole, from its text as it goes by: it begins as a dump and ends with `-- Dump completed`.
//!
//! A newcomer would look for the trailer anywhere in the last bytes; a row may hold those words, so it must be the last
//! line, after the end of a statement.

use crate::stream::Inspect;

/// How much of the end is kept. The trailer is shorter than a tenth of it.
const END: usize = 1024;
/// How much of the beginning is kept: the comment that switches the sandbox mode on, and the banner.
const BEGINNING: usize = 256;
/// The last line; a date may follow.
const TRAILER: &str = "-- Dump completed";

/// Looks at a dump as it goes by.
#[derive(Debug, Default)]
pub struct Trailer {
    beginning: Vec<u8>,
    end: Vec<u8>,
}

impl Inspect for Trailer {
    fn see(&mut self, bytes: &[u8]) {
        let room = BEGINNING.saturating_sub(self.beginning.len());
        self.beginning.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if bytes.len() >= END {
            self.end.clear();
            self.end.extend_from_slice(&bytes[bytes.len() - END..]);
        } else {
            self.end.extend_from_slice(bytes);
            self.end.drain(..self.end.len().saturating_sub(END));
        }
    }

    fn end(self: Box<Self>) -> Result<(), String> {
        let beginning = String::from_utf8_lossy(&self.beginning);
        if beginning.is_empty() {
            return Err("the dump is empty".to_owned());
        }
        let banner = |line: &str| line.starts_with("-- MariaDB dump") || line.starts_with("-- MySQL dump");
        if !beginning.lines().any(banner) {
            return Err("the dump does not begin with the banner of `mariadb-dump` or `mysqldump`".to_owned());
        }
        let end = String::from_utf8_lossy(&self.end);
        // The line before the last one that is not empty must have ended its statement.
        let mut lines = end.lines().rev().map(str::trim_end).filter(|line| !line.is_empty());
        let is_trailer = lines.next().is_some_and(|line| line.starts_with(TRAILER)) && end.ends_with('\n');
        let is_between = lines.next().is_some_and(|line| line.ends_with(';') || line.starts_with("--"));
        if is_trailer && is_between {
            return Ok(());
        }
        Err(format!("the dump does not end with `{TRAILER}`: the tool did not write all of it"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // As mariadb-dump 10.11.14 wrote it, shortened.
    const HEAD: &str = "/*M!999999\\- enable the sandbox mode */ \n\
                        -- MariaDB dump 10.19  Distrib 10.11.14-MariaDB, for debian-linux-gnu (x86_64)\n--\n";
    const TAIL: &str = "/*!40111 SET SQL_NOTES=@OLD_SQL_NOTES */;\n\n-- Dump completed on 2026-11-21 13:32:56\n";

    fn judge(parts: &[&str]) -> Result<(), String> {
        let mut trailer = Box::<Trailer>::default();
        parts.iter().for_each(|part| trailer.see(part.as_bytes()));
        trailer.end()
    }

    #[test]
    fn a_whole_dump_is_whole_however_it_is_cut_into_chunks() {
        let rows = "INSERT INTO `t` VALUES\n(1,'x');\n".repeat(500);
        assert_eq!(judge(&[HEAD, &rows, TAIL]), Ok(()));
        let whole = format!("{HEAD}{rows}{TAIL}");
        for size in [1, 7, 1023, 1024, 1025, 100_000] {
            let mut trailer = Box::<Trailer>::default();
            whole.as_bytes().chunks(size).for_each(|chunk| trailer.see(chunk));
            assert_eq!(trailer.end(), Ok(()), "{size}");
        }
    }

    #[test]
    fn a_dump_of_mysql_and_one_without_a_date_are_whole() {
        let head = "-- MySQL dump 10.13  Distrib 8.0.36, for Linux (x86_64)\n--\n";
        assert_eq!(judge(&[head, "/*!40111 SET SQL_NOTES=@OLD_SQL_NOTES */;\n\n-- Dump completed\n"]), Ok(()));
    }

    #[test]
    fn a_dump_that_was_cut_is_not_whole() {
        for cut in [
            "INSERT INTO `t` VALUES\n(1,'x'",
            "INSERT INTO `t` VALUES\n(1,'x');\n",
            "INSERT INTO `t` VALUES\n(1,'-- Dump completed on 2026-11-21 13:32:56');\n",
            "INSERT INTO `t` VALUES\n(1,'\n-- Dump completed on 2026-11-21 13:32:56\n",
            "/*!40111 SET SQL_NOTES=@OLD_SQL_NOTES */;\n\n-- Dump comp",
        ] {
            let complaint = judge(&[HEAD, cut]).unwrap_err();
            assert_eq!(complaint, "the dump does not end with `-- Dump completed`: the tool did not write all of it");
        }
    }

    #[test]
    fn what_is_no_dump_is_not_whole() {
        assert_eq!(judge(&[]).unwrap_err(), "the dump is empty");
        assert!(judge(&["hello\n", TAIL]).unwrap_err().contains("banner"));
    }
}
