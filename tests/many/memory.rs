//! What a client costs of memory follows what it sends.
//!
//! The figures in front of the repairs are those of the release that was attacked; the tests hold the ones after them.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use turbopump::api::{Fetch, FindMessages, JoinGroup, Receive, Request, SessionLife, Watch};
use turbopump::client::Client;
use turbopump::limits::{self, FRAME_BYTES_MAX, WATCH_QUEUES_MAX};
use turbopump::types::{QueueKey, QueueNumber, QueueOffset, Timestamp, TopicId};

use crate::abuse::{
    MIB, announcement, bytes_of, join_request, produce_request, read_to_end, repeated, send, send_some,
};
use crate::support::directory::test_directory;
use crate::support::http_connection::{Connection, POST, PUBLISH, publish};
use crate::support::load::{create_topic, produce, receive_from_orders, topic};
use crate::support::machine::{report, resident_bytes, resident_bytes_max};
use crate::support::node::{Node, PATIENCE, Setup, wait_for};

/// What these brokers have for clients.
const CLIENT_MEMORY: u64 = 64 * MIB;
/// What the allocator keeps, and the index, tables and groups on their way need, beyond what clients cause.
const BESIDE: u64 = 48 * MIB;

fn start(directory: &tempfile::TempDir, more: &[&str]) -> Node {
    let flags = [&["--tail-cache-bytes", "4MiB"], more].concat();
    Setup::new(directory.path()).with(&flags).start()
}

fn id(client: &mut Client, name: &str) -> TopicId {
    client.topic(&topic(name)).expect("it exists").id
}

/// Each sends 24 bytes that announce 8 MiB. 600 of them once took 5.2 GiB.
#[test]
fn frames_that_are_announced_cost_nothing_until_their_bytes_come() {
    let directory = test_directory();
    let node = start(&directory, &["--client-memory", "128MiB"]);
    create_topic(&mut node.client(), "shared", 2);
    let before = resident_bytes(node.process());
    let announced: Vec<_> =
        (0..600).map(|_| send(node.address(), &announcement(FRAME_BYTES_MAX as u32))).collect();
    wait_for("all are taken", || node.counter("connections") >= 600);
    let after = resident_bytes(node.process());
    report(&format!("600 announcements of 8 MiB: {} MiB", after.saturating_sub(before) / MIB));
    assert!(after < before + 600 * 32 * 1024 + BESIDE / 2, "{before} to {after} bytes");
    produce(&node, "shared", 0, [&b"of another"[..]]);
    drop(announced);
}

/// What has come of large frames that never end takes its share of memory and no more; the frames of others are completed
/// meanwhile, and those who hold the memory are told why they are ended.
#[test]
fn halves_of_large_frames_take_their_share_and_give_way_to_others() {
    let directory = test_directory();
    let node = start(&directory, &["--client-memory", "64MiB"]);
    let mut client = node.client();
    create_topic(&mut client, "shared", 2);
    let key = QueueKey { topic: id(&mut client, "shared"), queue: QueueNumber(0) };
    let before = resident_bytes(node.process());
    let half = [announcement(FRAME_BYTES_MAX as u32), vec![0; FRAME_BYTES_MAX / 2]].concat();
    let mut halves: Vec<TcpStream> = (0..16).map(|_| send_some(node.address(), &half)).collect();
    let sent = Instant::now();
    let large = vec![7; 2 << 20];
    client.call(&produce_request(key, "", &large)).expect("a large message is taken");
    report(&format!(
        "a message of 2 MiB beside 16 halves of frames: {:?}, resident from {} to {} MiB at most",
        sent.elapsed(),
        before / MIB,
        resident_bytes_max(node.process()) / MIB
    ));
    assert!(sent.elapsed() < Duration::from_secs(30), "{:?}", sent.elapsed());
    assert!(
        resident_bytes_max(node.process()) < before + CLIENT_MEMORY / 8 + FRAME_BYTES_MAX as u64 + BESIDE
    );
    let told = halves.iter_mut().map(|stream| {
        stream.set_read_timeout(Some(Duration::from_secs(1))).expect("a socket");
        read_to_end(stream)
    });
    let told = told.filter(|said| String::from_utf8_lossy(said).contains("--client-memory")).count();
    assert!(told > 0, "nobody was told");
    // In seventeenths, each rounded down.
    assert!(CLIENT_MEMORY - node.counter("memory_clients_max") < 64);
}

