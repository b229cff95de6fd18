//! What WAL checks saw, and the windows they found.
//!
//! A newcomer would compute windows from samples here; `recovery.rs` does, this only keeps the last answer, so that
//! `status` can give it at once and with its age.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::sqlite::SqliteRow;

use super::{
    Catalog, Result,
    fields::{Fields, json, millis, moment},
};
use crate::record::{DatabaseName, RepoKey, WalSample, Window};

impl Catalog {
    /// Remembers what a WAL check saw.
    pub async fn record_wal_sample(&self, sample: &WalSample) -> Result<()> {
        self.write("recording a WAL sample", async |conn| {
            sqlx::query(
                "insert into wal_samples (database, sampled_at, timeline, current_lsn, last_archived_wal,
                     last_archived_at, failed_count, last_failed_at, ready_count, contiguous_to, gaps, problems)
                 values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(sample.database.as_str())
            .bind(millis(sample.sampled_at))
            .bind(sample.timeline)
            .bind(&sample.current_lsn)
            .bind(&sample.last_archived_wal)
            .bind(sample.last_archived_at.map(millis))
            .bind(sample.failed_count)
            .bind(sample.last_failed_at.map(millis))
            .bind(sample.ready_count)
            .bind(json(&sample.contiguous_to))
            .bind(json(&sample.gaps))
            .bind(json(&sample.problems))
            .execute(conn)
            .await?;
            Ok(())
        })
        .await
    }

    /// The samples of a database from `since` on, the newest first.
    pub async fn wal_samples(&self, database: &DatabaseName, since: DateTime<Utc>) -> Result<Vec<WalSample>> {
        self.read("listing WAL samples", async |conn| {
            let sql =
                "select * from wal_samples where database = ? and sampled_at >= ? order by sampled_at desc, id desc";
            let rows = sqlx::query(sql).bind(database.as_str()).bind(millis(since)).fetch_all(conn).await?;
            rows.iter().map(sample).collect()
        })
        .await
    }

    /// The sample of a database that was recorded last; its moment may be told by another clock than the one before.
    pub async fn latest_wal_sample(&self, database: &DatabaseName) -> Result<Option<WalSample>> {
        self.read("reading the last WAL sample", async |conn| {
            let sql = "select * from wal_samples where id = (select max(id) from wal_samples where database = ?)";
            let row = sqlx::query(sql).bind(database.as_str()).fetch_optional(conn).await?;
            row.as_ref().map(sample).transpose()
        })
        .await
    }

    /// When a WAL check last reached each of these repositories; those that none ever reached are left out.
    pub async fn judged_at(
        &self,
        database: &DatabaseName,
        repos: &[RepoKey],
    ) -> Result<BTreeMap<RepoKey, DateTime<Utc>>> {
        self.read("finding the last looks", async |conn| {
            let mut judged = BTreeMap::new();
            for repo in repos {
                // A look that reached a repository names it among the gaps, if with none.
                let sql = "select sampled_at from wal_samples
                            where database = ? and exists (select 1 from json_each(gaps) where key = ?)
                            order by sampled_at desc limit 1";
                let query = sqlx::query_scalar(sql).bind(database.as_str()).bind(repo.to_string());
                if let Some(at) = query.fetch_optional(&mut *conn).await? {
                    judged.insert(*repo, moment(at)?);
                }
            }
            Ok(judged)
        })
        .await
    }

    /// Puts the windows of a database on one repository in the place of those found before.
    pub async fn replace_windows(&self, database: &DatabaseName, repo: RepoKey, windows: &[Window]) -> Result<()> {
        self.write("recording windows", async |conn| {
            let clear = "delete from windows where database = ? and repo = ?";
            sqlx::query(clear).bind(database.as_str()).bind(repo).execute(&mut *conn).await?;
            for (position, window) in (1i64..).zip(windows) {
                let sql =
                    "insert into windows (database, repo, position, label, from_at, to_at) values (?, ?, ?, ?, ?, ?)";
                sqlx::query(sql)
                    .bind(database.as_str())
                    .bind(repo)
                    .bind(position)
                    .bind(&window.label)
                    .bind(millis(window.from))
                    .bind(millis(window.to))
                    .execute(&mut *conn)
                    .await?;
            }
            Ok(())
        })
        .await
    }

    /// Forgets the windows of a database on repositories other than these, because nobody looks at those any more.
    pub async fn keep_windows_of(&self, database: &DatabaseName, repos: &[RepoKey]) -> Result<()> {
        let repos = json(&repos);
        self.write("forgetting windows", async |conn| {
            let sql = "delete from windows where database = ? and repo not in (select value from json_each(?))";
            sqlx::query(sql).bind(database.as_str()).bind(&repos).execute(conn).await?;
            Ok(())
        })
        .await
    }

