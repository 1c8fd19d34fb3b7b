//! Locks: who has a queue to itself, while time passes, the broker restarts, the power fails or the disk refuses.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use turbopump::api::{
    ClientProtocol, Filter, LeftGroups, ReaderClient, ReaderGroup, ReaderMode, Receive, Request, Subscription,
};
use turbopump::disk::faulty::{FaultPlan, FaultyDisk, Restart, Survival};
use turbopump::limits;
use turbopump::testing::{Random, SeededExecutor};
use turbopump::types::{QueueKey, QueueNumber, TopicId};

use super::checks::remove_derived;
use super::held::{create_topic, key_of};
use super::leases::{acknowledge, create, disk, killed, publish, receipts, received};
use super::node::{Node, Setup, group_name, on_node, topic_name};
use super::sweep::{Script, crashes, log_errors, run_until_crash};
use super::workload::produce_sized;

const CLIENTS: [&str; 2] = ["a@1", "b@1"];
const QUEUES: u32 = 4;
const LEASE: Duration = Duration::from_secs(60);

fn queue(topic: TopicId, queue: u32) -> QueueKey {
    QueueKey { topic, queue: QueueNumber(queue) }
}

/// A client says that it is of a group.
pub async fn joins(node: &Node, client: &str, group: &str) {
    let subscription = Subscription {
        topic: "t".to_owned(),
        expression: "*".to_owned(),
        kind: "TAG".to_owned(),
        version: 1,
    };
    let group = ReaderGroup {
        group: group_name(group),
        mode: ReaderMode::Clustering,
        kind: "push",
        start: "last",
        subscriptions: vec![subscription],
    };
    let said = ReaderClient { language: "JAVA", version: 513, groups: vec![group], produces: Vec::new() };
    node.broker().hear_reader(1, client, "a:1", said).expect("there is room");
    node.broker().tell_reader(1, client).await.expect("every shard is there");
}

/// Of these queues, those that the client has now.
async fn lock(node: &Node, client: &str, keys: &[QueueKey]) -> Vec<QueueKey> {
    let mut granted = Vec::new();
    for broker in &node.brokers {
        let of_shard = keys.iter().filter(|key| key.queue.shard(node.brokers.len() as u16) == broker.shard());
        let of_shard: BTreeSet<_> = of_shard.copied().collect();
        let locked =
            broker.lock_queues(&group_name("g"), client, &of_shard, Ipv4Addr::LOCALHOST.into()).await;
        granted.extend(locked.unwrap_or_default());
    }
    granted
}

async fn unlock(node: &Node, client: &str, keys: &[QueueKey]) {
    let keys: BTreeSet<_> = keys.iter().copied().collect();
    for broker in &node.brokers {
        broker.unlock_queues(&group_name("g"), client, &keys).await;
    }
}

async fn end_locks(node: &Node) {
    for broker in &node.brokers {
        broker.end_locks().await;
    }
}

#[test]
fn a_holder_has_a_lease_from_its_last_word_and_a_whole_one_after_a_restart() {
    let (disk, setup) = disk();
    let ran = on_node(&disk, &setup, 1, async |node| {
        let topic = create(node, "t", 2).await;
        let keys = [queue(topic, 0), queue(topic, 1)];
        assert_eq!(lock(node, "a@1", &keys).await, [], "it is not of the group");
        joins(node, "a@1", "g").await;
        joins(node, "b@1", "g").await;
        assert_eq!(lock(node, "a@1", &keys).await, keys);
        node.clock.sleep(LEASE / 2).await;
        let before = node.broker().log().watermarks().appended_end();
        assert_eq!(lock(node, "a@1", &keys[..1]).await, keys[..1]);
        assert_eq!(node.broker().log().watermarks().appended_end(), before, "a renewal is not stored");
        node.clock.sleep(LEASE / 2).await;
        assert_eq!(lock(node, "b@1", &keys).await, keys[1..], "the other one was not renewed");
        topic
    });
    let topic = ran.expect("a healthy disk");
    for restart in [Restart::ProcessKill, Restart::PowerLoss(Survival::Nothing)] {
        let ran = on_node(&disk.outcome(restart, 9), &setup, 1, async |node| {
            let keys = [queue(topic, 0), queue(topic, 1)];
            joins(node, "c@1", "g").await;
            node.clock.sleep(LEASE - Duration::from_secs(1)).await;
            end_locks(node).await;
            assert_eq!(lock(node, "c@1", &keys).await, [], "{restart:?}");
            assert_eq!(lock(node, "b@1", &keys).await, keys[1..], "it has it, whatever it is of");
            node.clock.sleep(Duration::from_secs(2)).await;
            end_locks(node).await;
            assert_eq!(lock(node, "a@1", &keys).await, [], "what it had is over");
            assert_eq!(lock(node, "c@1", &keys).await, keys[..1], "{restart:?}");
        });
        ran.expect("a healthy disk");
    }
}

