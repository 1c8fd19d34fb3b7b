//! What a service manager is told: systemd's protocol of notifications, over a socket of the test's own.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::directory::test_directory;
use crate::support::node::{Node, PATIENCE, Setup};

/// Listens as systemd does, and keeps what is told.
struct Manager {
    socket: UnixDatagram,
    told: Vec<String>,
}

impl Manager {
    fn start(directory: &std::path::Path, watchdog: &str) -> (Self, Node) {
        let path = directory.join("notify");
        let socket = UnixDatagram::bind(&path).expect("a directory of this test");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("not zero");
        let variables = [("NOTIFY_SOCKET", path.to_str().expect("UTF-8")), ("WATCHDOG_USEC", watchdog)];
        let node = Setup::new(directory.join("data")).with_variables(&variables).start();
        (Self { socket, told: Vec::new() }, node)
    }

    /// Waits until a line is told that begins so, for this long; what came before it is forgotten.
    fn hears(&mut self, begin: &str, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut buffer = [0; 4096];
        loop {
            if let Some(at) = self.told.iter().position(|line| line.starts_with(begin)) {
                self.told.drain(..=at);
                return true;
            }
            if Instant::now() > deadline {
                return false;
            }
            if let Ok(count) = self.socket.recv(&mut buffer) {
                let text = std::str::from_utf8(&buffer[..count]).expect("UTF-8");
                self.told.extend(text.lines().map(str::to_owned));
            }
        }
    }

    fn must_hear(&mut self, begin: &str) {
        assert!(self.hears(begin, PATIENCE), "`{begin}` is not told, but {:?}", self.told);
    }
}

#[test]
fn a_service_manager_hears_of_each_step() {
    let directory = test_directory();
    let (mut manager, node) = Manager::start(directory.path(), "300000");
    manager.must_hear("STATUS=recovering");
    manager.must_hear("READY=1");
    manager.must_hear("WATCHDOG=1");
    node.signal(Signal::HUP);
    manager.must_hear("RELOADING=1");
    manager.must_hear("MONOTONIC_USEC=");
    manager.must_hear("READY=1");
    let ended = node.stop();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    manager.must_hear("STOPPING=1");
}

#[test]
fn a_broker_that_stands_still_is_not_said_to_be_alive() {
    let directory = test_directory();
    let (mut manager, node) = Manager::start(directory.path(), "300000");
    manager.must_hear("READY=1");
    manager.must_hear("WATCHDOG=1");
    node.signal(Signal::STOP);
    // What was told before it stood still.
    while manager.hears("WATCHDOG=1", Duration::from_millis(200)) {}
    assert!(!manager.hears("WATCHDOG=1", Duration::from_millis(600)));
    node.signal(Signal::CONT);
    manager.must_hear("WATCHDOG=1");
}
