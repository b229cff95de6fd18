//! The manifest: everything about a dump, beside the dump, written last.
//!
//! A directory without one is no backup. From the manifests alone the catalog can be made again, and a person can
//! restore with standard tools. A newcomer would trust it because it parses; its HMAC, where the key has one, is checked.
//!
//! The HMAC is over the bytes of the document as they are, so that no byte can change and a release that writes more
//! fields still checks what an older one wrote. It stands in the last line before the closing brace:
//!
//! ```text
//!   "last": "field",            what is signed:   "last": "field"
//!   "hmac": "0123…"                             }
//! }
//! ```
//!
//! Whoever formats a manifest anew makes it unsigned. `stream/encrypt/aes256.rs` says what the key is.

use serde::{Deserialize, Serialize};

use crate::{
    record::Backup,
    stream::{Opener, Sealer},
};

/// The version of the form.
pub const VERSION: u32 = 1;

/// A manifest as it lies beside a dump.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of the form.
    pub version: u32,
    /// Everything about the backup.
    pub backup: Backup,
    /// How to restore it by hand, command by command.
    pub restore_by_hand: Vec<String>,
    /// HMAC-SHA-256 over the document without this line and the comma before it, hexadecimal; none where the key has no
    /// common secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hmac: Option<String>,
}

/// Why a manifest is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no manifest.
    #[error("it is no manifest: {0}")]
    Unreadable(String),
    /// A newer release wrote it.
    #[error("it has version {0}, this release knows up to {VERSION}")]
    TooNew(u32),
    /// It was changed.
    #[error("its HMAC is wrong: it was changed, or the key is another")]
    Altered,
}

impl Manifest {
    /// The manifest of a backup.
    pub fn new(backup: Backup, restore_by_hand: Vec<String>) -> Self {
        Self { version: VERSION, backup, restore_by_hand, hmac: None }
    }

    /// The document, signed where the key can.
    ///
    /// # Panics
    /// Never: everything in it is plain data.
    pub fn write(&self, sealer: Option<&Sealer>) -> Vec<u8> {
        let unsigned = Self { hmac: None, ..self.clone() };
        let mut document = serde_json::to_vec_pretty(&unsigned).expect("plain data can be written");
        document.push(b'\n');
        match sealer.and_then(|sealer| sealer.sign(&document)) {
            Some(hmac) => sign(&document, &hmac),
            None => document,
        }
    }

