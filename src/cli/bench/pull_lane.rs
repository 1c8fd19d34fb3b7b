//! One connection that pulls over RocketMQ's protocol, every message checked. As RocketMQ's push consumers it has one pull of each
//! queue on its way; the next one leaves before the messages are looked at.

use crate::cli::bench::clock::BenchClock;
use crate::cli::bench::message::FillerCheck;
use crate::cli::bench::socket::{BenchSocket, SocketError};
use crate::cli::bench::tracker::{Faults, Trackers, faults_of};
use crate::cli::bench::window::{Tally, Window};
use crate::protocol::remoting::ResponseCode;
use crate::protocol::remoting::call::pull::{PullCall, PullPlace};
use crate::protocol::remoting::client::{self, Received};
use crate::protocol::remoting::message::read_record;
use crate::types::QueueOffset;

const GROUP: &str = "turbopump-bench";

/// A queue to read again and again.
#[derive(Clone, Copy, Debug)]
pub struct PullRange {
    /// What the broker calls it.
    pub queue: u32,
    pub first: QueueOffset,
    pub end: QueueOffset,
}

pub struct PullPlan {
    pub topic: String,
    /// Messages that each pull asks for.
    pub messages: u32,
    pub queues: Vec<PullRange>,
}

/// One queue as the lane reads it.
struct PullReader {
    range: PullRange,
    next: QueueOffset,
    /// When the pull that is on its way was sent; `None`: none is.
    sent_ns: Option<u64>,
    trackers: Trackers,
    /// Whole passes over the range.
    passes: u64,
    is_done: bool,
}

pub struct PullLane {
    socket: BenchSocket,
    clock: BenchClock,
    topic: String,
    messages: u32,
    readers: Vec<PullReader>,
    check: FillerCheck,
    unsent: Vec<u8>,
    stopped: bool,
    /// Faults of finished passes.
    finished: Faults,
    pub refusal: Option<String>,
}

