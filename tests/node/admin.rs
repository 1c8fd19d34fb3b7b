//! The admin address: who is told what, and that nobody keeps others from it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::support::directory::test_directory;
use crate::support::http_connection::{Answer, Connection, tls};
use crate::support::node::{Node, PATIENCE, Setup};

pub const ADMIN: [&str; 2] = ["--admin", "127.0.0.1:0"];
const KEYS: &str = r#"
    [[keys]]
    id = "root"
    secret = "toor"
    admin = true
    [[keys]]
    id = "shop"
    secret = "hunter2"
    publish = ["orders"]
"#;
const CERTIFICATE: &str = include_str!("../data/tls/certificate.pem");
const KEY: &str = include_str!("../data/tls/key.pem");

pub fn write(path: &Path, text: &str) -> String {
    std::fs::write(path, text).expect("a directory of this test");
    path.to_str().expect("UTF-8").to_owned()
}

fn socket(node: &Node) -> TcpStream {
    let address = node.admin_address.as_ref().expect("it was asked for");
    let stream = TcpStream::connect(address).expect("the broker listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a positive time");
    stream
}

fn connect(node: &Node) -> Connection {
    Connection::over(socket(node))
}

/// One request with these lines of a head.
pub fn ask(node: &Node, method: &str, path: &str, head: &str) -> Answer {
    let mut connection = connect(node);
    connection.send(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n"));
    connection.next().expect("an answer")
}

pub fn get(node: &Node, path: &str) -> Answer {
    ask(node, "GET", path, "")
}

fn basic(key: &str) -> String {
    format!("Authorization: Basic {}\r\n", STANDARD.encode(key))
}

#[test]
fn probes_are_answered_and_the_address_is_told() {
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(&ADMIN).with(&["--shards", "3"]).start();
    let health = get(&node, "/healthz");
    assert_eq!((health.status, health.body.as_str()), (200, "ok\n"));
    let ready = get(&node, "/readyz");
    assert_eq!((ready.status, ready.body.lines().count()), (200, 4), "{}", ready.body);
    assert!(ready.body.starts_with("ready\nshard 0: serves\n"), "{}", ready.body);
    let version: serde_json::Value = serde_json::from_str(&get(&node, "/version").body).expect("JSON");
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&version["shards"], &version["cluster"]), (&3.into(), &"DefaultCluster".into()));
    assert!(get(&node, "/").body.contains("/readyz"));
    let counters: serde_json::Value = serde_json::from_str(&get(&node, "/api/node").body).expect("JSON");
    assert_eq!(counters["shards"][2]["state"], "ok");
    assert!(counters["shards"][1]["counters"]["log_flushes"].is_u64(), "{counters}");
    assert_eq!(get(&node, "/nothing").status, 404);
    assert_eq!(get(&node, "/api/nothing").status, 404);
    let refused = ask(&node, "POST", "/healthz", "Content-Length: 0\r\n");
    assert_eq!(refused.status, 405);
    assert!(refused.head.contains("\r\nallow: get, head\r\n"), "{}", refused.head);
}

#[test]
fn it_is_on_its_usual_address_unless_that_is_taken_or_it_is_switched_off() {
    let directory = test_directory();
    let _taken = std::net::TcpListener::bind("127.0.0.1:5557");
    let node = Setup::new(directory.path()).with_usual_addresses().start();
    let warning = "  WARNING: the admin address is left out: 127.0.0.1:5557 is in use by another program";
    assert!(node.banner.contains(warning) && node.banner.contains("--admin"), "{}", node.banner);
    assert_eq!(node.admin_address, None);
    node.stop();
    let node = Setup::new(directory.path()).with_usual_addresses().with(&["--admin", "none"]).start();
    assert!(!node.banner.contains("the admin address"), "{}", node.banner);
    node.stop();
}

#[test]
fn calls_need_the_key_that_a_native_client_would_and_probes_need_none() {
    let directory = test_directory();
    let keys = write(&directory.path().join("keys.toml"), KEYS);
    let data = directory.path().join("data");
    let node = Setup::new(&data).with(&ADMIN).with(&["--access-keys", &keys]).start();
    for path in ["/healthz", "/readyz", "/version"] {
        assert_eq!(get(&node, path).status, 200, "{path}");
    }
    let nobody = get(&node, "/api/node");
    assert_eq!(nobody.status, 401, "{}", nobody.body);
    assert!(nobody.head.contains("\r\nwww-authenticate: basic realm"), "{}", nobody.head);
    assert!(nobody.body.contains("\"Unauthenticated\""), "{}", nobody.body);
    for (key, status) in
        [("root:toor", 200), ("root:", 401), ("root:toor ", 401), ("nobody:toor", 401), ("shop:hunter2", 403)]
    {
        let answer = ask(&node, "GET", "/api/node", &basic(key));
        assert_eq!(answer.status, status, "{key}: {}", answer.body);
        assert!(!answer.body.contains("hunter2"), "{}", answer.body);
    }
    for garbage in ["Basic", "Bearer toor", "Basic ====", "Basic cm9vdA=="] {
        let answer = ask(&node, "GET", "/api/node", &format!("Authorization: {garbage}\r\n"));
        assert_eq!(answer.status, 401, "{garbage}");
    }
}

