//! Holds `next` and `latest` against a clock that is simply watched, second by second, on the days when clocks change.
//!
//! The watcher shares nothing with croner or with the walk in `cron.rs`: it reads the pattern by itself and moves
//! forward through real instants. A newcomer would let it use `readings`; then both would be wrong together.

use std::collections::BTreeSet;

use chrono::{DateTime, Datelike, NaiveDateTime, TimeDelta, Timelike, Utc};
use chrono_tz::{Africa, America, Asia, Australia, Europe, Pacific, Tz};
use proptest::{collection::btree_set, prelude::*};

use super::Schedule;

/// A field as the watcher sees it: the values, and the text it is written as.
#[derive(Debug, Clone)]
struct Values {
    text: String,
    set: BTreeSet<u32>,
    fixed: bool,
}

impl Values {
    fn any(min: u32, max: u32) -> Self {
        Self { text: "*".to_owned(), set: (min..=max).collect(), fixed: false }
    }

    fn list(set: BTreeSet<u32>) -> Self {
        let text = set.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        Self { text, set, fixed: true }
    }

    fn range(from: u32, to: u32, step: u32) -> Self {
        let text = if step == 1 { format!("{from}-{to}") } else { format!("{from}-{to}/{step}") };
        Self { text, set: (from..=to).step_by(step as usize).collect(), fixed: false }
    }

    fn every(min: u32, max: u32, step: u32) -> Self {
        Self { text: format!("*/{step}"), ..Self::range(min, max, step) }
    }
}

#[derive(Debug, Clone)]
struct Pattern {
    second: Values,
    minute: Values,
    hour: Values,
    day: Values,
    weekday: Values,
}

impl Pattern {
    fn text(&self) -> String {
        let fields = [&self.second, &self.minute, &self.hour, &self.day].map(|field| field.text.as_str());
        format!("{} * {}", fields.join(" "), self.weekday.text)
    }

    fn is_fixed(&self) -> bool {
        self.second.fixed && self.minute.fixed && self.hour.fixed
    }

    fn matches(&self, local: NaiveDateTime) -> bool {
        let day = self.day.set.contains(&local.day());
        let weekday = self.weekday.set.contains(&local.weekday().num_days_from_sunday());
        let date = match (self.day.text == "*", self.weekday.text == "*") {
            (false, false) => day || weekday,
            _ => day && weekday,
        };
        let time = [(&self.hour, local.hour()), (&self.minute, local.minute()), (&self.second, local.second())];
        date && time.iter().all(|(field, value)| field.set.contains(value))
    }

    /// Everything that fires in `[from, from + seconds)`, found by watching the wall clock.
    fn watch(&self, zone: Tz, from: DateTime<Utc>, seconds: i64) -> Vec<DateTime<Utc>> {
        let show = |at: DateTime<Utc>| at.with_timezone(&zone).naive_local();
        let mut shown = show(from - TimeDelta::seconds(1));
        // The latest the clock has ever shown, so that a second pass is recognised.
        let mut furthest = (1..=4 * 3600).map(|s| show(from - TimeDelta::seconds(s))).max().unwrap();
        let mut fired = Vec::new();
        for at in (0..seconds).map(|s| from + TimeDelta::seconds(s)) {
            let now = show(at);
            let skipped = (1..(now - shown).num_seconds()).map(|s| shown + TimeDelta::seconds(s));
            let is_second_pass = now <= furthest;
            let hits = self.matches(now) && !(self.is_fixed() && is_second_pass);
            if hits || skipped.into_iter().any(|missing| self.matches(missing)) {
                fired.push(at);
            }
            furthest = furthest.max(now);
            shown = now;
        }
        fired
    }
}

/// A zone and an instant a few hours before its clocks change.
const CHANGES: &[(Tz, &str)] = &[
    (Europe::Berlin, "2027-03-27T21:00:00Z"),
    (Europe::Berlin, "2026-10-24T21:00:00Z"),
    (America::New_York, "2026-03-08T03:00:00Z"),
    (America::New_York, "2026-11-01T02:00:00Z"),
    (Australia::Lord_Howe, "2026-04-04T11:00:00Z"),
    (Australia::Lord_Howe, "2026-10-03T11:30:00Z"),
    (Africa::Cairo, "2026-04-23T19:00:00Z"),
    (Africa::Cairo, "2026-10-29T17:00:00Z"),
    (America::Sao_Paulo, "2018-11-03T23:00:00Z"),
    (America::Sao_Paulo, "2018-02-17T22:00:00Z"),
    (Pacific::Apia, "2012-03-31T09:00:00Z"),
    (Pacific::Apia, "2012-09-29T09:00:00Z"),
    (Pacific::Apia, "2011-12-30T06:00:00Z"),
    (Asia::Kolkata, "2026-11-20T18:00:00Z"),
    (Tz::UTC, "2027-02-28T20:00:00Z"),
];
const WATCHED: i64 = 9 * 3600;

