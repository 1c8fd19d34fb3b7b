//! What tools are shown of queues, and groups that take over places, over RocketMQ's own protocol.

use serde_json::json;

use super::remoting::{Remoting, json as body_of, node};
use super::remoting_sends::{fields as send_fields, send};

const COMMITTED: i32 = 14;
const COMMIT: i32 = 15;
const SET_UP_TOPIC: i32 = 17;
const HEART_BEAT: i32 = 34;
const TOPIC_STATS: i32 = 202;
const TIMES: i32 = 303;
const SEND: i32 = 310;
const CLONE: i32 = 314;
const ENTRIES: i32 = 321;
const SUBSCRIPTION: i32 = 345;
const READABLE: i32 = 353;

fn commit(client: &mut Remoting, group: &str, queue: &str, offset: &str) {
    let fields =
        [("consumerGroup", group), ("topic", "orders"), ("queueId", queue), ("commitOffset", offset)];
    assert_eq!(client.ask(COMMIT, &fields, b"").code, 0);
}

#[test]
fn queues_are_shown_entry_by_entry_and_by_times() {
    let (_directory, node) = node(&["--shards", "2"]);
    node.run_well(&["topic", "create", "orders", "--queues", "4"]);
    let mut client = Remoting::connect(&node.addresses[1]);
    for tag in ["TagA", "TagB", "TagA"] {
        let properties = format!("TAGS\u{1}{tag}\u{2}");
        let answer = client.ask(SEND, &send_fields("orders", "1", &properties), b"the body");
        assert_eq!(answer.code, 0, "{answer:?}");
    }
    let ask = |index: &str, count: &str, client: &mut Remoting| {
        let fields = [("topic", "orders"), ("queueId", "1"), ("index", index), ("count", count)];
        client.ask(ENTRIES, &fields, b"")
    };
    let shown = body_of(&ask("1", "5", &mut client));
    let entries = shown["queueData"].as_array().expect("a list");
    let hashes: Vec<_> = entries.iter().map(|entry| entry["tagsCode"].as_i64().expect("a number")).collect();
    assert_eq!(
        (hashes, &shown["minQueueIndex"], &shown["maxQueueIndex"]),
        (vec![2_598_920, 2_598_919], &json!(0), &json!(3))
    );
    let offset = entries[0]["physicOffset"].to_string();
    let seen = client.ask(33, &[("topic", "orders"), ("offset", &offset)], b"");
    assert_eq!(entries[0]["physicSize"], seen.body().len(), "the message stands there");
    assert_eq!(body_of(&ask("0", "2", &mut client))["queueData"].as_array().map(Vec::len), Some(2));
    for (index, count) in [("3", "1"), ("-1", "1"), ("x", "1"), ("0", "")] {
        assert_eq!(ask(index, count, &mut client).code, 1, "{index} {count}");
    }
    let of_group =
        [("topic", "orders"), ("queueId", "1"), ("index", "0"), ("count", "1"), ("consumerGroup", "g")];
    assert_eq!(body_of(&client.ask(ENTRIES, &of_group, b""))["filterData"], "g@orders is not online!");
    let nowhere = [("topic", "nowhere"), ("queueId", "0"), ("index", "0"), ("count", "1")];
    assert_eq!(client.ask(ENTRIES, &nowhere, b"").code, 17);

    commit(&mut client, "g", "1", "2");
    let times = body_of(&client.ask(TIMES, &[("topic", "orders"), ("group", "g")], b""));
    let queue = times["consumeTimeSpanSet"][1].clone();
    assert_eq!(queue["messageQueue"], json!({ "brokerName": "n-1", "queueId": 1, "topic": "orders" }));
    let time = |name: &str| queue[name].as_u64().expect("a number");
    assert!(time("minTimeStamp") > 0 && time("minTimeStamp") <= time("consumeTimeStamp"), "{queue}");
    assert!(time("consumeTimeStamp") <= time("maxTimeStamp") && time("delayTime") < 600_000, "{queue}");
    commit(&mut client, "g", "1", "3");
    let times = body_of(&client.ask(TIMES, &[("topic", "orders"), ("group", "g")], b""));
    assert_eq!(times["consumeTimeSpanSet"][1]["delayTime"], 0, "nothing is left");
    assert_eq!(client.ask(TIMES, &[("topic", "nowhere"), ("group", "g")], b"").code, 17);
}

