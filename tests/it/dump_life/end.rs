//! The end of dumps: by hand, by the rules, and not at all while they are held. What other programs are told of them.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::*;
use crate::harness::{S3, until_true};

/// What a refusal says; the backup must still be whole in both storages.
#[track_caller]
fn refused(site: &Site<'_>, id: &str) -> String {
    let before = files(site.lab, "local");
    let told = site.run(&["delete", id, "--yes"]).fails(1);
    let dry = site.run(&["delete", id, "--dry-run"]);
    assert_eq!((dry.code, &dry.json["result"]["would_delete"]), (1, &false.into()), "{dry:?}");
    assert_eq!(files(site.lab, "local"), before);
    told
}

#[test]
fn what_is_newest_held_or_last_proven_is_not_deleted_and_all_else_is() {
    let lab = lab();
    let site = site(&lab, &wiki(&lab, ""));
    let first = backup(&site, "wiki", &["--label", "first"]);
    site.run(&["test-restore", "wiki"]).ok();
    let second = backup(&site, "wiki", &["--label", "second"]);
    let third = backup(&site, "wiki", &[]);
    site.run(&["hold", "second", "--reason", "audit"]).ok();

    assert!(refused(&site, &first).contains("proven 1 of 1"));
    assert!(refused(&site, &second).contains("held, audit"));
    assert!(refused(&site, &third).contains("the newest good backup"));
    site.run(&["delete", "second", "--yes"]).fails(1);
    site.run(&["delete", "backup-20000101-000000", "--yes"]).fails(1);

    for storage in STORAGES {
        assert!(files(&lab, storage).contains(&format!("wiki/{second}/hold.json")), "{storage}");
    }
    site.run(&["release", "second", "--reason", "done"]).ok();
    for storage in STORAGES {
        assert!(!files(&lab, storage).contains(&format!("wiki/{second}/hold.json")), "{storage}");
    }
    let dry = site.run(&["delete", &second, "--dry-run"]);
    assert_eq!((&dry.ok()["would_delete"], &dry.ok()["objections"]), (&true.into(), &serde_json::json!([])));
    // Production asks, and nobody answers here.
    site.run(&["delete", &second]).fails(64);
    STORAGES.iter().for_each(|storage| only(&lab, storage, &[&first, &second, &third]));

    let done = site.run(&["delete", &second, "--yes", "--reason", "too much"]);
    assert!(done.ok()["freed_bytes"].as_u64().unwrap() > 0);
    STORAGES.iter().for_each(|storage| only(&lab, storage, &[&first, &third]));
    let gone = list(&site, "wiki").into_iter().find(|backup| backup["id"] == second.as_str()).unwrap();
    assert_eq!((&gone["status"], &gone["expired_reason"]), (&"expired".into(), &"too much".into()), "{gone:#}");
    assert!(gone["copies"].as_array().unwrap().iter().all(|copy| copy["state"] == "deleted"), "{gone:#}");
    let again = site.run(&["delete", &second, "--yes"]).fails(1);
    assert!(again.contains("gone already"), "{again}");
}

