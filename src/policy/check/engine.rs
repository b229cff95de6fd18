//! Which keys a database may write with its engine; the others are refused, each with the reason.
//!
//! Only what a database writes itself is refused: a `[defaults]` serves databases of several engines, and what does not
//! concern one is left out of it. A newcomer would let a key that nobody reads stand; somebody believes in it.

use super::{Checker, database::Layers};
use crate::{
    policy::{Database, source::At},
    record::{DumpFormat, EngineKind, JobKind},
};

/// A key, and why it makes no sense.
type Refused = &'static [(&'static str, &'static str)];

/// What no database of pgBackRest may write.
const WITH_PGBACKREST: Refused = &[
    ("storage", "Its backups lie in pgBackRest's own repositories, see `pgbackrest.repos`."),
    ("encryption", "pgBackRest encrypts its repositories itself: `repo1-cipher-type` in its configuration."),
    ("compression", "pgBackRest compresses by its own configuration: `compress-type`."),
    ("dump", "It is for the engines pg_dump, mysqldump and sqlite."),
    ("mysql", "It is for the engine mysqldump."),
    ("sqlite", "It is for the engine sqlite."),
    ("test_restore.identity", "pgBackRest knows the key of its repositories itself."),
];
/// What no database that is dumped may write.
const WITH_DUMPS: Refused = &[
    ("stanza", "It is for the engine pgbackrest."),
    ("pgbackrest", "It is for the engine pgbackrest."),
    ("wal", "A dump is of one moment; WAL is watched with the engine pgbackrest."),
    ("promote", "A dump is always a full."),
    ("schedule.diff", "A dump is always a full: write `full`."),
    ("schedule.differential", "A dump is always a full: write `full`."),
    ("schedule.incr", "A dump is always a full: write `full`."),
    ("schedule.incremental", "A dump is always a full: write `full`."),
    ("schedule.wal", "A dump is of one moment; WAL is watched with the engine pgbackrest."),
    ("retention.diff", "A dump is always a full."),
    ("retention.incr", "A dump is always a full."),
    ("retention.recovery_window", "A dump is of one moment; write for example `keep_within`."),
    ("retention.foreign", "Dumps of others are never ended."),
    ("retention.wal_depth", "A dump is of one moment; WAL is kept with the engine pgbackrest."),
    ("test_restore.canary", "A dump ends at its own moment; there is no later one to reach."),
    ("test_restore.checksums", "A dump holds rows and not pages."),
];
const WITH_PG_DUMP: Refused = &[
    ("mysql", "It is for the engine mysqldump; a PostgreSQL server is told by `connection`."),
    ("sqlite", "It is for the engine sqlite."),
];
const WITH_MYSQLDUMP: Refused = &[
    ("connection", "Write `[database.NAME.mysql]` with a `host` or a `socket`, and the `user`."),
    ("sqlite", "It is for the engine sqlite."),
    ("dump.jobs", "It is for the directory format of pg_dump."),
    ("dump.globals", "It is for pg_dump; users and rights are in the database `mysql`."),
    ("test_restore.amcheck", "It is for PostgreSQL."),
];
const WITH_SQLITE: Refused = &[
    ("connection", "Write the file: `sqlite = { path = \"/srv/wiki/wiki.db\" }`."),
    ("password", "A file has no password."),
    ("mysql", "It is for the engine mysqldump."),
    ("dump.format", "The dump is a copy of the database file."),
    ("dump.jobs", "It is for the directory format of pg_dump."),
    ("dump.globals", "It is for pg_dump."),
    ("test_restore.amcheck", "It is for PostgreSQL."),
    ("test_restore.server_bin", "There is no server."),
];

/// The lists that hold for an engine.
const fn refused(engine: EngineKind) -> [Refused; 2] {
    match engine {
        EngineKind::PgBackRest => [WITH_PGBACKREST, &[]],
        EngineKind::PgDump => [WITH_DUMPS, WITH_PG_DUMP],
        EngineKind::MySqlDump => [WITH_DUMPS, WITH_MYSQLDUMP],
        EngineKind::Sqlite => [WITH_DUMPS, WITH_SQLITE],
    }
}

impl Checker<'_, '_> {
    /// Refuses what a database writes for another engine than its own.
    pub(super) fn keys_fit_engine(&mut self, database: &Database, layers: &Layers) {
        let own = layers.own.at();
        for (path, why) in refused(database.engine).into_iter().flatten() {
            match path.split_once('.') {
                Some((table, key)) => self.refuse(&own.key(table).key(key), database, why),
                None => self.refuse(&own.key(path), database, why),
            }
        }
        let table = own.key("dump");
        self.format_fits(database, &table);
        self.chains_are_left_out(database, layers);
    }

