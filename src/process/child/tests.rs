//! Long runs with real children.

use tempfile::TempDir;

use super::*;
use crate::{
    policy::Secret,
    process::{group_is_alive, identity::Stat, testing::eventually},
};

/// A stubborn shell with a stubborn worker: neither heeds TERM.
const STUBBORN: &str = "trap '' TERM; (while :; do sleep 1; done) & echo ready; while :; do sleep 1; done";

fn shell(script: &str) -> Command {
    Command::new("sh").args(["-c", script]).grace(Duration::from_millis(100))
}

fn start(command: &Command) -> (TempDir, Child) {
    let directory = tempfile::tempdir().unwrap();
    let child = spawn(command, &directory.path().join("log")).unwrap();
    (directory, child)
}

async fn run(command: &Command) -> Finished {
    let (_directory, child) = start(command);
    child.wait(&Stop::never(), |_| {}).await
}

#[tokio::test]
async fn every_ending_is_told_apart() {
    assert_eq!(run(&shell("exit 0")).await.ending, Ending::Exited(0));
    assert_eq!(run(&shell("exit 56")).await.ending, Ending::Exited(56));
    assert_eq!(run(&shell("kill -9 $$")).await.ending, Ending::Signalled(9));
    let short = Some(Duration::from_millis(50));
    assert_eq!(run(&shell("sleep 600").timeout(short)).await.ending, Ending::TimedOut);
    let (handle, stop) = Stop::new();
    let (_directory, child) = start(&shell("sleep 600"));
    handle.stop();
    assert_eq!(child.wait(&stop, |_| {}).await.ending, Ending::Stopped);
}

#[tokio::test]
async fn a_stubborn_group_is_killed_to_the_last_grandchild() {
    let (handle, stop) = Stop::new();
    let (_directory, child) = start(&shell(STUBBORN));
    let identity = child.identity().clone();
    let stop_when_ready = |line: &str| {
        if line == "ready" {
            handle.stop()
        }
    };
    let finished = child.wait(&stop, stop_when_ready).await;
    assert_eq!(finished.ending, Ending::Stopped);
    assert!(!group_is_alive(&identity));
}

#[tokio::test]
async fn a_tool_that_heeds_term_has_the_grace_to_end_well() {
    let (handle, stop) = Stop::new();
    let script = "trap 'echo bye; exit 63' TERM; echo ready; while :; do sleep 0.02; done";
    let (_directory, child) = start(&shell(script).grace(Duration::from_secs(60)));
    let finished = child
        .wait(&stop, |line| {
            if line == "ready" {
                handle.stop()
            }
        })
        .await;
    assert_eq!(finished.ending, Ending::Stopped);
    assert_eq!(finished.tail.last().unwrap(), "bye");
    assert!(finished.duration < Duration::from_secs(30));
}

#[tokio::test]
async fn workers_do_not_outlive_a_leader_that_was_killed() {
    let (_directory, child) = start(&shell("sleep 600 & kill -9 $$"));
    let identity = child.identity().clone();
    let finished = child.wait(&Stop::never(), |_| {}).await;
    assert_eq!(finished.ending, Ending::Signalled(9));
    assert!(!group_is_alive(&identity));
}

#[tokio::test]
async fn a_dropped_child_takes_its_group_with_it() {
    let (directory, child) = start(&shell(STUBBORN));
    let identity = child.identity().clone();
    let log = directory.path().join("log");
    eventually("the worker runs", || std::fs::read(&log).unwrap() == b"ready\n").await;
    assert!(group_is_alive(&identity));
    drop(child);
    eventually("the group is gone", || !group_is_alive(&identity)).await;
}

#[tokio::test]
async fn a_wait_that_is_dropped_halfway_takes_the_group_with_it() {
    let (_directory, child) = start(&shell(STUBBORN));
    let identity = child.identity().clone();
    let waited = tokio::time::timeout(Duration::from_millis(50), child.wait(&Stop::never(), |_| {})).await;
    assert!(waited.is_err());
    eventually("the group is gone", || !group_is_alive(&identity)).await;
}

#[tokio::test]
async fn a_forgotten_child_is_adopted_and_followed_from_its_first_line() {
    let directory = tempfile::tempdir().unwrap();
    let (log, go) = (directory.path().join("log"), directory.path().join("go"));
    let script = format!("echo one; while [ ! -e {} ]; do sleep 0.02; done; echo two", go.display());
    let child = spawn(&shell(&script), &log).unwrap();
    let identity = child.identity().clone();
    std::mem::forget(child);
    let adopted = adopt(&identity, &log).unwrap();
    let let_go = |line: &str| {
        if line == "one" {
            std::fs::write(&go, "").unwrap()
        }
    };
    let finished = adopted.wait(&Stop::never(), let_go).await;
    assert_eq!((finished.ending, finished.tail), (Ending::Unseen, vec!["one".to_owned(), "two".to_owned()]));
    assert!(adopt(&identity, &log).is_none());
}

#[tokio::test]
async fn an_adopted_group_is_ended_like_our_own() {
    let (directory, child) = start(&shell(STUBBORN));
    let identity = child.identity().clone();
    std::mem::forget(child);
    let (handle, stop) = Stop::new();
    let adopted = adopt(&identity, &directory.path().join("log")).unwrap().grace(Duration::from_millis(50));
    let finished = adopted
        .wait(&stop, |line| {
            if line == "ready" {
                handle.stop()
            }
        })
        .await;
    assert_eq!(finished.ending, Ending::Stopped);
    assert!(!group_is_alive(&identity));
}

