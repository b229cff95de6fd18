//! How databases of a MySQL or MariaDB server are dumped: one file of SQL for all of them, from one transaction.
//!
//! The tool follows the server: MariaDB's for MariaDB, MySQL's for MySQL, the other one where that is missing. What
//! would be missing in the dump without an error is told before it is made. A newcomer would rely on the tool's zero;
//! a user that may not see a trigger dumps none, and that is no error to the tool.

use std::{path::Path, time::Duration};

use super::{Limits, Making, Output, Source, by_hand};
use crate::{
    engine::mysqldump::{self, Flavour, Tool, Trailer},
    error::{ExitCode, chain},
    mysql::{Client, Contents, Server},
    policy::{Database, Niceness, SecretError},
    process::{self, Ending, Stop},
    record::{Backup, ErrorClass, Failure, Role},
};

/// How long a tool may take to tell its version.
const VERSION: Duration = Duration::from_secs(20);
/// How many names one warning tells.
const TOLD: usize = 10;

/// A database of this engine.
#[derive(Debug, Clone)]
pub struct MySql {
    name: String,
    databases: Vec<String>,
    client: Client,
    tool_dir: Option<std::path::PathBuf>,
    lock_timeout: Duration,
    niceness: Niceness,
}

impl MySql {
    pub(super) fn of(database: &Database) -> Result<Self, SecretError> {
        let name = database.name.to_string();
        let settings = &database.dump;
        let named = &settings.mysql.databases;
        let databases = if named.is_empty() { vec![name.clone()] } else { named.clone() };
        Ok(Self {
            client: Client::of(database)?,
            tool_dir: settings.tool_dir.clone(),
            lock_timeout: settings.lock_timeout,
            niceness: database.niceness,
            name,
            databases,
        })
    }

    pub(super) async fn look(&self, stop: &Stop) -> Result<Source, Failure> {
        let client = self.client.clone().stop(stop);
        let server = client.server().await?;
        let tool = self.tool(server.flavour, stop).await?;
        let contents = client.contents(&self.databases, server.flavour).await?;
        if !contents.missing.is_empty() {
            return Err(missing(&contents.missing));
        }
        if let Some(table) = client.locked_table(&self.databases, self.lock_timeout).await? {
            return Err(locked(&table, self.lock_timeout));
        }
        Ok(Source {
            migrations: client.migrations(&self.databases).await?,
            warnings: warnings(&contents, &server, &tool),
            server: format!("{} {}", server.flavour.name(), server.version),
            server_version: server.version,
            system_id: server.id,
            tool_version: tool.name(),
            tool: tool.program,
            source: self.databases.join(", "),
            size: contents.size,
            limits: Limits::default(),
        })
    }

    /// The first tool of the server's own flavour, else the first one that there is.
    async fn tool(&self, server: Flavour, stop: &Stop) -> Result<Tool, Failure> {
        let candidates = mysqldump::candidates(self.tool_dir.as_deref(), server);
        let (mut found, mut missing) = (Vec::new(), None);
        for program in &candidates {
            match process::capture(&mysqldump::version(program).timeout(Some(VERSION)), stop).await {
                Ok(answer) if answer.ok() => {
                    found.extend(Tool::read(program, &String::from_utf8_lossy(&answer.stdout)));
                }
                Ok(answer) if answer.ending == Ending::Stopped => return Err(mysqldump::explain(&answer.ending, &[])),
                Ok(_) => {}
                Err(error) => missing = missing.or(Some(error)),
            }
        }
        let own = found.iter().position(|tool| tool.flavour == server).unwrap_or(0);
        if own < found.len() {
            return Ok(found.swap_remove(own));
        }
        Err(missing.map_or_else(|| unfit(&candidates[0]), Failure::from))
    }

    pub(super) fn makings(&self, source: &Source, scratch: &Path) -> Result<Vec<Making>, Failure> {
        let tool = Tool::named(&source.tool, &source.tool_version).ok_or_else(|| unfit(&source.tool))?;
        let login = self.client.login().expect("a client of a database logs in");
        let option_file = login.write(scratch).map_err(|error| unwritable(scratch, &error))?;
        let command = login.protect(tool.dump(&option_file, &self.databases), scratch).niceness(self.niceness);
        Ok(vec![Making {
            role: Role::Data,
            name: format!("{}.sql", self.name),
            command,
            output: Output::Stdout,
            inspect: Some(Box::<Trailer>::default()),
        }])
    }

    /// Nothing is staged.
    pub(super) async fn check_staged(&self, _: &Source, _: &Making, _: &Stop) -> Result<Vec<String>, Failure> {
        Ok(Vec::new())
    }

    pub(super) fn explain(&self, _role: Role, ending: &Ending, tail: &[String]) -> Failure {
        mysqldump::explain(ending, tail)
    }
}

