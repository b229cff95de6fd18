//! What a throw-away server is told: a configuration of ours, and nothing of what was restored.
//!
//! A restored configuration may name production's data directory, its stanza, its replication peers, programs to run
//! at the end of recovery. A newcomer would override the dangerous settings one by one; there is always one more.

use std::{fmt::Write as _, fs, os::unix::fs::OpenOptionsExt, path::Path};

use super::{Layout, PORT, SandboxError};

/// Settings of which a recovery needs at least as much as production had.
pub const FLOORS: [(&str, &str); 5] = [
    ("max_connections", "max_connections setting"),
    ("max_worker_processes", "max_worker_processes setting"),
    ("max_wal_senders", "max_wal_senders setting"),
    ("max_prepared_transactions", "max_prepared_xacts setting"),
    ("max_locks_per_transaction", "max_locks_per_xact setting"),
];

/// What the control file of a restored cluster says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Its identity.
    pub system_id: String,
    /// Bytes of a WAL segment.
    pub segment_size: u64,
    /// Whether its pages have checksums.
    pub has_checksums: bool,
    /// The least that settings of [`FLOORS`] must be.
    pub floors: Vec<(&'static str, u64)>,
}

impl Cluster {
    /// Reads the output of `pg_controldata`.
    ///
    /// # Errors
    /// When a line is missing.
    pub fn read(output: &str) -> Result<Cluster, SandboxError> {
        let text = |name: &'static str| {
            let value = output.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.map(str::trim).ok_or(SandboxError::NoCluster(name))
        };
        let number = |name: &'static str| text(name)?.parse::<u64>().map_err(|_| SandboxError::NoCluster(name));
        let floors = FLOORS.iter().map(|(setting, line)| Ok((*setting, number(line)?)));
        Ok(Cluster {
            system_id: text("Database system identifier")?.to_owned(),
            segment_size: number("Bytes per WAL segment")?,
            has_checksums: number("Data page checksum version")? > 0,
            floors: floors.collect::<Result<_, SandboxError>>()?,
        })
    }

    /// Raises a floor, because production raised the setting after the backup.
    pub fn raise(&mut self, setting: &str, value: u64) {
        if let Some((_, floor)) = self.floors.iter_mut().find(|(name, _)| *name == setting) {
            *floor = value.max(*floor);
        }
    }
}

/// How far to recover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The timeline to follow; never left to PostgreSQL, which would take the newest in the archive, even a foreign one.
    pub timeline: u32,
    /// The restore point to stop at; none: the end of the WAL.
    pub restore_point: Option<String>,
}

/// What a throw-away server begins with.
#[derive(Debug, Clone, Copy)]
pub enum Start<'a> {
    /// The files of a backup; it recovers first.
    Recovery {
        /// What their control file says.
        cluster: &'a Cluster,
        /// How far to recover.
        target: &'a Target,
    },
    /// A new cluster; a dump will be loaded into it.
    Fresh,
}

/// Writes the configuration and takes what was restored of one out of the way.
///
/// # Errors
/// When a file cannot be written.
pub fn write_configuration(layout: &Layout, start: Start<'_>) -> Result<(), SandboxError> {
    let (data, conf) = (layout.data(), layout.conf());
    let version = data.join("PG_VERSION");
    let failed = |source| SandboxError::Io { path: version.clone(), source };
    let version = fs::read_to_string(&version).map_err(failed)?;
    let major = version.trim().split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
    write(&conf.join("postgresql.conf"), &server_settings(layout, start, major))?;
    write(&conf.join("pg_hba.conf"), "local all all trust\n")?;
    write(&conf.join("pg_ident.conf"), "")?;
    // PostgreSQL reads this one beside any configuration file, so an empty one must take its place.
    write(&data.join("postgresql.auto.conf"), "")?;
    match start {
        Start::Recovery { .. } => write(&data.join("recovery.signal"), "")?,
        Start::Fresh => remove(&data.join("recovery.signal"))?,
    }
    remove(&data.join("standby.signal"))
}