#[tokio::test]
async fn a_stranger_with_the_same_number_is_neither_adopted_nor_ended() {
    let (directory, child) = start(&shell("sleep 600"));
    let stranger = ProcessIdentity { start_ticks: child.identity().start_ticks + 1, ..child.identity().clone() };
    assert!(adopt(&stranger, &directory.path().join("log")).is_none());
    assert!(!group_is_alive(&stranger));
    assert!(is_alive(child.identity()));
}

#[tokio::test]
async fn secrets_are_shown_to_nobody_and_leave_the_log() {
    let secret = Secret::new("hunter-two");
    let script = "echo key $PASSWORD; printf %s $PASSWORD | base64; echo end";
    let (directory, child) = start(&shell(script).secret_env("PASSWORD", &secret));
    let mut seen = Vec::new();
    let finished = child.wait(&Stop::never(), |line| seen.push(line.to_owned())).await;
    assert_eq!(seen, ["key ***", "***", "end"]);
    assert_eq!(finished.tail, seen);
    let log = std::fs::read_to_string(directory.path().join("log")).unwrap();
    assert_eq!(log, "key **********\n****************\nend\n");
}

#[tokio::test]
async fn a_log_that_has_lines_already_is_continued_and_read_from_there() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    for word in ["one", "two"] {
        let child = spawn(&shell(&format!("echo {word}")), &log).unwrap();
        assert_eq!(child.wait(&Stop::never(), |_| {}).await.tail, [word]);
    }
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "one\ntwo\n");
}

#[tokio::test]
async fn discarded_output_is_not_in_the_log_but_messages_are() {
    let finished = run(&shell("echo data; echo message >&2").discard_output()).await;
    assert_eq!(finished.tail, ["message"]);
}

#[tokio::test]
async fn a_short_run_does_not_wait_for_the_next_look_at_its_log() {
    let watch = Stopwatch::start();
    for _ in 0..20 {
        assert_eq!(run(&shell("echo done")).await.tail, ["done"]);
    }
    assert!(watch.elapsed() < FOLLOW_EVERY * 20);
}

#[tokio::test]
async fn silence_is_counted_from_the_last_output() {
    let activity = Activity::new();
    eventually("it is silent", || activity.silent_for() > Duration::from_millis(20)).await;
    let silent = activity.silent_for();
    activity.clone().mark();
    assert!(activity.silent_for() < silent);
}

#[tokio::test]
async fn two_hundred_children_leave_neither_zombies_nor_open_files() {
    let open_files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let directory = tempfile::tempdir().unwrap();
    let before = open_files();
    let mut pids = Vec::new();
    for _ in 0..200 {
        let child = spawn(&Command::new("true"), &directory.path().join("log")).unwrap();
        pids.push(child.identity().clone());
        assert!(child.wait(&Stop::never(), |_| {}).await.ok());
    }
    let zombies = pids
        .iter()
        .filter(|process| Stat::read(process.pid).is_some_and(|stat| stat.start_ticks == process.start_ticks));
    assert_eq!(zombies.count(), 0);
    // Other tests open files at the same time; one file per child would be 200.
    assert!(open_files() < before + 100);
}

/// A piped child, what it wrote, and how it ended; the reading is a thread's.
async fn piped(script: &str) -> (Finished, Vec<u8>) {
    use std::io::Read;
    let directory = tempfile::tempdir().unwrap();
    let (child, mut output) = spawn_piped(&shell(script), &directory.path().join("log")).unwrap();
    let reading = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        output.read_to_end(&mut bytes).map(|_| bytes).unwrap()
    });
    let finished = child.wait(&Stop::never(), |_| {}).await;
    (finished, reading.join().unwrap())
}

#[tokio::test]
async fn a_piped_tool_hands_over_every_byte_and_its_messages_go_to_the_log() {
    let (finished, bytes) = piped("head -c 3000000 /dev/zero; echo hint >&2; exit 3").await;
    assert_eq!((finished.ending, bytes.len()), (Ending::Exited(3), 3_000_000));
    assert_eq!(finished.tail, ["hint"]);
}

#[tokio::test]
async fn a_piped_tool_whose_reader_is_gone_dies_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let command = Command::new("cat").arg("/dev/zero").timeout(Some(Duration::from_secs(60)));
    let (child, output) = spawn_piped(&command, &directory.path().join("log")).unwrap();
    drop(output);
    assert_eq!(child.wait(&Stop::never(), |_| {}).await.ending, Ending::Signalled(13));
}

#[tokio::test]
async fn the_output_of_a_piped_tool_blocks_until_there_is_something() {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let directory = tempfile::tempdir().unwrap();
    let (child, output) = spawn_piped(&shell("exit 0"), &directory.path().join("log")).unwrap();
    let flags = OFlag::from_bits_truncate(fcntl(&output, FcntlArg::F_GETFL).unwrap());
    assert!(!flags.contains(OFlag::O_NONBLOCK));
    assert!(child.wait(&Stop::never(), |_| {}).await.ok());
}

#[tokio::test]
async fn a_dropped_piped_child_takes_its_group_along() {
    let directory = tempfile::tempdir().unwrap();
    let (child, _output) = spawn_piped(&shell(STUBBORN), &directory.path().join("log")).unwrap();
    let identity = child.identity().clone();
    drop(child);
    eventually("the group is gone", || !group_is_alive(&identity)).await;
}
