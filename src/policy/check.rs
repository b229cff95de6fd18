//! From typed files to a checked policy: what is possible, what is defined, what fits together.
//!
//! The order is: the daemon (its zone reads the schedules), `[defaults]`, environments, tiers, storages and keys, then
//! each database over these. `layer.rs` checks the values of one section, wherever it stands, so that a mistake in
//! `[defaults]` is told once, with the help of `value.rs`, of `timing.rs` for schedules and of `dump.rs` for dumps;
//! `database.rs` lays the sections over each other, `engine.rs` refuses what is another engine's, `jobs.rs` makes the
//! jobs, `fit.rs` and `dump.rs` ask whether all fits together. A newcomer would stop at the first problem; every
//! check gives a value to go on with, and the policy is refused at the end.

mod database;
mod dump;
mod engine;
mod fit;
mod jobs;
mod key;
mod layer;
mod storage;
mod timing;
mod value;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    mem,
    path::{Path, PathBuf},
    time::Duration,
};

use chrono_tz::Tz;

use self::{database::Shared, timing::Crons};
use super::{
    Daemon, Job, Policy, Problem, Problems, Promote, Retry, Severity, Tier,
    file::{self, Encryption, File, Length, When},
    problem::Findings,
    read::Reader,
    source::{At, Source},
};
use crate::record::{DatabaseName, JobKey, JobKind};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Checks the text of files, the main file first.
pub(super) fn check(files: Vec<(PathBuf, String)>, hash: String) -> Result<Policy, Problems> {
    if files.is_empty() {
        return Err(vec![Problem::of_file(Path::new(""), "there is no policy file".to_owned())].into());
    }
    let (policy, problems) = {
        let (sources, errors): (Vec<Source>, Vec<_>) = files.iter().map(Source::parse).unzip();
        let mut findings = Findings::new(&sources);
        for (number, mut errors) in errors.into_iter().enumerate() {
            errors.sort_by_key(|error| error.span().map(|span| span.start));
            errors.iter().for_each(|error| findings.broken(number, error.span().unwrap_or_default(), error.message()));
        }
        let mut reader = Reader::new(&mut findings);
        let typed = (0..files.len()).map(|number| reader.file(number)).collect();
        let (policy, findings) = Checker { findings, crons: Crons::new(Tz::UTC) }.policy(typed);
        (policy, findings.into_problems())
    };
    if problems.iter().any(|problem| problem.severity == Severity::Error) {
        return Err(problems.into());
    }
    Ok(Policy { warnings: problems, hash, files, ..policy })
}

/// What all checks share: where to report to, and the cron texts parsed so far.
struct Checker<'s, 't> {
    findings: Findings<'s, 't>,
    crons: Crons,
}

impl<'s, 't> Checker<'s, 't> {
    fn policy(mut self, mut files: Vec<File>) -> (Policy, Findings<'s, 't>) {
        let main = files.first_mut().map(|main| (main.daemon.take(), main.schedule.take(), main.defaults.take()));
        let (daemon, schedule, defaults) = main.unwrap_or_default();
        let daemon = self.daemon(daemon.unwrap_or_default());
        self.crons = Crons::new(daemon.timezone);
        let mut jobs = self.own_jobs(schedule.and_then(|schedule| schedule.catalog_backup));

        let defaults = self.layer(&At::Top(0, "defaults"), defaults.unwrap_or_default());
        let environments = files.iter_mut().map(|file| mem::take(&mut file.environment)).collect();
        let environments = self.named("environment", environments, Self::layer);
        let tiers = files.iter_mut().map(|file| mem::take(&mut file.tier)).collect();
        let tiers = self.named("tier", tiers, Self::tier);
        let storages = files.iter_mut().map(|file| mem::take(&mut file.storage)).collect();
        let storages = self.named("storage", storages, Self::storage);
        self.storages_fit(&storages, &daemon);
        let keys = files.iter_mut().map(|file| mem::take(&mut file.encryption)).collect();
        let keys = self.named("encryption", keys, Self::key);
        let layers = files.iter_mut().map(|file| mem::take(&mut file.database)).collect();
        let layers = self.named("database", layers, Self::layer);

        // Where a file is no TOML, whatever seems to be missing may only be hidden.
        let mut databases = BTreeMap::new();
        let shared = Shared { defaults, environments, tiers, storages, keys };
        if !self.findings.is_broken() {
            databases = self.databases(&layers, &shared, &mut jobs);
        }
        jobs.sort_by(|a, b| a.key.cmp(&b.key));
        let policy = Policy {
            daemon,
            storages: shared.storages.into_iter().map(|(name, written)| (name, written.storage)).collect(),
            keys: shared.keys,
            databases,
            jobs,
            warnings: Vec::new(),
            hash: String::new(),
            files: Vec::new(),
        };
        (policy, self.findings)
    }

