//! Retention carried out: our planner decides, pgBackRest's `expire` removes, then what is left is compared.
//!
//! Nothing goes while the server is another cluster than the repository's, when a person was asked and agreed to less,
//! or when so much would go that a person should be asked. The parts: `planned.rs` carries out our plan, `native.rs` pgBackRest's own retention, `intent.rs` remembers
//! what is about to go, so that a crash between the tool and the catalog leaves no riddle. Dumps are planned and deleted
//! by ourselves, in `dumps.rs`.
//!
//! A newcomer would plan again after the person said yes; then what goes is not what was shown.

mod dumps;
mod intent;
mod native;
mod planned;
pub mod shrink;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{Context, Done, backup, catalog_failure, sync};
use crate::{
    catalog::Catalog,
    engine::pgbackrest::{PgBackRest, info::Stanza},
    error::ExitCode,
    policy::{Database, ExpireBy, Policy},
    process::Stop,
    record::{Backup, DatabaseName, ErrorClass, Failure, RepoKey},
    retention::{Circumstances, Decision, Plan, Selection, guarded, plan, select},
};

/// What retention would do to one repository of a database now.
#[derive(Debug, Serialize)]
pub struct Preview {
    /// The database.
    pub database: DatabaseName,
    /// The repository; 0 for dumps.
    pub repo: RepoKey,
    /// What is kept and what goes, each with its reasons.
    pub plan: Plan,
    /// The WAL that goes where pgBackRest's own retention decides, or before a `wal_depth` while no backup goes; else ours
    /// takes only what no backup needs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub wal: Vec<String>,
    /// The dumps whose deletion was begun and goes on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unfinished: Vec<String>,
    /// The backups it is about.
    #[serde(skip)]
    backups: Vec<Backup>,
}

impl Preview {
    /// The decisions beside their backups, newest first.
    pub fn rows(&self) -> impl Iterator<Item = (&Decision, &Backup)> {
        let backups: HashMap<&str, &Backup> = self.backups.iter().map(|backup| (backup.id.as_str(), backup)).collect();
        let backup = move |decision: &Decision| backups.get(decision.backup_id.as_str()).copied();
        self.plan.decisions.iter().filter_map(move |decision| Some((decision, backup(decision)?)))
    }

    /// Whether nothing would be done.
    pub fn is_empty(&self) -> bool {
        self.unfinished.is_empty() && !self.ends_something()
    }

    /// Whether something goes of which nobody has said so before.
    pub fn ends_something(&self) -> bool {
        !self.wal.is_empty() || self.plan.decisions.iter().any(|decision| !decision.keep)
    }

    /// The labels that would go.
    pub fn going(&self) -> BTreeSet<String> {
        self.plan.expire().into_iter().map(|decision| decision.label.clone()).collect()
    }

    /// What becomes of one backup; none: the plan is not about it.
    pub fn decision(&self, id: &str) -> Option<&Decision> {
        self.plan.decisions.iter().find(|decision| decision.backup_id == id)
    }

    /// What goes, in the order of doing it.
    fn ending(&self) -> Vec<(&Decision, &Backup)> {
        self.rows().filter(|(decision, _)| !decision.keep).collect()
    }
}

/// What guards against a slip in the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// The former rules, for their grace.
    Former,
    /// Nothing: a person is about to accept the new rules.
    Accepted,
}

/// What is asked of retention.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The policy.
    pub policy: &'a Policy,
    /// The database in it.
    pub database: &'a Database,
    /// The repository; 0 for dumps.
    pub repo: RepoKey,
    /// What a person wants ended; none: what the rules end.
    pub selection: Option<&'a Selection>,
    /// What guards against a slip in the rules.
    pub guard: Guard,
    /// What is known.
    pub catalog: &'a Catalog,
    /// The moment for which it is asked.
    pub now: DateTime<Utc>,
}