    /// Reads a document; with an opener its HMAC must be right.
    ///
    /// # Errors
    /// When it is none, is newer than we are, or was changed.
    pub fn read(bytes: &[u8], opener: Option<&Opener>) -> Result<Self, Error> {
        let unreadable = |error: serde_json::Error| Error::Unreadable(error.to_string());
        let Version { version } = serde_json::from_slice(bytes).map_err(unreadable)?;
        if version > VERSION {
            return Err(Error::TooNew(version));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(unreadable)?;
        let Some(opener) = opener else { return Ok(manifest) };
        let unsigned = manifest.hmac.as_deref().map_or_else(|| Some(bytes.to_vec()), |hmac| unsign(bytes, hmac));
        match unsigned {
            Some(unsigned) if opener.agrees(&unsigned, manifest.hmac.as_deref()) => Ok(manifest),
            _ => Err(Error::Altered),
        }
    }
}

/// What every version has.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// How a document ends, without and with its HMAC.
const END: &str = "\n}\n";

fn signature(hmac: &str) -> String {
    format!(",\n  \"hmac\": \"{hmac}\"{END}")
}

fn sign(unsigned: &[u8], hmac: &str) -> Vec<u8> {
    let body = unsigned.strip_suffix(END.as_bytes()).expect("a pretty object ends with its brace");
    [body, signature(hmac).as_bytes()].concat()
}

fn unsign(signed: &[u8], hmac: &str) -> Option<Vec<u8>> {
    let body = signed.strip_suffix(signature(hmac).as_bytes())?;
    Some([body, END.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        policy::{Key, KeyKind, SecretRef},
        record::{
            Artifact, BackupCopy, BackupStatus, BackupType, Compression, CopyState, Digest, Dump, DumpFormat,
            Encryption, EncryptionMethod, EngineKind, Migrations, Role,
        },
        stream::encrypt::generate,
    };

    fn manifest(reason: &str) -> Manifest {
        let at = DateTime::from_timestamp_millis(1_792_000_000_123).unwrap();
        let digest = |size| Digest { size, sha256: "ab".repeat(32) };
        let artifact = Artifact {
            role: Role::Data,
            name: "shop.dump.zst.enc".to_owned(),
            raw: digest(u64::MAX),
            stored: digest(7),
            hmac: Some("cd".repeat(32)),
        };
        let copy = BackupCopy {
            storage: "local".to_owned(),
            state: CopyState::Good,
            detail: None,
            checked_at: at,
            locked_until: None,
        };
        let migrations = Migrations {
            framework: "prisma".to_owned(),
            applied_count: 1,
            last_migration: Some("1_\u{e4}".to_owned()),
            migrations_list: vec!["1_\u{e4}".to_owned()],
        };
        let dump = Dump {
            format: DumpFormat::Custom,
            compression: Compression::default(),
            encryption: Some(Encryption { key: "vault".to_owned(), method: EncryptionMethod::Aes256 }),
            directory: "shop/backup-20261121-120000".to_owned(),
            artifacts: vec![artifact],
            copies: vec![copy],
            server: "PostgreSQL 15.20".to_owned(),
            source: "shop".to_owned(),
            migrations: Some(migrations),
            retention_days: None,
            expires_at: None,
            warnings: vec![],
            verified_at: None,
        };
        let backup = Backup {
            id: "backup-20261121-120000".to_owned(),
            database: "shop".parse().unwrap(),
            environment: "production".to_owned(),
            engine: EngineKind::PgDump,
            backup_type: BackupType::Full,
            requested_type: BackupType::Full,
            label: "backup-20261121-120000".to_owned(),
            repo: 0,
            system_id: "7".to_owned(),
            server_version: "15".to_owned(),
            tool_version: "15.20".to_owned(),
            name: None,
            reason: Some(reason.to_owned()),
            tags: vec![],
            run_uuid: None,
            started_at: at,
            stopped_at: at,
            size: u64::MAX,
            delta: 7,
            repo_delta: Some(7),
            repo_size: Some(7),
            prior: None,
            references: vec![],
            wal_start: None,
            wal_stop: None,
            lsn_stop: None,
            page_errors: None,
            status: BackupStatus::Good,
            expired_reason: None,
            expired_at: None,
            held: None,
            held_until: None,
            proven_at: None,
            created_by: "anna".to_owned(),
            dump: Some(dump),
        };
        Manifest::new(backup, vec!["zstd -dc shop.dump.zst | pg_restore -d shop".to_owned()])
    }

    fn key(directory: &tempfile::TempDir, method: EncryptionMethod) -> (Sealer, Opener) {
        use std::os::unix::fs::PermissionsExt;
        let (new, path) = (generate(method), directory.path().join(method.suffix()));
        std::fs::write(&path, new.secret.expose()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let kind = match new.recipient {
            Some(recipient) => KeyKind::Age { recipients: vec![recipient], identity: Some(path) },
            None => KeyKind::Aes256 { passphrase: SecretRef::File(path) },
        };
        let key = Key { name: "vault".to_owned(), kind };
        (Sealer::of(&key).unwrap(), Opener::of(&key, None).unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn what_was_written_reads_back_equal(reason in ".*") {
            let directory = tempfile::tempdir().unwrap();
            let manifest = manifest(&reason);
            let (sealer, opener) = key(&directory, EncryptionMethod::Age);
            for (sealer, opener) in [(None, None), (Some(&sealer), Some(&opener))] {
                prop_assert_eq!(&Manifest::read(&manifest.write(sealer), opener).unwrap(), &manifest);
            }
        }
    }

    #[test]
    fn a_signed_one_reads_back_equal_and_may_be_signed_again() {
        let directory = tempfile::tempdir().unwrap();
        let (sealer, opener) = key(&directory, EncryptionMethod::Aes256);
        let manifest = manifest("\"hmac\": \"\"\n}\n");
        let document = manifest.write(Some(&sealer));
        let read = Manifest::read(&document, Some(&opener)).unwrap();
        assert_eq!(Manifest { hmac: None, ..read.clone() }, manifest);
        assert!(read.hmac.is_some());
        assert_eq!(read.write(Some(&sealer)), document);
        assert!(Manifest::read(&document, None).is_ok());
    }

    #[test]
    fn a_changed_byte_anywhere_in_a_signed_one_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let (sealer, opener) = key(&directory, EncryptionMethod::Aes256);
        let document = manifest("why").write(Some(&sealer));
        // Most places cannot be parsed any more; the interesting ones can: digits, letters in texts, white space.
        for place in 0..document.len() {
            let mut changed = document.clone();
            changed[place] = match document[place] {
                b'\n' => b' ',
                b' ' => b'\t',
                byte if byte.is_ascii_digit() => b'0' + (byte - b'0' + 1) % 10,
                byte => byte ^ 32,
            };
            let parsed = Manifest::read(&changed, None);
            // The HMAC is dear to compute without optimisation, so of those in words only some are tried.
            if parsed.is_ok() && (place % 16 == 0 || document.len() - place < 80 && place % 4 == 0) {
                let read = Manifest::read(&changed, Some(&opener));
                assert!(matches!(read, Err(Error::Altered)), "byte {place}: {read:?}");
            }
        }
    }

    #[test]
    fn an_hmac_that_was_taken_away_or_is_another_keys_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let (sealer, opener) = key(&directory, EncryptionMethod::Aes256);
        assert!(matches!(Manifest::read(&manifest("why").write(None), Some(&opener)), Err(Error::Altered)));
        let other = tempfile::tempdir().unwrap();
        let (_, other) = key(&other, EncryptionMethod::Aes256);
        assert!(matches!(Manifest::read(&manifest("why").write(Some(&sealer)), Some(&other)), Err(Error::Altered)));
    }

    #[test]
    fn a_newer_one_is_told_as_such_whatever_else_is_in_it() {
        let error = Manifest::read(br#"{ "version": 2, "backups": [] }"#, None).unwrap_err();
        assert_eq!(error.to_string(), "it has version 2, this release knows up to 1");
        for text in ["", "{}", "[]", "{ \"version\": 1 }", "no json", "{ \"version\": -1 }"] {
            assert!(matches!(Manifest::read(text.as_bytes(), None), Err(Error::Unreadable(_))), "{text}");
        }
    }
}
