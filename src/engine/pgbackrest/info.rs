//! The answer of `info --output=json`: what the repositories say they hold.
//!
//! It is decoded lossily first, because a wrong passphrase puts ciphertext into the JSON. Unknown fields are ignored,
//! missing ones are missing. A newcomer would believe the exit code, which is zero whatever is wrong, or the listed
//! backups, which may have been deleted by hand; the status of each repository and `verify` tell.

mod raw;

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

pub use self::raw::{Backup as Listed, Named, Tablespace};
use super::{Unreadable, exit, expire::WalNeed};
use crate::{
    error::ExitCode,
    policy::Database,
    record::{Backup, BackupStatus, BackupType, EngineKind, ErrorClass, FOREIGN, Failure, RepoKey},
    recovery::Segment,
};

/// Annotation: the run that made a backup.
pub const RUN_ID: &str = "run-id";
/// Annotation: our identity of the backup.
pub const BACKUP_ID: &str = "backup-id";
/// Annotation: the job, as its key is shown.
pub const JOB: &str = "job";
/// Annotation: the type that was asked for.
pub const REQUESTED: &str = "requested";
/// Annotation: the name a person gave it.
pub const NAME: &str = "name";
/// Annotation: why it was made.
pub const REASON: &str = "reason";
/// Annotation: free words, comma-separated.
pub const TAGS: &str = "tags";
/// Annotation: who asked for it.
pub const BY: &str = "by";

/// What `info` says of one stanza.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stanza {
    /// Its name; `[invalid]` when a repository host is down.
    pub name: String,
    /// Its status over all repositories.
    pub status: Status,
    /// Each repository.
    pub repos: Vec<Repo>,
    /// Whether a backup, expire or the like holds the lock on this host.
    pub is_locked: bool,
    /// How far the backup that holds it is; only said by 2.48 and later.
    pub progress: Option<Progress>,
    /// The clusters that were ever backed up, per repository, the current one last.
    pub clusters: Vec<Cluster>,
    /// The archives, per repository and cluster.
    pub archives: Vec<ArchiveRange>,
    /// The backups, the oldest first, per repository as pgBackRest lists them.
    pub backups: Vec<Listed>,
}

/// A status with pgBackRest's number for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// 0 ok, 1 no stanza, 2 no backup, 3 no stanza data, 4 mixed, 5 clusters differ, 6 no such backup, 99 other.
    pub code: u32,
    /// In words; may hold garbage from a repository, made printable.
    pub message: String,
}

/// A repository of the stanza.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repo {
    /// Its number.
    pub key: RepoKey,
    /// Its encryption, `none` or e.g. `aes-256-cbc`.
    pub cipher: String,
    /// Its status.
    pub status: Status,
}

impl Repo {
    /// Whether its content is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.cipher != "none"
    }
}

/// Bytes done of bytes to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Done.
    pub done: u64,
    /// To do.
    pub size: u64,
}

/// A PostgreSQL cluster that a repository knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// The repository.
    pub repo: RepoKey,
    /// pgBackRest's number of it.
    pub id: u64,
    /// The system identifier, as text because it exceeds 2^53.
    pub system_id: String,
    /// PostgreSQL's major version.
    pub version: String,
}

impl Cluster {
    /// The name of its archive, e.g. `15-1`.
    pub fn archive_id(&self) -> String {
        format!("{}-{}", self.version, self.id)
    }
}

/// An archive and the smallest and largest name in it, over all timelines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveRange {
    /// The repository.
    pub repo: RepoKey,
    /// Its name, e.g. `15-1`.
    pub id: String,
    /// The smallest name; none when it is empty.
    pub min: Option<String>,
    /// The largest name; none when it is empty.
    pub max: Option<String>,
}

/// Reads the answer: the stanza that was asked for, or none when its repository path does not exist.
///
/// # Errors
/// When the answer is not the JSON that `info` writes.
pub fn read(bytes: &[u8]) -> Result<Option<Stanza>, Unreadable> {
    // The JSON is one line; a control character can only be part of what a repository holds instead of its info file.
    let text = String::from_utf8_lossy(bytes).replace(|c: char| c.is_control(), "\u{FFFD}");
    let stanzas: Vec<raw::Stanza> =
        serde_json::from_str(&text).map_err(|source| Unreadable { what: "answer of `info`", source })?;
    Ok(stanzas.into_iter().next().map(Stanza::from))
}

