//! The power fails, the process dies or the disk refuses, at every step of a workload of delayed messages and
//! transactions.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use turbopump::api::{Decision, Release, Status};
use turbopump::broker::Recall;
use turbopump::disk::faulty::{FaultPlan, FaultyDisk, Restart, Survival};
use turbopump::testing::{Random, SeededExecutor};
use turbopump::types::{HalfReceipt, Level, LogPosition, Timestamp};

use super::checks::remove_derived;
use super::held::{TOPIC, asked, create_topic, end, half_of, hold, key_of, number_of, read, receive};
use super::node::{Node, Setup, on_node, topic_name};
use super::sweep::{Script, crashes, log_errors, run_until_crash};
use super::workload::produce_sized;
use turbopump::wire::record::RecordView;

/// What was asked for under each number, and what was answered.
#[derive(Clone, Debug, Default)]
struct Entry {
    /// When it is to be visible; `None`: when it is committed.
    due: Option<Timestamp>,
    /// Whether its time had not come when it was sent.
    waits: bool,
    answered: Option<Level>,
    receipt: Option<HalfReceipt>,
    decision: Option<Decision>,
    decided: bool,
    /// Its producer has taken it back, and whether that was answered.
    recalled: Option<bool>,
    /// Where it was seen, before retention may have taken it.
    seen: Option<u64>,
}

type Books = Rc<RefCell<BTreeMap<u64, Entry>>>;

fn run(disk: &FaultyDisk, script: &Script) -> BTreeMap<u64, Entry> {
    let books = Books::default();
    run_until_crash(disk, script.seed, async |executor| play(disk, script, &books, executor).await);
    books.take()
}

/// The workload on a disk that keeps what it is given.
pub fn calm(disk: &FaultyDisk, seed: u64) {
    run(disk, &Script::small(seed));
}

async fn play(disk: &FaultyDisk, script: &Script, books: &Books, executor: &SeededExecutor) {
    let spawner = executor.spawner();
    for run in 0..2 {
        let node = Node::start(disk, &script.setup, executor.shared_clock(), &spawner).await;
        // A disk that refuses may refuse this too.
        let Ok(node) = node.map(Rc::new) else { return };
        if run == 0
            && (create_topic(&node, TOPIC, 1).await.is_err() || create_topic(&node, "bulk", 1).await.is_err())
        {
            return;
        }
        let (delaying, deciding) = (node.clone(), node.clone());
        let (delays, halves) = (books.clone(), books.clone());
        let seed = script.seed;
        let first = spawner.spawn(async move { delayer(&delaying, &delays, seed, run).await });
        let second = spawner.spawn(async move { decider(&deciding, &halves, seed, run).await });
        first.await;
        let _ = node.broker().take_snapshot().await;
        second.await;
        for (number, offset) in visible(&node).await.unwrap_or_default() {
            books.borrow_mut().get_mut(&number).expect("sent before").seen = Some(offset);
        }
        let bulk = super::workload::Books::default();
        if script.large_batches > 0
            && let Some(key) = key_of(&node, "bulk").await
        {
            for number in 0..script.large_batches {
                let seed = run * 100 + number;
                // The books know nothing of the run before.
                let level = Some(Level::Durable);
                if run == 0 && produce_sized(&node, &bulk, key, level, seed, 3_900_000).await.is_err() {
                    return;
                }
            }
            node.clock.sleep(Duration::from_secs(3)).await;
        }
        let node = Rc::into_inner(node).expect("every task has ended");
        node.stop().await;
        if !disk.is_crashed() && disk.injected().is_empty() {
            books.borrow_mut().values_mut().for_each(|entry| entry.answered = Some(Level::Durable));
        }
    }
}

/// Sends delayed messages that are due soon, late, or at once.
async fn delayer(node: &Rc<Node>, books: &Books, seed: u64, run: u64) {
    let mut random = Random::new(seed * 2 + run);
    let Some(key) = key_of(node, TOPIC).await else { return };
    for index in 0..10 {
        let number = 1_000 + run * 100 + index;
        let now = node.clock.now();
        let ahead = *random.pick(&[0, 1, 2, 5, 30, 700_000]);
        let due = Timestamp(now.0 + ahead + random.range(0..3));
        let entry = Entry { due: Some(due), waits: due > now, ..Entry::default() };
        books.borrow_mut().insert(number, entry);
        let level = *random.pick(&[Level::Durable, Level::Written, Level::Accepted]);
        let Ok(held) = hold(node, key, level, number, Release::At(due)).await else { return };
        books.borrow_mut().get_mut(&number).expect("just sent").answered = Some(held.level);
        if random.range(0..3) == 0 {
            // Some in the moment in which they are released.
            let after = *random.pick(&[0, 0, ahead.saturating_sub(1), ahead, ahead + 1]);
            node.clock.sleep(Duration::from_millis(after.min(40))).await;
            if !take_back(node, books, number, due, held.position).await {
                return;
            }
        }
        node.clock.sleep(Duration::from_millis(random.range(0..4))).await;
    }
    node.clock.sleep(Duration::from_millis(40)).await;
}

