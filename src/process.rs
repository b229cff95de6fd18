//! Children: how a tool is started, watched, stopped and found again. Nothing else in the program spawns one.
//!
//! There are three ways to run a [`Command`]. [`capture()`] is for a short question: the answer comes back in memory.
//! [`spawn`] is for long work: both streams go into a log file that is followed line by line. A pipe would be wrong
//! there, because a backup whose reader dies either dies with it or hangs for ever; with a file it lives on, and the
//! next daemon finds it by its [`ProcessIdentity`](crate::record::ProcessIdentity) and adopts it ([`adopt`]).
//!
//! [`spawn_piped`] is for a tool whose standard output *is* the backup, a dump. pgBackRest writes its backup itself and
//! only talks to us, so it can finish without us; a dump without its reader is nothing. Its output goes through a pipe
//! to us and from here to the storages, with no copy on a disk. If we die, its next write meets a pipe without a reader
//! and SIGPIPE ends it: exactly right, for nobody could finish what it began. Such a run is never adopted; it was
//! interrupted and begins again. Its standard error goes to a file that is followed, as with [`spawn`].
//!
//! Every child leads a process group of its own. Ending it means ending the group: TERM, grace, KILL, until nobody is
//! left, because the workers of a tool that was killed alone go on writing and keep its lock. A process that makes a
//! session of its own escapes the group; systemd's control group is the last net for those.
//!
//! The parts: `child.rs` is the long run, `capture.rs` the short one, `follow.rs` reads a growing log, `group.rs` ends
//! groups, `identity.rs` reads `/proc`, `redact.rs` keeps secrets out of what is shown, `running.rs` is a child
//! between start and end, `stop.rs` carries the wish to stop.
//!
//! A newcomer would inherit the environment; a child gets only what its command says.

mod capture;
mod child;
mod follow;
mod group;
mod identity;
mod redact;
mod running;
mod stop;
#[cfg(test)]
pub(crate) mod testing;

