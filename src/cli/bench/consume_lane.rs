//! One connection that consumes, every message checked. An answer's batches are taken one by one as they come; the
//! queue's next fetch leaves as soon as the answer says where it goes on, so that the broker never waits for the reader
//! to have looked at everything: two answers of a queue are on their way at most.

use std::time::Duration;

use crate::api::{Fetch, Request};
use crate::cli::bench::clock::BenchClock;
use crate::cli::bench::message::{FillerCheck, RunId};
use crate::cli::bench::socket::{BenchSocket, SocketError};
use crate::cli::bench::tracker::{Faults, Trackers, faults_of};
use crate::cli::bench::window::{Tally, Window};
use crate::limits;
use crate::protocol::native::{DecodedReply, RequestEncoder, decode_reply};
use crate::types::{QueueKey, QueueOffset};
use crate::wire::batch::{BATCH_HEADER_BYTES, BatchHeader, align_batch, records_match, stored_records};

/// How long a fetch at the end of a queue waits for more. Short, so that a run ends soon after its last message.
pub const FOLLOW_WAIT: Duration = Duration::from_millis(500);

/// What a lane reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadMode {
    /// From the given offset to the given end, again and again: a catch-up.
    Repeat,
    /// From the given offset to the given end, once: a verification.
    Once,
    /// From the given offset on, for as long as anything comes: the tail.
    Follow,
}

/// What a latency is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LatencyOf {
    /// From sending a fetch to its answer.
    Fetch,
    /// From the time when a message of this run was due to its receipt.
    Message(RunId),
}

/// A queue to read, and from where to where.
#[derive(Clone, Copy, Debug)]
pub struct ReadRange {
    pub key: QueueKey,
    pub first: QueueOffset,
    /// Not read by [`ReadMode::Follow`].
    pub end: QueueOffset,
}

pub struct ConsumePlan {
    pub mode: ReadMode,
    pub latency: LatencyOf,
    pub fetch_bytes: u32,
    pub queues: Vec<ReadRange>,
}

/// One queue as the lane reads it.
struct QueueReader {
    range: ReadRange,
    next: QueueOffset,
    /// Where the next fetch starts: ahead of `next` while an answer is coming in.
    ask_at: QueueOffset,
    state: ReaderState,
    trackers: Trackers,
    /// Whole passes over the range.
    passes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReaderState {
    /// The next fetch is to be sent.
    Ready,
    Waiting {
        sent_ns: u64,
        /// The fetch was sent after `stop`: an empty answer says that there is no more.
        last: bool,
    },
    /// Its answer is coming in, and nothing else was asked for.
    Receiving,
    Done,
}

/// The answer that is coming in.
struct Incoming {
    /// Of the reader.
    index: usize,
    payload_left: usize,
    next_offset: QueueOffset,
    sent_ns: u64,
    /// It holds batches.
    is_full: bool,
    /// No answer after it is wanted.
    ends: bool,
}

pub struct ConsumeLane {
    socket: BenchSocket,
    clock: BenchClock,
    plan: ConsumePlan,
    encoder: RequestEncoder,
    readers: Vec<QueueReader>,
    check: FillerCheck,
    incoming: Option<Incoming>,
    unsent: Vec<u8>,
    stopped: bool,
    /// Faults of finished passes.
    finished: Faults,
    pub refusal: Option<String>,
}

impl ConsumeLane {
    pub fn new(socket: BenchSocket, clock: BenchClock, plan: ConsumePlan) -> Self {
        let reader = |range: &ReadRange| QueueReader {
            range: *range,
            next: range.first,
            ask_at: range.first,
            state: ReaderState::Ready,
            trackers: Trackers::default(),
            passes: 0,
        };
        let readers = plan.queues.iter().map(reader).collect();
        Self {
            socket,
            clock,
            plan,
            encoder: RequestEncoder::new(),
            readers,
            check: FillerCheck::default(),
            incoming: None,
            unsent: Vec::new(),
            stopped: false,
            finished: Faults::default(),
            refusal: None,
        }
    }

    pub fn socket(&self) -> &BenchSocket {
        &self.socket
    }

    /// A catch-up starts nothing new; a follower reads on until nothing more comes.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    pub fn is_done(&self) -> bool {
        self.readers.iter().all(|reader| reader.state == ReaderState::Done)
    }

