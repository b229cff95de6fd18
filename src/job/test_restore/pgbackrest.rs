//! A test restore by pgBackRest: the backup's files, the WAL after it, and a recovery up to the mark that production got.
//!
//! The backup and the WAL are fetched outside with the repository's secrets; the recovery happens inside a sandbox that
//! has no secret, no network and no directory of production. Production is marked before ("canary"), so that the copy
//! can be seen to have reached that moment and not just any end. The parts, in the order of a restore: `production.rs` is
//! what production is asked, `wal.rs` which segments and how they come, `recovery.rs` the server.
//!
//! A newcomer would let the sandbox fetch what it needs; it would need the repository's secrets for that.

mod production;
mod recovery;
mod wal;

use std::path::Path;

use self::production::{Canary, Production};
use super::{
    Context, Way, catalog_failure, checks, failure, of_restore,
    scratch::Scratch,
    steps::{self, Checked},
    sync,
    walls::{self, Ground},
};
use crate::{
    engine::pgbackrest::{PgBackRest, RestoreRequest, exit, log},
    record::{Backup, ErrorClass, Failure},
    sandbox::{Cluster, Layout},
};

/// The steps of such a restore.
const PLAN: steps::Plan = steps::Plan {
    order: &[
        "backup",
        "isolation",
        "programs",
        "production",
        "scratch",
        "space",
        "canary",
        "restore",
        "archive",
        "configuration",
        "fetch_wal",
        "walls",
        "recovery",
        "connect",
        "size",
        "read_every_row",
        "assertions",
        "amcheck",
        "checksums",
    ],
    mandatory: &["restore", "fetch_wal", "walls", "recovery", "connect", "read_every_row"],
    verdict_from: "restore",
    recovery: &["restore", "fetch_wal", "recovery"],
};

/// What is restored.
pub(super) struct Restore {
    /// The newest good backup.
    pub(super) backup: Backup,
    archive_id: Option<String>,
}

impl Restore {
    /// Chooses the newest backup in the repository.
    pub(super) async fn choose(context: &Context) -> Result<Self, Failure> {
        let seen = sync::look(context.database(), &context.stop).await?;
        sync::remember(&context.catalog, context.database(), &seen).await.map_err(catalog_failure)?;
        let backup = newest_backup(context, &seen).await?;
        let archive_id = seen.archive_id(backup.repo);
        Ok(Self { backup, archive_id })
    }

    /// The steps.
    pub(super) const fn plan(&self) -> &'static steps::Plan {
        &PLAN
    }

    /// Every step up to the last check; the server is gone when it returns, or is dropped.
    pub(super) async fn prove(&self, context: &Context, way: &mut Way) -> Result<(), Failure> {
        let (backup, Way { steps, facts, scratch }) = (&self.backup, way);
        let tool = steps.run("backup", choose(context, backup)).await?;
        let isolation = steps.run("isolation", walls::isolate()).await?;
        facts.isolation = isolation.to_string();
        let find = walls::find_postgres(context, &backup.server_version, &recovery::PROGRAMS);
        let programs = steps.run("programs", find).await?;
        let production = steps.run("production", Production::ask(context, backup)).await?;
        let theirs = production.directories();
        let made = steps.run("scratch", Scratch::make(context, &theirs)).await?;
        let layout = scratch.insert(made).layout().clone();
        let archive = wal::Archive::new(context, &tool, backup, self.archive_id.clone(), &production);
        steps.run("space", archive.check_space(&layout)).await?;
        let canary = steps.run("canary", mark(context, &production, &archive)).await?;

        let cluster = steps.run("restore", restore(context, &tool, backup, &layout, &programs, &production)).await?;
        let plan = steps.run("archive", archive.plan(canary, cluster.segment_size)).await?;
        facts.expected_lsn = Some(plan.expected.to_string());
        steps.run("configuration", recovery::configure(&layout, &cluster, &plan)).await?;
        steps.run("fetch_wal", archive.fetch(&plan, &layout, cluster.segment_size)).await?;
        let ground = Ground { layout, programs, production: &theirs, tablespaces: &production.tablespaces };
        let sandbox = steps.run("walls", walls::build_walls(context, ground)).await?;
        let (server, copy) = steps.run("recovery", recovery::recover(context, &sandbox, &plan, &production)).await?;
        facts.wal_segments = u32::try_from(server.log().segments.len()).unwrap_or(u32::MAX);
        facts.reached_lsn = Some(copy.reached.to_string());
        facts.recovered_to = copy.recovered_to.or(Some(backup.stopped_at));

        let (client, superuser) = (&copy.client, production.superuser.as_str());
        let databases = steps.run("connect", checks::connect(client)).await?;
        facts.size = steps.run("size", checks::size(client)).await?;
        steps.run("read_every_row", checks::read_every_row(context, &sandbox, superuser, &databases)).await?;
        steps.run("assertions", checks::assertions(context, client, "postgres")).await?;
        steps.run("amcheck", checks::amcheck(context, client, &sandbox, superuser)).await?;
        steps.run("checksums", checks::checksums(context, server, &sandbox, &cluster)).await
    }
}

