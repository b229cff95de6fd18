//! The archive's listing, from `repo-ls --output=json --recurse archive/STANZA`.
//!
//! Read in one pass without keeping the JSON: a busy year is half a million segments. A newcomer would trust every
//! name of 24 digits; a segment is complete only with its checksum behind it, `.partial` is not one.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::Unreadable;
use crate::recovery::{Conflict, Listing, Segment};

/// Reads a listing: one per archive id, in the order of the ids.
///
/// `archive_id` names the archive when one was listed alone; the paths are then relative to it. An archive that does
/// not exist lists as nothing, which is no error.
///
/// # Errors
/// When it is not the JSON object that `repo-ls` writes.
pub fn listings(bytes: &[u8], archive_id: Option<&str>) -> Result<Vec<Listing>, Unreadable> {
    let text = String::from_utf8_lossy(bytes);
    let mut archives = Archives { only: archive_id, found: BTreeMap::new() };
    archives.found.extend(archive_id.map(|id| (id.to_owned(), Found::default())));
    serde_json::Deserializer::from_str(&text)
        .deserialize_map(&mut archives)
        .map_err(|source| Unreadable { what: "listing of the archive", source })?;
    Ok(archives.found.into_iter().map(|(id, found)| found.settle(id)).collect())
}

/// Reads the names in a listing, of whatever it is.
///
/// # Errors
/// When it is not the JSON object that `repo-ls` writes.
pub fn names(bytes: &[u8]) -> Result<BTreeSet<String>, Unreadable> {
    let found: Result<BTreeMap<String, IgnoredAny>, _> = serde_json::from_slice(bytes);
    let found = found.map_err(|source| Unreadable { what: "listing of the repository", source })?;
    Ok(found.into_keys().collect())
}

struct Archives<'a> {
    only: Option<&'a str>,
    found: BTreeMap<String, Found>,
}

#[derive(Default)]
struct Found {
    segments: Vec<(Segment, [u8; 40])>,
    partials: Vec<Segment>,
    listing: Listing,
}

impl Archives<'_> {
    fn note(&mut self, path: &str) {
        let (id, rest) = match self.only {
            Some(id) => (id, path),
            None => path.split_once('/').unwrap_or((path, "")),
        };
        if !is_archive_id(id) {
            return;
        }
        let found = match self.found.get_mut(id) {
            Some(found) => found,
            None => self.found.entry(id.to_owned()).or_default(),
        };
        found.note(rest.rsplit('/').next().unwrap_or(rest));
    }
}

/// `15-1`, `9.6-2`: the version and pgBackRest's number of the cluster.
fn is_archive_id(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    name.split_once('-').is_some_and(|(version, id)| digits(version) && digits(id))
}

impl Found {
    fn note(&mut self, name: &str) {
        if let Some(timeline) = name.strip_suffix(".history") {
            self.listing.history_files.extend(u32::from_str_radix(timeline, 16));
            return;
        }
        let Some(segment) = name.get(..24).and_then(|digits| digits.parse::<Segment>().ok()) else { return };
        let rest = &name[24..];
        if rest.starts_with(".partial") {
            self.partials.push(segment);
        } else if let Some(checksum) = rest.strip_prefix('-').and_then(checksum) {
            self.segments.push((segment, checksum));
        }
    }

    fn settle(mut self, archive_id: String) -> Listing {
        // The tool lists in order; sorting again costs one pass and forgives one that does not.
        self.segments.sort();
        self.segments.dedup();
        let mut listing = self.listing;
        for copies in self.segments.chunk_by(|a, b| a.0 == b.0) {
            let segment = copies[0].0;
            listing.segments.push(segment);
            if copies.len() > 1 {
                let checksums = copies.iter().map(|(_, sha1)| String::from_utf8_lossy(sha1).into_owned());
                listing.conflicts.push(Conflict { segment, checksums: checksums.collect() });
            }
        }
        self.partials.sort();
        self.partials.dedup();
        Listing { archive_id, partials: self.partials, ..listing }
    }
}

/// The 40 hexadecimal digits before the suffix of the compression, if any.
fn checksum(text: &str) -> Option<[u8; 40]> {
    let (digits, suffix) = text.split_at_checked(40)?;
    let is_hex = digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let is_whole = matches!(suffix, "" | ".gz" | ".lz4" | ".zst" | ".bz2");
    if is_hex && is_whole { digits.as_bytes().try_into().ok() } else { None }
}

