//! One backup of pgBackRest that a person wants gone: `expire --set`, after everything that speaks against it was asked.

use crate::harness::{Extra, Lab, Site};

/// The ids of the backups that have these labels, in that order.
fn ids(site: &Site<'_>, labels: &[String]) -> Vec<String> {
    let backups = site.backups();
    let id = |label: &String| {
        let found = backups.iter().find(|backup| backup["label"] == label.as_str()).unwrap();
        found["id"].as_str().unwrap().to_owned()
    };
    labels.iter().map(id).collect()
}

#[test]
fn a_backup_goes_by_its_id_unless_something_hard_speaks_against_it() {
    let lab = Lab::small();
    let site = Site::new(&lab, "retention = { full = 9 }");
    for kind in ["full", "diff", "incr", "full"] {
        site.run(&["backup", "orders", "--type", kind]).ok();
    }
    let labels = lab.labels();
    let ids = ids(&site, &labels);

    for (id, why) in [(&ids[0], "needed by"), (&ids[1], "needed by"), (&ids[3], "the newest good full")] {
        let told = site.run(&["delete", id, "--yes", "--force"]).fails(1);
        assert!(told.contains(why), "{told}");
        let dry = site.run(&["delete", id, "--dry-run", "--force"]);
        assert_eq!((dry.code, &dry.json["result"]["would_delete"]), (1, &false.into()), "{dry:?}");
    }
    site.run(&["hold", &ids[2], "--reason", "audit"]).ok();
    site.run(&["delete", &ids[2], "--yes", "--force"]).fails(1);
    site.run(&["release", &ids[2]]).ok();
    assert_eq!(lab.labels(), labels);

    // As a test restore leaves it.
    lab.run(&format!("sqlite3 state/catalog.db \"update backups set proven_at = 1 where id = '{}'\"", ids[2]));
    let told = site.run(&["delete", &ids[2], "--yes"]).fails(1);
    assert!(told.contains("proven 1 of 1"), "{told}");
    assert_eq!(site.run(&["delete", &ids[2], "--force", "--dry-run"]).ok()["would_delete"], true);
    site.run(&["delete", &ids[2], "--force"]).fails(64);
    assert_eq!(lab.labels(), labels);
    site.run(&["delete", &ids[2], "--force", "--yes", "--reason", "not wanted"]).ok();
    assert_eq!(lab.labels(), [&labels[..2], &labels[3..]].concat());
    let gone = site.run(&["show", &ids[2]]).ok()["backup"].clone();
    assert_eq!(gone["status"], "expired");
    assert!(gone["expired_reason"].as_str().unwrap().contains("not wanted (--force, although: proven"), "{gone:#}");

    // Now nothing was built on it.
    site.run(&["expire", &ids[1], "--yes"]).ok();
    assert_eq!(lab.labels(), [&labels[..1], &labels[3..]].concat());
    assert_eq!(site.run(&["wal", "orders"]).code, 0, "what is kept lacks no WAL");
    assert_eq!(site.run(&["audit", "verify"]).ok()["whole"], true);
}

#[test]
fn nothing_is_chosen_where_pgbackrest_decides() {
    let lab = Lab::empty();
    let site = Site::with(&lab, &Extra { pgbackrest: ", expire_by = \"pgbackrest\"", ..Extra::default() });
    for _ in 0..2 {
        site.run(&["backup", "orders", "--type", "full"]).ok();
    }
    let labels = lab.labels();
    let ids = ids(&site, &labels);
    let told = site.run(&["delete", &ids[0], "--yes"]).fails(1);
    assert!(told.contains("leaves retention of `orders` to pgBackRest"), "{told}");
    site.run(&["expire", "orders", "--older-than", "1ms", "--yes"]).fails(1);
    assert_eq!(lab.labels(), labels);
}
