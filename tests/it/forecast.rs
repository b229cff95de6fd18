//! The forecast as a user asks for it: of what is really there, without changing anything.

use crate::harness::{Lab, Site};

#[test]
fn the_forecast_begins_with_what_is_there_and_changes_nothing() {
    let lab = Lab::small();
    let schedule = "schedule = { full = \"0 3 * * *\", incr = \"0 12 * * *\", expire = \"0 4 * * *\" }";
    let site = Site::new(&lab, &format!("{schedule}\nretention = {{ full = 2 }}"));
    for kind in ["full", "incr"] {
        site.run(&["backup", "orders", "--type", kind]).ok();
    }
    let (labels, before) = (lab.labels(), site.catalog("select count(*), max(id) from runs"));

    let answer = site.run(&["forecast", "orders", "--days", "4"]);
    let forecast = &answer.ok()["forecasts"][0];
    let days = forecast["days"].as_array().unwrap();
    assert_eq!(days.len(), 5, "today and four more");
    assert!(days[1..].iter().all(|day| day["made"] == 2), "{days:#?}");
    assert!(days[4]["stored_bytes"].as_u64() > Some(0), "{days:#?}");
    let gone = forecast["deletions"].as_array().unwrap();
    // Whether more are made on the first full depends on the hour of the day.
    let there: Vec<&str> =
        gone.iter().filter(|it| it["exists"] == true).map(|it| it["label"].as_str().unwrap()).collect();
    assert_eq!(there, [labels[1].as_str(), labels[0].as_str()], "the incr before its full");
    assert!(gone.iter().any(|it| it["exists"] == false), "{gone:#?}");
    assert!(gone[0]["reason"].as_str().unwrap().starts_with("expires: lived as long as"), "{gone:#?}");

    let (code, text, _) = site.say(&["forecast", "--days", "30"]);
    assert_eq!(code, 0);
    assert!(text.contains("orders repo 1\nWEEK FROM") && text.contains(&labels[0]), "{text}");
    site.run(&["forecast", "--at", "2020-01-01T00:00:00Z"]).fails(64);
    site.run(&["forecast", "nothing"]).fails(1);
    assert_eq!((lab.labels(), site.catalog("select count(*), max(id) from runs")), (labels, before));
}
