//! Locks between processes: who is the daemon, who works on a database, who has a place of `max_parallel`.
//!
//! A lock is `flock` on a file of its own, so it ends with its holder however that dies; the file stays. The file also
//! names the holder, for messages only: what it says decides nothing. A newcomer would delete the file on release; two
//! processes could then hold the lock of the same name on two different files.

use std::{
    fs::{DirBuilder, File, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    clock, process,
    record::{DatabaseName, ProcessIdentity},
};

/// Why a lock can be neither taken nor seen to be busy.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// There is no directory for it.
    #[error("the lock directory `{}` cannot be made", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be opened, locked or written.
    #[error("the lock file `{}` cannot be used", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What is locked: being the daemon, a database, or a place of `max_parallel`, counted from 0.
#[derive(Debug, Clone, Copy)]
enum Target<'a> {
    Daemon,
    Database(&'a DatabaseName),
    Place(usize),
}

impl Target<'_> {
    fn path(self, state_dir: &Path) -> PathBuf {
        let name = match self {
            Target::Daemon => "daemon.lock".to_owned(),
            Target::Database(name) => format!("database-{name}.lock"),
            Target::Place(number) => format!("place-{number}.lock"),
        };
        state_dir.join("locks").join(name)
    }
}

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Holder {
    process: ProcessIdentity,
    since: DateTime<Utc>,
    what: String,
}

impl Lock {
    /// Becomes the daemon of this state directory; none when another is.
    ///
    /// # Errors
    /// When the lock file cannot be used.
    pub fn daemon(state_dir: &Path) -> Result<Option<Lock>, LockError> {
        Self::take(state_dir, Target::Daemon, "the daemon")
    }

    /// Takes a database; none when somebody works on it.
    ///
    /// # Errors
    /// When the lock file cannot be used.
    pub fn database(state_dir: &Path, name: &DatabaseName) -> Result<Option<Lock>, LockError> {
        Self::take(state_dir, Target::Database(name), "work on the database")
    }

    /// Takes the first free place of `max_parallel`; none when all are taken.
    ///
    /// # Errors
    /// When a lock file cannot be used.
    pub fn place(state_dir: &Path, max_parallel: usize) -> Result<Option<Lock>, LockError> {
        for number in 0..max_parallel {
            if let Some(lock) = Self::take(state_dir, Target::Place(number), "a run")? {
                return Ok(Some(lock));
            }
        }
        Ok(None)
    }

    /// Says in the lock file what the holder does, e.g. "run 42, full backup of `orders`".
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn describe(&self, what: &str) -> Result<(), LockError> {
        let holder = Holder { process: process::own_identity(), since: clock::now(), what: what.to_owned() };
        let text = serde_json::to_vec(&holder).expect("names, numbers and times have a form in JSON");
        let written = self.file.set_len(0).and_then(|()| self.file.write_all_at(&text, 0));
        written.and_then(|()| (&self.file).flush()).map_err(|source| self.failed(source))
    }

    fn take(state_dir: &Path, target: Target<'_>, what: &str) -> Result<Option<Lock>, LockError> {
        let path = target.path(state_dir);
        make_directory(&state_dir.join("locks"))?;
        loop {
            let Some(lock) = Self::try_file(&path)? else { return Ok(None) };
            // Somebody may have removed the file between our opening and our locking it.
            if lock.is_the_one_with_the_name() {
                lock.describe(what)?;
                return Ok(Some(lock));
            }
        }
    }

    fn try_file(path: &Path) -> Result<Option<Lock>, LockError> {
        let failed = |source| LockError::File { path: path.to_owned(), source };
        let options = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = options.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { file, path: path.to_owned() })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    fn is_the_one_with_the_name(&self) -> bool {
        let named = self.path.metadata().map(|meta| (meta.dev(), meta.ino()));
        let held = self.file.metadata().map(|meta| (meta.dev(), meta.ino()));
        named.is_ok_and(|named| held.is_ok_and(|held| held == named))
    }

    fn failed(&self, source: io::Error) -> LockError {
        LockError::File { path: self.path.clone(), source }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Only for messages; a file that cannot be emptied names a holder who is found dead.
        let _ = self.file.set_len(0);
        // Closing alone would leave it to a child that is being started just now and has the file until its program runs.
        let _ = self.file.unlock();
    }
}

