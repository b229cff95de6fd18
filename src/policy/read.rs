//! From a parsed file to the types of `file.rs`, section by section, without stopping at the first mistake.
//!
//! Serde gives up at the first wrong type. So a section is read, the wrong value reported and left out, and the section
//! read again until it fits; unknown keys are those that serde did not want in the reading that fitted. A newcomer would
//! use `deny_unknown_fields`: it stops at the first, and hides behind type errors.

use std::{collections::BTreeMap, ops::Range};

use serde::de::DeserializeOwned;
use serde_ignored::Path;
use serde_json::Value;
use toml::{
    Spanned,
    de::{DeString, DeValue, Error as TomlError, ValueDeserializer},
};

use super::{
    file::{self, File, Place, Settings},
    mask,
    problem::{Findings, did_you_mean},
    source::{At, Step},
};

/// Reads files one after the other.
pub(super) struct Reader<'f, 's, 't> {
    findings: &'f mut Findings<'s, 't>,
    schema: Option<Value>,
}

impl<'f, 's, 't> Reader<'f, 's, 't> {
    /// A reader that reports to `findings`.
    pub(super) fn new(findings: &'f mut Findings<'s, 't>) -> Self {
        Self { findings, schema: None }
    }

    /// Reads a file; the first one is the main file.
    pub(super) fn file(&mut self, number: usize) -> File {
        let mut file = File::default();
        let source = &self.findings.sources()[number];
        for (key, value) in source.top() {
            let at = At::Top(number, key);
            match key {
                "daemon" | "defaults" | "schedule" if number > 0 => self.misplaced(&at, key),
                "daemon" => file.daemon = Some(self.section(&at, value)),
                "defaults" => file.defaults = Some(self.settings(&at, value, Place::Defaults)),
                "schedule" => file.schedule = Some(self.section(&at, value)),
                "tier" => file.tier = self.sections(number, "tier", value, Self::section),
                "storage" => file.storage = self.sections(number, "storage", value, Self::section),
                "encryption" => file.encryption = self.sections(number, "encryption", value, Self::section),
                "environment" => {
                    let read = |reader: &mut Self, at: &At, value: &_| reader.settings(at, value, Place::Environment);
                    file.environment = self.sections(number, "environment", value, read);
                }
                "database" => {
                    let read = |reader: &mut Self, at: &At, value: &_| reader.settings(at, value, Place::Database);
                    file.database = self.sections(number, "database", value, read);
                }
                _ => self.unknown(&at),
            }
        }
        file
    }

    fn misplaced(&mut self, at: &At, key: &str) {
        let main = self.findings.sources()[0].path.display();
        let help =
            format!("Move it to `{main}`; files in `conf.d` hold databases, tiers, environments, storages and keys.");
        self.findings.key_error(at, format!("`[{key}]` may stand in the main file only")).help(help);
    }

