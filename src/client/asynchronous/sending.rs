//! The task of a producer: takes messages from many senders, lets the driver gather them into batches, and tells each
//! sender its end.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::client::ClientError;
use crate::client::dispatch::{BatchOutcome, BatchResult};
use crate::client::holding::{HoldOutcome, HoldResult};
use crate::client::tokio_driver::AsyncProducer;

use super::backoff::Backoff;
use super::producer::{Send, SendReceipt, Waiter};
use super::waiting::Waiting;

/// Messages that are taken at once, before what was gathered leaves.
const TAKEN_MAX: usize = 1_024;

pub(super) struct SendTask {
    producer: AsyncProducer,
    sends: mpsc::UnboundedReceiver<Send>,
    /// Whether no more sends come: every clone of the producer is gone.
    is_closed: bool,
    batched: Waiting<Waiter>,
    /// Messages with a delay, by their number.
    held: HashMap<u64, Waiter>,
    next_hold: u64,
    backoff: Backoff,
}

impl SendTask {
    pub(super) fn new(
        producer: AsyncProducer,
        sends: mpsc::UnboundedReceiver<Send>,
        retry_for: Duration,
    ) -> Self {
        Self {
            producer,
            sends,
            is_closed: false,
            batched: Waiting::new(),
            held: HashMap::new(),
            next_hold: 0,
            backoff: Backoff::new(retry_for),
        }
    }

    pub(super) async fn run(mut self) {
        let mut taken = Vec::new();
        loop {
            // Not raced against new messages: a connection that is being made would be begun anew with each of them.
            let advanced = self.producer.advance().await;
            self.tell_ends(None);
            if let Err(error) = advanced {
                self.failed(error).await;
                continue;
            }
            self.backoff.succeeded();
            if self.is_closed && self.batched.is_empty() && self.held.is_empty() {
                return;
            }
            tokio::select! {
                count = self.sends.recv_many(&mut taken, TAKEN_MAX), if !self.is_closed => {
                    self.is_closed = count == 0;
                    taken.drain(..).for_each(|send| self.take(send));
                }
                waited = self.producer.wait() => {
                    self.tell_ends(None);
                    if let Err(error) = waited {
                        self.failed(error).await;
                    }
                }
            }
        }
    }

    fn take(&mut self, send: Send) {
        let Send { message, waiter } = send;
        let properties = match message.property_text(waiter.id) {
            Ok(properties) => properties,
            Err(failure) => return waiter.end(Err(failure.into())),
        };
        let borrowed = message.borrowed(&properties);
        match message.release() {
            None => match self.producer.take(&borrowed) {
                Ok((queue, number)) => self.batched.push(queue, number, waiter),
                Err(failure) => waiter.end(Err(failure.into())),
            },
            Some(release) => {
                let number = self.next_hold;
                match self.producer.hold(number, &borrowed, release) {
                    Ok(()) => {
                        self.next_hold += 1;
                        self.held.insert(number, waiter);
                    }
                    Err(failure) => waiter.end(Err(failure.into())),
                }
            }
        }
    }

    /// A broker was lost or could not be reached. What had left has ended as unknown; the rest stays, until that has
    /// lasted for too long or cannot pass.
    async fn failed(&mut self, error: ClientError) {
        let pause = if error.is_connection_loss() { self.backoff.failed() } else { None };
        match pause {
            Some(pause) => sleep(pause).await,
            None => {
                self.producer.give_up(&error.to_string());
                self.tell_ends(Some(&error));
            }
        }
    }

    /// Tells every message that has ended its end. `given_up` is why, for those that were refused without being sent.
    fn tell_ends(&mut self, given_up: Option<&ClientError>) {
        while let Some(result) = self.producer.take_result() {
            self.tell_batch(result, given_up);
        }
        while let Some(result) = self.producer.take_hold_result() {
            self.tell_held(result, given_up);
        }
    }

    fn tell_batch(&mut self, result: BatchResult, given_up: Option<&ClientError>) {
        let BatchResult { first_sequence, record_count, queue, outcome } = result;
        let waiters = self.batched.take(queue, first_sequence, record_count);
        for (index, waiter) in (0..).zip(waiters) {
            let end = match &outcome {
                BatchOutcome::Acknowledged { base_offset, level } => Ok(SendReceipt {
                    queue,
                    offset: Some(base_offset.advance(index)),
                    id: waiter.id,
                    level: *level,
                    due: None,
                }),
                BatchOutcome::Refused(failure) => {
                    Err(given_up.cloned().unwrap_or_else(|| failure.clone().into()))
                }
                BatchOutcome::Unknown(reason) => Err(ClientError::OutcomeUnknown { reason: reason.clone() }),
            };
            waiter.end(end);
        }
    }

    fn tell_held(&mut self, result: HoldResult, given_up: Option<&ClientError>) {
        let HoldResult { number, queue, outcome } = result;
        let Some(waiter) = self.held.remove(&number) else { return };
        let end = match outcome {
            HoldOutcome::Stored(held) => Ok(SendReceipt {
                queue,
                offset: held.offset,
                id: waiter.id,
                level: held.level,
                due: held.due,
            }),
            HoldOutcome::Refused(failure) => Err(given_up.cloned().unwrap_or_else(|| failure.into())),
            HoldOutcome::Unknown(reason) => Err(ClientError::OutcomeUnknown { reason }),
        };
        waiter.end(end);
    }
}
