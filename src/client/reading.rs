//! What a consumer does next, and what an answer means for it: its place in its group, where to read, what to hand out.
//! No I/O: a driver carries out [`Call`]s, moves the fetches' bytes, and waits.
//!
//! A driver's poll is a loop: carry out [`next_call`](Reader::next_call) until there is none; hand out
//! [`next_step`](Reader::next_step); send what [`next_ask`](Reader::next_ask) says; give answers to
//! [`received`](Reader::received); wait until [`deadline`](Reader::deadline). It may be left and begun again at any
//! point: what was not answered is asked for again.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::api::{Failure, Reply, Status, TopicInfo};
use crate::limits;
use crate::protocol::native::DecodedReply;
use crate::types::{GroupName, QueueKey, QueueNumber, QueueOffset, TopicId, TopicName};

use super::calls::Call;
use super::core::Correlation;
use super::fetching::{Answered, Ask, BatchCut, FetchLimits, Fetcher};
use super::membership::{Change, Membership};
use super::messages::{DamagedRange, Delivery, MessageBatch, QueueName};
use super::options::{ConsumerOptions, OutOfRange, ROUTE_INTERVAL, Start, Until};
use super::patience::Patience;

/// A [`Delivery`] that is not of messages.
pub(super) enum Event {
    Damaged(DamagedRange),
    Moved { queue: QueueName, from: QueueOffset, to: QueueOffset },
    Rebalanced { assigned: Vec<QueueName>, revoked: Vec<QueueName> },
}

/// What is to be handed out.
pub(super) enum Step {
    /// Batches of the answer that `shard` gave last.
    Batch {
        shard: usize,
        cut: BatchCut,
    },
    Event(Event),
    End,
}

/// Why an answer to a fetch is an error.
pub(super) enum ReadError {
    /// The peer breaks the protocol: its connection is of no more use.
    Protocol(String),
    Refused(Failure),
}

pub(super) struct Reader {
    pub(super) options: ConsumerOptions,
    pub(super) fetcher: Fetcher,
    pub(super) patience: Patience,
    /// Whose offsets are read at the start and written by commits.
    pub(super) group: Option<GroupName>,
    /// Set when the group decides which queues are read.
    pub(super) membership: Option<Membership>,
    pub(super) topics: HashMap<TopicId, TopicName>,
    /// Set when an assignment has named a topic that has another number now.
    pub(super) topics_are_stale: bool,
    /// Set when that was found out, until the next assignment: a topic that is still unknown then has been deleted.
    pub(super) topics_were_asked: bool,
    /// A topic that is read as a whole, whatever queues it gets.
    pub(super) whole: Option<WholeTopic>,
    /// Queues whose first offset is still to be found.
    pub(super) unplaced: Vec<QueueKey>,
    /// Queues that the topic has got since: everything in them is new.
    pub(super) late: HashSet<QueueKey>,
    /// Queues whose offset was gone, and is to be found anew.
    pub(super) misplaced: Vec<QueueKey>,
    pub(super) committed: HashMap<QueueKey, QueueOffset>,
    /// Queues that are given up with the poll after the one that told of it.
    revoked: Vec<QueueKey>,
    revoked_was_told: bool,
    events: VecDeque<Event>,
    /// The shard whose answers are looked for first: another one each time.
    first_shard: usize,
}

/// A topic all of whose queues are read for ever.
pub(super) struct WholeTopic {
    pub(super) topic: TopicName,
    pub(super) id: TopicId,
    pub(super) queue_count: u32,
    /// When its route is to be asked for again.
    pub(super) due: Instant,
}

/// The queues of a topic that a consumer was asked to read: those named, or all.
fn fixed_queues(info: &TopicInfo, queues: Option<Vec<QueueNumber>>) -> Result<Vec<QueueKey>, Failure> {
    let mut queues = queues.unwrap_or_else(|| (0..info.queue_count).map(QueueNumber).collect());
    queues.sort_unstable();
    queues.dedup();
    if let Some(queue) = queues.iter().find(|queue| queue.0 >= info.queue_count) {
        let message =
            format!("queue {queue} does not exist: topic {} has {}, from 0", info.topic, info.queue_count);
        return Err(Failure::new(Status::QueueNotExist, message));
    }
    Ok(queues.into_iter().map(|queue| QueueKey { topic: info.id, queue }).collect())
}

