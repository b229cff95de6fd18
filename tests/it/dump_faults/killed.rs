//! Killed and stopped in the middle: the tool, the command, the daemon.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{Faults, in_the_middle, mariadb, programs};
use crate::harness::{Lab, S3, in_seconds, sh, until, until_true};

const STORAGES: &[&str] = &["near", "far"];
/// So slow that a tool is met in the middle.
const SLOW: &str = "compression = \"zstd:19\"\n";
const QUICK: &str = "compression = \"zstd:1\"\n";

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

fn postgres(faults: &Faults<'_>, sections: &str, keys: &str) {
    let connection = super::dsn(faults.lab, "postgres");
    faults.policy(STORAGES, sections, &format!("engine = \"pg_dump\"\nconnection = \"{connection}\"\n{keys}"));
}

#[test]
fn a_killed_pg_dump_leaves_nothing_and_is_told_as_that() {
    let (lab, s3) = (Lab::slow(), S3::up());
    let faults = Faults::postgres(&lab, STORAGES, Some(&s3), QUICK);
    let good = faults.good();
    postgres(&faults, "", SLOW);
    let told = killed_tool(&faults, "pg_dump");
    assert!(told.contains("`pg_dump` was ended by signal 9; nothing of the backup is left"), "{told}");
    faults.only(&[&good]);
    assert_eq!(faults.states(), ["succeeded", "failed"]);
}

#[test]
fn a_killed_mariadb_dump_leaves_nothing_and_is_told_as_that() {
    let (lab, s3) = (Lab::empty(), S3::up());
    let (_server, keys) = mariadb(&lab, 500_000);
    let faults = Faults::of(&lab, STORAGES, Some(&s3), &format!("{keys}{QUICK}"));
    let good = faults.good();
    faults.policy(STORAGES, "", &format!("{keys}{SLOW}"));
    let told = killed_tool(&faults, "mariadb-dump");
    assert!(told.contains("signal 9; nothing of the backup is left"), "{told}");
    faults.only(&[&good]);
    assert_eq!(faults.states(), ["succeeded", "failed"]);
}

/// Kills a tool in the middle of its backup; gives what was said.
fn killed_tool(faults: &Faults<'_>, tool: &str) -> String {
    std::thread::scope(|scope| {
        let backup = scope.spawn(|| faults.backup());
        signal(in_the_middle(faults.lab, tool), Signal::SIGKILL);
        backup.join().unwrap().fails(9)
    })
}

/// Starts a backup as a person would and hands over its processes when it is in the middle; gives its exit code.
fn in_the_middle_of_a_command(faults: &Faults<'_>, act: impl FnOnce(&[i32])) -> String {
    let script = format!(
        "{} --policy {} backup orders >/dev/null 2>&1 || echo $?",
        env!("CARGO_BIN_EXE_backstop"),
        faults.site.policy.display()
    );
    std::thread::scope(|scope| {
        let command = scope.spawn(|| sh(&script));
        in_the_middle(faults.lab, "pg_dump");
        act(&programs(faults.lab));
        command.join().unwrap().trim().to_owned()
    })
}

#[test]
fn a_killed_command_is_settled_by_the_next_one() {
    let (lab, s3) = (Lab::slow(), S3::up());
    let faults = Faults::postgres(&lab, STORAGES, Some(&s3), QUICK);
    let good = faults.good();
    postgres(&faults, "", SLOW);
    let code = in_the_middle_of_a_command(&faults, |pids| pids.iter().for_each(|pid| signal(*pid, Signal::SIGKILL)));
    assert_eq!(code, "137");
    assert!(faults.lying().iter().any(|(_, lying)| lying.iter().any(|path| path.contains(".partial"))), "the test");
    assert_eq!(faults.site.backups().len(), 1, "what is half-made is not listed, not even before it is settled");

    postgres(&faults, "", QUICK);
    let next = faults.good();
    faults.only(&[&good, &next]);
    assert_eq!(faults.states(), ["succeeded", "interrupted", "succeeded"]);
    assert_eq!(lab.processes("pg_dump"), Vec::<i32>::new());
}

#[test]
fn a_command_that_is_asked_to_stop_leaves_nothing() {
    let (lab, s3) = (Lab::slow(), S3::up());
    let faults = Faults::postgres(&lab, STORAGES, Some(&s3), QUICK);
    let good = faults.good();
    postgres(&faults, "", SLOW);
    let code = in_the_middle_of_a_command(&faults, |pids| pids.iter().for_each(|pid| signal(*pid, Signal::SIGTERM)));
    assert_eq!(code, "9");
    faults.only(&[&good]);
    assert_eq!(faults.states(), ["succeeded", "interrupted"]);
    assert_eq!(lab.processes("pg_dump"), Vec::<i32>::new());
}

#[test]
fn a_killed_daemons_dump_is_interrupted_and_made_up_for_once() {
    let (lab, s3) = (Lab::slow(), S3::up());
    let faults = Faults::postgres(&lab, STORAGES, Some(&s3), QUICK);
    let good = faults.good();
    let schedule = format!("schedule = {{ full = \"{}\" }}\n", in_seconds(5));
    postgres(&faults, "", &format!("{SLOW}{schedule}"));
    let daemon = faults.site.daemon();
    in_the_middle(&lab, "pg_dump");
    daemon.crash();
    assert_eq!(faults.states(), ["succeeded", "running"]);

    postgres(&faults, "", &format!("{QUICK}{schedule}"));
    let daemon = faults.site.daemon();
    until("the slot is made up for", || (faults.states() == ["succeeded", "interrupted", "succeeded"]).then_some(()));
    daemon.stop();
    faults.site.daemon().stop();
    assert_eq!(faults.states(), ["succeeded", "interrupted", "succeeded"], "a third start finds nothing to do");
    assert_eq!(faults.site.catalog("select state, returned_count from slots"), "done|1");
    let next = super::text(&faults.site.backups()[0], "id");
    faults.only(&[&good, &next]);
}

#[test]
fn a_daemon_that_is_asked_to_stop_leaves_nothing_and_the_slot_is_due() {
    let (lab, s3) = (Lab::slow(), S3::up());
    let faults = Faults::postgres(&lab, STORAGES, Some(&s3), QUICK);
    let good = faults.good();
    let schedule = format!("schedule = {{ full = \"{}\" }}\n", in_seconds(5));
    postgres(&faults, "stop_grace = \"1s\"", &format!("{SLOW}{schedule}"));
    let mut daemon = faults.site.daemon();
    in_the_middle(&lab, "pg_dump");
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.ended().success(), "{}", daemon.log());
    faults.only(&[&good]);
    assert_eq!(faults.states(), ["succeeded", "interrupted"]);
    assert_eq!(faults.site.catalog("select state from slots"), "due");
    until_true("the tool is gone", || lab.processes("pg_dump").is_empty());
}
