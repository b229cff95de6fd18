//! Threads for what blocks.
//!
//! They are not tokio's: one that is stuck in a read of a tool that hangs would hold up the end of the runtime. A newcomer
//! would join them; who was told to stop leaves them, and they end when the tool does.

use std::{io, thread};

use tokio::sync::oneshot;

use super::Error;

/// Starts a thread; its result comes by the receiver.
pub(super) fn start<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<oneshot::Receiver<T>, Error> {
    let (sender, receiver) = oneshot::channel();
    let started = thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Nobody waits any more when the stream was stopped.
        let _ = sender.send(work());
    });
    started.map(|_| receiver).map_err(|source| Error::Transform { what: "starting a thread", source })
}

/// The result of a thread; one that panicked has none.
pub(super) async fn ended<T>(receiver: oneshot::Receiver<Result<T, Error>>) -> Result<T, Error> {
    receiver.await.unwrap_or_else(|_| {
        Err(Error::Transform { what: "the stream", source: io::Error::other("a thread of it panicked") })
    })
}
