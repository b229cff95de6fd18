//! Where dump artifacts live: written in one step, read back, listed, deleted.
//!
//! Paths are relative, with `/` between their parts: `DATABASE/BACKUP-ID/FILE`. What is at a path is whole: an upload
//! becomes visible by [`Upload::finish`] or never. No part of a path begins with a dot; such names are for what is not
//! whole. A newcomer would treat "cannot be asked" as "is not there".
//!
//! The parts: `filesystem.rs` is a directory, `object.rs` a bucket. Both keep the promises of `tests.rs`.

mod filesystem;
mod object;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use self::{filesystem::Filesystem, object::Bucket};
use crate::{
    error::ExitCode,
    policy::{self, Place, SecretError},
    record::{ErrorClass, Failure},
};

/// Why a storage did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A credential cannot be read.
    #[error("a credential of storage `{storage}` cannot be read")]
    Secret {
        /// The storage.
        storage: String,
        /// Why.
        source: SecretError,
    },
    /// There is nothing at this path.
    #[error("storage `{storage}` has no `{path}`")]
    NotFound {
        /// The storage.
        storage: String,
        /// The path within it.
        path: String,
    },
    /// No space is left.
    #[error("storage `{storage}` is full")]
    Full {
        /// The storage.
        storage: String,
    },
    /// It answers, and refuses: rights, a wrong key, a bucket that is not there.
    #[error("storage `{storage}` refuses: {why}")]
    Refused {
        /// The storage.
        storage: String,
        /// What it said.
        why: String,
    },
    /// The object is locked.
    #[error("storage `{storage}` keeps `{path}` locked: {why}")]
    Locked {
        /// The storage.
        storage: String,
        /// The path within it.
        path: String,
        /// What it said.
        why: String,
    },
    /// A directory that others could have changed.
    #[error("`{}` is not to be trusted: {why}", path.display())]
    Untrusted {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Something should be in it, and it has not even our mark.
    #[error("storage `{storage}` is not mounted? `{place}` has no mark of ours, and backups should lie there")]
    NotMounted {
        /// The storage.
        storage: String,
        /// Its root.
        place: String,
    },
    /// It cannot be reached or broke off.
    #[error("storage `{storage}` cannot be reached: {why}")]
    Unreachable {
        /// The storage.
        storage: String,
        /// Why.
        why: String,
    },
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        use ErrorClass::{Config, Integrity, Space, Transient};
        let (class, exit, remedy) = match &error {
            Error::Secret { storage, .. } => {
                let remedy = format!("Put the credentials of `storage.{storage}` where the policy says.");
                (Config, ExitCode::Configuration, remedy)
            }
            Error::NotFound { .. } => {
                let remedy = "Find out who removed it; Backstop did not.".to_owned();
                (Integrity, ExitCode::Storage, remedy)
            }
            Error::Full { storage } => {
                (Space, ExitCode::NoSpace, format!("Free space in storage `{storage}`, or keep fewer backups there."))
            }
            Error::Refused { storage, .. } => {
                (Config, ExitCode::Storage, format!("Mend what it says, or `storage.{storage}` in the policy."))
            }
            Error::Locked { .. } => {
                (Config, ExitCode::Storage, "Wait until its lock ends; it is there so that nobody can.".to_owned())
            }
            Error::Untrusted { .. } => {
                let remedy = "Mend its owner and mode, and look at what lies in it.".to_owned();
                (Config, ExitCode::Configuration, remedy)
            }
            Error::NotMounted { place, .. } => {
                let mark = std::path::Path::new(place).join(filesystem::MARK);
                let remedy =
                    format!("Mount its file system. If it was replaced on purpose: `touch {}`.", mark.display());
                (Transient, ExitCode::Storage, remedy)
            }
            Error::Unreachable { storage, .. } => {
                let remedy = format!("Look at the network, the mount and the service behind storage `{storage}`.");
                (Transient, ExitCode::Storage, remedy)
            }
        };
        Failure { class, exit, message: crate::error::chain(&error), remedy: Some(remedy) }
    }
}

