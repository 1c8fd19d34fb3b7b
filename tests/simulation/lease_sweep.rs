//! The power fails, the process dies or the disk refuses, at every step of a workload of receivers: leases,
//! acknowledgements, order and dead letters.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use turbopump::api::{
    Acknowledge, ClientProtocol, Failure, Filter, GroupSettings, Produce, ReceiptOutcome, Receive,
    ReceivedMessage, Reply, Request,
};
use turbopump::disk::faulty::{FaultPlan, FaultyDisk, Restart, Survival};
use turbopump::limits;
use turbopump::testing::{Random, SeededExecutor};
use turbopump::types::{Level, QueueKey, QueueNumber, Receipt, Timestamp};
use turbopump::wire::batch::BatchBuilder;
use turbopump::wire::record::{Record, RecordView};

use super::checks::remove_derived;
use super::held::{create_topic, key_of, number_of, read};
use super::node::{Node, Setup, group_name, on_node, topic_name};
use super::sweep::{Script, crashes, log_errors, run_until_crash};
use super::workload::produce_sized;

const TOPIC: &str = "t";
const QUEUES: u32 = 2;
const LEASE: Duration = Duration::from_secs(1);
/// Receives in any order.
const FREE: &str = "free";
/// Receives in order.
const ROW: &str = "row";
/// Gives a message up after two deliveries.
const FEW: &str = "few";
const FEW_DELIVERIES: u32 = 2;

/// What a group knows of one message.
#[derive(Clone, Debug, Default)]
struct Seen {
    deliveries: u32,
    asked: bool,
    /// Answered in this run, at this time.
    acknowledged: Option<(u64, Timestamp)>,
}

/// A message's queue, and what has become of it.
#[derive(Clone, Debug)]
struct Entry {
    queue: u32,
    answered: Option<Level>,
    seen: BTreeMap<&'static str, Seen>,
}

#[derive(Clone, Debug, Default)]
struct Books {
    entries: BTreeMap<u64, Entry>,
    /// Of `FEW`: before it is known to be durable, messages may come more often.
    settings_answered: bool,
}

type SharedBooks = Rc<RefCell<Books>>;

fn run(disk: &FaultyDisk, script: &Script) -> Books {
    let books = SharedBooks::default();
    run_until_crash(disk, script.seed, async |executor| play(disk, script, &books, executor).await);
    books.take()
}

/// The workload on a disk that keeps what it is given.
pub fn calm(disk: &FaultyDisk, seed: u64) {
    run(disk, &Script::small(seed));
}

async fn play(disk: &FaultyDisk, script: &Script, books: &SharedBooks, executor: &SeededExecutor) {
    let spawner = executor.spawner();
    for run in 0..2 {
        let node = Node::start(disk, &script.setup, executor.shared_clock(), &spawner).await;
        // A disk that refuses may refuse this too.
        let Ok(node) = node else { return };
        let node = Rc::new(node);
        if run == 0 {
            if create_topic(&node, TOPIC, QUEUES).await.is_err() {
                return;
            }
            let settings = GroupSettings {
                group: group_name(FEW),
                deliveries_max: Some(FEW_DELIVERIES),
                lease: None,
                ordered_lease: None,
            };
            let altered = node.handle(Request::AlterGroup(settings)).await;
            books.borrow_mut().settings_answered = altered.is_ok();
            if script.large_batches > 0 && create_topic(&node, "bulk", 1).await.is_err() {
                return;
            }
        }
        let mut tasks = Vec::new();
        let (publishing, published) = (node.clone(), books.clone());
        let seed = script.seed * 10 + run;
        tasks.push(spawner.spawn(async move { publisher(&publishing, &published, seed, run).await }));
        for (group, count) in [(FREE, 2), (ROW, 2), (FEW, 1)] {
            for member in 0..count {
                let (node, books) = (node.clone(), books.clone());
                let seed = seed * 10 + member;
                tasks.push(spawner.spawn(async move {
                    // The end of a disk is the end of a receiver.
                    let _ = receiver(&node, &books, group, seed, run).await;
                }));
            }
        }
        node.clock.sleep(Duration::from_millis(20)).await;
        let _ = node.broker().take_snapshot().await;
        fill(&node, script.large_batches, run).await;
        for task in tasks {
            task.await;
        }
        let node = Rc::into_inner(node).expect("every task has ended");
        node.stop().await;
        if !disk.is_crashed() && disk.injected().is_empty() {
            books.borrow_mut().entries.values_mut().for_each(|entry| entry.answered = Some(Level::Durable));
        }
    }
}