    /// Reads a table of named sections.
    fn sections<T>(
        &mut self,
        number: usize,
        top: &str,
        value: &Spanned<DeValue<'t>>,
        mut read: impl FnMut(&mut Self, &At, &Spanned<DeValue<'t>>) -> T,
    ) -> BTreeMap<String, T> {
        let Some(table) = value.get_ref().as_table() else {
            let at = At::Top(number, top);
            let help = format!("Write `[{top}.NAME]`.");
            self.findings.error(&at, "must be a table of named sections").help(help);
            self.findings.damage(&at);
            return BTreeMap::new();
        };
        let read_one = |(name, value): (&Spanned<DeString>, _)| {
            let name = name.get_ref();
            (name.to_string(), read(self, &At::Section(number, top, name), value))
        };
        table.iter().map(read_one).collect()
    }

    /// Reads the keys of a database, and refuses those that make no sense in this place.
    fn settings(&mut self, at: &At, value: &Spanned<DeValue<'t>>, place: Place) -> Settings {
        for key in place.refused() {
            if value.get_ref().get(*key).is_some() {
                let help = match place {
                    Place::Database => "It belongs to an `[environment.NAME]`.",
                    Place::Defaults | Place::Environment => "Each database has its own.",
                };
                self.findings.key_error(&at.key(key), format!("`{key}` makes no sense here")).help(help);
            }
        }
        self.section(at, value)
    }

    /// Reads a section as often as it takes to find every value of a wrong type.
    fn section<T: DeserializeOwned + Default>(&mut self, at: &At, value: &Spanned<DeValue<'t>>) -> T {
        if !value.get_ref().is_table() {
            self.findings.error(at, format!("must be a table, not {}", kind(value.get_ref())));
            self.findings.damage(at);
            return T::default();
        }
        let mut left_out = self.misplaced_lists(at, value);
        // An element of a list is left out alone until the other elements have been looked at; then the list goes as a
        // whole, since the elements behind it would have changed their places.
        let mut element_alone = true;
        while let Some(kept) = without(value, &left_out, element_alone) {
            let mut unknown = Vec::new();
            match serde_ignored::deserialize(ValueDeserializer::from(kept), |path| unknown.push(steps(&path))) {
                Ok(typed) if left_out.is_empty() || !element_alone => {
                    unknown.iter().for_each(|path| self.unwanted(at, path));
                    return typed;
                }
                Ok(_) => element_alone = false,
                Err(error) => match self.wrong_type(at, value, &error) {
                    Some(span) if !left_out.contains(&span) => left_out.push(span),
                    _ => break,
                },
            }
        }
        T::default()
    }

    /// Reports lists where a table belongs; serde would take their elements for the fields in their order.
    fn misplaced_lists(&mut self, at: &At, section: &Spanned<DeValue>) -> Vec<Range<usize>> {
        let (mut found, mut spans) = (Vec::new(), Vec::new());
        lists(section, &mut Vec::new(), &mut found);
        for (path, span) in found {
            let at = At::Below(at, &path);
            if file::wants_table(self.schema.get_or_insert_with(file::schema), &at.steps()) {
                self.findings.error(&at, "must be a table, not a list");
                self.findings.damage(&at);
                spans.push(span);
            }
        }
        spans
    }

    /// Reports a value that does not fit; gives the span of what to leave out.
    fn wrong_type(&mut self, at: &At, section: &Spanned<DeValue<'t>>, error: &TomlError) -> Option<Range<usize>> {
        let span = error.span()?;
        let path = find(section, &span);
        let at = At::Below(at, path.as_deref().unwrap_or_default());
        let (message, help) = explain(error.message(), self.findings.sources()[at.file()].value(&at));
        let problem = self.findings.error(&at, message);
        if let Some(help) = help {
            problem.help(help);
        }
        self.findings.damage(&at);
        if let Some(Step::Index(_)) = path.as_ref().and_then(|path| path.last()) {
            self.findings.damage(&at.parent());
        }
        path.map(|_| span)
    }

    /// Reports a key that no field took.
    fn unwanted(&mut self, at: &At, path: &[Step]) {
        let at = At::Below(at, path);
        // A date where a table could stand comes as a table with one key, which toml reserves for itself.
        if matches!(path.last(), Some(Step::Key(key)) if key.starts_with("$__toml_private")) {
            self.findings.error(&at.parent(), "must not be a date or a time");
            self.findings.damage(&at.parent());
        } else {
            self.unknown(&at);
        }
    }

    fn unknown(&mut self, at: &At) {
        let mut path = at.steps();
        let Some(Step::Key(key)) = path.pop() else { return };
        let known = file::known_keys(self.schema.get_or_insert_with(file::schema), &path);
        let problem = self.findings.key_error(at, format!("unknown key `{key}`"));
        if mask::is_secret_key(&key) {
            problem.help(
                "A secret never stands in the policy; a database says where its own is: `password = \"file:/path\"`.",
            );
        }
        problem.suggest(&key, known.iter().map(String::as_str));
    }
}

/// The steps of a path of serde_ignored, without its marks for options and newtypes.
fn steps(path: &Path) -> Vec<Step> {
    let (parent, step) = match path {
        Path::Root => return Vec::new(),
        Path::Seq { parent, index } => (parent, Some(Step::Index(*index))),
        Path::Map { parent, key } => (parent, Some(Step::Key(key.clone()))),
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => (parent, None),
    };
    let mut steps = steps(parent);
    steps.extend(step);
    steps
}

/// Gathers the lists below a value, each with its path and span.
fn lists(value: &Spanned<DeValue>, path: &mut Vec<Step>, found: &mut Vec<(Vec<Step>, Range<usize>)>) {
    let mut below = |step, value: &Spanned<DeValue>| {
        path.push(step);
        if value.get_ref().is_array() {
            found.push((path.clone(), value.span()));
        }
        lists(value, path, found);
        path.pop();
    };
    match value.get_ref() {
        DeValue::Table(table) => table.iter().for_each(|(key, value)| below(Step::Key(key.to_string()), value)),
        DeValue::Array(list) => {
            list.iter().enumerate().for_each(|(index, value)| below(Step::Index(index), value));
        }
        _ => {}
    }
}

/// The path to the value that has this span; the list rather than its first table, which stand at the same header.
fn find(value: &Spanned<DeValue>, span: &Range<usize>) -> Option<Vec<Step>> {
    if value.span() == *span {
        return Some(Vec::new());
    }
    let under = |step, below: &Spanned<DeValue>| find(below, span).map(|path| [vec![step], path].concat());
    match value.get_ref() {
        DeValue::Table(table) => {
            table.iter().find_map(|(key, value)| under(Step::Key(key.get_ref().to_string()), value))
        }
        DeValue::Array(list) => list.iter().enumerate().find_map(|(index, value)| under(Step::Index(index), value)),
        _ => None,
    }
}

/// A copy of a value without those at these spans; of a list either without the element, or without the whole list.
fn without<'t>(
    value: &Spanned<DeValue<'t>>,
    left_out: &[Range<usize>],
    element_alone: bool,
) -> Option<Spanned<DeValue<'t>>> {
    let is_left_out = |value: &Spanned<DeValue>| left_out.contains(&value.span());
    let copy = |value| without(value, left_out, element_alone);
    let kept = match value.get_ref() {
        _ if is_left_out(value) => return None,
        DeValue::Array(list) if !element_alone && list.iter().any(is_left_out) => return None,
        DeValue::Array(list) => DeValue::Array(list.iter().filter_map(copy).collect()),
        DeValue::Table(table) => {
            DeValue::Table(table.iter().filter_map(|(key, value)| Some((key.clone(), copy(value)?))).collect())
        }
        other => other.clone(),
    };
    Some(Spanned::new(value.span(), kept))
}

