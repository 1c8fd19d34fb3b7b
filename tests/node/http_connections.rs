//! When bytes come in, and when nothing more does: whatever arrives while a request is being carried out is looked at
//! afterwards, and a client that closes its direction gets what it is owed.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::support::directory::test_directory;
use crate::support::http_connection::{Connection, GET, PUBLISH, TlsStream, publish};
use crate::support::node::{Node, Setup, wait_for};

const CERTIFICATE: &str = include_str!("../data/tls/certificate.pem");
const KEY: &str = include_str!("../data/tls/key.pem");

/// Longer than anything here takes, unless it waits for what does not come.
const LONG_POLL: &str =
    "GET /topics/orders/messages?consumer=g&numOfMessages=16&waitseconds=30 HTTP/1.1\r\nHost: h\r\n\r\n";

/// A connection whose own direction can be ended.
trait EndsItsDirection {
    fn end_direction(&mut self);
}

impl EndsItsDirection for TcpStream {
    fn end_direction(&mut self) {
        self.shutdown(Shutdown::Write).expect("it is open");
    }
}

impl EndsItsDirection for TlsStream {
    fn end_direction(&mut self) {
        self.conn.send_close_notify();
        self.flush().expect("the broker reads");
        self.sock.shutdown(Shutdown::Write).expect("it is open");
    }
}

/// Ends its direction as many clients of TLS do: the socket's alone, without saying so within TLS.
struct Untold(TlsStream);

impl Read for Untold {
    fn read(&mut self, output: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(output)
    }
}

impl Write for Untold {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

impl EndsItsDirection for Untold {
    fn end_direction(&mut self) {
        self.flush().expect("the broker reads");
        self.0.sock.shutdown(Shutdown::Write).expect("it is open");
    }
}

fn plain(directory: &tempfile::TempDir) -> Node {
    let node = Setup::new(directory.path()).with(&["--http", "127.0.0.1:0"]).start();
    node.run_well(&["topic", "create", "orders", "--queues", "1"]);
    node
}

fn secure(directory: &tempfile::TempDir) -> Node {
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("a directory of this test");
        path.to_str().expect("UTF-8").to_owned()
    };
    let (certificate, key) = (file("certificate.pem", CERTIFICATE), file("key.pem", KEY));
    let flags = ["--http", "127.0.0.1:0", "--http-certificate", &certificate, "--http-key", &key];
    let node = Setup::new(directory.path().join("data")).with(&flags).start();
    node.run_well(&["topic", "create", "orders", "--queues", "1"]);
    node
}

fn open_tls(node: &Node) -> Connection<TlsStream> {
    Connection::open_tls(node, CERTIFICATE).expect("a handshake")
}

/// Lets a little time pass, less than a sleep can.
fn linger(microseconds: u64) {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_micros(microseconds) {
        std::hint::spin_loop();
    }
}

fn expect_published<S: Read + Write>(connection: &mut Connection<S>) {
    let answer = connection.next().expect("an answer");
    assert_eq!(answer.status, 201, "{}{}", answer.head, answer.body);
}

/// A request each 0 to 1 ms after the one before: some come while it is being flushed, and `between` does as well.
fn check_close_requests<S: Read + Write>(open: impl Fn() -> Connection<S>, between: &str) {
    for round in 0..40 {
        let mut connection = open();
        connection.send(publish(PUBLISH));
        for step in 0..4 {
            linger(round * 25);
            connection.send(between);
            linger(step * 10);
            connection.send(publish(PUBLISH));
            expect_published(&mut connection);
        }
        expect_published(&mut connection);
    }
}

#[test]
fn a_request_that_comes_while_another_is_stored_is_answered() {
    let directory = test_directory();
    let node = plain(&directory);
    check_close_requests(|| Connection::open(&node), "");
}

#[test]
fn a_request_that_comes_through_tls_while_another_is_stored_is_answered() {
    let directory = test_directory();
    let node = secure(&directory);
    check_close_requests(|| open_tls(&node), "");
}

#[test]
fn line_ends_between_requests_are_ignored() {
    let directory = test_directory();
    let node = plain(&directory);
    for between in ["\r\n", "\n", "\r\n\r\n\n"] {
        check_close_requests(|| Connection::open(&node), between);
    }
    let mut connection = Connection::open(&node);
    connection.send(format!("{}\r\n{}\n\r\n", publish(PUBLISH), publish(PUBLISH)));
    expect_published(&mut connection);
    expect_published(&mut connection);
    connection.stream.end_direction();
    connection.expect_end();
}

/// They are no beginning of a request either: who has sent nothing else is not told that its request came too late.
#[test]
fn a_line_end_begins_no_request() {
    let directory = test_directory();
    let setup = Setup::new(directory.path()).with(&["--http", "127.0.0.1:0", "--http-idle-timeout", "1s"]);
    let node = setup.start();
    let mut connection = Connection::open(&node);
    connection.send(GET);
    connection.expect(404, "TopicNotExist");
    connection.send("\r\n");
    connection.expect_end();
}