/// What came of 64 halves of frames was let go, and the process kept three to eight times what it had before.
#[test]
fn what_a_burst_took_goes_back_to_the_system() {
    let directory = test_directory();
    let node = start(&directory, &["--client-memory", "2GiB"]);
    create_topic(&mut node.client(), "quiet", 1);
    wait_for("it has settled", || node.counter("snapshots") > 0);
    let before = resident_bytes(node.process());
    let half = [announcement(FRAME_BYTES_MAX as u32), vec![0; FRAME_BYTES_MAX / 2]].concat();
    for round in 0..2 {
        let halves: Vec<TcpStream> = (0..64).map(|_| send_some(node.address(), &half)).collect();
        wait_for("they have come", || node.counter("memory_received") > 128 * MIB);
        let most = resident_bytes_max(node.process());
        drop(halves);
        wait_for("they are let go", || node.counter("memory_received") == 0);
        let is_small = || resident_bytes(node.process()) < before + 40 * MIB;
        wait_for("the system has its memory back", is_small);
        let after = resident_bytes(node.process());
        report(&format!(
            "64 halves of frames, round {round}: resident {} MiB before, {} at most, {} after",
            before / MIB,
            most / MIB,
            after / MIB
        ));
    }
}

/// Each sends 200 KiB of a body, or nearly as much of a head as is read, and stops. The buffers that this went through once
/// took 256 KiB of each and were counted nowhere.
#[test]
fn parts_of_http_requests_take_their_share() {
    const CONNECTIONS: usize = 1_000;
    let directory = test_directory();
    let node = start(&directory, &["--http", "127.0.0.1:0", "--client-memory", "256MiB"]);
    create_topic(&mut node.client(), "orders", 2);
    let address = node.http_address.clone().expect("HTTP was asked for");
    let body = format!("{POST}Content-Length: {}\r\n\r\n{}", 4 << 20, "b".repeat(200 * 1024));
    let head = format!("{POST}Long: {}", "h".repeat(60_000));
    for (label, request) in [("a body", body), ("a head", head)] {
        let before = resident_bytes(node.process());
        let mut parts: Vec<_> = (0..CONNECTIONS).map(|_| send_some(&address, request.as_bytes())).collect();
        // Others are served meanwhile.
        let mut good = Connection::open(&node);
        for _ in 0..20 {
            good.send(publish(PUBLISH));
            assert_eq!(good.next().expect("an answer").status, 201);
        }
        let most = resident_bytes_max(node.process());
        report(&format!("1,000 parts of {label}: from {} to {} MiB", before / MIB, most / MIB));
        // A seventeenth of the memory for clients is 15 MiB: bodies have two of them, heads one.
        let connections = CONNECTIONS as u64 * limits::CONNECTION_BYTES as u64;
        assert!(most < before + connections + 45 * MIB + BESIDE, "{label}: {before} to {most} bytes");
        let told = parts.iter_mut().map(|stream| {
            stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
            read_to_end(stream)
        });
        let told = told.filter(|said| said.starts_with(b"HTTP/1.1 503")).count();
        assert!(told > CONNECTIONS / 2, "{label}: {told} were told");
    }
}

/// 112 KB of requests once had 4 GiB of answers made, all at once.
#[test]
fn answers_that_nobody_reads_are_made_a_few_at_a_time() {
    let directory = test_directory();
    let node = start(&directory, &["--client-memory", "64MiB"]);
    let mut client = node.client();
    create_topic(&mut client, "shared", 2);
    create_topic(&mut client, "wide", 65_536);
    let key = QueueKey { topic: id(&mut client, "shared"), queue: QueueNumber(0) };
    client.call(&produce_request(key, "k", &vec![7; (4 << 20) - 1000])).expect("it is stored");
    let find = Request::FindMessages(FindMessages::Key {
        topic: topic("shared"),
        key: "k".to_owned(),
        count: 1,
        from: Timestamp(0),
        to: Timestamp(u64::MAX),
        before: Vec::new(),
    });
    client.call(&find).expect("it is found");
    client.call(&Request::DescribeTopic(topic("wide"))).expect("it is described");
    let before = resident_bytes(node.process());
    let _finding = send_some(node.address(), &repeated(&find, 1_000));
    let _describing = send_some(node.address(), &repeated(&Request::DescribeTopic(topic("wide")), 500));
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        produce(&node, "shared", 1, [&b"of another"[..]]);
        std::thread::sleep(Duration::from_millis(50));
    }
    let after = resident_bytes_max(node.process());
    report(&format!(
        "1,000 look-ups of 4 MiB, unread: resident from {} to {} MiB",
        before / MIB,
        after / MIB
    ));
    assert!(after < before + CLIENT_MEMORY / 4 + BESIDE, "{before} to {after} bytes");
}

