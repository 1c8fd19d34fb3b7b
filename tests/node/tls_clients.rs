//! The command line and both drivers of the client library within TLS.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use turbopump::api::{Failure, Status};
use turbopump::client::{
    Client, ClientError, ConnectOptions, Credentials, Message, Producer, ProducerOptions, Start, Timeouts,
    Tls, asynchronous,
};
use turbopump::protocol::native::ReplyEncoder;
use turbopump::wire::frame;

use crate::support::command::{self, BINARY};
use crate::support::directory::test_directory;
use crate::support::load::{create_topic, read, topic};
use crate::support::node::{Node, PATIENCE, Setup};

const CERTIFICATE: &str = include_str!("../data/tls/certificate.pem");
const OTHER_CERTIFICATE: &str = include_str!("../data/tls/other-certificate.pem");
const EXPIRED: &str = include_str!("../data/tls/expired.pem");
const KEY: &str = include_str!("../data/tls/key.pem");

struct Files {
    certificate: PathBuf,
    key: PathBuf,
    other: PathBuf,
}

impl Files {
    fn write(directory: &Path, certificate: &str) -> Self {
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            std::fs::write(&path, text).expect("a directory of this test");
            path
        };
        Self {
            certificate: write("certificate.pem", certificate),
            key: write("key.pem", KEY),
            other: write("other.pem", OTHER_CERTIFICATE),
        }
    }

    fn setup(&self, directory: &Path) -> Setup {
        Setup::new(directory.join("data")).with(&[
            "--tls-certificate",
            text(&self.certificate),
            "--tls-key",
            text(&self.key),
        ])
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn trusting(certificate: &str) -> ConnectOptions {
    let tls = Tls::trusting(certificate.as_bytes()).expect("a certificate");
    ConnectOptions { tls: Some(tls), ..ConnectOptions::default() }
}

fn run(node: &Node, arguments: &[&str], flags: &[&str]) -> command::Outcome {
    command::run(Some(node.address()), &[arguments, flags].concat(), None)
}

fn refused(address: &str, options: ConnectOptions) -> ClientError {
    Client::connect(address, options).err().expect("it is not let in")
}

fn with_name(certificate: &str, name: &str) -> ConnectOptions {
    let tls = Tls::trusting(certificate.as_bytes()).expect("a certificate");
    ConnectOptions { tls: Some(tls.with_server_name(name).expect("a name")), ..ConnectOptions::default() }
}

/// Enough bytes that both sides fill their sockets and their sessions: what one of them kept back would be waited for for ever.
#[test]
fn what_goes_into_tls_comes_out_of_it() {
    const COUNT: usize = 20_000;
    let directory = test_directory();
    let files = Files::write(directory.path(), CERTIFICATE);
    let node = files.setup(directory.path()).with(&["--tls-mode", "enforcing", "--shards", "2"]).start();
    assert!(node.banner.contains("  TLS is asked for at every address"), "{}", node.banner);
    let connect = || Client::connect(node.address(), trusting(CERTIFICATE)).expect("a handshake");
    create_topic(&mut connect(), "orders", 4);
    let mut producer =
        Producer::new(connect(), topic("orders"), ProducerOptions::default()).expect("a topic");
    for number in 0..COUNT {
        let body = format!("{number:0>1000}");
        producer.send(&Message { body: body.as_bytes(), ..Message::default() }).expect("it is taken");
    }
    // In one piece more than a session takes at once.
    let large = vec![b'9'; 4 << 20];
    producer.send(&Message { body: &large, ..Message::default() }).expect("it is taken");
    producer.flush().expect("the broker answers");
    assert_eq!(producer.first_failure(), None);
    let mut bodies: Vec<_> =
        read(connect(), "orders", None, Start::First).into_iter().map(|message| message.body).collect();
    bodies.sort();
    assert_eq!(bodies.len(), COUNT + 1);
    for (number, body) in bodies.iter().take(COUNT).enumerate() {
        assert_eq!(*body, format!("{number:0>1000}").into_bytes());
    }
    assert_eq!(bodies[COUNT], large);
    assert!(node.stop().status.success());
}

#[test]
fn the_tokio_driver_speaks_tls() {
    const COUNT: usize = 2_000;
    let directory = test_directory();
    let files = Files::write(directory.path(), CERTIFICATE);
    let node = files.setup(directory.path()).with(&["--tls-mode", "enforcing", "--shards", "2"]).start();
    create_topic(
        &mut Client::connect(node.address(), trusting(CERTIFICATE)).expect("a handshake"),
        "orders",
        4,
    );
    let test = async {
        let client = asynchronous::Client::connect_with(node.address(), trusting(CERTIFICATE)).await;
        let client = client.expect("a handshake");
        let producer = client.producer("orders").await.expect("the topic is there");
        let tasks: Vec<_> = (0..COUNT)
            .map(|number| {
                let producer = producer.clone();
                let body = format!("{number:0>5000}");
                tokio::spawn(async move { producer.send(asynchronous::Message::new(body)).await })
            })
            .collect();
        for task in tasks {
            task.await.expect("it ends").expect("stored");
        }
        let mut messages = client.read("orders").await.expect("the topic is there");
        let mut seen = vec![false; COUNT];
        for _ in 0..COUNT {
            let message = messages.next().await.expect("no end").expect("a message");
            let number: usize = std::str::from_utf8(message.body()).expect("text").parse().expect("a number");
            assert!(!std::mem::replace(&mut seen[number], true), "{number} comes twice");
        }
        let wrong = asynchronous::Client::connect_with(node.address(), trusting(OTHER_CERTIFICATE)).await;
        assert!(matches!(wrong.err(), Some(ClientError::Certificate { .. })));
        let plain = asynchronous::Client::connect(node.address()).await.err().expect("it is not let in");
        assert!(plain.to_string().contains("--tls"), "{plain}");
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("in time") });
}

