//! What the verbs that act have in common: the locks, dead rows first, a run, its answer.

use std::{
    io::{IsTerminal, Write},
    sync::Arc,
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
    human::took,
    job::{Held, Progress, Ran, Request, Runner},
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
        let runner =
            Runner { policy: Arc::new(policy), catalog, stop, drain: Stop::never(), progress: progress(session) };
        for (open, outcome) in settle_all(&runner, Some(name)).await.map_err(catalog_error)? {
            if key.kind.is_exclusive() && open.run.job.kind.is_exclusive() && !matches!(outcome, Settled::Closed(_)) {
                return Err(Error::new(ExitCode::Busy, format!("run {} of `{name}` is still at work", open.run.id))
                    .hint("Its owner is gone but its tool works on; the daemon adopts it, or wait until it ends."));
            }
        }
        Ok(Self { runner, database, _held: held })
    }

    /// Runs and answers.
    pub(super) async fn run(&self, operation: &'static str, request: &Request) -> Result<Answer, Error> {
        let ran = self.runner.run(request).await;
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
    let once = Retry { attempts: 1, backoff: std::time::Duration::ZERO, max_backoff: std::time::Duration::ZERO };
    Request::by_hand(key, once, None, session.actor.clone())
}

/// The key of a job of one kind on a database; the repository stands in it where there is a choice.
pub(super) fn key(database: &Database, kind: JobKind, repo: Option<RepoKey>) -> Result<JobKey, Error> {
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

/// A line on the terminal that is written over; nothing where nobody watches.
fn progress(session: &Session) -> Progress {
    if session.json || !std::io::stderr().is_terminal() {
        return Progress::default();
    }
    Progress::new(|percent| {
        let mut stderr = std::io::stderr();
        // The terminal may be gone; the work goes on.
        let _ = write!(stderr, "\r{percent:5.1} %{}", if percent >= 100.0 { "\n" } else { "" });
        let _ = stderr.flush();
    })
}
