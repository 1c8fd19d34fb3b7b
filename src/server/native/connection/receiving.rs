//! Receives that may wait: a few at a time look for messages, and who has found none is parked.

use std::rc::Rc;

use super::Native;
use super::waiting::receive_bytes;
use crate::api::{Failure, Receive, Reply, RequestSubject};
use crate::broker::{ReceiveCall, ReceiveLook, ReceivePause, ReceiveWait};
use crate::metrics::Timeline;
use crate::server::connection::ShardDisk;
use crate::server::framed::{Call, CallTerms};
use crate::server::parked::{LookReason, ParkedCall};
use crate::types::MonotonicTime;

/// A receive that may wait.
pub(super) struct WaitingReceive {
    call: Call,
    correlation: u64,
    receive: ReceiveCall<ShardDisk>,
}

/// One that waits for messages.
struct ParkedReceive {
    native: Rc<Native>,
    waiting: WaitingReceive,
    pause: ReceivePause,
    /// What it waits for.
    wait: ReceiveWait,
}

impl Native {
    /// Begins a receive that may wait.
    pub(super) async fn receive(self: &Rc<Self>, correlation: u64, receive: Receive) {
        let (carried_bytes, subject) =
            (receive_bytes(&receive), RequestSubject::of_topic("receive", &receive.topic));
        let terms = CallTerms { carried_bytes, waits_long: true, is_parked: true, deadline: None };
        let Some(call) = self.calls.begin(terms, None).await else { return };
        call.describe(subject);
        match self.connections.broker.begin_receive(receive) {
            Ok(receive) => self.look_for(WaitingReceive { call, correlation, receive }),
            Err(failure) => self.answer(correlation, Err(failure)),
        }
    }

    /// Has a receive look for messages, in one of a few tasks: the answers of a connection are made one at a time anyway.
    fn look_for(self: &Rc<Self>, waiting: WaitingReceive) {
        let native = self.clone();
        let task = self.called_receives.add(waiting, async move |waiting| {
            // Nothing is leased to who has left.
            if native.connection.is_here() {
                native.look(waiting).await;
            }
        });
        if let Some(task) = task {
            glommio::spawn_local(task).detach();
        }
    }

    /// Looks for messages, and answers or parks the receive.
    async fn look(self: &Rc<Self>, waiting: WaitingReceive) {
        let WaitingReceive { call, correlation, receive } = &waiting;
        let pause = match call.traced(receive.look(call)).await {
            Ok(ReceiveLook::Waits(pause)) => pause,
            Ok(ReceiveLook::Over(messages)) => {
                return self.answer_call(call, *correlation, Ok(Reply::Received(messages)));
            }
            Err(failure) => return self.answer_call(call, *correlation, Err(failure)),
        };
        self.park_receive(waiting, pause);
    }

    fn answer_call(&self, call: &Call, correlation: u64, reply: Result<Reply, Failure>) {
        let flight = &self.connections.metrics.flight;
        flight.within(call.timeline.get(), || self.answer(correlation, reply));
    }

    /// Lets a receive wait as an entry, unless something has come meanwhile.
    fn park_receive(self: &Rc<Self>, waiting: WaitingReceive, pause: ReceivePause) {
        let slot = self.connection.parked.slot();
        match waiting.receive.park(&pause, || slot.caller()) {
            Some((until, wait)) => {
                let native = self.clone();
                slot.park(until, Box::new(ParkedReceive { native, waiting, pause, wait }));
            }
            None => self.look_for(waiting),
        }
    }
}

impl ParkedCall for ParkedReceive {
    fn woken(&self, since: MonotonicTime) -> Timeline {
        self.waiting.call.woken(since)
    }

    fn look(self: Box<Self>, reason: LookReason) -> usize {
        let Self { native, waiting, pause, wait } = *self;
        drop(wait);
        if !native.connection.is_here() {
            return 0;
        }
        match reason {
            LookReason::Cut => {
                let nothing = Ok(Reply::Received(Vec::new()));
                native.answer(waiting.correlation, nothing);
            }
            LookReason::Over if !waiting.receive.is_over(&pause) => {
                if let Some(telling) = waiting.receive.telling() {
                    glommio::spawn_local(telling).detach();
                }
                native.park_receive(waiting, pause);
            }
            LookReason::Called | LookReason::Over => native.look_for(waiting),
        }
        0
    }
}
