//! What the globals of a cluster say before they are applied: where tablespaces lie, and who made the cluster.
//!
//! A tablespace's location is production's own directory. It gets an empty stand-in at the same place inside the sandbox,
//! so that the statement works and reaches nothing. A newcomer would strip the statements; then every table in a tablespace
//! would fail.

use std::path::PathBuf;

use super::super::super::{failure, listed};
use crate::record::{ErrorClass, Failure};

/// The role that `initdb` makes where the globals name no superuser.
const USUAL: &str = "postgres";

/// The globals of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Globals {
    /// Their file; none where the dump has none.
    pub(super) file: Option<PathBuf>,
    /// Where its tablespaces lie.
    pub(super) tablespaces: Vec<PathBuf>,
    /// How many roles they make.
    pub(super) roles: usize,
    /// The role that made the cluster, as far as it can be told: grants name it.
    pub(super) superuser: String,
}

impl Globals {
    /// Reads the file, where there is one.
    pub(super) fn read(files: Vec<PathBuf>) -> Result<Self, Failure> {
        let file = files.into_iter().next();
        let text = file.as_ref().map_or_else(|| Ok(Vec::new()), std::fs::read).map_err(|source| {
            let message = format!("{} cannot be read: {source}", listed(file.as_slice()));
            failure(ErrorClass::Config, message, "Look at the file system of `daemon.scratch_dir`.")
        })?;
        Ok(Self { file, ..Self::of(&String::from_utf8_lossy(&text)) })
    }

    fn of(text: &str) -> Self {
        let created = |line: &&str| line.starts_with("CREATE ROLE ");
        Self {
            file: None,
            tablespaces: text.lines().filter_map(location).collect(),
            roles: text.lines().filter(created).count(),
            superuser: superuser(text),
        }
    }
}

/// Reads `CREATE TABLESPACE "my fast" OWNER app LOCATION '/srv/ts fast';`.
fn location(line: &str) -> Option<PathBuf> {
    let rest = line.strip_prefix("CREATE TABLESPACE ")?;
    let quoted = rest.split_once(" LOCATION ")?.1.trim_end().strip_suffix(';')?;
    let (escapes, quoted) = match quoted.strip_prefix('E') {
        Some(quoted) => (true, quoted),
        None => (false, quoted),
    };
    let path = quoted.strip_prefix('\'')?.strip_suffix('\'')?;
    // It cannot hold a quote; PostgreSQL refuses that.
    let path = if escapes { path.replace(r"\\", r"\") } else { path.to_owned() };
    Some(PathBuf::from(path)).filter(|path| path.is_absolute())
}

/// The grantor of memberships, else `postgres` where it is a superuser, else the first superuser.
fn superuser(text: &str) -> String {
    let altered = text.lines().filter_map(|line| line.strip_prefix("ALTER ROLE ")?.split_once(" WITH SUPERUSER "));
    let superusers: Vec<String> =
        altered.map(|(name, _)| unquoted(name)).filter(|name| !name.starts_with("pg_")).collect();
    let grantors = text.lines().filter(|line| line.starts_with("GRANT "));
    let grantors =
        grantors.filter_map(|line| Some(unquoted(line.rsplit_once(" GRANTED BY ")?.1.trim_end_matches(';'))));
    let grantor = grantors.into_iter().find(|grantor| superusers.contains(grantor));
    let usual = || superusers.iter().find(|name| *name == USUAL).or_else(|| superusers.first()).cloned();
    grantor.or_else(usual).unwrap_or_else(|| USUAL.to_owned())
}

fn unquoted(name: &str) -> String {
    let name = name.trim();
    match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
        Some(name) => name.replace("\"\"", "\""),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Written by pg_dumpall 15.
    const TEXT: &str = r#"
CREATE ROLE app;
ALTER ROLE app WITH NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB LOGIN NOREPLICATION NOBYPASSRLS PASSWORD 'SCRAM-SHA-256$x';
CREATE ROLE "the boss";
ALTER ROLE "the boss" WITH SUPERUSER INHERIT CREATEROLE CREATEDB NOLOGIN NOREPLICATION NOBYPASSRLS;
GRANT app TO reader GRANTED BY "the boss";
CREATE TABLESPACE "my fast" OWNER app LOCATION '/srv/ts fast';
CREATE TABLESPACE odd OWNER app LOCATION E'/srv/back\\slash';
CREATE TABLESPACE inplace OWNER app LOCATION '';
"#;

    #[test]
    fn tablespaces_and_roles_are_read() {
        let globals = Globals::of(TEXT);
        assert_eq!(globals.tablespaces, [PathBuf::from("/srv/ts fast"), PathBuf::from(r"/srv/back\slash")]);
        assert_eq!((globals.roles, globals.superuser.as_str()), (2, "the boss"));
    }

    #[test]
    fn the_first_role_is_the_one_that_granted_else_the_usual_one() {
        let usual = format!("{TEXT}ALTER ROLE postgres WITH SUPERUSER INHERIT;\n");
        assert_eq!(Globals::of(&usual).superuser, "the boss");
        assert_eq!(Globals::of(&usual.replace("GRANT app", "-- app")).superuser, "postgres");
        assert_eq!(Globals::of(&TEXT.replace("GRANT app", "-- app")).superuser, "the boss");
        assert_eq!(Globals::of("").superuser, "postgres");
    }
}
