//! Every command line, as it is given to the tool.

use std::{collections::BTreeMap, path::Path};

use super::*;
use crate::{
    policy::{self, Canary, ExpireBy, Retention, SecretRef, TestRestore, Tier, Wal},
    record::EngineKind,
};

/// A database as a policy would have it.
pub(super) fn database() -> Database {
    Database {
        name: "orders".parse().unwrap(),
        engine: EngineKind::PgBackRest,
        environment: "production".into(),
        protected: true,
        tier: Tier::default(),
        connection: None,
        password: None,
        pgbackrest: policy::PgBackRest {
            stanza: "main".into(),
            config: Some("/etc/pgbackrest/orders.conf".into()),
            binary: "pgbackrest".into(),
            repos: vec![1, 2],
            label_timezone: Tz::UTC,
            secrets: BTreeMap::new(),
            start_fast: true,
            process_max: Some(2),
            expire_by: ExpireBy::Backstop,
        },
        dump: policy::Dump::default(),
        retention: Retention::default(),
        wal: Wal { max_lag: Duration::from_secs(300), max_ready: 10, gap_grace: Duration::from_secs(120) },
        test_restore: TestRestore {
            assertions: vec![],
            canary: Canary::RestorePoint,
            amcheck: false,
            checksums: true,
            server_bin: None,
            identity: None,
        },
        niceness: Niceness { nice: Some(10), ionice: None },
        stall: Duration::from_secs(1800),
    }
}

/// A command as a person would type it, broken at 110 columns.
fn shown(command: &Command) -> String {
    let mut lines = vec![String::new()];
    for word in command.display().split(' ') {
        let line = lines.last_mut().unwrap();
        if line.len() + word.len() > 110 {
            lines.push(format!("  {word}"));
        } else {
            line.push_str(if line.is_empty() { "" } else { " " });
            line.push_str(word);
        }
    }
    lines.join("\n")
}

fn tool() -> PgBackRest {
    PgBackRest::of(&database()).unwrap()
}

