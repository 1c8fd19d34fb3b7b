//! Clients that send too slowly, or do not read what they asked for. Nobody else may notice.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use turbopump::api::{Fetch, Produce, Request};
use turbopump::client::{Client, ProtocolCore};
use turbopump::limits::{CLIENT_STALL_SECONDS, CONNECTION_ANSWER_BYTES_MAX};
use turbopump::types::{QueueKey, QueueNumber, QueueOffset, Timestamp};
use turbopump::wire::batch::BatchBuilder;
use turbopump::wire::record::Record;

use crate::is_long_run;
use crate::support::directory::test_directory;
use crate::support::http_connection::GET;
use crate::support::load::{create_topic, produce, topic};
use crate::support::machine::{report, resident_bytes};
use crate::support::node::{Node, PATIENCE, Setup};

const MIB: u64 = 1 << 20;

/// Messages of others are stored, each within this time.
const OTHERS_MAX: Duration = Duration::from_secs(2);

/// A broker with the topic of those who stall and the others.
fn serve_shared(setup: Setup) -> (Node, Client) {
    let node = setup.start();
    let mut client = node.client();
    create_topic(&mut client, "shared", 2);
    (node, client)
}

fn key(client: &mut Client) -> QueueKey {
    QueueKey { topic: client.topic(&topic("shared")).expect("it exists").id, queue: QueueNumber(0) }
}

fn check_others(node: &Node) {
    let asked = Instant::now();
    produce(node, "shared", 1, [&b"of another"[..]]);
    assert!(asked.elapsed() < OTHERS_MAX, "{:?}", asked.elapsed());
}

/// The bytes of requests, preface first.
fn bytes_of(requests: &[Request]) -> Vec<u8> {
    let mut core = ProtocolCore::new();
    for request in requests {
        core.submit(request).expect("few requests");
    }
    core.outgoing().to_vec()
}

fn produce_request(key: QueueKey, body: &[u8]) -> Request {
    let mut builder = BatchBuilder::new(Timestamp(1));
    builder.push(&Record { body, ..Record::default() });
    Request::Produce(Produce { key, level: None, batch: builder.finish().into() })
}

fn end_offset(client: &mut Client, queue: usize) -> u64 {
    client.describe_topic(&topic("shared")).expect("it exists").queues[queue].end_offset.0
}

/// One byte a second in a long run, twenty otherwise: the broker waits for each alike.
#[test]
fn a_client_that_sends_byte_by_byte_is_served_and_delays_nobody() {
    let directory = test_directory();
    let (node, mut client) = serve_shared(Setup::new(directory.path()));
    let bytes = bytes_of(&[produce_request(key(&mut client), b"slowly")]);
    let mut stream = TcpStream::connect(node.address()).expect("the broker listens");
    stream.set_nodelay(true).expect("a socket");
    // A frame must be complete within a minute: what does not fit into it comes first, in one piece.
    let (pause, slowly) = if is_long_run() { (1000, 40) } else { (50, bytes.len()) };
    let at_once = bytes.len().saturating_sub(slowly);
    stream.write_all(&bytes[..at_once]).expect("the kernel takes it");
    for (count, byte) in bytes[at_once..].iter().enumerate() {
        assert_eq!(end_offset(&mut client, 0), 0);
        stream.write_all(&[*byte]).expect("the kernel takes it");
        if count.is_multiple_of(10) {
            check_others(&node);
        }
        std::thread::sleep(Duration::from_millis(pause));
    }
    let mut answer = [0; 9];
    stream.set_read_timeout(Some(PATIENCE)).expect("a positive time");
    stream.read_exact(&mut answer).expect("a preface and an answer");
    assert_eq!(end_offset(&mut client, 0), 1);
}

