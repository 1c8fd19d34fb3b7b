//! Transactions over RocketMQ's own protocol, as bytes on a socket: halves that nobody sees, and what becomes of them.

use std::time::Duration;

use serde_json::json;
use turbopump::protocol::remoting::message::read_record;
use turbopump::protocol::remoting::{FieldValue, Head, HeaderForm};
use turbopump::types::OffsetMessageId;

use super::remoting::{Answer, Remoting, node};
use super::remoting_pulls::pull;
use super::remoting_sends::{fields, stored};
use crate::support::node::{Node, Setup, wait_for};

const SEND: i32 = 310;
const END: i32 = 37;
const ONE_WAY: i32 = 2;
const NOT_FOUND: &str = "Find prepared transaction message failed";

/// A half as its producer knows it.
pub struct Half {
    pub shard: String,
    pub place: String,
}

pub fn send_half(client: &mut Remoting, properties: &str, body: &str) -> Half {
    let properties =
        format!("UNIQ_KEY\u{1}ID-{body}\u{2}TRAN_MSG\u{1}true\u{2}PGROUP\u{1}pg\u{2}{properties}");
    let mut fields = fields("orders", "0", &properties);
    fields.push(("f", "4"));
    let answer = client.ask(SEND, &fields, body.as_bytes());
    assert_eq!(
        (answer.code, answer.field("transactionId")),
        (0, format!("ID-{body}").as_str()),
        "{answer:?}"
    );
    let id = OffsetMessageId::parse(answer.field("msgId")).expect("an id");
    Half { shard: answer.field("queueOffset").to_owned(), place: id.physical_offset.to_string() }
}

/// The fields of a decision, with others in their places.
fn end_fields<'a>(
    half: &'a Half,
    decision: &'a str,
    changed: &[(&'a str, &'a str)],
) -> Vec<(&'a str, &'a str)> {
    let mut fields = vec![
        ("producerGroup", "pg"),
        ("tranStateTableOffset", &*half.shard),
        ("commitLogOffset", &*half.place),
        ("commitOrRollback", decision),
        ("fromTransactionCheck", "false"),
        ("msgId", "ID"),
    ];
    for (name, value) in changed {
        let field = fields.iter_mut().find(|(known, _)| known == name).expect("a field of a decision");
        field.1 = value;
    }
    fields
}

pub fn end(client: &mut Remoting, half: &Half, decision: &str, changed: &[(&str, &str)]) -> Answer {
    client.ask(END, &end_fields(half, decision, changed), b"")
}

const COMMIT: &str = "8";
const ROLLBACK: &str = "12";

#[test]
fn a_half_is_seen_once_it_is_committed_whichever_shard_is_told() {
    let (_directory, node) = node(&["--shards", "3"]);
    let mut shards: Vec<_> = node.addresses.iter().map(|address| Remoting::connect(address)).collect();
    let halves: Vec<_> = (0..3)
        .map(|shard| send_half(&mut shards[shard], "TAGS\u{1}TagA\u{2}", &format!("half-{shard}")))
        .collect();
    assert!(halves.iter().map(|half| half.shard.as_str()).eq(["0", "1", "2"]));
    assert_eq!(stored(&node, "orders").len(), 0);
    assert_eq!(end(&mut shards[0], &halves[0], ROLLBACK, &[]).code, 0);
    assert_eq!(end(&mut shards[0], &halves[1], COMMIT, &[]).code, 0);
    assert_eq!(end(&mut shards[0], &halves[2], "0", &[]).code, 0, "it does not know yet");
    let found = stored(&node, "orders");
    assert_eq!((found.len(), &found[0]["body"]), (1, &"half-1".into()));
    // As RocketMQ's clients see it.
    let answer = pull(&mut shards[1], &[]);
    let (record, rest) = read_record(answer.body()).expect("a record");
    assert!(rest.is_empty());
    assert_eq!((record.body, record.queue, record.system_flag & 0b1100), (&b"half-1"[..], 0, 0b1000));
    let properties = String::from_utf8_lossy(record.properties);
    assert!(
        properties.contains("PGROUP\u{1}pg\u{2}") && properties.contains("TAGS\u{1}TagA\u{2}"),
        "{properties}"
    );
    // What was decided stays decided.
    for (half, decision) in [(0, COMMIT), (1, COMMIT), (1, ROLLBACK)] {
        let answer = end(&mut shards[half], &halves[half], decision, &[]);
        assert_eq!((answer.code, answer.remark.as_str()), (1, NOT_FOUND));
    }
    assert_eq!(stored(&node, "orders").len(), 1);
}

