//! Planted secrets are looked for in argument lists, answers, logs, the catalog, the state directory and the manifests.
//!
//! A word that is no secret is planted beside them, and must be found in each of those places: a search that finds
//! nothing proves nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use super::{Faults, dsn, mariadb};
use crate::harness::{Lab, S3, Site};

const PASSPHRASE: &str = "pass=phrase/of+the dumps";
const PASSWORD: &str = "s3cr3t+of/the=server";
const FOUND: &str = "planted-where-it-may-be";

/// What must be nowhere: as it is, percent-encoded, and in base64.
struct Secrets(Vec<(&'static str, Vec<u8>)>);

impl Secrets {
    fn of(lab: &Lab) -> Self {
        let read = |name: &str| fs::read_to_string(lab.path(name)).unwrap();
        let identity = read("age.key").lines().find(|line| line.starts_with("AGE-SECRET-KEY-")).unwrap().to_owned();
        let mut plain = vec![
            ("passphrase", PASSPHRASE.to_owned()),
            ("password", PASSWORD.to_owned()),
            ("access key", "access-of-the-test".to_owned()),
            ("secret key", "secret-of-the-test".to_owned()),
            ("identity", identity),
        ];
        if lab.path("mariadb.password").exists() {
            plain.push(("MariaDB's password", read("mariadb.password").trim_end_matches('\n').to_owned()));
        }
        let forms = plain.into_iter().flat_map(|(name, secret)| {
            let encoded: String = secret.bytes().map(percent).collect();
            let json = serde_json::to_string(&secret).unwrap();
            let base64 = lab.run(&format!("base64 -w0 <<'END' | tr -d '=' | sed 's/..$//'\n{secret}\nEND"));
            let forms: BTreeSet<String> =
                [secret, encoded, json.trim_matches('"').to_owned(), base64.trim().to_owned()].into();
            forms.into_iter().map(move |form| (name, form.into_bytes()))
        });
        Self(forms.collect())
    }

    #[track_caller]
    fn absent(&self, place: &str, bytes: &[u8]) {
        for (name, form) in &self.0 {
            assert!(!has(bytes, form), "the {name} is in {place}: {}", String::from_utf8_lossy(form));
        }
    }
}

fn percent(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
        char::from(byte).into()
    } else {
        format!("%{byte:02X}")
    }
}

fn has(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

/// The arguments of every process of the program and its children, again and again until the work ends.
fn sampled<T: Send>(lab: &Lab, seen: &mut BTreeSet<Vec<u8>>, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let work = scope.spawn(work);
        while !work.is_finished() {
            seen.extend(family(lab).into_iter().filter_map(|pid| fs::read(format!("/proc/{pid}/cmdline")).ok()));
        }
        work.join().unwrap()
    })
}

