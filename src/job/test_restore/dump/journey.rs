//! From a storage to the proof: what no part can show alone.

use std::{
    fs::{self, Permissions},
    io::Cursor,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    super::run,
    testing::{artifact, as_postgres, backup, context, dump},
    *,
};
use crate::{
    policy::{Key, KeyKind, SecretRef, Storage as Declared},
    process::{Command, Stop, capture},
    record::{Dump, DumpFormat},
    storage::Storage,
    stream::{Meter, Recipe, Sealer, store},
};

fn storage(site: &Path) -> Declared {
    Declared { name: "local".into(), place: Place::Filesystem { path: site.join("dumps") } }
}

fn key(site: &Path) -> Key {
    let passphrase = SecretRef::File(site.join("passphrase"));
    Key { name: "vault".into(), kind: KeyKind::Aes256 { passphrase } }
}

/// A context whose policy has a storage and a key below a directory.
async fn site(site: &Path) -> Context {
    fs::create_dir(site.join("dumps")).unwrap();
    fs::set_permissions(site.join("dumps"), Permissions::from_mode(0o700)).unwrap();
    fs::write(site.join("passphrase"), "correct horse battery staple\n").unwrap();
    fs::set_permissions(site.join("passphrase"), Permissions::from_mode(0o600)).unwrap();
    let mut context = context(site, EngineKind::Sqlite, Vec::new()).await;
    let mut policy = (*context.policy).clone();
    policy.daemon.scratch_dir = site.join("scratch");
    policy.storages.insert("local".into(), storage(site));
    policy.keys.insert("vault".into(), key(site));
    context.policy = Arc::new(policy);
    context
}

/// Stores a SQLite file as a dump, compressed and encrypted, and records it; gives the stored file.
async fn stored(context: &Context, site: &Path) -> PathBuf {
    let file = site.join("shop.sqlite");
    let sql = "create table t (a); with recursive n(a) as (values (1) union all select a + 1 from n where a < 5000) \
               insert into t select a from n;";
    assert!(capture(&Command::new("sqlite3").arg(&file).arg(sql), &Stop::never()).await.unwrap().ok());
    let sealer = Sealer::of(&key(site)).unwrap();
    let mut dump = Dump {
        format: DumpFormat::File,
        compression: "zstd".parse().unwrap(),
        encryption: Some(sealer.encryption()),
        source: file.to_string_lossy().into_owned(),
        ..dump(&[("local", CopyState::Good)])
    };
    let mut artifact = artifact(Role::Data, "shop.sqlite.zst.enc");
    let storage = Storage::open(&storage(site)).await.unwrap();
    storage.mark().await.unwrap();
    let upload = storage.create(&dump.path(&artifact), None).await.unwrap();
    let recipe = Recipe { compression: dump.compression, sealer: Some(sealer) };
    let (bytes, uploads) = (Cursor::new(fs::read(&file).unwrap()), vec![("local".to_owned(), upload)]);
    let pending = store(bytes, &recipe, None, uploads, &Meter::default(), &Stop::never()).await.unwrap();
    (artifact.raw, artifact.stored) = (pending.raw.clone(), pending.stored.clone());
    artifact.hmac.clone_from(&pending.hmac);
    assert!(pending.publish().await.iter().all(|(_, published)| published.is_ok()));
    let stored = site.join("dumps").join(dump.path(&artifact));
    dump.artifacts = vec![artifact];
    let backup = Backup { engine: EngineKind::Sqlite, ..backup(0, dump) };
    context.catalog.record_dump(&backup).await.unwrap();
    stored
}

#[test]
fn a_dump_goes_from_its_storage_to_a_proof_and_a_damaged_copy_is_remembered() {
    let name = "::a_dump_goes_from_its_storage_to_a_proof_and_a_damaged_copy_is_remembered";
    as_postgres(&format!("{}{name}", module_path!()), async {
        let directory = tempfile::tempdir().unwrap();
        let context = site(directory.path()).await;
        let stored = stored(&context, directory.path()).await;
        let shop = &context.database().name;
        let done = run(&context).await;
        let proof = context.catalog.latest_proof(shop).await.unwrap();
        assert!(done.is_ok() && proof.as_ref().is_some_and(|proof| proof.passed), "{done:?} {proof:#?}");
        assert!(context.catalog.backups(shop).await.unwrap()[0].proven_at.is_some());
        assert_eq!(fs::read_dir(directory.path().join("scratch")).unwrap().count(), 0);

        let mut bytes = fs::read(&stored).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&stored, bytes).unwrap();
        assert_eq!(run(&context).await.unwrap_err().class, ErrorClass::Integrity);
        let known = context.catalog.backups(shop).await.unwrap();
        assert_eq!(known[0].dump.as_ref().unwrap().copies[0].state, CopyState::Damaged);
        let failure = run(&context).await.unwrap_err();
        assert_eq!(failure.message, "no storage of the policy holds a good dump of `shop` to restore");
    });
}
