//! SQL on a user's server, through `psql` alone.
//!
//! So libpq interprets the connection: services, `.pgpass`, Kerberos, several hosts. The connection string is handed over
//! untouched and holds no password; a password travels in the environment. Each question is one `psql` that ends before
//! its deadline. `probe.rs` holds the questions that are asked of every server, `dumpable.rs` those before a dump.
//!
//! A newcomer would split the output at tabs and newlines, which a value may hold; fields end with the unit separator,
//! records with NUL, which no value can hold.

mod conninfo;
mod dumpable;
mod error;
mod probe;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

pub use self::{
    dumpable::Dumpable,
    error::QueryError,
    probe::{Archiving, Identity, Tablespace},
};
use crate::{
    policy::{Database, Secret, SecretError},
    process::{self, Command, Stop},
};

/// How long connecting may take, per host.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a question may take, unless the caller says otherwise.
const STATEMENT: Duration = Duration::from_secs(30);
/// What `psql` itself may take beyond that.
const SLACK: Duration = Duration::from_secs(20);
/// Between the fields of a record.
const FIELD: &str = "\u{1f}";

/// One record: its values, empty for null.
pub type Record = Vec<String>;

/// A way to ask one server.
#[derive(Debug, Clone)]
pub struct Client {
    program: PathBuf,
    conninfo: String,
    password: Option<Secret>,
    statement_timeout: Duration,
    stop: Stop,
}

impl Client {
    /// The client of a database, with its password read now; none when the policy names no connection.
    ///
    /// # Errors
    /// When the password cannot be read.
    pub fn of(database: &Database) -> Result<Option<Self>, SecretError> {
        let Some(connection) = &database.connection else { return Ok(None) };
        let password = database.password.as_ref().map(|secret| secret.read()).transpose()?;
        Ok(Some(Self { password, ..Self::new("psql".into(), connection.clone()) }))
    }

    /// The client of a server on this host, by the directory of its socket; `bin` holds the `psql` to use.
    pub fn at_socket(directory: &Path, port: u16, bin: &Path) -> Self {
        let host = conninfo::quoted(&directory.to_string_lossy());
        Self::new(bin.join("psql"), format!("host={host} port={port} dbname=postgres"))
    }

    fn new(program: PathBuf, conninfo: String) -> Self {
        Self { program, conninfo, password: None, statement_timeout: STATEMENT, stop: Stop::never() }
    }

    /// The same client, whose questions take at most this long.
    #[must_use]
    pub fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = timeout;
        self
    }

    /// The same client, whose questions end when somebody wants to stop.
    #[must_use]
    pub fn stop(mut self, stop: &Stop) -> Self {
        self.stop = stop.clone();
        self
    }

    /// The same client, as another role; only for one that was made by [`at_socket`](Self::at_socket).
    #[must_use]
    pub fn as_role(mut self, role: &str) -> Self {
        self.conninfo = format!("{} user={}", self.conninfo, conninfo::quoted(role));
        self
    }

    /// Asks one statement in the connection's own database.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn query(&self, sql: &str) -> Result<Vec<Record>, QueryError> {
        self.ask(&self.conninfo, sql).await
    }

    /// Asks one statement in another database of the same server.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn query_in(&self, database: &str, sql: &str) -> Result<Vec<Record>, QueryError> {
        self.ask(&conninfo::in_database(&self.conninfo, database), sql).await
    }

    async fn ask(&self, conninfo: &str, sql: &str) -> Result<Vec<Record>, QueryError> {
        let command = self.command(conninfo, sql);
        let answer = process::capture(&command, &self.stop).await?;
        error::check(&answer)?;
        Ok(records(&answer.stdout))
    }

    fn command(&self, conninfo: &str, sql: &str) -> Command {
        let limit = format!("set statement_timeout = {}", self.statement_timeout.as_millis());
        let command = Command::new(&self.program)
            .args(["-X", "-q", "-A", "-t", "-w", "-0", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose"])
            .args(["-F", FIELD, "-d", conninfo, "-c", &limit, "-c", sql])
            .env("PGCONNECT_TIMEOUT", CONNECT.as_secs().to_string())
            .env("PGAPPNAME", "backstop")
            .env("PGCLIENTENCODING", "UTF8")
            .timeout(Some(CONNECT + self.statement_timeout + SLACK));
        match &self.password {
            Some(password) => command.secret_env("PGPASSWORD", password),
            None => command,
        }
    }
}

/// Splits what `psql -0 -F` wrote.
fn records(stdout: &[u8]) -> Vec<Record> {
    let text = String::from_utf8_lossy(stdout);
    let records = text.split_terminator('\0');
    records.map(|record| record.split(FIELD).map(str::to_owned).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_holds_the_connection_and_no_password() {
        let mut client = Client::new("psql".into(), "service=orders".into());
        client.password = Some(Secret::new("hunter2"));
        let shown = client.command(&client.conninfo, "select 1").display().replace(FIELD, "<US>");
        insta::assert_snapshot!(shown, @"PGCONNECT_TIMEOUT=10 PGAPPNAME=backstop PGCLIENTENCODING=UTF8 PGPASSWORD=*** psql -X -q -A -t -w -0 -v ON_ERROR_STOP=1 -v VERBOSITY=verbose -F '<US>' -d service=orders -c 'set statement_timeout = 30000' -c 'select 1'");
    }

    #[test]
    fn a_socket_is_named_by_its_directory() {
        let client = Client::at_socket(Path::new("/scratch/it's 1"), 5433, Path::new("/usr/lib/postgresql/15/bin"));
        assert_eq!(client.conninfo, r"host='/scratch/it\'s 1' port=5433 dbname=postgres");
        assert_eq!(client.program, Path::new("/usr/lib/postgresql/15/bin/psql"));
    }

    #[test]
    fn a_role_is_part_of_the_connection() {
        let client = Client::at_socket(Path::new("/s"), 1, Path::new("/bin")).as_role("o'dba");
        assert_eq!(client.conninfo, r"host=/s port=1 dbname=postgres user='o\'dba'");
    }

    #[test]
    fn values_may_hold_everything_but_the_separators() {
        assert_eq!(records(b"a\x1fb\nc\td\0\x1f\0"), [["a", "b\nc\td"], ["", ""]]);
        assert_eq!(records(b""), Vec::<Record>::new());
        assert_eq!(records(b"\0"), [[""]]);
        assert_eq!(records(b"\xff\0"), [["\u{FFFD}"]]);
    }
}
