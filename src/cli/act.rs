//! What the verbs that act have in common: the locks, dead rows first, a run, its answer.

use std::{
    io::{IsTerminal, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::json;

use super::{
    Answer,
    session::{Session, catalog_error},
};
use crate::{
    catalog::Catalog,
    daemon,
    error::{Error, ExitCode},
    human::{length, size, took},
    job::{Amount, Held, Progress, Ran, Request, Runner},
    lock,
    policy::{Database, Policy, Retry},
    process::Stop,
    record::{JobKey, JobKind, RepoKey, RunState},
    settle::{Settled, settle_all},
};

/// A verb at work on one database: its runner, and the locks it holds.
pub(super) struct Act {
    pub(super) runner: Runner,
    pub(super) database: Database,
    line: Line,
    _held: Held,
}

impl Act {
    /// Takes the locks of a job, settles what dead processes left, and is ready to run.
    pub(super) async fn begin(
        session: &Session,
        policy: Policy,
        catalog: Catalog,
        key: &JobKey,
    ) -> Result<Self, Error> {
        let name = key.database.as_ref().expect("verbs that act are about a database");
        let database = super::session::find(&policy, name)?.clone();
        let (handle, stop) = Stop::new();
        daemon::for_command(handle)
            .map_err(|source| Error::new(ExitCode::Defect, "the signal handlers cannot be set").because(source))?;
        let state_dir = policy.daemon.state_dir.clone();
        let held = Held::take(&state_dir, key, policy.daemon.max_parallel)
            .map_err(|source| Error::new(ExitCode::Storage, "the locks cannot be taken").because(source))?;
        let held = held.ok_or_else(|| busy(&state_dir, &database))?;
        let line = Line::default();
        let progress = if session.json { Progress::default() } else { line.progress() };
        let runner = Runner { policy: Arc::new(policy), catalog, stop, drain: Stop::never(), progress };
        for (open, outcome) in settle_all(&runner, Some(name)).await.map_err(catalog_error)? {
            if key.kind.is_exclusive() && open.run.job.kind.is_exclusive() && !matches!(outcome, Settled::Closed(_)) {
                return Err(Error::new(ExitCode::Busy, format!("run {} of `{name}` is still at work", open.run.id))
                    .hint("Its owner is gone but its tool works on; the daemon adopts it, or wait until it ends."));
            }
        }
        Ok(Self { runner, database, line, _held: held })
    }

    /// Runs and answers.
    pub(super) async fn run(&self, operation: &'static str, request: &Request) -> Result<Answer, Error> {
        let ran = self.runner.run(request).await;
        self.line.clear();
        self.answer(operation, ran)
    }

    fn answer(&self, operation: &'static str, ran: Ran) -> Result<Answer, Error> {
        if let Some(failure) = ran.failure {
            let where_to_look = ran.run.map_or_else(String::new, |run| format!(" (run {run})"));
            let what = format!("{operation} of `{}` failed{where_to_look}", self.database.name);
            let error = Error::new(failure.exit, what).because(failure.message);
            return Err(match failure.remedy {
                Some(remedy) => error.hint(remedy),
                None => error,
            });
        }
        let text = format!("{}; the run took {}", ran.done.summary, took(ran.duration));
        let result = json!({
            "run": ran.run,
            "state": RunState::Succeeded,
            "backup_id": ran.done.backup_id,
            "summary": ran.done.summary,
            "duration_seconds": ran.duration.as_secs_f64(),
        });
        Ok(Answer::new(operation, result, ran.done.summary, text).about(&self.database))
    }
}

/// A request of a person: tries once, because the person is there to try again.
pub(super) fn request(session: &Session, key: JobKey) -> Request {
    let once = Retry { attempts: 1, backoff: Duration::ZERO, max_backoff: Duration::ZERO };
    let witness = session.witness.clone();
    Request { witness, ..Request::by_hand(key, once, None, session.actor.clone()) }
}

/// The key of a job of one kind on a database; the repository stands in it where there is a choice.
pub(super) fn key(database: &Database, kind: JobKind, repo: Option<RepoKey>) -> Result<JobKey, Error> {
    if let Some(repo) = repo.filter(|_| database.engine.is_dump()) {
        let what = format!("`{}` is dumped by {}, so there is no repository {repo}", database.name, database.engine);
        return Err(
            Error::new(ExitCode::Usage, what).hint("Leave out `--repo`; its dumps go to the storages of the policy.")
        );
    }
    if let Some(repo) = repo
        && !database.pgbackrest.repos.contains(&repo)
    {
        let known: Vec<String> = database.pgbackrest.repos.iter().map(ToString::to_string).collect();
        return Err(Error::new(ExitCode::Configuration, format!("`{}` has no repository {repo}", database.name))
            .hint(format!("The policy has: {}.", known.join(", "))));
    }
    Ok(JobKey { database: Some(database.name.clone()), kind, repo, name: None })
}

fn busy(state_dir: &std::path::Path, database: &Database) -> Error {
    let holder =
        lock::database_holder(state_dir, &database.name).map_or_else(String::new, |holder| format!(" by {holder}"));
    Error::new(
        ExitCode::Busy,
        format!("`{}` is being worked on{holder}, or all places of `max_parallel` are taken", database.name),
    )
    .hint("`backstop status` shows what runs; try again when it is done.")
}

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(300);

/// Why something is asked before it is done: where the database is protected.
pub(super) const PROTECTED: &str = "the database is protected";

/// Shows `page` and asks `question` before something goes, because of `why`. `--yes` answers it; without a terminal that
/// is missing, and the error names it.
pub(super) async fn confirm(
    yes: bool,
    (verb, why): (&str, &str),
    page: &str,
    question: &str,
    stop: &Stop,
) -> Result<(), Error> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        let what = format!("{why}, so `{verb}` asks, and there is no terminal to ask on");
        return Err(Error::new(ExitCode::Usage, what).hint("Add `--yes`."));
    }
    let _ = write!(std::io::stderr(), "{page}{why}: {question} [y/N] ");
    // The lock is held meanwhile, so nobody is waited for without end; an interrupt counts as no.
    let (reply, why) = tokio::select! {
        reply = line_from_terminal() => (reply, "nothing was deleted"),
        () = stop.stopped() => (String::new(), "interrupted, nothing was deleted"),
        () = tokio::time::sleep(PATIENCE) => (String::new(), "no answer came, nothing was deleted"),
    };
    match reply.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Error::new(ExitCode::Interrupted, why)),
    }
}

