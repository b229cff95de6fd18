//! What stays whatever the rules say.
//!
//! Some floors hold against everybody; others a person may step over who names the backup and says `--force`. Retention
//! itself never does. A newcomer would let each floor look at the others' work; they only ever add reasons.

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
pub(super) const IMPORTANT: &str = "important";

/// Adds what is kept whatever the rules say.
pub(super) fn raise(chain: &Chain, rules: &Retention, at: &Circumstances, kept: &mut [Vec<String>]) {
    if let Some(full) = chain.good().find(|&place| chain.is_full(place)) {
        kept[full].push("kept: the newest good full".to_owned());
    }
    if let Some(newest) = chain.good().next() {
        kept[newest].push("kept: the newest good backup".to_owned());
    }
    let proven = chain.good().filter_map(|place| Some((place, chain.backups[place].proven_at?)));
    for ((place, proven_at), n) in proven.zip(1..=rules.keep_proven) {
        let day = proven_at.format("%Y-%m-%d");
        kept[place].push(format!("kept: proven {n} of {}, by a restore on {day}", rules.keep_proven));
    }
    for (place, backup) in chain.backups.iter().enumerate() {
        if !chain.is_good(place) && chain.replacement(place).is_none() {
            kept[place].push(format!("kept: {}, but no newer good backup takes its place", chain.trouble(place)));
        }
        kept[place].extend(of_one(backup, at));
        if is_left_alone(backup, rules) {
            kept[place].push("kept: others made it, and `retention.foreign` leaves it to them".to_owned());
        }
    }
}

/// The floors that need nothing but the backup.
fn of_one(backup: &Backup, at: &Circumstances) -> Vec<String> {
    let day = |until: DateTime<Utc>| until.format("%F %H:%M UTC");
    let floors = [
        lacks_copy(backup).then(|| "no copy of it is known to be good, so it is neither counted nor ended".to_owned()),
        backup.held_at(at.now).map(|why| match backup.held_until {
            Some(until) => format!("held until {}, {why}", day(until)),
            None => format!("held, {why}"),
        }),
        at.pinned.get(&backup.label).map(|why| format!("pinned, {why}")),
        own_day(backup).filter(|until| *until > at.now).map(|until| format!("its own retention ends {}", day(until))),
        locked(backup, at.now)
            .map(|(storage, until)| format!("storage `{storage}` keeps it locked until {}", day(until))),
        safety_until(backup, at.now).map(|until| format!("a safety backup, until {}", day(until))),
        is_important(backup).then(|| format!("tagged `{IMPORTANT}`")),
    ];
    floors.into_iter().flatten().map(|floor| format!("kept: {floor}")).collect()
}

/// The storage that keeps it locked longest.
pub(super) fn locked(backup: &Backup, now: DateTime<Utc>) -> Option<(&str, DateTime<Utc>)> {
    let copies = backup.dump.iter().flat_map(|dump| &dump.copies).filter(|copy| copy.state != CopyState::Deleted);
    let locked = copies.filter_map(|copy| Some((copy.storage.as_str(), copy.locked_until?)));
    locked.max_by_key(|(_, until)| *until).filter(|(_, until)| *until > now)
}

/// Until when it stays as a safety backup.
pub(super) fn safety_until(backup: &Backup, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let is_young = age(now, backup.stopped_at) < SAFETY.to_std().unwrap_or_default();
    (backup.is_safety() && is_young).then(|| backup.stopped_at + SAFETY)
}

pub(super) fn is_important(backup: &Backup) -> bool {
    backup.tags.iter().any(|tag| tag == IMPORTANT)
}