/// Which process is the daemon of this state directory, for a message; none when nobody is or nobody can tell.
pub fn daemon_holder(state_dir: &Path) -> Option<String> {
    holder(state_dir, Target::Daemon)
}

/// Who works on a database, for a message; none when nobody does or nobody can tell.
pub fn database_holder(state_dir: &Path, name: &DatabaseName) -> Option<String> {
    holder(state_dir, Target::Database(name))
}

fn holder(state_dir: &Path, target: Target<'_>) -> Option<String> {
    let text = std::fs::read(target.path(state_dir)).ok()?;
    let holder: Holder = serde_json::from_slice(&text).ok()?;
    let since = holder.since.format("%Y-%m-%d %H:%M:%S UTC");
    process::is_alive(&holder.process)
        .then(|| format!("process {} ({}) since {since}", holder.process.pid, holder.what))
}

fn make_directory(path: &Path) -> Result<(), LockError> {
    let failed = |source| LockError::Directory { path: path.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DatabaseName {
        text.parse().unwrap()
    }

    #[test]
    fn a_database_is_worked_on_by_one_at_a_time() {
        let state = tempfile::tempdir().unwrap();
        let first = Lock::database(state.path(), &name("orders")).unwrap().unwrap();
        assert!(Lock::database(state.path(), &name("orders")).unwrap().is_none());
        assert!(Lock::database(state.path(), &name("users")).unwrap().is_some());
        drop(first);
        assert!(Lock::database(state.path(), &name("orders")).unwrap().is_some());
    }

    #[test]
    fn there_are_as_many_places_as_runs_at_once() {
        let state = tempfile::tempdir().unwrap();
        let taken: Vec<Lock> = (0..3).map(|_| Lock::place(state.path(), 3).unwrap().unwrap()).collect();
        assert!(Lock::place(state.path(), 3).unwrap().is_none());
        drop(taken);
        assert!(Lock::place(state.path(), 3).unwrap().is_some());
    }

    #[test]
    fn a_held_lock_names_its_holder_and_a_free_one_nobody() {
        let state = tempfile::tempdir().unwrap();
        let orders = name("orders");
        assert_eq!(database_holder(state.path(), &orders), None);
        let lock = Lock::database(state.path(), &orders).unwrap().unwrap();
        lock.describe("run 42, full backup of `orders`").unwrap();
        let text = database_holder(state.path(), &orders).unwrap();
        assert!(text.starts_with(&format!("process {} (run 42, full backup of `orders`) since ", std::process::id())));
        drop(lock);
        assert_eq!(database_holder(state.path(), &orders), None);
    }

    #[test]
    fn a_holder_that_died_without_a_word_is_not_named() {
        let state = tempfile::tempdir().unwrap();
        let lock = Lock::daemon(state.path()).unwrap().unwrap();
        let dead = ProcessIdentity { start_ticks: 1, ..process::own_identity() };
        let text = serde_json::to_vec(&Holder { process: dead, since: clock::now(), what: "x".into() }).unwrap();
        lock.file.write_all_at(&text, 0).unwrap();
        assert_eq!(daemon_holder(state.path()), None);
    }

    #[test]
    fn a_lock_file_that_was_removed_does_not_give_the_lock_twice() {
        let state = tempfile::tempdir().unwrap();
        let path = Target::Daemon.path(state.path());
        make_directory(&state.path().join("locks")).unwrap();
        let stale = Lock::try_file(&path).unwrap().unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(!stale.is_the_one_with_the_name());
        let lock = Lock::daemon(state.path()).unwrap().unwrap();
        assert!(lock.is_the_one_with_the_name());
    }

    #[test]
    fn only_the_owner_may_read_a_lock() {
        let state = tempfile::tempdir().unwrap();
        let lock = Lock::daemon(state.path()).unwrap().unwrap();
        assert_eq!(lock.path.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(lock.path.parent().unwrap().metadata().unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_an_error_not_a_busy_lock() {
        let error = Lock::daemon(Path::new("/proc/nowhere")).unwrap_err();
        assert!(matches!(error, LockError::Directory { .. }));
    }
}
