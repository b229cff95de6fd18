//! A test restore: the newest backup and its WAL, restored into a throw-away server, checked, timed, and removed.
//!
//! It proves what no green exit code does. The backup and the WAL are fetched outside with the repository's secrets; the
//! recovery happens inside a sandbox that has no secret, no network and no directory of production. Production is marked
//! before ("canary"), so that the copy can be seen to have reached that moment and not just any end.
//!
//! Each step is recorded with its length and its evidence, also the one that failed and those that were not reached. A
//! step that fails ends the restore, but never the teardown. The parts, in the order of a restore: `scratch.rs` is the
//! directory, `production.rs` what production is asked, `wal.rs` which segments and how they come, `recovery.rs` the
//! server, `checks.rs` the copy's content, `steps.rs` the record.
//!
//! A newcomer would let a check that could not be done count as passed. Skipped is not passed, and a proof says so.

mod checks;
mod production;
mod recovery;
mod scratch;
mod steps;
mod wal;

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

pub use self::scratch::clean_scratch;
use self::{
    production::{Canary, Production},
    scratch::Scratch,
    steps::{Checked, Steps},
};
use super::{Context, Done, catalog_failure, sync};
use crate::{
    engine::pgbackrest::{PgBackRest, RestoreRequest, exit, log},
    error::ExitCode,
    human::took,
    record::{Backup, ErrorClass, Failure, Proof},
    sandbox::{Cluster, Isolation, Layout},
};

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

/// Restores the newest good backup into a throw-away server and checks it.
pub(super) async fn run(context: &Context) -> Result<Done, Failure> {
    let seen = sync::look(context.database(), &context.stop).await?;
    sync::remember(&context.catalog, context.database(), &seen).await.map_err(catalog_failure)?;
    let backup = newest_backup(context, &seen).await?;
    let archive_id = seen.archive_id(backup.repo);
    let started_at = context.now();
    let mut test =
        Test { context, backup, archive_id, steps: Steps::default(), facts: Facts::default(), scratch: None };
    let proved = test.prove_in_time().await;
    // A tool that was stopped fails in its own way; the wish to stop is what counts.
    let proved = if context.stop.is_stopped() { proved.map_err(|_| stopped()) } else { proved };
    let torn_down = test.tear_down().await;
    let ended = proved.and(torn_down);
    // What never got to the restore, or was stopped, says nothing about the backup, for or against.
    let was_stopped = ended.as_ref().is_err_and(|failure| failure.class == ErrorClass::Stopped);
    if was_stopped || !test.steps.has_begun("restore") {
        return ended.and(Ok(Done::default()));
    }
    test.steps.fill_up("an earlier step failed");
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
    Ok(Done::new(summary(&test.backup, &proof)))
}

async fn newest_backup(context: &Context, seen: &sync::Seen) -> Result<Backup, Failure> {
    let (name, repo) = (&context.database().name, context.repo());
    let backups = context.catalog.backups(name).await.map_err(catalog_failure)?;
    // Without WAL of its own a backup cannot be recovered from the archive, only trusted.
    let is_present = |backup: &Backup| seen.cluster(repo).is_none_or(|cluster| cluster.system_id == backup.system_id);
    let is_sound = |backup: &Backup| backup.repo == repo && backup.is_good() && backup.wal_start.is_some();
    let fit = |backup: &Backup| is_sound(backup) && is_present(backup);
    let newest = backups.into_iter().filter(fit).max_by_key(|backup| backup.stopped_at);
    newest.ok_or_else(|| {
        let message = format!("repository {repo} holds no good backup of `{name}` to restore");
        failure(ErrorClass::Config, message, "Make a full backup first.")
    })
}

fn summary(backup: &Backup, proof: &Proof) -> String {
    let to = proof.recovered_to.map_or_else(String::new, |to| format!(" to {}", to.format("%Y-%m-%d %H:%M:%S UTC")));
    let skipped = proof.steps.iter().filter(|step| step.outcome == crate::record::StepOutcome::Skipped).count();
    let skipped = if skipped == 0 { String::new() } else { format!(", {skipped} steps skipped") };
    let (label, took, segments) = (&backup.label, took(proof.recovery_time), proof.wal_segments);
    format!("{label} with {segments} WAL segments recovered{to} in {took}{skipped}")
}

/// One test restore on its way.
struct Test<'a> {
    context: &'a Context,
    backup: Backup,
    archive_id: Option<String>,
    steps: Steps,
    facts: Facts,
    scratch: Option<Scratch>,
}

