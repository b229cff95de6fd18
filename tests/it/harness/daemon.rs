//! A running daemon: its log, its signals, its end. Killed when dropped, so that no test leaves one behind.

use std::{
    fs,
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    process::{Child, ExitStatus, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{Site, command, site::PROGRAM, until};

/// The daemon of a site.
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts it with more environment, and waits until it is at work.
    #[track_caller]
    pub(crate) fn start(site: &Site<'_>, environment: &[(&str, &str)]) -> Self {
        let daemon = Self::spawn(site, environment);
        daemon.wait_for("daemon started");
        daemon
    }

    /// Starts it without waiting.
    #[track_caller]
    pub(crate) fn spawn(site: &Site<'_>, environment: &[(&str, &str)]) -> Self {
        let count = fs::read_dir(site.lab.path("log")).unwrap().count();
        let log = site.lab.path("log").join(format!("daemon-{count}.log"));
        let file = fs::File::options().create_new(true).append(true).mode(0o644).open(&log).unwrap();
        let mut program = command(PROGRAM);
        program.arg("--policy").arg(&site.policy).args(["run", "--log-format", "text"]);
        program.envs(environment.iter().copied()).stdout(Stdio::null()).stderr(file);
        Self { child: program.spawn().unwrap(), log }
    }

    /// Its process number.
    pub(crate) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    /// Waits until a line of its log has this text.
    #[track_caller]
    pub(crate) fn wait_for(&self, text: &str) {
        self.wait_for_more(text, 1);
    }

    /// Waits until this many lines of its log have this text.
    #[track_caller]
    pub(crate) fn wait_for_more(&self, text: &str, count: usize) {
        let seen = || self.log().lines().filter(|line| line.contains(text)).count() >= count;
        // Nobody has reaped it yet, so a dead daemon is a zombie.
        let dead = || fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap().contains(") Z ");
        until(&format!("`{text}` in {}", self.log.display()), || (seen() || dead()).then_some(()));
        assert!(seen(), "`{text}` is not in the log:\n{}", self.log());
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Kills it as a crash would, and reaps it.
    pub(crate) fn crash(mut self) {
        self.signal(Signal::SIGKILL);
        self.child.wait().unwrap();
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn ended(&mut self) -> ExitStatus {
        until("the daemon ends", || self.child.try_wait().unwrap())
    }

    /// Stops it in good order.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        assert!(self.ended().success(), "{}", self.log());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already; both are fine then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