    fn refuse(&mut self, at: &At, database: &Database, why: &str) {
        if self.findings.is_written(at) {
            let message = format!("`{}` makes no sense with the engine `{}`", at.name(), database.engine);
            self.findings.key_error(at, message).help(why.replace("NAME", database.name.as_str()));
        }
    }

    fn format_fits(&mut self, database: &Database, table: &At) {
        let (format, jobs) = (table.key("format"), table.key("jobs"));
        let wanted = self.findings.text(&format);
        if database.engine == EngineKind::MySqlDump && wanted.is_some_and(|wanted| wanted != DumpFormat::Plain.as_str())
        {
            let problem = self.findings.error(&format, "mysqldump has the format `plain` only");
            problem.help("Leave the key out.");
        }
        let is_alone = database.engine == EngineKind::PgDump && database.dump.format != DumpFormat::Directory;
        if is_alone && self.findings.is_written(&jobs) && !self.findings.is_damaged(&format) {
            let warning = self.findings.warning(&jobs, "is not used: only the directory format is made by several");
            warning.help("Write `format = \"directory\"` beside it, or leave it out.");
        }
    }

    /// What a dump cannot do is left out of a schedule that it shares with others; that may not go unnoticed.
    fn chains_are_left_out(&mut self, database: &Database, layers: &Layers) {
        let Some((timings, layer)) = layers.written(|layer| layer.schedule.as_deref()) else { return };
        let is_chained = |kind| matches!(kind, JobKind::Diff | JobKind::Incr);
        if database.engine.is_dump()
            && !std::ptr::eq(layer, layers.own)
            && timings.iter().any(|timing| is_chained(timing.kind))
        {
            let message = format!("the diffs and incrs of `{}` do not concern it: a dump is always a full", layer.at());
            let warning = self.findings.warning(&layers.own.at(), message);
            warning.help("Write a `schedule` of its own.");
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::check::{errors, parse, warnings};

    const NONE: [&str; 0] = [];
    const STORAGE: &str = "[storage.local]\ntype = \"filesystem\"\npath = \"/srv/backups\"\n";
    const FULL: &str = "full = \"@daily\", expire = \"@daily\", test_restore = \"@monthly\"";

    /// A database `x` with what its engine needs, and these keys.
    fn text(engine: &str, keys: &str) -> String {
        let needs = match engine {
            "pg_dump" => "storage = \"local\"\nconnection = \"service=x\"",
            "mysqldump" => "storage = \"local\"",
            "sqlite" => "storage = \"local\"\nsqlite.path = \"/srv/x.db\"",
            _ => "",
        };
        format!("{STORAGE}[database.x]\nengine = \"{engine}\"\n{needs}\n{keys}\n")
    }

    #[test]
    fn a_key_of_another_engine_is_refused_with_the_reason() {
        for (engine, keys, why) in [
            ("pgbackrest", "storage = \"local\"", "pgBackRest's own repositories"),
            ("pgbackrest", "encryption = \"none\"", "encrypts its repositories itself"),
            ("pgbackrest", "compression = \"zstd\"", "by its own configuration"),
            ("pgbackrest", "dump = { jobs = 2 }", "for the engines pg_dump, mysqldump and sqlite"),
            ("pgbackrest", "mysql = { user = \"b\" }", "for the engine mysqldump"),
            ("pgbackrest", "sqlite = { path = \"/x\" }", "for the engine sqlite"),
            ("pgbackrest", "test_restore = { identity = \"/k\" }", "of its repositories itself"),
            ("pg_dump", "stanza = \"x\"", "for the engine pgbackrest"),
            ("pg_dump", "pgbackrest = { repos = [1] }", "for the engine pgbackrest"),
            ("pg_dump", "wal = { max_ready = 1 }", "A dump is of one moment"),
            ("pg_dump", "promote = \"any\"", "A dump is always a full"),
            (
                "pg_dump",
                "schedule = { full = \"@daily\", diff = \"@hourly\" }",
                "A dump is always a full: write `full`",
            ),
            ("mysqldump", "schedule = { full = \"@daily\", incremental = \"@hourly\" }", "A dump is always a full"),
            ("sqlite", "schedule = { full = \"@daily\", wal = \"@hourly\" }", "A dump is of one moment"),
            ("pg_dump", "retention = { full = 2, incr = 3 }", "A dump is always a full"),
            ("pg_dump", "test_restore = { canary = \"off\" }", "A dump ends at its own moment"),
            ("pg_dump", "test_restore = { checksums = true }", "A dump holds rows and not pages"),
            ("pg_dump", "mysql = { host = \"db\" }", "a PostgreSQL server is told by `connection`"),
            ("pg_dump", "sqlite = { path = \"/x\" }", "for the engine sqlite"),
            ("mysqldump", "connection = \"service=x\"", "Write `[database.x.mysql]`"),
            ("mysqldump", "dump = { format = \"custom\" }", "mysqldump has the format `plain` only"),
            ("mysqldump", "dump = { globals = true }", "for pg_dump"),
            ("sqlite", "connection = \"service=x\"", "Write the file"),
            ("sqlite", "password = \"file:/p\"", "A file has no password"),
            ("sqlite", "dump = { format = \"plain\" }", "a copy of the database file"),
            ("sqlite", "test_restore = { server_bin = \"/usr/bin\" }", "There is no server"),
        ] {
            let told = errors(&text(engine, keys));
            assert!(told.len() == 1 && told[0].contains(why), "{engine}: {keys}\n{told:#?}");
        }
        for (engine, keys) in [
            (
                "mysqldump",
                "dump = { format = \"plain\" }\npassword = \"file:/p\"\ntest_restore = { server_bin = \"/usr/bin\" }",
            ),
            (
                "pg_dump",
                "password = \"file:/p\"\ndump = { format = \"directory\", jobs = 4 }\ntest_restore = { amcheck = false }",
            ),
            ("sqlite", "dump = { on_shrink = \"fail\" }\nretention = { full = 2, days = 9, keep_proven = 2 }"),
        ] {
            assert_eq!(errors(&text(engine, keys)), NONE, "{engine}: {keys}");
        }
    }

    #[test]
    fn a_wrong_engine_is_told_and_nothing_that_only_follows_from_it() {
        for (engine, help) in [
            ("pgdump", "did you mean `pg_dump`?"),
            ("mariadb-dump", "did you mean `mysqldump`?"),
            ("velero", "It has: pgbackrest, pg_dump, mysqldump, sqlite."),
        ] {
            let told = errors(&text(engine, "storage = \"local\"\nmysql = { user = \"b\" }"));
            assert!(told.len() == 1 && told[0].contains(help), "{told:#?}");
        }
    }

    #[test]
    fn a_dump_has_one_job_of_each_kind_that_it_can_do() {
        let keys = |engine: &str, schedule: &str| -> Vec<String> {
            let schedule = format!("schedule = {{ {FULL}, verify = \"@weekly\"{schedule} }}");
            let policy = parse(&text(engine, &schedule)).unwrap_or_else(|problems| panic!("{problems}"));
            policy.jobs.iter().map(|job| job.key.to_string()).collect()
        };
        for engine in ["pg_dump", "mysqldump", "sqlite"] {
            assert_eq!(keys(engine, ""), ["catalog_backup", "x/full", "x/expire", "x/verify", "x/test_restore"]);
        }
        let told = errors(&text("pg_dump", "schedule = { full = { cron = \"@daily\", repo = 1 } }"));
        assert!(told.len() == 1 && told[0].contains("A dump goes to all its storages at once"), "{told:#?}");
    }

    #[test]
    fn a_schedule_shared_with_others_is_taken_as_far_as_it_goes() {
        let defaults = |rest: &str| {
            format!(
                "[defaults]\nschedule = {{ {FULL}{rest} }}\nretention = {{ incr = 9 }}\n{}",
                text("pg_dump", "dump = { globals = false }")
            )
        };
        let policy = parse(&defaults(", wal = \"@hourly\"")).unwrap();
        assert_eq!(policy.warnings, Vec::new());
        assert_eq!(policy.jobs.len(), 4);
        assert!(policy.databases.values().all(|it| it.retention.within.is_some()), "a rule for incrs keeps no dump");
        let told = warnings(&defaults(", incr = \"@hourly\""));
        assert!(
            told.len() == 1 && told[0].contains("the diffs and incrs of `defaults` do not concern it"),
            "{told:#?}"
        );
    }

    #[test]
    fn jobs_that_nobody_starts_are_told() {
        let schedule = format!("schedule = {{ {FULL} }}");
        let told =
            |dump: &str| warnings(&text("pg_dump", &format!("{schedule}\ndump = {{ globals = false, {dump} }}")));
        assert!(told("jobs = 4")[0].contains("is not used: only the directory format"));
        assert_eq!(told("jobs = 4, format = \"directory\""), NONE);
    }
}
