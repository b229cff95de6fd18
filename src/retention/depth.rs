//! How far back WAL for continuous recovery reaches, where `wal_depth` says that it need not reach the oldest backup.
//!
//! The newest good backup from before the depth is the anchor. All WAL from its start on stays, so that every moment of
//! the depth can be recovered to; backups before it keep their own start to stop, islands between holes that are meant.
//! pgBackRest counts the backups whose WAL it keeps by label, the newest first, so we tell it which one the anchor is.
//!
//! A newcomer would count the good backups, or those of one cluster; pgBackRest counts all that the repository lists.

use std::{collections::BTreeSet, num::NonZeroU32};

use chrono::{DateTime, Utc};

use super::{FormerRules, chain::Chain};
use crate::{
    clock::age,
    policy::Retention,
    record::{Backup, Window},
};

/// The backup from whose start on all WAL stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// Its label.
    pub label: String,
    /// When it stopped: from here on every moment can be recovered to.
    pub stopped_at: DateTime<Utc>,
    /// Which one it is among all backups of the repository, the newest first.
    pub count: NonZeroU32,
}

/// Chooses the anchor. `labels` are all that the repository lists, of all clusters and whoever made them, `backups` those
/// of which we know more. None without a depth, or when no good backup that rules count is that old: then all WAL from the
/// oldest backup on stays.
pub fn anchor(backups: &[Backup], labels: &BTreeSet<String>, rules: &Retention, now: DateTime<Utc>) -> Option<Anchor> {
    let depth = rules.wal_depth?;
    let chain = Chain::of(backups, rules);
    let anchor = chain.counted().map(|place| chain.backups[place]).find(|it| age(now, it.stopped_at) >= depth)?;
    let count = labels.range(anchor.label.clone()..).count();
    let count = u32::try_from(count).ok().and_then(NonZeroU32::new)?;
    Some(Anchor { label: anchor.label.clone(), stopped_at: anchor.stopped_at, count })
}

/// The rules with the deepest depth of all that are in force or still guard: a tighter depth waits as other rules do.
pub fn guarded(rules: &Retention, former: &[FormerRules]) -> Retention {
    let depths = former.iter().map(|former| former.rules.wal_depth);
    // Rules without a depth keep all.
    let deepest = depths.fold(rules.wal_depth, |deepest, depth| Some(deepest?.max(depth?)));
    Retention { wal_depth: deepest, ..rules.clone() }
}

