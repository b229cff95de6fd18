//! Dumps by their schedule: every job in its turn, a reload, a stop in the middle.

use nix::sys::signal::Signal;

use crate::harness::{Daemon, Lab, Site, in_seconds, until, until_true};

use super::*;

/// The schedule of a database whose every job is due soon, one after the other.
fn every_job() -> String {
    format!(
        "retention = {{ full = 1 }}\n\
         schedule = {{ full = \"{}\", test_restore = \"{}\", verify = \"{}\", expire = \"{}\" }}",
        in_seconds(4),
        in_seconds(5),
        in_seconds(6),
        in_seconds(7)
    )
}

#[test]
fn every_engine_is_dumped_proven_verified_and_expired_by_its_schedule() {
    let lab = lab();
    let server = mariadb(&lab);
    let databases = |more: &str| format!("{}{}{}", portal(&lab, more), wiki(&lab, more), stock(&lab, &server, more));
    let site = site(&lab, &databases(""));
    let names = ["portal", "wiki", "stock"];
    let old: Vec<String> = names.iter().map(|name| backup(&site, name, &[])).collect();

    write(&site, &STORAGES, "max_parallel = 3", &databases(&every_job()));
    let daemon = site.daemon();
    for name in names {
        // Larger jobs go first where several are due; retention is the last and ends what was before.
        for kind in ["full", "test_restore", "verify", "expire"] {
            let succeeded = || states(&site, name, kind).iter().filter(|state| *state == "succeeded").count();
            let wanted = if kind == "full" { 2 } else { 1 };
            until_true(&format!("{name}/{kind} is done"), || {
                assert!(!states(&site, name, kind).contains(&"failed".to_owned()), "{}", daemon.log());
                succeeded() == wanted
            });
        }
    }
    for (name, old) in names.iter().zip(&old) {
        let listed = list(&site, name);
        let (new, ended) = (&listed[0], &listed[1]);
        assert_eq!((ended["id"].as_str(), &ended["status"]), (Some(old.as_str()), &"expired".into()), "{ended:#}");
        assert_eq!(new["status"], "good");
        assert!(new["proven_at"].is_string() && new["proofs"][0]["passed"] == true, "{new:#}");
        assert!(new["verification"]["verified_at"].as_str() > new["stopped_at"].as_str(), "{new:#}");
        let looked = status(&site, name);
        assert_eq!(looked["last"]["full"]["id"], new["id"], "{looked:#}");
        assert_eq!(looked["proof"]["backup_id"], new["id"], "{looked:#}");
        assert_eq!(looked["copies"].as_array().unwrap().len(), 2);
        assert!(looked["copies"].as_array().unwrap().iter().all(|copy| copy["state"] == "good"), "{looked:#}");
        assert_eq!((&looked["wal"], &looked["alarms"]), (&Value::Null, &serde_json::json!([])), "{looked:#}");
        assert_eq!(looked["next"].as_array().unwrap().len(), 4, "{looked:#}");
    }
    let news: Vec<String> = names.iter().map(|name| list(&site, name)[0]["id"].as_str().unwrap().to_owned()).collect();
    for storage in STORAGES {
        only(&lab, storage, &news.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let (code, page, _) = site.say(&["status", "--check"]);
    assert_eq!(code, 0, "{page}");
    daemon.stop();
    nothing_is_left(&site);
}

#[test]
fn a_storage_that_a_reload_adds_takes_part_in_the_next_dump() {
    let lab = lab();
    let site = site(&lab, &wiki(&lab, ""));
    backup(&site, "wiki", &[]);
    let daemon = site.daemon();
    lab.run("mkdir -m 700 third");
    let storage = "storage = [\"local\", \"offsite\", \"third\"]";
    let soon = format!("{storage}\nschedule = {{ full = \"{}\" }}", in_seconds(4));
    write(&site, &["local", "offsite", "third"], "", &wiki(&lab, &soon));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for("policy reloaded");
    until_true("the next dump is there", || {
        states(&site, "wiki", "full").last().is_some_and(|state| state == "succeeded") && list(&site, "wiki").len() == 2
    });
    daemon.stop();
    let listed = list(&site, "wiki");
    let storages = |backup: &Value| -> Vec<String> {
        backup["copies"].as_array().unwrap().iter().map(|copy| copy["storage"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(storages(&listed[0]), ["local", "offsite", "third"]);
    assert_eq!(storages(&listed[1]), ["local", "offsite"]);
    only(&lab, "third", &[listed[0]["id"].as_str().unwrap()]);
}

/// A site whose dump takes its time, under a daemon that has begun it.
fn in_the_middle_of_a_dump<'a>(lab: &'a Lab, grace: &str) -> (Site<'a>, Daemon) {
    lab.sql("create database large");
    lab.run(
        "psql -X -q -d large -c 'create table filler as select n, md5(n::text) || md5((n * 7)::text) as noise \
         from generate_series(1, 150000) n'",
    );
    let more = format!("compression = \"zstd:19\"\nschedule = {{ full = \"{}\" }}", in_seconds(4));
    let large = portal(lab, &more).replace("dbname=shop", "dbname=large");
    let site = site(lab, &large);
    write(&site, &STORAGES, grace, &large);
    let daemon = site.daemon();
    until_true("bytes come", || !lab.run("find local -type f -size +100k").is_empty());
    (site, daemon)
}

#[test]
fn status_tells_how_far_a_dump_is() {
    let lab = lab();
    let (site, daemon) = in_the_middle_of_a_dump(&lab, "");
    let running = until("the status tells bytes", || {
        let running = status(&site, "portal")["running"][0].clone();
        running["bytes"].as_u64().is_some_and(|bytes| bytes > 0).then_some(running)
    });
    assert_eq!(running["kind"], "full");
    assert!(running["rate"].as_f64().unwrap() > 0.0, "{running:#}");
    assert!(running["percent"].as_f64().is_some_and(|percent| percent > 0.0 && percent < 100.0), "{running:#}");
    let (_, page, _) = site.say(&["status", "portal"]);
    assert!(page.contains("/s"), "{page}");
    until_true("it ends", || states(&site, "portal", "full") == ["succeeded"]);
    assert_eq!(status(&site, "portal")["running"], serde_json::json!([]));
    daemon.stop();
}

#[test]
fn a_dump_that_outlasts_the_grace_is_interrupted_and_leaves_nothing() {
    let lab = lab();
    let (site, mut daemon) = in_the_middle_of_a_dump(&lab, "stop_grace = \"1s\"");
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.ended().success(), "{}", daemon.log());
    assert_eq!(states(&site, "portal", "full"), ["interrupted"]);
    assert_eq!(site.catalog("select state, returned_count from slots"), "due|1");
    assert_eq!(list(&site, "portal"), Vec::<Value>::new());
    for storage in STORAGES {
        assert_eq!(files(&lab, storage), Vec::<String>::new(), "{storage}");
    }
    nothing_is_left(&site);
    assert_eq!(lab.processes("pg_dump"), Vec::<i32>::new());

    let daemon = site.daemon();
    until_true("it is made up for", || states(&site, "portal", "full") == ["interrupted", "succeeded"]);
    daemon.stop();
    let id = list(&site, "portal")[0]["id"].as_str().unwrap().to_owned();
    STORAGES.iter().for_each(|storage| only(&lab, storage, &[&id]));
}