impl Reader {
    /// `request_timeout` is how long an answer may take beyond the wait that a fetch asks for.
    pub(super) fn new(
        options: ConsumerOptions,
        request_timeout: Duration,
        shard_count: u16,
        group: Option<GroupName>,
    ) -> Self {
        let limits = FetchLimits {
            bytes_max: options.fetch_bytes,
            records_max: options.fetch_records,
            wait: options.fetch_wait.min(Duration::from_millis(u64::from(limits::FETCH_WAIT_MS_MAX))),
        };
        Self {
            options,
            fetcher: Fetcher::new(limits, shard_count),
            patience: Patience::new(limits.wait + request_timeout, shard_count),
            group,
            membership: None,
            topics: HashMap::new(),
            topics_are_stale: false,
            topics_were_asked: false,
            whole: None,
            unplaced: Vec::new(),
            late: HashSet::new(),
            misplaced: Vec::new(),
            committed: HashMap::new(),
            revoked: Vec::new(),
            revoked_was_told: false,
            events: VecDeque::new(),
            first_shard: 0,
        }
    }

    /// Reads these queues of one topic, or all of them.
    pub(super) fn read_fixed(
        &mut self,
        topic: TopicInfo,
        queues: Option<Vec<QueueNumber>>,
        now: Instant,
    ) -> Result<(), Failure> {
        let is_whole = queues.is_none() && self.options.until == Until::Forever;
        self.unplaced = fixed_queues(&topic, queues)?;
        let (name, id, queue_count) = (topic.topic.clone(), topic.id, topic.queue_count);
        let due = now + ROUTE_INTERVAL;
        self.whole = is_whole.then_some(WholeTopic { topic: name, id, queue_count, due });
        self.topics.insert(topic.id, topic.topic);
        Ok(())
    }

    /// The topic's route, asked for again: it may have more queues now.
    pub(super) fn route_found(&mut self, info: &TopicInfo) {
        let Some(whole) = self.whole.as_mut().filter(|whole| whole.id == info.id) else { return };
        let added = whole.queue_count..info.queue_count.max(whole.queue_count);
        let key = |queue| QueueKey { topic: info.id, queue: QueueNumber(queue) };
        self.late.extend(added.clone().map(key));
        self.unplaced.extend(added.map(key));
        whole.queue_count = whole.queue_count.max(info.queue_count);
    }

    /// Where reading begins in a queue of which the group has no committed offset.
    pub(super) fn start_of(&self, key: QueueKey) -> Start {
        if self.late.contains(&key) { Start::First } else { self.options.start }
    }

    /// Reads what the group assigns of these topics.
    pub(super) fn read_assigned(&mut self, topics: HashMap<TopicId, TopicName>, membership: Membership) {
        self.topics = topics;
        self.membership = Some(membership);
    }

    // ---- Group -------------------------------------------------------------------------------------------------

    /// A poll begins: what the one before handed out counts as handled, and what it said is given up, the caller has had
    /// the time to commit.
    pub(super) fn begin_poll(&mut self) {
        if !std::mem::take(&mut self.revoked_was_told) {
            return;
        }
        self.give_up_revoked();
        if let Some(membership) = &mut self.membership {
            membership.released();
        }
    }

    /// Whether the group is to be asked. What is being given up must be gone before it can be assigned again.
    pub(super) fn is_join_due(&self, now: Instant) -> bool {
        self.revoked.is_empty() && self.membership.as_ref().is_some_and(|membership| membership.is_due(now))
    }

    fn give_up_revoked(&mut self) {
        for key in self.revoked.drain(..) {
            self.fetcher.remove(key);
            self.committed.remove(&key);
        }
    }

    /// The session has ended. Nothing of its queues can be committed any more: they are given up before that is told.
    pub(super) fn expire(&mut self, now: Instant) {
        if let Some(membership) = &mut self.membership {
            let change = membership.expired(now);
            self.rebalance(change);
            self.give_up_revoked();
        }
    }

    pub(super) fn rebalance(&mut self, change: Change) {
        if change.assigned.is_empty() && change.revoked.is_empty() {
            return;
        }
        let revoked = change.revoked.iter().filter_map(|&key| self.name(key)).collect();
        let is_kept = |key: &QueueKey| !change.revoked.contains(key);
        self.unplaced.retain(is_kept);
        self.misplaced.retain(is_kept);
        self.revoked.extend(change.revoked);
        let assigned = change.assigned.iter().filter_map(|&key| self.name(key)).collect();
        // The queues of a topic that was deleted meanwhile have no name: the next assignment leaves them out.
        self.unplaced.extend(change.assigned.iter().filter(|key| self.topics.contains_key(&key.topic)));
        self.events.push_back(Event::Rebalanced { assigned, revoked });
    }

