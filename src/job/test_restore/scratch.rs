//! The scratch directory of one test restore, from its making to its end, also the end after a crash.
//!
//! It is marked by a file with the run's id. A newcomer would remove whatever lies below `scratch_dir`; only what bears
//! our mark is ours, and only while its run is dead.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::statvfs::statvfs;

use super::{
    Context, failure, listed,
    steps::{Checked, Result},
};
use crate::{
    error::ExitCode,
    process,
    record::{ErrorClass, Failure},
    sandbox::{Layout, nobody_names},
};

/// The file that makes a directory ours; it holds the run's id.
const MARKER: &str = "backstop-test-restore";
const PREFIX: &str = "tr-";
/// At least this share of its file system stays free.
const STAYS_FREE: f64 = 0.2;
/// How long processes that were told to end may take.
const GRACE: Duration = Duration::from_secs(10);

/// A scratch directory that exists. Dropping it removes it as well as can be done without waiting.
pub(super) struct Scratch {
    layout: Layout,
    is_removed: bool,
}

impl Scratch {
    /// Makes an empty one, far from everything that is production's.
    pub(super) async fn make(context: &Context, production: &[PathBuf]) -> Result<Scratch> {
        let root = resolved(&context.policy.daemon.scratch_dir);
        let path = root.join(directory_name(&context.run_uuid));
        let layout = Layout::new(&path)?;
        let touching: Vec<PathBuf> = production.iter().filter(|theirs| touch(&path, theirs)).cloned().collect();
        if !touching.is_empty() {
            let message =
                format!("the scratch directory `{}` touches production's {}", path.display(), listed(&touching));
            return Err(failure(ErrorClass::Config, message, "Set `daemon.scratch_dir` to a place of its own."));
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&root).map_err(|source| unusable(&root, &source))?;
        if marked_for(&path).is_some_and(|uuid| uuid == context.run_uuid) {
            // An earlier attempt of this very run could not clean up.
            clean(&path).await.map_err(|source| unusable(&path, &source))?;
        }
        let scratch = Scratch { layout, is_removed: false };
        populate(&scratch.layout, &context.run_uuid).map_err(|source| unusable(&path, &source))?;
        Ok(Checked::passed(scratch, path.display().to_string()))
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Removes it and looks whether it is really gone, with every process that knew it.
    pub(super) async fn remove(mut self) -> Result<()> {
        self.is_removed = true;
        let path = self.layout.root().to_owned();
        clean(&path).await.map_err(|source| {
            let message = format!("the scratch directory `{}` cannot be removed: {source}", path.display());
            failure(ErrorClass::Space, message, "Remove it by hand; it holds a copy of the database.")
        })?;
        Ok(Checked::passed((), "no process, no socket, no directory left"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.is_removed {
            let _ = fs::remove_dir_all(self.layout.root());
        }
    }
}

/// Whether so many bytes fit into it and leave enough for everybody else.
pub(super) fn check_space(layout: &Layout, needed: u64) -> Result<()> {
    let (free, total) = space(layout.root())?;
    if fits(needed, free, total) {
        return Ok(Checked::passed((), format!("{} MiB needed, {} MiB free", needed >> 20, free >> 20)));
    }
    let (needed, free, total) = (needed >> 20, free >> 20, total >> 20);
    let message =
        format!("{needed} MiB are needed and {free} of {total} MiB are free, of which a fifth must stay free");
    let remedy = "Free space, or set `daemon.scratch_dir` to a larger file system.";
    Err(Failure { exit: ExitCode::NoSpace, ..failure(ErrorClass::Space, message, remedy) })
}

fn space(path: &Path) -> std::result::Result<(u64, u64), Failure> {
    let unknown = |error| {
        let message = format!("the free space of `{}` cannot be told: {error}", path.display());
        failure(ErrorClass::Config, message, "Look at the file system of `daemon.scratch_dir`.")
    };
    let stat = statvfs(path).map_err(unknown)?;
    Ok((stat.blocks_available() * stat.fragment_size(), stat.blocks() * stat.fragment_size()))
}

fn fits(needed: u64, free: u64, total: u64) -> bool {
    free.checked_sub(needed).is_some_and(|left| left as f64 >= total as f64 * STAYS_FREE)
}

/// Ends what dead test restores left, and says what it found. `is_live` tells by its id whether a run still goes on.
pub async fn clean_scratch(scratch_dir: &Path, is_live: impl Fn(&str) -> bool) -> Vec<String> {
    // Processes know it by its real path.
    let entries = fs::read_dir(resolved(scratch_dir)).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    let directories: Vec<PathBuf> = ours.map(|entry| entry.path()).collect();
    let mut said = Vec::new();
    for path in directories {
        let Some(uuid) = marked_for(&path).filter(|uuid| !is_live(uuid)) else { continue };
        said.push(match clean(&path).await {
            Ok(()) => format!("`{}` of run {uuid} removed", path.display()),
            Err(error) => format!("`{}` of run {uuid} cannot be removed: {error}", path.display()),
        });
    }
    said
}

/// The last digits: the first ones of a version 7 id are the time, and two runs may begin in the same minute.
fn directory_name(run_uuid: &str) -> String {
    format!("{PREFIX}{}", &run_uuid[run_uuid.len().saturating_sub(8)..])
}

/// The real path, also of what does not exist yet: nothing is made before it is known to be far from production.
fn resolved(path: &Path) -> PathBuf {
    let existing = path.ancestors().find_map(|ancestor| Some((ancestor.canonicalize().ok()?, ancestor)));
    let resolved = existing.and_then(|(real, ancestor)| Some(real.join(path.strip_prefix(ancestor).ok()?)));
    resolved.unwrap_or_else(|| path.to_owned())
}

/// Whether one path is, holds, or lies within the other; `theirs` may be hidden from us.
fn touch(ours: &Path, theirs: &Path) -> bool {
    [theirs.to_owned(), resolved(theirs)].iter().any(|theirs| ours.starts_with(theirs) || theirs.starts_with(ours))
}

fn marked_for(path: &Path) -> Option<String> {
    let is_directory = path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
    let text = is_directory.then(|| fs::read_to_string(path.join(MARKER)))?.ok()?;
    Some(text.trim().to_owned()).filter(|uuid| !uuid.is_empty())
}

fn populate(layout: &Layout, run_uuid: &str) -> io::Result<()> {
    let private = |path: &Path| fs::DirBuilder::new().mode(0o700).create(path);
    private(layout.root())?;
    fs::write(layout.root().join(MARKER), run_uuid)?;
    layout.directories().iter().try_for_each(|directory| private(directory))
}

/// Ends every process that names the directory, then removes it. The marker goes last, so that a crash in between
/// leaves something that is still recognised.
async fn clean(path: &Path) -> io::Result<()> {
    let text = path.to_string_lossy();
    for left in process::find_by_argument(&text) {
        if process::is_alive(&left) {
            process::end_group(left.pgid, GRACE).await;
        }
    }
    if !nobody_names(path, GRACE).await {
        return Err(io::Error::other("a process in it does not end"));
    }
    let path = path.to_owned();
    let removed = tokio::task::spawn_blocking(move || remove_marked(&path)).await;
    removed.unwrap_or_else(|panic| Err(io::Error::other(panic)))
}

fn remove_marked(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false if entry.file_name() == MARKER => {}
            false => fs::remove_file(entry.path())?,
        }
    }
    fs::remove_dir_all(path)?;
    if path.symlink_metadata().is_ok() { Err(io::Error::other("it is still there")) } else { Ok(()) }
}

fn unusable(path: &Path, source: &io::Error) -> Failure {
    let class = if source.kind() == io::ErrorKind::StorageFull { ErrorClass::Space } else { ErrorClass::Config };
    let message = format!("the scratch directory `{}` cannot be used: {source}", path.display());
    failure(class, message, "Make `daemon.scratch_dir` writable for this user, or set another one.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::testing::eventually;

    fn marked(scratch: &Path, name: &str, uuid: &str) -> PathBuf {
        let path = scratch.join(name);
        populate(&Layout::new(&path).unwrap(), uuid).unwrap();
        path
    }

    #[tokio::test]
    async fn only_marked_directories_of_dead_runs_are_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let dead = marked(scratch.path(), "tr-dead", "uuid-dead");
        let live = marked(scratch.path(), "tr-live", "uuid-live");
        let other = marked(scratch.path(), "other", "uuid-dead");
        let unmarked = scratch.path().join("tr-unmarked");
        fs::create_dir(&unmarked).unwrap();
        let link = scratch.path().join("tr-link");
        std::os::unix::fs::symlink(&other, &link).unwrap();
        let said = clean_scratch(scratch.path(), |uuid| uuid == "uuid-live").await;
        assert_eq!(said, [format!("`{}` of run uuid-dead removed", dead.display())]);
        assert!(!dead.exists());
        assert!([live, other, unmarked, link].iter().all(|path| path.exists()));
    }

    #[tokio::test]
    async fn processes_of_a_dead_run_are_ended_before_their_directory_goes() {
        let scratch = tempfile::tempdir().unwrap();
        let dead = marked(scratch.path(), "tr-dead", "uuid-dead");
        let script = format!("sleep 600; : {}", dead.display());
        let command = process::Command::new("sh").args(["-c", &script]);
        let child = process::spawn(&command, &scratch.path().join("log")).unwrap();
        let identity = child.identity().clone();
        std::mem::forget(child);
        // A program that was started a moment ago has no command line yet.
        let path = dead.to_string_lossy().into_owned();
        eventually("it is visible", || !process::find_by_argument(&path).is_empty()).await;
        assert_eq!(clean_scratch(scratch.path(), |_| false).await.len(), 1);
        assert!(!process::group_is_alive(&identity) && !dead.exists());
    }

    #[tokio::test]
    async fn what_a_link_in_the_copy_points_to_is_not_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let production = tempfile::tempdir().unwrap();
        fs::write(production.path().join("precious"), "").unwrap();
        let dead = marked(scratch.path(), "tr-dead", "uuid-dead");
        std::os::unix::fs::symlink(production.path(), dead.join("data/16385")).unwrap();
        std::os::unix::fs::symlink(production.path(), dead.join("link")).unwrap();
        assert_eq!(clean_scratch(scratch.path(), |_| false).await.len(), 1);
        assert!(production.path().join("precious").exists() && !dead.exists());
    }

