//! Counters as tools and dashboards ask for them, over RocketMQ's own protocol.

use super::remoting::{Answer, Remoting, heartbeat, json as body_of, node};
use super::remoting_sends::send;
use crate::support::node::wait_for;

const PULL: i32 = 11;
const COMMIT: i32 = 15;
const COUNTERS: i32 = 28;
const HEART_BEAT: i32 = 34;
const PROGRESS: i32 = 208;
const COUNTED: i32 = 315;

fn text(answer: &Answer) -> &str {
    assert_eq!(answer.code, 0, "{answer:?}");
    std::str::from_utf8(answer.body()).expect("text")
}

fn commit(client: &mut Remoting, group: &str, queue: &str, offset: &str) {
    let fields =
        [("consumerGroup", group), ("topic", "orders"), ("queueId", queue), ("commitOffset", offset)];
    assert_eq!(client.ask(COMMIT, &fields, b"").code, 0);
}

#[test]
fn what_was_stored_and_given_is_counted() {
    let (_directory, node) = node(&["--cluster", "shop"]);
    node.run_well(&["topic", "create", "orders", "--queues", "1"]);
    let mut client = Remoting::connect(node.address());
    for _ in 0..3 {
        assert_eq!(send(&mut client, "orders", "0", "body").code, 0);
    }
    let counted = |client: &mut Remoting, name: &str, key: &str| {
        let answer = client.ask(COUNTED, &[("statsName", name), ("statsKey", key)], b"");
        if answer.code == 0 {
            Some(body_of(&answer)["statsDay"]["sum"].as_u64().expect("a number"))
        } else {
            None
        }
    };
    assert_eq!(counted(&mut client, "TOPIC_PUT_NUMS", "orders"), Some(3));
    assert_eq!(counted(&mut client, "GROUP_GET_NUMS", "orders@g"), None, "nobody was given anything");
    assert_eq!(client.ask(HEART_BEAT, &[], &heartbeat("a@1", "g")).code, 0);
    let pull = [
        ("consumerGroup", "g"),
        ("topic", "orders"),
        ("queueId", "0"),
        ("queueOffset", "1"),
        ("maxMsgNums", "32"),
        ("sysFlag", "4"),
        ("commitOffset", "0"),
        ("suspendTimeoutMillis", "0"),
        ("subscription", "*"),
        ("subVersion", "0"),
    ];
    let pulled = client.ask(PULL, &pull, b"");
    assert_eq!(counted(&mut client, "GROUP_GET_NUMS", "orders@g"), Some(2));
    assert_eq!(counted(&mut client, "GROUP_GET_SIZE", "orders@g"), Some(pulled.body().len() as u64));
    commit(&mut client, "g", "0", "3");
    let progress = client.ask(PROGRESS, &[("consumerGroup", "g"), ("topic", "orders")], b"");
    assert!(text(&progress).starts_with("{\"consumeTps\":0.0333,"), "{}", text(&progress));
    for (name, key) in
        [("TOPIC_PUT_SIZE", "orders"), ("GROUP_GET_NUMS", "orders"), ("BROKER_PUT_NUMS", "other")]
    {
        assert_eq!(counted(&mut client, name, key), None, "{name} {key}");
    }
    wait_for("the broker counts once a second", || {
        let mut tool = Remoting::connect(node.address());
        counted(&mut tool, "BROKER_PUT_NUMS", "shop") == Some(3)
            && counted(&mut tool, "BROKER_GET_NUMS", "shop") == Some(2)
    });
    // The exporter ends without them, and takes the last one apart.
    let table = body_of(&client.ask(COUNTERS, &[], b""))["table"].clone();
    for name in [
        "dispatchMaxBuffer",
        "putMessageEntireTimeMax",
        "getMessageEntireTimeMax",
        "putMessageDistributeTime",
    ] {
        assert!(table[name].is_string(), "{name}");
    }
    let capacity = table["commitLogDirCapacity"].as_str().expect("text");
    let words: Vec<_> = capacity.split(' ').collect();
    assert!(words[2].parse::<f64>().is_ok() && words[6].parse::<f64>().is_ok(), "{capacity}");
    assert!(words[3].ends_with(',') && words[7].ends_with('.'), "{capacity}");
}