/// A frame that goes on for ever, or a preface, does not hold a connection for ever.
#[test]
fn a_client_that_never_finishes_a_frame_is_dropped_after_a_minute() {
    if !is_long_run() {
        return report("skipped: a frame that is never finished takes a minute; TURBOPUMP_MANY=1 runs it");
    }
    let directory = test_directory();
    let (node, mut client) = serve_shared(Setup::new(directory.path()));
    let bytes = bytes_of(&[produce_request(key(&mut client), &[7; 1000])]);
    let mut stream = TcpStream::connect(node.address()).expect("the broker listens");
    stream.write_all(&bytes[..100]).expect("the kernel takes it");
    let begun = Instant::now();
    wait_for_end(&mut stream, Duration::from_secs(90));
    assert!(begun.elapsed() > Duration::from_secs(55), "{:?}", begun.elapsed());
}

/// A producer whose reads always end within a frame completes one after the other: it is not stalling. The watch over
/// incomplete frames once went on over all of them, and dropped it after a minute.
#[test]
fn a_busy_client_whose_frames_overlap_its_writes_is_not_dropped() {
    if !is_long_run() {
        return report("skipped: overlapping frames take more than a minute; TURBOPUMP_MANY=1 runs it");
    }
    let directory = test_directory();
    let (node, mut client) = serve_shared(Setup::new(directory.path()));
    let request = produce_request(key(&mut client), &[7; 1000]);
    let one = bytes_of(std::slice::from_ref(&request));
    let frame = bytes_of(&[request.clone(), request]).split_off(one.len());
    let mut stream = TcpStream::connect(node.address()).expect("the broker listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a positive time");
    stream.write_all(&one).expect("the kernel takes it");
    stream.write_all(&frame[..500]).expect("the kernel takes it");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(70) {
        let rest_and_half = [&frame[500..], &frame[..500]].concat();
        stream.write_all(&rest_and_half).expect("the connection lives");
        let mut answer = [0; 64];
        let count = stream.read(&mut answer).expect("answers come");
        assert!(count > 0, "the connection was ended after {:?}", begun.elapsed());
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_client_that_never_reads_is_bounded_and_then_dropped() {
    let directory = test_directory();
    let (node, mut client) = serve_shared(Setup::new(directory.path()));
    let key = key(&mut client);
    let body = vec![7; MIB as usize];
    produce(&node, "shared", 0, (0..32).map(|_| &body[..]));
    let before = resident_bytes(node.process());
    // Each answer is 4 MiB; together they would be 2 GiB.
    let wait = Duration::ZERO;
    let fetch = |index: u64| {
        let offset = QueueOffset(index % 28);
        Request::Fetch(Fetch { session: 0, key, offset, bytes_max: 4 << 20, records_max: 100, wait })
    };
    let requests: Vec<_> = (0..128).map(fetch).collect();
    let stalled = stall(&node, node.address(), &bytes_of(&requests));
    let bound = before + 4 * CONNECTION_ANSWER_BYTES_MAX as u64 + 64 * MIB;
    report(&format!(
        "four clients that do not read 512 MiB each: resident from {} to {} MiB at most",
        before / MIB,
        stalled.resident / MIB
    ));
    assert!(stalled.resident < bound, "{} of {bound} bytes", stalled.resident);
    let unread_max = 4 * CONNECTION_ANSWER_BYTES_MAX as u64;
    assert!((4 * MIB..=unread_max).contains(&stalled.unread), "{} bytes", stalled.unread);
    stalled.check_dropped(&node);
}

/// Ten kilobytes at a time, slower than the socket ever reports room: it is progress all the same. Judged by what the
/// broker could send, such a reader was once dropped after half a minute.
#[test]
fn a_client_that_reads_slowly_is_not_dropped() {
    if !is_long_run() {
        return report("skipped: outlasting the time-out takes a minute; TURBOPUMP_MANY=1 runs it");
    }
    let directory = test_directory();
    let (node, mut client) = serve_shared(Setup::new(directory.path()));
    let key = key(&mut client);
    let body = vec![7; MIB as usize];
    produce(&node, "shared", 0, (0..8).map(|_| &body[..]));
    let (offset, wait) = (QueueOffset(0), Duration::ZERO);
    let fetch = Request::Fetch(Fetch { session: 0, key, offset, bytes_max: 4 << 20, records_max: 100, wait });
    let mut stream = TcpStream::connect(node.address()).expect("the broker listens");
    stream.write_all(&bytes_of(&vec![fetch; 8])).expect("the kernel takes it");
    stream.set_read_timeout(Some(PATIENCE)).expect("a positive time");
    let begun = Instant::now();
    let mut bytes = vec![0; 10_000];
    while begun.elapsed() < Duration::from_secs(2 * CLIENT_STALL_SECONDS + 5) {
        let count = stream.read(&mut bytes).expect("the connection lives");
        assert!(count > 0, "the connection was ended after {:?}", begun.elapsed());
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(node.counter("answer_bytes_waiting") > 0, "some of it still waits");
    assert_eq!(node.counter("connections_dropped"), 0);
}

/// Over HTTP the next request is not even looked at before the last answer is out, so that what such a client holds is one
/// answer.
#[test]
fn a_client_that_never_reads_over_http_is_bounded_and_then_dropped() {
    let directory = test_directory();
    let (node, _) = serve_shared(Setup::new(directory.path()).with(&["--http", "127.0.0.1:0"]));
    let body = vec![b'x'; MIB as usize];
    produce(&node, "shared", 0, (0..64).map(|_| &body[..]));
    let before = resident_bytes(node.process());
    let request = GET.replace("orders", "shared").replace("numOfMessages=1", "numOfMessages=16");
    let address = node.http_address.as_ref().expect("it was asked for");
    let stalled = stall(&node, address, request.repeat(100).as_bytes());
    report(&format!(
        "four clients that do not read 64 MiB over HTTP: resident from {} to {} MiB at most",
        before / MIB,
        stalled.resident / MIB
    ));
    // One answer of 16 MiB each: as messages, as a document, and as bytes on their way.
    let bound = before + 4 * 3 * 17 * MIB + 64 * MIB;
    assert!(stalled.resident < bound, "{} of {bound} bytes", stalled.resident);
    assert!((4 * MIB..4 * 17 * MIB).contains(&stalled.unread), "{} bytes", stalled.unread);
    stalled.check_dropped(&node);
}

/// Four clients that ask and do not read.
struct Stalled {
    streams: Vec<TcpStream>,
    /// The most that the broker had meanwhile: in memory, and of answers that were not read.
    resident: u64,
    unread: u64,
}

/// Has four clients send `requests` to `address` and read nothing, while others are served.
fn stall(node: &Node, address: &str, requests: &[u8]) -> Stalled {
    let connect = |_| {
        let mut stream = TcpStream::connect(address).expect("the broker listens");
        stream.write_all(requests).expect("the kernel takes it");
        stream
    };
    let mut stalled = Stalled { streams: (0..4).map(connect).collect(), resident: 0, unread: 0 };
    let begun = Instant::now();
    let watched = Duration::from_secs(if is_long_run() { CLIENT_STALL_SECONDS + 8 } else { 3 });
    while begun.elapsed() < watched {
        check_others(node);
        stalled.resident = stalled.resident.max(resident_bytes(node.process()));
        stalled.unread = stalled.unread.max(node.counter("answer_bytes_waiting"));
        std::thread::sleep(Duration::from_millis(100));
    }
    stalled
}

impl Stalled {
    /// After the time for it, in a long run.
    fn check_dropped(mut self, node: &Node) {
        if !is_long_run() {
            return report("skipped: dropping takes half a minute; TURBOPUMP_MANY=1 runs it");
        }
        // What the kernel held is still there to be read; then comes the end.
        for stream in &mut self.streams {
            wait_for_end(stream, PATIENCE);
        }
        assert_eq!(node.counter("connections_dropped"), 4);
        assert_eq!(node.counter("answer_bytes_waiting"), 0);
    }
}

/// Reads to the end of a connection that the broker ends.
fn wait_for_end(stream: &mut TcpStream, patience: Duration) {
    stream.set_read_timeout(Some(patience)).expect("a positive time");
    let mut bytes = vec![0; MIB as usize];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
            Err(error) => panic!("the connection stays open: {error}"),
        }
    }
}
