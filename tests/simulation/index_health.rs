//! An index whose files were damaged or removed: it is built anew from the log, and what a snapshot says of it is not
//! believed again.

use std::path::PathBuf;
use std::time::Duration;

use futures_lite::future::block_on;
use turbopump::api::{Release, Status};
use turbopump::disk::faulty::{FaultPlan, FaultyDisk, Restart, Rule, Survival, When};
use turbopump::disk::{Disk, DiskErrorKind, Operation};
use turbopump::types::{Level, QueueKey, QueueNumber, QueueOffset, Timestamp};

use super::held;
use super::node::{Node, Setup, on_node, shard_directory};
use super::workload::{Books, create, produce};

/// Several blocks of the index for each of two queues.
const BATCHES: u64 = 700;

fn index_file() -> PathBuf {
    shard_directory(0).join("index").join("0000000000.index")
}

fn filled() -> (FaultyDisk, [QueueKey; 2], Books) {
    filled_with(100)
}

fn filled_with(body_bytes_max: usize) -> (FaultyDisk, [QueueKey; 2], Books) {
    let disk = FaultyDisk::new(1, FaultPlan::none());
    let books = Books::default();
    let made = on_node(&disk, &Setup::default(), 1, async |node| {
        let topic = create(node, &books, "t", 2).await.expect("an empty disk").id;
        let keys = [0, 1].map(|queue| QueueKey { topic, queue: QueueNumber(queue) });
        for number in 0..2 * BATCHES {
            let level = if number % 100 == 99 { Level::Durable } else { Level::Accepted };
            produce(node, &books, keys[number as usize % 2], Some(level), number, body_bytes_max)
                .await
                .expect("healthy");
        }
        keys
    });
    (disk, made.expect("an empty disk"), books)
}

/// The bounds of a queue, and how many of its offsets are served.
async fn served(node: &Node, key: QueueKey) -> Result<(QueueOffset, QueueOffset, u64), Status> {
    let (first, end) = node.owner(key).index().bounds(key).expect("a queue");
    let (mut offset, mut count) = (first, 0);
    while offset < end {
        let fetched = node.fetch(key, offset).await.map_err(|failure| failure.status)?;
        assert_eq!(fetched.damaged, None);
        count += fetched.next_offset.0 - offset.0;
        offset = fetched.next_offset;
    }
    Ok((first, end, count))
}

/// What every start must show, and whether it built the index anew.
fn check_start(disk: &FaultyDisk, keys: [QueueKey; 2], expected: &[(QueueOffset, QueueOffset, u64)]) -> bool {
    let started = on_node(disk, &Setup::default(), 2, async |node| {
        for (key, expected) in keys.into_iter().zip(expected) {
            assert_eq!(served(node, key).await, Ok(*expected));
        }
        assert_eq!(node.broker().condition(), "");
        node.rebuilt[0].is_some()
    });
    started.expect("it starts")
}

fn expected(disk: &FaultyDisk, keys: [QueueKey; 2]) -> Vec<(QueueOffset, QueueOffset, u64)> {
    let disk = disk.outcome(Restart::ProcessKill, 1);
    let seen = on_node(&disk, &Setup::default(), 2, async |node| {
        let mut seen = Vec::new();
        for key in keys {
            seen.push(served(node, key).await.expect("a healthy index"));
        }
        seen
    });
    let seen = seen.expect("it starts");
    assert!(seen.iter().all(|(_, end, count)| end.0 == *count && *count >= BATCHES));
    seen
}

/// Flips a bit in the first block.
fn damage(disk: &FaultyDisk) {
    disk.flip_bit(&index_file(), 100, 3);
}

#[test]
fn an_index_that_is_found_damaged_is_built_anew_while_messages_come() {
    let (disk, keys, books) = filled();
    let expected = expected(&disk, keys);
    damage(&disk);
    let ran = on_node(&disk, &Setup::default(), 2, async |node| {
        assert_eq!(node.rebuilt[0], None, "nobody has looked at it");
        let mut met = 0;
        for key in keys {
            met += usize::from(served(node, key).await.is_err());
        }
        assert_eq!(met, 1, "one block is damaged");
        let state = node.broker().condition();
        assert!(state.contains("index") && state.contains("0000000000.index"), "{state}");
        let failure = node.fetch(keys[0], QueueOffset::ZERO).await;
        let failure =
            failure.err().or(node.fetch(keys[1], QueueOffset::ZERO).await.err()).expect("one of them");
        assert_eq!(failure.status, Status::Busy, "clients ask again: {failure:?}");
        assert!(failure.message.contains("index of shard 0 is damaged: a block of it: "), "{failure:?}");
        // What comes meanwhile is in the new one as well.
        for number in 0..60 {
            produce(node, &books, keys[number as usize % 2], Some(Level::Accepted), 9_000 + number, 100)
                .await
                .expect("messages are taken");
            node.clock.sleep(Duration::from_micros(300)).await;
        }
        node.clock.sleep(Duration::from_secs(10)).await;
        assert_eq!(node.broker().condition(), "");
        node.broker().index().verify().await.expect("nothing in it is damaged");
        let mut seen = Vec::new();
        for key in keys {
            seen.push(served(node, key).await.expect("a healthy index"));
        }
        for ((first, end, count), before) in seen.iter().zip(&expected) {
            assert_eq!((*first, *count), (before.0, end.0), "nothing is missing");
            assert!(*end > before.1);
        }
        seen
    });
    let seen = ran.expect("it starts");
    assert!(!check_start(&disk, keys, &seen), "the next start has nothing to build");
}

