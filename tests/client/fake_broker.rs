//! A broker of one process: a thread per connection, and one per waiting fetch. Its queues hold batches as a real one
//! stores them.

use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use turbopump::api::*;
use turbopump::protocol::native::{DecodedRequest, ReplyEncoder, decode_request};
use turbopump::types::*;
use turbopump::wire::batch::{BatchHeader, CheckedBatch, Placing, align_batch};
use turbopump::wire::frame;

/// What to do with the next produce request instead of storing its batch.
#[derive(Clone, Debug)]
pub enum Fault {
    Refuse(Status),
    /// Close the connection without an answer.
    Close,
    StoreAndClose,
    /// Answer nothing, ever.
    Ignore,
    /// Answer with bytes that are no frame.
    Garbage,
    /// Store it, as if nothing were wrong: lets a later fault be aimed.
    Store,
}

#[derive(Clone)]
pub struct FakeBroker {
    pub node: NodeId,
    shared: Arc<Shared>,
    pub addresses: Vec<String>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

pub struct State {
    /// As routes tell it, and whoever connects; `None`: like a broker of an earlier release.
    pub node: Option<NodeId>,
    addresses: Vec<String>,
    topics: HashMap<TopicName, TopicId>,
    pub queues: HashMap<QueueKey, Queue>,
    queue_counts: HashMap<TopicId, u32>,
    next_topic: u32,
    pub faults: VecDeque<Fault>,
    pub offsets: HashMap<(GroupName, QueueKey), QueueOffset>,
    pub members: Vec<String>,
    generation: u64,
    holders: HashMap<QueueKey, String>,
    /// Of each member; a fetch that names one is answered for the holder only.
    sessions: HashMap<String, u64>,
    next_session: u64,
    /// Joins are refused for the moment.
    pub refuse_joins: bool,
    /// Fetches that named a session which does not hold the queue.
    pub stale_fetches: u64,
    /// What was asked, by kind, in the order it came.
    pub asked: Vec<&'static str>,
    /// The batches of the next answers lose a bit.
    pub flip_next_fetch: bool,
    /// Offsets below it are answered as damaged.
    pub damaged_below: QueueOffset,
    pub produce_count: u64,
    /// What is to be released later, in the order it came; it never is.
    pub held: Vec<Hold>,
    pub connections: Vec<TcpStream>,
    /// The one over which a member has joined last.
    pub joined_over: Option<TcpStream>,
}

#[derive(Default)]
pub struct Queue {
    pub first: u64,
    pub end: u64,
    pub batches: Vec<Vec<u8>>,
}

impl FakeBroker {
    pub fn start(shard_count: usize) -> Self {
        Self::start_as(shard_count, NodeId(1))
    }

