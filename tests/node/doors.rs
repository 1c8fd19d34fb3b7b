//! Every address, every protocol, within TLS and without.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use turbopump::api::{Failure, Reply, Request, Status};
use turbopump::client::{CoreError, ProtocolCore};
use turbopump::limits;
use turbopump::wire::frame;

use crate::support::directory::test_directory;
use crate::support::http_connection::{Connection, GET, publish, tls};
use crate::support::node::{Node, PATIENCE, Setup, wait_for};

const CERTIFICATE: &str = include_str!("../data/tls/certificate.pem");
const KEY: &str = include_str!("../data/tls/key.pem");
const OTHER_CERTIFICATE: &str = include_str!("../data/tls/other-certificate.pem");
const OTHER_KEY: &str = include_str!("../data/tls/other-key.pem");

const HTTP: [&str; 4] = ["--http", "127.0.0.1:0", "--node-listen", "127.0.0.1:0"];

fn secured(directory: &Path) -> Setup {
    let (certificate, key) = (directory.join("certificate.pem"), directory.join("key.pem"));
    std::fs::write(&certificate, CERTIFICATE).expect("a directory of this test");
    std::fs::write(&key, KEY).expect("a directory of this test");
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    Setup::new(directory.join("data")).with(&[
        "--tls-certificate",
        &text(&certificate),
        "--tls-key",
        &text(&key),
    ])
}

fn doors(node: &Node) -> [String; 3] {
    let named = |address: &Option<String>| address.clone().expect("it was asked for");
    [node.address().to_owned(), named(&node.node_address), named(&node.http_address)]
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the broker listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a positive time");
    stream.set_nodelay(true).expect("a socket");
    stream
}

/// Byte by byte, each in a packet of its own.
struct OneByOne(TcpStream);

impl Read for OneByOne {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        self.0.read(output)
    }
}

