//! Timelines: what a `.history` file says, and the line of descent of the server's current timeline.
//!
//! A newcomer would join timelines by their numbers; a timeline may branch off anywhere, and what an ancestor wrote
//! after the branch is no part of the current history, however complete it looks in the archive.

use std::collections::BTreeMap;

use super::wal::{BadWal, Lsn, SegmentSize};

/// The content of `NNNNNNNN.history`: the ancestors of a timeline and where each was left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Each ancestor, the oldest first, with the position at which the next one branched off.
    pub switches: Vec<(u32, Lsn)>,
}

impl History {
    /// Reads a history file.
    ///
    /// # Errors
    /// When a line is neither empty, a comment, nor `TIMELINE LSN REASON`.
    pub fn parse(text: &str) -> Result<Self, BadWal> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let switches = lines.map(|line| switch(line).ok_or_else(|| BadWal::new(line, "line of a timeline history")));
        Ok(Self { switches: switches.collect::<Result<_, _>>()? })
    }
}

fn switch(line: &str) -> Option<(u32, Lsn)> {
    let mut fields = line.split_whitespace();
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// The line of descent of a timeline: which of them owns which segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lineage {
    /// Timeline and the number of the first segment that it owns, the oldest first.
    legs: Vec<(u32, u64)>,
    /// Whether the ancestors are known.
    pub(super) is_complete: bool,
}

impl Lineage {
    /// The line of `timeline`; without its history file nothing is known of its ancestors.
    pub(super) fn of(timeline: u32, histories: &BTreeMap<u32, History>, size: SegmentSize) -> Self {
        let mut legs = Vec::new();
        let mut begin = 0;
        let history = histories.get(&timeline);
        for (ancestor, left_at) in history.iter().flat_map(|history| &history.switches) {
            legs.push((*ancestor, begin));
            // The new timeline begins with a copy of the segment in which the old one was left.
            begin = begin.max(left_at.bytes() / size.bytes());
        }
        legs.push((timeline, begin));
        Self { legs, is_complete: history.is_some() || timeline == 1 }
    }

    /// The timeline that owns the segment with this number.
    pub(super) fn owner(&self, number: u64) -> u32 {
        let owner = self.legs.iter().rev().find(|(_, begin)| *begin <= number);
        owner.or(self.legs.first()).map_or(0, |(timeline, _)| *timeline)
    }

    /// Each timeline with the numbers of its own segments, the end excluded.
    pub(super) fn legs(&self) -> impl Iterator<Item = (u32, u64, u64)> {
        let ends = self.legs.iter().skip(1).map(|(_, begin)| *begin).chain([u64::MAX]);
        self.legs.iter().zip(ends).map(|((timeline, begin), end)| (*timeline, *begin, end))
    }

    /// Whether a timeline is one of the line, or may be because the line is not known.
    pub(super) fn may_include(&self, timeline: u32) -> bool {
        let last = self.legs.last().map_or(0, |(timeline, _)| *timeline);
        self.legs.iter().any(|(known, _)| *known == timeline) || (!self.is_complete && timeline < last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Written by PostgreSQL 15 after a recovery to a named restore point.
    const THIRD: &str = "1\t0/19000000\tno recovery target specified\n\n2\t0/1D0001A8\tat restore point \"p1\"\n";

    #[test]
    fn a_timeline_owns_the_segment_in_which_it_began() {
        let histories = BTreeMap::from([(3, History::parse(THIRD).unwrap())]);
        let lineage = Lineage::of(3, &histories, SegmentSize::DEFAULT);
        let owners: Vec<u32> = [0x18, 0x19, 0x1C, 0x1D, 0xFF].map(|number| lineage.owner(number)).to_vec();
        assert_eq!(owners, [1, 2, 2, 3, 3]);
        assert!(lineage.is_complete && !lineage.may_include(4));
    }

    #[test]
    fn without_a_history_file_the_ancestors_are_unknown_and_later_timelines_foreign() {
        let lineage = Lineage::of(3, &BTreeMap::new(), SegmentSize::DEFAULT);
        assert!(!lineage.is_complete && lineage.may_include(1) && !lineage.may_include(4));
        assert_eq!(lineage.owner(7), 3);
    }

    #[test]
    fn garbage_is_no_history() {
        assert!(History::parse("hello").is_err());
        assert!(History::parse("1\tnowhere\treason").is_err());
        assert_eq!(History::parse("# nothing\n\n").unwrap().switches, []);
    }
}
