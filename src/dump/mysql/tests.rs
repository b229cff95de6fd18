//! Dumps of a real server, with what goes wrong on real ones.

use std::fs;

use super::*;
use crate::{
    mysql::testing::Throwaway,
    process::{Captured, capture},
};

/// What a dump must not lose: odd names, every kind of object, bytes and times that a careless dump changes. A database
/// with a quote in its own name is refused by mariadb-dump 10.11.14 (`Unknown database`).
const AWKWARD: &str = r#"
    create database `we-ird shop ä` character set utf8mb4;
    use `we-ird shop ä`;
    create table `ord``ers` (id int primary key auto_increment, `nä me` varchar(100), raw blob, at timestamp null,
        twice int generated always as (id * 2) virtual, price decimal(65, 30), bits bit(9), doc json);
    insert into `ord``ers` (`nä me`, raw, at, price, bits, doc) values
        ('😀 o''neil \\ "x"', x'00ff0d0a1a275c', '2026-03-29 01:30:00', 0.000000000000000000000000000001, b'101010101', '{"a": [1]}'),
        (null, null, null, null, null, null), ('line\r\nbreak\ttab\0nul', '', '2026-10-25 02:30:00', -1.5, 0, '[]');
    create table parent (id int primary key);
    create table child (id int primary key, parent int references parent (id));
    insert into parent values (0), (1); insert into child values (1, 1);
    create table parts (id int) partition by range (id) (partition low values less than (10), partition high values less than maxvalue);
    insert into parts values (1), (100);
    create table `qu"o'te` (x int); insert into `qu"o'te` values (1); create table nothing (x int);
    create view cheap as select id from `ord``ers` where price < 1;
    create procedure p() select 'p';
    create function f() returns int deterministic return 42;
    create trigger tr before insert on parent for each row set new.id = new.id;
    create event ev on schedule every 1 day disable do delete from nothing;
    create table _sqlx_migrations (version bigint primary key, description text, installed_on timestamp, success bool, checksum blob);
    insert into _sqlx_migrations values (1, 'first', now(), true, ''), (2, 'second', now(), false, '');
"#;
const NAME: &str = "we-ird shop ä";

/// What tells that content is the same: everything but what a restore must change.
const CONTENT: &[&str] = &[
    "set time_zone = '+00:00'; select *, hex(`nä me`), hex(raw), hex(bits) from `we-ird shop ä`.`ord``ers`",
    "select * from `we-ird shop ä`.parts partition (high)",
    "select * from `we-ird shop ä`.child",
    "show create table `we-ird shop ä`.`ord``ers`; show create view `we-ird shop ä`.cheap",
    "select `we-ird shop ä`.f()",
    "select routine_name, routine_definition from information_schema.routines where routine_schema like 'we%' order by 1",
    "select trigger_name, action_statement from information_schema.triggers where trigger_schema like 'we%'",
    "select event_name, status, event_definition from information_schema.events where event_schema like 'we%'",
];

async fn content(server: &Throwaway) -> Vec<Vec<Vec<String>>> {
    let mut answers = Vec::new();
    for sql in CONTENT {
        answers.push(server.sql(sql).await);
    }
    answers
}

async fn look(database: &Database) -> Result<Source, Failure> {
    MySql::of(database).unwrap().look(&Stop::never()).await
}

/// Makes the dump, with its output in memory; gives it, how it went, and what the inspector says.
async fn dump(database: &Database, source: &Source) -> (Captured, Result<(), String>, Failure) {
    let scratch = tempfile::tempdir().unwrap();
    let mysql = MySql::of(database).unwrap();
    let making = mysql.makings(source, scratch.path()).unwrap().remove(0);
    let answer = capture(&making.command, &Stop::never()).await.unwrap();
    let mut inspect = making.inspect.unwrap();
    answer.stdout.chunks(4096).for_each(|chunk| inspect.see(chunk));
    let tail: Vec<String> = answer.stderr.lines().map(str::to_owned).collect();
    let failure = mysql.explain(Role::Data, &answer.ending, &tail);
    (answer, inspect.end(), failure)
}

