//! A segment in the middle that somebody removed: told as damage wherever a reader meets it, and everything around it
//! stays readable. Only retention moves a queue's first offset.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_lite::future::block_on;
use turbopump::api::{
    ClientProtocol, Decision, Filter, FindMessages, Found, Produce, Receive, Reply, Request, Status,
};
use turbopump::broker::{ShardHome, repair_shard};
use turbopump::disk::Disk;
use turbopump::disk::faulty::{FaultPlan, FaultyDisk, Restart};
use turbopump::limits;
use turbopump::log::{Act, Known, scan, segment_name};
use turbopump::types::{
    HalfReceipt, Level, LogPosition, QueueKey, QueueNumber, QueueOffset, ShardId, Timestamp,
};
use turbopump::wire::batch::{BatchBuilder, BatchHeader, LogSecret, stored_records};
use turbopump::wire::record::{Record, RecordView};

use super::checks::{Nothing, remove_derived};
use super::held::{TOPIC, counter, create_topic, delay, end, half};
use super::node::{Node, Setup, group_name, log_directory, on_node, shard_directory, topic_name};

const SEGMENTS: u64 = 4;
/// Beyond all of them a message is released.
const LATER: Duration = Duration::from_secs(3600);

/// A log of whole segments, and what stands where.
struct Filled {
    disk: FaultyDisk,
    key: QueueKey,
    /// Position of each message, by its offset.
    positions: Vec<LogPosition>,
    /// A half in each segment.
    halves: Vec<HalfReceipt>,
}

impl Filled {
    /// Offsets of the messages in the second segment.
    fn lost(&self) -> BTreeSet<u64> {
        let holds = |position: &LogPosition| position.0 / segment_bytes() == 1;
        (0..).zip(&self.positions).filter(|(_, position)| holds(position)).map(|(offset, _)| offset).collect()
    }

    fn kept(&self) -> BTreeSet<u64> {
        let lost = self.lost();
        (0..self.positions.len() as u64).filter(|offset| !lost.contains(offset)).collect()
    }
}

fn segment_bytes() -> u64 {
    Setup::default().segment_bytes
}

fn missing_file() -> PathBuf {
    log_directory(0).join(segment_name(LogPosition(segment_bytes())))
}

async fn produce(node: &Node, key: QueueKey, number: u64) -> (QueueOffset, LogPosition) {
    let mut builder = BatchBuilder::new(Timestamp(1));
    let name = format!("key{number}");
    let body = vec![number as u8; 1_000_000];
    builder.push(&Record { key: name.as_bytes(), body: &body, ..Record::default() });
    let request = Produce { key, level: Some(Level::Durable), batch: builder.finish().into() };
    match node.handle(Request::Produce(request)).await {
        Ok(Reply::Produced(produced)) => (produced.base_offset, produced.position),
        other => panic!("not stored: {other:?}"),
    }
}

fn filled() -> Filled {
    let disk = FaultyDisk::new(1, FaultPlan::none());
    let made = on_node(&disk, &Setup::default(), 1, async |node| {
        let key = create_topic(node, TOPIC, 1).await.expect("an empty disk");
        let due = Timestamp(node.clock.now().0 + LATER.as_millis() as u64);
        let (mut positions, mut halves) = (Vec::new(), Vec::new());
        loop {
            let (offset, position) = produce(node, key, positions.len() as u64).await;
            assert_eq!(offset.0, positions.len() as u64);
            positions.push(position);
            let segment = position.0 / segment_bytes();
            if segment == SEGMENTS {
                break;
            }
            if segment == halves.len() as u64 {
                halves.push(half(node, key, 1000 + segment, Some("producers")).await);
                delay(node, key, 2000 + segment, due).await;
            }
        }
        // For the checkpoint of the last segment and the runs of keys.
        node.clock.sleep(Duration::from_secs(6)).await;
        (key, positions, halves)
    });
    let (key, positions, halves) = made.expect("an empty disk");
    Filled { disk, key, positions, halves }
}

