//! The nightly copy of the catalog, from which it is restored when it is lost.
//!
//! `vacuum into` writes a consistent, compact file while everyone goes on; it is checked page by page before it is packed
//! and counted. Names carry a running number, because the newest copy must be known even when the clock was wrong. A
//! newcomer would copy the file itself; beside a writer that gives a file that no moment ever saw.

use std::{
    fs,
    io::{self, BufReader, Write},
    path::{Path, PathBuf},
};

use chrono::{DateTime, Utc};
use flate2::{Compression, write::GzEncoder};
use sqlx::{ConnectOptions, Connection, SqliteConnection};

use super::{Catalog, Error, Result, open, schema};

impl Catalog {
    /// Copies the catalog into `catalog-copies/`, checks the copy, and keeps the `keep` newest; at least this one.
    pub async fn copy(&self, now: DateTime<Utc>, keep: usize) -> Result<PathBuf> {
        let state_dir = &self.inner.state_dir;
        let directory = directory(state_dir);
        fs::create_dir_all(&directory).map_err(|error| Error::file("creating", &directory, error))?;
        let known = list(state_dir)?;
        let number = known.iter().filter_map(|path| number(path)).max().unwrap_or_default() + 1;
        let target = directory.join(format!("catalog-{number:06}-{}.db.gz", now.format("%Y%m%d-%H%M%S")));
        let plain = Scratch(directory.join("copying.db"));
        let packed = Scratch(directory.join("copying.db.gz"));
        self.copy_into(&plain).await?;
        check(&plain.0).await?;
        let packing = tokio::task::spawn_blocking(move || pack(&plain.0, packed));
        let packed = packing.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        fs::rename(&packed.0, &target).map_err(|error| Error::file("publishing", &target, error))?;
        open::sync_directory(&directory)?;
        let surplus = (known.len() + 1).saturating_sub(keep.max(1));
        for old in known.iter().take(surplus) {
            fs::remove_file(old).map_err(|error| Error::file("removing", old, error))?;
        }
        Ok(target)
    }

    async fn copy_into(&self, plain: &Scratch) -> Result<()> {
        plain.clear().map_err(|error| Error::file("removing", &plain.0, error))?;
        drop(open::create_private(&plain.0).map_err(|error| Error::file("creating", &plain.0, error))?);
        let failed = |source| Error::of("copying", &self.inner.path, source);
        // A connection of its own: what it caches is given back at once.
        let mut conn = open::options(&self.inner.path).read_only(true).connect().await.map_err(failed)?;
        let target = plain.0.to_string_lossy().into_owned();
        let copied = sqlx::query("vacuum into ?").bind(target).execute(&mut conn).await;
        conn.close().await.map_err(failed)?;
        copied.map(drop).map_err(failed)
    }
}

/// A file that goes when it is no longer needed, also after an error.
struct Scratch(PathBuf);

impl Scratch {
    fn clear(&self) -> io::Result<()> {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = self.clear();
    }
}

/// Where the copies lie.
fn directory(state_dir: &Path) -> PathBuf {
    state_dir.join("catalog-copies")
}

/// Every copy, the newest last.
pub(super) fn list(state_dir: &Path) -> Result<Vec<PathBuf>> {
    let directory = directory(state_dir);
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| Error::file("listing", &directory, error))?,
    };
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|p| number(p).is_some()).collect();
    found.sort_by_key(|path| number(path));
    Ok(found)
}

/// The running number in a copy's name; none for a file that is no copy.
fn number(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    name.strip_suffix(".db.gz")?.strip_prefix("catalog-")?.split('-').next()?.parse().ok()
}

/// Checks every page and index of a file that nobody else has open.
pub(super) async fn check(path: &Path) -> Result<()> {
    let failed = |source| Error::of("checking", path, source);
    let mut conn = open::options(path).read_only(true).immutable(true).connect().await.map_err(failed)?;
    let checked = check_content(&mut conn, path).await;
    conn.close().await.map_err(failed)?;
    checked
}

async fn check_content(conn: &mut SqliteConnection, path: &Path) -> Result<()> {
    let failed = |source| Error::of("checking", path, source);
    let known = schema::newest();
    let found = match schema::found(conn).await.map_err(failed)? {
        Some(found) if found > known => return Err(Error::TooNew { path: path.to_owned(), found, known }),
        Some(found) => found,
        None => return Err(Error::corrupt(path, "it has no tables")),
    };
    let verdicts: Vec<String> =
        sqlx::query_scalar("pragma integrity_check(10)").fetch_all(&mut *conn).await.map_err(failed)?;
    if verdicts != ["ok"] {
        return Err(Error::corrupt(path, verdicts.join("; ")));
    }
    match schema::damage(conn, found).await.map_err(failed)? {
        Some(why) => Err(Error::corrupt(path, why)),
        None => Ok(()),
    }
}

fn pack(plain: &Path, packed: Scratch) -> Result<Scratch> {
    let failed = |error| Error::file("packing", &packed.0, error);
    packed.clear().map_err(failed)?;
    let mut encoder = GzEncoder::new(open::create_private(&packed.0).map_err(failed)?, Compression::new(3));
    let mut source = BufReader::new(fs::File::open(plain).map_err(failed)?);
    io::copy(&mut source, &mut encoder).map_err(failed)?;
    let mut file = encoder.finish().map_err(failed)?;
    file.flush().and_then(|()| file.sync_all()).map_err(failed)?;
    Ok(packed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::catalog::testing::{at, audit_something, catalog};

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(directory(dir)).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn the_newest_copies_stay_by_number_even_when_the_clock_went_back() {
        let (dir, catalog) = catalog().await;
        for time in [1_000_000, 2_000_000_000, 1_100_000, 1_200_000] {
            catalog.copy(at(time), 2).await.unwrap();
        }
        assert_eq!(names(dir.path()), ["catalog-000003-20260114-173320.db.gz", "catalog-000004-20260115-212000.db.gz"]);
    }

    #[tokio::test]
    async fn a_copy_is_private_and_whole_while_others_write() {
        let (dir, catalog) = catalog().await;
        let writing = async {
            for n in 0..50 {
                audit_something(&catalog, &n.to_string()).await.unwrap();
            }
        };
        let (copied, ()) = tokio::join!(catalog.copy(at(0), 3), writing);
        let path = copied.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(names(dir.path()).len(), 1, "nothing else is left behind");
    }

    #[tokio::test]
    async fn damage_inside_the_catalog_stops_the_copy_and_older_ones_stay() {
        let (dir, catalog) = catalog().await;
        for n in 0..200 {
            audit_something(&catalog, &format!("{n} {}", "x".repeat(200))).await.unwrap();
        }
        catalog.copy(at(0), 1).await.unwrap();
        catalog.close().await;
        let mut bytes = fs::read(catalog.path()).unwrap();
        let middle = bytes.windows(7).rposition(|w| w == b"199 xxx").unwrap();
        let page = middle / 4096 * 4096;
        bytes[page..page + 64].fill(0xff);
        fs::write(catalog.path(), bytes).unwrap();
        let again = Catalog::open(dir.path(), at(1)).await.unwrap();
        let error = again.copy(at(2), 1).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
        assert_eq!(names(dir.path()).len(), 1);
    }
}
