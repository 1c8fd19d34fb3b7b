//! What HTTP itself says about who is meant and where a body ends: whoever reads a request otherwise than a proxy before the
//! broker would take one request for two.

use std::net::Shutdown;
use std::time::{Duration, Instant};

use crate::support::directory::test_directory;
use crate::support::http_connection::{Connection, GET, POST, PUBLISH, publish};
use crate::support::node::{Node, Setup};

fn start(directory: &tempfile::TempDir) -> Node {
    let node = Setup::new(directory.path()).with(&["--http", "127.0.0.1:0"]).start();
    node.run_well(&["topic", "create", "orders", "--queues", "1"]);
    node
}

fn chunked() -> String {
    format!("{:x}\r\n{PUBLISH}\r\n0\r\n\r\n", PUBLISH.len())
}

#[test]
fn a_request_names_one_host() {
    let directory = test_directory();
    let node = start(&directory);
    let mut connection = Connection::open(&node);
    for hosts in ["", "Host: h\r\nHost: h\r\n", "Host: a b\r\n", "Host: [::1\r\n", "Host: h:x\r\n"] {
        connection.send(publish(PUBLISH).replace("Host: h\r\n", hosts));
        let answer = connection.expect(400, "InvalidArgument");
        assert!(answer.body.contains("the header `Host`"), "{hosts:?}: {}", answer.body);
    }
    for hosts in ["Host: \r\n", "Host: [::1]:8080\r\n", "Host: shop.example:80\r\n"] {
        connection.send(publish(PUBLISH).replace("Host: h\r\n", hosts));
        assert_eq!(connection.next().expect("an answer").status, 201, "{hosts:?}");
    }
    // HTTP/1.0 has no such header.
    connection.send(publish(PUBLISH).replace("Host: h\r\n", "").replace("HTTP/1.1", "HTTP/1.0"));
    assert_eq!(connection.next().expect("an answer").status, 201);
}

#[test]
fn a_body_that_is_coded_otherwise_is_refused() {
    let directory = test_directory();
    let node = start(&directory);
    for (codings, status, code) in [
        ("gzip, chunked", 501, "ServerError"),
        ("gzip\r\nTransfer-Encoding: chunked", 501, "ServerError"),
        ("chunked, chunked", 400, "InvalidArgument"),
        ("chunked, gzip", 400, "InvalidArgument"),
        ("identity", 400, "InvalidArgument"),
    ] {
        let mut connection = Connection::open(&node);
        connection.send(format!("{POST}Transfer-Encoding: {codings}\r\n\r\n{}", chunked()));
        let answer = connection.expect(status, code);
        assert!(answer.head.contains("\r\nconnection: close\r\n"), "{codings}: {}", answer.head);
        connection.expect_end();
    }
    let mut connection = Connection::open(&node);
    let coded = publish(PUBLISH).replace("Host: h\r\n", "Host: h\r\nContent-Encoding: gzip\r\n");
    connection.send(coded);
    assert!(connection.expect(400, "InvalidArgument").body.contains("`gzip`"));
    connection.send(format!("{POST}Transfer-Encoding: Chunked\r\n\r\n{}", chunked()));
    assert_eq!(connection.next().expect("an answer").status, 201);
    connection.send(GET);
    assert_eq!(connection.next().expect("an answer").status, 200);
    connection.send(GET);
    connection.expect(404, "MessageNotExist");
}

