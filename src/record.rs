//! The nouns: plain data that every part of the program passes around.
//!
//! Nothing here decides, does or remembers. A newcomer would add a method that reads the clock or the catalog; such a
//! method belongs to the module that decides or remembers.

mod backup;
mod dump;
mod job;
mod name;
mod proof;
mod run;
mod wal;

pub use self::{
    backup::{Backup, BackupStatus, BackupType, EngineKind, FOREIGN, SAFETY},
    dump::{
        Artifact, BackupCopy, BadCompression, Compression, CompressionMethod, CopyState, Digest, Dump, DumpFormat,
        Encryption, EncryptionMethod, HOLD, MANIFEST, Migrations, Role,
    },
    job::{JobKey, JobKind, Slot, SlotState},
    name::{BadName, DatabaseName},
    proof::{Proof, ProofStep, StepOutcome},
    run::{Attempt, AttemptEnd, ErrorClass, Failure, NewRun, OpenRun, ProcessIdentity, Run, RunEnd, RunState},
    wal::{WalSample, Window},
};

/// A repository of a stanza, by pgBackRest's own number (`repo1` is 1).
pub type RepoKey = u32;

/// A row number in `slots`.
pub type SlotId = i64;
/// A row number in `runs`; the number people see.
pub type RunId = i64;
/// A row number in `attempts`.
pub type AttemptId = i64;

/// Defines an enum whose variants have one stable word each: in the policy, the catalog, the log and JSON.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[$vmeta])* #[serde(rename = $word)] $variant,)+ }

        impl $name {
            /// Every variant, in the order of declaration.
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];

            /// The stable word for this variant.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::record::UnknownWord;

            fn from_str(word: &str) -> Result<Self, $crate::record::UnknownWord> {
                match word {
                    $($word => Ok($name::$variant),)+
                    _ => Err($crate::record::UnknownWord {
                        word: word.to_owned(),
                        known: $name::ALL.iter().map(|v| v.as_str()).collect::<Vec<_>>().join(", "),
                    }),
                }
            }
        }
    };
}

pub(crate) use words;

/// A word that names no variant, with the words that do.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("`{word}` is not one of: {known}")]
pub struct UnknownWord {
    /// What was said.
    pub word: String,
    /// What could have been said, comma-separated.
    pub known: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_keys_read_as_paths() {
        let key = |database: Option<&str>, kind, repo, name: Option<&str>| {
            JobKey { database: database.map(|d| d.parse().unwrap()), kind, repo, name: name.map(str::to_owned) }
                .to_string()
        };
        assert_eq!(key(Some("orders"), JobKind::Full, None, None), "orders/full");
        assert_eq!(key(Some("orders"), JobKind::Incr, Some(2), Some("night")), "orders/incr@2:night");
        assert_eq!(key(None, JobKind::CatalogBackup, None, None), "catalog_backup");
    }

    #[test]
    fn a_name_that_could_leave_its_directory_is_refused() {
        for name in ["", "../etc", "a/b", "Ü", "-x", ".hidden", "a b"] {
            assert!(name.parse::<DatabaseName>().is_err(), "{name:?}");
        }
        assert!("orders_2-eu".parse::<DatabaseName>().is_ok());
    }

    #[test]
    fn every_word_reads_back_as_itself() {
        for kind in JobKind::ALL {
            assert_eq!(kind.as_str().parse::<JobKind>().as_ref(), Ok(kind));
        }
        assert!("weekly".parse::<JobKind>().unwrap_err().to_string().contains("full, diff, incr"));
    }
}