    pub fn wants_write(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Asks for the next batches of every queue that waits for nothing.
    pub fn pump(&mut self) -> Result<(), SocketError> {
        for index in 0..self.readers.len() {
            if self.readers[index].state == ReaderState::Ready {
                self.ask(index)?;
            }
        }
        self.socket.send(&mut self.unsent)
    }

    fn ask(&mut self, index: usize) -> Result<(), SocketError> {
        let mode = self.plan.mode;
        let reader = &mut self.readers[index];
        if mode != ReadMode::Follow && reader.ask_at >= reader.range.end {
            let empty = reader.range.first >= reader.range.end;
            reader.passes += u64::from(!empty);
            if mode == ReadMode::Once || self.stopped || empty {
                reader.state = ReaderState::Done;
                return Ok(());
            }
            // The next pass sees the same sequences again.
            self.finished.add(&std::mem::take(&mut reader.trackers).faults());
            (reader.next, reader.ask_at) = (reader.range.first, reader.range.first);
        }
        if mode == ReadMode::Repeat && self.stopped {
            reader.state = ReaderState::Done;
            return Ok(());
        }
        let wait = if mode == ReadMode::Follow { FOLLOW_WAIT } else { Duration::ZERO };
        let fetch = Fetch {
            key: reader.range.key,
            offset: reader.ask_at,
            bytes_max: self.plan.fetch_bytes,
            records_max: limits::BATCH_RECORDS_MAX,
            session: 0,
            wait,
        };
        reader.state = ReaderState::Waiting { sent_ns: self.clock.now_ns(), last: self.stopped };
        self.encoder
            .encode(&mut self.unsent, index as u64, &Request::Fetch(fetch))
            .map_err(|failure| self.socket.protocol_error(failure))
    }

    /// Reads once and checks what came.
    pub fn receive(&mut self, window: &mut Window) -> Result<(), SocketError> {
        if !self.socket.read()? {
            return Ok(());
        }
        let now_ns = self.clock.now_ns();
        loop {
            let went_on = match self.incoming.take() {
                None => self.take_head(window)?,
                Some(incoming) if incoming.payload_left == 0 => {
                    self.finish_answer(&incoming, window, now_ns);
                    true
                }
                Some(incoming) => self.take_batch(incoming, window, now_ns)?,
            };
            if !went_on {
                return Ok(());
            }
        }
    }

    /// Takes what stands ahead of an answer's batches, and asks for the next. Whether it was there.
    fn take_head(&mut self, window: &mut Window) -> Result<bool, SocketError> {
        let Some(head) = self.socket.next_head()? else { return Ok(false) };
        let payload_left = head.payload_bytes;
        let index = usize::try_from(head.frame.correlation).unwrap_or(usize::MAX);
        let reply = decode_reply(&head.frame);
        let state = self.readers.get(index).map(|reader| reader.state);
        let Some(ReaderState::Waiting { sent_ns, last }) = state else {
            return Err(self.socket.protocol_error("an answer that nobody waits for"));
        };
        let reader = &mut self.readers[index];
        let (next_offset, ends) = match reply {
            Ok(DecodedReply::Fetched(fetched)) => {
                if fetched.damaged.is_some() {
                    reader.skip_damaged(fetched.next_offset);
                }
                let empty = fetched.next_offset <= reader.ask_at;
                (fetched.next_offset, empty && (last || self.plan.mode != ReadMode::Follow))
            }
            Ok(DecodedReply::Failed(failure)) => {
                window.errors += 1;
                self.refusal.get_or_insert(failure.message);
                (reader.ask_at, true)
            }
            Ok(_) => return Err(self.socket.protocol_error("a fetch got another kind of answer")),
            Err(error) => return Err(self.socket.protocol_error(error)),
        };
        reader.state = ReaderState::Receiving;
        reader.ask_at = next_offset.max(reader.ask_at);
        let is_full = payload_left > 0;
        self.incoming = Some(Incoming { index, payload_left, next_offset, sent_ns, is_full, ends });
        // The end of a pass, and of the run, waits until the messages before it were seen.
        let goes_on = match self.plan.mode {
            ReadMode::Follow => true,
            ReadMode::Once => reader.ask_at < reader.range.end,
            ReadMode::Repeat => reader.ask_at < reader.range.end && !self.stopped,
        };
        if is_full && goes_on {
            self.ask(index)?;
            self.socket.send(&mut self.unsent)?;
        }
        Ok(true)
    }

    /// Takes the next batch of the answer that is coming in. Whether it was there.
    fn take_batch(
        &mut self,
        mut incoming: Incoming,
        window: &mut Window,
        now_ns: u64,
    ) -> Result<bool, SocketError> {
        let taken = self.cut_batch(&mut incoming, window, now_ns);
        self.incoming = Some(incoming);
        taken.map_err(|reason| self.socket.protocol_error(reason))
    }

    fn cut_batch(
        &mut self,
        incoming: &mut Incoming,
        window: &mut Window,
        now_ns: u64,
    ) -> Result<bool, String> {
        let reader = &mut self.readers[incoming.index];
        let header_bytes = incoming.payload_left.min(BATCH_HEADER_BYTES);
        let Some(start) = self.socket.peek(header_bytes) else { return Ok(false) };
        let header = BatchHeader::decode(start).map_err(|error| error.to_string())?;
        let batch_bytes = header.batch_bytes as usize;
        if batch_bytes > incoming.payload_left {
            return Err("a fetched batch is cut short".to_owned());
        }
        if header.key != reader.range.key {
            return Err(format!("asked for {}, got {}", reader.range.key, header.key));
        }
        let padded_bytes = (align_batch(batch_bytes as u64) as usize).min(incoming.payload_left);
        let Some(bytes) = self.socket.next_bytes(padded_bytes) else { return Ok(false) };
        let mut intake = Intake {
            check: &mut self.check,
            tally: &mut window.consumed,
            latency: self.plan.latency,
            now_ns,
        };
        reader.take_batch(&header, &bytes[..batch_bytes], &mut intake);
        incoming.payload_left -= padded_bytes;
        Ok(true)
    }

    fn finish_answer(&mut self, incoming: &Incoming, window: &mut Window, now_ns: u64) {
        let reader = &mut self.readers[incoming.index];
        if self.plan.latency == LatencyOf::Fetch && incoming.is_full {
            window.consumed.latencies.record(now_ns.saturating_sub(incoming.sent_ns), 1);
        }
        reader.next = incoming.next_offset.max(reader.next);
        if incoming.ends {
            reader.state = ReaderState::Done;
        } else if reader.state == ReaderState::Receiving {
            reader.state = ReaderState::Ready;
        }
    }

    /// Gives up on what is still awaited.
    pub fn abandon(&mut self) {
        self.readers.iter_mut().for_each(|reader| reader.state = ReaderState::Done);
        self.unsent.clear();
    }

    /// Faults of whole passes and of the current one.
    pub fn faults(&self) -> Faults {
        faults_of(self.finished, self.readers.iter().map(|reader| &reader.trackers))
    }

    /// What was read of a queue in the current pass.
    pub fn trackers(&mut self, key: QueueKey) -> Option<&mut Trackers> {
        self.readers.iter_mut().find(|reader| reader.range.key == key).map(|reader| &mut reader.trackers)
    }

    /// Whole passes of the queue that had the fewest.
    pub fn passes(&self) -> u64 {
        self.readers.iter().map(|reader| reader.passes).min().unwrap_or(0)
    }

    /// Queues whose end was not reached.
    pub fn unfinished(&self) -> usize {
        let short =
            |reader: &&QueueReader| self.plan.mode != ReadMode::Follow && reader.next < reader.range.end;
        self.readers.iter().filter(short).count()
    }
}

/// Where a fetched message is counted.
struct Intake<'a> {
    check: &'a mut FillerCheck,
    tally: &'a mut Tally,
    latency: LatencyOf,
    now_ns: u64,
}

