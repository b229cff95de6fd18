//! What runs that died left: a backup that was finished is recorded, everything else is removed.
//!
//! The journal says which directories in which storages are meant; the manifest, written last, says whether a backup was
//! finished. Whoever calls holds the database's lock, so nobody works on them. A storage that cannot be asked keeps its
//! entry for the next time. A newcomer would wait for it; a dead storage would then stop the backups to the others.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use tracing::{info, warn};

use super::{
    clean,
    journal::{Entry, Journal},
};
use crate::{
    catalog::{self, Catalog},
    clock,
    error::chain,
    manifest::{self, Manifest},
    policy::{Database, Policy},
    record::{Backup, BackupCopy, CopyState, MANIFEST},
    storage::{self, Storage},
    stream::Opener,
};

/// Where leftovers are dealt with.
pub(super) struct Site<'a> {
    pub(super) policy: &'a Policy,
    pub(super) catalog: &'a Catalog,
    pub(super) database: &'a Database,
}

/// What a storage has of an unfinished backup.
enum Found {
    /// All of it.
    Whole(Box<Backup>),
    /// No manifest: whatever is there is no backup.
    Nothing,
    /// It cannot be told.
    Unknown(String),
}

impl Site<'_> {
    /// Deals with everything that the journal names; gives back the backups that were finished and are recorded now.
    pub(super) async fn tidy(&self, opened: &[Storage]) -> Result<Vec<Backup>, catalog::Error> {
        let journal = self.journal();
        let mut recorded = Vec::new();
        for entry in journal.entries() {
            let found = self.look(&entry, opened).await;
            let known = self.catalog.backup(&entry.backup_id).await?;
            if known.is_none()
                && let Some(backup) = finished(&found, clock::now())
            {
                self.catalog.record_dump(&backup).await?;
                info!(backup = %backup.id, "a backup of a dead run was found finished and is recorded");
                recorded.push(backup);
            }
            if self.remove(&entry, &found, known.as_ref(), opened).await {
                journal.forget(&entry.backup_id);
            }
        }
        Ok(recorded)
    }

    /// The storages in which something lies by the catalog, or may lie by the journal.
    pub(super) async fn used_storages(&self) -> Result<BTreeSet<String>, catalog::Error> {
        let mut used = self.catalog.used_storages().await?;
        used.extend(self.journal().entries().into_iter().flat_map(|entry| entry.storages));
        Ok(used)
    }

    /// Opens the storages that the journal names, those that can be.
    pub(super) async fn open_named(&self) -> Vec<Storage> {
        let mut opened = BTreeMap::new();
        for name in self.journal().entries().into_iter().flat_map(|entry| entry.storages) {
            let Some(storage) = self.policy.storages.get(&name).filter(|_| !opened.contains_key(&name)) else {
                continue;
            };
            match Storage::open_used(storage).await {
                Ok(storage) => drop(opened.insert(name, storage)),
                Err(problem) => warn!(storage = %name, "what a dead run left there stays: {}", chain(&problem)),
            }
        }
        opened.into_values().collect()
    }

    fn journal(&self) -> Journal {
        Journal::of(&self.policy.daemon.state_dir, &self.database.name)
    }

    async fn look(&self, entry: &Entry, opened: &[Storage]) -> BTreeMap<String, Found> {
        let mut found = BTreeMap::new();
        for name in &entry.storages {
            let storage = opened.iter().find(|storage| storage.name() == name);
            let look = match storage {
                Some(storage) => self.look_at(entry, storage).await,
                // What left the policy cannot be cleaned by us.
                None if !self.policy.storages.contains_key(name) => continue,
                None => Found::Unknown("it cannot be opened".to_owned()),
            };
            found.insert(name.clone(), look);
        }
        found
    }

    async fn look_at(&self, entry: &Entry, storage: &Storage) -> Found {
        let path = format!("{}/{MANIFEST}", self.directory(entry));
        let bytes = match read(storage, &path).await {
            Ok(bytes) => bytes,
            Err(storage::Error::NotFound { .. }) => return Found::Nothing,
            Err(problem) => return Found::Unknown(chain(&problem)),
        };
        match opened_manifest(&bytes, self.policy, self.database) {
            Ok(Manifest { backup, .. }) if backup.id == entry.backup_id && backup.dump.is_some() => {
                Found::Whole(Box::new(backup))
            }
            Ok(manifest) => Found::Unknown(format!("`{path}` is of backup {}", manifest.backup.id)),
            Err(problem) => Found::Unknown(format!("`{path}`: {}", chain(&problem))),
        }
    }

    /// Removes what is no backup. True when nothing is left to do, in any storage.
    async fn remove(
        &self,
        entry: &Entry,
        found: &BTreeMap<String, Found>,
        known: Option<&Backup>,
        opened: &[Storage],
    ) -> bool {
        let mut is_done = true;
        for (name, look) in found {
            let removed = match look {
                Found::Whole(_) => Ok(()),
                Found::Unknown(why) => Err(why.clone()),
                Found::Nothing if counts(known, name) => Ok(()),
                Found::Nothing => match opened.iter().find(|storage| storage.name() == name) {
                    Some(storage) => clean::remove(storage, &self.directory(entry)).await,
                    None => Ok(()),
                },
            };
            if let Err(why) = removed {
                warn!(storage = %name, backup = %entry.backup_id, "what a dead run left cannot be dealt with yet: {why}");
                is_done = false;
            }
        }
        is_done
    }

    fn directory(&self, entry: &Entry) -> String {
        format!("{}/{}", self.database.name, entry.backup_id)
    }
}

