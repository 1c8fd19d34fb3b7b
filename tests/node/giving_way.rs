//! Connections that hold memory and get no further give way to others, whatever they speak.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use turbopump::limits;
use turbopump::wire::frame;

use crate::support::directory::test_directory;
use crate::support::http_connection::{Connection, GET, POST, tls};
use crate::support::node::{Node, PATIENCE, Setup, wait_for};

const CERTIFICATE: &str = include_str!("../data/tls/certificate.pem");
/// What connections have of 16 MiB.
const SHARE: usize = (16 << 20) / 17 * 2;
/// What a connection within TLS has of that.
const TLS_BYTES: usize = limits::CONNECTION_BYTES + limits::TLS_CONNECTION_BYTES;
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

fn setup(directory: &Path) -> Setup {
    let files = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls");
    let (certificate, key) = (format!("{files}/certificate.pem"), format!("{files}/key.pem"));
    let memory = ["--client-memory", "16MiB", "--http", "127.0.0.1:0"];
    let secured = ["--tls-certificate", &certificate, "--tls-key", &key];
    Setup::new(directory.join("data")).with(&memory).with(&secured)
}

fn start(directory: &Path) -> Node {
    setup(directory).start()
}

fn connect(address: &str, from: Ipv4Addr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((from, 0)).into()).expect("an address of this machine");
    let address: SocketAddr = address.parse().expect("an address");
    socket.connect(&address.into()).expect("the broker listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a positive time");
    socket.into()
}

/// Others are served soon, at every door, while those who came before hold all that there is. Returns these.
fn check_others<T>(node: &Node, what: &str, hold: impl FnOnce() -> Vec<T>) -> Vec<T> {
    let ended = ended_for_memory(node, what);
    let held = hold();
    let begun = Instant::now();
    wait_for("others are served", || node.run(&["topic", "list"]).code == Some(0));
    let http = node.http_address.as_ref().expect("it was asked for");
    wait_for("others are served over HTTP", || {
        let mut connection = Connection::over(connect(http, Ipv4Addr::LOCALHOST));
        connection.stream.write_all(GET.as_bytes()).is_ok()
            && connection.next().is_some_and(|answer| answer.status < 500)
    });
    wait_for("others are served within TLS", || {
        let Ok(mut secured) = tls(connect(node.address(), Ipv4Addr::LOCALHOST), CERTIFICATE, &[]) else {
            return false;
        };
        secured.write_all(&frame::preface()).is_ok() && secured.read(&mut [0; 8]).is_ok_and(|count| count > 0)
    });
    assert!(begun.elapsed() < Duration::from_secs(20), "{what}: {:?}", begun.elapsed());
    assert!(ended_for_memory(node, what) > ended, "{what}: nobody of {} had to go", held.len());
    held
}

/// What those have been told whose connections were ended.
fn told(held: &[TcpStream]) -> Vec<Vec<u8>> {
    let answer_of = |mut stream: &TcpStream| {
        stream.set_nonblocking(true).expect("a socket");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).is_ok().then_some(answer)
    };
    held.iter().filter_map(answer_of).collect()
}

/// Whoever was ended knows why, and that it may try again.
fn check_told(what: &str, held: &[TcpStream]) {
    let told = told(held);
    assert!(!told.is_empty(), "{what}: nobody was ended in order");
    for answer in told {
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 503 "), "{what}: {answer:?}");
        assert!(answer.to_lowercase().contains("connection: close"), "{what}: {answer:?}");
    }
}

/// Asked as somebody who finds no room at first.
fn ended_for_memory(node: &Node, what: &str) -> u64 {
    let asked = || node.run(&["status", "-o", "json"]);
    let mut answer = None;
    let deadline = Instant::now() + PATIENCE;
    while answer.is_none() {
        assert!(Instant::now() < deadline, "{what}: nobody is let in");
        answer = Some(asked()).filter(|outcome| outcome.code == Some(0));
    }
    let status = answer.expect("it was answered").json();
    status["shards"][0]["counters"]["ended_for_memory"].as_u64().expect("it is counted")
}

