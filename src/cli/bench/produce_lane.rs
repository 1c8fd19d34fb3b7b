//! One connection that produces: keeps a window of batches in flight, or sends them on a schedule.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use crate::cli::bench::batch_frame::{BatchShape, Stamp};
use crate::cli::bench::clock::BenchClock;
use crate::cli::bench::ledger::OffsetLedger;
use crate::cli::bench::link::{Answer, Link};
use crate::cli::bench::message::StreamId;
use crate::cli::bench::schedule::Schedule;
use crate::cli::bench::socket::{BenchSocket, SocketError};
use crate::cli::bench::window::Window;
use crate::types::{Level, QueueKey};

/// Refused ranges that are kept per stream; a run with more is of no use anyway.
const REFUSALS_MAX: usize = 100_000;

/// What a lane is to do.
pub struct ProducePlan {
    pub shape: BatchShape,
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
    link: Link,
    clock: BenchClock,
    shape: BatchShape,
    /// Of one batch, as it is sent.
    request_bytes: u64,
    window: usize,
    schedule: Option<Schedule>,
    /// When the schedule starts.
    start_ns: u64,
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
    /// `link` leads to the plan's queues, in their order.
    pub fn new(link: Link, clock: BenchClock, plan: ProducePlan) -> Self {
        let stream = |(key, stream, ledger)| ProduceStream {
            key,
            stream,
            ledger,
            next_sequence: 0,
            last_base: None,
            disordered: 0,
            acknowledged: 0,
            refused: Vec::new(),
            unknown: Vec::new(),
        };
        Self {
            request_bytes: link.request_bytes(plan.shape) as u64,
            link,
            clock,
            shape: plan.shape,
            window: plan.window,
            schedule: plan.schedule,
            start_ns: 0,
            streams: plan.queues.into_iter().map(stream).collect(),
            sent: 0,
            in_flight: VecDeque::with_capacity(plan.window),
            stopped: false,
            level: None,
            refusal: None,
        }
    }

    pub fn socket(&self) -> &BenchSocket {
        self.link.socket()
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
        self.stopped && self.link.is_flushed() && self.in_flight.is_empty()
    }

    pub fn wants_write(&self) -> bool {
        !self.link.is_flushed()
    }

    /// Sends what is due. Returns when the next batch is due, if time is what it waits for.
    pub fn pump(&mut self) -> Result<Option<u64>, SocketError> {
        loop {
            if !self.link.flush()? {
                return Ok(None);
            }
            let next_due_ns = self.start_due();
            if self.link.is_flushed() {
                return Ok(next_due_ns);
            }
        }
    }

    /// Starts the batches that are due, as many as are made at once. Returns when the next one is, if time is what it waits for.
    fn start_due(&mut self) -> Option<u64> {
        while !self.stopped && self.in_flight.len() < self.window && self.link.has_room() {
            let now_ns = self.clock.now_ns();
            let due_ns = match &self.schedule {
                Some(schedule) => self.start_ns + schedule.due_ns(self.sent),
                None => now_ns,
            };
            if due_ns > now_ns {
                return Some(due_ns);
            }
            self.start_batch(due_ns, now_ns);
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
        self.link.add(index, stamp);
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
        if !self.link.read()? {
            return Ok(());
        }
        let now_ns = self.clock.now_ns();
        while let Some((correlation, answer)) = self.link.next_answer()? {
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
                .link
                .socket()
                .protocol_error(format!("batch {correlation} was answered twice or never sent")));
        };
        batch.answered = true;
        let stream = &mut self.streams[batch.stream];
        let count = u64::from(self.shape.batch_messages);
        match answer {
            Answer::Stored { base, level } => {
                stream.stored(base, count);
                self.level = self.level.into_iter().chain(level).min();
                let tally = &mut window.produced;
                tally.messages += count;
                tally.stored_bytes += self.request_bytes;
                tally.body_bytes += count * self.shape.body_bytes as u64;
                tally.last_ns = now_ns;
                tally.latencies.record(now_ns.saturating_sub(batch.due_ns), 1);
            }
            Answer::Refused { not_stored, message } => {
                window.errors += 1;
                stream.refused(not_stored, batch.sequence..batch.sequence + count);
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
        self.link.discard();
        self.stopped = true;
        open.len() as u64
    }
}

impl ProduceStream {
    /// Messages that were started: the end of the stream's sequence.
    pub fn end_sequence(&self) -> u64 {
        self.next_sequence
    }

    fn stored(&mut self, base: u64, count: u64) {
        if self.last_base.is_some_and(|last_base| base.saturating_add(count) <= last_base) {
            self.disordered += count;
        }
        self.last_base = Some(base);
        self.acknowledged += count;
        self.ledger.lock().expect("no thread panics with the ledger").acknowledge(base, count);
    }

    fn refused(&mut self, not_stored: bool, sequences: Range<u64>) {
        let list = if not_stored { &mut self.refused } else { &mut self.unknown };
        if let Some(last) = list.last_mut().filter(|last| last.end == sequences.start) {
            last.end = sequences.end;
        } else if list.len() < REFUSALS_MAX {
            list.push(sequences);
        }
    }
}
