//! Retention by periods, windows and a depth of WAL on a stock repository, and what happens when things go wrong in it.
//!
//! The server's clock is set for each backup, for pgBackRest takes its times from there. A newcomer would believe a plan
//! that `info` confirms; only what was restored from what is left tells.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use crate::{
    harness::{Extra, Lab, Site, sh, until_true},
    stand_in::{later, stand_in},
};

const RULES: &str = "retention = { keep_daily = 2, recovery_window = \"1d\", wal_depth = \"1d\" }";

/// Six days ago, five, …, today.
const WEEK: [&str; 7] = ["full", "diff", "incr", "full", "diff", "diff", "incr"];

#[test]
fn what_periods_and_a_window_keep_of_chains_restores_and_wal_before_the_depth_is_gone() {
    let lab = Lab::empty();
    let site = Site::new(&lab, RULES);
    let moment = a_week(&lab, &site);
    let labels = lab.labels();
    site.run(&["wal", "orders"]).ok();
    assert_eq!(windows(&site), [labels[0].as_str()], "all of the week");
    let own = own_wal(&lab);

    let shown = site.run(&["expire", "orders", "--dry-run"]).ok()["plans"][0]["plan"]["decisions"].clone();
    let kept = |keep: bool| -> BTreeSet<String> {
        let decisions = shown.as_array().unwrap().iter().filter(|decision| decision["keep"] == keep);
        decisions.map(|decision| decision["label"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(kept(false), BTreeSet::from([labels[2].clone(), labels[4].clone()]), "{shown:#}");
    site.run(&["expire", "orders", "--yes"]).ok();
    let left = lab.labels();
    assert_eq!(left.iter().cloned().collect::<BTreeSet<_>>(), kept(true), "what was shown");

    // All from the backup of yesterday on, and of those before it their own.
    let archive = lab.archive();
    let (newest, anchor) = (archive.keys().next_back().unwrap(), own.iter().find(|it| it.0 == labels[5]).unwrap());
    let is_needed = |segment: &String| {
        *segment >= anchor.1
            || own.iter().any(|(label, first, last)| left.contains(label) && first <= segment && segment <= last)
    };
    assert!(archive.keys().all(is_needed), "{archive:#?} {own:#?}");
    assert!(
        own.iter()
            .filter(|it| left.contains(&it.0))
            .all(|it| archive.contains_key(&it.1) && archive.contains_key(&it.2))
    );
    assert!(*newest > anchor.2);
    assert!(own.iter().filter(|it| !left.contains(&it.0)).all(|it| !archive.contains_key(&it.2)), "{archive:#?}");

    // Islands are told at once, and no look at the archive finds them alarming.
    let islands = [5, 3, 1, 0].map(|place: usize| labels[place].clone());
    assert_eq!(windows(&site), islands);
    site.run(&["wal", "orders"]).ok();
    assert_eq!(windows(&site), islands);
    assert_eq!(site.status()["alarms"], serde_json::json!([]));
    assert!(site.backups().iter().all(|backup| backup["status"] == "good"));

    let told =
        site.catalog("select actor || ': ' || object || ': ' || detail from audit where action = 'expire' limit 1");
    assert!(told.contains(&format!("orders repo 1 {}: expires: ", labels[4])), "{told}");
    assert!(told.ends_with("B in repository 1"), "{told}");

    assert_eq!(restored(&lab, &["--type=immediate", &format!("--set={}", labels[1])]), "6 5", "older than the depth");
    let to_moment = restored(&lab, &["--type=time", &format!("--target={moment}")]);
    assert_eq!(to_moment, "6 5 4 3 2 1 within", "a moment of the window");

    // A day later no backup goes, but the WAL between the last two does.
    let dry_run = site.run_at("+26h", &["expire", "orders", "--dry-run"]).ok()["plans"][0].clone();
    assert_eq!(dry_run["wal"].as_array().map(Vec::len), Some(1), "{dry_run:#}");
    site.run_at("+26h", &["expire", "orders", "--yes"]).ok();
    assert_eq!(lab.labels(), left);
    assert_eq!(lab.archive().len(), archive.keys().filter(|segment| is_left(segment, &own, &left)).count());
}

/// Whether a segment is needed when all WAL before the newest backup may go but what makes the kept ones consistent.
fn is_left(segment: &str, own: &[(String, String, String)], left: &[String]) -> bool {
    let (_, newest, _) = own.last().unwrap();
    let mut kept = own.iter().filter(|(label, ..)| left.contains(label));
    segment >= newest.as_str() || kept.any(|(_, first, last)| (first.as_str()..=last.as_str()).contains(&segment))
}

/// Makes a backup a day; gives a moment between the last two, after the mark `within` and before `late`.
fn a_week(lab: &Lab, site: &Site<'_>) -> String {
    lab.fake_clock("-6d");
    lab.sql("create table mark (n serial, name text)");
    let mut moment = String::new();
    for (kind, day) in WEEK.iter().zip((0..7).rev()) {
        lab.set_clock(&format!("-{day}d"));
        lab.sql(&format!("insert into mark (name) values ('{day}')"));
        let mut arguments = vec!["backup", "orders", "--type", kind];
        if day == 5 {
            arguments.extend(["--tag", "important"]);
        }
        site.run_at(&format!("-{day}d"), &arguments).ok();
        lab.switch_wal();
        if day == 1 {
            // pgBackRest takes only a backup that stopped in an earlier second than the target's.
            let second = || lab.sql("select extract(epoch from clock_timestamp())::bigint");
            let stopped = second();
            until_true("the next second has come", || second() != stopped);
            lab.sql("insert into mark (name) values ('within')");
            moment = lab.sql("select clock_timestamp()");
            lab.sql("insert into mark (name) values ('late')");
        }
        lab.switch_wal();
    }
    moment
}

/// Each backup with the first and the last segment of its own.
fn own_wal(lab: &Lab) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let info = lab.info();
    let backups = info["backup"].as_array().unwrap().iter();
    backups.map(|it| (text(&it["label"]), text(&it["archive"]["start"]), text(&it["archive"]["stop"]))).collect()
}

/// The backups at which the ranges begin that can be recovered, the one that reaches furthest first.
fn windows(site: &Site<'_>) -> Vec<String> {
    let status = site.status();
    let windows = status["windows"].as_array().unwrap().iter();
    windows.map(|window| window["label"].as_str().unwrap().to_owned()).collect()
}

/// Restores by pgBackRest alone, starts a server on it, and reads the marks.
fn restored(lab: &Lab, arguments: &[&str]) -> String {
    lab.run("rm -rf restored");
    let place = format!("--pg1-path={}", lab.path("restored").display());
    let mut all = vec![place.as_str(), "--target-action=promote", "--archive-mode=off"];
    all.extend(arguments);
    all.push("restore");
    let done = lab.pgbackrest(&all);
    assert!(done.status.success(), "{done:?}");
    lab.run(
        "setsid pg_ctl -D restored -l restored.log -o '-c port=5433' -w -s start </dev/null >restored.out 2>&1 \
         || { cat restored.log >&2; exit 1; }",
    );
    let ask = |query: &str| lab.run(&format!("psql -qAtX -p 5433 -c \"{query}\"")).trim().to_owned();
    until_true("the copy has recovered", || ask("select pg_is_in_recovery()") == "f");
    let marks = ask("select string_agg(name, ' ' order by n) from mark");
    lab.run("pg_ctl -D restored -m immediate -w -s stop");
    marks
}

#[test]
fn an_expiry_that_is_killed_leaves_whole_chains_and_the_next_one_goes_on() {
    let lab = Lab::empty();
    let rules = "retention = { full = 1, max_delete_fraction = 1 }";
    let site = Site::new(&lab, rules);
    for kind in ["full", "diff", "incr", "full"] {
        site.run(&["backup", "orders", "--type", kind]).ok();
    }
    let labels = lab.labels();
    // Three dry runs before all; then each is tried once more before it goes. So the seventh call ends the diff.
    let script = "/usr/bin/pgbackrest \"$@\" >/dev/null; kill -KILL $PPID; exit 0";
    let binary = stand_in(&lab, "expire", &later(6, script));
    site.rewrite(&Extra { database: rules, pgbackrest: &binary, ..Extra::default() });
    let (program, policy) = (env!("CARGO_BIN_EXE_backstop"), site.policy.display());
    let ended = sh(&format!("{program} --policy {policy} expire orders --yes >/dev/null 2>&1 || echo $?"));
    assert_eq!(ended.trim(), "137");
    assert_eq!(lab.labels(), [labels[0].clone(), labels[3].clone()], "the leaves went first");

    site.rewrite(&Extra { database: rules, ..Extra::default() });
    site.run(&["expire", "orders", "--yes"]).ok();
    assert_eq!(lab.labels(), labels[3..]);
    assert_eq!(
        site.catalog("select group_concat(status, ' ') from (select status from backups order by label)"),
        "expired expired expired good"
    );
    assert_eq!(site.states("expire"), ["interrupted", "succeeded"]);
    let oldest = lab.archive().into_keys().next().unwrap();
    assert_eq!(oldest, own_wal(&lab)[0].1, "WAL that nothing needs went with it");
}

#[test]
fn what_was_removed_by_hand_stops_one_expiry_is_lost_and_the_next_one_goes_on() {
    let lab = Lab::empty();
    let site = Site::new(&lab, "retention = { full = 1, max_delete_fraction = 1 }");
    for kind in ["full", "diff", "incr", "full"] {
        site.run(&["backup", "orders", "--type", kind]).ok();
    }
    let labels = lab.labels();
    let lying = || lab.run("cd repo/backup/lab; ls -d 2*");
    fs::remove_dir_all(lab.path("repo/backup/lab").join(&labels[1])).unwrap();
    let before = lying();

    let told = site.run(&["expire", "orders", "--yes"]).fails(8);
    assert!(told.contains("nothing was deleted") && told.contains(&labels[1]), "{told}");
    assert_eq!(lying(), before);
    let statuses = "select group_concat(status, ' ') from (select status from backups order by label)";
    assert_eq!(site.catalog(statuses), "good lost lost good", "the incr was built on it");
    // pgBackRest still lists them, and that brings nothing back.
    assert_eq!(lab.labels(), labels);
    site.run(&["wal", "orders"]).ok();
    assert_eq!(site.catalog(statuses), "good lost lost good");

    site.run(&["expire", "orders", "--yes"]).ok();
    assert_eq!(lab.labels(), labels[3..]);
    assert_eq!(lying().trim(), labels[3], "the remains of the incr went too");
    assert_eq!(site.catalog(statuses), "expired lost lost good");
}

#[test]
fn what_others_made_stays_and_is_not_counted_unless_the_policy_says_so() {
    let lab = Lab::empty();
    let rules =
        |more: &str| format!("retention = {{ full = 1, max_delete_fraction = 1, shrink_grace = \"1s\"{more} }}");
    let site = Site::new(&lab, &rules(""));
    site.run(&["backup", "orders", "--type", "full"]).ok();
    for _ in 0..2 {
        assert!(lab.pgbackrest(&["--type=full", "--no-expire-auto", "backup"]).status.success());
    }
    let labels = lab.labels();
    site.run(&["expire", "orders", "--yes"]).ok();
    assert_eq!(lab.labels(), labels, "the only one of ours is the newest that counts");
    site.run(&["backup", "orders", "--type", "full"]).ok();
    site.run(&["expire", "orders", "--yes"]).ok();
    assert_eq!(lab.labels()[..2], labels[1..]);
    assert_eq!(lab.labels().len(), 3);

    site.rewrite(&Extra { database: &rules(", foreign = true"), ..Extra::default() });
    site.run(&["expire", "orders", "--dry-run"]).ok();
    until_true("the grace of the new policy is over", || {
        site.run(&["expire", "orders", "--yes"]).ok();
        lab.labels().len() == 1
    });
}
