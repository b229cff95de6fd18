//! `backstop expire`: the retention plan, shown first, then carried out.

use serde_json::json;

use super::{
    Answer,
    act::{self, Act},
    session::{self, Session},
};
use crate::{
    catalog::Catalog,
    error::{Error, ExitCode},
    job::{
        Request, Runner,
        expire::{Preview, Question},
    },
    policy::{Database, Policy},
    process::Stop,
    record::{DatabaseName, JobKind, RepoKey},
    report::text,
};

/// What may be asked.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The database; all when left out, with `--dry-run` only
    database: Option<DatabaseName>,
    /// The repository; all of the database when left out
    #[arg(long, value_name = "N")]
    repo: Option<RepoKey>,
    /// Show what would be kept and what would go, and why; do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(super) async fn run(session: &Session, options: &Options) -> Result<Answer, Error> {
    // A file that is broken stops this verb: it deletes, so it must know what the owner wants today.
    let policy = session.policy()?;
    if options.dry_run {
        let catalog = session.read_catalog(&policy).await?;
        return dry_run(session, options, &policy, &catalog).await;
    }
    let name = options.database.as_ref().ok_or_else(|| {
        Error::new(ExitCode::Usage, "`expire` deletes, so it wants to be told the database")
            .hint("Name one, or look first with `--dry-run`.")
    })?;
    let database = session::find(&policy, name)?.clone();
    let repos = repos(options, &database)?;
    let catalog = session.write_catalog(&policy).await?;
    let key = act::key(&database, JobKind::Expire, options.repo)?;
    // One lock from the plan to the last removal, so that what goes is what was shown.
    let act = Act::begin(session, policy, catalog, &key).await?;
    let mut previews = Vec::new();
    for repo in repos {
        let Runner { policy, catalog, stop, .. } = &act.runner;
        let question = Question { policy, database: &database, repo, selection: None, catalog, now: session.now };
        previews.push(question.prepare(stop).await.map_err(Error::from)?);
    }
    let zone = act.runner.policy.daemon.timezone;
    if previews.iter().all(Preview::is_empty) {
        let text = format!("nothing to expire for {name}\n{}", render(&previews, zone));
        return Ok(Answer::new("expire", json!({ "expired": [] }), "nothing to expire", text).about(&database));
    }
    if database.protected {
        let question = format!("end {} backups?", going(&previews));
        act::confirm(options.yes, "expire", &render(&previews, zone), &question, &act.runner.stop).await?;
    }
    carry_out(session, &act, &previews).await
}

async fn carry_out(session: &Session, act: &Act, previews: &[Preview]) -> Result<Answer, Error> {
    let database = &act.database;
    let several = database.repos().len() > 1;
    let mut texts = Vec::new();
    let mut runs = Vec::new();
    for preview in previews {
        let key = act::key(database, JobKind::Expire, several.then_some(preview.repo))?;
        let request = Request { confirmed: Some(preview.going()), ..act::request(session, key) };
        let answer = act.run("expire", &request).await?;
        texts.push(answer.text);
        runs.push(answer.result);
    }
    let text = texts.join("\n");
    Ok(Answer::new("expire", json!({ "runs": runs }), text.clone(), text).about(database))
}

async fn dry_run(session: &Session, options: &Options, policy: &Policy, catalog: &Catalog) -> Result<Answer, Error> {
    let mut all = Vec::new();
    let databases = policy
        .databases
        .values()
        .filter(|database| options.database.as_ref().is_none_or(|name| *name == database.name));
    if let Some(name) = &options.database {
        session::find(policy, name)?;
    }
    for database in databases {
        for repo in repos(options, database)? {
            let question = Question { policy, database, repo, selection: None, catalog, now: session.now };
            all.push(question.preview(&Stop::never()).await.map_err(Error::from)?);
        }
    }
    let message = format!("{} backups would go", going(&all));
    let text = render(&all, policy.daemon.timezone);
    Ok(Answer::new("expire", json!({ "dry_run": true, "plans": all }), message, text))
}

fn repos(options: &Options, database: &Database) -> Result<Vec<RepoKey>, Error> {
    // Refuses one that the policy does not have.
    act::key(database, JobKind::Expire, options.repo)?;
    Ok(options.repo.map_or_else(|| database.repos().to_vec(), |repo| vec![repo]))
}

fn going(previews: &[Preview]) -> usize {
    previews.iter().map(|preview| preview.plan.expire().len()).sum()
}

fn render(previews: &[Preview], zone: chrono_tz::Tz) -> String {
    let mut page = String::new();
    for preview in previews {
        match preview.repo {
            0 => page.push_str(&format!("{}\n", preview.database)),
            repo => page.push_str(&format!("{} repo {repo}\n", preview.database)),
        }
        let mut table = text::table(&["", "LABEL", "TYPE", "STOPPED", "WHY"]);
        for (decision, backup) in preview.rows() {
            let verdict = if decision.keep { "keep" } else { "EXPIRE" };
            let stopped = text::local(backup.stopped_at, zone);
            table.add_row([
                verdict,
                &decision.label,
                backup.backup_type.as_str(),
                &stopped,
                &decision.reasons.join("; "),
            ]);
        }
        page.push_str(&text::plain(&table));
        page.push('\n');
        if !preview.wal.is_empty() {
            page.push_str(&format!("WAL that goes: {}\n", preview.wal.join(", ")));
        }
    }
    page
}
