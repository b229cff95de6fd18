//! A PostgreSQL database that is dumped by `pg_dump`.
//!
//! `tools.rs` finds the tool that suits the server, `staged.rs` checks the directory format before it is stored,
//! `restore.rs` writes the by-hand commands. Roles and tablespaces come first: they are small, and what is wrong with the
//! connection shows before the long work. A newcomer would let the dump find out that row security hides rows; it does
//! so at the table, which may be after hours, so we ask before.

mod restore;
mod staged;
mod tools;

use std::path::{Path, PathBuf};

pub(super) use self::restore::restore_by_hand;
use super::{Limits, Making, Output, Source};
use crate::{
    engine::{
        migration::{self, Dialect},
        pg_dump::{PgDump, archive::Archive, exit, trailer::Trailer, version::Tool},
    },
    error::ExitCode,
    policy::{Database, SecretError},
    postgres::{Client, Dumpable, QueryError},
    process::{Ending, Stop},
    record::{DumpFormat, ErrorClass, Failure, Migrations, Role},
    stream::Inspect,
};

/// The newest major version whose archives are walked through.
const NEWEST_ARCHIVE: u32 = 18;

/// A database of this engine.
#[derive(Debug, Clone)]
pub struct Postgres {
    name: String,
    reach: Option<Box<(Client, PgDump)>>,
    format: DumpFormat,
    globals: bool,
    tool_dir: Option<PathBuf>,
}

impl Postgres {
    pub(super) fn of(database: &Database) -> Result<Self, SecretError> {
        let (client, tool) = (Client::of(database)?, PgDump::of(database)?);
        let dump = &database.dump;
        Ok(Self {
            name: database.name.to_string(),
            reach: client.zip(tool).map(Box::new),
            format: dump.format,
            globals: dump.globals,
            tool_dir: dump.tool_dir.clone(),
        })
    }

    pub(super) async fn look(&self, stop: &Stop) -> Result<Source, Failure> {
        let client = &self.reach()?.0;
        let client = client.clone().stop(stop);
        let database = client.dumpable().await?;
        refuse_hidden_rows(&database)?;
        let tool = tools::find(self.tool_dir.as_deref(), &database, stop).await?;
        let migrations = migrations(&client).await?;
        Ok(self.source(database, tool, migrations))
    }

    fn source(&self, database: Dumpable, tool: Tool, migrations: Option<Migrations>) -> Source {
        Source {
            server: format!("PostgreSQL {}", database.version),
            server_version: database.major().to_string(),
            tool_version: format!("pg_dump {}", tool.version),
            warnings: self.warnings(&database, &tool),
            limits: Limits { is_standby: database.in_recovery, hides_passwords: !database.reads_passwords },
            system_id: database.system_id,
            source: database.database,
            size: database.size,
            tool: tool.path,
            migrations,
        }
    }

    /// What people should know about the dump that will be made.
    fn warnings(&self, database: &Dumpable, tool: &Tool) -> Vec<String> {
        let properties = database.properties.as_ref().filter(|_| self.format == DumpFormat::Plain);
        let newest = tool.version.major;
        [
            (self.globals && !database.reads_passwords)
                .then(|| "the role may not read `pg_authid`: roles are dumped without their passwords".to_owned()),
            (database.in_recovery && database.unlogged > 0).then(|| {
                format!("the server is a standby: the content of {} unlogged tables is not dumped", database.unlogged)
            }),
            (database.foreign > 0).then(|| {
                format!("the content of {} foreign tables lies elsewhere and is not dumped", database.foreign)
            }),
            properties.map(|properties| {
                format!(
                    "the plain format leaves out what belongs to the database itself ({properties}); `custom` has it"
                )
            }),
            (newest > NEWEST_ARCHIVE && self.format != DumpFormat::Plain)
                .then(|| format!("archives of `pg_dump` {newest} are not known: only their beginning is checked")),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    pub(super) fn makings(&self, source: &Source, scratch: &Path) -> Result<Vec<Making>, Failure> {
        let pg_dump = &self.reach()?.1;
        let globals = self.globals.then(|| Making {
            role: Role::Globals,
            name: "globals.sql".to_owned(),
            command: pg_dump.globals(&source.tool, &source.source, source.limits.hides_passwords),
            output: Output::Stdout,
            inspect: Some(Box::new(Trailer::of_globals())),
        });
        Ok(globals.into_iter().chain([self.data(pg_dump, source, scratch)]).collect())
    }

    fn data(&self, pg_dump: &PgDump, source: &Source, scratch: &Path) -> Making {
        let is_standby = source.limits.is_standby;
        let stdout = |suffix: &str, inspect: Box<dyn Inspect>| Making {
            role: Role::Data,
            name: format!("{}.{suffix}", self.name),
            command: pg_dump.to_stdout(&source.tool, self.format, is_standby),
            output: Output::Stdout,
            inspect: Some(inspect),
        };
        match self.format {
            DumpFormat::Plain => stdout("sql", Box::new(Trailer::of_dump())),
            DumpFormat::Custom | DumpFormat::File => stdout("dump", Box::<Archive>::default()),
            DumpFormat::Directory => {
                let parts = scratch.join("parts");
                Making {
                    role: Role::Part,
                    name: "parts".to_owned(),
                    command: pg_dump.to_directory(&source.tool, &parts, is_standby),
                    output: Output::Directory(parts),
                    inspect: None,
                }
            }
        }
    }

    pub(super) async fn check_staged(
        &self,
        source: &Source,
        making: &Making,
        stop: &Stop,
    ) -> Result<Vec<String>, Failure> {
        let pg_dump = &self.reach()?.1;
        if let Output::Directory(directory) = &making.output {
            staged::check(&pg_dump.read_through(&source.tool, directory), directory, stop).await?;
        }
        Ok(Vec::new())
    }

    pub(super) fn explain(&self, role: Role, ending: &Ending, tail: &[String]) -> Failure {
        let tool = if role == Role::Globals { "pg_dumpall" } else { "pg_dump" };
        exit::explain(tool, ending, tail)
    }

    fn reach(&self) -> Result<&(Client, PgDump), Failure> {
        self.reach.as_deref().ok_or_else(|| Failure {
            class: ErrorClass::Config,
            exit: ExitCode::Configuration,
            message: format!("the policy names no `connection` for `{}`", self.name),
            remedy: Some("Say in `connection` how `pg_dump` reaches the database.".to_owned()),
        })
    }
}

/// With row security, what this role sees is a part; the tool would refuse too, but late.
fn refuse_hidden_rows(database: &Dumpable) -> Result<(), Failure> {
    let Some(tables) = &database.hidden else { return Ok(()) };
    Err(Failure {
        class: ErrorClass::Config,
        exit: ExitCode::Configuration,
        message: format!("row security hides rows from the role of `connection`: {tables}"),
        remedy: Some(
            "Let it see every row, by `alter role … bypassrls`; a dump of some of the rows is no backup.".into(),
        ),
    })
}

async fn migrations(client: &Client) -> Result<Option<Migrations>, QueryError> {
    let candidates = client.query(&migration::candidates_sql(Dialect::Postgres)).await?;
    let Some(found) = migration::recognise(Dialect::Postgres, &candidates) else { return Ok(None) };
    let applied = client.query(&found.list_sql).await?;
    Ok(Some(migration::migrations(&found, &applied)))
}

#[cfg(test)]
mod tests;