impl Stanza {
    /// What is wrong with a repository; none when it can be used, with or without backups in it.
    pub fn trouble(&self, repo: RepoKey) -> Option<Failure> {
        let status = self.repos.iter().find(|r| r.key == repo).map_or(&self.status, |r| &r.status);
        let failure = |class, exit, remedy: &str| Failure {
            class,
            exit,
            message: format!("repository {repo}: {}", status.message),
            remedy: Some(remedy.to_owned()),
        };
        match status.code {
            0 | 2 | 6 => None,
            1 | 3 => Some(failure(
                ErrorClass::Config,
                ExitCode::Storage,
                "The first backup creates the stanza; if it existed, check that the repository is mounted and its path right.",
            )),
            4 => None,
            5 => Some(failure(
                ErrorClass::Config,
                ExitCode::Configuration,
                "The repositories hold different clusters: after an upgrade of PostgreSQL run `pgbackrest stanza-upgrade`.",
            )),
            _ => {
                let failure = exit::explain_message(&status.message);
                Some(Failure { message: format!("repository {repo}: {}", failure.message), ..failure })
            }
        }
    }

    /// Whether a repository lacks the stanza, so that it must be created.
    pub fn is_missing(&self, repo: RepoKey) -> bool {
        self.repos.iter().any(|r| r.key == repo && matches!(r.status.code, 1 | 3))
    }

    /// The cluster that a repository is for now.
    pub fn cluster(&self, repo: RepoKey) -> Option<&Cluster> {
        self.clusters.iter().filter(|cluster| cluster.repo == repo).max_by_key(|cluster| cluster.id)
    }

    /// The cluster that a backup is of.
    fn cluster_of(&self, backup: &Listed) -> Option<&Cluster> {
        self.clusters.iter().find(|c| c.id == backup.database.id && c.repo == backup.database.repo_key)
    }

    /// The backups of a repository that are of its present cluster, whose archive is `cluster(repo).archive_id()`.
    pub fn backups(&self, repo: RepoKey, database: &Database) -> Vec<Backup> {
        let current = self.cluster(repo).map(|cluster| cluster.id);
        let ours = self.listed(repo).filter(|backup| Some(backup.database.id) == current);
        ours.filter_map(|backup| self.record(backup, database)).collect()
    }

    /// How many fulls a repository holds, of all its clusters, damaged and foreign ones included.
    pub fn fulls(&self, repo: RepoKey) -> u32 {
        let fulls = self.listed(repo).filter(|backup| backup.kind == "full");
        u32::try_from(fulls.count()).unwrap_or(u32::MAX)
    }

    /// The labels in a repository, of all its clusters.
    pub fn labels(&self, repo: RepoKey) -> BTreeSet<String> {
        self.listed(repo).map(|backup| printable(&backup.label)).collect()
    }

    /// The WAL that the backups of a repository need: each its own, and all after the first of each archive.
    ///
    /// With an anchor, all after the first of the backups that are not older than it by their labels; of an archive that
    /// has none such, all after its newest, as pgBackRest keeps it. A backup without WAL needs none.
    ///
    /// # Errors
    /// The label of a backup of which it cannot be told.
    pub fn wal_needs(&self, repo: RepoKey, anchor: Option<&str>) -> Result<Vec<WalNeed>, String> {
        let mut needs = Vec::new();
        for backup in self.listed(repo) {
            let Some(start) = &backup.archive.start else { continue };
            let place = self.cluster_of(backup).map(Cluster::archive_id).zip(start.parse::<Segment>().ok());
            let (archive_id, first) = place.ok_or_else(|| printable(&backup.label))?;
            let last = backup.archive.stop.as_deref().and_then(|stop| stop.parse::<Segment>().ok());
            needs.push(WalNeed { archive_id, label: printable(&backup.label), first, last });
        }
        let archives: BTreeSet<&String> = needs.iter().map(|need| &need.archive_id).collect();
        let open = archives
            .into_iter()
            .filter_map(|id| continuous(needs.iter().filter(|need| need.archive_id == *id), anchor));
        let open: Vec<WalNeed> = open.collect();
        needs.extend(open);
        Ok(needs)
    }

    /// Takes out the backups whose directories are gone and all that was built on them, as pgBackRest itself does before
    /// it makes or ends one. `directories` are the names below the stanza's backups.
    pub fn forget_missing(&mut self, repo: RepoKey, directories: &BTreeSet<String>) {
        let is_of = |backup: &Listed| backup.database.repo_key == repo;
        let mut gone: BTreeSet<String> = BTreeSet::new();
        loop {
            let before = gone.len();
            for backup in self.backups.iter().filter(|backup| is_of(backup)) {
                let mut needs = backup.reference.iter().flatten().chain(&backup.prior);
                if !directories.contains(&backup.label) || needs.any(|label| gone.contains(label)) {
                    gone.insert(backup.label.clone());
                }
            }
            if gone.len() == before {
                break;
            }
        }
        self.backups.retain(|backup| !is_of(backup) || !gone.contains(&backup.label));
    }

