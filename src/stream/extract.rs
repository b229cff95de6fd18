//! The way back: a stored file is read once, and everything that can be compared is.
//!
//! The storage is read by the caller's task, the work is done by a thread, a short queue is between them. Whatever goes
//! wrong on the way, the stored bytes are read to their end first and compared, because only then is it known whether
//! the key is wrong or the bytes are: bytes that are right and do not open are bytes of another key.
//!
//! A newcomer would stop at the decompressor's complaint; with a wrong AES key it complains about noise.

use std::{
    future::{self, Future},
    io::{self, Read, Write},
};

use bytes::{Buf, Bytes};
use hmac::Mac;
use tokio::sync::mpsc;

use super::{
    Error, Opener,
    compress::{BLOCK, decompressor},
    encrypt::{Hmac256, finish_hmac},
    tally::Tally,
    thread::{ended, start},
};
use crate::{
    process::Stop,
    record::{Artifact, Compression, Digest},
    storage::{self, Reader},
};

/// Chunks that wait for the thread.
const DEPTH: usize = 4;

/// What is read; stands in for the storages in tests.
pub(super) trait Origin: Send {
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, storage::Error>> + Send;
}

impl Origin for Reader {
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, storage::Error>> + Send {
        Reader::next(self)
    }
}

/// Why the plain text of a stored file cannot be had.
pub(super) enum Trouble {
    /// No key fits.
    WrongKey,
    /// It does not decrypt or decompress, or reading it failed.
    Unreadable(io::Error),
    /// The place for the plain text failed.
    Unwritable(io::Error),
}

/// A stored file, as the thread reads it.
pub(super) struct Stored {
    queue: mpsc::Receiver<Result<Bytes, storage::Error>>,
    current: Bytes,
    tally: Tally,
    hmac: Option<Hmac256>,
    failed: Option<storage::Error>,
}

impl Stored {
    /// Counts what is read from now on into an HMAC too.
    pub(super) fn watch(&mut self, hmac: Hmac256) {
        self.hmac = Some(hmac);
    }

    /// Reads what is left.
    fn drain(&mut self) {
        let mut buffer = vec![0; BLOCK];
        while self.read(&mut buffer).is_ok_and(|count| count > 0) {}
    }

    fn end(mut self, plain: Result<Option<Digest>, Trouble>) -> Result<Found, Error> {
        if let Err(Trouble::Unwritable(source)) = plain {
            return Err(Error::Write(source));
        }
        self.drain();
        match self.failed {
            Some(error) => Err(Error::Storage(error)),
            None => Ok(Found { stored: self.tally.digest(), hmac: self.hmac.map(finish_hmac), plain }),
        }
    }
}

impl Read for Stored {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.queue.blocking_recv() {
                Some(Ok(bytes)) => self.current = bytes,
                Some(Err(error)) => {
                    self.failed = Some(error);
                    self.queue.close();
                    return Err(io::Error::other("the storage failed"));
                }
                None if self.failed.is_some() => return Err(io::Error::other("the storage failed")),
                None => return Ok(0),
            }
        }
        let count = into.len().min(self.current.len());
        self.current.copy_to_slice(&mut into[..count]);
        self.tally.see(&into[..count]);
        if let Some(hmac) = &mut self.hmac {
            hmac.update(&into[..count]);
        }
        Ok(count)
    }
}

/// What was found in a stored file.
struct Found {
    stored: Digest,
    hmac: Option<String>,
    /// The plain text's digest; none where nobody asked for it.
    plain: Result<Option<Digest>, Trouble>,
}

/// See [`super::check`].
pub(super) async fn check<O: Origin>(
    origin: O,
    artifact: &Artifact,
    opener: Option<&Opener>,
    stop: &Stop,
) -> Result<(), Error> {
    let watcher = opener.cloned();
    let found = on_thread(origin, stop, move |mut stored| {
        // What it complains about is seen in the checksum, or the HMAC is missing afterwards.
        let _ = watcher.map(|opener| opener.watch(&mut stored));
        stored.end(Ok(None))
    });
    judge(artifact, opener, found.await?)
}