#[test]
fn force_passes_what_is_soft_and_nothing_else() {
    let lab = lab();
    let site = site(&lab, &wiki(&lab, ""));
    let first = backup(&site, "wiki", &["--tag", "important", "--retention", "30", "--reason", "pre-migration to 4"]);
    site.run(&["test-restore", "wiki"]).ok();
    let second = backup(&site, "wiki", &[]);
    let third = backup(&site, "wiki", &[]);

    let told = refused(&site, &first);
    for soft in ["proven 1 of 1", "its own retention ends", "a safety backup, until", "tagged `important`"] {
        assert!(told.contains(soft), "{soft}: {told}");
    }
    site.run(&["hold", &first, "--reason", "audit"]).ok();
    for id in [&first, &third] {
        site.run(&["delete", id, "--force", "--yes"]).fails(1);
        assert_eq!(site.run(&["delete", id, "--force", "--dry-run"]).code, 1);
    }
    STORAGES.iter().for_each(|storage| only(&lab, storage, &[&first, &second, &third]));
    site.run(&["release", &first]).ok();
    let dry = site.run(&["delete", &first, "--force", "--dry-run"]);
    assert_eq!(dry.ok()["overruled"].as_array().unwrap().len(), 4, "{dry:?}");
    site.run(&["delete", &first, "--force"]).fails(64);
    site.run(&["delete", &first, "--force", "--yes", "--reason", "the migration is undone"]).ok();
    STORAGES.iter().for_each(|storage| only(&lab, storage, &[&second, &third]));
    let entry = site.run(&["audit", "list", "--limit", "1"]).ok()["entries"][0].clone();
    let detail = entry["detail"].as_str().unwrap();
    assert!(detail.starts_with("the migration is undone (--force, although: proven 1 of 1"), "{entry:#}");
}

#[test]
fn a_hold_ends_by_itself_and_lies_beside_the_dump_with_its_end() {
    let lab = lab();
    let site = site(&lab, &wiki(&lab, ""));
    let (old, _) = (backup(&site, "wiki", &[]), backup(&site, "wiki", &[]));
    site.run(&["hold", &old, "--reason", "audit", "--until", "2020-01-01"]).fails(64);
    assert_eq!(site.say(&["hold", &old, "--reason", "audit", "--until", "soon"]).0, 64);
    let until = site.run(&["hold", &old, "--reason", "audit", "--until", "90d"]).ok()["held_until"].clone();
    assert!(until.is_string());
    let told = refused(&site, &old);
    assert!(told.contains("held until"), "{told}");
    for verb in [&["show", &old][..], &["list", "wiki"]] {
        let (_, page, _) = site.say(verb);
        assert!(page.contains("until ") && page.contains("held"), "{page}");
    }

    // Only the storages are left; the hold is known again with its end.
    lab.run("find state -mindepth 1 -delete");
    site.run(&["catalog", "rebuild"]).ok();
    site.run(&["catalog", "accept"]).ok();
    assert_eq!(site.run(&["show", &old]).ok()["backup"]["held_until"], until);

    lab.run("sqlite3 state/catalog.db 'update backups set held_until = 1 where held is not null'");
    assert!(!site.say(&["list", "wiki"]).1.contains("held"));
    site.run(&["delete", &old, "--yes"]).ok();
    assert_eq!(list(&site, "wiki").iter().filter(|backup| backup["status"] == "expired").count(), 1);
}

#[test]
fn an_audit_entry_that_somebody_changed_is_found() {
    let lab = lab();
    let site = site(&lab, &wiki(&lab, ""));
    let id = backup(&site, "wiki", &[]);
    for reason in ["one", "two", "three"] {
        site.run(&["hold", &id, "--reason", reason]).ok();
    }
    let whole = site.run(&["audit", "verify"]);
    let (count, head) = (whole.ok()["count"].as_u64().unwrap(), whole.ok()["head"].as_str().unwrap());
    let newest = site.run(&["audit", "list", "--limit", "1"]).ok()["entries"][0].clone();
    assert_eq!((newest["seq"].as_u64(), newest["hash"].as_str()), (Some(count), Some(head)));
    lab.run(&format!(
        "sqlite3 state/catalog.db \"drop trigger audit_is_never_changed; update audit set actor = 'eve' where seq = {}\"",
        count - 1
    ));
    let broken = site.run(&["audit", "verify"]);
    broken.fails(5);
    assert_eq!(broken.json["result"]["first_wrong"]["seq"].as_u64(), Some(count - 1), "{broken:?}");
    assert_eq!(broken.json["result"]["first_wrong"]["actor"], "eve");
}