#[test]
fn what_names_no_half_is_told_in_rocketmqs_words() {
    let (_directory, node) = node(&["--shards", "2"]);
    let mut client = Remoting::connect(&node.addresses[0]);
    let half = send_half(&mut client, "", "half");
    let first: i64 = half.place.parse().expect("a number");
    let (next, second) = ((first + 1).to_string(), (first + (1 << 16)).to_string());
    let far = i64::MAX.to_string();
    for (changed, remark) in [
        (("producerGroup", "other"), "The producer group wrong"),
        (("producerGroup", ""), "The producer group wrong"),
        (("tranStateTableOffset", "2"), "The transaction state table offset wrong"),
        (("tranStateTableOffset", "-1"), "The transaction state table offset wrong"),
        (("tranStateTableOffset", "1"), NOT_FOUND),
        (("commitLogOffset", &*next), NOT_FOUND),
        (("commitLogOffset", &*second), NOT_FOUND),
        (("commitLogOffset", "0"), NOT_FOUND),
        (("commitLogOffset", "-1"), NOT_FOUND),
        (("commitLogOffset", &*far), NOT_FOUND),
        (("commitLogOffset", "here"), "the custom field <commitLogOffset> is null"),
        (("commitOrRollback", "4"), "commitOrRollback field wrong"),
    ] {
        for decision in [COMMIT, ROLLBACK] {
            let answer = end(&mut client, &half, decision, &[changed]);
            assert_eq!((answer.code, answer.remark.as_str()), (1, remark), "{changed:?}");
        }
    }
    // Halves of other protocols have no such producer.
    node.run_well(&["message", "publish", "orders", "native", "--transaction"]);
    assert_eq!(end(&mut client, &half, COMMIT, &[]).code, 0);
    assert_eq!(stored(&node, "orders").len(), 1);
}

#[test]
fn a_half_that_says_two_things_is_refused() {
    let (_directory, node) = node(&[]);
    node.run_well(&["topic", "create", "orders", "--queues", "1"]);
    let mut client = Remoting::connect(node.address());
    let long = format!("TRAN_MSG\u{1}true\u{2}PGROUP\u{1}{}\u{2}", "g".repeat(256));
    for (flag, properties) in [
        ("4", ""),
        ("12", ""),
        ("4", "TRAN_MSG\u{1}false\u{2}"),
        ("4", "TRAN_MSG\u{1}true\u{2}"),
        ("4", "TRAN_MSG\u{1}true\u{2}PGROUP\u{1}not a name\u{2}"),
        ("4", &*long),
        ("4", "TRAN_MSG\u{1}true\u{2}PGROUP\u{1}pg\u{2}DELAY\u{1}3\u{2}"),
    ] {
        let mut fields = fields("orders", "0", properties);
        fields.push(("f", flag));
        let answer = client.ask(SEND, &fields, b"body");
        assert_eq!(answer.code, 13, "{flag} {properties}: {answer:?}");
    }
    assert_eq!(stored(&node, "orders").len(), 0);
}

#[test]
fn halves_survive_a_kill_and_are_decided_after_it() {
    let (directory, killed) = node(&["--shards", "2"]);
    let mut client = Remoting::connect(&killed.addresses[1]);
    let committed = send_half(&mut client, "", "committed");
    let rolled_back = send_half(&mut client, "", "rolled back");
    let open = send_half(&mut client, "", "open");
    assert_eq!(end(&mut client, &committed, COMMIT, &[]).code, 0);
    assert_eq!(end(&mut client, &rolled_back, ROLLBACK, &[]).code, 0);
    killed.kill();
    let node = Setup::new(directory.path().join("data")).start();
    assert_eq!(stored(&node, "orders").len(), 1);
    let mut client = Remoting::connect(&node.addresses[0]);
    for half in [&committed, &rolled_back] {
        assert_eq!(end(&mut client, half, COMMIT, &[]).remark, NOT_FOUND);
    }
    // As clients say it: they want no answer.
    let fields = end_fields(&open, COMMIT, &[]);
    let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, FieldValue::Text(value))).collect();
    let mut bytes = Vec::new();
    Head { code: END, flag: ONE_WAY, fields: &fields, ..Head::default() }.write(
        HeaderForm::Json,
        b"",
        &mut bytes,
    );
    client.send(&bytes);
    wait_for("it is committed", || stored(&node, "orders").len() == 2);
    assert_eq!(end(&mut client, &open, COMMIT, &[]).remark, NOT_FOUND);
}

