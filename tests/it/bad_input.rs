//! What is not there, not reachable or full: the promised exit code, and a message that names the thing.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::harness::{Extra, Lab, Site, sh};

#[test]
fn an_unreachable_database_is_3() {
    let lab = Lab::empty();
    let site = Site::new(&lab, "");
    lab.stop_server();
    let told = site.run(&["backup", "orders", "--type", "full"]).fails(3);
    assert!(told.contains("orders"), "{told}");
    assert_eq!(site.states("full"), ["failed"]);
    let run = &site.runs("full")[0];
    assert!(
        run["failure"]["remedy"].is_string() && run["diagnosis"].as_array().is_some_and(|lines| !lines.is_empty()),
        "{run:#}"
    );
}

#[test]
fn a_missing_tool_is_4() {
    let lab = Lab::empty();
    let site = Site::with(&lab, &Extra { pgbackrest: ", binary = \"/nonexistent/pgbackrest\"", ..Extra::default() });
    let told = site.run(&["backup", "orders", "--type", "full"]).fails(4);
    assert!(told.contains("/nonexistent/pgbackrest"), "{told}");
}

#[test]
fn an_unwritable_state_directory_is_8() {
    let lab = Lab::empty();
    let site = Site::new(&lab, "");
    fs::set_permissions(&site.state, fs::Permissions::from_mode(0o500)).unwrap();
    for verb in [&["backup", "orders"][..], &["run"]] {
        let (code, _, stderr) = site.say(verb);
        assert_eq!(code, 8, "{verb:?}: {stderr}");
        assert!(stderr.contains("state"), "{verb:?}: {stderr}");
    }
}

#[test]
fn a_missing_state_directory_is_8_and_the_hint_makes_it() {
    let lab = Lab::empty();
    let site = Site::new(&lab, "");
    fs::remove_dir(&site.state).unwrap();
    let (code, _, stderr) = site.say(&["run"]);
    assert_eq!(code, 8, "{stderr}");
    assert!(stderr.contains("install -d"), "{stderr}");
}

#[test]
fn a_full_repository_is_2() {
    let lab = Lab::small();
    lab.run("rm -rf repo/*");
    mount_small(&lab, "repo", 12);
    assert!(lab.pgbackrest(&["stanza-create"]).status.success());
    let site = Site::new(&lab, "");
    lab.run("head -c 8M /dev/urandom > repo/ballast");
    let answer = site.run(&["backup", "orders", "--type", "full"]);
    answer.fails(2);
    assert_eq!(site.states("full"), ["failed"]);
    // With room again all is well.
    sh(&format!("mount -o remount,size=400m '{}'", lab.path("repo").display()));
    site.run(&["backup", "orders", "--type", "full"]).ok();
}

#[test]
fn a_full_state_directory_is_2_and_starts_no_tool() {
    let lab = Lab::empty();
    let site = Site::new(&lab, "");
    mount_small(&lab, "state", 2);
    lab.run("chmod 700 state");
    site.run(&["backup", "orders", "--type", "full"]).ok();
    lab.run("cat /dev/zero > state/ballast || true");
    let answer = site.run(&["backup", "orders", "--type", "incr"]);
    assert!([2, 8].contains(&answer.code), "{answer:#?}");
    assert_eq!(lab.labels().len(), 1, "what cannot be recorded is not done");
    lab.run("rm state/ballast");
    site.run(&["backup", "orders", "--type", "incr"]).ok();
    assert_eq!(site.catalog("pragma integrity_check"), "ok");
}

#[test]
fn a_command_line_without_sense_is_64_and_an_unknown_database_is_1() {
    let lab = Lab::empty();
    let site = Site::new(&lab, "");
    for nonsense in [&["backup"][..], &["backup", "orders", "--type", "huge"], &["no-such-verb"], &["expire"]] {
        let (code, _, stderr) = site.say(nonsense);
        assert_eq!(code, 64, "{nonsense:?}: {stderr}");
    }
    assert!(site.run(&["backup", "ordres"]).fails(1).contains("Did you mean `orders`?"));
}

/// Puts a file system of some megabytes over a directory of the lab; `lab.sh down` takes it away.
fn mount_small(lab: &Lab, directory: &str, megabytes: u32) {
    let (uid, gid) = lab.owner();
    let path = lab.path(directory);
    sh(&format!("mount -t tmpfs -o size={megabytes}m,uid={uid},gid={gid},mode=750 none '{}'", path.display()));
}
