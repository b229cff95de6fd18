//! The backups of a repository as a graph: what needs what, and which of them are good down to their full.
//!
//! A newcomer would follow `prior` only. An incr also reads files out of every backup in its `references`.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
};

use chrono::{DateTime, Utc};

use super::{is_left_alone, is_sound, lacks_copy, own_day};
use crate::policy::Retention;
use crate::record::{Backup, BackupStatus, BackupType};

/// The backups that are in the repository: newest first, but each before everything it needs even if a clock was wrong.
pub(super) struct Chain<'a> {
    pub(super) backups: Vec<&'a Backup>,
    /// What each needs, directly or not, where it is present.
    pub(super) needs: Vec<Vec<usize>>,
    /// What each was built on.
    pub(super) parent: Vec<Option<usize>>,
    /// All, strictly newest first.
    by_age: Vec<usize>,
    good: Vec<bool>,
    /// Which no rule counts: those with a day of their own, and those of others.
    uncounted: Vec<bool>,
    /// How many good ones of its type are not older than each.
    rank: Vec<u32>,
    /// The newest good one that is newer than each and of its type or a larger.
    replacement: Vec<Option<usize>>,
}

impl<'a> Chain<'a> {
    pub(super) fn of(backups: &'a [Backup], rules: &Retention) -> Self {
        let is_there = |backup: &&Backup| !matches!(backup.status, BackupStatus::Lost | BackupStatus::Expired);
        let mut present: Vec<&Backup> = backups.iter().filter(is_there).collect();
        present.sort_by_key(|&backup| newest_first(backup));
        let order = dependents_first(&needs(&present));
        let backups: Vec<&Backup> = order.into_iter().map(|at| present[at]).collect();
        let needs = needs(&backups);
        let places = places(&backups);
        let parent =
            backups.iter().map(|it| it.prior.as_deref().and_then(|label| places.get(label).copied())).collect();
        let mut by_age: Vec<usize> = (0..backups.len()).collect();
        by_age.sort_by_key(|&at| newest_first(backups[at]));
        let uncounted =
            backups.iter().map(|backup| own_day(backup).is_some() || is_left_alone(backup, rules)).collect();
        let (good, rank, replacement) = (vec![false; needs.len()], vec![0; needs.len()], vec![None; needs.len()]);
        let mut chain = Self { backups, needs, parent, by_age, good, uncounted, rank, replacement };
        chain.judge();
        chain.count();
        chain
    }

    /// Finds the good ones, from the oldest.
    fn judge(&mut self) {
        for at in (0..self.backups.len()).rev() {
            let backup = self.backups[at];
            let labels = backup.references.len() + usize::from(backup.prior.is_some());
            let is_whole = self.is_full(at) || self.parent[at].is_some();
            // A label in `references` and in `prior` is one need; a label that is not there is none.
            let present =
                self.needs[at].len() + backup.prior.iter().filter(|it| backup.references.contains(it)).count();
            let stands = is_whole && present >= labels && self.needs[at].iter().all(|&need| self.good[need]);
            self.good[at] = is_sound(backup) && stands;
        }
    }

    /// Counts the good ones by type, from the newest, and finds what takes the place of each.
    fn count(&mut self) {
        let mut counted = [0; BackupType::ALL.len()];
        let mut newest = [None; BackupType::ALL.len()];
        for (age, &at) in self.by_age.iter().enumerate() {
            let size = self.backups[at].backup_type as usize;
            self.replacement[at] = newest[..=size].iter().flatten().min().map(|&age: &usize| self.by_age[age]);
            if self.good[at] {
                counted[size] += u32::from(!self.uncounted[at]);
                newest[size].get_or_insert(age);
            }
            self.rank[at] = counted[size];
        }
    }

