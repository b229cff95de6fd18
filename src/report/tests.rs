//! What people read of a database, from a real catalog.

use super::*;
use crate::{
    engine::pgbackrest::info,
    record::{BackupStatus, CopyState},
};

const INFO: &[u8] = include_bytes!("../../tests/samples/pgbackrest-info-multirepo.json");

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
}

/// A policy with one database and this schedule, and a catalog with a full in repository 1 at each of these seconds.
async fn site(schedule: &str, fulls: &[i64]) -> (tempfile::TempDir, Policy, Catalog) {
    let directory = tempfile::tempdir().unwrap();
    let text = format!(
        "[daemon]\nstate_dir = \"{}\"\n[database.orders]\nenvironment = \"staging\"\nschedule = {{ {schedule} }}\n",
        directory.path().display()
    );
    let policy = Policy::parse(vec![("p.toml".into(), text)]).unwrap();
    let catalog = Catalog::open(directory.path(), at(0)).await.unwrap();
    let orders = &policy.databases[&"orders".parse().unwrap()];
    let some = info::read(INFO).unwrap().unwrap().backups(1, orders).remove(0);
    for second in fulls {
        let (started_at, stopped_at) = (at(second - 5), at(*second));
        let (label, id) = (format!("{second}F"), format!("backup-{second}"));
        let full = Backup { id, label, started_at, stopped_at, ..some.clone() };
        catalog.record_backup(&full).await.unwrap();
    }
    (directory, policy, catalog)
}

/// The first lines of what people read, at second 1000.
async fn told(policy: &Policy, catalog: &Catalog, lines: usize) -> String {
    let status = status(policy, catalog, None, at(1000)).await.unwrap();
    let text = text::status(&status, policy.daemon.timezone);
    let of_database = text.lines().skip_while(|line| line.starts_with('!')).skip(1);
    of_database.take(lines).collect::<Vec<_>>().join("\n")
}

async fn look(catalog: &Catalog, second: i64, windows: &[(&str, i64, i64)]) {
    let orders: DatabaseName = "orders".parse().unwrap();
    let sample = WalSample {
        database: orders.clone(),
        sampled_at: at(second),
        timeline: Some(1),
        current_lsn: None,
        last_archived_wal: None,
        last_archived_at: None,
        failed_count: None,
        last_failed_at: None,
        ready_count: None,
        contiguous_to: BTreeMap::new(),
        gaps: BTreeMap::from([(1, Vec::new())]),
        problems: Vec::new(),
    };
    catalog.record_wal_sample(&sample).await.unwrap();
    let window = |(label, from, to): &(&str, i64, i64)| Window {
        database: orders.clone(),
        repo: 1,
        label: (*label).to_owned(),
        from: at(*from),
        to: at(*to),
    };
    let windows: Vec<Window> = windows.iter().map(window).collect();
    catalog.replace_windows(&orders, 1, &windows).await.unwrap();
}

