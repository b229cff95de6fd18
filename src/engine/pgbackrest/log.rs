//! pgBackRest's log: one line, and what a whole output tells.
//!
//! A line is `2026-11-20 14:12:37.067 P00   INFO: text`; with stderr logging it is `ERROR: [056]: text` without a time.
//! Long messages go on in indented lines. A newcomer would look for the word "completed"; only the last `command end`
//! counts, and its absence means that the tool died.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

/// How important a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The command will fail.
    Error,
    /// Something is odd, the command goes on.
    Warn,
    /// What is done.
    Info,
    /// What is done, per file; and what only developers read.
    Detail,
}

/// A line of the log that begins a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its level.
    pub level: Level,
    /// pgBackRest's error number, where the message begins with one.
    pub code: Option<u16>,
    /// The message, without error number and dry-run mark.
    pub text: &'a str,
}

/// Reads the beginning of a message; none for a continuation and for everything else.
pub fn line(line: &str) -> Option<Line<'_>> {
    let (head, text) = line.split_once(": ").or_else(|| line.strip_suffix(':').map(|head| (head, "")))?;
    let level = match head.rsplit(' ').next()? {
        "ERROR" => Level::Error,
        "WARN" => Level::Warn,
        "INFO" => Level::Info,
        "DETAIL" | "DEBUG" | "TRACE" => Level::Detail,
        _ => return None,
    };
    let is_timed = head.len() >= 33 && head.is_char_boundary(24) && head[24..].starts_with('P');
    let is_bare = !head.contains(' ');
    if !is_timed && !is_bare {
        return None;
    }
    let (code, text) = code_of(text);
    Some(Line { level, code, text: text.strip_prefix("[DRY-RUN] ").unwrap_or(text) })
}

fn code_of(text: &str) -> (Option<u16>, &str) {
    let numbered = text.strip_prefix('[').and_then(|rest| rest.split_once("]: "));
    let read = numbered.and_then(|(number, rest)| Some((number.parse().ok()?, rest)));
    read.map_or((None, text), |(number, rest)| (Some(number), rest))
}

/// How far a backup or restore is, 0 to 100, from a line that tells of a copied file.
pub fn percent(text: &str) -> Option<f64> {
    let line = line(text).filter(|line| line.level == Level::Detail)?;
    if !(line.text.starts_with("backup file ") || line.text.starts_with("restore file ")) {
        return None;
    }
    // A file name may hold parentheses too; the tool's own come last.
    let (before, _) = line.text.rsplit_once("%)")?;
    let (_, number) = before.rsplit_once([' ', '('])?;
    number.parse().ok().filter(|percent| (0.0..=100.0).contains(percent))
}

/// How far the command is whose log this is, by its last lines.
pub fn percent_in(log: &Path) -> Option<f64> {
    const LAST: u64 = 8192;
    let mut file = File::open(log).ok()?;
    let start = file.metadata().ok()?.len().saturating_sub(LAST);
    file.seek(SeekFrom::Start(start)).ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    String::from_utf8_lossy(&bytes).lines().rev().find_map(percent)
}

/// How a command said that it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It did what it should.
    Completed,
    /// It failed with this error number.
    Aborted(u16),
    /// This signal ended it.
    Terminated(String),
}

/// What the output of one command tells, read line by line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Digest {
    /// The label of the backup that it made.
    pub label: Option<String>,
    /// Warnings that a person should see, whole.
    pub warnings: Vec<String>,
    /// Errors, whole, with their numbers.
    pub errors: Vec<(Option<u16>, String)>,
    /// How it ended; none when it did not say so.
    pub end: Option<End>,
    /// The last line was part of a message that is kept.
    open: Option<Level>,
}

impl Digest {
    /// Reads a whole output.
    pub fn of<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let mut digest = Self::default();
        lines.into_iter().for_each(|line| digest.push(line));
        digest
    }

    /// Reads one more line.
    pub fn push(&mut self, text: &str) {
        let Some(line) = line(text) else { return self.go_on(text) };
        self.open = Some(line.level);
        match line.level {
            Level::Error => self.errors.push((line.code, line.text.to_owned())),
            Level::Warn if is_expected(line.text) => self.open = None,
            Level::Warn => self.warnings.push(line.text.to_owned()),
            Level::Info => self.note(line.text),
            Level::Detail => {}
        }
    }

    fn note(&mut self, text: &str) {
        if let Some(label) = text.strip_prefix("new backup label = ") {
            self.label = Some(label.trim().to_owned());
        } else if let Some((_, how)) = text.split_once(" command end: ") {
            self.end = end(how);
        } else if text.contains(" command begin ") {
            self.end = None;
        }
    }

    fn go_on(&mut self, text: &str) {
        let rest = text.trim();
        let open = match self.open {
            Some(Level::Error) => self.errors.last_mut().map(|(_, message)| message),
            Some(Level::Warn) => self.warnings.last_mut(),
            _ => None,
        };
        if let Some(message) = open.filter(|_| text.starts_with(' ') && !rest.is_empty()) {
            message.push_str("; ");
            message.push_str(rest);
        }
    }
}

