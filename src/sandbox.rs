//! A throw-away server that can reach nothing but its own scratch directory.
//!
//! A restored cluster is dangerous: it replays a tablespace into production's directory, archives into production's
//! stanza, takes rows from production's replication slots, runs production's cron jobs a second time. All of that has
//! happened. So it runs behind bubblewrap, in user, process, network, IPC and mount namespaces of its own. It sees the
//! system's programs, read-only, and its scratch directory, and nothing else of the file system; it has no network; its
//! configuration is ours and not what was restored; it dies with us.
//!
//! A dump is loaded in there as well, and a SQLite file is opened in there: what a dump says is executed, `\!` in the one
//! for `psql` and `system` in the one for `mariadb` included.
//!
//! We need no privilege for it, and do without where there is none: what cannot be isolated is not started. Another user
//! of the operating system would be the second best; recovery then stops at the first tablespace that was created after
//! the backup, and changing the user needs a privilege that the service does not have, so we refuse instead.
//!
//! The parts: `layout.rs` is the scratch directory, `config.rs` what the server is told, `server.rs` starts, follows and
//! ends it, `log.rs` reads what it says.
//!
//! A newcomer would give the sandbox one more directory because something is missing in it. Whatever is put in must be
//! read-only, and must not hold anything of production.

mod config;
mod layout;
mod log;
mod server;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

pub use self::{
    config::{Cluster, FLOORS, Start, Target, write_configuration},
    layout::{Layout, PORT},
    log::RecoveryLog,
    server::{Server, Trouble, nobody_names},
};
use crate::{
    error::ExitCode,
    policy::Niceness,
    process::{self, Command, Ending, Stop, capture},
    record::{ErrorClass, Failure},
};

/// What of `/etc` the server and its extensions may need; none of it is secret, all of it is read-only.
const ETC: &[&str] = &[
    "/etc/passwd",
    "/etc/group",
    "/etc/nsswitch.conf",
    "/etc/localtime",
    "/etc/ld.so.cache",
    "/etc/alternatives",
    "/etc/ssl/openssl.cnf",
    "/var/cache/postgresql/dicts",
];

/// Why nothing can be isolated here.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// PostgreSQL would refuse.
    #[error("PostgreSQL does not run as root")]
    Root,
    /// Bubblewrap is not there or cannot be started.
    #[error("bubblewrap cannot be started")]
    Start(#[from] process::Error),
    /// Bubblewrap may not do what it must.
    #[error("bubblewrap cannot isolate anything here: {0}")]
    Refused(String),
    /// The path of the socket would be cut.
    #[error("the path of the socket `{}` is too long", .0.display())]
    LongSocket(PathBuf),
    /// A file cannot be written or read.
    #[error("`{}` cannot be prepared", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The restored cluster does not look like one.
    #[error("`pg_controldata` did not tell `{0}`")]
    NoCluster(&'static str),
}

impl From<SandboxError> for Failure {
    fn from(error: SandboxError) -> Self {
        let (class, exit, remedy) = match &error {
            SandboxError::Root => (ErrorClass::Config, ExitCode::Configuration, "Run Backstop as the user `postgres`."),
            SandboxError::Start(_) => (ErrorClass::Config, ExitCode::ToolNotFound, "Install the package `bubblewrap`."),
            SandboxError::Refused(_) => {
                let remedy = "Allow user namespaces: `sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=1000`, \
                              and, in the unit, `RestrictNamespaces=user mnt pid net ipc` or none.";
                (ErrorClass::Config, ExitCode::ToolNotFound, remedy)
            }
            SandboxError::LongSocket(_) => {
                (ErrorClass::Config, ExitCode::Configuration, "Set a shorter `daemon.scratch_dir`.")
            }
            SandboxError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                (ErrorClass::Space, ExitCode::NoSpace, "Free space on the file system of `daemon.scratch_dir`.")
            }
            SandboxError::Io { .. } => {
                (ErrorClass::Config, ExitCode::RestoreFailed, "Make `daemon.scratch_dir` writable for this user.")
            }
            SandboxError::NoCluster(_) => (
                ErrorClass::Integrity,
                ExitCode::RestoreFailed,
                "Take a new full backup and test it; keep the older ones.",
            ),
        };
        Failure { class, exit, message: crate::error::chain(&error), remedy: Some(remedy.to_owned()) }
    }
}

/// What keeps a throw-away server away from production, found by trying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Isolation {
    version: String,
}

