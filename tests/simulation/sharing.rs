//! One group consumed by receivers (leases and acknowledgements, as over HTTP) and by members that read queues of their
//! own and commit: every message is dealt with once, whoever comes and goes.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{LocalBoxFuture, join_all};
use turbopump::api::{
    Acknowledge, ActingMember, Assignment, ClientProtocol, CommitOffset, Failure, Fetch, Filter, GroupInfo,
    GroupSettings, JoinGroup, OffsetSpec, Produce, ReceiptOutcome, Receive, ReceivedMessage, Reply, Request,
    ResetGroup, ResetTarget, SessionLife, Status,
};
use turbopump::disk::faulty::{FaultPlan, FaultyDisk, Restart};
use turbopump::limits;
use turbopump::testing::Random;
use turbopump::types::{MonotonicTime, QueueKey, QueueNumber, QueueOffset, TopicId};
use turbopump::wire::batch::{BatchBuilder, BatchHeader, stored_records};
use turbopump::wire::record::{Record, RecordView};

use super::node::{Node, Setup, group_name, on_node, topic_change, topic_name};

const SECOND: Duration = Duration::from_secs(1);
const QUEUES: u32 = 4;
const MESSAGES: u64 = 2_000;
/// Messages published at once.
const BATCH: u64 = 40;
const LEASE: Duration = Duration::from_secs(10);
const SESSION: Duration = Duration::from_secs(6);

/// A message: its queue, and its number there.
type Name = (u32, u64);

/// What all consumers together have seen.
#[derive(Default)]
struct Ledger {
    /// Acknowledged or committed, and by whom.
    settled: RefCell<BTreeMap<Name, Vec<String>>>,
    /// By whom how much was settled.
    shares: RefCell<BTreeMap<String, u64>>,
}

impl Ledger {
    fn settle(&self, who: &str, names: impl IntoIterator<Item = Name>) {
        for name in names {
            self.settled.borrow_mut().entry(name).or_default().push(who.to_owned());
            *self.shares.borrow_mut().entry(who.to_owned()).or_default() += 1;
        }
    }

    fn count(&self) -> u64 {
        self.settled.borrow().len() as u64
    }

    fn check_each_once(&self) {
        let settled = self.settled.borrow();
        let more: Vec<_> = settled.iter().filter(|(_, by)| by.len() != 1).take(9).collect();
        assert!(more.is_empty(), "settled more than once: {more:?}");
        assert_eq!(settled.len() as u64, u64::from(QUEUES) * MESSAGES, "some are missing");
    }

    fn share(&self, who: &str) -> u64 {
        self.shares.borrow().get(who).copied().unwrap_or(0)
    }
}

/// A node in use.
struct Scene<'a> {
    node: &'a Node,
    topic: TopicId,
    ledger: &'a Ledger,
}

fn name_of(body: &[u8]) -> Name {
    let text = std::str::from_utf8(body).expect("text");
    let (queue, number) = text.split_once(':').expect("two numbers");
    (queue.parse().expect("a number"), number.parse().expect("a number"))
}

fn received_name(message: &ReceivedMessage) -> Name {
    let (record, _) = RecordView::cut(&message.record).expect("a stored record");
    name_of(record.body())
}

fn receive() -> Receive {
    Receive {
        group: group_name("g"),
        topic: topic_name("t"),
        scope: Default::default(),
        filter: Filter::default(),
        count: 16,
        bytes_max: limits::RECEIVE_BYTES_MAX as u32,
        wait: 3 * SECOND,
        lease: Some(LEASE),
        ordered: false,
        protocol: ClientProtocol::Http,
    }
}

async fn created(node: &Node) -> TopicId {
    match node.handle(Request::CreateTopic(topic_change("t", QUEUES))).await.expect("a healthy disk") {
        Reply::Topic(info) => info.id,
        other => panic!("{other:?}"),
    }
}

