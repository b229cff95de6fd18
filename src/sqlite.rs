//! SQL on a SQLite file, through `sqlite3` alone.
//!
//! The program that the user's system has, not the library that is built into us: its version is the one that reads the
//! user's file. A file is only ever read; one that is missing is not created. In WAL mode reading may leave the empty
//! files `-wal` and `-shm` behind, as every reader of such a file does.
//!
//! A newcomer would split the output at `|`; a value may hold anything, so the answer is JSON.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

use crate::{
    engine::sqlite,
    error::{ExitCode, chain},
    process::{self, Ending, Stop},
    record::{ErrorClass, Failure},
};

/// How long a question may take beyond waiting for a lock, unless the caller says otherwise.
const STATEMENT: Duration = Duration::from_secs(60);

/// One record: its values, empty for null.
pub type Record = Vec<String>;

/// A way to ask one file.
#[derive(Debug, Clone)]
pub struct Client {
    program: PathBuf,
    uri: String,
    busy_timeout: Duration,
    statement_timeout: Option<Duration>,
    stop: Stop,
}

/// Why a question got no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// `sqlite3` could not be run.
    #[error("`sqlite3` could not be run")]
    Start(#[from] process::Error),
    /// It ended badly.
    #[error("the file cannot be read: {}", .0.message)]
    Refused(Box<Failure>),
    /// The answer is not what was asked for.
    #[error("the answer of `sqlite3` makes no sense: {0}")]
    Answer(String),
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        let message = chain(&error);
        match error {
            QueryError::Start(source) => source.into(),
            QueryError::Refused(failure) => *failure,
            QueryError::Answer(_) => Failure {
                class: ErrorClass::Defect,
                exit: ExitCode::Defect,
                message,
                remedy: Some("Report this defect with the version of `sqlite3`.".to_owned()),
            },
        }
    }
}

impl Client {
    /// The client of a file that others use.
    pub fn of(program: &Path, file: &Path, busy_timeout: Duration) -> Self {
        Self::new(program, sqlite::read_only(file), busy_timeout)
    }

    /// The client of a copy that is only ours.
    pub fn of_copy(program: &Path, file: &Path) -> Self {
        Self::new(program, sqlite::immutable(file), Duration::ZERO)
    }

    fn new(program: &Path, uri: String, busy_timeout: Duration) -> Self {
        let program = program.to_owned();
        Self { program, uri, busy_timeout, statement_timeout: Some(STATEMENT), stop: Stop::never() }
    }

    /// The same client, whose questions take at most this long; none is for ever.
    #[must_use]
    pub fn statement_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.statement_timeout = timeout;
        self
    }

    /// The same client, whose questions end when somebody wants to stop.
    #[must_use]
    pub fn stop(mut self, stop: &Stop) -> Self {
        self.stop = stop.clone();
        self
    }

    /// Asks one statement.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn query(&self, sql: &str) -> Result<Vec<Record>, QueryError> {
        let limit = self.statement_timeout.map(|timeout| timeout + self.busy_timeout);
        let command = sqlite::query(&self.program, &self.uri, self.busy_timeout, sql).timeout(limit);
        let answer = process::capture(&command, &self.stop).await?;
        if answer.ending != Ending::Exited(0) {
            let tail: Vec<String> = answer.stderr.lines().map(str::to_owned).collect();
            return Err(QueryError::Refused(Box::new(sqlite::explain(&answer.ending, &tail))));
        }
        if answer.is_cut {
            return Err(QueryError::Answer("it is too long".to_owned()));
        }
        records(&answer.stdout)
    }
}

/// Reads what `.mode json` wrote; nothing where there is no record.
fn records(stdout: &[u8]) -> Result<Vec<Record>, QueryError> {
    let text = String::from_utf8_lossy(stdout);
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<Row> = serde_json::from_str(&text).map_err(|error| QueryError::Answer(error.to_string()))?;
    Ok(rows.into_iter().map(|row| row.0).collect())
}

/// The values of an object in the order in which they stand; their names may repeat.
struct Row(Record);

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Values;
        impl<'de> Visitor<'de> for Values {
            type Value = Row;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a record")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
                let mut record = Record::new();
                while let Some((_, value)) = map.next_entry::<String, serde_json::Value>()? {
                    record.push(match value {
                        serde_json::Value::Null => String::new(),
                        serde_json::Value::String(text) => text,
                        other => other.to_string(),
                    });
                }
                Ok(Row(record))
            }
        }
        deserializer.deserialize_map(Values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_hold_everything() {
        // As sqlite3 3.40.1 wrote it.
        let text = b"[{\"x\":\"a\\n\\\"\",\"null\":null,\"2\":2,\"1.5\":1.5,\"x\":\"|\"},\n{\"x\":\"\",\"null\":null,\"2\":-1,\"1.5\":0,\"x\":1}]\n";
        assert_eq!(records(text).unwrap(), [["a\n\"", "", "2", "1.5", "|"], ["", "", "-1", "0", "1"]]);
        assert_eq!(records(b"").unwrap(), Vec::<Record>::new());
        assert!(matches!(records(b"[{"), Err(QueryError::Answer(_))));
    }

    #[tokio::test]
    async fn a_file_is_asked_and_never_made() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("none.db");
        let client = Client::of(Path::new("sqlite3"), &file, Duration::from_millis(100));
        let failure = Failure::from(client.query("select 1").await.unwrap_err());
        assert_eq!((failure.class, failure.exit), (ErrorClass::Config, ExitCode::Storage));
        assert!(!file.exists());
    }
}
