//! How the ways in which pg_dump, pg_dumpall and pg_restore end become causes, retry classes and remedies.
//!
//! All three exit with 1 whatever happened, so the words must tell; the first row of the table that fits is it. The words
//! of the server come in its own language, those of the tool in ours. A newcomer would take an exit with zero for a
//! success; pg_dumpall exits with zero when it could not write, so the end of its output is looked at too.

mod table;

use self::table::TABLE;
use crate::{
    error::ExitCode,
    process::Ending,
    record::{ErrorClass, Failure},
};

/// The most that is told of what a tool said.
const LONGEST: usize = 600;

/// What words of a tool mean.
#[derive(Debug, Clone, Copy)]
struct Meaning {
    /// All of these stand in what it said.
    words: &'static [&'static str],
    class: ErrorClass,
    exit: ExitCode,
    /// What to do; a full sentence.
    remedy: &'static str,
}

/// Says what went wrong, from how the tool ended and the last lines that it wrote to standard error.
///
/// Only for endings that are no success: zero gives a defect.
pub fn explain(tool: &str, ending: &Ending, tail: &[String]) -> Failure {
    let failure = |class, exit, message: String, remedy: &str| Failure {
        class,
        exit,
        message,
        remedy: Some(remedy.to_owned()).filter(|text| !text.is_empty()),
    };
    match ending {
        Ending::Exited(code) => exited(tool, *code, tail),
        Ending::Signalled(signal) => {
            let (class, exit, remedy) = signalled(*signal);
            failure(class, exit, format!("`{tool}` was ended by signal {signal}"), remedy)
        }
        Ending::TimedOut => failure(
            ErrorClass::Transient,
            ExitCode::Connection,
            format!("`{tool}` was ended because its time was over"),
            "Raise `timeout` if it usually takes that long; otherwise look at what it waited for.",
        ),
        Ending::Stopped => failure(ErrorClass::Stopped, ExitCode::Interrupted, format!("`{tool}` was stopped"), ""),
        Ending::Unseen => failure(
            ErrorClass::Transient,
            ExitCode::Interrupted,
            format!("`{tool}` ended without saying how"),
            "Look at the kernel's log: it was killed, or the machine went down.",
        ),
    }
}

fn exited(tool: &str, code: i32, tail: &[String]) -> Failure {
    let said = words(tail);
    let fits = |meaning: &&Meaning| meaning.words.iter().all(|words| said.contains(words));
    let (class, exit, remedy) = TABLE.iter().find(fits).map_or(
        (ErrorClass::Defect, ExitCode::Defect, "Read the run's log; the message is none that Backstop knows."),
        |meaning| (meaning.class, meaning.exit, meaning.remedy),
    );
    let message = match said.as_str() {
        "" => format!("`{tool}` exited with code {code}"),
        said => format!("`{tool}` exited with code {code}: {said}"),
    };
    Failure { class, exit, message, remedy: Some(remedy.to_owned()) }
}

fn signalled(signal: i32) -> (ErrorClass, ExitCode, &'static str) {
    match signal {
        9 => (
            ErrorClass::Transient,
            ExitCode::Interrupted,
            "Somebody killed it, or the kernel did because memory was short: look at the kernel's log.",
        ),
        13 => (
            ErrorClass::Transient,
            ExitCode::Storage,
            "Nobody read its output any more: look at what the storages said in this run.",
        ),
        1 | 2 | 15 => (
            ErrorClass::Stopped,
            ExitCode::Interrupted,
            "Nothing needs to be done if this was on purpose; it is made up for at the next run.",
        ),
        _ => {
            (ErrorClass::Defect, ExitCode::Interrupted, "Update PostgreSQL's client programs; if it stays, report it.")
        }
    }
}

/// What the tool said from its first error on, in one line, without its own name.
fn words(tail: &[String]) -> String {
    let first = tail.iter().position(|line| line.contains(": error: ")).unwrap_or(0);
    let plain = |line: &str| {
        let marks = [": error: ", ": detail: ", ": hint: "];
        let after = marks.iter().find_map(|mark| line.split_once(mark)).filter(|(tool, _)| !tool.contains(' '));
        after.map_or(line, |(_, text)| text).trim().to_owned()
    };
    let lines = tail[first..].iter().map(|line| plain(line)).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("; ").chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests;
