//! HTTP within TLS: handshakes that fail, certificates that change, and starts that cannot be.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::directory::test_directory;
use crate::support::http_connection::{Connection, GET, PUBLISH, TlsStream, publish};
use crate::support::node::{PATIENCE, Setup, wait_for};

const CERTIFICATE: &str = include_str!("../data/tls/certificate.pem");
const KEY: &str = include_str!("../data/tls/key.pem");
const OTHER_CERTIFICATE: &str = include_str!("../data/tls/other-certificate.pem");
const OTHER_KEY: &str = include_str!("../data/tls/other-key.pem");

struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn write(directory: &Path, certificate: &str, key: &str) -> Self {
        let files = Self { certificate: directory.join("certificate.pem"), key: directory.join("key.pem") };
        files.replace(certificate, key);
        files
    }

    fn replace(&self, certificate: &str, key: &str) {
        fs::write(&self.certificate, certificate).expect("a directory of this test");
        fs::write(&self.key, key).expect("a directory of this test");
    }

    fn setup(&self, directory: &Path) -> Setup {
        let text = |path: &'_ Path| path.to_str().expect("UTF-8").to_owned();
        let (certificate, key) = (text(&self.certificate), text(&self.key));
        Setup::new(directory.join("data")).with(&[
            "--http",
            "127.0.0.1:0",
            "--http-certificate",
            &certificate,
            "--http-key",
            &key,
        ])
    }
}

#[test]
fn requests_go_through_tls_as_they_do_without() {
    let directory = test_directory();
    let node = Files::write(directory.path(), CERTIFICATE, KEY).setup(directory.path()).start();
    assert!(node.banner.contains("  HTTPS listens on "), "{}", node.banner);
    assert!(node.banner.contains("key.pem can be read by others"), "{}", node.banner);
    node.run_well(&["topic", "create", "orders"]);
    let mut connection = Connection::open_tls(&node, CERTIFICATE).expect("a handshake");
    let body = format!("<Message><MessageBody>{}</MessageBody></Message>", "x".repeat(4 << 20));
    for _ in 0..3 {
        connection.send(publish(&body));
        assert_eq!(connection.next().expect("an answer").status, 201);
    }
    for _ in 0..3 {
        connection.send(GET);
        let answer = connection.next().expect("an answer");
        assert_eq!((answer.status, answer.body.len() > 4 << 20), (200, true), "{}", answer.head);
    }
    connection.send(GET.repeat(100));
    for _ in 0..100 {
        let answer = connection.expect(404, "MessageNotExist");
        assert!(answer.body.contains("<HostId>https://h</HostId>"), "{}", answer.body);
    }
    connection.send("nonsense\r\n\r\n");
    connection.expect(400, "InvalidArgument");
    connection.expect_end();
    assert_eq!((node.counter("tls_handshakes"), node.counter("tls_handshakes_failed")), (1, 0));
    assert_eq!(node.counter("answer_bytes_waiting"), 0);
}

