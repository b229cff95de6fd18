//! The text of `verify --output=text --verbose`, and whether it proves anything.
//!
//! Its exit code is zero whatever it found, a backup that was deleted by hand is left out in silence, and a segment that
//! is missing in the middle counts as nothing. A newcomer would look for `status: ok`; a pass is an empty list of
//! `problems`, and no `holes` that a newer backup does not bridge.

use std::collections::{BTreeMap, BTreeSet};

use crate::{process::Ending, recovery::Segment};

/// What `verify` found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The status over all, `ok` or `error`; none when the text broke off.
    pub status: Option<String>,
    /// Each archive by its name.
    pub archives: BTreeMap<String, Archive>,
    /// Each backup by its label.
    pub backups: BTreeMap<String, Backup>,
    /// Single files that were wrong, as the tool names them.
    pub findings: Vec<String>,
}

/// What was found in an archive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Archive {
    /// Files.
    pub files: Counts,
    /// Contiguous ranges; only told at log level `detail`.
    pub ranges: Vec<(Segment, Segment)>,
}

/// What was found in a backup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backup {
    /// `valid`, `invalid`, `in-progress` or `manifest missing`.
    pub status: String,
    /// Files.
    pub files: Counts,
}

/// How many files were read, and what was wrong with how many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Read.
    pub checked: u64,
    /// As they should be.
    pub valid: u64,
    /// Not there.
    pub missing: u64,
    /// With another checksum.
    pub checksum: u64,
    /// With another size.
    pub size: u64,
    /// Unreadable otherwise.
    pub other: u64,
}

impl Counts {
    fn is_clean(&self) -> bool {
        self.checked == self.valid && self.missing + self.checksum + self.size + self.other == 0
    }
}

#[derive(Debug, Clone)]
enum Place {
    Archive(String),
    Backup(String),
}

impl Report {
    /// Reads the output; at log levels from `info` the same text stands in it twice, which does no harm.
    pub fn of<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let mut report = Self::default();
        let mut place = None;
        lines.into_iter().for_each(|line| report.note(message(line), &mut place));
        report
    }

    /// Everything that keeps this from being a pass, in words; a pass is empty and has no `holes` that matter.
    ///
    /// `expected` are the labels that `info` lists for the repository.
    pub fn problems(&self, ending: &Ending, expected: &BTreeSet<String>) -> Vec<String> {
        let mut problems = Vec::new();
        if *ending != Ending::Exited(0) {
            problems.push(format!("`verify` did not end well: {} {}", ending.word(), code(ending)).trim().to_owned());
        }
        match self.status.as_deref() {
            Some("ok") => {}
            Some(status) => problems.push(format!("the status of the repository is `{status}`")),
            None => problems.push("`verify` reported no status".to_owned()),
        }
        problems.extend(self.archives.iter().filter_map(|(id, archive)| archive.problem(id)));
        for label in expected {
            match self.backups.get(label) {
                None => problems.push(format!("backup {label} is listed by `info` but was not found")),
                Some(backup) => problems.extend(backup.problem(label)),
            }
        }
        let unlisted = self.backups.iter().filter(|(label, backup)| !expected.contains(*label) && !backup.is_running());
        problems.extend(unlisted.filter_map(|(label, backup)| backup.problem(label)));
        problems.extend(self.findings.iter().cloned());
        problems
    }

    /// The backups that were proved not to be whole, with what is wrong with each.
    ///
    /// `expected` are the labels that `info` listed before the verification and after it: what came or went meanwhile
    /// may be missing for good reasons. A report that broke off tells nothing of what is not in it.
    pub fn damaged(&self, expected: &BTreeSet<String>) -> BTreeMap<String, String> {
        let found = |label: &String| match self.backups.get(label) {
            Some(backup) if backup.is_running() => None,
            Some(backup) => backup.problem(label),
            None => self.status.as_ref().map(|_| format!("backup {label} is listed by `info` but was not found")),
        };
        expected.iter().filter_map(|label| Some((label.clone(), found(label)?))).collect()
    }

    /// Whether a backup was read as a whole and every file of it was right.
    pub fn is_whole(&self, label: &str) -> bool {
        self.backups.get(label).is_some_and(|backup| backup.problem(label).is_none())
    }

    /// Where WAL is missing in the middle of a timeline, as the last segment before and the first after.
    ///
    /// The tool counts it as nothing. A hole that a newer backup bridges does not harm recovery to the present.
    pub fn holes(&self) -> Vec<(Segment, Segment)> {
        let pairs = self.archives.values().flat_map(|archive| archive.ranges.windows(2));
        let same_timeline = pairs.filter(|pair| pair[0].1.timeline() == pair[1].0.timeline());
        same_timeline.map(|pair| (pair[0].1, pair[1].0)).collect()
    }

    fn note(&mut self, text: &str, place: &mut Option<Place>) {
        let fields = Fields::of(text);
        if let Some(id) = fields.get("archiveId") {
            let archive = self.archives.entry(id.to_owned()).or_default();
            match (fields.get("wal start"), fields.get("wal stop")) {
                (Some(first), Some(last)) => archive.ranges.extend(first.parse().ok().zip(last.parse().ok())),
                _ => archive.files = fields.totals("total WAL checked", "total valid WAL"),
            }
            *place = Some(Place::Archive(id.to_owned()));
        } else if let Some(label) = fields.get("backup") {
            let status = fields.get("status").unwrap_or_default().to_owned();
            let files = fields.totals("total files checked", "total valid files");
            self.backups.insert(label.to_owned(), Backup { status, files });
            *place = Some(Place::Backup(label.to_owned()));
        } else if fields.get("missing").is_some() && fields.get("other").is_some() {
            self.count(&fields, place);
        } else if let Some(status) = fields.get("status") {
            self.status = Some(status.to_owned());
        } else if text.starts_with("invalid ") {
            self.findings.push(text.to_owned());
        }
    }

    fn count(&mut self, fields: &Fields<'_>, place: &Option<Place>) {
        let counts = match place {
            Some(Place::Archive(id)) => self.archives.get_mut(id).map(|archive| &mut archive.files),
            Some(Place::Backup(label)) => self.backups.get_mut(label).map(|backup| &mut backup.files),
            None => None,
        };
        if let Some(counts) = counts {
            counts.missing = fields.number("missing");
            counts.checksum = fields.number("checksum invalid");
            counts.size = fields.number("size invalid");
            counts.other = fields.number("other");
        }
    }
}

