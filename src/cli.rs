//! The argument tree, and what surrounds every verb: who we are, the policy in use, the answer and the exit code.
//!
//! Each verb is a file in `cli/` that returns an `Answer`; only here is anything printed. Progress and logs go to
//! stderr, the answer to stdout. A newcomer would print from a verb; then `--json` would no longer be one document.

mod act;
mod answer;
mod audit;
mod backup;
mod catalog;
mod check;
mod delete;
mod expire;
mod export;
mod forecast;
mod generate;
mod history;
mod hold;
mod keygen;
mod list;
mod logging;
mod moment;
mod rebuild;
mod session;
mod show;
mod status;
mod test_restore;
mod user;
mod verify;
mod wal;

use std::{path::PathBuf, process::ExitCode as ProcessExitCode};

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

pub(crate) use self::answer::Answer;
use self::session::Session;
use crate::{
    daemon,
    error::{Error, ExitCode},
    record::DatabaseName,
};

/// Stack of the daemon's worker threads, as large as a main thread's: a test restore is a deep nest of futures.
const STACK: usize = 8 << 20;

/// Schedules, watches and proves database backups.
#[derive(Debug, Parser)]
#[command(name = "backstop", version, max_term_width = 120, arg_required_else_help = true)]
pub struct Arguments {
    /// The policy file; files in `conf.d` beside it are read too
    #[arg(
        long,
        global = true,
        env = "BACKSTOP_POLICY",
        default_value = "/etc/backstop/backstop.toml",
        value_name = "FILE"
    )]
    policy: PathBuf,
    /// Answer with one JSON document
    #[arg(long, global = true)]
    json: bool,
    /// Say what would be answered at this time (RFC 3339), for verbs that only look
    #[arg(long, global = true, value_name = "TIME", value_parser = instant)]
    at: Option<chrono::DateTime<chrono::Utc>>,
    /// Say more on stderr; twice for debugging
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// When to use colour
    #[arg(long, global = true, value_enum, default_value = "auto", value_name = "WHEN")]
    color: Color,
    #[command(subcommand)]
    verb: Verb,
}

fn instant(text: &str) -> Result<chrono::DateTime<chrono::Utc>, String> {
    let parsed = chrono::DateTime::parse_from_rfc3339(text);
    parsed.map(|at| at.to_utc()).map_err(|error| format!("{error}; write it like 2026-11-20T14:03:00+01:00"))
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Color {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the daemon in the foreground; systemd does this
    Run {
        /// How to log; journald is found by itself under systemd
        #[arg(long, value_enum, value_name = "FORMAT")]
        log_format: Option<logging::Format>,
    },
    /// Check the policy file and say everything that is wrong with it
    Check(check::Options),
    /// Print the JSON Schema of the policy file, for editors
    Schema,
    /// Say to when each database is recoverable, how long that takes, and when it was last proven
    Status(status::Options),
    /// List runs, newest first
    History(history::Options),
    /// Show a run by its number, or a backup by its id, name or label: copies, files, proofs, how to restore it by hand
    Show {
        /// A run number, a backup id, a name, or a pgBackRest label
        id: String,
    },
    /// List backups, newest first
    List(list::Options),
    /// Make a backup now, with or without a running daemon
    Backup(backup::Options),
    /// Restore the newest backup into a throw-away server and check it
    TestRestore(test_restore::Options),
    /// Read every byte of every copy again and compare it with its checksum
    Verify(verify::Options),
    /// Delete one backup, wherever its copies are
    Delete(delete::Options),
    /// Keep a backup whatever the rules say
    Hold(hold::HoldOptions),
    /// End the hold of a backup
    Release(hold::ReleaseOptions),
    /// End backups by the retention rules
    Expire(expire::Options),
    /// Say what will be made, kept and deleted in days to come, why, and how much storage that takes
    Forecast(forecast::Options),
    /// Look at WAL archiving now and tell the recoverable ranges and the gaps
    Wal {
        /// The database; all when left out
        database: Option<DatabaseName>,
    },
    /// Tell who did what, and whether the record of it was changed
    Audit {
        #[command(subcommand)]
        verb: audit::AuditVerb,
    },
    /// Write all backups into one document
    Export(export::Options),
    /// Tell the state of the catalog, make it again from the storages, or accept it after it was recovered
    Catalog {
        #[command(subcommand)]
        verb: catalog::CatalogVerb,
    },
    /// Make a key for the encryption of dumps
    Keygen(keygen::Options),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

impl Verb {
    /// The word of the verb, as in the machine form.
    fn word(&self) -> &'static str {
        match self {
            Verb::Run { .. } => "run",
            Verb::Check(_) => "check",
            Verb::Schema => "schema",
            Verb::Status(_) => "status",
            Verb::History(_) => "history",
            Verb::Show { .. } => "show",
            Verb::List(_) => "list",
            Verb::Backup(_) => "backup",
            Verb::TestRestore(_) => "test-restore",
            Verb::Verify(_) => "verify",
            Verb::Delete(_) => "delete",
            Verb::Hold(_) => "hold",
            Verb::Release(_) => "release",
            Verb::Expire(_) => "expire",
            Verb::Audit { .. } => "audit",
            Verb::Export(_) => "export",
            Verb::Forecast(_) => "forecast",
            Verb::Wal { .. } => "wal",
            Verb::Catalog { .. } => "catalog",
            Verb::Keygen(_) => "keygen",
            Verb::Completions { .. } => "completions",
            Verb::Man => "man",
        }
    }

    /// Whether it does something that no other time can be imagined for.
    fn acts(&self) -> bool {
        match self {
            Verb::Run { .. } | Verb::Backup(_) | Verb::TestRestore(_) | Verb::Wal { .. } | Verb::Verify(_) => true,
            Verb::Hold(_) | Verb::Release(_) | Verb::Keygen(_) => true,
            Verb::Delete(options) => !options.dry_run,
            Verb::Expire(options) => !options.dry_run,
            Verb::Catalog { verb } => !matches!(verb, catalog::CatalogVerb::Status),
            _ => false,
        }
    }
}

/// Runs the command line of this process.
pub fn main() -> ProcessExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    let (json, word) = (arguments.json, arguments.verb.word());
    let exit = match run(arguments) {
        Ok(answer) => answer.print(json),
        Err(error) => answer::print_error(&error, word, json),
    };
    ProcessExitCode::from(u8::from(exit))
}

