//! Counting and checksumming bytes as they go by.
//!
//! A newcomer would checksum a file after it was written; then it is read twice, and what was wrong before is not seen.

use sha2::{Digest as _, Sha256};

use crate::record::Digest;

/// How many bytes went by, and their SHA-256 so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    size: u64,
    sha256: Sha256,
}

impl Tally {
    pub(super) fn see(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.sha256.update(bytes);
    }

    pub(super) fn digest(self) -> Digest {
        Digest { size: self.size, sha256: hex(&self.sha256.finalize()) }
    }
}

/// Bytes in lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_that_of_sha256sum_however_the_bytes_were_cut() {
        let mut tally = Tally::default();
        ["a", "", "bc"].iter().for_each(|part| tally.see(part.as_bytes()));
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".to_owned();
        assert_eq!(tally.digest(), Digest { size: 3, sha256 });
    }
}
