//! `backstop history`: what ran, what did not, and why.

use super::{
    Answer,
    session::{self, Session, catalog_error},
};
use crate::{
    catalog::RunFilter,
    error::Error,
    record::{DatabaseName, JobKind, RunState},
    report::text,
};

/// What may be asked.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Only this database
    database: Option<DatabaseName>,
    /// Only this kind of job: full, diff, incr, wal, expire, verify, test_restore, catalog_backup
    #[arg(long)]
    kind: Option<JobKind>,
    /// Only runs that failed
    #[arg(long)]
    failed: bool,
    /// Slots that did not run, with the reason, instead of runs
    #[arg(long)]
    skipped: bool,
    /// At most so many
    #[arg(long, default_value_t = 30, value_name = "N")]
    limit: u32,
}

pub(super) async fn run(session: &Session, options: &Options) -> Result<Answer, Error> {
    let (policy, catalog, _) = session.policy_for_looking().await?;
    let zone = policy.daemon.timezone;
    if options.skipped {
        let slots = catalog.skipped_slots(options.database.as_ref(), options.limit).await.map_err(catalog_error)?;
        let mut table = text::table(&["NOMINAL", "JOB", "STATE", "WHY"]);
        for slot in &slots {
            table.add_row([
                text::local(slot.nominal_at, zone),
                slot.job.to_string(),
                slot.state.to_string(),
                slot.reason.clone(),
            ]);
        }
        let message = format!("{} slots that did not run", slots.len());
        let result = serde_json::json!({ "slots": slots });
        return Ok(Answer::new("history", result, message, text::plain(&table)));
    }
    let filter = RunFilter {
        database: options.database.clone(),
        kind: options.kind,
        state: options.failed.then_some(RunState::Failed),
        limit: options.limit,
        ..RunFilter::default()
    };
    let runs = catalog.runs(&filter).await.map_err(catalog_error)?;
    if let Some(name) = options.database.as_ref().filter(|_| runs.is_empty()) {
        session::find(&policy, name)?;
    }
    let message = format!("{} runs", runs.len());
    let text = text::history(&runs, zone);
    Ok(Answer::new("history", serde_json::json!({ "runs": runs }), message, text))
}
