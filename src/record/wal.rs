//! What a WAL check saw, and what follows from it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{DatabaseName, RepoKey};

/// What a WAL check saw.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WalSample {
    /// The database.
    pub database: DatabaseName,
    /// When.
    pub sampled_at: DateTime<Utc>,
    /// Timeline of the server; none where it could not be asked.
    pub timeline: Option<u32>,
    /// Where the server writes now.
    pub current_lsn: Option<String>,
    /// The last segment that PostgreSQL says is archived.
    pub last_archived_wal: Option<String>,
    /// When it was archived.
    pub last_archived_at: Option<DateTime<Utc>>,
    /// How often archiving failed since the statistics were reset.
    pub failed_count: Option<i64>,
    /// When it last failed.
    pub last_failed_at: Option<DateTime<Utc>>,
    /// Segments that wait to be archived.
    pub ready_count: Option<i64>,
    /// The last segment up to which the archive has no hole, per repository.
    pub contiguous_to: BTreeMap<RepoKey, String>,
    /// Segments that are missing in the middle, as ranges `FIRST..LAST`, per repository.
    pub gaps: BTreeMap<RepoKey, Vec<String>>,
    /// Everything that was wrong, in words; empty is healthy.
    pub problems: Vec<String>,
}

/// A stretch of time to any moment of which a database can be recovered.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Window {
    /// The database.
    pub database: DatabaseName,
    /// The repository it holds for.
    pub repo: RepoKey,
    /// The backup that recovery would begin with at the lower end.
    pub label: String,
    /// The earliest moment: the stop of that backup.
    pub from: DateTime<Utc>,
    /// The latest moment that is certain.
    pub to: DateTime<Utc>,
}
