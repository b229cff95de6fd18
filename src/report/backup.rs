//! One backup as facts: its stable machine form, where its copies are, how they stand.
//!
//! `list`, `show`, `backup` and `export` all tell a backup in this one form. A newcomer would add a key in one of them.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    catalog::ProofSummary,
    human,
    policy::{Place, Policy},
    record::{Artifact, Backup, BackupCopy, BackupStatus, CompressionMethod, CopyState, Dump, Role},
};

/// A backup as the machine form promises it: our facts under the stable names.
///
/// `label` is what a person called a dump; for pgBackRest it is the tool's own label. `name` is a person's word in both.
pub fn machine_form(policy: &Policy, backup: &Backup, proofs: &[ProofSummary]) -> Value {
    let mut form = serde_json::to_value(backup).unwrap_or_default();
    let extra = json!({
        "backup_id": backup.id,
        "type": backup.backup_type,
        "created_at": backup.started_at,
        "size_bytes": backup.size,
        "size_human": human::size(backup.size),
        "stored_bytes": backup.repo_delta,
        "compression_ratio": ratio(backup),
        "file_path": Value::Null,
        "compressed": Value::Null,
        "encrypted": Value::Null,
        "format": Value::Null,
        "migrations": Value::Null,
        "retention_days": Value::Null,
        "expires_at": Value::Null,
        "verification": verification(backup),
        "proofs": proofs,
        "duration_seconds": (backup.stopped_at - backup.started_at).num_seconds(),
        "copies": [{ "repo": backup.repo, "label": backup.label, "stored_bytes": backup.repo_delta }],
    });
    let of_dump = backup.dump.as_ref().map(|dump| dump_form(policy, backup, dump));
    if let Some(form) = form.as_object_mut() {
        form.remove("dump");
        for more in [Some(extra), of_dump].into_iter().flatten() {
            form.extend(more.as_object().cloned().unwrap_or_default());
        }
    }
    form
}

/// What only a dump has.
fn dump_form(policy: &Policy, backup: &Backup, dump: &Dump) -> Value {
    json!({
        "label": backup.name,
        "file_path": file_path(policy, dump),
        "compressed": dump.compression.method != CompressionMethod::None,
        "compression": dump.compression,
        "encrypted": dump.encryption.is_some(),
        "encryption": dump.encryption,
        "format": dump.format,
        "migrations": dump.migrations,
        "retention_days": dump.retention_days,
        "expires_at": dump.expires_at,
        "server": dump.server,
        "source": dump.source,
        "warnings": dump.warnings,
        "copies": copies(policy, dump),
    })
}

/// A copy as machines see it.
#[derive(Debug, Serialize)]
struct CopyForm<'a> {
    #[serde(flatten)]
    copy: &'a BackupCopy,
    /// Its directory, as a person would write it.
    path: String,
    stored_bytes: u64,
}

fn copies<'a>(policy: &Policy, dump: &'a Dump) -> Vec<CopyForm<'a>> {
    let form = |copy: &'a BackupCopy| CopyForm {
        copy,
        path: locate(policy, &copy.storage, &dump.directory),
        stored_bytes: dump.stored_size(),
    };
    dump.copies.iter().map(form).collect()
}

/// The share of the raw size that one copy takes; none where the tool does not say.
fn ratio(backup: &Backup) -> Option<f64> {
    let (stored, raw) = (backup.repo_delta?, backup.delta);
    #[expect(clippy::cast_precision_loss, reason = "four decimals are told")]
    let ratio = stored as f64 / raw as f64;
    (raw > 0).then(|| (ratio * 10_000.0).round() / 10_000.0)
}

/// What is known of its soundness; null is "not looked at".
fn verification(backup: &Backup) -> Value {
    let is_bad = matches!(backup.status, BackupStatus::Damaged | BackupStatus::Unrestorable);
    let is_gone = matches!(backup.status, BackupStatus::Lost | BackupStatus::Expired);
    // A dump is recorded only after its content and each copy were read through.
    let checked = backup.dump.is_some() || backup.page_errors.is_some();
    let readable = backup.dump.as_ref().map(|dump| dump.copies.iter().any(|copy| copy.state == CopyState::Good));
    json!({
        "integrity_check": if is_bad { Some(false) } else { (checked && !is_gone).then_some(true) },
        "file_readable": if is_gone { Some(false) } else { readable },
        "verified_at": backup.dump.as_ref().and_then(|dump| dump.verified_at),
    })
}

