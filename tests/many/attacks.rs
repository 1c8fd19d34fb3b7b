//! What clients were found to make a broker pay for with little effort, each for as long as it is wanted.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use turbopump::api::{ClientProtocol, Fetch, Filter, FindMessages, Receive, Request, Watch};
use turbopump::client::{Client, Message, Producer, ProducerOptions, Timeouts};
use turbopump::limits::{FRAME_BYTES_MAX, WATCH_QUEUES_MAX};
use turbopump::types::{QueueKey, QueueNumber, QueueOffset, Timestamp, TopicId};

use crate::abuse::{announcement, join_request, produce_request, repeated, send_some};
use crate::support::http_connection::Connection;
use crate::support::load::{create_topic, topic};
use crate::support::node::Node;

/// Topics of a member that joins with many.
const JOINED_TOPICS: usize = 1_000;
/// Messages that have the same key.
const KEYED_MESSAGES: u32 = 5_000;
/// Messages that somebody leases for good.
const LEASED_MESSAGES: u32 = 60_000;

/// A broker with the topics and messages that the attacks need.
pub struct Ground<'a> {
    pub node: &'a Node,
    shards: u32,
    large: TopicId,
    wide: TopicId,
    hello: Vec<u8>,
}

/// One way to be a nuisance, until it is told to stop.
pub struct Attack {
    pub name: &'static str,
    pub go_on: fn(&Ground<'_>, &AtomicBool),
}

pub const ATTACKS: [Attack; 13] = [
    Attack { name: "600 announce frames of 8 MiB, 24 bytes each", go_on: announcements },
    Attack { name: "halves of frames of 8 MiB", go_on: halves },
    Attack { name: "look-ups of 4 MiB and of 65,536 queues, unread", go_on: unread_answers },
    Attack { name: "fetches and watches that wait, and go", go_on: waits },
    Attack { name: "100 long polls over HTTP, and 4 MiB of quotes", go_on: polls },
    Attack { name: "members that name one topic 65,536 times", go_on: repeated_names },
    Attack { name: "members that name 1,000 topics", go_on: wide_members },
    Attack { name: "receives of new groups over HTTP that find nothing", go_on: empty_receives },
    Attack { name: "leases of 12 h of all there is", go_on: leases },
    Attack { name: "messages of 6,142 properties over HTTP", go_on: properties },
    Attack { name: "look-ups of a key of 5,000 messages", go_on: look_ups },
    Attack { name: "TLS handshakes that are begun", go_on: handshakes },
    Attack { name: "connections that come and go", go_on: connects },
];

impl<'a> Ground<'a> {
    /// Makes the topics and messages that the attacks are done with.
    pub fn prepare(node: &'a Node) -> Self {
        let mut client = node.client();
        let shards = node.addresses.len() as u32;
        create_topic(&mut client, "good", shards);
        create_topic(&mut client, "wide", 65_536);
        create_topic(&mut client, "large", shards);
        create_topic(&mut client, "quotes", 1);
        create_topic(&mut client, "full", 1);
        create_topic(&mut client, "keyed", 1);
        create_topic(&mut client, "scattered", 4_096);
        create_topic(&mut client, "leased", shards);
        for number in 0..JOINED_TOPICS {
            create_topic(&mut client, &format!("t{number}"), 2);
        }
        let large = client.topic(&topic("large")).expect("it exists").id;
        let wide = client.topic(&topic("wide")).expect("it exists").id;
        for queue in (0..shards).map(QueueNumber) {
            let key = QueueKey { topic: large, queue };
            client.call_owner(queue, &produce_request(key, "k", &quotes())).expect("it is stored");
        }
        let fill = |name: &str, count: u32, queues: u32, key: &[u8]| {
            let options = ProducerOptions::default();
            let mut producer = Producer::new(node.client(), topic(name), options).expect("it exists");
            for number in 0..count {
                let (body, queue) = (number.to_le_bytes(), Some(QueueNumber(number % queues)));
                let message = Message { body: &body, key, queue, ..Message::default() };
                producer.send(&message).expect("the broker takes it");
                if number % 100 == 99 {
                    producer.flush().expect("the broker answers");
                }
            }
            producer.flush().expect("the broker answers");
        };
        fill("keyed", KEYED_MESSAGES, 1, b"k");
        fill("scattered", 8_192, 4_096, b"");
        fill("leased", LEASED_MESSAGES, shards, b"");
        let ground = Self { node, shards, large, wide, hello: client_hello() };
        ground.publish_properties();
        ground
    }

