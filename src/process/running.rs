//! A child between its start and its end: the leader of a group that ends whole, whatever happens.
//!
//! A newcomer would rely on the runtime's kill-on-drop; it kills the leader and leaves the workers.

use std::{io, time::Duration};

use super::{
    Command, Ending, Error,
    group::{end_group, kill_group},
    identity::Stat,
    stop::Stop,
};
use crate::record::ProcessIdentity;

/// A child that runs and leads a group. Dropping it kills the group.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) child: tokio::process::Child,
    pub(super) identity: ProcessIdentity,
    is_over: bool,
}

impl Running {
    pub(super) fn start(mut built: tokio::process::Command, command: &Command) -> Result<Self, Error> {
        let child = built.spawn().map_err(|source| command.could_not_start(source))?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        let stat = pid.and_then(Stat::read).ok_or_else(|| io::Error::other("`/proc` does not show it"));
        match stat {
            Ok(stat) => Ok(Self { child, identity: stat.identity(), is_over: false }),
            Err(source) => {
                pid.into_iter().for_each(kill_group);
                Err(command.could_not_start(source))
            }
        }
    }

    /// Waits for its end, or ends it; afterwards its group is empty and it is reaped.
    pub(super) async fn supervise(&mut self, limits: &Limits, stop: &Stop) -> Ending {
        let ending = tokio::select! {
            biased;
            status = self.child.wait() => Ending::of(status),
            () = stop.stopped() => Ending::Stopped,
            () = expired(limits.timeout) => Ending::TimedOut,
        };
        let (is_empty, _) = tokio::join!(end_group(self.identity.pgid, limits.grace), reap(&mut self.child, limits));
        if !is_empty {
            tracing::warn!(pgid = self.identity.pgid, "a process group is still there after SIGKILL");
        }
        self.is_over = is_empty;
        ending
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_over {
            kill_group(self.identity.pgid);
        }
    }
}

/// How long a child may run, and how long it may take to end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) timeout: Option<Duration>,
    pub(super) grace: Duration,
}

impl From<&Command> for Limits {
    fn from(command: &Command) -> Self {
        Self { timeout: command.timeout, grace: command.grace }
    }
}

async fn expired(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}

/// Takes the dead leader's status. It has until its group must be gone; one in uninterruptible sleep is left.
async fn reap(child: &mut tokio::process::Child, limits: &Limits) {
    let _ = tokio::time::timeout(limits.grace + Duration::from_secs(10), child.wait()).await;
}
