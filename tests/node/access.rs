//! Access keys on the native port: who is believed, and who may do what.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use turbopump::api::{Request, Status};
use turbopump::client::{
    Client, ClientError, ConnectOptions, Connection, Credentials, Message, Producer, ProducerOptions,
    Timeouts,
};
use turbopump::protocol::native::{
    DecodedReply, ProofContext, Prove, RequestEncoder, decode_proved, decode_reply,
};
use turbopump::types::{Identity, Secret};
use turbopump::wire::frame;

use super::doors::check_left_out;
use crate::support::command::{self, BINARY, Outcome};
use crate::support::directory::test_directory;
use crate::support::node::{Node, PATIENCE, Setup, wait_for};

const KEYS: &str = r#"
[[keys]]
id = "root"
secret = "toor"
admin = true

[[keys]]
id = "shop"
secret = "hunter2"
publish = ["orders"]

[[keys]]
id = "billing"
secret = "hunter3"
consume = [{ topic = "orders", group = "billing" }]
"#;

fn write_keys(directory: &Path, keys: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = directory.join("keys.toml");
    let next = directory.join("keys.next");
    std::fs::write(&next, keys).expect("a directory of this test");
    std::fs::set_permissions(&next, std::fs::Permissions::from_mode(0o600)).expect("ours");
    std::fs::rename(&next, &path).expect("a directory of this test");
    path
}

fn setup(directory: &Path) -> Setup {
    let keys = write_keys(directory, KEYS);
    Setup::new(directory.join("data")).with(&[
        "--shards",
        "2",
        "--access-keys",
        keys.to_str().expect("UTF-8"),
    ])
}

/// A broker with a topic that the keys above name, and one that they do not.
fn start(directory: &Path) -> Node {
    let node = setup(directory).start();
    for topic in ["orders", "secrets"] {
        run(&node, "root", "toor", &["topic", "create", topic, "--queues", "2"]).well();
    }
    node
}

fn run(node: &Node, key: &str, secret: &str, arguments: &[&str]) -> Outcome {
    let key = ["--access-key", key, "--secret-key", secret];
    command::run(Some(node.address()), &[arguments, &key].concat(), None)
}

fn options(key: &str, secret: &str) -> ConnectOptions {
    let credentials = Credentials::new(key, secret.to_owned()).expect("a key");
    ConnectOptions { credentials: Some(credentials), ..ConnectOptions::default() }
}

fn connect(node: &Node, key: &str, secret: &str) -> Result<Client, ClientError> {
    Client::connect(node.address(), options(key, secret))
}

/// The status with which something was refused.
fn status<T>(outcome: Result<T, ClientError>) -> Status {
    match outcome.err().expect("it is refused") {
        ClientError::Refused(failure) => failure.status,
        other => panic!("not refused, but {other}"),
    }
}

/// Who may guess a key again and again does not fill the log, and is not forgotten in it either.
#[test]
fn proofs_that_fail_are_told_with_how_many_there_were() {
    let directory = test_directory();
    let node = start(directory.path());
    for _ in 0..3 {
        assert_eq!(status(connect(&node, "root", "guessed")), Status::Unauthenticated);
    }
    check_left_out(&node.stop().stderr, "did not prove the access key", "more access keys were not proved");
}

/// A connection byte by byte.
struct Raw {
    stream: TcpStream,
    identity: Identity,
    challenge: [u8; 32],
    received: Vec<u8>,
}

impl Raw {
    fn open(address: &str) -> Self {
        let mut stream = TcpStream::connect(address).expect("the broker listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a positive time");
        stream.write_all(&frame::proving_preface()).expect("it reads");
        let mut greeting = [0; 64];
        stream.read_exact(&mut greeting).expect("an introduction with a challenge");
        let (preface, rest) = greeting.split_first_chunk().expect("a preface");
        assert!(frame::has_challenge(preface), "{greeting:?}");
        let (identity, challenge) = rest.split_first_chunk().expect("an identity");
        let identity = frame::read_identity(identity);
        Self { stream, identity, challenge: challenge.try_into().expect("32 bytes"), received: Vec::new() }
    }

    fn proof(&self, key_id: &str, secret: &str) -> Prove {
        self.proof_for(self.identity, self.challenge, key_id, secret)
    }

