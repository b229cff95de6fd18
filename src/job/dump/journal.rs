//! What is being made now, written down before the first byte goes to a storage.
//!
//! An entry per backup under `state_dir/unfinished`, with the run and the storages that may hold something of it. It goes
//! when the backup is recorded, or when nothing of it is left. So whoever comes after a crash, or after a storage that
//! went away midway, knows exactly which directories are ours to remove. A newcomer would look for directories without
//! a manifest; another host may be writing one at this moment.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::{
    error::ExitCode,
    record::{DatabaseName, ErrorClass, Failure},
};

/// A backup that is being made, or was when its run died.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Its identity.
    pub(super) backup_id: String,
    /// The run that makes it.
    pub(super) run_uuid: String,
    /// The storages that may hold something of it.
    pub(super) storages: Vec<String>,
}

/// The unfinished backups of a database.
pub(super) struct Journal {
    directory: PathBuf,
}

impl Journal {
    /// The journal of a database.
    pub(super) fn of(state_dir: &Path, database: &DatabaseName) -> Self {
        Self { directory: state_dir.join("unfinished").join(database.as_str()) }
    }

    /// Writes an entry down so that it is there after a crash of the machine too.
    pub(super) fn write(&self, entry: &Entry) -> Result<(), Failure> {
        self.try_write(entry).map_err(|source| Failure {
            class: ErrorClass::Space,
            exit: ExitCode::Storage,
            message: format!("`{}` cannot be written: {source}", self.directory.display()),
            remedy: Some("Make room in, or mend the rights of, `state_dir`.".to_owned()),
        })
    }

    fn try_write(&self, entry: &Entry) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let (path, fresh) = (self.path(&entry.backup_id), self.directory.join("new"));
        let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(&fresh)?;
        file.write_all(&serde_json::to_vec(entry)?)?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        File::open(&self.directory)?.sync_all()
    }

    /// Forgets an entry. One that stays is looked at again and found to be done with.
    pub(super) fn forget(&self, backup_id: &str) {
        if let Err(error) = fs::remove_file(self.path(backup_id))
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(backup = backup_id, %error, "an entry of unfinished work cannot be removed");
        }
    }

    /// Everything that is unfinished, by identity. What cannot be read is passed over; a crash may have cut it.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let files = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let read = |file: fs::DirEntry| serde_json::from_slice::<Entry>(&fs::read(file.path()).ok()?).ok();
        let mut entries: Vec<Entry> = files.filter(|file| file.file_name() != "new").filter_map(read).collect();
        entries.retain(|entry| is_ours(&entry.backup_id));
        entries.sort_by(|a, b| a.backup_id.cmp(&b.backup_id));
        entries
    }

    fn path(&self, backup_id: &str) -> PathBuf {
        self.directory.join(format!("{backup_id}.json"))
    }
}

/// Whether it is an identity that we give out: what it names will be removed.
fn is_ours(id: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    id.starts_with("backup-") && id.len() >= "backup-YYYYMMDD-HHMMSS".len() && id.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str) -> Entry {
        Entry { backup_id: id.to_owned(), run_uuid: "uuid".to_owned(), storages: vec!["local".to_owned()] }
    }

    #[test]
    fn what_was_written_is_there_until_it_is_forgotten() {
        let state = tempfile::tempdir().unwrap();
        let journal = Journal::of(state.path(), &"shop".parse().unwrap());
        assert_eq!(journal.entries(), []);
        let (one, two) = (entry("backup-20260101-000000"), entry("backup-20260102-000000-pre"));
        journal.write(&two).unwrap();
        journal.write(&one).unwrap();
        assert_eq!(journal.entries(), [one.clone(), two]);
        let other = Journal::of(state.path(), &"stock".parse().unwrap());
        assert_eq!(other.entries(), []);
        journal.forget("backup-20260102-000000-pre");
        journal.forget("backup-20260102-000000-pre");
        assert_eq!(journal.entries(), [one]);
    }

    #[test]
    fn what_names_no_backup_of_ours_is_never_acted_upon() {
        for id in ["", "backup-", "../../etc", "backup-20260101-000000/..", "foreign-20260101-000000F"] {
            assert!(!is_ours(id), "{id}");
        }
        assert!(is_ours("backup-20260101-000000-2"));
        let state = tempfile::tempdir().unwrap();
        let journal = Journal::of(state.path(), &"shop".parse().unwrap());
        journal.write(&entry("backup-20260101-000000")).unwrap();
        fs::write(journal.directory.join("x.json"), serde_json::to_vec(&entry("..")).unwrap()).unwrap();
        fs::write(journal.directory.join("y.json"), "{").unwrap();
        assert_eq!(journal.entries().len(), 1);
    }
}