    pub fn start_as(shard_count: usize, node: NodeId) -> Self {
        let listeners: Vec<_> =
            (0..shard_count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
        let addresses: Vec<_> = listeners
            .iter()
            .map(|listener| listener.local_addr().expect("it is bound").to_string())
            .collect();
        let state = State {
            node: Some(node),
            addresses: addresses.clone(),
            topics: HashMap::new(),
            queues: HashMap::new(),
            queue_counts: HashMap::new(),
            next_topic: 1,
            faults: VecDeque::new(),
            offsets: HashMap::new(),
            members: Vec::new(),
            generation: 0,
            holders: HashMap::new(),
            sessions: HashMap::new(),
            next_session: 100,
            refuse_joins: false,
            stale_fetches: 0,
            asked: Vec::new(),
            flip_next_fetch: false,
            damaged_below: QueueOffset(0),
            produce_count: 0,
            held: Vec::new(),
            connections: Vec::new(),
            joined_over: None,
        };
        let broker = Self {
            node,
            shared: Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() }),
            addresses,
        };
        for (shard, listener) in listeners.into_iter().enumerate() {
            let broker = broker.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let broker = broker.clone();
                    std::thread::spawn(move || broker.serve(stream, ShardId(shard as u16)));
                }
            });
        }
        broker
    }

    pub fn server(&self) -> &str {
        &self.addresses[0]
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("no thread panicked")
    }

    pub fn create(&self, topic: &str, queues: u32) -> TopicName {
        let topic: TopicName = topic.parse().expect("a good name");
        self.state().create(&topic, queues);
        topic
    }

    pub fn delete(&self, topic: &TopicName) {
        let mut state = self.state();
        let id = state.topics.remove(topic).expect("it exists");
        state.queues.retain(|key, _| key.topic != id);
    }

    pub fn fault(&self, faults: &[Fault]) {
        self.state().faults.extend(faults.iter().cloned());
    }

    /// Tells clients that this shard listens elsewhere.
    pub fn move_shard(&self, shard: usize, address: &str) {
        self.state().addresses[shard] = address.to_owned();
    }

    /// Ends every connection.
    pub fn hang_up(&self) {
        for connection in self.state().connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// The bodies of a queue in order.
    pub fn bodies(&self, topic: &TopicName, queue: u32) -> Vec<String> {
        let state = self.state();
        let key = QueueKey { topic: state.topics[topic], queue: QueueNumber(queue) };
        let batches = state.queues[&key].batches.iter();
        batches
            .flat_map(|batch| turbopump::wire::batch::stored_records(batch))
            .map(|record| String::from_utf8_lossy(record.body()).into_owned())
            .collect()
    }

    pub fn trim(&self, topic: &TopicName, queue: u32, first: u64) {
        let mut state = self.state();
        let key = QueueKey { topic: state.topics[topic], queue: QueueNumber(queue) };
        let queue = state.queues.get_mut(&key).expect("it exists");
        queue.batches.retain(|batch| BatchHeader::decode(batch).expect("stored").base_offset.0 >= first);
        queue.first = first;
    }

    fn serve(&self, mut stream: TcpStream, shard: ShardId) {
        // Answers leave in pieces, which would otherwise wait for each other's acknowledgement.
        stream.set_nodelay(true).expect("a socket");
        self.state().connections.push(stream.try_clone().expect("a socket"));
        let mut preface = [0; frame::PREFACE_BYTES];
        if stream.read_exact(&mut preface).is_err() || frame::check_preface(&preface).is_err() {
            return;
        }
        let writer = Arc::new(Mutex::new(stream.try_clone().expect("a socket")));
        match self.state().node {
            Some(node) if frame::has_identity(&preface) => {
                write(&writer, &frame::introduction(Identity { node, shard }));
            }
            _ => write(&writer, &frame::preface()),
        }
        let mut buffer = Vec::new();
        let mut chunk = vec![0; 64 * 1024];
        loop {
            while let Some(request) = frame::cut(&buffer).expect("clients keep the protocol") {
                let bytes = request.frame_bytes;
                if !self.answer(&request, &writer) {
                    let _ = stream.shutdown(Shutdown::Both);
                    return;
                }
                buffer.drain(..bytes);
            }
            match stream.read(&mut chunk) {
                Ok(0) | Err(_) => return,
                Ok(count) => buffer.extend_from_slice(&chunk[..count]),
            }
        }
    }

    /// False to end the connection.
    fn answer(&self, request: &frame::Frame<'_>, writer: &Arc<Mutex<TcpStream>>) -> bool {
        let correlation = request.correlation;
        let reply = match decode_request(request) {
            Err(failure) => Err(failure),
            Ok(
                DecodedRequest::Produce { key, batch, .. } | DecodedRequest::ProduceCopies { key, batch, .. },
            ) => {
                let fault = {
                    let mut state = self.state();
                    state.produce_count += 1;
                    state.faults.pop_front()
                };
                match fault {
                    Some(Fault::Refuse(status)) => Err(Failure::new(status, "told to refuse")),
                    Some(Fault::Close) => return false,
                    Some(Fault::StoreAndClose) => {
                        self.store(key, batch).expect("a good batch");
                        return false;
                    }
                    Some(Fault::Ignore) => return true,
                    Some(Fault::Garbage) => {
                        write(writer, &[0xEE; 64]);
                        return true;
                    }
                    Some(Fault::Store) | None => self.store(key, batch).map(Reply::Produced),
                }
            }
            Ok(DecodedRequest::Other(Request::Fetch(fetch))) => {
                self.state().asked.push("fetch");
                let (broker, writer) = (self.clone(), writer.clone());
                std::thread::spawn(move || {
                    send(&writer, correlation, &broker.fetch(&fetch).map(Reply::Fetched))
                });
                return true;
            }
            Ok(DecodedRequest::Other(Request::Hold(hold))) => {
                let mut state = self.state();
                match state.faults.pop_front() {
                    Some(Fault::Refuse(status)) => Err(Failure::new(status, "told to refuse")),
                    Some(Fault::Close) => return false,
                    _ => state.hold(hold),
                }
            }
            Ok(DecodedRequest::Other(Request::Watch(watch))) => {
                let (broker, writer) = (self.clone(), writer.clone());
                std::thread::spawn(move || {
                    send(&writer, correlation, &Ok(Reply::Watched(broker.watch(&watch))))
                });
                return true;
            }
            Ok(DecodedRequest::Prove(_)) => unreachable!("it sends no challenge"),
            Ok(DecodedRequest::Other(request)) => {
                let mut state = self.state();
                if matches!(request, Request::JoinGroup(_)) {
                    let stream = writer.lock().expect("no thread panicked").try_clone();
                    state.joined_over = Some(stream.expect("a socket"));
                }
                state.other(request)
            }
        };
        send(writer, correlation, &reply);
        true
    }

    pub fn store(&self, key: QueueKey, batch: &[u8]) -> Result<Produced, Failure> {
        let batch = CheckedBatch::check(batch)
            .map_err(|error| Failure::new(Status::ChecksumMismatch, error.to_string()))?;
        let mut state = self.state();
        let queue = state.queue(key)?;
        let base_offset = QueueOffset(queue.end);
        let placing = Placing {
            continues: false,
            position: LogPosition(0),
            previous_end: LogPosition(0),
            flushed_end: LogPosition(0),
            epoch: 1,
            key,
            base_offset,
            store_time: Timestamp(5_000 + queue.end),
        };
        let mut stored = batch.placed_header(&placing).to_vec();
        stored.extend_from_slice(batch.payload());
        queue.end += u64::from(batch.record_count());
        queue.batches.push(stored);
        drop(state);
        self.shared.changed.notify_all();
        Ok(Produced {
            base_offset,
            position: LogPosition(0),
            store_time: placing.store_time,
            level: Level::Durable,
        })
    }

    fn watch(&self, watch: &Watch) -> Vec<QueueKey> {
        let deadline = Instant::now() + watch.wait;
        let mut state = self.state();
        loop {
            let is_ready = |(key, offset): &&(QueueKey, QueueOffset)| {
                state.queues.get(key).is_none_or(|queue| queue.end != offset.0)
            };
            let ready: Vec<_> = watch.queues.iter().filter(is_ready).map(|(key, _)| *key).collect();
            let now = Instant::now();
            if !ready.is_empty() || now >= deadline {
                return ready;
            }
            state = self.shared.changed.wait_timeout(state, deadline - now).expect("no thread panicked").0;
        }
    }

    fn fetch(&self, fetch: &Fetch) -> Result<Fetched, Failure> {
        let deadline = Instant::now() + fetch.wait;
        let mut state = self.state();
        loop {
            state.check_session(fetch)?;
            let damaged_below = state.damaged_below;
            let queue = state.queue(fetch.key)?;
            let (first, end) = (QueueOffset(queue.first), QueueOffset(queue.end));
            if fetch.offset < first || fetch.offset > end {
                return Err(Failure::new(Status::OffsetOutOfRange, format!("{first} to {end}")));
            }
            let mut fetched = Fetched {
                batches: Vec::new(),
                next_offset: fetch.offset,
                first_offset: first,
                end_offset: end,
                damaged: None,
            };
            if fetch.offset < damaged_below {
                fetched.next_offset = damaged_below;
                fetched.damaged = Some(DamagedBytes { file: "log".to_owned(), position: 4096 });
                return Ok(fetched);
            }
            for batch in &queue.batches {
                let header = BatchHeader::decode(batch).expect("stored");
                if header.end_offset() <= fetch.offset {
                    continue;
                }
                if !fetched.batches.is_empty()
                    && fetched.batches.len() + batch.len() > fetch.bytes_max as usize
                {
                    break;
                }
                fetched.batches.resize(align_batch(fetched.batches.len() as u64) as usize, 0);
                fetched.batches.extend_from_slice(batch);
                fetched.next_offset = header.end_offset();
            }
            let now = Instant::now();
            if !fetched.batches.is_empty() || now >= deadline {
                if !fetched.batches.is_empty() && std::mem::take(&mut state.flip_next_fetch) {
                    let last = fetched.batches.len() - 1;
                    fetched.batches[last] ^= 1;
                }
                return Ok(fetched);
            }
            state = self.shared.changed.wait_timeout(state, deadline - now).expect("no thread panicked").0;
        }
    }
}

