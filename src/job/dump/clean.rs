//! Takes away what a backup that came to nothing left in the storages.
//!
//! The manifest goes first: without it nobody takes the rest for a backup. A run that lives removes the files that it
//! made itself and nothing else: another host, or another name of the same place, may have written to the same directory
//! in the same second. A newcomer would remove the directory; that has taken good backups with it.

use std::time::Duration;

use crate::{
    error::chain,
    record::{Failure, MANIFEST},
    storage::{self, Storage},
};

/// How long one storage may take. A directory has thousands of parts at most.
const LIMIT: Duration = Duration::from_secs(300);

/// Removes everything below the directory of a backup whose run is dead.
///
/// # Errors
/// The first thing that could not be removed.
pub(super) async fn remove(storage: &Storage, directory: &str) -> Result<(), String> {
    in_time(storage, async {
        let inside = format!("{directory}/");
        let mut paths: Vec<String> = storage.list(directory).await?.into_iter().map(|stored| stored.path).collect();
        paths.retain(|path| path.starts_with(&inside));
        remove_files(storage, paths, directory).await
    })
    .await
}

/// Removes the files that a run of ours made, and what its unfinished uploads left.
///
/// # Errors
/// The first thing that could not be removed.
pub(super) async fn undo(storage: &Storage, made: Vec<String>, directory: &str) -> Result<(), String> {
    in_time(storage, remove_files(storage, made, directory)).await
}

async fn remove_files(storage: &Storage, mut paths: Vec<String>, directory: &str) -> Result<(), storage::Error> {
    paths.sort_by_key(|path| !path.ends_with(MANIFEST));
    let mut first = Ok(());
    for path in &paths {
        first = first.and(storage.remove(path).await);
    }
    first.and(storage.sweep(directory).await.map(drop))
}

async fn in_time(storage: &Storage, work: impl Future<Output = Result<(), storage::Error>>) -> Result<(), String> {
    match tokio::time::timeout(LIMIT, work).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(problem)) => Err(chain(&problem)),
        Err(_) => Err(format!("storage `{}` did not answer for {} s", storage.name(), LIMIT.as_secs())),
    }
}

/// A failure that says too what became of what had been written.
pub(super) fn told(failure: Failure, problems: &[String]) -> Failure {
    let left = match problems {
        [] => "nothing of the backup is left".to_owned(),
        problems => format!("remains could not be removed, the next run tries again: {}", problems.join("; ")),
    };
    Failure { message: format!("{}; {left}", failure.message), ..failure }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::ExitCode, record::ErrorClass};

    #[test]
    fn a_failure_says_whether_anything_is_left() {
        let failure = Failure {
            class: ErrorClass::Transient,
            exit: ExitCode::Connection,
            message: "the server went away".to_owned(),
            remedy: None,
        };
        let none = told(failure.clone(), &[]);
        assert_eq!(none.message, "the server went away; nothing of the backup is left");
        let some = told(failure, &["storage `s3` is offline".to_owned()]);
        assert!(some.message.ends_with("the next run tries again: storage `s3` is offline"));
        assert_eq!(some.exit, ExitCode::Connection);
    }
}
