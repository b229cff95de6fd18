//! The rules of the policy, and the sentences they speak.
//!
//! A newcomer would test a backup against the rules one by one; counts need all of a type, and a diff may live by the
//! rule of its full. The rules that count periods stand in `period.rs`.

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    Circumstances,
    chain::Chain,
    own_day,
    period::{self, PERIODS},
};
use crate::{clock::age, human::length, policy::Retention, record::BackupType};

/// For each backup of the chain, by which rules it is kept.
pub(super) fn kept(chain: &Chain, rules: &Retention, at: &Circumstances) -> Vec<Vec<String>> {
    let mut kept = vec![Vec::new(); chain.backups.len()];
    for (place, backup) in chain.backups.iter().enumerate().filter(|(place, _)| chain.is_ruled(*place)) {
        if !rules.has_rule() {
            kept[place].push("kept: there is no retention rule".to_owned());
            continue;
        }
        kept[place].extend(counted(chain, rules, place));
        if let Some(within) = rules.within.filter(|&within| age(at.now, backup.stopped_at) < within) {
            kept[place].push(format!("kept: younger than {}", length(within)));
        }
        if chain.is_full(place) && !rules.ends_fulls() {
            kept[place].push("kept: no rule ends fulls".to_owned());
        }
    }
    follow(chain, rules, &mut kept);
    last(chain, rules, &mut kept);
    period::keep(chain, rules, at.zone, &mut kept);
    recovery_window(chain, rules, at.now, &mut kept);
    kept
}

/// What was built on a kept backup lives as long, where no count of its own says how long. What only a period, a place
/// among the last or the recovery window keeps carries nothing with it: thinning out is what those are for.
fn follow(chain: &Chain, rules: &Retention, kept: &mut [Vec<String>]) {
    // From the oldest, so that a parent has been asked before what was built on it.
    for place in (0..kept.len()).rev() {
        let parent = lives_with(chain, rules, place).filter(|&parent| !kept[parent].is_empty());
        if let Some(parent) = parent.filter(|_| kept[place].is_empty()) {
            kept[place].push(format!("kept: lives as long as {}", chain.backups[parent].label));
        }
    }
}

fn last(chain: &Chain, rules: &Retention, kept: &mut [Vec<String>]) {
    let limit = rules.last.unwrap_or_default();
    for (place, n) in chain.counted().zip(1..=limit) {
        kept[place].push(format!("kept: last {n} of {limit}"));
    }
}

/// The newest backup from before the window, and all after it: from there WAL reaches every moment of it.
fn recovery_window(chain: &Chain, rules: &Retention, now: DateTime<Utc>, kept: &mut [Vec<String>]) {
    let Some(window) = rules.recovery_window else { return };
    let begins = TimeDelta::from_std(window).ok().and_then(|window| now.checked_sub_signed(window));
    let window = length(window);
    for place in chain.counted() {
        if begins.is_some_and(|begins| chain.backups[place].stopped_at <= begins) {
            kept[place].push(format!("kept: the recovery window of {window} begins after it"));
            return;
        }
        kept[place].push(format!("kept: in the recovery window of {window}"));
    }
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

/// Why nothing keeps the backup. `past_rules` tells which ones no rule keeps, `passed_over` what the rules say of all.
pub(super) fn why_not(
    chain: &Chain,
    rules: &Retention,
    at: usize,
    past_rules: &[bool],
    passed_over: Option<&str>,
) -> String {
    let backup = chain.backups[at];
    if let Some(newer) = chain.replacement(at).filter(|_| !chain.is_good(at)) {
        return format!("expires: {}, and {} is newer and good", chain.trouble(at), chain.backups[newer].label);
    }
    if let Some(day) = own_day(backup) {
        return format!("expires: its own retention ended {}", day.format("%F %H:%M UTC"));
    }
    let too_old = rules.within.map(|within| format!("older than {}", length(within)));
    if let Some(parent) = lives_with(chain, rules, at).filter(|&parent| past_rules[parent]) {
        let also = too_old.map(|it| format!(", and {it}")).unwrap_or_default();
        return format!("expires: lived as long as {}, which no rule keeps{also}", chain.backups[parent].label);
    }
    let counted = count(rules, backup.backup_type)
        .map(|limit| format!("{} {} of {limit}, older than the newest {limit}", backup.backup_type, chain.rank(at)));
    let passed_over = passed_over.map(str::to_owned);
    let reasons: Vec<String> = counted.into_iter().chain(too_old).chain(passed_over).collect();
    match reasons.as_slice() {
        [] => "expires: no rule keeps it".to_owned(),
        reasons => format!("expires: {}", reasons.join(" and ")),
    }
}

/// What the rules that look at all backups alike say of one they do not keep.
pub(super) fn passed_over(rules: &Retention) -> Option<String> {
    let last = rules.last.map(|limit| format!("the last {limit}"));
    let periods = PERIODS.iter().filter_map(|period| period.told(rules));
    let window = rules.recovery_window.map(|window| format!("the recovery window of {}", length(window)));
    let asked: Vec<String> = last.into_iter().chain(periods).chain(window).collect();
    (!asked.is_empty()).then(|| format!("not wanted by {}", asked.join(", ")))
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
