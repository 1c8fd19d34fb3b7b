//! Receiving: leases, acknowledgements, order and dead letters, over restarts.

use std::time::Duration;

use bytes::Bytes;
use futures_lite::future::zip;
use turbopump::api::{
    Acknowledge, ChangeLease, ClientProtocol, CommitOffset, Filter, GroupInfo, GroupQueueInfo, GroupSettings,
    Produce, ReceiptOutcome, Receive, ReceiveScope, ReceivedMessage, Reply, Request, Status,
};
use turbopump::broker::Recipient;
use turbopump::disk::faulty::{FaultPlan, FaultyDisk, Restart};
use turbopump::limits;
use turbopump::types::{QueueKey, QueueNumber, QueueOffset, Receipt, ShardId, Timestamp, TopicId};
use turbopump::wire::batch::BatchBuilder;
use turbopump::wire::record::{Record, RecordView};

use super::checks::remove_derived;
use super::held::{delay, number_of};
use super::node::{Node, Setup, group_name, on_node, topic_change, topic_name};

pub const SECOND: Duration = Duration::from_secs(1);

pub async fn create(node: &Node, name: &str, queues: u32) -> TopicId {
    match node.handle(Request::CreateTopic(topic_change(name, queues))).await.expect("a healthy disk") {
        Reply::Topic(info) => info.id,
        other => panic!("{other:?}"),
    }
}

/// One message a batch, named by its body.
pub async fn publish(node: &Node, topic: TopicId, queue: u32, tag: &str, body: &str) {
    let mut builder = BatchBuilder::new(node.clock.now());
    builder.push(&Record { tag: tag.as_bytes(), body: body.as_bytes(), ..Record::default() });
    let key = QueueKey { topic, queue: QueueNumber(queue) };
    let produce = Produce { key, level: None, batch: Bytes::from(builder.finish()) };
    node.handle(Request::Produce(produce)).await.expect("a healthy disk");
}

pub fn receive(count: u32) -> Receive {
    Receive {
        group: group_name("g"),
        topic: topic_name("t"),
        scope: Default::default(),
        filter: Filter::default(),
        count,
        bytes_max: limits::RECEIVE_BYTES_MAX as u32,
        wait: Duration::ZERO,
        lease: Some(10 * SECOND),
        ordered: false,
        protocol: ClientProtocol::Http,
    }
}

pub async fn received(node: &Node, receive: Receive) -> Vec<ReceivedMessage> {
    match node.handle(Request::Receive(receive)).await.expect("a healthy disk") {
        Reply::Received(messages) => messages,
        other => panic!("{other:?}"),
    }
}

pub async fn acknowledge(node: &Node, receipts: &[Receipt]) -> Vec<ReceiptOutcome> {
    let request = Acknowledge { group: group_name("g"), receipts: receipts.to_vec() };
    match node.handle(Request::Acknowledge(request)).await.expect("a healthy disk") {
        Reply::Acknowledged(outcomes) => outcomes,
        other => panic!("{other:?}"),
    }
}

pub async fn described(node: &Node, group: &str) -> GroupInfo {
    match node.handle(Request::DescribeGroup(group_name(group))).await.expect("it exists") {
        Reply::Group(info) => info,
        other => panic!("{other:?}"),
    }
}

pub fn body(message: &ReceivedMessage) -> String {
    let (record, _) = RecordView::cut(&message.record).expect("a stored record");
    String::from_utf8(record.body().to_vec()).expect("text")
}

pub fn bodies(messages: &[ReceivedMessage]) -> Vec<String> {
    messages.iter().map(body).collect()
}

pub fn receipts(messages: &[ReceivedMessage]) -> Vec<Receipt> {
    messages.iter().map(|message| message.receipt).collect()
}

pub fn disk() -> (FaultyDisk, Setup) {
    (FaultyDisk::new(1, FaultPlan::none()), Setup::default())
}

pub fn killed(disk: &FaultyDisk) -> FaultyDisk {
    disk.outcome(Restart::ProcessKill, 9)
}

