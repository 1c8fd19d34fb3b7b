//! One log, one state: whenever everything that a running shard has placed is durable, a shard that recovers from the disk as it
//! is then has the same state, byte for byte, with the snapshots there are and from the log alone.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use turbopump::api::{
    Acknowledge, ChangeLease, ClientProtocol, CommitOffset, Decision, Filter, GroupSettings, Receive,
    ReceivedMessage, Redrive, Release, Reply, Request,
};
use turbopump::disk::faulty::{FaultPlan, FaultyDisk, Restart, Survival};
use turbopump::limits;
use turbopump::testing::{Random, SeededExecutor};
use turbopump::types::{HalfReceipt, Level, LogPosition, QueueKey, QueueNumber, QueueOffset, Timestamp};

use super::checks::remove_derived;
use super::held::{create_topic, end, half_of, hold, receive};
use super::node::{
    Node, Setup, TestBroker, group_name, state_after_recovery, topic_change, topic_name, watched,
};
use super::workload::{Script, produce_sized, run};
use super::{held_sweep, lease_sweep, locks};

/// Settled moments that one run is compared at, at most: later ones are like those.
const COMPARED_MAX: usize = 150;
const TOPICS: [&str; 3] = ["t", "later", "%DLQ%g"];
const GROUPS: [&str; 2] = ["g", "h"];

/// Runs `work` and compares at every settled moment. Returns at how many.
fn compare(label: &str, work: impl FnOnce()) -> usize {
    let compared = Rc::new(Cell::new(0));
    let last = RefCell::new(BTreeMap::<u16, LogPosition>::new());
    let (counted, label) = (compared.clone(), label.to_owned());
    let watcher = move |disk: &FaultyDisk, setup: &Setup, broker: &TestBroker| {
        let marks = broker.log().watermarks();
        let (end, shard) = (marks.durable_end(), broker.shard().0);
        let is_settled = marks.appended_end() == end && last.borrow().get(&shard) != Some(&end);
        if !is_settled || disk.is_crashed() || counted.get() >= COMPARED_MAX {
            return;
        }
        last.borrow_mut().insert(shard, end);
        let live = broker.state_bytes();
        let copy = disk.outcome(Restart::PowerLoss(Survival::Nothing), end.0);
        let bare = disk.outcome(Restart::ProcessKill, end.0);
        remove_derived(&bare, setup);
        for (copy, how) in [(copy, "with snapshots"), (bare, "from the log alone")] {
            let recovered = state_after_recovery(&copy, setup, shard);
            let place = format!("{label}: shard {shard} at {end}, {how}");
            assert!(recovered == live, "{place}: {}", difference(&live, &recovered));
        }
        counted.set(counted.get() + 1);
    };
    watched(Rc::new(watcher), work);
    compared.get()
}

/// Where two encoded states part.
fn difference(live: &[u8], recovered: &[u8]) -> String {
    let common = live.iter().zip(recovered).take_while(|(one, other)| one == other).count();
    let around = |bytes: &[u8]| {
        String::from_utf8_lossy(&bytes[common.saturating_sub(40)..(common + 40).min(bytes.len())])
            .into_owned()
    };
    let (live_bytes, recovered_bytes) = (live.len(), recovered.len());
    format!(
        "{live_bytes} and {recovered_bytes} bytes part at {common}: running {:?}, recovered {:?}",
        around(live),
        around(recovered)
    )
}

fn disk(seed: u64) -> FaultyDisk {
    FaultyDisk::new(seed, FaultPlan::reordered())
}

#[test]
fn topics_and_offsets_are_recovered_as_they_were() {
    let mut compared = 0;
    let mut scripts = vec![Script::rolling(30)];
    for seed in 0..3 {
        scripts.extend([
            Script::small(seed),
            Script::small(10 + seed).overlapped(),
            Script::sharded(20 + seed),
        ]);
    }
    for script in scripts {
        compared += compare(&format!("{script:?}"), || drop(run(&disk(script.seed), &script)));
    }
    assert!(compared > 100, "only {compared} moments");
}

#[test]
fn leases_are_recovered_as_they_were() {
    let compared: usize =
        (31..34).map(|seed| compare(&format!("seed {seed}"), || lease_sweep::calm(&disk(seed), seed))).sum();
    assert!(compared > 100, "only {compared} moments");
}

