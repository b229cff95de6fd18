//! Endings that were seen, and what they mean.

use proptest::prelude::*;

use super::*;

fn exited_with(code: i32, tail: &str) -> Failure {
    explain(&Ending::Exited(code), tail.lines())
}

#[test]
fn the_table_is_complete_and_its_remedies_are_sentences() {
    // `src/build/error/error.yaml` of 2.45 and of 2.59.
    let known: Vec<u16> =
        [25..=32, 37..=58, 60..=64, 67..=70, 72..=76, 78..=83, 87..=89, 93..=106, 122..=122, 124..=125]
            .into_iter()
            .flatten()
            .filter(|number| ![71, 77].contains(number))
            .collect();
    let numbers: Vec<u16> = Code::ALL.iter().map(|code| code.number).collect();
    assert_eq!(numbers, known);
    for code in Code::ALL {
        assert!(code.remedy.ends_with('.') && code.remedy.starts_with(char::is_uppercase), "{}", code.number);
        assert!(!code.meaning.ends_with('.'), "{}", code.number);
    }
}

#[test]
fn a_held_lock_is_busy_and_an_unwritable_lock_file_is_a_mistake() {
    let held = exited_with(
        50,
        "ERROR: [050]: unable to acquire lock on file '/run/lock/main-backup.lock': Resource temporarily unavailable\n\
         \x20      HINT: is another pgBackRest process running?",
    );
    assert_eq!((held.class, held.exit), (ErrorClass::Busy, ExitCode::Busy));
    let denied = "ERROR: [050]: unable to acquire lock on file '/run/lock/main-backup.lock': Permission denied";
    let denied = exited_with(50, denied);
    assert_eq!((denied.class, denied.exit), (ErrorClass::Config, ExitCode::Configuration));
    assert!(denied.remedy.unwrap().contains("lock-path"));
}

#[test]
fn a_lost_session_is_tried_again() {
    for code in [56, 57, 101] {
        let failure = exited_with(code, "");
        assert_eq!((failure.class, failure.exit), (ErrorClass::Transient, ExitCode::Connection), "{code}");
    }
}

#[test]
fn a_full_disk_is_told_whatever_the_number() {
    let text = "2026-11-20 14:12:37.067 P00  ERROR: [041]: raised from local-2 protocol: unable to open '/r/x': \
                [28] No space left on device";
    let failure = exited_with(104, text);
    assert_eq!((failure.class, failure.exit), (ErrorClass::Space, ExitCode::NoSpace));
}

#[test]
fn the_cause_behind_104_is_the_error_before_it() {
    let tail = "2026-11-20 16:39:11.299 P00  ERROR: [075]: repo1: full backup 20261120-163712F cannot be expired until \
                another full backup has been created on this repo\n\
                2026-11-20 16:39:11.299 P00  ERROR: [104]: expire command encountered 1 error(s), check the log file";
    insta::assert_snapshot!(
        exited_with(104, tail).message,
        @"`pgbackrest` exited with code 104 (backup-set-invalid): repo1: full backup 20261120-163712F cannot be expired until another full backup has been created on this repo"
    );
}

#[test]
fn a_stop_file_says_how_to_go_on() {
    let failure = exited_with(62, "2026-11-20 16:39:12.383 P00  ERROR: [062]: stop file exists for stanza main");
    assert_eq!(failure.class, ErrorClass::Stopped);
    assert!(failure.remedy.unwrap().contains("`pgbackrest start`"));
    assert_eq!(failure.message, "`pgbackrest` exited with code 62 (stop): stop file exists for stanza main");
}

#[test]
fn endings_without_a_code_are_told_apart() {
    let class = |ending| explain(&ending, []).class;
    assert_eq!(class(Ending::Signalled(9)), ErrorClass::Transient);
    assert_eq!(class(Ending::Signalled(15)), ErrorClass::Stopped);
    assert_eq!(class(Ending::Signalled(11)), ErrorClass::Defect);
    assert_eq!(class(Ending::TimedOut), ErrorClass::Transient);
    assert_eq!(class(Ending::Stopped), ErrorClass::Stopped);
    assert_eq!(class(Ending::Unseen), ErrorClass::Transient);
    assert_eq!(class(Ending::Exited(7)), ErrorClass::Defect);
    assert_eq!(class(Ending::Exited(1)), ErrorClass::Integrity);
}

#[test]
fn of_an_adopted_process_the_log_tells_the_code() {
    let end = "2026-11-20 14:12:37.067 P00   INFO: backup command end: aborted with exception [082]";
    let failure = explain(&Ending::Unseen, [end]);
    assert_eq!(failure.class, ErrorClass::Integrity);
    assert!(failure.message.contains("82 (archive-timeout)"), "{failure:?}");
}

#[test]
fn errors_inside_the_answer_of_info_are_understood_by_name() {
    let down = explain_message("[HostConnectError] unable to connect to 'localhost:18432': [111] Connection refused");
    assert_eq!((down.class, down.exit), (ErrorClass::Transient, ExitCode::Storage));
    let wrong_key = explain_message("[FormatError] unable to load info file '/srv/lab/repoenc/backup/enc/backup.info'");
    assert_eq!(wrong_key.class, ErrorClass::Config);
    let denied = explain_message("[PathOpenError] unable to list file info for path '/r': [13] Permission denied");
    assert_eq!(denied.class, ErrorClass::Config);
    assert_eq!(explain_message("other").class, ErrorClass::Config);
}

proptest! {
    #[test]
    fn every_ending_has_a_message(code in 1..400i32, tail in "(\\PC|\n|\\[|\\])*") {
        let failure = exited_with(code, &tail);
        prop_assert!(failure.message.starts_with("`pgbackrest` exited with code"));
        let _ = explain_message(&tail);
    }
}
