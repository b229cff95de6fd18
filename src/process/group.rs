//! Ending whole process groups.
//!
//! A group's number is safe to signal while the group has a member or its leader is not reaped: until then the kernel
//! gives the number to nobody else. A newcomer would signal the leader alone; its workers would go on.

use std::time::Duration;

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use super::identity::{Stat, is_alive, is_this_boot, living};
use crate::{clock::Stopwatch, record::ProcessIdentity};

/// How often we look whether a group is empty.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a killed group may take; longer only in uninterruptible sleep, e.g. on a dead network file system.
const AFTER_KILL: Duration = Duration::from_secs(10);

/// Ends a process group: TERM, then KILL after the grace. True when nobody is left.
///
/// Our own group, and the numbers that mean "everybody", are refused.
pub async fn end_group(pgid: i32, grace: Duration) -> bool {
    if pgid <= 1 || pgid == nix::unistd::getpgrp().as_raw() {
        return false;
    }
    if is_empty(pgid) {
        return true;
    }
    signal_group(pgid, Signal::SIGTERM);
    if empties_within(pgid, grace).await {
        return true;
    }
    signal_group(pgid, Signal::SIGKILL);
    empties_within(pgid, AFTER_KILL).await
}

/// Whether any member of the group that this process led is left, be it the leader or its orphaned workers.
pub fn group_is_alive(identity: &ProcessIdentity) -> bool {
    if is_alive(identity) {
        return true;
    }
    // Somebody else with the leader's number means that the old group is gone, or the number would not have been given.
    let is_reused = living(identity.pid).is_some();
    is_this_boot(identity) && !is_reused && !is_empty(identity.pgid)
}

/// Sends INT to one process if it still is the one we mean; true when it was sent.
pub fn interrupt(identity: &ProcessIdentity) -> bool {
    is_alive(identity) && kill(Pid::from_raw(identity.pid), Signal::SIGINT).is_ok()
}

/// Kills a group at once; for a child that is dropped.
pub(super) fn kill_group(pgid: i32) {
    if !is_empty(pgid) {
        signal_group(pgid, Signal::SIGKILL);
    }
}

async fn empties_within(pgid: i32, limit: Duration) -> bool {
    let watch = Stopwatch::start();
    while !is_empty(pgid) {
        if watch.elapsed() >= limit {
            return false;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    true
}

fn signal_group(pgid: i32, signal: Signal) {
    // The group may have ended just now; the caller looks again anyway.
    let _ = killpg(Pid::from_raw(pgid), signal);
}

/// The kernel counts zombies as members, so a look at the members follows unless it already says that there are none.
fn is_empty(pgid: i32) -> bool {
    killpg(Pid::from_raw(pgid), None) == Err(Errno::ESRCH) || !Stat::all().any(|stat| stat.pgid == pgid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn groups_that_would_be_ourselves_or_everybody_are_refused() {
        for pgid in [-1, 0, 1, nix::unistd::getpgrp().as_raw()] {
            assert!(!end_group(pgid, Duration::ZERO).await, "{pgid}");
        }
    }
}
