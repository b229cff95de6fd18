//! A PostgreSQL dump in a new cluster of its own: roles and tablespaces first, then the database, then every check.
//!
//! The server's version is the dump's, or the tool's where that is newer: what `pg_dump` writes loads into its own version
//! and later ones. The cluster's first role is called as production's was, so that grants find their grantor; we connect as
//! another one, because production's may not be allowed to log in. Encoding and locale of the database are the dump's own
//! (`pg_restore --create`); a plain dump that does not create its database gets its encoding and the locale `C.UTF-8`.
//! Where a locale is not on this host the restore fails and says which: on such a host the dump is of no use.
//!
//! With the globals beside it a dump must load without any error. Without them, roles and tablespaces are missing by the
//! policy's choice, and only that is overlooked.
//!
//! What the tools say is read and not kept: an error shows the statement, and that may hold the password of a
//! subscription. A newcomer would load with a tool's usual settings; `psql` takes no error for a reason to stop.

mod complaint;
mod globals;
mod rows;

use std::path::{Path, PathBuf};

use self::{complaint::Complaint, globals::Globals};
use super::{
    super::{
        Context, Way, checks, failure, listed,
        steps::{self, Checked, Result},
        stopped,
        walls::{self, Ground},
    },
    Fetched,
};
use crate::{
    postgres::Client,
    process::{Captured, Command, Ending, capture},
    record::{Backup, DumpFormat, ErrorClass, Failure, Role},
    sandbox::{PORT, Sandbox, Server, Start, Trouble, write_configuration},
};

/// Scratch space: so many times the dump, for its files, tables, indexes and WAL, and so much for an empty cluster.
pub(super) const SPACE: (u64, u64) = (4, 128 << 20);

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
        "server",
        "globals",
        "restore",
        "connect",
        "size",
        "read_every_row",
        "row_counts",
        "assertions",
        "amcheck",
        "checksums",
    ],
    mandatory: &["fetch", "walls", "server", "restore", "connect", "read_every_row", "row_counts"],
    verdict_from: "fetch",
    recovery: &["fetch", "globals", "restore"],
};

/// The programs that it needs.
const PROGRAMS: [&str; 6] = ["postgres", "initdb", "psql", "pg_restore", "pg_dump", "pg_dumpall"];
/// Whom we connect as.
const SUPERUSER: &str = "backstop_sandbox";
/// Where a database that is made or replaced is not.
const MAINTENANCE: &str = "template1";
/// Settings of a role or database that would end or refuse the load are off.
const PGOPTIONS: &str = "-c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0 \
                         -c default_transaction_read_only=off -c client_min_messages=error";

/// Finds the server's programs, of the dump's version or its tool's, whichever is later.
pub(super) async fn find_programs(context: &Context, backup: &Backup) -> Result<PathBuf> {
    walls::find_postgres(context, major(backup), &PROGRAMS).await
}

/// The later one of the server's and the tool's major version; before version 10 a major version has two parts.
fn major(backup: &Backup) -> &str {
    let server = backup.server_version.as_str();
    let number = |text: &str| text.split('.').next().and_then(|major| major.parse::<u32>().ok()).unwrap_or(0);
    let tool = backup.tool_version.split_whitespace().find(|word| number(word) >= 10);
    let tool = tool.and_then(|version| version.split(|c: char| !c.is_ascii_digit()).next());
    tool.filter(|tool| number(tool) > number(server)).unwrap_or(server)
}

/// Loads the dump into a new cluster and checks it.
pub(super) async fn prove(context: &Context, fetched: &Fetched<'_>, way: &mut Way) -> std::result::Result<(), Failure> {
    let Way { steps, facts, .. } = way;
    let globals = Globals::read(fetched.files(Role::Globals))?;
    let ground = Ground {
        layout: fetched.layout.clone(),
        programs: fetched.programs.clone(),
        production: &[],
        tablespaces: &globals.tablespaces,
    };
    let sandbox = steps.run("walls", walls::build_walls(context, ground)).await?;
    let load = Load { context, fetched, globals: &globals, sandbox: &sandbox };
    let (_server, client) = steps.run("server", load.start()).await?;
    steps.run("globals", load.globals()).await?;
    steps.run("restore", load.restore(&client)).await?;

    let database = fetched.dump.source.as_str();
    let databases = steps.run("connect", checks::connect(&client)).await?;
    facts.size = steps.run("size", checks::size(&client)).await?;
    steps.run("read_every_row", checks::read_every_row(context, &sandbox, SUPERUSER, &databases)).await?;
    steps.run("row_counts", rows::count(&client, database)).await?;
    steps.run("assertions", checks::assertions(context, &client, database)).await?;
    steps.run("amcheck", checks::amcheck(context, &client, &sandbox, SUPERUSER)).await?;
    let reason = "the pages are new; a dump has none";
    steps.run("checksums", async { Ok(Checked::skipped((), reason)) }).await
}