async fn fill(node: &Node, batches: u64, run: u64) {
    let bulk = super::workload::Books::default();
    let Some(key) = key_of(node, "bulk").await else { return };
    for number in 0..batches {
        let level = Some(Level::Durable);
        // Checked elsewhere: here it only moves the log on.
        if run > 0 || produce_sized(node, &bulk, key, level, number, 3_900_000).await.is_err() {
            return;
        }
    }
}

async fn publisher(node: &Node, books: &SharedBooks, seed: u64, run: u64) {
    let mut random = Random::new(seed);
    let Some(key) = key_of(node, TOPIC).await else { return };
    for index in 0..16 {
        let number = run * 100 + index;
        let queue = random.range(0..u64::from(QUEUES)) as u32;
        let level = *random.pick(&[Level::Durable, Level::Durable, Level::Written]);
        let entry = Entry { queue, answered: None, seen: BTreeMap::new() };
        books.borrow_mut().entries.insert(number, entry);
        let mut builder = BatchBuilder::new(node.clock.now());
        builder.push(&Record { body: &number.to_le_bytes(), ..Record::default() });
        let key = QueueKey { queue: QueueNumber(queue), ..key };
        let produce = Produce { key, level: Some(level), batch: Bytes::from(builder.finish()) };
        if node.handle(Request::Produce(produce)).await.is_err() {
            return;
        }
        books.borrow_mut().entries.get_mut(&number).expect("just sent").answered = Some(level);
        node.clock.sleep(Duration::from_millis(random.range(0..20))).await;
    }
}

fn of_group(group: &str, count: u32, lease: Duration) -> Receive {
    Receive {
        group: group_name(group),
        topic: topic_name(TOPIC),
        scope: Default::default(),
        filter: Filter::default(),
        count,
        bytes_max: limits::RECEIVE_BYTES_MAX as u32,
        wait: Duration::ZERO,
        lease: Some(lease),
        ordered: group == ROW,
        protocol: ClientProtocol::Http,
    }
}

async fn receive(node: &Node, receive: Receive) -> Result<Vec<ReceivedMessage>, Failure> {
    match node.handle(Request::Receive(receive)).await? {
        Reply::Received(messages) => Ok(messages),
        other => panic!("messages were asked for: {other:?}"),
    }
}

async fn acknowledge(
    node: &Node,
    group: &str,
    receipts: Vec<Receipt>,
) -> Result<Vec<ReceiptOutcome>, Failure> {
    let request = Acknowledge { group: group_name(group), receipts };
    match node.handle(Request::Acknowledge(request)).await? {
        Reply::Acknowledged(outcomes) => Ok(outcomes),
        other => panic!("outcomes were asked for: {other:?}"),
    }
}

fn message_number(message: &ReceivedMessage) -> u64 {
    number_of(RecordView::cut(&message.record).expect("a stored record").0.body())
}

