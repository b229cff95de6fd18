//! After a failure: what is wrong around it, and what a person can do. Looks only; each look has its own short limit.
//!
//! The error of a tool says what it tripped over. The diagnosis says what holds beside it: is the database up, can the
//! repository be read, who holds the lock, how full are the disks, which version is the tool.

use std::{path::Path, time::Duration};

use crate::{
    engine::pgbackrest::{PgBackRest, conf::Conf},
    human::size,
    policy::{Database, Policy},
    postgres::Client,
    process::{self, Stop},
    record::{ErrorClass, Failure},
};

/// How long one look may take.
const LIMIT: Duration = Duration::from_secs(10);
/// A file system with less than this share free is worth a line.
const TIGHT_PERCENT: u64 = 10;

/// What a file system has, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Its size.
    pub total: u64,
    /// What an unprivileged user may still write.
    pub free: u64,
}

impl Space {
    /// Looks at the file system that holds `path`, or its nearest parent that exists.
    pub fn of(path: &Path) -> Option<Self> {
        let existing = path.ancestors().find(|ancestor| ancestor.exists())?;
        let found = nix::sys::statvfs::statvfs(existing).ok()?;
        let block = found.fragment_size();
        Some(Self { total: found.blocks() * block, free: found.blocks_available() * block })
    }
}

/// Looks around after a failure and tells what it found, a line each.
pub async fn diagnose(policy: &Policy, database: &Database, failure: &Failure) -> Vec<String> {
    let mut found = Vec::new();
    if failure.class == ErrorClass::Stopped {
        return found;
    }
    found.extend(disks(policy, database));
    found.push(server(database).await);
    found.extend(tool(database).await);
    found
}

fn disks(policy: &Policy, database: &Database) -> Vec<String> {
    let mut paths = vec![("the state directory", policy.daemon.state_dir.clone())];
    paths.push(("the scratch directory", policy.daemon.scratch_dir.clone()));
    let settings = &database.pgbackrest;
    if let Ok(conf) = Conf::load(settings) {
        let local = settings.repos.iter().filter_map(|repo| conf.local_repo(&settings.stanza, *repo));
        paths.extend(local.map(|path| ("the repository", path)));
    }
    let tight = |(what, path): (&str, std::path::PathBuf)| {
        let space = Space::of(&path)?;
        let is_tight = space.free * 100 < space.total * TIGHT_PERCENT;
        is_tight.then(|| format!("{what} `{}` has {} of {} free", path.display(), size(space.free), size(space.total)))
    };
    paths.into_iter().filter_map(tight).collect()
}

async fn server(database: &Database) -> String {
    let client = match Client::of(database) {
        Ok(Some(client)) => client,
        Ok(None) => return "the database was not asked: the policy has no `connection`".to_owned(),
        Err(problem) => return format!("the database was not asked: {problem}"),
    };
    match tokio::time::timeout(LIMIT, client.query("select version()")).await {
        Ok(Ok(rows)) => {
            format!("the database answers: {}", rows.first().and_then(|row| row.first()).map_or("", String::as_str))
        }
        Ok(Err(problem)) => format!("the database does not answer: {}", crate::error::chain(&problem)),
        Err(_) => format!("the database did not answer within {} s", LIMIT.as_secs()),
    }
}

async fn tool(database: &Database) -> Vec<String> {
    let tool = match PgBackRest::of(database) {
        Ok(tool) => tool,
        Err(problem) => return vec![format!("a secret cannot be read: {}", crate::error::chain(&problem))],
    };
    match process::capture(&tool.version().timeout(Some(LIMIT)), &Stop::never()).await {
        Ok(seen) if seen.ok() => vec![format!("the tool is {}", String::from_utf8_lossy(&seen.stdout).trim())],
        Ok(seen) => vec![format!("the tool does not tell its version: {}", seen.ending.word())],
        Err(problem) => vec![crate::error::chain(&problem)],
    }
}
