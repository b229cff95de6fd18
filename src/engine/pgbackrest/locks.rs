//! pgBackRest's lock and stop files: where they are, and who holds a lock.
//!
//! The file stays after a crash and means nothing by itself; that it is locked is what `info` or exit code 50 tell. Its
//! content then says by whom. A stop file stops everything, `archive-push` included, and `info` is silent about it. A
//! newcomer would remove such a file; it is somebody's.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::record::RepoKey;

/// Who holds a lock, by the content of its file.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Holder {
    /// The process.
    pub pid: i32,
    /// How far its backup is, in hundredths of a percent; not said at once.
    #[serde(rename = "pctCplt")]
    hundredths: Option<u32>,
}

impl Holder {
    /// Reads the content of a lock file.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes);
        serde_json::from_str(text.lines().next()?).ok()
    }

    /// How far its backup is, 0 to 100.
    pub fn percent(self) -> Option<f64> {
        self.hundredths.map(|hundredths| f64::from(hundredths) / 100.0)
    }
}

/// The files that may hold the lock of a backup: one per stanza until 2.52, one per repository since.
pub fn lock_files(lock_path: &Path, stanza: &str, repo: RepoKey) -> [PathBuf; 2] {
    [format!("{stanza}-backup-{repo}.lock"), format!("{stanza}-backup.lock")].map(|name| lock_path.join(name))
}

/// The files by which `pgbackrest stop` stops a stanza, or all of them.
pub fn stop_files(lock_path: &Path, stanza: &str) -> [PathBuf; 2] {
    [format!("{stanza}.stop"), "all.stop".to_owned()].map(|name| lock_path.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_named() {
        let early = Holder::read(br#"{"execId":"402-6718ae82","pid":402}"#).unwrap();
        assert_eq!((early.pid, early.percent()), (402, None));
        let late = br#"{"execId":"29187-bd2c6e01","pctCplt":1560,"pid":29187,"sz":9,"szCplt":1}"#;
        assert_eq!(Holder::read(late).unwrap().percent(), Some(15.6));
        assert_eq!((Holder::read(b""), Holder::read(b"\xff{")), (None, None));
    }

    #[test]
    fn both_generations_of_lock_files_are_known() {
        let names = |files: [PathBuf; 2]| files.map(|file| file.display().to_string());
        let run = Path::new("/run/pgbackrest");
        let locks = ["/run/pgbackrest/main-backup-2.lock", "/run/pgbackrest/main-backup.lock"];
        assert_eq!(names(lock_files(run, "main", 2)), locks);
        assert_eq!(names(stop_files(run, "main")), ["/run/pgbackrest/main.stop", "/run/pgbackrest/all.stop"]);
    }
}
