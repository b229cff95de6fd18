//! The stream out and back, against itself and against the standard tools.

use std::{
    io::{self, Read, Write},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use proptest::prelude::*;

use super::{
    compress::BLOCK,
    extract, send,
    testing::{Memory, Pieces, gone, new_key, noise, private, tool, words},
    *,
};
use crate::{
    policy::{Key, KeyKind, SecretRef},
    process::testing::eventually,
    record::{EncryptionMethod, Role},
};

const COMPRESSIONS: [&str; 3] = ["none", "gzip:6", "zstd:3"];
const METHODS: [Option<EncryptionMethod>; 3] = [None, Some(EncryptionMethod::Age), Some(EncryptionMethod::Aes256)];

/// A key, or none, and the recipe with it.
struct Setup {
    directory: tempfile::TempDir,
    key: Option<Key>,
    recipe: Recipe,
}

impl Setup {
    fn new(compression: &str, method: Option<EncryptionMethod>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = method.map(|method| new_key(directory.path(), "own", method));
        let sealer = key.as_ref().map(|key| Sealer::of(key).unwrap());
        Self { directory, key, recipe: Recipe { compression: compression.parse().unwrap(), sealer } }
    }

    fn opener(&self) -> Option<Opener> {
        self.key.as_ref().map(|key| Opener::of(key, None).unwrap())
    }

    async fn store(&self, content: &[u8]) -> (Vec<u8>, Artifact) {
        let memory = Memory::default();
        let pending = store(io::Cursor::new(content.to_vec()), &self.recipe, &[&memory]).await.unwrap();
        let Pending { raw, stored, hmac, .. } = pending;
        (memory.bytes(), Artifact { role: Role::Data, name: "shop.dump".to_owned(), raw, stored, hmac })
    }

    async fn check(&self, stored: &[u8], artifact: &Artifact) -> Result<(), Error> {
        extract::check(Pieces::of(stored), artifact, self.opener().as_ref(), &Stop::never()).await
    }

    async fn extract(&self, stored: &[u8], artifact: &Artifact) -> Result<Vec<u8>, Error> {
        read(stored, artifact, self.recipe.compression, self.opener().as_ref()).await
    }
}

async fn store(source: impl Read + Send + 'static, recipe: &Recipe, to: &[&Memory]) -> Result<Pending<Memory>, Error> {
    let uploads = to.iter().enumerate().map(|(index, memory)| (index.to_string(), (*memory).clone())).collect();
    send::store(source, recipe, None, uploads, &Meter::default(), &Stop::never()).await
}

async fn read(
    stored: &[u8],
    artifact: &Artifact,
    compression: Compression,
    opener: Option<&Opener>,
) -> Result<Vec<u8>, Error> {
    let (place, never) = (Place::default(), Stop::never());
    let done = extract::extract(Pieces::of(stored), artifact, compression, opener, place.clone(), &never).await;
    done.map(|()| std::mem::take(&mut *place.0.lock().unwrap()))
}

/// Where content goes in memory.
#[derive(Debug, Clone, Default)]
struct Place(Arc<Mutex<Vec<u8>>>);

impl Write for Place {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A tool that writes for ever what cannot be compressed, counts, and tells when its output was closed.
#[derive(Clone, Default)]
struct Endless {
    read: Arc<AtomicU64>,
    is_closed: Arc<AtomicBool>,
}

impl Endless {
    fn tool(&self) -> Output {
        Output(self.clone(), std::fs::File::open("/dev/urandom").unwrap())
    }
}

struct Output(Endless, std::fs::File);

impl Read for Output {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.1.read(into)?;
        self.0.read.fetch_add(count as u64, Ordering::SeqCst);
        Ok(count)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.0.is_closed.store(true, Ordering::SeqCst);
    }
}

fn recipe(compression: &str) -> Recipe {
    Recipe { compression: compression.parse().unwrap(), sealer: None }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

#[tokio::test]
async fn what_goes_out_comes_back_and_both_digests_are_right() {
    for (compression, method) in COMPRESSIONS.iter().flat_map(|c| METHODS.map(|m| (*c, m))) {
        let setup = Setup::new(compression, method);
        for content in [vec![], noise(BLOCK + 1), words(4 * BLOCK)] {
            let (stored, artifact) = setup.store(&content).await;
            let sum = String::from_utf8(tool("sha256sum <\"$1\"", &stored).await).unwrap();
            assert_eq!(sum.split(' ').next(), Some(artifact.stored.sha256.as_str()));
            assert_eq!((artifact.raw.size, artifact.stored.size), (content.len() as u64, stored.len() as u64));
            assert_eq!(artifact.hmac.is_some(), method == Some(EncryptionMethod::Aes256));
            setup.check(&stored, &artifact).await.unwrap();
            assert!(setup.extract(&stored, &artifact).await.unwrap() == content, "{compression} {method:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_bytes_come_back(
        content in prop::collection::vec(any::<u8>(), 0..3000),
        times in 1..90usize,
        compression in prop::sample::select(&COMPRESSIONS[..]),
        method in prop::sample::select(&METHODS[..]),
    ) {
        let setup = Setup::new(compression, method);
        let content = content.repeat(times);
        block_on(async {
            let (stored, artifact) = setup.store(&content).await;
            assert!(setup.extract(&stored, &artifact).await.unwrap() == content);
        });
    }
}

#[tokio::test]
async fn the_standard_commands_read_it() {
    let content = words(3 * BLOCK + 9);
    for (compression, unpack) in [("none", "cat"), ("gzip:6", "gzip -dc"), ("zstd:3", "zstd -dc")] {
        for (method, open) in [
            (EncryptionMethod::Age, "age -d -i KEY"),
            (EncryptionMethod::Aes256, "openssl enc -d -aes-256-ctr -pbkdf2 -pass file:KEY"),
        ] {
            let setup = Setup::new(compression, Some(method));
            let (stored, _) = setup.store(&content).await;
            let open = open.replace("KEY", setup.directory.path().join("own").to_str().unwrap());
            let read = tool(&format!("{open} <\"$1\" | {unpack}"), &stored).await;
            assert!(read == content, "{open} | {unpack}");
        }
    }
}

#[tokio::test]
async fn what_the_standard_commands_wrote_can_be_read() {
    let content = words(3 * BLOCK + 1);
    let digest = |bytes: &[u8]| {
        let mut tally = tally::Tally::default();
        tally.see(bytes);
        tally.digest()
    };
    for (compression, pack) in [("none", "cat"), ("gzip:6", "gzip -c"), ("gzip:6", "pigz -c"), ("zstd:3", "zstd -c")] {
        let directory = tempfile::tempdir().unwrap();
        let secret = tool("age-keygen 2>/dev/null", &[]).await;
        let path = private(directory.path(), "key", std::str::from_utf8(&secret).unwrap());
        let recipient = tool(&format!("age-keygen -y {}", path.display()), &[]).await;
        let recipient = String::from_utf8(recipient).unwrap().trim().to_owned();
        let stored = tool(&format!("{pack} <\"$1\" | age -r {recipient}"), &content).await;
        let key = Key { name: "k".to_owned(), kind: KeyKind::Age { recipients: vec![recipient], identity: None } };
        let opener = Opener::of(&key, Some(&path)).unwrap();
        let (raw, stored_digest) = (digest(&content), digest(&stored));
        let artifact = Artifact { role: Role::Data, name: "shop".to_owned(), raw, stored: stored_digest, hmac: None };
        let read = read(&stored, &artifact, compression.parse().unwrap(), Some(&opener)).await.unwrap();
        assert!(read == content, "{pack}");
    }
}

#[tokio::test]
async fn the_hmac_can_be_checked_by_hand_as_the_documentation_says() {
    let setup = Setup::new("gzip:6", Some(EncryptionMethod::Aes256));
    let (stored, artifact) = setup.store(&words(BLOCK)).await;
    let key = setup.directory.path().join("own");
    let line = format!(
        "salt=$(head -c 16 \"$1\" | tail -c 8 | od -An -v -tx1 | tr -d ' \\n')
         key=$(openssl kdf -keylen 96 -kdfopt digest:SHA256 -kdfopt iter:10000 -kdfopt pass:\"$(cat {key})\" \
               -kdfopt hexsalt:$salt -binary PBKDF2 | tail -c 32 | od -An -v -tx1 | tr -d ' \\n')
         tail -c +9 \"$1\" | openssl dgst -sha256 -mac HMAC -macopt hexkey:$key -r",
        key = key.display()
    );
    let said = String::from_utf8(tool(&line, &stored).await).unwrap();
    assert_eq!(said.split([' ', '\n']).next(), artifact.hmac.as_deref());
}

#[tokio::test]
async fn one_flipped_bit_anywhere_is_found_without_and_with_the_key() {
    for (compression, method) in COMPRESSIONS.iter().flat_map(|c| METHODS.map(|m| (*c, m))) {
        let setup = Setup::new(compression, method);
        let (stored, artifact) = setup.store(&words(20_000)).await;
        let last = stored.len() - 1;
        for place in [0, 9, 60, last / 2, last] {
            let mut flipped = stored.clone();
            flipped[place] ^= 1 << (place % 8);
            for found in [setup.check(&flipped, &artifact).await, setup.extract(&flipped, &artifact).await.map(drop)] {
                let what = format!("{compression} {method:?} at {place}: {found:?}");
                assert!(matches!(found, Err(Error::Damaged(why)) if why.contains("SHA-256")), "{what}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_shorter_or_longer_is_found() {
    for method in METHODS {
        let setup = Setup::new("zstd:3", method);
        let (stored, artifact) = setup.store(&words(20_000)).await;
        let longer: Vec<u8> = stored.iter().copied().chain([0]).collect();
        for changed in [&[][..], &stored[..5], &stored[..stored.len() / 2], &stored[..stored.len() - 1], &longer] {
            for found in [setup.check(changed, &artifact).await, setup.extract(changed, &artifact).await.map(drop)] {
                assert!(matches!(&found, Err(Error::Damaged(why)) if why.contains("bytes")), "{found:?}");
            }
        }
    }
}

#[tokio::test]
async fn another_key_is_called_wrong_and_not_damage() {
    for (compression, method) in COMPRESSIONS.iter().flat_map(|c| METHODS.map(|m| (*c, m))) {
        let Some(method) = method else { continue };
        let setup = Setup::new(compression, Some(method));
        let (stored, artifact) = setup.store(&words(20_000)).await;
        let other = new_key(setup.directory.path(), "other", method);
        let other = Opener::of(&other, None).unwrap();
        let found = read(&stored, &artifact, setup.recipe.compression, Some(&other)).await;
        assert!(matches!(found, Err(Error::Key(KeyError::Wrong { ref key })) if key == "other"), "{found:?}");
        let mut damaged = stored.clone();
        damaged[40] ^= 1;
        let found = read(&damaged, &artifact, setup.recipe.compression, Some(&other)).await;
        assert!(matches!(found, Err(Error::Damaged(_))), "{found:?}");
    }
}

#[tokio::test]
async fn an_hmac_that_was_changed_or_taken_away_is_noticed_by_the_check_too() {
    let setup = Setup::new("none", Some(EncryptionMethod::Aes256));
    let (stored, artifact) = setup.store(b"content").await;
    let changed = Artifact { hmac: Some("00".repeat(32)), ..artifact.clone() };
    assert!(matches!(setup.check(&stored, &changed).await, Err(Error::Key(KeyError::Wrong { .. }))));
    let without = Artifact { hmac: None, ..artifact };
    for found in [setup.check(&stored, &without).await, setup.extract(&stored, &without).await.map(drop)] {
        assert!(matches!(found, Err(Error::Damaged(why)) if why.contains("HMAC")));
    }
}

#[tokio::test]
async fn content_that_is_not_what_the_tool_wrote_is_noticed() {
    let setup = Setup::new("gzip:6", None);
    let (stored, artifact) = setup.store(b"content").await;
    let other = setup.store(b"another").await.1;
    let mixed = Artifact { raw: other.raw, ..artifact };
    assert!(matches!(setup.extract(&stored, &mixed).await, Err(Error::Damaged(why)) if why.contains("the tool wrote")));
}

#[tokio::test]
async fn one_storage_that_fails_loses_its_copy_and_the_others_go_on() {
    let (good, bad) = (Memory::default(), Memory::failing_after(1 << 20));
    let content = noise(3 << 20);
    let pending = store(io::Cursor::new(content.clone()), &recipe("none"), &[&bad, &good]).await.unwrap();
    assert!(good.bytes() == content && !good.is_discarded());
    assert!(bad.is_discarded());
    let ended: Vec<(&str, bool)> = pending.uploads.iter().map(|(name, end)| (name.as_str(), end.is_ok())).collect();
    assert_eq!(ended, [("0", false), ("1", true)]);
}

#[tokio::test]
async fn when_no_storage_is_left_the_tool_is_let_go() {
    let (one, two, tool) = (Memory::failing_after(1 << 20), Memory::failing_after(0), Endless::default());
    let error = store(tool.tool(), &recipe("none"), &[&one, &two]).await.unwrap_err();
    assert!(matches!(error, Error::NoStorage(storage::Error::Unreachable { .. })), "{error:?}");
    assert!(one.is_discarded() && two.is_discarded());
    eventually("the tool's output is closed", || tool.is_closed.load(Ordering::SeqCst)).await;
}

#[tokio::test]
async fn a_storage_that_fails_at_the_very_end_counts_too() {
    let memory = Memory::failing_after(0);
    let error = store(io::Cursor::new(vec![1]), &recipe("none"), &[&memory]).await.unwrap_err();
    assert!(matches!(error, Error::NoStorage(_)), "{error:?}");
}

#[tokio::test]
async fn a_slow_storage_holds_the_tool_back() {
    for compression in COMPRESSIONS {
        let (slow, fast, tool) = (Memory::stuck_after(0), Memory::default(), Endless::default());
        let (handle, stop) = Stop::new();
        let uploads = vec![("slow".to_owned(), slow.clone()), ("fast".to_owned(), fast.clone())];
        let (recipe, meter) = (recipe(compression), Meter::default());
        let storing = send::store(tool.tool(), &recipe, None, uploads, &meter, &stop);
        let rest = AtomicU64::new(0);
        let last = AtomicU64::new(0);
        let stands_still = || {
            let read = tool.read.load(Ordering::SeqCst);
            let moved = last.swap(read, Ordering::SeqCst) != read || read == 0;
            rest.fetch_add(1, Ordering::SeqCst);
            if moved {
                rest.store(0, Ordering::SeqCst);
            }
            rest.load(Ordering::SeqCst) > 50
        };
        let waiting = async {
            eventually("the tool is held back", stands_still).await;
            handle.stop();
        };
        let (stored, ()) = tokio::join!(storing, waiting);
        assert!(matches!(stored, Err(Error::Stopped)));
        let read = tool.read.load(Ordering::SeqCst);
        assert!(read < 40 << 20, "{compression}: {read} bytes were read ahead");
        assert!(slow.is_discarded() && fast.is_discarded());
        eventually("the tool's output is closed", || tool.is_closed.load(Ordering::SeqCst)).await;
    }
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_tool_that_is_silent() {
    let (tool, pen) = io::pipe().unwrap();
    let (handle, stop) = Stop::new();
    let (memory, recipe, meter) = (Memory::default(), recipe("gzip:6"), Meter::default());
    let uploads = vec![("one".to_owned(), memory.clone())];
    let storing = send::store(tool, &recipe, None, uploads, &meter, &stop);
    let (stored, ()) = tokio::join!(storing, async { handle.stop() });
    assert!(matches!(stored, Err(Error::Stopped)));
    assert!(memory.is_discarded());
    drop(pen);
}

#[tokio::test]
async fn an_output_that_cannot_be_read_leaves_nothing() {
    struct Broken(usize);
    impl Read for Broken {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.0 += 1;
            if self.0 > 40 { Err(io::Error::other("broken")) } else { Ok(into.len()) }
        }
    }
    for compression in COMPRESSIONS {
        let memory = Memory::default();
        let error = store(Broken(0), &recipe(compression), &[&memory]).await.unwrap_err();
        assert!(matches!(error, Error::Read(_)), "{compression}: {error:?}");
        assert!(memory.is_discarded());
    }
}

#[tokio::test]
async fn the_inspector_sees_everything_and_the_meter_counts_it() {
    struct Trailer(Arc<Mutex<Vec<u8>>>);
    impl Inspect for Trailer {
        fn see(&mut self, bytes: &[u8]) {
            self.0.lock().unwrap().extend_from_slice(bytes);
        }

        fn end(self: Box<Self>) -> Result<(), String> {
            Err("the trailer is missing".to_owned())
        }
    }
    let (seen, content, meter) = (Arc::default(), words(3 * BLOCK + 1), Meter::default());
    let inspect: Box<dyn Inspect> = Box::new(Trailer(Arc::clone(&seen)));
    let uploads = vec![("one".to_owned(), Memory::default()), ("two".to_owned(), Memory::default())];
    let source = io::Cursor::new(content.clone());
    let pending = send::store(source, &recipe("zstd:3"), Some(inspect), uploads, &meter, &Stop::never()).await.unwrap();
    assert!(*seen.lock().unwrap() == content);
    assert_eq!(pending.complaint.as_deref(), Some("the trailer is missing"));
    assert_eq!((meter.raw(), meter.stored()), (pending.raw.size, pending.stored.size));
}

#[tokio::test]
async fn a_storage_that_fails_while_it_is_read_is_no_damage() {
    let setup = Setup::new("zstd:3", Some(EncryptionMethod::Age));
    let (stored, artifact) = setup.store(&noise(4 * BLOCK)).await;
    let pieces = || {
        let mut pieces = Pieces::of(&stored);
        pieces.0[0] = Err(gone());
        pieces
    };
    let opener = setup.opener();
    let (opener, stop) = (opener.as_ref(), Stop::never());
    let checked = extract::check(pieces(), &artifact, opener, &stop).await;
    let compression = setup.recipe.compression;
    let read = extract::extract(pieces(), &artifact, compression, opener, Place::default(), &stop).await;
    assert!(matches!(checked, Err(Error::Storage(_))), "{checked:?}");
    assert!(matches!(read, Err(Error::Storage(_))), "{read:?}");
}

#[tokio::test]
async fn a_place_that_takes_no_more_is_told_as_such() {
    let setup = Setup::new("none", None);
    let (stored, artifact) = setup.store(&noise(9 * BLOCK)).await;
    let full: &mut [u8] = Box::leak(vec![0; BLOCK].into_boxed_slice());
    let compression = setup.recipe.compression;
    let read = extract::extract(Pieces::of(&stored), &artifact, compression, None, full, &Stop::never()).await;
    assert!(matches!(read, Err(Error::Write(_))), "{read:?}");
}

#[tokio::test]
async fn each_of_several_recipients_reads_alone_and_old_keys_stay_useful() {
    let directory = tempfile::tempdir().unwrap();
    let keys = ["old", "new"].map(|name| new_key(directory.path(), name, EncryptionMethod::Age));
    let recipients = keys.iter().flat_map(|key| match &key.kind {
        KeyKind::Age { recipients, .. } => recipients.clone(),
        KeyKind::Aes256 { .. } => unreachable!(),
    });
    let both = KeyKind::Age { recipients: recipients.collect(), identity: None };
    let both = Key { name: "both".to_owned(), kind: both };
    let setup = Setup {
        recipe: Recipe { compression: Compression::NONE, sealer: Some(Sealer::of(&both).unwrap()) },
        key: None,
        directory,
    };
    let (stored, artifact) = setup.store(b"content").await;
    for key in &keys {
        let opener = Opener::of(key, None).unwrap();
        assert_eq!(read(&stored, &artifact, Compression::NONE, Some(&opener)).await.unwrap(), b"content");
    }
    let files = ["new", "old"].map(|name| std::fs::read_to_string(setup.directory.path().join(name)).unwrap());
    let ring = private(setup.directory.path(), "ring", &format!("# rotated\n\n{}", files.concat()));
    let old = Setup { key: Some(keys[0].clone()), ..Setup::new("none", None) };
    let old = Recipe { sealer: Some(Sealer::of(old.key.as_ref().unwrap()).unwrap()), ..setup.recipe.clone() };
    let setup = Setup { recipe: old, ..setup };
    let (stored, artifact) = setup.store(b"content").await;
    let opener = Opener::of(&both, Some(&ring)).unwrap();
    assert_eq!(read(&stored, &artifact, Compression::NONE, Some(&opener)).await.unwrap(), b"content");
}

#[test]
fn a_passphrase_and_a_secret_key_are_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    for method in [EncryptionMethod::Age, EncryptionMethod::Aes256] {
        let key = new_key(directory.path(), method.suffix(), method);
        let secret = std::fs::read_to_string(directory.path().join(method.suffix())).unwrap();
        let secret = secret.lines().last().unwrap();
        let (sealer, opener) = (Sealer::of(&key).unwrap(), Opener::of(&key, None).unwrap());
        assert!(!format!("{sealer:?} {opener:?}").contains(secret));
        let typed = KeyKind::Age { recipients: vec![secret.to_owned()], identity: None };
        let error = Sealer::of(&Key { name: "typed".to_owned(), kind: typed }).unwrap_err();
        assert!(!format!("{error:?} {error}").contains(secret), "{error}");
    }
}

#[test]
fn a_failure_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let passphrase = SecretRef::File(directory.path().join("missing"));
    let key = Key { name: "vault".to_owned(), kind: KeyKind::Aes256 { passphrase } };
    let failure = Failure::from(Error::Key(Sealer::of(&key).unwrap_err()));
    assert_eq!((failure.class, failure.exit), (ErrorClass::Config, ExitCode::Configuration));
    assert!(failure.message.contains("passphrase of key `vault`") && failure.remedy.is_some());
    let wrong = Failure::from(Error::Key(KeyError::Wrong { key: "vault".to_owned() }));
    assert_eq!(wrong.exit, ExitCode::VerificationFailed);
    let damaged = Failure::from(Error::Damaged("`x` has 1 bytes, 2 were written".to_owned()));
    assert_eq!((damaged.class, damaged.exit), (ErrorClass::Integrity, ExitCode::VerificationFailed));
    assert_eq!(Failure::from(Error::Stopped).exit, ExitCode::Interrupted);
}
