//! The blocking consumer: fixed queues or a group's, over one connection per shard.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::api::{CommitOffset, Failure, OffsetPlace, Reply, Request, Status};
use crate::limits;
use crate::protocol::native::DecodedReply;
use crate::types::{GroupName, QueueKey, QueueNumber, QueueOffset, TopicId, TopicName};

use super::blocking::Client;
use super::connection::{Connection, wait};
use super::error::ClientError;
use super::fetching::{Answered, BatchCut, FetchLimits, Fetcher};
use super::membership::{Change, Membership};
use super::messages::{DamagedRange, Delivery, MessageBatch, QueueName};
use super::options::{ConsumerOptions, OutOfRange, Start, Until};

/// Reads messages of some queues, batch by batch.
///
/// There is no thread behind it: requests are sent and answers read inside [`poll`](Self::poll), and so are the
/// heartbeats of a group's member. A member that does not poll within its session time-out loses its queues to others
/// and joins again with its next poll; what it had not committed is read again by them. While the program handles one
/// batch, the next is on its way.
///
/// An error of a call tells of a broker that was lost or that refused; the consumer keeps its place, and the next poll
/// tries again with a new connection. Messages are delivered again only after a rebalance or to another consumer.
///
/// ```no_run
/// use std::time::Duration;
/// use turbopump::client::{Client, Consumer, ConsumerOptions, Delivery, Timeouts};
///
/// let client = Client::connect("127.0.0.1:10911", Timeouts::default())?;
/// let topics = vec!["orders".parse()?];
/// let mut consumer = Consumer::subscribe(client, "billing".parse()?, topics, ConsumerOptions::default())?;
/// loop {
///     match consumer.poll(Duration::from_secs(1))? {
///         Some(Delivery::Messages(batch)) => {
///             for message in batch.messages() {
///                 println!("{}: {} bytes", message.offset, message.body().len());
///             }
///         }
///         Some(Delivery::Damaged(range)) => eprintln!("{range:?} is lost"),
///         Some(Delivery::Moved { queue, from, to }) => eprintln!("{queue:?}: from {from} to {to}"),
///         Some(Delivery::Rebalanced { .. }) => {}
///         Some(Delivery::End) => break,
///         None => {}
///     }
///     consumer.commit()?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Consumer {
    client: Client,
    options: ConsumerOptions,
    fetcher: Fetcher,
    links: Vec<Link>,
    /// Whose offsets are read at the start and written by `commit`.
    group: Option<GroupName>,
    /// Set when the group decides which queues are read.
    membership: Option<Membership>,
    topics: HashMap<TopicId, TopicName>,
    /// Queues whose first offset is still to be found.
    unplaced: Vec<QueueKey>,
    /// Queues that are given up with the poll after the one that told of it.
    revoked: Vec<QueueKey>,
    revoked_was_told: bool,
    committed: HashMap<QueueKey, QueueOffset>,
    events: VecDeque<Event>,
    /// The link whose answers are looked for first: they take turns.
    turn: usize,
}

/// The way to one shard.
#[derive(Default)]
struct Link {
    connection: Option<Connection>,
    /// Since when nothing has come while a fetch was waiting.
    waiting_since: Option<Instant>,
}

/// A [`Delivery`] that is not of messages.
enum Event {
    Damaged(DamagedRange),
    Moved { queue: QueueName, from: QueueOffset, to: QueueOffset },
    Rebalanced { assigned: Vec<QueueName>, revoked: Vec<QueueName> },
}

/// What a poll comes to.
enum Step {
    Batch { shard: usize, key: QueueKey, cut: BatchCut },
    Event(Event),
    End,
    Nothing,
}

