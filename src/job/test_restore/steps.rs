//! The record of a test restore: each step with its outcome, its evidence and its length.
//!
//! A newcomer would leave out what was not done; a reader of the proof would take it for done.

use std::time::Duration;

use crate::{
    clock::Stopwatch,
    record::{Failure, ProofStep, StepOutcome},
};

/// What the steps of one kind of restore are.
#[derive(Debug)]
pub(super) struct Plan {
    /// Every step in its order.
    pub(super) order: &'static [&'static str],
    /// Without these nothing is proven.
    pub(super) mandatory: &'static [&'static str],
    /// The first step that says something about the backup; what fails before it says nothing, for or against.
    pub(super) verdict_from: &'static str,
    /// The steps that a real recovery would need as well; their length is the measured RTO.
    pub(super) recovery: &'static [&'static str],
}

/// What a step gives: its value and how it went, or the failure that ends the restore.
pub(super) type Result<T> = std::result::Result<Checked<T>, Failure>;

/// The value of a step that did not fail, with the evidence.
#[derive(Debug)]
pub(super) struct Checked<T> {
    value: T,
    outcome: StepOutcome,
    detail: String,
}

impl<T> Checked<T> {
    /// It was done and it was right.
    pub(super) fn passed(value: T, evidence: impl Into<String>) -> Self {
        Self { value, outcome: StepOutcome::Passed, detail: evidence.into() }
    }

    /// It was not done, for a reason that is no failure.
    pub(super) fn skipped(value: T, reason: impl Into<String>) -> Self {
        Self { value, outcome: StepOutcome::Skipped, detail: reason.into() }
    }

    #[cfg(test)]
    pub(super) fn outcome(&self) -> StepOutcome {
        self.outcome
    }

    #[cfg(test)]
    pub(super) fn value(self) -> T {
        self.value
    }
}

/// The steps so far.
#[derive(Debug)]
pub(super) struct Steps {
    plan: &'static Plan,
    done: Vec<ProofStep>,
    current: Option<(String, Stopwatch)>,
}

impl Steps {
    /// No step was done yet.
    pub(super) fn new(plan: &'static Plan) -> Self {
        Self { plan, done: Vec::new(), current: None }
    }

    /// Does a step and records how it went.
    pub(super) async fn run<T>(
        &mut self,
        name: &str,
        work: impl Future<Output = Result<T>>,
    ) -> std::result::Result<T, Failure> {
        let watch = Stopwatch::start();
        self.current = Some((name.to_owned(), watch));
        let result = work.await;
        self.current = None;
        let (outcome, detail) = match &result {
            Ok(checked) => (checked.outcome, checked.detail.clone()),
            Err(failure) => (StepOutcome::Failed, failure.message.clone()),
        };
        tracing::debug!(step = name, %outcome, detail, "test restore");
        self.done.push(ProofStep { name: name.to_owned(), outcome, detail, duration: watch.elapsed() });
        result.map(|checked| checked.value)
    }

    /// Records the step as failed that was left in the middle.
    pub(super) fn give_up(&mut self, reason: &str) {
        if let Some((name, watch)) = self.current.take() {
            let (outcome, detail) = (StepOutcome::Failed, reason.to_owned());
            self.done.push(ProofStep { name, outcome, detail, duration: watch.elapsed() });
        }
    }

    /// Whether it came so far that the backup itself was tried.
    pub(super) fn has_verdict(&self) -> bool {
        self.done.iter().any(|step| step.name == self.plan.verdict_from)
    }

    /// Adds the steps that were not reached.
    pub(super) fn fill_up(&mut self, reason: &str) {
        for name in self.plan.order {
            if !self.done.iter().any(|step| step.name == *name) {
                let (name, detail) = ((*name).to_owned(), reason.to_owned());
                self.done.push(ProofStep { name, outcome: StepOutcome::Skipped, detail, duration: Duration::ZERO });
            }
        }
        let order = self.plan.order;
        let place = |step: &ProofStep| order.iter().position(|name| *name == step.name).unwrap_or(order.len());
        self.done.sort_by_key(place);
    }

