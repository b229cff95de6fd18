//! The archive that `pg_restore` reads, walked through from header to end as it goes by.
//!
//! Header, table of contents, then one block for each entry that has data, in any order: its kind, its number, pieces
//! with their length, and a piece of length zero; for large objects a list of these. The tool writes to a pipe, so the
//! table of contents comes first and knows no positions, and nothing follows the last block. So it is known of every
//! archive that it ends where it must, that each entry with data has its block, and that no block is there twice. What is
//! inside the pieces is not looked at: the archive has no checksum of its own, that is what ours are for.
//!
//! Known are the versions 1.12 to 1.16, PostgreSQL 9.0 to 18; of a later one only the beginning is looked at. In the
//! directory format the same table of contents stands in `toc.dat` and names a file for each entry with data. A newcomer
//! would ask `pg_restore --list`; it reads the table of contents and is content with half an archive.

use std::collections::BTreeSet;

use crate::stream::Inspect;

/// The newest version of the format that is known, 1.x.
const NEWEST: u8 = 16;
/// The oldest one.
const OLDEST: u8 = 12;
/// No text in a table of contents is longer: PostgreSQL's own limit for a value.
const LONGEST: i64 = 1 << 30;

/// Walks through an archive in the custom format.
#[derive(Debug, Default)]
pub struct Archive(Walk);

impl Inspect for Archive {
    fn see(&mut self, bytes: &[u8]) {
        self.0.see(bytes);
    }

    fn end(self: Box<Self>) -> Result<(), String> {
        match self.0.format {
            Some(format) if !format.has_positions => Err("the archive is not in the custom format".to_owned()),
            _ => self.0.end(),
        }
    }
}

/// An entry with data in the directory format.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Piece {
    /// What it is, e.g. `TABLE DATA`, `BLOBS`.
    pub kind: String,
    /// The file that holds it.
    pub file: String,
}

/// Reads the `toc.dat` of the directory format; none when its version is not known.
///
/// # Errors
/// What is wrong with it.
pub fn contents(toc: &[u8]) -> Result<Option<Vec<Piece>>, String> {
    let mut walk = Walk::default();
    walk.see(toc);
    walk.end()?;
    match walk.at {
        At::Unknown => Ok(None),
        _ => Ok(Some(walk.pieces)),
    }
}

/// What the header says of the rest.
#[derive(Debug, Clone, Copy)]
struct Format {
    minor: u8,
    int: usize,
    offset: usize,
    /// An entry ends with its position; otherwise with the name of its file.
    has_positions: bool,
}

/// What comes next.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum At {
    #[default]
    Magic,
    Compression,
    /// So many numbers of the header.
    Date(u8),
    /// So many texts of the header.
    Names(u8),
    Count,
    /// The entry's field of this number.
    Entry(usize),
    /// A new block, or the end.
    Block,
    BlockId(u8),
    /// The number of a large object, or zero.
    Object,
    /// The length of a piece, or zero; of a large object or not.
    Length {
        of_object: bool,
    },
    /// A version of which nothing is known.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Field {
    Id,
    HasData,
    Kind,
    Text,
    Number,
    Dependency,
    Place,
}

/// The walk: where it stands, and what is still awaited.
#[derive(Debug, Default)]
struct Walk {
    at: At,
    format: Option<Format>,
    fields: Vec<Field>,
    /// The beginning of a word whose rest has not come yet.
    word: Vec<u8>,
    /// Bytes of a text or piece that are still to come.
    skip: u64,
    /// The text that is kept, and for what.
    kept: Option<(Field, Vec<u8>)>,
    entries_left: i64,
    id: i64,
    has_data: bool,
    piece: Piece,
    pieces: Vec<Piece>,
    /// Entries whose block has not come yet.
    awaited: BTreeSet<i64>,
    blocks: usize,
    trouble: Option<String>,
}

impl Walk {
    fn see(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.trouble.is_none() && self.at != At::Unknown {
            if self.skip > 0 {
                bytes = self.pass(bytes);
                continue;
            }
            let need = self.need();
            if self.word.is_empty() && bytes.len() >= need {
                self.take(&bytes[..need]);
                bytes = &bytes[need..];
                continue;
            }
            let part = bytes.len().min(need - self.word.len());
            self.word.extend_from_slice(&bytes[..part]);
            bytes = &bytes[part..];
            if self.word.len() == need {
                let word = std::mem::take(&mut self.word);
                self.take(&word);
            }
        }
    }

