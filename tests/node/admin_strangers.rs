//! The admin address and those who mean it no good: pages of other sites in an operator's browser, names that are more than text,
//! and clients that take their time.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use turbopump::limits;

use super::admin::{ADMIN, ask, get, write};
use crate::support::directory::test_directory;
use crate::support::http_connection::{Answer, Connection};
use crate::support::node::{Node, PATIENCE, Setup, wait_for};

const OURS: &str = "X-Turbopump-Console: 1\r\n";
const SCRIPT: &str = "%3Cscript%3Ealert(1)%3C/script%3E";

fn socket(node: &Node) -> TcpStream {
    let address = node.admin_address.as_ref().expect("it was asked for");
    let stream = TcpStream::connect(address).expect("the broker listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a positive time");
    stream.set_write_timeout(Some(PATIENCE)).expect("a positive time");
    stream
}

/// The answer to one request, whose bytes need not be text.
fn answer_to(node: &Node, request: impl AsRef<[u8]>) -> Answer {
    let mut connection = Connection::over(socket(node));
    connection.send(request);
    connection.next().expect("an answer")
}

#[test]
fn pages_of_other_sites_see_nothing_of_what_they_load() {
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(&ADMIN).start();
    for (head, status) in [
        // A picture, a script, a frame, a request of a script: whether it was there would tell of topics and keys.
        ("Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\n", 403),
        ("Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n", 403),
        ("Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe\r\n", 403),
        ("Sec-Fetch-Site: cross-site\r\n", 403),
        // A link in a mail or on a board.
        ("Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n", 200),
        ("Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n", 200),
        ("Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n", 200),
        ("", 200),
    ] {
        let answer = ask(&node, "GET", "/api/topics", head);
        assert_eq!(answer.status, status, "{head}");
        assert!(answer.head.contains("\r\ncross-origin-resource-policy: same-origin\r\n"), "{}", answer.head);
    }
    // A browser that asks whether it may is not told that it may.
    let asked = "Origin: https://example.org\r\nAccess-Control-Request-Method: POST\r\n\
        Access-Control-Request-Headers: x-turbopump-console\r\n";
    for path in ["/api/topics/orders/messages", "/api/topics", "/version", "*"] {
        let answer = ask(&node, "OPTIONS", path, asked);
        assert!(answer.status >= 400 && !answer.head.contains("access-control"), "{path}: {}", answer.head);
    }
    for host in [&b"\xc3\xa4"[..], b"", b"0.0.0.0:5557", b"127.0.0.1.example.org", b"localhost@example.org"] {
        let request = [b"GET /api/topics HTTP/1.1\r\nHost: ", host, b"\r\n\r\n"].concat();
        let status = answer_to(&node, request).status;
        assert!(matches!(status, 400 | 421), "{host:?}: {status}");
    }
}

#[test]
fn names_are_told_as_text_and_lead_nowhere_else() {
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(&ADMIN).start();
    node.run_well(&["topic", "create", "orders"]);
    for path in [
        format!("/api/topics/{SCRIPT}"),
        format!("/api/groups/{SCRIPT}"),
        format!("/api/messages?topic={SCRIPT}"),
        format!("/api/topics?kind={SCRIPT}"),
        format!("/api/topics?sort={SCRIPT}"),
        format!("/{SCRIPT}"),
        "/api/topics/..%2F..%2Fetc%2Fpasswd".to_owned(),
        "/..%2Fconsole.js".to_owned(),
        "/%2e%2e/%2e%2e/etc/passwd".to_owned(),
        "/assets/../../etc/passwd".to_owned(),
        "/console.js%00.html".to_owned(),
        "/api/topics/orders%00".to_owned(),
        "/api/topics/%C0%AE%C0%AE".to_owned(),
    ] {
        let answer = ask(&node, "GET", &path, "Accept: text/html\r\n");
        assert!((400..500).contains(&answer.status), "{path}: {}", answer.status);
        assert!(!answer.head.contains("text/html"), "{path}: {}", answer.head);
        assert!(answer.head.contains("\r\nx-content-type-options: nosniff\r\n"), "{path}: {}", answer.head);
    }
    // The names of dead letters have a percent sign, which is escaped like anything else.
    for (path, status) in [("%25DLQ%25g", 404), ("%DLQ%g", 400), ("%", 400), ("%2", 400)] {
        let answer = get(&node, &format!("/api/topics/{path}"));
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
    }
    assert_eq!(get(&node, "//api///topics//orders/").status, 200, "slashes more or less are no other path");
}

