//! Administration over RocketMQ's own protocol: topics and groups are the node's, whichever broker is asked, and stay over kills.

use serde_json::{Value, json};

use super::remoting::{Answer, Remoting, heartbeat, json as body_of, node};
use super::remoting_sends::{send, stored};
use crate::support::directory::test_directory;
use crate::support::node::{Setup, wait_for};

const PULL: i32 = 11;
const COMMITTED: i32 = 14;
const COMMIT: i32 = 15;
const SET_UP_TOPIC: i32 = 17;
const TOPICS: i32 = 21;
const CHANGE_SETTINGS: i32 = 25;
const COUNTERS: i32 = 28;
const HEART_BEAT: i32 = 34;
const ROUTE: i32 = 105;
const SET_UP_GROUP: i32 = 200;
const GROUPS: i32 = 201;
const TOPIC_STATS: i32 = 202;
const CONNECTIONS: i32 = 203;
const PRODUCERS: i32 = 204;
const CLOSE: i32 = 205;
const DELETE_GROUP: i32 = 207;
const PROGRESS: i32 = 208;
const DELETE_TOPIC: i32 = 215;
const RESET: i32 = 222;
const GROUPS_OF_TOPIC: i32 = 300;
const SYSTEM_TOPICS: i32 = 305;
const CLEAN: i32 = 306;
const OPEN: i32 = 327;
const ALL_PRODUCERS: i32 = 328;
const TOPIC: i32 = 351;
const GROUP: i32 = 352;

pub fn set_up(client: &mut Remoting, topic: &str, read: &str, write: &str, permission: &str) -> i32 {
    let fields = [
        ("topic", topic),
        ("defaultTopic", "TBW102"),
        ("readQueueNums", read),
        ("writeQueueNums", write),
        ("perm", permission),
        ("topicFilterType", "SINGLE_TAG"),
        ("order", "false"),
    ];
    client.ask(SET_UP_TOPIC, &fields, b"").code
}

/// Read and write queues and the permission of each broker that has some.
fn numbers(client: &mut Remoting, topic: &str) -> Vec<(u64, u64, u64)> {
    let answer = client.ask(ROUTE, &[("topic", topic)], b"");
    if answer.code != 0 {
        assert_eq!(answer.code, 17, "{answer:?}");
        return Vec::new();
    }
    let route = body_of(&answer);
    let queues = route["queueDatas"].as_array().expect("a list").iter();
    let number = |of: &Value, name: &str| of[name].as_u64().expect("a number");
    let three = |of: &Value| (number(of, "readQueueNums"), number(of, "writeQueueNums"), number(of, "perm"));
    queues.map(three).collect()
}

fn text(answer: &Answer) -> &str {
    assert_eq!(answer.code, 0, "{answer:?}");
    std::str::from_utf8(answer.body()).expect("text")
}

