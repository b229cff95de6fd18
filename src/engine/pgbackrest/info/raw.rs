//! The JSON of `info` as it is typed: everything may be missing, nothing is judged.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::{ArchiveRange, Cluster, Progress, Repo, Status, printable};

/// A stanza as it stands in the JSON.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Stanza {
    name: String,
    status: RawStatus,
    repo: Vec<RawRepo>,
    db: Vec<RawCluster>,
    archive: Vec<RawArchive>,
    backup: Vec<Backup>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawStatus {
    code: u32,
    message: String,
    lock: Locks,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Locks {
    backup: Lock,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Lock {
    held: bool,
    size: Option<u64>,
    size_cplt: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawRepo {
    key: u32,
    cipher: String,
    status: RawStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct RawCluster {
    id: u64,
    repo_key: u32,
    system_id: u64,
    version: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawArchive {
    database: DatabaseRef,
    id: String,
    min: Option<String>,
    max: Option<String>,
}

/// A backup as it stands in the JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Backup {
    /// What was written on it.
    #[serde(deserialize_with = "or_default")]
    pub annotation: BTreeMap<String, String>,
    pub(super) archive: Span,
    pub(super) backrest: Backrest,
    pub(super) database: DatabaseRef,
    /// Page checksum errors; none when they were not looked for.
    pub error: Option<bool>,
    pub(super) info: Sizes,
    /// pgBackRest's name of it.
    pub label: String,
    pub(super) lsn: Span,
    pub(super) prior: Option<String>,
    pub(super) reference: Option<Vec<String>>,
    pub(super) timestamp: Times,
    #[serde(rename = "type")]
    pub(super) kind: String,
    /// The databases in it; only when one backup was asked for.
    #[serde(rename = "database-ref", deserialize_with = "or_default")]
    pub databases: Vec<Named>,
    /// The files with page errors; only when one backup was asked for.
    #[serde(rename = "error-list", deserialize_with = "or_default")]
    pub damaged_files: Vec<String>,
    /// The tablespaces in it; only when one backup was asked for.
    #[serde(deserialize_with = "or_default")]
    pub tablespace: Vec<Tablespace>,
}

impl Backup {
    /// An annotation, fit to be shown; none when it is absent or empty.
    pub(super) fn note(&self, key: &str) -> Option<String> {
        self.annotation.get(key).map(|value| printable(value)).filter(|value| !value.is_empty())
    }
}

/// A database in a backup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Named {
    /// Its name.
    pub name: String,
}

/// A tablespace in a backup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Tablespace {
    /// Its name.
    pub name: String,
    /// Where it lies in production.
    pub destination: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Span {
    pub(super) start: Option<String>,
    pub(super) stop: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Backrest {
    pub(super) version: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct DatabaseRef {
    pub(super) id: u64,
    pub(super) repo_key: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Sizes {
    pub(super) size: u64,
    pub(super) delta: u64,
    pub(super) repository: RepoSizes,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct RepoSizes {
    pub(super) size: Option<u64>,
    pub(super) delta: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Times {
    pub(super) start: i64,
    pub(super) stop: i64,
}

/// `null` stands for "none" where other versions leave the field out.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl From<RawStatus> for Status {
    fn from(raw: RawStatus) -> Self {
        Self { code: raw.code, message: printable(&raw.message) }
    }
}

impl From<Stanza> for super::Stanza {
    fn from(raw: Stanza) -> Self {
        let lock = &raw.status.lock.backup;
        let progress = lock.size.zip(lock.size_cplt).map(|(size, done)| Progress { done, size });
        let repos = raw.repo.into_iter().map(|r| Repo { key: r.key, cipher: r.cipher, status: r.status.into() });
        let clusters = raw.db.into_iter().map(|db| Cluster {
            repo: db.repo_key,
            id: db.id,
            system_id: db.system_id.to_string(),
            version: db.version,
        });
        let archives = raw.archive.into_iter().map(|a| ArchiveRange {
            repo: a.database.repo_key,
            id: a.id,
            min: a.min,
            max: a.max,
        });
        Self {
            name: raw.name,
            is_locked: lock.held,
            progress,
            status: raw.status.into(),
            repos: repos.collect(),
            clusters: clusters.collect(),
            archives: archives.collect(),
            backups: raw.backup,
        }
    }
}
