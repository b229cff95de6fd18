//! A policy file as parsed: its text, its tree with a span on every key and value, and where a key path stands in it.
//!
//! The typed structs of `file.rs` carry no positions; whoever finds something wrong says the key path ([`At`]) and the
//! position is looked up then, because nearly every policy is right. A newcomer would store spans in the typed structs;
//! then each custom value and the JSON Schema would have to know of them.

use std::{
    cell::OnceCell,
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue, Error as TomlError},
};

use super::mask;

/// A key path, from a file down to a value; costs nothing until it is shown or looked up.
#[derive(Debug, Clone, Copy)]
pub(super) enum At<'a> {
    /// A file, by its place among all files.
    File(usize),
    /// A key at the top of a file, e.g. `daemon`.
    Top(usize, &'a str),
    /// A named section, e.g. `database.orders`.
    Section(usize, &'a str, &'a str),
    /// A key of a table.
    Key(&'a At<'a>, &'a str),
    /// An element of a list.
    Index(&'a At<'a>, usize),
    /// Some steps further down.
    Below(&'a At<'a>, &'a [Step]),
}

impl<'a> At<'a> {
    /// The path to a key below.
    pub(super) fn key<'b>(&'b self, name: &'b str) -> At<'b> {
        At::Key(self, name)
    }

    /// The path to an element below.
    pub(super) fn index(&self, index: usize) -> At<'_> {
        At::Index(self, index)
    }

    /// The file.
    pub(super) fn file(&self) -> usize {
        match self {
            At::File(file) | At::Top(file, _) | At::Section(file, ..) => *file,
            At::Key(parent, _) | At::Index(parent, _) | At::Below(parent, _) => parent.file(),
        }
    }

    /// The name of the last key.
    pub(super) fn name(&self) -> &str {
        match self {
            At::File(_) => "",
            At::Top(_, name) | At::Section(_, _, name) | At::Key(_, name) => name,
            At::Index(parent, _) => parent.name(),
            At::Below(parent, steps) => match steps.last() {
                Some(Step::Key(name)) => name,
                _ => parent.name(),
            },
        }
    }

    /// The path one step up; a file is its own parent.
    pub(super) fn parent(&self) -> At<'a> {
        match *self {
            At::File(file) | At::Top(file, _) => At::File(file),
            At::Section(file, top, _) => At::Top(file, top),
            At::Key(parent, _) | At::Index(parent, _) => *parent,
            At::Below(parent, steps) => {
                steps.split_last().map_or_else(|| parent.parent(), |(_, steps)| At::Below(parent, steps))
            }
        }
    }

    /// The steps from the top of the file.
    pub(super) fn steps(&self) -> Vec<Step> {
        let key = |name: &str| Step::Key(name.to_owned());
        let (parent, last) = match self {
            At::File(_) => return Vec::new(),
            At::Top(_, name) => return vec![key(name)],
            At::Section(_, top, name) => return vec![key(top), key(name)],
            At::Key(parent, name) => (parent, vec![key(name)]),
            At::Index(parent, index) => (parent, vec![Step::Index(*index)]),
            At::Below(parent, steps) => (parent, steps.to_vec()),
        };
        [parent.steps(), last].concat()
    }
}

impl fmt::Display for At<'_> {
    /// `database.orders.schedule.incr[1]`, with quotes where TOML needs them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, step) in self.steps().iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(name) => {
                    let dot = if number == 0 { "" } else { "." };
                    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
                    let is_bare = !name.is_empty() && name.chars().all(bare);
                    if is_bare { write!(f, "{dot}{name}")? } else { write!(f, "{dot}{name:?}")? }
                }
            }
        }
        Ok(())
    }
}

/// A step of a key path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Into a table.
    Key(String),
    /// Into a list.
    Index(usize),
}

/// A parsed file.
pub(super) struct Source<'t> {
    /// Its path as given.
    pub(super) path: &'t Path,
    /// Its text.
    text: &'t str,
    root: Spanned<DeValue<'t>>,
    line_starts: OnceCell<Vec<usize>>,
    hidden: OnceCell<Vec<Range<usize>>>,
}

