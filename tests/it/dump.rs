//! Dumps, from the database into every storage and back by the commands that the manifest there holds.
//!
//! The table: each engine × format (`pg_dump` plain, custom and directory, `mysqldump`, `sqlite`) has nine databases in
//! its policy, one for each compression (none, gzip:6, zstd:3) × encryption (none, age, aes256). All nine are the one with
//! the awkward content of `tests/samples/awkward`. Each is backed up once, to a directory and to a bucket at the same time. For `pg_dump`
//! in the custom form each of the eighteen copies is restored. Of the others each backup is restored from one storage, by
//! turns, so that each compression and each encryption is read from each storage. What was restored is compared with the
//! original as text of the database's own tool. On the way: what `backup`, `list`, `show`, `verify` and `export` tell of
//! these backups, what the manifest tells, and what lies there, agree.
//!
//! [`source`] has the databases, [`told`] what is told of a backup, [`keys`] rotates keys and mistakes them. A newcomer
//! would restore with what `show` prints; the manifest is all that is left when Backstop is gone.

mod keys;
mod source;
mod told;

use std::path::Path;

use serde_json::Value;

use self::source::{Form, Maria, Postgres, Source, Sqlite};
use crate::harness::{STORAGES, Site, Vault, sh};

const COMPRESSIONS: [&str; 3] = ["none", "gzip:6", "zstd:3"];
const ENCRYPTIONS: [&str; 3] = ["none", "age", "aes256"];

#[test]
fn pg_dump_custom_comes_back_from_every_copy() {
    table(&Postgres::up(Form::Custom), |_| &STORAGES);
}

#[test]
fn pg_dump_plain_comes_back_from_either_storage() {
    table(&Postgres::up(Form::Plain), by_turns);
}

#[test]
fn pg_dump_directory_comes_back_from_either_storage() {
    table(&Postgres::up(Form::Directory), by_turns);
}

#[test]
fn mysqldump_comes_back_from_either_storage() {
    table(&Maria::up(), by_turns);
}

#[test]
fn sqlite_comes_back_from_either_storage() {
    table(&Sqlite::up(), by_turns);
}

#[test]
fn a_part_that_is_damaged_is_named_by_hand_and_nothing_is_restored() {
    let source = Postgres::up(Form::Directory);
    let (site, vault) = source::small(&source, "none");
    let id = site.run(&["backup", "shop"]).ok()["backup_id"].as_str().unwrap().to_owned();
    let directory = source.lab().path("vault/local/shop").join(id);
    let manifest = manifest(&directory);
    sh(&format!("cd '{}'; truncate -s -5 $(ls -S parts/[0-9]*.zst | head -1)", directory.display()));
    let (told, databases) = source.pasted(&vault, &manifest);
    assert!(told.contains(".dat.zst: FAILED"), "{told}");
    assert_eq!(databases, "postgres\ntemplate0\ntemplate1\n");
}

/// The row of the table: a database of the policy, all of which are the same one.
struct Row {
    database: String,
    compression: &'static str,
    encryption: &'static str,
}

/// The nine rows, in an order in which neighbours differ in compression or encryption.
fn rows() -> Vec<Row> {
    let row = |compression: &'static str, encryption: &'static str| {
        let word = compression.split(':').next().unwrap();
        Row { database: format!("{word}-{encryption}"), compression, encryption }
    };
    COMPRESSIONS.iter().flat_map(|compression| ENCRYPTIONS.map(|encryption| row(compression, encryption))).collect()
}

/// Three columns are an odd number, so each line and each column of the table has both storages.
fn by_turns(row: usize) -> &'static [&'static str] {
    &STORAGES[row % 2..][..1]
}

/// A policy whose databases are all the same one.
fn policy(source: &impl Source, vault: &Vault, rows: &[Row]) -> String {
    let database = |row: &Row| {
        format!(
            "[database.{}]\nenvironment = \"test\"\nstorage = [\"local\", \"offsite\"]\nretry = {{ attempts = 1 }}\n\
             compression = \"{}\"\nencryption = \"{}\"\n{}\n",
            row.database,
            row.compression,
            row.encryption,
            source.policy()
        )
    };
    let state = source.lab().path("state");
    let databases: String = rows.iter().map(database).collect();
    let environment = "[environment.test]\nprotected = false\n";
    format!("[daemon]\nstate_dir = \"{}\"\n\n{environment}\n{}{databases}", state.display(), vault.policy())
}

fn table(source: &impl Source, storages: fn(usize) -> &'static [&'static str]) {
    let site = Site::new(source.lab(), "");
    let vault = Vault::of(&site);
    let rows = rows();
    site.write(&policy(source, &vault, &rows));
    let original = source.content();
    let ids: Vec<String> = rows.iter().map(|row| told::back_up(&site, row, source)).collect();
    let places = vault.look();
    for (row, id) in rows.iter().zip(&ids) {
        told::alike(&site, row, id, &places, source);
    }
    told::list_and_export_agree(&site, &ids);
    for (number, (row, id)) in rows.iter().zip(&ids).enumerate() {
        for (storage, place) in places.iter().filter(|(storage, _)| storages(number).contains(storage)) {
            let manifest = manifest(&place.join(&row.database).join(id));
            let restored = source.restored(&vault, &manifest);
            same(&restored, &original, &format!("{} of {} from {storage}", manifest["backup"]["engine"], row.database));
        }
    }
}

/// What lies beside a dump.
fn manifest(directory: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(directory.join("manifest.json")).unwrap()).unwrap()
}

/// Tells the first line that differs instead of two databases.
#[track_caller]
fn same(restored: &str, original: &str, what: &str) {
    let differs = restored.lines().zip(original.lines()).find(|(restored, original)| restored != original);
    assert_eq!(differs, None, "restored and original, {what}");
    assert_eq!(restored.len(), original.len(), "{what}");
}