/// A fetch of 60 s was once held for 60 s after its client had gone, and a watch of 1,024 queues held 27 MiB meanwhile.
#[test]
fn waits_end_with_their_connection() {
    let directory = test_directory();
    let node = start(&directory, &["--shards", "2", "--client-memory", "128MiB"]);
    let mut client = node.client();
    create_topic(&mut client, "wide", 2 * WATCH_QUEUES_MAX as u32);
    let topic = id(&mut client, "wide");
    let wait = Duration::from_secs(60);
    let fetch = |queue| {
        let key = QueueKey { topic, queue: QueueNumber(queue) };
        Request::Fetch(Fetch {
            key,
            offset: QueueOffset(0),
            bytes_max: 1 << 20,
            records_max: 100,
            wait,
            session: 0,
        })
    };
    let place = |queue| (QueueKey { topic, queue: QueueNumber(queue) }, QueueOffset(0));
    let queues = (0..WATCH_QUEUES_MAX as u32).map(|queue| place(2 * queue)).collect();
    let watch = Request::Watch(Watch { queues, wait });
    let waits = || node.counter("memory_waits");
    let mut most = 0;
    let mut settled = 0;
    for round in 0..10 {
        // Of this shard's queues, of the other one's, and of many at once.
        let requests = [repeated(&fetch(0), 250), repeated(&fetch(1), 250), repeated(&watch, 12)];
        let waiting: Vec<_> = requests.iter().map(|bytes| send(node.address(), bytes)).collect();
        wait_for("they wait", || waits() > 8 * MIB / 4);
        most = most.max(waits());
        drop(waiting);
        let left = Instant::now();
        wait_for("the waits end with their connections", || waits() == 0);
        assert!(left.elapsed() < Duration::from_secs(20), "{:?}", left.elapsed());
        if round == 1 {
            settled = resident_bytes(node.process());
        }
    }
    let after = resident_bytes(node.process());
    report(&format!(
        "waits of ten times three connections that went: {} KiB at most, resident from {} to {} MiB",
        most / 1024,
        settled / MIB,
        after / MIB
    ));
    assert!(after < settled + 16 * MIB, "{settled} to {after} bytes");
}

/// Each held a task of 17 KB, and counted for one KiB, while the group had a member too.
#[test]
fn receives_of_a_group_with_members_wait_as_entries() {
    const RECEIVES: usize = 2_000;
    let directory = test_directory();
    let node = start(&directory, &["--shards", "1"]);
    let mut client = node.client();
    create_topic(&mut client, "orders", 4);
    let join = JoinGroup {
        group: "readers".parse().expect("a name"),
        member: "m".to_owned(),
        topics: vec![topic("orders")],
        session_timeout: Duration::from_secs(30),
        generation: 0,
        life: SessionLife::Timed,
    };
    client.call(&Request::JoinGroup(join)).expect("it is the first one");
    let wait = Duration::from_secs(60);
    let receive = Request::Receive(Receive { wait, ..receive_from_orders("readers") });
    let waits = || node.counter("memory_waits");
    // What the first ones take is kept.
    let first = send(node.address(), &repeated(&receive, RECEIVES));
    wait_for("they wait", || waits() > (RECEIVES - 100) as u64 * 1024);
    drop(first);
    wait_for("they are gone", || waits() == 0);
    let before = resident_bytes(node.process());
    let begun = Instant::now();
    let _waiting = send(node.address(), &repeated(&receive, RECEIVES));
    wait_for("they wait", || waits() > (RECEIVES - 100) as u64 * 1024);
    // Each comes to the moment at which one of them tells of all.
    wait_for("a second", || begun.elapsed() > Duration::from_millis(1_100));
    let after = resident_bytes(node.process());
    report(&format!(
        "2,000 receives beside a member: resident from {} to {} KiB",
        before / 1024,
        after / 1024
    ));
    assert!(waits() > (RECEIVES - 100) as u64 * 1024, "they wait on");
    assert!(after < before + 8 * MIB, "{before} to {after} bytes");
}

