//! Delayed messages and transactions: what becomes visible, when, in which order, and once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use turbopump::api::{
    Decision, EndTransaction, Failure, HalfMessage, Held, Hold, ReaderClient, ReceiveHalves, Release, Reply,
    Request, Status,
};
use turbopump::disk::faulty::{FaultPlan, FaultyDisk, Restart};
use turbopump::limits;
use turbopump::log::segment_name;
use turbopump::testing::{Random, generators};
use turbopump::types::{HalfReceipt, Level, LogPosition, QueueKey, QueueNumber, QueueOffset, Timestamp};
use turbopump::wire::batch::{BATCH_HEADER_BYTES, BatchHeader, align_batch, stored_records};
use turbopump::wire::record::{RECORD_HEADER_BYTES, RecordView};

use super::checks::remove_derived;
use super::node::{Node, Setup, group_name, log_directory, on_node, topic_change, topic_name};

pub const TOPIC: &str = "later";
const HOUR: Duration = Duration::from_secs(3600);

pub fn disk(seed: u64) -> FaultyDisk {
    FaultyDisk::new(seed, FaultPlan::none())
}

pub async fn create_topic(node: &Node, name: &str, queues: u32) -> Result<QueueKey, Failure> {
    match node.handle(Request::CreateTopic(topic_change(name, queues))).await? {
        Reply::Topic(info) => Ok(QueueKey { topic: info.id, queue: QueueNumber(0) }),
        other => panic!("a topic was asked for: {other:?}"),
    }
}

/// A queue of a topic that is there.
pub async fn key_of(node: &Node, name: &str) -> Option<QueueKey> {
    match node.handle(Request::DescribeTopic(topic_name(name))).await {
        Ok(Reply::Topic(info)) => Some(QueueKey { topic: info.id, queue: QueueNumber(0) }),
        _ => None,
    }
}

pub async fn hold(
    node: &Node,
    key: QueueKey,
    level: Level,
    number: u64,
    release: Release,
) -> Result<Held, Failure> {
    let properties = format!("UNIQ_KEY\u{1}{number}\u{2}").into_bytes();
    let message =
        generators::Message { body: number.to_le_bytes().to_vec(), properties, ..Default::default() };
    let batch = generators::batch(&[message], Timestamp(1_000)).into();
    match node.handle(Request::Hold(Hold { key, level: Some(level), batch, release })).await? {
        Reply::Held(held) => Ok(held),
        other => panic!("a message was to be held: {other:?}"),
    }
}

pub async fn delay(node: &Node, key: QueueKey, number: u64, due: Timestamp) -> Held {
    hold(node, key, Level::Durable, number, Release::At(due)).await.expect("a healthy disk")
}

pub fn half_of(group: Option<&str>) -> Release {
    Release::Commit { producer_group: group.map(group_name), immunity: Duration::ZERO }
}

pub async fn half(node: &Node, key: QueueKey, number: u64, group: Option<&str>) -> HalfReceipt {
    hold(node, key, Level::Durable, number, half_of(group)).await.expect("a healthy disk").receipt
}

pub async fn end(node: &Node, receipt: HalfReceipt, decision: Decision) -> Result<(), Failure> {
    let end = EndTransaction { receipt, producer_group: None, decision };
    node.handle(Request::EndTransaction(end)).await.map(|_| ())
}

pub async fn receive(node: &Node, group: &str, wait: Duration) -> Result<Vec<HalfMessage>, Failure> {
    let (topic, producer_group) = (topic_name(TOPIC), group_name(group));
    let request = ReceiveHalves { topic, producer_group, count: 32, wait };
    match node.handle(Request::ReceiveHalves(request)).await? {
        Reply::Halves(halves) => Ok(halves),
        other => panic!("halves were asked for: {other:?}"),
    }
}

/// What a producer of a group is asked about in this time, that has come to the shard of a queue.
pub async fn asked(node: &Node, key: QueueKey, group: &str, time: Duration) -> Vec<HalfMessage> {
    let found = Rc::new(RefCell::new(Vec::new()));
    let (noted, broker) = (found.clone(), node.owner(key));
    broker.set_producer_notice(Rc::new(move |client, check| {
        assert_eq!((client, check.topic.as_str()), ("p@1", TOPIC));
        noted.borrow_mut().push(check.half.clone());
        true
    }));
    produces(node, key, &[group]);
    node.clock.sleep(time).await;
    produces(node, key, &[]);
    found.take()
}

