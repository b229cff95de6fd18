//! Stand-ins for pgBackRest, only for what the real one does not do on request: hang, talk nonsense, be impossible.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::harness::{Extra, Lab, Site, in_seconds, sh, until_true};

/// A stand-in that does `script` in the place of one command and hands everything else to the real tool.
pub(crate) fn stand_in(lab: &Lab, command: &str, script: &str) -> String {
    let path = lab.path("stand-in");
    let text = format!(
        "#!/bin/bash\nfor word in \"$@\"; do\n  if [ \"$word\" = {command} ]; then\n{script}\n  fi\ndone\nexec /usr/bin/pgbackrest \"$@\"\n"
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    format!(", binary = \"{}\"", path.display())
}

#[test]
fn a_tool_that_hangs_is_ended_with_all_its_children_at_its_timeout() {
    let lab = Lab::empty();
    let binary = stand_in(&lab, "backup", "trap '' TERM; cd \"${0%/*}\"; sleep 1000 & while :; do sleep 1000; done");
    let schedule = format!("schedule = {{ full = {{ cron = \"{}\", timeout = \"2s\" }} }}", in_seconds(4));
    let site = Site::with(&lab, &Extra { database: &schedule, pgbackrest: &binary, ..Extra::default() });
    let daemon = site.daemon();
    until_true("the run ends", || site.states("full") == ["failed"]);
    assert_eq!(lab.processes("stand-in"), Vec::<i32>::new());
    let run = site.runs("full")[0].clone();
    let shown = site.run(&["show", &run["id"].to_string()]);
    assert_eq!(shown.ok()["attempts"][0]["ending"], "timed out", "{shown:#?}");
    daemon.stop();
}

#[test]
fn a_tool_that_dies_of_a_signal_is_told_as_that() {
    let lab = Lab::empty();
    let binary = stand_in(&lab, "backup", "echo 'last words'; kill -SEGV $$");
    let site = Site::with(&lab, &Extra { pgbackrest: &binary, ..Extra::default() });
    let answer = site.run(&["backup", "orders", "--type", "full"]);
    assert_ne!(answer.code, 0);
    let shown = site.run(&["show", &site.runs("full")[0]["id"].to_string()]);
    let attempt = &shown.ok()["attempts"][0];
    assert!(attempt["ending"].as_str().unwrap().contains("signal 11"), "{attempt:#}");
    assert!(attempt["tail"].to_string().contains("last words"), "{attempt:#}");
}

#[test]
fn nonsense_from_info_fails_without_a_panic_and_deletes_nothing() {
    let lab = Lab::empty();
    let site = Site::new(&lab, "retention = { full = 1 }");
    for _ in 0..2 {
        site.run(&["backup", "orders", "--type", "full"]).ok();
    }
    for nonsense in [
        "printf '\\377\\376[{\"name\": \"lab\"'; exit 0",
        "echo '[]'; exit 0",
        "echo '[{\"name\":7}]'; exit 0",
        "exit 0",
    ] {
        let binary = stand_in(&lab, "info", nonsense);
        site.rewrite(&Extra { database: "retention = { full = 1 }", pgbackrest: &binary, ..Extra::default() });
        let answer = site.run(&["expire", "orders", "--yes"]);
        assert!(
            answer.code != 0 || answer.ok()["expired"].as_array().is_some_and(Vec::is_empty),
            "{nonsense}: {answer:#?}"
        );
        assert_ne!(answer.code, 70, "{nonsense}: {answer:#?}");
        assert_eq!(lab.labels().len(), 2, "{nonsense}");
    }
    assert!(site.backups().iter().all(|backup| backup["status"] != "expired"), "{:#?}", site.backups());
}

#[test]
fn an_impossible_version_is_refused_before_anything_is_done() {
    let lab = Lab::empty();
    let binary = stand_in(&lab, "version", "echo 'pgBackRest 1.02'; exit 0");
    let site = Site::with(&lab, &Extra { pgbackrest: &binary, ..Extra::default() });
    let told = site.run(&["backup", "orders", "--type", "full"]).fails(4);
    assert!(told.contains("1.02"), "{told}");
    assert!(lab.info()["backup"].as_array().unwrap().is_empty());
}

/// Does `script` only when the command was called `after` times before.
pub(crate) fn later(after: u32, script: &str) -> String {
    format!(
        "n=$(cat \"$0.count\" 2>/dev/null || echo 0); echo $((n+1)) >\"$0.count\"; if [ $n -ge {after} ]; then {script}; fi"
    )
}

#[test]
fn a_repository_that_cannot_be_read_ends_no_backup_where_pgbackrest_decides() {
    let lab = Lab::empty();
    let site = Site::new(&lab, "");
    for _ in 0..2 {
        site.run(&["backup", "orders", "--type", "full"]).ok();
    }
    lab.run("sed -i '/^repo1-path/a repo1-retention-full=1' pgbackrest.conf");
    let down = r#"printf %s '[{"name":"lab","backup":[],"db":[],"archive":[],"repo":[{"key":1,"cipher":"none","status":{"code":99,"message":"[HostConnectError] down"}}],"status":{"code":99,"message":"other"}}]'; exit 0"#;
    // Unreadable from the beginning, then after the tool ended a backup; plan and run look twice before.
    for (after, labels) in [(0, 2), (2, 1)] {
        lab.run("rm -f stand-in.count");
        let binary = stand_in(&lab, "info", &later(after, down)) + ", expire_by = \"pgbackrest\"";
        site.rewrite(&Extra { pgbackrest: &binary, ..Extra::default() });
        let told = site.run(&["expire", "orders", "--yes"]).fails(8);
        assert!(told.contains("repository 1"), "{told}");
        assert_eq!(lab.labels().len(), labels);
        let newest = lab.labels().pop().unwrap();
        assert_eq!(site.backups()[0]["label"], newest.as_str(), "what is there is not taken for gone");
    }
    assert_eq!(
        site.catalog("select status || ' ' || ifnull(status_reason, '-') from backups order by label"),
        "expired expires: by pgBackRest's own retention\ngood -"
    );
}

#[test]
fn what_others_build_on_a_backup_after_the_rehearsal_keeps_it() {
    let lab = Lab::empty();
    let site = Site::new(&lab, "retention = { full = 1 }");
    for _ in 0..2 {
        site.run(&["backup", "orders", "--type", "full"]).ok();
    }
    let script = "/usr/bin/pgbackrest \"$@\"; echo \"2026-11-20 16:39:11.128 P00   INFO: [DRY-RUN] repo1: remove expired backup 20261120-163654F_20261120-163707I\"; exit 0";
    let binary = stand_in(&lab, "expire", &later(1, script));
    site.rewrite(&Extra { database: "retention = { full = 1 }", pgbackrest: &binary, ..Extra::default() });
    let told = site.run(&["expire", "orders", "--yes"]).fails(1);
    assert!(told.contains("would also remove 20261120-163654F_20261120-163707I"), "{told}");
    assert_eq!((lab.labels().len(), site.backups().len()), (2, 2));
}

#[test]
fn a_backup_is_expired_before_the_tool_runs_and_good_again_when_the_tool_fails() {
    let lab = Lab::empty();
    let site = Site::new(&lab, "retention = { full = 1 }");
    for _ in 0..2 {
        site.run(&["backup", "orders", "--type", "full"]).ok();
    }
    let oldest = lab.labels()[0].clone();
    let status = format!("select status from backups where label = '{oldest}'");
    let real = |script: &str| format!("case \"$*\" in *--dry-run*) ;; *) {script} ;; esac");
    let expire = |script: &str| {
        let binary = stand_in(&lab, "expire", &real(script));
        site.rewrite(&Extra { database: "retention = { full = 1 }", pgbackrest: &binary, ..Extra::default() });
        let (program, policy) = (env!("CARGO_BIN_EXE_backstop"), site.policy.display());
        sh(&format!("{program} --policy {policy} expire orders --yes >/dev/null 2>&1 || echo $?")).trim().to_owned()
    };
    let look = format!(
        "sqlite3 -readonly {} \"{status}\" >\"$0.seen\"; echo '2026-11-20 16:39:11.128 P00  ERROR: [041]: no'; exit 41",
        site.state.join("catalog.db").display()
    );
    assert_eq!(expire(&look), "8");
    assert_eq!(lab.run("cat stand-in.seen").trim(), "expired", "the intent is written first");
    assert_eq!(site.catalog(&status), "good", "it is still there");

    // Backstop is killed before, and then after the tool did its work, so that nobody is left to record it.
    for (work, then) in [("true", "good"), ("/usr/bin/pgbackrest \"$@\" >/dev/null", "expired")] {
        assert_eq!(expire(&format!("{work}; kill -KILL $PPID; exit 0")), "137");
        assert_eq!(site.catalog(&status), "expired");
        site.run(&["backup", "orders", "--type", "incr"]).ok();
        assert_eq!(site.catalog(&status), then, "the next look tells what became of it");
    }
    assert_eq!(site.catalog("select count(*) from backups where status = 'lost'"), "0");
}
