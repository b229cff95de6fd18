//! The schema: its migrations, and what a glance at a file tells about it.
//!
//! Every page of a large file takes seconds to read, so a start looks at the list of tables and the first page of each;
//! `copy.rs` looks at everything each night. A newcomer would edit a migration that was released; files out there
//! have the old one, so only a new file changes anything.

use sqlx::{AssertSqlSafe, SqliteConnection, migrate::Migrator};

pub(super) static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

/// `application_id` of a catalog: "BSTP".
const APPLICATION_ID: i64 = 0x4253_5450;

/// Every table; one that is missing or whose first page cannot be read means damage.
const TABLES: &[&str] = &[
    "meta",
    "jobs",
    "slots",
    "runs",
    "attempts",
    "backup_ids",
    "backups",
    "artifacts",
    "copies",
    "proofs",
    "proof_steps",
    "wal_samples",
    "windows",
    "alerts",
    "audit",
    "policies",
];

/// The newest migration that was applied; none in a file without any.
pub(super) async fn found(conn: &mut SqliteConnection) -> sqlx::Result<Option<i64>> {
    let sql = "select count(*) from sqlite_schema where name = '_sqlx_migrations'";
    let has_any: i64 = sqlx::query_scalar(sql).fetch_one(&mut *conn).await?;
    if has_any == 0 {
        return Ok(None);
    }
    sqlx::query_scalar("select max(version) from _sqlx_migrations").fetch_one(conn).await
}

/// The newest migration that this release knows.
pub(super) fn newest() -> i64 {
    MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or_default()
}

/// What is wrong with the file, as far as a glance tells; a full check of a large file would delay each start.
pub(super) async fn damage(conn: &mut SqliteConnection) -> sqlx::Result<Option<String>> {
    let id: i64 = sqlx::query_scalar("pragma application_id").fetch_one(&mut *conn).await?;
    if id != APPLICATION_ID {
        return Ok(Some("it belongs to another program".to_owned()));
    }
    let sql = "select name from sqlite_schema where type = 'table'";
    let found: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut *conn).await?;
    for table in TABLES {
        if !found.iter().any(|name| name == table) {
            return Ok(Some(format!("table `{table}` is missing")));
        }
        let first = AssertSqlSafe(format!("select 1 from {table} limit 1"));
        sqlx::query(first).fetch_optional(&mut *conn).await?;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use sqlx::Executor;

    use super::*;
    use crate::catalog::{
        Catalog, Error,
        testing::{at, audit_something, catalog},
    };

    #[test]
    fn every_migration_file_is_compiled_in() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        let mut files: Vec<String> =
            fs::read_dir(&directory).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect();
        let mut compiled: Vec<String> = MIGRATOR.iter().map(|m| m.sql.as_str().to_owned()).collect();
        files.sort();
        compiled.sort();
        assert_eq!(files, compiled, "sqlx does not see new files by itself: touch src/catalog/open.rs");
        assert!(files.iter().all(|sql| sql.starts_with("-- ")), "the first line says why");
    }

    #[tokio::test]
    async fn the_tables_are_those_that_are_checked_and_all_are_strict() {
        let (_dir, catalog) = catalog().await;
        let sql = "select name, strict from pragma_table_list where type = 'table' and schema = 'main'
                    and name not like 'sqlite%' and name not like '\\_sqlx%' escape '\\'";
        let mut found: Vec<(String, bool)> = sqlx::query_as(sql).fetch_all(&catalog.inner.reader).await.unwrap();
        found.sort();
        let mut expected: Vec<(String, bool)> = TABLES.iter().map(|name| ((*name).to_owned(), true)).collect();
        expected.sort();
        assert_eq!(found, expected);
    }

    #[tokio::test]
    async fn a_newer_schema_is_refused_by_both_doors() {
        let (dir, first) = catalog().await;
        let newer = "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
                     values (9999, 'later', true, x'00', 0)";
        first.inner.writer.as_ref().unwrap().execute(newer).await.unwrap();
        for opened in [Catalog::open(dir.path(), at(0)).await, Catalog::open_read_only(dir.path()).await] {
            assert!(matches!(opened, Err(Error::TooNew { found: 9999, .. })), "{opened:?}");
        }
    }

    #[tokio::test]
    async fn an_older_schema_is_not_upgraded_by_a_reader() {
        let (dir, first) = catalog().await;
        let older = "update _sqlx_migrations set version = 0";
        first.inner.writer.as_ref().unwrap().execute(older).await.unwrap();
        let opened = Catalog::open_read_only(dir.path()).await;
        assert!(matches!(opened, Err(Error::TooOld { found: 0, .. })), "{opened:?}");
    }

    #[tokio::test]
    async fn a_file_of_another_program_or_cut_short_is_damaged() {
        let (dir, first) = catalog().await;
        for n in 0..50 {
            audit_something(&first, &format!("{n} {}", "x".repeat(500))).await.unwrap();
        }
        first.close().await;
        let whole = fs::read(first.path()).unwrap();
        fs::write(first.path(), &whole[..whole.len() - 4096]).unwrap();
        assert!(matches!(Catalog::open(dir.path(), at(0)).await, Err(Error::Corrupt { .. })));
        fs::write(first.path(), "not a database, but long enough to have a header of one hundred bytes".repeat(3))
            .unwrap();
        assert!(matches!(Catalog::open(dir.path(), at(0)).await, Err(Error::Corrupt { .. })));
    }
}