    /// The good ones that rules count, newest first.
    pub(super) fn counted(&self) -> impl Iterator<Item = usize> + '_ {
        self.good().filter(|&at| !self.uncounted[at])
    }

    /// Whether the rules look at it.
    pub(super) fn is_ruled(&self, at: usize) -> bool {
        !self.uncounted[at]
    }

    /// The good ones, newest first.
    pub(super) fn good(&self) -> impl Iterator<Item = usize> + '_ {
        self.by_age.iter().copied().filter(|&at| self.good[at])
    }

    pub(super) fn is_good(&self, at: usize) -> bool {
        self.good[at]
    }

    pub(super) fn is_full(&self, at: usize) -> bool {
        self.backups[at].backup_type == BackupType::Full
    }

    /// How many good ones of its type are not older than this one, itself included if it is good.
    pub(super) fn rank(&self, at: usize) -> u32 {
        self.rank[at]
    }

    /// The newest good backup that is newer than this one and of its type or a larger.
    pub(super) fn replacement(&self, at: usize) -> Option<usize> {
        self.replacement[at]
    }

    /// What is wrong with one that is not good.
    pub(super) fn trouble(&self, at: usize) -> &'static str {
        match self.backups[at].status {
            BackupStatus::Good if lacks_copy(self.backups[at]) => "without a good copy",
            BackupStatus::Good => "built on a backup that is missing or not good",
            status => status.as_str(),
        }
    }
}

fn newest_first(backup: &Backup) -> Reverse<(DateTime<Utc>, &str)> {
    Reverse((backup.stopped_at, &backup.label))
}

/// Where each label stands; nowhere, where nobody asks.
fn places<'a>(backups: &[&'a Backup]) -> HashMap<&'a str, usize> {
    if backups.iter().all(|backup| backup.prior.is_none() && backup.references.is_empty()) {
        return HashMap::new();
    }
    backups.iter().enumerate().map(|(at, backup)| (backup.label.as_str(), at)).collect()
}

/// For each, where its references and its parent stand; what is not there is left out.
fn needs(backups: &[&Backup]) -> Vec<Vec<usize>> {
    let places = places(backups);
    let of_one = |(at, backup): (usize, &&Backup)| {
        let labels = backup.references.iter().chain(&backup.prior);
        let mut needs: Vec<usize> = labels.filter_map(|label| places.get(label.as_str()).copied()).collect();
        needs.retain(|&need| need != at);
        needs.sort_unstable();
        needs.dedup();
        needs
    };
    backups.iter().enumerate().map(of_one).collect()
}

/// The order in which each comes before what it needs, and otherwise as it was.
///
/// A backup is always newer than what it needs, unless a clock was wrong; then this still holds.
fn dependents_first(needs: &[Vec<usize>]) -> Vec<usize> {
    let mut dependents = vec![0usize; needs.len()];
    needs.iter().flatten().for_each(|&need| dependents[need] += 1);
    let mut free: BinaryHeap<Reverse<usize>> =
        (0..needs.len()).filter(|&at| dependents[at] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(needs.len());
    while let Some(Reverse(at)) = free.pop() {
        order.push(at);
        for &need in &needs[at] {
            dependents[need] -= 1;
            if dependents[need] == 0 {
                free.push(Reverse(need));
            }
        }
    }
    // Only backups that need each other are left, which no tool makes; they are not lost here.
    order.extend((0..needs.len()).filter(|&at| dependents[at] > 0));
    order
}

#[cfg(test)]
mod tests {
    use super::{super::property::backup, *};

    #[test]
    fn a_wrong_clock_does_not_put_a_full_before_its_diff() {
        let full = backup(BackupType::Full, 0, &[]);
        let diff = backup(BackupType::Diff, -5, std::slice::from_ref(&full));
        let backups = [full, diff];
        let chain = Chain::of(&backups, &Retention::default());
        assert_eq!(chain.backups[0].label, backups[1].label);
        assert_eq!(chain.needs, [vec![1], vec![]]);
    }

    #[test]
    fn a_missing_reference_spoils_what_is_built_on_it() {
        let full = backup(BackupType::Full, -3, &[]);
        let incr = backup(BackupType::Incr, -2, std::slice::from_ref(&full));
        let top = backup(BackupType::Incr, -1, &[full.clone(), incr.clone()]);
        let whole = [full.clone(), incr, top.clone()];
        assert_eq!(Chain::of(&whole, &Retention::default()).good().count(), 3);
        let holed = [full, top];
        let chain = Chain::of(&holed, &Retention::default());
        assert_eq!(chain.good().collect::<Vec<_>>(), [1], "only the full is");
        assert_eq!(chain.trouble(0), "built on a backup that is missing or not good");
    }

    #[test]
    fn backups_that_need_each_other_are_not_lost() {
        let mut a = backup(BackupType::Full, -2, &[]);
        let mut b = backup(BackupType::Full, -1, &[]);
        (a.references, b.references) = (vec![b.label.clone()], vec![a.label.clone()]);
        assert_eq!(Chain::of(&[a, b], &Retention::default()).backups.len(), 2);
    }
}
