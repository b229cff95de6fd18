//! A file that is being written: pieces are gathered, and one gathering is on its way to the disk while the next grows.
//!
//! A newcomer would leave the bytes to the kernel until the end; a gigabyte of dirty pages then waits for one fsync, and
//! has pushed the database's own pages out of memory.

use std::{
    fs::File,
    io::{self, IoSlice, Write},
    path::PathBuf,
};

use bytes::Bytes;
use nix::{
    errno::Errno,
    fcntl::{PosixFadviseAdvice, RenameFlags, posix_fadvise, renameat2},
    unistd::linkat,
};
use tokio::task::JoinHandle;

use super::{
    Filesystem, Site, borrowed, partial,
    tree::{self, Directory, Trouble},
};
use crate::storage::Error;

/// How much is gathered before it goes to the disk.
const GATHERED: usize = 1024 * 1024;
/// How often the kernel is told to begin writing.
const WRITE_BACK: u64 = 16 * 1024 * 1024;
/// How often the directory may vanish between its making and its use, because another upload is discarded in it.
const ATTEMPTS: usize = 10;

/// A file that is being written.
#[derive(Debug)]
pub(crate) struct Writing {
    filesystem: Filesystem,
    place: Place,
    pen: Pen,
    gathered: Vec<Bytes>,
    length: usize,
}

/// Where the file is, and will be.
#[derive(Debug)]
struct Place {
    directory: Directory,
    /// From the root; the last one is the file's.
    parts: Vec<String>,
}

/// The file with what is known of it.
#[derive(Debug)]
struct Sheet {
    file: File,
    written: u64,
    told: u64,
}

#[derive(Debug)]
enum Pen {
    Resting(Sheet),
    Busy(JoinHandle<io::Result<Sheet>>),
    Broken,
}

impl Writing {
    pub(super) async fn begin(filesystem: Filesystem, parts: Vec<String>) -> Result<Self, Error> {
        let (place, file) = filesystem
            .blocking(move |site| {
                let (directory, file) = begin(site, &parts)?;
                Ok((Place { directory, parts }, file))
            })
            .await?;
        let pen = Pen::Resting(Sheet { file, written: 0, told: 0 });
        Ok(Self { filesystem, place, pen, gathered: Vec::new(), length: 0 })
    }

    pub(crate) async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        self.length += bytes.len();
        self.gathered.push(bytes);
        if self.length >= GATHERED { self.hand_over().await } else { Ok(()) }
    }

    pub(crate) async fn finish(mut self) -> Result<(), Error> {
        let written = match self.hand_over().await {
            Ok(()) => self.rest().await,
            Err(error) => Err(error),
        };
        let sheet = match written {
            Ok(sheet) => sheet,
            Err(error) => {
                self.discard().await;
                return Err(error);
            }
        };
        let Self { filesystem, place, .. } = self;
        filesystem
            .blocking(move |site| {
                let finished = place.publish(&sheet.file);
                if finished.is_err() {
                    place.remove(site);
                }
                finished
            })
            .await
    }

    pub(crate) async fn discard(mut self) {
        // What is still on its way must not come after the removal.
        drop(self.rest().await);
        let Self { filesystem, place, .. } = self;
        // Nobody waits for an answer: what cannot be removed now is swept later.
        let _ = filesystem
            .blocking(move |site| {
                place.remove(site);
                Ok(())
            })
            .await;
    }

    /// Sends what was gathered on its way, once the one before has arrived.
    async fn hand_over(&mut self) -> Result<(), Error> {
        let mut sheet = self.rest().await?;
        let gathered = std::mem::take(&mut self.gathered);
        self.length = 0;
        self.pen = Pen::Busy(tokio::task::spawn_blocking(move || sheet.write(&gathered).map(|()| sheet)));
        Ok(())
    }

    /// Waits until nothing is on its way. May be dropped halfway: the pen stays busy then.
    async fn rest(&mut self) -> Result<Sheet, Error> {
        let done = match &mut self.pen {
            Pen::Busy(writing) => writing.await,
            _ => match std::mem::replace(&mut self.pen, Pen::Broken) {
                Pen::Resting(sheet) => return Ok(sheet),
                _ => return Err(self.failed(io::Error::other("an earlier write failed"))),
            },
        };
        self.pen = Pen::Broken;
        done.map_err(|_| self.filesystem.ended())?.map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> Error {
        Trouble::io(&self.place.path(), source).of(self.filesystem.name())
    }
}

/// Makes the directories and the hidden file.
fn begin(site: &Site, parts: &[String]) -> Result<(Directory, File), Trouble> {
    let (name, above) = parts.split_last().expect("a path has a part");
    let attempt = || {
        let directory = Directory::make(&site.root, &borrowed(above))?;
        if directory.look(name)?.is_some() {
            return Err(Trouble::io(&directory.path.join(name), Errno::EEXIST));
        }
        let file = directory.create(&partial(name))?;
        Ok((directory, file))
    };
    let mut begun = attempt();
    for _ in 1..ATTEMPTS {
        match &begun {
            Err(trouble) if trouble.is_missing() => begun = attempt(),
            _ => break,
        }
    }
    begun.inspect_err(|_| {
        // Directories that were made for it go again.
        let _ = tree::remove_empty(&site.root, &borrowed(above));
    })
}

