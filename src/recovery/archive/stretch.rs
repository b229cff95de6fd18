//! From single segments to runs, and from the runs of several timelines to one line.

use super::{Run, Segment, SegmentSize};
use crate::recovery::lineage::Lineage;

/// Running numbers without a hole along the line of descent, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) first: u64,
    pub(super) last: u64,
}

/// The contiguous runs of sorted segments.
pub(super) fn runs_of(segments: &[Segment], size: SegmentSize) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for segment in segments {
        match runs.last_mut() {
            Some(run) if run.last.next(size) == *segment => run.last = *segment,
            _ => runs.push(Run { first: *segment, last: *segment }),
        }
    }
    runs
}

/// Joins the runs that the line of descent owns; what a timeline wrote after it was left is cut off.
pub(super) fn join(runs: &[Run], lineage: &Lineage, size: SegmentSize) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    for (timeline, begin, end) in lineage.legs() {
        for run in runs.iter().filter(|run| run.first.timeline() == timeline) {
            let first = run.first.number(size).max(begin);
            let last = run.last.number(size).min(end.saturating_sub(1));
            match stretches.last_mut() {
                _ if first > last || begin == end => {}
                Some(stretch) if stretch.last + 1 == first => stretch.last = last,
                _ => stretches.push(Stretch { first, last }),
            }
        }
    }
    stretches
}

/// What is missing between stretches, as first and last number.
pub(super) fn gaps_between(stretches: &[Stretch]) -> impl Iterator<Item = (u64, u64)> {
    stretches.windows(2).map(|pair| (pair[0].last + 1, pair[1].first - 1))
}
