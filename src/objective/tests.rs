//! What is alarming, and what is not, one claim a test.

use std::collections::BTreeMap;

use super::*;
use crate::{
    policy::Policy,
    record::{
        BackupCopy, BackupType, Compression, Dump, DumpFormat, Encryption, EncryptionMethod, EngineKind, JobKey,
        StepOutcome,
    },
};

const NOW: i64 = 100 * 86_400;
const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(second, 0).unwrap()
}

fn full(label: &str, stopped: i64, status: BackupStatus) -> Backup {
    Backup {
        id: format!("backup-{label}"),
        database: "orders".parse().unwrap(),
        environment: "staging".into(),
        engine: EngineKind::PgBackRest,
        backup_type: BackupType::Full,
        requested_type: BackupType::Full,
        label: label.into(),
        repo: 1,
        system_id: "7710293561930313606".into(),
        server_version: "15".into(),
        tool_version: "2.45".into(),
        name: None,
        reason: None,
        tags: vec![],
        run_uuid: None,
        started_at: at(stopped),
        stopped_at: at(stopped),
        size: 1,
        delta: 1,
        repo_delta: None,
        repo_size: None,
        prior: None,
        references: vec![],
        wal_start: None,
        wal_stop: None,
        lsn_stop: None,
        page_errors: None,
        status,
        expired_reason: None,
        expired_at: None,
        held: None,
        held_until: None,
        proven_at: None,
        created_by: "daemon".into(),
        dump: None,
    }
}

fn sample(sampled: i64, problems: &[&str]) -> WalSample {
    WalSample {
        database: "orders".parse().unwrap(),
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
        problems: problems.iter().map(ToString::to_string).collect(),
    }
}

fn run(kind: JobKind, started: i64, state: RunState) -> Run {
    Run {
        id: 1,
        uuid: "uuid".into(),
        job: JobKey { database: Some("orders".parse().unwrap()), kind, repo: None, name: None },
        slot: None,
        nominal_at: None,
        promoted_from: None,
        requested_by: "daemon".into(),
        state,
        started_at: at(started),
        finished_at: None,
        duration: None,
        failure: None,
        summary: "disk full".into(),
        diagnosis: vec![],
    }
}

fn proof(finished: i64, passed: bool, took: u64) -> Proof {
    let outcome = if passed { StepOutcome::Passed } else { StepOutcome::Failed };
    Proof {
        id: 1,
        run: 1,
        database: "orders".parse().unwrap(),
        backup_id: "backup-a".into(),
        repo: 1,
        started_at: at(finished),
        finished_at: at(finished),
        passed,
        isolation: String::new(),
        recovered_to: None,
        reached_lsn: None,
        expected_lsn: None,
        recovery_time: Duration::from_secs(took),
        size: 0,
        wal_segments: 0,
        steps: vec![crate::record::ProofStep {
            name: "recovery".into(),
            outcome,
            detail: "it stopped early".into(),
            duration: Duration::ZERO,
        }],
    }
}

fn range(repo: RepoKey, to: i64) -> Window {
    Window { database: "orders".parse().unwrap(), repo, label: "a".into(), from: at(to - 9), to: at(to) }
}

