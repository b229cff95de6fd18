//! Dumps re-read: every byte of every copy, and the manifests, against what was recorded when they were made.
//!
//! No key is needed for that. What is found is recorded backup by backup, so that a verification which is stopped keeps
//! what it learnt. A storage that cannot be asked proves nothing, neither good nor bad. A newcomer would call its copies
//! missing, and retention would then count without them.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use futures_util::future::join_all;
use tracing::{info, warn};

use crate::{
    clock,
    error::{ExitCode, chain},
    human::size,
    job::{
        Context, Done, catalog_failure,
        dump::{leftover, make, places},
        progress::Gauge,
    },
    manifest::Manifest,
    process::Stop,
    record::{Backup, BackupCopy, CopyState, Dump, ErrorClass, Failure},
    storage::{self, Storage},
    stream,
};

/// Storages by name: opened, or why not.
type Storages = BTreeMap<String, Result<Storage, String>>;

pub(super) async fn run(context: &Context) -> Result<Done, Failure> {
    context.within(|stop| async move { every_backup(context, &stop).await }).await
}

async fn every_backup(context: &Context, stop: &Stop) -> Result<Done, Failure> {
    let backups = wanted(context).await?;
    let storages = tokio::select! {
        storages = open(context, &backups) => storages,
        () = stop.stopped() => return Err(context.stopped()),
    };
    let read = AtomicU64::new(0);
    let gauge = Gauge::new(context.progress.clone(), &context.log_dir, Some(bytes_of(&backups)));
    let verdicts = tokio::select! {
        verdicts = judge_all(context, &backups, &storages, &read, stop) => verdicts?,
        never = gauge.watch(|| read.load(Ordering::Relaxed), None) => never,
    };
    let read = read.load(Ordering::Relaxed);
    gauge.end(read);
    conclude(&verdicts, backups.len(), read)
}

/// The backup that a person named, or all that count.
async fn wanted(context: &Context) -> Result<Vec<Backup>, Failure> {
    let name = &context.database().name;
    let Some(target) = &context.target else {
        let all = context.catalog.backups(name).await.map_err(catalog_failure)?;
        return Ok(all.into_iter().filter(|backup| backup.dump.is_some()).collect());
    };
    let found = context.catalog.backup(target).await.map_err(catalog_failure)?;
    match found.filter(|backup| backup.database == *name && backup.dump.is_some()) {
        Some(backup) => Ok(vec![backup]),
        None => Err(Failure {
            class: ErrorClass::Config,
            exit: ExitCode::Configuration,
            message: format!("`{name}` has no dump `{target}`"),
            remedy: Some(format!("`backstop list --database {name}` shows what there is.")),
        }),
    }
}

