//! Root beside a running daemon: every verb becomes the owner of the state directory before it opens anything.

use std::os::unix::fs::MetadataExt;

use crate::harness::{Lab, Site};

#[test]
fn verbs_of_root_beside_a_running_daemon_leave_no_file_of_roots() {
    let lab = Lab::small();
    let site = Site::new(&lab, "");
    let daemon = site.daemon();
    site.run(&["status"]).ok();
    site.run(&["history"]).ok();
    site.run(&["backup", "orders", "--type", "full"]).ok();
    site.run(&["list"]).ok();
    site.run(&["wal", "orders"]);
    site.run(&["expire", "orders", "--dry-run"]).ok();
    site.run(&["test-restore", "orders"]).ok();
    let mine = std::fs::metadata("/proc/self").unwrap().uid();
    let owner = lab.owner().0;
    assert!(mine == 0 && owner != 0, "this test means something only for root");

    let files = site.files();
    assert!(files.len() > 5, "{files:?}");
    for (path, uid, mode) in &files {
        assert_eq!(*uid, owner, "{} belongs to user {uid}", path.display());
        // Links have no mode of their own.
        assert!(mode & 0o077 == 0 || path.is_symlink(), "{} is open to others: {mode:o}", path.display());
    }
    daemon.stop();
    assert!(site.files().iter().all(|(_, uid, _)| *uid == owner));
    let listed = lab.run("find repo lock -not -user postgres");
    assert_eq!(listed, "", "pgBackRest's files belong to the server's user");
}
