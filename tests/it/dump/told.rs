//! What is told of a backup: by `backup`, `list`, `show`, `verify`, `export` and the manifest, of what really lies there.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{ENCRYPTIONS, Row, manifest, source::Source};
use crate::harness::{STORAGES, Site};

const REASON: &str = "Before the \"upgrade\", naïvely; $(nothing)";

/// Backs it up with all that a person can say about it; gives the id.
pub(super) fn back_up(site: &Site<'_>, row: &Row, source: &impl Source) -> String {
    let arguments =
        ["--label", &row.database, "--reason", REASON, "--tag", "release", "--tag", "café", "--retention", "40"];
    let answer = site.run(&[&["backup", row.database.as_str()][..], &arguments].concat());
    let backup = &answer.ok()["backup"];
    assert_eq!(backup["status"], "good", "{backup:#}");
    let warnings = backup["warnings"].as_array().unwrap();
    let is_expected = |warning: &Value| warning.as_str().unwrap().contains(source.warning().unwrap_or("no warning"));
    assert!(warnings.len() == source.warning().iter().len() && warnings.iter().all(is_expected), "{warnings:#?}");
    answer.ok()["backup_id"].as_str().unwrap().to_owned()
}

/// Everybody tells the same of a backup, and it is so.
pub(super) fn alike(site: &Site<'_>, row: &Row, id: &str, places: &[(&str, PathBuf)], source: &impl Source) {
    has_the_form(id, &row.database);
    let verified = site.run(&["verify", id]).ok()["backup"].clone();
    let mut shown = site.run(&["show", id]).ok()["backup"].clone();
    let artifacts = shown["artifacts"].take();
    let by_hand = shown["restore_by_hand"].take();
    let form = shown.as_object_mut().unwrap();
    form.retain(|key, _| !["artifacts", "restore_by_hand"].contains(&key.as_str()));
    assert_eq!(shown, verified);

    said(&shown, id, row, source);
    for (storage, place) in places {
        let directory = place.join(&row.database).join(id);
        files_are(site, &directory, &artifacts, &shown, row);
        let manifest = manifest(&directory);
        manifest_agrees(&manifest, &shown, &artifacts);
        if *storage == STORAGES[0] {
            assert_eq!(manifest["restore_by_hand"], by_hand, "the first copy's are shown");
        } else {
            let commands = manifest["restore_by_hand"].to_string();
            assert!(commands.contains("s3://backups/below/") && !commands.contains("/local/"), "{commands}");
        }
    }
}

/// `backup-YYYYMMDD-HHMMSS-LABEL`.
fn has_the_form(id: &str, label: &str) {
    let blank = |c: char| if c.is_ascii_digit() { '0' } else { c };
    let stamp = id.strip_suffix(&format!("-{label}")).unwrap_or_else(|| panic!("`{id}` has no label"));
    assert_eq!(stamp.chars().map(blank).collect::<String>(), "backup-00000000-000000");
}

/// What a person said, and what was asked for.
fn said(shown: &Value, id: &str, row: &Row, source: &impl Source) {
    let (framework, count, last) = source.migrations();
    let migrations = &shown["migrations"];
    assert_eq!(
        (&migrations["framework"], &migrations["applied_count"], &migrations["last_migration"]),
        (&json!(framework), &json!(count), &json!(last))
    );
    assert_eq!(migrations["migrations_list"].as_array().unwrap().len() as u64, count);
    let told = ["backup_id", "database", "label", "reason", "tags", "retention_days", "compression", "compressed"];
    let told: Vec<&Value> = told.iter().map(|key| &shown[key]).collect();
    let (database, is_compressed) = (json!(row.database), json!(row.compression != "none"));
    let tags = json!(["release", "café"]);
    let compression = json!(row.compression);
    assert_eq!(
        told,
        [&json!(id), &database, &database, &json!(REASON), &tags, &json!(40), &compression, &is_compressed]
    );
    let [none, age, _] = ENCRYPTIONS;
    let method = if row.encryption == age { "age" } else { "aes-256-ctr" };
    let key = if row.encryption == none { Value::Null } else { json!({ "key": row.encryption, "method": method }) };
    assert_eq!((&shown["encryption"], &shown["encrypted"]), (&key, &json!(row.encryption != none)));
    let [created, expires] = ["created_at", "expires_at"]
        .map(|key| shown[key].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap());
    assert_eq!((expires - created).num_days(), 40);

    let copies = shown["copies"].as_array().unwrap();
    let copies: Vec<(&str, &str)> =
        copies.iter().map(|copy| (copy["storage"].as_str().unwrap(), copy["state"].as_str().unwrap())).collect();
    assert_eq!(copies, STORAGES.map(|storage| (storage, "good")));
    assert_eq!(
        (&shown["verification"]["integrity_check"], &shown["verification"]["file_readable"]),
        (&json!(true), &json!(true))
    );
    assert!(shown["verification"]["verified_at"].is_string(), "{shown:#}");
}

