//! One run of one job, from the open row in the catalog to the closed one.
//!
//! The daemon and the command line both come through [`Runner::run`], so that the path is the same and is tested every
//! day. What a job does lives in `job/`, one file a kind; what surrounds every job (row, attempts, retry, diagnosis,
//! the two log lines) lives here. Locks are taken before ([`Held`]), because who waits and who gives up differs.
//!
//! A newcomer would return early with `?` after `start_run`: a started run always ends in the catalog, even when the
//! job panics or the disk is full.

mod backup;
mod catalog_backup;
mod context;
mod delete;
pub(crate) mod dump;
pub mod expire;
pub(crate) mod guard;
mod held;
pub(crate) mod progress;
pub(crate) mod sync;
mod test_restore;
mod verify;
mod wal_check;

use std::{collections::BTreeSet, panic::AssertUnwindSafe, path::PathBuf, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use tracing::{error, info, warn};

pub(crate) use self::context::Silence;
pub use self::{
    context::Context,
    delete::delete,
    held::Held,
    progress::{Amount, Progress},
    test_restore::clean_scratch,
};
use crate::{
    catalog::Catalog,
    clock::{self, Stopwatch},
    diagnose,
    error::{ExitCode, chain},
    human::took,
    policy::{Database, Job, Policy, Retry},
    process::{self, Stop},
    record::{AttemptEnd, ErrorClass, Failure, JobKey, JobKind, NewRun, RunEnd, RunId, RunState, SlotId},
    retention::Selection,
};

/// What shall be run, and for whom.
#[derive(Debug, Clone)]
pub struct Request {
    /// What to run; after a promotion the kind that really runs.
    pub job: JobKey,
    /// The slot it is for; none when a person asked.
    pub slot: Option<SlotId>,
    /// The slot's nominal instant.
    pub nominal_at: Option<DateTime<Utc>>,
    /// The kind that was scheduled, where another runs in its place.
    pub promoted_from: Option<JobKind>,
    /// Attempts and pauses.
    pub retry: Retry,
    /// How long an attempt may take.
    pub timeout: Option<Duration>,
    /// Who asked: `daemon`, or a person's login name.
    pub requested_by: String,
    /// The same for the audit: with the user ids of a person.
    pub witness: String,
    /// What a person said about a backup.
    pub remarks: Remarks,
    /// The labels that a person agreed to end; none where nobody was asked.
    pub confirmed: Option<BTreeSet<String>>,
    /// What a person wants ended beside the rules; none: what the rules end.
    pub selection: Option<Selection>,
    /// The one backup to verify; none: all of the database.
    pub target: Option<String>,
}

/// What a person says about a backup.
#[derive(Debug, Clone, Default)]
pub struct Remarks {
    /// A name for it, `[a-z0-9-]{1,32}`.
    pub name: Option<String>,
    /// Why it is made.
    pub reason: Option<String>,
    /// Free words.
    pub tags: Vec<String>,
    /// For how many days it is kept, whatever the rules say; for dumps only.
    pub retention_days: Option<u32>,
}

impl Request {
    /// A request for a slot of a scheduled job.
    pub fn scheduled(job: &Job, slot: SlotId, nominal_at: DateTime<Utc>) -> Self {
        Self {
            slot: Some(slot),
            nominal_at: Some(nominal_at),
            ..Self::by_hand(job.key.clone(), job.retry, job.timeout, "daemon")
        }
    }

    /// A request of a person, or of the daemon outside any schedule.
    pub fn by_hand(job: JobKey, retry: Retry, timeout: Option<Duration>, who: impl Into<String>) -> Self {
        let who = who.into();
        Self {
            job,
            slot: None,
            nominal_at: None,
            promoted_from: None,
            retry,
            timeout,
            witness: who.clone(),
            requested_by: who,
            remarks: Remarks::default(),
            confirmed: None,
            selection: None,
            target: None,
        }
    }
}

/// What a job did, in one line for people, and the backup or proof it made.
#[derive(Debug, Clone, Default)]
pub struct Done {
    /// One line for people.
    pub summary: String,
    /// The id of the backup it made.
    pub backup_id: Option<String>,
}

impl Done {
    /// Only a line.
    pub fn new(summary: impl Into<String>) -> Self {
        Self { summary: summary.into(), backup_id: None }
    }
}

/// How a run ended, for whoever asked for it.
#[derive(Debug, Clone)]
pub struct Ran {
    /// Its number; none where no row could be opened, or nothing was worth one (an uneventful WAL check).
    pub run: Option<RunId>,
    /// Where it ended.
    pub state: RunState,
    /// What went wrong.
    pub failure: Option<Failure>,
    /// What was done.
    pub done: Done,
    /// Its length.
    pub duration: Duration,
}

/// Runs jobs: the policy, the catalog and the switch that stops everything.
#[derive(Clone)]
pub struct Runner {
    /// The policy that the run begins and ends under.
    pub policy: Arc<Policy>,
    /// The catalog.
    pub catalog: Catalog,
    /// Stops the run.
    pub stop: Stop,
    /// Ends a pause between two attempts: what runs may go on for a while, but nothing new begins.
    pub drain: Stop,
    /// Is told how far a long tool is.
    pub progress: Progress,
}

impl Runner {
    /// Runs a job to its end. The caller holds the locks.
    pub async fn run(&self, request: &Request) -> Ran {
        if request.job.kind == JobKind::Wal {
            return Box::pin(self.check_wal(request)).await;
        }
        let watch = Stopwatch::start();
        let (run, uuid) = match self.open(request).await {
            Ok(opened) => opened,
            Err(failure) => {
                error!(job = %request.job, error = %failure.message, "the run cannot be recorded, so it does not start");
                return Ran {
                    run: None,
                    state: RunState::Failed,
                    failure: Some(failure),
                    done: Done::default(),
                    duration: watch.elapsed(),
                };
            }
        };
        info!(run_id = run, job = %request.job, database = database_field(&request.job), by = %request.requested_by, "run started");
        let result = Box::pin(self.attempts(run, &uuid, request)).await;
        self.close(run, request, result, watch).await
    }

    async fn open(&self, request: &Request) -> Result<(RunId, String), Failure> {
        let uuid = uuid::Uuid::now_v7().to_string();
        let new = NewRun {
            uuid: uuid.clone(),
            job: request.job.clone(),
            slot: request.slot,
            nominal_at: request.nominal_at,
            promoted_from: request.promoted_from,
            requested_by: request.requested_by.clone(),
            owner: process::own_identity(),
            policy_hash: self.policy.hash.clone(),
            started_at: clock::now(),
        };
        let run = self.catalog.start_run(&new).await.map_err(catalog_failure)?;
        Ok((run, uuid))
    }

    /// Tries until it works, the trouble is of a kind that no retry mends, or the attempts are used up.
    async fn attempts(&self, run: RunId, uuid: &str, request: &Request) -> Result<Done, Failure> {
        let mut number = 1;
        loop {
            let result = self.attempt(run, uuid, number, request).await;
            let Err(failure) = result else { return result };
            let again = failure.class.is_retryable() && number < request.retry.attempts && !self.stop.is_stopped();
            if again && self.drain.is_stopped() {
                return Err(stopped_between(&failure));
            }
            if !again {
                return Err(failure);
            }
            let pause = pause(request.retry, number, uuid);
            warn!(run_id = run, job = %request.job, attempt = number, error = %failure.message, "attempt failed, next one in {}", took(pause));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.drain.stopped() => return Err(stopped_between(&failure)),
                () = self.stop.stopped() => return Err(stopped_between(&failure)),
            }
            number += 1;
        }
    }

    async fn attempt(&self, run: RunId, uuid: &str, number: u32, request: &Request) -> Result<Done, Failure> {
        let log_dir = self.log_dir(run, number);
        create_private(&log_dir)?;
        let attempt =
            self.catalog.start_attempt(run, number, clock::now(), Some(&log_dir)).await.map_err(catalog_failure)?;
        let watch = Stopwatch::start();
        let mut context = Context::new(self, request, run, uuid, attempt, log_dir);
        if request.job.kind == JobKind::Expire {
            context.frozen = guard::frozen(&self.catalog, run, context.now()).await.map_err(catalog_failure)?;
        }
        let result = match AssertUnwindSafe(dispatch(&context)).catch_unwind().await {
            Ok(result) => result,
            Err(_) => Err(defect("the job panicked; its message is in the daemon's log")),
        };
        let last = context.last_tool();
        let end = AttemptEnd {
            finished_at: clock::now(),
            duration: watch.elapsed(),
            exit_code: last.exit_code,
            ending: last.ending,
            failure: result.as_ref().err().cloned(),
            tail: last.tail,
        };
        self.persist("the end of an attempt", || self.catalog.finish_attempt(attempt, &end)).await;
        result
    }

    /// Closes the row, whatever happened, and says in one line how it went.
    async fn close(&self, run: RunId, request: &Request, result: Result<Done, Failure>, watch: Stopwatch) -> Ran {
        let state = end_state(&result, self.stop.is_stopped() || self.drain.is_stopped());
        let (done, failure) = match result {
            Ok(done) => (done, None),
            Err(failure) => (Done::default(), Some(failure)),
        };
        let diagnosis = match (&failure, self.database(&request.job)) {
            (Some(failure), Some(database)) if state == RunState::Failed => {
                diagnose::diagnose(&self.policy, &database, failure).await
            }
            _ => Vec::new(),
        };
        let summary = failure.as_ref().map_or_else(|| done.summary.clone(), |failure| failure.message.clone());
        let end = RunEnd {
            state,
            finished_at: clock::now(),
            duration: watch.elapsed(),
            failure: failure.clone(),
            summary,
            diagnosis,
        };
        self.persist("the end of a run", || self.catalog.finish_run(run, &end)).await;
        log_end(run, request, &end);
        Ran { run: Some(run), state, failure, done, duration: end.duration }
    }

    /// Writes what must not be lost: while the disk is full or the catalog is locked, tries again until told to stop.
    async fn persist<F, T>(&self, what: &str, mut write: impl FnMut() -> F)
    where
        F: Future<Output = Result<T, crate::catalog::Error>>,
    {
        while let Err(problem) = write().await {
            error!(error = %chain(&problem), "{what} cannot be recorded, trying again in 10 seconds");
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(10)) => {}
                () = self.stop.stopped() => return,
            }
        }
    }

    fn log_dir(&self, run: RunId, attempt: u32) -> PathBuf {
        self.policy.daemon.state_dir.join("runs").join(run.to_string()).join(attempt.to_string())
    }

    fn database(&self, key: &JobKey) -> Option<Arc<Database>> {
        key.database.as_ref().and_then(|name| self.policy.databases.get(name)).cloned().map(Arc::new)
    }
}

