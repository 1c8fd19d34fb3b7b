//! Peers that hold memory and do next to nothing, over every protocol and from many addresses, and who comes meanwhile.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use turbopump::api::{Fetch, Request};
use turbopump::client::{Client, Timeouts};
use turbopump::types::{QueueKey, QueueNumber, QueueOffset, TopicId};

use crate::abuse::{GoodClient, MIB, announcement, bytes_of, p99, produce_request, repeated};
use crate::support::directory::test_directory;
use crate::support::load::{create_topic, topic};
use crate::support::machine::{MemoryGroup, report, resident_bytes_max};
use crate::support::node::{Node, Setup};

const MEMORY: u64 = 512 * MIB;
/// Far more than there is memory for.
const PEERS: usize = 600;
const WATCH: Duration = Duration::from_secs(4);
/// Five times the time without, and on a machine that is busy with other tests at least this.
const OTHERS_MAX: Duration = Duration::from_secs(3);

/// What a peer sends at once, and what it sends a byte of from time to time.
struct Habit {
    first: Vec<u8>,
    then: Vec<u8>,
    is_http: bool,
}

/// A connection that sends what its habit says, and reads as little as it can.
struct Peer {
    stream: TcpStream,
    sent: usize,
}

impl Peer {
    fn open(address: &str, number: usize, habit: &Habit) -> Option<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).ok()?;
        let own = Ipv4Addr::new(127, 0, 1, (number % 250) as u8 + 1);
        socket.bind(&SocketAddr::from((own, 0)).into()).ok()?;
        let address: SocketAddr = address.parse().ok()?;
        socket.connect(&address.into()).ok()?;
        socket.set_nonblocking(true).ok()?;
        let mut peer = Self { stream: socket.into(), sent: 0 };
        peer.go_on(habit).then_some(peer)
    }

    /// Sends what is left of the first bytes, or one more, and reads a little. False when the broker has ended it.
    fn go_on(&mut self, habit: &Habit) -> bool {
        let rest = habit.first.get(self.sent..).filter(|rest| !rest.is_empty());
        let next = rest.unwrap_or_else(|| {
            let at = (self.sent - habit.first.len()) % habit.then.len().max(1);
            habit
                .then
                .get(at..(at + habit.then.len() / 8).max(at + 1).min(habit.then.len()))
                .unwrap_or_default()
        });
        match self.stream.write(next) {
            Ok(count) => self.sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
        !matches!(self.stream.read(&mut [0; 512]), Ok(0))
    }
}

fn habits(id: TopicId) -> Vec<Habit> {
    let large = [announcement(8 << 20), vec![0; 64 * 1024]].concat();
    let frame = (8u32 << 20).to_be_bytes();
    let header = br#"{"code":310,"language":"JAVA","version":0,"opaque":1,"flag":0,"extFields":{}}"#;
    let header_length = (header.len() as u32).to_be_bytes();
    let remoting = [&frame[..], &header_length, header, &vec![b'x'; 64 * 1024]].concat();
    let head = "POST /topics/good/messages HTTP/1.1\r\nHost: h\r\n";
    let body =
        [format!("{head}Content-Length: 4000000\r\n\r\n<Message>").into_bytes(), vec![b'x'; 64 * 1024]]
            .concat();
    let key = QueueKey { topic: id, queue: QueueNumber(0) };
    let fetch = Request::Fetch(Fetch {
        key,
        offset: QueueOffset(0),
        bytes_max: 4 << 20,
        records_max: 100,
        wait: Duration::ZERO,
        session: 0,
    });
    let tiny = repeated(&Request::DescribeTopic(topic("good")), 1);
    let preface = bytes_of(&[]).len();
    let drop_by_drop = vec![b'x'; 4096];
    let habit =
        |first: &[u8], then: &[u8], is_http| Habit { first: first.to_vec(), then: then.to_vec(), is_http };
    vec![
        habit(&large, &drop_by_drop, false),
        habit(&announcement(8 << 20), &drop_by_drop, false),
        habit(&remoting, &drop_by_drop, false),
        habit(&body, &drop_by_drop, true),
        habit(head.as_bytes(), b"X-Name: value\r\n", true),
        habit(&repeated(&fetch, 4), b"", false),
        habit(&tiny, &tiny[preface..].repeat(8), false),
    ]
}

