//! The walls around a test restore: that there can be any, which programs work behind them, and that nobody sees through.
//!
//! A newcomer would trust the list of mounts; we look from inside.

use std::path::{Path, PathBuf};

use super::{
    Context, failure, listed,
    steps::{Checked, Result},
};
use crate::{
    error::ExitCode,
    process::{Command, capture},
    record::{ErrorClass, Failure},
    sandbox::{Isolation, Layout, Sandbox},
};

/// Production's home and others' on most machines; none of them may be seen from inside.
const PRIVATE: [&str; 6] = ["/var/lib/postgresql", "/var/lib/mysql", "/srv", "/home", "/root", "/run"];

/// Finds out whether anything can be isolated here.
pub(super) async fn isolate() -> Result<Isolation> {
    let isolation = Isolation::probe().await?;
    let detail = isolation.to_string();
    Ok(Checked::passed(isolation, detail))
}

/// Finds PostgreSQL's programs of a major version.
pub(super) async fn find_postgres(context: &Context, version: &str, needed: &[&str]) -> Result<PathBuf> {
    let usual = || PathBuf::from(format!("/usr/lib/postgresql/{version}/bin"));
    let programs = context.database().test_restore.server_bin.clone().unwrap_or_else(usual);
    let missing: Vec<PathBuf> =
        needed.iter().map(|name| programs.join(name)).filter(|program| !program.exists()).collect();
    let unfit = |message: String| {
        let remedy = format!("Install PostgreSQL {version}, or set `test_restore.server_bin` to its directory.");
        Failure { exit: ExitCode::ToolNotFound, ..failure(ErrorClass::Config, message, &remedy) }
    };
    if !missing.is_empty() {
        return Err(unfit(format!("{} is not there", listed(&missing))));
    }
    let said = capture(&Command::new(programs.join("postgres")).arg("--version"), &context.stop).await?;
    let said = String::from_utf8_lossy(&said.stdout).trim().replace("postgres (PostgreSQL) ", "");
    if !is_major(&said, version) {
        return Err(unfit(format!("`{}` is version {said}, the backup needs {version}", programs.display())));
    }
    let detail = format!("PostgreSQL {said} in {}", programs.display());
    Ok(Checked::passed(programs, detail))
}

fn is_major(version: &str, major: &str) -> bool {
    let rest = version.strip_prefix(major);
    rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// What a sandbox is built around.
pub(super) struct Ground<'a> {
    /// The scratch directory.
    pub(super) layout: Layout,
    /// The directory with the programs.
    pub(super) programs: PathBuf,
    /// Production's directories and files, as far as they are known.
    pub(super) production: &'a [PathBuf],
    /// Where production's tablespaces lie.
    pub(super) tablespaces: &'a [PathBuf],
}

/// Puts up the walls, and looks from inside whether they hold.
pub(super) async fn build_walls(context: &Context, ground: Ground<'_>) -> Result<Sandbox> {
    let Ground { layout, programs, production, tablespaces } = ground;
    let sandbox = Sandbox::new(layout, programs, production, tablespaces, context.database().niceness)?;
    let ours = |path: &Path| sandbox.layout().root().starts_with(path) || sandbox.programs().starts_with(path);
    let private = PRIVATE.iter().map(PathBuf::from).filter(|path| !ours(path));
    let looked_for: Vec<PathBuf> = production.iter().cloned().chain(private).collect();
    if !sandbox.cannot_see(&looked_for, &context.stop).await? {
        let message = "a database outside the scratch directory can be seen from inside the sandbox";
        return Err(failure(ErrorClass::Config, message, "Set `daemon.scratch_dir` to a place of its own."));
    }
    let count = tablespaces.len();
    let detail = match production {
        [] => format!(
            "no network, only system programs and the scratch directory visible, {count} tablespaces stood in for"
        ),
        _ => format!("no network, production's directories not visible, {count} tablespaces stood in for"),
    };
    Ok(Checked::passed(sandbox, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_9_is_not_9_6_and_15_is_not_1() {
        assert!(is_major("15.20 (Debian 15.20-1)", "15") && is_major("9.6.24", "9.6") && is_major("17", "17"));
        assert!(!is_major("15.20", "1") && !is_major("16.1", "15"));
    }
}
