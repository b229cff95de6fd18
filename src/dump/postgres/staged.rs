//! Checks a dump in the directory format before it is stored.
//!
//! Its table of contents is read, each file that it names must be there, and the data of a table must end as the tool
//! ends it; then `pg_restore` reads all of it. A newcomer would trust `pg_restore`: without compression it does not see
//! that a file ends early.

use std::{
    fs,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use crate::{
    engine::pg_dump::{
        archive::{self, Piece},
        exit,
    },
    error::ExitCode,
    process::{self, Command, Ending, Stop},
    record::{ErrorClass, Failure},
};

/// What ends the data of a table.
const END: &[u8] = b"\\.\n";

/// Checks the directory; `read_through` lets `pg_restore` read it.
pub(super) async fn check(read_through: &Command, directory: &Path, stop: &Stop) -> Result<(), Failure> {
    let path = directory.to_owned();
    let looked = tokio::task::spawn_blocking(move || look(&path)).await;
    looked.unwrap_or_else(|panic| Err(panic.to_string())).map_err(damaged)?;
    let answer = process::capture(read_through, stop).await?;
    if answer.ending == Ending::Exited(0) {
        return Ok(());
    }
    let tail: Vec<String> = answer.stderr.lines().map(str::to_owned).collect();
    let failure = exit::explain("pg_restore", &answer.ending, &tail);
    Err(match answer.ending {
        Ending::Exited(_) => damaged(failure.message),
        _ => failure,
    })
}

fn damaged(what: String) -> Failure {
    Failure {
        class: ErrorClass::Integrity,
        exit: ExitCode::VerificationFailed,
        message: format!("what `pg_dump` staged is not whole: {what}"),
        remedy: Some("Check the disk below `daemon.scratch_dir` and the kernel's log, then dump again.".to_owned()),
    }
}

fn look(directory: &Path) -> Result<(), String> {
    let unreadable = |path: &Path, error| format!("`{}` cannot be read: {error}", path.display());
    let toc = directory.join("toc.dat");
    let bytes = fs::read(&toc).map_err(|error| unreadable(&toc, error))?;
    for piece in archive::contents(&bytes)?.unwrap_or_default() {
        let file = directory.join(&piece.file);
        let missing = files(&piece, directory).map_err(|error| unreadable(&file, error))?;
        if let Some(missing) = missing.into_iter().find(|file| !file.is_file()) {
            return Err(format!("`{}` is missing", missing.display()));
        }
        let is_whole = piece.kind != "TABLE DATA" || ends_well(&file).map_err(|error| unreadable(&file, error))?;
        if !is_whole {
            return Err(format!("`{}` ends early", file.display()));
        }
    }
    Ok(())
}

/// The files of an entry: its own, and those that the list of large objects names.
fn files(piece: &Piece, directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = vec![directory.join(&piece.file)];
    if piece.kind == "BLOBS" {
        let list = fs::read_to_string(&files[0])?;
        files.extend(list.lines().filter_map(|line| line.split_once(' ')).map(|(_, name)| directory.join(name)));
    }
    Ok(files)
}

fn ends_well(file: &Path) -> std::io::Result<bool> {
    let mut opened = fs::File::open(file)?;
    let length = opened.metadata()?.len();
    opened.seek(SeekFrom::Start(length.saturating_sub(16)))?;
    let mut tail = Vec::new();
    opened.read_to_end(&mut tail)?;
    let end = tail.iter().rposition(|byte| *byte != b'\n').map_or(0, |last| (last + 2).min(tail.len()));
    Ok(tail[..end].ends_with(END))
}
