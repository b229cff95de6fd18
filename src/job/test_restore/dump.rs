//! A test restore of a dump: fetched out of a storage, loaded into a throw-away server of its own, and looked at.
//!
//! Fetching, decrypting and comparing every checksum happens outside, where the storage's secrets and the key are. What
//! the dump itself may do, it does inside the sandbox: it is a program that others wrote. The parts: `fetch.rs` is the way
//! out of the storage, `postgres.rs`, `mysql.rs` and `sqlite.rs` are what is done with what came.
//!
//! The newest good dump is taken, from a storage on this host where there is one, because that is what a person would
//! reach for. A dump is of one moment, the one at which it began; nothing of production is asked or marked.
//!
//! A newcomer would make the server first and fetch then; whether the copy can be read is the first question.

mod counts;
mod fetch;
#[cfg(test)]
mod journey;
mod mysql;
mod postgres;
mod sqlite;
#[cfg(test)]
mod testing;

use std::path::{Path, PathBuf};

use self::fetch::Source;
use super::{
    Context, Way, catalog_failure, failure,
    scratch::{Scratch, check_space},
    steps, walls,
};
use crate::{
    policy::{Place, Policy},
    record::{Artifact, Backup, CopyState, Dump, EngineKind, ErrorClass, Failure, Role},
    sandbox::Layout,
};

/// What is restored.
pub(super) struct Restore {
    /// The newest good dump.
    pub(super) backup: Backup,
    dump: Dump,
    /// The storage it is taken from.
    storage: String,
}

impl Restore {
    /// Chooses the newest dump of the database, and the copy of it.
    pub(super) async fn choose(context: &Context) -> Result<Self, Failure> {
        let database = context.database();
        let backups = context.catalog.backups(&database.name).await.map_err(catalog_failure)?;
        let ours = backups.into_iter().filter(|backup| backup.engine == database.engine);
        newest(&context.policy, ours).ok_or_else(|| {
            let message = format!("no storage of the policy holds a good dump of `{}` to restore", database.name);
            failure(ErrorClass::Config, message, "Make a backup first.")
        })
    }

    /// The steps.
    pub(super) fn plan(&self) -> &'static steps::Plan {
        match self.backup.engine {
            EngineKind::MySqlDump => &mysql::PLAN,
            EngineKind::Sqlite => &sqlite::PLAN,
            EngineKind::PgDump | EngineKind::PgBackRest => &postgres::PLAN,
        }
    }

    /// Every step up to the last check; the server is gone when it returns, or is dropped.
    pub(super) async fn prove(&self, context: &Context, way: &mut Way) -> Result<(), Failure> {
        let Self { backup, dump, storage } = self;
        let source = way.steps.run("backup", Source::open(context, backup, dump, storage)).await?;
        let isolation = way.steps.run("isolation", walls::isolate()).await?;
        way.facts.isolation = isolation.to_string();
        way.facts.recovered_to = Some(backup.started_at);
        let programs = match backup.engine {
            EngineKind::MySqlDump => way.steps.run("programs", mysql::find_programs(context, backup)).await?,
            EngineKind::Sqlite => way.steps.run("programs", sqlite::find_programs(context)).await?,
            _ => way.steps.run("programs", postgres::find_programs(context, backup)).await?,
        };
        let made = way.steps.run("scratch", Scratch::make(context, &[])).await?;
        let layout = way.scratch.insert(made).layout().clone();
        way.steps.run("space", async { check_space(&layout, self.needed()) }).await?;
        way.steps.run("fetch", source.fetch(context, &layout)).await?;
        let fetched = Fetched { backup, dump, layout, programs };
        match backup.engine {
            EngineKind::MySqlDump => mysql::prove(context, &fetched, way).await,
            EngineKind::Sqlite => sqlite::prove(context, &fetched, way).await,
            _ => postgres::prove(context, &fetched, way).await,
        }
    }

    /// Bytes that the fetched files and the restored database take together, guessed generously.
    fn needed(&self) -> u64 {
        let raw = self.dump.raw_size();
        match self.backup.engine {
            EngineKind::MySqlDump => raw * mysql::SPACE.0 + mysql::SPACE.1,
            EngineKind::Sqlite => raw * 2,
            _ => raw * postgres::SPACE.0 + postgres::SPACE.1,
        }
    }
}

/// The newest good dump that can be had, with the storage to take it from.
fn newest(policy: &Policy, backups: impl Iterator<Item = Backup>) -> Option<Restore> {
    let fit = backups.filter(Backup::is_good).filter_map(|backup| {
        let dump = backup.dump.clone()?;
        let storage = best_copy(policy, &dump)?.to_owned();
        Some(Restore { backup, dump, storage })
    });
    fit.max_by(|one, other| one.backup.started_at.cmp(&other.backup.started_at))
}

