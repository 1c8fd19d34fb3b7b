//! HTTP/1.1 as clients of all manners speak it, byte by byte: what is understood is answered, in order, and what is not
//! costs nobody else anything.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use socket2::{Domain, Socket, Type};
use turbopump::client::{Client, ConnectOptions, Connection as NativeConnection, Credentials};
use turbopump::protocol::http::{http_date, sign};
use turbopump::types::{Secret, Timestamp};

use crate::support::directory::test_directory;
use crate::support::http_connection::{Answer, Connection, GET, POST, PUBLISH, publish};
use crate::support::load::create_topic;
use crate::support::node::{Node, PATIENCE, Setup, wait_for};

fn start(directory: &tempfile::TempDir) -> Node {
    Setup::new(directory.path()).with(&["--http", "127.0.0.1:0"]).start()
}

#[test]
fn one_connection_carries_one_request_after_the_other() {
    let directory = test_directory();
    let node = start(&directory);
    let mut connection = Connection::open(&node);
    let delete = "DELETE /topics/orders/messages?consumer=g HTTP/1.1\r\nHost: h\r\n";
    let handles = "<ReceiptHandles><ReceiptHandle>h</ReceiptHandle></ReceiptHandles>";
    for _ in 0..100 {
        connection.send(publish(PUBLISH));
        connection.expect(404, "TopicNotExist");
        connection.send(GET);
        let answer = connection.expect(404, "TopicNotExist");
        assert!(answer.body.contains("<HostId>http://h</HostId>"), "{}", answer.body);
        connection.send(format!("{delete}Content-Length: {}\r\n\r\n{handles}", handles.len()));
        connection.expect(404, "TopicNotExist");
        connection.send(publish("<Message>"));
        connection.expect(400, "MalformedXML");
        connection.send(GET.replace("/messages", "/nothing"));
        connection.expect(404, "PathNotExist");
        connection.send(publish(PUBLISH).replace("POST", "PATCH"));
        assert!(connection.expect(405, "MethodNotAllowed").head.contains("\r\nallow: get, post, delete\r\n"));
    }
    connection.send(GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"));
    connection.expect(404, "TopicNotExist");
    connection.expect_end();
}

#[test]
fn bytes_may_come_one_at_a_time_and_requests_all_at_once() {
    let directory = test_directory();
    let node = start(&directory);
    let mut slow = Connection::open(&node);
    for byte in publish(PUBLISH).bytes() {
        slow.send([byte]);
    }
    slow.expect(404, "TopicNotExist");
    let mut all = Connection::open(&node);
    let many: String =
        (0..200).map(|_| publish(PUBLISH) + &publish("<x/>") + &GET.replace("topics", "t")).collect();
    all.send(many);
    for _ in 0..200 {
        all.expect(404, "TopicNotExist");
        all.expect(400, "MalformedXML");
        all.expect(404, "PathNotExist");
    }
}

#[test]
fn bodies_come_in_chunks_and_after_being_asked_for() {
    let directory = test_directory();
    let node = start(&directory);
    let mut connection = Connection::open(&node);
    connection.send(format!("{POST}Transfer-Encoding: chunked\r\n\r\n"));
    for chunk in PUBLISH.as_bytes().chunks(7) {
        connection.send(format!("{:x};x=y\r\n{}\r\n", chunk.len(), String::from_utf8_lossy(chunk)));
    }
    connection.send("0\r\nTrailer: t\r\n\r\n");
    connection.expect(404, "TopicNotExist");
    connection.send(format!("{POST}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n", PUBLISH.len()));
    assert_eq!(connection.next().expect("our word").status, 100);
    connection.send(PUBLISH);
    connection.expect(404, "TopicNotExist");
    // Who is refused anyway is not asked for the body.
    connection.send(format!("{POST}Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n"));
    connection.expect(413, "BodyTooLarge");
    connection.expect_end();
}

#[test]
fn what_is_too_large_is_refused_and_the_refusal_arrives() {
    let directory = test_directory();
    let node = start(&directory);
    let body = format!("<Message><MessageBody>{}</MessageBody></Message>", "x".repeat(4 << 20));
    let mut connection = Connection::open(&node);
    connection.send(publish(&body));
    connection.expect(404, "TopicNotExist");
    connection.send(publish(&body.replace("<MessageBody>", "<MessageBody>x")));
    connection.expect(400, "InvalidArgument");
    for head in [
        format!("{POST}Content-Length: 7000000\r\n\r\n"),
        format!("{POST}Transfer-Encoding: chunked\r\n\r\n6ACFC0\r\n"),
    ] {
        let mut connection = Connection::open(&node);
        connection.send(head);
        // A client that writes the whole of it before it reads.
        connection.send(vec![b'x'; 7_000_000]);
        connection.expect(413, "BodyTooLarge");
        connection.expect_end();
    }
    let mut connection = Connection::open(&node);
    connection.send(format!("{POST}X-Long: {}\r\n\r\n", "x".repeat(100_000)));
    connection.expect(431, "HeadTooLarge");
    connection.expect_end();
    // The words name what is too much, here not the bytes.
    let fields: String = (0..100).map(|number| format!("X-{number}: x\r\n")).collect();
    let mut connection = Connection::open(&node);
    connection.send(format!("{POST}{fields}\r\n"));
    assert!(connection.expect(431, "HeadTooLarge").body.contains("100 fields"));
    connection.expect_end();
}

/// hyper answers these by itself, with a status line and nothing else: clients call such an answer damaged.
#[test]
fn what_is_no_request_is_refused_in_a_document() {
    let directory = test_directory();
    let node = start(&directory);
    let address = node.http_address.as_ref().expect("it was asked for");
    for bytes in [
        "GET / HTTP/9.9\r\n\r\n",
        "G\0T / HTTP/1.1\r\n\r\n",
        "GET /\x01 HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        "{\"what\": \"is this\"}\r\n\r\n",
        "\u{e4}\r\n\r\n",
    ] {
        for before in [0, 3] {
            let mut connection = Connection::open(&node);
            for _ in 0..before {
                connection.send(GET);
                connection.expect(404, "TopicNotExist");
            }
            connection.send(bytes);
            let answer = connection.expect(400, "InvalidArgument");
            assert!(answer.head.contains("\r\nconnection: close\r\n"), "{bytes:?}: {}", answer.head);
            assert!(answer.body.contains(&format!("<HostId>http://{address}</HostId>")), "{}", answer.body);
            connection.expect_end();
        }
    }
    // Behind requests that are answered, in one piece with them.
    let mut connection = Connection::open(&node);
    connection.send(GET.repeat(3) + "GET\r\n\r\n");
    for _ in 0..3 {
        connection.expect(404, "TopicNotExist");
    }
    connection.expect(400, "InvalidArgument");
    connection.expect_end();
}

/// A client that sends its head, or nothing at all, too slowly. The time for a head is that for an idle connection when
/// that is shorter, so that nobody has to wait half a minute here.
#[test]
fn requests_have_to_come_in_time() {
    let directory = test_directory();
    let setup = Setup::new(directory.path()).with(&["--http", "127.0.0.1:0", "--http-idle-timeout", "2s"]);
    let node = setup.start();
    let mut idle = Connection::open(&node);
    idle.send(GET);
    idle.expect(404, "TopicNotExist");
    let begun = Instant::now();
    let mut slow = Connection::open(&node);
    let mut bytes = GET.bytes();
    slow.stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a socket");
    let mut first = [0];
    while slow.stream.peek(&mut first).is_err() {
        slow.send([bytes.next().expect("the time is over long before")]);
    }
    assert!(begun.elapsed() > Duration::from_secs(2), "{:?}", begun.elapsed());
    slow.stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let answer = slow.expect(408, "RequestTimeout");
    assert!(answer.head.contains("\r\nconnection: close\r\n"), "{}", answer.head);
    slow.expect_end();
    // Who asked for nothing is told nothing.
    idle.expect_end();
    // A wait for messages is no idleness.
    node.run_well(&["topic", "create", "orders"]);
    let mut waiting = Connection::open(&node);
    waiting.send(GET.replace("numOfMessages=1", "numOfMessages=1&waitseconds=5"));
    waiting.expect(404, "MessageNotExist");
}

#[test]
fn clients_that_stop_midway_do_not_hold_others_or_the_end_up() {
    let directory = test_directory();
    let node = start(&directory);
    let mut stalled: Vec<_> = (0..50).map(|_| Connection::open(&node)).collect();
    for (index, connection) in stalled.iter_mut().enumerate() {
        let whole = publish(PUBLISH);
        connection.send(&whole[..1 + index * (whole.len() - 2) / 50]);
    }
    let mut idle = Connection::open(&node);
    idle.send(GET);
    idle.expect(404, "TopicNotExist");
    for connection in stalled.iter().take(10) {
        connection.stream.shutdown(Shutdown::Both).expect("it is open");
    }
    let mut another = Connection::open(&node);
    another.send(GET);
    another.expect(404, "TopicNotExist");
    let ended = node.stop();
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(ended.took < Duration::from_secs(5), "{:?}", ended.took);
    idle.expect_end();
}

#[test]
fn each_address_speaks_its_own_protocol() {
    let directory = test_directory();
    let flags = ["--http", "127.0.0.1:0", "--shards", "3", "--separate-protocols"];
    let node = Setup::new(directory.path()).with(&flags).start();
    let http = node.http_address.as_deref().expect("it was asked for");
    let preface: &[u8] = &[0xF5, b'T', b'P', b'N', 1, 0, 0, 0];
    for (address, bytes, flag) in [(node.address(), GET.as_bytes(), "--http"), (http, preface, "--listen")] {
        let mut foreign = TcpStream::connect(address).expect("it listens");
        foreign.write_all(bytes).expect("it reads");
        let mut answer = String::new();
        foreign.read_to_string(&mut answer).expect("one answer, and the end");
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains(flag), "{address}: {answer}");
    }
    for _ in 0..20 {
        let mut connection = Connection::open(&node);
        connection.send(GET);
        connection.expect(404, "TopicNotExist");
    }
}

/// A signed request for a message of a topic that is not there.
fn signed_get(id: &str, secret: &str) -> String {
    let target = GET.split(' ').nth(1).expect("a request line");
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let date = http_date(Timestamp(since.as_millis() as u64));
    let mut headers = http::HeaderMap::new();
    headers.insert("date", date.parse().expect("ASCII"));
    let signature = sign(&Secret::new(secret), &http::Method::GET, target, &headers);
    GET.replace("\r\n\r\n", &format!("\r\nDate: {date}\r\nAuthorization: MQ {id}:{signature}\r\n\r\n"))
}

/// A connection of a client that is not at 127.0.0.1.
fn from_another_address(node: &Node) -> TcpStream {
    let address = node.http_address.as_ref().expect("it was asked for");
    let address: SocketAddr = address.parse().expect("an address");
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into()).expect("a loopback address");
    socket.connect(&address.into()).expect("the broker listens");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a positive time");
    stream
}

