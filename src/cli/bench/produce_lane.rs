//! One connection that produces: keeps a window of batches in flight, or sends them on a schedule.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use crate::api::{Produced, Status};
use crate::cli::bench::batch_frame::{BatchFrame, BatchShape, FrameHead, Stamp};
use crate::cli::bench::clock::BenchClock;
use crate::cli::bench::ledger::OffsetLedger;
use crate::cli::bench::message::{RunId, StreamId};
use crate::cli::bench::schedule::Schedule;
use crate::cli::bench::socket::{BenchSocket, SocketError};
use crate::cli::bench::window::Window;
use crate::protocol::native::{DecodedReply, RequestEncoder, decode_reply};
use crate::types::{Level, QueueKey};
use crate::wire::frame::Frame;

/// Refused ranges that are kept per stream; a run with more is of no use anyway.
const REFUSALS_MAX: usize = 100_000;

/// Frames up to this size that are due together go out with one call, as those of the client library do; copying larger
/// ones would cost more than a call.
const GATHERED_FRAME_BYTES: usize = 8 * 1024;
/// No further frame joins a call that has this much.
const GATHERED_BYTES: usize = 64 * 1024;

/// What a lane is to do.
pub struct ProducePlan {
    pub run: RunId,
    pub shape: BatchShape,
    pub level: Option<Level>,
    /// Batches in flight at most.
    pub window: usize,
    /// Open loop; without it the loop is closed.
    pub schedule: Option<Schedule>,
    /// The queues to send to, round robin, each with the stream that this lane is on it.
    pub queues: Vec<(QueueKey, StreamId, Arc<Mutex<OffsetLedger>>)>,
}

/// One stream of a lane, and what became of it.
pub struct ProduceStream {
    pub key: QueueKey,
    pub stream: StreamId,
    head: FrameHead,
    ledger: Arc<Mutex<OffsetLedger>>,
    /// Sequence of the next batch's first message.
    next_sequence: u64,
    /// Offset of the batch acknowledged last: the answers of one queue come in the order of its offsets. Offsets that
    /// are given out twice are the ledger's business.
    last_base: Option<u64>,
    pub disordered: u64,
    pub acknowledged: u64,
    /// Sequences of messages that are known not to be stored.
    pub refused: Vec<Range<u64>>,
    /// Sequences of messages of which nobody knows: lost connections and failed disks.
    pub unknown: Vec<Range<u64>>,
}

struct InFlight {
    stream: usize,
    sequence: u64,
    due_ns: u64,
    answered: bool,
}

pub struct ProduceLane {
    socket: BenchSocket,
    clock: BenchClock,
    shape: BatchShape,
    window: usize,
    schedule: Option<Schedule>,
    /// When the schedule starts.
    start_ns: u64,
    frame: BatchFrame,
    /// Small frames that are due together; `None` where frames are large, and go out from where they are made.
    gathered: Option<Vec<u8>>,
    /// What the socket has not taken yet of what is gathered, or of the frame.
    unsent: Range<usize>,
    pub streams: Vec<ProduceStream>,
    /// Batches sent; the next one's correlation.
    sent: u64,
    /// From the oldest unanswered batch on.
    in_flight: VecDeque<InFlight>,
    stopped: bool,
    /// The lowest level that was reached.
    pub level: Option<Level>,
    /// The first refusal's sentence.
    pub refusal: Option<String>,
}

