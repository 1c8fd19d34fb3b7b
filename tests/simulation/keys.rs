//! Messages are found by their keys and ids, and by nothing else, whatever happens to the disk below.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use turbopump::api::{
    FindMessages, Found, FoundMessage, Hold, Produce, Produced, Release, Reply, Request, Status,
};
use turbopump::disk::Disk;
use turbopump::disk::faulty::{FaultPlan, FaultyDisk, Restart};
use turbopump::limits;
use turbopump::testing::Random;
use turbopump::types::{
    Account, Level, LogPosition, QueueKey, QueueNumber, QueueOffset, RecordLocation, ShardId, Timestamp,
    TopicId,
};
use turbopump::wire::batch::BatchBuilder;
use turbopump::wire::properties::{self, names};
use turbopump::wire::record::{Record, RecordView};

use super::node::{Node, Setup, on_node, shard_directory, topic_change, topic_name};
use super::sweep::{crashes, run_until_crash};

/// A message that was answered: what it can be found by, and where.
#[derive(Clone, Debug)]
struct Sent {
    keys: Vec<u64>,
    unique: u64,
    key: QueueKey,
    offset: QueueOffset,
    position: LogPosition,
    index: u16,
    store_time: Timestamp,
}

fn key_text(number: u64) -> String {
    format!("key{number}")
}

fn unique_text(number: u64) -> String {
    format!("{number:032X}")
}

async fn create(node: &Node, name: &str, queues: u32) -> TopicId {
    match node.handle(Request::CreateTopic(topic_change(name, queues))).await {
        Ok(Reply::Topic(info)) => info.id,
        other => panic!("no topic: {other:?}"),
    }
}

/// Sends a batch of messages with keys, without, and in between.
async fn send(
    node: &Node,
    key: QueueKey,
    random: &mut Random,
    next_unique: &mut u64,
) -> Result<Vec<Sent>, Status> {
    let mut builder = BatchBuilder::new(Timestamp(1));
    let mut sent = Vec::new();
    for index in 0..random.range(1..=6) as u16 {
        let keys: Vec<_> = (0..random.index(3)).map(|_| random.range(0..12)).collect();
        let texts: Vec<_> = keys.iter().map(|number| key_text(*number)).collect();
        let unique = *next_unique;
        *next_unique += 1;
        let mut text = Vec::new();
        properties::append(&mut text, b"colour", b"red").expect("it fits");
        properties::append(&mut text, names::UNIQUE_ID.as_bytes(), unique_text(unique).as_bytes())
            .expect("it fits");
        let body = random.bytes(40);
        builder.push(&Record {
            key: texts.join(" ").as_bytes(),
            properties: &text,
            body: &body,
            ..Record::default()
        });
        sent.push((keys, unique, index));
    }
    let produced = produce(node, key, builder.finish()).await?;
    Ok(sent
        .into_iter()
        .map(|(keys, unique, index)| Sent {
            keys,
            unique,
            key,
            offset: produced.base_offset.advance(u64::from(index)),
            position: produced.position,
            index,
            store_time: produced.store_time,
        })
        .collect())
}

async fn produce(node: &Node, key: QueueKey, batch: Vec<u8>) -> Result<Produced, Status> {
    let produce = Produce { key, level: Some(Level::Durable), batch: batch.into() };
    match node.handle(Request::Produce(produce)).await {
        Ok(Reply::Produced(produced)) => Ok(produced),
        Ok(other) => panic!("produced was asked for: {other:?}"),
        Err(failure) => Err(failure.status),
    }
}

async fn find(node: &Node, key: &str) -> Found {
    find_between(node, key, (Timestamp(0), Timestamp(u64::MAX))).await
}

async fn find_between(node: &Node, key: &str, (from, to): (Timestamp, Timestamp)) -> Found {
    let (topic, key) = (topic_name("orders"), key.to_owned());
    let before = Vec::new();
    let find = FindMessages::Key { topic, key, count: limits::FIND_MESSAGES_MAX, from, to, before };
    match node.handle(Request::FindMessages(find)).await {
        Ok(Reply::Found(found)) => found,
        other => panic!("found messages were asked for: {other:?}"),
    }
}