/// Help and version go to stdout with 0; a command line that makes no sense is 64.
fn usage(error: &clap::Error) -> ProcessExitCode {
    // A closed stdout is nobody's business here.
    let _ = error.print();
    let exit = if error.use_stderr() { ExitCode::Usage } else { ExitCode::Done };
    ProcessExitCode::from(u8::from(exit))
}

fn run(arguments: Arguments) -> Result<Answer, Error> {
    match &arguments.verb {
        Verb::Schema => return Ok(generate::schema()),
        Verb::Completions { shell } => return Ok(generate::completions(*shell, &mut Arguments::command())),
        Verb::Man => return generate::man(&Arguments::command()),
        _ => {}
    }
    if arguments.at.is_some() && arguments.verb.acts() {
        return Err(Error::new(
            ExitCode::Usage,
            format!("`{}` acts, so it cannot be asked about another time", arguments.verb.word()),
        )
        .hint("Leave out `--at`, or add `--dry-run` where the verb has it."));
    }
    let caller = user::caller();
    let needs_no_state = match &arguments.verb {
        Verb::Check(options) => !options.against_catalog,
        verb => matches!(verb, Verb::Keygen(_)),
    };
    user::drop_root(&arguments.policy, needs_no_state)?;
    logging::start(&arguments);
    runtime(&arguments.verb)?.block_on(verb(arguments, caller))
}

fn runtime(verb: &Verb) -> Result<tokio::runtime::Runtime, Error> {
    let mut builder = match verb {
        Verb::Run { .. } => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let built = builder.worker_threads(2).thread_stack_size(STACK).enable_all().build();
    built.map_err(|source| Error::new(ExitCode::Defect, "the runtime cannot start").because(source))
}

async fn verb(arguments: Arguments, caller: user::Caller) -> Result<Answer, Error> {
    let session = Session::new(&arguments, caller);
    match arguments.verb {
        Verb::Run { .. } => {
            let (policy, rejected) = session.policy_for_daemon().await?;
            daemon::run(&arguments.policy, policy, rejected).await?;
            Ok(Answer::silent())
        }
        Verb::Check(options) => check::run(&session, &options).await,
        Verb::Status(options) => status::run(&session, &options).await,
        Verb::History(options) => history::run(&session, &options).await,
        Verb::Show { id } => show::run(&session, &id).await,
        Verb::List(options) => list::run(&session, &options).await,
        Verb::Backup(options) => backup::run(&session, &options).await,
        Verb::TestRestore(options) => test_restore::run(&session, &options).await,
        Verb::Verify(options) => verify::run(&session, &options).await,
        Verb::Delete(options) => delete::run(&session, &options).await,
        Verb::Hold(options) => hold::hold(&session, &options).await,
        Verb::Release(options) => hold::release(&session, &options).await,
        Verb::Expire(options) => expire::run(&session, &options).await,
        Verb::Audit { verb } => audit::run(&session, &verb).await,
        Verb::Export(options) => export::run(&session, &options).await,
        Verb::Forecast(options) => forecast::run(&session, &options).await,
        Verb::Wal { database } => wal::run(&session, database.as_ref()).await,
        Verb::Catalog { verb } => catalog::run(&session, &verb).await,
        Verb::Keygen(options) => keygen::run(&options),
        Verb::Schema | Verb::Completions { .. } | Verb::Man => unreachable!("answered before the policy was read"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_argument_tree_holds_together() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_readme_has_the_exit_codes_as_they_are() {
        let readme = include_str!("../README.md");
        for (code, meaning) in ExitCode::TABLE {
            let row = format!("| {} | {meaning} |", u8::from(*code));
            assert!(readme.contains(&row), "README.md lacks the row `{row}`");
        }
    }

    #[test]
    fn a_verb_that_acts_refuses_another_time() {
        let arguments = Arguments::parse_from(["backstop", "--at", "2026-11-20T14:00:00Z", "backup", "orders"]);
        assert_eq!(run(arguments).unwrap_err().exit(), ExitCode::Usage);
    }
}
