use std::{collections::BTreeMap, fs};

use tempfile::TempDir;

use super::{
    super::testing::{artifact, as_postgres, backup, context, dump, scratch, told, way},
    *,
};
use crate::{
    error::ExitCode,
    policy::{Assertion, Expect},
    record::{Artifact, EngineKind},
};

const DATABASE: &str = "Wéird \"db\"";
const LOCATION: &str = "/srv/ts fast";

/// Roles and tablespaces of a cluster that is like production.
const ROLES: &str = r#"
create role app login password 'planted-secret';
create role "the Reader" nologin;
grant app to "the Reader";
alter role app set statement_timeout = '1ms';
create tablespace fast owner app location '/srv/ts fast';
create database "Wéird ""db""" owner app;
alter database "Wéird ""db""" set default_transaction_read_only = on;
"#;

/// A database with much of what a dump may trip over.
const CONTENT: &str = r#"
set default_transaction_read_only = off;
set session characteristics as transaction read write;
create schema "Ünï" authorization app;
create table "Ünï"."t""1" (id int generated always as identity primary key, a int, b int generated always as (a * 2) stored, x bytea) tablespace fast;
insert into "Ünï"."t""1" (a, x) select n, decode(md5(n::text), 'hex') from generate_series(1, 1000) n;
create table parent (k int, v text) partition by range (k);
create table part_1 partition of parent for values from (0) to (100);
create table part_2 partition of parent default;
insert into parent select n, 'v' || n from generate_series(1, 300) n;
create table empty (a int);
create table child (id int references "Ünï"."t""1");
insert into child values (1), (2);
alter table parent enable row level security;
create policy p on parent to app using (k < 10);
create materialized view m as select count(*) as c from parent;
create view v as select * from parent;
create function f() returns trigger language plpgsql as 'begin raise exception ''production trigger''; end';
create trigger tr before insert on child for each row execute function f();
create function ev() returns event_trigger language plpgsql as 'begin raise exception ''event trigger''; end';
select lo_from_bytea(4711, decode('c0ffee', 'hex'));
grant select on parent to "the Reader";
create subscription s connection 'host=db.invalid dbname=x password=planted-secret' publication p with (connect = false);
create event trigger evt on ddl_command_end when tag in ('DROP TABLE') execute function ev();
"#;

/// A cluster that is like production, and its dumps in every form.
struct Production {
    files: TempDir,
}

impl Production {
    async fn make() -> Self {
        let files = tempfile::tempdir_in("/tmp").unwrap();
        let state = tempfile::tempdir_in("/tmp").unwrap();
        let context = context(state.path(), EngineKind::PgDump, Vec::new()).await;
        let layout = scratch(&state.path().join("p"));
        let (backup, dump) = (backup(0, dump(&[])), dump(&[]));
        let programs = PathBuf::from("/usr/lib/postgresql/15/bin");
        let fetched = Fetched { backup: &backup, dump: &dump, layout: layout.clone(), programs: programs.clone() };
        let globals = Globals::read(Vec::new()).unwrap();
        let ground = Ground { layout: layout.clone(), programs, production: &[], tablespaces: &[LOCATION.into()] };
        let sandbox = walls::build_walls(&context, ground).await.unwrap().value();
        let load = Load { context: &context, fetched: &fetched, globals: &globals, sandbox: &sandbox };
        let (server, _) = load.start().await.unwrap().value();
        let sql = async |database: &str, sql: &str| {
            let file = layout.work().join("make.sql");
            fs::write(&file, sql).unwrap();
            let psql =
                load.tool("psql").args(["-U", "postgres", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &named(database)]);
            let psql = psql.arg("-f").arg(file);
            let said = load.captured(&psql).await.unwrap();
            assert!(said.ok(), "{}", said.stderr);
        };
        sql("postgres", ROLES).await;
        sql(DATABASE, CONTENT).await;
        // Ours is not production's.
        sql("postgres", "drop role backstop_sandbox").await;
        let dump = async |program: &str, arguments: &[&str], name: &str| {
            let into = layout.work().join(name);
            let tool = load.tool(program).args(["-U", "postgres"]).args(arguments.iter().copied()).arg("-f").arg(&into);
            let said = load.captured(&tool).await.unwrap();
            assert!(said.ok(), "{}", said.stderr);
        };
        let database = named(DATABASE);
        dump("pg_dump", &["-Fp", "-d", &database], "shop.sql").await;
        dump("pg_dump", &["-Fp", "-C", "-d", &database], "create.sql").await;
        dump("pg_dump", &["-Fc", "-Z0", "-d", &database], "shop.dump").await;
        dump("pg_dump", &["-Fd", "-Z0", "-j2", "-d", &database], "parts").await;
        dump("pg_dumpall", &["--globals-only"], "globals.sql").await;
        server.kill().await;
        fs::rename(layout.work(), files.path().join("work")).unwrap();
        Self { files }
    }

