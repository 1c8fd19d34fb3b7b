//! Letters between shards.
//!
//! A shard asks another by a letter and gets the answer by a letter: so the only task that is ever woken from another
//! thread is a shard's mail task, which lives as long as the shard. (Waking a short-lived glommio task from elsewhere
//! can let its last reference go on the wrong thread.)
//!
//! Bound: a shard has at most [`MAILBOX_REQUESTS_MAX`](crate::limits::MAILBOX_REQUESTS_MAX) requests outstanding with
//! each other shard; beyond that `ask` fails with `Busy`. Answers go to whoever asked, so no mailbox holds more than
//! twice that per shard.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use async_channel::{Receiver, Sender};

use crate::api::{Failure, ShardAddress, Status};
use crate::broker::{PeerReply, PeerRequest, Peers};
use crate::limits;
use crate::types::{ShardId, TopicId};

/// What a shard finds in its mailbox.
pub(super) enum Letter {
    Ask {
        from: ShardId,
        ticket: u64,
        request: PeerRequest,
    },
    Answer {
        ticket: u64,
        result: Result<PeerReply, Failure>,
    },
    /// Something of a topic that the receiving shard watches has come.
    Arrived(TopicId),
    /// From the node: bring the other shards' topics in line, then report.
    SyncTopics,
    /// From the node: accept connections.
    Listen,
    /// From the node: finish and end.
    Stop,
}

pub(super) type Mailbox = Receiver<Letter>;
pub(super) type Letterbox = Sender<Letter>;

/// A mailbox and its slot.
pub(super) fn mailbox() -> (Letterbox, Mailbox) {
    async_channel::unbounded()
}

/// One shard's view of the others.
pub(super) struct ShardPeers {
    shard: ShardId,
    letterboxes: Vec<Letterbox>,
    addresses: Vec<ShardAddress>,
    next_ticket: Cell<u64>,
    /// The shard that was asked, and where its answer goes. One that nobody waits for any more still counts as
    /// outstanding until it is there.
    waiting: RefCell<HashMap<u64, (usize, Rc<Slot>)>>,
    outstanding: RefCell<Vec<usize>>,
}

/// Where an answer is put.
#[derive(Default)]
struct Slot {
    result: RefCell<Option<Result<PeerReply, Failure>>>,
    waker: RefCell<Option<Waker>>,
}

/// Waits for a slot.
struct Answer(Rc<Slot>);

impl Future for Answer {
    type Output = Result<PeerReply, Failure>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.0.result.borrow_mut().take() {
            Some(result) => Poll::Ready(result),
            None => {
                *self.0.waker.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl ShardPeers {
    pub fn new(shard: ShardId, letterboxes: Vec<Letterbox>, addresses: Vec<ShardAddress>) -> Self {
        let outstanding = RefCell::new(vec![0; letterboxes.len()]);
        Self {
            shard,
            letterboxes,
            addresses,
            next_ticket: Cell::new(0),
            waiting: RefCell::default(),
            outstanding,
        }
    }

    /// Sends the answer to a letter.
    pub fn answer(&self, to: ShardId, ticket: u64, result: Result<PeerReply, Failure>) {
        // A shard that has ended asks no more; its letters can be lost.
        let _ = self.letterboxes[usize::from(to.0)].try_send(Letter::Answer { ticket, result });
    }

    /// Puts an answer where it is waited for.
    pub fn answered(&self, ticket: u64, result: Result<PeerReply, Failure>) {
        let Some((index, slot)) = self.waiting.borrow_mut().remove(&ticket) else { return };
        self.outstanding.borrow_mut()[index] -= 1;
        *slot.result.borrow_mut() = Some(result);
        if let Some(waker) = slot.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// `Peers` for one shard.
pub(super) struct SharedPeers(pub Rc<ShardPeers>);

impl Peers for SharedPeers {
    fn ask(&self, shard: ShardId, request: PeerRequest) -> crate::broker::PeerFuture {
        let peers = self.0.clone();
        let index = usize::from(shard.0);
        if peers.outstanding.borrow()[index] >= limits::MAILBOX_REQUESTS_MAX {
            let failure =
                Failure::new(Status::Busy, format!("shard {shard} has too many requests waiting: try again"));
            return Box::pin(std::future::ready(Err(failure)));
        }
        let ticket = peers.next_ticket.get();
        peers.next_ticket.set(ticket + 1);
        let slot = Rc::new(Slot::default());
        peers.waiting.borrow_mut().insert(ticket, (index, slot.clone()));
        peers.outstanding.borrow_mut()[index] += 1;
        let letter = Letter::Ask { from: peers.shard, ticket, request };
        if peers.letterboxes[index].try_send(letter).is_err() {
            let failure = Failure::new(Status::ShuttingDown, format!("shard {shard} has ended"));
            peers.answered(ticket, Err(failure));
        }
        Box::pin(Answer(slot))
    }

    fn arrived(&self, shard: ShardId, topic: TopicId) {
        // A shard that has ended waits for nothing.
        let _ = self.0.letterboxes[usize::from(shard.0)].try_send(Letter::Arrived(topic));
    }

    fn addresses(&self) -> Vec<ShardAddress> {
        self.0.addresses.clone()
    }
}