    fn daemon(&mut self, typed: file::Daemon) -> Daemon {
        let at = At::Top(0, "daemon");
        let state_dir = typed.state_dir.map(|path| self.absolute(&at.key("state_dir"), path));
        let state_dir = state_dir.unwrap_or_else(|| "/var/lib/backstop".into());
        let scratch_dir = typed.scratch_dir.map(|path| self.absolute(&at.key("scratch_dir"), path));
        let max_parallel = typed.max_parallel.unwrap_or(2);
        if !(1..=1_000).contains(&max_parallel) {
            self.findings.error(&at.key("max_parallel"), format!("must be 1 to 1000, not {max_parallel}"));
        }
        Daemon {
            timezone: typed.timezone.map_or(Tz::UTC, |name| self.zone(&at.key("timezone"), &name)),
            scratch_dir: scratch_dir.unwrap_or_else(|| state_dir.join("scratch")),
            state_dir,
            max_parallel: max_parallel as usize,
            stop_grace: typed.stop_grace.map_or(5 * MINUTE, |Length(grace)| grace),
            keep_runs: typed.keep_runs.map_or(400 * DAY, |length| self.positive(&at.key("keep_runs"), length)),
            keep_logs: typed.keep_logs.map_or(30 * DAY, |length| self.positive(&at.key("keep_logs"), length)),
        }
    }

    /// The jobs without a database.
    fn own_jobs(&mut self, catalog_backup: Option<When>) -> Vec<Job> {
        let kind = JobKind::CatalogBackup;
        let when = catalog_backup.unwrap_or_else(|| When::One(file::Entry::Text("30 3 * * *".to_owned())));
        let at = At::Top(0, "schedule");
        let timings = self.timings(&at, kind.as_str(), kind, when);
        let jobs = timings.into_iter().map(|timing| {
            self.splay_fits(&timing, &at, None);
            Job {
                key: JobKey { database: None, kind, repo: None, name: timing.name },
                schedule: timing.schedule,
                splay: timing.splay.unwrap_or_default(),
                catch_up: timing.catch_up,
                retry: timing.retry.unwrap_or_default(),
                timeout: timing.timeout.or(timing::built_in_timeout(kind)),
                not_after: timing.not_after,
                promote: Promote::Never,
            }
        });
        jobs.collect()
    }

    /// Checks the sections of one kind in all files; a name stands once.
    fn named<T, U>(
        &mut self,
        top: &'static str,
        files: Vec<BTreeMap<String, T>>,
        check: impl Fn(&mut Self, &At, T) -> U,
    ) -> BTreeMap<String, U> {
        let mut first_in = BTreeMap::new();
        let mut checked = BTreeMap::new();
        for (number, sections) in files.into_iter().enumerate() {
            for (name, section) in sections {
                let at = At::Section(number, top, &name);
                if let Err(error) = name.parse::<DatabaseName>() {
                    self.findings.error(&at, error);
                }
                let section = check(self, &at, section);
                match first_in.entry(name.clone()) {
                    Entry::Occupied(first) => self.defined_twice(&at, *first.get()),
                    Entry::Vacant(place) => {
                        place.insert(number);
                        checked.insert(name, section);
                    }
                }
            }
        }
        checked
    }

    fn defined_twice(&mut self, at: &At, first: usize) {
        let first = self.findings.sources()[first].path.display();
        self.findings.error(at, format!("is defined in `{first}` already")).help("Write it in one place.");
    }

