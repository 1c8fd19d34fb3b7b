//! SQL92 expressions over RocketMQ's own protocol: what they let through, what is refused, and whom a message calls.

use std::io::Write;
use std::time::{Duration, Instant};

use turbopump::limits;
use turbopump::protocol::remoting::HeaderForm;

use super::remoting::{Answer, Remoting, node, request};
use super::remoting_pulls::{FOUND, NOTHING, PASSED, PULL, offsets, pull, pull_fields, records};
use super::remoting_sends::fields as send_fields;
use crate::support::command;

const SEND: i32 = 310;
const HEART_BEAT: i32 = 34;
const CHECK: i32 = 46;

/// A pull with an expression instead of tags.
fn sql<'a>(expression: &'a str, changed: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let own = [("subscription", expression), ("expressionType", "SQL92")];
    pull_fields(&[&own[..], changed].concat())
}

fn bodies(answer: &Answer) -> Vec<String> {
    records(answer).iter().map(|record| String::from_utf8_lossy(record.body).into_owned()).collect()
}

/// Sends a message with these properties to the first queue of `orders`.
fn send(client: &mut Remoting, properties: &[(&str, &str)], body: &str) {
    let properties: String =
        properties.iter().map(|(name, value)| format!("{name}\u{1}{value}\u{2}")).collect();
    assert_eq!(client.ask(SEND, &send_fields("orders", "0", &properties), body.as_bytes()).code, 0);
}

/// What a client subscribes to, in the words of a heartbeat, and of the question that comes before one.
fn subscription(expression: &str, kind: &str, version: u32) -> String {
    let expression = serde_json::Value::from(expression);
    format!(
        r#"{{"topic":"orders","subString":{expression},"expressionType":"{kind}","subVersion":{version},"tagsSet":[],"codeSet":[]}}"#
    )
}

fn heartbeat(client: &mut Remoting, group: &str, subscription: &str) {
    let said = format!(
        r#"{{"clientID":"c","consumerDataSet":[{{"groupName":"{group}","consumeType":"CONSUME_PASSIVELY","messageModel":
        "CLUSTERING","subscriptionDataSet":[{subscription}]}}],"producerDataSet":[]}}"#
    );
    assert_eq!(client.ask(HEART_BEAT, &[], said.as_bytes()).code, 0);
}

#[test]
fn expressions_choose_by_properties_keys_and_tags() {
    let (_directory, node) = node(&[]);
    let mut client = Remoting::connect(node.address());
    for number in 0..6 {
        let number = number.to_string();
        let tag = if number.as_str() < "3" { "a" } else { "b" };
        send(&mut client, &[("n", &number), ("TAGS", tag), ("KEYS", &format!("k{number} all"))], &number);
    }
    for (expression, expected) in [
        ("n > 2", &["3", "4", "5"][..]),
        ("n BETWEEN 1 AND 3", &["1", "2", "3"]),
        ("TAGS = 'a' AND n <> '0'", &["1", "2"]),
        ("TAGS IN ('b', 'c') AND KEYS CONTAINS 'k4'", &["4"]),
        ("KEYS STARTSWITH 'k5' OR n = 0", &["0", "5"]),
        ("nowhere IS NULL AND UNIQ_KEY IS NOT NULL AND NOT (n > 0)", &["0"]),
        ("TRUE", &["0", "1", "2", "3", "4", "5"]),
    ] {
        let answer = client.ask(PULL, &sql(expression, &[]), b"");
        assert_eq!(
            (answer.code, bodies(&answer)),
            (FOUND, expected.iter().map(|body| body.to_string()).collect())
        );
        assert_eq!(offsets(&answer), [6, 0, 6], "{expression}");
    }
    for expression in ["n > 5", "TAGS = 'c' AND n > 0", "n = 'x' AND n > 1", "n > 1 AND n = 'x' OR n > 99"] {
        let answer = client.ask(PULL, &sql(expression, &[]), b"");
        assert_eq!((answer.code, offsets(&answer)), (PASSED, [6, 0, 6]), "{expression}");
    }
    // As many as were asked for, and no more are passed over.
    let answer = client.ask(PULL, &sql("n > 1", &[("maxMsgNums", "2")]), b"");
    assert_eq!((bodies(&answer), offsets(&answer)[0]), (vec!["2".to_owned(), "3".to_owned()], 4));
}