/// A member that acknowledges some of what it gets.
async fn receiver(
    node: &Node,
    books: &SharedBooks,
    group: &'static str,
    seed: u64,
    run: u64,
) -> Result<(), Failure> {
    let mut random = Random::new(seed);
    for turn in 0..24 {
        let count = random.range(1..=6) as u32;
        let messages = receive(node, of_group(group, count, LEASE)).await?;
        note_delivery(&mut books.borrow_mut(), group, &messages, run);
        let chance = if group == FEW { 0.5 } else { 0.8 };
        let mut chosen: Vec<_> = messages.iter().filter(|_| random.chance(chance)).collect();
        if group == ROW && random.chance(0.2) {
            chosen.clear();
        }
        if !chosen.is_empty() {
            let numbers: Vec<_> =
                chosen.iter().map(|message| (message_number(message), message.deliveries)).collect();
            note_asked(&mut books.borrow_mut(), group, &numbers);
            let receipts = chosen.iter().map(|message| message.receipt).collect();
            let outcomes = acknowledge(node, group, receipts).await?;
            note_outcomes(&mut books.borrow_mut(), group, &numbers, &outcomes, (run, node.clock.now()));
        }
        let pause = if turn % 8 == 7 { LEASE.as_millis() as u64 } else { random.range(0..30) };
        node.clock.sleep(Duration::from_millis(pause)).await;
    }
    Ok(())
}

fn note_delivery(books: &mut Books, group: &'static str, messages: &[ReceivedMessage], run: u64) {
    if group == ROW {
        check_order(books, messages);
    }
    for message in messages {
        let number = message_number(message);
        let seen = books.entries.get_mut(&number).expect("sent before").seen.entry(group).or_default();
        if let Some((in_run, at)) = seen.acknowledged {
            let is_late = in_run != run || message.receipt.leased_at > at;
            assert!(!is_late, "{group}: {number} was acknowledged: {seen:?}, {message:?}");
        }
        assert!(message.deliveries > seen.deliveries, "{group}: {number}: {seen:?}, {message:?}");
        seen.deliveries = message.deliveries;
        // Whoever asks for it from here on asks again.
        seen.asked = seen.acknowledged.is_some();
    }
}

/// Nothing comes before what stands before it in its queue was acknowledged, or comes with it.
fn check_order(books: &Books, messages: &[ReceivedMessage]) {
    for queue in 0..QUEUES {
        let of_queue = messages.iter().filter(|message| message.receipt.key.queue.0 == queue);
        let numbers: Vec<_> = of_queue.map(message_number).collect();
        assert!(numbers.is_sorted(), "out of order: {numbers:?}");
        let Some(last) = numbers.last() else { continue };
        for (number, entry) in books.entries.range(..last).filter(|(_, entry)| entry.queue == queue) {
            let is_over = entry.seen.get(ROW).is_some_and(|seen| seen.asked || seen.acknowledged.is_some());
            let is_there = entry.answered.is_some() && !numbers.contains(number);
            assert!(is_over || !is_there, "{numbers:?} before {number}: {entry:?}");
        }
    }
}

fn note_asked(books: &mut Books, group: &'static str, chosen: &[(u64, u32)]) {
    for (number, _) in chosen {
        let entry = books.entries.get_mut(number).expect("delivered before");
        entry.seen.get_mut(group).expect("delivered before").asked = true;
    }
}

fn note_outcomes(
    books: &mut Books,
    group: &'static str,
    chosen: &[(u64, u32)],
    outcomes: &[ReceiptOutcome],
    at: (u64, Timestamp),
) {
    for ((number, delivery), outcome) in chosen.iter().zip(outcomes) {
        let entry = books.entries.get_mut(number).expect("delivered before");
        let seen = entry.seen.get_mut(group).expect("delivered before");
        match outcome {
            ReceiptOutcome::Acknowledged => seen.acknowledged = Some(at),
            // Unless somebody has got it meanwhile, it comes again.
            ReceiptOutcome::NotLeased | ReceiptOutcome::NothingOpen if seen.deliveries == *delivery => {
                seen.asked = seen.acknowledged.is_some();
            }
            ReceiptOutcome::NotLeased | ReceiptOutcome::NothingOpen => {}
            ReceiptOutcome::Failed => {}
        }
    }
}

