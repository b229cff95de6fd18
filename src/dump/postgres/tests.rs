use super::*;
use crate::engine::pg_dump::version::Version;

/// What a server said before a dump.
pub(super) fn database() -> Dumpable {
    Dumpable {
        version_num: 150_020,
        version: "15.20".into(),
        system_id: "7570000000000000001".into(),
        database: "shop".into(),
        size: 8_000_000,
        in_recovery: false,
        reads_passwords: true,
        unlogged: 0,
        foreign: 0,
        hidden: None,
        properties: None,
    }
}

fn shop(format: DumpFormat) -> Postgres {
    Postgres { name: "shop".into(), reach: None, format, globals: true, tool_dir: None }
}

fn tool() -> Tool {
    Tool { path: "/usr/lib/postgresql/15/bin/pg_dump".into(), version: Version { major: 15, text: "15.20".into() } }
}

#[test]
fn a_source_tells_server_and_tool_in_words() {
    let source = shop(DumpFormat::Custom).source(database(), tool(), None);
    assert_eq!((source.server.as_str(), source.server_version.as_str()), ("PostgreSQL 15.20", "15"));
    assert_eq!((source.source.as_str(), source.tool_version.as_str()), ("shop", "pg_dump 15.20"));
    assert_eq!((source.warnings, source.limits), (vec![], Limits::default()));
}

#[test]
fn what_a_dump_will_lack_is_told_before_it_is_made() {
    let poor = Dumpable {
        in_recovery: true,
        reads_passwords: false,
        unlogged: 2,
        foreign: 1,
        properties: Some("settings work_mem".into()),
        ..database()
    };
    let source = shop(DumpFormat::Plain).source(poor.clone(), tool(), None);
    assert_eq!(source.limits, Limits { is_standby: true, hides_passwords: true });
    insta::assert_snapshot!(source.warnings.join("\n"), @r"
    the role may not read `pg_authid`: roles are dumped without their passwords
    the server is a standby: the content of 2 unlogged tables is not dumped
    the content of 1 foreign tables lies elsewhere and is not dumped
    the plain format leaves out what belongs to the database itself (settings work_mem); `custom` has it
    ");
    assert_eq!(shop(DumpFormat::Custom).source(poor, tool(), None).warnings.len(), 3);
}

#[test]
fn rows_that_are_hidden_stop_the_dump_before_it_begins() {
    let hidden = Dumpable { hidden: Some("rls".into()), ..database() };
    let failure = refuse_hidden_rows(&hidden).unwrap_err();
    assert_eq!(failure.class, ErrorClass::Config);
    assert!(failure.message.contains("rls") && failure.remedy.unwrap().contains("bypassrls"));
    assert!(refuse_hidden_rows(&database()).is_ok());
}

#[test]
fn without_a_connection_there_is_nothing_to_dump() {
    let shop = shop(DumpFormat::Custom);
    let source = shop.source(database(), tool(), None);
    let failure = shop.makings(&source, Path::new("/scratch")).err().unwrap();
    assert_eq!(failure.exit, ExitCode::Configuration);
}
