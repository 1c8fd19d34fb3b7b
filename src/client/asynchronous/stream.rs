//! Messages of topics, one after the other.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::client::tokio_driver::AsyncConsumer;
use crate::client::{ClientError, DamagedRange, Delivery};
use crate::types::{QueueKey, QueueOffset};

use super::backoff::Backoff;
use super::message::OwnedMessage;

/// How long a broker that was lost is looked for before the stream says so.
const RECONNECT_FOR: Duration = Duration::from_secs(30);

/// Messages of topics, in the order of their offsets within each queue. A [`Stream`]; [`next`](Self::next) is for programs
/// that use no crate of stream combinators.
///
/// It is driven by whoever polls it, and nothing runs beside it. A member of a group that is not polled for as long as
/// its [session time-out](crate::client::ConsumerOptions::session_timeout) loses its queues to others, and joins again
/// when it is polled: work that takes longer belongs into a task of its own.
///
/// **Errors are items**, and the stream goes on after each of them, from the same place:
///
/// * [`ClientError::Skipped`]: messages cannot be read any more, since they are damaged or were removed as too old.
/// * Of a lost connection: the broker was looked for during 30 seconds (see [`reconnect_for`](Self::reconnect_for)). Within
///   that time a restart of the broker is not noticed.
/// * Any other: the broker's refusal, or another broker at its address.
///
/// It ends (`None`) only when it was asked to read to the end, see [`Until::End`](crate::client::Until::End).
///
/// **Delivery**: with a group, messages that were handed out and not [committed](Self::commit) come again, to whoever
/// reads their queue next: after a restart of the program, or when the group's members change. Without a group, each comes
/// once for the stream's life.
pub struct MessageStream {
    state: State,
    /// What was read and not handed out; its messages are of one batch.
    ready: VecDeque<Result<OwnedMessage, ClientError>>,
    /// Set once everything was handed out that there was to read.
    is_ended: bool,
    /// Makes a read end early, for a call that needs the consumer.
    interrupt: Arc<Notify>,
    reconnect_for: Duration,
}

enum State {
    Idle(Box<AsyncConsumer>),
    Reading(Pin<Box<dyn Future<Output = (Box<AsyncConsumer>, Read)> + Send>>),
    /// Only while one of the other two is replaced.
    Between,
}

/// What a read came to.
enum Read {
    Messages(Vec<OwnedMessage>),
    Error(ClientError),
    End,
    Interrupted,
}

impl MessageStream {
    pub(super) fn new(consumer: AsyncConsumer) -> Self {
        Self {
            state: State::Idle(Box::new(consumer)),
            ready: VecDeque::new(),
            is_ended: false,
            interrupt: Arc::new(Notify::new()),
            reconnect_for: RECONNECT_FOR,
        }
    }

    /// How long to look for a broker that was lost before that is an item; zero: each attempt that fails is one.
    #[must_use]
    pub fn reconnect_for(mut self, duration: Duration) -> Self {
        self.reconnect_for = duration;
        self
    }

    /// The next message; `None` at the end.
    ///
    /// Dropping the future loses nothing: the next call goes on.
    pub async fn next(&mut self) -> Option<Result<OwnedMessage, ClientError>> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// Stores for the group that everything handed out so far was dealt with, the last message included. Durable when it
    /// returns. Costs one request for each queue that was read since the last time: for programs that read much, once in
    /// many messages.
    ///
    /// Refused without a group ([`Status::InvalidArgument`](crate::api::Status::InvalidArgument)), and when this member's
    /// session has ended ([`Status::MemberUnknown`](crate::api::Status::MemberUnknown),
    /// [`Status::GenerationStale`](crate::api::Status::GenerationStale)): whoever has the queues now reads again what was
    /// not committed. Go on reading, the member joins again.
    ///
    /// When the future is dropped, what was on its way is stored or not; the next call stores the rest.
    pub async fn commit(&mut self) -> Result<(), ClientError> {
        let mut backoff = Backoff::new(self.reconnect_for);
        self.end_read().await;
        let next = self.next_in_batch();
        loop {
            // Stored twice is stored once.
            match self.consumer().commit_before(next).await {
                Err(error) if error.is_connection_loss() => match backoff.failed() {
                    Some(pause) => sleep(pause).await,
                    None => return Err(error),
                },
                outcome => return outcome,
            }
        }
    }

