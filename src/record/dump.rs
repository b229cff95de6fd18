//! What a dump is beyond a backup: its files, how they were made, where each copy lies and in which state.
//!
//! A newcomer would keep one checksum. There are two of each file: of what the tool wrote, by which a restore is
//! checked, and of what lies in the storage, by which a copy is checked without any key.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::words;

words! {
    /// The form of a dump.
    DumpFormat {
        /// SQL text.
        Plain = "plain",
        /// One file that `pg_restore` reads.
        Custom = "custom",
        /// Many files that `pg_restore` reads, made by several processes at once.
        Directory = "directory",
        /// A copy of the database file.
        File = "file",
    }
}

words! {
    /// What a file of a dump is for.
    Role {
        /// The database.
        Data = "data",
        /// Roles and tablespaces of the cluster.
        Globals = "globals",
        /// One file of a dump in the directory format.
        Part = "part",
        /// The manifest.
        Manifest = "manifest",
    }
}

words! {
    /// What was last known of a copy.
    CopyState {
        /// It was read back and is what was written.
        Good = "good",
        /// It was read and is something else.
        Damaged = "damaged",
        /// It is not there.
        Missing = "missing",
        /// It never became whole; nothing of it is left.
        Failed = "failed",
        /// Its storage could not be asked.
        Unknown = "unknown",
        /// It was deleted by us.
        Deleted = "deleted",
    }
}

words! {
    /// A method of compression.
    CompressionMethod {
        /// None.
        None = "none",
        /// What `gzip` reads.
        Gzip = "gzip",
        /// What `zstd` reads.
        Zstd = "zstd",
    }
}

/// A method of compression and its level, written `zstd:3`, `gzip:6` or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Compression {
    /// The method.
    pub method: CompressionMethod,
    /// Its level: gzip 1 to 9, zstd 1 to 19; 0 without compression.
    pub level: u8,
}

impl Default for Compression {
    fn default() -> Self {
        Self { method: CompressionMethod::Zstd, level: 3 }
    }
}

impl Compression {
    /// No compression.
    pub const NONE: Self = Self { method: CompressionMethod::None, level: 0 };

    /// What is appended to a file's name: `.gz`, `.zst` or nothing.
    pub const fn suffix(self) -> &'static str {
        match self.method {
            CompressionMethod::None => "",
            CompressionMethod::Gzip => ".gz",
            CompressionMethod::Zstd => ".zst",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.method {
            CompressionMethod::None => f.pad("none"),
            method => f.pad(&format!("{method}:{}", self.level)),
        }
    }
}

/// A text that is no compression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no compression: write `none`, `gzip`, `gzip:1` to `gzip:9`, `zstd`, or `zstd:1` to `zstd:19`")]
pub struct BadCompression(pub String);

impl FromStr for Compression {
    type Err = BadCompression;

    fn from_str(text: &str) -> Result<Self, BadCompression> {
        let bad = || BadCompression(text.to_owned());
        let (word, level) = match text.split_once(':') {
            Some((word, level)) => (word, Some(level.parse::<u8>().map_err(|_| bad())?)),
            None => (text, None),
        };
        let (method, usual, most) = match word {
            "none" if level.is_none() => return Ok(Self::NONE),
            "gzip" => (CompressionMethod::Gzip, 6, 9),
            "zstd" => (CompressionMethod::Zstd, 3, 19),
            _ => return Err(bad()),
        };
        let level = level.unwrap_or(usual);
        if (1..=most).contains(&level) { Ok(Self { method, level }) } else { Err(bad()) }
    }
}

impl Serialize for Compression {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Compression {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

words! {
    /// A method of encryption.
    EncryptionMethod {
        /// To recipients whose secret keys are elsewhere; what `age -d` reads.
        Age = "age",
        /// With a passphrase; what `openssl enc -d -aes-256-ctr -pbkdf2` reads.
        Aes256 = "aes-256-ctr",
    }
}

impl EncryptionMethod {
    /// What is appended to a file's name: `.age` or `.enc`.
    pub const fn suffix(self) -> &'static str {
        match self {
            EncryptionMethod::Age => ".age",
            EncryptionMethod::Aes256 => ".enc",
        }
    }
}

/// By which key and method a dump is encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encryption {
    /// The key's name in the policy.
    pub key: String,
    /// The method.
    pub method: EncryptionMethod,
}

