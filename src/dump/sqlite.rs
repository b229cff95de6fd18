//! How a SQLite file is dumped: a copy of its pages in the scratch directory, checked there, then stored.
//!
//! The checks run on the copy, so that production is read once and held no longer than that takes. Damage that was in
//! the file before is in the copy as well, and fails the dump: it must not push a good backup out. Foreign keys that
//! lead nowhere are the application's: SQLite does not enforce them unless asked, so they are told and no failure.
//!
//! A newcomer would let the tool find out that the file is missing (SQLite makes it, and backs up nothing with zero), or
//! open the file to look at its header.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Limits, Making, Output, Source, by_hand};
use crate::{
    engine::{
        migration::{self, Dialect},
        sqlite,
    },
    error::{ExitCode, chain},
    policy::{Database, Niceness, SecretError},
    process::{self, Ending, Stop},
    record::{Backup, ErrorClass, Failure, Migrations, Role},
    sqlite::{Client, QueryError},
};

/// How long the tool may take to tell its version.
const VERSION: Duration = Duration::from_secs(20);
/// How many findings one message tells.
const TOLD: usize = 3;

/// A database of this engine.
#[derive(Debug, Clone)]
pub struct Sqlite {
    name: String,
    path: PathBuf,
    program: PathBuf,
    busy_timeout: Duration,
    niceness: Niceness,
}

impl Sqlite {
    pub(super) fn of(database: &Database) -> Result<Self, SecretError> {
        let settings = &database.dump;
        Ok(Self {
            name: database.name.to_string(),
            path: settings.sqlite.path.clone(),
            program: sqlite::program(settings.tool_dir.as_deref()),
            busy_timeout: settings.sqlite.busy_timeout,
            niceness: database.niceness,
        })
    }

    pub(super) async fn look(&self, stop: &Stop) -> Result<Source, Failure> {
        is_there(&self.path)?;
        let version = self.version(stop).await?;
        let client = Client::of(&self.program, &self.path, self.busy_timeout).stop(stop);
        let sql = "select p.page_count * s.page_size, (select count(*) from sqlite_master where type = 'table') \
                   from pragma_page_count p, pragma_page_size s";
        let [size, tables] = numbers(client.query(sql).await?)?;
        Ok(Source {
            server: format!("SQLite {version}"),
            tool: self.program.clone(),
            tool_version: format!("sqlite3 {version}"),
            server_version: version,
            system_id: String::new(),
            source: self.path.display().to_string(),
            size,
            migrations: migrations(&client).await?,
            warnings: Vec::from_iter((tables == 0).then(|| "the file holds no table".to_owned())),
            limits: Limits::default(),
        })
    }

    async fn version(&self, stop: &Stop) -> Result<String, Failure> {
        let answer = process::capture(&sqlite::version(&self.program).timeout(Some(VERSION)), stop).await?;
        if !answer.ok() {
            return Err(sqlite::explain(&answer.ending, &[answer.stderr]));
        }
        let text = String::from_utf8_lossy(&answer.stdout);
        sqlite::read_version(&text).ok_or_else(|| Failure {
            class: ErrorClass::Config,
            exit: ExitCode::ToolNotFound,
            message: format!("`{}` is no `sqlite3` of 3.33 or newer: {}", self.program.display(), text.trim()),
            remedy: Some("Install a newer `sqlite3`, or name its directory in `tool_dir`.".to_owned()),
        })
    }

    pub(super) fn makings(&self, source: &Source, scratch: &Path) -> Result<Vec<Making>, Failure> {
        let command = sqlite::backup(&source.tool, &self.path, self.busy_timeout, scratch).niceness(self.niceness);
        Ok(vec![Making {
            role: Role::Data,
            name: format!("{}.sqlite", self.name),
            command,
            output: Output::File(scratch.join(sqlite::COPY)),
            inspect: None,
        }])
    }

    pub(super) async fn check_staged(
        &self,
        source: &Source,
        making: &Making,
        stop: &Stop,
    ) -> Result<Vec<String>, Failure> {
        let Output::File(copy) = &making.output else { return Ok(Vec::new()) };
        let client = Client::of_copy(&source.tool, copy).statement_timeout(None).stop(stop);
        is_whole(&client, copy).await?;
        let warnings = [is_sound(&client).await?, foreign_keys(&client).await?];
        Ok(warnings.into_iter().flatten().collect())
    }

    pub(super) fn explain(&self, _role: Role, ending: &Ending, tail: &[String]) -> Failure {
        let failure = sqlite::explain(ending, tail);
        Failure { message: format!("`{}`: {}", self.path.display(), failure.message), ..failure }
    }
}

/// Whether the file is there and is not empty. Whether it is a database, `sqlite3` says: we must not open it, because
/// closing a file ends all locks that this process has on it, and our own catalog is such a file.
fn is_there(path: &Path) -> Result<(), Failure> {
    let failure = |exit, says: &str, remedy: &str| Failure {
        class: ErrorClass::Config,
        exit,
        message: format!("`{}` {says}", path.display()),
        remedy: Some(remedy.to_owned()),
    };
    let correct = "Correct `sqlite.path` in the policy.";
    let metadata = fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => failure(ExitCode::Connection, "does not exist", correct),
        _ => failure(
            ExitCode::Connection,
            &format!("cannot be looked at: {}", chain(&error)),
            "Let this user read the file, and enter the directories above it.",
        ),
    })?;
    if !metadata.is_file() {
        return Err(failure(ExitCode::Configuration, "is no regular file", correct));
    }
    if metadata.len() == 0 {
        let remedy = "Find out what emptied it, and restore the last good backup.";
        return Err(failure(ExitCode::VerificationFailed, "is empty", remedy));
    }
    Ok(())
}