#[test]
fn a_topic_is_set_up_for_the_node_and_stays_so() {
    let directory = test_directory();
    let setup = Setup::new(directory.path().join("data")).with(&["--shards", "2", "--node", "n"]);
    let node = setup.start();
    let mut shards: Vec<_> = node.addresses.iter().map(|address| Remoting::connect(address)).collect();
    // As tools do, of each broker in turn.
    for client in &mut shards {
        assert_eq!(set_up(client, "orders", "4", "3", "6"), 0);
    }
    assert_eq!(numbers(&mut shards[0], "orders"), [(4, 3, 6), (4, 3, 6)]);
    assert_eq!(send(&mut shards[1], "orders", "3", "to one that is only read any more").code, 0);
    assert_eq!(send(&mut shards[1], "orders", "4", "to none").code, 29);
    for _ in 0..8 {
        let answer = send(&mut shards[1], "orders", "-1", "to any");
        assert_ne!(answer.field("queueId"), "3", "{answer:?}");
    }
    assert_eq!(set_up(&mut shards[1], "orders", "4", "4", "2"), 0);
    let pull = [
        ("consumerGroup", "g"),
        ("topic", "orders"),
        ("queueId", "0"),
        ("queueOffset", "0"),
        ("maxMsgNums", "1"),
        ("sysFlag", "4"),
        ("commitOffset", "0"),
        ("suspendTimeoutMillis", "0"),
        ("subscription", "*"),
        ("subVersion", "0"),
    ];
    assert_eq!(shards[0].ask(PULL, &pull, b"").code, 16, "it is not readable");
    node.kill();
    let node = setup.start();
    let mut client = Remoting::connect(&node.addresses[1]);
    assert_eq!(numbers(&mut client, "orders"), [(4, 4, 2), (4, 4, 2)]);
    // A topic of ten queues has shares of five: what one broker has says that nothing is changed.
    node.run_well(&["topic", "create", "ten", "--queues", "10"]);
    assert_eq!(set_up(&mut client, "ten", "5", "5", "6"), 0);
    assert_eq!(numbers(&mut client, "ten"), [(5, 5, 6), (5, 5, 6)]);
    let shown = body_of(&client.ask(TOPIC, &[("topic", "orders")], b""));
    assert_eq!((&shown["perm"], &shown["readQueueNums"]), (&json!(2), &json!(4)));
    let table = body_of(&client.ask(TOPICS, &[], b""));
    assert_eq!(table["topicConfigTable"]["ten"]["writeQueueNums"], 5);
    for (read, write, permission) in
        [("-1", "4", "6"), ("4", "x", "6"), ("4", "4", "9"), ("0", "0", "6"), ("99999999", "1", "6")]
    {
        assert_ne!(set_up(&mut client, "wrong", read, write, permission), 0, "{read} {write} {permission}");
    }
    for name in ["TBW102", "n-0", "DefaultCluster", "RMQ_SYS_TRANS_HALF_TOPIC", "rmq_sys_x"] {
        assert_eq!(set_up(&mut client, name, "4", "4", "6"), 29, "{name}");
    }
    assert_eq!(client.ask(DELETE_TOPIC, &[("topic", "orders")], b"").code, 0);
    assert_eq!(numbers(&mut Remoting::connect(&node.addresses[0]), "orders"), []);
    assert_eq!(client.ask(DELETE_TOPIC, &[("topic", "orders")], b"").code, 0, "it is gone");
    assert_eq!(client.ask(TOPIC, &[("topic", "orders")], b"").code, 17);
}

#[test]
fn a_group_is_set_up_for_the_node_and_stays_so() {
    let directory = test_directory();
    let setup = Setup::new(directory.path().join("data")).with(&["--shards", "2"]);
    let node = setup.start();
    node.run_well(&["topic", "create", "orders", "--queues", "2"]);
    let mut client = Remoting::connect(&node.addresses[1]);
    let policy = json!({ "type": "EXPONENTIAL", "exponentialRetryPolicy": { "initial": 1000, "max": 60000, "multiplier": 3 } });
    let closed = json!({ "groupName": "g", "consumeEnable": false, "retryMaxTimes": 3, "retryQueueNums": 2, "groupRetryPolicy": policy });
    assert_eq!(client.ask(SET_UP_GROUP, &[], closed.to_string().as_bytes()).code, 0);
    node.kill();
    let node = setup.start();
    for address in &node.addresses {
        let mut client = Remoting::connect(address);
        let shown = body_of(&client.ask(GROUP, &[("group", "g")], b""));
        assert_eq!(
            (&shown["consumeEnable"], &shown["retryMaxTimes"], &shown["retryQueueNums"]),
            (&json!(false), &json!(3), &json!(2))
        );
        assert_eq!(shown["groupRetryPolicy"], policy);
        let table = body_of(&client.ask(GROUPS, &[], b""));
        assert_eq!(table["subscriptionGroupTable"]["g"], shown);
        let pull = [
            ("consumerGroup", "g"),
            ("topic", "orders"),
            ("queueId", "0"),
            ("queueOffset", "0"),
            ("maxMsgNums", "1"),
            ("sysFlag", "4"),
            ("commitOffset", "0"),
            ("suspendTimeoutMillis", "0"),
            ("subVersion", "0"),
        ];
        assert_eq!(client.ask(PULL, &pull, b"").code, 16, "it may not consume");
    }
    let mut client = Remoting::connect(&node.addresses[1]);
    for wrong in
        ["{", "{\"groupName\":\"a b\"}", "{\"groupName\":\"g\",\"groupRetryPolicy\":{\"type\":\"LINEAR\"}}"]
    {
        assert_ne!(client.ask(SET_UP_GROUP, &[], wrong.as_bytes()).code, 0, "{wrong}");
    }
    let all = [("groupName", "g"), ("cleanOffset", "true")];
    assert_eq!(client.ask(DELETE_GROUP, &all, b"").code, 0);
    assert_eq!(client.ask(GROUP, &[("group", "g")], b"").code, 26);
    assert_eq!(client.ask(DELETE_GROUP, &all, b"").code, 0, "it is gone");
}

