//! The tool's version, and which of the installed ones suits a server.
//!
//! A newcomer would take the newest; the lowest that is not older than the server writes SQL that this server reads
//! again, and does not fail on what a later version no longer has.

use std::{fmt, path::PathBuf};

/// A version of PostgreSQL's programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The major version, e.g. 15; 9 for 9.6 and the like.
    pub major: u32,
    /// All of it, e.g. `15.20`, `18beta1`.
    pub text: String,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl Version {
    /// Reads `pg_dump (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)`.
    pub fn parse(output: &str) -> Option<Self> {
        let text = output.lines().next()?.split_once("(PostgreSQL) ")?.1.split_whitespace().next()?;
        let digits = text.find(|c: char| !c.is_ascii_digit()).map_or(text, |end| &text[..end]);
        Some(Self { major: digits.parse().ok()?, text: text.to_owned() })
    }
}

/// An installed pg_dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// The program.
    pub path: PathBuf,
    /// Its version.
    pub version: Version,
}

/// The tool for a server of this major version: the lowest that is not older, the first of several.
pub fn choose(server_major: u32, tools: &[Tool]) -> Option<&Tool> {
    tools.iter().filter(|tool| tool.version.major >= server_major).min_by_key(|tool| tool.version.major)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(path: &str, text: &str) -> Tool {
        Tool { path: path.into(), version: Version::parse(&format!("pg_dump (PostgreSQL) {text}")).unwrap() }
    }

    #[test]
    fn a_version_is_read_as_the_packages_write_it() {
        let read = |text: &str| Version::parse(text).map(|version| (version.major, version.text));
        assert_eq!(read("pg_dump (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)\n"), Some((15, "15.20".into())));
        assert_eq!(read("pg_dump (PostgreSQL) 18beta1"), Some((18, "18beta1".into())));
        assert_eq!(read("pg_dump (PostgreSQL) 17.2 - Percona Distribution"), Some((17, "17.2".into())));
        assert_eq!(read("pg_dump (PostgreSQL) 9.6.24"), Some((9, "9.6.24".into())));
        for text in ["", "pg_dump", "pg_dump (PostgreSQL) ", "pg_dump (PostgreSQL) devel"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn the_lowest_that_is_not_older_than_the_server_is_taken() {
        let tools = [tool("/17", "17.2"), tool("/15", "15.3"), tool("/usr/bin", "15.9"), tool("/13", "13.1")];
        let chosen = |server| choose(server, &tools).map(|tool| tool.path.to_string_lossy().into_owned());
        assert_eq!(chosen(15).as_deref(), Some("/15"));
        assert_eq!(chosen(16).as_deref(), Some("/17"));
        assert_eq!(chosen(9).as_deref(), Some("/13"));
        assert_eq!(chosen(18), None);
    }
}
