//! Why a question got no answer, and what that means for a run.
//!
//! The client always ends with 1; the error's number tells what happened, and `at line` tells a statement that failed
//! from a connection that did not come about. A newcomer would look for words in the message, which servers translate.

use crate::{
    engine::mysqldump::{number, short, trouble},
    error::{ExitCode, chain},
    process::{self, Captured, Ending},
    record::{ErrorClass, Failure},
};

/// Why a question got no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The client could not be run.
    #[error("the client of MySQL and MariaDB could not be run")]
    Start(#[from] process::Error),
    /// The option file with the password could not be written.
    #[error("the option file for the login cannot be written")]
    Login(#[source] std::io::Error),
    /// There is no connection, or it was lost.
    #[error("the database cannot be reached: {message}")]
    Connection {
        /// The error's number, where there is one.
        number: Option<u16>,
        /// The client's words.
        message: String,
    },
    /// The statement failed.
    #[error("the statement failed: {message}")]
    Sql {
        /// The server's number of the error.
        number: u16,
        /// The line of the statement.
        line: usize,
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
    /// Whether the user may not do it.
    pub fn is_permission(&self) -> bool {
        matches!(self, QueryError::Sql { number: 1044 | 1142 | 1143 | 1227 | 1370, .. })
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
            QueryError::Login(ref source) if source.kind() == std::io::ErrorKind::StorageFull => {
                failure(ErrorClass::Space, ExitCode::NoSpace, "Free space in `/run` or `/tmp`.")
            }
            QueryError::Login(_) => {
                failure(ErrorClass::Config, ExitCode::Configuration, "Let this user write to `/tmp`, or set `TMPDIR`.")
            }
            QueryError::Connection { number: Some(number), .. } | QueryError::Sql { number, .. } => {
                let trouble = trouble(number);
                failure(trouble.class, trouble.exit, trouble.remedy)
            }
            QueryError::Connection { number: None, .. } => failure(
                ErrorClass::Config,
                ExitCode::Configuration,
                "Correct the option files that the client reads, first `mysql.defaults_file`.",
            ),
            QueryError::TimedOut => failure(
                ErrorClass::Transient,
                ExitCode::Connection,
                "Look at the load of the server and at the network between it and this host.",
            ),
            QueryError::Stopped => failure(ErrorClass::Stopped, ExitCode::Interrupted, ""),
            QueryError::Answer(_) => {
                failure(ErrorClass::Defect, ExitCode::Defect, "Report this defect with the version of the server.")
            }
        }
    }
}

/// Whether the client answered.
pub(super) fn check(answer: &Captured) -> Result<(), QueryError> {
    match answer.ending {
        Ending::Exited(0) if answer.is_cut => Err(QueryError::Answer("it is too long".to_owned())),
        Ending::Exited(0) => Ok(()),
        Ending::TimedOut => Err(QueryError::TimedOut),
        Ending::Stopped => Err(QueryError::Stopped),
        Ending::Exited(_) => Err(refusal(&answer.stderr)),
        Ending::Signalled(_) | Ending::Unseen => {
            Err(QueryError::Connection { number: Some(2013), message: format!("the client: {}", answer.ending.word()) })
        }
    }
}

/// Reads `ERROR 1045 (28000): Access denied …` and `ERROR 1064 (42000) at line 1: You have …`.
fn refusal(stderr: &str) -> QueryError {
    let Some(said) = stderr.lines().rev().find_map(|line| line.strip_prefix("ERROR ")) else {
        return QueryError::Connection { number: None, message: short(&stderr.replace('\n', "; ")) };
    };
    let number = number(&format!("ERROR {said}"));
    let (head, message) = said.split_once(": ").unwrap_or(("", said));
    let line = head.split_once(" at line ").and_then(|(_, line)| line.parse().ok());
    match (number, line) {
        (Some(number), Some(line)) if !(2000..3000).contains(&number) => {
            QueryError::Sql { number, line, message: short(message) }
        }
        _ => QueryError::Connection { number, message: short(message) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(stderr: &str) -> QueryError {
        let ending = Ending::Exited(1);
        let answer =
            Captured { ending, stdout: vec![], stderr: stderr.into(), duration: Default::default(), is_cut: false };
        check(&answer).unwrap_err()
    }

    // All texts were written by the client of MariaDB 10.11.
    #[test]
    fn what_may_pass_is_told_from_what_stays() {
        for (text, class) in [
            ("ERROR 2002 (HY000): Can't connect to local server through socket '/nope' (2)", ErrorClass::Transient),
            ("ERROR 2002 (HY000): Can't connect to server on '127.0.0.1' (115)", ErrorClass::Transient),
            ("ERROR 2005 (HY000): Unknown server host 'no.such.host.invalid' (-2)", ErrorClass::Transient),
            ("ERROR 1045 (28000): Access denied for user 'x'@'localhost' (using password: YES)", ErrorClass::Config),
            ("ERROR 1927 (70100) at line 1: Connection was killed", ErrorClass::Transient),
            (
                "ERROR 1205 (HY000) at line 1: Lock wait timeout exceeded; try restarting transaction",
                ErrorClass::Transient,
            ),
            (
                "ERROR 1969 (70100) at line 1: Query execution was interrupted (max_statement_time exceeded)",
                ErrorClass::Transient,
            ),
        ] {
            let failure = Failure::from(error(text));
            assert_eq!(failure.class, class, "{text}");
        }
        let missing = Failure::from(error("ERROR 1049 (42000): Unknown database 'nodb'"));
        assert_eq!((missing.class, missing.exit), (ErrorClass::Config, ExitCode::Configuration));
    }

    #[test]
    fn a_connection_that_failed_tells_the_clients_words() {
        let failure =
            Failure::from(error("ERROR 2002 (HY000): Can't connect to local server through socket '/nope' (2)"));
        insta::assert_snapshot!(failure.message, @"the database cannot be reached: Can't connect to local server through socket '/nope' (2)");
        assert_eq!(failure.exit, ExitCode::Connection);
    }

    #[test]
    fn a_statement_that_failed_is_not_repeated() {
        let text = "--------------\nselec 1\n--------------\n\nERROR 1064 (42000) at line 7: You have an error";
        let error = error(text);
        assert_eq!(error.to_string(), "the statement failed: You have an error");
        assert!(matches!(error, QueryError::Sql { number: 1064, line: 7, .. }));
    }

    #[test]
    fn a_missing_privilege_is_known_as_one() {
        assert!(error("ERROR 1142 (42000) at line 1: SELECT command denied to user 'x'@'localhost'").is_permission());
        assert!(!error("ERROR 1045 (28000): Access denied for user 'x'@'localhost'").is_permission());
    }

    #[test]
    fn a_bad_option_file_is_a_matter_of_configuration() {
        for text in [
            "mariadb: unknown variable 'nonsense=1'",
            "Could not open required defaults file: /tmp/none.cnf\nFatal error in defaults handling. Program aborted",
        ] {
            assert_eq!(Failure::from(error(text)).exit, ExitCode::Configuration, "{text}");
        }
    }
}