#[test]
fn who_consumes_and_how_far_it_is_are_told_by_every_broker() {
    let (_directory, node) = node(&["--shards", "2"]);
    node.run_well(&["topic", "create", "orders", "--queues", "4"]);
    let mut shards: Vec<_> = node.addresses.iter().map(|address| Remoting::connect(address)).collect();
    for number in 0..4 {
        assert_eq!(send(&mut shards[0], "orders", "1", &number.to_string()).code, 0);
    }
    assert_eq!(shards[0].ask(CONNECTIONS, &[("consumerGroup", "g")], b"").code, 206, "nobody is there");
    node.run_well(&["message", "receive", "orders", "--group", "g", "--wait", "0", "--filter", "fruit"]);
    let body = body_of(&shards[1].ask(CONNECTIONS, &[("consumerGroup", "g")], b""));
    assert_eq!(body["connectionSet"][0]["language"], "OTHER", "it receives natively");
    assert_eq!(
        (&body["consumeType"], &body["messageModel"]),
        (&json!("CONSUME_PASSIVELY"), &json!("CLUSTERING"))
    );
    assert_eq!(body["subscriptionTable"]["orders"]["subString"], "fruit");
    let mut reader = Remoting::connect(&node.addresses[0]);
    assert_eq!(reader.ask(HEART_BEAT, &[], &heartbeat("a@1", "reads")).code, 0);
    let body = body_of(&shards[1].ask(CONNECTIONS, &[("consumerGroup", "reads")], b""));
    assert_eq!(body["connectionSet"][0]["clientId"], "a@1");
    assert_eq!(body["connectionSet"][0]["language"], "JAVA");

    let producers = body_of(&shards[1].ask(PRODUCERS, &[("producerGroup", "p")], b""));
    assert_eq!(producers["connectionSet"][0]["clientId"], "a@1");
    assert_eq!(shards[1].ask(PRODUCERS, &[("producerGroup", "nobody")], b"").code, 1);
    let all = body_of(&shards[1].ask(ALL_PRODUCERS, &[], b""));
    assert_eq!(all["data"]["p"][0]["language"], "JAVA", "{all}");

    let commit = [("consumerGroup", "reads"), ("topic", "orders"), ("queueId", "1"), ("commitOffset", "3")];
    assert_eq!(shards[0].ask(COMMIT, &commit, b"").code, 0);
    let answer = shards[0].ask(PROGRESS, &[("consumerGroup", "reads"), ("topic", "orders")], b"");
    let place = "{\"brokerName\":\"n-0\",\"queueId\":1,\"topic\":\"orders\"}:{\"brokerOffset\":4,\"consumerOffset\":3,\"lastTimestamp\":1";
    assert!(text(&answer).contains(place), "{}", text(&answer));
    let elsewhere = shards[1].ask(PROGRESS, &[("consumerGroup", "reads")], b"");
    assert_eq!(text(&elsewhere), "{\"consumeTps\":0.0,\"offsetTable\":{}}", "it has none of it");
    let unknown = shards[0].ask(PROGRESS, &[("consumerGroup", "reads"), ("topic", "a b")], b"");
    assert!(text(&unknown).ends_with("\"offsetTable\":{}}"));
    let groups = body_of(&shards[1].ask(GROUPS_OF_TOPIC, &[("topic", "orders")], b""));
    assert_eq!(groups["groupList"], json!(["g", "reads"]));
    let stats = shards[0].ask(TOPIC_STATS, &[("topic", "orders")], b"");
    assert!(text(&stats).contains("\"maxOffset\":4,\"minOffset\":0"), "{}", text(&stats));
    assert_eq!(shards[0].ask(TOPIC_STATS, &[("topic", "nowhere")], b"").code, 17);
    for code in
        [CONNECTIONS, PROGRESS, GROUPS_OF_TOPIC, TOPIC_STATS, TOPIC, RESET, DELETE_TOPIC, DELETE_GROUP]
    {
        assert_eq!(shards[0].ask(code, &[], b"").code, 1, "{code} without its fields");
    }
}

