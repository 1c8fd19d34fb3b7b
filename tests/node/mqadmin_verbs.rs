//! The commands that RocketMQ's mqadmin has, as ours, over RocketMQ's own protocol.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;

use serde_json::Value;

use super::remoting::{Remoting, node};
use super::remoting_sessions::reads;
use crate::support::command::{self, Outcome};
use crate::support::directory::test_directory;
use crate::support::node::{Node, Setup};

const HEART_BEAT: i32 = 34;
const COMMIT: i32 = 15;
const CLUSTER: &str = "DefaultCluster";

/// Runs a verb against the name server that this shard is as well.
fn run(node: &Node, line: &str) -> Outcome {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    words.extend(["-n", node.addresses.last().expect("a shard")]);
    command::run(None, &words, None)
}

fn well(node: &Node, line: &str) -> String {
    run(node, line).well()
}

fn object(node: &Node, line: &str) -> Value {
    run(node, &format!("{line} --output json")).json()
}

/// The lines behind the heading, word by word.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let lines = text.lines().skip(1).take_while(|line| !line.is_empty());
    lines.map(|line| line.split_whitespace().collect()).collect()
}

/// The value of a line `Name: value`.
fn part<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{name} in {text}")).trim()
}

#[test]
fn topics_are_set_up_shown_and_removed() {
    let (_directory, node) = node(&["--shards", "2"]);
    let made = well(&node, &format!("updateTopic -c {CLUSTER} -t made -r 4 -w 4 -a +message.type=FIFO"));
    let success = |address: &String| format!("create topic to {address} success.\n");
    let lines: String = node.addresses.iter().map(success).collect();
    let settings = "TopicConfig [topicName=made, readQueueNums=4, writeQueueNums=4, perm=RW-, topicFilterType=SINGLE_TAG, \
                    topicSysFlag=0, order=false, attributes={+message.type=FIFO}]\n";
    assert_eq!(made, lines + settings);
    assert!(well(&node, "topicList").lines().any(|line| line == "made"));
    let route = well(&node, "topicRoute -t made");
    assert!(route.starts_with("{\n\t\"brokerDatas\":[\n\t\t{\n\t\t\t\"brokerAddrs\":{\n"), "{route}");
    let route: Value = serde_json::from_str(&route).expect("JSON that every program reads");
    assert_eq!(route["queueDatas"][1]["writeQueueNums"], 4);
    assert_eq!(well(&node, "topicClusterList -t made"), format!("{CLUSTER}\n"));
    let status = well(&node, "topicStatus -t made");
    assert!(status.starts_with("#Broker Name                      #QID  #Min Offset"), "{status}");
    let found: Vec<_> = rows(&status).iter().map(|row| row.join(" ")).collect();
    assert_eq!((found.len(), found[0].as_str(), found[7].as_str()), (8, "n-0 0 0 0", "n-1 3 0 0"));
    assert!(status.ends_with("\nTopic Put TPS: 0.0\n"), "{status}");
    let changed = well(&node, &format!("updateTopicPerm -b {} -t made -p 4", node.address()));
    assert!(changed.starts_with(&format!("update topic perm from 6 to 4 in {} success.\n", node.address())));
    let told = object(&node, "topicRoute -t made");
    assert_eq!((&told["queueDatas"][0]["perm"], &told["queueDatas"][1]["perm"]), (&4.into(), &4.into()));
    let ordered = well(&node, &format!("updateTopic -b {} -t made -r 4 -w 4 -o true", node.address()));
    assert!(ordered.starts_with("set broker orderConf. isOrder=true, orderConf=[n-0:4]\n"), "{ordered}");
    let removed = well(&node, &format!("deleteTopic -c {CLUSTER} -t made"));
    assert_eq!(
        removed,
        format!(
            "delete topic [made] from cluster [{CLUSTER}] success.\ndelete topic [made] from NameServer success.\n"
        )
    );
    let gone = run(&node, "topicRoute -t made -o json").badly(1);
    let gone: Value = serde_json::from_str(&gone).expect("JSON");
    assert_eq!((&gone["code"], &gone["exit_code"]), (&17.into(), &1.into()));
    assert!(run(&node, "updateTopic -c nowhere -t made").badly(1).contains("there is no cluster `nowhere`"));
    let refused = run(&node, &format!("updateTopic -b {} -t TBW102", node.address())).badly(1);
    assert!(refused.contains("code 29") && refused.contains("system topic"), "{refused}");
}

