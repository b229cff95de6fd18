//! A storage whose file system is not mounted: nothing is concluded from the empty mount point, and nothing put there.

use super::{Faults, text};
use crate::harness::{Lab, sh};

/// A site with a backup in `near` and in `disk`, whose file system is then taken away; its place is empty and writable.
fn unmounted(lab: &Lab) -> (Faults<'_>, String) {
    let faults = Faults::postgres(lab, &["near", "disk"], None, "");
    let id = faults.good();
    assert_eq!(faults.copies(&id), "disk good, near good");
    take_away(lab);
    (faults, id)
}

fn take_away(lab: &Lab) {
    lab.run("mv disk disk.away && mkdir -m 700 disk");
}

fn bring_back(lab: &Lab) {
    assert_eq!(lab.run("ls -A disk"), "", "nothing was put into the mount point");
    lab.run("rmdir disk && mv disk.away disk");
}

#[test]
fn nothing_is_concluded_from_an_empty_mount_point() {
    let lab = Lab::empty();
    let faults = Faults::postgres(&lab, &["near", "disk"], None, "");
    let (id, next) = (faults.good(), faults.good());
    take_away(&lab);
    let told = faults.site.run(&["verify", "orders"]).fails(8);
    assert!(told.contains("`disk` is not mounted?"), "{told}");
    assert_eq!((faults.status(&id).as_str(), faults.copies(&id).as_str()), ("good", "disk unknown, near good"));
    faults.site.run(&["check"]);
    faults.site.run(&["hold", &id, "--reason", "audit"]).ok();
    faults.site.run(&["release", &id, "--reason", "audit"]).ok();
    let told = faults.site.run(&["catalog", "rebuild"]).fails(8);
    assert!(told.contains("1 troubles"), "{told}");
    faults.site.run(&["catalog", "accept"]).ok();
    assert_eq!((faults.status(&id).as_str(), faults.copies(&id).as_str()), ("good", "disk unknown, near good"));

    let told = faults.site.run(&["delete", &id, "--reason", "test"]).fails(8);
    assert!(told.contains("`disk` is not mounted?") && told.contains("not every copy is deleted"), "{told}");
    assert_eq!(faults.copies(&id), "disk unknown, near deleted", "it is still on the disk that is away");
    bring_back(&lab);
    faults.site.run(&["delete", &id, "--reason", "test"]).ok();
    assert_eq!(faults.copies(&id), "disk deleted, near deleted");
    faults.site.run(&["verify", "orders"]).ok();
    faults.only(&[&next]);
}

#[test]
fn no_copy_goes_into_an_empty_mount_point() {
    let lab = Lab::empty();
    let (faults, first) = unmounted(&lab);
    // Twice: the first must not leave behind what the second takes for the file system.
    for _ in 0..2 {
        let told = faults.backup().ok().to_string();
        assert!(told.contains("WARNING: no copy in disk: storage `disk` is not mounted?"), "{told}");
        assert_eq!(faults.copies(&text(&faults.site.backups()[0], "id")), "disk failed, near good");
    }
    let connection = super::dsn(&lab, "postgres");
    faults.policy(&["disk"], "", &format!("engine = \"pg_dump\"\nconnection = \"{connection}\"\n"));
    for _ in 0..2 {
        let told = faults.backup().fails(8);
        assert!(told.contains("not mounted?") && told.contains(".backstop-storage"), "{told}");
    }
    bring_back(&lab);
    faults.good();
    faults.site.run(&["verify", &first]).ok();
}

#[test]
fn a_test_restore_does_not_take_an_empty_mount_point_for_a_loss() {
    let lab = Lab::empty();
    let faults = Faults::postgres(&lab, &["disk"], None, "");
    let id = faults.good();
    take_away(&lab);
    let told = faults.site.run(&["test-restore", "orders"]).fails(8);
    assert!(told.contains("`disk` is not mounted?"), "{told}");
    assert_eq!((faults.status(&id).as_str(), faults.copies(&id).as_str()), ("good", "disk good"));
    bring_back(&lab);
    faults.only(&[&id]);
}

#[test]
fn a_disk_that_was_replaced_on_purpose_is_accepted_by_its_mark() {
    let lab = Lab::empty();
    let (faults, id) = unmounted(&lab);
    let keys = format!("engine = \"pg_dump\"\nconnection = \"{}\"\n", super::dsn(&lab, "postgres"));
    faults.policy(&["disk"], "", &keys);
    let told = faults.backup().fails(8);
    let command = told.split('`').find(|part| part.starts_with("touch ")).unwrap_or_else(|| panic!("{told}"));
    let (uid, gid) = lab.owner();
    sh(&format!("setpriv --reuid {uid} --regid {gid} --clear-groups {command}"));
    faults.site.run(&["verify", "orders"]).fails(5);
    assert_eq!(faults.copies(&id), "disk missing, near good");
    assert_eq!(faults.copies(&faults.good()), "disk good");
}
