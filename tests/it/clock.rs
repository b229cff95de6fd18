//! A clock that lies: nothing is deleted by it until a person has looked.

use crate::harness::{Lab, Site};

#[test]
fn a_clock_a_year_ahead_deletes_nothing_until_it_is_accepted() {
    let lab = Lab::empty();
    let site = Site::new(&lab, "retention = { days = 30 }");
    for _ in 0..2 {
        site.run(&["backup", "orders", "--type", "full"]).ok();
    }
    let labels = lab.labels();

    let told = site.run_at("+400d", &["expire", "orders", "--yes"]).fails(1);
    assert!(told.contains("nothing happened for 400d") && told.contains("catalog accept"), "{told}");
    assert_eq!(lab.labels(), labels, "the rule says 30 days, but that clock is not to be trusted");
    // The freeze outlives the wrong clock: somebody has to look.
    site.run(&["expire", "orders", "--dry-run"]).ok();
    site.rewrite(&crate::harness::Extra { database: "retention = { full = 1 }", ..Default::default() });
    site.run(&["expire", "orders", "--yes"]).fails(1);
    assert_eq!(lab.labels(), labels);

    site.run(&["catalog", "accept"]).ok();
    site.run(&["expire", "orders", "--yes"]).ok();
    assert_eq!(lab.labels(), labels[1..]);
}