/// Something that lies in a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its path within the storage.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
}

/// A storage, ready to be used. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Storage(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Filesystem(Filesystem),
    Bucket(Bucket),
}

impl Storage {
    /// Opens a storage; its credentials are read now.
    ///
    /// # Errors
    /// When a credential cannot be read, or a directory is not to be trusted.
    pub async fn open(policy: &policy::Storage) -> Result<Self, Error> {
        let kind = match &policy.place {
            Place::Filesystem { path } => Kind::Filesystem(Filesystem::open(&policy.name, path).await?),
            Place::S3(settings) => Kind::Bucket(Bucket::open(&policy.name, settings)?),
        };
        Ok(Self(kind))
    }

    /// Opens a storage in which something of ours should lie. Nothing may be concluded from what an empty mount point
    /// lacks, nor may it be filled.
    ///
    /// # Errors
    /// As [`Storage::open`], and when it has no mark.
    pub async fn open_used(policy: &policy::Storage) -> Result<Self, Error> {
        let storage = Self::open(policy).await?;
        if storage.is_marked().await? {
            return Ok(storage);
        }
        Err(Error::NotMounted { storage: policy.name.clone(), place: storage.locate("") })
    }

    /// Its name in the policy.
    pub fn name(&self) -> &str {
        match &self.0 {
            Kind::Filesystem(directory) => directory.name(),
            Kind::Bucket(bucket) => bucket.name(),
        }
    }

    /// A path as a person would write it: `/srv/backups/shop/…`, `s3://bucket/shop/…`.
    pub fn locate(&self, path: &str) -> String {
        match &self.0 {
            Kind::Filesystem(directory) => directory.locate(path),
            Kind::Bucket(bucket) => bucket.locate(path),
        }
    }

    /// Writes, reads and removes a small file, to see that it would work. Nothing is left of it, also not in a bucket
    /// with `object_lock`: a part is uploaded and dropped there.
    ///
    /// # Errors
    /// When it would not.
    pub async fn check(&self) -> Result<(), Error> {
        match &self.0 {
            Kind::Filesystem(directory) => directory.check().await,
            Kind::Bucket(bucket) => bucket.check().await,
        }
    }

    /// Marks it as ours, before the first backup goes there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn mark(&self) -> Result<(), Error> {
        match &self.0 {
            Kind::Filesystem(directory) => directory.mark().await,
            Kind::Bucket(_) => Ok(()),
        }
    }

    /// Whether it is marked. A directory that has copies by the catalog and no mark is a mount point without its file
    /// system. A bucket cannot be mistaken like that; always true.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn is_marked(&self) -> Result<bool, Error> {
        match &self.0 {
            Kind::Filesystem(directory) => directory.is_marked().await,
            Kind::Bucket(_) => Ok(true),
        }
    }

    /// Bytes that can still be written; none where there is no limit that can be asked.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn free_space(&self) -> Result<Option<u64>, Error> {
        match &self.0 {
            Kind::Filesystem(directory) => directory.free_space().await.map(Some),
            Kind::Bucket(_) => Ok(None),
        }
    }

    /// Begins a file. Nothing is visible before [`Upload::finish`]. `lock_until` is obeyed where the policy says
    /// `object_lock`.
    ///
    /// # Errors
    /// When it cannot be begun, or something is at the path.
    pub async fn create(&self, path: &str, lock_until: Option<DateTime<Utc>>) -> Result<Upload, Error> {
        let writing = match &self.0 {
            Kind::Filesystem(directory) => Writing::File(directory.create(path).await?),
            Kind::Bucket(bucket) => Writing::Object(Box::new(bucket.create(path, lock_until).await?)),
        };
        Ok(Upload(writing))
    }

    /// Opens a file for reading from its beginning.
    ///
    /// # Errors
    /// When it is not there or cannot be read.
    pub async fn read(&self, path: &str) -> Result<Reader, Error> {
        let reading = match &self.0 {
            Kind::Filesystem(directory) => Reading::File(directory.read(path).await?),
            Kind::Bucket(bucket) => Reading::Object(Box::new(bucket.read(path).await?)),
        };
        Ok(Reader(reading))
    }

    /// Everything below a directory, in the order of paths; `""` is everything. Unfinished uploads are not listed.
    ///
    /// # Errors
    /// When it cannot be listed. A directory that is not there is empty.
    pub async fn list(&self, directory: &str) -> Result<Vec<Stored>, Error> {
        match &self.0 {
            Kind::Filesystem(root) => root.list(directory).await,
            Kind::Bucket(bucket) => bucket.list(directory).await,
        }
    }

    /// Removes a file, and the directories that become empty. It is no error when nothing is there.
    ///
    /// # Errors
    /// When it cannot be removed, e.g. because it is locked.
    pub async fn remove(&self, path: &str) -> Result<(), Error> {
        match &self.0 {
            Kind::Filesystem(directory) => directory.remove(path).await,
            Kind::Bucket(bucket) => bucket.remove(path).await,
        }
    }

    /// Removes what unfinished uploads left below a directory (after a crash); tells how many there were. Uploads that
    /// go on are lost, so the caller holds the lock of who writes there.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn sweep(&self, directory: &str) -> Result<u32, Error> {
        match &self.0 {
            Kind::Filesystem(root) => root.sweep(directory).await,
            Kind::Bucket(bucket) => bucket.sweep(directory).await,
        }
    }
}

