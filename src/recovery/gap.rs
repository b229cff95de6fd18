//! Holes in the archive, and since when each is there.
//!
//! Segments may arrive out of order, so a fresh hole is only news when it stays. A newcomer would compare holes for
//! equality; while segments trickle in a hole shrinks and splits, and is still the same one.

use std::{fmt, str::FromStr, time::Duration};

use chrono::{DateTime, Utc};

use super::wal::{BadWal, Segment, SegmentSize};
use crate::clock;

/// Segments that are missing in the middle of the archive, written `FIRST..LAST`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Gap {
    /// The first missing segment.
    pub first: Segment,
    /// The last missing segment.
    pub last: Segment,
}

impl Gap {
    /// How many segments are missing.
    pub fn count(self, size: SegmentSize) -> u64 {
        (self.last.number(size) + 1).saturating_sub(self.first.number(size))
    }

    /// Whether both tell of a segment in common.
    pub fn overlaps(self, other: Gap) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.first, self.last)
    }
}

impl FromStr for Gap {
    type Err = BadWal;

    fn from_str(text: &str) -> Result<Self, BadWal> {
        let (first, last) = text.split_once("..").ok_or_else(|| BadWal::new(text, "range of WAL segments"))?;
        Ok(Self { first: first.parse()?, last: last.parse()? })
    }
}

/// Since when a gap is known: the oldest of the checks, going back from now, that all saw it.
///
/// `earlier` holds what earlier checks saw, the newest first.
pub fn first_seen(gap: Gap, earlier: &[(DateTime<Utc>, Vec<Gap>)], now: DateTime<Utc>) -> DateTime<Utc> {
    let saw_it = earlier.iter().take_while(|(_, gaps)| gaps.iter().any(|seen| seen.overlaps(gap)));
    saw_it.last().map_or(now, |(at, _)| *at)
}

/// The gaps that have stayed for `grace`; the others may still close by themselves.
pub fn persistent(
    gaps: &[Gap],
    earlier: &[(DateTime<Utc>, Vec<Gap>)],
    now: DateTime<Utc>,
    grace: Duration,
) -> Vec<Gap> {
    let stays = |gap: &&Gap| clock::age(now, first_seen(**gap, earlier, now)) >= grace;
    gaps.iter().filter(stays).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(first: u64, last: u64) -> Gap {
        let at = |number| Segment::at(1, number, SegmentSize::DEFAULT);
        Gap { first: at(first), last: at(last) }
    }

    fn minute(minute: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(minute * 60, 0).unwrap()
    }

    #[test]
    fn a_gap_reads_back_as_itself() {
        let text = "000000010000000000000005..000000010000000000000007";
        assert_eq!(text.parse::<Gap>().unwrap().to_string(), text);
        assert_eq!(gap(5, 7).count(SegmentSize::DEFAULT), 3);
        assert!("5..7".parse::<Gap>().is_err() && "".parse::<Gap>().is_err());
    }

    #[test]
    fn a_gap_that_shrinks_keeps_its_age_and_one_that_moved_is_new() {
        let earlier = [(minute(8), vec![gap(5, 9)]), (minute(4), vec![gap(5, 12), gap(20, 21)]), (minute(0), vec![])];
        assert_eq!(first_seen(gap(7, 7), &earlier, minute(9)), minute(4));
        assert_eq!(first_seen(gap(20, 20), &earlier, minute(9)), minute(9), "one check did not see it");
        assert_eq!(first_seen(gap(30, 30), &earlier, minute(9)), minute(9));
    }

    #[test]
    fn only_a_gap_that_stays_is_news() {
        let earlier = [(minute(8), vec![gap(5, 9)]), (minute(4), vec![gap(5, 9)])];
        let persistent = persistent(&[gap(5, 9), gap(30, 30)], &earlier, minute(9), Duration::from_secs(300));
        assert_eq!(persistent, [gap(5, 9)]);
    }
}
