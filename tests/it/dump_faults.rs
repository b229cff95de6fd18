//! What goes wrong with dumps: what is seen of it, that nothing half-made is listed or lies anywhere, and that an earlier
//! good backup is as good as before.
//!
//! Each scenario has a lab; what it dumps is always called `orders`, so that a site can be asked. A storage of the lab is
//! a directory with the storage's name. A newcomer would look for the message alone; a fault is over when every storage
//! holds the files of listed backups and nothing else, which [`Faults::only`] looks at.

mod damage;
mod killed;
mod mount;
mod refused;
mod s3;
mod secrets;
mod space;
mod sqlite;

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use crate::harness::{Answer, Lab, MariaDb, S3, Site, sh, until};

/// A site whose database is dumped.
struct Faults<'a> {
    site: Site<'a>,
    lab: &'a Lab,
    s3: Option<&'a S3>,
    /// The storages that are directories of the lab.
    directories: Vec<&'a str>,
}

impl<'a> Faults<'a> {
    /// A site that dumps the lab's own database `postgres`; each storage is a directory, `far` is a bucket.
    fn postgres(lab: &'a Lab, storages: &[&'a str], s3: Option<&'a S3>, keys: &str) -> Self {
        let connection = format!("connection = \"{}\"\n", dsn(lab, "postgres"));
        Self::of(lab, storages, s3, &format!("engine = \"pg_dump\"\n{connection}{keys}"))
    }

    /// A site that dumps whatever `keys`, with the engine among them, say.
    fn of(lab: &'a Lab, storages: &[&'a str], s3: Option<&'a S3>, keys: &str) -> Self {
        let directories: Vec<&str> = storages.iter().copied().filter(|name| *name != "far").collect();
        for directory in &directories {
            lab.run(&format!("mkdir -m 700 {directory}"));
        }
        // A disk of its own: a test restore leaves a fifth of it free, and what is free on the machine's is not ours to say.
        mount(lab, "scratch", 800);
        let faults = Self { site: Site::new(lab, ""), lab, s3, directories };
        faults.policy(storages, "", keys);
        faults
    }

    /// Writes the policy anew; `sections` are keys of `[daemon]`, then any sections.
    fn policy(&self, storages: &[&str], sections: &str, keys: &str) {
        let dir = self.lab.dir().display();
        let mut text = format!("[daemon]\nstate_dir = \"{dir}/state\"\nscratch_dir = \"{dir}/scratch\"\n{sections}\n");
        for name in &self.directories {
            text += &format!("[storage.{name}]\ntype = \"filesystem\"\npath = \"{dir}/{name}\"\n");
        }
        if let Some(s3) = self.s3 {
            text += &s3.policy("far", "backups", "").replace("timeout = \"5s\"", "timeout = \"1s\"");
        }
        text += &format!(
            "[database.orders]\nenvironment = \"development\"\nretry = {{ attempts = 1 }}\nstorage = {storages:?}\n{keys}\n"
        );
        self.site.write(&text);
    }

    fn backup(&self) -> Answer {
        self.site.run(&["backup", "orders"])
    }

    /// Makes a backup that must become good; gives its id.
    #[track_caller]
    fn good(&self) -> String {
        self.backup().ok();
        self.site.backups()[0]["id"].as_str().unwrap().to_owned()
    }

    /// The state of the copies of a backup, by storage.
    #[track_caller]
    fn copies(&self, id: &str) -> String {
        self.site.catalog(&format!(
            "select group_concat(storage || ' ' || state, ', ') from (select * from copies where backup_id = '{id}' order by storage)"
        ))
    }

    #[track_caller]
    fn status(&self, id: &str) -> String {
        self.site.catalog(&format!("select status from backups where id = '{id}'"))
    }

    /// Where the file with the database lies within a storage.
    #[track_caller]
    fn data(&self, id: &str) -> String {
        self.site.catalog(&format!(
            "select directory || '/' || path from dumps d join artifacts a on a.backup_id = d.backup_id
              where d.backup_id = '{id}' and role = 'data'"
        ))
    }

    /// Exactly these backups are listed and counted in every storage, nothing else lies anywhere, no run is open, and each
    /// of the backups can be read to its last byte.
    #[track_caller]
    fn only(&self, ids: &[&String]) {
        let listed: BTreeSet<String> = self.site.backups().iter().map(|backup| text(backup, "id")).collect();
        let wanted: BTreeSet<String> = ids.iter().map(|id| (*id).clone()).collect();
        assert_eq!(listed, wanted, "what is listed");
        assert_eq!(self.site.catalog("select count(*) from runs where state = 'running'"), "0");
        for (storage, lying) in self.lying() {
            let held = |id: &str| self.copies(id).contains(&format!("{storage} good"));
            let wanted: BTreeSet<String> = ids.iter().filter(|id| held(id)).map(|id| (*id).clone()).collect();
            assert_eq!(backups_of(&lying), wanted, "what lies in {storage}: {lying:#?}");
            assert!(lying.iter().all(|path| !path.contains("/.")), "{lying:#?}");
        }
        if let Some(s3) = self.s3 {
            assert_eq!(s3.unfinished("backups"), 0);
        }
        assert_eq!(self.lab.run("find state/unfinished -type f 2>/dev/null || true"), "");
        assert_eq!(self.lab.run("ls -A scratch"), "");
        for id in ids {
            self.site.run(&["verify", id]).ok();
        }
    }

    /// Every file and every directory below the storages, those of uploads that did not end as well.
    fn lying(&self) -> Vec<(String, Vec<String>)> {
        let lines = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let found = |name: &&str| {
            let found = self
                .lab
                .run(&format!("find {name} -mindepth 1 ! -name .backstop-storage ! -name orders -printf '%P\\n'"));
            ((*name).to_owned(), lines(found))
        };
        let far = self.s3.map(|s3| {
            let keys = s3.keys("backups").into_iter();
            ("far".to_owned(), keys.map(|key| key.trim_start_matches("below/").to_owned()).collect())
        });
        self.directories.iter().map(found).chain(far).collect()
    }

    /// The states of all backups that were tried, oldest first.
    fn states(&self) -> Vec<String> {
        self.site.states("full")
    }
}