#[tokio::test]
async fn what_was_dumped_comes_back_as_it_was() {
    let server = Throwaway::up().await;
    server.sql(AWKWARD).await;
    let before = content(&server).await;
    let database = server.database(&[NAME]);
    let source = look(&database).await.unwrap();
    assert!(source.server.starts_with("MariaDB 1"), "{source:?}");
    assert!(source.tool_version.starts_with("mariadb-dump 1"), "{source:?}");
    assert!(!source.system_id.is_empty() && source.size > 0, "{source:?}");
    assert_eq!((source.warnings.as_slice(), source.source.as_str()), (&[][..], NAME));
    let migrations = source.migrations.as_ref().unwrap();
    assert_eq!((migrations.framework.as_str(), migrations.applied_count), ("sqlx", 1));

    let (answer, complaint, _) = dump(&database, &source).await;
    assert!(answer.ok(), "{}", answer.stderr);
    assert_eq!((answer.stderr.as_str(), complaint), ("", Ok(())));
    server.sql("drop database `we-ird shop ä`").await;

    let file = server.path("dump.sql");
    fs::write(&file, &answer.stdout).unwrap();
    let loaded = capture(&mysqldump::load_command(None, &server.path("sock"), &file), &Stop::never()).await.unwrap();
    assert!(loaded.ok(), "{}", loaded.stderr);
    assert_eq!(content(&server).await, before);
}

#[tokio::test]
async fn half_a_dump_is_refused_and_the_refusal_shows_no_data() {
    let server = Throwaway::up().await;
    server.sql(AWKWARD).await;
    let database = server.database(&[NAME]);
    let (answer, ..) = dump(&database, &look(&database).await.unwrap()).await;
    let rows = answer.stdout.windows(11).position(|at| at == b"INSERT INTO").unwrap();
    let file = server.path("half.sql");
    fs::write(&file, &answer.stdout[..rows + 40]).unwrap();
    let loaded = capture(&mysqldump::load_command(None, &server.path("sock"), &file), &Stop::never()).await.unwrap();
    let tail: Vec<String> = loaded.stderr.lines().map(str::to_owned).collect();
    let failure = mysqldump::explain_load(&loaded.ending, &tail);
    assert_eq!(failure.exit, ExitCode::RestoreFailed);
    assert!(failure.message.contains("ERROR 1064"), "{}", failure.message);
    assert!(!loaded.stderr.contains("INSERT INTO"), "{}", loaded.stderr);
}

