//! What the catalog's tests are made of. Not for other modules' tests; those make their own nouns.

use std::{collections::BTreeMap, path::Path, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{Row, SqlSafeStr};
use tempfile::TempDir;

use super::{Catalog, Result};
use crate::record::{
    Artifact, Backup, BackupCopy, BackupStatus, BackupType, Compression, CopyState, Digest, Dump, DumpFormat,
    EngineKind, JobKey, NewRun, ProcessIdentity, Proof, ProofStep, Role, RunEnd, RunId, RunState, Slot, SlotId,
    StepOutcome, WalSample,
};

/// So many seconds after the first second of 2 January 2026.
pub(super) fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_312_000, 0).unwrap() + TimeDelta::seconds(seconds)
}

pub(super) async fn catalog() -> (TempDir, Catalog) {
    let dir = tempfile::tempdir().unwrap();
    let catalog = Catalog::open(dir.path(), at(0)).await.unwrap();
    (dir, catalog)
}

/// Another process's view of the same file.
pub(super) async fn open_second(dir: &Path) -> Catalog {
    Catalog::open(dir, at(0)).await.unwrap()
}

/// From the text that a key prints as.
pub(super) fn key(text: &str) -> JobKey {
    let (database, rest) = text.split_once('/').map_or((None, text), |(database, rest)| (Some(database), rest));
    let (rest, name) = rest.split_once(':').map_or((rest, None), |(rest, name)| (rest, Some(name)));
    let (kind, repo) = rest.split_once('@').map_or((rest, None), |(kind, repo)| (kind, Some(repo)));
    JobKey {
        database: database.map(|database| database.parse().unwrap()),
        kind: kind.parse().unwrap(),
        repo: repo.map(|repo| repo.parse().unwrap()),
        name: name.map(str::to_owned),
    }
}

pub(super) fn many_keys(count: usize) -> Vec<JobKey> {
    (0..count).map(|n| key(&format!("db{n}/incr@1:every-hour"))).collect()
}

pub(super) fn slot(job: &str, nominal: i64) -> Slot {
    Slot { job: key(job), nominal_at: at(nominal), missed_count: 0, skip: None }
}

pub(super) fn process(pid: i32) -> ProcessIdentity {
    ProcessIdentity { pid, pgid: pid, start_ticks: 4_711, boot_id: "boot".to_owned() }
}

pub(super) fn new_run(job: &str, slot: Option<SlotId>) -> NewRun {
    NewRun {
        uuid: uuid::Uuid::now_v7().to_string(),
        job: key(job),
        slot,
        nominal_at: None,
        promoted_from: None,
        requested_by: "daemon".to_owned(),
        owner: process(1),
        policy_hash: "hash".to_owned(),
        started_at: at(60),
    }
}

pub(super) fn end(state: RunState) -> RunEnd {
    RunEnd {
        state,
        finished_at: at(120),
        duration: Duration::from_secs(60),
        failure: None,
        summary: "done".to_owned(),
        diagnosis: Vec::new(),
    }
}

/// A run that began at `started` and ended.
pub(super) async fn finish(catalog: &Catalog, job: &str, slot: Option<SlotId>, started: i64, state: RunState) -> RunId {
    let run = NewRun { started_at: at(started), ..new_run(job, slot) };
    let id = catalog.start_run(&run).await.unwrap();
    assert!(catalog.finish_run(id, &end(state)).await.unwrap());
    id
}

/// Runs spread over the jobs, a minute apart, each with an attempt; each tenth failed; run N took N milliseconds.
pub(super) async fn many_runs(catalog: &Catalog, keys: &[JobKey], count: i64) {
    catalog.sync_jobs(&daily(keys), at(0)).await.unwrap();
    let writer = catalog.inner.writer.as_ref().unwrap();
    let first: i64 = sqlx::query_scalar("select min(id) from jobs").fetch_one(writer).await.unwrap();
    let sql = "with recursive n(i) as (select 0 union all select i + 1 from n where i + 1 < ?1)
               insert into runs (uuid, job_id, requested_by, owner_pid, owner_pgid, owner_start_ticks, owner_boot_id,
                                 policy_hash, state, started_at, finished_at, duration)
               select 'many-' || i, ?2 + i % ?3, 'daemon', 1, 1, 1, 'boot', 'hash',
                      iif(i % 10 = 9 and i < ?1 - 20, 'failed', 'succeeded'), ?4 + i * 60000, ?4 + i * 60000 + i, i from n";
    let jobs = i64::try_from(keys.len()).unwrap();
    let start = at(0).timestamp_millis();
    sqlx::query(sql).bind(count).bind(first).bind(jobs).bind(start).execute(writer).await.unwrap();
    let sql = "insert into attempts (run_id, number, started_at) select id, 1, started_at from runs";
    sqlx::query(sql).execute(writer).await.unwrap();
}

