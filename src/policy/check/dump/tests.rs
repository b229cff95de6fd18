//! What a dump may and must say, one claim a test.

use std::time::Duration;

use crate::{
    policy::{
        Database, OnShrink,
        check::{errors, parse, warnings},
    },
    record::{Compression, DumpFormat},
};

const NONE: [&str; 0] = [];
const RECIPIENT: &str = "age105hejphufj9qfw339hl9rwhd9x8qpu8wksfyqy4chfsr0w4qac7qfwjat8";
/// What a schedule should have.
const SCHEDULE: &str = "schedule = { full = \"@daily\", expire = \"@daily\", test_restore = \"@monthly\" }";
const ENCRYPTED: &str = "encryption = \"phrase\"";
const SHOP: &str = "engine = \"pg_dump\"\nconnection = \"service=shop\"";

/// A policy with two storages, two keys, and a database `shop` with these keys.
fn site(shop: &str) -> String {
    format!(
        "[storage.local]\ntype = \"filesystem\"\npath = \"/srv/backups\"\n\
         [storage.offsite]\ntype = \"s3\"\nbucket = \"acme\"\nobject_lock = \"governance\"\n\
         [encryption.team]\ntype = \"age\"\nrecipients = [\"{RECIPIENT}\"]\n\
         [encryption.phrase]\ntype = \"aes256\"\npassphrase = \"file:/etc/k\"\n\
         [database.other]\nengine = \"sqlite\"\nsqlite = {{ path = \"/srv/other.db\" }}\nstorage = [\"local\", \"offsite\"]\n{SCHEDULE}\n\
         [database.shop]\n{shop}\n"
    )
}

fn shop(keys: &str) -> Database {
    let policy = parse(&site(&format!("{SCHEDULE}\n{keys}"))).unwrap_or_else(|problems| panic!("{problems}"));
    policy.databases[&"shop".parse().unwrap()].clone()
}

fn told(keys: &str) -> Vec<String> {
    errors(&site(keys))
}

#[test]
fn a_dump_has_the_defaults_that_suit_its_engine() {
    let dump = shop(&format!("{SHOP}\nstorage = \"local\"")).dump;
    assert_eq!(
        (dump.storages.as_slice(), dump.encryption, dump.format),
        (&["local".to_owned()][..], None, DumpFormat::Custom)
    );
    assert_eq!((dump.compression, dump.jobs, dump.globals), (Compression::default(), 2, true));
    assert_eq!((dump.lock_timeout.as_secs(), dump.on_shrink), (300, OnShrink::Warn));
    assert_eq!(shop("engine = \"mysqldump\"\nstorage = \"local\"").dump.format, DumpFormat::Plain);
    let sqlite = shop("engine = \"sqlite\"\nsqlite = { path = \"/srv/s.db\" }\nstorage = \"local\"").dump;
    assert_eq!((sqlite.format, sqlite.sqlite.busy_timeout), (DumpFormat::File, Duration::from_secs(30)));
    assert_eq!(shop("").dump, crate::policy::Dump::default(), "pgbackrest has no dump");
}

#[test]
fn where_and_as_what_a_dump_goes_may_stand_in_the_defaults() {
    let defaults = "[defaults]\nengine = \"pg_dump\"\nstorage = [\"local\", \"offsite\"]\nencryption = \"phrase\"\n\
                    compression = \"gzip:9\"\ndump = { format = \"directory\", jobs = 4 }\n";
    let of = |keys: &str| {
        let text = format!("{defaults}{}", site(&format!("connection = \"service=shop\"\n{keys}")));
        let policy = parse(&text).unwrap_or_else(|problems| panic!("{problems}"));
        policy.databases[&"shop".parse().unwrap()].dump.clone()
    };
    let dump = of("");
    assert_eq!((dump.storages.len(), dump.encryption.as_deref()), (2, Some("phrase")));
    assert_eq!((dump.compression.to_string().as_str(), dump.format, dump.jobs), ("gzip:9", DumpFormat::Directory, 4));
    let own = of("storage = \"local\"\nencryption = \"none\"\ncompression = \"none\"\ndump = { globals = false }");
    assert_eq!((own.storages.len(), own.encryption, own.compression), (1, None, Compression::NONE));
    assert_eq!((own.format, own.jobs, own.globals), (DumpFormat::Custom, 2, false), "a table is taken whole");
}