#[test]
fn requests_come_one_after_the_other_and_from_those_who_say_no_more() {
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(&ADMIN).start();
    let request = |method: &str, path: &str| format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut connection = Connection::over(socket(&node));
    let paths = ["/healthz", "/nothing", "/readyz", "/version"];
    connection.send(paths.map(|path| request("GET", path)).concat());
    let statuses = paths.map(|_| connection.next().expect("an answer").status);
    assert_eq!(statuses, [200, 404, 200, 200], "in the order of the requests");
    // What the shards are asked for takes a moment, in which nothing more comes from this client.
    for path in ["/readyz", "/metrics", "/api/topics", "/api/node"] {
        let mut connection = Connection::over(socket(&node));
        connection.send(request("GET", path));
        connection.stream.shutdown(Shutdown::Write).expect("a socket");
        assert_eq!(connection.next().map(|answer| answer.status), Some(200), "{path}");
    }
    for path in ["/healthz", "/version", "/metrics", "/api/topics", "/nothing"] {
        let mut stream = socket(&node);
        let head = format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("the broker reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("a head");
        assert!(answer.ends_with("\r\n\r\n") && answer.matches("\r\n\r\n").count() == 1, "{path}: {answer}");
        assert!(!answer.to_lowercase().contains("content-length: 0\r\n"), "{path}: {answer}");
    }
    for head in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: -1\r\n",
        "Transfer-Encoding: gzip\r\n",
    ] {
        let smuggled = format!(
            "POST /healthz HTTP/1.1\r\nHost: localhost\r\n{head}\r\n0\r\n\r\n{}",
            request("GET", "/version")
        );
        let mut connection = Connection::over(socket(&node));
        connection.send(smuggled);
        let first = connection.next().map(|answer| answer.status);
        assert!(first.is_none_or(|status| (400..500).contains(&status)), "{head}: {first:?}");
        assert!(connection.next().is_none_or(|answer| answer.status == 200), "{head}");
    }
}

#[test]
fn what_is_too_long_is_refused_before_it_is_kept() {
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(&ADMIN).start();
    let mut connection = Connection::over(socket(&node));
    connection.send("GET /api/topics/");
    let part = vec![b'x'; 1 << 20];
    let mut taken = 0;
    // The broker may close before it has read all of it.
    while taken < 10 && connection.stream.write_all(&part).is_ok() {
        taken += 1;
    }
    assert!(taken < 10, "ten megabytes of a path are read");
    let refused = connection.next().map(|answer| answer.status);
    assert!(matches!(refused, Some(414 | 431) | None), "{refused:?}");
    let many = "a=b&".repeat(limits::HTTP_HEADER_BYTES_MAX / 8);
    assert_eq!(get(&node, &format!("/api/topics?{many}")).status, 200);
    let deep = format!("{}{}", "[".repeat(400_000), "]".repeat(400_000));
    let node = Setup::new(directory.path().join("writable")).with(&ADMIN).with(&["--admin-writable"]).start();
    let length = deep.len();
    let request = format!(
        "POST /api/groups/g/reset HTTP/1.1\r\nHost: localhost\r\n{OURS}Content-Length: {length}\r\n\r\n{deep}"
    );
    assert_eq!(answer_to(&node, request).status, 400, "a document as deep as that is none");
    assert_eq!(get(&node, "/readyz").status, 200);
}

/// As many as there is room for, each of which has the broker wait for it.
#[test]
fn those_who_keep_the_broker_waiting_give_way() {
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(&ADMIN).with(&["--admin-writable"]).start();
    let slow_body = format!(
        "POST /api/groups/g/reset HTTP/1.1\r\nHost: localhost\r\n{OURS}Expect: 100-continue\r\nContent-Length: 9\r\n\r\n"
    );
    // Far more than a socket's buffers take.
    let unread = "GET /console.js HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1_000);
    for said in [&slow_body, &unread] {
        let held: Vec<_> = (0..limits::ADMIN_CONNECTIONS_MAX)
            .map(|_| {
                let mut stream = socket(&node);
                stream.set_nonblocking(true).expect("a socket");
                // What it does not take now, it is not sent.
                let _ = stream.write(said.as_bytes());
                stream
            })
            .collect();
        // Until the broker waits for each of them: it has said that it takes the body, or can send no more.
        let of_all = || -> Vec<_> {
            let mut come = vec![0; 8 << 20];
            held.iter().map(|stream| stream.peek(&mut come).unwrap_or(0)).collect()
        };
        wait_for("all of them are answered, and no more", || {
            let before = of_all();
            std::thread::sleep(Duration::from_millis(100));
            before.iter().all(|come| *come > 0) && of_all() == before
        });
        for _ in 0..3 {
            assert_eq!(get(&node, "/healthz").status, 200, "{}", &said[..20]);
        }
    }
}

#[test]
fn nobodys_document_is_waited_for() {
    let directory = test_directory();
    let keys = "[[keys]]\nid = \"root\"\nsecret = \"toor\"\nadmin = true\n";
    let keys = write(&directory.path().join("keys.toml"), keys);
    let data = directory.path().join("data");
    let node = Setup::new(&data).with(&ADMIN).with(&["--access-keys", &keys]).start();
    for path in ["topics/orders/messages", "groups/g/reset", "dead-letters/g/redrive"] {
        let request =
            format!("POST /api/{path} HTTP/1.1\r\nHost: localhost\r\n{OURS}Content-Length: 9\r\n\r\n");
        assert_eq!(answer_to(&node, request).status, 401, "{path}");
    }
}
