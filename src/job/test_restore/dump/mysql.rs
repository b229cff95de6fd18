//! A dump of MySQL or MariaDB in a throw-away MariaDB server, every table checked and counted.
//!
//! The server is MariaDB, of the dump's version or a later one; a dump of MySQL knows collations that MariaDB does not, so
//! it is refused rather than called broken. Users are not in a dump: who is named as a definer gets a stand-in, else no
//! view of his could be asked. Events are loaded and never run.
//!
//! A newcomer would check the views as well; a view that is broken in production is broken in the copy, and `mariadb-dump`
//! told so.

use std::path::{Path, PathBuf};

use super::{
    super::{
        Context, Way,
        checks::{self, Answers},
        failure, listed,
        steps::{self, Checked, Result},
        stopped,
        walls::{self, Ground},
    },
    Fetched, counts,
};
use crate::{
    engine::mysqldump::{explain_load, install_command, load_command, server_command},
    error::{ExitCode, chain},
    human,
    mysql::{Client, QueryError, Record, identifier},
    process::{Captured, Command, Ending, capture},
    record::{Backup, ErrorClass, Failure, Role},
    sandbox::{Sandbox, Server, Trouble},
};

/// Scratch space: so many times the dump, for its file, tables and indexes, and so much for an empty server.
pub(super) const SPACE: (u64, u64) = (4, 256 << 20);

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
        "restore",
        "connect",
        "size",
        "read_every_row",
        "objects",
        "assertions",
    ],
    mandatory: &["fetch", "walls", "server", "restore", "connect", "read_every_row"],
    verdict_from: "fetch",
    recovery: &["fetch", "restore"],
};

/// The programs that it needs.
const PROGRAMS: [&str; 3] = ["mariadbd", "mariadb-install-db", "mariadb"];
/// Where they lie, unless the policy says `server_bin`.
const USUAL: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// Databases of the server itself.
const SYSTEM: &str = "('information_schema', 'mysql', 'performance_schema', 'sys')";
/// What there is beside tables, and the column that names its database.
const OBJECTS: [(&str, &str); 4] = [
    ("views", "table_schema"),
    ("routines", "routine_schema"),
    ("triggers", "trigger_schema"),
    ("events", "event_schema"),
];
const DAMAGED: &str = "Make a new backup, and run `mariadb-check` on production.";
/// How many damaged tables are told.
const TOLD: usize = 5;

/// Finds MariaDB's programs; the directory of the server is the step's value.
pub(super) async fn find_programs(context: &Context, backup: &Backup) -> Result<PathBuf> {
    let wanted = backup.server_version.as_str();
    let unfit = |message: String| {
        let remedy = format!("Install MariaDB {wanted} or later, or set `test_restore.server_bin` to its directory.");
        Failure { exit: ExitCode::ToolNotFound, ..failure(ErrorClass::Config, message, &remedy) }
    };
    let server = backup.dump.as_ref().map_or("", |dump| dump.server.as_str());
    if server.starts_with("MySQL") {
        let message = format!("a dump of {server} can only be restored into MySQL, and only MariaDB is run here");
        let remedy = "Restore it by hand into a MySQL server; `backstop show` prints the commands.";
        return Err(Failure { exit: ExitCode::ToolNotFound, ..failure(ErrorClass::Config, message, remedy) });
    }
    let own = context.database().test_restore.server_bin.clone();
    let directories: Vec<PathBuf> = own.map_or_else(|| USUAL.map(PathBuf::from).to_vec(), |own| vec![own]);
    let find = |name: &&str| directories.iter().find(|directory| directory.join(name).exists());
    let missing: Vec<PathBuf> = PROGRAMS.iter().filter(|name| find(name).is_none()).map(PathBuf::from).collect();
    let Some(directory) = find(&PROGRAMS[0]).filter(|_| missing.is_empty()) else {
        return Err(unfit(format!("{} is not there", listed(&missing))));
    };
    let said = capture(&Command::new(directory.join(PROGRAMS[0])).arg("--version"), &context.stop).await?;
    let said = String::from_utf8_lossy(&said.stdout);
    let version = said.split_once(" Ver ").map_or("", |(_, rest)| rest).split_whitespace().next().unwrap_or_default();
    if release(version) < release(wanted) {
        return Err(unfit(format!("`{}` is version {version}, the dump is of {wanted}", directory.display())));
    }
    let detail = format!("MariaDB {version} in {}", directory.display());
    Ok(Checked::passed(directory.clone(), detail))
}

