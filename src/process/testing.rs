//! Waiting in tests: for a state, with a deadline, never for a length of time.

use std::time::Duration;

use crate::clock::Stopwatch;

/// Waits until `condition` holds; fails the test when it does not within a minute.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let watch = Stopwatch::start();
    while !condition() {
        assert!(watch.elapsed() < Duration::from_secs(60), "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