/// A dump on its way into a new cluster.
struct Load<'a> {
    context: &'a Context,
    fetched: &'a Fetched<'a>,
    globals: &'a Globals,
    sandbox: &'a Sandbox,
}

impl Load<'_> {
    /// Makes an empty cluster, starts its server, and lets us in.
    async fn start(&self) -> Result<(Server, Client)> {
        let layout = self.sandbox.layout();
        let made = self.captured(&initdb(self.sandbox, &self.globals.superuser)).await?;
        if !made.ok() {
            let message = format!("`initdb` failed: {}", made.stderr.lines().last().unwrap_or_default());
            return Err(failure(ErrorClass::Config, message, "Look at the memory and disk of this host."));
        }
        write_configuration(layout, Start::Fresh)?;
        let mut server = Server::start(self.sandbox, &self.context.log_dir.join("server.log"))?;
        server.recovered(&self.context.stop).await.map_err(no_server)?;
        let client = Client::at_socket(&layout.sockets(), PORT, self.sandbox.programs()).stop(&self.context.stop);
        if self.globals.superuser != SUPERUSER {
            let first = client.clone().as_role(&self.globals.superuser);
            let make_ours = format!("create role {SUPERUSER} superuser login");
            first.query(&make_ours).await.map_err(checks::query_failed)?;
        }
        let client = client.as_role(SUPERUSER);
        let asked = "select current_setting('data_directory'), current_setting('server_version')";
        let answer = client.query(asked).await.map_err(checks::query_failed)?;
        let field = |number: usize| answer.first().and_then(|row| row.get(number)).map_or("", String::as_str);
        if Path::new(field(0)) != layout.data() {
            let message = format!("another server answered: data directory `{}`", field(0));
            return Err(failure(ErrorClass::Defect, message, "Report it; nothing was changed."));
        }
        let detail = format!("a new cluster of PostgreSQL {}, first role `{}`", field(1), self.globals.superuser);
        Ok(Checked::passed((server, client), detail))
    }

    /// Makes roles and tablespaces. Only what the new cluster has by itself may be there already.
    async fn globals(&self) -> Result<()> {
        let Some(file) = &self.globals.file else {
            return Ok(Checked::skipped((), "the dump was made without roles and tablespaces"));
        };
        let psql = self.tool("psql").args(["-X", "-q", "-d", "postgres", "-v", "VERBOSITY=verbose", "-f"]).arg(file);
        let said = self.captured(&psql).await?;
        let complaints = Complaint::all(&said.stderr);
        let own = |complaint: &&Complaint| !complaint.is_role_there(&self.globals.superuser);
        let wrong: Vec<&Complaint> = complaints.iter().filter(own).collect();
        if !said.ok() || !wrong.is_empty() {
            return Err(complaint::failed("roles and tablespaces", &said, wrong));
        }
        let (roles, tablespaces) = (self.globals.roles, self.globals.tablespaces.len());
        Ok(Checked::passed((), format!("{roles} roles, {tablespaces} tablespaces")))
    }

    /// Loads the database.
    async fn restore(&self, client: &Client) -> Result<()> {
        let source = self.fetched.dump.source.as_str();
        let is_strict = self.globals.file.is_some();
        // The new cluster has a database `postgres` of its own.
        let make_room = format!("drop database if exists {}", quoted(source));
        client.query_in(MAINTENANCE, &make_room).await.map_err(checks::query_failed)?;
        let command = if self.fetched.dump.format == DumpFormat::Plain {
            let file = self.fetched.data()?;
            let head = Head::read(&file)?;
            if !head.creates_database {
                client.query_in(MAINTENANCE, &head.create(source)).await.map_err(checks::query_failed)?;
            }
            self.psql(&file, &head, is_strict)
        } else {
            self.pg_restore(is_strict)?
        };
        let said = self.captured(&command).await?;
        let complaints = Complaint::all(&said.stderr);
        let (overlooked, wrong): (Vec<_>, Vec<_>) =
            complaints.iter().partition(|complaint| !is_strict && complaint.is_of_missing_globals());
        // Without the globals a tool that went on past its errors says so by its code.
        let ended_well = said.ok() || (!is_strict && !overlooked.is_empty() && said.ending == Ending::Exited(1));
        if !ended_well || !wrong.is_empty() {
            return Err(complaint::failed("the dump", &said, wrong));
        }
        let without = match overlooked.len() {
            0 => String::new(),
            count => format!("; {count} statements name roles or tablespaces that were not dumped"),
        };
        Ok(Checked::passed((), format!("`{source}` from a {} dump{without}", self.fetched.dump.format)))
    }

    fn psql(&self, file: &Path, head: &Head, is_strict: bool) -> Command {
        let database = if head.creates_database { MAINTENANCE } else { &self.fetched.dump.source };
        let mut psql = self.tool("psql").args(["-X", "-q", "-v", "VERBOSITY=verbose", "-d", &named(database)]);
        if is_strict {
            psql = psql.args(["-v", "ON_ERROR_STOP=1"]);
        }
        // A database cannot be made within a transaction.
        if is_strict && !head.creates_database {
            psql = psql.arg("-1");
        }
        psql.arg("-f").arg(file)
    }

    fn pg_restore(&self, is_strict: bool) -> std::result::Result<Command, Failure> {
        let mut restore = self.tool("pg_restore").args(["--create", "-d", MAINTENANCE]);
        if is_strict {
            restore = restore.arg("--exit-on-error");
        }
        if let Some(directory) = self.fetched.directory() {
            let jobs = format!("--jobs={}", self.context.database().dump.jobs.max(1));
            return Ok(restore.arg(jobs).arg(directory));
        }
        Ok(restore.arg(self.fetched.data()?))
    }

    /// One of PostgreSQL's client programs, inside as well: a dump may tell it to run others.
    fn tool(&self, program: &str) -> Command {
        let command = self.sandbox.command(program).arg("--host").arg(self.sandbox.layout().sockets());
        let port = PORT.to_string();
        command.args(["--port", &port, "--username", SUPERUSER, "--no-password"]).env("PGOPTIONS", PGOPTIONS)
    }

    /// Runs a tool and keeps what it says in memory only.
    async fn captured(&self, command: &Command) -> std::result::Result<Captured, Failure> {
        let command = command.clone().timeout(self.context.time_left()).discard_output();
        let captured = capture(&command, &self.context.stop).await?;
        match captured.ending {
            Ending::Stopped => Err(stopped()),
            Ending::TimedOut => {
                let remedy = "Raise `timeout` of the test restore.";
                Err(failure(ErrorClass::Transient, "the restore did not end in time", remedy))
            }
            _ => Ok(captured),
        }
    }
}

