//! Which slots are due, and when to look again.
//!
//! Each job has a cursor: the nominal instant of its last slot, or the moment the job was first seen. Slots lie strictly
//! after it. However many were missed, one slot is due, the latest; it says how many it stands for. `due` changes
//! nothing and gives the same answer until `advance` moves the cursors, so a slot whose recording failed comes again.
//! A clock that goes back finds the cursors ahead of it, and so nothing fires twice.
//!
//! A newcomer would move the cursor in `due`; a crash between that and the catalog would lose a backup.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};

use super::{latest_start, splay_shift};
use crate::{
    clock::age,
    human::length,
    policy::Job,
    record::{JobKey, JobKind, Slot},
};

/// A slot that comes no later than this after its time is not late.
const PUNCTUAL: Duration = Duration::from_secs(60);
/// Missed slots beyond this are not told apart.
const MISSED_CAP: u32 = 1000;

/// What the catalog knows of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobHistory {
    /// When the job first appeared in a policy; no slot lies at or before it.
    pub first_seen_at: DateTime<Utc>,
    /// The nominal instant of its last slot, whatever became of it.
    pub last_nominal_at: Option<DateTime<Utc>>,
}

/// Whether missed slots are made up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatchUp {
    /// The latest missed slot of each job is, within the job's `catch_up`.
    Allowed,
    /// None is: the catalog is in recovery mode and does not know what already ran.
    Forbidden,
}

/// The jobs of a policy with their cursors.
#[derive(Debug)]
pub struct Planner {
    /// In the order of their keys.
    entries: Vec<Entry>,
    /// When each entry rings next, the earliest first.
    rings: BTreeSet<(DateTime<Utc>, usize)>,
}

#[derive(Debug)]
struct Entry {
    job: Job,
    shift: TimeDelta,
    cursor: DateTime<Utc>,
    next: Option<DateTime<Utc>>,
}

impl Planner {
    /// Plans `jobs` from where `history` left off. A job that the catalog does not know yet has no slots: it is to be
    /// entered there first.
    pub fn new(jobs: &[Job], history: &HashMap<JobKey, JobHistory>) -> Self {
        let known = jobs.iter().filter_map(|job| Some(Entry::new(job, history.get(&job.key)?)));
        let mut entries: Vec<Entry> = known.collect();
        entries.sort_by(|a, b| a.job.key.cmp(&b.job.key));
        let rings = entries.iter().enumerate().filter_map(|(at, entry)| Some((entry.rings_at(entry.next?), at)));
        Self { rings: rings.collect(), entries }
    }

    /// The slots whose time has come, at most one a job; those that are too late carry the reason to skip them.
    pub fn due(&self, now: DateTime<Utc>, catch_up: CatchUp) -> Vec<Slot> {
        let ringing = self.rings.range(..=(now, usize::MAX));
        ringing.filter_map(|&(_, at)| self.entries[at].slot(now, catch_up)).collect()
    }

    /// Moves the cursors behind `slots`, once these are durably recorded.
    pub fn advance(&mut self, slots: &[Slot]) {
        for slot in slots {
            let Some(at) = self.position(&slot.job) else { continue };
            let entry = &mut self.entries[at];
            if slot.nominal_at <= entry.cursor {
                continue;
            }
            if let Some(next) = entry.next {
                self.rings.remove(&(entry.rings_at(next), at));
            }
            entry.cursor = slot.nominal_at;
            entry.next = entry.job.schedule.next(entry.cursor);
            if let Some(next) = entry.next {
                self.rings.insert((entry.rings_at(next), at));
            }
        }
    }

    /// The earliest instant at which a slot is due; in the past while a due one is not recorded.
    pub fn next_ring(&self) -> Option<DateTime<Utc>> {
        self.rings.first().map(|&(at, _)| at)
    }

    /// The nominal instant of the job's next slot.
    pub fn next_for(&self, key: &JobKey) -> Option<DateTime<Utc>> {
        self.entries[self.position(key)?].next
    }

