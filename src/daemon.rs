//! The daemon: triggers, signals and finished runs meet in one loop. Nothing is decided here.
//!
//! What is due is the planner's word, what may start is `admit`'s, what a run does is the runner's. The loop only
//! carries facts between them: on each ring, after each finished run, after a reload, on the slow tick (which also
//! notices a clock that was set) it asks what is due, lets the catalog claim that durably, and starts what may start.
//! A slot is moved past only after the catalog took it; a full disk therefore delays runs and loses none.
//!
//! A newcomer would start a run straight from a timer. Then a restart, a reload or two rings would repeat or drop it.

mod alarm;
mod dump;
mod queue;
mod reload;
mod shrink;
mod signal;
mod start;
pub mod systemd;
mod work;

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::task::JoinSet;
use tracing::{debug, error, info, warn};

use self::{
    alarm::Alarm,
    queue::Queue,
    signal::{Signals, Wish},
    work::{End, Ended},
};
pub use self::{signal::for_command, start::run};
use crate::{
    catalog::Catalog,
    clock::{self, JumpDetector, Stopwatch},
    error::chain,
    human::took,
    job::{Progress, Ran, Runner, guard},
    lock::Lock,
    policy::{Job, Policy},
    process::{Stop, StopHandle},
    record::{JobKey, RunState, Slot, SlotId, SlotState},
    schedule::{CatchUp, Limits, Planner, Queued, latest_start},
    settle,
};

/// The slow tick: settles dead rows, looks at the clock and the catalog's file.
const TICK: Duration = Duration::from_secs(20);
/// WAL checks and other looks that run at once beside the `max_parallel` runs.
const MAX_CHECKS: usize = 8;
/// How long a slot waits when somebody else holds its database's lock.
const BUSY_PAUSE: TimeDelta = TimeDelta::seconds(5);
/// How long a slot waits when another program holds the tool's own lock.
const REQUEUE_PAUSE: TimeDelta = TimeDelta::seconds(60);
/// How long the daemon waits after a claim that the catalog refused.
const CLAIM_PAUSE: TimeDelta = TimeDelta::seconds(10);
/// A wall clock that moved apart from the monotonic one by more than this was set, or the machine slept.
const JUMP_SECONDS: i64 = 60;

struct Daemon {
    path: PathBuf,
    policy: Arc<Policy>,
    jobs: HashMap<JobKey, usize>,
    catalog: Catalog,
    planner: Planner,
    queue: Queue,
    tasks: JoinSet<Ended>,
    tickets: HashMap<tokio::task::Id, u64>,
    alarm: Alarm,
    signals: Signals,
    stop: Stop,
    stop_handle: StopHandle,
    drain: Stop,
    drain_handle: StopHandle,
    jump: JumpDetector,
    /// Whether slots missed in the past are made up for; not in recovery mode.
    catch_up: CatchUp,
    /// Why the file on disk is not the policy in force.
    rejected: Option<String>,
    /// No claim before this moment, since the last one failed.
    claim_after: Option<DateTime<Utc>>,
    stopping: Option<Stopwatch>,
    told: String,
    _lock: Lock,
}