    #[test]
    fn production_and_scratch_do_not_touch() {
        let ours = Path::new("/var/lib/backstop/scratch/tr-1");
        for theirs in
            ["/var/lib/backstop", "/", "/var/lib/backstop/scratch/tr-1", "/var/lib/backstop/scratch/tr-1/data"]
        {
            assert!(touch(ours, Path::new(theirs)), "{theirs}");
        }
        assert!(!touch(ours, Path::new("/var/lib/postgresql/15/main")));
        assert!(!touch(ours, Path::new("/var/lib/backstop/scratch/tr-12")));
    }

    #[test]
    fn a_link_does_not_hide_that_scratch_lies_within_production() {
        let production = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let link = elsewhere.path().join("link");
        std::os::unix::fs::symlink(production.path(), &link).unwrap();
        let ours = resolved(&link.join("not/yet/there"));
        assert!(touch(&ours, production.path()) && touch(&ours, &link) && !touch(&ours, elsewhere.path()));
    }

    #[test]
    fn a_fifth_of_the_file_system_stays_free() {
        assert!(fits(600, 800, 1000));
        assert!(!fits(601, 800, 1000));
        assert!(!fits(900, 800, 1000));
    }

    #[test]
    fn runs_of_the_same_minute_have_directories_of_their_own() {
        let one = directory_name("0199a0b2-0000-7000-8000-00000000000a");
        assert_ne!(one, directory_name("0199a0b2-0000-7000-8000-00000000000b"));
        assert_eq!(one, "tr-0000000a");
    }
}
