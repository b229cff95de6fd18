//! What stays whatever the rules say.
//!
//! Some floors hold against everybody; others a person may step over who deletes one backup by its id, with `--force`
//! where that is dangerous. Retention itself never does, and neither does a person who chooses many at once. Each floor
//! stands here once, with its sentence, its firmness and what a person can do about it.
//!
//! A newcomer would let each floor look at the others' work; they only ever add reasons.

use std::{collections::BTreeSet, fmt};

use chrono::{DateTime, TimeDelta, Utc};

use super::{Circumstances, chain::Chain, is_left_alone, lacks_copy, own_day};
use crate::{
    clock::age,
    policy::Retention,
    record::{Backup, CopyState},
};

/// How long what was made before something dangerous stays.
const SAFETY: TimeDelta = TimeDelta::days(90);
/// The tag with which a person marks what must stay.
const IMPORTANT: &str = "important";

/// Who may step over a floor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Firmness {
    /// A person who deletes the backup by its id.
    Yields,
    /// Such a person who says `--force`.
    Soft,
    /// Nobody.
    Hard,
}

/// One reason why a backup stays whatever the rules say.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Floor<'a> {
    NewestFull,
    Newest,
    Proven { n: u32, of: u32, at: DateTime<Utc> },
    NotReplaced(&'static str),
    NoCopy,
    Held { why: &'a str, until: Option<DateTime<Utc>> },
    Pinned(&'a str),
    OwnDay(DateTime<Utc>),
    Locked { storage: &'a str, until: DateTime<Utc> },
    Safety(DateTime<Utc>),
    Important,
    Foreign,
}

impl Floor<'_> {
    /// Who may step over it.
    pub(super) fn firmness(&self) -> Firmness {
        match self {
            Floor::NewestFull | Floor::Newest | Floor::Held { .. } | Floor::Pinned(_) | Floor::Locked { .. } => {
                Firmness::Hard
            }
            Floor::Proven { .. } | Floor::OwnDay(_) | Floor::Safety(_) | Floor::Important | Floor::Foreign => {
                Firmness::Soft
            }
            Floor::NotReplaced(_) | Floor::NoCopy => Firmness::Yields,
        }
    }

    /// What a person can do about it; a full sentence.
    pub(super) fn remedy(&self, backup: &Backup) -> String {
        match self {
            Floor::NewestFull if !backup.engine.is_dump() => {
                format!("Make another full first: `backstop backup {} --type full`.", backup.database)
            }
            Floor::NewestFull | Floor::Newest => format!("Make another first: `backstop backup {}`.", backup.database),
            Floor::Proven { .. } => {
                format!("Prove another first: `backstop test-restore {}`; or say `--force`.", backup.database)
            }
            Floor::Held { .. } => format!("`backstop release {}` ends the hold.", backup.id),
            Floor::Pinned(_) => "Wait until that has ended.".to_owned(),
            Floor::Locked { .. } => "Wait until then.".to_owned(),
            _ => "With `--force` it goes all the same.".to_owned(),
        }
    }
}

impl fmt::Display for Floor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day = |at: &DateTime<Utc>| at.format("%F %H:%M UTC");
        match self {
            Floor::NewestFull => f.write_str("the newest good full"),
            Floor::Newest => f.write_str("the newest good backup"),
            Floor::Proven { n, of, at } => write!(f, "proven {n} of {of}, by a restore on {}", at.format("%F")),
            Floor::NotReplaced(trouble) => write!(f, "{trouble}, but no newer good backup takes its place"),
            Floor::NoCopy => f.write_str("no copy of it is known to be good, so it is neither counted nor ended"),
            Floor::Held { why, until: Some(until) } => write!(f, "held until {}, {why}", day(until)),
            Floor::Held { why, until: None } => write!(f, "held, {why}"),
            Floor::Pinned(why) => write!(f, "pinned, {why}"),
            Floor::OwnDay(until) => write!(f, "its own retention ends {}", day(until)),
            Floor::Locked { storage, until } => write!(f, "storage `{storage}` keeps it locked until {}", day(until)),
            Floor::Safety(until) => write!(f, "a safety backup, until {}", day(until)),
            Floor::Important => write!(f, "tagged `{IMPORTANT}`"),
            Floor::Foreign => f.write_str("others made it, and `retention.foreign` leaves it to them"),
        }
    }
}

