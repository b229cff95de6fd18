//! A restore that was really done and checked, step by step.
//!
//! A newcomer would take a skipped step for a passed one; it is neither passed nor failed, and says why.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{DatabaseName, RepoKey, RunId, words};

words! {
    /// How a step of a test restore ended.
    StepOutcome {
        /// It was done and it was right.
        Passed = "passed",
        /// It was done and it was wrong.
        Failed = "failed",
        /// It was not done; the detail says why. Skipped is not passed.
        Skipped = "skipped",
    }
}

/// One step of a test restore.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProofStep {
    /// `restore`, `fetch_wal`, `recovery`, …
    pub name: String,
    /// How it ended.
    pub outcome: StepOutcome,
    /// The evidence, or why it was skipped.
    pub detail: String,
    /// Its length.
    #[serde(rename = "seconds", with = "as_seconds")]
    pub duration: Duration,
}

mod as_seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        duration.as_secs_f64().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Ok(Duration::try_from_secs_f64(f64::deserialize(deserializer)?).unwrap_or_default())
    }
}

/// A restore that was really done and checked.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Proof {
    /// Its row; 0 before it is stored.
    pub id: i64,
    /// The run that did it.
    pub run: RunId,
    /// The database.
    pub database: DatabaseName,
    /// The backup that was restored.
    pub backup_id: String,
    /// The repository it came from.
    pub repo: RepoKey,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: DateTime<Utc>,
    /// Whether every step that was done passed, and none that must be done was skipped.
    pub passed: bool,
    /// What kept the copy away from production, e.g. `bubblewrap 0.8.0: no network, no production directories`.
    pub isolation: String,
    /// The moment in production's life to which the copy was recovered.
    pub recovered_to: Option<DateTime<Utc>>,
    /// The LSN the copy reached.
    pub reached_lsn: Option<String>,
    /// The LSN it had to reach.
    pub expected_lsn: Option<String>,
    /// Restore + fetching WAL + recovery until connections are possible: the measured RTO.
    #[serde(rename = "recovery_seconds", with = "as_seconds")]
    pub recovery_time: Duration,
    /// Size of the restored cluster, bytes.
    pub size: u64,
    /// WAL segments that were replayed.
    pub wal_segments: u32,
    /// What was done, step by step, and what was not.
    pub steps: Vec<ProofStep>,
}
