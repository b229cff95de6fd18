//! The life of a dump, from its slot to its end, with the daemon and by hand.
//!
//! What each engine writes and how it is read is told elsewhere; here it is made, proven, held, exported, ended, and found
//! again when nothing but the storages is left. A newcomer would look into the catalog; what counts is what lies in the
//! storages and what the program says of it.

mod end;
mod proof;
mod rebuild;
mod schedule;
mod shrink;

use std::{fs, path::Path};

use serde_json::Value;

use crate::harness::{Extra, Lab, MariaDb, Site, sh};

const POSTGRES: &str = include_str!("../samples/awkward/postgres.sql");
const SQLITE: &str = include_str!("../samples/awkward/sqlite.sql");
const MARIADB: &str = include_str!("../samples/awkward/mariadb.sql");

/// The storages, directories of the lab.
const STORAGES: [&str; 2] = ["local", "offsite"];

/// A server of PostgreSQL with the database `shop`, a SQLite file and two empty storages.
fn lab() -> Lab {
    let lab = Lab::empty();
    lab.run("mkdir -m 700 local offsite; (umask 077; echo 'a passphrase of the test' > passphrase)");
    lab.sql("create database shop");
    load(&lab, "psql -X -q -v ON_ERROR_STOP=1 -d shop > /dev/null", POSTGRES);
    load(&lab, "sqlite3 -bail wiki.db > /dev/null", SQLITE);
    lab
}

/// Gives a text to a command of the lab's owner.
fn load(lab: &Lab, command: &str, text: &str) {
    fs::write(lab.path("load.sql"), text).unwrap();
    lab.run(&format!("{command} < load.sql"));
}

/// A server of MariaDB with the database `stock`, whose password the lab's owner may read.
fn mariadb(lab: &Lab) -> MariaDb {
    let server = MariaDb::up();
    server.sql("create database stock character set utf8mb4");
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/mariadb");
    let dir = server.path("");
    let dir = dir.display();
    fs::write(lab.path("load.sql"), MARIADB).unwrap();
    sh(&format!("{program} sql {dir} stock < {} > /dev/null", lab.path("load.sql").display()));
    let (uid, gid) = lab.owner();
    let password = lab.path("password");
    sh(&format!("install -m 600 -o {uid} -g {gid} {dir}/password {}", password.display()));
    server
}

/// A site whose databases are these sections, after two storages and a key.
fn site<'a>(lab: &'a Lab, databases: &str) -> Site<'a> {
    let site = Site::with(lab, &Extra::default());
    write(&site, &STORAGES, "", databases);
    site
}

/// Writes the policy anew.
fn write(site: &Site<'_>, storages: &[&str], daemon: &str, databases: &str) {
    let dir = site.lab.dir().display();
    let storages: String = storages
        .iter()
        .map(|name| format!("[storage.{name}]\ntype = \"filesystem\"\npath = \"{dir}/{name}\"\n"))
        .collect();
    site.write(&format!(
        r#"[daemon]
state_dir = "{dir}/state"
{daemon}
[defaults]
environment = "production"
storage = ["local", "offsite"]
retry = {{ attempts = 1 }}
{storages}
[encryption.phrase]
type = "aes256"
passphrase = "file:{dir}/passphrase"
{databases}"#
    ));
}

/// The sections of a database of each engine.
fn portal(lab: &Lab, more: &str) -> String {
    let dir = lab.dir().display();
    format!(
        "[database.portal]\nengine = \"pg_dump\"\nconnection = \"host={dir}/sock user=postgres dbname=shop\"\n{more}\n"
    )
}

fn wiki(lab: &Lab, more: &str) -> String {
    format!("[database.wiki]\nengine = \"sqlite\"\nsqlite = {{ path = \"{}/wiki.db\" }}\n{more}\n", lab.dir().display())
}

fn stock(lab: &Lab, server: &MariaDb, more: &str) -> String {
    let (socket, dir) = (server.path("sock"), lab.dir().display());
    format!(
        "[database.stock]\nengine = \"mysqldump\"\nmysql = {{ socket = \"{}\", user = \"backup\" }}\n\
         password = \"file:{dir}/password\"\n{more}\n",
        socket.display()
    )
}

/// The states of the runs of a database and kind, oldest first.
fn states(site: &Site<'_>, database: &str, kind: &str) -> Vec<String> {
    let answer = site.run(&["history", database, "--kind", kind, "--limit", "1000"]);
    let runs = answer.ok()["runs"].as_array().unwrap();
    runs.iter().rev().map(|run| run["state"].as_str().unwrap().to_owned()).collect()
}

/// The backups that `list` tells, newest first.
fn list(site: &Site<'_>, database: &str) -> Vec<Value> {
    site.run(&["list", database, "--expired"]).ok()["backups"].as_array().unwrap().clone()
}

/// Makes a backup and gives its id.
#[track_caller]
fn backup(site: &Site<'_>, database: &str, more: &[&str]) -> String {
    site.run(&[&["backup", database][..], more].concat()).ok();
    let newest = &list(site, database)[0];
    assert_eq!(newest["status"], "good", "{newest:#}");
    newest["id"].as_str().unwrap().to_owned()
}

fn status(site: &Site<'_>, database: &str) -> Value {
    site.run(&["status", database]).ok()["databases"][0].clone()
}

/// Every file below a directory of the lab but the storage's own mark, by its path within, sorted.
fn files(lab: &Lab, below: &str) -> Vec<String> {
    let found = lab.run(&format!("cd {below} && find . -type f ! -name .backstop-storage -printf '%P\\n' | sort"));
    found.lines().map(str::to_owned).collect()
}

/// Neither a file nor a directory of any backup is in a storage but these.
#[track_caller]
fn only(lab: &Lab, storage: &str, directories: &[&str]) {
    let found = lab.run(&format!("cd {storage} && find . -mindepth 2 -maxdepth 2 -printf '%f\\n' | sort"));
    let mut wanted = directories.to_vec();
    wanted.sort_unstable();
    assert_eq!(found.lines().collect::<Vec<_>>(), wanted, "in {storage}");
}

/// No process works for the site and nothing lies in the scratch directory.
#[track_caller]
fn nothing_is_left(site: &Site<'_>) {
    let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().map(|entry| entry.unwrap().path());
    assert_eq!(entries(&site.state.join("scratch")).collect::<Vec<_>>(), Vec::<std::path::PathBuf>::new());
    for word in ["scratch", "pg_dump", "mysqldump", "mariadb-dump", "sqlite3"] {
        assert_eq!(site.lab.processes(word), Vec::<i32>::new(), "{word}");
    }
}