use std::{
    ffi::{OsStr, OsString},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

pub use self::{
    capture::{Captured, capture},
    child::{Activity, Adopted, Child, Finished, adopt, spawn, spawn_piped},
    group::{end_group, group_is_alive, interrupt},
    identity::{find_by_argument, find_by_program, identify, is_alive, own_identity},
    redact::Redactor,
    stop::{Stop, StopHandle},
};
use crate::{
    error::ExitCode,
    policy::{IoClass, Niceness, Secret},
    record::{ErrorClass, Failure},
};

/// Where programs are looked up. PostgreSQL's versioned directories are not in it: who needs a certain version names it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long a group has to end after TERM, unless the command says otherwise.
const GRACE: Duration = Duration::from_secs(10);

/// What to run: a program, its arguments as a list, and an environment built from nothing.
///
/// The environment holds `PATH` (fixed), `HOME` (of the effective user), `TZ=UTC`, `LC_ALL=C.UTF-8`, and what
/// [`env`](Command::env) and [`secret_env`](Command::secret_env) add or replace.
#[derive(Debug, Clone)]
pub struct Command {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(String, Value)>,
    secrets: Vec<Secret>,
    timeout: Option<Duration>,
    grace: Duration,
    niceness: Niceness,
    directory: PathBuf,
    discards_output: bool,
}

#[derive(Debug, Clone)]
enum Value {
    Open(OsString),
    Hidden(Secret),
}

impl Value {
    fn as_os_str(&self) -> &OsStr {
        match self {
            Value::Open(value) => value,
            Value::Hidden(secret) => OsStr::new(secret.expose()),
        }
    }
}

impl Command {
    /// A program, by absolute path or by a name that is looked up in `PATH`.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            secrets: Vec::new(),
            timeout: None,
            grace: GRACE,
            niceness: Niceness::default(),
            directory: PathBuf::from("/"),
            discards_output: false,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.to_owned(), Value::Open(value.into())));
        self
    }

    /// Sets a variable to a secret, which is then kept out of everything that is shown.
    #[must_use]
    pub fn secret_env(mut self, name: &str, secret: &Secret) -> Self {
        self.env.push((name.to_owned(), Value::Hidden(secret.clone())));
        self.secret(secret)
    }

    /// Names a secret that the tool knows from elsewhere and might print.
    #[must_use]
    pub fn secret(mut self, secret: &Secret) -> Self {
        self.secrets.push(secret.clone());
        self
    }

    /// How long it may run; none is for ever.
    #[must_use]
    pub fn timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long its group may take to end after TERM.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// How gently it runs.
    #[must_use]
    pub fn niceness(mut self, niceness: Niceness) -> Self {
        self.niceness = niceness;
        self
    }

    /// Where it runs; `/` unless said.
    #[must_use]
    pub fn current_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = directory.into();
        self
    }

    /// Throws its standard output away; what it says on standard error is kept.
    #[must_use]
    pub fn discard_output(mut self) -> Self {
        self.discards_output = true;
        self
    }

    /// The program as it was named.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The arguments, without the program.
    pub fn arguments(&self) -> &[OsString] {
        &self.args
    }

    /// The line that a person could type into a shell: added variables, niceness, program, arguments; secrets as `***`.
    pub fn display(&self) -> String {
        let variables = self.env.iter().map(|(name, value)| match value {
            Value::Open(value) => format!("{name}={}", quoted(value)),
            Value::Hidden(_) => format!("{name}=***"),
        });
        let words = self.prefix().into_iter().chain([self.program.clone().into()]).chain(self.args.iter().cloned());
        let line = variables.chain(words.map(|word| quoted(&word))).collect::<Vec<_>>().join(" ");
        let line = if self.discards_output { format!("{line} >/dev/null") } else { line };
        self.redactor().apply(&line)
    }

    /// The redactor for everything this command may print.
    pub fn redactor(&self) -> Redactor {
        Redactor::new(self.secrets.clone())
    }

    /// `nice` and `ionice` in front of the program; both replace themselves by it, so that its process is the same.
    fn prefix(&self) -> Vec<OsString> {
        let mut words = Vec::new();
        if let Some(nice) = self.niceness.nice {
            words.extend(["nice".into(), "-n".into(), nice.to_string()]);
        }
        match self.niceness.ionice {
            Some(IoClass::Idle) => words.extend(["ionice", "-t", "-c", "3"].map(str::to_owned)),
            Some(IoClass::BestEffort(n)) => {
                words.extend(["ionice".into(), "-t".into(), "-c".into(), "2".into(), "-n".into(), n.to_string()]);
            }
            None => {}
        }
        words.into_iter().map(OsString::from).collect()
    }

    fn build(&self) -> Result<tokio::process::Command, Error> {
        let program = self.find(&self.program)?;
        let mut words = self.prefix();
        words.push(program.into());
        let first = self.find(Path::new(&words[0]))?;
        #[expect(clippy::disallowed_methods, reason = "this is the one place where children are made")]
        let mut command = tokio::process::Command::new(first);
        command.args(&words[1..]).args(&self.args).current_dir(&self.directory);
        command.env_clear().env("PATH", PATH).env("HOME", home()).env("TZ", "UTC").env("LC_ALL", "C.UTF-8");
        command.envs(self.env.iter().map(|(name, value)| (name, value.as_os_str())));
        command.stdin(Stdio::null()).process_group(0);
        Ok(command)
    }

    /// Looks a program up before the start: with a prefix, only `nice` would notice that it is missing.
    fn find(&self, program: &Path) -> Result<PathBuf, Error> {
        let not_found = || Error::NotFound { program: program.to_owned() };
        if program.components().count() > 1 {
            return program.exists().then(|| program.to_owned()).ok_or_else(not_found);
        }
        let set = self.env.iter().rev().find(|(name, _)| name == "PATH");
        let path = set.map_or(OsStr::new(PATH), |(_, value)| value.as_os_str());
        std::env::split_paths(path).map(|dir| dir.join(program)).find(|file| is_executable(file)).ok_or_else(not_found)
    }

    fn could_not_start(&self, source: std::io::Error) -> Error {
        Error::CouldNotStart { program: self.program.clone(), source }
    }
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn home() -> PathBuf {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid());
    user.ok().flatten().map_or_else(|| PathBuf::from("/"), |user| user.dir)
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this code.
    Exited(i32),
    /// By a signal that was not ours.
    Signalled(i32),
    /// We ended it because its time was over.
    TimedOut,
    /// We ended it because somebody wanted to stop.
    Stopped,
    /// An adopted process ended; only its parent could have seen how.
    Unseen,
}

