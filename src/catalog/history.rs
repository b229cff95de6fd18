//! Questions about many runs: the list people read, the newest of each job, rates and usual lengths.
//!
//! There may be a million runs, so each question goes from the few jobs to the index of theirs. A newcomer would group by
//! database over all runs, which takes a second and grows.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};
use sqlx::{QueryBuilder, Sqlite};

use super::{
    Catalog, Result,
    fields::{Fields, key_columns, millis, moment},
    runs::{run, select_runs},
};
use crate::record::{DatabaseName, JobKey, JobKind, Run, RunId, RunState};

/// Which runs are wanted; what is not set does not matter.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    /// Of this database.
    pub database: Option<DatabaseName>,
    /// Of this kind.
    pub kind: Option<JobKind>,
    /// In this state.
    pub state: Option<RunState>,
    /// Begun at this moment or later.
    pub since: Option<DateTime<Utc>>,
    /// At most so many; 0 is all.
    pub limit: u32,
}

/// The newest runs of one kind of one database, over all its repositories and schedules.
#[derive(Debug, Clone)]
pub struct LastRun {
    /// The newest, whatever became of it.
    pub newest: Run,
    /// The newest that succeeded.
    pub succeeded: Option<Run>,
}

/// How many of some runs succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Share {
    /// Those that succeeded.
    pub succeeded: u64,
    /// Those that ended.
    pub finished: u64,
}

impl Share {
    /// The share that succeeded, 0 to 1; none where nothing ended.
    pub fn rate(self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "counts of runs are far below 2^53")]
        (self.finished > 0).then(|| self.succeeded as f64 / self.finished as f64)
    }
}

/// Every state a run may be in, for queries that visit each part of the index.
const STATES: &str = "(values ('running'), ('succeeded'), ('failed'), ('interrupted'), ('requeued'))";

impl Catalog {
    /// Runs, the newest first.
    pub async fn runs(&self, filter: &RunFilter) -> Result<Vec<Run>> {
        self.read("listing runs", async |conn| {
            let rows = matching(filter).build().fetch_all(conn).await?;
            rows.iter().map(run).collect()
        })
        .await
    }

    /// The newest runs of each database and kind; jobs without a database stand under `None`.
    pub async fn last_runs(&self) -> Result<BTreeMap<(Option<DatabaseName>, JobKind), LastRun>> {
        let runs: Vec<Run> = self
            .read("finding the last runs", async |conn| {
                let rows = sqlx::query(LAST).fetch_all(conn).await?;
                rows.iter().map(run).collect()
            })
            .await?;
        let mut last: BTreeMap<_, LastRun> = BTreeMap::new();
        // Newest first, so the first of a key is its newest.
        for run in runs {
            let key = (run.job.database.clone(), run.job.kind);
            let has_succeeded = run.state == RunState::Succeeded;
            match last.get_mut(&key) {
                None => drop(last.insert(key, LastRun { succeeded: has_succeeded.then(|| run.clone()), newest: run })),
                Some(known) if has_succeeded && known.succeeded.is_none() => known.succeeded = Some(run),
                Some(_) => (),
            }
        }
        Ok(last)
    }

    /// When the newest run before this one began, or the newest WAL check if that was later.
    pub async fn last_event_before(&self, run: RunId) -> Result<Option<DateTime<Utc>>> {
        self.read("finding the last event", async |conn| {
            let sql = "select max(coalesce((select started_at from runs where id < ? order by id desc limit 1), 0),
                                  coalesce((select sampled_at from wal_samples order by id desc limit 1), 0))";
            let last: i64 = sqlx::query_scalar(sql).bind(run).fetch_one(conn).await?;
            (last > 0).then(|| moment(last)).transpose()
        })
        .await
    }

    /// How many backup runs of a database succeeded of those that began at `since` or later and ended.
    pub async fn backup_share(&self, database: &DatabaseName, since: DateTime<Utc>) -> Result<Share> {
        self.read("counting runs", async |conn| {
            let row = sqlx::query(SHARE).bind(database.as_str()).bind(millis(since)).fetch_one(conn).await?;
            Ok(Share { succeeded: row.number("succeeded")?, finished: row.number("finished")? })
        })
        .await
    }

    /// The median length of a job's last ten successes; none where it has none.
    pub async fn usual_duration(&self, job: &JobKey) -> Result<Option<Duration>> {
        let mut lengths: Vec<i64> = self
            .read("measuring a job", async |conn| {
                let (database, kind, repo, name) = key_columns(job);
                let query = sqlx::query_scalar(LENGTHS).bind(database).bind(kind).bind(repo).bind(name);
                query.fetch_all(conn).await
            })
            .await?;
        lengths.sort_unstable();
        let median = lengths.get(lengths.len() / 2).copied();
        Ok(median.map(|millis| Duration::from_millis(millis.max(0).unsigned_abs())))
    }
}