/// What a node gives its groups once every lease has ended.
#[derive(Clone, Debug, Default, PartialEq)]
struct View {
    /// Number and deliveries.
    free: BTreeMap<u64, u32>,
    row: Vec<Vec<u64>>,
    few: BTreeMap<u64, u32>,
    dead: Vec<u64>,
    /// What stands in the topic's queues.
    stored: BTreeSet<u64>,
}

async fn watch(node: &Node, after: Duration, label: &str) -> Option<View> {
    let key = key_of(node, TOPIC).await?;
    // The clock has begun again: leases of the run before may seem long. Dead letters are moved meanwhile.
    node.clock.sleep(after).await;
    let mut view = View { row: vec![Vec::new(); QUEUES as usize], ..View::default() };
    for queue in (0..QUEUES).map(QueueNumber) {
        view.stored.extend(read(node, QueueKey { queue, ..key }).await.into_iter().map(|(number, _)| number));
    }
    let lease = Duration::from_secs(30);
    for group in [FREE, FEW] {
        loop {
            let messages = receive(node, of_group(group, 32, lease)).await.expect("a healthy disk");
            if messages.is_empty() {
                break;
            }
            let seen = if group == FREE { &mut view.free } else { &mut view.few };
            for message in &messages {
                let earlier = seen.insert(message_number(message), message.deliveries);
                assert_eq!(earlier, None, "{label}: {group} gets {} twice", message_number(message));
            }
        }
    }
    loop {
        let messages = receive(node, of_group(ROW, 32, lease)).await.expect("a healthy disk");
        if messages.is_empty() {
            break;
        }
        for message in &messages {
            view.row[message.receipt.key.queue.0 as usize].push(message_number(message));
        }
        let receipts = messages.iter().map(|message| message.receipt).collect();
        let outcomes = acknowledge(node, ROW, receipts).await.expect("a healthy disk");
        assert!(outcomes.iter().all(|outcome| *outcome == ReceiptOutcome::Acknowledged), "{label}");
    }
    view.dead = dead_letters(node).await;
    Some(view)
}

async fn dead_letters(node: &Node) -> Vec<u64> {
    let mut dead = Vec::new();
    if let Some(key) = key_of(node, &format!("%DLQ%{FEW}")).await {
        for queue in (0..node.brokers.len() as u32).map(QueueNumber) {
            dead.extend(read(node, QueueKey { queue, ..key }).await.into_iter().map(|(number, _)| number));
        }
    }
    dead.sort_unstable();
    dead
}

fn check(disk: &FaultyDisk, script: &Script, books: &Books, how: Restart, label: &str) {
    let promised = if how == Restart::ProcessKill { Level::Written } else { Level::Durable };
    let bare = disk.outcome(Restart::ProcessKill, 2);
    remove_derived(&bare, &script.setup);
    let after = Duration::from_secs(120);
    let seen = on_node(disk, &script.setup, 1, async |node| watch(node, after, label).await);
    let Some(view) = seen.unwrap_or_else(|error| panic!("{label}: does not start: {error}")) else {
        assert!(books.entries.values().all(|entry| entry.answered.is_none()), "{label}: the topic is gone");
        return;
    };
    for (number, entry) in &books.entries {
        let is_stored = view.stored.contains(number);
        assert!(
            is_stored || entry.answered.is_none_or(|level| level < promised),
            "{label}: {number} is lost"
        );
        let label = format!("{label}: {number}: {entry:?}");
        check_group(entry, FREE, view.free.get(number).copied(), is_stored, how, &label);
        let in_row = view.row[entry.queue as usize].contains(number);
        check_group(entry, ROW, in_row.then_some(u32::MAX), is_stored, how, &label);
        let dead = view.dead.iter().filter(|dead| *dead == number).count();
        let again = view.few.get(number).copied();
        assert!(dead + usize::from(again.is_some()) <= 1, "{label}: {dead} dead letters, and {again:?}");
        let found = if dead > 0 { Some(u32::MAX) } else { again };
        check_group(entry, FEW, found, is_stored, how, &label);
        let is_settled = !books.settings_answered || again.is_none_or(|again| again <= FEW_DELIVERIES);
        assert!(is_settled, "{label}: delivered for the {again:?}th time");
    }
    assert!(view.row.iter().all(|numbers| numbers.is_sorted()), "{label}: out of order: {:?}", view.row);
    // Once more, after a loss of power: what recovery has shown does not change.
    let lost = disk.outcome(Restart::PowerLoss(Survival::Nothing), 1);
    let again = on_node(&lost, &script.setup, 2, async |node| watch(node, 2 * after, label).await);
    let again = again.expect("it has started before").expect("the topic");
    assert!(again.free.keys().eq(view.free.keys()), "{label}, again: {:?} {:?}", again.free, view.free);
    assert_eq!(again.row.concat(), Vec::<u64>::new(), "{label}, again: all of it was acknowledged");
    let of_few = |view: &View| {
        let all: BTreeSet<_> = view.dead.iter().chain(view.few.keys()).copied().collect();
        all
    };
    assert_eq!(of_few(&again), of_few(&view), "{label}, again");
    let from_log = on_node(&bare, &script.setup, 1, async |node| watch(node, after, label).await);
    let from_log = from_log.unwrap_or_else(|error| panic!("{label}, from the log alone: {error}"));
    assert_eq!(from_log, Some(view), "{label}, from the log alone");
}