impl State {
    fn create(&mut self, topic: &TopicName, queues: u32) {
        let id = TopicId(self.next_topic);
        self.next_topic += 1;
        self.topics.insert(topic.clone(), id);
        self.queue_counts.insert(id, queues);
        for queue in 0..queues {
            self.queues.insert(QueueKey { topic: id, queue: QueueNumber(queue) }, Queue::default());
        }
    }

    fn queue(&mut self, key: QueueKey) -> Result<&mut Queue, Failure> {
        self.queues.get_mut(&key).ok_or_else(|| Failure::new(Status::TopicNotExist, format!("no {key}")))
    }

    fn info(&self, topic: &TopicName) -> Result<TopicInfo, Failure> {
        let id = *self
            .topics
            .get(topic)
            .ok_or_else(|| Failure::new(Status::TopicNotExist, format!("no topic {topic}")))?;
        Ok(TopicInfo {
            topic: topic.clone(),
            id,
            queue_count: self.queue_counts[&id],
            retention: Retention::Inherited,
            level: None,
            permission: 6,
            consumers: None,
            queues: Vec::new(),
        })
    }

    fn hold(&mut self, hold: Hold) -> Result<Reply, Failure> {
        self.queue(hold.key)?;
        let (key, position) = (hold.key, LogPosition(8 * self.held.len() as u64));
        self.held.push(hold);
        Ok(Reply::Held(Held {
            receipt: HalfReceipt { key, position },
            position,
            store_time: Timestamp(5_000),
            level: Level::Durable,
            due: Some(Timestamp(6_000)),
            offset: None,
        }))
    }

