//! Our own plan, carried out by pgBackRest.
//!
//! Before anything goes, each removal is tried with `--dry-run`; what the tool would remove must equal what the plan
//! says, or nothing is run. Right before its turn each is tried once more, because others may have built on it
//! meanwhile. Backups go leaves first, so that a stop halfway leaves only whole sets. WAL goes last, by one `expire`
//! whose explicit arguments remove no backup. What lay in the repository without being a backup may go with any of them.
//!
//! A newcomer would count the backups of the present cluster for that one. pgBackRest applies the number to all archives
//! at once, newest first, so a smaller one tears holes between the backups of a former cluster. Only a `wal_depth` asks
//! for holes, and then `depth.rs` says where they may be.

use std::{collections::BTreeSet, num::NonZeroU32};

use super::{Guard, Preview, Question, compare, intent, labels, look, question, refused, with_our_knowledge};
use crate::{
    clock,
    engine::pgbackrest::{PgBackRest, WalKept, expire::Expiry, info::Stanza},
    job::{Context, Done, catalog_failure, sync},
    process::{Command, Stop},
    record::{Backup, Failure, RepoKey},
    retention::{
        Decision, Plan,
        depth::{self, Anchor},
    },
};

pub(super) async fn run(
    context: &Context,
    tool: &PgBackRest,
    preview: &Preview,
    remains: &BTreeSet<String>,
) -> Result<Done, Failure> {
    let ending = preview.ending();
    rehearse(context, tool, &ending, remains).await?;
    for one in &ending {
        remove(context, tool, one, remains).await?;
    }
    let wal = remove_wal(context, tool).await?;
    compare(context, preview).await?;
    let kept = preview.plan.decisions.len() - ending.len();
    Ok(Done::new(format!("{} backups ended, {kept} kept{wal}", ending.len())))
}

/// Compares what the tool would remove with what the plan says, for every set, before the first is touched.
async fn rehearse(
    context: &Context,
    tool: &PgBackRest,
    ending: &[(&Decision, &Backup)],
    remains: &BTreeSet<String>,
) -> Result<(), Failure> {
    let planned: BTreeSet<&str> = ending.iter().map(|(decision, _)| decision.label.as_str()).collect();
    for (decision, _) in ending {
        let would = ask(context, &tool.expire_set(decision.repo, &decision.label, true)).await?;
        only(&would, &decision.label, |label| planned.contains(label) || remains.contains(label))?;
    }
    Ok(())
}

