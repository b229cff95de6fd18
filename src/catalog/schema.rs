//! The schema: its migrations, and what a glance at a file tells about it.
//!
//! Every page of a large file takes seconds to read, so a start looks at the list of tables and the first page of each;
//! `copy.rs` looks at everything each night. A newcomer would edit a migration that was released; files out there
//! have the old one, so only a new file changes anything.

use sqlx::{AssertSqlSafe, SqliteConnection, migrate::Migrator};

pub(super) static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

/// `application_id` of a catalog: "BSTP".
const APPLICATION_ID: i64 = 0x4253_5450;

/// Every table with the schema that brought it; one that is missing or whose first page cannot be read means damage.
const TABLES: &[(&str, i64)] = &[
    ("meta", 1),
    ("jobs", 1),
    ("slots", 1),
    ("runs", 1),
    ("attempts", 1),
    ("backup_ids", 1),
    ("backups", 1),
    ("artifacts", 1),
    ("copies", 1),
    ("proofs", 1),
    ("proof_steps", 1),
    ("wal_samples", 1),
    ("windows", 1),
    ("alerts", 1),
    ("audit", 1),
    ("policies", 1),
    ("dumps", 2),
    ("retention_rules", 3),
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

/// What is wrong with a file of this schema, as far as a glance tells; a full check of a large file would delay each
/// start. The copies of an older release are as whole as ever.
pub(super) async fn damage(conn: &mut SqliteConnection, schema: i64) -> sqlx::Result<Option<String>> {
    let id: i64 = sqlx::query_scalar("pragma application_id").fetch_one(&mut *conn).await?;
    if id != APPLICATION_ID {
        return Ok(Some("it belongs to another program".to_owned()));
    }
    let sql = "select name from sqlite_schema where type = 'table'";
    let found: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut *conn).await?;
    for (table, _) in TABLES.iter().filter(|(_, since)| *since <= schema) {
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
    use std::{fs, io::Read, path::Path};

    use sqlx::Executor;

    use super::*;
    use crate::catalog::{
        Catalog, Chain, Error, Opened,
        testing::{at, audit_something, catalog, dump},
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
        let mut expected: Vec<(String, bool)> = TABLES.iter().map(|(name, _)| ((*name).to_owned(), true)).collect();
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
        let older = "update _sqlx_migrations set version = version - 3";
        first.inner.writer.as_ref().unwrap().execute(older).await.unwrap();
        let opened = Catalog::open_read_only(dir.path()).await;
        assert!(matches!(opened, Err(Error::TooOld { found: 0, .. })), "{opened:?}");
    }

    /// A nightly copy that the first release made: a backup with a name, a tag, a hold and a proof; a WAL sample.
    const SCHEMA_1: &[u8] = include_bytes!("../../tests/samples/catalog-schema-1.db.gz");

    async fn holds_what_the_first_release_wrote(catalog: &Catalog) {
        let found = catalog.backup("backup-orders-20260101-000000F").await.unwrap().unwrap();
        assert_eq!((found.name.as_deref(), found.held.as_deref()), (Some("before-upgrade"), Some("audit")));
        assert_eq!((found.tags, found.proven_at, found.dump), (vec!["a".to_owned()], Some(at(200)), None));
        assert_eq!(catalog.proofs(&found.database, 9).await.unwrap().len(), 1);
        assert!(matches!(catalog.audit_verify().await.unwrap(), Chain::Whole { count: 1, .. }));
        let dump = dump("shop", "backup-20260102-000000", 500);
        catalog.record_dump(&dump).await.unwrap();
        assert_eq!(catalog.backup(&dump.id).await.unwrap(), Some(dump));
    }

    #[tokio::test]
    async fn a_catalog_of_the_first_schema_is_upgraded_by_a_writer_and_refused_to_a_reader() {
        let dir = tempfile::tempdir().unwrap();
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(SCHEMA_1).read_to_end(&mut plain).unwrap();
        fs::write(dir.path().join("catalog.db"), plain).unwrap();
        let read = Catalog::open_read_only(dir.path()).await;
        assert!(matches!(read, Err(Error::TooOld { found: 1, .. })), "{read:?}");
        let upgraded = Catalog::open(dir.path(), at(500)).await.unwrap();
        holds_what_the_first_release_wrote(&upgraded).await;
        assert!(Catalog::open_read_only(dir.path()).await.is_ok());
    }

    #[tokio::test]
    async fn a_copy_of_the_first_schema_is_restored_and_upgraded() {
        let dir = tempfile::tempdir().unwrap();
        let copies = dir.path().join("catalog-copies");
        fs::create_dir(&copies).unwrap();
        fs::write(copies.join("catalog-000001-20260102-000640.db.gz"), SCHEMA_1).unwrap();
        let (catalog, opened) = Catalog::open_or_recover(dir.path(), at(500)).await.unwrap();
        assert!(matches!(&opened, Opened::Recovered { from: Some(_), .. }), "{opened:?}");
        let entered = catalog.audit_list(1).await.unwrap().remove(0);
        assert_eq!(entered.action, "recover");
        assert!(catalog.backup("backup-orders-20260101-000000F").await.unwrap().is_some());
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