impl Scene<'_> {
    /// Publishes the numbers in `range` to every queue, with pauses.
    async fn publish(&self, range: std::ops::Range<u64>, pause: Duration) {
        let mut first = range.start;
        while first < range.end {
            for queue in 0..QUEUES {
                let mut builder = BatchBuilder::new(self.node.clock.now());
                for number in first..(first + BATCH).min(range.end) {
                    let body = format!("{queue}:{number}");
                    builder.push(&Record { body: body.as_bytes(), ..Record::default() });
                }
                let key = QueueKey { topic: self.topic, queue: QueueNumber(queue) };
                let produce = Produce { key, level: None, batch: Bytes::from(builder.finish()) };
                self.node.handle(Request::Produce(produce)).await.expect("a healthy disk");
            }
            first += BATCH;
            self.node.clock.sleep(pause).await;
        }
    }

    async fn ask(&self, shard: usize, request: Request) -> Result<Reply, Failure> {
        self.node.brokers[shard % self.node.brokers.len()].handle(request).await
    }

    async fn received(&self, shard: usize, receive: Receive) -> Vec<ReceivedMessage> {
        match self.ask(shard, Request::Receive(receive)).await.expect("a healthy disk") {
            Reply::Received(messages) => messages,
            other => panic!("{other:?}"),
        }
    }

    /// Acknowledges, and takes note of what counted.
    async fn acknowledge(&self, who: &str, shard: usize, messages: &[ReceivedMessage]) {
        let receipts: Vec<_> = messages.iter().map(|message| message.receipt).collect();
        let request = Request::Acknowledge(Acknowledge { group: group_name("g"), receipts });
        let outcomes = match self.ask(shard, request).await.expect("a healthy disk") {
            Reply::Acknowledged(outcomes) => outcomes,
            other => panic!("{other:?}"),
        };
        let counted = messages.iter().zip(outcomes);
        let counted = counted.filter(|(_, outcome)| *outcome == ReceiptOutcome::Acknowledged);
        self.ledger.settle(who, counted.map(|(message, _)| received_name(message)));
    }

    /// Receives and acknowledges from one moment to another, a little late each time.
    async fn receiver(&self, who: &str, from: Duration, until: Duration, seed: u64) {
        let mut random = Random::new(seed);
        self.sleep_until(from).await;
        while self.now() < MonotonicTime(0).after(until) && !self.is_done() {
            let shard = random.index(4);
            let messages = self.received(shard, receive()).await;
            if messages.is_empty() {
                continue;
            }
            self.node.clock.sleep(Duration::from_millis(random.range(0..200))).await;
            self.acknowledge(who, random.index(4), &messages).await;
        }
    }

    /// A member of the group from one moment to another.
    async fn member(&self, who: &str, from: Duration, until: Duration) {
        self.sleep_until(from).await;
        let mut member = Member { scene: self, who, generation: 0, session: 0, reads: BTreeMap::new() };
        let until = MonotonicTime(0).after(until);
        let mut heartbeat = self.now();
        while self.now() < until && !self.is_done() {
            if self.now() >= heartbeat {
                let pause = if member.join().await { SESSION / 3 } else { Duration::from_millis(200) };
                heartbeat = self.now().after(pause);
            }
            if !member.read().await {
                self.node.clock.sleep(Duration::from_millis(20)).await;
            }
        }
        self.node.handle(member.leave()).await.expect("it is a member");
    }

    fn now(&self) -> MonotonicTime {
        self.node.clock.monotonic()
    }

    async fn sleep_until(&self, moment: Duration) {
        self.node.clock.sleep(MonotonicTime(0).after(moment).since(self.now())).await;
    }

    fn is_done(&self) -> bool {
        self.ledger.count() == u64::from(QUEUES) * MESSAGES
    }

    async fn described(&self) -> GroupInfo {
        match self.node.handle(Request::DescribeGroup(group_name("g"))).await.expect("it exists") {
            Reply::Group(info) => info,
            other => panic!("{other:?}"),
        }
    }
}

/// A member as a client has it.
struct Member<'a> {
    scene: &'a Scene<'a>,
    who: &'a str,
    generation: u64,
    session: u64,
    reads: BTreeMap<QueueKey, QueueOffset>,
}

