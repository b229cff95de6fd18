//! A long run: its output goes to a log file that we follow, and it outlives us if we die.
//!
//! Dropping a [`Child`] kills its group, because whoever drops it no longer watches it. Only a daemon that dies without
//! dropping anything leaves it running, and the next one finds it by its identity. A newcomer would read the log from a
//! pipe; see `process.rs` for what that does to a backup.

use std::{
    fs::File,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    pin::pin,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{
    Command, Ending, Error,
    follow::Follower,
    group::{end_group, group_is_alive},
    identity::is_alive,
    redact::Redactor,
    running::{Limits, Running},
    stop::Stop,
};
use crate::{clock::Stopwatch, record::ProcessIdentity};

/// How often the log is looked at.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);

/// How a long run ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// How.
    pub ending: Ending,
    /// How long it took; for an adopted process, since it was adopted.
    pub duration: Duration,
    /// Its last lines, without secrets.
    pub tail: Vec<String>,
}

impl Finished {
    /// Whether it exited with zero. That alone is no proof of anything.
    pub fn ok(&self) -> bool {
        self.ending == Ending::Exited(0)
    }
}

/// Tells how long a tool has said nothing. Cheap to clone; take it before waiting.
#[derive(Debug, Clone)]
pub struct Activity(Arc<Mutex<Stopwatch>>);

impl Activity {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Stopwatch::start())))
    }

    /// The time since the tool's last output, or since its start.
    pub fn silent_for(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Says that it did something, also where its log shows nothing of it.
    pub fn mark(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Stopwatch::start();
    }
}

/// Starts a command with its output appended to a log file, which only its owner may read.
///
/// # Errors
/// When the program is missing, cannot be started, or the log cannot be opened.
pub fn spawn(command: &Command, log: &Path) -> Result<Child, Error> {
    let mut built = command.build()?;
    let (file, offset) = open(log)?;
    let failed = |source| Error::Log { path: log.to_owned(), source };
    let stdout = if command.discards_output { Stdio::null() } else { file.try_clone().map_err(failed)?.into() };
    built.stdout(stdout).stderr(file);
    let running = Running::start(built, command)?;
    Ok(Child::of(running, command, log, offset))
}

/// Starts a command whose standard output is handed to the caller, to be read by a thread that may block; what it says
/// on standard error is appended to a log file, which only its owner may read.
///
/// The reading end is closed by dropping it; the tool's next write then ends it. A newcomer would wait for the child
/// first and read afterwards; it waits for its reader, so both happen at once.
///
/// # Errors
/// When the program is missing, cannot be started, or the log cannot be opened.
pub fn spawn_piped(command: &Command, stderr_log: &Path) -> Result<(Child, File), Error> {
    let mut built = command.build()?;
    let (file, offset) = open(stderr_log)?;
    built.stdout(Stdio::piped()).stderr(file);
    let mut running = Running::start(built, command)?;
    let output = running.child.stdout.take().ok_or_else(|| std::io::Error::other("it has no standard output"));
    // The runtime made its end of the pipe non-blocking; this makes it an ordinary file again.
    let output = output.and_then(|output| output.into_owned_fd()).map_err(|source| command.could_not_start(source))?;
    Ok((Child::of(running, command, stderr_log, offset), File::from(output)))
}

/// The log, and where its new part begins.
fn open(log: &Path) -> Result<(File, u64), Error> {
    let failed = |source| Error::Log { path: log.to_owned(), source };
    let file = File::options().create(true).append(true).mode(0o600).open(log).map_err(failed)?;
    let offset = file.metadata().map_err(failed)?.len();
    Ok((file, offset))
}

/// A long run that we started.
#[derive(Debug)]
pub struct Child {
    running: Running,
    limits: Limits,
    watch: Stopwatch,
    log: Log,
}

