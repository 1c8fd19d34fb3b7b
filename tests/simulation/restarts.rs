//! Restarts of which each once lost something.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use turbopump::api::{Reply, Request};
use turbopump::disk::DiskError;
use turbopump::disk::faulty::{FaultPlan, FaultyDisk, Restart};
use turbopump::log::{Known, Lost, Replay, scan, segment_name};
use turbopump::state::{Change, decode_changes};
use turbopump::types::{Level, LogPosition, QueueKey, QueueNumber, QueueOffset, ShardId};
use turbopump::wire::batch::{BatchHeader, Kind, state_payload};

use super::checks::{check_ledger, remove_derived};
use super::ledger::Ledger;
use super::node::{Node, Setup, log_directory, on_node};
use super::workload::{Books, create, delete, produce, produce_sized};

const DURABLE: Option<Level> = Some(Level::Durable);

fn fork(disk: &FaultyDisk) -> FaultyDisk {
    disk.outcome(Restart::ProcessKill, 9)
}

async fn key(node: &Node, books: &Books, name: &str, queue: u32) -> QueueKey {
    let topic = create(node, books, name, queue + 1).await.expect("a topic").id;
    QueueKey { topic, queue: QueueNumber(queue) }
}

async fn fill(node: &Node, books: &Books, key: QueueKey, count: u64) {
    for number in 0..count {
        produce_sized(node, books, key, DURABLE, number, 3_900_000).await.expect("a healthy disk");
    }
}

fn check(disk: &FaultyDisk, setup: &Setup, books: &Books, label: &str) {
    let ledger: Ledger = books.borrow().clone();
    let checked = on_node(disk, setup, 5, async |node| {
        check_ledger(node, &ledger, Level::Durable, label).await;
    });
    checked.unwrap_or_else(|error| panic!("{label}: {error}"));
}

#[test]
fn a_wall_clock_set_back_over_a_restart_does_no_harm() {
    let (disk, setup) = (FaultyDisk::new(1, FaultPlan::none()), Setup::default());
    let books: Books = Rc::new(RefCell::default());
    let first = on_node(&disk, &setup, 1, async |node| {
        let key = key(node, &books, "t", 0).await;
        node.clock.sleep(Duration::from_secs(3600)).await;
        produce(node, &books, key, DURABLE, 1, 100).await.expect("a healthy disk");
        key
    });
    let key = first.expect("an empty disk");
    // Every executor's clock starts at the same time, an hour before the last message.
    let second = on_node(&disk, &setup, 2, async |node| {
        produce(node, &books, key, DURABLE, 2, 100).await.expect("a healthy disk");
    });
    second.expect("a healthy disk");
    check(&fork(&disk), &setup, &books, "with a snapshot");
    remove_derived(&disk, &setup);
    check(&disk, &setup, &books, "from the log alone");
}

#[test]
fn segments_of_an_earlier_run_are_retired() {
    let (disk, setup) = (FaultyDisk::new(2, FaultPlan::none()), Setup::default());
    let books: Books = Rc::new(RefCell::default());
    let first = on_node(&disk, &setup, 1, async |node| {
        let key = key(node, &books, "t", 0).await;
        fill(node, &books, key, 17).await;
        node.clock.sleep(Duration::from_secs(3)).await;
        node.broker().log().segments().len()
    });
    assert!(first.expect("an empty disk") >= 4);
    let setup = Setup { retention_bytes: Some(2 * setup.segment_bytes), ..setup };
    let second = on_node(&disk, &setup, 2, async |node| {
        node.clock.sleep(Duration::from_secs(10)).await;
        let segments = node.broker().log().segments();
        assert!(segments.iter().all(|segment| segment.newest.is_some()), "{segments:?}");
        segments.len()
    });
    assert!(second.expect("a healthy disk") <= 2);
}

#[test]
fn a_queue_whose_messages_are_retired_does_not_begin_again() {
    let disk = FaultyDisk::new(3, FaultPlan::none());
    let plain = Setup::default();
    let setup = Setup { retention_bytes: Some(2 * plain.segment_bytes), ..plain };
    let books: Books = Rc::new(RefCell::default());
    let first = on_node(&disk, &setup, 1, async |node| {
        let quiet = key(node, &books, "quiet", 0).await;
        let busy = key(node, &books, "busy", 0).await;
        let produced = produce(node, &books, quiet, DURABLE, 1, 100).await.expect("a healthy disk");
        let end = node.owner(quiet).index().bounds(quiet).expect("a queue").1;
        assert!(end > produced.base_offset);
        for _ in 0..4 {
            fill(node, &books, busy, 4).await;
            node.clock.sleep(Duration::from_secs(3)).await;
        }
        assert!(node.broker().log().first_position().0 > 0, "nothing was retired");
        (quiet, end)
    });
    let (quiet, end) = first.expect("an empty disk");
    for bare in [false, true] {
        let disk = fork(&disk);
        if bare {
            remove_derived(&disk, &setup);
        }
        let seen = on_node(&disk, &setup, 2, async |node| {
            assert_eq!(node.owner(quiet).index().bounds(quiet), Some((end, end)), "bare: {bare}");
            produce(node, &books, quiet, DURABLE, 2, 100).await.expect("a healthy disk").base_offset
        });
        assert_eq!(seen.expect("a healthy disk"), end, "bare: {bare}");
        books.borrow_mut().queues.get_mut(&quiet).expect("it is known").pop();
    }
    assert!(end > QueueOffset::ZERO);
}