async fn find_at(node: &Node, shard: ShardId, location: RecordLocation) -> Vec<FoundMessage> {
    let find = FindMessages::Position { shard, position: location.position, index: location.index };
    match node.handle(Request::FindMessages(find)).await {
        Ok(Reply::Found(found)) => found.messages,
        other => panic!("a message was asked for: {other:?}"),
    }
}

fn locations(found: &[FoundMessage]) -> Vec<(ShardId, LogPosition, u16)> {
    let mut locations: Vec<_> =
        found.iter().map(|found| (found.shard, found.position, found.index)).collect();
    assert!(found.is_sorted_by(|one, other| one.store_time >= other.store_time), "newest first");
    locations.sort_unstable();
    locations
}

/// Every message is found by its id, its place and its keys, and no key finds another one.
async fn check_all(node: &Node, sent: &[Sent], label: &str) {
    let shards = node.brokers.len() as u16;
    for message in sent {
        let shard = message.key.queue.shard(shards);
        let found = find(node, &unique_text(message.unique)).await;
        assert!(found.complete, "{label}: the index has caught up");
        let [by_id] = &found.messages[..] else { panic!("{label}: {message:?} is found as {found:?}") };
        assert_eq!((by_id.key, by_id.offset, by_id.shard), (message.key, message.offset, shard), "{label}");
        assert_eq!((by_id.position, by_id.index), (message.position, message.index), "{label}");
        let (record, _) = RecordView::cut(&by_id.record).expect("a whole record");
        assert_eq!(
            properties::get(record.properties(), names::UNIQUE_ID),
            Some(unique_text(message.unique).as_bytes())
        );
        // An id holds the place in fewer bits.
        let location = RecordLocation { position: message.position, index: message.index };
        let named = RecordLocation::of_physical_offset(location.physical_offset()).expect("not negative");
        assert_eq!(find_at(node, shard, named).await, found.messages, "{label}");
    }
    for number in 0..13 {
        let of_key: Vec<_> = sent.iter().filter(|message| message.keys.contains(&number)).collect();
        let mut expected: Vec<_> = of_key
            .iter()
            .map(|message| (message.key.queue.shard(shards), message.position, message.index))
            .collect();
        expected.sort_unstable();
        for count in [7, limits::FIND_MESSAGES_MAX] {
            let found = find_pages(node, &key_text(number), count).await;
            assert_eq!(locations(&found), expected, "{label}: key {number}, {count} at once");
        }
    }
}

/// All messages of a key, page by page.
async fn find_pages(node: &Node, key: &str, count: u32) -> Vec<FoundMessage> {
    let (mut all, mut before) = (Vec::new(), Vec::new());
    loop {
        let find = FindMessages::Key {
            topic: topic_name("orders"),
            key: key.to_owned(),
            count,
            from: Timestamp(0),
            to: Timestamp(u64::MAX),
            before,
        };
        let found = match node.handle(Request::FindMessages(find)).await {
            Ok(Reply::Found(found)) => found,
            other => panic!("found messages were asked for: {other:?}"),
        };
        assert_eq!(found.complete, found.next.is_empty(), "the index has caught up");
        assert!(found.next.is_empty() || !found.messages.is_empty(), "a page goes further");
        all.extend(found.messages);
        if found.next.is_empty() {
            return all;
        }
        before = found.next;
    }
}

fn run_files(disk: &FaultyDisk, shard: u16) -> Vec<PathBuf> {
    let directory = shard_directory(shard).join("keys");
    let files = disk.files().into_iter().map(|(path, _)| PathBuf::from("/").join(path));
    files.filter(|path| path.starts_with(&directory)).collect()
}

