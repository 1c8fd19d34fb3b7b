//! What a consumer has read of its queues, what it asks for next, and cutting answers into batches. No I/O.
//!
//! Per queue one fetch is on its way while the last answer is being used. `position` runs ahead to where the next fetch
//! starts; `delivered` is what the caller has got. After a lost connection reading goes on at `delivered`.
//!
//! A fetch waits at the broker for the next message. Of more queues than fetches may wait, those without a message are
//! watched together (see [`Watches`]), and are fetched from when the watch says so.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::api::{Failure, Fetch, Request, Status, Watch};
use crate::protocol::native::FetchedView;
use crate::types::{QueueKey, QueueNumber, QueueOffset, TopicName};
use crate::wire::batch::{BATCH_ALIGNMENT, BatchHeader, Kind, records_match};

use super::core::Correlation;
use super::messages::{DamagedRange, QueueName};
use super::watching::Watches;

/// Fetches that wait at one shard for one consumer: fewer than a broker lets a connection wait for.
const FETCHES_IN_FLIGHT_MAX: usize = 192;
/// Fetches on their way to one shard of more queues than that: none of them waits for a message.
const FETCHES_BESIDE_WATCHES_MAX: usize = 64;
/// Pause of a queue whose fetch was refused.
const REFUSED_PAUSE: Duration = Duration::from_millis(200);

/// How much one fetch asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct FetchLimits {
    pub(super) bytes_max: u32,
    pub(super) records_max: u32,
    pub(super) wait: Duration,
}

struct Lane {
    topic: TopicName,
    /// Where the next fetch starts.
    position: QueueOffset,
    /// Up to here the caller has got everything.
    delivered: QueueOffset,
    /// Where to stop, for a consumer that reads to the end.
    stop_at: Option<QueueOffset>,
    asked: Option<Correlation>,
    /// Whether it stands in its shard's `idle` or among the quiet ones.
    listed: bool,
}

#[derive(Default)]
struct Shard {
    asked: HashMap<Correlation, QueueKey>,
    idle: VecDeque<QueueKey>,
    watches: Watches,
    lane_count: usize,
}

/// The answer whose batches are being handed out.
struct Current {
    shard: usize,
    key: QueueKey,
    /// Bytes of the payload handed out so far.
    cursor: usize,
    next_offset: QueueOffset,
}

/// What to send to a shard next.
#[derive(Debug)]
pub(super) enum Ask {
    Fetch(Fetch),
    Watch(Watch),
}

/// Whether a queue is likely to have a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Likely {
    Yes,
    No,
}

/// What an answer brought.
#[derive(Debug)]
pub(super) enum Answered {
    /// Nothing, or it was no longer wanted.
    Nothing,
    /// Batches: see [`Fetcher::next_batch`].
    Batches,
    Damaged(DamagedRange),
    OutOfRange(QueueKey, Failure),
    Refused(Failure),
}

/// One batch of the current answer.
pub(super) struct BatchCut {
    pub(super) range: Range<usize>,
    pub(super) header: BatchHeader,
    pub(super) first_offset: QueueOffset,
    pub(super) end_offset: QueueOffset,
    /// False when the records do not match their checksum.
    pub(super) intact: bool,
}

pub(super) struct Fetcher {
    limits: FetchLimits,
    /// Of the member that reads; 0: it is none.
    pub(super) session: u64,
    lanes: HashMap<QueueKey, Lane>,
    shards: Vec<Shard>,
    pausing: Vec<(Instant, QueueKey)>,
    current: Option<Current>,
    /// Queues that were not delivered to where they are to stop.
    unfinished_count: usize,
}

impl Fetcher {
    pub(super) fn new(limits: FetchLimits, shard_count: u16) -> Self {
        assert!(shard_count > 0, "a node has at least one shard");
        Self {
            limits,
            session: 0,
            lanes: HashMap::new(),
            shards: (0..shard_count).map(|_| Shard::default()).collect(),
            pausing: Vec::new(),
            current: None,
            unfinished_count: 0,
        }
    }

    // ---- Queues ------------------------------------------------------------------------------------------------

    /// Starts to read a queue.
    pub(super) fn add(
        &mut self,
        key: QueueKey,
        topic: TopicName,
        from: QueueOffset,
        stop_at: Option<QueueOffset>,
    ) {
        let lane = Lane { topic, position: from, delivered: from, stop_at, asked: None, listed: false };
        self.unfinished_count += usize::from(!lane.is_done());
        let earlier = self.lanes.insert(key, lane);
        assert!(earlier.is_none(), "{key} is read already");
        let shard = self.shard(key);
        self.shards[shard].lane_count += 1;
        self.list(key, Likely::No);
    }

