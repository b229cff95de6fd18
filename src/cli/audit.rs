//! `backstop audit`: who did what, and whether anybody changed the record of it.
//!
//! A chain that is whole proves nothing about entries that were cut off at its end; the head in the log does. A newcomer
//! would let a broken chain be an error of the catalog; it is this verb's answer.

use serde_json::json;

use super::{
    Answer,
    session::{Session, catalog_error},
};
use crate::{
    catalog::{AuditEntry, Catalog, Chain},
    error::{Error, ExitCode},
    report::text,
};

/// What may be done.
#[derive(Debug, clap::Subcommand)]
pub(super) enum AuditVerb {
    /// Follow the chain of hashes from its beginning; exits with 5 when an entry was changed or is missing
    Verify,
    /// List the entries, newest first
    List {
        /// At most so many
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: u32,
    },
}

pub(super) async fn run(session: &Session, verb: &AuditVerb) -> Result<Answer, Error> {
    let (policy, catalog, _) = session.policy_for_looking().await?;
    match verb {
        AuditVerb::Verify => verify(&catalog, policy.daemon.timezone).await,
        AuditVerb::List { limit } => {
            let entries = catalog.audit_list(*limit).await.map_err(catalog_error)?;
            let text = page(&entries, policy.daemon.timezone);
            Ok(Answer::new("audit", json!({ "entries": entries }), format!("{} entries", entries.len()), text))
        }
    }
}

async fn verify(catalog: &Catalog, zone: chrono_tz::Tz) -> Result<Answer, Error> {
    match catalog.audit_verify().await.map_err(catalog_error)? {
        Chain::Whole { count: 0, .. } => {
            let text = "the audit is empty";
            Ok(Answer::new("audit", json!({ "whole": true, "count": 0, "head": null }), text, text))
        }
        Chain::Whole { count, head } => {
            let message = format!("the audit is whole: {count} entries, head {head}");
            let text = format!(
                "{message}\nCompare the head with the log or a report: that the newest entries were cut off cannot be seen here."
            );
            Ok(Answer::new("audit", json!({ "whole": true, "count": count, "head": head }), message, text))
        }
        Chain::Broken { seq } => {
            let entry = catalog.audit_entry(seq).await.map_err(catalog_error)?;
            let message = format!(
                "the audit is broken: entry {seq} is the first that was changed, or that follows a missing one"
            );
            let text = format!("{message}\n{}", page(entry.as_slice(), zone));
            let result = json!({ "whole": false, "first_wrong": entry });
            Ok(Answer { exit: ExitCode::VerificationFailed, ..Answer::new("audit", result, message, text) })
        }
    }
}

fn page(entries: &[AuditEntry], zone: chrono_tz::Tz) -> String {
    let mut table = text::table(&["SEQ", "AT", "WHO", "DID", "TO", "DETAIL", "HASH"]);
    for entry in entries {
        table.add_row([
            &entry.seq.to_string(),
            &text::local(entry.at, zone),
            &entry.actor,
            &entry.action,
            &entry.object,
            &entry.detail,
            // Enough to find it in the log; `--json` tells the whole.
            entry.hash.get(..12).unwrap_or(&entry.hash),
        ]);
    }
    text::plain(&table)
}
