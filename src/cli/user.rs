//! Who asks, and as whom we work: root drops to the owner of the state directory before anything is opened.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::{
    sys::stat::{Mode, umask},
    unistd::{Gid, Uid, User, initgroups, setgid, setuid},
};

use crate::error::{Error, ExitCode};

/// Where the state is when the policy cannot tell.
const DEFAULT_STATE_DIR: &str = "/var/lib/backstop";

/// The person who asks.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// A name for the history: `sudo`'s caller, else the login user, else the user.
    pub(super) name: String,
    /// All that the system knows of them, for the audit: `ada (uid 0, login uid 1000, SUDO_USER ada)`.
    pub(super) witness: String,
}

/// Who asks; to be called before another user is become.
pub(super) fn caller() -> Caller {
    let login = fs::read_to_string("/proc/self/loginuid").ok().and_then(|text| text.trim().parse().ok());
    // 4294967295 is the kernel's "never logged in".
    let login = login.filter(|uid| *uid != u32::MAX);
    let sudo = std::env::var("SUDO_USER").ok().filter(|name| !name.is_empty());
    let login_name = login.and_then(|uid| name_of(Uid::from_raw(uid)));
    let name = sudo.clone().or(login_name).or_else(|| name_of(Uid::current()));
    let name = name.unwrap_or_else(|| Uid::current().to_string());
    Caller { witness: witness(&name, Uid::current().as_raw(), login, sudo.as_deref()), name }
}

fn witness(name: &str, uid: u32, login: Option<u32>, sudo: Option<&str>) -> String {
    let login = login.map_or_else(|| "no login".to_owned(), |login| format!("login uid {login}"));
    let sudo = sudo.map_or_else(String::new, |sudo| format!(", SUDO_USER {sudo}"));
    format!("{name} (uid {uid}, {login}{sudo})")
}

fn name_of(uid: Uid) -> Option<String> {
    User::from_uid(uid).ok().flatten().map(|user| user.name)
}

/// Becomes the owner of the state directory when started as root, and refuses any other user.
///
/// # Errors
/// When there is nobody to become, or when somebody else asks.
pub(super) fn drop_root(policy: &Path, only_reads_policy: bool) -> Result<(), Error> {
    umask(Mode::from_bits_truncate(0o077));
    let state_dir = state_dir(policy);
    let owner =
        fs::metadata(&state_dir).ok().map(|metadata| (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid())));
    match owner {
        _ if only_reads_policy && !Uid::effective().is_root() => Ok(()),
        Some((uid, gid)) if Uid::effective().is_root() && !uid.is_root() => become_user(uid, gid),
        _ if !Uid::effective().is_root() => refuse_strangers(owner, &state_dir),
        _ if only_reads_policy => Ok(()),
        Some(_) => Err(Error::new(ExitCode::Configuration, format!("the state directory `{}` belongs to root", state_dir.display()))
            .hint("PostgreSQL and pgBackRest refuse root. Give it to the user that shall run Backstop, e.g. `chown postgres: DIR`.")),
        None => Err(Error::new(ExitCode::Storage, format!("the state directory `{}` does not exist", state_dir.display()))
            .hint(format!("Create it for the user that shall run Backstop: `install -d -m 0700 -o postgres -g postgres {}`.", state_dir.display()))),
    }
}

fn refuse_strangers(owner: Option<(Uid, Gid)>, state_dir: &Path) -> Result<(), Error> {
    match owner {
        Some((uid, _)) if uid != Uid::effective() => {
            let name = name_of(uid).unwrap_or_else(|| uid.to_string());
            Err(Error::new(ExitCode::Configuration, format!("`{}` belongs to `{name}`", state_dir.display())).hint(
                format!(
                    "Run this as that user: `sudo -u {name} backstop …`, or as root, which becomes `{name}` by itself."
                ),
            ))
        }
        _ => Ok(()),
    }
}

fn become_user(uid: Uid, gid: Gid) -> Result<(), Error> {
    let failed = |source: nix::Error| Error::new(ExitCode::Defect, format!("cannot become user {uid}")).because(source);
    let user = User::from_uid(uid).map_err(failed)?;
    if let Some(user) = &user {
        // The user's own groups matter: `ssl-cert` for keys, a shared group for secrets.
        let name = std::ffi::CString::new(user.name.as_str()).expect("a name from the user database holds no NUL");
        initgroups(&name, user.gid).map_err(failed)?;
    }
    setgid(user.map_or(gid, |user| user.gid)).map_err(failed)?;
    setuid(uid).map_err(failed)
}

/// The state directory by the policy's own word, read without checking the rest of the file.
pub(super) fn state_dir(policy: &Path) -> PathBuf {
    let named = fs::read_to_string(policy).ok().and_then(|text| text.parse::<toml::Table>().ok());
    let named = named.and_then(|table| table.get("daemon")?.get("state_dir")?.as_str().map(PathBuf::from));
    let from_environment = || std::env::var_os("BACKSTOP_STATE_DIR").map(PathBuf::from);
    named.or_else(from_environment).unwrap_or_else(|| DEFAULT_STATE_DIR.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_audit_learns_all_that_the_system_knows_of_a_person() {
        assert_eq!(witness("ada", 0, Some(1000), Some("ada")), "ada (uid 0, login uid 1000, SUDO_USER ada)");
        assert_eq!(witness("postgres", 105, None, None), "postgres (uid 105, no login)");
    }
}