/// The native protocol has the same brake: what fails at one of them is not tried on at the other.
#[test]
fn guessing_signatures_is_stopped_counted_and_told() {
    let directory = test_directory();
    let keys = directory.path().join("keys.toml");
    std::fs::write(&keys, "[[keys]]\nid = \"root\"\nsecret = \"toor\"\nadmin = true\n").expect("written");
    let keys = keys.to_str().expect("UTF-8").to_owned();
    let flags = ["--shards", "1", "--http", "127.0.0.1:0", "--access-keys", &keys];
    let node = Setup::new(directory.path().join("data")).with(&flags).start();
    let credentials = Credentials::new("root", "toor".to_owned()).expect("a key");
    let options = ConnectOptions { credentials: Some(credentials), ..ConnectOptions::default() };
    let mut proved = Client::connect(node.address(), options.clone()).expect("believed");
    // A connection on which the key is proved, and nothing is tried.
    let mut trusted = Connection::open(&node);
    trusted.send(signed_get("root", "toor"));
    trusted.expect(404, "TopicNotExist");
    let mut connection = Connection::open(&node);
    let mut ask = |id: &str, secret: &str| {
        connection.send(signed_get(id, secret));
        connection.next().expect("an answer")
    };
    assert_eq!(ask("root", "toor").status, 404);
    let message = |answer: Answer, id: &str| {
        let (_, message) = answer.body.split_once("<Message>").expect("a message");
        message.split_once("</Message>").expect("its end").0.replace(id, "KEY")
    };
    let (wrong, unknown) = (ask("root", "guess"), ask("nobody", "guess"));
    assert_eq!((wrong.status, unknown.status), (403, 403));
    assert_eq!(message(wrong, "root"), message(unknown, "nobody"), "they tell which keys there are");
    let barred = (2..60).find_map(|attempt| {
        let answer = ask("root", &format!("guess {attempt}"));
        (answer.status != 403).then_some((attempt, answer))
    });
    let (attempt, answer) = barred.expect("sixty guesses are let through");
    assert!(attempt >= 30, "only {attempt} failures are allowed");
    assert!(answer.status == 503 && answer.body.contains("<Code>ServerError</Code>"), "{}", answer.body);
    assert!(answer.body.contains("try again in"), "{}", answer.body);
    assert_eq!(ask("root", "toor").status, 503, "a right one from there is looked at");
    let native = NativeConnection::connect(node.address(), options);
    let refused = native.map(drop).expect_err("the native protocol takes more guesses").to_string();
    assert!(refused.contains("too many proofs"), "{refused}");
    // Who has proved it and tries nothing goes on, with that key alone, until a proof fails.
    for (id, secret, status) in [
        ("root", "toor", 404),
        ("other", "toor", 503),
        ("root", "toor", 404),
        ("root", "no", 403),
        ("root", "toor", 503),
    ] {
        trusted.send(signed_get(id, secret));
        assert_eq!(trusted.next().expect("an answer").status, status, "{id} with {secret}");
    }
    // Who comes from elsewhere is not kept waiting.
    let elsewhere = from_another_address(&node);
    let mut elsewhere = Connection::over(elsewhere);
    elsewhere.send(signed_get("root", "toor"));
    elsewhere.expect(404, "TopicNotExist");
    // Not signed, and of a key without a rule for it: each refused request is counted.
    elsewhere.send(GET);
    elsewhere.expect(403, "AccessDenied");
    let info = proved.describe_node(false).expect("its session goes on");
    let count = |name: &str| {
        let counters = info.shards.iter().flat_map(|shard| &shard.counters);
        counters.filter(|(counter, _)| counter == name).map(|(_, count)| *count).sum::<u64>()
    };
    assert!(count("proofs_failed") >= 32 && count("requests_denied") == 1, "{:?}", info.shards);
    let deadline = Instant::now() + PATIENCE;
    while ask("root", "toor").status != 404 {
        assert!(Instant::now() < deadline, "the right secret is never believed again");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(proved);
    let ended = node.stop();
    assert!(ended.stderr.contains("did not prove the access key `root`"), "{}", ended.stderr);
}

#[test]
fn keys_are_asked_for_and_read_again() {
    let directory = test_directory();
    let file = directory.path().join("keys.toml");
    let path = file.to_str().expect("UTF-8").to_owned();
    std::fs::write(&file, "[[keys]]\nid = \"a\"\nsecret = \"s\"\nadmin = true\n").expect("written");
    let setup =
        Setup::new(directory.path().join("data")).with(&["--http", "127.0.0.1:0", "--access-keys", &path]);
    let node = setup.start();
    assert!(node.banner.contains("signed requests only"), "{}", node.banner);
    assert!(node.banner.contains("WARNING") && node.banner.contains("chmod 600"), "{}", node.banner);
    let mut connection = Connection::open(&node);
    connection.send(publish(PUBLISH));
    connection.expect(403, "AccessDenied");
    let signed = |id: &str| {
        GET.replace(
            "\r\n\r\n",
            &format!("\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nAuthorization: MQ {id}:AAAA\r\n\r\n"),
        )
    };
    let mut refusal = |id: &str| {
        connection.send(signed(id));
        connection.expect(403, "AccessDenied").body
    };
    assert!(refusal("a").contains("away from the broker's clock"));
    assert!(refusal("b").contains("away from the broker's clock"), "a date tells which keys there are");
    let mut get = |id: &str| {
        connection.send(signed_get(id, "s"));
        connection.next().expect("an answer").status
    };
    assert_eq!((get("a"), get("b")), (404, 403));
    std::fs::write(&file, "[[keys]]\nid = \"b\"\nsecret = \"s\"\nadmin = true\n").expect("written");
    let deadline = Instant::now() + PATIENCE;
    while get("b") == 403 {
        assert!(Instant::now() < deadline, "the change is not seen");
        // One failed proof a second is forgotten; a few more are allowed.
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_eq!((get("a"), get("b")), (403, 404));
    drop(node);
    std::fs::write(&file, "[[keys]]\nid = 3\n").expect("written");
    let ended = setup.try_start().err().expect("the file is wrong");
    assert!(ended.stderr.contains("--access-keys") && ended.stderr.contains("line 2"), "{}", ended.stderr);
}

#[test]
fn a_wait_ends_with_the_key_that_it_was_begun_with() {
    let directory = test_directory();
    let file = directory.path().join("keys.toml");
    let write = |rules: &str| {
        let root = "[[keys]]\nid = \"root\"\nsecret = \"toor\"\nadmin = true\n";
        std::fs::write(&file, format!("{root}{rules}")).expect("written");
    };
    let reader = |group: &str| {
        format!(
            "[[keys]]\nid = \"a\"\nsecret = \"s\"\nconsume = [{{ topic = \"orders\", group = \"{group}\" }}]\n"
        )
    };
    write(&reader("g"));
    let flags = ["--shards", "2", "--http", "127.0.0.1:0", "--access-keys", file.to_str().expect("UTF-8")];
    let node = Setup::new(directory.path().join("data")).with(&flags).start();
    let credentials = Credentials::new("root", "toor".to_owned()).expect("a key");
    let options = ConnectOptions { credentials: Some(credentials), ..ConnectOptions::default() };
    let mut root = Client::connect(node.address(), options).expect("believed");
    create_topic(&mut root, "orders", 2);
    let mut publisher = Connection::open(&node);
    let signed = |method: &str, target: &str, id: &str, secret: &str, body: &str| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let date = http_date(Timestamp(since.as_millis() as u64));
        let mut headers = http::HeaderMap::new();
        headers.insert("date", date.parse().expect("ASCII"));
        let signature = sign(&Secret::new(secret), &method.parse().expect("a method"), target, &headers);
        let length = body.len();
        let head =
            format!("{method} {target} HTTP/1.1\r\nHost: h\r\nDate: {date}\r\nContent-Length: {length}\r\n");
        format!("{head}Authorization: MQ {id}:{signature}\r\n\r\n{body}")
    };
    const TARGET: &str = "/topics/orders/messages?consumer=g&numOfMessages=1&waitseconds=30";
    let hang_up = || node.signal(rustix::process::Signal::HUP);
    let wait = || {
        let mut connection = Connection::open(&node);
        connection.send(signed("GET", TARGET, "a", "s", ""));
        std::thread::sleep(Duration::from_millis(300));
        connection
    };
    // Nobody may have the message that comes after: not who has no key any more, nor another secret, nor no right to it.
    let other_secret = reader("g").replace("\"s\"", "\"t\"");
    for rules in ["", &other_secret, &reader("h")] {
        let mut waiting = wait();
        // What has not to do with it does not end it.
        write(&format!("{}[[keys]]\nid = \"b\"\nsecret = \"s\"\n", reader("g")));
        hang_up();
        let begun = Instant::now();
        std::thread::sleep(Duration::from_millis(300));
        write(rules);
        hang_up();
        let answer = waiting.expect(403, "AccessDenied");
        let took = begun.elapsed();
        assert!(
            took >= Duration::from_millis(250) && took < Duration::from_secs(10),
            "{took:?}: {}",
            answer.body
        );
        publisher.send(signed("POST", "/topics/orders/messages", "root", "toor", PUBLISH));
        assert_eq!(publisher.next().expect("an answer").status, 201);
        write(&reader("g"));
        hang_up();
        // The connection goes on, and the message was kept from nobody else.
        wait_for("the key is back", || {
            let mut again = Connection::open(&node);
            again.send(signed("GET", TARGET, "a", "s", ""));
            let status = again.next().expect("an answer").status;
            std::thread::sleep(Duration::from_millis(if status == 200 { 0 } else { 200 }));
            status == 200
        });
        waiting.send(signed("GET", TARGET.split("&wait").next().expect("a target"), "a", "s", ""));
        assert_eq!(waiting.next().expect("an answer").status, 404);
    }
}

#[test]
fn a_document_with_attributes_that_are_none_is_refused() {
    let directory = test_directory();
    let node = start(&directory);
    node.run_well(&["topic", "create", "orders"]);
    let mut connection = Connection::open(&node);
    for (tag, words) in [
        ("Message a=\"1\" a=\"2\"", "has the attribute a twice"),
        ("Message a=1", "not well formed"),
        ("Message a=\"<\"", "not well formed"),
        ("Message a=\"1\"b=\"2\"", "not well formed"),
    ] {
        connection.send(publish(&PUBLISH.replacen("Message", tag, 1)));
        let answer = connection.expect(400, "MalformedXML");
        assert!(answer.body.contains(words), "{tag}: {}", answer.body);
        connection.send(publish(&PUBLISH.replace(
            "<MessageBody>",
            &format!("<MessageTag>t</MessageTag><{}/><MessageBody>", tag.replace("Message", "Other")),
        )));
        connection.expect(400, "MalformedXML");
    }
    connection.send(publish(&PUBLISH.replacen(
        "Message",
        "Message xmlns='http://mq.aliyuncs.com/doc/v1' b = \"2\" ",
        1,
    )));
    assert_eq!(connection.next().expect("an answer").status, 201);
}

/// What a client would have delivered again if the whole request were refused for one of its handles.
#[test]
fn a_wrong_handle_of_several_fails_alone() {
    let directory = test_directory();
    let node = start(&directory);
    node.run_well(&["topic", "create", "orders", "--queues", "1"]);
    let mut connection = Connection::open(&node);
    for _ in 0..3 {
        connection.send(publish(PUBLISH));
        assert_eq!(connection.next().expect("an answer").status, 201);
    }
    connection.send(GET.replace("numOfMessages=1", "numOfMessages=16"));
    let received = connection.next().expect("an answer").body;
    let handles = received.split("<ReceiptHandle>").skip(1).filter_map(|rest| rest.split('<').next());
    let handles: Vec<_> = handles.collect();
    assert_eq!(handles.len(), 3, "{received}");
    let sent = [handles[0], "", handles[1], &"h".repeat(2_000), "forged", handles[2]];
    let sent = sent.map(|handle| format!("<ReceiptHandle>{handle}</ReceiptHandle>"));
    let sent = format!("<ReceiptHandles>{}</ReceiptHandles>", sent.concat());
    let delete = "DELETE /topics/orders/messages?consumer=g HTTP/1.1\r\nHost: h\r\n";
    connection.send(format!("{delete}Content-Length: {}\r\n\r\n{sent}", sent.len()));
    let answer = connection.next().expect("an answer");
    assert_eq!((answer.status, answer.body.matches("<Error>").count()), (404, 3), "{}", answer.body);
    assert!(handles.iter().all(|handle| !answer.body.contains(handle)), "{}", answer.body);
    let described = node.run_well(&["group", "describe", "g", "-o", "json"]);
    assert!(described.contains("\"lag\":0"), "{described}");
}

/// A message of another protocol has no id of its producer: consumers that drop what they have seen would drop all but one.
#[test]
fn every_message_has_an_id_by_which_it_is_found() {
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(&["--http", "127.0.0.1:0", "--shards", "3"]).start();
    node.run_well(&["topic", "create", "orders", "--queues", "3"]);
    let lines: String = (0..12).map(|number| format!("line {number}\n")).collect();
    let file = directory.path().join("lines");
    std::fs::write(&file, lines).expect("a directory of this test");
    node.run_well(&["produce", "orders", file.to_str().expect("UTF-8")]);
    // The other ways to get a message say the same, under one name.
    let ids_by = |command: &[&str]| -> BTreeMap<String, String> {
        let printed = node.run_well(&[command, &["-o", "json"]].concat());
        let part = |line: &str, name: &str| {
            let object: serde_json::Value = serde_json::from_str(line).expect("an object");
            object[name].as_str().unwrap_or_else(|| panic!("no `{name}` in {object}")).to_owned()
        };
        printed.lines().map(|line| (part(line, "body"), part(line, "id"))).collect()
    };
    let consumed = ids_by(&["consume", "orders"]);
    assert_eq!(consumed.len(), 12);
    let receive = ["message", "receive", "orders", "--group", "others", "--count", "32", "--ack"];
    let mut received = BTreeMap::new();
    while received.len() < 12 {
        received.append(&mut ids_by(&[&receive[..], &["--wait", "10s"]].concat()));
    }
    assert_eq!(received, consumed);
    let mut connection = Connection::open(&node);
    let mut ids = Vec::new();
    while ids.len() < 12 {
        connection.send(GET.replace("numOfMessages=1", "numOfMessages=16&waitseconds=10"));
        let answer = connection.next().expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.body);
        for message in answer.body.split("<Message>").skip(1) {
            let part = |name: &str| {
                let rest = message.split_once(&format!("<{name}>")).expect(name).1;
                rest.split_once('<').expect("its end").0.to_owned()
            };
            let found = node.run_well(&["message", "find", "--id", &part("MessageId"), "-o", "json"]);
            assert!(found.contains(&format!("\"body\":\"{}\"", part("MessageBody"))), "{message}: {found}");
            assert!(found.contains(&format!("\"id\":\"{}\"", part("MessageId"))), "{found}");
            assert_eq!(consumed.get(&part("MessageBody")), Some(&part("MessageId")), "{message}");
            ids.push(part("MessageId"));
        }
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 12);
}

