//! A tool's output → count and checksum → compression → encryption → every storage at once, and the way back.
//!
//! Constant memory, no copy on the disk, the slowest part sets the pace. A storage that fails loses its copy, the others
//! go on. A newcomer would finish an upload when the tool's output ends; a tool that was killed ends its output too, so
//! the caller publishes only after the tool ended well.

//!
//! The parts: `send.rs` is the way out and `extract.rs` the way back; `compress.rs`, `encrypt.rs` and `tally.rs` are what
//! happens to the bytes, `fan_out.rs` the uploads, `thread.rs` the threads for what blocks.

mod compress;
pub mod encrypt;
mod extract;
mod fan_out;
mod send;
mod tally;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod thread;

use std::{
    io::{Read, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::task::JoinSet;

pub use self::encrypt::{KeyError, Opener, Sealer};
use crate::{
    error::{ExitCode, chain},
    process::Stop,
    record::{Artifact, Compression, Digest, ErrorClass, Failure},
    storage::{self, Upload},
};

/// How a stream is made smaller and secret.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// Compression.
    pub compression: Compression,
    /// Encryption; none: not encrypted.
    pub sealer: Option<Sealer>,
}

/// Looks at the plain text as it goes by: a trailer, a table of contents.
pub trait Inspect: Send + Sync {
    /// Sees the next bytes.
    fn see(&mut self, bytes: &[u8]);

    /// Says at the end what is wrong, if anything: one line, lower case.
    ///
    /// # Errors
    /// What is wrong.
    fn end(self: Box<Self>) -> Result<(), String>;
}

/// How far a stream is; may be read from another task. Cheap to clone, and one may be used for several streams in turn.
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    raw: AtomicU64,
    stored: AtomicU64,
}

impl Meter {
    /// Bytes that came from the tool so far, all streams together.
    pub fn raw(&self) -> u64 {
        self.0.raw.load(Ordering::Relaxed)
    }

    /// Bytes that went to each storage so far.
    pub fn stored(&self) -> u64 {
        self.0.stored.load(Ordering::Relaxed)
    }

    fn add_raw(&self, bytes: usize) {
        self.0.raw.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn add_stored(&self, bytes: usize) {
        self.0.stored.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Why a stream came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tool's output cannot be read.
    #[error("the tool's output cannot be read")]
    Read(#[source] std::io::Error),
    /// Compression or encryption failed.
    #[error("{what} failed")]
    Transform {
        /// `compressing`, `encrypting`, …
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// No storage is left that takes it; the first one's error.
    #[error("no storage took the backup")]
    NoStorage(#[source] storage::Error),
    /// What was stored is not what was written.
    #[error("{0}")]
    Damaged(String),
    /// The key does not open it.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The storage failed while it was read.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// The place for the content failed.
    #[error("writing what was read failed")]
    Write(#[source] std::io::Error),
    /// Somebody wants to stop.
    #[error("stopped")]
    Stopped,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = chain(&error);
        let (class, exit, remedy) = match error {
            Error::NoStorage(source) => return Failure { message, ..source.into() },
            Error::Storage(source) => return source.into(),
            Error::Key(source) => return source.into(),
            Error::Read(_) => (ErrorClass::Transient, ExitCode::Connection, "Look at what the tool said."),
            Error::Transform { .. } => (
                ErrorClass::Transient,
                ExitCode::Defect,
                "Look at the memory and process limits of this machine; if they suffice, report this defect.",
            ),
            Error::Damaged(_) => (
                ErrorClass::Integrity,
                ExitCode::VerificationFailed,
                "Use another copy, and look at the disk or the service that this one is on.",
            ),
            Error::Write(source) if source.kind() == std::io::ErrorKind::StorageFull => {
                (ErrorClass::Space, ExitCode::NoSpace, "Free space where the content goes.")
            }
            Error::Write(_) => {
                (ErrorClass::Transient, ExitCode::RestoreFailed, "Look at what takes the content: a tool, or a disk.")
            }
            Error::Stopped => {
                return Failure { class: ErrorClass::Stopped, exit: ExitCode::Interrupted, message, remedy: None };
            }
        };
        Failure { class, exit, message, remedy: Some(remedy.to_owned()) }
    }
}

/// A stream that came to its end and is not visible yet.
#[derive(Debug)]
pub struct Pending<S = Upload> {
    /// What the tool wrote.
    pub raw: Digest,
    /// What went to the storages.
    pub stored: Digest,
    /// HMAC over salt and ciphertext, for `aes-256-ctr`.
    pub hmac: Option<String>,
    /// What the inspector found wrong.
    pub complaint: Option<String>,
    /// The uploads by storage, each whole or failed.
    pub uploads: Vec<(String, Result<S, storage::Error>)>,
}

impl Pending {
    /// Makes it visible in each storage; tells what became of each.
    pub async fn publish(self) -> Vec<(String, Result<(), storage::Error>)> {
        let mut tasks = JoinSet::new();
        let (names, uploads): (Vec<_>, Vec<_>) = self.uploads.into_iter().unzip();
        for (index, upload) in uploads.into_iter().enumerate() {
            tasks.spawn(async move {
                let published = match upload {
                    Ok(upload) => upload.finish().await,
                    Err(error) => Err(error),
                };
                (index, published)
            });
        }
        let mut published = tasks.join_all().await;
        published.sort_by_key(|(index, _)| *index);
        names.into_iter().zip(published.into_iter().map(|(_, published)| published)).collect()
    }

    /// Leaves nothing of it.
    pub async fn discard(self) {
        for (_, upload) in self.uploads {
            if let Ok(upload) = upload {
                upload.discard().await;
            }
        }
    }
}

/// Sends `source` to its end through the recipe into every upload. Blocking work happens on threads of its own.
///
/// When it is stopped, the source may still be in a read; it is let go when that read ends, so end the tool.
///
/// # Errors
/// When the source or the recipe fails, when no upload is left, or when stopped; everything is discarded then.
pub async fn store(
    source: impl Read + Send + 'static,
    recipe: &Recipe,
    inspect: Option<Box<dyn Inspect>>,
    uploads: Vec<(String, Upload)>,
    meter: &Meter,
    stop: &Stop,
) -> Result<Pending, Error> {
    send::store(source, recipe, inspect, uploads, meter, stop).await
}

/// Reads a stored file to its end and compares length, checksum and, where the opener allows, the HMAC. Needs no key.
///
/// # Errors
/// [`Error::Damaged`] says what differs. [`KeyError::Wrong`]: the bytes are those that were written, their HMAC is not
/// that of this key.
pub async fn check(
    reader: storage::Reader,
    artifact: &Artifact,
    opener: Option<&Opener>,
    stop: &Stop,
) -> Result<(), Error> {
    extract::check(reader, artifact, opener, stop).await
}

/// Reads a stored file, decrypts, decompresses and writes it; compares both checksums on the way. What was written
/// before an error was found must not be used. `into` is flushed and dropped before this returns, unless it was stopped.
///
/// # Errors
/// When it is damaged, the key is wrong or missing, or reading or writing fails.
pub async fn extract(
    reader: storage::Reader,
    artifact: &Artifact,
    compression: Compression,
    opener: Option<&Opener>,
    into: impl Write + Send + 'static,
    stop: &Stop,
) -> Result<(), Error> {
    extract::extract(reader, artifact, compression, opener, into, stop).await
}
