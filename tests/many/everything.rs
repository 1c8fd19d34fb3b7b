//! All of it at once, against a broker that has little memory.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::abuse::{GoodClient, MIB, Round, p99};
use crate::attacks::{ATTACKS, Attack, Ground};
use crate::support::directory::test_directory;
use crate::support::machine::{
    MemoryGroup, available_cores, report, resident_bytes, resident_bytes_max, scale,
};
use crate::support::node::{Node, Setup};

const MEMORY: u64 = 512 * MIB;
const WATCH: Duration = Duration::from_secs(4);
/// Five times the time without, and on a machine that is busy with other tests at least this.
const OTHERS_MAX: Duration = Duration::from_secs(3);
/// The core's own time that long turns may take of a second while everybody attacks. Unlike the times of others, it does not depend
/// on what else the machine does.
const LONG_TURNS_MAX: Duration = Duration::from_millis(500);
/// Between two attacks.
const SETTLING: Duration = Duration::from_secs(2);
/// How long each attack is watched for, seconds: prints a table.
const TABLE: &str = "TURBOPUMP_MANY_ATTACKS";

fn setup(directory: &Path, certificate: &Certificate, shards: &str, cores: &str) -> Setup {
    let secured = [
        "--tls-certificate",
        &certificate.certificate,
        "--tls-key",
        &certificate.key,
        "--tls-mode",
        "permissive",
    ];
    let node = ["--shards", shards, "--cores", cores, "--http", "127.0.0.1:0"];
    Setup::new(directory.join("data")).with(&node).with(&secured)
}

/// Starts it with little memory.
fn start(setup: Setup, group: Option<&MemoryGroup>) -> Node {
    match group {
        Some(group) => setup.in_memory_group(group).start(),
        None => {
            report("this process may not make control groups: the broker is told its memory, and watched");
            setup.with(&["--client-memory", "256MiB", "--tail-cache-bytes", "16MiB"]).start()
        }
    }
}

/// Four shards in 512 MiB, and clients that do everything that was ever found to take gigabytes or the whole core, on every shard.
/// One that publishes, receives and acknowledges goes on meanwhile.
#[test]
fn a_broker_with_little_memory_serves_on_whatever_clients_do() {
    let directory = test_directory();
    let group = MemoryGroup::make(MEMORY);
    let setup = setup(directory.path(), &Certificate::of_tests(), "4", "0,1");
    let mut node = start(setup, group.as_ref());
    let ground = Ground::prepare(&node);
    let before = resident_bytes(node.process());
    let calm = watch(&ground, &[], WATCH);
    let (_, turns) = long_turns(&node);
    let disturbed = watch(&ground, &ATTACKS, 2 * WATCH);
    let turns = Duration::from_nanos(long_turns(&node).1 - turns);
    let [calm, disturbed] =
        [calm, disturbed].map(|rounds| p99(rounds.iter().map(|parts| parts.iter().sum()).collect()));
    let most = resident_bytes_max(node.process());
    report(&format!(
        "everything at once in {} MiB: resident from {} to {} MiB at most; a round takes others {calm:?} without and \
         {disturbed:?} with it (p99); long turns took {turns:?}",
        MEMORY / MIB,
        before / MIB,
        most / MIB
    ));
    assert!(!node.has_ended(), "the broker lives");
    assert!(most < MEMORY, "{} MiB", most / MIB);
    assert!(disturbed < OTHERS_MAX.max(5 * calm), "{calm:?} to {disturbed:?}");
    let shards = 4;
    assert!(turns < shards * 2 * WATCH.as_secs() as u32 * LONG_TURNS_MAX, "{turns:?}");
}

/// Each attack by itself and all of them, in a table: the broker on the first core, everybody else on the second, where the attackers
/// have what the good client leaves.
#[test]
fn what_each_attack_costs_others() {
    let seconds = scale(TABLE, 0);
    if seconds == 0 {
        return;
    }
    let certificates = test_directory();
    let certificate = Certificate::of_rsa(certificates.path());
    report("| shards: attack | publish | receive | acknowledge | long turns | resident |");
    report("| --- | --- | --- | --- | --- | --- |");
    let time = Duration::from_secs(seconds);
    for shards in ["1", "4"] {
        let (directory, group) = (test_directory(), MemoryGroup::make(MEMORY));
        let node = start(setup(directory.path(), &certificate, shards, "0"), group.as_ref());
        let ground = Ground::prepare(&node);
        let each = ATTACKS.iter().map(|attack| (attack.name, std::slice::from_ref(attack)));
        for (name, attacks) in each.chain([("all at once", &ATTACKS[..])]) {
            attack_and_report(&format!("{shards}: {name}"), &ground, attacks, time);
            std::thread::sleep(SETTLING);
        }
    }
}