/// Half a request, of any protocol, and TLS around nothing.
#[test]
fn half_requests_over_http_and_sessions_without_a_word_give_way() {
    let directory = test_directory();
    let node = start(directory.path());
    let http = node.http_address.clone().expect("it was asked for");
    let body = format!("{POST}Content-Length: 1000\r\n\r\n<Message>");
    let head = &GET[..GET.len() - 2];
    for (what, bytes) in [("half a head", head), ("half a body", &body)] {
        let open = |_| {
            let mut stream = connect(&http, Ipv4Addr::LOCALHOST);
            stream.write_all(bytes.as_bytes()).expect("the kernel takes it");
            stream
        };
        let held =
            check_others(&node, what, || (0..SHARE / limits::CONNECTION_BYTES + 20).map(open).collect());
        check_told(what, &held);
    }
    let silent = |_| tls(connect(node.address(), Ipv4Addr::LOCALHOST), CERTIFICATE, &[]).ok();
    let held =
        check_others(&node, "TLS without a word", || (0..SHARE / TLS_BYTES + 10).map(silent).collect());
    let ends = held.into_iter().flatten().filter_map(|mut stream| {
        stream.sock.set_nonblocking(true).expect("a socket");
        match stream.read(&mut [0; 8]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            end => Some(end.map_err(|error| error.kind())),
        }
    });
    let ends: Vec<_> = ends.collect();
    assert!(!ends.is_empty() && ends.iter().all(|end| *end == Ok(0)), "cut off, and not ended: {ends:?}");
}

/// Handshakes that their clients do not go on with, from an address that has many of them. Those for which there is no room
/// later are told the same.
#[test]
fn handshakes_that_give_way_end_with_an_alert() {
    let directory = test_directory();
    let node = start(directory.path());
    let open = |_| {
        let mut stream = connect(node.address(), OTHER);
        // The first bytes of a handshake's record, of which no more comes.
        stream.write_all(&[0x16, 3, 1, 2, 0, 1]).expect("the kernel takes it");
        stream
    };
    let held = check_others(&node, "half handshakes", || (0..SHARE / TLS_BYTES + 10).map(open).collect());
    let told = told(&held);
    assert!(!told.is_empty(), "nobody was ended in order");
    for answer in told {
        let text = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(&[0x15, 3, 3, 0, 2, 2, 80]), "{text:?}");
        assert!(text.contains("--client-memory"), "{text:?}");
    }
}

/// Long polls, from an address that has many of them. None of them is given anything, and they are told that it was not for
/// want of messages.
#[test]
fn those_that_wait_over_http_give_way_with_an_answer() {
    let directory = test_directory();
    let node = setup(directory.path()).with(&["--tls-mode", "permissive"]).start();
    assert_eq!(node.run(&["topic", "create", "quiet"]).code, Some(0));
    let http = node.http_address.clone().expect("it was asked for");
    let open = |number| {
        let mut stream = connect(&http, OTHER);
        let query = format!("consumer=g{number}&numOfMessages=1&waitseconds=30");
        let request = format!("GET /topics/quiet/messages?{query} HTTP/1.1\r\nHost: h\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("the kernel takes it");
        stream
    };
    let count = SHARE / limits::CONNECTION_BYTES + 20;
    let held = check_others(&node, "long polls", || (0..count).map(open).collect());
    check_told("long polls", &held);
}

/// Requests that were answered long since, from an address that has many of them.
#[test]
fn those_at_rest_over_http_give_way_where_one_address_has_many() {
    let directory = test_directory();
    let node = start(directory.path());
    let http = node.http_address.clone().expect("it was asked for");
    let open = |_| {
        let mut connection = Connection::over(connect(&http, OTHER));
        let is_sent = connection.stream.write_all(GET.as_bytes()).is_ok();
        (is_sent && connection.next().is_some()).then_some(connection)
    };
    check_others(&node, "at rest", || (0..SHARE / limits::CONNECTION_BYTES + 20).map(open).collect());
}
