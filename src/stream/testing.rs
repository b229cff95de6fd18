//! Storages in memory, content that is easy and hard to compress, and the standard tools.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use bytes::Bytes;

use super::{encrypt::generate, extract::Origin, fan_out::Sink};
use crate::{
    policy::{Key, KeyKind, SecretRef},
    process::{self, Stop},
    record::EncryptionMethod,
    storage,
};

/// `length` bytes like those of a dump.
pub(super) fn words(length: usize) -> Vec<u8> {
    let mut state = 7u32;
    let mut content = Vec::with_capacity(length + 64);
    while content.len() < length {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        writeln!(content, "insert into orders values ({}, 'customer {}', now());", state >> 8, state % 97).unwrap();
    }
    content.truncate(length);
    content
}

/// `length` bytes that cannot be compressed.
pub(super) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// What the shell line writes when `$1` is a file with these bytes.
pub(super) async fn tool(line: &str, input: &[u8]) -> Vec<u8> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(input).unwrap();
    let command = process::Command::new("sh").args(["-c", line, "sh"]).arg(file.path());
    let answer = process::capture(&command, &Stop::never()).await.unwrap();
    assert!(answer.ok(), "{line}: {} {}", answer.ending.word(), answer.stderr);
    answer.stdout
}

/// A file that only its owner may read.
pub(super) fn private(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// A new key of a method, with its secret in `directory`.
pub(super) fn new_key(directory: &Path, name: &str, method: EncryptionMethod) -> Key {
    let new = generate(method);
    let path = private(directory, name, new.secret.expose());
    let kind = match new.recipient {
        Some(recipient) => KeyKind::Age { recipients: vec![recipient], identity: Some(path) },
        None => KeyKind::Aes256 { passphrase: SecretRef::File(path) },
    };
    Key { name: name.to_owned(), kind }
}

/// What an upload in memory has; looked at from outside.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    is_discarded: bool,
    fails_after: Option<usize>,
    takes_at_most: Option<usize>,
}

impl Memory {
    /// One that fails when it has this many bytes.
    pub(super) fn failing_after(bytes: usize) -> Self {
        let memory = Self::default();
        memory.0.lock().unwrap().fails_after = Some(bytes);
        memory
    }

    /// One that takes this many bytes and then no more for ever.
    pub(super) fn stuck_after(bytes: usize) -> Self {
        let memory = Self::default();
        memory.0.lock().unwrap().takes_at_most = Some(bytes);
        memory
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().bytes.clone()
    }

    pub(super) fn is_discarded(&self) -> bool {
        self.0.lock().unwrap().is_discarded
    }
}

/// The storage is gone.
pub(super) fn gone() -> storage::Error {
    storage::Error::Unreachable { storage: "offsite".to_owned(), why: "gone".to_owned() }
}

impl Sink for Memory {
    async fn write(&mut self, bytes: Bytes) -> Result<(), storage::Error> {
        let is_stuck = {
            let state = self.0.lock().unwrap();
            state.takes_at_most.is_some_and(|most| state.bytes.len() >= most)
        };
        if is_stuck {
            std::future::pending::<()>().await;
        }
        let mut state = self.0.lock().unwrap();
        if state.fails_after.is_some_and(|limit| state.bytes.len() >= limit) {
            return Err(gone());
        }
        state.bytes.extend_from_slice(&bytes);
        Ok(())
    }

    async fn discard(self) {
        self.0.lock().unwrap().is_discarded = true;
    }
}

/// A file in memory that is read in pieces; an error is the last thing that happens.
#[derive(Debug)]
pub(super) struct Pieces(pub(super) Vec<Result<Bytes, storage::Error>>);

impl Pieces {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self(bytes.chunks(70_001).rev().map(|piece| Ok(Bytes::copy_from_slice(piece))).collect())
    }
}

impl Origin for Pieces {
    async fn next(&mut self) -> Result<Option<Bytes>, storage::Error> {
        self.0.pop().transpose()
    }
}
