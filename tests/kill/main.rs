//! The kill suite: four producers and a consumer group at work, SIGKILL at a random moment, restart, again and again over
//! one data directory. Nothing acknowledged may be lost or out of order, and no committed offset may move.
//!
//! `TURBOPUMP_KILL_ROUNDS` (5) and `TURBOPUMP_KILL_SEED` (1) scale and steer it. The moments of the kills come from the
//! seed; what the broker is at then does not.

#[path = "../support/mod.rs"]
mod support;

mod body;
mod http;
mod ledger;
mod producing;
mod reading;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use turbopump::client::Client;
use turbopump::testing::Random;
use turbopump::types::Level;

use ledger::Ledger;
use producing::Load;
use reading::Commits;
use support::directory::test_directory;
use support::load::{create_topic, topic};
use support::machine::{available_cores, report, scale};
use support::node::{Node, Setup};

const QUEUES: u32 = 8;
const PRODUCERS: u8 = 4;
const MEMBERS: usize = 2;
const TOPIC: &str = "killed";
/// Bytes that a producer sends at full speed in a round; more slowly then, so that many rounds fit on a disk.
const ROUND_BYTES: u64 = 12 << 20;

/// One data directory through all its lives.
struct Suite {
    setup: Setup,
    random: Random,
    ledger: Ledger,
    commits: Commits,
    /// From the start of the process to the answer to a first request, one for each start.
    first_answers: Vec<Duration>,
}

#[test]
fn nothing_acknowledged_is_lost_whenever_the_broker_dies() {
    let directory = test_directory();
    let rounds = scale("TURBOPUMP_KILL_ROUNDS", 5);
    let seed = scale("TURBOPUMP_KILL_SEED", 1);
    let mut suite = Suite::new(directory.path(), seed);
    let node = suite.start();
    create_topic(&mut node.client(), TOPIC, QUEUES);
    node.kill();
    for round in 0..rounds {
        suite.round(round);
    }
    let node = suite.start();
    suite.check(&node);
    suite.ledger.check_everything(&node);
    reading::finish(&node, &suite.commits);
    suite.report(rounds, seed);
    assert_eq!(node.stop().status.code(), Some(0));
}

impl Suite {
    fn new(data: &Path, seed: u64) -> Self {
        let cores = available_cores().iter().take(2).map(usize::to_string).collect::<Vec<_>>().join(",");
        Self {
            setup: Setup::new(data).with(&["--shards", "2", "--cores", &cores]),
            random: Random::new(seed),
            ledger: Ledger::new(QUEUES, PRODUCERS),
            commits: Commits::new(QUEUES),
            first_answers: Vec::new(),
        }
    }

    /// Starts the broker and notes how long it takes to answer.
    fn start(&mut self) -> Node {
        let started = Instant::now();
        let node = self.setup.start();
        node.client().list_topics().expect("the broker answers");
        self.first_answers.push(started.elapsed());
        assert!(!node.banner.contains("DAMAGED"), "{}", node.banner);
        node
    }

    fn round(&mut self, round: u64) {
        // Now and then it dies again before it has come up.
        if self.random.chance(0.3) {
            self.setup.start_and_kill(Duration::from_millis(self.random.range(0..250)));
        }
        let node = self.start();
        self.check(&node);
        let level = if round.is_multiple_of(2) { Level::Durable } else { Level::Written };
        self.load_and_kill(node, level);
    }

    /// What is stored and committed is what was answered.
    fn check(&mut self, node: &Node) {
        self.ledger.catch_up(node);
        self.commits.check(&mut node.client(), &self.ledger);
    }

    fn load_and_kill(&mut self, node: Node, level: Level) {
        let pause = Duration::from_millis(self.random.range(20..700));
        let address = node.address().to_owned();
        let dying = AtomicBool::new(false);
        let (commits, next) = (&self.commits, self.ledger.next_sequences());
        let randoms: Vec<_> = next.iter().map(|_| self.random.fork()).collect();
        let sent = std::thread::scope(|scope| {
            let producers: Vec<_> = (0..PRODUCERS)
                .zip(next.iter().zip(randoms))
                .map(|(producer, (&first, random))| {
                    let load = Load { address: &address, producer, first, level, dying: &dying };
                    scope.spawn(move || load.run(random))
                })
                .collect();
            let members: Vec<_> =
                (0..MEMBERS).map(|_| scope.spawn(|| commits.read_until_lost(&address, &dying))).collect();
            // Not to wait for something: the moment is what is tried.
            std::thread::sleep(pause);
            dying.store(true, Ordering::SeqCst);
            node.kill();
            members.into_iter().for_each(|member| member.join().expect("a member only reads"));
            producers
                .into_iter()
                .map(|producer| producer.join().expect("a producer only sends"))
                .collect::<Vec<_>>()
        });
        sent.into_iter().for_each(|sent| self.ledger.note(sent));
    }

    fn report(&mut self, rounds: u64, seed: u64) {
        self.first_answers.sort_unstable();
        let times = &self.first_answers;
        report(&format!(
            "kill suite: {rounds} rounds of seed {seed}: {} messages acknowledged, {} found, {} commits; nothing lost, \
             nothing out of order; start to first answer: median {} ms, max {} ms",
            self.ledger.acknowledged(),
            self.ledger.found(),
            self.commits.count(),
            times[times.len() / 2].as_millis(),
            times[times.len() - 1].as_millis(),
        ));
    }
}

/// A client of a broker that may be dying.
fn connect(address: &str) -> Option<Client> {
    let client = Client::connect(address, turbopump::client::Timeouts::default()).ok()?;
    Some(client)
}

/// Whether the topic is there, which a dying broker does not say.
fn knows_topic(client: &mut Client) -> bool {
    client.topic(&topic(TOPIC)).is_ok()
}
