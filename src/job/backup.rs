//! A full, differential or incremental backup with pgBackRest; dumps are made by `dump.rs`.
//!
//! Exit code 0 is not proof. The backup counts when it is found again in the repository by the run's id, with the type
//! that was really made, and without page checksum errors.

use super::{Context, Done, catalog_failure, dump, sync};
use crate::{
    clock,
    engine::pgbackrest::{
        BackupRequest, PgBackRest,
        info::{self, Cluster},
        log,
        version::Version,
    },
    error::ExitCode,
    human::size,
    human::took,
    policy::Database,
    postgres::{Client, Identity},
    record::{Backup, BackupStatus, BackupType, EngineKind, ErrorClass, Failure, RepoKey},
};

pub(super) async fn run(context: &Context) -> Result<Done, Failure> {
    match context.database().engine {
        EngineKind::PgBackRest => physical(context).await,
        EngineKind::PgDump | EngineKind::MySqlDump | EngineKind::Sqlite => dump::run(context).await,
    }
}

async fn physical(context: &Context) -> Result<Done, Failure> {
    let database = context.database();
    let backup_type = context.job().kind.backup_type().unwrap_or(BackupType::Full);
    // Read anew for each attempt, so that a rotated secret works without a restart.
    let tool = PgBackRest::of(database).map_err(sync::secret_failure)?;
    // Both only look, and each is a process of its own.
    let ((), before) = tokio::try_join!(is_fit(context, &tool), sync::look(database, &context.stop))?;
    ensure_stanza(context, &tool, &before).await?;
    same_cluster(database, context.repo(), &before).await?;
    let name = context.remarks.name.as_deref();
    let id = context.catalog.unique_backup_id(context.now(), name).await.map_err(catalog_failure)?;
    let annotations = annotations(context, &id, backup_type);
    let request = BackupRequest { repo: context.repo(), backup_type, annotations };
    let progress = |line: &str| {
        if let Some(percent) = log::percent(line) {
            context.progress.at(percent);
        }
    };
    context.tool("backup", &tool.backup(&request), progress).await?;
    context.progress.at(100.0);
    let made = read_back(context, &id, backup_type).await?;
    judge(context, &tool, &made).await?;
    Ok(Done { summary: summary(&made, backup_type), backup_id: Some(made.id) })
}

/// An impossible version is refused before anything is done.
async fn is_fit(context: &Context, tool: &PgBackRest) -> Result<(), Failure> {
    let said = sync::ask(&tool.version(), &context.stop).await?;
    let said = String::from_utf8_lossy(&said);
    if Version::read(&said).is_some_and(Version::is_fit) {
        return Ok(());
    }
    Err(Failure {
        class: ErrorClass::Config,
        exit: ExitCode::ToolNotFound,
        message: format!("`{}` is no version of pgBackRest that will do", said.trim()),
        remedy: Some(format!(
            "Install pgBackRest {} or later, or name another `binary` in the policy.",
            Version::OLDEST
        )),
    })
}

/// The annotations by which a backup is found again and the catalog can be rebuilt.
fn annotations(context: &Context, id: &str, requested: BackupType) -> Vec<(String, String)> {
    let remarks = &context.remarks;
    let tags = (!remarks.tags.is_empty()).then(|| remarks.tags.join(","));
    let all = [
        (info::RUN_ID, Some(context.run_uuid.clone())),
        (info::BACKUP_ID, Some(id.to_owned())),
        (info::JOB, Some(context.job().to_string())),
        (info::REQUESTED, Some(requested.to_string())),
        (info::BY, Some(context.requested_by.clone())),
        (info::NAME, remarks.name.clone()),
        (info::REASON, remarks.reason.clone()),
        (info::TAGS, tags),
    ];
    all.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
}