impl<'de> Visitor<'de> for &mut Archives<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of paths")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((path, IgnoredAny)) = map.next_entry::<Path<'de>, _>()? {
            self.note(&path.0);
        }
        Ok(())
    }
}

/// A key that is borrowed wherever it holds no escape.
struct Path<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Path<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PathVisitor;
        impl<'de> Visitor<'de> for PathVisitor {
            type Value = Path<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Path<'de>, E> {
                Ok(Path(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Path<'de>, E> {
                Ok(Path(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(PathVisitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::recovery::{History, SegmentSize, analyse};

    const ONE: &[u8] = include_bytes!("../../../tests/samples/pgbackrest-repo-ls-archive.json");
    const THREE: &[u8] = include_bytes!("../../../tests/samples/pgbackrest-repo-ls-three-timelines.json");
    const SIZE: SegmentSize = SegmentSize::DEFAULT;

    #[test]
    fn the_real_listing_with_a_hole_shows_it() {
        let listing = listings(ONE, None).unwrap().remove(0);
        assert_eq!((&*listing.archive_id, listing.conflicts.len()), ("15-1", 0));
        let archive = analyse(&listing, &[], SIZE, Some(1), &[]);
        let runs: Vec<_> = archive.runs.iter().map(|run| format!("{}..{}", run.first, run.last)).collect();
        insta::assert_debug_snapshot!(runs, @r#"
        [
            "000000010000000000000083..000000010000000100000002",
        ]
        "#);
        let gaps: Vec<_> = archive.holes.iter().map(|hole| hole.gap.to_string()).collect();
        assert_eq!(gaps.len() + 1, runs.len());
    }

    #[test]
    fn the_real_listing_with_three_timelines_joins_at_its_history() {
        let mut listing = listings(THREE, None).unwrap().remove(0);
        assert_eq!(listing.history_files, [2, 3].into());
        let history = "1\t0/19000000\tno recovery target specified\n\n2\t0/1D0001A8\tat restore point \"p1\"\n";
        listing.histories.insert(3, History::parse(history).unwrap());
        let archive = analyse(&listing, &[], SIZE, Some(3), &[]);
        assert_eq!((archive.holes.len(), archive.foreign_timelines.len()), (0, 0));
        assert_eq!(archive.contiguous_to.unwrap().to_string(), "00000003000000000000001F");
    }

    #[test]
    fn only_whole_segments_count_and_two_contents_are_a_conflict() {
        let sha = ["a", "b"].map(|c| c.repeat(40));
        let names = [
            format!("15-1/0000000100000000/000000010000000000000001-{}.gz", sha[0]),
            format!("15-1/0000000100000000/000000010000000000000001-{}.gz", sha[1]),
            format!("15-1/0000000100000000/000000010000000000000002.partial-{}.gz", sha[0]),
            format!("15-1/0000000100000000/000000010000000000000003-{}", sha[0]),
            format!("15-1/0000000100000000/000000010000000000000004-{}.tmp", sha[0]),
            "15-1/0000000100000000/000000010000000000000003.00000028.backup".to_owned(),
            "15-1/00000002.history".to_owned(),
            "archive.info".to_owned(),
        ];
        let json = serde_json::to_vec(&names.iter().map(|n| (n, ())).collect::<BTreeMap<_, _>>()).unwrap();
        let listing = listings(&json, None).unwrap().remove(0);
        let segments: Vec<_> = listing.segments.iter().map(Segment::to_string).collect();
        assert_eq!(segments, ["000000010000000000000001", "000000010000000000000003"]);
        assert_eq!((listing.conflicts.len(), listing.partials.len()), (1, 1));
        assert_eq!(listing.conflicts[0].checksums, sha);
    }

    #[test]
    fn an_archive_that_is_not_there_is_empty() {
        let nothing = br#"{".":{"type":"path"}}"#;
        assert_eq!(listings(nothing, None).unwrap(), []);
        assert_eq!(listings(nothing, Some("15-1")).unwrap()[0].segments, []);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes: Vec<u8>, name in "[0-9A-Fa-f/.é-]{0,80}") {
            let _ = listings(&bytes, None);
            let _ = listings(format!("{{{name:?}:{{}}}}").as_bytes(), Some("15-1"));
        }
    }
}