/// What names the lab, and what came from it.
fn family(lab: &Lab) -> BTreeSet<i32> {
    let mut family: BTreeSet<i32> = lab.processes("").into_iter().collect();
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    // Children come after their parents, except when the numbers begin anew; then it is seen the next time.
    let parents: BTreeMap<i32, i32> = pids.filter_map(|pid| Some((pid, parent(pid)?))).collect();
    for (pid, parent) in parents {
        if family.contains(&parent) {
            family.insert(pid);
        }
    }
    family
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Backup, verification, test restore and deletion with both encryptions, to a directory and a bucket.
fn rounds(faults: &Faults<'_>, s3: &S3, engine: &str, tools: &[&str]) {
    let (lab, site) = (faults.lab, &faults.site);
    let secrets = Secrets::of(lab);
    let dir = lab.dir().display();
    let recipient = lab.run("age-keygen -y age.key");
    let sections = format!(
        "[encryption.team]\ntype = \"age\"\nrecipients = [\"{}\"]\nidentity = \"{dir}/age.key\"\n[encryption.phrase]\ntype = \"aes256\"\npassphrase = \"file:{dir}/passphrase\"\n",
        recipient.trim()
    );
    let (mut seen, mut manifests) = (BTreeSet::new(), 0);
    for encryption in ["team", "phrase"] {
        faults.policy(&["near", "far"], &sections, &format!("{engine}encryption = \"{encryption}\"\n"));
        let daemon = site.daemon();
        let mut answers = Vec::new();
        let mut run = |arguments: &[&str]| {
            let answer = sampled(lab, &mut seen, || site.run(arguments));
            answer.ok();
            answers.push(format!("{answer:?}"));
        };
        run(&["backup", "orders", "--tag", FOUND]);
        let id = super::text(&site.backups()[0], "id");
        run(&["backup", "orders"]);
        run(&["verify", "orders"]);
        run(&["test-restore", "orders"]);
        run(&["show", &id]);
        run(&["check"]);
        manifests += look_into_manifests(faults, s3, &id, &secrets);
        run(&["delete", &id, "--reason", "over"]);
        assert!(answers.iter().any(|answer| answer.contains(FOUND)), "the search finds what is there");
        answers.iter().for_each(|answer| secrets.absent("an answer", answer.as_bytes()));
        secrets.absent("the log", daemon.log().as_bytes());
        daemon.stop();
    }
    assert_eq!(manifests, 4);
    assert!(seen.iter().any(|arguments| has(arguments, FOUND.as_bytes())), "the search finds what is there");
    for tool in tools {
        assert!(seen.iter().any(|arguments| has(arguments, tool.as_bytes())), "{tool} was not sampled");
    }
    seen.iter().for_each(|arguments| secrets.absent("an argument list", arguments));
    look_into_state(site, &secrets);
}

fn look_into_manifests(faults: &Faults<'_>, s3: &S3, id: &str, secrets: &Secrets) -> usize {
    let path = format!("orders/{id}/manifest.json");
    let fetched = faults.lab.path("fetched.json");
    s3.get("backups", &format!("below/{path}"), &fetched);
    let both = [faults.lab.path("near").join(path), fetched];
    for manifest in &both {
        let bytes = fs::read(manifest).unwrap();
        assert!(has(&bytes, FOUND.as_bytes()), "the search finds what is there");
        secrets.absent("a manifest", &bytes);
    }
    both.len()
}

/// The catalog, the logs of runs, and whatever else there is.
fn look_into_state(site: &Site<'_>, secrets: &Secrets) {
    let mut found = 0;
    for (path, _, _) in site.files() {
        let bytes = fs::read(&path).unwrap_or_default();
        found += usize::from(has(&bytes, FOUND.as_bytes()));
        secrets.absent(&path.display().to_string(), &bytes);
    }
    assert!(found > 0, "the search finds what is there");
}

fn plant(lab: &Lab) {
    lab.run(&format!("umask 077; age-keygen -o age.key 2>/dev/null; printf '%s\\n' '{PASSPHRASE}' > passphrase; printf '%s\\n' '{PASSWORD}' > password"));
}

#[test]
fn no_secret_of_a_postgresql_dump_is_anywhere() {
    let (lab, s3) = (Lab::empty(), S3::up());
    plant(&lab);
    lab.sql(&format!("create role app login superuser password '{PASSWORD}'"));
    lab.run("sed -i '1i local all app scram-sha-256' pg/pg_hba.conf && pg_ctl -s -D pg reload");
    let engine = format!(
        "engine = \"pg_dump\"\nconnection = \"{}\"\npassword = \"file:{}/password\"\ndump = {{ format = \"directory\" }}\n",
        dsn(&lab, "app"),
        lab.dir().display()
    );
    let faults = Faults::of(&lab, &["near", "far"], Some(&s3), &engine);
    rounds(&faults, &s3, &engine, &["pg_dump", "pg_dumpall", "psql", "pg_restore"]);
}

#[test]
fn no_secret_of_a_mariadb_dump_is_anywhere() {
    let (lab, s3) = (Lab::empty(), S3::up());
    plant(&lab);
    let (_server, engine) = mariadb(&lab, 1000);
    let faults = Faults::of(&lab, &["near", "far"], Some(&s3), &engine);
    rounds(&faults, &s3, &engine, &["mariadb-dump", "mariadbd"]);
}

#[test]
fn no_secret_of_a_sqlite_dump_is_anywhere() {
    let (lab, s3) = (Lab::empty(), S3::up());
    plant(&lab);
    lab.run("mkdir app && sqlite3 app/orders.db 'create table t (x); insert into t values (1)'");
    let engine = format!("engine = \"sqlite\"\nsqlite = {{ path = \"{}/app/orders.db\" }}\n", lab.dir().display());
    let faults = Faults::of(&lab, &["near", "far"], Some(&s3), &engine);
    rounds(&faults, &s3, &engine, &["sqlite3"]);
}