    /// Stops reading a queue. An answer that is still on its way will be dropped.
    pub(super) fn remove(&mut self, key: QueueKey) {
        if let Some(lane) = self.lanes.remove(&key) {
            self.unfinished_count -= usize::from(!lane.is_done());
            let shard = self.shard(key);
            self.shards[shard].lane_count -= 1;
            self.pausing.retain(|&(_, pausing)| pausing != key);
            if self.current.as_ref().is_some_and(|current| current.key == key) {
                self.current = None;
            }
        }
    }

    pub(super) fn keys(&self) -> Vec<QueueKey> {
        let mut keys: Vec<_> = self.lanes.keys().copied().collect();
        keys.sort_unstable();
        keys
    }

    pub(super) fn topic(&self, key: QueueKey) -> Option<&TopicName> {
        self.lanes.get(&key).map(|lane| &lane.topic)
    }

    /// Up to where the caller has got everything.
    pub(super) fn delivered(&self, key: QueueKey) -> Option<QueueOffset> {
        self.lanes.get(&key).map(|lane| lane.delivered)
    }

    /// Goes on reading elsewhere.
    pub(super) fn seek(&mut self, key: QueueKey, offset: QueueOffset) {
        if let Some(lane) = self.lanes.get_mut(&key) {
            self.unfinished_count -= usize::from(!lane.is_done());
            (lane.position, lane.delivered) = (offset, offset);
            self.unfinished_count += usize::from(!lane.is_done());
            // An answer to the old fetch is no longer this lane's.
            lane.asked = None;
            if self.current.as_ref().is_some_and(|current| current.key == key) {
                self.current = None;
            }
            self.list(key, Likely::Yes);
        }
    }

    /// Whether every queue was read to where it is to stop.
    pub(super) fn is_done(&self) -> bool {
        self.current.is_none() && self.unfinished_count == 0
    }

    // ---- Fetches -----------------------------------------------------------------------------------------------

    pub(super) fn shard_count(&self) -> usize {
        self.shards.len()
    }

    fn shard(&self, key: QueueKey) -> usize {
        usize::from(key.queue.shard(self.shards.len() as u16).0)
    }

    fn list(&mut self, key: QueueKey, likely: Likely) {
        let shard = self.shard(key);
        let Some(lane) = self.lanes.get_mut(&key) else { return };
        if !lane.listed && lane.asked.is_none() && !lane.is_fetched() {
            lane.listed = true;
            let state = &mut self.shards[shard];
            match likely {
                Likely::No if state.is_watched() => state.watches.push(key),
                Likely::No | Likely::Yes => state.idle.push_back(key),
            }
        }
    }

    /// What to send to a shard next; to be followed by [`asked`](Self::asked) or [`not_asked`](Self::not_asked).
    pub(super) fn next_ask(&mut self, shard: usize, now: Instant) -> Option<Ask> {
        let state = &mut self.shards[shard];
        if !state.is_watched() {
            let quiet = state.watches.take_quiet();
            state.idle.extend(quiet);
        }
        if let Some(fetch) = self.next_fetch(shard) {
            return Some(Ask::Fetch(fetch));
        }
        let state = &mut self.shards[shard];
        while state.in_flight() < FETCHES_IN_FLIGHT_MAX {
            let keys = state.watches.next(!state.asked.is_empty(), now)?;
            let queues: Vec<_> = keys.into_iter().filter_map(|key| unlist(&mut self.lanes, key)).collect();
            if !queues.is_empty() {
                let wait = Watches::wait(queues.len(), self.limits.wait);
                return Some(Ask::Watch(Watch { queues, wait }));
            }
        }
        None
    }

    fn next_fetch(&mut self, shard: usize) -> Option<Fetch> {
        let state = &mut self.shards[shard];
        let is_watched = state.is_watched();
        let most = if is_watched { FETCHES_BESIDE_WATCHES_MAX } else { FETCHES_IN_FLIGHT_MAX };
        if state.asked.len() >= most || state.in_flight() >= FETCHES_IN_FLIGHT_MAX {
            return None;
        }
        while let Some(key) = state.idle.pop_front() {
            let Some((key, offset)) = unlist(&mut self.lanes, key) else { continue };
            return Some(Fetch {
                key,
                offset,
                bytes_max: self.limits.bytes_max,
                records_max: self.limits.records_max,
                session: self.session,
                wait: if is_watched { Duration::ZERO } else { self.limits.wait },
            });
        }
        None
    }

    /// It was sent.
    pub(super) fn asked(&mut self, shard: usize, ask: &Ask, correlation: Correlation) {
        let keys = ask.keys();
        for key in &keys {
            if let Some(lane) = self.lanes.get_mut(key) {
                lane.asked = Some(correlation);
            }
        }
        match ask {
            Ask::Fetch(fetch) => {
                self.shards[shard].asked.insert(correlation, fetch.key);
            }
            Ask::Watch(_) => self.shards[shard].watches.asked(correlation, keys),
        }
    }