    fn artifacts(names: &[&str]) -> Vec<Artifact> {
        let role = |name: &str| match name {
            "globals.sql" => Role::Globals,
            _ if name.contains('/') => Role::Part,
            _ => Role::Data,
        };
        names.iter().map(|name| artifact(role(name), name)).collect()
    }

    /// Restores files of it, after `spoil` had its way with them.
    async fn restore(
        &self,
        format: DumpFormat,
        names: &[&str],
        spoil: impl Fn(&Path),
    ) -> (std::result::Result<(), Failure>, BTreeMap<String, String>, String) {
        let state = tempfile::tempdir_in("/tmp").unwrap();
        let asked = Assertion {
            sql: "select count(*) from parent".into(),
            database: None,
            expect: Expect::Equals("300".into()),
        };
        let context = context(state.path(), EngineKind::PgDump, vec![asked]).await;
        let layout = scratch(&state.path().join("r"));
        let copy = Command::new("cp").arg("-rT").arg(self.files.path().join("work")).arg(layout.work());
        assert!(capture(&copy, &context.stop).await.unwrap().ok());
        spoil(&layout.work());
        let dump =
            crate::record::Dump { format, source: DATABASE.into(), artifacts: Self::artifacts(names), ..dump(&[]) };
        let backup = backup(0, dump.clone());
        let programs = find_programs(&context, &backup).await.unwrap().value();
        let fetched = Fetched { backup: &backup, dump: &dump, layout, programs };
        let mut way = way(&PLAN);
        let ended = prove(&context, &fetched, &mut way).await;
        let mut logs = String::new();
        for entry in fs::read_dir(state.path()).unwrap().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "log") {
                logs.push_str(&String::from_utf8_lossy(&fs::read(entry.path()).unwrap()));
            }
        }
        (ended, told(&mut way), logs)
    }
}

#[test]
fn every_form_of_a_dump_comes_back_whole_with_its_roles_and_tablespaces() {
    as_postgres(
        concat!(module_path!(), "::every_form_of_a_dump_comes_back_whole_with_its_roles_and_tablespaces"),
        async {
            let production = Production::make().await;
            let forms: [(DumpFormat, &[&str]); 4] = [
                (DumpFormat::Plain, &["globals.sql", "shop.sql"]),
                (DumpFormat::Plain, &["globals.sql", "create.sql"]),
                (DumpFormat::Custom, &["globals.sql", "shop.dump"]),
                (DumpFormat::Directory, &["globals.sql", "parts/toc.dat"]),
            ];
            for (format, names) in forms {
                let (ended, steps, logs) = production.restore(format, names, |_| {}).await;
                assert!(ended.is_ok(), "{format} {ended:?} {steps:#?} {logs}");
                assert_eq!(
                    steps["row_counts"],
                    "passed: 6 tables, 1303 rows: \"Ünï\".\"t\"\"1\" 1000, public.part_2 201, public.part_1 99, \
                 public.child 2, public.m 1, public.empty 0, 1 large objects",
                    "{format}"
                );
                assert_eq!(steps["globals"], "passed: 3 roles, 1 tablespaces");
                assert_eq!(steps["assertions"], "passed: 1 assertions hold");
                assert!(steps["amcheck"].starts_with("passed"), "{steps:#?}");
                assert!(steps["checksums"].starts_with("skipped"), "{steps:#?}");
                assert!(!logs.contains("planted-secret") && !format!("{steps:?}").contains("planted-secret"));
            }
        },
    );
}

