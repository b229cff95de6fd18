//! After a failure: what is wrong around it, and what a person can do. Looks only; each look has its own short limit.
//!
//! The error of a tool says what it tripped over. The diagnosis says what holds beside it: is the database up, can the
//! repository be read, who holds the lock, how full are the disks, which version is the tool.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::future::join_all;

use nix::unistd::{AccessFlags, access};

use crate::{
    dump::Dumper,
    engine::pgbackrest::{PgBackRest, conf::Conf},
    error::chain,
    human::size,
    policy::{Database, Place, Policy},
    postgres::Client,
    process::{self, Stop},
    record::{ErrorClass, Failure},
    storage::{self, Storage},
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

/// Why a directory, or where it is not there its nearest parent, cannot be written by us; none where it can be.
pub fn closed(path: &Path) -> Option<String> {
    let existing = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(path);
    access(existing, AccessFlags::W_OK).err().map(|why| {
        format!(
            "`{}` cannot be written ({}); under systemd add it with a drop-in: `ReadWritePaths={}`",
            existing.display(),
            why.desc(),
            path.display()
        )
    })
}

/// The directories of a policy that cannot be written, a line each: the unit may make read-only what its owner may write.
pub fn closed_paths(policy: &Policy) -> Vec<String> {
    let scratch = ("the scratch directory".to_owned(), policy.daemon.scratch_dir.as_path());
    let storages = policy.storages.values().filter_map(|storage| match &storage.place {
        Place::Filesystem { path } => Some((format!("storage `{}`", storage.name), path.as_path())),
        Place::S3(_) => None,
    });
    let told = |(what, path)| closed(path).map(|why| format!("{what}: {why}"));
    std::iter::once(scratch).chain(storages).filter_map(told).collect()
}

/// Looks around after a failure and tells what it found, a line each.
pub async fn diagnose(policy: &Policy, database: &Database, failure: &Failure) -> Vec<String> {
    let mut found = Vec::new();
    if failure.class == ErrorClass::Stopped {
        return found;
    }
    found.extend(disks(policy, database));
    if database.engine.is_dump() {
        let (source, storages) = tokio::join!(source(database), storages(policy, database));
        found.push(source);
        found.extend(storages);
    } else {
        found.push(server(database).await);
        found.extend(tool(database).await);
    }
    found
}

fn disks(policy: &Policy, database: &Database) -> Vec<String> {
    let mut paths = vec![("the state directory", policy.daemon.state_dir.clone())];
    paths.push(("the scratch directory", policy.daemon.scratch_dir.clone()));
    if database.engine.is_dump() {
        paths.extend(local_storages(policy, database).map(|path| ("the storage", path)));
    } else {
        paths.extend(local_repositories(database).into_iter().map(|path| ("the repository", path)));
    }
    let tight = |(what, path): (&str, PathBuf)| {
        let space = Space::of(&path)?;
        let is_tight = space.free * 100 < space.total * TIGHT_PERCENT;
        is_tight.then(|| format!("{what} `{}` has {} of {} free", path.display(), size(space.free), size(space.total)))
    };
    paths.into_iter().filter_map(tight).collect()
}

fn local_repositories(database: &Database) -> Vec<PathBuf> {
    let settings = &database.pgbackrest;
    let Ok(conf) = Conf::load(settings) else { return Vec::new() };
    settings.repos.iter().filter_map(|repo| conf.local_repo(&settings.stanza, *repo)).collect()
}

fn local_storages(policy: &Policy, database: &Database) -> impl Iterator<Item = PathBuf> {
    let named = database.dump.storages.iter().filter_map(|name| policy.storages.get(name));
    named.filter_map(|storage| match &storage.place {
        Place::Filesystem { path } => Some(path.clone()),
        Place::S3(_) => None,
    })
}

/// Whether a database that is dumped can be reached, and which tool suits it.
async fn source(database: &Database) -> String {
    let dumper = match Dumper::of(database) {
        Ok(Some(dumper)) => dumper,
        Ok(None) => return "the database was not asked: it is not dumped".to_owned(),
        Err(problem) => return format!("the database was not asked: {}", chain(&problem)),
    };
    match tokio::time::timeout(LIMIT, dumper.look(&Stop::never())).await {
        Ok(Ok(found)) => format!("the database answers: {}; the tool is {}", found.server, found.tool_version),
        Ok(Err(failure)) => format!("the database does not answer: {}", failure.message),
        Err(_) => format!("the database did not answer within {} s", LIMIT.as_secs()),
    }
}

/// Whether each storage of a database can be written.
async fn storages(policy: &Policy, database: &Database) -> Vec<String> {
    let looks: Vec<_> = database.dump.storages.iter().map(|name| storage(policy, name)).collect();
    join_all(looks).await
}

async fn storage(policy: &Policy, name: &str) -> String {
    let Some(settings) = policy.storages.get(name) else { return format!("the policy has no storage `{name}`") };
    let look = async {
        let storage = Storage::open(settings).await?;
        storage.check().await?;
        Ok::<_, storage::Error>((storage.is_marked().await?, storage.free_space().await?))
    };
    match tokio::time::timeout(LIMIT, look).await {
        Ok(Ok((false, _))) => format!("storage `{name}` can be written, but no backup ever went there"),
        Ok(Ok((true, Some(free)))) => format!("storage `{name}` can be written, {} are free", size(free)),
        Ok(Ok((true, None))) => format!("storage `{name}` can be written"),
        Ok(Err(problem)) => format!("storage `{name}` cannot be written: {}", chain(&problem)),
        Err(_) => format!("storage `{name}` did not answer within {} s", LIMIT.as_secs()),
    }
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
        Ok(Err(problem)) => format!("the database does not answer: {}", chain(&problem)),
        Err(_) => format!("the database did not answer within {} s", LIMIT.as_secs()),
    }
}

async fn tool(database: &Database) -> Vec<String> {
    let tool = match PgBackRest::of(database) {
        Ok(tool) => tool,
        Err(problem) => return vec![format!("a secret cannot be read: {}", chain(&problem))],
    };
    match process::capture(&tool.version().timeout(Some(LIMIT)), &Stop::never()).await {
        Ok(seen) if seen.ok() => vec![format!("the tool is {}", String::from_utf8_lossy(&seen.stdout).trim())],
        Ok(seen) => vec![format!("the tool does not tell its version: {}", seen.ending.word())],
        Err(problem) => vec![chain(&problem)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_cannot_be_written_is_told_with_the_line_that_opens_it() {
        // Where root may write even there, nothing is told.
        let text = "[daemon]\nscratch_dir = \"/proc/1/scratch\"\n[storage.x]\ntype = \"filesystem\"\npath = \"/tmp\"";
        let policy = Policy::parse(vec![("p.toml".into(), text.into())]).unwrap();
        let told = closed_paths(&policy);
        assert!(told.iter().all(|line| line.contains("`ReadWritePaths=/proc/1/scratch`")), "{told:?}");
        assert_eq!(closed(Path::new("/tmp/of-nobody/yet")), None);
    }
}
