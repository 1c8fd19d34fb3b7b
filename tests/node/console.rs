//! The console's calls: what they answer, who may make them, and what they refuse. `tests/console` has the page itself.

use std::io::{Read, Write};
use std::net::TcpStream;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use turbopump::client::{Consumer, ConsumerOptions};

use super::remoting::{Remoting, heartbeat};
use crate::support::directory::test_directory;
use crate::support::http_connection::{Answer, Connection};
use crate::support::load::topic;
use crate::support::node::{Node, PATIENCE, Setup, wait_for};

const COMMIT: i32 = 15;
const HEART_BEAT: i32 = 34;
const OURS: &str = "X-Turbopump-Console: 1\r\n";
const KEYS: &str = r#"
    [[keys]]
    id = "root"
    secret = "toor"
    admin = true
    [[keys]]
    id = "shop"
    secret = "hunter2"
    publish = ["orders"]
    consume = [{ topic = "orders", group = "shop-*" }]
"#;

/// A broker whose admin address is asked for.
struct Console {
    node: Node,
    _directory: tempfile::TempDir,
    /// Header lines of every request.
    head: String,
}

impl Console {
    fn start(flags: &[&str]) -> Self {
        let directory = test_directory();
        let setup = Setup::new(directory.path().join("data")).with(&["--admin", "127.0.0.1:0"]).with(flags);
        Self { node: setup.start(), _directory: directory, head: String::new() }
    }

    fn with_key(&self, key: &str) -> String {
        format!("Authorization: Basic {}\r\n", STANDARD.encode(key))
    }

    fn address(&self) -> &str {
        self.node.admin_address.as_ref().expect("it was asked for")
    }

    /// One request with these lines of a head, and a body.
    fn ask(&self, method: &str, path: &str, head: &str, body: &str) -> Answer {
        let stream = TcpStream::connect(self.address()).expect("the broker listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a positive time");
        let mut connection = Connection::over(stream);
        let host =
            if head.contains("Host: ") { String::new() } else { format!("Host: {}\r\n", self.address()) };
        let length = body.len();
        connection.send(format!(
            "{method} /{path} HTTP/1.1\r\n{host}{}{head}Content-Length: {length}\r\n\r\n{body}",
            self.head
        ));
        connection.next().expect("an answer")
    }

    /// The head of the answer to one `HEAD`, which has no body.
    fn head_of(&self, path: &str, head: &str) -> String {
        let mut stream = TcpStream::connect(self.address()).expect("the broker listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a positive time");
        let host = self.address();
        let request =
            format!("HEAD /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{}{head}\r\n", self.head);
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("a head, and the end");
        answer.to_lowercase()
    }

    fn get(&self, path: &str) -> Value {
        let answer = self.ask("GET", &format!("api/{path}"), "", "");
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
        serde_json::from_str(&answer.body).expect("JSON")
    }

    /// What a refused request is told.
    fn refused(&self, method: &str, path: &str, body: &Value) -> (u16, String) {
        let answer = self.ask(method, &format!("api/{path}"), OURS, &body.to_string());
        let said: Value =
            serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{path}: {}", answer.body));
        (answer.status, said["error"]["message"].as_str().expect("words").to_owned())
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let answer = self.ask("POST", &format!("api/{path}"), OURS, &body.to_string());
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        serde_json::from_str(&answer.body).expect("JSON")
    }
}

#[test]
fn the_page_is_in_the_program_and_loads_nothing_else() {
    let console = Console::start(&[]);
    let page = console.ask("GET", "", "Accept: text/html,*/*;q=0.8\r\n", "");
    assert_eq!(page.status, 200);
    assert!(page.head.contains("content-type: text/html") && page.head.contains("nosniff"), "{}", page.head);
    assert!(page.head.contains("script-src 'self'") && !page.head.contains("unsafe"), "{}", page.head);
    assert!(page.body.contains("<script type=\"module\" src=\"console.js?v="), "{}", page.body);
    let listed = console.ask("GET", "", "", "");
    assert!(listed.head.contains("content-type: text/plain"), "who has no browser is told what there is");
    for part in page.body.split('"').filter(|part| part.contains("?v=")) {
        let asset = console.ask("GET", part, "", "");
        assert_eq!(asset.status, 200, "{part}");
        assert!(asset.head.contains("immutable"), "{part}: {}", asset.head);
        assert!(asset.head.contains("\r\netag: \""), "{part}: {}", asset.head);
        assert_eq!(console.ask("GET", part, "If-None-Match: \"another\"\r\n", "").status, 200, "{part}");
        let same = console.ask("GET", part, "If-None-Match: *\r\n", "");
        assert_eq!((same.status, same.body.as_str()), (304, ""), "{part}");
    }
    let (name, _) = page.body.split("src=\"").nth(1).and_then(|rest| rest.split_once('"')).expect("a script");
    let small = console.head_of(name, "Accept-Encoding: gzip\r\n");
    assert!(small.contains("content-encoding: gzip") && small.contains("vary: "), "{}", small);
}

