//! One broker process.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use turbopump::client::{Client, Timeouts};

use super::command::{self, Outcome};
use super::machine::{MemoryGroup, next_core};

/// A start, a stop or a command that takes longer has hung.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How to start a broker: by default one shard on one core, small segments, any free port.
#[derive(Clone, Debug)]
pub struct Setup {
    data: PathBuf,
    flags: Vec<String>,
    directory: Option<PathBuf>,
    open_files: Option<usize>,
    memory_group: Option<PathBuf>,
    has_usual_addresses: bool,
    user: Option<u32>,
    variables: Vec<(String, String)>,
}

/// A broker that takes requests. Killed when dropped.
pub struct Node {
    child: Child,
    /// The address of each shard, as printed.
    pub addresses: Vec<String>,
    pub node_address: Option<String>,
    pub http_address: Option<String>,
    pub namesrv_address: Option<String>,
    pub admin_address: Option<String>,
    /// Everything it printed up to `ready`.
    pub banner: String,
    /// From the start of the process to `ready`.
    pub took: Duration,
    stderr: Told,
}

/// What a process writes to standard error, as it comes.
struct Told {
    text: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

/// A broker that did not start, or has ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stderr: String,
    /// From the signal to the end.
    pub took: Duration,
}

impl Setup {
    pub fn new(data: impl AsRef<Path>) -> Self {
        Self {
            data: data.as_ref().to_owned(),
            flags: Vec::new(),
            directory: None,
            open_files: None,
            memory_group: None,
            has_usual_addresses: false,
            user: None,
            variables: Vec::new(),
        }
    }

    /// Adds flags; they win over the defaults.
    #[must_use]
    pub fn with(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// Adds variables to the environment of the process.
    #[must_use]
    pub fn with_variables(mut self, variables: &[(&str, &str)]) -> Self {
        self.variables
            .extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        self
    }

    /// What is not asked for listens where it usually does, in the way of other brokers of this machine.
    #[must_use]
    pub fn with_usual_addresses(mut self) -> Self {
        self.has_usual_addresses = true;
        self
    }

    /// The working directory of the process.
    #[must_use]
    pub fn in_directory(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// The process may have only so many files open.
    #[must_use]
    pub fn with_open_files(mut self, limit: usize) -> Self {
        self.open_files = Some(limit);
        self
    }

    /// Another user runs the process, which root can let it do.
    #[must_use]
    pub fn by_user(mut self, user: Option<u32>) -> Self {
        self.user = user;
        self
    }

    /// Runs the process in this control group, from its first instruction on.
    #[must_use]
    pub fn in_memory_group(mut self, group: &MemoryGroup) -> Self {
        self.memory_group = Some(group.members());
        self
    }

    /// Starts a broker that is expected to start.
    pub fn start(&self) -> Node {
        match self.try_start() {
            Ok(node) => node,
            Err(ended) if ended.stderr.contains("takes no direct I/O") => panic!(
                "{} takes no direct I/O, which these tests need: name a directory on ext4 or xfs with {}",
                self.data.display(),
                super::directory::TEST_DIRECTORY
            ),
            Err(ended) => panic!("the broker does not start: {ended:?}"),
        }
    }

    pub fn try_start(&self) -> Result<Node, Ended> {
        let started = Instant::now();
        let mut child = self.command().spawn().expect("the binary under test can be run");
        let stderr = collect(child.stderr.take().expect("it is piped"));
        let stdout = child.stdout.take().expect("it is piped");
        let (sender, lines) = mpsc::channel();
        // Reads to the end of the process, so that nothing it prints ever blocks it.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Behind `ready` nobody listens.
                let _ = sender.send(line);
            }
        });
        let mut banner = String::new();
        loop {
            match lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    banner += &line;
                    banner.push('\n');
                    if line == "ready" {
                        break;
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    let status = wait(&mut child);
                    let stderr = stderr.whole();
                    return Err(Ended { status, stderr, took: started.elapsed() });
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    let _ = child.kill();
                    panic!("the broker neither starts nor ends: {banner}");
                }
            }
        }
        let took = started.elapsed();
        let addresses = addresses_after(&banner, "  shard ");
        let node_address = addresses_after(&banner, "  the node ").pop();
        let http_address = addresses_after(&banner, "  HTTP").pop();
        let namesrv_address = addresses_after(&banner, "  RocketMQ").pop();
        let admin_address = addresses_after(&banner, "  the admin ").pop();
        Ok(Node {
            child,
            addresses,
            node_address,
            http_address,
            namesrv_address,
            admin_address,
            banner,
            took,
            stderr,
        })
    }

    /// Starts a broker and kills it after this time, whatever it has come to.
    pub fn start_and_kill(&self, after: Duration) {
        let mut child = self.command().spawn().expect("the binary under test can be run");
        std::thread::sleep(after);
        // It may have refused to start.
        let _ = child.kill();
        wait(&mut child);
    }

    fn command(&self) -> Command {
        let mut command = match (self.open_files, &self.memory_group) {
            (None, None) => Command::new(command::broker()),
            (limit, group) => {
                let limit = limit.map(|limit| format!("ulimit -n {limit} && ")).unwrap_or_default();
                let group = group.as_ref().map(|members| format!("echo $$ > {} && ", members.display()));
                let script = format!("{limit}{}exec \"$0\" \"$@\"", group.unwrap_or_default());
                let mut shell = Command::new("sh");
                shell.args(["-c", &script, &command::broker()]);
                shell
            }
        };
        command.arg("serve").arg("--data").arg(&self.data);
        let mut default = |flag: &str, value: &str| {
            if !self.flags.iter().any(|given| given == flag) {
                command.args([flag, value]);
            }
        };
        default("--listen", "127.0.0.1:0");
        default("--segment-bytes", "16MiB");
        default("--cores", &next_core().to_string());
        if !self.has_usual_addresses {
            default("--http", "none");
            default("--namesrv", "none");
            default("--admin", "none");
        }
        command.args(&self.flags).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }
}

