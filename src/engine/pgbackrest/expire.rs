//! What `expire` removed or, with `--dry-run`, would remove.
//!
//! Our plan is carried out only when the dry run says the same. A newcomer would read "expire … backup set", which
//! names what was asked for; "remove expired backup" and "remove archive" name what goes.

use std::collections::{BTreeMap, BTreeSet};

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

impl Expiry {
    /// Reads the output of `expire`, dry or not.
    pub fn of<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let mut expiry = Self::default();
        lines.into_iter().filter_map(log::line).for_each(|line| expiry.note(line.text));
        expiry
    }

    /// Whether no WAL goes that a backup needs whose first segment is `oldest_kept` in the archive of that name.
    pub fn spares(&self, archive_id: &str, oldest_kept: Segment) -> bool {
        self.wal.iter().all(|range| range.archive_id != archive_id || range.last < oldest_kept)
    }

    /// The WAL that goes, in words: ranges, and whole archives of former clusters.
    pub fn wal_words(&self) -> Vec<String> {
        let ranges = self.wal.iter().map(|range| format!("{}..{}", range.first, range.last));
        ranges.chain(self.archives.iter().map(|path| format!("the whole archive {path}"))).collect()
    }

    /// What would go although the backups that are left need it; `first_wal` is their first segment per archive.
    pub fn harm(&self, first_wal: &BTreeMap<String, Segment>) -> Option<String> {
        let is_needed = |path: &&String| path.rsplit('/').next().is_some_and(|id| first_wal.contains_key(id));
        let archive = self.archives.iter().find(is_needed).map(|path| format!("the whole archive {path}"));
        let reaches = |(id, first): &(&String, &Segment)| !self.spares(id, **first);
        archive.or_else(|| {
            let (id, first) = first_wal.iter().find(reaches)?;
            Some(format!("WAL of {id} at or after {first}"))
        })
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

    #[test]
    fn wal_that_a_kept_backup_needs_is_noticed() {
        let expiry = Expiry::of(WAL.lines());
        assert!(expiry.spares("15-1", "00000001000000000000000D".parse().unwrap()));
        assert!(!expiry.spares("15-1", "00000001000000000000000C".parse().unwrap()));
    }

    #[test]
    fn wal_of_any_cluster_that_is_still_needed_is_harm() {
        let expiry = Expiry::of(WAL.lines());
        let harm = |id: &str, first: &str| expiry.harm(&BTreeMap::from([(id.to_owned(), first.parse().unwrap())]));
        assert_eq!(harm("15-1", "00000001000000000000000D"), None);
        assert_eq!(harm("15-2", "000000010000000000000001"), None, "nothing of it goes");
        let old = harm("14-1", "000000010000000300000009");
        assert_eq!(old.as_deref(), Some("WAL of 14-1 at or after 000000010000000300000009"));
        let whole = harm("13-1", "000000010000000000000001");
        assert_eq!(whole.as_deref(), Some("the whole archive /srv/lab/repo1/archive/main/13-1"));
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