/// Retention is ours (`--no-expire-auto`), so pgBackRest has none and says so at each command.
fn is_expected(warning: &str) -> bool {
    warning.contains("-retention-full' is not set for 'repo")
}

fn end(how: &str) -> Option<End> {
    if how.starts_with("completed successfully") {
        return Some(End::Completed);
    }
    let bracketed = |prefix: &str| how.strip_prefix(prefix)?.split_once(']').map(|(inner, _)| inner);
    if let Some(code) = bracketed("aborted with exception [") {
        return code.parse().ok().map(End::Aborted);
    }
    bracketed("terminated on signal [").map(|signal| End::Terminated(signal.to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BACKUP: &str = include_str!("../../../tests/samples/pgbackrest-backup.log");
    const PAGE_ERROR: &str = include_str!("../../../tests/samples/pgbackrest-backup-page-error.log");

    #[test]
    fn a_real_backup_tells_its_label_and_that_it_completed() {
        // The sample ran with `archive-push` to a second repository, and `expire` followed in the same output.
        let digest = Digest::of(BACKUP.lines());
        assert_eq!(digest.label.as_deref(), Some("20261120-143645F"));
        assert_eq!((digest.end, digest.errors.len(), digest.warnings.len()), (Some(End::Completed), 0, 0));
    }

    #[test]
    fn page_errors_are_a_warning_and_the_command_still_completes() {
        let digest = Digest::of(PAGE_ERROR.lines());
        assert_eq!(digest.end, Some(End::Completed));
        assert!(digest.warnings.iter().any(|w| w.starts_with("invalid page checksums found in file")), "{digest:?}");
    }

    #[test]
    fn progress_grows_from_file_to_file() {
        let progress: Vec<f64> = BACKUP.lines().filter_map(percent).collect();
        assert!(progress.len() > 20 && progress.is_sorted() && progress.last() == Some(&100.0), "{progress:?}");
        let bundled =
            "2026-11-20 14:36:47.373 P02 DETAIL: backup file /data/a (1%) b (bundle 1/0, 4MB, 2.24%) checksum x";
        assert_eq!(percent(bundled), Some(2.24));
        assert_eq!(percent("2026-11-20 14:36:47.373 P02   INFO: something (2.24%)"), None);
    }

    #[test]
    fn a_command_that_does_not_say_how_it_ended_did_not_end() {
        let digest = Digest::of(BACKUP.lines().take(20));
        assert_eq!((digest.end, digest.label), (None, None));
    }

    #[test]
    fn errors_keep_their_number_and_their_hint() {
        let digest = Digest::of([
            "2026-11-20 16:39:12.383 P00  ERROR: [062]: stop file exists for stanza main",
            "                                    HINT: run start.",
            "2026-11-20 16:39:12.383 P00   INFO: backup command end: aborted with exception [062]",
        ]);
        assert_eq!(digest.errors, [(Some(62), "stop file exists for stanza main; HINT: run start.".to_owned())]);
        assert_eq!(digest.end, Some(End::Aborted(62)));
        let bare = line("ERROR: [055]: unable to open missing file 'x' for read").unwrap();
        assert_eq!((bare.level, bare.code), (Level::Error, Some(55)));
    }

    #[test]
    fn the_missing_retention_is_no_news() {
        let digest = Digest::of([
            "2026-11-20 16:37:11.664 P00   WARN: option 'repo1-retention-full' is not set for \
             'repo1-retention-full-type=count', the repository may run out of space",
            "                                    HINT: to retain full backups indefinitely, set the option.",
            "2026-11-20 16:37:11.664 P00   WARN: [DRY-RUN] backup 20200101-010101F does not exist",
        ]);
        assert_eq!(digest.warnings, ["backup 20200101-010101F does not exist"]);
    }

    #[test]
    fn a_signal_is_named() {
        let text = "2026-11-20 16:39:12.383 P00   INFO: backup command end: terminated on signal [SIGTERM]";
        assert_eq!(Digest::of([text]).end, Some(End::Terminated("SIGTERM".into())));
    }

    proptest! {
        #[test]
        fn nothing_panics_on_garbage(text in ".*", tail in "(P00|é|ERROR|: |\\[|\\]|\\(|%|\\)| )*") {
            let joined = format!("2026-11-20 16:39:12.383 {tail}{text}");
            for text in [&*text, &*tail, &*joined] {
                let _ = percent(text);
                Digest::default().push(text);
            }
        }
    }
}
