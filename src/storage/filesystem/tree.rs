//! Directories below the root of a storage, opened one by one and never through a link.
//!
//! Each operation walks down from the root by open directories, so what somebody exchanges meanwhile is noticed and not
//! followed. A newcomer would join paths and open the result; a link in the middle leads that anywhere.

use std::{
    ffi::CString,
    fs::{File, Metadata},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, open, openat},
    sys::stat::{FileStat, Mode, SFlag, fstatat, mkdirat},
    unistd::{UnlinkatFlags, unlinkat},
};

use super::trust;
use crate::storage::Error;

/// What went wrong with a path.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The system says no.
    Io { path: PathBuf, source: io::Error },
    /// It is not what it should be.
    Untrusted { path: PathBuf, why: String },
}

impl Trouble {
    pub(super) fn io(path: &Path, source: impl Into<io::Error>) -> Self {
        Trouble::Io { path: path.to_owned(), source: source.into() }
    }

    pub(super) fn untrusted(path: &Path, why: impl Into<String>) -> Self {
        Trouble::Untrusted { path: path.to_owned(), why: why.into() }
    }

    /// Whether it is only that nothing is there.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Trouble::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// The error that people see.
    pub(super) fn of(self, storage: &str) -> Error {
        use io::ErrorKind::{
            AlreadyExists, FileTooLarge, NotADirectory, NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem,
            StorageFull,
        };
        let storage = storage.to_owned();
        let (path, source) = match self {
            Trouble::Untrusted { path, why } => return Error::Untrusted { path, why },
            Trouble::Io { path, source } => (path, source),
        };
        let shown = path.display();
        match source.kind() {
            StorageFull | QuotaExceeded => Error::Full { storage },
            NotFound => Error::Refused { storage, why: format!("`{shown}` is not there") },
            AlreadyExists => Error::Refused { storage, why: format!("`{shown}` is there already") },
            PermissionDenied | ReadOnlyFilesystem | FileTooLarge | NotADirectory => {
                Error::Refused { storage, why: format!("`{shown}`: {source}") }
            }
            _ => Error::Unreachable { storage, why: format!("`{shown}`: {source}") },
        }
    }
}

/// A directory that is open, with its path for messages.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) file: File,
    pub(super) path: PathBuf,
}

impl Directory {
    /// Opens the root, which was checked.
    pub(super) fn root(path: &Path) -> Result<Self, Trouble> {
        let opened = open(path, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
        Self::trusted(opened, path.to_owned(), true)
    }

    /// Walks down to a directory.
    pub(super) fn walk(root: &Path, parts: &[&str]) -> Result<Self, Trouble> {
        parts.iter().try_fold(Self::root(root)?, |directory, part| directory.enter(part))
    }

    /// The directories from the root down to the one named; each is made where it is missing.
    pub(super) fn make(root: &Path, parts: &[&str]) -> Result<Self, Trouble> {
        parts.iter().try_fold(Self::root(root)?, |directory, part| {
            match mkdirat(&directory.file, *part, Mode::S_IRWXU) {
                Ok(()) => directory.sync()?,
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(Trouble::io(&directory.path.join(part), errno)),
            }
            directory.enter(part)
        })
    }

    /// Opens a directory in this one.
    pub(super) fn enter(&self, name: &str) -> Result<Self, Trouble> {
        let path = self.path.join(name);
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(&self.file, name, flags, Mode::empty()) {
            // What Linux says of a link with these two flags.
            Err(Errno::ENOTDIR | Errno::ELOOP) => Err(Trouble::untrusted(&path, "it is a link or a file: remove it")),
            opened => Self::trusted(opened, path, false),
        }
    }

    fn trusted(opened: nix::Result<OwnedFd>, path: PathBuf, may_be_sticky: bool) -> Result<Self, Trouble> {
        let file = File::from(opened.map_err(|errno| Trouble::io(&path, errno))?);
        let found: Metadata = file.metadata().map_err(|source| Trouble::io(&path, source))?;
        match trust::directory(&found, may_be_sticky) {
            Some(why) => Err(Trouble::Untrusted { path, why }),
            None => Ok(Self { file, path }),
        }
    }

    /// Makes a file that must not be there, for us alone.
    pub(super) fn create(&self, name: &str) -> Result<File, Trouble> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let opened = openat(&self.file, name, flags, Mode::S_IRUSR | Mode::S_IWUSR);
        opened.map(File::from).map_err(|errno| Trouble::io(&self.path.join(name), errno))
    }