/// A client says to the shard of a queue as which groups it produces.
pub fn produces(node: &Node, key: QueueKey, groups: &[&str]) {
    let produces = groups.iter().map(|group| group_name(group)).collect();
    let client = ReaderClient { language: "JAVA", version: 479, groups: Vec::new(), produces };
    node.owner(key).hear_reader(1, "p@1", "a:1", client).expect("there is room");
}

pub fn number_of(body: &[u8]) -> u64 {
    u64::from_le_bytes(body[..8].try_into().expect("a body of this test"))
}

/// Number and store time of every message of a queue.
pub async fn read(node: &Node, key: QueueKey) -> Vec<(u64, Timestamp)> {
    let mut found = Vec::new();
    let Some((mut offset, _)) = node.owner(key).index().bounds(key) else { return found };
    loop {
        let fetched = node.fetch(key, offset).await.expect("reads are served");
        assert_eq!(fetched.damaged, None);
        if fetched.next_offset == offset {
            return found;
        }
        let mut rest = &fetched.batches[..];
        while !rest.is_empty() {
            let header = BatchHeader::decode(rest).expect("a whole batch");
            for record in stored_records(&rest[..header.batch_bytes as usize]) {
                found.push((number_of(record.body()), header.store_time));
            }
            rest = &rest[(align_batch(u64::from(header.batch_bytes)) as usize).min(rest.len())..];
        }
        offset = fetched.next_offset;
    }
}

pub fn counter(node: &Node, name: &str) -> u64 {
    let of = |counters: Vec<(String, u64)>| counters.into_iter().find(|(found, _)| found == name);
    node.brokers.iter().filter_map(|broker| of(broker.metrics().counters())).map(|(_, count)| count).sum()
}

pub fn after(node: &Node, milliseconds: u64) -> Timestamp {
    Timestamp(node.clock.now().0 + milliseconds)
}

#[test]
fn delayed_messages_come_in_order_at_their_time_and_once() {
    let (disk, setup) = (disk(1), Setup::default());
    let mut random = Random::new(1);
    let mut expected: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    for run in 0..3u64 {
        let due = on_node(&disk, &setup, run, async |node| {
            let key = match key_of(node, TOPIC).await {
                Some(key) => key,
                None => create_topic(node, TOPIC, 1).await.expect("a healthy disk"),
            };
            // Every executor's clock starts at the same time.
            node.clock.sleep(Duration::from_secs(301 * run)).await;
            let mut held = BTreeMap::new();
            for number in 0..120 {
                let due = after(node, random.range(2_000..900_000));
                let number = run * 1_000 + number;
                let stored = delay(node, key, number, due).await;
                held.insert((due.0, stored.position.0), number);
                if number % 30 == 0 {
                    node.clock.sleep(Duration::from_millis(200)).await;
                }
            }
            assert!(run > 0 || read(node, key).await.is_empty(), "nothing is due yet");
            // In the middle of a bucket; the last run stays until all are due.
            let stay = if run == 2 { 2_000 } else { 300 };
            node.clock.sleep(Duration::from_secs(stay)).await;
            let found = read(node, key).await;
            let now = node.clock.now();
            (held, found, now)
        });
        let (held, found, now) = due.expect("a healthy disk");
        expected.extend(held);
        let numbers: Vec<_> = found.iter().map(|(number, _)| *number).collect();
        let mut unique = numbers.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), numbers.len(), "run {run}: each once");
        let due_by: BTreeMap<_, _> = expected.iter().map(|((due, _), number)| (*number, *due)).collect();
        for (number, store_time) in &found {
            assert!(store_time.0 >= due_by[number], "run {run}: {number} came early");
        }
        for (number, due) in &due_by {
            let is_due = *due + 10 <= now.0;
            assert!(!is_due || numbers.contains(number), "run {run}: {number} is late");
        }
        if run == 2 {
            assert_eq!(numbers.len(), expected.len());
        }
        assert!(found.is_sorted_by_key(|(number, _)| due_by[number]), "run {run}: out of order");
    }
}

