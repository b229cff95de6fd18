//! The wish to stop, carried from a signal or a person to whoever works.
//!
//! It says only that somebody wants the work to end; ending it is the business of the one who works. A newcomer would
//! let a dropped handle count as the wish; a daemon that ends for another reason would then cancel its runs.

use tokio::sync::watch;

/// Says stop. Dropping it says nothing.
#[derive(Debug, Clone)]
pub struct StopHandle(watch::Sender<bool>);

impl StopHandle {
    /// Asks everybody who holds the [`Stop`] to end.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

/// Hears stop. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Stop(Option<watch::Receiver<bool>>);

impl Stop {
    /// A handle and its ear.
    pub fn new() -> (StopHandle, Stop) {
        let (sender, receiver) = watch::channel(false);
        (StopHandle(sender), Stop(Some(receiver)))
    }

    /// For work that nobody stops.
    pub fn never() -> Stop {
        Stop(None)
    }

    /// Whether somebody asked already.
    pub fn is_stopped(&self) -> bool {
        self.0.as_ref().is_some_and(|receiver| *receiver.borrow())
    }

    /// Ends when somebody asks.
    pub async fn stopped(&self) {
        if let Some(mut receiver) = self.0.clone()
            && receiver.wait_for(|stopped| *stopped).await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::pin, task::Poll};

    use super::*;

    #[tokio::test]
    async fn a_dropped_handle_is_not_a_wish_to_stop() {
        let (handle, stop) = Stop::new();
        drop(handle);
        let mut stopped = pin!(stop.stopped());
        let polled = std::future::poll_fn(|context| Poll::Ready(stopped.as_mut().poll(context))).await;
        assert!(polled.is_pending());
    }

    #[tokio::test]
    async fn everybody_hears_it_also_later() {
        let (handle, stop) = Stop::new();
        assert!(!stop.is_stopped());
        handle.clone().stop();
        stop.clone().stopped().await;
        assert!(stop.is_stopped());
    }
}
