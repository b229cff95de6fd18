//! The way of a dump out of its storage into the scratch directory: decrypted, decompressed, every checksum compared.
//!
//! What is found wrong on the way is recorded of the copy, so that the next restore takes another one. A newcomer would
//! take a file that could not be read for a damaged one; a storage that does not answer says nothing about its content.

use std::{
    fs::{DirBuilder, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use super::{
    super::{
        Context, failure,
        steps::{Checked, Result},
        stopped,
    },
    plain_path,
};
use crate::{
    error::{ExitCode, chain},
    human,
    job::Progress,
    record::{Artifact, Backup, CopyState, Dump, ErrorClass, Failure},
    sandbox::Layout,
    storage::{self, Storage},
    stream::{self, Opener},
};

const DAMAGED: &str = "Make a new backup now; `backstop verify` tells which other copies are good.";

/// A copy of a dump, ready to be read.
pub(super) struct Source<'a> {
    backup: &'a Backup,
    dump: &'a Dump,
    storage: Storage,
    opener: Option<Opener>,
}

impl<'a> Source<'a> {
    /// Opens the storage, and the key where there is one.
    pub(super) async fn open(
        context: &Context,
        backup: &'a Backup,
        dump: &'a Dump,
        storage: &str,
    ) -> Result<Source<'a>> {
        let opener = opener(context, dump)?;
        let policy = context.policy.storages.get(storage).expect("only a storage of the policy is chosen");
        let storage = Storage::open_used(policy).await.map_err(Failure::from)?;
        let key = dump.encryption.as_ref().map_or_else(String::new, |key| format!(", opened by key `{}`", key.key));
        let (id, format, from) = (&backup.id, dump.format, backup.started_at.format("%Y-%m-%d %H:%M:%S UTC"));
        let detail = format!("{format} {id} of {from} in `{}`{key}", storage.name());
        Ok(Checked::passed(Source { backup, dump, storage, opener }, detail))
    }

    /// Fetches every file.
    pub(super) async fn fetch(&self, context: &Context, layout: &Layout) -> Result<()> {
        let mut done = 0;
        for artifact in &self.dump.artifacts {
            if let Err(error) = self.fetch_one(context, layout, artifact, done).await {
                let (failure, state) = explained(&artifact.name, self.storage.name(), error);
                self.remember(context, state, &failure.message).await;
                return Err(failure);
            }
            done += artifact.raw.size;
        }
        let (count, raw) = (self.dump.artifacts.len(), human::size(self.dump.raw_size()));
        let stored = human::size(self.dump.stored_size());
        Ok(Checked::passed((), format!("{count} files, {stored} stored, {raw} raw, every checksum right")))
    }

    async fn fetch_one(
        &self,
        context: &Context,
        layout: &Layout,
        artifact: &Artifact,
        done: u64,
    ) -> std::result::Result<(), stream::Error> {
        let outside = || stream::Error::Damaged(format!("`{}` is no name of a file of ours", artifact.name));
        let path = plain_path(&layout.work(), artifact, self.dump).ok_or_else(outside)?;
        let reader = self.storage.read(&self.dump.path(artifact)).await?;
        let file = create(&path).map_err(stream::Error::Write)?;
        let counted = Counted { file, progress: context.progress.clone(), done, total: self.dump.raw_size() };
        let (compression, opener) = (self.dump.compression, self.opener.as_ref());
        stream::extract(reader, artifact, compression, opener, counted, &context.stop).await
    }

    /// What the restore found out about the copy it read.
    async fn remember(&self, context: &Context, state: Option<CopyState>, detail: &str) {
        let Some(state) = state else { return };
        let mut copies = self.dump.copies.clone();
        for copy in copies.iter_mut().filter(|copy| copy.storage == self.storage.name()) {
            (copy.state, copy.detail, copy.checked_at) = (state, Some(detail.to_owned()), context.now());
        }
        if let Err(problem) = context.catalog.record_copies(&self.backup.id, &copies, None).await {
            tracing::warn!(run_id = context.run, error = %chain(&problem), "the state of a copy could not be recorded");
        }
    }
}

