//! A schedule: standard cron text in a time zone, and its next and previous instants.
//!
//! croner understands the text and finds the *local* times it means; this file turns local times into instants, because
//! on the two days a year when clocks change we want something else than croner does:
//!
//! * A schedule *fixed* in hour and minute (single values or plain lists) whose local time does not exist that day fires
//!   at the first instant after the gap; one whose local time comes twice fires at the earlier. Always once.
//! * A schedule that *steps or ranges* (`*`, `-` or `/` in second, minute or hour) goes by elapsed time: what lies in the
//!   gap fires at its end, together with what lies there anyhow; what lies in the hour that comes twice fires twice.
//!
//! Every local time has an earlier and a later reading, which are one unless it comes twice. Neither reading ever goes
//! back while local time goes forward. `next` and `latest` rest on that: they walk over local times in one direction
//! and stop at the first whose reading is past the instant in question; on an ordinary day that is the first step.
//!
//! A newcomer would hand croner a zoned time. It then applies its own rules, and `30 1,2 * * *` loses a night.

mod text;

#[cfg(test)]
mod oracle;

use std::{fmt, sync::Arc, time::Duration};

use chrono::{DateTime, NaiveDateTime, NaiveTime, TimeZone, Timelike, Utc, offset::LocalResult};
use chrono_tz::{GapInfo, Tz};
use croner::{Cron, CronComponent};

/// A cron text that cannot be a schedule: the text, the field that is wrong, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CronError(String);

/// A cron text in a time zone. Cloning it is cheap; two are equal when text and zone are.
#[derive(Clone)]
pub struct Schedule(Arc<Inner>);

struct Inner {
    text: String,
    zone: Tz,
    cron: Cron,
    fixed: bool,
}

impl Schedule {
    /// Reads five fields, or six with leading seconds, or `@daily` and the like. What can never fire is refused.
    pub fn parse(text: &str, zone: Tz) -> Result<Schedule, CronError> {
        let text = text.trim().to_owned();
        match text::read(&text) {
            Ok((cron, fixed)) => Ok(Self(Arc::new(Inner { text, zone, cron, fixed }))),
            Err(reason) => Err(CronError(format!("`{text}`: {reason}"))),
        }
    }

    /// The text as it was written.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// The zone it is read in.
    pub fn zone(&self) -> Tz {
        self.0.zone
    }

    /// The first instant after `after`.
    pub fn next(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let Inner { zone, cron, fixed, .. } = &*self.0;
        let mut local = after.with_timezone(zone).naive_local();
        if !fixed {
            // While an hour passes for the first time, what it held comes once more: begin before it.
            let (_, later) = readings(*zone, local)?;
            local -= later - after;
        }
        let mut second_pass: Option<DateTime<Utc>> = None;
        loop {
            local = cron.find_next_occurrence(&local, false).ok()?;
            let (earlier, later) = readings(*zone, local)?;
            if !fixed && later > after {
                second_pass.get_or_insert(later);
            }
            if earlier > after {
                return Some(second_pass.map_or(earlier, |later| later.min(earlier)));
            }
        }
    }

    /// The last instant that is not after `now`.
    pub fn latest(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let Inner { zone, cron, fixed, .. } = &*self.0;
        let mut local = now.with_timezone(zone).naive_local();
        // While an hour passes for the second time, all of it has been here before: begin behind it.
        let (earlier, _) = readings(*zone, local)?;
        local += now - earlier;
        let mut inclusive = true;
        let mut first_pass: Option<DateTime<Utc>> = None;
        loop {
            local = cron.find_previous_occurrence(&local, inclusive).ok()?;
            inclusive = false;
            let (earlier, later) = readings(*zone, local)?;
            if earlier <= now {
                let found = *first_pass.get_or_insert(earlier);
                if *fixed {
                    return Some(found);
                }
                if later <= now {
                    return Some(found.max(later));
                }
            }
        }
    }

    /// The length between the last instant not after `at` and the first after it; zero where there is only one of them.
    pub fn period(&self, at: DateTime<Utc>) -> Duration {
        match (self.latest(at), self.next(at)) {
            (Some(latest), Some(next)) => (next - latest).to_std().unwrap_or_default(),
            _ => Duration::ZERO,
        }
    }