impl QueueReader {
    /// What lies below `to` cannot be read.
    fn skip_damaged(&mut self, to: QueueOffset) {
        self.trackers.damaged(to.0.saturating_sub(self.next.0));
        self.next = to.max(self.next);
    }

    fn take_batch(&mut self, header: &BatchHeader, batch: &[u8], intake: &mut Intake<'_>) {
        if !records_match(batch) {
            self.trackers.damaged(u64::from(header.record_count));
            return;
        }
        // The first batch may hold messages below the asked offset.
        let skipped = self.next.0.saturating_sub(header.base_offset.0);
        // Queues have no holes, so offsets that are not there are messages that are lost.
        self.trackers.lost(header.base_offset.0.saturating_sub(self.next.0));
        self.next = header.end_offset().max(self.next);
        let (mut messages, mut body_bytes) = (0, 0);
        let stream_first = if self.range.first == QueueOffset::ZERO { Some(0) } else { None };
        let mut due_ns = u64::MAX;
        for record in stored_records(batch).skip(skipped as usize) {
            let body = record.body();
            messages += 1;
            body_bytes += body.len() as u64;
            let found = self.trackers.note(intake.check.read(body), stream_first);
            if let Some(head) = found.filter(|head| intake.latency == LatencyOf::Message(head.run)) {
                due_ns = due_ns.min(head.due_ns);
            }
        }
        // What did not parse is there, but nobody can use it.
        self.trackers.damaged(u64::from(header.record_count).saturating_sub(skipped + messages));
        let tally = &mut *intake.tally;
        tally.messages += messages;
        tally.body_bytes += body_bytes;
        tally.stored_bytes += batch.len() as u64;
        tally.last_ns = intake.now_ns;
        // The bench's batches are due as a whole.
        if due_ns != u64::MAX {
            tally.latencies.record(intake.now_ns.saturating_sub(due_ns), messages);
        }
    }
}
