//! Why a question got no answer, and what that means for a run.
//!
//! `psql` ends with 2 when there is no connection or it was lost, with 1 when the statement failed. A newcomer would
//! look for words in the message; the SQLSTATE, which `VERBOSITY=verbose` shows, does not change with the language.

use crate::{
    error::{ExitCode, chain},
    process::{self, Captured, Ending},
    record::{ErrorClass, Failure},
};

/// Why a question got no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// `psql` could not be run.
    #[error("`psql` could not be run")]
    Start(#[from] process::Error),
    /// There is no connection, or it was lost.
    #[error("the database cannot be reached: {0}")]
    Connection(String),
    /// The statement failed.
    #[error("the statement failed: {message}")]
    Sql {
        /// The SQLSTATE, where the server said one.
        state: Option<String>,
        /// The server's words.
        message: String,
    },
    /// It took too long.
    #[error("the database did not answer in time")]
    TimedOut,
    /// Somebody wanted to stop.
    #[error("the question was stopped")]
    Stopped,
    /// The answer is not what was asked for.
    #[error("the answer of the database makes no sense: {0}")]
    Answer(String),
}

impl QueryError {
    /// Whether the role may not do it.
    pub fn is_permission(&self) -> bool {
        matches!(self, QueryError::Sql { state: Some(state), .. } if state == "42501")
    }
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        let failure = |class, exit, remedy: &str| Failure {
            class,
            exit,
            message: chain(&error),
            remedy: Some(remedy.to_owned()).filter(|text| !text.is_empty()),
        };
        match error {
            QueryError::Start(source) => source.into(),
            QueryError::Connection(ref text) => {
                let (class, remedy) = connection_trouble(text);
                failure(class, ExitCode::Connection, remedy)
            }
            QueryError::Sql { ref state, .. } => {
                let (class, remedy) = sql_trouble(state.as_deref().unwrap_or_default());
                failure(class, ExitCode::Connection, remedy)
            }
            QueryError::TimedOut => failure(
                ErrorClass::Transient,
                ExitCode::Connection,
                "Look at the load of the server and at the network between it and this host.",
            ),
            QueryError::Stopped => failure(ErrorClass::Stopped, ExitCode::Interrupted, ""),
            QueryError::Answer(_) => {
                failure(ErrorClass::Defect, ExitCode::Defect, "Report this defect with the version of PostgreSQL.")
            }
        }
    }
}

/// A refusal stays one until somebody changes something; everything else may pass.
fn connection_trouble(text: &str) -> (ErrorClass, &'static str) {
    let says = |words: &str| text.contains(words);
    if says("password authentication failed") || says("no password supplied") {
        return (ErrorClass::Config, "Correct the password: `password` in the policy, or `~/.pgpass` of this user.");
    }
    if says("no pg_hba.conf entry") || says("authentication failed") || says("role \"") && says("does not exist") {
        return (
            ErrorClass::Config,
            "Let this role in: check `pg_hba.conf`, `pg_ident.conf`, and that the role exists.",
        );
    }
    if says("database \"") && says("does not exist") {
        return (ErrorClass::Config, "Correct the database in `connection`.");
    }
    if says("definition of service") || says("invalid connection option") || says("missing \"=\"") {
        return (
            ErrorClass::Config,
            "Correct `connection`; a service is looked up in `~/.pg_service.conf` of this user.",
        );
    }
    (ErrorClass::Transient, "Check that PostgreSQL is running and that `connection` names its host and port.")
}

fn sql_trouble(state: &str) -> (ErrorClass, &'static str) {
    match state {
        "42501" => (ErrorClass::Config, "Grant the role of `connection` what the message names, e.g. `pg_monitor`."),
        "57014" => (ErrorClass::Transient, "Look at the load of the server and at what holds locks."),
        state if state.starts_with("53") || state.starts_with("57") => {
            (ErrorClass::Transient, "Look at PostgreSQL's log.")
        }
        _ => (ErrorClass::Config, "Look at the statement and at PostgreSQL's log."),
    }
}

