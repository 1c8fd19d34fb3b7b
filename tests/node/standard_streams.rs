//! Commands whose standard streams are closed, empty or nowhere. The standard library takes what is closed for an empty
//! input and for an output that takes everything.

use std::fs::File;
use std::process::{Command, Stdio};

use crate::support::command::{self, BINARY};
use crate::support::directory::test_directory;
use crate::support::node::Node;

/// Runs a command with what a shell makes of this redirection; its exit code and what it said.
fn redirected(node: &Node, arguments: &[&str], redirection: &str) -> (Option<i32>, String) {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("exec \"$0\" \"$@\" {redirection}")).arg(BINARY).args(arguments);
    shell.env("TURBOPUMP_SERVER", node.address()).stdin(Stdio::null());
    let output = shell.output().expect("there is a shell");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn refused(node: &Node, arguments: &[&str], redirection: &str, part: &str) {
    let (code, sentence) = redirected(node, arguments, redirection);
    assert_eq!(code, Some(1), "{arguments:?} {redirection}: {sentence}");
    assert!(sentence.contains(part), "{arguments:?} {redirection}: {sentence}");
}

#[test]
fn nothing_is_done_whose_result_cannot_be_printed() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    node.run_well(&["topic", "create", "orders", "--queues", "1"]);
    command::run(Some(node.address()), &["produce", "orders"], Some(b"one\ntwo\n")).well();
    let consume = ["consume", "orders", "--group", "readers"];
    let receive = ["message", "receive", "orders", "--group", "workers", "--ack"];
    let create = ["topic", "create", "bills"];
    for redirection in [">&-", "1</dev/null"] {
        for arguments in [&consume[..], &receive, &create] {
            refused(&node, arguments, redirection, "standard output: it is closed");
        }
    }
    node.run(&["topic", "describe", "bills"]).badly(1);
    assert_eq!(node.run_well(&consume), "one\ntwo\n", "nothing was committed");
    assert!(node.run_well(&receive).contains("one"), "nothing was acknowledged");
}

/// `/dev/null` is somebody's wish, also where it is open for both directions, as other programs' libraries do it.
#[test]
fn an_output_that_goes_nowhere_is_one() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    assert_eq!(redirected(&node, &["topic", "create", "one"], ">/dev/null").0, Some(0));
    let both = File::options().read(true).write(true).open("/dev/null").expect("it is always there");
    let mut list = Command::new(BINARY);
    list.args(["topic", "list", "--server", node.address()]);
    list.stdin(both.try_clone().expect("a descriptor")).stdout(both);
    assert_eq!(list.status().expect("the binary can be run").code(), Some(0));
    // A broker prints nothing that somebody waits for, and what it needs no input for is done without one.
    assert_eq!(redirected(&node, &["topic", "create", "two"], "<&-").0, Some(0));
}

#[test]
fn a_closed_input_is_no_empty_one() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    node.run_well(&["topic", "create", "orders", "--queues", "1"]);
    for arguments in [
        &["produce", "orders"][..],
        &["message", "publish", "orders"],
        &["message", "publish", "orders", "-"],
    ] {
        for redirection in ["<&-", "0>/dev/null"] {
            refused(&node, arguments, redirection, "standard input: it is closed");
        }
    }
    assert_eq!(node.run_well(&["consume", "orders"]), "");
}

#[test]
fn an_empty_message_is_stored_when_it_was_meant() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    node.run_well(&["topic", "create", "orders", "--queues", "1"]);
    refused(&node, &["message", "publish", "orders"], "</dev/null", "standard input is empty");
    assert_eq!(node.run_well(&["consume", "orders"]), "");
    for body in ["", "-"] {
        assert_eq!(redirected(&node, &["message", "publish", "orders", body], "</dev/null").0, Some(0));
    }
    assert_eq!(node.run_well(&["consume", "orders"]), "\n\n");
}

/// What a command, or a broker, has to say beside its work is said to nobody: that ends neither.
#[test]
fn a_standard_error_that_takes_nothing_ends_nothing() {
    let directory = test_directory();
    let node = Node::start(directory.path().join("data"));
    node.run_well(&["topic", "create", "orders", "--queues", "1"]);
    command::run(Some(node.address()), &["produce", "orders"], Some(b"one\ntwo\n")).well();
    assert_eq!(redirected(&node, &["consume", "orders", "--grep", "o"], "2>/dev/full").0, Some(0));
    let full = || File::options().write(true).open("/dev/full").expect("a device of every Linux");
    let mut broker = Command::new(BINARY);
    broker.arg("serve").arg("--data").arg(directory.path().join("other")).args(["--listen", node.address()]);
    // Its port is in use, which it says, and ends with the code of that.
    let refused = broker.stdin(Stdio::null()).stdout(Stdio::null()).stderr(full()).status();
    assert_eq!(refused.expect("it can be run").code(), Some(1));
    let lines = ["produce", "orders", "--retry-for", "200ms"];
    let mut producer = Command::new(BINARY);
    producer.args(lines).args(["--server", node.address()]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = producer.stderr(full()).spawn().expect("it can be run");
    let mut input = child.stdin.take().expect("it is piped");
    std::io::Write::write_all(&mut input, b"three\n").expect("it reads");
    let mut client = node.client();
    while crate::support::load::bounds(&mut client, "orders", 0).1.0 < 3 {
        std::thread::yield_now();
    }
    node.kill();
    std::io::Write::write_all(&mut input, b"four\n").expect("it reads");
    drop(input);
    assert_eq!(child.wait().expect("it ends").code(), Some(1));
}