#[test]
fn a_group_is_shown_with_consumers_of_every_protocol() {
    for shards in ["1", "4"] {
        let console =
            Console::start(&["--shards", shards, "--http", "127.0.0.1:0", "--namesrv", "127.0.0.1:0"]);
        let node = &console.node;
        node.run_well(&["topic", "create", "orders", "--queues", "4"]);
        for body in ["one", "two", "three"] {
            node.run_well(&["message", "publish", "orders", body, "--tag", "fruit"]);
        }
        let members = (node.client(), "both".parse().expect("a name"), vec![topic("orders")]);
        let mut member = Consumer::subscribe(members.0, members.1, members.2, ConsumerOptions::default())
            .expect("the topic exists");
        member.poll(std::time::Duration::from_millis(10)).expect("the broker answers");
        let mut http = Connection::open(node);
        http.send("GET /topics/orders/messages?consumer=both&numOfMessages=16 HTTP/1.1\r\nHost: h\r\n\r\n");
        http.next().expect("an answer");
        let mut remoting = Remoting::connect(node.address());
        assert_eq!(remoting.ask(HEART_BEAT, &[], &heartbeat("a@1", "kitchen")).code, 0);
        // As a client of RocketMQ's does every few seconds: a list counts groups that have a place.
        let place =
            [("consumerGroup", "kitchen"), ("topic", "orders"), ("queueId", "0"), ("commitOffset", "0")];
        assert_eq!(remoting.ask(COMMIT, &place, b"").code, 0);
        let both = console.get("groups/both");
        let members = both["members"].as_array().expect("a list").iter();
        let protocols: Vec<_> = members.map(|member| &member["protocol"]).collect();
        assert_eq!(protocols, [&Value::Null, &json!("native")], "receivers are one of them: {both}");
        assert_eq!(both["receivers"][0]["protocol"], "http");
        assert_eq!(both["queues"].as_array().map(Vec::len), Some(4));
        let kitchen = console.get("groups/kitchen");
        assert_eq!(kitchen["readers"][0]["client"], "a@1");
        assert_eq!(kitchen["readers"][0]["subscriptions"][0]["topic"], "orders");
        let orders = console.get("topics/orders");
        let names = |value: &Value| -> Vec<_> {
            value
                .as_array()
                .expect("a list")
                .iter()
                .map(|of| of["group"].as_str().expect("a name").to_owned())
                .collect()
        };
        assert_eq!(names(&orders["groups"]), ["both", "kitchen"]);
        assert_eq!((&orders["permission"], &orders["kind"]), (&json!("read-write"), &json!("user")));
        assert_eq!(names(&console.get("groups?sort=lag&count=10")["rows"]).len(), 2);
        let found = console.get("topics?filter=RDE&sort=messages");
        assert_eq!(
            (&found["total"], &found["rows"][0]["messages"], &found["rows"][0]["groups"]),
            (&json!(1), &json!(3), &json!(2))
        );
        assert_eq!(console.get("topics?filter=nothing-has-this")["total"], 0);
        assert_eq!(console.get("topics?first=1000000&count=1")["rows"], json!([]));
    }
}