impl Isolation {
    /// Finds out by really doing it; what a kernel setting says about user namespaces is not the whole truth.
    ///
    /// # Errors
    /// When we are root, or bubblewrap is missing or not allowed to.
    pub async fn probe() -> Result<Isolation, SandboxError> {
        if nix::unistd::geteuid().is_root() {
            return Err(SandboxError::Root);
        }
        let limit = Some(Duration::from_secs(30));
        let version = capture(&Command::new("bwrap").arg("--version").timeout(limit), &Stop::never()).await?;
        let tried = Command::new("bwrap").args(namespaces()).args(system_directories()).arg("--").arg("/usr/bin/true");
        let tried = capture(&tried.timeout(limit), &Stop::never()).await?;
        if !tried.ok() {
            return Err(SandboxError::Refused(tried.stderr));
        }
        Ok(Isolation { version: String::from_utf8_lossy(&version.stdout).trim().to_owned() })
    }
}

impl std::fmt::Display for Isolation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: own user, process, network, IPC and mount namespaces", self.version)
    }
}

/// A sandbox around one scratch directory.
#[derive(Debug, Clone)]
pub struct Sandbox {
    layout: Layout,
    programs: PathBuf,
    system: Vec<OsString>,
    hidden: Vec<PathBuf>,
    stand_ins: Vec<(PathBuf, PathBuf)>,
    niceness: Niceness,
}

impl Sandbox {
    /// A sandbox for the server whose programs lie in `programs`.
    ///
    /// `production` are production's directories: what of them would be visible is covered. `tablespaces` are the
    /// locations of production's tablespaces: each gets an empty directory in its place, so that the creation of a
    /// tablespace can be replayed.
    ///
    /// # Errors
    /// When a directory for a tablespace cannot be made.
    pub fn new(
        layout: Layout,
        programs: PathBuf,
        production: &[PathBuf],
        tablespaces: &[PathBuf],
        niceness: Niceness,
    ) -> Result<Sandbox, SandboxError> {
        let visible = [PathBuf::from("/usr"), prefix_of(&programs)];
        let is_visible = |path: &&PathBuf| visible.iter().any(|tree| path.starts_with(tree)) && path.is_dir();
        let hidden = production.iter().filter(is_visible).cloned().collect();
        let mut stand_ins = Vec::new();
        for (number, location) in tablespaces.iter().enumerate() {
            let stand_in = layout.stand_ins().join(number.to_string());
            make_private(&stand_in)?;
            stand_ins.push((stand_in, location.clone()));
        }
        Ok(Sandbox { layout, programs, system: system_directories(), hidden, stand_ins, niceness })
    }

    /// The scratch directory.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The directory with the server's programs.
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// A command that runs one of the server's programs inside.
    pub fn command(&self, program: &str) -> Command {
        self.wrap(self.programs.join(program))
    }

    /// A command that runs another program inside; its arguments go with it, its environment and its deadline do not.
    pub fn enter(&self, command: &Command) -> Command {
        self.wrap(command.program().to_owned()).args(command.arguments().iter().cloned())
    }

    /// Looks around from inside: true when none of these directories holds anything of PostgreSQL or MariaDB there, and
    /// none of these files is there.
    ///
    /// # Errors
    /// When the sandbox cannot be put up.
    pub async fn cannot_see(&self, paths: &[PathBuf], stop: &Stop) -> Result<bool, SandboxError> {
        const SEEN: i32 = 3;
        const LOOK: &str =
            r#"for d; do for f in "$d"/PG_* "$d"/ibdata*; do [ ! -e "$f" ] && [ ! -f "$d" ] || exit 3; done; done"#;
        let look = self.wrap(PathBuf::from("/bin/sh")).args(["-c", LOOK, "look"]).args(paths);
        let looked = capture(&look.timeout(Some(Duration::from_secs(60))), stop).await?;
        match looked.ending {
            Ending::Exited(0) => Ok(true),
            Ending::Exited(SEEN) => Ok(false),
            _ => Err(SandboxError::Refused(looked.stderr)),
        }
    }

    fn wrap(&self, program: PathBuf) -> Command {
        let command = Command::new("bwrap").args(namespaces()).args(self.system.iter().cloned());
        let command = command.args(self.mounts()).niceness(self.niceness);
        // Nothing in it is worth a long goodbye; what must end well is asked to beforehand.
        command.arg("--").arg(program).grace(Duration::from_millis(200))
    }

    fn mounts(&self) -> Vec<OsString> {
        let root = self.layout.root();
        let mut words = Vec::new();
        let prefix = prefix_of(&self.programs);
        if !prefix.starts_with("/usr") {
            words.extend(mount("--ro-bind", &[&prefix, &prefix]));
        }
        self.hidden.iter().for_each(|path| words.extend(mount("--tmpfs", &[path])));
        self.stand_ins.iter().for_each(|(stand_in, at)| words.extend(mount("--bind", &[stand_in, at])));
        words.extend(mount("--bind", &[root, root]));
        words.extend(mount("--ro-bind", &[&self.layout.wal(), &self.layout.wal()]));
        words.extend(mount("--chdir", &[root]));
        words
    }
}

