//! Keeps secrets out of what is shown or stored: by value, in whatever form a tool may print them.
//!
//! The forms are the value itself, percent-encoded, and base64 at each of the three alignments it can have inside a
//! longer text. A newcomer would redact by pattern (`password=…`); a tool that prints the value in a sentence, or in
//! the dump of a request, would give it away.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path, sync::Arc};

use crate::policy::Secret;

/// A shorter value would hit ordinary text everywhere and protects nothing.
const SHORTEST: usize = 4;
const MASK: &[u8] = b"***";

/// Replaces known secrets by `***`. Cheap to clone.
#[derive(Clone, Default)]
pub struct Redactor {
    /// The longest first, so that a whole is not left with its end showing.
    forms: Arc<Vec<Vec<u8>>>,
}

impl Redactor {
    /// Redacts these.
    pub fn new(secrets: Vec<Secret>) -> Self {
        let long_enough = secrets.iter().map(|secret| secret.expose()).filter(|text| text.len() >= SHORTEST);
        let mut forms: Vec<Vec<u8>> = long_enough.flat_map(forms_of).collect();
        forms.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        forms.dedup();
        Self { forms: Arc::new(forms) }
    }

    /// The text without the secrets.
    pub fn apply(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.mask(text.as_bytes(), text.len())).into_owned()
    }

    /// The length of the longest form; a piece of text cut shorter may end within a secret.
    pub(super) fn longest(&self) -> usize {
        self.forms.first().map_or(0, Vec::len)
    }

    /// The first `limit` bytes of `raw` without the secrets; a secret that reaches beyond the limit is replaced too.
    pub(super) fn mask(&self, raw: &[u8], limit: usize) -> Vec<u8> {
        let mut masked = Vec::with_capacity(limit.min(raw.len()));
        let mut at = 0;
        while at < limit.min(raw.len()) {
            if let Some(length) = self.length_at(&raw[at..]) {
                masked.extend_from_slice(MASK);
                at += length;
            } else {
                masked.push(raw[at]);
                at += 1;
            }
        }
        masked
    }

    /// Overwrites the secrets in a file by stars of the same length: this needs no space on a full disk, and leaves
    /// the file the same for whoever has it open.
    pub(super) fn clean(&self, path: &Path) -> io::Result<()> {
        if self.forms.is_empty() {
            return Ok(());
        }
        let file = File::options().read(true).write(true).open(path)?;
        let mut window = vec![0; 64 * 1024 + self.longest()];
        let mut offset = 0;
        loop {
            let filled = fill(&file, &mut window, offset)?;
            let is_last = filled < window.len();
            // A secret may reach into the next window; what may be such a beginning is looked at again there.
            let limit = if is_last { filled } else { filled - self.longest() };
            let mut at = 0;
            while at < limit {
                let Some(length) = self.length_at(&window[at..filled]) else {
                    at += 1;
                    continue;
                };
                file.write_all_at(&vec![b'*'; length], offset + at as u64)?;
                at += length;
            }
            if is_last {
                return Ok(());
            }
            offset += at as u64;
        }
    }

    fn length_at(&self, text: &[u8]) -> Option<usize> {
        self.forms.iter().find(|form| text.starts_with(form)).map(Vec::len)
    }
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Redactor({} forms)", self.forms.len())
    }
}

