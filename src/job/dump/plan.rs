//! What is decided about a dump, without doing anything: how much space it wants, what its files are called, how long it
//! stays, whether it is suspiciously small, and what people read of it.
//!
//! A newcomer would guess the space from the source alone; a database that always shrinks to a tenth needs a tenth.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::{
    catalog::DumpHistory,
    human::{size, took},
    policy::{self, Place, Retention},
    record::{Backup, BackupCopy, Compression, CompressionMethod, CopyState, Dump, Encryption, EncryptionMethod},
};

/// What is added to the size of the source, in percent.
const RESERVE_PERCENT: u64 = 20;
/// What compression leaves where nothing is known of the database yet.
const UNKNOWN_RATIO: f64 = 0.3;
/// No history may promise more than this: the next dump may be of another kind.
const LEAST_RATIO: f64 = 0.01;

/// Bytes that one copy will take at most.
pub(super) fn needed(source: u64, compression: Compression, history: &DumpHistory) -> u64 {
    let ratio = match compression.method {
        _ if history.count > 0 && history.ratio > 0.0 => history.ratio.clamp(LEAST_RATIO, 1.0),
        CompressionMethod::None => 1.0,
        CompressionMethod::Gzip | CompressionMethod::Zstd => UNKNOWN_RATIO,
    };
    (staged(source) as f64 * ratio).ceil() as u64
}

/// Bytes that a staged dump will take at most in the scratch directory, where nothing is compressed.
pub(super) fn staged(source: u64) -> u64 {
    source.saturating_add(source / 100 * RESERVE_PERCENT + source % 100 * RESERVE_PERCENT / 100)
}

/// About how many bytes the tool will write, where that can be guessed.
pub(super) fn expected(source: u64, history: &DumpHistory) -> Option<u64> {
    let known = if history.count > 0 { history.raw_size } else { source };
    (known > 0).then_some(known)
}

/// Why a dump of this size is suspicious: smaller than this share of what is usual.
pub(super) fn suspicion(raw: u64, least_share: f64, history: &DumpHistory) -> Option<String> {
    let usual = history.raw_size;
    if history.count == 0 || usual == 0 || raw as f64 >= usual as f64 * least_share {
        return None;
    }
    let share = raw as f64 / usual as f64 * 100.0;
    Some(format!("suspiciously small: {}, {share:.0} % of the usual {}", size(raw), size(usual)))
}

/// The name of a file with what compression and encryption append.
pub(super) fn file_name(name: &str, compression: Compression, encryption: Option<&Encryption>) -> String {
    let encrypted = encryption.map_or("", |encryption| encryption.method.suffix());
    format!("{name}{}{encrypted}", compression.suffix())
}

/// When a backup may go by what a person said.
pub(super) fn expires_at(started_at: DateTime<Utc>, days: Option<u32>) -> Option<DateTime<Utc>> {
    started_at.checked_add_days(chrono::Days::new(days?.into()))
}

/// Until when storages that lock objects lock them: as long as the backup is surely kept.
pub(super) fn lock_until(
    started_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    rules: &Retention,
) -> Option<DateTime<Utc>> {
    expires_at.or_else(|| started_at.checked_add_signed(chrono::TimeDelta::from_std(rules.within?).ok()?))
}

/// Whether a storage locks what is written to it.
pub(super) fn locks(storage: &policy::Storage) -> bool {
    matches!(&storage.place, Place::S3(bucket) if bucket.object_lock.is_some())
}

/// What people read at the end of a run.
pub(super) fn summary(made: &Backup, dump: &Dump, took_in_all: Duration) -> String {
    let encrypted = dump.encryption.as_ref().map_or("not encrypted", |encryption| method(encryption.method));
    let good: Vec<&str> = storages(dump, |copy| copy.state == CopyState::Good).map(|copy| &*copy.storage).collect();
    let mut text = format!(
        "backup {} of {}: {} stored ({}, {encrypted}) in {}, in {}",
        made.id,
        size(dump.raw_size()),
        size(dump.stored_size()),
        dump.compression,
        good.join(" and "),
        took(took_in_all)
    );
    for copy in storages(dump, |copy| copy.state != CopyState::Good) {
        let why = copy.detail.as_deref().unwrap_or("it did not become whole");
        text.push_str(&format!("; WARNING: no copy in {}: {why}", copy.storage));
    }
    for warning in &dump.warnings {
        text.push_str(&format!("; WARNING: {warning}"));
    }
    text
}