    /// Passes over a text or piece; gives back what comes after.
    fn pass<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let length = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
        self.skip -= length as u64;
        if let Some((_, text)) = &mut self.kept {
            text.extend_from_slice(&bytes[..length]);
        }
        if self.skip == 0
            && let Some((field, text)) = self.kept.take()
        {
            self.keep(field, &text);
        }
        &bytes[length..]
    }

    /// How long the next word is.
    fn need(&self) -> usize {
        let Some(format) = self.format else { return 11 };
        match self.at {
            At::Block => 1,
            At::Compression if format.minor >= 15 => 1,
            At::Entry(field) if self.fields[field] == Field::Place && format.has_positions => 1 + format.offset,
            _ => 1 + format.int,
        }
    }

    fn take(&mut self, word: &[u8]) {
        match self.at {
            At::Magic => self.magic(word),
            At::Compression => self.at = At::Date(7),
            At::Date(left) => self.at = if left > 1 { At::Date(left - 1) } else { At::Names(3) },
            At::Names(left) => {
                self.text(word);
                self.at = if left > 1 { At::Names(left - 1) } else { At::Count };
            }
            At::Count => {
                self.entries_left = number(word);
                self.at = if self.entries_left > 0 { At::Entry(0) } else { At::Block };
            }
            At::Entry(field) => self.entry(field, word),
            At::Block => self.block(word[0]),
            At::BlockId(kind) => self.block_id(kind, number(word)),
            At::Object if number(word) == 0 => self.at = At::Block,
            At::Object => self.at = At::Length { of_object: true },
            At::Length { of_object } => match number(word) {
                0 => self.at = if of_object { At::Object } else { At::Block },
                length if length < 0 => self.complain(format!("a piece of {length} bytes in the archive")),
                length => self.skip = length.unsigned_abs(),
            },
            At::Unknown => {}
        }
    }

    /// `PGDMP`, three bytes of version, the lengths of numbers and positions, the format.
    fn magic(&mut self, word: &[u8]) {
        let [b'P', b'G', b'D', b'M', b'P', major, minor, _, int, offset, form] = *word else {
            return self.complain("the archive does not begin with `PGDMP`".to_owned());
        };
        if major != 1 || minor > NEWEST {
            self.at = At::Unknown;
            return;
        }
        let known_form = matches!(form, 1 | 3 | 5);
        if minor < OLDEST || !matches!(int, 4 | 8) || !matches!(offset, 4 | 8) || !known_form {
            return self.complain("the header of the archive makes no sense".to_owned());
        }
        // A `toc.dat` calls itself a tar.
        self.format = Some(Format { minor, int: int.into(), offset: offset.into(), has_positions: form == 1 });
        self.fields = fields(minor);
        self.at = At::Compression;
    }

    fn entry(&mut self, index: usize, word: &[u8]) {
        let field = self.fields[index];
        let has_positions = self.format.is_some_and(|format| format.has_positions);
        match field {
            Field::Id => self.id = number(word),
            Field::HasData => self.has_data = number(word) != 0,
            Field::Number => {}
            Field::Text => self.text(word),
            Field::Dependency if number(word) >= 0 => {
                self.text(word);
                return;
            }
            Field::Dependency => {}
            Field::Place if has_positions => {}
            Field::Kind | Field::Place => {
                self.text(word);
                if self.skip > 0 {
                    self.kept = Some((field, Vec::new()));
                } else {
                    self.keep(field, b"");
                }
                return;
            }
        }
        self.next_field(index);
    }

    fn keep(&mut self, field: Field, text: &[u8]) {
        let text = String::from_utf8_lossy(text).into_owned();
        if field == Field::Kind {
            self.piece.kind = text
        } else {
            self.piece.file = text
        }
        if let At::Entry(index) = self.at {
            self.next_field(index);
        }
    }

    fn next_field(&mut self, index: usize) {
        self.at = At::Entry(index + 1);
        if index + 1 < self.fields.len() {
            return;
        }
        let piece = std::mem::take(&mut self.piece);
        if self.has_data {
            self.blocks += 1;
            if self.format.is_some_and(|format| format.has_positions) {
                self.awaited.insert(self.id);
            } else {
                self.pieces.push(piece);
            }
        }
        self.entries_left -= 1;
        self.at = if self.entries_left > 0 { At::Entry(0) } else { At::Block };
    }

    /// Begins a text; minus one is none.
    fn text(&mut self, word: &[u8]) {
        match number(word) {
            length @ 0..=LONGEST => self.skip = length.unsigned_abs(),
            -1 => {}
            length => self.complain(format!("a text of {length} bytes in the table of contents")),
        }
    }

    fn block(&mut self, kind: u8) {
        match kind {
            _ if self.awaited.is_empty() => self.complain("something follows the end of the archive".to_owned()),
            1 | 3 => self.at = At::BlockId(kind),
            _ => self.complain(format!("a block of the unknown kind {kind} in the archive")),
        }
    }

    fn block_id(&mut self, kind: u8, id: i64) {
        if !self.awaited.remove(&id) {
            return self.complain(format!("block {id} of the archive is not expected, or is there twice"));
        }
        self.at = if kind == 3 { At::Object } else { At::Length { of_object: false } };
    }

    fn complain(&mut self, trouble: String) {
        self.trouble.get_or_insert(trouble);
    }

    fn end(&self) -> Result<(), String> {
        if let Some(trouble) = &self.trouble {
            return Err(trouble.clone());
        }
        let is_between = self.skip == 0 && self.word.is_empty();
        let (come, all) = (self.blocks - self.awaited.len(), self.blocks);
        match self.at {
            At::Unknown => Ok(()),
            At::Block if is_between && self.awaited.is_empty() => Ok(()),
            At::Block if is_between => Err(format!("the archive ends after {come} of {all} blocks")),
            At::Magic if self.word.is_empty() => Err("the archive is empty".to_owned()),
            At::Magic | At::Compression | At::Date(_) | At::Names(_) => {
                Err("the archive ends within its header".to_owned())
            }
            At::Count | At::Entry(_) => Err("the archive ends within its table of contents".to_owned()),
            _ => Err(format!("the archive ends within block {come} of {all}")),
        }
    }
}