#[test]
fn a_damaged_manifest_block_loses_nothing() {
    let (disk, setup) = (FaultyDisk::new(4, FaultPlan::none()), Setup::default());
    let books: Books = Rc::new(RefCell::default());
    let first = on_node(&disk, &setup, 1, async |node| {
        let key = key(node, &books, "t", 0).await;
        produce(node, &books, key, DURABLE, 1, 100).await.expect("a healthy disk");
        key
    });
    let key = first.expect("an empty disk");
    for run in 2..5 {
        let started = on_node(&disk, &setup, run, async |node| {
            produce(node, &books, key, DURABLE, run, 100).await.expect("a healthy disk");
        });
        started.expect("a healthy disk");
        for block in [0, 4096] {
            let harmed = fork(&disk);
            harmed.flip_bit(&log_directory(0).join("manifest"), block + 16, 3);
            check(&fork(&harmed), &setup, &books, &format!("run {run}, block {block}"));
            remove_derived(&harmed, &setup);
            check(&harmed, &setup, &books, &format!("run {run}, block {block}, from the log alone"));
        }
    }
}

/// Positions of the state batches that say that a topic is gone, with those that list the live ones.
#[derive(Default)]
struct Removals {
    removed: Vec<LogPosition>,
    live: Vec<LogPosition>,
}

impl Replay for Removals {
    fn restart(&mut self) {}

    fn whole(&mut self, header: &BatchHeader, bytes: &[u8]) {
        if header.kind == Kind::State {
            for change in decode_changes(state_payload(bytes)).expect("this release wrote it") {
                match change {
                    Change::TopicRemoved(_) => self.removed.push(header.position),
                    Change::LiveTopics(_) => self.live.push(header.position),
                    _ => {}
                }
            }
        }
    }

    fn harmed(&mut self, _: &BatchHeader) {}

    fn lost(&mut self, _: Lost) {}

    async fn settle(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}

#[test]
fn damage_to_the_removal_of_a_topic_does_not_bring_it_back() {
    let (disk, setup) = (FaultyDisk::new(5, FaultPlan::none()), Setup::default());
    let books: Books = Rc::new(RefCell::default());
    let made = on_node(&disk, &setup, 1, async |node| {
        let doomed = key(node, &books, "doomed", 0).await;
        let kept = key(node, &books, "kept", 0).await;
        for key in [doomed, kept] {
            produce(node, &books, key, DURABLE, 1, 100).await.expect("a healthy disk");
        }
        // The checkpoint of the first segment comes before.
        node.clock.sleep(Duration::from_secs(2)).await;
        delete(node, &books, "doomed").await.expect("a healthy disk");
        produce(node, &books, kept, DURABLE, 2, 100).await.expect("a healthy disk");
        let early = fork(&disk);
        fill(node, &books, kept, 5).await;
        node.clock.sleep(Duration::from_secs(2)).await;
        produce(node, &books, kept, DURABLE, 3, 100).await.expect("a healthy disk");
        (early, kept)
    });
    let (early, kept) = made.expect("an empty disk");
    for (disk, both) in [(&early, false), (&disk, false), (&disk, true)] {
        let mut removals = Removals::default();
        futures_lite::future::block_on(scan(
            disk,
            &log_directory(0),
            &Known::nothing(ShardId(0), 1),
            &mut removals,
        ))
        .expect("a log");
        let removal = removals.removed[0];
        let again =
            removals.live.iter().copied().find(|position| *position > removal).expect("it is said again");
        for byte in [20, 92] {
            let harmed = fork(disk);
            let hit = if both { vec![removal, again] } else { vec![removal] };
            for position in hit {
                let file = log_directory(0).join(segment_name(LogPosition::ZERO));
                harmed.flip_bit(&file, position.0 + byte, 2);
            }
            remove_derived(&harmed, &setup);
            let label = format!("both {both}, byte {byte}");
            let seen = on_node(&harmed, &setup, 3, async |node| {
                assert!(!node.reports[0].damage.is_empty(), "{label}: the damage was not met");
                (node.handle(Request::ListTopics).await, super::checks::live_queues(node))
            });
            let (topics, queues) = seen.unwrap_or_else(|error| panic!("{label}: {error}"));
            let Ok(Reply::Topics(topics)) = topics else { panic!("{label}: {topics:?}") };
            let names: Vec<_> = topics.iter().map(|info| info.topic.as_str()).collect();
            assert_eq!((&names[..], &queues[..]), (&["kept"][..], &[kept][..]), "{label}");
        }
    }
}
