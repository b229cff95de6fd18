//! What should run now: cron, history and `now` go in; slots, verdicts and promotions come out, each with its reason.
//!
//! A *slot* is a job and a nominal instant of its schedule; the catalog has each slot once. `planner.rs` says which slots
//! are due, `admit.rs` which of the queued ones may start, `promote.rs` whether a diff or incr becomes a full.
//! Nothing here is remembered: the caller writes the slots first and tells the planner afterwards.
//!
//! A newcomer would let the alarm clock say what to run. It only rings; a ring may come late, twice or not at all, and
//! the answer here is the same.

mod admit;
mod planner;
mod promote;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

pub(crate) use self::{admit::rank, planner::starts_at};
pub use self::{
    admit::{Limits, Queued, Verdict, admit},
    planner::{CatchUp, JobHistory, Planner},
    promote::{FullHistory, promote},
};
use crate::{
    cron,
    policy::{Job, NotAfter},
    record::JobKey,
};

/// The shift of a job's starts, up to `splay`: the same on every host and in every version, because it follows from the
/// key alone.
pub fn splay_shift(key: &JobKey, splay: Duration) -> Duration {
    Duration::from_secs(fnv_1a(key.to_string().as_bytes()) % (splay.as_secs() + 1))
}

/// FNV-1a with 64 bits. The standard library's hasher may differ between versions.
fn fnv_1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The latest moment at which the slot of `nominal_at` may start; none where the job knows no limit.
pub fn latest_start(job: &Job, nominal_at: DateTime<Utc>) -> Option<DateTime<Utc>> {
    match job.not_after? {
        NotAfter::Delay(delay) => nominal_at.checked_add_signed(TimeDelta::from_std(delay).ok()?),
        NotAfter::LocalTime(time) => {
            let zone = job.schedule.zone();
            let today = nominal_at.with_timezone(&zone).date_naive();
            // The day after tomorrow, because tomorrow's time may be today's instant where a whole day is left out.
            let mut instants = today.iter_days().take(3).filter_map(|day| cron::readings(zone, day.and_time(time)));
            instants.find_map(|(earlier, later)| [earlier, later].into_iter().find(|&at| at > nominal_at))
        }
    }
}

#[cfg(test)]
pub(crate) mod sample {
    use super::*;
    use crate::{
        cron::Schedule,
        policy::{Promote, Retry},
        record::JobKind,
    };

    pub(crate) fn key(database: &str, kind: JobKind) -> JobKey {
        JobKey { database: Some(database.parse().unwrap()), kind, repo: None, name: None }
    }

    pub(crate) fn job(key: JobKey, cron: &str, zone: chrono_tz::Tz) -> Job {
        Job {
            key,
            schedule: Schedule::parse(cron, zone).unwrap(),
            splay: Duration::ZERO,
            catch_up: None,
            retry: Retry { attempts: 1, backoff: Duration::ZERO, max_backoff: Duration::ZERO },
            timeout: None,
            not_after: None,
            promote: Promote::Diff,
        }
    }

    pub(crate) fn utc(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }
}

#[cfg(test)]
mod tests {
    use chrono::NaiveTime;
    use chrono_tz::Europe;

    use super::{sample::*, *};
    use crate::record::JobKind;

    #[test]
    fn the_shift_is_fixed_by_the_key_and_never_above_the_splay() {
        let splay = Duration::from_mins(2);
        // These numbers may never change: a new version would start everything at another time.
        assert_eq!(splay_shift(&key("orders", JobKind::Full), splay).as_secs(), 95);
        assert_eq!(splay_shift(&key("crm", JobKind::Full), splay).as_secs(), 40);
        let shifts: Vec<_> = (0..500).map(|i| splay_shift(&key(&format!("db{i}"), JobKind::Wal), splay)).collect();
        assert!(shifts.iter().all(|&shift| shift <= splay));
        assert!(shifts.iter().collect::<std::collections::HashSet<_>>().len() > 90, "they spread");
        assert_eq!(splay_shift(&key("orders", JobKind::Full), Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn the_latest_start_is_the_first_such_time_after_the_slot() {
        let mut job = job(key("orders", JobKind::Full), "0 22 * * *", Europe::Berlin);
        let nominal = utc("2026-10-24T20:00:00Z");
        assert_eq!(latest_start(&job, nominal), None);
        for (time, expected) in [("06:00", "2026-10-25T05:00:00Z"), ("23:30", "2026-10-24T21:30:00Z")] {
            job.not_after = Some(NotAfter::LocalTime(NaiveTime::parse_from_str(time, "%H:%M").unwrap()));
            assert_eq!(latest_start(&job, nominal), Some(utc(expected)), "{time}");
        }
        job.not_after = Some(NotAfter::LocalTime(NaiveTime::from_hms_opt(2, 30, 0).unwrap()));
        let before_the_gap = utc("2027-03-27T21:00:00Z");
        assert_eq!(latest_start(&job, before_the_gap), Some(utc("2027-03-28T01:00:00Z")), "2:30 does not exist");
        let in_the_second_pass = utc("2026-10-25T01:10:00Z");
        assert_eq!(latest_start(&job, in_the_second_pass), Some(utc("2026-10-25T01:30:00Z")), "2:30 comes twice");
        job.not_after = Some(NotAfter::Delay(Duration::from_hours(3)));
        assert_eq!(latest_start(&job, nominal), Some(utc("2026-10-24T23:00:00Z")));
    }
}