impl Daemon {
    async fn serve(mut self) {
        let tick = systemd::watchdog_interval().map_or(TICK, |interval| interval.min(TICK));
        let mut ticks = tokio::time::interval(tick);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        systemd::ready(&self.state_line());
        while !self.is_finished() {
            self.pass().await;
            let wait = self.until_release();
            tokio::select! {
                () = self.alarm.rung() => {}
                (wish, sender) = self.signals.next() => self.obey(wish, &sender).await,
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended).await,
                _ = ticks.tick() => self.tick().await,
                () = tokio::time::sleep(wait) => {}
            }
        }
        systemd::stopping("stopped");
        self.alarm.stop().await;
        self.catalog.close().await;
        info!("daemon stopped");
    }

    fn is_finished(&self) -> bool {
        self.stopping.is_some() && self.tasks.is_empty()
    }

    /// Claims what is due and starts what may start.
    async fn pass(&mut self) {
        let now = clock::now();
        // First of all: what was decided with yesterday's clock must not be acted on with tomorrow's.
        self.notice_a_jump(now).await;
        if self.stopping.is_none() {
            self.claim(now).await;
            self.start_and_drop(now).await;
            self.alarm.set(self.planner.next_ring().map(|ring| self.claim_after.map_or(ring, |after| ring.max(after))));
        } else if self.stopping.is_some_and(|since| since.elapsed() > self.policy.daemon.stop_grace) {
            self.stop_handle.stop();
        }
        self.tell_systemd();
    }

    async fn claim(&mut self, now: DateTime<Utc>) {
        if self.claim_after.take_if(|after| *after <= now).is_none() && self.claim_after.is_some() {
            return;
        }
        let slots = self.planner.due(now, self.catch_up);
        if !slots.is_empty() {
            self.take(slots, now).await;
        }
    }

    /// Lets the catalog claim slots in one transaction; only then does the planner move past them.
    async fn take(&mut self, slots: Vec<Slot>, now: DateTime<Utc>) {
        let watch = Stopwatch::start();
        let claimed = match self.catalog.claim(&slots, now).await {
            Ok(claimed) => claimed,
            Err(problem) => {
                error!(error = %chain(&problem), "{} due slots cannot be claimed, so nothing starts; trying again in 10 seconds", slots.len());
                self.claim_after = Some(now + CLAIM_PAUSE);
                return;
            }
        };
        debug!(slots = slots.len(), "claimed in {} ms", watch.elapsed().as_millis());
        self.planner.advance(&slots);
        for (slot, id) in slots.into_iter().zip(claimed) {
            match (id, &slot.skip) {
                (Some(_), Some(reason)) => warn!(job = %slot.job, nominal = %slot.nominal_at, "slot skipped: {reason}"),
                (Some(id), None) => self.enqueue(id, slot),
                // Another process, or this one before a crash, had it already.
                (None, _) => {}
            }
        }
    }

    fn enqueue(&mut self, slot_id: SlotId, slot: Slot) {
        if slot.missed_count > 0 {
            info!(job = %slot.job, nominal = %slot.nominal_at, "made up for: {} earlier slots were missed too", slot.missed_count);
        }
        let Some(job) = self.job(&slot.job) else { return };
        let queued = Queued {
            slot_id,
            next_nominal: job.schedule.next(slot.nominal_at.max(clock::now() - TimeDelta::seconds(1))),
            latest_start: latest_start(job, slot.nominal_at),
            slot,
        };
        self.queue.push([queued]);
    }

    async fn start_and_drop(&mut self, now: DateTime<Utc>) {
        if self.queue.is_empty() {
            return;
        }
        let limits = Limits { max_parallel: self.policy.daemon.max_parallel, max_checks: MAX_CHECKS };
        let decided = self.queue.decide(limits, now);
        let mut settled = Vec::with_capacity(decided.dropped.len());
        for (queued, reason, superseded) in decided.dropped {
            warn!(job = %queued.slot.job, nominal = %queued.slot.nominal_at, "slot not run: {reason}");
            let state = if superseded { SlotState::Superseded } else { SlotState::Skipped };
            settled.push((queued.slot_id, state, Some(reason)));
        }
        if !settled.is_empty()
            && let Err(problem) = self.catalog.settle_slots(&settled).await
        {
            error!(error = %chain(&problem), "skipped slots cannot be recorded");
        }
        for queued in decided.start {
            self.start(queued);
        }
    }

    fn start(&mut self, queued: Queued) {
        let Some(job) = self.job(&queued.slot.job).cloned() else { return };
        let ticket = self.queue.begin(queued.slot.job.clone(), Some(queued.slot_id));
        let task = self.tasks.spawn(work::slot(self.runner(), job, queued, ticket));
        self.tickets.insert(task.id(), ticket);
    }

    async fn ended(&mut self, first: Result<(tokio::task::Id, Ended), tokio::task::JoinError>) {
        self.one_ended(first).await;
        while let Some(another) = self.tasks.try_join_next_with_id() {
            self.one_ended(another).await;
        }
    }

    async fn one_ended(&mut self, ended: Result<(tokio::task::Id, Ended), tokio::task::JoinError>) {
        let (id, ended) = match ended {
            Ok((id, ended)) => (id, Some(ended)),
            Err(problem) => {
                // Its row names this process as the owner; `settle` knows that whoever holds the lock is not at work.
                error!(error = %chain(&problem), "a run's task died; its row is settled on the next tick");
                (problem.id(), None)
            }
        };
        if let Some(ticket) = self.tickets.remove(&id) {
            self.queue.end(ticket);
        }
        match ended {
            Some(Ended { queued: Some(queued), end: End::Busy }) => {
                self.queue.hold_back(queued, clock::now() + BUSY_PAUSE);
            }
            Some(Ended { queued: Some(queued), end: End::Ran(ran) }) => self.after_run(queued, &ran).await,
            Some(Ended { end: End::Settled, .. }) => self.enqueue_unfinished().await,
            _ => {}
        }
    }

    async fn after_run(&mut self, queued: Queued, ran: &Ran) {
        match ran.state {
            RunState::Requeued => self.queue.hold_back(queued, clock::now() + REQUEUE_PAUSE),
            RunState::Interrupted => {
                if let Err(problem) = self.catalog.return_slot(queued.slot_id).await {
                    error!(error = %chain(&problem), "an interrupted slot cannot be given back");
                }
            }
            // Without a row nothing ran: the catalog could not be written. The slot waits for better times.
            _ if ran.run.is_none() && ran.failure.is_some() => {
                self.queue.hold_back(queued, clock::now() + REQUEUE_PAUSE)
            }
            _ => {}
        }
    }

    async fn obey(&mut self, wish: Wish, sender: &str) {
        match wish {
            Wish::Reload => self.reload(sender).await,
            Wish::Dump => dump::log(self),
            Wish::Stop => {
                let grace = took(self.policy.daemon.stop_grace);
                info!(%sender, running = self.tasks.len(), "stopping: running jobs get {grace}");
                systemd::stopping("waiting for running jobs");
                self.stopping = Some(Stopwatch::start());
                self.drain_handle.stop();
            }
        }
    }

    /// The slow tick. The watchdog is fed here and nowhere else: if the loop hangs, systemd notices.
    async fn tick(&mut self) {
        systemd::alive();
        if !self.catalog.still_in_place() {
            error!(
                "the catalog's file was removed or replaced under the running daemon: restart it, it will recover from its newest copy"
            );
        }
        if self.stopping.is_none() {
            self.adopt_and_settle().await;
            self.enqueue_unfinished().await;
        }
    }

    /// Slots that a dead process left, or that were given back when its run was settled, here or by a command.
    async fn enqueue_unfinished(&mut self) {
        match self.catalog.unfinished_slots().await {
            Ok(slots) => {
                let known = self.queue.slots();
                for (id, slot) in slots.into_iter().filter(|(id, _)| !known.contains(id)) {
                    match self.planner.given_up(&slot, clock::now(), self.catch_up) {
                        Some(reason) => self.give_up(id, &slot, reason).await,
                        None => self.enqueue(id, slot),
                    }
                }
            }
            Err(problem) => error!(error = %chain(&problem), "unfinished slots cannot be read"),
        }
    }

    async fn notice_a_jump(&mut self, now: DateTime<Utc>) {
        let seconds = self.jump.jumped_by(now);
        if seconds.abs() <= JUMP_SECONDS {
            return;
        }
        let text = format!("the clock jumped by {seconds} s at {}", now.format("%F %T UTC"));
        warn!("{text}: slots are computed anew, nothing is deleted until `backstop catalog accept`");
        if let Err(problem) = guard::freeze(&self.catalog, &text, now).await {
            error!(error = %chain(&problem), "the jump cannot be recorded");
        }
        for job in self.planner.ahead_of(now) {
            warn!(%job, "its last slot lies in the future: it is silent until the clock has caught up");
        }
    }

    /// Settles rows whose owner died: the last daemon's at start, a killed command's later.
    async fn adopt_and_settle(&mut self) {
        let open = match self.catalog.open_runs().await {
            Ok(open) => open,
            Err(problem) => return error!(error = %chain(&problem), "open runs cannot be read"),
        };
        for open in open {
            let known = self.queue.running().any(|job| *job == open.run.job);
            if !known && settle::is_abandoned(&open) {
                let ticket = self.queue.begin(open.run.job.clone(), open.run.slot);
                let task = self.tasks.spawn(work::orphan(self.runner(), open, ticket));
                self.tickets.insert(task.id(), ticket);
            }
        }
    }

    async fn give_up(&self, id: SlotId, slot: &Slot, reason: String) {
        warn!(job = %slot.job, nominal = %slot.nominal_at, "slot not run: {reason}");
        if let Err(problem) = self.catalog.settle_slots(&[(id, SlotState::Skipped, Some(reason))]).await {
            error!(error = %chain(&problem), "a skipped slot cannot be recorded");
        }
    }

    fn runner(&self) -> Runner {
        Runner {
            policy: self.policy.clone(),
            catalog: self.catalog.clone(),
            stop: self.stop.clone(),
            drain: self.drain.clone(),
            progress: Progress::default(),
        }
    }

    fn job(&self, key: &JobKey) -> Option<&Job> {
        self.jobs.get(key).map(|index| &self.policy.jobs[*index])
    }

    /// How long the loop may sleep before a slot that was held back, or the end of the grace, needs it.
    fn until_release(&self) -> Duration {
        let now = clock::now();
        let release = self.queue.next_release().map(|at| (at - now).to_std().unwrap_or_default());
        let grace = self.stopping.map(|since| self.policy.daemon.stop_grace.saturating_sub(since.elapsed()));
        let wait = [release, grace].into_iter().flatten().min().unwrap_or(Duration::from_secs(3600));
        wait + Duration::from_millis(20)
    }

    fn tell_systemd(&mut self) {
        let text = self.state_line();
        if text != self.told {
            systemd::status(&text);
            self.told = text;
        }
    }

    fn state_line(&self) -> String {
        let mut text = format!("{} running, {} waiting", self.tasks.len(), self.queue.len());
        if let Some(ring) = self.planner.next_ring() {
            text.push_str(&format!(
                "; next at {}",
                ring.with_timezone(&self.policy.daemon.timezone).format("%a %F %T %Z")
            ));
        }
        if let Some(rejected) = &self.rejected {
            text.push_str(&format!("; the policy file is rejected: {rejected}"));
        }
        text
    }
}

fn index(jobs: &[Job]) -> HashMap<JobKey, usize> {
    jobs.iter().enumerate().map(|(position, job)| (job.key.clone(), position)).collect()
}