fn opener(context: &Context, dump: &Dump) -> std::result::Result<Option<Opener>, Failure> {
    let Some(encryption) = &dump.encryption else { return Ok(None) };
    let key = context.policy.keys.get(&encryption.key).ok_or_else(|| {
        let message =
            format!("the dump is encrypted with key `{0}`, and the policy has no `[encryption.{0}]`", encryption.key);
        let remedy = "Keep the sections of old keys in the policy as long as dumps need them.";
        Failure { exit: ExitCode::Configuration, ..failure(ErrorClass::Config, message, remedy) }
    })?;
    let identity = context.database().test_restore.identity.as_deref();
    Opener::of(key, identity).map(Some).map_err(Failure::from)
}

/// What went wrong, and what that says about the copy.
fn explained(name: &str, storage: &str, error: stream::Error) -> (Failure, Option<CopyState>) {
    use storage::Error::{Full, NotFound};
    let told = |class, message: String, remedy| failure(class, format!("`{name}` in `{storage}`: {message}"), remedy);
    match error {
        stream::Error::Stopped => (stopped(), None),
        stream::Error::Storage(missing @ NotFound { .. }) => {
            (told(ErrorClass::Integrity, chain(&missing), DAMAGED), Some(CopyState::Missing))
        }
        stream::Error::Storage(error) if !matches!(error, Full { .. }) => (error.into(), None),
        stream::Error::Key(error) => (error.into(), None),
        stream::Error::Write(source) if source.kind() == io::ErrorKind::StorageFull => {
            let remedy = "Free space, or set `daemon.scratch_dir` to a larger file system.";
            let failure = told(ErrorClass::Space, "the scratch directory is full".to_owned(), remedy);
            (Failure { exit: ExitCode::NoSpace, ..failure }, None)
        }
        error @ stream::Error::Write(_) => {
            (told(ErrorClass::Config, chain(&error), "Make `daemon.scratch_dir` writable for this user."), None)
        }
        // It names the file itself.
        stream::Error::Damaged(why) => {
            let message = format!("the copy in `{storage}` is damaged: {why}");
            (failure(ErrorClass::Integrity, message, DAMAGED), Some(CopyState::Damaged))
        }
        // A thread that could not be started says nothing about the copy; what is damaged was told above.
        error => (told(ErrorClass::Transient, chain(&error), "Look at the storage, then try again."), None),
    }
}

/// A new private file, with the directories that its name asks for.
fn create(path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

/// A file that tells how much of everything was written.
struct Counted {
    file: File,
    progress: Progress,
    done: u64,
    total: u64,
}

impl Counted {
    fn percent(&self) -> u64 {
        (self.done * 100).checked_div(self.total).unwrap_or(100)
    }
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        let before = self.percent();
        self.done += count as u64;
        if self.percent() > before {
            self.progress.at(self.percent() as f64);
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_wrong_is_told_apart_from_what_could_not_be_read() {
        let state = |error| explained("shop.dump.zst", "local", error).1;
        let missing = storage::Error::NotFound { storage: "local".into(), path: "shop/x".into() };
        assert_eq!(state(stream::Error::Storage(missing)), Some(CopyState::Missing));
        assert_eq!(state(stream::Error::Damaged("its checksum is another".into())), Some(CopyState::Damaged));
        assert_eq!(state(stream::Error::Write(io::ErrorKind::StorageFull.into())), None);
        assert_eq!(state(stream::Error::Stopped), None);
        let (failure, _) =
            explained("shop.dump.zst", "local", stream::Error::Damaged("its checksum is another".into()));
        insta::assert_snapshot!(failure.message, @"the copy in `local` is damaged: its checksum is another");
    }

    #[test]
    fn progress_counts_the_bytes_of_all_files() {
        let directory = tempfile::tempdir().unwrap();
        let file = create(&directory.path().join("parts/3.dat")).unwrap();
        let mut counted = Counted { file, progress: Progress::default(), done: 50, total: 100 };
        counted.write_all(&[0; 25]).unwrap();
        assert_eq!(counted.percent(), 75);
        counted.write_all(&[0; 25]).unwrap();
        assert_eq!(counted.percent(), 100);
        assert!(create(&directory.path().join("parts/3.dat")).is_err(), "a second file of the same name");
    }
}