    /// Why a slot that was claimed earlier and never ran to an end shall not run any more; `None`: it shall.
    pub fn given_up(&self, slot: &Slot, now: DateTime<Utc>, catch_up: CatchUp) -> Option<String> {
        let Some(at) = self.position(&slot.job) else { return Some("the job left the policy".to_owned()) };
        let entry = &self.entries[at];
        if slot.nominal_at < entry.cursor {
            return Some("a newer slot of the job was taken since".to_owned());
        }
        entry.too_late(slot.nominal_at, now, catch_up)
    }

    /// The jobs whose last slot lies in the future: the clock was ahead when it was taken. They are silent until the
    /// clock has caught up, which a person should know if that is far away.
    pub fn ahead_of(&self, now: DateTime<Utc>) -> Vec<&JobKey> {
        self.entries.iter().filter(|entry| entry.cursor > now).map(|entry| &entry.job.key).collect()
    }

    fn position(&self, key: &JobKey) -> Option<usize> {
        self.entries.binary_search_by(|entry| entry.job.key.cmp(key)).ok()
    }
}

impl Entry {
    fn new(job: &Job, history: &JobHistory) -> Self {
        let cursor = history.last_nominal_at.map_or(history.first_seen_at, |last| last.max(history.first_seen_at));
        let shift = TimeDelta::from_std(splay_shift(&job.key, job.splay)).unwrap_or_default();
        Self { next: job.schedule.next(cursor), shift, cursor, job: job.clone() }
    }

    fn rings_at(&self, nominal_at: DateTime<Utc>) -> DateTime<Utc> {
        shifted(&self.job, self.shift, nominal_at)
    }

    fn slot(&self, now: DateTime<Utc>, catch_up: CatchUp) -> Option<Slot> {
        let first = self.next?;
        let nominal_at = self.latest_rung(first, now);
        Some(Slot {
            job: self.job.key.clone(),
            nominal_at,
            missed_count: self.missed_before(first, nominal_at),
            skip: self.too_late(nominal_at, now, catch_up),
        })
    }

    /// The last slot that has rung; `first` has.
    fn latest_rung(&self, first: DateTime<Utc>, now: DateTime<Utc>) -> DateTime<Utc> {
        let schedule = &self.job.schedule;
        let latest = schedule.latest(now).map(|latest| {
            // The latest may still wait for its shift; the one before it has rung, as shifts end half-way.
            let before = || schedule.latest(latest - TimeDelta::seconds(1));
            if self.rings_at(latest) <= now { Some(latest) } else { before() }
        });
        latest.flatten().map_or(first, |latest| latest.max(first))
    }

    fn missed_before(&self, first: DateTime<Utc>, nominal_at: DateTime<Utc>) -> u32 {
        if first == nominal_at {
            return 0;
        }
        // At least the first; the count goes by the local clock and may lose it in an hour that comes twice.
        self.job.schedule.count(self.cursor, nominal_at, MISSED_CAP).saturating_sub(1).clamp(1, MISSED_CAP)
    }

    fn too_late(&self, nominal_at: DateTime<Utc>, now: DateTime<Utc>, catch_up: CatchUp) -> Option<String> {
        if let Some(limit) = latest_start(&self.job, nominal_at).filter(|&limit| now > limit) {
            let limit = limit.with_timezone(&self.job.schedule.zone()).format("%Y-%m-%d %H:%M %Z");
            return Some(format!("missed: its latest start was {limit}"));
        }
        // A WAL check looks at what is, so the latest one is never in vain.
        if self.job.key.kind == JobKind::Wal {
            return None;
        }
        let late = age(now, self.rings_at(nominal_at));
        match (catch_up, self.job.catch_up) {
            (CatchUp::Forbidden, _) if late > PUNCTUAL => {
                Some(format!("missed by {}; nothing is made up for in recovery mode", length(late)))
            }
            (CatchUp::Allowed, Some(limit)) if late > limit.max(PUNCTUAL) => {
                Some(format!("missed by {}, catch-up is {}", length(late), length(limit)))
            }
            // By default a slot is made up for until the job's next one takes its place.
            _ => None,
        }
    }
}