    /// How many times lie after `after` and not after `until`, or a number above `cap`.
    ///
    /// It counts by the local clock and day by day, so that a year of minutes costs no more than a few days; on a day
    /// when the clocks change it may be off by what the changed hour holds.
    pub(crate) fn count(&self, after: DateTime<Utc>, until: DateTime<Utc>, cap: u32) -> u32 {
        let local = |instant: DateTime<Utc>| instant.with_timezone(&self.0.zone).naive_local();
        let (mut time, until) = (local(after), local(until));
        let mut count = 0;
        while count <= cap
            && let Ok(first) = self.0.cron.find_next_occurrence(&time, false)
            && first <= until
        {
            let end_of_day = first.date().and_time(LAST_SECOND);
            let last = end_of_day.min(until);
            count += 1 + self.times_of_day_until(last.time()) - self.times_of_day_until(first.time());
            time = end_of_day;
        }
        count
    }

    /// How many times a matching day holds up to and including `time`.
    fn times_of_day_until(&self, time: NaiveTime) -> u32 {
        let pattern = &self.0.cron.pattern;
        let (hours, hour_is_one) = below(&pattern.hours, time.hour());
        let (minutes, minute_is_one) = below(&pattern.minutes, time.minute());
        let (seconds, second_is_one) = below(&pattern.seconds, time.second());
        let in_minute = if minute_is_one { seconds + u32::from(second_is_one) } else { 0 };
        let all = |field: &CronComponent| field.values().len() as u32;
        let in_hour = if hour_is_one { minutes * all(&pattern.seconds) + in_minute } else { 0 };
        hours * all(&pattern.minutes) * all(&pattern.seconds) + in_hour
    }
}

const LAST_SECOND: NaiveTime = NaiveTime::from_hms_opt(23, 59, 59).expect("it is a time of day");

/// How many of the field's values are below `value`, and whether `value` is one of them.
fn below(field: &CronComponent, value: u32) -> (u32, bool) {
    let values = field.values();
    let below = values.iter().filter(|&&v| u32::from(v) < value).count();
    (below as u32, values.iter().any(|&v| u32::from(v) == value))
}

/// The earlier and the later instant at which a clock in `zone` shows `local`; twice the end of the gap where it never
/// does. `None` only where the zone's history is unknown.
pub(crate) fn readings(zone: Tz, local: NaiveDateTime) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
    match zone.from_local_datetime(&local) {
        LocalResult::Single(instant) => Some((instant.to_utc(), instant.to_utc())),
        LocalResult::Ambiguous(one, other) => Some((one.min(other).to_utc(), one.max(other).to_utc())),
        LocalResult::None => {
            let end = GapInfo::new(&local, &zone)?.end?.to_utc();
            Some((end, end))
        }
    }
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || (self.text() == other.text() && self.zone() == other.zone())
    }
}

impl Eq for Schedule {}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schedule(`{}` in {})", self.0.text, self.0.zone)
    }
}

#[cfg(test)]
mod tests {
    use chrono_tz::{Africa, America, Asia, Europe};

    use super::*;

    fn schedule(text: &str, zone: Tz) -> Schedule {
        Schedule::parse(text, zone).unwrap()
    }

