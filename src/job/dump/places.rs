//! The storages of one run: which of them still take part, and why the others do not.
//!
//! A storage that fails loses its copy and is not asked again in this run; the others go on, and the run succeeds as
//! long as one is left. A newcomer would try it again with the next file; half a copy is none.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use tracing::warn;

use super::{plan, unless_stopped};
use crate::{
    error::ExitCode,
    human::size,
    job::Context,
    policy::{self, Policy},
    process::Stop,
    record::{BackupCopy, CopyState, ErrorClass, Failure},
    storage::Storage,
};

/// The storages of one run.
pub(super) struct Places(Mutex<Vec<Place>>);

struct Place {
    name: String,
    locks: bool,
    /// None where it could not even be opened.
    storage: Option<Storage>,
    trouble: Option<Failure>,
    /// What of a failed copy could not be removed.
    left: Option<String>,
    /// The files that this run made there.
    made: Vec<String>,
}

impl Places {
    /// Opens and tries every storage of the database. Those in `used` must have been marked by an earlier backup.
    pub(super) async fn open(context: &Context, used: &BTreeSet<String>, stop: &Stop) -> Result<Self, Failure> {
        let names = &context.database().dump.storages;
        let opening = join_all(names.iter().map(|name| place(&context.policy, name, used)));
        let places = unless_stopped(context, stop, opening).await?;
        for Place { name, trouble, .. } in &places {
            if let Some(trouble) = trouble {
                warn!(run_id = context.run, job = %context.job(), storage = %name, "no copy goes there: {}", trouble.message);
            }
        }
        let places = Self(Mutex::new(places));
        places.some_left()?;
        Ok(places)
    }

    /// Lets go of those without enough space; one that cannot tell has enough.
    pub(super) async fn with_room_for(&self, needed: u64) -> Result<(), Failure> {
        for storage in self.alive() {
            match storage.free_space().await {
                Ok(Some(free)) if free < needed => self.fail(storage.name(), no_space(storage.name(), free, needed)),
                Ok(_) => {}
                Err(problem) => self.fail(storage.name(), problem.into()),
            }
        }
        self.some_left()
    }

    /// Those that take part.
    pub(super) fn alive(&self) -> Vec<Storage> {
        let alive = |place: &Place| place.storage.clone().filter(|_| place.trouble.is_none());
        self.lock().iter().filter_map(alive).collect()
    }

    /// Those that took part and do not any more.
    pub(super) fn dropped(&self) -> Vec<Storage> {
        let dropped = |place: &Place| place.storage.clone().filter(|_| place.trouble.is_some());
        self.lock().iter().filter_map(dropped).collect()
    }

    /// All that could be opened.
    pub(super) fn opened(&self) -> Vec<Storage> {
        self.lock().iter().filter_map(|place| place.storage.clone()).collect()
    }

    /// A storage fails; only its first failure counts.
    pub(super) fn fail(&self, storage: &str, trouble: Failure) {
        let mut places = self.lock();
        let place = places.iter_mut().find(|place| place.name == storage);
        if let Some(place) = place.filter(|place| place.trouble.is_none()) {
            warn!(%storage, "its copy failed, the others go on: {}", trouble.message);
            place.trouble = Some(trouble);
        }
    }

    /// A file of ours is about to become visible.
    pub(super) fn claim(&self, storage: &str, path: &str) {
        if let Some(place) = self.lock().iter_mut().find(|place| place.name == storage) {
            place.made.push(path.to_owned());
        }
    }

    /// It did not: what is at the path is somebody else's.
    pub(super) fn disclaim(&self, storage: &str, path: &str) {
        if let Some(place) = self.lock().iter_mut().find(|place| place.name == storage) {
            place.made.retain(|made| made != path);
        }
    }

    /// The files that this run made in a storage.
    pub(super) fn made(&self, storage: &str) -> Vec<String> {
        self.lock().iter().find(|place| place.name == storage).map(|place| place.made.clone()).unwrap_or_default()
    }

    /// Says what of a failed copy could not be removed.
    pub(super) fn left(&self, storage: &str, what: String) {
        if let Some(place) = self.lock().iter_mut().find(|place| place.name == storage) {
            place.left = Some(what);
        }
    }

    /// Fails when no storage is left.
    pub(super) fn some_left(&self) -> Result<(), Failure> {
        let places = self.lock();
        let troubles: Option<Vec<&Failure>> = places.iter().map(|place| place.trouble.as_ref()).collect();
        troubles.and_then(|troubles| none_left(&troubles)).map_or(Ok(()), Err)
    }

