//! Where settings come from, which of them counts, and what files of Apache's broker become.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::command::BINARY;
use crate::support::directory::test_directory;
use crate::support::node::Setup;

/// `serve --print-config` with an environment of its own: code, standard output and standard error.
fn print_config(variables: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(BINARY);
    command.args(["serve", "--print-config"]).args(arguments).env_clear();
    let output = command.envs(variables.iter().copied()).output().expect("the binary can be run");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn printed(variables: &[(&str, &str)], arguments: &[&str]) -> String {
    let (code, stdout, stderr) = print_config(variables, arguments);
    assert_eq!(code, Some(0), "{stderr}");
    stdout
}

fn as_json(variables: &[(&str, &str)], arguments: &[&str]) -> Value {
    let text = printed(variables, &[arguments, &["-o", "json"]].concat());
    serde_json::from_str(&text).expect("an object")
}

fn setting<'a>(config: &'a Value, name: &str) -> &'a Value {
    let settings = config["settings"].as_array().expect("a list");
    settings.iter().find(|setting| setting["name"] == name).unwrap_or_else(|| panic!("no {name} in {config}"))
}

fn write(directory: &Path, name: &str, content: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, content).expect("a directory of this test");
    path
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn flags_win_over_variables_and_these_over_the_file() {
    let directory = test_directory();
    let file = "data = 'd'\ndeliveries = 1\nlevel = \"written\"\n# between\nlease = \"1m\"\n";
    let file = write(directory.path(), "broker.toml", file);
    let variables =
        [("TURBOPUMP_CONFIG", text(&file)), ("TURBOPUMP_DELIVERIES", "2"), ("TURBOPUMP_LEVEL", "accepted")];
    let config = as_json(&variables, &["--deliveries", "3"]);
    let said = |name: &str| {
        let setting = setting(&config, name);
        (setting["value"].clone(), setting["origin"].as_str().expect("a word"), setting["source"].clone())
    };
    assert_eq!(said("deliveries"), (3.into(), "flag", "--deliveries".into()));
    assert_eq!(said("level"), ("accepted".into(), "environment", "TURBOPUMP_LEVEL".into()));
    assert_eq!(said("lease"), ("1m".into(), "file", text(&file).into()));
    assert_eq!(setting(&config, "lease")["line"], 5);
    assert_eq!(said("ordered-lease"), ("1m".into(), "default", Value::Null));
    assert!(setting(&config, "node")["note"].as_str().is_some_and(|note| note.contains("host")), "{config}");
    let people = printed(&variables, &["--deliveries", "3"]);
    for part in [
        "deliveries = 3",
        "# --deliveries",
        "# TURBOPUMP_LEVEL",
        "broker.toml, line 5",
        "# ordered-lease = \"1m\"",
    ] {
        assert!(people.contains(part), "`{part}` is missing in {people}");
    }
    assert!(!Path::new("d").exists(), "nothing is made");
}

/// What is printed can be kept as a configuration file.
#[test]
fn what_is_printed_says_the_same_when_it_is_read() {
    let directory = test_directory();
    let flags = [
        "--data",
        "/nowhere/data",
        "--listen",
        "127.0.0.1:1",
        "--http",
        "none",
        "--retention-age",
        "90m",
        "--cores",
        "0",
        "--delay-levels",
        "1s 2h",
        "--log-level",
        "warn,node=debug",
        "--tail-cache-bytes",
        "3MiB",
        "--remoting=false",
        "--auto-create-topics",
        "8",
        "--node",
        "n",
        "--shards",
        "3",
    ];
    let first = printed(&[], &flags);
    let file = write(directory.path(), "again", &first);
    let again = printed(&[], &["--config", text(&file)]);
    let values = |text: &str| -> Vec<String> {
        let line = |line: &str| line.split("  #").next().unwrap_or_default().trim_end().to_owned();
        text.lines().skip(1).map(line).collect()
    };
    assert_eq!(values(&again), values(&first));
}

