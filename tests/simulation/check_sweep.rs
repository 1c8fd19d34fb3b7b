//! The power fails, the process dies or the disk refuses, at every step of a workload of transactions whose producer is asked
//! what to do with them: each ends once, as was decided, or is given up when it was asked about as often as that is done.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use turbopump::api::{Decision, EndTransaction, Request};
use turbopump::broker::ProducerCheck;
use turbopump::disk::faulty::{FaultPlan, FaultyDisk, Restart, Survival};
use turbopump::testing::{JoinHandle, SeededExecutor, Spawner};
use turbopump::types::{Level, QueueKey};
use turbopump::wire::record::RecordView;

use super::checks::remove_derived;
use super::held::{create_topic, half_of, hold, key_of, number_of, produces, read};
use super::node::{Node, Setup, on_node};
use super::sweep::{Script, crashes, log_errors, run_until_crash};

const TOPIC: &str = "deals";
const GROUP: &str = "dealers";
const CHECKS: u32 = 3;
/// A life that ends without a word may have asked once without having stored that.
const LIVES: u32 = 3;

/// What a producer says of a half.
enum Plan {
    AtOnce(Decision),
    /// When it is asked for the so-and-so-many-th time.
    Asked(u32, Decision),
    Never,
}

fn plan(number: u64) -> Plan {
    match number % 6 {
        0 => Plan::AtOnce(Decision::Commit),
        1 => Plan::AtOnce(Decision::Rollback),
        2 => Plan::Asked(1, Decision::Commit),
        3 => Plan::Asked(2, Decision::Rollback),
        4 => Plan::Asked(3, Decision::Commit),
        _ => Plan::Never,
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    answered: bool,
    decision: Option<Decision>,
    decided: bool,
    questions: u32,
}

type Books = Rc<RefCell<BTreeMap<u64, Entry>>>;
type Deciding = Rc<RefCell<Vec<JoinHandle<()>>>>;

fn setup(setup: Setup) -> Setup {
    Setup { transaction_checks_max: CHECKS, ..setup }
}

fn run(disk: &FaultyDisk, script: &Script) -> BTreeMap<u64, Entry> {
    let books = Books::default();
    run_until_crash(disk, script.seed, async |executor| play(disk, script, &books, executor).await);
    books.take()
}

async fn play(disk: &FaultyDisk, script: &Script, books: &Books, executor: &SeededExecutor) {
    let spawner = executor.spawner();
    for run in 0..2 {
        let node = Node::start(disk, &setup(script.setup), executor.shared_clock(), &spawner).await;
        // A disk that refuses may refuse this too.
        let Ok(node) = node else { return };
        if run == 0 && create_topic(&node, TOPIC, 1).await.is_err() {
            return;
        }
        let Some(key) = key_of(&node, TOPIC).await else { return };
        let deciding = Deciding::default();
        answer(&node, key, books, Some((&spawner, &deciding)));
        for index in 0..6 {
            let number = 6 * (1 + run) + index;
            books.borrow_mut().insert(number, Entry::default());
            let held = hold(&node, key, Level::Durable, number, half_of(Some(GROUP))).await;
            let Ok(held) = held else { return };
            note(books, number, |entry| entry.answered = true);
            if let Plan::AtOnce(decision) = plan(number) {
                note(books, number, |entry| entry.decision = Some(decision));
                let end = EndTransaction { receipt: held.receipt, producer_group: None, decision };
                let is_decided = node.handle(Request::EndTransaction(end)).await.is_ok();
                note(books, number, |entry| entry.decided = is_decided);
            }
        }
        // Long enough for one question, or for all of them.
        node.clock.sleep(Duration::from_secs([20, 130][run as usize])).await;
        for task in deciding.take() {
            task.await;
        }
        node.stop().await;
    }
}

fn note(books: &Books, number: u64, what: impl FnOnce(&mut Entry)) {
    what(books.borrow_mut().get_mut(&number).expect("sent before"));
}

/// Lets a producer be there. It decides as planned, in the moment in which it is asked, or never.
fn answer(node: &Node, key: QueueKey, books: &Books, decides: Option<(&Spawner, &Deciding)>) {
    let broker = node.owner(key);
    let (asking, books) = (Rc::downgrade(broker), books.clone());
    let decides = decides.map(|(spawner, deciding)| (spawner.clone(), deciding.clone()));
    broker.set_producer_notice(Rc::new(move |_: &str, check: &ProducerCheck| {
        assert!((1..=CHECKS).contains(&check.half.checks), "asked for the {}th time", check.half.checks);
        let number = number_of(RecordView::cut(&check.half.record).expect("a record").0.body());
        note(&books, number, |entry| entry.questions += 1);
        let questions = books.borrow()[&number].questions;
        if let (Plan::Asked(at, decision), Some((spawner, deciding))) = (plan(number), &decides)
            && questions >= at
        {
            let (asking, books, receipt) = (asking.clone(), books.clone(), check.half.receipt);
            deciding.borrow_mut().push(spawner.spawn(async move {
                let Some(broker) = asking.upgrade() else { return };
                note(&books, number, |entry| entry.decision = Some(decision));
                let end = EndTransaction { receipt, producer_group: None, decision };
                let is_decided = broker.handle(Request::EndTransaction(end)).await.is_ok();
                note(&books, number, |entry| entry.decided |= is_decided);
            }));
        }
        true
    }));
    produces(node, key, &[GROUP]);
}

/// What has become of all halves once a producer that never knows was asked as often as that is done: those that are visible,
/// and those that were given up.
type Seen = [Vec<u64>; 2];

async fn watch(node: &Node, books: &Books) -> Option<Seen> {
    let key = key_of(node, TOPIC).await?;
    answer(node, key, books, None);
    // The clock has begun again: what was put off before seems far ahead.
    node.clock.sleep(Duration::from_secs(900)).await;
    let numbers = async |key| read(node, key).await.into_iter().map(|(number, _)| number).collect::<Vec<_>>();
    let given_up = match key_of(node, "TRANS_CHECK_MAX_TIME_TOPIC").await {
        Some(key) => numbers(key).await,
        None => Vec::new(),
    };
    Some([numbers(key).await, given_up])
}

fn check(disk: &FaultyDisk, script: &Script, books: &BTreeMap<u64, Entry>, label: &str) {
    let setup = setup(script.setup);
    let bare = disk.outcome(Restart::ProcessKill, 2);
    remove_derived(&bare, &setup);
    let asked = Rc::new(RefCell::new(books.clone()));
    let seen = on_node(disk, &setup, 1, async |node| watch(node, &asked).await);
    let Some(seen) = seen.unwrap_or_else(|error| panic!("{label}: does not start: {error}")) else {
        assert!(books.values().all(|entry| !entry.answered), "{label}: the topic is gone");
        return;
    };
    let ends = |number| {
        let count = |of: &Vec<u64>| of.iter().filter(|found| **found == number).count();
        (count(&seen[0]), count(&seen[1]))
    };
    for (number, entry) in books {
        let label = format!("{label}: {number}: {entry:?}");
        let (visible, given_up) = ends(*number);
        assert!(visible + given_up <= 1, "{label}: {visible} times visible, {given_up} times given up");
        let may_be = |decision| entry.decision == Some(decision);
        assert!(visible == 0 || may_be(Decision::Commit), "{label}: it is visible");
        let is_ended = visible + given_up == 1 || may_be(Decision::Rollback);
        assert!(is_ended || !entry.answered, "{label}: it is gone");
        if entry.decided {
            assert_eq!(visible, usize::from(may_be(Decision::Commit)), "{label}: visible");
            assert_eq!(given_up, 0, "{label}: it was decided on, and is given up");
            assert_eq!(asked.borrow()[number].questions, entry.questions, "{label}: it is asked about");
        }
        let questions = asked.borrow()[number].questions;
        assert!(questions < CHECKS + LIVES, "{label}: it was asked about {questions} times");
    }
    let known: BTreeSet<_> = books.keys().copied().collect();
    assert!(seen.iter().flatten().all(|number| known.contains(number)), "{label}: {seen:?}");
    let again = disk.outcome(Restart::PowerLoss(Survival::Nothing), 1);
    for (disk, how) in [(&again, "again"), (&bare, "from the log alone")] {
        let books = Rc::new(RefCell::new(books.clone()));
        let found = on_node(disk, &setup, 1, async |node| watch(node, &books).await);
        let found = found.unwrap_or_else(|error| panic!("{label}, {how}: {error}")).expect("the topic");
        assert_eq!(sorted(found), sorted(seen.clone()), "{label}, {how}");
    }
}

fn sorted(mut seen: Seen) -> Seen {
    seen.iter_mut().for_each(|numbers| numbers.sort_unstable());
    seen
}

fn sweep(script: &Script, plan: &FaultPlan, sample: usize) {
    let calm = FaultyDisk::new(script.seed, plan.clone());
    let books = run(&calm, script);
    let decided = books.values().filter(|entry| entry.decided).count();
    let questions: u32 = books.values().map(|entry| entry.questions).sum();
    assert!(books.len() == 12 && decided == 10 && questions >= 12, "{books:?}");
    let run = |disk: &FaultyDisk| run(disk, script);
    crashes((script.seed, plan), calm.step_count(), sample, run, |outcome, books, _, label| {
        check(outcome, script, books, label);
    });
}

#[test]
fn a_crash_at_any_step_neither_loses_nor_doubles_what_its_producer_is_asked_about() {
    sweep(&Script::small(1), &FaultPlan::none(), 23);
}

#[test]
fn a_crash_does_no_harm_to_what_is_asked_about_when_writes_are_short_and_late() {
    sweep(&Script::small(2), &FaultPlan::reordered(), 41);
}

#[test]
fn errors_of_the_log_do_no_harm_to_what_is_asked_about() {
    let run = |disk: &FaultyDisk, number| (Script::small(number), run(disk, &Script::small(number)));
    log_errors(&[3, 8, 14, 25], run, |outcome, (script, books), _, label| {
        check(outcome, script, books, label);
    });
}
