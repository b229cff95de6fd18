//! Copies of real files, with what goes wrong on real ones.

use std::{
    fs::File,
    os::unix::fs::{FileExt, PermissionsExt},
};

use sqlx::{Connection, Executor, SqliteConnection, sqlite::SqliteConnectOptions};

use super::*;
use crate::{
    policy::Policy,
    process::{Captured, capture},
    record::EngineKind,
};

const BUSY: Duration = Duration::from_millis(200);

/// A database `shop` on a file in a directory with an odd name.
struct Shop {
    directory: tempfile::TempDir,
    scratch: tempfile::TempDir,
    file: PathBuf,
}

impl Shop {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let odd = directory.path().join("it's \"a\" b?c#d%41;é");
        fs::create_dir(&odd).unwrap();
        Self { directory, scratch: tempfile::tempdir().unwrap(), file: odd.join("-my shop.db") }
    }

    /// A file with what `sql` makes of it.
    async fn with(sql: &str) -> Self {
        let shop = Self::new();
        let mut open = shop.connect().await;
        open.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
        // Dropping it would close the file some time later.
        open.close().await.unwrap();
        shop
    }

    async fn connect(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(&self.file).create_if_missing(true).foreign_keys(false);
        SqliteConnection::connect_with(&options.busy_timeout(Duration::from_secs(30))).await.unwrap()
    }

    fn engine(&self) -> Sqlite {
        let text = "[database.shop]\nenvironment = \"staging\"\n".to_owned();
        let mut policy = Policy::parse(vec![("p.toml".into(), text)]).unwrap();
        let mut database = policy.databases.pop_first().unwrap().1;
        database.engine = EngineKind::Sqlite;
        database.dump.sqlite = crate::policy::Sqlite { path: self.file.clone(), busy_timeout: BUSY };
        Sqlite::of(&database).unwrap()
    }

    async fn look(&self) -> Result<Source, Failure> {
        self.engine().look(&Stop::never()).await
    }

    fn making(&self, source: &Source) -> Making {
        self.engine().makings(source, self.scratch.path()).unwrap().remove(0)
    }

    async fn copy(&self, source: &Source) -> Captured {
        capture(&self.making(source).command, &Stop::never()).await.unwrap()
    }

    async fn check(&self, source: &Source) -> Result<Vec<String>, Failure> {
        self.engine().check_staged(source, &self.making(source), &Stop::never()).await
    }

    /// Looks, copies and checks; what comes first fails it.
    async fn dump(&self) -> Result<Source, Failure> {
        let source = self.look().await?;
        let answer = self.copy(&source).await;
        if !answer.ok() {
            let tail: Vec<String> = answer.stderr.lines().map(str::to_owned).collect();
            return Err(self.engine().explain(Role::Data, &answer.ending, &tail));
        }
        let warnings = self.check(&source).await?;
        Ok(Source { warnings: [source.warnings.clone(), warnings].concat(), ..source })
    }

    /// Asks the copy.
    async fn ask(&self, sql: &str) -> Vec<Vec<String>> {
        Client::of_copy(Path::new("sqlite3"), &self.scratch.path().join(sqlite::COPY)).query(sql).await.unwrap()
    }
}

const TABLES: &str = "create table t (id integer primary key, x blob); \
    create table no_key (name text); create index i on no_key (name); \
    create table _sqlx_migrations (version bigint, description text, installed_on, success bool, checksum blob); \
    insert into _sqlx_migrations values (1, 'first', '', 1, '')";

/// 4 MB in 4000 rows.
const FILL: &str = "with recursive n (i) as (select 1 union all select i + 1 from n where i < 4000) \
    insert into t (x) select randomblob(1000) from n";