/// The newest run of each job in each state.
const LAST: &str = select_runs!(
    "where r.id in (select (select max(id) from runs where job_id = job.id and state = s.column1)
                      from jobs job
                      cross join (values ('running'), ('succeeded'), ('failed'), ('interrupted'), ('requeued')) s)
     order by r.id desc"
);

const SHARE: &str = "
    select count(*) filter (where r.state = 'succeeded') as succeeded, count(*) as finished
      from jobs j cross join runs r on r.job_id = j.id
     where j.database = ? and j.kind in ('full', 'diff', 'incr')
       and r.state in ('succeeded', 'failed', 'interrupted') and r.started_at >= ?";

const LENGTHS: &str = "
    select r.duration from runs r
     where r.job_id = (select id from jobs where database = ? and kind = ? and repo = ? and name = ?)
       and r.state = 'succeeded' and r.duration is not null
     order by r.id desc limit 10";

/// Without a filter the newest rows are the answer; else each job gives its newest, and the newest of those are.
fn matching(filter: &RunFilter) -> QueryBuilder<Sqlite> {
    let limit = if filter.limit == 0 { i64::MAX } else { i64::from(filter.limit) };
    let RunFilter { database, kind, state, since, .. } = filter;
    let mut sql = QueryBuilder::new(select_runs!(""));
    if database.is_none() && kind.is_none() && state.is_none() && since.is_none() {
        sql.push("order by r.id desc limit ").push_bind(limit);
        return sql;
    }
    sql.push("where r.id in (select c.id from jobs job cross join ")
        .push(STATES)
        .push(" s cross join runs c on c.id in ");
    sql.push("(select id from runs where job_id = job.id and state = s.column1");
    if let Some(since) = since {
        sql.push(" and started_at >= ").push_bind(millis(*since));
    }
    sql.push(" order by started_at desc limit ").push_bind(limit).push(") where true");
    if let Some(database) = database {
        sql.push(" and job.database = ").push_bind(database.as_str().to_owned());
    }
    if let Some(kind) = kind {
        sql.push(" and job.kind = ").push_bind(kind.as_str());
    }
    if let Some(state) = state {
        sql.push(" and s.column1 = ").push_bind(state.as_str());
    }
    sql.push(" order by c.started_at desc, c.id desc limit ").push_bind(limit);
    sql.push(") order by r.started_at desc, r.id desc");
    sql
}

#[cfg(test)]
mod tests {
    use sqlx::AssertSqlSafe;

    use super::*;
    use crate::{
        catalog::testing::{at, catalog, finish, key, many_runs, plan},
        clock::Stopwatch,
    };

    fn by(database: &str) -> RunFilter {
        RunFilter { database: Some(database.parse().unwrap()), limit: 100, ..RunFilter::default() }
    }

    #[tokio::test]
    async fn runs_are_found_by_every_filter_newest_first() {
        let (_dir, catalog) = catalog().await;
        let mut ids = Vec::new();
        for (job, time, state) in [
            ("orders/full", 10, RunState::Succeeded),
            ("orders/diff", 20, RunState::Failed),
            ("stock/full", 30, RunState::Succeeded),
            ("orders/diff", 40, RunState::Succeeded),
            ("catalog_backup", 50, RunState::Succeeded),
        ] {
            ids.push(finish(&catalog, job, None, time, state).await);
        }
        let found = async |filter: RunFilter| -> Vec<usize> {
            let runs = catalog.runs(&filter).await.unwrap();
            runs.iter().map(|run| ids.iter().position(|id| *id == run.id).unwrap()).collect()
        };
        assert_eq!(found(RunFilter::default()).await, [4, 3, 2, 1, 0]);
        assert_eq!(found(RunFilter { limit: 2, ..RunFilter::default() }).await, [4, 3]);
        assert_eq!(found(by("orders")).await, [3, 1, 0]);
        assert_eq!(found(RunFilter { limit: 1, ..by("orders") }).await, [3]);
        assert_eq!(found(RunFilter { kind: Some(JobKind::Full), ..RunFilter::default() }).await, [2, 0]);
        assert_eq!(found(RunFilter { state: Some(RunState::Failed), ..by("orders") }).await, [1]);
        assert_eq!(found(RunFilter { since: Some(at(20)), ..by("orders") }).await, [3, 1]);
        assert_eq!(found(RunFilter { since: Some(at(30)), ..RunFilter::default() }).await, [4, 3, 2]);
    }