/// A producer that has said how long it needs does not decide behind the back of the one that is asked then.
#[test]
fn a_decision_after_the_producers_own_time_waits_for_the_question() {
    let (_directory, node) = node(&["--transaction-immunity", "1ms"]);
    let mut client = Remoting::connect(node.address());
    let own = send_half(&mut client, "CHECK_IMMUNITY_TIME_IN_SECONDS\u{1}0\u{2}", "own");
    let usual = send_half(&mut client, "", "usual");
    // At least as long as both have.
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(end(&mut client, &own, COMMIT, &[]).code, 604);
    assert_eq!(end(&mut client, &own, ROLLBACK, &[]).code, 604);
    assert_eq!(end(&mut client, &usual, COMMIT, &[]).code, 0);
    assert_eq!(end(&mut client, &own, COMMIT, &[("fromTransactionCheck", "true")]).code, 0);
    assert_eq!(stored(&node, "orders").len(), 2);
}

const HEART_BEAT: i32 = 34;
const CHECK: i32 = 39;
/// Producers are asked soon, and again soon.
const SOON: [&str; 4] = ["--transaction-immunity", "1ms", "--transaction-check-interval", "50ms"];

/// A client says over a connection that it produces as `pg`.
fn produces(address: &str, id: &str) -> Remoting {
    let mut client = Remoting::connect(address);
    let said = json!({ "clientID": id, "producerDataSet": [{ "groupName": "pg" }], "consumerDataSet": [] });
    assert_eq!(client.ask(HEART_BEAT, &[], said.to_string().as_bytes()).code, 0);
    client
}

/// What a producer is asked: the half as it names it, the text of its message, and how often it was asked.
fn question(client: &mut Remoting) -> (Half, String, String) {
    let asked = client.asked();
    assert_eq!(asked.code, CHECK);
    let (record, rest) = read_record(asked.body()).expect("a record");
    assert!(rest.is_empty());
    let properties = String::from_utf8_lossy(record.properties).into_owned();
    let property = |name: &str| {
        let mut entries = properties.split('\u{2}').filter_map(|entry| entry.split_once('\u{1}'));
        entries.find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
    };
    let body = String::from_utf8_lossy(record.body).into_owned();
    let half = Half {
        shard: asked.field("tranStateTableOffset").to_owned(),
        place: asked.field("commitLogOffset").to_owned(),
    };
    assert_eq!((record.topic, record.queue, record.system_flag & 0b1100), (&b"orders"[..], 0, 0));
    assert_eq!(record.physical_offset.to_string(), half.place);
    let id = OffsetMessageId::parse(asked.field("offsetMsgId")).expect("an id");
    assert_eq!((id.address, id.physical_offset), (record.store_host, record.physical_offset));
    let unique_id = format!("ID-{body}");
    assert_eq!((asked.field("msgId"), asked.field("transactionId")), (&*unique_id, &*unique_id));
    assert_eq!((property("PGROUP").as_deref(), property("TRAN_MSG").as_deref()), (Some("pg"), Some("true")));
    assert_eq!(property("REAL_TOPIC").as_deref(), Some("orders"));
    (half, body, property("TRANSACTION_CHECK_TIMES").expect("a count"))
}

fn counted(node: &Node) -> u64 {
    node.counter("transactions_checked")
}

