//! What stays, asked of the storages before the first deletion.
//!
//! A plan is made from the catalog, and somebody may have removed what the catalog still believes in. A copy that is not
//! whole by its listing is recorded as what it is, and this run deletes nothing: the next one plans with what is there.
//! Presence and size are all that a listing proves; `verify` reads the bytes.
//!
//! A newcomer would skip a storage that cannot be asked; the backups that stay may lie in it alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use tracing::warn;

use crate::{
    catalog::rebuild::listed,
    clock,
    error::ExitCode,
    job::{Context, catalog_failure, dump::places},
    record::{Backup, BackupCopy, CopyState, ErrorClass, Failure},
    storage::{self, Storage, Stored},
};

/// What lies in each storage of a database.
type Listings = BTreeMap<String, Vec<Stored>>;

/// Fails unless every storage can be asked and shows the good copies of these backups whole.
pub(super) async fn are_whole(context: &Context, staying: &[&Backup]) -> Result<(), Failure> {
    let listings = tokio::select! {
        listings = ask_all(context, staying) => listings?,
        () = context.stop.stopped() => return Err(context.stopped()),
    };
    let mut wrong = Vec::new();
    for backup in staying {
        let copies = not_whole(backup, &listings, clock::now());
        if copies.is_empty() {
            continue;
        }
        context.catalog.record_copies(&backup.id, &copies, None).await.map_err(catalog_failure)?;
        for BackupCopy { storage, detail, .. } in copies {
            let detail = detail.unwrap_or_default();
            warn!(run_id = context.run, backup = %backup.id, %storage, "a copy is not whole: {detail}");
            wrong.push(format!("{} in `{storage}`: {detail}", backup.id));
        }
    }
    conclude(&wrong)
}

fn conclude(wrong: &[String]) -> Result<(), Failure> {
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Failure {
        class: ErrorClass::Integrity,
        exit: ExitCode::Storage,
        message: format!("nothing was deleted, for what should stay is not whole: {}", wrong.join("; ")),
        remedy: Some("Find out who changed it; Backstop did not. The next `expire` plans without it.".to_owned()),
    })
}

/// Lists the storages of the database, and those that what stays lies in, each once.
async fn ask_all(context: &Context, staying: &[&Backup]) -> Result<Listings, Failure> {
    let relied: BTreeSet<&str> =
        staying.iter().flat_map(|backup| good_copies(backup)).map(|copy| copy.storage.as_str()).collect();
    let own = context.database().dump.storages.iter().map(String::as_str);
    let names: BTreeSet<&str> = own.chain(relied.iter().copied()).collect();
    let asking = names.into_iter().map(|name| ask(context, name, relied.contains(name)));
    join_all(asking).await.into_iter().collect()
}

async fn ask(context: &Context, name: &str, is_relied_on: bool) -> Result<(String, Vec<Stored>), Failure> {
    let settings = context.policy.storages.get(name).ok_or_else(|| places::unknown(name))?;
    let listing = async {
        let storage = Storage::open(settings).await?;
        if is_relied_on && !storage.is_marked().await? {
            let why = "it has no mark of ours, as a mount point without its file system".to_owned();
            return Err(storage::Error::Unreachable { storage: name.to_owned(), why });
        }
        storage.list(context.database().name.as_str()).await
    };
    listing.await.map(|files| (name.to_owned(), files)).map_err(|error| unasked(error.into()))
}

/// Whatever the reason, the next attempt may find it gone.
fn unasked(failure: Failure) -> Failure {
    let message = format!("nothing was deleted, for a storage could not be asked first: {}", failure.message);
    Failure { class: ErrorClass::Transient, exit: ExitCode::Storage, message, ..failure }
}

/// The copies that are good by the catalog and not by the listings.
fn not_whole(backup: &Backup, listings: &Listings, now: DateTime<Utc>) -> Vec<BackupCopy> {
    let Some(dump) = &backup.dump else { return Vec::new() };
    let judge = |copy: &BackupCopy| {
        let files = listings.get(&copy.storage)?;
        let sizes: HashMap<&str, u64> = files.iter().map(|file| (file.path.as_str(), file.size)).collect();
        let (state, mut wrong) = listed(dump, &sizes);
        let has_manifest = sizes.contains_key(dump.manifest_path().as_str());
        if !has_manifest {
            wrong.insert(0, "its manifest is missing".to_owned());
        }
        let state = if state == CopyState::Good && !has_manifest { CopyState::Missing } else { state };
        let found = BackupCopy { state, detail: Some(wrong.join(", ")), checked_at: now, ..copy.clone() };
        (state != CopyState::Good).then_some(found)
    };
    good_copies(backup).filter_map(judge).collect()
}

