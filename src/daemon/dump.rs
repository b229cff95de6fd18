//! SIGUSR1: the state of the daemon, as log lines.

use tracing::info;

use super::Daemon;

pub(super) fn log(daemon: &Daemon) {
    info!(policy = %daemon.path.display(), hash = %daemon.policy.hash, jobs = daemon.policy.jobs.len(), "state: {}", daemon.state_line());
    for job in daemon.queue.running() {
        info!(%job, "state: running");
    }
    for queued in daemon.queue.waiting() {
        info!(job = %queued.slot.job, nominal = %queued.slot.nominal_at, "state: waiting");
    }
    for job in &daemon.policy.jobs {
        if let Some(next) = daemon.planner.next_for(&job.key) {
            info!(job = %job.key, next = %next.with_timezone(&daemon.policy.daemon.timezone), "state: scheduled");
        }
    }
}
