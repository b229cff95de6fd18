//! WAL archiving that looks healthy and is not: a hole in the middle, an archive command that archives nothing.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Extra, Lab, Site, until};

const STRICT: &str = r#"wal = { gap_grace = "0s", max_lag = "1h" }"#;

#[test]
fn healthy_archiving_gives_a_range_without_a_gap() {
    let lab = Lab::small();
    let site = Site::new(&lab, STRICT);
    site.run(&["backup", "orders", "--type", "full"]).ok();
    let last = lab.switch_wal();
    let answer = site.run(&["wal", "orders"]);
    let database = &answer.ok()["databases"][0];
    assert_eq!(database["sample"]["last_archived_wal"], last.as_str());
    assert_eq!(database["sample"]["contiguous_to"]["1"], last.as_str());
    assert_eq!(database["sample"]["problems"], json!([]));
    assert_eq!(database["windows"].as_array().unwrap().len(), 1);
    assert!(site.status()["recoverable_to"].is_string());
}

#[test]
fn a_missing_segment_in_the_middle_is_found_though_every_check_of_the_tool_is_green() {
    let lab = Lab::small();
    let site = Site::new(&lab, STRICT);
    site.run(&["backup", "orders", "--type", "full"]).ok();
    lab.switch_wal();
    let hole = lab.switch_wal();
    lab.switch_wal();
    fs::remove_file(&lab.archive()[&hole]).unwrap();
    assert!(lab.pgbackrest(&["check"]).status.success());
    assert_eq!(lab.info()["status"]["code"], 0);

    let told = site.run(&["wal", "orders"]).fails(5);
    assert!(told.contains(&hole), "{told}");
    assert_eq!(site.states("wal"), ["failed"]);
    let status = site.status();
    assert!(status["alarms"].to_string().contains(&hole), "{status:#}");
    assert_eq!(status["wal"]["gaps"]["1"][0].as_str().map(|gap| gap.contains(&hole)), Some(true));
    assert_eq!(site.say(&["status", "--check"]).0, 10);
    assert!(site.say(&["status"]).1.contains(&hole));
}

#[test]
fn an_archive_command_that_archives_nothing_is_found() {
    let lab = Lab::small();
    let site = Site::new(&lab, STRICT);
    site.run(&["backup", "orders", "--type", "full"]).ok();
    lab.switch_wal();
    lab.sql("alter system set archive_command = '/bin/true'");
    lab.sql("select pg_reload_conf()");
    until("the server has the new command", || (lab.sql("show archive_command") == "/bin/true").then_some(()));
    let lost = lab.switch_wal();
    assert!(!lab.archive().contains_key(&lost));
    site.run(&["wal", "orders"]).fails(5);
    assert!(!site.status()["alarms"].as_array().unwrap().is_empty());
}

#[test]
fn archiving_that_fails_is_told_with_its_count() {
    let lab = Lab::small();
    let site = Site::new(&lab, STRICT);
    site.run(&["backup", "orders", "--type", "full"]).ok();
    lab.sql("alter system set archive_command = '/bin/false'");
    lab.sql("select pg_reload_conf()");
    lab.sql("create table t as select 1; select pg_switch_wal()");
    until("archiving fails", || (lab.sql("select failed_count > 0 from pg_stat_archiver") == "t").then_some(()));
    site.run(&["wal", "orders"]).fails(5);
    assert!(site.status()["wal"]["failed_count"].as_i64().is_some_and(|count| count > 0));
}

#[test]
fn a_hole_between_two_backups_parts_the_range_and_the_older_one_is_told_apart() {
    let lab = Lab::small();
    let site = Site::new(&lab, STRICT);
    site.run(&["backup", "orders", "--type", "full"]).ok();
    lab.switch_wal();
    let hole = lab.switch_wal();
    lab.switch_wal();
    fs::remove_file(&lab.archive()[&hole]).unwrap();
    site.run(&["backup", "orders", "--type", "full"]).ok();
    lab.switch_wal();
    site.run(&["wal", "orders"]).ok();

    let status = site.status();
    let windows = status["windows"].as_array().unwrap();
    let labels: Vec<&Value> = windows.iter().map(|window| &window["label"]).collect();
    assert_eq!(json!(labels), json!([lab.labels()[1], lab.labels()[0]]), "{status:#}");
    assert_eq!((&status["recoverable_from"], &status["recoverable_to"]), (&windows[0]["from"], &windows[0]["to"]));
    assert!(windows[1]["to"].as_str() < windows[0]["from"].as_str(), "the hole lies between: {windows:#?}");
    assert!(site.say(&["status"]).1.contains(&format!("(repo 1, from {})", lab.labels()[0])));

    // The range ends with its backup, before any other look at the archive.
    assert!(lab.pgbackrest(&["expire", &format!("--set={}", lab.labels()[0])]).status.success());
    site.run(&["backup", "orders", "--type", "full"]).ok();
    let status = site.status();
    assert!(status["windows"].as_array().unwrap().iter().all(|window| window["label"] != *labels[1]), "{status:#}");
}

#[test]
fn a_check_that_cannot_see_is_an_alarm_and_one_that_sees_again_ends_it() {
    let lab = Lab::small();
    let (one, two) = (", repos = [1]", ", repos = [1, 2]");
    let extra = |pgbackrest| Extra { pgbackrest, ..Extra::default() };
    let site = Site::with(&lab, &extra(one));
    site.run(&["backup", "orders", "--type", "full"]).ok();
    lab.switch_wal();
    site.run(&["wal", "orders"]).ok();
    let proven = site.status()["recoverable_to"].clone();

    lab.run("mv pgbackrest.conf away.conf");
    assert_ne!(site.run(&["wal", "orders"]).code, 0);
    let status = site.status();
    assert_eq!(status["alarms"][0]["kind"], "wal", "{status:#}");
    assert_eq!(status["wal"]["problems"].as_array().map(Vec::len), Some(1));
    assert_eq!(status["recoverable_to"], proven, "what was proven stays proven");
    lab.run("mv away.conf pgbackrest.conf");

    // A second repository that the tool does not know, or cannot list, does not hide the first.
    site.rewrite(&extra(two));
    lab.switch_wal();
    assert_ne!(site.run(&["wal", "orders"]).code, 0);
    let status = site.status();
    assert!(status["wal"]["contiguous_to"]["1"].is_string(), "{status:#}");
    assert!(status["recoverable_to"].as_str() > proven.as_str(), "{status:#}");

    site.rewrite(&extra(one));
    site.run(&["wal", "orders"]).ok();
    assert_eq!(site.status()["alarms"], json!([]));
}

#[test]
fn a_backup_whose_wal_comes_back_can_be_restored_again() {
    let lab = Lab::small();
    let site = Site::new(&lab, STRICT);
    site.run(&["backup", "orders", "--type", "full"]).ok();
    lab.switch_wal();
    let needed = lab.info()["backup"][0]["archive"]["start"].as_str().unwrap().to_owned();
    // Not its label file, which begins with the same name.
    let file = lab.run(&format!("echo repo/archive/lab/*/*/{needed}-*")).trim().to_owned();
    lab.run(&format!("mv {file} keep"));
    site.run(&["wal", "orders"]).fails(5);
    assert_eq!(site.backups()[0]["status"], "unrestorable");
    assert_eq!(site.status()["recoverable_to"], Value::Null);

    lab.run(&format!("mv keep {file}"));
    site.run(&["wal", "orders"]).ok();
    assert_eq!(site.backups()[0]["status"], "good");
    assert_eq!(site.status()["alarms"], json!([]));
}
