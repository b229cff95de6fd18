//! Whether one backup may be deleted because a person says so.
//!
//! The floors are those of retention, in `floor.rs`; here they become objections, each with a remedy. Soft ones a person
//! passes with `--force`, hard ones nobody does. Pure, like the planner. A newcomer would let `--yes` overrule an
//! objection; it answers the question, it is no argument.

use super::{
    Circumstances,
    chain::Chain,
    floor::{self, Firmness, Floor},
};
use crate::{
    policy::Retention,
    record::{Backup, BackupStatus, CopyState},
};

/// Why a backup stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objection {
    /// Why, lower case: `held, audit`.
    pub why: String,
    /// What a person can do about it; a full sentence.
    pub remedy: String,
    /// Who may overrule it.
    pub firmness: Firmness,
}

impl Objection {
    /// One that nobody may overrule.
    pub fn hard(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { why: why.into(), remedy: remedy.into(), firmness: Firmness::Hard }
    }

    fn of(floor: &Floor, backup: &Backup) -> Self {
        Self { why: floor.to_string(), remedy: floor.remedy(backup), firmness: floor.firmness() }
    }

    /// Whether it stands against a person who says `--force` or does not.
    pub fn stands(&self, force: bool) -> bool {
        self.firmness > if force { Firmness::Soft } else { Firmness::Yields }
    }
}

/// Everything that speaks against deleting a backup. `all` are the backups of its database, itself included.
pub fn objections(backup: &Backup, all: &[Backup], rules: &Retention, at: &Circumstances) -> Vec<Objection> {
    let mut found = Vec::new();
    if is_gone(backup) {
        found.push(Objection::hard("it is gone already", format!("`backstop show {}` says why.", backup.id)));
    }
    let beside: Vec<Backup> = all.iter().filter(|other| other.repo == backup.repo).cloned().collect();
    let chain = Chain::of(&beside, rules);
    match chain.backups.iter().position(|other| other.id == backup.id) {
        Some(place) => found.extend(at_place(&chain, place, rules, at)),
        // It does not count any more, so only what is said of it alone speaks for it.
        None => {
            let hard = floor::of_one(backup, at).filter(|floor| floor.firmness() == Firmness::Hard);
            found.extend(hard.map(|floor| Objection::of(&floor, backup)));
        }
    }
    found.retain(|objection| objection.firmness > Firmness::Yields);
    found
}

/// What speaks for a backup that is in the storages or the repository.
fn at_place(chain: &Chain, place: usize, rules: &Retention, at: &Circumstances) -> Vec<Objection> {
    let backup = chain.backups[place];
    let mine = floor::floors(chain, rules, at).into_iter().filter(|(other, _)| *other == place);
    let mut found: Vec<Objection> = mine.map(|(_, floor)| Objection::of(&floor, backup)).collect();
    let dependents: Vec<&str> =
        (0..place).filter(|&it| chain.needs[it].contains(&place)).map(|it| chain.backups[it].label.as_str()).collect();
    if let Some(newest) = dependents.first() {
        let more = if dependents.len() > 1 { format!(" and {} more", dependents.len() - 1) } else { String::new() };
        found.push(Objection::hard(format!("needed by {newest}{more}"), "Delete those first, the newest first."));
    }
    if chain.good().next().is_none() {
        let why = format!("`{}` has no good backup, and something may be saved from this one", backup.database);
        let remedy = format!("Make a good one first: `backstop backup {}`; or say `--force`.", backup.database);
        found.push(Objection { why, remedy, firmness: Firmness::Soft });
    }
    found
}

