//! A dump: its files made, sent to every storage, read back, and only then called a backup.
//!
//! The order is the safety. What will be made is written into the journal; the files go to the storages, where each is
//! whole or not there; each is read back; the manifest goes last, so that a directory without one is no backup; then the
//! catalog is told. Whatever fails before, everything is removed again and the failure says so. One storage that fails
//! loses its copy, not the others': the run succeeds with a warning as long as one copy is good, and `min_copies` makes
//! an alarm of it.
//!
//! The parts: `plan.rs` decides, `places.rs` knows which storages still take part, `make.rs` makes and sends the files,
//! `publish.rs` writes the manifests, `clean.rs` removes, `journal.rs` and `leftover.rs` deal with runs that died,
//! `scratch.rs` is the place for what cannot be streamed.
//!
//! A newcomer would record the backup when the tool exits with zero; nobody has read it yet then.

mod clean;
mod journal;
pub(super) mod leftover;
pub(super) mod make;
pub(super) mod places;
mod plan;
mod publish;
mod scratch;

use std::sync::atomic::AtomicU64;

use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use tracing::warn;

use self::{
    journal::{Entry, Journal},
    leftover::Site,
    make::{Files, Make},
    places::Places,
    scratch::Scratch,
};
use super::{Context, Done, Runner, catalog_failure, progress::Gauge, sync};
use crate::{
    catalog::DumpHistory,
    clock::Stopwatch,
    diagnose::Space,
    dump::{Dumper, Making, Output, Source},
    error::{ExitCode, chain},
    human::size,
    policy::{Database, OnShrink},
    process::{self, Stop},
    record::{Artifact, Backup, BackupStatus, BackupType, Dump, ErrorClass, Failure, OpenRun},
    storage::Storage,
    stream::{self, Meter, Opener, Recipe, Sealer},
};

/// How long what is left of a dead run's tools may take to end.
const GRACE: std::time::Duration = std::time::Duration::from_secs(10);

pub(super) async fn run(context: &Context) -> Result<Done, Failure> {
    context.within(|stop| async move { attempt(context, &stop).await }).await
}

async fn attempt(context: &Context, stop: &Stop) -> Result<Done, Failure> {
    let watch = Stopwatch::start();
    let database = context.database();
    // Secrets are read anew for each attempt, so that a rotated one works without a restart.
    let dumper = dumper(database)?;
    let recipe = Recipe { compression: database.dump.compression, sealer: sealer(context)? };
    let source = unless_stopped(context, stop, dumper.look(stop)).await??;
    let site = Site { policy: &context.policy, catalog: &context.catalog, database };
    let used = site.used_storages().await.map_err(catalog_failure)?;
    let places = Places::open(context, &used, stop).await?;
    unless_stopped(context, stop, site.tidy(&places.opened())).await?.map_err(catalog_failure)?;
    let history = context.catalog.dump_history(&database.name).await.map_err(catalog_failure)?;
    let needed = plan::needed(source.size, recipe.compression, &history);
    unless_stopped(context, stop, places.with_room_for(needed)).await??;
    let name = context.remarks.name.as_deref();
    let id = context.catalog.unique_backup_id(context.now(), name).await.map_err(catalog_failure)?;
    let work = Work { context, stop, dumper, source, recipe, places, history, id, started_at: context.now() };
    let made = work.to_its_end().await?;
    let dump = made.dump.as_ref().expect("what this job makes is a dump");
    Ok(Done { summary: plan::summary(&made, dump, watch.elapsed()), backup_id: Some(made.id.clone()) })
}

/// Everything that one dump needs once it was found possible.
struct Work<'a> {
    context: &'a Context,
    stop: &'a Stop,
    dumper: Dumper,
    source: Source,
    recipe: Recipe,
    places: Places,
    history: DumpHistory,
    id: String,
    started_at: DateTime<Utc>,
}

