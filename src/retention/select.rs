//! What a person wants ended beside the rules: the floors hold, and so does what a kept backup needs.
//!
//! A newcomer would end what was built on a chosen backup along with it; it stays, and with it what it needs, until a
//! person names it too.

use std::time::Duration;

use super::{Circumstances, Plan, chain::Chain, decided, floor, needed, own_day};
use crate::{clock::age, human::length, policy::Retention, record::Backup};

/// Which backups a person wants ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// Those whose own day, from `--retention DAYS`, is over.
    OwnDay,
    /// Those that stopped so long ago or longer.
    OlderThan(Duration),
    /// One, by its id.
    One(String),
}

impl Selection {
    fn wants(&self, backup: &Backup, at: &Circumstances) -> bool {
        match self {
            Selection::OwnDay => own_day(backup).is_some_and(|day| day <= at.now),
            Selection::OlderThan(length) => age(at.now, backup.stopped_at) >= *length,
            Selection::One(id) => backup.id == *id,
        }
    }

    fn why(&self, backup: &Backup) -> String {
        match self {
            Selection::OwnDay => {
                let day = own_day(backup).map(|day| day.format(" %F %H:%M UTC").to_string()).unwrap_or_default();
                format!("expires: its own retention ended{day}")
            }
            Selection::OlderThan(age) => format!("expires: older than {}, as asked for", length(*age)),
            Selection::One(_) => "expires: asked for by its id".to_owned(),
        }
    }
}

/// Decides about what a person chose; everything else stays.
pub fn select(backups: &[Backup], wanted: &Selection, rules: &Retention, at: &Circumstances) -> Plan {
    let chain = Chain::of(backups, rules);
    let is_wanted = |backup: &&Backup| wanted.wants(backup, at);
    let unless_wanted =
        |backup: &&Backup| if is_wanted(backup) { Vec::new() } else { vec!["kept: not asked for".to_owned()] };
    let mut kept: Vec<Vec<String>> = chain.backups.iter().map(unless_wanted).collect();
    floor::raise(&chain, rules, at, &mut kept);
    needed(&chain, &mut kept);
    decided(&chain, kept, |place| wanted.why(chain.backups[place]))
}
