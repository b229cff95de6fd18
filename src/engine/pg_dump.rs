//! pg_dump, pg_dumpall and pg_restore: every command line that we give them, and how what they write is read.
//!
//! It needs a pg_dump whose major version is at least the server's: an older one refuses, and the lowest that suits
//! writes what that server can read again (`version.rs`). The readers: `exit.rs` is a bad ending, `trailer.rs` the end of
//! SQL text, `archive.rs` the archive that `pg_restore` reads, walked through as it goes by.
//!
//! The connection string is handed over untouched and holds no password; a password travels in the environment. Nothing
//! is ever asked. A lock is waited for so long and no longer: behind a dump that waits for a lock everybody waits. Row
//! security stays an error, because with `--enable-row-security` a dump would hold some of the rows and look whole. There
//! are no patterns, because a pattern leaves large objects out. We compress, the tools do not.
//!
//! Without `--create`: SQL text must go into whatever database it is given, and with `--create` it would go into the one
//! of its old name, which may be production's. An archive holds what belongs to the database itself (`ALTER DATABASE …
//! SET`, owner, encoding, privileges) anyway, and `pg_restore --create` brings it back; SQL text does not, and neither
//! does `pg_dumpall --globals-only`, so a plain dump of such a database comes with a warning. A newcomer would add
//! `--if-exists --clean`; then a restore into the wrong database empties it first.

pub mod archive;
pub mod exit;
pub mod trailer;
pub mod version;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    policy::{Database, Niceness, Secret, SecretError},
    process::Command,
    record::DumpFormat,
};

/// How long connecting may take, per host.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a tool may take to tell its version.
const ANSWER: Duration = Duration::from_secs(30);

/// How one database is dumped.
#[derive(Debug, Clone)]
pub struct PgDump {
    connection: String,
    password: Option<Secret>,
    lock_timeout: Duration,
    jobs: u32,
    niceness: Niceness,
}

impl PgDump {
    /// The dumps of a database, with its password read now; none when the policy names no connection.
    ///
    /// # Errors
    /// When the password cannot be read.
    pub fn of(database: &Database) -> Result<Option<Self>, SecretError> {
        let Some(connection) = database.connection.clone() else { return Ok(None) };
        Ok(Some(Self {
            connection,
            password: database.password.as_ref().map(|secret| secret.read()).transpose()?,
            lock_timeout: database.dump.lock_timeout,
            jobs: database.dump.jobs,
            niceness: database.niceness,
        }))
    }

    /// Dumps to standard output: SQL text, or an archive in the custom format.
    pub fn to_stdout(&self, pg_dump: &Path, format: DumpFormat, is_standby: bool) -> Command {
        let command = match format {
            DumpFormat::Plain => Command::new(pg_dump).arg("--format=plain"),
            _ => Command::new(pg_dump).args(["--format=custom", "--compress=0"]),
        };
        self.dump(command, is_standby)
    }

    /// Dumps into a directory that must not exist, with several processes. What is copied away is not synced.
    pub fn to_directory(&self, pg_dump: &Path, directory: &Path, is_standby: bool) -> Command {
        let command = Command::new(pg_dump)
            .args(["--format=directory", "--compress=0", "--no-sync"])
            .arg(format!("--jobs={}", self.jobs.max(1)))
            .arg("-f")
            .arg(directory);
        self.dump(command, is_standby)
    }

    fn dump(&self, command: Command, is_standby: bool) -> Command {
        let command = command.arg(format!("--lock-wait-timeout={}", self.lock_timeout.as_millis().max(1)));
        let command = command.args(is_standby.then_some("--no-unlogged-table-data"));
        self.reach(command).args(["-d", &self.connection])
    }

    /// Writes roles and tablespaces to standard output. `database` is where it connects to; without it the tool would
    /// want `postgres` or `template1`, where this role may not be let in.
    pub fn globals(&self, pg_dump: &Path, database: &str, hides_passwords: bool) -> Command {
        let command = Command::new(beside(pg_dump, "pg_dumpall"))
            .arg("--globals-only")
            .args(hides_passwords.then_some("--no-role-passwords"));
        let command = self.reach(command).args(["-l", database]);
        // Other than pg_dump it takes no bare name for a connection.
        if self.connection.contains('=') || self.connection.contains("://") {
            command.args(["-d", &self.connection])
        } else {
            command
        }
    }