/// The storage of a good copy; a directory on this host before a bucket, else the first.
fn best_copy<'a>(policy: &Policy, dump: &'a Dump) -> Option<&'a str> {
    let good = dump.copies.iter().filter(|copy| copy.state == CopyState::Good);
    let had = good.filter_map(|copy| Some((&copy.storage, policy.storages.get(&copy.storage)?)));
    let best = had.min_by_key(|(_, storage)| matches!(storage.place, Place::S3(_)));
    best.map(|(name, _)| name.as_str())
}

/// A dump that lies in the scratch directory as its tool wrote it, and what it is restored with.
struct Fetched<'a> {
    backup: &'a Backup,
    dump: &'a Dump,
    layout: Layout,
    programs: PathBuf,
}

impl Fetched<'_> {
    /// The files of a role, in the order in which they were made.
    fn files(&self, role: Role) -> Vec<PathBuf> {
        let artifacts = self.dump.artifacts.iter().filter(|artifact| artifact.role == role);
        artifacts.filter_map(|artifact| plain_path(&self.layout.work(), artifact, self.dump)).collect()
    }

    /// The file with the database.
    fn data(&self) -> Result<PathBuf, Failure> {
        self.files(Role::Data).into_iter().next().ok_or_else(|| {
            let message = format!("{} has no file with the database", self.backup.id);
            failure(ErrorClass::Integrity, message, "Make a new backup; look at the manifest of this one.")
        })
    }

    /// The directory of a dump that has many files.
    fn directory(&self) -> Option<PathBuf> {
        let part = self.files(Role::Part).into_iter().next()?;
        let work = self.layout.work();
        Some(work.join(part.strip_prefix(&work).ok()?.components().next()?))
    }
}

/// Where a file lies as its tool wrote it; none for a name that leads out of the directory.
fn plain_path(work: &Path, artifact: &Artifact, dump: &Dump) -> Option<PathBuf> {
    let sealed = dump.encryption.as_ref().map_or("", |encryption| encryption.method.suffix());
    let name = artifact.name.strip_suffix(sealed).unwrap_or(&artifact.name);
    let name = name.strip_suffix(dump.compression.suffix()).unwrap_or(name);
    let is_inside = |part: std::path::Component<'_>| matches!(part, std::path::Component::Normal(_));
    let path = Path::new(name);
    (!name.is_empty() && path.components().all(is_inside)).then(|| work.join(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_loses_its_suffixes_and_never_leads_out_of_the_directory() {
        let plain = |name: &str, compression: &str, encrypted: bool| {
            let mut dump = testing::dump(&[]);
            dump.compression = compression.parse().unwrap();
            dump.encryption = encrypted.then(testing::age);
            let path = plain_path(Path::new("/w"), &testing::artifact(Role::Data, name), &dump);
            path.map(|path| path.to_string_lossy().into_owned())
        };
        assert_eq!(plain("shop.dump.zst.age", "zstd", true).as_deref(), Some("/w/shop.dump"));
        assert_eq!(plain("parts/toc.dat.gz", "gzip", false).as_deref(), Some("/w/parts/toc.dat"));
        assert_eq!(plain("shop.sql", "none", false).as_deref(), Some("/w/shop.sql"));
        assert_eq!(plain("shop.age", "none", false).as_deref(), Some("/w/shop.age"), "it is a name, not a suffix");
        for name in ["../shop.sql", "/etc/passwd", "parts/../../x", "", ".zst"] {
            assert_eq!(plain(name, "zstd", false), None, "{name}");
        }
    }

    #[test]
    fn the_newest_good_dump_that_can_be_had_is_taken_and_from_this_host_where_it_can_be() {
        let policy = testing::policy(&["local", "s3:wasabi"]);
        let backup = |hour: i64, copies: &[(&str, CopyState)]| testing::backup(hour, testing::dump(copies));
        let choose = |backups: Vec<Backup>| {
            let chosen = newest(&policy, backups.into_iter())?;
            Some((chosen.backup.id, chosen.storage))
        };
        let (good, bad) = (CopyState::Good, CopyState::Damaged);
        let both = [("wasabi", good), ("local", good)];
        let taken = |hour: i64, storage: &str| Some((testing::backup(hour, testing::dump(&[])).id, storage.to_owned()));
        assert_eq!(choose(vec![backup(1, &both), backup(2, &both)]), taken(2, "local"));
        assert_eq!(choose(vec![backup(1, &[("local", bad), ("wasabi", good)])]), taken(1, "wasabi"));
        assert_eq!(choose(vec![backup(1, &both), backup(2, &[("local", bad), ("gone", good)])]), taken(1, "local"));
        let damaged = Backup { status: crate::record::BackupStatus::Damaged, ..backup(2, &both) };
        assert_eq!(choose(vec![backup(1, &both), damaged]), taken(1, "local"));
        assert_eq!(choose(Vec::new()), None);
    }
}
