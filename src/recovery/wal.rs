//! Positions in the write-ahead log: LSNs, segment names and their arithmetic.
//!
//! A segment is kept as its name says it, so that no size is needed to read, sort or print one; every step from one
//! segment to another takes the cluster's segment size. A newcomer would assume 16 MiB, and would find a gap at each
//! `…FF` of a cluster that uses another size.

use std::{fmt, str::FromStr};

/// A text that is no LSN, segment name, gap or timeline history.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is no {what}")]
pub struct BadWal {
    pub(super) text: String,
    pub(super) what: &'static str,
}

impl BadWal {
    pub(super) fn new(text: &str, what: &'static str) -> Self {
        Self { text: text.chars().take(80).collect(), what }
    }
}

/// A byte position in the log, `0/13000028`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(u64);

impl Lsn {
    /// The position as a number of bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The number of bytes before it.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Lsn {
    type Err = BadWal;

    fn from_str(text: &str) -> Result<Self, BadWal> {
        let half = |digits: &str| match digits.len() {
            1..=8 if digits.bytes().all(|b| b.is_ascii_hexdigit()) => u64::from_str_radix(digits, 16).ok(),
            _ => None,
        };
        let halves = text.split_once('/').and_then(|(high, low)| Some((half(high)?, half(low)?)));
        halves.map(|(high, low)| Self(high << 32 | low)).ok_or_else(|| BadWal::new(text, "LSN"))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// The size of a cluster's segments: a power of two between 1 MiB and 1 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentSize(u64);

impl SegmentSize {
    /// What `initdb` chooses when it is not told otherwise.
    pub const DEFAULT: Self = Self(16 << 20);

    /// A size in bytes, when it is one that PostgreSQL can have.
    pub fn new(bytes: u64) -> Option<Self> {
        (bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes)).then_some(Self(bytes))
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// How many segments share the middle eight digits of their names.
    const fn per_log(self) -> u64 {
        (1 << 32) / self.0
    }
}

/// A WAL segment by its 24 digits: timeline, log, segment within the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Segment {
    timeline: u32,
    log: u32,
    seg: u32,
}

impl Segment {
    /// The segment of a timeline with a running number; numbers follow each other without a hole.
    pub fn at(timeline: u32, number: u64, size: SegmentSize) -> Self {
        let log = u32::try_from(number / size.per_log()).unwrap_or(u32::MAX);
        let seg = u32::try_from(number % size.per_log()).unwrap_or(u32::MAX);
        Self { timeline, log, seg }
    }

    /// The segment of a timeline that holds a position.
    pub fn containing(timeline: u32, lsn: Lsn, size: SegmentSize) -> Self {
        Self::at(timeline, lsn.0 / size.0, size)
    }

    /// Its timeline.
    pub const fn timeline(self) -> u32 {
        self.timeline
    }

    /// Its running number.
    pub const fn number(self, size: SegmentSize) -> u64 {
        self.log as u64 * size.per_log() + self.seg as u64
    }

    /// The one after it on the same timeline.
    #[must_use]
    pub fn next(self, size: SegmentSize) -> Self {
        Self::at(self.timeline, self.number(size) + 1, size)
    }

    /// The first position in it.
    pub const fn start(self, size: SegmentSize) -> Lsn {
        Lsn(self.number(size).saturating_mul(size.0))
    }

    /// The first position after it.
    pub const fn end(self, size: SegmentSize) -> Lsn {
        Lsn(self.start(size).0.saturating_add(size.0))
    }

    /// Whether a cluster with this segment size can have a segment of this name.
    pub const fn fits(self, size: SegmentSize) -> bool {
        (self.seg as u64) < size.per_log() && self.timeline > 0
    }
}

impl FromStr for Segment {
    type Err = BadWal;

    fn from_str(name: &str) -> Result<Self, BadWal> {
        let is_digit = |b: u8| b.is_ascii_digit() || (b'A'..=b'F').contains(&b);
        if name.len() != 24 || !name.bytes().all(is_digit) {
            return Err(BadWal::new(name, "WAL segment"));
        }
        let part = |from: usize| u32::from_str_radix(&name[from..from + 8], 16).expect("eight hexadecimal digits fit");
        Ok(Self { timeline: part(0), log: part(8), seg: part(16) })
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline, self.log, self.seg)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: SegmentSize = SegmentSize::DEFAULT;

    fn size() -> impl Strategy<Value = SegmentSize> {
        (20..=30u32).prop_map(|shift| SegmentSize::new(1 << shift).unwrap())
    }

    #[test]
    fn the_last_segment_of_a_log_is_followed_by_the_first_of_the_next() {
        let segment: Segment = "0000000100000000000000FF".parse().unwrap();
        assert_eq!(segment.next(SIZE).to_string(), "000000010000000100000000");
        let large = SegmentSize::new(1 << 30).unwrap();
        let segment: Segment = "000000010000000000000003".parse().unwrap();
        assert_eq!(segment.next(large).to_string(), "000000010000000100000000");
    }

    #[test]
    fn a_position_lies_in_the_segment_that_postgres_says() {
        let lsn: Lsn = "1/15000028".parse().unwrap();
        assert_eq!(Segment::containing(1, lsn, SIZE).to_string(), "000000010000000100000015");
        assert_eq!("000000010000000100000015".parse::<Segment>().unwrap().end(SIZE).to_string(), "1/16000000");
    }

    #[test]
    fn names_that_are_none_are_refused() {
        for name in ["", "0000000100000000000000fg", "0000000100000000000000F", "0000000100000000000000ff", "é"] {
            assert!(name.parse::<Segment>().is_err(), "{name}");
        }
        for text in ["", "/", "1/", "0/123456789", "0/+1", "x/1", "1/2/3"] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_from_another_segment_size_does_not_fit() {
        let segment: Segment = "0000000100000000000000FF".parse().unwrap();
        assert!(segment.fits(SIZE));
        assert!(!segment.fits(SegmentSize::new(64 << 20).unwrap()));
        assert_eq!(SegmentSize::new(15 << 20), None);
    }

    proptest! {
        #[test]
        fn names_and_numbers_round_trip(timeline in 1..u32::MAX, number in 0..1u64 << 34, size in size()) {
            let number = number % ((1 << 32) * size.per_log());
            let segment = Segment::at(timeline, number, size);
            prop_assert_eq!(segment.number(size), number);
            prop_assert_eq!(segment.to_string().parse(), Ok(segment));
            prop_assert!(segment.fits(size));
        }

        #[test]
        fn order_of_names_is_order_of_numbers(a in 0..1u64 << 32, b in 0..1u64 << 32, size in size()) {
            let (first, second) = (Segment::at(1, a, size), Segment::at(1, b, size));
            prop_assert_eq!(first.cmp(&second), a.cmp(&b));
            prop_assert_eq!(first.to_string().cmp(&second.to_string()), a.cmp(&b));
        }

        #[test]
        fn positions_round_trip(bytes: u64, text in "\\PC*") {
            prop_assert_eq!(Lsn::new(bytes).to_string().parse(), Ok(Lsn::new(bytes)));
            let _ = text.parse::<Lsn>();
            let _ = text.parse::<Segment>();
        }
    }
}
