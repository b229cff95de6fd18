//! A throw-away server from its start to its end.
//!
//! It is followed by its log, because a server that recovers cannot be asked, and a start that "worked" says nothing
//! about how far recovery came. Dropping a [`Server`] kills it. A newcomer would use `pg_ctl -w`; it returns while
//! recovery is still going on.

use std::{path::Path, time::Duration};

use tokio::{sync::mpsc, task::JoinHandle};

use super::{RecoveryLog, Sandbox};
use crate::{
    clock::Stopwatch,
    process::{self, Command, Ending, Finished, Stop, StopHandle},
};

/// How long a clean end may take: it writes back what is in its buffers.
const CLEAN_END: Duration = Duration::from_secs(600);
/// How often we look for its process.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Why a throw-away server is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// It ended, or said that it will.
    #[error("the throw-away server ended: {}", words(fatal, ending.as_ref()))]
    Ended {
        /// What it could not get over.
        fatal: Vec<String>,
        /// How its process ended, where it did.
        ending: Option<Ending>,
    },
    /// Somebody wants to stop.
    #[error("stopped")]
    Stopped,
    /// It did not end when it was asked to.
    #[error("the server did not end cleanly")]
    NoCleanEnd,
}

fn words(fatal: &[String], ending: Option<&Ending>) -> String {
    match (fatal, ending) {
        ([], Some(ending)) => format!("{} without saying why", ending.word()),
        (lines, _) => lines.join("; "),
    }
}

/// A throw-away server that was started.
#[derive(Debug)]
pub struct Server {
    log: RecoveryLog,
    read: fn(&mut RecoveryLog, &str),
    lines: mpsc::UnboundedReceiver<String>,
    ended: JoinHandle<Finished>,
    kill: StopHandle,
}

impl Server {
    /// Starts PostgreSQL; its log goes to `log`.
    ///
    /// # Errors
    /// When bubblewrap cannot be started. What PostgreSQL says comes later.
    pub fn start(sandbox: &Sandbox, log: &Path) -> Result<Server, process::Error> {
        let layout = sandbox.layout();
        let configuration = layout.conf().join("postgresql.conf");
        let command = sandbox.command("postgres").arg("-D").arg(layout.data()).arg("-c");
        let command = command.arg(format!("config_file={}", configuration.display()));
        Self::follow(&command, log, RecoveryLog::read)
    }

    /// Starts MariaDB or MySQL by its command line; its log goes to `log`.
    ///
    /// # Errors
    /// When bubblewrap cannot be started. What the server says comes later.
    pub fn start_mariadb(sandbox: &Sandbox, command: &Command, log: &Path) -> Result<Server, process::Error> {
        Self::follow(&sandbox.enter(command), log, RecoveryLog::read_mariadb)
    }

    fn follow(command: &Command, log: &Path, read: fn(&mut RecoveryLog, &str)) -> Result<Server, process::Error> {
        let child = process::spawn(command, log)?;
        let (kill, stop) = Stop::new();
        let (sender, lines) = mpsc::unbounded_channel();
        let ended = tokio::spawn(async move {
            // Nobody may be listening any more once recovery is over.
            child.wait(&stop, |line| drop(sender.send(line.to_owned()))).await
        });
        Ok(Server { log: RecoveryLog::default(), read, lines, ended, kill })
    }

    /// What it said so far.
    pub fn log(&self) -> &RecoveryLog {
        &self.log
    }

    /// Waits until its recovery, if it has one, is over and it accepts connections.
    ///
    /// # Errors
    /// When it ends instead, or somebody wants to stop.
    pub async fn recovered(&mut self, stop: &Stop) -> Result<(), Trouble> {
        while !self.log.is_ready {
            let line = tokio::select! {
                line = self.lines.recv() => line,
                () = stop.stopped() => return Err(Trouble::Stopped),
            };
            let Some(line) = line else { return Err(self.died().await) };
            (self.read)(&mut self.log, &line);
        }
        Ok(())
    }

    /// Asks it to end, and waits until everything is written; the only end after which its files can be checked.
    ///
    /// # Errors
    /// When it does not end in time, or not well.
    pub async fn end_cleanly(mut self, sandbox: &Sandbox) -> Result<(), Trouble> {
        let program = sandbox.programs().join("postgres");
        let data = sandbox.layout().data();
        let found = process::find_by_program(&program, &data.to_string_lossy());
        if !found.iter().any(process::interrupt) {
            return Err(Trouble::NoCleanEnd);
        }
        match tokio::time::timeout(CLEAN_END, &mut self.ended).await {
            Ok(Ok(finished)) if finished.ok() => Ok(()),
            _ => Err(Trouble::NoCleanEnd),
        }
    }

    /// Kills it with all that belongs to it.
    pub async fn kill(mut self) {
        self.kill.stop();
        let _ = (&mut self.ended).await;
    }

    async fn died(&mut self) -> Trouble {
        let ending = (&mut self.ended).await.ok().map(|finished| finished.ending);
        Trouble::Ended { fatal: self.log.fatal.clone(), ending }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The task owns the child, and a child that is dropped takes its group with it.
        self.ended.abort();
    }
}

/// Waits until no process of this user names a directory in its command line; false when the time is over.
pub async fn nobody_names(directory: &Path, limit: Duration) -> bool {
    let text = directory.to_string_lossy();
    let watch = Stopwatch::start();
    while !process::find_by_argument(&text).is_empty() {
        if watch.elapsed() >= limit {
            return false;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    true
}
