//! `backstop expire`: the retention plan, shown first, then carried out.
//!
//! What goes is what the rules end, less what former rules still guard; or what a person chose, of which the floors keep
//! theirs. Nothing goes that was not in the plan that is shown. A newcomer would accept the rules before the answer to
//! the question; a person who says no has accepted nothing.

use std::time::Duration;

use serde_json::json;
use tracing::info;

use super::{
    Answer,
    act::{self, Act},
    moment::length,
    session::{self, Session, catalog_error},
};
use crate::{
    catalog::Catalog,
    clock,
    error::{Error, ExitCode},
    job::{
        Request, Runner,
        expire::{Guard, Preview, Question},
    },
    policy::{Database, Policy},
    process::Stop,
    record::{DatabaseName, JobKind, RepoKey},
    report::text,
    retention::Selection,
};

/// What may be asked.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// A database, or one backup by its id; all databases when left out, with `--dry-run` only
    #[arg(value_name = "DATABASE|ID")]
    what: Option<String>,
    /// The database, for those who like to name it
    #[arg(long = "database", value_name = "DATABASE")]
    named: Option<DatabaseName>,
    /// The repository; all of the database when left out
    #[arg(long, value_name = "N")]
    repo: Option<RepoKey>,
    /// Show what would be kept and what would go, and why; do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Accept the rules of today: what only former ones keep goes at once
    #[arg(long, conflicts_with_all = ["expired", "older_than"])]
    accept: bool,
    /// End only what is past its own `--retention` day, not what the rules end
    #[arg(long)]
    expired: bool,
    /// End what stopped so long ago, e.g. `60d`, instead of what the rules end
    #[arg(long, value_name = "LENGTH", value_parser = length, conflicts_with = "expired")]
    older_than: Option<Duration>,
}

/// What an expire is about.
struct Scope {
    /// None: every database.
    database: Option<DatabaseName>,
    repo: Option<RepoKey>,
    /// None: what the rules end.
    selection: Option<Selection>,
    guard: Guard,
}

impl Scope {
    async fn of(options: &Options, policy: &Policy, catalog: &Catalog) -> Result<Self, Error> {
        let guard = if options.accept { Guard::Accepted } else { Guard::Former };
        let older_than = options.older_than.map(Selection::OlderThan);
        let selection = options.expired.then_some(Selection::OwnDay).or(older_than);
        let named = options.named.clone();
        let Some(what) = &options.what else {
            return Ok(Self { database: named, repo: options.repo, selection, guard });
        };
        match what.parse::<DatabaseName>().ok().filter(|name| policy.databases.contains_key(name)) {
            Some(name) if named.as_ref().is_some_and(|named| *named != name) => {
                Err(Error::new(ExitCode::Usage, "two databases are named").hint("Name one, or leave both out."))
            }
            Some(name) => Ok(Self { database: Some(name), repo: options.repo, selection, guard }),
            None => Self::of_one(options, policy, catalog, what).await,
        }
    }

    /// About one backup.
    async fn of_one(options: &Options, policy: &Policy, catalog: &Catalog, id: &str) -> Result<Self, Error> {
        let Some(backup) = catalog.backup(id).await.map_err(catalog_error)? else { return Err(unknown(policy, id)) };
        let elsewhere = options.named.as_ref().is_some_and(|named| *named != backup.database)
            || options.repo.is_some_and(|repo| repo != backup.repo);
        if elsewhere {
            let repo = if backup.engine.is_dump() { String::new() } else { format!(", repository {}", backup.repo) };
            return Err(Error::new(ExitCode::Usage, format!("`{id}` is a backup of `{}`{repo}", backup.database))
                .hint("Leave out `--database` and `--repo`."));
        }
        if options.accept || options.expired || options.older_than.is_some() {
            let what = "a backup by its id is one choice, and `--accept`, `--expired` and `--older-than` are others";
            return Err(Error::new(ExitCode::Usage, what).hint("Make one choice."));
        }
        let repo = (!backup.engine.is_dump()).then_some(backup.repo);
        let selection = Some(Selection::One(backup.id));
        Ok(Self { database: Some(backup.database), repo, selection, guard: Guard::Former })
    }

