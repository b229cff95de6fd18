//! What a verb answers, for people and for machines.

use std::io::Write;

use serde_json::{Value, json};

use crate::error::{Error, ExitCode};

/// What a verb answers.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The exit code; an answer may be bad news without being an error, e.g. `status --check`.
    pub(crate) exit: ExitCode,
    /// The verb.
    pub(crate) operation: &'static str,
    /// The database it was about, where it was about one.
    pub(crate) database: Option<String>,
    /// That database's environment.
    pub(crate) environment: Option<String>,
    /// The facts, for machines.
    pub(crate) result: Value,
    /// One line, for both.
    pub(crate) message: String,
    /// The whole, for people.
    pub(crate) text: String,
}

impl Answer {
    /// A good answer about no database in particular.
    pub(crate) fn new(
        operation: &'static str,
        result: Value,
        message: impl Into<String>,
        text: impl Into<String>,
    ) -> Self {
        Self {
            exit: ExitCode::Done,
            operation,
            database: None,
            environment: None,
            result,
            message: message.into(),
            text: text.into(),
        }
    }

    /// Says which database it is about.
    pub(crate) fn about(mut self, database: &crate::policy::Database) -> Self {
        self.database = Some(database.name.to_string());
        self.environment = Some(database.environment.clone());
        self
    }

    /// Nothing to say, as after the daemon.
    pub(crate) fn silent() -> Self {
        Self::new("", Value::Null, "", "")
    }

    pub(super) fn print(self, json: bool) -> ExitCode {
        match (json, self.operation) {
            (_, "") => {}
            // Documents are themselves; wrapping a schema would make it useless.
            (true, "schema") | (false, _) => say(&self.text),
            (true, _) => say(&format!("{:#}", self.document())),
        }
        self.exit
    }

    fn document(&self) -> Value {
        let mut document = self.facts();
        if let (false, Some(document)) = (self.is_success(), document.as_object_mut()) {
            document.insert("error".to_owned(), json!(self.message));
            document.insert("exit_code".to_owned(), json!(u8::from(self.exit)));
            document.insert("recovery".to_owned(), json!({ "suggestions": [] }));
        }
        document
    }

    /// `status --check` answered well when it says that something is alarming.
    fn is_success(&self) -> bool {
        matches!(self.exit, ExitCode::Done | ExitCode::Alarming | ExitCode::Unknown)
    }

    fn facts(&self) -> Value {
        json!({
            "status": if self.is_success() { "success" } else { "error" },
            "operation": self.operation,
            "database": self.database,
            "environment": self.environment,
            "result": self.result,
            "message": self.message,
        })
    }
}

/// Prints an error as a person or a machine expects it.
pub(super) fn print_error(error: &Error, operation: &str, json: bool) -> ExitCode {
    if json {
        let document = json!({
            "status": "error",
            "operation": operation,
            "database": Value::Null,
            "environment": Value::Null,
            "result": Value::Null,
            "message": error.to_string(),
            "error": error.chain(),
            "exit_code": u8::from(error.exit()),
            "recovery": { "suggestions": error.remedy().into_iter().collect::<Vec<_>>() },
        });
        say(&format!("{document:#}"));
    } else {
        // A closed terminal must not turn an error into a panic.
        let _ = writeln!(std::io::stderr(), "{}", error.report());
    }
    error.exit()
}

/// Writes to stdout. A reader that went away (`| head`, a closed terminal) is no error of ours.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    if !text.ends_with('\n') {
        let _ = out.write_all(b"\n");
    }
    let _ = out.flush();
}
