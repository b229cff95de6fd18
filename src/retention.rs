//! Which backups of a repository are kept and which are ended, each with its reasons.
//!
//! The rules say what to keep; a backup is kept if any of them keeps it.
//!
//! * `full = N`: the newest N good fulls, and by default all that was built on them.
//! * `diff = N`: the newest N good diffs, no others. Diffs only: pgBackRest's `retention-diff` counts fulls too, so that
//!   its `diff = 3` may leave one diff. Without it a diff lives as long as its full.
//! * `incr = N`: the newest N good incrs. Without it an incr lives as long as what it was built on.
//! * `last`, and `hourly` to `yearly`: the newest N good ones of any type, and the newest of each of N periods.
//! * `within`: everything younger. A clock that went back makes nothing old.
//! * `recovery_window`: the newest good one from before the window and all after it.
//!
//! No rule at all ends nothing, and while no rule looks at fulls no full is ended. What a person said of one backup
//! (`--retention DAYS`) overrules the rules both ways: before its day it stays, after its day only a floor keeps it, and
//! it never takes a place of others in a count.
//!
//! Below the rules lie floors that no policy can lower, in `floor.rs`, and whatever a kept backup needs. *Good* means
//! here: its status is good, and so is all that it needs, down to a full that is still there. Only such backups count, so
//! a week of failures pushes nothing out; the others go when the good ones around them go. A dump without a copy that is
//! known to be good is not good either, and a person must look at it: no plan ends it.
//!
//! A kept diff keeps its full even beyond `full = N`; the other way round, choosing fewer fulls never removes a diff that
//! a rule of its own keeps. Planning is pure and settles at once: a second plan over what the first kept ends nothing.
//!
//! How far back WAL for continuous recovery reaches (`wal_depth`) ends no backup; it is in `depth.rs`.
//!
//! A newcomer would count `lost` or `expired` ones, or delete to make room for them. They are not looked at.

mod chain;
pub mod delete;
pub mod depth;
mod floor;
mod former;
mod period;
mod rule;
mod select;

#[cfg(test)]
pub(crate) mod property;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::Serialize;

use self::chain::Chain;
pub use self::{
    floor::Firmness,
    former::{FormerRules, guarded, newly_ended},
    select::{Selection, select},
};
use crate::{
    policy::Retention,
    record::{Backup, CopyState, RepoKey},
};

/// What a plan depends on beside the backups and the rules.
#[derive(Debug, Clone)]
pub struct Circumstances {
    /// The moment for which it is made.
    pub now: DateTime<Utc>,
    /// Whose hours, days and weeks are counted.
    pub zone: Tz,
    /// Labels that must stay for now, with the reason.
    pub pinned: BTreeMap<String, String>,
}

/// What becomes of one backup, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// The backup.
    pub backup_id: String,
    /// The tool's own name for it.
    pub label: String,
    /// The repository it lies in.
    pub repo: RepoKey,
    /// Kept, or ended.
    pub keep: bool,
    /// Sentences for people: `kept: full 2 of 4`, `expires: full 5 of 4, older than the newest 4`.
    pub reasons: Vec<String>,
}

/// The decisions about a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Newest first, and each before everything it depends on.
    pub decisions: Vec<Decision>,
}

impl Plan {
    /// What is to be ended, in the order of doing it: leaves before what they depend on, newest first, so that a stop
    /// half-way leaves only whole sets.
    pub fn expire(&self) -> Vec<&Decision> {
        self.decisions.iter().filter(|decision| !decision.keep).collect()
    }

    /// Why a person should look before this is carried out: it ends more than this share of the backups.
    pub fn too_much(&self, fraction: f64) -> Option<String> {
        let (going, all) = (self.expire().len(), self.decisions.len());
        let allowed = fraction * all as f64;
        (going as f64 > allowed)
            .then(|| format!("{going} of {all} backups would go, more than `max_delete_fraction` ({fraction}) allows"))
    }
}

/// Whether a backup can be relied on: it is good, and a dump lies whole in a storage.
pub(crate) fn is_sound(backup: &Backup) -> bool {
    backup.is_good() && !lacks_copy(backup)
}

/// Whether it is a dump of which no copy is known to be good.
fn lacks_copy(backup: &Backup) -> bool {
    backup.dump.as_ref().is_some_and(|dump| dump.copies.iter().all(|copy| copy.state != CopyState::Good))
}

/// The day at which a person lets it go, where one was named.
fn own_day(backup: &Backup) -> Option<DateTime<Utc>> {
    backup.dump.as_ref()?.expires_at
}

/// Whether others made it and the policy leaves it to them.
fn is_left_alone(backup: &Backup, rules: &Retention) -> bool {
    backup.is_foreign() && !rules.foreign
}