#[test]
fn a_directory_says_what_it_keeps_and_refuses_otherwise() {
    let directory = test_directory();
    let data = directory.path().join("data");
    Setup::new(&data).with(&["--node", "kept", "--shards", "1"]).start().stop();
    let config = as_json(&[], &["--data", text(&data), "--cores", "0"]);
    for (name, value) in [("shards", Value::from(1)), ("node", "kept".into())] {
        let setting = setting(&config, name);
        assert_eq!((&setting["value"], &setting["origin"]), (&value, &"directory".into()), "{setting}");
    }
    let (code, _, stderr) = print_config(&[], &["--data", text(&data), "--shards", "2"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("was made with 1 shards and keeps them"), "{stderr}");
}

#[test]
fn what_cannot_be_is_refused_as_a_start_does() {
    let directory = test_directory();
    let conf = |content: &str| write(directory.path(), "broker.conf", content);
    let cases = [
        (vec![("TURBOPUMP_LISTEN", "here")], vec!["--data", "d"], "TURBOPUMP_LISTEN in the environment: "),
        (vec![], vec!["--data", "d", "--listen", "0.0.0.0:1"], "like --advertise broker.example.org"),
        (vec![], vec![], "say where the data goes"),
    ];
    for (variables, arguments, part) in cases {
        let (code, _, stderr) = print_config(&variables, &arguments);
        assert!(code == Some(2) && stderr.contains(part), "`{part}` is missing in {stderr}");
    }
    for (content, part) in [
        ("brokerName=a\nfileReservedTime=long\n", "broker.conf: line 2: fileReservedTime is a whole number"),
        ("brokerName=a\n\nauthenticationEnabled=true", "line 3: authenticationEnabled=true: "),
        ("brokerName=a b", "--node is 1 to"),
        ("listenPort=10911\nbrokerIP1=10.1.2.3", "--access-keys FILE"),
        ("fileReservedTime=0", "--retention-age is at least 1s"),
        ("messageDelayLevel=1 2", "line 1: messageDelayLevel=1 2: "),
    ] {
        let path = conf(content);
        let (code, _, stderr) = print_config(&[], &["--data", "d", "--config", text(&path)]);
        assert!(code == Some(2) && stderr.contains(part), "`{part}` is missing in {stderr}");
    }
}

const BROKER_CONF: &str = "\
# A broker of Apache's\n\
brokerClusterName = shop\n\
brokerName=broker-a\n\
brokerId=0\n\
deleteWhen=04\n\
fileReservedTime=48\n\
flushDiskType=ASYNC_FLUSH\n\
listenPort=0\n\
mappedFileSizeCommitLog=16777216\n\
sendMessageThreadPoolNums=16\n\
brokrIP1=10.0.0.1\n\
objectStoreSecretKey=hunter2\n";

#[test]
fn a_file_of_apaches_broker_starts_ours_and_says_what_became_of_it() {
    let directory = test_directory();
    let data = directory.path().join("data");
    // The name does not matter, what stands in it does.
    let conf = write(directory.path(), "broker.conf", BROKER_CONF);
    let config = as_json(&[], &["--data", text(&data), "--config", text(&conf)]);
    let lines = config["broker_conf"].as_array().expect("a report");
    let fates: Vec<_> = lines
        .iter()
        .map(|line| (line["name"].as_str().expect("a name"), line["fate"].as_str().expect("a word")))
        .collect();
    let expected = [
        ("brokerClusterName", "taken"),
        ("brokerName", "approximated"),
        ("brokerId", "meaningless"),
        ("deleteWhen", "meaningless"),
        ("fileReservedTime", "taken"),
        ("flushDiskType", "approximated"),
        ("listenPort", "approximated"),
        ("mappedFileSizeCommitLog", "taken"),
        ("sendMessageThreadPoolNums", "meaningless"),
        ("brokrIP1", "unknown"),
        ("objectStoreSecretKey", "meaningless"),
    ];
    assert_eq!(fates, expected);
    let age = setting(&config, "retention-age");
    assert_eq!((&age["value"], &age["line"]), (&"2d".into(), &6.into()));
    let people = printed(&[], &["--data", text(&data), "--config", text(&conf)]);
    assert!(people.contains("# line 11  brokrIP1=10.0.0.1"), "{people}");
    assert!(!people.contains("hunter2") && !config.to_string().contains("hunter2"), "a secret is shown");
    let node = Setup::new(&data).with(&["--config", text(&conf)]).start();
    assert!(node.banner.contains("as the broker broker-a-S of cluster shop"), "{}", node.banner);
    assert!(node.banner.contains("answers are given when messages are written"), "{}", node.banner);
    let told = node.stop().stderr;
    for part in [
        "3 taken, 3 approximated, 4 without a meaning here, 1 unknown",
        "line 11: neither this broker nor Apache's has",
    ] {
        assert!(told.contains(part), "`{part}` is missing in {told}");
    }
}

/// Our own names count in a file of any name, and `.toml` is never anything else.
#[test]
fn a_file_is_told_by_what_stands_in_it() {
    let directory = test_directory();
    let ours = write(directory.path(), "turbopump.conf", "deliveries = 3\n");
    let config = as_json(&[], &["--data", "d", "--config", text(&ours)]);
    assert_eq!(setting(&config, "deliveries")["value"], 3);
    let theirs = write(directory.path(), "broker.toml", "brokerName = \"a\"\n");
    let (code, _, stderr) = print_config(&[], &["--data", "d", "--config", text(&theirs)]);
    assert!(code == Some(2) && stderr.contains("unknown field `brokerName`"), "{stderr}");
}

#[test]
fn variables_start_a_broker() {
    let directory = test_directory();
    let data = directory.path().join("data");
    let mut command = Command::new(BINARY);
    command.arg("serve").env_clear().stdout(std::process::Stdio::piped()).envs([
        ("TURBOPUMP_DATA", text(&data)),
        ("TURBOPUMP_LISTEN", "127.0.0.1:0"),
        ("TURBOPUMP_HTTP", "none"),
        ("TURBOPUMP_NAMESRV", "none"),
        ("TURBOPUMP_SEGMENT_BYTES", "16MiB"),
        ("TURBOPUMP_SHARDS", "1"),
        ("TURBOPUMP_REMOTING", ""),
    ]);
    let mut child = command.spawn().expect("the binary can be run");
    let stdout = child.stdout.take().expect("it is piped");
    let lines = std::io::BufRead::lines(std::io::BufReader::new(stdout));
    let is_ready = lines.map_while(Result::ok).any(|line| line == "ready");
    child.kill().expect("it is ours");
    child.wait().expect("it is ours");
    assert!(is_ready, "it takes requests");
}