impl Member<'_> {
    /// Tells that it lives; true when it has all that it is to have.
    async fn join(&mut self) -> bool {
        loop {
            let join = JoinGroup {
                group: group_name("g"),
                member: self.who.to_owned(),
                topics: vec![topic_name("t")],
                session_timeout: SESSION,
                generation: self.generation,
                life: SessionLife::Timed,
            };
            let assignment: Assignment = match self.scene.node.handle(Request::JoinGroup(join)).await {
                Ok(Reply::Assignment(assignment)) => assignment,
                Err(failure) if failure.status == Status::MemberUnknown => {
                    (self.generation, self.reads) = (0, BTreeMap::new());
                    continue;
                }
                other => panic!("{other:?}"),
            };
            let is_confirmed = self.generation == assignment.generation;
            self.generation = assignment.generation;
            self.session = assignment.session;
            self.reads.retain(|key, _| assignment.queues.contains(key));
            for key in assignment.queues {
                if !self.reads.contains_key(&key) {
                    let place = Request::CommittedOffset { group: group_name("g"), key };
                    let place = match self.scene.node.handle(place).await.expect("a healthy disk") {
                        Reply::Offset(place) => place.unwrap_or(QueueOffset::ZERO),
                        other => panic!("{other:?}"),
                    };
                    self.reads.insert(key, place);
                }
            }
            if is_confirmed {
                return assignment.settled;
            }
        }
    }

    /// Reads and commits something of each queue; false when there is nothing.
    async fn read(&mut self) -> bool {
        let mut has_read = false;
        for (key, place) in &mut self.reads {
            let fetched = match self.scene.node.fetch_for(self.session, *key, *place).await {
                Ok(fetched) => fetched,
                // It hears of it with its next request.
                Err(failure) => {
                    assert!(failure.status.ends_session(), "{failure:?}");
                    return false;
                }
            };
            let mut names = Vec::new();
            let mut at = 0;
            // Not all at once, so that others get something.
            while at < fetched.batches.len() && names.len() < 2 * BATCH as usize {
                let header = BatchHeader::decode(&fetched.batches[at..]).expect("a stored batch");
                let batch = &fetched.batches[at..at + header.batch_bytes as usize];
                let records = (header.base_offset.0..).zip(stored_records(batch));
                let wanted = records.filter(|(offset, _)| *offset >= place.0);
                names.extend(wanted.map(|(_, record)| name_of(record.body())));
                at += (header.batch_bytes as usize).next_multiple_of(8);
            }
            if names.is_empty() {
                continue;
            }
            has_read = true;
            let offset = place.advance(names.len() as u64);
            let acting = ActingMember { member: self.who.to_owned(), generation: self.generation };
            let commit = CommitOffset { group: group_name("g"), key: *key, offset, member: Some(acting) };
            match self.scene.node.handle(Request::CommitOffset(commit)).await {
                Ok(_) => self.scene.ledger.settle(self.who, names),
                // It hears of it with its next request.
                Err(failure) => {
                    assert!(matches!(failure.status, Status::MemberUnknown | Status::GenerationStale));
                    return false;
                }
            }
            *place = offset;
        }
        has_read
    }

    fn leave(&self) -> Request {
        Request::LeaveGroup { group: group_name("g"), member: self.who.to_owned() }
    }
}

fn disk(seed: u64) -> FaultyDisk {
    FaultyDisk::new(seed, FaultPlan { yields_max: 8, ..FaultPlan::none() })
}

fn seconds(count: u64) -> Duration {
    SECOND * count as u32
}

/// Comes and goes on both sides while messages come.
async fn bustle(scene: &Scene<'_>, seed: u64) {
    let everyone: Vec<LocalBoxFuture<'_, ()>> = vec![
        Box::pin(scene.publish(MESSAGES / 2..MESSAGES, seconds(1))),
        Box::pin(scene.receiver("early receiver", seconds(0), seconds(12), seed)),
        Box::pin(scene.member("early member", seconds(3), seconds(16))),
        Box::pin(scene.receiver("late receiver", seconds(6), seconds(600), seed + 1)),
        Box::pin(scene.member("late member", seconds(9), seconds(600))),
        Box::pin(scene.receiver("passing receiver", seconds(14), seconds(20), seed + 2)),
    ];
    join_all(everyone).await;
}