/// One line of a file and a stretch in it, ready to be shown: secrets are masked.
pub(super) struct Excerpt {
    /// The line's number, from 1.
    pub(super) line: usize,
    /// The column of the stretch in characters, from 1.
    pub(super) column: usize,
    /// The line.
    pub(super) text: String,
    /// The stretch, in bytes of the line.
    pub(super) mark: Range<usize>,
}

impl<'t> Source<'t> {
    /// Parses a file; what cannot be parsed is told and left out of the tree.
    pub(super) fn parse(file: &'t (PathBuf, String)) -> (Self, Vec<TomlError>) {
        let (path, text) = file;
        let (table, errors) = DeTable::parse_recoverable(text);
        let root = Spanned::new(table.span(), DeValue::Table(table.into_inner()));
        (Self { path, text, root, line_starts: OnceCell::new(), hidden: OnceCell::new() }, errors)
    }

    /// The keys and values at the top of the file.
    pub(super) fn top(&self) -> impl Iterator<Item = (&str, &Spanned<DeValue<'t>>)> {
        self.root.get_ref().as_table().into_iter().flat_map(DeTable::iter).map(|(key, value)| (&**key.get_ref(), value))
    }

    /// Where the value of a path stands; its key where the value is a section, or the nearest key above it that exists.
    pub(super) fn value_span(&self, at: &At) -> Range<usize> {
        let (key, value) = self.find(at).unwrap_or_else(|nearest| nearest);
        let begins_with = |begin| self.text.get(value.span()).is_some_and(|text| text.starts_with(begin));
        let is_section = match value.get_ref() {
            DeValue::Table(_) => !begins_with("{"),
            DeValue::Array(_) => begins_with("[["),
            _ => false,
        };
        if is_section { key } else { value.span() }
    }

    /// Where the key of a path stands, or the nearest key above it that exists.
    pub(super) fn key_span(&self, at: &At) -> Range<usize> {
        self.find(at).unwrap_or_else(|nearest| nearest).0
    }

    /// The value at a path.
    pub(super) fn value(&self, at: &At) -> Option<&DeValue<'t>> {
        self.find(at).ok().map(|(_, value)| value.get_ref())
    }

    /// The text at a path, if it is a secret that may not be repeated.
    pub(super) fn secret(&self, at: &At) -> Option<&str> {
        let (_, value) = self.find(at).ok()?;
        let text = value.get_ref().as_str().filter(|text| !text.is_empty())?;
        self.hidden().contains(&value.span()).then_some(text)
    }

    fn hidden(&self) -> &[Range<usize>] {
        self.hidden.get_or_init(|| mask::secret_spans(&self.root))
    }

    /// The span of the key and the value at a path, or of the nearest node above it that exists.
    fn find(&self, at: &At) -> Result<Node<'_, 't>, Node<'_, 't>> {
        let mut node = (0..0, &self.root);
        for step in at.steps() {
            let below = match (step, node.1.get_ref()) {
                (Step::Key(name), DeValue::Table(table)) => {
                    table.get_key_value(name.as_str()).map(|(key, value)| (key.span(), value))
                }
                (Step::Index(index), DeValue::Array(list)) => list.get(index).map(|value| (value.span(), value)),
                _ => None,
            };
            match below {
                Some(below) => node = below,
                None => return Err(node),
            }
        }
        Ok(node)
    }

    /// The number of the line that holds a byte, from 0.
    pub(super) fn line_of(&self, offset: usize) -> usize {
        self.line_starts().partition_point(|start| *start <= offset) - 1
    }

    /// The line that holds the beginning of a span, with its secrets masked.
    pub(super) fn excerpt(&self, span: Range<usize>, is_broken: bool) -> Excerpt {
        let starts = self.line_starts();
        let number = self.line_of(span.start);
        let from = starts[number];
        let to = starts.get(number + 1).map_or(self.text.len(), |next| next - 1);
        let line = self.text[from..to].trim_end_matches('\r');
        // The parser may stop inside of a character, or behind the end of the line.
        let start = line.floor_char_boundary(span.start - from);
        let end = line.ceil_char_boundary(span.end - from).max(start);
        let column = line[..start].chars().count() + 1;
        let text = mask::line(line, from, self.hidden(), is_broken);
        Excerpt { line: number + 1, column, text, mark: start..end }
    }

    fn line_starts(&self) -> &[usize] {
        self.line_starts.get_or_init(|| {
            let after_breaks = self.text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
            std::iter::once(0).chain(after_breaks).collect()
        })
    }
}