#[test]
fn messages_are_found_by_time_page_by_page_and_by_key_and_id() {
    let console = Console::start(&["--shards", "4"]);
    let node = &console.node;
    node.run_well(&["topic", "create", "orders", "--queues", "6"]);
    // A batch of many messages in one queue, and single ones in all.
    let lines: String = (0..300).map(|number| format!("line {number}\n")).collect();
    crate::support::command::run(Some(node.address()), &["produce", "orders"], Some(lines.as_bytes())).well();
    let published = node
        .run(&["message", "publish", "orders", "{\"a\":1}", "--key", "k1 k2", "--tag", "t", "-o", "json"])
        .json();
    let bodies = [&b"\xff\0binary"[..], &b""[..]];
    for body in bodies {
        crate::support::command::run(
            Some(node.address()),
            &["message", "publish", "orders", "-"],
            Some(body),
        )
        .well();
    }
    let (mut rows, mut path) = (Vec::new(), "messages?topic=orders&count=37".to_owned());
    loop {
        let page = console.get(&path);
        let messages = page["messages"].as_array().expect("a list");
        assert!(messages.len() <= 37);
        rows.extend(messages.iter().cloned());
        let Some(next) = page["next"].as_str() else {
            assert_eq!(page["complete"], true);
            break;
        };
        path = format!("messages?topic=orders&count=37&before={next}");
    }
    assert_eq!(rows.len(), 303);
    let times: Vec<_> = rows.iter().map(|row| row["store_time_ms"].as_u64().expect("a time")).collect();
    assert!(times.is_sorted_by(|one, other| one >= other), "the newest first");
    let places: std::collections::BTreeSet<_> =
        rows.iter().map(|row| (row["queue"].as_u64(), row["offset"].as_u64())).collect();
    assert_eq!(places.len(), 303, "each of them once");
    let (first, last) = (times.last().expect("some"), times.first().expect("some"));
    assert_eq!(
        console.get(&format!("messages?topic=orders&from={first}&to={last}&count=100"))["messages"]
            .as_array()
            .map(Vec::len),
        Some(100)
    );
    assert_eq!(console.get(&format!("messages?topic=orders&from={}", last + 1))["messages"], json!([]));
    assert_eq!(console.get(&format!("messages?topic=orders&to={}", first - 1))["messages"], json!([]));
    let of_queue = console.get("messages?topic=orders&queue=5&count=100");
    assert!(of_queue["messages"].as_array().expect("a list").iter().all(|row| row["queue"] == 5));
    // One message, by its key, its place and its ids.
    let by_key = console.get("messages?topic=orders&key=k2");
    let row = &by_key["messages"][0];
    assert_eq!(
        (&row["preview"], &row["tag"], &row["keys"], &by_key["complete"]),
        (&json!("{\"a\":1}"), &json!("t"), &json!("k1 k2"), &json!(true))
    );
    let (id, unique) = (row["id"].as_str().expect("an id"), row["unique_id"].as_str().expect("an id"));
    assert_eq!((&json!(id), &json!(unique)), (&published["id"], &published["unique_id"]));
    for path in [format!("messages?id={id}"), format!("messages?topic=orders&id={unique}")] {
        assert_eq!(&console.get(&path)["messages"][0], row, "{path}");
    }
    let place = |row: &Value| format!("message?topic=orders&queue={}&offset={}", row["queue"], row["offset"]);
    let message = console.get(&place(row));
    assert_eq!(message["body_base64"], STANDARD.encode("{\"a\":1}"));
    assert_eq!(message["properties"][0], json!(["UNIQ_KEY", unique]));
    let binary = rows.iter().find(|row| row["preview"].is_null()).expect("one that is no text");
    assert_eq!(console.get(&place(binary))["body_base64"], STANDARD.encode(bodies[0]));
}

