//! Settles runs whose owner died, so that no row says "running" for ever and no finished backup is lost.
//!
//! The order is fixed (a crash may have left any of these): the tool still lives → it is adopted and followed by its
//! log file; a backup with the run's id is in the repository → the run succeeded; otherwise what is left of its process
//! group is ended and the run was interrupted, and its slot becomes due again, at most twice.
//!
//! A dump is never adopted: its reader was the process that died, so its tool ends by itself. Whether it was finished is
//! told by the manifest in a storage.
//!
//! A newcomer would look at the exit code in the log alone. A crash between the tool's last step and its last line
//! leaves a good backup behind a log without an end, so the repository is asked first.

use std::time::Duration;

use tracing::{info, warn};

use crate::{
    catalog,
    clock::{self, age},
    engine::pgbackrest::{PgBackRest, exit, log},
    error::{ExitCode, chain},
    job::{Runner, Silence, clean_scratch, dump, sync},
    policy::Database,
    process::{self, Adopted, Ending, Finished},
    record::{
        Backup, BackupStatus, DatabaseName, ErrorClass, Failure, JobKind, OpenRun, ProcessIdentity, RunEnd, RunState,
    },
};

/// How long the rest of a dead run's process group may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);

/// What became of an open run.
#[derive(Debug)]
pub enum Settled {
    /// Its owner lives and works on it.
    Owned,
    /// Its owner is dead, its tool works on; somebody should adopt it.
    Orphaned(ProcessIdentity),
    /// It was closed.
    Closed(RunState),
    /// It cannot be told yet, because the repository could not be asked.
    Undecided(String),
}

/// Settles the open runs of a database, or of all, and tells what became of each.
///
/// # Errors
/// When the catalog cannot be read or written.
pub async fn settle_all(
    runner: &Runner,
    database: Option<&DatabaseName>,
) -> Result<Vec<(OpenRun, Settled)>, catalog::Error> {
    let mut settled = Vec::new();
    for open in runner.catalog.open_runs().await? {
        if database.is_none_or(|name| open.run.job.database.as_ref() == Some(name)) {
            let outcome = settle(runner, &open).await?;
            settled.push((open, outcome));
        }
    }
    Ok(settled)
}

/// Whether nobody works on an open run: its owner is dead, or is this very process although the caller holds the lock
/// (or knows that no task of its own has it), so that the task which had it must have died.
pub fn is_abandoned(open: &OpenRun) -> bool {
    let own = open.owner == process::own_identity() && open.run.job.kind.is_exclusive();
    own || !process::is_alive(&open.owner)
}

/// Settles one open run.
///
/// # Errors
/// When the catalog cannot be written.
pub async fn settle(runner: &Runner, open: &OpenRun) -> Result<Settled, catalog::Error> {
    if !is_abandoned(open) {
        return Ok(Settled::Owned);
    }
    if open.run.job.kind.backup_type().is_some()
        && dumped(runner, open).is_none()
        && let Some(identity) = living_tool(open)
    {
        return Ok(Settled::Orphaned(identity));
    }
    conclude(runner, open, None).await
}

/// Follows an orphaned tool to its end, then settles its run.
///
/// # Errors
/// When the catalog cannot be written.
pub async fn adopt(runner: &Runner, open: &OpenRun, identity: &ProcessIdentity) -> Result<Settled, catalog::Error> {
    info!(run_id = open.run.id, job = %open.run.job, pid = identity.pid, "run adopted: its tool lives");
    let log = open.attempt.as_ref().and_then(|attempt| attempt.log_path.clone()).unwrap_or_default().join("backup.log");
    let finished = match process::adopt(identity, &log) {
        Some(adopted) => Some(follow(runner, open, adopted).await),
        None => None,
    };
    conclude(runner, open, finished.as_ref()).await
}

/// Waits as a run of our own would: secrets are kept out of the log, a silence is told.
async fn follow(runner: &Runner, open: &OpenRun, adopted: Adopted) -> Finished {
    let Some(database) = database_of(runner, open) else { return adopted.wait(&runner.stop, |_| {}).await };
    let redactor = PgBackRest::of(database).map(|tool| tool.version().redactor());
    let adopted = match redactor {
        Ok(redactor) => adopted.redacting(redactor),
        Err(_) => adopted,
    };
    let activity = adopted.activity();
    let silence = Silence { run: open.run.id, job: &open.run.job, tool: "backup", stall: database.stall };
    tokio::select! {
        finished = adopted.wait(&runner.stop, |_| {}) => finished,
        never = silence.watch(&activity) => never,
    }
}

fn database_of<'r>(runner: &'r Runner, open: &OpenRun) -> Option<&'r Database> {
    open.run.job.database.as_ref().and_then(|name| runner.policy.databases.get(name))
}

/// The database of a run that makes a dump.
fn dumped<'r>(runner: &'r Runner, open: &OpenRun) -> Option<&'r Database> {
    let is_backup = open.run.job.kind.backup_type().is_some();
    database_of(runner, open).filter(|database| is_backup && database.engine.is_dump())
}

/// The tool of a run, by its recorded identity, or by the run's id among its arguments when the crash came between its
/// start and the recording.
fn living_tool(open: &OpenRun) -> Option<ProcessIdentity> {
    let recorded = open.attempt.as_ref().and_then(|attempt| attempt.process.clone());
    if let Some(identity) = recorded.filter(process::is_alive) {
        return Some(identity);
    }
    process::find_by_argument(&format!("run-id={}", open.run.uuid)).into_iter().next()
}