fn check_half_closed<S: Read + Write + EndsItsDirection>(node: &Node, open: impl Fn() -> Connection<S>) {
    for round in 0..20 {
        let mut connection = open();
        connection.send(publish(PUBLISH));
        linger(round * 50);
        connection.stream.end_direction();
        expect_published(&mut connection);
        connection.expect_end();
    }
    let mut connection = open();
    connection.send(publish(PUBLISH) + &LONG_POLL.replace("consumer=g", "consumer=h") + &publish(PUBLISH));
    connection.stream.end_direction();
    expect_published(&mut connection);
    assert_eq!(connection.next().expect("an answer").status, 200);
    expect_published(&mut connection);
    connection.expect_end();
    // Half of a request is none.
    let mut connection = open();
    connection.send(&GET[..20]);
    connection.stream.end_direction();
    connection.expect_end();
    // A wait that ends with nothing, and one that ends with a message that came after the client's end.
    node.run_well(&["topic", "create", "later", "--queues", "1"]);
    let poll = LONG_POLL.replace("/orders/", "/later/");
    let mut connection = open();
    connection.send(poll.replace("waitseconds=30", "waitseconds=1"));
    connection.stream.end_direction();
    connection.expect(404, "MessageNotExist");
    connection.expect_end();
    let mut connection = open();
    connection.send(&poll);
    connection.stream.end_direction();
    std::thread::sleep(Duration::from_millis(300));
    let mut publisher = open();
    publisher.send(publish(PUBLISH).replace("/orders/", "/later/"));
    expect_published(&mut publisher);
    let answer = connection.next().expect("an answer");
    assert_eq!((answer.status, answer.body.matches("<Message>").count()), (200, 1), "{}", answer.head);
    assert!(answer.head.starts_with("http/1.1 200"), "{}", answer.head);
    connection.expect_end();
}

#[test]
fn a_client_that_closes_its_direction_gets_its_answers_and_then_the_end() {
    let directory = test_directory();
    let node = plain(&directory);
    check_half_closed(&node, || Connection::open(&node));
}

#[test]
fn a_client_that_closes_its_direction_of_tls_gets_its_answers_and_then_the_end() {
    let directory = test_directory();
    let node = secure(&directory);
    check_half_closed(&node, || open_tls(&node));
}

/// A wait ended with the TLS then, before it had looked: it was answered that there is no message, while there were two.
#[test]
fn an_end_of_the_socket_below_tls_is_the_end_of_the_clients_direction() {
    let directory = test_directory();
    let node = secure(&directory);
    let open = || Connection::over(Untold(open_tls(&node).stream));
    for _ in 0..5 {
        let mut connection = open();
        connection.send(publish(PUBLISH).repeat(2));
        expect_published(&mut connection);
        expect_published(&mut connection);
        let mut connection = open();
        connection.send(LONG_POLL);
        connection.stream.end_direction();
        let answer = connection.next().expect("an answer");
        assert_eq!((answer.status, answer.body.matches("<Message>").count()), (200, 2), "{}", answer.body);
        connection.expect_end();
    }
    check_half_closed(&node, open);
}

/// Waits for messages and goes away, with and without another request after the one that waits.
fn check_leaving<S: Read + Write>(node: &Node, open: impl Fn() -> Connection<S>) {
    let connections = || node.counter("connections");
    for (round, behind) in ["", GET].into_iter().enumerate() {
        let before = connections();
        let begun = Instant::now();
        let requests = node.counter("requests");
        let mut leaving = open();
        leaving.send(LONG_POLL.to_owned() + behind);
        // The counter itself asks once each time.
        wait_for("the call waits", || connections() == before + 1 && node.counter("requests") > requests);
        drop(leaving);
        wait_for("the connection ends", || connections() == before);
        assert!(begun.elapsed() < Duration::from_secs(25), "not with the wait: {:?}", begun.elapsed());
        let mut other = open();
        other.send(publish(PUBLISH));
        expect_published(&mut other);
        other.send(LONG_POLL);
        let answer = other.next().expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(answer.body.contains("<ConsumedTimes>1</ConsumedTimes>"), "{round}: {}", answer.body);
    }
}

#[test]
fn nothing_is_leased_to_a_client_that_has_left() {
    let directory = test_directory();
    let node = plain(&directory);
    check_leaving(&node, || Connection::open(&node));
}

#[test]
fn nothing_is_leased_to_a_client_of_tls_that_has_left() {
    let directory = test_directory();
    let node = secure(&directory);
    check_leaving(&node, || open_tls(&node));
}

#[test]
fn a_header_field_that_cannot_be_read_is_named() {
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(&["--http", "127.0.0.1:0"]).start();
    for (field, words) in [
        ("X-Request Id: 1", "`X-Request Id` is no name of a header"),
        ("X-Request-Id", "the header line `X-Request-Id` has no colon"),
        ("X-Request-Id: a\u{1}b", "the header `X-Request-Id` has a control character"),
        ("Content-Length: many", "the header `Content-Length` is no length"),
        ("Content-Length: 5\r\nContent-Length: 6", "the header `Content-Length` is no length, or says two"),
    ] {
        let mut connection = Connection::open(&node);
        // After one that is fine, in one piece and byte by byte.
        let request = GET.replace("\r\n\r\n", &format!("\r\n{field}\r\n\r\n"));
        connection.send(format!("{GET}{request}"));
        connection.expect(404, "TopicNotExist");
        let answer = connection.expect(400, "InvalidArgument");
        assert!(answer.body.contains(words), "{field:?}: {}", answer.body);
        assert!(answer.head.contains("\r\nconnection: close\r\n"), "{}", answer.head);
        connection.expect_end();
        let mut connection = Connection::open(&node);
        for byte in request.as_bytes() {
            if connection.stream.write_all(&[*byte]).is_err() {
                break;
            }
        }
        let answer = connection.expect(400, "InvalidArgument");
        assert!(answer.body.contains("the header") || answer.body.contains("of a header"), "{}", answer.body);
    }
}
