//! The power fails, the process dies or the disk refuses, at every step of a workload of messages that readers give back: what
//! was answered comes again, and once.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use turbopump::api::{Produce, Reply, Request};
use turbopump::broker::{RetryDelay, SendBack};
use turbopump::disk::faulty::{FaultPlan, FaultyDisk, Restart};
use turbopump::testing::{Random, SeededExecutor, generators};
use turbopump::types::{Level, RecordLocation, Timestamp};

use super::checks::remove_derived;
use super::held::{create_topic, key_of, read};
use super::node::{Node, group_name, on_node};
use super::sweep::{Script, crashes, log_errors, run_until_crash};

const TOPIC: &str = "orders";
const GROUP: &str = "returners";

/// What was given back, and whether that was answered; whether it is to be a dead letter.
type Books = BTreeMap<u64, Entry>;

#[derive(Clone, Copy, Debug)]
struct Entry {
    answered: bool,
    dies: bool,
}

fn run(disk: &FaultyDisk, script: &Script) -> Books {
    let books = Rc::<RefCell<Books>>::default();
    run_until_crash(disk, script.seed, async |executor| play(disk, script, &books, executor).await);
    books.take()
}

async fn play(disk: &FaultyDisk, script: &Script, books: &RefCell<Books>, executor: &SeededExecutor) {
    let spawner = executor.spawner();
    for run in 0..2 {
        // A disk that refuses may refuse this too.
        let Ok(node) = Node::start(disk, &script.setup, executor.shared_clock(), &spawner).await else {
            return;
        };
        if run == 0 && create_topic(&node, TOPIC, 1).await.is_err() {
            return;
        }
        return_some(&node, books, script.seed, run).await;
        // Some have come by then, and some wait.
        node.clock.sleep(Duration::from_millis(1_200)).await;
        let _ = node.broker().take_snapshot().await;
        node.stop().await;
    }
}

async fn return_some(node: &Node, books: &RefCell<Books>, seed: u64, run: u64) {
    let mut random = Random::new(seed * 2 + run);
    let Some(key) = key_of(node, TOPIC).await else { return };
    for index in 0..8 {
        let number = 1_000 + run * 100 + index;
        let message = generators::Message { body: number.to_le_bytes().to_vec(), ..Default::default() };
        let batch = generators::batch(&[message], Timestamp(1_000)).into();
        let produce = Produce { key, level: Some(Level::Durable), batch };
        let Ok(Reply::Produced(produced)) = node.handle(Request::Produce(produce)).await else { return };
        let broker = node.owner(key);
        let location = RecordLocation { position: produced.position, index: 0 };
        let Ok(Some(message)) = broker.message_to_return(location).await else { return };
        let delay = *random.pick(&[RetryDelay::Level(1), RetryDelay::Level(2), RetryDelay::Never]);
        let back = SendBack {
            group: group_name(GROUP),
            retries_max: None,
            delay,
            network: IpAddr::from([10, 0, 0, 1]),
        };
        let dies = delay == RetryDelay::Never;
        books.borrow_mut().insert(number, Entry { answered: false, dies });
        if broker.send_back(&back, &message, "ID").await.is_err() {
            return;
        }
        books.borrow_mut().insert(number, Entry { answered: true, dies });
        node.clock.sleep(Duration::from_millis(random.range(0..300))).await;
    }
}

/// What is there of retries and of dead letters, once every time has come.
async fn watch(node: &Node) -> [Vec<u64>; 2] {
    node.clock.sleep(Duration::from_secs(30)).await;
    let mut found = [Vec::new(), Vec::new()];
    for (prefix, found) in ["%RETRY%", "%DLQ%"].into_iter().zip(&mut found) {
        let Some(key) = key_of(node, &format!("{prefix}{GROUP}")).await else { continue };
        found.extend(read(node, key).await.into_iter().map(|(number, _)| number));
    }
    found
}

fn check(disk: &FaultyDisk, script: &Script, books: &Books, _how: Restart, label: &str) {
    let bare = disk.outcome(Restart::ProcessKill, 2);
    remove_derived(&bare, &script.setup);
    let seen = on_node(disk, &script.setup, 1, async |node| watch(node).await);
    let seen = seen.unwrap_or_else(|error| panic!("{label}: does not start: {error}"));
    for (found, is_dead) in seen.iter().zip([false, true]) {
        let numbers: BTreeSet<_> = found.iter().copied().collect();
        assert_eq!(numbers.len(), found.len(), "{label}: some are there twice: {found:?}");
        for number in &numbers {
            let entry = books.get(number).unwrap_or_else(|| panic!("{label}: nobody returned {number}"));
            assert_eq!(entry.dies, is_dead, "{label}: {number} is where it does not belong");
        }
        for (number, entry) in books.iter().filter(|(_, entry)| entry.dies == is_dead) {
            assert!(!entry.answered || numbers.contains(number), "{label}: {number} is lost");
        }
    }
    let from_log = on_node(&bare, &script.setup, 1, async |node| watch(node).await);
    assert_eq!(from_log.ok().as_ref(), Some(&seen), "{label}, from the log alone");
}

fn sweep(script: &Script, plan: &FaultPlan, sample: usize) {
    let calm = FaultyDisk::new(script.seed, plan.clone());
    let books = run(&calm, script);
    assert!(books.len() == 16 && books.values().all(|entry| entry.answered), "a disk without faults");
    let run = |disk: &FaultyDisk| run(disk, script);
    crashes((script.seed, plan), calm.step_count(), sample, run, |outcome, books, how, label| {
        check(outcome, script, books, how, label);
    });
}

#[test]
fn a_crash_at_any_step_neither_loses_nor_doubles_what_is_given_back() {
    sweep(&Script::small(1), &FaultPlan::none(), 19);
}

#[test]
fn a_crash_does_no_harm_to_what_is_given_back_when_writes_are_short_and_late() {
    sweep(&Script::small(2), &FaultPlan::reordered(), 29);
}

#[test]
fn errors_of_the_log_neither_lose_nor_double_what_is_given_back() {
    let run = |disk: &FaultyDisk, number| (Script::small(number), run(disk, &Script::small(number)));
    log_errors(&[3, 8, 14, 25], run, |outcome, (script, books), how, label| {
        check(outcome, script, books, how, label);
    });
}
