//! The kill suite over HTTP: publishers of plain, delayed and ordered messages and of transactions, receivers that
//! acknowledge part of what they get, and SIGKILL at a random moment, again and again over one data directory.
//!
//! What was answered with 201 is delivered, what was answered with 204 never comes again, order per key holds, delayed
//! messages come neither early nor not at all, and a half is seen when its commit was asked for and only then.
//!
//! Scaled and steered as the suite beside it.

mod books;
mod connection;
mod ordering;
mod publishing;
mod receiving;
mod tag;
mod transactions;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use turbopump::client::Start;
use turbopump::testing::Random;
use turbopump::types::QueueOffset;

use crate::support::directory::test_directory;
use crate::support::load::{create_topic, read};
use crate::support::machine::{available_cores, report, scale};
use crate::support::node::{Node, PATIENCE, Setup};
use books::Books;
use connection::{Connection, now_ms};
use receiving::Kept;
use tag::{Kind, Tag};

const PLAIN_TOPIC: &str = "plain";
const ORDERED_TOPIC: &str = "ordered";
const TRANSACTION_TOPIC: &str = "transactions";
const TOPICS: [&str; 3] = [PLAIN_TOPIC, ORDERED_TOPIC, TRANSACTION_TOPIC];
const QUEUES: u32 = 6;
/// On both shards.
const ORDERED_KEYS: [&str; 3] = ["first", "second", "third"];
const PUBLISHERS: u8 = 2;
const RECEIVERS: usize = 2;

const LEASE_MS: u64 = 2_000;
const ORDERED_LEASE_MS: u64 = 1_000;
const TRANSACTION_IMMUNITY_MS: u64 = 1_000;
const FLAGS: [&str; 14] = [
    "--shards",
    "2",
    "--http",
    "127.0.0.1:0",
    "--lease",
    "2s",
    "--ordered-lease",
    "1s",
    "--deliveries",
    "1000000",
    "--transaction-immunity",
    "1s",
    "--transaction-check-interval",
    "1s",
];
/// A released message enters its queue within this.
const LATENESS_MS: u64 = 2_000;

/// What the threads of one life share.
struct Scene<'a> {
    address: &'a str,
    books: &'a Books,
    /// The end: nothing is left undone.
    drains: bool,
    /// Set before the broker is killed, or when everything is drained.
    ended: &'a AtomicBool,
}

impl Scene<'_> {
    /// Work under a kill goes on until there is no broker.
    fn goes_on(&self) -> bool {
        !self.drains || !self.ended.load(Ordering::SeqCst)
    }

    fn spawn<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        role: impl FnOnce(&Self) -> std::io::Result<()> + Send + 'scope,
    ) -> ScopedJoinHandle<'scope, ()> {
        scope.spawn(move || {
            if let Err(error) = role(self) {
                let is_expected = !self.drains && self.ended.load(Ordering::SeqCst);
                assert!(is_expected, "the broker lives, but {error}");
            }
        })
    }
}

/// One data directory through all its lives.
struct Suite {
    setup: Setup,
    random: Random,
    books: Books,
    kept: Kept,
    /// What was read of each queue of each topic.
    ends: [[u64; QUEUES as usize]; TOPICS.len()],
    /// From the start of the process to the answer to a first request.
    first_answers: Vec<Duration>,
}

#[test]
fn http_keeps_its_promises_whenever_the_broker_dies() {
    let directory = test_directory();
    let rounds = scale("TURBOPUMP_KILL_ROUNDS", 5);
    let seed = scale("TURBOPUMP_KILL_SEED", 1);
    let mut suite = Suite::new(directory.path(), seed);
    let node = suite.start();
    TOPICS.into_iter().for_each(|topic| create_topic(&mut node.client(), topic, QUEUES));
    node.kill();
    for _ in 0..rounds {
        suite.round();
    }
    let node = suite.start();
    suite.check(&node, 0);
    suite.drain(&node);
    suite.check(&node, now_ms() - LATENESS_MS);
    suite.report(rounds, seed);
    assert_eq!(node.stop().status.code(), Some(0));
}

impl Suite {
    fn new(data: &Path, seed: u64) -> Self {
        let cores = available_cores().iter().take(2).map(usize::to_string).collect::<Vec<_>>().join(",");
        Self {
            setup: Setup::new(data).with(&FLAGS).with(&["--cores", &cores]),
            random: Random::new(seed),
            books: Books::default(),
            kept: Kept::default(),
            ends: Default::default(),
            first_answers: Vec::new(),
        }
    }

    /// Starts the broker and notes how long it takes to answer.
    fn start(&mut self) -> Node {
        let started = Instant::now();
        let node = self.setup.start();
        let target = "/topics/nothing/messages?consumer=nobody&numOfMessages=1";
        let answer = Connection::open(address_of(&node))
            .and_then(|mut connection| connection.request("GET", target, ""));
        assert_eq!(answer.expect("the broker answers").status, 404);
        self.first_answers.push(started.elapsed());
        assert!(!node.banner.contains("DAMAGED"), "{}", node.banner);
        node
    }

