//! The values of one section, checked by themselves: `[defaults]`, an environment, or what a database writes itself.
//!
//! What needs another section (a tier that must be defined, a repository that must be listed) waits for `database.rs`.
//! A newcomer would fill in a built-in default here; then the section below would never get its say.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use chrono_tz::Tz;

use super::{Checker, DAY, MINUTE, dump::Table, timing::Timing};
use crate::{
    policy::{
        Assertion, Canary, Expect, ExpireBy, IoClass, MySql, PgBackRest, Promote, Retention, Retry, SecretRef, Sqlite,
        TestRestore, Wal,
        file::{self, Answer, Ionice, Length, Names, Settings, Squeeze},
        mask,
        source::At,
    },
    record::{Compression, EngineKind, RepoKey},
};

/// Tool families that people will ask for.
const LATER_ENGINES: &[&str] = &["rds", "cloudsql", "velero", "files"];
/// Other words for those that we have.
const OTHER_WORDS: &[(&str, EngineKind)] = &[
    ("postgres", EngineKind::PgDump),
    ("postgresql", EngineKind::PgDump),
    ("mysql", EngineKind::MySqlDump),
    ("mariadb", EngineKind::MySqlDump),
    ("mariadb-dump", EngineKind::MySqlDump),
    ("sqlite3", EngineKind::Sqlite),
];

/// A checked section; `None` is not written.
pub(super) struct Layer {
    file: usize,
    top: String,
    section: Option<String>,
    pub(super) engine: Option<EngineKind>,
    pub(super) stanza: Option<String>,
    pub(super) environment: Option<String>,
    pub(super) tier: Option<String>,
    pub(super) connection: Option<String>,
    pub(super) password: Option<SecretRef>,
    pub(super) schedule: Option<Vec<Timing>>,
    pub(super) wal: Option<Wal>,
    pub(super) retention: Option<Retention>,
    pub(super) test_restore: Option<TestRestore>,
    /// The stanza in it is still empty.
    pub(super) pgbackrest: Option<PgBackRest>,
    pub(super) storage: Option<Vec<String>>,
    /// A key, or `none`.
    pub(super) encryption: Option<String>,
    pub(super) compression: Option<Compression>,
    pub(super) dump: Option<Table>,
    pub(super) mysql: Option<MySql>,
    pub(super) sqlite: Option<Sqlite>,
    pub(super) catch_up: Option<Duration>,
    pub(super) splay: Option<Duration>,
    pub(super) retry: Option<Retry>,
    pub(super) stall: Option<Duration>,
    pub(super) nice: Option<u8>,
    pub(super) ionice: Option<IoClass>,
    pub(super) promote: Option<Promote>,
    pub(super) protected: Option<bool>,
    pub(super) retention_days: Option<Duration>,
}

impl Layer {
    /// The path to the section.
    pub(super) fn at(&self) -> At<'_> {
        match &self.section {
            Some(name) => At::Section(self.file, &self.top, name),
            None => At::Top(self.file, &self.top),
        }
    }
}

