//! What is checked of a copy on a PostgreSQL server: every database, every row, the policy's assertions, every index,
//! every page; and how an assertion is judged wherever it is asked.
//!
//! Each sees what the others do not: reading rows misses a broken index, checking indexes misses a broken page that no
//! index leads to, checksums miss a wrong collation. A newcomer would take a tool's zero for "checked"; one that found
//! nothing to check says zero, too.

use std::time::Duration;

use super::{
    Context, failure,
    steps::{Checked, Result},
};
use crate::{
    error::chain,
    policy::{Assertion, Expect},
    postgres::{Client, QueryError, Record},
    process::{Command, Finished},
    record::{ErrorClass, Failure},
    sandbox::{Cluster, PORT, Sandbox, Server, Trouble},
};

/// Settings of roles and databases that would kill a check, and triggers that would answer its commands, are off.
const PGOPTIONS: &str = "-c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0 \
                         -c default_transaction_read_only=off -c session_replication_role=replica";
const DAMAGED: &str = "Keep this backup, make a new full one, and check the indexes and pages of production itself.";

/// How long one assertion may take; a count over a large table takes its time.
pub(super) const ASSERTION: Duration = Duration::from_secs(3600);

/// Connects to every database that allows it.
pub(super) async fn connect(client: &Client) -> Result<Vec<String>> {
    let allowed = "select datname from pg_database where datallowconn and datconnlimit <> -2 order by datname";
    let rows = client.query(allowed).await.map_err(query_failed)?;
    let databases: Vec<String> = rows.into_iter().filter_map(|row| row.into_iter().next()).collect();
    let mut problems = Vec::new();
    for database in &databases {
        if let Err(error) = client.query_in(database, "select count(*) from pg_class").await {
            problems.push(format!("`{database}`: {}", chain(&error)));
        }
    }
    if !problems.is_empty() {
        let message = format!("not every database can be connected to: {}", problems.join("; "));
        let remedy = "Look for a missing locale or library on this host; otherwise the backup is incomplete.";
        return Err(failure(ErrorClass::Integrity, message, remedy));
    }
    let detail = format!("{} databases: {}", databases.len(), databases.join(", "));
    Ok(Checked::passed(databases, detail))
}

/// The size of the copy.
pub(super) async fn size(client: &Client) -> Result<u64> {
    let asked = "select sum(pg_database_size(oid))::bigint from pg_database";
    let rows = client.query(asked).await.map_err(query_failed)?;
    let size: u64 = rows.first().and_then(|row| row.first()?.parse().ok()).unwrap_or(0);
    Ok(Checked::passed(size, format!("{} MiB", size >> 20)))
}

/// Reads every row of every table, by dumping everything to nowhere.
pub(super) async fn read_every_row(
    context: &Context,
    sandbox: &Sandbox,
    superuser: &str,
    databases: &[String],
) -> Result<()> {
    // To standard output and not `-f /dev/null`, which the tool would try to sync.
    let command = client_program(context, sandbox, superuser, "pg_dumpall").discard_output();
    let finished = context.follow("pg_dumpall", &command, |_| {}).await?;
    judge("pg_dumpall", &finished, DAMAGED)?;
    Ok(Checked::passed((), format!("`pg_dumpall` read every row of {} databases", databases.len())))
}

/// Asks the policy's questions of a PostgreSQL server; in `database` where a question names none.
pub(super) async fn assertions(context: &Context, client: &Client, database: &str) -> Result<()> {
    let client = client.clone().statement_timeout(ASSERTION);
    let mut answers = Answers::default();
    for assertion in &context.database().test_restore.assertions {
        let database = assertion.database.as_deref().unwrap_or(database);
        let answer = client.query_in(database, &assertion.sql).await;
        answers.add(assertion, answer.map_err(|error| chain(&error)));
    }
    answers.judge()
}

/// The answers to the policy's questions; all of them, so that all wrong ones are seen together.
#[derive(Default)]
pub(super) struct Answers {
    asked: usize,
    wrong: Vec<String>,
}

impl Answers {
    /// Takes the answer to one.
    pub(super) fn add(&mut self, assertion: &Assertion, answer: std::result::Result<Vec<Record>, String>) {
        self.asked += 1;
        let held = answer.and_then(single_value).and_then(|value| hold(assertion, &value));
        self.wrong.extend(held.err().map(|why| said(assertion, &why)));
    }

    /// Whether all hold.
    pub(super) fn judge(self) -> Result<()> {
        let Self { asked, wrong } = self;
        if asked == 0 {
            return Ok(Checked::skipped((), "the policy has no assertions for this database"));
        }
        if wrong.is_empty() {
            return Ok(Checked::passed((), format!("{asked} assertions hold")));
        }
        let message = format!("{} of {asked} assertions do not hold: {}", wrong.len(), wrong.join("; "));
        let remedy = "Compare with production: either data is missing, or the assertion is.";
        Err(failure(ErrorClass::Integrity, message, remedy))
    }
}