impl Work<'_> {
    /// Makes the backup, or leaves nothing of it.
    async fn to_its_end(&self) -> Result<Backup, Failure> {
        let journal = Journal::of(&self.context.policy.daemon.state_dir, &self.database().name);
        let storages = self.places.alive().iter().map(|storage| storage.name().to_owned()).collect();
        let run_uuid = self.context.run_uuid.clone();
        journal.write(&Entry { backup_id: self.id.clone(), run_uuid, storages })?;
        let (made, is_tidy) = match self.backup().await {
            Ok((backup, is_tidy)) => (Ok(backup), is_tidy),
            Err(failure) => {
                let problems = self.undo().await;
                (Err(clean::told(failure, &problems)), problems.is_empty())
            }
        };
        if is_tidy {
            journal.forget(&self.id);
        }
        made
    }

    /// Makes and records the backup; tells too whether nothing is left of copies that failed.
    async fn backup(&self) -> Result<(Backup, bool), Failure> {
        let (artifacts, mut warnings) = self.artifacts().await?;
        let stopped_at = self.context.now();
        let raw = artifacts.iter().map(|artifact| artifact.raw.size).sum();
        warnings.extend(self.judge(raw)?);
        let mut backup = self.record_of(artifacts, warnings, stopped_at);
        publish::manifests(self, &backup).await?;
        let is_tidy = self.drop_failed_copies().await;
        if let Some(dump) = &mut backup.dump {
            dump.copies = self.places.copies(self.context.now(), self.lock_until());
        }
        self.record(&backup).await?;
        Ok((backup, is_tidy))
    }

    /// Makes every file, and says what people should know of it.
    async fn artifacts(&self) -> Result<(Vec<Artifact>, Vec<String>), Failure> {
        let scratch = Scratch::make(&self.context.policy.daemon.scratch_dir, &self.context.run_uuid)?;
        let made = self.make(&scratch).await;
        let removed = scratch.remove();
        let mut warnings = self.source.warnings.clone();
        if let Err(failure) = removed {
            warn!(run_id = self.context.run, "{}", failure.message);
            warnings.push(failure.message);
        }
        let Files { artifacts, warnings: found } = made?;
        warnings.extend(found);
        Ok((artifacts, warnings))
    }

    async fn make(&self, scratch: &Scratch) -> Result<Files, Failure> {
        let makings = self.dumper.makings(&self.source, scratch.path())?;
        let is_staged = makings.iter().any(|making| making.output != Output::Stdout);
        if is_staged {
            room_in(scratch, plan::staged(self.source.size))?;
        }
        let expected = plan::expected(self.source.size, &self.history);
        let expected = expected.map(|bytes| if is_staged { bytes.saturating_mul(2) } else { bytes });
        let opener = self.opener();
        let make = Make {
            context: self.context,
            stop: self.stop,
            dumper: &self.dumper,
            source: &self.source,
            places: &self.places,
            recipe: &self.recipe,
            opener: opener.as_ref(),
            directory: &self.directory(),
            lock_until: self.lock_until(),
            gauge: Gauge::new(self.context.progress.clone(), &self.context.log_dir, expected),
            meter: Meter::default(),
            staged: AtomicU64::new(0),
        };
        let made = every_file(&make, makings, scratch).await;
        make.gauge.end(make.moved());
        made
    }

    /// What reads the files back; what needs no key is checked without.
    fn opener(&self) -> Option<Opener> {
        let sealer = self.recipe.sealer.as_ref()?;
        let key = self.context.policy.keys.get(&sealer.encryption().key)?;
        Opener::of(key, self.database().test_restore.identity.as_deref()).ok()
    }

    /// A warning, or a failure where the policy wants one, when the dump is suspiciously small.
    fn judge(&self, raw: u64) -> Result<Option<String>, Failure> {
        let settings = &self.database().dump;
        let Some(why) = plan::suspicion(raw, settings.shrink_below, &self.history) else { return Ok(None) };
        if settings.on_shrink == OnShrink::Warn {
            warn!(run_id = self.context.run, job = %self.context.job(), "the backup is {why}");
            return Ok(Some(why));
        }
        Err(Failure {
            class: ErrorClass::Integrity,
            exit: ExitCode::VerificationFailed,
            message: format!("the backup is {why}"),
            remedy: Some(
                "Look whether the database lost data. If it is meant to be so small, set `on_shrink = \"warn\"` for one backup."
                    .to_owned(),
            ),
        })
    }

    fn record_of(&self, artifacts: Vec<Artifact>, warnings: Vec<String>, stopped_at: DateTime<Utc>) -> Backup {
        let (database, remarks) = (self.database(), &self.context.remarks);
        let dump = Dump {
            format: database.dump.format,
            compression: self.recipe.compression,
            encryption: self.recipe.sealer.as_ref().map(Sealer::encryption),
            directory: self.directory(),
            artifacts,
            copies: self.places.copies(stopped_at, self.lock_until()),
            server: self.source.server.clone(),
            source: self.source.source.clone(),
            migrations: self.source.migrations.clone(),
            retention_days: remarks.retention_days,
            expires_at: plan::expires_at(self.started_at, remarks.retention_days),
            warnings,
            // Each file of each good copy was read back.
            verified_at: Some(stopped_at),
        };
        let (raw, stored) = (dump.raw_size(), dump.stored_size());
        Backup {
            id: self.id.clone(),
            database: database.name.clone(),
            environment: database.environment.clone(),
            engine: database.engine,
            backup_type: BackupType::Full,
            requested_type: BackupType::Full,
            label: self.id.clone(),
            repo: 0,
            system_id: self.source.system_id.clone(),
            server_version: self.source.server_version.clone(),
            tool_version: self.source.tool_version.clone(),
            name: remarks.name.clone(),
            reason: remarks.reason.clone(),
            tags: remarks.tags.clone(),
            run_uuid: Some(self.context.run_uuid.clone()),
            started_at: self.started_at,
            stopped_at,
            size: raw,
            delta: raw,
            repo_delta: Some(stored),
            repo_size: Some(stored),
            prior: None,
            references: Vec::new(),
            wal_start: None,
            wal_stop: None,
            lsn_stop: None,
            page_errors: None,
            status: BackupStatus::Good,
            expired_reason: None,
            expired_at: None,
            held: None,
            held_until: None,
            proven_at: None,
            created_by: self.context.requested_by.clone(),
            dump: Some(dump),
        }
    }

    /// Removes what this run made, everywhere; tells what could not be.
    async fn undo(&self) -> Vec<String> {
        let storages = self.places.opened();
        let undone = join_all(storages.iter().map(|storage| self.undo_in(storage))).await;
        undone.into_iter().filter_map(Result::err).collect()
    }

    async fn undo_in(&self, storage: &Storage) -> Result<(), String> {
        clean::undo(storage, self.places.made(storage.name()), &self.directory()).await
    }

    /// Removes what the copies that failed left; true when nothing is left.
    async fn drop_failed_copies(&self) -> bool {
        let mut is_tidy = true;
        for storage in self.places.dropped() {
            if let Err(why) = self.undo_in(&storage).await {
                self.places.left(storage.name(), why);
                is_tidy = false;
            }
        }
        is_tidy
    }

    /// The backup is whole: a catalog that is busy or full for a while is waited for.
    async fn record(&self, backup: &Backup) -> Result<(), Failure> {
        const PAUSE: std::time::Duration = std::time::Duration::from_secs(10);
        for _ in 0..30 {
            let Err(problem) = self.context.catalog.record_dump(backup).await else { return Ok(()) };
            warn!(run_id = self.context.run, error = %chain(&problem), "the backup cannot be recorded, trying again in 10 seconds");
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = self.stop.stopped() => break,
            }
        }
        self.context.catalog.record_dump(backup).await.map_err(catalog_failure)
    }

    fn lock_until(&self) -> Option<DateTime<Utc>> {
        let expires_at = plan::expires_at(self.started_at, self.context.remarks.retention_days);
        plan::lock_until(self.started_at, expires_at, &self.database().retention)
    }

    fn database(&self) -> &Database {
        self.context.database()
    }

    /// Where it lies within each storage.
    fn directory(&self) -> String {
        format!("{}/{}", self.database().name, self.id)
    }
}

