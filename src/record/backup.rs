//! A backup: an artifact that can be restored, and what is known of it.
//!
//! A newcomer would count every row as a backup; only one that [`Backup::is_good`] is one.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{BackupCopy, CopyState, DatabaseName, Dump, RepoKey, words};

words! {
    /// The tool family that makes a database's backups.
    EngineKind {
        /// Physical PostgreSQL backups with WAL, by pgBackRest.
        PgBackRest = "pgbackrest",
        /// Logical dumps of a PostgreSQL database, by pg_dump.
        PgDump = "pg_dump",
        /// Logical dumps of MySQL or MariaDB databases, by mariadb-dump or mysqldump.
        MySqlDump = "mysqldump",
        /// Copies of a SQLite database.
        Sqlite = "sqlite",
    }
}

words! {
    /// How much a backup copies. A diff needs its full, an incr the chain before it.
    BackupType {
        /// Everything.
        Full = "full",
        /// What changed since the last full.
        Diff = "diff",
        /// What changed since the last backup of any type.
        Incr = "incr",
    }
}

words! {
    /// What we know of a backup.
    BackupStatus {
        /// Complete, and nothing speaks against it.
        Good = "good",
        /// The tool found page checksum errors while it copied.
        Damaged = "damaged",
        /// WAL between its start and its stop is missing from the archive: it cannot be made consistent.
        Unrestorable = "unrestorable",
        /// The catalog knows it, the repository does not.
        Lost = "lost",
        /// Retention ended it.
        Expired = "expired",
    }
}

/// A backup: an artifact that can be restored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Backup {
    /// Our identity of it: `backup-YYYYMMDD-HHMMSS[-label]`, or `foreign-LABEL` when others made it.
    pub id: String,
    /// The database.
    pub database: DatabaseName,
    /// The database's environment when it was made.
    pub environment: String,
    /// The tool family that made it.
    pub engine: EngineKind,
    /// The type as read back from the tool.
    pub backup_type: BackupType,
    /// The type that was asked for.
    pub requested_type: BackupType,
    /// The tool's own name for it.
    pub label: String,
    /// The repository it lies in.
    pub repo: RepoKey,
    /// The PostgreSQL cluster it is of, as text because it exceeds 2^53.
    pub system_id: String,
    /// PostgreSQL's major version, e.g. `15`.
    pub server_version: String,
    /// The tool's version.
    pub tool_version: String,
    /// The name a person gave it.
    pub name: Option<String>,
    /// Why it was made.
    pub reason: Option<String>,
    /// Free words.
    pub tags: Vec<String>,
    /// The `run-id` annotation, by which a run is found again.
    pub run_uuid: Option<String>,
    /// When the tool began, by the database host's clock.
    pub started_at: DateTime<Utc>,
    /// When it stopped; recovery to any moment after this is possible while WAL follows.
    pub stopped_at: DateTime<Utc>,
    /// Size of the database, bytes.
    pub size: u64,
    /// Bytes that this backup copied from the database.
    pub delta: u64,
    /// Bytes in the repository that this backup added, where the tool says.
    pub repo_delta: Option<u64>,
    /// Bytes in the repository with all that it depends on, where the tool says.
    pub repo_size: Option<u64>,
    /// The label it builds on.
    pub prior: Option<String>,
    /// All labels that it needs.
    pub references: Vec<String>,
    /// First WAL segment needed to make it consistent; none after `--no-archive-check`.
    pub wal_start: Option<String>,
    /// Last WAL segment needed to make it consistent.
    pub wal_stop: Option<String>,
    /// LSN at which it stopped.
    pub lsn_stop: Option<String>,
    /// Page checksum errors: none = not checked.
    pub page_errors: Option<bool>,
    /// What we know of it.
    pub status: BackupStatus,
    /// Why it was ended, when it was.
    pub expired_reason: Option<String>,
    /// When it was ended.
    pub expired_at: Option<DateTime<Utc>>,
    /// Kept until released, and why.
    pub held: Option<String>,
    /// When the hold ends by itself; none: when somebody releases it.
    #[serde(default)]
    pub held_until: Option<DateTime<Utc>>,
    /// When a test restore last proved it.
    pub proven_at: Option<DateTime<Utc>>,
    /// Who asked for it.
    pub created_by: String,
    /// What a dump has beyond this. The repository of a dump is 0, its label is its id.
    pub dump: Option<Dump>,
}

/// What the id of a backup begins with that others made.
pub const FOREIGN: &str = "foreign-";

/// What the reason of a safety backup begins with.
pub const SAFETY: [&str; 3] = ["pre-migration", "pre-rollback", "pre-restore"];

impl EngineKind {
    /// Whether it makes dumps: artifacts of ours in storages of ours.
    pub const fn is_dump(self) -> bool {
        !matches!(self, EngineKind::PgBackRest)
    }
}

impl Backup {
    /// Whether it counts as a backup: complete, undamaged, still there.
    pub fn is_good(&self) -> bool {
        self.status == BackupStatus::Good
    }

    /// Why it is held at a moment, if it is.
    pub fn held_at(&self, now: DateTime<Utc>) -> Option<&str> {
        self.held.as_deref().filter(|_| self.held_until.is_none_or(|until| until > now))
    }

    /// Whether others made it, with the same stanza.
    pub fn is_foreign(&self) -> bool {
        self.id.starts_with(FOREIGN)
    }

    /// What it takes in its repository, or in all storages together, where the tool says.
    pub fn stored_bytes(&self) -> Option<u64> {
        let one = self.repo_delta?;
        let Some(dump) = &self.dump else { return Some(one) };
        let is_there =
            |copy: &&BackupCopy| !matches!(copy.state, CopyState::Missing | CopyState::Failed | CopyState::Deleted);
        Some(one.saturating_mul(dump.copies.iter().filter(is_there).count() as u64))
    }

    /// Whether it was made so that something dangerous can be undone: its reason begins with one of [`SAFETY`], in
    /// whatever case.
    pub fn is_safety(&self) -> bool {
        let reason = self.reason.as_deref().unwrap_or_default().to_lowercase();
        let begins =
            |word: &str| reason.strip_prefix(word).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()));
        SAFETY.iter().any(|word| begins(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retention::property::backup;

    #[test]
    fn a_safety_backup_is_known_by_how_its_reason_begins() {
        let is_safety =
            |reason: &str| Backup { reason: Some(reason.to_owned()), ..backup(BackupType::Full, 0, &[]) }.is_safety();
        assert!(is_safety("pre-migration") && is_safety("Pre-Migration 5") && is_safety("pre-rollback: x"));
        assert!(!is_safety("pre-migrations") && !is_safety("after pre-migration") && !is_safety(""));
    }
}