/// What is known of a database about which everything is well, to be changed by `change`; gives `kind: message`.
fn told(tier: &str, change: impl FnOnce(&mut Facts<'_>)) -> Vec<String> {
    let text = format!("[tier.t]\n{tier}\n[database.orders]\nenvironment = \"staging\"\ntier = \"t\"\n");
    let policy = Policy::parse(vec![("p.toml".into(), text)]).unwrap();
    let backups = [full("a", NOW - DAY, BackupStatus::Good)];
    let (sample, passed, ranges) = (sample(NOW - 60, &[]), proof(NOW - DAY, true, 60), [range(1, NOW - 60)]);
    let mut facts = Facts {
        database: &policy.databases[&"orders".parse().unwrap()],
        backups: &backups,
        last_runs: &[],
        sample: Some(&sample),
        wal_watched: true,
        ranges: &ranges,
        newest_proof: Some(&passed),
        newest_passed: Some(&passed),
        known_since: Some(at(NOW - 90 * DAY)),
        success: SuccessShare { succeeded: 30, finished: 30 },
    };
    change(&mut facts);
    alarms(&facts, at(NOW)).into_iter().map(|alarm| format!("{}: {}", alarm.kind, alarm.message)).collect()
}

const STRICT: &str = "rpo = \"15m\"\nrto = \"1h\"\nsuccess_rate = 0.95\nmin_copies = 1\nproof_age = \"35d\"";
const NONE: [&str; 0] = [];

#[test]
fn nothing_is_alarming_about_a_database_that_is_well() {
    assert_eq!(told(STRICT, |_| {}), NONE);
    assert_eq!(told("", |_| {}), NONE);
}

#[test]
fn damage_is_an_alarm_until_a_newer_good_backup_and_a_loss_for_a_week() {
    let good = || full("a", NOW - DAY, BackupStatus::Good);
    let told = |backups: Vec<Backup>| told("", |facts| facts.backups = Vec::leak(backups));
    let newer = |status| full("b", NOW - HOUR, status);
    let because = Backup { expired_reason: Some("`verify` found it corrupt".into()), ..newer(BackupStatus::Damaged) };
    let lost =
        |days| Backup { expired_at: Some(at(NOW - days * DAY)), ..full("c", NOW - 50 * DAY, BackupStatus::Lost) };
    for (backups, expected) in [
        (vec![newer(BackupStatus::Damaged), good()], &["damaged: backup b has page checksum errors"][..]),
        (vec![because, good()], &["damaged: backup b is damaged: `verify` found it corrupt"]),
        (vec![newer(BackupStatus::Good), full("c", NOW - DAY, BackupStatus::Unrestorable)], &[]),
        (vec![good(), lost(7)], &["damaged: backup c is in the catalog but no longer in the repository"]),
        (vec![good(), lost(8)], &[]),
        (vec![], &["no_backup: there is no good backup"]),
    ] {
        assert_eq!(told(backups), expected);
    }
}

#[test]
fn the_last_run_of_each_kind_speaks_and_a_wal_check_only_where_its_sample_is_silent() {
    let told = |kind, state, sampled, problems: &'static [&'static str]| {
        told("", |facts| {
            facts.last_runs = Vec::leak(vec![run(kind, NOW - HOUR, state)]);
            facts.sample = Some(Box::leak(Box::new(sample(sampled, problems))));
        })
    };
    let healthy = NOW - 60;
    assert_eq!(told(JobKind::Full, RunState::Failed, healthy, &[]), ["run_failed: the last full failed: disk full"]);
    assert_eq!(told(JobKind::Verify, RunState::Interrupted, healthy, &[]).len(), 1);
    assert_eq!(told(JobKind::CatalogBackup, RunState::Failed, healthy, &[]), NONE);
    assert_eq!(told(JobKind::Wal, RunState::Failed, healthy, &[]), NONE, "a later look was good");
    assert_eq!(told(JobKind::Wal, RunState::Failed, NOW - HOUR - 5, &["blind"]), ["wal: blind"]);
    let unstored = told(JobKind::Wal, RunState::Failed, NOW - 2 * HOUR, &[]);
    assert_eq!(unstored, ["run_failed: the last wal failed: disk full"], "its sample could not be stored");
}

#[test]
fn silence_about_wal_is_an_alarm_only_where_somebody_should_look() {
    let told = |watched, sample: Option<WalSample>, known| {
        told("", |facts| {
            facts.wal_watched = watched;
            facts.sample = sample.map(|sample| &*Box::leak(Box::new(sample)));
            facts.known_since = Some(at(known));
        })
    };
    let old = || Some(sample(NOW - DAY, &[]));
    assert_eq!(told(true, old(), 0), ["wal: archiving was last looked at 1d ago"]);
    assert_eq!(told(false, old(), 0), NONE);
    assert_eq!(told(true, None, NOW - DAY), ["wal: archiving was never looked at"]);
    assert_eq!(told(true, None, NOW - 60), NONE, "it is young");
    assert_eq!(told(false, None, NOW - DAY), NONE);
    let bad = Some(sample(NOW - DAY, &["a hole"]));
    assert_eq!(told(false, bad, 0), ["wal: a hole (seen 1d ago; `backstop wal orders` looks again)"]);
}

#[test]
fn the_loss_is_counted_from_what_is_proven_and_nothing_proven_is_worse() {
    let told = |ranges: Vec<Window>| told("rpo = \"15m\"", |facts| facts.ranges = Vec::leak(ranges));
    assert_eq!(told(vec![range(1, NOW - 15 * 60)]), NONE);
    assert_eq!(told(vec![range(1, NOW - HOUR)]), ["rpo: a loss now would cost 1h, the objective is 15m"]);
    assert_eq!(told(vec![]), ["rpo: no moment is proven to be recoverable, the objective is 15m"]);
}

