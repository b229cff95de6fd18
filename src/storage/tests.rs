//! The promises of a storage, kept by a directory and by a bucket alike; then what only one of them can break.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
};

use bytes::Bytes;

use super::{
    testing::{Service, open, open_directory},
    *,
};
use crate::{
    clock,
    policy::{ObjectLock, SecretRef},
};

/// Two parts and a piece of a third.
const LARGE: usize = 20 * 1024 * 1024 + 77;
/// Just enough for an upload in parts.
const TWO_PARTS: usize = 8 * 1024 * 1024 + 77;

/// Noise; its period divides no part, so pieces that change places are noticed.
fn content(length: usize) -> Bytes {
    const PERIOD: usize = 65_521;
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_le_bytes()[3]
    };
    let noise: Vec<u8> = std::iter::repeat_with(&mut next).take(PERIOD).collect();
    let mut content = noise.repeat(length / PERIOD + 1);
    content.truncate(length);
    content.into()
}

/// Writes in pieces that fit no part.
async fn write(storage: &Storage, path: &str, content: &Bytes) -> Result<Upload, Error> {
    let mut upload = storage.create(path, None).await?;
    for piece in content.chunks(300_007) {
        upload.write(Bytes::copy_from_slice(piece)).await?;
    }
    Ok(upload)
}

async fn store(storage: &Storage, path: &str, content: &Bytes) {
    write(storage, path, content).await.unwrap().finish().await.unwrap();
}

async fn read(storage: &Storage, path: &str) -> Result<Vec<u8>, Error> {
    let mut reader = storage.read(path).await?;
    let mut whole = Vec::new();
    while let Some(piece) = reader.next().await? {
        assert!(!piece.is_empty());
        whole.extend_from_slice(&piece);
    }
    Ok(whole)
}

async fn paths(storage: &Storage, directory: &str) -> Vec<String> {
    storage.list(directory).await.unwrap().into_iter().map(|stored| stored.path).collect()
}

/// Every promise, in places of their own.
async fn keeps_its_promises(storage: &Storage) {
    storage.check().await.unwrap();
    storage.mark().await.unwrap();
    storage.mark().await.unwrap();
    assert!(storage.is_marked().await.unwrap());
    assert_eq!(paths(storage, "").await, [""; 0], "a check leaves nothing to list");
    what_is_written_is_read_back(storage).await;
    nothing_is_visible_before_its_end(storage).await;
    nothing_is_overwritten(storage).await;
    what_is_listed_is_sorted_and_below(storage).await;
    what_is_not_there_is_said_to_be_missing(storage).await;
    a_path_that_leads_elsewhere_is_refused(storage).await;
    what_an_upload_left_is_swept(storage).await;
    assert!(!format!("{storage:?}").contains("hunter-two"));
}

async fn what_is_written_is_read_back(storage: &Storage) {
    for (path, length) in [("back/empty", 0), ("back/small", 1000), ("back/part", 8 << 20), ("back/large", LARGE)] {
        let content = content(length);
        store(storage, path, &content).await;
        assert!(read(storage, path).await.unwrap() == content, "{path}");
        assert_eq!(
            storage.list(path.rsplit_once('/').unwrap().0).await.unwrap().iter().find(|s| s.path == path).unwrap().size,
            length as u64
        );
    }
}

async fn nothing_is_visible_before_its_end(storage: &Storage) {
    let large = content(TWO_PARTS);
    let upload = write(storage, "hidden/shop/data", &large).await.unwrap();
    assert_eq!(paths(storage, "hidden").await, [""; 0]);
    assert!(matches!(storage.read("hidden/shop/data").await, Err(Error::NotFound { .. })));
    upload.discard().await;
    assert_eq!(storage.sweep("hidden").await.unwrap(), 0, "what is discarded leaves nothing to sweep");
    store(storage, "hidden/shop/data", &large.slice(..10)).await;
}