    #[tokio::test]
    async fn the_last_run_is_the_newest_row_even_after_a_clock_that_was_wrong() {
        let (_dir, catalog) = catalog().await;
        finish(&catalog, "orders/full", None, 9_000_000, RunState::Succeeded).await;
        let good = finish(&catalog, "orders/full@2", None, 10, RunState::Succeeded).await;
        let bad = finish(&catalog, "orders/full", None, 20, RunState::Failed).await;
        let own = finish(&catalog, "catalog_backup", None, 30, RunState::Failed).await;
        let last = catalog.last_runs().await.unwrap();
        let full = &last[&(Some("orders".parse().unwrap()), JobKind::Full)];
        assert_eq!((full.newest.id, full.succeeded.as_ref().map(|run| run.id)), (bad, Some(good)));
        let copy = &last[&(None, JobKind::CatalogBackup)];
        assert_eq!((copy.newest.id, copy.succeeded.is_none()), (own, true));
        assert_eq!(last.len(), 2);
    }

    #[tokio::test]
    async fn the_success_rate_counts_ended_backups_since_a_moment() {
        let (_dir, catalog) = catalog().await;
        for (job, time, state) in [
            ("orders/full", 10, RunState::Failed),
            ("orders/full", 20, RunState::Succeeded),
            ("orders/incr", 30, RunState::Succeeded),
            ("orders/diff", 40, RunState::Interrupted),
            ("orders/wal", 50, RunState::Failed),
            ("stock/full", 60, RunState::Failed),
        ] {
            finish(&catalog, job, None, time, state).await;
        }
        let share = catalog.backup_share(&"orders".parse().unwrap(), at(20)).await.unwrap();
        assert_eq!(share, Share { succeeded: 2, finished: 3 });
        assert!(share.rate().is_some_and(|rate| (0.66..0.67).contains(&rate)));
        let none = catalog.backup_share(&"nobody".parse().unwrap(), at(0)).await.unwrap();
        assert_eq!(none.rate(), None);
    }

    #[tokio::test]
    async fn the_usual_length_is_the_median_of_the_last_ten_successes() {
        let (_dir, catalog) = catalog().await;
        assert_eq!(catalog.usual_duration(&key("orders/full")).await.unwrap(), None);
        many_runs(&catalog, &[key("orders/full")], 30).await;
        let usual = catalog.usual_duration(&key("orders/full")).await.unwrap();
        assert_eq!(usual, Some(Duration::from_millis(25)), "runs 20 to 29 took so many milliseconds");
    }

    #[tokio::test]
    async fn fifty_thousand_runs_are_never_read_one_by_one() {
        let (_dir, catalog) = catalog().await;
        let kinds = ["full", "diff", "incr", "wal", "expire"];
        let keys: Vec<_> = (0..10).flat_map(|n| kinds.map(|kind| key(&format!("db{n}/{kind}")))).collect();
        many_runs(&catalog, &keys, 50_000).await;
        let filters = [
            RunFilter { limit: 20, ..RunFilter::default() },
            by("db3"),
            RunFilter { state: Some(RunState::Failed), limit: 20, ..RunFilter::default() },
            RunFilter { kind: Some(JobKind::Expire), since: Some(at(1_000)), limit: 20, ..RunFilter::default() },
        ];
        let newest = plan(&catalog, matching(&filters[0]).into_sql()).await;
        assert!(
            newest.iter().all(|step| !step.contains("TEMP B-TREE")),
            "the table's own order is the answer: {newest:?}"
        );
        let mut statements: Vec<String> = filters[1..].iter().map(|filter| matching(filter).into_string()).collect();
        statements.extend([LAST, SHARE, LENGTHS].map(str::to_owned));
        for sql in statements {
            let steps = plan(&catalog, AssertSqlSafe(sql.clone())).await;
            let reads_all = |step: &String| ["SCAN r", "SCAN runs", "SCAN c"].iter().any(|scan| step.starts_with(scan));
            assert!(!steps.iter().any(reads_all), "{steps:#?}\nof {sql}");
        }
        let watch = Stopwatch::start();
        let last = catalog.last_runs().await.unwrap();
        println!("last runs of 50 jobs in {:?}", watch.elapsed());
        assert_eq!(last.len(), 50);
        for filter in &filters {
            let watch = Stopwatch::start();
            let found = catalog.runs(filter).await.unwrap();
            println!("{} runs in {:?}", found.len(), watch.elapsed());
        }
    }
}