fn said(assertion: &Assertion, why: &str) -> String {
    format!("`{}` {why}", assertion.sql.trim())
}

fn single_value(rows: Vec<Record>) -> std::result::Result<String, String> {
    let columns = rows.first().map_or(0, Vec::len);
    match rows.into_iter().flatten().collect::<Vec<_>>() {
        values if values.len() == 1 => Ok(values.into_iter().next().unwrap_or_default()),
        values if columns == 0 || values.is_empty() => Err("gave no row".to_owned()),
        values => Err(format!("gave {} values instead of one", values.len())),
    }
}

fn hold(assertion: &Assertion, value: &str) -> std::result::Result<(), String> {
    match &assertion.expect {
        Expect::Equals(wanted) if value == wanted => Ok(()),
        Expect::Equals(wanted) => Err(format!("gave `{value}`, not `{wanted}`")),
        Expect::Between { min, max } => {
            let number: f64 = value.trim().parse().map_err(|_| format!("gave `{value}`, which is no number"))?;
            let is_low = min.is_some_and(|min| number.is_nan() || number < min);
            let is_high = max.is_some_and(|max| number.is_nan() || number > max);
            match (is_low, is_high) {
                (false, false) => Ok(()),
                (true, _) => Err(format!("gave {value}, less than {}", min.unwrap_or_default())),
                (_, true) => Err(format!("gave {value}, more than {}", max.unwrap_or_default())),
            }
        }
    }
}

/// Checks every table and every index.
///
/// Without `--rootdescend`: it reports indexes that an upgrade took over from before version 12 as broken.
pub(super) async fn amcheck(context: &Context, client: &Client, sandbox: &Sandbox, superuser: &str) -> Result<()> {
    if !context.database().test_restore.amcheck {
        return Ok(Checked::skipped((), "the policy does not ask for it"));
    }
    if !sandbox.programs().join("pg_amcheck").exists() {
        return Ok(Checked::skipped((), "this version of PostgreSQL has no `pg_amcheck`"));
    }
    let available = "select 1 from pg_available_extensions where name = 'amcheck'";
    if client.query(available).await.map_err(query_failed)?.is_empty() {
        return Ok(Checked::skipped((), "the extension `amcheck` is not installed for this server"));
    }
    let command = client_program(context, sandbox, superuser, "pg_amcheck").args([
        "--all",
        "--install-missing",
        "--heapallindexed",
        "--parent-check",
        "--progress",
    ]);
    let mut checked = 0;
    let finished = context.follow("pg_amcheck", &command, |line| checked = relations(line).unwrap_or(checked)).await?;
    judge("pg_amcheck", &finished, DAMAGED)?;
    if checked == 0 {
        let message = format!("`pg_amcheck` checked nothing: {}", last_words(&finished));
        return Err(failure(ErrorClass::Integrity, message, "Run it by hand on a restored copy."));
    }
    Ok(Checked::passed((), format!("{checked} tables and indexes")))
}

/// The number of relations done, from a line of progress: `389/389 relations (100%), 1234/1234 pages (100%)`.
fn relations(line: &str) -> Option<u64> {
    let (done, rest) = line.trim().split_once('/')?;
    rest.contains(" relations (").then(|| done.trim().parse().ok())?
}

/// Ends the server and checks every page, where the cluster has checksums.
pub(super) async fn checksums(context: &Context, server: Server, sandbox: &Sandbox, cluster: &Cluster) -> Result<()> {
    let skip = match (context.database().test_restore.checksums, cluster.has_checksums) {
        (false, _) => Some("the policy does not ask for it"),
        (true, false) => Some("the cluster has no page checksums"),
        (true, true) => None,
    };
    if let Some(reason) = skip {
        server.kill().await;
        return Ok(Checked::skipped((), reason));
    }
    end_cleanly(server, sandbox).await?;
    // Inside as well: a link in the copy may lead to where production's tablespace is.
    let command = sandbox.command("pg_checksums").args(["--check", "-D"]).arg(sandbox.layout().data());
    let mut blocks = String::new();
    let on_line = |line: &str| {
        if let Some(count) = line.strip_prefix("Blocks scanned:") {
            blocks = count.trim().to_owned();
        }
    };
    let finished = context.follow("pg_checksums", &command, on_line).await?;
    judge("pg_checksums", &finished, DAMAGED)?;
    Ok(Checked::passed((), format!("{blocks} pages")))
}

/// Ends the server so that its files can be checked.
async fn end_cleanly(server: Server, sandbox: &Sandbox) -> std::result::Result<(), Failure> {
    let unclean =
        |trouble: Trouble| failure(ErrorClass::Integrity, trouble.to_string(), "Read `server.log` of the run.");
    server.end_cleanly(sandbox).await.map_err(unclean)
}

