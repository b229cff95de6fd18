//! What every scenario needs: a lab (server, stanza, repository), a site in it (policy, state), a daemon, and patience.
//!
//! The only place of the tests that spawns, reads the clock or pauses. Nothing here asserts what Backstop should do,
//! except that it answers in the form it promises.

mod answer;
mod daemon;
mod lab;
mod mariadb;
mod s3;
mod site;
mod vault;

use std::{
    process::{Command, Output},
    time::{Duration, Instant, SystemTime},
};

pub(crate) use self::{
    answer::Answer,
    daemon::Daemon,
    lab::Lab,
    mariadb::MariaDb,
    s3::S3,
    site::{Extra, Site},
    vault::{STORAGES, Vault},
};

/// Long enough for a loaded machine; nobody waits that long when things go well.
const PATIENCE: Duration = Duration::from_secs(90);

/// Looks again and again until there is something to see, and fails with `what` when patience ends.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "the pause between two looks; the deadline is what counts")]
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until a condition holds.
#[track_caller]
pub(crate) fn until_true(what: &str, mut holds: impl FnMut() -> bool) {
    until(what, || holds().then_some(()));
}

/// A cron text for one moment of the day, `seconds` from now, in UTC; so a job is due once within a test.
#[expect(clippy::disallowed_methods, reason = "a test that is about the real clock")]
pub(crate) fn in_seconds(seconds: u64) -> String {
    let since_midnight = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + seconds;
    format!("{} {} {} * * *", since_midnight % 60, since_midnight / 60 % 60, since_midnight / 3600 % 24)
}

/// A command in an environment made from nothing.
#[expect(clippy::disallowed_methods, reason = "tests start the program itself, and the tools beside it")]
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.stdin(std::process::Stdio::null()).current_dir("/");
    command
}

/// Runs a command that must succeed and gives its output.
#[track_caller]
fn must(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{stdout}\n{stderr}");
    stdout.into_owned()
}

/// Runs any program that must succeed.
#[track_caller]
pub(crate) fn sh(script: &str) -> String {
    must(command("/bin/bash").args(["-euo", "pipefail", "-c", script]))
}
