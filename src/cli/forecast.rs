//! `backstop forecast`: what will be made, kept and deleted, when and why, and how much storage that takes.
//!
//! With `--at` what happens until then is reckoned with and not told. It only looks, at the catalog alone: no tool and no
//! storage is asked. A newcomer would answer for the past; what was there then is not known any more.

use chrono::{Datelike, TimeDelta};
use chrono_tz::Tz;
use serde_json::json;

use super::{
    Answer,
    session::{self, Session, catalog_error},
};
use crate::{
    catalog::Catalog,
    clock,
    error::{Error, ExitCode},
    forecast::{Day, Deletion, Forecast, Question, forecast},
    human::size,
    job::guard,
    policy::{Database, Policy},
    record::DatabaseName,
    report::text,
};

/// Up to so many days are told one by one, more by the week.
const DAY_BY_DAY: u32 = 14;

/// What may be asked.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The database; all when left out
    database: Option<DatabaseName>,
    /// How many days after today
    #[arg(long, default_value_t = 30, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3660))]
    days: u32,
    /// How many of the next deletions are told of each database; 0 is all
    #[arg(long, default_value_t = 10, value_name = "N")]
    deletions: usize,
}

pub(super) async fn run(session: &Session, options: &Options) -> Result<Answer, Error> {
    let now = clock::now();
    if session.now < now - TimeDelta::minutes(1) {
        return Err(Error::new(
            ExitCode::Usage,
            "`forecast` begins with what is there now, so it cannot tell the past",
        )
        .hint("`--at` takes a time to come; `history` and `list --expired` tell what was."));
    }
    let (policy, catalog, notice) = session.policy_for_looking().await?;
    if let Some(name) = &options.database {
        session::find(&policy, name)?;
    }
    let mut notices: Vec<String> = notice.into_iter().collect();
    if catalog.recovery_mode().await.map_err(catalog_error)?.is_some() {
        notices.push("nothing is deleted in recovery mode; the forecast is as if it had been accepted".to_owned());
    }
    if let Some(why) = guard::frozen_since(&catalog).await.map_err(catalog_error)? {
        notices.push(format!("nothing is deleted: {why}; the forecast is as if that had been accepted"));
    }
    let mut forecasts = Vec::new();
    for database in policy.databases.values().filter(|it| options.database.as_ref().is_none_or(|name| *name == it.name))
    {
        forecasts.extend(of_database(session, options, &policy, database, &catalog).await?);
    }
    let zone = policy.daemon.timezone;
    let page: String = notices.iter().map(|notice| format!("! {notice}\n")).collect();
    let text = page + &forecasts.iter().map(|forecast| render(forecast, options.days, zone)).collect::<String>();
    let count = |of: fn(&Day) -> u32| forecasts.iter().flat_map(|it| &it.days).map(of).sum::<u32>();
    let message =
        format!("{} days: {} backups made, {} deleted", options.days, count(|it| it.made), count(|it| it.deleted));
    let result = json!({ "days": options.days, "notices": notices, "forecasts": forecasts });
    Ok(Answer::new("forecast", result, message, text))
}

async fn of_database(
    session: &Session,
    options: &Options,
    policy: &Policy,
    database: &Database,
    catalog: &Catalog,
) -> Result<Vec<Forecast>, Error> {
    let now = clock::now();
    let backups = catalog.backups(&database.name).await.map_err(catalog_error)?;
    let former = catalog.guarding(&database.name, &database.retention, now).await.map_err(catalog_error)?;
    let of_repo = |&repo| {
        let (backups, former, from, days) = (&backups[..], &former[..], session.now, options.days);
        let mut told = forecast(&Question { policy, database, repo, backups, former, now, from, days });
        // Years of many databases have millions of them.
        if options.deletions > 0 {
            told.deletions.truncate(options.deletions);
            told.deletions.shrink_to_fit();
        }
        told.left = Vec::new();
        told
    };
    Ok(database.repos().iter().map(of_repo).collect())
}

fn render(forecast: &Forecast, days: u32, zone: Tz) -> String {
    let mut page = match forecast.repo {
        0 => format!("{}\n", forecast.database),
        repo => format!("{} repo {repo}\n", forecast.database),
    };
    page.push_str(&spans(&forecast.days, days));
    page.push('\n');
    if !forecast.deletions.is_empty() {
        page.push_str(&deletions(&forecast.deletions, zone));
        page.push('\n');
    }
    for note in &forecast.notes {
        page.push_str(&format!("! {note}\n"));
    }
    page.push('\n');
    page
}

/// A row a day or a week.
fn spans(days: &[Day], asked: u32) -> String {
    let is_daily = asked <= DAY_BY_DAY;
    let mut table = text::table(&[if is_daily { "DAY" } else { "WEEK FROM" }, "MADE", "DELETED", "KEPT", "STORED"]);
    for span in days.chunk_by(|a, b| !is_daily && a.date.iso_week() == b.date.iso_week()) {
        let (Some(first), Some(last)) = (span.first(), span.last()) else { continue };
        let sum = |of: fn(&Day) -> u32| span.iter().map(of).sum::<u32>().to_string();
        let (made, deleted) = (sum(|day| day.made), sum(|day| day.deleted));
        table.add_row([first.date.to_string(), made, deleted, last.kept.to_string(), size(last.stored_bytes)]);
    }
    text::plain(&table)
}

fn deletions(deletions: &[Deletion], zone: Tz) -> String {
    let mut table = text::table(&["DELETED", "LABEL", "TYPE", "STORED", "WHY"]);
    for deletion in deletions {
        let Deletion { at, label, backup_type, stored_bytes, reason, .. } = deletion;
        table.add_row([&text::local(*at, zone), label, backup_type.as_str(), &size(*stored_bytes), reason]);
    }
    text::plain(&table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(date: &str, deleted: u32) -> Day {
        Day { date: date.parse().unwrap(), made: 1, deleted, kept: 9, stored_bytes: 1536 }
    }

    #[test]
    fn up_to_two_weeks_are_told_by_the_day_and_more_by_the_week() {
        let days = [day("2026-12-31", 0), day("2027-01-03", 2), day("2027-01-04", 1)];
        insta::assert_snapshot!(spans(&days, 4), @r"
        DAY         MADE  DELETED  KEPT  STORED
        2026-12-31  1     0        9     1.5 KiB
        2027-01-03  1     2        9     1.5 KiB
        2027-01-04  1     1        9     1.5 KiB
        ");
        insta::assert_snapshot!(spans(&days, 15), @r"
        WEEK FROM   MADE  DELETED  KEPT  STORED
        2026-12-31  2     2        9     1.5 KiB
        2027-01-04  1     1        9     1.5 KiB
        ");
    }
}