/// One of PostgreSQL's client programs, outside, for the server inside.
fn client_program(context: &Context, sandbox: &Sandbox, superuser: &str, program: &str) -> Command {
    let command = Command::new(sandbox.programs().join(program)).arg("--host").arg(sandbox.layout().sockets());
    let command =
        command.args(["--port".to_owned(), PORT.to_string()]).args(["--username", superuser, "--no-password"]);
    command.env("PGOPTIONS", PGOPTIONS).niceness(context.database().niceness)
}

pub(super) fn judge(tool: &str, finished: &Finished, remedy: &str) -> std::result::Result<(), Failure> {
    use crate::process::Ending;
    match finished.ending {
        Ending::Exited(0) => Ok(()),
        Ending::Stopped => Err(super::stopped()),
        Ending::TimedOut => {
            let message = format!("`{tool}` did not end in time");
            Err(failure(ErrorClass::Transient, message, "Raise `timeout` of the test restore."))
        }
        Ending::Exited(code) => {
            let message = format!("`{tool}` exited with code {code}: {}", last_words(finished));
            Err(failure(ErrorClass::Integrity, message, remedy))
        }
        ending => {
            let message = format!("`{tool}` ended by {}: {}", ending.word(), last_words(finished));
            Err(failure(ErrorClass::Integrity, message, remedy))
        }
    }
}

pub(super) fn last_words(finished: &Finished) -> String {
    let errors = finished.tail.iter().filter(|line| line.contains("error") || line.contains("ERROR"));
    let errors: Vec<&str> = errors.map(String::as_str).take(5).collect();
    if errors.is_empty() { finished.tail.last().cloned().unwrap_or_default() } else { errors.join("; ") }
}

/// A question to the copy that got no answer.
pub(super) fn query_failed(error: QueryError) -> Failure {
    if matches!(error, QueryError::Stopped) {
        return super::stopped();
    }
    failure(
        ErrorClass::Integrity,
        format!("the copy does not answer: {}", chain(&error)),
        "Read `server.log` of the run.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::StepOutcome;

    fn holds(expect: Expect, value: &str) -> std::result::Result<(), String> {
        hold(&Assertion { sql: "select 1".into(), database: None, expect }, value)
    }

    #[test]
    fn bounds_are_inclusive_and_may_be_open() {
        let between = |min, max| Expect::Between { min, max };
        assert_eq!(holds(between(Some(1.0), Some(5.0)), "1"), Ok(()));
        assert_eq!(holds(between(Some(1.0), Some(5.0)), "5"), Ok(()));
        assert_eq!(holds(between(None, Some(5.0)), "-7.5"), Ok(()));
        assert_eq!(holds(between(Some(10.0), None), "9"), Err("gave 9, less than 10".into()));
        assert_eq!(holds(between(None, Some(5.0)), "6"), Err("gave 6, more than 5".into()));
        assert!(holds(between(Some(1.0), None), "").is_err());
        assert!(holds(between(Some(1.0), None), "NaN").is_err());
    }

    #[test]
    fn equality_is_as_the_client_prints_it() {
        assert_eq!(holds(Expect::Equals("t".into()), "t"), Ok(()));
        assert_eq!(holds(Expect::Equals("t".into()), "f"), Err("gave `f`, not `t`".into()));
    }

    #[test]
    fn all_wrong_answers_are_told_together_and_no_question_is_no_proof() {
        let one = Assertion { sql: "select 1".into(), database: None, expect: Expect::Equals("1".into()) };
        let mut answers = Answers::default();
        answers.add(&one, Ok(vec![vec!["1".into()]]));
        answers.add(&one, Ok(vec![vec!["2".into()]]));
        answers.add(&one, Err("no such table".into()));
        let failure = answers.judge().map(|_| ()).unwrap_err();
        insta::assert_snapshot!(failure.message, @"2 of 3 assertions do not hold: `select 1` gave `2`, not `1`; `select 1` no such table");
        assert_eq!(Answers::default().judge().unwrap().outcome(), StepOutcome::Skipped);
    }

    #[test]
    fn an_assertion_needs_exactly_one_value() {
        let row = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
        assert_eq!(single_value(vec![row(&["5"])]), Ok("5".into()));
        assert_eq!(single_value(vec![]), Err("gave no row".into()));
        assert_eq!(single_value(vec![row(&["1", "2"])]), Err("gave 2 values instead of one".into()));
        assert_eq!(single_value(vec![row(&["1"]), row(&["2"])]), Err("gave 2 values instead of one".into()));
    }

    #[test]
    fn relations_that_were_checked_are_counted() {
        assert_eq!(relations(" 389/389 relations (100%), 1234/1234 pages (100%)"), Some(389));
        assert_eq!(relations("pg_amcheck: error: no relations to check"), None);
        assert_eq!(relations("1/2 something"), None);
    }
}
