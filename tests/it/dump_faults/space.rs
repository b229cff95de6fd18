//! No space, before and in the middle, in one storage of two and in the only one.

use super::{Faults, mount, text};
use crate::harness::{Lab, sh};

/// Noise that compresses worse than is guessed: what passes the look before fails in the middle.
fn fill(lab: &Lab) {
    lab.sql(
        "create table noise (bytes bytea); alter table noise alter bytes set storage external;
             insert into noise select decode(string_agg(md5(random()::text), ''), 'hex')
               from generate_series(1, 1200000) n group by n % 60",
    );
}

#[test]
fn a_full_storage_loses_its_copy_and_the_other_one_is_good() {
    let lab = Lab::empty();
    fill(&lab);
    let faults = Faults::postgres(&lab, &["near", "small"], None, "");
    let mut ids = Vec::new();
    // Too small to begin, and too small to end.
    for (megabytes, why) in [(2, "free, the backup may take"), (18, "storage `small` is full")] {
        mount(&lab, "small", megabytes);
        let answer = faults.backup();
        let told = answer.ok().to_string();
        assert!(told.contains("WARNING: no copy in small"), "{told}");
        let listed = faults.site.backups()[0].clone();
        let id = text(&listed, "id");
        let copies = &listed["copies"];
        assert_eq!((&copies[0]["state"], &copies[1]["state"]), (&"good".into(), &"failed".into()), "{listed:#}");
        assert!(text(&copies[1], "detail").contains(why), "{listed:#}");
        let (_, shown, _) = faults.site.say(&["list", "orders"]);
        assert!(shown.contains(" near small! "), "{shown}");
        ids.push(id);
        faults.only(&ids.iter().collect::<Vec<_>>());
        sh(&format!("umount '{}'", lab.path("small").display()));
    }
    assert_eq!(faults.states(), ["succeeded", "succeeded"]);
}

#[test]
fn a_full_only_storage_fails_the_run_and_keeps_what_was_good() {
    let lab = Lab::empty();
    let faults = Faults::postgres(&lab, &["small"], None, "");
    mount(&lab, "small", 18);
    let good = faults.good();
    fill(&lab);
    let told = faults.backup().fails(2);
    assert!(told.contains("storage `small` is full") && told.contains("nothing of the backup is left"), "{told}");
    faults.only(&[&good]);
    lab.run("head -c 13M /dev/zero > small/ballast");
    let told = faults.backup().fails(2);
    assert!(told.contains("free, the backup may take"), "{told}");
    lab.run("rm small/ballast");
    faults.only(&[&good]);
    assert_eq!(faults.states(), ["succeeded", "failed", "failed"]);
}
