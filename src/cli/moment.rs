//! A moment as people write it: a length of time from now, a day, or a time.
//!
//! A day is its beginning in the policy's zone. A newcomer would take any length; what leaves the calendar is a mistake
//! and would end the program.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};
use chrono_tz::Tz;

/// A moment, before it is known what now is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// So far from now.
    Length(TimeDelta),
    /// A time.
    At(DateTime<Utc>),
    /// The beginning of a day.
    Day(NaiveDate),
}

/// What is longer is a mistake, and would overflow the calendar.
const LONGEST: Duration = Duration::from_secs(36_525 * 86_400);

/// For the command line.
pub(super) fn moment(text: &str) -> Result<Moment, String> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Ok(Moment::At(at.to_utc()));
    }
    if let Ok(day) = text.parse() {
        return Ok(Moment::Day(day));
    }
    match length(text) {
        Ok(length) => Ok(Moment::Length(TimeDelta::from_std(length).unwrap_or_default())),
        Err(why) => Err(format!("{why}; or a day like 2026-11-20, or a time like 2026-11-20T14:03:00+01:00")),
    }
}

/// A length of time, for the command line.
pub(super) fn length(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(length) if length <= LONGEST => Ok(length),
        Ok(_) => Err("that is longer than a century".to_owned()),
        Err(error) => Err(format!("{error}; write a length of time like `60d` or `12h`")),
    }
}

impl Moment {
    /// The moment, where a length goes back.
    pub(super) fn before(self, now: DateTime<Utc>, zone: Tz) -> DateTime<Utc> {
        self.from(|length| now - length, zone)
    }

    /// The moment, where a length goes forward.
    pub(super) fn after(self, now: DateTime<Utc>, zone: Tz) -> DateTime<Utc> {
        self.from(|length| now + length, zone)
    }

    fn from(self, distant: impl Fn(TimeDelta) -> DateTime<Utc>, zone: Tz) -> DateTime<Utc> {
        match self {
            Moment::Length(length) => distant(length),
            Moment::At(at) => at,
            Moment::Day(day) => {
                let midnight = day.and_time(NaiveTime::MIN);
                // Where the clocks skip midnight, the day begins later; UTC's midnight is near enough.
                midnight.and_local_timezone(zone).earliest().map_or_else(|| midnight.and_utc(), |at| at.to_utc())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_length_a_day_or_a_time() {
        let now: DateTime<Utc> = "2026-11-20T12:00:00Z".parse().unwrap();
        for (text, before, after) in [
            ("7d", "2026-11-13T12:00:00Z", "2026-11-27T12:00:00Z"),
            ("2026-11-19", "2026-11-18T23:00:00Z", "2026-11-18T23:00:00Z"),
            ("2026-11-19T10:00:00+01:00", "2026-11-19T09:00:00Z", "2026-11-19T09:00:00Z"),
        ] {
            let zone = Tz::Europe__Berlin;
            let moment = moment(text).unwrap();
            let told = (moment.before(now, zone), moment.after(now, zone));
            assert_eq!(told, (before.parse().unwrap(), after.parse().unwrap()), "{text}");
        }
        assert!(moment("290000y").unwrap_err().contains("longer than a century"));
        assert!(moment("yesterday").unwrap_err().contains("`60d`"));
        assert!(length("60 parsecs").unwrap_err().contains("`60d`"));
    }
}
