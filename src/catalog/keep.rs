//! What the catalog forgets: old runs, old slots, uneventful WAL samples.
//!
//! What is needed to judge the present stays however old it is: the newest run of each job in each state, the newest slot
//! of each job, runs that proofs refer to, and everything about backups, proofs and the audit. Rows go in small
//! transactions, because the ring must be able to claim its slots in between. A newcomer would delete a year in one.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{
    Catalog, Result,
    fields::{json, length, millis},
};

/// How many rows one transaction removes.
const BATCH: usize = 2_000;

/// Uneventful WAL slots and samples older than this are thinned out.
const RECENT: Duration = Duration::from_secs(2 * 24 * 3600);

/// How many rows were forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruned {
    /// Runs.
    pub runs: u64,
    /// Their attempts.
    pub attempts: u64,
    /// Slots.
    pub slots: u64,
    /// WAL samples.
    pub wal_samples: u64,
}

impl Catalog {
    /// Forgets what is older than `keep_runs` and not needed, and what is uneventful and older than two days.
    pub async fn prune(&self, keep_runs: Duration, now: DateTime<Utc>) -> Result<Pruned> {
        let before = millis(now).saturating_sub(length(keep_runs));
        let recent = millis(now).saturating_sub(length(RECENT));
        let mut pruned = Pruned::default();
        for chunk in self.candidates(OLD_RUNS, before).await?.chunks(BATCH) {
            pruned.attempts +=
                self.remove("delete from attempts where run_id in (select value from json_each(?))", chunk).await?;
            pruned.runs += self.remove("delete from runs where id in (select value from json_each(?))", chunk).await?;
        }
        for (query, than) in [(OLD_SLOTS, before), (QUIET_WAL_SLOTS, recent)] {
            for chunk in self.candidates(query, than).await?.chunks(BATCH) {
                pruned.slots +=
                    self.remove("delete from slots where id in (select value from json_each(?))", chunk).await?;
            }
        }
        for (query, than) in [(OLD_SAMPLES, before), (QUIET_SAMPLES, recent)] {
            for chunk in self.candidates(query, than).await?.chunks(BATCH) {
                let sql = "delete from wal_samples where id in (select value from json_each(?))";
                pruned.wal_samples += self.remove(sql, chunk).await?;
            }
        }
        Ok(pruned)
    }

    /// Rows to forget, found by a reader so that nobody waits for the search.
    async fn candidates(&self, query: &'static str, before: i64) -> Result<Vec<i64>> {
        self.read("finding what to forget", async |conn| sqlx::query_scalar(query).bind(before).fetch_all(conn).await)
            .await
    }

    async fn remove(&self, sql: &'static str, ids: &[i64]) -> Result<u64> {
        let ids = json(&ids);
        self.write("forgetting", async |conn| Ok(sqlx::query(sql).bind(&ids).execute(conn).await?.rows_affected()))
            .await
    }
}

const OLD_RUNS: &str = "
    select r.id
      from jobs j
      cross join (values ('succeeded'), ('failed'), ('interrupted'), ('requeued')) s
      cross join runs r on r.job_id = j.id and r.state = s.column1 and r.started_at < ?
     where r.id <> (select max(id) from runs where job_id = j.id and state = s.column1)
       and not exists (select 1 from proofs where run_id = r.id)";

const OLD_SLOTS: &str = "
    select s.id
      from jobs j cross join slots s on s.job_id = j.id and s.nominal_at < ?
     where s.state not in ('due', 'claimed')
       and s.nominal_at < (select max(nominal_at) from slots where job_id = j.id)";

const QUIET_WAL_SLOTS: &str = "
    select s.id
      from jobs j cross join slots s on s.job_id = j.id and s.nominal_at < ?
     where j.kind = 'wal' and s.state not in ('due', 'claimed')
       and s.nominal_at < (select max(nominal_at) from slots where job_id = j.id)
       and not exists (select 1 from runs where slot_id = s.id)";

const OLD_SAMPLES: &str = "
    select id from wal_samples s
     where sampled_at < ? and id <> (select max(id) from wal_samples where database = s.database)";

