//! Single messages on their way to become batches.
//!
//! What comes for a queue while no commit group can be taken anyway becomes one batch: one header, one checksum, one entry of
//! the index for many messages, and no wait that would not have been there, since the commit task has everything placed
//! before it takes a group. Each message has its own answer.
//!
//! 1. A queue has at most one batch in the making, and stands in `order` then. No queue stands there twice.
//! 2. `bytes` is what all of them hold; no message is taken that would make it more than [`GATHERED_BYTES_MAX`], unless it is
//!    the only one.
//! 3. Whoever waits is woken once: when its message has reached its level, or cannot. Being placed is nothing to wake for.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::queue::Queue;
use super::writer::PlacedBatch;
use crate::api::Failure;
use crate::limits;
use crate::log::{Placement, Watermarks};
use crate::types::{Level, QueueOffset, RecordLocation, Timestamp};
use crate::wire::batch::{BatchBuilder, OwnedBatch};
use crate::wire::record::Record;

/// From here on the log writes a group while it flushes the one before: so much is placed at once, for the log to know it.
pub(super) const GATHERED_BYTES_MAX: usize = limits::GROUP_OVERLAP_BYTES;
/// Memory of batches that is kept for the next ones, and how much of each.
const SPARES_MAX: usize = 64;
const SPARE_BYTES_MAX: usize = 16 * 1024;

/// Where the number of a record in its batch is stored, it has 16 bits.
const _: () = assert!(GATHERED_BYTES_MAX / crate::wire::record::RECORD_HEADER_BYTES <= u16::MAX as usize);

/// A message for the end of a queue. It keeps within the limits of a record.
#[derive(Clone, Copy, Debug)]
pub struct Single<'a> {
    pub born_time: Timestamp,
    pub record: Record<'a>,
}

impl Single<'_> {
    /// A batch of this one message.
    pub fn alone(&self) -> OwnedBatch {
        let mut builder = BatchBuilder::new(self.born_time);
        builder.push(&self.record);
        builder.finish_checked()
    }
}

/// The batches in the making of one shard.
#[derive(Default)]
pub(super) struct Gathering {
    /// Queues with such a batch, and maybe some that had one, in the order in which they are placed.
    order: RefCell<VecDeque<Rc<Queue>>>,
    bytes: Cell<usize>,
    spares: RefCell<Vec<Vec<u8>>>,
}

/// What a queue knows of it.
#[derive(Default)]
pub struct QueueGathering {
    batch: RefCell<Option<Gathered>>,
    is_in_order: Cell<bool>,
}

/// A batch in the making.
pub(super) struct Gathered {
    pub batch: BatchBuilder,
    /// The highest level that is waited for.
    pub level: Level,
    waiting: Rc<Waiting>,
}

/// Those who wait for the messages of one batch.
#[derive(Default)]
struct Waiting {
    outcome: RefCell<Option<Result<PlacedBatch, Failure>>>,
    wakers: RefCell<Vec<(Level, Waker)>>,
}

/// One message of a batch in the making.
#[must_use]
pub(super) struct Ticket {
    waiting: Rc<Waiting>,
    index: u16,
    pub level: Level,
}

/// One message that was placed.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlacedMessage {
    pub offset: QueueOffset,
    pub location: RecordLocation,
    /// Of its batch.
    pub placement: Placement,
}

impl Gathering {
    /// Whether a message of so many bytes may be taken before others are placed.
    pub fn has_space(&self, bytes: usize) -> bool {
        let gathered = self.bytes.get();
        gathered == 0 || gathered + bytes <= GATHERED_BYTES_MAX
    }

    pub fn is_full(&self) -> bool {
        self.bytes.get() >= GATHERED_BYTES_MAX
    }

    pub fn is_empty(&self) -> bool {
        self.order.borrow().is_empty()
    }

    /// The queue whose batch is placed first.
    pub fn first(&self) -> Option<Rc<Queue>> {
        self.order.borrow().front().cloned()
    }

    /// Takes that queue out of the order.
    pub fn remove_first(&self) {
        let queue = self.order.borrow_mut().pop_front().expect("there is a first one");
        queue.gathering.is_in_order.set(false);
    }

    /// Whether a message can be one of what its queue has gathered.
    pub fn goes_on(&self, queue: &Queue, message: &Single<'_>) -> bool {
        queue.gathering.batch.borrow().as_ref().is_none_or(|gathered| gathered.takes(message))
    }

