//! Reading a connection: frames off the receive buffer, room for what is to come, and rests.

use std::time::Duration;

use futures_lite::{AsyncRead, AsyncReadExt};

use super::engine::{Framed, Unsettled};
use super::frame_memory::FrameMemory;
use super::protocol::{Cut, Protocol, Taken};
use crate::api::{Failure, RequestSubject, Status};
use crate::limits;
use crate::metrics::{Answered, Stage, Timeline};
use crate::net::ReceiveBuffer;
use crate::runtime::Executor;
use crate::types::MonotonicTime;

/// Bytes taken and given by the reader before it lets the executor look at its rings.
const YIELD_BYTES: usize = 512 * 1024;

/// Why a request is refused, with its connection, when memory is short.
fn memory_short(reason: &str) -> Failure {
    let message =
        format!("the request was not taken: {reason}; try again, or give the broker more --client-memory");
    Failure::new(Status::Busy, message)
}

impl<P: Protocol> Framed<P> {
    /// Reads and takes requests until the peer sends no more, or is to send no more.
    pub(super) async fn read<R: AsyncRead + Unpin>(
        &self,
        executor: &impl Executor,
        stream: &mut R,
        mut buffer: ReceiveBuffer,
    ) {
        if !self.protocol.greet(stream, &mut buffer).await {
            return;
        }
        if let Err(failure) = self.read_frames(executor, stream, &mut buffer).await {
            self.protocol.refuse(failure);
        }
    }

    /// The failure is the last answer of the connection.
    async fn read_frames<R: AsyncRead + Unpin>(
        &self,
        executor: &impl Executor,
        stream: &mut R,
        buffer: &mut ReceiveBuffer,
    ) -> Result<(), Failure> {
        let clock = &self.context.clock;
        let mut memory = FrameMemory::new(&self.context);
        let mut bytes_since_yield = 0;
        loop {
            let started = clock.monotonic();
            // One reading for the end of a frame and the begin of the next one.
            let mut now = started;
            let needed = loop {
                let (taken, frame_bytes) = match self.protocol.cut(buffer.filled())? {
                    Cut::Frame { frame, frame_bytes } => {
                        (self.take(frame, started, &mut now).await, frame_bytes)
                    }
                    Cut::Incomplete { needed } => break needed,
                };
                buffer.consume(frame_bytes);
                memory.shrink_to(buffer.memory_bytes());
                if !self.protocol.is_within_frame() {
                    // The next frame has the whole time again.
                    self.connection.incomplete_since.set(None);
                }
                bytes_since_yield += frame_bytes;
                match taken {
                    Taken::Weighing(bytes) => bytes_since_yield += bytes,
                    Taken::Placed(_) => {}
                    Taken::Last => return Ok(()),
                }
                // A peer that does not read its answers gets no more of them, whatever it has sent already.
                if !self.peer_reads().await {
                    return Ok(());
                }
                if bytes_since_yield >= YIELD_BYTES {
                    bytes_since_yield = 0;
                    executor.yield_to_reactor().await;
                    now = clock.monotonic();
                }
            };
            self.context.metrics.record(Stage::Receive, now.since(started));
            if self.context.is_stopping() || self.connection.outbox.is_closed() {
                return Ok(());
            }
            self.note_incomplete(buffer);
            if let Some(failure) = self.protocol.frame_refusal(needed) {
                return Err(failure);
            }
            self.grow_buffer(buffer, &mut memory, needed).await?;
            if !self.read_some(stream, buffer, &mut memory).await? {
                return Ok(());
            }
        }
    }

    /// Takes one request, which was there whole at `complete` and whose turn has come `now`; then it is later.
    async fn take(&self, frame: P::Frame<'_>, complete: MonotonicTime, now: &mut MonotonicTime) -> Taken<()> {
        let Self { connection, protocol, context, .. } = self;
        let begun = connection.incomplete_since.get().unwrap_or(complete);
        connection.timeline.set(Some(Timeline::new(begun, complete, *now)));
        let taken = protocol.take(frame).await;
        let taken_at = std::mem::replace(now, context.clock.monotonic());
        // A call has taken it along.
        let timeline = connection.timeline.take();
        match taken {
            Taken::Placed(placed) => {
                let mut timeline = timeline.unwrap_or_else(|| Timeline::at(*now));
                (timeline.parsed, timeline.placed) = (*now, *now);
                if timeline.queued.is_zero() {
                    context.metrics.record(Stage::Parse, now.since(taken_at));
                }
                self.note_placed(placed, timeline);
                Taken::Placed(())
            }
            Taken::Weighing(bytes) => {
                if let Some(timeline) = timeline
                    && context.metrics.flight.is_slow(timeline.took(*now), *now)
                {
                    self.note_slow(protocol.describe(&frame), timeline, *now);
                }
                Taken::Weighing(bytes)
            }
            Taken::Last => Taken::Last,
        }
    }