fn server_settings(layout: &Layout, start: Start<'_>, major: u32) -> String {
    let conf = layout.conf();
    let mut text = String::from("# Made for one test restore; production's configuration is not used.\n");
    let mut set =
        |name: &str, value: &str| writeln!(text, "{name} = '{}'", escaped(value)).expect("a string takes all");
    set("data_directory", &layout.data().to_string_lossy());
    set("hba_file", &conf.join("pg_hba.conf").to_string_lossy());
    set("ident_file", &conf.join("pg_ident.conf").to_string_lossy());
    set("unix_socket_directories", &quoted_in_list(&layout.sockets()));
    set("port", &PORT.to_string());
    if let Start::Recovery { target, .. } = start {
        set("restore_command", &restore_command(&layout.wal()));
        set("recovery_target_timeline", &target.timeline.to_string());
        if let Some(name) = &target.restore_point {
            set("recovery_target_name", name);
        }
        RECOVERY.iter().for_each(|(name, value)| set(name, value));
    }
    FIXED.iter().for_each(|(name, value)| set(name, value));
    match start {
        Start::Recovery { cluster, .. } => {
            cluster.floors.iter().for_each(|(name, value)| set(name, &value.to_string()))
        }
        Start::Fresh => FRESH.iter().for_each(|(name, value)| set(name, value)),
    }
    if major >= 17 {
        set("event_triggers", "off");
    }
    text
}

/// No standby, no looking in from outside before recovery ends, and then a server that can be written to.
const RECOVERY: &[(&str, &str)] = &[
    ("hot_standby", "off"),
    ("recovery_target_action", "promote"),
    ("recovery_end_command", ""),
    ("archive_cleanup_command", ""),
    ("primary_conninfo", ""),
    ("primary_slot_name", ""),
    ("wal_level", "replica"),
];

/// A dump is loaded once, by nobody else, and as fast as can be: what a table gets in the transaction that makes it
/// writes no WAL.
const FRESH: &[(&str, &str)] = &[
    ("wal_level", "minimal"),
    ("max_wal_senders", "0"),
    ("maintenance_work_mem", "256MB"),
    // As many as `pg_restore --jobs` asks for, and the checks.
    ("max_connections", "200"),
    ("max_locks_per_transaction", "1024"),
];