/// A line from the terminal; empty at its end. It is read in a thread that nobody waits for: the end of the program
/// would wait for the runtime's own.
async fn line_from_terminal() -> String {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = std::io::stdin().read_line(&mut line);
        // Nobody may listen any more.
        let _ = sender.send(read.map(|_| line).unwrap_or_default());
    });
    receiver.await.unwrap_or_default()
}

/// A line on the terminal that is written over, and goes when the work is done; nothing where nobody watches.
#[derive(Clone, Default)]
struct Line {
    drawn: Arc<AtomicBool>,
}

impl Line {
    fn progress(&self) -> Progress {
        if !std::io::stderr().is_terminal() {
            return Progress::default();
        }
        let drawn = self.drawn.clone();
        Progress::new(move |amount| {
            drawn.store(true, Ordering::Relaxed);
            write_over(&words(&amount));
        })
    }

    /// Leaves an empty line for whatever is said next.
    fn clear(&self) {
        if self.drawn.swap(false, Ordering::Relaxed) {
            write_over("");
        }
    }
}

fn write_over(text: &str) {
    let mut stderr = std::io::stderr();
    // The terminal may be gone; the work goes on. The code ends the line, for the last one may have been longer.
    let _ = write!(stderr, "\r{text}\x1b[K");
    let _ = stderr.flush();
}

/// `52.5 MiB at 12.1 MiB/s, 43.0 %, 1m 10s left`, as far as it is known.
fn words(amount: &Amount) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is never negative")]
    let rate = amount.rate as u64;
    let parts = [
        (amount.bytes > 0).then(|| format!("{} at {}/s", size(amount.bytes), size(rate))),
        amount.percent.map(|percent| format!("{percent:.1} %")),
        amount.eta.filter(|eta| !eta.is_zero()).map(|eta| format!("{} left", length(eta))),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_tells_what_is_known_and_nothing_else() {
        let known =
            Amount { bytes: 55_050_240, rate: 12_687_770.0, percent: Some(43.0), eta: Some(Duration::from_secs(70)) };
        assert_eq!(words(&known), "52.5 MiB at 12.1 MiB/s, 43.0 %, 1m 10s left");
        assert_eq!(words(&Amount { percent: None, eta: None, ..known }), "52.5 MiB at 12.1 MiB/s");
        assert_eq!(words(&Amount { percent: Some(7.25), ..Amount::default() }), "7.2 %", "pgBackRest tells no more");
        assert_eq!(words(&Amount::default()), "");
    }
}
