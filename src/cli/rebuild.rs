//! `backstop catalog rebuild`: what the storages and the repositories hold, made into a catalog again.
//!
//! What becomes of what was found is decided by `catalog/rebuild.rs`; here it is read and recorded. The catalog is in
//! recovery mode before the first row is written, so that a rebuild which is killed never passes for a whole one. A
//! newcomer would let a daemon go on meanwhile; it would see backups appear that nobody made.

use std::{collections::BTreeMap, path::Path};

use chrono::{DateTime, Utc};
use futures_util::{StreamExt, stream};
use serde_json::json;
use tracing::info;

use super::{
    Answer,
    hold::Beside,
    session::{Session, catalog_error},
};
use crate::{
    catalog::{
        BackupFilter, Catalog,
        rebuild::{Inventory, Rebuilt, Stranger, is_manifest, rebuild, vanished},
    },
    clock,
    error::{Error, ExitCode, chain},
    job::sync,
    lock::{self, Lock},
    manifest::Manifest,
    policy::{Policy, Storage as StoragePolicy},
    process::Stop,
    record::{Backup, EncryptionMethod, HOLD},
    storage::{self, Storage},
    stream::Opener,
};

/// A manifest is text about one backup; more than this is something else.
const LARGEST: usize = 64 << 20;
/// How many small files are read at once.
const AT_ONCE: usize = 8;

/// What was done, and what could not be.
#[derive(Debug, Default)]
struct Outcome {
    dumps: usize,
    physical: usize,
    strangers: Vec<Stranger>,
    /// What could not be asked, in words.
    troubles: Vec<String>,
}

pub(super) async fn run(session: &Session) -> Result<Answer, Error> {
    let policy = session.policy()?;
    let _alone = alone(&policy)?;
    let now = clock::now();
    let (catalog, _) = Catalog::open_or_recover(&policy.daemon.state_dir, now).await.map_err(catalog_error)?;
    let why = format!("it was rebuilt by {}", session.actor);
    catalog.enter_recovery(&why, now).await.map_err(catalog_error)?;
    let mut outcome = Outcome::default();
    dumps(&policy, &catalog, &mut outcome, now).await?;
    physical(&policy, &catalog, &mut outcome).await?;
    let summary = outcome.summary();
    let head = catalog.audit(&session.witness, "rebuild", "catalog", &summary, clock::now()).await;
    info!(audit = head.map_err(catalog_error)?, "audit: rebuild: {summary}");
    Ok(outcome.answer(summary))
}

/// The daemon's lock and each database's: nobody else works while the catalog is made.
fn alone(policy: &Policy) -> Result<Vec<Lock>, Error> {
    let state_dir = &policy.daemon.state_dir;
    let failed = |source| Error::new(ExitCode::Storage, "the locks cannot be taken").because(source);
    let daemon = Lock::daemon(state_dir).map_err(failed)?;
    let mut locks = vec![daemon.ok_or_else(|| busy("a daemon works here", lock::daemon_holder(state_dir)))?];
    for name in policy.databases.keys() {
        let lock = Lock::database(state_dir, name).map_err(failed)?;
        let holder = || lock::database_holder(state_dir, name);
        locks.push(lock.ok_or_else(|| busy(&format!("`{name}` is being worked on"), holder()))?);
    }
    Ok(locks)
}

fn busy(what: &str, holder: Option<String>) -> Error {
    let holder = holder.map_or_else(String::new, |holder| format!(" by {holder}"));
    Error::new(ExitCode::Busy, format!("the catalog cannot be rebuilt while {what}{holder}"))
        .hint("Stop the daemon first (`systemctl stop backstop`), and let commands that run end.")
}