pub(super) fn backup(database: &str, label: &str, stopped: i64) -> Backup {
    Backup {
        id: format!("backup-{database}-{label}"),
        database: database.parse().unwrap(),
        environment: "production".to_owned(),
        engine: EngineKind::PgBackRest,
        backup_type: BackupType::Full,
        requested_type: BackupType::Full,
        label: label.to_owned(),
        repo: 1,
        system_id: "7300000000000000001".to_owned(),
        server_version: "15".to_owned(),
        tool_version: "2.45".to_owned(),
        name: None,
        reason: None,
        tags: Vec::new(),
        run_uuid: None,
        started_at: at(stopped),
        stopped_at: at(stopped),
        size: 100,
        delta: 100,
        repo_delta: None,
        repo_size: None,
        prior: None,
        references: Vec::new(),
        wal_start: Some("000000010000000000000001".to_owned()),
        wal_stop: Some("000000010000000000000002".to_owned()),
        lsn_stop: Some("0/2000100".to_owned()),
        page_errors: None,
        status: BackupStatus::Good,
        expired_reason: None,
        expired_at: None,
        held: None,
        held_until: None,
        proven_at: None,
        created_by: "daemon".to_owned(),
        dump: None,
    }
}

/// A dump of 1000 bytes in 10 seconds, 250 bytes stored in each of `local` and `offsite`.
pub(super) fn dump(database: &str, id: &str, stopped: i64) -> Backup {
    let digest = |size, sha256: &str| Digest { size, sha256: sha256.to_owned() };
    let artifact = |role, name: &str, raw, stored| Artifact {
        role,
        name: name.to_owned(),
        raw: digest(raw, "aa"),
        stored: digest(stored, "bb"),
        hmac: None,
    };
    Backup {
        id: id.to_owned(),
        engine: EngineKind::PgDump,
        repo: 0,
        label: id.to_owned(),
        started_at: at(stopped - 10),
        size: 1000,
        delta: 1000,
        repo_delta: Some(250),
        repo_size: Some(250),
        wal_start: None,
        wal_stop: None,
        lsn_stop: None,
        dump: Some(Dump {
            format: DumpFormat::Custom,
            compression: Compression::default(),
            encryption: None,
            directory: format!("{database}/{id}"),
            artifacts: vec![
                artifact(Role::Globals, "globals.sql.zst", 100, 50),
                artifact(Role::Data, "shop.dump.zst", 900, 200),
            ],
            copies: vec![copy("offsite", CopyState::Good, stopped), copy("local", CopyState::Good, stopped)],
            server: "PostgreSQL 15.20".to_owned(),
            source: database.to_owned(),
            migrations: None,
            retention_days: None,
            expires_at: None,
            warnings: Vec::new(),
            verified_at: None,
        }),
        ..backup(database, id, stopped)
    }
}

pub(super) fn copy(storage: &str, state: CopyState, checked: i64) -> BackupCopy {
    BackupCopy { storage: storage.to_owned(), state, detail: None, checked_at: at(checked), locked_until: None }
}

/// A proof that ended at `finished`, with a run of its own.
pub(super) async fn proof(catalog: &Catalog, backup_id: &str, finished: i64, passed: bool) -> Proof {
    let step = |name: &str, outcome| ProofStep {
        name: name.to_owned(),
        outcome,
        detail: "seen".to_owned(),
        duration: Duration::from_millis(1_500),
    };
    let outcome = if passed { StepOutcome::Passed } else { StepOutcome::Failed };
    Proof {
        id: 0,
        run: finish(catalog, "orders/test_restore", None, finished, RunState::Succeeded).await,
        database: "orders".parse().unwrap(),
        backup_id: backup_id.to_owned(),
        repo: 1,
        started_at: at(finished - 10),
        finished_at: at(finished),
        passed,
        isolation: "bubblewrap".to_owned(),
        recovered_to: Some(at(finished - 5)),
        reached_lsn: Some("0/3".to_owned()),
        expected_lsn: None,
        recovery_time: Duration::from_millis(2_500),
        size: 1 << 40,
        wal_segments: 12,
        steps: vec![
            step("restore", StepOutcome::Passed),
            step("canary", outcome),
            step("amcheck", StepOutcome::Skipped),
        ],
    }
}

/// A WAL check that saw nothing special.
pub(super) fn sample(database: &str, sampled: i64) -> WalSample {
    WalSample {
        database: database.parse().unwrap(),
        sampled_at: at(sampled),
        timeline: None,
        current_lsn: None,
        last_archived_wal: None,
        last_archived_at: None,
        failed_count: None,
        last_failed_at: None,
        ready_count: None,
        contiguous_to: BTreeMap::new(),
        gaps: BTreeMap::new(),
        problems: Vec::new(),
    }
}

pub(super) async fn audit_something(catalog: &Catalog, detail: &str) -> Result<String> {
    catalog.audit("test", "write", "nothing", detail, at(0)).await
}

/// The steps by which SQLite would answer a query.
pub(super) async fn plan(catalog: &Catalog, sql: impl SqlSafeStr) -> Vec<String> {
    let explain = sqlx::AssertSqlSafe(format!("explain query plan {}", sql.into_sql_str().as_str()));
    let rows = sqlx::query(explain).fetch_all(&catalog.inner.reader).await.unwrap();
    rows.iter().map(|row| row.get("detail")).collect()
}

/// Jobs as the policy hands them over, all by the same schedule.
pub(super) fn daily(keys: &[JobKey]) -> Vec<(JobKey, String)> {
    keys.iter().map(|key| (key.clone(), "daily".to_owned())).collect()
}
