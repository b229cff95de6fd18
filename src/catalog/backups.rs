//! Backups as the catalog knows them: what can be restored, what is held, what is gone and why.
//!
//! A backup is known by (database, repo, system id, label), and gets an identity of ours. Holds and proofs are ours
//! alone, and no reading of the repository takes them away. A newcomer would delete the row of a backup that is gone;
//! that it was there, and why it went, is what people ask for.

use chrono::{DateTime, Utc};
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::{
    Catalog, Result,
    bulk::{Bunched, Bunches},
    dumps,
    fields::{Fields, json, millis, size},
};
use crate::record::{Backup, DatabaseName, EngineKind, words};

words! {
    /// What decides the order of backups.
    BackupSort {
        /// The newest first.
        Created = "created",
        /// The largest first.
        Size = "size",
        /// By database, of each the newest first.
        Database = "database",
    }
}

impl BackupSort {
    fn order(self) -> &'static str {
        match self {
            BackupSort::Created => "stopped_at desc, id desc",
            BackupSort::Size => "size desc, stopped_at desc, id desc",
            BackupSort::Database => "database, stopped_at desc, id desc",
        }
    }
}

/// Which backups are wanted; what is not set does not matter.
#[derive(Debug, Clone, Default)]
pub struct BackupFilter {
    /// Of this database.
    pub database: Option<DatabaseName>,
    /// Of this environment.
    pub environment: Option<String>,
    /// Made by this engine.
    pub engine: Option<EngineKind>,
    /// Stopped at this moment or later.
    pub since: Option<DateTime<Utc>>,
    /// With this text in its name, its label or its identity.
    pub name: Option<String>,
    /// Also those that are lost or were ended.
    pub include_expired: bool,
    /// In this order; the newest first when not set.
    pub sort: Option<BackupSort>,
    /// At most so many; 0 is all.
    pub limit: u32,
}

impl Catalog {
    /// Remembers a backup as the repository shows it, and returns its identity.
    ///
    /// A backup that is known keeps its identity, its hold and its proof. `good` does not overrule what only we could
    /// see, `damaged` and `unrestorable`; it does bring back what was lost or ended and is there after all.
    pub async fn record_backup(&self, backup: &Backup) -> Result<String> {
        self.record(backup, None).await
    }

    /// The same, for an answer that was asked for at `asked_at`: what was lost or ended since stays so.
    pub async fn record_seen(&self, backup: &Backup, asked_at: DateTime<Utc>) -> Result<String> {
        self.record(backup, Some(asked_at)).await
    }

    async fn record(&self, backup: &Backup, asked_at: Option<DateTime<Utc>>) -> Result<String> {
        self.write("recording a backup", async |conn| {
            let id = match known(conn, backup).await? {
                Some(id) => id,
                None => free_id(conn, &backup.id, "select exists (select 1 from backups where id = ?)").await?,
            };
            upsert(conn, &id, backup, asked_at).await?;
            Ok(id)
        })
        .await
    }

    /// Gives out an identity for a backup to be made, `backup-YYYYMMDD-HHMMSS[-name]`; never the same one twice.
    pub async fn unique_backup_id(&self, now: DateTime<Utc>, name: Option<&str>) -> Result<String> {
        let mut wanted = now.format("backup-%Y%m%d-%H%M%S").to_string();
        if let Some(name) = name {
            wanted = format!("{wanted}-{name}");
        }
        self.write("reserving a backup's identity", async |conn| {
            let taken = "select exists (select 1 from backups where id = ?1 union all
                                        select 1 from backup_ids where id = ?1)";
            let id = free_id(conn, &wanted, taken).await?;
            let sql = "insert into backup_ids (id, reserved_at) values (?, ?)";
            sqlx::query(sql).bind(&id).bind(millis(now)).execute(conn).await?;
            Ok(id)
        })
        .await
    }

    /// The backups of a database that should be there, the newest first.
    pub async fn backups(&self, database: &DatabaseName) -> Result<Vec<Backup>> {
        self.all_backups(&BackupFilter { database: Some(database.clone()), ..BackupFilter::default() }).await
    }

    /// The backups of a database that retention did not end, lost ones included, the newest first.
    pub async fn known_backups(&self, database: &DatabaseName) -> Result<Vec<Backup>> {
        self.read("listing known backups", async |conn| {
            let mut rows = Bunches::of(conn, "backups", BackupSort::Created.order()).await?;
            rows.sql().push(" where status <> 'expired' and database = ").push_bind(database.as_str());
            let backups = rows.read(conn, backup).await?;
            dumps::attach(conn, backups).await
        })
        .await
    }

    /// Backups in the order of the filter.
    pub async fn all_backups(&self, filter: &BackupFilter) -> Result<Vec<Backup>> {
        self.read("listing backups", async |conn| {
            let mut rows = Bunches::of(conn, "backups", filter.sort.unwrap_or(BackupSort::Created).order()).await?;
            choose(rows.sql(), filter);
            let backups = rows.read(conn, backup).await?;
            dumps::attach(conn, backups).await
        })
        .await
    }

    /// A backup by its identity.
    pub async fn backup(&self, id: &str) -> Result<Option<Backup>> {
        self.read("reading a backup", async |conn| {
            let mut rows = Bunches::of(conn, "backups", "id").await?;
            rows.sql().push(" where id = ").push_bind(id);
            let backup = rows.read(conn, backup).await?;
            Ok(dumps::attach(conn, backup).await?.pop())
        })
        .await
    }
}

