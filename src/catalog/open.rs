//! The doors of the catalog: for writing, and for reading beside a running daemon.
//!
//! `instance`, a small file beside the catalog, says that the directory had one. Without it a missing file means a first
//! start; with it, or with a copy, a loss. A newcomer would create an empty catalog wherever none is found; then retention would see a
//! repository full of strangers, and nobody would have been told. Nor may anyone open the file but SQLite: closing it
//! would end the locks that SQLite holds on it in this process.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use sqlx::{
    ConnectOptions, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use uuid::{NoContext, Timestamp, Uuid};

use super::{Catalog, Error, Inner, Result, copy, fields::millis, schema};

/// The catalog's file in a state directory.
pub(super) fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("catalog.db")
}

/// The file that says that the directory had a catalog, and of which instance.
pub(super) fn marker(state_dir: &Path) -> PathBuf {
    state_dir.join("instance")
}

/// Whether the directory ever had a catalog: its marker or a copy is there.
fn had_one(state_dir: &Path) -> bool {
    marker(state_dir).exists() || copy::list(state_dir).is_ok_and(|copies| !copies.is_empty())
}

/// The path of a file that SQLite keeps beside a database: `-wal` or `-shm`.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Whether some process has the file open, or died with it open.
pub(super) fn is_in_use(path: &Path) -> bool {
    beside(path, "-wal").exists() || beside(path, "-shm").exists()
}

/// Device and inode, the identity of a file whatever its name.
pub(super) fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// How long a connection waits for the lock of another.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Options that every connection has.
pub(super) fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("trusted_schema", "off")
        // The nightly copy is slow by nature; what is worth a line in the log is said by the caller.
        .disable_statement_logging()
}

impl Catalog {
    /// Opens the catalog for writing and brings its schema up to date.
    ///
    /// Creates it only where the directory never had one; see [`Catalog::open_or_recover`] for the daemon's door.
    pub async fn open(state_dir: &Path, now: DateTime<Utc>) -> Result<Catalog> {
        Self::open_or_create(state_dir, !had_one(state_dir), now).await
    }

    /// As [`Catalog::open`], where the caller knows whether an empty one may be made.
    pub(super) async fn open_or_create(state_dir: &Path, may_create: bool, now: DateTime<Utc>) -> Result<Catalog> {
        let path = file(state_dir);
        match fs::metadata(&path) {
            Ok(found) if found.len() == 0 && !may_create => return Err(Error::corrupt(&path, "it is empty")),
            Ok(_) => (),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::file("opening", &path, error)),
            Err(_) if !may_create => return Err(Error::Vanished { path }),
            Err(_) => match create_private(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(Error::file("creating", &path, error));
                }
                _ => (),
            },
        }
        keep_private(&path);
        let writer = connect_writer(&path).await?;
        match prepare(&writer, &path, may_create, now).await {
            Ok(instance) => {
                write_marker(state_dir, &instance)?;
                Ok(Self::over(state_dir, Some(writer)))
            }
            Err(error) => {
                // A handle that closes later would remove the `-wal` of whatever lies at the path by then.
                writer.close().await;
                Err(error)
            }
        }
    }

    /// Opens the catalog for reading. Creates and upgrades nothing; works beside a running daemon.
    pub async fn open_read_only(state_dir: &Path) -> Result<Catalog> {
        let path = file(state_dir);
        match fs::metadata(&path) {
            Ok(found) if found.len() > 0 => (),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::file("opening", &path, error)),
            _ if had_one(state_dir) => return Err(Error::Vanished { path }),
            _ => return Err(Error::Missing { path }),
        }
        let catalog = Self::over(state_dir, None);
        let known = schema::newest();
        match catalog.read("reading the schema", async |conn| schema::found(conn).await).await? {
            Some(found) if found > known => Err(Error::TooNew { path, found, known }),
            Some(found) if found < known => Err(Error::TooOld { path, found, known }),
            Some(_) => Ok(catalog),
            None => Err(Error::Missing { path }),
        }
    }

    fn over(state_dir: &Path, writer: Option<SqlitePool>) -> Self {
        let path = file(state_dir);
        let reader = options(&path).read_only(true);
        // `immutable` reads a file that nobody has open without the `-wal` and `-shm` that a reader would leave behind.
        let resting = writer.is_none().then(|| pool(2).connect_lazy_with(reader.clone().immutable(true)));
        let inner = Inner {
            state_dir: state_dir.to_owned(),
            identity: identity(&path),
            reader: pool(2).connect_lazy_with(reader),
            path,
            writer,
            resting,
        };
        Catalog { inner: Arc::new(inner) }
    }
}

/// Connections that stay: a pool with a time limit on any of them wakes up to look at it.
fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

/// How long we wait between two tries for a new catalog that another process is making.
const NEXT_TRY: Duration = Duration::from_millis(20);