    pub(super) fn name(&self, key: QueueKey) -> Option<QueueName> {
        self.topics.get(&key.topic).map(|topic| QueueName { topic: topic.clone(), queue: key.queue })
    }

    pub(super) fn member(&self) -> Option<&str> {
        self.membership.as_ref().map(Membership::member)
    }

    // ---- Out ---------------------------------------------------------------------------------------------------

    /// Whose payload [`next_step`](Self::next_step) wants.
    pub(super) fn current_shard(&self) -> Option<usize> {
        self.fetcher.current().map(|(shard, _)| shard)
    }

    /// What is to be handed out now. The payload is that of the current shard's last answer; an error is a breach of
    /// the protocol by that shard.
    pub(super) fn next_step(&mut self, payload: &[u8]) -> Result<Option<Step>, String> {
        if let Some(event) = self.events.pop_front() {
            self.revoked_was_told |= matches!(event, Event::Rebalanced { .. });
            return Ok(Some(Step::Event(event)));
        }
        if !self.may_read() {
            return Ok(None);
        }
        if let Some((shard, key)) = self.fetcher.current()
            && let Some(cut) = self.fetcher.next_batch(payload)?
        {
            if cut.intact {
                return Ok(Some(Step::Batch { shard, cut }));
            }
            let (from, to) = (cut.first_offset, cut.end_offset);
            let damaged = self.name(key).map(|queue| DamagedRange { queue, from, to, bytes: None });
            return Ok(damaged.map(|range| Step::Event(Event::Damaged(range))));
        }
        Ok(self.is_done().then_some(Step::End))
    }

    /// What a cut is handed out as.
    pub(super) fn batch<'a>(&'a self, cut: BatchCut, payload: &'a [u8]) -> MessageBatch<'a> {
        let topic = self.fetcher.topic(cut.header.key).expect("the queue is being read");
        MessageBatch::new(topic, cut.header, &payload[cut.range], (cut.first_offset, cut.end_offset))
    }

    fn is_done(&self) -> bool {
        let settled = self.membership.as_ref().is_none_or(Membership::is_settled);
        let placed = self.unplaced.is_empty() && self.misplaced.is_empty() && !self.topics_are_stale;
        self.options.until != Until::Forever && settled && placed && self.fetcher.is_done()
    }

    /// Per queue, the offset after the last message that was handed out.
    pub(super) fn positions(&self) -> Vec<(QueueName, QueueOffset)> {
        let keys = self.fetcher.keys();
        keys.into_iter().filter_map(|key| Some((self.name(key)?, self.fetcher.delivered(key)?))).collect()
    }

    // ---- Fetches -----------------------------------------------------------------------------------------------

    /// Ends the pauses of queues whose fetch was refused.
    pub(super) fn resume_due(&mut self, now: Instant) {
        self.fetcher.resume_due(now);
    }

    /// What to send to a shard next; to be followed by [`asked`](Self::asked) or [`not_asked`](Self::not_asked).
    pub(super) fn next_ask(&mut self, shard: usize, now: Instant) -> Option<Ask> {
        if self.may_read() { self.fetcher.next_ask(shard, now) } else { None }
    }

    /// Not between the loss of a connection and the group's next answer: the broker may have begun anew, and a queue that
    /// this member read may be somebody else's.
    fn may_read(&self) -> bool {
        self.membership.as_ref().is_none_or(Membership::is_confirmed)
    }

    pub(super) fn asked(&mut self, shard: usize, ask: &Ask, correlation: Correlation, now: Instant) {
        self.fetcher.asked(shard, ask, correlation);
        self.patience.asked(shard, now);
    }

    pub(super) fn not_asked(&mut self, ask: &Ask) {
        self.fetcher.not_asked(ask);
    }

    /// The shards that owe an answer, in the order in which they are to be looked at.
    pub(super) fn waiting_shards(&self) -> Vec<usize> {
        if !self.may_read() {
            return Vec::new();
        }
        let count = self.fetcher.shard_count();
        let shards = (0..count).map(|next| (self.first_shard + next) % count);
        shards.filter(|&shard| self.fetcher.in_flight(shard) > 0).collect()
    }