impl Checker<'_, '_> {
    /// Checks the values of one section.
    pub(super) fn layer(&mut self, at: &At, typed: Settings) -> Layer {
        let (top, section) = match at {
            At::Section(_, top, name) => (*top, Some((*name).to_owned())),
            _ => (at.name(), None),
        };
        Layer {
            file: at.file(),
            top: top.to_owned(),
            section,
            engine: typed.engine.and_then(|name| self.engine(&at.key("engine"), &name)),
            stanza: typed.stanza.map(|stanza| self.stanza(&at.key("stanza"), stanza)),
            environment: typed.environment,
            tier: typed.tier,
            connection: typed.connection.map(|text| self.connection(&at.key("connection"), text)),
            password: typed.password.map(|secret| self.secret(&at.key("password"), secret)),
            schedule: typed.schedule.map(|schedules| self.schedules(&at.key("schedule"), schedules)),
            wal: typed.wal.map(|wal| self.wal(&at.key("wal"), wal)),
            retention: typed.retention.map(|retention| self.retention(&at.key("retention"), retention)),
            test_restore: typed.test_restore.map(|test| self.test_restore(&at.key("test_restore"), test)),
            pgbackrest: typed.pgbackrest.map(|tool| self.pgbackrest(&at.key("pgbackrest"), tool)),
            storage: typed.storage.map(|Names(names)| names),
            encryption: typed.encryption.map(|name| self.not_empty(&at.key("encryption"), name)),
            compression: typed.compression.map(|Squeeze(compression)| compression),
            dump: typed.dump.map(|table| self.dump_table(&at.key("dump"), table)),
            mysql: typed.mysql.map(|mysql| self.mysql(&at.key("mysql"), mysql)),
            sqlite: typed.sqlite.map(|sqlite| self.sqlite(&at.key("sqlite"), sqlite)),
            catch_up: typed.catch_up.map(|Length(length)| length),
            splay: typed.splay.map(|Length(length)| length),
            retry: typed.retry.map(|retry| self.retry(&at.key("retry"), retry)),
            stall: typed.stall.map(|length| self.positive(&at.key("stall"), length)),
            nice: typed.nice.map(|nice| self.nice(&at.key("nice"), nice)),
            ionice: typed.ionice.map(|Ionice(class)| class),
            promote: typed.promote,
            protected: typed.protected,
            retention_days: typed.retention_days.map(|days| self.days(&at.key("retention_days"), days)),
        }
    }

    /// A wrong one is left out, so that nobody says what does not fit to it.
    fn engine(&mut self, at: &At, name: &str) -> Option<EngineKind> {
        if let Ok(engine) = name.parse() {
            return Some(engine);
        }
        let words: Vec<&str> = EngineKind::ALL.iter().map(|engine| engine.as_str()).collect();
        let known = words.join(", ");
        if LATER_ENGINES.contains(&name) {
            let problem = self.findings.error(at, format!("this version does not have the engine `{name}`"));
            problem.help(format!("It has: {known}."));
        } else {
            let meant = OTHER_WORDS.iter().find(|(word, _)| *word == name).map(|(_, engine)| engine.as_str());
            let problem = self.findings.error(at, format!("`{name}` is not one of: {known}"));
            problem.suggest(meant.unwrap_or(name), words);
        }
        self.findings.damage(at);
        None
    }

    fn stanza(&mut self, at: &At, stanza: String) -> String {
        let is_good = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
        if stanza.is_empty() || stanza.starts_with('-') || !stanza.chars().all(is_good) {
            let problem = self.findings.error(at, "is no stanza");
            problem.help("Use letters, digits, `-`, `_` and `.`, and do not begin with `-`.");
        }
        stanza
    }

    fn connection(&mut self, at: &At, text: String) -> String {
        if mask::has_password(&text) {
            let problem = self.findings.error(at, "a password may not stand in the policy");
            problem.help("Take it out, and say where it is: `password = \"file:/path\"`, or libpq's password file.");
        }
        self.not_empty(at, text)
    }

    /// A reference to a secret.
    pub(super) fn secret(&mut self, at: &At, secret: SecretRef) -> SecretRef {
        if matches!(secret, SecretRef::Credential(_)) {
            let message = "a systemd credential changes only at a restart, and is gone when the service is down";
            let help = "A restore from the command line then needs it from elsewhere; a `file:` with mode 0600 is always there.";
            self.findings.warning(at, message).help(help);
        }
        secret
    }

    fn wal(&mut self, at: &At, typed: file::Wal) -> Wal {
        let usual = Wal::default();
        Wal {
            max_lag: typed.max_lag.map_or(usual.max_lag, |length| self.positive(&at.key("max_lag"), length)),
            max_ready: typed.max_ready.unwrap_or(usual.max_ready),
            gap_grace: typed.gap_grace.map_or(usual.gap_grace, |Length(length)| length),
        }
    }

