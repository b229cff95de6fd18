//! Finds the `pg_dump` that suits a server.
//!
//! The programs of each major version lie in a directory of their own that is not in `PATH`; what is in `PATH` may be any
//! of them, so each is asked. A newcomer would believe the directory's name.

use std::path::{Path, PathBuf};

use crate::{
    engine::pg_dump::{
        self, exit,
        version::{Tool, Version, choose},
    },
    error::ExitCode,
    postgres::Dumpable,
    process::{self, Ending, Stop},
    record::{ErrorClass, Failure},
};

/// The tool for a server; `tool_dir` alone is looked at when it is named.
pub(super) async fn find(tool_dir: Option<&Path>, server: &Dumpable, stop: &Stop) -> Result<Tool, Failure> {
    let programs = match tool_dir {
        Some(directory) => vec![directory.join("pg_dump")],
        None => installed(),
    };
    let mut tools = Vec::new();
    for program in programs {
        tools.extend(probe(program, stop).await);
    }
    if stop.is_stopped() {
        return Err(exit::explain("pg_dump", &Ending::Stopped, &[]));
    }
    choose(server.major(), &tools).cloned().ok_or_else(|| not_found(tool_dir, server, &tools))
}

/// Where the packages of Debian and of PostgreSQL's own yum repository put it, then `PATH`.
fn installed() -> Vec<PathBuf> {
    let below = |directory: &str, prefix: &str| {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
        let mut programs: Vec<PathBuf> = named.map(|entry| entry.path().join("bin/pg_dump")).collect();
        programs.sort();
        programs
    };
    let versioned = [below("/usr/lib/postgresql", ""), below("/usr", "pgsql-")].concat();
    versioned.into_iter().filter(|program| program.exists()).chain(["pg_dump".into()]).collect()
}

/// What cannot be run or tells no version is no tool.
async fn probe(program: PathBuf, stop: &Stop) -> Option<Tool> {
    let answer = process::capture(&pg_dump::version(&program), stop).await.ok().filter(|answer| answer.ok())?;
    let version = Version::parse(&String::from_utf8_lossy(&answer.stdout))?;
    Some(Tool { path: program, version })
}

fn not_found(tool_dir: Option<&Path>, server: &Dumpable, tools: &[Tool]) -> Failure {
    let major = server.major();
    let found = tools.iter().map(|tool| format!("{} in `{}`", tool.version, tool.path.display()));
    let found = found.collect::<Vec<_>>().join(", ");
    let found = if found.is_empty() { "none at all".to_owned() } else { found };
    let remedy = match tool_dir {
        Some(directory) => format!(
            "Install `postgresql-client-{major}`, and leave `tool_dir` out, or let it name that; it is {}.",
            directory.display()
        ),
        None => format!("Install `postgresql-client-{major}`, or name the directory of the programs in `tool_dir`."),
    };
    Failure {
        class: ErrorClass::Config,
        exit: ExitCode::ToolNotFound,
        message: format!("no `pg_dump` suits PostgreSQL {}: found {found}", server.version),
        remedy: Some(remedy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::postgres::tests::database;

    #[tokio::test]
    async fn the_installed_tool_is_found_and_asked() {
        let tool = find(None, &database(), &Stop::never()).await.unwrap();
        assert!(tool.version.major >= 15, "{tool:?}");
        let directory = tool.path.parent().filter(|parent| parent.is_absolute());
        let named = find(directory, &database(), &Stop::never()).await.unwrap();
        assert_eq!(named.version, tool.version);
    }

    #[tokio::test]
    async fn a_search_that_is_stopped_does_not_say_that_there_is_no_tool() {
        let (handle, stop) = Stop::new();
        handle.stop();
        let failure = find(None, &database(), &stop).await.unwrap_err();
        assert_eq!((failure.class, failure.exit), (ErrorClass::Stopped, ExitCode::Interrupted));
    }

    #[tokio::test]
    async fn a_server_that_is_newer_than_every_tool_is_told_what_is_there_and_what_to_install() {
        let server = crate::postgres::Dumpable { version_num: 990_001, version: "99.1".into(), ..database() };
        let failure = find(None, &server, &Stop::never()).await.unwrap_err();
        assert_eq!((failure.exit, failure.class), (ExitCode::ToolNotFound, ErrorClass::Config));
        assert!(failure.message.starts_with("no `pg_dump` suits PostgreSQL 99.1: found 1"), "{failure:?}");
        assert!(failure.remedy.unwrap().contains("`postgresql-client-99`"));
        let failure = find(Some(Path::new("/nowhere")), &server, &Stop::never()).await.unwrap_err();
        assert!(failure.message.ends_with("found none at all"), "{failure:?}");
    }
}
