//! SIGHUP: read, check, compare, swap. A bad file changes nothing; running jobs end under the policy they began with.

use std::sync::Arc;

use tracing::{error, info, warn};

use super::{Daemon, index, shrink, start, systemd};
use crate::{
    clock,
    error::chain,
    policy::{Policy, changes},
    record::SlotState,
};

impl Daemon {
    pub(super) async fn reload(&mut self, sender: &str) {
        info!(policy = %self.path.display(), %sender, "reload asked for");
        systemd::reloading();
        // On the loop's own thread: ten thousand jobs take some 50 ms, and memory that another thread's allocator
        // arena took for it would stay with the process for ever.
        match Policy::load(&self.path) {
            Ok(policy) if policy.daemon.state_dir != self.policy.daemon.state_dir => self.refuse_move(&policy),
            Ok(policy) => self.accept(policy).await,
            Err(problems) => {
                for problem in problems.list() {
                    error!("policy: {}", problem);
                }
                error!("the policy file is rejected, the old policy goes on: {}", problems.count());
                self.rejected = Some(problems.count());
            }
        }
        systemd::ready(&self.state_line());
    }

    /// Commands follow the file at once; with another state directory they and the daemon would not see each other's
    /// locks and history.
    fn refuse_move(&mut self, policy: &Policy) {
        let (old, new) = (&self.policy.daemon.state_dir, &policy.daemon.state_dir);
        let why =
            format!("`state_dir` cannot change from `{}` to `{}` while the daemon runs", old.display(), new.display());
        error!(
            "the policy file is rejected, the old policy goes on: {why}; stop the daemon, move the directory, start it"
        );
        self.rejected = Some(why);
    }

    async fn accept(&mut self, policy: Policy) {
        for change in changes(&self.policy, &policy) {
            if change.needs_restart() {
                warn!("policy: {change}; this takes effect at the next start");
            } else {
                info!("policy: {change}");
            }
        }
        start::log_warnings(&policy);
        let planner = match start::plan(&self.catalog, &policy).await {
            Ok(planner) => planner,
            Err(problem) => return error!(error = %chain(&problem), "the reload failed, the old policy goes on"),
        };
        match self.catalog.recovery_mode().await {
            Ok(recovery) => self.catch_up = start::catch_up(recovery.as_ref()),
            Err(problem) => warn!(error = %chain(&problem), "whether the catalog is in recovery mode cannot be read"),
        }
        self.jobs = index(&policy.jobs);
        self.policy = Arc::new(policy);
        self.planner = planner;
        self.rejected = None;
        shrink::adopt(&self.catalog, &self.policy).await;
        self.drop_removed_jobs().await;
        info!(jobs = self.policy.jobs.len(), databases = self.policy.databases.len(), "policy reloaded");
    }

    async fn drop_removed_jobs(&mut self) {
        let jobs = &self.jobs;
        let gone = self.queue.retain(|key| jobs.contains_key(key));
        let reason = || Some("the job left the policy".to_owned());
        let settled: Vec<_> = gone.iter().map(|queued| (queued.slot_id, SlotState::Skipped, reason())).collect();
        if let Err(problem) = self.catalog.settle_slots(&settled).await {
            error!(error = %chain(&problem), at = %clock::now(), "slots of removed jobs cannot be settled");
        }
    }
}
