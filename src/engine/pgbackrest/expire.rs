//! What `expire` removed or, with `--dry-run`, would remove.
//!
//! Our plan is carried out only when the dry run says the same. A newcomer would read "expire … backup set", which
//! names what was asked for; "remove expired backup" and "remove archive" name what goes.

use std::collections::BTreeSet;

use super::log;
use crate::recovery::Segment;

/// What an `expire` removed or would remove.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expiry {
    /// Labels of the backups.
    pub backups: BTreeSet<String>,
    /// Ranges of WAL segments.
    pub wal: Vec<WalRange>,
    /// Directories of whole archives of former clusters.
    pub archives: Vec<String>,
    /// Labels that were asked for and do not exist.
    pub unknown: Vec<String>,
    /// What the tool says that it keeps for a backup.
    pub spared: Vec<WalNeed>,
}

/// WAL segments that go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalRange {
    /// The archive, e.g. `15-1`.
    pub archive_id: String,
    /// The first segment; where whole directories go, pgBackRest names only the last of them here.
    pub first: Segment,
    /// The last segment.
    pub last: Segment,
}

/// WAL segments that belong together in an archive, and whom they are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalNeed {
    /// The archive, e.g. `15-1`.
    pub archive_id: String,
    /// The backup that needs them.
    pub label: String,
    /// The first segment.
    pub first: Segment,
    /// The last segment; none: everything after the first as well.
    pub last: Option<Segment>,
}

impl WalNeed {
    fn holds(&self, segment: Segment) -> bool {
        self.first <= segment && self.last.is_none_or(|last| segment <= last)
    }

    /// Whether all of another lies in it.
    fn covers(&self, other: &WalNeed) -> bool {
        let reaches = self.last.is_none_or(|last| other.last.is_some_and(|other| other <= last));
        self.archive_id == other.archive_id && self.first <= other.first && reaches
    }

    /// In words: `WAL of 15-1 at or after 00000001…`.
    fn told(&self) -> String {
        let (id, first) = (&self.archive_id, self.first);
        match self.last {
            None => format!("WAL of {id} at or after {first}"),
            Some(last) => format!("WAL of {id} in {first}..{last} of backup {}", self.label),
        }
    }
}

impl Expiry {
    /// Reads the output of `expire`, dry or not.
    pub fn of<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let mut expiry = Self::default();
        lines.into_iter().filter_map(log::line).for_each(|line| expiry.note(line.text));
        expiry
    }

    /// The WAL that goes, in words: ranges, and whole archives of former clusters.
    pub fn wal_words(&self) -> Vec<String> {
        let ranges = self.wal.iter().map(|range| format!("{}..{}", range.first, range.last));
        ranges.chain(self.archives.iter().map(|path| format!("the whole archive {path}"))).collect()
    }

    /// What would go although the backups that are left need it.
    pub fn harm(&self, needs: &[WalNeed]) -> Option<String> {
        let is_needed =
            |path: &&String| path.rsplit('/').next().is_some_and(|id| needs.iter().any(|need| need.archive_id == id));
        let archive = self.archives.iter().find(is_needed).map(|path| format!("the whole archive {path}"));
        archive.or_else(|| needs.iter().find(|need| self.hurts(need)).map(WalNeed::told))
    }

    /// Whether something of it goes. What goes is told by its ends, and whole directories are not all named, so the
    /// tool must also have said that it keeps it. Then a range that spans it goes around a hole that is there already.
    fn hurts(&self, need: &WalNeed) -> bool {
        let mut going = self.wal.iter().filter(|range| range.archive_id == need.archive_id).peekable();
        let is_spared = going.peek().is_none() || self.spared.iter().any(|spared| spared.covers(need));
        !is_spared || going.any(|range| need.holds(range.first) || need.holds(range.last))
    }

    /// Which of the backups that are to be kept would go.
    ///
    /// A plain `expire` also removes what interrupted backups left behind, under labels that `info` never listed; so
    /// not every backup that goes is one that was wanted.
    pub fn kept_that_go<'a>(&self, kept: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
        kept.into_iter().filter(|label| self.backups.contains(*label)).collect()
    }

    fn note(&mut self, text: &str) {
        let missing = text.strip_prefix("backup ").and_then(|rest| rest.strip_suffix(" does not exist"));
        if let Some(label) = missing {
            self.unknown.push(label.to_owned());
            return;
        }
        // `repo1: ` stands before everything that goes.
        let Some((_, text)) = text.split_once(": ").filter(|(repo, _)| repo.starts_with("repo")) else { return };
        if let Some(label) = text.strip_prefix("remove expired backup ") {
            self.backups.insert(label.to_owned());
        } else if let Some(path) = text.strip_prefix("remove archive path ") {
            self.archives.push(path.to_owned());
        } else if let Some(range) = wal_range(text) {
            self.wal.push(range);
        } else if let Some(spared) = spared(text) {
            self.spared.push(spared);
        }
    }
}

