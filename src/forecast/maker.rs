//! Backups that will be made, as the tool would make them: a diff on the newest full, an incr on the newest backup, and
//! without a full everything becomes one.
//!
//! Size and length are the median of the last ones of the type. A newcomer would take the mean; one backup of a day on
//! which everything was rewritten then speaks for all to come.

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use chrono_tz::Tz;

use super::Question;
use crate::{
    policy::{Place, Storage},
    record::{Backup, BackupCopy, BackupStatus, BackupType, Compression, CopyState, Dump},
    retention::is_sound,
};

/// Who asked for a backup that is only forecast.
pub(super) const FORECAST: &str = "forecast";
/// From how many of the last ones size and length are learnt.
const LAST: usize = 7;

/// Makes what will be.
pub(super) struct Maker<'a> {
    question: &'a Question<'a>,
    /// The zone in which labels are written.
    zone: Tz,
    /// What was learnt, by type.
    learnt: [Option<Learnt>; BackupType::ALL.len()],
    /// Types that were made although nothing could be learnt.
    guessed: [bool; BackupType::ALL.len()],
    /// The time in the newest label; each new one is later, even in an hour that comes twice.
    last: NaiveDateTime,
}

/// What the last ones of a type teach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Learnt {
    /// Bytes of one copy.
    size: u64,
    length: TimeDelta,
}

impl<'a> Maker<'a> {
    pub(super) fn new(question: &'a Question<'a>, there: &[Backup]) -> Self {
        let database = question.database;
        let zone = if database.engine.is_dump() { Tz::UTC } else { database.pgbackrest.label_timezone };
        let times = there.iter().flat_map(|backup| [backup.started_at, backup.stopped_at]);
        let last = times.map(|at| at.with_timezone(&zone).naive_local()).max().unwrap_or_default();
        let mut learnt = [None; BackupType::ALL.len()];
        for &backup_type in BackupType::ALL {
            learnt[backup_type as usize] = Learnt::of(there, backup_type);
        }
        Self { question, zone, learnt, guessed: [false; BackupType::ALL.len()], last }
    }

    /// The types that were made and whose size is not known.
    pub(super) fn unknown(&self) -> impl Iterator<Item = BackupType> + '_ {
        BackupType::ALL.iter().copied().filter(|&backup_type| self.guessed[backup_type as usize])
    }

    /// The backup that begins at a moment, with these in the repository.
    pub(super) fn make(&mut self, asked: BackupType, begins: DateTime<Utc>, there: &[Backup]) -> Backup {
        let parent = parent(asked, there);
        let backup_type = if parent.is_some() { asked } else { BackupType::Full };
        let learnt = self.learnt[backup_type as usize];
        self.guessed[backup_type as usize] |= learnt.is_none();
        // Labels tell seconds, so no backup takes less.
        let length = learnt.map_or(TimeDelta::zero(), |learnt| learnt.length).max(TimeDelta::seconds(1));
        let label = self.label(backup_type, begins, parent);
        let mut made = self.blank(backup_type, asked, label);
        (made.started_at, made.stopped_at) = (begins, begins + length);
        made.repo_delta = Some(learnt.map_or(0, |learnt| learnt.size));
        if let Some(parent) = parent {
            made.prior = Some(parent.label.clone());
            made.references.clone_from(&parent.references);
            made.references.push(parent.label.clone());
            made.system_id.clone_from(&parent.system_id);
        } else if let Some(newest) = there.last() {
            made.system_id.clone_from(&newest.system_id);
        }
        made.dump = self.question.database.engine.is_dump().then(|| self.dump(begins, made.stopped_at));
        made
    }

    /// The name that the tool would give it.
    fn label(&mut self, backup_type: BackupType, begins: DateTime<Utc>, parent: Option<&Backup>) -> String {
        self.last = begins.with_timezone(&self.zone).naive_local().max(self.last + TimeDelta::seconds(1));
        let stamp = self.last.format("%Y%m%d-%H%M%S");
        if self.question.database.engine.is_dump() {
            return format!("backup-{stamp}");
        }
        match (backup_type, parent) {
            (BackupType::Diff, Some(parent)) => format!("{}_{stamp}D", full_of(parent)),
            (BackupType::Incr, Some(parent)) => format!("{}_{stamp}I", full_of(parent)),
            _ => format!("{stamp}F"),
        }
    }

    /// A good backup of which nothing else is known.
    fn blank(&self, backup_type: BackupType, requested_type: BackupType, label: String) -> Backup {
        let Question { database, repo, .. } = *self.question;
        Backup {
            id: label.clone(),
            database: database.name.clone(),
            environment: String::new(),
            engine: database.engine,
            backup_type,
            requested_type,
            label,
            repo,
            system_id: String::new(),
            server_version: String::new(),
            tool_version: String::new(),
            name: None,
            reason: None,
            tags: Vec::new(),
            run_uuid: None,
            started_at: DateTime::UNIX_EPOCH,
            stopped_at: DateTime::UNIX_EPOCH,
            size: 0,
            delta: 0,
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
            created_by: FORECAST.to_owned(),
            dump: None,
        }
    }

    /// What it has as a dump: a good copy in each storage of the policy, locked where the storage locks.
    fn dump(&self, begins: DateTime<Utc>, checked_at: DateTime<Utc>) -> Dump {
        let Question { policy, database, .. } = *self.question;
        let within = database.retention.within.and_then(|within| TimeDelta::from_std(within).ok());
        let locks = |storage: &Storage| matches!(&storage.place, Place::S3(bucket) if bucket.object_lock.is_some());
        let copy = |storage: &String| BackupCopy {
            storage: storage.clone(),
            state: CopyState::Good,
            detail: None,
            checked_at,
            locked_until: within
                .filter(|_| policy.storages.get(storage).is_some_and(locks))
                .and_then(|within| begins.checked_add_signed(within)),
        };
        Dump {
            format: database.dump.format,
            compression: Compression::NONE,
            encryption: None,
            directory: String::new(),
            artifacts: Vec::new(),
            copies: database.dump.storages.iter().map(copy).collect(),
            server: String::new(),
            source: String::new(),
            migrations: None,
            retention_days: None,
            expires_at: None,
            warnings: Vec::new(),
            verified_at: None,
        }
    }
}