/// What is the same for every throw-away server. An empty value switches off what production may have set.
const FIXED: &[(&str, &str)] = &[
    // Nothing leaves: no archiving, no network, nobody to wait for, no foreign code, no background work.
    ("archive_mode", "off"),
    ("archive_command", ""),
    ("listen_addresses", ""),
    ("ssl", "off"),
    ("synchronous_standby_names", ""),
    ("max_logical_replication_workers", "0"),
    ("shared_preload_libraries", ""),
    ("session_preload_libraries", ""),
    ("local_preload_libraries", ""),
    ("autovacuum", "off"),
    ("jit", "off"),
    // It lives for minutes and is thrown away: nothing has to survive a power cut.
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("synchronous_commit", "off"),
    ("checkpoint_timeout", "1h"),
    ("max_wal_size", "1GB"),
    ("restart_after_crash", "off"),
    // It fits beside production.
    ("huge_pages", "off"),
    ("shared_buffers", "128MB"),
    ("unix_socket_permissions", "0700"),
    // What it says goes to standard error, in words that we know.
    ("logging_collector", "off"),
    ("log_destination", "stderr"),
    ("log_line_prefix", ""),
    ("log_min_messages", "warning"),
    // A statement may hold a password or a row.
    ("log_min_error_statement", "panic"),
    ("log_checkpoints", "off"),
    ("lc_messages", "C"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("default_tablespace", ""),
    ("temp_tablespaces", ""),
];

/// A copy out of the fetched WAL, so that a restart of the recovery finds it again.
fn restore_command(wal: &Path) -> String {
    let directory = wal.to_string_lossy().replace('%', "%%").replace('\'', r"'\''");
    format!(r#"cp '{directory}/%f' "%p""#)
}

/// A value inside the quotes of the configuration file.
fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('\'', "''").replace('\n', r"\n")
}

/// An element of a list of directories.
fn quoted_in_list(path: &Path) -> String {
    format!("\"{}\"", path.to_string_lossy().replace('"', "\"\""))
}

fn write(path: &Path, text: &str) -> Result<(), SandboxError> {
    let failed = |source| SandboxError::Io { path: path.to_owned(), source };
    // A file made anew, not one that is written through: what was restored may be a link to somewhere else.
    remove(path)?;
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    std::io::Write::write_all(&mut file, text.as_bytes()).map_err(failed)
}

fn remove(path: &Path) -> Result<(), SandboxError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(SandboxError::Io { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTROLDATA: &str = "pg_control version number:            1300
Database system identifier:           7710298327142996763
Database cluster state:               in production
max_connections setting:              100
max_worker_processes setting:         8
max_wal_senders setting:              10
max_prepared_xacts setting:           0
max_locks_per_xact setting:           64
track_commit_timestamp setting:       off
Bytes per WAL segment:                16777216
Data page checksum version:           1
";

    fn layout() -> Layout {
        Layout::new("/scratch/tr-0a1b2c3d").unwrap()
    }

    fn recovery<'a>(cluster: &'a Cluster, target: &'a Target) -> Start<'a> {
        Start::Recovery { cluster, target }
    }

    #[test]
    fn the_control_file_is_read_and_a_floor_can_only_rise() {
        let mut cluster = Cluster::read(CONTROLDATA).unwrap();
        assert_eq!((cluster.system_id.as_str(), cluster.segment_size), ("7710298327142996763", 16 << 20));
        assert!(cluster.has_checksums);
        cluster.raise("max_connections", 50);
        cluster.raise("max_prepared_transactions", 5);
        cluster.raise("work_mem", 5);
        assert_eq!(cluster.floors[0], ("max_connections", 100));
        assert_eq!(cluster.floors[3], ("max_prepared_transactions", 5));
        let error = Cluster::read("").unwrap_err().to_string();
        assert_eq!(error, "`pg_controldata` did not tell `Database system identifier`");
    }

    #[test]
    fn the_server_is_told_everything_that_could_reach_out() {
        let cluster = Cluster::read(CONTROLDATA).unwrap();
        let target = Target { timeline: 3, restore_point: Some("backstop_0a1b2c3d_7".into()) };
        insta::assert_snapshot!(server_settings(&layout(), recovery(&cluster, &target), 15), @r#"
        # Made for one test restore; production's configuration is not used.
        data_directory = '/scratch/tr-0a1b2c3d/data'
        hba_file = '/scratch/tr-0a1b2c3d/conf/pg_hba.conf'
        ident_file = '/scratch/tr-0a1b2c3d/conf/pg_ident.conf'
        unix_socket_directories = '"/scratch/tr-0a1b2c3d/s"'
        port = '5432'
        restore_command = 'cp ''/scratch/tr-0a1b2c3d/wal/%f'' "%p"'
        recovery_target_timeline = '3'
        recovery_target_name = 'backstop_0a1b2c3d_7'
        hot_standby = 'off'
        recovery_target_action = 'promote'
        recovery_end_command = ''
        archive_cleanup_command = ''
        primary_conninfo = ''
        primary_slot_name = ''
        wal_level = 'replica'
        archive_mode = 'off'
        archive_command = ''
        listen_addresses = ''
        ssl = 'off'
        synchronous_standby_names = ''
        max_logical_replication_workers = '0'
        shared_preload_libraries = ''
        session_preload_libraries = ''
        local_preload_libraries = ''
        autovacuum = 'off'
        jit = 'off'
        fsync = 'off'
        full_page_writes = 'off'
        synchronous_commit = 'off'
        checkpoint_timeout = '1h'
        max_wal_size = '1GB'
        restart_after_crash = 'off'
        huge_pages = 'off'
        shared_buffers = '128MB'
        unix_socket_permissions = '0700'
        logging_collector = 'off'
        log_destination = 'stderr'
        log_line_prefix = ''
        log_min_messages = 'warning'
        log_min_error_statement = 'panic'
        log_checkpoints = 'off'
        lc_messages = 'C'
        timezone = 'UTC'
        log_timezone = 'UTC'
        statement_timeout = '0'
        lock_timeout = '0'
        default_tablespace = ''
        temp_tablespaces = ''
        max_connections = '100'
        max_worker_processes = '8'
        max_wal_senders = '10'
        max_prepared_transactions = '0'
        max_locks_per_transaction = '64'
        "#);
    }

    #[test]
    fn a_new_cluster_is_told_the_same_and_nothing_of_a_recovery() {
        let text = server_settings(&layout(), Start::Fresh, 15);
        assert!(FIXED.iter().all(|(name, value)| text.contains(&format!("{name} = '{value}'"))), "{text}");
        assert!(
            !text.contains("recovery") && !text.contains("primary_") && !text.contains("restore_command"),
            "{text}"
        );
        assert!(text.contains("wal_level = 'minimal'") && text.contains("max_wal_senders = '0'"), "{text}");
    }

    #[test]
    fn event_triggers_are_off_where_the_server_knows_the_setting() {
        let cluster = Cluster::read(CONTROLDATA).unwrap();
        let target = Target { timeline: 1, restore_point: None };
        assert!(!server_settings(&layout(), recovery(&cluster, &target), 16).contains("event_triggers"));
        let text = server_settings(&layout(), recovery(&cluster, &target), 17);
        assert!(text.contains("event_triggers = 'off'") && !text.contains("recovery_target_name"));
    }

    #[test]
    fn an_odd_path_stays_one_path() {
        let layout = Layout::new("/it's 100%/a\\b").unwrap();
        let command = restore_command(&layout.wal());
        assert_eq!(command, r#"cp '/it'\''s 100%%/a\b/wal/%f' "%p""#);
        assert_eq!(escaped(&command), r#"cp ''/it''\\''''s 100%%/a\\b/wal/%f'' "%p""#);
    }

    #[test]
    fn what_was_restored_of_a_configuration_is_replaced_even_where_it_is_a_link() {
        let scratch = tempfile::tempdir().unwrap();
        let outside = scratch.path().join("production.conf");
        fs::write(&outside, "archive_mode = on").unwrap();
        let layout = Layout::new(scratch.path().join("tr")).unwrap();
        layout.directories().iter().for_each(|directory| fs::create_dir_all(directory).unwrap());
        let data = layout.data();
        fs::write(data.join("PG_VERSION"), "15\n").unwrap();
        fs::write(data.join("standby.signal"), "").unwrap();
        std::os::unix::fs::symlink(&outside, data.join("postgresql.auto.conf")).unwrap();
        let target = Target { timeline: 1, restore_point: None };
        let cluster = Cluster::read(CONTROLDATA).unwrap();
        write_configuration(&layout, recovery(&cluster, &target)).unwrap();
        assert_eq!(fs::read_to_string(&outside).unwrap(), "archive_mode = on");
        assert_eq!(fs::read_to_string(data.join("postgresql.auto.conf")).unwrap(), "");
        assert!(data.join("recovery.signal").exists() && !data.join("standby.signal").exists());
        assert_eq!(fs::read_to_string(layout.conf().join("pg_hba.conf")).unwrap(), "local all all trust\n");
        write_configuration(&layout, Start::Fresh).unwrap();
        assert!(!data.join("recovery.signal").exists(), "a new cluster has nothing to recover");
    }
}
