//! Whether one backup may be deleted because a person says so.
//!
//! The floors of retention hold for people too: the newest good backup and the newest proven one stay. Pure, like the
//! planner. A newcomer would let `--yes` overrule an objection; it answers the question, it is no argument.

use chrono::{DateTime, Utc};

use super::is_sound;
use crate::record::{Backup, BackupStatus, CopyState};

/// Why a backup stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objection {
    /// Why, lower case: `it is held: audit`.
    pub why: String,
    /// What a person can do about it; a full sentence.
    pub remedy: String,
}

impl Objection {
    fn new(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { why: why.into(), remedy: remedy.into() }
    }
}

/// Everything that speaks against deleting a backup. `all` are the backups of its database, itself included.
pub fn objections(backup: &Backup, all: &[Backup], now: DateTime<Utc>) -> Vec<Objection> {
    let mut found = Vec::new();
    if is_gone(backup) {
        found.push(Objection::new("it is gone already", format!("`backstop show {}` says why.", backup.id)));
    }
    if !backup.engine.is_dump() {
        let remedy = format!("Let retention end it: `backstop expire {}`.", backup.database);
        found.push(Objection::new("pgBackRest alone removes backups from its repository", remedy));
    }
    if let Some(why) = &backup.held {
        let remedy = format!("`backstop release {}` ends the hold.", backup.id);
        found.push(Objection::new(format!("it is held: {why}"), remedy));
    }
    found.extend(locks(backup, now));
    found.extend(floors(backup, all));
    found
}

/// Whether nothing of it is left to delete. A deletion that did not reach every storage may go on.
fn is_gone(backup: &Backup) -> bool {
    let copies = backup.dump.iter().flat_map(|dump| &dump.copies);
    let mut left = copies.filter(|copy| !matches!(copy.state, CopyState::Failed | CopyState::Deleted));
    backup.status == BackupStatus::Expired && left.next().is_none()
}

/// The storages that would refuse.
fn locks(backup: &Backup, now: DateTime<Utc>) -> Vec<Objection> {
    let copies = backup.dump.iter().flat_map(|dump| &dump.copies);
    let there =
        copies.filter(|copy| !matches!(copy.state, CopyState::Failed | CopyState::Deleted | CopyState::Missing));
    let locked = there.filter_map(|copy| copy.locked_until.filter(|until| *until > now).map(|until| (copy, until)));
    let objection = |(copy, until): (&crate::record::BackupCopy, DateTime<Utc>)| {
        let until = until.format("%F %T UTC");
        Objection::new(format!("storage `{}` keeps it locked until {until}", copy.storage), "Wait until then.")
    };
    locked.map(objection).collect()
}

/// What a database must keep whoever asks.
fn floors(backup: &Backup, all: &[Backup]) -> Vec<Objection> {
    let newest = |is_it: fn(&Backup) -> bool| {
        all.iter().filter(|other| is_it(other)).max_by_key(|other| (other.stopped_at, other.id.as_str()))
    };
    let is_newest = |is_it| newest(is_it).is_some_and(|other| other.id == backup.id);
    let mut found = Vec::new();
    if is_newest(is_sound) {
        let why = format!("it is the newest good backup of `{}`", backup.database);
        found.push(Objection::new(why, format!("Make another first: `backstop backup {}`.", backup.database)));
    }
    if is_newest(|other| is_sound(other) && other.proven_at.is_some()) {
        let why = format!("it is the newest backup of `{}` that a restore has proven", backup.database);
        found.push(Objection::new(why, format!("Prove another first: `backstop test-restore {}`.", backup.database)));
    }
    if newest(is_sound).is_none() && !matches!(backup.status, BackupStatus::Expired | BackupStatus::Lost) {
        let why = format!("`{}` has no good backup, and something may be saved from this one", backup.database);
        found.push(Objection::new(why, format!("Make a good one first: `backstop backup {}`.", backup.database)));
    }
    found
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
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

    fn told(backup: &Backup, all: &[Backup]) -> String {
        objections(backup, all, now()).into_iter().map(|objection| objection.why).collect::<Vec<_>>().join("; ")
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
            objections(&backup, &all, now()).into_iter().map(|o| format!("{} -> {}", o.why, o.remedy)).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        it is held: audit (by ada) -> `backstop release backup--1` ends the hold.
        storage `offsite` keeps it locked until 2026-11-29 12:00:00 UTC -> Wait until then.
        it is the newest good backup of `orders` -> Make another first: `backstop backup orders`.
        it is the newest backup of `orders` that a restore has proven -> Prove another first: `backstop test-restore orders`.
        ");
    }

    #[test]
    fn backups_of_pgbackrest_are_left_to_it() {
        let all = [physical(BackupType::Full, -2, &[]), physical(BackupType::Full, -1, &[])];
        assert_eq!(told(&all[0], &all), "pgBackRest alone removes backups from its repository");
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
            while let Some(at) = all.iter().position(|b| objections(b, &all, now()).is_empty()) {
                prop_assert!(all[at].held.is_none());
                all.remove(at);
            }
            prop_assert_eq!((newest(&all, Backup::is_good), newest(&all, proven)), before);
        }
    }
}