/// Reads `15-1 remove archive, start = A, stop = B`.
fn wal_range(text: &str) -> Option<WalRange> {
    let (archive_id, range) = text.split_once(" remove archive, start = ")?;
    let (first, last) = range.split_once(", stop = ")?;
    // A directory that goes as a whole is named by its 16 digits.
    let named = |name: &str, rest: &str| if name.len() == 16 { format!("{name}{rest}") } else { name.to_owned() };
    let (first, last) = (named(first, "00000000").parse().ok()?, named(last, "FFFFFFFF").parse().ok()?);
    Some(WalRange { archive_id: archive_id.to_owned(), first, last })
}

/// Reads `15-1 archive retention on backup LABEL, start = A`, with `, stop = B` where not all after it stays.
fn spared(text: &str) -> Option<WalNeed> {
    let (archive_id, rest) = text.split_once(" archive retention on backup ")?;
    let (label, range) = rest.split_once(", start = ")?;
    let (first, last) = match range.split_once(", stop = ") {
        Some((first, last)) => (first, Some(last.parse().ok()?)),
        None => (range, None),
    };
    Some(WalNeed { archive_id: archive_id.to_owned(), label: label.to_owned(), first: first.parse().ok()?, last })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // Written by 2.45, for `expire --set` of a full and for `expire` with explicit archive retention.
    const SET: &str = "\
2026-11-20 16:39:11.128 P00   INFO: [DRY-RUN] repo1: expire adhoc backup set 20261120-163654F, 20261120-163654F_20261120-163701D, 20261120-163654F_20261120-163707I
2026-11-20 16:39:11.128 P00   INFO: [DRY-RUN] repo1: remove expired backup 20261120-163654F_20261120-163707I
2026-11-20 16:39:11.128 P00   INFO: [DRY-RUN] repo1: remove expired backup 20261120-163654F_20261120-163701D
2026-11-20 16:39:11.128 P00   INFO: [DRY-RUN] repo1: remove expired backup 20261120-163654F
2026-11-20 16:39:11.128 P00   INFO: [DRY-RUN] expire command end: completed successfully (2ms)";
    const WAL: &str = "\
2026-11-20 16:39:11.251 P00 DETAIL: repo1: 15-1 archive retention on backup 20261120-163712F, start = 00000001000000000000000D
2026-11-20 16:39:11.253 P00   INFO: repo1: 15-1 remove archive, start = 000000010000000000000001, stop = 00000001000000000000000C
2026-11-20 16:39:11.251 P00 DETAIL: repo1: 14-1 archive retention on backup 20260101-163712F, start = 000000010000000400000001
2026-11-20 16:39:11.253 P00   INFO: repo1: 14-1 remove archive, start = 0000000100000003, stop = 0000000100000003
2026-11-20 16:39:11.253 P00   INFO: repo1: remove archive path /srv/lab/repo1/archive/main/13-1";

    #[test]
    fn a_dry_run_tells_every_backup_that_would_go() {
        let expiry = Expiry::of(SET.lines());
        let labels = ["20261120-163654F", "20261120-163654F_20261120-163701D", "20261120-163654F_20261120-163707I"];
        assert_eq!(expiry.backups, labels.map(str::to_owned).into());
        assert_eq!((expiry.wal.len(), expiry.unknown.len()), (0, 0));
        assert_eq!(expiry.kept_that_go(["20261120-163654F", "20261120-163712F"]), ["20261120-163654F"]);
    }

    #[test]
    fn ranges_of_wal_are_told_and_a_whole_directory_is_all_its_segments() {
        let expiry = Expiry::of(WAL.lines());
        let ranges: Vec<_> = expiry.wal.iter().map(|r| format!("{} {}..{}", r.archive_id, r.first, r.last)).collect();
        assert_eq!(
            ranges,
            [
                "15-1 000000010000000000000001..00000001000000000000000C",
                "14-1 000000010000000300000000..0000000100000003FFFFFFFF"
            ]
        );
        assert_eq!(expiry.archives, ["/srv/lab/repo1/archive/main/13-1"]);
        assert!(expiry.backups.is_empty());
    }

    fn need(archive_id: &str, first: &str, last: Option<&str>) -> WalNeed {
        let segment = |name: &str| name.parse().unwrap();
        let (archive_id, label) = (archive_id.to_owned(), "20261120-000000F".to_owned());
        WalNeed { archive_id, label, first: segment(first), last: last.map(segment) }
    }

    #[test]
    fn wal_of_any_cluster_that_is_still_needed_is_harm() {
        let expiry = Expiry::of(WAL.lines());
        let harm = |id: &str, first: &str| expiry.harm(&[need(id, first, None)]);
        assert_eq!(harm("15-1", "00000001000000000000000D"), None);
        assert!(harm("15-1", "00000001000000000000000C").is_some());
        assert_eq!(harm("15-2", "000000010000000000000001"), None, "nothing of it goes");
        let old = harm("14-1", "000000010000000300000009");
        assert_eq!(old.as_deref(), Some("WAL of 14-1 at or after 000000010000000300000009"));
        let whole = harm("13-1", "000000010000000000000001");
        assert_eq!(whole.as_deref(), Some("the whole archive /srv/lab/repo1/archive/main/13-1"));
    }

    /// As 2.45 says it of two backups, of which the newer keeps all that follows.
    const ISLANDS: &str = "\
2026-11-21 17:15:08.324 P00 DETAIL: [DRY-RUN] repo1: 15-1 archive retention on backup 20261121-171437F, start = 000000010000000000000005, stop = 000000010000000000000006
2026-11-21 17:15:08.324 P00 DETAIL: [DRY-RUN] repo1: 15-1 archive retention on backup 20261121-171455F, start = 000000010000000000000011
2026-11-21 17:15:08.325 P00   INFO: [DRY-RUN] repo1: 15-1 remove archive, start = 000000010000000000000001, stop = 000000010000000000000004
2026-11-21 17:15:08.325 P00   INFO: [DRY-RUN] repo1: 15-1 remove archive, start = 000000010000000000000007, stop = 000000010000000000000010";

    #[test]
    fn an_older_backup_keeps_its_own_wal_between_holes() {
        let expiry = Expiry::of(ISLANDS.lines());
        let harm = |first: &str, last: Option<&str>| {
            let name = |digits: &str| format!("0000000100000000000000{digits}");
            expiry.harm(&[need("15-1", &name(first), last.map(name).as_deref())])
        };
        assert_eq!((harm("05", Some("06")), harm("11", None)), (None, None));
        assert_eq!(
            harm("05", Some("07")).as_deref(),
            Some("WAL of 15-1 in 000000010000000000000005..000000010000000000000007 of backup 20261120-000000F")
        );
        assert!(harm("04", Some("05")).is_some() && harm("10", None).is_some());
        assert!(harm("08", Some("09")).is_some(), "between the ends of what goes");
        assert!(harm("05", None).is_some(), "there is more after it");
        let untold = Expiry { spared: Vec::new(), ..Expiry::of(ISLANDS.lines()) };
        assert!(untold.harm(&[need("15-1", "000000010000000000000005", Some("000000010000000000000006"))]).is_some());
    }

    /// What 2.45 says when it keeps `spared` of an archive with these segments, as its source does it.
    fn as_the_tool(segments: &BTreeSet<u64>, spared: &[(u64, Option<u64>)]) -> String {
        let name = |number: u64| Segment::at(1, number, crate::recovery::SegmentSize::DEFAULT);
        let head = "2026-11-21 17:15:08.324 P00   INFO: repo1: 15-1";
        let mut text = String::new();
        for (first, last) in spared {
            let stop = last.map_or_else(String::new, |last| format!(", stop = {}", name(last)));
            text += &format!("{head} archive retention on backup 20261121-171437F, start = {}{stop}\n", name(*first));
        }
        let mut open: Option<(u64, u64)> = None;
        let mut tell = |open: &mut Option<(u64, u64)>| {
            if let Some((first, last)) = open.take() {
                text += &format!("{head} remove archive, start = {}, stop = {}\n", name(first), name(last));
            }
        };
        for number in segments {
            if spared.iter().any(|(first, last)| first <= number && last.is_none_or(|last| *number <= last)) {
                tell(&mut open);
            } else {
                open = Some((open.map_or(*number, |(first, _)| first), *number));
            }
        }
        tell(&mut open);
        text
    }

    proptest! {
        #[test]
        fn what_the_tool_keeps_is_unharmed_and_a_segment_less_is_noticed(
            gaps in prop::collection::vec((1..4u64, 0..4u64), 1..8), missing in prop::collection::btree_set(0..40u64, 0..6),
            short in any::<prop::sample::Index>(),
        ) {
            let mut next = 0;
            let mut needs: Vec<(u64, Option<u64>)> = gaps.iter().map(|(gap, length)| {
                let first = next + gap;
                next = first + length + 1;
                (first, Some(first + length))
            }).collect();
            needs.last_mut().unwrap().1 = None;
            let segments: BTreeSet<u64> = (0..next + 5).filter(|number| !missing.contains(number)).collect();
            let name = |number: u64| Segment::at(1, number, crate::recovery::SegmentSize::DEFAULT).to_string();
            let wanted: Vec<WalNeed> =
                needs.iter().map(|(first, last)| need("15-1", &name(*first), last.map(name).as_deref())).collect();
            prop_assert_eq!(Expiry::of(as_the_tool(&segments, &needs).lines()).harm(&wanted), None);
            // One backup keeps a segment less at its beginning, so that it goes.
            let place = short.index(needs.len());
            let first = needs[place].0;
            needs[place].0 += 1;
            let expiry = Expiry::of(as_the_tool(&segments, &needs).lines());
            prop_assert_eq!(expiry.harm(&wanted).is_some(), !expiry.wal.is_empty());
            prop_assert!(!segments.contains(&first) || !expiry.wal.is_empty());
        }
    }

    #[test]
    fn an_unknown_label_is_told_although_the_exit_code_is_zero() {
        let text = "2026-11-20 16:39:11.323 P00   WARN: backup 20200101-010101F does not exist";
        assert_eq!(Expiry::of([text]).unknown, ["20200101-010101F"]);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(text in "\\PC*") {
            let line = format!("2026-11-20 16:39:11.323 P00   INFO: repo1: {text}");
            let range = format!("2026-11-20 16:39:11.323 P00   INFO: repo1: x remove archive, start = {text}, stop = {text}");
            let _ = Expiry::of([&*text, &*line, &*range]);
        }
    }
}
