//! Dumps: how they were made, their files, and the state of each copy.
//!
//! The status of a dump is not told but follows from its copies ([`standing`]), so that both can never disagree. A
//! newcomer would read files and copies backup by backup; a list of backups takes three queries, however long it is, and
//! none where no dump is in it.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use sqlx::{SqliteConnection, sqlite::SqliteRow};

use super::{
    Catalog, Result, backups,
    bulk::{Bunched, Bunches},
    fields::{Fields, json, millis, size},
};
use crate::record::{
    Artifact, Backup, BackupCopy, BackupStatus, CopyState, DatabaseName, Digest, Dump, Encryption, EngineKind,
};

/// What earlier dumps of a database were like, for guesses about the next one.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct DumpHistory {
    /// How many good dumps were looked at, at most 10.
    pub count: u32,
    /// Median bytes that the tool wrote.
    pub raw_size: u64,
    /// Median share of the raw size that was stored, 0 to 1.
    pub ratio: f64,
    /// Median bytes a second, raw.
    pub rate: f64,
}

impl Catalog {
    /// Records a dump with its files and copies, in one transaction. `backup.dump` must be there.
    ///
    /// Recorded again, its files and copies are those of the last time; its hold and its proof stay.
    pub async fn record_dump(&self, backup: &Backup) -> Result<()> {
        self.write("recording a dump", async |conn| {
            let dump = backup.dump.as_ref().ok_or_else(|| sqlx::Error::Encode("the backup is no dump".into()))?;
            backups::upsert(conn, &backup.id, backup, None).await?;
            upsert(conn, &backup.id, dump).await?;
            for table in ["delete from artifacts where backup_id = ?", "delete from copies where backup_id = ?"] {
                sqlx::query(table).bind(&backup.id).execute(&mut *conn).await?;
            }
            for artifact in &dump.artifacts {
                insert_artifact(conn, &backup.id, artifact).await?;
            }
            for copy in &dump.copies {
                upsert_copy(conn, &backup.id, copy).await?;
            }
            Ok(())
        })
        .await
    }

    /// Records what is known now of the copies of a backup; `verified_at` where every byte of one was read and right.
    /// Where no copy is good any more the backup becomes damaged or lost, with the reason; where one is again, good. One
    /// that was ended stays ended.
    pub async fn record_copies(
        &self,
        id: &str,
        copies: &[BackupCopy],
        verified_at: Option<DateTime<Utc>>,
    ) -> Result<()> {
        self.write("recording the copies of a backup", async |conn| {
            for copy in copies {
                upsert_copy(conn, id, copy).await?;
            }
            let sql = "update dumps set verified_at = coalesce(?, verified_at) where backup_id = ?";
            sqlx::query(sql).bind(verified_at.map(millis)).bind(id).execute(&mut *conn).await?;
            settle(conn, id).await
        })
        .await
    }

    /// The storages in which something of a dump should lie.
    pub async fn used_storages(&self) -> Result<BTreeSet<String>> {
        self.read("reading which storages are used", async |conn| {
            let sql = "select distinct storage from copies where state in ('good', 'damaged', 'unknown')";
            sqlx::query(sql).fetch_all(conn).await?.iter().map(|row| row.text("storage")).collect()
        })
        .await
    }

    /// What the last good dumps of a database were like.
    pub async fn dump_history(&self, database: &DatabaseName) -> Result<DumpHistory> {
        self.read("reading the history of dumps", async |conn| {
            let rows = sqlx::query(LAST_GOOD).bind(database.as_str()).fetch_all(conn).await?;
            let seen = rows.iter().map(Seen::of).collect::<sqlx::Result<Vec<_>>>()?;
            Ok(history(&seen))
        })
        .await
    }
}

const LAST_GOOD: &str = "
    select size, repo_size, started_at, stopped_at from backups
     where database = ? and status not in ('lost', 'expired') and status = 'good' and engine <> 'pgbackrest' and size > 0
     order by stopped_at desc limit 10";

/// A dump as a guess about the next one sees it.
struct Seen {
    raw: u64,
    stored: u64,
    millis: u64,
}