/// Adds what is kept whatever the rules say.
pub(super) fn raise(chain: &Chain, rules: &Retention, at: &Circumstances, kept: &mut [Vec<String>]) {
    for (place, floor) in floors(chain, rules, at) {
        kept[place].push(format!("kept: {floor}"));
    }
}

/// Every floor, with the place of the backup that stands on it.
pub(super) fn floors<'a>(chain: &Chain<'a>, rules: &Retention, at: &'a Circumstances) -> Vec<(usize, Floor<'a>)> {
    let mut floors = Vec::new();
    // Others may remove theirs at any time, so the newest of ours stands on a floor of its own.
    let ours = || chain.good().filter(|&place| !is_left_alone(chain.backups[place], rules));
    let is_full = |place: &usize| chain.is_full(*place);
    let fulls: BTreeSet<usize> = chain.good().find(is_full).into_iter().chain(ours().find(is_full)).collect();
    floors.extend(fulls.into_iter().map(|place| (place, Floor::NewestFull)));
    let newest: BTreeSet<usize> = chain.good().next().into_iter().chain(ours().next()).collect();
    floors.extend(newest.into_iter().map(|place| (place, Floor::Newest)));
    let of = rules.keep_proven;
    let proven = ours().filter_map(|place| Some((place, chain.backups[place].proven_at?)));
    floors.extend(proven.zip(1..=of).map(|((place, at), n)| (place, Floor::Proven { n, of, at })));
    for (place, backup) in chain.backups.iter().enumerate() {
        if !chain.is_good(place) && chain.replacement(place).is_none() {
            floors.push((place, Floor::NotReplaced(chain.trouble(place))));
        }
        floors.extend(of_one(backup, at).map(|floor| (place, floor)));
        if is_left_alone(backup, rules) {
            floors.push((place, Floor::Foreign));
        }
    }
    floors
}

/// The floors that need nothing but the backup.
pub(super) fn of_one<'a>(backup: &'a Backup, at: &'a Circumstances) -> impl Iterator<Item = Floor<'a>> {
    let floors = [
        lacks_copy(backup).then_some(Floor::NoCopy),
        backup.held_at(at.now).map(|why| Floor::Held { why, until: backup.held_until }),
        at.pinned.get(&backup.label).map(|why| Floor::Pinned(why)),
        own_day(backup).filter(|until| *until > at.now).map(Floor::OwnDay),
        locked(backup, at.now).map(|(storage, until)| Floor::Locked { storage, until }),
        safety_until(backup, at.now).map(Floor::Safety),
        is_important(backup).then_some(Floor::Important),
    ];
    floors.into_iter().flatten()
}

/// The storage that keeps it locked longest. What is not there locks nothing.
fn locked(backup: &Backup, now: DateTime<Utc>) -> Option<(&str, DateTime<Utc>)> {
    let there = |state| !matches!(state, CopyState::Failed | CopyState::Deleted | CopyState::Missing);
    let copies = backup.dump.iter().flat_map(|dump| &dump.copies).filter(|copy| there(copy.state));
    let locked = copies.filter_map(|copy| Some((copy.storage.as_str(), copy.locked_until?)));
    locked.max_by_key(|(_, until)| *until).filter(|(_, until)| *until > now)
}

/// Until when it stays as a safety backup.
fn safety_until(backup: &Backup, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let is_young = age(now, backup.stopped_at) < SAFETY.to_std().unwrap_or_default();
    (backup.is_safety() && is_young).then(|| backup.stopped_at + SAFETY)
}

fn is_important(backup: &Backup) -> bool {
    backup.tags.iter().any(|tag| tag == IMPORTANT)
}