/// A filled disk without its second segment, which the operator gives up; `bare` without index, keys and snapshots as well.
fn with_hole(filled: &Filled, bare: bool) -> FaultyDisk {
    let disk = filled.disk.outcome(Restart::ProcessKill, 1);
    if bare {
        remove_derived(&disk, &Setup::default());
    }
    block_on(async {
        disk.remove(&missing_file()).await.expect("a file that is there");
        disk.sync_directory(&log_directory(0)).await.expect("a directory");
        // As it is, no start takes it.
        let refused = on_node(&disk, &Setup::default(), 1, async |_| ());
        assert!(refused.is_err(), "a missing segment is no retention");
        let directory = shard_directory(0);
        let home = ShardHome { directory: &directory, shard: ShardId(0), shard_count: 1, is_made: true };
        repair_shard(&disk, &home, LogSecret(1), Act::Do).await.expect("it can be given up");
    });
    disk
}

/// Offsets that readers get, and how often they are told of damage.
async fn read(node: &Node, key: QueueKey, from: u64) -> (BTreeSet<u64>, usize) {
    let (mut offset, mut read, mut told) = (QueueOffset(from), BTreeSet::new(), 0);
    loop {
        let fetched = node.fetch(key, offset).await.expect("reads are served");
        assert_eq!(fetched.first_offset, QueueOffset::ZERO, "only retention moves the first offset");
        if offset == fetched.end_offset {
            return (read, told);
        }
        if let Some(damaged) = &fetched.damaged {
            assert_eq!(Path::new("/data").join(&damaged.file), missing_file());
            told += 1;
        }
        let mut rest = &fetched.batches[..];
        while !rest.is_empty() {
            let header = BatchHeader::decode(rest).expect("a whole batch");
            read.extend(header.base_offset.0..header.end_offset().0);
            rest = &rest[(header.batch_bytes as usize).next_multiple_of(8).min(rest.len())..];
        }
        assert!(fetched.next_offset > offset, "stuck at {offset}");
        offset = fetched.next_offset;
    }
}

async fn find(node: &Node, number: u64) -> Found {
    let find = FindMessages::Key {
        topic: topic_name(TOPIC),
        key: format!("key{number}"),
        count: limits::FIND_MESSAGES_MAX,
        from: Timestamp(0),
        to: Timestamp(u64::MAX),
        before: Vec::new(),
    };
    match node.handle(Request::FindMessages(find)).await {
        Ok(Reply::Found(found)) => found,
        other => panic!("found messages were asked for: {other:?}"),
    }
}

/// Offsets that a receiver gets.
async fn receive(node: &Node, key: QueueKey) -> BTreeSet<u64> {
    let mut received = BTreeSet::new();
    for _ in 0..200 {
        let request = Receive {
            group: group_name("receivers"),
            topic: topic_name(TOPIC),
            scope: Some(key.queue).into(),
            filter: Filter::default(),
            count: 4,
            bytes_max: limits::RECEIVE_BYTES_MAX as u32,
            wait: Duration::ZERO,
            lease: Some(LATER),
            ordered: false,
            protocol: ClientProtocol::Http,
        };
        match node.handle(Request::Receive(request)).await.expect("a healthy disk") {
            Reply::Received(messages) => received.extend(messages.iter().map(|one| one.receipt.offset.0)),
            other => panic!("{other:?}"),
        }
    }
    received
}

#[test]
fn a_missing_segment_is_damage_to_every_reader_and_hides_nothing_else() {
    let filled = filled();
    let (lost, kept) = (filled.lost(), filled.kept());
    let (first_lost, behind) = (*lost.first().expect("some"), *lost.last().expect("some") + 1);
    for bare in [false, true] {
        let disk = with_hole(&filled, bare);
        // The second start goes on from a snapshot.
        for start in 0..2 {
            let ran = on_node(&disk, &Setup::default(), start, async |node| {
                let label = format!("bare {bare}, start {start}");
                // The look that hid what comes before: into the hole.
                let middle = QueueOffset((first_lost + behind) / 2);
                let fetched = node.fetch(filled.key, middle).await.expect("it is answered");
                assert!(fetched.damaged.is_some(), "{label}: {fetched:?}");
                assert_eq!(fetched.next_offset, QueueOffset(behind), "{label}");
                let (read, told) = read(node, filled.key, 0).await;
                assert_eq!((read, told), (kept.clone(), 1), "{label}");
                if start == 0 {
                    assert_eq!(receive(node, filled.key).await, kept, "{label}");
                }
                let found = find(node, first_lost).await;
                assert!(found.messages.is_empty() && !found.complete, "{label}: {found:?}");
                for number in [0, first_lost - 1, behind] {
                    assert_eq!(find(node, number).await.messages.len(), 1, "{label}: key {number}");
                }
            });
            ran.unwrap_or_else(|error| panic!("bare {bare}: {error}"));
        }
    }
}