#[test]
fn a_clock_that_was_set_back_makes_no_message_early_and_loses_none() {
    let (disk, setup) = (disk(9), Setup::default());
    let first = on_node(&disk, &setup, 1, async |node| {
        let key = create_topic(node, TOPIC, 1).await.expect("a healthy disk");
        node.clock.sleep(HOUR).await;
        delay(node, key, 1, after(node, 1_000)).await;
        delay(node, key, 2, after(node, 600_000)).await;
        node.clock.sleep(Duration::from_secs(2)).await;
        key
    });
    let key = first.expect("an empty disk");
    let second = on_node(&disk, &setup, 2, async |node| {
        delay(node, key, 3, after(node, 5_000)).await;
        let numbers =
            async || read(node, key).await.into_iter().map(|(number, _)| number).collect::<Vec<_>>();
        node.clock.sleep(Duration::from_secs(4)).await;
        assert_eq!(numbers().await, [1]);
        node.clock.sleep(Duration::from_secs(2)).await;
        assert_eq!(numbers().await, [1, 3], "not only when the clock has caught up");
        node.clock.sleep(HOUR).await;
        assert_eq!(numbers().await, [1, 3]);
        node.clock.sleep(HOUR).await;
        assert_eq!(numbers().await, [1, 3, 2]);
    });
    second.expect("a healthy disk");
}

#[test]
fn what_is_due_already_is_an_ordinary_message_and_what_is_too_far_ahead_is_refused() {
    let checked = on_node(&disk(2), &Setup::default(), 2, async |node| {
        let key = create_topic(node, TOPIC, 1).await.expect("a healthy disk");
        let now = node.clock.now();
        delay(node, key, 1, now).await;
        delay(node, key, 2, Timestamp(5)).await;
        let seen: Vec<_> = read(node, key).await.into_iter().map(|(number, _)| number).collect();
        assert_eq!(seen, [1, 2]);
        let far = Release::At(Timestamp(now.0 + limits::DELAY_MS_MAX + 1));
        let refused = hold(node, key, Level::Durable, 3, far).await.expect_err("too far");
        assert_eq!(refused.status, Status::InvalidArgument);
        let missing = QueueKey { queue: QueueNumber(9), ..key };
        let release = Release::At(after(node, 1000));
        let refused = hold(node, missing, Level::Durable, 3, release).await.expect_err("no such queue");
        assert_eq!(refused.status, Status::QueueNotExist);
    });
    checked.expect("an empty disk");
}

#[test]
fn delayed_messages_of_a_deleted_topic_are_dropped_and_hold_up_nobody() {
    let checked = on_node(&disk(3), &Setup::default(), 3, async |node| {
        let key = create_topic(node, TOPIC, 1).await.expect("a healthy disk");
        let gone = create_topic(node, "gone", 1).await.expect("a healthy disk");
        for number in 0..10 {
            let due = after(node, 1_000 + number);
            delay(node, if number % 2 == 0 { key } else { gone }, number, due).await;
        }
        node.handle(Request::DeleteTopic(topic_name("gone"))).await.expect("a healthy disk");
        node.clock.sleep(Duration::from_secs(2)).await;
        let seen: Vec<_> = read(node, key).await.into_iter().map(|(number, _)| number).collect();
        assert_eq!(seen, [0, 2, 4, 6, 8]);
        assert_eq!((counter(node, "held_released"), counter(node, "held_dropped")), (10, 5));
    });
    checked.expect("an empty disk");
}

async fn fill(node: &Node, count: u64, seed: u64, dues: std::ops::Range<u64>) -> QueueKey {
    let mut random = Random::new(seed);
    let key = create_topic(node, TOPIC, 1).await.expect("a healthy disk");
    for number in 0..count {
        let due = after(node, random.range(dues.clone()));
        hold(node, key, Level::Accepted, number, Release::At(due)).await.expect("a healthy disk");
    }
    node.clock.sleep(Duration::from_secs(7)).await;
    assert!(read(node, key).await.is_empty());
    key
}

#[test]
fn pending_messages_take_little_memory_wherever_their_times_lie() {
    let hour = HOUR.as_millis() as u64;
    for (dues, bytes_max) in [(hour..2 * hour, 12 << 20), (hour..limits::DELAY_MS_MAX, 24 << 20)] {
        let (disk, setup, count) = (disk(4), Setup::default(), 100_000);
        let memory = |node: &Node| node.broker().index().memory_bytes();
        let filled = on_node(&disk, &setup, 4, async |node| {
            fill(node, count, 4, dues.clone()).await;
            memory(node)
        });
        let filled = filled.expect("an empty disk");
        let again = on_node(&disk, &setup, 5, async |node| memory(node)).expect("a healthy disk");
        println!("{count} pending within {dues:?} ms: {filled} bytes of index, {again} after a restart");
        assert!(filled < bytes_max && again < bytes_max, "{filled} and {again} bytes of index");
    }
}