    fn retention(&mut self, at: &At, typed: file::Retention) -> Retention {
        let usual = Retention::default();
        if typed.days.is_some() && typed.keep_within.is_some() {
            let problem = self.findings.error(&at.key("keep_within"), "says the same as `days`, which is written too");
            problem.help("Leave one of them out.");
        }
        let mut count = |key, value: Option<u32>| value.map(|count| self.at_least_one(&at.key(key), count));
        let mut rules = Retention {
            full: count("full", typed.full),
            diff: count("diff", typed.diff),
            incr: count("incr", typed.incr),
            last: count("keep_last", typed.keep_last),
            hourly: count("keep_hourly", typed.keep_hourly),
            daily: count("keep_daily", typed.keep_daily),
            weekly: count("keep_weekly", typed.keep_weekly),
            monthly: count("keep_monthly", typed.keep_monthly),
            quarterly: count("keep_quarterly", typed.keep_quarterly),
            yearly: count("keep_yearly", typed.keep_yearly),
            keep_proven: count("keep_proven", typed.keep_proven).unwrap_or(usual.keep_proven),
            foreign: typed.foreign.unwrap_or(usual.foreign),
            max_delete_fraction: typed.max_delete_fraction.unwrap_or(usual.max_delete_fraction),
            shrink_grace: typed.shrink_grace.map_or(usual.shrink_grace, |Length(length)| length),
            ..usual
        };
        let mut length = |key, value: Option<Length>| value.map(|length| self.positive(&at.key(key), length));
        let within = length("keep_within", typed.keep_within);
        rules.recovery_window = length("recovery_window", typed.recovery_window);
        rules.wal_depth = length("wal_depth", typed.wal_depth);
        rules.within = typed.days.map(|days| self.days(&at.key("days"), days)).or(within);
        self.retention_fits(at, &rules);
        rules
    }

    fn retention_fits(&mut self, at: &At, rules: &Retention) {
        if !(0.0..=1.0).contains(&rules.max_delete_fraction) {
            self.findings.error(&at.key("max_delete_fraction"), "must be between 0 and 1");
        }
        if let (Some(window), Some(depth)) = (rules.recovery_window, rules.wal_depth)
            && depth < window
        {
            let problem = self.findings.error(&at.key("wal_depth"), "must not be shorter than `recovery_window`");
            problem.help("Without the WAL between its backups nothing can be recovered to a moment.");
        }
    }

    fn test_restore(&mut self, at: &At, typed: file::TestRestore) -> TestRestore {
        let list = at.key("assert");
        let numbered = typed.assert.unwrap_or_default().into_iter().enumerate();
        TestRestore {
            assertions: numbered.map(|(index, typed)| self.assertion(&list.index(index), typed)).collect(),
            canary: typed.canary.unwrap_or(Canary::RestorePoint),
            amcheck: typed.amcheck.unwrap_or(true),
            checksums: typed.checksums.unwrap_or(true),
            server_bin: typed.server_bin.map(|path| self.absolute(&at.key("server_bin"), path)),
            identity: typed.identity.map(|path| self.absolute(&at.key("identity"), path)),
        }
    }

    fn assertion(&mut self, at: &At, typed: file::Assertion) -> Assertion {
        if typed.sql.is_none() && !self.findings.is_damaged(&at.key("sql")) {
            self.findings.error(at, "needs an `sql`").help("Write one statement that returns one value.");
        }
        let is_bounded = typed.min.is_some() || typed.max.is_some();
        let damaged = |key: &str| self.findings.is_damaged(&at.key(key));
        let is_unclear = is_bounded == typed.equals.is_some() && !["min", "max", "equals"].into_iter().any(damaged);
        if is_unclear {
            self.findings.error(at, "needs an answer to expect: `min`, `max` or both, or `equals`");
        }
        let (min, max) = (typed.min, typed.max);
        if min.zip(max).is_some_and(|(min, max)| min > max) {
            self.findings.error(&at.key("min"), "must not be greater than `max`");
        }
        for (key, bound) in [("min", min), ("max", max)] {
            if bound.is_some_and(|bound| !bound.is_finite()) {
                self.findings.error(&at.key(key), "must be a finite number").help("Leave it out for no bound.");
            }
        }
        let equals = typed.equals.map(|Answer(text)| Expect::Equals(text));
        Assertion {
            sql: typed.sql.map(|sql| self.not_empty(&at.key("sql"), sql)).unwrap_or_default(),
            database: typed.database.map(|database| self.not_empty(&at.key("database"), database)),
            expect: equals.unwrap_or(Expect::Between { min, max }),
        }
    }