#[test]
fn locks_go_with_their_topic_and_their_group() {
    let (disk, setup) = disk();
    let ran = on_node(&disk, &setup, 1, async |node| {
        let topic = create(node, "t", 2).await;
        let other = create(node, "u", 1).await;
        joins(node, "a@1", "g").await;
        let keys = [queue(topic, 0), queue(topic, 1), queue(other, 0)];
        assert_eq!(lock(node, "a@1", &keys).await, keys);
        assert_eq!(lock(node, "a@1", &[queue(topic, 2), queue(TopicId(99), 0)]).await, [], "no such queues");
        node.handle(Request::DeleteTopic(topic_name("u"))).await.expect("it is there");
        node.broker().check_state();
        assert_eq!(lock(node, "a@1", &keys).await, keys[..2]);
        node.broker().reader_gone(1, "a@1").await;
        node.handle(Request::DeleteGroup(group_name("g"))).await.expect("it has locks");
        joins(node, "b@1", "g").await;
        assert_eq!(lock(node, "b@1", &keys).await, keys[..2]);
        let left = LeftGroups { reads: Some(group_name("g")), produces: None };
        node.broker().reader_left("b@1", &left).await.expect("a healthy disk");
        joins(node, "a@1", "g").await;
        assert_eq!(lock(node, "a@1", &keys).await, keys[..2]);
    });
    ran.expect("a healthy disk");
    let ran = on_node(&killed(&disk), &setup, 1, async |node| node.broker().check_state());
    ran.expect("a healthy disk");
}

fn receive(wait: Duration) -> Receive {
    Receive {
        group: group_name("g"),
        topic: topic_name("t"),
        scope: Default::default(),
        filter: Filter::default(),
        count: 1,
        bytes_max: limits::RECEIVE_BYTES_MAX as u32,
        wait,
        lease: Some(Duration::from_secs(10)),
        ordered: false,
        protocol: ClientProtocol::Http,
    }
}

#[test]
fn receivers_and_a_holder_keep_out_of_each_others_way() {
    let (disk, setup) = disk();
    let ran = on_node(&disk, &setup, 1, async |node| {
        let topic = create(node, "t", 1).await;
        let key = queue(topic, 0);
        publish(node, topic, 0, "", "m0").await;
        publish(node, topic, 0, "", "m1").await;
        let given = received(node, receive(Duration::ZERO)).await;
        joins(node, "a@1", "g").await;
        assert_eq!(lock(node, "a@1", &[key]).await, [], "somebody has a message of it");
        acknowledge(node, &receipts(&given)).await;
        assert_eq!(lock(node, "a@1", &[key]).await, [key]);
        // It is silent, and may be at work.
        node.broker().reader_gone(1, "a@1").await;
        assert!(received(node, receive(Duration::ZERO)).await.is_empty(), "the queue is another's");
        unlock(node, "a@1", &[key]).await;
        assert_eq!(received(node, receive(Duration::ZERO)).await.len(), 1);
    });
    ran.expect("a healthy disk");
}