/// A node with messages on both of its shards.
fn filled(disk: &FaultyDisk, setup: &Setup) -> (TopicId, Vec<Sent>) {
    let made = on_node(disk, setup, 1, async |node| {
        let topic = create(node, "orders", 4).await;
        let mut random = Random::new(1);
        let (mut sent, mut next) = (Vec::new(), 0);
        for round in 0..60 {
            let key = QueueKey { topic, queue: QueueNumber(round % 4) };
            sent.extend(send(node, key, &mut random, &mut next).await.expect("a healthy disk"));
            node.clock.sleep(Duration::from_millis(random.range(0..300))).await;
        }
        check_all(node, &sent, "at first").await;
        (topic, sent)
    });
    made.expect("an empty disk")
}

/// Each shard's answer may be as large as one message: so many are asked at once as have their room.
#[test]
fn a_look_up_asks_as_many_shards_at_once_as_there_is_room_for() {
    const SHARDS: u32 = 8;
    let disk = FaultyDisk::new(3, FaultPlan::none());
    let setup = Setup { shard_count: SHARDS as u16, ..Setup::default() };
    let ran = on_node(&disk, &setup, 3, async |node| {
        let topic = create(node, "orders", SHARDS).await;
        for queue in 0..SHARDS {
            let mut builder = BatchBuilder::new(Timestamp(1));
            builder.push(&Record { key: b"key1", body: &queue.to_le_bytes(), ..Record::default() });
            let key = QueueKey { topic, queue: QueueNumber(queue) };
            produce(node, key, builder.finish()).await.expect("a healthy disk");
        }
        let answers = node.broker().memory().budget(Account::Answers);
        assert!(answers.bytes_max() < 8 * limits::BATCH_BYTES_MAX, "there is no room for all of them");
        let found = find(node, "key1").await;
        assert_eq!((found.messages.len(), found.complete), (SHARDS as usize, true));
        let asked = node.look_ups_peak.take();
        assert!((2..8).contains(&asked), "{asked} were asked at once");
        assert!(answers.peak() >= (asked - 1) * limits::BATCH_BYTES_MAX, "{} bytes", answers.peak());
        assert_eq!(answers.bytes(), 0, "it is given back");
        // Others hold it all: one after the other, with the same outcome.
        let _held = answers.try_reserve(answers.bytes_max()).expect("nobody holds anything");
        assert_eq!(find(node, "key1").await, found);
        assert_eq!(node.look_ups_peak.get(), 1);
    });
    ran.expect("it starts");
}

#[test]
fn messages_are_found_over_restarts_and_without_the_index() {
    let disk = FaultyDisk::new(1, FaultPlan::none());
    let setup = Setup { shard_count: 2, ..Setup::default() };
    let (_, sent) = filled(&disk, &setup);
    let check = |label: &str| {
        on_node(&disk, &setup, 2, async |node| check_all(node, &sent, label).await).expect("it starts");
    };
    check("after a restart");
    check("after another");
    assert!(!run_files(&disk, 0).is_empty() && !run_files(&disk, 1).is_empty());
    futures_lite::future::block_on(async {
        for path in run_files(&disk, 0) {
            disk.remove(&path).await.expect("a healthy disk");
        }
    });
    check("with the files gone");
    // Bits that flip at rest are found, and what they were in is made again.
    for path in run_files(&disk, 0) {
        let bytes = disk.clean_bytes(&path).len() as u64;
        for block in 0..bytes / 4096 {
            disk.flip_bit(&path, block * 4096 + 40, 3);
        }
    }
    check("with damaged files");
    on_node(&disk, &setup, 2, async |node| {
        for broker in &node.brokers {
            assert_eq!(broker.metrics().key_runs_damaged.get(), 0, "the files are sound again");
        }
    })
    .expect("it starts");
    assert_eq!((disk.open_files(), disk.abandoned_calls()), (0, 0));
}

