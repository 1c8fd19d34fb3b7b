//! Access keys over RocketMQ's own protocol, for each request that changes something beside sends: unsigned, signed with another
//! secret, or with a key that may not, it is refused and has done nothing; signed with one that may, it is carried out.

use std::time::Duration;

use serde_json::json;
use turbopump::protocol::remoting::HeaderForm;
use turbopump::types::OffsetMessageId;

use super::remoting::{Answer, Remoting, json as body_of, request};
use super::remoting_pulls::{pull_fields, records, signed_with_body};
use super::remoting_sends::fields;
use super::remoting_sessions::reads;
use crate::support::directory::test_directory;
use crate::support::node::{Node, Setup};

const PULL: i32 = 11;
const HEART_BEAT: i32 = 34;
const SEND_BACK: i32 = 36;
const END: i32 = 37;
const CHECK: i32 = 39;
const LOCK: i32 = 41;
const UNLOCK: i32 = 42;
const ROUTE: i32 = 105;
const SEND: i32 = 310;
const REPLY: i32 = 325;
const PUSH: i32 = 326;
const RECALL: i32 = 370;
const REPLIES: &str = "DefaultCluster_REPLY_TOPIC";
/// Nothing more is there.
const NOTHING: i32 = 19;

/// With a key that publishes and replies, one that consumes, and one that may do the same elsewhere.
fn locked(directory: &tempfile::TempDir) -> Node {
    let keys = directory.path().join("keys.toml");
    let key = |id: &str, publish: &str, consume: &str| {
        format!(
            "[[keys]]\nid = \"{id}\"\nsecret = \"secret\"\npublish = [{publish}]\nconsume = [{consume}]\n"
        )
    };
    let own = "{ topic = \"orders\", group = \"g\" }";
    let elsewhere = "{ topic = \"others\", group = \"elsewhere\" }";
    let text = key("producer", &format!("\"orders\", \"{REPLIES}\""), "")
        + &key("consumer", "", own)
        + &key("stranger", "\"others\"", elsewhere);
    std::fs::write(&keys, text).expect("a directory of this test");
    let asks_soon = ["--transaction-immunity", "300ms", "--transaction-check-interval", "300ms"];
    Setup::new(directory.path().join("data"))
        .with(&["--access-keys", keys.to_str().expect("UTF-8")])
        .with(&asks_soon)
        .start()
}

fn ask_signed(client: &mut Remoting, key: &str, code: i32, fields: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut signature = String::new();
    client.ask(code, &signed_with_body(fields, key, body, &mut signature), body)
}

/// Nobody gets it carried out but one who has a key that may.
fn refused(client: &mut Remoting, may_not: &[&str], code: i32, fields: &[(&str, &str)], body: &[u8]) {
    let unsigned = client.ask(code, fields, body);
    assert_eq!(unsigned.code, 16, "{code} unsigned: {unsigned:?}");
    assert!(unsigned.remark.contains("asks for an access key"), "{code} unsigned: {unsigned:?}");
    let mut signature = String::new();
    let mut wrong = signed_with_body(fields, "producer", body, &mut signature);
    wrong.last_mut().expect("the signature").1 = "AAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let wrong = client.ask(code, &wrong, body);
    assert_eq!(wrong.code, 16, "{code} with another secret: {wrong:?}");
    // What was signed is something else.
    let mut signature = String::new();
    let mut changed = signed_with_body(fields, "producer", body, &mut signature);
    changed.push(("added", "later"));
    let changed = client.ask(code, &changed, body);
    assert_eq!(changed.code, 16, "{code}, changed after it was signed: {changed:?}");
    for key in may_not {
        let denied = ask_signed(client, key, code, fields, body);
        assert_eq!(denied.code, 16, "{code} with the key {key}: {denied:?}");
        assert!(denied.remark.contains(key), "{code} with the key {key}: {denied:?}");
    }
}

fn send(client: &mut Remoting, properties: &str, flag: &str, body: &str) -> Answer {
    let mut fields = fields("orders", "0", properties);
    fields.iter_mut().find(|(name, _)| *name == "f").expect("a flag").1 = flag;
    let answer = ask_signed(client, "producer", SEND, &fields, body.as_bytes());
    assert_eq!(answer.code, 0, "{answer:?}");
    answer
}

