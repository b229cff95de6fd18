//! The catalog: what happened, kept in SQLite, and the only SQL against it.
//!
//! One writer connection at a time (`begin immediate`, `synchronous = full`): what a method returned is on the disk.
//! Readers have connections of their own and never wait for the writer. No connection has a timer, so an idle catalog
//! wakes nobody. The parts, by noun: `open.rs` the doors, `schema.rs` the tables, `recover.rs` what to do when the file is damaged or gone,
//! `rebuild.rs` what the storages prove,
//! `copy.rs` the nightly copy, `jobs.rs` `slots.rs` `runs.rs` `history.rs` the ledger, `backups.rs` `dumps.rs` `proofs.rs`
//! `wal.rs` what can be restored, `alerts.rs` `audit.rs` `policies.rs`, `keep.rs` what is forgotten. `fields.rs` and `error.rs`
//! serve them all.
//!
//! A newcomer would decide something in a query ("expire all backups older than …"). The catalog remembers; it is asked
//! for facts, and told what was decided elsewhere.

mod alerts;
mod audit;
mod backups;
mod bulk;
mod copy;
mod dumps;
mod error;
mod fate;
mod fields;
mod history;
mod jobs;
mod keep;
mod open;
mod policies;
mod proofs;
pub mod rebuild;
mod recover;
mod rules;
mod runs;
mod schema;
mod slots;
#[cfg(test)]
mod testing;
mod wal;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use sqlx::{Connection, SqliteConnection, SqlitePool};

pub use self::{
    alerts::{Alert, Raised},
    audit::{AuditEntry, Chain},
    backups::{BackupFilter, BackupSort},
    dumps::{DumpHistory, standing},
    error::{Error, Result},
    history::{LastRun, RunFilter, Share},
    keep::Pruned,
    policies::AcceptedPolicy,
    proofs::ProofSummary,
    recover::{Opened, RecoveryMode},
    slots::SkippedSlot,
};

/// The catalog of one state directory. Cheap to clone; all clones share the connections.
#[derive(Debug, Clone)]
pub struct Catalog {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state_dir: PathBuf,
    path: PathBuf,
    /// Device and inode of the file that was opened.
    identity: Option<(u64, u64)>,
    /// None when opened for reading only.
    writer: Option<SqlitePool>,
    reader: SqlitePool,
    /// For a file that nobody has open: reads it without making the two files that SQLite shares among processes.
    resting: Option<SqlitePool>,
}

impl Catalog {
    /// The catalog's file.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Whether the path still leads to the file that was opened.
    ///
    /// Writes into a file that was deleted or replaced go on "succeeding" and are lost, so the daemon asks each minute.
    pub fn still_in_place(&self) -> bool {
        self.inner.identity.is_some() && open::identity(&self.inner.path) == self.inner.identity
    }

    /// Closes all connections; the last writer leaves a single file without `-wal` and `-shm` beside it.
    pub async fn close(&self) {
        self.inner.reader.close().await;
        if let Some(resting) = &self.inner.resting {
            resting.close().await;
        }
        if let Some(writer) = &self.inner.writer {
            writer.close().await;
        }
    }

    /// Does `work` in one transaction that is durable when this returns, or did not happen.
    async fn write<T>(
        &self,
        what: &'static str,
        work: impl AsyncFnOnce(&mut SqliteConnection) -> sqlx::Result<T>,
    ) -> Result<T> {
        let path = &self.inner.path;
        let writer = self.inner.writer.as_ref().ok_or_else(|| Error::read_only(path))?;
        transact(writer, "begin immediate", work).await.map_err(|source| Error::of(what, path, source))
    }

    /// Answers `question` from one snapshot, without waiting for the writer.
    async fn read<T>(
        &self,
        what: &'static str,
        question: impl AsyncFnOnce(&mut SqliteConnection) -> sqlx::Result<T>,
    ) -> Result<T> {
        let path = &self.inner.path;
        transact(self.reader(), "begin", question).await.map_err(|source| Error::of(what, path, source))
    }

    fn reader(&self) -> &SqlitePool {
        match &self.inner.resting {
            Some(resting) if !open::is_in_use(&self.inner.path) => resting,
            _ => &self.inner.reader,
        }
    }
}

/// Does `work` between `begin` and a commit.
///
/// After an error the connection is closed and the next one is new: on a full disk SQLite rolls back by itself, sqlx 0.9
/// does not see it, takes the transaction for open and refuses every later one on that connection.
async fn transact<T>(
    pool: &SqlitePool,
    begin: &'static str,
    work: impl AsyncFnOnce(&mut SqliteConnection) -> sqlx::Result<T>,
) -> sqlx::Result<T> {
    let mut conn = pool.acquire().await?;
    let done = async {
        let mut tx = conn.begin_with(begin).await?;
        let value = work(&mut tx).await?;
        tx.commit().await?;
        Ok(value)
    };
    match done.await {
        Ok(value) => Ok(value),
        Err(error) => {
            let _ = conn.close().await;
            Err(error)
        }
    }
}
