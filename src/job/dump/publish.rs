//! The manifests: written last, to each storage whose files are good, and read back.
//!
//! From here on the backup can be found by anybody, so no wish to stop is heeded any more: it is a moment's work. A
//! newcomer would write one manifest for all; the commands in it name the place where it lies.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use super::{Work, leftover};
use crate::{
    dump,
    error::ExitCode,
    manifest::Manifest,
    record::{Backup, ErrorClass, Failure},
    storage::{self, Storage},
};

/// How long one storage may take for one small file.
const LIMIT: Duration = Duration::from_secs(300);

/// Writes the manifest to each storage that is left. One that fails loses its copy.
pub(super) async fn manifests(work: &Work<'_>, backup: &Backup) -> Result<(), Failure> {
    let storages = work.places.alive();
    let writing = storages.iter().map(|storage| async move {
        let written = tokio::time::timeout(LIMIT, manifest(work, storage, backup)).await;
        written.unwrap_or_else(|_| Err(silent(storage)))
    });
    for (storage, written) in storages.iter().zip(join_all(writing).await) {
        if let Err(failure) = written {
            work.places.fail(storage.name(), failure);
        }
    }
    work.places.some_left()
}

async fn manifest(work: &Work<'_>, storage: &Storage, backup: &Backup) -> Result<(), Failure> {
    let Some(dump) = &backup.dump else { return Ok(()) };
    let by_hand = dump::restore_by_hand(backup, &storage.locate(&dump.directory));
    let bytes = Manifest::new(backup.clone(), by_hand).write(work.recipe.sealer.as_ref());
    let path = dump.manifest_path();
    let mut upload = storage.create(&path, work.lock_until()).await?;
    if let Err(problem) = upload.write(Bytes::from(bytes.clone())).await {
        upload.discard().await;
        return Err(problem.into());
    }
    work.places.claim(storage.name(), &path);
    let finished = upload.finish().await;
    if matches!(finished, Err(storage::Error::Refused { .. })) {
        work.places.disclaim(storage.name(), &path);
    }
    finished?;
    if leftover::read(storage, &path).await? == bytes { Ok(()) } else { Err(altered(storage, &path)) }
}

fn altered(storage: &Storage, path: &str) -> Failure {
    Failure {
        class: ErrorClass::Integrity,
        exit: ExitCode::VerificationFailed,
        message: format!("`{}` is not what was written", storage.locate(path)),
        remedy: Some("The storage does not give back what was written: check its disks or its network.".to_owned()),
    }
}

fn silent(storage: &Storage) -> Failure {
    Failure {
        class: ErrorClass::Transient,
        exit: ExitCode::Storage,
        message: format!("storage `{}` did not take the manifest within {} s", storage.name(), LIMIT.as_secs()),
        remedy: Some("Look whether the storage answers.".to_owned()),
    }
}
