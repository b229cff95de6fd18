//! The throw-away server of a test restore: found, told how far to recover, started behind its walls, and asked how far
//! it came.
//!
//! A newcomer would be content when it accepts connections. It does that as well when the WAL ended early; only the
//! position it reached, and the restore point it stopped at, tell.

use std::path::Path;

use chrono::{DateTime, Utc};

use super::{
    super::{
        Context, checks, failure,
        steps::{Checked, Result},
        stopped,
    },
    production::Production,
    wal::Plan,
};
use crate::{
    postgres::Client,
    process::{Command, capture},
    record::{Backup, ErrorClass, Failure},
    recovery::Lsn,
    sandbox::{Cluster, Layout, PORT, RecoveryLog, Sandbox, Server, Start, Trouble, write_configuration},
};

/// The programs that it needs.
pub(super) const PROGRAMS: [&str; 6] = ["postgres", "psql", "pg_controldata", "pg_dumpall", "pg_dump", "pg_checksums"];

/// The copy after its recovery.
pub(super) struct Copy {
    pub(super) client: Client,
    pub(super) reached: Lsn,
    pub(super) recovered_to: Option<DateTime<Utc>>,
}

/// Reads the restored control file; it must be of the cluster that was backed up.
pub(super) async fn control_data(
    context: &Context,
    programs: &Path,
    backup: &Backup,
    layout: &Layout,
    production: &Production,
) -> std::result::Result<Cluster, Failure> {
    let command = Command::new(programs.join("pg_controldata")).arg("-D").arg(layout.data());
    let captured = capture(&command, &context.stop).await?;
    let mut cluster = Cluster::read(&String::from_utf8_lossy(&captured.stdout))?;
    if cluster.system_id != backup.system_id {
        let message = format!("the restored cluster is {}, not {}", cluster.system_id, backup.system_id);
        return Err(failure(
            ErrorClass::Integrity,
            message,
            "Look at the repository: it holds another cluster's backup.",
        ));
    }
    production.floors.iter().for_each(|(setting, value)| cluster.raise(setting, *value));
    Ok(cluster)
}

/// Replaces the restored configuration by one of ours.
pub(super) async fn configure(layout: &Layout, cluster: &Cluster, plan: &Plan) -> Result<()> {
    write_configuration(layout, Start::Recovery { cluster, target: &plan.target })?;
    let end = plan.target.restore_point.as_ref().map_or("the end of the WAL", |name| name.as_str());
    Ok(Checked::passed((), format!("generated; recovery on timeline {} to {end}", plan.target.timeline)))
}

/// Starts the server, waits for the end of its recovery, and asks where that was.
pub(super) async fn recover(
    context: &Context,
    sandbox: &Sandbox,
    plan: &Plan,
    production: &Production,
) -> Result<(Server, Copy)> {
    let mut server = Server::start(sandbox, &context.log_dir.join("server.log"))?;
    server.recovered(&context.stop).await.map_err(|trouble| explained(&trouble, production))?;
    let client = Client::at_socket(&sandbox.layout().sockets(), PORT, sandbox.programs());
    let client = client.as_role(&production.superuser).stop(&context.stop);
    let asked = "select pg_is_in_recovery(), current_setting('data_directory'), pg_last_wal_replay_lsn()";
    let answer = client.query(asked).await.map_err(checks::query_failed)?;
    let field = |number: usize| answer.first().and_then(|row| row.get(number)).map_or("", String::as_str);
    if field(0) != "f" || Path::new(field(1)) != sandbox.layout().data() {
        let message = format!("another server answered: data directory `{}`, in recovery `{}`", field(1), field(0));
        return Err(failure(ErrorClass::Defect, message, "Report it; nothing was changed."));
    }
    let reached = field(2).parse::<Lsn>().ok();
    let reached = judge(server.log(), reached, plan)?;
    let recovered_to = plan.canary.as_ref().map(|canary| canary.at).or_else(|| last_commit(server.log()));
    let segments = server.log().segments.len();
    let detail = format!("reached {reached} of {}, {segments} segments replayed", plan.expected);
    Ok(Checked::passed((server, Copy { client, reached, recovered_to }), detail))
}