/// Takes a delayed message back, if it waits yet; false when the shard has failed.
async fn take_back(node: &Rc<Node>, books: &Books, number: u64, due: Timestamp, at: LogPosition) -> bool {
    let note = |recalled| books.borrow_mut().get_mut(&number).expect("just sent").recalled = recalled;
    note(Some(false));
    let unique_id = number.to_string();
    let recall = Recall {
        topic: topic_name(TOPIC),
        due,
        unique_id: Some(unique_id),
        position: at,
        network: Ipv4Addr::LOCALHOST.into(),
    };
    match node.broker().recall(&recall).await {
        Ok(()) => note(Some(true)),
        Err(failure) if failure.status == Status::ReceiptExpired => note(None),
        Err(_) => return false,
    }
    true
}

/// Stores halves and decides on most of them, some only when asked.
async fn decider(node: &Rc<Node>, books: &Books, seed: u64, run: u64) {
    let mut random = Random::new(seed * 3 + run);
    let Some(key) = key_of(node, TOPIC).await else { return };
    for index in 0..8 {
        let number = 5_000 + run * 100 + index;
        books.borrow_mut().insert(number, Entry::default());
        let Ok(held) = hold(node, key, Level::Durable, number, half_of(Some("producers"))).await else {
            return;
        };
        {
            let mut books = books.borrow_mut();
            let entry = books.get_mut(&number).expect("just sent");
            (entry.answered, entry.receipt) = (Some(held.level), Some(held.receipt));
        }
        let decision = *random.pick(&[Some(Decision::Commit), Some(Decision::Rollback), None]);
        if let Some(decision) = decision
            && !decide(node, books, number, held.receipt, decision).await
        {
            return;
        }
    }
    let open = match run {
        0 => {
            node.clock.sleep(Duration::from_secs(7)).await;
            receive(node, "producers", Duration::ZERO).await
        }
        _ => Ok(asked(node, key, "producers", Duration::from_secs(7)).await),
    };
    for half in open.unwrap_or_default().into_iter().take(2) {
        let number = number_of(RecordView::cut(&half.record).expect("a record").0.body());
        if !decide(node, books, number, half.receipt, Decision::Commit).await {
            return;
        }
    }
}

async fn decide(
    node: &Rc<Node>,
    books: &Books,
    number: u64,
    receipt: HalfReceipt,
    decision: Decision,
) -> bool {
    books.borrow_mut().get_mut(&number).expect("sent before").decision = Some(decision);
    let decided = end(node, receipt, decision).await.is_ok();
    books.borrow_mut().get_mut(&number).expect("sent before").decided = decided;
    decided
}

/// Everything visible once every time has come, with its offsets, and the undecided.
type Seen = (Vec<(u64, u64)>, BTreeSet<u64>);

async fn visible(node: &Node) -> Option<Vec<(u64, u64)>> {
    let key = key_of(node, TOPIC).await?;
    let (first, _) = node.owner(key).index().bounds(key)?;
    let numbers = read(node, key).await.into_iter().map(|(number, _)| number);
    Some(numbers.zip(first.0..).collect())
}

async fn watch(node: &Node) -> Option<Seen> {
    key_of(node, TOPIC).await?;
    // The clock has begun again: whatever was handed out before is due now.
    node.clock.sleep(Duration::from_secs(120)).await;
    let mut open = BTreeSet::new();
    loop {
        let found = receive(node, "producers", Duration::ZERO).await.expect("a healthy disk");
        if found.is_empty() {
            break;
        }
        open.extend(found.iter().map(|half| number_of(RecordView::cut(&half.record).expect("one").0.body())));
    }
    node.clock.sleep(Duration::from_secs(900)).await;
    Some((visible(node).await?, open))
}

