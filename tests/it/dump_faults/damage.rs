//! Dumps that change after they were made: on disk, in the bucket, in one copy and in both.

use std::fs;

use super::{Faults, dsn};
use crate::harness::{Answer, Lab, S3};

const BOTH: &[&str] = &["near", "far"];

/// Flips one bit in the middle of a file of a directory.
fn flip_bit(lab: &Lab, path: &str) {
    let path = lab.path(path);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
}

/// The verification must fail, and say backup, storage and file.
#[track_caller]
fn names(answer: &Answer, id: &str, storage: &str, file: &str) {
    let told = answer.fails(5);
    for part in [id, storage, file.rsplit('/').next().unwrap()] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[test]
fn damage_on_disk_costs_the_copy_and_damage_everywhere_the_backup() {
    let (lab, s3) = (Lab::small(), S3::up());
    let faults = Faults::postgres(&lab, BOTH, Some(&s3), "");
    let older = faults.good();
    let id = faults.good();
    let data = faults.data(&id);
    let whole = fs::read(lab.path("near").join(&data)).unwrap();

    lab.run(&format!("truncate -s -1 near/{data}"));
    names(&faults.site.run(&["verify", "orders"]), &id, "near", &data);
    assert_eq!((faults.status(&id).as_str(), faults.copies(&id).as_str()), ("good", "far good, near damaged"));

    // Mended, it is good again; nothing was deleted meanwhile.
    fs::write(lab.path("near").join(&data), &whole).unwrap();
    faults.site.run(&["verify", "orders"]).ok();
    faults.only(&[&older, &id]);
    assert_eq!(faults.copies(&id), "far good, near good");

    flip_bit(&lab, &format!("near/{data}"));
    names(&faults.site.run(&["verify", "orders"]), &id, "near", &data);
    s3.flip_bit("backups", &format!("below/{data}"));
    names(&faults.site.run(&["verify", &id]), &id, "far", &data);
    assert_eq!((faults.status(&id).as_str(), faults.copies(&id).as_str()), ("damaged", "far damaged, near damaged"));
    assert_eq!(faults.status(&older), "good");

    faults.site.run(&["test-restore", "orders"]).ok();
    assert_eq!(faults.site.catalog("select backup_id from proofs where passed"), older);
}

#[test]
fn a_test_restore_that_meets_damage_says_so_and_the_next_takes_the_other_copy() {
    let (lab, s3) = (Lab::empty(), S3::up());
    let faults = Faults::postgres(&lab, BOTH, Some(&s3), "");
    let id = faults.good();
    let data = faults.data(&id);
    s3.truncate("backups", &format!("below/{data}"));
    flip_bit(&lab, &format!("near/{data}"));
    let told = faults.site.run(&["test-restore", "orders"]);
    assert!([5, 7].contains(&told.code), "{told:#?}");
    assert_eq!((faults.status(&id).as_str(), faults.copies(&id).as_str()), ("good", "far good, near damaged"));
    let told = faults.site.run(&["test-restore", "orders"]);
    assert!([5, 7].contains(&told.code), "{told:#?}");
    assert_eq!((faults.status(&id).as_str(), faults.copies(&id).as_str()), ("damaged", "far damaged, near damaged"));
    assert_eq!(faults.site.catalog("select count(*) from proofs where passed"), "0");
}

#[test]
fn a_file_that_is_gone_is_missing_and_a_manifest_too() {
    let (lab, s3) = (Lab::empty(), S3::up());
    let faults = Faults::postgres(&lab, BOTH, Some(&s3), "");
    let (first, second, third) = (faults.good(), faults.good(), faults.good());
    let (data, manifest) = (faults.data(&first), format!("orders/{second}/manifest.json"));
    lab.run(&format!("rm near/{data}"));
    s3.python(&format!("s3.delete_object(Bucket='backups', Key='below/{manifest}')"));
    let answer = faults.site.run(&["verify", "orders"]);
    names(&answer, &first, "near", &data);
    names(&answer, &second, "far", &manifest);
    assert!(!answer.fails(5).contains(&third), "{answer:#?}");
    assert_eq!((faults.status(&first).as_str(), faults.copies(&first).as_str()), ("good", "far good, near missing"));
    assert_eq!((faults.status(&second).as_str(), faults.copies(&second).as_str()), ("good", "far missing, near good"));
    // Gone everywhere, it is lost.
    lab.run(&format!("rm -r near/orders/{second}"));
    names(&faults.site.run(&["verify", &second]), &second, "near", "globals.sql");
    assert_eq!(faults.status(&second), "lost");
}

#[test]
fn an_altered_manifest_is_seen_where_there_is_a_passphrase() {
    let lab = Lab::empty();
    lab.run("umask 077; openssl rand -hex 32 > passphrase");
    let faults = Faults::postgres(&lab, &["near"], None, "");
    let section =
        format!("[encryption.phrase]\ntype = \"aes256\"\npassphrase = \"file:{}/passphrase\"\n", lab.dir().display());
    let keys = format!("engine = \"pg_dump\"\nconnection = \"{}\"\nencryption = \"phrase\"\n", dsn(&lab, "postgres"));
    faults.policy(&["near"], &section, &keys);
    let id = faults.good();
    faults.only(&[&id]);
    // Something that no checksum of an artifact covers.
    let manifest = format!("near/orders/{id}/manifest.json");
    lab.run(&format!("sed -i 's/\"environment\": *\"development\"/\"environment\": \"production\"/' {manifest}"));
    lab.run(&format!("grep -q production {manifest}"));
    names(&faults.site.run(&["verify", &id]), &id, "near", "manifest.json");
    assert_eq!((faults.status(&id).as_str(), faults.copies(&id).as_str()), ("damaged", "near damaged"));
}

#[test]
fn a_dump_that_is_suspiciously_small_fails_where_the_policy_says_so() {
    let lab = Lab::small();
    let faults = Faults::postgres(&lab, &["near"], None, "dump = { on_shrink = \"fail\" }\n");
    let good = faults.good();
    lab.sql("truncate pgbench_accounts, pgbench_history");
    let told = faults.backup().fails(5);
    assert!(told.contains("suspiciously small") && told.contains("nothing of the backup is left"), "{told}");
    faults.only(&[&good]);
    assert_eq!(faults.states(), ["succeeded", "failed"]);
    faults.policy(&["near"], "", &format!("engine = \"pg_dump\"\nconnection = \"{}\"\n", dsn(&lab, "postgres")));
    let told = faults.backup().ok().to_string();
    assert!(told.contains("WARNING: suspiciously small"), "{told}");
}
