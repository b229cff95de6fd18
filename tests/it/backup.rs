//! Backups by the command line: what pgBackRest says afterwards is what the catalog says.

use serde_json::Value;

use crate::harness::{Lab, Site};

#[test]
fn a_full_a_diff_and_an_incr_are_recorded_as_info_tells_them() {
    let lab = Lab::small();
    let site = Site::new(&lab, "");
    for kind in ["full", "diff", "incr"] {
        let answer = site.run(&[
            "backup",
            "orders",
            "--type",
            kind,
            "--label",
            "first",
            "--reason",
            "because we can",
            "--tag",
            "blue",
        ]);
        assert_eq!(answer.ok()["backup"]["type"], kind);
        lab.switch_wal();
    }

    let (info, mut listed) = (lab.info(), site.backups());
    listed.reverse();
    let told = info["backup"].as_array().unwrap();
    assert_eq!(listed.len(), 3);
    assert_eq!(told.len(), 3);
    for (ours, theirs) in listed.iter().zip(told) {
        assert_eq!(ours["label"], theirs["label"]);
        assert_eq!(ours["type"], theirs["type"]);
        assert_eq!(ours["size_bytes"], theirs["info"]["size"]);
        assert_eq!(ours["wal_start"], theirs["archive"]["start"]);
        assert_eq!(ours["wal_stop"], theirs["archive"]["stop"]);
        assert_eq!(ours["run_uuid"], theirs["annotation"]["run-id"]);
        assert_eq!(
            (&ours["name"], &ours["reason"], &ours["tags"][0]),
            (&"first".into(), &"because we can".into(), &"blue".into())
        );
        let notes: Vec<&Value> = theirs["annotation"].as_object().unwrap().values().collect();
        assert!(notes.contains(&&"first".into()) && notes.contains(&&"because we can".into()), "{notes:?}");
        assert_eq!(ours["status"], "good");
    }
    let ids: std::collections::BTreeSet<&str> =
        listed.iter().map(|backup| backup["backup_id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 3, "{ids:?}");
    assert!(ids.iter().all(|id| id.starts_with("backup-2") && id.contains("-first")), "{ids:?}");
}

#[test]
fn an_incr_that_became_a_full_is_recorded_as_a_full() {
    let lab = Lab::empty();
    let site = Site::new(&lab, "");
    site.run(&["backup", "orders", "--type", "incr"]).ok();
    let backup = &site.backups()[0];
    assert_eq!((&backup["type"], &backup["requested_type"]), (&"full".into(), &"incr".into()));
    assert_eq!(backup["label"], lab.info()["backup"][0]["label"]);
}

#[test]
fn a_stanza_that_is_missing_is_created_and_every_answer_is_shown_again() {
    let lab = Lab::empty();
    lab.run("rm -rf repo/archive repo/backup");
    let site = Site::new(&lab, "");
    let answer = site.run(&["backup", "orders", "--type", "full"]);
    let (run, id) = (answer.ok()["run"].to_string(), answer.ok()["backup_id"].as_str().unwrap().to_owned());

    assert_eq!(site.run(&["show", &id]).ok()["backup"]["label"], lab.info()["backup"][0]["label"]);
    let shown = site.run(&["show", &run]);
    assert_eq!(shown.ok()["run"]["state"], "succeeded");
    assert_eq!(shown.ok()["attempts"][0]["exit_code"], 0);
    site.run(&["show", "999999"]).fails(1);
}