/// Whether `psql` answered.
pub(super) fn check(answer: &Captured) -> Result<(), QueryError> {
    match answer.ending {
        Ending::Exited(0) if answer.is_cut => Err(QueryError::Answer("it is too long".to_owned())),
        Ending::Exited(0) => Ok(()),
        Ending::Exited(2) => Err(QueryError::Connection(words(&answer.stderr))),
        Ending::TimedOut => Err(QueryError::TimedOut),
        Ending::Stopped => Err(QueryError::Stopped),
        Ending::Exited(_) => Err(sql(&answer.stderr)),
        Ending::Signalled(_) | Ending::Unseen => {
            Err(QueryError::Connection(format!("`psql` {}", answer.ending.word())))
        }
    }
}

/// Reads `ERROR:  42703: column "nope" does not exist`.
fn sql(stderr: &str) -> QueryError {
    let said = stderr.lines().find_map(|line| line.split_once("ERROR:  ").map(|(_, said)| said));
    let is_state = |text: &&str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_alphanumeric());
    let split = said.and_then(|said| said.split_once(": ")).filter(|(state, _)| is_state(state));
    match split {
        Some((state, message)) => QueryError::Sql { state: Some(state.to_owned()), message: message.to_owned() },
        None => QueryError::Sql { state: None, message: said.map_or_else(|| words(stderr), str::to_owned) },
    }
}

/// What `psql` said, in one line, without its own name and the server's source lines.
fn words(stderr: &str) -> String {
    let lines = stderr.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("LOCATION:"));
    let text = lines.map(|line| line.strip_prefix("psql: error: ").unwrap_or(line)).collect::<Vec<_>>().join("; ");
    text.chars().take(600).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(ending: Ending, stderr: &str) -> Captured {
        Captured { ending, stdout: vec![], stderr: stderr.into(), duration: Default::default(), is_cut: false }
    }

    fn failure(code: i32, stderr: &str) -> Failure {
        check(&answer(Ending::Exited(code), stderr)).unwrap_err().into()
    }

    // All texts were written by psql 15.
    #[test]
    fn an_unreachable_server_is_a_connection_failure_that_may_pass() {
        let text = "psql: error: connection to server on socket \"/tmp/.s.PGSQL.1\" failed: No such file or directory\n\
                    \tIs the server running locally and accepting connections on that socket?\n";
        let failure = failure(2, text);
        assert_eq!((failure.class, failure.exit), (ErrorClass::Transient, ExitCode::Connection));
        insta::assert_snapshot!(failure.message, @r#"the database cannot be reached: connection to server on socket "/tmp/.s.PGSQL.1" failed: No such file or directory; Is the server running locally and accepting connections on that socket?"#);
    }

    #[test]
    fn a_refusal_does_not_pass_by_itself() {
        for text in [
            "psql: error: connection to server at \"db\" (10.0.0.1), port 5432 failed: FATAL:  password authentication failed for user \"x\"",
            "psql: error: connection to server on socket \"/s\" failed: FATAL:  database \"nodb\" does not exist",
            "psql: error: connection to server on socket \"/s\" failed: FATAL:  role \"x\" does not exist",
            "psql: error: definition of service \"orders\" not found",
        ] {
            let failure = failure(2, text);
            assert_eq!((failure.class, failure.exit), (ErrorClass::Config, ExitCode::Connection), "{text}");
        }
    }

    #[test]
    fn a_failed_statement_tells_its_sqlstate() {
        let error = check(&answer(
            Ending::Exited(1),
            "ERROR:  42501: permission denied for function pg_switch_wal\nLOCATION:  aclcheck_error, aclchk.c:3443\n",
        ))
        .unwrap_err();
        assert!(error.is_permission());
        assert_eq!(error.to_string(), "the statement failed: permission denied for function pg_switch_wal");
        let cancelled = failure(1, "ERROR:  57014: canceling statement due to statement timeout\nLOCATION:  x\n");
        assert_eq!(cancelled.class, ErrorClass::Transient);
    }

    #[test]
    fn a_lost_session_is_a_lost_connection() {
        let text = "FATAL:  57P01: terminating connection due to administrator command\nLOCATION:  x\n\
                    server closed the connection unexpectedly\nconnection to server was lost\n";
        assert_eq!(failure(2, text).class, ErrorClass::Transient);
    }

    #[test]
    fn time_and_stop_are_told_apart() {
        let class = |ending| Failure::from(check(&answer(ending, "")).unwrap_err()).class;
        assert_eq!(class(Ending::TimedOut), ErrorClass::Transient);
        assert_eq!(class(Ending::Stopped), ErrorClass::Stopped);
        assert!(check(&answer(Ending::Exited(0), "")).is_ok());
    }
}