#[test]
fn a_copy_counts_only_while_it_is_fresh_enough_for_the_rpo() {
    let told = |tier: &str, ranges: Vec<Window>| told(tier, |facts| facts.ranges = Vec::leak(ranges));
    let (fresh, stale) = (NOW - 60, NOW - DAY);
    let strict = "rpo = \"15m\"\nmin_copies = 2";
    assert_eq!(told(strict, vec![range(1, fresh), range(2, fresh)]), NONE);
    assert_eq!(
        told(strict, vec![range(1, fresh), range(1, stale), range(2, stale)]),
        ["copies: 1 repositories hold a copy fresh enough for the RPO of 15m, the objective is 2"]
    );
    let lax = "min_copies = 2";
    assert_eq!(told(lax, vec![range(1, fresh), range(2, stale)]), NONE, "no RPO, nothing to be fresh for");
    assert_eq!(told(lax, vec![range(1, fresh)]), ["copies: 1 repositories hold a copy, the objective is 2"]);
}

#[test]
fn a_proof_that_failed_is_stale_or_took_too_long_is_an_alarm() {
    let told = |newest: Proof, passed: Option<Proof>, known| {
        told("rto = \"1h\"", |facts| {
            facts.newest_proof = Some(Box::leak(Box::new(newest)));
            facts.newest_passed = passed.map(|proof| &*Box::leak(Box::new(proof)));
            facts.known_since = Some(at(known));
        })
    };
    let fine = || proof(NOW - DAY, true, 60);
    let failed = "proof: the last test restore failed at `recovery`: it stopped early";
    assert_eq!(told(proof(NOW, false, 60), Some(fine()), 0), [failed]);
    let slow = proof(NOW - DAY, true, 7_200);
    assert_eq!(told(slow.clone(), Some(slow), 0), ["rto: the last proven recovery took 2h, the objective is 1h"]);
    let old = proof(NOW - 36 * DAY, true, 60);
    let stale = "proof: the proof is stale: the last one that passed is 36d old, the policy allows 35d";
    assert_eq!(told(old.clone(), Some(old), 0), [stale]);
    let never = "proof: the proof is stale: no restore has ever proven it, the policy allows 35d";
    assert_eq!(told(proof(NOW, false, 60), None, NOW - 36 * DAY), [failed, never]);
    assert_eq!(told(proof(NOW, false, 60), None, NOW - DAY), [failed], "it is young");
}

#[test]
fn a_rate_needs_ten_runs() {
    let told =
        |succeeded, finished| told("success_rate = 0.95", |facts| facts.success = SuccessShare { succeeded, finished });
    assert_eq!(told(0, 9), NONE);
    assert_eq!(told(19, 20), NONE);
    assert_eq!(told(18, 20), ["success_rate: 18 of 20 backup runs succeeded in 30 days, the objective is 95.0 %"]);
}

/// A dump with a copy in each of these storages.
fn dump(stopped: i64, copies: &[(&str, CopyState)]) -> Backup {
    let copy = |(storage, state): &(&str, CopyState)| BackupCopy {
        storage: (*storage).to_owned(),
        state: *state,
        detail: (*state != CopyState::Good).then(|| "one bit flipped".to_owned()),
        checked_at: at(stopped),
        locked_until: None,
    };
    let dump = Dump {
        format: DumpFormat::Custom,
        compression: Compression::default(),
        encryption: Some(Encryption { key: "team".into(), method: EncryptionMethod::Age }),
        directory: "orders/backup-a".into(),
        artifacts: vec![],
        copies: copies.iter().map(copy).collect(),
        server: "PostgreSQL 15.20".into(),
        source: "orders".into(),
        migrations: None,
        retention_days: None,
        expires_at: None,
        warnings: vec![],
        verified_at: None,
    };
    Backup { engine: EngineKind::PgDump, repo: 0, dump: Some(dump), ..full("a", stopped, BackupStatus::Good) }
}