#[test]
fn no_address_takes_the_queues_that_others_need() {
    const TOPIC_QUEUES: u32 = 1_024;
    let (greedy, other) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    let (disk, setup) = disk();
    let ran = on_node(&disk, &setup, 1, async |node| {
        let topic = create(node, "t", TOPIC_QUEUES).await;
        let broker = node.broker();
        let keys: BTreeSet<_> = (0..TOPIC_QUEUES).map(|number| queue(topic, number)).collect();
        let lock_at = async |number: usize, network: Ipv4Addr| {
            let (client, group) = (format!("a@{number}"), format!("g{number}"));
            joins(node, &client, &group).await;
            let locked = broker.lock_queues(&group_name(&group), &client, &keys, network.into()).await;
            locked.expect("no members").len()
        };
        let refused = || broker.metrics().queue_locks_refused.get();
        let share = limits::SHARD_QUEUE_LOCKS_MAX / 8 * 3;
        let groups = share / keys.len();
        for number in 0..groups {
            assert_eq!(lock_at(number, greedy).await, keys.len());
        }
        assert_eq!((groups * keys.len(), refused()), (share, 0));
        assert_eq!(lock_at(groups, greedy).await, 0, "it has its share");
        assert_eq!(refused(), u64::from(TOPIC_QUEUES));
        let condition = broker.condition();
        assert!(condition.contains(&format!("of group g{groups}")), "{condition}");
        assert!(condition.contains("to clients at 10.0.0.1"), "{condition}");
        assert_eq!(lock_at(groups + 1, other).await, keys.len(), "others have room");
        assert_eq!(lock_at(0, greedy).await, keys.len(), "what it has it keeps");
        // What is given up, of a group that is deleted, or renewed from elsewhere, is not its any more.
        broker.unlock_queues(&group_name("g0"), "a@0", &keys).await;
        broker.reader_gone(1, "a@1").await;
        node.handle(Request::DeleteGroup(group_name("g1"))).await.expect("it has locks");
        broker.end_locks().await;
        assert_eq!(lock_at(2, other).await, keys.len());
        for (number, room) in [(groups, keys.len()), (groups + 2, keys.len()), (groups + 3, 0)] {
            assert_eq!(lock_at(number, greedy).await, room, "group {number}");
        }
    });
    ran.expect("a healthy disk");
}

#[test]
fn what_cannot_be_stored_in_time_is_not_granted() {
    let (disk, setup) = disk();
    let ran = on_node(&disk, &setup, 1, async |node| {
        let topic = create(node, "t", 2).await;
        joins(node, "a@1", "g").await;
        let (kept, key) = (queue(topic, 0), queue(topic, 1));
        assert_eq!(lock(node, "a@1", &[kept]).await, [kept]);
        node.broker().stop();
        let begun = node.clock.monotonic();
        assert_eq!(lock(node, "a@1", &[kept, key]).await, [kept], "what it has it keeps");
        assert!(node.clock.monotonic().since(begun) < Duration::from_millis(800));
    });
    ran.expect("a healthy disk");
}

