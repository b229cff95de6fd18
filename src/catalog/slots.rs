//! Slots: each occurrence of a job, taken once.
//!
//! The unique key on job and nominal instant is the whole of "exactly once": who inserts the row has the slot. A newcomer
//! would look first whether a slot is free and insert then; between the two another process may do the same.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    Catalog, Result,
    fields::{Fields, json, key_columns, millis},
};
use crate::{
    record::{DatabaseName, JobKey, RepoKey, Slot, SlotId, SlotState},
    schedule::FullHistory,
};

impl Catalog {
    /// Takes all slots that nobody has yet, in one transaction; `None` where the slot was taken before.
    pub async fn claim(&self, slots: &[Slot], now: DateTime<Utc>) -> Result<Vec<Option<SlotId>>> {
        if slots.is_empty() {
            return Ok(Vec::new());
        }
        let rows = slots.iter().map(|slot| {
            let (database, kind, repo, name) = key_columns(&slot.job);
            (database, kind, repo, name, millis(slot.nominal_at), slot.missed_count, &slot.skip)
        });
        let rows = json(&rows.collect::<Vec<_>>());
        let ids = self.write("claiming slots", async |conn| claim(conn, &rows, now).await).await?;
        // A slot that stands in the list twice is given once.
        let mut given = HashSet::new();
        Ok(ids.into_iter().map(|id| id.filter(|id| given.insert(*id))).collect())
    }

    /// Says how slots ended; the reason stays where none is given.
    pub async fn settle_slots(&self, ended: &[(SlotId, SlotState, Option<String>)]) -> Result<()> {
        let rows = json(&ended);
        self.write("settling slots", async |conn| {
            sqlx::query(
                "update slots set state = ended.state, reason = coalesce(ended.reason, slots.reason)
                   from (select value ->> 0 as id, value ->> 1 as state, value ->> 2 as reason from json_each(?)) ended
                  where slots.id = ended.id",
            )
            .bind(&rows)
            .execute(conn)
            .await?;
            Ok(())
        })
        .await
    }

    /// Gives a slot back whose run was interrupted. False: it was given back twice before and is closed instead.
    pub async fn return_slot(&self, slot: SlotId) -> Result<bool> {
        self.write("giving a slot back", async |conn| {
            let again = "update slots set state = 'due', returned_count = returned_count + 1
                          where id = ? and state in ('due', 'claimed') and returned_count < 2";
            if sqlx::query(again).bind(slot).execute(&mut *conn).await?.rows_affected() > 0 {
                return Ok(true);
            }
            let close = "update slots set state = 'done', reason = 'interrupted three times'
                          where id = ? and state in ('due', 'claimed')";
            sqlx::query(close).bind(slot).execute(conn).await?;
            Ok(false)
        })
        .await
    }

    /// Slots that are due, or that a daemon took and died before a run of theirs came to an end.
    pub async fn unfinished_slots(&self) -> Result<Vec<(SlotId, Slot)>> {
        self.read("listing unfinished slots", async |conn| {
            let rows = sqlx::query(UNFINISHED).fetch_all(conn).await?;
            rows.iter()
                .map(|row| {
                    let slot = Slot {
                        job: row.job_key()?,
                        nominal_at: row.time("nominal_at")?,
                        missed_count: row.number("missed_count")?,
                        skip: None,
                    };
                    Ok((row.int("id")?, slot))
                })
                .collect()
        })
        .await
    }

    /// Slots that did not run, the newest first.
    pub async fn skipped_slots(&self, database: Option<&DatabaseName>, limit: u32) -> Result<Vec<SkippedSlot>> {
        self.read("listing skipped slots", async |conn| {
            let rows =
                sqlx::query(SKIPPED).bind(database.map(DatabaseName::as_str)).bind(limit).fetch_all(conn).await?;
            let slot = |row: &SqliteRow| {
                Ok(SkippedSlot {
                    job: row.job_key()?,
                    nominal_at: row.time("nominal_at")?,
                    state: row.word("state")?,
                    reason: row.opt_text("reason")?.unwrap_or_default(),
                })
            };
            rows.iter().map(slot).collect()
        })
        .await
    }

