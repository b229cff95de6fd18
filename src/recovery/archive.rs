//! A listing of the archive, the backups of it and what was sampled, put together.
//!
//! Only the current timeline's line of descent counts; whatever else lies in the archive is foreign. A newcomer would
//! judge a backup by the archive's smallest and largest name; only the runs between them tell what is there.

mod stretch;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};

use self::stretch::{Stretch, gaps_between, join, runs_of};
use super::{
    gap::Gap,
    lineage::{History, Lineage},
    wal::{Lsn, Segment, SegmentSize},
};
use crate::record::{Backup, BackupStatus, Window};

/// Bytes at the start of a segment in which no record can be: the long page header.
const HEADER: u64 = 40;

/// What lies in one archive of a repository: the WAL of one PostgreSQL cluster at one major version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The archive's name, e.g. `15-1`.
    pub archive_id: String,
    /// Complete segments, each once, in order.
    pub segments: Vec<Segment>,
    /// Segments of which there are several with different content.
    pub conflicts: Vec<Conflict>,
    /// Segments that a timeline left unfinished when another branched off.
    pub partials: Vec<Segment>,
    /// Timelines with a history file.
    pub history_files: BTreeSet<u32>,
    /// The content of the history files that were read.
    pub histories: BTreeMap<u32, History>,
}

impl Listing {
    /// Whether a segment is there.
    pub fn contains(&self, segment: Segment) -> bool {
        self.segments.binary_search(&segment).is_ok()
    }

    /// The newest timeline that left anything: the one that a default recovery would follow.
    pub fn newest_timeline(&self) -> Option<u32> {
        let segment = self.segments.last().map(|segment| segment.timeline());
        segment.max(self.history_files.last().copied())
    }
}

/// One segment with several contents: two servers archived into the same place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The segment.
    pub segment: Segment,
    /// The SHA-1 of each content.
    pub checksums: Vec<String>,
}

/// Segments of one timeline without a hole between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The first.
    pub first: Segment,
    /// The last.
    pub last: Segment,
}

/// A hole in the current timeline's archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// The missing segments.
    pub gap: Gap,
    /// A usable backup began after it, so that recovery to the present does not need what is missing.
    pub is_bridged: bool,
}

/// What the archive proves.
#[derive(Debug, Clone)]
pub struct Archive {
    /// What is contiguous, per timeline.
    pub runs: Vec<Run>,
    /// What is missing in the middle of the current timeline's line of descent.
    pub holes: Vec<Hole>,
    /// The last segment that can be reached from the newest usable backup; without one, from the newest run.
    pub contiguous_to: Option<Segment>,
    /// Stretches of time to any moment of which recovery is possible, the oldest first. One of no length is a backup
    /// that can be restored as it is, without a moment after it being proven.
    pub windows: Vec<Window>,
    /// The latest moment that is certain: everything committed before it comes back.
    pub recoverable_to: Option<DateTime<Utc>>,
    /// Labels of backups whose own WAL is not complete.
    pub unrestorable: Vec<String>,
    /// Timelines that are not in the current one's line of descent, the dangerous ones (newer) last.
    pub foreign_timelines: Vec<u32>,
    /// Segments with several contents.
    pub conflicts: Vec<Conflict>,
    /// Segments that a cluster of this segment size cannot have.
    pub unfit: Vec<Segment>,
    size: SegmentSize,
    lineage: Lineage,
    stretches: Vec<Stretch>,
}

/// Puts a listing together with the backups of that archive and the samples `(t, L)` of the server.
///
/// `timeline` is the server's; when it is not known, the newest in the archive, which a default recovery would follow.
/// Backups that are expired or lost are ignored; damaged ones are judged, but open no window.
pub fn analyse(
    listing: &Listing,
    backups: &[Backup],
    size: SegmentSize,
    timeline: Option<u32>,
    samples: &[(DateTime<Utc>, Lsn)],
) -> Archive {
    let (segments, unfit): (Vec<Segment>, Vec<Segment>) = listing.segments.iter().partition(|s| s.fits(size));
    let timeline = timeline.or(listing.newest_timeline()).unwrap_or(1);
    let lineage = Lineage::of(timeline, &listing.histories, size);
    let runs = runs_of(&segments, size);
    let stretches = join(&runs, &lineage, size);
    let mut archive = Archive {
        holes: Vec::new(),
        contiguous_to: None,
        windows: Vec::new(),
        recoverable_to: None,
        unrestorable: Vec::new(),
        foreign_timelines: foreign(listing, &lineage),
        conflicts: listing.conflicts.clone(),
        unfit,
        size,
        runs,
        lineage,
        stretches,
    };
    archive.judge(backups, samples);
    archive
}

fn foreign(listing: &Listing, lineage: &Lineage) -> Vec<u32> {
    let mut timelines: BTreeSet<u32> = listing.history_files.clone();
    timelines.extend(listing.segments.iter().chain(&listing.partials).map(|segment| segment.timeline()));
    timelines.into_iter().filter(|timeline| !lineage.may_include(*timeline)).collect()
}

