//! The policy of dumps against the world: storages, keys, and the databases with their tools.
//!
//! A storage is looked at once, however many databases use it. A newcomer would look at a key when a dump is made; a
//! passphrase that cannot be read is found here, before a night without backup.

use std::collections::BTreeSet;

use super::probe::{Finding, finding};
use crate::{
    diagnose::{Space, closed},
    dump::Dumper,
    error::chain,
    human::size,
    policy::{self, Database, Key, Place, Policy},
    process::Stop,
    record::JobKind,
    storage::{self, Storage},
    stream::{Opener, Sealer},
};

/// The storages of these databases.
pub(super) async fn storages(policy: &Policy, databases: &[&Database]) -> Vec<Finding> {
    let used: BTreeSet<&String> = databases.iter().flat_map(|database| &database.dump.storages).collect();
    let mut findings = Vec::new();
    for storage in policy.storages.values().filter(|storage| used.contains(&storage.name)) {
        findings.push(finding(format!("storage `{}`", storage.name), storage_found(storage).await));
    }
    findings
}

async fn storage_found(settings: &policy::Storage) -> Result<String, String> {
    if let Place::Filesystem { path } = &settings.place {
        // Under systemd a path is read-only until the unit names it; the storage itself would only say that it is.
        if let Some(why) = closed(path) {
            return Err(why);
        }
    }
    let opened = Storage::open(settings).await.map_err(told)?;
    opened.check().await.map_err(told)?;
    let free = opened.free_space().await.map_err(told)?;
    let total = match &settings.place {
        Place::Filesystem { path } => Space::of(path).map(|space| format!(" of {}", size(space.total))),
        Place::S3(_) => None,
    };
    let free = free.map_or_else(String::new, |free| format!(", {} free{}", size(free), total.unwrap_or_default()));
    Ok(format!("`{}` can be written, read and emptied{free}", opened.locate("")))
}

fn told(problem: storage::Error) -> String {
    chain(&problem)
}

/// One database that is dumped: its keys, itself and its tool.
pub(super) async fn database(policy: &Policy, database: &Database) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(key) = database.dump.encryption.as_ref().and_then(|name| policy.keys.get(name)) {
        findings.extend(keys(policy, database, key));
    }
    findings.extend(source(database).await);
    findings
}

/// The key that locks, and the one that opens where a test restore needs it.
fn keys(policy: &Policy, database: &Database, key: &Key) -> Vec<Finding> {
    let about = |what: &str| format!("{}: {what} `{}`", database.name, key.name);
    let sealer = Sealer::of(key).map_err(|problem| chain(&problem));
    let sealed = sealer.as_ref().map(|_| format!("encrypts by {}", key.method())).map_err(Clone::clone);
    let mut findings = vec![finding(about("key"), sealed)];
    let is_tested =
        |job: &policy::Job| job.key.kind == JobKind::TestRestore && job.key.database.as_ref() == Some(&database.name);
    if policy.jobs.iter().any(is_tested) {
        let identity = database.test_restore.identity.as_deref();
        let opened = Opener::of(key, identity).map_err(|problem| chain(&problem));
        let fits = opened.and_then(|opener| match &sealer {
            Ok(sealer) if !opener.opens(sealer) => Err("it does not open what the key's recipients lock".to_owned()),
            _ => Ok("opens what is locked".to_owned()),
        });
        findings.push(finding(about("secret key for test restores of"), fits));
    }
    findings
}

async fn source(database: &Database) -> Vec<Finding> {
    let about = |what: &str| format!("{}: {what}", database.name);
    let dumper = match Dumper::of(database) {
        Ok(Some(dumper)) => dumper,
        Ok(None) => return Vec::new(),
        Err(problem) => return vec![finding(about("password"), Err(chain(&problem)))],
    };
    let source = match dumper.look(&Stop::never()).await {
        Ok(source) => source,
        Err(failure) => {
            let remedy = failure.remedy.map_or_else(String::new, |remedy| format!(" ({remedy})"));
            return vec![finding(about("database"), Err(format!("{}{remedy}", failure.message)))];
        }
    };
    let mut findings = vec![
        finding(about("database"), Ok(format!("{}, {}, {}", source.server, source.source, size(source.size)))),
        finding(about("tool"), Ok(format!("{} (`{}`)", source.tool_version, source.tool.display()))),
    ];
    findings.extend(source.warnings.into_iter().map(|warning| finding(about("warning"), Ok(warning))));
    if let Some(migrations) = source.migrations {
        let last = migrations.last_migration.map_or_else(String::new, |last| format!(", the last is {last}"));
        let found = format!("{} of {}{last}", migrations.applied_count, migrations.framework);
        findings.push(finding(about("schema migrations"), Ok(found)));
    }
    findings
}
