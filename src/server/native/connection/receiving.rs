//! Receives that may wait: a few at a time look for messages, and who has found none is parked.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use super::Native;
use super::waiting::receive_bytes;
use crate::api::{Receive, Reply};
use crate::broker::{ReceiveCall, ReceiveLook, ReceiveWait};
use crate::limits;
use crate::server::connection::ShardDisk;
use crate::server::framed::{Call, CallTerms};
use crate::server::parked::{LookReason, ParkedCall};

/// Receives that are to look for messages.
#[derive(Default)]
pub(super) struct CalledReceives {
    receives: RefCell<VecDeque<WaitingReceive>>,
    /// Tasks that do, for one receive after the other. The answers of a connection are made one at a time anyway.
    tasks: Cell<usize>,
}

/// A receive that may wait.
struct WaitingReceive {
    call: Call,
    correlation: u64,
    receive: ReceiveCall<ShardDisk>,
}

/// One that waits for messages.
struct ParkedReceive {
    native: Rc<Native>,
    waiting: WaitingReceive,
    /// What it waits for.
    wait: ReceiveWait,
}

impl Native {
    /// Begins a receive that may wait.
    pub(super) async fn receive(self: &Rc<Self>, correlation: u64, receive: Receive) {
        let carried_bytes = receive_bytes(&receive);
        let terms = CallTerms { carried_bytes, waits_long: true, is_parked: true, deadline: None };
        let Some(call) = self.calls.begin(terms, None).await else { return };
        match self.connections.broker.begin_receive(receive) {
            Ok(receive) => self.look_for(WaitingReceive { call, correlation, receive }),
            Err(failure) => self.answer(correlation, Err(failure)),
        }
    }

    /// Has a receive look for messages, in one of a few tasks: a thousand of them may be called by one message.
    fn look_for(self: &Rc<Self>, waiting: WaitingReceive) {
        let CalledReceives { receives, tasks } = &self.called_receives;
        receives.borrow_mut().push_back(waiting);
        if tasks.get() == limits::CONNECTION_CALLED_MAX {
            return;
        }
        tasks.set(tasks.get() + 1);
        let native = self.clone();
        let task = async move {
            let CalledReceives { receives, tasks } = &native.called_receives;
            loop {
                let next = receives.borrow_mut().pop_front();
                let Some(waiting) = next else { break };
                // Nothing is leased to who has left.
                if native.connection.is_here() {
                    native.look(waiting).await;
                }
            }
            tasks.set(tasks.get() - 1);
        };
        glommio::spawn_local(task).detach();
    }

    /// Looks for messages, and answers or parks the receive.
    async fn look(self: &Rc<Self>, waiting: WaitingReceive) {
        let WaitingReceive { call, correlation, receive } = &waiting;
        let pause = match receive.look(call).await {
            Ok(ReceiveLook::Waits(pause)) => pause,
            Ok(ReceiveLook::Over(messages)) => {
                return self.answer(*correlation, Ok(Reply::Received(messages)));
            }
            Err(failure) => return self.answer(*correlation, Err(failure)),
        };
        let slot = self.connection.parked.slot();
        if let Some((until, wait)) = receive.park(&pause, || slot.caller()) {
            let native = self.clone();
            return slot.park(until, Box::new(ParkedReceive { native, waiting, wait }));
        }
        let native = self.clone();
        let task = async move {
            waiting.receive.wait(pause, &waiting.call).await;
            native.look_for(waiting);
        };
        glommio::spawn_local(task).detach();
    }
}

impl ParkedCall for ParkedReceive {
    fn look(self: Box<Self>, reason: LookReason) -> usize {
        let Self { native, waiting, wait } = *self;
        drop(wait);
        if !native.connection.is_here() {
            return 0;
        }
        match reason {
            LookReason::Cut => {
                let nothing = Ok(Reply::Received(Vec::new()));
                native.answer(waiting.correlation, nothing);
            }
            LookReason::Called | LookReason::Over => native.look_for(waiting),
        }
        0
    }
}