async fn nothing_is_overwritten(storage: &Storage) {
    let (first, large) = (Bytes::from_static(b"first"), content(TWO_PARTS));
    store(storage, "once/data", &first).await;
    assert!(matches!(storage.create("once/data", None).await, Err(Error::Refused { .. })));
    // Two at once: who ends first has it. Where the second may not even begin, that is as well.
    for content in [Bytes::from_static(b"other"), large] {
        let path = format!("once/race-{}", content.len());
        let early = storage.create(&path, None).await.unwrap();
        let late = write(storage, &path, &content).await;
        early.finish().await.unwrap();
        if let Ok(late) = late {
            assert!(matches!(late.finish().await, Err(Error::Refused { .. })));
        }
        assert_eq!(read(storage, &path).await.unwrap(), b"");
    }
    assert_eq!(read(storage, "once/data").await.unwrap(), b"first");
    assert_eq!(storage.sweep("once").await.unwrap(), 0);
}

async fn what_is_listed_is_sorted_and_below(storage: &Storage) {
    for path in ["list/b/2", "list/b/1", "list/b-1/x", "list/a", "list-not/x"] {
        store(storage, path, &Bytes::from_static(b"x")).await;
    }
    assert_eq!(paths(storage, "list").await, ["list/a", "list/b-1/x", "list/b/1", "list/b/2"]);
    assert_eq!(paths(storage, "list/b").await, ["list/b/1", "list/b/2"]);
    assert_eq!(paths(storage, "list/nothing").await, [""; 0]);
    storage.remove("list/b/1").await.unwrap();
    storage.remove("list/b/1").await.unwrap();
    storage.remove("list/b-1/x").await.unwrap();
    assert_eq!(paths(storage, "list").await, ["list/a", "list/b/2"]);
}

async fn what_is_not_there_is_said_to_be_missing(storage: &Storage) {
    let error = storage.read("missing/data").await.unwrap_err();
    assert!(matches!(&error, Error::NotFound { path, .. } if path == "missing/data"), "{error:?}");
    assert_eq!(Failure::from(error).class, ErrorClass::Integrity);
    storage.remove("missing/data").await.unwrap();
}

async fn a_path_that_leads_elsewhere_is_refused(storage: &Storage) {
    for path in ["", "/etc/passwd", "a/../../b", "a//b", "a/", ".hidden", "a/.b", "a\n"] {
        assert!(matches!(storage.create(path, None).await, Err(Error::Refused { .. })), "{path:?}");
        assert!(matches!(storage.read(path).await, Err(Error::Refused { .. })), "{path:?}");
        assert!(matches!(storage.remove(path).await, Err(Error::Refused { .. })), "{path:?}");
    }
    assert!(matches!(storage.list("../..").await, Err(Error::Refused { .. })));
    assert!(matches!(storage.sweep("..").await, Err(Error::Refused { .. })));
}

