//! Threads beside the cores for what holds a core up in TLS handshakes: large signatures.
//!
//! One for each core of the broker. They are of the system's class of idle threads: whatever else wants to run goes first, so no
//! message waits for them, and they are not bound to a core, since one of them may be idle. They end with the node.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_channel::Receiver;

use crate::runtime::host;
use crate::server::{CostlyStep, CostlyStepSender};

/// How long the node waits for a signature that is being made when it stops.
const END_TIMEOUT: Duration = Duration::from_millis(500);

/// The threads of a node.
pub(super) struct HandshakeThreads {
    steps: CostlyStepSender,
    threads: Vec<JoinHandle<()>>,
    /// Disconnected when the last one has ended.
    ended: mpsc::Receiver<()>,
}

impl HandshakeThreads {
    /// Starts as many, or says why there are fewer.
    pub fn spawn(count: usize) -> (Self, Vec<String>) {
        // A shard has one step at a time with them, so that there is no need for another bound.
        let (steps, receiver) = async_channel::unbounded();
        let (running, ended) = mpsc::channel();
        let (mut threads, mut warnings) = (Vec::new(), Vec::new());
        for number in 0..count {
            let (receiver, running) = (receiver.clone(), running.clone());
            let builder = std::thread::Builder::new().name(format!("handshake-{number}"));
            let spawned = builder.spawn(move || {
                make_steps(&receiver, number == 0);
                drop(running);
            });
            match spawned {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    let made = threads.len();
                    warnings.push(format!(
                        "of {count} threads for TLS handshakes only {made} are started ({error}): raise the limit of threads \
                         (ulimit -u), or large RSA keys hold up other clients"
                    ));
                    break;
                }
            }
        }
        (Self { steps, threads, ended }, warnings)
    }

    /// The way to them; closed when there are none.
    pub fn steps(&self) -> CostlyStepSender {
        self.steps.clone()
    }

    /// Lets them end, and waits for it.
    pub fn end(self) {
        self.steps.close();
        let deadline = Instant::now() + END_TIMEOUT;
        loop {
            match self.ended.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(()) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                // It holds nothing but a session, and ends with the process.
                Err(RecvTimeoutError::Timeout) => {
                    tracing::info!(target: "tls", "a thread for handshakes is left behind: no core was idle for it");
                    return;
                }
            }
        }
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!(target: "tls", "a thread for handshakes had ended before: what it said is above");
            }
        }
    }
}

fn make_steps(receiver: &Receiver<CostlyStep>, tells: bool) {
    if let Err(error) = host::give_way_to_all()
        && tells
    {
        tracing::warn!(target: "tls", "threads for handshakes run like all others, since the system refuses to let them give way: {error}");
    }
    while let Ok(step) = receiver.recv_blocking() {
        step.carry_out();
        if receiver.is_closed() {
            return;
        }
    }
}