/// They were left out while their messages could still be read.
#[test]
fn queues_that_are_read_and_not_written_to_any_more_are_told_of() {
    let (_directory, node) = node(&["--shards", "1"]);
    node.run_well(&["topic", "create", "orders", "--queues", "4"]);
    let mut client = Remoting::connect(node.address());
    assert_eq!(send(&mut client, "orders", "3", "body").code, 0);
    let fewer = [
        ("topic", "orders"),
        ("defaultTopic", "TBW102"),
        ("readQueueNums", "4"),
        ("writeQueueNums", "2"),
        ("perm", "6"),
        ("topicFilterType", "SINGLE_TAG"),
        ("topicSysFlag", "0"),
        ("order", "false"),
    ];
    assert_eq!(client.ask(SET_UP_TOPIC, &fewer, b"").code, 0);
    let told = client.ask(TOPIC_STATS, &[("topic", "orders")], b"");
    let told = String::from_utf8_lossy(told.body()).into_owned();
    assert_eq!(told.matches("maxOffset").count(), 4, "{told}");
    assert_eq!(told.matches("\"maxOffset\":1").count(), 1, "{told}");
}

#[test]
fn a_group_takes_over_the_places_of_another_one() {
    let (_directory, node) = node(&["--shards", "2"]);
    node.run_well(&["topic", "create", "orders", "--queues", "4"]);
    let mut client = Remoting::connect(&node.addresses[0]);
    for queue in ["0", "0", "1"] {
        assert_eq!(send(&mut client, "orders", queue, "body").code, 0);
    }
    commit(&mut client, "old", "0", "2");
    let cloned = [("srcGroup", "old"), ("destGroup", "new"), ("topic", "orders"), ("offline", "true")];
    assert_eq!(client.ask(CLONE, &cloned, b"").code, 0);
    let place = |client: &mut Remoting, queue: &str| {
        let fields = [
            ("consumerGroup", "new"),
            ("topic", "orders"),
            ("queueId", queue),
            ("setZeroIfNotFound", "false"),
        ];
        let answer = client.ask(COMMITTED, &fields, b"");
        (answer.code == 0).then(|| answer.field("offset").to_owned())
    };
    assert_eq!((place(&mut client, "0"), place(&mut client, "1")), (Some("2".to_owned()), None));
    // What its clients do not want any more is left, unless it is said that there are none.
    let other = json!({ "clientID": "a@1", "consumerDataSet": [{ "groupName": "old", "messageModel": "CLUSTERING",
        "subscriptionDataSet": [{ "topic": "others", "subString": "*", "subVersion": 1 }] }] });
    assert_eq!(client.ask(HEART_BEAT, &[], other.to_string().as_bytes()).code, 0);
    commit(&mut client, "old", "0", "1");
    let online = [("srcGroup", "old"), ("destGroup", "new"), ("topic", "orders"), ("offline", "false")];
    assert_eq!(client.ask(CLONE, &online, b"").code, 0);
    assert_eq!(place(&mut client, "0"), Some("2".to_owned()));
    let subscription = [("group", "old"), ("topic", "others")];
    let shown = body_of(&client.ask(SUBSCRIPTION, &subscription, b""));
    assert_eq!((&shown["group"], &shown["subscriptionData"]["subString"]), (&json!("old"), &json!("*")));
    let readable = [("group", "old"), ("topic", "others")];
    assert_eq!(body_of(&client.ask(READABLE, &readable, b""))["readable"], true);
    let closed = [("group", "old"), ("topic", "others"), ("readable", "false")];
    assert_eq!(client.ask(READABLE, &closed, b"").code, 16);
}