/// See [`super::extract()`].
pub(super) async fn extract<O: Origin>(
    origin: O,
    artifact: &Artifact,
    compression: Compression,
    opener: Option<&Opener>,
    mut into: impl Write + Send + 'static,
    stop: &Stop,
) -> Result<(), Error> {
    let own = opener.cloned();
    let found = on_thread(origin, stop, move |mut stored| {
        let plain = pour(&mut stored, compression, own.as_ref(), &mut into);
        stored.end(plain.map(Some))
    });
    judge(artifact, opener, found.await?)
}

fn pour(
    stored: &mut Stored,
    compression: Compression,
    opener: Option<&Opener>,
    into: &mut impl Write,
) -> Result<Digest, Trouble> {
    let opened: Box<dyn Read> = match opener {
        Some(opener) => opener.open(stored)?,
        None => Box::new(stored),
    };
    let mut plain = decompressor(compression, opened).map_err(Trouble::Unreadable)?;
    let (mut tally, mut buffer) = (Tally::default(), vec![0; BLOCK]);
    loop {
        let count = match plain.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Trouble::Unreadable(error)),
        };
        tally.see(&buffer[..count]);
        into.write_all(&buffer[..count]).map_err(Trouble::Unwritable)?;
    }
    into.flush().map_err(Trouble::Unwritable)?;
    Ok(tally.digest())
}

/// Says what differs; the order decides what is to blame.
fn judge(artifact: &Artifact, opener: Option<&Opener>, found: Found) -> Result<(), Error> {
    let name = &artifact.name;
    let damaged = |what: String| Err(Error::Damaged(what));
    if found.stored.size != artifact.stored.size {
        let (is, was) = (found.stored.size, artifact.stored.size);
        return damaged(format!("`{name}` has {is} bytes, {was} were written"));
    }
    if found.stored.sha256 != artifact.stored.sha256 {
        let (is, was) = (&found.stored.sha256, &artifact.stored.sha256);
        return damaged(format!("`{name}` is not what was written: its SHA-256 is {is}, it was {was}"));
    }
    if let Some(opener) = opener.filter(|opener| opener.has_hmac()) {
        if artifact.hmac.is_none() {
            return damaged(format!("the HMAC of `{name}` is missing: the manifest was changed"));
        }
        if found.hmac != artifact.hmac {
            return Err(opener.is_wrong().into());
        }
    }
    match (found.plain, opener) {
        (Ok(None), _) => Ok(()),
        (Ok(Some(raw)), _) if raw == artifact.raw => Ok(()),
        (Ok(Some(raw)), _) => damaged(format!(
            "`{name}` holds {} bytes with SHA-256 {}, the tool wrote {} with {}",
            raw.size, raw.sha256, artifact.raw.size, artifact.raw.sha256
        )),
        (Err(Trouble::WrongKey), Some(opener)) => Err(opener.is_wrong().into()),
        (Err(Trouble::Unreadable(error)), _) => {
            damaged(format!("`{name}` is what was written, but cannot be decrypted or decompressed: {error}"))
        }
        (Err(Trouble::WrongKey | Trouble::Unwritable(_)), _) => {
            damaged(format!("`{name}` is what was written, but cannot be read"))
        }
    }
}

/// Reads a storage here and works on a thread.
async fn on_thread<O: Origin, T: Send + 'static>(
    mut origin: O,
    stop: &Stop,
    work: impl FnOnce(Stored) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (sender, queue) = mpsc::channel(DEPTH);
    let stored = Stored { queue, current: Bytes::new(), tally: Tally::default(), hmac: None, failed: None };
    let done = start("backstop-extract", move || work(stored))?;
    let feed = async move {
        while let Some(next) = origin.next().await.transpose() {
            let failed = next.is_err();
            if sender.send(next).await.is_err() || failed {
                break;
            }
        }
        drop(sender);
        future::pending::<T>().await
    };
    tokio::select! {
        biased;
        () = stop.stopped() => Err(Error::Stopped),
        done = ended(done) => done,
        done = feed => Ok(done),
    }
}