/// Whether recovery came as far as it must.
fn judge(log: &RecoveryLog, reached: Option<Lsn>, plan: &Plan) -> std::result::Result<Lsn, Failure> {
    let remedy = "Make a new full backup now, then look at the archive with `backstop wal`.";
    let early = |message: String| failure(ErrorClass::Integrity, message, remedy);
    let reached = reached.ok_or_else(|| early("recovery replayed nothing".to_owned()))?;
    if reached < plan.expected {
        return Err(early(format!("recovery ended at {reached}, before {}", plan.expected)));
    }
    if let Some(name) = &plan.target.restore_point
        && log.stopped_at.as_ref() != Some(name)
    {
        return Err(early(format!("recovery did not stop at the restore point `{name}`")));
    }
    Ok(reached)
}

/// The time of the last replayed commit; absent when none was replayed.
fn last_commit(log: &RecoveryLog) -> Option<DateTime<Utc>> {
    let text = log.last_commit.as_deref()?;
    DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f%#z").ok().map(|at| at.with_timezone(&Utc))
}

fn explained(trouble: &Trouble, production: &Production) -> Failure {
    let Trouble::Ended { fatal, .. } = trouble else { return stopped() };
    let said = fatal.join("; ");
    let says = |words: &str| said.contains(words);
    let message = trouble.to_string();
    if says("Tablespace/CREATE") || (says("directory \"") && says("tablespace")) {
        let why = production.unknown.as_deref().unwrap_or("it was dropped since");
        let message =
            format!("a tablespace was created after this backup, and where it lies is not known ({why}): {said}");
        return failure(
            ErrorClass::Config,
            message,
            "This backup is not broken: make a newer backup, and test that one.",
        );
    }
    if says("recovery ended before configured recovery target was reached") {
        return failure(ErrorClass::Integrity, message, "Make a new full backup now: WAL in the archive is damaged.");
    }
    if says("insufficient parameter settings") || says("maximum number of prepared transactions") {
        let remedy = "A setting was raised after this backup: name production's `connection`, or make a newer backup.";
        return failure(ErrorClass::Config, message, remedy);
    }
    if says("could not map anonymous shared memory") || says("No space left on device") {
        return failure(ErrorClass::Space, message, "Free memory and disk space, then test again.");
    }
    failure(ErrorClass::Integrity, message, "Read `server.log` of the run; make a new full backup and test that one.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::Target;

    fn plan(expected: &str, restore_point: Option<&str>) -> Plan {
        Plan {
            segments: Vec::new(),
            histories: Vec::new(),
            target: Target { timeline: 1, restore_point: restore_point.map(str::to_owned) },
            expected: expected.parse().unwrap(),
            canary: None,
        }
    }

    #[test]
    fn a_recovery_that_ended_early_is_no_recovery() {
        let log = RecoveryLog::default();
        let lsn = |text: &str| text.parse::<Lsn>().ok();
        assert!(judge(&log, lsn("0/5000000"), &plan("0/6000000", None)).is_err());
        assert!(judge(&log, None, &plan("0/6000000", None)).is_err());
        assert!(judge(&log, lsn("0/6000000"), &plan("0/6000000", None)).is_ok());
    }

    #[test]
    fn the_restore_point_must_have_been_seen_and_not_only_its_position() {
        let mut log = RecoveryLog::default();
        let reached = "0/6000098".parse().ok();
        assert!(judge(&log, reached, &plan("0/6000098", Some("backstop_1"))).is_err());
        log.stopped_at = Some("backstop_1".into());
        assert!(judge(&log, reached, &plan("0/6000098", Some("backstop_1"))).is_ok());
    }

    #[test]
    fn a_tablespace_that_nobody_knows_calls_for_a_newer_backup() {
        let fatal = vec![
            "FATAL:  directory \"/srv/ts2\" does not exist".to_owned(),
            "CONTEXT:  WAL redo at 0/5000110 for Tablespace/CREATE: 16400 \"/srv/ts2\"".to_owned(),
        ];
        let trouble = Trouble::Ended { fatal, ending: None };
        let production = Production::unknown_because("connection refused");
        let failure = explained(&trouble, &production);
        assert_eq!(failure.class, ErrorClass::Config);
        assert!(failure.message.contains("connection refused") && failure.remedy.unwrap().contains("not broken"));
    }

    #[test]
    fn the_time_of_the_last_commit_is_read() {
        let log = RecoveryLog { last_commit: Some("2026-11-20 16:55:24.123456+00".into()), ..RecoveryLog::default() };
        assert_eq!(last_commit(&log).unwrap().to_rfc3339(), "2026-11-20T16:55:24.123456+00:00");
    }
}