#[test]
fn held_messages_are_recovered_as_they_were() {
    let compared: usize =
        (41..44).map(|seed| compare(&format!("seed {seed}"), || held_sweep::calm(&disk(seed), seed))).sum();
    assert!(compared > 100, "only {compared} moments");
}

#[test]
fn locks_are_recovered_as_they_were() {
    let compared: usize =
        (61..65).map(|seed| compare(&format!("seed {seed}"), || locks::calm(&disk(seed), seed))).sum();
    assert!(compared > 30, "only {compared} moments");
}

#[test]
fn whatever_is_done_at_once_is_recovered_as_it_was() {
    let mut compared = 0;
    for seed in 51..57u64 {
        let shard_count = 1 + (seed % 2) as u16;
        let plain = Setup::default();
        let retention_bytes = seed.is_multiple_of(3).then_some(2 * plain.segment_bytes);
        let group_idle = seed.is_multiple_of(2).then_some(Duration::from_secs(20));
        let setup = Setup { shard_count, retention_bytes, group_idle, ..plain };
        compared += compare(&format!("seed {seed}"), || everything(&disk(seed), &setup, seed));
    }
    assert!(compared > 300, "only {compared} moments");
}

/// Three clients that do anything at all, over two runs.
fn everything(disk: &FaultyDisk, setup: &Setup, seed: u64) {
    let executor = SeededExecutor::new(seed);
    executor.run_until(async {
        for run in 0..2 {
            let node = Node::start(disk, setup, executor.shared_clock(), &executor.spawner()).await;
            let node = Rc::new(node.expect("a healthy disk"));
            let clients = (0..3).map(|client| {
                let node = node.clone();
                let random = Random::new(seed * 100 + run * 10 + client);
                executor.spawn(async move { Client::new(random).act(&node).await })
            });
            for client in clients.collect::<Vec<_>>() {
                client.await;
            }
            if run == 0 && setup.retention_bytes.is_some() {
                fill(&node).await;
            }
            Rc::into_inner(node).expect("every client has ended").stop().await;
        }
    });
}

/// Makes segments come and go.
async fn fill(node: &Node) {
    let key = create_topic(node, "bulk", 1).await.expect("a healthy disk");
    let books = super::workload::Books::default();
    for number in 0..6 {
        let level = Some(Level::Durable);
        produce_sized(node, &books, key, level, number, 3_900_000).await.expect("a healthy disk");
    }
    node.clock.sleep(Duration::from_secs(3)).await;
}

/// What one client knows of what it has begun.
struct Client {
    random: Random,
    leased: Vec<(&'static str, ReceivedMessage)>,
    halves: Vec<HalfReceipt>,
    sent: u64,
}

impl Client {
    fn new(random: Random) -> Self {
        Self { random, leased: Vec::new(), halves: Vec::new(), sent: 0 }
    }

    /// Refusals are no matter here: whatever comes of it, log and state must agree.
    async fn act(mut self, node: &Node) {
        for _ in 0..60 {
            match self.random.range(0..18) {
                0 => {
                    let change = topic_change(self.topic(), 1 + self.random.range(0..3) as u32);
                    let request =
                        if self.random.chance(0.7) { Request::CreateTopic } else { Request::AlterTopic };
                    let _ = node.handle(request(change)).await;
                }
                1 if self.random.chance(0.3) => {
                    let _ = node.handle(Request::DeleteTopic(topic_name(self.topic()))).await;
                }
                2 if self.random.chance(0.4) => {
                    let _ = node.handle(Request::DeleteGroup(group_name(self.group()))).await;
                }
                3 => self.alter_group(node).await,
                4 | 5 => self.commit(node).await,
                6..=8 => self.receive(node).await,
                9 => self.acknowledge(node).await,
                10 => self.renew(node).await,
                11 if self.random.chance(0.5) => self.decide(node).await,
                11 => self.lock(node).await,
                16 | 17 => self.redrive(node).await,
                12 => {
                    let broker = &node.brokers[self.random.range(0..node.brokers.len() as u64) as usize];
                    let _ = broker.take_snapshot().await;
                }
                _ => self.send(node).await,
            }
            let pause = if self.random.chance(0.05) { 8_000 } else { self.random.range(0..40) };
            node.clock.sleep(Duration::from_millis(pause)).await;
        }
    }

    fn topic(&mut self) -> &'static str {
        if self.random.chance(0.6) { TOPICS[0] } else { TOPICS[self.random.range(0..3) as usize] }
    }

