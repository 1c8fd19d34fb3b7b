//! Frames as RocketMQ's own clients write them (`tests/data/remoting`).

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::call::lock::QueueLocks;
use super::call::offsets::{OffsetCommit, OffsetQuery, QueueAsked};
use super::call::pull::{PullRequest, Wants, is_pull};
use super::call::recall::RecallRequest;
use super::call::reply::{self, ReplyRequest};
use super::call::transaction::{CheckRequest, EndRequest};
use super::json::Value;
use super::message::read_record;
use super::{Cut, FieldValue, Frame, Head, Header, HeaderForm, Language, code::request, cut};
use crate::api::{Decision, TagFilter};
use crate::limits;
use crate::types::{LogPosition, RecordLocation, ShardId, Timestamp};
use crate::wire::properties::Properties;

macro_rules! captured {
    ($name:literal) => {
        include_bytes!(concat!("../../../tests/data/remoting/", $name))
    };
}

fn frame(bytes: &[u8]) -> Frame<'_> {
    let Ok(Cut::Frame(frame)) = cut(bytes) else { panic!("a frame") };
    assert_eq!(frame.frame_bytes, bytes.len(), "one frame");
    frame
}

fn header<'a>(frame: &Frame<'a>) -> Header<'a> {
    Header::read(frame.form, frame.header).expect("a header")
}