/// The installation around a directory of programs: its libraries lie beside it.
fn prefix_of(programs: &Path) -> PathBuf {
    programs.parent().filter(|parent| parent.parent().is_some()).unwrap_or(programs).to_owned()
}

fn mount(option: &str, paths: &[&Path]) -> Vec<OsString> {
    std::iter::once(option.into()).chain(paths.iter().map(|path| path.as_os_str().to_owned())).collect()
}

/// Namespaces of its own, in a session of its own, dead when we are, no privilege in them.
fn namespaces() -> Vec<OsString> {
    // Named one by one: `--unshare-all` also asks for cgroup and host name namespaces, which the service's unit refuses.
    [
        "--unshare-user",
        "--unshare-pid",
        "--unshare-net",
        "--unshare-ipc",
        "--die-with-parent",
        "--new-session",
        "--cap-drop",
        "ALL",
    ]
    .map(Into::into)
    .into()
}

/// The system's programs and libraries, a few devices, an empty `/tmp`.
///
/// No `/proc`: PostgreSQL does not need it, and a hardened unit may not mount a new one.
fn system_directories() -> Vec<OsString> {
    let mut words = mount("--ro-bind", &[Path::new("/usr"), Path::new("/usr")]);
    for path in ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"].map(Path::new) {
        match path.read_link() {
            Ok(target) => words.extend(mount("--symlink", &[&target, path])),
            Err(_) if path.is_dir() => words.extend(mount("--ro-bind", &[path, path])),
            Err(_) => {}
        }
    }
    ETC.iter().map(Path::new).for_each(|path| words.extend(mount("--ro-bind-try", &[path, path])));
    words.extend(["--dev", "/dev", "--tmpfs", "/tmp"].map(Into::into));
    words
}

fn make_private(path: &Path) -> Result<(), SandboxError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| SandboxError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(programs: &str) -> Sandbox {
        Sandbox {
            layout: Layout::new("/scratch/tr-0a1b2c3d").unwrap(),
            programs: programs.into(),
            system: vec!["--SYSTEM".into()],
            hidden: vec!["/usr/local/pgsql/data".into()],
            stand_ins: vec![("/scratch/tr-0a1b2c3d/in/0".into(), "/srv/ts one".into())],
            niceness: Niceness::default(),
        }
    }

    fn lines(command: &Command) -> String {
        command.display().replace(" --", "\n--")
    }

    #[test]
    fn the_server_sees_its_scratch_directory_and_empty_tablespaces_and_cannot_change_the_fetched_wal() {
        insta::assert_snapshot!(lines(&sandbox("/usr/lib/postgresql/15/bin").command("postgres").args(["-D", "data"])), @r"
        bwrap
        --unshare-user
        --unshare-pid
        --unshare-net
        --unshare-ipc
        --die-with-parent
        --new-session
        --cap-drop ALL
        --SYSTEM
        --tmpfs /usr/local/pgsql/data
        --bind /scratch/tr-0a1b2c3d/in/0 '/srv/ts one'
        --bind /scratch/tr-0a1b2c3d /scratch/tr-0a1b2c3d
        --ro-bind /scratch/tr-0a1b2c3d/wal /scratch/tr-0a1b2c3d/wal
        --chdir /scratch/tr-0a1b2c3d
        -- /usr/lib/postgresql/15/bin/postgres -D data
        ");
    }

    #[test]
    fn an_installation_elsewhere_is_shown_read_only() {
        let line = sandbox("/opt/pg17/bin").command("postgres").display();
        assert!(line.contains("--ro-bind /opt/pg17 /opt/pg17"), "{line}");
    }

    #[test]
    fn whatever_of_the_system_is_shown_is_read_only() {
        let words = system_directories();
        assert!(words.iter().all(|word| word != "--bind" && word != "--dev-bind" && word != "--proc"));
        assert!(words.windows(3).any(|three| three == ["--ro-bind", "/usr", "/usr"]));
        assert!(!words.iter().any(|word| ["/", "/etc", "/var", "/home", "/run"].map(OsString::from).contains(word)));
    }

    #[test]
    fn production_below_a_visible_tree_is_covered() {
        let scratch = tempfile::tempdir().unwrap();
        let visible = tempfile::tempdir().unwrap();
        let data = visible.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let production = [data.clone(), PathBuf::from("/srv/elsewhere")];
        let layout = Layout::new(scratch.path()).unwrap();
        let programs = visible.path().join("bin");
        let sandbox = Sandbox::new(layout, programs, &production, &["/srv/ts1".into()], Niceness::default()).unwrap();
        assert_eq!(sandbox.hidden, [data]);
        assert_eq!(sandbox.stand_ins, [(scratch.path().join("in/0"), PathBuf::from("/srv/ts1"))]);
        assert!(scratch.path().join("in/0").is_dir());
    }
}