#[test]
fn a_look_up_keeps_to_its_times() {
    let disk = FaultyDisk::new(2, FaultPlan::none());
    let (_, sent) = filled(&disk, &Setup::default());
    on_node(&disk, &Setup::default(), 3, async |node| {
        let mut times: Vec<_> = sent.iter().map(|message| message.store_time).collect();
        times.sort_unstable();
        let (from, to) = (times[times.len() / 3], times[times.len() / 2]);
        for number in 0..12 {
            let found = find_between(node, &key_text(number), (from, to)).await;
            let expected = sent.iter().filter(|message| {
                message.keys.contains(&number) && (from..=to).contains(&message.store_time)
            });
            assert_eq!(found.messages.len(), expected.count(), "key {number}");
            assert!(found.messages.iter().all(|found| (from..=to).contains(&found.store_time)));
        }
    })
    .expect("it starts");
}

#[test]
fn what_no_consumer_can_read_is_not_found() {
    let disk = FaultyDisk::new(3, FaultPlan::none());
    let (topic, sent) = filled(&disk, &Setup::default());
    on_node(&disk, &Setup::default(), 4, async |node| {
        let key = QueueKey { topic, queue: QueueNumber(0) };
        let mut builder = BatchBuilder::new(Timestamp(1));
        builder.push(&Record { key: b"held", body: b"later", ..Record::default() });
        let release = Release::At(Timestamp(node.clock.now().0 + 3_600_000));
        let hold = Hold { key, level: None, batch: Bytes::from(builder.finish()), release };
        let placed = match node.handle(Request::Hold(hold)).await.expect("a healthy disk") {
            Reply::Held(placed) => placed,
            other => panic!("{other:?}"),
        };
        let location = |position, index| RecordLocation { position, index };
        assert_eq!(find_at(node, ShardId(0), location(placed.position, 0)).await, []);
        assert_eq!(
            find(node, "held").await,
            Found { messages: Vec::new(), complete: true, next: Vec::new() }
        );
        // Places where no record stands, and one that does not exist in its batch.
        let message = &sent[0];
        for (position, index) in [
            (message.position.0 + 8, 0),
            (message.position.0, 60_000),
            (message.position.0 + 3, 0),
            (0, 0),
            (u64::MAX / 2, 0),
        ] {
            assert_eq!(find_at(node, ShardId(0), location(LogPosition(position), index)).await, []);
        }
        let nowhere = FindMessages::Position { shard: ShardId(9), position: message.position, index: 0 };
        let refused = node.handle(Request::FindMessages(nowhere)).await.expect_err("no such shard");
        assert_eq!(refused.status, Status::InvalidArgument);
        node.handle(Request::DeleteTopic(topic_name("orders"))).await.expect("it is there");
        assert_eq!(find_at(node, ShardId(0), location(message.position, message.index)).await, []);
        // A new topic of the same name has none of the old one's messages.
        create(node, "orders", 4).await;
        assert_eq!(find(node, &unique_text(message.unique)).await.messages, []);
    })
    .expect("it starts");
}

#[test]
fn runs_go_with_their_segments() {
    let disk = FaultyDisk::new(4, FaultPlan::none());
    let segment_bytes = limits::SEGMENT_BYTES_MIN;
    let setup = Setup { retention_bytes: Some(2 * segment_bytes), ..Setup::default() };
    let made = on_node(&disk, &setup, 5, async |node| {
        let topic = create(node, "orders", 1).await;
        let key = QueueKey { topic, queue: QueueNumber(0) };
        let (mut random, mut next, mut sent) = (Random::new(4), 0, Vec::new());
        for _ in 0..6 {
            sent.extend(send(node, key, &mut random, &mut next).await.expect("a healthy disk"));
            for _ in 0..4 {
                let mut builder = BatchBuilder::new(Timestamp(1));
                builder.push(&Record { key: b"large", body: &vec![7; 3_900_000], ..Record::default() });
                produce(node, key, builder.finish()).await.expect("a healthy disk");
            }
            node.clock.sleep(Duration::from_secs(3)).await;
        }
        let first = node.broker().log().first_position();
        assert!(first > LogPosition::ZERO, "retention has removed a segment");
        let (gone, kept): (Vec<_>, Vec<_>) = sent.into_iter().partition(|sent| sent.position < first);
        assert!(!gone.is_empty() && !kept.is_empty());
        check_all(node, &kept, "what is kept").await;
        for message in &gone {
            assert_eq!(find(node, &unique_text(message.unique)).await.messages, []);
            let location = RecordLocation { position: message.position, index: message.index };
            assert_eq!(find_at(node, ShardId(0), location).await, []);
        }
        // Four mebibytes each: the first one found fills the answer.
        let large = find(node, "large").await;
        assert_eq!((large.messages.len(), large.complete), (1, false));
        (first, kept)
    });
    let (first, kept) = made.expect("an empty disk");
    let name = |path: &PathBuf| path.file_name().expect("a name").to_string_lossy()[..20].to_owned();
    let froms: Vec<u64> =
        run_files(&disk, 0).iter().map(|path| name(path).parse().expect("a position")).collect();
    assert!(!froms.is_empty() && froms.iter().all(|from| *from >= first.0), "{froms:?} below {first}");
    on_node(&disk, &setup, 6, async |node| check_all(node, &kept, "after a restart").await)
        .expect("it starts");
}