#[test]
fn a_message_comes_again_when_its_lease_has_ended_and_never_when_acknowledged() {
    let (disk, setup) = disk();
    let ran = on_node(&disk, &setup, 1, async |node| {
        let topic = create(node, "t", 2).await;
        for number in 0..4 {
            publish(node, topic, number % 2, "", &format!("m{number}")).await;
        }
        let first = received(node, receive(3)).await;
        assert_eq!(first.len(), 3);
        assert!(first.iter().all(|message| message.deliveries == 1));
        assert_eq!(received(node, receive(16)).await.len(), 1, "only what is left");
        assert!(received(node, receive(16)).await.is_empty(), "all are leased");
        let taken = receipts(&first);
        assert_eq!(acknowledge(node, &taken[..1]).await, [ReceiptOutcome::Acknowledged]);
        let outcomes = acknowledge(node, &taken).await;
        use ReceiptOutcome::{Acknowledged, NotLeased, NothingOpen};
        assert_eq!(outcomes, [NothingOpen, Acknowledged, Acknowledged], "used once");
        node.clock.sleep(10 * SECOND).await;
        let again = received(node, receive(16)).await;
        assert_eq!(again.len(), 1);
        assert_eq!(again[0].deliveries, 2);
        assert!(again[0].receipt.leased_at > again[0].first_delivery);
        node.clock.sleep(10 * SECOND).await;
        let late = acknowledge(node, &receipts(&again)).await;
        assert_eq!(late, [NotLeased], "its lease has ended");
        assert_eq!(received(node, receive(16)).await[0].deliveries, 3);
    });
    ran.expect("an empty disk");
}

#[test]
fn leases_and_acknowledgements_survive_a_kill() {
    let (disk, setup) = disk();
    let first = on_node(&disk, &setup, 1, async |node| {
        let topic = create(node, "t", 1).await;
        for number in 0..100 {
            publish(node, topic, 0, "", &format!("m{number}")).await;
        }
        let messages = received(node, receive(20)).await;
        acknowledge(node, &receipts(&messages)[5..15]).await;
        (messages, killed(&disk))
    });
    let (messages, killed_disk) = first.expect("an empty disk");
    for bare in [false, true] {
        let disk = killed(&killed_disk);
        if bare {
            remove_derived(&disk, &setup);
        }
        let ran = on_node(&disk, &setup, 2, async |node| {
            let next = received(node, receive(32)).await;
            assert_eq!(body(&next[0]), "m20", "what is leased stays leased, bare: {bare}");
            let old = &receipts(&messages)[..5];
            assert_eq!(acknowledge(node, old).await, vec![ReceiptOutcome::Acknowledged; 5]);
            node.clock.sleep(20 * SECOND).await;
            let again = received(node, receive(32)).await;
            let mut expected: Vec<_> = (15..20).map(|number| format!("m{number}")).collect();
            expected.extend((20..47).map(|number| format!("m{number}")));
            assert_eq!(bodies(&again), expected, "bare: {bare}");
            assert!(again.iter().all(|message| message.deliveries == 2));
            node.clock.sleep(3 * SECOND).await;
        });
        ran.expect("a healthy disk");
    }
}

#[test]
fn a_queue_in_order_gives_the_same_again_and_nothing_else() {
    let (disk, setup) = disk();
    let ran = on_node(&disk, &setup, 1, async |node| {
        let topic = create(node, "t", 1).await;
        for number in 0..6 {
            publish(node, topic, 0, "", &format!("m{number}")).await;
        }
        let ordered = |count| Receive { ordered: true, ..receive(count) };
        let first = received(node, ordered(3)).await;
        assert_eq!(bodies(&first), ["m0", "m1", "m2"]);
        assert!(received(node, ordered(3)).await.is_empty(), "the queue is taken");
        acknowledge(node, &receipts(&first)[..1]).await;
        assert!(received(node, ordered(3)).await.is_empty(), "not all are acknowledged");
        node.clock.sleep(10 * SECOND).await;
        let again = received(node, ordered(3)).await;
        assert_eq!(bodies(&again), ["m1", "m2"]);
        acknowledge(node, &receipts(&again)).await;
        assert_eq!(bodies(&received(node, ordered(3)).await), ["m3", "m4", "m5"]);
    });
    ran.expect("an empty disk");
}