#[test]
fn every_message_goes_to_one_of_receivers_and_members() {
    for (seed, shard_count) in [(1, 1), (2, 4), (3, 2), (4, 4), (5, 1)] {
        let setup = Setup { shard_count, ..Setup::default() };
        let ran = on_node(&disk(seed), &setup, seed, async |node| {
            let ledger = Ledger::default();
            let scene = Scene { node, topic: created(node).await, ledger: &ledger };
            scene.publish(0..MESSAGES / 2, Duration::ZERO).await;
            bustle(&scene, seed).await;
            ledger.check_each_once();
            for who in ["early receiver", "early member", "late receiver", "late member"] {
                assert!(ledger.share(who) > 0, "{who} had no part, seed {seed}: {:?}", ledger.shares);
            }
            let lag: u64 = scene.described().await.queues.iter().map(|queue| queue.lag).sum();
            assert_eq!(lag, 0, "seed {seed}");
        });
        ran.expect("an empty disk");
    }
}

/// Whatever the moment: what was answered as settled is not delivered again, and nothing is lost.
#[test]
fn a_kill_while_queues_change_hands_loses_nothing_and_repeats_nothing_settled() {
    for seed in 0..12 {
        let shard_count = [1, 4][seed as usize % 2];
        let setup = Setup { shard_count, ..Setup::default() };
        let first_disk = disk(seed);
        let ran = on_node(&first_disk, &setup, seed, async |node| {
            let ledger = Ledger::default();
            let scene = Scene { node, topic: created(node).await, ledger: &ledger };
            scene.publish(0..MESSAGES, Duration::ZERO).await;
            let killed = async {
                let moment = Random::new(seed).range(100..14_000);
                scene.sleep_until(Duration::from_millis(moment)).await;
                let how = Restart::ALL[seed as usize % Restart::ALL.len()];
                (first_disk.outcome(how, seed), ledger.settled.borrow().clone())
            };
            let going_on = async {
                let everyone: Vec<LocalBoxFuture<'_, ()>> = vec![
                    Box::pin(scene.receiver("receiver", seconds(0), seconds(600), seed)),
                    Box::pin(scene.member("member", seconds(2), seconds(8))),
                    Box::pin(scene.member("other member", seconds(5), seconds(600))),
                ];
                join_all(everyone).await;
                std::future::pending().await
            };
            let (disk, settled) = futures_lite::future::or(killed, going_on).await;
            (disk, settled, scene.topic)
        });
        let (disk, settled, topic) = ran.expect("an empty disk");
        let ran = on_node(&disk, &setup, seed + 100, async |node| {
            let ledger = Ledger::default();
            *ledger.settled.borrow_mut() = settled;
            let before = ledger.count();
            let scene = Scene { node, topic, ledger: &ledger };
            let everyone: Vec<LocalBoxFuture<'_, ()>> = vec![
                Box::pin(scene.member("other member", seconds(1), seconds(600))),
                Box::pin(scene.receiver("receiver", seconds(0), seconds(600), seed)),
            ];
            // What was settled without an answer is settled as well, so the ledger may stay short of it.
            let enough = scene.sleep_until(seconds(120));
            let all = async {
                join_all(everyone).await;
            };
            futures_lite::future::or(all, enough).await;
            for (name, by) in ledger.settled.borrow().iter() {
                assert_eq!(by.len(), 1, "seed {seed}: {name:?} was settled by {by:?}");
            }
            let lag: u64 = scene.described().await.queues.iter().map(|queue| queue.lag).sum();
            assert_eq!(lag, 0, "seed {seed}: everything is settled, {before} before");
            // Only what was on its way when the node died can have been settled without an answer.
            let missing = u64::from(QUEUES) * MESSAGES - ledger.count();
            assert!(missing <= 16 + 2 * u64::from(QUEUES) * BATCH, "seed {seed}: {missing} are missing");
        });
        ran.expect("a disk that works");
    }
}

async fn lone_member(scene: &Scene<'_>, until: Duration) -> Vec<Name> {
    let before: BTreeSet<_> = scene.ledger.settled.borrow().keys().copied().collect();
    scene.member("member", Duration::ZERO, until).await;
    let settled = scene.ledger.settled.borrow();
    settled.keys().filter(|name| !before.contains(name)).copied().collect()
}

