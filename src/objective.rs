//! Are the objectives met, and what is alarming? Pure: facts and `now` go in, alarms go out.
//!
//! A newcomer would let a green exit code speak for a database. What counts here is only what was checked: when the
//! newest good backup stopped, up to where the archive has no hole, when a real restore last passed. A dump has no
//! archive: what may be lost is what came after it, and its copies are counted one by one.

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, time::Duration};

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::{
    clock::age,
    human::length,
    policy::{Database, Tier},
    record::{Backup, BackupStatus, CopyState, JobKind, Proof, RepoKey, Run, RunState, WalSample, Window},
};

/// A proof older than this is stale where nothing else is said: a month and some days for a monthly test restore.
const PROOF_AGE: Duration = Duration::from_secs(35 * 86_400);
/// For so long a lost backup is an alarm; then everybody has heard of it, and `backstop list --expired` still tells it.
const LOSS: Duration = Duration::from_secs(7 * 86_400);

/// Something a person must look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Alarm {
    /// One stable word: `no_backup`, `run_failed`, `wal`, `rpo`, `rto`, `proof`, `damaged`, `copy`, `encryption`, …
    pub kind: &'static str,
    /// What is wrong, for people.
    pub message: String,
}

impl Alarm {
    fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// How the backup runs of the last 30 days went.
#[derive(Debug, Clone, Copy, Default)]
pub struct SuccessShare {
    /// Those that succeeded.
    pub succeeded: u64,
    /// Those that ended.
    pub finished: u64,
}

/// What is known of one database.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Its policy.
    pub database: &'a Database,
    /// Its backups in the policy's repositories or storages that are not expired, newest first, lost ones included.
    pub backups: &'a [Backup],
    /// The newest run of each job kind.
    pub last_runs: &'a [Run],
    /// The newest WAL check.
    pub sample: Option<&'a WalSample>,
    /// Whether WAL checks are scheduled.
    pub wal_watched: bool,
    /// The ranges of time that it can certainly be recovered to, the one that reaches furthest first.
    pub ranges: &'a [Window],
    /// The newest test restore, passed or not.
    pub newest_proof: Option<&'a Proof>,
    /// The newest test restore that passed.
    pub newest_passed: Option<&'a Proof>,
    /// When the catalog first knew the database; young databases get time to make their first backup and proof.
    pub known_since: Option<DateTime<Utc>>,
    /// How the backup runs of the last 30 days went.
    pub success: SuccessShare,
}

/// Everything alarming about a database.
pub fn alarms(facts: &Facts<'_>, now: DateTime<Utc>) -> Vec<Alarm> {
    let mut alarms = Vec::new();
    alarms.extend(backups(facts, now));
    alarms.extend(runs(facts));
    if facts.database.engine.is_dump() {
        alarms.extend(bad_copies(facts));
    } else {
        alarms.extend(archive(facts, now));
    }
    alarms.extend(proof(facts, now));
    alarms.extend(tier(facts, &facts.database.tier, now));
    alarms
}

fn backups(facts: &Facts<'_>, now: DateTime<Utc>) -> Vec<Alarm> {
    let mut alarms = Vec::new();
    if !facts.backups.iter().any(Backup::is_good) {
        alarms.push(Alarm::new("no_backup", "there is no good backup"));
    }
    let newest_good = facts.backups.iter().filter(|backup| backup.is_good()).map(|backup| backup.stopped_at).max();
    for backup in facts.backups {
        let Some(what) = trouble(backup) else { continue };
        let is_news = match backup.status {
            // No newer backup explains a loss, but everybody has heard of it one day.
            BackupStatus::Lost => backup.expired_at.is_none_or(|lost_at| age(now, lost_at) <= LOSS),
            // Damage that a newer good backup has outlived is history, not alarm.
            _ => newest_good.is_none_or(|good| good < backup.stopped_at),
        };
        if is_news {
            alarms.push(Alarm::new("damaged", format!("backup {} {what}", backup.label)));
        }
    }
    alarms
}

/// What is wrong with a backup.
fn trouble(backup: &Backup) -> Option<String> {
    let why = backup.expired_reason.as_deref();
    let (damage, place) = if backup.dump.is_some() {
        ("is damaged in every storage", "any storage")
    } else {
        ("has page checksum errors", "the repository")
    };
    match backup.status {
        BackupStatus::Damaged => Some(why.map_or_else(|| damage.to_owned(), |why| format!("is damaged: {why}"))),
        BackupStatus::Unrestorable => {
            Some("cannot be made consistent: WAL between its start and stop is missing".to_owned())
        }
        BackupStatus::Lost => Some(format!("is in the catalog but no longer in {place}")),
        BackupStatus::Good | BackupStatus::Expired => None,
    }
}