impl Archive {
    fn problem(&self, id: &str) -> Option<String> {
        (!self.files.is_clean()).then(|| format!("archive {id}: {}", self.files.words("WAL segments")))
    }
}

impl Backup {
    /// Whether it is being made right now.
    pub fn is_running(&self) -> bool {
        self.status == "in-progress"
    }

    fn problem(&self, label: &str) -> Option<String> {
        if self.status == "valid" && self.files.is_clean() {
            return None;
        }
        let words = if self.files.is_clean() { String::new() } else { format!(": {}", self.files.words("files")) };
        Some(format!("backup {label} is {}{words}", self.status))
    }
}

impl Counts {
    fn words(&self, what: &str) -> String {
        let Counts { checked, valid, missing, checksum, size, other } = self;
        format!(
            "{valid} of {checked} {what} are valid (missing {missing}, checksum {checksum}, size {size}, other {other})"
        )
    }
}

/// `a: 1, b c: 2`
struct Fields<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Fields<'a> {
    fn of(text: &'a str) -> Self {
        Self(text.split(", ").filter_map(|field| field.split_once(": ")).map(|(k, v)| (k.trim(), v.trim())).collect())
    }

    fn get(&self, key: &str) -> Option<&'a str> {
        self.0.iter().find(|(k, _)| *k == key).map(|(_, value)| *value)
    }

    fn number(&self, key: &str) -> u64 {
        self.get(key).and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    fn totals(&self, checked: &str, valid: &str) -> Counts {
        Counts { checked: self.number(checked), valid: self.number(valid), ..Counts::default() }
    }
}

/// The text of a line, with or without the log's head and indentation.
fn message(line: &str) -> &str {
    super::log::line(line).map_or(line, |line| line.text).trim()
}

