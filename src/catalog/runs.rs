//! Runs and their attempts: written before anything starts, closed after it ended.
//!
//! A run ends once. A newcomer would let a second ending overwrite the first; after a crash two parties may settle the
//! same run, and the one who came later must see that it is too late.

use std::path::Path;

use chrono::{DateTime, Utc};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    Catalog, Error, Result,
    fields::{Fields, json, length, millis},
    jobs,
};
use crate::record::{
    Attempt, AttemptEnd, AttemptId, Failure, NewRun, OpenRun, ProcessIdentity, Run, RunEnd, RunId, RunState,
};

/// Selects runs with the key of their job; to be followed by `where …`.
macro_rules! select_runs {
    ($rest:literal) => {
        concat!("select r.*, j.database, j.kind, j.repo, j.name from runs r join jobs j on j.id = r.job_id ", $rest)
    };
}
pub(super) use select_runs;

impl Catalog {
    /// Opens a run. Its slot, if any, must be waiting for one; else [`Error::SlotTaken`].
    pub async fn start_run(&self, run: &NewRun) -> Result<RunId> {
        self.write("opening a run", async |conn| {
            if let Some(slot) = run.slot
                && !take_slot(conn, slot).await?
            {
                return Ok(Err(Error::SlotTaken { slot }));
            }
            let job = jobs::row(conn, &run.job).await?;
            insert_run(conn, run, job).await.map(Ok)
        })
        .await?
    }

    /// Ends a run, and its slot with it when it succeeded or failed. False: it had ended before, and that stands.
    pub async fn finish_run(&self, run: RunId, end: &RunEnd) -> Result<bool> {
        self.write("closing a run", async |conn| {
            let (class, exit, message, remedy) = failure_columns(&end.failure);
            let closed = sqlx::query(
                "update runs set state = ?, finished_at = ?, duration = ?, failure_class = ?, failure_exit = ?,
                        failure_message = ?, failure_remedy = ?, summary = ?, diagnosis = ?
                  where id = ? and state = 'running'",
            )
            .bind(end.state.as_str())
            .bind(millis(end.finished_at))
            .bind(length(end.duration))
            .bind(class)
            .bind(exit)
            .bind(message)
            .bind(remedy)
            .bind(&end.summary)
            .bind(json(&end.diagnosis))
            .bind(run)
            .execute(&mut *conn)
            .await?
            .rows_affected()
                > 0;
            if closed && matches!(end.state, RunState::Succeeded | RunState::Failed) {
                let sql = "update slots set state = 'done' where id = (select slot_id from runs where id = ?)";
                sqlx::query(sql).bind(run).execute(conn).await?;
            }
            Ok(closed)
        })
        .await
    }

    /// Opens an attempt within a run; `number` is 1 for the first.
    pub async fn start_attempt(
        &self,
        run: RunId,
        number: u32,
        now: DateTime<Utc>,
        log_path: Option<&Path>,
    ) -> Result<AttemptId> {
        let log_path = log_path.map(|path| path.to_string_lossy().into_owned());
        self.write("opening an attempt", async |conn| {
            let sql = "insert into attempts (run_id, number, started_at, log_path) values (?, ?, ?, ?)";
            let inserted =
                sqlx::query(sql).bind(run).bind(number).bind(millis(now)).bind(&log_path).execute(conn).await?;
            Ok(inserted.last_insert_rowid())
        })
        .await
    }

    /// Remembers the tool's process, by which it is found again after a restart of the daemon.
    pub async fn record_process(&self, attempt: AttemptId, process: &ProcessIdentity) -> Result<()> {
        self.write("recording a process", async |conn| {
            sqlx::query("update attempts set pid = ?, pgid = ?, start_ticks = ?, boot_id = ? where id = ?")
                .bind(process.pid)
                .bind(process.pgid)
                .bind(ticks(process))
                .bind(&process.boot_id)
                .bind(attempt)
                .execute(conn)
                .await?;
            Ok(())
        })
        .await
    }

    /// Ends an attempt.
    pub async fn finish_attempt(&self, attempt: AttemptId, end: &AttemptEnd) -> Result<()> {
        self.write("closing an attempt", async |conn| {
            let (class, exit, message, remedy) = failure_columns(&end.failure);
            sqlx::query(
                "update attempts set finished_at = ?, duration = ?, exit_code = ?, ending = ?, failure_class = ?,
                        failure_exit = ?, failure_message = ?, failure_remedy = ?, tail = ?
                  where id = ?",
            )
            .bind(millis(end.finished_at))
            .bind(length(end.duration))
            .bind(end.exit_code)
            .bind(&end.ending)
            .bind(class)
            .bind(exit)
            .bind(message)
            .bind(remedy)
            .bind(json(&end.tail))
            .bind(attempt)
            .execute(conn)
            .await?;
            Ok(())
        })
        .await
    }

