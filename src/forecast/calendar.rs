//! The days of a forecast, in the policy's zone, and what is there at the end of each.
//!
//! A newcomer would add 24 hours to reach the next day; twice a year that is another hour of the day.

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use chrono_tz::Tz;

use super::{Day, Question};
use crate::cron::readings;

/// The days so far, and what is there now.
pub(super) struct Calendar {
    zone: Tz,
    from: DateTime<Utc>,
    until: DateTime<Utc>,
    /// The date of the day that goes on, and when it ends.
    date: NaiveDate,
    ends: DateTime<Utc>,
    /// Whether the time that is told has begun.
    told: bool,
    made: u32,
    deleted: u32,
    kept: usize,
    stored: u64,
    days: Vec<Day>,
}

impl Calendar {
    pub(super) fn new(question: &Question<'_>, kept: usize, stored: u64) -> Self {
        let zone = question.policy.daemon.timezone;
        let from = question.from.max(question.now);
        let date = from.with_timezone(&zone).date_naive();
        let last = date.checked_add_days(chrono::Days::new(question.days.into())).unwrap_or(date);
        let (ends, until) = (end_of(date, zone), end_of(last, zone));
        let (made, deleted, told, days) = (0, 0, question.now >= from, Vec::new());
        Self { zone, from, until, date, ends, told, made, deleted, kept, stored, days }
    }

    /// The end of the last day.
    pub(super) fn until(&self) -> DateTime<Utc> {
        self.until
    }

    /// Goes on to a moment, closing the days before it; false: it lies behind the last.
    pub(super) fn reach(&mut self, at: DateTime<Utc>) -> bool {
        self.told = at >= self.from;
        while at >= self.ends && self.ends < self.until {
            self.close();
        }
        at < self.until
    }

    pub(super) fn made(&mut self, bytes: u64) {
        self.made += u32::from(self.told);
        self.kept += 1;
        self.stored = self.stored.saturating_add(bytes);
    }

    pub(super) fn deleted(&mut self, bytes: u64) {
        self.deleted += u32::from(self.told);
        self.kept -= 1;
        self.stored = self.stored.saturating_sub(bytes);
    }

    /// All days, to the last.
    pub(super) fn end(mut self) -> Vec<Day> {
        while self.ends < self.until {
            self.close();
        }
        self.close();
        self.days
    }

    fn close(&mut self) {
        let (date, made, deleted) = (self.date, self.made, self.deleted);
        self.days.push(Day { date, made, deleted, kept: self.kept, stored_bytes: self.stored });
        (self.made, self.deleted) = (0, 0);
        self.date = date.succ_opt().unwrap_or(date);
        self.ends = end_of(self.date, self.zone);
    }
}

/// The first instant of the day after.
pub(super) fn end_of(date: NaiveDate, zone: Tz) -> DateTime<Utc> {
    let midnight = date.succ_opt().unwrap_or(date).and_time(NaiveTime::MIN);
    readings(zone, midnight).map_or_else(|| midnight.and_utc(), |(earlier, _)| earlier)
}