#[test]
fn a_message_that_is_sent_is_found_in_every_way() {
    let (_directory, node) = node(&["--shards", "2"]);
    well(&node, &format!("updateTopic -c {CLUSTER} -t orders -r 1 -w 1"));
    let sent = well(&node, "sendMessage -t orders -p hello -k one -c TagA -b n-1 -i 0");
    assert!(sent.starts_with("#Broker Name                      #QID  #Send Result"), "{sent}");
    let rows_of_sent = rows(&sent);
    let [broker, queue, result, id] = rows_of_sent[0][..] else { panic!("{sent}") };
    assert_eq!((broker, queue, result, id.len()), ("n-1", "0", "SEND_OK", 32));
    let other = object(&node, "sendMessage -t orders -p other -k one");
    assert_eq!((&other["result"], other["unique_id"].as_str().map(str::len)), (&"SEND_OK".into(), Some(32)));
    let by_key = well(&node, "queryMsgByKey -t orders -k one");
    assert!(by_key.starts_with("#Message ID "), "{by_key}");
    assert_eq!(rows(&by_key).len(), 2);
    let of_it = rows(&by_key).into_iter().find(|row| row[0] == id).expect("it is found");
    assert_eq!(of_it[1..3], ["0", "0"]);
    assert!(of_it[3].contains(&format!("@orders@K@one@{id}@")), "{by_key}");
    let by_id = well(&node, &format!("queryMsgByUniqueKey -t orders -i {id}"));
    assert_eq!(
        (part(&by_id, "Topic"), part(&by_id, "Tags"), part(&by_id, "Keys")),
        ("orders", "[TagA]", "[one]")
    );
    assert_eq!((part(&by_id, "Message Body"), part(&by_id, "Store Host")), ("hello", &*node.addresses[1]));
    assert!(by_id.contains("WARN: No Consumer"), "{by_id}");
    let at = well(&node, "queryMsgByOffset -t orders -b n-1 -i 0 -o 0");
    let place = part(&at, "OffsetID");
    assert_eq!(part(&at, "Message Body"), "hello");
    let by_place = well(&node, &format!("queryMsgById -i {place}"));
    assert_eq!((part(&by_place, "OffsetID"), part(&by_place, "Message Body")), (place, "hello"));
    let printed = well(&node, "printMsg -t orders");
    let line = printed.lines().find(|line| line.contains(id)).expect("it is printed");
    assert!(
        line.starts_with(&format!("MSGID: {id} MessageExt [brokerName=n-1, queueId=0, storeSize=")),
        "{line}"
    );
    assert!(line.contains("body=[104, 101, 108, 108, 111]") && line.ends_with(" BODY: hello"), "{line}");
    assert_eq!(printed.matches("minOffset=").count(), 2);
    let of_tag = well(&node, "printMsg -t orders -s TagA -d false");
    assert_eq!((of_tag.matches("MSGID").count(), of_tag.contains("BODY: NOT PRINT BODY")), (1, true));
    let consumed = well(&node, "consumeMessage -t orders -b n-1 -i 0 -o 0 -c 1");
    assert_eq!((consumed.matches("Consume ok\n").count(), consumed.matches("BODY: hello").count()), (1, 1));
    let json = well(&node, "printMsg -t orders -o json");
    assert_eq!(json.lines().count(), 2, "a message a line: {json}");
    for (line, words) in [
        ("queryMsgByKey -t orders -k none", "no message of topic orders has the key none"),
        ("queryMsgByUniqueKey -t orders -i 7F000001000000000000000000000001", "has the id"),
        ("queryMsgByOffset -t orders -b n-0 -i 0 -o 7", "is at offset 7"),
        ("queryMsgByOffset -t orders -b nobody -i 0 -o 0", "there is no broker `nobody`"),
        ("sendMessage -t orders -p x -b nobody", "no queue that takes messages on broker nobody"),
        ("sendMessage -t orders -p x -b n-1 -i 9", "code 29"),
        ("queryMsgTraceById -i X -t orders", "no client has left a trace of message X"),
    ] {
        let said = run(&node, line).badly(1);
        assert!(said.contains(words), "{line}: {said}");
    }
    well(&node, "sendMessage -t made-by-use -p x");
    assert!(well(&node, "topicStatus -t made-by-use").matches(" 0 ").count() > 0);
}

