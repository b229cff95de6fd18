//! Answers of real repositories.

use proptest::prelude::*;

use super::*;
use crate::engine::pgbackrest::tests::database;

fn sample(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/samples/pgbackrest-{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn stanza(name: &str) -> Stanza {
    read(&sample(name)).unwrap().unwrap()
}

#[test]
fn a_chain_of_backups_is_recorded_as_it_is() {
    let stanza = stanza("info.json");
    let backups = stanza.backups(1, &database());
    let told: Vec<_> = backups.iter().map(|b| (b.backup_type, b.references.len(), b.run_uuid.as_deref())).collect();
    use BackupType::{Diff, Full, Incr};
    assert_eq!(told, [(Full, 0, Some("42")), (Diff, 1, Some("43")), (Incr, 2, Some("44"))]);
    insta::assert_debug_snapshot!(backups[2], @r#"
    Backup {
        id: "foreign-20261120-141237F_20261120-141350I",
        database: DatabaseName(
            "orders",
        ),
        environment: "production",
        engine: PgBackRest,
        backup_type: Incr,
        requested_type: Incr,
        label: "20261120-141237F_20261120-141350I",
        repo: 1,
        system_id: "7710256263888769396",
        server_version: "15",
        tool_version: "2.45",
        name: None,
        reason: None,
        tags: [],
        run_uuid: Some(
            "44",
        ),
        started_at: 2026-11-20T14:13:50Z,
        stopped_at: 2026-11-20T14:13:52Z,
        size: 350148980,
        delta: 491788,
        repo_delta: Some(
            138734,
        ),
        repo_size: Some(
            42810196,
        ),
        prior: Some(
            "20261120-141237F_20261120-141348D",
        ),
        references: [
            "20261120-141237F",
            "20261120-141237F_20261120-141348D",
        ],
        wal_start: Some(
            "000000010000000000000017",
        ),
        wal_stop: Some(
            "000000010000000000000017",
        ),
        lsn_stop: Some(
            "0/17000100",
        ),
        page_errors: Some(
            false,
        ),
        status: Good,
        expired_reason: None,
        expired_at: None,
        held: None,
        held_until: None,
        proven_at: None,
        created_by: "unknown",
        dump: None,
    }
    "#);
}

#[test]
fn the_system_identifier_keeps_every_digit() {
    let stanza = stanza("info.json");
    assert_eq!(stanza.cluster(1).unwrap().system_id, "7710256263888769396");
    assert_eq!(stanza.cluster(1).unwrap().archive_id(), "15-1");
}

#[test]
fn a_run_is_found_by_its_annotation_and_nothing_else() {
    let stanza = stanza("info.json");
    assert_eq!(stanza.backup_of_run(1, "43", &database()).unwrap().label, "20261120-141237F_20261120-141348D");
    assert_eq!(stanza.backup_of_run(1, "20261120-141237F", &database()), None);
    assert_eq!(stanza.backup_of_run(2, "43", &database()), None, "another repository");
}

#[test]
fn annotations_become_what_a_person_reads() {
    let stanza = stanza("info-three-timelines.json");
    let backup = &stanza.backups(2, &database())[0];
    assert_eq!(backup.reason.as_deref(), Some("because it = good"));
    assert_eq!((&*backup.id, &*backup.created_by), ("foreign-20261120-163657F", "unknown"));
}

#[test]
fn page_errors_damage_a_backup() {
    let stanza = stanza("info-page-error.json");
    let damaged: Vec<_> = stanza.backups(1, &database()).into_iter().filter(|b| !b.is_good()).collect();
    assert_eq!(damaged.len(), 1);
    assert_eq!((damaged[0].page_errors, damaged[0].status), (Some(true), BackupStatus::Damaged));
    let one = read(&sample("info-set-page-error.json")).unwrap().unwrap();
    assert_eq!(one.backups[0].damaged_files, ["base/5/24716"]);
    assert_eq!(one.backups[0].databases[0].name, "app");
}

#[test]
fn a_stanza_that_is_missing_or_empty_is_told_apart_from_trouble() {
    let missing = stanza("info-missing-stanza.json");
    assert!(missing.is_missing(1) && missing.trouble(1).is_some());
    let empty = stanza("info-empty-stanza.json");
    assert!(!empty.is_missing(1) && empty.trouble(1).is_none() && empty.backups.is_empty());
    assert_eq!(read(b"[]").unwrap(), None);
}

#[test]
fn a_repository_that_cannot_be_reached_is_trouble_that_may_pass() {
    let down = stanza("info-repo-host-down.json");
    let trouble = down.trouble(1).unwrap();
    assert_eq!((trouble.class, trouble.exit), (ErrorClass::Transient, ExitCode::Storage));
    assert!(trouble.message.starts_with("repository 1: [HostConnectError]"), "{trouble:?}");
}

#[test]
fn ciphertext_in_the_answer_reaches_no_terminal() {
    let trouble = stanza("info-wrong-passphrase-NOT-UTF8.json").trouble(1).unwrap();
    assert_eq!(trouble.class, ErrorClass::Config);
    assert!(!trouble.message.chars().any(char::is_control) && trouble.message.chars().count() < 450);
    assert!(trouble.remedy.unwrap().contains("passphrase"));
}

#[test]
fn each_repository_has_backups_of_its_own() {
    let stanza = stanza("info-multirepo.json");
    let count = |repo| stanza.backups(repo, &database()).len();
    assert!(count(1) > 0 && count(2) > 0 && count(1) + count(2) == stanza.backups.len());
    assert_eq!(count(3), 0);
    assert_eq!(stanza.all_backups(&database()).len(), stanza.backups.len());
}

#[test]
fn the_backups_of_a_former_cluster_count_and_need_their_wal() {
    let answer = |start: &str| {
        let text = format!(
            r#"[{{"db":[{{"id":1,"repo-key":1,"system-id":7,"version":"14"}},{{"id":2,"repo-key":1,"system-id":8,"version":"15"}}],
            "backup":[{{"label":"A","type":"full","database":{{"id":1,"repo-key":1}},"archive":{{"start":"000000010000000000000009"}}}},
            {{"label":"B","type":"full","database":{{"id":1,"repo-key":1}},"archive":{{"start":"000000010000000000000004"}}}},
            {{"label":"C","type":"full","database":{{"id":2,"repo-key":1}},"archive":{{"start":{start}}}}},
            {{"label":"C_I","type":"incr","database":{{"id":2,"repo-key":1}},"archive":{{"start":"000000010000000000000003"}}}},
            {{"label":"D","type":"full","database":{{"id":2,"repo-key":2}}}}]}}]"#
        );
        read(text.replace('\n', "").as_bytes()).unwrap().unwrap()
    };
    let stanza = answer("\"000000010000000000000002\"");
    assert_eq!((stanza.fulls(1), stanza.fulls(2), stanza.labels(1).len()), (3, 1, 4));
    // What must have no hole.
    let open = |stanza: &Stanza, anchor: Option<&str>| -> Result<Vec<String>, String> {
        let needs = stanza.wal_needs(1, anchor)?;
        Ok(needs.iter().skip(4).map(|need| format!("{} {}", need.archive_id, need.first)).collect())
    };
    let told = ["14-1 000000010000000000000004", "15-2 000000010000000000000002"];
    assert_eq!(open(&stanza, None).unwrap(), told);
    let least = answer("null").wal_needs(1, None).unwrap();
    assert_eq!(least.last().unwrap().first.to_string(), "000000010000000000000003", "no WAL, no need");
    assert_eq!(open(&answer("\"none\""), None), Err("C".to_owned()));
    let told = ["14-1 000000010000000000000004", "15-2 000000010000000000000003"];
    assert_eq!(open(&stanza, Some("C_I")).unwrap(), told, "of the former cluster all after its newest");
}

