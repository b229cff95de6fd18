//! What the archive proves, on made-up archives and on a real one.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::record::{BackupType, EngineKind};

const SIZE: SegmentSize = SegmentSize::DEFAULT;

fn at(number: u64) -> Segment {
    Segment::at(1, number, SIZE)
}

fn second(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(second, 0).unwrap()
}

/// A listing of these running numbers on timeline 1.
fn listing(numbers: impl IntoIterator<Item = u64>) -> Listing {
    Listing { archive_id: "15-1".into(), segments: numbers.into_iter().map(at).collect(), ..Listing::default() }
}

/// A full backup over these numbers; it starts at second `10 * first` and stops three seconds later.
fn backup(label: &str, first: u64, last: u64) -> Backup {
    let started = i64::try_from(first).unwrap() * 10;
    Backup {
        id: label.into(),
        database: "orders".parse().unwrap(),
        environment: "production".into(),
        engine: EngineKind::PgBackRest,
        backup_type: BackupType::Full,
        requested_type: BackupType::Full,
        label: label.into(),
        repo: 1,
        system_id: "7710293561930313606".into(),
        server_version: "15".into(),
        tool_version: "2.45".into(),
        name: None,
        reason: None,
        tags: vec![],
        run_uuid: None,
        started_at: second(started),
        stopped_at: second(started + 3),
        size: 1,
        delta: 1,
        repo_delta: None,
        repo_size: None,
        prior: None,
        references: vec![],
        wal_start: Some(at(first).to_string()),
        wal_stop: Some(at(last).to_string()),
        lsn_stop: Some(Lsn::new(at(last).start(SIZE).bytes() + 0x100).to_string()),
        page_errors: Some(false),
        status: BackupStatus::Good,
        expired_reason: None,
        expired_at: None,
        held: None,
        held_until: None,
        proven_at: None,
        created_by: "daemon".into(),
        dump: None,
    }
}

fn gaps(archive: &Archive) -> Vec<String> {
    archive.holes.iter().map(|hole| hole.gap.to_string()).collect()
}

#[test]
fn a_whole_archive_has_no_hole_and_reaches_its_end() {
    let archive = analyse(&listing(250..260), &[backup("F", 252, 253)], SIZE, Some(1), &[]);
    assert_eq!(gaps(&archive), [""; 0]);
    assert_eq!(archive.contiguous_to.unwrap().to_string(), "000000010000000100000003");
    assert_eq!(archive.unrestorable, [""; 0]);
}

#[test]
fn a_moment_is_claimed_only_when_the_archive_holds_what_was_written_before_it() {
    let samples = [
        (second(100), Lsn::new(at(12).start(SIZE).bytes() + 5000)),
        (second(200), Lsn::new(at(15).end(SIZE).bytes() - 1)),
        // Nothing was written into segment 16: the server stands behind its header.
        (second(300), Lsn::new(at(16).start(SIZE).bytes() + HEADER)),
        (second(400), Lsn::new(at(16).start(SIZE).bytes() + HEADER + 8)),
    ];
    let archive = analyse(&listing(10..=15), &[backup("F", 10, 10)], SIZE, Some(1), &samples);
    assert_eq!(archive.recoverable_to, Some(second(300)));
    assert_eq!((archive.windows[0].from, archive.windows[0].to), (second(103), second(300)));
    let shorter = analyse(&listing(10..=14), &[backup("F", 10, 10)], SIZE, Some(1), &samples);
    assert_eq!(shorter.recoverable_to, Some(second(100)));
}

#[test]
fn without_samples_only_the_backup_itself_is_certain() {
    let archive = analyse(&listing(10..=15), &[backup("F", 10, 10)], SIZE, Some(1), &[]);
    assert_eq!(archive.recoverable_to, Some(second(100)), "the moment at which it began");
    assert_eq!((archive.windows[0].from, archive.windows[0].to), (second(103), second(103)));
}

#[test]
fn a_hole_splits_the_window_and_a_later_backup_bridges_it() {
    let list = listing((10..=20).filter(|n| *n != 13));
    let samples: Vec<_> = (10..=20).map(|n| (second(n * 10 + 9), at(n.unsigned_abs()).end(SIZE))).collect();
    let alone = analyse(&list, &[backup("A", 10, 10)], SIZE, Some(1), &samples);
    assert_eq!(gaps(&alone), ["00000001000000000000000D..00000001000000000000000D"]);
    assert!(!alone.holes[0].is_bridged);
    assert_eq!((alone.contiguous_to, alone.recoverable_to), (Some(at(12)), Some(second(129))));

    let both = analyse(&list, &[backup("A", 10, 10), backup("B", 15, 15)], SIZE, Some(1), &samples);
    assert!(both.holes[0].is_bridged);
    let windows: Vec<_> = both.windows.iter().map(|w| (&*w.label, w.from, w.to)).collect();
    assert_eq!(windows, [("A", second(103), second(129)), ("B", second(153), second(209))]);
    assert_eq!(both.contiguous_to, Some(at(20)));
}

