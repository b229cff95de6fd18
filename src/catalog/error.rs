//! What can go wrong with the catalog, told by what a person has to do about it.
//!
//! SQLite's result codes are read here and nowhere else. A newcomer would match on messages; the codes are the promise.

use std::{
    error::Error as StdError,
    io,
    path::{Path, PathBuf},
};

use libsqlite3_sys as sqlite;
use sqlx::migrate::MigrateError;

use crate::{error::ExitCode, record::SlotId};

/// A result of the catalog.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Cause = Box<dyn StdError + Send + Sync>;

/// A step of the catalog that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state directory never had a catalog.
    #[error("there is no catalog at `{}`", path.display())]
    Missing {
        /// Where it would be.
        path: PathBuf,
    },
    /// The state directory had a catalog, and it is gone.
    #[error("the catalog `{}` is gone", path.display())]
    Vanished {
        /// Where it was.
        path: PathBuf,
    },
    /// The file is not, or no longer, a catalog.
    #[error("the catalog `{}` is damaged: {why}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// What SQLite said.
        source: Option<Cause>,
    },
    /// A newer release wrote it.
    #[error("the catalog `{}` has schema {found}, this release knows up to {known}", path.display())]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema this release knows.
        known: i64,
    },
    /// An older release wrote it, and it was opened for reading only, which upgrades nothing.
    #[error("the catalog `{}` has schema {found}, this release reads {known}", path.display())]
    TooOld {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The schema this release reads.
        known: i64,
    },
    /// The file or its directory cannot be written.
    #[error("the catalog `{}` cannot be written", path.display())]
    NotWritable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Option<Cause>,
    },
    /// Its file system is full. The file is intact and can be read.
    #[error("no space is left for the catalog `{}`", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// What SQLite or the system said.
        source: Cause,
    },
    /// Another process wrote for longer than we wait.
    #[error("the catalog `{}` is locked by another process", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: Cause,
    },
    /// The disk under it reports errors.
    #[error("reading or writing the catalog `{}` failed", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: Cause,
    },
    /// A file beside the catalog could not be handled.
    #[error("{what} `{}` failed", path.display())]
    File {
        /// What was done to it, e.g. "creating".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The schema could not be upgraded.
    #[error("upgrading the catalog `{}` failed", path.display())]
    Migrate {
        /// The file.
        path: PathBuf,
        /// Why.
        source: MigrateError,
    },
    /// The slot has a run that is open or has ended, so a second one must not begin.
    #[error("slot {slot} has its run already")]
    SlotTaken {
        /// The slot.
        slot: SlotId,
    },
    /// A query failed for another reason, which is a defect of ours.
    #[error("{what} in the catalog failed")]
    Query {
        /// What the query was for, e.g. "opening a run".
        what: &'static str,
        /// What SQLite said.
        source: sqlx::Error,
    },
}

impl Error {
    /// The exit code of a command that ends with this.
    pub fn exit(&self) -> ExitCode {
        match self {
            Error::Full { .. } => ExitCode::NoSpace,
            Error::Locked { .. } | Error::SlotTaken { .. } => ExitCode::Busy,
            Error::Query { .. } => ExitCode::Defect,
            _ => ExitCode::Storage,
        }
    }

