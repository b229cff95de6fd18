//! Whether the jobs of a database fit together and to its objectives: what they must have, and what they should.
//!
//! A newcomer would warn of everything that could be better; a warning stands for something that will be missed on the
//! day of a restore.

use super::{Checker, database::Layers, jobs::Planned};
use crate::{
    policy::{Database, ExpireBy, source::At},
    record::{EngineKind, JobKind},
};

impl Checker<'_, '_> {
    /// What the jobs of a database must have, and what they should have.
    pub(super) fn jobs_fit(&mut self, database: &Database, planned: &[Planned], layers: &Layers) {
        self.copies_are_possible(database, layers);
        let own = layers.own.at();
        let written = layers.written(|layer| layer.schedule.as_deref()).map_or(layers.own, |(_, layer)| layer);
        let section = written.at();
        let at = section.key("schedule");
        let has = |kind| planned.iter().any(|planned| planned.job.key.kind == kind);
        let is_missing =
            |checker: &Self, kind: JobKind| !has(kind) && !checker.findings.is_damaged(&at.key(kind.as_str()));

        if is_missing(self, JobKind::Full) && !has(JobKind::Diff) && !has(JobKind::Incr) {
            let warning = self.findings.warning(&own, "no backup is scheduled");
            warning.help("Write for example `schedule = { full = \"0 2 * * SUN\" }`.");
            return;
        }
        self.chains_have_a_full(planned, &at);
        if is_missing(self, JobKind::TestRestore) {
            let warning =
                self.findings.warning(&own, "no test restore is scheduled, so nothing proves that a restore works");
            warning.help("Write for example `test_restore = \"0 4 1 * *\"` in its schedule.");
        }
        if is_missing(self, JobKind::Expire) {
            let warning =
                self.findings.warning(&own, "no expire is scheduled, so the retention rules are never carried out");
            warning.help("Write for example `expire = \"30 4 * * *\"` in its schedule.");
        }
        if is_missing(self, JobKind::Wal) && database.tier.rpo.is_some() && !database.engine.is_dump() {
            let message = format!("tier `{}` has an rpo, but no WAL check is scheduled", database.tier.name);
            self.findings.warning(&own, message).help("Write for example `wal = \"*/5 * * * *\"` in its schedule.");
        }
        self.rpo_is_watched(database, planned, &at);
        self.rules_are_used(database, layers);
    }

    fn chains_have_a_full(&mut self, planned: &[Planned], at: &At) {
        if self.findings.is_damaged(&at.key("full")) {
            return;
        }
        for chained in planned.iter().filter(|planned| matches!(planned.timing.kind, JobKind::Diff | JobKind::Incr)) {
            let is_base = |other: &Planned| other.timing.kind == JobKind::Full && other.repo == chained.repo;
            if !planned.iter().any(is_base) {
                let is_elsewhere = planned.iter().any(|other| other.timing.kind == JobKind::Full);
                let place = match chained.repo.filter(|_| is_elsewhere) {
                    Some(repo) => format!(" in repository {repo}"),
                    None => String::new(),
                };
                let message = format!("no full is scheduled{place} for it to build on");
                let help = "Write for example `full = \"0 2 * * SUN\"` beside it.";
                chained.timing.locate(at, |at| {
                    self.findings.warning(at, message).help(help);
                });
            }
        }
    }

    /// With WAL the checks tell what may be lost; without it each dump does.
    fn rpo_is_watched(&mut self, database: &Database, planned: &[Planned], at: &At) {
        let Some(rpo) = database.tier.rpo else { return };
        let (kind, what) = match database.engine {
            EngineKind::PgBackRest => (JobKind::Wal, "checks"),
            EngineKind::PgDump | EngineKind::MySqlDump | EngineKind::Sqlite => (JobKind::Full, "dumps"),
        };
        // Several schedules of dumps lie between each other; how closely is not looked at.
        let watches: Vec<&Planned> = planned.iter().filter(|planned| planned.timing.kind == kind).collect();
        if kind == JobKind::Full && watches.len() > 1 {
            return;
        }
        for watch in watches {
            let longest = self.crons.pauses(&watch.timing.schedule).longest;
            if longest > rpo {
                let (tier, pause, rpo) =
                    (&database.tier.name, humantime::format_duration(longest), humantime::format_duration(rpo));
                let message = format!("up to {pause} pass between two {what}, but tier `{tier}` has an rpo of {rpo}");
                watch.timing.locate(at, |at| {
                    self.findings.warning(at, message);
                });
            }
        }
    }