#[test]
fn names_are_of_what_is_defined_and_stand_once() {
    for (keys, message) in [
        ("storage = \"lokal\"", "shop.storage: there is no storage `lokal` (did you mean `local`?)"),
        ("storage = [\"local\", \"s3\"]", "shop.storage[1]: there is no storage `s3` (Write a `[storage.s3]`.)"),
        ("storage = [\"local\", \"local\"]", "shop.storage[1]: `local` stands twice"),
        ("storage = []", "shop.storage: an empty list names nothing"),
        (
            "storage = \"local\"\nencryption = \"teem\"",
            "shop.encryption: there is no key `teem` (did you mean `team`?)",
        ),
        ("storage = \"local\"\ncompression = \"zstd:20\"", "`zstd:20` is no compression"),
    ] {
        let told = told(&format!("{SHOP}\n{keys}"));
        assert!(told[0].contains(message), "{keys}\n{told:#?}");
    }
    assert_eq!(told(&format!("{SHOP}\nstorage = [\"local\", 5]")).len(), 1, "it is not missing, only wrong");
}

#[test]
fn each_engine_needs_what_it_dumps_and_where_to() {
    for (keys, message) in [
        (SHOP, "database.shop: the engine `pg_dump` needs a `storage`"),
        ("engine = \"pg_dump\"\nstorage = \"local\"", "the engine `pg_dump` needs a `connection`"),
        ("engine = \"sqlite\"\nstorage = \"local\"", "the engine `sqlite` needs a `sqlite.path`"),
        ("engine = \"sqlite\"\nstorage = \"local\"\nsqlite = { path = \"wiki.db\" }", "must be an absolute path"),
    ] {
        let told = told(keys);
        assert!(told.len() == 1 && told[0].contains(message), "{keys}\n{told:#?}");
    }
    assert_eq!(told("engine = \"mysqldump\"\nstorage = \"local\""), NONE, "the client knows a socket");
    assert_eq!(told("engine = \"sqlite\"\nstorage = \"local\"\nsqlite = { path = 5 }").len(), 1);
}

#[test]
fn impossible_values_of_the_tables_are_refused() {
    for (keys, message) in [
        ("dump = { shrink_below = 1.5 }", "must be between 0 and 1"),
        ("dump = { jobs = 0 }", "must be at least 1"),
        ("dump = { format = \"tar\" }", "is not one of: plain, custom, directory"),
        ("dump = { lock_timeout = \"0s\" }", "must be longer than zero"),
        ("dump = { tool_dir = \"bin\" }", "must be an absolute path"),
        ("mysql = { port = 70000 }", "must be a whole number"),
        ("mysql = { port = 3306 }", "`port` needs a `host` beside it"),
        ("mysql = { host = \"db\", socket = \"/run/s\" }", "two ways to one server"),
        ("mysql = { host = \"db\", port = 0 }", "must be at least 1"),
        ("mysql = { host = \"mysql://db/x\" }", "is no host"),
        ("mysql = { databases = [] }", "an empty list names nothing"),
        ("mysql = { databases = [\"a\", \"a\"] }", "`a` stands twice"),
        ("mysql = { databases = [\" \"] }", "must not be empty"),
        ("mysql = { defaults_file = \"my.cnf\" }", "must be an absolute path"),
    ] {
        let told = told(&format!("engine = \"mysqldump\"\nstorage = \"local\"\n{keys}"));
        assert!(told.iter().any(|told| told.contains(message)), "{keys}\n{told:#?}");
    }
}

#[test]
fn a_password_has_no_place_beside_a_server_and_is_not_repeated() {
    for keys in [
        "mysql = { password = \"hunter2\" }",
        "mysql = { host = \"backup:hunter2@db\" }",
        "mysql = { host = \"mysql://backup:hunter2@db\" }",
        "mysql = { pasword = \"hunter2\" }",
    ] {
        let text = site(&format!("engine = \"mysqldump\"\nstorage = \"local\"\n{keys}"));
        let problems = parse(&text).expect_err(keys);
        for told in [problems.to_string(), serde_json::to_string(&problems).unwrap(), format!("{problems:?}")] {
            assert!(!told.contains("hunter2"), "{keys}\n{told}");
        }
    }
    let told = told("engine = \"mysqldump\"\nstorage = \"local\"\nmysql = { password = \"hunter2\" }");
    assert!(told[0].contains("unknown key `password`") && told[0].contains("`password = \"file:/path\"`"), "{told:#?}");
}

