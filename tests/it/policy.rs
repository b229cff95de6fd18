//! `check`: ten different mistakes give ten messages in one go; the shipped examples load.

use crate::harness::{Lab, Site};

const TEN_MISTAKES: &str = r#"
[daemon]
timezone = "Europe/Berlim"
state_dir = 7
max_parallel = 0

[database.orders]
engine = "pgbackrst"
stanza = "lab"
tier = "critcal"
retenton = { full = 4 }
connection = "postgresql://backup:hunter2@db/orders"

[database.orders.schedule]
full = "61 2 * * SUN"
wal = { cron = "*/5 * * * *", not_after = "25:00" }

[database.orders.wal]
max_lag = "5 parsecs"

[tier.critical]
success_rate = 7.5
"#;

#[test]
fn ten_mistakes_give_ten_messages_each_with_its_place() {
    let lab = Lab::empty();
    let site = Site::new(&lab, "");
    site.write(TEN_MISTAKES);
    let (code, stdout, stderr) = site.say(&["check"]);
    let told = format!("{stdout}{stderr}");
    assert_eq!(code, 1, "{told}");
    for word in [
        "Europe/Berlim",
        "state_dir",
        "max_parallel",
        "pgbackrst",
        "critcal",
        "retenton",
        "password",
        "61",
        "25:00",
        "5 parsecs",
        "success_rate",
    ] {
        assert!(told.contains(word), "`{word}` is not told:\n{told}");
    }
    for line in [3, 4, 5, 8, 10, 11, 12, 15, 16, 19, 22] {
        assert!(told.contains(&format!("backstop.toml:{line}:")), "nothing is told of line {line}:\n{told}");
    }
    assert!(!told.contains("hunter2"), "a secret is shown:\n{told}");
}

#[test]
fn a_good_policy_is_good_news_and_probing_asks_the_real_things() {
    let lab = Lab::empty();
    let site = Site::new(&lab, r#"schedule = { full = "0 2 * * SUN", test_restore = "0 4 1 * *" }"#);
    site.run(&["check"]).ok();
    site.run(&["check", "--probe"]).ok();
    lab.stop_server();
    site.run(&["check"]).ok();
    let probed = site.run(&["check", "--probe"]);
    assert_ne!(probed.code, 0, "{probed:#?}");
}

#[test]
fn the_schema_is_a_json_schema_that_knows_every_section() {
    let lab = Lab::empty();
    let (code, stdout, _) = Site::new(&lab, "").say(&["schema"]);
    let schema: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(code, 0);
    for section in ["daemon", "defaults", "environment", "tier", "storage", "encryption", "database", "schedule"] {
        assert!(schema["properties"][section].is_object(), "{section}");
    }
}
