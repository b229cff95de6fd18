//! What must hold for every history and every policy.
//!
//! The histories are made as pgBackRest makes them: a diff builds on the newest full, an incr on the newest backup, and
//! without a full everything becomes one. Then things happen to them: damage, loss, holds, proofs, wrong clocks.
//! A newcomer would make random graphs; rules that only hold for those help nobody.

use std::{collections::BTreeSet, time::Duration};

use chrono::TimeDelta;
use proptest::prelude::*;

use super::*;
use crate::record::{BackupStatus, BackupType, EngineKind};

pub(super) const EPOCH: &str = "2026-11-20T12:00:00Z";

/// A good backup that stopped `days` from the epoch, built on the last fitting one of `before`.
pub(crate) fn backup(backup_type: BackupType, days: i64, before: &[Backup]) -> Backup {
    let stopped_at = EPOCH.parse::<DateTime<Utc>>().unwrap() + TimeDelta::days(days);
    made_at(backup_type, stopped_at, before)
}

fn made_at(asked: BackupType, stopped_at: DateTime<Utc>, before: &[Backup]) -> Backup {
    let present = |it: &&Backup| it.status != BackupStatus::Lost;
    let full = before.iter().rfind(|it| present(it) && it.backup_type == BackupType::Full);
    let parent = match asked {
        BackupType::Full => None,
        BackupType::Diff => full,
        BackupType::Incr => full.and_then(|_| before.iter().rfind(present)),
    };
    let backup_type = if parent.is_some() { asked } else { BackupType::Full };
    let letter = backup_type.as_str()[..1].to_uppercase();
    let own = format!("{}{letter}", stopped_at.format("%Y%m%d-%H%M%S"));
    let label = parent.map_or(own.clone(), |parent| format!("{}_{own}", &parent.label[..16]));
    let mut references = parent.map(|parent| parent.references.clone()).unwrap_or_default();
    references.extend(parent.map(|parent| parent.label.clone()));
    Backup {
        id: format!("backup-{own}"),
        database: "orders".parse().unwrap(),
        environment: "production".to_owned(),
        engine: EngineKind::PgBackRest,
        backup_type,
        requested_type: asked,
        prior: parent.map(|parent| parent.label.clone()),
        label,
        repo: 1,
        system_id: "7710256263888769396".to_owned(),
        server_version: "15".to_owned(),
        tool_version: "2.45".to_owned(),
        name: None,
        reason: None,
        tags: Vec::new(),
        run_uuid: None,
        started_at: stopped_at - TimeDelta::minutes(1),
        stopped_at,
        size: 1 << 30,
        delta: 1 << 20,
        repo_delta: None,
        repo_size: None,
        references,
        wal_start: None,
        wal_stop: None,
        lsn_stop: None,
        page_errors: Some(false),
        status: BackupStatus::Good,
        expired_reason: None,
        expired_at: None,
        held: None,
        held_until: None,
        proven_at: None,
        created_by: "daemon".to_owned(),
        dump: None,
    }
}

/// What happened to make a backup, and to it.
#[derive(Debug, Clone)]
struct Event {
    asked: BackupType,
    hours: i64,
    status: BackupStatus,
    held: bool,
    proven: bool,
    /// Hours by which the host's clock was wrong when it was made.
    clock: i64,
}

fn event() -> impl Strategy<Value = Event> {
    let asked = prop_oneof![1 => Just(BackupType::Full), 3 => Just(BackupType::Diff), 6 => Just(BackupType::Incr)];
    let status = prop_oneof![
        20 => Just(BackupStatus::Good),
        2 => Just(BackupStatus::Damaged),
        1 => Just(BackupStatus::Unrestorable),
        1 => Just(BackupStatus::Lost),
        1 => Just(BackupStatus::Expired),
    ];
    let clock = prop_oneof![30 => Just(0i64), 1 => -200..200i64];
    (asked, 1..48i64, status, prop::bool::weighted(0.04), prop::bool::weighted(0.08), clock)
        .prop_map(|(asked, hours, status, held, proven, clock)| Event { asked, hours, status, held, proven, clock })
}

pub(super) fn histories() -> impl Strategy<Value = Vec<Backup>> {
    prop::collection::vec(event(), 0..70).prop_map(|events| {
        let mut at = EPOCH.parse::<DateTime<Utc>>().unwrap() - TimeDelta::days(60);
        let mut made: Vec<Backup> = Vec::new();
        for (n, event) in events.into_iter().enumerate() {
            // A second apart at least, as pgBackRest takes care of.
            at += TimeDelta::hours(event.hours) + TimeDelta::seconds(1);
            let mut backup = made_at(event.asked, at + TimeDelta::hours(event.clock), &made);
            backup.status = event.status;
            backup.held = event.held.then(|| format!("hold {n}"));
            backup.proven_at = event.proven.then_some(at);
            made.push(backup);
        }
        made
    })
}