fn warnings(contents: &Contents, server: &Server, tool: &Tool) -> Vec<String> {
    let mut warnings = Vec::new();
    if tool.flavour != server.flavour {
        warnings.push(format!(
            "the server is {}, but only `{}` of {} was found: install the server's own `{}`",
            server.flavour.name(),
            tool.name(),
            tool.flavour.name(),
            match server.flavour {
                Flavour::MariaDb => "mariadb-dump",
                Flavour::MySql => "mysqldump",
            }
        ));
    }
    if !contents.not_transactional.is_empty() {
        let tables = some_of(&contents.not_transactional);
        warnings.push(format!("tables without transactions may not fit the others, or themselves: {tables}"));
    }
    for (database, what) in &contents.silences {
        warnings.push(format!(
            "the user may not see all {what} of `{database}`; those are missing in the dump without an error: {}",
            match (*what, server.flavour) {
                ("triggers", _) => "grant it TRIGGER",
                (_, Flavour::MariaDb) => "grant it SELECT on `mysql`.`proc`",
                (_, Flavour::MySql) => "grant it SHOW_ROUTINE",
            }
        ));
    }
    warnings
}

fn some_of(names: &[String]) -> String {
    let told = names.iter().take(TOLD).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let more = names.len().saturating_sub(TOLD);
    if more > 0 { format!("{told} and {more} more") } else { told }
}

fn missing(databases: &[String]) -> Failure {
    Failure {
        class: ErrorClass::Config,
        exit: ExitCode::Configuration,
        message: format!("the server has no database {}, or the user may not see it", some_of(databases)),
        remedy: Some("Correct `mysql.databases` in the policy, or grant the user SELECT on it.".to_owned()),
    }
}

fn locked(table: &str, waited: Duration) -> Failure {
    Failure {
        class: ErrorClass::Transient,
        exit: ExitCode::Busy,
        message: format!("the table {table} was locked for more than {} s", waited.as_secs()),
        remedy: Some("Look at who holds the lock: `show full processlist`; or raise `lock_timeout`.".to_owned()),
    }
}

fn unfit(program: &Path) -> Failure {
    Failure {
        class: ErrorClass::Config,
        exit: ExitCode::ToolNotFound,
        message: format!("`{}` is neither MariaDB's nor MySQL's", program.display()),
        remedy: Some("Install the server's client programs, or name their directory in `tool_dir`.".to_owned()),
    }
}

fn unwritable(scratch: &Path, error: &std::io::Error) -> Failure {
    let (class, exit) = match error.kind() {
        std::io::ErrorKind::StorageFull => (ErrorClass::Space, ExitCode::NoSpace),
        _ => (ErrorClass::Config, ExitCode::Storage),
    };
    Failure {
        class,
        exit,
        message: format!(
            "the option file for the login cannot be written to `{}`: {}",
            scratch.display(),
            chain(error)
        ),
        remedy: Some("Make the scratch directory writable for this user, with space in it.".to_owned()),
    }
}

pub(super) fn restore_by_hand(backup: &Backup, location: &str) -> Vec<String> {
    let Some(dump) = &backup.dump else { return Vec::new() };
    let client = if dump.server.starts_with("MySQL") { "mysql" } else { "mariadb" };
    let mut lines = by_hand::preamble(backup, dump, location, client);
    let login = "--defaults-extra-file=\"$LOGIN\"";
    lines.push(
        "LOGIN=/path/to/login.cnf # an option file: [client], then user, password, and host or socket".to_owned(),
    );
    lines.extend([
        by_hand::shown(&format!(
            "# It makes the databases ({}) and would replace the tables of those that exist: with one, it stops here.",
            dump.source
        )),
        "# To replace them on purpose, leave out the next two lines.".to_owned(),
        format!("FOUND=$({client} {login} -N -e \"{}\")", those_that_exist(&dump.source)),
        "[ -z \"$FOUND\" ] || { echo \"these databases exist: $FOUND\" >&2; exit 1; }".to_owned(),
    ]);
    if client == "mysql" && backup.tool_version.starts_with("mariadb-dump") {
        lines.push("# MySQL's client does not know the first line: put `| tail -n +2` before it.".to_owned());
    }
    let data = dump.artifacts.iter().filter(|artifact| artifact.role == Role::Data);
    lines.extend(data.map(|artifact| {
        let read = by_hand::read(dump, artifact, location);
        format!("{read} | {client} {login} --binary-mode --default-character-set=utf8mb4 --max-allowed-packet=1G")
    }));
    lines
}

/// The question which of the databases a server has; fit for double quotes of the shell. The list is asked as it stands,
/// because a name may hold a comma.
fn those_that_exist(source: &str) -> String {
    let list = format!(", {source}, ");
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-., ".contains(c);
    let literal = if list.chars().all(plain) {
        format!("'{list}'")
    } else {
        let digits: String = list.bytes().map(|byte| format!("{byte:02x}")).collect();
        format!("_utf8mb4 x'{digits}'")
    };
    format!(
        "select schema_name from information_schema.schemata where locate(concat(', ', schema_name, ', '), {literal}) > 0"
    )
}

#[cfg(test)]
mod tests;
