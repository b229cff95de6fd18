//! A database and its jobs: its own section over `[defaults]` over its environment over what is built in.
//!
//! A value is taken whole from the first section that has it. A newcomer would merge tables key by key; then nobody
//! could read from a section what holds.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    time::Duration,
};

use super::{
    Checker, dump,
    layer::{Layer, built_in_retention},
    no_tier,
    storage::Written,
};
use crate::{
    policy::{Database, Job, Key, Niceness, PgBackRest, Retention, Tier, source::At},
    record::{DatabaseName, EngineKind, RepoKey},
};

/// Environments that exist without being written.
const BUILT_IN_ENVIRONMENTS: &[&str] = &["development", "staging", "production"];
/// The environment of a database that names none.
const USUAL_ENVIRONMENT: &str = "production";

/// The sections that databases refer to.
pub(super) struct Shared {
    pub(super) defaults: Layer,
    pub(super) environments: BTreeMap<String, Layer>,
    pub(super) tiers: BTreeMap<String, Tier>,
    pub(super) storages: BTreeMap<String, Written>,
    pub(super) keys: BTreeMap<String, Key>,
}

/// The sections a database takes its values from, the nearest first.
pub(super) struct Layers<'l> {
    pub(super) own: &'l Layer,
    pub(super) defaults: &'l Layer,
    pub(super) environment: Option<&'l Layer>,
}

