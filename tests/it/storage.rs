//! The S3 service of the tests is what scenarios take it for: it keeps, it can be damaged, it fails on request, it goes.

use std::fs;

use crate::harness::{S3, sh};

#[test]
fn the_service_keeps_objects_and_damages_them_on_request() {
    let s3 = S3::up();
    let copy = s3.ca_file().with_file_name("copy");
    let content = |key: &str| {
        s3.get("backups", key, &copy);
        fs::read(&copy).unwrap()
    };
    s3.python("for key in 'ab': s3.put_object(Bucket='backups', Key=key, Body=bytes(9))");
    s3.flip_bit("backups", "a");
    s3.truncate("backups", "b");
    assert_eq!(content("a"), [0, 0, 0, 0, 1, 0, 0, 0, 0]);
    assert_eq!(content("b"), [0; 4]);
    assert_eq!((s3.keys("backups"), s3.unfinished("backups")), (vec!["a".to_owned(), "b".to_owned()], 0));
    assert!(s3.policy("offsite", "locked", "object_lock = \"governance\"").contains(&s3.endpoint()));
}

#[test]
fn the_service_fails_on_request_and_leaves_nobody_behind() {
    let s3 = S3::up();
    let dir = s3.ca_file().parent().unwrap().to_owned();
    let code = "try: s3.put_object(Bucket='backups', Key='a', Body=b'')\nexcept Exception as e: print(e.response['Error']['Code'])";
    s3.fail("PUT /a 403 AccessDenied");
    assert_eq!(s3.python(code), "AccessDenied");
    s3.mend();
    assert_eq!(s3.python(code), "");
    s3.freeze();
    s3.thaw();
    assert_eq!(s3.keys("backups"), ["a"]);
    s3.freeze();
    drop(s3);
    assert!(!dir.exists());
    let named = sh(&format!("pgrep --full '[g]unicorn.*{}' || true", dir.display()));
    assert_eq!(named, "");
    let s3 = S3::up();
    s3.kill();
}
