//! Writing a connection: answers that have become due, everything that is due with one call.

use std::rc::Rc;

use super::engine::{Framed, Unsettled};
use super::protocol::Protocol;
use super::sender::{SendHalf, Sender};
use crate::metrics::{Stage, Timeline};

impl<P: Protocol> Framed<P> {
    /// The writing task.
    pub(super) async fn write<W: SendHalf>(self: Rc<Self>, mut sender: Sender<W>) {
        let outbox = &self.connection.outbox;
        loop {
            self.settle();
            while sender.load(outbox) {
                let now = self.context.clock.monotonic();
                self.connection.write_stalled_since.set(Some(now));
                // When the peer has read what comes before is the peer's time.
                for answered in self.connection.take_slow() {
                    self.context.metrics.flight.record(answered, now);
                }
                let sent = sender.send(outbox).await;
                self.connection.write_stalled_since.set(None);
                self.context.metrics.socket_calls.add(1);
                if sent.is_err() {
                    // The peer is gone: what is still due to it is dropped, and the reader meets the end as well.
                    sender.unload(outbox);
                    self.connection.end();
                    return self.drop_answers();
                }
            }
            if outbox.is_closed() {
                self.connection.write_stalled_since.set(Some(self.context.clock.monotonic()));
                return sender.finish().await;
            }
            self.next_answer().await;
        }
    }

    /// Moves answers of placed requests that have reached their level to the outbox.
    fn settle(&self) {
        let now = self.context.clock.monotonic();
        let Self { connection, protocol, .. } = self;
        self.unsettled.borrow_mut().retain(|Unsettled { placed, timeline }| {
            if !protocol.settle(placed, timeline, now) {
                return true;
            }
            let took = timeline.took(now);
            self.context.metrics.record(Stage::Answer, took);
            if self.context.metrics.flight.is_slow(took, now) {
                let (subject, mark) = protocol.describe_placed(placed);
                self.note_slow(subject, Timeline { mark, ..*timeline }, now);
            }
            connection.note_answered();
            false
        });
    }

    /// Waits until there may be something to send.
    async fn next_answer(&self) {
        let filled = self.connection.outbox.filled().changed();
        if self.unsettled.borrow().is_empty() {
            futures_lite::future::or(filled, self.unsettled_added.changed()).await;
        } else {
            futures_lite::future::or(filled, self.protocol.settling().changed()).await;
        }
    }

    /// Keeps the accounts of a connection whose peer is gone until nothing is due any more.
    fn drop_answers(&self) {
        while let Some(chunk) = self.connection.outbox.take() {
            self.connection.outbox.sent(chunk);
        }
        let dropped = self.unsettled.take();
        dropped.iter().for_each(|_| self.connection.note_answered());
    }
}