/// Connects, and waits for a process that is making the same catalog at this moment.
///
/// The change of a new file to WAL takes all its locks, and SQLite refuses it at once instead of waiting where two
/// connections want it, since each would wait for the other: the busy timeout does not cover it.
async fn connect_writer(path: &Path) -> Result<SqlitePool> {
    let options = options(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("journal_size_limit", "67108864");
    let mut tries = BUSY_TIMEOUT.as_millis() / NEXT_TRY.as_millis();
    loop {
        match pool(1).connect_with(options.clone()).await.map_err(|source| Error::of("opening", path, source)) {
            Err(Error::Locked { .. }) if tries > 0 => {
                tries -= 1;
                tokio::time::sleep(NEXT_TRY).await;
            }
            ended => return ended,
        }
    }
}

/// Upgrades and checks the file; returns its instance.
///
/// One transaction from the look at the schema to the end: two processes that start at once upgrade once, and a file that
/// cannot be written shows it here.
async fn prepare(writer: &SqlitePool, path: &Path, may_create: bool, now: DateTime<Utc>) -> Result<String> {
    let failed = |source| Error::of("opening", path, source);
    let mut tx = writer.begin_with("begin immediate").await.map_err(failed)?;
    let (found, known) = (schema::found(&mut tx).await.map_err(failed)?, schema::newest());
    match found {
        Some(found) if found > known => return Err(Error::TooNew { path: path.to_owned(), found, known }),
        None if !may_create => return Err(Error::corrupt(path, "it has no tables")),
        _ => (),
    }
    if found != Some(known) {
        let migrated = schema::MIGRATOR.run_direct(None, &mut *tx, false).await;
        migrated.map_err(|source| Error::migration(path, source))?;
    }
    if let Some(why) = schema::damage(&mut tx, known).await.map_err(failed)? {
        return Err(Error::corrupt(path, why));
    }
    let instance = instance(&mut tx, now).await.map_err(failed)?;
    tx.commit().await.map_err(failed)?;
    Ok(instance)
}

/// The identity of this catalog, given at its birth.
async fn instance(conn: &mut SqliteConnection, now: DateTime<Utc>) -> sqlx::Result<String> {
    let seconds = u64::try_from(now.timestamp()).unwrap_or_default();
    let fresh = Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, now.timestamp_subsec_nanos()));
    let read = "select value from meta where name = 'instance'";
    if let Some(known) = sqlx::query_scalar(read).fetch_optional(&mut *conn).await? {
        return Ok(known);
    }
    sqlx::query("insert into meta (name, value) values ('instance', ?), ('created_at', ?) on conflict do nothing")
        .bind(fresh.to_string())
        .bind(millis(now).to_string())
        .execute(&mut *conn)
        .await?;
    sqlx::query_scalar(read).fetch_one(conn).await
}

/// Creates a file that only its owner can read; fails where one is.
pub(super) fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).read(true).create_new(true).mode(0o600).open(path)
}

/// Takes the rights of others away. SQLite gives `-wal` and `-shm` the mode of the database.
fn keep_private(path: &Path) {
    let mode = fs::metadata(path).map_or(0, |found| found.permissions().mode());
    if mode & 0o077 != 0
        && let Err(error) = fs::set_permissions(path, Permissions::from_mode(0o600))
    {
        tracing::warn!(path = %path.display(), %error, "cannot take the catalog's rights from others");
    }
}

/// Makes new names in a directory durable.
pub(super) fn sync_directory(directory: &Path) -> Result<()> {
    File::open(directory).and_then(|dir| dir.sync_all()).map_err(|error| Error::file("syncing", directory, error))
}

