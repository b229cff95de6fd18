//! A short question to a tool, with the answer in memory.
//!
//! Both streams are read while it runs, so that it can never wait for us, and only so much is kept. A newcomer would
//! read until the streams end; a helper that the tool left behind may hold them open for ever.

use std::{pin::pin, process::Stdio, time::Duration};

use tokio::io::{AsyncRead, AsyncReadExt};

use super::{Command, Ending, Error, follow::Lines, running::Running, stop::Stop};
use crate::clock::Stopwatch;

/// What is kept of the answer. The listing of an archive with half a million segments fits.
const ANSWER: usize = 64 * 1024 * 1024;
/// What is kept of the messages.
const MESSAGES: usize = 256 * 1024;
/// How long the streams may stay open after the tool and its group ended.
const LEFT_OPEN: Duration = Duration::from_millis(500);

/// What a tool answered.
#[derive(Debug, Clone)]
pub struct Captured {
    /// How it ended.
    pub ending: Ending,
    /// What it wrote to standard output, byte for byte: may hold invalid UTF-8 and secrets.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error, fit to be shown.
    pub stderr: String,
    /// How long it took.
    pub duration: Duration,
    /// Whether the answer was longer than what is kept.
    pub is_cut: bool,
}

impl Captured {
    /// Whether it exited with zero and the answer is whole.
    pub fn ok(&self) -> bool {
        self.ending == Ending::Exited(0) && !self.is_cut
    }
}

/// Runs a command and gives back what it wrote.
///
/// # Errors
/// When the program is missing or cannot be started. A program that fails is an answer.
pub async fn capture(command: &Command, stop: &Stop) -> Result<Captured, Error> {
    let mut built = command.build()?;
    built.stdout(if command.discards_output { Stdio::null() } else { Stdio::piped() }).stderr(Stdio::piped());
    let watch = Stopwatch::start();
    let mut running = Running::start(built, command)?;
    let (stdout, stderr) = (running.child.stdout.take(), running.child.stderr.take());
    let (mut answer, mut messages) = (Kept::new(ANSWER), Kept::new(MESSAGES));
    let ending = {
        let mut reading = pin!(async { tokio::join!(answer.read(stdout), messages.read(stderr)) });
        let limits = command.into();
        let mut ending = pin!(running.supervise(&limits, stop));
        tokio::select! {
            ending = &mut ending => {
                let _ = tokio::time::timeout(LEFT_OPEN, reading).await;
                ending
            }
            _ = &mut reading => ending.await,
        }
    };
    let mut stderr = Vec::new();
    let mut lines = Lines::new(command.redactor());
    let mut on_line = |line: &str| stderr.push(line.to_owned());
    lines.push(&messages.bytes, &mut on_line);
    lines.finish(&mut on_line);
    let duration = watch.elapsed();
    Ok(Captured { ending, stdout: answer.bytes, stderr: stderr.join("\n"), duration, is_cut: answer.is_cut })
}

struct Kept {
    bytes: Vec<u8>,
    limit: usize,
    is_cut: bool,
}