#[test]
fn a_deletion_that_was_killed_half_way_counts_at_once_and_is_ended_by_the_next_expire() {
    let (lab, s3) = (lab(), S3::up());
    let far = s3.policy("far", "backups", "").replace("timeout = \"5s\"", "timeout = \"60s\"");
    let section = "environment = \"development\"\nstorage = [\"local\", \"far\"]\nretention = { keep_last = 5 }";
    let site = site(&lab, &format!("{}{far}", wiki(&lab, section)));
    let (old, new) = (backup(&site, "wiki", &[]), backup(&site, "wiki", &[]));
    // The id of a second backup within one second begins with that of the first.
    let directory = format!("/{old}/");
    let policy = site.policy.display();
    let script =
        format!("{} --policy {policy} delete {old} >/dev/null 2>&1 || echo $?", env!("CARGO_BIN_EXE_backstop"));
    s3.freeze();
    let code = std::thread::scope(|scope| {
        let command = scope.spawn(|| sh(&script));
        until_true("the local copy is gone", || {
            !files(&lab, "local").iter().any(|file| format!("/{file}").contains(&directory))
        });
        let is_ours =
            |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "backstop");
        for pid in lab.processes(&old).into_iter().filter(is_ours) {
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        }
        command.join().unwrap().trim().to_owned()
    });
    s3.thaw();
    assert_eq!(code, "137");
    let ended = list(&site, "wiki").into_iter().find(|backup| backup["id"] == old.as_str()).unwrap();
    assert_eq!(ended["status"], "expired");
    assert!(ended["copies"].as_array().unwrap().iter().all(|copy| copy["state"] != "good"), "{ended:#}");
    assert!(s3.keys("backups").iter().any(|key| key.contains(&directory)), "the other copy is still there");

    site.run(&["expire", "wiki"]).ok();
    assert!(!s3.keys("backups").iter().any(|key| key.contains(&directory)));
    only(&lab, "local", &[&new]);
    let ended = list(&site, "wiki").into_iter().find(|backup| backup["id"] == old.as_str()).unwrap();
    assert!(ended["copies"].as_array().unwrap().iter().all(|copy| copy["state"] == "deleted"), "{ended:#}");
}

#[test]
fn a_copy_whose_storage_is_offline_is_deleted_when_it_is_back() {
    let lab = lab();
    let site = site(&lab, &wiki(&lab, "retention = { keep_last = 5 }"));
    let (old, new) = (backup(&site, "wiki", &[]), backup(&site, "wiki", &[]));
    lab.run("mv offsite away; mkdir -m 700 offsite");
    let told = site.run(&["delete", &old, "--yes"]).fails(8);
    assert!(told.contains("not every copy is deleted") && told.contains("`offsite`"), "{told}");
    only(&lab, "local", &[&new]);
    lab.run("rm -r offsite; mv away offsite");
    only(&lab, "offsite", &[&old, &new]);
    site.run(&["expire", "wiki", "--yes"]).ok();
    only(&lab, "offsite", &[&new]);
}

#[test]
fn the_rules_end_what_is_old_in_every_storage_and_spare_what_is_held() {
    let lab = lab();
    let site = site(&lab, &portal(&lab, "retention = { full = 2 }"));
    let ids: Vec<String> = (0..4).map(|_| backup(&site, "portal", &[])).collect();
    site.run(&["hold", &ids[0], "--reason", "audit"]).ok();
    let all: Vec<&str> = ids.iter().map(String::as_str).collect();

    let shown = site.run(&["expire", "portal", "--dry-run"]);
    let decisions = shown.ok()["plans"][0]["plan"]["decisions"].as_array().unwrap().clone();
    let going: Vec<&Value> = decisions.iter().filter(|decision| decision["keep"] == false).collect();
    assert_eq!((decisions.len(), going.len()), (4, 1), "{decisions:#?}");
    assert_eq!(going[0]["backup_id"], all[1]);
    STORAGES.iter().for_each(|storage| only(&lab, storage, &all));
    site.run(&["expire", "portal"]).fails(64);
    STORAGES.iter().for_each(|storage| only(&lab, storage, &all));

    site.run(&["expire", "portal", "--yes"]).ok();
    STORAGES.iter().for_each(|storage| only(&lab, storage, &[all[0], all[2], all[3]]));
    site.run(&["release", all[0]]).ok();
    site.run(&["expire", "portal", "--yes"]).ok();
    STORAGES.iter().for_each(|storage| only(&lab, storage, &all[2..]));
    assert_eq!(states(&site, "portal", "expire"), ["succeeded", "succeeded"]);
    site.run(&["expire", "portal", "--yes"]).ok();
    STORAGES.iter().for_each(|storage| only(&lab, storage, &all[2..]));
}