async fn known(conn: &mut SqliteConnection, backup: &Backup) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar("select id from backups where database = ? and repo = ? and system_id = ? and label = ?")
        .bind(backup.database.as_str())
        .bind(backup.repo)
        .bind(&backup.system_id)
        .bind(&backup.label)
        .fetch_optional(conn)
        .await
}

/// `wanted`, or the first of `wanted-2`, `wanted-3`, … that `taken` does not find.
async fn free_id(conn: &mut SqliteConnection, wanted: &str, taken: &'static str) -> sqlx::Result<String> {
    let mut id = wanted.to_owned();
    let mut number = 1;
    while sqlx::query_scalar(taken).bind(&id).fetch_one(&mut *conn).await? {
        number += 1;
        id = format!("{wanted}-{number}");
    }
    Ok(id)
}

pub(super) async fn upsert(
    conn: &mut SqliteConnection,
    id: &str,
    backup: &Backup,
    asked_at: Option<DateTime<Utc>>,
) -> sqlx::Result<()> {
    sqlx::query(UPSERT)
        .bind(id)
        .bind(backup.database.as_str())
        .bind(&backup.environment)
        .bind(backup.engine.as_str())
        .bind(backup.backup_type.as_str())
        .bind(backup.requested_type.as_str())
        .bind(&backup.label)
        .bind(backup.repo)
        .bind(&backup.system_id)
        .bind(&backup.server_version)
        .bind(&backup.tool_version)
        .bind(&backup.name)
        .bind(&backup.reason)
        .bind(json(&backup.tags))
        .bind(&backup.run_uuid)
        .bind(millis(backup.started_at))
        .bind(millis(backup.stopped_at))
        .bind(size(backup.size))
        .bind(size(backup.delta))
        .bind(backup.repo_delta.map(size))
        .bind(backup.repo_size.map(size))
        .bind(&backup.prior)
        .bind(json(&backup.references))
        .bind(&backup.wal_start)
        .bind(&backup.wal_stop)
        .bind(&backup.lsn_stop)
        .bind(backup.page_errors)
        .bind(backup.status.as_str())
        .bind(&backup.expired_reason)
        .bind(backup.expired_at.map(millis))
        .bind(&backup.held)
        .bind(backup.held_until.map(millis))
        .bind(backup.proven_at.map(millis))
        .bind(&backup.created_by)
        .bind(asked_at.map_or(i64::MAX, millis))
        .execute(conn)
        .await?;
    Ok(())
}