#[test]
fn what_is_wrong_with_a_call_is_said() {
    let console = Console::start(&["--admin-writable"]);
    console.node.run_well(&["topic", "create", "orders", "--queues", "2"]);
    let none = json!({});
    for (path, status, part) in [
        ("topics/nothing", 404, "does not exist"),
        ("topics/no%20name", 400, "consists of"),
        ("topics?sort=beauty", 400, "not sorted by"),
        ("topics?kind=odd", 400, "`kind`"),
        ("topics?count=0", 400, "`count`"),
        ("topics?count=201", 400, "`count`"),
        ("topics?first=-1", 400, "`first`"),
        ("groups/nobody", 404, "nobody"),
        ("messages", 400, "`topic` is missing"),
        ("messages?topic=nothing", 404, "does not exist"),
        ("messages?topic=orders&count=101", 400, "`count`"),
        ("messages?topic=orders&from=soon", 400, "`from`"),
        ("messages?topic=orders&queue=2", 404, "has no queue 2"),
        ("messages?topic=orders&before=1-2-3", 400, "begin anew"),
        ("messages?topic=orders&key=k&before=x", 400, "begin anew"),
        ("messages?id=no-id", 400, "name its topic"),
        ("message?topic=orders&queue=0&offset=0", 416, "no message"),
        ("message?topic=orders&queue=0&offset=18446744073709551615", 416, "offset"),
        ("message?topic=orders&queue=2&offset=0", 404, "has no queue 2"),
        ("message?topic=orders&queue=0", 400, "`offset` is missing"),
        ("groups/g/reset?topic=orders&to=soon", 400, "`to`"),
        ("latency", 400, "`topic` is missing"),
        ("latency?topic=nothing", 404, "does not exist"),
        ("latency?topic=orders&ms=0", 400, "`ms`"),
        ("latency?topic=orders&ms=5001", 400, "`ms`"),
        ("slow?count=0", 400, "`count`"),
        ("slow?count=201", 400, "`count`"),
        ("slow?protocol=smoke", 400, "`protocol`"),
        ("slow?shard=9", 400, "not 9"),
        ("groups/g/reset?topic=orders&to=9&queue=9", 404, "has no queue 9"),
    ] {
        let (found, words) = console.refused("GET", path, &none);
        assert!(found == status && words.contains(part), "{path}: {found} {words}");
    }
    let published = "topics/orders/messages";
    for (body, part) in [
        (json!({ "body": "x", "queue": 2 }), "has no queue 2"),
        (json!({ "body": "x", "tag": "a||b" }), "tag"),
        (json!({ "body": "x", "keys": "a\nb" }), "key"),
        (json!({ "body": "x", "properties": [["KEYS", "k"]] }), "meaning of its own"),
        (json!({ "body": "x", "properties": [["a", "1"], ["a", "2"]] }), "twice"),
        (json!({ "body": "x", "properties": [["a", "\u{1}"]] }), "separate"),
        (json!({ "body": "x", "more": 1 }), "not the document"),
        (json!({ "body": 1 }), "not the document"),
        (json!(7), "not the document"),
    ] {
        let (status, words) = console.refused("POST", published, &body);
        assert!((400..500).contains(&status) && words.contains(part), "{body}: {status} {words}");
    }
    let answer = console.ask("POST", &format!("api/{published}"), OURS, &" ".repeat(1024 * 1024 + 1));
    assert_eq!(answer.status, 413, "{}", answer.body);
    assert_eq!(console.ask("GET", &format!("api/{published}"), "", "").status, 405);
    assert_eq!(console.ask("DELETE", "api/topics/orders", OURS, "").status, 405);
    assert_eq!(console.ask("GET", "api/nothing", "", "").status, 404);
    assert_eq!(console.get("topics/orders")["queues"][0]["end_offset"], 0, "nothing was stored");
}