    fn reach(&self, command: Command) -> Command {
        let command = command
            .arg("--no-password")
            .env("PGCONNECT_TIMEOUT", CONNECT.as_secs().to_string())
            .env("PGAPPNAME", "backstop")
            .niceness(self.niceness);
        match &self.password {
            Some(password) => command.secret_env("PGPASSWORD", password),
            None => command,
        }
    }

    /// Reads a dump in the directory format to its end; `--list` would find neither a missing file nor a short one.
    pub fn read_through(&self, pg_dump: &Path, directory: &Path) -> Command {
        Command::new(beside(pg_dump, "pg_restore"))
            .args(["--format=directory", "-f", "-"])
            .arg(directory)
            .niceness(self.niceness)
            .discard_output()
    }
}

/// Asks a tool for its version; see [`version::Version`].
pub fn version(program: &Path) -> Command {
    Command::new(program).arg("--version").timeout(Some(ANSWER))
}

/// A tool of the same installation.
fn beside(pg_dump: &Path, tool: &str) -> PathBuf {
    pg_dump.with_file_name(tool)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOL: &str = "/usr/lib/postgresql/15/bin/pg_dump";

    fn shop(connection: &str) -> PgDump {
        PgDump {
            connection: connection.into(),
            password: None,
            lock_timeout: Duration::from_secs(300),
            jobs: 4,
            niceness: Niceness::default(),
        }
    }

    fn shown(command: Command) -> String {
        command.display().replace("PGCONNECT_TIMEOUT=10 PGAPPNAME=backstop", "…")
    }

    #[test]
    fn sql_text_and_archive_go_to_standard_output() {
        let shop = shop("service=shop");
        insta::assert_snapshot!(shop.to_stdout(TOOL.as_ref(), DumpFormat::Plain, false).display(), @"PGCONNECT_TIMEOUT=10 PGAPPNAME=backstop /usr/lib/postgresql/15/bin/pg_dump --format=plain --lock-wait-timeout=300000 --no-password -d service=shop");
        insta::assert_snapshot!(shown(shop.to_stdout(TOOL.as_ref(), DumpFormat::Custom, false)), @"… /usr/lib/postgresql/15/bin/pg_dump --format=custom --compress=0 --lock-wait-timeout=300000 --no-password -d service=shop");
    }

    #[test]
    fn a_directory_is_made_by_several_processes() {
        let command =
            shop("postgresql://db1/shop?sslmode=require").to_directory(TOOL.as_ref(), "/scratch/parts".as_ref(), true);
        insta::assert_snapshot!(shown(command), @"… /usr/lib/postgresql/15/bin/pg_dump --format=directory --compress=0 --no-sync --jobs=4 -f /scratch/parts --lock-wait-timeout=300000 --no-unlogged-table-data --no-password -d 'postgresql://db1/shop?sslmode=require'");
        let command = shop("shop").read_through(TOOL.as_ref(), "/scratch/parts".as_ref());
        insta::assert_snapshot!(shown(command), @"/usr/lib/postgresql/15/bin/pg_restore --format=directory -f - /scratch/parts >/dev/null");
    }

    #[test]
    fn globals_are_asked_for_in_the_same_database() {
        let globals = |connection, hides| shown(shop(connection).globals(TOOL.as_ref(), "shop", hides));
        insta::assert_snapshot!(globals("host=db1 dbname=shop", false), @"… /usr/lib/postgresql/15/bin/pg_dumpall --globals-only --no-password -l shop -d 'host=db1 dbname=shop'");
        insta::assert_snapshot!(globals("shop", true), @"… /usr/lib/postgresql/15/bin/pg_dumpall --globals-only --no-role-passwords --no-password -l shop");
    }

    #[test]
    fn a_password_travels_in_the_environment() {
        let mut shop = shop("service=shop");
        shop.password = Some(Secret::new("hunter2"));
        for command in [
            shop.to_stdout(TOOL.as_ref(), DumpFormat::Plain, false),
            shop.to_directory(TOOL.as_ref(), "/scratch".as_ref(), false),
            shop.globals(TOOL.as_ref(), "shop", false),
        ] {
            let line = command.display();
            assert!(line.contains("PGPASSWORD=***") && !line.contains("hunter2"), "{line}");
            assert!(!command.arguments().iter().any(|argument| argument.to_string_lossy().contains("hunter2")));
        }
    }
}