    /// Sixteen messages with as many properties as fit.
    fn publish_properties(&self) {
        let letters =
            b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~!@#$%^*()+=;,?/[]{}";
        let names = letters.iter().flat_map(|&one| letters.map(|other| [one, other]));
        let of = |name: [u8; 2]| format!("{}{}:x|", name[0] as char, name[1] as char);
        let text: String = names.take(6_142).map(of).collect();
        let body = format!("<Message><MessageBody>b</MessageBody><Properties>{text}</Properties></Message>");
        let mut connection = Connection::open(self.node);
        for _ in 0..16 {
            let length = body.len();
            let head =
                format!("POST /topics/full/messages HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
            connection.send(format!("{head}{body}"));
            let answer = connection.next().expect("an answer");
            assert_eq!(answer.status, 201, "{}", answer.body);
        }
    }

    /// Each shard's in turn.
    fn address(&self, turn: usize) -> &str {
        &self.node.addresses[turn % self.node.addresses.len()]
    }

    fn http(&self) -> &str {
        self.node.http_address.as_ref().expect("it was asked for")
    }
}

/// What escaping makes six times as large, as much as one message may be.
fn quotes() -> Vec<u8> {
    vec![b'"'; (4 << 20) - 1000]
}

/// Does something again and again, and rests in between.
fn until(stop: &AtomicBool, rest: Duration, mut act: impl FnMut(usize)) {
    for turn in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        act(turn);
        std::thread::sleep(rest);
    }
}

/// Keeps the newest so many.
fn keep<T>(kept: &mut VecDeque<T>, count: usize, new: T) {
    kept.push_back(new);
    if kept.len() > count {
        kept.pop_front();
    }
}

const SOON: Duration = Duration::from_millis(20);
const LATER: Duration = Duration::from_millis(300);

fn announcements(ground: &Ground<'_>, stop: &AtomicBool) {
    let mut kept = VecDeque::new();
    until(stop, LATER, |turn| {
        for number in 0..100 {
            let address = ground.address(turn + number);
            keep(&mut kept, 600, send_some(address, &announcement(FRAME_BYTES_MAX as u32)));
        }
    });
}

fn halves(ground: &Ground<'_>, stop: &AtomicBool) {
    let half = [announcement(FRAME_BYTES_MAX as u32), vec![0; FRAME_BYTES_MAX / 4]].concat();
    let mut kept = VecDeque::new();
    until(stop, SOON, |turn| keep(&mut kept, 64, send_some(ground.address(turn), &half)));
}

fn find(name: &str, to: u64) -> Request {
    Request::FindMessages(FindMessages::Key {
        topic: topic(name),
        key: "k".to_owned(),
        count: 64,
        from: Timestamp(0),
        to: Timestamp(to),
        before: Vec::new(),
    })
}

fn unread_answers(ground: &Ground<'_>, stop: &AtomicBool) {
    let find = repeated(&find("large", u64::MAX), 1_000);
    let describe = repeated(&Request::DescribeTopic(topic("wide")), 500);
    let mut kept = VecDeque::new();
    until(stop, LATER, |turn| {
        for bytes in [&find, &describe] {
            keep(&mut kept, 16, send_some(ground.address(turn), bytes));
        }
    });
}

/// Of the shard that is asked, of others, and of many queues at once; and some that are answered with 4 MiB.
fn waits(ground: &Ground<'_>, stop: &AtomicBool) {
    let fetch = |queue, offset, wait| {
        let wait = Duration::from_secs(wait);
        let (bytes_max, records_max, session) = (4 << 20, 100, 0);
        let key = QueueKey { topic: ground.large, queue: QueueNumber(queue % ground.shards) };
        repeated(
            &Request::Fetch(Fetch {
                key,
                offset: QueueOffset(offset),
                bytes_max,
                records_max,
                wait,
                session,
            }),
            128,
        )
    };
    let place =
        |queue| (QueueKey { topic: ground.wide, queue: QueueNumber(ground.shards * queue) }, QueueOffset(0));
    let queues = (0..(WATCH_QUEUES_MAX as u32).min(65_536 / ground.shards)).map(place).collect();
    let watch = repeated(&Request::Watch(Watch { queues, wait: Duration::from_secs(60) }), 50);
    let requests = [fetch(0, 1, 60), fetch(1, 1, 60), fetch(0, 0, 0), fetch(3, 0, 0), watch];
    let mut kept = VecDeque::new();
    until(stop, LATER, |turn| {
        for bytes in &requests {
            keep(&mut kept, 10, send_some(ground.address(turn), bytes));
        }
    });
}

/// A receive over HTTP.
fn receive(name: &str, group: &str, more: &str) -> Vec<u8> {
    let query = format!("consumer={group}&numOfMessages=16{more}");
    format!("GET /topics/{name}/messages?{query} HTTP/1.1\r\nHost: h\r\n\r\n").into_bytes()
}

/// Half of the groups read what they get, and half do not.
fn polls(ground: &Ground<'_>, stop: &AtomicBool) {
    let mut client = ground.node.client();
    let quotes_topic = client.topic(&topic("quotes")).expect("it exists").id;
    let key = QueueKey { topic: quotes_topic, queue: QueueNumber(0) };
    let publish = produce_request(key, "", &quotes());
    until(stop, LATER, |turn| {
        let poll = |number: usize| {
            let group = if number.is_multiple_of(2) {
                format!("poll-{number}")
            } else {
                format!("poll-{turn}-{number}")
            };
            send_some(ground.http(), &receive("quotes", &group, "&waitseconds=30"))
        };
        let mut polls: Vec<_> = (0..100).map(poll).collect();
        // With little memory it may be refused.
        let _ = client.call_owner(key.queue, &publish);
        for stream in polls.iter_mut().step_by(2) {
            let _ = stream.set_read_timeout(Some(LATER));
            let mut piece = vec![0; 256 * 1024];
            while !stop.load(Ordering::Relaxed) && stream.read(&mut piece).is_ok_and(|count| count > 0) {}
        }
    });
}

fn repeated_names(ground: &Ground<'_>, stop: &AtomicBool) {
    let names = std::iter::repeat_n("wide".to_owned(), 65_536);
    let bytes = repeated(&join_request("g", "m", names), 4);
    let mut kept = VecDeque::new();
    until(stop, LATER, |turn| keep(&mut kept, 8, send_some(ground.address(turn), &bytes)));
}

fn wide_members(ground: &Ground<'_>, stop: &AtomicBool) {
    let mut kept = VecDeque::new();
    until(stop, SOON, |turn| {
        let topics = (0..JOINED_TOPICS).map(|number| format!("t{number}"));
        let join = join_request("big", &format!("m{}", turn % 40), topics);
        keep(&mut kept, 4, send_some(ground.address(turn), &repeated(&join, 20)));
    });
}

fn empty_receives(ground: &Ground<'_>, stop: &AtomicBool) {
    let mut connections: Vec<Option<TcpStream>> = (0..4).map(|_| None).collect();
    until(stop, Duration::ZERO, |turn| {
        // One is asked on each before the answers are read, so that the broker is never without one.
        for (number, connection) in connections.iter_mut().enumerate() {
            let request = receive("scattered", &format!("empty-{turn}-{number}"), "&tag=nobody-has-it");
            let stream = connection.get_or_insert_with(|| {
                let stream = TcpStream::connect(ground.http()).expect("the broker listens");
                stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket");
                stream
            });
            if stream.write_all(&request).is_err() {
                *connection = None;
            }
        }
        for connection in &mut connections {
            let Some(stream) = connection else { continue };
            if !stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {
                *connection = None;
            }
        }
    });
}

fn leases(ground: &Ground<'_>, stop: &AtomicBool) {
    let mut client = None;
    until(stop, Duration::ZERO, |turn| {
        let receive = Receive {
            group: "greedy".parse().expect("a name"),
            topic: topic("leased"),
            scope: Default::default(),
            filter: Filter::default(),
            count: 32,
            bytes_max: 1 << 20,
            wait: Duration::ZERO,
            lease: Some(Duration::from_secs(12 * 3_600)),
            ordered: false,
            protocol: ClientProtocol::Native,
        };
        let connected =
            client.take().or_else(|| Client::connect(ground.address(turn), Timeouts::default()).ok());
        if let Some(mut connected) = connected {
            client = connected.receive(receive).is_ok().then_some(connected);
        }
    });
}

fn properties(ground: &Ground<'_>, stop: &AtomicBool) {
    let mut kept = VecDeque::new();
    until(stop, SOON, |turn| {
        let mut stream = send_some(ground.http(), &receive("full", &format!("full-{turn}"), ""));
        let _ = stream.set_read_timeout(Some(LATER));
        // One piece of what comes says that it was made.
        let _ = stream.read(&mut [0; 16 * 1024]);
        keep(&mut kept, 4, stream);
    });
}

/// Nothing is as old as what is looked for, so that every place is looked at.
fn look_ups(ground: &Ground<'_>, stop: &AtomicBool) {
    let bytes = repeated(&find("keyed", 1), 100);
    let mut kept = VecDeque::new();
    until(stop, LATER, |turn| keep(&mut kept, 4, send_some(ground.address(turn), &bytes)));
}

/// Each has the broker sign something.
fn handshakes(ground: &Ground<'_>, stop: &AtomicBool) {
    let mut kept = VecDeque::new();
    until(stop, SOON, |turn| {
        for number in 0..10 {
            keep(&mut kept, 200, send_some(ground.address(turn + number), &ground.hello));
        }
    });
}

fn connects(ground: &Ground<'_>, stop: &AtomicBool) {
    until(stop, Duration::ZERO, |turn| drop(TcpStream::connect(ground.address(turn))));
}

/// What a client says first in a handshake.
fn client_hello() -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions that the provider has")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let mut session = ClientConnection::new(Arc::new(config), name).expect("a session");
    let mut hello = Vec::new();
    session.write_tls(&mut hello).expect("memory takes it");
    hello
}
