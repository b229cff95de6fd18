//! The jobs of a database: each timing of its schedule, on each repository it concerns, with the rules around it.
//!
//! A newcomer would number the jobs; a job's key is its identity over restarts and reloads, so it holds what a person
//! wrote (database, kind, repository, name) and nothing that moves when a line is added.

use std::time::Duration;

use super::{
    Checker, HOUR, MINUTE,
    database::Layers,
    timing::{Timing, built_in_timeout, is_per_repo},
};
use crate::{
    policy::{Database, Job, Promote, source::At},
    record::{EngineKind, JobKey, JobKind, RepoKey},
};

/// A job with what it was made from.
pub(super) struct Planned<'l> {
    pub(super) timing: &'l Timing,
    /// The repository it works on; none where it works on all, or on the one that suits.
    pub(super) repo: Option<RepoKey>,
    pub(super) job: Job,
}

impl Checker<'_, '_> {
    /// The jobs of a database, one for each repository where the kind is per repository.
    pub(super) fn jobs<'l>(&mut self, database: &Database, layers: &Layers<'l>) -> Vec<Planned<'l>> {
        let Some((timings, layer)) = layers.written(|layer| layer.schedule.as_deref()) else { return Vec::new() };
        let section = layer.at();
        let at = section.key("schedule");
        let splay = layers.written(|layer| layer.splay);
        let splay_section = splay.map(|(_, layer)| layer.at());
        let inherited = splay.map(|(splay, _)| splay).zip(splay_section.as_ref());
        let mut planned = Vec::new();
        for timing in timings.iter().filter(|timing| is_possible(database.engine, timing.kind)) {
            self.repo_is_known(timing, &at, database);
            self.splay_fits(timing, &at, inherited);
            for repo in repos_of(timing, database) {
                planned.push(Planned { timing, repo, job: job(database, timing, repo, layers) });
            }
        }
        planned
    }

    fn repo_is_known(&mut self, timing: &Timing, at: &At, database: &Database) {
        if database.engine.is_dump() {
            if timing.repo.is_some() {
                let message = format!("`repo` makes no sense for `{}`", database.name);
                timing.locate(at, |at| {
                    let problem = self.findings.key_error(&at.key("repo"), message);
                    problem.help("A dump goes to all its storages at once.");
                });
            }
            return;
        }
        let repos = &database.pgbackrest.repos;
        if let Some(repo) = timing.repo.filter(|repo| !repos.contains(repo)) {
            let message = format!("repository {repo} is not one of `{}`", database.name);
            let repos: Vec<String> = repos.iter().map(RepoKey::to_string).collect();
            let help = format!("Its `pgbackrest.repos` are [{}].", repos.join(", "));
            timing.locate(at, |at| {
                self.findings.error(&at.key("repo"), message).help(help);
            });
        }
    }

    /// A shift beyond the next slot would run two slots in the wrong order.
    pub(super) fn splay_fits(&mut self, timing: &Timing, schedules: &At, inherited: Option<(Duration, &At)>) {
        let splay = timing.splay.or(inherited.map(|(splay, _)| splay)).unwrap_or_default();
        // Looking at the slots takes longer than parsing the text, and nearly every splay is short.
        if splay <= least_pause(timing.schedule.text()) {
            return;
        }
        let shortest = self.crons.pauses(&timing.schedule).shortest;
        if splay > shortest {
            let pause = humantime::format_duration(shortest);
            let message =
                format!("is longer than the pause of {pause} between two runs of `{}`", timing.schedule.text());
            let findings = &mut self.findings;
            match inherited.filter(|_| timing.splay.is_none()) {
                Some((_, section)) => {
                    findings.error(&section.key("splay"), message);
                }
                None => timing.locate(schedules, |at| {
                    findings.error(&at.key("splay"), message);
                }),
            }
        }
    }
}

/// What lies at least between two slots of a cron text, as far as its look tells: an hour where the minute is fixed.
fn least_pause(text: &str) -> Duration {
    let fields: Vec<&str> = text.split_whitespace().collect();
    match fields.as_slice() {
        [minute, _, _, _, _] if minute.bytes().all(|byte| byte.is_ascii_digit()) => HOUR,
        [_, _, _, _, _] => MINUTE,
        _ => Duration::ZERO,
    }
}

/// The repositories for each of which a timing makes a job; `None` is one job without a repository.
fn repos_of(timing: &Timing, database: &Database) -> Vec<Option<RepoKey>> {
    match timing.repo {
        _ if database.engine.is_dump() => vec![None],
        None if is_per_repo(timing.kind) => database.pgbackrest.repos.iter().copied().map(Some).collect(),
        repo => vec![repo],
    }
}

/// Whether an engine has jobs of this kind: a dump is always a full, and of one moment.
const fn is_possible(engine: EngineKind, kind: JobKind) -> bool {
    !(engine.is_dump() && matches!(kind, JobKind::Diff | JobKind::Incr | JobKind::Wal))
}