#[test]
fn who_is_not_trusted_is_sent_nothing_and_named() {
    let directory = test_directory();
    let files = Files::write(directory.path(), CERTIFICATE);
    let node = files.setup(directory.path()).start();
    let error = |options| refused(node.address(), options).to_string();
    let unknown = error(trusting(OTHER_CERTIFICATE));
    assert!(unknown.contains("--tls-ca FILE") && unknown.contains(node.address()), "{unknown}");
    let name = error(with_name(CERTIFICATE, "broker.example.org"));
    let parts = ["broker.example.org", "localhost", "--tls-server-name"];
    assert!(parts.iter().all(|part| name.contains(part)), "{name}");
    Client::connect(node.address(), with_name(CERTIFICATE, "localhost")).expect("one of its names");
    drop(node);
    let directory = test_directory();
    let node = Files::write(directory.path(), EXPIRED).setup(directory.path()).start();
    let expired = refused(node.address(), trusting(EXPIRED)).to_string();
    assert!(expired.contains("it has expired"), "{expired}");
}

#[test]
fn who_comes_otherwise_than_is_spoken_is_told_what_to_type() {
    let directory = test_directory();
    let plain = Setup::new(directory.path().join("plain")).with(&["--http", "127.0.0.1:0"]).start();
    for address in [plain.address(), plain.http_address.as_ref().expect("it was asked for")] {
        let error = refused(address, trusting(CERTIFICATE));
        assert!(matches!(error, ClientError::NoTls { .. }), "{error}");
        assert!(error.to_string().contains("leave --tls out"), "{error}");
        assert!(!error.is_connection_loss(), "nothing comes of trying again");
    }
    let files = Files::write(directory.path(), CERTIFICATE);
    let setup = files.setup(directory.path()).with(&["--tls-mode", "enforcing", "--http", "127.0.0.1:0"]);
    let node = setup.with(&["--separate-protocols"]).start();
    let error = refused(node.address(), Timeouts::default().into());
    assert!(matches!(error, ClientError::Refused(_)), "{error}");
    assert!(error.to_string().contains("--tls-ca FILE"), "{error}");
    // An address that has TLS, and another protocol within.
    let http = node.http_address.clone().expect("it was asked for");
    let error = refused(&http, trusting(CERTIFICATE));
    assert!(matches!(error, ClientError::NotTurbopump { .. }), "{error}");
    // Something that answers in clear, as most servers do.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client comes");
        stream.write_all(b"220 mail.example.org ESMTP\r\n").expect("it reads");
        // Until it has understood.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let error = refused(&address, trusting(CERTIFICATE));
    assert!(matches!(error, ClientError::NoTls { .. }), "{error}");
    serving.join().expect("it served");
}