    /// Leaves the group, so that its other members get the queues at once. Commits nothing. A stream that is dropped
    /// leaves within about two seconds, when the broker has noticed.
    ///
    /// When the future is dropped, so is the stream.
    pub async fn close(mut self) -> Result<(), ClientError> {
        self.end_read().await;
        match self.state {
            State::Idle(consumer) => consumer.close().await.map(|_| ()),
            State::Reading(_) | State::Between => unreachable!("the consumer was taken back"),
        }
    }

    /// Where the messages begin that were read and not handed out.
    fn next_in_batch(&self) -> Option<(QueueKey, QueueOffset)> {
        let mut messages = self.ready.iter().filter_map(|item| item.as_ref().ok());
        messages.next().map(|message| (message.queue, message.offset))
    }

    /// Ends a read that waits, so that the consumer is idle. It may have brought messages in this moment.
    async fn end_read(&mut self) {
        if let State::Reading(read) = &mut self.state {
            self.interrupt.notify_one();
            let (consumer, read) = read.await;
            self.state = State::Idle(consumer);
            self.take(read);
        }
    }

    /// After [`end_read`](Self::end_read).
    fn consumer(&mut self) -> &mut AsyncConsumer {
        match &mut self.state {
            State::Idle(consumer) => consumer,
            State::Reading(_) | State::Between => unreachable!("the read has ended"),
        }
    }

    fn take(&mut self, read: Read) {
        match read {
            Read::Messages(messages) => self.ready.extend(messages.into_iter().map(Ok)),
            Read::Error(error) => self.ready.push_back(Err(error)),
            Read::End => self.is_ended = true,
            Read::Interrupted => {}
        }
    }
}

impl Stream for MessageStream {
    type Item = Result<OwnedMessage, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(item) = this.ready.pop_front() {
                return Poll::Ready(Some(item));
            }
            if this.is_ended {
                return Poll::Ready(None);
            }
            match &mut this.state {
                State::Reading(read) => {
                    let Poll::Ready((consumer, read)) = read.as_mut().poll(context) else {
                        return Poll::Pending;
                    };
                    this.state = State::Idle(consumer);
                    this.take(read);
                }
                State::Idle(_) => {
                    let State::Idle(consumer) = std::mem::replace(&mut this.state, State::Between) else {
                        unreachable!("just matched");
                    };
                    let read = read(consumer, Arc::clone(&this.interrupt), this.reconnect_for);
                    this.state = State::Reading(Box::pin(read));
                }
                State::Between => unreachable!("it is replaced at once"),
            }
        }
    }
}

/// Reads one batch, looking for the broker as long as that is allowed.
async fn read(
    mut consumer: Box<AsyncConsumer>,
    interrupt: Arc<Notify>,
    reconnect_for: Duration,
) -> (Box<AsyncConsumer>, Read) {
    let mut backoff = Backoff::new(reconnect_for);
    loop {
        // The consumer's call may be given up anywhere: the next one goes on.
        let read = tokio::select! {
            read = next(&mut consumer) => read,
            () = interrupt.notified() => Read::Interrupted,
        };
        let error = match read {
            Read::Error(error) if error.is_connection_loss() => error,
            read => return (consumer, read),
        };
        let Some(pause) = backoff.failed() else { return (consumer, Read::Error(error)) };
        tokio::select! {
            () = sleep(pause) => {}
            () = interrupt.notified() => return (consumer, Read::Interrupted),
        }
    }
}

/// The next delivery that the stream's reader is to see.
async fn next(consumer: &mut AsyncConsumer) -> Read {
    loop {
        return match consumer.next().await {
            Ok(Delivery::Messages(batch)) => Read::Messages(OwnedMessage::all_of(&batch)),
            Ok(Delivery::Damaged(DamagedRange { queue, from, to, .. })) => {
                Read::Error(ClientError::Skipped { queue, from, to, reason: "they are damaged" })
            }
            Ok(Delivery::Moved { queue, from, to }) => {
                let reason = "the queue has no such offset any more, or not yet";
                Read::Error(ClientError::Skipped { queue, from, to, reason })
            }
            // What was handed out of queues that are given up counts as it was committed.
            Ok(Delivery::Rebalanced { .. }) => continue,
            Ok(Delivery::End) => Read::End,
            Err(error) => Read::Error(error),
        };
    }
}