/// On a conflict the right sides see the row as it was.
const UPSERT: &str = r#"
    insert into backups (id, database, environment, engine, backup_type, requested_type, label, repo, system_id,
        server_version, tool_version, name, reason, tags, run_uuid, started_at, stopped_at, size, delta, repo_delta,
        repo_size, prior, "references", wal_start, wal_stop, lsn_stop, page_errors, status, status_reason, expired_at,
        held, held_until, proven_at, created_by)
    values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    on conflict (database, repo, system_id, label) do update set
        environment = excluded.environment, engine = excluded.engine, backup_type = excluded.backup_type,
        requested_type = excluded.requested_type, server_version = excluded.server_version,
        tool_version = excluded.tool_version, name = excluded.name, reason = excluded.reason, tags = excluded.tags,
        run_uuid = excluded.run_uuid, started_at = excluded.started_at, stopped_at = excluded.stopped_at,
        size = excluded.size, delta = excluded.delta, repo_delta = excluded.repo_delta,
        repo_size = excluded.repo_size, prior = excluded.prior, "references" = excluded."references",
        wal_start = excluded.wal_start, wal_stop = excluded.wal_stop, lsn_stop = excluded.lsn_stop,
        page_errors = excluded.page_errors, created_by = excluded.created_by,
        status = iif(excluded.status = 'good' and status in ('damaged', 'unrestorable'), status, excluded.status),
        status_reason = iif(excluded.status = 'good' and status in ('damaged', 'unrestorable'),
                            status_reason, excluded.status_reason),
        expired_at = excluded.expired_at
     where status not in ('lost', 'expired') or coalesce(expired_at, 0) < ?"#;

/// Adds what a filter wants to a query of backups.
fn choose(sql: &mut QueryBuilder<Sqlite>, filter: &BackupFilter) {
    sql.push(" where true");
    if !filter.include_expired {
        // Spelled as in the partial index `backups_live`, so that SQLite sees that it fits.
        sql.push(" and status not in ('lost', 'expired')");
    }
    if let Some(database) = &filter.database {
        sql.push(" and database = ").push_bind(database.as_str().to_owned());
    }
    if let Some(environment) = &filter.environment {
        sql.push(" and environment = ").push_bind(environment.clone());
    }
    if let Some(engine) = filter.engine {
        sql.push(" and engine = ").push_bind(engine.as_str());
    }
    if let Some(since) = filter.since {
        sql.push(" and stopped_at >= ").push_bind(millis(since));
    }
    if let Some(name) = &filter.name {
        sql.push(" and (instr(name, ").push_bind(name.clone());
        sql.push(") or instr(label, ").push_bind(name.clone());
        sql.push(") or instr(id, ").push_bind(name.clone()).push("))");
    }
    if filter.limit > 0 {
        sql.push(" order by ").push(filter.sort.unwrap_or(BackupSort::Created).order());
        sql.push(" limit ").push_bind(filter.limit);
    }
}