async fn every_file(make: &Make<'_>, makings: Vec<Making>, scratch: &Scratch) -> Result<Files, Failure> {
    let mut files = Files { artifacts: Vec::new(), warnings: Vec::new() };
    for making in makings {
        let Files { artifacts, warnings } = make.files(making, scratch.path()).await?;
        files.artifacts.extend(artifacts);
        files.warnings.extend(warnings);
    }
    Ok(files)
}

fn dumper(database: &Database) -> Result<Dumper, Failure> {
    let found = Dumper::of(database).map_err(sync::secret_failure)?;
    found.ok_or_else(|| super::defect("a database without a dump engine came to the dump job"))
}

/// What encrypts, where the policy wants it.
fn sealer(context: &Context) -> Result<Option<Sealer>, Failure> {
    let Some(name) = &context.database().dump.encryption else { return Ok(None) };
    let key = context.policy.keys.get(name).ok_or_else(|| super::defect("a key of the policy is not in the policy"))?;
    Ok(Some(Sealer::of(key)?))
}

fn room_in(scratch: &Scratch, needed: u64) -> Result<(), Failure> {
    let Some(space) = Space::of(scratch.path()).filter(|space| space.free < needed) else { return Ok(()) };
    let path = scratch.path().display();
    Err(Failure {
        class: ErrorClass::Space,
        exit: ExitCode::NoSpace,
        message: format!("`{path}` has {} free, the dump may take {}", size(space.free), size(needed)),
        remedy: Some("Free space there, set another `daemon.scratch_dir`, or use a format that needs none.".to_owned()),
    })
}

