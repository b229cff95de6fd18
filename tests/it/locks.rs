//! Who works on a database at a time: the daemon, a command, or another person's pgBackRest.

use crate::harness::{Lab, Site, in_seconds, until_true};

#[test]
fn a_command_and_the_daemon_never_collide() {
    let lab = Lab::slow();
    let site = Site::new(&lab, &format!("schedule = {{ full = \"{}\" }}", in_seconds(4)));
    let daemon = site.daemon();
    until_true("the daemon's backup runs", || site.states("full") == ["running"]);
    site.run(&["backup", "orders", "--type", "full"]).fails(6);
    // Looking is never in the way.
    assert_eq!(site.status()["running"][0]["kind"], "full");
    until_true("the daemon's backup is done", || site.states("full") == ["succeeded"]);
    site.run(&["backup", "orders", "--type", "incr"]).ok();
    daemon.stop();
    assert_eq!(lab.labels().len(), 2);
}

#[test]
fn a_second_daemon_is_told_who_is_first() {
    let lab = Lab::empty();
    let site = Site::new(&lab, "");
    let daemon = site.daemon();
    let (code, _, stderr) = site.say(&["run"]);
    assert_eq!(code, 6, "{stderr}");
    assert!(stderr.contains(&daemon.pid().to_string()), "{stderr}");
    daemon.stop();
}

#[test]
fn a_backup_by_hand_holds_ours_up_and_does_not_fail_it() {
    let lab = Lab::slow();
    let site = Site::new(&lab, &format!("schedule = {{ full = \"{}\" }}", in_seconds(5)));
    let daemon = site.daemon();
    let mut by_hand = lab.start_pgbackrest(&["backup", "--type=full", "--no-expire-auto"]);
    until_true("the other backup runs", || lab.info()["status"]["lock"]["backup"]["held"] == true);
    until_true("our slot is put off", || site.states("full").contains(&"requeued".to_owned()));
    assert!(site.states("full").iter().all(|state| *state == "requeued"), "{:?}", site.states("full"));
    assert_ne!(site.catalog("select state from slots"), "done");
    site.run(&["expire", "orders", "--dry-run"]).ok();
    assert!(by_hand.wait().unwrap().success());
    daemon.stop();
}

#[test]
fn a_lock_file_that_cannot_be_opened_is_no_busy_lock() {
    let lab = Lab::empty();
    let site = Site::new(&lab, "");
    lab.run("touch lock/lab-backup.lock && chmod 000 lock/lab-backup.lock");
    let told = site.run(&["backup", "orders", "--type", "full"]).fails(1);
    assert!(told.to_lowercase().contains("permission"), "{told}");
}

#[test]
fn a_stopped_stanza_fails_with_the_command_that_starts_it() {
    let lab = Lab::empty();
    let site = Site::new(&lab, "");
    assert!(lab.pgbackrest(&["stop"]).status.success());
    let answer = site.run(&["backup", "orders", "--type", "full"]);
    assert_ne!(answer.code, 0, "{answer:#?}");
    assert!(
        answer.fails(answer.code).contains("pgbackrest") && answer.fails(answer.code).contains(" start"),
        "{answer:#?}"
    );
    assert_eq!(site.states("full"), ["failed"]);
}