fn attack_and_report(name: &str, ground: &Ground<'_>, attacks: &[Attack], time: Duration) {
    let node = ground.node;
    let process = node.process();
    // The most that it had begins anew; without that, the figure is that of the attacks before as well.
    let _ = std::fs::write(format!("/proc/{process}/clear_refs"), "5");
    let before = resident_bytes(process);
    let calm = watch_from_beside(ground, &[], time);
    let turns_before = long_turns(node);
    let disturbed = watch_from_beside(ground, attacks, time);
    let turns_after = long_turns(node);
    let compared = |part: usize| {
        let at = |rounds: &[Round], percent| {
            let mut times: Vec<_> = rounds.iter().map(|parts| parts[part]).collect();
            times.sort();
            times.get(times.len() * percent / 100).map_or(f64::NAN, Duration::as_secs_f64) * 1e3
        };
        let (before, after) = (at(&calm, 99), at(&disturbed, 99));
        let (median_before, median) = (at(&calm, 50), at(&disturbed, 50));
        format!("{median_before:.2}, {before:.2}; {median:.2}, {after:.2}: {:.1} x", after / before)
    };
    let (publish, receive, acknowledge) = (compared(0), compared(1), compared(2));
    report(&format!(
        "| {name} ({} and {} rounds) | {publish} | {receive} | {acknowledge} | {} ms in {} | {}, {} MiB |",
        calm.len(),
        disturbed.len(),
        (turns_after.1 - turns_before.1) / 1_000_000,
        turns_after.0 - turns_before.0,
        before / MIB,
        resident_bytes_max(process) / MIB,
    ));
}

/// How many long turns there were, and their nanoseconds; none where a broker does not count them.
fn long_turns(node: &Node) -> (u64, u64) {
    let info = node.client().describe_node(false).expect("the broker answers");
    let counters = info.shards.iter().flat_map(|shard| &shard.counters);
    let sum =
        |name: &str| counters.clone().filter(|(counter, _)| counter == name).map(|(_, count)| count).sum();
    (sum("turns_long"), sum("turns_long_ns"))
}

/// What the rounds of a good client take, beside these attacks.
fn watch(ground: &Ground<'_>, attacks: &[Attack], time: Duration) -> Vec<Round> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let good = GoodClient::start(ground.node.address(), "good", 0);
        for attack in attacks {
            let (go_on, stop) = (attack.go_on, &stop);
            scope.spawn(move || {
                give_way_to_all();
                go_on(ground, stop);
            });
        }
        std::thread::sleep(time);
        let rounds = good.stop_and_tell();
        stop.store(true, Ordering::Relaxed);
        rounds
    })
}

/// The same from the second core, the first one being the broker's.
fn watch_from_beside(ground: &Ground<'_>, attacks: &[Attack], time: Duration) -> Vec<Round> {
    let watching = || {
        // Without a second core the figures are worse, and nothing else.
        if let Some(&core) = available_cores().get(1) {
            let mut set = rustix::thread::CpuSet::new();
            set.set(core);
            rustix::thread::sched_setaffinity(None, &set).expect("a thread may leave a core");
        }
        watch(ground, attacks, time)
    };
    std::thread::scope(|scope| scope.spawn(watching).join().expect("it only watches"))
}

/// Lets everybody else of this core go first: what attackers take of it is not the broker's fault.
fn give_way_to_all() {
    let own = rustix::process::getpriority_process(None).unwrap_or(0);
    let _ = rustix::process::setpriority_process(None, (own + 10).min(19));
}

/// Files of a certificate and its key.
struct Certificate {
    certificate: String,
    key: String,
}

impl Certificate {
    fn of_tests() -> Self {
        let data = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls");
        Self { certificate: format!("{data}/certificate.pem"), key: format!("{data}/key.pem") }
    }

    /// One with a key of 4,096 bits, which takes the broker most time, where the program is that makes one.
    fn of_rsa(directory: &Path) -> Self {
        let path = |name: &str| directory.join(name).to_string_lossy().into_owned();
        let (certificate, key) = (path("certificate.pem"), path("key.pem"));
        let asked = ["req", "-x509", "-newkey", "rsa:4096", "-nodes", "-subj", "/CN=localhost", "-days", "2"];
        let made = std::process::Command::new("openssl")
            .args(asked)
            .args(["-out", &certificate, "-keyout", &key])
            .output();
        if made.is_ok_and(|made| made.status.success()) {
            return Self { certificate, key };
        }
        report("without openssl: handshakes are made with the key of the tests");
        Self::of_tests()
    }
}
