//! The policy file as typed: one field a key, everything optional; the doc lines become the JSON Schema.
//!
//! A value that is written in several ways (a schedule, a duration, an answer) has a visitor of its own in `value.rs`,
//! because serde's `untagged` and `flatten` lose the position and the reason. Nothing here knows what is possible; that
//! is `check.rs`. A newcomer would write a default into a field: the doc line tells it and `check.rs` applies it, since
//! a value may still come from `[defaults]` or from the environment.

mod dump;
mod schema;
mod value;

use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

pub use self::schema::schema;
pub(super) use self::{
    dump::{Dump, Format, Key, KeyType, MySql, ServerSide, Sqlite, Storage, StorageKind},
    schema::{known_keys, wants_table},
    value::{Answer, Entry, Ionice, Length, Names, Squeeze, Start, When},
};
use super::{Canary, ExpireBy, Promote, SecretRef};

/// The policy of Backstop: what is backed up, when, how long it is kept, and how it is proven.
///
/// Files in `conf.d` beside the main file hold `database`, `tier`, `environment`, `storage` and `encryption` sections
/// only.
#[derive(Debug, Default, JsonSchema)]
pub(super) struct File {
    /// What concerns the daemon as a whole. Main file only. Default: the defaults of its keys.
    pub(super) daemon: Option<Daemon>,
    /// Values for all databases that do not write them themselves; each is taken whole. Main file only. Default: none.
    pub(super) defaults: Option<Settings>,
    /// Environments: values for the databases that name them, after `[defaults]`. Default: `development`, `staging` and
    /// `production`.
    pub(super) environment: BTreeMap<String, Settings>,
    /// Service objectives that a database names by `tier`. Default: none.
    pub(super) tier: BTreeMap<String, Tier>,
    /// The storages of dumps, that a database names by `storage`. Default: none.
    pub(super) storage: BTreeMap<String, Storage>,
    /// The keys that encrypt dumps, that a database names by `encryption`. Default: none.
    pub(super) encryption: BTreeMap<String, Key>,
    /// The databases, each under its name: 1 to 63 of a-z, 0-9, `-` and `_`. Default: none.
    pub(super) database: BTreeMap<String, Settings>,
    /// Jobs of Backstop's own, without a database. Main file only. Default: the defaults of its keys.
    pub(super) schedule: Option<OwnSchedules>,
}

/// `[daemon]`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(super) struct Daemon {
    /// The IANA time zone in which all schedules are read. Default: `UTC`.
    pub(super) timezone: Option<String>,
    /// The directory of the catalog, locks and logs. A change needs a restart. Default: `/var/lib/backstop`.
    pub(super) state_dir: Option<PathBuf>,
    /// The directory in which test restores happen. Default: `scratch` in `state_dir`.
    pub(super) scratch_dir: Option<PathBuf>,
    /// Runs at once, all databases together; WAL checks are not counted. Default: 2.
    pub(super) max_parallel: Option<u32>,
    /// How long running jobs may go on after SIGTERM before they are cancelled. Default: `5m`.
    pub(super) stop_grace: Option<Length>,
    /// How long runs stay in the catalog. Default: `400d`.
    pub(super) keep_runs: Option<Length>,
    /// How long the output of tools is kept. Default: `30d`.
    pub(super) keep_logs: Option<Length>,
}

/// `[tier.NAME]`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(super) struct Tier {
    /// How much recent data may be lost, as a time. Default: no objective.
    pub(super) rpo: Option<Length>,
    /// How long a recovery may take. Default: no objective.
    pub(super) rto: Option<Length>,
    /// The share of backup runs that must succeed, 0 to 1. Default: no objective.
    pub(super) success_rate: Option<f64>,
    /// How many repositories or storages must hold a backup that is fresh enough for the RPO. Default: no objective.
    pub(super) min_copies: Option<u32>,
    /// Whether every repository and every dump must be encrypted. Default: `optional`.
    pub(super) encryption: Option<Encryption>,
    /// How old the newest proof by a test restore may be. Default: `35d`, a month and some days; also without a tier.
    pub(super) proof_age: Option<Length>,
}

/// Whether repositories and dumps must be encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Encryption {
    /// Every repository and every dump must be encrypted.
    Required,
    /// As the repository has it, and as the database says.
    Optional,
}

