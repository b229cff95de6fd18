//! Retention: our plan, shown first, carried out by pgBackRest, recorded with its reason.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::harness::{Extra, Lab, Site, in_seconds, sh, until_true};

#[test]
fn the_old_chain_goes_as_the_dry_run_said_and_its_wal_with_it() {
    let lab = Lab::small();
    let site = Site::new(&lab, "retention = { full = 1 }");
    for kind in ["full", "diff", "incr", "full", "incr"] {
        site.run(&["backup", "orders", "--type", kind]).ok();
        lab.switch_wal();
    }
    let labels = lab.labels();
    let old: BTreeSet<&str> = labels[..3].iter().map(String::as_str).collect();

    let shown = site.run(&["expire", "orders", "--dry-run"]);
    let decisions = shown.ok()["plans"][0]["plan"]["decisions"].as_array().unwrap().clone();
    assert_eq!(decisions.len(), 5);
    assert!(decisions.iter().all(|decision| !decision["reasons"].as_array().unwrap().is_empty()));
    assert_eq!(going(&decisions), old);
    assert_eq!(lab.labels(), labels, "a dry run changes nothing");

    site.run(&["expire", "orders"]).fails(64);
    site.run(&["expire", "orders", "--yes"]).ok();
    assert_eq!(lab.labels(), labels[3..]);
    assert_eq!(site.states("expire"), ["succeeded"]);
    let all = site.run(&["list", "orders", "--expired"]);
    let gone: Vec<&Value> =
        all.ok()["backups"].as_array().unwrap().iter().filter(|backup| backup["status"] == "expired").collect();
    assert_eq!(gone.iter().map(|backup| backup["label"].as_str().unwrap()).collect::<BTreeSet<_>>(), old);
    assert!(
        gone.iter().all(|backup| backup["expired_reason"].is_string() && backup["expired_at"].is_string()),
        "{gone:#?}"
    );
    let needed = lab.info()["backup"][0]["archive"]["start"].as_str().unwrap().to_owned();
    let oldest = lab.archive().into_keys().next().unwrap();
    assert_eq!(oldest, needed, "WAL that no kept backup needs is gone, all other is there");

    assert_eq!(
        site.run(&["expire", "orders", "--dry-run"]).ok()["plans"][0]["plan"]["decisions"].as_array().map(Vec::len),
        Some(2)
    );
    site.run(&["expire", "orders", "--yes"]).ok();
    assert_eq!(lab.labels(), labels[3..], "a second time changes nothing");
    assert_eq!(site.run(&["wal", "orders"]).code, 0, "nothing that is kept has lost WAL");
}

#[test]
fn the_only_good_backup_stays_whatever_the_rules_say() {
    let lab = Lab::empty();
    let site = Site::new(&lab, "retention = { full = 1 }");
    site.run(&["backup", "orders", "--type", "full"]).ok();
    lab.stop_server();
    for _ in 0..2 {
        site.run(&["backup", "orders", "--type", "full"]).fails(3);
    }
    site.run(&["expire", "orders", "--yes"]).ok();
    assert_eq!(lab.labels().len(), 1);
}

/// Puts a new cluster in the place of the lab's, at the same version.
fn new_cluster(lab: &Lab) {
    lab.stop_server();
    lab.run("cp pg/postgresql.conf keep.conf && rm -rf pg && initdb -D pg -k --locale=C.UTF-8 -A trust -U postgres -N >/dev/null && cp keep.conf pg/postgresql.conf");
    lab.start_server();
}