impl Question<'_> {
    /// Plans without doing anything. What the repository holds is asked now; what we know of it (holds, proofs, verdicts)
    /// is the catalog's.
    ///
    /// # Errors
    /// When the repository or the catalog cannot be read.
    pub async fn preview(&self, stop: &Stop) -> Result<Preview, Failure> {
        if self.database.engine.is_dump() {
            return dumps::preview(self).await;
        }
        let seen = look(self.database, self.repo, stop).await?;
        self.plan_for(&seen, stop).await
    }

    /// Plans after the catalog was brought in line: what a run would do now. The caller holds the database's lock.
    ///
    /// # Errors
    /// When the repository cannot be read or lacks backups, or the catalog cannot be read or written.
    pub async fn prepare(&self, stop: &Stop) -> Result<Preview, Failure> {
        if self.database.engine.is_dump() {
            return dumps::preview(self).await;
        }
        let seen = look(self.database, self.repo, stop).await?;
        if self.database.pgbackrest.expire_by == ExpireBy::Backstop {
            // Before the catalog is brought in line, which would say it to nobody.
            nothing_vanished(self.catalog, self.database, &seen).await?;
        }
        sync::remember(self.catalog, self.database, &seen).await.map_err(catalog_failure)?;
        self.plan_for(&seen, stop).await
    }

    async fn plan_for(&self, seen: &sync::Seen, stop: &Stop) -> Result<Preview, Failure> {
        let Question { database, repo, .. } = *self;
        let known = self.catalog.backups(&database.name).await.map_err(catalog_failure)?;
        let listed = |of: fn(&Stanza, RepoKey, &Database) -> Vec<Backup>| {
            let listed = seen.stanza.as_ref().map(|stanza| of(stanza, repo, database)).unwrap_or_default();
            listed.into_iter().map(|backup| with_our_knowledge(backup, &known)).collect::<Vec<_>>()
        };
        if self.selection.is_some() && database.pgbackrest.expire_by == ExpireBy::PgBackRest {
            return Err(refused(
                format!("the policy leaves retention of `{}` to pgBackRest, so nothing can be chosen", database.name),
                "Set `expire_by = \"backstop\"`, or change the retention in pgbackrest.conf.",
            ));
        }
        let (backups, (plan, wal)) = match database.pgbackrest.expire_by {
            ExpireBy::Backstop => {
                let backups = listed(Stanza::backups);
                let plan = self.decide(&backups).await?;
                let wal = planned::wal_behind(self, seen, &plan, stop).await?;
                (backups, (plan, wal))
            }
            // Its retention counts the backups of former clusters as well.
            ExpireBy::PgBackRest => {
                let mut backups = listed(|stanza, repo, database| {
                    stanza.all_backups(database).into_iter().filter(|backup| backup.repo == repo).collect()
                });
                backups.sort_by_key(|backup| std::cmp::Reverse(backup.stopped_at));
                let tool = PgBackRest::of(database).map_err(sync::secret_failure)?;
                let plan = native::plan(&tool, repo, &backups, stop).await?;
                (backups, plan)
            }
        };
        Ok(Preview { database: database.name.clone(), repo, plan, wal, unfinished: Vec::new(), backups })
    }

    /// What becomes of these backups, by a person's choice, or by the rules and what guards against a slip in them.
    async fn decide(&self, backups: &[Backup]) -> Result<Plan, Failure> {
        let rules = &self.database.retention;
        let at = Circumstances { now: self.now, zone: self.policy.daemon.timezone, pinned: BTreeMap::new() };
        if let Some(wanted) = self.selection {
            return Ok(select(backups, wanted, rules, &at));
        }
        if self.guard == Guard::Accepted {
            return Ok(plan(backups, rules, &at));
        }
        let former = self.catalog.guarding(&self.database.name, rules, self.now).await.map_err(catalog_failure)?;
        Ok(guarded(plan(backups, rules, &at), backups, &former, &at))
    }
}

pub(super) async fn run(context: &Context) -> Result<Done, Failure> {
    may_delete(context).await?;
    let database = context.database();
    adopt(&context.catalog, database, context.now()).await?;
    if database.engine.is_dump() {
        return dumps::run(context).await;
    }
    let repo = context.repo();
    let tool = PgBackRest::of(database).map_err(sync::secret_failure)?;
    let seen = look(database, repo, &context.stop).await?;
    backup::same_cluster(database, repo, &seen).await?;
    sync::remember(&context.catalog, database, &seen).await.map_err(catalog_failure)?;
    let preview = question(context).plan_for(&seen, &context.stop).await?;
    may_go(context, &preview)?;
    match database.pgbackrest.expire_by {
        ExpireBy::Backstop => {
            nothing_vanished(&context.catalog, database, &seen).await?;
            planned::run(context, &tool, &preview, &seen.remains(repo)).await
        }
        ExpireBy::PgBackRest => native::run(context, &tool, &preview).await,
    }
}

/// Puts the rules of the policy in force.
async fn adopt(catalog: &Catalog, database: &Database, now: DateTime<Utc>) -> Result<(), Failure> {
    catalog.adopt_rules(&[(&database.name, &database.rules())], now).await.map_err(catalog_failure)
}

/// What a run asks.
fn question(context: &Context) -> Question<'_> {
    Question {
        policy: &context.policy,
        database: context.database(),
        repo: context.repo(),
        selection: context.selection.as_ref(),
        guard: Guard::Former,
        catalog: &context.catalog,
        now: context.now(),
    }
}

/// What the repositories hold, as long as this one could be read: an unreadable one looks like one without backups.
async fn look(database: &Database, repo: RepoKey, stop: &Stop) -> Result<sync::Seen, Failure> {
    let seen = sync::look(database, stop).await?;
    seen.trouble(repo).map_or(Ok(seen), Err)
}

/// A repository that lacks what the catalog believes in is no ground to delete on: this is told, and the next run plans
/// with what is there.
async fn nothing_vanished(catalog: &Catalog, database: &Database, seen: &sync::Seen) -> Result<(), Failure> {
    let vanished = sync::lose_what_vanished(catalog, database, seen).await.map_err(catalog_failure)?;
    if vanished.is_empty() {
        return Ok(());
    }
    Err(Failure {
        class: ErrorClass::Integrity,
        exit: ExitCode::Storage,
        message: format!("nothing was deleted, for backups vanished from the repository: {}", vanished.join(", ")),
        remedy: Some("Find out who removed them; Backstop did not. The next `expire` plans without them.".to_owned()),
    })
}