    fn tier(&mut self, at: &At, typed: file::Tier) -> Tier {
        let success_rate = typed.success_rate;
        if success_rate.is_some_and(|rate| !(0.0..=1.0).contains(&rate)) {
            self.findings.error(&at.key("success_rate"), "must be between 0 and 1");
        }
        let proof_age = typed.proof_age.map(|length| self.positive(&at.key("proof_age"), length));
        Tier {
            name: at.name().to_owned(),
            rpo: typed.rpo.map(|length| self.positive(&at.key("rpo"), length)),
            rto: typed.rto.map(|length| self.positive(&at.key("rto"), length)),
            success_rate,
            min_copies: typed.min_copies.map(|count| self.at_least_one(&at.key("min_copies"), count)),
            encryption_required: typed.encryption == Some(Encryption::Required),
            proof_age: proof_age.or(no_tier().proof_age),
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 3, backoff: MINUTE, max_backoff: 30 * MINUTE }
    }
}

/// The objectives of a database that names no tier.
fn no_tier() -> Tier {
    Tier { proof_age: Some(35 * DAY), ..Tier::default() }
}

/// The errors of a policy of one file, one line each, for tests; warnings are left out.
#[cfg(test)]
fn errors(text: &str) -> Vec<String> {
    let problems = parse(text).map_or_else(|problems| problems.list().to_vec(), |_| Vec::new());
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
    errors.map(ToString::to_string).collect()
}

/// The warnings of a policy that is right otherwise, one line each, for tests.
#[cfg(test)]
fn warnings(text: &str) -> Vec<String> {
    let policy = parse(text).unwrap_or_else(|problems| panic!("{text}\n{problems}"));
    policy.warnings.iter().map(ToString::to_string).collect()
}

