//! A dump's end: unlisted first, then its bytes, in every storage.
//!
//! It is marked and audited before the first file goes, unless somebody held or changed it since it was chosen; from then
//! on no copy of it is called good. The manifest goes first, so that a stop halfway leaves something that nobody takes for
//! a backup; every copy is recorded as it goes. Called again, it goes on where it stopped: what is
//! not there any more is no error, and a copy whose storage could not be asked stays recorded until it can. A newcomer
//! would forget that copy and pay for it for ever.

use futures_util::{StreamExt, future::join_all, stream};
use tracing::{info, warn};

use super::{Done, Runner, catalog_failure, dump::places};
use crate::{
    catalog::Catalog,
    clock,
    error::ExitCode,
    human::size,
    policy::Policy,
    record::{Backup, BackupCopy, BackupStatus, CopyState, Dump, ErrorClass, Failure, HOLD},
    storage::{self, Storage},
};

/// How many files of one copy go at once.
const AT_ONCE: usize = 8;

/// Deletes every copy of a dump. The caller holds the database's lock, and made sure that it may go.
///
/// # Errors
/// When it is no dump, when it changed meanwhile, or when a copy could not be deleted; the others are then, and the backup
/// counts no more.
pub async fn delete(runner: &Runner, backup: &Backup, reason: &str, who: &str) -> Result<Done, Failure> {
    let deletion = Deletion { policy: &runner.policy, catalog: &runner.catalog, action: "delete", who };
    deletion.of(backup, reason).await?.ok_or_else(|| changed(backup))
}

/// Deletes dumps on somebody's behalf.
pub(super) struct Deletion<'a> {
    pub(super) policy: &'a Policy,
    pub(super) catalog: &'a Catalog,
    /// The word in the audit.
    pub(super) action: &'a str,
    pub(super) who: &'a str,
}

impl Deletion<'_> {
    /// None: it was held, or became something else, since it was read; nothing was done.
    pub(super) async fn of(&self, backup: &Backup, reason: &str) -> Result<Option<Done>, Failure> {
        let Some(dump) = &backup.dump else { return Err(no_dump(backup)) };
        let begun = self.catalog.end_backup(&backup.id, backup.status, reason, clock::now()).await;
        if !begun.map_err(catalog_failure)? {
            return Ok(None);
        }
        self.audit(backup, dump, reason).await?;
        let gone = join_all(dump.copies.iter().map(|copy| self.copy(dump, copy))).await;
        let copies: Vec<BackupCopy> = gone.iter().map(|(copy, _)| copy.clone()).collect();
        self.catalog.record_copies(&backup.id, &copies, None).await.map_err(catalog_failure)?;
        let failures: Vec<&Failure> = gone.iter().filter_map(|(_, failure)| failure.as_ref()).collect();
        match incomplete(backup, &failures) {
            Some(failure) => Err(failure),
            None => Ok(Some(Done::new(deleted(backup, dump)))),
        }
    }

    async fn audit(&self, backup: &Backup, dump: &Dump, reason: &str) -> Result<(), Failure> {
        let detail = format!("{reason}; {} in {}", size(dump.stored_size()), there(dump).join(", "));
        let object = format!("{} {}", backup.database, backup.id);
        let head = self.catalog.audit(self.who, self.action, &object, &detail, clock::now()).await;
        let head = head.map_err(catalog_failure)?;
        info!(backup = %backup.id, audit = %head, "audit: {}: {detail}", self.action);
        Ok(())
    }

    /// Deletes a copy; gives back what is known of it now, and why it is still there.
    async fn copy(&self, dump: &Dump, copy: &BackupCopy) -> (BackupCopy, Option<Failure>) {
        if is_gone(copy) {
            return (copy.clone(), None);
        }
        match self.remove(dump, &copy.storage).await {
            Ok(()) => {
                let state = CopyState::Deleted;
                let gone =
                    BackupCopy { state, detail: None, checked_at: clock::now(), locked_until: None, ..copy.clone() };
                (gone, None)
            }
            Err(failure) => {
                warn!(storage = %copy.storage, directory = %dump.directory, "a copy stays: {}", failure.message);
                (stays(copy, &failure), Some(failure))
            }
        }
    }

    async fn remove(&self, dump: &Dump, storage: &str) -> Result<(), Failure> {
        let settings = self.policy.storages.get(storage).ok_or_else(|| places::unknown(storage))?;
        let storage = Storage::open_used(settings).await?;
        for unlisting in [dump.manifest_path(), format!("{}/{HOLD}", dump.directory)] {
            storage.remove(&unlisting).await?;
        }
        let removing: Vec<_> =
            dump.artifacts.iter().map(|artifact| remove_file(storage.clone(), dump.path(artifact))).collect();
        let results: Vec<_> = stream::iter(removing).buffer_unordered(AT_ONCE).collect().await;
        results.into_iter().collect::<Result<Vec<()>, _>>()?;
        storage.sweep(&dump.directory).await?;
        Ok(())
    }
}

