//! SIGTERM in the middle of a backup: it may end within the grace, and is cancelled cleanly after it.

use nix::sys::signal::Signal;

use crate::harness::{Extra, Lab, Site, in_seconds, until_true};

#[test]
fn a_running_backup_ends_well_within_the_grace() {
    let lab = Lab::slow();
    let site = Site::new(&lab, &format!("schedule = {{ full = \"{}\" }}", in_seconds(4)));
    let mut daemon = site.daemon();
    until_true("the backup runs", || site.states("full") == ["running"]);
    daemon.signal(Signal::SIGTERM);
    daemon.wait_for("stopping");
    assert!(daemon.ended().success(), "{}", daemon.log());
    assert_eq!(site.states("full"), ["succeeded"]);
    assert_eq!(lab.labels().len(), 1);
}

#[test]
fn a_backup_that_outlasts_the_grace_is_interrupted_and_leaves_no_process() {
    let lab = Lab::slow();
    let schedule = format!("schedule = {{ full = \"{}\" }}", in_seconds(4));
    let site = Site::with(&lab, &Extra { daemon: "stop_grace = \"1s\"", database: &schedule, ..Extra::default() });
    let mut daemon = site.daemon();
    until_true("the tool runs", || !lab.processes("--type=full").is_empty());
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.ended().success(), "{}", daemon.log());
    assert_eq!(site.states("full"), ["interrupted"]);
    assert_eq!(lab.processes("--type=full"), Vec::<i32>::new());
    assert_eq!(site.catalog("select state from slots"), "due");
}
