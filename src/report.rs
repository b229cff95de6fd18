//! The state of everything as facts, composed from the catalog and the policy.
//!
//! `report/text.rs` prints for people, serde prints for machines; both print the same facts. Nothing here writes, so
//! it works beside a running daemon and with a policy that is broken (the last accepted one is used then).

pub mod backup;
pub mod ranges;
#[cfg(test)]
mod tests;
pub mod text;

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use crate::{
    catalog::{self, Catalog},
    clock::age,
    engine,
    job::progress,
    lock,
    objective::{self, Alarm, Facts, SuccessShare},
    policy::{Database, Policy},
    record::{
        Backup, BackupCopy, BackupStatus, BackupType, DatabaseName, EngineKind, JobKind, Proof, Run, RunState,
        WalSample, Window,
    },
};

/// The state of everything.
#[derive(Debug, Serialize)]
pub struct Status {
    /// When this was true.
    pub at: DateTime<Utc>,
    /// The daemon's process, as its lock tells it; none when nobody runs the schedules.
    pub daemon: Option<String>,
    /// What concerns all databases: recovery mode, a broken policy, no daemon.
    pub notices: Vec<String>,
    /// Each database.
    pub databases: Vec<DatabaseStatus>,
}

impl Status {
    /// Whether anything is alarming.
    pub fn is_alarming(&self) -> bool {
        !self.notices.is_empty() || self.databases.iter().any(|database| !database.alarms.is_empty())
    }

    /// Whether nothing at all is known of some database.
    pub fn is_unknown(&self) -> bool {
        self.databases.is_empty()
            || self.databases.iter().any(|database| database.last.is_empty() && database.wal.is_none())
    }
}

/// The state of one database: to when it is recoverable, how long that takes, when that was last proven.
#[derive(Debug, Serialize)]
pub struct DatabaseStatus {
    /// Its name.
    pub database: DatabaseName,
    /// Its environment.
    pub environment: String,
    /// The tool family that makes its backups.
    pub engine: EngineKind,
    /// Its tier, empty for none.
    pub tier: String,
    /// The newest good backup of each type.
    pub last: BTreeMap<BackupType, LastBackup>,
    /// What runs now.
    pub running: Vec<Running>,
    /// What is next, by kind.
    pub next: Vec<Next>,
    /// From this moment on it can be recovered to any moment up to `recoverable_to`.
    pub recoverable_from: Option<DateTime<Utc>>,
    /// The latest moment it can certainly be recovered to.
    pub recoverable_to: Option<DateTime<Utc>>,
    /// Every range of time that it can be recovered to, per repository, the one that reaches furthest first. A range of
    /// no length is the stop of a backup, or the moment of a dump.
    pub windows: Vec<Window>,
    /// Whether WAL checks are scheduled; without them only the stops of backups are certain.
    pub wal_watched: bool,
    /// How much would be lost now.
    pub rpo: Objective,
    /// How long the last proven recovery took.
    pub rto: Objective,
    /// The newest test restore that passed.
    pub proof: Option<ProofStatus>,
    /// The newest WAL check.
    pub wal: Option<WalSample>,
    /// Size of the database at the newest backup, bytes.
    pub size_bytes: Option<u64>,
    /// Bytes in all repositories or storages that its backups take.
    pub stored_bytes: u64,
    /// The copies of the newest good dump; empty for other engines.
    pub copies: Vec<BackupCopy>,
    /// Everything alarming.
    pub alarms: Vec<Alarm>,
}

/// The newest good backup of a type.
#[derive(Debug, Serialize)]
pub struct LastBackup {
    /// Its id.
    pub id: String,
    /// The tool's name for it.
    pub label: String,
    /// When it stopped.
    pub stopped_at: DateTime<Utc>,
    /// How old it is.
    pub age_seconds: u64,
}

/// A run that is open.
#[derive(Debug, Serialize)]
pub struct Running {
    /// Its number.
    pub run: i64,
    /// What runs.
    pub kind: JobKind,
    /// Since when.
    pub since: DateTime<Utc>,
    /// How far it is, where the tool or earlier runs say.
    pub percent: Option<f64>,
    /// Bytes moved so far, where they are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Bytes a second since the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// How long it will still take by what earlier runs were like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<u64>,
}

