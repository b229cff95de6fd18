//! From nothing to the loop: policy, state directory, lock, catalog, dead rows, scheduler.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use super::{Alarm, Daemon, Queue, Signals, index, shrink};
use crate::{
    catalog::{self, Catalog, Opened, RecoveryMode},
    clock::{self, JumpDetector, Stopwatch},
    diagnose,
    error::{Error, ExitCode, chain},
    job,
    lock::{self, Lock},
    policy::Policy,
    process::Stop,
    record::{JobKey, JobKind, Slot},
    schedule::{CatchUp, JobHistory, Planner},
};

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// When it cannot begin: no usable policy, another daemon, no state directory, no catalog.
pub async fn run(path: &Path, policy: Policy, rejected: Option<String>) -> Result<(), Error> {
    let watch = Stopwatch::start();
    let state_dir = policy.daemon.state_dir.clone();
    let lock = only_one(&state_dir)?;
    let (catalog, opened) = Catalog::open_or_recover(&state_dir, clock::now()).await.map_err(catalog_error)?;
    tell_opened(&opened);
    let daemon = build(path.to_owned(), policy, rejected, catalog, lock).await?;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        policy = %path.display(),
        databases = daemon.policy.databases.len(),
        jobs = daemon.policy.jobs.len(),
        timezone = %daemon.policy.daemon.timezone,
        state_dir = %state_dir.display(),
        "daemon started in {} ms", watch.elapsed().as_millis()
    );
    daemon.serve().await;
    Ok(())
}

async fn build(
    path: PathBuf,
    policy: Policy,
    rejected: Option<String>,
    catalog: Catalog,
    lock: Lock,
) -> Result<Daemon, Error> {
    log_warnings(&policy);
    let signals = Signals::register()
        .map_err(|source| Error::new(ExitCode::Defect, "the signal handlers cannot be set").because(source))?;
    let alarm = Alarm::start()
        .await
        .map_err(|source| Error::new(ExitCode::Defect, "the scheduler cannot start").because(source))?;
    let planner = plan(&catalog, &policy).await.map_err(catalog_error)?;
    let recovery = catalog.recovery_mode().await.map_err(catalog_error)?;
    let (stop_handle, stop) = Stop::new();
    let (drain_handle, drain) = Stop::new();
    let mut daemon = Daemon {
        path,
        jobs: index(&policy.jobs),
        policy: Arc::new(policy),
        catalog,
        planner,
        queue: Queue::default(),
        tasks: JoinSet::new(),
        tickets: HashMap::new(),
        alarm,
        signals,
        stop,
        stop_handle,
        drain,
        drain_handle,
        jump: JumpDetector::new(clock::now()),
        catch_up: catch_up(recovery.as_ref()),
        rejected,
        claim_after: None,
        stopping: None,
        told: String::new(),
        _lock: lock,
    };
    shrink::adopt(&daemon.catalog, &daemon.policy).await;
    daemon.take_over().await.map_err(catalog_error)?;
    Ok(daemon)
}

impl Daemon {
    /// What the last daemon left: claimed slots without a run, scratch directories, open runs; and a look at the WAL.
    async fn take_over(&mut self) -> Result<(), catalog::Error> {
        self.enqueue_unfinished().await;
        let open = self.catalog.open_runs().await?;
        let live = |uuid: &str| open.iter().any(|open| open.run.uuid == uuid && crate::process::is_alive(&open.owner));
        for line in job::clean_scratch(&self.policy.daemon.scratch_dir, live).await {
            warn!("left over from a dead test restore: {line}");
        }
        self.adopt_and_settle().await;
        let now = clock::now();
        let looks: Vec<Slot> = self
            .policy
            .jobs
            .iter()
            .filter(|job| job.key.kind == JobKind::Wal)
            .map(|job| at_start(&job.key, now))
            .collect();
        if !looks.is_empty() {
            self.take(looks, now).await;
        }
        Ok(())
    }
}

/// Nothing is made up for in recovery mode: a catalog that forgot may take everything for missed.
pub(super) fn catch_up(recovery: Option<&RecoveryMode>) -> CatchUp {
    if recovery.is_some() { CatchUp::Forbidden } else { CatchUp::Allowed }
}

/// WAL checks do not catch up; they look at start.
fn at_start(job: &JobKey, now: DateTime<Utc>) -> Slot {
    Slot { job: job.clone(), nominal_at: now, missed_count: 0, skip: None }
}

/// Accepts a policy in the catalog and plans its jobs.
pub(super) async fn plan(catalog: &Catalog, policy: &Policy) -> Result<Planner, catalog::Error> {
    let now = clock::now();
    catalog.accept_policy(&policy.hash, &policy.files, now).await?;
    let jobs: Vec<(JobKey, String)> = policy
        .jobs
        .iter()
        .map(|job| (job.key.clone(), format!("{} {}", job.schedule.text(), job.schedule.zone())))
        .collect();
    let seen = catalog.sync_jobs(&jobs, now).await?;
    let history = |(first_seen_at, last_nominal_at)| JobHistory { first_seen_at, last_nominal_at };
    let history: HashMap<JobKey, JobHistory> = seen.into_iter().map(|(key, seen)| (key, history(seen))).collect();
    Ok(Planner::new(&policy.jobs, &history))
}

pub(super) fn log_warnings(policy: &Policy) {
    for problem in &policy.warnings {
        warn!("policy: {}", problem);
    }
    // Looked at here, because only the daemon sees what its unit makes read-only.
    for line in diagnose::closed_paths(policy) {
        warn!("policy: {line}");
    }
}

fn only_one(state_dir: &Path) -> Result<Lock, Error> {
    let lock = Lock::daemon(state_dir).map_err(|source| {
        Error::new(ExitCode::Storage, format!("the state directory `{}` cannot be used", state_dir.display()))
            .because(source)
            .hint("Create it for the user that runs Backstop, with mode 0700, or set `state_dir` in `[daemon]`.")
    })?;
    lock.ok_or_else(|| {
        let holder = lock::daemon_holder(state_dir).unwrap_or_else(|| "unknown".to_owned());
        Error::new(ExitCode::Busy, format!("another daemon works in `{}`: {holder}", state_dir.display()))
            .hint("Stop it first: `systemctl stop backstop`.")
    })
}

fn tell_opened(opened: &Opened) {
    match opened {
        Opened::Existing => {}
        Opened::New => info!("a new catalog was made"),
        Opened::Recovered { from, why, moved_to } => {
            let from =
                from.as_ref().map_or_else(|| "nothing: it is empty".to_owned(), |path| path.display().to_string());
            let moved = moved_to
                .as_ref()
                .map_or_else(String::new, |path| format!(", the damaged file is kept as `{}`", path.display()));
            error!(
                "the catalog was lost ({why}) and was restored from {from}{moved}; recovery mode: nothing is made up for or deleted until `backstop catalog accept`"
            );
        }
    }
}

fn catalog_error(problem: catalog::Error) -> Error {
    let hint = problem.hint();
    let error = Error::new(problem.exit(), "the catalog cannot be used");
    let error = match hint {
        Some(hint) => error.hint(hint),
        None => error,
    };
    tracing::debug!(error = %chain(&problem), "catalog");
    error.because(problem)
}
