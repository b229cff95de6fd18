//! What the schedule and the rules will make of a database's backups: made, kept, deleted, and the storage that takes.
//!
//! Nothing is decided here. Time is walked from one start to the next as the jobs are scheduled; at each `expire` the
//! planner is asked with what would be there then, so that holds that end, days of their own, safety floors and former
//! rules come out as they will. A backup is as large and takes as long as the median of the last ones of its type. One
//! run at a time: what comes due meanwhile waits, and is left out when its job's next slot comes first.
//!
//! It is a forecast of what was said, not of luck: each run succeeds, each test restore proves the newest backup, nobody
//! holds, releases or deletes anything, and no slot that was missed is made up for. WAL is not counted.
//!
//! A newcomer would divide the days by the counts. Periods, chains and the hours that clocks skip or repeat are the very
//! things that nobody can do in the head.

mod calendar;
mod maker;
mod starts;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;

use self::{calendar::Calendar, maker::Maker, starts::Starts};
use crate::{
    policy::{Database, ExpireBy, Policy},
    record::{Backup, BackupStatus, BackupType, DatabaseName, JobKind, RepoKey},
    retention::{Circumstances, FormerRules, Plan, guarded, is_sound, plan},
};

/// What a forecast begins with.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The policy.
    pub policy: &'a Policy,
    /// The database in it.
    pub database: &'a Database,
    /// The repository; 0 for dumps.
    pub repo: RepoKey,
    /// All backups of the database that are known.
    pub backups: &'a [Backup],
    /// Former rules that still guard.
    pub former: &'a [FormerRules],
    /// The moment at which these backups are there.
    pub now: DateTime<Utc>,
    /// The moment from which on it is told; what happens before is reckoned with and left out.
    pub from: DateTime<Utc>,
    /// How many local days after that of `from` are told.
    pub days: u32,
}

/// What will happen to one repository of a database.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Forecast {
    /// The database.
    pub database: DatabaseName,
    /// The repository; 0 for dumps.
    pub repo: RepoKey,
    /// Day by day, the first from the moment on that is asked about.
    pub days: Vec<Day>,
    /// What goes, in the order of going.
    pub deletions: Vec<Deletion>,
    /// What a person should know to read it right.
    pub notes: Vec<String>,
    /// What is there at the end.
    #[serde(skip)]
    pub left: Vec<Backup>,
}

/// A day in the policy's zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Day {
    /// Its date.
    pub date: NaiveDate,
    /// Backups that are made.
    pub made: u32,
    /// Backups that are deleted.
    pub deleted: u32,
    /// Backups at its end.
    pub kept: usize,
    /// Bytes at its end, in the repository or in all storages together.
    pub stored_bytes: u64,
}

/// A backup that goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Deletion {
    /// When.
    pub at: DateTime<Utc>,
    /// Its label; of one that is still to be made, the label it would get.
    pub label: String,
    /// Its type.
    pub backup_type: BackupType,
    /// When it stopped, or will.
    pub stopped_at: DateTime<Utc>,
    /// Whether it is there already.
    pub exists: bool,
    /// Bytes that it gives back.
    pub stored_bytes: u64,
    /// Why, in the planner's words.
    pub reason: String,
}

/// Walks the days.
pub fn forecast(question: &Question<'_>) -> Forecast {
    let mut walk = Walk::new(question);
    for start in Starts::of(question) {
        if start.due >= walk.calendar.until() || !walk.go(&start) {
            break;
        }
    }
    walk.end()
}

/// What a backup takes: what the tool says, and what it copied where the tool says nothing.
fn stored_bytes(backup: &Backup) -> u64 {
    backup.stored_bytes().unwrap_or(backup.delta)
}

/// The forecast as far as it has come.
struct Walk<'a> {
    question: &'a Question<'a>,
    calendar: Calendar,
    maker: Maker<'a>,
    /// What the planner looks at.
    there: Vec<Backup>,
    deletions: Vec<Deletion>,
    /// Until when the database is taken.
    busy_until: DateTime<Utc>,
    /// When `expire` would stop and ask: the first time, why, and how often.
    stops: Option<(DateTime<Utc>, String, u32)>,
}

impl<'a> Walk<'a> {
    fn new(question: &'a Question<'a>) -> Self {
        let (there, others) = planned(question);
        let stored = there.iter().chain(&others).map(stored_bytes).sum();
        let calendar = Calendar::new(question, there.len() + others.len(), stored);
        let maker = Maker::new(question, &there);
        Self { question, calendar, maker, there, deletions: Vec::new(), busy_until: question.now, stops: None }
    }

    /// Does what is due; false: the time that is asked about is over.
    fn go(&mut self, start: &starts::Start) -> bool {
        let begins = start.due.max(self.busy_until);
        if start.next.is_some_and(|next| begins >= next) {
            return true;
        }
        match (start.kind, start.kind.backup_type()) {
            (_, Some(backup_type)) => self.make(backup_type, begins),
            (JobKind::Expire, _) => self.expire(begins),
            _ => self.prove(begins),
        }
    }

