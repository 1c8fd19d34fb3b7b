//! Runs the fuzz targets of `testing::fuzz`: a few hundred seeds each, or as long as `TURBOPUMP_FUZZ_SECONDS` says from
//! the seed `TURBOPUMP_FUZZ_SEED` on. A failure prints the seed and the command that repeats it.

use std::panic::catch_unwind;
use std::time::{Duration, Instant};

use turbopump::protocol::remoting::HeaderForm;
use turbopump::testing::fuzz::{BYTE_TARGETS, expressions, http, native, remoting, storage};
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

/// What the coverage-guided fuzzer has found (`tools/fuzz`), without it: each input was of code that no other one reached, or
/// has failed once.
#[test]
fn corpus() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/fuzz/corpus");
    let names = |path: &std::path::Path| -> Vec<String> {
        let entries = std::fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let name = |entry: std::io::Result<std::fs::DirEntry>| entry.expect("an entry").file_name();
        let mut names: Vec<_> = entries.map(name).map(|name| name.into_string().expect("UTF-8")).collect();
        names.sort();
        names
    };
    assert_eq!(
        names(&root),
        BYTE_TARGETS.map(|(name, _)| name),
        "each target has a corpus, in the order of names"
    );
    for (name, target) in BYTE_TARGETS {
        let inputs = names(&root.join(name));
        assert!(!inputs.is_empty(), "the corpus of {name} is empty");
        for input in inputs {
            let path = root.join(name).join(input);
            let bytes = std::fs::read(&path).expect("a file of the corpus");
            let outcome = catch_unwind(|| target(&bytes));
            assert!(
                outcome.is_ok(),
                "{name} fails; repeat with: bash tools/fuzz/run.sh repeat {name} {}",
                path.display()
            );
        }
    }
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
            bytes.push(random.range(0..=24) as u8);
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

#[test]
fn receiving() {
    run("receiving", native::fuzz_receiving);
}

/// Pieces of what HTTP clients send, shuffled, with noise between them.
fn shuffled(seed: u64, pieces: &[&str]) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes = Vec::new();
    for _ in 0..random.index(30) {
        bytes.extend_from_slice(pieces[random.index(pieces.len())].as_bytes());
        if random.chance(0.05) {
            let noise = random.index(4);
            bytes.extend(random.bytes(noise));
        }
    }
    bytes
}

#[test]
fn documents() {
    const PARTS: [&str; 24] = [
        "<Message>",
        "</Message>",
        "<MessageBody>",
        "</MessageBody>",
        "<Properties>",
        "</Properties>",
        "<MessageTag/>",
        "<MessageTag>",
        "</MessageTag>",
        "<ReceiptHandles>",
        "</ReceiptHandles>",
        "<ReceiptHandle>",
        "</ReceiptHandle>",
        "<x:Message xmlns:x=\"u\">",
        "<![CDATA[",
        "]]>",
        "&amp;",
        "&#13;",
        "&#x41;",
        "<!--",
        "-->",
        "text",
        "a:b|",
        "<?p ?>",
    ];
    run("documents", |seed| {
        // Half of them are wellformed around their middle, or almost none would be understood.
        let mut bytes = shuffled(seed, &PARTS);
        if seed % 2 == 0 {
            let root = if seed % 4 == 0 { "Message" } else { "ReceiptHandles" };
            let child = if seed % 4 == 0 { "MessageBody" } else { "ReceiptHandle" };
            let inner = String::from_utf8_lossy(&shuffled(seed, &PARTS[14..])).into_owned();
            bytes = format!("<{root}><{child}>x{inner}</{child}></{root}>").into_bytes();
        }
        http::fuzz_document(&bytes);
        http::fuzz_body(&bytes);
        http::fuzz_body(&noisy(seed));
    });
}

#[test]
fn http_properties() {
    run("http_properties", |seed| {
        http::fuzz_properties(&shuffled(
            seed,
            &["KEYS", ":", "|", "a", "b:1|", "__TransCheckT:3", "\u{e9}", "&"],
        ));
    });
}

