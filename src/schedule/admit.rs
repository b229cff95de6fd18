//! Which of the queued slots may start, which wait, and which will never run.
//!
//! WAL checks and the copy of the catalog only look, so they go first and have a limit of their own. All else takes a
//! place of `max_parallel` and its database for itself, larger backups first. A slot waits no longer than until its
//! job's next slot comes; what is given up is recorded with the reason.
//!
//! A newcomer would leave out what cannot start; a skip that nobody sees is how nine days without a backup begin.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};

use crate::record::{DatabaseName, JobKey, JobKind, RepoKey, Slot, SlotId};

/// A slot that was claimed and not started yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    /// Its row.
    pub slot_id: SlotId,
    /// The slot.
    pub slot: Slot,
    /// When the job's next slot comes.
    pub next_nominal: Option<DateTime<Utc>>,
    /// When it is too late to start.
    pub latest_start: Option<DateTime<Utc>>,
}

/// How much may run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Runs that take a database, all databases together.
    pub max_parallel: usize,
    /// Runs that only look.
    pub max_checks: usize,
}

/// What happens to a queued slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It starts now.
    Start,
    /// It stays in the queue.
    Wait,
    /// It will not run, for this reason.
    Skip(String),
    /// A larger backup does its work, for this reason.
    Supersede(String),
}

/// Decides about each queued slot; the verdicts stand in the order of `queue`. What starts counts as running for the rest.
pub fn admit(queue: &[Queued], running: &[JobKey], limits: Limits, now: DateTime<Utc>) -> Vec<Verdict> {
    let mut order: Vec<usize> = (0..queue.len()).collect();
    order.sort_by_key(|&at| {
        let Slot { job, nominal_at, .. } = &queue[at].slot;
        (rank(job.kind), nominal_at, job, queue[at].slot_id)
    });
    let mut house = House::new(queue, running);
    let mut verdicts = vec![Verdict::Wait; queue.len()];
    for at in order {
        verdicts[at] = house.verdict(&queue[at], limits, now);
    }
    verdicts
}

/// The order of starting.
pub(crate) fn rank(kind: JobKind) -> u8 {
    match kind {
        JobKind::Wal => 0,
        JobKind::CatalogBackup => 1,
        JobKind::Full => 2,
        JobKind::Diff => 3,
        JobKind::Incr => 4,
        JobKind::Expire => 5,
        JobKind::Verify => 6,
        JobKind::TestRestore => 7,
    }
}

/// What runs, and what has been decided so far.
struct House<'a> {
    running: HashSet<&'a JobKey>,
    taken: HashMap<&'a DatabaseName, &'a JobKey>,
    exclusive: usize,
    checks: usize,
    newest: HashMap<&'a JobKey, (DateTime<Utc>, SlotId)>,
    fulls: HashMap<(&'a Option<DatabaseName>, Option<RepoKey>), &'a Slot>,
}

impl<'a> House<'a> {
    fn new(queue: &'a [Queued], running: &'a [JobKey]) -> Self {
        let mut newest = HashMap::new();
        for queued in queue {
            let this = (queued.slot.nominal_at, queued.slot_id);
            let known = newest.entry(&queued.slot.job).or_insert(this);
            *known = this.max(*known);
        }
        let (running_set, taken, fulls) = (HashSet::new(), HashMap::new(), HashMap::new());
        let mut house = Self { running: running_set, taken, exclusive: 0, checks: 0, newest, fulls };
        running.iter().for_each(|job| house.enter(job));
        house
    }

    /// Counts `job` as running.
    fn enter(&mut self, job: &'a JobKey) {
        self.running.insert(job);
        if !job.kind.is_exclusive() {
            self.checks += 1;
            return;
        }
        self.exclusive += 1;
        if let Some(database) = &job.database {
            self.taken.insert(database, job);
        }
    }

    fn verdict(&mut self, queued: &'a Queued, limits: Limits, now: DateTime<Utc>) -> Verdict {
        if let Some(reason) = self.given_up(queued, now) {
            return Verdict::Skip(reason);
        }
        let job = &queued.slot.job;
        match job.kind {
            JobKind::Full => {
                self.fulls.insert((&job.database, job.repo), &queued.slot);
            }
            JobKind::Diff | JobKind::Incr => {
                if let Some(full) = self.fulls.get(&(&job.database, job.repo)) {
                    let due = full.nominal_at.format("%Y-%m-%d %H:%M UTC");
                    return Verdict::Supersede(format!("`{}` of {due} is due as well", full.job));
                }
            }
            _ => {}
        }
        if !self.has_room(job, limits) {
            return Verdict::Wait;
        }
        self.enter(job);
        Verdict::Start
    }

