//! Servers that refuse, are not there, are too new, hold a lock or hide rows: told before a byte is stored.

use std::{fs, os::unix::fs::PermissionsExt};

use super::{Faults, dsn, mariadb};
use crate::harness::{Lab, until_true};

const NEAR: &[&str] = &["near"];

#[test]
fn a_wrong_password_of_postgresql_is_3_and_not_repeated() {
    let lab = Lab::empty();
    lab.sql("create role app login superuser password 'right'");
    lab.run("sed -i '1i local all app scram-sha-256' pg/pg_hba.conf && pg_ctl -s -D pg reload");
    lab.run("umask 077; echo right > password");
    let keys = format!(
        "engine = \"pg_dump\"\nconnection = \"{}\"\npassword = \"file:{}/password\"\n",
        dsn(&lab, "app"),
        lab.dir().display()
    );
    let faults = Faults::of(&lab, NEAR, None, &keys);
    let good = faults.good();
    lab.run("echo wr0ng-pass > password");
    let told = faults.backup().fails(3);
    assert!(told.contains("password authentication failed") && told.contains("Correct the password"), "{told}");
    assert!(!told.contains("wr0ng-pass"), "{told}");
    faults.only(&[&good]);
    assert_eq!(faults.states(), ["succeeded", "failed"]);
}

#[test]
fn a_wrong_password_of_mariadb_is_3_and_not_repeated() {
    let lab = Lab::empty();
    let (_server, keys) = mariadb(&lab, 10);
    let faults = Faults::of(&lab, NEAR, None, &keys);
    let good = faults.good();
    lab.run("echo wr0ng-pass > mariadb.password");
    let told = faults.backup().fails(3);
    assert!(told.contains("Access denied for user 'backup'"), "{told}");
    assert!(!told.contains("wr0ng-pass"), "{told}");
    faults.only(&[&good]);
    assert_eq!(faults.states(), ["succeeded", "failed"]);
}

#[test]
fn a_server_that_cannot_be_reached_is_3() {
    let lab = Lab::empty();
    let faults = Faults::postgres(&lab, NEAR, None, "");
    let good = faults.good();
    lab.stop_server();
    let told = faults.backup().fails(3);
    assert!(
        told.contains("the database cannot be reached") && told.contains("Check that PostgreSQL is running"),
        "{told}"
    );
    faults.only(&[&good]);
    let socket = lab.path("nowhere").display().to_string();
    faults.policy(NEAR, "", &format!("engine = \"mysqldump\"\nmysql = {{ socket = \"{socket}\" }}\n"));
    let told = faults.backup().fails(3);
    assert!(told.contains(&socket), "{told}");
    faults.only(&[&good]);
    assert_eq!(faults.states(), ["succeeded", "failed", "failed"]);
}

#[test]
fn a_server_that_is_newer_than_the_tools_is_4_with_the_package() {
    let lab = Lab::empty();
    fs::create_dir(lab.path("old")).unwrap();
    // A stand-in: an old tool for an old server is not to be had beside the real one.
    for tool in ["pg_dump", "psql", "pg_dumpall"] {
        let path = lab.path("old").join(tool);
        fs::write(&path, format!("#!/bin/sh\necho '{tool} (PostgreSQL) 9.6.24'\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let tool_dir = format!("dump = {{ tool_dir = \"{}\" }}\n", lab.path("old").display());
    let faults = Faults::postgres(&lab, NEAR, None, &tool_dir);
    let told = faults.backup().fails(4);
    let major = lab.sql("select current_setting('server_version_num')::int / 10000");
    let server = lab.sql("select split_part(current_setting('server_version'), ' ', 1)");
    for part in [format!("suits PostgreSQL {server}"), "found 9.6".to_owned(), format!("`postgresql-client-{major}`")] {
        assert!(told.contains(&part), "{part}: {told}");
    }
    faults.only(&[]);
    assert_eq!(faults.states(), ["failed"]);
}

#[test]
fn a_lock_of_another_session_is_waited_for_no_longer_than_the_policy_says() {
    let lab = Lab::empty();
    lab.sql("create table held (x int)");
    let faults = Faults::postgres(&lab, NEAR, None, "dump = { lock_timeout = \"1s\" }\n");
    let good = faults.good();
    let told = std::thread::scope(|scope| {
        scope.spawn(|| {
            lab.run("psql -X -q -c \"begin; lock table held in access exclusive mode; select pg_sleep(600)\" || true")
        });
        let holds = "select count(*) from pg_locks where mode = 'AccessExclusiveLock' and granted and relation = 'held'::regclass";
        until_true("the other session holds its lock", || lab.sql(holds) == "1");
        let answer = faults.backup();
        lab.sql("select pg_terminate_backend(pid) from pg_locks where relation = 'held'::regclass");
        answer.fails(6)
    });
    assert!(told.contains("lock"), "{told}");
    faults.only(&[&good]);
    assert_ne!(faults.states()[1], "succeeded");
    faults.good();
}

#[test]
fn rows_that_the_role_does_not_see_fail_the_dump_and_the_table_is_named() {
    let lab = Lab::empty();
    lab.sql(
        "create role app login; grant pg_read_all_data to app; create table secret_rows (owner text);
             alter table secret_rows enable row level security; insert into secret_rows values ('somebody')",
    );
    let keys = format!("engine = \"pg_dump\"\nconnection = \"{}\"\n", dsn(&lab, "app"));
    let faults = Faults::of(&lab, NEAR, None, &keys);
    let told = faults.backup().fails(1);
    assert!(told.contains("secret_rows") && told.contains("bypassrls"), "{told}");
    faults.only(&[]);
    lab.sql("alter role app bypassrls");
    let good = faults.good();
    faults.only(&[&good]);
    assert_eq!(faults.states(), ["failed", "succeeded"]);
}
