//! The sections and tables of dumps as typed: where they lie, by which keys they are encrypted, how they are made.
//!
//! A newcomer would make `[storage.NAME]` an enum of its types; serde would then stop at the first wrong key, and say
//! nothing of where it stands.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::value::Length;
use crate::policy::{ObjectLock, OnShrink, SecretRef};

/// `[storage.NAME]`: a directory, or a bucket of an S3-compatible service. Dumps lie in it as `DATABASE/BACKUP-ID/…`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(in crate::policy) struct Storage {
    /// What it is: `filesystem` or `s3`. Default: none, it must be written.
    #[serde(rename = "type")]
    pub(in crate::policy) kind: Option<StorageKind>,
    /// The directory of a `filesystem`; it must exist. Default: none, it must be written.
    pub(in crate::policy) path: Option<PathBuf>,
    /// The bucket of an `s3`; it must exist. Default: none, it must be written.
    pub(in crate::policy) bucket: Option<String>,
    /// What all keys in the bucket begin with, e.g. `backups/eu`. Default: nothing.
    pub(in crate::policy) prefix: Option<String>,
    /// The region of the bucket. Default: `us-east-1`, which most services other than AWS take for any.
    pub(in crate::policy) region: Option<String>,
    /// The URL of the service, e.g. `https://s3.eu-central-1.wasabisys.com`. Default: AWS.
    pub(in crate::policy) endpoint: Option<String>,
    /// A PEM file with the authorities to trust in place of the system's. Default: the system's.
    pub(in crate::policy) ca_file: Option<PathBuf>,
    /// Whether the bucket stands in the path of the URL and not in its host name. Default: true where `endpoint` is
    /// written, else false.
    pub(in crate::policy) path_style: Option<bool>,
    /// The storage class of new objects, e.g. `STANDARD_IA`. Default: the bucket's own.
    pub(in crate::policy) storage_class: Option<String>,
    /// How the service encrypts what it stores, beside our own encryption. Default: the bucket's own.
    pub(in crate::policy) server_side_encryption: Option<ServerSide>,
    /// The key of `aws:kms`, its id or ARN. Default: the account's own.
    pub(in crate::policy) kms_key: Option<String>,
    /// How strictly objects are locked until the retention rules may end their backup; the bucket must have object
    /// lock. Default: not locked.
    pub(in crate::policy) object_lock: Option<ObjectLock>,
    /// Where the access key is: `file:/path`, `env:NAME` or `credential:NAME`. Default: `env:AWS_ACCESS_KEY_ID`.
    pub(in crate::policy) access_key: Option<SecretRef>,
    /// Where the secret key that belongs to it is. Default: `env:AWS_SECRET_ACCESS_KEY`.
    pub(in crate::policy) secret_key: Option<SecretRef>,
    /// Where the session token that belongs to them is. Default: none, or `env:AWS_SESSION_TOKEN` where the keys are
    /// those of the environment.
    pub(in crate::policy) session_token: Option<SecretRef>,
    /// Attempts for each request, the first included. Default: 5.
    pub(in crate::policy) attempts: Option<u32>,
    /// How long a request may be silent before it counts as failed. Default: `1m`.
    pub(in crate::policy) timeout: Option<Length>,
}

/// What a storage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::policy) enum StorageKind {
    /// A directory.
    Filesystem,
    /// A bucket of an S3-compatible service.
    S3,
}

/// How an S3-compatible service encrypts what it stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub(in crate::policy) enum ServerSide {
    /// By a key of the service.
    #[serde(rename = "AES256")]
    Aes256,
    /// By a key of its key management.
    #[serde(rename = "aws:kms")]
    Kms,
}

/// `[encryption.NAME]`: a key that encrypts dumps. An old one stays, so that old backups can be read.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(in crate::policy) struct Key {
    /// What it is: `age` (public keys; the host that backs up cannot read) or `aes256` (a passphrase). Default: none,
    /// it must be written.
    #[serde(rename = "type")]
    pub(in crate::policy) kind: Option<KeyType>,
    /// The public keys of `age`, as `backstop keygen` or `age-keygen` prints them; each can read alone. Default: none,
    /// one must be written.
    pub(in crate::policy) recipients: Option<Vec<String>>,
    /// The file with a secret key of `age`, where this host may read what it backs up. Default: none.
    pub(in crate::policy) identity: Option<PathBuf>,
    /// Where the passphrase of `aes256` is: `file:/path`, `env:NAME` or `credential:NAME`. Default: none, it must be
    /// written.
    pub(in crate::policy) passphrase: Option<SecretRef>,
}

/// What a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::policy) enum KeyType {
    /// Recipients of `age`.
    Age,
    /// A passphrase for AES-256.
    Aes256,
}

/// `[database.NAME.dump]`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(in crate::policy) struct Dump {
    /// The form of a `pg_dump`; `directory` is made by several processes and staged in `scratch_dir`. Default: `custom`.
    pub(in crate::policy) format: Option<Format>,
    /// Parallel processes of the `directory` format. Default: 2.
    pub(in crate::policy) jobs: Option<u32>,
    /// How long a lock on a table is waited for. Default: `5m`.
    pub(in crate::policy) lock_timeout: Option<Length>,
    /// The directory with the tools. Default: found by the server's version.
    pub(in crate::policy) tool_dir: Option<PathBuf>,
    /// Whether the roles and tablespaces of the PostgreSQL cluster are dumped too. Default: true.
    pub(in crate::policy) globals: Option<bool>,
    /// A dump smaller than this share of the usual size is suspicious, 0 to 1; 0 looks at none. Default: 0.5.
    pub(in crate::policy) shrink_below: Option<f64>,
    /// What happens to a suspicious dump: it is kept with a warning, or removed and its run fails. Default: `warn`.
    pub(in crate::policy) on_shrink: Option<OnShrink>,
}

/// The form of a dump, where there is a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::policy) enum Format {
    /// SQL text.
    Plain,
    /// One file that `pg_restore` reads.
    Custom,
    /// Many files that `pg_restore` reads.
    Directory,
}

/// `[database.NAME.mysql]`; the password is that of the database.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(in crate::policy) struct MySql {
    /// The host. Default: the socket is used.
    pub(in crate::policy) host: Option<String>,
    /// The port of the host. Default: the client's own, 3306.
    pub(in crate::policy) port: Option<u16>,
    /// The socket. Default: the client's own.
    pub(in crate::policy) socket: Option<PathBuf>,
    /// The user. Default: that of the operating system.
    pub(in crate::policy) user: Option<String>,
    /// The databases to dump. Default: the one of the database's own name.
    pub(in crate::policy) databases: Option<Vec<String>>,
    /// An option file that is read too, for TLS and the like. Default: none.
    pub(in crate::policy) defaults_file: Option<PathBuf>,
}

/// `[database.NAME.sqlite]`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(in crate::policy) struct Sqlite {
    /// The database file. Default: none, it must be written.
    pub(in crate::policy) path: Option<PathBuf>,
    /// How long a lock of another process is waited for. Default: `30s`.
    pub(in crate::policy) busy_timeout: Option<Length>,
}