fn backup(row: &Bunched<'_>) -> sqlx::Result<Backup> {
    let name: String = row.text("database")?;
    Ok(Backup {
        id: row.text("id")?,
        database: name.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
        environment: row.text("environment")?,
        engine: row.word("engine")?,
        backup_type: row.word("backup_type")?,
        requested_type: row.word("requested_type")?,
        label: row.text("label")?,
        repo: row.number("repo")?,
        system_id: row.text("system_id")?,
        server_version: row.text("server_version")?,
        tool_version: row.text("tool_version")?,
        name: row.opt_text("name")?,
        reason: row.opt_text("reason")?,
        tags: row.json("tags")?,
        run_uuid: row.opt_text("run_uuid")?,
        started_at: row.time("started_at")?,
        stopped_at: row.time("stopped_at")?,
        size: row.number("size")?,
        delta: row.number("delta")?,
        repo_delta: row.opt_number("repo_delta")?,
        repo_size: row.opt_number("repo_size")?,
        prior: row.opt_text("prior")?,
        references: row.json("references")?,
        wal_start: row.opt_text("wal_start")?,
        wal_stop: row.opt_text("wal_stop")?,
        lsn_stop: row.opt_text("lsn_stop")?,
        page_errors: row.opt_int("page_errors")?.map(|found| found != 0),
        status: row.word("status")?,
        expired_reason: row.opt_text("status_reason")?,
        expired_at: row.opt_time("expired_at")?,
        held: row.opt_text("held")?,
        held_until: row.opt_time("held_until")?,
        proven_at: row.opt_time("proven_at")?,
        created_by: row.text("created_by")?,
        dump: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        catalog::{
            Chain,
            testing::{at, backup as some, catalog, dump, plan, proof},
        },
        record::BackupStatus,
    };

    #[tokio::test]
    async fn a_backup_reads_back_as_it_was_written() {
        let (_dir, catalog) = catalog().await;
        let mut written = some("orders", "20260101-000000F", 100);
        written.name = Some("before-upgrade".to_owned());
        written.tags = vec!["a".to_owned(), "ü \"b\"".to_owned()];
        written.references = vec!["20260101-000000F".to_owned()];
        (written.repo_delta, written.page_errors, written.prior) = (Some(7), Some(false), Some("x".to_owned()));
        (written.held, written.proven_at) = (Some("audit".to_owned()), Some(at(50)));
        let id = catalog.record_backup(&written).await.unwrap();
        assert_eq!(catalog.backup(&id).await.unwrap(), Some(written));
        assert_eq!(catalog.backup("nothing").await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_hold_and_a_proof_survive_each_reading_of_the_repository() {
        let (_dir, catalog) = catalog().await;
        let seen = some("orders", "20260101-000000F", 100);
        let id = catalog.record_backup(&seen).await.unwrap();
        assert!(catalog.hold(&id, "audit", None, "ada", at(150)).await.unwrap().is_some());
        catalog.record_proof(&proof(&catalog, &id, 200, true).await).await.unwrap();
        let again = Backup { id: "another".to_owned(), size: 9, ..seen };
        assert_eq!(catalog.record_backup(&again).await.unwrap(), id, "it keeps its identity");
        let found = catalog.backup(&id).await.unwrap().unwrap();
        assert_eq!((found.size, found.held.as_deref(), found.proven_at), (9, Some("audit"), Some(at(200))));
        let head = catalog.release(&id, "no more needed", "bob", at(250)).await.unwrap().unwrap();
        catalog.record_backup(&Backup { held: Some("audit".to_owned()), ..again }).await.unwrap();
        assert_eq!(catalog.backup(&id).await.unwrap().unwrap().held, None, "a release is not undone");
        assert_eq!(catalog.hold("nothing", "x", None, "ada", at(300)).await.unwrap(), None);
        let told = catalog.audit_list(9).await.unwrap();
        let told: Vec<_> =
            told.iter().map(|entry| (entry.actor.as_str(), entry.action.as_str(), entry.detail.as_str())).collect();
        assert_eq!(told, [("bob", "release", "no more needed"), ("ada", "hold", "audit")]);
        assert_eq!(catalog.audit_verify().await.unwrap(), Chain::Whole { count: 2, head });
    }

    #[tokio::test]
    async fn good_does_not_overrule_what_only_we_could_see() {
        let (_dir, catalog) = catalog().await;
        let seen = some("orders", "20260101-000000F", 100);
        let id = catalog.record_backup(&seen).await.unwrap();
        for (known, reported, then) in [
            (BackupStatus::Unrestorable, BackupStatus::Good, BackupStatus::Unrestorable),
            (BackupStatus::Damaged, BackupStatus::Good, BackupStatus::Damaged),
            (BackupStatus::Unrestorable, BackupStatus::Damaged, BackupStatus::Damaged),
            (BackupStatus::Lost, BackupStatus::Good, BackupStatus::Good),
            (BackupStatus::Expired, BackupStatus::Good, BackupStatus::Good),
        ] {
            catalog.mark_backups(std::slice::from_ref(&id), known, Some("because"), at(5)).await.unwrap();
            catalog.record_backup(&Backup { status: reported, ..seen.clone() }).await.unwrap();
            let found = catalog.backup(&id).await.unwrap().unwrap();
            assert_eq!(found.status, then, "{known} then {reported}");
            assert_eq!(found.expired_at, None);
            assert_eq!(found.expired_reason.is_some(), then == known, "{known} then {reported}");
        }
    }

    #[tokio::test]
    async fn an_old_answer_of_the_repository_revives_nothing() {
        let (_dir, catalog) = catalog().await;
        let seen = some("orders", "20260101-000000F", 100);
        let id = catalog.record_seen(&seen, at(100)).await.unwrap();
        catalog.mark_backups(std::slice::from_ref(&id), BackupStatus::Expired, Some("old"), at(900)).await.unwrap();
        for (asked, then) in [(899, BackupStatus::Expired), (900, BackupStatus::Expired), (901, BackupStatus::Good)] {
            assert_eq!(catalog.record_seen(&seen, at(asked)).await.unwrap(), id);
            assert_eq!(catalog.backup(&id).await.unwrap().unwrap().status, then, "asked at {asked}");
        }
    }

    #[tokio::test]
    async fn backups_are_found_by_every_filter_newest_first() {
        let (_dir, catalog) = catalog().await;
        let named = Backup { name: Some("before-upgrade".to_owned()), ..some("orders", "20260101-000000F", 100) };
        let staging = Backup { environment: "staging".to_owned(), ..some("stock", "20260102-000000F", 200) };
        for backup in [&named, &staging, &some("orders", "20260103-000000F", 300)] {
            catalog.record_backup(backup).await.unwrap();
        }
        let found = async |filter: BackupFilter| -> Vec<String> {
            catalog.all_backups(&filter).await.unwrap().into_iter().map(|b| b.label).collect()
        };
        let any = BackupFilter::default();
        assert_eq!(found(any.clone()).await, ["20260103-000000F", "20260102-000000F", "20260101-000000F"]);
        assert_eq!(found(BackupFilter { limit: 1, ..any.clone() }).await, ["20260103-000000F"]);
        assert_eq!(found(BackupFilter { since: Some(at(200)), ..any.clone() }).await.len(), 2);
        let environment = Some("staging".to_owned());
        assert_eq!(found(BackupFilter { environment, ..any.clone() }).await, ["20260102-000000F"]);
        for text in ["upgrade", "20260101", &named.id] {
            assert_eq!(found(BackupFilter { name: Some(text.to_owned()), ..any.clone() }).await, ["20260101-000000F"]);
        }
        let database = Some("stock".parse().unwrap());
        assert_eq!(found(BackupFilter { database, include_expired: true, ..any.clone() }).await, ["20260102-000000F"]);
        catalog.record_dump(&dump("shop", "backup-20260101-000000", 50)).await.unwrap();
        let engine = Some(EngineKind::PgDump);
        assert_eq!(found(BackupFilter { engine, ..any }).await, ["backup-20260101-000000"]);
    }

    #[tokio::test]
    async fn backups_are_told_in_the_order_that_is_asked_for() {
        let (_dir, catalog) = catalog().await;
        for (database, label, stopped, size) in [("b", "old", 100, 9), ("a", "mid", 200, 7), ("b", "new", 300, 8)] {
            catalog.record_backup(&Backup { size, ..some(database, label, stopped) }).await.unwrap();
        }
        let told = async |sort| -> Vec<String> {
            let filter = BackupFilter { sort: Some(sort), ..BackupFilter::default() };
            catalog.all_backups(&filter).await.unwrap().into_iter().map(|b| b.label).collect()
        };
        assert_eq!(told(BackupSort::Created).await, ["new", "mid", "old"]);
        assert_eq!(told(BackupSort::Size).await, ["old", "new", "mid"]);
        assert_eq!(told(BackupSort::Database).await, ["mid", "new", "old"]);
    }

    #[tokio::test]
    async fn two_backups_of_one_second_have_different_identities() {
        let (_dir, catalog) = catalog().await;
        let now = at(0);
        assert_eq!(catalog.unique_backup_id(now, None).await.unwrap(), "backup-20260102-000000");
        assert_eq!(catalog.unique_backup_id(now, None).await.unwrap(), "backup-20260102-000000-2");
        assert_eq!(catalog.unique_backup_id(now, Some("pre")).await.unwrap(), "backup-20260102-000000-pre");
        let foreign = |repo| Backup { id: "foreign-x".to_owned(), repo, ..some("orders", "x", 1) };
        assert_eq!(catalog.record_backup(&foreign(1)).await.unwrap(), "foreign-x");
        assert_eq!(catalog.record_backup(&foreign(2)).await.unwrap(), "foreign-x-2");
        assert_eq!(catalog.record_backup(&foreign(2)).await.unwrap(), "foreign-x-2");
    }

    #[tokio::test]
    async fn the_live_backups_of_a_database_come_from_their_index() {
        let (_dir, catalog) = catalog().await;
        let filter = BackupFilter { database: Some("orders".parse().unwrap()), ..BackupFilter::default() };
        let mut sql = QueryBuilder::new("select * from backups");
        choose(&mut sql, &filter);
        let steps = plan(&catalog, sql.into_sql()).await;
        assert!(steps.iter().any(|step| step.contains("backups_live (database=?)")), "{steps:?}");
    }
}