#[test]
fn a_filter_passes_over_what_it_excludes() {
    let (disk, setup) = disk();
    let ran = on_node(&disk, &setup, 1, async |node| {
        let topic = create(node, "t", 1).await;
        for number in 0..30 {
            let tag = ["a", "b", ""][number % 3];
            publish(node, topic, 0, tag, &format!("m{number}")).await;
        }
        let of = |expression: &str| Receive { filter: Filter::parse(Some(expression)), ..receive(4) };
        assert_eq!(bodies(&received(node, of("b || c")).await), ["m1", "m4", "m7", "m10"]);
        assert!(received(node, of("nothing")).await.is_empty(), "it went to the end");
        publish(node, topic, 0, "b", "last").await;
        assert_eq!(bodies(&received(node, of("b")).await), ["last"], "the group has moved on");
    });
    ran.expect("an empty disk");
}

#[test]
fn what_is_delivered_too_often_goes_to_the_dead_letters() {
    let (disk, setup) = disk();
    let ran = on_node(&disk, &setup, 1, async |node| {
        let topic = create(node, "t", 1).await;
        let settings = GroupSettings {
            group: group_name("g"),
            deliveries_max: Some(2),
            lease: None,
            ordered_lease: None,
        };
        node.handle(Request::AlterGroup(settings)).await.expect("a healthy disk");
        publish(node, topic, 0, "a", "poison").await;
        publish(node, topic, 0, "a", "good").await;
        for round in 0..2 {
            let messages = received(node, receive(2)).await;
            assert_eq!(messages[0].deliveries, round + 1);
            if round == 0 {
                acknowledge(node, &receipts(&messages)[1..]).await;
            }
            node.clock.sleep(10 * SECOND).await;
        }
        assert!(received(node, receive(2)).await.is_empty());
        node.clock.sleep(SECOND).await;
        let dead = Receive { topic: topic_name("%DLQ%g"), group: group_name("other"), ..receive(2) };
        let dead = received(node, dead).await;
        assert_eq!(bodies(&dead), ["poison"]);
        let (record, _) = RecordView::cut(&dead[0].record).expect("a stored record");
        let properties = String::from_utf8_lossy(record.properties()).into_owned();
        assert!(properties.contains("DLQ_ORIGIN_TOPIC\u{1}t\u{2}"), "{properties:?}");
        assert_eq!(record.tag(), b"a");
    });
    ran.expect("an empty disk");
}

#[test]
fn a_lease_can_be_moved_and_a_commit_takes_the_place_of_leases() {
    let (disk, setup) = disk();
    let ran = on_node(&disk, &setup, 1, async |node| {
        let topic = create(node, "t", 1).await;
        for number in 0..3 {
            publish(node, topic, 0, "", &format!("m{number}")).await;
        }
        let messages = received(node, receive(3)).await;
        let change =
            ChangeLease { group: group_name("g"), receipt: messages[1].receipt, lease: Duration::ZERO };
        node.handle(Request::ChangeLease(change)).await.expect("it is leased");
        let again = received(node, receive(3)).await;
        assert_eq!((bodies(&again), again[0].deliveries), (vec!["m1".to_owned()], 2));
        let key = QueueKey { topic, queue: QueueNumber(0) };
        let place = Request::CommittedOffset { group: group_name("g"), key };
        assert_eq!(node.handle(place.clone()).await, Ok(Reply::Offset(Some(QueueOffset(0)))));
        let commit = Request::CommitOffset(CommitOffset {
            group: group_name("g"),
            key,
            offset: QueueOffset(2),
            member: None,
        });
        node.handle(commit).await.expect("a healthy disk");
        assert_eq!(node.handle(place).await, Ok(Reply::Offset(Some(QueueOffset(2)))));
        assert_eq!(bodies(&received(node, receive(3)).await), ["m2"]);
        assert_eq!(acknowledge(node, &receipts(&again)).await, [ReceiptOutcome::NothingOpen]);
    });
    ran.expect("an empty disk");
}

