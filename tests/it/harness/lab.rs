//! A lab: a throw-away server with its stanza, by `scripts/lab.sh`, gone when the value is dropped.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Output},
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::Value;

use super::{command, must, until};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/lab.sh");

/// A server, its stanza `lab` and its repository in one directory.
pub(crate) struct Lab {
    dir: PathBuf,
}

impl Lab {
    /// The smallest: an empty cluster.
    pub(crate) fn empty() -> Self {
        Self::up(&["--size", "0"])
    }

    /// With `pgbench` data, some 15 MB.
    pub(crate) fn small() -> Self {
        Self::up(&["--size", "1"])
    }

    /// A full backup of it takes several seconds: much data that compresses badly, strong compression, one process.
    pub(crate) fn slow() -> Self {
        let lab = Self::up(&["--size", "0", "--process-max", "1", "--compress", "gz:9"]);
        lab.sql("create table filler as select n, md5(n::text) || md5((n * 7)::text) as noise from generate_series(1, 500000) n");
        lab
    }

    /// With options of `lab.sh up`.
    #[track_caller]
    pub(crate) fn up(options: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("backstop-it-{}-{number}", std::process::id()));
        // The value comes first, so that a lab that fails half way is taken down as well.
        let lab = Self { dir };
        must(command(SCRIPT).arg("up").arg(&lab.dir).args(options));
        lab
    }

    /// Its directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A path below its directory.
    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir.join(below)
    }

    /// The user and group that everything in it belongs to.
    pub(crate) fn owner(&self) -> (u32, u32) {
        let metadata = fs::metadata(self.path("pg")).unwrap();
        (metadata.uid(), metadata.gid())
    }

    /// Asks the server; columns are parted by `|`.
    #[track_caller]
    pub(crate) fn sql(&self, statement: &str) -> String {
        must(command(SCRIPT).arg("psql").arg(&self.dir).args(["-c", statement])).trim().to_owned()
    }

    /// Switches the segment and waits until PostgreSQL says that it is archived; gives its name.
    #[track_caller]
    pub(crate) fn switch_wal(&self) -> String {
        self.sql("create table if not exists tick (at timestamptz); insert into tick values (now())");
        let segment = self.sql("select pg_walfile_name(pg_switch_wal())");
        until(&format!("{segment} is archived"), || {
            let archived = self.sql("select coalesce(last_archived_wal, '') from pg_stat_archiver");
            (archived >= segment).then_some(())
        });
        segment
    }

    /// Runs `pgbackrest` by hand, as a person would.
    pub(crate) fn pgbackrest(&self, arguments: &[&str]) -> Output {
        command(SCRIPT).arg("pgbackrest").arg(&self.dir).args(arguments).output().unwrap()
    }

    /// Starts `pgbackrest` by hand in the background.
    pub(crate) fn start_pgbackrest(&self, arguments: &[&str]) -> Child {
        command(SCRIPT).arg("pgbackrest").arg(&self.dir).args(arguments).spawn().unwrap()
    }

    /// What pgBackRest says of the stanza.
    #[track_caller]
    pub(crate) fn info(&self) -> Value {
        let text = must(command(SCRIPT).arg("pgbackrest").arg(&self.dir).args(["info", "--output=json"]));
        serde_json::from_str::<Value>(&text).unwrap()[0].take()
    }

    /// The labels that pgBackRest lists, oldest first.
    #[track_caller]
    pub(crate) fn labels(&self) -> Vec<String> {
        let info = self.info();
        info["backup"].as_array().unwrap().iter().map(|backup| backup["label"].as_str().unwrap().to_owned()).collect()
    }

    /// Any command as the lab's owner.
    #[track_caller]
    pub(crate) fn run(&self, script: &str) -> String {
        must(command(SCRIPT).arg("as").arg(&self.dir).args(["bash", "-euo", "pipefail", "-c", script]))
    }

    /// Stops the server, at once.
    #[track_caller]
    pub(crate) fn stop_server(&self) {
        must(command(SCRIPT).arg("stop").arg(&self.dir));
    }

    /// Starts the server again.
    #[track_caller]
    pub(crate) fn start_server(&self) {
        must(command(SCRIPT).arg("start").arg(&self.dir));
    }

    /// Starts the server again under a clock that is off by so much, e.g. `-6d`, and can be set.
    #[track_caller]
    pub(crate) fn fake_clock(&self, offset: &str) {
        self.stop_server();
        self.set_clock(offset);
        self.run(
            "export LD_PRELOAD=$(echo /usr/lib/*/faketime/libfaketime.so.1) FAKETIME_TIMESTAMP_FILE=$PWD/clock
             export FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1 DONT_FAKE_MONOTONIC=1
             setsid pg_ctl -D pg -l log/faked.log -w -s start </dev/null >log/faked.out 2>&1",
        );
    }

    /// Sets the clock of a server that [`Lab::fake_clock`] started.
    #[track_caller]
    pub(crate) fn set_clock(&self, offset: &str) {
        self.run(&format!("echo {offset} >clock.new; mv clock.new clock"));
    }

    /// The archived segments in the repository by name, with the path of each.
    pub(crate) fn archive(&self) -> std::collections::BTreeMap<String, PathBuf> {
        let found = self.run("find repo/archive -type f -printf '%f %p\\n'");
        let lines = found.lines().filter_map(|line| line.split_once(' '));
        let is_segment = |name: &str| name.len() > 24 && name.as_bytes()[..24].iter().all(u8::is_ascii_hexdigit);
        lines
            .filter(|(name, _)| is_segment(name))
            .map(|(name, path)| (name[..24].to_owned(), self.path(path)))
            .collect()
    }

    /// The processes that name the lab in their arguments and hold `word` in them.
    pub(crate) fn processes(&self, word: &str) -> Vec<i32> {
        let ours = self.dir.to_string_lossy().into_owned();
        let pids =
            fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|pid| {
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
            arguments.contains(&ours) && arguments.contains(word)
        })
        .collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Nothing to do about a failure here; the next look at the temporary directory shows it.
        let _ = command(SCRIPT).arg("down").arg(&self.dir).status();
    }
}