async fn conclude(runner: &Runner, open: &OpenRun, seen: Option<&Finished>) -> Result<Settled, catalog::Error> {
    if let Some(database) = dumped(runner, open) {
        return conclude_dump(runner, open, database).await;
    }
    if open.run.job.kind.backup_type().is_some() {
        match found_in_repository(runner, open).await {
            Ok(Some(backup)) => return close_found(runner, open, &backup).await,
            Ok(None) => {}
            Err(problem) => return Ok(Settled::Undecided(problem)),
        }
    }
    end_leftovers(runner, open).await;
    let failure = seen.map_or_else(|| interrupted(open), |finished| explained(open, finished));
    let state = if failure.class == ErrorClass::Stopped { RunState::Interrupted } else { RunState::Failed };
    let summary = failure.message.clone();
    close(runner, open, state, Some(failure), summary).await
}

/// What the tool of a dump still does is of no use: it is ended before its leftovers go.
async fn conclude_dump(runner: &Runner, open: &OpenRun, database: &Database) -> Result<Settled, catalog::Error> {
    end_leftovers(runner, open).await;
    match dump::settle(runner, database, open).await {
        Ok(Some(backup)) => close_found(runner, open, &backup).await,
        Ok(None) => {
            let failure = interrupted(open);
            let summary = failure.message.clone();
            close(runner, open, RunState::Interrupted, Some(failure), summary).await
        }
        Err(problem) => Ok(Settled::Undecided(problem)),
    }
}

/// A backup that was finished is judged as it would have been by its own run.
async fn close_found(runner: &Runner, open: &OpenRun, backup: &Backup) -> Result<Settled, catalog::Error> {
    let label = &backup.label;
    if backup.status != BackupStatus::Damaged {
        let summary = format!("backup {label} was found finished");
        return close(runner, open, RunState::Succeeded, None, summary).await;
    }
    let failure = Failure {
        class: ErrorClass::Integrity,
        exit: ExitCode::VerificationFailed,
        message: format!("backup {label} was found finished, with page checksum errors"),
        remedy: Some("The database itself is damaged: check its disks, and its files with `pg_amcheck`.".to_owned()),
    };
    let summary = failure.message.clone();
    close(runner, open, RunState::Failed, Some(failure), summary).await
}

async fn found_in_repository(runner: &Runner, open: &OpenRun) -> Result<Option<Backup>, String> {
    let Some(database) = database_of(runner, open) else { return Ok(None) };
    let repo = open.run.job.repo.or_else(|| database.pgbackrest.repos.first().copied()).unwrap_or(1);
    let seen = sync::look(database, &runner.stop).await.map_err(|failure| failure.message)?;
    sync::remember(&runner.catalog, database, &seen).await.map_err(|problem| chain(&problem))?;
    Ok(seen.backup_of_run(repo, &open.run.uuid).cloned())
}

async fn end_leftovers(runner: &Runner, open: &OpenRun) {
    if open.run.job.kind == JobKind::TestRestore {
        let is_other = |uuid: &str| uuid != open.run.uuid;
        for line in clean_scratch(&runner.policy.daemon.scratch_dir, is_other).await {
            warn!(run_id = open.run.id, "left over from a dead test restore: {line}");
        }
    }
    let Some(identity) = open.attempt.as_ref().and_then(|attempt| attempt.process.as_ref()) else {
        return;
    };
    if process::group_is_alive(identity) && !process::end_group(identity.pgid, GRACE).await {
        warn!(run_id = open.run.id, pgid = identity.pgid, "processes of a dead run could not be ended");
    }
}

fn interrupted(open: &OpenRun) -> Failure {
    Failure {
        class: ErrorClass::Stopped,
        exit: ExitCode::Interrupted,
        message: format!("interrupted: the process that ran it (pid {}) is gone", open.owner.pid),
        remedy: Some(
            "Nothing to do: its slot is made up for; what the tool left is resumed or removed by its next run."
                .to_owned(),
        ),
    }
}

/// What the log of an adopted tool says about its end; its exit code was nobody's to see.
fn explained(open: &OpenRun, finished: &Finished) -> Failure {
    let tail = || finished.tail.iter().map(String::as_str);
    match log::Digest::of(tail()).end {
        Some(log::End::Aborted(code)) => exit::explain(&Ending::Exited(code.into()), tail()),
        _ => interrupted(open),
    }
}

async fn close(
    runner: &Runner,
    open: &OpenRun,
    state: RunState,
    failure: Option<Failure>,
    summary: String,
) -> Result<Settled, catalog::Error> {
    let now = clock::now();
    let end = RunEnd {
        state,
        finished_at: now,
        duration: age(now, open.run.started_at),
        failure,
        summary: summary.clone(),
        diagnosis: Vec::new(),
    };
    if !runner.catalog.finish_run(open.run.id, &end).await? {
        // Somebody else settled it first; the slot was theirs to give back.
        return Ok(Settled::Closed(state));
    }
    if let Some(slot) = open.run.slot.filter(|_| state == RunState::Interrupted) {
        runner.catalog.return_slot(slot).await?;
    }
    info!(run_id = open.run.id, job = %open.run.job, %state, "run settled after a crash: {summary}");
    Ok(Settled::Closed(state))
}
