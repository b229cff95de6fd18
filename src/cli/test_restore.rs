//! `backstop test-restore`: proves now that the newest backup works.

use serde_json::json;

use super::{
    Answer,
    act::{self, Act},
    session::{self, Session},
};
use crate::{
    error::Error,
    human::took,
    record::{DatabaseName, JobKind, RepoKey},
};

/// What may be asked.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The database
    database: DatabaseName,
    /// The repository to restore from; the first when left out
    #[arg(long, value_name = "N")]
    repo: Option<RepoKey>,
}

pub(super) async fn run(session: &Session, options: &Options) -> Result<Answer, Error> {
    let policy = session.policy()?;
    let key = act::key(session::find(&policy, &options.database)?, JobKind::TestRestore, options.repo)?;
    let catalog = session.write_catalog(&policy).await?;
    let act = Act::begin(session, policy, catalog, &key).await?;
    let mut answer = act.run("test-restore", &act::request(session, key)).await?;
    let proof = act.runner.catalog.latest_proof(&options.database).await.map_err(session::catalog_error)?;
    if let Some(proof) = proof {
        for step in &proof.steps {
            answer.text.push_str(&format!(
                "\n  {:<17} {:<8} {:>9}  {}",
                step.name,
                step.outcome,
                took(step.duration),
                cut(&step.detail)
            ));
        }
        answer.result["proof"] = json!(proof);
    }
    Ok(answer)
}

/// The evidence as far as people read it in a table; `--json` has all of it.
fn cut(detail: &str) -> String {
    const LONGEST: usize = 200;
    match detail.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{} …", &detail[..end]),
        None => detail.to_owned(),
    }
}