    fn question<'a>(
        &'a self,
        session: &Session,
        policy: &'a Policy,
        catalog: &'a Catalog,
        (database, repo): (&'a Database, RepoKey),
    ) -> Question<'a> {
        let (selection, guard) = (self.selection.as_ref(), self.guard);
        Question { policy, database, repo, selection, guard, catalog, now: session.now }
    }
}

fn unknown(policy: &Policy, what: &str) -> Error {
    match what.parse() {
        Ok(name) => match session::find(policy, &name) {
            Err(error) if !what.starts_with("backup-") => error,
            _ => no_backup(what),
        },
        Err(_) => no_backup(what),
    }
}

fn no_backup(id: &str) -> Error {
    Error::new(ExitCode::Configuration, format!("there is no database and no backup `{id}`"))
        .hint("`backstop list` shows the ids; a name or label is not enough to end a backup by.")
}

pub(super) async fn run(session: &Session, options: &Options) -> Result<Answer, Error> {
    // A file that is broken stops this verb: it deletes, so it must know what the owner wants today.
    let policy = session.policy()?;
    if options.dry_run {
        let catalog = session.read_catalog(&policy).await?;
        let scope = Scope::of(options, &policy, &catalog).await?;
        return dry_run(session, &scope, &policy, &catalog).await;
    }
    if options.what.is_none() && options.named.is_none() {
        return Err(Error::new(ExitCode::Usage, "`expire` deletes, so it wants to be told the database")
            .hint("Name one, or look first with `--dry-run`."));
    }
    let catalog = session.write_catalog(&policy).await?;
    let scope = Scope::of(options, &policy, &catalog).await?;
    let name = scope.database.as_ref().expect("a database or a backup was named");
    let database = session::find(&policy, name)?.clone();
    if scope.guard == Guard::Accepted && scope.repo.is_some() && database.repos().len() > 1 {
        let what = "`--accept` is about all repositories of a database, and `--repo` shows one of them";
        return Err(Error::new(ExitCode::Usage, what).hint("Leave out `--repo`."));
    }
    let repos = repos(scope.repo, &database)?;
    let key = act::key(&database, JobKind::Expire, scope.repo)?;
    // One lock from the plan to the last removal, so that what goes is what was shown.
    let act = Act::begin(session, policy, catalog, &key).await?;
    let mut previews = Vec::new();
    for repo in repos {
        let Runner { policy, catalog, stop, .. } = &act.runner;
        let question = scope.question(session, policy, catalog, (&database, repo));
        previews.push(question.prepare(stop).await.map_err(Error::from)?);
    }
    let shown = render(&previews, act.runner.policy.daemon.timezone);
    let ends_something = previews.iter().any(Preview::ends_something);
    if let Some(why) = why_ask(&database, &scope, &previews).filter(|_| ends_something) {
        let question = format!("end {} backups?", going(&previews));
        act::confirm(options.yes, ("expire", &why), &shown, &question, &act.runner.stop).await?;
    }
    let is_done = previews.iter().all(Preview::is_empty);
    if is_done || scope.guard == Guard::Accepted {
        put_in_force(session, &scope, &act).await?;
    }
    if is_done {
        if let Some(Selection::One(id)) = &scope.selection {
            return Err(stays(id, &previews));
        }
        let text = format!("nothing to expire for {}\n{shown}", database.name);
        let result = json!({ "expired": [], "plans": previews });
        return Ok(Answer::new("expire", result, "nothing to expire", text).about(&database));
    }
    carry_out(session, &scope, &act, &previews, &shown).await
}

/// What a person wanted to go, and why it does not.
fn stays(id: &str, previews: &[Preview]) -> Error {
    let reasons = previews.iter().find_map(|preview| preview.decision(id)).map(|decision| decision.reasons.join("; "));
    let why = reasons.unwrap_or_else(|| "it is not there any more".to_owned());
    Error::new(ExitCode::Configuration, format!("`{id}` stays"))
        .because(why)
        .hint(format!("`backstop delete {id} --dry-run` tells what ends it all the same."))
}