/// Creates the stanza where there is none. Where the catalog knows backups, a missing stanza is a loss and is never
/// papered over by a new one: that would make every old backup unreadable for good.
async fn ensure_stanza(context: &Context, tool: &PgBackRest, seen: &sync::Seen) -> Result<(), Failure> {
    let (repo, database) = (context.repo(), context.database());
    if !seen.is_missing(repo) {
        return seen.trouble(repo).map_or(Ok(()), Err);
    }
    let known = context.catalog.known_backups(&database.name).await.map_err(catalog_failure)?;
    if known.iter().any(|backup| backup.repo == repo) {
        let stanza = &database.pgbackrest.stanza;
        return Err(Failure {
            class: ErrorClass::Integrity,
            exit: ExitCode::Storage,
            message: format!("repository {repo} has no stanza `{stanza}`, but the catalog knows backups in it"),
            remedy: Some(
                "Is the repository mounted? If its info files were lost, bring them back before anything else; a new stanza would make the old backups unreadable."
                    .to_owned(),
            ),
        });
    }
    context.tool("stanza-create", &tool.stanza_create(), |_| {}).await.map(drop)
}

/// Stops when the server is not the cluster that the repository belongs to; nothing is compared where the policy has no
/// connection.
pub(super) async fn same_cluster(database: &Database, repo: RepoKey, seen: &sync::Seen) -> Result<(), Failure> {
    let Some(client) = Client::of(database).map_err(sync::secret_failure)? else { return Ok(()) };
    let server = client.identity().await?;
    let expected = seen.stanza.as_ref().and_then(|stanza| stanza.cluster(repo));
    expected.and_then(|cluster| other_cluster(cluster, &server)).map_or(Ok(()), Err)
}

/// What there is to say when a server is not the cluster that a repository belongs to.
pub(super) fn other_cluster(expected: &Cluster, server: &Identity) -> Option<Failure> {
    (expected.system_id != server.system_id).then(|| Failure {
        class: ErrorClass::Config,
        exit: ExitCode::Configuration,
        message: format!("the server is cluster {}, the stanza belongs to cluster {}", server.system_id, expected.system_id),
        remedy: Some(
            "Somebody made a new cluster, or the connection leads elsewhere. After a major upgrade run `pgbackrest stanza-upgrade`."
                .to_owned(),
        ),
    })
}

/// Finds the backup again by the run's id and records it.
async fn read_back(context: &Context, id: &str, requested: BackupType) -> Result<Backup, Failure> {
    let seen = sync::look(context.database(), &context.stop).await?;
    let Some(found) = seen.backup_of_run(context.repo(), &context.run_uuid) else {
        return Err(Failure {
            class: ErrorClass::Integrity,
            exit: ExitCode::VerificationFailed,
            message: "the tool ended well, but no backup in the repository carries the run's id".to_owned(),
            remedy: Some("Look at the run's log and at `pgbackrest info`; do not count on this backup.".to_owned()),
        });
    };
    let made = Backup { id: id.to_owned(), requested_type: requested, ..found.clone() };
    sync::remember(&context.catalog, context.database(), &seen).await.map_err(catalog_failure)?;
    Ok(made)
}

/// A backup in which the tool met wrong page checksums is kept, recorded as damaged, and fails its run.
async fn judge(context: &Context, tool: &PgBackRest, made: &Backup) -> Result<(), Failure> {
    if made.status != BackupStatus::Damaged {
        return Ok(());
    }
    let answer = sync::ask(&tool.info_set(made.repo, &made.label), &context.stop).await.unwrap_or_default();
    let stanza = info::read(&answer).ok().flatten();
    let files = match stanza.map(|stanza| stanza.damaged_files()).unwrap_or_default() {
        files if files.is_empty() => String::new(),
        files => format!(" in {}", files.join(", ")),
    };
    Err(Failure {
        class: ErrorClass::Integrity,
        exit: ExitCode::VerificationFailed,
        message: format!("backup {} has page checksum errors{files}", made.label),
        remedy: Some(
            "The database itself is damaged: check its disks, and these files with `pg_amcheck`. Older backups may hold the pages unharmed; retention keeps the newest good one."
                .to_owned(),
        ),
    })
}

fn summary(made: &Backup, requested: BackupType) -> String {
    let kind = if made.backup_type == requested {
        made.backup_type.to_string()
    } else {
        format!("{} (a {requested} was asked for, there was nothing to build on)", made.backup_type)
    };
    let stored = made.repo_delta.map_or_else(String::new, |bytes| format!(", {} stored", size(bytes)));
    let took = took(clock::age(made.stopped_at, made.started_at));
    format!("{kind} backup {} of {}: {} copied{stored}, in {took}", made.label, size(made.size), size(made.delta))
}
