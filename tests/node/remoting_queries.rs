//! Look-ups over RocketMQ's own protocol: by key, by the id that the producer gave, and by place, each among what one shard has.

use turbopump::types::OffsetMessageId;

use super::remoting::{Answer, Remoting, node};
use super::remoting_pulls::records;
use super::remoting_sends::fields as send_fields;

const SEND: i32 = 310;
const QUERY: i32 = 12;
const VIEW: i32 = 33;
const UNIQUE: &str = "7F00000100000000000000000000A001";

fn query(client: &mut Remoting, changed: &[(&str, &str)]) -> Answer {
    let mut fields = vec![
        ("topic", "orders"),
        ("key", "all"),
        ("maxNum", "32"),
        ("beginTimestamp", "0"),
        ("endTimestamp", "9223372036854775807"),
    ];
    for (name, value) in changed {
        match fields.iter_mut().find(|(known, _)| known == name) {
            Some(field) => field.1 = value,
            None => fields.push((name, value)),
        }
    }
    client.ask(QUERY, &fields, b"")
}

fn bodies(answer: &Answer) -> Vec<String> {
    records(answer).iter().map(|record| String::from_utf8_lossy(record.body).into_owned()).collect()
}

/// Sends a message to the first queue of a shard, and returns the id of its place.
fn send(client: &mut Remoting, topic: &str, properties: &[(&str, &str)], body: &str) -> OffsetMessageId {
    let properties: String =
        properties.iter().map(|(name, value)| format!("{name}\u{1}{value}\u{2}")).collect();
    let answer = client.ask(SEND, &send_fields(topic, "0", &properties), body.as_bytes());
    assert_eq!(answer.code, 0, "{answer:?}");
    OffsetMessageId::parse(answer.field("msgId")).expect("an id")
}

#[test]
fn messages_are_found_by_keys_and_by_the_ids_of_their_producers() {
    let (_directory, node) = node(&[]);
    let mut client = Remoting::connect(node.address());
    for number in 0..5 {
        send(
            &mut client,
            "orders",
            &[("KEYS", &format!("k{number} all")), ("color", "red")],
            &number.to_string(),
        );
    }
    send(&mut client, "orders", &[("UNIQ_KEY", UNIQUE)], "named");
    send(&mut client, "others", &[("KEYS", "all")], "elsewhere");
    let all = query(&mut client, &[]);
    assert_eq!((all.code, bodies(&all)), (0, ["0", "1", "2", "3", "4"].map(str::to_owned).to_vec()));
    let newest = records(&all)[4].clone();
    assert_eq!(all.field("indexLastUpdatePhyoffset"), newest.physical_offset.to_string());
    assert_eq!(all.field("indexLastUpdateTimestamp"), newest.store_time.to_string());
    let properties = String::from_utf8_lossy(newest.properties).into_owned();
    assert!(properties.contains("KEYS\u{1}k4 all\u{2}") && properties.contains("color\u{1}red\u{2}"));
    assert_eq!((newest.queue, newest.queue_offset, newest.born_time), (0, 4, 1_700_000_000_000));
    // The newest ones, the oldest of them first.
    assert_eq!(bodies(&query(&mut client, &[("maxNum", "2")])), ["3", "4"]);
    assert_eq!(bodies(&query(&mut client, &[("key", "k3")])), ["3"]);
    assert_eq!(bodies(&query(&mut client, &[("key", UNIQUE)])), ["named"]);
    let flagged = [("key", UNIQUE), ("_UNIQUE_KEY_QUERY", "true"), ("maxNum", "0")];
    assert_eq!(bodies(&query(&mut client, &flagged)), ["named"]);
    let now = newest.store_time.to_string();
    let before = (newest.store_time - 60_000).to_string();
    assert_eq!(
        bodies(&query(&mut client, &[("key", "k4"), ("beginTimestamp", &now), ("endTimestamp", &now)])),
        ["4"]
    );
    for changed in [
        &[("key", "nowhere")][..],
        &[("key", "k1 all")],
        &[("key", "")],
        &[("key", "k1"), ("maxNum", "0")],
        &[("topic", "nowhere")],
        &[("topic", "")],
        &[("endTimestamp", &before)],
        &[("beginTimestamp", "9223372036854775807")],
    ] {
        let answer = query(&mut client, changed);
        assert_eq!(answer.code, 22, "{changed:?}: {answer:?}");
        assert!(answer.remark.contains("can not find message, maybe time range not correct"), "{answer:?}");
    }
    for (changed, code) in
        [(("maxNum", "-1"), 1), (("maxNum", "x"), 1), (("beginTimestamp", ""), 1), (("indexType", "T"), 3)]
    {
        assert_eq!(query(&mut client, &[changed]).code, code, "{changed:?}");
    }
}

#[test]
fn a_shard_gives_what_it_has_itself() {
    let (_directory, node) = node(&["--shards", "3"]);
    node.run_well(&["topic", "create", "orders", "--queues", "6"]);
    let mut clients: Vec<_> = node.addresses.iter().map(|address| Remoting::connect(address)).collect();
    let mut ids = Vec::new();
    for (shard, client) in clients.iter_mut().enumerate() {
        ids.push(send(client, "orders", &[("KEYS", "all")], &format!("of {shard}")));
    }
    for (shard, client) in clients.iter_mut().enumerate() {
        let found = query(client, &[]);
        assert_eq!(bodies(&found), [format!("of {shard}")]);
        let record = records(&found)[0].clone();
        assert_eq!(record.store_host, node.addresses[shard].parse().expect("an address"));
        assert_eq!(record.physical_offset, ids[shard].physical_offset);
        let offset = ids[shard].physical_offset.to_string();
        let viewed = client.ask(VIEW, &[("offset", &offset)], b"");
        assert_eq!((viewed.code, viewed.body()), (0, found.body()));
    }
}

#[test]
fn a_place_without_a_message_is_told() {
    let (_directory, node) = node(&[]);
    let mut client = Remoting::connect(node.address());
    let id = send(&mut client, "orders", &[], "one");
    assert_eq!(bodies(&client.ask(VIEW, &[("offset", &id.physical_offset.to_string())], b"")), ["one"]);
    for offset in [id.physical_offset + 1, id.physical_offset + (1 << 16), -1, 0, i64::MAX] {
        let answer = client.ask(VIEW, &[("offset", &offset.to_string())], b"");
        assert_eq!(answer.code, 1, "{offset}: {answer:?}");
        assert_eq!(answer.remark, format!("can not find message by the offset, {offset}"));
    }
    for fields in [&[][..], &[("offset", "x")]] {
        let answer = client.ask(VIEW, fields, b"");
        assert_eq!((answer.code, answer.remark.as_str()), (1, "the custom field <offset> is null"));
    }
}
