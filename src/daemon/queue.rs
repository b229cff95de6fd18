//! Claimed slots that have not started yet, and what runs. What may start is decided by `schedule::admit`.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};

use crate::{
    record::{JobKey, SlotId},
    schedule::{Limits, Queued, Verdict, admit},
};

/// The queue and the runs.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Vec<Queued>,
    /// Slots that may not start before a moment: somebody else held a lock.
    held_back: HashMap<SlotId, DateTime<Utc>>,
    running: HashMap<u64, (JobKey, Option<SlotId>)>,
    next_ticket: u64,
}

/// What came out of looking at the queue.
#[derive(Debug, Default)]
pub(super) struct Decided {
    /// To be started now.
    pub(super) start: Vec<Queued>,
    /// Not to be run, with the reason; `true` where a larger backup does its work.
    pub(super) dropped: Vec<(Queued, String, bool)>,
}

impl Queue {
    /// Adds claimed slots.
    pub(super) fn push(&mut self, queued: impl IntoIterator<Item = Queued>) {
        self.waiting.extend(queued);
    }

    /// Puts a slot back that could not start or was told to come again later.
    pub(super) fn hold_back(&mut self, queued: Queued, until: DateTime<Utc>) {
        self.held_back.insert(queued.slot_id, until);
        self.waiting.push(queued);
    }

    /// When the next slot that was held back may be looked at again.
    pub(super) fn next_release(&self) -> Option<DateTime<Utc>> {
        self.held_back.values().min().copied()
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// What runs.
    pub(super) fn running(&self) -> impl Iterator<Item = &JobKey> {
        self.running.values().map(|(job, _)| job)
    }

    /// The slots that wait or run.
    pub(super) fn slots(&self) -> HashSet<SlotId> {
        let running = self.running.values().filter_map(|(_, slot)| *slot);
        running.chain(self.waiting.iter().map(|queued| queued.slot_id)).collect()
    }

    /// What waits.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Queued> {
        self.waiting.iter()
    }

    /// Notes that a job runs, for a slot or without one; the ticket ends it.
    pub(super) fn begin(&mut self, job: JobKey, slot: Option<SlotId>) -> u64 {
        self.next_ticket += 1;
        self.running.insert(self.next_ticket, (job, slot));
        self.next_ticket
    }

    /// Notes that it ended.
    pub(super) fn end(&mut self, ticket: u64) {
        self.running.remove(&ticket);
    }

    /// Removes the slots of jobs that the policy no longer has.
    pub(super) fn retain(&mut self, has_job: impl Fn(&JobKey) -> bool) -> Vec<Queued> {
        let (kept, gone) = std::mem::take(&mut self.waiting).into_iter().partition(|queued| has_job(&queued.slot.job));
        self.waiting = kept;
        gone
    }

    /// Takes out of the queue all that starts or is dropped now.
    pub(super) fn decide(&mut self, limits: Limits, now: DateTime<Utc>) -> Decided {
        self.held_back.retain(|_, until| *until > now);
        let (held, ready): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|queued| self.held_back.contains_key(&queued.slot_id));
        self.waiting = held;
        let running: Vec<JobKey> = self.running().cloned().collect();
        let verdicts = admit(&ready, &running, limits, now);
        let mut decided = Decided::default();
        for (queued, verdict) in ready.into_iter().zip(verdicts) {
            match verdict {
                Verdict::Start => decided.start.push(queued),
                Verdict::Wait => self.waiting.push(queued),
                Verdict::Skip(reason) => decided.dropped.push((queued, reason, false)),
                Verdict::Supersede(reason) => decided.dropped.push((queued, reason, true)),
            }
        }
        decided
    }
}
