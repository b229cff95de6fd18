//! Where dumps lie, and with which keys they are encrypted.
//!
//! A newcomer would look a storage up when it is needed; every name that a database writes was found at the check.

use std::{path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SecretRef;
use crate::record::{Compression, DumpFormat, EncryptionMethod};

/// `[storage.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub place: Place,
}

/// Where a storage is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A directory.
    Filesystem {
        /// Absolute; must exist.
        path: PathBuf,
    },
    /// A bucket of an S3-compatible service.
    S3(Box<S3>),
}

/// A bucket of an S3-compatible service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3 {
    /// The bucket; must exist.
    pub bucket: String,
    /// What all keys begin with, without slashes at its ends; may be empty.
    pub prefix: String,
    /// The region; `us-east-1` when none.
    pub region: String,
    /// The service's URL; none is AWS.
    pub endpoint: Option<String>,
    /// A PEM file with the authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether the bucket stands in the path instead of the host name.
    pub path_style: bool,
    /// E.g. `STANDARD_IA`; none: the bucket's own.
    pub storage_class: Option<String>,
    /// `AES256` or `aws:kms`; none: the bucket's own.
    pub server_side_encryption: Option<String>,
    /// The key of `aws:kms`.
    pub kms_key: Option<String>,
    /// Whether objects are locked until their backup may go.
    pub object_lock: Option<ObjectLock>,
    /// The access key.
    pub access_key: Option<SecretRef>,
    /// The secret key.
    pub secret_key: Option<SecretRef>,
    /// A session token that belongs to them.
    pub session_token: Option<SecretRef>,
    /// Attempts for each request, the first included.
    pub attempts: u32,
    /// How long a request may be silent.
    pub timeout: Duration,
}

/// How strictly an object is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ObjectLock {
    /// Who has the right to, can delete it before.
    Governance,
    /// Nobody can delete it before.
    Compliance,
}

/// `[encryption.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: KeyKind,
}

/// A key of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyKind {
    /// Recipients of `age`.
    Age {
        /// Public keys, `age1…`; each can read alone.
        recipients: Vec<String>,
        /// The file with the secret key, where this host may read what it backs up.
        identity: Option<PathBuf>,
    },
    /// A passphrase for AES-256.
    Aes256 {
        /// Where the passphrase is.
        passphrase: SecretRef,
    },
}

impl Key {
    /// The method of encryption.
    pub fn method(&self) -> EncryptionMethod {
        match self.kind {
            KeyKind::Age { .. } => EncryptionMethod::Age,
            KeyKind::Aes256 { .. } => EncryptionMethod::Aes256,
        }
    }
}

/// What the dump engines need to know of a database.
#[derive(Debug, Clone, PartialEq)]
pub struct Dump {
    /// The storages of the copies, at least one for a dump engine.
    pub storages: Vec<String>,
    /// The key that encrypts; none: not encrypted.
    pub encryption: Option<String>,
    /// How it is compressed.
    pub compression: Compression,
    /// The form of the dump; `plain` for mysqldump, `file` for sqlite.
    pub format: DumpFormat,
    /// Parallel processes of the directory format.
    pub jobs: u32,
    /// How long a lock on a table is waited for.
    pub lock_timeout: Duration,
    /// Where the tools are; found by the server's version when none.
    pub tool_dir: Option<PathBuf>,
    /// Whether roles and tablespaces are dumped too.
    pub globals: bool,
    /// A dump smaller than this share of the usual size is suspicious, 0 to 1.
    pub shrink_below: f64,
    /// What happens to a suspicious one.
    pub on_shrink: OnShrink,
    /// How a MySQL or MariaDB server is reached.
    pub mysql: MySql,
    /// Which SQLite file.
    pub sqlite: Sqlite,
}

/// What happens to a backup that is suspiciously small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnShrink {
    /// It is kept, with a warning.
    Warn,
    /// It is removed and its run fails.
    Fail,
}

/// `[database.NAME.mysql]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MySql {
    /// The host; the socket is used when none.
    pub host: Option<String>,
    /// The port.
    pub port: Option<u16>,
    /// The socket.
    pub socket: Option<PathBuf>,
    /// The user; that of the operating system when none.
    pub user: Option<String>,
    /// The databases to dump; the database's own name when empty.
    pub databases: Vec<String>,
    /// An option file of the user's own that is read too (TLS and the like).
    pub defaults_file: Option<PathBuf>,
}

/// `[database.NAME.sqlite]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sqlite {
    /// The database file, absolute.
    pub path: PathBuf,
    /// How long a lock of another process is waited for.
    pub busy_timeout: Duration,
}

impl Default for Dump {
    fn default() -> Self {
        Self {
            storages: Vec::new(),
            encryption: None,
            compression: Compression::default(),
            format: DumpFormat::Custom,
            jobs: 2,
            lock_timeout: Duration::from_secs(300),
            tool_dir: None,
            globals: true,
            shrink_below: 0.5,
            on_shrink: OnShrink::Warn,
            mysql: MySql::default(),
            sqlite: Sqlite::default(),
        }
    }
}
