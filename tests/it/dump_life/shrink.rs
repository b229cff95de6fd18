//! A policy that keeps less, and a plan that ends much: both wait for a person.

use nix::sys::signal::Signal;

use super::*;
use crate::harness::{in_seconds, until_true};

/// The section of the SQLite file with rules of its own; nothing asks before it deletes there but what is tested here.
fn rules(lab: &Lab, rules: &str, more: &str) -> String {
    wiki(lab, &format!("environment = \"development\"\nretention = {{ {rules} }}\n{more}"))
}

/// Makes four backups; gives their ids, the oldest first.
fn four(site: &Site<'_>) -> Vec<String> {
    (0..4).map(|_| backup(site, "wiki", &[])).collect()
}

#[track_caller]
fn all_are_there(lab: &Lab, ids: &[String]) {
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    STORAGES.iter().for_each(|storage| only(lab, storage, &ids));
}

#[test]
fn what_a_tightened_policy_newly_ends_is_told_and_waits_until_it_is_accepted() {
    let lab = lab();
    let site = site(&lab, &rules(&lab, "keep_last = 9", ""));
    let daemon = site.daemon();
    let ids = four(&site);
    let every_second = "schedule = { expire = \"* * * * * *\" }";
    write(&site, &STORAGES, "", &rules(&lab, "keep_last = 1, max_delete_fraction = 1.0", every_second));

    let checked = site.run(&["check", "--against-catalog"]);
    let found = checked.ok()["against_catalog"]["databases"].as_array().unwrap();
    let newly: Vec<&str> = found[0]["newly_ended"]
        .as_array()
        .unwrap()
        .iter()
        .map(|ended| {
            assert!(ended["guarded_until"].is_string() && ended["reasons"][0].is_string(), "{ended:#}");
            ended["backup_id"].as_str().unwrap()
        })
        .collect();
    assert_eq!((found.len(), newly), (1, vec![ids[2].as_str(), &ids[1], &ids[0]]));
    let (code, page, _) = site.say(&["check", "--against-catalog"]);
    assert!(code == 0 && page.contains(&ids[0]) && page.contains("newly end 3 backups"), "{page}");

    daemon.signal(Signal::SIGHUP);
    daemon.wait_for("newly end 3 backups");
    let log = daemon.log();
    let line = log.lines().find(|line| line.contains("newly end 3 backups")).unwrap();
    assert!(ids[..3].iter().all(|id| line.contains(id)) && line.contains("expire wiki --accept"), "{line}");
    until_true("the daemon expires twice", || {
        states(&site, "wiki", "expire").iter().filter(|state| *state == "succeeded").count() > 1
    });
    all_are_there(&lab, &ids);
    daemon.stop();

    // The same after a restart, and by hand.
    let daemon = site.daemon();
    let before = states(&site, "wiki", "expire").len();
    until_true("the daemon expires again", || states(&site, "wiki", "expire").len() > before + 1);
    assert!(!daemon.log().contains("newly end"), "it was told: {}", daemon.log());
    daemon.stop();
    let shown = site.run(&["expire", "wiki", "--yes"]);
    assert!(shown.ok()["plans"].to_string().contains("so it waits until"), "{shown:?}");
    all_are_there(&lab, &ids);

    let dry = site.run(&["expire", "wiki", "--accept", "--dry-run"]);
    let decisions = dry.ok()["plans"][0]["plan"]["decisions"].as_array().unwrap().clone();
    assert_eq!(decisions.iter().filter(|decision| decision["keep"] == false).count(), 3, "{dry:?}");
    assert_eq!(site.catalog("select count(*) from retention_rules where accepted_by is not null"), "0");
    site.run(&["expire", "wiki", "--accept"]).ok();
    all_are_there(&lab, &ids[3..]);
    let entries = site.run(&["audit", "list"]).ok()["entries"].to_string();
    assert!(entries.contains("accept_retention"), "{entries}");
    assert_eq!(site.run(&["audit", "verify"]).ok()["whole"], true);
}

#[test]
fn a_policy_that_was_tightened_while_the_daemon_was_down_is_told_at_its_start() {
    let lab = lab();
    let site = site(&lab, &rules(&lab, "keep_last = 9", ""));
    let ids = four(&site);
    site.daemon().stop();
    write(&site, &STORAGES, "", &rules(&lab, "keep_last = 2", ""));
    let daemon = site.daemon();
    daemon.wait_for("newly end 2 backups");
    daemon.stop();
    site.run(&["expire", "wiki", "--yes"]).ok();
    all_are_there(&lab, &ids);
}

