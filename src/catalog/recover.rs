//! What the daemon does when the catalog is damaged or gone, and the mode it is in afterwards.
//!
//! What is left moves aside, the newest copy that passes every check takes its place, else an empty one. Either way the
//! catalog is then in recovery mode: it may claim backups that are gone and miss backups that exist, so nothing is made
//! up for and nothing is deleted until a person accepts it. A newcomer would leave the old `-wal` where it is; SQLite
//! would read it into the restored file.

use std::{
    fs,
    io::{self, BufReader},
    path::{Path, PathBuf},
};

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{Catalog, Error, Result, audit, copy, fields, open};

/// How the daemon's door found the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// As it was left.
    Existing,
    /// The directory never had one; it was made.
    New,
    /// It was lost or damaged; it is in recovery mode now.
    Recovered {
        /// The copy that took its place; none: it is empty.
        from: Option<PathBuf>,
        /// What was wrong.
        why: String,
        /// Where the damaged file lies now; none: there was none.
        moved_to: Option<PathBuf>,
    },
}

/// Since when, and why, nothing is made up for and nothing is deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecoveryMode {
    /// When the catalog was recovered.
    pub since: DateTime<Utc>,
    /// What had happened to it.
    pub why: String,
}

impl Catalog {
    /// Opens the catalog for writing, whatever state it is in; the daemon's door.
    ///
    /// A schema that is too new, a full disk or missing rights are still errors: nothing would be better afterwards.
    pub async fn open_or_recover(state_dir: &Path, now: DateTime<Utc>) -> Result<(Catalog, Opened)> {
        let is_first = fs::metadata(open::file(state_dir)).map_or(true, |found| found.len() == 0);
        let had = fs::read_to_string(open::marker(state_dir)).ok();
        let why = match Self::open(state_dir, now).await {
            Ok(catalog) if is_first => return Ok((catalog, Opened::New)),
            Ok(catalog) => return catalog.unless_foreign(had, now).await,
            Err(error @ (Error::Corrupt { .. } | Error::Vanished { .. })) => crate::error::chain(&error),
            Err(error) => return Err(error),
        };
        let moved_to = move_aside(state_dir, now)?;
        let from = restore_newest(state_dir).await?;
        let catalog = Self::open_or_create(state_dir, from.is_none(), now).await?;
        catalog.enter_recovery(&why, now).await?;
        Ok((catalog, Opened::Recovered { from, why, moved_to }))
    }

    /// A catalog that a person put there from another instance is treated like a recovered one.
    async fn unless_foreign(self, had: Option<String>, now: DateTime<Utc>) -> Result<(Catalog, Opened)> {
        let is = fs::read_to_string(open::marker(&self.inner.state_dir)).ok();
        if had == is {
            return Ok((self, Opened::Existing));
        }
        let why = "it was replaced by the catalog of another instance".to_owned();
        self.enter_recovery(&why, now).await?;
        Ok((self, Opened::Recovered { from: None, why, moved_to: None }))
    }

    /// Since when and why the catalog is in recovery mode; none: it is not.
    pub async fn recovery_mode(&self) -> Result<Option<RecoveryMode>> {
        self.read("reading the recovery mode", async |conn| {
            let sql = "select s.value, w.value from meta s, meta w
                            where s.name = 'recovery_since' and w.name = 'recovery_why'";
            let found: Option<(String, String)> = sqlx::query_as(sql).fetch_optional(conn).await?;
            let Some((since, why)) = found else { return Ok(None) };
            let since = since.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
            Ok(Some(RecoveryMode { since: fields::moment(since)?, why }))
        })
        .await
    }

    /// Ends recovery mode: `who` looked at the catalog and takes it as it is. False where there was nothing to accept.
    pub async fn accept(&self, now: DateTime<Utc>, who: &str) -> Result<bool> {
        self.write("accepting the catalog", async |conn| {
            let sql = "delete from meta where name in ('recovery_since', 'recovery_why')";
            let ended = sqlx::query(sql).execute(&mut *conn).await?.rows_affected() > 0;
            if ended {
                audit::append(conn, who, "accept", "catalog", "recovery mode ended", now).await?;
            }
            Ok(ended)
        })
        .await
    }