/// Where a key stands, and its value.
type Node<'s, 't> = (Range<usize>, &'s Spanned<DeValue<'t>>);

#[cfg(test)]
mod tests {
    use super::*;

    fn excerpt(text: &str, at: &At) -> (usize, usize, String) {
        let file = (PathBuf::from("p"), text.to_owned());
        let (source, errors) = Source::parse(&file);
        assert!(errors.is_empty(), "{errors:?}");
        let excerpt = source.excerpt(source.value_span(at), false);
        (excerpt.line, excerpt.column, excerpt.text[excerpt.mark].to_owned())
    }

    #[test]
    fn a_path_reads_as_it_is_written_in_toml() {
        let orders = At::Section(0, "database", "orders");
        assert_eq!(orders.key("schedule").key("incr").index(1).to_string(), "database.orders.schedule.incr[1]");
        assert_eq!(At::Section(0, "database", "Or ders").key("tier").to_string(), "database.\"Or ders\".tier");
        let steps = [Step::Key("wal".to_owned()), Step::Key("max_lag".to_owned())];
        let below = At::Below(&orders, &steps);
        assert_eq!(
            (below.to_string(), below.parent().to_string()),
            ("database.orders.wal.max_lag".into(), "database.orders.wal".into())
        );
        assert_eq!(At::Below(&orders, &[]).parent().to_string(), "database");
    }

    #[test]
    fn a_value_is_found_in_every_way_to_write_a_table() {
        let at = At::Section(0, "database", "a");
        let lag = at.key("wal");
        let lag = lag.key("max_lag");
        for text in [
            "[database.a.wal]\nmax_lag = 5",
            "[database.a]\nwal.max_lag = 5",
            "[database.a]\nwal = { max_lag = 5 }",
            "\ndatabase.a.wal.max_lag = 5",
            "[database]\na = { wal = { max_lag = 5 } }",
        ] {
            let (line, _, marked) = excerpt(text, &lag);
            assert_eq!((line, marked.as_str()), (2, "5"), "{text}");
        }
    }

    #[test]
    fn a_section_is_marked_at_its_name_and_a_missing_value_at_what_it_is_missing_from() {
        let at = At::Section(0, "database", "a");
        assert_eq!(excerpt("[database.a]\nstall = 1", &at), (1, 11, "a".to_owned()));
        assert_eq!(excerpt("[database.a]\nstall = 1", &at.key("tier")), (1, 11, "a".to_owned()));
        assert_eq!(
            excerpt("[database.a]\nwal = { max_lag = 1 }", &at.key("wal")),
            (2, 7, "{ max_lag = 1 }".to_owned())
        );
        assert_eq!(excerpt("[[database.a.x]]\n[[database.a.x]]\ny = 1", &at.key("x")), (1, 14, "x".to_owned()));
    }

    #[test]
    fn columns_count_characters_and_lines_may_end_as_on_windows() {
        let at = At::Top(0, "b");
        assert_eq!(excerpt("a = 1\r\n\"b\" = { \"ä\" = 1, c = 2 }\r\n", &at.key("c")), (2, 22, "2".to_owned()));
    }

    #[test]
    fn a_value_of_several_lines_is_marked_to_the_end_of_the_first() {
        assert_eq!(excerpt("a = [\n  1,\n]\n", &At::Top(0, "a")), (1, 5, "[".to_owned()));
    }
}