#[test]
fn a_hundred_thousand_messages_come_once_each_after_a_start_from_the_log_alone() {
    let (disk, setup, count) = (disk(8), Setup::default(), 100_000);
    let hour = HOUR.as_millis() as u64;
    let filled = on_node(&disk, &setup, 4, async |node| fill(node, count, 8, hour..2 * hour).await);
    let key = filled.expect("an empty disk");
    remove_derived(&disk, &setup);
    let seen = on_node(&disk, &setup, 5, async |node| {
        node.clock.sleep(3 * HOUR).await;
        let (_, end) = node.owner(key).index().bounds(key).expect("a queue");
        assert_eq!((end, counter(node, "held_released")), (QueueOffset(count), count), "each once");
        let mut seen: Vec<_> = read(node, key).await.into_iter().map(|(number, _)| number).collect();
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..count));
    });
    seen.expect("a healthy disk");
}

#[test]
fn a_commit_shows_the_message_and_a_rollback_never_does() {
    let (disk, setup) = (disk(5), Setup::default());
    let first = on_node(&disk, &setup, 5, async |node| {
        let key = create_topic(node, TOPIC, 1).await.expect("a healthy disk");
        let mut receipts = Vec::new();
        for number in 0..6 {
            receipts.push(half(node, key, number, Some("producers")).await);
        }
        assert!(read(node, key).await.is_empty());
        end(node, receipts[3], Decision::Commit).await.expect("a healthy disk");
        end(node, receipts[1], Decision::Rollback).await.expect("a healthy disk");
        let wrong = Some(group_name("others"));
        let decision = Decision::Commit;
        let ending = EndTransaction { receipt: receipts[0], producer_group: wrong, decision };
        let refused = node.handle(Request::EndTransaction(ending)).await.expect_err("another group's");
        assert_eq!(refused.status, Status::InvalidArgument);
        receipts
    });
    let receipts = first.expect("an empty disk");
    let second = on_node(&disk, &setup, 6, async |node| {
        let key = key_of(node, TOPIC).await.expect("the topic");
        for decided in [receipts[3], receipts[1], HalfReceipt { key, ..receipts[1] }] {
            let refused = end(node, decided, Decision::Commit).await.expect_err("decided before");
            assert_eq!(refused.status, Status::ReceiptExpired);
        }
        end(node, receipts[0], Decision::Commit).await.expect("a healthy disk");
        end(node, receipts[5], Decision::Rollback).await.expect("a healthy disk");
        let seen: Vec<_> = read(node, key).await.into_iter().map(|(number, _)| number).collect();
        assert_eq!(seen, [3, 0]);
        node.clock.sleep(Duration::from_secs(7)).await;
        let open = receive(node, "producers", Duration::ZERO).await.expect("a healthy disk");
        let open: Vec<_> = open.iter().map(|half| half.receipt).collect();
        assert_eq!(open, [receipts[2], receipts[4]]);
    });
    second.expect("a healthy disk");
}