/// What a consumer finds at an offset; nothing after the time.
fn found(client: &mut Remoting, topic: &str, offset: &str, wait_ms: &str) -> Vec<(String, i64)> {
    let wait =
        [("topic", topic), ("queueOffset", offset), ("sysFlag", "6"), ("suspendTimeoutMillis", wait_ms)];
    let answer = ask_signed(client, "consumer", PULL, &pull_fields(&wait), b"");
    if answer.code == NOTHING {
        return Vec::new();
    }
    assert_eq!(answer.code, 0, "{answer:?}");
    let found = records(&answer);
    let text = |body: &[u8]| String::from_utf8(body.to_vec()).expect("text");
    found.iter().map(|record| (text(record.body), record.physical_offset)).collect()
}

fn bodies(found: &[(String, i64)]) -> Vec<&str> {
    found.iter().map(|(body, _)| body.as_str()).collect()
}

#[test]
fn who_ends_a_transaction_may_publish_to_its_topic() {
    let directory = test_directory();
    let node = locked(&directory);
    let mut client = Remoting::connect(node.address());
    let half = "TRAN_MSG\u{1}true\u{2}PGROUP\u{1}pg\u{2}UNIQ_KEY\u{1}ID\u{2}";
    let answer = send(&mut client, half, "4", "half");
    let id = OffsetMessageId::parse(answer.field("msgId")).expect("an id");
    let place = id.physical_offset.to_string();
    for decision in ["12", "8"] {
        let end = [
            ("producerGroup", "pg"),
            ("tranStateTableOffset", "0"),
            ("commitLogOffset", &*place),
            ("commitOrRollback", decision),
            ("fromTransactionCheck", "false"),
            ("msgId", "ID"),
        ];
        refused(&mut client, &["consumer", "stranger"], END, &end, b"");
        assert!(found(&mut client, "orders", "0", "50").is_empty(), "nothing was decided");
        if decision == "8" {
            assert_eq!(ask_signed(&mut client, "producer", END, &end, b"").code, 0);
        }
    }
    assert_eq!(bodies(&found(&mut client, "orders", "0", "5000")), ["half"]);
}

/// A question has the message, so it goes to nobody who might not have sent it.
#[test]
fn only_who_may_publish_is_asked_about_a_transaction() {
    let directory = test_directory();
    let node = locked(&directory);
    let mut sender = Remoting::connect(node.address());
    let half = "TRAN_MSG\u{1}true\u{2}PGROUP\u{1}pg\u{2}UNIQ_KEY\u{1}ID\u{2}";
    send(&mut sender, half, "4", "half");
    let beat = |id: &str, key: &str| {
        let mut client = Remoting::connect(node.address());
        let said = json!({ "clientID": id, "producerDataSet": [{ "groupName": "pg" }] }).to_string();
        assert_eq!(ask_signed(&mut client, key, HEART_BEAT, &[], said.as_bytes()).code, 0);
        client
    };
    let mut stranger = beat("s@1", "stranger");
    std::thread::sleep(Duration::from_millis(1_500));
    let mut producer = beat("p@1", "producer");
    let asked = producer.asked();
    assert_eq!((asked.code, asked.field("msgId")), (CHECK, "ID"));
    // It would have come before this answer.
    ask_signed(&mut stranger, "stranger", ROUTE, &[("topic", "others")], b"");
    assert!(stranger.asked.is_empty(), "{:?}", stranger.asked);
}

#[test]
fn who_gives_a_message_back_may_consume_it() {
    let directory = test_directory();
    let node = locked(&directory);
    let mut client = Remoting::connect(node.address());
    send(&mut client, "", "0", "fails");
    let place = found(&mut client, "orders", "0", "5000")[0].1.to_string();
    for group in ["g", "elsewhere"] {
        let back = [("group", group), ("offset", &*place), ("delayLevel", "1"), ("originTopic", "orders")];
        let may_not: &[&str] = match group {
            "g" => &["producer", "stranger"],
            // The stranger may act for this group, and not as it consume that topic.
            _ => &["producer", "consumer", "stranger"],
        };
        refused(&mut client, may_not, SEND_BACK, &back, b"");
    }
    assert!(found(&mut client, "%RETRY%g", "0", "1500").is_empty(), "nothing comes again");
    let back = [("group", "g"), ("offset", &*place), ("delayLevel", "1"), ("originTopic", "orders")];
    assert_eq!(ask_signed(&mut client, "consumer", SEND_BACK, &back, b"").code, 0);
    assert_eq!(bodies(&found(&mut client, "%RETRY%g", "0", "5000")), ["fails"]);
}