#[test]
fn holes_that_a_depth_of_wal_makes_are_bridged_and_leave_islands() {
    let backups = [backup("A", 10, 11), backup("B", 15, 16), backup("C", 20, 21)];
    let list = listing([10, 11, 15, 16].into_iter().chain(20..=30));
    let archive = analyse(&list, &backups, SIZE, Some(1), &[(second(305), at(30).start(SIZE))]);
    assert_eq!((archive.holes.len(), archive.unrestorable.len()), (2, 0));
    assert!(archive.holes.iter().all(|hole| hole.is_bridged));
    let windows: Vec<_> = archive.windows.iter().map(|w| (&*w.label, w.from, w.to)).collect();
    assert_eq!(
        windows,
        [("A", second(103), second(103)), ("B", second(153), second(153)), ("C", second(203), second(305))]
    );
}

#[test]
fn a_backup_without_its_own_wal_is_unrestorable_and_opens_no_window() {
    let list = listing((10..=20).filter(|n| *n != 13));
    let archive = analyse(&list, &[backup("F", 12, 14), backup("G", 21, 21)], SIZE, Some(1), &[]);
    assert_eq!(archive.unrestorable, ["F", "G"]);
    assert_eq!((archive.windows.len(), archive.recoverable_to), (0, None));
    assert_eq!(archive.segments_from(&backup("F", 12, 14)), None);
}

#[test]
fn a_backup_that_was_unrestorable_is_usable_again_when_its_wal_turns_up() {
    let mut found = backup("F", 12, 14);
    found.status = BackupStatus::Unrestorable;
    let archive = analyse(&listing(10..=20), &[found], SIZE, Some(1), &[]);
    assert_eq!((archive.unrestorable.len(), archive.windows.len()), (0, 1));
}

#[test]
fn damaged_lost_and_orphaned_backups_open_no_window() {
    let with = |label: &str, status| Backup { status, ..backup(label, 11, 11) };
    let orphan = Backup { references: vec!["D".into()], prior: Some("D".into()), ..backup("D_I", 12, 12) };
    let backups =
        [with("D", BackupStatus::Damaged), with("L", BackupStatus::Lost), with("E", BackupStatus::Expired), orphan];
    let archive = analyse(&listing(10..=20), &backups, SIZE, Some(1), &[]);
    assert_eq!((archive.windows.len(), archive.choose_backup(&backups)), (0, None));
}

#[test]
fn recovery_begins_with_the_newest_backup_that_reaches_furthest() {
    let list = listing((10..=30).filter(|n| *n != 25));
    let backups = [backup("A", 11, 11), backup("B", 13, 13), backup("C", 24, 26)];
    let archive = analyse(&list, &backups, SIZE, Some(1), &[]);
    let chosen = archive.choose_backup(&backups).unwrap();
    assert_eq!(chosen.label, "B");
    let replayed = archive.segments_from(chosen).unwrap();
    assert_eq!((replayed.first(), replayed.last(), replayed.len()), (Some(&at(13)), Some(&at(24)), 12));
}

#[test]
fn what_postgres_archived_and_the_archive_lacks_is_told() {
    let archive = analyse(&listing(10..=15), &[], SIZE, Some(1), &[]);
    assert_eq!(archive.missing_after(at(15)), None);
    assert_eq!(archive.missing_after(at(17)), Some(Gap { first: at(16), last: at(17) }));
}

/// Timeline 1 up to 19, left in 15 for timeline 2, which went on to 22.
fn branched() -> Listing {
    let second = (15..=22).map(|number| Segment::at(2, number, SIZE));
    Listing {
        segments: (10..=19).map(at).chain(second).collect(),
        history_files: [2].into(),
        histories: [(2, History::parse("1\t0/F000100\tpromoted\n").unwrap())].into(),
        ..Listing::default()
    }
}

#[test]
fn timelines_are_joined_at_the_point_where_they_branched() {
    let archive = analyse(&branched(), &[backup("F", 11, 12)], SIZE, Some(2), &[]);
    assert_eq!((archive.holes.len(), archive.runs.len()), (0, 2));
    assert_eq!(archive.contiguous_to, Some(Segment::at(2, 22, SIZE)));
    let names = archive.segments_from(&backup("F", 11, 12)).unwrap();
    assert_eq!((names[3], names[4]), (at(14), Segment::at(2, 15, SIZE)));
}

