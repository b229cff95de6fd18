//! The policy: what the owner of the databases wants, checked.
//!
//! `Policy::load` gives a policy in which every value is possible, or every problem of it at once. The parts, in the
//! order of their work: `load.rs` reads the files, `source.rs` parses them and knows where each key stands, `read.rs`
//! turns sections into the types of `file.rs`, `check.rs` turns those into what stands here. `problem.rs` shows what is
//! wrong and where, `mask.rs` keeps secrets out of that, `change.rs` tells what differs between two policies,
//! `secret.rs` fetches what a policy only names.
//!
//! A newcomer would let a value that cannot be (a cron text, an unknown zone) travel further as a `String`; nothing
//! below may have to check again.

mod change;
mod check;
mod file;
mod load;
mod mask;
mod problem;
mod read;
mod secret;
mod source;
mod storage;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use chrono::NaiveTime;
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use self::secret::read_private;
pub use self::{
    change::{Change, changes},
    file::schema,
    problem::{Problem, Problems, Severity, did_you_mean},
    secret::{Secret, SecretError, SecretRef},
    storage::{Dump, Key, KeyKind, MySql, ObjectLock, OnShrink, Place, S3, Sqlite, Storage},
};
use crate::{
    cron::Schedule,
    record::{DatabaseName, EngineKind, JobKey, RepoKey},
};

/// A checked policy.
#[derive(Debug, Clone)]
pub struct Policy {
    /// What concerns the daemon as a whole.
    pub daemon: Daemon,
    /// The storages of dumps by name.
    pub storages: BTreeMap<String, Storage>,
    /// The keys that encrypt dumps by name; old ones stay so that old backups can be read.
    pub keys: BTreeMap<String, Key>,
    /// The databases by name.
    pub databases: BTreeMap<DatabaseName, Database>,
    /// Every job of every database, and the daemon's own, in the order of their keys.
    pub jobs: Vec<Job>,
    /// What is allowed but unwise, to be shown at check, start and reload.
    pub warnings: Vec<Problem>,
    /// SHA-256 over the text of all files, hexadecimal.
    pub hash: String,
    /// The files it was read from with their text, the main file first.
    pub files: Vec<(PathBuf, String)>,
}

/// `[daemon]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Daemon {
    /// All schedules are read in it.
    pub timezone: Tz,
    /// Catalog, locks and run logs.
    pub state_dir: PathBuf,
    /// Where test restores happen.
    pub scratch_dir: PathBuf,
    /// Runs at once, all databases together, WAL checks not counted.
    pub max_parallel: usize,
    /// How long running jobs may go on after SIGTERM before they are cancelled.
    pub stop_grace: Duration,
    /// How long runs stay in the catalog.
    pub keep_runs: Duration,
    /// How long the tools' output is kept.
    pub keep_logs: Duration,
}

/// Service objectives of a database.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tier {
    /// The tier's name.
    pub name: String,
    /// How much recent data may be lost.
    pub rpo: Option<Duration>,
    /// How long recovery may take.
    pub rto: Option<Duration>,
    /// Share of backup runs that must succeed, 0 to 1.
    pub success_rate: Option<f64>,
    /// Repositories or storages that must hold a backup.
    pub min_copies: Option<u32>,
    /// Whether every repository and every dump must be encrypted.
    pub encryption_required: bool,
    /// How old the newest proof may be.
    pub proof_age: Option<Duration>,
}

/// `[database.NAME]`, with the defaults of `[defaults]` and its environment applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Database {
    /// Its name.
    pub name: DatabaseName,
    /// The tool family.
    pub engine: EngineKind,
    /// Its environment, e.g. `production`.
    pub environment: String,
    /// Whether destructive commands ask or need `--yes`.
    pub protected: bool,
    /// Its objectives.
    pub tier: Tier,
    /// A libpq connection string without a password, handed to the clients untouched; none: no SQL probes.
    pub connection: Option<String>,
    /// Where the password is, if the client does not find it itself.
    pub password: Option<SecretRef>,
    /// What pgBackRest needs to know.
    pub pgbackrest: PgBackRest,
    /// What the dump engines need to know.
    pub dump: Dump,
    /// What to keep.
    pub retention: Retention,
    /// What is healthy archiving.
    pub wal: Wal,
    /// How a test restore is done and judged.
    pub test_restore: TestRestore,
    /// How gently its tools run.
    pub niceness: Niceness,
    /// No line in the tool's log for this long is alarming.
    pub stall: Duration,
}