    fn proof_for(&self, identity: Identity, challenge: [u8; 32], key_id: &str, secret: &str) -> Prove {
        let nonce = [7; 32];
        let context = ProofContext { identity, challenge: &challenge, nonce: &nonce, key_id };
        let proof = context.client_proof(&secret.parse::<Secret>().expect("any text"));
        Prove { key_id: key_id.to_owned(), nonce, proof }
    }

    fn send_proof(&mut self, prove: &Prove) {
        let mut bytes = Vec::new();
        RequestEncoder::new().encode_prove(&mut bytes, 1, prove).expect("it fits");
        self.stream.write_all(&bytes).expect("it reads");
    }

    fn send(&mut self, correlation: u64, request: &Request) {
        let mut bytes = Vec::new();
        RequestEncoder::new().encode(&mut bytes, correlation, request).expect("it fits");
        self.stream.write_all(&bytes).expect("it reads");
    }

    /// The next frame, whole; `None` at the end of the connection.
    fn frame(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(frame) = frame::cut(&self.received).expect("well formed") {
                let rest = self.received.split_off(frame.frame_bytes);
                return Some(std::mem::replace(&mut self.received, rest));
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(count) => self.received.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("the connection stays open: {error}"),
            }
        }
    }

    fn refusal(&mut self) -> turbopump::api::Failure {
        let bytes = self.frame().expect("an answer");
        let frame = frame::cut(&bytes).expect("well formed").expect("whole");
        match decode_reply(&frame).expect("well formed") {
            DecodedReply::Failed(failure) => failure,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// Whether the proof that was sent is believed; if not, the connection must end.
    fn is_believed(&mut self) -> bool {
        let bytes = self.frame().expect("an answer");
        let frame = frame::cut(&bytes).expect("well formed").expect("whole");
        match decode_proved(&frame).expect("well formed") {
            Ok(_) => true,
            Err(failure) => {
                assert_eq!(failure.status, Status::Unauthenticated, "{failure}");
                assert_eq!(self.frame(), None, "the connection goes on");
                false
            }
        }
    }
}

#[test]
fn a_key_may_what_its_rules_say_and_refusals_say_which_rule_is_missing() {
    let directory = test_directory();
    let node = start(directory.path());
    let shop = |arguments: &[&str]| run(&node, "shop", "hunter2", arguments);
    let billing = |arguments: &[&str]| run(&node, "billing", "hunter3", arguments);
    shop(&["message", "publish", "orders", "one"]).well();
    shop(&["message", "publish", "orders", "later", "--delay", "1h"]).well();
    shop(&["message", "publish", "orders", "half", "--transaction"]).well();
    let refused = shop(&["message", "publish", "secrets", "two"]).badly(1);
    assert!(refused.contains("`shop` may not publish to secrets"), "{refused}");
    assert!(refused.contains("publish = [\"secrets\"]"), "{refused}");
    let refused = billing(&["message", "publish", "orders", "two"]).badly(1);
    assert!(refused.contains("`billing` may not publish to orders"), "{refused}");

    let received = billing(&["message", "receive", "orders", "--group", "billing", "--ack"]).well();
    assert!(received.contains("one"), "{received}");
    let refused = billing(&["message", "receive", "orders", "--group", "other"]).badly(1);
    assert!(refused.contains("may not consume orders as group other"), "{refused}");
    let refused = shop(&["message", "receive", "orders", "--group", "billing"]).badly(1);
    assert!(refused.contains("may not consume orders as group billing"), "{refused}");
    let read = billing(&["consume", "orders"]).well();
    assert_eq!(read, "one\n");
    billing(&["consume", "orders", "--group", "billing"]).well();
    billing(&["consume", "secrets"]).badly(1);
    shop(&["consume", "orders"]).badly(1);
    let refused = billing(&["consume", "orders", "--group", "other"]).badly(1);
    assert!(refused.contains("group other"), "{refused}");

    let admin: [&[&str]; 9] = [
        &["topic", "create", "more"],
        &["topic", "alter", "orders", "--queues", "4"],
        &["topic", "delete", "orders", "--yes"],
        &["topic", "list"],
        &["group", "list"],
        &["group", "describe", "billing"],
        &["group", "reset", "billing", "orders", "--yes", "--to", "first"],
        &["instance", "list"],
        &["status"],
    ];
    for command in admin {
        let refused = shop(command).badly(1);
        assert!(refused.contains("admin = true"), "{command:?}: {refused}");
    }
    let topics = run(&node, "root", "toor", &["topic", "list"]).well();
    assert!(topics.contains("orders") && topics.contains("secrets") && !topics.contains("more"), "{topics}");
    let status = run(&node, "root", "toor", &["status", "-o", "json"]).well();
    assert!(status.contains("requests_denied"), "{status}");
    let describe = ["topic", "describe", "orders", "-o", "json"];
    let described = run(&node, "root", "toor", &describe).well();
    assert!(described.contains("\"groups\":["), "{described}");
    assert!(!shop(&describe).well().contains("groups"), "who else consumes is not a customer's business");
}

#[test]
fn a_program_with_a_key_works_over_both_drivers() {
    let directory = test_directory();
    let node = start(directory.path());
    let client = connect(&node, "shop", "hunter2").expect("it is believed");
    let mut producer = Producer::new(client, "orders".parse().expect("a name"), ProducerOptions::default())
        .expect("it may publish");
    for number in 0..100 {
        let body = format!("{number}");
        producer.send(&Message { body: body.as_bytes(), ..Message::default() }).expect("it is taken");
    }
    producer.flush().expect("they are stored");
    assert_eq!(producer.acknowledged_prefix(), 100);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        use turbopump::client::tokio_driver::AsyncClient;
        let mut client = AsyncClient::connect(node.address(), options("billing", "hunter3"))
            .await
            .expect("it is believed");
        client.topic(&"orders".parse().expect("a name")).await.expect("it may read it");
        assert_eq!(status(client.topic(&"secrets".parse().expect("a name")).await), Status::PermissionDenied);
        let refused = AsyncClient::connect(node.address(), options("billing", "hunter2")).await;
        assert_eq!(status(refused), Status::Unauthenticated);
        let refused = AsyncClient::connect(node.address(), Timeouts::default()).await;
        assert_eq!(status(refused), Status::Unauthenticated);
    });
}