fn good_copies(backup: &Backup) -> impl Iterator<Item = &BackupCopy> {
    let copies = backup.dump.iter().flat_map(|dump| &dump.copies);
    copies.filter(|copy| copy.state == CopyState::Good)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        job::expire::tests::dump,
        record::{Artifact, Digest, Role},
    };

    /// A dump of two files with a copy in `local`, and the listing of that copy.
    fn made() -> (Backup, Vec<Stored>) {
        let mut backup = dump(1, None);
        let dump = backup.dump.as_mut().unwrap();
        for (name, size) in [("globals.sql", 5), ("shop.dump", 9)] {
            let digest = Digest { size, sha256: "aa".to_owned() };
            let (raw, stored, name) = (digest.clone(), digest, name.to_owned());
            dump.artifacts.push(Artifact { role: Role::Data, name, raw, stored, hmac: None });
        }
        let mut files: Vec<Stored> =
            dump.artifacts.iter().map(|it| Stored { path: dump.path(it), size: it.stored.size }).collect();
        files.push(Stored { path: dump.manifest_path(), size: 3 });
        (backup, files)
    }

    fn told(backup: &Backup, files: Vec<Stored>) -> Vec<(CopyState, String)> {
        let listings = BTreeMap::from([("local".to_owned(), files)]);
        let copies = not_whole(backup, &listings, DateTime::UNIX_EPOCH);
        copies.into_iter().map(|copy| (copy.state, copy.detail.unwrap())).collect()
    }

    #[test]
    fn a_copy_that_a_person_removed_is_missing_and_one_that_was_cut_is_damaged() {
        let (backup, files) = made();
        assert_eq!(told(&backup, files.clone()), []);
        let all = "its manifest is missing, `globals.sql` is missing, `shop.dump` is missing";
        assert_eq!(told(&backup, Vec::new()), [(CopyState::Missing, all.to_owned())]);
        let unlisted = (CopyState::Missing, "its manifest is missing".to_owned());
        assert_eq!(told(&backup, files[..2].to_vec()), [unlisted]);
        let mut cut = files;
        cut[1].size = 8;
        let damaged = (CopyState::Damaged, "`shop.dump` has 8 bytes instead of 9".to_owned());
        assert_eq!(told(&backup, cut), [damaged]);
    }

    #[test]
    fn a_copy_that_is_not_relied_on_is_not_asked_for() {
        let (mut backup, _) = made();
        for state in [CopyState::Unknown, CopyState::Damaged, CopyState::Failed, CopyState::Deleted] {
            backup.dump.as_mut().unwrap().copies[0].state = state;
            assert_eq!(told(&backup, Vec::new()), [], "{state}");
        }
    }

    #[test]
    fn the_failures_say_that_nothing_was_deleted_and_why() {
        assert_eq!(conclude(&[]), Ok(()));
        let failure = conclude(&["backup-001 in `local`: its manifest is missing".to_owned()]).unwrap_err();
        assert_eq!((failure.class, failure.exit), (ErrorClass::Integrity, ExitCode::Storage));
        let why =
            "nothing was deleted, for what should stay is not whole: backup-001 in `local`: its manifest is missing";
        assert_eq!(failure.message, why);
        let refused = storage::Error::Refused { storage: "s3".to_owned(), why: "no".to_owned() };
        let failure = unasked(refused.into());
        assert_eq!((failure.class, failure.exit), (ErrorClass::Transient, ExitCode::Storage));
        assert!(failure.message.contains("nothing was deleted") && failure.message.contains("`s3`"));
    }

    proptest! {
        #[test]
        fn only_a_listing_with_every_file_in_its_size_is_whole(gone in any::<[bool; 3]>(), sizes in prop::array::uniform2(4..10_u64)) {
            let (backup, mut files) = made();
            (files[0].size, files[1].size) = (sizes[0], sizes[1]);
            let files: Vec<Stored> = files.into_iter().zip(gone).filter(|(_, gone)| !gone).map(|(file, _)| file).collect();
            let is_whole = gone == [false; 3] && sizes == [5, 9];
            prop_assert_eq!(told(&backup, files).is_empty(), is_whole);
        }
    }
}