fn fill(file: &File, window: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < window.len() {
        match file.read_at(&mut window[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn forms_of(secret: &str) -> Vec<Vec<u8>> {
    let bytes = secret.as_bytes();
    let mut forms = vec![bytes.to_vec(), percent_encoded(bytes, true), percent_encoded(bytes, false)];
    for alphabet in [STANDARD, URL_SAFE] {
        forms.push(padded(bytes, alphabet));
        forms.extend((0..3).map(|shift| base64_within(bytes, shift, alphabet)));
    }
    forms.retain(|form| form.len() >= SHORTEST);
    forms
}

fn percent_encoded(bytes: &[u8], upper: bool) -> Vec<u8> {
    let encode = |byte: &u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => vec![*byte],
        _ if upper => format!("%{byte:02X}").into_bytes(),
        _ => format!("%{byte:02x}").into_bytes(),
    };
    bytes.iter().flat_map(encode).collect()
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The base64 digits of the bits, six at a time, the last filled up with zeros.
fn digits(bytes: &[u8], alphabet: &[u8; 64]) -> Vec<u8> {
    let digits_of = |three: &[u8]| {
        let bits = three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        (0..=three.len()).map(|place| alphabet[(bits >> (18 - 6 * place)) as usize & 63]).collect::<Vec<u8>>()
    };
    bytes.chunks(3).flat_map(digits_of).collect()
}

fn padded(bytes: &[u8], alphabet: &[u8; 64]) -> Vec<u8> {
    let mut form = digits(bytes, alphabet);
    form.resize(form.len().next_multiple_of(4), b'=');
    form
}

/// The digits that are the same whatever stands before and after, when the value begins `shift` bytes into a triple.
fn base64_within(bytes: &[u8], shift: usize, alphabet: &[u8; 64]) -> Vec<u8> {
    let shifted: Vec<u8> = std::iter::repeat_n(0, shift).chain(bytes.iter().copied()).collect();
    let certain = (8 * shift).div_ceil(6)..8 * shifted.len() / 6;
    digits(&shifted, alphabet)[certain].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redactor(secrets: &[&str]) -> Redactor {
        Redactor::new(secrets.iter().map(|text| Secret::new(*text)).collect())
    }

    #[test]
    fn every_form_of_a_secret_is_redacted() {
        let redactor = redactor(&["p@ss wörd/1"]);
        for (text, clean) in [
            ("key=p@ss wörd/1;", "key=***;"),
            ("postgres://u:p%40ss%20w%C3%B6rd%2F1@h", "postgres://u:***@h"),
            ("postgres://u:p%40ss%20w%c3%b6rd%2f1@h", "postgres://u:***@h"),
            ("cEBzcyB3w7ZyZC8x", "***"),
            ("nothing here", "nothing here"),
        ] {
            assert_eq!(redactor.apply(text), clean);
        }
    }

    #[test]
    fn base64_is_found_inside_a_longer_text_at_every_alignment() {
        let redactor = redactor(&["correct horse"]);
        for user in ["a", "ab", "abc", "abcd"] {
            let header = String::from_utf8(padded(format!("{user}:correct horse;tail").as_bytes(), STANDARD)).unwrap();
            let clean = redactor.apply(&header);
            assert!(clean.contains("***"), "{header} {clean}");
            assert!(clean.len() < header.len() - 12, "{header} {clean}");
        }
    }

    #[test]
    fn base64_is_what_others_make() {
        for (text, encoded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(padded(text.as_bytes(), STANDARD), encoded.as_bytes());
        }
    }

    #[test]
    fn the_longer_of_two_secrets_goes_whole() {
        assert_eq!(redactor(&["hunter", "hunter-two"]).apply("hunter-two hunter"), "*** ***");
    }

    #[test]
    fn too_short_a_secret_is_left_rather_than_all_text_ruined() {
        assert_eq!(redactor(&["a", ""]).apply("a banana"), "a banana");
    }

    #[test]
    fn a_secret_across_the_limit_shows_no_part_of_itself() {
        let redactor = redactor(&["hunter-two"]);
        assert_eq!(redactor.mask(b"12345hunter-two hunter-two", 8), b"12345***");
        assert_eq!(redactor.mask(b"hunter-two hunter-two", 3), b"***");
    }

    #[test]
    fn a_file_is_cleaned_in_place_also_across_its_windows() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut text = vec![b'x'; 200_000];
        let places = [0, 65_525, 65_536, 131_070, 199_990];
        places.iter().for_each(|place| text[*place..place + 10].copy_from_slice(b"hunter-two"));
        // An overlap that is no whole secret must not lead the scan astray.
        text[100_000..100_016].copy_from_slice(b"hunterhunter-two");
        std::fs::write(&path, &text).unwrap();
        redactor(&["hunter-two"]).clean(&path).unwrap();
        places.iter().for_each(|place| text[*place..place + 10].copy_from_slice(b"**********"));
        text[100_000..100_016].copy_from_slice(b"hunter**********");
        assert!(std::fs::read(&path).unwrap() == text);
    }
}