impl<'l> Layers<'l> {
    /// The value of the first section that has it, and that section.
    pub(super) fn written<T>(&self, get: impl Fn(&'l Layer) -> Option<T>) -> Option<(T, &'l Layer)> {
        let layers = [Some(self.own), Some(self.defaults), self.environment];
        layers.into_iter().flatten().find_map(|layer| get(layer).map(|value| (value, layer)))
    }

    /// The value of the first section that has it.
    pub(super) fn first<T>(&self, get: impl Fn(&'l Layer) -> Option<T>) -> Option<T> {
        self.written(get).map(|(value, _)| value)
    }
}

/// The databases that stand for one stanza in one repository.
type Stanzas = HashMap<(String, Option<PathBuf>, RepoKey), DatabaseName>;

impl Checker<'_, '_> {
    /// Checks the databases; their jobs are added to `jobs`.
    pub(super) fn databases(
        &mut self,
        layers: &BTreeMap<String, Layer>,
        shared: &Shared,
        jobs: &mut Vec<Job>,
    ) -> BTreeMap<DatabaseName, Database> {
        if layers.is_empty() && !self.findings.is_damaged(&At::Top(0, "database")) {
            let warning = self.findings.warning(&At::File(0), "there is no database in this policy");
            warning.help("Write a `[database.NAME]`.");
        }
        let sections = layers.values().chain(shared.environments.values()).chain([&shared.defaults]);
        sections.for_each(|layer| self.names_are_defined(layer, shared));
        let mut stanzas = Stanzas::new();
        let mut databases = BTreeMap::new();
        for (name, own) in layers {
            let Ok(name) = name.parse::<DatabaseName>() else { continue };
            let layers = self.layers(own, shared);
            let database = self.database(name.clone(), &layers, shared);
            self.stanza_is_its_own(&database, own, &mut stanzas);
            let own_jobs = self.jobs(&database, &layers);
            // Where the engine is wrong, nobody knows what fits to it.
            if !self.is_damaged_in(&layers, "engine") {
                self.keys_fit_engine(&database, &layers);
                self.dump_fits(&database, &own_jobs, &layers, shared);
                self.jobs_fit(&database, &own_jobs, &layers);
            }
            jobs.extend(own_jobs.into_iter().map(|planned| planned.job));
            databases.insert(name, database);
        }
        self.dumps_fit_together(&databases, layers, shared);
        databases
    }

    /// Finds the environment of a database, which must be built in or written.
    fn layers<'l>(&mut self, own: &'l Layer, shared: &'l Shared) -> Layers<'l> {
        let layers = Layers { own, defaults: &shared.defaults, environment: None };
        let written = layers.written(|layer| layer.environment.as_deref());
        let name = written.map_or(USUAL_ENVIRONMENT, |(name, _)| name);
        let environment = shared.environments.get(name);
        if let (None, Some((_, layer)), false) = (environment, written, BUILT_IN_ENVIRONMENTS.contains(&name)) {
            let known = shared.environments.keys().map(String::as_str).chain(BUILT_IN_ENVIRONMENTS.iter().copied());
            let problem =
                self.findings.error(&layer.at().key("environment"), format!("there is no environment `{name}`"));
            problem.help(format!("Write an `[environment.{name}]`.")).suggest(name, known);
        }
        Layers { environment, ..layers }
    }

    fn database(&mut self, name: DatabaseName, layers: &Layers, shared: &Shared) -> Database {
        let environment = layers.first(|layer| layer.environment.as_deref()).unwrap_or(USUAL_ENVIRONMENT);
        let protected = layers.environment.and_then(|layer| layer.protected);
        let tier = layers.written(|layer| layer.tier.as_deref());
        let tool = layers.first(|layer| layer.pgbackrest.as_ref()).cloned().unwrap_or_default();
        let stanza = layers.own.stanza.clone().unwrap_or_else(|| name.to_string());
        let engine = layers.first(|layer| layer.engine).unwrap_or(EngineKind::PgBackRest);
        Database {
            engine,
            environment: environment.to_owned(),
            protected: protected.unwrap_or(environment == USUAL_ENVIRONMENT),
            tier: tier.map_or_else(no_tier, |(name, layer)| self.tier_named(name, layer, shared)),
            connection: layers.own.connection.clone(),
            password: layers.first(|layer| layer.password.clone()),
            pgbackrest: PgBackRest { stanza, ..tool },
            dump: dump::dump(engine, layers),
            retention: retention(engine, layers, environment),
            wal: layers.first(|layer| layer.wal.clone()).unwrap_or_default(),
            test_restore: layers.first(|layer| layer.test_restore.clone()).unwrap_or_default(),
            niceness: Niceness { nice: layers.first(|layer| layer.nice), ionice: layers.first(|layer| layer.ionice) },
            stall: layers.first(|layer| layer.stall).unwrap_or(Duration::from_secs(30 * 60)),
            name,
        }
    }

    fn tier_named(&mut self, name: &str, layer: &Layer, shared: &Shared) -> Tier {
        shared.tiers.get(name).cloned().unwrap_or_else(|| {
            let known = shared.tiers.keys().map(String::as_str);
            let problem = self.findings.error(&layer.at().key("tier"), format!("there is no tier `{name}`"));
            problem.help(format!("Write a `[tier.{name}]`.")).suggest(name, known);
            no_tier()
        })
    }

    /// Two databases over one stanza would expire each other's backups.
    fn stanza_is_its_own(&mut self, database: &Database, own: &Layer, stanzas: &mut Stanzas) {
        let tool = &database.pgbackrest;
        if database.engine != EngineKind::PgBackRest {
            return;
        }
        for repo in &tool.repos {
            let place = (tool.stanza.clone(), tool.config.clone(), *repo);
            if let Some(other) = stanzas.insert(place, database.name.clone()).filter(|other| *other != database.name) {
                let message =
                    format!("stanza `{}` in repository {repo} is that of database `{other}` already", tool.stanza);
                self.findings
                    .error(&own.at().key("stanza"), message)
                    .help("Two databases would expire each other's backups.");
            }
        }
    }
}

/// The rules that were written, or the environment's days where there is no rule among them.
fn retention(engine: EngineKind, layers: &Layers, environment: &str) -> Retention {
    let written = layers.first(|layer| layer.retention.clone());
    let mut rules = written.unwrap_or_default();
    if engine.is_dump() {
        // A rule for what it does not have is no rule.
        (rules.diff, rules.incr) = (None, None);
    }
    if rules.has_rule() {
        return rules;
    }
    let days = layers.environment.and_then(|layer| layer.retention_days);
    Retention { within: Some(days.unwrap_or(built_in_retention(environment))), ..rules }
}

#[cfg(test)]
mod tests {
    use crate::policy::{Policy, check::parse};

    /// A database with `keys`, over whatever `rest` says.
    fn policy(keys: &str, rest: &str) -> Policy {
        let text = format!("[database.orders]\nschedule = {{ full = \"@weekly\" }}\n{keys}\n{rest}");
        parse(&text).unwrap_or_else(|problems| panic!("{problems}"))
    }

    fn problems(text: &str) -> Vec<String> {
        let problems = parse(text).map_or_else(|problems| problems.list().to_vec(), |policy| policy.warnings);
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn where_pgbackrest_decides_our_rules_end_nothing() {
        let rules = |keys: &str| {
            policy(&format!("retention = {{ full = 4 }}\n{keys}"), "").databases[&"orders".parse().unwrap()].rules()
        };
        assert_eq!(rules("").full, Some(4));
        assert!(
            !rules("pgbackrest = { expire_by = \"pgbackrest\" }").has_rule(),
            "a change to ours is a tighter policy"
        );
    }

    #[test]
    fn a_value_is_taken_whole_from_the_first_section_that_has_it() {
        let shared = "[defaults]\nstall = \"10m\"\nretention = { full = 4, diff = 14 }\n\
                      [environment.production]\nstall = \"20m\"\nnice = 5";
        let of = |keys: &str| policy(keys, shared).databases.into_values().next().unwrap();
        assert_eq!(of("").stall.as_secs(), 600);
        assert_eq!(of("stall = \"1m\"").stall.as_secs(), 60);
        assert_eq!(of("").niceness.nice, Some(5));
        let retention = of("retention = { full = 2 }").retention;
        assert_eq!((retention.full, retention.diff, retention.keep_proven), (Some(2), None, 1));
    }

    #[test]
    fn the_days_of_the_environment_hold_only_where_no_rule_is_written() {
        let days = |keys: &str, rest: &str| {
            let database = policy(keys, rest).databases.into_values().next().unwrap();
            database.retention.within.map(|within| within.as_secs() / 86_400)
        };
        assert_eq!(days("", ""), Some(90));
        assert_eq!(days("environment = \"staging\"", ""), Some(60));
        assert_eq!(days("environment = \"lab\"", "[environment.lab]\nretention_days = 3"), Some(3));
        assert_eq!(days("retention = { keep_proven = 2 }", ""), Some(90));
        assert_eq!(days("retention = { full = 2 }", ""), None);
        assert_eq!(days("", "[defaults]\nretention = { full = 2 }"), None);
    }

    #[test]
    fn production_is_protected_unless_it_says_otherwise() {
        let protected =
            |keys: &str, rest: &str| policy(keys, rest).databases.values().all(|database| database.protected);
        assert!(protected("", ""));
        assert!(!protected("environment = \"staging\"", ""));
        assert!(!protected("", "[environment.production]\nprotected = false"));
    }

    #[test]
    fn two_databases_may_not_share_a_stanza_in_one_repository() {
        let schedule = "schedule = { full = \"@weekly\", test_restore = \"@monthly\", expire = \"@daily\" }";
        let two = |rest: &str| {
            problems(&format!(
                "[database.a]\nstanza = \"x\"\n{schedule}\n[database.b]\nstanza = \"x\"\n{schedule}\n{rest}"
            ))
        };
        assert!(two("")[0].contains("stanza `x` in repository 1 is that of database `a` already"), "{:?}", two(""));
        assert_eq!(two("pgbackrest = { repos = [2] }"), Vec::<String>::new());
        assert_eq!(two("pgbackrest = { config = \"/etc/b.conf\" }"), Vec::<String>::new());
    }

    #[test]
    fn thousands_of_databases_load() {
        let databases = (0..2_500).map(|number| {
            let (hour, minute) = (number % 24, number % 60);
            format!(
                "[database.db{number}.schedule]\nfull = \"{minute} {hour} * * SUN\"\ndiff = \"{minute} {hour} * * MON-SAT\"\n\
                 expire = \"{minute} 4 * * *\"\ntest_restore = \"{minute} {hour} 1 * *\"\n"
            )
        });
        let policy = parse(&databases.collect::<String>()).unwrap();
        assert_eq!((policy.databases.len(), policy.jobs.len()), (2_500, 10_001));
        assert!(policy.jobs.is_sorted_by_key(|job| &job.key));
    }
}