async fn what_an_upload_left_is_swept(storage: &Storage) {
    let large = content(TWO_PARTS);
    store(storage, "swept/whole", &Bytes::from_static(b"whole")).await;
    for path in ["swept/1/data", "swept/2/data", "not-swept/data"] {
        drop(write(storage, path, &large).await.unwrap());
    }
    assert_eq!(storage.sweep("swept").await.unwrap(), 2);
    assert_eq!(storage.sweep("swept").await.unwrap(), 0);
    assert_eq!(paths(storage, "swept").await, ["swept/whole"]);
    store(storage, "swept/1/data", &large.slice(..10)).await;
    assert_eq!(storage.sweep("").await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_keeps_the_promises() {
    let root = tempfile::tempdir().unwrap();
    let storage = open_directory(root.path()).await.unwrap();
    storage.check().await.unwrap();
    assert!(!storage.is_marked().await.unwrap(), "looking marks nothing");
    let place = policy::Place::Filesystem { path: root.path().to_owned() };
    let error = Storage::open_used(&policy::Storage { name: "near".to_owned(), place }).await.unwrap_err();
    assert!(matches!(error, Error::NotMounted { .. }) && error.to_string().contains("not mounted?"), "{error}");
    keeps_its_promises(&storage).await;
    assert!(storage.free_space().await.unwrap().unwrap() > 0);
    assert_eq!(storage.locate("shop/x"), format!("{}/shop/x", root.path().display()));
    for stored in storage.list("").await.unwrap() {
        storage.remove(&stored.path).await.unwrap();
    }
    let left: Vec<_> = fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [".backstop-storage"], "directories go with their last file");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_keeps_the_promises() {
    let service = Service::up();
    let storage = open(service.settings("backups")).await.unwrap();
    keeps_its_promises(&storage).await;
    assert_eq!(storage.free_space().await.unwrap(), None);
    assert_eq!(storage.locate("shop/x"), "s3://backups/here/below/shop/x");
    // Without a prefix, and with versions: nothing may remain below what is removed.
    let bare = open(policy::S3 { prefix: String::new(), ..service.settings("locked") }).await.unwrap();
    keeps_its_promises(&bare).await;
    for stored in bare.list("").await.unwrap() {
        bare.remove(&stored.path).await.unwrap();
    }
    assert_eq!(service.python("print(s3.list_object_versions(Bucket='locked').get('Versions', []))"), "[]");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_does_what_the_policy_says_of_its_objects() {
    let service = Service::up();
    let settings = policy::S3 {
        storage_class: Some("STANDARD_IA".to_owned()),
        server_side_encryption: Some("aws:kms".to_owned()),
        kms_key: Some("our-key".to_owned()),
        object_lock: Some(ObjectLock::Compliance),
        ..service.settings("locked")
    };
    let storage = open(settings.clone()).await.unwrap();
    storage.check().await.unwrap();
    let until = clock::now() + chrono::TimeDelta::days(1);
    for (path, length) in [("shop/small", 10), ("shop/large", LARGE)] {
        let mut upload = storage.create(path, Some(until)).await.unwrap();
        upload.write(content(length)).await.unwrap();
        upload.finish().await.unwrap();
        let said = service.python(&format!(
            "h = s3.head_object(Bucket='locked', Key='here/below/{path}')\nprint(h['StorageClass'], h['ServerSideEncryption'], h['SSEKMSKeyId'], h['ObjectLockMode'], h['ObjectLockRetainUntilDate'].timestamp() >= {})",
            until.timestamp()
        ));
        assert_eq!(said, "STANDARD_IA aws:kms our-key COMPLIANCE True", "{path}");
        let error = storage.remove(path).await.unwrap_err();
        assert!(
            matches!(&error, Error::Locked { why, .. } if why.starts_with("compliance mode until 20")),
            "{error:?}"
        );
        assert_eq!(read(&storage, path).await.unwrap().len(), length, "what is locked is not even hidden");
    }
    // What needs no lock gets none, and a bucket that cannot lock is found out before anything is written.
    store(&storage, "shop/free", &content(10)).await;
    storage.remove("shop/free").await.unwrap();
    let plain = open(policy::S3 { bucket: "backups".to_owned(), ..settings }).await.unwrap();
    assert!(plain.check().await.unwrap_err().to_string().contains("no object lock"));
    let mut upload = plain.create("shop/x", Some(until)).await.unwrap();
    upload.write(content(10)).await.unwrap();
    assert!(upload.finish().await.is_err());
    assert_eq!(paths(&plain, "").await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_fails_says_why() {
    let service = Service::up();
    let settings = policy::S3 { attempts: 1, ..service.settings("backups") };
    let storage = open(settings.clone()).await.unwrap();
    store(&storage, "shop/data", &content(10)).await;
    let create = async |fault: &str| {
        service.fail(fault);
        let written = match write(&storage, "shop/other", &content(2 * TWO_PARTS)).await {
            Ok(upload) => upload.finish().await,
            Err(error) => Err(error),
        };
        service.mend();
        written.unwrap_err().to_string()
    };
    let said = [
        create("HEAD * 403 AccessDenied").await,
        create("POST * 403 AccessDenied").await,
        create("PUT * 403 InvalidAccessKeyId").await,
        create("PUT partNumber=2 403 SignatureDoesNotMatch").await,
        create("PUT * 507 InsufficientStorage").await,
        create("POST uploadId= 503 SlowDown").await,
    ];
    insta::assert_snapshot!(said.join("\n"), @"
    storage `far` refuses: access to the bucket `backups` is denied (HTTP 403)
    storage `far` refuses: access to the bucket `backups` is denied: AccessDenied: on purpose
    storage `far` refuses: it does not know the access key
    storage `far` refuses: the signature is wrong: the secret key does not belong to the access key
    storage `far` is full
    storage `far` cannot be reached: it fails: SlowDown: on purpose
    ");
    assert_eq!(paths(&storage, "").await, ["shop/data"]);
    service.fail("DELETE * 403 AccessDenied");
    assert!(matches!(storage.remove("shop/data").await, Err(Error::Refused { .. })));
    service.mend();

    let nowhere = open(policy::S3 { bucket: "nowhere".to_owned(), ..settings.clone() }).await.unwrap();
    assert_eq!(
        nowhere.check().await.unwrap_err().to_string(),
        "storage `far` refuses: the bucket `nowhere` does not exist"
    );
    let strict = open(policy::S3 { ca_file: None, ..settings.clone() }).await.unwrap();
    let error = strict.check().await.unwrap_err();
    assert!(error.to_string().contains("its certificate is not trusted"), "{error}");
    let closed = open(policy::S3 { endpoint: Some("https://127.0.0.1:1".to_owned()), ..settings }).await.unwrap();
    let error = closed.check().await.unwrap_err();
    assert_eq!(error.to_string(), "storage `far` cannot be reached: Connection refused (os error 111)");
    assert_eq!(Failure::from(error).class, ErrorClass::Transient);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_lost_and_a_condition_that_is_not_known_do_no_harm() {
    let service = Service::up();
    let storage = open(service.settings("backups")).await.unwrap();
    for (path, length) in [("lost/small", 10), ("lost/large", LARGE)] {
        service.fail(if length == LARGE { "POST uploadId= lost 500" } else { "PUT lost/small lost 500" });
        store(&storage, path, &content(length)).await;
    }
    service.fail("PUT if-none-match 501 NotImplemented");
    store(&storage, "plain/small", &content(10)).await;
    service.fail("POST if-none-match 501 NotImplemented");
    store(&storage, "plain/large", &content(LARGE)).await;
    assert!(matches!(storage.create("plain/large", None).await, Err(Error::Refused { .. })));
    assert_eq!(paths(&storage, "").await, ["lost/large", "lost/small", "plain/large", "plain/small"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_breaks_off_is_taken_up_where_it_was() {
    let service = Service::up();
    let storage = open(service.settings("backups")).await.unwrap();
    let large = content(LARGE);
    store(&storage, "shop/data", &large).await;
    service.fail("GET shop/data cut 5000000");
    assert!(read(&storage, "shop/data").await.unwrap() == large);
    // Another object of the same name is no continuation.
    let mut reader = storage.read("shop/data").await.unwrap();
    reader.next().await.unwrap();
    service.python("s3.put_object(Bucket='backups', Key='here/below/shop/data', Body=b'y' * 30000000)");
    service.kill();
    let error = read_to_the_error(&mut reader).await;
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_gone_midway_is_given_up() {
    is_given_up_after(Service::kill, LARGE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_silent_midway_is_given_up_in_time() {
    is_given_up_after(Service::freeze, 1000).await;
}

async fn is_given_up_after(stop: impl Fn(&Service), length: usize) {
    let service = Service::up();
    let settings = policy::S3 { timeout: std::time::Duration::from_secs(2), ..service.settings("backups") };
    let storage = open(settings).await.unwrap();
    store(&storage, "shop/whole", &content(LARGE)).await;
    let mut upload = write(&storage, "shop/data", &content(length)).await.unwrap();
    let mut reader = storage.read("shop/whole").await.unwrap();
    stop(&service);
    upload.write(content(100)).await.unwrap();
    let error = upload.finish().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    let error = read_to_the_error(&mut reader).await;
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
}

async fn read_to_the_error(reader: &mut Reader) -> Error {
    loop {
        match reader.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it cannot have come to its end"),
            Err(error) => return error,
        }
    }
}

#[tokio::test]
async fn credentials_and_authorities_are_looked_at_when_it_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::pretended();
    let opened = async |settings: policy::S3| open(settings).await.map(drop).unwrap_err();
    let missing = SecretRef::File(directory.path().join("missing"));
    let error = opened(policy::S3 { access_key: Some(missing), ..service.settings("backups") }).await;
    assert_eq!(Failure::from(error).exit, ExitCode::Configuration);
    for (name, text) in [
        ("empty", ""),
        ("text", "no certificate"),
        ("broken", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
    ] {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        let error = opened(policy::S3 { ca_file: Some(path), ..service.settings("backups") }).await;
        assert!(error.to_string().contains("the CA file"), "{error}");
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[tokio::test]
async fn what_is_written_is_for_us_alone() {
    let root = tempfile::tempdir().unwrap();
    let storage = open_directory(root.path()).await.unwrap();
    store(&storage, "shop/one/data", &content(10)).await;
    assert_eq!((mode(&root.path().join("shop")), mode(&root.path().join("shop/one/data"))), (0o700, 0o600));
}

#[tokio::test]
async fn links_and_pipes_below_the_root_are_neither_followed_nor_listed() {
    let (root, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let storage = open_directory(root.path()).await.unwrap();
    fs::write(elsewhere.path().join("data"), "secret").unwrap();
    fs::write(elsewhere.path().join(".data.partial"), "").unwrap();
    store(&storage, "shop/real", &content(10)).await;
    symlink(elsewhere.path(), root.path().join("shop/link")).unwrap();
    symlink(elsewhere.path().join("data"), root.path().join("shop/file")).unwrap();
    nix::unistd::mkfifo(&root.path().join("shop/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(paths(&storage, "").await, ["shop/real"]);
    assert_eq!(storage.sweep("").await.unwrap(), 0);
    for path in ["shop/link/data", "shop/file", "shop/pipe"] {
        let error = storage.read(path).await.unwrap_err();
        assert!(matches!(error, Error::Untrusted { .. }), "{path}: {error:?}");
    }
    assert!(matches!(storage.create("shop/link/new", None).await, Err(Error::Untrusted { .. })));
    assert!(matches!(storage.create("shop/file", None).await, Err(Error::Refused { .. })));
    assert!(matches!(storage.remove("shop/link/data").await, Err(Error::Untrusted { .. })));
    storage.remove("shop/file").await.unwrap();
    assert_eq!(fs::read_to_string(elsewhere.path().join("data")).unwrap(), "secret");
    assert!(elsewhere.path().join(".data.partial").exists());
}

#[tokio::test]
async fn a_directory_that_others_may_write_is_refused_at_the_root_and_below() {
    let root = tempfile::tempdir().unwrap();
    let storage = open_directory(root.path()).await.unwrap();
    store(&storage, "shop/data", &content(10)).await;
    fs::set_permissions(root.path().join("shop"), fs::Permissions::from_mode(0o777)).unwrap();
    let error = storage.read("shop/data").await.unwrap_err();
    assert!(matches!(error, Error::Untrusted { .. }));
    assert_eq!(Failure::from(error).exit, ExitCode::Configuration);
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o775)).unwrap();
    assert!(matches!(open_directory(root.path()).await, Err(Error::Untrusted { .. })));
    assert!(matches!(storage.check().await, Err(Error::Untrusted { .. })), "it may change while it is open");
}

#[tokio::test]
async fn a_root_that_is_gone_is_no_empty_storage() {
    let root = tempfile::tempdir().unwrap();
    let storage = open_directory(root.path()).await.unwrap();
    fs::remove_dir(root.path()).unwrap();
    assert!(matches!(storage.list("").await, Err(Error::Refused { .. })));
    assert!(matches!(storage.read("shop/data").await, Err(Error::Refused { .. })));
    assert!(matches!(storage.create("shop/data", None).await, Err(Error::Refused { .. })));
    assert!(matches!(open_directory(root.path()).await, Err(Error::Refused { .. })));
    fs::create_dir(root.path()).unwrap();
}

#[tokio::test]
async fn parts_that_are_written_and_discarded_beside_each_other_do_not_disturb() {
    let root = tempfile::tempdir().unwrap();
    let storage = open_directory(root.path()).await.unwrap();
    let work = async |number: u32| {
        let upload = write(&storage, &format!("shop/parts/{number}"), &content(100)).await.unwrap();
        if number.is_multiple_of(2) { upload.finish().await.unwrap() } else { upload.discard().await }
    };
    futures_util::future::join_all((0..64).map(work)).await;
    assert_eq!(paths(&storage, "shop").await.len(), 32);
}