/// Whether a recorded backup has a copy in a storage that is not ours to remove, even without its manifest.
fn counts(known: Option<&Backup>, storage: &str) -> bool {
    let copies = known.and_then(|backup| backup.dump.as_ref()).map(|dump| dump.copies.as_slice()).unwrap_or_default();
    copies.iter().any(|copy| {
        copy.storage == storage && matches!(copy.state, CopyState::Good | CopyState::Damaged | CopyState::Missing)
    })
}

/// The backup that a manifest tells of, with its copies as they were found.
fn finished(found: &BTreeMap<String, Found>, now: DateTime<Utc>) -> Option<Backup> {
    let whole = found.values().find_map(|found| match found {
        Found::Whole(backup) => Some(backup.as_ref()),
        Found::Nothing | Found::Unknown(_) => None,
    });
    let mut backup = whole?.clone();
    for copy in &mut backup.dump.as_mut()?.copies {
        if let Some(found) = found.get(&copy.storage) {
            settle_copy(copy, found, now);
        }
    }
    Some(backup)
}

fn settle_copy(copy: &mut BackupCopy, found: &Found, now: DateTime<Utc>) {
    let (state, detail) = match found {
        Found::Whole(_) => (CopyState::Good, None),
        Found::Nothing => (CopyState::Failed, Some("its run died before it became whole".to_owned())),
        Found::Unknown(why) => (CopyState::Unknown, Some(why.clone())),
    };
    (copy.state, copy.detail, copy.checked_at) = (state, detail, now);
}

/// A manifest, checked with the key that it names.
///
/// # Errors
/// When it is none, or was changed.
pub(in crate::job) fn opened_manifest(
    bytes: &[u8],
    policy: &Policy,
    database: &Database,
) -> Result<Manifest, manifest::Error> {
    let told = Manifest::read(bytes, None)?;
    match opener(policy, database, &told.backup) {
        Some(opener) => Manifest::read(bytes, Some(&opener)),
        None => Ok(told),
    }
}

/// What opens a backup, where this host can.
pub(in crate::job) fn opener(policy: &Policy, database: &Database, backup: &Backup) -> Option<Opener> {
    let encryption = backup.dump.as_ref()?.encryption.as_ref()?;
    let key = policy.keys.get(&encryption.key)?;
    Opener::of(key, database.test_restore.identity.as_deref()).ok()
}

/// A small file of a storage.
///
/// # Errors
/// When the storage fails, or it is larger than any manifest.
pub(in crate::job) async fn read(storage: &Storage, path: &str) -> Result<Vec<u8>, storage::Error> {
    const MOST: usize = 256 * 1024 * 1024;
    let mut reader = storage.read(path).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = reader.next().await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MOST {
            let why = format!("`{path}` is larger than any manifest");
            return Err(storage::Error::Refused { storage: storage.name().to_owned(), why });
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::expire::tests::dump;

    fn copy(storage: &str, state: CopyState) -> BackupCopy {
        let checked_at = DateTime::UNIX_EPOCH;
        BackupCopy { storage: storage.to_owned(), state, detail: None, checked_at, locked_until: None }
    }

    fn backup(copies: Vec<BackupCopy>) -> Backup {
        let mut backup = dump(1, None);
        backup.dump.as_mut().unwrap().copies = copies;
        backup
    }

    #[test]
    fn one_manifest_is_a_backup_and_the_other_copies_are_as_they_were_found() {
        let all = ["a", "b", "c"].map(|storage| copy(storage, CopyState::Good)).to_vec();
        let found = BTreeMap::from([
            ("a".to_owned(), Found::Nothing),
            ("b".to_owned(), Found::Whole(Box::new(backup(all)))),
            ("c".to_owned(), Found::Unknown("it is offline".to_owned())),
        ]);
        let finished = finished(&found, clock::now()).unwrap().dump.unwrap();
        let states: Vec<CopyState> = finished.copies.iter().map(|copy| copy.state).collect();
        assert_eq!(states, [CopyState::Failed, CopyState::Good, CopyState::Unknown]);
    }

    #[test]
    fn without_any_manifest_there_is_no_backup() {
        let unknown = Found::Unknown("it is offline".to_owned());
        let found = BTreeMap::from([("a".to_owned(), Found::Nothing), ("b".to_owned(), unknown)]);
        assert_eq!(finished(&found, clock::now()), None);
    }

    #[test]
    fn a_recorded_copy_is_never_taken_for_a_leftover() {
        let known = backup(vec![copy("a", CopyState::Good), copy("b", CopyState::Failed)]);
        assert!(counts(Some(&known), "a"));
        assert!(!counts(Some(&known), "b") && !counts(Some(&known), "c") && !counts(None, "a"));
    }
}