/// Does something that cannot stop by itself, unless somebody wants to stop.
async fn unless_stopped<T>(context: &Context, stop: &Stop, work: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::select! {
        done = work => Ok(done),
        () = stop.stopped() => Err(context.stopped()),
    }
}

/// Why a stream came to nothing, as it is recorded.
fn stream_failure(context: &Context, problem: stream::Error) -> Failure {
    let message = chain(&problem);
    let failure = |class, exit, remedy: Option<&str>| Failure {
        class,
        exit,
        message: message.clone(),
        remedy: remedy.map(str::to_owned),
    };
    match problem {
        stream::Error::Stopped => context.stopped(),
        stream::Error::Storage(problem) => problem.into(),
        stream::Error::Key(problem) => problem.into(),
        stream::Error::NoStorage(problem) => Failure { message, ..problem.into() },
        stream::Error::Damaged(_) => failure(
            ErrorClass::Integrity,
            ExitCode::VerificationFailed,
            Some("The storage does not give back what was written: check its disks or its network."),
        ),
        stream::Error::Read(_) | stream::Error::Write(_) => failure(ErrorClass::Transient, ExitCode::Storage, None),
        stream::Error::Transform { .. } => failure(ErrorClass::Defect, ExitCode::Defect, None),
    }
}

/// Settles a dump's run whose owner died: its tools are ended, a finished backup is recorded, everything else of it is
/// removed. Gives back the backup, where there is one.
pub(crate) async fn settle(runner: &Runner, database: &Database, open: &OpenRun) -> Result<Option<Backup>, String> {
    let scratch = scratch::path(&runner.policy.daemon.scratch_dir, &open.run.uuid);
    for left in process::find_by_argument(&scratch.to_string_lossy()) {
        process::end_group(left.pgid, GRACE).await;
    }
    if let Err(error) = scratch::remove(&scratch) {
        warn!(run_id = open.run.id, path = %scratch.display(), %error, "a dead run's scratch directory cannot be removed");
    }
    let site = Site { policy: &runner.policy, catalog: &runner.catalog, database };
    let opened = site.open_named().await;
    site.tidy(&opened).await.map_err(|problem| chain(&problem))?;
    let known = runner.catalog.known_backups(&database.name).await.map_err(|problem| chain(&problem))?;
    Ok(known.into_iter().find(|backup| backup.run_uuid.as_deref() == Some(&open.run.uuid)))
}