#[test]
fn a_test_restore_needs_a_secret_key_to_read_with() {
    let keys = |encryption: &str| format!("{SHOP}\nstorage = \"local\"\n{SCHEDULE}\nencryption = \"{encryption}\"");
    let missing = told(&keys("team"));
    assert!(missing.len() == 1 && missing[0].contains("no secret key for `team` is named"), "{missing:#?}");
    assert_eq!(told(&format!("{}\ntest_restore = {{ identity = \"/k\" }}", keys("team"))), NONE);
    assert_eq!(told(&keys("phrase")), NONE);
    assert_eq!(told(&keys("none")), NONE);
    let untested = format!("{SHOP}\nstorage = \"local\"\nencryption = \"team\"\nschedule = {{ full = \"@daily\" }}");
    assert_eq!(told(&untested), NONE, "who does not read needs no key");
    let in_key = site(&keys("team")).replace("recipients", "identity = \"/k\"\nrecipients");
    assert_eq!(errors(&in_key), NONE);
    assert_eq!(errors(&in_key.replace("\"/k\"", "5")).len(), 1, "it is not missing, only wrong");
}

#[test]
fn a_tier_is_kept_or_the_policy_is_refused() {
    let with = |tier: &str, keys: &str| errors(&site(&format!("{SHOP}\ntier = \"gold\"\n{keys}\n[tier.gold]\n{tier}")));
    let required = "encryption = \"required\"";
    let open = with(required, "storage = \"local\"");
    assert!(open[0].contains("database.shop: tier `gold` requires encryption"), "{open:#?}");
    let none = with(required, "storage = \"local\"\nencryption = \"none\"");
    assert!(none[0].contains("database.shop.encryption: tier `gold` requires encryption"), "{none:#?}");
    assert_eq!(with(required, "storage = \"local\"\nencryption = \"phrase\""), NONE);
    let few = with("min_copies = 2", "storage = \"local\"");
    assert!(few[0].contains("shop.tier: tier `gold` wants 2 copies, but there is a place for 1"), "{few:#?}");
    assert_eq!(with("min_copies = 2", "storage = [\"local\", \"offsite\"]"), NONE);
}

#[test]
fn an_rpo_is_compared_with_the_pause_between_two_dumps() {
    let with = |rpo: &str| {
        let text = site(&format!(
            "{SHOP}\nstorage = \"local\"\n{ENCRYPTED}\n{SCHEDULE}\ntier = \"gold\"\n[tier.gold]\nrpo = \"{rpo}\""
        ));
        warnings(&text)
    };
    let told = with("1h");
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].contains("schedule.full: up to 1day pass between two dumps, but tier `gold` has an rpo of 1h"));
    assert_eq!(with("25h"), NONE);
}

#[test]
fn a_lock_without_an_end_is_told() {
    let with = |retention: &str| {
        warnings(&site(&format!("{SHOP}\nstorage = [\"local\", \"offsite\"]\n{ENCRYPTED}\n{SCHEDULE}\n{retention}")))
    };
    let told = with("retention = { full = 7 }");
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].contains("shop.retention: storage `offsite` locks its objects, but no rule says until when"));
    assert_eq!(with("retention = { full = 7, days = 30 }"), NONE);
    assert_eq!(with(""), NONE, "the days of the environment hold");
}

#[test]
fn two_databases_over_one_file_are_unwise_and_over_one_storage_are_usual() {
    let keys =
        |path: &str| format!("engine = \"sqlite\"\nsqlite = {{ path = \"{path}\" }}\nstorage = \"local\"\n{SCHEDULE}");
    let told = warnings(&site(&keys("/srv/other.db")));
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].contains("database.shop.sqlite.path: is the file of database `other` already"));
    assert_eq!(warnings(&site(&keys("/srv/shop.db"))), NONE);
}

#[test]
fn a_credential_of_systemd_is_told_wherever_it_stands() {
    let text =
        site(&format!("{SHOP}\nstorage = \"local\"\n{ENCRYPTED}\n{SCHEDULE}")).replace("file:/etc/k", "credential:k");
    let told =
        warnings(&text.replace("object_lock", "access_key = \"credential:a\"\nsecret_key = \"env:S\"\nobject_lock"));
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(told.iter().all(|warning| warning.contains("changes only at a restart")));
}

#[test]
fn passwords_of_roles_in_plain_text_are_told() {
    let with = |keys: &str| warnings(&site(&format!("{SHOP}\nstorage = \"local\"\n{SCHEDULE}\n{keys}")));
    for keys in ["", "encryption = \"none\"", "dump = { format = \"plain\" }"] {
        let told = with(keys);
        assert_eq!(told.len(), 1, "{keys}\n{told:#?}");
        assert!(told[0].contains("database.shop: the password hashes of all roles of the cluster"), "{told:#?}");
    }
    assert_eq!(with(ENCRYPTED), NONE);
    assert_eq!(with("dump = { globals = false }"), NONE);
}