/// Whoever has proved a key on a connection goes on with it, whatever is tried from the same address meanwhile.
#[test]
fn secrets_are_not_found_by_trying() {
    let directory = test_directory();
    let keys = write(&directory.path().join("keys.toml"), KEYS);
    let data = directory.path().join("data");
    let node = Setup::new(&data).with(&ADMIN).with(&["--access-keys", &keys]).start();
    let request = |key: &str| format!("GET /api/node HTTP/1.1\r\nHost: localhost\r\n{}\r\n", basic(key));
    let mut known = connect(&node);
    known.send(request("root:toor"));
    assert_eq!(known.next().expect("an answer").status, 200);
    let mut guesser = connect(&node);
    let mut guess = |key: &str| {
        guesser.send(request(key));
        guesser.next().expect("an answer").status
    };
    let refused = (0..100).take_while(|number| guess(&format!("root:{number}")) == 401).count();
    assert!((30..90).contains(&refused), "{refused} were looked at");
    assert_eq!(guess("root:toor"), 503, "not even the right one");
    known.send(request("root:toor"));
    assert_eq!(known.next().expect("an answer").status, 200);
}

#[test]
fn pages_of_other_sites_get_nothing() {
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(&ADMIN).start();
    let mut connection = connect(&node);
    for (host, status) in [("rebound.example.org", 421), ("127.0.0.1:5557", 200), ("[::1]:5557", 200)] {
        connection.send(format!("GET /version HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(connection.next().expect("an answer").status, status, "{host}");
    }
    for (head, status) in [
        ("Origin: https://example.org\r\n", 403),
        ("Origin: null\r\n", 403),
        ("Sec-Fetch-Site: cross-site\r\n", 403),
        ("Origin: http://localhost\r\n", 405),
        ("", 405),
    ] {
        let answer = ask(&node, "POST", "/version", &format!("{head}Content-Length: 0\r\n"));
        assert_eq!(answer.status, status, "{head}");
    }
}

#[test]
fn who_says_nothing_gives_way_and_who_says_too_much_is_refused() {
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(&ADMIN).start();
    let mut silent: Vec<_> = (0..turbopump::limits::ADMIN_CONNECTIONS_MAX).map(|_| socket(&node)).collect();
    silent[1].write_all(b"GET /healthz HTTP/1.1\r\nHost: ").expect("the broker reads");
    for _ in 0..3 {
        assert_eq!(get(&node, "/healthz").status, 200);
    }
    // Those who came first have made room.
    assert!(matches!(silent[0].read(&mut [0]), Ok(0) | Err(_)));
    drop(silent);
    let mut connection = connect(&node);
    let long = "x".repeat(turbopump::limits::HTTP_HEADER_BYTES_MAX + 1);
    // The broker may have closed before it has read all of it.
    let _ = connection.stream.write_all(format!("GET / HTTP/1.1\r\nHost: {long}\r\n\r\n").as_bytes());
    let refused = connection.next().map(|answer| answer.status);
    assert!(matches!(refused, Some(431) | None), "{refused:?}");
    for garbage in ["\0\0\0\0", "GET / HTTP/9\r\n\r\n", "GET /%zz HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
        let mut connection = connect(&node);
        connection.send(garbage);
        let _ = connection.stream.shutdown(std::net::Shutdown::Write);
        assert!(connection.next().is_none_or(|answer| answer.status == 400), "{garbage}");
    }
    assert_eq!(get(&node, "/readyz").status, 200);
}

#[test]
fn it_is_spoken_to_within_tls_and_by_this_machine_without() {
    let directory = test_directory();
    let certificate = write(&directory.path().join("certificate.pem"), CERTIFICATE);
    let key = write(&directory.path().join("key.pem"), KEY);
    let data = directory.path().join("data");
    let setup = Setup::new(&data).with(&ADMIN).with(&["--tls-certificate", &certificate, "--tls-key", &key]);
    let request = "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for (mode, in_clear) in [(&[][..], 200), (&["--tls-mode", "enforcing"][..], 400)] {
        let node = setup.clone().with(mode).start();
        assert_eq!(get(&node, "/readyz").status, in_clear, "{mode:?}");
        let secured = tls(socket(&node), CERTIFICATE, &[b"http/1.1"]).expect("a handshake");
        let mut connection = Connection::over(secured);
        for _ in 0..2 {
            connection.send(request);
            assert_eq!(connection.next().expect("an answer").status, 200);
        }
        node.stop();
    }
    let node = Setup::new(directory.path().join("plain")).with(&ADMIN).start();
    assert!(tls(socket(&node), CERTIFICATE, &[]).is_err(), "there is no certificate");
}

/// A stop does not wait for those who are connected.
#[test]
fn a_stop_waits_for_nobody() {
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(&ADMIN).start();
    let mut silent = socket(&node);
    let mut served = connect(&node);
    served.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(served.next().expect("an answer").status, 200);
    let ended = node.stop();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert!(ended.took < Duration::from_secs(3), "{:?}", ended.took);
    assert!(matches!(silent.read(&mut [0]), Ok(0) | Err(_)));
}
