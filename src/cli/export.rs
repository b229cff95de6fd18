//! `backstop export`: every backup in one document, for other programs.
//!
//! A file appears whole or not at all, and only its owner can read it. A newcomer would write into the file itself;
//! whoever reads it each minute would sometimes read half.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{
    Answer, list,
    session::{self, Session, catalog_error},
};
use crate::{
    catalog::BackupFilter,
    error::{Error, ExitCode},
    record::DatabaseName,
    report,
};

/// What may be asked.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Only this database
    #[arg(long)]
    database: Option<DatabaseName>,
    /// Also backups that retention ended, somebody deleted or the repository lost
    #[arg(long)]
    expired: bool,
    /// The file to write; stdout when left out
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) async fn run(session: &Session, options: &Options) -> Result<Answer, Error> {
    let (policy, catalog, _) = session.policy_for_looking().await?;
    if let Some(name) = &options.database {
        session::find(&policy, name)?;
    }
    let filter = BackupFilter {
        database: options.database.clone(),
        include_expired: options.expired,
        ..BackupFilter::default()
    };
    let backups = catalog.all_backups(&filter).await.map_err(catalog_error)?;
    let forms = list::machine_forms(&policy, &catalog, &backups).await?;
    let document = report::backup::document(session.now, forms);
    let message = format!("{} backups", backups.len());
    match &options.out {
        None => Ok(Answer::new("export", document.clone(), message, format!("{document:#}"))),
        Some(path) => {
            write(path, &document).map_err(|source| refused(path, source))?;
            let text = format!("{message} written to {}", path.display());
            let result = json!({ "file": path, "count": backups.len() });
            Ok(Answer::new("export", result, text.clone(), text))
        }
    }
}

fn refused(path: &Path, source: io::Error) -> Error {
    let exit = if source.kind() == io::ErrorKind::StorageFull { ExitCode::NoSpace } else { ExitCode::Storage };
    Error::new(exit, format!("`{}` cannot be written", path.display()))
        .because(source)
        .hint("Name a file in a directory that the owner of the state directory may write to.")
}

/// Writes beside the file, then takes its place in one step.
fn write(path: &Path, document: &Value) -> io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(format!(".{}.new", std::process::id()));
    let fresh = PathBuf::from(fresh);
    let written = write_new(&fresh, document).and_then(|()| fs::rename(&fresh, path));
    if written.is_err() {
        // What is left of it is of no use to anybody.
        let _ = fs::remove_file(&fresh);
    }
    written?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

fn write_new(fresh: &Path, document: &Value) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(fresh)?;
    file.write_all(format!("{document:#}\n").as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_document_takes_the_place_of_the_last_one_and_leaves_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("backups.json");
        for version in [1, 2] {
            write(&path, &json!({ "version": version })).unwrap();
            let read: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            assert_eq!(read["version"], version);
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_document_that_cannot_be_written_leaves_the_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("taken");
        fs::create_dir(&path).unwrap();
        assert!(write(&path, &json!({})).is_err(), "a directory is in its place");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
