//! May anything be deleted by this clock?
//!
//! Rules that count days end everything but the floors when the clock says next year. So a clock that moved in a way
//! that no work of ours explains freezes all deletions until a person has looked and said `backstop catalog accept`.
//! The freeze is an open alert in the catalog: it outlives restarts and holds for the command line too.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::{
    catalog::{self, Catalog},
    clock::age,
    human::length,
    record::RunId,
};

/// The kind of the alert.
const KIND: &str = "clock";
/// The catalog's own nightly copy is a run each day; a longer silence was a machine that was off, or a clock that lies.
const SILENCE: Duration = Duration::from_secs(7 * 86_400);
/// Clocks of one machine do not disagree with themselves by more than this.
const BACKWARDS: Duration = Duration::from_secs(60);

/// Why nothing may be deleted now; `run` is the run that asks.
pub(crate) async fn frozen(
    catalog: &Catalog,
    run: RunId,
    now: DateTime<Utc>,
) -> Result<Option<String>, catalog::Error> {
    if let Some(message) = frozen_since(catalog).await? {
        return Ok(Some(message));
    }
    let reason = catalog.last_event_before(run).await?.and_then(|last| strange(last, now));
    if let Some(reason) = &reason {
        freeze(catalog, reason, now).await?;
    }
    Ok(reason)
}

/// Why nothing may be deleted since an earlier look at the clock.
pub(crate) async fn frozen_since(catalog: &Catalog) -> Result<Option<String>, catalog::Error> {
    let open = catalog.open_alerts().await?;
    let alert = open.into_iter().find(|alert| alert.database.is_none() && alert.kind == KIND);
    Ok(alert.map(|alert| alert.message))
}

/// Freezes all deletions.
pub(crate) async fn freeze(catalog: &Catalog, reason: &str, now: DateTime<Utc>) -> Result<(), catalog::Error> {
    catalog.raise(None, KIND, reason, now).await.map(drop)
}

/// Ends the freeze: a person looked at the clock.
pub(crate) async fn thaw(catalog: &Catalog, now: DateTime<Utc>) -> Result<bool, catalog::Error> {
    catalog.clear(None, KIND, now).await
}

/// What is strange about `now` after something happened at `last`.
fn strange(last: DateTime<Utc>, now: DateTime<Utc>) -> Option<String> {
    let (silent, ahead) = (age(now, last), age(last, now));
    if silent > SILENCE {
        return Some(format!(
            "nothing happened for {} by this clock, since {}",
            length(silent),
            last.format("%F %T UTC")
        ));
    }
    (ahead > BACKWARDS).then(|| format!("this clock is {} behind the last thing that happened", length(ahead)))
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn a_clock_is_strange_when_it_skipped_a_week_or_went_back() {
        let last = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        assert_eq!(strange(last, last), None);
        assert_eq!(strange(last, last + TimeDelta::days(7)), None);
        assert_eq!(strange(last, last - TimeDelta::seconds(60)), None);
        assert!(strange(last, last + TimeDelta::days(400)).unwrap().contains("400d"));
        assert!(strange(last, last - TimeDelta::days(1)).unwrap().contains("1d behind"));
    }
}