fn field(min: u32, max: u32) -> impl Strategy<Value = Values> {
    prop_oneof![
        2 => Just(Values::any(min, max)),
        4 => btree_set(min..=max, 1..4).prop_map(Values::list),
        2 => (min..=max, min..=max, 1u32..9).prop_map(|(a, b, step)| Values::range(a.min(b), a.max(b), step)),
        2 => (1..=max).prop_map(move |step| Values::every(min, max, step)),
    ]
}

fn hours() -> impl Strategy<Value = Values> {
    // Where the clocks change, most of the time.
    prop_oneof![3 => btree_set(prop::sample::select(vec![0, 1, 2, 3, 23]), 1..4).prop_map(Values::list), 2 => field(0, 23)]
}

fn patterns() -> impl Strategy<Value = Pattern> {
    let zero = Values::list(BTreeSet::from([0]));
    let second = prop_oneof![4 => Just(zero), 1 => field(0, 59)];
    let day = prop_oneof![3 => Just(Values::any(1, 31)), 1 => field(1, 31)];
    let weekday = prop_oneof![3 => Just(Values::any(0, 6)), 1 => btree_set(0u32..7, 1..6).prop_map(Values::list)];
    (second, field(0, 59), hours(), day, weekday).prop_map(|(second, minute, hour, day, weekday)| Pattern {
        second,
        minute,
        hour,
        day,
        weekday,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn next_and_latest_agree_with_a_watched_clock(
        pattern in patterns(),
        (zone, from) in prop::sample::select(CHANGES),
        moments in prop::collection::vec(0..WATCHED * 1000, 24),
    ) {
        let from: DateTime<Utc> = from.parse().unwrap();
        let fired = pattern.watch(zone, from, WATCHED);
        let schedule = Schedule::parse(&pattern.text(), zone).unwrap();
        let at_instants = fired.iter().take(24).flat_map(|&at| [-1, 0, 1].map(|s| at + TimeDelta::seconds(s)));
        let anywhere = moments.iter().map(|&ms| from + TimeDelta::milliseconds(ms));
        for moment in at_instants.chain(anywhere).filter(|&moment| moment >= from) {
            let later = fired.iter().find(|&&at| at > moment);
            let next = schedule.next(moment).filter(|&at| at < from + TimeDelta::seconds(WATCHED));
            prop_assert_eq!(next.as_ref(), later, "next after {} of `{}` in {}", moment, pattern.text(), zone);
            let earlier = fired.iter().rfind(|&&at| at <= moment);
            let latest = schedule.latest(moment).filter(|&at| at >= from);
            prop_assert_eq!(latest.as_ref(), earlier, "latest at {} of `{}` in {}", moment, pattern.text(), zone);
        }
    }

    #[test]
    fn next_is_after_and_latest_is_not(
        pattern in patterns(),
        (zone, from) in prop::sample::select(CHANGES),
        offset in -400 * 86_400_000..400 * 86_400_000i64,
    ) {
        let moment = from.parse::<DateTime<Utc>>().unwrap() + TimeDelta::milliseconds(offset);
        let schedule = Schedule::parse(&pattern.text(), zone).unwrap();
        let (latest, next) = (schedule.latest(moment).unwrap(), schedule.next(moment).unwrap());
        prop_assert!(latest <= moment && moment < next);
        prop_assert_eq!(schedule.next(latest), Some(next), "nothing lies between");
        prop_assert_eq!(schedule.latest(next - TimeDelta::milliseconds(1)), Some(latest));
        prop_assert_eq!(schedule.latest(next), Some(next));
    }
}

#[test]
fn the_watched_clock_sees_a_whole_day_vanish() {
    let hourly = Schedule::parse("0 * * * *", Pacific::Apia).unwrap();
    let before: DateTime<Utc> = "2011-12-30T09:30:00Z".parse().unwrap();
    assert_eq!(hourly.next(before).unwrap().to_rfc3339(), "2011-12-30T10:00:00+00:00");
    let daily = Schedule::parse("30 4 * * *", Pacific::Apia).unwrap();
    assert_eq!(
        daily.next(before).unwrap().to_rfc3339(),
        "2011-12-30T10:00:00+00:00",
        "the 30th fires at the gap's end"
    );
}