/// Who asks for messages over HTTP, and would wait for them, gets those that are there when all room to wait is taken.
#[test]
fn waits_of_others_keep_no_message_from_a_receive_over_http() {
    let directory = test_directory();
    let node = start(&directory, &["--http", "127.0.0.1:0", "--client-memory", "16MiB"]);
    let mut client = node.client();
    create_topic(&mut client, "orders", 1);
    create_topic(&mut client, "quiet", 1);
    let key = QueueKey { topic: id(&mut client, "quiet"), queue: QueueNumber(0) };
    let fetch = Request::Fetch(Fetch {
        key,
        offset: QueueOffset(0),
        bytes_max: 1 << 20,
        records_max: 100,
        wait: Duration::from_secs(60),
        session: 0,
    });
    let _waiting: Vec<_> = (0..4).map(|_| send(node.address(), &repeated(&fetch, 250))).collect();
    let account = node.counter("memory_clients_max") / 17;
    wait_for("all room is taken", || node.counter("memory_waits") + 4096 > account);
    let mut good = Connection::open(&node);
    for _ in 0..20 {
        good.send(publish(PUBLISH));
        assert_eq!(good.next().expect("an answer").status, 201);
        good.send(
            "GET /topics/orders/messages?consumer=g&numOfMessages=1&waitseconds=5 HTTP/1.1\r\nHost: h\r\n\r\n",
        );
        let answer = good.next().expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}

/// A member that named one topic 65,536 times once took 14.5 MiB for five minutes.
#[test]
fn a_member_names_each_topic_once_and_members_take_no_more_than_their_share() {
    let directory = test_directory();
    let node = start(&directory, &["--client-memory", "64MiB"]);
    let mut client = node.client();
    create_topic(&mut client, "t", 4);
    let twice = client.call(&join_request("g", "m", ["t", "t"].map(str::to_owned).into_iter()));
    let refused = twice.expect_err("it is refused").to_string();
    assert!(refused.contains("named twice"), "{refused}");
    assert_eq!(node.counter("memory_members"), 0);
    create_topic(&mut client, "wide", 8_192);
    let before = resident_bytes(node.process());
    let join = |group: u32| join_request(&format!("g{group}"), "m", ["wide".to_owned()].into_iter());
    let joined = (0..20).map(|group| client.call(&join(group))).filter(Result::is_ok).count();
    let refused = client.call(&join(20)).expect_err("members have their share").to_string();
    assert!(refused.contains("--client-memory"), "{refused}");
    assert!((1..20).contains(&joined), "{joined} are taken");
    let after = resident_bytes(node.process());
    report(&format!("20 groups of 8,192 queues: {joined} taken, {} MiB", after.saturating_sub(before) / MIB));
    assert!(after < before + CLIENT_MEMORY / 16 + BESIDE, "{before} to {after} bytes");
    client.call(&join_request("small", "m", ["t".to_owned()].into_iter())).expect("a small group has room");
}

/// Memory that a large frame needed goes back when nothing comes any more.
#[test]
fn an_idle_connection_gives_back_what_its_last_frame_needed() {
    let directory = test_directory();
    let node = start(&directory, &["--client-memory", "64MiB"]);
    let mut client = node.client();
    create_topic(&mut client, "shared", 2);
    let key = QueueKey { topic: id(&mut client, "shared"), queue: QueueNumber(0) };
    let request = bytes_of(&[produce_request(key, "", &vec![7; 3 << 20])]);
    let mut stream = send(node.address(), &request[..request.len() / 2]);
    wait_for("it takes memory", || node.counter("memory_received") > MIB);
    stream.write_all(&request[request.len() / 2..]).expect("the kernel takes it");
    let idle = Instant::now();
    wait_for("it gives it back", || node.counter("memory_received") == 0);
    assert!(idle.elapsed() < PATIENCE / 4, "{:?}", idle.elapsed());
}
