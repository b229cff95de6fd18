//! pgBackRest's own configuration: the truth for repositories, of which we only read what we must know.
//!
//! Never the secrets. The rules are pgBackRest's: a value is taken from `[stanza:command]`, `[stanza]`,
//! `[global:command]`, `[global]`, in this order. A newcomer would cut a comment off the end of a line; only a whole line
//! can be a comment, and `repo1-path=/x # y` is a path with a `#` in it.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{policy, record::RepoKey};

/// Where pgBackRest looks when it is not told.
const FILE: &str = "/etc/pgbackrest/pgbackrest.conf";
const OLD_FILE: &str = "/etc/pgbackrest.conf";
const INCLUDED: &str = "/etc/pgbackrest/conf.d";

/// Why the configuration could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ConfError {
    /// A file or directory cannot be read.
    #[error("pgBackRest's configuration `{}` cannot be read", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is neither a section, `key=value`, nor a comment.
    #[error("pgBackRest's configuration `{}`, line {line}: neither a section nor `key=value`", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
}

/// The configuration, as sections of options.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Conf {
    sections: BTreeMap<String, BTreeMap<String, String>>,
}

impl std::fmt::Debug for Conf {
    /// Without the values: there are secrets among them.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conf").field("sections", &self.sections.keys()).finish_non_exhaustive()
    }
}

impl Conf {
    /// Reads what pgBackRest would read for a database: the named file alone, else its default file and `conf.d`.
    ///
    /// # Errors
    /// When a file that must exist cannot be read, or a line makes no sense.
    pub fn load(settings: &policy::PgBackRest) -> Result<Self, ConfError> {
        if let Some(file) = &settings.config {
            return Self::of(std::slice::from_ref(file));
        }
        let main = [FILE, OLD_FILE].map(PathBuf::from).into_iter().find(|file| file.exists());
        let mut files = Vec::from_iter(main);
        files.extend(included(Path::new(INCLUDED))?);
        Self::of(&files)
    }

    /// Reads these files, the later ones last.
    ///
    /// # Errors
    /// When one cannot be read, or a line makes no sense.
    pub fn of(files: &[PathBuf]) -> Result<Self, ConfError> {
        let mut conf = Self::default();
        for path in files {
            let bytes = fs::read(path).map_err(|source| ConfError::Read { path: path.clone(), source })?;
            conf.add(path, &String::from_utf8_lossy(&bytes))?;
        }
        Ok(conf)
    }

    fn add(&mut self, path: &Path, text: &str) -> Result<(), ConfError> {
        let mut section = None;
        for (index, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let name = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            match (name, line.split_once('='), &section) {
                (Some(name), _, _) => section = Some(name.to_owned()),
                (None, Some((key, value)), Some(section)) => {
                    let options = self.sections.entry(section.clone()).or_default();
                    options.insert(key.trim().to_owned(), value.trim().to_owned());
                }
                _ => return Err(ConfError::Line { path: path.to_owned(), line: index + 1 }),
            }
        }
        Ok(())
    }

    /// The value of an option for a command of a stanza; none when pgBackRest's default holds.
    pub fn get(&self, stanza: &str, command: &str, option: &str) -> Option<&str> {
        let sections = [format!("{stanza}:{command}"), stanza.into(), format!("global:{command}"), "global".into()];
        let values = sections.iter().filter_map(|section| self.sections.get(section));
        values.filter_map(|options| options.get(option)).map(String::as_str).next()
    }

    /// The directory of the lock and stop files of a command.
    pub fn lock_path(&self, stanza: &str, command: &str) -> PathBuf {
        self.get(stanza, command, "lock-path").unwrap_or("/tmp/pgbackrest").into()
    }

    /// The path of a repository, on its host or in its bucket.
    pub fn repo_path(&self, stanza: &str, repo: RepoKey) -> PathBuf {
        let path = self.get(stanza, "backup", &format!("repo{repo}-path"));
        path.unwrap_or("/var/lib/pgbackrest").into()
    }

    /// The path of a repository when it is a directory of this host.
    pub fn local_repo(&self, stanza: &str, repo: RepoKey) -> Option<PathBuf> {
        let option = |name: &str| self.get(stanza, "backup", &format!("repo{repo}-{name}"));
        let is_local = option("host").is_none() && option("type").is_none_or(|kind| kind == "posix");
        is_local.then(|| self.repo_path(stanza, repo))
    }

    /// Whether a repository is encrypted by pgBackRest.
    pub fn is_encrypted(&self, stanza: &str, repo: RepoKey) -> bool {
        self.get(stanza, "backup", &format!("repo{repo}-cipher-type")).is_some_and(|cipher| cipher != "none")
    }

    /// The data directory of the stanza's first server.
    pub fn pg_path(&self, stanza: &str) -> Option<PathBuf> {
        self.get(stanza, "backup", "pg1-path").map(PathBuf::from)
    }

