//! How pgBackRest's ways to end become causes, retry classes and remedies.
//!
//! The number gives the first answer (`table.rs`), the message corrects it where one number means two things. A
//! newcomer would take zero for success; `info` and `verify` exit with zero whatever they found.

mod table;

use super::log::Digest;
use crate::{
    error::ExitCode,
    process::Ending,
    record::{ErrorClass, Failure},
};

/// What an exit code of pgBackRest means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// The number, also the one in `ERROR: [nnn]`.
    pub number: u16,
    /// pgBackRest's own name for it.
    pub name: &'static str,
    /// What kind of trouble it is.
    pub class: ErrorClass,
    /// Our exit code for it.
    pub exit: ExitCode,
    /// What it means, lower case.
    pub meaning: &'static str,
    /// What to do; a full sentence.
    pub remedy: &'static str,
}

impl Code {
    /// Every code, in the order of the numbers.
    pub const ALL: &'static [Code] = table::TABLE;

    /// The code with this number.
    pub fn of(number: u16) -> Option<&'static Code> {
        Self::ALL.iter().find(|code| code.number == number)
    }

    /// The code of an error by the name that messages use, e.g. `HostConnectError`.
    pub fn named(error: &str) -> Option<&'static Code> {
        let plain = |name: &str| name.to_ascii_lowercase().replace('-', "");
        let name = plain(error.strip_suffix("Error").unwrap_or(error));
        Self::ALL.iter().find(|code| plain(code.name) == name)
    }
}

/// Says what went wrong, from how the tool ended and the last lines that it wrote.
///
/// Only for endings that are no success: zero gives a defect.
pub fn explain<'a>(ending: &Ending, tail: impl IntoIterator<Item = &'a str>) -> Failure {
    let digest = Digest::of(tail);
    match ending {
        Ending::Exited(code) => exited(*code, &digest),
        Ending::Signalled(signal) => signalled(*signal),
        Ending::TimedOut => Failure {
            class: ErrorClass::Transient,
            exit: ExitCode::Storage,
            message: "`pgbackrest` was ended because its time was over".into(),
            remedy: Some("Raise `timeout` if it usually takes that long; otherwise look at what it waited for.".into()),
        },
        Ending::Stopped => Failure {
            class: ErrorClass::Stopped,
            exit: ExitCode::Interrupted,
            message: "`pgbackrest` was stopped".into(),
            remedy: None,
        },
        Ending::Unseen => unseen(&digest),
    }
}

/// What an error of pgBackRest means that was reported with its name, as `info` does inside its JSON.
pub fn explain_message(message: &str) -> Failure {
    let name = message.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(name, _)| name);
    let code = name.and_then(Code::named);
    let (class, exit, remedy) =
        code.map_or((ErrorClass::Config, ExitCode::Storage, None), |code| refine(code, message));
    Failure { class, exit, message: message.to_owned(), remedy }
}

fn exited(code: i32, digest: &Digest) -> Failure {
    if code == 1 {
        return missing();
    }
    let number = u16::try_from(code).unwrap_or(u16::MAX);
    let Some(known) = Code::of(number) else {
        return Failure {
            class: ErrorClass::Defect,
            exit: ExitCode::Defect,
            message: format!("`pgbackrest` exited with code {code}{}", said(last_error(digest))),
            remedy: Some("Read the run's log; the code is none of pgBackRest's, a wrapper may have made it.".into()),
        };
    };
    // 104 only counts the errors; the first one with a number of its own is the cause.
    let cause = digest.errors.iter().find(|(number, _)| number.is_some_and(|number| number != 104));
    let (told, text) = match cause {
        Some((Some(number), text)) if known.number == 104 => (Code::of(*number).unwrap_or(known), Some(text)),
        _ => (known, last_error(digest)),
    };
    let (class, exit, remedy) = refine(told, text.map_or("", String::as_str));
    let words = text.map_or_else(|| format!(": {}", told.meaning), |text| said(Some(text)));
    Failure { class, exit, message: format!("`pgbackrest` exited with code {code} ({}){words}", told.name), remedy }
}

/// `archive-get` says so when the archive does not have the segment.
fn missing() -> Failure {
    Failure {
        class: ErrorClass::Integrity,
        exit: ExitCode::Storage,
        message: "`pgbackrest` exited with code 1: the repository does not have what was asked for".into(),
        remedy: Some("Look at the archive with `backstop wal`; what is missing there needs a new full backup.".into()),
    }
}

fn last_error(digest: &Digest) -> Option<&String> {
    digest.errors.last().map(|(_, text)| text)
}

fn said(text: Option<&String>) -> String {
    text.map_or_else(String::new, |text| format!(": {text}"))
}

/// One number may mean two things; the message tells which.
fn refine(code: &Code, message: &str) -> (ErrorClass, ExitCode, Option<String>) {
    let says = |words: &str| message.contains(words);
    if says("No space left on device") || says("Disk quota exceeded") {
        let remedy = Code::of(64).map(|code| code.remedy.to_owned());
        return (ErrorClass::Space, ExitCode::NoSpace, remedy);
    }
    if code.number == 50 && (says("Permission denied") || says("Read-only file system") || says("No such file")) {
        let remedy = "The lock is not held: make `lock-path` writable for this user, the same one as PostgreSQL's.";
        return (ErrorClass::Config, ExitCode::Configuration, Some(remedy.to_owned()));
    }
    if says("Permission denied") {
        let remedy = "Run Backstop as the owner of the repository, or correct the owner of what the message names.";
        return (ErrorClass::Config, ExitCode::Storage, Some(remedy.to_owned()));
    }
    if says("has a stanza-create been performed") && code.number == 55 {
        let remedy = "Create the stanza; if it existed, the repository has lost its info files: look there first.";
        return (ErrorClass::Config, ExitCode::Storage, Some(remedy.to_owned()));
    }
    (code.class, code.exit, Some(code.remedy.to_owned()))
}

fn signalled(signal: i32) -> Failure {
    let (class, exit, remedy) = match signal {
        9 => (
            ErrorClass::Transient,
            ExitCode::Interrupted,
            "Somebody killed it, or the kernel did because memory was short: look at the kernel's log.",
        ),
        1 | 2 | 15 => (
            ErrorClass::Stopped,
            ExitCode::Interrupted,
            "Nothing needs to be done if this was on purpose; it is made up for at the next run.",
        ),
        _ => {
            (ErrorClass::Defect, ExitCode::Interrupted, "Update pgBackRest; if it stays, report it to its developers.")
        }
    };
    Failure { class, exit, message: format!("`pgbackrest` was ended by signal {signal}"), remedy: Some(remedy.into()) }
}

/// Nobody saw the exit code: the log's last words must do.
fn unseen(digest: &Digest) -> Failure {
    use super::log::End;
    match &digest.end {
        Some(End::Aborted(number)) => exited(i32::from(*number), digest),
        Some(End::Terminated(signal)) => Failure {
            class: ErrorClass::Stopped,
            exit: ExitCode::Interrupted,
            message: format!("`pgbackrest` was ended by {signal}"),
            remedy: Some("Nothing needs to be done if this was on purpose; it is made up for at the next run.".into()),
        },
        _ => Failure {
            class: ErrorClass::Transient,
            exit: ExitCode::Interrupted,
            message: "`pgbackrest` ended without saying how".into(),
            remedy: Some("Look at the kernel's log: it was killed, or the machine went down.".into()),
        },
    }
}

#[cfg(test)]
mod tests;