    /// Every open run with its owner and its last attempt, the oldest first.
    pub async fn open_runs(&self) -> Result<Vec<OpenRun>> {
        self.read("listing open runs", async |conn| {
            let sql = select_runs!("where r.state = 'running' order by r.id");
            let mut open = Vec::new();
            for row in sqlx::query(sql).fetch_all(&mut *conn).await? {
                let run = run(&row)?;
                let attempt = attempts(conn, run.id).await?.pop();
                let owner = process(&row, "owner_")?.ok_or(sqlx::Error::RowNotFound)?;
                open.push(OpenRun { run, owner, attempt });
            }
            Ok(open)
        })
        .await
    }

    /// A run with its attempts in order.
    pub async fn run(&self, id: RunId) -> Result<Option<(Run, Vec<Attempt>)>> {
        self.read("reading a run", async |conn| {
            let found = sqlx::query(select_runs!("where r.id = ?")).bind(id).fetch_optional(&mut *conn).await?;
            let Some(row) = found else { return Ok(None) };
            Ok(Some((run(&row)?, attempts(conn, id).await?)))
        })
        .await
    }
}

/// Puts a waiting slot into the hands of a run. False: one of its runs is open or has ended.
async fn take_slot(conn: &mut SqliteConnection, slot: i64) -> sqlx::Result<bool> {
    let sql = "update slots set state = 'claimed'
                where id = ?1 and state in ('due', 'claimed')
                  and not exists (select 1 from runs where slot_id = ?1 and state not in ('interrupted', 'requeued'))";
    Ok(sqlx::query(sql).bind(slot).execute(conn).await?.rows_affected() > 0)
}

async fn insert_run(conn: &mut SqliteConnection, run: &NewRun, job: i64) -> sqlx::Result<RunId> {
    let inserted = sqlx::query(
        "insert into runs (uuid, job_id, slot_id, nominal_at, promoted_from, requested_by, owner_pid, owner_pgid,
                           owner_start_ticks, owner_boot_id, policy_hash, state, started_at)
         values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'running', ?)",
    )
    .bind(&run.uuid)
    .bind(job)
    .bind(run.slot)
    .bind(run.nominal_at.map(millis))
    .bind(run.promoted_from.map(|kind| kind.as_str()))
    .bind(&run.requested_by)
    .bind(run.owner.pid)
    .bind(run.owner.pgid)
    .bind(ticks(&run.owner))
    .bind(&run.owner.boot_id)
    .bind(&run.policy_hash)
    .bind(millis(run.started_at))
    .execute(conn)
    .await?;
    Ok(inserted.last_insert_rowid())
}

fn ticks(process: &ProcessIdentity) -> i64 {
    i64::try_from(process.start_ticks).unwrap_or(i64::MAX)
}

type FailureColumns<'a> = (Option<&'static str>, Option<u8>, Option<&'a str>, Option<&'a str>);

fn failure_columns(failure: &Option<Failure>) -> FailureColumns<'_> {
    let Some(failure) = failure else { return (None, None, None, None) };
    (Some(failure.class.as_str()), Some(failure.exit.into()), Some(&failure.message), failure.remedy.as_deref())
}

/// A run from a row of [`select_runs`].
pub(super) fn run(row: &SqliteRow) -> sqlx::Result<Run> {
    Ok(Run {
        id: row.int("id")?,
        uuid: row.text("uuid")?,
        job: row.job_key()?,
        slot: row.opt_int("slot_id")?,
        nominal_at: row.opt_time("nominal_at")?,
        promoted_from: row.opt_word("promoted_from")?,
        requested_by: row.text("requested_by")?,
        state: row.word("state")?,
        started_at: row.time("started_at")?,
        finished_at: row.opt_time("finished_at")?,
        duration: row.opt_length("duration")?,
        failure: row.failure()?,
        summary: row.text("summary")?,
        diagnosis: row.json("diagnosis")?,
    })
}

async fn attempts(conn: &mut SqliteConnection, run: RunId) -> sqlx::Result<Vec<Attempt>> {
    let rows = sqlx::query("select * from attempts where run_id = ? order by number").bind(run).fetch_all(conn).await?;
    rows.iter().map(attempt).collect()
}

fn attempt(row: &SqliteRow) -> sqlx::Result<Attempt> {
    Ok(Attempt {
        id: row.int("id")?,
        number: row.number("number")?,
        started_at: row.time("started_at")?,
        finished_at: row.opt_time("finished_at")?,
        process: process(row, "")?,
        exit_code: row.opt_number("exit_code")?,
        ending: row.opt_text("ending")?,
        failure: row.failure()?,
        tail: row.json("tail")?,
        log_path: row.opt_text("log_path")?.map(Into::into),
    })
}