    fn utc(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    /// What fires from `from` to `to`, as local times with their offset.
    fn fires(schedule: &Schedule, from: &str, to: &str) -> Vec<String> {
        let in_zone = |at: &DateTime<Utc>| at.with_timezone(&schedule.zone()).format("%d %H:%M %z").to_string();
        std::iter::successors(schedule.next(utc(from)), |&at| schedule.next(at))
            .take_while(|&at| at <= utc(to))
            .map(|at| in_zone(&at))
            .collect()
    }

    #[test]
    fn a_fixed_time_that_does_not_exist_fires_once_just_after_the_gap() {
        let sunday = schedule("0 2 * * SUN", Europe::Berlin);
        assert_eq!(
            fires(&sunday, "2027-03-21T12:00:00Z", "2027-04-04T12:00:00Z"),
            ["28 03:00 +0200", "04 02:00 +0200"]
        );
        let nightly = schedule("30 2 * * *", America::New_York);
        assert_eq!(
            fires(&nightly, "2026-03-07T12:00:00Z", "2026-03-09T12:00:00Z"),
            ["08 03:00 -0400", "09 02:30 -0400"]
        );
    }

    #[test]
    fn a_fixed_time_that_comes_twice_fires_once_at_the_earlier() {
        let sunday = schedule("0 2 * * SUN", Europe::Berlin);
        assert_eq!(
            fires(&sunday, "2026-10-18T12:00:00Z", "2026-11-01T12:00:00Z"),
            ["25 02:00 +0200", "01 02:00 +0100"]
        );
    }

    #[test]
    fn two_fixed_times_in_one_gap_fire_once_together() {
        let listed = schedule("0,30 2,3 * * *", Europe::Berlin);
        assert_eq!(
            fires(&listed, "2027-03-27T12:00:00Z", "2027-03-28T12:00:00Z"),
            ["28 03:00 +0200", "28 03:30 +0200"]
        );
        let both_hours = schedule("30 1,2 * * *", Europe::Berlin);
        assert_eq!(
            fires(&both_hours, "2026-10-24T12:00:00Z", "2026-10-25T12:00:00Z"),
            ["25 01:30 +0200", "25 02:30 +0200"]
        );
    }

    #[test]
    fn a_stepping_schedule_knows_neither_a_hole_nor_a_silent_hour() {
        let half_hours = schedule("*/30 1-3 * * *", Europe::Berlin);
        assert_eq!(
            fires(&half_hours, "2027-03-27T12:00:00Z", "2027-03-28T12:00:00Z"),
            ["28 01:00 +0100", "28 01:30 +0100", "28 03:00 +0200", "28 03:30 +0200"]
        );
        assert_eq!(
            fires(&half_hours, "2026-10-24T23:30:00Z", "2026-10-25T02:00:00Z"),
            ["25 02:00 +0200", "25 02:30 +0200", "25 02:00 +0100", "25 02:30 +0100", "25 03:00 +0100"]
        );
        let every_other_hour = schedule("30 */2 * * *", Europe::Berlin);
        assert_eq!(
            fires(&every_other_hour, "2027-03-27T23:00:00Z", "2027-03-28T03:00:00Z"),
            ["28 00:30 +0100", "28 03:00 +0200", "28 04:30 +0200"]
        );
    }

    #[test]
    fn midnight_that_does_not_exist_becomes_one_o_clock() {
        let daily = schedule("@daily", Africa::Cairo);
        assert_eq!(fires(&daily, "2026-04-22T22:30:00Z", "2026-04-25T00:00:00Z"), ["24 01:00 +0300", "25 00:00 +0300"]);
    }

    #[test]
    fn day_of_month_or_day_of_week_is_enough_when_both_are_given() {
        let either = schedule("0 6 1 * MON", Asia::Kolkata);
        assert_eq!(
            fires(&either, "2026-12-01T12:00:00Z", "2027-01-01T12:00:00Z").len(),
            5,
            "four Mondays and the first of January"
        );
    }

    #[test]
    fn the_period_is_the_length_around_a_moment() {
        let office = schedule("0 8-18 * * MON-FRI", Tz::UTC);
        assert_eq!(office.period(utc("2026-11-20T09:30:00Z")), Duration::from_hours(1));
        assert_eq!(office.period(utc("2026-11-20T20:00:00Z")), Duration::from_hours(62));
    }

    #[test]
    fn counting_is_exact_and_cheap() {
        let count = |text, from, to| schedule(text, Tz::UTC).count(utc(from), utc(to), 1_000_000);
        assert_eq!(count("*/5 8-9 * * MON-FRI", "2026-11-20T08:10:00Z", "2026-11-23T08:05:00Z"), 21 + 2);
        assert_eq!(count("0 2 * * *", "2026-11-01T02:00:00Z", "2026-11-04T02:00:00Z"), 3);
        assert_eq!(count("* * * * *", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"), 365 * 1440);
        assert_eq!(count("7,9 3 4 5 * *", "2026-11-01T00:00:00Z", "2026-11-01T00:00:00Z"), 0);
        let seconds = schedule("*/7 1-2 * * * *", Tz::UTC);
        assert!(seconds.count(utc("2026-01-01T00:00:00Z"), utc("2027-01-01T00:00:00Z"), 1000) > 1000);
    }

    #[test]
    fn fractions_of_a_second_neither_hide_nor_repeat_an_instant() {
        let minutely = schedule("* * * * *", Europe::Berlin);
        let (before, just_after) = (utc("2026-11-20T11:59:59.999Z"), utc("2026-11-20T12:00:00.001Z"));
        assert_eq!(minutely.next(before), Some(utc("2026-11-20T12:00:00Z")));
        assert_eq!(minutely.next(just_after), Some(utc("2026-11-20T12:01:00Z")));
        assert_eq!(minutely.latest(just_after), Some(utc("2026-11-20T12:00:00Z")));
        assert_eq!(minutely.latest(before), Some(utc("2026-11-20T11:59:00Z")));
    }
}
