//! The rules of the policy, and the sentences they speak.
//!
//! A newcomer would test a backup against the rules one by one; counts need all of a type, and a diff may live by the
//! rule of its full.

use chrono::{DateTime, Utc};

use super::chain::Chain;
use crate::{clock::age, human::length, policy::Retention, record::BackupType};

/// For each backup of the chain, by which rules it is kept.
pub(super) fn kept(chain: &Chain, rules: &Retention, now: DateTime<Utc>) -> Vec<Vec<String>> {
    if (rules.full, rules.diff, rules.incr, rules.within) == (None, None, None, None) {
        return vec![vec!["kept: there is no retention rule".to_owned()]; chain.backups.len()];
    }
    let mut kept = vec![Vec::new(); chain.backups.len()];
    for (at, backup) in chain.backups.iter().enumerate() {
        kept[at].extend(counted(chain, rules, at));
        if let Some(within) = rules.within.filter(|&within| age(now, backup.stopped_at) < within) {
            kept[at].push(format!("kept: younger than {}", length(within)));
        }
        if chain.is_full(at) && rules.full.is_none() && rules.within.is_none() {
            kept[at].push("kept: no rule ends fulls".to_owned());
        }
    }
    // From the oldest, so that a parent has been asked before what was built on it.
    for at in (0..kept.len()).rev() {
        let parent = lives_with(chain, rules, at).filter(|&parent| !kept[parent].is_empty());
        if let Some(parent) = parent.filter(|_| kept[at].is_empty()) {
            kept[at].push(format!("kept: lives as long as {}", chain.backups[parent].label));
        }
    }
    kept
}

/// What the count for its type says for a backup.
fn counted(chain: &Chain, rules: &Retention, at: usize) -> Option<String> {
    let backup_type = chain.backups[at].backup_type;
    let limit = count(rules, backup_type)?;
    let n = chain.rank(at);
    if chain.is_good(at) {
        return (n <= limit).then(|| format!("kept: {backup_type} {n} of {limit}"));
    }
    // It takes nobody's place, but among those that count it may still be of use.
    let trouble = chain.trouble(at);
    (n < limit).then(|| format!("kept: {trouble}, so not counted, but among the newest {limit} {backup_type}s"))
}

/// Why nothing keeps the backup. `past_rules` tells which ones no rule keeps.
pub(super) fn why_not(chain: &Chain, rules: &Retention, at: usize, past_rules: &[bool]) -> String {
    let backup = chain.backups[at];
    if let Some(newer) = chain.replacement(at).filter(|_| !chain.is_good(at)) {
        return format!("expires: {}, and {} is newer and good", chain.trouble(at), chain.backups[newer].label);
    }
    let too_old = rules.within.map(|within| format!("older than {}", length(within)));
    if let Some(parent) = lives_with(chain, rules, at).filter(|&parent| past_rules[parent]) {
        let also = too_old.map(|it| format!(", and {it}")).unwrap_or_default();
        return format!("expires: lived as long as {}, which no rule keeps{also}", chain.backups[parent].label);
    }
    match (count(rules, backup.backup_type), too_old) {
        (Some(limit), also) => {
            let n = chain.rank(at);
            let also = also.map(|it| format!(" and {it}")).unwrap_or_default();
            format!("expires: {} {n} of {limit}, older than the newest {limit}{also}", backup.backup_type)
        }
        (None, Some(too_old)) => format!("expires: {too_old}"),
        (None, None) => "expires: no rule keeps it".to_owned(),
    }
}

/// The full of a diff, the parent of an incr, where no count of its own says how long it lives.
fn lives_with(chain: &Chain, rules: &Retention, at: usize) -> Option<usize> {
    let backup_type = chain.backups[at].backup_type;
    chain.parent[at].filter(|_| backup_type != BackupType::Full && count(rules, backup_type).is_none())
}

fn count(rules: &Retention, backup_type: BackupType) -> Option<u32> {
    match backup_type {
        BackupType::Full => rules.full,
        BackupType::Diff => rules.diff,
        BackupType::Incr => rules.incr,
    }
}