/// The storages of the policy that hold a good copy of a dump.
pub fn good_copies<'b>(database: &Database, backup: &'b Backup) -> Vec<&'b str> {
    let copies = backup.dump.iter().flat_map(|dump| &dump.copies);
    let is_good =
        |storage: &str, state| state == CopyState::Good && database.dump.storages.iter().any(|it| it == storage);
    copies.filter(|copy| is_good(&copy.storage, copy.state)).map(|copy| copy.storage.as_str()).collect()
}

fn newest_good<'a>(facts: &Facts<'a>) -> Option<&'a Backup> {
    facts.backups.iter().filter(|backup| backup.is_good()).max_by_key(|backup| backup.started_at)
}

/// The copies of the newest dump that are not what they should be; a newer dump makes up for those before it.
fn bad_copies(facts: &Facts<'_>) -> Vec<Alarm> {
    let Some(backup) = newest_good(facts) else { return Vec::new() };
    let copies = backup.dump.iter().flat_map(|dump| &dump.copies);
    let is_wanted = |storage: &String| facts.database.dump.storages.contains(storage);
    let bad = copies.filter(|copy| copy.state != CopyState::Good && is_wanted(&copy.storage));
    let alarm = |copy: &crate::record::BackupCopy| {
        let why = copy.detail.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        let message = format!("the copy of {} in storage `{}` is {}{why}", backup.id, copy.storage, copy.state);
        Alarm::new("copy", message)
    };
    bad.map(alarm).collect()
}

fn runs(facts: &Facts<'_>) -> Vec<Alarm> {
    let is_bad = |run: &&Run| match run.job.kind {
        JobKind::CatalogBackup => false,
        // A database that was backed up by pgBackRest before had WAL checks once.
        JobKind::Wal if facts.database.engine.is_dump() => false,
        JobKind::Wal => run.state == RunState::Failed && !speaks_through_sample(run, facts.sample),
        _ => matches!(run.state, RunState::Failed | RunState::Interrupted),
    };
    let alarm =
        |run: &Run| Alarm::new("run_failed", format!("the last {} {}: {}", run.job.kind, run.state, run.summary));
    facts.last_runs.iter().filter(is_bad).map(alarm).collect()
}

/// A failed WAL check leaves a sample that tells its problems; one that is newer and has none tells that all is well
/// again. Only where the sample could not be stored does the run speak for itself.
fn speaks_through_sample(run: &Run, sample: Option<&WalSample>) -> bool {
    sample.is_some_and(|sample| !sample.problems.is_empty() || sample.sampled_at >= run.started_at)
}

fn archive(facts: &Facts<'_>, now: DateTime<Utc>) -> Vec<Alarm> {
    // The check itself may have stopped; three missed looks at the archive are as bad as a bad look.
    let patience = 3 * facts.database.wal.max_lag.max(Duration::from_secs(3600));
    let Some(sample) = facts.sample else {
        let since = facts.known_since.filter(|since| facts.wal_watched && age(now, *since) > patience);
        return since.map(|_| Alarm::new("wal", "archiving was never looked at")).into_iter().collect();
    };
    let silent = age(now, sample.sampled_at);
    // Where no schedule looks again, a problem stays until a person does.
    let seen = if facts.wal_watched {
        String::new()
    } else {
        format!(" (seen {} ago; `backstop wal {}` looks again)", length(silent), facts.database.name)
    };
    let mut alarms: Vec<Alarm> =
        sample.problems.iter().map(|problem| Alarm::new("wal", format!("{problem}{seen}"))).collect();
    if facts.wal_watched && silent > patience {
        alarms.push(Alarm::new("wal", format!("archiving was last looked at {} ago", length(silent))));
    }
    alarms
}

fn proof(facts: &Facts<'_>, now: DateTime<Utc>) -> Vec<Alarm> {
    let mut alarms = Vec::new();
    if let Some(newest) = facts.newest_proof.filter(|proof| !proof.passed) {
        let step = newest.steps.iter().find(|step| step.outcome == crate::record::StepOutcome::Failed);
        let why = step.map_or_else(String::new, |step| format!(" at `{}`: {}", step.name, step.detail));
        alarms.push(Alarm::new("proof", format!("the last test restore failed{why}")));
    }
    let limit = facts.database.tier.proof_age.unwrap_or(PROOF_AGE);
    let stale = match (facts.newest_passed, facts.known_since) {
        (Some(passed), _) => age(now, passed.finished_at) > limit,
        (None, Some(since)) => age(now, since) > limit,
        (None, None) => false,
    };
    if stale {
        let last = facts.newest_passed.map_or_else(
            || "no restore has ever proven it".to_owned(),
            |passed| format!("the last one that passed is {} old", length(age(now, passed.finished_at))),
        );
        alarms.push(Alarm::new("proof", format!("the proof is stale: {last}, the policy allows {}", length(limit))));
    }
    alarms
}

