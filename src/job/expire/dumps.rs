//! Retention of dumps: the same planner, our own deletion.
//!
//! What a person said of one backup (`--retention DAYS`) overrules the rules both ways: before its day it stays, and
//! after its day no rule keeps it, only a floor does. It never takes a place of others in a count. What a storage keeps
//! locked stays too, for it could not be deleted. Deletions that an earlier run could not finish are finished first.
//! Before anything goes the storages are asked whether what stays is there, in `dumps/relied.rs`.
//!
//! A newcomer would stop at the first storage that cannot be reached; the other backups are not to blame.

mod relied;

use chrono::{DateTime, Utc};
use tracing::warn;

use super::{Preview, Question, may_go, question};
use crate::{
    catalog::{BackupFilter, Catalog},
    job::{
        Context, Done, catalog_failure,
        delete::{self, Deletion},
    },
    record::{Backup, DatabaseName, Failure},
    retention::Plan,
};

/// Plans from what the catalog knows. The storages are not asked here, and a person is told when they will be.
pub(super) async fn preview(question: &Question<'_>) -> Result<Preview, Failure> {
    let mut preview = planned(question).await?;
    foretell(&mut preview.plan);
    Ok(preview)
}

fn foretell(plan: &mut Plan) {
    for decision in plan.decisions.iter_mut().filter(|decision| !decision.keep) {
        decision.reasons.push("the storages are asked before for what stays".to_owned());
    }
}

async fn planned(question: &Question<'_>) -> Result<Preview, Failure> {
    let database = &question.database.name;
    let mut backups = question.catalog.backups(database).await.map_err(catalog_failure)?;
    backups.retain(|backup| backup.dump.is_some());
    let plan = question.decide(&backups).await?;
    let unfinished = unfinished(question.catalog, database).await?.into_iter().map(|backup| backup.id).collect();
    Ok(Preview { database: database.clone(), repo: 0, plan, wal: Vec::new(), unfinished, backups })
}

pub(super) async fn run(context: &Context) -> Result<Done, Failure> {
    let preview = planned(&question(context)).await?;
    may_go(context, &preview)?;
    let unfinished = unfinished(&context.catalog, &context.database().name).await?;
    let went_on =
        unfinished.iter().map(|backup| (backup, backup.expired_reason.as_deref().unwrap_or("it was ended").to_owned()));
    let ending = preview.ending();
    if !(unfinished.is_empty() && ending.is_empty()) {
        let staying: Vec<&Backup> =
            preview.rows().filter(|(decision, _)| decision.keep).map(|(_, backup)| backup).collect();
        relied::are_whole(context, &staying).await?;
    }
    let now = ending.iter().map(|(decision, backup)| (*backup, decision.reasons.join("; ")));
    let (mut skipped, mut failures) = (Vec::new(), Vec::new());
    for (backup, reason) in went_on.chain(now) {
        if context.stop.is_stopped() {
            return Err(context.stopped());
        }
        let deletion =
            Deletion { policy: &context.policy, catalog: &context.catalog, action: "expire", who: &context.witness };
        match deletion.of(backup, &reason).await {
            Ok(Some(_)) => {}
            Ok(None) => skipped.push(skip(context, backup).await?),
            Err(failure) => failures.push(failure),
        }
    }
    let left = ending.iter().filter(|(_, backup)| skipped.iter().any(|(id, _)| *id == backup.id)).count();
    let kept = preview.plan.decisions.len() - ending.len() + left;
    conclude(ending.len() - left, kept, &skipped, failures)
}

/// Says why a backup stays although the plan ends it.
async fn skip(context: &Context, backup: &Backup) -> Result<(String, String), Failure> {
    let found = context.catalog.backup(&backup.id).await.map_err(catalog_failure)?;
    let why = why_skipped(backup, found.as_ref(), context.now());
    warn!(run_id = context.run, backup = %backup.id, "it stays, against the plan: {why}");
    Ok((backup.id.clone(), why))
}

fn why_skipped(backup: &Backup, found: Option<&Backup>, now: DateTime<Utc>) -> String {
    match found.map(|found| (found.held_at(now), found.status)) {
        Some((Some(why), _)) => format!("it is held meanwhile, {why}"),
        Some((None, status)) if status != backup.status => format!("it is {status} meanwhile"),
        _ => "it changed meanwhile".to_owned(),
    }
}

fn conclude(ended: usize, kept: usize, skipped: &[(String, String)], failures: Vec<Failure>) -> Result<Done, Failure> {
    let skipped: String = skipped.iter().map(|(id, why)| format!("; {id} was skipped: {why}")).collect();
    let summary = format!("{ended} backups ended, {kept} kept{skipped}");
    let Some(first) = failures.first() else { return Ok(Done::new(summary)) };
    let why: Vec<&str> = failures.iter().map(|failure| failure.message.as_str()).collect();
    Err(Failure { message: format!("{summary}, but: {}", why.join("; ")), ..first.clone() })
}

