//! Who a process is, read from `/proc`.
//!
//! A process number alone is never enough: it may belong to another by now. The start time and the boot make it one. A
//! newcomer would count a zombie as alive; it holds nothing and does nothing, and where nobody reaps it stays for ever.

use std::{fs, os::unix::ffi::OsStrExt, path::Path};

use crate::record::ProcessIdentity;

/// What `/proc/PID/stat` says, as far as we ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) pid: i32,
    pub(super) pgid: i32,
    pub(super) start_ticks: u64,
    is_dead: bool,
}

impl Stat {
    /// Reads it; none when there is no such process, not even a dead one.
    pub(super) fn read(pid: i32) -> Option<Stat> {
        Self::parse(pid, &String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/stat")).ok()?))
    }

    /// Field 2 is the program's name in parentheses and may hold anything, also `)`; the rest begins after the last one.
    fn parse(pid: i32, text: &str) -> Option<Stat> {
        let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
        let is_dead = matches!(fields.next()?, "Z" | "X" | "x");
        let pgid = fields.nth(1)?.parse().ok()?;
        let start_ticks = fields.nth(16)?.parse().ok()?;
        Some(Stat { pid, pgid, start_ticks, is_dead })
    }

    /// Every living process.
    pub(super) fn all() -> impl Iterator<Item = Stat> {
        pids().filter_map(Stat::read).filter(|stat| !stat.is_dead)
    }

    pub(super) fn identity(self) -> ProcessIdentity {
        ProcessIdentity { pid: self.pid, pgid: self.pgid, start_ticks: self.start_ticks, boot_id: boot_id() }
    }
}

/// Whether a number belongs to a process that lives.
pub(super) fn living(pid: i32) -> Option<Stat> {
    Stat::read(pid).filter(|stat| !stat.is_dead)
}

/// The identity of a living process; none when there is none.
pub fn identify(pid: i32) -> Option<ProcessIdentity> {
    living(pid).map(Stat::identity)
}

/// The identity of this process.
pub fn own_identity() -> ProcessIdentity {
    let pid = nix::unistd::getpid().as_raw();
    identify(pid).expect("whoever asks is alive, and `/proc` is mounted wherever systemd runs")
}

/// Whether it still lives: the same process, not another one that got its number.
pub fn is_alive(identity: &ProcessIdentity) -> bool {
    living(identity.pid).is_some_and(|stat| stat.start_ticks == identity.start_ticks) && is_this_boot(identity)
}

pub(super) fn is_this_boot(identity: &ProcessIdentity) -> bool {
    identity.boot_id == boot_id()
}

/// Processes of this user with `text` in their command line, leaders of groups first.
pub fn find_by_argument(text: &str) -> Vec<ProcessIdentity> {
    find(|line| contains(line, text))
}

/// Processes of this user that run `program` with `text` in their command line; not one that merely mentions both.
pub fn find_by_program(program: &Path, text: &str) -> Vec<ProcessIdentity> {
    let program = program.as_os_str().as_bytes();
    find(|line| line.split(|byte| *byte == 0).next() == Some(program) && contains(line, text))
}

fn find(matches: impl Fn(&[u8]) -> bool) -> Vec<ProcessIdentity> {
    let own = nix::unistd::getpid().as_raw();
    let line = |pid: i32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let wanted = |pid: &i32| *pid != own && matches(&line(*pid)) && is_ours(*pid);
    let mut found: Vec<_> = pids().filter(wanted).filter_map(identify).collect();
    found.sort_by_key(|process| (process.pid != process.pgid, process.pid));
    found
}

fn is_ours(pid: i32) -> bool {
    // Not the owner of `/proc/PID`: that is root for a process that may not be dumped.
    let status = fs::read(format!("/proc/{pid}/status")).unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let uid = line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<u32>().ok());
    uid == Some(nix::unistd::getuid().as_raw())
}

fn contains(line: &[u8], text: &str) -> bool {
    !text.is_empty() && line.windows(text.len()).any(|window| window == text.as_bytes())
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir(Path::new("/proc")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Differs after each boot; empty where the kernel does not tell, which then is the same everywhere.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_name_cannot_confuse_the_reader() {
        let text = "42 (a) Z 7 (b) S 1 40 40 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1000 200";
        let stat = Stat::parse(42, text).unwrap();
        assert_eq!(stat, Stat { pid: 42, pgid: 40, start_ticks: 987_654, is_dead: false });
    }

    #[test]
    fn another_process_with_the_same_number_is_not_the_same() {
        let own = own_identity();
        assert!(is_alive(&own));
        assert!(!is_alive(&ProcessIdentity { start_ticks: own.start_ticks + 1, ..own.clone() }));
        assert!(!is_alive(&ProcessIdentity { boot_id: "another".to_owned(), ..own }));
    }
}
