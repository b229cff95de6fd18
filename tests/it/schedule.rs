//! The daemon's slots: each runs once, in its second, across a restart too.

use crate::harness::{Lab, Site, until_true};

const EVERY_THREE_SECONDS: &str = r#"schedule = { full = "0 0 1 1 *", incr = "*/3 * * * * *" }"#;

#[test]
fn slots_run_in_their_seconds_and_each_once() {
    let lab = Lab::empty();
    let site = Site::new(&lab, EVERY_THREE_SECONDS);
    site.run(&["backup", "orders", "--type", "full"]).ok();
    let daemon = site.daemon();
    until_true("three runs are over", || site.states("incr").iter().filter(|state| *state == "succeeded").count() >= 3);
    daemon.stop();

    let nominal = site.numbers("select nominal_at from slots order by 1");
    assert!(nominal.iter().all(|at| at % 3000 == 0), "{nominal:?}");
    assert_eq!(site.catalog("select count(*) from slots where state in ('due', 'claimed')"), "0");
    assert_eq!(most_runs_of_a_slot(&site), "1");
    let late = site.numbers("select max(claimed_at - nominal_at) from slots");
    assert!(late[0] < 3000, "a slot was claimed {} ms late", late[0]);
}

#[test]
fn a_restart_neither_repeats_nor_drops_a_slot() {
    let lab = Lab::empty();
    let site = Site::new(&lab, EVERY_THREE_SECONDS);
    site.run(&["backup", "orders", "--type", "full"]).ok();
    for wanted in [1, 3, 5] {
        let daemon = site.daemon();
        until_true("some more runs are over", || site.states("incr").len() >= wanted);
        daemon.stop();
    }

    assert_eq!(most_runs_of_a_slot(&site), "1");
    // Each instant between the first and the last is a slot of its own or counted as missed by the one that made up for it.
    let span = site.numbers("select (max(nominal_at) - min(nominal_at)) / 3000 + 1 from slots")[0];
    let accounted = site.numbers("select sum(1 + missed_count) from slots where state <> 'coalesced'")[0];
    assert_eq!(
        accounted,
        span,
        "{}",
        site.catalog("select nominal_at, state, missed_count, reason from slots order by 1")
    );
}

fn most_runs_of_a_slot(site: &Site<'_>) -> String {
    site.catalog("select max(n) from (select count(*) n from runs where slot_id is not null group by slot_id)")
}
