//! A directory as storage: hidden name, fsync, rename, fsync of the directory; 0700 and 0600 whatever the umask.
//!
//! While a file is written it is `.NAME.partial` beside its final name, so the rename stays within one file system and a
//! crash leaves something that is recognised. What is read or written must belong to root or us at each step
//! (`trust.rs`), and links are never followed below the root (`tree.rs`).
//!
//! The first backup leaves a mark, `.backstop-storage`. Where the file system is not mounted, the empty mount point lacks
//! it; the caller knows from the catalog whether it should be there, and asks before anything is written. A newcomer would create the root when it is
//! missing, and then fill the disk below the mount point.

mod reading;
mod tree;
mod trust;
mod writing;

use std::{
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::sys::{stat::SFlag, statvfs::fstatvfs};

use self::tree::{Directory, Trouble};
pub(super) use self::{reading::Reading, writing::Writing};
use super::{Error, Stored, directory_parts, parts};

/// Says that the directory is ours.
pub(super) const MARK: &str = ".backstop-storage";
const MARK_TEXT: &str = "Backups by Backstop. Without this file it takes the directory for an empty mount point.\n";

/// A directory as storage.
#[derive(Debug, Clone)]
pub(super) struct Filesystem(Arc<Site>);

#[derive(Debug)]
struct Site {
    name: String,
    root: PathBuf,
}

impl Filesystem {
    pub(super) async fn open(name: &str, root: &Path) -> Result<Self, Error> {
        if !root.is_absolute() {
            let why = format!("`{}` is not absolute", root.display());
            return Err(Error::Refused { storage: name.to_owned(), why });
        }
        let filesystem = Self(Arc::new(Site { name: name.to_owned(), root: root.to_owned() }));
        filesystem.blocking(|site| trust::check(&site.root)).await?;
        Ok(filesystem)
    }

    pub(super) fn name(&self) -> &str {
        &self.0.name
    }

    pub(super) fn locate(&self, path: &str) -> String {
        self.0.root.join(path).display().to_string()
    }

    pub(super) async fn check(&self) -> Result<(), Error> {
        self.blocking(|site| try_out(&Directory::root(&site.root)?)).await
    }

    pub(super) async fn mark(&self) -> Result<(), Error> {
        self.blocking(|site| mark(&Directory::root(&site.root)?)).await
    }

    pub(super) async fn is_marked(&self) -> Result<bool, Error> {
        self.blocking(|site| Ok(Directory::root(&site.root)?.look(MARK)?.is_some())).await
    }

    pub(super) async fn free_space(&self) -> Result<u64, Error> {
        self.blocking(|site| {
            let root = Directory::root(&site.root)?;
            let found = fstatvfs(&root.file).map_err(|errno| Trouble::io(&site.root, errno))?;
            Ok(found.blocks_available() * found.fragment_size())
        })
        .await
    }

    pub(super) async fn create(&self, path: &str) -> Result<Writing, Error> {
        Writing::begin(self.clone(), own(&parts(self.name(), path)?)).await
    }

    pub(super) async fn read(&self, path: &str) -> Result<Reading, Error> {
        let wanted = own(&parts(self.name(), path)?);
        let opened = self
            .blocking(move |site| {
                let (name, above) = wanted.split_last().expect("a path has a part");
                let opened = Directory::walk(&site.root, &borrowed(above)).and_then(|directory| directory.open(name));
                match opened {
                    // Without its root nothing is known of what it holds.
                    Err(trouble) if trouble.is_missing() => Directory::root(&site.root).map(|_| None),
                    opened => opened.map(Some),
                }
            })
            .await?;
        let missing = || Error::NotFound { storage: self.name().to_owned(), path: path.to_owned() };
        Ok(Reading::of(self.clone(), path, opened.ok_or_else(missing)?))
    }

    pub(super) async fn list(&self, directory: &str) -> Result<Vec<Stored>, Error> {
        let below = own(&directory_parts(self.name(), directory)?);
        let mut found = self
            .blocking(move |site| {
                let mut found = Vec::new();
                if let Some(open) = existing(&site.root, &borrowed(&below))? {
                    list_below(&open, &below.join("/"), &mut found)?;
                }
                Ok(found)
            })
            .await?;
        found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    pub(super) async fn remove(&self, path: &str) -> Result<(), Error> {
        let wanted = own(&parts(self.name(), path)?);
        self.blocking(move |site| {
            let (name, above) = wanted.split_last().expect("a path has a part");
            let above = borrowed(above);
            if let Some(directory) = existing(&site.root, &above)?
                && directory.remove(name)?
            {
                directory.sync()?;
            }
            tree::remove_empty(&site.root, &above)
        })
        .await
    }

    pub(super) async fn sweep(&self, directory: &str) -> Result<u32, Error> {
        let below = own(&directory_parts(self.name(), directory)?);
        self.blocking(move |site| {
            let below = borrowed(&below);
            let Some(open) = existing(&site.root, &below)? else { return Ok(0) };
            let count = sweep_below(&open)?;
            tree::remove_empty(&site.root, &below)?;
            Ok(count)
        })
        .await
    }

    /// Does what may block on a thread that may.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Site) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, Error> {
        let site = Arc::clone(&self.0);
        match tokio::task::spawn_blocking(move || work(&site)).await {
            Ok(done) => done.map_err(|trouble| trouble.of(self.name())),
            Err(_) => Err(self.ended()),
        }
    }

    /// The program ends, and nobody works any more.
    fn ended(&self) -> Error {
        Error::Unreachable { storage: self.name().to_owned(), why: "the program ends".to_owned() }
    }
}

/// The hidden name of a file that is not whole.
fn partial(name: &str) -> String {
    format!(".{name}.partial")
}

fn is_partial(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(".partial")
}

fn own(parts: &[&str]) -> Vec<String> {
    parts.iter().map(|&part| part.to_owned()).collect()
}

fn borrowed(parts: &[String]) -> Vec<&str> {
    parts.iter().map(String::as_str).collect()
}

/// A directory below the root; none when it is not there. The root itself must be.
fn existing(root: &Path, below: &[&str]) -> Result<Option<Directory>, Trouble> {
    let start = Directory::root(root)?;
    match below.iter().try_fold(start, |directory, part| directory.enter(part)) {
        Err(trouble) if trouble.is_missing() => Ok(None),
        found => found.map(Some),
    }
}

/// Writes and reads back; what a crash leaves of it is swept like any other unfinished file.
fn try_out(root: &Directory) -> Result<(), Trouble> {
    let name = partial(&format!("check-{}", uuid::Uuid::now_v7()));
    let path = root.path.join(&name);
    let mut file = root.create(&name)?;
    let mut back = String::new();
    let tried = file
        .write_all(MARK_TEXT.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| file.seek(SeekFrom::Start(0)))
        .and_then(|_| file.read_to_string(&mut back));
    root.remove(&name)?;
    tried.map_err(|source| Trouble::io(&path, source))?;
    if back == MARK_TEXT { Ok(()) } else { Err(Trouble::io(&path, std::io::Error::other("it reads back wrong"))) }
}

fn mark(root: &Directory) -> Result<(), Trouble> {
    if root.look(MARK)?.is_some() {
        return Ok(());
    }
    let mut file = match root.create(MARK) {
        // Somebody else checks at the same time.
        Err(Trouble::Io { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        created => created?,
    };
    let written = file.write_all(MARK_TEXT.as_bytes()).and_then(|()| file.sync_all());
    written.map_err(|source| Trouble::io(&root.path.join(MARK), source))?;
    root.sync()
}

/// Only regular files count. What is hidden is not whole, or not ours; `lost+found` is the file system's.
fn list_below(directory: &Directory, path: &str, found: &mut Vec<Stored>) -> Result<(), Trouble> {
    for name in directory.names()?.into_iter().filter(|name| !name.starts_with('.') && name != "lost+found") {
        let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
        // It may be gone since its name was read.
        let Some(seen) = directory.look(&name)? else { continue };
        match tree::kind(&seen) {
            SFlag::S_IFREG => found.push(Stored { path, size: seen.st_size.unsigned_abs() }),
            SFlag::S_IFDIR => match directory.enter(&name) {
                Err(trouble) if trouble.is_missing() => {}
                below => list_below(&below?, &path, found)?,
            },
            _ => {}
        }
    }
    Ok(())
}

fn sweep_below(directory: &Directory) -> Result<u32, Trouble> {
    let mut count = 0;
    for name in directory.names()? {
        let Some(seen) = directory.look(&name)? else { continue };
        match tree::kind(&seen) {
            SFlag::S_IFREG if is_partial(&name) => count += u32::from(directory.remove(&name)?),
            SFlag::S_IFDIR if !name.starts_with('.') && name != "lost+found" => {
                let swept = sweep_below(&directory.enter(&name)?)?;
                // One that was empty before may be somebody's who begins just now; it is left alone.
                if swept > 0 {
                    directory.remove_directory(&name)?;
                }
                count += swept;
            }
            _ => {}
        }
    }
    if count > 0 {
        directory.sync()?;
    }
    Ok(count)
}
