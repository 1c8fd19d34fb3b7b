//! Instances: name spaces that are made by command and used over HTTP.

use serde_json::{Value, json};

use crate::support::directory::test_directory;
use crate::support::http_connection::{Connection, PUBLISH, publish};
use crate::support::node::{Node, Setup};

fn publish_to(connection: &mut Connection, instance: &str, body: &str) -> u16 {
    let request = publish(&PUBLISH.replace("abc", body));
    connection.send(request.replace("/topics/orders/messages", &format!("/topics/t/messages?ns={instance}")));
    connection.next().expect("an answer").status
}

/// The bodies of the messages that a group of the instance gets.
fn receive(connection: &mut Connection, instance: &str) -> Vec<String> {
    let query = format!("ns={instance}&consumer=g&numOfMessages=16&waitseconds=5");
    connection.send(format!("GET /topics/t/messages?{query} HTTP/1.1\r\nHost: h\r\n\r\n"));
    let answer = connection.next().expect("an answer");
    let bodies = answer.body.split("<MessageBody>").skip(1);
    bodies.map(|rest| rest.split('<').next().expect("a body").to_owned()).collect()
}

/// Every instance with the number of its topics and groups.
fn listed(node: &Node) -> Value {
    node.run(&["instance", "list", "-o", "json"]).json()["instances"].clone()
}

fn entry(instance: &str, topics: u32, groups: u32) -> Value {
    json!({"instance": instance, "topic_count": topics, "group_count": groups})
}

fn keeps_names_apart(shards: &str) {
    let directory = test_directory();
    let setup = Setup::new(directory.path()).with(&["--http", "127.0.0.1:0", "--shards", shards]);
    let node = setup.start();
    let mut http = Connection::open(&node);
    let ours = "/topics/t/messages?ns=I";
    // Nothing belongs to an instance that does not exist, however it is named.
    for create in [&["topic", "create", "I%t"][..], &["topic", "create", "t", "--instance", "I"]] {
        let refusal = node.run(create).badly(1);
        assert!(refusal.contains("`turbopump instance create I`"), "{refusal}");
    }
    http.send(publish(PUBLISH).replace("/topics/orders/messages", ours));
    let answer = http.expect(404, "TopicNotExist");
    assert!(answer.body.contains("`turbopump instance create I`"), "{}", answer.body);
    assert_eq!(listed(&node), json!([entry("", 0, 0)]));
    node.run_well(&["instance", "create", "I"]);
    assert!(node.run(&["instance", "create", "I"]).badly(1).contains("exists already"));
    http.send(publish(PUBLISH).replace("/topics/orders/messages", ours));
    let answer = http.expect(404, "TopicNotExist");
    assert!(answer.body.contains("`turbopump topic create I%t`"), "{}", answer.body);
    // The same name in two instances names two topics.
    let created = node.run(&["topic", "create", "t", "--instance", "I", "-o", "json"]).json();
    assert_eq!(created["topic"], "I%t");
    node.run_well(&["topic", "create", "t"]);
    assert_eq!((publish_to(&mut http, "I", "theirs"), publish_to(&mut http, "", "ours")), (201, 201));
    assert_eq!(receive(&mut http, "I"), ["theirs"]);
    assert_eq!(receive(&mut http, ""), ["ours"]);
    assert_eq!(listed(&node), json!([entry("", 1, 1), entry("I", 1, 1)]));
    let text = node.run_well(&["instance", "list"]);
    assert!(text.contains("(default)"), "{text}");
    // The flag stands for the prefix.
    let topics = node.run(&["topic", "list", "--instance", "I", "-o", "json"]).json();
    assert_eq!(
        (&topics["topics"][0]["topic"], topics["topics"].as_array().map(Vec::len)),
        (&json!("I%t"), Some(1))
    );
    assert!(node.run_well(&["topic", "describe", "t", "--instance", "I"]).starts_with("topic I%t,"));
    node.run_well(&["topic", "alter", "t", "--instance", "I", "--queues", "8"]);
    assert_eq!(node.run(&["topic", "describe", "I%t", "-o", "json"]).json()["queue_count"], 8);
    let groups = node.run(&["group", "list", "--instance", "I", "-o", "json"]).json();
    assert_eq!(groups["groups"], json!(["I%g"]));
    let group = node.run(&["group", "describe", "g", "--instance", "I", "-o", "json"]).json();
    assert_eq!((&group["group"], &group["queues"][0]["topic"]), (&json!("I%g"), &json!("I%t")));
    node.run_well(&["group", "reset", "g", "t", "--yes", "--instance", "I", "--to", "first"]);
    assert_eq!(receive(&mut http, "I"), ["theirs"], "again, from the first on");
    // It stays as long as it has topics, over any death.
    node.run_well(&["instance", "create", "empty"]);
    assert!(node.run(&["instance", "delete", "I"]).badly(1).contains("has 1 topics"));
    node.kill();
    let node = setup.start();
    assert_eq!(listed(&node), json!([entry("", 1, 1), entry("I", 1, 1), entry("empty", 0, 0)]));
    node.run_well(&["topic", "delete", "t", "--yes", "--instance", "I"]);
    node.run_well(&["instance", "delete", "I"]);
    assert!(node.run(&["instance", "delete", "I"]).badly(1).contains("does not exist"));
    node.kill();
    let node = setup.start();
    assert_eq!(listed(&node), json!([entry("", 1, 1), entry("empty", 0, 0)]));
    let mut http = Connection::open(&node);
    assert_eq!(publish_to(&mut http, "I", "late"), 404);
}

#[test]
fn instances_keep_names_apart_on_one_shard() {
    keeps_names_apart("1");
}

#[test]
fn instances_keep_names_apart_on_four_shards() {
    keeps_names_apart("4");
}

/// As in directories that are older than instances: their topics are what makes them.
#[test]
fn an_instance_that_nobody_made_lives_by_its_topics() {
    let directory = test_directory();
    let flags = ["--http", "127.0.0.1:0", "--auto-create-topics", "2"];
    let node = Setup::new(directory.path()).with(&flags).start();
    node.run_well(&["topic", "create", "%DLQ%old%g"]);
    assert_eq!(listed(&node), json!([entry("", 0, 0), entry("old", 1, 0)]));
    node.run_well(&["topic", "create", "t", "--instance", "old"]);
    let mut http = Connection::open(&node);
    assert_eq!(publish_to(&mut http, "old", "x"), 201);
    assert!(node.run(&["instance", "delete", "old"]).badly(1).contains("has 2 topics"));
    // First use makes topics, but no instances.
    assert_eq!((publish_to(&mut http, "new", "x"), publish_to(&mut http, "", "x")), (404, 201));
    node.run_well(&["instance", "create", "new"]);
    assert_eq!(publish_to(&mut http, "new", "x"), 201);
    assert_eq!(listed(&node), json!([entry("", 1, 0), entry("new", 1, 0), entry("old", 2, 0)]));
}