/// Escaping makes six bytes of each of these. A large answer is made on its way out, so what it takes is what is stored;
/// and they are given out a few at a time.
#[test]
fn many_large_answers_take_the_memory_of_a_few() {
    let directory = test_directory();
    let flags = ["--http", "127.0.0.1:0", "--client-memory", "64MiB"];
    let node = Setup::new(directory.path()).with(&flags).start();
    node.run_well(&["topic", "create", "orders", "--queues", "1"]);
    let poll = |group: usize| {
        let poll = GET.replace("consumer=g", &format!("consumer=g{group}"));
        poll.replace("numOfMessages=1", "numOfMessages=1&waitseconds=30")
    };
    let mut waiting: Vec<_> = (0..8).map(|_| Connection::open(&node)).collect();
    for (group, connection) in waiting.iter_mut().enumerate() {
        connection.send(poll(group));
    }
    wait_for("all wait", || node.counter("requests") >= 8);
    let body = "\"".repeat(4 << 20);
    let mut publisher = Connection::open(&node);
    publisher.send(publish(&format!("<Message><MessageBody>{body}</MessageBody></Message>")));
    assert_eq!(publisher.next().expect("an answer").status, 201);
    let escaped = "&quot;".repeat(4 << 20);
    for connection in &mut waiting {
        let answer = connection.next().expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(answer.body.contains(&escaped), "the whole of it");
    }
    let peak = node.counter("memory_http_answers_peak");
    assert!((4 << 20..20 << 20).contains(&peak), "{peak}");
    let held = || (node.counter("memory_http_answers"), node.counter("answer_bytes_waiting"));
    wait_for("what the answers took is given back", || held() == (0, 0));
}