fn code(ending: &Ending) -> String {
    ending.code().map_or_else(String::new, |code| format!("with code {code}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OK: &str = include_str!("../../../tests/samples/pgbackrest-verify-text-ok.txt");
    const ERROR: &str = include_str!("../../../tests/samples/pgbackrest-verify-text-error.txt");
    const DETAIL: &str = include_str!("../../../tests/samples/pgbackrest-verify-detail-error.txt");

    fn listed(report: &Report) -> BTreeSet<String> {
        report.backups.iter().filter(|(_, b)| !b.is_running()).map(|(label, _)| label.clone()).collect()
    }

    #[test]
    fn a_clean_repository_passes_and_a_running_backup_does_not_matter() {
        let report = Report::of(OK.lines());
        assert_eq!((report.backups.len(), report.archives["15-1"].files.checked), (13, 117));
        assert_eq!(report.problems(&Ending::Exited(0), &listed(&report)), [""; 0]);
    }

    #[test]
    fn a_damaged_backup_fails_although_the_exit_code_is_zero() {
        let report = Report::of(ERROR.lines());
        insta::assert_debug_snapshot!(report.problems(&Ending::Exited(0), &listed(&report)), @r#"
        [
            "the status of the repository is `error`",
            "backup 20261120-152106F is invalid: 1297 of 1298 files are valid (missing 0, checksum 1, size 0, other 0)",
        ]
        "#);
    }

    #[test]
    fn single_damaged_files_are_found_in_the_detailed_log() {
        let report = Report::of(DETAIL.lines());
        insta::assert_debug_snapshot!(report.problems(&Ending::Exited(0), &listed(&report)), @r#"
        [
            "the status of the repository is `error`",
            "archive 15-1: 14 of 15 WAL segments are valid (missing 0, checksum 0, size 0, other 1)",
            "backup 20261120-163712F is invalid: 963 of 964 files are valid (missing 0, checksum 1, size 0, other 0)",
            "backup 20261120-163712F_20261120-163719I is invalid: 963 of 964 files are valid (missing 0, checksum 1, size 0, other 0)",
            "invalid result 15-1/0000000100000000/000000010000000000000014-6c82719d451dfc3ac540f85ca33068413ea0f77c.lz4: [29] raised from local-1 protocol: lz4 error: [-16] ERROR_decompressionFailed",
            "invalid checksum '20261120-163712F/pg_data/base/1/1255_vm.lz4'",
        ]
        "#);
    }

    #[test]
    fn a_missing_middle_segment_is_a_hole_and_a_new_timeline_is_none() {
        let holes: Vec<_> = Report::of(DETAIL.lines()).holes().iter().map(|(a, b)| format!("{a} {b}")).collect();
        assert_eq!(holes, ["000000010000000000000011 000000010000000000000013"]);
    }

    #[test]
    fn a_backup_that_info_lists_and_verify_passes_over_is_a_problem() {
        let report = Report::of(OK.lines());
        let mut expected = listed(&report);
        expected.insert("20261121-000000F".into());
        let problems = report.problems(&Ending::Exited(0), &expected);
        assert_eq!(problems, ["backup 20261121-000000F is listed by `info` but was not found"]);
    }

    #[test]
    fn a_backup_is_damaged_when_its_files_are_wrong_or_it_is_not_there() {
        let report = Report::of(ERROR.lines());
        let mut expected = listed(&report);
        expected.insert("20261121-000000F".into());
        let damaged: Vec<String> = report.damaged(&expected).into_keys().collect();
        assert_eq!(damaged, ["20261120-152106F", "20261121-000000F"]);
        assert!(!report.is_whole("20261120-152106F") && !report.is_whole("20261121-000000F"));
        assert!(Report::of([]).damaged(&expected).is_empty(), "what broke off proves nothing");
    }

    #[test]
    fn a_report_that_broke_off_is_no_pass() {
        let problems = Report::of([]).problems(&Ending::Signalled(9), &BTreeSet::new());
        assert_eq!(problems, ["`verify` did not end well: signal 9", "`verify` reported no status"]);
        let problems = Report::of(OK.lines()).problems(&Ending::Exited(29), &BTreeSet::new());
        assert_eq!(problems[0], "`verify` did not end well: exited with code 29");
    }

    proptest! {
        #[test]
        fn garbage_never_panics(text in "(\\PC|, |: |\n|archiveId|backup|status|missing|other)*") {
            let report = Report::of(text.lines());
            let _ = report.problems(&Ending::Exited(0), &BTreeSet::from(["x".to_owned()]));
        }
    }
}