    /// Opens a regular file for reading.
    pub(super) fn open(&self, name: &str) -> Result<File, Trouble> {
        let path = self.path.join(name);
        // A pipe that somebody put there must not make us wait for a writer.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = match openat(&self.file, name, flags, Mode::empty()) {
            Err(Errno::ELOOP) => return Err(Trouble::untrusted(&path, "it is a symbolic link: remove it")),
            opened => File::from(opened.map_err(|errno| Trouble::io(&path, errno))?),
        };
        let found = file.metadata().map_err(|source| Trouble::io(&path, source))?;
        trust::file(&found).map_or(Ok(file), |why| Err(Trouble::Untrusted { path, why }))
    }

    /// What a name is, links not followed; none when there is nothing.
    pub(super) fn look(&self, name: &str) -> Result<Option<FileStat>, Trouble> {
        match fstatat(&self.file, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(Trouble::io(&self.path.join(name), errno)),
        }
    }

    /// Removes a file; false when there was none.
    pub(super) fn remove(&self, name: &str) -> Result<bool, Trouble> {
        self.unlink(name, UnlinkatFlags::NoRemoveDir)
    }

    /// Removes an empty directory; false when it is not empty or not there.
    pub(super) fn remove_directory(&self, name: &str) -> Result<bool, Trouble> {
        match self.unlink(name, UnlinkatFlags::RemoveDir) {
            Err(Trouble::Io { source, .. }) if source.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(false),
            // A file system is mounted there.
            Err(Trouble::Io { source, .. }) if source.kind() == io::ErrorKind::ResourceBusy => Ok(false),
            removed => removed,
        }
    }

    fn unlink(&self, name: &str, how: UnlinkatFlags) -> Result<bool, Trouble> {
        match unlinkat(&self.file, name, how) {
            Ok(()) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(Trouble::io(&self.path.join(name), errno)),
        }
    }

    /// Makes durable which names are in it.
    pub(super) fn sync(&self) -> Result<(), Trouble> {
        self.file.sync_all().map_err(|source| Trouble::io(&self.path, source))
    }

    /// The names in it, sorted, without those that are no text.
    pub(super) fn names(&self) -> Result<Vec<String>, Trouble> {
        let trouble = |errno: Errno| Trouble::io(&self.path, errno);
        let mut open = nix::dir::Dir::openat(&self.file, ".", OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(trouble)?;
        let entries: Result<Vec<CString>, Errno> =
            open.iter().map(|entry| entry.map(|entry| entry.file_name().to_owned())).collect();
        let mut names: Vec<String> =
            entries.map_err(trouble)?.into_iter().filter_map(|name| name.into_string().ok()).collect();
        names.retain(|name| name != "." && name != "..");
        names.sort_unstable();
        Ok(names)
    }
}

/// Removes the directories on a path that are empty now, from the last one up, never the root.
pub(super) fn remove_empty(root: &Path, parts: &[&str]) -> Result<(), Trouble> {
    for depth in (0..parts.len()).rev() {
        let parent = match Directory::walk(root, &parts[..depth]) {
            Err(trouble) if trouble.is_missing() => continue,
            parent => parent?,
        };
        if !parent.remove_directory(parts[depth])? && parent.look(parts[depth])?.is_some() {
            break;
        }
        parent.sync()?;
    }
    Ok(())
}

/// What kind of file a look found.
pub(super) fn kind(found: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits())
}