    fn round(&mut self) {
        // Now and then it dies again before it has come up.
        if self.random.chance(0.2) {
            self.setup.start_and_kill(Duration::from_millis(self.random.range(0..250)));
        }
        let node = self.start();
        self.check(&node, 0);
        let pause = Duration::from_millis(self.random.range(50..1500));
        let (ended, address) = (AtomicBool::new(false), address_of(&node).to_owned());
        let scene = Scene { address: &address, books: &self.books, drains: false, ended: &ended };
        let (random, kept) = (&mut self.random, &self.kept);
        std::thread::scope(|scope| {
            let mut roles = spawn_publishers(&scene, scope, random);
            roles.extend(spawn_receivers(&scene, scope, kept, random));
            // Not to wait for something: the moment is what is tried.
            std::thread::sleep(pause);
            ended.store(true, Ordering::SeqCst);
            node.kill();
            roles.into_iter().for_each(|role| role.join().expect("every promise is kept"));
        });
    }

    /// Reads what is new in the queues, past all leases: all that was promised is there, once, and nothing else.
    fn check(&mut self, node: &Node, due_ms: u64) {
        for (topic, ends) in TOPICS.into_iter().zip(&mut self.ends) {
            for (queue, end) in (0..).zip(ends) {
                let start = Start::Offset(QueueOffset(*end));
                for message in read(node.client(), topic, Some(queue), start) {
                    assert_eq!(message.offset, *end, "{topic} {queue} has a gap");
                    let tag = Tag::of_body(std::str::from_utf8(&message.body).expect("text"));
                    assert_eq!(topic_of(tag.kind), topic, "{tag} is elsewhere");
                    self.books.found(tag);
                    *end += 1;
                }
            }
        }
        self.books.check_queues(due_ms);
    }

    /// Receives, acknowledges and decides until nothing is left to be done, and then for another lease's time, in which
    /// nothing may come.
    fn drain(&mut self, node: &Node) {
        let ended = AtomicBool::new(false);
        let scene = Scene { address: address_of(node), books: &self.books, drains: true, ended: &ended };
        let (random, kept, books) = (&mut self.random, &self.kept, &self.books);
        std::thread::scope(|scope| {
            let roles = spawn_receivers(&scene, scope, kept, random);
            // For as long as there are ever fewer: a fast disk takes more in the rounds than is received in any fixed time.
            let mut deadline = Instant::now() + PATIENCE;
            let has_failed = || roles.iter().any(ScopedJoinHandle::is_finished);
            let mut unfinished = books.unfinished();
            while !unfinished.is_empty() && Instant::now() < deadline && !has_failed() {
                std::thread::sleep(Duration::from_millis(20));
                let left = books.unfinished();
                if left.len() < unfinished.len() {
                    deadline = Instant::now() + PATIENCE;
                }
                unfinished = left;
            }
            if unfinished.is_empty() {
                std::thread::sleep(Duration::from_millis(LEASE_MS + 500));
            }
            ended.store(true, Ordering::SeqCst);
            roles.into_iter().for_each(|role| role.join().expect("every promise is kept"));
            let left: Vec<_> = unfinished.iter().take(5).map(|tag| books.describe(*tag)).collect();
            assert!(unfinished.is_empty(), "{} do not come to their end: {left:#?}", unfinished.len());
        });
    }

    fn report(&mut self, rounds: u64, seed: u64) {
        self.first_answers.sort_unstable();
        let times = &self.first_answers;
        let [answered, acknowledged, decided] = self.books.counts();
        report(&format!(
            "kill suite over HTTP: {rounds} rounds of seed {seed}: {answered} messages answered, {acknowledged} \
             acknowledged, {decided} transactions decided; every promise kept; start to first answer: median {} ms, max \
             {} ms",
            times[times.len() / 2].as_millis(),
            times[times.len() - 1].as_millis(),
        ));
    }
}

fn spawn_publishers<'scope>(
    scene: &'scope Scene<'_>,
    scope: &'scope Scope<'scope, '_>,
    random: &mut Random,
) -> Vec<ScopedJoinHandle<'scope, ()>> {
    let mut roles = Vec::new();
    for sender in 0..PUBLISHERS {
        let (one, other) = (random.fork(), random.fork());
        roles.push(scene.spawn(scope, move |scene| publishing::plain(scene, sender, one)));
        roles.push(scene.spawn(scope, move |scene| transactions::publisher(scene, sender, other)));
    }
    for key in 0..ORDERED_KEYS.len() as u8 {
        roles.push(scene.spawn(scope, move |scene| publishing::ordered(scene, key)));
    }
    roles
}

fn spawn_receivers<'scope>(
    scene: &'scope Scene<'_>,
    scope: &'scope Scope<'scope, '_>,
    kept: &'scope Kept,
    random: &mut Random,
) -> Vec<ScopedJoinHandle<'scope, ()>> {
    let mut roles = Vec::new();
    for _ in 0..RECEIVERS {
        let (one, other) = (random.fork(), random.fork());
        roles.push(scene.spawn(scope, move |scene| receiving::unordered(scene, kept, one)));
        roles.push(scene.spawn(scope, move |scene| receiving::ordered(scene, other)));
    }
    let random = random.fork();
    roles.push(scene.spawn(scope, move |scene| transactions::asked(scene, random)));
    roles
}

/// The topic that a message of this kind goes to.
fn topic_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Plain | Kind::Delayed => PLAIN_TOPIC,
        Kind::Ordered => ORDERED_TOPIC,
        Kind::Half => TRANSACTION_TOPIC,
    }
}

fn address_of(node: &Node) -> &str {
    node.http_address.as_deref().expect("HTTP was asked for")
}
