//! How an error reaches a person: the chain of causes, then the hint; and the exit codes that are promised.
//!
//! Modules have error types of their own. They meet here as [`Error`]: a step that failed, its cause, the exit code and
//! the remedy. A newcomer would print a cause inside `Display`; the printer walks the chain, so it would appear twice.

use std::{error::Error as StdError, fmt};

use serde::{Deserialize, Serialize};

/// The exit codes of the command line; `README.md` has the same table and a test holds them equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum ExitCode {
    /// Done.
    Done = 0,
    /// The policy or the request is wrong.
    Configuration = 1,
    /// Not enough disk space.
    NoSpace = 2,
    /// The database cannot be reached.
    Connection = 3,
    /// A tool is missing or unfit.
    ToolNotFound = 4,
    /// A check found something wrong.
    VerificationFailed = 5,
    /// Somebody else works on it.
    Busy = 6,
    /// A restore failed.
    RestoreFailed = 7,
    /// Storage, repository or catalog trouble.
    Storage = 8,
    /// It was stopped.
    Interrupted = 9,
    /// `status --check`: something is alarming.
    Alarming = 10,
    /// `status --check`: the state is unknown.
    Unknown = 11,
    /// The command line makes no sense.
    Usage = 64,
    /// A defect of ours.
    Defect = 70,
}

impl ExitCode {
    /// Every exit code with its meaning, as the README tells it.
    pub const TABLE: &'static [(ExitCode, &'static str)] = &[
        (ExitCode::Done, "done"),
        (ExitCode::Configuration, "configuration or validation"),
        (ExitCode::NoSpace, "not enough disk space"),
        (ExitCode::Connection, "database connection"),
        (ExitCode::ToolNotFound, "tool not found"),
        (ExitCode::VerificationFailed, "verification failed"),
        (ExitCode::Busy, "busy (locked)"),
        (ExitCode::RestoreFailed, "restore failed"),
        (ExitCode::Storage, "storage, repository or catalog"),
        (ExitCode::Interrupted, "interrupted"),
        (ExitCode::Alarming, "`status --check`: something is alarming"),
        (ExitCode::Unknown, "`status --check`: the state is unknown"),
        (ExitCode::Usage, "bad command line"),
        (ExitCode::Defect, "a defect of Backstop"),
    ];
}

impl From<ExitCode> for u8 {
    fn from(code: ExitCode) -> u8 {
        code as u8
    }
}

impl TryFrom<u8> for ExitCode {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        let known = ExitCode::TABLE.iter().find(|(code, _)| *code as u8 == number);
        known.map(|(code, _)| *code).ok_or_else(|| format!("{number} is no exit code of ours"))
    }
}

/// A step that failed, as the command line and the log show it.
#[derive(Debug)]
pub struct Error {
    exit: ExitCode,
    step: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
    hint: Option<String>,
}

impl Error {
    /// A step that failed; `step` is lower case without a full stop, e.g. "backup of `orders` failed".
    pub fn new(exit: ExitCode, step: impl Into<String>) -> Self {
        Self { exit, step: step.into(), source: None, hint: None }
    }

    /// Adds what caused it.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds what a person should do next; a full sentence.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The exit code.
    pub fn exit(&self) -> ExitCode {
        self.exit
    }

    /// What to do next.
    pub fn remedy(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The step and its causes in one line, for logs and the catalog.
    pub fn chain(&self) -> String {
        chain(self)
    }

    /// The block that a person sees on a terminal.
    pub fn report(&self) -> String {
        let mut text = format!("error: {}", self.step);
        for cause in causes(self) {
            text.push_str(&format!("\n  caused by: {cause}"));
        }
        if let Some(hint) = &self.hint {
            text.push_str(&format!("\nhint: {hint}"));
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.step)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<crate::record::Failure> for Error {
    fn from(failure: crate::record::Failure) -> Self {
        Self { exit: failure.exit, step: failure.message, source: None, hint: failure.remedy }
    }
}

/// An error and its causes in one line, joined by `: `.
pub fn chain(error: &dyn StdError) -> String {
    let mut parts = vec![error.to_string()];
    parts.extend(causes(error));
    parts.join(": ")
}

/// What caused an error, outermost first. Some libraries repeat a cause in what they say themselves; it is told once.
fn causes(error: &dyn StdError) -> Vec<String> {
    let mut causes = Vec::new();
    let (mut said, mut source) = (error.to_string(), error.source());
    while let Some(cause) = source {
        let text = cause.to_string();
        if !said.ends_with(&text) {
            causes.push(text.clone());
        }
        said = text;
        source = cause.source();
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_walks_the_chain_and_ends_with_the_hint() {
        let io = std::io::Error::other("connection refused");
        let error = Error::new(ExitCode::Connection, "backup of `orders` failed").because(io).hint("Start PostgreSQL.");
        assert_eq!(
            error.report(),
            "error: backup of `orders` failed\n  caused by: connection refused\nhint: Start PostgreSQL."
        );
        assert_eq!(error.chain(), "backup of `orders` failed: connection refused");
    }

    #[test]
    fn a_cause_that_was_already_said_is_not_said_again() {
        #[derive(Debug, thiserror::Error)]
        #[error("the library failed: {0}")]
        struct Repeats(#[source] std::io::Error);
        let error = Error::new(ExitCode::Storage, "reading failed").because(Repeats(std::io::Error::other("bad page")));
        assert_eq!(error.chain(), "reading failed: the library failed: bad page");
        assert_eq!(error.report(), "error: reading failed\n  caused by: the library failed: bad page");
    }

    #[test]
    fn every_exit_code_survives_the_catalog() {
        for (code, _) in ExitCode::TABLE {
            assert_eq!(ExitCode::try_from(u8::from(*code)), Ok(*code));
        }
    }
}