/// Commits for a group, in the first queue of a broker.
fn commit(client: &mut Remoting, group: &str, topic: &str, offset: &str) {
    let fields = [("consumerGroup", group), ("topic", topic), ("queueId", "0"), ("commitOffset", offset)];
    assert_eq!(client.ask(COMMIT, &fields, b"").code, 0);
}

#[test]
fn groups_are_shown_and_moved() {
    let (_directory, node) = node(&[]);
    well(&node, &format!("updateTopic -c {CLUSTER} -t orders -r 1 -w 1"));
    let set_up = well(&node, &format!("updateSubGroup -c {CLUSTER} -g G -r 3 -d true"));
    assert!(set_up.starts_with(&format!("create subscription group to {} success.\n", node.address())));
    assert!(set_up.contains(
        "groupName=G, consumeEnable=true, consumeFromMinEnable=false, consumeBroadcastEnable=true"
    ));
    assert!(run(&node, "consumerProgress -g G").badly(1).contains("group G has consumed nothing"));
    for body in ["a", "b", "c"] {
        well(&node, &format!("sendMessage -t orders -p {body}"));
    }
    let mut client = Remoting::connect(node.address());
    commit(&mut client, "G", "orders", "1");
    let progress = well(&node, "consumerProgress -g G");
    assert!(progress.starts_with("#Topic    "), "{progress}");
    let found = rows(&progress);
    let row = found.iter().find(|row| row[0] == "orders").expect("a row");
    assert_eq!(row[..7], ["orders", "n-0", "0", "3", "1", "2", "0"]);
    assert_eq!(part(&progress, "Consume Diff Total"), "2");
    let told = object(&node, "consumerProgress -g G -t orders");
    assert_eq!((&told["diff"], &told["queues"][0]["consumer_offset"]), (&2.into(), &1.into()));
    let diff = || object(&node, "consumerProgress -g G -t orders")["diff"].clone();
    let moved = well(&node, "resetOffsetByTime -g G -t orders -s 0");
    assert!(
        moved.starts_with("start reset consumer offset by specified, group[G], topic[orders], force[true], "),
        "{moved}"
    );
    assert!(moved.contains("\n#brokerName "), "{moved}");
    assert_eq!(diff(), 3);
    well(&node, "resetOffsetByTime -g G -t orders -s 0 -b n-0 -q 0 -o 2");
    assert_eq!(diff(), 1);
    let cloned = well(&node, "cloneGroupOffset -s G -d H -t orders -o true");
    assert_eq!(cloned, "clone group offset success. srcGroup[G], destGroup=[H], topic[orders]\n");
    assert_eq!(object(&node, "consumerProgress -g H -t orders")["diff"], 1);
    well(&node, "skipAccumulatedMessage -g G -t orders");
    assert_eq!(diff(), 0);
    let all = well(&node, "consumerProgress");
    assert!(all.starts_with("#Group   "), "{all}");
    let deleted = well(&node, &format!("deleteSubGroup -b {} -g G -r true", node.address()));
    assert_eq!(deleted, format!("delete subscription group [G] from broker [{}] success.\n", node.address()));
    assert!(run(&node, "resetOffsetByTime -g G -t nowhere -s 0").badly(1).contains("code 17"));
}