    fn pgbackrest(&mut self, at: &At, typed: file::PgBackRest) -> PgBackRest {
        let usual = PgBackRest::default();
        let secrets = typed.secrets.unwrap_or_default();
        PgBackRest {
            stanza: String::new(),
            config: typed.config.map(|path| self.absolute(&at.key("config"), path)),
            binary: typed.binary.map_or(usual.binary, |path| self.program(&at.key("binary"), path)),
            repos: typed.repos.map_or(usual.repos, |repos| self.repos(&at.key("repos"), repos)),
            label_timezone: typed
                .label_timezone
                .map_or(usual.label_timezone, |name| self.zone(&at.key("label_timezone"), &name)),
            secrets: self.secrets(&at.key("secrets"), secrets),
            start_fast: typed.start_fast.unwrap_or(usual.start_fast),
            process_max: typed.process_max.map(|count| self.at_least_one(&at.key("process_max"), count)),
            expire_by: typed.expire_by.unwrap_or(usual.expire_by),
        }
    }

    fn program(&mut self, at: &At, path: PathBuf) -> PathBuf {
        let is_name = path.components().count() == 1 && !path.as_os_str().is_empty();
        if is_name { path } else { self.absolute(at, path) }
    }

    fn repos(&mut self, at: &At, repos: Vec<RepoKey>) -> Vec<RepoKey> {
        if repos.is_empty() {
            self.findings.error(at, "needs at least one repository").help("Write for example `repos = [1]`.");
        }
        for (index, repo) in repos.iter().enumerate() {
            if !(1..=256).contains(repo) {
                let problem = self.findings.error(&at.index(index), format!("`{repo}` is no repository"));
                problem.help("pgBackRest counts them from 1 to 256.");
            }
            if repos[..index].contains(repo) {
                self.findings.error(&at.index(index), format!("repository {repo} stands twice"));
            }
        }
        repos
    }

    fn secrets(&mut self, at: &At, typed: BTreeMap<String, SecretRef>) -> BTreeMap<String, SecretRef> {
        let is_good = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        let checked = typed.into_iter().map(|(variable, secret)| {
            let at = at.key(&variable);
            if !variable.starts_with("PGBACKREST_") || !variable.chars().all(is_good) {
                let problem =
                    self.findings.key_error(&at, format!("`{variable}` is no variable that pgBackRest reads"));
                problem.help("Write for example `PGBACKREST_REPO1_CIPHER_PASS`.");
            }
            let secret = self.secret(&at, secret);
            (variable, secret)
        });
        checked.collect()
    }

    fn nice(&mut self, at: &At, nice: u8) -> u8 {
        if nice > 19 {
            self.findings.error(at, format!("must be 0 to 19, not {nice}"));
        }
        nice
    }
}

impl Default for Wal {
    fn default() -> Self {
        Self { max_lag: 15 * MINUTE, max_ready: 16, gap_grace: 2 * MINUTE }
    }
}

impl Default for TestRestore {
    fn default() -> Self {
        let (assertions, server_bin) = (Vec::new(), None);
        Self { assertions, canary: Canary::RestorePoint, amcheck: true, checksums: true, server_bin, identity: None }
    }
}

/// The stanza is empty: where none is written it is the database's name.
impl Default for PgBackRest {
    fn default() -> Self {
        Self {
            stanza: String::new(),
            config: None,
            binary: "pgbackrest".into(),
            repos: vec![1],
            label_timezone: Tz::UTC,
            secrets: BTreeMap::new(),
            start_fast: true,
            process_max: None,
            expire_by: ExpireBy::Backstop,
        }
    }
}

/// For how long backups are kept where nothing at all is written.
pub(super) const fn built_in_retention(environment: &str) -> Duration {
    DAY.saturating_mul(match environment.as_bytes() {
        b"development" => 30,
        b"staging" => 60,
        _ => 90,
    })
}
