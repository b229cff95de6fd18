//! Test restores of dumps: what is proven, what fails and where, and nothing left of either.

use crate::harness::{in_seconds, until_true};

use super::*;

/// The proof of the newest test restore of a database.
fn proof(site: &Site<'_>, database: &str) -> Value {
    let runs = site.run(&["history", database, "--kind", "test_restore", "--limit", "1"]);
    let run = runs.ok()["runs"][0]["id"].to_string();
    site.run(&["show", &run]).ok()["proof"].clone()
}

/// The outcome of a step, or nothing where there is none.
fn outcome(proof: &Value, name: &str) -> String {
    let steps = proof["steps"].as_array().unwrap();
    let step = steps.iter().find(|step| step["name"] == name);
    step.map(|step| step["outcome"].as_str().unwrap().to_owned()).unwrap_or_default()
}

#[track_caller]
fn proven(site: &Site<'_>, database: &str, mandatory: &[&str]) {
    site.run(&["test-restore", database]).ok();
    let proof = proof(site, database);
    assert_eq!(proof["passed"], true, "{proof:#}");
    assert!(proof["isolation"].as_str().unwrap().contains("bubblewrap"), "{proof:#}");
    for name in mandatory {
        assert_eq!(outcome(&proof, name), "passed", "{name}: {proof:#}");
    }
    let newest = &list(site, database)[0];
    assert!(newest["proven_at"].is_string(), "{newest:#}");
    assert_eq!(newest["id"], proof["backup_id"], "{newest:#}");
    nothing_is_left(site);
}

#[test]
fn dumps_of_postgresql_of_every_form_are_proven() {
    let lab = lab();
    let site = site(&lab, "");
    let assertion = "assert = [{ sql = \"select count(*) from measures\", database = \"shop\", equals = 2002 }]";
    for (format, key) in [("custom", "phrase"), ("plain", "none"), ("directory", "phrase")] {
        let more =
            format!("encryption = \"{key}\"\ndump = {{ format = \"{format}\" }}\ntest_restore = {{ {assertion} }}");
        write(&site, &STORAGES, "", &portal(&lab, &more));
        backup(&site, "portal", &[]);
        proven(
            &site,
            "portal",
            &["fetch", "globals", "restore", "read_every_row", "row_counts", "assertions", "amcheck"],
        );
    }
}

#[test]
fn dumps_of_mariadb_and_sqlite_are_proven() {
    let lab = lab();
    let server = mariadb(&lab);
    let asks = |table: &str, count: u32, more: &str| {
        format!(
            "encryption = \"phrase\"\ntest_restore = {{ assert = [{{ sql = \"select count(*) from {table}\", equals = {count}{more} }}] }}"
        )
    };
    let stock = stock(&lab, &server, &asks("measures", 500, ", database = \"stock\""));
    let site = site(&lab, &format!("{stock}{}", wiki(&lab, &asks("keyed", 2, ""))));
    for name in ["stock", "wiki"] {
        backup(&site, name, &[]);
        proven(&site, name, &["fetch", "restore", "read_every_row", "assertions"]);
    }
    assert_eq!(outcome(&proof(&site, "wiki"), "integrity_check"), "passed");
    assert_eq!(outcome(&proof(&site, "stock"), "objects"), "passed");
}

#[test]
fn a_file_that_was_damaged_fails_the_fetch_and_the_other_copy_is_taken_next() {
    let lab = lab();
    let site = site(&lab, &format!("{}{}", portal(&lab, ""), wiki(&lab, "encryption = \"phrase\"")));
    for name in ["portal", "wiki"] {
        let id = backup(&site, name, &[]);
        let largest = format!("$(ls -S local/{name}/{id}/*.zst* | head -1)");
        lab.run(&format!("f={largest}; chmod u+w $f; printf X | dd of=$f bs=1 seek=$(($(stat -c %s $f) / 2)) conv=notrunc status=none"));
        let told = site.run(&["test-restore", name]);
        assert!([5, 7].contains(&told.code), "{told:?}");
        let proof = proof(&site, name);
        assert_eq!((&proof["passed"], outcome(&proof, "fetch").as_str()), (&false.into(), "failed"), "{proof:#}");
        assert_eq!(outcome(&proof, "restore"), "skipped", "{proof:#}");
        let found = &list(&site, name)[0];
        assert_eq!((&found["copies"][0]["state"], &found["copies"][1]["state"]), (&"damaged".into(), &"good".into()));
        assert!(found["proven_at"].is_null());
        nothing_is_left(&site);
        proven(&site, name, &["fetch", "restore"]);
    }
}

#[test]
fn an_assertion_that_does_not_hold_fails_the_proof_of_a_dump_and_names_itself() {
    let lab = lab();
    let server = mariadb(&lab);
    let asks = |table: &str| {
        format!("test_restore = {{ assert = [{{ sql = \"select count(*) from {table}\", min = 77777 }}] }}")
    };
    let databases =
        [portal(&lab, &asks("pg_class")), stock(&lab, &server, &asks("stock.boxes")), wiki(&lab, &asks("keyed"))];
    let site = site(&lab, &databases.concat());
    for (name, table) in [("portal", "pg_class"), ("stock", "stock.boxes"), ("wiki", "keyed")] {
        backup(&site, name, &[]);
        let answer = site.run(&["test-restore", name]);
        assert!([5, 7].contains(&answer.code), "{answer:?}");
        assert!(answer.fails(answer.code).contains(&format!("select count(*) from {table}")), "{answer:?}");
        assert_eq!(outcome(&proof(&site, name), "assertions"), "failed");
        assert!(list(&site, name)[0]["proven_at"].is_null());
        nothing_is_left(&site);
    }
}

#[test]
fn a_daemon_that_is_killed_in_the_restore_of_a_dump_leaves_nothing_after_the_next_start() {
    let lab = lab();
    let server = mariadb(&lab);
    let site = site(&lab, "");
    killed_in_a_restore(&site, "portal", |more| portal(&lab, more));
    killed_in_a_restore(&site, "stock", |more| stock(&lab, &server, more));
}

fn killed_in_a_restore(site: &Site<'_>, name: &str, section: impl Fn(&str) -> String) {
    write(site, &STORAGES, "", &section(""));
    backup(site, name, &[]);
    let soon = format!("schedule = {{ test_restore = \"{}\" }}", in_seconds(4));
    write(site, &STORAGES, "", &section(&soon));
    let daemon = site.daemon();
    until_true("a tool works in the scratch directory", || !site.lab.processes("scratch").is_empty());
    daemon.crash();
    let daemon = site.daemon();
    until_true("the restore is made up for", || states(site, name, "test_restore") == ["interrupted", "succeeded"]);
    daemon.stop();
    nothing_is_left(site);
}
