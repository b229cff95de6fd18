//! SIGHUP: a mistake changes nothing, a good change takes effect at once and is told as a difference.

use nix::sys::signal::Signal;

use crate::harness::{Extra, Lab, Site, until_true};

#[test]
fn a_mistake_is_told_with_its_line_and_the_old_policy_goes_on() {
    let lab = Lab::empty();
    let old = r#"schedule = { full = "0 0 1 1 *", incr = "*/3 * * * * *" }"#;
    let site = Site::new(&lab, old);
    let daemon = site.daemon();
    site.rewrite(&Extra {
        database: "schedule = { full = \"0 0 1 1 *\", incr = \"99 * * * * *\" }\nretenton = { full = 1 }",
        ..Extra::default()
    });
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for("the policy file is rejected");

    let log = daemon.log();
    assert!(log.contains("backstop.toml:") && log.contains("retenton") && log.contains("did you mean"), "{log}");
    assert!(log.contains("99"), "all problems are told, not the first: {log}");
    let before = site.runs("incr").len();
    until_true("the old schedule goes on", || site.runs("incr").len() > before);
    let looked = site.run(&["status"]);
    assert!(looked.ok()["notices"].to_string().contains("policy file is broken"), "{looked:?}");

    site.rewrite(&Extra { database: old, ..Extra::default() });
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for("policy reloaded");
    daemon.stop();
}

#[test]
fn a_good_change_is_told_as_a_difference_and_takes_effect() {
    let lab = Lab::empty();
    let site = Site::new(&lab, r#"schedule = { full = "0 0 1 1 *", incr = "0 0 2 1 *" }"#);
    let daemon = site.daemon();
    site.rewrite(&Extra {
        database: r#"schedule = { full = "0 0 1 1 *", incr = "*/3 * * * * *" }"#,
        ..Extra::default()
    });
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for("policy reloaded");
    let log = daemon.log();
    let told = log
        .lines()
        .any(|line| line.contains("orders/incr") && line.contains("0 0 2 1 *") && line.contains("*/3 * * * * *"));
    assert!(told, "{log}");
    until_true("the new schedule runs", || !site.runs("incr").is_empty());
    daemon.stop();
}