#[test]
fn a_receive_waits_for_any_shard() {
    let disk = FaultyDisk::new(1, FaultPlan::none());
    let setup = Setup { shard_count: 3, ..Setup::default() };
    let ran = on_node(&disk, &setup, 1, async |node| {
        let topic = create(node, "t", 3).await;
        for queue in 0..3 {
            let begun = node.clock.monotonic();
            let waiting = received(node, Receive { wait: 30 * SECOND, ..receive(16) });
            let later = async {
                node.clock.sleep(5 * SECOND).await;
                publish(node, topic, queue, "", "news").await;
            };
            let (messages, ()) = futures_lite::future::zip(waiting, later).await;
            assert_eq!(bodies(&messages), ["news"], "queue {queue}");
            let waited = node.clock.monotonic().since(begun);
            assert!((5 * SECOND..6 * SECOND).contains(&waited), "{waited:?} for queue {queue}");
            if queue < 2 {
                assert_eq!(acknowledge(node, &receipts(&messages)).await, [ReceiptOutcome::Acknowledged]);
            }
        }
        // The last one was not acknowledged: the end of its lease ends the wait as well.
        let begun = node.clock.monotonic();
        let messages = received(node, Receive { wait: 30 * SECOND, ..receive(16) }).await;
        assert_eq!(messages[0].deliveries, 2);
        let waited = node.clock.monotonic().since(begun);
        assert!((9 * SECOND..12 * SECOND).contains(&waited), "{waited:?}");
        let begun = node.clock.monotonic();
        let nothing = received(node, Receive { wait: 3 * SECOND, ..receive(16) }).await;
        assert!(nothing.is_empty());
        assert!(node.clock.monotonic().since(begun) >= 3 * SECOND);
    });
    ran.expect("an empty disk");
}

#[test]
fn receivers_at_once_get_every_message_once() {
    let disk = FaultyDisk::new(1, FaultPlan { yields_max: 8, ..FaultPlan::none() });
    let setup = Setup { shard_count: 2, ..Setup::default() };
    let ran = on_node(&disk, &setup, 7, async |node| {
        let topic = create(node, "t", 4).await;
        for number in 0..200 {
            publish(node, topic, number % 4, "", &format!("m{number}")).await;
        }
    });
    ran.expect("an empty disk");
    // After a restart messages come from the disk, so that receivers meet while they wait for it.
    let ran = on_node(&disk, &setup, 8, async |node| {
        let receivers = (0..8).map(|_| async {
            let mut mine = Vec::new();
            for _ in 0..200 {
                let messages = received(node, receive(7)).await;
                if messages.is_empty() {
                    node.clock.sleep(Duration::from_millis(1)).await;
                    continue;
                }
                let outcomes = acknowledge(node, &receipts(&messages)).await;
                assert!(outcomes.iter().all(|outcome| *outcome == ReceiptOutcome::Acknowledged));
                mine.extend(bodies(&messages));
            }
            mine
        });
        let mut all: Vec<_> = futures_util::future::join_all(receivers).await.into_iter().flatten().collect();
        all.sort();
        let mut expected: Vec<_> = (0..200).map(|number| format!("m{number}")).collect();
        expected.sort();
        assert_eq!(all, expected);
    });
    ran.expect("a disk that works");
}