/// The two numbers that name a release: `10.11.14-MariaDB` is of 10.11.
fn release(version: &str) -> (u32, u32) {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Loads the dump into a new server and checks it.
pub(super) async fn prove(context: &Context, fetched: &Fetched<'_>, way: &mut Way) -> std::result::Result<(), Failure> {
    let Way { steps, facts, .. } = way;
    let (layout, programs) = (fetched.layout.clone(), fetched.programs.clone());
    let ground = Ground { layout, programs, production: &[], tablespaces: &[] };
    let sandbox = steps.run("walls", walls::build_walls(context, ground)).await?;
    let load = Load { context, fetched, sandbox: &sandbox };
    let (_server, client) = steps.run("server", load.start()).await?;
    steps.run("restore", load.restore(&client)).await?;

    let copy = Copy { context, client: client.statement_timeout(checks::ASSERTION) };
    let databases = steps.run("connect", copy.connect(&fetched.dump.source)).await?;
    facts.size = steps.run("size", copy.size()).await?;
    steps.run("read_every_row", copy.read_every_row()).await?;
    steps.run("objects", copy.objects()).await?;
    steps.run("assertions", copy.assertions(&databases[0])).await
}

/// A dump on its way into a new server.
struct Load<'a> {
    context: &'a Context,
    fetched: &'a Fetched<'a>,
    sandbox: &'a Sandbox,
}

impl Load<'_> {
    /// The directory with the programs, where `PATH` has them not.
    fn bin(&self) -> Option<&Path> {
        self.context.database().test_restore.server_bin.as_deref()
    }

    fn socket(&self) -> PathBuf {
        self.sandbox.layout().sockets().join("mariadb.sock")
    }

    /// Makes an empty server and starts it.
    async fn start(&self) -> Result<(Server, Client)> {
        let layout = self.sandbox.layout();
        // Without a network it finds no host name, and would give up without `--force`.
        let install = self.sandbox.enter(&install_command(self.bin(), &layout.data())).arg("--force");
        let made = self.captured(install.discard_output()).await?;
        if !made.ok() {
            let message = format!("`mariadb-install-db` failed: {}", made.stderr.lines().last().unwrap_or_default());
            return Err(failure(ErrorClass::Config, message, "Look at the memory and disk of this host."));
        }
        // What it says comes to us; what it sorts does not fill the memory, in which `/tmp` lies.
        let command = server_command(self.bin(), &layout.data(), &self.socket(), &layout.work().join("server.log"));
        let command = command.arg("--skip-log-error").arg(format!("--tmpdir={}", layout.work().display()));
        let log = self.context.log_dir.join("server.log");
        let mut server = Server::start_mariadb(self.sandbox, &command, &log)?;
        server.recovered(&self.context.stop).await.map_err(no_server)?;
        let client = Client::at_socket(&self.socket(), self.bin()).stop(&self.context.stop);
        let answer = client.query("select @@datadir, version()").await.map_err(query_failed)?;
        let field = |number: usize| answer.first().and_then(|row| row.get(number)).map_or("", String::as_str);
        if Path::new(field(0)) != layout.data() {
            let message = format!("another server answered: data directory `{}`", field(0));
            return Err(failure(ErrorClass::Defect, message, "Report it; nothing was changed."));
        }
        Ok(Checked::passed((server, client), format!("a new server of MariaDB {}", field(1))))
    }

    /// Loads every file.
    async fn restore(&self, client: &Client) -> Result<()> {
        let files = self.fetched.files(Role::Data);
        for file in &files {
            let load = self.sandbox.enter(&load_command(self.bin(), &self.socket(), file)).discard_output();
            let said = self.captured(load).await?;
            if !said.ok() {
                let tail: Vec<String> = said.stderr.lines().map(str::to_owned).collect();
                return Err(explain_load(&said.ending, &tail));
            }
        }
        let definers = stand_in_for_definers(client).await.map_err(query_failed)?;
        let definers = if definers == 0 { String::new() } else { format!("; {definers} definers stood in for") };
        Ok(Checked::passed((), format!("`{}`{definers}", self.fetched.dump.source)))
    }

    /// Runs a tool and keeps what it says in memory only: an error may show rows.
    async fn captured(&self, command: Command) -> std::result::Result<Captured, Failure> {
        let captured = capture(&command.timeout(self.context.time_left()), &self.context.stop).await?;
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

/// Makes the users that are named as definers; how many that were.
async fn stand_in_for_definers(client: &Client) -> std::result::Result<usize, QueryError> {
    let named = OBJECTS.map(|(table, schema)| {
        format!("select definer from information_schema.{table} where {schema} not in {SYSTEM}")
    });
    let definers = client.query(&named.join(" union ")).await?;
    let mut count = 0;
    for (user, host) in definers.iter().flatten().filter_map(|definer| definer.rsplit_once('@')) {
        if user == "root" || user.is_empty() || host.is_empty() {
            continue;
        }
        let account = format!("{}@{}", word(user), word(host));
        // One that cannot be made leaves his views unreadable, nothing else.
        let made = format!("create user if not exists {account}; grant all privileges on *.* to {account}");
        count += usize::from(client.query(&made).await.is_ok());
    }
    Ok(count)
}

/// A user's or host's name; these take no hexadecimal literal.
fn word(name: &str) -> String {
    format!("'{}'", name.replace('\\', r"\\").replace('\'', "''"))
}

fn no_server(trouble: Trouble) -> Failure {
    if matches!(trouble, Trouble::Stopped) {
        return stopped();
    }
    failure(ErrorClass::Config, trouble.to_string(), "Read `server.log` of the run; look at the memory of this host.")
}

fn query_failed(error: QueryError) -> Failure {
    if matches!(error, QueryError::Stopped) {
        return stopped();
    }
    failure(
        ErrorClass::Integrity,
        format!("the copy does not answer: {}", chain(&error)),
        "Read `server.log` of the run.",
    )
}

/// A copy on its server, open to questions.
struct Copy<'a> {
    context: &'a Context,
    client: Client,
}