#[tokio::test]
async fn a_range_never_spans_a_hole() {
    let (_directory, policy, catalog) = site("wal = \"*/5 * * * *\"", &[100, 600]).await;
    look(&catalog, 990, &[("100F", 100, 300), ("600F", 600, 990)]).await;
    insta::assert_snapshot!(told(&policy, &catalog, 3).await, @r"
    recoverable to 2027-01-15 08:16:30 UTC (10s ago), from 2027-01-15 08:10:00 UTC on
                   or 2027-01-15 08:01:40 UTC … 2027-01-15 08:05:00 UTC (repo 1, from 100F)
    loss now (RPO) 10s
    ");
    let status = status(&policy, &catalog, None, at(1000)).await.unwrap();
    assert_eq!(status.databases[0].recoverable_from, Some(at(600)));
}

#[tokio::test]
async fn an_expired_backup_takes_its_range_along() {
    let (_directory, policy, catalog) = site("wal = \"*/5 * * * *\"", &[100, 600]).await;
    look(&catalog, 990, &[("100F", 100, 300), ("600F", 600, 990)]).await;
    let ended = ["backup-600".to_owned()];
    catalog.mark_backups(&ended, BackupStatus::Expired, Some("by hand"), at(995)).await.unwrap();
    insta::assert_snapshot!(told(&policy, &catalog, 3).await, @r"
    recoverable to 2027-01-15 08:05:00 UTC (11m 40s ago), from 2027-01-15 08:01:40 UTC on
    loss now (RPO) 11m 40s
    restore (RTO)  unknown
    ");
}

#[tokio::test]
async fn without_wal_checks_only_the_stops_of_backups_are_told() {
    let (_directory, policy, catalog) = site("full = \"@daily\"", &[100, 200, 300, 400, 500, 600]).await;
    insta::assert_snapshot!(told(&policy, &catalog, 10).await, @r"
    recoverable to 2027-01-15 08:10:00 UTC (6m 40s ago), the stop of 600F: no `wal` schedule looks at what follows
                   or one of 5 more stops of backups, the oldest 2027-01-15 08:01:40 UTC (repo 1, from 100F)
    loss now (RPO) 6m 40s
    restore (RTO)  unknown
    last proven    never
    backups        full 6m 40s ago, diff never, incr never
    size           34.8 MiB, 50.1 MiB in the repositories
    archive        never looked at; no `wal` schedule watches it
    next           orders/full at 2027-01-16 00:00:00 UTC
    ");
    let status = status(&policy, &catalog, None, at(1000)).await.unwrap();
    let found = &status.databases[0];
    assert_eq!((found.recoverable_from, found.recoverable_to), (Some(at(600)), Some(at(600))));
    assert_eq!((found.windows.len(), found.alarms.len()), (6, 0));
}

#[tokio::test]
async fn a_database_that_is_dumped_tells_its_copies_and_nothing_of_an_archive() {
    let directory = tempfile::tempdir().unwrap();
    let text = format!(
        "[daemon]\nstate_dir = \"{}\"\n[storage.a]\ntype = \"filesystem\"\npath = \"/a\"\n[tier.gold]\nrpo = \"25h\"\n\
         [database.wiki]\nengine = \"sqlite\"\nsqlite.path = \"/w.db\"\nstorage = \"a\"\ntier = \"gold\"\n\
         schedule = {{ full = \"@daily\" }}\n",
        directory.path().display()
    );
    let policy = Policy::parse(vec![("p.toml".into(), text)]).unwrap();
    let catalog = Catalog::open(directory.path(), at(0)).await.unwrap();
    let wiki: DatabaseName = "wiki".parse().unwrap();
    let none = status(&policy, &catalog, None, at(1000)).await.unwrap();
    assert!(text::status(&none, policy.daemon.timezone).contains("recoverable to nothing: there is no good backup"));

    // What a catalog with two dumps would give.
    let mut status = none;
    let moment = |second| Window {
        database: wiki.clone(),
        repo: 0,
        label: format!("backup-{second}"),
        from: at(second),
        to: at(second),
    };
    let copy = |storage: &str, state| BackupCopy {
        storage: storage.to_owned(),
        state,
        detail: None,
        checked_at: at(900),
        locked_until: None,
    };
    let last =
        LastBackup { id: "backup-880".into(), label: "backup-880".into(), stopped_at: at(885), age_seconds: 115 };
    let found = &mut status.databases[0];
    found.windows = vec![moment(880), moment(400)];
    found.last = BTreeMap::from([(BackupType::Full, last)]);
    found.rpo = Objective::new(Some(Duration::from_secs(120)), policy.databases[&wiki].tier.rpo);
    (found.size_bytes, found.stored_bytes, found.alarms) = (Some(1 << 20), 1 << 18, Vec::new());
    found.copies = vec![copy("a", CopyState::Good), copy("b", CopyState::Damaged)];
    let text = text::status(&status, policy.daemon.timezone);
    let of_database: Vec<&str> = text.lines().skip_while(|line| line.starts_with('!')).collect();
    insta::assert_snapshot!(of_database.join("\n"), @r"
    wiki (production, gold)
      recoverable to 2027-01-15 08:14:40 UTC (2m ago), the moment of backup-880
                     or 2027-01-15 08:06:40 UTC (from backup-400)
      loss now (RPO) 2m, objective 1d 1h: met
      restore (RTO)  unknown
      last proven    never
      backups        full 1m 55s ago
      size           1.0 MiB, 256.0 KiB in the storages
      copies         a, b DAMAGED
      next           wiki/full at 2027-01-16 00:00:00 UTC
    ");
}