/// Whether nothing of it is left to delete. A deletion that did not reach every storage may go on.
fn is_gone(backup: &Backup) -> bool {
    let copies = backup.dump.iter().flat_map(|dump| &dump.copies);
    let mut left = copies.filter(|copy| !matches!(copy.state, CopyState::Failed | CopyState::Deleted));
    match backup.status {
        BackupStatus::Expired => left.next().is_none(),
        // pgBackRest shows no trace of it, so there is nothing that it could remove.
        BackupStatus::Lost => backup.dump.is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use chrono::{DateTime, TimeDelta, Utc};
    use proptest::prelude::*;

    use super::*;
    use crate::{
        record::{BackupCopy, BackupType, Compression, Dump, DumpFormat, EngineKind},
        retention::property::{EPOCH, backup as physical},
    };

    fn now() -> DateTime<Utc> {
        EPOCH.parse().unwrap()
    }

    fn dump(day: i64, status: BackupStatus) -> Backup {
        let more = Dump {
            format: DumpFormat::Custom,
            compression: Compression::NONE,
            encryption: None,
            directory: String::new(),
            artifacts: Vec::new(),
            copies: vec![BackupCopy {
                storage: "local".to_owned(),
                state: match status {
                    BackupStatus::Good => CopyState::Good,
                    BackupStatus::Expired => CopyState::Deleted,
                    _ => CopyState::Damaged,
                },
                detail: None,
                checked_at: now(),
                locked_until: None,
            }],
            server: String::new(),
            source: String::new(),
            migrations: None,
            retention_days: None,
            expires_at: None,
            warnings: Vec::new(),
            verified_at: None,
        };
        let id = format!("backup-{day}");
        Backup {
            label: id.clone(),
            id,
            engine: EngineKind::PgDump,
            status,
            dump: Some(more),
            ..physical(BackupType::Full, day, &[])
        }
    }

    fn against(backup: &Backup, all: &[Backup]) -> Vec<Objection> {
        let at = Circumstances { now: now(), zone: chrono_tz::Tz::UTC, pinned: BTreeMap::new() };
        objections(backup, all, &Retention::default(), &at)
    }

    fn told(backup: &Backup, all: &[Backup]) -> String {
        against(backup, all).into_iter().map(|objection| objection.why).collect::<Vec<_>>().join("; ")
    }

    /// What stands against `--force`.
    fn forced(backup: &Backup, all: &[Backup]) -> Vec<String> {
        against(backup, all).into_iter().filter(|objection| objection.stands(true)).map(|it| it.why).collect()
    }

    #[test]
    fn an_old_backup_that_nothing_needs_may_go() {
        let all = [dump(-2, BackupStatus::Good), dump(-1, BackupStatus::Good)];
        assert_eq!(told(&all[0], &all), "");
        assert!(told(&all[1], &all).contains("the newest good backup"));
    }

    #[test]
    fn every_objection_is_told_with_a_remedy() {
        let mut backup = dump(-1, BackupStatus::Good);
        backup.proven_at = Some(now());
        backup.held = Some("audit (by ada)".to_owned());
        let copy = |storage: &str, state, days| BackupCopy {
            storage: storage.to_owned(),
            state,
            detail: None,
            checked_at: now(),
            locked_until: Some(now() + TimeDelta::days(days)),
        };
        let copies = vec![
            copy("over", CopyState::Good, -1),
            copy("gone", CopyState::Missing, 9),
            copy("offsite", CopyState::Damaged, 9),
        ];
        backup.dump.as_mut().unwrap().copies = copies;
        let all = [backup.clone()];
        let lines: Vec<String> =
            against(&backup, &all).into_iter().map(|o| format!("{} -> {}", o.why, o.remedy)).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        the newest good full -> Make another first: `backstop backup orders`.
        the newest good backup -> Make another first: `backstop backup orders`.
        proven 1 of 1, by a restore on 2026-11-20 -> Prove another first: `backstop test-restore orders`; or say `--force`.
        held, audit (by ada) -> `backstop release backup--1` ends the hold.
        storage `offsite` keeps it locked until 2026-11-29 12:00 UTC -> Wait until then.
        ");
    }

    #[test]
    fn what_others_depend_on_stays_whatever_is_said() {
        let full = physical(BackupType::Full, -4, &[]);
        let diff = physical(BackupType::Diff, -3, std::slice::from_ref(&full));
        let incr = physical(BackupType::Incr, -2, &[full.clone(), diff.clone()]);
        let mut all = vec![full, diff, incr, physical(BackupType::Full, -1, &[])];
        let newest = all[2].label.clone();
        assert_eq!(forced(&all[0], &all), [format!("needed by {newest} and 1 more")]);
        assert_eq!(forced(&all[1], &all), [format!("needed by {newest}")]);
        assert_eq!(told(&all[2], &all), "");
        assert_eq!(forced(&all[3], &all), ["the newest good full", "the newest good backup"]);
        all[3].repo = 2;
        assert_eq!(forced(&all[2], &all), ["the newest good backup"], "another repository is no help");
        all[2].status = BackupStatus::Lost;
        assert_eq!(told(&all[2], &all), "it is gone already");
    }

    #[test]
    fn soft_objections_yield_to_force_and_hard_ones_do_not() {
        let mut all = [dump(-2, BackupStatus::Good), dump(-1, BackupStatus::Good)];
        let old = &mut all[0];
        (old.proven_at, old.reason) = (Some(now()), Some("pre-migration to 4.2".to_owned()));
        old.tags = vec!["important".to_owned()];
        old.dump.as_mut().unwrap().expires_at = Some(now() + TimeDelta::days(3));
        let soft = "proven 1 of 1, by a restore on 2026-11-20; its own retention ends 2026-11-23 12:00 UTC; \
                    a safety backup, until 2027-02-16 12:00 UTC; tagged `important`";
        assert_eq!(told(&all[0], &all), soft);
        assert_eq!(forced(&all[0], &all), [""; 0]);
        assert_eq!(forced(&all[1], &all), ["the newest good full", "the newest good backup"]);
        (all[0].held, all[0].held_until) = (Some("audit".to_owned()), Some(now() + TimeDelta::days(1)));
        assert_eq!(forced(&all[0], &all), ["held until 2026-11-21 12:00 UTC, audit"]);
        all[0].held_until = Some(now());
        assert_eq!(forced(&all[0], &all), [""; 0], "the hold is over");
    }

    #[test]
    fn a_damaged_backup_may_go_once_there_is_a_good_one() {
        let damaged = dump(-2, BackupStatus::Damaged);
        assert!(told(&damaged, std::slice::from_ref(&damaged)).contains("something may be saved"));
        let all = [damaged.clone(), dump(-3, BackupStatus::Good)];
        assert_eq!(told(&damaged, &all), "");
        assert_eq!(told(&dump(-9, BackupStatus::Lost), &all), "", "its row may be ended");
    }

    #[test]
    fn a_deletion_that_did_not_reach_every_storage_may_go_on() {
        let all = [dump(-1, BackupStatus::Good)];
        let mut ended = dump(-2, BackupStatus::Expired);
        assert_eq!(told(&ended, &all), "it is gone already");
        ended.dump.as_mut().unwrap().copies = vec![BackupCopy {
            storage: "offsite".to_owned(),
            state: CopyState::Unknown,
            detail: None,
            checked_at: now(),
            locked_until: None,
        }];
        assert_eq!(told(&ended, &all), "");
    }

    proptest! {
        #[test]
        fn deleting_as_long_as_it_is_allowed_leaves_the_newest_good_and_the_newest_proven(
            made in prop::collection::vec((0_usize..3, any::<bool>(), any::<bool>()), 1..12),
            order in any::<prop::sample::Index>(),
        ) {
            let states = [BackupStatus::Good, BackupStatus::Damaged, BackupStatus::Lost];
            let mut all: Vec<Backup> = (0..).zip(&made).map(|(day, (state, proven, held))| Backup {
                proven_at: proven.then(now),
                held: held.then(|| "audit".to_owned()),
                ..dump(day, states[*state])
            }).collect();
            let newest = |all: &[Backup], is_it: fn(&Backup) -> bool| {
                all.iter().filter(|b| is_it(b)).max_by_key(|b| b.stopped_at).map(|b| b.id.clone())
            };
            let proven: fn(&Backup) -> bool = |b| b.is_good() && b.proven_at.is_some();
            let before = (newest(&all, Backup::is_good), newest(&all, proven));
            let start = order.index(all.len());
            all.rotate_left(start);
            while let Some(at) = all.iter().position(|b| against(b, &all).is_empty()) {
                prop_assert!(all[at].held.is_none());
                all.remove(at);
            }
            prop_assert_eq!((newest(&all, Backup::is_good), newest(&all, proven)), before);
        }
    }
}
