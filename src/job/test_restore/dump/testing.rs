//! What the tests of dumps are made of: nouns, a context that needs no storage, and real servers behind the walls.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};

use super::super::{Context, Facts, Way, steps};
use crate::{
    catalog::Catalog,
    clock,
    job::{Progress, Request, Runner},
    policy::{Assertion, Place, Policy, Retry, S3, Storage},
    process::{Command, Stop, capture},
    record::{
        Artifact, Backup, BackupCopy, BackupStatus, BackupType, Compression, CopyState, Digest, Dump, DumpFormat,
        Encryption, EncryptionMethod, EngineKind, JobKey, JobKind, NewRun, ProofStep, Role,
    },
    sandbox::Layout,
};

/// Runs a test as `postgres`, because servers and sandbox refuse root: root runs the one test again as that user.
pub(super) fn as_postgres(test: &str, work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if !nix::unistd::geteuid().is_root() {
        return runtime.block_on(Box::pin(work));
    }
    let test = test.split_once("::").unwrap().1;
    let again = Command::new("setpriv")
        .args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("HOME", "/tmp")
        .env("TMPDIR", std::env::temp_dir());
    let captured = runtime.block_on(capture(&again, &Stop::never())).unwrap();
    let stdout = String::from_utf8_lossy(&captured.stdout);
    assert!(captured.ok() && stdout.contains("1 passed"), "{stdout}\n{}", captured.stderr);
}

fn at(hour: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_312_000, 0).unwrap() + TimeDelta::hours(hour)
}

pub(super) fn age() -> Encryption {
    Encryption { key: "offsite".into(), method: EncryptionMethod::Age }
}

pub(super) fn artifact(role: Role, name: &str) -> Artifact {
    Artifact { role, name: name.into(), raw: Digest::default(), stored: Digest::default(), hmac: None }
}

/// A dump with copies in storages.
pub(super) fn dump(copies: &[(&str, CopyState)]) -> Dump {
    let copy = |(storage, state): &(&str, CopyState)| BackupCopy {
        storage: (*storage).into(),
        state: *state,
        detail: None,
        checked_at: at(0),
        locked_until: None,
    };
    Dump {
        format: DumpFormat::Custom,
        compression: Compression::NONE,
        encryption: None,
        directory: "shop/backup-1".into(),
        artifacts: Vec::new(),
        copies: copies.iter().map(copy).collect(),
        server: "PostgreSQL 15.20".into(),
        source: "shop".into(),
        migrations: None,
        retention_days: None,
        expires_at: None,
        warnings: Vec::new(),
        verified_at: None,
    }
}

pub(super) fn backup(hour: i64, dump: Dump) -> Backup {
    let id = format!("backup-{}", at(hour).format("%Y%m%d-%H%M%S"));
    Backup {
        id: id.clone(),
        database: "shop".parse().unwrap(),
        environment: "production".into(),
        engine: EngineKind::PgDump,
        backup_type: BackupType::Full,
        requested_type: BackupType::Full,
        label: id,
        repo: 0,
        system_id: String::new(),
        server_version: "15".into(),
        tool_version: "pg_dump 15.20".into(),
        name: None,
        reason: None,
        tags: Vec::new(),
        run_uuid: None,
        started_at: at(hour),
        stopped_at: at(hour),
        size: 0,
        delta: 0,
        repo_delta: None,
        repo_size: None,
        prior: None,
        references: Vec::new(),
        wal_start: None,
        wal_stop: None,
        lsn_stop: None,
        page_errors: None,
        status: BackupStatus::Good,
        expired_reason: None,
        expired_at: None,
        held: None,
        held_until: None,
        proven_at: None,
        created_by: "daemon".into(),
        dump: Some(dump),
    }
}

/// A policy with a database `shop` and these storages; `s3:NAME` is a bucket.
pub(super) fn policy(storages: &[&str]) -> Policy {
    let text = "[database.shop]\nconnection = \"service=shop\"\n";
    let mut policy = Policy::parse(vec![("/etc/backstop/backstop.toml".into(), text.to_owned())]).unwrap();
    policy.storages = storages.iter().map(|name| storage(name)).collect::<BTreeMap<_, _>>();
    policy
}

fn storage(name: &str) -> (String, Storage) {
    let (name, place) = match name.strip_prefix("s3:") {
        Some(name) => (name, Place::S3(Box::new(bucket()))),
        None => (name, Place::Filesystem { path: "/srv/dumps".into() }),
    };
    (name.to_owned(), Storage { name: name.to_owned(), place })
}

fn bucket() -> S3 {
    S3 {
        bucket: "dumps".into(),
        prefix: String::new(),
        region: "us-east-1".into(),
        endpoint: None,
        ca_file: None,
        path_style: false,
        storage_class: None,
        server_side_encryption: None,
        kms_key: None,
        object_lock: None,
        access_key: None,
        secret_key: None,
        session_token: None,
        attempts: 1,
        timeout: std::time::Duration::from_secs(1),
    }
}

/// A context of a test restore whose state lies in a directory.
pub(super) async fn context(directory: &Path, engine: EngineKind, assertions: Vec<Assertion>) -> Context {
    let mut policy = policy(&[]);
    let database = policy.databases.values_mut().next().unwrap();
    database.engine = engine;
    database.test_restore.assertions = assertions;
    let job = JobKey { database: Some(database.name.clone()), kind: JobKind::TestRestore, repo: None, name: None };
    let once = Retry { attempts: 1, backoff: Default::default(), max_backoff: Default::default() };
    let request = Request::by_hand(job.clone(), once, None, "test");
    let catalog = Catalog::open(directory, clock::now()).await.unwrap();
    let run = NewRun {
        uuid: uuid::Uuid::now_v7().to_string(),
        job,
        slot: None,
        nominal_at: None,
        promoted_from: None,
        requested_by: "test".into(),
        owner: crate::process::own_identity(),
        policy_hash: String::new(),
        started_at: clock::now(),
    };
    let id = catalog.start_run(&run).await.unwrap();
    let attempt = catalog.start_attempt(id, 1, clock::now(), None).await.unwrap();
    let (stop, drain, progress) = (Stop::never(), Stop::never(), Progress::default());
    let runner = Runner { policy: Arc::new(policy), catalog, stop, drain, progress };
    Context::new(&runner, &request, id, &run.uuid, attempt, directory.to_owned())
}

/// An empty scratch directory.
pub(super) fn scratch(path: &Path) -> Layout {
    let layout = Layout::new(path).unwrap();
    layout.directories().iter().for_each(|directory| std::fs::create_dir_all(directory).unwrap());
    layout
}

pub(super) fn way(plan: &'static steps::Plan) -> Way {
    Way { steps: steps::Steps::new(plan), facts: Facts::default(), scratch: None }
}

/// The steps that were done, each as `outcome: detail`.
pub(super) fn told(way: &mut Way) -> BTreeMap<String, String> {
    let told = |step: ProofStep| (step.name, format!("{}: {}", step.outcome, step.detail));
    way.steps.take().into_iter().map(told).collect()
}