/// Serde's message in the words of the policy, and the likely fix. A value is repeated only where it is a number.
fn explain(message: &str, value: Option<&DeValue>) -> (String, Option<String>) {
    let found = value.map_or("a value of another type", kind);
    if let Some((_, expected)) = message.strip_prefix("invalid type: ").and_then(|rest| rest.rsplit_once(", expected "))
    {
        return (format!("must be {}, not {found}", in_words(expected)), None);
    }
    if let Some((_, expected)) =
        message.strip_prefix("invalid value: ").and_then(|rest| rest.rsplit_once(", expected "))
    {
        let found = value.and_then(DeValue::as_integer).map_or(found.to_owned(), |number| format!("`{number}`"));
        return (format!("must be {}, not {found}", in_words(expected)), None);
    }
    if let Some((variant, expected)) =
        message.strip_prefix("unknown variant ").and_then(|rest| rest.split_once(", expected "))
    {
        let words: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        let meant = did_you_mean(variant.trim_matches('`'), words.iter().copied());
        let help = meant.map(|word| format!("did you mean `{word}`?"));
        return (format!("{variant} is not one of: {}", words.join(", ")), help);
    }
    match message.split_once('\n') {
        Some((message, help)) => (message.to_owned(), Some(help.to_owned())),
        None => (message.to_owned(), None),
    }
}