#[test]
fn an_answer_has_a_bound_in_bytes_and_at_least_one_message() {
    let disk = FaultyDisk::new(1, FaultPlan::none());
    let ran = on_node(&disk, &Setup { shard_count: 2, ..Setup::default() }, 1, async |node| {
        let topic = create(node, "t", 2).await;
        for (number, bytes) in [(0, 1000), (2, 1000), (4, 1000), (6, 9000), (8, 10), (1, 1000)] {
            publish(node, topic, number % 2, "", &number.to_string().repeat(bytes)).await;
        }
        let bounded = |bytes_max| Receive { bytes_max, ..receive(16) };
        let mut lengths: Vec<Vec<usize>> = Vec::new();
        for _ in 0..5 {
            let messages = received(node, bounded(2500)).await;
            lengths.push(messages.iter().map(|message| body(message).len()).collect());
        }
        lengths.sort();
        assert_eq!(lengths, [vec![10], vec![1000], vec![1000], vec![1000, 1000], vec![9000]]);
        // The same when they come again, from one queue or several.
        node.clock.sleep(10 * SECOND).await;
        let again = received(node, bounded(1)).await;
        assert_eq!(again.len(), 1);
        let mut rest = 0;
        while rest < 5 {
            let messages = received(node, bounded(2500)).await;
            let bytes: usize = messages.iter().map(|message| message.record.len()).sum();
            assert!(messages.len() == 1 || bytes <= 2500, "{bytes}");
            assert!(messages.iter().all(|message| message.deliveries == 2));
            rest += messages.len();
        }
        assert!(received(node, bounded(2500)).await.is_empty());
    });
    ran.expect("an empty disk");
}

/// Receivers that meet at a queue while its messages are read. One of them once unlocked the queue for another, and a third
/// got the same messages: in order as well, where nobody may get anything while another has some.
#[test]
fn receivers_that_meet_at_a_queue_do_not_get_the_same_messages() {
    for seed in 0..20 {
        let disk = FaultyDisk::new(seed, FaultPlan::reordered());
        let setup = Setup::default();
        let first = on_node(&disk, &setup, seed, async |node| {
            let topic = create(node, "t", 1).await;
            for number in 0..40 {
                publish(node, topic, 0, "", &format!("m{number}")).await;
            }
        });
        first.expect("an empty disk");
        // After a restart nothing is in memory: while one reads from the disk, others come.
        let second = on_node(&disk, &setup, seed, async |node| {
            for ordered in [false, true] {
                let group = group_name(if ordered { "ordered" } else { "any" });
                let receivers = (0..6).map(|_| async {
                    let receive = Receive { group: group.clone(), ordered, ..receive(8) };
                    bodies(&received(node, receive).await)
                });
                let all = futures_util::future::join_all(receivers).await.concat();
                let mut once = all.clone();
                once.sort();
                once.dedup();
                assert_eq!(once.len(), all.len(), "seed {seed}, ordered: {ordered}: {all:?}");
                assert!(!ordered || all.len() <= 8, "seed {seed}: {all:?}");
            }
        });
        second.expect("a healthy disk");
    }
}

/// Over every queue of a group.
fn total(group: &GroupInfo, count: fn(&GroupQueueInfo) -> u64) -> u64 {
    group.queues.iter().map(count).sum()
}