fn tier(facts: &Facts<'_>, tier: &Tier, now: DateTime<Utc>) -> Vec<Alarm> {
    let mut alarms = Vec::new();
    alarms.extend(tier.rpo.and_then(|rpo| loss(facts, rpo, now)));
    if let (Some(rto), Some(proof)) = (tier.rto, facts.newest_passed)
        && proof.recovery_time > rto
    {
        let took = length(proof.recovery_time);
        alarms
            .push(Alarm::new("rto", format!("the last proven recovery took {took}, the objective is {}", length(rto))));
    }
    alarms.extend(tier.success_rate.and_then(|wanted| success(facts.success, wanted)));
    if let Some(wanted) = tier.min_copies {
        let is_dump = facts.database.engine.is_dump();
        alarms.extend(if is_dump { dump_copies(facts, wanted, now) } else { copies(facts, wanted, now) });
    }
    alarms.extend(tier.encryption_required.then(|| open_dump(facts)).flatten());
    alarms
}

fn loss(facts: &Facts<'_>, rpo: Duration, now: DateTime<Utc>) -> Option<Alarm> {
    let Some(range) = facts.ranges.first() else {
        // Without any good backup there is an alarm already.
        let is_unproven = facts.backups.iter().any(Backup::is_good);
        let message = || format!("no moment is proven to be recoverable, the objective is {}", length(rpo));
        return is_unproven.then(|| Alarm::new("rpo", message()));
    };
    let lost = age(now, range.to);
    let message = || format!("a loss now would cost {}, the objective is {}", length(lost), length(rpo));
    (lost > rpo).then(|| Alarm::new("rpo", message()))
}

fn success(share: SuccessShare, wanted: f64) -> Option<Alarm> {
    let SuccessShare { succeeded, finished } = share;
    #[expect(clippy::cast_precision_loss, reason = "counts of a month's runs are far below 2^53")]
    let rate = succeeded as f64 / finished.max(1) as f64;
    let text = || {
        format!("{succeeded} of {finished} backup runs succeeded in 30 days, the objective is {:.1} %", wanted * 100.0)
    };
    // Of fewer than ten runs one failure says nothing about a rate; it is an alarm of its own.
    (finished >= 10 && rate < wanted).then(|| Alarm::new("success_rate", text()))
}

/// A repository counts when recovery from it alone would keep to the RPO; without one, when anything can be recovered.
fn copies(facts: &Facts<'_>, wanted: u32, now: DateTime<Utc>) -> Option<Alarm> {
    let rpo = facts.database.tier.rpo;
    let is_fresh = |range: &&Window| rpo.is_none_or(|rpo| age(now, range.to) <= rpo);
    let repos: BTreeSet<RepoKey> = facts.ranges.iter().filter(is_fresh).map(|range| range.repo).collect();
    let enough = rpo.map_or_else(String::new, |rpo| format!(" fresh enough for the RPO of {}", length(rpo)));
    let message = || format!("{} repositories hold a copy{enough}, the objective is {wanted}", repos.len());
    (repos.len() < wanted as usize).then(|| Alarm::new("copies", message()))
}

/// The good copies of the newest dump count, if it is fresh enough for the RPO.
fn dump_copies(facts: &Facts<'_>, wanted: u32, now: DateTime<Utc>) -> Option<Alarm> {
    // Without any good backup there is an alarm already.
    let newest = newest_good(facts)?;
    let rpo = facts.database.tier.rpo;
    let is_fresh = rpo.is_none_or(|rpo| age(now, newest.started_at) <= rpo);
    let count = if is_fresh { good_copies(facts.database, newest).len() } else { 0 };
    let enough = rpo.map_or_else(String::new, |rpo| format!(" fresh enough for the RPO of {}", length(rpo)));
    let message = || format!("{count} storages hold a copy{enough}, the objective is {wanted}");
    (count < wanted as usize).then(|| Alarm::new("copies", message()))
}

/// Whether pgBackRest's repositories are encrypted is not known here; `check --probe` asks its configuration.
fn open_dump(facts: &Facts<'_>) -> Option<Alarm> {
    let newest = newest_good(facts)?;
    let is_open = newest.dump.as_ref().is_some_and(|dump| dump.encryption.is_none());
    let message = || format!("the newest backup {} is not encrypted, the tier requires it", newest.id);
    is_open.then(|| Alarm::new("encryption", message()))
}
