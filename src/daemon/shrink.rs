//! The retention rules of a policy are put in force, and what a change of them newly ends is told.
//!
//! Adopting is one transaction over the databases whose rules changed. Telling comes after and beside the loop: where a
//! default changed it looks at every database, and no slot waits for a sentence. Nothing here protects anything; former
//! rules guard by themselves, adopted or not, so trouble here is no reason to refuse a policy.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use tracing::{debug, error, warn};

use crate::{
    catalog::{self, Catalog},
    clock::{self, Stopwatch},
    error::chain,
    job::expire::shrink::{self, Shrink},
    policy::{Policy, Retention},
    record::DatabaseName,
    retention::FormerRules,
};

/// How many backups are told by name.
const TOLD: usize = 20;

/// Puts the rules of all databases in force, and tells soon what they newly end.
pub(super) async fn adopt(catalog: &Catalog, policy: &Arc<Policy>) {
    let now = clock::now();
    match replace(catalog, policy, now).await {
        Ok(former) if former.is_empty() => {}
        Ok(former) => drop(tokio::spawn(tell(catalog.clone(), policy.clone(), former, now))),
        Err(problem) => error!(error = %chain(&problem), "retention rules cannot be recorded; the next `expire` tries"),
    }
}

/// Replaces the rules that changed, and gives back those before them.
async fn replace(
    catalog: &Catalog,
    policy: &Policy,
    now: DateTime<Utc>,
) -> Result<Vec<(DatabaseName, Retention)>, catalog::Error> {
    let watch = Stopwatch::start();
    let changed = shrink::changed(catalog, policy).await?;
    if changed.is_empty() {
        return Ok(Vec::new());
    }
    let rules: Vec<_> = changed.iter().map(|(database, _)| (&database.name, database.rules())).collect();
    let borrowed: Vec<_> = rules.iter().map(|(name, rules)| (*name, rules)).collect();
    catalog.adopt_rules(&borrowed, now).await?;
    debug!(databases = rules.len(), "retention rules adopted in {} ms", watch.elapsed().as_millis());
    Ok(changed.into_iter().filter_map(|(database, former)| Some((database.name.clone(), former?))).collect())
}

async fn tell(catalog: Catalog, policy: Arc<Policy>, former: Vec<(DatabaseName, Retention)>, now: DateTime<Utc>) {
    for (name, former) in former {
        let Some(database) = policy.databases.get(&name) else { continue };
        match shrink::look(&catalog, &policy, database, &[FormerRules::replaced(former, now)], now).await {
            Ok(shrink) => {
                if let Some(line) = told(&shrink, now) {
                    warn!(database = %name, "{line}");
                }
            }
            Err(problem) => {
                error!(database = %name, error = %chain(&problem), "what its new rules end cannot be told");
            }
        }
    }
}

/// None when nothing is newly ended.
fn told(shrink: &Shrink, now: DateTime<Utc>) -> Option<String> {
    let guarded_until = shrink.newly_ended.iter().map(|ended| ended.guarded_until).min()?;
    let labels = shrink.newly_ended.iter().map(|ended| ended.decision.label.as_str());
    let some: Vec<&str> = labels.take(TOLD).collect();
    let more = match shrink.newly_ended.len() - some.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let when = match guarded_until > now {
        true => format!("not before {}", guarded_until.format("%F %T UTC")),
        false => "at the next expire, for `shrink_grace` was 0".to_owned(),
    };
    Some(format!(
        "the new retention rules of {0} newly end {1} backups: {2}{more}; they go {when}; look with `backstop expire {0} \
         --dry-run`; `backstop expire {0} --accept` does not wait",
        shrink.database,
        shrink.newly_ended.len(),
        some.join(", "),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{job::expire::shrink::NewlyEnded, retention::Decision};

    #[test]
    fn what_is_newly_ended_is_told_with_its_day_and_the_word_that_does_not_wait() {
        let now: DateTime<Utc> = "2026-11-20T12:00:00Z".parse().unwrap();
        let shrink = |count: usize, guarded_until| Shrink {
            database: "shop".parse().unwrap(),
            newly_ended: (1..=count)
                .map(|n| NewlyEnded {
                    decision: Decision {
                        backup_id: String::new(),
                        label: format!("backup-{n}"),
                        repo: 0,
                        keep: false,
                        reasons: Vec::new(),
                    },
                    guarded_until,
                })
                .collect(),
        };
        assert_eq!(told(&shrink(0, now), now), None);
        insta::assert_snapshot!(told(&shrink(2, now + chrono::TimeDelta::days(1)), now).unwrap(), @"the new retention rules of shop newly end 2 backups: backup-1, backup-2; they go not before 2026-11-21 12:00:00 UTC; look with `backstop expire shop --dry-run`; `backstop expire shop --accept` does not wait");
        let many = told(&shrink(25, now), now).unwrap();
        assert!(many.contains("backup-20 and 5 more; they go at the next expire, for `shrink_grace` was 0"), "{many}");
    }
}