/// What a job does next.
#[derive(Debug, Serialize)]
pub struct Next {
    /// The job.
    pub job: String,
    /// When, by its schedule.
    pub at: DateTime<Utc>,
}

/// A measured value beside what is wanted; seconds.
#[derive(Debug, Default, Serialize)]
pub struct Objective {
    /// What is.
    pub seconds: Option<u64>,
    /// What is wanted.
    pub objective_seconds: Option<u64>,
    /// Whether it is met, where both are known.
    pub met: Option<bool>,
}

impl Objective {
    fn new(measured: Option<Duration>, wanted: Option<Duration>) -> Self {
        Self {
            seconds: measured.map(|length| length.as_secs()),
            objective_seconds: wanted.map(|length| length.as_secs()),
            met: measured.zip(wanted).map(|(measured, wanted)| measured <= wanted),
        }
    }
}

/// The newest test restore that passed.
#[derive(Debug, Serialize)]
pub struct ProofStatus {
    /// When it ended.
    pub at: DateTime<Utc>,
    /// How old it is.
    pub age_seconds: u64,
    /// The backup it restored.
    pub backup_id: String,
    /// The moment of production it reached.
    pub recovered_to: Option<DateTime<Utc>>,
    /// How long recovery took.
    pub recovery_seconds: f64,
    /// What was not checked.
    pub skipped: Vec<String>,
}

/// Gathers the state of the databases that `wanted` names, or of all.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn status(
    policy: &Policy,
    catalog: &Catalog,
    wanted: Option<&DatabaseName>,
    now: DateTime<Utc>,
) -> Result<Status, catalog::Error> {
    let daemon = lock::daemon_holder(&policy.daemon.state_dir);
    let mut notices = Vec::new();
    if daemon.is_none() {
        notices.push("the daemon does not run, so nothing happens by schedule".to_owned());
    }
    if let Some(recovery) = catalog.recovery_mode().await? {
        notices.push(format!(
            "recovery mode since {}: {}; nothing is made up for or deleted until `backstop catalog accept`",
            text::when(recovery.since),
            recovery.why
        ));
    }
    for alert in catalog.open_alerts().await?.into_iter().filter(|alert| alert.database.is_none()) {
        notices.push(format!("{}; nothing is deleted until `backstop catalog accept`", alert.message));
    }
    let last_runs = catalog.last_runs().await?;
    let open = catalog.open_runs().await?;
    let mut databases = Vec::new();
    for database in policy.databases.values().filter(|database| wanted.is_none_or(|name| *name == database.name)) {
        let of_it = last_runs.iter().filter(|((name, _), _)| name.as_ref() == Some(&database.name));
        let runs: Vec<Run> = of_it.map(|(_, last)| last.newest.clone()).collect();
        let running =
            open.iter().filter(|open| open.run.job.database.as_ref() == Some(&database.name)).map(running).collect();
        databases.push(database_status(policy, catalog, database, &runs, running, now).await?);
    }
    Ok(Status { at: now, daemon, notices, databases })
}

