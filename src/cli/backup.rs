//! `backstop backup`: a backup now, by the same locks, catalog and code as the daemon's.

use super::{
    Answer,
    act::{self, Act},
    list,
    session::{self, Session},
};
use crate::{
    error::{Error, ExitCode},
    job::Remarks,
    policy::Database,
    record::{BackupType, DatabaseName, JobKind, RepoKey, UnknownWord},
};

/// What may be asked.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The database
    database: DatabaseName,
    /// How much to copy: full, diff or incr; incr when left out, where the engine has it
    #[arg(long = "type", value_name = "TYPE", value_parser = backup_type)]
    backup_type: Option<BackupType>,
    /// The repository, where there are several; the first when left out
    #[arg(long, value_name = "N")]
    repo: Option<RepoKey>,
    /// A name for it: a-z, 0-9 and `-`, at most 32 characters
    #[arg(long, value_parser = label)]
    label: Option<String>,
    /// Why it is made; one that begins with pre-migration, pre-rollback or pre-restore is kept for 90 days
    #[arg(long)]
    reason: Option<String>,
    /// A free word; may be repeated. `important` keeps the backup whatever the rules say
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Keep it so many days, whatever the rules say, and end it after them; no rule counts it. For dumps
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    retention: Option<u32>,
}

/// The words of the policy, long and short.
fn backup_type(text: &str) -> Result<BackupType, String> {
    match text {
        "differential" => Ok(BackupType::Diff),
        "incremental" => Ok(BackupType::Incr),
        word => word.parse().map_err(|unknown: UnknownWord| unknown.to_string()),
    }
}

fn label(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if (1..=32).contains(&text.len()) && text.chars().all(good) {
        Ok(text.to_owned())
    } else {
        Err("use 1 to 32 of a-z, 0-9 and `-`".to_owned())
    }
}

/// The type that is made, where the engine can make what is asked for.
fn fitting_type(database: &Database, options: &Options) -> Result<BackupType, Error> {
    let is_dump = database.engine.is_dump();
    match options.backup_type {
        Some(asked @ (BackupType::Diff | BackupType::Incr)) if is_dump => {
            let what =
                format!("a dump by {} is always full, so there is no {asked} of `{}`", database.engine, database.name);
            Err(Error::new(ExitCode::Usage, what).hint("Leave out `--type`."))
        }
        _ if !is_dump && options.retention.is_some() => {
            let what = format!("`--retention` is for dumps, and `{}` is backed up by pgBackRest", database.name);
            Err(Error::new(ExitCode::Usage, what)
                .hint("`backstop hold` keeps a single backup; the policy's `retention` decides about the others."))
        }
        asked => Ok(asked.unwrap_or(if is_dump { BackupType::Full } else { BackupType::Incr })),
    }
}

pub(super) async fn run(session: &Session, options: &Options) -> Result<Answer, Error> {
    let policy = session.policy()?;
    let database = session::find(&policy, &options.database)?;
    let backup_type = fitting_type(database, options)?;
    let several = database.pgbackrest.repos.len() > 1 && !database.engine.is_dump();
    let repo = options.repo.or_else(|| several.then(|| database.pgbackrest.repos[0]));
    let key = act::key(database, JobKind::from(backup_type), repo)?;
    let catalog = session.write_catalog(&policy).await?;
    let act = Act::begin(session, policy, catalog, &key).await?;
    let mut request = act::request(session, key);
    request.remarks = Remarks {
        name: options.label.clone(),
        reason: options.reason.clone(),
        tags: options.tags.clone(),
        retention_days: options.retention,
    };
    let mut answer = act.run("backup", &request).await?;
    if let Some(id) = answer.result["backup_id"].as_str().map(str::to_owned) {
        let backup = act.runner.catalog.backup(&id).await.map_err(session::catalog_error)?;
        let backup = backup
            .ok_or_else(|| Error::new(ExitCode::Defect, format!("backup `{id}` was made but is not in the catalog")))?;
        let forms = list::machine_forms(&act.runner.policy, &act.runner.catalog, &[backup]).await?;
        answer.result["backup"] = forms.into_iter().next().unwrap_or_default();
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::{policy::Policy, record::EngineKind};

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn asked(engine: EngineKind, line: &str) -> Result<BackupType, String> {
        let text = "[database.orders]\nenvironment = \"staging\"\n".to_owned();
        let policy = Policy::parse(vec![("p.toml".into(), text)]).unwrap();
        let database = Database { engine, ..policy.databases.into_values().next().unwrap() };
        let line = Line::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())?;
        fitting_type(&database, &line.options).map_err(|error| format!("{} {error}", u8::from(error.exit())))
    }

    #[test]
    fn a_dump_is_full_and_nothing_else() {
        assert_eq!(asked(EngineKind::PgDump, "backup orders"), Ok(BackupType::Full));
        assert_eq!(asked(EngineKind::Sqlite, "backup orders --type full --retention 7"), Ok(BackupType::Full));
        let refused = asked(EngineKind::MySqlDump, "backup orders --type incr").unwrap_err();
        assert_eq!(refused, "64 a dump by mysqldump is always full, so there is no incr of `orders`");
    }

    #[test]
    fn pgbackrest_builds_on_what_is_there_and_knows_no_days() {
        assert_eq!(asked(EngineKind::PgBackRest, "backup orders"), Ok(BackupType::Incr));
        assert_eq!(asked(EngineKind::PgBackRest, "backup orders --type differential"), Ok(BackupType::Diff));
        let refused = asked(EngineKind::PgBackRest, "backup orders --retention 7").unwrap_err();
        assert!(refused.starts_with("64 `--retention` is for dumps"), "{refused}");
        assert!(asked(EngineKind::PgDump, "backup orders --retention 0").is_err());
    }
}