struct Send {
    file: &'static [u8],
    code: i32,
    language: Language,
    version: i32,
    /// Names of topic, queue, system flag and properties.
    names: [&'static str; 4],
    sys_flag: i32,
    is_one_way: bool,
}

const V1: [&str; 4] = ["topic", "queueId", "sysFlag", "properties"];
const V2: [&str; 4] = ["b", "e", "f", "i"];

const JAVA_4: Send = Send {
    file: captured!("java-4.9.8-send"),
    code: request::SEND_MESSAGE_V2,
    language: Language::Java,
    version: 409,
    names: V2,
    sys_flag: 0,
    is_one_way: false,
};
const JAVA_5: Send = Send { file: captured!("java-5.5.0-send"), version: 513, ..JAVA_4 };
const GO: Send = Send {
    file: captured!("go-2.1.2-send"),
    code: request::SEND_MESSAGE,
    language: Language::Go,
    version: 317,
    names: V1,
    ..JAVA_4
};
const WHEEL: Send = Send { file: captured!("wheel-0.4.4-send"), language: Language::Cpp, version: 63, ..GO };

const SENDS: [Send; 16] = [
    JAVA_4,
    JAVA_5,
    GO,
    WHEEL,
    Send { file: captured!("java-4.9.8-send-one-way"), is_one_way: true, ..JAVA_4 },
    Send { file: captured!("java-4.9.8-send-batch"), code: request::SEND_BATCH_MESSAGE, ..JAVA_4 },
    Send { file: captured!("java-5.5.0-send-compressed"), sys_flag: 0x301, ..JAVA_5 },
    Send { file: captured!("java-5.5.0-send-delayed"), ..JAVA_5 },
    Send { file: captured!("java-5.5.0-binary-send"), ..JAVA_5 },
    Send { file: captured!("java-5.5.0-binary-send-batch"), code: request::SEND_BATCH_MESSAGE, ..JAVA_5 },
    // Neither says that it wants no answer.
    Send { file: captured!("go-2.1.2-send-one-way"), ..GO },
    Send { file: captured!("wheel-0.4.4-send-one-way"), ..WHEEL },
    Send { file: captured!("go-2.1.2-send-batch"), code: request::SEND_BATCH_MESSAGE, names: V2, ..GO },
    Send { file: captured!("go-2.1.2-send-compressed"), sys_flag: 1, ..GO },
    Send { file: captured!("wheel-0.4.4-send-compressed"), sys_flag: 1, ..WHEEL },
    // A batch by its field alone.
    Send { file: captured!("wheel-0.4.4-send-batch"), ..WHEEL },
];

#[test]
fn sends_of_every_client_are_read() {
    for (index, send) in SENDS.iter().enumerate() {
        let frame = frame(send.file);
        let header = header(&frame);
        assert_eq!(
            (header.code, header.language, header.version, header.is_one_way(), header.is_answer()),
            (send.code, send.language, send.version, send.is_one_way, false),
            "send {index}"
        );
        let [topic, queue, sys_flag, properties] = send.names;
        assert_eq!(header.fields.bytes(topic), Some(&b"orders"[..]), "send {index}");
        assert!(
            header.fields.number(queue).is_some_and(|queue: i32| (0..4).contains(&queue)),
            "send {index}"
        );
        assert_eq!(header.fields.number(sys_flag), Some(send.sys_flag), "send {index}");
        assert!(header.fields.bytes(properties).is_some(), "send {index}");
        assert!(!frame.body.is_empty(), "send {index}");
    }
}

#[test]
fn pulls_of_every_client_are_read() {
    let everything = TagFilter::default();
    let two = TagFilter::parse(Some("TagA || TagB"));
    let (seconds, none) = (Duration::from_secs(20), Duration::ZERO);
    for (file, message_count, wait, filter) in [
        (&captured!("java-4.9.8-pull")[..], 32, none, &two),
        (captured!("java-4.9.8-lite-pull"), 10, seconds, &everything),
        (captured!("java-5.5.0-binary-pull"), 32, none, &two),
        (captured!("java-5.5.0-binary-lite-pull"), 10, seconds, &everything),
        (captured!("go-2.1.2-pull"), 32, seconds, &two),
        (captured!("wheel-0.4.4-pull"), 32, none, &two),
    ] {
        let frame = frame(file);
        let header = header(&frame);
        assert!(is_pull(header.code));
        let pull = PullRequest::read(&header).expect("a pull");
        assert_eq!((pull.topic.as_str(), pull.queue, pull.offset), ("orders", 0, 0));
        assert!(pull.group.as_str().starts_with("cg"));
        assert_eq!((pull.message_count, pull.wait, pull.committed), (message_count, wait, None));
        assert_eq!(pull.bytes_max, limits::PULL_BYTES_MAX);
        assert_eq!(pull.wants, Wants::These(Rc::new(filter.clone().into())));
    }
}

#[test]
fn offsets_of_every_client_are_read() {
    for file in [
        &captured!("java-4.9.8-query-offset")[..],
        captured!("java-5.5.0-query-offset"),
        captured!("java-5.5.0-binary-query-offset"),
        captured!("go-2.1.2-query-offset"),
        captured!("wheel-0.4.4-query-offset"),
    ] {
        let frame = frame(file);
        let header = header(&frame);
        assert_eq!(header.code, request::QUERY_CONSUMER_OFFSET);
        let query = OffsetQuery::read(&header.fields).expect("a query");
        assert_eq!(
            (query.group.as_str(), query.queue.topic.as_str(), query.zero_if_new),
            ("cg", "orders", true)
        );
        assert!((0..4).contains(&query.queue.queue));
    }
    for (file, is_one_way) in [
        (&captured!("java-4.9.8-commit-offset")[..], true),
        (captured!("java-5.5.0-commit-offset"), true),
        (captured!("java-5.5.0-binary-commit-offset"), true),
        // Neither says that it wants no answer.
        (captured!("go-2.1.2-commit-offset"), false),
        (captured!("wheel-0.4.4-commit-offset"), false),
    ] {
        let frame = frame(file);
        let header = header(&frame);
        assert_eq!((header.code, header.is_one_way()), (request::UPDATE_CONSUMER_OFFSET, is_one_way));
        let commit = OffsetCommit::read(&header.fields).expect("a commit");
        assert_eq!((commit.group.as_str(), commit.queue.topic.as_str(), commit.offset), ("cg", "orders", 2));
    }
}

#[test]
fn locks_of_every_client_are_read() {
    for (file, code, queue_count) in [
        (&captured!("java-4.9.8-lock")[..], request::LOCK_BATCH_MQ, 1),
        (captured!("java-5.5.0-lock"), request::LOCK_BATCH_MQ, 1),
        (captured!("java-5.5.0-binary-lock"), request::LOCK_BATCH_MQ, 1),
        (captured!("go-2.1.2-lock"), request::LOCK_BATCH_MQ, 1),
        (captured!("wheel-0.4.4-lock"), request::LOCK_BATCH_MQ, 1),
        (captured!("java-4.9.8-unlock"), request::UNLOCK_BATCH_MQ, 4),
        (captured!("java-5.5.0-unlock"), request::UNLOCK_BATCH_MQ, 4),
        (captured!("java-5.5.0-binary-unlock"), request::UNLOCK_BATCH_MQ, 4),
        (captured!("go-2.1.2-unlock"), request::UNLOCK_BATCH_MQ, 4),
        (captured!("wheel-0.4.4-unlock"), request::UNLOCK_BATCH_MQ, 4),
    ] {
        let frame = frame(file);
        assert_eq!(header(&frame).code, code);
        let locks = QueueLocks::read(frame.body).expect("a list of queues");
        assert_eq!((locks.group.as_str(), locks.queues.len()), ("cg", queue_count));
        assert!(locks.client.contains('@'), "{}", locks.client);
        for locked in &locks.queues {
            let QueueAsked { topic, queue } = &locked.queue;
            assert_eq!((topic.as_str(), locked.broker.as_str()), ("orders", "n-0"));
            assert!((0..4).contains(queue));
        }
    }
}

#[test]
fn who_leaves_says_which_group_it_leaves() {
    for (file, produces) in [
        (&captured!("java-4.9.8-unregister")[..], None),
        (captured!("java-5.5.0-unregister"), None),
        (captured!("java-5.5.0-binary-unregister"), None),
        (captured!("wheel-0.4.4-unregister"), Some("")),
    ] {
        let frame = frame(file);
        let header = header(&frame);
        assert_eq!(header.code, request::UNREGISTER_CLIENT);
        assert_eq!(header.fields.text("consumerGroup").as_deref(), Some("cg"));
        assert_eq!(header.fields.text("producerGroup").as_deref(), produces);
        assert!(header.fields.text("clientID").is_some_and(|client| client.contains('@')));
    }
}

#[test]
fn messages_that_are_sent_back_are_named_by_their_place() {
    for (file, has_topic, level) in [
        (&captured!("java-4.9.8-send-back")[..], true, 0),
        (captured!("java-5.5.0-send-back"), true, 0),
        (captured!("java-5.5.0-binary-send-back"), true, 1),
        (captured!("go-2.1.2-send-back"), true, 0),
        (captured!("wheel-0.4.4-send-back"), false, 0),
    ] {
        let frame = frame(file);
        let header = header(&frame);
        assert_eq!(header.code, request::CONSUMER_SEND_MSG_BACK);
        assert_eq!(header.fields.text("group").as_deref(), Some("cg"));
        assert!(header.fields.number::<i64>("offset").is_some_and(|place| place > 0));
        assert_eq!(header.fields.number("delayLevel"), Some(level));
        let topic = header.fields.text("originTopic");
        assert_eq!(topic.as_deref(), has_topic.then_some("orders"), "C++'s names only the place");
    }
}

#[test]
fn decisions_of_every_client_are_read() {
    let commit = Some(Decision::Commit);
    for (file, decision, is_asked) in [
        (&captured!("java-4.9.8-end-transaction")[..], commit, false),
        (captured!("java-4.9.8-end-transaction-asked"), commit, true),
        (captured!("java-5.5.0-end-transaction"), commit, false),
        (captured!("java-5.5.0-end-transaction-unknown"), None, false),
        (captured!("java-5.5.0-binary-end-transaction"), commit, false),
        (captured!("java-5.5.0-binary-end-transaction-asked"), commit, true),
        (captured!("go-2.1.2-end-transaction"), commit, false),
        (captured!("go-2.1.2-end-transaction-asked"), commit, true),
    ] {
        let frame = frame(file);
        let header = header(&frame);
        assert_eq!(header.code, request::END_TRANSACTION);
        let end = EndRequest::read(&header.fields).expect("a decision");
        assert_eq!((end.group.as_str(), end.shard), ("pg", 0));
        assert_eq!((end.decision, end.is_asked), (decision, is_asked));
        assert!(end.location.is_some_and(|place| place.index == 0), "{end:?}");
        assert_eq!(header.is_one_way(), header.language == Language::Java, "Go's wants an answer");
    }
}

/// It is Apache's broker's, to a client.
#[test]
fn producers_are_asked_as_by_apaches_broker() {
    let frame = frame(captured!("apache-5.5.0-check-transaction"));
    let theirs = header(&frame);
    assert_eq!(theirs.code, request::CHECK_TRANSACTION_STATE);
    assert!(theirs.is_one_way());
    let ours = CheckRequest {
        shard: ShardId(0),
        broker: "n-0",
        address: Some(born()),
        topic: "orders",
        location: RecordLocation { position: LogPosition(16), index: 0 },
        unique_id: "ID",
    };
    let ours = ours.fields();
    assert_eq!(names(ours.iter().map(|(name, _)| name.as_bytes())), names_of(&theirs));
    // What its client decides by is told in the record's properties.
    let (record, rest) = read_record(frame.body).expect("a record");
    assert_eq!((record.topic, record.body, rest.len()), (&b"orders"[..], &b"commit"[..], 0));
    let properties = String::from_utf8_lossy(record.properties);
    for said in
        ["PGROUP\u{1}pg\u{2}", "TRAN_MSG\u{1}true\u{2}", "REAL_TOPIC\u{1}orders\u{2}", "REAL_QID\u{1}3\u{2}"]
    {
        assert!(properties.contains(said), "{properties}");
    }
    assert!(properties.contains("TRANSACTION_CHECK_TIMES\u{1}1\u{2}"), "{properties}");
}

#[test]
fn replies_of_every_client_are_read() {
    for (file, code, body) in [
        (&captured!("java-4.9.8-reply")[..], request::SEND_REPLY_MESSAGE_V2, &b"reply"[..]),
        (captured!("java-5.5.0-reply"), request::SEND_REPLY_MESSAGE_V2, b"reply"),
        (captured!("java-5.5.0-binary-reply"), request::SEND_REPLY_MESSAGE_V2, b"reply"),
        // Go's loses what it is given as the body.
        (captured!("go-2.1.2-reply"), request::SEND_REPLY_MESSAGE, b""),
    ] {
        let frame = frame(file);
        let header = header(&frame);
        assert_eq!((header.code, frame.body), (code, body));
        let ReplyRequest { client, reply } = read_reply(&frame);
        assert_eq!(client, "192.0.2.2@requests");
        assert_eq!(
            (&*reply.producer_group, &*reply.topic, reply.queue),
            ("pg3", "DefaultCluster_REPLY_TOPIC", 0)
        );
    }
}

/// It is Apache's broker's, to the client that waits.
#[test]
fn clients_get_replies_as_from_apaches_broker() {
    let frame = frame(captured!("apache-5.5.0-push-reply"));
    let theirs = header(&frame);
    assert_eq!((theirs.code, theirs.is_one_way()), (request::PUSH_REPLY_MESSAGE_TO_CLIENT, false));
    let sent = self::frame(captured!("java-5.5.0-reply"));
    let ours = reply::push(&read_reply(&sent).reply, born(), "DefaultCluster").expect("a reply");
    assert_eq!(names(ours.fields.iter().map(|(name, _)| name.as_bytes())), names_of(&theirs));
    assert_eq!(ours.body, frame.body);
    for (name, value) in &ours.fields {
        let their_own =
            ["properties", "bornTimestamp", "storeTimestamp", "bornHost", "storeHost"].contains(name);
        assert!(their_own || theirs.fields.bytes(name) == Some(value.as_bytes()), "{name}: {value}");
    }
    let properties = |bytes: &[u8]| names(Properties::new(bytes).map(|(name, _)| name));
    let said =
        |name: &&str| ours.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_bytes());
    let theirs = properties(theirs.fields.bytes("properties").expect("properties"));
    let ours = properties(said(&"properties").expect("properties"));
    assert!(theirs.is_subset(&ours), "{theirs:?} {ours:?}");
}

