//! Values that are written in more ways than one, or in a form of their own.
//!
//! Each has a visitor whose `expecting` a person understands. An error may say its likely fix on a second line;
//! `read.rs` takes them apart. A newcomer would repeat any text in an error: only texts of a fixed form may be repeated.

use std::{borrow::Cow, fmt, time::Duration};

use chrono::NaiveTime;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

use super::Timing;
use crate::{
    policy::{IoClass, NotAfter},
    record::Compression,
};

/// Gives a type its JSON Schema under its own name.
macro_rules! has_schema {
    ($name:ident, |$generator:ident| $schema:expr) => {
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema($generator: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

/// A length of time, e.g. `15m`, `7d`, `1h 30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::policy) struct Length(pub(in crate::policy) Duration);

has_schema!(Length, |_generator| json_schema!({
    "type": "string",
    "description": "A length of time: `30s`, `15m`, `1h 30m`, `7d`.",
    "pattern": r"^\s*(\d+(\.\d+)?\s*[A-Za-zµ]+\s*)+$",
}));

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LengthVisitor)
    }
}

struct LengthVisitor;

impl Visitor<'_> for LengthVisitor {
    type Value = Length;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a length of time such as \"15m\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Length, E> {
        parse_length(text).map(Length).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Length, E> {
        let number = number.unsigned_abs();
        Err(E::custom(format!("`{number}` has no unit\nWrite \"{number}s\" for seconds, \"{number}m\" for minutes.")))
    }
}

/// What is longer is a mistake, and would overflow the calendar.
const LONGEST: Duration = Duration::from_secs(36_525 * 86_400);

fn parse_length(text: &str) -> Result<Duration, String> {
    let help = "Write for example \"30s\", \"15m\", \"1h 30m\" or \"7d\".";
    match humantime::parse_duration(text) {
        Ok(length) if length <= LONGEST => Ok(length),
        Ok(_) => Err(format!("`{text}` is longer than a century")),
        Err(error) => Err(format!("`{text}` is no length of time: {error}\n{help}")),
    }
}

/// The latest start: `06:00`, or a length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::policy) struct Start(pub(in crate::policy) NotAfter);

has_schema!(Start, |_generator| json_schema!({
    "type": "string",
    "description": "A local time `HH:MM`, or a length of time after the schedule.",
}));

impl<'de> Deserialize<'de> for Start {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(StartVisitor)
    }
}

struct StartVisitor;

impl Visitor<'_> for StartVisitor {
    type Value = Start;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a local time such as \"06:00\" or a length of time such as \"2h\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Start, E> {
        if !text.contains(':') {
            return parse_length(text).map(|length| Start(NotAfter::Delay(length))).map_err(E::custom);
        }
        let time = NaiveTime::parse_from_str(text, "%H:%M");
        let help = "Write hours and minutes, 00:00 to 23:59.";
        time.map(|time| Start(NotAfter::LocalTime(time)))
            .map_err(|_| E::custom(format!("`{text}` is no time of day\n{help}")))
    }
}

/// I/O scheduling class: `idle`, or `best-effort:0` to `best-effort:7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::policy) struct Ionice(pub(in crate::policy) IoClass);

has_schema!(Ionice, |_generator| json_schema!({
    "type": "string",
    "description": "`idle`, or `best-effort:0` (first) to `best-effort:7` (last).",
    "pattern": "^(idle|best-effort:[0-7])$",
}));

impl<'de> Deserialize<'de> for Ionice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(IoniceVisitor)
    }
}

struct IoniceVisitor;

impl Visitor<'_> for IoniceVisitor {
    type Value = Ionice;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"idle\" or \"best-effort:0\" to \"best-effort:7\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Ionice, E> {
        let priority = text.strip_prefix("best-effort:").and_then(|digits| digits.parse().ok());
        match (text, priority) {
            ("idle", _) => Ok(Ionice(IoClass::Idle)),
            (_, Some(priority @ 0..=7)) => Ok(Ionice(IoClass::BestEffort(priority))),
            _ => Err(E::custom(format!(
                "`{text}` is no I/O class\nWrite \"idle\" or \"best-effort:0\" to \"best-effort:7\"."
            ))),
        }
    }
}