async fn group_names(node: &Node) -> Vec<String> {
    match node.handle(Request::ListGroups).await.expect("a healthy disk") {
        Reply::Groups(groups) => groups.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_group_is_described_by_whatever_is_known_of_it() {
    let (disk, _) = disk();
    let setup = Setup { shard_count: 2, ..Setup::default() };
    let settings = |group: &str| GroupSettings {
        group: group_name(group),
        deliveries_max: Some(1),
        lease: None,
        ordered_lease: None,
    };
    let ran = on_node(&disk, &setup, 1, async |node| {
        let topic = create(node, "t", 4).await;
        for number in 0..8 {
            publish(node, topic, number % 4, "", &format!("m{number}")).await;
        }
        for group in ["set", "one-shot"] {
            node.handle(Request::AlterGroup(settings(group))).await.expect("a healthy disk");
        }
        let messages = received(node, receive(3)).await;
        acknowledge(node, &receipts(&messages)[..1]).await;
        let one_shot =
            Receive { group: group_name("one-shot"), scope: Some(QueueNumber(1)).into(), ..receive(2) };
        assert_eq!(received(node, one_shot).await.len(), 2);
        let info = described(node, "g").await;
        assert_eq!((info.queues.len(), info.receivers.len(), info.members.len()), (4, 1, 1));
        assert_eq!(info.receivers[0].protocol, ClientProtocol::Http);
        assert_eq!((total(&info, |queue| queue.leased), total(&info, |queue| queue.waiting)), (2, 0));
        assert_eq!(total(&info, |queue| queue.lag), 7, "all but the one that was acknowledged");
        node.clock.sleep(11 * SECOND).await;
        let info = described(node, "g").await;
        assert_eq!((total(&info, |queue| queue.leased), total(&info, |queue| queue.waiting)), (0, 2));
        assert_eq!(total(&info, |queue| queue.lag), 7);
        let info = described(node, "one-shot").await;
        assert_eq!((total(&info, |queue| queue.dead_letters), total(&info, |queue| queue.lag)), (2, 6));
        assert_eq!(info.settings, Some(settings("one-shot")));
        let info = described(node, "set").await;
        assert_eq!((info.settings, info.queues.len(), info.members.len()), (Some(settings("set")), 0, 0));
        assert_eq!(group_names(node).await, ["g", "one-shot", "set"]);
        let unknown = node.handle(Request::DescribeGroup(group_name("nobody"))).await;
        assert_eq!(unknown.expect_err("nothing is known of it").status, Status::GroupNotExist);
    });
    ran.expect("an empty disk");
    // Nobody receives any more: there is what is stored.
    let ran = on_node(&killed(&disk), &setup, 2, async |node| {
        assert_eq!(group_names(node).await, ["g", "one-shot", "set"]);
        let info = described(node, "g").await;
        assert_eq!((info.members.len(), info.receivers.len()), (0, 0));
        assert_eq!(total(&info, |queue| queue.leased + queue.waiting), 2);
        assert_eq!(total(&info, |queue| queue.lag), 7, "{info:?}");
        assert_eq!(total(&described(node, "one-shot").await, |queue| queue.dead_letters), 2);
    });
    ran.expect("a disk of ours");
}

#[test]
fn who_only_waits_makes_a_group_as_well() {
    let (disk, setup) = disk();
    let ran = on_node(&disk, &setup, 1, async |node| {
        create(node, "t", 2).await;
        let waiting = received(node, Receive { wait: 5 * SECOND, ..receive(1) });
        let looking = async {
            node.clock.sleep(SECOND).await;
            let info = described(node, "g").await;
            assert_eq!((info.receivers[0].active, info.queues.len()), (1, 2));
            assert_eq!(group_names(node).await, ["g"]);
        };
        futures_lite::future::zip(waiting, looking).await;
        node.clock.sleep(31 * SECOND).await;
        assert_eq!(group_names(node).await, [""; 0], "it is as if it had never been");
    });
    ran.expect("an empty disk");
}

#[test]
fn a_lease_begins_no_earlier_than_its_message_is_due() {
    const SEEDS: u64 = 8;
    const DELAYED: u64 = 100;
    let mut delayed = 0;
    for seed in 0..SEEDS {
        let disk = FaultyDisk::new(seed, FaultPlan::none());
        let ran = on_node(&disk, &Setup::default(), seed, async |node| {
            disk.set_clock(node.clock.clone());
            let topic = create(node, "t", 1).await;
            let key = QueueKey { topic, queue: QueueNumber(0) };
            // Not in memory any more when their leases end: a receive reads them first, and what is new afterwards.
            for _ in 0..8 {
                publish(node, topic, 0, "", &"x".repeat(50_000)).await;
            }
            let others = create(node, "others", 1).await;
            publish(node, others, 0, "", &"x".repeat(2_000_000)).await;
            let lease = Some(SECOND);
            assert_eq!(received(node, Receive { lease, ..receive(32) }).await.len(), 8);
            let start = node.clock.now().0;
            let due = |number| start + 2_000 + 37 * number;
            for number in 0..DELAYED {
                delay(node, key, number, Timestamp(due(number))).await;
            }
            disk.set_plan(FaultPlan { latency_max: Duration::from_millis(40), ..FaultPlan::none() });
            let mut seen = Vec::new();
            while node.clock.now().0 < due(DELAYED) + 1_000 {
                let mut taken = received(node, Receive { lease, ..receive(32) }).await;
                taken.retain(|message| body(message).len() == 8);
                if !taken.is_empty() {
                    acknowledge(node, &receipts(&taken)).await;
                }
                let number = |message| number_of(body(message).as_bytes());
                seen.extend(taken.iter().map(|message| (message.receipt.leased_at.0, due(number(message)))));
                node.clock.sleep(Duration::from_millis(1)).await;
            }
            seen
        });
        let seen = ran.expect("an empty disk");
        delayed += seen.len();
        assert!(seen.iter().all(|(leased_at, due)| leased_at >= due), "seed {seed}: {seen:?}");
    }
    assert_eq!(delayed as u64, SEEDS * DELAYED);
}

/// Two that wait for room in the log, one to acknowledge a message and one to keep its lease. The second has once brought
/// back what the first had been told was done.
#[test]
fn an_acknowledged_message_is_not_leased_anew_by_whoever_waited_for_room_meanwhile() {
    let mut acknowledged = 0;
    for seed in 0..40 {
        let (disk, setup) = disk();
        let ran = on_node(&disk, &setup, seed, async |node| {
            let topic = create(node, "t", 1).await;
            publish(node, topic, 0, "", "m").await;
            let receipt = received(node, receive(1)).await[0].receipt;
            // A group of its own, which takes nothing more.
            let text = "x".repeat(3_900_000);
            let large = publish(node, topic, 0, "", &text);
            let ending = async { acknowledge(node, &[receipt]).await[0] };
            let change = ChangeLease { group: group_name("g"), receipt, lease: 20 * SECOND };
            let keeping = async { node.handle(Request::ChangeLease(change)).await.map_err(|f| f.status) };
            let (outcome, kept) = if seed % 2 == 0 {
                zip(large, zip(ending, keeping)).await.1
            } else {
                let ((), (kept, outcome)) = zip(large, zip(keeping, ending)).await;
                (outcome, kept)
            };
            assert_eq!(kept.is_err(), outcome == ReceiptOutcome::Acknowledged, "seed {seed}: one of them");
            node.clock.sleep(30 * SECOND).await;
            let again = received(node, Receive { bytes_max: 100, ..receive(1) }).await;
            let is_small = again.first().is_some_and(|message| message.record.len() < 1000);
            assert_eq!(is_small, outcome != ReceiptOutcome::Acknowledged, "seed {seed}: {outcome:?}");
            u32::from(outcome == ReceiptOutcome::Acknowledged)
        });
        acknowledged += ran.expect("an empty disk");
    }
    assert!((5..36).contains(&acknowledged), "both come first: {acknowledged} of 40");
}

#[test]
fn an_acknowledgement_that_waited_until_its_lease_had_ended_counts_no_more() {
    let (disk, setup) = disk();
    let ran = on_node(&disk, &setup, 3, async |node| {
        let topic = create(node, "t", 1).await;
        publish(node, topic, 0, "", "m").await;
        let lease = Some(SECOND);
        let receipt = received(node, Receive { lease, ..receive(1) }).await[0].receipt;
        // Every step of the disk takes longer than what is left of the lease.
        disk.set_clock(node.clock.clone());
        disk.set_plan(FaultPlan { latency_max: 60 * SECOND, ..FaultPlan::none() });
        let text = "x".repeat(3_900_000);
        let large = || publish(node, topic, 0, "", &text);
        let receipts = [receipt];
        // The first is written while the second fills the next group, and the third the one after.
        let ending = async {
            let outcomes = acknowledge(node, &receipts).await;
            (outcomes, node.clock.monotonic())
        };
        let begun = node.clock.monotonic();
        let waiting = zip(zip(large(), large()), zip(large(), ending));
        let (_, ((), (outcomes, ended))) = waiting.await;
        assert!(ended.since(begun) > SECOND, "the disk was to be slow");
        assert_eq!(outcomes, [ReceiptOutcome::NotLeased]);
        disk.set_plan(FaultPlan::none());
        let again = received(node, Receive { bytes_max: 100, ..receive(1) }).await;
        assert_eq!((bodies(&again), again[0].deliveries), (vec!["m".to_owned()], 2));
    });
    ran.expect("an empty disk");
}

/// A call that leaves while messages are chosen for it.
struct Leaving;

impl Recipient for Leaving {
    type Reservation = ();

    async fn reserve(&self) -> Option<()> {
        Some(())
    }

    async fn gone(&self) {
        std::future::pending().await
    }

    fn is_here(&self) -> bool {
        false
    }
}

/// What a call was leased that is not there any more is back at once, from whichever shard it came, and the delivery that was
/// none does not count.
#[test]
fn what_cannot_be_handed_over_is_given_back_at_once() {
    let (disk, setup) =
        (FaultyDisk::new(44, FaultPlan::none()), Setup { shard_count: 2, ..Setup::default() });
    let ran = on_node(&disk, &setup, 1, async |node| {
        let topic = create(node, "t", 4).await;
        for number in 0..4 {
            publish(node, topic, number, "", &format!("m{number}")).await;
        }
        for _ in 0..5 {
            for shard in 0..2 {
                let of_shard = Receive { scope: ReceiveScope::Shard(ShardId(shard)), ..receive(16) };
                let left = node.brokers[0].handle_for(Request::Receive(of_shard), &Leaving).await;
                assert_eq!(left, Ok(Reply::Received(Vec::new())), "to nobody");
            }
        }
        let mut messages = received(node, receive(16)).await;
        messages.extend(received(node, receive(16)).await);
        assert_eq!(messages.len(), 4, "all are there");
        assert!(messages.iter().all(|message| message.deliveries == 1), "{messages:?}");
        assert_eq!(acknowledge(node, &receipts(&messages)).await, [ReceiptOutcome::Acknowledged; 4]);
    });
    ran.expect("an empty disk");
}

/// Anywhere, one shard, one queue: what is asked for is looked for there, waited for there, and refused when it is not there.
#[test]
fn a_receive_has_a_scope() {
    let (disk, setup) =
        (FaultyDisk::new(45, FaultPlan::none()), Setup { shard_count: 2, ..Setup::default() });
    let ran = on_node(&disk, &setup, 1, async |node| {
        let topic = create(node, "t", 4).await;
        let scoped = |scope| Receive { scope, ..receive(16) };
        let shard = |shard| scoped(ReceiveScope::Shard(ShardId(shard)));
        let queue = |queue| scoped(ReceiveScope::Queue(QueueNumber(queue)));
        for number in 0..4 {
            publish(node, topic, number, "", &format!("m{number}")).await;
        }
        assert_eq!(bodies(&received(node, queue(2)).await), ["m2"]);
        assert_eq!(bodies(&received(node, shard(0)).await), ["m0"]);
        assert!(received(node, shard(0)).await.is_empty(), "the others are of shard 1");
        let mut others = bodies(&received(node, shard(1)).await);
        others.sort();
        assert_eq!(others, ["m1", "m3"]);
        assert!(received(node, scoped(ReceiveScope::Anywhere)).await.is_empty());
        // A wait is for what is asked for.
        let wait = 20 * SECOND;
        for (scope, last) in [(ReceiveScope::Shard(ShardId(1)), 1), (ReceiveScope::Queue(QueueNumber(3)), 3)]
        {
            let begun = node.clock.monotonic();
            let waiting = received(node, Receive { wait, lease: Some(60 * SECOND), ..scoped(scope) });
            let coming = async {
                for number in [2, 0, last] {
                    node.clock.sleep(SECOND).await;
                    publish(node, topic, number, "", &format!("late{number}")).await;
                }
            };
            let (messages, ()) = zip(waiting, coming).await;
            assert_eq!(bodies(&messages), [format!("late{last}")]);
            let waited = node.clock.monotonic().since(begun);
            assert!((3 * SECOND..8 * SECOND).contains(&waited), "{waited:?}");
        }
        let refused = node.handle(Request::Receive(queue(4))).await.expect_err("there is none");
        assert_eq!(refused.status, Status::QueueNotExist);
        let refused = node.handle(Request::Receive(shard(2))).await.expect_err("there is none");
        assert_eq!(refused.status, Status::InvalidArgument);
    });
    ran.expect("an empty disk");
}
