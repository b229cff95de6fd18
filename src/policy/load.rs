//! Where a policy comes from: the main file, and `conf.d/*.toml` beside it.
//!
//! A newcomer would read the files in the order of the directory; they are sorted, so that the same files give the same
//! problems in the same order, and the same hash.

use std::{
    fmt::Write,
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{Policy, Problem, Problems, check};

impl Policy {
    /// Reads and checks the main file and the files of `conf.d` beside it.
    ///
    /// # Errors
    /// Every problem of every file at once.
    pub fn load(path: &Path) -> Result<Policy, Problems> {
        let mut problems = Vec::new();
        let beside = beside(path, &mut problems);
        let paths = std::iter::once(path.to_owned()).chain(beside);
        let files: Vec<_> = paths.filter_map(|path| read(path, &mut problems)).collect();
        if problems.is_empty() { Policy::parse(files) } else { Err(problems.into()) }
    }

    /// Checks the text of files, the main file first; no file is read.
    ///
    /// # Errors
    /// Every problem of every file at once.
    pub fn parse(files: Vec<(PathBuf, String)>) -> Result<Policy, Problems> {
        let hash = hash(&files);
        check::check(files, hash)
    }
}

/// The files of `conf.d`, sorted.
fn beside(path: &Path, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let directory = path.with_file_name("conf.d");
    let entries = fs::read_dir(&directory).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    let mut paths: Vec<PathBuf> = match entries {
        Ok(entries) => entries.into_iter().map(|entry| entry.path()).filter(|path| is_policy(path)).collect(),
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            problems.push(unreadable(&directory, &error));
            Vec::new()
        }
    };
    paths.sort();
    paths
}

/// Editors leave `.orders.toml.swp` and the like behind.
fn is_policy(path: &Path) -> bool {
    let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    path.extension().is_some_and(|extension| extension == "toml") && !is_hidden
}

fn read(path: PathBuf, problems: &mut Vec<Problem>) -> Option<(PathBuf, String)> {
    match fs::read_to_string(&path) {
        Ok(text) => Some((path, text)),
        Err(error) => {
            let mut problem = unreadable(&path, &error);
            if error.kind() == ErrorKind::NotFound {
                problem.help("Write a policy there, or name another file with `--policy`.");
            }
            problems.push(problem);
            None
        }
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    Problem::of_file(path, format!("`{}` cannot be read: {error}", path.display()))
}

/// SHA-256 over the names and texts, each with its length before it so that no two lists of files look the same. The
/// directory does not count: a relative path gives the same policy.
fn hash(files: &[(PathBuf, String)]) -> String {
    let mut hasher = Sha256::new();
    for (path, text) in files {
        let name = path.file_name().unwrap_or_default();
        for part in [name.as_encoded_bytes(), text.as_bytes()] {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
    }
    hasher.finalize().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = include_str!("../../config/minimal.toml");

    #[test]
    fn conf_d_is_read_in_the_order_of_names_and_without_leftovers_of_editors() {
        let directory = tempfile::tempdir().unwrap();
        let main = directory.path().join("backstop.toml");
        fs::write(&main, MINIMAL).unwrap();
        fs::create_dir(directory.path().join("conf.d")).unwrap();
        for name in ["b.toml", "a.toml", ".a.toml", "a.toml~", "a.txt"] {
            fs::write(directory.path().join("conf.d").join(name), "").unwrap();
        }
        let policy = Policy::load(&main).unwrap();
        let names: Vec<_> = policy.files.iter().map(|(path, _)| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["backstop.toml", "a.toml", "b.toml"]);
    }

    #[test]
    fn a_missing_file_is_a_problem_with_a_remedy() {
        let problems = Policy::load(Path::new("/nowhere/backstop.toml")).unwrap_err();
        assert_eq!(
            problems.to_string(),
            "error: `/nowhere/backstop.toml` cannot be read: No such file or directory (os error 2)\n \
             |\n = help: Write a policy there, or name another file with `--policy`.\n\n1 error in 1 file"
        );
    }

    #[test]
    fn the_hash_is_of_names_and_texts() {
        let of = |name: &str, text: &str| hash(&[(name.into(), text.to_owned())]);
        assert_eq!(of("a", "b").len(), 64);
        assert_eq!(of("a", "b"), of("/etc/a", "b"));
        assert_ne!(of("a", "b"), of("ab", ""));
        assert_ne!(of("a", "b"), of("a", "c"));
    }
}