/// A method of compression and its level: `zstd:3`, `gzip:6` or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::policy) struct Squeeze(pub(in crate::policy) Compression);

has_schema!(Squeeze, |_generator| json_schema!({
    "type": "string",
    "description": "`none`, `gzip` with a level of 1 to 9 (6), or `zstd` with a level of 1 to 19 (3).",
    "pattern": "^(none|gzip(:[1-9])?|zstd(:([1-9]|1[0-9]))?)$",
}));

impl<'de> Deserialize<'de> for Squeeze {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(SqueezeVisitor)
    }
}

struct SqueezeVisitor;

impl Visitor<'_> for SqueezeVisitor {
    type Value = Squeeze;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a method of compression such as \"zstd:3\", \"gzip:6\" or \"none\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Squeeze, E> {
        let help = "Write \"none\", \"gzip:1\" to \"gzip:9\", or \"zstd:1\" to \"zstd:19\".";
        text.parse().map(Squeeze).map_err(|_| E::custom(format!("`{text}` is no compression\n{help}")))
    }
}

/// One name, or a list of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::policy) struct Names(pub(in crate::policy) Vec<String>);

has_schema!(Names, |_generator| json_schema!({
    "description": "One name, or a list of names.",
    "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" }, "minItems": 1 }],
}));

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NamesVisitor)
    }
}

struct NamesVisitor;

impl<'de> Visitor<'de> for NamesVisitor {
    type Value = Names;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name or a list of names")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Names, E> {
        Ok(Names(vec![name.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Names, A::Error> {
        let mut names = Vec::new();
        while let Some(name) = list.next_element()? {
            names.push(name);
        }
        Ok(Names(names))
    }
}

/// What an assertion's value must be, as `psql -At` prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::policy) struct Answer(pub(in crate::policy) String);

has_schema!(Answer, |_generator| json_schema!({
    "type": ["string", "number", "boolean"],
    "description": "`true` and `false` are what the server prints as `t` and `f`.",
}));

impl<'de> Deserialize<'de> for Answer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnswerVisitor)
    }
}

struct AnswerVisitor;

