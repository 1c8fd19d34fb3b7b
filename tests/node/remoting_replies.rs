//! Requests that clients send one another as messages, over RocketMQ's own protocol: a reply finds the client that waits for it.

use serde_json::json;
use turbopump::protocol::remoting::HeaderForm;

use super::remoting::{Answer, Remoting, node, queues, request};
use super::remoting_sends::{fields, stored};

const HEART_BEAT: i32 = 34;
const ROUTE: i32 = 105;
const REPLY: i32 = 325;
const PUSH: i32 = 326;
const TOPIC: &str = "DefaultCluster_REPLY_TOPIC";

/// A client that waits for replies.
fn requester(address: &str, id: &str) -> Remoting {
    let mut client = Remoting::connect(address);
    let said = json!({ "clientID": id, "producerDataSet": [{ "groupName": "askers" }] });
    assert_eq!(client.ask(HEART_BEAT, &[], said.to_string().as_bytes()).code, 0);
    client
}

/// Begins to send a reply to a client, with a number of its own.
fn reply(sender: &mut Remoting, client: &str, number: i32, body: &str) {
    let properties = format!(
        "MSG_TYPE\u{1}reply\u{2}CORRELATION_ID\u{1}c-{number}\u{2}REPLY_TO_CLIENT\u{1}{client}\u{2}KEYS\u{1}k\u{2}"
    );
    sender.send(&request(HeaderForm::Json, REPLY, number, &fields(TOPIC, "0", &properties), body.as_bytes()));
}

fn outcome(sender: &mut Remoting) -> (i32, i32, String) {
    let Answer { code, opaque, remark, .. } = sender.answer();
    (opaque, code, remark)
}

#[test]
fn a_reply_reaches_the_client_that_waits_for_it_over_whichever_shard() {
    let (_directory, node) = node(&["--shards", "3"]);
    for address in &node.addresses {
        let route = Remoting::connect(address).ask(ROUTE, &[("topic", TOPIC)], b"");
        assert_eq!(queues(&route).len(), 3, "{route:?}");
    }
    let mut waiting = requester(&node.addresses[2], "w@1");
    for (number, shard) in [(1, 0), (2, 1), (3, 2)] {
        let mut sender = Remoting::connect(&node.addresses[shard]);
        reply(&mut sender, "w@1", number, "the answer");
        let pushed = waiting.asked();
        assert_eq!((pushed.code, pushed.body()), (PUSH, &b"the answer"[..]));
        for (name, value) in [
            ("topic", TOPIC),
            ("producerGroup", "producers"),
            ("queueId", "0"),
            ("sysFlag", "0"),
            ("bornTimestamp", "1700000000000"),
            ("bornHost", &*sender.own_address().to_string()),
            ("storeHost", &*node.addresses[shard]),
        ] {
            assert_eq!(pushed.field(name), value, "{name}");
        }
        let properties = pushed.field("properties");
        for said in
            [&*format!("CORRELATION_ID\u{1}c-{number}\u{2}"), "KEYS\u{1}k\u{2}", "PUSH_REPLY_TIME\u{1}"]
        {
            assert!(properties.contains(said), "{properties}");
        }
        waiting.answer_to(&pushed, 0);
        let answer = sender.answer();
        assert_eq!((answer.code, answer.opaque, answer.field("queueId")), (0, number, "0"));
    }
    let listed = node.run_well(&["topic", "list"]);
    assert!(!listed.contains(TOPIC), "replies are not stored: {listed}");
}

#[test]
fn who_sends_a_reply_hears_what_became_of_it() {
    let (_directory, node) = node(&["--shards", "2"]);
    let mut sender = Remoting::connect(&node.addresses[0]);
    reply(&mut sender, "nobody", 1, "");
    let not_found = "push reply message fail, channel of <nobody> not found.";
    assert_eq!(outcome(&mut sender), (1, 1, not_found.to_owned()));
    let mut waiting = requester(&node.addresses[1], "w@1");
    reply(&mut sender, "w@1", 2, "refused");
    let pushed = waiting.asked();
    // Another client answers, which was not asked.
    requester(&node.addresses[1], "o@1").answer_to(&pushed, 0);
    waiting.answer_to(&pushed, 1);
    assert_eq!(outcome(&mut sender), (2, 1, "push reply message to w@1fail.".to_owned()));
    reply(&mut sender, "w@1", 3, "passed over");
    assert_eq!(waiting.asked().code, PUSH);
    assert_eq!(outcome(&mut sender), (3, 1, "push reply message to w@1fail.".to_owned()));
    // Many at once, answered in another order.
    (10..40).for_each(|number| reply(&mut sender, "w@1", number, &number.to_string()));
    let mut pushed: Vec<_> = (10..40).map(|_| waiting.asked()).collect();
    pushed.reverse();
    for asked in &pushed {
        let number: i32 = String::from_utf8_lossy(asked.body()).parse().expect("a number");
        waiting.answer_to(asked, number % 2);
    }
    let mut outcomes: Vec<_> = (10..40).map(|_| outcome(&mut sender)).collect();
    outcomes.sort_unstable();
    assert!(
        outcomes
            .iter()
            .map(|(number, code, _)| (*number, *code))
            .eq((10..40).map(|number| (number, number % 2)))
    );
    let send =
        |properties: &str, sender: &mut Remoting| sender.ask(REPLY, &fields(TOPIC, "0", properties), b"");
    let answer = send("MSG_TYPE\u{1}reply\u{2}", &mut sender);
    assert_eq!((answer.code, &*answer.remark), (1, "reply message properties[REPLY_TO_CLIENT] is null"));
    for wish in ["DELAY\u{1}1\u{2}", "TRAN_MSG\u{1}true\u{2}PGROUP\u{1}pg\u{2}"] {
        let answer = send(&format!("REPLY_TO_CLIENT\u{1}w@1\u{2}{wish}"), &mut sender);
        assert_eq!(answer.code, 13, "{answer:?}");
    }
    node.run_well(&["topic", "create", "orders"]);
    assert_eq!(stored(&node, "orders").len(), 0);
}