pub(super) fn retention() -> impl Strategy<Value = Retention> {
    let count = || prop::option::of(0..6u32);
    // Rules of periods are rarer, or everything would be kept by one of them.
    let period = || prop::option::weighted(0.15, 1..6u32);
    let days = |most: u64| prop::option::of((1..most).prop_map(|days| Duration::from_hours(24 * days)));
    let window = prop::option::weighted(0.2, (1..40u64).prop_map(|days| Duration::from_hours(24 * days)));
    (
        (count(), count(), count(), period()),
        [period(), period(), period()],
        [period(), period(), period()],
        days(40),
        window,
        0..3u32,
    )
        .prop_map(
            |(
                (full, diff, incr, last),
                [hourly, daily, weekly],
                [monthly, quarterly, yearly],
                within,
                recovery_window,
                keep_proven,
            )| {
                Retention {
                    full,
                    diff,
                    incr,
                    last,
                    hourly,
                    daily,
                    weekly,
                    monthly,
                    quarterly,
                    yearly,
                    within,
                    recovery_window,
                    keep_proven,
                    ..Retention::default()
                }
            },
        )
}

fn planned(backups: &[Backup], rules: &Retention) -> Plan {
    plan(backups, rules, &at(BTreeMap::new()))
}

fn at(pinned: BTreeMap<String, String>) -> Circumstances {
    Circumstances { now: EPOCH.parse().unwrap(), zone: chrono_tz::Europe::Berlin, pinned }
}

fn labels(plan: &Plan, keep: bool) -> BTreeSet<String> {
    plan.decisions.iter().filter(|it| it.keep == keep).map(|it| it.label.clone()).collect()
}

fn is_present(backup: &Backup) -> bool {
    !matches!(backup.status, BackupStatus::Lost | BackupStatus::Expired)
}

/// Whether the backup and everything below it is present and good, found by walking down label by label.
fn is_sound(backup: &Backup, backups: &[Backup]) -> bool {
    let find = |label: &String| backups.iter().find(|it| it.label == *label);
    backup.is_good() && backup.references.iter().all(|label| find(label).is_some_and(Backup::is_good))
}