/// A file that is being written. Dropping it leaves nothing visible; what it left is removed by [`Storage::sweep`].
#[derive(Debug)]
pub struct Upload(Writing);

#[derive(Debug)]
enum Writing {
    File(filesystem::Writing),
    Object(Box<object::Writing>),
}

impl Upload {
    /// Writes the next bytes; slow storages make the caller wait.
    ///
    /// # Errors
    /// When the storage fails; the upload is then of no more use and should be discarded.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        match &mut self.0 {
            Writing::File(file) => file.write(bytes).await,
            Writing::Object(object) => object.write(bytes).await,
        }
    }

    /// Makes the file durable and visible, in one step.
    ///
    /// # Errors
    /// When the storage fails; nothing is visible then.
    pub async fn finish(self) -> Result<(), Error> {
        match self.0 {
            Writing::File(file) => file.finish().await,
            Writing::Object(object) => object.finish().await,
        }
    }

    /// Removes what was written.
    pub async fn discard(self) {
        match self.0 {
            Writing::File(file) => file.discard().await,
            Writing::Object(object) => object.discard().await,
        }
    }
}

/// A file that is being read.
#[derive(Debug)]
pub struct Reader(Reading);

#[derive(Debug)]
enum Reading {
    File(filesystem::Reading),
    Object(Box<object::Reading>),
}

impl Reader {
    /// The next bytes; none at the end.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        match &mut self.0 {
            Reading::File(file) => file.next().await,
            Reading::Object(object) => object.next().await,
        }
    }
}

/// The parts of a path within a storage. What is hidden, empty or leads out of it is no path of ours.
fn parts<'a>(storage: &str, path: &'a str) -> Result<Vec<&'a str>, Error> {
    let parts: Vec<&str> = path.split('/').collect();
    let is_fit = |part: &&str| !part.is_empty() && !part.starts_with('.') && !part.contains(char::is_control);
    if parts.iter().all(is_fit) {
        return Ok(parts);
    }
    let why = format!("{path:?} is no path of Backstop's");
    Err(Error::Refused { storage: storage.to_owned(), why })
}

/// The same for a directory, where `""` is everything.
fn directory_parts<'a>(storage: &str, directory: &'a str) -> Result<Vec<&'a str>, Error> {
    if directory.is_empty() { Ok(Vec::new()) } else { parts(storage, directory) }
}
