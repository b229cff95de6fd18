//! Test restores: a proof where it is due, a failure where it is due, production untouched either way.

use std::path::Path;

use serde_json::Value;

use crate::harness::{Extra, Lab, Site, in_seconds, sh, until_true};

#[test]
fn a_restore_is_proven_with_its_canary_and_production_is_untouched() {
    let lab = Lab::small();
    let site = Site::new(
        &lab,
        r#"
[database.orders.test_restore]
assert = [
  { sql = "select count(*) from pgbench_accounts", min = 100000, max = 100000 },
  { sql = "select count(*) = 42 from later", equals = true },
]
"#,
    );
    site.run(&["backup", "orders", "--type", "full"]).ok();
    // The tablespace is younger than the backup: replaying its creation must not reach production's directory.
    sh(&format!("install -d -m 700 -o {0} -g {1} '{2}/younger'", lab.owner().0, lab.owner().1, lab.dir().display()));
    lab.sql(&format!("create tablespace younger location '{}/younger'", lab.dir().display()));
    lab.sql("create table later tablespace younger as select * from generate_series(1, 42)");
    lab.sql("checkpoint");
    lab.switch_wal();
    let before = (contents(&lab.path("younger")), lab.archive());

    let answer = site.run(&["test-restore", "orders"]);
    let run = answer.ok()["run"].to_string();
    let shown = site.run(&["show", &run]);
    let proof = &shown.ok()["proof"];
    assert_eq!(proof["passed"], true, "{proof:#}");
    assert!(proof["isolation"].as_str().unwrap().contains("bubblewrap"), "{proof:#}");
    assert!(proof["recovery_seconds"].as_f64().unwrap() > 0.0);
    assert!(reached(proof), "{proof:#}");
    assert!(proof["steps"].as_array().unwrap().iter().all(|step| step["outcome"] != "failed"), "{proof:#}");
    assert!(site.backups()[0]["proven_at"].is_string());
    assert!(site.status()["proof"]["recovery_seconds"].is_number());

    let after = (contents(&lab.path("younger")), lab.archive());
    assert_eq!(after.0, before.0, "production's tablespace was touched");
    assert!(before.1.iter().all(|(segment, path)| after.1.get(segment) == Some(path)), "archived WAL went");
    assert!(
        after.1.keys().all(|segment| segment.starts_with("00000001")),
        "the copy archived a timeline: {:?}",
        after.1
    );
    assert_eq!(lab.sql("select count(*) from later"), "42");
    nothing_is_left(&site);
}

#[test]
fn a_restore_without_its_wal_is_no_proof() {
    let lab = Lab::small();
    let site = Site::new(&lab, "");
    site.run(&["backup", "orders", "--type", "full"]).ok();
    lab.switch_wal();
    let hole = lab.switch_wal();
    lab.switch_wal();
    std::fs::remove_file(&lab.archive()[&hole]).unwrap();

    let answer = site.run(&["test-restore", "orders"]);
    assert!([5, 7].contains(&answer.code), "{answer:#?}");
    assert_eq!(site.states("test_restore"), ["failed"]);
    assert!(site.backups()[0]["proven_at"].is_null());
    assert!(site.status()["proof"].is_null());
    nothing_is_left(&site);
}

#[test]
fn an_assertion_that_does_not_hold_fails_the_restore_and_names_itself() {
    let lab = Lab::empty();
    let site = Site::new(&lab, "test_restore = { assert = [{ sql = \"select count(*) from pg_class\", max = 1 }] }");
    site.run(&["backup", "orders", "--type", "full"]).ok();
    let answer = site.run(&["test-restore", "orders"]);
    assert!([5, 7].contains(&answer.code), "{answer:#?}");
    assert!(answer.fails(answer.code).contains("select count(*) from pg_class"), "{answer:#?}");
    nothing_is_left(&site);
}

#[test]
fn a_daemon_that_is_killed_in_a_restore_leaves_nothing_after_the_next_start() {
    let lab = Lab::small();
    let site = Site::new(&lab, "");
    site.run(&["backup", "orders", "--type", "full"]).ok();
    let schedule = format!("schedule = {{ test_restore = \"{}\" }}", in_seconds(3));
    site.rewrite(&Extra { database: &schedule, ..Extra::default() });
    let daemon = site.daemon();
    until_true("the restore works in its scratch directory", || {
        std::fs::read_dir(site.state.join("scratch")).is_ok_and(|entries| entries.count() > 0)
    });
    daemon.crash();
    let daemon = site.daemon();
    until_true("the run is settled", || !site.states("test_restore").contains(&"running".to_owned()));
    until_true("the restore is made up for", || site.states("test_restore").contains(&"succeeded".to_owned()));
    daemon.stop();
    nothing_is_left(&site);
}

/// The LSN that was reached is not before the one that had to be.
fn reached(proof: &Value) -> bool {
    let lsn = |name: &str| {
        let (high, low) = proof[name].as_str()?.split_once('/')?;
        Some((u64::from_str_radix(high, 16).ok()?, u64::from_str_radix(low, 16).ok()?))
    };
    lsn("expected_lsn").is_some() && lsn("reached_lsn") >= lsn("expected_lsn")
}

#[track_caller]
fn nothing_is_left(site: &Site<'_>) {
    let scratch = site.state.join("scratch");
    let left: Vec<_> = std::fs::read_dir(&scratch).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(site.lab.processes("scratch"), Vec::<i32>::new());
}

fn contents(directory: &Path) -> String {
    sh(&format!("cd '{}' && find . -type f -exec sha256sum {{}} + | sort -k2", directory.display()))
}