impl Consumer {
    /// Reads fixed queues of a topic, or all of them. With a group, its committed offsets say where to start and
    /// [`commit`](Self::commit) moves them; the group's membership is left alone.
    pub fn assign(
        mut client: Client,
        topic: TopicName,
        queues: Option<Vec<QueueNumber>>,
        group: Option<GroupName>,
        options: ConsumerOptions,
    ) -> Result<Self, ClientError> {
        let info = client.topic(&topic)?;
        let mut queues = queues.unwrap_or_else(|| (0..info.queue_count).map(QueueNumber).collect());
        queues.sort_unstable();
        queues.dedup();
        if let Some(queue) = queues.iter().find(|queue| queue.0 >= info.queue_count) {
            let message =
                format!("queue {queue} does not exist: topic {topic} has {}, from 0", info.queue_count);
            return Err(Failure::new(Status::QueueNotExist, message).into());
        }
        let mut consumer = Self::new(client, group, None, options);
        consumer.topics.insert(info.id, topic);
        consumer.unplaced = queues.into_iter().map(|queue| QueueKey { topic: info.id, queue }).collect();
        Ok(consumer)
    }

    /// Joins a group, which shares the queues of `topics` among its members.
    pub fn subscribe(
        mut client: Client,
        group: GroupName,
        topics: Vec<TopicName>,
        options: ConsumerOptions,
    ) -> Result<Self, ClientError> {
        let mut ids = HashMap::new();
        for topic in &topics {
            ids.insert(client.topic(topic)?.id, topic.clone());
        }
        let membership = Membership::new(group.clone(), member_name(), topics, options.session_timeout);
        let mut consumer = Self::new(client, Some(group), Some(membership), options);
        consumer.topics = ids;
        Ok(consumer)
    }

    fn new(
        client: Client,
        group: Option<GroupName>,
        membership: Option<Membership>,
        options: ConsumerOptions,
    ) -> Self {
        let limits = FetchLimits {
            bytes_max: options.fetch_bytes,
            records_max: options.fetch_records,
            wait: options.fetch_wait.min(Duration::from_millis(u64::from(limits::FETCH_WAIT_MS_MAX))),
        };
        let shard_count = client.shard_count();
        Self {
            client,
            options,
            fetcher: Fetcher::new(limits, shard_count),
            links: (0..shard_count).map(|_| Link::default()).collect(),
            group,
            membership,
            topics: HashMap::new(),
            unplaced: Vec::new(),
            revoked: Vec::new(),
            revoked_was_told: false,
            committed: HashMap::new(),
            events: VecDeque::new(),
            turn: 0,
        }
    }