#[test]
fn who_locks_a_queue_may_act_for_the_group() {
    let directory = test_directory();
    let node = locked(&directory);
    let mut client = Remoting::connect(node.address());
    send(&mut client, "", "0", "makes the topic");
    let body = |client: &str| {
        let queue = json!({ "topic": "orders", "brokerName": "b", "queueId": 0 });
        json!({ "clientId": client, "consumerGroup": "g", "mqSet": [queue] }).to_string().into_bytes()
    };
    let mut members: Vec<_> = ["a@1", "b@1"].iter().map(|_| Remoting::connect(node.address())).collect();
    for (member, id) in members.iter_mut().zip(["a@1", "b@1"]) {
        let said = reads(id, "g", "CLUSTERING", &["orders"]);
        assert_eq!(ask_signed(member, "consumer", HEART_BEAT, &[], &said).code, 0);
    }
    let has = |member: &mut Remoting, id: &str| {
        let answer = ask_signed(member, "consumer", LOCK, &[], &body(id));
        body_of(&answer)["lockOKMQSet"].as_array().map(Vec::len)
    };
    refused(&mut client, &["producer", "stranger"], LOCK, &[], &body("a@1"));
    assert_eq!(has(&mut members[1], "b@1"), Some(1), "nobody had been given it");
    // Over the holder's own connection: any other would not do anyway.
    refused(&mut members[1], &["producer", "stranger"], UNLOCK, &[], &body("b@1"));
    assert_eq!(has(&mut members[0], "a@1"), Some(0), "nobody has given it up");
    assert_eq!(ask_signed(&mut members[1], "consumer", UNLOCK, &[], &body("b@1")).code, 0);
    assert_eq!(has(&mut members[0], "a@1"), Some(1));
}

#[test]
fn who_replies_may_publish_replies() {
    let directory = test_directory();
    let node = locked(&directory);
    let mut waiting = Remoting::connect(node.address());
    let said = json!({ "clientID": "w@1", "producerDataSet": [{ "groupName": "askers" }] }).to_string();
    assert_eq!(ask_signed(&mut waiting, "producer", HEART_BEAT, &[], said.as_bytes()).code, 0);
    let mut sender = Remoting::connect(node.address());
    let properties = "MSG_TYPE\u{1}reply\u{2}CORRELATION_ID\u{1}c\u{2}REPLY_TO_CLIENT\u{1}w@1\u{2}";
    let reply = fields(REPLIES, "0", properties);
    refused(&mut sender, &["consumer", "stranger"], REPLY, &reply, b"forged");
    ask_signed(&mut waiting, "producer", ROUTE, &[("topic", "orders")], b"");
    assert!(waiting.asked.is_empty(), "{:?}", waiting.asked);
    let mut signature = String::new();
    let signed = signed_with_body(&reply, "producer", b"the answer", &mut signature);
    sender.send(&request(HeaderForm::Json, REPLY, 3, &signed, b"the answer"));
    let pushed = waiting.asked();
    assert_eq!((pushed.code, pushed.body()), (PUSH, &b"the answer"[..]));
    waiting.answer_to(&pushed, 0);
    assert_eq!(sender.answer().code, 0);
}

#[test]
fn who_takes_a_message_back_may_publish_to_its_topic() {
    let directory = test_directory();
    let node = locked(&directory);
    let mut client = Remoting::connect(node.address());
    let [stays, goes] = ["stays", "goes"].map(|body| {
        let properties = format!("TIMER_DELAY_MS\u{1}2500\u{2}UNIQ_KEY\u{1}{body}\u{2}");
        send(&mut client, &properties, "0", body).field("recallHandle").to_owned()
    });
    let recall = [("topic", "orders"), ("recallHandle", &*stays)];
    refused(&mut client, &["consumer", "stranger"], RECALL, &recall, b"");
    let recall = [("topic", "orders"), ("recallHandle", &*goes)];
    assert_eq!(ask_signed(&mut client, "producer", RECALL, &recall, b"").code, 0);
    assert_eq!(bodies(&found(&mut client, "orders", "0", "10000")), ["stays"]);
    assert!(found(&mut client, "orders", "1", "500").is_empty(), "one was taken back");
}
