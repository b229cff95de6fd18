//! A bucket that goes away midway, falls silent or refuses; and comes back.

use super::{Faults, in_the_middle, text};
use crate::harness::{Lab, S3};

const SLOW: &str = "compression = \"zstd:19\"\n";
const BOTH: &[&str] = &["near", "far"];

#[test]
fn a_service_that_dies_midway_loses_its_copy_only() {
    let (lab, s3) = (Lab::slow(), S3::up());
    let faults = Faults::postgres(&lab, BOTH, Some(&s3), SLOW);
    let answer = std::thread::scope(|scope| {
        let backup = scope.spawn(|| faults.backup());
        in_the_middle(&lab, "pg_dump");
        s3.kill();
        backup.join().unwrap()
    });
    let told = answer.ok().to_string();
    assert!(told.contains("WARNING: no copy in far"), "{told}");
    let backup = faults.site.backups()[0].clone();
    let id = text(&backup, "id");
    assert_eq!(backup["status"], "good");
    // What the service held when it went cannot be known, so it is not called gone.
    assert_eq!(faults.copies(&id), "far unknown, near good");
    assert_eq!(faults.site.run(&["verify", &id]).code, 8, "what could be read is right, the rest could not be asked");
    assert_eq!((faults.status(&id).as_str(), faults.copies(&id).as_str()), ("good", "far unknown, near good"));
    assert_eq!(faults.states(), ["succeeded"]);
}

#[test]
fn a_service_that_falls_silent_midway_is_cleaned_up_when_it_is_back() {
    let (lab, s3) = (Lab::slow(), S3::up());
    let faults = Faults::postgres(&lab, BOTH, Some(&s3), SLOW);
    let answer = std::thread::scope(|scope| {
        let backup = scope.spawn(|| faults.backup());
        in_the_middle(&lab, "pg_dump");
        s3.freeze();
        backup.join().unwrap()
    });
    let told = answer.ok().to_string();
    assert!(told.contains("WARNING: no copy in far"), "{told}");
    let first = text(&faults.site.backups()[0], "id");
    assert_eq!(faults.copies(&first), "far unknown, near good");
    // Alone, it fails the next one before any tool begins.
    let connection = super::dsn(&lab, "postgres");
    let keys = format!("engine = \"pg_dump\"\nconnection = \"{connection}\"\ncompression = \"zstd:1\"\n");
    faults.policy(&["far"], "", &keys);
    let told = faults.backup().fails(8);
    assert!(told.contains("storage `far` cannot be reached"), "{told}");

    s3.thaw();
    faults.policy(BOTH, "", &keys);
    let second = faults.good();
    assert_eq!(faults.copies(&second), "far good, near good");
    assert_eq!(s3.unfinished("backups"), 0, "what the first left is gone");
    assert!(s3.keys("backups").iter().all(|key| key.contains(&second)), "{:?}", s3.keys("backups"));
    assert_eq!(faults.states(), ["succeeded", "failed", "succeeded"]);
}

#[test]
fn a_service_that_refuses_is_told_in_its_words_and_nothing_is_left() {
    let (lab, s3) = (Lab::slow(), S3::up());
    let faults = Faults::postgres(&lab, BOTH, Some(&s3), "compression = \"none\"\n");
    let good = faults.good();
    s3.fail("PUT partNumber=2 403 AccessDenied");
    let told = faults.backup().ok().to_string();
    assert!(told.contains("WARNING: no copy in far") && told.contains("AccessDenied"), "{told}");
    let second = text(&faults.site.backups()[0], "id");
    assert_eq!(faults.copies(&second), "far failed, near good");
    faults.only(&[&good, &second]);

    let connection = super::dsn(&lab, "postgres");
    faults.policy(
        &["far"],
        "",
        &format!("engine = \"pg_dump\"\nconnection = \"{connection}\"\ncompression = \"none\"\n"),
    );
    let told = faults.backup().fails(8);
    assert!(told.contains("AccessDenied") && told.contains("nothing of the backup is left"), "{told}");
    s3.mend();
    faults.only(&[&good, &second]);
    let third = faults.good();
    faults.only(&[&good, &second, &third]);
    assert_eq!(faults.states(), ["succeeded", "succeeded", "failed", "succeeded"]);
}