/// The fields of an entry.
fn fields(minor: u8) -> Vec<Field> {
    use Field::{Dependency, HasData, Id, Kind, Number, Place, Text};
    // Number, has data, catalog, object, name, kind, section, definition, drop, copy, schema, tablespace.
    let mut fields = vec![Id, HasData, Text, Text, Text, Kind, Number, Text, Text, Text, Text, Text];
    // Since 12 the access method, since 17 the kind of relation.
    fields.extend((minor >= 14).then_some(Text));
    fields.extend((minor >= 16).then_some(Number));
    // Owner, OIDs.
    fields.extend([Text, Text, Dependency, Place]);
    fields
}

/// A sign, then the bytes of the number, the lowest first.
fn number(word: &[u8]) -> i64 {
    let size = word[1..].iter().rev().fold(0_i64, |number, byte| number << 8 | i64::from(*byte));
    if word[0] == 0 { size } else { size.wrapping_neg() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small archive, part by part, as the tool writes it.
    #[derive(Default)]
    struct Writer(Vec<u8>);

    impl Writer {
        fn int(&mut self, value: i32) -> &mut Self {
            self.0.push(u8::from(value < 0));
            self.0.extend(value.unsigned_abs().to_le_bytes());
            self
        }

        fn text(&mut self, text: &str) -> &mut Self {
            self.int(text.len().try_into().unwrap());
            self.0.extend(text.as_bytes());
            self
        }

        fn header(minor: u8, form: u8, entries: i32) -> Self {
            let mut archive = Self([b"PGDMP".as_slice(), &[1, minor, 0, 4, 8, form]].concat());
            if minor >= 15 {
                archive.0.push(0);
            } else {
                archive.int(0);
            }
            for part in 0..7 {
                archive.int(part);
            }
            archive.text("shop").text("15.20").text("15.20").int(entries);
            archive
        }

        fn entry(&mut self, minor: u8, id: i32, kind: &str, place: Option<&str>, has_data: bool) -> &mut Self {
            self.int(id).int(has_data.into()).text("1259").text("16384").text("näme").text(kind).int(3);
            self.text("create").text("").text("copy").text("public").int(-1);
            if minor >= 14 {
                self.text("heap");
            }
            if minor >= 16 {
                self.int(114);
            }
            self.text("postgres").text("false").text("7").text("12").int(-1);
            let Some(file) = place else {
                self.0.extend([1, 0, 0, 0, 0, 0, 0, 0, 0]);
                return self;
            };
            self.text(file)
        }

        fn block(&mut self, kind: u8, id: i32) -> &mut Self {
            self.0.push(kind);
            self.int(id)
        }
    }

    fn archive(minor: u8) -> Vec<u8> {
        let mut archive = Writer::header(minor, 1, 4);
        archive.entry(minor, 1, "ENCODING", None, false).entry(minor, 20, "TABLE DATA", None, true);
        archive.entry(minor, 21, "TABLE DATA", None, true).entry(minor, 22, "BLOBS", None, true);
        archive.block(1, 20).text("1\tone\n").text("2\ttwo\n").int(0).block(1, 21).int(0);
        archive.block(3, 22).int(16395).text("hello").int(0).int(-7).int(0).int(0);
        archive.0
    }

    fn inspect(bytes: &[u8], step: usize) -> Result<(), String> {
        let mut walk = Box::new(Archive::default());
        bytes.chunks(step).for_each(|chunk| walk.see(chunk));
        walk.end()
    }

    #[test]
    fn a_whole_archive_of_every_version_is_whole_however_it_is_cut_into_pieces() {
        for minor in OLDEST..=NEWEST {
            let archive = archive(minor);
            for step in [1, 3, 11, 64, 4096] {
                assert_eq!(inspect(&archive, step), Ok(()), "1.{minor} by {step}");
            }
        }
    }

    #[test]
    fn an_archive_that_ends_early_is_not_whole_wherever_it_ends() {
        let archive = archive(14);
        for end in 0..archive.len() {
            assert!(inspect(&archive[..end], 16).is_err(), "{end} of {}", archive.len());
        }
        let said = |end| inspect(&archive[..end], 16).unwrap_err();
        assert_eq!(said(0), "the archive is empty");
        assert_eq!(said(30), "the archive ends within its header");
        assert_eq!(said(150), "the archive ends within its table of contents");
        assert_eq!(said(archive.len() - 1), "the archive ends within block 3 of 3");
    }

    #[test]
    fn what_does_not_belong_is_told() {
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut archive = archive(14);
            change(&mut archive);
            inspect(&archive, 4096).unwrap_err()
        };
        assert_eq!(with(&|a| a.push(1)), "something follows the end of the archive");
        assert_eq!(with(&|a| a[0] = b'X'), "the archive does not begin with `PGDMP`");
        assert_eq!(with(&|a| a[8] = 3), "the header of the archive makes no sense");
        assert_eq!(with(&|a| a[10] = 3), "the archive is not in the custom format");
        let mut twice = Writer::header(14, 1, 2);
        twice.entry(14, 5, "TABLE DATA", None, true).entry(14, 6, "TABLE DATA", None, true);
        twice.block(1, 5).int(0);
        assert_eq!(inspect(&twice.0, 64).unwrap_err(), "the archive ends after 1 of 2 blocks");
        twice.block(1, 5).int(0);
        assert_eq!(inspect(&twice.0, 64).unwrap_err(), "block 5 of the archive is not expected, or is there twice");
    }

    #[test]
    fn of_a_later_version_only_the_beginning_is_looked_at() {
        let mut archive = archive(14);
        archive[6] = 17;
        assert_eq!(inspect(&archive, 64), Ok(()));
        assert_eq!(contents(&archive), Ok(None));
        assert!(inspect(b"<html>not found</html>", 64).is_err());
    }

    #[test]
    fn a_directory_names_the_file_of_each_entry_with_data() {
        let mut toc = Writer::header(14, 3, 3);
        toc.entry(14, 1, "ENCODING", Some(""), false).entry(14, 20, "TABLE DATA", Some("20.dat"), true);
        toc.entry(14, 22, "BLOBS", Some("blobs.toc"), true);
        let pieces = contents(&toc.0).unwrap().unwrap();
        let told: Vec<_> = pieces.iter().map(|piece| (piece.kind.as_str(), piece.file.as_str())).collect();
        assert_eq!(told, [("TABLE DATA", "20.dat"), ("BLOBS", "blobs.toc")]);
        assert!(contents(&toc.0[..toc.0.len() - 1]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_is_no_panic(noise in proptest::collection::vec(proptest::num::u8::ANY, 0..400), at in 0_usize..500) {
            let mut archive = archive(16);
            let at = at.min(archive.len());
            archive.splice(at.., noise);
            let _ = inspect(&archive, 13);
        }
    }
}