    /// As the broker does: see `Fetch::session`.
    fn check_session(&mut self, fetch: &Fetch) -> Result<(), Failure> {
        let holder = self.holders.get(&fetch.key).and_then(|holder| self.sessions.get(holder));
        if fetch.session == 0 || holder == Some(&fetch.session) {
            return Ok(());
        }
        self.stale_fetches += 1;
        Err(Failure::new(Status::GenerationStale, "somebody else reads the queue"))
    }

    /// How many fetches have been asked for.
    pub fn fetches(&self) -> usize {
        self.asked.iter().filter(|kind| **kind == "fetch").count()
    }

    /// A broker that has begun anew knows of no member.
    pub fn forget_groups(&mut self) {
        self.members.clear();
        self.holders.clear();
        self.sessions.clear();
    }

    fn other(&mut self, request: Request) -> Result<Reply, Failure> {
        match request {
            Request::Produce(_) | Request::ProduceCopies(_) | Request::Fetch(_) | Request::Watch(_) => {
                unreachable!("answered elsewhere")
            }
            Request::FindOffset { key, spec } => {
                let queue = self.queue(key)?;
                let offset = match spec {
                    OffsetSpec::First => queue.first,
                    OffsetSpec::Last => queue.end,
                    OffsetSpec::Ago(span) => unreachable!("{span:?}: this broker has no clock"),
                    OffsetSpec::Time(time) => queue
                        .batches
                        .iter()
                        .map(|batch| BatchHeader::decode(batch).expect("stored"))
                        .find(|header| header.store_time >= time)
                        .map_or(queue.end, |header| header.base_offset.0),
                };
                Ok(Reply::OffsetFound(QueueOffset(offset)))
            }
            Request::CreateTopic(change) if self.topics.contains_key(&change.topic) => {
                Err(Failure::new(Status::TopicExists, "it is there"))
            }
            Request::CreateTopic(change) => {
                self.create(&change.topic, change.queues.unwrap_or(4));
                Ok(Reply::Topic(self.info(&change.topic)?))
            }
            Request::AlterTopic(_) | Request::DeleteTopic(_) | Request::ResetGroup(_) => Ok(Reply::Done),
            Request::DescribeTopic(topic) => Ok(Reply::Topic(self.info(&topic)?)),
            Request::ListTopics => {
                let topics: Vec<_> = self.topics.keys().cloned().collect();
                topics.iter().map(|topic| self.info(topic)).collect::<Result<_, _>>().map(Reply::Topics)
            }
            Request::OpenTopic(topic) => self.other(Request::Route(Some(topic))),
            Request::Route(topic) => {
                let shards = self.addresses.iter().enumerate();
                let shards = shards
                    .map(|(shard, address)| ShardAddress {
                        shard: ShardId(shard as u16),
                        address: address.clone(),
                    })
                    .collect();
                Ok(Reply::Route(RouteInfo {
                    shards,
                    topic: topic.map(|topic| self.info(&topic)).transpose()?,
                    node: self.node,
                }))
            }
            Request::CommitOffset(CommitOffset { group, key, offset, member }) => {
                if let Some(acting) = member
                    && self.holders.get(&key) != Some(&acting.member)
                {
                    return Err(Failure::new(Status::MemberUnknown, "the session has ended"));
                }
                self.offsets.insert((group, key), offset);
                Ok(Reply::Done)
            }
            Request::CommittedOffset { group, key } => {
                Ok(Reply::Offset(self.offsets.get(&(group, key)).copied()))
            }
            Request::JoinGroup(join) => {
                self.asked.push("join");
                if self.refuse_joins {
                    return Err(Failure::new(Status::Busy, "told to refuse"));
                }
                self.join(&join).map(Reply::Assignment)
            }
            Request::LeaveGroup { member, .. } => {
                self.members.retain(|other| *other != member);
                self.holders.retain(|_, holder| *holder != member);
                self.generation += 1;
                Ok(Reply::Done)
            }
            Request::ListGroups => Ok(Reply::Groups(Vec::new())),
            Request::DescribeGroup(_) | Request::DeleteGroup(_) => {
                Err(Failure::new(Status::GroupNotExist, "no such group"))
            }
            Request::Receive(_)
            | Request::Acknowledge(_)
            | Request::ChangeLease(_)
            | Request::AlterGroup(_)
            | Request::Hold(_)
            | Request::EndTransaction(_)
            | Request::ReceiveHalves(_)
            | Request::CreateInstance(_)
            | Request::DeleteInstance(_)
            | Request::ListInstances
            | Request::TopicStats(_)
            | Request::GroupStats(_)
            | Request::Settings(_)
            | Request::ListSlow(_)
            | Request::MeasureLatency(_)
            | Request::FindMessages(_)
            | Request::PermitTopic { .. }
            | Request::PurgeTopic(_)
            | Request::SetUpGroup(_)
            | Request::ListDelayed(_)
            | Request::RecallDelayed(_)
            | Request::Redrive(_)
            | Request::RedrivenRanges { .. } => {
                Err(Failure::new(Status::UnsupportedRequest, "this broker only knows queues"))
            }
            Request::DescribeNode { .. } => Ok(Reply::Node(NodeInfo {
                version: "fake".to_owned(),
                node: self.node,
                level: Level::Durable,
                resident_bytes: 0,
                shards: Vec::new(),
            })),
        }
    }

