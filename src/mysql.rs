//! SQL on a user's MySQL or MariaDB server, through the client alone (`mariadb`, or `mysql` where that is missing).
//!
//! So the client interprets the connection: option files, TLS, plugins. What the policy says of it, and the password,
//! travel in an option file of ours, which lives as long as the question (`login.rs`). `probe.rs` holds the questions
//! that are asked of every server, `grants.rs` reads what the user may do.
//!
//! A newcomer would split the output at tabs and newlines and be done; the client writes those of a value as `\t` and
//! `\n`. Null is the word `NULL`, like that text: a question that cares says `coalesce`.

mod error;
mod grants;
mod login;
mod probe;
#[cfg(test)]
pub(crate) mod testing;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

pub use self::{
    error::QueryError,
    login::Login,
    probe::{Contents, Server},
};
use crate::{
    engine::mysqldump::defaults_extra_file,
    policy::{Database, SecretError},
    process::{self, Command, Stop},
};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a question may take, unless the caller says otherwise.
const STATEMENT: Duration = Duration::from_secs(30);
/// What the client itself may take beyond that.
const SLACK: Duration = Duration::from_secs(20);

/// One record: its values, `NULL` for null.
pub type Record = Vec<String>;

/// A way to ask one server.
#[derive(Debug, Clone)]
pub struct Client {
    door: Door,
    /// The directory with the programs; `PATH` comes after it.
    bin: Option<PathBuf>,
    statement_timeout: Duration,
    stop: Stop,
}

/// How the server is reached.
#[derive(Debug, Clone)]
enum Door {
    /// As the policy says.
    Login(Arc<Login>),
    /// The socket of a throw-away server, as its `root`.
    Socket(PathBuf),
}

impl Client {
    /// The client of a database, with its password read now.
    ///
    /// # Errors
    /// When the password cannot be read.
    pub fn of(database: &Database) -> Result<Self, SecretError> {
        let bin = database.dump.tool_dir.clone();
        Ok(Self { bin, ..Self::new(Door::Login(Arc::new(Login::of(database)?))) })
    }

    /// How it logs in; none at the socket of a throw-away server.
    pub fn login(&self) -> Option<&Login> {
        match &self.door {
            Door::Login(login) => Some(login),
            Door::Socket(_) => None,
        }
    }

    /// The client of a throw-away server on this host; `bin` holds its programs, where `PATH` does not.
    pub fn at_socket(socket: &Path, bin: Option<&Path>) -> Self {
        Self { bin: bin.map(Path::to_owned), ..Self::new(Door::Socket(socket.to_owned())) }
    }

    fn new(door: Door) -> Self {
        Self { door, bin: None, statement_timeout: STATEMENT, stop: Stop::never() }
    }

    /// The same client, whose questions take at most this long, and wait no longer for a lock.
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

    /// Asks one statement.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn query(&self, sql: &str) -> Result<Vec<Record>, QueryError> {
        let answer = match &self.door {
            Door::Socket(socket) => self.capture(|program| self.at(program, socket, sql)).await?,
            Door::Login(login) => {
                // Goes with its directory as soon as there is an answer.
                let private = login::Private::new().map_err(QueryError::Login)?;
                let file = login.write(private.path()).map_err(QueryError::Login)?;
                self.capture(|program| login.protect(self.with(program, &file, sql), private.path())).await?
            }
        };
        error::check(&answer)?;
        Ok(records(&answer.stdout))
    }

    /// Runs the first client that there is.
    async fn capture(&self, command: impl Fn(PathBuf) -> Command) -> Result<process::Captured, process::Error> {
        let mut programs = self.programs().into_iter().peekable();
        loop {
            let program = programs.next().expect("the last one returns");
            match process::capture(&command(program), &self.stop).await {
                Err(process::Error::NotFound { .. }) if programs.peek().is_some() => {}
                result => return result,
            }
        }
    }

    /// The likeliest first; the last one is the one that is missed when there is none.
    fn programs(&self) -> Vec<PathBuf> {
        let names = ["mariadb", "mysql"];
        let own = self.bin.iter().flat_map(|bin| names.map(|name| bin.join(name)));
        own.chain(names.map(PathBuf::from)).collect()
    }

    fn with(&self, program: PathBuf, option_file: &Path, sql: &str) -> Command {
        self.ask(Command::new(program).arg(defaults_extra_file(option_file)), sql)
    }

    fn at(&self, program: PathBuf, socket: &Path, sql: &str) -> Command {
        let mut argument = std::ffi::OsString::from("--socket=");
        argument.push(socket);
        self.ask(Command::new(program).args(["--no-defaults", "--user=root"]).arg(argument), sql)
    }

    fn ask(&self, command: Command, sql: &str) -> Command {
        command
            .args(["--batch", "--skip-column-names", "--default-character-set=utf8mb4", "--local-infile=0"])
            // It would show the statement after each error; MySQL's client does not know it and does not mind.
            .args(["--loose-skip-print-query-on-error", "--skip-reconnect"])
            .arg(format!("--connect-timeout={}", CONNECT.as_secs()))
            .arg(format!("--init-command={}", self.limits()))
            .args(["-e", sql])
            .timeout(Some(CONNECT + self.statement_timeout + SLACK))
    }

    /// Each server reads the comment that is for it: the limits have other names and units.
    fn limits(&self) -> String {
        let seconds = self.statement_timeout.as_secs().max(1);
        let statement = seconds + 5;
        format!(
            "set lock_wait_timeout = {seconds} /*M!100100 , max_statement_time = {statement} */ \
             /*!50708 , max_execution_time = {statement}000 */"
        )
    }
}