#[test]
fn the_wal_between_backups_of_a_former_cluster_stays_as_long_as_they_do() {
    let lab = Lab::small();
    let site = Site::new(&lab, "retention = { full = 1 }");
    for _ in 0..3 {
        site.run(&["backup", "orders", "--type", "full"]).ok();
        lab.switch_wal();
        lab.switch_wal();
    }
    let first = lab.info()["backup"][0]["archive"]["start"].as_str().unwrap().to_owned();
    // In order, from the first that any backup needs.
    let segments = |id: &str| -> Vec<String> {
        let names = lab.run(&format!("find repo/archive/lab/{id} -type f -name '0*' -printf '%f\\n' | sort"));
        names.lines().map(str::to_owned).skip_while(|name| id == "15-1" && *name < first).collect()
    };
    let (old, labels) = (segments("15-1"), lab.labels());
    assert!(old.len() >= 3 * 3, "{old:?}");
    new_cluster(&lab);
    assert!(lab.pgbackrest(&["stanza-upgrade"]).status.success());
    for _ in 0..2 {
        site.run(&["backup", "orders", "--type", "full"]).ok();
        lab.switch_wal();
    }
    let before = segments("15-2");
    site.run(&["expire", "orders", "--yes"]).ok();
    let left = lab.labels();
    assert_eq!((left.len(), &left[..3]), (4, &labels[..]), "of the new cluster one is left, of the old one all");
    assert_eq!(segments("15-1"), old, "recovery from any of them to any moment is still possible");
    assert_ne!(segments("15-2"), before, "what no backup needs is gone");
}

#[test]
fn nothing_is_ended_while_the_server_is_another_cluster() {
    let lab = Lab::empty();
    let site = Site::new(&lab, "retention = { full = 1 }");
    for _ in 0..2 {
        site.run(&["backup", "orders", "--type", "full"]).ok();
    }
    new_cluster(&lab);
    let told = site.run(&["expire", "orders", "--yes"]).fails(1);
    assert!(told.contains("the stanza belongs to cluster"), "{told}");
    assert_eq!((lab.labels().len(), site.backups().len()), (2, 2));
}

#[test]
fn where_pgbackrest_decides_its_own_plan_is_shown_and_done() {
    let lab = Lab::small();
    lab.run("sed -i '/^repo1-path/a repo1-retention-full=2' pgbackrest.conf");
    let extra = ", expire_by = \"pgbackrest\"";
    let site = Site::with(&lab, &Extra { database: "retention = { full = 1 }", pgbackrest: extra, ..Extra::default() });
    for _ in 0..3 {
        site.run(&["backup", "orders", "--type", "full"]).ok();
        lab.switch_wal();
    }
    let labels = lab.labels();
    let shown = site.run(&["expire", "orders", "--dry-run"]).ok().clone();
    let plan = &shown["plans"][0];
    assert_eq!(going(plan["plan"]["decisions"].as_array().unwrap()), BTreeSet::from([labels[0].as_str()]));
    assert!(!plan["wal"].as_array().unwrap().is_empty(), "WAL that goes is shown: {plan:#}");
    site.run(&["expire", "orders", "--yes"]).ok();
    assert_eq!(lab.labels(), labels[1..]);
    assert_eq!(statuses(&site, &labels[..1]), ["expired"]);
    assert_eq!(site.run(&["expire", "orders", "--dry-run"]).ok()["plans"][0]["wal"], Value::Null);
}

#[test]
fn what_is_shown_is_locked_until_the_answer_and_an_interrupt_is_a_no() {
    let lab = Lab::empty();
    let site = Site::new(&lab, "retention = { full = 1 }");
    for _ in 0..2 {
        site.run(&["backup", "orders", "--type", "full"]).ok();
    }
    let labels = lab.labels();
    ask(&site);
    until_true("it asks", || lab.run("cat shown").contains("end 1 backups? [y/N]"));
    site.run(&["backup", "orders"]).fails(6);
    assert_eq!(reply(&lab, "\\003"), "9", "Ctrl-C: {}", lab.run("cat shown"));
    assert_eq!(lab.labels(), labels);

    ask(&site);
    until_true("it asks", || lab.run("cat shown").contains("end 1 backups? [y/N]"));
    assert!(lab.run("cat shown").contains(&format!("EXPIRE  {}", labels[0])));
    assert_eq!(reply(&lab, "y\\n"), "0", "{}", lab.run("cat shown"));
    assert_eq!(lab.labels(), labels[1..]);
}