/// Keeps all of them going until it is told to stop, and opens a new one in the place of each that the broker ends.
fn go_on(node: &Node, habits: &[Habit], stop: &AtomicBool) -> usize {
    let http = node.http_address.as_ref().expect("it was asked for");
    let mut peers: Vec<Option<Peer>> = (0..PEERS).map(|_| None).collect();
    let mut opened = 0;
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        for (number, peer) in peers.iter_mut().enumerate() {
            let habit = &habits[number % habits.len()];
            if peer.as_mut().is_none_or(|peer| !peer.go_on(habit)) {
                let address = if habit.is_http { http } else { node.address() };
                *peer = Peer::open(address, number, habit);
                opened += 1;
            }
        }
        std::thread::sleep(Duration::from_secs(1).saturating_sub(begun.elapsed()));
    }
    opened
}

/// How many of those that come are let in.
fn newcomers(node: &Node, stop: &AtomicBool) -> (usize, usize) {
    let (mut served, mut all) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let answer = Client::connect(node.address(), Timeouts::default())
            .and_then(|mut client| client.topic(&topic("good")));
        served += usize::from(answer.is_ok());
        all += 1;
        std::thread::sleep(Duration::from_millis(50));
    }
    (served, all)
}

#[test]
fn peers_that_do_next_to_nothing_keep_nobody_out() {
    let directory = test_directory();
    let group = MemoryGroup::make(MEMORY);
    let setup = Setup::new(directory.path()).with(&["--http", "127.0.0.1:0", "--client-memory", "64MiB"]);
    let setup = setup.with(&["--tail-cache-bytes", "16MiB"]);
    let mut node = group.iter().fold(setup, |setup, group| setup.in_memory_group(group)).start();
    create_topic(&mut node.client(), "good", 1);
    create_topic(&mut node.client(), "large", 1);
    let large = node.client().topic(&topic("large")).expect("it exists").id;
    let key = QueueKey { topic: large, queue: QueueNumber(0) };
    let body = vec![b'x'; 4_000_000];
    node.client().call_owner(key.queue, &produce_request(key, "", &body)).expect("it is stored");
    let good = || GoodClient::start(node.address(), "good", 0);
    let calm = good();
    std::thread::sleep(WATCH);
    let calm = p99(calm.stop());
    let (habits, stop) = (habits(large), AtomicBool::new(false));
    let (disturbed, opened, (served, all)) = std::thread::scope(|scope| {
        let working = good();
        let abusing = scope.spawn(|| go_on(&node, &habits, &stop));
        std::thread::sleep(WATCH);
        let coming = scope.spawn(|| newcomers(&node, &stop));
        std::thread::sleep(2 * WATCH);
        stop.store(true, Ordering::Relaxed);
        (p99(working.stop()), abusing.join().expect("it only sends"), coming.join().expect("it only asks"))
    });
    let most = resident_bytes_max(node.process());
    report(&format!(
        "{PEERS} peers that do next to nothing, {opened} connections: {} MiB resident at most; a round takes others {calm:?} \
         without and {disturbed:?} with it (p99); {served} of {all} newcomers were served; ended for memory {}, refused {}",
        most / MIB,
        node.counter("ended_for_memory"),
        node.counter("refused_for_memory")
    ));
    assert!(!node.has_ended(), "the broker lives");
    assert!(most < MEMORY, "{} MiB", most / MIB);
    assert!(disturbed < OTHERS_MAX.max(5 * calm), "{calm:?} to {disturbed:?}");
    assert!(10 * served >= 9 * all, "{served} of {all} newcomers were served");
}
