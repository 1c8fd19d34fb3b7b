//! A producer that tasks share.

use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::client::producer::read_clocks;
use crate::client::tokio_driver::AsyncProducer;
use crate::client::{ClientError, ProducerOptions};
use crate::types::{Level, QueueNumber, QueueOffset, Timestamp, TopicName, UniqueId, UniqueIdGenerator};

use super::message::Message;
use super::sending::SendTask;

/// The most bytes of messages that a producer takes ahead of their answers, as far as a semaphore counts.
const BUFFER_BYTES_MAX: usize = u32::MAX as usize;

/// Sends messages to one topic. Cheap to clone: clones share connections, batches and the bound of bytes.
///
/// A message leaves at once while few batches are on their way; under load, those that come meanwhile are the next batch.
/// So many tasks that each wait for their own receipt are not slower than one that sends batches.
///
/// * **Order**: messages of one queue are stored in the order in which their sends were first polled, among all clones.
///   A message with a delay keeps no order.
/// * **Never twice**: a message that may be stored is not sent again; it ends as [`ClientError::OutcomeUnknown`]. One that
///   is known not to be stored is tried again for [`ProducerOptions::retry_for`], 30 seconds unless chosen otherwise: when
///   the broker is busy, or cannot be reached. It is not, and ends as refused, when a later message of its queue was
///   stored meanwhile: see [`RetryOrder`](crate::client::RetryOrder).
/// * **Bounded**: [`ProducerOptions::buffered_bytes_max`] of messages without an answer; beyond it, sending waits.
///
/// It is a task on the runtime in which it was made. The task ends when the last clone has been dropped and everything that
/// was handed to it has its answer. Before a runtime is shut down, [`flush`](Self::flush).
#[derive(Clone)]
pub struct Producer {
    shared: Arc<Shared>,
}

struct Shared {
    topic: TopicName,
    sends: mpsc::UnboundedSender<Send>,
    /// Bytes of messages that may be handed over. It bounds the channel: every message takes some.
    buffer: Arc<Semaphore>,
    buffer_bytes: u32,
    ids: Mutex<UniqueIdGenerator>,
}

/// A message on its way to the task.
pub(super) struct Send {
    pub(super) message: Message,
    pub(super) waiter: Waiter,
}

/// Who waits for a message's end.
pub(super) struct Waiter {
    pub(super) id: UniqueId,
    receipt: oneshot::Sender<Result<SendReceipt, ClientError>>,
    /// Given back when the message has ended.
    _buffered: OwnedSemaphorePermit,
}

/// What is known of a message that was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SendReceipt {
    /// The queue's number in its topic, from 0.
    pub queue: QueueNumber,
    /// Its place in the queue. `None` for a message that consumers get later: it has its place from then on.
    pub offset: Option<QueueOffset>,
    /// The id that this library gave the message. It can be looked for by it in its topic, as by a key.
    pub id: UniqueId,
    /// How safely it was stored when this was answered.
    pub level: Level,
    /// When consumers get a message with a delay, by the broker's clock.
    pub due: Option<Timestamp>,
}

/// The end of a message that was handed over, see [`Producer::enqueue`].
#[must_use = "whether the message was stored is what this becomes"]
pub struct PendingSend {
    id: UniqueId,
    receipt: oneshot::Receiver<Result<SendReceipt, ClientError>>,
}

impl Producer {
    pub(super) fn start(producer: AsyncProducer, topic: TopicName, options: ProducerOptions) -> Self {
        let (sends, receiver) = mpsc::unbounded_channel();
        let buffer_bytes = options.buffered_bytes_max.clamp(1, BUFFER_BYTES_MAX) as u32;
        let shared = Shared {
            topic,
            sends,
            buffer: Arc::new(Semaphore::new(buffer_bytes as usize)),
            buffer_bytes,
            ids: Mutex::new(generator()),
        };
        tokio::spawn(SendTask::new(producer, receiver, options.retry_for).run());
        Self { shared: Arc::new(shared) }
    }

    /// Where it sends to.
    pub fn topic(&self) -> &TopicName {
        &self.shared.topic
    }

    /// Sends a message, and waits until it is stored as safely as the producer's level asks.
    ///
    /// Errors: [`ClientError::Refused`]: not stored, and why; [`ClientError::OutcomeUnknown`]: stored or not. Any other says
    /// why no broker could be reached for so long; the message is not stored.
    ///
    /// When the future is dropped before the message was handed over, while it waits for room, the message is not sent;
    /// after that it is sent all the same, and may be stored.
    pub async fn send(&self, message: Message) -> Result<SendReceipt, ClientError> {
        self.enqueue(message).await?.await
    }

    /// Hands a message over and does not wait for its end: for one task that keeps many on their way. It waits while there
    /// is no room.
    ///
    /// When the future is dropped the message is not sent. A [`PendingSend`] may be dropped: the message is sent.
    pub async fn enqueue(&self, message: Message) -> Result<PendingSend, ClientError> {
        let bytes = u32::try_from(message.bytes()).unwrap_or(u32::MAX).min(self.shared.buffer_bytes);
        let permit = Arc::clone(&self.shared.buffer).acquire_many_owned(bytes).await;
        let permit = permit.expect("the semaphore is never closed");
        let id = self.next_id();
        let (sender, receipt) = oneshot::channel();
        let waiter = Waiter { id, receipt: sender, _buffered: permit };
        // A task that has ended, with its runtime, drops the waiter: the receiver finds out.
        let _ = self.shared.sends.send(Send { message, waiter });
        Ok(PendingSend { id, receipt })
    }

    /// Waits until everything that was handed over before, by any clone, has its end, whichever that is.
    ///
    /// Dropping the future changes nothing.
    pub async fn flush(&self) {
        let all = self.shared.buffer.acquire_many(self.shared.buffer_bytes).await;
        drop(all.expect("the semaphore is never closed"));
    }

    fn next_id(&self) -> UniqueId {
        let mut ids = self.shared.ids.lock().unwrap_or_else(PoisonError::into_inner);
        ids.next(read_clocks().wall)
    }
}

/// Makes ids that no other producer makes: by the process's number and a random one.
fn generator() -> UniqueIdGenerator {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let random = RandomState::new().build_hasher().finish();
    UniqueIdGenerator::new(Ipv4Addr::LOCALHOST, std::process::id(), random as u32)
}

impl Waiter {
    /// Tells the end. Nobody may be listening any more.
    pub(super) fn end(self, end: Result<SendReceipt, ClientError>) {
        let _ = self.receipt.send(end);
    }
}

impl PendingSend {
    /// The id that this library gave the message.
    pub fn id(&self) -> UniqueId {
        self.id
    }
}

impl Future for PendingSend {
    type Output = Result<SendReceipt, ClientError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.receipt).poll(context).map(|end| {
            let ended = || "the producer's runtime was shut down".to_owned();
            end.unwrap_or_else(|_| Err(ClientError::OutcomeUnknown { reason: ended() }))
        })
    }
}