#[test]
fn whoever_consumes_and_produces_is_shown() {
    let (_directory, node) = node(&[]);
    well(&node, &format!("updateTopic -c {CLUSTER} -t orders -r 1 -w 1"));
    let missing = run(&node, "consumerConnection -g readers").badly(1);
    assert!(missing.contains("nobody consumes as group readers"), "{missing}");
    let mut client = Remoting::connect(node.address());
    let body = reads("10.0.0.1@1", "readers", "CLUSTERING", &["orders"]);
    assert_eq!(client.ask(HEART_BEAT, &[], &body).code, 0);
    let shown = well(&node, "consumerConnection -g readers");
    let found = rows(&shown);
    assert_eq!(
        (found.len(), found[0][0], found[0][1]),
        (1, "10.0.0.1@1", &*client.own_address().to_string())
    );
    assert!(
        shown.contains(
            "\nBelow is subscription:\n#Topic               #SubExpression\norders               *\n"
        ),
        "{shown}"
    );
    assert_eq!(
        (part(&shown, "ConsumeType"), part(&shown, "MessageModel")),
        ("CONSUME_PASSIVELY", "CLUSTERING")
    );
    let produces =
        br#"{"clientID":"10.0.0.2@2","producerDataSet":[{"groupName":"writers"}],"consumerDataSet":[]}"#;
    assert_eq!(client.ask(HEART_BEAT, &[], produces).code, 0);
    let shown = well(&node, "producerConnection -g writers -t orders");
    assert!(shown.starts_with("0001  10.0.0.2@2 "), "{shown}");
}

#[test]
fn brokers_are_shown_closed_and_opened() {
    let (_directory, node) = node(&["--shards", "2"]);
    well(&node, &format!("updateTopic -c {CLUSTER} -t orders -r 1 -w 1"));
    let listed = well(&node, "clusterList");
    assert!(listed.starts_with("#Cluster Name           #Broker Name            #BID  #Addr"), "{listed}");
    let found = rows(&listed);
    let heads: Vec<_> = found.iter().map(|row| row[..4].join(" ")).collect();
    let expected: Vec<_> =
        (0..2).map(|shard| format!("{CLUSTER} n-{shard} 0 {}", node.addresses[shard])).collect();
    assert_eq!(heads, expected);
    assert!(found.iter().all(|row| row.last() == Some(&"true")), "{listed}");
    assert_eq!(rows(&well(&node, "clusterList -m"))[0].len(), 6);
    assert_eq!(object(&node, "clusterList")["brokers"][1]["active"], true);
    let status = well(&node, &format!("brokerStatus -b {}", node.address()));
    assert!(status.contains("brokerActive                    : true\n"), "{status}");
    let settings = well(&node, &format!("getBrokerConfig -b {}", node.addresses[1]));
    assert!(settings.starts_with(&format!("============{}============\n", node.addresses[1])), "{settings}");
    assert!(settings.contains("brokerName                                        =  n-1\n"), "{settings}");
    let permission = || object(&node, "topicRoute -t orders")["queueDatas"][0]["perm"].clone();
    let closed = well(&node, "wipeWritePerm -b n-0");
    assert!(closed.starts_with("wipe write perm of broker[n-0] in name server["), "{closed}");
    assert_eq!(permission(), 4);
    // What is asked for is how the topic is set up, not what routes say of it in the meantime.
    let address = node.address();
    let reads_only = well(&node, &format!("updateTopicPerm -b {address} -t orders -p 4"));
    assert!(reads_only.starts_with("update topic perm from 6 to 4 in "), "{reads_only}");
    let again = well(&node, &format!("updateTopicPerm -b {address} -t orders -p 4"));
    assert_eq!(again, "new perm equals to the old one!\n");
    well(&node, "addWritePerm -b n-0");
    assert_eq!(permission(), 4);
    well(&node, &format!("updateTopicPerm -b {address} -t orders -p 6"));
    assert_eq!(permission(), 6);
    assert!(run(&node, "wipeWritePerm -b nobody").badly(1).contains("there is no broker `nobody`"));
    well(&node, "sendMessage -t orders -p x");
    let stats = well(&node, "statsAll -t orders");
    assert!(stats.starts_with("#Topic   "), "{stats}");
    assert_eq!(rows(&stats)[0].last(), Some(&"NO_CONSUMER"));
    // The word before it is no matter.
    let prefixed = well(&node, &format!("mqadmin brokerStatus -b {}", node.address()));
    assert!(prefixed.contains("brokerActive"), "{prefixed}");
}