async fn newest_backup(context: &Context, seen: &sync::Seen) -> Result<Backup, Failure> {
    let (name, repo) = (&context.database().name, context.repo());
    let backups = context.catalog.backups(name).await.map_err(catalog_failure)?;
    // Without WAL of its own a backup cannot be recovered from the archive, only trusted.
    let is_present = |backup: &Backup| seen.cluster(repo).is_none_or(|cluster| cluster.system_id == backup.system_id);
    let is_sound = |backup: &Backup| backup.repo == repo && backup.is_good() && backup.wal_start.is_some();
    let fit = |backup: &Backup| is_sound(backup) && is_present(backup);
    let newest = backups.into_iter().filter(fit).max_by_key(|backup| backup.stopped_at);
    newest.ok_or_else(|| {
        let message = format!("repository {repo} holds no good backup of `{name}` to restore");
        failure(ErrorClass::Config, message, "Make a full backup first.")
    })
}

async fn choose(context: &Context, backup: &Backup) -> steps::Result<PgBackRest> {
    let tool = PgBackRest::of(context.database()).map_err(sync::secret_failure)?;
    let stopped_at = backup.stopped_at.format("%Y-%m-%d %H:%M:%S UTC");
    let detail = format!("{} {} in repository {}, of {stopped_at}", backup.backup_type, backup.label, backup.repo);
    Ok(Checked::passed(tool, detail))
}

/// Marks production and waits until the mark is in the archive, so that it must be in the copy.
async fn mark(context: &Context, production: &Production, archive: &wal::Archive<'_>) -> steps::Result<Option<Canary>> {
    let canary = match production.mark(context).await? {
        Ok(canary) => canary,
        Err(reason) => return Ok(Checked::skipped(None, reason)),
    };
    archive.wait_for(canary.segment).await?;
    let detail = format!("restore point `{}` at {}, archived in {}", canary.name, canary.lsn, canary.segment);
    Ok(Checked::passed(Some(canary), detail))
}

/// Restores the backup's files, and reads of which cluster they are.
async fn restore(
    context: &Context,
    tool: &PgBackRest,
    backup: &Backup,
    layout: &Layout,
    programs: &Path,
    production: &Production,
) -> steps::Result<Cluster> {
    let request = RestoreRequest {
        repo: backup.repo,
        label: backup.label.clone(),
        data_dir: layout.data(),
        tablespace_dir: layout.tablespaces(),
        work_dir: layout.work(),
        process_max: context.database().pgbackrest.process_max,
    };
    let on_line = |line: &str| log::percent(line).into_iter().for_each(|percent| context.progress.at(percent));
    let finished = context.tool("restore", &tool.restore(&request), on_line).await?;
    if !finished.ok() {
        let cause = exit::explain(&finished.ending, finished.tail.iter().map(String::as_str));
        return Err(of_restore("the restore of the backup failed", cause));
    }
    let cluster = recovery::control_data(context, programs, backup, layout, production).await?;
    Ok(Checked::passed(cluster, format!("{} MiB", backup.size >> 20)))
}