/// `[schedule]`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(super) struct OwnSchedules {
    /// When the catalog itself is copied. Default: `30 3 * * *`, each night.
    pub(super) catalog_backup: Option<When>,
}

/// The keys of a database, of `[defaults]` and of `[environment.NAME]`; [`Place`] tells which make no sense where.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(super) struct Settings {
    /// The tool family that makes the backups: `pgbackrest`, or dumps by `pg_dump`, `mysqldump` or `sqlite`. Default:
    /// `pgbackrest`.
    #[schemars(extend("enum" = crate::record::EngineKind::ALL))]
    pub(super) engine: Option<String>,
    /// The stanza in pgBackRest's configuration; for pgbackrest only. Default: the database's name.
    pub(super) stanza: Option<String>,
    /// The environment that the database belongs to. Default: `production`.
    pub(super) environment: Option<String>,
    /// The tier whose objectives hold for the database. Default: none.
    pub(super) tier: Option<String>,
    /// How to reach a PostgreSQL server: a libpq service, key=value or URI, without a password. Default: the server is
    /// not asked; pg_dump needs one.
    pub(super) connection: Option<String>,
    /// Where the password of the user is: `file:/path`, `env:NAME` or `credential:NAME`. Default: the client finds it
    /// itself, e.g. in libpq's password file.
    pub(super) password: Option<SecretRef>,
    /// When things happen. Default: nothing is scheduled.
    pub(super) schedule: Option<Schedules>,
    /// What is healthy WAL archiving; for pgbackrest only. Default: the defaults of its keys.
    pub(super) wal: Option<Wal>,
    /// What is kept; a backup is kept while any rule keeps it. Default: the environment's `retention_days`.
    pub(super) retention: Option<Retention>,
    /// How a test restore is done and judged. Default: the defaults of its keys.
    pub(super) test_restore: Option<TestRestore>,
    /// What pgBackRest needs to know. Default: the defaults of its keys.
    pub(super) pgbackrest: Option<PgBackRest>,
    /// The storages of the dumps, one or a list; each gets a copy. Default: none, a dump needs one.
    pub(super) storage: Option<Names>,
    /// The key that encrypts the dumps, or `none`. Default: `none`.
    pub(super) encryption: Option<String>,
    /// How the dumps are compressed: `none`, `gzip:1` to `gzip:9`, `zstd:1` to `zstd:19`. Default: `zstd:3`.
    pub(super) compression: Option<Squeeze>,
    /// How the dumps are made. Default: the defaults of its keys.
    pub(super) dump: Option<Dump>,
    /// How a MySQL or MariaDB server is reached. Default: the defaults of its keys.
    pub(super) mysql: Option<MySql>,
    /// Which SQLite file is dumped. Default: none, sqlite needs its `path`.
    pub(super) sqlite: Option<Sqlite>,
    /// How late a missed run is still made up for, once. Default: the job's own period.
    pub(super) catch_up: Option<Length>,
    /// The most by which starts are spread; each job has a fixed shift, no dice. Default: `0s`.
    pub(super) splay: Option<Length>,
    /// Attempts and pauses within a run. Default: the defaults of its keys.
    pub(super) retry: Option<Retry>,
    /// No line in the tool's log for this long is alarming. Default: `30m`.
    pub(super) stall: Option<Length>,
    /// CPU niceness of the tools, 0 to 19. Default: that of the daemon.
    #[schemars(range(max = 19))]
    pub(super) nice: Option<u8>,
    /// I/O class of the tools: `idle`, or `best-effort:0` to `best-effort:7`. Default: that of the daemon.
    pub(super) ionice: Option<Ionice>,
    /// Which backup becomes a full after a full failed or was missed. Default: `diff`.
    pub(super) promote: Option<Promote>,
    /// Whether commands that destroy something ask, or need `--yes`. Default: true for `production`, else false.
    pub(super) protected: Option<bool>,
    /// For how many days backups are kept where no retention rule is written. Default: 30 for `development`, 60 for
    /// `staging`, 90 for `production` and for all others.
    pub(super) retention_days: Option<u32>,
}