#[test]
fn who_begins_otherwise_is_told_or_dropped() {
    let directory = test_directory();
    let setup = Files::write(directory.path(), CERTIFICATE, KEY).setup(directory.path());
    let node = setup.with(&["--http-idle-timeout", "1s"]).start();
    let mut plain = Connection::open(&node);
    plain.send(publish(PUBLISH));
    let answer = plain.expect(400, "InvalidArgument");
    assert!(answer.body.contains("https://"), "{}", answer.body);
    for meant in
        [publish(PUBLISH).replace("POST", "post"), format!("\r\n{}", publish(PUBLISH)), "GET\r\n\r\n".into()]
    {
        let mut plain = Connection::open(&node);
        plain.send(&meant);
        let answer = plain.expect(400, "InvalidArgument");
        assert!(answer.body.contains("HTTP"), "{meant:?}: {}", answer.body);
    }
    let mut garbage = Connection::open(&node);
    garbage.send(b"\xff\xfe\xfd\xfc\r\n\r\n");
    garbage.expect_end();
    // A certificate that the client does not trust, a handshake that never goes on, and one that is none.
    for _ in 0..10 {
        assert!(Connection::open_tls(&node, OTHER_CERTIFICATE).is_err());
    }
    let mut streams: Vec<_> = [&b"\x16\x03\x01\x02\x00\x01"[..], &[0x16; 100]]
        .into_iter()
        .map(|bytes| {
            let mut stream = TcpStream::connect(node.http_address.as_ref().expect("it was asked for"))
                .expect("the broker listens");
            stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
            stream.write_all(bytes).expect("the broker reads");
            stream
        })
        .collect();
    for stream in &mut streams {
        // An alert may come first; then the end does.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    wait_for("12 handshakes have failed", || node.counter("tls_handshakes_failed") == 12);
    assert_eq!(node.counter("tls_handshakes"), 0);
    let ended = node.stop();
    assert_eq!(ended.stderr.matches("did not complete its TLS handshake").count(), 1, "{}", ended.stderr);
    // Where no certificate is, a handshake has nobody to talk to.
    let node = Setup::new(directory.path().join("plain")).with(&["--http", "127.0.0.1:0"]).start();
    assert!(Connection::open_tls(&node, CERTIFICATE).is_err());
}

#[test]
fn a_new_certificate_is_used_without_a_restart() {
    let directory = test_directory();
    let files = Files::write(directory.path(), CERTIFICATE, KEY);
    let node = files.setup(directory.path()).start();
    let ask = |connection: &mut Connection<TlsStream>| {
        connection.send(GET);
        connection.expect(404, "TopicNotExist");
    };
    let mut before = Connection::open_tls(&node, CERTIFICATE).expect("a handshake");
    ask(&mut before);
    files.replace(OTHER_CERTIFICATE, OTHER_KEY);
    wait_for("the change is seen", || Connection::open_tls(&node, OTHER_CERTIFICATE).is_ok());
    ask(&mut before);
    ask(&mut Connection::open_tls(&node, OTHER_CERTIFICATE).expect("a handshake"));
    assert!(Connection::open_tls(&node, CERTIFICATE).is_err(), "the old one is gone");
    files.replace(OTHER_CERTIFICATE, KEY);
    // The looks go on once a second: one that finds the change, one that finds it settled.
    std::thread::sleep(Duration::from_secs(3));
    ask(&mut Connection::open_tls(&node, OTHER_CERTIFICATE).expect("the last one that was usable"));
    let ended = node.stop();
    assert!(ended.stderr.contains("the changed certificate is in use"), "{}", ended.stderr);
    assert!(ended.stderr.contains("the certificate stays as it was: --tls-key "), "{}", ended.stderr);
}

#[test]
fn starts_without_usable_files_say_what_to_type() {
    let directory = test_directory();
    let files = Files::write(directory.path(), CERTIFICATE, OTHER_KEY);
    let ended = files.setup(directory.path()).try_start().err().expect("the key is another's");
    assert!(ended.stderr.contains("name the two files that belong together"), "{}", ended.stderr);
    let secret = OTHER_KEY.lines().nth(1).expect("a line of the key");
    assert!(!ended.stderr.contains(secret), "{}", ended.stderr);
    let certificate = files.certificate.to_str().expect("UTF-8");
    let cases: [(&[&str], &str); 3] = [
        (&["--http", "127.0.0.1:0", "--http-certificate", certificate], "--tls-certificate needs --tls-key"),
        (&["--http", "127.0.0.1:0", "--http-key", certificate], "--tls-key needs --tls-certificate"),
        (&["--tls-mode", "enforcing"], "--tls-mode enforcing needs a certificate"),
    ];
    for (flags, part) in cases {
        let ended = Setup::new(directory.path()).with(flags).try_start().err().expect("half of it");
        assert_eq!(ended.status.code(), Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
}