    /// Enters recovery mode: this catalog knows less than there was.
    pub async fn enter_recovery(&self, why: &str, now: DateTime<Utc>) -> Result<()> {
        self.write("entering recovery mode", async |conn| {
            sqlx::query(
                "insert into meta (name, value) values ('recovery_since', ?), ('recovery_why', ?)
                     on conflict (name) do update set value = excluded.value",
            )
            .bind(fields::millis(now).to_string())
            .bind(why)
            .execute(&mut *conn)
            .await?;
            audit::append(conn, "daemon", "recover", "catalog", why, now).await?;
            Ok(())
        })
        .await
    }
}

/// Moves the file with its `-wal` and `-shm` to a name at which SQLite still reads all three together.
fn move_aside(state_dir: &Path, now: DateTime<Utc>) -> Result<Option<PathBuf>> {
    let path = open::file(state_dir);
    let stamp = now.format("%Y%m%d-%H%M%S");
    let free = |n: &u32| !state_dir.join(format!("catalog-damaged-{stamp}-{n}.db")).exists();
    let number = (1..).find(free).expect("numbers do not end before free names do");
    let target = state_dir.join(format!("catalog-damaged-{stamp}-{number}.db"));
    let mut moved = None;
    for suffix in ["", "-wal", "-shm"] {
        match fs::rename(open::beside(&path, suffix), open::beside(&target, suffix)) {
            Ok(()) if suffix.is_empty() => moved = Some(target.clone()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::file("moving aside", &open::beside(&path, suffix), error));
            }
            _ => (),
        }
    }
    open::sync_directory(state_dir)?;
    Ok(moved)
}

/// Puts the newest copy that passes every check in the catalog's place; the copy itself stays.
async fn restore_newest(state_dir: &Path) -> Result<Option<PathBuf>> {
    let fresh = state_dir.join("catalog.restoring");
    for candidate in copy::list(state_dir)?.into_iter().rev() {
        remove_if_there(&fresh)?;
        unpack(&candidate, &fresh).map_err(|error| Error::file("unpacking", &candidate, error))?;
        match copy::check(&fresh).await {
            Ok(()) => {
                let path = open::file(state_dir);
                fs::rename(&fresh, &path).map_err(|error| Error::file("restoring", &path, error))?;
                open::sync_directory(state_dir)?;
                return Ok(Some(candidate));
            }
            Err(error) => {
                tracing::warn!(copy = %candidate.display(), error = crate::error::chain(&error), "copy unfit")
            }
        }
    }
    remove_if_there(&fresh)?;
    Ok(None)
}