fn write_keys(directory: &Path) -> String {
    use std::os::unix::fs::PermissionsExt;
    let path = directory.join("keys.toml");
    std::fs::write(&path, "[[keys]]\nid = \"root\"\nsecret = \"toor\"\nadmin = true\n").expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("permissions");
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn keys_are_used_as_rocketmqs_clients_use_them() {
    let directory = test_directory();
    let keys = write_keys(directory.path());
    let node = Setup::new(directory.path().join("data")).with(&["--access-keys", &keys]).start();
    let refused = run(&node, "topicList").badly(1);
    assert!(refused.contains("access key") && refused.contains("code 16"), "{refused}");
    let wrong = run(&node, "topicList --access-key root --secret-key nobody").badly(1);
    assert!(wrong.contains("code 16") && !wrong.contains("nobody"), "{wrong}");
    let key = "--access-key root --secret-key toor";
    well(&node, &format!("updateTopic -b {} -t orders {key}", node.address()));
    well(&node, &format!("sendMessage -t orders -p x -k one {key}"));
    assert!(well(&node, &format!("queryMsgByKey -t orders -k one {key}")).contains(" 0 "));
    assert!(
        run(&node, "topicList --access-key root").badly(2).contains("secret of access key `root` is missing")
    );
}

#[test]
fn whoever_is_not_there_or_speaks_something_else_ends_in_words() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = free.local_addr().expect("it is bound").to_string();
    drop(free);
    let gone = command::run(None, &["topicList", "-n", &address], None).badly(1);
    assert!(gone.contains("nobody answers at") && gone.contains("-n HOST:PORT"), "{gone}");
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = other.local_addr().expect("it is bound").to_string();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = other.accept().expect("a connection");
        let _ = stream.read(&mut [0; 4096]);
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").expect("it is read");
    });
    let foreign = command::run(None, &["topicList", "-n", &address, "-o", "json"], None).badly(1);
    let foreign: Value = serde_json::from_str(&foreign).expect("JSON");
    assert!(
        foreign["error"].as_str().is_some_and(|error| error.contains("RocketMQ's protocol")),
        "{foreign}"
    );
    answering.join().expect("it only answers");
    assert!(command::run(None, &["topicRoute"], None).badly(2).contains("--topic <TOPIC>"));
    let help = command::run(None, &["mqadmin", "--help"], None).well();
    assert!(help.contains("consumerProgress") && help.contains("docs/mqadmin.md"), "{help}");
    let help = command::run(None, &["consumerProgress", "-h"], None).well();
    assert!(help.contains("-n, --namesrvAddr"), "{help}");
}

#[test]
fn tls_is_spoken_where_it_is_asked_for() {
    let directory = test_directory();
    let [certificate, key, other] = ["certificate.pem", "key.pem", "other-certificate.pem"].map(|name| {
        let path = directory.path().join(name);
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls").join(name);
        std::fs::copy(kept, &path).expect("a directory of this test");
        path.to_str().expect("UTF-8").to_owned()
    });
    let flags = ["--tls-certificate", &certificate, "--tls-key", &key, "--tls-mode", "enforcing"];
    let node = Setup::new(directory.path().join("data")).with(&flags).start();
    let tls = format!("--tls-ca {certificate}");
    well(&node, &format!("updateTopic -b {} -t orders {tls}", node.address()));
    let body = "x".repeat(100_000);
    well(&node, &format!("sendMessage -t orders -p {body} -k one {tls}"));
    let found = object(&node, &format!("queryMsgByKey -t orders -k one {tls}"));
    assert_eq!(found[0]["body"], body);
    let clear = run(&node, "topicList").badly(1);
    assert!(clear.contains("closed the connection") || clear.contains("is gone"), "{clear}");
    let strange = run(&node, &format!("topicList --tls-ca {other}")).badly(1);
    assert!(strange.contains("is not accepted") && strange.contains("--tls-ca FILE"), "{strange}");
}