fn process(row: &SqliteRow, prefix: &str) -> sqlx::Result<Option<ProcessIdentity>> {
    let column = |name: &str| format!("{prefix}{name}");
    let Some(pid) = row.opt_number(&column("pid"))? else { return Ok(None) };
    Ok(Some(ProcessIdentity {
        pid,
        pgid: row.number(&column("pgid"))?,
        start_ticks: row.number(&column("start_ticks"))?,
        boot_id: row.try_get(column("boot_id").as_str())?,
    }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        catalog::testing::{at, catalog, end, key, new_run, process as some_process, slot},
        error::ExitCode,
        record::{ErrorClass, JobKind},
    };

    fn failure() -> Failure {
        Failure {
            class: ErrorClass::Space,
            exit: ExitCode::NoSpace,
            message: "repository full".to_owned(),
            remedy: Some("Make room.".to_owned()),
        }
    }

    #[tokio::test]
    async fn a_run_reads_back_as_it_was_written() {
        let (_dir, catalog) = catalog().await;
        let slot = catalog.claim(&[slot("orders/diff@2:night", 50)], at(60)).await.unwrap()[0];
        let mut new = new_run("orders/full@2:night", slot);
        (new.nominal_at, new.promoted_from) = (Some(at(50)), Some(JobKind::Diff));
        let id = catalog.start_run(&new).await.unwrap();
        let log = Path::new("/logs/1/backup.log");
        let attempt = catalog.start_attempt(id, 1, at(61), Some(log)).await.unwrap();
        catalog.record_process(attempt, &some_process(77)).await.unwrap();

        let open = catalog.open_runs().await.unwrap().remove(0);
        assert_eq!((open.run.id, open.owner), (id, new.owner.clone()));
        assert_eq!(open.attempt.unwrap().process, Some(some_process(77)));

        let ended = AttemptEnd {
            finished_at: at(70),
            duration: Duration::from_millis(9_001),
            exit_code: Some(64),
            ending: Some("exited".to_owned()),
            failure: Some(failure()),
            tail: vec!["ERROR: [064]".to_owned()],
        };
        catalog.finish_attempt(attempt, &ended).await.unwrap();
        let closing = RunEnd {
            failure: Some(failure()),
            diagnosis: vec!["repo1 is full".to_owned()],
            summary: "no backup".to_owned(),
            ..end(RunState::Failed)
        };
        assert!(catalog.finish_run(id, &closing).await.unwrap());
        assert!(!catalog.finish_run(id, &end(RunState::Succeeded)).await.unwrap(), "the first ending stands");

        let (run, attempts) = catalog.run(id).await.unwrap().unwrap();
        assert_eq!((run.job, run.slot, run.nominal_at), (key("orders/full@2:night"), slot, Some(at(50))));
        assert_eq!((run.state, run.promoted_from), (RunState::Failed, Some(JobKind::Diff)));
        assert_eq!((run.failure, run.diagnosis), (Some(failure()), closing.diagnosis));
        assert_eq!(run.duration, Some(closing.duration));
        let found = &attempts[0];
        assert_eq!((found.exit_code, &found.ending, &found.failure), (Some(64), &ended.ending, &ended.failure));
        assert_eq!((&found.tail, found.log_path.as_deref()), (&ended.tail, Some(log)));
        assert_eq!(catalog.open_runs().await.unwrap().len(), 0);
        assert!(catalog.run(id + 1).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_slot_has_one_run_that_counts() {
        let (_dir, catalog) = catalog().await;
        let slot = catalog.claim(&[slot("orders/full", 50)], at(60)).await.unwrap()[0];
        let first = catalog.start_run(&new_run("orders/full", slot)).await.unwrap();
        let second = catalog.start_run(&new_run("orders/full", slot)).await;
        assert!(matches!(second, Err(Error::SlotTaken { .. })), "it is open: {second:?}");
        catalog.finish_run(first, &end(RunState::Failed)).await.unwrap();
        let third = catalog.start_run(&new_run("orders/full", slot)).await;
        assert!(matches!(third, Err(Error::SlotTaken { .. })), "it has ended: {third:?}");
        assert_eq!(catalog.unfinished_slots().await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_future_of_the_catalog_may_move_between_threads() {
        let (_dir, catalog) = catalog().await;
        let new = new_run("orders/full", None);
        let id = tokio::spawn(async move { catalog.start_run(&new).await }).await.unwrap().unwrap();
        assert_eq!(id, 1);
    }
}