/// Each job's future lives on the heap: a worker's stack holds only the one that runs.
async fn dispatch(context: &Context) -> Result<Done, Failure> {
    match context.job().kind {
        JobKind::Full | JobKind::Diff | JobKind::Incr => Box::pin(backup::run(context)).await,
        JobKind::Expire => Box::pin(expire::run(context)).await,
        JobKind::Verify => Box::pin(verify::run(context)).await,
        JobKind::TestRestore => Box::pin(test_restore::run(context)).await,
        JobKind::CatalogBackup => Box::pin(catalog_backup::run(context)).await,
        JobKind::Wal => Err(defect("a WAL check takes no attempt")),
    }
}

/// A stop between two attempts takes the rest of them away, so the slot must come back.
fn stopped_between(last: &Failure) -> Failure {
    Failure {
        class: ErrorClass::Stopped,
        exit: ExitCode::Interrupted,
        message: format!("stopped while it waited for its next attempt; the last one failed: {}", last.message),
        remedy: last.remedy.clone(),
    }
}

fn end_state(result: &Result<Done, Failure>, stopped: bool) -> RunState {
    match result {
        Ok(_) => RunState::Succeeded,
        Err(failure) if failure.class == ErrorClass::Busy => RunState::Requeued,
        Err(failure) if failure.class == ErrorClass::Stopped && stopped => RunState::Interrupted,
        Err(_) => RunState::Failed,
    }
}