/// The file that a person would look at first, in the copy to be read first: the database's, or the whole directory.
fn file_path(policy: &Policy, dump: &Dump) -> Option<String> {
    let copy = best_copy(dump)?;
    let mut data = dump.artifacts.iter().filter(|artifact| artifact.role == Role::Data);
    let path = match (data.next(), data.next()) {
        (Some(only), None) => dump.path(only),
        _ => dump.directory.clone(),
    };
    Some(locate(policy, &copy.storage, &path))
}

/// The copy to read first: a good one, else one that may be.
pub fn best_copy(dump: &Dump) -> Option<&BackupCopy> {
    let first = |state| dump.copies.iter().find(|copy| copy.state == state);
    first(CopyState::Good).or_else(|| first(CopyState::Unknown))
}

/// A path within a storage as a person would write it. A storage that left the policy is told by its name.
pub fn locate(policy: &Policy, storage: &str, path: &str) -> String {
    match policy.storages.get(storage).map(|storage| &storage.place) {
        Some(Place::Filesystem { path: root }) => root.join(path).display().to_string(),
        Some(Place::S3(bucket)) => {
            let parts = [bucket.bucket.as_str(), bucket.prefix.as_str(), path];
            let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            format!("s3://{}", parts.join("/"))
        }
        None => format!("{storage}:{path}"),
    }
}

/// Where a backup is and how each copy stands, in one word each: `local offsite!`, or `repo1` for pgBackRest.
///
/// `!` is a copy that is no good, `?` one that could not be asked. Copies that we deleted are not told.
pub fn copies_column(backup: &Backup) -> String {
    let Some(dump) = &backup.dump else { return format!("repo{}", backup.repo) };
    let told = dump.copies.iter().filter_map(|copy| match copy.state {
        CopyState::Good => Some(copy.storage.clone()),
        CopyState::Unknown => Some(format!("{}?", copy.storage)),
        CopyState::Damaged | CopyState::Missing | CopyState::Failed => Some(format!("{}!", copy.storage)),
        CopyState::Deleted => None,
    });
    told.collect::<Vec<_>>().join(" ")
}

/// A document of all backups, for other programs.
pub fn document(at: DateTime<Utc>, backups: Vec<Value>) -> Value {
    json!({ "version": 1, "exported_at": at, "backups": backups })
}