/// Starts `backstop expire orders` on a terminal of its own.
fn ask(site: &Site<'_>) {
    let (program, policy, dir) = (env!("CARGO_BIN_EXE_backstop"), site.policy.display(), site.lab.dir().display());
    sh(&format!(
        "cd {dir}; rm -f keys shown ended; mkfifo keys; touch shown
         (code=0; script -qefc 'exec {program} --policy {policy} expire orders' /dev/null <>keys >shown 2>&1 || code=$?; echo $code >ending; mv ending ended) >/dev/null 2>&1 &"
    ));
}

/// Types on that terminal, and gives the exit code.
fn reply(lab: &Lab, keys: &str) -> String {
    sh(&format!("printf '{keys}' >{}", lab.path("keys").display()));
    until_true("it ends", || lab.path("ended").exists());
    lab.run("cat ended").trim().to_owned()
}

#[test]
fn a_backup_that_a_verification_finds_damaged_counts_no_more_with_all_that_needs_it() {
    let lab = Lab::small();
    let site = Site::new(&lab, "retention = { full = 1 }");
    for kind in ["full", "full", "incr"] {
        site.run(&["backup", "orders", "--type", kind]).ok();
    }
    let labels = lab.labels();
    lab.run(&format!(
        "f=$(find repo/backup/lab/{}/pg_data/base -name '*.lz4' -size +8k -print -quit); cp $f keep.lz4; echo $f >keep.name; echo x >>$f",
        labels[1]
    ));
    verify(&site, "failed");
    assert_eq!(statuses(&site, &labels), ["good", "damaged", "damaged"]);
    assert_eq!(site.run(&["expire", "orders", "--dry-run"]).ok()["plans"][0]["plan"]["decisions"][2]["keep"], true);

    lab.run("cp keep.lz4 $(cat keep.name)");
    verify(&site, "succeeded");
    assert_eq!(statuses(&site, &labels), ["good", "good", "good"], "it was mended");
}

/// Lets the daemon verify once.
fn verify(site: &Site<'_>, then: &str) {
    let before = site.runs("verify").len();
    let schedule = format!("retention = {{ full = 1 }}\nschedule = {{ verify = \"{}\" }}", in_seconds(3));
    site.rewrite(&Extra { database: &schedule, ..Extra::default() });
    let daemon = site.daemon();
    until_true("the verification ends", || {
        site.states("verify").get(before).is_some_and(|state| state != "running" && !state.is_empty())
    });
    daemon.stop();
    assert_eq!(site.states("verify")[before], then, "{:#?}", site.runs("verify"));
}

/// What the catalog says of these labels.
fn statuses(site: &Site<'_>, labels: &[String]) -> Vec<String> {
    let all = site.run(&["list", "orders", "--expired"]);
    let all = all.ok()["backups"].as_array().unwrap().clone();
    let of = |label: &String| all.iter().find(|backup| backup["label"] == label.as_str()).unwrap();
    labels.iter().map(|label| of(label)["status"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_daemon_expires_on_its_schedule() {
    let lab = Lab::empty();
    let site = Site::new(&lab, "retention = { full = 1 }\nschedule = { expire = \"*/2 * * * * *\" }");
    site.run(&["backup", "orders", "--type", "full"]).ok();
    site.run(&["backup", "orders", "--type", "full"]).ok();
    let newest = lab.labels()[1].clone();
    let daemon = site.daemon();
    until_true("the older full is gone", || lab.labels() == [newest.clone()]);
    until_true("that is recorded", || site.backups().len() == 1);
    daemon.stop();
}

fn going(decisions: &[Value]) -> BTreeSet<&str> {
    decisions
        .iter()
        .filter(|decision| decision["keep"] == false)
        .map(|decision| decision["label"].as_str().unwrap())
        .collect()
}