fn initdb(sandbox: &Sandbox, superuser: &str) -> Command {
    let command = sandbox.command("initdb").arg("-D").arg(sandbox.layout().data());
    command.args(["-U", superuser, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"])
}

fn no_server(trouble: Trouble) -> Failure {
    if matches!(trouble, Trouble::Stopped) {
        return stopped();
    }
    failure(ErrorClass::Config, trouble.to_string(), "Read `server.log` of the run; look at the memory of this host.")
}

/// What the beginning of a plain dump says.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    /// Whether it makes its database itself.
    creates_database: bool,
    /// Its encoding.
    encoding: String,
}

impl Head {
    /// How much is looked at; both stand before everything else.
    const LENGTH: u64 = 64 << 10;

    fn read(file: &Path) -> std::result::Result<Self, Failure> {
        use std::io::Read;
        let mut bytes = Vec::new();
        let opened = std::fs::File::open(file);
        opened.and_then(|file| file.take(Self::LENGTH).read_to_end(&mut bytes)).map_err(|source| {
            let message = format!("{} cannot be read: {source}", listed(&[file.to_owned()]));
            failure(ErrorClass::Config, message, "Look at the file system of `daemon.scratch_dir`.")
        })?;
        Ok(Self::of(&String::from_utf8_lossy(&bytes)))
    }

    fn of(text: &str) -> Self {
        let encoding = text.lines().find_map(|line| line.strip_prefix("SET client_encoding = '")?.strip_suffix("';"));
        Self {
            creates_database: text.lines().any(|line| line.starts_with("CREATE DATABASE ")),
            encoding: encoding.unwrap_or("UTF8").to_owned(),
        }
    }

    /// The statement that makes the database for it.
    fn create(&self, database: &str) -> String {
        let locale = if self.encoding == "UTF8" { "C.UTF-8" } else { "C" };
        let (database, encoding) = (quoted(database), self.encoding.replace('\'', "''"));
        format!("create database {database} template template0 encoding '{encoding}' locale '{locale}'")
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A database as `-d` takes it: by itself a name with `=` would be read as a connection string.
fn named(database: &str) -> String {
    format!("dbname='{}'", database.replace('\\', r"\\").replace('\'', r"\'"))
}

#[cfg(test)]
mod tests;
