//! Many who begin TLS and never go on, and the clients beside them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::support::directory::test_directory;
use crate::support::http_connection::tls;
use crate::support::node::{Node, PATIENCE, Setup, wait_for};

const CERTIFICATE: &str = include_str!("../data/tls/certificate.pem");
/// More than a shard has under way.
const MANY: usize = 400;
/// The first bytes of a handshake's record, of which no more comes.
const HALF_HELLO: &[u8] = &[0x16, 3, 1, 2, 0, 1];

fn tls_node(directory: &std::path::Path) -> Node {
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls");
    let (certificate, key) = (format!("{data}/certificate.pem"), format!("{data}/key.pem"));
    let flags = ["--shards", "1", "--tls-certificate", &certificate, "--tls-key", &key];
    Setup::new(directory.join("data")).with(&flags).start()
}

/// A connection from one of the addresses that a machine has of itself.
fn connect_from(source: [u8; 4], node: &Node) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((source, 0)).into()).expect("an address of this machine");
    let address: SocketAddr = node.address().parse().expect("an address");
    socket.connect(&address.into()).expect("the broker listens");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream
}

fn half_open(source: [u8; 4], node: &Node, bytes: &[u8]) -> TcpStream {
    let mut stream = connect_from(source, node);
    stream.write_all(bytes).expect("the broker reads");
    stream
}

#[test]
fn who_completes_no_handshake_keeps_nobody_out() {
    let directory = test_directory();
    let node = tls_node(directory.path());
    let many: Vec<_> = [&HALF_HELLO[..1], HALF_HELLO]
        .into_iter()
        .cycle()
        .take(MANY)
        .map(|bytes| half_open([127, 0, 0, 2], &node, bytes))
        .collect();
    wait_for("all of them have begun", || node.counter("connections_accepted") > MANY as u64);
    let mut good = 0;
    for source in [[127, 0, 0, 3], [127, 0, 0, 2], [127, 0, 0, 2], [127, 0, 0, 3]] {
        let begun = Instant::now();
        tls(connect_from(source, &node), CERTIFICATE, &[]).expect("a handshake beside the others");
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        good += 1;
    }
    let beyond = (MANY - 256) as u64;
    wait_for("those that were given up are counted", || node.counter("tls_handshakes_given_up") >= beyond);
    assert_eq!((node.counter("tls_handshakes"), node.counter("tls_handshakes_refused")), (good, 0));
    // The oldest were closed, and the newest were not.
    assert_eq!((&many[0]).read(&mut [0; 8]).unwrap_or(0), 0);
    many[MANY - 1].set_nonblocking(true).expect("a socket");
    let newest = (&many[MANY - 1]).read(&mut [0; 8]);
    assert_eq!(newest.expect_err("it is open").kind(), std::io::ErrorKind::WouldBlock);
    drop(many);
    let told = node.stop().stderr;
    assert_eq!(told.matches("handshakes").count(), 1, "{told}");
    assert!(told.contains("not completed by 127.0.0.2"), "{told}");
}