    fn make(&mut self, asked: BackupType, begins: DateTime<Utc>) -> bool {
        let made = self.maker.make(asked, begins, &self.there);
        self.busy_until = made.stopped_at;
        if !self.calendar.reach(made.stopped_at) {
            return false;
        }
        self.calendar.made(stored_bytes(&made));
        self.there.push(made);
        true
    }

    fn expire(&mut self, at: DateTime<Utc>) -> bool {
        if !self.calendar.reach(at) {
            return false;
        }
        let plan = self.plan(at);
        match plan.too_much(self.question.database.retention.max_delete_fraction) {
            Some(_) if at < self.question.from => {}
            Some(why) => self.stops.get_or_insert((at, why, 0)).2 += 1,
            None => self.delete(plan, at),
        }
        true
    }

    fn plan(&self, now: DateTime<Utc>) -> Plan {
        let Question { database, policy, former, .. } = *self.question;
        let at = Circumstances { now, zone: policy.daemon.timezone, pinned: BTreeMap::new() };
        guarded(plan(&self.there, &database.retention, &at), &self.there, former, &at)
    }

    fn delete(&mut self, plan: Plan, at: DateTime<Utc>) {
        let going: Vec<_> = plan.decisions.into_iter().filter(|decision| !decision.keep).collect();
        if going.is_empty() {
            return;
        }
        let places: HashMap<&str, usize> = going.iter().enumerate().map(|(n, it)| (it.label.as_str(), n)).collect();
        let mut gone: Vec<(usize, Backup)> = self
            .there
            .extract_if(.., |backup| places.contains_key(backup.label.as_str()))
            .map(|backup| (places[backup.label.as_str()], backup))
            .collect();
        gone.sort_by_key(|(place, _)| *place);
        for (decision, (_, backup)) in going.into_iter().zip(gone) {
            let stored_bytes = stored_bytes(&backup);
            self.calendar.deleted(stored_bytes);
            if at < self.question.from {
                continue;
            }
            self.deletions.push(Deletion {
                at,
                label: backup.label,
                backup_type: backup.backup_type,
                stopped_at: backup.stopped_at,
                exists: backup.created_by != maker::FORECAST,
                stored_bytes,
                reason: decision.reasons.join("; "),
            });
        }
    }

    /// A test restore proves the newest backup. Where there are several repositories nobody can say which one it takes;
    /// none is proven then, which keeps more.
    fn prove(&mut self, at: DateTime<Utc>) -> bool {
        if !self.calendar.reach(at) {
            return false;
        }
        if self.question.database.repos().len() == 1 {
            let sound = self.there.iter_mut().filter(|backup| is_sound(backup));
            if let Some(newest) = sound.max_by_key(|backup| backup.stopped_at) {
                newest.proven_at = Some(at);
            }
        }
        true
    }

    fn end(self) -> Forecast {
        let notes = self.notes();
        let Question { database, repo, .. } = *self.question;
        Forecast {
            database: database.name.clone(),
            repo,
            days: self.calendar.end(),
            deletions: self.deletions,
            notes,
            left: self.there,
        }
    }

    fn notes(&self) -> Vec<String> {
        let Question { database, policy, repo, .. } = *self.question;
        let has =
            |wanted: &dyn Fn(JobKind) -> bool| starts::jobs(policy, database, repo).any(|job| wanted(job.key.kind));
        let mut notes = Vec::new();
        if !has(&|kind| kind.backup_type().is_some()) {
            notes.push("no backup is scheduled".to_owned());
        }
        if expires_by_itself(database) {
            notes
                .push("pgBackRest's own retention decides what goes, which is not forecast: all stays here".to_owned());
        } else if !has(&|kind| kind == JobKind::Expire) {
            notes.push("there is no `expire` schedule, so nothing goes by itself".to_owned());
        }
        for backup_type in self.maker.unknown() {
            notes.push(format!("no {backup_type} is there to learn from, so its size counts as 0"));
        }
        if let Some((at, why, times)) = &self.stops {
            let at = at.with_timezone(&policy.daemon.timezone).format("%F %H:%M");
            notes.push(format!("on {at} `expire` would stop and ask, {times} times in all, and delete nothing: {why}"));
        }
        notes
    }
}

/// Whether pgBackRest decides what goes.
fn expires_by_itself(database: &Database) -> bool {
    !database.engine.is_dump() && database.pgbackrest.expire_by == ExpireBy::PgBackRest
}

/// What lies in the repository: what retention looks at, and what it does not. It looks at all dumps, but of a repository
/// only at the backups of the present cluster.
fn planned(question: &Question<'_>) -> (Vec<Backup>, Vec<Backup>) {
    let is_there = |backup: &&Backup| !matches!(backup.status, BackupStatus::Lost | BackupStatus::Expired);
    let is_here = |backup: &&Backup| backup.repo == question.repo && is_there(backup);
    let here: Vec<&Backup> = question.backups.iter().filter(is_here).collect();
    let newest = here.iter().max_by_key(|backup| backup.stopped_at);
    let cluster = newest.map(|newest| newest.system_id.clone()).unwrap_or_default();
    here.into_iter().cloned().partition(|backup| backup.dump.is_some() || backup.system_id == cluster)
}
