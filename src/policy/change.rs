//! What differs between two policies, for the log of a reload.
//!
//! It tells what a change means, not which lines differ: a new default shows as the databases and jobs that it changes.
//! A newcomer would list the jobs of a database that comes or goes; they are counted in its one line.

mod section;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use self::section::{key_keys, section_changes, storage_keys};
use super::{Daemon, Database, Dump, Job, Policy};
use crate::record::{DatabaseName, JobKey};

/// One difference between two policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A setting of `[daemon]`.
    Daemon {
        /// Its key.
        key: &'static str,
        /// What it was.
        old: String,
        /// What it is.
        new: String,
    },
    /// A storage or a key came.
    SectionAdded {
        /// `storage` or `encryption`.
        section: &'static str,
        /// Its name.
        name: String,
    },
    /// A storage or a key went; what it holds or opens is no longer within reach.
    SectionRemoved {
        /// `storage` or `encryption`.
        section: &'static str,
        /// Its name.
        name: String,
    },
    /// A storage or a key changed.
    SectionChanged {
        /// `storage` or `encryption`.
        section: &'static str,
        /// Its name.
        name: String,
        /// The keys.
        keys: Vec<&'static str>,
    },
    /// A database came.
    DatabaseAdded {
        /// Its name.
        name: DatabaseName,
        /// How many jobs it has.
        jobs: usize,
    },
    /// A database went.
    DatabaseRemoved {
        /// Its name.
        name: DatabaseName,
        /// How many jobs it had.
        jobs: usize,
    },
    /// Settings of a database changed.
    DatabaseChanged {
        /// Its name.
        name: DatabaseName,
        /// The keys.
        keys: Vec<&'static str>,
    },
    /// A job came to a database that was there.
    JobAdded {
        /// The job.
        key: JobKey,
        /// Its cron text.
        schedule: String,
    },
    /// A job went from a database that is still there.
    JobRemoved {
        /// The job.
        key: JobKey,
    },
    /// A job happens at other times. A new time zone is one change of `[daemon]`, not one of each job.
    Rescheduled {
        /// The job.
        key: JobKey,
        /// The cron text it had.
        old: String,
        /// The cron text it has.
        new: String,
    },
    /// The rules around a job changed.
    JobChanged {
        /// The job.
        key: JobKey,
        /// The keys.
        keys: Vec<&'static str>,
    },
}

impl Change {
    /// Whether the change takes effect at the next start only.
    pub fn needs_restart(&self) -> bool {
        matches!(self, Change::Daemon { key: "state_dir", .. })
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Daemon { key, old, new } => {
                write!(f, "daemon.{key} changed: `{old}` → `{new}`")?;
                if self.needs_restart() { f.write_str("; this needs a restart") } else { Ok(()) }
            }
            Change::SectionAdded { section, name } => write!(f, "{section}.{name} added"),
            Change::SectionRemoved { section, name } => write!(f, "{section}.{name} removed"),
            Change::SectionChanged { section, name, keys } => {
                write!(f, "{section}.{name} changed: {}", keys.join(", "))
            }
            Change::DatabaseAdded { name, jobs } => write!(f, "{name} added with {}", counted(*jobs)),
            Change::DatabaseRemoved { name, jobs } => write!(f, "{name} removed with {}", counted(*jobs)),
            Change::DatabaseChanged { name, keys } => write!(f, "{name} changed: {}", keys.join(", ")),
            Change::JobAdded { key, schedule } => write!(f, "{key} added: `{schedule}`"),
            Change::JobRemoved { key } => write!(f, "{key} removed"),
            Change::Rescheduled { key, old, new } => write!(f, "{key} rescheduled: `{old}` → `{new}`"),
            Change::JobChanged { key, keys } => write!(f, "{key} changed: {}", keys.join(", ")),
        }
    }
}

fn counted(jobs: usize) -> String {
    format!("{jobs} job{}", if jobs == 1 { "" } else { "s" })
}

/// What differs between two policies: the daemon, then storages and keys, then the databases, then the jobs, each in the
/// order of their names.
pub fn changes(old: &Policy, new: &Policy) -> Vec<Change> {
    let mut changes = daemon_changes(&old.daemon, &new.daemon);
    changes.extend(section_changes("storage", &old.storages, &new.storages, storage_keys));
    changes.extend(section_changes("encryption", &old.keys, &new.keys, key_keys));
    changes.extend(database_changes(old, new));
    changes.extend(job_changes(old, new));
    changes
}

fn daemon_changes(old: &Daemon, new: &Daemon) -> Vec<Change> {
    let settings = |daemon: &Daemon| {
        let length = |length| humantime::format_duration(length).to_string();
        [
            ("timezone", daemon.timezone.to_string()),
            ("state_dir", daemon.state_dir.display().to_string()),
            ("scratch_dir", daemon.scratch_dir.display().to_string()),
            ("max_parallel", daemon.max_parallel.to_string()),
            ("stop_grace", length(daemon.stop_grace)),
            ("keep_runs", length(daemon.keep_runs)),
            ("keep_logs", length(daemon.keep_logs)),
        ]
    };
    let pairs = settings(old).into_iter().zip(settings(new)).filter(|(old, new)| old != new);
    pairs.map(|((key, old), (_, new))| Change::Daemon { key, old, new }).collect()
}