    /// The next batch or event; `None` when there was none in time. What an earlier poll returned counts as handled.
    pub fn poll(&mut self, timeout: Duration) -> Result<Option<Delivery<'_>>, ClientError> {
        self.release_revoked();
        match self.next_step(Instant::now() + timeout)? {
            Step::Nothing => Ok(None),
            Step::End => Ok(Some(Delivery::End)),
            Step::Event(Event::Damaged(range)) => Ok(Some(Delivery::Damaged(range))),
            Step::Event(Event::Moved { queue, from, to }) => Ok(Some(Delivery::Moved { queue, from, to })),
            Step::Event(Event::Rebalanced { assigned, revoked }) => {
                self.revoked_was_told = true;
                Ok(Some(Delivery::Rebalanced { assigned, revoked }))
            }
            Step::Batch { shard, key, cut } => {
                let connection = self.links[shard].connection.as_ref().expect("the batch came over it");
                let bytes = &connection.last_payload()[cut.range];
                let topic = self.fetcher.topic(key).expect("the queue is being read");
                let offsets = (cut.first_offset, cut.end_offset);
                Ok(Some(Delivery::Messages(MessageBatch::new(topic, cut.header, bytes, offsets))))
            }
        }
    }

    /// Stores for the group up to where everything that was polled has been handled, in every queue. Durable when it
    /// returns.
    ///
    /// Refused with [`Status::MemberUnknown`] or [`Status::GenerationStale`] when this member's session has ended: its
    /// queues may be another's, who reads again what was not committed. The next poll tells that they are revoked, and
    /// joins again.
    pub fn commit(&mut self) -> Result<(), ClientError> {
        let Some(group) = &self.group else {
            return Err(Failure::invalid("this consumer has no group to commit for").into());
        };
        let mut requests = Vec::new();
        for key in self.fetcher.keys() {
            if let Some(offset) = self.fetcher.delivered(key)
                && self.committed.get(&key) != Some(&offset)
            {
                let member = self.membership.as_ref().map(Membership::acting);
                let commit = CommitOffset { group: group.clone(), key, offset, member };
                requests.push((key.queue, Request::CommitOffset(commit)));
            }
        }
        if requests.is_empty() {
            return Ok(());
        }
        let answers = self.client.call_owners(&requests)?;
        let mut first_failure = None;
        for ((_, request), answer) in requests.into_iter().zip(answers) {
            match (request, answer) {
                (Request::CommitOffset(commit), Ok(_)) => {
                    self.committed.insert(commit.key, commit.offset);
                }
                (_, Err(failure)) => first_failure = first_failure.or(Some(failure)),
                (_, Ok(_)) => {}
            }
        }
        let Some(failure) = first_failure else { return Ok(()) };
        if failure.status.ends_session()
            && let Some(membership) = &mut self.membership
        {
            let change = membership.expired(Instant::now());
            self.rebalance(change);
        }
        Err(failure.into())
    }

    /// Goes on in a queue at `offset`, and counts what lies before it as handled, no more and no less: for a caller who
    /// stops within a batch, before [`commit`](Self::commit), or who wants to read again.
    pub fn seek(&mut self, key: QueueKey, offset: QueueOffset) {
        self.fetcher.seek(key, offset);
    }

    /// Per queue, the offset behind the last message that was polled.
    pub fn positions(&self) -> Vec<(QueueName, QueueOffset)> {
        let keys = self.fetcher.keys();
        keys.into_iter().filter_map(|key| Some((self.name(key)?, self.fetcher.delivered(key)?))).collect()
    }

    /// The name under which this consumer is a member of its group.
    pub fn member(&self) -> Option<&str> {
        self.membership.as_ref().map(Membership::member)
    }

    /// What the user should hear of once; see [`Client::take_notices`].
    pub fn take_notices(&mut self) -> Vec<String> {
        self.client.take_notices()
    }

    /// Leaves the group, so that its other members get the queues at once, and returns the client. Commits nothing.
    pub fn close(mut self) -> Result<Client, ClientError> {
        if let Some(membership) = &self.membership {
            let request = Request::LeaveGroup {
                group: membership.group().clone(),
                member: membership.member().to_owned(),
            };
            match self.client.call(&request) {
                Ok(_) => {}
                Err(ClientError::Refused(failure)) if failure.status == Status::MemberUnknown => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.client)
    }

    fn next_step(&mut self, deadline: Instant) -> Result<Step, ClientError> {
        loop {
            let now = Instant::now();
            self.keep_membership(now)?;
            if let Some(event) = self.events.pop_front() {
                return Ok(Step::Event(event));
            }
            self.place()?;
            if let Some(step) = self.cut_current()? {
                return Ok(step);
            }
            if self.is_done() {
                return Ok(Step::End);
            }
            self.fetcher.resume_due(now);
            self.ask()?;
            if self.take_answer()? {
                continue;
            }
            if now >= deadline {
                return Ok(Step::Nothing);
            }
            self.wait(deadline)?;
        }
    }

    fn is_done(&self) -> bool {
        let settled = self.membership.as_ref().is_none_or(Membership::is_settled);
        self.options.until == Until::End && settled && self.unplaced.is_empty() && self.fetcher.is_done()
    }

    // ---- Group -------------------------------------------------------------------------------------------------

    /// Gives up what the caller was told of, and has had the time to commit.
    fn release_revoked(&mut self) {
        if !std::mem::take(&mut self.revoked_was_told) {
            return;
        }
        for key in self.revoked.drain(..) {
            self.fetcher.remove(key);
            self.committed.remove(&key);
        }
        if let Some(membership) = &mut self.membership {
            membership.released();
        }
    }

    /// Joins, or tells that this member lives, when that is due.
    fn keep_membership(&mut self, now: Instant) -> Result<(), ClientError> {
        let Some(membership) = &mut self.membership else { return Ok(()) };
        // What is being given up must be gone before it can be assigned again.
        if !membership.is_due(now) || !self.revoked.is_empty() {
            return Ok(());
        }
        let answer = self.client.call(&Request::JoinGroup(membership.request()));
        // The next attempt, if this one comes to nothing.
        membership.failed(now);
        match answer {
            Ok(Reply::Assignment(assignment)) => {
                let known = |key: &QueueKey| self.topics.contains_key(&key.topic);
                if !assignment.queues.iter().all(known) {
                    self.refresh_topics()?;
                }
                let membership = self.membership.as_mut().expect("it has just asked");
                let change = membership.assigned(&assignment, Instant::now());
                self.rebalance(change);
                Ok(())
            }
            Ok(other) => Err(self.client.unexpected(&other)),
            Err(ClientError::Refused(failure)) if failure.status.ends_session() => {
                let change = membership.expired(now);
                self.rebalance(change);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn rebalance(&mut self, change: Change) {
        if change.assigned.is_empty() && change.revoked.is_empty() {
            return;
        }
        let revoked = change.revoked.iter().filter_map(|&key| self.name(key)).collect();
        self.unplaced.retain(|key| !change.revoked.contains(key));
        self.revoked.extend(change.revoked);
        let assigned = change.assigned.iter().filter_map(|&key| self.name(key)).collect();
        // The queues of a topic that was deleted meanwhile have no name: the next assignment leaves them out.
        self.unplaced.extend(change.assigned.iter().filter(|key| self.topics.contains_key(&key.topic)));
        self.events.push_back(Event::Rebalanced { assigned, revoked });
    }

    fn name(&self, key: QueueKey) -> Option<QueueName> {
        self.topics.get(&key.topic).map(|topic| QueueName { topic: topic.clone(), queue: key.queue })
    }

    /// A topic that was deleted and made again has another number.
    fn refresh_topics(&mut self) -> Result<(), ClientError> {
        let topics = self.membership.as_ref().map(|membership| membership.topics().to_vec());
        for topic in topics.unwrap_or_default() {
            match self.client.refresh_topic(&topic) {
                Ok(info) => self.topics.insert(info.id, topic),
                Err(ClientError::Refused(_)) => None,
                Err(error) => return Err(error),
            };
        }
        Ok(())
    }

    // ---- Places ------------------------------------------------------------------------------------------------

    /// Finds where to start, and where to stop, in queues that are new.
    fn place(&mut self) -> Result<(), ClientError> {
        if self.unplaced.is_empty() {
            return Ok(());
        }
        let keys = self.unplaced.clone();
        let committed = self.committed_offsets(&keys)?;
        let starts = match self.options.start {
            Start::Offset(offset) => vec![offset; keys.len()],
            Start::First => self.find_offsets(&keys, OffsetPlace::First)?,
            Start::Last => self.find_offsets(&keys, OffsetPlace::Last)?,
            Start::Time(time) => self.find_offsets(&keys, OffsetPlace::Time(time))?,
        };
        let ends = match self.options.until {
            Until::Forever => vec![None; keys.len()],
            Until::End => self.find_offsets(&keys, OffsetPlace::Last)?.into_iter().map(Some).collect(),
        };
        self.unplaced.clear();
        for (index, key) in keys.into_iter().enumerate() {
            let Some(topic) = self.topics.get(&key.topic) else { continue };
            if let Some(offset) = committed[index] {
                self.committed.insert(key, offset);
            }
            self.fetcher.add(key, topic.clone(), committed[index].unwrap_or(starts[index]), ends[index]);
        }
        Ok(())
    }

    fn committed_offsets(&mut self, keys: &[QueueKey]) -> Result<Vec<Option<QueueOffset>>, ClientError> {
        let Some(group) = &self.group else { return Ok(vec![None; keys.len()]) };
        let requests: Vec<_> = keys
            .iter()
            .map(|&key| (key.queue, Request::CommittedOffset { group: group.clone(), key }))
            .collect();
        let mut offsets = Vec::with_capacity(keys.len());
        for answer in self.client.call_owners(&requests)? {
            offsets.push(match answer {
                Ok(Reply::Offset(offset)) => offset,
                Err(failure) if failure.status == Status::GroupNotExist => None,
                Err(failure) => return Err(failure.into()),
                Ok(other) => return Err(self.client.unexpected(&other)),
            });
        }
        Ok(offsets)
    }

    fn find_offsets(
        &mut self,
        keys: &[QueueKey],
        place: OffsetPlace,
    ) -> Result<Vec<QueueOffset>, ClientError> {
        let requests: Vec<_> =
            keys.iter().map(|&key| (key.queue, Request::FindOffset { key, place })).collect();
        let mut offsets = Vec::with_capacity(keys.len());
        for answer in self.client.call_owners(&requests)? {
            match answer? {
                Reply::OffsetFound(offset) => offsets.push(offset),
                other => return Err(self.client.unexpected(&other)),
            }
        }
        Ok(offsets)
    }

    /// The offset that was asked for is not there: goes where the options say.
    fn move_on(&mut self, key: QueueKey, failure: Failure) -> Result<(), ClientError> {
        let place = match self.options.out_of_range {
            OutOfRange::First => OffsetPlace::First,
            OutOfRange::Last => OffsetPlace::Last,
            OutOfRange::Fail => {
                self.fetcher.not_asked(key);
                return Err(failure.into());
            }
        };
        let to = self.client.find_offset(key, place).inspect_err(|_| self.fetcher.not_asked(key))?;
        let from = self.fetcher.delivered(key);
        self.fetcher.seek(key, to);
        if let (Some(queue), Some(from)) = (self.name(key), from) {
            self.events.push_back(Event::Moved { queue, from, to });
        }
        Ok(())
    }

    // ---- Fetches -----------------------------------------------------------------------------------------------

    /// The next batch of the answer in use.
    fn cut_current(&mut self) -> Result<Option<Step>, ClientError> {
        let Some((shard, key)) = self.fetcher.current() else { return Ok(None) };
        let payload = self.links[shard].connection.as_ref().map_or(&[][..], Connection::last_payload);
        match self.fetcher.next_batch(payload) {
            Ok(None) => Ok(None),
            Ok(Some(cut)) if cut.intact => Ok(Some(Step::Batch { shard, key, cut })),
            Ok(Some(cut)) => Ok(self.name(key).map(|queue| {
                let (from, to) = (cut.first_offset, cut.end_offset);
                Step::Event(Event::Damaged(DamagedRange { queue, from, to, bytes: None }))
            })),
            Err(reason) => {
                let address = self.links[shard].connection.as_ref().map_or("", Connection::address);
                let error = ClientError::protocol(address, reason);
                Err(self.lose(shard, error))
            }
        }
    }

    /// Sends the fetches of queues that have none on its way.
    fn ask(&mut self) -> Result<(), ClientError> {
        for shard in 0..self.links.len() {
            let mut submitted = false;
            while let Some(fetch) = self.fetcher.next_fetch(shard) {
                let link = &mut self.links[shard];
                let connection = match &mut link.connection {
                    Some(connection) => connection,
                    None => match self.client.open_owner(fetch.key.queue) {
                        Ok(connection) => link.connection.insert(connection),
                        Err(error) => {
                            self.fetcher.not_asked(fetch.key);
                            return Err(error);
                        }
                    },
                };
                match connection.submit(&Request::Fetch(fetch)) {
                    Ok(correlation) => self.fetcher.asked(shard, fetch.key, correlation),
                    Err(error) => {
                        self.fetcher.not_asked(fetch.key);
                        return Err(self.lose(shard, error));
                    }
                }
                link.waiting_since.get_or_insert_with(Instant::now);
                submitted = true;
            }
            if submitted && let Some(connection) = &mut self.links[shard].connection {
                connection.flush().map_err(|error| self.lose(shard, error))?;
            }
        }
        Ok(())
    }

    /// Takes one answer that has come. The fetch behind it leaves before its batches are handed out.
    fn take_answer(&mut self) -> Result<bool, ClientError> {
        let now = Instant::now();
        for turn in 0..self.links.len() {
            let shard = (self.turn + turn) % self.links.len();
            let link = &mut self.links[shard];
            let Some(connection) = &mut link.connection else { continue };
            if self.fetcher.in_flight(shard) == 0 {
                continue;
            }
            let answered = match connection.try_receive() {
                Ok(None) => continue,
                Ok(Some((correlation, DecodedReply::Fetched(view)))) => {
                    self.fetcher.answered(shard, correlation, Ok(&view), now)
                }
                Ok(Some((correlation, DecodedReply::Failed(failure)))) => {
                    self.fetcher.answered(shard, correlation, Err(failure), now)
                }
                Ok(Some(_)) => {
                    let error = ClientError::protocol(
                        connection.address(),
                        "a fetch was answered with something else",
                    );
                    return Err(self.lose(shard, error));
                }
                Err(error) => return Err(self.lose(shard, error)),
            };
            link.waiting_since = (self.fetcher.in_flight(shard) > 0).then_some(now);
            self.turn = (shard + 1) % self.links.len();
            match answered {
                Answered::Nothing => {}
                Answered::Batches => self.ask()?,
                Answered::Damaged(range) => self.events.push_back(Event::Damaged(range)),
                Answered::OutOfRange(key, failure) => self.move_on(key, failure)?,
                Answered::Refused(failure) => return Err(failure.into()),
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// Waits for an answer, or for something to be done without one.
    fn wait(&mut self, deadline: Instant) -> Result<(), ClientError> {
        let patience = self.options.fetch_wait + self.client.timeouts().request;
        let waiting: Vec<usize> =
            (0..self.links.len()).filter(|&shard| self.fetcher.in_flight(shard) > 0).collect();
        let answer_due = waiting.iter().filter_map(|&shard| self.links[shard].waiting_since).min();
        let earliest = [
            answer_due.map(|since| since + patience),
            self.membership.as_ref().and_then(Membership::next_deadline),
            self.fetcher.next_deadline(),
        ];
        let until = earliest.into_iter().flatten().fold(deadline, Instant::min);
        let connections: Vec<&Connection> =
            waiting.iter().filter_map(|&shard| self.links[shard].connection.as_ref()).collect();
        let ready = wait(&connections, until).map_err(|error| ClientError::Disconnected {
            address: self.client.server().to_owned(),
            reason: error.to_string(),
        })?;
        if ready.is_none() {
            self.give_up_silent(&waiting, patience)?;
        }
        Ok(())
    }

    /// Gives up a connection on which an answer is overdue.
    fn give_up_silent(&mut self, waiting: &[usize], patience: Duration) -> Result<(), ClientError> {
        let now = Instant::now();
        for &shard in waiting {
            let link = &self.links[shard];
            let overdue = link.waiting_since.is_some_and(|since| now >= since + patience);
            if let (true, Some(connection)) = (overdue, &link.connection) {
                let address = connection.address().to_owned();
                return Err(self.lose(shard, ClientError::Timeout { address, waited: patience }));
            }
        }
        Ok(())
    }

    /// Ends a connection: its queues are read again from where the caller has got to.
    fn lose(&mut self, shard: usize, error: ClientError) -> ClientError {
        self.links[shard] = Link::default();
        self.fetcher.lost(shard);
        error
    }
}

/// A name that no other member of the group has.
fn member_name() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let started = super::producer::read_clocks().wall;
    format!("{}-{}-{}", std::process::id(), started, COUNT.fetch_add(1, Ordering::Relaxed))
}
