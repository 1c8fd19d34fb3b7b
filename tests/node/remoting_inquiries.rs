//! What tools have consumers asked, over RocketMQ's own protocol: whichever shard they ask, the client hears it over its connection.

use serde_json::json;
use turbopump::protocol::remoting::{Head, HeaderForm};

use super::remoting::{Answer, Remoting, heartbeat, json as body_of, node, request};
use super::remoting_pulls::records;
use super::remoting_sends::send;

const HEART_BEAT: i32 = 34;
const PLACES_OF_CLIENT: i32 = 221;
const PLACES: i32 = 223;
const CONDITION: i32 = 307;
const PROCESS: i32 = 309;

fn consumer(address: &str, id: &str, group: &str) -> Remoting {
    let mut client = Remoting::connect(address);
    assert_eq!(client.ask(HEART_BEAT, &[], &heartbeat(id, group)).code, 0);
    client
}

/// Asks by a tool what is asked of one client, which answers so.
fn ask(
    tool: &mut Remoting,
    (code, fields): (i32, &[(&str, &str)]),
    client: &mut Remoting,
    (answered, remark, body): (i32, Option<&str>, &[u8]),
) -> (Answer, Answer) {
    tool.send(&request(HeaderForm::Json, code, 7, fields, b""));
    let asked = client.asked();
    client.answer_with(&asked, answered, remark, body);
    (asked, tool.answer())
}

#[test]
fn a_consumer_says_how_it_is_whichever_broker_asks_it() {
    let (_directory, node) = node(&["--shards", "2"]);
    node.run_well(&["topic", "create", "orders", "--queues", "2"]);
    let mut client = consumer(&node.addresses[1], "c@1", "g");
    let fields = [("consumerGroup", "g"), ("clientId", "c@1"), ("jstackEnable", "true")];
    for address in &node.addresses {
        let mut tool = Remoting::connect(address);
        let said = (0, None, &b"{\"jstack\":\"main\"}"[..]);
        let (asked, answer) = ask(&mut tool, (CONDITION, &fields), &mut client, said);
        assert_eq!(asked.code, CONDITION);
        fields.iter().for_each(|(name, value)| assert_eq!(asked.field(name), *value));
        assert_eq!((answer.code, answer.body()), (0, said.2));
        let refused = (1, Some("no such group here"), &b""[..]);
        let (_, answer) = ask(&mut tool, (CONDITION, &fields), &mut client, refused);
        assert_eq!((answer.code, &*answer.remark), (1, "no such group here"));
    }
    let mut tool = Remoting::connect(&node.addresses[0]);
    for (group, id) in [("g", "nobody"), ("other", "c@1"), ("a b", "c@1")] {
        let answer = tool.ask(CONDITION, &[("consumerGroup", group), ("clientId", id)], b"");
        assert_eq!((answer.code, answer.remark), (1, format!("The Consumer <{group}> <{id}> not online")));
    }
    assert_eq!(tool.ask(CONDITION, &[("consumerGroup", "g")], b"").code, 1, "of nobody");
    // One that is too old for it hears nothing.
    let mut old = Remoting::connect(&node.addresses[0]);
    let mut beat = Vec::new();
    Head { code: HEART_BEAT, version: 61, ..Head::default() }.write(
        HeaderForm::Json,
        &heartbeat("old@1", "g"),
        &mut beat,
    );
    old.send(&beat);
    assert_eq!(old.answer().code, 0);
    let answer = tool.ask(CONDITION, &[("consumerGroup", "g"), ("clientId", "old@1")], b"");
    assert!(answer.code == 1 && answer.remark.contains("too low to finish"), "{answer:?}");
    // One that leaves before it has answered.
    tool.send(&request(HeaderForm::Json, CONDITION, 7, &fields, b""));
    client.asked();
    drop(client);
    assert_eq!(tool.answer().code, 1);
}

#[test]
fn a_consumer_processes_a_message_that_it_is_given() {
    let (_directory, node) = node(&["--shards", "2"]);
    node.run_well(&["topic", "create", "orders", "--queues", "2"]);
    let mut tool = Remoting::connect(&node.addresses[0]);
    let id = send(&mut tool, "orders", "0", "the body").field("msgId").to_owned();
    let mut client = consumer(&node.addresses[1], "c@1", "g");
    let fields = [("consumerGroup", "g"), ("clientId", "c@1"), ("msgId", &*id)];
    let result = (0, None, &b"{\"consumeResult\":\"CR_SUCCESS\"}"[..]);
    let (asked, answer) = ask(&mut tool, (PROCESS, &fields), &mut client, result);
    assert_eq!((asked.code, asked.field("brokerName"), asked.field("msgId")), (PROCESS, "n-0", &*id));
    let given = records(&asked);
    assert_eq!((given.len(), given[0].body), (1, &b"the body"[..]));
    assert_eq!(answer.body(), result.2);
    // What is nowhere, and what another broker has.
    for wrong in ["", "nowhere", "7F00000100002A9F00000000000F0000"] {
        let fields = [("consumerGroup", "g"), ("clientId", "c@1"), ("msgId", wrong)];
        let answer = tool.ask(PROCESS, &fields, b"");
        assert!(answer.code == 1 && answer.remark.contains("can not find message"), "{wrong}: {answer:?}");
    }
    let fields = [("consumerGroup", "g"), ("clientId", "nobody"), ("msgId", &*id)];
    assert_eq!(tool.ask(PROCESS, &fields, b"").remark, "The Consumer <g> <nobody> not online");
}

#[test]
fn consumers_say_where_they_are() {
    let (_directory, node) = node(&["--shards", "2"]);
    let mut clients: Vec<_> =
        ["a@1", "b@1"].iter().zip(&node.addresses).map(|(id, address)| consumer(address, id, "g")).collect();
    let mut tool = Remoting::connect(&node.addresses[1]);
    let place =
        |queue: u32| format!("{{\"brokerName\":\"n-0\",\"queueId\":{queue},\"topic\":\"orders\"}}:{queue}");
    let fields = [("topic", "orders"), ("group", "g")];
    tool.send(&request(HeaderForm::Json, PLACES, 7, &fields, b""));
    for (number, client) in clients.iter_mut().enumerate() {
        let asked = client.asked();
        assert_eq!(
            (asked.code, asked.field("topic"), asked.field("group")),
            (PLACES_OF_CLIENT, "orders", "g")
        );
        let table = format!("{{\"messageQueueTable\":{{{}}}}}", place(number as u32));
        client.answer_with(&asked, 0, None, table.as_bytes());
    }
    let expected = format!("{{\"consumerTable\":{{\"a@1\":{{{}}},\"b@1\":{{{}}}}}}}", place(0), place(1));
    assert_eq!(String::from_utf8_lossy(tool.answer().body()), expected);
    // Of one of them, which knows nothing.
    let one = [("topic", "orders"), ("group", "g"), ("clientAddr", "b@1")];
    let (_, answer) = ask(&mut tool, (PLACES, &one), &mut clients[1], (1, None, b""));
    assert_eq!(body_of(&answer), json!({ "consumerTable": {} }));
    let nobody = tool.ask(PLACES, &[("topic", "orders"), ("group", "other")], b"");
    assert_eq!((nobody.code, &*nobody.remark), (1, "No Any Consumer online in the consumer group: [other]"));
}