/// Decides about the backups of one repository, or about all dumps of a database.
pub fn plan(backups: &[Backup], rules: &Retention, at: &Circumstances) -> Plan {
    let chain = Chain::of(backups, rules);
    let mut kept = rule::kept(&chain, rules, at);
    let past_rules: Vec<bool> = kept.iter().map(Vec::is_empty).collect();
    floor::raise(&chain, rules, at, &mut kept);
    needed(&chain, &mut kept);
    let passed_over = rule::passed_over(rules);
    decided(&chain, kept, |place| rule::why_not(&chain, rules, place, &past_rules, passed_over.as_deref()))
}

/// Keeps what has a reason, and says of the others why not.
fn decided(chain: &Chain, kept: Vec<Vec<String>>, why_not: impl Fn(usize) -> String) -> Plan {
    let decide = |(place, reasons): (usize, Vec<String>)| {
        let backup = chain.backups[place];
        let keep = !reasons.is_empty();
        let reasons = if keep { reasons } else { vec![why_not(place)] };
        Decision { backup_id: backup.id.clone(), label: backup.label.clone(), repo: backup.repo, keep, reasons }
    };
    Plan { decisions: kept.into_iter().enumerate().map(decide).collect() }
}

/// Adds what kept backups need and nothing else keeps.
fn needed(chain: &Chain, kept: &mut [Vec<String>]) {
    let mut needed_by: Vec<(Option<usize>, usize)> = vec![(None, 0); kept.len()];
    for at in 0..kept.len() {
        // All that depend on it stand before it, so they have been asked.
        if let (Some(newest), others) = needed_by[at]
            && kept[at].is_empty()
        {
            let label = &chain.backups[newest].label;
            let more = if others > 1 { format!(" and {} more", others - 1) } else { String::new() };
            kept[at].push(format!("kept: needed by {label}{more}"));
        }
        if !kept[at].is_empty() {
            for &need in &chain.needs[at] {
                needed_by[need].0.get_or_insert(at);
                needed_by[need].1 += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{property::backup, *};
    use crate::record::{BackupStatus, BackupType};

    const DAY: Duration = Duration::from_hours(24);

    /// `F`, `D` and `I` a day each, the last one yesterday; a diff builds on the last full, an incr on what is before it.
    fn history(types: &str) -> Vec<Backup> {
        let mut made: Vec<Backup> = Vec::new();
        for (day, letter) in types.chars().enumerate() {
            let backup_type = match letter {
                'F' => BackupType::Full,
                'D' => BackupType::Diff,
                _ => BackupType::Incr,
            };
            made.push(backup(backup_type, day as i64 - types.len() as i64, &made));
        }
        made
    }

    fn now() -> DateTime<Utc> {
        property::EPOCH.parse().unwrap()
    }

    fn at(pinned: BTreeMap<String, String>) -> Circumstances {
        Circumstances { now: now(), zone: Tz::UTC, pinned }
    }

    fn planned(backups: &[Backup], rules: &Retention) -> Plan {
        plan(backups, rules, &at(BTreeMap::new()))
    }

    /// `+` for kept and `-` for ended, oldest first.
    fn picture(backups: &[Backup], rules: &Retention) -> String {
        let plan = planned(backups, rules);
        let kept = |backup: &Backup| plan.decisions.iter().find(|d| d.label == backup.label).map(|d| d.keep);
        backups.iter().map(|backup| kept(backup).map_or(' ', |keep| if keep { '+' } else { '-' })).collect()
    }

    fn rules(full: u32) -> Retention {
        Retention { full: Some(full), keep_proven: 0, ..Retention::default() }
    }

    #[test]
    fn the_newest_fulls_stay_with_all_that_was_built_on_them() {
        assert_eq!(picture(&history("FDIFDIFDI"), &rules(2)), "---++++++");
    }

    #[test]
    fn diffs_and_incrs_may_be_counted_apart() {
        let diffs = Retention { diff: Some(2), ..rules(2) };
        assert_eq!(picture(&history("FDIFDIDIDI"), &diffs), "+--+--++++", "an incr lives as long as its diff");
        let incrs = Retention { incr: Some(1), ..rules(2) };
        assert_eq!(picture(&history("FDIIDII"), &incrs), "++--+++", "the last incr needs the one before it");
    }

    #[test]
    fn a_counted_diff_keeps_its_full_beyond_the_count_of_fulls() {
        assert_eq!(picture(&history("FDFDFD"), &Retention { diff: Some(2), ..rules(1) }), "--++++");
    }

    #[test]
    fn within_keeps_what_is_younger_and_what_that_needs() {
        let days = |n| Retention { within: Some(DAY * n), ..Retention::default() };
        assert_eq!(picture(&history("FIFIFI"), &days(4)), "--++++");
        assert_eq!(picture(&history("FDIDIDI"), &days(3)), "+----++", "of the old ones only the full is needed");
        assert_eq!(picture(&history("FFFF"), &Retention { full: Some(1), ..days(3) }), "--++");
    }

    #[test]
    fn without_a_rule_everything_stays() {
        assert_eq!(picture(&history("FDIFDIF"), &Retention::default()), "+++++++");
        let diffs_only = Retention { diff: Some(1), ..Retention::default() };
        assert_eq!(picture(&history("FDFDFD"), &diffs_only), "+-+-++", "no rule ends fulls");
    }

    #[test]
    fn what_is_not_good_counts_for_nothing() {
        let mut backups = history("FFFF");
        backups[3].status = BackupStatus::Damaged;
        backups[2].status = BackupStatus::Unrestorable;
        assert_eq!(picture(&backups, &rules(1)), "-+++", "the good one stays; the bad ones have no newer one yet");
        backups[3].status = BackupStatus::Good;
        assert_eq!(picture(&backups, &rules(1)), "---+", "now they have");
        assert_eq!(picture(&backups, &rules(2)), "-+++", "among those that count a bad one stays, uncounted");
    }

    #[test]
    fn a_backup_whose_parent_is_lost_is_not_good() {
        let mut backups = history("FFD");
        backups[1].status = BackupStatus::Lost;
        assert_eq!(picture(&backups, &rules(1)), "+ +", "nothing is decided about what is not there");
    }

    #[test]
    fn held_pinned_and_proven_backups_stay_with_their_chains() {
        let mut backups = history("FDIFDIFF");
        backups[2].proven_at = Some(now());
        let proven = Retention { keep_proven: 1, ..rules(1) };
        assert_eq!(picture(&backups, &rules(1)), "-------+");
        assert_eq!(picture(&backups, &proven), "+++----+");
        backups[4].held = Some("audit of 2026".to_owned());
        assert_eq!(picture(&backups, &rules(1)), "---++--+");
        let pinned = BTreeMap::from([(backups[5].label.clone(), "run 7 restores it".to_owned())]);
        let plan = plan(&backups, &rules(1), &at(pinned));
        assert_eq!(plan.expire().len(), 4);
    }

    #[test]
    fn the_newest_of_ours_stays_beside_newer_ones_of_others() {
        let mut backups = history("FFF");
        backups[2].id = format!("foreign-{}", backups[2].label);
        let within = Retention { within: Some(DAY / 2), keep_proven: 0, ..Retention::default() };
        assert_eq!(picture(&backups, &within), "-++", "they may remove theirs at any time");
        assert_eq!(picture(&backups, &Retention { foreign: true, ..within }), "--+");
    }

    #[test]
    fn a_clock_that_went_back_ends_nothing_by_age() {
        let rules = Retention { within: Some(DAY), ..Retention::default() };
        let long_ago = now() - DAY * 365;
        assert!(
            plan(&history("FDIFDI"), &rules, &Circumstances { now: long_ago, ..at(BTreeMap::new()) })
                .expire()
                .is_empty()
        );
    }

    #[test]
    fn every_decision_says_why() {
        let mut backups = history("FDIFDIFDIF");
        backups[0].held = Some("audit of 2026".to_owned());
        backups[6].status = BackupStatus::Damaged;
        let rules = Retention { diff: Some(1), keep_proven: 1, within: Some(DAY * 2), ..rules(2) };
        backups[3].proven_at = Some(now());
        let plan = planned(&backups, &rules);
        let told: Vec<String> =
            plan.decisions.iter().map(|d| format!("{} {}", d.label, d.reasons.join("; "))).collect();
        insta::assert_snapshot!(told.join("\n"), @r"
        20261119-120000F kept: full 1 of 2; kept: younger than 2d; kept: the newest good full; kept: the newest good backup
        20261116-120000F_20261118-120000I kept: lives as long as 20261116-120000F_20261117-120000D
        20261116-120000F_20261117-120000D kept: built on a backup that is missing or not good, so not counted, but among the newest 1 diffs
        20261116-120000F kept: damaged, so not counted, but among the newest 2 fulls
        20261113-120000F_20261115-120000I kept: lives as long as 20261113-120000F_20261114-120000D
        20261113-120000F_20261114-120000D kept: diff 1 of 1
        20261113-120000F kept: full 2 of 2; kept: proven 1 of 1, by a restore on 2026-11-20
        20261110-120000F_20261112-120000I expires: lived as long as 20261110-120000F_20261111-120000D, which no rule keeps, and older than 2d
        20261110-120000F_20261111-120000D expires: diff 2 of 1, older than the newest 1 and older than 2d
        20261110-120000F kept: held, audit of 2026
        ");
    }

    #[test]
    fn leaves_are_ended_before_what_they_depend_on() {
        let backups = history("FDIIFDIF");
        let plan = planned(&backups, &rules(1));
        let order: Vec<&str> = plan.expire().iter().map(|decision| decision.label.as_str()).collect();
        let newest_first: Vec<&str> = backups[..7].iter().rev().map(|backup| backup.label.as_str()).collect();
        assert_eq!(order, newest_first);
    }
}