#[tokio::test]
async fn a_file_with_an_odd_name_is_copied_page_by_page() {
    let shop =
        Shop::with(&format!("{TABLES}; insert into no_key (rowid, name) values (7, 'seven'), (9, 'nine')")).await;
    let source = shop.dump().await.unwrap();
    assert_eq!(source.size, fs::metadata(&shop.file).unwrap().len());
    assert!(source.server.starts_with("SQLite 3."), "{source:?}");
    assert_eq!(source.source, shop.file.display().to_string());
    let migrations = source.migrations.as_ref().unwrap();
    assert_eq!((migrations.framework.as_str(), migrations.applied_count), ("sqlx", 1));
    assert_eq!(source.warnings, [""; 0]);
    // `VACUUM INTO` would have made them 1 and 2.
    assert_eq!(shop.ask("select rowid, name from no_key order by 1").await, [["7", "seven"], ["9", "nine"]]);
    let making = shop.making(&source);
    assert_eq!((making.name.as_str(), making.role), ("shop.sqlite", Role::Data));
    let beside: Vec<_> =
        fs::read_dir(shop.file.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(beside, ["-my shop.db"]);
}

#[tokio::test]
async fn a_row_that_is_only_in_the_wal_is_in_the_copy() {
    let shop = Shop::new();
    let mut open = shop.connect().await;
    open.execute(
        "pragma journal_mode = wal; pragma wal_autocheckpoint = 0; create table t (x); insert into t values (42)",
    )
    .await
    .unwrap();
    assert!(fs::metadata(&shop.file).unwrap().len() <= 4096, "it is not in the file itself");
    shop.dump().await.unwrap();
    assert_eq!(shop.ask("select x from t").await, [["42"]]);
    open.execute("insert into t values (43)").await.unwrap();
}

#[tokio::test]
async fn a_process_that_writes_all_the_time_neither_starves_the_copy_nor_tears_it() {
    for mode in ["wal", "delete"] {
        let shop = Shop::with(&format!(
            "pragma journal_mode = {mode}; {TABLES}; {FILL}; create table pair (x); {FILL}; {FILL}"
        ))
        .await;
        let source = shop.look().await.unwrap();
        let mut writer = shop.connect().await;
        writer.execute("pragma synchronous = off").await.unwrap();
        let (done, mut written) = (std::cell::Cell::new(false), 0);
        let write = async {
            while !done.get() {
                let sql =
                    "begin immediate; insert into t (x) values (randomblob(100)); insert into pair values (1); commit";
                writer.execute(sql).await.unwrap();
                written += 1;
            }
        };
        let copy = async {
            let answer = shop.copy(&source).await;
            done.set(true);
            answer
        };
        let (answer, ()) = tokio::join!(copy, write);
        assert!(answer.ok(), "{mode}: {}", answer.stderr);
        assert!(written > 0, "{mode}");
        shop.check(&source).await.unwrap();
        let torn = shop.ask("select (select count(*) from t) - 12000 - (select count(*) from pair)").await;
        assert_eq!(torn, [["0"]], "{mode}");
    }
}

#[tokio::test]
async fn a_missing_file_is_an_error_and_stays_missing() {
    let shop = Shop::new();
    let failure = shop.dump().await.unwrap_err();
    assert_eq!((failure.class, failure.exit), (ErrorClass::Config, ExitCode::Connection));
    assert!(failure.message.ends_with("-my shop.db` does not exist"), "{}", failure.message);
    // It went between the look and the copy.
    let source = Shop::with(TABLES).await.look().await.unwrap();
    let answer = shop.copy(&source).await;
    assert_ne!(answer.ending, Ending::Exited(0));
    assert!(!shop.file.exists() && !shop.scratch.path().join(sqlite::COPY).exists());
}

#[tokio::test]
async fn what_is_no_database_is_not_copied() {
    let shop = Shop::new();
    for (content, exit, says) in [
        (&b""[..], ExitCode::VerificationFailed, "is empty"),
        (b"hello, this is a text", ExitCode::Configuration, "file is not a database (26)"),
        (&[b'x'; 9000], ExitCode::Configuration, "file is not a database (26)"),
    ] {
        fs::write(&shop.file, content).unwrap();
        let failure = shop.dump().await.unwrap_err();
        assert_eq!(failure.exit, exit);
        assert!(failure.message.ends_with(says), "{}", failure.message);
    }
    let directory = Shop { file: shop.directory.path().to_owned(), ..Shop::new() };
    assert!(directory.dump().await.unwrap_err().message.ends_with("is no regular file"));
}

#[tokio::test]
async fn a_file_that_somebody_holds_is_waited_for_only_so_long() {
    let shop = Shop::with(TABLES).await;
    let source = shop.look().await.unwrap();
    let mut holder = shop.connect().await;
    holder.execute("begin exclusive").await.unwrap();
    let failure = shop.look().await.unwrap_err();
    assert_eq!((failure.class, failure.exit), (ErrorClass::Transient, ExitCode::Busy));
    let answer = shop.copy(&source).await;
    assert_eq!((answer.ending, answer.duration >= BUSY), (Ending::Exited(5), true));
    assert!(!shop.scratch.path().join(sqlite::COPY).exists());
    holder.execute("rollback").await.unwrap();
    shop.dump().await.unwrap();
}

#[tokio::test]
async fn a_truncated_file_is_damaged() {
    let shop = Shop::with(&format!("{TABLES}; {FILL}")).await;
    let file = File::options().write(true).open(&shop.file).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    let failure = shop.dump().await.unwrap_err();
    assert_eq!(
        (failure.class, failure.exit),
        (ErrorClass::Integrity, ExitCode::VerificationFailed),
        "{}",
        failure.message
    );
}

#[tokio::test]
async fn an_index_that_lacks_a_row_is_damaged() {
    let shop = Shop::with(&format!("{TABLES}; insert into no_key values ('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa')")).await;
    // The name stands twice in the file: in the table and in the index.
    let content = fs::read(&shop.file).unwrap();
    let at = content.windows(32).rposition(|window| window == [b'a'; 32]).unwrap();
    File::options().write(true).open(&shop.file).unwrap().write_all_at(b"b", at as u64 + 16).unwrap();
    let failure = shop.dump().await.unwrap_err();
    assert_eq!((failure.class, failure.exit), (ErrorClass::Integrity, ExitCode::VerificationFailed));
    insta::assert_snapshot!(failure.message, @"`pragma integrity_check` says of the copy: row 1 missing from index i");
}

#[tokio::test]
async fn a_copy_that_lacks_something_is_not_taken_for_whole() {
    let shop = Shop::with(TABLES).await;
    let source = shop.dump().await.unwrap();
    fs::write(shop.scratch.path().join(sqlite::COUNTS), "99|4\n").unwrap();
    let failure = shop.check(&source).await.unwrap_err();
    insta::assert_snapshot!(failure.message, @"the file had 99 pages and 4 tables, indexes, views and triggers, its copy has 5 pages and 4 tables, indexes, views and triggers");
    fs::remove_file(shop.scratch.path().join(sqlite::COUNTS)).unwrap();
    assert!(shop.check(&source).await.unwrap_err().message.starts_with("the file had nothing"));
}

#[tokio::test]
async fn a_foreign_key_that_leads_nowhere_is_told_and_no_failure() {
    let shop = Shop::with(
        "create table parent (id integer primary key); create table child (parent references parent (id)); \
         insert into child values (1), (2)",
    )
    .await;
    assert_eq!(shop.dump().await.unwrap().warnings, ["rows have foreign keys that lead nowhere: `child` (2)"]);
    let shop = Shop::with(
        "create table parent (id); create table child (parent references parent (id)); insert into child values (1)",
    )
    .await;
    let warnings = shop.dump().await.unwrap().warnings;
    assert!(warnings[0].starts_with("foreign keys cannot be checked: "), "{warnings:?}");
}

#[tokio::test]
async fn a_collation_of_the_application_is_no_damage() {
    let shop = Shop::new();
    let options = SqliteConnectOptions::new().filename(&shop.file).create_if_missing(true);
    let mut open = SqliteConnection::connect_with(&options.collation("own", |a, b| b.cmp(a))).await.unwrap();
    open.execute("create table t (x text collate own); create index i on t (x); insert into t values ('a'), ('b')")
        .await
        .unwrap();
    open.close().await.unwrap();
    let warnings = shop.dump().await.unwrap().warnings;
    assert!(warnings[0].starts_with("only the tables could be checked, not the indexes: "), "{warnings:?}");
}

#[tokio::test]
async fn an_application_that_was_killed_in_a_transaction_must_tidy_up_first() {
    let shop = Shop::with(&format!("{TABLES}; {FILL}")).await;
    let mut open = shop.connect().await;
    open.execute("pragma cache_size = 5; begin immediate; update t set x = randomblob(1000)").await.unwrap();
    // A copy of both files is what a crash leaves: a journal that nobody holds.
    let crashed = Shop::new();
    let journal = |file: &Path| PathBuf::from(format!("{}-journal", file.display()));
    fs::copy(&shop.file, &crashed.file).unwrap();
    fs::copy(journal(&shop.file), journal(&crashed.file)).unwrap();
    let failure = crashed.dump().await.unwrap_err();
    assert_eq!((failure.class, failure.exit), (ErrorClass::Config, ExitCode::Storage), "{}", failure.message);
    assert!(failure.remedy.unwrap().contains("-journal"));
    assert!(journal(&crashed.file).exists(), "the only way back is untouched");
}

#[tokio::test]
async fn a_user_who_may_not_read_is_told_what_is_missing() {
    let unprivileged = ["--reuid=postgres", "--regid=postgres", "--clear-groups"];
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let shop = Shop::with("pragma journal_mode = wal; create table t (x)").await;
    for directory in [shop.directory.path(), shop.file.parent().unwrap()] {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    }
    // WAL mode, nobody has it open, and the directory is another's: `-shm` is missing and cannot be made.
    let query = sqlite::query(Path::new("sqlite3"), &sqlite::read_only(&shop.file), BUSY, "select count(*) from t");
    let as_other = process::Command::new("setpriv")
        .args(unprivileged)
        .arg(query.program())
        .args(query.arguments().iter().cloned());
    let answer = capture(&as_other, &Stop::never()).await.unwrap();
    let failure = shop.engine().explain(Role::Data, &answer.ending, &[answer.stderr]);
    assert_eq!(answer.ending, Ending::Exited(8));
    assert!(failure.remedy.unwrap().contains("In WAL mode, reading needs the files `-wal` and `-shm`"));
    // As soon as the application has it open, reading is enough.
    let mut open = shop.connect().await;
    open.execute("insert into t values (1)").await.unwrap();
    let answer = capture(&as_other, &Stop::never()).await.unwrap();
    assert!(answer.ok(), "{}", answer.stderr);
}

#[tokio::test]
async fn a_full_scratch_directory_is_a_matter_of_space() {
    let failure =
        Shop::new().engine().explain(Role::Data, &Ending::Exited(1), &["Error: database or disk is full".into()]);
    assert_eq!((failure.class, failure.exit), (ErrorClass::Space, ExitCode::NoSpace));
}

#[test]
fn the_by_hand_commands_restore_beside_the_old_file_first() {
    let backup = serde_json::json!({
        "id": "backup-20261121-020000", "database": "shop", "environment": "production", "engine": "sqlite",
        "backup_type": "full", "requested_type": "full", "label": "backup-20261121-020000", "repo": 0, "system_id": "",
        "server_version": "3.40.1", "tool_version": "sqlite3 3.40.1", "tags": [], "references": [],
        "started_at": "2026-11-21T02:00:00Z", "stopped_at": "2026-11-21T02:00:09Z", "size": 1, "delta": 1,
        "status": "good", "created_by": "daemon",
        "dump": {
            "format": "file", "compression": "gzip:6", "encryption": null, "directory": "shop/backup-20261121-020000",
            "copies": [], "server": "SQLite 3.40.1", "source": "/srv/it's/shop.db", "warnings": [],
            "artifacts": [{
                "role": "data", "name": "shop.sqlite.gz",
                "raw": { "size": 1, "sha256": "00" }, "stored": { "size": 1, "sha256": "00" }
            }]
        }
    });
    let backup: Backup = serde_json::from_value(backup).unwrap();
    insta::assert_snapshot!(restore_by_hand(&backup, "s3://backups/shop/backup-20261121-020000").join("\n"), @r#"
    # Backup backup-20261121-020000 of shop, SQLite 3.40.1.
    # Needed: bash, aws (with --endpoint-url where it is not AWS), gzip, sqlite3.
    # Put these lines into a file, fill in the variables and run it with bash. It stops at the first error.
    set -euo pipefail
    [ "$(aws s3 cp s3://backups/shop/backup-20261121-020000/shop.sqlite.gz - | sha256sum)" = '00  -' ] || { echo 'shop.sqlite.gz is damaged' >&2; exit 1; }
    FILE='/srv/it'\''s/shop.db' # what it replaces
    aws s3 cp s3://backups/shop/backup-20261121-020000/shop.sqlite.gz - | gzip -dc > restored.sqlite
    # The answer must be `ok` and nothing else.
    sqlite3 'file:restored.sqlite?immutable=1' 'pragma integrity_check; pragma foreign_key_check'
    # Stop the application. Then move the old file away with what belongs to it: an old `-wal` damages a new file.
    # for part in '' -wal -shm -journal; do [ ! -e "$FILE$part" ] || mv "$FILE$part" "$FILE.old$part"; done
    # cp --no-clobber restored.sqlite "$FILE" && chown --reference="$FILE.old" "$FILE" && chmod --reference="$FILE.old" "$FILE"
    "#);
}