impl ProduceLane {
    pub fn new(socket: BenchSocket, clock: BenchClock, plan: ProducePlan) -> Result<Self, SocketError> {
        let mut encoder = RequestEncoder::new();
        let mut streams = Vec::with_capacity(plan.queues.len());
        for (key, stream, ledger) in plan.queues {
            let head = FrameHead::new(&mut encoder, key, stream, plan.level, plan.shape)
                .map_err(|failure| socket.protocol_error(failure))?;
            streams.push(ProduceStream {
                key,
                stream,
                head,
                ledger,
                next_sequence: 0,
                last_base: None,
                disordered: 0,
                acknowledged: 0,
                refused: Vec::new(),
                unknown: Vec::new(),
            });
        }
        let frame = BatchFrame::new(plan.run, plan.shape, streams.iter().map(|stream| &stream.head));
        let is_small = frame.bytes().len() <= GATHERED_FRAME_BYTES;
        Ok(Self {
            socket,
            clock,
            shape: plan.shape,
            window: plan.window,
            schedule: plan.schedule,
            start_ns: 0,
            frame,
            gathered: is_small.then(Vec::new),
            unsent: 0..0,
            streams,
            sent: 0,
            in_flight: VecDeque::with_capacity(plan.window),
            stopped: false,
            level: None,
            refusal: None,
        })
    }

    pub fn socket(&self) -> &BenchSocket {
        &self.socket
    }

    pub fn begin(&mut self, start_ns: u64) {
        self.start_ns = start_ns;
    }

    /// No further batch is started.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// Whether everything that was started was answered.
    pub fn is_done(&self) -> bool {
        self.stopped && self.unsent.is_empty() && self.in_flight.is_empty()
    }