/// Of each hour the first sample stays, and each that saw a problem.
const QUIET_SAMPLES: &str = "
    select s.id
      from wal_samples s
     where s.sampled_at < ? and s.problems = '[]'
       and exists (select 1 from wal_samples earlier
                    where earlier.database = s.database and earlier.sampled_at < s.sampled_at
                      and earlier.sampled_at >= s.sampled_at - s.sampled_at % 3600000)
       and s.id <> (select max(id) from wal_samples where database = s.database)";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        catalog::testing::{at, backup, catalog, finish, key, many_runs, new_run, proof, sample, slot},
        record::{RunState, Slot, SlotState, WalSample},
    };

    const DAY: i64 = 24 * 3600;
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

    #[tokio::test]
    async fn old_runs_go_with_their_attempts_but_the_newest_of_each_state_stays() {
        let (_dir, catalog) = catalog().await;
        many_runs(&catalog, &[key("orders/full"), key("orders/diff")], 5_000).await;
        let old = finish(&catalog, "orders/incr", None, 0, RunState::Succeeded).await;
        let older = finish(&catalog, "orders/incr", None, 1, RunState::Failed).await;
        let open = catalog.start_run(&new_run("orders/expire", None)).await.unwrap();
        let fresh = finish(&catalog, "orders/full", None, 400 * DAY, RunState::Succeeded).await;
        let pruned = catalog.prune(YEAR, at(401 * DAY)).await.unwrap();
        // `many_runs` makes each tenth fail and gives each run an attempt; two of them are the newest of their state.
        assert_eq!((pruned.runs, pruned.attempts), (4_998, 4_998), "{pruned:?}");
        for id in [old, older, open, fresh] {
            assert!(catalog.run(id).await.unwrap().is_some(), "{id}");
        }
        assert_eq!(catalog.prune(YEAR, at(401 * DAY)).await.unwrap(), Pruned::default(), "twice changes nothing");
    }

    #[tokio::test]
    async fn a_run_that_proved_something_stays_with_its_proof() {
        let (_dir, catalog) = catalog().await;
        let id = catalog.record_backup(&backup("orders", "20260101-000000F", 100)).await.unwrap();
        let proof = proof(&catalog, &id, 200, true).await;
        catalog.record_proof(&proof).await.unwrap();
        finish(&catalog, "orders/test_restore", None, 500, RunState::Succeeded).await;
        catalog.prune(YEAR, at(401 * DAY)).await.unwrap();
        assert!(catalog.run(proof.run).await.unwrap().is_some());
        assert_eq!(
            catalog.audit_verify().await.unwrap(),
            crate::catalog::Chain::Whole { count: 0, head: String::new() }
        );
    }

    #[tokio::test]
    async fn the_newest_slot_of_a_job_stays_so_that_nothing_is_made_up_for_twice() {
        let (_dir, catalog) = catalog().await;
        let wanted = [slot("orders/full", 0), slot("orders/full", DAY), slot("orders/full", 2 * DAY)];
        let ids: Vec<i64> = catalog.claim(&wanted, at(0)).await.unwrap().into_iter().flatten().collect();
        finish(&catalog, "orders/full", Some(ids[0]), 10, RunState::Succeeded).await;
        catalog.settle_slots(&[(ids[2], SlotState::Done, None)]).await.unwrap();
        let pruned = catalog.prune(YEAR, at(401 * DAY)).await.unwrap();
        assert_eq!(pruned.slots, 1, "the first is done; the second is still claimed; the third is the newest");
        let seen = catalog.sync_jobs(&crate::catalog::testing::daily(&[key("orders/full")]), at(0)).await.unwrap();
        assert_eq!(seen[&key("orders/full")].1, Some(at(2 * DAY)));
        let run = catalog.runs(&crate::catalog::RunFilter::default()).await.unwrap().remove(0);
        assert_eq!(run.slot, None, "the run stays without its slot");
    }

    #[tokio::test]
    async fn quiet_wal_checks_are_thinned_after_two_days() {
        let (_dir, catalog) = catalog().await;
        let mut slots: Vec<Slot> = (0..10).map(|n| slot("orders/wal", n * 600)).collect();
        slots.push(slot("orders/wal", 4 * DAY));
        let ids: Vec<i64> = catalog.claim(&slots, at(0)).await.unwrap().into_iter().flatten().collect();
        catalog.settle_slots(&ids.iter().map(|id| (*id, SlotState::Done, None)).collect::<Vec<_>>()).await.unwrap();
        for n in 0..10 {
            let problems = if n == 7 { vec!["late".to_owned()] } else { Vec::new() };
            catalog.record_wal_sample(&WalSample { problems, ..sample("orders", n * 600) }).await.unwrap();
        }
        catalog.record_wal_sample(&sample("orders", 4 * DAY)).await.unwrap();
        let pruned = catalog.prune(YEAR, at(4 * DAY)).await.unwrap();
        assert_eq!((pruned.slots, pruned.wal_samples), (10, 7));
        let orders = "orders".parse().unwrap();
        let left: Vec<_> = catalog.wal_samples(&orders, at(0)).await.unwrap().iter().map(|s| s.sampled_at).collect();
        assert_eq!(left, [at(4 * DAY), at(4200), at(3600), at(0)]);
        let old = catalog.prune(Duration::from_secs(24 * 3600), at(9 * DAY)).await.unwrap();
        assert_eq!(old.wal_samples, 3, "the last sample stays");
    }
}
