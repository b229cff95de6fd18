//! What an ending of `sqlite3` means.
//!
//! It ends with SQLite's own result code where a statement failed, and with 1 where a command of its own did, so the
//! code stands in the message (`database is locked (5)`) or only its text does. A newcomer would read the exit code alone.

use crate::{
    error::ExitCode::{self, Busy, Configuration, NoSpace, Storage, VerificationFailed},
    process::Ending,
    record::{
        ErrorClass::{self, Config, Integrity, Space, Transient},
        Failure,
    },
};

/// How many characters of a message are told.
const TOLD: usize = 400;

/// A message, and what it means.
struct Known {
    says: &'static str,
    class: ErrorClass,
    exit: ExitCode,
    remedy: &'static str,
}

#[rustfmt::skip]
const KNOWN: &[Known] = &[
    known("database is locked", Transient, Busy, "Another process holds the file: raise `sqlite.busy_timeout`, or look at what it does."),
    known("database table is locked", Transient, Busy, "Another process holds the file: raise `sqlite.busy_timeout`, or look at what it does."),
    known("disk is full", Space, NoSpace, "Free space on the file system of the scratch directory."),
    known("malformed", Integrity, VerificationFailed, "The file is damaged: keep it, restore the last good backup beside it, and look at the disk and the kernel's log."),
    known("not a database", Config, Configuration, "Correct `sqlite.path`: the file is no SQLite database, or it is encrypted."),
    known("attempt to write a readonly database", Config, Storage, "In WAL mode, reading needs the files `-wal` and `-shm`: let this user read them, and write to their directory, or run Backstop as the file's owner. If there is a file `-journal`, the application was killed: start it once, so that it tidies up."),
    known("unable to open database file", Config, Storage, "Let this user read the file and those beside it (`-wal`, `-shm`, `-journal`), and write to its directory where it is in WAL mode; or run Backstop as the file's owner."),
    known("unable to open database", Config, Storage, "Let this user read the file, and enter the directories above it."),
    known("disk I/O error", Transient, Storage, "Look at the disk and the kernel's log."),
];

const fn known(says: &'static str, class: ErrorClass, exit: ExitCode, remedy: &'static str) -> Known {
    Known { says, class, exit, remedy }
}

/// Says why it failed, from how it ended and the last lines it wrote. Only for endings that are no success.
pub fn explain(ending: &Ending, tail: &[String]) -> Failure {
    let said = tail.iter().rev().map(|line| line.trim()).find(|line| !line.is_empty()).unwrap_or_default();
    let said: String = said.strip_prefix("Error: ").unwrap_or(said).chars().take(TOLD).collect();
    let failure = |class, exit, message: String, remedy: &str| Failure {
        class,
        exit,
        message,
        remedy: Some(remedy.to_owned()).filter(|text| !text.is_empty()),
    };
    match ending {
        Ending::Exited(code) => {
            let colon = if said.is_empty() { "" } else { ": " };
            let message = format!("`sqlite3` exited with code {code}{colon}{said}");
            match KNOWN.iter().find(|known| said.contains(known.says)) {
                Some(known) => failure(known.class, known.exit, message, known.remedy),
                None => failure(Config, Storage, message, "Read the run's log."),
            }
        }
        Ending::Stopped => failure(ErrorClass::Stopped, ExitCode::Interrupted, "`sqlite3` was stopped".to_owned(), ""),
        Ending::TimedOut => failure(
            Transient,
            Storage,
            "`sqlite3` was ended because its time was over".to_owned(),
            "Raise `timeout` if it usually takes that long; otherwise look at the disks.",
        ),
        Ending::Signalled(_) | Ending::Unseen => failure(
            Transient,
            ExitCode::Interrupted,
            format!("`sqlite3` was ended: {}", ending.word()),
            "Somebody killed it, or the kernel did because memory was short: look at the kernel's log.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // All texts were written by sqlite3 3.40.1.
    #[test]
    fn every_recorded_ending_has_its_class() {
        for (code, text, class, exit) in [
            (5, "Error: in prepare, database is locked (5)", Transient, Busy),
            (8, "Error: in prepare, attempt to write a readonly database (8)", Config, Storage),
            (11, "Error: in prepare, database disk image is malformed (11)", Integrity, VerificationFailed),
            (14, "Error: in prepare, unable to open database file (14)", Config, Storage),
            (26, "Error: in prepare, file is not a database (26)", Config, Configuration),
            (1, "Error: unable to open database \"file:/x?mode=ro\": unable to open database file", Config, Storage),
            (1, "Error: database or disk is full", Space, NoSpace),
        ] {
            let failure = explain(&Ending::Exited(code), &[text.to_owned()]);
            assert_eq!((failure.class, failure.exit), (class, exit), "{text}");
            assert!(
                failure.message.starts_with(&format!("`sqlite3` exited with code {code}: ")),
                "{}",
                failure.message
            );
        }
    }

    #[test]
    fn an_end_that_was_not_its_own_is_told_as_that() {
        assert_eq!(explain(&Ending::Signalled(9), &[]).message, "`sqlite3` was ended: signal 9");
        assert_eq!(explain(&Ending::Stopped, &[]).class, ErrorClass::Stopped);
        assert_eq!(explain(&Ending::TimedOut, &[]).class, Transient);
    }
}