impl Kept {
    fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), limit, is_cut: false }
    }

    /// Reads until the end; what exceeds the limit is read and forgotten.
    async fn read(&mut self, stream: Option<impl AsyncRead + Unpin>) {
        let Some(mut stream) = stream else { return };
        // On the heap: whoever asks holds the future of it, and whoever asks several questions holds several.
        let mut chunk = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = stream.read(&mut chunk).await {
            let room = self.limit - self.bytes.len();
            self.is_cut |= count > room;
            self.bytes.extend_from_slice(&chunk[..count.min(room)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::{sys::signal, unistd::Pid};

    use super::*;
    use crate::{
        policy::Secret,
        process::{PATH, find_by_argument, find_by_program, group_is_alive, spawn, testing::eventually},
    };

    async fn answer(command: Command) -> Captured {
        capture(&command, &Stop::never()).await.unwrap()
    }

    fn shell(script: &str) -> Command {
        Command::new("sh").args(["-c", script]).grace(Duration::from_millis(100))
    }

    #[tokio::test]
    async fn the_environment_is_exactly_what_was_built() {
        let secret = Secret::new("hunter-two");
        let command = Command::new("env").env("PGAPPNAME", "backstop").secret_env("PGPASSWORD", &secret);
        let captured = answer(command).await;
        let text = String::from_utf8(captured.stdout).unwrap();
        let mut lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("HOME=/")).collect();
        lines.sort_unstable();
        let path = format!("PATH={}", PATH);
        assert_eq!(lines, ["LC_ALL=C.UTF-8", &path, "PGAPPNAME=backstop", "PGPASSWORD=hunter-two", "TZ=UTC"]);
        assert_eq!(text.lines().count(), 6);
    }

    #[tokio::test]
    async fn a_variable_that_is_set_replaces_the_default() {
        let captured = answer(Command::new("env").env("TZ", "Asia/Tokyo")).await;
        assert!(String::from_utf8(captured.stdout).unwrap().lines().any(|line| line == "TZ=Asia/Tokyo"));
    }

    #[tokio::test]
    async fn a_child_runs_at_the_root_with_nothing_to_read() {
        let captured = answer(shell("pwd; cat; echo end")).await;
        assert_eq!(captured.stdout, b"/\nend\n");
    }

    #[tokio::test]
    async fn much_output_on_both_streams_does_not_block_the_tool() {
        let captured = answer(shell("head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2; exit 3")).await;
        assert_eq!((captured.ending, captured.stdout.len()), (Ending::Exited(3), 3_000_000));
    }

    #[tokio::test]
    async fn the_answer_is_kept_as_it_is_and_the_messages_are_fit_to_be_shown() {
        let script = r"printf '\377 %s' $KEY; printf 'no %s\n\377\033\n' $KEY >&2";
        let captured = answer(shell(script).secret_env("KEY", &Secret::new("hunter-two"))).await;
        assert_eq!(captured.stdout, b"\xff hunter-two");
        assert_eq!(captured.stderr, "no ***\n\u{fffd}");
        assert!(captured.ok());
    }

    #[tokio::test]
    async fn what_exceeds_the_limit_is_read_and_forgotten() {
        let mut kept = Kept::new(5);
        kept.read(Some(&b"1234567"[..])).await;
        assert_eq!((kept.bytes.as_slice(), kept.is_cut), (&b"12345"[..], true));
    }

    #[tokio::test]
    async fn a_helper_that_keeps_the_streams_open_does_not_hold_us() {
        let captured = answer(shell("setsid sleep 600 & echo $!")).await;
        let helper = String::from_utf8(captured.stdout).unwrap().trim().parse().unwrap();
        signal::kill(Pid::from_raw(helper), signal::Signal::SIGKILL).unwrap();
        assert_eq!(captured.ending, Ending::Exited(0));
    }

    #[tokio::test]
    async fn a_question_that_takes_too_long_is_ended() {
        let captured = answer(shell("echo half; sleep 600").timeout(Some(Duration::from_millis(300)))).await;
        assert_eq!((captured.ending, captured.stdout.as_slice()), (Ending::TimedOut, &b"half\n"[..]));
        assert!(!captured.ok());
    }

    #[tokio::test]
    async fn a_question_that_is_dropped_leaves_nobody() {
        let mark = format!("backstop-test-{}", uuid::Uuid::now_v7());
        let command = shell(&format!("sleep 600; : {mark}"));
        let asked = tokio::time::timeout(Duration::from_millis(100), answer(command)).await;
        assert!(asked.is_err());
        let left = || find_by_argument(&mark).iter().any(group_is_alive);
        eventually("nobody is left", || !left()).await;
    }

    #[tokio::test]
    async fn a_running_process_is_found_by_its_argument() {
        let directory = tempfile::tempdir().unwrap();
        let mark = format!("backstop-test-{}", uuid::Uuid::now_v7());
        let log = directory.path().join("log");
        let child = spawn(&shell(&format!("sleep 600; : {mark}")), &log).unwrap();
        // One that was started a moment ago has no command line yet, and one that it forks has the same until it has
        // a program of its own.
        let found = || find_by_argument(&mark).first() == Some(child.identity());
        eventually("it is visible", found).await;
        assert_eq!(find_by_program("/usr/bin/sh".as_ref(), &mark).first(), Some(child.identity()));
        assert_eq!(find_by_program("sh".as_ref(), &mark), []);
        assert_eq!(find_by_argument(""), []);
    }

    #[tokio::test]
    async fn a_gentle_child_is_gentle() {
        use crate::policy::{IoClass, Niceness};
        let niceness = Niceness { nice: Some(7), ionice: Some(IoClass::BestEffort(6)) };
        let captured = answer(shell("nice; ionice").niceness(niceness)).await;
        assert_eq!(String::from_utf8(captured.stdout).unwrap(), "7\nbest-effort: prio 6\n");
    }
}