impl Write for OneByOne {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(&bytes[..bytes.len().min(1)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A native request over any stream. The error is the broker's last word on the connection.
fn ask(stream: &mut (impl Read + Write), request: &Request) -> Result<Result<Reply, Failure>, CoreError> {
    let mut core = ProtocolCore::new();
    core.submit(request).expect("a small request");
    stream.write_all(core.outgoing()).expect("the broker reads");
    core.sent(core.outgoing().len());
    loop {
        if let Some((_, reply)) = core.next_reply()? {
            return Ok(reply.into_owned());
        }
        let count = stream.read(core.space()).expect("an answer");
        assert!(count > 0, "the broker closed the connection");
        core.received(count);
    }
}

fn is_served(stream: &mut (impl Read + Write)) -> bool {
    match ask(stream, &Request::ListTopics) {
        Ok(Ok(Reply::Topics(_))) => true,
        Err(CoreError::Closing(failure)) => {
            assert!(failure.message.contains("say --tls"), "{failure}");
            false
        }
        other => panic!("{other:?}"),
    }
}

fn speaks_http(stream: impl Read + Write) -> bool {
    let mut connection = Connection::over(stream);
    connection.send(GET);
    let answer = connection.next().expect("an answer");
    assert_eq!(answer.status == 404, answer.body.contains("TopicNotExist"), "{}", answer.body);
    assert_eq!(answer.status == 400, answer.body.contains("HTTPS is spoken here"), "{}", answer.body);
    answer.status == 404
}

#[test]
fn every_door_speaks_every_protocol_within_tls_and_as_the_mode_says_without() {
    // Mode, and whether native and HTTP are spoken without TLS.
    for (mode, native, http) in
        [(None, true, false), (Some("permissive"), true, true), (Some("enforcing"), false, false)]
    {
        let directory = test_directory();
        let mut setup = secured(directory.path()).with(&HTTP).with(&["--shards", "2"]);
        if let Some(mode) = mode {
            setup = setup.with(&["--tls-mode", mode]);
        }
        let node = setup.start();
        let second = node.addresses[1].clone();
        for door in doors(&node).iter().chain([&second]) {
            assert_eq!(is_served(&mut connect(door)), native, "{mode:?} {door}");
            assert_eq!(speaks_http(connect(door)), http, "{mode:?} {door}");
            assert!(is_served(&mut tls(connect(door), CERTIFICATE, &[]).expect("a handshake")));
            assert!(speaks_http(tls(connect(door), CERTIFICATE, &[]).expect("a handshake")));
        }
    }
}

#[test]
fn without_a_certificate_every_door_speaks_both_and_nobody_tls() {
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(&HTTP).start();
    for door in doors(&node) {
        assert!(is_served(&mut connect(&door)), "{door}");
        assert!(speaks_http(connect(&door)), "{door}");
        assert!(tls(connect(&door), CERTIFICATE, &[]).is_err(), "{door}");
    }
}

#[test]
fn a_certificate_that_is_not_to_be_used_is_not() {
    let directory = test_directory();
    let node = secured(directory.path()).with(&HTTP).with(&["--tls-mode", "disabled"]).start();
    for door in doors(&node) {
        assert!(is_served(&mut connect(&door)), "{door}");
        assert!(speaks_http(connect(&door)), "{door}");
        assert!(tls(connect(&door), CERTIFICATE, &[]).is_err(), "{door}");
    }
}

#[test]
fn separate_protocols_stay_at_their_doors_within_tls_too() {
    let directory = test_directory();
    let node = secured(directory.path()).with(&HTTP).with(&["--separate-protocols"]).start();
    let [native, _, http] = doors(&node);
    let secure = |door: &str| tls(connect(door), CERTIFICATE, &[]).expect("a handshake");
    assert!(is_served(&mut connect(&native)) && is_served(&mut secure(&native)));
    assert!(speaks_http(secure(&http)));
    for (door, bytes, word) in
        [(&native, GET.as_bytes(), "--http"), (&http, &[0xF5, b'T', b'P', b'N'], "--listen")]
    {
        let mut stream = secure(door);
        stream.write_all(bytes).expect("the broker reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer, and the end of TLS");
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains(word), "{answer}");
    }
    // What a door does not speak it does not offer.
    assert!(tls(connect(&http), CERTIFICATE, &[b"turbopump"]).is_err());
}

#[test]
fn a_handshake_agrees_on_a_protocol_that_the_door_has() {
    let directory = test_directory();
    let node = secured(directory.path()).with(&HTTP).start();
    for door in doors(&node) {
        for (offered, agreed) in
            [(&[&b"h2"[..], b"turbopump"][..], &b"turbopump"[..]), (&[b"h2", b"http/1.1"], b"http/1.1")]
        {
            let stream = tls(connect(&door), CERTIFICATE, offered).expect("a handshake");
            assert_eq!(stream.conn.alpn_protocol(), Some(agreed));
        }
        assert!(tls(connect(&door), CERTIFICATE, &[b"h3"]).is_err());
    }
    // A certificate alone is enough for the native protocol.
    let alone = secured(&directory.path().join("data")).start();
    let stream = tls(connect(alone.address()), CERTIFICATE, &[b"http/1.1"]);
    assert!(stream.is_err(), "HTTP is not spoken");
    assert!(is_served(&mut tls(connect(alone.address()), CERTIFICATE, &[]).expect("a handshake")));
}

#[test]
fn what_comes_one_byte_at_a_time_is_understood() {
    let directory = test_directory();
    let node = secured(directory.path()).with(&HTTP).with(&["--tls-mode", "permissive"]).start();
    node.run_well(&["topic", "create", "orders"]);
    let body = format!("<Message><MessageBody>{}</MessageBody></Message>", "x".repeat(1000));
    for door in doors(&node) {
        let names = Request::DescribeTopic(format!("t{}", "x".repeat(100)).parse().expect("a name"));
        let is_unknown = |reply: Result<Reply, Failure>| {
            assert_eq!(reply.expect_err("it does not exist").status, Status::TopicNotExist);
        };
        is_unknown(ask(&mut OneByOne(connect(&door)), &names).expect("an answer"));
        let mut slow = tls(OneByOne(connect(&door)), CERTIFICATE, &[]).expect("a handshake");
        is_unknown(ask(&mut slow, &names).expect("an answer"));
        let mut plain = Connection::over(OneByOne(connect(&door)));
        plain.send(publish(&body));
        assert_eq!(plain.next().expect("an answer").status, 201);
        let slow = tls(OneByOne(connect(&door)), CERTIFICATE, &[]).expect("a handshake");
        let mut secure = Connection::over(slow);
        secure.send(publish(&body));
        assert_eq!(secure.next().expect("an answer").status, 201);
    }
}

#[test]
fn a_hangup_changes_the_certificate_of_every_door() {
    let directory = test_directory();
    let node = secured(directory.path()).with(&HTTP).start();
    let mut before = tls(connect(node.address()), CERTIFICATE, &[]).expect("a handshake");
    std::fs::write(directory.path().join("certificate.pem"), OTHER_CERTIFICATE).expect("ours");
    std::fs::write(directory.path().join("key.pem"), OTHER_KEY).expect("ours");
    node.signal(Signal::HUP);
    for door in doors(&node) {
        wait_for("it is the new one", || tls(connect(&door), OTHER_CERTIFICATE, &[]).is_ok());
        assert!(tls(connect(&door), CERTIFICATE, &[]).is_err(), "the old one is gone");
    }
    assert!(is_served(&mut before), "who was there stays");
}

/// The end of the client's direction is no end of the broker's: what was asked is answered, then comes the end of TLS.
#[test]
fn a_native_client_that_closes_its_direction_of_tls_gets_its_answers() {
    let directory = test_directory();
    let node = secured(directory.path()).with(&HTTP).start();
    for door in doors(&node) {
        for with_fin in [false, true] {
            let mut stream = tls(connect(&door), CERTIFICATE, &[]).expect("a handshake");
            let mut core = ProtocolCore::new();
            for _ in 0..100 {
                core.submit(&Request::ListTopics).expect("a small request");
            }
            stream.write_all(core.outgoing()).expect("the broker reads");
            stream.conn.send_close_notify();
            stream.flush().expect("the broker reads");
            if with_fin {
                stream.sock.shutdown(Shutdown::Write).expect("a socket");
            }
            let mut answers = Vec::new();
            // An end without the word for it would be an error.
            stream.read_to_end(&mut answers).expect("answers, and the end of TLS");
            core.sent(core.outgoing().len());
            let mut left = &answers[..];
            while !left.is_empty() {
                let space = core.space();
                let count = space.len().min(left.len());
                space[..count].copy_from_slice(&left[..count]);
                core.received(count);
                left = &left[count..];
                while core.next_reply().expect("well formed").is_some() {}
            }
            assert_eq!(core.in_flight(), 0, "all are answered");
        }
    }
}

#[test]
fn a_handshake_that_does_not_go_on_ends_at_every_door() {
    let directory = test_directory();
    let node = secured(directory.path()).with(&HTTP).with(&["--http-idle-timeout", "1s"]).start();
    let mut slow: Vec<_> = doors(&node)
        .iter()
        .map(|door| {
            let mut stream = connect(door);
            stream.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc]).expect("the broker reads");
            stream
        })
        .collect();
    // Others are served meanwhile.
    assert!(is_served(&mut tls(connect(node.address()), CERTIFICATE, &[]).expect("a handshake")));
    for stream in &mut slow {
        let _ = stream.read_to_end(&mut Vec::new());
    }
    wait_for("3 handshakes have failed", || node.counter("tls_handshakes_failed") == 3);
    check_left_out(
        &node.stop().stderr,
        "did not complete its TLS handshake",
        "more TLS handshakes were not completed",
    );
}

