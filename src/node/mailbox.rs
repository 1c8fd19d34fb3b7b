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
use std::sync::Arc;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};

use async_channel::{Receiver, Sender};

use super::core::CoreEvent;
use crate::admin::Question;
use crate::api::{Failure, SettingChange, ShardAddress, Status};
use crate::broker::{LiveOptions, PeerReply, PeerRequest, Peers};
use crate::limits;
use crate::types::{ShardId, TopicId, WakerList};

/// What a shard finds in its mailbox.
pub(super) enum Letter {
    Ask {
        from: ShardId,
        ticket: u64,
        request: PeerRequest,
    },
    /// Nobody waits any more for the answer to a request that does nothing but wait.
    Cancel {
        from: ShardId,
        ticket: u64,
    },
    Answer {
        ticket: u64,
        result: Result<PeerReply, Failure>,
    },
    /// Something of a topic that the receiving shard watches has come.
    Arrived(TopicId),
    /// From the node: note in the manifest which epoch each shard has reached, then report.
    NoteEpochs(Arc<[u32]>),
    /// From the node: bring the other shards' topics in line, then report.
    SyncTopics,
    /// From the admin address. It is answered through its slot.
    Question(Question),
    /// From the node: accept connections.
    Listen,
    /// From the node: read the files of access keys and certificates again, whether they have changed or not.
    ReadAgain,
    /// From the node: these settings count from now on.
    Live(LiveOptions),
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
    /// The way to the node.
    events: mpsc::Sender<CoreEvent>,
    next_ticket: Cell<u64>,
    /// The shard that was asked, and where its answer goes. One that nobody waits for any more still counts as
    /// outstanding until it is there.
    waiting: RefCell<HashMap<u64, Asked>>,
    outstanding: RefCell<Vec<usize>>,
    /// Of which only wait.
    outstanding_waits: RefCell<Vec<usize>>,
    /// Requests of others that only wait, and end when they are cancelled.
    asked: RefCell<HashMap<(ShardId, u64), Rc<Cancellation>>>,
}

/// A request to another shard that was not answered yet.
struct Asked {
    /// The shard that was asked.
    index: usize,
    only_waits: bool,
    slot: Rc<Slot>,
}

/// Whether a request that only waits is still waited for.
#[derive(Default)]
pub(super) struct Cancellation {
    is_cancelled: Cell<bool>,
    cancelled: WakerList,
}

/// Where an answer is put.
#[derive(Default)]
struct Slot {
    result: RefCell<Option<Result<PeerReply, Failure>>>,
    waker: RefCell<Option<Waker>>,
}

/// Waits for a slot. Dropped before there is an answer, it lets go of a request that only waits.
struct Answer {
    slot: Rc<Slot>,
    /// Whose request it is, when it only waits: to whom to say that nobody does any more.
    cancels: Option<(Rc<ShardPeers>, usize, u64)>,
}

impl Future for Answer {
    type Output = Result<PeerReply, Failure>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        match this.slot.result.borrow_mut().take() {
            Some(result) => {
                this.cancels = None;
                Poll::Ready(result)
            }
            None => {
                *this.slot.waker.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let Some((peers, index, ticket)) = self.cancels.take() else { return };
        if peers.waiting.borrow().contains_key(&ticket) {
            // A shard that has ended waits for nothing.
            let _ = peers.letterboxes[index].try_send(Letter::Cancel { from: peers.shard, ticket });
        }
    }
}

impl ShardPeers {
    pub fn new(
        shard: ShardId,
        letterboxes: Vec<Letterbox>,
        addresses: Vec<ShardAddress>,
        events: mpsc::Sender<CoreEvent>,
    ) -> Self {
        let outstanding = RefCell::new(vec![0; letterboxes.len()]);
        let outstanding_waits = outstanding.clone();
        Self {
            shard,
            letterboxes,
            addresses,
            events,
            next_ticket: Cell::new(0),
            waiting: RefCell::default(),
            outstanding,
            outstanding_waits,
            asked: RefCell::default(),
        }
    }

    /// Takes note of a request that is about to be sent.
    fn ticket(&self, index: usize, only_waits: bool) -> (u64, Rc<Slot>) {
        let ticket = self.next_ticket.get();
        self.next_ticket.set(ticket + 1);
        let slot = Rc::new(Slot::default());
        self.waiting.borrow_mut().insert(ticket, Asked { index, only_waits, slot: slot.clone() });
        self.outstanding.borrow_mut()[index] += 1;
        self.outstanding_waits.borrow_mut()[index] += usize::from(only_waits);
        (ticket, slot)
    }

