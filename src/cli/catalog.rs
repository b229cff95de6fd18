//! `backstop catalog`: its state, how it is made again from what lies in the storages, and the word that ends recovery
//! mode.

use serde_json::json;

use super::{
    Answer, rebuild,
    session::{Session, catalog_error},
};
use crate::{clock, error::Error, job::guard, report::text};

/// What may be done.
#[derive(Debug, clap::Subcommand)]
pub(super) enum CatalogVerb {
    /// Tell whether the catalog is in recovery mode
    Status,
    /// Accept the catalog as it is after it was recovered: missed jobs are made up for and retention deletes again
    Accept,
    /// Make the catalog again from the storages and from `pgbackrest info`; the daemon must not run
    Rebuild,
}

pub(super) async fn run(session: &Session, verb: &CatalogVerb) -> Result<Answer, Error> {
    let policy = session.policy()?;
    match verb {
        CatalogVerb::Rebuild => rebuild::run(session).await,
        CatalogVerb::Status => {
            let catalog = session.read_catalog(&policy).await?;
            let recovery = catalog.recovery_mode().await.map_err(catalog_error)?;
            let text = match &recovery {
                None => "the catalog is in normal use".to_owned(),
                Some(mode) => format!("recovery mode since {}: {}", text::when(mode.since), mode.why),
            };
            let result = json!({ "recovery_since": recovery.as_ref().map(|mode| mode.since), "why": recovery.map(|mode| mode.why) });
            Ok(Answer::new("catalog", result, text.clone(), text))
        }
        CatalogVerb::Accept => {
            let catalog = session.write_catalog(&policy).await?;
            catalog.accept(clock::now(), &session.witness).await.map_err(catalog_error)?;
            guard::thaw(&catalog, clock::now()).await.map_err(catalog_error)?;
            let text = "the catalog is accepted; a running daemon takes it up at its next start or reload";
            Ok(Answer::new("catalog", json!({}), text, text))
        }
    }
}
