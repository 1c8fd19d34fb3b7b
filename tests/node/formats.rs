//! Files of every released format, kept in `tests/data`: this release finds in them what was stored.
//!
//! A directory `format-N` holds a data directory whose files end before the zeros at their end, and `files.txt`, which
//! says how long each file was. Its README has the command that made it.

use std::fs;
use std::path::{Path, PathBuf};

use turbopump::client::Start;
use turbopump::types::{QueueKey, QueueNumber, QueueOffset};

use crate::support::directory::test_directory;
use crate::support::http_connection::{Connection, PUBLISH, publish};
use crate::support::load::{produce, read, topic};
use crate::support::node::{Node, Setup};

/// Where the ignored test below writes.
const TARGET: &str = "TURBOPUMP_FORMAT_DATA";
const SIZES: &str = "files.txt";
/// What the description says of a directory of the present format.
const FORMAT_LINE: &str = "format = 3";
const QUEUES: u32 = 2;
const MESSAGES: u64 = 10;

fn data(format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/format-{format}"))
}

/// The data directory as it was. The zeros are written, since direct reads of a file with holes fail.
fn restore(from: &Path, to: &Path) {
    let sizes = fs::read_to_string(from.join(SIZES)).expect("it lists the files");
    for line in sizes.lines() {
        let (name, bytes) = line.split_once(' ').expect("a name and a size");
        let file = to.join(name);
        fs::create_dir_all(file.parent().expect("it is in a directory")).expect("a directory of this test");
        let mut content = fs::read(from.join(name)).expect("a file that is listed");
        content.resize(bytes.parse().expect("a size"), 0);
        fs::write(&file, content).expect("a directory of this test");
    }
}

/// The contrary of [`restore`].
fn keep(from: &Path, to: &Path) {
    let mut sizes = String::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(from.join(&directory)).expect("a directory of the broker");
        let mut entries: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
        entries.sort();
        for name in entries {
            let name = directory.join(name);
            if from.join(&name).is_dir() {
                directories.push(name);
                continue;
            }
            let mut bytes = fs::read(from.join(&name)).expect("a file of the broker");
            sizes += &format!("{} {}\n", name.display(), bytes.len());
            bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
            fs::create_dir_all(to.join(&directory)).expect("a directory to write to");
            fs::write(to.join(&name), bytes).expect("a directory to write to");
        }
    }
    fs::write(to.join(SIZES), sizes).expect("a directory to write to");
}

fn body(queue: u32, number: u64) -> String {
    format!("queue {queue}, number {number}")
}

fn fill(node: &Node, queue: u32, range: std::ops::Range<u64>) {
    let bodies: Vec<_> = range.map(|number| body(queue, number)).collect();
    produce(node, "orders", queue, bodies.iter().map(|body| body.as_bytes()));
}

/// Receives from the topic of one queue: bodies, handles and how often each was delivered.
fn receive(connection: &mut Connection, count: u32) -> Vec<[String; 3]> {
    let query = format!("consumer=readers&ns=I&numOfMessages={count}&waitseconds=5");
    connection.send(format!("GET /topics/one/messages?{query} HTTP/1.1\r\nHost: h\r\n\r\n"));
    let answer = connection.next().expect("an answer");
    let messages = answer.body.split("<Message>").skip(1);
    let field = |message: &str, name: &str| {
        let rest = message.split(&format!("<{name}>")).nth(1).expect("a field");
        rest.split('<').next().expect("its end").to_owned()
    };
    let fields = ["MessageBody", "ReceiptHandle", "ConsumedTimes"];
    messages.map(|message| fields.map(|name| field(message, name))).collect()
}

fn acknowledge(connection: &mut Connection, handle: &str) {
    let body = format!("<ReceiptHandles><ReceiptHandle>{handle}</ReceiptHandle></ReceiptHandles>");
    let head = "DELETE /topics/one/messages?consumer=readers&ns=I HTTP/1.1\r\nHost: h\r\n";
    connection.send(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()));
    assert_eq!(connection.next().expect("an answer").status, 204);
}