    /// The copies as they stand.
    pub(super) fn copies(&self, now: DateTime<Utc>, lock_until: Option<DateTime<Utc>>) -> Vec<BackupCopy> {
        let copy = |place: &Place| {
            let state = match (&place.trouble, &place.left) {
                (None, _) => CopyState::Good,
                (Some(_), None) => CopyState::Failed,
                // Something may be there; it is asked again when the backup is verified or deleted.
                (Some(_), Some(_)) => CopyState::Unknown,
            };
            let why = place.trouble.as_ref().map(|trouble| trouble.message.clone());
            let detail = match (why, &place.left) {
                (Some(why), Some(left)) => Some(format!("{why}; what is left of it could not be removed: {left}")),
                (why, _) => why,
            };
            let locked_until = lock_until.filter(|_| place.locks && state == CopyState::Good);
            BackupCopy { storage: place.name.clone(), state, detail, checked_at: now, locked_until }
        };
        self.lock().iter().map(copy).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a storage and tries it. The mark is asked for before anything is written: a check on the mount point of a file
/// system that is not mounted would pass, and the backup would fill the disk below.
async fn open(policy: &policy::Storage, used: &BTreeSet<String>) -> Result<Storage, Failure> {
    let is_used = used.contains(&policy.name);
    let storage = if is_used { Storage::open_used(policy).await? } else { Storage::open(policy).await? };
    storage.check().await?;
    storage.mark().await?;
    Ok(storage)
}

async fn place(policy: &Policy, name: &str, used: &BTreeSet<String>) -> Place {
    let found = policy.storages.get(name);
    let opened = match found {
        Some(storage) => open(storage, used).await,
        None => Err(unknown(name)),
    };
    let (storage, trouble) = match opened {
        Ok(storage) => (Some(storage), None),
        Err(failure) => (None, Some(failure)),
    };
    Place {
        name: name.to_owned(),
        locks: found.is_some_and(plan::locks),
        storage,
        trouble,
        left: None,
        made: Vec::new(),
    }
}

/// A storage that the policy does not name (any more).
pub(in crate::job) fn unknown(name: &str) -> Failure {
    Failure {
        class: ErrorClass::Config,
        exit: ExitCode::Configuration,
        message: format!("the policy has no storage `{name}`"),
        remedy: Some(format!("Write `[storage.{name}]` again for as long as backups lie in it.")),
    }
}

fn no_space(storage: &str, free: u64, needed: u64) -> Failure {
    Failure {
        class: ErrorClass::Space,
        exit: ExitCode::NoSpace,
        message: format!("storage `{storage}` has {} free, the backup may take {}", size(free), size(needed)),
        remedy: Some("Free space there, keep fewer backups, or name another storage.".to_owned()),
    }
}

/// The first trouble decides what kind it is; all of them are told.
fn none_left(troubles: &[&Failure]) -> Option<Failure> {
    let (first, others) = troubles.split_first()?;
    let mut message = first.message.clone();
    others.iter().for_each(|other| message.push_str(&format!("; {}", other.message)));
    Some(Failure { message, ..(*first).clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(names: &[&str]) -> Places {
        let place = |name: &&str| Place {
            name: (*name).to_owned(),
            locks: *name == "s3",
            storage: None,
            trouble: None,
            left: None,
            made: Vec::new(),
        };
        Places(Mutex::new(names.iter().map(place).collect()))
    }

    #[test]
    fn one_that_fails_leaves_the_others_and_the_last_one_fails_all() {
        let places = places(&["local", "s3"]);
        places.fail("local", no_space("local", 1, 2));
        places.fail("local", unknown("local"));
        assert_eq!(places.some_left(), Ok(()));
        let at = DateTime::UNIX_EPOCH;
        let copies = places.copies(at, Some(at));
        let told: Vec<_> = copies.iter().map(|copy| (copy.state, copy.detail.as_deref(), copy.locked_until)).collect();
        let why = "storage `local` has 1 B free, the backup may take 2 B";
        assert_eq!(told, [(CopyState::Failed, Some(why), None), (CopyState::Good, None, Some(at))]);
        places.fail("s3", unknown("s3"));
        let failure = places.some_left().unwrap_err();
        assert_eq!((failure.exit, failure.class), (ExitCode::NoSpace, ErrorClass::Space));
        assert_eq!(failure.message, format!("{why}; the policy has no storage `s3`"));
    }

    #[test]
    fn only_what_this_run_made_is_its_to_remove() {
        let places = places(&["local", "alias"]);
        for storage in ["local", "alias"] {
            places.claim(storage, "shop/backup-1/shop.dump");
        }
        // The second name of one place: something is there already.
        places.disclaim("alias", "shop/backup-1/shop.dump");
        assert_eq!(places.made("local"), ["shop/backup-1/shop.dump"]);
        assert_eq!(places.made("alias"), Vec::<String>::new());
    }

    #[test]
    fn a_copy_that_could_not_be_cleaned_up_is_not_called_gone() {
        let places = places(&["local"]);
        places.fail("local", unknown("local"));
        places.left("local", "it is offline".to_owned());
        let copy = places.copies(DateTime::UNIX_EPOCH, None).remove(0);
        assert_eq!(copy.state, CopyState::Unknown);
        assert!(copy.detail.unwrap().ends_with("could not be removed: it is offline"));
    }
}