/// Why a person is asked. Who names one backup knows how many go.
fn why_ask(database: &Database, scope: &Scope, previews: &[Preview]) -> Option<String> {
    if database.protected {
        return Some(act::PROTECTED.to_owned());
    }
    previews.iter().find_map(|preview| too_much(preview, database, scope))
}

fn too_much(preview: &Preview, database: &Database, scope: &Scope) -> Option<String> {
    let one = scope.selection.as_ref().is_some_and(Selection::is_of_one);
    preview.plan.too_much(database.retention.max_delete_fraction).filter(|_| !one)
}

/// Puts the rules of today in force, as a run does. Where nothing goes there is no run, and the rules of tomorrow must
/// find those of today. With `--accept` the former ones guard no more.
async fn put_in_force(session: &Session, scope: &Scope, act: &Act) -> Result<(), Error> {
    let (catalog, name) = (&act.runner.catalog, &act.database.name);
    // The answer to the question took its time.
    let now = clock::now();
    catalog.adopt_rules(&[(name, &act.database.rules())], now).await.map_err(catalog_error)?;
    if scope.guard == Guard::Former {
        return Ok(());
    }
    if let Some(head) = catalog.accept_rules(name, &session.witness, now).await.map_err(catalog_error)? {
        info!(database = %name, audit = head, "audit: accept_retention");
    }
    Ok(())
}

async fn carry_out(
    session: &Session,
    scope: &Scope,
    act: &Act,
    previews: &[Preview],
    shown: &str,
) -> Result<Answer, Error> {
    let database = &act.database;
    let several = database.repos().len() > 1;
    let mut texts = vec![shown.trim_end().to_owned()];
    let mut messages = Vec::new();
    let mut runs = Vec::new();
    for preview in previews {
        let key = act::key(database, JobKind::Expire, several.then_some(preview.repo))?;
        let (confirmed, selection) = (Some(preview.going()), scope.selection.clone());
        let request = Request { confirmed, selection, ..act::request(session, key) };
        let answer = act.run("expire", &request).await?;
        texts.push(answer.text);
        messages.push(answer.message);
        runs.push(answer.result);
    }
    let result = json!({ "runs": runs, "plans": previews });
    Ok(Answer::new("expire", result, messages.join("\n"), texts.join("\n")).about(database))
}

async fn dry_run(session: &Session, scope: &Scope, policy: &Policy, catalog: &Catalog) -> Result<Answer, Error> {
    if let Some(name) = &scope.database {
        session::find(policy, name)?;
    }
    let (mut all, mut asks) = (Vec::new(), String::new());
    let is_asked = |database: &&Database| scope.database.as_ref().is_none_or(|name| *name == database.name);
    for database in policy.databases.values().filter(is_asked) {
        for repo in repos(scope.repo, database)? {
            let question = scope.question(session, policy, catalog, (database, repo));
            let preview = question.preview(&Stop::never()).await.map_err(Error::from)?;
            if let Some(why) = too_much(&preview, database, scope) {
                asks.push_str(&format!("{}: {why}, so nothing goes before a person said yes\n", database.name));
            }
            all.push(preview);
        }
    }
    let message = format!("{} backups would go", going(&all));
    // Nobody reads the page beside a document, and that of many backups takes longer than their plan.
    let page = if session.json { String::new() } else { render(&all, policy.daemon.timezone) };
    let text = format!("{page}{asks}");
    Ok(Answer::new("expire", json!({ "dry_run": true, "plans": all }), message, text))
}

fn repos(repo: Option<RepoKey>, database: &Database) -> Result<Vec<RepoKey>, Error> {
    // Refuses one that the policy does not have.
    act::key(database, JobKind::Expire, repo)?;
    Ok(repo.map_or_else(|| database.repos().to_vec(), |repo| vec![repo]))
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
        if !preview.unfinished.is_empty() {
            page.push_str(&format!("deletions that go on: {}\n", preview.unfinished.join(", ")));
        }
    }
    page
}
