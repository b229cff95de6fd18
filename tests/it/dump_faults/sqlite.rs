//! A SQLite file that is missing, locked or corrupt.

use super::Faults;
use crate::harness::{Lab, until_true};

fn site(lab: &Lab) -> Faults<'_> {
    lab.run("mkdir app && sqlite3 app/orders.db \"create table t (id integer primary key, noise text); create index i on t (noise);
        with recursive n (x) as (select 1 union all select x + 1 from n where x < 20000) insert into t select x, hex(randomblob(20)) from n\"");
    let keys = format!(
        "engine = \"sqlite\"\nsqlite = {{ path = \"{}/app/orders.db\", busy_timeout = \"1s\" }}\n",
        lab.dir().display()
    );
    Faults::of(lab, &["near"], None, &keys)
}

#[test]
fn a_missing_file_is_neither_made_nor_backed_up() {
    let lab = Lab::empty();
    let faults = site(&lab);
    let good = faults.good();
    lab.run("mv app/orders.db app/away.db");
    let answer = faults.backup();
    let told = answer.fails(3);
    assert!(told.contains("orders.db"), "{told}");
    assert_eq!(lab.run("ls app").trim(), "away.db", "it is not made");
    faults.only(&[&good]);
    assert_eq!(faults.states(), ["succeeded", "failed"]);
}

#[test]
fn a_locked_file_is_waited_for_no_longer_than_the_policy_says() {
    let lab = Lab::empty();
    let faults = site(&lab);
    let good = faults.good();
    let told = std::thread::scope(|scope| {
        scope.spawn(|| {
            lab.run("{ echo 'begin exclusive;'; touch asked; until [ -e enough ]; do sleep 0.05; done; } | sqlite3 app/orders.db")
        });
        let is_locked = || lab.run("sqlite3 app/orders.db 'select count(*) from t' 2>&1 || true").contains("locked");
        until_true("it is locked", is_locked);
        let answer = faults.backup();
        lab.run("touch enough");
        answer.fails(6)
    });
    assert!(told.contains("locked"), "{told}");
    faults.only(&[&good]);
    faults.good();
}

#[test]
fn a_corrupt_file_pushes_no_good_backup_out() {
    let lab = Lab::empty();
    let faults = site(&lab);
    let good = faults.good();
    // An entry of the index that leads nowhere: every page can be read, and only the check sees it.
    lab.run(
        "sqlite3 app/orders.db \"pragma writable_schema = on; create table u as select * from t limit 0;
        update sqlite_master set rootpage = (select rootpage from sqlite_master where name = 'u') where name = 't'\"",
    );
    let told = faults.backup().fails(5);
    assert!(
        told.contains("integrity_check") || told.contains("missing from index") || told.contains("wrong # of entries"),
        "{told}"
    );
    faults.only(&[&good]);
    // Cut off, it is no database any more.
    lab.run("truncate -s 100000 app/orders.db");
    let answer = faults.backup();
    answer.fails(5);
    faults.only(&[&good]);
    assert_eq!(faults.states(), ["succeeded", "failed", "failed"]);
}