impl Archive {
    fn judge(&mut self, backups: &[Backup], samples: &[(DateTime<Utc>, Lsn)]) {
        let present = backups.iter().filter(|b| !matches!(b.status, BackupStatus::Expired | BackupStatus::Lost));
        let present: Vec<&Backup> = present.collect();
        let unrestorable = present.iter().filter(|b| self.is_consistent(b) == Some(false));
        self.unrestorable = unrestorable.map(|b| b.label.clone()).collect();
        // Every commit before a backup's start lies below its stop, by the database host's clock.
        let own = present.iter().filter_map(|b| Some((b.started_at, b.lsn_stop.as_deref()?.parse().ok()?)));
        let samples: Vec<(DateTime<Utc>, Lsn)> = samples.iter().copied().chain(own).collect();
        let usable = usable(&present);
        for stretch in self.stretches.clone() {
            let within = usable.iter().filter(|b| self.stretch_of(b) == Some(stretch));
            let Some(oldest) = within.min_by_key(|b| b.stopped_at) else { continue };
            let proven = self.latest_within(stretch, &samples);
            self.recoverable_to = self.recoverable_to.max(proven);
            let to = proven.map_or(oldest.stopped_at, |proven| proven.max(oldest.stopped_at));
            self.windows.push(window(oldest, to));
        }
        let newest = self.newest(&usable);
        let reached = newest.and_then(|b| self.stretch_of(b)).or(self.stretches.last().copied());
        self.contiguous_to = reached.map(|stretch| self.segment(stretch.last));
        let bridge = newest.and_then(|b| self.span(b)).map(|(first, _)| first.number(self.size));
        self.holes = gaps_between(&self.stretches)
            .map(|(first, last)| Hole {
                gap: Gap { first: self.segment(first), last: self.segment(last) },
                is_bridged: bridge.is_some_and(|start| last < start),
            })
            .collect();
    }

    /// The backup that a recovery to the latest moment begins with.
    pub fn choose_backup<'b>(&self, backups: &'b [Backup]) -> Option<&'b Backup> {
        let present: Vec<&Backup> = backups.iter().collect();
        self.newest(&usable(&present))
    }

    /// The segments that a recovery from a backup to the latest moment replays, in order; none when the backup's own
    /// are not complete or not on the current timeline.
    pub fn segments_from(&self, backup: &Backup) -> Option<Vec<Segment>> {
        let stretch = self.stretch_of(backup)?;
        let (first, _) = self.span(backup)?;
        Some((first.number(self.size)..=stretch.last).map(|number| self.segment(number)).collect())
    }

    /// What is missing at the end, when PostgreSQL says that it archived up to `last_archived`.
    pub fn missing_after(&self, last_archived: Segment) -> Option<Gap> {
        let reached = self.stretches.last()?.last;
        let wanted = last_archived.number(self.size);
        let is_ours = self.lineage.owner(wanted) == last_archived.timeline();
        (is_ours && wanted > reached).then(|| Gap { first: self.segment(reached + 1), last: last_archived })
    }

    /// Whether everything between a backup's start and stop is there; none when it says nothing about WAL.
    pub fn is_consistent(&self, backup: &Backup) -> Option<bool> {
        if backup.wal_start.is_none() && backup.wal_stop.is_none() {
            return None;
        }
        let Some((first, last)) = self.span(backup) else { return Some(false) };
        let after = self.runs.partition_point(|run| run.first <= first);
        let run = after.checked_sub(1).map(|index| self.runs[index]);
        let is_whole = run.is_some_and(|run| run.first <= first && last <= run.last);
        Some(is_whole || self.stretch_of(backup).is_some())
    }

    /// The newest backup from which the current timeline can be followed.
    fn newest<'b>(&self, usable: &[&'b Backup]) -> Option<&'b Backup> {
        let reachable = usable.iter().copied().filter_map(|b| Some((self.stretch_of(b)?.last, b.stopped_at, b)));
        reachable.max_by_key(|(reach, stopped_at, _)| (*reach, *stopped_at)).map(|(_, _, backup)| backup)
    }

    /// The stretch that holds all of a backup's own WAL, on the current line of descent.
    fn stretch_of(&self, backup: &Backup) -> Option<Stretch> {
        let (first, last) = self.span(backup)?;
        let (from, to) = (first.number(self.size), last.number(self.size));
        let is_ours = self.lineage.owner(from) == first.timeline() && self.lineage.owner(to) == last.timeline();
        let after = self.stretches.partition_point(|stretch| stretch.first <= from);
        let stretch = *self.stretches.get(after.checked_sub(1)?)?;
        (is_ours && to <= stretch.last).then_some(stretch)
    }

    fn span(&self, backup: &Backup) -> Option<(Segment, Segment)> {
        let first: Segment = backup.wal_start.as_deref()?.parse().ok()?;
        let last: Segment = backup.wal_stop.as_deref()?.parse().ok()?;
        (first.fits(self.size) && last.fits(self.size) && first <= last).then_some((first, last))
    }

    fn latest_within(&self, stretch: Stretch, samples: &[(DateTime<Utc>, Lsn)]) -> Option<DateTime<Utc>> {
        // Just after a switch the server stands behind the header of a segment that holds nothing yet.
        let reach = self.segment(stretch.last).end(self.size).bytes().saturating_add(HEADER);
        samples.iter().filter(|(_, lsn)| lsn.bytes() <= reach).map(|(at, _)| *at).max()
    }

    fn segment(&self, number: u64) -> Segment {
        Segment::at(self.lineage.owner(number), number, self.size)
    }
}

/// The backups that recovery may begin with: undamaged, and so is all that they build on.
fn usable<'b>(backups: &[&'b Backup]) -> Vec<&'b Backup> {
    let sound = |b: &&Backup| matches!(b.status, BackupStatus::Good | BackupStatus::Unrestorable);
    let sound: HashMap<&str, &'b Backup> = backups.iter().filter(|b| sound(b)).map(|b| (&*b.label, *b)).collect();
    let mut usable: Vec<&Backup> = sound.values().copied().collect();
    usable.retain(|b| b.references.iter().chain(&b.prior).all(|label| sound.contains_key(&**label)));
    usable
}

fn window(from: &Backup, to: DateTime<Utc>) -> Window {
    Window { database: from.database.clone(), repo: from.repo, label: from.label.clone(), from: from.stopped_at, to }
}