    /// Adds a message to the batch of its queue, which goes on with it.
    pub fn add(&self, queue: &Rc<Queue>, message: &Single<'_>, level: Level) -> Ticket {
        if !queue.gathering.is_in_order.replace(true) {
            self.order.borrow_mut().push_back(queue.clone());
        }
        let mut batch = queue.gathering.batch.borrow_mut();
        let gathered = batch.get_or_insert_with(|| {
            let memory = self.spares.borrow_mut().pop().unwrap_or_default();
            Gathered {
                batch: BatchBuilder::reusing(memory, message.born_time),
                level: Level::Accepted,
                waiting: Rc::default(),
            }
        });
        self.bytes.set(self.bytes.get() + message.record.encoded_bytes());
        gathered.push(message, level)
    }

    /// Takes the batch of a queue out, to be placed or refused.
    pub fn take(&self, queue: &Queue) -> Option<Gathered> {
        let gathered = queue.gathering.batch.take()?;
        self.bytes.set(self.bytes.get() - gathered.bytes());
        Some(gathered)
    }

    /// The opposite, when the log had no space for it.
    pub fn put_back(&self, queue: &Queue, gathered: Gathered) {
        self.bytes.set(self.bytes.get() + gathered.bytes());
        let before = queue.gathering.batch.replace(Some(gathered));
        assert!(before.is_none(), "invariant 1: two batches of {}", queue.key);
    }

    /// Keeps the memory of a batch that is done with.
    pub fn give_back(&self, gathered: Gathered) {
        let memory = gathered.batch.into_memory();
        let mut spares = self.spares.borrow_mut();
        if spares.len() < SPARES_MAX && memory.capacity() <= SPARE_BYTES_MAX {
            spares.push(memory);
        }
    }
}

impl Gathered {
    fn bytes(&self) -> usize {
        self.batch.record_bytes()
    }

    /// Whether a message can be one of this batch: its birth is told by the distance to the first one's.
    fn takes(&self, message: &Single<'_>) -> bool {
        self.born_delta(message).is_some() && self.batch.fits(&message.record)
    }

    fn born_delta(&self, message: &Single<'_>) -> Option<i32> {
        let own = i64::from(message.record.born_delta_ms);
        let base = message.born_time.0 as i64 - self.batch.born_time().0 as i64;
        i32::try_from(base.checked_add(own)?).ok()
    }

    fn push(&mut self, message: &Single<'_>, level: Level) -> Ticket {
        let born_delta_ms = self.born_delta(message).expect("the caller has asked whether it takes it");
        let index =
            u16::try_from(self.batch.record_count()).expect("a batch of so few bytes has few records");
        self.batch.push(&Record { born_delta_ms, ..message.record });
        self.level = self.level.max(level);
        Ticket { waiting: self.waiting.clone(), index, level }
    }

    /// Tells everybody where the batch is. They are woken when it has reached their level.
    pub fn placed(&self, at: PlacedBatch, watermarks: &Watermarks) {
        self.waiting.outcome.replace(Some(Ok(at)));
        for (level, waker) in self.waiting.wakers.take() {
            watermarks.wake_at(level, at.placement.end, waker);
        }
    }

    /// Tells everybody why nothing of it was stored.
    pub fn refused(&self, failure: &Failure) {
        self.waiting.outcome.replace(Some(Err(failure.clone())));
        self.waiting.wakers.take().into_iter().for_each(|(_, waker)| waker.wake());
    }
}

impl Ticket {
    /// Waits until the message was placed; it goes on when the level is reached, or with the refusal.
    pub async fn placed(&self) -> Result<PlacedMessage, Failure> {
        let mut registered = None;
        let at = poll_fn(|context| self.poll_placed(context, &mut registered)).await?;
        Ok(self.message_of(at))
    }

    /// Where the message was placed, or why it was refused; `None`: neither yet, and whoever asks is not woken for it.
    pub fn outcome(&self) -> Option<Result<PlacedMessage, Failure>> {
        let outcome = self.waiting.outcome.borrow().clone()?;
        Some(outcome.map(|at| self.message_of(at)))
    }

    fn message_of(&self, at: PlacedBatch) -> PlacedMessage {
        let PlacedBatch { base_offset, placement } = at;
        let location = RecordLocation { position: placement.position, index: self.index };
        PlacedMessage { offset: base_offset.advance(u64::from(self.index)), location, placement }
    }

    fn poll_placed(
        &self,
        context: &mut Context<'_>,
        registered: &mut Option<usize>,
    ) -> Poll<Result<PlacedBatch, Failure>> {
        if let Some(outcome) = &*self.waiting.outcome.borrow() {
            return Poll::Ready(outcome.clone());
        }
        let mut wakers = self.waiting.wakers.borrow_mut();
        match *registered {
            Some(at) => wakers[at].1.clone_from(context.waker()),
            None => {
                *registered = Some(wakers.len());
                wakers.push((self.level, context.waker().clone()));
            }
        }
        Poll::Pending
    }
}