#[test]
fn a_member_gets_what_receivers_left_behind_once_their_leases_have_ended() {
    let ran = on_node(&disk(1), &Setup::default(), 1, async |node| {
        let ledger = Ledger::default();
        let scene = Scene { node, topic: created(node).await, ledger: &ledger };
        scene.publish(0..BATCH, Duration::ZERO).await;
        let one_queue = Receive { scope: Some(QueueNumber(0)).into(), ..receive() };
        let messages = scene.received(0, one_queue.clone()).await;
        let lost = scene.received(0, one_queue).await;
        assert_eq!((messages.len(), lost.len()), (16, 16));
        scene.acknowledge("receiver", 0, &messages).await;
        let place = Request::CommittedOffset { group: group_name("g"), key: lost[0].receipt.key };
        assert_eq!(node.handle(place.clone()).await, Ok(Reply::Offset(Some(QueueOffset(16)))));
        // The receiver dies. The member gets the queues of nobody's leases at first, and the other when they end.
        let member = scene.member("member", Duration::ZERO, seconds(60));
        let watch = async {
            scene.sleep_until(seconds(9)).await;
            let described = scene.described().await;
            let of = |queue: usize| described.queues[queue].member.clone();
            assert_eq!([of(0).as_deref(), of(3).as_deref()], [Some("%receive"), Some("member")]);
            scene.sleep_until(seconds(9) + Duration::from_millis(limits::RECEIVERS_SESSION_MS)).await;
            let described = scene.described().await;
            assert!(described.queues.iter().all(|queue| queue.member.as_deref() == Some("member")));
            assert_eq!(described.queues.iter().map(|queue| queue.lag).sum::<u64>(), 0);
        };
        futures_lite::future::zip(member, watch).await;
        let settled = ledger.settled.borrow();
        assert_eq!(settled.len() as u64, u64::from(QUEUES) * BATCH);
        assert!(settled.values().all(|by| by.len() == 1), "{settled:?}");
    });
    ran.expect("an empty disk");
}

/// A member would get messages again that were acknowledged one by one, so what lies between them stays leased.
#[test]
fn holes_between_acknowledged_messages_stay_with_the_receivers() {
    let ran = on_node(&disk(1), &Setup::default(), 1, async |node| {
        let ledger = Ledger::default();
        let scene = Scene { node, topic: created(node).await, ledger: &ledger };
        let settings = GroupSettings {
            group: group_name("g"),
            deliveries_max: Some(10),
            lease: None,
            ordered_lease: None,
        };
        node.handle(Request::AlterGroup(settings)).await.expect("a healthy disk");
        scene.publish(0..BATCH, Duration::ZERO).await;
        let messages = scene.received(0, Receive { scope: Some(QueueNumber(0)).into(), ..receive() }).await;
        scene.acknowledge("receiver", 0, &messages[3..10]).await;
        let reading = async { lone_member(&scene, seconds(200)).await };
        let watch = async {
            scene.sleep_until(LEASE + Duration::from_millis(limits::RECEIVERS_SESSION_MS) + SECOND).await;
            assert_eq!(ledger.share("member"), u64::from(QUEUES) * BATCH - 16, "not what lies between");
            // Half of it is received and acknowledged, the rest never again.
            let again = scene.received(0, Receive { count: 4, wait: Duration::ZERO, ..receive() }).await;
            assert_eq!(again.iter().map(|message| message.deliveries).collect::<Vec<_>>(), [2, 2, 2, 2]);
            scene.acknowledge("receiver", 0, &again).await;
            scene.sleep_until(seconds(150)).await;
            let dead = Receive { topic: topic_name("%DLQ%g"), group: group_name("watch"), ..receive() };
            let dead: Vec<_> = scene.received(0, dead).await.iter().map(received_name).collect();
            assert_eq!(dead, [11, 12, 13, 14, 15].map(|at| received_name(&messages[at])));
        };
        futures_lite::future::zip(reading, watch).await;
        let settled = ledger.settled.borrow();
        assert!(settled.values().all(|by| by.len() == 1), "{settled:?}");
        assert_eq!(settled.len() as u64, u64::from(QUEUES) * BATCH - 5);
    });
    ran.expect("an empty disk");
}