#[test]
fn without_a_key_with_a_wrong_secret_or_an_unknown_key_nothing_is_done() {
    let directory = test_directory();
    let node = start(directory.path());
    let nobody = command::run(Some(node.address()), &["topic", "list"], None).badly(1);
    assert!(nobody.contains("TURBOPUMP_ACCESS_KEY"), "{nobody}");
    let wrong = run(&node, "root", "wrong-secret", &["topic", "list"]).badly(1);
    let unknown = run(&node, "nobody", "wrong-secret", &["topic", "list"]).badly(1);
    assert_eq!(
        wrong.replace("root", "KEY"),
        unknown.replace("nobody", "KEY"),
        "they tell which keys there are"
    );
    assert!(!wrong.contains("wrong-secret"), "{wrong}");
    assert!(connect(&node, "root", "toor").expect("believed").list_topics().is_ok());
    let ended = node.stop();
    assert!(ended.stderr.contains("did not prove the access key `root`"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("wrong-secret") && !ended.stderr.contains("toor"), "{}", ended.stderr);
}

#[test]
fn a_proof_counts_once_for_one_connection_and_one_broker() {
    let directory = test_directory();
    let node = start(directory.path());
    let mut first = Raw::open(node.address());
    let proof = first.proof("root", "toor");
    first.send_proof(&proof);
    assert!(first.is_believed());
    // What was listened to, on a connection of its own, and a second time on the same.
    let mut second = Raw::open(node.address());
    assert_ne!(second.challenge, first.challenge);
    second.send_proof(&proof);
    assert!(!second.is_believed(), "a proof was replayed");
    first.send_proof(&proof);
    assert_eq!(first.refusal().status, Status::InvalidArgument);
    assert_eq!(first.frame(), None, "the connection goes on");
    // Made for another shard, and for another node that was given this one's challenge.
    let mut other = Raw::open(&node.addresses[1]);
    assert_ne!(other.identity, second.identity);
    let for_shard = other.proof_for(second.identity, other.challenge, "root", "toor");
    other.send_proof(&for_shard);
    assert!(!other.is_believed(), "a proof for another shard");
    let mut other = Raw::open(node.address());
    let elsewhere = Identity { node: turbopump::types::NodeId(!other.identity.node.0), ..other.identity };
    let for_node = other.proof_for(elsewhere, other.challenge, "root", "toor");
    other.send_proof(&for_node);
    assert!(!other.is_believed(), "a proof for another node");
    let mut other = Raw::open(node.address());
    let mut renamed = other.proof("shop", "hunter2");
    renamed.key_id = "root".to_owned();
    other.send_proof(&renamed);
    assert!(!other.is_believed(), "one key's proof as another key");
}

#[test]
fn requests_before_the_proof_are_refused_and_those_after_it_are_not() {
    let directory = test_directory();
    let node = start(directory.path());
    let mut raw = Raw::open(node.address());
    // All of it at once: what stands before the proof must not profit from it.
    raw.send(5, &Request::ListTopics);
    let proof = raw.proof("root", "toor");
    raw.send_proof(&proof);
    raw.send(6, &Request::ListTopics);
    let refused = raw.refusal();
    assert_eq!(refused.status, Status::Unauthenticated, "{refused}");
    assert!(raw.is_believed());
    let answer = raw.frame().expect("an answer");
    let frame = frame::cut(&answer).expect("well formed").expect("whole");
    assert!(matches!(decode_reply(&frame), Ok(DecodedReply::Other(_))), "{frame:?}");
}

/// A client of a release without keys says nothing of them.
#[test]
fn an_older_client_is_told_what_is_missing() {
    let directory = test_directory();
    let node = start(directory.path());
    for preface in [frame::preface(), frame::asking_preface()] {
        let mut stream = TcpStream::connect(node.address()).expect("the broker listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a positive time");
        stream.write_all(&preface).expect("it reads");
        let mut greeting = vec![0; if frame::has_identity(&preface) { 32 } else { 8 }];
        stream.read_exact(&mut greeting).expect("the greeting of before");
        assert_eq!(greeting[..8], preface, "no challenge for those who do not ask");
        let (identity, challenge) = (Raw::open(node.address()).identity, [0; 32]);
        let mut raw = Raw { stream, identity, challenge, received: Vec::new() };
        raw.send(1, &Request::Route(None));
        let refused = raw.refusal();
        assert_eq!(refused.status, Status::Unauthenticated);
        assert!(refused.message.contains("access key"), "{refused}");
        // Without a challenge there is nothing to be proved, whatever is sent.
        let proof = raw.proof("root", "toor");
        raw.send_proof(&proof);
        assert_eq!(raw.refusal().status, Status::InvalidArgument);
        assert_eq!(raw.frame(), None);
    }
}

#[test]
fn a_client_with_a_key_works_with_a_broker_that_has_none() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    run(&node, "shop", "hunter2", &["topic", "create", "orders"]).well();
    connect(&node, "shop", "hunter2").expect("it is let in").list_topics().expect("everybody may");
}