#[test]
fn a_deletion_that_cannot_end_has_taken_the_manifest_first_and_is_ended_later() {
    let lab = lab();
    let site = site(&lab, &wiki(&lab, "retention = { full = 1 }"));
    let old = backup(&site, "wiki", &[]);
    let new = backup(&site, "wiki", &[]);
    // A directory stands where the file was, so that one file of one copy cannot go.
    let data = files(&lab, &format!("local/wiki/{old}")).into_iter().find(|name| name != "manifest.json").unwrap();
    lab.run(&format!("cd local/wiki/{old}; mv {data} ../../../keep; mkdir {data}; touch {data}/foreign"));

    let told = site.run(&["expire", "wiki", "--yes"]);
    assert_ne!(told.code, 0, "{told:?}");
    only(&lab, "offsite", &[&new]);
    assert_eq!(files(&lab, &format!("local/wiki/{old}")), [format!("{data}/foreign")], "no manifest, no backup");
    let ended = list(&site, "wiki").into_iter().find(|backup| backup["id"] == old.as_str()).unwrap();
    assert_eq!(ended["status"], "expired", "{ended:#}");

    lab.run(&format!("cd local/wiki/{old}; rm -r {data}; mv ../../../keep {data}"));
    site.run(&["delete", &old, "--yes"]).ok();
    only(&lab, "local", &[&new]);
}

#[test]
fn nothing_goes_while_the_storages_lack_what_should_stay() {
    let lab = lab();
    let site = site(&lab, &wiki(&lab, "retention = { full = 1 }"));
    let (old, new) = (backup(&site, "wiki", &[]), backup(&site, "wiki", &[]));
    // A file system that is not mounted: nothing is concluded from what its mount point lacks.
    lab.run("mv offsite away; mkdir -m 700 offsite");
    let told = site.run(&["expire", "wiki", "--yes"]).fails(8);
    assert!(told.contains("nothing was deleted, for a storage could not be asked first"), "{told}");
    assert!(told.contains("`offsite`"), "{told}");
    only(&lab, "local", &[&old, &new]);
    lab.run("rm -r offsite; mv away offsite");

    // Somebody removed a copy of what stays: that is told, and the other copy is still there.
    lab.run(&format!("rm -r offsite/wiki/{new}"));
    let told = site.run(&["expire", "wiki", "--yes"]).fails(8);
    assert!(told.contains("nothing was deleted, for what should stay is not whole"), "{told}");
    STORAGES
        .iter()
        .for_each(|storage| assert!(files(&lab, storage).iter().any(|file| file.contains(&old)), "{storage}"));
    let known = list(&site, "wiki").into_iter().find(|backup| backup["id"] == new.as_str()).unwrap();
    let missing: Vec<&Value> =
        known["copies"].as_array().unwrap().iter().filter(|it| it["state"] == "missing").collect();
    assert_eq!((missing.len(), &known["status"]), (1, &"good".into()), "{known:#}");

    site.run(&["expire", "wiki", "--yes"]).ok();
    only(&lab, "local", &[&new]);
    only(&lab, "offsite", &[]);
}

