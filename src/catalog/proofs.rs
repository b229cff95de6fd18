//! Proofs: restores that were really done, step by step.
//!
//! A newcomer would store only those that passed; one that failed is the most useful row here.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{SqliteConnection, sqlite::SqliteRow};

use super::{
    Catalog, Result,
    fields::{Fields, json, length, millis, size},
};
use crate::record::{DatabaseName, Proof, ProofStep, RunId};

/// A proof without its steps.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProofSummary {
    /// Its row.
    pub id: i64,
    /// The run that did it.
    pub run: RunId,
    /// When it ended.
    pub finished_at: DateTime<Utc>,
    /// Whether it passed.
    pub passed: bool,
    /// The moment in production's life to which the copy was recovered.
    pub recovered_to: Option<DateTime<Utc>>,
    /// The measured RTO.
    pub recovery_seconds: f64,
}

impl Catalog {
    /// Remembers a test restore; a passed one makes its backup proven. Returns its row; `id` is ignored.
    pub async fn record_proof(&self, proof: &Proof) -> Result<i64> {
        self.write("recording a proof", async |conn| {
            let id = insert(conn, proof).await?;
            for (position, step) in (1i64..).zip(&proof.steps) {
                insert_step(conn, id, position, step).await?;
            }
            if proof.passed {
                let sql = "update backups set proven_at = max(coalesce(proven_at, 0), ?) where id = ?";
                sqlx::query(sql).bind(millis(proof.finished_at)).bind(&proof.backup_id).execute(conn).await?;
            }
            Ok(id)
        })
        .await
    }

    /// The newest proof of a database, passed or not.
    pub async fn latest_proof(&self, database: &DatabaseName) -> Result<Option<Proof>> {
        Ok(self.proofs(database, 1).await?.pop())
    }

    /// The newest proof of a database that passed.
    pub async fn latest_passed_proof(&self, database: &DatabaseName) -> Result<Option<Proof>> {
        self.read("reading the last passed proof", async |conn| {
            let sql = "select * from proofs where database = ? and passed = 1 order by id desc limit 1";
            let row = sqlx::query(sql).bind(database.as_str()).fetch_optional(&mut *conn).await?;
            let Some(row) = row else { return Ok(None) };
            proof(conn, &row).await.map(Some)
        })
        .await
    }

    /// The proof that a run recorded.
    pub async fn proof_of_run(&self, run: RunId) -> Result<Option<Proof>> {
        self.read("reading a run's proof", async |conn| {
            let sql = "select * from proofs where run_id = ? order by id desc limit 1";
            let row = sqlx::query(sql).bind(run).fetch_optional(&mut *conn).await?;
            let Some(row) = row else { return Ok(None) };
            proof(conn, &row).await.map(Some)
        })
        .await
    }

    /// The proofs of some backups without their steps, by backup, the newest first.
    pub async fn proofs_of(&self, ids: &[String]) -> Result<HashMap<String, Vec<ProofSummary>>> {
        let ids = json(&ids);
        self.read("listing the proofs of backups", async |conn| {
            let sql = "select id, run_id, backup_id, finished_at, passed, recovered_to, recovery_time from proofs
                        where backup_id in (select value from json_each(?)) order by id desc";
            let mut proofs: HashMap<String, Vec<ProofSummary>> = HashMap::new();
            for row in sqlx::query(sql).bind(&ids).fetch_all(conn).await? {
                proofs.entry(row.text("backup_id")?).or_default().push(summary(&row)?);
            }
            Ok(proofs)
        })
        .await
    }

    /// The proofs of a database, the newest first; at most `limit`.
    pub async fn proofs(&self, database: &DatabaseName, limit: u32) -> Result<Vec<Proof>> {
        self.read("listing proofs", async |conn| {
            let sql = "select * from proofs where database = ? order by id desc limit ?";
            let rows = sqlx::query(sql).bind(database.as_str()).bind(limit).fetch_all(&mut *conn).await?;
            let mut proofs = Vec::with_capacity(rows.len());
            for row in &rows {
                proofs.push(proof(conn, row).await?);
            }
            Ok(proofs)
        })
        .await
    }
}

fn summary(row: &SqliteRow) -> sqlx::Result<ProofSummary> {
    Ok(ProofSummary {
        id: row.int("id")?,
        run: row.int("run_id")?,
        finished_at: row.time("finished_at")?,
        passed: row.int("passed")? != 0,
        recovered_to: row.opt_time("recovered_to")?,
        recovery_seconds: row.length("recovery_time")?.as_secs_f64(),
    })
}