    /// The host of the stanza's first server, when it is not this one.
    pub fn pg_host(&self, stanza: &str) -> Option<&str> {
        self.get(stanza, "backup", "pg1-host")
    }

    /// Retention that is set for a stanza, as `option=value`: others' `expire` would go by it, and a backup that
    /// somebody makes by hand expires by it.
    pub fn retention(&self, stanza: &str) -> Vec<String> {
        let concerns = |section: &str| match section.split_once(':') {
            Some((name, command)) => [stanza, "global"].contains(&name) && ["backup", "expire"].contains(&command),
            None => [stanza, "global"].contains(&section),
        };
        let options = self.sections.iter().filter(|(name, _)| concerns(name)).flat_map(|(_, options)| options);
        let set = options.filter(|(name, _)| name.contains("retention-") && !name.ends_with("-history"));
        set.map(|(name, value)| format!("{name}={value}")).collect()
    }
}

/// The included files in the order in which pgBackRest reads them; a missing directory holds none.
fn included(directory: &Path) -> Result<Vec<PathBuf>, ConfError> {
    let failed = |source| ConfError::Read { path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut files: Vec<PathBuf> = entries.map(|e| Ok(e?.path())).collect::<Result<_, _>>().map_err(failed)?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "conf"));
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn conf(text: &str) -> Conf {
        let mut conf = Conf::default();
        conf.add(Path::new("x.conf"), text).unwrap();
        conf
    }

    const TEXT: &str = "\
[global]
repo1-path=/srv/repo # not a comment
repo2-path = /srv/two
repo2-cipher-type=aes-256-cbc
repo2-cipher-pass=hunter2
repo2-retention-full=3
repo2-retention-history=9
repo3-type=s3
lock-path=/run/pgbackrest

# a comment
[global:restore]
lock-path=/run/restore
process-max=4

[orders]
pg1-path=/var/lib/postgresql/15/main
lock-path=/run/orders

[orders:archive-push]
lock-path=/run/push
[crm]
retention-full=7
";

    #[test]
    fn the_most_special_section_wins() {
        let conf = conf(TEXT);
        let locks = |stanza, command| conf.lock_path(stanza, command).display().to_string();
        assert_eq!(locks("orders", "backup"), "/run/orders");
        assert_eq!(locks("orders", "archive-push"), "/run/push");
        assert_eq!(locks("orders", "restore"), "/run/orders", "the stanza outranks the command");
        assert_eq!(locks("crm", "restore"), "/run/restore");
        assert_eq!(locks("crm", "backup"), "/run/pgbackrest");
        assert_eq!(Conf::default().lock_path("crm", "backup"), Path::new("/tmp/pgbackrest"));
    }

    #[test]
    fn a_comment_at_the_end_of_a_line_is_part_of_the_value() {
        assert_eq!(conf(TEXT).repo_path("orders", 1), Path::new("/srv/repo # not a comment"));
    }

    #[test]
    fn repositories_tell_their_place_and_encryption() {
        let conf = conf(TEXT);
        assert_eq!(conf.local_repo("orders", 2).as_deref(), Some(Path::new("/srv/two")));
        assert_eq!((conf.local_repo("orders", 3), conf.is_encrypted("orders", 2)), (None, true));
        assert!(!conf.is_encrypted("orders", 1));
        assert_eq!(conf.pg_path("orders").as_deref(), Some(Path::new("/var/lib/postgresql/15/main")));
    }

    #[test]
    fn retention_of_others_is_noticed_but_not_that_of_the_history() {
        assert_eq!(conf(TEXT).retention("orders"), ["repo2-retention-full=3"]);
        assert_eq!(conf(TEXT).retention("crm"), ["retention-full=7", "repo2-retention-full=3"]);
    }

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        assert!(!format!("{:?}", conf(TEXT)).contains("hunter2"));
    }

    #[test]
    fn a_line_that_makes_no_sense_is_named() {
        let error = Conf::default().add(Path::new("x.conf"), "[global]\nnonsense").unwrap_err();
        assert_eq!(error.to_string(), "pgBackRest's configuration `x.conf`, line 2: neither a section nor `key=value`");
        assert!(Conf::default().add(Path::new("x.conf"), "early=1").is_err());
    }

    #[test]
    fn included_files_are_read_in_order_and_a_missing_directory_is_none() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("b.conf"), "[global]\nprocess-max=2").unwrap();
        fs::write(directory.path().join("a.conf"), "[global]\nprocess-max=1").unwrap();
        fs::write(directory.path().join("c.conf~"), "nonsense").unwrap();
        let conf = Conf::of(&included(directory.path()).unwrap()).unwrap();
        assert_eq!(conf.get("orders", "backup", "process-max"), Some("2"));
        assert_eq!(included(&directory.path().join("no")).unwrap(), [""; 0].map(PathBuf::from));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(text in "(\\PC|\n|=|\\[|\\])*") {
            let _ = Conf::default().add(Path::new("x"), &text);
        }
    }
}