impl Test<'_> {
    /// Every step within what is left of the attempt's time.
    async fn prove_in_time(&mut self) -> Result<(), Failure> {
        let Some(left) = self.context.time_left() else { return self.prove().await };
        let Ok(proved) = tokio::time::timeout(left, self.prove()).await else {
            let message = format!("not done within {}", took(left));
            self.steps.give_up(&message);
            return Err(failure(ErrorClass::Transient, message, "Raise `timeout` of the test restore."));
        };
        proved
    }

    /// Every step up to the last check; the server is gone when it returns, or is dropped.
    async fn prove(&mut self) -> Result<(), Failure> {
        let (context, backup, steps) = (self.context, &self.backup, &mut self.steps);
        let tool = steps.run("backup", choose(context, backup)).await?;
        let isolation = steps.run("isolation", isolate()).await?;
        self.facts.isolation = isolation.to_string();
        let programs = steps.run("programs", recovery::find_programs(context, backup)).await?;
        let production = steps.run("production", Production::ask(context, backup)).await?;
        let scratch = steps.run("scratch", Scratch::make(context, &production.directories())).await?;
        let layout = scratch.layout().clone();
        self.scratch = Some(scratch);
        let archive = wal::Archive::new(context, &tool, backup, self.archive_id.clone(), &production);
        steps.run("space", archive.check_space(&layout)).await?;
        let canary = steps.run("canary", mark(context, &production, &archive)).await?;

        let cluster = steps.run("restore", restore(context, &tool, backup, &layout, &programs, &production)).await?;
        let plan = steps.run("archive", archive.plan(canary, cluster.segment_size)).await?;
        self.facts.expected_lsn = Some(plan.expected.to_string());
        steps.run("configuration", recovery::configure(&layout, &cluster, &plan)).await?;
        steps.run("fetch_wal", archive.fetch(&plan, &layout, cluster.segment_size)).await?;
        let sandbox = steps.run("walls", recovery::build_walls(context, layout, programs, &production)).await?;
        let (server, copy) = steps.run("recovery", recovery::recover(context, &sandbox, &plan, &production)).await?;
        self.facts.wal_segments = u32::try_from(server.log().segments.len()).unwrap_or(u32::MAX);
        self.facts.reached_lsn = Some(copy.reached.to_string());
        self.facts.recovered_to = copy.recovered_to.or(Some(backup.stopped_at));

        let (client, superuser) = (&copy.client, production.superuser.as_str());
        let databases = steps.run("connect", checks::connect(client)).await?;
        self.facts.size = steps.run("size", checks::size(client)).await?;
        steps.run("read_every_row", checks::read_every_row(context, &sandbox, superuser, &databases)).await?;
        steps.run("assertions", checks::assertions(context, client)).await?;
        steps.run("amcheck", checks::amcheck(context, client, &sandbox, superuser)).await?;
        steps.run("checksums", checks::checksums(context, server, &sandbox, &cluster)).await
    }

    async fn tear_down(&mut self) -> Result<(), Failure> {
        match self.scratch.take() {
            Some(scratch) => self.steps.run("teardown", scratch.remove()).await,
            None => Ok(()),
        }
    }

    fn proof(&mut self, started_at: DateTime<Utc>) -> Proof {
        let facts = std::mem::take(&mut self.facts);
        let steps = std::mem::take(&mut self.steps);
        let must_assert = !self.context.database().test_restore.assertions.is_empty();
        Proof {
            id: 0,
            run: self.context.run,
            database: self.context.database().name.clone(),
            backup_id: self.backup.id.clone(),
            repo: self.backup.repo,
            started_at,
            finished_at: self.context.now(),
            passed: steps.passed(must_assert),
            isolation: facts.isolation,
            recovered_to: facts.recovered_to,
            reached_lsn: facts.reached_lsn,
            expected_lsn: facts.expected_lsn,
            recovery_time: steps.length_of(&["restore", "fetch_wal", "recovery"]),
            size: facts.size,
            wal_segments: facts.wal_segments,
            steps: steps.into(),
        }
    }
}

async fn choose(context: &Context, backup: &Backup) -> steps::Result<PgBackRest> {
    let tool = PgBackRest::of(context.database()).map_err(sync::secret_failure)?;
    let stopped_at = backup.stopped_at.format("%Y-%m-%d %H:%M:%S UTC");
    let detail = format!("{} {} in repository {}, of {stopped_at}", backup.backup_type, backup.label, backup.repo);
    Ok(Checked::passed(tool, detail))
}

async fn isolate() -> steps::Result<Isolation> {
    let isolation = Isolation::probe().await?;
    let detail = isolation.to_string();
    Ok(Checked::passed(isolation, detail))
}

/// Marks production and waits until the mark is in the archive, so that it must be in the copy.
async fn mark(context: &Context, production: &Production, archive: &wal::Archive<'_>) -> steps::Result<Option<Canary>> {
    let canary = match production.mark(context).await? {
        Ok(canary) => canary,
        Err(reason) => return Ok(Checked::skipped(None, reason)),
    };
    archive.wait_for(canary.segment).await?;
    let detail = format!("restore point `{}` at {}, archived in {}", canary.name, canary.lsn, canary.segment);
    Ok(Checked::passed(Some(canary), detail))
}

/// Restores the backup's files, and reads of which cluster they are.
async fn restore(
    context: &Context,
    tool: &PgBackRest,
    backup: &Backup,
    layout: &Layout,
    programs: &Path,
    production: &Production,
) -> steps::Result<Cluster> {
    let request = RestoreRequest {
        repo: backup.repo,
        label: backup.label.clone(),
        data_dir: layout.data(),
        tablespace_dir: layout.tablespaces(),
        work_dir: layout.work(),
        process_max: context.database().pgbackrest.process_max,
    };
    let on_line = |line: &str| log::percent(line).into_iter().for_each(|percent| context.progress.at(percent));
    let finished = context.tool("restore", &tool.restore(&request), on_line).await?;
    if !finished.ok() {
        let cause = exit::explain(&finished.ending, finished.tail.iter().map(String::as_str));
        return Err(of_restore("the restore of the backup failed", cause));
    }
    let cluster = recovery::control_data(context, programs, backup, layout, production).await?;
    Ok(Checked::passed(cluster, format!("{} MiB", backup.size >> 20)))
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