impl Child {
    fn of(running: Running, command: &Command, log: &Path, offset: u64) -> Self {
        let log = Log { path: log.to_owned(), offset, redactor: command.redactor(), activity: Activity::new() };
        Self { running, limits: command.into(), watch: Stopwatch::start(), log }
    }

    /// How it is recognised after a restart.
    pub fn identity(&self) -> &ProcessIdentity {
        &self.running.identity
    }

    /// Tells while it runs how long it has been silent.
    pub fn activity(&self) -> Activity {
        self.log.activity.clone()
    }

    /// Waits until it ended and nobody of its group is left; each line of its output is shown to `on_line` meanwhile.
    pub async fn wait(mut self, stop: &Stop, on_line: impl FnMut(&str)) -> Finished {
        let ending = self.running.supervise(&self.limits, stop);
        self.log.follow(ending, self.watch, on_line).await
    }
}

/// Takes over a process that another daemon started; none when it is not alive any more.
pub fn adopt(identity: &ProcessIdentity, log: &Path) -> Option<Adopted> {
    let log = Log { path: log.to_owned(), offset: 0, redactor: Redactor::default(), activity: Activity::new() };
    is_alive(identity).then(|| Adopted { identity: identity.clone(), grace: super::GRACE, log })
}

/// A long run that another daemon started. Dropping it leaves the process alone.
#[derive(Debug)]
pub struct Adopted {
    identity: ProcessIdentity,
    grace: Duration,
    log: Log,
}

impl Adopted {
    /// Keeps these secrets out of what it prints.
    #[must_use]
    pub fn redacting(mut self, redactor: Redactor) -> Self {
        self.log.redactor = redactor;
        self
    }

    /// How long its group may take to end after TERM.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// How it is recognised.
    pub fn identity(&self) -> &ProcessIdentity {
        &self.identity
    }

    /// Tells while it runs how long it has been silent.
    pub fn activity(&self) -> Activity {
        self.log.activity.clone()
    }

    /// Waits until it ended and nobody of its group is left; `on_line` sees its log from the beginning.
    pub async fn wait(self, stop: &Stop, on_line: impl FnMut(&str)) -> Finished {
        let Adopted { identity, grace, log } = self;
        let ending = async {
            let ending = tokio::select! {
                biased;
                () = gone(&identity) => Ending::Unseen,
                () = stop.stopped() => Ending::Stopped,
            };
            if group_is_alive(&identity) {
                end_group(identity.pgid, grace).await;
            }
            ending
        };
        log.follow(ending, Stopwatch::start(), on_line).await
    }
}

async fn gone(identity: &ProcessIdentity) {
    while is_alive(identity) {
        tokio::time::sleep(FOLLOW_EVERY).await;
    }
}

/// The file with a tool's output.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    offset: u64,
    redactor: Redactor,
    activity: Activity,
}

impl Log {
    /// Reads the log until the tool has ended, and once more after that; then takes the secrets out of the file.
    async fn follow(
        &self,
        ending: impl Future<Output = Ending>,
        watch: Stopwatch,
        mut on_line: impl FnMut(&str),
    ) -> Finished {
        let mut follower = Follower::new(&self.path, self.offset, self.redactor.clone(), self.activity.clone());
        let mut looks = tokio::time::interval(FOLLOW_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ending = pin!(ending);
        let ending = loop {
            tokio::select! {
                ending = &mut ending => break ending,
                _ = looks.tick() => follower.read(&mut on_line),
            }
        };
        let duration = watch.elapsed();
        let tail = follower.finish(&mut on_line);
        self.clean().await;
        Finished { ending, duration, tail }
    }

    async fn clean(&self) {
        let (path, redactor) = (self.path.clone(), self.redactor.clone());
        let cleaned = tokio::task::spawn_blocking(move || redactor.clean(&path)).await;
        if let Ok(Err(error)) = cleaned {
            tracing::error!(log = %self.path.display(), %error, "secrets could not be taken out of a log");
        }
    }
}

#[cfg(test)]
mod tests;