#[test]
fn questions_answer_on_stdout_alone() {
    let tool = tool();
    insta::assert_snapshot!(shown(&tool.version()), @"TZ=UTC pgbackrest version");
    insta::assert_snapshot!(shown(&tool.info()), @r"
    TZ=UTC pgbackrest --stanza=main --config=/etc/pgbackrest/orders.conf --log-level-console=off
      --log-level-stderr=error --log-level-file=off --output=json info
    ");
    insta::assert_snapshot!(shown(&tool.info_set(1, "20261120-163654F")), @r"
    TZ=UTC pgbackrest --stanza=main --config=/etc/pgbackrest/orders.conf --log-level-console=off
      --log-level-stderr=error --log-level-file=off --repo=1 --set=20261120-163654F --output=json info
    ");
    insta::assert_snapshot!(shown(&tool.list_archive(2, None)), @r"
    TZ=UTC pgbackrest --stanza=main --config=/etc/pgbackrest/orders.conf --log-level-console=off
      --log-level-stderr=error --log-level-file=off --repo=2 --output=json --recurse repo-ls archive/main
    ");
    insta::assert_snapshot!(shown(&tool.list_archive(2, Some("15-1"))), @r"
    TZ=UTC pgbackrest --stanza=main --config=/etc/pgbackrest/orders.conf --log-level-console=off
      --log-level-stderr=error --log-level-file=off --repo=2 --output=json --recurse repo-ls archive/main/15-1
    ");
    insta::assert_snapshot!(shown(&tool.get_file(1, "backup/main/backup.info")), @r"
    TZ=UTC pgbackrest --stanza=main --config=/etc/pgbackrest/orders.conf --log-level-console=off
      --log-level-stderr=error --log-level-file=off --repo=1 repo-get backup/main/backup.info
    ");
    insta::assert_snapshot!(shown(&tool.get_history(1, "15-1", 10)), @r"
    TZ=UTC pgbackrest --stanza=main --config=/etc/pgbackrest/orders.conf --log-level-console=off
      --log-level-stderr=error --log-level-file=off --repo=1 repo-get archive/main/15-1/0000000A.history
    ");
}

#[test]
fn the_stanza_is_created_and_checked_in_all_repositories() {
    insta::assert_snapshot!(shown(&tool().stanza_create()), @r"
    TZ=UTC pgbackrest --stanza=main --config=/etc/pgbackrest/orders.conf --log-level-console=info
      --log-level-stderr=off --log-timestamp stanza-create
    ");
    insta::assert_snapshot!(shown(&tool().check()), @r"
    TZ=UTC pgbackrest --stanza=main --config=/etc/pgbackrest/orders.conf --log-level-console=info
      --log-level-stderr=off --log-timestamp check
    ");
}

#[test]
fn a_backup_names_its_repository_and_never_expires() {
    let annotations = vec![("run-id".into(), "0193".into()), ("reason".into(), "before the = upgrade".into())];
    let request = BackupRequest { repo: 2, backup_type: BackupType::Diff, annotations };
    insta::assert_snapshot!(shown(&tool().backup(&request)), @r"
    TZ=UTC nice -n 10 pgbackrest --stanza=main --config=/etc/pgbackrest/orders.conf --log-level-console=detail
      --log-level-stderr=off --log-timestamp --repo=2 --type=diff --annotation=run-id=0193
      '--annotation=reason=before the = upgrade' --start-fast --process-max=2 --no-expire-auto backup
    ");
    insta::assert_snapshot!(shown(&tool().annotate(2, "20261120-163654F", &request.annotations)), @r"
    TZ=UTC pgbackrest --stanza=main --config=/etc/pgbackrest/orders.conf --log-level-console=info
      --log-level-stderr=off --log-timestamp --repo=2 --set=20261120-163654F --annotation=run-id=0193
      '--annotation=reason=before the = upgrade' annotate
    ");
}

#[test]
fn expiry_of_a_backup_spares_wal_and_expiry_of_wal_spares_backups() {
    let (fulls, all) = (WalKept::Fulls(NonZeroU32::new(4).unwrap()), WalKept::Backups(NonZeroU32::new(7).unwrap()));
    insta::assert_snapshot!(shown(&tool().expire_set(1, "20261120-163654F", true)), @r"
    TZ=UTC pgbackrest --stanza=main --config=/etc/pgbackrest/orders.conf --log-level-console=detail
      --log-level-stderr=off --log-timestamp --repo=1 --dry-run --set=20261120-163654F
      --repo1-retention-full-type=count --repo1-retention-full=9999999 --repo1-retention-diff=9999999
      --repo1-retention-archive-type=full --repo1-retention-archive=9999999 expire
    ");
    insta::assert_snapshot!(shown(&tool().expire_set(1, "20261120-163654F", false)), @r"
    TZ=UTC pgbackrest --stanza=main --config=/etc/pgbackrest/orders.conf --log-level-console=detail
      --log-level-stderr=off --log-timestamp --repo=1 --set=20261120-163654F --repo1-retention-full-type=count
      --repo1-retention-full=9999999 --repo1-retention-diff=9999999 --repo1-retention-archive-type=full
      --repo1-retention-archive=9999999 expire
    ");
    insta::assert_snapshot!(shown(&tool().expire_wal(2, fulls, true)), @r"
    TZ=UTC pgbackrest --stanza=main --config=/etc/pgbackrest/orders.conf --log-level-console=detail
      --log-level-stderr=off --log-timestamp --repo=2 --dry-run --repo2-retention-full-type=count
      --repo2-retention-full=9999999 --repo2-retention-diff=9999999 --repo2-retention-archive-type=full
      --repo2-retention-archive=4 expire
    ");
    insta::assert_snapshot!(shown(&tool().expire_wal(2, all, false)), @r"
    TZ=UTC pgbackrest --stanza=main --config=/etc/pgbackrest/orders.conf --log-level-console=detail
      --log-level-stderr=off --log-timestamp --repo=2 --repo2-retention-full-type=count
      --repo2-retention-full=9999999 --repo2-retention-diff=9999999 --repo2-retention-archive-type=incr
      --repo2-retention-archive=7 expire
    ");
    insta::assert_snapshot!(shown(&tool().expire_native(1, false)), @r"
    TZ=UTC pgbackrest --stanza=main --config=/etc/pgbackrest/orders.conf --log-level-console=detail
      --log-level-stderr=off --log-timestamp --repo=1 expire
    ");
}

#[test]
fn verification_tells_every_file() {
    insta::assert_snapshot!(shown(&tool().verify(1)), @r"
    TZ=UTC nice -n 10 pgbackrest --stanza=main --config=/etc/pgbackrest/orders.conf --log-level-console=detail
      --log-level-stderr=off --log-timestamp --repo=1 --process-max=2 --output=text --verbose verify
    ");
}

#[test]
fn a_restore_stays_in_its_scratch_directory() {
    let request = RestoreRequest {
        repo: 1,
        label: "20261120-163654F".into(),
        data_dir: "/scratch/1/data".into(),
        tablespace_dir: "/scratch/1/tablespaces".into(),
        work_dir: "/scratch/1/work".into(),
        process_max: None,
    };
    insta::assert_snapshot!(shown(&tool().restore(&request)), @r"
    TZ=UTC nice -n 10 pgbackrest --stanza=main --config=/etc/pgbackrest/orders.conf --log-level-console=detail
      --log-level-stderr=off --log-timestamp --repo=1 --reset-pg1-host --pg1-path=/scratch/1/data
      --lock-path=/scratch/1/work --log-level-file=off --set=20261120-163654F --type=none --archive-mode=off
      --no-delta --no-link-all --reset-link-map --reset-tablespace-map --reset-recovery-option --reset-db-include
      --reset-db-exclude --tablespace-map-all=/scratch/1/tablespaces --process-max=2 restore
    ");
    let (work, data, wal) = (Path::new("/scratch/1/work"), Path::new("/scratch/1/data"), Path::new("/scratch/1/wal/x"));
    let segment = "000000010000000000000014".parse().unwrap();
    insta::assert_snapshot!(shown(&tool().archive_get(1, work, segment, wal, data)), @r"
    TZ=UTC nice -n 10 pgbackrest --stanza=main --config=/etc/pgbackrest/orders.conf --log-level-console=info
      --log-level-stderr=off --log-timestamp --repo=1 --reset-pg1-host --pg1-path=/scratch/1/data
      --lock-path=/scratch/1/work --log-level-file=off --no-archive-async archive-get 000000010000000000000014
      /scratch/1/wal/x
    ");
    insta::assert_snapshot!(shown(&tool().archive_get_history(1, work, 2, wal, data)), @r"
    TZ=UTC nice -n 10 pgbackrest --stanza=main --config=/etc/pgbackrest/orders.conf --log-level-console=info
      --log-level-stderr=off --log-timestamp --repo=1 --reset-pg1-host --pg1-path=/scratch/1/data
      --lock-path=/scratch/1/work --log-level-file=off --no-archive-async archive-get 00000002.history
      /scratch/1/wal/x
    ");
}

#[test]
fn secrets_travel_in_the_environment_and_are_not_shown() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pass");
    std::fs::write(&file, "hunter2").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut database = database();
    let secret: SecretRef = format!("file:{}", file.display()).parse().unwrap();
    database.pgbackrest.secrets.insert("PGBACKREST_REPO2_CIPHER_PASS".into(), secret);
    database.pgbackrest.label_timezone = Tz::Europe__Berlin;
    database.pgbackrest.config = None;
    insta::assert_snapshot!(shown(&PgBackRest::of(&database).unwrap().info()), @r"
    TZ=Europe/Berlin PGBACKREST_REPO2_CIPHER_PASS=*** pgbackrest --stanza=main --log-level-console=off
      --log-level-stderr=error --log-level-file=off --output=json info
    ");
    std::fs::remove_file(&file).unwrap();
    assert!(PgBackRest::of(&database).is_err());
}
