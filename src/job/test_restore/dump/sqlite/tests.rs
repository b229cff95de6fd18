use std::{collections::BTreeMap, fs, path::Path};

use super::{
    super::testing::{artifact, as_postgres, backup, context, dump, scratch, told, way},
    *,
};
use crate::{
    policy::{Assertion, Expect},
    process::Stop,
    record::{Backup, Dump, DumpFormat, EngineKind, Role},
};

const SQL: &str = r#"
pragma journal_mode = wal;
create table "we""ird 't'" (id integer primary key, v text, g integer generated always as (id * 2) stored);
insert into "we""ird 't'" (v) values ('a'), ('ünï'), (null);
create table child (parent integer references "we""ird 't'" (id), b blob);
insert into child values (1, randomblob(100000)), (2, zeroblob(10));
create index by_parent on child (parent);
create table strict_one (a integer primary key) strict, without rowid;
create table empty (a);
create view v as select count(*) as c from child;
create virtual table words using fts5(text);
insert into words values ('hello world');
"#;

async fn made(sql: &str, file: &Path) {
    let made = capture(&Command::new("sqlite3").arg(file).arg(sql), &Stop::never()).await.unwrap();
    assert!(made.ok(), "{}", made.stderr);
}

async fn restore(sql: &str, spoil: impl Fn(&Path)) -> (std::result::Result<u64, Failure>, BTreeMap<String, String>) {
    let state = tempfile::tempdir_in("/tmp").unwrap();
    let asked = Assertion { sql: "select c from v".into(), database: None, expect: Expect::Equals("2".into()) };
    let context = context(state.path(), EngineKind::Sqlite, vec![asked]).await;
    let layout = scratch(&state.path().join("r"));
    made(sql, &layout.work().join("shop.sqlite")).await;
    spoil(&layout.work().join("shop.sqlite"));
    let dump = Dump {
        format: DumpFormat::File,
        source: state.path().join("shop.sqlite").to_string_lossy().into_owned(),
        artifacts: vec![artifact(Role::Data, "shop.sqlite")],
        ..dump(&[])
    };
    let backup = Backup { engine: EngineKind::Sqlite, ..backup(0, dump.clone()) };
    let programs = find_programs(&context).await.unwrap().value();
    let fetched = Fetched { backup: &backup, dump: &dump, layout, programs };
    let mut way = way(&PLAN);
    let ended = prove(&context, &fetched, &mut way).await;
    (ended.map(|()| way.facts.size), told(&mut way))
}

#[test]
fn a_copy_of_a_database_in_wal_mode_is_read_to_its_last_value() {
    as_postgres(concat!(module_path!(), "::a_copy_of_a_database_in_wal_mode_is_read_to_its_last_value"), async {
        let (ended, steps) = restore(SQL, |_| {}).await;
        assert!(ended.is_ok_and(|size| size > 100_000), "{steps:#?}");
        assert_eq!(steps["integrity_check"], "passed: ok");
        assert_eq!(steps["assertions"], "passed: 1 assertions hold");
        let told = &steps["read_every_row"];
        assert!(told.contains("we\"ird 't' 3") && told.contains("child 2") && told.contains("words 1"), "{told}");
    });
}

#[test]
fn a_damaged_copy_and_one_that_is_no_database_fail() {
    as_postgres(concat!(module_path!(), "::a_damaged_copy_and_one_that_is_no_database_fail"), async {
        let index = |file: &Path| {
            let mut bytes = fs::read(file).unwrap();
            let page = bytes.len() / 2;
            bytes[page..page + 4096].fill(0x55);
            fs::write(file, bytes).unwrap();
        };
        let text = |file: &Path| fs::write(file, "this is no database, whatever its name says").unwrap();
        let nothing = |file: &Path| fs::write(file, "").unwrap();
        for spoil in [&index as &dyn Fn(&Path), &text, &nothing] {
            let (ended, steps) = restore(&SQL.replace("wal", "delete"), spoil).await;
            let failure = ended.unwrap_err();
            assert_eq!((failure.class, failure.exit), (ErrorClass::Integrity, ExitCode::RestoreFailed), "{steps:#?}");
        }
    });
}

#[test]
fn a_foreign_key_that_leads_nowhere_is_told_and_is_no_damage() {
    as_postgres(concat!(module_path!(), "::a_foreign_key_that_leads_nowhere_is_told_and_is_no_damage"), async {
        let (_, steps) = restore(&format!("{SQL} insert into child (parent) values (99);"), |_| {}).await;
        let told = "skipped: 1 foreign keys lead nowhere, which SQLite allows: row 3 of `child`";
        assert_eq!(steps["foreign_key_check"], told);
        assert!(steps["read_every_row"].starts_with("passed"), "{steps:#?}");
    });
}

#[test]
fn values_may_hold_tabs_and_newlines() {
    assert_eq!(records(b"a\x1fb\nc\x1e\x1e"), [vec!["a", "b\nc"], vec![""]]);
    assert_eq!(records(b""), Vec::<Record>::new());
}