#[test]
fn without_the_globals_only_what_they_would_have_made_may_be_missing() {
    as_postgres(
        concat!(module_path!(), "::without_the_globals_only_what_they_would_have_made_may_be_missing"),
        async {
            let production = Production::make().await;
            let forms: [(DumpFormat, &[&str]); 2] =
                [(DumpFormat::Plain, &["shop.sql"]), (DumpFormat::Directory, &["parts/toc.dat"])];
            for (format, names) in forms {
                let (ended, steps, _) = production.restore(format, names, |_| {}).await;
                assert!(ended.is_ok(), "{format} {ended:?} {steps:#?}");
                assert!(
                    steps["globals"].starts_with("skipped") && steps["restore"].contains("not dumped"),
                    "{steps:#?}"
                );
                let (ended, ..) = production.restore(format, names, |work| spoil(&work.join(names[0]))).await;
                assert_eq!(ended.unwrap_err().class, ErrorClass::Integrity, "{format}");
            }
        },
    );
}

#[test]
fn a_broken_dump_fails_the_restore_and_shows_no_secret() {
    as_postgres(concat!(module_path!(), "::a_broken_dump_fails_the_restore_and_shows_no_secret"), async {
        let production = Production::make().await;
        for (format, name) in [
            (DumpFormat::Plain, "shop.sql"),
            (DumpFormat::Custom, "shop.dump"),
            (DumpFormat::Directory, "parts/toc.dat"),
        ] {
            let names = ["globals.sql", name];
            let (ended, steps, logs) = production.restore(format, &names, |work| spoil(&work.join(name))).await;
            let failure = ended.unwrap_err();
            assert_eq!((failure.class, failure.exit), (ErrorClass::Integrity, ExitCode::RestoreFailed), "{failure:?}");
            assert!(steps["restore"].starts_with("failed"), "{steps:#?}");
            assert!(
                !logs.contains("planted-secret") && !failure.message.contains("planted-secret"),
                "{failure:?} {logs}"
            );
        }
        let (ended, steps, logs) = production
            .restore(DumpFormat::Custom, &["globals.sql", "shop.dump"], |work| {
                let text = fs::read_to_string(work.join("globals.sql")).unwrap();
                fs::write(work.join("globals.sql"), text.replace("CREATE ROLE app;", "")).unwrap();
            })
            .await;
        assert!(ended.unwrap_err().message.contains("role \"app\" does not exist"), "{steps:#?}");
        assert!(!logs.contains("SCRAM-SHA-256"), "{logs}");
    });
}

/// Something in the middle that no length and no trailer would show.
fn spoil(file: &Path) {
    let bytes = fs::read(file).unwrap();
    let spoiled = replaced(&bytes, b"CREATE SUBSCRIPTION s CONNECTION", b"CREATE SUBSCRIPTION s XONNECTION");
    fs::write(file, spoiled).unwrap();
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let place = bytes.windows(from.len()).position(|window| window == from).unwrap();
    [&bytes[..place], to, &bytes[place + from.len()..]].concat()
}

#[test]
fn the_tools_version_counts_where_it_is_the_later_one() {
    let of = |server: &str, tool: &str| {
        let mut backup = backup(0, dump(&[]));
        (backup.server_version, backup.tool_version) = (server.to_owned(), tool.to_owned());
        major(&backup).to_owned()
    };
    assert_eq!(of("13", "pg_dump 15.20"), "15");
    assert_eq!(of("15", "pg_dump (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)"), "15");
    assert_eq!(of("17", "pg_dump 17.2"), "17");
    assert_eq!(of("9.6", "pg_dump 12.1"), "12");
    assert_eq!(of("15", ""), "15");
}

#[test]
fn the_beginning_of_a_plain_dump_tells_what_database_it_wants() {
    let text = "--\nSET statement_timeout = 0;\nSET client_encoding = 'LATIN1';\n";
    let head = Head::of(text);
    assert_eq!(head.create("o\"x"), "create database \"o\"\"x\" template template0 encoding 'LATIN1' locale 'C'");
    assert!(!head.creates_database && Head::of(&format!("{text}CREATE DATABASE shop;\n")).creates_database);
    assert_eq!(Head::of("").encoding, "UTF8");
}

#[test]
fn an_odd_name_of_a_database_is_no_connection_string() {
    assert_eq!(named("a=b c"), "dbname='a=b c'");
    assert_eq!(named(r"it's \"), r"dbname='it\'s \\'");
}