async fn remove(
    context: &Context,
    tool: &PgBackRest,
    one: &(&Decision, &Backup),
    remains: &BTreeSet<String>,
) -> Result<(), Failure> {
    let (label, repo) = (&one.0.label, one.0.repo);
    // All that the plan knows to depend on it is gone by now.
    let would = ask(context, &tool.expire_set(repo, label, true)).await?;
    only(&would, label, |other| other == label || remains.contains(other))?;
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

/// The WAL that would go before a `wal_depth`, while no backup goes. What goes after backups went cannot be asked before.
pub(super) async fn wal_behind(
    question: &Question<'_>,
    seen: &sync::Seen,
    plan: &Plan,
    stop: &Stop,
) -> Result<Vec<String>, Failure> {
    let Question { database, repo, .. } = *question;
    if database.retention.wal_depth.is_none() || !plan.expire().is_empty() {
        return Ok(Vec::new());
    }
    let Some((kept, _, _)) = boundary(question, seen).await? else { return Ok(Vec::new()) };
    let tool = PgBackRest::of(database).map_err(sync::secret_failure)?;
    let said = sync::ask(&tool.expire_wal(repo, kept, true), stop).await?;
    Ok(Expiry::of(String::from_utf8_lossy(&said).lines()).wal_words())
}

/// Which WAL stays, the anchor of the depth, and the backups of every cluster in the repository with what the catalog
/// knows of them; none where there is no full.
async fn boundary(
    question: &Question<'_>,
    seen: &sync::Seen,
) -> Result<Option<(WalKept, Option<Anchor>, Vec<Backup>)>, Failure> {
    let Question { database, repo, catalog, now, .. } = *question;
    let fulls = seen.stanza.as_ref().map(|stanza| stanza.fulls(repo)).unwrap_or_default();
    let Some(fulls) = NonZeroU32::new(fulls) else { return Ok(None) };
    let known = catalog.backups(&database.name).await.map_err(catalog_failure)?;
    let there = seen.of_all_clusters.iter().filter(|backup| backup.repo == repo);
    let backups: Vec<Backup> = there.map(|backup| with_our_knowledge(backup.clone(), &known)).collect();
    let former = match question.guard {
        Guard::Former => catalog.guarding(&database.name, &database.retention, now).await.map_err(catalog_failure)?,
        Guard::Accepted => Vec::new(),
    };
    let rules = depth::guarded(&database.retention, &former);
    let anchor = depth::anchor(&backups, &labels(seen, repo), &rules, now);
    let kept = anchor.as_ref().map_or(WalKept::Fulls(fulls), |anchor| WalKept::Backups(anchor.count));
    Ok(Some((kept, anchor, backups)))
}

/// Removes WAL that no backup in the repository needs, whatever cluster it is of, and with a `wal_depth` what only
/// continuous recovery before it needs. The dry run is held against that.
async fn remove_wal(context: &Context, tool: &PgBackRest) -> Result<String, Failure> {
    let repo = context.repo();
    let seen = look(context.database(), repo, &context.stop).await?;
    let Some(stanza) = &seen.stanza else { return Ok(String::new()) };
    let Some((kept, anchor, backups)) = boundary(&question(context), &seen).await? else { return Ok(String::new()) };
    let would = ask(context, &tool.expire_wal(repo, kept, true)).await?;
    spares(&would, stanza, &labels(&seen, repo), repo, anchor.as_ref())?;
    if would.wal.is_empty() && would.archives.is_empty() {
        return Ok(String::new());
    }
    if let Some(anchor) = &anchor {
        cut_windows(context, &backups, anchor).await?;
    }
    let gone = would.wal_words().join(", ");
    let object = format!("{} repo {repo}", context.database().name);
    context
        .catalog
        .audit(&context.witness, "expire_wal", &object, &gone, clock::now())
        .await
        .map_err(catalog_failure)?;
    context.tool("expire-wal", &tool.expire_wal(repo, kept, false), |_| {}).await?;
    Ok(format!(", WAL removed: {gone}"))
}

/// What must be true of a dry run before it is done: no backup goes, and no WAL that one needs.
fn spares(
    would: &Expiry,
    stanza: &Stanza,
    labels: &BTreeSet<String>,
    repo: RepoKey,
    anchor: Option<&Anchor>,
) -> Result<(), Failure> {
    if let Some(label) = would.kept_that_go(labels.iter().map(String::as_str)).first() {
        return Err(refused(
            format!("expiring WAL would also remove backup {label}, so no WAL was removed"),
            "Is retention set in pgbackrest.conf? Run `backstop check`.",
        ));
    }
    let needs = stanza.wal_needs(repo, anchor.map(|anchor| anchor.label.as_str())).map_err(|label| {
        refused(
            format!("it cannot be told which WAL backup {label} needs, so no WAL was removed"),
            "Look at `pgbackrest info` for this backup.",
        )
    })?;
    would.harm(&needs).map_or(Ok(()), |harm| {
        Err(refused(
            format!("expiring WAL would remove {harm}, which backups need, so no WAL was removed"),
            "Somebody made or removed a backup meanwhile, or this is a defect of Backstop: try again, then report it.",
        ))
    })
}

/// Takes back what was proven about moments whose WAL goes, before it goes; the next look at the archive tells the rest.
async fn cut_windows(context: &Context, backups: &[Backup], anchor: &Anchor) -> Result<(), Failure> {
    let (name, repo) = (&context.database().name, context.repo());
    let mut windows = context.catalog.windows(name).await.map_err(catalog_failure)?;
    windows.retain(|window| window.repo == repo);
    let left = depth::cut(&windows, backups, anchor);
    context.catalog.replace_windows(name, repo, &left).await.map_err(catalog_failure)
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