    /// Whether it is a proof: nothing failed, and everything was done that must be.
    pub(super) fn passed(&self, must_assert: bool) -> bool {
        let is_passed =
            |name: &str| self.done.iter().any(|step| step.name == name && step.outcome == StepOutcome::Passed);
        let nothing_failed = self.done.iter().all(|step| step.outcome != StepOutcome::Failed);
        nothing_failed
            && self.plan.mandatory.iter().all(|name| is_passed(name))
            && (!must_assert || is_passed("assertions"))
    }

    /// The length of the steps that a real recovery would need as well.
    pub(super) fn recovery_time(&self) -> Duration {
        let counts = |step: &&ProofStep| self.plan.recovery.contains(&step.name.as_str());
        self.done.iter().filter(counts).map(|step| step.duration).sum()
    }

    /// The steps as the proof keeps them.
    pub(super) fn take(&mut self) -> Vec<ProofStep> {
        std::mem::take(&mut self.done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::ExitCode, record::ErrorClass};

    const PLAN: Plan = Plan {
        order: &["backup", "space", "restore", "archive", "fetch_wal", "connect", "read_every_row", "amcheck"],
        mandatory: MANDATORY,
        verdict_from: "restore",
        recovery: &["restore", "fetch_wal"],
    };
    const MANDATORY: &[&str] = &["restore", "fetch_wal", "connect", "read_every_row"];

    async fn done(names: &[&str]) -> Steps {
        let mut steps = Steps::new(&PLAN);
        for name in names {
            steps.run(name, async { Ok(Checked::passed((), "seen")) }).await.unwrap();
        }
        steps
    }

    #[tokio::test]
    async fn a_proof_needs_every_mandatory_step() {
        assert!(done(MANDATORY).await.passed(false));
        assert!(!done(MANDATORY).await.passed(true), "assertions are written but were not asked");
        for left_out in MANDATORY {
            let rest: Vec<&str> = MANDATORY.iter().copied().filter(|name| name != left_out).collect();
            let mut steps = done(&rest).await;
            steps.run(left_out, async { Ok(Checked::skipped((), "why not")) }).await.unwrap();
            assert!(!steps.passed(false), "{left_out} was skipped");
        }
    }

    #[tokio::test]
    async fn a_failed_step_is_recorded_and_spoils_the_proof() {
        let mut steps = done(MANDATORY).await;
        let failure = Failure {
            class: ErrorClass::Integrity,
            exit: ExitCode::RestoreFailed,
            message: "3 corrupt".to_owned(),
            remedy: None,
        };
        assert!(steps.run("amcheck", async { Err::<Checked<()>, _>(failure) }).await.is_err());
        assert!(!steps.passed(false));
        let last = steps.take().pop().unwrap();
        assert_eq!((last.outcome, last.detail.as_str()), (StepOutcome::Failed, "3 corrupt"));
    }

    #[tokio::test]
    async fn what_was_not_reached_stands_in_its_place() {
        let mut steps = done(&["backup", "restore", "teardown"]).await;
        steps.fill_up("an earlier step failed");
        let steps = steps.take();
        assert_eq!(steps.len(), PLAN.order.len() + 1);
        assert_eq!(steps[2].name, "restore");
        assert_eq!((steps[3].name.as_str(), steps[3].outcome), ("archive", StepOutcome::Skipped));
        assert_eq!(steps.last().unwrap().name, "teardown");
    }

    #[tokio::test]
    async fn what_ended_before_the_backup_was_tried_is_no_verdict_on_it() {
        assert!(!done(&["backup", "space"]).await.has_verdict());
        assert!(done(&["backup", "space", "restore"]).await.has_verdict());
    }

    #[tokio::test]
    async fn a_step_that_was_left_in_the_middle_has_failed() {
        let mut steps = done(MANDATORY).await;
        let endless = steps.run("amcheck", std::future::pending::<Result<()>>());
        assert!(tokio::time::timeout(Duration::ZERO, endless).await.is_err());
        steps.give_up("not done in time");
        assert!(!steps.passed(false));
        assert_eq!(steps.take().last().unwrap().name, "amcheck");
    }
}