/// The second part of each path, `orders/ID/FILE`.
fn backups_of(lying: &[String]) -> BTreeSet<String> {
    lying.iter().map(|path| path.split('/').nth(1).unwrap_or(path).to_owned()).collect()
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("no `{key}` in {value:#}")).to_owned()
}

fn dsn(lab: &Lab, user: &str) -> String {
    format!("host={}/sock port=5432 user={user} dbname=postgres", lab.dir().display())
}

/// A server with a database `orders`, and the keys of a policy that dumps it. The password belongs to the lab's owner.
fn mariadb(lab: &Lab, rows: u32) -> (MariaDb, String) {
    let server = MariaDb::up();
    server.sql("create database orders");
    server.sql(&format!(
        "use orders; create table filler as select seq, concat(md5(seq), md5(seq * 7)) as noise from seq_1_to_{rows}"
    ));
    let (uid, gid) = lab.owner();
    let (from, to) = (server.path("password"), lab.path("mariadb.password"));
    sh(&format!("install -m 600 -o {uid} -g {gid} '{}' '{}'", from.display(), to.display()));
    let keys = format!(
        "engine = \"mysqldump\"\npassword = \"file:{}\"\nmysql = {{ socket = \"{}\", user = \"backup\" }}\n",
        to.display(),
        server.path("sock").display()
    );
    (server, keys)
}

/// Puts a file system of some megabytes over a new directory of the lab; `lab.sh down` takes it away.
fn mount(lab: &Lab, directory: &str, megabytes: u32) {
    let (uid, gid) = lab.owner();
    let path = lab.path(directory);
    sh(&format!(
        "mkdir -p '{0}'; mount -t tmpfs -o size={megabytes}m,uid={uid},gid={gid},mode=700 none '{0}'",
        path.display()
    ));
}

/// A tool of the lab that has written some megabytes and is not done; compression that takes its time holds it up.
fn in_the_middle(lab: &Lab, tool: &str) -> i32 {
    until(&format!("{tool} has written megabytes"), || {
        lab.processes(tool).into_iter().find(|pid| written(*pid).is_some_and(|bytes| bytes > 4 << 20))
    })
}

fn written(pid: i32) -> Option<u64> {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    io.lines().find_map(|line| line.strip_prefix("wchar: "))?.parse().ok()
}

/// The processes of Backstop itself that name the lab.
fn programs(lab: &Lab) -> Vec<i32> {
    let is_ours = |pid: &i32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with("backstop"));
    lab.processes("backstop.toml").into_iter().filter(is_ours).collect()
}