    fn listed(&self, repo: RepoKey) -> impl Iterator<Item = &Listed> {
        self.backups.iter().filter(move |backup| backup.database.repo_key == repo)
    }

    /// Every backup of every cluster in every repository.
    pub fn all_backups(&self, database: &Database) -> Vec<Backup> {
        self.backups.iter().filter_map(|backup| self.record(backup, database)).collect()
    }

    /// The backup that a run made, however it is called and whenever it says that it began; the newest, if its
    /// attempts made several.
    pub fn backup_of_run(&self, repo: RepoKey, run_uuid: &str, database: &Database) -> Option<Backup> {
        let is_it = |b: &&Listed| b.database.repo_key == repo && b.note(RUN_ID).as_deref() == Some(run_uuid);
        let newest = self.backups.iter().filter(is_it).max_by_key(|b| b.timestamp.stop)?;
        self.record(newest, database)
    }

    /// The files with page checksum errors; only known when the answer is about one backup.
    pub fn damaged_files(&self) -> Vec<String> {
        self.backups.iter().flat_map(|backup| &backup.damaged_files).map(|file| printable(file)).collect()
    }

    /// A backup as we record it; none when it lacks what makes a backup.
    fn record(&self, raw: &Listed, database: &Database) -> Option<Backup> {
        let backup_type: BackupType = raw.kind.parse().ok()?;
        let cluster = self.cluster_of(raw);
        let label = printable(&raw.label);
        Some(Backup {
            id: raw.note(BACKUP_ID).unwrap_or_else(|| format!("{FOREIGN}{label}")),
            database: database.name.clone(),
            environment: database.environment.clone(),
            engine: EngineKind::PgBackRest,
            backup_type,
            requested_type: raw.note(REQUESTED).and_then(|kind| kind.parse().ok()).unwrap_or(backup_type),
            repo: raw.database.repo_key,
            system_id: cluster.map(|c| c.system_id.clone()).unwrap_or_default(),
            server_version: cluster.map(|c| c.version.clone()).unwrap_or_default(),
            tool_version: printable(&raw.backrest.version),
            name: raw.note(NAME),
            reason: raw.note(REASON),
            tags: raw.note(TAGS).map(|tags| words(&tags)).unwrap_or_default(),
            run_uuid: raw.note(RUN_ID),
            started_at: instant(raw.timestamp.start)?,
            stopped_at: instant(raw.timestamp.stop)?,
            size: raw.info.size,
            delta: raw.info.delta,
            repo_delta: raw.info.repository.delta,
            repo_size: raw.info.repository.size,
            prior: raw.prior.clone(),
            references: raw.reference.clone().unwrap_or_default(),
            wal_start: raw.archive.start.clone(),
            wal_stop: raw.archive.stop.clone(),
            lsn_stop: raw.lsn.stop.clone(),
            page_errors: raw.error,
            status: if raw.error == Some(true) { BackupStatus::Damaged } else { BackupStatus::Good },
            expired_reason: None,
            expired_at: None,
            held: None,
            held_until: None,
            proven_at: None,
            created_by: raw.note(BY).unwrap_or_else(|| "unknown".to_owned()),
            dump: None,
            label,
        })
    }
}

/// All WAL of an archive from where it must have no hole.
fn continuous<'a>(needs: impl Iterator<Item = &'a WalNeed> + Clone, anchor: Option<&str>) -> Option<WalNeed> {
    let is_young = |need: &&WalNeed| anchor.is_none_or(|anchor| need.label.as_str() >= anchor);
    let first = needs.clone().filter(is_young).min_by_key(|need| need.first);
    let begin = first.or_else(|| needs.max_by_key(|need| &need.label))?;
    Some(WalNeed { last: None, ..begin.clone() })
}

fn words(tags: &str) -> Vec<String> {
    tags.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
}

fn instant(seconds: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(seconds, 0)
}

/// Text from a repository, fit for a terminal: one line, no control characters, not endless.
fn printable(text: &str) -> String {
    let first: String =
        text.split('\n').map(str::trim).filter(|line| !line.is_empty()).take(2).collect::<Vec<_>>().join("; ");
    let shown = first.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c });
    shown.take(400).collect()
}

#[cfg(test)]
mod tests;