    pub fn wants_write(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Sends what is due. Returns when the next batch is due, if time is what it waits for.
    pub fn pump(&mut self) -> Result<Option<u64>, SocketError> {
        loop {
            if !self.unsent.is_empty() {
                let output = self.gathered.as_deref().unwrap_or(self.frame.bytes());
                self.unsent.start += self.socket.write(&output[self.unsent.clone()])?;
                if !self.unsent.is_empty() {
                    return Ok(None);
                }
            }
            let next_due_ns = self.start_due();
            if self.unsent.is_empty() {
                return Ok(next_due_ns);
            }
        }
    }

    /// Starts the batches that are due and go out with one call. Returns when the next one is due, if time is what it waits
    /// for.
    fn start_due(&mut self) -> Option<u64> {
        if let Some(gathered) = &mut self.gathered {
            gathered.clear();
        }
        while !self.stopped && self.in_flight.len() < self.window {
            let now_ns = self.clock.now_ns();
            let due_ns = match &self.schedule {
                Some(schedule) => self.start_ns + schedule.due_ns(self.sent),
                None => now_ns,
            };
            if due_ns > now_ns {
                return Some(due_ns);
            }
            self.start_batch(due_ns, now_ns);
            if self.gathered.as_ref().is_none_or(|gathered| gathered.len() >= GATHERED_BYTES) {
                break;
            }
        }
        None
    }

    fn start_batch(&mut self, due_ns: u64, now_ns: u64) {
        let index = (self.sent % self.streams.len() as u64) as usize;
        let stream = &mut self.streams[index];
        let stamp = Stamp {
            correlation: self.sent,
            sequence: stream.next_sequence,
            due_ns,
            born_time: self.clock.wall(now_ns),
        };
        let frame = self.frame.restamp(&stream.head, stamp);
        self.unsent = match &mut self.gathered {
            Some(gathered) => {
                gathered.extend_from_slice(&self.frame.bytes()[frame]);
                0..gathered.len()
            }
            None => frame,
        };
        self.in_flight.push_back(InFlight {
            stream: index,
            sequence: stream.next_sequence,
            due_ns,
            answered: false,
        });
        stream.next_sequence += u64::from(self.shape.batch_messages);
        self.sent += 1;
    }

    /// Reads once and takes the answers that came.
    pub fn receive(&mut self, window: &mut Window) -> Result<(), SocketError> {
        if !self.socket.read()? {
            return Ok(());
        }
        let now_ns = self.clock.now_ns();
        while let Some(frame) = self.socket.next_frame()? {
            let correlation = frame.correlation;
            let answer = Answer::read(&frame);
            let answer = answer.map_err(|reason| self.socket.protocol_error(reason))?;
            self.take(correlation, answer, now_ns, window)?;
        }
        Ok(())
    }

    fn take(
        &mut self,
        correlation: u64,
        answer: Answer,
        now_ns: u64,
        window: &mut Window,
    ) -> Result<(), SocketError> {
        let oldest = self.sent - self.in_flight.len() as u64;
        let slot = correlation.checked_sub(oldest).and_then(|index| self.in_flight.get_mut(index as usize));
        let Some(batch) = slot.filter(|batch| !batch.answered) else {
            return Err(self
                .socket
                .protocol_error(format!("batch {correlation} was answered twice or never sent")));
        };
        batch.answered = true;
        let stream = &mut self.streams[batch.stream];
        let count = u64::from(self.shape.batch_messages);
        match answer {
            Answer::Stored(produced) => {
                stream.stored(&produced, count);
                self.level = Some(self.level.map_or(produced.level, |level| level.min(produced.level)));
                let tally = &mut window.produced;
                tally.messages += count;
                tally.stored_bytes += self.shape.batch_bytes() as u64;
                tally.body_bytes += count * self.shape.body_bytes as u64;
                tally.last_ns = now_ns;
                tally.latencies.record(now_ns.saturating_sub(batch.due_ns), 1);
            }
            Answer::Refused(status, message) => {
                window.errors += 1;
                stream.refused(status, batch.sequence..batch.sequence + count);
                self.refusal.get_or_insert(message);
            }
        }
        while self.in_flight.front().is_some_and(|batch| batch.answered) {
            self.in_flight.pop_front();
        }
        Ok(())
    }

    /// Batches that were due before `elapsed_ns` and that were never started. Zero in a closed loop.
    pub fn overdue(&self, elapsed_ns: u64) -> u64 {
        self.schedule.map_or(0, |schedule| schedule.due_before(elapsed_ns).saturating_sub(self.sent))
    }

    /// Batches that have been started.
    pub fn started(&self) -> u64 {
        self.sent
    }

    /// Gives up on what is still in flight: nobody knows what became of it. Returns how many batches that are.
    pub fn abandon(&mut self) -> u64 {
        let count = u64::from(self.shape.batch_messages);
        let open: Vec<InFlight> = self.in_flight.drain(..).filter(|batch| !batch.answered).collect();
        for batch in &open {
            self.streams[batch.stream].unknown.push(batch.sequence..batch.sequence + count);
        }
        self.unsent = 0..0;
        self.stopped = true;
        open.len() as u64
    }
}

enum Answer {
    Stored(Produced),
    Refused(Status, String),
}

impl Answer {
    fn read(frame: &Frame<'_>) -> Result<Self, String> {
        match decode_reply(frame) {
            Ok(DecodedReply::Produced(produced)) => Ok(Answer::Stored(produced)),
            Ok(DecodedReply::Failed(failure)) => Ok(Answer::Refused(failure.status, failure.message)),
            Ok(_) => Err("a produce request got another kind of answer".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl ProduceStream {
    /// Messages that were started: the end of the stream's sequence.
    pub fn end_sequence(&self) -> u64 {
        self.next_sequence
    }

    fn stored(&mut self, produced: &Produced, count: u64) {
        let base = produced.base_offset.0;
        if self.last_base.is_some_and(|last_base| base.saturating_add(count) <= last_base) {
            self.disordered += count;
        }
        self.last_base = Some(base);
        self.acknowledged += count;
        self.ledger.lock().expect("no thread panics with the ledger").acknowledge(base, count);
    }

    fn refused(&mut self, status: Status, sequences: Range<u64>) {
        let list = if status.not_stored() { &mut self.refused } else { &mut self.unknown };
        if let Some(last) = list.last_mut().filter(|last| last.end == sequences.start) {
            last.end = sequences.end;
        } else if list.len() < REFUSALS_MAX {
            list.push(sequences);
        }
    }
}