    /// An answer of a shard. There must be no current answer.
    pub(super) fn received(
        &mut self,
        shard: usize,
        correlation: Correlation,
        reply: DecodedReply<'_>,
        now: Instant,
    ) -> Result<(), ReadError> {
        let is_watch = self.fetcher.is_watch(shard, correlation);
        let answered = match reply {
            DecodedReply::Fetched(view) if !is_watch => {
                self.fetcher.answered(shard, correlation, Ok(&view), now)
            }
            DecodedReply::Other(Reply::Watched(ready)) if is_watch => {
                self.fetcher.watched(shard, correlation, Ok(ready), now)
            }
            DecodedReply::Failed(failure) if is_watch => {
                self.fetcher.watched(shard, correlation, Err(failure), now)
            }
            DecodedReply::Failed(failure) => self.fetcher.answered(shard, correlation, Err(failure), now),
            DecodedReply::Fetched(_) | DecodedReply::Produced(_) | DecodedReply::Other(_) => {
                let reason = "a fetch or a watch was answered with something else";
                return Err(ReadError::Protocol(reason.to_owned()));
            }
        };
        self.patience.answered(shard, self.fetcher.in_flight(shard) > 0, now);
        self.first_shard = (shard + 1) % self.fetcher.shard_count();
        match answered {
            Answered::Nothing | Answered::Batches => Ok(()),
            Answered::Damaged(range) => {
                self.events.push_back(Event::Damaged(range));
                Ok(())
            }
            Answered::OutOfRange(key, failure) if self.options.out_of_range == OutOfRange::Fail => {
                self.fetcher.again(key);
                Err(ReadError::Refused(failure))
            }
            Answered::OutOfRange(key, _) => {
                self.misplaced.push(key);
                Ok(())
            }
            Answered::Refused(failure) if failure.status.ends_session() && self.membership.is_some() => {
                self.expire(now);
                Ok(())
            }
            Answered::Refused(failure) => {
                if let (Status::TopicNotExist | Status::QueueNotExist, Some(whole)) =
                    (failure.status, &mut self.whole)
                {
                    whole.due = now;
                }
                Err(ReadError::Refused(failure))
            }
        }
    }

    /// A queue goes on elsewhere than where it was to.
    pub(super) fn moved(&mut self, key: QueueKey, to: QueueOffset) {
        let from = self.fetcher.delivered(key);
        self.fetcher.seek(key, to);
        if let (Some(queue), Some(from)) = (self.name(key), from) {
            self.events.push_back(Event::Moved { queue, from, to });
        }
    }

    /// When something is to be done without an answer.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let membership = self.membership.as_ref().and_then(Membership::next_deadline);
        let route = self.whole.as_ref().map(|whole| whole.due);
        [self.patience.deadline(), membership, route, self.fetcher.next_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// After a wait: the shard whose connection is to be given up, and how long it has owed an answer. Not while bytes
    /// have come, which may be that answer.
    pub(super) fn overdue(&self, bytes_have_come: bool, now: Instant) -> Option<(usize, Duration)> {
        let shard = if bytes_have_come { None } else { self.patience.overdue(now) };
        shard.map(|shard| (shard, self.patience.limit()))
    }

    /// A connection has ended: its queues are read again from where the caller has got to.
    pub(super) fn lost(&mut self, shard: usize) {
        self.patience.lost(shard);
        self.fetcher.lost(shard);
        self.calls_lost();
    }

    /// The connection over which the member joins has ended.
    pub(super) fn calls_lost(&mut self) {
        if let Some(membership) = &mut self.membership {
            membership.lost();
        }
    }

    /// Whether a member's session depends on the connection over which it joins.
    pub(super) fn is_member(&self) -> bool {
        self.membership.is_some()
    }

    /// What is to be asked for before anything can be handed out; see [`Call`].
    pub(super) fn next_call(&self, now: Instant) -> Option<Call> {
        Call::next(self, now)
    }
}

impl Event {
    pub(super) fn into_delivery<'a>(self) -> Delivery<'a> {
        match self {
            Event::Damaged(range) => Delivery::Damaged(range),
            Event::Moved { queue, from, to } => Delivery::Moved { queue, from, to },
            Event::Rebalanced { assigned, revoked } => Delivery::Rebalanced { assigned, revoked },
        }
    }
}
