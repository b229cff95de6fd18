//! The alarm clock: rings at the planner's next due second.
//!
//! tokio-cron-scheduler does the ringing and nothing else. Given one job for each schedule it loses runs when many are
//! due at once, keeps the UTC offset of the day a job was added, and hangs on reload; so it gets exactly one job, added
//! before the start and never removed, whose "next tick" is whatever the planner last said. The store below parks the
//! crate's polling loop until half a second before that moment (the loop's own sleep is the other half), which leaves
//! an idle daemon one wake-up in thirty seconds instead of four a second.
//!
//! A ring is a hint: it may come early, twice or never. The daemon asks the planner on each ring and also on its own
//! slow tick. A newcomer would add jobs to the scheduler, or call `time_till_next_job`: the polling loop holds the
//! store's lock while it is parked, so that call blocks.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::sync::Notify;
use tokio_cron_scheduler::{
    Job, JobScheduler, JobSchedulerError, MetaDataStorage, SimpleJobCode, SimpleNotificationCode,
    SimpleNotificationStore,
    job::job_data::{JobAndNextTick, JobStoredData, JobType, Uuid as JobUuid},
    store::{DataStore, InitStore},
};
use uuid::Uuid;

use crate::clock;

/// The longest the polling loop is parked, so that a clock that was set is noticed.
const LONGEST_PARK: Duration = Duration::from_secs(30);
/// The polling loop's own sleep between reading the clock twice.
const LEAD: Duration = Duration::from_millis(500);
/// No ring is wanted.
const NEVER: i64 = i64::MAX;

/// The clock that rings.
pub(super) struct Alarm {
    shared: Arc<Shared>,
    scheduler: JobScheduler,
}

struct Shared {
    /// Unix seconds of the next ring.
    due: AtomicI64,
    /// Wakes the parked loop when `due` changes.
    changed: Notify,
    /// Wakes the daemon.
    rung: Notify,
}

impl Alarm {
    /// Starts the clock with no ring set.
    ///
    /// # Errors
    /// When the scheduler cannot be built.
    pub(super) async fn start() -> Result<Self, JobSchedulerError> {
        let shared = Arc::new(Shared { due: AtomicI64::new(NEVER), changed: Notify::new(), rung: Notify::new() });
        let scheduler = JobScheduler::new_with_storage_and_code(
            Box::new(OneRow { shared: shared.clone(), job: None }),
            Box::<SimpleNotificationStore>::default(),
            Box::<SimpleJobCode>::default(),
            Box::<SimpleNotificationCode>::default(),
            8,
        )
        .await?;
        let ring = shared.clone();
        // The pattern is never looked at: the store below says when the next tick is.
        let job = Job::new_async("0 0 0 1 1 *", move |_, _| {
            let ring = ring.clone();
            Box::pin(async move { ring.rung.notify_one() })
        })?;
        scheduler.add(job).await?;
        scheduler.start().await?;
        Ok(Self { shared, scheduler })
    }

    /// Sets or clears the next ring.
    pub(super) fn set(&self, at: Option<DateTime<Utc>>) {
        let due = at.map_or(NEVER, |at| at.timestamp());
        if self.shared.due.swap(due, Ordering::SeqCst) != due {
            self.shared.changed.notify_one();
        }
    }

    /// Waits for a ring. Safe to drop and to call again: a ring in between is kept.
    pub(super) async fn rung(&self) {
        self.shared.rung.notified().await;
    }

    /// Ends the polling loop.
    pub(super) async fn stop(mut self) {
        // It only sets a flag; the loop sees it after its next sleep, and the process is about to end anyway.
        if let Err(error) = self.scheduler.shutdown().await {
            tracing::debug!(%error, "the alarm clock did not stop");
        }
    }
}

/// The scheduler's storage: one job, due when the planner says.
struct OneRow {
    shared: Arc<Shared>,
    job: Option<JobStoredData>,
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<T, JobSchedulerError>> + Send>>;

fn answer<T: Send + 'static>(value: T) -> Answer<T> {
    Box::pin(std::future::ready(Ok(value)))
}

impl InitStore for OneRow {
    fn init(&mut self) -> Answer<()> {
        answer(())
    }

    fn inited(&mut self) -> Answer<bool> {
        answer(true)
    }
}

impl DataStore<JobStoredData> for OneRow {
    fn get(&mut self, _: Uuid) -> Answer<Option<JobStoredData>> {
        answer(self.job.clone())
    }

    fn add_or_update(&mut self, job: JobStoredData) -> Answer<()> {
        self.job = Some(job);
        answer(())
    }

    fn delete(&mut self, _: Uuid) -> Answer<()> {
        answer(())
    }
}

impl MetaDataStorage for OneRow {
    fn list_next_ticks(&mut self) -> Answer<Vec<JobAndNextTick>> {
        let shared = self.shared.clone();
        let id: Option<JobUuid> = self.job.as_ref().and_then(|job| job.id);
        Box::pin(async move {
            park(&shared).await;
            Ok(vec![row(id, shared.due.load(Ordering::SeqCst))])
        })
    }

    fn set_next_and_last_tick(&mut self, _: Uuid, _: Option<DateTime<Utc>>, _: Option<DateTime<Utc>>) -> Answer<()> {
        answer(())
    }

    fn time_till_next_job(&mut self) -> Answer<Option<Duration>> {
        answer(None)
    }
}

fn row(id: Option<JobUuid>, due: i64) -> JobAndNextTick {
    // Zero would ask the scheduler to delete the job.
    let next_tick = u64::try_from(due).unwrap_or(1).max(1);
    // The last tick stays empty, so that the row rings again until the planner has moved it.
    JobAndNextTick { id, job_type: JobType::Cron as i32, next_tick, last_tick: None }
}

/// Waits until the loop has to look again: half a second before the due second, a change of it, or the cap.
async fn park(shared: &Shared) {
    let due = shared.due.load(Ordering::SeqCst);
    let until_due = DateTime::from_timestamp(due, 0).map_or(LONGEST_PARK, |at| clock::age(at, clock::now()));
    let length = until_due.saturating_sub(LEAD).min(LONGEST_PARK);
    tokio::select! {
        () = tokio::time::sleep(length) => {}
        () = shared.changed.notified() => {}
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn it_rings_at_the_second_and_again_until_it_is_moved() {
        let alarm = Alarm::start().await.unwrap();
        let due = DateTime::from_timestamp(clock::now().timestamp() + 2, 0).unwrap();
        alarm.set(Some(due));
        tokio::time::timeout(Duration::from_secs(10), alarm.rung()).await.expect("it rings");
        assert!(clock::now() >= due, "it never rings before its second");
        tokio::time::timeout(Duration::from_secs(10), alarm.rung()).await.expect("it rings again");
        alarm.set(Some(due + TimeDelta::days(1)));
        alarm.stop().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_earlier_ring_cuts_a_long_park_short() {
        let alarm = Alarm::start().await.unwrap();
        alarm.set(Some(clock::now() + TimeDelta::days(300)));
        alarm.set(Some(clock::now() - TimeDelta::seconds(1)));
        tokio::time::timeout(Duration::from_secs(10), alarm.rung()).await.expect("it rings");
        alarm.stop().await;
    }
}