#[test]
fn what_is_taken_back_is_named_by_its_handle() {
    for file in [&captured!("java-5.5.0-recall")[..], captured!("java-5.5.0-binary-recall")] {
        let frame = frame(file);
        let header = header(&frame);
        assert_eq!(header.code, request::RECALL_MESSAGE);
        let recall = RecallRequest::read(&header.fields).expect("a handle");
        assert_eq!((recall.topic.as_str(), &*recall.broker), ("orders", "n-0"));
        assert!(recall.position.is_some() && recall.unique_id.len() == 56, "{recall:?}");
    }
}

fn born() -> SocketAddr {
    ([192, 0, 2, 2], 4000).into()
}

fn read_reply(frame: &Frame<'_>) -> ReplyRequest {
    let came = (ShardId(0), Timestamp(1));
    ReplyRequest::read(&header(frame), frame.body, born(), came).expect("a reply")
}

fn names<'a>(names: impl Iterator<Item = &'a [u8]>) -> BTreeSet<String> {
    names.map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

fn names_of(header: &Header<'_>) -> BTreeSet<String> {
    names(header.fields.iter().map(|(name, _)| name))
}

/// This one is Apache's broker's, to a client.
#[test]
fn clients_are_told_of_other_members_as_by_apaches_broker() {
    let frame = frame(captured!("apache-5.5.0-members-changed"));
    let theirs = header(&frame);
    let fields = [("consumerGroup", FieldValue::Text("cg"))];
    let head = Head { fields: &fields, ..Head::one_way(request::NOTIFY_CONSUMER_IDS_CHANGED, theirs.opaque) };
    let mut ours = Vec::new();
    head.write(HeaderForm::Json, b"", &mut ours);
    let Ok(Cut::Frame(ours)) = cut(&ours) else { panic!("a frame") };
    let ours = header(&ours);
    let said = |header: &Header<'_>| (header.code, header.is_one_way(), header.is_answer(), header.language);
    assert_eq!(said(&ours), said(&theirs));
    assert_eq!(ours.fields.bytes("consumerGroup"), theirs.fields.bytes("consumerGroup"));
}

#[test]
fn properties_come_with_their_separators() {
    let frame = frame(captured!("java-4.9.8-send"));
    let header = header(&frame);
    let properties = header.fields.text("i").expect("properties");
    assert!(properties.starts_with("color\u{1}red\u{2}KEYS\u{1}k1 k2\u{2}"), "{properties}");
    // 4.9.8 ends them without one.
    assert!(properties.ends_with("TAGS\u{1}TagA"), "{properties}");
}

#[test]
fn both_forms_say_the_same() {
    let (json, binary) = (frame(captured!("java-5.5.0-send")), frame(captured!("java-5.5.0-binary-send")));
    assert_eq!((json.form, binary.form), (HeaderForm::Json, HeaderForm::Binary));
    let (json, binary) = (header(&json), header(&binary));
    for name in ["a", "b", "c", "d", "f", "h", "j", "k", "m", "n"] {
        assert_eq!(json.fields.bytes(name), binary.fields.bytes(name), "{name}");
    }
}

#[test]
fn heartbeats_of_every_client_are_read() {
    let modes = ["BROADCASTING", "CLUSTERING"];
    for (file, group) in [
        (&captured!("java-5.5.0-consumer-heartbeat")[..], "cg"),
        (captured!("wheel-0.4.4-consumer-heartbeat"), "cg"),
    ] {
        let frame = frame(file);
        assert_eq!(header(&frame).code, request::HEART_BEAT);
        let body = Value::parse(frame.body).expect("a body");
        let [consumer] = body.get("consumerDataSet").items() else { panic!("one group") };
        assert_eq!(consumer.get("groupName").as_text(), Some(group));
        assert_eq!(consumer.get("messageModel").as_variant(&modes), Some(1));
        let topics: Vec<_> = consumer
            .get("subscriptionDataSet")
            .items()
            .iter()
            .map(|item| item.get("topic").as_text())
            .collect();
        assert_eq!(topics, [Some("%RETRY%cg"), Some("orders")]);
        let versions =
            consumer.get("subscriptionDataSet").items().iter().map(|item| item.get("subVersion").as_number());
        assert!(
            versions.into_iter().all(|version| version.is_some_and(|version| version > 1_700_000_000_000))
        );
    }
    for file in [
        &captured!("java-4.9.8-heartbeat")[..],
        captured!("java-5.5.0-binary-heartbeat"),
        captured!("go-2.1.2-heartbeat"),
    ] {
        let frame = frame(file);
        let body = Value::parse(frame.body).expect("a body");
        let groups =
            body.get("producerDataSet").items().iter().filter_map(|item| item.get("groupName").as_text());
        assert!(groups.into_iter().any(|group| group == "pg"));
    }
}