#[test]
fn receivers_are_described_and_a_reset_moves_both_kinds() {
    let setup = Setup { shard_count: 2, ..Setup::default() };
    let ran = on_node(&disk(1), &setup, 1, async |node| {
        let ledger = Ledger::default();
        let scene = Scene { node, topic: created(node).await, ledger: &ledger };
        scene.publish(0..BATCH, Duration::ZERO).await;
        for (shard, tags) in [(0, "a"), (1, "a"), (1, "b")] {
            let filter = Filter::parse(Some(tags));
            let of_tag = Receive { wait: Duration::ZERO, filter, ..receive() };
            assert!(scene.received(shard, of_tag).await.is_empty());
        }
        let infos = node.brokers[1].group_receivers(&group_name("g")).await.expect("both answer");
        let tags: Vec<_> = infos.iter().map(|info| info.filter.text()).collect();
        assert_eq!(tags, ["a", "b"], "they do not agree");
        let described = scene.described().await;
        assert_eq!((described.members[0].member.as_str(), described.members.len()), ("%receive", 1));
        assert_eq!(described.members[0].queues.len(), QUEUES as usize);
        assert_eq!(described.queues.iter().map(|queue| queue.lag).sum::<u64>(), 0, "all were passed over");
        let target = ResetTarget::Every(OffsetSpec::First);
        let reset = ResetGroup { group: group_name("g"), topic: topic_name("t"), target };
        node.handle(Request::ResetGroup(reset.clone())).await.expect("no member");
        assert_eq!(scene.received(0, receive()).await.len(), 16, "from the start again");
        node.handle(Request::ResetGroup(reset)).await.expect("no member");
        // A member from here on: it starts where the reset says, when receivers are gone.
        scene.sleep_until(seconds(60)).await;
        let read = lone_member(&scene, seconds(70)).await;
        assert_eq!(read.len() as u64, u64::from(QUEUES) * BATCH);
        assert!(ledger.settled.borrow().values().all(|by| by.len() == 1));
    });
    ran.expect("an empty disk");
}

/// The first message of each queue, for a member's session.
async fn fetch_all(scene: &Scene<'_>, session: u64) -> Vec<Result<(), Status>> {
    let mut answers = Vec::new();
    for queue in (0..QUEUES).map(QueueNumber) {
        let key = QueueKey { topic: scene.topic, queue };
        let fetched = scene.node.fetch_for(session, key, QueueOffset::ZERO).await;
        answers.push(fetched.map(|_| ()).map_err(|failure| failure.status));
    }
    answers
}

async fn joined<'a>(scene: &'a Scene<'a>, who: &'a str) -> Member<'a> {
    let mut member = Member { scene, who, generation: 0, session: 0, reads: BTreeMap::new() };
    while !member.join().await {
        scene.node.clock.sleep(Duration::from_millis(100)).await;
    }
    member
}