/// Deletions that were begun and not finished.
async fn unfinished(catalog: &Catalog, database: &DatabaseName) -> Result<Vec<Backup>, Failure> {
    let database = Some(database.clone());
    let filter = BackupFilter { database, include_expired: true, ..BackupFilter::default() };
    let all = catalog.all_backups(&filter).await.map_err(catalog_failure)?;
    Ok(all.into_iter().filter(delete::is_unfinished).collect())
}

#[cfg(test)]
pub(in crate::job) mod tests {
    use std::collections::BTreeMap;

    use chrono::TimeDelta;
    use chrono_tz::Tz;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        policy::Retention,
        record::{BackupCopy, BackupStatus, BackupType, Compression, CopyState, Dump, DumpFormat, EngineKind},
        retention::{Circumstances, is_sound, plan},
    };

    fn day(day: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(day)
    }

    /// A dump of a day, with the day at which a person lets it go.
    pub(in crate::job) fn dump(made: i64, goes: Option<i64>) -> Backup {
        let id = format!("backup-{made:03}");
        let details = Dump {
            format: DumpFormat::Custom,
            compression: Compression::default(),
            encryption: None,
            directory: format!("shop/{id}"),
            artifacts: Vec::new(),
            copies: vec![BackupCopy {
                storage: "local".to_owned(),
                state: CopyState::Good,
                detail: None,
                checked_at: day(made),
                locked_until: None,
            }],
            server: String::new(),
            source: String::new(),
            migrations: None,
            retention_days: None,
            expires_at: goes.map(day),
            warnings: Vec::new(),
            verified_at: None,
        };
        Backup {
            id: id.clone(),
            database: "shop".parse().unwrap(),
            environment: String::new(),
            engine: EngineKind::PgDump,
            backup_type: BackupType::Full,
            requested_type: BackupType::Full,
            label: id,
            repo: 0,
            system_id: String::new(),
            server_version: String::new(),
            tool_version: String::new(),
            name: None,
            reason: None,
            tags: Vec::new(),
            run_uuid: None,
            started_at: day(made),
            stopped_at: day(made),
            size: 1,
            delta: 1,
            repo_delta: None,
            repo_size: None,
            prior: None,
            references: Vec::new(),
            wal_start: None,
            wal_stop: None,
            lsn_stop: None,
            page_errors: None,
            status: BackupStatus::Good,
            expired_reason: None,
            expired_at: None,
            held: None,
            held_until: None,
            proven_at: None,
            created_by: String::new(),
            dump: Some(details),
        }
    }

    fn full(count: u32) -> Retention {
        Retention { full: Some(count), keep_proven: 0, ..Retention::default() }
    }

    fn decide(backups: &[Backup], rules: &Retention, now: DateTime<Utc>) -> Plan {
        plan(backups, rules, &Circumstances { now, zone: Tz::UTC, pinned: BTreeMap::new() })
    }

    /// `+` for kept and `-` for ended, oldest first.
    fn picture(backups: &[Backup], rules: &Retention) -> String {
        let plan = decide(backups, rules, day(100));
        let keeps = |backup: &Backup| plan.decisions.iter().any(|it| it.backup_id == backup.id && it.keep);
        backups.iter().map(|backup| if keeps(backup) { '+' } else { '-' }).collect()
    }

    #[test]
    fn a_count_keeps_the_newest() {
        let backups: Vec<Backup> = (1..=5).map(|made| dump(made, None)).collect();
        assert_eq!(picture(&backups, &full(2)), "---++");
        assert_eq!(picture(&backups, &Retention::default()), "+++++", "no rule ends nothing");
    }

    #[test]
    fn what_a_person_said_overrules_the_rules_both_ways() {
        let backups = [dump(1, Some(200)), dump(2, None), dump(3, Some(50)), dump(4, None)];
        assert_eq!(picture(&backups, &full(1)), "+--+", "one stays early, one goes late");
        assert_eq!(picture(&backups, &full(9)), "++-+", "no rule keeps what is over");
        assert_eq!(picture(&backups, &Retention::default()), "++-+");
    }

    #[test]
    fn the_newest_good_one_stays_although_its_day_has_passed() {
        assert_eq!(picture(&[dump(1, Some(50)), dump(2, Some(60))], &full(1)), "-+");
        let mut backups = [dump(1, Some(50)), dump(2, Some(60))];
        backups[1].status = BackupStatus::Damaged;
        assert_eq!(picture(&backups, &full(1)), "++");
        backups[0].held = Some("audit".to_owned());
        backups[1].status = BackupStatus::Good;
        assert_eq!(picture(&backups, &full(1)), "++", "a hold is a floor too");
    }

    #[test]
    fn what_has_a_day_of_its_own_never_takes_a_place_in_a_count() {
        let backups = [dump(1, None), dump(2, None), dump(3, None), dump(4, Some(200)), dump(5, Some(50))];
        assert_eq!(picture(&backups, &full(2)), "-++++", "the last is the newest good one");
        assert_eq!(picture(&backups[..4], &full(2)), "-+++");
    }

    #[test]
    fn what_has_no_good_copy_is_neither_counted_nor_ended() {
        let mut backups: Vec<Backup> = (1..=4).map(|made| dump(made, None)).collect();
        backups[3].dump.as_mut().unwrap().copies[0].state = CopyState::Missing;
        assert_eq!(picture(&backups, &full(1)), "--++", "the one before it is the newest good one");
        backups[3].proven_at = Some(day(9));
        backups[1].proven_at = Some(day(9));
        assert_eq!(picture(&backups, &Retention { keep_proven: 1, ..full(1) }), "-+++");
        backups[0].dump.as_mut().unwrap().copies.clear();
        assert_eq!(picture(&backups, &full(1)), "+-++", "a person must look at it");
        backups[0].dump.as_mut().unwrap().expires_at = Some(day(50));
        assert_eq!(picture(&backups, &full(1)), "+-++");
    }

    #[test]
    fn a_backup_that_is_skipped_is_told_with_the_reason() {
        let planned = dump(1, None);
        let held = Backup { held: Some("audit (by ada)".to_owned()), ..planned.clone() };
        let lost = Backup { status: BackupStatus::Lost, ..planned.clone() };
        assert_eq!(why_skipped(&planned, Some(&held), day(9)), "it is held meanwhile, audit (by ada)");
        assert_eq!(why_skipped(&planned, Some(&lost), day(9)), "it is lost meanwhile");
        assert_eq!(why_skipped(&planned, None, day(9)), "it changed meanwhile");
        let skipped = [("backup-001".to_owned(), "it is lost meanwhile".to_owned())];
        let done = conclude(1, 2, &skipped, Vec::new()).unwrap();
        assert_eq!(done.summary, "1 backups ended, 2 kept; backup-001 was skipped: it is lost meanwhile");
    }

    #[test]
    fn a_person_is_told_that_the_storages_are_asked_before() {
        let mut plan = decide(&[dump(1, None), dump(2, None)], &full(1), day(100));
        foretell(&mut plan);
        let told: Vec<usize> = plan.decisions.iter().map(|decision| decision.reasons.len()).collect();
        assert!(told[0] > 0 && !plan.decisions[0].reasons.iter().any(|reason| reason.contains("asked")));
        assert_eq!(plan.decisions[1].reasons[1], "the storages are asked before for what stays");
    }

    #[test]
    fn what_a_storage_keeps_locked_stays() {
        let mut backups = [dump(1, None), dump(2, None)];
        let copy = BackupCopy {
            storage: "s3".to_owned(),
            state: CopyState::Good,
            detail: None,
            checked_at: day(1),
            locked_until: Some(day(101)),
        };
        backups[0].dump.as_mut().unwrap().copies.push(copy);
        let plan = decide(&backups, &full(1), day(100));
        assert_eq!(plan.decisions[1].reasons, ["kept: storage `s3` keeps it locked until 1970-04-12 00:00 UTC"]);
        assert!(!decide(&backups, &full(1), day(101)).decisions[1].keep);
    }

    proptest! {
        #[test]
        fn a_second_plan_over_what_the_first_kept_ends_nothing(
            days in prop::collection::vec((0..90_i64, prop::option::of(0..200_i64)), 0..12), count in 0..5_u32, proven in 0..3_u32,
        ) {
            let mut backups: Vec<Backup> = Vec::new();
            for (at, (made, goes)) in days.into_iter().enumerate() {
                let mut backup = dump(made, goes);
                (backup.id, backup.label) = (format!("backup-{at}"), format!("backup-{at}"));
                backup.proven_at = (at % 3 == 0).then(|| day(made));
                if at % 4 == 1 {
                    backup.dump.as_mut().unwrap().copies[0].state = CopyState::Unknown;
                }
                backups.push(backup);
            }
            let rules = Retention { keep_proven: proven, ..full(count) };
            let first = decide(&backups, &rules, day(100));
            prop_assert_eq!(first.decisions.len(), backups.len(), "each is decided about once");
            let kept: Vec<Backup> = backups.iter().filter(|b| first.decisions.iter().any(|d| d.keep && d.backup_id == b.id)).cloned().collect();
            prop_assert!(!backups.iter().any(is_sound) || kept.iter().any(is_sound), "one that is there stays");
            prop_assert!(backups.iter().filter(|b| !is_sound(b)).all(|b| kept.contains(b)));
            prop_assert!(decide(&kept, &rules, day(100)).expire().is_empty());
        }
    }
}
