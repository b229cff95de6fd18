//! The nightly job on the catalog itself: a checked copy, then what is too old goes, from the catalog and the logs.

use std::{fs, path::Path, time::Duration};

use chrono::{DateTime, Utc};
use tracing::warn;

use super::{Context, Done, catalog_failure};
use crate::{clock::age, record::Failure};

/// How many nightly copies are kept.
const COPIES: usize = 14;

pub(super) async fn run(context: &Context) -> Result<Done, Failure> {
    let now = context.now();
    let copy = context.catalog.copy(now, COPIES).await.map_err(catalog_failure)?;
    let pruned = context.catalog.prune(context.policy.daemon.keep_runs, now).await.map_err(catalog_failure)?;
    let logs = drop_old_logs(&context.policy.daemon.state_dir.join("runs"), context.policy.daemon.keep_logs, now);
    Ok(Done::new(format!(
        "catalog copied to {}; {} old runs, {} slots, {} samples and {logs} logs forgotten",
        copy.display(),
        pruned.runs,
        pruned.slots,
        pruned.wal_samples
    )))
}

/// Removes the log directories of runs that ended long ago. Only directories named by a number are ours.
fn drop_old_logs(runs: &Path, keep: Duration, now: DateTime<Utc>) -> usize {
    let Ok(entries) = fs::read_dir(runs) else { return 0 };
    let is_run = |entry: &fs::DirEntry| entry.file_name().to_str().is_some_and(|name| name.parse::<u64>().is_ok());
    let is_old = |entry: &fs::DirEntry| {
        let modified = entry.metadata().and_then(|metadata| metadata.modified()).ok();
        modified.is_some_and(|at| age(now, at.into()) > keep)
    };
    let remove = |entry: fs::DirEntry| match fs::remove_dir_all(entry.path()) {
        Ok(()) => true,
        Err(error) => {
            warn!(%error, path = %entry.path().display(), "an old log directory cannot be removed");
            false
        }
    };
    entries.flatten().filter(is_run).filter(is_old).map(remove).filter(|gone| *gone).count()
}