/// Whoever was not heard of reads nothing, though it does not know yet that its queues are others'.
#[test]
fn a_member_reads_nothing_once_its_queues_are_somebody_else_s() {
    for shard_count in [1, 2, 4] {
        let setup = Setup { shard_count, ..Setup::default() };
        let first_disk = disk(3);
        let ran = on_node(&first_disk, &setup, 3, async |node| {
            let ledger = Ledger::default();
            let scene = Scene { node, topic: created(node).await, ledger: &ledger };
            scene.publish(0..BATCH, Duration::ZERO).await;
            let first = joined(&scene, "first").await;
            assert_eq!(fetch_all(&scene, first.session).await, [Ok(()); QUEUES as usize]);
            node.clock.sleep(SESSION + SECOND).await;
            let second = joined(&scene, "second").await;
            assert_eq!(fetch_all(&scene, second.session).await, [Ok(()); QUEUES as usize]);
            let refused = [Err(Status::MemberUnknown); QUEUES as usize];
            assert_eq!(fetch_all(&scene, first.session).await, refused, "{shard_count} shards");
            // Receivers are the next ones.
            node.clock.sleep(SESSION + SECOND).await;
            assert_eq!(scene.received(0, receive()).await.len(), 16);
            assert_eq!(fetch_all(&scene, second.session).await, refused, "{shard_count} shards");
            assert_eq!(fetch_all(&scene, 0).await, [Ok(()); QUEUES as usize], "whoever is no member reads");
            let third = joined(&scene, "first").await;
            assert_ne!(third.session, first.session, "the same name in another session");
            (third.session, scene.topic)
        });
        let (session, topic) = ran.expect("an empty disk");
        let disk = first_disk.outcome(Restart::ALL[0], 3);
        let ran = on_node(&disk, &setup, 4, async |node| {
            let ledger = Ledger::default();
            let scene = Scene { node, topic, ledger: &ledger };
            let refused = [Err(Status::MemberUnknown); QUEUES as usize];
            assert_eq!(fetch_all(&scene, session).await, refused, "the node has begun anew");
            assert_ne!(joined(&scene, "first").await.session, session);
        });
        ran.expect("a disk that works");
    }
}

/// A fetch that waits for a message waits for a queue that may pass to others meanwhile.
#[test]
fn a_fetch_that_waits_gets_nothing_of_a_queue_that_was_lost_meanwhile() {
    let ran = on_node(&disk(5), &Setup::default(), 5, async |node| {
        let ledger = Ledger::default();
        let scene = Scene { node, topic: created(node).await, ledger: &ledger };
        let member = joined(&scene, "member").await;
        let key = QueueKey { topic: scene.topic, queue: QueueNumber(0) };
        let wait = seconds(60);
        let fetch = Fetch {
            key,
            offset: QueueOffset::ZERO,
            bytes_max: 1 << 20,
            records_max: u32::MAX,
            session: member.session,
            wait,
        };
        let waiting = node.handle(Request::Fetch(fetch));
        let meanwhile = async {
            node.clock.sleep(SESSION + SECOND).await;
            // That a receive finds nothing is what opens the queues for receivers.
            let none = Receive { wait: seconds(5), ..receive() };
            assert!(scene.received(0, none).await.is_empty());
            scene.publish(0..1, Duration::ZERO).await;
            scene.received(0, receive()).await.len()
        };
        let (refused, received) = futures_lite::future::zip(waiting, meanwhile).await;
        let refused = refused.expect_err("its session has ended");
        assert_eq!(refused.status, Status::MemberUnknown);
        assert!(refused.message.contains("of topic t "), "the topic has a name: {}", refused.message);
        assert!(received > 0);
    });
    ran.expect("an empty disk");
}

#[test]
fn durations_are_counted_by_the_broker_s_clock() {
    let ran = on_node(&disk(6), &Setup::default(), 6, async |node| {
        let ledger = Ledger::default();
        let scene = Scene { node, topic: created(node).await, ledger: &ledger };
        scene.publish(0..BATCH, Duration::ZERO).await;
        node.clock.sleep(seconds(100)).await;
        scene.publish(BATCH..2 * BATCH, Duration::ZERO).await;
        node.clock.sleep(seconds(10)).await;
        let key = QueueKey { topic: scene.topic, queue: QueueNumber(0) };
        for (ago, offset) in [(60, BATCH), (1, 2 * BATCH), (1_000, 0)] {
            let spec = OffsetSpec::Ago(seconds(ago));
            let found = node.handle(Request::FindOffset { key, spec }).await;
            assert_eq!(found, Ok(Reply::OffsetFound(QueueOffset(offset))), "{ago} s ago");
        }
        let target = ResetTarget::Every(OffsetSpec::Ago(seconds(60)));
        let reset = ResetGroup { group: group_name("g"), topic: topic_name("t"), target };
        node.handle(Request::ResetGroup(reset)).await.expect("no member");
        let committed = node.handle(Request::CommittedOffset { group: group_name("g"), key }).await;
        assert_eq!(committed, Ok(Reply::Offset(Some(QueueOffset(BATCH)))));
    });
    ran.expect("an empty disk");
}