/// How a page of another site could try it, while an operator has the console open.
#[test]
fn nothing_is_changed_for_a_page_of_another_site() {
    let console = Console::start(&["--admin-writable"]);
    console.node.run_well(&["topic", "create", "orders"]);
    let (path, body) = ("api/topics/orders/messages", r#"{"body":"x"}"#);
    let address = console.address();
    for head in [
        "Content-Type: text/plain\r\n".to_owned(),
        format!("{OURS}Origin: https://example.org\r\n"),
        format!("{OURS}Origin: null\r\n"),
        format!("{OURS}Origin: http://{address}\r\nSec-Fetch-Site: cross-site\r\n"),
    ] {
        assert_eq!(console.ask("POST", path, &head, body).status, 403, "{head}");
    }
    let rebound = console.ask(
        "POST",
        path,
        &format!("Host: example.org\r\n{OURS}Origin: http://example.org\r\n"),
        body,
    );
    assert_eq!(rebound.status, 421);
    assert_eq!(
        console.ask("GET", "api/topics", "Host: example.org\r\n", "").status,
        421,
        "nor is it shown anything"
    );
    let own = format!("{OURS}Origin: http://{address}\r\nSec-Fetch-Site: same-origin\r\n");
    assert_eq!(console.ask("POST", path, &own, body).status, 200);
}

#[test]
fn without_keys_the_console_only_shows_unless_the_operator_says_otherwise() {
    let console = Console::start(&[]);
    console.node.run_well(&["topic", "create", "orders"]);
    let session = console.get("session");
    assert_eq!((&session["may_change"], &session["key"]), (&json!(false), &Value::Null));
    assert!(session["read_only_because"].as_str().expect("words").contains("--admin-writable"), "{session}");
    for (path, body) in [
        ("topics/orders/messages", json!({ "body": "x" })),
        ("groups/g/reset", json!({ "topic": "orders", "to": "first" })),
        ("dead-letters/g/redrive", json!({ "queue": 0, "offsets": [0], "to": "orders" })),
    ] {
        let (status, words) = console.refused("POST", path, &body);
        assert!(status == 403 && words.contains("--admin-writable"), "{path}: {status} {words}");
    }
    let writable = Console::start(&["--admin-writable"]);
    assert_eq!(writable.get("session")["may_change"], true);
}

#[test]
fn with_keys_the_console_does_what_the_key_may() {
    let directory = test_directory();
    let keys = directory.path().join("keys");
    std::fs::write(&keys, KEYS).expect("a directory of this test");
    let mut console = Console::start(&["--access-keys", keys.to_str().expect("UTF-8")]);
    let stranger = console.ask("GET", "api/session", "", "");
    assert_eq!(stranger.status, 401);
    assert!(stranger.head.contains("www-authenticate: basic"), "a browser asks its user: {}", stranger.head);
    for path in ["topics", "groups", "node", "topics/orders", "messages?topic=orders", "dead-letters"]
        .into_iter()
        .chain(["latency?topic=orders", "slow"])
    {
        assert_eq!(console.ask("GET", &format!("api/{path}"), "", "").status, 401, "{path}");
    }
    console.head = console.with_key("root:wrong");
    assert_eq!(console.ask("GET", "api/session", "", "").status, 401);
    console.head = console.with_key("root:toor");
    let key = ["--access-key", "root", "--secret-key", "toor"];
    console.node.run_well(&[&["topic", "create", "orders"], &key[..]].concat());
    let session = console.get("session");
    assert_eq!((&session["may_change"], &session["key"]), (&json!(true), &json!("root")));
    let published = console.post("topics/orders/messages", &json!({ "body": "by root", "keys": "k" }));
    assert_eq!(published["offset"], 0);
    assert_eq!(console.get("topics")["total"], 1, "what the administrator has seen");
    console.head = console.with_key("shop:hunter2");
    assert_eq!(console.get("session")["may_change"], false);
    for path in ["topics", "groups", "groups/g", "node", "dead-letters", "latency?topic=orders", "slow"] {
        let (status, words) = console.refused("GET", path, &json!({}));
        assert!(status == 403 && words.contains("admin = true"), "{path}: {status} {words}");
    }
    // Its rules are those of native clients: it reads what it may consume, and publishes what it may.
    assert_eq!(console.get("messages?topic=orders")["messages"][0]["preview"], "by root");
    let (queue, offset) = (&published["queue"], &published["offset"]);
    let message = console.get(&format!("message?topic=orders&queue={queue}&offset={offset}"));
    assert_eq!(message["body_base64"], STANDARD.encode("by root"), "all of a message, as a list of them");
    assert_eq!(console.get("topics/orders")["consumers_left_out"], Value::Null);
    assert_eq!(console.post("topics/orders/messages", &json!({ "body": "by shop" }))["topic"], "orders");
    let (status, words) =
        console.refused("POST", "groups/g/reset", &json!({ "topic": "orders", "to": "first" }));
    assert!(status == 403 && words.contains("`shop` may not"), "{status} {words}");
}

#[test]
fn a_group_is_reset_to_what_the_preview_has_shown() {
    let console = Console::start(&["--shards", "2", "--admin-writable"]);
    let node = &console.node;
    node.run_well(&["topic", "create", "orders", "--queues", "2"]);
    for body in ["a", "b", "c"] {
        node.run_well(&["message", "publish", "orders", body, "--queue", "1"]);
    }
    let preview = console.get("groups/new/reset?topic=orders&to=last");
    assert_eq!(
        preview["queues"][1],
        json!({ "queue": 1, "committed": null, "to": 3, "first_offset": 0, "end_offset": 3 })
    );
    assert_eq!(console.get("groups")["total"], 0, "a preview changes nothing");
    console.post("groups/new/reset", &json!({ "topic": "orders", "to": "last" }));
    let place = || console.get("groups/new")["queues"][1]["committed"].clone();
    assert_eq!(place(), 3);
    assert_eq!(console.get("groups/new/reset?topic=orders&to=1&queue=1")["queues"][0]["committed"], 3);
    console.post("groups/new/reset", &json!({ "topic": "orders", "to": "1", "queue": 1 }));
    assert_eq!(place(), 1);
}

#[test]
fn dead_letters_are_listed_and_sent_once_more() {
    let flags =
        ["--admin-writable", "--shards", "2", "--http", "127.0.0.1:0", "--deliveries", "1", "--lease", "1s"];
    let console = Console::start(&flags);
    let node = &console.node;
    node.run_well(&["topic", "create", "orders"]);
    for body in ["one", "two"] {
        node.run_well(&["message", "publish", "orders", body, "--key", body]);
    }
    let mut http = Connection::open(node);
    let receive =
        "GET /topics/orders/messages?consumer=g&numOfMessages=16&waitseconds=1 HTTP/1.1\r\nHost: h\r\n\r\n";
    let listed = || console.get("dead-letters");
    let mut tries = 0;
    while listed()["rows"][0]["messages"] != 2 {
        http.send(receive);
        http.next().expect("an answer");
        tries += 1;
        assert!(tries < 60, "they become dead letters: {}", listed());
    }
    assert_eq!(listed()["rows"], json!([{ "group": "g", "topic": "%DLQ%g", "messages": 2 }]));
    let letters = || console.get("dead-letters/g")["messages"].as_array().expect("a list").clone();
    let first = letters()[0].clone();
    assert_eq!((&first["origin_topic"], &first["redriven"]), (&json!("orders"), &json!(false)));
    let wanted = json!({ "queue": first["queue"], "offsets": [first["offset"]], "to": "orders" });
    let report = console.post("dead-letters/g/redrive", &wanted);
    assert_eq!((&report["outcomes"][0]["outcome"], &report["stopped"]), (&json!("moved"), &Value::Null));
    assert_eq!(console.post("dead-letters/g/redrive", &wanted)["outcomes"][0]["outcome"], "before");
    wait_for("it is marked", || letters()[0]["redriven"] == true);
    assert_eq!(letters()[1]["redriven"], false);
    let none: [u64; 0] = [];
    for offsets in [json!(none), json!((0..65).collect::<Vec<_>>())] {
        let (status, words) = console.refused(
            "POST",
            "dead-letters/g/redrive",
            &json!({ "queue": 0, "offsets": offsets, "to": "orders" }),
        );
        assert!(status == 400 && words.contains("1 to 64"), "{words}");
    }
}

#[test]
fn where_the_time_goes_is_told_as_it_is_in_a_terminal() {
    let console = Console::start(&["--shards", "2", "--admin-writable"]);
    let node = &console.node;
    node.run_well(&["topic", "create", "orders", "--queues", "2"]);
    node.run_well(&["topic", "create", "quiet"]);
    let publish = || node.run_well(&["message", "publish", "orders", "abc"]);
    publish();
    std::thread::scope(|scope| {
        // Two who look at a topic take one place of two, so that a command finds the other.
        let looks = [0, 1].map(|_| scope.spawn(|| console.get("latency?topic=orders&ms=5000")));
        let other = ["latency", "quiet", "--for", "1s", "-o", "json"];
        let quiet = scope.spawn(move || node.run_well(&other));
        while looks.iter().any(|look| !look.is_finished()) {
            publish();
        }
        for look in looks {
            let latency = look.join().expect("no panic");
            assert_eq!(
                (&latency["topic"], &latency["measured_ns"]),
                (&json!("orders"), &json!(5_000_000_000_u64))
            );
            let kinds = latency["requests"].as_array().expect("a list");
            let sent =
                kinds.iter().find(|kind| kind["request"] == "produce").unwrap_or_else(|| panic!("{latency}"));
            assert_eq!(sent["protocol"], "native");
            let stages = sent["stages_ns"].as_array().expect("a list");
            let flush = stages.iter().find(|stage| stage["stage"] == "flush").expect("it is one");
            assert!(flush["max"].as_u64() > Some(0) && flush["mean"].as_u64() > Some(0), "{sent}");
            let curve = sent["curve"].as_array().expect("a list");
            assert_eq!(curve.last().expect("a point")["share"], 1.0);
        }
        assert!(quiet.join().expect("no panic").contains("\"requests\":[]"));
    });
    let slow = console.get("slow?topic=orders&protocol=native&count=3");
    let requests = slow["requests"].as_array().expect("a list");
    assert_eq!(requests.len(), 3, "{slow}");
    let times: Vec<_> =
        requests.iter().map(|request| request["total_ns"].as_u64().expect("a number")).collect();
    assert!(times.is_sorted_by(|one, next| one >= next), "{slow}");
    for request in requests {
        assert_eq!((&request["topic"], &request["protocol"]), (&json!("orders"), &json!("native")), "{slow}");
        assert!(request["stages_ns"]["flush"].is_u64() && request["meanwhile_ns"].is_object(), "{slow}");
    }
    let answer = console.ask("POST", "api/latency?topic=orders", OURS, "{}");
    assert_eq!(answer.status, 405, "{}", answer.body);
}