/// Splits what the client wrote with `--batch`.
fn records(stdout: &[u8]) -> Vec<Record> {
    let text = String::from_utf8_lossy(stdout);
    text.split_terminator('\n').map(|line| line.split('\t').map(value).collect()).collect()
}

/// A value as it was before the client wrote it.
fn value(text: &str) -> String {
    let mut value = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let plain = |c| match c {
            'n' => '\n',
            't' => '\t',
            '0' => '\0',
            other => other,
        };
        value.push(if c == '\\' { chars.next().map_or('\\', plain) } else { c });
    }
    value
}

/// A text as SQL, whatever the server's modes make of backslashes and quotes.
pub fn literal(text: &str) -> String {
    let digits: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    if text.is_empty() { "''".to_owned() } else { format!("_utf8mb4 x'{digits}'") }
}

/// A name as SQL.
pub fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{MySql, Secret};

    fn client() -> Client {
        let settings = MySql { host: Some("db1".into()), user: Some("backup".into()), ..MySql::default() };
        Client::new(Door::Login(Arc::new(Login::new(settings, Some(Secret::new("hunter two"))))))
    }

    #[test]
    fn the_command_line_names_the_option_file_first_and_no_password() {
        let client = client();
        let Door::Login(login) = &client.door else { unreachable!("it was made with a login") };
        let command = client.with("mariadb".into(), Path::new("/run/x/login.cnf"), "select 1");
        insta::assert_snapshot!(
            login.protect(command, Path::new("/run/x")).display(),
            @"HOME=/run/x mariadb --defaults-extra-file=/run/x/login.cnf --batch --skip-column-names --default-character-set=utf8mb4 --local-infile=0 --loose-skip-print-query-on-error --skip-reconnect --connect-timeout=10 '--init-command=set lock_wait_timeout = 30 /*M!100100 , max_statement_time = 35 */ /*!50708 , max_execution_time = 35000 */' -e 'select 1'"
        );
    }

    #[test]
    fn a_throw_away_server_is_reached_by_its_socket_alone() {
        let client = Client::at_socket(Path::new("/s/sock"), Some(Path::new("/opt/bin")));
        let command = client.at(client.programs().remove(0), Path::new("/s/sock"), "select 1");
        insta::assert_snapshot!(
            command.display(),
            @"/opt/bin/mariadb --no-defaults --user=root --socket=/s/sock --batch --skip-column-names --default-character-set=utf8mb4 --local-infile=0 --loose-skip-print-query-on-error --skip-reconnect --connect-timeout=10 '--init-command=set lock_wait_timeout = 30 /*M!100100 , max_statement_time = 35 */ /*!50708 , max_execution_time = 35000 */' -e 'select 1'"
        );
    }

    #[test]
    fn values_may_hold_everything() {
        assert_eq!(
            records(b"a\\tb\\nc\\\\d\tNULL\t\\0\t\xc3\xbc\n\n"),
            [vec!["a\tb\nc\\d", "NULL", "\0", "ü"], vec![""]]
        );
        assert_eq!(records(b""), Vec::<Record>::new());
        assert_eq!(records(b"\xff\n"), [["\u{FFFD}"]]);
    }

    #[test]
    fn no_text_can_end_its_literal_and_no_name_its_quotes() {
        assert_eq!(literal("a'\\"), "_utf8mb4 x'61275c'");
        assert_eq!(literal(""), "''");
        assert_eq!(identifier("we`ird"), "`we``ird`");
    }
}
