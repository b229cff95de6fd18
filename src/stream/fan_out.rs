//! One stream into several uploads at once.
//!
//! Each upload is a task with a short queue. The chunks are shared, not copied, and the giver waits for the fullest
//! queue, so the slowest storage sets the pace and memory stays the same. An upload that fails is discarded by its own
//! task and the others go on.
//!
//! A newcomer would finish an upload when its queue ends; a stream that broke ends its queues too.

use std::future::{self, Future};

use bytes::Bytes;
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
};

use crate::{
    process::{Stop, StopHandle},
    storage::{self, Upload},
};

/// Chunks that wait for an upload.
const DEPTH: usize = 4;

/// What takes a stream; stands in for the storages in tests.
pub(super) trait Sink: Send + 'static {
    fn write(&mut self, bytes: Bytes) -> impl Future<Output = Result<(), storage::Error>> + Send;
    fn discard(self) -> impl Future<Output = ()> + Send;
}

impl Sink for Upload {
    fn write(&mut self, bytes: Bytes) -> impl Future<Output = Result<(), storage::Error>> + Send {
        Upload::write(self, bytes)
    }

    fn discard(self) -> impl Future<Output = ()> + Send {
        Upload::discard(self)
    }
}

/// The uploads by storage, each whole or failed.
pub(super) type Written<S> = Vec<(String, Result<S, storage::Error>)>;

/// The uploads of one stream.
pub(super) struct FanOut<S> {
    names: Vec<String>,
    tasks: JoinSet<(usize, Result<S, storage::Error>)>,
    ended: Vec<Option<Result<S, storage::Error>>>,
    give_up: StopHandle,
}

impl<S: Sink> FanOut<S> {
    /// Starts a task for each upload; what goes into the outlets goes into all of them.
    pub(super) fn start(uploads: Vec<(String, S)>) -> (Self, Outlets) {
        let (give_up, given_up) = Stop::new();
        let (mut names, mut tasks, mut outlets) = (Vec::new(), JoinSet::new(), Vec::new());
        for (index, (name, sink)) in uploads.into_iter().enumerate() {
            let (outlet, queue) = mpsc::channel(DEPTH);
            let given_up = given_up.clone();
            tasks.spawn(async move { (index, write_all(sink, queue, &given_up).await) });
            names.push(name);
            outlets.push(outlet);
        }
        let ended = names.iter().map(|_| None).collect();
        (Self { names, tasks, ended, give_up }, Outlets(outlets))
    }

    /// Waits until every upload failed; for ever when one does not.
    pub(super) async fn nobody_is_left(&mut self) {
        self.end().await;
        if self.is_anybody_left() {
            future::pending().await
        }
    }

    /// Whether an upload has not failed, as far as it ended.
    pub(super) fn is_anybody_left(&self) -> bool {
        self.ended.iter().flatten().any(Result::is_ok)
    }

    /// Waits until every queue was written or its upload failed. May be cancelled and asked again.
    pub(super) async fn end(&mut self) {
        while let Some(joined) = self.tasks.join_next().await {
            let (index, written) = joined.unwrap_or_else(resume);
            self.ended[index] = Some(written);
        }
    }

    /// What became of each, after [`end`](Self::end).
    pub(super) fn written(self) -> Written<S> {
        let ended = self.ended.into_iter().map(|ended| ended.expect("every task ended"));
        self.names.into_iter().zip(ended).collect()
    }

    /// Leaves nothing of any of them. When none was left, tells why the first one failed.
    pub(super) async fn discard(mut self) -> Option<storage::Error> {
        self.give_up.stop();
        self.end().await;
        let was_anybody_left = self.is_anybody_left();
        let mut first = None;
        for (_, written) in self.written() {
            match written {
                Ok(sink) => sink.discard().await,
                Err(error) => first = first.or(Some(error)),
            }
        }
        first.filter(|_| !was_anybody_left)
    }
}

/// Tasks are never aborted while somebody waits for them, so a task that did not end by itself panicked.
fn resume<T>(error: JoinError) -> T {
    std::panic::resume_unwind(error.into_panic())
}

async fn write_all<S: Sink>(mut sink: S, mut queue: mpsc::Receiver<Bytes>, stop: &Stop) -> Result<S, storage::Error> {
    loop {
        let step = async {
            match queue.recv().await {
                Some(bytes) => sink.write(bytes).await.map(|()| true),
                None => Ok(false),
            }
        };
        let more = tokio::select! {
            biased;
            () = stop.stopped() => return Ok(sink),
            more = step => more,
        };
        match more {
            Ok(true) => {}
            Ok(false) => return Ok(sink),
            Err(error) => {
                drop(queue);
                sink.discard().await;
                return Err(error);
            }
        }
    }
}

/// Where the stream goes in.
pub(super) struct Outlets(Vec<mpsc::Sender<Bytes>>);

impl Outlets {
    /// Gives a chunk to every upload that is left and blocks while one of their queues is full; false when none is left.
    pub(super) fn send(&mut self, bytes: &Bytes) -> bool {
        self.0.retain(|outlet| outlet.blocking_send(bytes.clone()).is_ok());
        !self.0.is_empty()
    }
}