fn write_marker(state_dir: &Path, instance: &str) -> Result<()> {
    let marker = marker(state_dir);
    if fs::read_to_string(&marker).is_ok_and(|known| known.trim() == instance) {
        return Ok(());
    }
    let failed = |error| Error::file("writing", &marker, error);
    let fresh = beside(&marker, ".new");
    let mut options = OpenOptions::new();
    let mut open = options.write(true).create(true).truncate(true).mode(0o600).open(&fresh).map_err(failed)?;
    open.write_all(format!("{instance}\n").as_bytes()).and_then(|()| open.sync_all()).map_err(failed)?;
    fs::rename(&fresh, &marker).map_err(failed)?;
    sync_directory(state_dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::testing::{at, audit_something, catalog, new_run, open_second};

    #[tokio::test]
    async fn connections_are_durable_guarded_and_patient() {
        let (_dir, catalog) = catalog().await;
        let writer = catalog.inner.writer.as_ref().unwrap();
        for (pragma, expected) in [
            ("pragma journal_mode", "wal"),
            ("pragma synchronous", "2"),
            ("pragma foreign_keys", "1"),
            ("pragma trusted_schema", "0"),
            ("pragma busy_timeout", "5000"),
        ] {
            let row = sqlx::query(pragma).fetch_one(writer).await.unwrap();
            let found = sqlx::Row::try_get::<String, _>(&row, 0)
                .or_else(|_| sqlx::Row::try_get::<i64, _>(&row, 0).map(|n| n.to_string()))
                .unwrap();
            assert_eq!(found, expected, "{pragma}");
        }
        assert_eq!(writer.options().get_idle_timeout(), None);
        assert_eq!(catalog.inner.reader.options().get_max_lifetime(), None);
    }

    #[tokio::test]
    async fn only_the_owner_can_read_it() {
        let (dir, first) = catalog().await;
        audit_something(&first, "x").await.unwrap();
        for name in ["catalog.db", "catalog.db-wal", "catalog.db-shm", "instance"] {
            let mode = fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        first.close().await;
        fs::set_permissions(first.path(), Permissions::from_mode(0o644)).unwrap();
        let again = open_second(dir.path()).await;
        assert_eq!(fs::metadata(again.path()).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn what_was_returned_survives_a_process_that_dies() {
        let (dir, first) = catalog().await;
        let run = first.start_run(&new_run("orders/full", None)).await.unwrap();
        // A copy of the files as they lie, without any closing, is what a killed process leaves.
        let after = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(dir.path()).unwrap().flatten().filter(|e| e.path().is_file()) {
            fs::copy(entry.path(), after.path().join(entry.file_name())).unwrap();
        }
        let second = open_second(after.path()).await;
        assert_eq!(second.open_runs().await.unwrap().first().map(|open| open.run.id), Some(run));
    }

    #[tokio::test]
    async fn a_catalog_that_vanished_is_not_made_anew() {
        let (dir, first) = catalog().await;
        first.close().await;
        fs::remove_file(first.path()).unwrap();
        assert!(matches!(Catalog::open(dir.path(), at(0)).await, Err(Error::Vanished { .. })));
        assert!(matches!(Catalog::open_read_only(dir.path()).await, Err(Error::Vanished { .. })));
        File::create(first.path()).unwrap();
        assert!(
            matches!(Catalog::open(dir.path(), at(0)).await, Err(Error::Corrupt { .. })),
            "an empty file is a loss"
        );
    }

    #[tokio::test]
    async fn processes_that_start_at_once_make_one_catalog() {
        for _ in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            let opening = (0..8).map(|_| Catalog::open(dir.path(), at(0)));
            let catalogs = futures_util::future::join_all(opening).await;
            audit_something(catalogs[0].as_ref().unwrap(), "one").await.unwrap();
            for catalog in catalogs {
                assert_eq!(catalog.unwrap().audit_list(9).await.unwrap().len(), 1);
            }
        }
    }

    #[tokio::test]
    async fn a_file_that_is_replaced_while_it_is_open_is_noticed() {
        let (dir, first) = catalog().await;
        assert!(first.still_in_place());
        fs::rename(first.path(), dir.path().join("elsewhere")).unwrap();
        assert!(!first.still_in_place());
        File::create(first.path()).unwrap();
        assert!(!first.still_in_place());
    }

    #[tokio::test]
    async fn a_reader_does_not_wait_for_a_writer() {
        let (dir, first) = catalog().await;
        let mut held = first.inner.writer.as_ref().unwrap().begin_with("begin immediate").await.unwrap();
        sqlx::query("insert into meta values ('x', 'y')").execute(&mut *held).await.unwrap();
        let reader = Catalog::open_read_only(dir.path()).await.unwrap();
        assert_eq!(reader.open_runs().await.unwrap().len(), 0);
        let error = audit_something(&reader, "x").await.unwrap_err();
        assert!(matches!(error, Error::NotWritable { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn a_reader_leaves_no_file_behind_and_follows_a_daemon_that_starts() {
        let (dir, first) = catalog().await;
        first.close().await;
        let files = || fs::read_dir(dir.path()).unwrap().count();
        let before = files();
        let reader = Catalog::open_read_only(dir.path()).await.unwrap();
        assert_eq!(reader.open_runs().await.unwrap().len(), 0);
        assert_eq!(files(), before);
        let daemon = open_second(dir.path()).await;
        daemon.start_run(&new_run("orders/full", None)).await.unwrap();
        assert_eq!(reader.open_runs().await.unwrap().len(), 1, "it sees what is written after it was opened");
    }

    #[tokio::test]
    async fn a_directory_without_a_catalog_stays_empty_when_read() {
        let dir = tempfile::tempdir().unwrap();
        let opened = Catalog::open_read_only(dir.path()).await;
        assert!(matches!(opened, Err(Error::Missing { .. })), "{opened:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_state_directory_that_is_a_file_is_an_error_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        fs::write(&path, "").unwrap();
        let error = Catalog::open(&path, at(0)).await.unwrap_err();
        assert!(error.to_string().contains("state/catalog.db"), "{error}");
    }
}
