//! A copy of a SQLite database, opened behind the walls and read from its first page to its last.
//!
//! There is nothing to load: the copy is the database. It is opened read-only by `sqlite3`, inside the sandbox, because a
//! file that others wrote may hold anything. A newcomer would trust the exit code; `integrity_check` ends with 0 whatever
//! it found, only the word `ok` counts.

use std::path::PathBuf;

use super::{
    super::{
        Context, Way,
        checks::{self, Answers},
        failure,
        steps::{self, Checked, Result},
        stopped,
        walls::{self, Ground},
    },
    Fetched, counts,
};
use crate::{
    error::ExitCode,
    postgres::Record,
    process::{Command, Ending, capture},
    record::{ErrorClass, Failure},
    sandbox::Sandbox,
};

/// The steps of such a restore.
pub(super) const PLAN: steps::Plan = steps::Plan {
    order: &[
        "backup",
        "isolation",
        "programs",
        "scratch",
        "space",
        "fetch",
        "walls",
        "restore",
        "integrity_check",
        "foreign_key_check",
        "read_every_row",
        "assertions",
    ],
    mandatory: &["fetch", "walls", "restore", "integrity_check", "read_every_row"],
    verdict_from: "fetch",
    recovery: &["fetch", "restore"],
};

/// Where `sqlite3` lies, unless the policy says `tool_dir`.
const USUAL: [&str; 2] = ["/usr/local/bin", "/usr/bin"];
const DAMAGED: &str = "Make a new backup, and run `pragma integrity_check` on the database itself.";
/// What `-ascii` puts after a row and between two values; SQLite's own words, which no text should hold.
const ROW: char = '\u{1e}';
const FIELD: char = '\u{1f}';
/// How many problems are told.
const TOLD: usize = 5;

/// Finds `sqlite3`.
pub(super) async fn find_programs(context: &Context) -> Result<PathBuf> {
    let named = context.database().dump.tool_dir.clone();
    let mut directories = named.into_iter().chain(USUAL.map(PathBuf::from));
    let Some(directory) = directories.find(|directory| directory.join("sqlite3").exists()) else {
        let remedy = "Install the package `sqlite3`.";
        let failure = failure(ErrorClass::Config, "the program `sqlite3` was not found", remedy);
        return Err(Failure { exit: ExitCode::ToolNotFound, ..failure });
    };
    let said = capture(&Command::new(directory.join("sqlite3")).arg("--version"), &context.stop).await?;
    let said = String::from_utf8_lossy(&said.stdout);
    let version = said.split_whitespace().next().unwrap_or_default();
    let detail = format!("SQLite {version} in {}", directory.display());
    Ok(Checked::passed(directory, detail))
}

/// Opens the copy and checks it.
pub(super) async fn prove(context: &Context, fetched: &Fetched<'_>, way: &mut Way) -> std::result::Result<(), Failure> {
    let Way { steps, facts, .. } = way;
    // The dump says where production's file lies; it must not be there.
    let production = [PathBuf::from(&fetched.dump.source)];
    let (layout, programs) = (fetched.layout.clone(), fetched.programs.clone());
    let ground = Ground { layout, programs, production: &production, tablespaces: &[] };
    let sandbox = steps.run("walls", walls::build_walls(context, ground)).await?;
    let copy = Copy { context, sandbox: &sandbox, file: fetched.data()? };
    facts.size = steps.run("restore", copy.open()).await?;
    steps.run("integrity_check", copy.integrity()).await?;
    steps.run("foreign_key_check", copy.foreign_keys()).await?;
    steps.run("read_every_row", copy.read_every_row()).await?;
    steps.run("assertions", copy.assertions()).await
}

/// A copy, open to questions.
struct Copy<'a> {
    context: &'a Context,
    sandbox: &'a Sandbox,
    file: PathBuf,
}