#[test]
fn a_producer_of_the_group_is_asked_over_whichever_shard_it_is_connected_to() {
    let (_directory, node) = node(&[&["--shards", "3"][..], &SOON].concat());
    let mut shards: Vec<_> = node.addresses.iter().map(|address| Remoting::connect(address)).collect();
    for (shard, body) in [(0, "commit"), (1, "roll back"), (2, "later")] {
        send_half(&mut shards[shard], "", body);
    }
    // Nobody is there to be asked: nothing is counted.
    let mut other = Remoting::connect(node.address());
    let said = json!({ "clientID": "o@1", "producerDataSet": [{ "groupName": "other" }] });
    assert_eq!(other.ask(HEART_BEAT, &[], said.to_string().as_bytes()).code, 0);
    let mut producer = produces(&node.addresses[1], "p@1");
    let mut times = std::collections::BTreeMap::new();
    while times.len() < 3 || times["later"] < 3 {
        let (half, body, count) = question(&mut producer);
        let expected = times.get(&body).map_or(1, |count| count + 1);
        assert_eq!(count, expected.to_string(), "of {body}");
        times.insert(body.clone(), expected);
        let decision = match body.as_str() {
            "commit" => COMMIT,
            "roll back" => ROLLBACK,
            _ if expected < 3 => "0",
            _ => COMMIT,
        };
        // To the broker that has asked, which need not be the half's.
        assert_eq!(end(&mut producer, &half, decision, &[("fromTransactionCheck", "true")]).code, 0);
    }
    assert_eq!(times.into_values().collect::<Vec<_>>(), [1, 3, 1]);
    let mut seen: Vec<_> =
        stored(&node, "orders").iter().map(|message| message["body"].to_string()).collect();
    seen.sort_unstable();
    assert_eq!(seen, ["\"commit\"", "\"later\""]);
    wait_for("five questions are counted", || counted(&node) == 5);
}

#[test]
fn who_is_left_of_a_group_is_asked_and_what_nobody_answers_is_given_up() {
    let (directory, killed) = node(&[&["--shards", "2"][..], &SOON].concat());
    let mut sender = Remoting::connect(&killed.addresses[0]);
    let half = send_half(&mut sender, "KEYS\u{1}k1\u{2}", "left");
    let mut first = produces(&killed.addresses[0], "p@1");
    assert_eq!(question(&mut first).1, "left");
    drop(first);
    let mut second = produces(&killed.addresses[1], "p@2");
    assert_eq!(question(&mut second).1, "left");
    wait_for("it is counted", || counted(&killed) >= 2);
    killed.kill();
    let few = [&SOON[..], &["--transaction-checks", "4"]].concat();
    let node = Setup::new(directory.path().join("data")).with(&few).start();
    let mut third = produces(&node.addresses[1], "p@3");
    let count: u32 = question(&mut third).2.parse().expect("a number");
    assert!(count > 1, "questions are counted over a kill");
    wait_for("it is given up", || {
        let topics = node.run_well(&["topic", "list"]);
        topics.contains("TRANS_CHECK_MAX_TIME_TOPIC")
            && stored(&node, "TRANS_CHECK_MAX_TIME_TOPIC").len() == 1
    });
    let given_up = &stored(&node, "TRANS_CHECK_MAX_TIME_TOPIC")[0];
    assert_eq!((&given_up["body"], &given_up["key"]), (&json!("left"), &json!("k1")));
    assert_eq!(end(&mut third, &half, COMMIT, &[("fromTransactionCheck", "true")]).remark, NOT_FOUND);
    assert_eq!(stored(&node, "orders").len(), 0);
}

/// Those that receive undecided messages and those that are asked share their count.
#[test]
fn who_asks_by_itself_gets_what_a_producer_was_not_asked_about() {
    let (_directory, node) = node(&["--transaction-immunity", "1ms", "--transaction-check-interval", "1h"]);
    let mut client = Remoting::connect(node.address());
    send_half(&mut client, "", "half");
    let undecided = || {
        let arguments = ["message", "undecided", "orders", "--group", "pg", "--wait", "0", "-o", "json"];
        node.run_well(&arguments).lines().count()
    };
    wait_for("nobody else has asked", || undecided() == 1);
    // It is the other one's for an hour.
    let mut producer = produces(node.address(), "p@1");
    send_half(&mut client, "", "another");
    assert_eq!(question(&mut producer).1, "another");
    assert_eq!(undecided(), 0);
}
