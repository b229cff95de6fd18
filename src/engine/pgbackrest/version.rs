//! pgBackRest's version, from `pgbackrest version`.
//!
//! A newcomer would ask with `--output=num`; 2.45 does not know it.

use std::fmt;

/// A version, e.g. 2.59.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u32,
    minor: u32,
    patch: u32,
}

impl Version {
    /// The oldest that is fit: annotations, `verify` with text, `expire` per repository.
    pub const OLDEST: Version = Version { major: 2, minor: 45, patch: 0 };

    /// Reads `pgBackRest 2.59.1`; development versions end in `dev`.
    pub fn read(text: &str) -> Option<Self> {
        let number = text.lines().find_map(|line| line.trim().strip_prefix("pgBackRest "))?;
        let mut parts = number.trim_end_matches("dev").split('.').map(|part| part.parse().ok());
        let (major, minor) = (parts.next()??, parts.next()??);
        Some(Self { major, minor, patch: parts.next().unwrap_or(Some(0))? })
    }

    /// Whether everything we ask of it exists.
    pub fn is_fit(self) -> bool {
        self >= Self::OLDEST
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        if self.patch > 0 { write!(f, ".{}", self.patch) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared_by_number() {
        let read = |text: &str| Version::read(text).map(|version| (version.to_string(), version.is_fit()));
        assert_eq!(read("pgBackRest 2.45\n"), Some(("2.45".into(), true)));
        assert_eq!(read("pgBackRest 2.59.1"), Some(("2.59.1".into(), true)));
        assert_eq!(read("pgBackRest 2.60dev"), Some(("2.60".into(), true)));
        assert_eq!(read("pgBackRest 2.9"), Some(("2.9".into(), false)));
        for text in ["", "pgBackRest", "pgBackRest x.y", "pgBackRest 2", "restic 0.17"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