#[test]
fn held_messages_of_a_missing_segment_are_named_and_the_others_are_kept() {
    let filled = filled();
    let disk = with_hole(&filled, false);
    let ran = on_node(&disk, &Setup::default(), 1, async |node| {
        let commit = async |segment: usize| end(node, filled.halves[segment], Decision::Commit).await;
        assert_eq!(commit(1).await.expect_err("it is not there").status, Status::Damaged);
        commit(0).await.expect("the half is there");
        commit(2).await.expect("the half is there");
        node.clock.sleep(2 * LATER).await;
        assert_eq!(counter(node, "held_dropped"), 1, "one delayed message is gone");
        let mut bodies = BTreeSet::new();
        let mut offset = QueueOffset(filled.positions.len() as u64);
        loop {
            let fetched = node.fetch(filled.key, offset).await.expect("reads are served");
            if fetched.next_offset == offset {
                break;
            }
            let mut rest = &fetched.batches[..];
            while !rest.is_empty() {
                let header = BatchHeader::decode(rest).expect("a whole batch");
                let record = stored_records(rest).next().expect("a record");
                let (view, _) = RecordView::cut(record.as_bytes()).expect("a stored record");
                bodies.insert(u64::from_le_bytes(view.body().try_into().expect("a number")));
                rest = &rest[(header.batch_bytes as usize).next_multiple_of(8).min(rest.len())..];
            }
            offset = fetched.next_offset;
        }
        assert_eq!(bodies, BTreeSet::from([1000, 1002, 2000, 2002, 2003]));
    });
    ran.expect("it starts");
}

#[test]
fn the_check_of_the_log_names_each_missing_file() {
    let filled = filled();
    let disk = filled.disk.outcome(Restart::ProcessKill, 1);
    block_on(disk.remove(&missing_file())).expect("a file that is there");
    let also = log_directory(0).join(segment_name(LogPosition(2 * segment_bytes())));
    for files in [vec![missing_file()], vec![missing_file(), also.clone()]] {
        if files.len() == 2 {
            block_on(disk.remove(&also)).expect("a file that is there");
        }
        let report = block_on(scan(&disk, &log_directory(0), &Known::nothing(ShardId(0), 1), &mut Nothing))
            .expect("a log");
        let found: Vec<_> = report.damage.iter().map(|damage| (damage.file.clone(), damage.bytes)).collect();
        let wanted: Vec<_> = files.iter().map(|file| (file.display().to_string(), segment_bytes())).collect();
        assert_eq!(found, wanted);
    }
}

/// More topics than one batch of changes names, and none of them without a word: not from the index of the start that took them
/// over, and not from one that is built anew from the log.
#[test]
fn a_shard_that_was_given_up_tells_of_every_topic_whatever_index_it_has() {
    const TOPICS: usize = 1_100;
    let disk = FaultyDisk::new(1, FaultPlan::none());
    let setup = Setup { shard_count: 2, ..Setup::default() };
    let made = on_node(&disk, &setup, 1, async |node| {
        let mut keys = Vec::new();
        for number in 0..TOPICS {
            let key = create_topic(node, &format!("t{number}"), 2).await.expect("an empty disk");
            keys.push(QueueKey { queue: QueueNumber(1), ..key });
        }
        keys
    });
    let keys = made.expect("an empty disk");
    let directory = shard_directory(1);
    let files = disk.files().into_iter().map(|(path, _)| Path::new("/").join(path));
    for file in files.filter(|path| path.starts_with(&directory)) {
        block_on(disk.remove(&file)).expect("a file that is there");
    }
    let home = ShardHome { directory: &directory, shard: ShardId(1), shard_count: 2, is_made: true };
    block_on(repair_shard(&disk, &home, LogSecret(1), Act::Do)).expect("it can be given up");
    for round in 0..2 {
        let silent = on_node(&disk, &setup, 1, async |node| {
            let mut silent = 0;
            for key in &keys {
                let fetched = node.fetch(*key, QueueOffset::ZERO).await.expect("reads are served");
                silent += usize::from(fetched.damaged.is_none());
            }
            silent
        });
        assert_eq!(silent.expect("it starts"), 0, "round {round}: topics of which nobody is told");
        remove_derived(&disk, &setup);
    }
}