    /// Why the slot will never run.
    fn given_up(&self, queued: &Queued, now: DateTime<Utc>) -> Option<String> {
        let Queued { slot_id, slot, next_nominal, latest_start } = queued;
        if self.newest[&slot.job] != (slot.nominal_at, *slot_id) {
            return Some("overlap: a newer slot of the same job is queued".to_owned());
        }
        if self.running.contains(&slot.job) {
            return Some("overlap: the previous run is still going on".to_owned());
        }
        if latest_start.is_some_and(|limit| now > limit) {
            return Some(format!("it could not start before its latest start{}", self.because(&slot.job)));
        }
        if next_nominal.is_some_and(|next| now >= next) {
            return Some(format!("it could not start before the job's next slot came{}", self.because(&slot.job)));
        }
        None
    }

    /// What stands in the way of `job`, if it is another run on the same database.
    fn because(&self, job: &JobKey) -> String {
        let other = job.database.as_ref().filter(|_| job.kind.is_exclusive()).and_then(|it| self.taken.get(it));
        other.map_or_else(String::new, |other| format!(", because `{other}` is running"))
    }

    fn has_room(&self, job: &JobKey, limits: Limits) -> bool {
        if !job.kind.is_exclusive() {
            return self.checks < limits.max_checks;
        }
        let is_free = job.database.as_ref().is_none_or(|database| !self.taken.contains_key(database));
        is_free && self.exclusive < limits.max_parallel
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use proptest::prelude::*;

    use super::{
        super::sample::{key, utc},
        *,
    };

    const LIMITS: Limits = Limits { max_parallel: 2, max_checks: 8 };

    fn now() -> DateTime<Utc> {
        utc("2026-11-20T12:00:00Z")
    }

    /// A slot of `minutes` ago whose job's next slot is far away.
    fn queued(job: JobKey, minutes: i64) -> Queued {
        let nominal_at = now() - TimeDelta::minutes(minutes);
        let slot = Slot { job, nominal_at, missed_count: 0, skip: None };
        Queued { slot_id: minutes, slot, next_nominal: Some(now() + TimeDelta::hours(1)), latest_start: None }
    }

    fn queue(jobs: &[(&str, JobKind)]) -> Vec<Queued> {
        jobs.iter().map(|&(database, kind)| queued(key(database, kind), 1)).collect()
    }

    fn skipped(verdict: &Verdict) -> &str {
        match verdict {
            Verdict::Skip(reason) | Verdict::Supersede(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    use JobKind::{Diff, Expire, Full, Incr, TestRestore, Verify, Wal};
    use Verdict::{Start, Wait};

    #[test]
    fn larger_backups_start_first_and_the_rest_waits_for_a_place() {
        let queue = queue(&[("a", TestRestore), ("b", Verify), ("c", Expire), ("d", Incr), ("e", Diff), ("f", Full)]);
        assert_eq!(admit(&queue, &[], LIMITS, now()), [Wait, Wait, Wait, Wait, Start, Start]);
    }

    #[test]
    fn one_run_takes_a_database_for_itself() {
        let queue = queue(&[("a", Expire), ("a", Verify), ("b", Expire)]);
        assert_eq!(admit(&queue, &[], LIMITS, now()), [Start, Wait, Start]);
        assert_eq!(admit(&queue, &[key("a", Full)], LIMITS, now()), [Wait, Wait, Start]);
    }

    #[test]
    fn checks_run_beside_a_backup_within_their_own_limit() {
        let mut jobs = queue(&[("a", Wal), ("b", Wal), ("c", Wal), ("a", Full)]);
        jobs.push(queued(JobKey { database: None, kind: JobKind::CatalogBackup, repo: None, name: None }, 1));
        let limits = Limits { max_parallel: 1, max_checks: 3 };
        assert_eq!(admit(&jobs, &[key("x", Incr)], limits, now()), [Start, Start, Start, Wait, Wait]);
        assert_eq!(admit(&jobs, &[key("x", Wal)], limits, now()), [Start, Start, Wait, Start, Wait]);
    }

    #[test]
    fn a_job_never_runs_beside_itself() {
        let running = [key("a", Wal), key("b", Full)];
        for verdict in admit(&queue(&[("a", Wal), ("b", Full)]), &running, LIMITS, now()) {
            assert_eq!(skipped(&verdict), "overlap: the previous run is still going on");
        }
        let twice = [queued(key("a", Incr), 30), queued(key("a", Incr), 5)];
        let verdicts = admit(&twice, &[], LIMITS, now());
        assert_eq!(skipped(&verdicts[0]), "overlap: a newer slot of the same job is queued");
        assert_eq!(verdicts[1], Start);
    }

    #[test]
    fn a_slot_waits_no_longer_than_until_its_next_one_or_its_latest_start() {
        let mut waiting = queued(key("a", Incr), 60);
        waiting.next_nominal = Some(now());
        let verdicts = admit(std::slice::from_ref(&waiting), &[key("a", Verify)], LIMITS, now());
        assert_eq!(
            skipped(&verdicts[0]),
            "it could not start before the job's next slot came, because `a/verify` is running"
        );
        waiting.next_nominal = None;
        waiting.latest_start = Some(now());
        assert_eq!(admit(std::slice::from_ref(&waiting), &[], LIMITS, now()), [Start]);
        waiting.latest_start = Some(now() - TimeDelta::seconds(1));
        assert_eq!(skipped(&admit(&[waiting], &[], LIMITS, now())[0]), "it could not start before its latest start");
    }

    #[test]
    fn a_due_full_supersedes_diff_and_incr_of_its_repository() {
        let on = |kind, repo| queued(JobKey { repo: Some(repo), ..key("a", kind) }, 1);
        let mut queue = vec![on(Diff, 1), on(Incr, 1), on(Incr, 2), on(Full, 1), queued(key("b", Incr), 1)];
        let busy = [key("a", TestRestore)];
        let verdicts = admit(&queue, &busy, LIMITS, now());
        for verdict in &verdicts[..2] {
            assert_eq!(verdict, &Verdict::Supersede("`a/full@1` of 2026-11-20 11:59 UTC is due as well".to_owned()));
        }
        assert_eq!(verdicts[2..], [Wait, Wait, Start], "also while the full itself waits");
        queue[3].latest_start = Some(now() - TimeDelta::hours(1));
        assert_eq!(admit(&queue, &[], LIMITS, now())[0], Start, "a full that will not run supersedes nothing");
    }

    #[test]
    fn ten_thousand_queued_slots_are_no_trouble() {
        let queue: Vec<_> = (0..10_000).map(|i| queued(key(&format!("db{i}"), Full), 1)).collect();
        let verdicts = admit(&queue, &[], Limits { max_parallel: 100, max_checks: 8 }, now());
        assert_eq!(verdicts.iter().filter(|&verdict| *verdict == Start).count(), 100);
    }

    fn jobs() -> impl Strategy<Value = JobKey> {
        let kinds = prop::sample::select(JobKind::ALL);
        let names = prop::sample::select(vec!["a", "b", "c", "d"]);
        (names, kinds, prop::option::of(1..3u32)).prop_map(|(name, kind, repo)| JobKey { repo, ..key(name, kind) })
    }

    proptest! {
        #[test]
        fn limits_hold_and_everything_that_can_start_starts(
            waiting in prop::collection::vec((jobs(), 1..600i64, -60..60i64), 0..40),
            running in prop::collection::btree_set(jobs(), 0..5),
            max_parallel in 1..5usize,
            max_checks in 1..4usize,
        ) {
            let limits = Limits { max_parallel, max_checks };
            let queue: Vec<Queued> = waiting.into_iter().enumerate().map(|(id, (job, ago, next))| Queued {
                slot_id: id as i64,
                next_nominal: Some(now() + TimeDelta::minutes(next)),
                ..queued(job, ago)
            }).collect();
            let running: Vec<JobKey> = running.into_iter().collect();
            let verdicts = admit(&queue, &running, limits, now());
            prop_assert_eq!(verdicts.len(), queue.len());

            let picked = |wanted: Verdict| queue.iter().zip(&verdicts).filter(move |(_, v)| **v == wanted).map(|(q, _)| &q.slot.job);
            let mut after = running.clone();
            for job in picked(Start) {
                let in_the_way = |other: &JobKey| job.kind.is_exclusive() && other.kind.is_exclusive() && other.database == job.database;
                prop_assert!(!after.iter().any(|other| other == job || in_the_way(other)), "{} starts beside its like", job);
                after.push(job.clone());
            }
            let exclusive = after.iter().filter(|job| job.kind.is_exclusive()).count();
            let checks = after.len() - exclusive;
            let already = running.iter().filter(|job| job.kind.is_exclusive()).count();
            prop_assert!(exclusive <= max_parallel.max(already));
            prop_assert!(checks <= max_checks.max(running.len() - already));
            for job in picked(Wait) {
                let full = if job.kind.is_exclusive() {
                    exclusive >= max_parallel || after.iter().any(|o| o.kind.is_exclusive() && o.database == job.database)
                } else {
                    checks >= max_checks
                };
                prop_assert!(full, "{} waits for nothing", job);
            }
        }
    }
}
