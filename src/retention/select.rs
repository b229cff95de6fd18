//! What a person wants ended beside the rules: the floors hold, and so does what a kept backup needs.
//!
//! Only who deletes one backup by its id may step over a floor, and over the hard ones nobody.
//!
//! A newcomer would end what was built on a chosen backup along with it; it stays, and with it what it needs, until a
//! person names it too.

use std::time::Duration;

use super::{
    Circumstances, Plan,
    chain::Chain,
    decided,
    floor::{self, Firmness, Floor},
    needed, own_day,
};
use crate::{clock::age, human::length, policy::Retention, record::Backup};

/// Which backups a person wants ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// Those whose own day, from `--retention DAYS`, is over.
    OwnDay,
    /// Those that stopped so long ago or longer.
    OlderThan(Duration),
    /// One, by its id.
    One(String),
    /// One that a person deletes.
    Deleted {
        /// Its id.
        id: String,
        /// Whether the person steps over soft floors.
        force: bool,
        /// Why, for the audit.
        why: String,
    },
}

impl Selection {
    fn wants(&self, backup: &Backup, at: &Circumstances) -> bool {
        match self {
            Selection::OwnDay => own_day(backup).is_some_and(|day| day <= at.now),
            Selection::OlderThan(length) => age(at.now, backup.stopped_at) >= *length,
            Selection::One(id) | Selection::Deleted { id, .. } => backup.id == *id,
        }
    }

    /// Whether it goes although it stands on this floor.
    fn steps_over(&self, floor: &Floor) -> bool {
        match self {
            Selection::Deleted { force: true, .. } => floor.firmness() <= Firmness::Soft,
            Selection::Deleted { force: false, .. } => floor.firmness() <= Firmness::Yields,
            Selection::OwnDay | Selection::OlderThan(_) | Selection::One(_) => false,
        }
    }

    /// Whether a person chose one backup and no kind of backups.
    pub fn is_of_one(&self) -> bool {
        matches!(self, Selection::One(_) | Selection::Deleted { .. })
    }

    fn why(&self, backup: &Backup) -> String {
        match self {
            Selection::OwnDay => {
                let day = own_day(backup).map(|day| day.format(" %F %H:%M UTC").to_string()).unwrap_or_default();
                format!("expires: its own retention ended{day}")
            }
            Selection::OlderThan(age) => format!("expires: older than {}, as asked for", length(*age)),
            Selection::One(_) => "expires: asked for by its id".to_owned(),
            Selection::Deleted { why, .. } => format!("deleted: {why}"),
        }
    }
}

/// Decides about what a person chose; everything else stays.
pub fn select(backups: &[Backup], wanted: &Selection, rules: &Retention, at: &Circumstances) -> Plan {
    let chain = Chain::of(backups, rules);
    let is_wanted = |backup: &&Backup| wanted.wants(backup, at);
    let unless_wanted =
        |backup: &&Backup| if is_wanted(backup) { Vec::new() } else { vec!["kept: not asked for".to_owned()] };
    let mut kept: Vec<Vec<String>> = chain.backups.iter().map(unless_wanted).collect();
    for (place, floor) in floor::floors(&chain, rules, at) {
        if !wanted.wants(chain.backups[place], at) || !wanted.steps_over(&floor) {
            kept[place].push(format!("kept: {floor}"));
        }
    }
    needed(&chain, &mut kept);
    decided(&chain, kept, |place| wanted.why(chain.backups[place]))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use chrono::{DateTime, Utc};
    use chrono_tz::Tz;
    use proptest::prelude::*;

    use super::{
        super::property::{EPOCH, backup},
        *,
    };
    use crate::record::BackupType::{Diff, Full, Incr};

    /// A full, a diff on it, an incr on both, and another full, a day apart.
    fn history() -> Vec<Backup> {
        let full = backup(Full, -4, &[]);
        let diff = backup(Diff, -3, std::slice::from_ref(&full));
        let incr = backup(Incr, -2, &[full.clone(), diff.clone()]);
        vec![full, diff, incr, backup(Full, -1, &[])]
    }

    /// The places of those that go, in the order of going.
    fn ended(backups: &[Backup], wanted: &Selection) -> Vec<usize> {
        let now: DateTime<Utc> = EPOCH.parse().unwrap();
        let at = Circumstances { now, zone: Tz::UTC, pinned: BTreeMap::new() };
        let plan = select(backups, wanted, &Retention::default(), &at);
        let place = |id: &String| backups.iter().position(|backup| backup.id == *id).unwrap();
        plan.expire().iter().map(|decision| place(&decision.backup_id)).collect()
    }

    fn deleted(backup: &Backup, force: bool) -> Selection {
        Selection::Deleted { id: backup.id.clone(), force, why: "by hand".to_owned() }
    }

    #[test]
    fn age_takes_whole_chains_from_the_leaves_and_leaves_what_younger_ones_need() {
        let days = |days: u64| Selection::OlderThan(Duration::from_hours(24 * days));
        assert_eq!(ended(&history(), &days(1)), [2, 1, 0], "the newest good one stays");
        assert_eq!(ended(&history(), &days(3)), [0; 0], "the incr needs both");
    }

    #[test]
    fn one_goes_alone_and_only_if_nothing_needs_it() {
        let backups = history();
        assert_eq!(ended(&backups, &Selection::One(backups[2].id.clone())), [2]);
        assert_eq!(ended(&backups, &Selection::One(backups[1].id.clone())), [0; 0]);
        assert_eq!(ended(&backups, &Selection::One("backup-x".to_owned())), [0; 0]);
    }

    #[test]
    fn only_who_deletes_one_with_force_passes_a_soft_floor() {
        let mut backups = history();
        backups[2].tags = vec!["important".to_owned()];
        assert_eq!(ended(&backups, &Selection::One(backups[2].id.clone())), [0; 0]);
        assert_eq!(ended(&backups, &deleted(&backups[2], false)), [0; 0]);
        assert_eq!(ended(&backups, &deleted(&backups[2], true)), [2]);
        backups[2].held = Some("audit".to_owned());
        assert_eq!(ended(&backups, &deleted(&backups[2], true)), [0; 0]);
    }

    proptest! {
        #[test]
        fn force_takes_one_at_most_and_never_what_others_or_everybody_need(
            types in prop::collection::vec(0..3_usize, 1..12), chosen in any::<prop::sample::Index>(), force in any::<bool>(),
        ) {
            let mut backups: Vec<Backup> = Vec::new();
            for (day, which) in (0..).zip(types) {
                let made = backup([Full, Diff, Incr][which], day - 20, &backups);
                backups.push(made);
            }
            let chosen = chosen.index(backups.len());
            for place in ended(&backups, &deleted(&backups[chosen], force)) {
                prop_assert_eq!(place, chosen);
                prop_assert!(backups.iter().all(|other| !other.references.contains(&backups[place].label)));
                prop_assert!(backups[place + 1..].iter().any(Backup::is_good), "a newer good one is left");
            }
        }
    }
}