    fn copies_are_possible(&mut self, database: &Database, layers: &Layers) {
        let tier = &database.tier;
        let is_dump = database.engine.is_dump();
        let places = if is_dump { database.dump.storages.len() } else { database.pgbackrest.repos.len() };
        let Some(wanted) = tier.min_copies.filter(|wanted| *wanted as usize > places) else { return };
        // A storage that is missing, or wrong, is told already.
        if is_dump && (places == 0 || self.is_damaged_in(layers, "storage")) {
            return;
        }
        let message = format!("tier `{}` wants {wanted} copies, but there is a place for {places}", tier.name);
        let written = layers.written(|layer| layer.tier.as_ref()).map_or(layers.own, |(_, layer)| layer);
        let section = written.at();
        if is_dump {
            self.findings.error(&section.key("tier"), message).help("List more storages in `storage`.");
        } else {
            let warning = self.findings.warning(&section.key("tier"), message);
            warning.help("List more repositories in `pgbackrest.repos`.");
        }
    }

    fn rules_are_used(&mut self, database: &Database, layers: &Layers) {
        if database.pgbackrest.expire_by == ExpireBy::PgBackRest && layers.own.retention.is_some() {
            let message = "is not used, because `expire_by` leaves it to pgBackRest's own configuration";
            self.findings.warning(&layers.own.at().key("retention"), message);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::check::parse;

    fn problems(text: &str) -> Vec<String> {
        let problems = parse(text).map_or_else(|problems| problems.list().to_vec(), |policy| policy.warnings);
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_chain_needs_a_full_in_its_own_repository() {
        let schedule = |text: &str| {
            problems(&format!(
                "[database.orders]\nschedule = {{ {text}, test_restore = \"@monthly\", expire = \"@daily\" }}\npgbackrest = {{ repos = [1, 2] }}"
            ))
        };
        let missing = schedule("diff = \"@daily\"");
        assert!(
            missing[0].contains("database.orders.schedule.diff: no full is scheduled for it to build on"),
            "{missing:?}"
        );
        let elsewhere = schedule("full = { cron = \"@weekly\", repo = 1 }, diff = \"@daily\"");
        assert!(elsewhere[0].contains("no full is scheduled in repository 2"), "{elsewhere:?}");
        assert_eq!(schedule("full = \"@weekly\", diff = \"@daily\""), Vec::<String>::new());
    }

    #[test]
    fn a_mistake_in_the_full_is_not_told_again_as_a_missing_full() {
        let told = problems("[database.orders.schedule]\nfull = 5\ndiff = \"@daily\"\nincr = { cron = 5 }");
        let errors: Vec<_> = told.iter().filter(|problem| !problem.contains("is scheduled, so")).collect();
        assert_eq!(errors.len(), 2, "{told:#?}");
    }

    #[test]
    fn what_is_allowed_but_unwise_is_a_warning() {
        let tier = "[tier.gold]\nrpo = \"15m\"\nmin_copies = 2\n[database.orders]\ntier = \"gold\"\n";
        let bare = problems(&format!("{tier}password = \"credential:pw\"\nschedule = {{ full = \"@weekly\" }}"));
        for warning in [
            "a systemd credential changes only at a restart",
            "no test restore is scheduled",
            "no expire is scheduled",
            "tier `gold` has an rpo, but no WAL check is scheduled",
            "tier `gold` wants 2 copies, but there is a place for 1",
        ] {
            assert!(bare.iter().any(|problem| problem.contains(warning)), "{warning}: {bare:#?}");
        }
        let slow = problems(&format!("{tier}schedule = {{ full = \"@weekly\", wal = \"@hourly\" }}"));
        assert!(slow.iter().any(|problem| problem.contains("up to 1h pass between two checks")), "{slow:#?}");
        assert!(problems("")[0].contains("there is no database in this policy"));
        assert!(problems("[database.orders]")[0].contains("no backup is scheduled"));
    }
}
