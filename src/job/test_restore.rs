//! A test restore: the newest backup, restored into a throw-away place, checked, timed, and removed.
//!
//! It proves what no green exit code does. What is restored is fetched outside with the storage's secrets; whatever the
//! copy itself may do happens inside a sandbox that has no secret, no network and no directory of production.
//!
//! Each step is recorded with its length and its evidence, also the one that failed and those that were not reached. A
//! step that fails ends the restore, but never the teardown. The parts: `pgbackrest.rs` and `dump.rs` are the two ways of
//! a restore, `scratch.rs` the directory, `walls.rs` the sandbox and the programs in it, `checks.rs` the content of a copy
//! in PostgreSQL, `steps.rs` the record.
//!
//! A newcomer would let a check that could not be done count as passed. Skipped is not passed, and a proof says so.

mod checks;
mod dump;
mod pgbackrest;
mod scratch;
mod steps;
mod walls;

use std::path::PathBuf;

use chrono::{DateTime, Utc};

pub use self::scratch::clean_scratch;
use self::{scratch::Scratch, steps::Steps};
use super::{Context, Done, catalog_failure, sync};
use crate::{
    error::ExitCode,
    human::took,
    record::{Backup, ErrorClass, Failure, Proof, StepOutcome},
};

/// Restores the newest good backup into a throw-away place and checks it.
pub(super) async fn run(context: &Context) -> Result<Done, Failure> {
    let restore = Restore::choose(context).await?;
    let started_at = context.now();
    let way = Way { steps: Steps::new(restore.plan()), facts: Facts::default(), scratch: None };
    let mut test = Test { context, restore, way };
    let proved = test.prove_in_time().await;
    // A tool that was stopped fails in its own way; the wish to stop is what counts.
    let proved = if context.stop.is_stopped() { proved.map_err(|_| stopped()) } else { proved };
    let torn_down = test.tear_down().await;
    let ended = proved.and(torn_down);
    // What never got to the backup, or was stopped, says nothing about it, for or against.
    let was_stopped = ended.as_ref().is_err_and(|failure| failure.class == ErrorClass::Stopped);
    if was_stopped || !test.way.steps.has_verdict() {
        return ended.and(Ok(Done::default()));
    }
    test.way.steps.fill_up("an earlier step failed");
    let proof = test.proof(started_at);
    context.catalog.record_proof(&proof).await.map_err(catalog_failure)?;
    ended?;
    if !proof.passed {
        return Err(failure(
            ErrorClass::Integrity,
            "a step that must be done was skipped",
            "Read the steps of the proof.",
        ));
    }
    Ok(Done::new(summary(test.restore.backup(), &proof)))
}

fn summary(backup: &Backup, proof: &Proof) -> String {
    let to = proof.recovered_to.map_or_else(String::new, |to| format!(" to {}", to.format("%Y-%m-%d %H:%M:%S UTC")));
    let skipped = proof.steps.iter().filter(|step| step.outcome == StepOutcome::Skipped).count();
    let skipped = if skipped == 0 { String::new() } else { format!(", {skipped} steps skipped") };
    let (label, took) = (&backup.label, took(proof.recovery_time));
    let wal = match proof.wal_segments {
        _ if backup.engine.is_dump() => String::new(),
        segments => format!(" with {segments} WAL segments"),
    };
    format!("{label}{wal} recovered{to} in {took}{skipped}")
}

/// The two ways of a restore.
enum Restore {
    /// Files and WAL, by pgBackRest.
    PgBackRest(Box<pgbackrest::Restore>),
    /// A dump out of a storage.
    Dump(Box<dump::Restore>),
}

impl Restore {
    async fn choose(context: &Context) -> Result<Self, Failure> {
        if context.database().engine.is_dump() {
            return Ok(Self::Dump(Box::new(dump::Restore::choose(context).await?)));
        }
        Ok(Self::PgBackRest(Box::new(pgbackrest::Restore::choose(context).await?)))
    }