#[tokio::test]
async fn what_the_dump_will_lack_is_told_before() {
    let server = Throwaway::up().await;
    server
        .sql(
            "create database shop; use shop; create table good (x int); create table m (x int) engine = MyISAM; \
             create procedure p() select 1; create trigger tr before insert on good for each row set new.x = 1; \
             create user low@localhost identified by 'low'; grant select, lock tables, event on shop.* to low@localhost",
        )
        .await;
    let mut database = server.database(&[]);
    let warnings = look(&database).await.unwrap().warnings;
    assert_eq!(warnings, ["tables without transactions may not fit the others, or themselves: `shop.m (MyISAM)`"]);

    let password = server.path("low");
    fs::write(&password, "low\n").unwrap();
    fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    database.dump.mysql.user = Some("low".into());
    database.password = Some(format!("file:{}", password.display()).parse().unwrap());
    let source = look(&database).await.unwrap();
    insta::assert_snapshot!(source.warnings[1..].join("\n"), @r"
    the user may not see all triggers of `shop`; those are missing in the dump without an error: grant it TRIGGER
    the user may not see all routines of `shop`; those are missing in the dump without an error: grant it SELECT on `mysql`.`proc`
    ");
    // And so it is: whole, without an error, without them.
    let (answer, complaint, _) = dump(&database, &source).await;
    let text = String::from_utf8(answer.stdout).unwrap();
    assert_eq!((answer.ending, complaint), (Ending::Exited(0), Ok(())));
    assert!(
        !text.contains("TRIGGER `tr`") && !text.contains("PROCEDURE `p`") && text.contains("TABLE `good`"),
        "{text}"
    );
}

#[tokio::test]
async fn a_view_that_is_broken_fails_the_dump() {
    let server = Throwaway::up().await;
    server
        .sql("create database shop; use shop; create table t (x int); create view v as select x from t; drop table t")
        .await;
    let database = server.database(&[]);
    let (answer, complaint, failure) = dump(&database, &look(&database).await.unwrap()).await;
    assert_eq!(answer.ending, Ending::Exited(2));
    assert!(complaint.unwrap_err().contains("does not end with"));
    assert_eq!((failure.class, failure.exit), (ErrorClass::Config, ExitCode::Configuration));
    assert!(
        failure.message.contains("`mariadb-dump` exited with code 2") && failure.message.contains("shop.v"),
        "{}",
        failure.message
    );
}

#[tokio::test]
async fn a_session_that_was_ended_fails_the_dump() {
    let server = Throwaway::up().await;
    server
        .sql("create database shop; use shop; create table t as select seq, repeat('x', 900) as x from seq_1_to_60000")
        .await;
    let database = server.database(&[]);
    let source = look(&database).await.unwrap();
    let end = async {
        loop {
            let sessions = server
                .sql("select id from information_schema.processlist where user = 'backup' and info like '%`t`%'")
                .await;
            if let Some(session) = sessions.first() {
                let killed = Client::at_socket(&server.path("sock"), None).query(&format!("kill {}", session[0])).await;
                if killed.is_ok() {
                    return;
                }
            }
        }
    };
    let ((answer, complaint, failure), ()) = tokio::join!(dump(&database, &source), end);
    assert_ne!(answer.ending, Ending::Exited(0), "{}", answer.stderr);
    assert!(complaint.is_err());
    assert_eq!((failure.class, failure.exit), (ErrorClass::Transient, ExitCode::Connection), "{}", failure.message);
}

#[tokio::test]
async fn a_table_that_is_locked_is_waited_for_only_so_long() {
    let server = Throwaway::up().await;
    server.sql("create database shop; use shop; create table a (x int); create table b (x int)").await;
    let mut database = server.database(&[]);
    database.dump.lock_timeout = Duration::from_secs(1);
    let holder = Client::at_socket(&server.path("sock"), None).statement_timeout(Duration::from_secs(300));
    let (handle, stop) = Stop::new();
    let holder = holder.stop(&stop);
    let hold = holder.query("lock tables shop.b write; do sleep(200)");
    let try_it = async {
        loop {
            let held = server.sql("select 1 from information_schema.processlist where info = 'do sleep(200)'").await;
            if !held.is_empty() {
                let failure = look(&database).await.unwrap_err();
                handle.stop();
                return failure;
            }
        }
    };
    let (_, failure) = tokio::join!(hold, try_it);
    assert_eq!((failure.class, failure.exit), (ErrorClass::Transient, ExitCode::Busy));
    assert_eq!(failure.message, "the table `shop`.`b` was locked for more than 1 s");
}

#[tokio::test]
async fn a_database_that_cannot_be_dumped_is_found_out_before() {
    let server = Throwaway::up().await;
    let failed = async |change: &dyn Fn(&mut Database)| {
        let mut database = server.database(&[]);
        change(&mut database);
        let failure = look(&database).await.unwrap_err();
        (failure.class, failure.exit, failure.message)
    };
    let (class, exit, message) = failed(&|_| {}).await;
    assert_eq!((class, exit), (ErrorClass::Config, ExitCode::Configuration));
    assert_eq!(message, "the server has no database `shop`, or the user may not see it");
    let (class, exit, message) = failed(&|database| database.dump.mysql.user = Some("nobody".into())).await;
    assert_eq!((class, exit), (ErrorClass::Config, ExitCode::Connection));
    assert!(message.contains("Access denied for user 'nobody'@'localhost'"), "{message}");
    let (class, exit, _) = failed(&|database| database.dump.mysql.socket = Some("/no/such/socket".into())).await;
    assert_eq!((class, exit), (ErrorClass::Transient, ExitCode::Connection));
    let (class, exit, message) = failed(&|database| database.dump.tool_dir = Some("/no/such/dir".into())).await;
    assert_eq!((class, exit), (ErrorClass::Config, ExitCode::ToolNotFound));
    assert_eq!(message, "the program `/no/such/dir/mariadb-dump` was not found");
}

#[tokio::test]
async fn the_users_own_option_file_is_read_and_the_policy_wins() {
    let server = Throwaway::up().await;
    server.sql("create database shop").await;
    let mut database = server.database(&[]);
    let own = server.path("own option's file.cnf");
    fs::write(&own, format!("[client]\nsocket={}\npassword=wrong\n", server.path("sock").display())).unwrap();
    database.dump.mysql.defaults_file = Some(own);
    database.dump.mysql.socket = None;
    let source = look(&database).await.unwrap();
    let (answer, complaint, _) = dump(&database, &source).await;
    assert!(answer.ok() && complaint.is_ok(), "{}", answer.stderr);
}

#[tokio::test]
async fn no_password_is_in_a_command_line_or_stays_behind() {
    let server = Throwaway::up().await;
    let database = server.database(&["shop"]);
    let source = Source {
        server: "MariaDB 10.11.14".into(),
        server_version: "10.11.14".into(),
        system_id: String::new(),
        tool: "mariadb-dump".into(),
        tool_version: "mariadb-dump 10.11.14".into(),
        source: "shop".into(),
        size: 0,
        migrations: None,
        warnings: vec![],
        limits: Limits::default(),
    };
    let scratch = tempfile::tempdir().unwrap();
    let making = MySql::of(&database).unwrap().makings(&source, scratch.path()).unwrap().remove(0);
    let secret = fs::read_to_string(server.path("password")).unwrap();
    assert!(!format!("{:?} {}", making.command, making.command.display()).contains(secret.trim_end()));
    assert_eq!((making.name.as_str(), making.output), ("shop.sql", Output::Stdout));
    let mode = scratch.path().join("login.cnf").metadata().unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777, 0o600);
}

