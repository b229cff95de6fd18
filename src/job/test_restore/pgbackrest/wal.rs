//! Which WAL a test restore needs, whether the archive has it, and how it comes into the scratch directory.
//!
//! PostgreSQL takes any failure of `restore_command` for the end of the archive, and then starts as if all were well. So
//! every segment is named before, fetched before, and looked at before; one that does not come fails the restore. A
//! newcomer would let `restore_command` fetch from the repository; besides, that would need its secrets in the sandbox.

use std::{path::Path, time::Duration};

use tokio::task::JoinSet;

use super::{
    super::{
        Context, failure, of_restore,
        scratch::check_space,
        steps::{Checked, Result},
        stopped,
    },
    production::{Canary, Production},
};
use crate::{
    clock::Stopwatch,
    engine::pgbackrest::{PgBackRest, archive, exit},
    process::{self, Captured, Command, Stop},
    record::{Backup, ErrorClass, Failure},
    recovery::{self, History, Listing, Lsn, Segment, SegmentSize},
    sandbox::{Layout, Target},
};

/// Segments that are fetched at once, unless the policy sets `process_max`.
const AT_ONCE: u32 = 4;
/// The canary gets at least this long to be archived.
const SHORTEST_WAIT: Duration = Duration::from_secs(60);
/// The longest pause between two looks into the archive.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What will be fetched, and how far recovery must come with it.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Every segment, in order.
    pub(super) segments: Vec<Segment>,
    /// Timelines whose history files are needed.
    pub(super) histories: Vec<u32>,
    /// Where to stop.
    pub(super) target: Target,
    /// The least position that the copy must reach.
    pub(super) expected: Lsn,
    /// The mark, where production got one.
    pub(super) canary: Option<Canary>,
}

/// The archive of the cluster that a backup is of.
pub(super) struct Archive<'a> {
    context: &'a Context,
    tool: &'a PgBackRest,
    backup: &'a Backup,
    archive_id: Option<String>,
    timeline: Option<u32>,
    segment_size: SegmentSize,
}

impl<'a> Archive<'a> {
    /// The archive that belongs to a backup.
    pub(super) fn new(
        context: &'a Context,
        tool: &'a PgBackRest,
        backup: &'a Backup,
        archive_id: Option<String>,
        production: &Production,
    ) -> Self {
        let segment_size = production.segment_size.unwrap_or(SegmentSize::DEFAULT);
        Self { context, tool, backup, archive_id, timeline: production.timeline, segment_size }
    }

    /// Whether backup and WAL fit into the scratch directory and leave enough for everybody else.
    pub(super) async fn check_space(&self, layout: &Layout) -> Result<()> {
        let (_, archive) = self.look(self.segment_size).await?;
        let segments = archive.segments_from(self.backup).map_or(1, |segments| segments.len() as u64 + 1);
        let needed = self.backup.size + segments * self.segment_size.bytes();
        check_space(layout, needed)
    }