impl Copy<'_> {
    /// Opens it: a file that is no database is told from one that is empty.
    async fn open(&self) -> Result<u64> {
        let size = "select page_count * page_size from pragma_page_count, pragma_page_size";
        let size = self.number(size).await?;
        let objects = self.number("select count(*) from sqlite_schema").await?;
        if size == 0 {
            return Err(failure(ErrorClass::Integrity, "the copy has no page", DAMAGED));
        }
        Ok(Checked::passed(
            size,
            format!("{}, {objects} tables, indexes, views and triggers", crate::human::size(size)),
        ))
    }

    async fn integrity(&self) -> Result<()> {
        let found: Vec<String> = self.query("pragma integrity_check").await?.into_iter().flatten().collect();
        if found == ["ok"] {
            return Ok(Checked::passed((), "ok"));
        }
        let message = format!("the copy is damaged: {}", first(&found));
        Err(failure(ErrorClass::Integrity, message, DAMAGED))
    }

    /// What it finds was in production before and is not damage: SQLite enforces no foreign key unless it is asked to.
    async fn foreign_keys(&self) -> Result<()> {
        let found = match self.query("pragma foreign_key_check").await {
            Ok(found) => found,
            Err(failure) if failure.message.contains("foreign key mismatch") => {
                return Ok(Checked::skipped((), format!("foreign keys cannot be checked: {}", failure.message)));
            }
            Err(failure) => return Err(failure),
        };
        if found.is_empty() {
            return Ok(Checked::passed((), "every foreign key leads to a row"));
        }
        let rows: Vec<String> =
            found.iter().map(|row| format!("row {1} of `{0}`", value(row, 0), value(row, 1))).collect();
        let detail = format!("{} foreign keys lead nowhere, which SQLite allows: {}", found.len(), first(&rows));
        Ok(Checked::skipped((), detail))
    }

    /// Reads every value of every table.
    async fn read_every_row(&self) -> Result<()> {
        let tables = self
            .query("select name, sql like 'create virtual%' from sqlite_schema where type = 'table' order by 1")
            .await?;
        let mut counted = Vec::new();
        let mut foreign = Vec::new();
        for table in &tables {
            let (name, is_virtual) = (value(table, 0), value(table, 1) == "1");
            match self.count(name).await {
                Ok(rows) => counted.push((name.to_owned(), rows)),
                // Its module lives in the program that made it.
                Err(failure) if is_virtual && failure.message.contains("no such module") => foreign.push(name),
                Err(failure) => return Err(failure),
            }
        }
        let foreign = match foreign.as_slice() {
            [] => String::new(),
            names => format!("; not read, because `sqlite3` has not their module: {}", names.join(", ")),
        };
        Ok(Checked::passed((), format!("{}{foreign}", counts::told(counted))))
    }

    /// Counts the rows of a table, with the length of every value: a count alone reads only an index.
    async fn count(&self, table: &str) -> std::result::Result<u64, Failure> {
        let columns = format!("select name from pragma_table_xinfo('{}') where hidden <> 1", table.replace('\'', "''"));
        let columns = self.query(&columns).await?;
        let lengths = columns.iter().flatten().map(|column| format!(", sum(length(cast({} as blob)))", quoted(column)));
        let sql = format!("select count(*){} from main.{}", lengths.collect::<String>(), quoted(table));
        self.number(&sql).await
    }

    async fn assertions(&self) -> Result<()> {
        let mut answers = Answers::default();
        for assertion in &self.context.database().test_restore.assertions {
            let answer = self.query(&assertion.sql).await;
            answers.add(assertion, answer.map_err(|failure| failure.message));
        }
        answers.judge()
    }

    /// The first value of the first row.
    async fn number(&self, sql: &str) -> std::result::Result<u64, Failure> {
        let rows = self.query(sql).await?;
        Ok(rows.first().and_then(|row| value(row, 0).parse().ok()).unwrap_or(0))
    }

    async fn query(&self, sql: &str) -> std::result::Result<Vec<Record>, Failure> {
        let command = self.sandbox.command("sqlite3").args(["-readonly", "-batch", "-bail", "-ascii", "-noheader"]);
        let limit = self.context.time_left().unwrap_or(checks::ASSERTION).min(checks::ASSERTION);
        // What it sorts does not fill the memory, in which `/tmp` lies.
        let command = command.env("SQLITE_TMPDIR", self.sandbox.layout().work());
        let captured = capture(&command.arg(&self.file).arg(sql).timeout(Some(limit)), &self.context.stop).await?;
        match captured.ending {
            Ending::Exited(0) if captured.stderr.is_empty() => Ok(records(&captured.stdout)),
            Ending::Stopped => Err(stopped()),
            Ending::TimedOut => {
                let message = "a question to the copy took too long";
                Err(failure(ErrorClass::Transient, message, "Raise `timeout` of the test restore."))
            }
            _ => {
                let said = captured.stderr.lines().next().unwrap_or("`sqlite3` ended without saying why");
                Err(failure(ErrorClass::Integrity, format!("the copy does not answer: {said}"), DAMAGED))
            }
        }
    }
}

fn records(stdout: &[u8]) -> Vec<Record> {
    let text = String::from_utf8_lossy(stdout);
    text.split_terminator(ROW).map(|row| row.split(FIELD).map(str::to_owned).collect()).collect()
}

fn value(row: &Record, number: usize) -> &str {
    row.get(number).map_or("", String::as_str)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The first few of many.
fn first(found: &[String]) -> String {
    let told = found.iter().take(TOLD).map(String::as_str).collect::<Vec<_>>().join("; ");
    if found.len() > TOLD { format!("{told}; and {} more", found.len() - TOLD) } else { told }
}

#[cfg(test)]
mod tests;