    /// One group only. Queues go round among the members in the order of joining; a former holder keeps a queue until it
    /// confirms the generation that takes it away.
    fn join(&mut self, join: &JoinGroup) -> Result<Assignment, Failure> {
        if !self.members.contains(&join.member) {
            if join.generation != 0 {
                return Err(Failure::new(Status::MemberUnknown, "the session has ended"));
            }
            self.members.push(join.member.clone());
            self.generation += 1;
            self.next_session += 1;
            self.sessions.insert(join.member.clone(), self.next_session);
        }
        let place = self.members.iter().position(|member| *member == join.member).expect("it is there");
        let mut keys: Vec<QueueKey> = Vec::new();
        for topic in &join.topics {
            let id = self.topics[topic];
            keys.extend(
                (0..self.queue_counts[&id]).map(|queue| QueueKey { topic: id, queue: QueueNumber(queue) }),
            );
        }
        let count = self.members.len();
        let target: Vec<_> = keys.into_iter().skip(place).step_by(count).collect();
        if join.generation == self.generation {
            self.holders.retain(|key, holder| *holder != join.member || target.contains(key));
        }
        let queues: Vec<_> = target
            .iter()
            .copied()
            .filter(|key| self.holders.entry(*key).or_insert_with(|| join.member.clone()) == &join.member)
            .collect();
        let (generation, session) = (self.generation, self.sessions[&join.member]);
        Ok(Assignment { generation, settled: queues.len() == target.len(), queues, session })
    }

    /// Gives a topic more queues.
    pub fn add_queues(&mut self, topic: &TopicName, count: u32) {
        let id = self.topics[topic];
        let present = self.queue_counts.insert(id, count).expect("it exists");
        for queue in present..count {
            self.queues.insert(QueueKey { topic: id, queue: QueueNumber(queue) }, Queue::default());
        }
    }

    /// Ends a member's session as a time-out does.
    pub fn forget(&mut self, member: &str) {
        self.members.retain(|other| other != member);
        self.holders.retain(|_, holder| holder != member);
        self.generation += 1;
    }
}

fn send(writer: &Mutex<TcpStream>, correlation: u64, reply: &Result<Reply, Failure>) {
    let mut bytes = Vec::new();
    ReplyEncoder::new().encode(&mut bytes, correlation, reply);
    write(writer, &bytes);
}

/// In two pieces, so that clients meet frames that come in parts.
fn write(writer: &Mutex<TcpStream>, bytes: &[u8]) {
    let mut writer = writer.lock().expect("no thread panicked");
    let (head, tail) = bytes.split_at(bytes.len() / 2);
    let _ = writer.write_all(head).and_then(|()| writer.write_all(tail));
}

/// Time-outs that keep a failing test short.
pub fn timeouts() -> turbopump::client::Timeouts {
    turbopump::client::Timeouts { connect: Duration::from_secs(5), request: Duration::from_secs(10) }
}