#[test]
fn targets() {
    run("targets", |seed| {
        const PARTS: [&str; 20] = [
            "/topics/",
            "/messages",
            "?",
            "&",
            "=",
            "consumer=g",
            "numOfMessages=",
            "waitseconds=",
            "tag=",
            "trans=order",
            "trans=commit",
            "ns=i",
            "%7C%7C",
            "||",
            "+",
            "%",
            "16",
            "30",
            "a",
            "#",
        ];
        http::fuzz_target(&shuffled(seed, &PARTS));
    });
}

#[test]
fn expressions() {
    const PARTS: [&str; 40] = [
        " ",
        " ",
        " ",
        "a",
        "b",
        "TAGS",
        "KEYS",
        "nix",
        "=",
        "<>",
        ">",
        ">=",
        "<",
        "<=",
        " AND ",
        " OR ",
        " NOT ",
        "(",
        ")",
        " BETWEEN ",
        " IN ",
        ",",
        " IS NULL",
        " IS NOT NULL",
        " CONTAINS ",
        " STARTSWITH ",
        " ENDSWITH ",
        "'x'",
        "'y",
        "''",
        "5",
        "3000000000",
        "0.5",
        "1e9",
        "TRUE",
        "NULL",
        "-",
        "+",
        "--\n",
        "/*",
    ];
    const WHOLE: [&str; 8] = [
        "a = 5",
        "b <> 'y'",
        "TAGS IN ('x','y')",
        "a BETWEEN -1 AND 9.5",
        "KEYS CONTAINS 'k2'",
        "nix IS NULL",
        "a",
        "TRUE",
    ];
    run("expressions", |seed| {
        expressions::fuzz_expression(&shuffled(seed, &PARTS));
        // What is joined of whole parts is mostly understood.
        let mut random = Random::new(seed);
        let mut text = (*random.pick(&WHOLE)).to_owned();
        for _ in 0..random.index(6) {
            let other = *random.pick(&WHOLE);
            text = match random.index(5) {
                0 => format!("{text} AND {other}"),
                1 => format!("{other} OR {text}"),
                2 => format!("({text}) OR {other}"),
                3 => format!("NOT ({text})"),
                _ => format!("({other}) = ({text})"),
            };
        }
        expressions::fuzz_expression(text.as_bytes());
    });
}

/// What headers and bodies of RocketMQ's own clients are made of.
const JSON_PARTS: [&str; 30] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"code\":310",
    "\"opaque\":7",
    "\"flag\":2",
    "\"version\":\"63\"",
    "\"language\":\"CPP\"",
    "\"extFields\":{",
    "\"remark\":\"\"",
    "\"a\":\"b\"",
    "\"i\":\"KEYS\\u0001k\\u0002\"",
    "\"e\":3",
    "{\"brokerName\":\"b\",\"queueId\":0}:1",
    "0:\"x\"",
    "true",
    "null",
    "-12",
    "\"\\ud83d\\ude00\"",
    "\"\\n\\\"\"",
    "\\u00",
    "\"",
    "word",
    " \r\n",
    "\u{e9}",
    "1.5e3",
    "\0",
];

#[test]
fn remoting_json() {
    run("remoting_json", |seed| {
        let inner = shuffled(seed, &JSON_PARTS);
        remoting::fuzz_body(&inner);
        remoting::fuzz_header(HeaderForm::Json, &inner);
        // Half of them are wellformed around their middle, or almost none would be understood.
        let inner = String::from_utf8_lossy(&inner);
        let header = format!("{{\"code\":1,\"opaque\":2,\"extFields\":{{\"x\":{inner}}}}}");
        remoting::fuzz_header(HeaderForm::Json, header.as_bytes());
        remoting::fuzz_body(format!("{{\"x\":[{inner}],y:{inner}}}").as_bytes());
    });
}

#[test]
fn remoting_frames() {
    run("remoting_frames", remoting::fuzz_changed_frame);
}
