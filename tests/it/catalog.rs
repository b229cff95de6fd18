//! The catalog lost, damaged or replaced: noticed, recovered from its own copy, nothing deleted until a person agrees.

use serde_json::Value;

use crate::harness::{Daemon, Lab, Site};

#[test]
fn a_catalog_that_is_deleted_under_the_daemon_is_noticed() {
    let lab = Lab::empty();
    let site = Site::new(&lab, "");
    // The look at the file comes with the watchdog's beat, which systemd asks for by this variable.
    let daemon = Daemon::start(&site, &[("WATCHDOG_USEC", "2000000")]);
    std::fs::remove_file(site.state.join("catalog.db")).unwrap();
    daemon.wait_for("removed or replaced");
    daemon.stop();
}

#[test]
fn a_damaged_catalog_is_8_for_commands_and_recovery_mode_for_the_daemon() {
    let lab = Lab::empty();
    let site = Site::new(&lab, "retention = { full = 1 }");
    for _ in 0..2 {
        site.run(&["backup", "orders", "--type", "full"]).ok();
    }
    lab.run("rm -f state/catalog.db-wal state/catalog.db-shm; head -c 65536 /dev/urandom > state/catalog.db");
    for verb in [&["backup", "orders"][..], &["list"], &["status"]] {
        site.run(verb).fails(8);
    }

    let daemon = site.daemon();
    daemon.wait_for("recovery mode");
    let looked = site.run(&["status"]);
    assert!(looked.ok()["notices"].to_string().contains("recovery mode"), "{looked:?}");
    let refused = site.run(&["expire", "orders", "--yes"]);
    assert!(refused.code != 0 || lab.labels().len() == 2, "{refused:?}");
    assert_eq!(lab.labels().len(), 2, "nothing is deleted in recovery mode");
    daemon.stop();
    let kept = lab.run("find state -name 'catalog*' -size +63k | grep -v -e 'catalog.db$' -e 'catalog.db-' || true");
    assert!(!kept.is_empty(), "the damaged file is kept for whoever wants to look");

    site.run(&["catalog", "accept"]).ok();
    site.run(&["expire", "orders", "--yes"]).ok();
    assert_eq!(lab.labels().len(), 1);
}

#[test]
fn a_catalog_of_a_newer_version_is_refused_and_left_alone() {
    let lab = Lab::empty();
    let site = Site::new(&lab, "");
    site.run(&["backup", "orders", "--type", "full"]).ok();
    lab.run("sqlite3 state/catalog.db \"insert into _sqlx_migrations (version, description, success, checksum, execution_time) values (99999999999999, 'from the future', 1, x'00', 0)\"");
    let (code, _, stderr) = site.say(&["run"]);
    assert_eq!(code, 8, "{stderr}");
    assert_eq!(site.catalog("select count(*) from backups"), "1");
}

#[test]
fn a_catalog_that_is_gone_with_its_copies_is_rebuilt_from_the_repository() {
    let lab = Lab::empty();
    let site = Site::new(&lab, "retention = { full = 1 }");
    for label in ["first", "second"] {
        site.run(&["backup", "orders", "--type", "full", "--label", label]).ok();
    }
    let ids = |listed: Vec<Value>| -> Vec<String> {
        listed.iter().map(|backup| backup["backup_id"].as_str().unwrap().to_owned()).collect()
    };
    let before = ids(site.backups());

    let daemon = site.daemon();
    site.run(&["catalog", "rebuild"]).fails(6);
    daemon.stop();
    lab.run("rm -rf state/catalog.db* state/catalog-copies");
    let rebuilt = site.run(&["catalog", "rebuild"]);
    assert_eq!(rebuilt.ok()["pgbackrest_backups"], 2);
    assert_eq!(ids(site.backups()), before, "each keeps its id");
    assert_eq!(site.backups()[0]["name"], "second");

    let refused = site.run(&["expire", "orders", "--yes"]).fails(1);
    assert!(refused.contains("recovery mode"), "{refused}");
    site.run(&["catalog", "accept"]).ok();
    site.run(&["expire", "orders", "--yes"]).ok();
    assert_eq!(lab.labels().len(), 1);
}