    /// It was not sent.
    pub(super) fn not_asked(&mut self, ask: &Ask) {
        let likely = if matches!(ask, Ask::Fetch(_)) { Likely::Yes } else { Likely::No };
        ask.keys().into_iter().for_each(|key| self.list(key, likely));
    }

    /// A queue is to be asked for again.
    pub(super) fn again(&mut self, key: QueueKey) {
        self.list(key, Likely::Yes);
    }

    /// Requests on their way to a shard.
    pub(super) fn in_flight(&self, shard: usize) -> usize {
        self.shards[shard].in_flight()
    }

    /// The connection to a shard is gone, and with it the answer that was being used.
    pub(super) fn lost(&mut self, shard: usize) {
        let state = &mut self.shards[shard];
        let mut keys: Vec<QueueKey> = state.asked.drain().map(|(_, key)| key).collect();
        keys.extend(state.watches.lost());
        if self.current.as_ref().is_some_and(|current| current.shard == shard) {
            keys.extend(self.current.take().map(|current| current.key));
        }
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            if let Some(lane) = self.lanes.get_mut(&key) {
                lane.asked = None;
                lane.position = lane.delivered;
                self.list(key, Likely::No);
            }
        }
    }

    /// Ends the pauses of refused queues that are over.
    pub(super) fn resume_due(&mut self, now: Instant) {
        while let Some(index) = self.pausing.iter().position(|&(until, _)| until <= now) {
            let (_, key) = self.pausing.swap_remove(index);
            self.list(key, Likely::Yes);
        }
    }

    /// When the next pause ends, or quiet queues have been gathered.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let pauses = self.pausing.iter().map(|&(until, _)| until);
        pauses.chain(self.shards.iter().filter_map(|shard| shard.watches.deadline())).min()
    }

    // ---- Answers -----------------------------------------------------------------------------------------------

    /// The broker's answer to a fetch. There must be no current answer.
    pub(super) fn answered(
        &mut self,
        shard: usize,
        correlation: Correlation,
        answer: Result<&FetchedView<'_>, Failure>,
        now: Instant,
    ) -> Answered {
        assert!(self.current.is_none(), "an answer comes while another is in use");
        let Some(key) = self.shards[shard].asked.remove(&correlation) else { return Answered::Nothing };
        let Some(lane) = self.lanes.get_mut(&key) else { return Answered::Nothing };
        if lane.asked != Some(correlation) {
            return Answered::Nothing;
        }
        lane.asked = None;
        let view = match answer {
            Ok(view) => view,
            Err(failure) if failure.status == Status::OffsetOutOfRange => {
                return Answered::OutOfRange(key, failure);
            }
            Err(failure) => {
                self.pausing.push((now + REFUSED_PAUSE, key));
                return match failure.status.is_transient() {
                    true => Answered::Nothing,
                    false => Answered::Refused(failure),
                };
            }
        };
        if let Some(bytes) = &view.damaged {
            let from = lane.delivered;
            // What does not move on would be asked for again for ever.
            let to = view.next_offset.max(from.advance(1));
            self.unfinished_count -= usize::from(!lane.is_done());
            (lane.position, lane.delivered) = (to, to);
            self.unfinished_count += usize::from(!lane.is_done());
            let queue = QueueName { topic: lane.topic.clone(), queue: key.queue };
            self.list(key, Likely::Yes);
            return Answered::Damaged(DamagedRange { queue, from, to, bytes: Some(bytes.clone()) });
        }
        if view.batches.is_empty() {
            self.list(key, Likely::No);
            return Answered::Nothing;
        }
        lane.position = view.next_offset;
        self.current = Some(Current { shard, key, cursor: 0, next_offset: view.next_offset });
        self.list(key, Likely::Yes);
        Answered::Batches
    }

    /// The broker's answer to a watch: the queues to fetch from.
    pub(super) fn watched(
        &mut self,
        shard: usize,
        correlation: Correlation,
        answer: Result<Vec<QueueKey>, Failure>,
        now: Instant,
    ) -> Answered {
        let Some(keys) = self.shards[shard].watches.answered(correlation) else { return Answered::Nothing };
        let is_current = |lane: &mut Lane| {
            let current = lane.asked == Some(correlation);
            lane.asked = lane.asked.filter(|_| !current);
            current
        };
        let keys: Vec<_> =
            keys.into_iter().filter(|key| self.lanes.get_mut(key).is_some_and(is_current)).collect();
        match answer {
            Ok(ready) => {
                let ready: HashSet<QueueKey> = ready.into_iter().collect();
                for key in keys {
                    self.list(key, if ready.contains(&key) { Likely::Yes } else { Likely::No });
                }
                Answered::Nothing
            }
            Err(failure) => {
                self.pausing.extend(keys.into_iter().map(|key| (now + REFUSED_PAUSE, key)));
                match failure.status.is_transient() {
                    true => Answered::Nothing,
                    false => Answered::Refused(failure),
                }
            }
        }
    }

    /// Whether this correlation is a watch's.
    pub(super) fn is_watch(&self, shard: usize, correlation: Correlation) -> bool {
        self.shards[shard].watches.is_in_flight(correlation)
    }

    /// The shard and queue of the answer that is in use.
    pub(super) fn current(&self) -> Option<(usize, QueueKey)> {
        self.current.as_ref().map(|current| (current.shard, current.key))
    }

    /// The next batch of the answer in use, whose payload is given. It counts as delivered. An error is a breach of the
    /// protocol: the connection is to be dropped.
    pub(super) fn next_batch(&mut self, payload: &[u8]) -> Result<Option<BatchCut>, String> {
        let Some(current) = &mut self.current else { return Ok(None) };
        let Some(lane) = self.lanes.get_mut(&current.key) else {
            self.current = None;
            return Ok(None);
        };
        if current.cursor >= payload.len() || lane.is_done() {
            let complete = lane.is_done() || lane.delivered == current.next_offset;
            let (delivered, next_offset) = (lane.delivered, current.next_offset);
            self.current = None;
            return if complete {
                Ok(None)
            } else {
                Err(format!("batches end at offset {delivered}, the answer says {next_offset}"))
            };
        }
        let (range, header) = cut(payload, current.cursor, current.key)?;
        if header.base_offset > lane.delivered || header.end_offset() <= lane.delivered {
            return Err(format!(
                "a batch with offsets {} to {} came where {} was to follow",
                header.base_offset,
                header.end_offset(),
                lane.delivered
            ));
        }
        current.cursor = range.end.next_multiple_of(BATCH_ALIGNMENT);
        let first_offset = lane.delivered;
        let end_offset = lane.stop_at.map_or(header.end_offset(), |stop_at| header.end_offset().min(stop_at));
        lane.delivered = end_offset;
        self.unfinished_count -= usize::from(lane.is_done());
        let intact = records_match(&payload[range.clone()]);
        Ok(Some(BatchCut { range, header, first_offset, end_offset, intact }))
    }
}