/// Of three, one was told at once, and at the end that there were others.
pub fn check_left_out(told: &str, first: &str, others: &str) {
    let lines: Vec<_> = told.lines().filter(|line| line.contains(first) || line.contains(others)).collect();
    assert!(lines.len() == 2 && lines[1].contains(others) && lines[1].contains("left_out=2"), "{told}");
}

#[test]
fn what_is_nothing_is_closed_counted_and_told_once() {
    let directory = test_directory();
    let node = secured(directory.path()).with(&HTTP).start();
    for bytes in [&b"\xff\xfe\xfd\xfc\r\n\r\n"[..], b"{\"hello\": 1}\r\n", b"\xf5TPX"] {
        let mut stream = connect(node.http_address.as_ref().expect("it was asked for"));
        stream.write_all(bytes).expect("the kernel takes it");
        let mut answer = Vec::new();
        // A reset, where something was not read.
        let _ = stream.read_to_end(&mut answer);
        assert_eq!(answer, b"", "{bytes:?}");
    }
    wait_for("they are counted", || node.counter("connections_dropped") == 3);
    assert_eq!(node.counter("refused_as_strangers"), 3);
    // The others have come a moment after the one that was told: their number is told as well, at the end at the latest.
    let told = node.stop().stderr;
    let lines: Vec<_> = told.lines().filter(|line| line.contains("it speaks another protocol")).collect();
    assert!(lines.len() == 2 && lines[1].contains("left_out=2"), "{told}");
}