fn check(disk: &FaultyDisk, script: &Script, books: &BTreeMap<u64, Entry>, how: Restart, label: &str) {
    let promised = if how == Restart::ProcessKill { Level::Written } else { Level::Durable };
    let bare = disk.outcome(Restart::ProcessKill, 2);
    remove_derived(&bare, &script.setup);
    let seen = on_node(disk, &script.setup, 1, async |node| watch(node).await);
    let Some((visible, open)) = seen.unwrap_or_else(|error| panic!("{label}: does not start: {error}"))
    else {
        assert!(books.values().all(|entry| entry.answered.is_none()), "{label}: the topic is gone");
        return;
    };
    let mut found: BTreeMap<u64, u64> = BTreeMap::new();
    for (number, offset) in &visible {
        assert!(found.insert(*number, *offset).is_none(), "{label}: {number} is there twice");
        let seen = books.get(number).unwrap_or_else(|| panic!("{label}: nobody sent {number}")).seen;
        assert!(seen.is_none_or(|seen| seen == *offset), "{label}: {number} is there again");
    }
    for (number, entry) in books {
        let is_visible = found.contains_key(number) || entry.seen.is_some();
        let is_stored = entry.answered.is_some_and(|answered| answered >= promised);
        match (entry.due, entry.decision, entry.decided) {
            (Some(_), ..) if entry.recalled == Some(true) => {
                assert!(!is_visible, "{label}: {number} was taken back: {entry:?}")
            }
            (Some(_), ..) if entry.recalled == Some(false) => {}
            (Some(_), ..) => assert!(is_visible || !is_stored, "{label}: {number} is lost: {entry:?}"),
            (None, Some(Decision::Commit), true) => {
                assert!(is_visible, "{label}: {number} is lost: {entry:?}")
            }
            (None, Some(Decision::Commit), false) => {
                assert!(
                    is_visible || open.contains(number) || !is_stored,
                    "{label}: {number} is lost: {entry:?}"
                );
            }
            (None, ..) => assert!(!is_visible, "{label}: {number} was never committed: {entry:?}"),
        }
        let decided = entry.decision.is_some();
        assert!(
            decided || !is_stored || entry.due.is_some() || open.contains(number),
            "{label}: {number} is gone"
        );
        assert!(!entry.decided || !open.contains(number), "{label}: {number} was decided: {entry:?}");
        assert!(!(is_visible && open.contains(number)), "{label}: {number} is visible and undecided");
    }
    let waited: Vec<_> = visible
        .iter()
        .map(|(number, _)| &books[number])
        .filter(|entry| entry.waits)
        .map(|entry| entry.due)
        .collect();
    assert!(waited.is_sorted(), "{label}: out of order: {waited:?}");
    let lost = disk.outcome(Restart::PowerLoss(Survival::Nothing), 1);
    let again =
        on_node(&lost, &script.setup, 2, async |node| watch(node).await).expect("it has started before");
    let again = again.expect("the topic").0;
    assert!(visible.ends_with(&again), "{label}, again: {again:?} of {visible:?}");
    let from_log = on_node(&bare, &script.setup, 1, async |node| watch(node).await);
    let from_log = from_log.unwrap_or_else(|error| panic!("{label}, from the log alone: {error}"));
    assert_eq!(from_log, Some((visible, open)), "{label}, from the log alone");
}

fn sweep(script: &Script, plan: &FaultPlan, sample: usize) {
    let calm = FaultyDisk::new(script.seed, plan.clone());
    run(&calm, script);
    let run = |disk: &FaultyDisk| run(disk, script);
    crashes((script.seed, plan), calm.step_count(), sample, run, |outcome, books, how, label| {
        check(outcome, script, books, how, label);
    });
}

#[test]
fn a_crash_at_any_step_neither_loses_nor_doubles_what_is_held() {
    sweep(&Script::small(1), &FaultPlan::none(), 17);
}

#[test]
fn a_crash_does_no_harm_to_what_is_held_when_writes_are_short_and_late() {
    sweep(&Script::small(2), &FaultPlan::reordered(), 23);
}

#[test]
fn a_crash_does_no_harm_to_what_is_held_while_segments_come_and_go() {
    let plain = Setup::default();
    let setup = Setup { retention_bytes: Some(2 * plain.segment_bytes), ..plain };
    sweep(&Script { setup, large_batches: 14, ..Script::small(3) }, &FaultPlan::none(), 211);
}

#[test]
fn errors_of_the_log_neither_lose_nor_double_what_is_held() {
    let run = |disk: &FaultyDisk, number| (Script::small(number), run(disk, &Script::small(number)));
    log_errors(&[3, 8, 14, 25, 40], run, |outcome, (script, books), how, label| {
        check(outcome, script, books, how, label);
    });
}
