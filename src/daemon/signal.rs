//! Signals as events: SIGHUP reloads, SIGTERM and SIGINT stop, SIGUSR1 tells the state.

use std::{
    io,
    sync::{Arc, atomic::AtomicBool},
};

use futures_util::StreamExt;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1},
    flag,
    iterator::exfiltrator::origin::WithOrigin,
};
use signal_hook_tokio::SignalsInfo;

/// What a person or systemd wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// Read the policy again.
    Reload,
    /// Stop in good order.
    Stop,
    /// Log the state.
    Dump,
}

/// The signals of this process.
pub(super) struct Signals {
    stream: SignalsInfo<WithOrigin>,
}

impl Signals {
    /// Registers the handlers. A second SIGTERM or SIGINT ends the process at once, even if it hangs.
    ///
    /// # Errors
    /// When the kernel refuses a handler.
    pub(super) fn register() -> io::Result<Self> {
        let stopping = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // In this order: the first signal finds the flag unset and sets it, the second finds it set.
            flag::register_conditional_shutdown(signal, 130, stopping.clone())?;
            flag::register(signal, stopping.clone())?;
        }
        Ok(Self { stream: SignalsInfo::new([SIGHUP, SIGTERM, SIGINT, SIGUSR1])? })
    }

    /// The next wish and who sent it.
    pub(super) async fn next(&mut self) -> (Wish, String) {
        loop {
            let Some(origin) = self.stream.next().await else {
                // The stream ends only when its handle is closed, which nobody does while this lives.
                return std::future::pending().await;
            };
            let sender = origin
                .process
                .map_or_else(|| "the kernel".to_owned(), |p| format!("process {} of user {}", p.pid, p.uid));
            match origin.signal {
                SIGHUP => return (Wish::Reload, sender),
                SIGTERM | SIGINT => return (Wish::Stop, sender),
                SIGUSR1 => return (Wish::Dump, sender),
                _ => {}
            }
        }
    }
}

/// Lets a command survive its terminal: SIGHUP is noticed and ignored; SIGINT and SIGTERM raise `stop`.
///
/// # Errors
/// When the kernel refuses a handler.
pub fn for_command(stop: crate::process::StopHandle) -> io::Result<()> {
    let mut signals = Signals::register()?;
    tokio::spawn(async move {
        loop {
            if signals.next().await.0 == Wish::Stop {
                stop.stop();
            }
        }
    });
    Ok(())
}
