//! What a verb works with: which policy is in use, the catalog, the time that is asked about.

use std::path::PathBuf;

use chrono::{DateTime, Utc};

use super::{Arguments, Color, user};
use crate::{
    catalog::{self, Catalog},
    clock,
    error::{Error, ExitCode},
    policy::{Database, Policy, Problems},
    record::DatabaseName,
};

/// One call of the command line.
pub(super) struct Session {
    /// The policy file.
    pub(super) path: PathBuf,
    /// Who asks, for the history.
    pub(super) actor: String,
    /// Who asks, for the audit.
    pub(super) witness: String,
    /// The time that is asked about.
    pub(super) now: DateTime<Utc>,
    /// Whether progress may be drawn.
    pub(super) json: bool,
    color: Color,
}

impl Session {
    pub(super) fn new(arguments: &Arguments, caller: user::Caller) -> Self {
        Self {
            path: arguments.policy.clone(),
            actor: caller.name,
            witness: caller.witness,
            now: arguments.at.unwrap_or_else(clock::now),
            json: arguments.json,
            color: arguments.color,
        }
    }

    /// Whether stdout takes colour.
    pub(super) fn color(&self) -> bool {
        use std::io::IsTerminal;
        match self.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        }
    }

    /// The policy on disk, for verbs that act: a broken file stops them.
    pub(super) fn policy(&self) -> Result<Policy, Error> {
        Policy::load(&self.path).map_err(|problems| self.broken(problems))
    }

    /// The policy on disk or, where that is broken, the last accepted one; with what is wrong with the file.
    pub(super) async fn policy_for_looking(&self) -> Result<(Policy, Catalog, Option<String>), Error> {
        match Policy::load(&self.path) {
            Ok(policy) => {
                let catalog = self.read_catalog(&policy).await?;
                Ok((policy, catalog, None))
            }
            Err(problems) => {
                let state_dir = user::state_dir(&self.path);
                let Ok(catalog) = Catalog::open_read_only(&state_dir).await else { return Err(self.broken(problems)) };
                let accepted = self.accepted(&catalog).await;
                let policy = accepted.ok_or_else(|| self.broken(problems.clone()))?;
                let notice =
                    format!("the policy file is broken ({}), so the last accepted policy speaks", problems.count());
                Ok((policy, catalog, Some(notice)))
            }
        }
    }

    /// The daemon starts with the last accepted policy when the file is broken; only a first start needs a good file.
    pub(super) async fn policy_for_daemon(&self) -> Result<(Policy, Option<String>), Error> {
        let problems = match Policy::load(&self.path) {
            Ok(policy) => return Ok((policy, None)),
            Err(problems) => problems,
        };
        let accepted = match Catalog::open_read_only(&user::state_dir(&self.path)).await {
            Ok(catalog) => self.accepted(&catalog).await,
            Err(_) => None,
        };
        let Some(policy) = accepted else { return Err(self.broken(problems)) };
        for problem in problems.list() {
            tracing::error!("policy: {}", problem);
        }
        tracing::error!("the policy file is broken, the last accepted policy goes on");
        Ok((policy, Some(problems.count())))
    }

    async fn accepted(&self, catalog: &Catalog) -> Option<Policy> {
        let accepted = catalog.accepted_policy().await.ok().flatten()?;
        Policy::parse(accepted.files).ok()
    }

    fn broken(&self, problems: Problems) -> Error {
        Error::new(ExitCode::Configuration, format!("the policy `{}` is refused", self.path.display()))
            .because(problems)
            .hint("`backstop check` shows each place in the file.")
    }

    /// The catalog, for looking only.
    pub(super) async fn read_catalog(&self, policy: &Policy) -> Result<Catalog, Error> {
        Catalog::open_read_only(&policy.daemon.state_dir).await.map_err(catalog_error)
    }

    /// The catalog, for acting; made if this state directory never had one.
    pub(super) async fn write_catalog(&self, policy: &Policy) -> Result<Catalog, Error> {
        Catalog::open(&policy.daemon.state_dir, clock::now()).await.map_err(catalog_error)
    }
}

/// The database of that name, or an error that names those that exist.
pub(super) fn find<'a>(policy: &'a Policy, name: &DatabaseName) -> Result<&'a Database, Error> {
    policy.databases.get(name).ok_or_else(|| {
        let known: Vec<&str> = policy.databases.keys().map(DatabaseName::as_str).collect();
        let near = known.iter().find(|known| strsim::jaro_winkler(known, name.as_str()) > 0.8);
        let hint = match near {
            Some(near) => format!("Did you mean `{near}`?"),
            None => format!("The policy has: {}.", known.join(", ")),
        };
        Error::new(ExitCode::Configuration, format!("the policy has no database `{name}`")).hint(hint)
    })
}

/// A catalog error as the command line shows it.
pub(super) fn catalog_error(problem: catalog::Error) -> Error {
    let error = Error::new(problem.exit(), "the catalog cannot be used");
    match problem.hint() {
        Some(hint) => error.because(problem).hint(hint),
        None => error.because(problem),
    }
}