/// Sends until the power fails. Returns what was answered.
fn interrupted(disk: &FaultyDisk, seed: u64) -> Vec<Sent> {
    let answered = Rc::new(RefCell::new(Vec::new()));
    run_until_crash(disk, seed, async |executor| {
        let mut next = 0;
        for run in 0..2 {
            let started =
                Node::start(disk, &Setup::default(), executor.shared_clock(), &executor.spawner()).await;
            let Ok(node) = started else { return };
            let topic = match run {
                0 => create(&node, "orders", 2).await,
                _ => TopicId(1),
            };
            let mut random = Random::new(seed + run);
            for round in 0..6 {
                let key = QueueKey { topic, queue: QueueNumber(round % 2) };
                match send(&node, key, &mut random, &mut next).await {
                    Ok(sent) => answered.borrow_mut().extend(sent),
                    Err(_) => return,
                }
                node.clock.sleep(Duration::from_millis(random.range(0..250))).await;
            }
            node.stop().await;
        }
    });
    answered.take()
}

#[test]
fn a_crash_at_any_step_loses_no_key_of_a_durable_message() {
    let calm = FaultyDisk::new(7, FaultPlan::reordered());
    let all = interrupted(&calm, 7);
    assert!(all.len() > 30);
    let (plan, run) = (FaultPlan::reordered(), |disk: &FaultyDisk| interrupted(disk, 7));
    crashes((7, &plan), calm.step_count(), 13, run, |outcome, answered, _, label| {
        on_node(outcome, &Setup::default(), 1, async |node| {
            for message in answered {
                let found = find(node, &unique_text(message.unique)).await;
                assert!(found.complete, "{label}");
                let offsets: Vec<_> = found.messages.iter().map(|found| (found.key, found.offset)).collect();
                assert_eq!(offsets, [(message.key, message.offset)], "{label}");
            }
        })
        .unwrap_or_else(|error| panic!("{label}: {error}"));
    });
}

#[test]
fn a_disk_without_room_for_runs_costs_only_the_look_up() {
    use turbopump::disk::Operation;
    use turbopump::disk::faulty::{Fault, Rule, When};
    let rule = Rule {
        operation: Some(Operation::Preallocate),
        path_part: Some("keys".to_owned()),
        when: When::From(0),
        fault: Fault::Error(turbopump::disk::DiskErrorKind::NoSpace),
    };
    let disk = FaultyDisk::new(8, FaultPlan { rules: vec![rule], ..FaultPlan::none() });
    let (_, sent) = filled(&disk, &Setup::default());
    // The runs were never written, so a start begins anew.
    assert!(run_files(&disk, 0).is_empty());
    disk.set_plan(FaultPlan::none());
    let after = disk.outcome(Restart::ProcessKill, 0);
    on_node(&after, &Setup::default(), 9, async |node| check_all(node, &sent, "with room again").await)
        .expect("it starts");
}