impl Database {
    /// The repositories in which its backups lie: those of pgBackRest, or 0, which stands for all our storages.
    pub fn repos(&self) -> &[RepoKey] {
        if self.engine.is_dump() { &[0] } else { &self.pgbackrest.repos }
    }

    /// The rules by which our planner ends backups: none where pgBackRest's own retention decides.
    pub fn rules(&self) -> Retention {
        let is_ours = self.engine.is_dump() || self.pgbackrest.expire_by == ExpireBy::Backstop;
        if is_ours { self.retention.clone() } else { Retention::default() }
    }
}

/// `[database.NAME.pgbackrest]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PgBackRest {
    /// The stanza.
    pub stanza: String,
    /// The configuration file; pgBackRest's own default when none.
    pub config: Option<PathBuf>,
    /// The program, a name looked up in PATH or an absolute path.
    pub binary: PathBuf,
    /// The repositories that Backstop works on.
    pub repos: Vec<RepoKey>,
    /// The zone in which this stanza's labels are written.
    pub label_timezone: Tz,
    /// Secrets for the tool's environment, e.g. `PGBACKREST_REPO1_CIPHER_PASS`.
    pub secrets: BTreeMap<String, SecretRef>,
    /// Whether a backup starts with an immediate checkpoint instead of waiting for one.
    pub start_fast: bool,
    /// Parallel processes of backup and restore; pgBackRest's own setting when none.
    pub process_max: Option<u32>,
    /// Who ends backups.
    pub expire_by: ExpireBy,
}

/// Who ends backups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExpireBy {
    /// Our planner decides, pgBackRest's `expire --set` carries it out.
    Backstop,
    /// pgBackRest's own retention settings decide; we only run `expire` and record what went.
    #[serde(rename = "pgbackrest")]
    PgBackRest,
}

/// `[database.NAME.retention]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Retention {
    /// How many fulls are kept, with all that depends on them.
    pub full: Option<u32>,
    /// How many diffs are kept.
    pub diff: Option<u32>,
    /// How many incrs are kept; `None`: as long as their parent.
    pub incr: Option<u32>,
    /// How many of the newest backups of any type are kept.
    pub last: Option<u32>,
    /// Of how many hours with backups the newest is kept.
    pub hourly: Option<u32>,
    /// The same for days.
    pub daily: Option<u32>,
    /// The same for weeks, Monday to Sunday.
    pub weekly: Option<u32>,
    /// The same for months.
    pub monthly: Option<u32>,
    /// The same for quarters.
    pub quarterly: Option<u32>,
    /// The same for years.
    pub yearly: Option<u32>,
    /// Backups younger than this are kept. Set by the environment where no rule is written.
    pub within: Option<Duration>,
    /// Every moment of this length before now can be recovered to.
    pub recovery_window: Option<Duration>,
    /// WAL for continuous recovery is kept this long; before, only what makes each kept backup consistent.
    pub wal_depth: Option<Duration>,
    /// How many of the newest proven backups are never dropped.
    pub keep_proven: u32,
    /// Whether the rules also count and end backups that others made.
    pub foreign: bool,
    /// The share of the backups, 0 to 1, that may go in one pass without a person's word.
    pub max_delete_fraction: f64,
    /// How long what only a tighter policy ends still waits.
    pub shrink_grace: Duration,
}

impl Default for Retention {
    /// No rule.
    fn default() -> Self {
        Self {
            full: None,
            diff: None,
            incr: None,
            last: None,
            hourly: None,
            daily: None,
            weekly: None,
            monthly: None,
            quarterly: None,
            yearly: None,
            within: None,
            recovery_window: None,
            wal_depth: None,
            keep_proven: 1,
            foreign: false,
            max_delete_fraction: 0.5,
            shrink_grace: Duration::from_hours(24),
        }
    }
}

