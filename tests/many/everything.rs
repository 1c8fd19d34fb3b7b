//! All of it at once, against a broker that has little memory.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use turbopump::api::{Fetch, FindMessages, Request, Watch};
use turbopump::limits::{FRAME_BYTES_MAX, WATCH_QUEUES_MAX};
use turbopump::types::{QueueKey, QueueNumber, QueueOffset, Timestamp, TopicId};

use crate::abuse::{GoodClient, MIB, announcement, join_request, p99, produce_request, repeated, send_some};
use crate::support::directory::test_directory;
use crate::support::load::{create_topic, topic};
use crate::support::machine::{MemoryGroup, report, resident_bytes, resident_bytes_max};
use crate::support::node::{Node, Setup};

const MEMORY: u64 = 512 * MIB;
const SHARDS: usize = 4;
const WATCH: Duration = Duration::from_secs(4);
/// Five times the time without, and on a machine that is busy with other tests at least this.
const OTHERS_MAX: Duration = Duration::from_secs(1);

/// Four shards in 512 MiB, and clients that do everything that was ever found to take gigabytes, on every shard. One that
/// publishes, receives and acknowledges goes on meanwhile.
#[test]
fn a_broker_with_little_memory_serves_on_whatever_clients_do() {
    let directory = test_directory();
    let group = MemoryGroup::make(MEMORY);
    let setup =
        Setup::new(directory.path()).with(&["--shards", "4", "--cores", "0,1", "--http", "127.0.0.1:0"]);
    let mut node = match &group {
        Some(group) => setup.in_memory_group(group).start(),
        None => {
            report("this process may not make control groups: the broker is told its memory, and watched");
            setup.with(&["--client-memory", "256MiB", "--tail-cache-bytes", "16MiB"]).start()
        }
    };
    let abuse = Abuse::prepare(&node);
    let before = resident_bytes(node.process());
    let good = |queue| GoodClient::start(node.address(), "good", queue);
    let calm = good(0);
    std::thread::sleep(WATCH);
    let calm = p99(calm.stop());
    let stop = AtomicBool::new(false);
    let disturbed = std::thread::scope(|scope| {
        let working: Vec<_> = [0, 1].into_iter().map(good).collect();
        scope.spawn(|| abuse.go_on(&node, &stop));
        std::thread::sleep(2 * WATCH);
        stop.store(true, Ordering::Relaxed);
        let rounds = working.into_iter().flat_map(GoodClient::stop);
        p99(rounds.collect())
    });
    let most = resident_bytes_max(node.process());
    report(&format!(
        "everything at once in {} MiB: resident from {} to {} MiB at most; a round takes others {calm:?} without and \
         {disturbed:?} with it (p99)",
        MEMORY / MIB,
        before / MIB,
        most / MIB
    ));
    assert!(!node.has_ended(), "the broker lives");
    assert!(most < MEMORY, "{} MiB", most / MIB);
    assert!(disturbed < OTHERS_MAX.max(5 * calm), "{calm:?} to {disturbed:?}");
}

/// What is sent again and again.
struct Abuse {
    requests: Vec<Vec<u8>>,
}

impl Abuse {
    /// Makes the topics and messages that it is done with.
    fn prepare(node: &Node) -> Self {
        let mut client = node.client();
        create_topic(&mut client, "good", SHARDS as u32);
        create_topic(&mut client, "wide", 65_536);
        create_topic(&mut client, "large", SHARDS as u32);
        let large = client.topic(&topic("large")).expect("it exists").id;
        let wide = client.topic(&topic("wide")).expect("it exists").id;
        for queue in (0..SHARDS as u32).map(QueueNumber) {
            let key = QueueKey { topic: large, queue };
            let body = vec![b'"'; (4 << 20) - 1000];
            client.call_owner(queue, &produce_request(key, "k", &body)).expect("it is stored");
        }
        let find = Request::FindMessages(FindMessages::Key {
            topic: topic("large"),
            key: "k".to_owned(),
            count: 64,
            from: Timestamp(0),
            to: Timestamp(u64::MAX),
            before: Vec::new(),
        });
        let half = [announcement(FRAME_BYTES_MAX as u32), vec![0; FRAME_BYTES_MAX / 4]].concat();
        let twice = std::iter::repeat_n("wide".to_owned(), 1_000);
        let requests = vec![
            announcement(FRAME_BYTES_MAX as u32),
            half,
            repeated(&find, 200),
            repeated(&Request::DescribeTopic(topic("wide")), 100),
            fetches(large),
            watches(wide),
            repeated(&join_request("g", "m", twice), 10),
            repeated(&join_request("h", "m", ["wide".to_owned()].into_iter()), 50),
        ];
        Self { requests }
    }

    /// Sends all of it to every shard, keeps some of the connections and drops others, until it is told to stop.
    fn go_on(&self, node: &Node, stop: &AtomicBool) {
        let mut kept: Vec<TcpStream> = Vec::new();
        for turn in 0usize.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let address = &node.addresses[turn % node.addresses.len()];
            for bytes in &self.requests {
                kept.push(send_some(address, bytes));
            }
            for _ in 0..20 {
                kept.push(send_some(address, &announcement(FRAME_BYTES_MAX as u32)));
            }
            let http = node.http_address.as_ref().expect("it was asked for");
            for number in 0..10 {
                // Four messages of 4 MiB that are to be escaped, for groups that nobody knew: leased, and never read.
                kept.push(send_some(http, &receive(&format!("large-{turn}-{number}"), "")));
                // And what finds nothing, for as many groups as there are turns.
                kept.push(send_some(http, &receive(&format!("empty-{turn}-{number}"), "&tag=nobody")));
            }
            if kept.len() > 600 {
                kept.drain(..300);
            }
        }
    }
}

/// A long poll of a group over HTTP.
fn receive(group: &str, tag: &str) -> Vec<u8> {
    let query = format!("consumer={group}&numOfMessages=16&waitseconds=30{tag}");
    format!("GET /topics/large/messages?{query} HTTP/1.1\r\nHost: h\r\n\r\n").into_bytes()
}

/// Fetches that wait for what does not come, and some that are answered with 4 MiB.
fn fetches(topic: TopicId) -> Vec<u8> {
    let fetch = |queue, offset, wait| {
        let key = QueueKey { topic, queue: QueueNumber(queue) };
        let wait = Duration::from_secs(wait);
        Request::Fetch(Fetch {
            key,
            offset: QueueOffset(offset),
            bytes_max: 4 << 20,
            records_max: 100,
            wait,
            session: 0,
        })
    };
    let mut bytes = repeated(&fetch(0, 0, 0), 40);
    for request in [fetch(1, 1, 60), fetch(2, 1, 60), fetch(3, 0, 0)] {
        bytes.extend(&repeated(&request, 60)[8..]);
    }
    bytes
}

fn watches(topic: TopicId) -> Vec<u8> {
    let place = |queue| (QueueKey { topic, queue: QueueNumber(queue) }, QueueOffset(0));
    let queues = (0..WATCH_QUEUES_MAX as u32).map(|queue| place(SHARDS as u32 * queue)).collect();
    repeated(&Request::Watch(Watch { queues, wait: Duration::from_secs(60) }), 50)
}