/// `[database.NAME.schedule]`: cron texts of five fields, or six with leading seconds, in the daemon's time zone.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(super) struct Schedules {
    /// Full backups; a dump is always one. Default: none.
    pub(super) full: Option<When>,
    /// Differential backups: what changed since the last full. Default: none.
    pub(super) diff: Option<When>,
    /// The long word for `diff`. Default: none.
    pub(super) differential: Option<When>,
    /// Incremental backups: what changed since the last backup. Default: none.
    pub(super) incr: Option<When>,
    /// The long word for `incr`. Default: none.
    pub(super) incremental: Option<When>,
    /// Checks of WAL archiving and of the archive. Default: none.
    pub(super) wal: Option<When>,
    /// Ending backups by the retention rules. Default: none.
    pub(super) expire: Option<When>,
    /// Re-reading the repository or storages against their checksums. Default: none.
    pub(super) verify: Option<When>,
    /// Restoring the newest backup into a throw-away server and checking it. Default: none.
    pub(super) test_restore: Option<When>,
}

/// A schedule with rules of its own.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(super) struct Timing {
    /// The cron text. Default: none, it must be written.
    pub(super) cron: Option<String>,
    /// Tells the schedules of a list apart. Default: none.
    pub(super) name: Option<String>,
    /// The repository it concerns; for pgbackrest only. Default: one job for each repository of `pgbackrest.repos`.
    pub(super) repo: Option<u32>,
    /// The latest start: a local time such as `06:00`, or a time after the schedule such as `2h`. Default: none.
    pub(super) not_after: Option<Start>,
    /// How long an attempt may take. Default: none for backups; `10m` for wal, `6h` for verify and test_restore, `1h`
    /// for expire and catalog_backup.
    pub(super) timeout: Option<Length>,
    /// As `catch_up` of the database. Default: that.
    pub(super) catch_up: Option<Length>,
    /// As `splay` of the database. Default: that.
    pub(super) splay: Option<Length>,
    /// As `retry` of the database. Default: that.
    pub(super) retry: Option<Retry>,
    /// As `promote` of the database; for diff and incr only. Default: that.
    pub(super) promote: Option<Promote>,
}

/// Attempts and pauses within a run.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(super) struct Retry {
    /// How many attempts, the first included. Default: 3.
    pub(super) attempts: Option<u32>,
    /// The pause after the first attempt; it doubles after each. Default: `1m`.
    pub(super) backoff: Option<Length>,
    /// The longest pause. Default: `30m`.
    pub(super) max_backoff: Option<Length>,
}

/// `[database.NAME.wal]`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(super) struct Wal {
    /// WAL that is older than this and not archived is alarming. Default: `15m`.
    pub(super) max_lag: Option<Length>,
    /// More segments than this waiting to be archived is alarming. Default: 16.
    pub(super) max_ready: Option<u32>,
    /// A missing segment that is newer than this may still be on its way. Default: `2m`.
    pub(super) gap_grace: Option<Length>,
}

/// `[database.NAME.retention]`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(super) struct Retention {
    /// How many fulls are kept, with all that depends on them. Default: no rule.
    pub(super) full: Option<u32>,
    /// How many diffs are kept. Default: as long as their full.
    pub(super) diff: Option<u32>,
    /// How many incrs are kept. Default: as long as their parent.
    pub(super) incr: Option<u32>,
    /// How many of the newest backups of any type are kept. Default: no rule.
    pub(super) keep_last: Option<u32>,
    /// Of how many hours with backups the newest one is kept. Default: no rule.
    pub(super) keep_hourly: Option<u32>,
    /// The same for days, in the time zone of the daemon. Default: no rule.
    pub(super) keep_daily: Option<u32>,
    /// The same for weeks, Monday to Sunday. Default: no rule.
    pub(super) keep_weekly: Option<u32>,
    /// The same for months. Default: no rule.
    pub(super) keep_monthly: Option<u32>,
    /// The same for quarters of a year. Default: no rule.
    pub(super) keep_quarterly: Option<u32>,
    /// The same for years. Default: no rule.
    pub(super) keep_yearly: Option<u32>,
    /// Backups younger than so many days are kept. Default: no rule.
    pub(super) days: Option<u32>,
    /// Backups younger than this are kept; `days` as a length of time. Default: no rule.
    pub(super) keep_within: Option<Length>,
    /// Every moment of so long before now can be recovered to; for pgbackrest only. Default: no rule.
    pub(super) recovery_window: Option<Length>,
    /// How long WAL is kept for continuous recovery; backups that are older keep only what makes them consistent. For
    /// pgbackrest only. Default: as long as the oldest backup that is kept.
    pub(super) wal_depth: Option<Length>,
    /// How many of the newest proven backups are never dropped. Default: 1.
    pub(super) keep_proven: Option<u32>,
    /// Whether the rules also count and end backups that others made with the same stanza; for pgbackrest only. Default:
    /// false, they stay and take nobody's place.
    pub(super) foreign: Option<bool>,
    /// The share of the backups that may go in one pass without a person's word, 0 to 1. Default: 0.5.
    pub(super) max_delete_fraction: Option<f64>,
    /// How long what only a tighter policy ends still waits. Default: `24h`.
    pub(super) shrink_grace: Option<Length>,
}

