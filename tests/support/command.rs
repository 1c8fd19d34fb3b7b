//! Commands of the binary, run to their end.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use rustix::process::{Pid, Signal};
use serde_json::Value;

use super::node::PATIENCE;

/// The program under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_turbopump");

/// The program whose brokers are looked at: that under test, or a release build that `TURBOPUMP_TEST_BROKER` names.
pub fn broker() -> String {
    std::env::var("TURBOPUMP_TEST_BROKER").unwrap_or_else(|_| BINARY.to_owned())
}

/// What a command did.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
    line: String,
}

/// Starts a command; its output is piped, and so is its input when `piped_input` says so.
pub fn spawn(server: Option<&str>, arguments: &[&str], piped_input: bool) -> Child {
    let mut command = Command::new(BINARY);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(if piped_input { Stdio::piped() } else { Stdio::null() });
    command.env_remove("TURBOPUMP_SERVER");
    if let Some(server) = server {
        command.env("TURBOPUMP_SERVER", server);
    }
    command.spawn().expect("the binary under test can be run")
}

/// Runs a command to its end, which must come.
pub fn run(server: Option<&str>, arguments: &[&str], input: Option<&[u8]>) -> Outcome {
    let mut child = spawn(server, arguments, input.is_some());
    let feeding = input.map(|input| {
        let (mut stdin, input) = (child.stdin.take().expect("it is piped"), input.to_owned());
        // A command that does not want its input says so in its own way.
        std::thread::spawn(move || drop(stdin.write_all(&input)))
    });
    let outcome = finish(child, arguments);
    if let Some(feeding) = feeding {
        feeding.join().expect("it only writes");
    }
    outcome
}

/// Waits for the end of a command.
pub fn finish(child: Child, arguments: &[&str]) -> Outcome {
    let line = arguments.join(" ");
    let process = Pid::from_raw(child.id() as i32).expect("a process id");
    let (sender, output) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = output.recv_timeout(PATIENCE) else {
        let _ = rustix::process::kill_process(process, Signal::KILL);
        panic!("`turbopump {line}` does not end");
    };
    let output = output.expect("its pipes are ours");
    Outcome {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        line,
    }
}

impl Outcome {
    /// What was printed by a command that must have succeeded.
    pub fn well(self) -> String {
        assert_eq!(self.code, Some(0), "`turbopump {}`: {}", self.line, self.stderr);
        String::from_utf8(self.stdout).expect("text")
    }

    /// The sentence of a command that must have failed with this code.
    pub fn badly(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "`turbopump {}`: {}", self.line, self.stderr);
        self.stderr
    }

    /// The object printed by a command that must have succeeded.
    pub fn json(self) -> Value {
        let text = self.well();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}
