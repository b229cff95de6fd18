//! `backstop wal`: looks at archiving now and tells the ranges that can be recovered to.

use serde_json::json;

use super::{
    Answer,
    act::{self, Act},
    session::{self, Session, catalog_error},
};
use crate::{
    catalog::{self, Catalog},
    error::{Error, ExitCode},
    policy::Database,
    record::{DatabaseName, JobKind, WalSample, Window},
    report::{self, text},
};

/// Holes that are too young to be an alarm.
const GAPS: &str = "there are holes that may still fill; they are an alarm when they stay for `gap_grace`";

pub(super) async fn run(session: &Session, wanted: Option<&DatabaseName>) -> Result<Answer, Error> {
    let policy = session.policy()?;
    if let Some(name) = wanted
        && session::find(&policy, name)?.engine.is_dump()
    {
        let message = format!("`{name}` is dumped, so there is no WAL to look at");
        return Err(Error::new(ExitCode::Configuration, message).hint("`backstop status` tells what may be lost."));
    }
    let mut page = String::new();
    let mut results = Vec::new();
    let mut has_gaps = false;
    let mut worst: Option<Error> = None;
    let is_wanted =
        |database: &&Database| wanted.is_none_or(|name| *name == database.name) && !database.engine.is_dump();
    for database in policy.databases.values().filter(is_wanted) {
        let catalog = session.write_catalog(&policy).await?;
        let key = act::key(database, JobKind::Wal, None)?;
        let act = Act::begin(session, policy.clone(), catalog, &key).await?;
        let outcome = act.run("wal", &act::request(session, key)).await;
        let catalog = &act.runner.catalog;
        let sample = catalog.latest_wal_sample(&database.name).await.map_err(catalog_error)?;
        let windows = ranges(catalog, database).await.map_err(catalog_error)?;
        page.push_str(&describe(database, sample.as_ref(), &windows, policy.daemon.timezone));
        has_gaps |= sample.as_ref().is_some_and(|sample| sample.gaps.values().any(|gaps| !gaps.is_empty()));
        results.push(json!({ "database": database.name, "sample": sample, "windows": windows }));
        worst = worst.or(outcome.err());
    }
    let Some(worst) = worst else {
        let message = if has_gaps { GAPS } else { "archiving is healthy" };
        return Ok(Answer::new("wal", json!({ "databases": results }), message, page));
    };
    if session.json {
        return Err(worst);
    }
    let mut answer = Answer::new("wal", json!({}), worst.chain(), format!("{page}{}", worst.report()));
    answer.exit = if worst.exit() == ExitCode::Done { ExitCode::VerificationFailed } else { worst.exit() };
    Ok(answer)
}

async fn ranges(catalog: &Catalog, database: &Database) -> Result<Vec<Window>, catalog::Error> {
    let backups = catalog.known_backups(&database.name).await?;
    let windows = catalog.windows(&database.name).await?;
    let judged_at = catalog.judged_at(&database.name, &database.pgbackrest.repos).await?;
    Ok(report::ranges::ranges(database, &backups, &windows, &judged_at))
}

fn describe(database: &Database, sample: Option<&WalSample>, windows: &[Window], zone: chrono_tz::Tz) -> String {
    let mut page = format!("{}\n", database.name);
    let mut line = |name: &str, value: String| page.push_str(&format!("  {name:<15}{value}\n"));
    if let Some(sample) = sample {
        let archived = sample.last_archived_wal.clone().unwrap_or_else(|| "nothing".to_owned());
        let at = sample.last_archived_at.map_or_else(String::new, |at| format!(" at {}", text::local(at, zone)));
        line("last archived", format!("{archived}{at}"));
        if let Some(ready) = sample.ready_count {
            line("waiting", format!("{ready} segments"));
        }
        for (repo, segment) in &sample.contiguous_to {
            line("no hole up to", format!("{segment} in repo {repo}"));
        }
        for (repo, gaps) in &sample.gaps {
            gaps.iter().for_each(|gap| line("GAP", format!("{gap} is missing in repo {repo}")));
        }
        sample.problems.iter().for_each(|problem| line("PROBLEM", problem.clone()));
    }
    for window in windows {
        line("recoverable", text::span(window, zone));
    }
    if windows.is_empty() {
        line("recoverable", "no range: there is no good backup with WAL after it".to_owned());
    }
    page
}