async fn remove_file(storage: Storage, path: String) -> Result<(), storage::Error> {
    storage.remove(&path).await
}

/// A copy that could not be deleted. How far that went is not known, so it is never good again.
fn stays(copy: &BackupCopy, failure: &Failure) -> BackupCopy {
    let detail = Some(format!("its deletion was begun: {}", failure.message));
    BackupCopy { state: CopyState::Unknown, detail, checked_at: clock::now(), ..copy.clone() }
}

/// Whether a deletion was begun and is not done: its copies are still to go.
pub(super) fn is_unfinished(backup: &Backup) -> bool {
    let copies = backup.dump.as_ref().map(|dump| dump.copies.as_slice()).unwrap_or_default();
    backup.status == BackupStatus::Expired && !copies.iter().all(is_gone)
}

/// Whether nothing of a copy is there.
fn is_gone(copy: &BackupCopy) -> bool {
    matches!(copy.state, CopyState::Deleted | CopyState::Failed)
}

/// The storages in which something of it is.
fn there(dump: &Dump) -> Vec<&str> {
    dump.copies.iter().filter(|copy| !is_gone(copy)).map(|copy| copy.storage.as_str()).collect()
}

fn deleted(backup: &Backup, dump: &Dump) -> String {
    let bytes = size(dump.stored_size());
    match there(dump).as_slice() {
        [] => format!("backup {} was deleted already", backup.id),
        [storage] => format!("backup {} deleted from {storage}, {bytes}", backup.id),
        storages => format!("backup {} deleted from {}, {bytes} in each", backup.id, storages.join(" and ")),
    }
}

fn incomplete(backup: &Backup, failures: &[&Failure]) -> Option<Failure> {
    let first = failures.first()?;
    let why: Vec<&str> = failures.iter().map(|failure| failure.message.as_str()).collect();
    let message = format!("backup {} counts no more, but not every copy is deleted: {}", backup.id, why.join("; "));
    let remedy = "Delete it again when the storage can be reached; each `expire` tries too.".to_owned();
    Some(Failure { message, remedy: first.remedy.clone().or(Some(remedy)), ..(*first).clone() })
}

fn changed(backup: &Backup) -> Failure {
    Failure {
        class: ErrorClass::Busy,
        exit: ExitCode::Busy,
        message: format!("backup {} changed meanwhile, so nothing was deleted", backup.id),
        remedy: Some(format!("Look at it with `backstop show {}`, then try again.", backup.id)),
    }
}

fn no_dump(backup: &Backup) -> Failure {
    Failure {
        class: ErrorClass::Config,
        exit: ExitCode::Configuration,
        message: format!("backup {} lies in a repository of pgBackRest, which alone deletes there", backup.id),
        remedy: Some(format!("Let retention end it: `backstop expire {}`.", backup.database)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::expire::tests::dump;

    #[test]
    fn a_copy_whose_deletion_failed_is_never_good_and_the_deletion_goes_on() {
        let mut backup = dump(1, None);
        let failure = no_dump(&backup);
        let copies = &mut backup.dump.as_mut().unwrap().copies;
        let copy = stays(&copies[0], &failure);
        assert_eq!((copies[0].state, copy.state), (CopyState::Good, CopyState::Unknown));
        assert!(copy.detail.as_deref().unwrap().contains(&failure.message));
        copies[0] = copy;
        backup.status = BackupStatus::Expired;
        assert!(is_unfinished(&backup));
    }

    #[test]
    fn a_backup_that_changed_meanwhile_is_busy_and_no_failure_of_the_storage() {
        let failure = changed(&dump(1, None));
        assert_eq!((failure.class, failure.exit), (ErrorClass::Busy, ExitCode::Busy));
        assert_eq!(failure.message, "backup backup-001 changed meanwhile, so nothing was deleted");
    }
}