#[test]
fn access_keys_are_asked_for_at_every_door() {
    let directory = test_directory();
    let keys = directory.path().join("keys.toml");
    std::fs::write(&keys, "[[keys]]\nid = 'root'\nsecret = 'toor'\nadmin = true\n").expect("ours");
    let setup = secured(directory.path()).with(&HTTP).with(&["--tls-mode", "permissive"]);
    let node = setup.with(&["--access-keys", keys.to_str().expect("UTF-8")]).start();
    let denied = |reply: Result<Reply, Failure>| {
        assert_eq!(reply.expect_err("nothing was proved").status, Status::Unauthenticated);
    };
    for door in doors(&node) {
        let secure = || tls(connect(&door), CERTIFICATE, &[]).expect("a handshake");
        denied(ask(&mut connect(&door), &Request::ListTopics).expect("an answer"));
        denied(ask(&mut secure(), &Request::ListTopics).expect("an answer"));
        let mut plain = Connection::over(connect(&door));
        plain.send(GET);
        plain.expect(403, "AccessDenied");
        let mut within = Connection::over(secure());
        within.send(GET);
        within.expect(403, "AccessDenied");
    }
}

/// Without a bound of their own, sessions of TLS could take several times the memory that there is for connections.
#[test]
fn sessions_of_tls_take_their_share_of_memory_and_give_it_back() {
    let directory = test_directory();
    let node = secured(directory.path()).with(&["--client-memory", "64MiB"]).start();
    let open = || tls(connect(node.address()), CERTIFICATE, &[]);
    // Of 17 parts, two are for connections.
    let (share, each) = ((64 << 20) / 17 * 2, limits::CONNECTION_BYTES + limits::TLS_CONNECTION_BYTES);
    let mut streams = Vec::new();
    while let Ok(stream) = open() {
        streams.push(stream);
        assert!(streams.len() <= share / each, "{} sessions", streams.len());
    }
    assert!(streams.len() + 2 >= share / each, "{} sessions", streams.len());
    wait_for("it is told", || node.told().contains("give it more with --client-memory"));
    streams.clear();
    wait_for("it is given back", || open().is_ok());
    assert_eq!(node.counter("memory_connections_peak") / share as u64, 0, "never more than its share");
}

/// A connection once took 20 KiB of a share that all have, and kept it for a minute, whatever came of it.
#[test]
fn who_says_nothing_or_does_not_go_on_gives_way_to_others() {
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(&["--client-memory", "16MiB"]).start();
    let share = (16 << 20) / 17 * 2;
    let half = [&frame::preface()[..], &(8u32 << 20).to_le_bytes(), &[0; 12]].concat();
    for (bytes, each) in [(&b""[..], limits::CONNECTION_SILENT_BYTES), (&half, limits::CONNECTION_BYTES)] {
        let ended = node.counter("ended_for_memory");
        let open = |_| {
            let mut stream = connect(node.address());
            stream.write_all(bytes).expect("the kernel takes it");
            stream
        };
        let held: Vec<_> = (0..share / each + 20).map(open).collect();
        let begun = Instant::now();
        wait_for("others are served", || node.run(&["topic", "list"]).code == Some(0));
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        assert!(node.counter("ended_for_memory") > ended, "nobody had to go");
        drop(held);
    }
    let told = node.stop().stderr;
    assert!(told.contains("a connection is ended: it has said nothing"), "{told}");
}