/// In a storage lies what is told and nothing else, with the sums that `sha256sum` has of it.
fn files_are(site: &Site<'_>, directory: &Path, artifacts: &Value, shown: &Value, row: &Row) {
    let sums = site.lab.run(&format!("cd '{}'; find . -type f -printf '%P\\n' | xargs sha256sum", directory.display()));
    let mut lying: BTreeMap<&str, &str> =
        sums.lines().map(|line| line.split_once("  ").unwrap()).map(|(sum, name)| (name, sum)).collect();
    assert!(lying.remove("manifest.json").is_some());
    let artifacts = artifacts.as_array().unwrap();
    let told: BTreeMap<&str, &str> = artifacts
        .iter()
        .map(|artifact| (artifact["name"].as_str().unwrap(), artifact["stored"]["sha256"].as_str().unwrap()))
        .collect();
    assert_eq!(lying, told, "in {}", directory.display());
    let size = |artifact: &Value| fs::metadata(directory.join(artifact["name"].as_str().unwrap())).unwrap().len();
    assert!(artifacts.iter().all(|artifact| artifact["stored"]["size"] == size(artifact)), "{artifacts:#?}");
    assert_eq!(shown["stored_bytes"], artifacts.iter().map(size).sum::<u64>());
    let raw: u64 = artifacts.iter().map(|artifact| artifact["raw"]["size"].as_u64().unwrap()).sum();
    assert_eq!(shown["size_bytes"], raw);
    if row.compression == "none" && row.encryption == "none" {
        assert!(artifacts.iter().all(|artifact| artifact["raw"] == artifact["stored"]), "{artifacts:#?}");
    }
    let file = Path::new(shown["file_path"].as_str().unwrap());
    assert!(file.exists(), "{}", file.display());
}

/// The manifest tells of the backup what the catalog tells.
fn manifest_agrees(manifest: &Value, shown: &Value, artifacts: &Value) {
    let (backup, dump) = (&manifest["backup"], &manifest["backup"]["dump"]);
    assert_eq!(dump["artifacts"], *artifacts);
    let of_backup = "id database environment engine name reason tags size repo_delta server_version tool_version \
                     system_id started_at stopped_at created_by status";
    for key in of_backup.split_whitespace() {
        assert_eq!(backup[key], shown[key], "{key}");
    }
    let of_dump = "format compression encryption migrations retention_days expires_at server source warnings";
    for key in of_dump.split_whitespace() {
        assert_eq!(dump[key], shown[key], "{key}");
    }
}

/// `list` and `export` tell of all, and of each what `show` tells.
pub(super) fn list_and_export_agree(site: &Site<'_>, ids: &[String]) {
    let listed = site.run(&["list"]).ok()["backups"].clone();
    let newest_first: Vec<&str> = ids.iter().rev().map(String::as_str).collect();
    let listed_ids: Vec<&str> = listed.as_array().unwrap().iter().map(|form| form["id"].as_str().unwrap()).collect();
    assert_eq!(listed_ids, newest_first);
    let exported = site.run(&["export"]);
    assert_eq!((&exported.ok()["version"], &exported.ok()["backups"]), (&json!(1), &listed));
    for form in listed.as_array().unwrap() {
        let shown = site.run(&["show", form["id"].as_str().unwrap()]).ok()["backup"].clone();
        let differs: Vec<&String> =
            form.as_object().unwrap().iter().filter(|(key, value)| shown[key] != **value).map(|(key, _)| key).collect();
        assert_eq!(differs, [""; 0]);
    }
}