/// Who has each queue, as far as that was answered and nothing was asked since that may change it; and since when.
type Books = Rc<RefCell<BTreeMap<QueueKey, (&'static str, u64)>>>;

fn run(disk: &FaultyDisk, script: &Script) -> BTreeMap<QueueKey, (&'static str, u64)> {
    let books = Books::default();
    run_until_crash(disk, script.seed, async |executor| play(disk, script, &books, executor).await);
    books.take()
}

/// The workload on a disk that keeps what it is given.
pub fn calm(disk: &FaultyDisk, seed: u64) {
    run(disk, &Script::small(seed));
}

async fn play(disk: &FaultyDisk, script: &Script, books: &Books, executor: &SeededExecutor) {
    for run in 0..2 {
        let node = Node::start(disk, &script.setup, executor.shared_clock(), &executor.spawner()).await;
        let Ok(node) = node else { return };
        if run == 0 {
            let made = create_topic(&node, "t", QUEUES).await;
            let bulk = script.large_batches > 0 && create_topic(&node, "bulk", 1).await.is_err();
            if made.is_err() || bulk {
                return;
            }
        }
        // A lease begins with the start.
        books.borrow_mut().values_mut().for_each(|(_, since)| *since = node.clock.now().0);
        let mut random = Random::new(script.seed * 10 + run);
        for client in CLIENTS {
            joins(&node, client, "g").await;
        }
        for turn in 0..24 {
            act(&node, books, &mut random).await;
            if turn == 12 {
                let _ = node.broker().take_snapshot().await;
                fill(&node, script.large_batches, run).await;
            }
        }
        node.stop().await;
    }
}

async fn act(node: &Node, books: &Books, random: &mut Random) {
    let client = *random.pick(&CLIENTS);
    let Some(key) = key_of(node, "t").await else { return };
    let all = (0..QUEUES).map(|queue| QueueKey { queue: QueueNumber(queue), ..key });
    let keys: Vec<_> = all.filter(|_| random.chance(0.6)).collect();
    let now = node.clock.now().0;
    if random.chance(0.7) {
        // What somebody else has had for a lease may be given away from here on.
        let is_sure = |holder: &str, since: u64| holder == client || now < since + LEASE.as_millis() as u64;
        books.borrow_mut().retain(|key, (holder, since)| !keys.contains(key) || is_sure(holder, *since));
        for key in lock(node, client, &keys).await {
            let before = books.borrow_mut().insert(key, (client, now));
            let is_taken = before.is_some_and(|(holder, since)| {
                holder != client && node.clock.now().0 < since + LEASE.as_millis() as u64
            });
            assert!(!is_taken, "{client} gets {key}, which {before:?} has");
        }
    } else if random.chance(0.6) {
        books.borrow_mut().retain(|key, (holder, _)| !keys.contains(key) || *holder != client);
        unlock(node, client, &keys).await;
    } else {
        let pause = if random.chance(0.2) { LEASE.as_millis() as u64 } else { random.range(0..40) };
        node.clock.sleep(Duration::from_millis(pause)).await;
        let now = node.clock.now().0;
        books.borrow_mut().retain(|_, (_, since)| now < *since + LEASE.as_millis() as u64);
        end_locks(node).await;
    }
}

/// Makes segments come and go.
async fn fill(node: &Node, batches: u64, run: u64) {
    let bulk = super::workload::Books::default();
    let Some(key) = key_of(node, "bulk").await else { return };
    for number in 0..batches {
        if run > 0 || produce_sized(node, &bulk, key, None, number, 3_900_000).await.is_err() {
            return;
        }
    }
}

/// Whoever was told that it has a queue has it, and nobody else gets it before a lease after the start.
async fn watch(node: &Node, books: &BTreeMap<QueueKey, (&'static str, u64)>, label: &str) {
    joins(node, "c@1", "g").await;
    let keys: Vec<_> = books.keys().copied().collect();
    assert_eq!(lock(node, "c@1", &keys).await, [], "{label}: {books:?}");
    for client in CLIENTS {
        let own: Vec<_> =
            books.iter().filter(|(_, (holder, _))| *holder == client).map(|(key, _)| *key).collect();
        let has: BTreeSet<_> = lock(node, client, &keys).await.into_iter().collect();
        assert_eq!(has, own.into_iter().collect(), "{label}: {client}: {books:?}");
    }
}

fn check(disk: &FaultyDisk, script: &Script, books: &BTreeMap<QueueKey, (&'static str, u64)>, label: &str) {
    let bare = disk.outcome(Restart::ProcessKill, 2);
    remove_derived(&bare, &script.setup);
    let lost = disk.outcome(Restart::PowerLoss(Survival::Nothing), 1);
    for (disk, how) in [(disk, "started"), (&lost, "again"), (&bare, "from the log alone")] {
        let label = format!("{label}, {how}");
        let seen = on_node(disk, &script.setup, 1, async |node| watch(node, books, &label).await);
        seen.unwrap_or_else(|error| panic!("{label}: does not start: {error}"));
    }
}

fn sweep(script: &Script, plan: &FaultPlan, sample: usize) {
    let calm = FaultyDisk::new(script.seed, plan.clone());
    assert!(!run(&calm, script).is_empty(), "seed {}: somebody has something at the end", script.seed);
    let run = |disk: &FaultyDisk| run(disk, script);
    crashes((script.seed, plan), calm.step_count(), sample, run, |outcome, books, _, label| {
        check(outcome, script, books, label);
    });
}

#[test]
fn a_crash_at_any_step_takes_no_queue_from_whom_it_was_given() {
    sweep(&Script::small(1), &FaultPlan::none(), 23);
}

#[test]
fn a_crash_of_two_shards_takes_no_queue_from_whom_it_was_given() {
    let setup = Setup { shard_count: 2, ..Setup::default() };
    sweep(&Script { setup, ..Script::small(2) }, &FaultPlan::reordered(), 47);
}

#[test]
fn a_crash_takes_no_queue_from_anybody_while_segments_come_and_go() {
    sweep(&Script { large_batches: 9, ..Script::small(3) }, &FaultPlan::none(), 149);
}

#[test]
fn errors_of_the_log_take_no_queue_from_whom_it_was_given() {
    let run = |disk: &FaultyDisk, number| (Script::small(number), run(disk, &Script::small(number)));
    log_errors(&[2, 4, 6, 9, 13], run, |outcome, (script, books), _, label| {
        check(outcome, script, books, label);
    });
}