impl Place {
    fn name(&self) -> &str {
        self.parts.last().expect("a path has a part")
    }

    fn path(&self) -> PathBuf {
        self.directory.path.join(self.name())
    }

    /// Content first, then the name, then that the name is there.
    fn publish(&self, file: &File) -> Result<(), Trouble> {
        file.sync_all().map_err(|source| Trouble::io(&self.path(), source))?;
        // So that reading it back asks the disk. Where the advice is not taken, memory answers.
        let _ = posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        self.rename().map_err(|errno| Trouble::io(&self.path(), errno))?;
        self.directory.sync().inspect_err(|_| {
            let _ = self.directory.remove(self.name());
        })
    }

    /// Gives it the final name, which must be free.
    fn rename(&self) -> nix::Result<()> {
        let (directory, hidden) = (&self.directory.file, partial(self.name()));
        match renameat2(directory, hidden.as_str(), directory, self.name(), RenameFlags::RENAME_NOREPLACE) {
            // Not every file system can do that, NFS for one; a second name that must be new does the same.
            Err(Errno::EINVAL | Errno::ENOSYS) => {
                linkat(directory, hidden.as_str(), directory, self.name(), nix::fcntl::AtFlags::empty())?;
                nix::unistd::unlinkat(directory, hidden.as_str(), nix::unistd::UnlinkatFlags::NoRemoveDir)
            }
            renamed => renamed,
        }
    }

    /// Removes the hidden file and the directories that are empty without it, as far as that is possible.
    fn remove(&self, site: &Site) {
        let _ = self.directory.remove(&partial(self.name()));
        let above = borrowed(&self.parts[..self.parts.len() - 1]);
        let _ = tree::remove_empty(&site.root, &above);
    }
}

impl Sheet {
    fn write(&mut self, gathered: &[Bytes]) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = gathered.iter().map(|bytes| IoSlice::new(bytes)).collect();
        let mut left = &mut slices[..];
        // Takes empty slices away: writing only those would look like a full disk.
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match self.file.write_vectored(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.written += count as u64;
                    IoSlice::advance_slices(&mut left, count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.write_back();
        Ok(())
    }

    /// Tells the kernel to begin writing what it holds, and to keep nothing of what is written.
    fn write_back(&mut self) {
        if self.written - self.told >= WRITE_BACK {
            // Pages that are written only now stay until they are told of again, hence from the beginning.
            let _ = posix_fadvise(&self.file, 0, self.written.cast_signed(), PosixFadviseAdvice::POSIX_FADV_DONTNEED);
            self.told = self.written;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::ExitCode, record::Failure};

    fn sheet(file: File) -> Sheet {
        Sheet { file, written: 0, told: 0 }
    }

    #[test]
    fn a_full_disk_is_told_as_such() {
        let mut full = sheet(File::options().write(true).open("/dev/full").unwrap());
        let source = full.write(&[Bytes::from_static(b"x")]).unwrap_err();
        let error = Trouble::io("/srv/x".as_ref(), source).of("near");
        assert!(matches!(error, Error::Full { .. }), "{error:?}");
        assert_eq!(Failure::from(error).exit, ExitCode::NoSpace);
        let quota = Trouble::io("/srv/x".as_ref(), Errno::EDQUOT).of("near");
        assert!(matches!(quota, Error::Full { .. }), "{quota:?}");
    }

    #[tokio::test]
    async fn a_write_that_fails_leaves_nothing_when_it_is_finished() {
        let root = tempfile::tempdir().unwrap();
        let filesystem = Filesystem::open("near", root.path()).await.unwrap();
        let mut writing = filesystem.create("shop/one/data").await.unwrap();
        writing.pen = Pen::Resting(sheet(File::options().write(true).open("/dev/full").unwrap()));
        writing.write(Bytes::from_static(&[7; GATHERED])).await.unwrap();
        let error = writing.finish().await.unwrap_err();
        assert!(matches!(error, Error::Full { .. }), "{error:?}");
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn empty_pieces_and_many_pieces_are_written_in_their_order() {
        let mut all = sheet(tempfile::tempfile().unwrap());
        let pieces: Vec<Bytes> =
            (0..3000).map(|n| if n % 3 == 0 { Bytes::new() } else { n.to_string().into() }).collect();
        all.write(&pieces).unwrap();
        let mut back = Vec::new();
        io::Seek::rewind(&mut all.file).unwrap();
        io::Read::read_to_end(&mut all.file, &mut back).unwrap();
        assert!(back == pieces.concat());
        assert_eq!(all.written, back.len() as u64);
    }
}