/// The keys that are marked as different.
fn different<const N: usize>(keys: [(&'static str, bool); N]) -> Vec<&'static str> {
    keys.into_iter().filter(|(_, is_changed)| *is_changed).map(|(key, _)| key).collect()
}

fn database_changes(old: &Policy, new: &Policy) -> Vec<Change> {
    let names: BTreeSet<_> = old.databases.keys().chain(new.databases.keys()).collect();
    let change = |name: &DatabaseName| match (old.databases.get(name), new.databases.get(name)) {
        (None, _) => Some(Change::DatabaseAdded { name: name.clone(), jobs: jobs_of(new, name) }),
        (_, None) => Some(Change::DatabaseRemoved { name: name.clone(), jobs: jobs_of(old, name) }),
        (Some(old), Some(new)) if old == new => None,
        (Some(old), Some(new)) => Some(Change::DatabaseChanged { name: name.clone(), keys: changed_keys(old, new) }),
    };
    names.into_iter().filter_map(change).collect()
}

fn jobs_of(policy: &Policy, name: &DatabaseName) -> usize {
    policy.jobs.iter().filter(|job| job.key.database.as_ref() == Some(name)).count()
}

/// The keys of a database that differ. Taken apart whole, so that a new field is not forgotten here.
fn changed_keys(old: &Database, new: &Database) -> Vec<&'static str> {
    let Database {
        name: _,
        engine,
        environment,
        protected,
        tier,
        connection,
        password,
        pgbackrest,
        dump,
        retention,
        wal,
        test_restore,
        niceness,
        stall,
    } = old;
    let settings = different([
        ("engine", *engine != new.engine),
        ("environment", *environment != new.environment),
        ("protected", *protected != new.protected),
        ("tier", *tier != new.tier),
        ("connection", *connection != new.connection),
        ("password", *password != new.password),
        ("stanza", pgbackrest.stanza != new.pgbackrest.stanza),
        ("pgbackrest", with_stanza_of(new, pgbackrest) != new.pgbackrest),
        ("retention", *retention != new.retention),
        ("wal", *wal != new.wal),
        ("test_restore", *test_restore != new.test_restore),
        ("nice", niceness.nice != new.niceness.nice),
        ("ionice", niceness.ionice != new.niceness.ionice),
        ("stall", *stall != new.stall),
    ]);
    [settings, dump_keys(dump, &new.dump)].concat()
}

/// The keys of a database about its dumps that differ, as they are written. Taken apart whole, too.
fn dump_keys(old: &Dump, new: &Dump) -> Vec<&'static str> {
    let Dump {
        storages,
        encryption,
        compression,
        format,
        jobs,
        lock_timeout,
        tool_dir,
        globals,
        shrink_below,
        on_shrink,
        mysql,
        sqlite,
    } = old;
    different([
        ("storage", *storages != new.storages),
        ("encryption", *encryption != new.encryption),
        ("compression", *compression != new.compression),
        ("dump.format", *format != new.format),
        ("dump.jobs", *jobs != new.jobs),
        ("dump.lock_timeout", *lock_timeout != new.lock_timeout),
        ("dump.tool_dir", *tool_dir != new.tool_dir),
        ("dump.globals", *globals != new.globals),
        ("dump.shrink_below", (*shrink_below - new.shrink_below).abs() > f64::EPSILON),
        ("dump.on_shrink", *on_shrink != new.on_shrink),
        ("mysql", *mysql != new.mysql),
        ("sqlite", *sqlite != new.sqlite),
    ])
}

/// The stanza is a key of its own in the file.
fn with_stanza_of(database: &Database, pgbackrest: &super::PgBackRest) -> super::PgBackRest {
    super::PgBackRest { stanza: database.pgbackrest.stanza.clone(), ..pgbackrest.clone() }
}

fn job_changes(old: &Policy, new: &Policy) -> Vec<Change> {
    let stays = |job: &&Job| {
        let database = job.key.database.as_ref();
        database.is_none_or(|name| old.databases.contains_key(name) && new.databases.contains_key(name))
    };
    let by_key = |policy: &'_ Policy| -> BTreeMap<JobKey, Job> {
        policy.jobs.iter().filter(stays).map(|job| (job.key.clone(), job.clone())).collect()
    };
    let (old_jobs, new_jobs) = (by_key(old), by_key(new));
    let keys: BTreeSet<&JobKey> = old_jobs.keys().chain(new_jobs.keys()).collect();
    let change = |key: &JobKey| match (old_jobs.get(key), new_jobs.get(key)) {
        (Some(old), Some(new)) => job_change(old, new),
        (None, Some(new)) => vec![Change::JobAdded { key: key.clone(), schedule: new.schedule.text().to_owned() }],
        (_, None) => vec![Change::JobRemoved { key: key.clone() }],
    };
    keys.into_iter().flat_map(change).collect()
}