/// What serde expected, for people.
fn in_words(expected: &str) -> &str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "f64" => "a number",
        "a boolean" => "`true` or `false`",
        "a sequence" => "a list",
        "a string" => "a text",
        "path string" => "a path",
        "a map" => "a table",
        other if other.starts_with("struct ") => "a table",
        other => other,
    }
}

/// The type of a value, for people.
fn kind(value: &DeValue) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "`true` or `false`",
        DeValue::Datetime(_) => "a date or a time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::{Policy, Severity};

    /// The errors of a policy, one line each.
    fn problems(text: &str) -> Vec<String> {
        let problems = Policy::parse(vec![("p".into(), text.to_owned())]).unwrap_err();
        let errors = problems.list().iter().filter(|problem| problem.severity == Severity::Error);
        errors.map(ToString::to_string).collect()
    }

    #[test]
    fn every_wrong_type_and_every_unknown_key_of_a_section_is_told() {
        let told = problems(
            "[daemon]\nmax_parallel = \"two\"\nstop_grace = 5\nkeep_runs = \"soon\"\nkeep_log = \"1d\"\nstate_dir = true",
        );
        assert_eq!(
            told,
            [
                "p:2:16: daemon.max_parallel: must be a whole number, 0 or more, not a text",
                "p:3:14: daemon.stop_grace: `5` has no unit (Write \"5s\" for seconds, \"5m\" for minutes.)",
                "p:4:13: daemon.keep_runs: `soon` is no length of time: expected number at 0 (Write for example \"30s\", \
                 \"15m\", \"1h 30m\" or \"7d\".)",
                "p:5:1: daemon: unknown key `keep_log` (did you mean `keep_logs`?)",
                "p:6:13: daemon.state_dir: must be a path, not `true` or `false`",
            ]
        );
    }

    #[test]
    fn every_wrong_element_of_a_list_is_told_at_its_own_place() {
        let told = problems(
            "[database.a]\npgbackrest = { repos = [1, \"x\", 2, -3] }\n[database.a.schedule]\nfull = [5, true]",
        );
        assert_eq!(
            told,
            [
                "p:2:28: database.a.pgbackrest.repos[1]: must be a whole number, 0 or more, not a text",
                "p:2:36: database.a.pgbackrest.repos[3]: must be a whole number, 0 or more, not `-3`",
                "p:4:9: database.a.schedule.full[0]: must be a cron text such as \"0 2 * * SUN\" or a table with `cron`, not a number",
                "p:4:12: database.a.schedule.full[1]: must be a cron text such as \"0 2 * * SUN\" or a table with `cron`, not `true` or `false`",
            ]
        );
    }

    #[test]
    fn a_section_that_is_no_table_is_told_once() {
        assert_eq!(problems("daemon = 1"), ["p:1:10: daemon: must be a table, not a number"]);
        let told = problems("database = 1\n[tier]\ngold = 2");
        assert_eq!(
            told,
            [
                "p:1:12: database: must be a table of named sections (Write `[database.NAME]`.)",
                "p:3:8: tier.gold: must be a table, not a number",
            ]
        );
        assert!(
            problems("[[database.a.retention]]\nfull = 1")[0]
                .contains("database.a.retention: must be a table, not a list")
        );
    }

    #[test]
    fn a_date_is_no_schedule() {
        let told = problems("[database.a]\nschedule = { full = 2026-01-01 }");
        assert!(told[0].starts_with("p:2:21: database.a.schedule.full: must not be a date or a time"), "{told:?}");
    }
}
