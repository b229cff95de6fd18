//! When which job starts: the schedules of one repository of a database, merged.
//!
//! A newcomer would ask each schedule for all its times first; a year of minutes is half a million of them.

use chrono::{DateTime, Utc};

use super::{Question, expires_by_itself};
use crate::{
    policy::{Database, Job, Policy},
    record::{JobKind, RepoKey},
    schedule::{rank, starts_at},
};

/// A start of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    /// When it is due.
    pub(super) due: DateTime<Utc>,
    /// What the job does.
    pub(super) kind: JobKind,
    /// When the job's next slot comes.
    pub(super) next: Option<DateTime<Utc>>,
}

/// The jobs that change what is there: those of the repository, and those that concern all.
pub(super) fn jobs<'a>(policy: &'a Policy, database: &'a Database, repo: RepoKey) -> impl Iterator<Item = &'a Job> {
    policy.jobs.iter().filter(move |job| {
        let is_ours = job.key.database.as_ref() == Some(&database.name) && job.key.repo.is_none_or(|it| it == repo);
        let changes =
            job.key.kind.backup_type().is_some() || matches!(job.key.kind, JobKind::Expire | JobKind::TestRestore);
        is_ours && changes
    })
}

/// All starts after a moment, in the order in which they come; a diff or incr that is due with a full is left out.
pub(super) struct Starts<'a> {
    streams: Vec<Stream<'a>>,
    last_full: Option<DateTime<Utc>>,
}

struct Stream<'a> {
    job: &'a Job,
    nominal: DateTime<Utc>,
    due: DateTime<Utc>,
}

impl<'a> Starts<'a> {
    pub(super) fn of(question: &Question<'a>) -> Self {
        let Question { policy, database, repo, now, .. } = *question;
        let is_wanted = |job: &&Job| job.key.kind != JobKind::Expire || !expires_by_itself(database);
        let streams = jobs(policy, database, repo).filter(is_wanted).filter_map(|job| Stream::after(job, now));
        Self { streams: streams.collect(), last_full: None }
    }
}

impl<'a> Stream<'a> {
    /// The first start after a moment; its slot may lie before, where the start is shifted.
    fn after(job: &'a Job, now: DateTime<Utc>) -> Option<Self> {
        let waiting = job.schedule.latest(now).map(|nominal| (nominal, starts_at(job, nominal)));
        let (nominal, due) = match waiting.filter(|(_, due)| *due > now) {
            Some(waiting) => waiting,
            None => {
                let nominal = job.schedule.next(now)?;
                (nominal, starts_at(job, nominal))
            }
        };
        Some(Self { job, nominal, due })
    }
}

impl Iterator for Starts<'_> {
    type Item = Start;

    fn next(&mut self) -> Option<Start> {
        loop {
            let first = (0..self.streams.len()).min_by_key(|&at| {
                let Stream { job, due, .. } = &self.streams[at];
                (*due, rank(job.key.kind), &job.key)
            })?;
            let Stream { job, nominal, due } = self.streams[first];
            let kind = job.key.kind;
            let next = job.schedule.next(nominal);
            match next {
                Some(next) => self.streams[first] = Stream { job, nominal: next, due: starts_at(job, next) },
                None => {
                    self.streams.remove(first);
                }
            }
            if kind == JobKind::Full {
                self.last_full = Some(due);
            }
            let is_superseded = matches!(kind, JobKind::Diff | JobKind::Incr) && self.last_full == Some(due);
            if !is_superseded {
                return Some(Start { due, kind, next });
            }
        }
    }
}
