//! The shrink guard: what only a tighter policy ends waits, so that a slip of the pen can be taken back.
//!
//! While former rules guard, a backup goes only if they would end it too. A newcomer would remember the backups that the
//! new rules end at the moment of the change; those that come of age an hour later would go at once.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Circumstances, Decision, Plan, plan};
use crate::{policy::Retention, record::Backup};

/// Rules that were replaced and still guard what they kept.
#[derive(Debug, Clone, PartialEq)]
pub struct FormerRules {
    /// The rules.
    pub rules: Retention,
    /// When they were replaced.
    pub replaced_at: DateTime<Utc>,
    /// Until when they guard.
    pub guards_until: DateTime<Utc>,
}

impl FormerRules {
    /// Rules that are replaced at a moment; they guard for the grace that they name themselves.
    pub fn replaced(rules: Retention, now: DateTime<Utc>) -> Self {
        let grace = TimeDelta::from_std(rules.shrink_grace).ok();
        let guards_until = grace.and_then(|grace| now.checked_add_signed(grace)).unwrap_or(DateTime::<Utc>::MAX_UTC);
        Self { rules, replaced_at: now, guards_until }
    }
}

/// The plan, less what only the present rules end while former ones guard.
pub fn guarded(mut now: Plan, backups: &[Backup], former: &[FormerRules], at: &Circumstances) -> Plan {
    for former in former.iter().filter(|former| former.guards_until > at.now) {
        let then = plan(backups, &former.rules, at);
        let time = |at: DateTime<Utc>| at.format("%F %T UTC");
        let name = backups.first().map_or("DATABASE", |backup| backup.database.as_str());
        let why = format!(
            "kept: the rules since {} end it and those before keep it, so it waits until {}; `backstop expire {name} --accept` does not wait",
            time(former.replaced_at),
            time(former.guards_until),
        );
        for decision in newly_ended_of(&mut now, &then) {
            decision.keep = true;
            decision.reasons = vec![why.clone()];
        }
    }
    now
}

/// What new rules end that others keep.
pub fn newly_ended(backups: &[Backup], new: &Retention, old: &Retention, at: &Circumstances) -> Vec<Decision> {
    let (mut new, old) = (plan(backups, new, at), plan(backups, old, at));
    newly_ended_of(&mut new, &old).map(|decision| decision.clone()).collect()
}

/// Both plans are about the same backups in the same order: the order depends on nothing else.
fn newly_ended_of<'a>(new: &'a mut Plan, old: &'a Plan) -> impl Iterator<Item = &'a mut Decision> {
    let pairs = new.decisions.iter_mut().zip(&old.decisions);
    pairs.filter(|(new, old)| !new.keep && old.keep).map(|(new, _)| new)
}
