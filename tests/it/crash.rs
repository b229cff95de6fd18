//! `kill -9` in the middle of a full backup: of the daemon alone, and of the daemon with its tool.

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::harness::{Daemon, Lab, Site, in_seconds, until};

#[test]
fn a_backup_outlives_a_killed_daemon_and_is_adopted() {
    let lab = Lab::slow();
    let site = Site::new(&lab, &full_soon());
    let (daemon, _) = in_the_middle_of_a_full(&site);
    daemon.crash();
    assert_eq!(site.states("full"), ["running"]);

    let daemon = site.daemon();
    daemon.wait_for("run adopted");
    until("the adopted run ends", || (site.states("full") == ["succeeded"]).then_some(()));
    daemon.stop();
    let (run, backup) = (&site.runs("full")[0], &site.backups()[0]);
    assert_eq!(run["uuid"], lab.info()["backup"][0]["annotation"]["run-id"]);
    assert_eq!(backup["label"], lab.info()["backup"][0]["label"]);
    assert_eq!(site.catalog("select state from slots"), "done");
}

#[test]
fn a_killed_daemon_and_tool_leave_an_interrupted_run_that_is_made_up_for_once() {
    let lab = Lab::slow();
    let site = Site::new(&lab, &full_soon());
    let (daemon, group) = in_the_middle_of_a_full(&site);
    daemon.crash();
    killpg(Pid::from_raw(group), Signal::SIGKILL).unwrap();

    let daemon = site.daemon();
    until("the slot is made up for", || (site.states("full") == ["interrupted", "succeeded"]).then_some(()));
    daemon.stop();
    // A third start finds nothing to do.
    site.daemon().stop();
    assert_eq!(site.states("full"), ["interrupted", "succeeded"]);
    assert_eq!(site.catalog("select count(distinct slot_id), count(slot_id) from runs"), "1|2");
    assert_eq!(site.catalog("select state, returned_count from slots"), "done|1");
    // What the killed tool left was resumed or removed: nothing lies in the repository that is not listed.
    let lying = lab.run("cd repo/backup/lab; ls -d 2*F");
    assert_eq!(lying.lines().collect::<Vec<_>>(), lab.labels());
}

fn full_soon() -> String {
    format!("schedule = {{ full = \"{}\" }}", in_seconds(4))
}

/// A daemon whose tool copies files, with the tool's process group.
fn in_the_middle_of_a_full(site: &Site<'_>) -> (Daemon, i32) {
    let daemon = site.daemon();
    let group = until("the tool is known", || {
        let known = site.numbers("select coalesce(max(pgid), 0) from attempts where finished_at is null");
        known.into_iter().find(|pgid| *pgid > 0)
    });
    until("the backup copies files", || {
        let partial = site.lab.run("find repo/backup/lab -path '*/pg_data/base/*' -type f | head -3");
        (!partial.is_empty()).then_some(())
    });
    (daemon, i32::try_from(group).unwrap())
}