    /// What promotion has to know about the fulls of a database on one repository.
    pub async fn full_history(&self, database: &DatabaseName, repo: RepoKey) -> Result<FullHistory> {
        self.read("looking at the fulls", async |conn| {
            let row = sqlx::query(FULLS).bind(database.as_str()).bind(repo).bind(0).fetch_optional(&mut *conn).await?;
            let sql = "select exists (select 1 from backups where database = ? and repo = ? and backup_type = 'full'
                                         and status = 'good')";
            let usable_full = sqlx::query_scalar(sql).bind(database.as_str()).bind(repo).fetch_one(conn).await?;
            let Some(row) = row else {
                return Ok(FullHistory { missed_full: false, made_up_for: false, usable_full });
            };
            let missed_full = row.try_get("missed")?;
            Ok(FullHistory { missed_full, made_up_for: missed_full && row.try_get("promoted")?, usable_full })
        })
        .await
    }
}

/// A slot that did not run, and why.
#[derive(Debug, Clone, Serialize)]
pub struct SkippedSlot {
    /// The job.
    pub job: JobKey,
    /// The slot's nominal instant.
    pub nominal_at: DateTime<Utc>,
    /// Skipped, superseded or coalesced.
    pub state: SlotState,
    /// Why.
    pub reason: String,
}

const SKIPPED: &str = "
    select s.nominal_at, s.state, s.reason, j.database, j.kind, j.repo, j.name
      from slots s indexed by slots_not_run join jobs j on j.id = s.job_id
     where s.state in ('skipped', 'superseded', 'coalesced') and (?1 is null or j.database = ?1)
     order by s.id desc limit ?2";

const UNFINISHED: &str = "
    select s.id, s.nominal_at, s.missed_count, j.database, j.kind, j.repo, j.name
      from slots s join jobs j on j.id = s.job_id
     where s.state in ('due', 'claimed')
       and (s.state = 'due' or not exists (select 1 from runs r where r.slot_id = s.id and r.state not in ('interrupted', 'requeued')))
     order by s.nominal_at, s.id";

/// The newest full slot, whether it was missed, and whether a promoted run stood in for it since. A job without a
/// repository of its own concerns every repository of the database.
const FULLS: &str = "
    with newest as (
        select s.id, s.nominal_at, s.state
          from jobs j cross join slots s on s.job_id = j.id
         where j.database = ?1 and j.kind = 'full' and j.repo in (?2, ?3)
           and s.nominal_at = (select max(nominal_at) from slots where job_id = j.id)
         order by s.nominal_at desc limit 1)
    select (n.state = 'skipped'
               or n.state = 'done' and not exists
                  (select 1 from runs r where r.slot_id = n.id and r.state = 'succeeded'))
           and not exists
               (select 1 from backups b
                 where b.database = ?1 and b.repo = ?2 and b.backup_type = 'full' and b.status = 'good'
                   and b.started_at >= n.nominal_at) as missed,
           exists
               (select 1 from jobs j cross join runs r on r.job_id = j.id
                 where j.database = ?1 and j.kind = 'full' and j.repo in (?2, ?3)
                   and r.state in ('running', 'succeeded', 'failed', 'interrupted') and r.started_at >= n.nominal_at
                   and r.promoted_from is not null) as promoted
      from newest n";