/// What is left of a repository's windows when WAL from before the anchor goes: of each good backup before it its own
/// stop. A look at the archive may find more later, never less.
pub fn cut(windows: &[Window], backups: &[Backup], anchor: &Anchor) -> Vec<Window> {
    let mut left = Vec::new();
    for window in windows {
        if window.from >= anchor.stopped_at {
            left.push(window.clone());
            continue;
        }
        let mut islands: Vec<&Backup> = backups
            .iter()
            .filter(|it| it.is_good() && it.stopped_at < anchor.stopped_at)
            .filter(|it| (window.from..=window.to).contains(&it.stopped_at))
            .collect();
        islands.sort_by_key(|it| it.stopped_at);
        let moment = |it: &Backup| (it.label.clone(), it.stopped_at, it.stopped_at);
        let whole = (window.to >= anchor.stopped_at).then(|| (anchor.label.clone(), anchor.stopped_at, window.to));
        let parts = islands.into_iter().map(moment).chain(whole);
        left.extend(parts.map(|(label, from, to)| Window { label, from, to, ..window.clone() }));
    }
    left
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use chrono_tz::Tz;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        record::{BackupStatus, BackupType},
        retention::{
            Circumstances, plan,
            property::{EPOCH, backup, histories, retention},
        },
    };

    fn now() -> DateTime<Utc> {
        EPOCH.parse().unwrap()
    }

    fn depth(days: u64) -> Retention {
        Retention { wal_depth: Some(Duration::from_hours(24 * days)), ..Retention::default() }
    }

    /// A full, a diff and three incrs, a day each, the last one yesterday.
    fn chain() -> Vec<Backup> {
        let mut made = Vec::new();
        let types = [BackupType::Full, BackupType::Diff, BackupType::Incr, BackupType::Incr, BackupType::Incr];
        for (backup_type, day) in types.into_iter().zip(-5..) {
            made.push(backup(backup_type, day, &made));
        }
        made
    }

    /// The anchor as its place in the history and its count.
    fn chosen(backups: &[Backup], rules: &Retention, more: &[&str]) -> Option<(usize, u32)> {
        let labels = backups.iter().map(|it| it.label.clone()).chain(more.iter().map(|it| (*it).to_owned())).collect();
        let anchor = anchor(backups, &labels, rules, now())?;
        Some((backups.iter().position(|it| it.label == anchor.label)?, anchor.count.get()))
    }

    #[test]
    fn the_newest_good_backup_from_before_the_depth_is_the_anchor() {
        let mut backups = chain();
        assert_eq!(chosen(&backups, &Retention::default(), &[]), None, "no depth");
        assert_eq!(chosen(&backups, &depth(2), &[]), Some((3, 2)), "exactly as old as the depth");
        assert_eq!(chosen(&backups, &depth(6), &[]), None, "none is that old");
        assert_eq!(chosen(&backups, &depth(2), &["20261120-000000F"]), Some((3, 3)), "one we know nothing of counts");
        backups[3].status = BackupStatus::Damaged;
        assert_eq!(chosen(&backups, &depth(2), &[]), Some((2, 3)), "a damaged one counts and is none");
        backups[1].id = "foreign-1".to_owned();
        assert_eq!(chosen(&backups, &depth(4), &[]), Some((0, 5)), "others may remove theirs any time");
    }

    #[test]
    fn a_tighter_depth_waits_as_long_as_former_rules_guard() {
        let days = |rules: &Retention, former: &[&Retention]| {
            let guard = |rules: &&Retention| FormerRules {
                rules: (*rules).clone(),
                replaced_at: now(),
                guards_until: now() + Duration::from_hours(1),
            };
            let former: Vec<FormerRules> = former.iter().map(guard).collect();
            guarded(rules, &former).wal_depth.map(|depth| depth.as_secs() / 86_400)
        };
        assert_eq!(days(&depth(2), &[]), Some(2));
        assert_eq!(days(&depth(2), &[&depth(1), &depth(7)]), Some(7));
        assert_eq!(days(&depth(2), &[&depth(7), &Retention::default()]), None, "all WAL was kept before");
    }

    #[test]
    fn a_clock_that_went_back_makes_no_backup_old_enough() {
        let backups = chain();
        let labels = backups.iter().map(|it| it.label.clone()).collect();
        assert_eq!(anchor(&backups, &labels, &depth(1), now() - Duration::from_hours(9000)), None);
    }

    #[test]
    fn a_window_is_cut_into_islands_before_the_anchor() {
        let backups = chain();
        let day = |day: i64| now() + chrono::TimeDelta::days(day);
        let window = |from, to| Window {
            database: "orders".parse().unwrap(),
            repo: 1,
            label: "first".into(),
            from: day(from),
            to: day(to),
        };
        let labels = backups.iter().map(|it| it.label.clone()).collect();
        let anchor = anchor(&backups, &labels, &depth(2), now()).unwrap();
        let told = |windows: &[Window]| -> Vec<(i64, i64)> {
            let days = |at: DateTime<Utc>| (at - now()).num_days();
            cut(windows, &backups, &anchor).iter().map(|it| (days(it.from), days(it.to))).collect()
        };
        assert_eq!(told(&[window(-5, 0)]), [(-5, -5), (-4, -4), (-3, -3), (-2, 0)]);
        assert_eq!(told(&[window(-5, -4), window(-1, 0)]), [(-5, -5), (-4, -4), (-1, 0)]);
        assert_eq!(told(&[window(-2, 0)]), [(-2, 0)]);
    }

    proptest! {
        #[test]
        fn every_moment_of_the_recovery_window_keeps_a_backup_and_the_wal_after_it(
            backups in histories(), rules in retention(), window in 1..40u64, more in 0..10u64, hour in any::<prop::sample::Index>(),
        ) {
            let length = |days: u64| Some(Duration::from_hours(24 * days));
            let rules = Retention { recovery_window: length(window), wal_depth: length(window + more), ..rules };
            let at = Circumstances { now: now(), zone: Tz::UTC, pinned: BTreeMap::new() };
            let gone: BTreeSet<String> =
                plan(&backups, &rules, &at).expire().into_iter().map(|it| it.label.clone()).collect();
            let left: Vec<Backup> = backups.iter().filter(|it| !gone.contains(&it.label)).cloned().collect();
            let wanted = now() - Duration::from_hours(hour.index(24 * window as usize + 1) as u64);
            let newest_before = |backups: &[Backup]| {
                let chain = Chain::of(backups, &rules);
                chain.counted().map(|place| chain.backups[place].clone()).find(|it| it.stopped_at <= wanted)
            };
            let (before, after) = (newest_before(&backups), newest_before(&left));
            prop_assert_eq!(before.as_ref().map(|it| &it.label), after.as_ref().map(|it| &it.label));
            let labels = left.iter().map(|it| it.label.clone()).collect();
            if let (Some(base), Some(anchor)) = (after, anchor(&left, &labels, &rules, now())) {
                prop_assert!(anchor.stopped_at <= base.stopped_at, "{} after {}", anchor.label, base.label);
            }
        }
    }
}