fn method(method: EncryptionMethod) -> &'static str {
    method.as_str()
}

fn storages(dump: &Dump, which: impl Fn(&&BackupCopy) -> bool) -> impl Iterator<Item = &BackupCopy> {
    dump.copies.iter().filter(which)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GIB: u64 = 1 << 30;

    fn history(count: u32, raw_size: u64, ratio: f64) -> DumpHistory {
        DumpHistory { count, raw_size, ratio, rate: 0.0 }
    }

    #[test]
    fn the_space_is_the_source_and_a_fifth_less_what_compression_saves() {
        let (zstd, none) = (Compression::default(), Compression::NONE);
        let unknown = DumpHistory::default();
        for (compression, known, ten_gib) in [
            (zstd, &unknown, 3.6),
            (none, &unknown, 12.0),
            (zstd, &history(3, GIB, 0.1), 1.2),
            (zstd, &history(3, GIB, 2.0), 12.0),
            (zstd, &history(3, GIB, 0.0), 3.6),
            (zstd, &history(1, GIB, 0.000_1), 0.12),
        ] {
            let got = needed(10 * GIB, compression, known) as f64 / GIB as f64;
            assert!((got - ten_gib).abs() < 0.001, "{compression} {known:?}: {got}");
        }
        assert_eq!(needed(0, zstd, &unknown), 0);
    }

    #[test]
    fn a_dump_is_suspicious_only_beside_earlier_ones() {
        assert_eq!(suspicion(0, 0.5, &DumpHistory::default()), None, "there is nothing to compare with");
        assert_eq!(suspicion(50, 0.5, &history(1, 100, 1.0)), None);
        let why = suspicion(49, 0.5, &history(1, 100, 1.0)).unwrap();
        assert_eq!(why, "suspiciously small: 49 B, 49 % of the usual 100 B");
        assert_eq!(suspicion(0, 0.0, &history(1, 100, 1.0)), None, "the policy does not want to know");
    }

    #[test]
    fn a_name_tells_how_it_is_opened() {
        let key = |method| Encryption { key: "k".to_owned(), method };
        let (age, aes) = (key(EncryptionMethod::Age), key(EncryptionMethod::Aes256));
        let gzip: Compression = "gzip".parse().unwrap();
        for (name, compression, encryption, full) in [
            ("shop.dump", Compression::default(), Some(&age), "shop.dump.zst.age"),
            ("shop.sql", gzip, Some(&aes), "shop.sql.gz.enc"),
            ("parts/toc.dat", Compression::NONE, None, "parts/toc.dat"),
        ] {
            assert_eq!(file_name(name, compression, encryption), full);
        }
    }

    #[test]
    fn what_a_person_said_is_locked_rather_than_the_rule() {
        let at = DateTime::UNIX_EPOCH;
        let rules = Retention { within: Some(Duration::from_hours(48)), ..Retention::default() };
        let days = |days| Some(at + chrono::TimeDelta::days(days));
        assert_eq!(expires_at(at, Some(30)), days(30));
        assert_eq!(expires_at(at, None), None);
        assert_eq!(lock_until(at, days(30), &rules), days(30));
        assert_eq!(lock_until(at, None, &rules), days(2));
        assert_eq!(lock_until(at, None, &Retention::default()), None, "a count promises no time");
    }

    proptest! {
        #[test]
        fn a_larger_source_never_needs_less(a in any::<u64>(), more in any::<u64>(), ratio in 0.0..3.0_f64) {
            let (known, zstd) = (history(2, 1, ratio), Compression::default());
            let b = a.saturating_add(more);
            prop_assert!(needed(a, zstd, &known) <= needed(b, zstd, &known));
            prop_assert!(staged(a) >= a && staged(a) <= staged(b));
        }

        #[test]
        fn what_is_not_smaller_than_usual_is_never_suspicious(usual in 1..u64::MAX, more in any::<u64>(), share in 0.0..1.0_f64) {
            prop_assert_eq!(suspicion(usual.saturating_add(more), share, &history(5, usual, 0.5)), None);
        }
    }
}