#[test]
fn the_export_tells_each_backup_under_the_promised_names() {
    let lab = lab();
    let site = site(&lab, &format!("{}{}", portal(&lab, "encryption = \"phrase\""), wiki(&lab, "")));
    backup(
        &site,
        "portal",
        &["--label", "release", "--reason", "before 2.0", "--tag", "a", "--tag", "b", "--retention", "30"],
    );
    backup(&site, "wiki", &[]);
    let out = lab.path("state/backups.json");
    let answer = site.run(&["export", "--out", out.to_str().unwrap()]);
    assert_eq!(answer.ok()["count"], 2);
    let document: Value = serde_json::from_slice(&fs::read(&out).unwrap()).unwrap();
    assert_eq!(document["version"], 1);
    let backups = document["backups"].as_array().unwrap();
    assert_eq!(backups.len(), 2);
    assert_eq!(&site.run(&["export"]).ok()["backups"], &document["backups"], "stdout says the same");
    assert_eq!(site.run(&["export", "--database", "wiki"]).ok()["backups"].as_array().unwrap().len(), 1);

    let portal = backups.iter().find(|backup| backup["database"] == "portal").unwrap();
    let told = |key: &str| portal[key].clone();
    assert_eq!((told("label"), told("reason")), ("release".into(), "before 2.0".into()));
    assert_eq!(told("tags"), serde_json::json!(["a", "b"]));
    assert_eq!(
        (told("retention_days"), told("environment"), told("type")),
        (30.into(), "production".into(), "full".into())
    );
    assert_eq!((told("compressed"), told("encrypted"), told("format")), (true.into(), true.into(), "custom".into()));
    assert_eq!(told("migrations")["framework"], "prisma", "{portal:#}");
    assert_eq!(told("migrations")["applied_count"], 2, "the migration that was rolled back is none: {portal:#}");
    assert_eq!(told("migrations")["last_migration"], "20260201000000_add_orders");
    assert_eq!(told("verification")["integrity_check"], true);
    assert!(Path::new(told("file_path").as_str().unwrap()).is_file(), "{portal:#}");
    for number in ["size_bytes", "duration_seconds", "stored_bytes", "compression_ratio"] {
        assert!(portal[number].is_number(), "{number}: {portal:#}");
    }
    for moment in ["created_at", "expires_at"] {
        assert!(portal[moment].is_string(), "{moment}: {portal:#}");
    }
}

#[test]
fn foreign_keys_that_lead_nowhere_stay_with_the_backup_as_a_warning() {
    let lab = lab();
    let site = site(&lab, &wiki(&lab, ""));
    assert_eq!(backup_warnings(&site), serde_json::json!([]));
    lab.run("sqlite3 wiki.db 'pragma foreign_keys = off; insert into child values (2, 99)'");
    let told = serde_json::json!(["rows have foreign keys that lead nowhere: `child` (1)"]);
    assert_eq!(backup_warnings(&site), told);
    let id = list(&site, "wiki")[0]["id"].as_str().unwrap().to_owned();
    let manifest = fs::read_to_string(lab.path(&format!("local/wiki/{id}/manifest.json"))).unwrap();
    assert!(manifest.contains("lead nowhere"), "{manifest}");
    let (_, page, _) = site.say(&["show", &id]);
    assert!(page.contains("WARNING    rows have foreign keys"), "{page}");
    let run = site.run(&["history", "wiki", "--kind", "full"]);
    assert!(run.ok()["runs"][0]["summary"].as_str().unwrap().contains("WARNING: rows have"), "{run:?}");
}

#[track_caller]
fn backup_warnings(site: &Site<'_>) -> Value {
    backup(site, "wiki", &[]);
    list(site, "wiki")[0]["warnings"].clone()
}

#[test]
fn tables_without_transactions_stay_with_the_backup_as_a_warning() {
    let lab = lab();
    let server = mariadb(&lab);
    server.sql("create table stock.log (a int) engine = MyISAM");
    let site = site(&lab, &stock(&lab, &server, ""));
    backup(&site, "stock", &[]);
    let warnings = list(&site, "stock")[0]["warnings"].to_string();
    assert!(warnings.contains("stock.log (MyISAM)"), "{warnings}");
}