    /// The windows of a database on all repositories, in the order in which they were found.
    pub async fn windows(&self, database: &DatabaseName) -> Result<Vec<Window>> {
        self.read("listing windows", async |conn| {
            let sql = "select * from windows where database = ? order by repo, position";
            let rows = sqlx::query(sql).bind(database.as_str()).fetch_all(conn).await?;
            rows.iter().map(window).collect()
        })
        .await
    }
}

fn sample(row: &SqliteRow) -> sqlx::Result<WalSample> {
    Ok(WalSample {
        database: row.word("database")?,
        sampled_at: row.time("sampled_at")?,
        timeline: row.opt_number("timeline")?,
        current_lsn: row.opt_text("current_lsn")?,
        last_archived_wal: row.opt_text("last_archived_wal")?,
        last_archived_at: row.opt_time("last_archived_at")?,
        failed_count: row.opt_int("failed_count")?,
        last_failed_at: row.opt_time("last_failed_at")?,
        ready_count: row.opt_int("ready_count")?,
        contiguous_to: row.json("contiguous_to")?,
        gaps: row.json("gaps")?,
        problems: row.json("problems")?,
    })
}

fn window(row: &SqliteRow) -> sqlx::Result<Window> {
    Ok(Window {
        database: row.word("database")?,
        repo: row.number("repo")?,
        label: row.text("label")?,
        from: row.time("from_at")?,
        to: row.time("to_at")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::testing::{at, catalog, sample as some};

    #[tokio::test]
    async fn samples_read_back_newest_first() {
        let (_dir, catalog) = catalog().await;
        let orders = "orders".parse().unwrap();
        assert_eq!(catalog.latest_wal_sample(&orders).await.unwrap(), None);
        let full = WalSample {
            timeline: Some(3),
            current_lsn: Some("0/3000060".to_owned()),
            last_archived_wal: Some("000000030000000000000002".to_owned()),
            last_archived_at: Some(at(190)),
            failed_count: Some(2),
            last_failed_at: Some(at(150)),
            ready_count: Some(4),
            contiguous_to: BTreeMap::from([(1, "000000030000000000000002".to_owned())]),
            gaps: BTreeMap::from([(2, vec!["A..B".to_owned()])]),
            problems: vec!["hole".to_owned()],
            ..some("orders", 200)
        };
        for sample in [&some("orders", 100), &full, &some("stock", 300)] {
            catalog.record_wal_sample(sample).await.unwrap();
        }
        assert_eq!(catalog.latest_wal_sample(&orders).await.unwrap(), Some(full.clone()));
        assert_eq!(catalog.wal_samples(&orders, at(0)).await.unwrap(), [full.clone(), some("orders", 100)]);
        assert_eq!(catalog.wal_samples(&orders, at(101)).await.unwrap(), [full]);
        catalog.record_wal_sample(&some("orders", 150)).await.unwrap();
        let last = catalog.latest_wal_sample(&orders).await.unwrap();
        assert_eq!(last, Some(some("orders", 150)), "a look that failed has only our clock, which may be behind");
    }

    #[tokio::test]
    async fn a_look_that_reached_a_repository_is_found_behind_one_that_did_not() {
        let (_dir, catalog) = catalog().await;
        let orders = "orders".parse().unwrap();
        let saw = |repos: &[RepoKey], sampled| WalSample {
            gaps: repos.iter().map(|repo| (*repo, Vec::new())).collect(),
            ..some("orders", sampled)
        };
        for sample in [saw(&[1, 2], 100), saw(&[1], 200), saw(&[], 300), saw(&[11], 400)] {
            catalog.record_wal_sample(&sample).await.unwrap();
        }
        let judged = catalog.judged_at(&orders, &[1, 2, 3]).await.unwrap();
        assert_eq!(judged, BTreeMap::from([(1, at(200)), (2, at(100))]));
    }

    #[tokio::test]
    async fn windows_of_one_repository_replace_only_its_own() {
        let (_dir, catalog) = catalog().await;
        let orders: DatabaseName = "orders".parse().unwrap();
        let window = |repo, from| Window {
            database: "orders".parse().unwrap(),
            repo,
            label: format!("from-{from}"),
            from: at(from),
            to: at(from + 50),
        };
        catalog.replace_windows(&orders, 1, &[window(1, 0), window(1, 100)]).await.unwrap();
        catalog.replace_windows(&orders, 2, &[window(2, 0)]).await.unwrap();
        catalog.replace_windows(&orders, 1, &[window(1, 200)]).await.unwrap();
        assert_eq!(catalog.windows(&orders).await.unwrap(), [window(1, 200), window(2, 0)]);
        catalog.replace_windows(&orders, 1, &[]).await.unwrap();
        assert_eq!(catalog.windows(&orders).await.unwrap(), [window(2, 0)]);
        catalog.replace_windows(&orders, 1, &[window(1, 300)]).await.unwrap();
        catalog.keep_windows_of(&orders, &[1, 3]).await.unwrap();
        assert_eq!(catalog.windows(&orders).await.unwrap(), [window(1, 300)]);
    }
}
