//! Peers that do not speak the native protocol, or not this version of it.

use std::io::{Read, Write};
use std::net::TcpStream;

use turbopump::client::{Client, ClientError, Timeouts};

use crate::support::command;
use crate::support::directory::test_directory;
use crate::support::load::create_topic;
use crate::support::node::{Node, PATIENCE, Setup};

const PREFACE: [u8; 8] = [0xF5, b'T', b'P', b'N', 1, 0, 0, 0];
/// A preface with the wish to know who answers.
const ASKING: [u8; 8] = [0xF5, b'T', b'P', b'N', 1, 0, 1, 0];

const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The beginning of a client's first message.
const TLS: &[u8] = &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
/// What TLS says when it ends because of what the other side sent: fatal, unexpected message.
const ALERT: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 10];

/// Sends bytes and returns everything that comes back until the broker ends the connection.
fn answer_to(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("the broker listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a positive time");
    stream.write_all(bytes).expect("the kernel takes it");
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => answer,
        // Bytes that the broker had not read when it closed.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => answer,
        Err(error) => panic!("{bytes:?}: the connection stays open: {error}"),
    }
}

#[test]
fn other_protocols_are_told_in_their_own_words_where_they_have_such() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    let get: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for request in [get, HTTP2] {
        let answer = String::from_utf8(answer_to(node.address(), request)).expect("text");
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("--http"), "{answer}");
    }
    assert_eq!(answer_to(node.address(), TLS), ALERT);
    let cases: [(&str, &[u8]); 3] = [
        ("no header of RocketMQ's", b"\0\0\0\x06\0\0\0\x02{\""),
        ("nothing known", &[0xff, 0xfe, 0xfd, 0xfc]),
        ("nearly native", &[0xF5, b'T', b'P', b'X', 1, 0, 0, 0]),
    ];
    for (name, bytes) in cases {
        assert_eq!(answer_to(node.address(), bytes), b"", "{name}");
    }
    create_topic(&mut node.client(), "orders", 1);
}

#[test]
fn the_http_port_says_that_it_is_one() {
    let directory = test_directory();
    let flags = ["--http", "127.0.0.1:0", "--separate-protocols"];
    let node = Setup::new(directory.path()).with(&flags).start();
    let http = node.http_address.clone().expect("it was asked for");
    let remoting: &[u8] = &[0, 0, 0, 0x20, 0, 0, 0, 0x1c, b'{', b'"'];
    for bytes in [&PREFACE[..], HTTP2, remoting, b"\xff\xfe\xfd\xfc\r\n\r\n"] {
        let answer = String::from_utf8(answer_to(&http, bytes)).expect("text");
        assert!(answer.starts_with("HTTP/1.1 400 "), "{bytes:?}: {answer}");
    }
    assert_eq!(answer_to(&http, TLS), ALERT);
    let sentence = command::run(Some(&http), &["status"], None).badly(1);
    assert!(sentence.contains("native protocol") && sentence.contains("--http"), "{sentence}");
}

/// The client says which version it met: the broker sends its preface and closes.
#[test]
fn a_client_of_another_version_learns_the_brokers() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    let mut newer = PREFACE;
    newer[4] = 9;
    assert_eq!(answer_to(node.address(), &newer), PREFACE);
}

#[test]
fn a_broker_of_another_version_is_named_by_the_command_line() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client comes");
        let mut theirs = [0; 8];
        stream.read_exact(&mut theirs).expect("its preface");
        let mut newer = PREFACE;
        newer[4] = 9;
        stream.write_all(&newer).expect("it reads");
        theirs
    });
    let refused = Client::connect(&address, Timeouts::default()).err().expect("the versions differ");
    assert!(matches!(refused, ClientError::Version { theirs: 9, .. }), "{refused}");
    assert_eq!(serving.join().expect("it served"), ASKING);
}

#[test]
fn a_frame_that_cannot_be_cut_gets_an_answer_and_the_end() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    for length in [0_u32, 15, 9 << 20, u32::MAX] {
        let mut bytes = PREFACE.to_vec();
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&[0; 28]);
        let answer = answer_to(node.address(), &bytes);
        assert_eq!(answer[..8], PREFACE, "{length}");
        let text = String::from_utf8_lossy(&answer[8..]).into_owned();
        assert!(text.contains("the connection ends here"), "{length}: {text:?}");
    }
    create_topic(&mut node.client(), "orders", 1);
}