async fn insert(conn: &mut SqliteConnection, proof: &Proof) -> sqlx::Result<i64> {
    let moment = |at: DateTime<Utc>| millis(at);
    let inserted = sqlx::query(
        "insert into proofs (run_id, database, backup_id, repo, started_at, finished_at, passed, isolation,
             recovered_to, reached_lsn, expected_lsn, recovery_time, size, wal_segments)
         values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(proof.run)
    .bind(proof.database.as_str())
    .bind(&proof.backup_id)
    .bind(proof.repo)
    .bind(moment(proof.started_at))
    .bind(moment(proof.finished_at))
    .bind(proof.passed)
    .bind(&proof.isolation)
    .bind(proof.recovered_to.map(moment))
    .bind(&proof.reached_lsn)
    .bind(&proof.expected_lsn)
    .bind(length(proof.recovery_time))
    .bind(size(proof.size))
    .bind(proof.wal_segments)
    .execute(conn)
    .await?;
    Ok(inserted.last_insert_rowid())
}

async fn insert_step(conn: &mut SqliteConnection, proof: i64, position: i64, step: &ProofStep) -> sqlx::Result<()> {
    let sql = "insert into proof_steps (proof_id, position, name, outcome, detail, duration) values (?, ?, ?, ?, ?, ?)";
    sqlx::query(sql)
        .bind(proof)
        .bind(position)
        .bind(&step.name)
        .bind(step.outcome.as_str())
        .bind(&step.detail)
        .bind(length(step.duration))
        .execute(conn)
        .await?;
    Ok(())
}

async fn proof(conn: &mut SqliteConnection, row: &SqliteRow) -> sqlx::Result<Proof> {
    let id = row.int("id")?;
    let steps = sqlx::query("select * from proof_steps where proof_id = ? order by position").bind(id);
    let steps = steps.fetch_all(conn).await?;
    Ok(Proof {
        id,
        run: row.int("run_id")?,
        database: row.word("database")?,
        backup_id: row.text("backup_id")?,
        repo: row.number("repo")?,
        started_at: row.time("started_at")?,
        finished_at: row.time("finished_at")?,
        passed: row.int("passed")? != 0,
        isolation: row.text("isolation")?,
        recovered_to: row.opt_time("recovered_to")?,
        reached_lsn: row.opt_text("reached_lsn")?,
        expected_lsn: row.opt_text("expected_lsn")?,
        recovery_time: row.length("recovery_time")?,
        size: row.number("size")?,
        wal_segments: row.number("wal_segments")?,
        steps: steps.iter().map(step).collect::<sqlx::Result<_>>()?,
    })
}

fn step(row: &SqliteRow) -> sqlx::Result<ProofStep> {
    Ok(ProofStep {
        name: row.text("name")?,
        outcome: row.word("outcome")?,
        detail: row.text("detail")?,
        duration: row.length("duration")?,
    })
}

#[cfg(test)]
mod tests {
    use crate::catalog::testing::{at, backup, catalog, proof as some};

    #[tokio::test]
    async fn a_proof_reads_back_with_its_steps_in_order() {
        let (_dir, catalog) = catalog().await;
        let orders = "orders".parse().unwrap();
        let id = catalog.record_backup(&backup("orders", "20260101-000000F", 100)).await.unwrap();
        let mut written = some(&catalog, &id, 200, true).await;
        written.id = catalog.record_proof(&written).await.unwrap();
        assert_eq!(catalog.latest_proof(&orders).await.unwrap(), Some(written.clone()));
        assert_eq!(catalog.latest_passed_proof(&orders).await.unwrap(), Some(written));
    }

    #[tokio::test]
    async fn a_failed_proof_is_the_latest_but_proves_nothing() {
        let (_dir, catalog) = catalog().await;
        let orders = "orders".parse().unwrap();
        assert_eq!(catalog.latest_proof(&orders).await.unwrap(), None);
        let id = catalog.record_backup(&backup("orders", "20260101-000000F", 100)).await.unwrap();
        let failed = catalog.record_proof(&some(&catalog, &id, 100, false).await).await.unwrap();
        assert_eq!(catalog.backup(&id).await.unwrap().unwrap().proven_at, None);
        let passed = catalog.record_proof(&some(&catalog, &id, 200, true).await).await.unwrap();
        let again = catalog.record_proof(&some(&catalog, &id, 300, false).await).await.unwrap();
        assert_eq!(catalog.latest_proof(&orders).await.unwrap().unwrap().id, again);
        assert_eq!(catalog.latest_passed_proof(&orders).await.unwrap().unwrap().id, passed);
        assert_eq!(catalog.backup(&id).await.unwrap().unwrap().proven_at, Some(at(200)));
        let summaries = catalog.proofs_of(&[id.clone(), "nothing".to_owned()]).await.unwrap();
        assert_eq!(summaries.len(), 1);
        let told: Vec<_> = summaries[&id].iter().map(|proof| (proof.id, proof.passed)).collect();
        assert_eq!(told, [(again, false), (passed, true), (failed, false)]);
        assert_eq!(summaries[&id][0].recovery_seconds, 2.5);
        let ids: Vec<i64> = catalog.proofs(&orders, 10).await.unwrap().iter().map(|proof| proof.id).collect();
        assert_eq!(ids, [again, passed, failed]);
    }
}