async fn database_status(
    policy: &Policy,
    catalog: &Catalog,
    database: &Database,
    last_runs: &[Run],
    running: Vec<Running>,
    now: DateTime<Utc>,
) -> Result<DatabaseStatus, catalog::Error> {
    let name = &database.name;
    let repos = database.repos();
    let mut backups = catalog.known_backups(name).await?;
    backups.retain(|backup| repos.contains(&backup.repo));
    let windows = catalog.windows(name).await?;
    let judged_at = catalog.judged_at(name, repos).await?;
    let ranges = ranges::ranges(database, &backups, &windows, &judged_at);
    let recoverable_to = ranges.first().map(|range| range.to);
    let sample = catalog.latest_wal_sample(name).await?;
    let passed = catalog.latest_passed_proof(name).await?;
    let newest_proof = catalog.latest_proof(name).await?;
    let has_job = |kind| policy.jobs.iter().any(|job| job.key.database.as_ref() == Some(name) && job.key.kind == kind);
    let share = catalog.backup_share(name, now - TimeDelta::days(30)).await?;
    let wal_watched = has_job(JobKind::Wal);
    let facts = Facts {
        database,
        backups: &backups,
        last_runs,
        sample: sample.as_ref(),
        wal_watched,
        ranges: &ranges,
        newest_proof: newest_proof.as_ref(),
        newest_passed: passed.as_ref(),
        known_since: catalog.known_since(name).await?,
        success: SuccessShare { succeeded: share.succeeded, finished: share.finished },
    };
    let alarms = objective::alarms(&facts, now);
    Ok(DatabaseStatus {
        database: name.clone(),
        environment: database.environment.clone(),
        engine: database.engine,
        tier: database.tier.name.clone(),
        last: last_backups(&backups, now),
        running,
        next: next_slots(policy, name, now),
        recoverable_from: ranges.first().map(|range| range.from),
        recoverable_to,
        windows: ranges,
        wal_watched,
        rpo: Objective::new(recoverable_to.map(|to| age(now, to)), database.tier.rpo),
        rto: Objective::new(passed.as_ref().map(|proof| proof.recovery_time), database.tier.rto),
        proof: passed.as_ref().map(|proof| proof_status(proof, now)),
        size_bytes: backups.iter().max_by_key(|backup| backup.stopped_at).map(|backup| backup.size),
        stored_bytes: backups
            .iter()
            .filter(|backup| backup.status != BackupStatus::Lost)
            .filter_map(Backup::stored_bytes)
            .sum(),
        copies: newest_copies(&backups),
        // What pgBackRest's last check saw says nothing about a database that is dumped now.
        wal: sample.filter(|_| !database.engine.is_dump()),
        alarms,
    })
}

fn newest_copies(backups: &[Backup]) -> Vec<BackupCopy> {
    let good = backups.iter().filter(|backup| backup.is_good());
    let newest = good.max_by_key(|backup| backup.started_at).and_then(|backup| backup.dump.as_ref());
    newest.map(|dump| dump.copies.clone()).unwrap_or_default()
}

fn last_backups(backups: &[Backup], now: DateTime<Utc>) -> BTreeMap<BackupType, LastBackup> {
    let mut last: BTreeMap<BackupType, LastBackup> = BTreeMap::new();
    for backup in backups.iter().filter(|backup| backup.is_good()) {
        if last.get(&backup.backup_type).is_none_or(|known| known.stopped_at < backup.stopped_at) {
            let found = LastBackup {
                id: backup.id.clone(),
                label: backup.label.clone(),
                stopped_at: backup.stopped_at,
                age_seconds: age(now, backup.stopped_at).as_secs(),
            };
            last.insert(backup.backup_type, found);
        }
    }
    last
}

fn next_slots(policy: &Policy, name: &DatabaseName, now: DateTime<Utc>) -> Vec<Next> {
    let of_database = policy.jobs.iter().filter(|job| job.key.database.as_ref() == Some(name));
    let mut next: Vec<Next> =
        of_database.filter_map(|job| job.schedule.next(now).map(|at| Next { job: job.key.to_string(), at })).collect();
    next.sort_by_key(|next| next.at);
    next
}

fn running(open: &crate::record::OpenRun) -> Running {
    let log = open.attempt.as_ref().and_then(|attempt| attempt.log_path.as_ref());
    let amount = log.and_then(|directory| progress::last_told(directory));
    let by_log = || engine::pgbackrest::log::percent_in(&log?.join("backup.log"));
    Running {
        run: open.run.id,
        kind: open.run.job.kind,
        since: open.run.started_at,
        percent: amount.map_or_else(by_log, |amount| amount.percent),
        bytes: amount.map(|amount| amount.bytes),
        rate: amount.map(|amount| amount.rate),
        eta_seconds: amount.and_then(|amount| amount.eta).map(|eta| eta.as_secs()),
    }
}

fn proof_status(proof: &Proof, now: DateTime<Utc>) -> ProofStatus {
    let skipped = proof.steps.iter().filter(|step| step.outcome == crate::record::StepOutcome::Skipped);
    ProofStatus {
        at: proof.finished_at,
        age_seconds: age(now, proof.finished_at).as_secs(),
        backup_id: proof.backup_id.clone(),
        recovered_to: proof.recovered_to,
        recovery_seconds: proof.recovery_time.as_secs_f64(),
        skipped: skipped.map(|step| format!("{}: {}", step.name, step.detail)).collect(),
    }
}

/// Whether a run is one that people call bad news.
pub fn is_bad(run: &Run) -> bool {
    matches!(run.state, RunState::Failed | RunState::Interrupted)
}