    fn note_placed(&self, placed: P::Placed, timeline: Timeline) {
        self.connection.note_taken();
        self.unsettled.borrow_mut().push_back(Unsettled { timeline, placed });
        self.unsettled_added.wake();
    }

    /// Takes note of a request that was answered, and was slow.
    pub(super) fn note_slow(&self, subject: RequestSubject, timeline: Timeline, at: MonotonicTime) {
        let client = self.connection.network.get();
        let answered = Answered { protocol: P::NAME, subject, client, timeline, at };
        if let Some(unsent) = self.connection.note_slow(answered) {
            self.context.metrics.flight.record(unsent, at);
        }
    }

    /// Waits while the peer leaves too much unread; false when the connection has ended.
    async fn peer_reads(&self) -> bool {
        let outbox = &self.connection.outbox;
        let bytes_max = self.context.unread_bytes_max();
        if outbox.bytes() > bytes_max {
            self.connection.pace.is_parked.set(true);
            outbox.sent_down_to(bytes_max).await;
            self.connection.pace.is_parked.set(false);
        }
        !outbox.is_closed()
    }

    /// Sees to it that there is room to read into. Small frames always have it; what larger ones need is taken from the
    /// shard's memory, as their bytes come.
    async fn grow_buffer(
        &self,
        buffer: &mut ReceiveBuffer,
        memory: &mut FrameMemory,
        needed: usize,
    ) -> Result<(), Failure> {
        if let Some(bytes) = buffer.may_grow_to()
            && memory.try_grow(&self.context, bytes)
        {
            buffer.grow(bytes);
        }
        if let Some(bytes) = buffer.must_grow_to(needed) {
            let pace = &self.connection.pace;
            pace.is_parked.set(true);
            let has_grown = {
                let granted = async {
                    memory.take_frame(&self.context, needed.next_power_of_two().max(bytes)).await;
                    true
                };
                let over = async {
                    let longest = Duration::from_secs(limits::MEMORY_WAIT_SECONDS);
                    let slept = self.context.clock.sleep(longest);
                    futures_lite::future::or(slept, self.connection.outbox.closed()).await;
                    false
                };
                futures_lite::future::or(granted, over).await
            };
            pace.is_parked.set(false);
            if !has_grown {
                return Err(memory_short("there was no memory for it"));
            }
            if self.connection.incomplete_since.get().is_some() {
                // The time until now was ours.
                self.connection.incomplete_since.set(Some(self.context.clock.monotonic()));
            }
            buffer.grow(bytes);
        }
        self.connection.pace.buffer_bytes.set(buffer.memory_bytes());
        Ok(())
    }

    /// Reads what is there, or comes next; false at the end.
    async fn read_some<R: AsyncRead + Unpin>(
        &self,
        stream: &mut R,
        buffer: &mut ReceiveBuffer,
        memory: &mut FrameMemory,
    ) -> Result<bool, Failure> {
        let pace = &self.connection.pace;
        loop {
            if pace.is_refused.get() {
                return Err(memory_short("its bytes came slowly while others waited for memory"));
            }
            let read = {
                let read = async { Some(stream.read(buffer.spare_capacity()).await) };
                let nudged = async {
                    pace.nudged.changed().await;
                    None
                };
                futures_lite::future::or(read, nudged).await
            };
            match read {
                None => {
                    buffer.shrink();
                    if buffer.spare_capacity().is_empty() {
                        // All of it is in use; there is still no more than the frame needs.
                        buffer.grow(2 * buffer.memory_bytes());
                    }
                    if buffer.is_empty() {
                        memory.shrink_to(buffer.memory_bytes());
                    }
                    pace.buffer_bytes.set(buffer.memory_bytes());
                }
                Some(Ok(0) | Err(_)) => return Ok(false),
                Some(Ok(count)) => {
                    buffer.read(count);
                    pace.received_bytes.set(pace.received_bytes.get() + count as u64);
                    self.context.metrics.socket_calls.add(1);
                    return Ok(true);
                }
            }
        }
    }

    /// Starts or stops the watch over a frame that has begun and is not complete.
    fn note_incomplete(&self, buffer: &ReceiveBuffer) {
        let since = &self.connection.incomplete_since;
        if buffer.is_empty() && !self.protocol.is_within_frame() {
            since.set(None);
        } else if since.get().is_none() {
            since.set(Some(self.context.clock.monotonic()));
        }
    }
}
