//! A file that is being read: the next piece is fetched while the last one is worked on.
//!
//! A newcomer would read on the threads of the runtime; a slow disk would then stop everything else. What was read is
//! not kept in memory, where the database's own pages are worth more.

use std::{
    fs::File,
    io::{self, Read},
};

use bytes::Bytes;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use tokio::task::JoinHandle;

use super::{Filesystem, Trouble};
use crate::storage::Error;

/// How much is read at once.
const PIECE: usize = 1024 * 1024;

/// A file that is being read.
#[derive(Debug)]
pub(crate) struct Reading {
    filesystem: Filesystem,
    path: String,
    /// None when its end was seen.
    next: Option<JoinHandle<io::Result<(File, Bytes)>>>,
    at: u64,
}

impl Reading {
    pub(super) fn of(filesystem: Filesystem, path: &str, file: File) -> Self {
        Self { filesystem, path: path.to_owned(), next: Some(fetch(file, 0)), at: 0 }
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(fetching) = &mut self.next else { return Ok(None) };
        let fetched = fetching.await;
        self.next = None;
        let failed = |source| {
            let path = self.filesystem.0.root.join(&self.path);
            Trouble::io(&path, source).of(self.filesystem.name())
        };
        let (file, bytes) = fetched.map_err(|_| self.filesystem.ended())?.map_err(failed)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        self.at += bytes.len() as u64;
        self.next = Some(fetch(file, self.at));
        Ok(Some(bytes))
    }
}

fn fetch(mut file: File, at: u64) -> JoinHandle<io::Result<(File, Bytes)>> {
    tokio::task::spawn_blocking(move || {
        let mut piece = Vec::with_capacity(PIECE);
        (&mut file).take(PIECE as u64).read_to_end(&mut piece)?;
        // Where the advice is not taken, it is only memory.
        let (offset, length) = (at.cast_signed(), (piece.len() as u64).cast_signed());
        let _ = posix_fadvise(&file, offset, length, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        Ok((file, piece.into()))
    })
}