/// `[database.NAME.test_restore]`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(super) struct TestRestore {
    /// What the restored data must satisfy. Default: nothing beyond the built-in checks.
    pub(super) assert: Option<Vec<Assertion>>,
    /// How a moment of production is marked, so that reaching it can be seen; for pgbackrest only. Default:
    /// `restore_point`.
    pub(super) canary: Option<Canary>,
    /// Whether every index and heap is checked with `pg_amcheck`. Default: true.
    pub(super) amcheck: Option<bool>,
    /// Whether page checksums are checked with `pg_checksums`; for pgbackrest only. Default: true.
    pub(super) checksums: Option<bool>,
    /// The directory with the server's programs. Default: found by the cluster's version.
    pub(super) server_bin: Option<PathBuf>,
    /// The file with the secret key that reads the dumps, where the key's own section names none. Default: the
    /// `identity` of the key.
    pub(super) identity: Option<PathBuf>,
}

/// A question to the restored data, and the answer it must give: `min`, `max` or both, or `equals`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(super) struct Assertion {
    /// One SQL statement that returns one value. Default: none, it must be written.
    pub(super) sql: Option<String>,
    /// The database within the cluster. Default: `postgres`.
    pub(super) database: Option<String>,
    /// The least that the value may be. Default: no bound.
    pub(super) min: Option<f64>,
    /// The most that the value may be. Default: no bound.
    pub(super) max: Option<f64>,
    /// Exactly what the value must be. Default: not compared.
    pub(super) equals: Option<Answer>,
}

/// `[database.NAME.pgbackrest]`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(super) struct PgBackRest {
    /// pgBackRest's configuration file. Default: pgBackRest's own default.
    pub(super) config: Option<PathBuf>,
    /// The program, a name or an absolute path. Default: `pgbackrest`.
    pub(super) binary: Option<PathBuf>,
    /// The numbers of the repositories that Backstop works on. Default: `[1]`.
    pub(super) repos: Option<Vec<u32>>,
    /// The time zone in which the labels of this stanza are written. Default: `UTC`.
    pub(super) label_timezone: Option<String>,
    /// Secrets for the tool's environment: a variable such as `PGBACKREST_REPO1_CIPHER_PASS`, and where the secret is.
    /// Default: none; the secrets stand in pgBackRest's configuration.
    pub(super) secrets: Option<BTreeMap<String, SecretRef>>,
    /// Whether a backup starts with an immediate checkpoint instead of waiting for one. Default: true.
    pub(super) start_fast: Option<bool>,
    /// Parallel processes of backup and restore. Default: pgBackRest's own setting.
    pub(super) process_max: Option<u32>,
    /// Who ends backups: our rules, or those in pgBackRest's configuration. Default: `backstop`.
    pub(super) expire_by: Option<ExpireBy>,
}

/// Where a [`Settings`] table stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// `[database.NAME]`.
    Database,
    /// `[defaults]`.
    Defaults,
    /// `[environment.NAME]`.
    Environment,
}

impl Place {
    /// The keys that make no sense here.
    pub(super) const fn refused(self) -> &'static [&'static str] {
        match self {
            Place::Database => &["protected", "retention_days"],
            Place::Defaults => &["stanza", "connection", "sqlite", "protected", "retention_days"],
            Place::Environment => &["stanza", "connection", "sqlite", "environment"],
        }
    }

    /// The top-level key, and the name of the definition in the schema.
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Place::Database => ("database", "Database"),
            Place::Defaults => ("defaults", "Defaults"),
            Place::Environment => ("environment", "Environment"),
        }
    }
}