fn job(database: &Database, timing: &Timing, repo: Option<RepoKey>, layers: &Layers) -> Job {
    let has_several = database.repos().len() > 1;
    let key = JobKey {
        database: Some(database.name.clone()),
        kind: timing.kind,
        repo: timing.repo.or(repo.filter(|_| has_several)),
        name: timing.name.clone(),
    };
    Job {
        key,
        schedule: timing.schedule.clone(),
        splay: timing.splay.or_else(|| layers.first(|layer| layer.splay)).unwrap_or_default(),
        catch_up: timing.catch_up.or_else(|| layers.first(|layer| layer.catch_up)),
        retry: timing.retry.or_else(|| layers.first(|layer| layer.retry)).unwrap_or_default(),
        timeout: timing.timeout.or(built_in_timeout(timing.kind)),
        not_after: timing.not_after,
        promote: timing.promote.or_else(|| layers.first(|layer| layer.promote)).unwrap_or(Promote::Diff),
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        policy::{Promote, check::parse},
        record::JobKey,
    };

    fn problems(text: &str) -> Vec<String> {
        let problems = parse(text).map_or_else(|problems| problems.list().to_vec(), |policy| policy.warnings);
        problems.iter().map(ToString::to_string).collect()
    }

    fn keys(text: &str) -> Vec<String> {
        let policy = parse(text).unwrap_or_else(|problems| panic!("{problems}"));
        policy.jobs.iter().map(|job| job.key.to_string()).collect()
    }

    #[test]
    fn there_is_one_job_a_repository_where_the_kind_is_per_repository() {
        let one =
            "[database.orders]\nschedule = { full = \"@weekly\", wal = \"@hourly\", test_restore = \"@monthly\" }";
        assert_eq!(keys(one), ["catalog_backup", "orders/full", "orders/wal", "orders/test_restore"]);
        let two = format!("{one}\npgbackrest = {{ repos = [1, 2] }}");
        assert_eq!(
            keys(&two),
            ["catalog_backup", "orders/full@1", "orders/full@2", "orders/wal", "orders/test_restore"]
        );
        let written = "[database.orders]\nschedule = { full = { cron = \"@weekly\", repo = 1 } }";
        assert_eq!(keys(written), ["catalog_backup", "orders/full@1"]);
    }

    #[test]
    fn a_list_makes_one_job_for_each_name() {
        let list = "[database.orders.schedule]\nfull = [{ cron = \"@weekly\", name = \"week\" }, \"@monthly\"]";
        assert_eq!(keys(list), ["catalog_backup", "orders/full", "orders/full:week"]);
    }

    #[test]
    fn what_is_written_at_a_schedule_goes_before_what_the_database_says() {
        let timings =
            "schedule = { full = \"@weekly\", incr = { cron = \"@daily\", promote = \"any\", splay = \"1m\" } }";
        let text =
            format!("[database.orders]\n{timings}\nsplay = \"2m\"\npromote = \"never\"\nretry = {{ attempts = 9 }}");
        let policy = parse(&text).unwrap();
        let job = |key: &str| policy.jobs.iter().find(|job| job.key.to_string() == key).unwrap();
        assert_eq!((job("orders/incr").splay.as_secs(), job("orders/incr").promote), (60, Promote::Any));
        assert_eq!((job("orders/full").splay.as_secs(), job("orders/full").promote), (120, Promote::Never));
        assert_eq!((job("orders/full").retry.attempts, job("orders/full").retry.backoff.as_secs()), (9, 60));
        assert_eq!(job("catalog_backup").retry.attempts, 3);
    }

    #[test]
    fn backups_have_no_timeout_and_checks_have_one() {
        let schedule =
            "schedule = { full = \"@weekly\", wal = \"@hourly\", verify = \"@weekly\", expire = \"@daily\" }";
        let policy = parse(&format!("[database.orders]\n{schedule}")).unwrap();
        let minutes: Vec<_> = policy
            .jobs
            .iter()
            .map(|job| (JobKey::to_string(&job.key), job.timeout.map(|timeout| timeout.as_secs() / 60)))
            .collect();
        let expected = [
            ("catalog_backup", Some(60)),
            ("orders/full", None),
            ("orders/wal", Some(10)),
            ("orders/expire", Some(60)),
            ("orders/verify", Some(360)),
        ];
        assert_eq!(minutes, expected.map(|(key, minutes)| (key.to_owned(), minutes)));
    }

    #[test]
    fn a_splay_may_not_reach_beyond_the_next_slot() {
        let full = "test_restore = \"@monthly\", expire = \"@daily\", full = \"@weekly\"";
        let at_schedule = problems(&format!(
            "[database.a]\nschedule = {{ {full}, wal = {{ cron = \"*/5 * * * *\", splay = \"6m\" }} }}"
        ));
        assert!(at_schedule[0].contains("splay: is longer than the pause of 5m"), "{at_schedule:?}");
        let inherited = problems(&format!(
            "[defaults]\nsplay = \"6m\"\nschedule = {{ {full}, wal = \"*/5 * * * *\" }}\n[database.a]\n[database.b]"
        ));
        assert_eq!(inherited.len(), 1, "{inherited:?}");
        assert!(inherited[0].starts_with("backstop.toml:2:9: defaults.splay: "), "{inherited:?}");
    }
}
