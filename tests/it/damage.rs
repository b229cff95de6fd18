//! Damage that pgBackRest's exit code hides, and a cluster that is not the one we know.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::Value;

use crate::harness::{Extra, Lab, Site, until_true};

#[test]
fn a_backup_with_corrupt_pages_is_recorded_as_damaged_and_fails_the_run() {
    let lab = Lab::small();
    let site = Site::new(&lab, "");
    let file = lab.sql("select pg_relation_filepath('pgbench_accounts')");
    lab.sql("checkpoint");
    lab.stop_server();
    lab.run(&format!("printf damaged! | dd of=pg/{file} bs=1 seek=20000 conv=notrunc status=none"));
    lab.start_server();

    site.run(&["backup", "orders", "--type", "full"]).fails(5);
    assert_eq!(lab.info()["backup"][0]["error"], true);
    assert_eq!(site.states("full"), ["failed"]);
    assert_eq!(site.backups()[0]["status"], "damaged");
    let status = site.status();
    assert!(status["last"].as_object().unwrap().is_empty(), "a damaged backup counts as none: {status:#}");
    assert!(!status["alarms"].as_array().unwrap().is_empty());
}

#[test]
fn another_cluster_at_the_same_place_is_refused() {
    let lab = Lab::empty();
    let site = Site::new(&lab, "");
    site.run(&["backup", "orders", "--type", "full"]).ok();
    lab.stop_server();
    lab.run("cp pg/postgresql.conf keep.conf && rm -rf pg && initdb -D pg -k --locale=C.UTF-8 -A trust -U postgres -N >/dev/null && cp keep.conf pg/postgresql.conf");
    lab.start_server();

    let answer = site.run(&["backup", "orders", "--type", "full"]);
    let told = answer.fails(1);
    assert!(told.contains("cluster") || told.contains("system identifier"), "{told}");
    assert_eq!(lab.labels().len(), 1);
    assert_eq!(site.states("full"), ["succeeded", "failed"]);

    let told = site.run(&["wal", "orders"]).fails(1);
    assert!(told.contains("the server is cluster"), "{told}");
    let status = site.status();
    assert_eq!((&status["wal"]["current_lsn"], &status["wal"]["timeline"]), (&Value::Null, &Value::Null), "{status:#}");
    assert_eq!(status["windows"][0]["from"], status["recoverable_to"], "a stranger's clock proves nothing");
}

#[test]
fn the_backups_before_an_upgrade_are_neither_lost_nor_torn() {
    let lab = Lab::empty();
    let site = Site::new(&lab, "");
    site.run(&["backup", "orders", "--type", "full"]).ok();
    lab.switch_wal();
    site.run(&["wal", "orders"]).ok();
    lab.stop_server();
    lab.run("cp pg/postgresql.conf keep.conf && rm -rf pg && initdb -D pg -k --locale=C.UTF-8 -A trust -U postgres -N >/dev/null && cp keep.conf pg/postgresql.conf");
    lab.start_server();
    assert!(lab.pgbackrest(&["stanza-upgrade"]).status.success());

    let told = site.run(&["wal", "orders"]).fails(5);
    assert!(told.contains("only of former ones"), "{told}");
    assert_eq!(site.backups()[0]["status"], "good");
    assert_eq!(site.status()["windows"][0]["label"], lab.labels()[0].as_str());

    site.run(&["backup", "orders", "--type", "full"]).ok();
    lab.switch_wal();
    site.run(&["wal", "orders"]).ok();
    let statuses: Vec<Value> = site.backups().iter().map(|backup| backup["status"].clone()).collect();
    assert_eq!(statuses, ["good", "good"]);
    let status = site.status();
    assert_eq!(status["windows"].as_array().map(Vec::len), Some(2), "{status:#}");
    assert_eq!(status["windows"][0]["label"], lab.labels()[1].as_str());
    assert_eq!(status["alarms"], serde_json::json!([]));
}

#[test]
fn an_answer_that_is_older_than_an_expiry_brings_nothing_back() {
    let lab = Lab::empty();
    // The first answer of `info` after `block` was made waits for `go`.
    let script = r#"#!/bin/bash
cd "${0%/*}" || exit
answer=$(/usr/bin/pgbackrest "$@") || exit
case " $* " in
    *" info "*) if mv block asked 2>/dev/null; then until [ -e go ]; do sleep 0.05; done; fi ;;
esac
printf '%s' "$answer"
"#;
    fs::write(lab.path("late"), script).unwrap();
    fs::set_permissions(lab.path("late"), fs::Permissions::from_mode(0o755)).unwrap();
    let binary = format!(", binary = \"{}\"", lab.path("late").display());
    let extra = Extra { database: "retention = { full = 1 }", pgbackrest: &binary, ..Extra::default() };
    let site = Site::with(&lab, &extra);
    for _ in 0..2 {
        site.run(&["backup", "orders", "--type", "full"]).ok();
    }
    let old = lab.labels()[0].clone();
    lab.run("touch block");
    std::thread::scope(|scope| {
        let check = scope.spawn(|| site.run(&["wal", "orders"]));
        until_true("the check has asked", || lab.path("asked").exists());
        site.run(&["expire", "orders", "--yes"]).ok();
        assert!(!lab.labels().contains(&old));
        lab.run("touch go");
        check.join().unwrap().ok();
    });
    let all = site.run(&["list", "orders", "--expired"]);
    let found = all.ok()["backups"].as_array().unwrap().iter().find(|backup| backup["label"] == old.as_str());
    assert_eq!(found.map(|backup| &backup["status"]), Some(&Value::from("expired")));
}

#[test]
fn a_backup_that_was_removed_by_hand_is_lost_and_counts_no_more() {
    let lab = Lab::small();
    let site = Site::new(&lab, "retention = { full = 1 }");
    site.run(&["backup", "orders", "--type", "full"]).ok();
    site.run(&["backup", "orders", "--type", "full"]).ok();
    let labels = lab.labels();
    assert!(lab.pgbackrest(&["expire", &format!("--set={}", labels[1])]).status.success());

    site.run(&["expire", "orders", "--dry-run"]).ok();
    site.run(&["backup", "orders", "--type", "full"]).ok();
    let lost = site.run(&["list", "orders", "--expired"]);
    let lost: Vec<_> =
        lost.ok()["backups"].as_array().unwrap().iter().filter(|backup| backup["status"] == "lost").collect();
    assert_eq!(lost.len(), 1, "{lost:#?}");
    assert_eq!(lost[0]["label"], labels[1].as_str());
    assert!(lab.labels().contains(&labels[0]), "what is left is kept, for it is the only full");
}