    /// Sends the answer to a letter.
    pub fn answer(&self, to: ShardId, ticket: u64, result: Result<PeerReply, Failure>) {
        // A shard that has ended asks no more; its letters can be lost.
        let _ = self.letterboxes[usize::from(to.0)].try_send(Letter::Answer { ticket, result });
    }

    /// Takes note of another shard's request that only waits. To be called with its letter: the next one may cancel it.
    pub fn note_wait(&self, from: ShardId, ticket: u64) -> Rc<Cancellation> {
        let cancellation = Rc::<Cancellation>::default();
        self.asked.borrow_mut().insert((from, ticket), cancellation.clone());
        cancellation
    }

    /// Answers a request that only waits, when the wait is over or is cancelled.
    pub async fn answer_wait(
        &self,
        (from, ticket): (ShardId, u64),
        cancellation: Rc<Cancellation>,
        waiting: impl Future<Output = Result<PeerReply, Failure>>,
    ) {
        let cancelled = async {
            while !cancellation.is_cancelled.get() {
                cancellation.cancelled.changed().await;
            }
            Ok(PeerReply::Done)
        };
        let result = futures_lite::future::or(waiting, cancelled).await;
        self.asked.borrow_mut().remove(&(from, ticket));
        self.answer(from, ticket, result);
    }

    /// Another shard does not wait any more for what it has asked.
    pub fn cancelled(&self, from: ShardId, ticket: u64) {
        let cancellation = self.asked.borrow().get(&(from, ticket)).cloned();
        if let Some(cancellation) = cancellation {
            cancellation.is_cancelled.set(true);
            cancellation.cancelled.wake();
        }
    }

    /// Puts an answer where it is waited for.
    pub fn answered(&self, ticket: u64, result: Result<PeerReply, Failure>) {
        let Some(Asked { index, only_waits, slot }) = self.waiting.borrow_mut().remove(&ticket) else {
            return;
        };
        self.outstanding.borrow_mut()[index] -= 1;
        self.outstanding_waits.borrow_mut()[index] -= usize::from(only_waits);
        *slot.result.borrow_mut() = Some(result);
        if let Some(waker) = slot.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

fn busy(shard: ShardId) -> Failure {
    Failure::new(Status::Busy, format!("shard {shard} has too many requests waiting: try again"))
}

/// `Peers` for one shard.
pub(super) struct SharedPeers(pub Rc<ShardPeers>);

impl Peers for SharedPeers {
    fn ask(&self, shard: ShardId, request: PeerRequest) -> crate::broker::PeerFuture {
        let peers = self.0.clone();
        let index = usize::from(shard.0);
        if peers.outstanding.borrow()[index] >= limits::MAILBOX_REQUESTS_MAX {
            return Box::pin(std::future::ready(Err(busy(shard))));
        }
        let only_waits = request.only_waits();
        if only_waits && peers.outstanding_waits.borrow()[index] >= limits::MAILBOX_WAITS_MAX {
            return Box::pin(std::future::ready(Err(busy(shard))));
        }
        let (ticket, slot) = peers.ticket(index, only_waits);
        let letter = Letter::Ask { from: peers.shard, ticket, request };
        if peers.letterboxes[index].try_send(letter).is_err() {
            let failure = Failure::new(Status::ShuttingDown, format!("shard {shard} has ended"));
            peers.answered(ticket, Err(failure));
        }
        let cancels = only_waits.then_some((peers, index, ticket));
        Box::pin(Answer { slot, cancels })
    }

    fn settings(&self, changes: Vec<SettingChange>) -> crate::broker::PeerFuture {
        let peers = self.0.clone();
        let index = usize::from(peers.shard.0);
        if peers.outstanding.borrow()[index] >= limits::MAILBOX_REQUESTS_MAX {
            return Box::pin(std::future::ready(Err(busy(peers.shard))));
        }
        // The node answers by a letter, as a shard does.
        let (ticket, slot) = peers.ticket(index, false);
        if peers.events.send(CoreEvent::Settings { shard: peers.shard, ticket, changes }).is_err() {
            peers.answered(ticket, Err(Failure::new(Status::ShuttingDown, "the node has ended")));
        }
        Box::pin(Answer { slot, cancels: None })
    }

    fn arrived(&self, shard: ShardId, topic: TopicId) {
        // A shard that has ended waits for nothing.
        let _ = self.0.letterboxes[usize::from(shard.0)].try_send(Letter::Arrived(topic));
    }

    fn addresses(&self) -> Vec<ShardAddress> {
        self.0.addresses.clone()
    }
}
