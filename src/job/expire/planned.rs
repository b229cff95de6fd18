//! Our own plan, carried out by pgBackRest.
//!
//! Before anything goes, each removal is tried with `--dry-run`; what the tool would remove must equal what the plan
//! says, or nothing is run. Right before its turn each is tried once more, because others may have built on it
//! meanwhile. Backups go leaves first, so that a stop halfway leaves only whole sets. WAL goes last, by one `expire`
//! whose explicit arguments remove no backup.
//!
//! A newcomer would count the fulls of the present cluster for that one. pgBackRest applies the number to all archives
//! at once, newest fulls first, so a smaller one tears holes between the backups of a former cluster.

use std::{collections::BTreeSet, num::NonZeroU32};

use super::{Preview, compare, intent, labels, look, refused};
use crate::{
    engine::pgbackrest::{PgBackRest, expire::Expiry},
    job::{Context, Done, sync},
    process::Command,
    record::{Backup, Failure},
    retention::Decision,
};

pub(super) async fn run(context: &Context, tool: &PgBackRest, preview: &Preview) -> Result<Done, Failure> {
    let ending = preview.ending();
    rehearse(context, tool, &ending).await?;
    for one in &ending {
        remove(context, tool, one).await?;
    }
    let wal = remove_wal(context, tool).await?;
    compare(context, preview).await?;
    let kept = preview.plan.decisions.len() - ending.len();
    Ok(Done::new(format!("{} backups ended, {kept} kept{wal}", ending.len())))
}

/// Compares what the tool would remove with what the plan says, for every set, before the first is touched.
async fn rehearse(context: &Context, tool: &PgBackRest, ending: &[(&Decision, &Backup)]) -> Result<(), Failure> {
    let planned: BTreeSet<&str> = ending.iter().map(|(decision, _)| decision.label.as_str()).collect();
    for (decision, _) in ending {
        let would = ask(context, &tool.expire_set(decision.repo, &decision.label, true)).await?;
        only(&would, &decision.label, |label| planned.contains(label))?;
    }
    Ok(())
}

async fn remove(context: &Context, tool: &PgBackRest, one: &(&Decision, &Backup)) -> Result<(), Failure> {
    let (label, repo) = (&one.0.label, one.0.repo);
    // All that the plan knows to depend on it is gone by now.
    let would = ask(context, &tool.expire_set(repo, label, true)).await?;
    only(&would, label, |other| other == label)?;
    let one = std::slice::from_ref(one);
    intent::write(context, one).await?;
    let removed = context.tool(&format!("expire-{label}"), &tool.expire_set(repo, label, false), |_| {}).await;
    if let Err(failure) = removed {
        intent::take_back(context, one).await;
        return Err(failure);
    }
    intent::fulfil(context, one).await
}

/// The dry run for a label must name that label, and others only if they may go.
fn only(would: &Expiry, label: &str, may_go: impl Fn(&str) -> bool) -> Result<(), Failure> {
    if !would.backups.contains(label) {
        return Err(refused(
            format!("the dry run would not remove {label}, which the plan ends"),
            "Run `pgbackrest expire --dry-run` by hand and compare with `backstop expire --dry-run`.",
        ));
    }
    match would.backups.iter().find(|other| !may_go(other)) {
        None => Ok(()),
        Some(other) => Err(refused(
            format!("removing {label} would also remove {other}, which the plan keeps"),
            "It was not removed. Something depends on it that was made meanwhile, or that the catalog does not know.",
        )),
    }
}

/// Removes WAL that no backup in the repository needs, whatever cluster it is of. The dry run is held against that.
async fn remove_wal(context: &Context, tool: &PgBackRest) -> Result<String, Failure> {
    let repo = context.repo();
    let seen = look(context.database(), repo, &context.stop).await?;
    let Some(stanza) = &seen.stanza else { return Ok(String::new()) };
    let Some(fulls) = NonZeroU32::new(stanza.fulls(repo)) else { return Ok(String::new()) };
    let would = ask(context, &tool.expire_wal(repo, fulls, true)).await?;
    if let Some(label) = would.kept_that_go(labels(&seen, repo).iter().map(String::as_str)).first() {
        return Err(refused(
            format!("expiring WAL would also remove backup {label}, so no WAL was removed"),
            "Is retention set in pgbackrest.conf? Run `backstop check`.",
        ));
    }
    let first_wal = stanza.first_wal(repo).map_err(|label| {
        refused(
            format!("it cannot be told which WAL backup {label} needs, so no WAL was removed"),
            "Look at `pgbackrest info` for this backup.",
        )
    })?;
    if let Some(harm) = would.harm(&first_wal) {
        return Err(refused(
            format!("expiring WAL would remove {harm}, which backups need, so no WAL was removed"),
            "Somebody made or removed a backup meanwhile, or this is a defect of Backstop: try again, then report it.",
        ));
    }
    if would.wal.is_empty() && would.archives.is_empty() {
        return Ok(String::new());
    }
    context.tool("expire-wal", &tool.expire_wal(repo, fulls, false), |_| {}).await?;
    Ok(format!(", WAL removed: {}", would.wal_words().join(", ")))
}

async fn ask(context: &Context, command: &Command) -> Result<Expiry, Failure> {
    let said = sync::ask(&command.clone().timeout(context.time_left()), &context.stop).await?;
    Ok(Expiry::of(String::from_utf8_lossy(&said).lines()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_built_on_a_backup_meanwhile_keeps_it() {
        let would = |labels: &[&str]| Expiry {
            backups: labels.iter().map(|label| (*label).to_owned()).collect(),
            ..Expiry::default()
        };
        assert_eq!(only(&would(&["F"]), "F", |other| other == "F"), Ok(()));
        let refused = only(&would(&["F", "F_I"]), "F", |other| other == "F").unwrap_err();
        assert_eq!(refused.message, "removing F would also remove F_I, which the plan keeps");
        let refused = only(&would(&[]), "F", |_| true).unwrap_err();
        assert_eq!(refused.message, "the dry run would not remove F, which the plan ends");
    }
}