/// Length and checksum of some bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// Bytes.
    pub size: u64,
    /// SHA-256, hexadecimal.
    pub sha256: String,
}

/// A file of a dump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// What it is for.
    pub role: Role,
    /// Its name within the backup's directory, with all suffixes, e.g. `shop.dump.zst.age`, `parts/toc.dat.zst`.
    pub name: String,
    /// What the tool wrote.
    pub raw: Digest,
    /// What lies in the storage.
    pub stored: Digest,
    /// HMAC-SHA-256 over salt and ciphertext, hexadecimal; for `aes-256-ctr` only, `age` brings its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hmac: Option<String>,
}

/// A copy of a dump in one storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupCopy {
    /// The storage's name in the policy.
    pub storage: String,
    /// What was last known of it: the worst of its files.
    pub state: CopyState,
    /// Why it is not good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// When that was found out.
    pub checked_at: DateTime<Utc>,
    /// Until when the storage refuses to delete it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked_until: Option<DateTime<Utc>>,
}

/// Which schema migrations a database had when it was dumped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migrations {
    /// The tool that made them, e.g. `prisma`.
    pub framework: String,
    /// How many are applied.
    pub applied_count: u32,
    /// The last one.
    pub last_migration: Option<String>,
    /// All of them, the oldest first.
    pub migrations_list: Vec<String>,
}

/// What a backup by a dump engine has beyond [`super::Backup`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dump {
    /// Its form.
    pub format: DumpFormat,
    /// How its files are compressed.
    pub compression: Compression,
    /// How they are encrypted; none: not.
    pub encryption: Option<Encryption>,
    /// Its directory within each storage: `DATABASE/BACKUP-ID`.
    pub directory: String,
    /// Its files without the manifest, in the order in which they were made.
    pub artifacts: Vec<Artifact>,
    /// Its copies.
    pub copies: Vec<BackupCopy>,
    /// The server in words, e.g. `PostgreSQL 15.20`.
    pub server: String,
    /// What the source was, as the by-hand commands need it: a database's name, or a file's path.
    pub source: String,
    /// Schema migrations, where a tool was recognised.
    pub migrations: Option<Migrations>,
    /// For how many days it is kept; none: by the rules.
    pub retention_days: Option<u32>,
    /// When it may go.
    pub expires_at: Option<DateTime<Utc>>,
    /// What people should know about it, e.g. tables that are not transactional.
    pub warnings: Vec<String>,
    /// When every byte of a copy was last read and right.
    pub verified_at: Option<DateTime<Utc>>,
}

impl Dump {
    /// Bytes that the tool wrote.
    pub fn raw_size(&self) -> u64 {
        self.artifacts.iter().map(|artifact| artifact.raw.size).sum()
    }

    /// Bytes that one copy takes.
    pub fn stored_size(&self) -> u64 {
        self.artifacts.iter().map(|artifact| artifact.stored.size).sum()
    }

    /// The path of a file within a storage.
    pub fn path(&self, artifact: &Artifact) -> String {
        format!("{}/{}", self.directory, artifact.name)
    }

    /// The path of the manifest within a storage.
    pub fn manifest_path(&self) -> String {
        format!("{}/{MANIFEST}", self.directory)
    }
}

/// The name of the manifest in a backup's directory.
pub const MANIFEST: &str = "manifest.json";

/// The name of the file in a backup's directory that says that it is held, and why.
pub const HOLD: &str = "hold.json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compression_prints_and_reads_back_equal() {
        for (text, printed) in
            [("none", "none"), ("gzip", "gzip:6"), ("gzip:9", "gzip:9"), ("zstd", "zstd:3"), ("zstd:19", "zstd:19")]
        {
            let compression: Compression = text.parse().unwrap();
            assert_eq!(compression.to_string(), printed);
            assert_eq!(printed.parse(), Ok(compression));
        }
        for text in ["", "gzip:0", "gzip:10", "zstd:20", "none:1", "xz", "zstd:fast"] {
            assert!(text.parse::<Compression>().is_err(), "{text}");
        }
    }
}
