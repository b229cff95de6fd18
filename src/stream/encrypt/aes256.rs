//! AES-256 with a passphrase: what `openssl enc -d -aes-256-ctr -pbkdf2 -pass file:FILE` reads, and an HMAC beside it.
//!
//! A file is `Salted__`, eight bytes of salt, ciphertext. PBKDF2 with HMAC-SHA-256 and 10000 iterations, openssl's own
//! number, makes 96 bytes from passphrase and salt: 32 of key, 16 of counter, 16 that nobody uses, and 32 that are the
//! key of the HMAC. It is HMAC-SHA-256 over salt and ciphertext and stands in the manifest, because openssl has no place
//! for it in the file. By hand, with the passphrase in `key` and the salt as openssl's `-p` prints it:
//!
//! ```text
//! openssl kdf -keylen 96 -kdfopt digest:SHA256 -kdfopt iter:10000 -kdfopt pass:"$(cat key)" -kdfopt hexsalt:SALT -binary PBKDF2 \
//!   | tail -c 32 | od -An -v -tx1 | tr -d ' \n'                        # the HMAC's key
//! tail -c +9 FILE | openssl dgst -sha256 -mac HMAC -macopt hexkey:KEY   # the HMAC
//! ```
//!
//! The key of a manifest's HMAC is 32 bytes of the same PBKDF2 with `backstop manifest` as the salt.
//!
//! A newcomer would encrypt and be content; whoever flips a bit of the ciphertext flips that bit of the plain text, and
//! openssl says nothing.

use std::io::{self, Read, Write};

use aes::Aes256;
use ctr::{
    Ctr128BE,
    cipher::{KeyIvInit, StreamCipher},
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::{policy::Secret, stream::tally::hex};

/// What every file begins with.
const MAGIC: &[u8; 8] = b"Salted__";
/// What openssl does unless told otherwise.
const ITERATIONS: u32 = 10_000;
/// The salt of the key for manifests; it can be no file's, those have eight bytes.
const MANIFEST: &[u8] = b"backstop manifest";

/// An HMAC that is being made.
pub(in crate::stream) type Hmac256 = Hmac<Sha256>;

/// The salt of a file.
pub(super) type Salt = [u8; 8];

/// What passphrase and salt make.
pub(super) struct Keys {
    pub(super) cipher: Ctr128BE<Aes256>,
    /// Has seen the salt.
    pub(super) hmac: Hmac256,
}

impl Keys {
    pub(super) fn of(passphrase: &Secret, salt: &Salt) -> Self {
        let mut bytes = [0; 96];
        pbkdf2::pbkdf2_hmac::<Sha256>(passphrase.expose().as_bytes(), salt, ITERATIONS, &mut bytes);
        let cipher = Ctr128BE::new_from_slices(&bytes[..32], &bytes[32..48]).expect("the lengths are those of AES-256");
        let mut hmac = hmac(&bytes[64..]);
        hmac.update(salt);
        Self { cipher, hmac }
    }
}

fn hmac(key: &[u8]) -> Hmac256 {
    Hmac256::new_from_slice(key).expect("an HMAC takes a key of any length")
}

/// An HMAC as it is written.
pub(in crate::stream) fn finish(hmac: Hmac256) -> String {
    hex(&hmac.finalize().into_bytes())
}

/// The HMAC of a manifest.
pub(super) fn sign(passphrase: &Secret, bytes: &[u8]) -> String {
    let mut key = [0; 32];
    pbkdf2::pbkdf2_hmac::<Sha256>(passphrase.expose().as_bytes(), MANIFEST, ITERATIONS, &mut key);
    let mut hmac = hmac(&key);
    hmac.update(bytes);
    finish(hmac)
}

/// Encrypts what is written to it.
pub(in crate::stream) struct Encryptor<W> {
    keys: Keys,
    out: W,
}

impl<W: Write> Encryptor<W> {
    pub(super) fn start(passphrase: &Secret, mut out: W) -> io::Result<Self> {
        let mut salt = Salt::default();
        getrandom::fill(&mut salt)?;
        out.write_all(MAGIC)?;
        out.write_all(&salt)?;
        Ok(Self { keys: Keys::of(passphrase, &salt), out })
    }

    pub(super) fn write(&mut self, mut bytes: Vec<u8>) -> io::Result<()> {
        self.keys.cipher.apply_keystream(&mut bytes);
        self.keys.hmac.update(&bytes);
        self.out.write_all(&bytes)
    }

    /// Gives back the writer, and the HMAC.
    pub(super) fn finish(self) -> (W, String) {
        (self.out, finish(self.keys.hmac))
    }
}

/// Reads the beginning of a file.
pub(super) fn read_salt(from: &mut impl Read) -> io::Result<Salt> {
    let (mut magic, mut salt) = ([0; 8], Salt::default());
    from.read_exact(&mut magic)?;
    if &magic != MAGIC {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it does not begin with `Salted__`"));
    }
    from.read_exact(&mut salt)?;
    Ok(salt)
}

/// Decrypts what is read from it.
pub(super) struct Decryptor<R> {
    pub(super) cipher: Ctr128BE<Aes256>,
    pub(super) from: R,
}

impl<R: Read> Read for Decryptor<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(into)?;
        self.cipher.apply_keystream(&mut into[..count]);
        Ok(count)
    }
}
