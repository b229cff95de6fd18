//! The scratch directory of one dump: for what a tool cannot write to a pipe, and for files with passwords.
//!
//! It is named by the run, so that it can be removed after a crash by whoever settles the run. A newcomer would put it
//! below `/tmp`; what lies in it is a copy of the database, for its owner's eyes only.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use tracing::warn;

use crate::{
    error::ExitCode,
    record::{ErrorClass, Failure},
};

const PREFIX: &str = "dump-";

/// A private empty directory. Dropping it removes it.
pub(super) struct Scratch {
    path: PathBuf,
    is_removed: bool,
}

impl Scratch {
    /// Makes it; what an earlier attempt of the same run left goes first.
    pub(super) fn make(scratch_dir: &Path, run_uuid: &str) -> Result<Self, Failure> {
        let path = path(scratch_dir, run_uuid);
        let private = |recursive, path: &Path| fs::DirBuilder::new().recursive(recursive).mode(0o700).create(path);
        let made = remove(&path).and_then(|()| private(true, scratch_dir)).and_then(|()| private(false, &path));
        made.map_err(|source| unusable(&path, &source))?;
        Ok(Self { path, is_removed: false })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it and says so when that does not work.
    pub(super) fn remove(mut self) -> Result<(), Failure> {
        self.is_removed = true;
        remove(&self.path).map_err(|source| Failure {
            class: ErrorClass::Space,
            exit: ExitCode::Storage,
            message: format!("the scratch directory `{}` cannot be removed: {source}", self.path.display()),
            remedy: Some("Remove it by hand; it may hold a copy of the database.".to_owned()),
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.is_removed
            && let Err(error) = remove(&self.path)
        {
            warn!(path = %self.path.display(), %error, "a scratch directory cannot be removed");
        }
    }
}

/// Where the scratch directory of a run is, or was.
pub(super) fn path(scratch_dir: &Path, run_uuid: &str) -> PathBuf {
    scratch_dir.join(format!("{PREFIX}{run_uuid}"))
}

/// Removes a directory; it is no error when there is none.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Bytes in the files of a directory; what cannot be read counts for nothing.
pub(super) fn used(path: &Path) -> u64 {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => used(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.map(bytes).sum()
}

/// The files of a staged directory by their paths within it, in order.
pub(super) fn files(directory: &Path) -> Result<Vec<(String, PathBuf)>, Failure> {
    let mut found = Vec::new();
    collect(directory, "", &mut found).map_err(|source| unusable(directory, &source))?;
    found.sort();
    Ok(found)
}

fn collect(directory: &Path, prefix: &str, found: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().into_string().map_err(|name| io::Error::other(format!("{name:?} is no text")))?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            collect(&entry.path(), &format!("{prefix}{name}/"), found)?;
        } else if kind.is_file() {
            found.push((format!("{prefix}{name}"), entry.path()));
        } else {
            return Err(io::Error::other(format!("`{name}` is neither a file nor a directory")));
        }
    }
    Ok(())
}

/// A scratch directory that cannot be used.
pub(super) fn unusable(path: &Path, source: &io::Error) -> Failure {
    let (class, exit) = match source.kind() {
        io::ErrorKind::StorageFull => (ErrorClass::Space, ExitCode::NoSpace),
        _ => (ErrorClass::Config, ExitCode::Storage),
    };
    Failure {
        class,
        exit,
        message: format!("the scratch directory `{}` cannot be used: {source}", path.display()),
        remedy: Some("Make `daemon.scratch_dir` writable for this user, or set another one.".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_private_empty_and_gone_afterwards() {
        let root = tempfile::tempdir().unwrap();
        let left = path(root.path(), "uuid");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("half"), "of an earlier attempt").unwrap();
        let scratch = Scratch::make(root.path(), "uuid").unwrap();
        assert_eq!(scratch.path(), left);
        assert_eq!(fs::metadata(&left).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(used(&left), 0);
        scratch.remove().unwrap();
        assert!(!left.exists());
        drop(Scratch::make(root.path(), "uuid").unwrap());
        assert!(!left.exists(), "also when it was only dropped");
    }

    #[test]
    fn every_file_of_a_staged_directory_is_found_in_order() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("b")).unwrap();
        for (name, text) in [("toc.dat", "1"), ("b/2.dat", "22"), ("1.dat", "333")] {
            fs::write(root.path().join(name), text).unwrap();
        }
        let names: Vec<String> = files(root.path()).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["1.dat", "b/2.dat", "toc.dat"]);
        assert_eq!(used(root.path()), 6);
    }
}
