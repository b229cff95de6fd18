//! Keys change, and somebody has the wrong one.
//!
//! With the cheapest engine, because the way of bytes is the same for all. A newcomer would take a wrong key for damage,
//! and the next backup would be made by somebody in a panic.

use std::fs;

use serde_json::json;

use super::{
    manifest, same,
    source::{Source, Sqlite, rewrite, small},
};
use crate::harness::{Answer, Site, Vault};

#[test]
fn a_new_age_key_encrypts_what_comes_and_the_old_one_reads_what_was() {
    rotate("age", "age-2");
}

#[test]
fn a_new_passphrase_encrypts_what_comes_and_the_old_one_reads_what_was() {
    rotate("aes256", "aes256-2");
}

fn back_up(site: &Site<'_>) -> String {
    site.run(&["backup", "shop"]).ok()["backup_id"].as_str().unwrap().to_owned()
}

/// The section of a key that was made later.
fn section(vault: &Vault, name: &str, recipient: &str) -> String {
    let file = vault.key(name);
    if recipient.is_empty() { vault.aes256(name, &file) } else { vault.age(name, recipient, &file) }
}

fn rotate(old: &str, new: &str) {
    let source = Sqlite::up();
    let (site, vault) = small(&source, old);
    let before = back_up(&site);
    assert_eq!(before.len(), "backup-YYYYMMDD-HHMMSS".len(), "{before} has no label");

    let recipient = vault.keygen(&site, new);
    rewrite(&site, &vault, &source, new, &section(&vault, new, &recipient));
    let proof = site.run(&["test-restore", "shop"]).ok()["proof"].clone();
    assert!(proof.to_string().contains(&format!("{before} of")), "{proof:#}");
    assert!(proof.to_string().contains(&format!("opened by key `{old}`")), "{proof:#}");

    let after = back_up(&site);
    site.run(&["verify", "shop"]).ok();
    let proof = site.run(&["test-restore", "shop"]).ok()["proof"].clone();
    assert!(proof.to_string().contains(&format!("opened by key `{new}`")), "{proof:#}");
    let keys: Vec<_> = site.run(&["list"]).ok()["backups"].as_array().unwrap().iter().map(key_of).collect();
    assert_eq!(keys, [(json!(after), json!(new)), (json!(before), json!(old))]);

    let places = vault.look();
    for (id, (_, place)) in [before, after].iter().zip(&places) {
        let restored = source.restored(&vault, &manifest(&place.join("shop").join(id)));
        same(&restored, &source.content(), id);
    }
}

fn key_of(backup: &serde_json::Value) -> (serde_json::Value, serde_json::Value) {
    (backup["id"].clone(), backup["encryption"]["key"].clone())
}

#[test]
fn a_wrong_age_key_is_named_and_nothing_is_called_damaged() {
    mistake("age");
}

#[test]
fn a_wrong_passphrase_is_named_and_nothing_is_called_damaged() {
    mistake("aes256");
}

fn mistake(key: &str) {
    let source = Sqlite::up();
    let (site, vault) = small(&source, key);
    let id = back_up(&site);
    let other = format!("{key}-of-somebody-else");
    vault.keygen(&site, &other);
    let (right, wrong) = (fs::read(vault.key(key)).unwrap(), fs::read(vault.key(&other)).unwrap());
    fs::write(vault.key(key), &wrong).unwrap();

    names_the_key(&vault, key, &site.run(&["test-restore", "shop"]), 5);
    let verified = site.run(&["verify", &id]);
    if key == "age" {
        // The bytes are right, and more than them is not looked at: no key is needed.
        verified.ok();
    } else {
        names_the_key(&vault, key, &verified, 5);
    }
    let listed = site.run(&["list", "shop"]).ok()["backups"].clone();
    let told: Vec<_> = listed.as_array().unwrap().iter().map(|backup| (&backup["id"], &backup["status"])).collect();
    assert_eq!(told, [(&json!(id), &json!("good"))]);

    fs::write(vault.key(key), &right).unwrap();
    let verified = site.run(&["verify", &id]).ok()["backup"]["copies"].clone();
    assert!(verified.as_array().unwrap().iter().all(|copy| copy["state"] == "good"), "{verified:#}");
    site.run(&["test-restore", "shop"]).ok();

    // As if its section were gone.
    let policy = fs::read_to_string(&site.policy).unwrap();
    let policy = policy.replace(&format!("[encryption.{key}]"), "[encryption.renamed]");
    site.write(&policy.replace(&format!("encryption = \"{key}\""), "encryption = \"renamed\""));
    names_the_key(&vault, key, &site.run(&["test-restore", "shop"]), 1);
}

/// It is an error that names the key, and holds neither its secret nor another's.
#[track_caller]
fn names_the_key(vault: &Vault, key: &str, answer: &Answer, code: i32) {
    let told = answer.fails(code);
    assert!(told.contains(&format!("key `{key}`")), "{told}");
    let all = format!("{answer:?}");
    for file in fs::read_dir(vault.key("")).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        let secret = text.lines().find(|line| !line.starts_with('#')).unwrap();
        assert!(secret.len() > 30 && !all.contains(secret), "the secret is told");
    }
}