#[test]
fn producers_are_asked_at_intervals_until_the_message_is_given_up() {
    let (disk, setup) = (disk(6), Setup { shard_count: 2, ..Setup::default() });
    let first = on_node(&disk, &setup, 6, async |node| {
        let key = create_topic(node, TOPIC, 2).await.expect("a healthy disk");
        let key = QueueKey { queue: QueueNumber(1), ..key };
        let started = node.clock.monotonic();
        let receipt = half(node, key, 77, Some("producers")).await;
        let none = receive(node, "others", Duration::from_secs(20)).await.expect("a healthy disk");
        assert!(none.is_empty());
        node.clock.sleep(Duration::ZERO).await;
        let waited = node.clock.monotonic().since(started);
        assert!(waited >= Duration::from_secs(20), "{waited:?}");
        let mut checks = 0;
        let early = half(node, key, 78, Some("producers")).await;
        while checks < 14 {
            let before = node.clock.monotonic();
            let found = receive(node, "producers", Duration::from_secs(60)).await.expect("a healthy disk");
            let waited = node.clock.monotonic().since(before);
            assert!(waited < Duration::from_secs(31), "{waited:?}");
            for half in &found {
                assert_eq!(number_of(RecordView::cut(&half.record).expect("a record").0.body()) & 76, 76);
                assert!(half.next_check.0 >= node.clock.now().0 + 29_000);
                if half.receipt == receipt {
                    checks += 1;
                    assert_eq!(half.checks, checks);
                } else {
                    assert_eq!(half.receipt, early);
                }
            }
        }
        end(node, early, Decision::Rollback).await.expect("a healthy disk");
        receipt
    });
    let receipt = first.expect("an empty disk");
    let second = on_node(&disk, &setup, 7, async |node| {
        // The clock has begun again.
        node.clock.sleep(HOUR).await;
        let found = receive(node, "producers", Duration::ZERO).await.expect("a healthy disk");
        let found: Vec<_> = found.iter().map(|half| (half.receipt, half.checks)).collect();
        assert_eq!(found, [(receipt, 15)]);
        node.clock.sleep(Duration::from_secs(40)).await;
        let found = receive(node, "producers", Duration::ZERO).await.expect("a healthy disk");
        assert!(found.is_empty(), "asked too often");
        let refused = end(node, receipt, Decision::Commit).await.expect_err("given up");
        assert_eq!(refused.status, Status::ReceiptExpired);
        let given_up = key_of(node, "TRANS_CHECK_MAX_TIME_TOPIC").await.expect("made on demand");
        let given_up = QueueKey { queue: QueueNumber(1), ..given_up };
        let seen: Vec<_> = read(node, given_up).await.into_iter().map(|(number, _)| number).collect();
        assert_eq!(seen, [77]);
    });
    second.expect("a healthy disk");
}

/// Producers that are connected are asked; while there is none, nobody is, and nothing is counted.
#[test]
fn producers_that_are_there_are_asked_until_their_checks_are_used_up() {
    let done = on_node(&disk(21), &Setup::default(), 1, async |node| {
        let key = create_topic(node, TOPIC, 1).await.expect("a healthy disk");
        let seconds = Duration::from_secs;
        half(node, key, 1, Some("p")).await;
        half(node, key, 2, Some("q")).await;
        let numbers = |halves: &[HalfMessage]| {
            let number = |half: &HalfMessage| {
                let record = RecordView::cut(&half.record).expect("a record").0;
                (number_of(record.body()), half.checks)
            };
            halves.iter().map(number).collect::<Vec<_>>()
        };
        assert_eq!(numbers(&asked(node, key, "p", seconds(5)).await), [], "not before its time");
        node.clock.sleep(seconds(100)).await;
        assert_eq!(counter(node, "transactions_checked"), 0, "nobody was there");
        assert_eq!(numbers(&asked(node, key, "p", seconds(1)).await), [(1, 1)], "at once");
        assert_eq!(numbers(&asked(node, key, "p", seconds(25)).await), [], "not before the interval is over");
        assert_eq!(numbers(&asked(node, key, "p", seconds(35)).await), [(1, 2), (1, 3)]);
        let rest = numbers(&asked(node, key, "p", seconds(500)).await);
        assert_eq!((rest.len(), rest.last()), (12, Some(&(1, 15))), "its checks are used up");
        assert_eq!(counter(node, "transactions_given_up"), 1);
        // Who does not take the question was not asked.
        node.owner(key).set_producer_notice(Rc::new(|_, _| false));
        produces(node, key, &["q"]);
        node.clock.sleep(seconds(100)).await;
        assert_eq!(counter(node, "transactions_checked"), 15);
        assert_eq!(numbers(&asked(node, key, "q", seconds(2)).await), [(2, 1)]);
    });
    done.expect("a healthy disk");
}

/// The task that gives halves up once heard of their last check up to ten seconds later, whatever the interval was.
#[test]
fn a_half_is_given_up_when_its_producer_would_have_been_asked_once_more() {
    let setup = Setup { check_interval: Duration::from_secs(1), ..Setup::default() };
    let done = on_node(&disk(22), &setup, 1, async |node| {
        let key = create_topic(node, TOPIC, 1).await.expect("a healthy disk");
        half(node, key, 1, Some("p")).await;
        let asked = asked(node, key, "p", Duration::from_millis(6_000 + 14 * 1_000 + 800)).await;
        let last = asked.last().expect("its producer was there");
        assert_eq!(last.checks, 15);
        let given_up_at = last.next_check;
        assert!(key_of(node, "TRANS_CHECK_MAX_TIME_TOPIC").await.is_none(), "not before that time");
        node.clock.sleep(Duration::from_millis(given_up_at.0 - node.clock.now().0 + 11_000)).await;
        let topic = key_of(node, "TRANS_CHECK_MAX_TIME_TOPIC").await.expect("made on demand");
        let found = read(node, topic).await;
        assert_eq!(found.len(), 1);
        let late = found[0].1.0.checked_sub(given_up_at.0).expect("not before its time");
        assert!(late <= 50, "{late} ms late");
    });
    done.expect("a healthy disk");
}

