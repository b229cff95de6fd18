//! A database that is dumped: asked what it is, and told how each file of its dump is made.
//!
//! The one match from a dump engine to its client and its tool. Asking goes through the database's own client; what runs
//! long is only described here and is run by the job. A newcomer would treat a question that failed as "nothing there".
//!
//! Each engine's file offers what [`Dumper`] does, for its own kind: `of`, `look`, `makings`, `check_staged`, `explain`,
//! and `restore_by_hand`. `by_hand.rs` holds what the by-hand commands of all have in common.

mod by_hand;
mod mysql;
mod postgres;
mod sqlite;

use std::path::{Path, PathBuf};

use crate::{
    policy::{Database, SecretError},
    process::{Command, Ending, Stop},
    record::{Backup, EngineKind, Failure, Migrations, Role},
    stream::Inspect,
};

/// A database that is dumped.
#[derive(Debug, Clone)]
pub enum Dumper {
    /// By `pg_dump`.
    Postgres(postgres::Postgres),
    /// By `mariadb-dump` or `mysqldump`.
    MySql(mysql::MySql),
    /// By `sqlite3`.
    Sqlite(sqlite::Sqlite),
}

/// What a database is at the moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// The server in words, e.g. `PostgreSQL 15.20`.
    pub server: String,
    /// Its version as the record tells it: the major version for PostgreSQL (`15`), else as it says it.
    pub server_version: String,
    /// Which cluster or server it is, where it can say: `system_identifier`, `server_uuid`; else empty.
    pub system_id: String,
    /// The tool that will be used.
    pub tool: PathBuf,
    /// Its version, e.g. `pg_dump 15.20`.
    pub tool_version: String,
    /// What the by-hand commands call it: the database's name, or the file's path.
    pub source: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its schema migrations, where a tool is recognised.
    pub migrations: Option<Migrations>,
    /// What people should know: tables that are not transactional and the like.
    pub warnings: Vec<String>,
    /// What of it changes the tools' command lines.
    pub limits: Limits,
}

/// What of a database changes the tools' command lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// It is a standby: the content of unlogged tables is not there.
    pub is_standby: bool,
    /// The role may not read the passwords of others.
    pub hides_passwords: bool,
}

/// How one file of a dump is made.
pub struct Making {
    /// What it is for.
    pub role: Role,
    /// Its name without the suffixes of compression and encryption, e.g. `shop.dump`; for a directory: `parts`.
    pub name: String,
    /// The command.
    pub command: Command,
    /// Where its output is.
    pub output: Output,
    /// Looks at the plain text as it goes by.
    pub inspect: Option<Box<dyn Inspect>>,
}

/// Where a command's output is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// On its standard output.
    Stdout,
    /// In this file in the scratch directory, once it ended.
    File(PathBuf),
    /// In this directory in the scratch directory, once it ended; each file becomes a part.
    Directory(PathBuf),
}

impl Dumper {
    /// The dumper of a database with a dump engine; its secrets are read now. None for other engines.
    ///
    /// # Errors
    /// When a secret cannot be read.
    pub fn of(database: &Database) -> Result<Option<Self>, SecretError> {
        Ok(match database.engine {
            EngineKind::PgBackRest => None,
            EngineKind::PgDump => Some(Dumper::Postgres(postgres::Postgres::of(database)?)),
            EngineKind::MySqlDump => Some(Dumper::MySql(mysql::MySql::of(database)?)),
            EngineKind::Sqlite => Some(Dumper::Sqlite(sqlite::Sqlite::of(database)?)),
        })
    }

    /// Looks at the database: reachable, which server, which tool suits it, how large, which migrations, what to warn of.
    ///
    /// # Errors
    /// When it cannot be reached, no tool suits it, or it is not what it should be.
    pub async fn look(&self, stop: &Stop) -> Result<Source, Failure> {
        match self {
            Dumper::Postgres(postgres) => postgres.look(stop).await,
            Dumper::MySql(mysql) => mysql.look(stop).await,
            Dumper::Sqlite(sqlite) => sqlite.look(stop).await,
        }
    }

    /// The files of a dump in the order in which they are made. `scratch` is an empty private directory, used only by
    /// those that stage; files with passwords are written there too (0600) and go with it.
    ///
    /// # Errors
    /// When such a file cannot be written.
    pub fn makings(&self, source: &Source, scratch: &Path) -> Result<Vec<Making>, Failure> {
        match self {
            Dumper::Postgres(postgres) => postgres.makings(source, scratch),
            Dumper::MySql(mysql) => mysql.makings(source, scratch),
            Dumper::Sqlite(sqlite) => sqlite.makings(source, scratch),
        }
    }

    /// Checks what was staged, before it is stored: the table of contents, `integrity_check` and `foreign_key_check`.
    /// Gives what people should know of it although it is whole.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn check_staged(&self, source: &Source, making: &Making, stop: &Stop) -> Result<Vec<String>, Failure> {
        match self {
            Dumper::Postgres(postgres) => postgres.check_staged(source, making, stop).await,
            Dumper::MySql(mysql) => mysql.check_staged(source, making, stop).await,
            Dumper::Sqlite(sqlite) => sqlite.check_staged(source, making, stop).await,
        }
    }

    /// A tool's bad ending, and the last lines it wrote, as a failure with a cause and a remedy.
    pub fn explain(&self, role: Role, ending: &Ending, tail: &[String]) -> Failure {
        match self {
            Dumper::Postgres(postgres) => postgres.explain(role, ending, tail),
            Dumper::MySql(mysql) => mysql.explain(role, ending, tail),
            Dumper::Sqlite(sqlite) => sqlite.explain(role, ending, tail),
        }
    }
}

/// The commands that restore a backup by hand with standard tools, comments included; `location` is where its files are,
/// e.g. `/srv/backups/shop/backup-…` or `s3://bucket/shop/backup-…`. None for a backup that is no dump.
pub fn restore_by_hand(backup: &Backup, location: &str) -> Vec<String> {
    match backup.engine {
        EngineKind::PgBackRest => Vec::new(),
        EngineKind::PgDump => postgres::restore_by_hand(backup, location),
        EngineKind::MySqlDump => mysql::restore_by_hand(backup, location),
        EngineKind::Sqlite => sqlite::restore_by_hand(backup, location),
    }
}
