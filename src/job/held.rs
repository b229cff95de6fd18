//! The locks that whoever works must hold: the database's, and one of the `max_parallel` places.
//!
//! They are files under `state_dir/locks`, so the daemon and the command line see each other, and they vanish with the
//! process that holds them.

use std::path::Path;

use crate::{
    lock::{Lock, LockError},
    record::JobKey,
};

/// The locks of one run; dropping it lets go.
#[derive(Debug)]
pub struct Held {
    _locks: Vec<Lock>,
}

impl Held {
    /// Takes what a job of this kind needs, or nothing at all when something is taken (`None`).
    ///
    /// # Errors
    /// When a lock file cannot be made or opened.
    pub fn take(state_dir: &Path, job: &JobKey, max_parallel: usize) -> Result<Option<Self>, LockError> {
        if !job.kind.is_exclusive() {
            return Ok(Some(Self { _locks: Vec::new() }));
        }
        let mut locks = Vec::with_capacity(2);
        if let Some(database) = &job.database {
            let Some(lock) = Lock::database(state_dir, database)? else { return Ok(None) };
            locks.push(lock);
        }
        let Some(place) = Lock::place(state_dir, max_parallel)? else { return Ok(None) };
        locks.push(place);
        Ok(Some(Self { _locks: locks }))
    }
}
