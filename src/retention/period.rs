//! Grandfather, father, son: of each hour, day, week, month, quarter and year the newest good backup.
//!
//! A period without a backup takes no place in the count, so a database that was not backed up for a month loses nothing
//! by it. Where the count is not used up, the oldest backup stays too: a count of years means all history until there
//! are so many. `restic forget` counts the same way since its version 0.16. Each rule counts for itself; `borg prune` hands to the coarser rule
//! only what the finer one left.
//!
//! The periods are those of the daemon's time zone. A newcomer would divide seconds by 86,400: a day of 23 or 25 hours
//! then gives its last backups to the wrong one. Or would number weeks within the year: the first days of January often
//! belong to the last week of the year before.

use chrono::{DateTime, Datelike, Offset, Timelike};
use chrono_tz::Tz;

use super::chain::Chain;
use crate::policy::Retention;

/// A rule that counts periods.
pub(super) struct Period {
    /// The word in its sentences.
    word: &'static str,
    /// How many the policy wants.
    count: fn(&Retention) -> Option<u32>,
    /// What is the same for all moments of one period, and for no other.
    of: fn(&DateTime<Tz>) -> [i32; 4],
}

/// All of them, the finest first.
pub(super) const PERIODS: [Period; 6] = [
    Period { word: "hourly", count: |rules| rules.hourly, of: hour },
    Period { word: "daily", count: |rules| rules.daily, of: |at| [at.year(), at.ordinal().cast_signed(), 0, 0] },
    Period { word: "weekly", count: |rules| rules.weekly, of: week },
    Period { word: "monthly", count: |rules| rules.monthly, of: |at| [at.year(), at.month().cast_signed(), 0, 0] },
    Period {
        word: "quarterly",
        count: |rules| rules.quarterly,
        of: |at| [at.year(), at.month0().cast_signed() / 3, 0, 0],
    },
    Period { word: "yearly", count: |rules| rules.yearly, of: |at| [at.year(), 0, 0, 0] },
];

/// The hour that comes twice in autumn is two hours.
fn hour(at: &DateTime<Tz>) -> [i32; 4] {
    [at.year(), at.ordinal().cast_signed(), at.hour().cast_signed(), at.offset().fix().local_minus_utc()]
}

/// ISO 8601: from Monday to Sunday, in the year that has its Thursday.
fn week(at: &DateTime<Tz>) -> [i32; 4] {
    let week = at.iso_week();
    [week.year(), week.week().cast_signed(), 0, 0]
}

/// Adds what the rules of periods keep.
pub(super) fn keep(chain: &Chain, rules: &Retention, zone: Tz, kept: &mut [Vec<String>]) {
    if PERIODS.iter().all(|period| (period.count)(rules).is_none()) {
        return;
    }
    let local = |place: usize| (place, chain.backups[place].stopped_at.with_timezone(&zone));
    let counted: Vec<(usize, DateTime<Tz>)> = chain.counted().map(local).collect();
    for period in &PERIODS {
        period.keep(&counted, rules, kept);
    }
}

impl Period {
    /// Adds what the rule keeps of those that count, newest first.
    fn keep(&self, counted: &[(usize, DateTime<Tz>)], rules: &Retention, kept: &mut [Vec<String>]) {
        let Some(limit) = (self.count)(rules) else { return };
        let (mut n, mut last, mut oldest) = (0, None, None);
        for &(place, ref at) in counted {
            if n == limit {
                return;
            }
            let period = (self.of)(at);
            if last != Some(period) {
                (n, last) = (n + 1, Some(period));
                kept[place].push(format!("kept: {} {n} of {limit}", self.word));
                oldest = None;
            } else {
                oldest = Some(place);
            }
        }
        if let Some(oldest) = oldest.filter(|_| n < limit) {
            kept[oldest].push(format!("kept: the oldest, while {} has {n} of {limit}", self.word));
        }
    }

    /// The rule in short, where the policy has it: `hourly 24`.
    pub(super) fn told(&self, rules: &Retention) -> Option<String> {
        (self.count)(rules).map(|limit| format!("{} {limit}", self.word))
    }
}

#[cfg(test)]
mod tests;