/// A copy that cannot be read to its end leaves a file that fails its check.
fn unpack(from: &Path, to: &Path) -> io::Result<()> {
    let mut target = open::create_private(to)?;
    let mut source = flate2::bufread::GzDecoder::new(BufReader::new(fs::File::open(from)?));
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    match io::copy(&mut source, &mut target) {
        Err(error) if matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof) => target.set_len(0)?,
        unpacked => drop(unpacked?),
    }
    target.sync_all()
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file("removing", path, error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::testing::{at, audit_something, catalog, new_run, open_second};

    #[tokio::test]
    async fn a_first_start_is_new_and_a_second_finds_it() {
        let dir = tempfile::tempdir().unwrap();
        let (first, opened) = Catalog::open_or_recover(dir.path(), at(0)).await.unwrap();
        assert_eq!(opened, Opened::New);
        first.close().await;
        let (second, opened) = Catalog::open_or_recover(dir.path(), at(1)).await.unwrap();
        assert_eq!(opened, Opened::Existing);
        assert_eq!(second.recovery_mode().await.unwrap(), None);
        assert!(!second.accept(at(2), "ada").await.unwrap(), "there is nothing to accept");
    }

    #[tokio::test]
    async fn a_damaged_catalog_moves_aside_and_the_newest_good_copy_takes_its_place() {
        let (dir, first) = catalog().await;
        let run = first.start_run(&new_run("orders/full", None)).await.unwrap();
        let good = first.copy(at(100), 7).await.unwrap();
        let bad = first.copy(at(200), 7).await.unwrap();
        fs::write(&bad, "no gzip").unwrap();
        // A `-wal` with later changes stays beside the damaged file, as after a crash.
        let writer = first.inner.writer.as_ref().unwrap();
        sqlx::query("pragma wal_checkpoint(truncate)").execute(writer).await.unwrap();
        first.start_run(&new_run("orders/diff", None)).await.unwrap();
        let wal = fs::read(open::beside(first.path(), "-wal")).unwrap();
        first.close().await;
        fs::write(first.path(), "x".repeat(8192)).unwrap();
        fs::write(open::beside(first.path(), "-wal"), &wal).unwrap();

        let (catalog, opened) = Catalog::open_or_recover(dir.path(), at(300)).await.unwrap();
        let Opened::Recovered { from, why, moved_to } = opened else { panic!("{opened:?}") };
        assert_eq!(from, Some(good));
        assert!(why.contains("file is not a database"), "{why}");
        let moved_to = moved_to.unwrap();
        assert_eq!(fs::read(&moved_to).unwrap(), "x".repeat(8192).as_bytes());
        assert_eq!(fs::read(open::beside(&moved_to, "-wal")).unwrap(), wal);
        let runs: Vec<_> = catalog.open_runs().await.unwrap().into_iter().map(|open| open.run.id).collect();
        assert_eq!(runs, [run], "the copy's content, nothing of the old `-wal`");
        assert_eq!(catalog.recovery_mode().await.unwrap(), Some(RecoveryMode { since: at(300), why }));
        assert!(catalog.accept(at(400), "ada").await.unwrap());
        assert_eq!(catalog.recovery_mode().await.unwrap(), None);
        let last = catalog.audit_list(1).await.unwrap().remove(0);
        assert_eq!((last.actor.as_str(), last.action.as_str()), ("ada", "accept"));
    }

    #[tokio::test]
    async fn a_vanished_catalog_without_copies_is_empty_and_in_recovery_mode() {
        let (dir, first) = catalog().await;
        first.close().await;
        fs::remove_file(first.path()).unwrap();
        let (second, opened) = Catalog::open_or_recover(dir.path(), at(300)).await.unwrap();
        assert!(matches!(&opened, Opened::Recovered { from: None, moved_to: None, .. }), "{opened:?}");
        assert!(second.recovery_mode().await.unwrap().unwrap().why.contains("is gone"));
        second.close().await;
        let (third, opened) = Catalog::open_or_recover(dir.path(), at(400)).await.unwrap();
        assert_eq!(opened, Opened::Existing);
        assert_eq!(third.recovery_mode().await.unwrap().unwrap().since, at(300), "it stays until accepted");
    }

    #[tokio::test]
    async fn the_catalog_of_another_instance_is_not_trusted() {
        let (dir, first) = catalog().await;
        let (_elsewhere, other) = catalog().await;
        audit_something(&other, "elsewhere").await.unwrap();
        first.close().await;
        other.close().await;
        fs::copy(other.path(), first.path()).unwrap();
        let (_, opened) = Catalog::open_or_recover(dir.path(), at(300)).await.unwrap();
        assert!(matches!(opened, Opened::Recovered { .. }), "{opened:?}");
    }

    #[tokio::test]
    async fn a_damaged_copy_never_replaces_anything() {
        let (dir, first) = catalog().await;
        let bad = first.copy(at(100), 7).await.unwrap();
        fs::write(&bad, "no gzip").unwrap();
        first.close().await;
        fs::write(first.path(), "x".repeat(8192)).unwrap();
        let (_, opened) = Catalog::open_or_recover(dir.path(), at(300)).await.unwrap();
        assert!(matches!(opened, Opened::Recovered { from: None, moved_to: Some(_), .. }), "{opened:?}");
        let _ = open_second(dir.path()).await;
    }
}