impl Learnt {
    fn of(there: &[Backup], backup_type: BackupType) -> Option<Self> {
        let is_one = |backup: &&Backup| backup.backup_type == backup_type && is_sound(backup);
        let mut last: Vec<&Backup> = there.iter().filter(is_one).collect();
        last.sort_by_key(|backup| std::cmp::Reverse(backup.stopped_at));
        last.truncate(LAST);
        let size = median(last.iter().map(|backup| backup.repo_delta.unwrap_or(backup.delta)))?;
        let length = median(last.iter().map(|backup| backup.stopped_at - backup.started_at))?;
        Some(Self { size, length })
    }
}

/// The middle one, the lower of two. Adding it to what it was taken from does not move it, so a forecast that begins
/// within another agrees with it.
fn median<T: Ord>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut values: Vec<T> = values.collect();
    values.sort();
    let middle = values.len().checked_sub(1)? / 2;
    values.into_iter().nth(middle)
}

/// What a backup would be built on.
fn parent(asked: BackupType, there: &[Backup]) -> Option<&Backup> {
    let full = || newest(there.iter().filter(|backup| backup.backup_type == BackupType::Full));
    match asked {
        BackupType::Full => None,
        BackupType::Diff => full(),
        BackupType::Incr => full().and_then(|_| newest(there.iter())),
    }
}

fn newest<'a>(backups: impl Iterator<Item = &'a Backup>) -> Option<&'a Backup> {
    backups.max_by(|a, b| (a.stopped_at, &a.label).cmp(&(b.stopped_at, &b.label)))
}

/// The label of the full at the bottom of a chain.
fn full_of(backup: &Backup) -> &str {
    backup.label.split('_').next().unwrap_or(&backup.label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_one_of_the_values_and_stays_when_it_is_added() {
        for values in [vec![5_u64], vec![5, 1], vec![1, 2, 3, 4, 100, 101, 102], vec![9, 9, 1, 2]] {
            let middle = median(values.iter().copied()).unwrap();
            assert!(values.contains(&middle));
            let more = values.iter().copied().chain([middle]);
            assert_eq!(median(more), Some(middle), "{values:?}");
        }
        assert_eq!(median(std::iter::empty::<u64>()), None);
    }
}
