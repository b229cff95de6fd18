//! What people do with backups that are there: hold, release, look for, export, and try to delete.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::harness::{Lab, Site};

#[test]
fn a_held_backup_outlives_its_retention_and_a_released_one_does_not() {
    let lab = Lab::empty();
    let site = Site::new(&lab, "retention = { full = 1 }");
    for label in ["first", "second"] {
        site.run(&["backup", "orders", "--type", "full", "--label", label]).ok();
    }
    site.run(&["hold", "first", "--reason", "audit of 2026"]).ok();
    let held = site.run(&["show", "first"]);
    assert!(held.ok()["backup"]["held"].as_str().unwrap().starts_with("audit of 2026 (by "), "{held:?}");
    site.run(&["expire", "orders", "--yes"]).ok();
    assert_eq!(lab.labels().len(), 2);

    site.run(&["release", "first", "--reason", "the audit is over"]).ok();
    assert_eq!(site.run(&["release", "first"]).ok()["was_held"], Value::Null, "it is not held any more");
    site.run(&["expire", "orders", "--yes"]).ok();
    assert_eq!(lab.labels().len(), 1);
    site.run(&["hold", "first", "--reason", "too late"]).fails(1);
    site.run(&["hold", "nothing", "--reason", "x"]).fails(1);
    assert_eq!(site.say(&["hold", "second"]).0, 64, "a hold needs a reason");

    let audit =
        site.catalog("select action, detail, actor like '%(uid 0, %' from audit where action in ('hold', 'release')");
    let lines: Vec<&str> = audit.lines().collect();
    assert!(lines[0].starts_with("hold|audit of 2026 (by "), "{audit}");
    assert!(lines.iter().all(|line| line.ends_with("|1")), "the real uid, though the verb became another: {audit}");
    assert_eq!(lines[1], "release|the audit is over|1");
}

#[test]
fn the_only_backup_of_pgbackrest_is_not_deleted_by_its_id_and_the_answer_says_how_it_could_be() {
    let lab = Lab::empty();
    let site = Site::new(&lab, "");
    let made = site.run(&["backup", "orders", "--type", "full"]);
    let id = made.ok()["backup_id"].as_str().unwrap().to_owned();
    let refused = site.run(&["delete", &id, "--yes"]).fails(1);
    assert!(refused.contains("the newest good full") && refused.contains("the newest good backup"), "{refused}");
    assert!(refused.contains("backstop backup orders --type full"), "{refused}");
    let shown = site.run(&["delete", &id, "--dry-run"]);
    assert_eq!((shown.code, &shown.json["result"]["would_delete"]), (1, &false.into()), "{shown:?}");
    site.run(&["delete", "backup-19700101-000000", "--yes"]).fails(1);
    assert_eq!(lab.labels().len(), 1);
    site.run(&["backup", "orders", "--retention", "7"]).fails(64);
    site.run(&["verify", "orders"]).ok();
    let refused = site.run(&["verify", &id]).fails(64);
    assert!(refused.contains("backstop verify orders"), "{refused}");
}

#[test]
fn backups_are_looked_for_and_exported_in_one_form() {
    let lab = Lab::empty();
    let site = Site::new(&lab, "");
    for (kind, label) in [("full", "big"), ("incr", "little")] {
        site.run(&["backup", "orders", "--type", kind, "--label", label]).ok();
    }
    let names = |arguments: &[&str]| -> Vec<String> {
        let listed = site.run(&[&["list"], arguments].concat());
        let listed = listed.ok()["backups"].as_array().unwrap().clone();
        listed.iter().map(|backup| backup["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&[]), ["little", "big"]);
    assert_eq!(names(&["--database", "orders", "--since", "1h", "--environment", "production"]), ["little", "big"]);
    assert_eq!(names(&["--limit", "1", "--sort", "size"]).len(), 1);
    assert_eq!(names(&["--label", "big", "--engine", "pgbackrest"]), ["big"]);
    assert_eq!(names(&["--engine", "sqlite"]), [""; 0]);
    assert_eq!(names(&["--environment", "staging"]), [""; 0]);
    assert_eq!(names(&["--since", "2199-01-01"]), [""; 0]);
    assert_eq!(site.say(&["list", "orders", "--database", "orders"]).0, 64);

    let out = site.state.join("backups.json");
    site.run(&["export", "--out", out.to_str().unwrap()]).ok();
    let document: Value = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
    assert_eq!((&document["version"], document["backups"].as_array().unwrap().len()), (&1.into(), 2));
    assert_eq!(document["backups"], Value::Array(site.backups()));
    assert_eq!(std::fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
    let (code, stdout, _) = site.say(&["export", "--database", "orders"]);
    let again: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &again["backups"]), (0, &document["backups"]));
    site.run(&["export", "--out", "/proc/nowhere/backups.json"]).fails(8);
}
