//! `backstop check --against-catalog`: what the retention rules of the file newly end.
//!
//! Compared with the rules in force, and with former ones that still guard; so it tells what a reload would do before it,
//! and what waits after it. A newcomer would fail here; that rules end something is what rules are for.

use serde::Serialize;

use crate::{
    cli::session::{Session, catalog_error},
    error::{Error, ExitCode},
    job::expire::shrink::{self, Shrink},
    policy::Policy,
    record::DatabaseName,
    report::text,
};

/// What was found.
#[derive(Debug, Serialize)]
pub(super) struct Found {
    /// The databases of which something is newly ended.
    databases: Vec<Shrink>,
    /// Those for which no rules are in force yet, so that nothing guards.
    first_rules: Vec<DatabaseName>,
}

pub(super) async fn look(session: &Session, policy: &Policy) -> Result<Found, Error> {
    let catalog = session.read_catalog(policy).await.map_err(|error| {
        let what = "there is no catalog that the rules could be compared with";
        let hint = "Leave out `--against-catalog`, or start the daemon once: it makes the catalog.";
        Error::new(ExitCode::Storage, what).because(error.chain()).hint(hint)
    })?;
    let mut found = Found { databases: Vec::new(), first_rules: Vec::new() };
    let in_force = catalog.all_rules_in_force().await.map_err(catalog_error)?;
    for database in policy.databases.values() {
        if !in_force.contains_key(&database.name) {
            found.first_rules.push(database.name.clone());
        }
        let former = catalog.guarding(&database.name, &database.retention, session.now).await.map_err(catalog_error)?;
        let look = shrink::look(&catalog, policy, database, &former, session.now).await.map_err(catalog_error)?;
        found.databases.extend((!look.newly_ended.is_empty()).then_some(look));
    }
    Ok(found)
}

pub(super) fn page(found: &Found, policy: &Policy) -> String {
    let first = match found.first_rules.len() {
        0 => String::new(),
        count => format!("\n{count} databases have no rules in force yet, so nothing guards their backups"),
    };
    if found.databases.is_empty() {
        return format!("\nthe rules newly end nothing{first}");
    }
    let mut table = text::table(&["DATABASE", "BACKUP", "NOT BEFORE", "WHY"]);
    for shrink in &found.databases {
        for ended in &shrink.newly_ended {
            table.add_row([
                shrink.database.as_str(),
                &ended.decision.label,
                &text::local(ended.guarded_until, policy.daemon.timezone),
                &ended.decision.reasons.join("; "),
            ]);
        }
    }
    let all: usize = found.databases.iter().map(|shrink| shrink.newly_ended.len()).sum();
    format!(
        "\nthe rules newly end {all} backups, after a grace; `backstop expire NAME --accept` does not wait\n{}{first}",
        text::plain(&table)
    )
}