async fn claim(conn: &mut SqliteConnection, rows: &str, now: DateTime<Utc>) -> sqlx::Result<Vec<Option<SlotId>>> {
    sqlx::query(
        "insert into jobs (database, kind, repo, name, first_seen_at)
         select value ->> 0, value ->> 1, value ->> 2, value ->> 3, ?2 from json_each(?1) where true
         on conflict do nothing",
    )
    .bind(rows)
    .bind(millis(now))
    .execute(&mut *conn)
    .await?;
    let before: i64 = sqlx::query_scalar("select coalesce(max(id), 0) from slots").fetch_one(&mut *conn).await?;
    sqlx::query(
        "insert into slots (job_id, nominal_at, state, reason, missed_count, claimed_at)
         select j.id, wanted.value ->> 4, iif(wanted.value ->> 6 is null, 'claimed', 'skipped'), wanted.value ->> 6,
                wanted.value ->> 5, ?2
           from json_each(?1) wanted
           cross join jobs j on (j.database, j.kind, j.repo, j.name)
              = (wanted.value ->> 0, wanted.value ->> 1, wanted.value ->> 2, wanted.value ->> 3)
          where true
         on conflict do nothing",
    )
    .bind(rows)
    .bind(millis(now))
    .execute(&mut *conn)
    .await?;
    // Row numbers only grow and nobody else writes now, so the new rows are those beyond the old end.
    let ids: String = sqlx::query_scalar(
        "select json_group_array(id) from (
             select s.id
               from json_each(?1) wanted
               cross join jobs j on (j.database, j.kind, j.repo, j.name)
                  = (wanted.value ->> 0, wanted.value ->> 1, wanted.value ->> 2, wanted.value ->> 3)
               left join slots s on s.job_id = j.id and s.nominal_at = wanted.value ->> 4 and s.id > ?2
              order by wanted.key)",
    )
    .bind(rows)
    .bind(before)
    .fetch_one(conn)
    .await?;
    serde_json::from_str(&ids).map_err(|error| sqlx::Error::Decode(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        catalog::testing::{at, backup, catalog, end, finish, key, many_keys, new_run, open_second, slot},
        clock::Stopwatch,
        record::{BackupStatus, JobKind, RunState},
    };

    #[tokio::test]
    async fn a_slot_is_given_once_whoever_asks_and_how_often() {
        let (dir, first) = catalog().await;
        let second = open_second(dir.path()).await;
        let wanted = [slot("orders/full", 100), slot("orders/diff", 100), slot("orders/full", 100)];
        let (one, two) = tokio::join!(first.claim(&wanted, at(100)), second.claim(&wanted, at(100)));
        let (one, two) = (one.unwrap(), two.unwrap());
        let given = one.iter().chain(&two).flatten().collect::<Vec<_>>();
        assert_eq!(given.len(), 2, "{one:?} {two:?}");
        assert_eq!(first.claim(&wanted, at(101)).await.unwrap(), [None, None, None]);
        assert_eq!(first.claim(&[], at(101)).await.unwrap(), []);
    }

    #[tokio::test]
    async fn ten_thousand_slots_are_claimed_at_once() {
        let (_dir, catalog) = catalog().await;
        let keys = many_keys(10_000);
        catalog.sync_jobs(&crate::catalog::testing::daily(&keys), at(0)).await.unwrap();
        let slots: Vec<Slot> =
            keys.into_iter().map(|job| Slot { job, nominal_at: at(60), missed_count: 0, skip: None }).collect();
        let watch = Stopwatch::start();
        let ids = catalog.claim(&slots, at(60)).await.unwrap();
        println!("10,000 slots claimed in {:?}", watch.elapsed());
        assert_eq!(ids.iter().flatten().collect::<HashSet<_>>().len(), 10_000);
        assert_eq!(catalog.claim(&slots, at(61)).await.unwrap(), vec![None; 10_000]);
        let unfinished = catalog.unfinished_slots().await.unwrap();
        assert_eq!(unfinished.len(), 10_000);
        assert_eq!(unfinished[7], (ids[7].unwrap(), slots[7].clone()));
    }

    #[tokio::test]
    async fn a_skipped_slot_is_remembered_with_its_reason_and_is_not_left_over() {
        let (_dir, catalog) = catalog().await;
        let late = Slot { skip: Some("too late".to_owned()), missed_count: 3, ..slot("orders/full", 100) };
        assert!(catalog.claim(&[late], at(900)).await.unwrap()[0].is_some());
        assert_eq!(catalog.unfinished_slots().await.unwrap(), []);
        let found: (String, String, i64) = sqlx::query_as("select state, reason, missed_count from slots")
            .fetch_one(&catalog.inner.reader)
            .await
            .unwrap();
        assert_eq!(found, ("skipped".to_owned(), "too late".to_owned(), 3));
    }

    #[tokio::test]
    async fn an_interrupted_slot_comes_back_twice_and_no_more() {
        let (_dir, catalog) = catalog().await;
        let id = catalog.claim(&[slot("orders/full", 100)], at(100)).await.unwrap()[0].unwrap();
        for expected in [true, true, false] {
            let run = catalog.start_run(&new_run("orders/full", Some(id))).await.unwrap();
            assert_eq!(catalog.unfinished_slots().await.unwrap(), [], "its run is open");
            catalog.finish_run(run, &end(RunState::Interrupted)).await.unwrap();
            assert_eq!(catalog.unfinished_slots().await.unwrap().len(), 1, "nothing came of it yet");
            assert_eq!(catalog.return_slot(id).await.unwrap(), expected);
        }
        assert_eq!(catalog.unfinished_slots().await.unwrap(), []);
        assert!(!catalog.return_slot(id).await.unwrap(), "a closed slot stays closed");
    }

    #[tokio::test]
    async fn settled_slots_keep_a_reason_that_nobody_replaces() {
        let (_dir, catalog) = catalog().await;
        let ids = catalog.claim(&[slot("orders/full", 1), slot("orders/full", 2)], at(3)).await.unwrap();
        let (one, two) = (ids[0].unwrap(), ids[1].unwrap());
        let reason = Some("overlap".to_owned());
        catalog.settle_slots(&[(one, SlotState::Skipped, reason), (two, SlotState::Superseded, None)]).await.unwrap();
        catalog.settle_slots(&[(one, SlotState::Skipped, None)]).await.unwrap();
        let found: Vec<(String, Option<String>)> = sqlx::query_as("select state, reason from slots order by id")
            .fetch_all(&catalog.inner.reader)
            .await
            .unwrap();
        assert_eq!(found, [("skipped".to_owned(), Some("overlap".to_owned())), ("superseded".to_owned(), None)]);
    }

    #[tokio::test]
    async fn a_failed_full_is_missed_until_a_good_full_or_a_promotion() {
        let (_dir, catalog) = catalog().await;
        let orders = "orders".parse().unwrap();
        let facts = async || catalog.full_history(&orders, 1).await.unwrap();
        let none = FullHistory { missed_full: false, made_up_for: false, usable_full: false };
        assert_eq!(facts().await, none);

        let id = catalog.claim(&[slot("orders/full@1", 100)], at(100)).await.unwrap()[0].unwrap();
        assert_eq!(facts().await, none, "it is still to come");
        finish(&catalog, "orders/full@1", Some(id), 110, RunState::Failed).await;
        assert_eq!(facts().await, FullHistory { missed_full: true, ..none });
        assert_eq!(catalog.full_history(&orders, 2).await.unwrap(), none, "another repository");

        let mut promoted = new_run("orders/full@1", None);
        (promoted.promoted_from, promoted.started_at) = (Some(JobKind::Diff), at(200));
        catalog.start_run(&promoted).await.unwrap();
        assert_eq!(facts().await, FullHistory { missed_full: true, made_up_for: true, ..none });

        catalog.record_backup(&backup("orders", "20260101-000200F", 200)).await.unwrap();
        assert_eq!(facts().await, FullHistory { usable_full: true, ..none });
        let lost = catalog.backups(&orders).await.unwrap().remove(0).id;
        catalog.mark_backups(&[lost], BackupStatus::Lost, Some("gone"), at(300)).await.unwrap();
        assert_eq!(facts().await, FullHistory { missed_full: true, made_up_for: true, ..none });

        let skipped = Slot { skip: Some("overlap".to_owned()), ..slot("orders/full@1", 400) };
        catalog.claim(&[skipped], at(400)).await.unwrap();
        assert_eq!(facts().await, FullHistory { missed_full: true, ..none }, "a new one was missed");
        assert_eq!(key("orders/full@1").repo, Some(1));
    }
}