impl Ask {
    /// A queue of the shard to which it goes.
    pub(super) fn queue(&self) -> QueueNumber {
        match self {
            Ask::Fetch(fetch) => fetch.key.queue,
            Ask::Watch(watch) => watch.queues[0].0.queue,
        }
    }

    pub(super) fn request(&self) -> Request {
        match self {
            Ask::Fetch(fetch) => Request::Fetch(*fetch),
            Ask::Watch(watch) => Request::Watch(watch.clone()),
        }
    }

    fn keys(&self) -> Vec<QueueKey> {
        match self {
            Ask::Fetch(fetch) => vec![fetch.key],
            Ask::Watch(watch) => watch.queues.iter().map(|(key, _)| *key).collect(),
        }
    }
}

impl Shard {
    /// Whether the queues are more than fetches may wait.
    fn is_watched(&self) -> bool {
        self.lane_count > FETCHES_IN_FLIGHT_MAX
    }

    fn in_flight(&self) -> usize {
        self.asked.len() + self.watches.in_flight()
    }
}

/// Takes a queue off its list: where to read on, if it is to be asked for.
fn unlist(lanes: &mut HashMap<QueueKey, Lane>, key: QueueKey) -> Option<(QueueKey, QueueOffset)> {
    let lane = lanes.get_mut(&key)?;
    lane.listed = false;
    (lane.asked.is_none() && !lane.is_fetched()).then_some((key, lane.position))
}

impl Lane {
    /// Whether everything was delivered.
    fn is_done(&self) -> bool {
        self.stop_at.is_some_and(|stop_at| self.delivered >= stop_at)
    }

    /// Whether there is nothing more to be asked for.
    fn is_fetched(&self) -> bool {
        self.stop_at.is_some_and(|stop_at| self.position >= stop_at)
    }
}

/// The batch at `start` of a payload.
fn cut(payload: &[u8], start: usize, key: QueueKey) -> Result<(Range<usize>, BatchHeader), String> {
    let rest = &payload[start..];
    let header = BatchHeader::decode(rest).map_err(|error| error.to_string())?;
    if header.batch_bytes as usize > rest.len() {
        return Err("a batch is longer than the answer that brought it".to_owned());
    }
    if header.key != key || header.kind != Kind::Messages {
        return Err(format!("a batch of {} came for {key}", header.key));
    }
    Ok((start..start + header.batch_bytes as usize, header))
}

#[cfg(test)]
mod tests;