impl Ending {
    /// How it ended in words, as the catalog keeps it.
    pub fn word(&self) -> String {
        match self {
            Ending::Exited(_) => "exited".to_owned(),
            Ending::Signalled(signal) => format!("signal {signal}"),
            Ending::TimedOut => "timed out".to_owned(),
            Ending::Stopped => "stopped".to_owned(),
            Ending::Unseen => "unseen".to_owned(),
        }
    }

    /// The exit code, where it had one.
    pub fn code(&self) -> Option<i32> {
        if let Ending::Exited(code) = self { Some(*code) } else { None }
    }

    fn of(status: std::io::Result<ExitStatus>) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let Ok(status) = status else { return Ending::Unseen };
        let signalled = status.signal().map_or(Ending::Unseen, Ending::Signalled);
        status.code().map_or(signalled, Ending::Exited)
    }
}

/// Why a child could not be run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such program.
    #[error("the program `{}` was not found", program.display())]
    NotFound {
        /// The program.
        program: PathBuf,
    },
    /// The kernel refused.
    #[error("the program `{}` could not be started", program.display())]
    CouldNotStart {
        /// The program.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file for its output cannot be opened.
    #[error("the log file `{}` cannot be written", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        use std::io::ErrorKind;
        let (class, exit, remedy) = match &error {
            Error::NotFound { program } => {
                let remedy = format!("Install `{}` or name its path in the policy.", program.display());
                (ErrorClass::Config, ExitCode::ToolNotFound, remedy)
            }
            Error::CouldNotStart { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
                (ErrorClass::Config, ExitCode::ToolNotFound, "Make the program executable for this user.".to_owned())
            }
            Error::CouldNotStart { .. } => {
                let remedy = "Look at the memory and process limits of this machine.".to_owned();
                (ErrorClass::Transient, ExitCode::ToolNotFound, remedy)
            }
            Error::Log { source, .. } if source.kind() == ErrorKind::StorageFull => {
                (ErrorClass::Space, ExitCode::NoSpace, "Free space on the file system of `state_dir`.".to_owned())
            }
            Error::Log { .. } => {
                (ErrorClass::Config, ExitCode::Storage, "Make `state_dir` writable for this user.".to_owned())
            }
        };
        Failure { class, exit, message: crate::error::chain(&error), remedy: Some(remedy) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_shows_itself_as_a_shell_line_without_its_secrets() {
        let secret = Secret::new("hunter two");
        let niceness = Niceness { nice: Some(10), ionice: Some(IoClass::Idle) };
        let command = Command::new("psql")
            .args(["-c", "select 'x'", ""])
            .secret_env("PGPASSWORD", &secret)
            .env("PGOPTIONS", "-c a=b")
            .arg("--note=hunter two")
            .niceness(niceness);
        insta::assert_snapshot!(
            command.display(),
            @r"PGPASSWORD=*** PGOPTIONS='-c a=b' nice -n 10 ionice -t -c 3 psql -c 'select '\''x'\''' '' '--note=***'"
        );
        assert!(!format!("{command:?}").contains("hunter\" }"));
    }

    #[test]
    fn a_missing_program_is_found_out_before_nice_could_hide_it() {
        let gentle = Niceness { nice: Some(1), ionice: None };
        for program in ["no-such-program", "/no/such/program"] {
            let error = Command::new(program).niceness(gentle).build().unwrap_err();
            assert!(matches!(&error, Error::NotFound { program: missing } if missing == Path::new(program)));
            assert_eq!(Failure::from(error).exit, ExitCode::ToolNotFound);
        }
    }
}