    fn backup(&self) -> &Backup {
        match self {
            Self::PgBackRest(restore) => &restore.backup,
            Self::Dump(restore) => &restore.backup,
        }
    }

    fn plan(&self) -> &'static steps::Plan {
        match self {
            Self::PgBackRest(restore) => restore.plan(),
            Self::Dump(restore) => restore.plan(),
        }
    }

    async fn prove(&self, context: &Context, way: &mut Way) -> Result<(), Failure> {
        match self {
            Self::PgBackRest(restore) => Box::pin(restore.prove(context, way)).await,
            Self::Dump(restore) => Box::pin(restore.prove(context, way)).await,
        }
    }
}

/// How far a restore came: its steps, what was found out, and the directory that must go.
struct Way {
    steps: Steps,
    facts: Facts,
    scratch: Option<Scratch>,
}

/// What was found out on the way, for the proof.
#[derive(Debug, Default)]
struct Facts {
    isolation: String,
    recovered_to: Option<DateTime<Utc>>,
    reached_lsn: Option<String>,
    expected_lsn: Option<String>,
    size: u64,
    wal_segments: u32,
}

/// One test restore on its way.
struct Test<'a> {
    context: &'a Context,
    restore: Restore,
    way: Way,
}

impl Test<'_> {
    /// Every step within what is left of the attempt's time.
    async fn prove_in_time(&mut self) -> Result<(), Failure> {
        let Self { context, restore, way } = self;
        let Some(left) = context.time_left() else { return restore.prove(context, way).await };
        let Ok(proved) = tokio::time::timeout(left, restore.prove(context, way)).await else {
            let message = format!("not done within {}", took(left));
            way.steps.give_up(&message);
            return Err(failure(ErrorClass::Transient, message, "Raise `timeout` of the test restore."));
        };
        proved
    }

    async fn tear_down(&mut self) -> Result<(), Failure> {
        match self.way.scratch.take() {
            Some(scratch) => self.way.steps.run("teardown", scratch.remove()).await,
            None => Ok(()),
        }
    }

    fn proof(&mut self, started_at: DateTime<Utc>) -> Proof {
        let (facts, steps, backup) = (std::mem::take(&mut self.way.facts), &mut self.way.steps, self.restore.backup());
        let must_assert = !self.context.database().test_restore.assertions.is_empty();
        Proof {
            id: 0,
            run: self.context.run,
            database: self.context.database().name.clone(),
            backup_id: backup.id.clone(),
            repo: backup.repo,
            started_at,
            finished_at: self.context.now(),
            passed: steps.passed(must_assert),
            isolation: facts.isolation,
            recovered_to: facts.recovered_to,
            reached_lsn: facts.reached_lsn,
            expected_lsn: facts.expected_lsn,
            recovery_time: steps.recovery_time(),
            size: facts.size,
            wal_segments: facts.wal_segments,
            steps: steps.take(),
        }
    }
}

/// A failure of a step; all of them share the exit code.
fn failure(class: ErrorClass, message: impl Into<String>, remedy: &str) -> Failure {
    Failure { class, exit: ExitCode::RestoreFailed, message: message.into(), remedy: Some(remedy.to_owned()) }
}

/// A tool's failure within a step: what the tool says, as a failure of the restore.
fn of_restore(step: &str, cause: Failure) -> Failure {
    let exit = if cause.class == ErrorClass::Stopped { cause.exit } else { ExitCode::RestoreFailed };
    Failure { exit, message: format!("{step}: {}", cause.message), ..cause }
}

fn stopped() -> Failure {
    let remedy = Some("Start it again when there is time.".to_owned());
    Failure { class: ErrorClass::Stopped, exit: ExitCode::Interrupted, message: "stopped".to_owned(), remedy }
}

/// Paths as a person reads them in a sentence.
fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| format!("`{}`", path.display())).collect::<Vec<_>>().join(", ")
}
