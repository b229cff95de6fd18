//! What differs between two policies in the sections that databases name: storages and keys.
//!
//! A newcomer would tell the values too; some name secrets, and all can be read in the file.

use std::collections::{BTreeMap, BTreeSet};

use super::{Change, different};
use crate::policy::{Key, KeyKind, Place, S3, Storage};

/// Compares the sections of one kind by their names; `keys` tells which keys differ.
pub(super) fn section_changes<T: PartialEq>(
    section: &'static str,
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
    keys: impl Fn(&T, &T) -> Vec<&'static str>,
) -> Vec<Change> {
    let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let change = |name: &String| match (old.get(name), new.get(name)) {
        (None, _) => Some(Change::SectionAdded { section, name: name.clone() }),
        (_, None) => Some(Change::SectionRemoved { section, name: name.clone() }),
        (Some(old), Some(new)) if old == new => None,
        (Some(old), Some(new)) => Some(Change::SectionChanged { section, name: name.clone(), keys: keys(old, new) }),
    };
    names.into_iter().filter_map(change).collect()
}

/// The keys of a storage that differ.
pub(super) fn storage_keys(old: &Storage, new: &Storage) -> Vec<&'static str> {
    match (&old.place, &new.place) {
        (Place::S3(old), Place::S3(new)) => s3_keys(old, new),
        (Place::Filesystem { .. }, Place::Filesystem { .. }) => vec!["path"],
        _ => vec!["type"],
    }
}

/// The keys of a bucket that differ. Taken apart whole, so that a new field is not forgotten here.
fn s3_keys(old: &S3, new: &S3) -> Vec<&'static str> {
    let S3 {
        bucket,
        prefix,
        region,
        endpoint,
        ca_file,
        path_style,
        storage_class,
        server_side_encryption,
        kms_key,
        object_lock,
        access_key,
        secret_key,
        session_token,
        attempts,
        timeout,
    } = old;
    different([
        ("bucket", *bucket != new.bucket),
        ("prefix", *prefix != new.prefix),
        ("region", *region != new.region),
        ("endpoint", *endpoint != new.endpoint),
        ("ca_file", *ca_file != new.ca_file),
        ("path_style", *path_style != new.path_style),
        ("storage_class", *storage_class != new.storage_class),
        ("server_side_encryption", *server_side_encryption != new.server_side_encryption),
        ("kms_key", *kms_key != new.kms_key),
        ("object_lock", *object_lock != new.object_lock),
        ("access_key", *access_key != new.access_key),
        ("secret_key", *secret_key != new.secret_key),
        ("session_token", *session_token != new.session_token),
        ("attempts", *attempts != new.attempts),
        ("timeout", *timeout != new.timeout),
    ])
}

/// The keys of a key that differ.
pub(super) fn key_keys(old: &Key, new: &Key) -> Vec<&'static str> {
    match (&old.kind, &new.kind) {
        (
            KeyKind::Age { recipients, identity },
            KeyKind::Age { recipients: new_recipients, identity: new_identity },
        ) => different([("recipients", recipients != new_recipients), ("identity", identity != new_identity)]),
        (KeyKind::Aes256 { .. }, KeyKind::Aes256 { .. }) => vec!["passphrase"],
        _ => vec!["type"],
    }
}