#[test]
fn the_by_hand_commands_need_only_the_client() {
    let backup = serde_json::json!({
        "id": "backup-20261121-020000", "database": "shop", "environment": "production", "engine": "mysqldump",
        "backup_type": "full", "requested_type": "full", "label": "backup-20261121-020000", "repo": 0, "system_id": "",
        "server_version": "10.11.14", "tool_version": "mariadb-dump 10.11.14", "tags": [], "references": [],
        "started_at": "2026-11-21T02:00:00Z", "stopped_at": "2026-11-21T02:00:09Z", "size": 1, "delta": 1,
        "status": "good", "created_by": "daemon",
        "dump": {
            "format": "plain", "compression": "zstd:3", "encryption": { "key": "offsite", "method": "age" },
            "directory": "shop/backup-20261121-020000", "copies": [], "server": "MariaDB 10.11.14",
            "source": "shop, crm", "warnings": [],
            "artifacts": [{
                "role": "data", "name": "shop.sql.zst.age",
                "raw": { "size": 1, "sha256": "00" }, "stored": { "size": 1, "sha256": "00" }
            }]
        }
    });
    let backup: Backup = serde_json::from_value(backup).unwrap();
    insta::assert_snapshot!(restore_by_hand(&backup, "/srv/backups/shop/backup-1").join("\n"), @r#"
    # Backup backup-20261121-020000 of shop, MariaDB 10.11.14.
    # Needed: bash, age, zstd, mariadb.
    # Put these lines into a file, fill in the variables and run it with bash. It stops at the first error.
    set -euo pipefail
    KEY=/path/to/key # the file with the secret key of `offsite`
    echo '00  /srv/backups/shop/backup-1/shop.sql.zst.age' | sha256sum -c -
    LOGIN=/path/to/login.cnf # an option file: [client], then user, password, and host or socket
    # It makes the databases (shop, crm) and would replace the tables of those that exist: with one, it stops here.
    # To replace them on purpose, leave out the next two lines.
    FOUND=$(mariadb --defaults-extra-file="$LOGIN" -N -e "select schema_name from information_schema.schemata where locate(concat(', ', schema_name, ', '), ', shop, crm, ') > 0")
    [ -z "$FOUND" ] || { echo "these databases exist: $FOUND" >&2; exit 1; }
    age -d -i "$KEY" < /srv/backups/shop/backup-1/shop.sql.zst.age | zstd -dc | mariadb --defaults-extra-file="$LOGIN" --binary-mode --default-character-set=utf8mb4 --max-allowed-packet=1G
    "#);
}

#[test]
fn no_name_of_a_database_leaves_its_quotes() {
    for name in ["it's", "a\\", "$(x)", "a`b", "a\"b", "a\nb"] {
        let told = those_that_exist(name);
        let hex: String = format!(", {name}, ").bytes().map(|byte| format!("{byte:02x}")).collect();
        assert!(told.ends_with(&format!("_utf8mb4 x'{hex}') > 0")), "{told}");
    }
}
