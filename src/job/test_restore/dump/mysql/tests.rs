use std::{collections::BTreeMap, fs};

use super::{
    super::testing::{artifact, as_postgres, backup, context, dump, scratch, told, way},
    *,
};
use crate::{
    policy::{Assertion, Expect},
    record::{Dump, DumpFormat, EngineKind},
};

/// Written by `mariadb-dump` 10.11 or made to look as if; definers that are nowhere, an event that is due at once.
const SQL: &str = r#"/*M!999999\- enable the sandbox mode */
CREATE DATABASE `shop`;
USE `shop`;
CREATE TABLE `we``ird "t"` (id int primary key auto_increment, v varchar(50), g int as (length(v)) stored, key (v)) engine=InnoDB;
INSERT INTO `we``ird "t"` (v) VALUES ('a'), ('tab	and
newline'), ('ünï');
CREATE TABLE old (a int) engine=MyISAM;
INSERT INTO old VALUES (1), (2);
CREATE TABLE empty (a int) engine=InnoDB;
CREATE TABLE gone (a int) engine=MEMORY;
CREATE DEFINER=`app`@`10.0.%` SQL SECURITY DEFINER VIEW v AS SELECT count(*) AS c FROM old;
DELIMITER ;;
CREATE DEFINER=`it's`@`%` TRIGGER tr BEFORE INSERT ON old FOR EACH ROW SET NEW.a = NEW.a + 1 ;;
CREATE DEFINER=`app`@`10.0.%` PROCEDURE p() BEGIN SELECT 1; END ;;
CREATE DEFINER=`app`@`10.0.%` EVENT e ON SCHEDULE EVERY 1 SECOND DO DELETE FROM old ;;
DELIMITER ;
-- Dump completed
"#;

async fn restore(sql: &str, source: &str) -> (std::result::Result<(), Failure>, BTreeMap<String, String>, String) {
    let state = tempfile::tempdir_in("/tmp").unwrap();
    let asked =
        |sql: &str, wanted: &str| Assertion { sql: sql.into(), database: None, expect: Expect::Equals(wanted.into()) };
    let asked =
        vec![asked("select c from v", "2"), asked("select v from `we``ird \"t\"` where id = 2", "tab\tand\nnewline")];
    let context = context(state.path(), EngineKind::MySqlDump, asked).await;
    let layout = scratch(&state.path().join("r"));
    fs::write(layout.work().join("shop.sql"), sql).unwrap();
    let dump = Dump {
        format: DumpFormat::Plain,
        server: "MariaDB 10.11.14".into(),
        source: source.into(),
        artifacts: vec![artifact(Role::Data, "shop.sql")],
        ..dump(&[])
    };
    let backup = Backup { engine: EngineKind::MySqlDump, server_version: "10.5.8".into(), ..backup(0, dump.clone()) };
    let programs = find_programs(&context, &backup).await.unwrap().value();
    let fetched = Fetched { backup: &backup, dump: &dump, layout, programs };
    let mut way = way(&PLAN);
    let ended = prove(&context, &fetched, &mut way).await;
    let log = fs::read_to_string(state.path().join("server.log")).unwrap_or_default();
    (ended, told(&mut way), log)
}

#[test]
fn a_dump_of_mariadb_comes_back_with_everything_and_its_events_do_not_run() {
    as_postgres(
        concat!(module_path!(), "::a_dump_of_mariadb_comes_back_with_everything_and_its_events_do_not_run"),
        async {
            let (ended, steps, log) = restore(SQL, "shop").await;
            assert!(ended.is_ok(), "{ended:?} {steps:#?} {log}");
            assert_eq!(
                steps["read_every_row"],
                "passed: 4 tables, 5 rows: shop.we`ird \"t\" 3, shop.old 2, shop.empty 0, shop.gone 0"
            );
            assert_eq!(steps["objects"], "passed: 1 views, 1 routines, 1 triggers, 1 events");
            assert_eq!(steps["assertions"], "passed: 2 assertions hold");
            assert!(steps["restore"].contains("2 definers stood in for"), "{steps:#?}");
        },
    );
}

#[test]
fn a_dump_of_mariadb_that_is_broken_or_of_another_database_fails_without_showing_rows() {
    let name = "::a_dump_of_mariadb_that_is_broken_or_of_another_database_fails_without_showing_rows";
    as_postgres(&format!("{}{name}", module_path!()), async {
        let broken = SQL.replace("INSERT INTO old VALUES (1), (2);", "INSERT INTO old VALUES ('planted-row', 2);");
        let (ended, steps, log) = restore(&broken, "shop").await;
        let failure = ended.unwrap_err();
        assert_eq!((failure.class, failure.exit), (ErrorClass::Integrity, ExitCode::RestoreFailed), "{failure:?}");
        assert!(steps["restore"].starts_with("failed"), "{steps:#?}");
        assert!(!failure.message.contains("planted-row") && !log.contains("planted-row"), "{failure:?} {log}");
        let (ended, ..) = restore(SQL, "shop, crm").await;
        assert_eq!(ended.unwrap_err().message, "a database did not come with the dump: crm");
    });
}

#[test]
fn a_dump_may_not_reach_out_of_the_sandbox() {
    as_postgres(concat!(module_path!(), "::a_dump_may_not_reach_out_of_the_sandbox"), async {
        let mark = std::env::temp_dir().join(format!("backstop-test-{}", uuid::Uuid::now_v7()));
        let escape = format!("{SQL}\n\\! touch {0}\nsystem touch {0}\n", mark.display());
        let (ended, ..) = restore(&escape, "shop").await;
        assert!(ended.is_err() && !mark.exists());
    });
}

#[test]
fn only_a_good_last_word_about_a_table_is_good() {
    let said = |rows: &[(&str, &str)]| {
        let row = |(kind, text): &(&str, &str)| ["shop.t", "check", kind, text].map(str::to_owned).to_vec();
        trouble(&rows.iter().map(row).collect::<Vec<_>>())
    };
    assert_eq!(said(&[("status", "OK")]), None);
    assert_eq!(said(&[("note", "The storage engine for the table doesn't support check")]), None);
    assert_eq!(said(&[("warning", "1 client is using the table"), ("status", "OK")]), None);
    assert_eq!(said(&[("Error", "Incorrect key file"), ("status", "OK")]).as_deref(), Some("Incorrect key file"));
    assert_eq!(said(&[("status", "Operation failed")]).as_deref(), Some("Operation failed"));
    assert_eq!(said(&[]).as_deref(), Some("`check table` said nothing"));
}

#[test]
fn a_server_older_than_the_dump_will_not_do() {
    assert!(release("10.11.14-MariaDB-0+deb12u2") < release("11.4.2"));
    assert!(release("10.11.14-MariaDB") >= release("10.11.99"), "within a release it does not matter");
    assert!(release("10.5.8") < release("10.11.1"));
}