/// Of what is published while the last step goes over the log that step finds nothing there: it is noted, and carried out
/// before the new index is used. Messages of known and of new queues, changes of state, and messages that are held.
#[test]
fn what_comes_during_the_last_step_of_the_building_is_in_the_new_index() {
    // Some mebibytes of log: one step, which pauses after each.
    let (disk, keys, books) = filled_with(3_000);
    damage(&disk);
    let ran = on_node(&disk, &Setup::default(), 2, async |node| {
        for key in keys {
            let _ = served(node, key).await;
        }
        assert!(node.broker().condition().contains("the consume index is damaged"));
        let later = held::create_topic(node, "later", 1).await.expect("healthy");
        let (mut new, mut number) = (Vec::new(), 0);
        while !node.broker().condition().is_empty() {
            let key = keys[number as usize % 2];
            produce(node, &books, key, Some(Level::Accepted), 9_000 + number, 100).await.expect("taken");
            let due = Timestamp(node.clock.now().0 + 60_000);
            let held = held::hold(node, later, Level::Accepted, number, Release::At(due)).await;
            held.expect("taken");
            if number % 4 == 0 {
                let topic = create(node, &books, &format!("new-{number}"), 1).await.expect("healthy").id;
                new.push(QueueKey { topic, queue: QueueNumber(0) });
                let key = *new.last().expect("it was just made");
                produce(node, &books, key, Some(Level::Accepted), number, 100).await.expect("taken");
            }
            number += 1;
            node.clock.sleep(Duration::from_micros(100)).await;
        }
        node.broker().index().verify().await.expect("nothing in it is damaged");
        for key in keys.into_iter().chain(new) {
            let last =
                books.borrow().queues[&key].last().map(|sent| sent.base_offset.advance(sent.count.into()));
            let end = last.expect("something was sent");
            assert_eq!(served(node, key).await, Ok((QueueOffset::ZERO, end, end.0)), "{key}");
        }
        node.clock.sleep(Duration::from_secs(70)).await;
        let released = held::read(node, later).await.into_iter().map(|(number, _)| number);
        assert_eq!(released.collect::<Vec<_>>(), (0..number).collect::<Vec<_>>());
        number
    });
    assert!(ran.expect("it starts") > 20, "messages came meanwhile");
}

/// The log cannot be read for now, so nothing can be built from it, and then the process dies.
#[test]
fn an_index_that_was_found_damaged_is_not_believed_by_the_next_start() {
    let (clean, keys, _) = filled();
    let expected = expected(&clean, keys);
    for how in [Restart::ProcessKill, Restart::PowerLoss(Survival::Nothing)] {
        let disk = clean.outcome(Restart::ProcessKill, 1);
        damage(&disk);
        let found = on_node(&disk, &Setup::default(), 2, async |node| {
            for key in keys {
                let _ = served(node, key).await;
            }
            let failing = Rule::error(Operation::Read, When::From(0), DiskErrorKind::Failed).in_path("/log");
            disk.set_plan(FaultPlan::none().with(failing));
            node.clock.sleep(Duration::from_secs(30)).await;
            let state = node.broker().condition();
            assert!(state.contains("the consume index is damaged"), "{state}");
            let left = disk.outcome(how, 1);
            disk.set_plan(FaultPlan::none());
            left
        });
        let disk = found.expect("it starts");
        disk.set_plan(FaultPlan::none());
        assert!(check_start(&disk, keys, &expected), "{how:?}: the next start builds it anew");
        assert!(!check_start(&disk, keys, &expected), "{how:?}: the one after that need not");
    }
}

/// The process dies, or power fails, at any time between the finding of the damage and the end of the building.
#[test]
fn a_death_while_an_index_is_built_anew_does_no_harm() {
    let (clean, keys, _) = filled();
    let expected = expected(&clean, keys);
    for how in
        [Restart::ProcessKill, Restart::PowerLoss(Survival::Nothing), Restart::PowerLoss(Survival::Mixed)]
    {
        for pause in [0, 1, 3, 10, 30, 100, 300, 1_000, 10_000] {
            let disk = clean.outcome(Restart::ProcessKill, 1);
            damage(&disk);
            let found = on_node(&disk, &Setup::default(), 2, async |node| {
                for key in keys {
                    let _ = served(node, key).await;
                }
                node.clock.sleep(Duration::from_millis(pause)).await;
                disk.outcome(how, pause)
            });
            let disk = found.expect("it starts");
            let read = on_node(&disk, &Setup::default(), 3, async |node| {
                for key in keys {
                    let _ = served(node, key).await;
                }
                node.clock.sleep(Duration::from_secs(10)).await;
                node.broker().index().verify().await.expect("nothing in it is damaged");
            });
            read.expect("it starts");
            assert!(!check_start(&disk, keys, &expected), "{how:?}, {pause}: it is healed");
        }
    }
}

#[test]
fn a_missing_or_short_index_is_built_anew_by_the_start_that_finds_it() {
    let (clean, keys, _) = filled();
    let expected = expected(&clean, keys);
    for short in [false, true] {
        let disk = clean.outcome(Restart::ProcessKill, 1);
        block_on(async {
            if short {
                disk.open(&index_file(), turbopump::disk::OpenMode::Create).await.expect("a file");
            } else {
                disk.remove(&index_file()).await.expect("a file that is there");
                disk.sync_directory(&shard_directory(0).join("index")).await.expect("a directory");
            }
        });
        assert!(check_start(&disk, keys, &expected), "short: {short}");
        assert!(!check_start(&disk, keys, &expected), "short: {short}");
    }
}