    /// Waits until a segment has arrived.
    pub(super) async fn wait_for(&self, segment: Segment) -> std::result::Result<(), Failure> {
        let limit = self.context.database().wal.max_lag.max(SHORTEST_WAIT);
        let watch = Stopwatch::start();
        let mut pause = Duration::from_millis(250);
        while !self.list().await?.contains(segment) {
            if watch.elapsed() > limit {
                let message =
                    format!("the canary's segment {segment} was not archived within {}", crate::human::took(limit));
                return Err(failure(ErrorClass::Integrity, message, "Look at `archive_command` and PostgreSQL's log."));
            }
            self.pause(pause).await?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Ok(())
    }

    async fn pause(&self, length: Duration) -> std::result::Result<(), Failure> {
        tokio::select! {
            () = tokio::time::sleep(length) => Ok(()),
            () = self.context.stop.stopped() => Err(stopped()),
        }
    }

    /// Names every segment from the backup's start to the canary, or to the end of the archive.
    pub(super) async fn plan(&self, canary: Option<Canary>, segment_size: u64) -> Result<Plan> {
        let size = SegmentSize::new(segment_size).unwrap_or(self.segment_size);
        let (listing, archive) = self.look_until_whole(canary.is_some(), size).await?;
        let found = archive.segments_from(self.backup).unwrap_or_default();
        let plan = plan(found, canary, &listing, size).map_err(|missing| self.incomplete(&missing))?;
        let (first, last) = (plan.segments.first(), plan.segments.last());
        let ends = first.zip(last).map_or_else(String::new, |(first, last)| format!(": {first} to {last}"));
        let detail = format!("{} segments{ends}", plan.segments.len());
        Ok(Checked::passed(plan, detail))
    }

    /// Without a canary only the archive itself tells where the present is: a hole before its end is a loss, unless it
    /// closes because segments arrived out of order.
    async fn look_until_whole(
        &self,
        has_canary: bool,
        size: SegmentSize,
    ) -> std::result::Result<(Listing, recovery::Archive), Failure> {
        let grace = self.context.database().wal.gap_grace;
        let watch = Stopwatch::start();
        loop {
            let (listing, archive) = self.look(size).await?;
            let hole = archive.holes.iter().find(|hole| !hole.is_bridged).filter(|_| !has_canary);
            let Some(hole) = hole else { return Ok((listing, archive)) };
            if watch.elapsed() > grace {
                return Err(self.incomplete(&format!("WAL {} is missing, and more follows it", hole.gap)));
            }
            self.pause(LONGEST_PAUSE.min(grace)).await?;
        }
    }

    /// Fetches all of it.
    pub(super) async fn fetch(&self, plan: &Plan, layout: &Layout, segment_size: u64) -> Result<()> {
        let (repo, work, data) = (self.backup.repo, layout.work(), layout.data());
        let mut wanted = Vec::new();
        for timeline in &plan.histories {
            let target = layout.wal().join(format!("{timeline:08X}.history"));
            wanted.push((self.tool.archive_get_history(repo, &work, *timeline, &target, &data), target, None));
        }
        for segment in &plan.segments {
            let target = layout.wal().join(segment.to_string());
            wanted.push((self.tool.archive_get(repo, &work, *segment, &target, &data), target, Some(segment_size)));
        }
        let at_once = self.context.database().pgbackrest.process_max.unwrap_or(AT_ONCE).clamp(1, 16);
        let mut fetching = JoinSet::new();
        for (command, target, length) in wanted {
            if fetching.len() >= at_once as usize {
                settled(fetching.join_next().await)?;
            }
            let stop = self.context.stop.clone();
            fetching.spawn(async move { fetch_one(&command, &target, length, &stop).await });
        }
        while let Some(fetched) = fetching.join_next().await {
            settled(Some(fetched))?;
        }
        let bytes = plan.segments.len() as u64 * segment_size;
        Ok(Checked::passed((), format!("{} segments, {} MiB", plan.segments.len(), bytes >> 20)))
    }

    async fn look(&self, size: SegmentSize) -> std::result::Result<(Listing, recovery::Archive), Failure> {
        let mut listing = self.list().await?;
        let timeline = self.timeline.or_else(|| listing.newest_timeline());
        if let Some(timeline) = timeline.filter(|timeline| listing.history_files.contains(timeline)) {
            let history = self.ask(&self.tool.get_history(self.backup.repo, self.id()?, timeline)).await?;
            let history = History::parse(&String::from_utf8_lossy(&history.stdout)).map_err(|error| {
                let message = format!("the history of timeline {timeline} cannot be read: {error}");
                failure(ErrorClass::Integrity, message, "Look at the file in the repository; make a new full backup.")
            })?;
            listing.histories.insert(timeline, history);
        }
        let archive = recovery::analyse(&listing, std::slice::from_ref(self.backup), size, timeline, &[]);
        Ok((listing, archive))
    }

    async fn list(&self) -> std::result::Result<Listing, Failure> {
        let id = Some(self.id()?);
        let captured = self.ask(&self.tool.list_archive(self.backup.repo, id)).await?;
        let listings = archive::listings(&captured.stdout, id)?;
        Ok(listings.into_iter().next().unwrap_or_default())
    }

    async fn ask(&self, command: &Command) -> std::result::Result<Captured, Failure> {
        let captured = process::capture(command, &self.context.stop).await?;
        if captured.ok() { Ok(captured) } else { Err(explained("the archive cannot be read", &captured)) }
    }

    fn id(&self) -> std::result::Result<&str, Failure> {
        self.archive_id.as_deref().ok_or_else(|| {
            let message = format!("repository {} has no archive of this cluster", self.backup.repo);
            failure(ErrorClass::Integrity, message, "Look at `archive_command`, then make a new full backup.")
        })
    }

    fn incomplete(&self, missing: &str) -> Failure {
        let message = format!("the archive does not lead from backup {} to the present: {missing}", self.backup.label);
        failure(ErrorClass::Integrity, message, "Make a new full backup now; then look for why WAL is missing.")
    }
}

/// Puts the plan together from the segments that hang together; the error says what is missing.
fn plan(
    mut segments: Vec<Segment>,
    canary: Option<Canary>,
    listing: &Listing,
    size: SegmentSize,
) -> std::result::Result<Plan, String> {
    let last = *segments.last().ok_or("its own WAL is not complete, or not on production's timeline")?;
    let mut target = Target { timeline: last.timeline(), restore_point: None };
    let mut expected = last.start(size);
    if let Some(canary) = &canary {
        let wanted = canary.segment.number(size);
        if last.number(size) < wanted {
            return Err(format!("WAL after {last} is missing"));
        }
        segments.retain(|segment| segment.number(size) <= wanted);
        target = Target { timeline: canary.segment.timeline(), restore_point: Some(canary.name.clone()) };
        expected = canary.lsn;
    }
    let histories = listing.history_files.iter().copied().filter(|timeline| *timeline <= target.timeline).collect();
    Ok(Plan { segments, histories, target, expected, canary })
}

async fn fetch_one(
    command: &Command,
    target: &Path,
    length: Option<u64>,
    stop: &Stop,
) -> std::result::Result<(), Failure> {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let captured = process::capture(command, stop).await?;
    match captured.ending {
        process::Ending::Exited(0) => {}
        process::Ending::Exited(1) => {
            let message = format!("the archive does not have {name}");
            return Err(failure(ErrorClass::Integrity, message, "Make a new full backup now; WAL was lost."));
        }
        _ => return Err(explained(&format!("{name} could not be fetched"), &captured)),
    }
    let found = target.metadata().map_or(0, |meta| meta.len());
    if length.is_some_and(|length| length != found) {
        let message = format!("{name} has {found} bytes");
        return Err(failure(ErrorClass::Integrity, message, "Make a new full backup now; look at the repository."));
    }
    Ok(())
}

type Fetched = std::result::Result<std::result::Result<(), Failure>, tokio::task::JoinError>;

fn settled(fetched: Option<Fetched>) -> std::result::Result<(), Failure> {
    match fetched {
        Some(Ok(result)) => result,
        Some(Err(panic)) => Err(failure(ErrorClass::Defect, panic.to_string(), "Report it.")),
        None => Ok(()),
    }
}

fn explained(step: &str, captured: &Captured) -> Failure {
    let stdout = String::from_utf8_lossy(&captured.stdout);
    of_restore(step, exit::explain(&captured.ending, stdout.lines().chain(captured.stderr.lines())))
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    const SIZE: SegmentSize = SegmentSize::DEFAULT;

    fn segments(timeline: u32, numbers: std::ops::RangeInclusive<u64>) -> Vec<Segment> {
        numbers.map(|number| Segment::at(timeline, number, SIZE)).collect()
    }

    fn canary(timeline: u32, number: u64) -> Canary {
        Canary {
            name: "backstop_0a1b2c3d_7".into(),
            lsn: Lsn::new(number * SIZE.bytes() + 0x98),
            segment: Segment::at(timeline, number, SIZE),
            at: DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn recovery_ends_at_the_canary_even_where_the_archive_goes_on() {
        let plan = plan(segments(1, 4..=9), Some(canary(1, 6)), &Listing::default(), SIZE).unwrap();
        assert_eq!(plan.segments, segments(1, 4..=6));
        assert_eq!(plan.expected.to_string(), "0/6000098");
        assert_eq!(plan.target.restore_point.as_deref(), Some("backstop_0a1b2c3d_7"));
    }

    #[test]
    fn without_a_canary_the_last_segment_must_be_begun() {
        let plan = plan(segments(1, 4..=9), None, &Listing::default(), SIZE).unwrap();
        assert_eq!((plan.segments.len(), plan.expected.to_string()), (6, "0/9000000".to_owned()));
        assert_eq!(plan.target, Target { timeline: 1, restore_point: None });
    }

    #[test]
    fn a_hole_before_the_canary_is_an_error_not_an_early_end() {
        let error = plan(segments(1, 4..=5), Some(canary(1, 7)), &Listing::default(), SIZE).unwrap_err();
        assert_eq!(error, "WAL after 000000010000000000000005 is missing");
        assert!(plan(Vec::new(), None, &Listing::default(), SIZE).is_err());
    }

    #[test]
    fn histories_up_to_the_target_are_fetched_and_a_later_foreign_one_is_not() {
        let listing = Listing { history_files: [2, 3, 4].into(), ..Listing::default() };
        let mut found = segments(1, 4..=5);
        found.extend(segments(3, 6..=7));
        let plan = plan(found, Some(canary(3, 7)), &listing, SIZE).unwrap();
        assert_eq!((plan.histories, plan.target.timeline), (vec![2, 3], 3));
    }
}
