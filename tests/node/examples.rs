//! The examples in `docs/examples`, as they stand there, against a real broker.

use crate::support::directory::test_directory;
use crate::support::node::Node;

#[path = "../../docs/examples/admin.rs"]
#[allow(dead_code, reason = "its `main` is for the command line")]
mod admin;
#[path = "../../docs/examples/consume.rs"]
#[allow(dead_code, reason = "its `main` is for the command line")]
mod consume;
#[path = "../../docs/examples/held_messages.rs"]
#[allow(dead_code, reason = "its `main` is for the command line")]
mod held_messages;
#[path = "../../docs/examples/publish.rs"]
#[allow(dead_code, reason = "its `main` is for the command line")]
mod publish;

#[test]
fn the_examples_do_what_they_say() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    let server = node.address();
    assert_eq!(admin::run(server).expect("topics are made"), 0, "nothing was sent yet");
    assert_eq!(publish::run(server, 100).expect("messages are taken"), 100);
    let mut read = consume::run(server).expect("messages are read");
    read.sort();
    let mut sent: Vec<_> = (0..100).map(|number| format!("order {number}")).collect();
    sent.sort();
    assert_eq!(read, sent);
    assert_eq!(
        consume::run(server).expect("there is nothing more"),
        [""; 0],
        "the group goes on where it left off"
    );
    assert_eq!(admin::run(server).expect("the topics are there already"), 100, "the group begins again");
    let held = held_messages::run(server).expect("they come");
    assert_eq!(held, ["comes in a second", "was committed"]);
}