#[test]
fn a_backup_of_an_abandoned_branch_is_consistent_but_opens_no_window() {
    let abandoned = backup("F", 17, 18);
    let archive = analyse(&branched(), std::slice::from_ref(&abandoned), SIZE, Some(2), &[]);
    assert_eq!((archive.is_consistent(&abandoned), archive.windows.len()), (Some(true), 0));
}

#[test]
fn a_timeline_that_production_does_not_know_is_foreign() {
    let archive = analyse(&branched(), &[backup("F", 11, 12)], SIZE, Some(1), &[]);
    assert_eq!(archive.foreign_timelines, [2]);
    assert_eq!(archive.contiguous_to, Some(at(19)));
    assert_eq!(analyse(&branched(), &[], SIZE, None, &[]).foreign_timelines, [0; 0]);
}

#[test]
fn segments_that_the_cluster_cannot_have_are_set_apart() {
    let large = SegmentSize::new(1 << 30).unwrap();
    let archive = analyse(&listing(0..=5), &[], large, Some(1), &[]);
    assert_eq!(archive.unfit, [at(4), at(5)]);
}

#[test]
fn a_million_segments_are_judged_in_a_moment() {
    let list = listing((0..1_000_000).filter(|n| *n != 777_777));
    let backups: Vec<Backup> = (0..200).map(|n| backup(&format!("F{n}"), n * 5_000, n * 5_000 + 1)).collect();
    let watch = crate::clock::Stopwatch::start();
    let archive = analyse(&list, &backups, SIZE, Some(1), &[]);
    assert_eq!(gaps(&archive), ["0000000100000BDE00000031..0000000100000BDE00000031"]);
    assert!(watch.elapsed() < Duration::from_secs(5), "{:?}", watch.elapsed());
}

/// An archive from 0 with some segments missing, and backups in it.
fn archives() -> impl Strategy<Value = (Vec<bool>, Vec<(u64, u64)>)> {
    let present = proptest::collection::vec(prop::bool::weighted(0.8), 1..80);
    (present, proptest::collection::vec((0..80u64, 0..3u64), 0..6))
}

proptest! {
    #[test]
    fn a_removed_middle_segment_is_always_a_gap_there(length in 3..600u64, pick in 0..600u64, from in 0..1000u64) {
        let removed = from + 1 + pick % (length - 2);
        let list = listing((from..from + length).filter(|n| *n != removed));
        let archive = analyse(&list, &[], SIZE, Some(1), &[]);
        let only = Gap { first: at(removed), last: at(removed) };
        prop_assert_eq!(archive.holes, vec![Hole { gap: only, is_bridged: false }]);
    }

    #[test]
    fn windows_never_span_a_gap_and_never_promise_what_is_missing((present, spans) in archives()) {
        let there = |n: u64| usize::try_from(n).is_ok_and(|n| present.get(n) == Some(&true));
        let end = present.len() as u64;
        let list = listing((0..end).filter(|n| there(*n)));
        let backups: Vec<Backup> =
            spans.iter().enumerate().map(|(i, (first, length))| backup(&format!("F{i}"), *first, first + length)).collect();
        // At second 10 * n + 5 the server stood in the middle of segment n.
        let middle = |n: u64| Lsn::new(at(n).start(SIZE).bytes() + 1_000_000);
        let samples: Vec<_> = (0..end).map(|n| (second(i64::try_from(n).unwrap() * 10 + 5), middle(n))).collect();
        let archive = analyse(&list, &backups, SIZE, Some(1), &samples);
        for (backup, (first, length)) in backups.iter().zip(&spans) {
            let whole = (*first..=first + length).all(there);
            prop_assert_eq!(archive.is_consistent(backup), Some(whole));
            prop_assert_eq!(archive.unrestorable.contains(&backup.label), !whole);
        }
        for window in &archive.windows {
            let opened_by = backups.iter().find(|b| b.label == window.label).unwrap();
            let first: Segment = opened_by.wal_start.as_deref().unwrap().parse().unwrap();
            let last = window.to.timestamp() / 10;
            prop_assert!((first.number(SIZE)..=u64::try_from(last).unwrap().min(end - 1)).all(there) || window.from == window.to);
            prop_assert!(window.from <= window.to);
        }
        for pair in archive.windows.windows(2) {
            prop_assert!(pair[0].to < pair[1].from);
        }
        prop_assert_eq!(archive.recoverable_to.is_some(), !archive.windows.is_empty());
    }
}
