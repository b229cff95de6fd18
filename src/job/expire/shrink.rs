//! What a changed policy newly ends: told when it is adopted, and before, to whoever checks a file.
//!
//! Told from the catalog alone, so that a reload waits for no repository; what protects is `guarded`, which needs none
//! of this. A newcomer would plan for all backups of a database at once; rules are counted in each repository, and only
//! over the backups of its present cluster; dumps are counted whatever server they are of.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::{
    catalog::{self, Catalog},
    policy::{Database, ExpireBy, Policy, Retention},
    record::{Backup, DatabaseName, RepoKey},
    retention::{Circumstances, Decision, FormerRules, newly_ended},
};

/// What the rules of a database newly end.
#[derive(Debug, Clone, Serialize)]
pub struct Shrink {
    /// The database.
    pub database: DatabaseName,
    /// Newest first.
    pub newly_ended: Vec<NewlyEnded>,
}

/// A backup that rules end and former ones keep.
#[derive(Debug, Clone, Serialize)]
pub struct NewlyEnded {
    /// The backup, and why it goes.
    #[serde(flatten)]
    pub decision: Decision,
    /// Before this it stays, unless a person accepts the rules.
    pub guarded_until: DateTime<Utc>,
}

/// The databases whose rules differ from those in force, with the latter; the first rules of a database replace nothing.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn changed<'a>(
    catalog: &Catalog,
    policy: &'a Policy,
) -> Result<Vec<(&'a Database, Option<Retention>)>, catalog::Error> {
    let mut in_force = catalog.all_rules_in_force().await?;
    let with_former = policy.databases.values().map(|database| (database, in_force.remove(&database.name)));
    Ok(with_former.filter(|(database, former)| former.as_ref() != Some(&database.rules())).collect())
}

/// What the rules of a database newly end, compared with former ones.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn look(
    catalog: &Catalog,
    policy: &Policy,
    database: &Database,
    former: &[FormerRules],
    now: DateTime<Utc>,
) -> Result<Shrink, catalog::Error> {
    let at = Circumstances { now, zone: policy.daemon.timezone, pinned: BTreeMap::new() };
    let mut shrink = Shrink { database: database.name.clone(), newly_ended: Vec::new() };
    // Where pgBackRest's own retention decides, these rules end nothing.
    if !former.is_empty() && (database.engine.is_dump() || database.pgbackrest.expire_by == ExpireBy::Backstop) {
        let backups = catalog.backups(&database.name).await?;
        for of_repo in by_repo(&backups, database.repos()) {
            shrink.newly_ended.extend(compared(&of_repo, &database.retention, former, &at));
        }
    }
    Ok(shrink)
}

/// Those that any of the former rules keep, with the last day of those that do.
fn compared(backups: &[Backup], rules: &Retention, former: &[FormerRules], at: &Circumstances) -> Vec<NewlyEnded> {
    let mut ended: Vec<NewlyEnded> = Vec::new();
    for FormerRules { rules: old, guards_until, .. } in former {
        for decision in newly_ended(backups, rules, old, at) {
            match ended.iter_mut().find(|known| known.decision.backup_id == decision.backup_id) {
                Some(known) => known.guarded_until = known.guarded_until.max(*guards_until),
                None => ended.push(NewlyEnded { decision, guarded_until: *guards_until }),
            }
        }
    }
    ended
}

/// The backups that rules look at together: of one repository, and of the cluster that was backed up last.
fn by_repo(newest_first: &[Backup], repos: &[RepoKey]) -> Vec<Vec<Backup>> {
    let of = |repo: &RepoKey| {
        let here: Vec<&Backup> = newest_first.iter().filter(|backup| backup.repo == *repo).collect();
        let present = here.first().map(|newest| newest.system_id.as_str()).unwrap_or_default();
        here.iter().filter(|backup| *repo == 0 || backup.system_id == present).map(|backup| (*backup).clone()).collect()
    };
    repos.iter().collect::<BTreeSet<_>>().into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::expire::tests::dump;

    #[test]
    fn what_several_former_rules_keep_stays_for_the_longest_of_them() {
        let backups: Vec<Backup> = (1..=5).map(|day| dump(day, None)).collect();
        let last = |last| Retention { last: Some(last), ..Retention::default() };
        let day = |day| DateTime::UNIX_EPOCH + chrono::TimeDelta::days(day);
        let former = |count, until| FormerRules { rules: last(count), replaced_at: day(9), guards_until: day(until) };
        let at = Circumstances { now: day(9), zone: chrono_tz::Tz::UTC, pinned: BTreeMap::new() };
        let ended = compared(&backups, &last(1), &[former(3, 12), former(2, 14), former(1, 20)], &at);
        let told: Vec<_> = ended.iter().map(|it| (it.decision.backup_id.as_str(), it.guarded_until)).collect();
        assert_eq!(told, [("backup-004", day(14)), ("backup-003", day(12))]);
    }

    #[test]
    fn rules_are_counted_in_each_repository_over_its_present_cluster() {
        let backup = |day, repo, system_id: &str| Backup { repo, system_id: system_id.to_owned(), ..dump(day, None) };
        let newest_first = [backup(4, 1, "new"), backup(3, 2, "old"), backup(2, 1, "new"), backup(1, 1, "old")];
        let sets = by_repo(&newest_first, &[1, 2]);
        let told: Vec<Vec<&str>> = sets.iter().map(|set| set.iter().map(|it| it.id.as_str()).collect()).collect();
        assert_eq!(told, [vec!["backup-004", "backup-002"], vec!["backup-003"]]);
    }
}