async fn migrations(client: &Client) -> Result<Option<Migrations>, QueryError> {
    let records = client.query(&migration::candidates_sql(Dialect::Sqlite)).await?;
    let Some(found) = migration::recognise(Dialect::Sqlite, &records) else { return Ok(None) };
    let applied = client.query(&found.list_sql).await?;
    Ok(Some(migration::migrations(&found, &applied)))
}

fn numbers<const N: usize>(records: Vec<crate::sqlite::Record>) -> Result<[u64; N], QueryError> {
    let values = records.into_iter().next().unwrap_or_default();
    let numbers: Option<Vec<u64>> = values.iter().map(|value| value.parse().ok()).collect();
    let wrong = || QueryError::Answer(format!("`{}` are no {N} numbers", values.join("`, `")));
    numbers.and_then(|numbers| numbers.try_into().ok()).ok_or_else(wrong)
}

/// Whether the copy has as many pages and tables as the file had at that moment.
async fn is_whole(client: &Client, copy: &Path) -> Result<(), Failure> {
    let counts = copy.with_file_name(sqlite::COUNTS);
    let written = fs::read_to_string(&counts).unwrap_or_default();
    let copied = client.query(sqlite::COUNT_SQL).await?.concat().join("|");
    if written.trim() == copied {
        return Ok(());
    }
    let words = |counts: &str| match counts.trim().split_once('|') {
        Some((pages, objects)) => format!("{pages} pages and {objects} tables, indexes, views and triggers"),
        None => "nothing".to_owned(),
    };
    Err(damaged(format!("the file had {}, its copy has {}", words(&written), words(&copied))))
}

/// Whether SQLite finds nothing wrong with the copy; zero is no proof, the word `ok` is.
///
/// Where the application brings collations of its own, SQLite refuses to check anything. Then every table is read to its
/// end, and the answer is a warning: the indexes were not looked at.
async fn is_sound(client: &Client) -> Result<Option<String>, Failure> {
    match client.query("pragma integrity_check").await {
        Err(QueryError::Refused(failure)) if failure.message.contains("no such collation sequence") => {
            read_through(client).await?;
            Ok(Some(format!("only the tables could be checked, not the indexes: {}", failure.message)))
        }
        findings => says_ok(&findings?.concat()).map(|()| None),
    }
}

fn says_ok(findings: &[String]) -> Result<(), Failure> {
    if findings == ["ok"] {
        return Ok(());
    }
    let told = findings.iter().take(TOLD).map(String::as_str).collect::<Vec<_>>().join("; ");
    Err(damaged(format!("`pragma integrity_check` says of the copy: {told}")))
}

async fn read_through(client: &Client) -> Result<(), Failure> {
    // With double quotes doubled, as SQL wants a name.
    let sql =
        "select '\"' || replace(name, '\"', '\"\"') || '\"' from sqlite_master where type = 'table' and rootpage > 0";
    for table in client.query(sql).await?.concat() {
        client.query(&format!("select count(*) from {table} not indexed")).await?;
    }
    Ok(())
}

/// Tables with rows whose foreign keys lead nowhere, as a warning.
async fn foreign_keys(client: &Client) -> Result<Option<String>, Failure> {
    let sql = "select \"table\", count(*) from pragma_foreign_key_check group by 1 order by 1";
    let found = match client.query(sql).await {
        // The schema itself has a key that leads nowhere.
        Err(QueryError::Refused(failure)) if failure.message.contains("foreign key mismatch") => {
            return Ok(Some(format!("foreign keys cannot be checked: {}", failure.message)));
        }
        found => found?,
    };
    let tables: Vec<String> =
        found.iter().map(|record| format!("`{}` ({})", record[0], record[1..].join(""))).collect();
    Ok((!tables.is_empty()).then(|| format!("rows have foreign keys that lead nowhere: {}", tables.join(", "))))
}

fn damaged(message: String) -> Failure {
    Failure {
        class: ErrorClass::Integrity,
        exit: ExitCode::VerificationFailed,
        message,
        remedy: Some(
            "The file itself is damaged: keep it, restore the last good backup beside it, and look at the disk and the \
             kernel's log."
                .to_owned(),
        ),
    }
}

pub(super) fn restore_by_hand(backup: &Backup, location: &str) -> Vec<String> {
    let Some(dump) = &backup.dump else { return Vec::new() };
    let mut lines = by_hand::preamble(backup, dump, location, "sqlite3");
    lines.push(format!("FILE={} # what it replaces", by_hand::quoted(&dump.source)));
    let data = dump.artifacts.iter().filter(|artifact| artifact.role == Role::Data);
    lines.extend(data.map(|artifact| format!("{} > restored.sqlite", by_hand::read(dump, artifact, location))));
    lines.extend(
        [
            "# The answer must be `ok` and nothing else.",
            "sqlite3 'file:restored.sqlite?immutable=1' 'pragma integrity_check; pragma foreign_key_check'",
            "# Stop the application. Then move the old file away with what belongs to it: an old `-wal` damages a new file.",
            "# for part in '' -wal -shm -journal; do [ ! -e \"$FILE$part\" ] || mv \"$FILE$part\" \"$FILE.old$part\"; done",
            "# cp --no-clobber restored.sqlite \"$FILE\" && chown --reference=\"$FILE.old\" \"$FILE\" && chmod --reference=\"$FILE.old\" \"$FILE\"",
        ]
        .map(str::to_owned),
    );
    lines
}

#[cfg(test)]
mod tests;
