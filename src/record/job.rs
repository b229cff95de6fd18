//! What should happen, and each time that it should: jobs and their slots.
//!
//! A newcomer would identify a slot by when it ran; its identity is the job and the nominal instant.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{BackupType, DatabaseName, RepoKey, words};

words! {
    /// What a job does.
    JobKind {
        /// A full backup.
        Full = "full",
        /// A differential backup.
        Diff = "diff",
        /// An incremental backup.
        Incr = "incr",
        /// Looks at WAL archiving and at the archive itself.
        Wal = "wal",
        /// Ends backups by the retention rules.
        Expire = "expire",
        /// Lets the tool re-read the repository against its checksums.
        Verify = "verify",
        /// Restores the newest backup into a throw-away server and checks it.
        TestRestore = "test_restore",
        /// Copies the catalog itself.
        CatalogBackup = "catalog_backup",
    }
}

impl JobKind {
    /// The backup type of a backup job, `None` for all other jobs.
    pub const fn backup_type(self) -> Option<BackupType> {
        match self {
            JobKind::Full => Some(BackupType::Full),
            JobKind::Diff => Some(BackupType::Diff),
            JobKind::Incr => Some(BackupType::Incr),
            _ => None,
        }
    }

    /// Whether runs of this kind take the database's lock and a place of `max_parallel`.
    ///
    /// WAL checks and the copy of the catalog only look, so they run beside a backup and have a limit of their own.
    pub const fn is_exclusive(self) -> bool {
        !matches!(self, JobKind::Wal | JobKind::CatalogBackup)
    }
}

impl From<BackupType> for JobKind {
    fn from(backup_type: BackupType) -> Self {
        match backup_type {
            BackupType::Full => JobKind::Full,
            BackupType::Diff => JobKind::Diff,
            BackupType::Incr => JobKind::Incr,
        }
    }
}

/// The identity of a job: what happens to which database, on which repository, by which schedule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobKey {
    /// The database, or none for the daemon's own jobs.
    pub database: Option<DatabaseName>,
    /// What the job does.
    pub kind: JobKind,
    /// The repository it concerns, where the kind is per repository.
    pub repo: Option<RepoKey>,
    /// The name of the schedule, where a kind has several.
    pub name: Option<String>,
}

impl fmt::Display for JobKey {
    /// `orders/full`, `orders/full@2`, `orders/incr:night`, `catalog_backup`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(database) = &self.database {
            write!(f, "{database}/")?;
        }
        write!(f, "{}", self.kind)?;
        if let Some(repo) = self.repo {
            write!(f, "@{repo}")?;
        }
        if let Some(name) = &self.name {
            write!(f, ":{name}")?;
        }
        Ok(())
    }
}

words! {
    /// Where a slot stands.
    SlotState {
        /// Its time has come and nobody works on it; also a slot that an interrupted run gave back.
        Due = "due",
        /// A daemon took it and will start or has started a run.
        Claimed = "claimed",
        /// A run ended for it, well or not.
        Done = "done",
        /// It will not run; the reason says why.
        Skipped = "skipped",
        /// A larger backup that was due at the same time does its work.
        Superseded = "superseded",
        /// Several missed slots of one job were made up for by one run; this one was among them.
        Coalesced = "coalesced",
    }
}

/// One occurrence of a job: the job and the nominal instant at which its schedule says it should happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The job.
    pub job: JobKey,
    /// The instant by the schedule, before splay.
    pub nominal_at: DateTime<Utc>,
    /// How many earlier slots of the job were missed and are made up for by this one.
    pub missed_count: u32,
    /// `None`: to be run. Otherwise recorded as skipped, with the reason.
    pub skip: Option<String>,
}