impl PullLane {
    pub fn new(socket: BenchSocket, clock: BenchClock, plan: PullPlan) -> Self {
        let reader = |range: PullRange| PullReader {
            range,
            next: range.first,
            sent_ns: None,
            trackers: Trackers::default(),
            passes: 0,
            is_done: range.first >= range.end,
        };
        Self {
            socket,
            clock,
            topic: plan.topic,
            messages: plan.messages,
            readers: plan.queues.into_iter().map(reader).collect(),
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

    pub fn stop(&mut self) {
        self.stopped = true;
    }

    pub fn is_done(&self) -> bool {
        self.readers.iter().all(|reader| reader.is_done)
    }

    pub fn wants_write(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Pulls from every queue that waits for nothing.
    pub fn pump(&mut self) -> Result<(), SocketError> {
        for index in 0..self.readers.len() {
            self.ask(index);
        }
        self.socket.send(&mut self.unsent)
    }

    /// Pulls once more, unless the queue has a pull on its way, or is done with.
    fn ask(&mut self, index: usize) {
        let reader = &mut self.readers[index];
        if reader.is_done || reader.sent_ns.is_some() {
            return;
        }
        if reader.next >= reader.range.end {
            reader.passes += 1;
            // The next pass sees the same sequences again.
            self.finished.add(&std::mem::take(&mut reader.trackers).faults());
            reader.next = reader.range.first;
        }
        if self.stopped {
            reader.is_done = true;
            return;
        }
        let (queue, offset) = (reader.range.queue, reader.next);
        let call =
            PullCall { group: GROUP, topic: &self.topic, queue, offset, messages: self.messages, tags: "*" };
        call.write(index as i32, &mut self.unsent);
        reader.sent_ns = Some(self.clock.now_ns());
    }

    /// Reads once and checks what came.
    pub fn receive(&mut self, window: &mut Window) -> Result<(), SocketError> {
        if !self.socket.read()? {
            return Ok(());
        }
        let now_ns = self.clock.now_ns();
        loop {
            let Self { socket, readers, check, refusal, .. } = self;
            let received = client::receive(socket.unread()).map_err(|error| socket.protocol_error(error))?;
            let (taken, frame_bytes) = match received {
                Received::Incomplete { needed } => {
                    socket.want(needed);
                    return Ok(());
                }
                Received::Request { frame_bytes } => (Ok(()), frame_bytes),
                Received::Answer { answer, frame_bytes } => {
                    let index = usize::try_from(answer.header.opaque).unwrap_or(usize::MAX);
                    let waiting = readers.get_mut(index).filter(|reader| reader.sent_ns.is_some());
                    let taken = match waiting {
                        Some(reader) => reader.take(&answer, check, now_ns, frame_bytes, window),
                        None => Err(Trouble::Protocol("an answer that nobody waits for".to_owned())),
                    };
                    (taken, frame_bytes)
                }
            };
            match taken {
                Ok(()) => {}
                Err(Trouble::Refused(reason)) => {
                    window.errors += 1;
                    refusal.get_or_insert(reason);
                }
                Err(Trouble::Protocol(reason)) => return Err(socket.protocol_error(reason)),
            }
            socket.consume(frame_bytes);
        }
    }

    /// Gives up on what is still awaited.
    pub fn abandon(&mut self) {
        self.readers.iter_mut().for_each(|reader| reader.is_done = true);
        self.unsent.clear();
    }

    /// Faults of whole passes and of the current one.
    pub fn faults(&self) -> Faults {
        faults_of(self.finished, self.readers.iter().map(|reader| &reader.trackers))
    }

    /// Whole passes of the queue that had the fewest.
    pub fn passes(&self) -> u64 {
        self.readers.iter().map(|reader| reader.passes).min().unwrap_or(0)
    }
}

/// Why an answer is of no use.
enum Trouble {
    /// The queue is not read on.
    Refused(String),
    Protocol(String),
}

impl PullReader {
    fn take(
        &mut self,
        answer: &client::Answer<'_>,
        check: &mut FillerCheck,
        now_ns: u64,
        frame_bytes: usize,
        window: &mut Window,
    ) -> Result<(), Trouble> {
        let sent_ns = self.sent_ns.take().expect("a pull is on its way");
        let code = answer.header.code;
        let is_found = code == ResponseCode::Success.number();
        if !is_found && code != ResponseCode::PullRetryImmediately.number() {
            self.is_done = true;
            let remark = answer.header.remark.as_deref().unwrap_or_default();
            return Err(Trouble::Refused(format!("code {code} at offset {}: {remark}", self.next.0)));
        }
        let place = PullPlace::read(answer).map_err(|error| Trouble::Protocol(error.to_string()))?;
        let tally = &mut window.consumed;
        if is_found {
            self.take_records(answer.body, check, tally).map_err(Trouble::Protocol)?;
            tally.latencies.record(now_ns.saturating_sub(sent_ns), 1);
            tally.stored_bytes += frame_bytes as u64;
            tally.last_ns = now_ns;
        }
        if place.next <= self.next && self.next < self.range.end && !is_found {
            return Err(Trouble::Protocol(format!("a pull at {} leads nowhere", self.next.0)));
        }
        self.next = place.next.max(self.next);
        Ok(())
    }

    fn take_records(
        &mut self,
        body: &[u8],
        check: &mut FillerCheck,
        tally: &mut Tally,
    ) -> Result<(), String> {
        let first = (self.range.first == QueueOffset::ZERO).then_some(0);
        let mut rest = body;
        while !rest.is_empty() {
            let Some((record, after)) = read_record(rest) else {
                return Err(format!("what follows offset {} is no message", self.next.0));
            };
            rest = after;
            let offset = u64::try_from(record.queue_offset).unwrap_or(0);
            if offset < self.next.0 {
                return Err(format!("asked for {} and later, got {offset}", self.next.0));
            }
            // Queues have no holes, so offsets that are not there are messages that are lost.
            self.trackers.lost(offset - self.next.0);
            self.next = QueueOffset(offset + 1);
            tally.messages += 1;
            tally.body_bytes += record.body.len() as u64;
            self.trackers.note(check.read(record.body), first);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::message::{Head, RunId, StreamId, blank_body, stamp};
    use crate::protocol::remoting::message::{PlacedRecord, RecordTerms, write_record};
    use crate::protocol::remoting::{self, FieldValue, HeaderForm};
    use crate::types::{LogPosition, RecordLocation, Timestamp};
    use crate::wire::record::{Record, RecordView};

    fn push_record(offset: u64, body: &[u8], output: &mut Vec<u8>) {
        let mut stored = Vec::new();
        Record { body, ..Record::default() }.encode(&mut stored);
        let (record, _) = RecordView::cut(&stored).expect("a record");
        let store_host = ([127, 0, 0, 1], 1).into();
        let terms = RecordTerms { topic: "t", queue: 0, store_host, cluster: "c" };
        let placed = PlacedRecord {
            record,
            offset: QueueOffset(offset),
            location: RecordLocation { position: LogPosition(0), index: 0 },
            born_time: Timestamp(1),
            store_time: Timestamp(1),
        };
        write_record(&terms, &placed, output);
    }

    fn body(sequence: u64) -> Vec<u8> {
        let mut body = blank_body(RunId(7), 64);
        stamp(&mut body, &Head { run: RunId(7), stream: StreamId(1), sequence, due_ns: 5 });
        body
    }

    fn answer(code: ResponseCode, next: i64, body: &[u8]) -> Vec<u8> {
        let fields = [("nextBeginOffset", next), ("minOffset", 0), ("maxOffset", 100)]
            .map(|(name, value)| (name, FieldValue::Number(value)));
        let mut bytes = Vec::new();
        let head = remoting::Head { fields: &fields, ..remoting::Head::answer_to(0, code) };
        head.write(HeaderForm::Json, body, &mut bytes);
        bytes
    }

    fn reader() -> PullReader {
        PullReader {
            range: PullRange { queue: 0, first: QueueOffset(0), end: QueueOffset(100) },
            next: QueueOffset(0),
            sent_ns: Some(1),
            trackers: Trackers::default(),
            passes: 0,
            is_done: false,
        }
    }

    /// What a reader makes of one answer, and what it counts.
    fn take(reader: &mut PullReader, answer: &[u8]) -> (Result<(), Trouble>, Tally) {
        let Ok(Received::Answer { answer, frame_bytes }) = client::receive(answer) else {
            panic!("an answer")
        };
        let mut window = Window::default();
        let taken = reader.take(&answer, &mut FillerCheck::default(), 3, frame_bytes, &mut window);
        (taken, window.consumed)
    }

    #[test]
    fn what_is_missing_or_damaged_is_counted() {
        let mut records = Vec::new();
        for offset in [0, 1, 3] {
            push_record(offset, &body(offset), &mut records);
        }
        let mut damaged = body(4);
        *damaged.last_mut().expect("it has bytes") ^= 1;
        push_record(4, &damaged, &mut records);
        let mut reader = reader();
        let (taken, tally) = take(&mut reader, &answer(ResponseCode::Success, 7, &records));
        assert!(taken.is_ok());
        assert_eq!((tally.messages, tally.body_bytes, reader.next), (4, 256, QueueOffset(7)));
        let faults = Faults { lost: 1, duplicated: 0, disordered: 0, damaged: 1 };
        assert_eq!(reader.trackers.faults(), faults);
    }

    #[test]
    fn an_answer_that_leads_nowhere_is_an_error() {
        let mut at_once = reader();
        assert!(take(&mut at_once, &answer(ResponseCode::PullRetryImmediately, 9, b"")).0.is_ok());
        assert_eq!((at_once.next, at_once.is_done), (QueueOffset(9), false));
        let again = take(&mut reader(), &answer(ResponseCode::PullRetryImmediately, 0, b""));
        assert!(matches!(again.0, Err(Trouble::Protocol(_))), "it would be asked for ever");
        let mut outside = reader();
        assert!(matches!(
            take(&mut outside, &answer(ResponseCode::PullOffsetMoved, 9, b"")).0,
            Err(Trouble::Refused(_))
        ));
        assert!(outside.is_done);
        let mut records = Vec::new();
        push_record(0, &body(0), &mut records);
        let cut = answer(ResponseCode::Success, 1, &records[..records.len() - 1]);
        assert!(matches!(take(&mut reader(), &cut).0, Err(Trouble::Protocol(_))));
    }
}