/// Reads every storage of the policy and records the dumps in it.
async fn dumps(policy: &Policy, catalog: &Catalog, outcome: &mut Outcome, now: DateTime<Utc>) -> Result<(), Error> {
    let keys = Keys::of(policy, &mut outcome.troubles);
    let used = catalog.used_storages().await.map_err(catalog_error)?;
    let mut inventories = Vec::new();
    for storage in policy.storages.values() {
        match take_stock(storage, used.contains(&storage.name), &keys).await {
            Ok(inventory) => inventories.push(inventory),
            Err(error) => outcome.troubles.push(chain(&error)),
        }
    }
    let filter = BackupFilter { include_expired: true, ..BackupFilter::default() };
    let mut known = catalog.all_backups(&filter).await.map_err(catalog_error)?;
    known.retain(|backup| backup.dump.is_some());
    let rebuilt = rebuild(&inventories, &known, now);
    record(catalog, &known, &rebuilt, &inventories, now).await.map_err(catalog_error)?;
    outcome.dumps = rebuilt.dumps.len();
    outcome.strangers = rebuilt.strangers;
    Ok(())
}

async fn record(
    catalog: &Catalog,
    known: &[Backup],
    rebuilt: &Rebuilt,
    inventories: &[Inventory],
    now: DateTime<Utc>,
) -> Result<(), crate::catalog::Error> {
    for dump in &rebuilt.dumps {
        catalog.record_dump(dump).await?;
        // Its status follows from its copies, whatever was known of it before.
        catalog.record_copies(&dump.id, &[], None).await?;
    }
    for (id, copies) in vanished(known, rebuilt, inventories, now) {
        catalog.record_copies(&id, &copies, None).await?;
    }
    Ok(())
}

/// The keys by which manifests are authenticated; `age` has no common secret to do it with.
struct Keys(BTreeMap<String, Opener>);

impl Keys {
    fn of(policy: &Policy, troubles: &mut Vec<String>) -> Self {
        let mut keys = BTreeMap::new();
        for (name, key) in policy.keys.iter().filter(|(_, key)| key.method() == EncryptionMethod::Aes256) {
            match Opener::of(key, None) {
                Ok(opener) => drop(keys.insert(name.clone(), opener)),
                Err(error) => {
                    troubles.push(format!("manifests under key `{name}` are not authenticated: {}", chain(&error)));
                }
            }
        }
        Self(keys)
    }

    fn read(&self, bytes: &[u8]) -> Result<Manifest, String> {
        let manifest = Manifest::read(bytes, None).map_err(|error| chain(&error))?;
        let encryption = manifest.backup.dump.as_ref().and_then(|dump| dump.encryption.as_ref());
        match encryption.and_then(|encryption| self.0.get(&encryption.key)) {
            Some(opener) => Manifest::read(bytes, Some(opener)).map_err(|error| chain(&error)),
            None => Ok(manifest),
        }
    }
}

/// Everything in a storage, with its manifests and holds read.
async fn take_stock(policy: &StoragePolicy, is_used: bool, keys: &Keys) -> Result<Inventory, storage::Error> {
    let storage = if is_used { Storage::open_used(policy).await? } else { Storage::open(policy).await? };
    let files = storage.list("").await?;
    let wanted = files.iter().map(|file| file.path.clone());
    let wanted: Vec<String> = wanted.filter(|path| is_manifest(path) || is_hold(path)).collect();
    let mut inventory = Inventory { storage: policy.name.clone(), files, ..Inventory::default() };
    let mut read = stream::iter(wanted).map(|path| read_whole(&storage, path)).buffered(AT_ONCE);
    while let Some((path, bytes)) = read.next().await {
        let bytes = bytes.map_err(|error| chain(&error));
        if is_manifest(&path) {
            let manifest = bytes.and_then(|bytes| keys.read(&bytes));
            inventory.manifests.insert(path, manifest);
        } else if let Some(held) = bytes.ok().and_then(|bytes| serde_json::from_slice::<Beside>(&bytes).ok()) {
            let directory = path.trim_end_matches(HOLD).trim_end_matches('/').to_owned();
            inventory.holds.insert(directory, (held.held, held.held_until));
        }
    }
    Ok(inventory)
}

fn is_hold(path: &str) -> bool {
    Path::new(path).file_name().is_some_and(|name| name == HOLD)
}

async fn read_whole(storage: &Storage, path: String) -> (String, Result<Vec<u8>, storage::Error>) {
    let bytes = async {
        let mut reader = storage.read(&path).await?;
        let mut bytes = Vec::new();
        while let Some(more) = reader.next().await? {
            bytes.extend_from_slice(&more);
            if bytes.len() > LARGEST {
                // What it begins with is no document, and says so when it is read.
                break;
            }
        }
        Ok(bytes)
    };
    let bytes = bytes.await;
    (path, bytes)
}