    /// What a person should do next; a full sentence.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Error::Missing { .. } => "The first `backstop backup`, or the start of the daemon, makes it.",
            Error::Vanished { .. } | Error::Corrupt { .. } => {
                "Restart the daemon: it moves what is left aside, restores the newest good copy and deletes no backup \
                 until `backstop catalog accept`. Without a copy, `backstop catalog rebuild` reads the storages."
            }
            Error::TooNew { .. } => "Install the release that wrote it, or a newer one.",
            Error::TooOld { .. } => "Restart the daemon with this release; it upgrades the catalog.",
            Error::NotWritable { .. } => {
                "Check owner and mode of the state directory, and whether its file system is mounted read-only."
            }
            Error::Full { .. } => "Free space on the file system of the state directory; nothing was lost.",
            Error::Locked { .. } => "Try again; if it stays, find the process that has the file open with `fuser`.",
            Error::Disk { .. } => "Look into the system log for errors of the disk.",
            _ => return None,
        };
        Some(hint.to_owned())
    }

    pub(super) fn read_only(path: &Path) -> Self {
        let source = "it was opened for reading only".into();
        Error::NotWritable { path: path.to_owned(), source: Some(source) }
    }

    pub(super) fn corrupt(path: &Path, why: impl Into<String>) -> Self {
        Error::Corrupt { path: path.to_owned(), why: why.into(), source: None }
    }

    /// Reads SQLite's result code, or else says which query failed.
    pub(super) fn of(what: &'static str, path: &Path, source: sqlx::Error) -> Self {
        let path = path.to_owned();
        let code = result_code(&source).unwrap_or_default();
        match (code, code & 0xff) {
            (sqlite::SQLITE_READONLY_DBMOVED, _) => Error::Vanished { path },
            (_, sqlite::SQLITE_CANTOPEN) if !path.exists() => Error::Vanished { path },
            // The shared index could not grow: the commonest face of a full disk for a reader.
            (sqlite::SQLITE_IOERR_SHMSIZE, _) | (_, sqlite::SQLITE_FULL) => Error::Full { path, source: source.into() },
            (_, sqlite::SQLITE_CORRUPT | sqlite::SQLITE_NOTADB) => {
                Error::Corrupt { path, why: format!("found while {what}"), source: Some(source.into()) }
            }
            (_, sqlite::SQLITE_READONLY | sqlite::SQLITE_CANTOPEN | sqlite::SQLITE_PERM) => {
                Error::NotWritable { path, source: Some(source.into()) }
            }
            (_, sqlite::SQLITE_BUSY | sqlite::SQLITE_LOCKED) => Error::Locked { path, source: source.into() },
            (_, sqlite::SQLITE_IOERR) => Error::Disk { path, source: source.into() },
            _ if matches!(source, sqlx::Error::PoolTimedOut) => Error::Locked { path, source: source.into() },
            _ => Error::Query { what, source },
        }
    }

    /// Reads the system's error number.
    pub(super) fn file(what: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full { path, source: source.into() },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Error::NotWritable { path, source: Some(source.into()) }
            }
            _ => Error::File { what, path, source },
        }
    }

    pub(super) fn migration(path: &Path, source: MigrateError) -> Self {
        match source {
            MigrateError::Execute(source) => Error::of("upgrading", path, source),
            MigrateError::ExecuteMigration(source, _) if result_code(&source).is_some_and(|code| code & 0xff != 1) => {
                Error::of("upgrading", path, source)
            }
            source => Error::Migrate { path: path.to_owned(), source },
        }
    }
}

fn result_code(error: &sqlx::Error) -> Option<i32> {
    error.as_database_error()?.code()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use sqlx::Executor;

    use super::*;
    use crate::catalog::testing::{audit_something, catalog, open_second};

    #[tokio::test]
    async fn a_full_disk_is_told_apart_and_is_over_when_there_is_space() {
        let (_dir, catalog) = catalog().await;
        let writer = catalog.inner.writer.as_ref().unwrap();
        writer.execute("pragma max_page_count = 1").await.unwrap();
        let mut ended = Ok(String::new());
        for _ in 0..200 {
            ended = audit_something(&catalog, &"x".repeat(1000)).await;
            if ended.is_err() {
                break;
            }
        }
        let error = ended.unwrap_err();
        assert!(matches!(error, Error::Full { .. }), "{error:?}");
        assert_eq!(error.exit(), ExitCode::NoSpace);
        assert!(catalog.audit_list(1).await.is_ok(), "reading goes on");
        // The limit went with the connection on which it was hit.
        audit_something(&catalog, "again").await.unwrap();
    }

    #[tokio::test]
    async fn a_writer_that_never_ends_is_locked_not_a_defect() {
        let (dir, first) = catalog().await;
        let second = open_second(dir.path()).await;
        let mut held = first.inner.writer.as_ref().unwrap().begin_with("begin immediate").await.unwrap();
        sqlx::query("update meta set value = value").execute(&mut *held).await.unwrap();
        second.inner.writer.as_ref().unwrap().execute("pragma busy_timeout = 0").await.unwrap();
        let error = audit_something(&second, "x").await.unwrap_err();
        assert!(matches!(error, Error::Locked { .. }), "{error:?}");
        assert_eq!(error.exit(), ExitCode::Busy);
    }

    #[tokio::test]
    async fn writing_through_a_reader_is_refused() {
        let (_dir, catalog) = catalog().await;
        let source = sqlx::query("delete from windows").execute(&catalog.inner.reader).await.unwrap_err();
        let error = Error::of("testing", catalog.path(), source);
        assert!(matches!(error, Error::NotWritable { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn a_wrong_query_is_a_defect_and_says_what_it_was_for() {
        let (_dir, catalog) = catalog().await;
        let source = sqlx::query("select 1 from nowhere").execute(&catalog.inner.reader).await.unwrap_err();
        let error = Error::of("looking nowhere", catalog.path(), source);
        assert_eq!(error.to_string(), "looking nowhere in the catalog failed");
        assert_eq!(error.exit(), ExitCode::Defect);
    }

    #[test]
    fn a_read_only_file_system_is_not_writable() {
        let source = io::Error::from(io::ErrorKind::ReadOnlyFilesystem);
        assert!(matches!(Error::file("creating", Path::new("/x"), source), Error::NotWritable { .. }));
        let source = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(Error::file("creating", Path::new("/x"), source).exit(), ExitCode::NoSpace);
    }
}