impl Node {
    /// A broker with the defaults.
    pub fn start(data: impl AsRef<Path>) -> Self {
        Setup::new(data).start()
    }

    /// The first shard's address.
    pub fn address(&self) -> &str {
        &self.addresses[0]
    }

    pub fn process(&self) -> u32 {
        self.child.id()
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address(), Timeouts::default()).expect("the broker takes connections")
    }

    /// One of the broker's counters, over all shards.
    pub fn counter(&self, name: &str) -> u64 {
        let info = self.client().describe_node(false).expect("the broker answers");
        let of_shard = |counters: &[(String, u64)]| {
            counters
                .iter()
                .find(|(counter, _)| counter == name)
                .map(|(_, count)| *count)
                .expect("it is counted")
        };
        info.shards.iter().map(|shard| of_shard(&shard.counters)).sum()
    }

    /// Runs a command against this broker.
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        command::run(Some(self.address()), arguments, None)
    }

    /// Runs a command that is expected to succeed, and returns what it printed.
    pub fn run_well(&self, arguments: &[&str]) -> String {
        self.run(arguments).well()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("it is ours");
        wait(&mut self.child);
    }

    /// SIGTERM, and the end that follows.
    pub fn stop(mut self) -> Ended {
        let told = Instant::now();
        self.signal(Signal::TERM);
        let status = wait(&mut self.child);
        let took = told.elapsed();
        let stderr = std::mem::replace(&mut self.stderr, collect(std::io::empty()));
        Ended { status, stderr: stderr.whole(), took }
    }

    /// The end that comes by itself.
    pub fn ended(mut self) -> Ended {
        let told = Instant::now();
        let status = wait(&mut self.child);
        let stderr = std::mem::replace(&mut self.stderr, collect(std::io::empty()));
        Ended { status, stderr: stderr.whole(), took: told.elapsed() }
    }

    /// What it has written to standard error so far.
    pub fn told(&self) -> String {
        self.stderr.so_far()
    }

    pub fn signal(&self, signal: Signal) {
        let process = Pid::from_raw(self.child.id() as i32).expect("a process id");
        rustix::process::kill_process(process, signal).expect("it is ours");
    }

    /// Whether the process has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is ours").is_some()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have been stopped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until something is so, but not for ever.
pub fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits for the end of a process, but not for ever.
pub fn wait(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().expect("it is ours") {
            return status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("the process does not end");
        }
        // Only so that the loop does not take the core from the process it waits for.
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn collect(mut source: impl Read + Send + 'static) -> Told {
    let text = Arc::default();
    let collected: Arc<Mutex<Vec<u8>>> = Arc::clone(&text);
    let reader = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        // What came before an error is still of use.
        while let Ok(count @ 1..) = source.read(&mut buffer) {
            collected.lock().expect("nobody fails with it").extend_from_slice(&buffer[..count]);
        }
    });
    Told { text, reader }
}

impl Told {
    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().expect("nobody fails with it")).into_owned()
    }

    /// After the end of the process.
    fn whole(self) -> String {
        self.reader.join().expect("it only reads");
        String::from_utf8_lossy(&self.text.lock().expect("nobody fails with it")).into_owned()
    }
}

/// The addresses of the banner's lines that begin with `start`.
fn addresses_after(banner: &str, start: &str) -> Vec<String> {
    let lines = banner.lines().filter(|line| line.starts_with(start));
    let address = |line: &str| line.split("listens on ").nth(1)?.split_whitespace().next().map(str::to_owned);
    lines.filter_map(address).collect()
}
