//! Clients that ask for much with little, and one that only wants to get its work done.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use turbopump::api::{ClientProtocol, Filter, JoinGroup, Produce, Receive, Request, SessionLife};
use turbopump::client::{Client, ProtocolCore, Timeouts};
use turbopump::types::{QueueKey, QueueNumber, Timestamp, TopicId};
use turbopump::wire::batch::BatchBuilder;
use turbopump::wire::frame;
use turbopump::wire::record::Record;

use crate::support::load::topic;
use crate::support::node::PATIENCE;

pub const MIB: u64 = 1 << 20;

/// The bytes of requests, preface first.
pub fn bytes_of(requests: &[Request]) -> Vec<u8> {
    let mut core = ProtocolCore::new();
    for request in requests {
        core.submit(request).expect("few requests");
    }
    core.outgoing().to_vec()
}

/// The same request many times.
pub fn repeated(request: &Request, count: usize) -> Vec<u8> {
    let preface = frame::preface().len();
    let once = bytes_of(std::slice::from_ref(request));
    [&once[..preface], &once[preface..].repeat(count)].concat()
}

/// Sends `bytes` on a new connection and leaves it at that.
pub fn send(address: &str, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the broker listens");
    stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.write_all(bytes).expect("the kernel takes it");
    stream
}

/// Sends as much of `bytes` as is taken: a broker that has had enough does not read on.
pub fn send_some(address: &str, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the broker listens");
    stream.set_write_timeout(Some(Duration::from_millis(200))).expect("a socket");
    // Refused half way is as good.
    let _ = stream.write_all(bytes);
    stream
}

/// The beginning of a connection whose first frame announces `frame_bytes`: 24 bytes.
pub fn announcement(frame_bytes: u32) -> Vec<u8> {
    let mut bytes = frame::preface().to_vec();
    bytes.extend(frame_bytes.to_le_bytes());
    bytes.extend([0; 12]);
    bytes
}

/// A batch of one message.
pub fn produce_request(key: QueueKey, key_text: &str, body: &[u8]) -> Request {
    let mut builder = BatchBuilder::new(Timestamp(1));
    builder.push(&Record { body, key: key_text.as_bytes(), ..Record::default() });
    Request::Produce(Produce { key, level: None, batch: builder.finish().into() })
}

pub fn join_request(group: &str, member: &str, topics: impl Iterator<Item = String>) -> Request {
    Request::JoinGroup(JoinGroup {
        group: group.parse().expect("a name"),
        member: member.to_owned(),
        topics: topics.map(|name| topic(&name)).collect(),
        session_timeout: Duration::from_secs(10),
        generation: 0,
        life: SessionLife::Timed,
    })
}

/// Reads until the peer has nothing more to say, and returns what it said.
pub fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Ended by a reset, it is an end as well.
    let _ = stream.read_to_end(&mut bytes);
    bytes
}

/// What a round takes: to publish, to receive, and to acknowledge.
pub type Round = [Duration; 3];

/// A client that publishes, receives and acknowledges one message after the other, and takes the time of each.
pub struct GoodClient {
    stop: Arc<AtomicBool>,
    working: JoinHandle<Vec<Round>>,
}

impl GoodClient {
    /// Works in one queue of `name` until it is told to stop.
    pub fn start(address: &str, name: &'static str, queue: u32) -> Self {
        let mut client = Client::connect(address, Timeouts::default()).expect("the broker takes it");
        let topic_id = client.topic(&topic(name)).expect("it exists").id;
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let working = std::thread::spawn(move || {
            let mut rounds = Vec::new();
            while !told.load(Ordering::Relaxed) {
                rounds.push(round(&mut client, name, topic_id, queue));
            }
            rounds
        });
        Self { stop, working }
    }

    /// The time of each round so far.
    pub fn stop(self) -> Vec<Duration> {
        self.stop_and_tell().iter().map(|parts| parts.iter().sum()).collect()
    }

    /// The times of each round so far.
    pub fn stop_and_tell(self) -> Vec<Round> {
        self.stop.store(true, Ordering::Relaxed);
        self.working.join().expect("its work is done")
    }
}

/// Publishes a message, receives it and acknowledges it.
fn round(client: &mut Client, name: &str, id: TopicId, queue: u32) -> Round {
    let began = Instant::now();
    let key = QueueKey { topic: id, queue: QueueNumber(queue) };
    let publish = produce_request(key, "", b"good");
    client.call_owner(key.queue, &publish).expect("the broker stores it");
    let published = Instant::now();
    let receive = Receive {
        group: "good".parse().expect("a name"),
        topic: topic(name),
        scope: Some(key.queue).into(),
        filter: Filter::default(),
        count: 1,
        bytes_max: 1 << 20,
        wait: Duration::from_secs(10),
        lease: None,
        ordered: false,
        protocol: ClientProtocol::Native,
    };
    let received = client.receive(receive).expect("the broker answers");
    assert_eq!(received.len(), 1, "what was published is received");
    let done = Instant::now();
    let receipts: Vec<_> = received.iter().map(|message| message.receipt).collect();
    client.acknowledge(&"good".parse().expect("a name"), &receipts).expect("the broker answers");
    [published - began, done - published, done.elapsed()]
}

/// The 99th percentile.
pub fn p99(mut times: Vec<Duration>) -> Duration {
    assert!(times.len() >= 20, "{} rounds say nothing", times.len());
    times.sort();
    times[times.len() * 99 / 100]
}