impl Seen {
    fn of(row: &SqliteRow) -> sqlx::Result<Self> {
        let took: i64 = row.int("stopped_at")? - row.int("started_at")?;
        let raw = row.number("size")?;
        // The clock may have been set back meanwhile; and something takes at least a millisecond.
        Ok(Seen { raw, stored: row.opt_number("repo_size")?.unwrap_or(raw), millis: took.max(1).unsigned_abs() })
    }
}

#[expect(clippy::cast_precision_loss, reason = "guesses need no more than 52 bits")]
fn history(seen: &[Seen]) -> DumpHistory {
    let median = |of: &dyn Fn(&Seen) -> f64| {
        let mut values: Vec<f64> = seen.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    let mut sizes: Vec<u64> = seen.iter().map(|dump| dump.raw).collect();
    sizes.sort_unstable();
    DumpHistory {
        count: u32::try_from(seen.len()).unwrap_or(u32::MAX),
        raw_size: sizes.get(sizes.len() / 2).copied().unwrap_or_default(),
        ratio: median(&|dump| dump.stored as f64 / dump.raw as f64),
        rate: median(&|dump| dump.raw as f64 * 1000.0 / dump.millis as f64),
    }
}

/// What the copies of a dump make of it; none: they do not tell, so it stays what it was.
///
/// One good copy is a good backup. Where none is, one that cannot be asked leaves it open. What never became whole is no
/// copy at all.
pub fn standing(copies: &[BackupCopy]) -> Option<BackupStatus> {
    let some = |state| copies.iter().any(|copy| copy.state == state);
    if some(CopyState::Good) {
        Some(BackupStatus::Good)
    } else if some(CopyState::Unknown) {
        None
    } else if some(CopyState::Damaged) {
        Some(BackupStatus::Damaged)
    } else if some(CopyState::Deleted) {
        Some(BackupStatus::Expired)
    } else {
        some(CopyState::Missing).then_some(BackupStatus::Lost)
    }
}

/// Why no copy is good, in one line: `local: its checksum differs; offsite: missing`.
pub(super) fn trouble(copies: &[BackupCopy]) -> String {
    let told = |copy: &BackupCopy| {
        format!("{}: {}", copy.storage, copy.detail.as_deref().unwrap_or_else(|| copy.state.as_str()))
    };
    let bad = copies.iter().filter(|copy| matches!(copy.state, CopyState::Damaged | CopyState::Missing));
    bad.map(told).collect::<Vec<_>>().join("; ")
}

/// Gives a backup the status that follows from its copies.
async fn settle(conn: &mut SqliteConnection, id: &str) -> sqlx::Result<()> {
    let copies: Vec<BackupCopy> = copies(conn, &json(&[id])).await?.into_iter().map(|(_, copy)| copy).collect();
    let Some(status) = standing(&copies) else { return Ok(()) };
    let reason = match status {
        BackupStatus::Good => None,
        BackupStatus::Expired => Some("deleted".to_owned()),
        _ => Some(trouble(&copies)),
    };
    let seen_at = copies.iter().map(|copy| copy.checked_at).max().map(millis);
    let ended = matches!(status, BackupStatus::Expired | BackupStatus::Lost);
    // Whoever ended it said why, and when, before the first copy went; what is left of it brings nothing back.
    let sql = "update backups set status = ?1, status_reason = ?2,
                      expired_at = iif(?1 = 'lost' and status = 'lost', expired_at, ?3)
                where id = ?4 and status <> 'expired'";
    sqlx::query(sql).bind(status.as_str()).bind(reason).bind(seen_at.filter(|_| ended)).bind(id).execute(conn).await?;
    Ok(())
}

async fn upsert(conn: &mut SqliteConnection, id: &str, dump: &Dump) -> sqlx::Result<()> {
    sqlx::query(
        "insert or replace into dumps (backup_id, format, compression, encryption_key, encryption_method, directory,
             server, source, migrations, retention_days, expires_at, warnings, verified_at)
         values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(id)
    .bind(dump.format.as_str())
    .bind(dump.compression.to_string())
    .bind(dump.encryption.as_ref().map(|encryption| &encryption.key))
    .bind(dump.encryption.as_ref().map(|encryption| encryption.method.as_str()))
    .bind(&dump.directory)
    .bind(&dump.server)
    .bind(&dump.source)
    .bind(dump.migrations.as_ref().map(json))
    .bind(dump.retention_days)
    .bind(dump.expires_at.map(millis))
    .bind(json(&dump.warnings))
    .bind(dump.verified_at.map(millis))
    .execute(conn)
    .await?;
    Ok(())
}

async fn insert_artifact(conn: &mut SqliteConnection, id: &str, artifact: &Artifact) -> sqlx::Result<()> {
    sqlx::query(
        "insert into artifacts (backup_id, role, path, size, sha256, raw_size, raw_sha256, hmac)
         values (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(id)
    .bind(artifact.role.as_str())
    .bind(&artifact.name)
    .bind(size(artifact.stored.size))
    .bind(&artifact.stored.sha256)
    .bind(size(artifact.raw.size))
    .bind(&artifact.raw.sha256)
    .bind(&artifact.hmac)
    .execute(conn)
    .await?;
    Ok(())
}

async fn upsert_copy(conn: &mut SqliteConnection, id: &str, copy: &BackupCopy) -> sqlx::Result<()> {
    sqlx::query(
        "insert into copies (backup_id, storage, state, detail, checked_at, locked_until) values (?, ?, ?, ?, ?, ?)
             on conflict (backup_id, storage) do update set state = excluded.state, detail = excluded.detail,
                checked_at = excluded.checked_at, locked_until = excluded.locked_until",
    )
    .bind(id)
    .bind(&copy.storage)
    .bind(copy.state.as_str())
    .bind(&copy.detail)
    .bind(millis(copy.checked_at))
    .bind(copy.locked_until.map(millis))
    .execute(conn)
    .await?;
    Ok(())
}

/// Says that the copies of a backup that may be there are not known any more.
pub(super) async fn doubt_copies(conn: &mut SqliteConnection, id: &str, why: &str) -> sqlx::Result<()> {
    let sql =
        "update copies set state = 'unknown', detail = ? where backup_id = ? and state not in ('deleted', 'failed')";
    sqlx::query(sql).bind(why).bind(id).execute(conn).await?;
    Ok(())
}

/// Gives the dumps among these backups what they have beyond the row in `backups`.
pub(super) async fn attach(conn: &mut SqliteConnection, mut backups: Vec<Backup>) -> sqlx::Result<Vec<Backup>> {
    let ids: Vec<&str> = backups
        .iter()
        .filter(|backup| backup.engine != EngineKind::PgBackRest)
        .map(|backup| backup.id.as_str())
        .collect();
    if ids.is_empty() {
        return Ok(backups);
    }
    let ids = json(&ids);
    let mut dumps: HashMap<String, Dump> =
        of_backups(conn, ("dumps", "backup_id"), &ids, dump).await?.into_iter().collect();
    for (id, artifact) in artifacts(conn, &ids).await? {
        dumps.get_mut(&id).map(|dump| dump.artifacts.push(artifact)).unwrap_or_default();
    }
    for (id, copy) in copies(conn, &ids).await? {
        dumps.get_mut(&id).map(|dump| dump.copies.push(copy)).unwrap_or_default();
    }
    for backup in &mut backups {
        backup.dump = dumps.remove(&backup.id);
    }
    Ok(backups)
}

async fn artifacts(conn: &mut SqliteConnection, ids: &str) -> sqlx::Result<Vec<(String, Artifact)>> {
    of_backups(conn, ("artifacts", "id"), ids, artifact).await
}

async fn copies(conn: &mut SqliteConnection, ids: &str) -> sqlx::Result<Vec<(String, BackupCopy)>> {
    of_backups(conn, ("copies", "id"), ids, copy).await
}

/// The rows of a table that belong to some backups, by one of its columns.
async fn of_backups<T>(
    conn: &mut SqliteConnection,
    (table, order): (&'static str, &str),
    ids: &str,
    of: fn(&Bunched<'_>) -> sqlx::Result<T>,
) -> sqlx::Result<Vec<(String, T)>> {
    let mut rows = Bunches::of(conn, table, order).await?;
    rows.sql()
        .push(" where backup_id in (select value from json_each(")
        .push_bind(ids)
        .push(")) order by ")
        .push(order);
    rows.read(conn, |row| Ok((row.text("backup_id")?, of(row)?))).await
}

fn dump(row: &Bunched<'_>) -> sqlx::Result<Dump> {
    let key = row.opt_text("encryption_key")?;
    let method = row.opt_word("encryption_method")?;
    let migrations: Option<String> = row.opt_text("migrations")?;
    Ok(Dump {
        format: row.word("format")?,
        compression: row.word("compression")?,
        encryption: key.zip(method).map(|(key, method)| Encryption { key, method }),
        directory: row.text("directory")?,
        artifacts: Vec::new(),
        copies: Vec::new(),
        server: row.text("server")?,
        source: row.text("source")?,
        migrations: migrations.map(|_| row.json("migrations")).transpose()?,
        retention_days: row.opt_number("retention_days")?,
        expires_at: row.opt_time("expires_at")?,
        warnings: row.json("warnings")?,
        verified_at: row.opt_time("verified_at")?,
    })
}

fn artifact(row: &Bunched<'_>) -> sqlx::Result<Artifact> {
    Ok(Artifact {
        role: row.word("role")?,
        name: row.text("path")?,
        raw: Digest { size: row.number("raw_size")?, sha256: row.text("raw_sha256")? },
        stored: Digest { size: row.number("size")?, sha256: row.text("sha256")? },
        hmac: row.opt_text("hmac")?,
    })
}

fn copy(row: &Bunched<'_>) -> sqlx::Result<BackupCopy> {
    Ok(BackupCopy {
        storage: row.text("storage")?,
        state: row.word("state")?,
        detail: row.opt_text("detail")?,
        checked_at: row.time("checked_at")?,
        locked_until: row.opt_time("locked_until")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        catalog::{
            BackupFilter,
            testing::{at, backup, catalog, copy, dump, plan, proof},
        },
        record::{EncryptionMethod, Migrations},
    };

    #[tokio::test]
    async fn a_dump_reads_back_as_it_was_written_by_every_way_of_reading() {
        let (_dir, catalog) = catalog().await;
        let mut written = dump("shop", "backup-20260102-000000-pre", 500);
        written.name = Some("pre".to_owned());
        let more = written.dump.as_mut().unwrap();
        more.encryption = Some(Encryption { key: "ops".to_owned(), method: EncryptionMethod::Aes256 });
        more.artifacts[0].hmac = Some("cc".to_owned());
        more.copies[1] =
            BackupCopy { detail: Some("it broke off".to_owned()), ..copy("local", CopyState::Failed, 500) };
        more.copies[0].locked_until = Some(at(9000));
        more.migrations = Some(Migrations {
            framework: "prisma".to_owned(),
            applied_count: 2,
            last_migration: Some("b".to_owned()),
            migrations_list: vec!["a".to_owned(), "b".to_owned()],
        });
        (more.retention_days, more.expires_at, more.verified_at) = (Some(7), Some(at(700)), Some(at(600)));
        more.warnings = vec!["`log` is not transactional".to_owned()];
        catalog.record_dump(&written).await.unwrap();
        catalog.record_backup(&backup("orders", "20260101-000000F", 100)).await.unwrap();
        let shop = "shop".parse().unwrap();
        assert_eq!(catalog.backup(&written.id).await.unwrap().as_ref(), Some(&written));
        assert_eq!(catalog.backups(&shop).await.unwrap(), [written.clone()]);
        assert_eq!(catalog.known_backups(&shop).await.unwrap(), [written.clone()]);
        let all = catalog.all_backups(&BackupFilter::default()).await.unwrap();
        assert_eq!((&all[0], &all[1].dump), (&written, &None));
        catalog.record_dump(&written).await.unwrap();
        assert_eq!(catalog.backup(&written.id).await.unwrap(), Some(written), "twice changes nothing");
    }

    #[tokio::test]
    async fn a_backup_without_a_dump_is_refused_and_leaves_nothing() {
        let (_dir, catalog) = catalog().await;
        let none = Backup { dump: None, ..dump("shop", "backup-1", 500) };
        assert!(catalog.record_dump(&none).await.is_err());
        assert_eq!(catalog.backup("backup-1").await.unwrap(), None);
    }

    #[test]
    fn the_status_of_a_dump_follows_from_its_copies() {
        use BackupStatus as Status;
        use CopyState::{Damaged, Deleted, Failed, Good, Missing, Unknown};
        for (states, status) in [
            (&[Good][..], Some(Status::Good)),
            (&[Damaged, Missing, Good], Some(Status::Good)),
            (&[Unknown, Damaged], None),
            (&[Unknown], None),
            (&[], None),
            (&[Failed], None),
            (&[Damaged], Some(Status::Damaged)),
            (&[Damaged, Missing], Some(Status::Damaged)),
            (&[Damaged, Deleted], Some(Status::Damaged)),
            (&[Missing, Failed], Some(Status::Lost)),
            (&[Deleted], Some(Status::Expired)),
            (&[Deleted, Missing], Some(Status::Expired)),
            (&[Deleted, Unknown], None),
        ] {
            let copies: Vec<BackupCopy> = states.iter().map(|state| copy("s", *state, 1)).collect();
            assert_eq!(standing(&copies), status, "{states:?}");
        }
    }

    #[tokio::test]
    async fn a_dump_is_damaged_when_its_last_good_copy_is_and_good_again_when_one_is() {
        let (_dir, catalog) = catalog().await;
        let made = dump("shop", "backup-1", 500);
        catalog.record_dump(&made).await.unwrap();
        let bad = |storage: &str, state, detail: &str| BackupCopy {
            detail: Some(detail.to_owned()),
            ..copy(storage, state, 600)
        };
        let now = async || {
            let found = catalog.backup("backup-1").await.unwrap().unwrap();
            (found.status, found.expired_reason, found.expired_at, found.dump.unwrap().verified_at)
        };
        let one = [
            bad("local", CopyState::Damaged, "`shop.dump.zst` has another checksum"),
            copy("offsite", CopyState::Good, 600),
        ];
        catalog.record_copies("backup-1", &one, Some(at(600))).await.unwrap();
        assert_eq!(now().await, (BackupStatus::Good, None, None, Some(at(600))));
        let both = [bad("offsite", CopyState::Missing, "`shop.dump.zst` is missing")];
        catalog.record_copies("backup-1", &both, None).await.unwrap();
        let why = "offsite: `shop.dump.zst` is missing; local: `shop.dump.zst` has another checksum";
        assert_eq!(now().await, (BackupStatus::Damaged, Some(why.to_owned()), None, Some(at(600))));
        catalog.record_copies("backup-1", &[copy("local", CopyState::Missing, 700)], None).await.unwrap();
        assert_eq!(now().await.0, BackupStatus::Lost);
        assert_eq!(now().await.2, Some(at(700)));
        catalog.record_copies("backup-1", &[copy("local", CopyState::Good, 800)], Some(at(800))).await.unwrap();
        assert_eq!(now().await, (BackupStatus::Good, None, None, Some(at(800))));
        let found = catalog.backup("backup-1").await.unwrap().unwrap().dump.unwrap();
        assert_eq!(found.copies.len(), 2, "a copy is known once");
        assert_eq!(found.copies[0].detail.as_deref(), Some("`shop.dump.zst` is missing"));
    }

    #[tokio::test]
    async fn whoever_ended_a_dump_is_believed_about_why() {
        let (_dir, catalog) = catalog().await;
        let made = dump("shop", "backup-1", 500);
        catalog.record_dump(&made).await.unwrap();
        let ids = ["backup-1".to_owned()];
        catalog.mark_backups(&ids, BackupStatus::Expired, Some("by ada: wrong data"), at(900)).await.unwrap();
        let gone = [copy("local", CopyState::Deleted, 901), copy("offsite", CopyState::Deleted, 902)];
        catalog.record_copies("backup-1", &gone, None).await.unwrap();
        let found = catalog.backup("backup-1").await.unwrap().unwrap();
        assert_eq!((found.status, found.expired_at), (BackupStatus::Expired, Some(at(900))));
        assert_eq!(found.expired_reason.as_deref(), Some("by ada: wrong data"));
        assert!(catalog.backups(&made.database).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_dump_whose_deletion_was_begun_has_no_good_copy_and_never_becomes_good_again() {
        let (_dir, catalog) = catalog().await;
        let mut made = dump("shop", "backup-1", 500);
        made.dump.as_mut().unwrap().copies.push(copy("third", CopyState::Failed, 500));
        catalog.record_dump(&made).await.unwrap();
        assert!(catalog.end_backup("backup-1", BackupStatus::Good, "beyond full = 1", at(900)).await.unwrap());
        let now = async || {
            let found = catalog.backup("backup-1").await.unwrap().unwrap();
            let states: Vec<CopyState> = found.dump.unwrap().copies.iter().map(|copy| copy.state).collect();
            (found.status, found.expired_reason, found.expired_at, states)
        };
        let ended = |states: [CopyState; 3]| {
            (BackupStatus::Expired, Some("beyond full = 1".to_owned()), Some(at(900)), states.to_vec())
        };
        assert_eq!(now().await, ended([CopyState::Unknown, CopyState::Unknown, CopyState::Failed]));
        for state in [CopyState::Good, CopyState::Damaged, CopyState::Missing, CopyState::Deleted] {
            catalog.record_copies("backup-1", &[copy("local", state, 950)], None).await.unwrap();
            assert_eq!(now().await, ended([CopyState::Unknown, state, CopyState::Failed]), "{state}");
        }
    }

    #[tokio::test]
    async fn a_hold_and_a_proof_survive_a_second_recording() {
        let (_dir, catalog) = catalog().await;
        let made = dump("shop", "backup-1", 500);
        catalog.record_dump(&made).await.unwrap();
        catalog.hold("backup-1", "audit", None, "ada", at(501)).await.unwrap();
        catalog.record_proof(&proof(&catalog, "backup-1", 600, true).await).await.unwrap();
        catalog.record_dump(&made).await.unwrap();
        let found = catalog.backup("backup-1").await.unwrap().unwrap();
        assert_eq!((found.held.as_deref(), found.proven_at), (Some("audit"), Some(at(600))));
    }

    #[tokio::test]
    async fn the_history_is_the_median_of_the_last_ten_good_dumps() {
        let (_dir, catalog) = catalog().await;
        let shop: DatabaseName = "shop".parse().unwrap();
        assert_eq!(catalog.dump_history(&shop).await.unwrap(), DumpHistory::default());
        for n in 1..=13_i64 {
            let mut made = dump("shop", &format!("backup-{n}"), n * 1000);
            // The three oldest and a damaged one would move each median.
            made.size = if n <= 3 { 9_000_000 } else { 1000 };
            made.status = if n == 13 { BackupStatus::Damaged } else { BackupStatus::Good };
            made.repo_size = Some(if n == 12 { 1000 } else { 250 });
            catalog.record_dump(&made).await.unwrap();
        }
        catalog.record_backup(&backup("shop", "20260101-000000F", 99_000)).await.unwrap();
        let history = catalog.dump_history(&shop).await.unwrap();
        assert_eq!(history, DumpHistory { count: 10, raw_size: 1000, ratio: 0.25, rate: 100.0 });
        let steps = plan(&catalog, sqlx::AssertSqlSafe(LAST_GOOD)).await;
        assert!(steps.iter().any(|step| step.contains("backups_live (database=?)")), "{steps:?}");
    }

    #[test]
    fn a_dump_that_took_no_time_or_a_negative_one_has_a_rate() {
        let seen = [Seen { raw: 10, stored: 20, millis: 1 }];
        assert_eq!(history(&seen), DumpHistory { count: 1, raw_size: 10, ratio: 2.0, rate: 10_000.0 });
    }
}