#[test]
fn what_has_no_directory_is_not_there_nor_is_what_was_built_on_it() {
    let listed = |label: &str, prior: &str, repo: u32| {
        format!(
            r#"{{"label":"{label}","type":"incr","prior":{prior},"reference":[],"database":{{"id":1,"repo-key":{repo}}}}}"#
        )
    };
    let text = format!(
        r#"[{{"db":[],"backup":[{},{},{},{},{}]}}]"#,
        listed("A", "null", 1),
        listed("A_D", "\"A\"", 1),
        listed("A_I", "\"A_D\"", 1),
        listed("B", "null", 1),
        listed("A", "null", 2)
    );
    let left = |directories: &[&str]| {
        let mut stanza = read(text.as_bytes()).unwrap().unwrap();
        stanza.forget_missing(1, &directories.iter().map(|it| (*it).to_owned()).collect());
        (stanza.labels(1).into_iter().collect::<Vec<_>>().join(" "), stanza.labels(2).len())
    };
    assert_eq!(left(&["A", "A_D", "A_I", "B", "latest"]), ("A A_D A_I B".to_owned(), 1));
    assert_eq!(left(&["A", "A_I", "B"]), ("A B".to_owned(), 1));
    assert_eq!(left(&["A_D", "A_I", "B"]), ("B".to_owned(), 1), "the other repository has its own");
}

#[test]
fn a_held_lock_is_seen() {
    assert!(stanza("info-lock-held.json").is_locked && !stanza("info.json").is_locked);
    let progress = br#"[{"status":{"code":0,"lock":{"backup":{"held":true,"size":200,"size-cplt":50}}}}]"#;
    assert_eq!(read(progress).unwrap().unwrap().progress, Some(Progress { done: 50, size: 200 }));
}

#[test]
fn the_newer_version_is_read_as_well() {
    let stanza = stanza("info-2.59.1-block-incr.json");
    let backups = stanza.backups(1, &database());
    assert_eq!((backups.len(), backups[0].repo_size, backups[0].repo_delta), (2, None, Some(18_673_922)));
    assert_eq!(stanza.archives[0].max, None);
    assert_eq!(self::stanza("info-2.59.1.json").backups(1, &database())[0].tool_version, "2.45");
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes: Vec<u8>, cut in 0..1900usize, at in 0..1900usize, byte: u8) {
        let _ = read(&bytes);
        let mut changed = sample("info.json");
        let length = changed.len();
        changed[at.min(length - 1)] = byte;
        changed.truncate(length - cut.min(length));
        if let Ok(Some(stanza)) = read(&changed) {
            let _ = (stanza.backups(1, &database()), stanza.trouble(1));
        }
    }
}