impl Retention {
    /// Whether a rule decides how long fulls live. Without one none is ended.
    pub fn ends_fulls(&self) -> bool {
        let counts =
            [self.full, self.last, self.hourly, self.daily, self.weekly, self.monthly, self.quarterly, self.yearly];
        counts.iter().any(Option::is_some) || self.within.or(self.recovery_window).is_some()
    }

    /// Whether there is a rule at all.
    pub fn has_rule(&self) -> bool {
        self.ends_fulls() || self.diff.or(self.incr).is_some()
    }
}

/// `[database.NAME.wal]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wal {
    /// WAL that is older than this and not archived is alarming.
    pub max_lag: Duration,
    /// More segments than this waiting to be archived is alarming.
    pub max_ready: u32,
    /// A missing segment newer than this may still be on its way.
    pub gap_grace: Duration,
}

/// `[database.NAME.test_restore]`.
#[derive(Debug, Clone, PartialEq)]
pub struct TestRestore {
    /// What the restored data must satisfy.
    pub assertions: Vec<Assertion>,
    /// How a moment of production is marked, so that reaching it can be seen.
    pub canary: Canary,
    /// Whether every index and heap is checked with `pg_amcheck`.
    pub amcheck: bool,
    /// Whether page checksums are checked with `pg_checksums`.
    pub checksums: bool,
    /// The directory with the server's programs; found by the cluster's version when none.
    pub server_bin: Option<PathBuf>,
    /// The file with the secret key that reads the dumps, where the key's own section names none.
    pub identity: Option<PathBuf>,
}

/// How production is marked before a test restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Canary {
    /// A named restore point and a forced segment switch; writes no row.
    RestorePoint,
    /// No mark; the end of the archive is the target.
    Off,
}

/// A question to the restored database and the answer it must give.
#[derive(Debug, Clone, PartialEq)]
pub struct Assertion {
    /// One SQL statement that returns one value.
    pub sql: String,
    /// The database within the cluster to ask; `postgres` when none.
    pub database: Option<String>,
    /// What the value must be.
    pub expect: Expect,
}

/// What an assertion's value must be.
#[derive(Debug, Clone, PartialEq)]
pub enum Expect {
    /// A number within bounds; either may be open.
    Between {
        /// The least.
        min: Option<f64>,
        /// The most.
        max: Option<f64>,
    },
    /// Exactly this, as `psql -At` prints it (`t`, `f`, `42`, `text`).
    Equals(String),
}

/// How gently children run; both are argument prefixes (`nice`, `ionice`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Niceness {
    /// CPU niceness, 0 to 19.
    pub nice: Option<u8>,
    /// I/O scheduling class.
    pub ionice: Option<IoClass>,
}

/// I/O scheduling class of `ionice`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoClass {
    /// Only when nobody else wants the disk.
    Idle,
    /// Best effort with priority 0 (first) to 7 (last).
    BestEffort(u8),
}

/// A job: when something happens, and the rules around it.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its identity.
    pub key: JobKey,
    /// When.
    pub schedule: Schedule,
    /// The most by which its start is shifted; the shift itself is fixed by the key.
    pub splay: Duration,
    /// How late a missed slot is still made up for; `None`: the job's own period.
    pub catch_up: Option<Duration>,
    /// Attempts and pauses within a run.
    pub retry: Retry,
    /// How long an attempt may take.
    pub timeout: Option<Duration>,
    /// The latest start.
    pub not_after: Option<NotAfter>,
    /// What a diff or incr does when the full before it is missing.
    pub promote: Promote,
}

/// Attempts and pauses within a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// How many attempts, the first included; at least 1.
    pub attempts: u32,
    /// The pause after the first attempt; it doubles after each.
    pub backoff: Duration,
    /// The longest pause.
    pub max_backoff: Duration,
}

/// The latest start of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAfter {
    /// The first such local time after the nominal instant.
    LocalTime(NaiveTime),
    /// So long after the nominal instant.
    Delay(Duration),
}

/// What a diff or incr does when the full before it failed or was missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Promote {
    /// The next diff becomes a full; an incr only when there is no usable full.
    Diff,
    /// The next diff or incr becomes a full.
    Any,
    /// Nothing is promoted by us.
    Never,
}
