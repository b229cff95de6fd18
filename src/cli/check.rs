//! `backstop check`: everything that is wrong with the policy, each at its place; with `--probe`, with the world too.

use serde_json::json;

use super::{
    Answer,
    session::{self, Session},
};
use crate::{
    error::{Error, ExitCode},
    policy::{Policy, Problems},
    record::DatabaseName,
};

mod dump;
mod probe;
mod shrink;

/// What may be asked.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Also look at the tools, the databases, the repositories, the storages, the keys and the sandbox
    #[arg(long)]
    probe: bool,
    /// Probe only this database
    #[arg(long, requires = "probe")]
    database: Option<DatabaseName>,
    /// Also say which backups the retention rules of the file newly end, compared with those in force
    #[arg(long)]
    pub(super) against_catalog: bool,
}

pub(super) async fn run(session: &Session, options: &Options) -> Result<Answer, Error> {
    let policy = match Policy::load(&session.path) {
        Ok(policy) => policy,
        Err(problems) => return Ok(refused(session, &problems)),
    };
    let mut text: String =
        policy.warnings.iter().map(|warning| format!("{}\n\n", warning.render(session.color()))).collect();
    let message = format!(
        "{}: {} databases, {} jobs, {} warnings",
        session.path.display(),
        policy.databases.len(),
        policy.jobs.len(),
        policy.warnings.len()
    );
    text.push_str(&message);
    let mut result =
        json!({ "problems": policy.warnings, "databases": policy.databases.len(), "jobs": policy.jobs.len() });
    let mut answer = Answer::new("check", json!(null), message, "");
    if options.probe {
        if let Some(name) = &options.database {
            session::find(&policy, name)?;
        }
        let findings = probe::all(&policy, options.database.as_ref()).await;
        let bad = findings.iter().filter(|finding| !finding.good).count();
        for finding in &findings {
            let mark = if finding.good { "ok " } else { "BAD" };
            text.push_str(&format!("\n{mark} {}: {}", finding.about, finding.found));
        }
        result["probes"] = json!(findings);
        if bad > 0 {
            answer.exit = ExitCode::VerificationFailed;
        }
    }
    if options.against_catalog {
        let found = shrink::look(session, &policy).await?;
        text.push_str(&shrink::page(&found, &policy));
        result["against_catalog"] = json!(found);
    }
    answer.result = result;
    answer.text = text;
    Ok(answer)
}

/// A refused policy is this verb's answer, not a failure to answer; the exit code says it all the same.
fn refused(session: &Session, problems: &Problems) -> Answer {
    let message = format!("{}: {}", session.path.display(), problems.count());
    let mut answer =
        Answer::new("check", json!({ "problems": problems.list() }), message, problems.render(session.color()));
    answer.exit = ExitCode::Configuration;
    answer
}