/// As `told`, of a database that is dumped into two storages, with a copy of its newest dump in each.
fn told_of_dumps(tier: &str, change: impl FnOnce(&mut Facts<'_>)) -> Vec<String> {
    let text = format!(
        "[tier.t]\n{tier}\n[storage.a]\ntype = \"filesystem\"\npath = \"/a\"\n[storage.b]\ntype = \"filesystem\"\npath = \"/b\"\n\
         [encryption.k]\ntype = \"aes256\"\npassphrase = \"file:/k\"\n[database.orders]\nengine = \"pg_dump\"\n\
         connection = \"service=o\"\nstorage = [\"a\", \"b\"]\nencryption = \"k\"\nenvironment = \"staging\"\ntier = \"t\"\n"
    );
    let policy = Policy::parse(vec![("p.toml".into(), text)]).unwrap_or_else(|problems| panic!("{problems}"));
    let policy: &'static Policy = Box::leak(Box::new(policy));
    told(tier, |facts| {
        facts.database = &policy.databases[&"orders".parse().unwrap()];
        (facts.sample, facts.wal_watched) = (None, false);
        let last = NOW - HOUR;
        facts.backups = Vec::leak(vec![dump(last, &[("a", CopyState::Good), ("b", CopyState::Good)])]);
        facts.ranges = Vec::leak(vec![Window { from: at(last), to: at(last), ..range(0, last) }]);
        change(facts);
    })
}

#[test]
fn a_dump_has_no_archive_to_be_alarmed_about() {
    let strict = "rpo = \"1h\"\nmin_copies = 2\nencryption = \"required\"";
    assert_eq!(told_of_dumps(strict, |_| {}), NONE);
    let told = told_of_dumps(strict, |facts| {
        facts.sample = Some(Box::leak(Box::new(sample(0, &["a hole"]))));
        facts.last_runs = Vec::leak(vec![run(JobKind::Wal, NOW - HOUR, RunState::Failed)]);
    });
    assert_eq!(told, NONE, "what pgBackRest left is history");
    let failed = |facts: &mut Facts<'_>| facts.last_runs = Vec::leak(vec![run(JobKind::Full, NOW, RunState::Failed)]);
    assert_eq!(told_of_dumps("", failed), ["run_failed: the last full failed: disk full"]);
}

#[test]
fn what_came_after_the_last_good_dump_may_be_lost() {
    let told = told_of_dumps("rpo = \"59m\"", |_| {});
    assert_eq!(told, ["rpo: a loss now would cost 1h, the objective is 59m"]);
}

#[test]
fn the_copies_of_the_newest_dump_are_counted_one_by_one() {
    let told = |tier: &str, backups: Vec<Backup>| told_of_dumps(tier, |facts| facts.backups = Vec::leak(backups));
    let (good, damaged) = (CopyState::Good, CopyState::Damaged);
    let newest = || dump(NOW - HOUR, &[("a", good), ("b", damaged)]);
    let older = || dump(NOW - DAY, &[("a", good), ("b", good)]);
    let bad = "copy: the copy of backup-a in storage `b` is damaged: one bit flipped";
    assert_eq!(told("", vec![newest(), older()]), [bad]);
    assert_eq!(
        told("min_copies = 2", vec![newest(), older()]),
        [bad, "copies: 1 storages hold a copy, the objective is 2"]
    );
    let healed = dump(NOW - 60, &[("a", good), ("b", good)]);
    assert_eq!(told("min_copies = 2", vec![healed, newest()]), NONE, "a newer dump makes up for it");
    let elsewhere = dump(NOW - 60, &[("a", good), ("gone", good), ("gone too", damaged)]);
    assert_eq!(
        told("min_copies = 2", vec![elsewhere]),
        ["copies: 1 storages hold a copy, the objective is 2"],
        "a storage that left the policy counts no more"
    );
    assert_eq!(
        told("min_copies = 1\nrpo = \"2h\"", vec![older()]),
        ["copies: 0 storages hold a copy fresh enough for the RPO of 2h, the objective is 1"]
    );
}

#[test]
fn a_dump_that_should_be_encrypted_and_is_not_is_an_alarm_until_the_next() {
    let told =
        |backups: Vec<Backup>| told_of_dumps("encryption = \"required\"", |facts| facts.backups = Vec::leak(backups));
    let open = |stopped| {
        let mut backup = dump(stopped, &[("a", CopyState::Good)]);
        backup.dump.as_mut().unwrap().encryption = None;
        backup
    };
    let locked = dump(NOW - 60, &[("a", CopyState::Good)]);
    assert_eq!(
        told(vec![open(NOW - HOUR)]),
        ["encryption: the newest backup backup-a is not encrypted, the tier requires it"]
    );
    assert_eq!(told(vec![locked, open(NOW - HOUR)]), NONE);
}

#[test]
fn damage_to_a_dump_is_told_in_its_own_words() {
    let told = |status| {
        told_of_dumps("", |facts| {
            let bad = Backup { status, ..dump(NOW - 60, &[("a", CopyState::Damaged)]) };
            facts.backups = Vec::leak(vec![bad, dump(NOW - DAY, &[("a", CopyState::Good)])]);
        })
    };
    assert_eq!(told(BackupStatus::Damaged), ["damaged: backup a is damaged in every storage"]);
    assert_eq!(told(BackupStatus::Lost), ["damaged: backup a is in the catalog but no longer in any storage"]);
}