#[test]
fn whoever_proves_nothing_neither_stays_nor_gets_memory() {
    let directory = test_directory();
    let node = start(directory.path());
    let mut large = Raw::open(node.address());
    // A frame of a megabyte is announced; its bytes never come.
    let mut head = Vec::new();
    head.extend_from_slice(&(1_u32 << 20).to_le_bytes());
    head.extend_from_slice(&[0; 12]);
    large.stream.write_all(&head).expect("it reads");
    assert_eq!(large.refusal().status, Status::Unauthenticated);
    assert_eq!(large.frame(), None);
    let mut silent = Raw::open(node.address());
    let begun = Instant::now();
    assert_eq!(silent.frame(), None, "it stays");
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(5) && took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn guessing_is_stopped_and_nobody_elsewhere_is() {
    let directory = test_directory();
    let node = start(directory.path());
    let mut barred = None;
    for attempt in 0..40 {
        let mut raw = Raw::open(node.address());
        let proof = raw.proof("root", &format!("guess {attempt}"));
        raw.send_proof(&proof);
        let refused = raw.refusal();
        assert_eq!(raw.frame(), None, "a second attempt on one connection");
        if refused.status == Status::Busy {
            barred = Some((attempt, refused.message));
            break;
        }
    }
    let (attempt, message) = barred.expect("forty guesses are let through");
    assert!(attempt >= 30, "only {attempt} failures are allowed");
    assert!(message.contains("try again in"), "{message}");
    // The other shard has not been tried, and time heals.
    Connection::connect(&node.addresses[1], options("root", "toor")).expect("it is believed there");
    wait_for("the right secret is believed again", || connect(&node, "root", "toor").is_ok());
}

#[test]
fn sessions_follow_the_file_of_keys() {
    let directory = test_directory();
    let node = start(directory.path());
    let mut shop = connect(&node, "shop", "hunter2").expect("it is believed");
    let mut billing = Connection::connect(node.address(), options("billing", "hunter3")).expect("believed");
    let secrets = "secrets".parse().expect("a name");
    assert_eq!(status(shop.describe_topic(&secrets)), Status::PermissionDenied);
    // A rule more, a key less, and a broken file changes nothing.
    let (before, _) = KEYS.split_once("[[keys]]\nid = \"billing\"").expect("it is there");
    write_keys(directory.path(), &before.replace("[\"orders\"]", "[\"orders\", \"secrets\"]"));
    let deadline = Instant::now() + PATIENCE;
    while shop.describe_topic(&secrets).is_err() {
        assert!(Instant::now() < deadline, "the new rule is not seen");
        std::thread::sleep(Duration::from_millis(20));
    }
    let refused = billing.call(&Request::Route(None)).expect_err("the key is gone");
    assert!(refused.to_string().contains("`billing` was removed"), "{refused}");
    let again = Connection::connect(node.address(), options("billing", "hunter3"));
    assert_eq!(status(again), Status::Unauthenticated);
    let begun = Instant::now();
    while !matches!(billing.call(&Request::Route(None)), Err(ClientError::Disconnected { .. })) {
        assert!(begun.elapsed() < Duration::from_secs(30), "the connection stays for ever");
        std::thread::sleep(Duration::from_millis(100));
    }
    write_keys(directory.path(), "[[keys]");
    std::thread::sleep(Duration::from_secs(2));
    shop.describe_topic(&secrets).expect("the keys from before");
    // Another secret is another holder.
    write_keys(directory.path(), &KEYS.replace("hunter2", "hunter4"));
    let mut last = Ok(());
    let deadline = Instant::now() + PATIENCE;
    while last.is_ok() {
        assert!(Instant::now() < deadline, "the new secret is not seen");
        last = shop.describe_topic(&"orders".parse().expect("a name")).map(drop);
    }
    assert_eq!(status(last), Status::Unauthenticated);
}

#[test]
fn a_file_without_a_key_is_told_when_it_is_read_and_at_a_start() {
    let directory = test_directory();
    let node = start(directory.path());
    let mut root = connect(&node, "root", "toor").expect("it is believed");
    write_keys(directory.path(), "# none yet\n");
    wait_for("the loss of all keys is not told", || node.told().contains("keys.toml names no access key"));
    assert_eq!(status(root.list_topics()), Status::Unauthenticated);
    node.stop();
    let setup = setup(directory.path());
    write_keys(directory.path(), "");
    let node = setup.start();
    assert!(
        node.banner.contains("WARNING") && node.banner.contains("names no access key"),
        "{}",
        node.banner
    );
}

/// A wait that began before must not hand out what comes after.
#[test]
fn a_wait_of_a_key_that_is_removed_ends_without_a_message() {
    let directory = test_directory();
    let node = start(directory.path());
    let address = node.address().to_owned();
    let waiting = std::thread::spawn(move || {
        let arguments = ["message", "receive", "orders", "--group", "billing", "--wait", "25s"];
        let key = ["--access-key", "billing", "--secret-key", "hunter3"];
        command::run(Some(&address), &[&arguments[..], &key].concat(), None)
    });
    std::thread::sleep(Duration::from_secs(1));
    let begun = Instant::now();
    let (without, _) = KEYS.split_once("[[keys]]\nid = \"billing\"").expect("it is there");
    write_keys(directory.path(), without);
    let outcome = waiting.join().expect("it only runs a command");
    assert!(begun.elapsed() < Duration::from_secs(15), "it waits on: {outcome:?}");
    assert!(!String::from_utf8_lossy(&outcome.stdout).contains("one"), "{outcome:?}");
}

#[test]
fn the_secret_may_stand_in_the_environment_or_a_file_and_is_never_shown() {
    let directory = test_directory();
    let node = start(directory.path());
    let secret = directory.path().join("secret");
    std::fs::write(&secret, "toor\n").expect("a directory of this test");
    let command = |variables: &[(&str, &str)], arguments: &[&str]| {
        let mut command = Command::new(BINARY);
        command.args(arguments).env("TURBOPUMP_SERVER", node.address());
        command.envs(variables.iter().copied());
        let output = command.output().expect("the binary under test can be run");
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.code(), text)
    };
    let key = ("TURBOPUMP_ACCESS_KEY", "root");
    let list = ["topic", "list"];
    assert_eq!(command(&[key, ("TURBOPUMP_SECRET_KEY", "toor")], &list).0, Some(0));
    let file = secret.to_str().expect("UTF-8");
    assert_eq!(command(&[key], &["topic", "list", "--secret-key-file", file]).0, Some(0));
    let wins =
        command(&[key, ("TURBOPUMP_SECRET_KEY", "wrong")], &["topic", "list", "--secret-key-file", file]);
    assert_eq!(wins.0, Some(0), "{}", wins.1);
    let (code, text) = command(&[key], &list);
    assert!(code == Some(2) && text.contains("TURBOPUMP_SECRET_KEY"), "{text}");
    let (code, text) = command(&[("TURBOPUMP_SECRET_KEY", "4711")], &list);
    assert!(code == Some(2) && text.contains("--access-key") && !text.contains("4711"), "{text}");
    for arguments in
        [&["topic", "list", "--help"][..], &["bench", "produce", "--help"], &["topic", "list", "-x"]]
    {
        let (_, text) = command(&[key, ("TURBOPUMP_SECRET_KEY", "4711")], arguments);
        assert!(!text.contains("4711"), "{text}");
    }
    let (_, text) = command(&[key, ("TURBOPUMP_SECRET_KEY", "4711")], &list);
    assert!(!text.contains("4711"), "{text}");
}