/// One message and one group: it comes again unless it was acknowledged. `found` has its deliveries, this one included.
fn check_group(entry: &Entry, group: &str, found: Option<u32>, is_stored: bool, how: Restart, label: &str) {
    let seen = entry.seen.get(group).cloned().unwrap_or_default();
    let is_acknowledged = seen.acknowledged.is_some();
    assert!(!(is_acknowledged && found.is_some()), "{label}: {group} gets it again");
    let must_come = is_stored && !seen.asked;
    assert!(!must_come || found.is_some(), "{label}: {group} does not get it");
    // A lease survives the process, not always the power.
    let least = if how == Restart::ProcessKill { seen.deliveries + 1 } else { 1 };
    assert!(found.is_none_or(|found| found >= least), "{label}: {group}, the {found:?}th time");
}

fn sweep(script: &Script, plan: &FaultPlan, sample: usize) {
    let calm = FaultyDisk::new(script.seed, plan.clone());
    let books = run(&calm, script);
    let acknowledged = |group| {
        let of_group = books.entries.values().filter_map(|entry| entry.seen.get(group));
        of_group.filter(|seen| seen.acknowledged.is_some()).count()
    };
    assert!(acknowledged(FREE) > 10 && acknowledged(ROW) > 5 && acknowledged(FEW) > 5, "{books:?}");
    let run = |disk: &FaultyDisk| run(disk, script);
    crashes((script.seed, plan), calm.step_count(), sample, run, |outcome, books, how, label| {
        check(outcome, script, books, how, label);
    });
}

#[test]
fn a_crash_at_any_step_takes_no_acknowledgement_back_and_loses_no_message() {
    sweep(&Script::small(1), &FaultPlan::none(), 31);
}

#[test]
fn a_crash_of_two_shards_takes_no_acknowledgement_back() {
    let setup = Setup { shard_count: 2, ..Setup::default() };
    sweep(&Script { setup, ..Script::small(2) }, &FaultPlan::reordered(), 61);
}

#[test]
fn a_crash_takes_no_acknowledgement_back_while_segments_come_and_go() {
    sweep(&Script { large_batches: 9, ..Script::small(3) }, &FaultPlan::none(), 211);
}

#[test]
fn errors_of_the_log_take_no_acknowledgement_back() {
    let run = |disk: &FaultyDisk, number| (Script::small(number), run(disk, &Script::small(number)));
    log_errors(&[3, 9, 20, 34, 60], run, |outcome, (script, books), how, label| {
        check(outcome, script, books, how, label);
    });
}
