//! A site: a policy file and a state directory for one database, `orders`, in a lab.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::PathBuf,
};

use serde_json::Value;

use super::{Answer, Daemon, Lab, command, must};

pub(super) const PROGRAM: &str = env!("CARGO_BIN_EXE_backstop");

/// What differs from one scenario to the next; the texts are pieces of TOML.
pub(crate) struct Extra<'a> {
    /// Whether pgBackRest's configuration is the lab's.
    pub(crate) config: bool,
    /// More keys of `[daemon]`.
    pub(crate) daemon: &'a str,
    /// More keys of `[database.orders]`.
    pub(crate) database: &'a str,
    /// More keys of `database.orders.pgbackrest`, each with a comma before it.
    pub(crate) pgbackrest: &'a str,
}

impl Default for Extra<'_> {
    fn default() -> Self {
        Self { config: true, daemon: "", database: "", pgbackrest: "" }
    }
}

/// A policy and a state directory.
pub(crate) struct Site<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) policy: PathBuf,
    pub(crate) state: PathBuf,
}

impl<'a> Site<'a> {
    /// A site whose policy has more keys of `[database.orders]`.
    pub(crate) fn new(lab: &'a Lab, database: &str) -> Self {
        Self::with(lab, &Extra { database, ..Extra::default() })
    }

    /// A site with more keys anywhere.
    pub(crate) fn with(lab: &'a Lab, extra: &Extra<'_>) -> Self {
        let site = Self { lab, policy: lab.path("backstop.toml"), state: lab.path("state") };
        fs::create_dir(&site.state).unwrap();
        fs::set_permissions(&site.state, fs::Permissions::from_mode(0o700)).unwrap();
        let (uid, gid) = lab.owner();
        chown(&site.state, Some(uid), Some(gid)).unwrap();
        site.rewrite(extra);
        site
    }

    /// Writes the policy anew.
    pub(crate) fn rewrite(&self, extra: &Extra<'_>) {
        let dir = self.lab.dir().display();
        let Extra { config, daemon, database, pgbackrest } = extra;
        let config = if *config { format!("config = \"{dir}/pgbackrest.conf\"") } else { String::new() };
        let pgbackrest = format!("{config}{pgbackrest}");
        let pgbackrest = pgbackrest.trim_start_matches([',', ' ']);
        let text = format!(
            r#"[daemon]
state_dir = "{dir}/state"
{daemon}

[database.orders]
engine = "pgbackrest"
stanza = "lab"
environment = "production"
connection = "host={dir}/sock port=5432 user=postgres dbname=postgres"
pgbackrest = {{ {pgbackrest} }}
retry = {{ attempts = 1 }}
{database}
"#
        );
        self.write(&text);
    }

    /// Puts any text in the place of the policy, in one step, as a careful editor does.
    pub(crate) fn write(&self, text: &str) {
        let new = self.policy.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o644)).unwrap();
        fs::rename(new, &self.policy).unwrap();
    }

    /// Runs a verb and gives its answer.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> Answer {
        let mut program = command(PROGRAM);
        Answer::of(program.arg("--policy").arg(&self.policy).arg("--json").args(arguments).output().unwrap())
    }

    /// Runs a verb under a clock that is off by so much, e.g. `+400d`.
    #[track_caller]
    pub(crate) fn run_at(&self, offset: &str, arguments: &[&str]) -> Answer {
        let mut program = command("faketime");
        program.args(["-f", offset, PROGRAM, "--policy"]).arg(&self.policy).arg("--json").args(arguments);
        Answer::of(program.output().unwrap())
    }

    /// Runs a verb for people: the exit code, stdout and stderr.
    pub(crate) fn say(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = command(PROGRAM).arg("--policy").arg(&self.policy).args(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().expect("the program was not killed"), text(&output.stdout), text(&output.stderr))
    }

    /// Starts the daemon and waits until it is at work.
    #[track_caller]
    pub(crate) fn daemon(&self) -> Daemon {
        Daemon::start(self, &[])
    }

    /// The runs of a kind, newest first.
    #[track_caller]
    pub(crate) fn runs(&self, kind: &str) -> Vec<Value> {
        let answer = self.run(&["history", "orders", "--kind", kind, "--limit", "1000"]);
        answer.ok()["runs"].as_array().unwrap().clone()
    }

    /// The states of the runs of a kind, oldest first.
    #[track_caller]
    pub(crate) fn states(&self, kind: &str) -> Vec<String> {
        self.runs(kind).iter().rev().map(|run| run["state"].as_str().unwrap().to_owned()).collect()
    }

    /// The backups that the catalog lists, newest first.
    #[track_caller]
    pub(crate) fn backups(&self) -> Vec<Value> {
        self.run(&["list", "orders"]).ok()["backups"].as_array().unwrap().clone()
    }

    /// The status of the database.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        self.run(&["status", "orders"]).ok()["databases"][0].clone()
    }

    /// Asks the catalog itself; columns are parted by `|`.
    #[track_caller]
    pub(crate) fn catalog(&self, query: &str) -> String {
        let mut sqlite = command("sqlite3");
        must(sqlite.arg("-readonly").arg("-cmd").arg(".timeout 5000").arg(self.state.join("catalog.db")).arg(query))
            .trim()
            .to_owned()
    }

    /// Asks the catalog for numbers, one a row.
    #[track_caller]
    pub(crate) fn numbers(&self, query: &str) -> Vec<i64> {
        self.catalog(query).lines().map(|line| line.parse().unwrap()).collect()
    }

    /// Every file and directory of the state, with its owner and its mode.
    pub(crate) fn files(&self) -> Vec<(PathBuf, u32, u32)> {
        let mut found = Vec::new();
        let mut open = vec![self.state.clone()];
        while let Some(path) = open.pop() {
            // Logs and temporary files may go while we look.
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            if metadata.is_dir() {
                open.extend(fs::read_dir(&path).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())));
            }
            found.push((path, metadata.uid(), metadata.mode() & 0o777));
        }
        found
    }
}