#[test]
fn a_half_that_nobody_asks_for_is_given_up_after_three_days() {
    let checked = on_node(&disk(7), &Setup::default(), 7, async |node| {
        let key = create_topic(node, TOPIC, 1).await.expect("a healthy disk");
        half(node, key, 5, None).await;
        node.clock.sleep(71 * HOUR).await;
        assert!(key_of(node, "TRANS_CHECK_MAX_TIME_TOPIC").await.is_none());
        node.clock.sleep(2 * HOUR).await;
        let given_up = key_of(node, "TRANS_CHECK_MAX_TIME_TOPIC").await.expect("made on demand");
        let fetched = node.fetch(given_up, QueueOffset::ZERO).await.expect("a healthy disk");
        let record = stored_records(&fetched.batches).next().expect("a message");
        assert_eq!(record.properties(), b"UNIQ_KEY\x015\x02REAL_TOPIC\x01later\x02REAL_QID\x010\x02");
        assert!(read(node, key).await.is_empty());
    });
    checked.expect("an empty disk");
}

#[test]
fn a_damaged_message_is_counted_and_holds_up_nobody() {
    let (disk, setup) = (disk(10), Setup::default());
    let first = on_node(&disk, &setup, 1, async |node| {
        let key = create_topic(node, TOPIC, 1).await.expect("a healthy disk");
        let mut places = Vec::new();
        for number in 0..6 {
            places.push(delay(node, key, number, after(node, 60_000 + number)).await.position);
        }
        let receipt = half(node, key, 9, None).await;
        // Without a batch after it, damage is not told from a tail that was cut off.
        delay(node, key, 6, after(node, 61_000)).await;
        (key, places, receipt)
    });
    let (key, places, receipt) = first.expect("an empty disk");
    let segment = log_directory(0).join(segment_name(LogPosition(0)));
    let in_body = (BATCH_HEADER_BYTES + RECORD_HEADER_BYTES) as u64 + 3;
    disk.flip_bit(&segment, places[2].0 + in_body, 1);
    disk.flip_bit(&segment, receipt.position.0 + in_body, 1);
    for bare in [false, true] {
        let disk = disk.outcome(Restart::ProcessKill, 1);
        if bare {
            remove_derived(&disk, &setup);
        }
        let second = on_node(&disk, &setup, 2, async |node| {
            node.clock.sleep(Duration::from_secs(70)).await;
            let seen: Vec<_> = read(node, key).await.into_iter().map(|(number, _)| number).collect();
            assert_eq!(seen, [0, 1, 3, 4, 5, 6], "bare: {bare}");
            assert_eq!((counter(node, "held_dropped"), counter(node, "held_released")), (1, 7));
            let found = receive(node, "anyone", Duration::ZERO).await.expect("a healthy disk");
            assert!(found.is_empty(), "nothing to show");
            let refused = end(node, receipt, Decision::Commit).await.expect_err("damaged");
            assert_eq!(refused.status, Status::Damaged);
            end(node, receipt, Decision::Rollback).await.expect("that needs no message");
        });
        second.expect("a healthy disk");
    }
}

#[test]
fn a_status_shows_how_late_messages_came() {
    let checked = on_node(&disk(11), &Setup::default(), 1, async |node| {
        let key = create_topic(node, TOPIC, 1).await.expect("a healthy disk");
        for number in 0..50 {
            delay(node, key, number, after(node, 1_000 + 17 * number)).await;
        }
        node.clock.sleep(Duration::from_secs(5)).await;
        let histograms = node.broker().metrics().histograms();
        let release = histograms.iter().find(|found| found.stage == "release").expect("a histogram");
        assert_eq!(release.count, 50);
        assert!(release.p99_ns <= 10_000_000, "{release:?}");
    });
    checked.expect("an empty disk");
}
