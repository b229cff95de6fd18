//! The tasks that the loop spawns: a slot's run from its locks to its end, and an orphan's.

use tracing::{error, info, warn};

use crate::{
    clock,
    error::chain,
    job::{Held, Ran, Request, Runner},
    policy::Job,
    record::{BackupType, JobKind, OpenRun},
    schedule::{FullHistory, Queued, latest_start, promote},
    settle::{self, Settled},
};

/// What a task hands back to the loop.
pub(super) struct Ended {
    pub(super) queued: Option<Queued>,
    pub(super) end: End,
}

/// How it went.
pub(super) enum End {
    /// A run was done.
    Ran(Ran),
    /// Somebody else works on the database, or all places are taken; the slot waits.
    Busy,
    /// A dead run was dealt with, or is left for the next tick.
    Settled,
}

/// Runs a slot: locks, dead rows first, then the job.
pub(super) async fn slot(runner: Runner, job: Job, queued: Queued, _ticket: u64) -> Ended {
    let Some(_held) = take(&runner, &queued.slot.job) else {
        return Ended { queued: Some(queued), end: End::Busy };
    };
    if !is_free(&runner, &job).await {
        return Ended { queued: Some(queued), end: End::Busy };
    }
    let request = request(&runner, &job, &queued).await;
    let ran = runner.run(&request).await;
    Ended { queued: Some(queued), end: End::Ran(ran) }
}

/// Adopts or settles a run whose owner died.
pub(super) async fn orphan(runner: Runner, open: OpenRun, _ticket: u64) -> Ended {
    let settled = Ended { queued: None, end: End::Settled };
    let Some(_held) = take(&runner, &open.run.job) else { return settled };
    let outcome = match settle::settle(&runner, &open).await {
        Ok(Settled::Orphaned(identity)) => settle::adopt(&runner, &open, &identity).await,
        other => other,
    };
    match outcome {
        Ok(Settled::Undecided(problem)) => {
            warn!(run_id = open.run.id, job = %open.run.job, "a run of a dead process cannot be settled yet: {problem}");
        }
        Ok(_) => {}
        Err(problem) => error!(run_id = open.run.id, error = %chain(&problem), "a run cannot be settled"),
    }
    settled
}

fn take(runner: &Runner, job: &crate::record::JobKey) -> Option<Held> {
    let daemon = &runner.policy.daemon;
    Held::take(&daemon.state_dir, job, daemon.max_parallel).unwrap_or_else(|problem| {
        error!(%job, error = %chain(&problem), "the locks cannot be taken");
        None
    })
}

/// Whoever takes the lock settles dead rows first. An orphan still at work keeps the database busy.
async fn is_free(runner: &Runner, job: &Job) -> bool {
    if !job.key.kind.is_exclusive() {
        return true;
    }
    match settle::settle_all(runner, job.key.database.as_ref()).await {
        Ok(settled) => settled.iter().all(|(open, outcome)| match outcome {
            Settled::Closed(_) => true,
            Settled::Owned | Settled::Orphaned(_) | Settled::Undecided(_) => !open.run.job.kind.is_exclusive(),
        }),
        Err(problem) => {
            error!(job = %job.key, error = %chain(&problem), "dead runs cannot be settled");
            false
        }
    }
}

/// The request for a slot; a diff or incr may become a full here, when it really starts.
async fn request(runner: &Runner, job: &Job, queued: &Queued) -> Request {
    let mut request = Request::scheduled(job, queued.slot_id, queued.slot.nominal_at);
    let (Some(backup_type), Some(database)) = (job.key.kind.backup_type(), &job.key.database) else {
        return request;
    };
    if backup_type == BackupType::Full {
        return request;
    }
    let history = match runner.catalog.full_history(database, repo(runner, job)).await {
        Ok(history) => history,
        Err(problem) => {
            warn!(job = %job.key, error = %chain(&problem), "the history of fulls cannot be read, nothing is promoted");
            FullHistory { missed_full: false, made_up_for: false, usable_full: true }
        }
    };
    let full = runner.policy.jobs.iter().find(|other| {
        other.key.kind == JobKind::Full && other.key.database == job.key.database && other.key.repo == job.key.repo
    });
    let now = clock::now();
    // The bound belongs to the full that is made up for, which was due at its own schedule's last time.
    let bound = full.and_then(|full| latest_start(full, full.schedule.latest(now)?));
    if let Some(reason) = promote(backup_type, job.promote, &history, bound, now) {
        info!(job = %job.key, "a full backup runs in its place: {reason}");
        request.promoted_from = Some(job.key.kind);
        request.job.kind = JobKind::Full;
    }
    request
}

fn repo(runner: &Runner, job: &Job) -> u32 {
    let database = job.key.database.as_ref().and_then(|name| runner.policy.databases.get(name));
    job.key.repo.or_else(|| database.and_then(|database| database.repos().first().copied())).unwrap_or(1)
}