/// A connection's pulls were once all one turn, however much they evaluated, and nobody else had the core for half a second.
#[test]
fn pulls_that_evaluate_much_take_turns_with_others() {
    const MESSAGES: i32 = 1_000;
    const PULLS: i32 = 400;
    /// A few pulls, in a build for tests; without turns it is half a second.
    const TURN_MAX: Duration = Duration::from_millis(150);
    let (_directory, node) = node(&["--shards", "1"]);
    let (mut busy, mut other) = (Remoting::connect(node.address()), Remoting::connect(node.address()));
    send(&mut other, &[("n", "0")], "first");
    let fields = send_fields("orders", "0", "n\u{1}0\u{2}");
    let sends = (1..MESSAGES).flat_map(|number| request(HeaderForm::Json, SEND, number, &fields, b"more"));
    busy.send(&sends.collect::<Vec<_>>());
    (1..MESSAGES).for_each(|_| assert_eq!(busy.answer().code, 0));
    let costly: Vec<_> = (0..250).map(|number| format!("n = {number}.5")).collect();
    let costly = costly.join(" OR ");
    let fields = sql(&costly, &[]);
    let pulls = (0..PULLS).flat_map(|number| request(HeaderForm::Json, PULL, number, &fields, b""));
    let pulls: Vec<_> = pulls.collect();
    let turns = || (node.counter("turns_long"), Duration::from_nanos(node.counter("turns_long_ns")));
    let before = turns();
    let mut stream = busy.stream().try_clone().expect("a descriptor");
    std::thread::scope(|scope| {
        scope.spawn(move || stream.write_all(&pulls).expect("the broker reads"));
        (0..PULLS).for_each(|_| assert_eq!(busy.answer().code, PASSED));
    });
    // Counted in the core's own time, so that what else the machine does has no part in it.
    let (count, time) = (turns().0 - before.0, turns().1 - before.1);
    let mean = time / u32::try_from(count.max(1)).expect("a few");
    assert!(mean < TURN_MAX, "{count} long turns of {mean:?}");
    assert_eq!(pull(&mut other, &[("queueOffset", "0"), ("maxMsgNums", "1")]).code, FOUND);
}

