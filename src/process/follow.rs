//! Reads a log that a tool is writing, line by line, and keeps its last lines for the error.
//!
//! Lines come out fit to be shown and stored: without secrets, control characters and invalid UTF-8, and not endless. A
//! newcomer would cut first and redact afterwards; a secret across the cut would show its first half.

use std::{collections::VecDeque, fs::File, io::Read, path::Path};

use super::{child::Activity, redact::Redactor};

/// What is kept of one line, in bytes.
const LINE: usize = 4096;
/// The lines kept for the error.
const TAIL: usize = 25;
/// What is read at most before others have their turn.
const AT_ONCE: u64 = 8 * 1024 * 1024;

/// Bytes in, clean lines out.
pub(super) struct Lines {
    redactor: Redactor,
    partial: Vec<u8>,
    tail: VecDeque<String>,
}

impl Lines {
    pub(super) fn new(redactor: Redactor) -> Self {
        Self { redactor, partial: Vec::new(), tail: VecDeque::new() }
    }

    /// Takes what came, calls `on_line` for each line that is complete.
    pub(super) fn push(&mut self, bytes: &[u8], on_line: &mut impl FnMut(&str)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, is_complete) = piece.strip_suffix(b"\n").map_or((piece, false), |text| (text, true));
            let room = (LINE + self.redactor.longest()).saturating_sub(self.partial.len());
            self.partial.extend_from_slice(&text[..text.len().min(room)]);
            if is_complete {
                self.emit(on_line);
            }
        }
    }

    /// The last lines, after one that has no end.
    pub(super) fn finish(mut self, on_line: &mut impl FnMut(&str)) -> Vec<String> {
        if !self.partial.is_empty() {
            self.emit(on_line);
        }
        self.tail.into()
    }

    fn emit(&mut self, on_line: &mut impl FnMut(&str)) {
        let masked = self.redactor.mask(&self.partial, LINE);
        self.partial.clear();
        let line: String = String::from_utf8_lossy(&masked).chars().filter(|c| !c.is_control() || *c == '\t').collect();
        on_line(&line);
        if !line.trim().is_empty() {
            self.tail.push_back(line);
        }
        if self.tail.len() > TAIL {
            self.tail.pop_front();
        }
    }
}

/// A log file that is read as it grows.
pub(super) struct Follower {
    /// None when the file is gone; there is nothing to follow then, and the tool does not mind.
    file: Option<File>,
    lines: Lines,
    activity: Activity,
}

impl Follower {
    /// Follows from `offset` on.
    pub(super) fn new(path: &Path, offset: u64, redactor: Redactor, activity: Activity) -> Self {
        use std::io::{Seek, SeekFrom};
        let file = File::open(path).and_then(|mut file| file.seek(SeekFrom::Start(offset)).map(|_| file));
        Self { file: file.ok(), lines: Lines::new(redactor), activity }
    }

    /// Reads what came since the last look. Blocking: a few kilobytes of a local file that was just written.
    pub(super) fn read(&mut self, on_line: &mut impl FnMut(&str)) {
        self.read_up_to(AT_ONCE, on_line);
    }

    /// Reads the rest and gives the last lines. Only what is there now: somebody who escaped may write for ever.
    pub(super) fn finish(mut self, on_line: &mut impl FnMut(&str)) -> Vec<String> {
        let length = self.file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |meta| meta.len());
        self.read_up_to(length, on_line);
        self.lines.finish(on_line)
    }

    fn read_up_to(&mut self, limit: u64, on_line: &mut impl FnMut(&str)) {
        let Some(file) = &mut self.file else { return };
        let mut file = file.take(limit);
        let mut chunk = [0; 16 * 1024];
        // An unreadable log is no reason to disturb the tool; what was read until then stays.
        while let Ok(count @ 1..) = file.read(&mut chunk) {
            self.activity.mark();
            self.lines.push(&chunk[..count], on_line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Secret;

    fn lines_of(secret: &str, chunks: &[&[u8]]) -> (Vec<String>, Vec<String>) {
        let mut lines = Lines::new(Redactor::new(vec![Secret::new(secret)]));
        let mut seen = Vec::new();
        let mut on_line = |line: &str| seen.push(line.to_owned());
        chunks.iter().for_each(|chunk| lines.push(chunk, &mut on_line));
        let tail = lines.finish(&mut on_line);
        (seen, tail)
    }

    #[test]
    fn a_line_is_whole_however_it_arrives() {
        let (seen, tail) = lines_of("", &[b"on", b"e\n\ntw", b"o\nthree"]);
        assert_eq!(seen, ["one", "", "two", "three"]);
        assert_eq!(tail, ["one", "two", "three"]);
    }

    #[test]
    fn a_secret_split_between_two_reads_is_still_seen() {
        assert_eq!(lines_of("hunter-two", &[b"key hunt", b"er-two ok\n"]).0, ["key *** ok"]);
    }

    #[test]
    fn what_a_terminal_would_obey_is_taken_out() {
        assert_eq!(lines_of("", &[b"\x1b]0;title\x07red\r\xff\xfe\ttab\n"]).0, ["]0;titlered\u{fffd}\u{fffd}\ttab"]);
    }

    #[test]
    fn a_line_without_end_is_cut_and_the_next_one_is_read() {
        let endless = vec![b'x'; 1_000_000];
        let (seen, _) = lines_of("hunter-two", &[&endless[..LINE - 4], b"hunter-two", &endless, b"\nnext\n"]);
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[0].len(), LINE - 4 + 3);
        assert!(seen[0].ends_with("x***"));
        assert_eq!(seen[1], "next");
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let text: String = (0..100).map(|n| format!("{n}\n")).collect();
        let (seen, tail) = lines_of("", &[text.as_bytes()]);
        assert_eq!(seen.len(), 100);
        assert_eq!((tail.len(), tail[0].as_str(), tail[24].as_str()), (25, "75", "99"));
    }
}