/// Asks the repositories of every database that pgBackRest backs up.
async fn physical(policy: &Policy, catalog: &Catalog, outcome: &mut Outcome) -> Result<(), Error> {
    for database in policy.databases.values().filter(|database| !database.engine.is_dump()) {
        let seen = match sync::look(database, &Stop::never()).await {
            Ok(seen) => seen,
            Err(failure) => {
                outcome.troubles.push(format!("`{}`: {}", database.name, failure.message));
                continue;
            }
        };
        let troubles = database.pgbackrest.repos.iter().filter_map(|repo| seen.trouble(*repo));
        outcome.troubles.extend(troubles.map(|failure| format!("`{}`: {}", database.name, failure.message)));
        sync::remember(catalog, database, &seen).await.map_err(catalog_error)?;
        outcome.physical += seen.of_all_clusters.len();
    }
    Ok(())
}

impl Outcome {
    fn summary(&self) -> String {
        let Self { dumps, physical, strangers, troubles } = self;
        let strangers = match strangers.len() {
            0 => String::new(),
            count => format!(", {count} things that are not ours left alone"),
        };
        let troubles = match troubles.len() {
            0 => String::new(),
            count => format!(", {count} troubles"),
        };
        format!("{dumps} dumps and {physical} backups of pgBackRest found{strangers}{troubles}")
    }

    fn answer(self, summary: String) -> Answer {
        let mut text = format!("{summary}\n");
        for stranger in &self.strangers {
            text.push_str(&format!("  not ours     {}: {}: {}\n", stranger.storage, stranger.path, stranger.why));
        }
        for trouble in &self.troubles {
            text.push_str(&format!("  TROUBLE      {trouble}\n"));
        }
        text.push_str("the catalog is in recovery mode: look at `backstop list`, then say `backstop catalog accept`\n");
        let result = json!({
            "dumps": self.dumps,
            "pgbackrest_backups": self.physical,
            "not_ours": self.strangers,
            "troubles": self.troubles,
            "recovery_mode": true,
        });
        let mut answer = Answer::new("catalog", result, summary, text);
        // What could not be asked may hold backups, so whoever scripts this must see that it is not all.
        answer.exit = if self.troubles.is_empty() { ExitCode::Done } else { ExitCode::Storage };
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_asked_makes_it_less_than_done() {
        let stranger = Stranger { storage: "local".into(), path: "README".into(), why: "it is not ours".into() };
        let troubles = vec!["storage `offsite` cannot be reached: timed out".to_owned()];
        let outcome = Outcome { dumps: 2, physical: 3, strangers: vec![stranger], troubles };
        let answer = outcome.answer("2 dumps".to_owned());
        assert_eq!(answer.exit, ExitCode::Storage);
        insta::assert_snapshot!(answer.text, @r"
        2 dumps
          not ours     local: README: it is not ours
          TROUBLE      storage `offsite` cannot be reached: timed out
        the catalog is in recovery mode: look at `backstop list`, then say `backstop catalog accept`
        ");
        assert_eq!(Outcome::default().answer(String::new()).exit, ExitCode::Done);
        assert_eq!(Outcome::default().summary(), "0 dumps and 0 backups of pgBackRest found");
    }

    #[test]
    fn only_one_may_rebuild_and_nobody_may_work_meanwhile() {
        let directory = tempfile::tempdir().unwrap();
        let text = format!(
            "[daemon]\nstate_dir = \"{}\"\n[database.orders]\nenvironment = \"staging\"\n",
            directory.path().display()
        );
        let policy = Policy::parse(vec![("p.toml".into(), text)]).unwrap();
        let first = alone(&policy).unwrap();
        assert_eq!(alone(&policy).unwrap_err().exit(), ExitCode::Busy);
        drop(first);
        let orders = "orders".parse().unwrap();
        let _busy = Lock::database(directory.path(), &orders).unwrap().unwrap();
        assert!(alone(&policy).unwrap_err().to_string().contains("`orders` is being worked on"));
    }
}