fn job_change(old: &Job, new: &Job) -> Vec<Change> {
    let (old_text, new_text) = (old.schedule.text().to_owned(), new.schedule.text().to_owned());
    let rescheduled = Change::Rescheduled { key: new.key.clone(), old: old_text, new: new_text };
    let Job { key: _, schedule, splay, catch_up, retry, timeout, not_after, promote } = old;
    let keys = different([
        ("splay", *splay != new.splay),
        ("catch_up", *catch_up != new.catch_up),
        ("retry", *retry != new.retry),
        ("timeout", *timeout != new.timeout),
        ("not_after", *not_after != new.not_after),
        ("promote", *promote != new.promote),
    ]);
    let rules = (!keys.is_empty()).then(|| Change::JobChanged { key: new.key.clone(), keys });
    (schedule.text() != new.schedule.text()).then_some(rescheduled).into_iter().chain(rules).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = r#"
        [daemon]
        timezone = "UTC"
        [database.orders]
        schedule = { full = "0 2 * * SUN", diff = "0 2 * * MON-SAT" }
        [database.crm]
        schedule = { full = "@weekly" }
    "#;

    fn told(before: &str, after: &str) -> Vec<Change> {
        let parse = |text: &str| Policy::parse(vec![("p".into(), text.to_owned())]).unwrap();
        changes(&parse(before), &parse(after))
    }

    #[test]
    fn the_same_policy_in_other_words_is_no_change() {
        let other_words = r#"
            [defaults]
            environment = "production"
            [database.crm.schedule]
            full = { cron = "@weekly", splay = "0s" }
            [database.orders.schedule]
            full = "0 2 * * SUN"
            differential = "0 2 * * MON-SAT"
        "#;
        assert_eq!(told(BEFORE, other_words), []);
    }

    #[test]
    fn a_change_is_told_as_what_it_means() {
        let after = r#"
            [daemon]
            timezone = "Europe/Berlin"
            state_dir = "/srv/backstop"
            [database.orders]
            nice = 10
            stanza = "o"
            schedule = { full = { cron = "0 3 * * SUN", splay = "1m" }, wal = "@hourly" }
            [database.shop]
            schedule = { full = "@weekly", wal = "@hourly" }
        "#;
        let changes = told(BEFORE, after);
        let lines: Vec<String> = changes.iter().map(Change::to_string).collect();
        assert_eq!(
            lines,
            [
                "daemon.timezone changed: `UTC` → `Europe/Berlin`",
                "daemon.state_dir changed: `/var/lib/backstop` → `/srv/backstop`; this needs a restart",
                "daemon.scratch_dir changed: `/var/lib/backstop/scratch` → `/srv/backstop/scratch`",
                "crm removed with 1 job",
                "orders changed: stanza, nice",
                "shop added with 2 jobs",
                "orders/full rescheduled: `0 2 * * SUN` → `0 3 * * SUN`",
                "orders/full changed: splay",
                "orders/diff removed",
                "orders/wal added: `@hourly`",
            ]
        );
        let restarts = changes.iter().filter(|change| change.needs_restart()).count();
        assert_eq!(restarts, 1);
    }
    #[test]
    fn storages_keys_and_what_a_dump_says_are_told_by_their_names() {
        let before = r#"
            [storage.local]
            type = "filesystem"
            path = "/srv/backups"
            [storage.offsite]
            type = "s3"
            bucket = "acme"
            [encryption.old]
            type = "aes256"
            passphrase = "file:/etc/old"
            [database.shop]
            engine = "sqlite"
            sqlite = { path = "/srv/shop.db" }
            storage = "local"
            encryption = "old"
        "#;
        let after = r#"
            [storage.local]
            type = "filesystem"
            path = "/srv/dumps"
            [storage.offsite]
            type = "s3"
            bucket = "acme"
            endpoint = "https://s3.example.com"
            [storage.third]
            type = "filesystem"
            path = "/srv/third"
            [encryption.old]
            type = "aes256"
            passphrase = "file:/etc/other"
            [encryption.new]
            type = "aes256"
            passphrase = "file:/etc/new"
            [database.shop]
            engine = "sqlite"
            sqlite = { path = "/srv/shop.sqlite" }
            storage = ["local", "third"]
            encryption = "new"
            compression = "gzip"
            dump = { on_shrink = "fail" }
        "#;
        let lines: Vec<String> = told(before, after).iter().map(Change::to_string).collect();
        assert_eq!(
            lines,
            [
                "storage.local changed: path",
                "storage.offsite changed: endpoint, path_style",
                "storage.third added",
                "encryption.new added",
                "encryption.old changed: passphrase",
                "shop changed: storage, encryption, compression, dump.on_shrink, sqlite",
            ]
        );
        let back: Vec<String> = told(after, before).iter().map(Change::to_string).collect();
        assert_eq!((&*back[2], &*back[3]), ("storage.third removed", "encryption.new removed"));
        assert_eq!(told(before, before), []);
    }
}