    fn group(&mut self) -> &'static str {
        GROUPS[self.random.range(0..2) as usize]
    }

    async fn queue(&mut self, node: &Node) -> Option<QueueKey> {
        let key = super::held::key_of(node, self.topic()).await?;
        Some(QueueKey { queue: QueueNumber(self.random.range(0..2) as u32), ..key })
    }

    async fn send(&mut self, node: &Node) {
        let Some(key) = self.queue(node).await else { return };
        self.sent += 1;
        let due = Timestamp(node.clock.now().0 + *self.random.pick(&[0, 0, 0, 20, 3_000, 600_000]));
        let release = if self.random.chance(0.3) { half_of(Some("producers")) } else { Release::At(due) };
        let level = *self.random.pick(&[Level::Durable, Level::Written, Level::Accepted]);
        if let Ok(held) = hold(node, key, level, self.sent, release).await {
            self.halves.push(held.receipt);
        }
    }

    async fn decide(&mut self, node: &Node) {
        let _ = receive(node, "producers", Duration::ZERO).await;
        if let Some(receipt) = self.halves.pop() {
            let decision = *self.random.pick(&[Decision::Commit, Decision::Rollback]);
            let _ = end(node, receipt, decision).await;
        }
    }

    async fn alter_group(&mut self, node: &Node) {
        let settings = GroupSettings {
            group: group_name(self.group()),
            deliveries_max: Some(1 + self.random.range(0..3) as u32),
            lease: None,
            ordered_lease: None,
        };
        let _ = node.handle(Request::AlterGroup(settings)).await;
    }

    async fn commit(&mut self, node: &Node) {
        let Some(key) = self.queue(node).await else { return };
        let offset = QueueOffset(self.random.range(0..6));
        let commit = CommitOffset { group: group_name(self.group()), key, offset, member: None };
        let _ = node.handle(Request::CommitOffset(commit)).await;
    }

    async fn receive(&mut self, node: &Node) {
        let group = self.group();
        let receive = Receive {
            group: group_name(group),
            topic: topic_name(self.topic()),
            scope: Default::default(),
            filter: Filter::default(),
            count: 1 + self.random.range(0..5) as u32,
            bytes_max: limits::RECEIVE_BYTES_MAX as u32,
            wait: Duration::ZERO,
            lease: Some(Duration::from_millis(*self.random.pick(&[200, 2_000, 60_000]))),
            ordered: self.random.chance(0.2),
            protocol: ClientProtocol::Http,
        };
        if let Ok(Reply::Received(messages)) = node.handle(Request::Receive(receive)).await {
            self.leased.extend(messages.into_iter().map(|message| (group, message)));
        }
    }

    async fn acknowledge(&mut self, node: &Node) {
        let Some((group, message)) = self.leased.pop() else { return };
        let request = Acknowledge { group: group_name(group), receipts: vec![message.receipt] };
        let _ = node.handle(Request::Acknowledge(request)).await;
    }

    async fn redrive(&mut self, node: &Node) {
        let offsets =
            (0..1 + self.random.range(0..3)).map(|_| QueueOffset(self.random.range(0..8))).collect();
        let queue = QueueNumber(self.random.range(0..2) as u32);
        let to = topic_name(self.random.pick::<&str>(&["t", "later"]));
        let _ = node.handle(Request::Redrive(Redrive { group: group_name("g"), queue, offsets, to })).await;
    }

    async fn lock(&mut self, node: &Node) {
        let Some(key) = self.queue(node).await else { return };
        let (client, group) = (["a@1", "b@1"][self.random.range(0..2) as usize], group_name(self.group()));
        locks::joins(node, client, group.as_str()).await;
        let broker = node.owner(key);
        if self.random.chance(0.7) {
            let _ = broker.lock_queues(&group, client, &[key].into(), Ipv4Addr::LOCALHOST.into()).await;
        } else {
            broker.unlock_queues(&group, client, &[key].into()).await;
        }
        // Others may be of the group again.
        let _ = node.broker().reader_gone(1, client).await;
    }

    async fn renew(&mut self, node: &Node) {
        let Some((group, message)) = self.leased.pop() else { return };
        let lease = Duration::from_millis(self.random.range(100..5_000));
        let change = ChangeLease { group: group_name(group), receipt: message.receipt, lease };
        let _ = node.handle(Request::ChangeLease(change)).await;
    }
}
