//! Commands in a terminal of their own: a pseudo-terminal, and what a person would see on it.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::os::fd::AsFd;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex};

use pty_process::Size;
use pty_process::blocking::{Command, Pts, Pty, open};
use rustix::process::{Pid, Signal};
use rustix::termios::{LocalModes, tcgetattr};

use super::command::BINARY;
use super::node::{wait, wait_for};

/// A command that runs in a terminal. Killed when dropped.
pub struct Terminal {
    child: Child,
    pty: Arc<Pty>,
    /// Keeps the terminal open when the command has ended.
    _pts: Pts,
    screen: Arc<Mutex<vt100::Parser>>,
    /// All bytes that came.
    raw: Arc<Mutex<Vec<u8>>>,
}

fn cells(count: u16) -> NonZeroU16 {
    NonZeroU16::new(count).expect("a terminal has some")
}

impl Terminal {
    /// Starts the program under test with the broker at `server`.
    pub fn start(server: &str, arguments: &[&str], columns: u16, lines: u16) -> Self {
        Self::start_with(server, arguments, (columns, lines), &[])
    }

    /// The same with variables of the environment.
    pub fn start_with(
        server: &str,
        arguments: &[&str],
        (columns, lines): (u16, u16),
        variables: &[(&str, &str)],
    ) -> Self {
        let command = Command::new(BINARY).args(arguments).env("TURBOPUMP_SERVER", server);
        let command = command.env("TERM", "xterm-256color").env_remove("NO_COLOR");
        Self::run(command.envs(variables.iter().copied()), columns, lines)
    }

    fn run(command: Command, columns: u16, lines: u16) -> Self {
        let (pty, pts) = open().expect("a pseudo-terminal");
        pty.resize(Size::new(lines, columns)).expect("a new one takes a size");
        let mut command = command;
        let child = command.spawn_borrowed(&pts).expect("the binary under test can be run");
        let screen = Arc::new(Mutex::new(vt100::Parser::new(cells(lines), cells(columns), 1_000)));
        let raw = Arc::new(Mutex::new(Vec::new()));
        let pty = Arc::new(pty);
        let mut output = File::from(pty.as_fd().try_clone_to_owned().expect("a descriptor"));
        let (drawn, kept) = (Arc::clone(&screen), Arc::clone(&raw));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // It ends with an error when both sides are closed.
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                drawn.lock().expect("nobody fails with it").process(&buffer[..count]);
                kept.lock().expect("nobody fails with it").extend_from_slice(&buffer[..count]);
            }
        });
        Self { child, pty, _pts: pts, screen, raw }
    }

    /// What is on the screen.
    pub fn text(&self) -> String {
        self.screen.lock().expect("nobody fails with it").screen().contents()
    }

    pub fn lines(&self) -> Vec<String> {
        self.text().lines().map(str::to_owned).collect()
    }

    /// Everything that was ever written to it.
    pub fn raw(&self) -> Vec<u8> {
        self.raw.lock().expect("nobody fails with it").clone()
    }

    pub fn is_beside(&self) -> bool {
        self.screen.lock().expect("nobody fails with it").screen().alternate_screen()
    }

    pub fn hides_cursor(&self) -> bool {
        self.screen.lock().expect("nobody fails with it").screen().hide_cursor()
    }

    /// Whether lines are typed, and shown as they are typed.
    pub fn is_cooked(&self) -> bool {
        let modes = tcgetattr(self.pty.as_fd()).expect("a terminal").local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    /// Waits for a text on the screen.
    pub fn wait_for(&self, text: &str) {
        let is_there = || self.text().contains(text);
        if !is_there() {
            wait_for(&format!("`{text}` is not shown"), is_there);
        }
    }

    /// Waits until the screen is as it should be.
    pub fn wait_until(&self, what: &str, is_so: impl Fn(&str) -> bool) {
        wait_for(what, || is_so(&self.text()));
    }

    pub fn press(&self, keys: &str) {
        (&*self.pty).write_all(keys.as_bytes()).expect("somebody reads keys");
    }

    pub fn resize(&self, columns: u16, lines: u16) {
        self.screen.lock().expect("nobody fails with it").set_size(cells(lines), cells(columns));
        self.pty.resize(Size::new(lines, columns)).expect("it takes a size");
    }

    pub fn signal(&self, signal: Signal) {
        let process = Pid::from_raw(self.child.id() as i32).expect("a process id");
        rustix::process::kill_process(process, signal).expect("it is ours");
    }

    /// Waits for the command's end.
    pub fn end(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
