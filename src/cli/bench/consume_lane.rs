//! One connection that consumes: one fetch in flight for each of its queues, every message checked.

use std::time::Duration;

use crate::api::{Fetch, Request};
use crate::cli::bench::clock::BenchClock;
use crate::cli::bench::message::{FillerCheck, Reading, RunId};
use crate::cli::bench::socket::{BenchSocket, SocketError};
use crate::cli::bench::tracker::{Faults, Trackers};
use crate::cli::bench::window::{Tally, Window};
use crate::limits;
use crate::protocol::native::{DecodedReply, FetchedView, RequestEncoder, decode_reply};
use crate::types::{QueueKey, QueueOffset};
use crate::wire::batch::{BatchHeader, align_batch, records_match, stored_records};

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
    Done,
}

pub struct ConsumeLane {
    socket: BenchSocket,
    clock: BenchClock,
    plan: ConsumePlan,
    encoder: RequestEncoder,
    readers: Vec<QueueReader>,
    check: FillerCheck,
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
        if !self.unsent.is_empty() {
            let written = self.socket.write(&self.unsent)?;
            self.unsent.drain(..written);
        }
        Ok(())
    }

    fn ask(&mut self, index: usize) -> Result<(), SocketError> {
        let mode = self.plan.mode;
        let reader = &mut self.readers[index];
        if mode != ReadMode::Follow && reader.next >= reader.range.end {
            let empty = reader.range.first >= reader.range.end;
            reader.passes += u64::from(!empty);
            if mode == ReadMode::Once || self.stopped || empty {
                reader.state = ReaderState::Done;
                return Ok(());
            }
            // The next pass sees the same sequences again.
            self.finished.add(&std::mem::take(&mut reader.trackers).faults());
            reader.next = reader.range.first;
        }
        if mode == ReadMode::Repeat && self.stopped {
            reader.state = ReaderState::Done;
            return Ok(());
        }
        let wait = if mode == ReadMode::Follow { FOLLOW_WAIT } else { Duration::ZERO };
        let fetch = Fetch {
            key: reader.range.key,
            offset: reader.next,
            bytes_max: self.plan.fetch_bytes,
            records_max: limits::BATCH_RECORDS_MAX,
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
            let Some(frame) = self.socket.next_frame()? else { return Ok(()) };
            let index = usize::try_from(frame.correlation).unwrap_or(usize::MAX);
            let state = self.readers.get(index).map(|reader| reader.state);
            let Some(ReaderState::Waiting { sent_ns, last }) = state else {
                return Err(self.socket.protocol_error("an answer that nobody waits for"));
            };
            let reader = &mut self.readers[index];
            reader.state = ReaderState::Ready;
            let taken = match decode_reply(&frame) {
                Ok(DecodedReply::Fetched(fetched)) => {
                    let mut intake = Intake {
                        check: &mut self.check,
                        tally: &mut window.consumed,
                        latency: self.plan.latency,
                        now_ns,
                        sent_ns,
                    };
                    let empty = fetched.next_offset <= reader.next;
                    let taken = reader.take(&fetched, &mut intake);
                    if empty && (last || self.plan.mode != ReadMode::Follow) {
                        reader.state = ReaderState::Done;
                    }
                    taken
                }
                Ok(DecodedReply::Failed(failure)) => {
                    window.errors += 1;
                    self.refusal.get_or_insert(failure.message);
                    reader.state = ReaderState::Done;
                    Ok(())
                }
                Ok(_) => Err("a fetch got another kind of answer".to_owned()),
                Err(error) => Err(error.to_string()),
            };
            taken.map_err(|reason| self.socket.protocol_error(reason))?;
        }
    }

    /// Gives up on what is still awaited.
    pub fn abandon(&mut self) {
        self.readers.iter_mut().for_each(|reader| reader.state = ReaderState::Done);
        self.unsent.clear();
    }

    /// Faults of whole passes and of the current one.
    pub fn faults(&self) -> Faults {
        let mut faults = self.finished;
        self.readers.iter().for_each(|reader| faults.add(&reader.trackers.faults()));
        faults
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
    sent_ns: u64,
}

impl QueueReader {
    /// Checks the fetched batches and moves on. The error says how the answer breaks the protocol.
    fn take(&mut self, fetched: &FetchedView<'_>, intake: &mut Intake<'_>) -> Result<(), String> {
        if fetched.damaged.is_some() {
            self.trackers.damaged(fetched.next_offset.0.saturating_sub(self.next.0));
            self.next = fetched.next_offset.max(self.next);
            return Ok(());
        }
        let mut rest = fetched.batches;
        while !rest.is_empty() {
            let header = BatchHeader::decode(rest).map_err(|error| error.to_string())?;
            let batch_bytes = header.batch_bytes as usize;
            let batch = rest.get(..batch_bytes).ok_or("a fetched batch is cut short")?;
            if header.key != self.range.key {
                return Err(format!("asked for {}, got {}", self.range.key, header.key));
            }
            self.take_batch(&header, batch, intake);
            rest = rest.get(align_batch(batch_bytes as u64) as usize..).unwrap_or_default();
        }
        if intake.latency == LatencyOf::Fetch && !fetched.batches.is_empty() {
            intake.tally.latencies.record(intake.now_ns.saturating_sub(intake.sent_ns), 1);
        }
        self.next = fetched.next_offset.max(self.next);
        Ok(())
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
            match intake.check.read(body) {
                Reading::Message(head) => {
                    let first = stream_first.unwrap_or(head.sequence);
                    self.trackers.stream(head.run, head.stream, first).observe(head.sequence);
                    if intake.latency == LatencyOf::Message(head.run) {
                        due_ns = due_ns.min(head.due_ns);
                    }
                }
                Reading::Foreign => {}
                Reading::Damaged => self.trackers.damaged(1),
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