/// A broker makes no handshake with whom it has no room for, and says why after an alert; earlier ones did without the alert.
#[test]
fn a_refusal_for_want_of_room_is_understood_without_tls() {
    for alert in [&[][..], &[0x15, 3, 3, 0, 2, 2, 80]] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let serving = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client comes");
            let mut answer = [alert, &frame::preface()].concat();
            let failure = Failure::new(Status::LimitReached, "there is no room");
            ReplyEncoder::new().encode(&mut answer, 0, &Err(failure));
            stream.write_all(&answer).expect("it reads");
            // Until it has understood.
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let error = refused(&address, trusting(CERTIFICATE));
        assert!(error.to_string().contains("there is no room"), "{error}");
        assert!(error.is_connection_loss(), "there may be room later");
        serving.join().expect("it served");
    }
}

#[test]
fn an_access_key_is_proved_within_tls() {
    let directory = test_directory();
    let files = Files::write(directory.path(), CERTIFICATE);
    let keys = directory.path().join("keys.toml");
    std::fs::write(&keys, "[[keys]]\nid = 'root'\nsecret = 'toor'\nadmin = true\n").expect("ours");
    let setup = files.setup(directory.path()).with(&["--access-keys", text(&keys)]);
    let node = setup.with(&["--http", "127.0.0.1:0"]).start();
    let http = node.http_address.clone().expect("it was asked for");
    for address in [node.address(), &http] {
        for (secret, is_right) in [("toor", true), ("root", false)] {
            let credentials = Credentials::new("root", secret.to_owned()).expect("a key");
            let options = ConnectOptions { credentials: Some(credentials), ..trusting(CERTIFICATE) };
            let listed = Client::connect(address, options).and_then(|mut client| client.list_topics());
            assert_eq!(listed.is_ok(), is_right, "{listed:?}");
        }
        let stranger = refused(address, trusting(CERTIFICATE)).to_string();
        assert!(stranger.contains("TURBOPUMP_ACCESS_KEY"), "{stranger}");
    }
}

#[test]
fn the_commands_take_flags_or_the_environment() {
    let directory = test_directory();
    let files = Files::write(directory.path(), CERTIFICATE);
    let node = files.setup(directory.path()).with(&["--tls-mode", "enforcing"]).start();
    let authority = ["--tls-ca", text(&files.certificate)];
    run(&node, &["topic", "create", "orders"], &authority).well();
    run(&node, &["topic", "list", "--tls"], &authority).well();
    let without = run(&node, &["topic", "list"], &[]).badly(1);
    assert!(without.contains("say --tls"), "{without}");
    let other = run(&node, &["topic", "list", "--tls-ca", text(&files.other)], &[]).badly(1);
    assert!(other.contains("is not accepted"), "{other}");
    let none = run(&node, &["topic", "list", "--tls-ca", text(&files.key)], &[]).badly(2);
    assert!(none.contains("--tls-ca") && none.contains("holds no certificate"), "{none}");
    let bench = run(&node, &["bench", "produce", "bench-1"], &authority).badly(2);
    assert!(bench.contains("without TLS"), "{bench}");
    let command = |variables: &[(&str, &str)]| {
        let mut command = Command::new(BINARY);
        command.args(["topic", "list"]).env("TURBOPUMP_SERVER", node.address());
        let output =
            command.envs(variables.iter().copied()).output().expect("the binary under test can be run");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (certificate, other) = (text(&files.certificate), text(&files.other));
    assert_eq!(command(&[("TURBOPUMP_TLS_CA", certificate)]).0, Some(0));
    // What the system trusts.
    assert_eq!(command(&[("TURBOPUMP_TLS", "1"), ("SSL_CERT_FILE", certificate)]).0, Some(0));
    let (code, told) = command(&[("TURBOPUMP_TLS", "true"), ("SSL_CERT_FILE", other)]);
    assert!(code == Some(1) && told.contains("--tls-ca FILE"), "{told}");
    let name = ("TURBOPUMP_TLS_SERVER_NAME", "broker.example.org");
    let (code, told) = command(&[("TURBOPUMP_TLS_CA", certificate), name]);
    assert!(code == Some(1) && told.contains("broker.example.org"), "{told}");
    let off = [("TURBOPUMP_TLS", "0"), ("TURBOPUMP_TLS_CA", ""), ("TURBOPUMP_TLS_SERVER_NAME", "")];
    let (code, told) = command(&off);
    assert!(code == Some(1) && told.contains("say --tls"), "{told}");
}