/// A backup as the repository tells it, with the holds, proofs and verdicts of the catalog.
fn with_our_knowledge(backup: Backup, known: &[Backup]) -> Backup {
    let ours = known
        .iter()
        .find(|old| old.repo == backup.repo && old.label == backup.label && old.system_id == backup.system_id);
    ours.cloned().unwrap_or(backup)
}

async fn may_delete(context: &Context) -> Result<(), Failure> {
    let recovery = context.catalog.recovery_mode().await.map_err(catalog_failure)?;
    if let Some(mode) = recovery {
        return Err(refused(
            format!("nothing is deleted in recovery mode: {}", mode.why),
            "Look at `backstop list`, then say `backstop catalog accept`.",
        ));
    }
    match &context.frozen {
        Some(why) => Err(refused(
            format!("nothing is deleted: {why}"),
            "Check the date and time synchronisation, then say `backstop catalog accept`.",
        )),
        None => Ok(()),
    }
}

/// Whether a plan may be carried out: a person saw it, or it is not so much that one should.
fn may_go(context: &Context, preview: &Preview) -> Result<(), Failure> {
    agreed(&preview.going(), context.confirmed.as_ref())?;
    let too_much = preview.plan.too_much(context.database().retention.max_delete_fraction);
    match too_much.filter(|_| context.confirmed.is_none()) {
        None => Ok(()),
        Some(why) => Err(refused(
            format!("nothing was deleted: {why}"),
            &format!(
                "Look with `backstop expire {0} --dry-run`, then say `backstop expire {0}`. If so much goes each time, raise `max_delete_fraction`.",
                preview.database
            ),
        )),
    }
}

/// Where a person was asked, nothing else goes than what was shown; less may go.
fn agreed(going: &BTreeSet<String>, confirmed: Option<&BTreeSet<String>>) -> Result<(), Failure> {
    let Some(confirmed) = confirmed else { return Ok(()) };
    let more: Vec<&str> = going.difference(confirmed).map(String::as_str).collect();
    if more.is_empty() {
        return Ok(());
    }
    Err(refused(
        format!("the plan changed since it was shown: it would also end {}", more.join(", ")),
        "Nothing was removed. Look at the new plan with `backstop expire --dry-run`.",
    ))
}

/// Looks again: what should be gone is gone, what should be there is there.
async fn compare(context: &Context, preview: &Preview) -> Result<(), Failure> {
    let seen = look(context.database(), preview.repo, &context.stop).await?;
    let wrong = differences(&preview.plan, &labels(&seen, preview.repo));
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Failure {
        class: ErrorClass::Integrity,
        exit: ExitCode::Storage,
        message: format!("the repository differs from the plan after expiring: {}", wrong.join(", ")),
        remedy: Some(
            "Does another scheduler expire this stanza too? Look for cron entries and retention in pgbackrest.conf."
                .to_owned(),
        ),
    })
}

fn differences(plan: &Plan, left: &BTreeSet<String>) -> Vec<String> {
    let wrong = plan.decisions.iter().filter(|decision| decision.keep != left.contains(&decision.label));
    wrong
        .map(|decision| format!("{} {}", decision.label, if decision.keep { "is gone" } else { "is still there" }))
        .collect()
}

fn labels(seen: &sync::Seen, repo: RepoKey) -> BTreeSet<String> {
    seen.stanza.as_ref().map(|stanza| stanza.labels(repo)).unwrap_or_default()
}

fn refused(message: String, remedy: &str) -> Failure {
    Failure { class: ErrorClass::Config, exit: ExitCode::Configuration, message, remedy: Some(remedy.to_owned()) }
}

#[cfg(test)]
pub(super) mod tests {
    pub(in crate::job) use super::dumps::tests::dump;
    use super::*;

    fn set(labels: &[&str]) -> BTreeSet<String> {
        labels.iter().map(|label| (*label).to_owned()).collect()
    }

    #[test]
    fn nothing_goes_that_was_not_agreed_to_and_less_may_go() {
        let refused = agreed(&set(&["A", "B", "C"]), Some(&set(&["B"]))).unwrap_err();
        assert_eq!(refused.message, "the plan changed since it was shown: it would also end A, C");
        assert_eq!(agreed(&set(&["A"]), Some(&set(&["A", "B"]))), Ok(()));
        assert_eq!(agreed(&set(&["A"]), None), Ok(()), "the daemon's own plan needs nobody");
    }

    #[test]
    fn what_is_left_is_compared_in_both_directions() {
        let decision = |label: &str, keep| Decision {
            backup_id: label.to_owned(),
            label: label.to_owned(),
            repo: 1,
            keep,
            reasons: Vec::new(),
        };
        let plan = Plan { decisions: vec![decision("A", true), decision("B", false)] };
        assert_eq!(differences(&plan, &set(&["A", "foreign"])), [""; 0]);
        assert_eq!(differences(&plan, &set(&["B"])), ["A is gone", "B is still there"]);
    }
}
