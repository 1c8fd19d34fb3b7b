//! Runs the fuzz targets of `testing::fuzz`: a few hundred seeds each, or as long as `TURBOPUMP_FUZZ_SECONDS` says from
//! the seed `TURBOPUMP_FUZZ_SEED` on. A failure prints the seed and the command that repeats it.

use std::panic::catch_unwind;
use std::time::{Duration, Instant};

use turbopump::testing::fuzz::{native, storage};
use turbopump::testing::{Random, generators};
use turbopump::types::Timestamp;

/// Seeds of a run without a time. Among them is the one that once let the scan of a log stand still.
const SEEDS: u64 = 20_000;

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is `{value}`, no number")))
}

/// Runs `target` with one seed after the other.
fn run(name: &str, target: fn(u64)) {
    let first = number("TURBOPUMP_FUZZ_SEED").unwrap_or(0);
    let duration = number("TURBOPUMP_FUZZ_SECONDS").map(Duration::from_secs);
    let started = Instant::now();
    for seed in first.. {
        let done = match duration {
            Some(duration) => started.elapsed() >= duration,
            None => seed - first >= SEEDS,
        };
        if done {
            return println!("{name}: {} seeds", seed - first);
        }
        if catch_unwind(|| target(seed)).is_err() {
            panic!(
                "{name} fails; repeat with: TURBOPUMP_FUZZ_SEED={seed} TURBOPUMP_FUZZ_SECONDS=1 cargo test --test fuzz {name}"
            );
        }
    }
}

/// Noise, or a valid batch with some of its bytes changed.
fn noisy(seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    if random.chance(0.3) {
        let length = generators::length(&mut random, 9000);
        return random.bytes(length);
    }
    let mut bytes = generators::batch(&generators::messages(&mut random, 6, 500), Timestamp(1));
    for _ in 0..random.index(4) {
        let at = random.index(bytes.len());
        bytes[at] = random.number() as u8;
    }
    let keep = if random.chance(0.2) { random.index(bytes.len()) } else { bytes.len() };
    bytes.truncate(keep);
    bytes
}

#[test]
fn batches() {
    run("batches", |seed| storage::fuzz_batch(&noisy(seed)));
}

#[test]
fn changes() {
    run("changes", |seed| {
        let mut random = Random::new(seed);
        let mut bytes = Vec::new();
        for _ in 0..random.range(1..=4) {
            let body = random.index(40);
            bytes.push(random.range(0..=6) as u8);
            bytes.extend_from_slice(&(body as u32).to_le_bytes());
            let ascii = random.chance(0.5);
            let body = random.bytes(body);
            bytes.extend(body.into_iter().map(|byte| if ascii { b'a' + byte % 26 } else { byte }));
        }
        storage::fuzz_changes(&bytes);
    });
}

#[test]
fn properties() {
    run("properties", |seed| {
        let mut random = Random::new(seed);
        let length = random.index(60);
        let text: Vec<_> = (0..length).map(|_| *random.pick(b"\x01\x02\x01\x02ab \xff")).collect();
        storage::fuzz_properties(&text);
    });
}

#[test]
fn snapshots() {
    run("snapshots", |seed| storage::fuzz_snapshot(&noisy(seed)));
}

#[test]
fn logs() {
    run("logs", storage::fuzz_log);
}

#[test]
fn frames() {
    run("frames", |seed| native::fuzz_frame(&noisy(seed)));
}