/// A client that announces what nobody takes, and sends nothing of it, has nothing to wait for.
#[test]
fn a_chunk_beyond_the_limit_is_refused_when_it_is_announced() {
    let directory = test_directory();
    let node = start(&directory);
    for size in ["FFFFFFFFFFFFFFFF", "00ffffffff", "600001"] {
        let mut connection = Connection::open(&node);
        let head = format!("{POST}Transfer-Encoding: chunked\r\n");
        connection.send(format!("{GET}{head}\r\n{size}\r\n"));
        connection.expect(404, "MessageNotExist");
        connection.expect(413, "BodyTooLarge");
        connection.expect_end();
        let mut connection = Connection::open(&node);
        connection.send(format!("{head}Expect: 100-continue\r\n\r\n3\r\n<Me\r\n{size}\r\n"));
        assert_eq!(connection.next().expect("our word").status, 100);
        connection.expect(413, "BodyTooLarge");
        connection.expect_end();
        // Some of it comes, and then nothing.
        for first in ["", "3\r\n<Me\r\n"] {
            let begun = Instant::now();
            let mut connection = Connection::open(&node);
            connection.send(format!("{head}\r\n{first}{size}\r\n{}", "<Message>".repeat(5)));
            connection.expect(413, "BodyTooLarge");
            connection.expect_end();
            assert!(begun.elapsed() < Duration::from_secs(20), "{size}: {:?}", begun.elapsed());
            // Nor is it waited for after a refusal.
            let begun = Instant::now();
            let mut connection = Connection::open(&node);
            let unknown = format!("{head}\r\n").replace("/topics/", "/nothing/");
            connection.send(format!("{unknown}{first}{size}\r\n<Message>"));
            connection.expect(404, "PathNotExist");
            connection.expect_end();
            assert!(begun.elapsed() < Duration::from_secs(20), "{size}: {:?}", begun.elapsed());
        }
        for pieces in [1, 2, size.len()] {
            let begun = Instant::now();
            let mut connection = Connection::open(&node);
            connection.send(format!("{head}\r\n"));
            if pieces == 1 {
                connection.send("3\r\n<Me\r\n");
            }
            for piece in size.as_bytes().chunks(size.len().div_ceil(pieces)) {
                connection.send(piece);
                std::thread::sleep(Duration::from_millis(5));
            }
            connection.send("\r\n");
            connection.expect(413, "BodyTooLarge");
            connection.expect_end();
            assert!(begun.elapsed() < Duration::from_secs(20), "{size}: {:?}", begun.elapsed());
        }
    }
    // An extension of its size changes nothing about a chunk.
    let head = format!("{POST}Transfer-Encoding: chunked\r\n\r\n");
    for extension in [";a=b", " ; a=\"b;c\"", &format!(";{}", "x".repeat(1000))] {
        for behind in ["", "<Message>"] {
            let begun = Instant::now();
            let mut connection = Connection::open(&node);
            connection.send(format!("{head}ffffffff{extension}\r\n{behind}"));
            connection.expect(413, "BodyTooLarge");
            assert!(begun.elapsed() < Duration::from_secs(20), "{extension}: {:?}", begun.elapsed());
        }
        let mut connection = Connection::open(&node);
        connection.send(format!("{head}{:x}{extension}\r\n{PUBLISH}\r\n0{extension}\r\n\r\n", PUBLISH.len()));
        assert_eq!(connection.next().expect("an answer").status, 201, "{extension}");
    }
    // What only looks so is data, whenever it comes.
    let body = PUBLISH.replace("abc", "\r\nFFFFFFFF\r\n");
    let end = body.find("</").expect("it has an end");
    let head = format!("{POST}Transfer-Encoding: chunked\r\n\r\n");
    for first in [
        format!("{head}{:x}\r\n", body.len()),
        format!("{head}3\r\n{}\r\n{:x}\r\n", &body[..3], body.len() - 3),
    ] {
        let taken = if first.contains("\r\n3\r\n") { 3 } else { 0 };
        for is_slow in [false, true] {
            let mut connection = Connection::open(&node);
            let (before, after) = (&body[taken..end], &body[end..]);
            let begin = if is_slow {
                connection.send(&first);
                String::new()
            } else {
                first.clone()
            };
            for piece in [&(begin + before), after, "\r\n0\r\n\r\n"] {
                std::thread::sleep(Duration::from_millis(20));
                connection.send(piece);
            }
            assert_eq!(connection.next().expect("an answer").status, 201, "{first:?}");
        }
    }
}

#[test]
fn who_sends_half_a_body_is_told_how_much_came() {
    let directory = test_directory();
    let node = start(&directory);
    for (request, words) in [
        (format!("{POST}Content-Length: 100\r\n\r\n<Message>"), "9 of its 100 bytes"),
        (format!("{POST}Content-Length: 100\r\n\r\n"), "0 of its 100 bytes"),
        (format!("{POST}Transfer-Encoding: chunked\r\n\r\n9\r\n<Message>\r\n"), "cut off after 9 bytes"),
        (format!("{POST}Transfer-Encoding: chunked\r\n\r\n9"), "cut off after 0 bytes"),
        (format!("{POST}Transfer-Encoding: chunked\r\n\r\n-9\r\n"), "chunks cannot be told apart"),
    ] {
        let mut connection = Connection::open(&node);
        connection.send(&request);
        connection.stream.shutdown(Shutdown::Write).expect("it is open");
        let answer = connection.expect(400, "InvalidArgument");
        assert!(answer.body.contains(words), "{request:?}: {}", answer.body);
        connection.expect_end();
    }
}
