//! The policy against the world: tools, connections, repositories, lock paths, retention set elsewhere, the sandbox.
//!
//! What concerns dumps is in `dump.rs`. A newcomer would stop at the first thing that is wrong; all of it is told.

use serde::Serialize;

use super::dump;
use crate::{
    diagnose::{Space, closed},
    engine::pgbackrest::{PgBackRest, conf::Conf, version::Version},
    error::chain,
    human::size,
    job::sync,
    policy::{Database, ExpireBy, Policy},
    postgres::Client,
    process::{self, Stop},
    record::DatabaseName,
    sandbox::Isolation,
};

/// What one look found.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    /// What was looked at.
    pub(super) about: String,
    /// Whether it is as it should be.
    pub(super) good: bool,
    /// What was found.
    pub(super) found: String,
}

/// Looks at everything that the policy speaks of.
pub(super) async fn all(policy: &Policy, wanted: Option<&DatabaseName>) -> Vec<Finding> {
    let mut findings = vec![scratch(policy), sandbox().await];
    let is_wanted = |database: &&Database| wanted.is_none_or(|name| *name == database.name);
    let databases: Vec<&Database> = policy.databases.values().filter(is_wanted).collect();
    findings.extend(dump::storages(policy, &databases).await);
    for database in databases {
        if database.engine.is_dump() {
            findings.extend(dump::database(policy, database).await);
            continue;
        }
        findings.push(tool(database).await);
        findings.extend(configuration(database));
        findings.extend(server(database).await);
        findings.extend(repositories(database).await);
    }
    findings
}

pub(super) fn finding(about: impl Into<String>, found: Result<String, String>) -> Finding {
    let good = found.is_ok();
    Finding { about: about.into(), good, found: found.unwrap_or_else(|bad| bad) }
}

fn scratch(policy: &Policy) -> Finding {
    let path = &policy.daemon.scratch_dir;
    let found = match (closed(path), Space::of(path)) {
        (Some(why), _) => Err(why),
        (None, Some(space)) => Ok(format!("`{}`, {} free of {}", path.display(), size(space.free), size(space.total))),
        (None, None) => Ok(format!("`{}`", path.display())),
    };
    finding("scratch directory for test restores", found)
}

async fn sandbox() -> Finding {
    finding(
        "sandbox for test restores",
        Isolation::probe().await.map(|isolation| isolation.to_string()).map_err(|problem| chain(&problem)),
    )
}

async fn tool(database: &Database) -> Finding {
    let asked = async {
        let tool = PgBackRest::of(database).map_err(|problem| chain(&problem))?;
        let answer = process::capture(&tool.version(), &Stop::never()).await.map_err(|problem| chain(&problem))?;
        let text = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
        match Version::read(&text) {
            Some(version) if version.is_fit() => Ok(text),
            Some(version) => Err(format!("{version} is too old, at least {} is needed", Version::OLDEST)),
            None => Err(format!("`{text}` is no version")),
        }
    };
    finding(format!("{}: pgBackRest", database.name), asked.await)
}

/// What pgbackrest.conf says that concerns us: retention that others' runs would expire by, encryption.
fn configuration(database: &Database) -> Vec<Finding> {
    let settings = &database.pgbackrest;
    let about = |what: &str| format!("{}: {what}", database.name);
    let conf = match Conf::load(settings) {
        Ok(conf) => conf,
        Err(problem) => return vec![finding(about("pgbackrest.conf"), Err(chain(&problem)))],
    };
    let mut findings = Vec::new();
    let retention = conf.retention(&settings.stanza);
    if settings.expire_by == ExpireBy::Backstop && !retention.is_empty() {
        let found = format!(
            "pgbackrest.conf sets {}: a backup made by others would expire by it; remove it, or set `expire_by = \"pgbackrest\"`",
            retention.join(", ")
        );
        findings.push(finding(about("retention"), Err(found)));
    }
    if database.tier.encryption_required {
        for repo in settings.repos.iter().filter(|repo| !conf.is_encrypted(&settings.stanza, **repo)) {
            findings.push(finding(
                about("encryption"),
                Err(format!("repository {repo} is not encrypted, the tier requires it")),
            ));
        }
    }
    findings
}