#[test]
#[ignore = "it makes the data of the present format, see the README there"]
fn write_the_data_of_this_format() {
    let target = std::env::var_os(TARGET).map(PathBuf::from).expect(TARGET);
    let directory = test_directory();
    let flags = ["--http", "127.0.0.1:0", "--shards", "2", "--lease", "1s"];
    let setup = Setup::new(directory.path()).with(&flags);
    let node = setup.start();
    node.run_well(&["topic", "create", "orders", "--queues", "2", "--retention", "none"]);
    node.run_well(&["instance", "create", "I"]);
    node.run_well(&["topic", "create", "one", "--instance", "I", "--queues", "1", "--retention", "none"]);
    (0..QUEUES).for_each(|queue| fill(&node, queue, 0..MESSAGES - 1));
    let mut client = node.client();
    let key =
        QueueKey { topic: client.topic(&topic("orders")).expect("it exists").id, queue: QueueNumber(1) };
    client.commit_offset(&"billing".parse().expect("a name"), key, QueueOffset(7)).expect("within the queue");
    let mut http = Connection::open(&node);
    for number in 0..4 {
        let request = publish(&PUBLISH.replace("abc", &body(0, number)));
        http.send(request.replace("/topics/orders/messages", "/topics/one/messages?ns=I"));
        assert_eq!(http.next().expect("an answer").status, 201);
    }
    let received = receive(&mut http, 3);
    assert_eq!(received.len(), 3);
    acknowledge(&mut http, &received[0][1]);
    // One part is in the snapshot of an orderly end, the other in the log of a death.
    assert!(node.stop().status.success());
    let node = setup.start();
    (0..QUEUES).for_each(|queue| fill(&node, queue, MESSAGES - 1..MESSAGES));
    node.kill();
    keep(directory.path(), &target);
}

#[test]
fn format_2_is_read_and_goes_on_as_the_present_one() {
    check_goes_on(2);
}

#[test]
fn format_3_is_read() {
    check_goes_on(3);
}

/// Starts on the data of a format, finds everything in it, and goes on.
fn check_goes_on(format: u32) {
    let directory = test_directory();
    restore(&data(format), directory.path());
    let node = Setup::new(directory.path()).with(&["--http", "127.0.0.1:0"]).start();
    for queue in 0..QUEUES {
        let messages = read(node.client(), "orders", Some(queue), Start::First);
        let found: Vec<_> = messages
            .iter()
            .map(|read| (read.offset, String::from_utf8_lossy(&read.body).into_owned()))
            .collect();
        let expected: Vec<_> = (0..MESSAGES).map(|number| (number, body(queue, number))).collect();
        assert_eq!(found, expected, "queue {queue}");
    }
    let mut client = node.client();
    let key =
        QueueKey { topic: client.topic(&topic("orders")).expect("it exists").id, queue: QueueNumber(1) };
    let committed = client.committed_offset(&"billing".parse().expect("a name"), key);
    assert_eq!(committed.expect("the broker answers"), Some(QueueOffset(7)));
    let instances = node.run(&["instance", "list", "-o", "json"]).json();
    assert_eq!(
        instances["instances"][1],
        serde_json::json!({"instance": "I", "topic_count": 1, "group_count": 1})
    );
    // Of three leased messages one was acknowledged; the leases of the others have ended since.
    let group = node.run(&["group", "describe", "readers", "--instance", "I", "-o", "json"]).json();
    let counts = ["lag", "leased", "waiting"].map(|name| group[name].as_u64().expect("a number"));
    assert_eq!(counts, [3, 0, 2]);
    let received = receive(&mut Connection::open(&node), 16);
    let found: Vec<_> = received.iter().map(|[body, _, times]| (body.clone(), times.as_str())).collect();
    assert_eq!(found, [(body(0, 1), "2"), (body(0, 2), "2"), (body(0, 3), "1")]);
    // And the broker goes on where it was.
    fill(&node, 0, MESSAGES..MESSAGES + 1);
    assert_eq!(read(node.client(), "orders", Some(0), Start::First).len() as u64, MESSAGES + 1);
    // Changes of topics and groups are counted from now on; what nobody has said before has its defaults.
    node.run_well(&["topic", "alter", "orders", "--retention", "1d"]);
    node.run_well(&["group", "alter", "I%readers", "--deliveries", "5"]);
    node.kill();
    let node = Setup::new(directory.path()).start();
    let described = std::fs::read_to_string(directory.path().join("turbopump.toml")).expect("a description");
    assert!(described.lines().any(|line| line == FORMAT_LINE), "{described}");
    assert_eq!(read(node.client(), "orders", Some(0), Start::First).len() as u64, MESSAGES + 1);
    let topic = node.run(&["topic", "describe", "orders", "-o", "json"]).json();
    assert_eq!(topic["retention_ms"], 86_400_000, "{topic}");
    let group = node.run(&["group", "describe", "readers", "--instance", "I", "-o", "json"]).json();
    assert_eq!(group["settings"]["deliveries_max"], 5, "{group}");
}