/// The name and the two checksums of a file, for people.
pub fn artifact_line(artifact: &Artifact) -> String {
    let Artifact { role, name, stored, .. } = artifact;
    format!("{name} ({role}, {}) sha256 {}", human::size(stored.size), stored.sha256)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        policy::{S3, Storage},
        record::{BackupType, Compression, Digest, DumpFormat, Encryption, EncryptionMethod, EngineKind, Migrations},
    };

    pub(crate) fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
    }

    /// A policy with a directory and a bucket.
    pub(crate) fn policy() -> Policy {
        let text = "[database.orders]\nenvironment = \"staging\"\n";
        let mut policy = Policy::parse(vec![("p.toml".into(), text.to_owned())]).unwrap();
        let place = Place::Filesystem { path: "/srv/backups".into() };
        policy.storages.insert("local".to_owned(), Storage { name: "local".to_owned(), place });
        let bucket = S3 {
            bucket: "acme".to_owned(),
            prefix: "db".to_owned(),
            region: "eu".to_owned(),
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
            attempts: 3,
            timeout: std::time::Duration::from_secs(30),
        };
        let place = Place::S3(Box::new(bucket));
        policy.storages.insert("offsite".to_owned(), Storage { name: "offsite".to_owned(), place });
        policy
    }

    /// A dump with globals, migrations and a copy that is no good.
    pub(crate) fn dump() -> Backup {
        let id = "backup-20270115-080010-pre";
        let artifact = |role, name: &str, raw, stored, hmac: Option<&str>| Artifact {
            role,
            name: name.to_owned(),
            raw: Digest { size: raw, sha256: "a".repeat(64) },
            stored: Digest { size: stored, sha256: "b".repeat(64) },
            hmac: hmac.map(str::to_owned),
        };
        let copy = |storage: &str, state, detail: Option<&str>| BackupCopy {
            storage: storage.to_owned(),
            state,
            detail: detail.map(str::to_owned),
            checked_at: at(20),
            locked_until: (storage == "offsite").then(|| at(86_400)),
        };
        let dump = Dump {
            format: DumpFormat::Custom,
            compression: Compression::default(),
            encryption: Some(Encryption { key: "ops".to_owned(), method: EncryptionMethod::Aes256 }),
            directory: format!("shop/{id}"),
            artifacts: vec![
                artifact(Role::Globals, "globals.sql.zst.enc", 1 << 10, 512, None),
                artifact(Role::Data, "shop.dump.zst.enc", 1 << 20, 1 << 18, Some("cc")),
            ],
            copies: vec![
                copy("offsite", CopyState::Damaged, Some("`shop.dump.zst.enc` has another checksum")),
                copy("local", CopyState::Good, None),
            ],
            server: "PostgreSQL 15.20".to_owned(),
            source: "shop".to_owned(),
            migrations: Some(Migrations {
                framework: "prisma".to_owned(),
                applied_count: 2,
                last_migration: Some("2_more".to_owned()),
                migrations_list: vec!["1_init".to_owned(), "2_more".to_owned()],
            }),
            retention_days: Some(30),
            expires_at: Some(at(30 * 86_400)),
            warnings: vec!["the dump is half as large as usual".to_owned()],
            verified_at: Some(at(600)),
        };
        let (raw, stored) = (dump.raw_size(), dump.stored_size());
        Backup {
            id: id.to_owned(),
            database: "shop".parse().unwrap(),
            environment: "production".to_owned(),
            engine: EngineKind::PgDump,
            backup_type: BackupType::Full,
            requested_type: BackupType::Full,
            label: id.to_owned(),
            repo: 0,
            system_id: "7300000000000000001".to_owned(),
            server_version: "15".to_owned(),
            tool_version: "pg_dump 15.20".to_owned(),
            name: Some("pre".to_owned()),
            reason: Some("before the upgrade".to_owned()),
            tags: vec!["release".to_owned()],
            run_uuid: None,
            started_at: at(10),
            stopped_at: at(15),
            size: raw,
            delta: raw,
            repo_delta: Some(stored),
            repo_size: Some(stored),
            prior: None,
            references: Vec::new(),
            wal_start: None,
            wal_stop: None,
            lsn_stop: None,
            page_errors: None,
            status: BackupStatus::Good,
            expired_reason: None,
            expired_at: None,
            held: Some("audit (by ada)".to_owned()),
            held_until: None,
            proven_at: None,
            created_by: "ada".to_owned(),
            dump: Some(dump),
        }
    }

    #[test]
    fn a_dump_has_every_promised_key() {
        let form = machine_form(&policy(), &dump(), &[]);
        insta::assert_snapshot!(format!("{form:#}"), @r#"
        {
          "backup_id": "backup-20270115-080010-pre",
          "backup_type": "full",
          "compressed": true,
          "compression": "zstd:3",
          "compression_ratio": 0.2502,
          "copies": [
            {
              "checked_at": "2027-01-15T08:00:20Z",
              "detail": "`shop.dump.zst.enc` has another checksum",
              "locked_until": "2027-01-16T08:00:00Z",
              "path": "s3://acme/db/shop/backup-20270115-080010-pre",
              "state": "damaged",
              "storage": "offsite",
              "stored_bytes": 262656
            },
            {
              "checked_at": "2027-01-15T08:00:20Z",
              "path": "/srv/backups/shop/backup-20270115-080010-pre",
              "state": "good",
              "storage": "local",
              "stored_bytes": 262656
            }
          ],
          "created_at": "2027-01-15T08:00:10Z",
          "created_by": "ada",
          "database": "shop",
          "delta": 1049600,
          "duration_seconds": 5,
          "encrypted": true,
          "encryption": {
            "key": "ops",
            "method": "aes-256-ctr"
          },
          "engine": "pg_dump",
          "environment": "production",
          "expired_at": null,
          "expired_reason": null,
          "expires_at": "2027-02-14T08:00:00Z",
          "file_path": "/srv/backups/shop/backup-20270115-080010-pre/shop.dump.zst.enc",
          "format": "custom",
          "held": "audit (by ada)",
          "held_until": null,
          "id": "backup-20270115-080010-pre",
          "label": "pre",
          "lsn_stop": null,
          "migrations": {
            "applied_count": 2,
            "framework": "prisma",
            "last_migration": "2_more",
            "migrations_list": [
              "1_init",
              "2_more"
            ]
          },
          "name": "pre",
          "page_errors": null,
          "prior": null,
          "proofs": [],
          "proven_at": null,
          "reason": "before the upgrade",
          "references": [],
          "repo": 0,
          "repo_delta": 262656,
          "repo_size": 262656,
          "requested_type": "full",
          "retention_days": 30,
          "run_uuid": null,
          "server": "PostgreSQL 15.20",
          "server_version": "15",
          "size": 1049600,
          "size_bytes": 1049600,
          "size_human": "1.0 MiB",
          "source": "shop",
          "started_at": "2027-01-15T08:00:10Z",
          "status": "good",
          "stopped_at": "2027-01-15T08:00:15Z",
          "stored_bytes": 262656,
          "system_id": "7300000000000000001",
          "tags": [
            "release"
          ],
          "tool_version": "pg_dump 15.20",
          "type": "full",
          "verification": {
            "file_readable": true,
            "integrity_check": true,
            "verified_at": "2027-01-15T08:10:00Z"
          },
          "wal_start": null,
          "wal_stop": null,
          "warnings": [
            "the dump is half as large as usual"
          ]
        }
        "#);
    }

    #[test]
    fn both_kinds_of_backup_have_the_promised_keys() {
        const PROMISED: &str = "backup_id database environment engine type created_at label reason tags file_path \
            size_bytes size_human compressed compression_ratio encrypted format migrations retention_days expires_at \
            status verification copies proofs duration_seconds created_by";
        let physical = Backup {
            engine: EngineKind::PgBackRest,
            label: "20270115-080010F".to_owned(),
            repo: 2,
            page_errors: Some(false),
            dump: None,
            ..dump()
        };
        for backup in [dump(), physical.clone()] {
            let form = machine_form(&policy(), &backup, &[]);
            let lacking: Vec<&str> = PROMISED.split(' ').filter(|key| form.get(key).is_none()).collect();
            assert_eq!(lacking, [""; 0], "{}", backup.engine);
            assert_eq!(form.get("dump"), None);
        }
        let form = machine_form(&policy(), &physical, &[]);
        assert_eq!((form["label"].as_str(), form["name"].as_str()), (Some("20270115-080010F"), Some("pre")));
        assert_eq!(form["copies"][0]["repo"], 2);
        assert_eq!(form["verification"]["integrity_check"], true);
    }

    #[test]
    fn what_is_bad_or_gone_does_not_pass_for_checked() {
        let told = |status| {
            let form = machine_form(&policy(), &Backup { status, ..dump() }, &[]);
            (form["verification"]["integrity_check"].as_bool(), form["verification"]["file_readable"].as_bool())
        };
        assert_eq!(told(BackupStatus::Good), (Some(true), Some(true)));
        assert_eq!(told(BackupStatus::Damaged), (Some(false), Some(true)));
        assert_eq!(told(BackupStatus::Lost), (None, Some(false)));
    }

    #[test]
    fn paths_are_as_people_write_them() {
        let policy = policy();
        assert_eq!(locate(&policy, "local", "shop/b/x"), "/srv/backups/shop/b/x");
        assert_eq!(locate(&policy, "offsite", "shop/b/x"), "s3://acme/db/shop/b/x");
        assert_eq!(locate(&policy, "former", "shop/b/x"), "former:shop/b/x");
        let mut parts = dump().dump.unwrap();
        assert_eq!(
            file_path(&policy, &parts).unwrap(),
            "/srv/backups/shop/backup-20270115-080010-pre/shop.dump.zst.enc"
        );
        parts.artifacts[1].role = Role::Part;
        assert_eq!(file_path(&policy, &parts).unwrap(), "/srv/backups/shop/backup-20270115-080010-pre");
        parts.copies[1].state = CopyState::Missing;
        assert_eq!(file_path(&policy, &parts), None, "no copy can be read");
    }

    #[test]
    fn a_copy_that_is_no_good_shows_in_the_list() {
        let mut backup = dump();
        assert_eq!(copies_column(&backup), "offsite! local");
        let copies = &mut backup.dump.as_mut().unwrap().copies;
        (copies[0].state, copies[1].state) = (CopyState::Deleted, CopyState::Unknown);
        assert_eq!(copies_column(&backup), "local?");
        backup.dump = None;
        assert_eq!(copies_column(&Backup { repo: 2, ..backup }), "repo2");
    }
}