/// When the slot of `nominal_at` starts if nothing stands in its way.
pub(crate) fn starts_at(job: &Job, nominal_at: DateTime<Utc>) -> DateTime<Utc> {
    if job.splay.is_zero() {
        return nominal_at;
    }
    shifted(job, TimeDelta::from_std(splay_shift(&job.key, job.splay)).unwrap_or_default(), nominal_at)
}

/// Later by the splay's shift, but never by more than half the way to the next slot. Otherwise a splay longer than the
/// period would make each slot wait until the next one replaces it.
fn shifted(job: &Job, shift: TimeDelta, nominal_at: DateTime<Utc>) -> DateTime<Utc> {
    if shift.is_zero() {
        return nominal_at;
    }
    let room = job.schedule.next(nominal_at).map(|next| (next - nominal_at) / 2);
    nominal_at + room.map_or(shift, |room| room.min(shift))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use chrono_tz::{Europe, Tz};
    use proptest::prelude::*;

    use super::{
        super::sample::{job, key, utc},
        *,
    };
    use crate::policy::NotAfter;

    fn seen(jobs: &[Job], at: &str) -> HashMap<JobKey, JobHistory> {
        let history = JobHistory { first_seen_at: utc(at), last_nominal_at: None };
        jobs.iter().map(|job| (job.key.clone(), history)).collect()
    }

    fn weekly(change: impl FnOnce(&mut Job)) -> Planner {
        let mut job = job(key("orders", JobKind::Full), "0 2 * * SUN", Europe::Berlin);
        change(&mut job);
        let history = seen(std::slice::from_ref(&job), "2026-11-01T12:00:00Z");
        Planner::new(&[job], &history)
    }

    #[test]
    fn a_missed_weekly_full_is_made_up_for_until_the_next_sunday() {
        let planner = weekly(|_| {});
        assert!(planner.due(utc("2026-11-08T00:59:59Z"), CatchUp::Allowed).is_empty());
        let slot = planner.due(utc("2026-11-14T23:00:00Z"), CatchUp::Allowed).remove(0);
        assert_eq!((slot.nominal_at, slot.missed_count, slot.skip), (utc("2026-11-08T01:00:00Z"), 0, None));
        let slot = planner.due(utc("2026-11-29T01:00:00Z"), CatchUp::Allowed).remove(0);
        assert_eq!((slot.nominal_at, slot.missed_count, slot.skip), (utc("2026-11-29T01:00:00Z"), 3, None));
    }

    #[test]
    fn what_is_later_than_its_catch_up_is_skipped_with_the_reason() {
        let planner = weekly(|job| job.catch_up = Some(Duration::from_hours(12)));
        let skip = |now| planner.due(utc(now), CatchUp::Allowed).remove(0).skip;
        assert_eq!(skip("2026-11-08T12:00:00Z"), None);
        assert_eq!(skip("2026-11-10T05:30:00Z").as_deref(), Some("missed by 2d 4h, catch-up is 12h"));
    }

    #[test]
    fn no_catch_up_still_lets_a_punctual_slot_run() {
        let planner = weekly(|job| job.catch_up = Some(Duration::ZERO));
        assert_eq!(planner.due(utc("2026-11-08T01:00:00.040Z"), CatchUp::Allowed)[0].skip, None);
        assert!(planner.due(utc("2026-11-08T01:02:00Z"), CatchUp::Allowed)[0].skip.is_some());
    }

    #[test]
    fn recovery_mode_runs_what_is_punctual_and_nothing_else() {
        let planner = weekly(|_| {});
        assert_eq!(planner.due(utc("2026-11-08T01:00:30Z"), CatchUp::Forbidden)[0].skip, None);
        assert_eq!(
            planner.due(utc("2026-11-08T04:00:00Z"), CatchUp::Forbidden)[0].skip.as_deref(),
            Some("missed by 3h; nothing is made up for in recovery mode")
        );
    }

    #[test]
    fn a_slot_that_a_dead_daemon_left_is_given_up_when_it_is_old_or_replaced() {
        let mut planner = weekly(|job| job.catch_up = Some(Duration::from_hours(12)));
        let left = planner.due(utc("2026-11-08T01:00:30Z"), CatchUp::Allowed).remove(0);
        let given_up = |planner: &Planner, at: &str, mode| planner.given_up(&left, utc(at), mode);
        planner.advance(std::slice::from_ref(&left));
        assert_eq!(given_up(&planner, "2026-11-08T04:00:00Z", CatchUp::Allowed), None);
        assert!(given_up(&planner, "2026-11-08T04:00:00Z", CatchUp::Forbidden).is_some());
        assert!(given_up(&planner, "2026-11-09T04:00:00Z", CatchUp::Allowed).is_some());
        let newer = planner.due(utc("2026-11-15T01:00:30Z"), CatchUp::Allowed);
        planner.advance(&newer);
        let reason = given_up(&planner, "2026-11-15T01:00:31Z", CatchUp::Allowed).unwrap();
        assert!(reason.contains("newer slot"), "{reason}");
        let reason = Planner::new(&[], &HashMap::new()).given_up(&left, utc("2026-11-08T01:00:31Z"), CatchUp::Allowed);
        assert!(reason.unwrap().contains("left the policy"));
    }

    #[test]
    fn a_slot_past_its_latest_start_is_skipped_with_the_reason() {
        let planner = weekly(|job| job.not_after = Some(NotAfter::Delay(Duration::from_hours(4))));
        assert_eq!(planner.due(utc("2026-11-08T05:00:00Z"), CatchUp::Allowed)[0].skip, None);
        assert_eq!(
            planner.due(utc("2026-11-08T05:00:01Z"), CatchUp::Allowed)[0].skip.as_deref(),
            Some("missed: its latest start was 2026-11-08 06:00 CET")
        );
    }

    #[test]
    fn a_missed_wal_check_runs_once_however_late() {
        let mut wal = job(key("orders", JobKind::Wal), "*/5 * * * *", Tz::UTC);
        wal.catch_up = Some(Duration::ZERO);
        let history = seen(std::slice::from_ref(&wal), "2026-01-01T00:00:00Z");
        let due = Planner::new(&[wal], &history).due(utc("2026-11-20T12:04:59Z"), CatchUp::Forbidden);
        assert_eq!(due.len(), 1);
        assert_eq!((due[0].nominal_at, due[0].skip.as_deref()), (utc("2026-11-20T12:00:00Z"), None));
        assert_eq!(due[0].missed_count, MISSED_CAP, "a year of them is not counted out");
    }

    #[test]
    fn a_clock_that_goes_back_fires_nothing_again() {
        let mut planner = weekly(|_| {});
        let slots = planner.due(utc("2026-11-08T01:00:00Z"), CatchUp::Allowed);
        planner.advance(&slots);
        assert!(planner.due(utc("2026-11-08T01:00:00Z"), CatchUp::Allowed).is_empty());
        assert!(planner.due(utc("2026-11-08T00:30:00Z"), CatchUp::Allowed).is_empty());
        assert_eq!(planner.next_ring(), Some(utc("2026-11-15T01:00:00Z")));
        assert_eq!(planner.ahead_of(utc("2026-11-08T00:30:00Z")), [&key("orders", JobKind::Full)]);
        assert!(planner.ahead_of(utc("2026-11-08T01:00:00Z")).is_empty());
        planner.advance(&[Slot { nominal_at: utc("2026-11-01T01:00:00Z"), ..slots[0].clone() }]);
        assert_eq!(planner.next_ring(), Some(utc("2026-11-15T01:00:00Z")), "an older slot moves nothing back");
    }

    #[test]
    fn a_splay_longer_than_the_period_delays_by_half_the_period_at_most() {
        let mut often = job(key("orders", JobKind::Incr), "*/20 * * * * *", Tz::UTC);
        often.splay = Duration::from_hours(1);
        let history = seen(std::slice::from_ref(&often), "2026-11-20T12:00:00Z");
        let planner = Planner::new(&[often], &history);
        assert_eq!(planner.next_ring(), Some(utc("2026-11-20T12:00:30Z")));
        let due = planner.due(utc("2026-11-20T12:00:45Z"), CatchUp::Allowed);
        assert_eq!(due[0].nominal_at, utc("2026-11-20T12:00:20Z"), "that of :40 has not rung yet");
    }

    #[test]
    fn a_job_that_the_catalog_does_not_know_has_no_slots() {
        let planner = Planner::new(&[job(key("orders", JobKind::Full), "* * * * *", Tz::UTC)], &HashMap::new());
        assert_eq!(planner.next_ring(), None);
    }

    #[test]
    fn ten_thousand_jobs_are_due_together() {
        let jobs: Vec<Job> =
            (0..10_000).map(|i| job(key(&format!("db{i}"), JobKind::Full), "0 2 * * *", Europe::Berlin)).collect();
        let mut planner = Planner::new(&jobs, &seen(&jobs, "2026-11-20T12:00:00Z"));
        let due = planner.due(utc("2026-11-21T01:00:00Z"), CatchUp::Allowed);
        assert_eq!(due.iter().map(|slot| &slot.job).collect::<HashSet<_>>().len(), 10_000);
        planner.advance(&due);
        assert!(planner.due(utc("2026-11-21T01:00:00Z"), CatchUp::Allowed).is_empty());
        assert_eq!(planner.next_for(&jobs[77].key), Some(utc("2026-11-22T01:00:00Z")));
    }

    #[derive(Debug, Clone)]
    enum Event {
        Wake(i64),
        ClockBack(i64),
        Restart,
        LostRecording(i64),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            6 => (1..4 * 3600i64).prop_map(Event::Wake),
            2 => (1..9 * 86_400i64).prop_map(Event::Wake),
            1 => (1..2 * 86_400i64).prop_map(Event::ClockBack),
            1 => Just(Event::Restart),
            1 => (1..86_400i64).prop_map(Event::LostRecording),
        ];
        prop::collection::vec(event, 1..60)
    }

    proptest! {
        #[test]
        fn no_slot_is_lost_and_none_comes_twice(
            events in events(),
            splay in 0..900u64,
            cron in prop::sample::select(vec!["*/10 * * * *", "0 2 * * *", "30 1,14 * * MON-FRI", "0 2 * * SUN", "17 3 1 * *"]),
        ) {
            let mut planned = job(key("orders", JobKind::Incr), cron, Tz::UTC);
            planned.splay = Duration::from_secs(splay);
            let schedule = planned.schedule.clone();
            let first_seen_at = utc("2026-11-20T12:00:00Z");
            let mut history = seen(std::slice::from_ref(&planned), "2026-11-20T12:00:00Z");
            let mut planner = Planner::new(std::slice::from_ref(&planned), &history);
            let (mut now, mut recorded, mut missed) = (first_seen_at, Vec::new(), 0u64);
            for event in events {
                match event {
                    Event::Wake(s) | Event::LostRecording(s) => now += TimeDelta::seconds(s),
                    Event::ClockBack(s) => now -= TimeDelta::seconds(s),
                    Event::Restart => planner = Planner::new(std::slice::from_ref(&planned), &history),
                }
                let due = planner.due(now, CatchUp::Allowed);
                prop_assert_eq!(due.is_empty(), planner.next_ring().unwrap() > now, "the ring is where a slot is due");
                if due.is_empty() || matches!(event, Event::LostRecording(_)) {
                    continue;
                }
                planner.advance(&due);
                prop_assert!(planner.due(now, CatchUp::Allowed).is_empty());
                let slot = &due[0];
                prop_assert!(slot.nominal_at <= now);
                prop_assert!(recorded.last().is_none_or(|&last| last < slot.nominal_at), "each slot once, in order");
                let between = recorded.last().copied().unwrap_or(first_seen_at);
                let counted = schedule.count(between, slot.nominal_at, u32::MAX) - 1;
                prop_assert_eq!(slot.missed_count, counted.min(MISSED_CAP));
                missed += u64::from(counted);
                recorded.push(slot.nominal_at);
                history.get_mut(&planned.key).unwrap().last_nominal_at = Some(slot.nominal_at);
            }
            if let Some(&last) = recorded.last() {
                let all = std::iter::successors(schedule.next(first_seen_at), |&at| schedule.next(at));
                let all = all.take_while(|&at| at <= last).count() as u64;
                prop_assert_eq!(recorded.len() as u64 + missed, all, "every slot is recorded or counted as missed");
            }
        }
    }
}
