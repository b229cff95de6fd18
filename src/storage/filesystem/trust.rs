//! Whether a directory may be trusted: nobody but root and us could have put something else in its place.
//!
//! Who may write a directory may exchange everything below it, so each step from `/` down counts, links included. A
//! newcomer would look at the last directory only.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
};

use super::tree::Trouble;

/// As many links as the kernel follows.
const MOST_LINKS: u32 = 40;
/// Others may add to a directory with this bit, but neither rename nor remove what is not theirs.
const STICKY: u32 = 0o1000;
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Walks to a directory from `/` as the kernel would, and finds the first step that is not to be trusted.
pub(super) fn check(root: &Path) -> Result<(), Trouble> {
    let mut at = PathBuf::from("/");
    let mut ahead: VecDeque<OsString> = steps(root).collect();
    let mut links = 0;
    look(&at)?;
    while let Some(step) = ahead.pop_front() {
        if step == ".." {
            at.pop();
            continue;
        }
        let next = at.join(step);
        let Some(target) = look(&next)? else {
            at = next;
            continue;
        };
        links += 1;
        if links > MOST_LINKS {
            return Err(Trouble::untrusted(&next, "too many symbolic links follow each other"));
        }
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        for step in steps(&target).collect::<Vec<_>>().into_iter().rev() {
            ahead.push_front(step);
        }
    }
    Ok(())
}

fn steps(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|step| match step {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    })
}

/// Looks at one step; gives the target when it is a link.
fn look(path: &Path) -> Result<Option<PathBuf>, Trouble> {
    let trouble = |source: io::Error| Trouble::io(path, source);
    let found = fs::symlink_metadata(path).map_err(trouble)?;
    let complaint = if found.is_symlink() { owner(&found) } else { directory(&found, true) };
    match complaint {
        Some(why) => Err(Trouble::untrusted(path, why)),
        None if found.is_symlink() => fs::read_link(path).map(Some).map_err(trouble),
        None => Ok(None),
    }
}

/// What speaks against a directory; one on the way there may be sticky, one of our own has no reason to.
pub(super) fn directory(found: &Metadata, may_be_sticky: bool) -> Option<String> {
    let mode = found.mode() & 0o7777;
    if !found.is_dir() {
        return Some("it is no directory: name another one in the policy".to_owned());
    }
    let is_open = mode & WRITABLE_BY_OTHERS != 0 && !(may_be_sticky && mode & STICKY != 0);
    let open = || format!("others may write in it (mode {mode:04o}): run `chmod go-w` on it");
    owner(found).or_else(|| is_open.then(open))
}

/// What speaks against a file that is to be read.
pub(super) fn file(found: &Metadata) -> Option<String> {
    if !found.is_file() {
        return Some("it is no regular file: remove it, Backstop did not make it".to_owned());
    }
    owner(found)
}

fn owner(found: &Metadata) -> Option<String> {
    let (owner, us) = (found.uid(), nix::unistd::geteuid().as_raw());
    let stranger = || format!("it belongs to user {owner}, neither to root nor to user {us}: run `chown {us}` on it");
    (owner != us && owner != 0).then(stranger)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    fn directory_in(parent: &Path, name: &str, mode: u32) -> PathBuf {
        let path = parent.join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn complaint(path: &Path) -> String {
        match check(path).unwrap_err() {
            Trouble::Untrusted { path, why } => format!("{}: {why}", path.file_name().unwrap().display()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_private_directory_below_a_sticky_one_is_trusted() {
        let temporary = tempfile::tempdir().unwrap();
        let shared = directory_in(temporary.path(), "shared", 0o1777);
        assert!(check(&directory_in(&shared, "own", 0o700)).is_ok());
    }

    #[test]
    fn a_directory_that_others_may_write_is_not_wherever_it_stands() {
        let temporary = tempfile::tempdir().unwrap();
        let open = directory_in(temporary.path(), "open", 0o775);
        assert_eq!(complaint(&open), "open: others may write in it (mode 0775): run `chmod go-w` on it");
        let below = directory_in(&open, "below", 0o700);
        assert!(complaint(&below).starts_with("open: "));
    }

    #[test]
    fn a_link_of_ours_is_followed_and_what_it_leads_to_is_looked_at() {
        let temporary = tempfile::tempdir().unwrap();
        directory_in(temporary.path(), "good", 0o700);
        let bad = directory_in(temporary.path(), "bad", 0o777);
        symlink("../x/../good", directory_in(temporary.path(), "x", 0o700).join("relative")).unwrap();
        symlink(&bad, temporary.path().join("absolute")).unwrap();
        assert!(check(&temporary.path().join("x/relative")).is_ok());
        assert!(complaint(&temporary.path().join("absolute")).starts_with("bad: "));
        symlink("round", temporary.path().join("round")).unwrap();
        assert!(complaint(&temporary.path().join("round")).contains("too many"));
    }

    #[test]
    fn a_file_is_no_directory_and_nothing_is_not_there() {
        let temporary = tempfile::tempdir().unwrap();
        fs::write(temporary.path().join("file"), "").unwrap();
        assert!(complaint(&temporary.path().join("file")).contains("no directory"));
        let missing = check(&temporary.path().join("missing")).unwrap_err();
        assert!(matches!(missing, Trouble::Io { source, .. } if source.kind() == io::ErrorKind::NotFound));
    }

    #[test]
    fn what_belongs_to_a_stranger_is_not_trusted() {
        let temporary = tempfile::tempdir().unwrap();
        let us = nix::unistd::geteuid();
        if us.is_root() {
            let path = directory_in(temporary.path(), "theirs", 0o755);
            chown(&path, Some(65_534), None).unwrap();
            assert!(complaint(&path).contains("belongs to user 65534"));
            let link = temporary.path().join("link");
            symlink("/", &link).unwrap();
            std::os::unix::fs::lchown(&link, Some(65_534), None).unwrap();
            assert!(complaint(&link).contains("belongs to user 65534"));
        }
        assert_eq!(owner(&fs::metadata("/").unwrap()), None);
    }
}