#[test]
fn bench_proves_its_key() {
    let directory = test_directory();
    let node = start(directory.path());
    let bench = ["bench", "produce", "bench", "--duration", "1s", "--warmup", "0"];
    run(&node, "root", "toor", &bench).well();
    let refused = run(&node, "root", "wrong", &bench).badly(1);
    assert!(refused.contains("`root`"), "{refused}");
}

/// The format is where people look for it: in the help, in the document and in the error.
#[test]
fn the_format_of_the_keys_file_is_told() {
    let help = command::run(None, &["serve", "--help"], None).well();
    assert!(help.contains("[[keys]]") && help.contains("consume = [{ topic ="), "{help}");
    let document = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/access.md"));
    let document = document.expect("it is there");
    let (_, rest) = document.split_once("```toml\n").expect("an example");
    let (example, _) = rest.split_once("```").expect("its end");
    turbopump::access::AccessKeys::parse(example).expect("the example is a file of keys");
    let directory = test_directory();
    let broken = setup(directory.path());
    write_keys(directory.path(), "shop = 1");
    let ended = broken.try_start().err().expect("the file is wrong");
    assert!(ended.stderr.contains("keys = [{ id = ") && ended.stderr.contains("line 1"), "{}", ended.stderr);
}

#[test]
fn a_client_that_tasks_share_proves_its_key_over_all_its_connections() {
    use turbopump::client::asynchronous;
    let directory = test_directory();
    let node = start(directory.path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let shop = asynchronous::Client::connect_with(node.address(), options("shop", "hunter2"));
        let shop = shop.await.expect("a good key");
        let orders = shop.producer("orders").await.expect("it may publish there");
        let receipt = orders.send(asynchronous::Message::new("three apples")).await.expect("stored");
        assert!(shop.producer("secrets").await.is_err(), "it may not publish there");
        let billing = asynchronous::Client::connect_with(node.address(), options("billing", "hunter3"));
        let mut messages = billing.await.expect("a good key").subscribe("billing", &["orders"]).await;
        let message = messages.as_mut().expect("it may").next().await.expect("no end").expect("a message");
        assert_eq!(message.id(), Some(receipt.id));
        assert!(asynchronous::Client::connect(node.address()).await.is_err(), "no key");
    });
}