/// Opens each storage once.
async fn open(context: &Context, backups: &[Backup]) -> Storages {
    let mut names: Vec<&str> = to_read(backups).map(|(_, copy)| copy.storage.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let opening = names.into_iter().map(|name| async move {
        let opened = match context.policy.storages.get(name) {
            Some(settings) => Storage::open_used(settings).await.map_err(|problem| chain(&problem)),
            None => Err(places::unknown(name).message),
        };
        (name.to_owned(), opened)
    });
    join_all(opening).await.into_iter().collect()
}

/// What was found of one copy.
struct Verdict {
    backup: String,
    copy: BackupCopy,
    /// Why its key does not open it.
    key: Option<Failure>,
}

async fn judge_all(
    context: &Context,
    backups: &[Backup],
    storages: &Storages,
    read: &AtomicU64,
    stop: &Stop,
) -> Result<Vec<Verdict>, Failure> {
    let mut verdicts = Vec::new();
    for backup in backups {
        let (copies, keys): (Vec<BackupCopy>, Vec<Option<Failure>>) =
            judge(context, backup, storages, read, stop).await?.into_iter().unzip();
        let is_whole = copies.iter().any(|copy| copy.state == CopyState::Good);
        let verified_at = is_whole.then(clock::now);
        context.catalog.record_copies(&backup.id, &copies, verified_at).await.map_err(catalog_failure)?;
        for copy in &copies {
            tell(context, backup, copy);
        }
        let verdict = |(copy, key)| Verdict { backup: backup.id.clone(), copy, key };
        verdicts.extend(copies.into_iter().zip(keys).map(verdict));
    }
    Ok(verdicts)
}

/// Reads the copies of a backup, all storages at once; those that never were, or are deleted, stay as they are.
async fn judge(
    context: &Context,
    backup: &Backup,
    storages: &Storages,
    read: &AtomicU64,
    stop: &Stop,
) -> Result<Vec<(BackupCopy, Option<Failure>)>, Failure> {
    let Some(dump) = &backup.dump else { return Ok(Vec::new()) };
    let judging = dump.copies.iter().map(|copy| async move {
        if !is_there(copy) {
            return Ok((copy.clone(), None));
        }
        let mut key = None;
        let (state, detail) = match storages.get(&copy.storage) {
            Some(Ok(storage)) => {
                let reading = reading(context, backup, dump, storage, read, stop).await;
                key = reading.as_ref().err().and_then(Trouble::with_the_key);
                state(storage.name(), reading).ok_or_else(|| context.stopped())?
            }
            Some(Err(why)) => (CopyState::Unknown, Some(why.clone())),
            None => (CopyState::Unknown, None),
        };
        Ok((BackupCopy { state, detail, checked_at: clock::now(), ..copy.clone() }, key))
    });
    join_all(judging).await.into_iter().collect()
}

/// What is wrong with a file of a copy.
struct Trouble {
    file: String,
    problem: Problem,
}

enum Problem {
    Stream(stream::Error),
    Manifest(String),
}

impl Trouble {
    fn with_the_key(&self) -> Option<Failure> {
        match &self.problem {
            Problem::Stream(stream::Error::Key(error)) => Some(Failure::from(error)),
            _ => None,
        }
    }
}

/// Reads every file of a copy, the manifest last; ends at the first that is not right.
async fn reading(
    context: &Context,
    backup: &Backup,
    dump: &Dump,
    storage: &Storage,
    read: &AtomicU64,
    stop: &Stop,
) -> Result<(), Trouble> {
    let opener = leftover::opener(&context.policy, context.database(), backup);
    for artifact in &dump.artifacts {
        let path = dump.path(artifact);
        let checked = make::check(storage, &path, artifact, opener.as_ref(), stop).await;
        checked.map_err(|problem| Trouble { file: artifact.name.clone(), problem: Problem::Stream(problem) })?;
        read.fetch_add(artifact.stored.size, Ordering::Relaxed);
    }
    let path = dump.manifest_path();
    let trouble = |problem| Trouble { file: path.clone(), problem };
    let bytes = tokio::select! {
        bytes = leftover::read(storage, &path) => bytes.map_err(stream::Error::Storage),
        () = stop.stopped() => Err(stream::Error::Stopped),
    };
    let bytes = bytes.map_err(|problem| trouble(Problem::Stream(problem)))?;
    read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    // The key is that of the record; a manifest that was changed would name another, or none.
    let manifest = Manifest::read(&bytes, opener.as_ref());
    let manifest = manifest.map_err(|problem| trouble(Problem::Manifest(chain(&problem))))?;
    if is_of(&manifest.backup, backup) {
        return Ok(());
    }
    Err(trouble(Problem::Manifest("it tells something else than was recorded".to_owned())))
}

/// Whether a manifest tells what was recorded, as far as nothing of it changes later.
fn is_of(told: &Backup, recorded: &Backup) -> bool {
    let fixed = |backup: &Backup| {
        let dump =
            backup.dump.as_ref().map(|dump| (dump.artifacts.clone(), dump.encryption.clone(), dump.directory.clone()));
        let names = (backup.id.clone(), backup.database.clone(), backup.run_uuid.clone(), backup.created_by.clone());
        let remarks = (backup.name.clone(), backup.reason.clone(), backup.tags.clone());
        (names, remarks, backup.started_at.timestamp_millis(), backup.stopped_at.timestamp_millis(), dump)
    };
    fixed(told) == fixed(recorded)
}

/// The state of a copy by what its reading met; none when it was stopped.
fn state(storage: &str, read: Result<(), Trouble>) -> Option<(CopyState, Option<String>)> {
    let Err(Trouble { file, problem }) = read else { return Some((CopyState::Good, None)) };
    let (state, why) = match problem {
        Problem::Stream(stream::Error::Stopped) => return None,
        Problem::Stream(stream::Error::Storage(storage::Error::NotFound { .. })) => {
            (CopyState::Missing, "it is not there".to_owned())
        }
        // It names the file itself.
        Problem::Stream(stream::Error::Damaged(why)) => {
            return Some((CopyState::Damaged, Some(format!("in {storage}: {why}"))));
        }
        // Storage that refuses or is silent, a key that is not at hand: the bytes were not judged.
        Problem::Stream(problem) => (CopyState::Unknown, chain(&problem)),
        Problem::Manifest(why) => (CopyState::Damaged, why),
    };
    Some((state, Some(format!("`{file}` in {storage}: {why}"))))
}

fn tell(context: &Context, backup: &Backup, copy: &BackupCopy) {
    let (storage, why) = (&copy.storage, copy.detail.as_deref().unwrap_or_default());
    match copy.state {
        CopyState::Good => info!(run_id = context.run, backup = %backup.id, %storage, "the copy is whole"),
        CopyState::Deleted | CopyState::Failed => {}
        state => warn!(run_id = context.run, backup = %backup.id, %storage, "the copy is {state}: {why}"),
    }
}

fn conclude(verdicts: &[Verdict], backups: usize, read: u64) -> Result<Done, Failure> {
    let of = |states: &[CopyState]| -> Vec<String> {
        let found = verdicts.iter().filter(|verdict| states.contains(&verdict.copy.state));
        let words = |Verdict { backup, copy, .. }: &Verdict| {
            let why = copy.detail.as_deref().unwrap_or(&copy.storage);
            format!("{backup} is {}, {why}", copy.state)
        };
        found.map(words).collect()
    };
    let (bad, unknown) = (of(&[CopyState::Damaged, CopyState::Missing]), of(&[CopyState::Unknown]));
    let re_read = format!("{} re-read", size(read));
    if !bad.is_empty() {
        return Err(Failure {
            class: ErrorClass::Integrity,
            exit: ExitCode::VerificationFailed,
            message: format!(
                "{} of {backups} backups re-read: {}",
                bad.len() + unknown.len(),
                [bad, unknown].concat().join("; ")
            ),
            remedy: Some(
                "Make a new backup now, then look at the disk or bucket under the storage. Nothing was deleted."
                    .to_owned(),
            ),
        });
    }
    if !unknown.is_empty() {
        let message = format!("{re_read}, but not every copy could be: {}", unknown.join("; "));
        // Nobody who looks at the storage finds a wrong key there.
        if let Some(key) = verdicts.iter().find_map(|verdict| verdict.key.clone()) {
            return Err(Failure { message, ..key });
        }
        return Err(Failure {
            class: ErrorClass::Transient,
            exit: ExitCode::Storage,
            message,
            remedy: Some("Look whether the storage can be reached. What could be read is right.".to_owned()),
        });
    }
    let copies = verdicts.iter().filter(|verdict| verdict.copy.state == CopyState::Good).count();
    Ok(Done::new(format!("{backups} backups in {copies} copies, {re_read}, all right")))
}

/// Whether there should be something to read.
fn is_there(copy: &BackupCopy) -> bool {
    !matches!(copy.state, CopyState::Deleted | CopyState::Failed)
}

fn to_read(backups: &[Backup]) -> impl Iterator<Item = (&Dump, &BackupCopy)> {
    let dumps = backups.iter().filter_map(|backup| backup.dump.as_ref());
    dumps.flat_map(|dump| dump.copies.iter().filter(|copy| is_there(copy)).map(move |copy| (dump, copy)))
}

fn bytes_of(backups: &[Backup]) -> u64 {
    to_read(backups).map(|(dump, _)| dump.stored_size()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(problem: stream::Error) -> Option<(CopyState, Option<String>)> {
        state("local", Err(Trouble { file: "shop.sql".to_owned(), problem: Problem::Stream(problem) }))
    }

    fn verdicts(states: &[CopyState]) -> Vec<Verdict> {
        let copy = |state: &CopyState| BackupCopy {
            storage: "local".to_owned(),
            state: *state,
            detail: Some("`shop.sql` in local: why".to_owned()),
            checked_at: chrono::DateTime::UNIX_EPOCH,
            locked_until: None,
        };
        states.iter().map(|state| Verdict { backup: "backup-1".to_owned(), copy: copy(state), key: None }).collect()
    }

    #[test]
    fn a_storage_that_cannot_be_asked_proves_nothing() {
        let storage = || "local".to_owned();
        let missing = storage::Error::NotFound { storage: storage(), path: "p".to_owned() };
        let silent = storage::Error::Unreachable { storage: storage(), why: "timed out".to_owned() };
        for (problem, then) in [
            (stream::Error::Storage(missing), CopyState::Missing),
            (stream::Error::Storage(silent), CopyState::Unknown),
            (stream::Error::Damaged("its checksum differs".to_owned()), CopyState::Damaged),
        ] {
            assert_eq!(read(problem).unwrap().0, then);
        }
        assert_eq!(read(stream::Error::Stopped), None, "a stop is no verdict");
        let (_, detail) = read(stream::Error::Damaged("its checksum differs".to_owned())).unwrap();
        assert_eq!(detail.as_deref(), Some("in local: its checksum differs"));
    }

    #[test]
    fn damage_is_told_before_silence() {
        use CopyState::{Damaged, Deleted, Good, Missing, Unknown};
        assert_eq!(
            conclude(&verdicts(&[Good, Good, Deleted]), 2, 2048).unwrap().summary,
            "2 backups in 2 copies, 2.0 KiB re-read, all right"
        );
        let bad = conclude(&verdicts(&[Good, Missing, Unknown, Damaged]), 3, 0).unwrap_err();
        assert_eq!((bad.class, bad.exit), (ErrorClass::Integrity, ExitCode::VerificationFailed));
        assert!(bad.message.contains("backup-1 is damaged, `shop.sql` in local: why"), "{}", bad.message);
        let silent = conclude(&verdicts(&[Good, Unknown]), 2, 0).unwrap_err();
        assert_eq!((silent.class, silent.exit), (ErrorClass::Transient, ExitCode::Storage));
    }
}