impl Visitor<'_> for AnswerVisitor {
    type Value = Answer;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, `true` or `false`")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Answer, E> {
        Ok(Answer(if value { "t" } else { "f" }.to_owned()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Answer, E> {
        Ok(Answer(value.to_string()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Answer, E> {
        Ok(Answer(value.to_string()))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Answer, E> {
        Ok(Answer(value.to_owned()))
    }
}

/// One schedule: a cron text, or a table with rules of its own.
#[derive(Debug)]
pub(in crate::policy) enum Entry {
    /// A cron text.
    Text(String),
    /// A table.
    Table(Box<Timing>),
}

has_schema!(Entry, |generator| json_schema!({
    "description": "A cron text, or a table with `cron` and rules of its own.",
    "anyOf": [{ "type": "string" }, generator.subschema_for::<Timing>()],
}));

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a cron text such as \"0 2 * * SUN\" or a table with `cron`")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Entry, E> {
        Ok(Entry::Text(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Entry, A::Error> {
        Timing::deserialize(MapAccessDeserializer::new(map)).map(Box::new).map(Entry::Table)
    }
}

/// A schedule value: one schedule, or a list of them.
#[derive(Debug)]
pub(in crate::policy) enum When {
    /// One.
    One(Entry),
    /// Several.
    Many(Vec<Entry>),
}

has_schema!(When, |generator| json_schema!({
    "description": "A cron text, a table with `cron` and rules of its own, or a list of these.",
    "anyOf": [
        generator.subschema_for::<Entry>(),
        { "type": "array", "items": generator.subschema_for::<Entry>(), "minItems": 1 },
    ],
}));

impl<'de> Deserialize<'de> for When {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WhenVisitor)
    }
}

struct WhenVisitor;

impl<'de> Visitor<'de> for WhenVisitor {
    type Value = When;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a cron text such as \"0 2 * * SUN\", a table with `cron`, or a list of these")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<When, E> {
        EntryVisitor.visit_str(text).map(When::One)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<When, A::Error> {
        EntryVisitor.visit_map(map).map(When::One)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<When, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = list.next_element()? {
            entries.push(entry);
        }
        Ok(When::Many(entries))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read<T: for<'de> Deserialize<'de>>(value: &str) -> Result<T, String> {
        let deserializer = toml::de::ValueDeserializer::parse(value).unwrap();
        T::deserialize(deserializer).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn lengths_read_as_people_write_them() {
        for (text, seconds) in [("\"15m\"", 900), ("\"7d\"", 604_800), ("\"1h 30m\"", 5_400), ("\"0s\"", 0)] {
            assert_eq!(read::<Length>(text), Ok(Length(Duration::from_secs(seconds))), "{text}");
        }
        assert_eq!(read::<Length>("5").unwrap_err(), "`5` has no unit\nWrite \"5s\" for seconds, \"5m\" for minutes.");
        assert!(read::<Length>("\"5 parsecs\"").unwrap_err().starts_with("`5 parsecs` is no length of time: "));
    }

    proptest! {
        #[test]
        fn every_length_prints_and_reads_back_equal(seconds in 0u64..3_000_000_000) {
            let length = Duration::from_secs(seconds);
            let text = format!("\"{}\"", humantime::format_duration(length));
            prop_assert_eq!(read::<Length>(&text), Ok(Length(length)));
        }
    }

    #[test]
    fn a_latest_start_is_a_time_of_day_or_a_delay() {
        let six = NaiveTime::from_hms_opt(6, 0, 0).unwrap();
        assert_eq!(read("\"06:00\""), Ok(Start(NotAfter::LocalTime(six))));
        assert_eq!(read("\"2h\""), Ok(Start(NotAfter::Delay(Duration::from_secs(7_200)))));
        assert!(read::<Start>("\"24:30\"").unwrap_err().starts_with("`24:30` is no time of day"));
    }

    #[test]
    fn an_io_class_has_a_priority_from_0_to_7() {
        assert_eq!(read("\"idle\""), Ok(Ionice(IoClass::Idle)));
        assert_eq!(read("\"best-effort:7\""), Ok(Ionice(IoClass::BestEffort(7))));
        for text in ["\"best-effort:8\"", "\"best-effort\"", "\"realtime:0\""] {
            assert!(read::<Ionice>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_compression_has_a_level_of_its_method() {
        assert_eq!(read("\"zstd:19\""), Ok(Squeeze("zstd:19".parse().unwrap())));
        assert_eq!(read("\"none\""), Ok(Squeeze(Compression::NONE)));
        assert!(read::<Squeeze>("\"gzip:10\"").unwrap_err().starts_with("`gzip:10` is no compression\n"));
        assert!(read::<Squeeze>("3").unwrap_err().contains("a method of compression such as"));
    }

    #[test]
    fn names_are_one_or_a_list() {
        let names = |names: &[&str]| Ok(Names(names.iter().map(ToString::to_string).collect()));
        assert_eq!(read("\"local\""), names(&["local"]));
        assert_eq!(read("[\"local\", \"offsite\"]"), names(&["local", "offsite"]));
        assert!(read::<Names>("7").unwrap_err().contains("a name or a list of names"));
    }

    #[test]
    fn an_answer_reads_as_psql_prints_it() {
        for (value, answer) in [("true", "t"), ("false", "f"), ("42", "42"), ("1.5", "1.5"), ("\"paid\"", "paid")] {
            assert_eq!(read(value), Ok(Answer(answer.to_owned())));
        }
    }

    #[test]
    fn a_schedule_is_a_text_a_table_or_a_list_of_these() {
        assert!(matches!(read("\"0 2 * * *\""), Ok(When::One(Entry::Text(_)))));
        assert!(matches!(read("{ cron = \"0 2 * * *\" }"), Ok(When::One(Entry::Table(_)))));
        let list = read::<When>("[\"0 2 * * *\", { cron = \"0 3 * * *\", name = \"late\" }]");
        assert!(matches!(list, Ok(When::Many(entries)) if entries.len() == 2));
        assert!(read::<When>("true").unwrap_err().contains("a cron text such as"));
    }
}
