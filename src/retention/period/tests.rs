//! Hours, days and weeks as people in a zone have them.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{NaiveDate, TimeDelta, TimeZone, Utc, Weekday};
use chrono_tz::{America, Australia, Europe};
use proptest::prelude::*;

use super::{super::property::backup, *};
use crate::{
    record::{Backup, BackupType},
    retention::{Circumstances, plan},
};

/// A good full for each hour from one moment to another.
fn hourly(from: &str, until: &str) -> Vec<Backup> {
    let (mut at, until) = (from.parse::<DateTime<Utc>>().unwrap(), until.parse::<DateTime<Utc>>().unwrap());
    let mut made = Vec::new();
    while at <= until {
        let label = at.format("%Y%m%d-%H%M%SF").to_string();
        made.push(Backup { label, started_at: at, stopped_at: at, ..backup(BackupType::Full, 0, &[]) });
        at += TimeDelta::hours(1);
    }
    made
}

/// The local times of what is kept, oldest first.
fn kept(backups: &[Backup], rules: &Retention, zone: Tz) -> Vec<String> {
    let now = backups.last().unwrap().stopped_at;
    let plan = plan(backups, rules, &Circumstances { now, zone, pinned: BTreeMap::new() });
    let kept: BTreeSet<&str> = plan.decisions.iter().filter(|it| it.keep).map(|it| it.label.as_str()).collect();
    let kept = backups.iter().filter(|backup| kept.contains(backup.label.as_str()));
    kept.map(|backup| backup.stopped_at.with_timezone(&zone).format("%a %d %H:%M %z").to_string()).collect()
}

fn rules(hourly: Option<u32>, daily: Option<u32>, weekly: Option<u32>) -> Retention {
    Retention { hourly, daily, weekly, keep_proven: 0, ..Retention::default() }
}

#[test]
fn a_day_of_23_hours_and_one_of_25_keep_one_daily_each() {
    let daily = rules(None, Some(3), None);
    assert_eq!(
        kept(&hourly("2026-03-27T00:00:00Z", "2026-03-30T08:00:00Z"), &daily, Europe::Berlin),
        ["Sat 28 23:00 +0100", "Sun 29 23:00 +0200", "Mon 30 10:00 +0200"]
    );
    assert_eq!(
        kept(&hourly("2026-10-23T00:00:00Z", "2026-10-26T08:00:00Z"), &daily, Europe::Berlin),
        ["Sat 24 23:00 +0200", "Sun 25 23:00 +0100", "Mon 26 09:00 +0100"]
    );
}

#[test]
fn the_hour_that_comes_twice_is_two_and_the_one_that_is_skipped_takes_no_place() {
    let hours = rules(Some(3), None, None);
    assert_eq!(
        kept(&hourly("2026-10-24T20:30:00Z", "2026-10-25T01:30:00Z"), &hours, Europe::Berlin),
        ["Sun 25 01:30 +0200", "Sun 25 02:30 +0200", "Sun 25 02:30 +0100"]
    );
    assert_eq!(
        kept(&hourly("2026-03-28T20:30:00Z", "2026-03-29T02:30:00Z"), &hours, Europe::Berlin),
        ["Sun 29 01:30 +0100", "Sun 29 03:30 +0200", "Sun 29 04:30 +0200"]
    );
}

#[test]
fn the_last_week_of_a_year_goes_on_in_january() {
    let weekly = rules(None, None, Some(3));
    assert_eq!(
        kept(&hourly("2026-12-20T00:00:00Z", "2027-01-05T12:00:00Z"), &weekly, Tz::UTC),
        ["Sun 27 23:00 +0000", "Sun 03 23:00 +0000", "Tue 05 12:00 +0000"],
        "week 53 of 2026 ends on January 3"
    );
    assert_eq!(
        kept(&hourly("2024-12-20T00:00:00Z", "2025-01-07T12:00:00Z"), &weekly, Tz::UTC),
        ["Sun 29 23:00 +0000", "Sun 05 23:00 +0000", "Tue 07 12:00 +0000"],
        "December 30 of 2024 is in week 1 of 2025, as January 5 is, and in no week of 2024"
    );
}

/// A moment within thirty years, most of them near a turn of the year, in a zone whose clocks change.
fn moments() -> impl Strategy<Value = DateTime<Tz>> {
    let zones = prop::sample::select(vec![Europe::Berlin, America::New_York, Tz::UTC, Australia::Lord_Howe]);
    let hours = prop_oneof![2 => -200..200_i64, 1 => 0..8760_i64];
    (2000..2030, hours, 0..3600_i64, zones).prop_map(|(year, hours, second, zone)| {
        let turn = Utc.with_ymd_and_hms(year, 1, 1, 0, 0, 0).unwrap();
        (turn + TimeDelta::hours(hours) + TimeDelta::seconds(second)).with_timezone(&zone)
    })
}

fn monday(at: &DateTime<Tz>) -> NaiveDate {
    at.date_naive().week(Weekday::Mon).first_day()
}

proptest! {
    #[test]
    fn a_week_spans_less_than_seven_days_from_monday_on(a in moments(), hours in 0..400_i64) {
        let b = a + TimeDelta::hours(hours);
        let is_same = week(&a) == week(&b);
        prop_assert_eq!(is_same, monday(&a) == monday(&b));
        if is_same {
            prop_assert!(b.naive_local() - a.naive_local() < TimeDelta::days(7));
            let thursday = monday(&a) + TimeDelta::days(3);
            prop_assert_eq!(week(&a)[0], thursday.year(), "the year is the one that has the Thursday");
        }
    }

    #[test]
    fn the_same_hour_is_the_same_day_month_quarter_and_year(a in moments(), minutes in 0..4000_i64) {
        let b = a + TimeDelta::minutes(minutes);
        let [is_hour, is_day, is_week, is_month, is_quarter, is_year] =
            std::array::from_fn(|rule| (PERIODS[rule].of)(&a) == (PERIODS[rule].of)(&b));
        prop_assert!(!is_hour || is_day && minutes < 60);
        prop_assert!(!is_day || is_month && is_week && minutes < 25 * 60);
        prop_assert!(!is_month || is_quarter);
        prop_assert!(!is_quarter || is_year);
    }
}