#[test]
fn what_is_no_expression_is_refused_with_its_place() {
    let (_directory, node) = node(&[]);
    let mut client = Remoting::connect(node.address());
    send(&mut client, &[], "one");
    let long = format!("n = '{}'", "x".repeat(limits::EXPRESSION_BYTES_MAX));
    let deep = format!("{}TRUE{}", "(".repeat(100_000), ")".repeat(100_000));
    for (expression, words) in [
        ("n >", "at character 4: a property or a value is expected, not the end"),
        ("", "at character 1: a property or a value is expected"),
        ("n > 1 xyz", "at character 7: AND, OR or the end is expected, not `xyz`"),
        (&long, "more than"),
        (&deep, "more than"),
        (&deep[100_000 - 80..100_000 + 84], "nested deeper than"),
    ] {
        let refused = client.ask(PULL, &sql(expression, &[]), b"");
        assert_eq!(refused.code, 23, "{refused:?}");
        assert!(refused.remark.contains("parse the consumer's subscription failed"), "{refused:?}");
        assert!(refused.remark.contains(words), "{refused:?}");
    }
    let refused = pull(&mut client, &[("expressionType", "JS")]);
    assert_eq!(refused.code, 1, "{refused:?}");
    // Before it consumes, a client asks.
    let mut check = |subscription: &str| {
        let asked = format!(r#"{{"clientId":"c","group":"g","subscriptionData":{subscription}}}"#);
        client.ask(CHECK, &[], asked.as_bytes())
    };
    for (expression, kind, code) in [
        ("n > 1", "SQL92", 0),
        ("a || b", "TAG", 0),
        ("n >", "SQL92", 23),
        ("", "SQL92", 23),
        ("n > 1", "JS", 23),
    ] {
        let answer = check(&subscription(expression, kind, 1));
        assert_eq!(answer.code, code, "{expression}: {answer:?}");
    }
    assert!(check(&subscription("n >", "SQL92", 1)).remark.contains("at character 4"));
    for (body, code) in [(&b""[..], 0), (b"{}", 0), (b"{", 1)] {
        assert_eq!(client.ask(CHECK, &[], body).code, code);
    }
}

#[test]
fn the_expression_of_a_group_counts_for_its_pulls() {
    let (_directory, node) = node(&[]);
    let mut client = Remoting::connect(node.address());
    for number in 0..4 {
        send(&mut client, &[("n", &number.to_string())], &number.to_string());
    }
    heartbeat(&mut client, "g", &subscription("n > 1", "SQL92", 5));
    let of_group = [("sysFlag", "0"), ("subVersion", "5")];
    let answer = pull(&mut client, &of_group);
    assert_eq!((answer.code, bodies(&answer)), (FOUND, vec!["2".to_owned(), "3".to_owned()]));
    assert_eq!(pull(&mut client, &[("sysFlag", "0"), ("subVersion", "6")]).code, 25);
    heartbeat(&mut client, "g", &subscription("n < 1", "SQL92", 6));
    assert_eq!(bodies(&pull(&mut client, &of_group)), ["0"]);
    // A heartbeat is not where it is refused, so that the client's other groups go on.
    heartbeat(&mut client, "g", &subscription("n <", "SQL92", 7));
    let refused = pull(&mut client, &of_group);
    assert_eq!(refused.code, 27, "{refused:?}");
    assert!(refused.remark.contains("Your expression may be wrong"), "{refused:?}");
    assert!(refused.remark.contains("at character 4"), "{refused:?}");
    let described = node.run_well(&["group", "describe", "g", "-o", "json"]);
    assert!(described.contains("n <"), "{described}");
}

#[test]
fn a_pull_that_waits_goes_on_waiting_until_what_it_wants_has_come() {
    let (_directory, node) = node(&[]);
    let mut client = Remoting::connect(node.address());
    let mut producer = Remoting::connect(node.address());
    send(&mut producer, &[("n", "9")], "first");
    let waits = |opaque, expression, changed: &[(&'static str, &'static str)]| {
        let own = [("sysFlag", "6"), ("queueOffset", "1")];
        request(HeaderForm::Json, PULL, opaque, &sql(expression, &[&own[..], changed].concat()), b"")
    };
    client.send(&waits(1, "n > 5", &[]));
    client.send(&waits(2, "TAGS = 'red' AND n > 5", &[]));
    client.send(&waits(3, "n > 100", &[("suspendTimeoutMillis", "1000")]));
    let begun = Instant::now();
    for number in 0..20 {
        send(&mut producer, &[("n", "5"), ("TAGS", if number % 2 == 0 { "red" } else { "blue" })], "low");
    }
    // What was not wanted is passed over, and whoever is asked meanwhile answers.
    assert_eq!(client.ask(HEART_BEAT, &[], br#"{"clientID":"c"}"#).opaque, 7);
    let third = client.answer();
    assert!(begun.elapsed() >= Duration::from_millis(1000));
    assert_eq!((third.opaque, third.code, offsets(&third)), (3, NOTHING, [21, 0, 21]));
    send(&mut producer, &[("n", "6"), ("TAGS", "blue")], "high");
    let first = client.answer();
    assert_eq!((first.opaque, first.code, bodies(&first)), (1, FOUND, vec!["high".to_owned()]));
    assert_eq!(offsets(&first)[0], 22);
    send(&mut producer, &[("n", "7"), ("TAGS", "red")], "red and high");
    let second = client.answer();
    assert_eq!((second.opaque, second.code, bodies(&second)), (2, FOUND, vec!["red and high".to_owned()]));
    assert_eq!(offsets(&second)[0], 23);
}

#[test]
fn an_expression_that_takes_long_is_asked_of_some_messages_at_a_time() {
    let (_directory, node) = node(&[]);
    let mut client = Remoting::connect(node.address());
    node.run_well(&["topic", "create", "orders", "--queues", "1"]);
    let lines: String = (0..20_000).map(|number| format!("{number}\n")).collect();
    let produced = command::run(Some(node.address()), &["produce", "orders"], Some(lines.as_bytes()));
    assert_eq!(produced.code, Some(0), "{}", produced.stderr);
    send(&mut client, &[("n", "1")], "the one");
    let expression = vec!["n = 2"; limits::EXPRESSION_PARTS_MAX / 3 - 1].join(" OR ") + " OR n = 1";
    let (mut next, mut pulls) = (0, 0);
    let found = loop {
        let offset = next.to_string();
        let answer = client.ask(PULL, &sql(&expression, &[("queueOffset", &offset)]), b"");
        let [went_on, ..] = offsets(&answer);
        assert!(went_on > next, "every pull gets on");
        (next, pulls) = (went_on, pulls + 1);
        match answer.code {
            FOUND => break bodies(&answer),
            code => assert_eq!(code, PASSED),
        }
    };
    assert_eq!((found, next), (vec!["the one".to_owned()], 20_001));
    assert!(pulls > 20, "{pulls}");
}

#[test]
fn the_command_line_prints_what_an_expression_is_true_of() {
    let (_directory, node) = node(&[]);
    let mut client = Remoting::connect(node.address());
    for number in 0..6 {
        send(&mut client, &[("n", &number.to_string()), ("TAGS", "a")], &format!("body {number}"));
    }
    let consume = |more: &[&str]| node.run_well(&[&["consume", "orders", "--filter-sql"][..], more].concat());
    assert_eq!(consume(&["n > 3 AND TAGS = 'a'"]), "body 4\nbody 5\n");
    assert_eq!(consume(&["n > 3", "--count", "1"]), "body 4\n");
    // What is passed over is committed as well: the group does not want it.
    assert_eq!(consume(&["n < 2", "--group", "g"]), "body 0\nbody 1\n");
    assert_eq!(consume(&["TRUE", "--group", "g"]), "");
    // The same for those who receive: what is passed over is passed over for the group.
    let receive = |more: &[&str]| {
        node.run(
            &[&["message", "receive", "orders", "--group", "r", "--count", "9", "-o", "json"][..], more]
                .concat(),
        )
    };
    let received = receive(&["--filter-sql", "n BETWEEN 2 AND 3", "--ack"]);
    let text = |outcome: &command::Outcome| String::from_utf8_lossy(&outcome.stdout).into_owned();
    let lines = text(&received);
    assert_eq!((received.code, lines.lines().count()), (Some(0), 2), "{lines}{}", received.stderr);
    assert!(lines.contains("body 2") && lines.contains("body 3"), "{lines}");
    let described = node.run_well(&["group", "describe", "r", "-o", "json"]);
    assert!(described.contains("n BETWEEN 2 AND 3"), "{described}");
    assert_eq!(text(&receive(&["--filter-sql", "n = 4"])), "", "it was passed over");
    send(&mut client, &[("n", "4")], "another");
    assert!(text(&receive(&["--filter-sql", "n = 4", "--wait", "10s"])).contains("another"));
    assert_eq!(receive(&["--filter-sql", "n", "--filter", "a"]).code, Some(2), "one or the other");
    let refused = node.run(&["consume", "orders", "--filter-sql", "n >"]);
    assert_eq!(refused.code, Some(2));
    assert!(
        refused.stderr.contains("at character 4: a property or a value is expected"),
        "{}",
        refused.stderr
    );
}