/// What would be stored and not obeyed: a delay by the names of RocketMQ's other protocols, for example.
#[test]
fn a_property_with_a_meaning_of_its_own_is_refused() {
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(&["--http", "127.0.0.1:0"]).start();
    node.run_well(&["topic", "create", "orders"]);
    let mut connection = Connection::open(&node);
    let message = |properties: &str| {
        format!("<Message><MessageBody>x</MessageBody><Properties>{properties}</Properties></Message>")
    };
    for name in ["DELAY", "TIMER_DELIVER_MS", "TRAN_MSG", "TAGS", "MAX_RECONSUME_TIMES", "INSTANCE_ID"] {
        connection.send(publish(&message(&format!("colour:red|{name}:3|"))));
        let answer = connection.expect(400, "InvalidArgument");
        assert!(answer.body.contains(name), "{}", answer.body);
    }
    let well = "KEYS:a b|__SHARDINGKEY:s|__STARTDELIVERTIME:1|UNIQ_KEY:mine|colour:red|";
    connection.send(publish(&message(well)));
    assert_eq!(connection.next().expect("an answer").status, 201);
    assert_eq!(node.run_well(&["consume", "orders"]), "x\n", "the others were not stored");
}

/// The requests have all come by the time of the first answer, which is made while it goes out.
#[test]
fn requests_behind_large_answers_are_answered() {
    let directory = test_directory();
    let node = start(&directory);
    node.run_well(&["topic", "create", "orders", "--queues", "1"]);
    let mut connection = Connection::open(&node);
    let body = "x".repeat(1 << 20);
    for _ in 0..6 {
        connection.send(publish(&format!("<Message><MessageBody>{body}</MessageBody></Message>")));
        assert_eq!(connection.next().expect("an answer").status, 201);
    }
    connection.send(GET.repeat(7));
    for _ in 0..6 {
        let answer = connection.next().expect("an answer");
        assert_eq!((answer.status, answer.body.len() > 1 << 20), (200, true), "{}", answer.head);
    }
    connection.expect(404, "MessageNotExist");
}