#[test]
fn without_a_daemon_the_guard_is_the_same_and_ends_with_the_grace_of_the_former_rules() {
    let lab = lab();
    let site = site(&lab, &rules(&lab, "keep_last = 9, shrink_grace = \"10s\"", ""));
    let told = site.run(&["check", "--against-catalog"]).fails(8);
    assert!(told.contains("no catalog"), "{told}");
    let ids = four(&site);
    site.run(&["expire", "wiki"]).ok();
    // The same slip took the grace away.
    write(&site, &STORAGES, "", &rules(&lab, "keep_last = 1, shrink_grace = \"0s\"", ""));
    site.run(&["expire", "wiki", "--yes"]).ok();
    all_are_there(&lab, &ids);
    until_true("the grace is over", || {
        site.run(&["expire", "wiki", "--yes"]).ok();
        list(&site, "wiki").iter().filter(|backup| backup["status"] == "expired").count() == 3
    });
    all_are_there(&lab, &ids[3..]);
}

#[test]
fn a_plan_that_ends_too_much_stops_the_daemon_and_asks_a_person() {
    let lab = lab();
    let site = site(&lab, &rules(&lab, "keep_last = 1", ""));
    let ids = four(&site);
    write(
        &site,
        &STORAGES,
        "",
        &rules(&lab, "keep_last = 1", &format!("schedule = {{ expire = \"{}\" }}", in_seconds(3))),
    );
    let daemon = site.daemon();
    until_true("the daemon's expire ends", || states(&site, "wiki", "expire") == ["failed"]);
    assert!(daemon.log().contains("more than `max_delete_fraction` (0.5) allows"), "{}", daemon.log());
    daemon.stop();
    all_are_there(&lab, &ids);

    let told = site.run(&["expire", "wiki"]).fails(64);
    assert!(told.contains("3 of 4 backups would go") && told.contains("--yes"), "{told}");
    all_are_there(&lab, &ids);
    let (code, page, _) = site.say(&["expire", "wiki", "--dry-run"]);
    assert!(code == 0 && page.contains("nothing goes before a person said yes"), "{page}");
    site.run(&["expire", "wiki", "--yes"]).ok();
    all_are_there(&lab, &ids[3..]);
}

#[test]
fn a_person_chooses_by_day_by_age_and_by_id_and_the_floors_hold() {
    let lab = lab();
    let site = site(&lab, &rules(&lab, "keep_last = 1", ""));
    let own = backup(&site, "wiki", &["--retention", "1"]);
    let ids = [vec![own], four(&site)].concat();

    site.run(&["expire", "wiki", "--expired"]).ok();
    all_are_there(&lab, &ids);
    lab.run("sqlite3 state/catalog.db 'update dumps set expires_at = 1 where expires_at is not null'");
    site.run(&["expire", "wiki", "--expired", "--dry-run"]).ok();
    all_are_there(&lab, &ids);
    site.run(&["expire", "--database", "wiki", "--expired"]).ok();
    all_are_there(&lab, &ids[1..]);

    site.run(&["expire", &ids[2]]).ok();
    let left = [ids[1].clone(), ids[3].clone(), ids[4].clone()];
    all_are_there(&lab, &left);
    let told = site.run(&["expire", &ids[4]]).fails(1);
    assert!(told.contains("kept: the newest good backup"), "{told}");
    all_are_there(&lab, &left);

    site.run(&["expire", "wiki", "--older-than", "1h", "--yes"]).ok();
    all_are_there(&lab, &left);
    let told = site.run(&["expire", "wiki", "--older-than", "1ms"]).fails(64);
    assert!(told.contains("2 of 3 backups would go"), "{told}");
    all_are_there(&lab, &left);
    site.run(&["expire", "wiki", "--older-than", "1ms", "--yes"]).ok();
    all_are_there(&lab, &ids[4..]);

    site.run(&["expire", "backup-20000101-000000", "--yes"]).fails(1);
    site.run(&["expire", "wikki", "--yes"]).fails(1);
    site.run(&["expire", &ids[4], "--older-than", "1d"]).fails(64);
    site.run(&["expire", "--older-than", "1d"]).fails(64);
    site.run(&["expire", &ids[4], "--database", "portal"]).fails(64);
}