impl Copy<'_> {
    async fn query(&self, sql: &str) -> std::result::Result<Vec<Record>, Failure> {
        self.client.query(sql).await.map_err(query_failed)
    }

    /// The databases that came; every one that was dumped must be there.
    async fn connect(&self, source: &str) -> Result<Vec<String>> {
        let asked =
            format!("select schema_name from information_schema.schemata where schema_name not in {SYSTEM} order by 1");
        let databases: Vec<String> = self.query(&asked).await?.into_iter().flatten().collect();
        let missing: Vec<&str> =
            source.split(", ").filter(|name| !databases.iter().any(|found| found == name)).collect();
        let is_one = databases.iter().any(|found| found == source);
        if databases.is_empty() || !(is_one || missing.is_empty()) {
            let message = format!("a database did not come with the dump: {}", missing.join(", "));
            return Err(failure(ErrorClass::Integrity, message, "Make a new backup."));
        }
        let detail = format!("{} databases: {}", databases.len(), databases.join(", "));
        Ok(Checked::passed(databases, detail))
    }

    async fn size(&self) -> Result<u64> {
        let asked = format!(
            "select coalesce(sum(data_length + index_length), 0) from information_schema.tables where table_schema not in {SYSTEM}"
        );
        let rows = self.query(&asked).await?;
        let size: u64 = rows.first().and_then(|row| row.first()?.parse().ok()).unwrap_or(0);
        Ok(Checked::passed(size, human::size(size)))
    }

    /// Checks every table with every index, and counts its rows.
    async fn read_every_row(&self) -> Result<()> {
        let asked = format!(
            "select table_schema, table_name from information_schema.tables \
             where table_type in ('BASE TABLE', 'SYSTEM VERSIONED') and table_schema not in {SYSTEM} order by 1, 2"
        );
        let (mut counted, mut wrong) = (Vec::new(), Vec::new());
        for table in self.query(&asked).await? {
            let [schema, name] = table.as_slice() else { continue };
            let sql = format!("{}.{}", identifier(schema), identifier(name));
            let mut said = self.query(&format!("check table {sql} extended; select count(*) from {sql}")).await?;
            let rows = said.pop().and_then(|row| row.first()?.parse().ok()).unwrap_or(0);
            wrong.extend(trouble(&said).map(|why| format!("`{schema}.{name}`: {why}")));
            counted.push((format!("{schema}.{name}"), rows));
        }
        if wrong.is_empty() {
            return Ok(Checked::passed((), counts::told(counted)));
        }
        let told = wrong.iter().take(TOLD).cloned().collect::<Vec<_>>().join("; ");
        let message = format!("{} tables are damaged: {told}", wrong.len());
        Err(failure(ErrorClass::Integrity, message, DAMAGED))
    }

    /// What there is beside tables, for whoever compares.
    async fn objects(&self) -> Result<()> {
        let counts = OBJECTS.map(|(table, schema)| {
            format!("(select count(*) from information_schema.{table} where {schema} not in {SYSTEM})")
        });
        let rows = self.query(&format!("select {}", counts.join(", "))).await?;
        let count = |number: usize| rows.first().and_then(|row| row.get(number)).map_or("0", String::as_str);
        let (views, routines, triggers, events) = (count(0), count(1), count(2), count(3));
        let detail = format!("{views} views, {routines} routines, {triggers} triggers, {events} events");
        Ok(Checked::passed((), detail))
    }

    async fn assertions(&self, database: &str) -> Result<()> {
        let mut answers = Answers::default();
        for assertion in &self.context.database().test_restore.assertions {
            let database = identifier(assertion.database.as_deref().unwrap_or(database));
            let answer = self.client.query(&format!("use {database}; {}", assertion.sql)).await;
            answers.add(assertion, answer.map_err(|error| chain(&error)));
        }
        answers.judge()
    }
}

/// What `check table` found wrong: its last line must be a good state, or that the engine has no such check.
fn trouble(said: &[Record]) -> Option<String> {
    let field = |row: &Record, number: usize| row.get(number).cloned().unwrap_or_default();
    let error = said.iter().find(|row| field(row, 2).eq_ignore_ascii_case("error"));
    if let Some(row) = error {
        return Some(field(row, 3));
    }
    let last = said.last().map(|row| (field(row, 2), field(row, 3))).unwrap_or_default();
    match (last.0.as_str(), last.1.as_str()) {
        ("status", "OK" | "Table is already up to date") | ("note", _) => None,
        ("", _) => Some("`check table` said nothing".to_owned()),
        (_, text) => Some(text.to_owned()),
    }
}

#[cfg(test)]
mod tests;