#[test]
fn a_group_is_moved_whether_its_clients_are_there_or_not() {
    let (_directory, node) = node(&["--shards", "2"]);
    node.run_well(&["topic", "create", "orders", "--queues", "2"]);
    let mut client = Remoting::connect(&node.addresses[1]);
    for number in 0..4 {
        assert_eq!(send(&mut client, "orders", "0", &number.to_string()).code, 0);
    }
    let mut reset = |time: &str| {
        client.ask(
            RESET,
            &[("topic", "orders"), ("group", "g"), ("timestamp", time), ("isForce", "true")],
            b"",
        )
    };
    let table = |offset: u64| {
        format!(
            "{{\"offsetTable\":{{{{\"brokerName\":\"n-1\",\"queueId\":0,\"topic\":\"orders\"}}:{offset}}}}}"
        )
    };
    assert_eq!(text(&reset("-1")), table(4));
    assert_eq!(text(&reset("0")), table(0));
    assert_eq!(text(&reset("99999999999999")), table(4), "after all that there is");
    let one = [("topic", "orders"), ("group", "g"), ("timestamp", "0"), ("queueId", "0"), ("offset", "2")];
    assert_eq!(text(&client.ask(RESET, &one, b"")), table(2));
    let none = [("topic", "orders"), ("group", "g"), ("timestamp", "0"), ("queueId", "5")];
    assert_eq!(client.ask(RESET, &none, b"").code, 29);
    let body = json!({ "clientID": "a@1", "consumerDataSet": [{ "groupName": "g", "messageModel": "CLUSTERING",
        "subscriptionDataSet": [{ "topic": "orders", "subString": "*", "subVersion": 1 }] }] });
    assert_eq!(client.ask(HEART_BEAT, &[], body.to_string().as_bytes()).code, 0);
    assert_eq!(text(&client.ask(RESET, &one, b"")), table(2));
    // What a client commits that has not heard of it is of before.
    let commit = |client: &mut Remoting, offset: &str| {
        let fields =
            [("consumerGroup", "g"), ("topic", "orders"), ("queueId", "0"), ("commitOffset", offset)];
        assert_eq!(client.ask(COMMIT, &fields, b"").code, 0);
        let query = [("consumerGroup", "g"), ("topic", "orders"), ("queueId", "0")];
        client.ask(COMMITTED, &query, b"").field("offset").to_owned()
    };
    assert_eq!(commit(&mut client, "4"), "2");
    let pull = |client: &mut Remoting, offset: &str| {
        let fields = [
            ("consumerGroup", "g"),
            ("topic", "orders"),
            ("queueId", "0"),
            ("queueOffset", offset),
            ("maxMsgNums", "32"),
            ("sysFlag", "6"),
            ("commitOffset", "0"),
            ("suspendTimeoutMillis", "20000"),
            ("subscription", "*"),
            ("subVersion", "1"),
        ];
        let answer = client.ask(PULL, &fields, b"");
        (answer.code, answer.field("nextBeginOffset").to_owned())
    };
    assert_eq!(pull(&mut client, "4"), (21, "2".to_owned()), "it is told");
    assert_eq!(pull(&mut client, "2"), (0, "4".to_owned()), "and goes on there");
    assert_eq!(commit(&mut client, "4"), "4");
    // One that waits is told at once.
    let mut tool = Remoting::connect(&node.addresses[1]);
    let (waiting, told) = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| pull(&mut client, "4"));
        wait_for("it waits", || node.counter("fetches_waited") > 0);
        let told = tool.ask(RESET, &one, b"");
        (waiting.join().expect("it is answered"), told)
    });
    assert_eq!((waiting, text(&told)), ((21, "2".to_owned()), &*table(2)));
}

