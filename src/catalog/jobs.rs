//! Jobs: what the policy wants to happen, and since when it does.
//!
//! A job's row outlives its place in the policy, because runs refer to it. A newcomer would loop over ten thousand jobs
//! with a statement each; one statement over a JSON list is fifty times faster.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::SqliteConnection;

use super::{
    Catalog, Result,
    fields::{json, key_columns, millis, moment},
};
use crate::record::{DatabaseName, JobKey};

/// Since when the policy has a job, and the nominal instant of its newest slot, whatever became of that.
pub(super) type Seen = (DateTime<Utc>, Option<DateTime<Utc>>);

impl Catalog {
    /// Takes note of all jobs of the policy and tells what is known of each.
    ///
    /// A job that left the policy and comes back later begins anew: its owner did not want what passed in between. So
    /// does a job whose schedule (the text beside its key) changed: the slots of the new one did not exist before.
    pub async fn sync_jobs(&self, jobs: &[(JobKey, String)], now: DateTime<Utc>) -> Result<HashMap<JobKey, Seen>> {
        let row = |(key, schedule): &(JobKey, String)| {
            let (database, kind, repo, name) = key_columns(key);
            json(&(database, kind, repo, name, schedule))
        };
        let rows = format!("[{}]", jobs.iter().map(row).collect::<Vec<_>>().join(","));
        let seen = self
            .write("taking note of the jobs", async |conn| {
                note(conn, &rows, now).await?;
                history(conn, &rows).await
            })
            .await?;
        Ok(jobs.iter().map(|(key, _)| key.clone()).zip(seen).collect())
    }
}

async fn note(conn: &mut SqliteConnection, rows: &str, now: DateTime<Utc>) -> sqlx::Result<()> {
    sqlx::query(
        "insert into jobs (database, kind, repo, name, schedule, first_seen_at, schedule_at)
         select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, ?2, ?2 from json_each(?1) where true
         on conflict (database, kind, repo, name) do update
            set first_seen_at = coalesce(first_seen_at, excluded.first_seen_at),
                schedule_at = excluded.schedule_at, schedule = excluded.schedule
          where first_seen_at is null or schedule <> excluded.schedule",
    )
    .bind(rows)
    .bind(millis(now))
    .execute(&mut *conn)
    .await?;
    sqlx::query(
        "update jobs set first_seen_at = null
          where first_seen_at is not null
            and (database, kind, repo, name) not in
                (select value ->> 0, value ->> 1, value ->> 2, value ->> 3 from json_each(?1))",
    )
    .bind(rows)
    .execute(conn)
    .await?;
    Ok(())
}

/// In the order of `rows`.
async fn history(conn: &mut SqliteConnection, rows: &str) -> sqlx::Result<Vec<Seen>> {
    let found: String = sqlx::query_scalar(
        "select json_group_array(json_array(first_seen_at, last_nominal_at)) from (
             select max(j.first_seen_at, j.schedule_at) as first_seen_at, (select max(nominal_at) from slots where job_id = j.id) as last_nominal_at
               from json_each(?1) wanted
               cross join jobs j on (j.database, j.kind, j.repo, j.name)
                  = (wanted.value ->> 0, wanted.value ->> 1, wanted.value ->> 2, wanted.value ->> 3)
              order by wanted.key)",
    )
    .bind(rows)
    .fetch_one(conn)
    .await?;
    let found: Vec<(i64, Option<i64>)> = serde_json::from_str(&found).map_err(|e| sqlx::Error::Decode(e.into()))?;
    found.into_iter().map(|(first, last)| Ok((moment(first)?, last.map(moment).transpose()?))).collect()
}

impl Catalog {
    /// Since when the policy has a database, by its oldest job.
    pub async fn known_since(&self, database: &DatabaseName) -> Result<Option<DateTime<Utc>>> {
        self.read("finding a database", async |conn| {
            let sql = "select min(first_seen_at) from jobs where database = ?";
            let since: Option<i64> = sqlx::query_scalar(sql).bind(database.as_str()).fetch_one(conn).await?;
            since.map(moment).transpose()
        })
        .await
    }
}