fn log_end(run: RunId, request: &Request, end: &RunEnd) {
    let (job, database, took) = (&request.job, database_field(&request.job), took(end.duration));
    match &end.failure {
        None => info!(run_id = run, %job, database, %took, "run succeeded: {}", end.summary),
        Some(failure) if end.state == RunState::Failed => {
            let remedy = failure.remedy.as_deref().unwrap_or_default();
            error!(run_id = run, %job, database, %took, class = %failure.class, remedy, "run failed: {}", failure.message);
        }
        Some(failure) => warn!(run_id = run, %job, database, %took, "run {}: {}", end.state, failure.message),
    }
}

fn database_field(job: &JobKey) -> &str {
    job.database.as_ref().map_or("", |name| name.as_str())
}

/// The pause after attempt `number`: doubling, capped, and shifted by up to a quarter so that many databases which
/// failed together do not come back together. The shift is taken from the run, so a pause can be told beforehand.
fn pause(retry: Retry, number: u32, run_uuid: &str) -> Duration {
    let doubled = retry.backoff.saturating_mul(1_u32.checked_shl(number - 1).unwrap_or(u32::MAX));
    let base = doubled.min(retry.max_backoff);
    let seed = run_uuid.bytes().fold(number, |seed, byte| seed.wrapping_mul(31).wrapping_add(u32::from(byte)));
    base.mul_f64(0.75 + f64::from(seed % 1000) / 2000.0)
}

pub(crate) fn catalog_failure(problem: crate::catalog::Error) -> Failure {
    Failure { class: ErrorClass::Space, exit: problem.exit(), message: chain(&problem), remedy: problem.hint() }
}

fn defect(message: &str) -> Failure {
    Failure { class: ErrorClass::Defect, exit: ExitCode::Defect, message: message.to_owned(), remedy: None }
}

fn create_private(directory: &std::path::Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|source| Failure {
        class: ErrorClass::Space,
        exit: ExitCode::Storage,
        message: format!("the directory `{}` for the run's logs cannot be made: {source}", directory.display()),
        remedy: Some("Make room in, or mend the rights of, `state_dir`.".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_stay_within_a_quarter() {
        let retry = Retry { attempts: 9, backoff: Duration::from_secs(60), max_backoff: Duration::from_secs(1800) };
        for number in 1..40 {
            let expected = 60_u64.saturating_mul(1 << (number - 1).min(30)).min(1800) as f64;
            let got = pause(retry, number, "0199a0b2-0000-7000-8000-000000000000").as_secs_f64();
            assert!((expected * 0.75..=expected * 1.25).contains(&got), "{number}: {got}");
        }
    }

    #[test]
    fn a_stopped_stanza_is_a_failure_but_a_stopped_daemon_is_an_interruption() {
        let stopped =
            Failure { class: ErrorClass::Stopped, exit: ExitCode::Interrupted, message: String::new(), remedy: None };
        assert_eq!(end_state(&Err(stopped.clone()), false), RunState::Failed);
        assert_eq!(end_state(&Err(stopped), true), RunState::Interrupted);
    }
}