/// A policy of one file, for tests.
#[cfg(test)]
fn parse(text: &str) -> Result<Policy, Problems> {
    Policy::parse(vec![("backstop.toml".into(), text.to_owned())])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXAMPLE: &str = include_str!("../../config/backstop.example.toml");
    const MINIMAL: &str = include_str!("../../config/minimal.toml");
    const DUMPS: &str = include_str!("../../config/minimal-dumps.toml");

    /// Pieces of policies, right and wrong, with `|` between them.
    const PIECES: &str = "[database.a]\n|[database.a.schedule]\n|[[database.a.test_restore.assert]]\n|[defaults]\n|[tier.ü]\n\
        |[storage.x]\n|[encryption.x]\n|[database.b]\nengine = \"pg_dump\"\n|storage|encryption|type|recipients|mysql|sqlite|dump|format\
        |\"s3\"|\"age\"|\"AGE-SECRET-KEY-1\"|\"http://u:p@h\"|full|schedule|password|retry|repos|pgbackrest|incr|stall|connection| = |.|,|{ | }|[|]|\"|\"\"\"|'|\n|\r\n|#|ü|€|\u{feff}\
        |\t|\0|5|-1|1e400|true|2026-01-01|\"0 2 * * SUN\"|\"5m\"|\"ä:ö@ü\"|postgresql://u:p@h|\\u00e4|\\";

    fn files(files: &[(&str, &str)]) -> Result<Policy, Problems> {
        Policy::parse(files.iter().map(|(path, text)| (path.into(), (*text).to_owned())).collect())
    }

    #[test]
    fn ten_mistakes_give_ten_messages() {
        let problems = files(&[
            (
                "/etc/backstop/backstop.toml",
                r#"
[daemon]
timezone = "Europe/Belin"
state_dir = "var/lib/backstop"
max_parallel = "two"

[database.orders]
environment = "prodution"
tier = "critical"
connection = "postgresql://backup:hunter2@db/orders"
retenton = { full = 4 }

[database.orders.schedule]
full = "61 2 * * SUN"
wal = { cron = "*/5 * * * *", not_after = "25:00" }
test_restore = "0 4 1 * *"
expire = "30 4 * * *"
"#,
            ),
            (
                "/etc/backstop/conf.d/crm.toml",
                r#"
[database.crm]
engine = "velero"
schedule = { full = "0 1 * * *", test_restore = "0 4 2 * *", expire = "@daily" }
"#,
            ),
        ]);
        // How a cron text is refused is told in cron.rs.
        let cron = crate::cron::Schedule::parse("61 2 * * SUN", Tz::UTC).unwrap_err().to_string();
        insta::assert_snapshot!(problems.unwrap_err().to_string().replace(&cron, "[what is wrong with it]"), @r#"
        error: daemon.timezone: `Europe/Belin` is no IANA time zone
         --> /etc/backstop/backstop.toml:3:12
          |
        3 | timezone = "Europe/Belin"
          |            ^^^^^^^^^^^^^^
          |
          = help: did you mean `Europe/Berlin`?

        error: daemon.state_dir: `var/lib/backstop` must be an absolute path
         --> /etc/backstop/backstop.toml:4:13
          |
        4 | state_dir = "var/lib/backstop"
          |             ^^^^^^^^^^^^^^^^^^

        error: daemon.max_parallel: must be a whole number, 0 or more, not a text
         --> /etc/backstop/backstop.toml:5:16
          |
        5 | max_parallel = "two"
          |                ^^^^^

        error: database.orders.environment: there is no environment `prodution`
         --> /etc/backstop/backstop.toml:8:15
          |
        8 | environment = "prodution"
          |               ^^^^^^^^^^^
          |
          = help: did you mean `production`?

        error: database.orders.tier: there is no tier `critical`
         --> /etc/backstop/backstop.toml:9:8
          |
        9 | tier = "critical"
          |        ^^^^^^^^^^
          |
          = help: Write a `[tier.critical]`.

        error: database.orders.connection: a password may not stand in the policy
          --> /etc/backstop/backstop.toml:10:14
           |
        10 | connection = ***************************************
           |              ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
           |
           = help: Take it out, and say where it is: `password = "file:/path"`, or libpq's password file.

        error: database.orders: unknown key `retenton`
          --> /etc/backstop/backstop.toml:11:1
           |
        11 | retenton = { full = 4 }
           | ^^^^^^^^
           |
           = help: did you mean `retention`?

        error: database.orders.schedule.full: [what is wrong with it]
          --> /etc/backstop/backstop.toml:14:8
           |
        14 | full = "61 2 * * SUN"
           |        ^^^^^^^^^^^^^^

        error: database.orders.schedule.wal.not_after: `25:00` is no time of day
          --> /etc/backstop/backstop.toml:15:43
           |
        15 | wal = { cron = "*/5 * * * *", not_after = "25:00" }
           |                                           ^^^^^^^
           |
           = help: Write hours and minutes, 00:00 to 23:59.

        error: database.crm.engine: this version does not have the engine `velero`
         --> /etc/backstop/conf.d/crm.toml:3:10
          |
        3 | engine = "velero"
          |          ^^^^^^^^
          |
          = help: It has: pgbackrest, pg_dump, mysqldump, sqlite.

        10 errors in 2 files
        "#);
    }

    #[test]
    fn the_configurations_we_ship_load() {
        for text in [EXAMPLE, MINIMAL, DUMPS] {
            let policy = parse(text).unwrap_or_else(|problems| panic!("{problems}"));
            assert_eq!(policy.warnings, Vec::new());
        }
        let switched_on: String = EXAMPLE
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase()) => format!("{key}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        assert_ne!(switched_on, EXAMPLE);
        assert_eq!(parse(&switched_on).unwrap_or_else(|problems| panic!("{problems}")).warnings, Vec::new());
    }

    #[test]
    fn the_example_shows_the_defaults() {
        let bare = parse("[database.orders]\ntier = \"critical\"\n[tier.critical]").unwrap();
        let example = parse(EXAMPLE).unwrap();
        assert_eq!(example.daemon, bare.daemon);
        let (shown, built_in) = (&example.databases.values().next().unwrap(), bare.databases.values().next().unwrap());
        assert_eq!(shown.pgbackrest, built_in.pgbackrest);
        assert_eq!(shown.wal, built_in.wal);
        assert_eq!(shown.niceness, built_in.niceness);
        assert_eq!((shown.stall, shown.protected), (built_in.stall, built_in.protected));
        assert_eq!(shown.tier.proof_age, built_in.tier.proof_age);
        let dump = &example.databases[&"portal".parse().unwrap()].dump;
        let usual = crate::policy::Dump::default();
        assert_eq!((dump.compression, dump.jobs, dump.globals), (usual.compression, usual.jobs, usual.globals));
        assert_eq!((dump.lock_timeout, dump.on_shrink), (usual.lock_timeout, usual.on_shrink));
        let own = |policy: &Policy| policy.jobs.iter().find(|job| job.key.database.is_none()).cloned();
        assert_eq!(own(&example), own(&bare));
    }

    #[test]
    fn a_policy_without_a_file_is_refused() {
        assert!(files(&[]).unwrap_err().to_string().contains("there is no policy file"));
    }

    #[test]
    fn files_of_conf_d_add_sections_and_nothing_else() {
        let main = ("backstop.toml", "[tier.gold]\n[database.a]\ntier = \"gold\"");
        let policy = files(&[main, ("conf.d/b.toml", "[database.b]\ntier = \"silver\"\n[tier.silver]")]).unwrap();
        assert_eq!(policy.databases.len(), 2);
        assert_eq!(policy.files.len(), 2);
        let refused = |text: &str| files(&[main, ("conf.d/b.toml", text)]).unwrap_err().to_string();
        assert!(refused("[daemon]").contains("`[daemon]` may stand in the main file only"));
        assert!(refused("[defaults]").contains("`[defaults]` may stand in the main file only"));
        assert!(refused("[database.a]").contains("database.a: is defined in `backstop.toml` already"));
        assert!(refused("[tier.gold]").contains("tier.gold: is defined in `backstop.toml` already"));
    }

    #[test]
    fn names_that_were_mistyped_are_suggested() {
        let help = |text: &str| {
            let problems = parse(text).unwrap_err();
            let error = problems.list().iter().find(|problem| problem.severity == Severity::Error);
            error.and_then(|error| error.help.clone()).unwrap_or_default()
        };
        for (text, meant) in [
            ("[deamon]", "daemon"),
            ("[daemon]\ntimezone = \"Europe/Belin\"", "Europe/Berlin"),
            ("[database.a]\nretenton = 1", "retention"),
            ("[database.a.schedule]\nfull = { corn = \"@weekly\", cron = \"@weekly\" }", "cron"),
            ("[database.a.test_restore]\nassert = [{ sqll = \"\", sql = \"x\", min = 1 }]", "sql"),
            ("[database.a]\npromote = \"dif\"", "diff"),
            ("[tier.critical]\n[database.a]\ntier = \"crtical\"", "critical"),
            ("[database.a]\nenvironment = \"prod\"", "production"),
        ] {
            assert_eq!(help(text), format!("did you mean `{meant}`?"), "{text}");
        }
    }

    #[test]
    fn a_key_is_refused_where_it_makes_no_sense() {
        for text in [
            "[defaults]\nstanza = \"a\"",
            "[defaults]\nconnection = \"service=a\"",
            "[environment.lab]\nenvironment = \"lab\"",
            "[database.a]\nprotected = true",
        ] {
            assert!(parse(text).unwrap_err().to_string().contains("makes no sense here"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_check_fall_over(picks in prop::collection::vec(any::<prop::sample::Index>(), 0..24)) {
            let pieces: Vec<&str> = PIECES.split('|').collect();
            let text: String = picks.iter().map(|pick| *pick.get(&pieces)).collect();
            if let Err(problems) = parse(&text) {
                prop_assert!(!problems.render(true).is_empty());
            }
        }
    }

    #[test]
    fn every_error_of_the_syntax_is_told_and_nothing_that_only_follows_from_it() {
        let problems =
            parse("[database.a\ntier = \"x\"\n[database.b]\nstall = 5m\nnice = ten\nstanzo = \"b\"").unwrap_err();
        let told: Vec<_> = problems.list().iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 4, "{told:#?}");
        assert!(told[3].contains("unknown key `stanzo`"), "{told:#?}");
    }
}
