//! `backstop status`: the promise, answered.

use super::{
    Answer,
    session::{self, Session, catalog_error},
};
use chrono::TimeDelta;

use crate::{
    clock,
    error::{Error, ExitCode},
    record::DatabaseName,
    report,
};

/// What may be asked.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The database; all when left out
    database: Option<DatabaseName>,
    /// Exit with 10 when something is alarming, with 11 when the state is unknown
    #[arg(long)]
    check: bool,
}

pub(super) async fn run(session: &Session, options: &Options) -> Result<Answer, Error> {
    if session.now < clock::now() - TimeDelta::minutes(1) {
        return Err(Error::new(
            ExitCode::Usage,
            "`status` knows only what is known now, so it cannot answer for the past",
        )
        .hint("`--at` takes a time to come; `history`, `list` and `wal` tell what was."));
    }
    let (policy, catalog, notice) = match session.policy_for_looking().await {
        Ok(found) => found,
        // A monitor must be able to tell "bad" from "cannot say".
        Err(error) if options.check && error.exit() == ExitCode::Storage => return Ok(unknown(&error)),
        Err(error) => return Err(error),
    };
    if let Some(name) = &options.database {
        session::find(&policy, name)?;
    }
    let mut status =
        report::status(&policy, &catalog, options.database.as_ref(), session.now).await.map_err(catalog_error)?;
    status.notices.extend(notice);
    let alarms: usize = status.databases.iter().map(|database| database.alarms.len()).sum();
    let message = match alarms + status.notices.len() {
        0 => format!("{} databases, nothing alarming", status.databases.len()),
        count => format!("{} databases, {count} alarms", status.databases.len()),
    };
    let text = report::text::status(&status, policy.daemon.timezone);
    let mut answer = Answer::new("status", serde_json::to_value(&status).unwrap_or_default(), message, text);
    if options.check {
        answer.exit = match (status.is_unknown(), status.is_alarming()) {
            (true, _) => ExitCode::Unknown,
            (false, true) => ExitCode::Alarming,
            (false, false) => ExitCode::Done,
        };
    }
    Ok(answer)
}

fn unknown(error: &Error) -> Answer {
    let mut answer =
        Answer::new("status", serde_json::Value::Null, error.chain(), format!("unknown: {}", error.chain()));
    answer.exit = ExitCode::Unknown;
    answer
}