/// The policy with one of its limits raised.
fn raised(rules: &Retention, which: usize, by: u32) -> Retention {
    let mut more = rules.clone();
    match which {
        0 => more.full = more.full.map(|n| n + by),
        1 => more.diff = more.diff.map(|n| n + by),
        2 => more.incr = more.incr.map(|n| n + by),
        3 => more.within = more.within.map(|within| within + Duration::from_hours(u64::from(by) * 24)),
        4 => more.keep_proven += by,
        // A rule of another kind beside one that already ends fulls.
        5 if more.ends_fulls() => more.within = more.within.or(Some(Duration::from_hours(u64::from(by) * 24))),
        6 => more.last = more.last.map(|n| n + by),
        7 => more.weekly = more.weekly.map(|n| n + by),
        8 if more.ends_fulls() => more.monthly = more.monthly.or(Some(by)),
        9 if more.ends_fulls() => more.daily = more.daily.or(Some(by)),
        10 if more.ends_fulls() => more.last = more.last.or(Some(by)),
        11 if more.ends_fulls() => {
            more.recovery_window = more.recovery_window.or(Some(Duration::from_hours(u64::from(by) * 48)));
        }
        _ if more.ends_fulls() => more.full = more.full.or(Some(by)),
        _ => {}
    }
    more
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn each_present_backup_is_decided_once_with_reasons(backups in histories(), rules in retention()) {
        let plan = planned(&backups, &rules);
        let present: BTreeSet<_> = backups.iter().filter(|it| is_present(it)).map(|it| it.label.clone()).collect();
        prop_assert_eq!(plan.decisions.len(), present.len());
        prop_assert_eq!(plan.decisions.iter().map(|it| it.label.clone()).collect::<BTreeSet<_>>(), present);
        for decision in &plan.decisions {
            let begins = if decision.keep { "kept: " } else { "expires: " };
            prop_assert!(!decision.reasons.is_empty());
            prop_assert!(decision.reasons.iter().all(|reason| reason.starts_with(begins)), "{:?}", decision);
        }
    }

    #[test]
    fn nothing_kept_loses_what_it_needs(backups in histories(), rules in retention()) {
        let gone = labels(&planned(&backups, &rules), false);
        for backup in backups.iter().filter(|it| is_present(it) && !gone.contains(&it.label)) {
            prop_assert!(!backup.references.iter().any(|label| gone.contains(label)), "{} is an orphan", backup.label);
        }
    }

    #[test]
    fn ending_goes_from_the_leaves_down(backups in histories(), rules in retention()) {
        let plan = planned(&backups, &rules);
        let mut gone = BTreeSet::new();
        for decision in plan.expire() {
            let backup = backups.iter().find(|it| it.label == decision.label).unwrap();
            prop_assert!(!backup.references.iter().any(|label| gone.contains(label)), "{}", decision.label);
            gone.insert(decision.label.clone());
        }
    }

    #[test]
    fn a_second_plan_ends_nothing(backups in histories(), rules in retention()) {
        let gone = labels(&planned(&backups, &rules), false);
        let left: Vec<Backup> = backups.into_iter().filter(|it| !gone.contains(&it.label)).collect();
        prop_assert_eq!(labels(&planned(&left, &rules), false), BTreeSet::new());
    }

    #[test]
    fn keeping_more_never_ends_more(backups in histories(), rules in retention(), which in 0..13usize, by in 1..4u32) {
        let gone = labels(&planned(&backups, &rules), false);
        let gone_after = labels(&planned(&backups, &raised(&rules, which, by)), false);
        prop_assert!(gone_after.is_subset(&gone), "{:?} ends {:?}", raised(&rules, which, by), gone_after.difference(&gone));
    }

    #[test]
    fn a_hold_or_a_pin_only_ever_keeps(backups in histories(), rules in retention(), index in any::<prop::sample::Index>()) {
        prop_assume!(backups.iter().any(is_present));
        let present: Vec<usize> = (0..backups.len()).filter(|&place| is_present(&backups[place])).collect();
        let chosen = present[index.index(present.len())];
        let gone = labels(&planned(&backups, &rules), false);
        let mut held = backups.clone();
        held[chosen].held = Some("wanted".to_owned());
        let pinned = BTreeMap::from([(backups[chosen].label.clone(), "in use".to_owned())]);
        for plan in [planned(&held, &rules), plan(&backups, &rules, &at(pinned))] {
            prop_assert!(labels(&plan, true).contains(&backups[chosen].label));
            prop_assert!(labels(&plan, false).is_subset(&gone));
        }
    }

    #[test]
    fn the_newest_good_ones_always_stay(backups in histories(), rules in retention()) {
        let kept = labels(&planned(&backups, &rules), true);
        let newest = |wanted: &dyn Fn(&Backup) -> bool| {
            backups.iter().filter(|it| wanted(it)).max_by_key(|it| (it.stopped_at, it.label.clone())).map(|it| it.label.clone())
        };
        for label in [
            newest(&Backup::is_good),
            newest(&|it| is_sound(it, &backups)),
            newest(&|it| is_sound(it, &backups) && it.backup_type == BackupType::Full),
            newest(&|it| is_sound(it, &backups) && it.proven_at.is_some() && rules.keep_proven > 0),
        ].into_iter().flatten() {
            prop_assert!(kept.contains(&label), "{} went", label);
        }
        let sound_left = backups.iter().filter(|it| is_sound(it, &backups) && kept.contains(&it.label)).count();
        let sound = backups.iter().filter(|it| is_sound(it, &backups)).count();
        prop_assert!(sound == 0 || sound_left > 0);
    }

    #[test]
    fn failures_push_nothing_out(backups in histories(), rules in retention(), damaged in 1..9usize) {
        let gone = labels(&planned(&backups, &rules), false);
        let mut more = backups.clone();
        let newest = backups.iter().map(|it| it.stopped_at).max().unwrap_or_else(|| EPOCH.parse().unwrap());
        for n in 1..=damaged {
            let mut failed = made_at(BackupType::Full, newest + TimeDelta::hours(n as i64), &more);
            failed.status = if n % 2 == 0 { BackupStatus::Damaged } else { BackupStatus::Unrestorable };
            more.push(failed);
        }
        prop_assert_eq!(labels(&planned(&more, &rules), false), gone);
    }
}

#[test]
fn a_hundred_thousand_backups_are_planned_at_once() {
    let mut backups = Vec::new();
    let mut at = EPOCH.parse::<DateTime<Utc>>().unwrap() - TimeDelta::hours(100_000);
    for week in 0..1000 {
        let first = backups.len();
        for n in 0..100 {
            at += TimeDelta::hours(1);
            let asked = if n == 0 {
                BackupType::Full
            } else if n % 10 == 0 {
                BackupType::Diff
            } else {
                BackupType::Incr
            };
            let made = made_at(asked, at, &backups[first..]);
            backups.push(made);
        }
        assert_eq!(backups.len(), (week + 1) * 100);
    }
    let rules = Retention { full: Some(4), diff: Some(14), ..Retention::default() };
    let plan = planned(&backups, &rules);
    assert_eq!(plan.decisions.iter().filter(|it| it.keep && it.label.ends_with('F')).count(), 4);
}
