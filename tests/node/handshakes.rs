//! Many who begin TLS and never go on, and the clients beside them; and those whom there is no room for.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned, SupportedProtocolVersion,
};
use socket2::{Domain, Socket, Type};
use turbopump::client::{Client, ConnectOptions, Timeouts, Tls};
use turbopump::wire::frame;

use crate::support::directory::test_directory;
use crate::support::http_connection::tls;
use crate::support::node::{Node, PATIENCE, Setup, wait_for};

const CERTIFICATE: &str = include_str!("../data/tls/certificate.pem");
/// More than a shard has under way.
const MANY: usize = 400;
/// The first bytes of a handshake's record, of which no more comes.
const HALF_HELLO: &[u8] = &[0x16, 3, 1, 2, 0, 1];

fn tls_setup(directory: &std::path::Path) -> Setup {
    setup_of(directory, "")
}

/// With `rsa-` the certificate is that of a key of RSA, so that threads beside the cores make the signatures.
fn setup_of(directory: &std::path::Path, kind: &str) -> Setup {
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls");
    let (certificate, key) = (format!("{data}/{kind}certificate.pem"), format!("{data}/{kind}key.pem"));
    let flags = ["--shards", "1", "--tls-certificate", &certificate, "--tls-key", &key];
    Setup::new(directory.join("data")).with(&flags)
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
    let node = tls_setup(directory.path()).start();
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
    // A client knows that its handshake is over before the broker has read the client's last words and counts it.
    wait_for("the good handshakes are counted", || node.counter("tls_handshakes") >= good);
    assert_eq!((node.counter("tls_handshakes"), node.counter("tls_handshakes_refused")), (good, 0));
    // The oldest were closed, and the newest were not.
    let mut answer = Vec::new();
    (&many[0]).read_to_end(&mut answer).expect("its end");
    assert_eq!(answer.get(..7), Some(&[0x15, 3, 3, 0, 2, 2, 80][..]), "an alert: {answer:?}");
    many[MANY - 1].set_nonblocking(true).expect("a socket");
    let newest = (&many[MANY - 1]).read(&mut [0; 8]);
    assert_eq!(newest.expect_err("it is open").kind(), std::io::ErrorKind::WouldBlock);
    drop(many);
    let told = node.stop().stderr;
    assert_eq!(told.matches("of 256 handshakes").count(), 1, "{told}");
    assert!(told.contains("not completed by 127.0.0.2"), "{told}");
}