#[test]
fn what_cannot_be_changed_is_refused_in_words_and_a_closed_broker_is_in_routes() {
    let (_directory, node) = node(&["--shards", "2"]);
    node.run_well(&["topic", "create", "orders", "--queues", "2"]);
    let mut client = Remoting::connect(node.address());
    assert_eq!(client.ask(CHANGE_SETTINGS, &[], b"brokerId=0\nbrokerPermission=6\n").code, 0, "it is so");
    assert_eq!(client.ask(CHANGE_SETTINGS, &[], b"brokerPermission=4\n").code, 16);
    let system = body_of(&client.ask(SYSTEM_TOPICS, &[], b""));
    assert!(system["topicList"].as_array().is_some_and(|names| names.contains(&json!("TBW102"))), "{system}");
    assert_eq!(client.ask(CLEAN, &[], b"").code, 0);
    assert_eq!(client.ask(CLOSE, &[("brokerName", "n-1")], b"").field("wipeTopicCount"), "1");
    assert_eq!(numbers(&mut client, "orders"), [(1, 1, 6), (1, 1, 4)]);
    assert_eq!(client.ask(OPEN, &[("brokerName", "n-1")], b"").code, 0);
    assert_eq!(numbers(&mut client, "orders"), [(1, 1, 6), (1, 1, 6)]);
    let earliest = |client: &mut Remoting| -> u64 {
        let table = body_of(&client.ask(COUNTERS, &[], b""))["table"].clone();
        assert!(
            table["commitLogDiskRatio"]
                .as_str()
                .is_some_and(|ratio| ratio.parse::<f64>().is_ok_and(|ratio| ratio > 0.0))
        );
        table["earliestMessageTimeStamp"].as_str().expect("text").parse().expect("a number")
    };
    assert_eq!(send(&mut client, "orders", "0", "first").code, 0);
    let first = earliest(&mut client);
    let last =
        client.ask(32, &[("topic", "orders"), ("queueId", "0")], b"").field("timestamp").parse::<u64>();
    assert!(last.is_ok_and(|last| first <= last && last - first < 60_000), "the beginning of the log");
}

/// Nothing is made of a name that means something to RocketMQ's clients, over whichever protocol and on whichever shard.
#[test]
fn names_of_rocketmqs_own_are_not_made_by_use() {
    let flags = ["--shards", "2", "--cluster", "shop", "--auto-create-topics", "4"];
    let (_directory, node) = node(&flags);
    for address in &node.addresses {
        let mut client = Remoting::connect(address);
        for name in ["TBW102", "shop_REPLY_TOPIC", "rmq_sys_wheel_timer", "SELF_TEST_TOPIC"] {
            let answer = send(&mut client, name, "0", "body");
            assert_eq!(answer.code, 16, "{name}: {answer:?}");
            assert!(answer.remark.contains("is forbidden"), "{answer:?}");
        }
    }
    let refused = node.run(&["message", "publish", "n-1", "body"]);
    assert!(refused.stderr.contains("means something to RocketMQ"), "{refused:?}");
    assert_eq!(send(&mut Remoting::connect(node.address()), "BenchmarkTest", "0", "body").code, 0);
    assert_eq!(node.run(&["topic", "list", "-o", "json"]).json()["topics"].as_array().map(Vec::len), Some(1));
}

/// Tools measure by sending to topics that are named like the cluster and like a broker.
#[test]
fn topics_that_tools_send_to_are_made_when_they_do() {
    let flags = ["--shards", "2", "--cluster", "shop", "--no-auto-create-topics"];
    let (_directory, node) = node(&flags);
    for (shard, address) in node.addresses.iter().enumerate() {
        let mut client = Remoting::connect(address);
        let broker = format!("n-{shard}");
        for (name, queues) in [(&*broker, 1), ("shop", 16)] {
            let own = (queues, queues, 7);
            let expected = if name == "shop" { vec![own, own] } else { vec![own] };
            assert_eq!(numbers(&mut client, name), expected, "{name}");
            // Who asks for all topics that are listed is told that they have nothing.
            let stats = client.ask(TOPIC_STATS, &[("topic", name)], b"");
            assert_eq!(text(&stats).matches("maxOffset").count() as u64, queues, "{name}");
            let last = (queues - 1).to_string();
            assert_eq!(send(&mut client, name, &last, "body").field("queueId"), last, "{name}");
            assert_eq!(numbers(&mut client, name), expected, "{name}, when it is there");
            assert_eq!(send(&mut client, name, &queues.to_string(), "body").code, 29, "{name}");
        }
        assert_eq!(send(&mut client, "unknown", "0", "body").code, 17);
    }
    assert_eq!(stored(&node, "shop").len(), 2);
    assert_eq!(stored(&node, "n-1").len(), 1);
}