/// The row of a job; made where a person runs what no policy ever had.
pub(super) async fn row(conn: &mut SqliteConnection, key: &JobKey) -> sqlx::Result<i64> {
    let (database, kind, repo, name) = key_columns(key);
    let insert = "insert into jobs (database, kind, repo, name) values (?, ?, ?, ?) on conflict do nothing";
    let select = "select id from jobs where database = ? and kind = ? and repo = ? and name = ?";
    sqlx::query(insert).bind(database).bind(kind).bind(repo).bind(name).execute(&mut *conn).await?;
    sqlx::query_scalar(select).bind(database).bind(kind).bind(repo).bind(name).fetch_one(conn).await
}

#[cfg(test)]
mod tests {
    use crate::catalog::testing::{at, catalog, daily, key, many_keys, new_run, slot};

    #[tokio::test]
    async fn a_job_is_new_once_and_keeps_its_slots_in_mind() {
        let (_dir, catalog) = catalog().await;
        let keys = [key("orders/full"), key("orders/full@2:night"), key("catalog_backup")];
        catalog.sync_jobs(&daily(&keys), at(100)).await.unwrap();
        catalog.claim(&[slot("orders/full", 200), slot("orders/full", 150)], at(200)).await.unwrap();
        let seen = catalog.sync_jobs(&daily(&keys), at(300)).await.unwrap();
        assert_eq!(seen[&keys[0]], (at(100), Some(at(200))));
        assert_eq!(seen[&keys[1]], (at(100), None));
        assert_eq!(seen[&keys[2]], (at(100), None));
    }

    #[tokio::test]
    async fn a_job_that_comes_back_into_the_policy_begins_anew() {
        let (_dir, catalog) = catalog().await;
        let (full, diff) = (key("orders/full"), key("orders/diff"));
        catalog.sync_jobs(&daily(&[full.clone(), diff.clone()]), at(100)).await.unwrap();
        catalog.sync_jobs(&daily(std::slice::from_ref(&full)), at(200)).await.unwrap();
        let seen = catalog.sync_jobs(&daily(&[full.clone(), diff.clone()]), at(300)).await.unwrap();
        assert_eq!((seen[&full].0, seen[&diff].0), (at(100), at(300)));
    }

    #[tokio::test]
    async fn a_job_with_a_new_schedule_owes_nothing_from_before() {
        let (_dir, catalog) = catalog().await;
        let job = |schedule: &str| [(key("orders/full"), schedule.to_owned())];
        catalog.sync_jobs(&job("weekly"), at(100)).await.unwrap();
        catalog.sync_jobs(&job("weekly"), at(200)).await.unwrap();
        assert_eq!(catalog.sync_jobs(&job("weekly"), at(300)).await.unwrap()[&key("orders/full")].0, at(100));
        assert_eq!(catalog.sync_jobs(&job("daily"), at(400)).await.unwrap()[&key("orders/full")].0, at(400));
        assert_eq!(catalog.known_since(&"orders".parse().unwrap()).await.unwrap(), Some(at(100)));
    }

    #[tokio::test]
    async fn a_run_by_hand_does_not_make_a_job_look_old() {
        let (_dir, catalog) = catalog().await;
        catalog.start_run(&new_run("orders/full", None)).await.unwrap();
        let seen = catalog.sync_jobs(&daily(&[key("orders/full")]), at(900)).await.unwrap();
        assert_eq!(seen[&key("orders/full")].0, at(900));
    }

    #[tokio::test]
    async fn ten_thousand_jobs_are_one_statement_each_way() {
        let (_dir, catalog) = catalog().await;
        let keys = many_keys(10_000);
        catalog.sync_jobs(&daily(&keys), at(1)).await.unwrap();
        let seen = catalog.sync_jobs(&daily(&keys), at(2)).await.unwrap();
        assert_eq!(seen.len(), 10_000);
        assert!(seen.values().all(|seen| *seen == (at(1), None)));
        assert_eq!(catalog.sync_jobs(&[], at(3)).await.unwrap().len(), 0);
    }
}