/// What a client of this version asks for, that would rather have these groups and trusts this certificate only.
fn client_config(
    certificate: &str,
    version: &'static SupportedProtocolVersion,
    groups: &[&'static dyn SupportedKxGroup],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate"))
        .expect("usable");
    let provider = CryptoProvider { kx_groups: groups.to_vec(), ..rustls::crypto::ring::default_provider() };
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .expect("a version that the provider has")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// How a handshake was made by which a client and the broker have greeted each other.
fn greet(config: &Arc<ClientConfig>, node: &Node) -> std::io::Result<HandshakeKind> {
    let name = ServerName::try_from("localhost").expect("a name");
    let session = ClientConnection::new(config.clone(), name).expect("a session");
    let mut stream = StreamOwned::new(session, connect_from([127, 0, 0, 1], node));
    stream.write_all(&frame::preface())?;
    stream.read_exact(&mut [0; 8])?;
    Ok(stream.conn.handshake_kind().expect("it is complete"))
}

/// Nanoseconds that the threads for handshakes have run, all of them in the system's class of idle ones.
fn time_of_handshake_threads(process: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("it runs");
    let of_task = |task: std::path::PathBuf| {
        let read = |name: &str| std::fs::read_to_string(task.join(name)).expect("it runs");
        if !read("comm").starts_with("handshake-") {
            return 0;
        }
        let stat = read("stat");
        let after_name = stat.rsplit(") ").next().expect("fields");
        // Field 41, the first after the name being the third; 5 is SCHED_IDLE.
        assert_eq!(after_name.split(' ').nth(38), Some("5"), "{stat}");
        let time = read("schedstat");
        time.split(' ').next().and_then(|time| time.parse::<u64>().ok()).expect("a number")
    };
    tasks.map(|task| of_task(task.expect("an entry").path())).sum()
}

/// Of both versions, with the usual group and a slower one, those who come back, and those who do not trust the broker; beside
/// those who wait for a thread and those who have gone while one had their session.
#[test]
fn signatures_of_rsa_are_made_beside_the_cores() {
    const RSA: &str = include_str!("../data/tls/rsa-certificate.pem");
    use HandshakeKind::{Full, Resumed};
    use rustls::crypto::ring::kx_group::{SECP384R1, X25519};
    use rustls::version::{TLS12, TLS13};
    let directory = test_directory();
    let node = setup_of(directory.path(), "rsa-").start();
    let name = ServerName::try_from("localhost").expect("a name");
    let mut hello = Vec::new();
    let mut begun = ClientConnection::new(client_config(RSA, &TLS13, &[X25519]), name).expect("a session");
    begun.write_tls(&mut hello).expect("memory takes it");
    let waiting: Vec<_> = (0..40).map(|_| half_open([127, 0, 0, 2], &node, &hello)).collect();
    for source in 10..40 {
        drop(half_open([127, 0, 0, source], &node, &hello));
    }
    let cases = [
        (&TLS12, &[X25519][..], Full),
        (&TLS13, &[X25519][..], Full),
        (&TLS13, &[SECP384R1, X25519][..], Full),
    ];
    for (version, groups, first) in cases {
        let config = client_config(RSA, version, groups);
        let kinds = [(); 3].map(|()| greet(&config, &node).expect("a handshake beside the others"));
        assert_eq!(kinds[0], first, "{version:?}");
        assert!(kinds[1..].iter().all(|kind| *kind == Resumed || *kind == first), "{version:?}: {kinds:?}");
    }
    greet(&client_config(CERTIFICATE, &TLS13, &[X25519]), &node).expect_err("it trusts another one");
    wait_for("the good handshakes are counted", || node.counter("tls_handshakes") == 9);
    for mut stream in &waiting {
        stream.read_exact(&mut [0; 8]).expect("the answer to its hello");
    }
    let time = time_of_handshake_threads(node.process());
    assert!(time > 10_000_000, "{time} ns: more than forty signatures");
    // With one on its way, the stop is not held up.
    let _last = half_open([127, 0, 0, 3], &node, &hello);
    let told = node.stop().stderr;
    assert!(!told.contains("thread"), "{told}");
}

/// Reads what a broker says to whoever begins with these bytes, after `pause`, until it closes.
fn told(address: &str, bytes: &[u8], pause: Duration) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("the system takes it");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    std::thread::sleep(pause);
    stream.write_all(bytes).expect("it is open");
    let mut answer = Vec::new();
    // A reset may stand for the end.
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// A request for a route, as RocketMQ's clients send it.
fn remoting_request() -> Vec<u8> {
    let header =
        br#"{"code":105,"language":"JAVA","version":495,"opaque":4711,"flag":0,"extFields":{"topic":"t"}}"#;
    let length = |bytes: usize| (bytes as u32).to_be_bytes();
    [&length(4 + header.len())[..], &length(header.len()), header].concat()
}

#[test]
fn who_is_not_let_in_is_told_in_their_own_words() {
    const LIMIT: usize = 96;
    let directory = test_directory();
    let setup = tls_setup(directory.path()).with(&["--http", "127.0.0.1:0"]).with_open_files(LIMIT);
    let node = setup.start();
    let http = node.http_address.clone().expect("it was asked for");
    let idle: Vec<_> = (0..LIMIT).map(|_| TcpStream::connect(&http).expect("the system takes it")).collect();
    let authority = Tls::trusting(CERTIFICATE.as_bytes()).expect("a certificate");
    let trusting = ConnectOptions { tls: Some(authority), ..ConnectOptions::default() };
    // Who says nothing is told as well, before long, and is in nobody's way then.
    for mut refused in &idle[LIMIT - 4..] {
        refused.set_read_timeout(Some(PATIENCE)).expect("a socket");
        refused.read_to_end(&mut Vec::new()).expect("the end");
    }
    for address in [node.address(), &http] {
        for pause in [Duration::ZERO, Duration::from_millis(200)] {
            let answer = told(address, HALF_HELLO, pause);
            assert_eq!(answer[..7], [0x15, 3, 3, 0, 2, 2, 80], "{address}: {answer:?}");
            let answer = told(address, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", pause);
            let answer = String::from_utf8_lossy(&answer);
            assert!(
                answer.starts_with("HTTP/1.1 503 ") && answer.contains("no descriptors left"),
                "{answer}"
            );
            let answer = told(address, &frame::preface(), pause);
            assert!(String::from_utf8_lossy(&answer).contains("no descriptors left"), "{answer:?}");
            assert!(answer.starts_with(&frame::PREFACE_MAGIC), "{answer:?}");
            let answer = told(address, &remoting_request(), pause);
            let answer = String::from_utf8_lossy(&answer);
            for part in ["\"opaque\":4711", "\"code\":2", "no descriptors left"] {
                assert!(answer.contains(part), "{address}: {part} is missing in {answer:?}");
            }
        }
        let handshake = tls(TcpStream::connect(address).expect("a socket"), CERTIFICATE, &[]);
        let Err(error) = handshake else { panic!("there is no room") };
        let error = error.to_string();
        assert!(error.contains("InternalError"), "{error}");
        let refused = Client::connect(address, trusting.clone()).and_then(|mut client| client.list_topics());
        let reason = refused.expect_err("there is no room").to_string();
        assert!(reason.contains("no descriptors left"), "{reason}");
    }
    let silent: Vec<_> =
        (0..20).map(|_| TcpStream::connect(node.address()).expect("the system takes it")).collect();
    assert_eq!(told(node.address(), HALF_HELLO, Duration::ZERO)[..2], [0x15, 3]);
    drop((idle, silent));
    wait_for("there is room again", || Client::connect(node.address(), Timeouts::default()).is_ok());
}