async fn server(database: &Database) -> Vec<Finding> {
    let about = |what: &str| format!("{}: {what}", database.name);
    let client = match Client::of(database) {
        Ok(Some(client)) => client,
        Ok(None) => return Vec::new(),
        Err(problem) => return vec![finding(about("connection"), Err(chain(&problem)))],
    };
    let identity = match client.identity().await {
        Ok(identity) => identity,
        Err(problem) => return vec![finding(about("connection"), Err(chain(&problem)))],
    };
    let mut findings = vec![finding(
        about("connection"),
        Ok(format!("PostgreSQL {}, cluster {}", identity.major_version(), identity.system_id)),
    )];
    if !identity.data_checksums {
        findings.push(finding(
            about("page checksums"),
            Err("off: damage on disk is not noticed by backups (`pg_checksums --enable`)".to_owned()),
        ));
    }
    match client.archiving().await {
        Ok(archiving) => {
            let found = if archiving.mode == "off" {
                Err("archive_mode is off".to_owned())
            } else {
                Ok(format!("archive_mode = {}, archive_timeout = {} s", archiving.mode, archiving.timeout))
            };
            findings.push(finding(about("archiving"), found));
            findings.extend(archiving.command.as_deref().and_then(|command| lock_paths(database, command)));
        }
        Err(problem) => findings.push(finding(about("archiving"), Err(chain(&problem)))),
    }
    findings
}

/// Archiving and backups exclude each other by a lock; different lock paths would silently undo that.
fn lock_paths(database: &Database, archive_command: &str) -> Option<Finding> {
    let settings = &database.pgbackrest;
    let option = |name: &str| {
        let words: Vec<&str> = archive_command.split([' ', '=', '\'', '"']).filter(|word| !word.is_empty()).collect();
        words.windows(2).find(|pair| pair[0] == name).map(|pair| pair[1].to_owned())
    };
    let ours = Conf::load(settings).ok()?.lock_path(&settings.stanza, "backup");
    let theirs = match (option("--lock-path"), option("--config")) {
        (Some(path), _) => path.into(),
        (None, Some(config)) => {
            let theirs = crate::policy::PgBackRest { config: Some(config.into()), ..settings.clone() };
            Conf::load(&theirs).ok()?.lock_path(&settings.stanza, "archive-push")
        }
        (None, None) => {
            let theirs = crate::policy::PgBackRest { config: None, ..settings.clone() };
            Conf::load(&theirs).map_or_else(|_| ours.clone(), |conf| conf.lock_path(&settings.stanza, "archive-push"))
        }
    };
    let found = if theirs == ours {
        Ok(format!("`{}` for both", ours.display()))
    } else {
        Err(format!(
            "`{}` here but `{}` for PostgreSQL's archiving: they would not see each other's locks",
            ours.display(),
            theirs.display()
        ))
    };
    Some(finding(format!("{}: lock path", database.name), found))
}

async fn repositories(database: &Database) -> Vec<Finding> {
    let about = |repo: u32| format!("{}: repository {repo}", database.name);
    match sync::look(database, &Stop::never()).await {
        Err(failure) => vec![finding(about(0), Err(failure.message))],
        Ok(seen) => {
            let state = |repo: &u32| match seen.trouble(*repo) {
                _ if seen.is_missing(*repo) => {
                    finding(about(*repo), Ok("no stanza yet: the first backup creates it".to_owned()))
                }
                Some(failure) => finding(about(*repo), Err(failure.message)),
                None => finding(about(*repo), Ok(format!("{} backups", seen.in_repo(*repo).count()))),
            };
            database.pgbackrest.repos.iter().map(state).collect()
        }
    }
}
