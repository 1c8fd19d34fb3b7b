//! What the codecs on the way of a batch cost per message: building, sealing, checking, placing and walking it, and the
//! envelope around it.
//!
//! `cargo bench --bench codec` runs the canonical workload; `-- --body 1024 --batch 60 --rounds 2000` another one.
//! `cargo test` runs it with few rounds, so that it cannot rot. Every line ends with a checksum over what was computed:
//! when that changes, the meaning did.

use std::hint::black_box;
use std::time::Instant;

use turbopump::api::{Produced, Reply};
use turbopump::protocol::native::{ReplyEncoder, RequestEncoder, decode_reply, decode_request};
use turbopump::protocol::remoting::message::{PlacedRecord, RecordTerms, body_checksum, write_record};
use turbopump::types::{
    Level, LogPosition, QueueKey, QueueNumber, QueueOffset, RecordLocation, Timestamp, TopicId,
};
use turbopump::wire::batch::{
    BatchBuilder, BatchHeader, CheckedBatch, Placing, records_match, reseal, stored_records,
};
use turbopump::wire::frame;
use turbopump::wire::record::Record;

const SEED: u64 = 0x5EED;

struct Parameters {
    body_bytes: usize,
    batch_messages: u32,
    rounds: u64,
}

/// One measured step: its name, and what one round of it computes.
type Step<'a> = (&'static str, Box<dyn FnMut() -> u64 + 'a>);

fn main() {
    let parameters = parse(std::env::args().skip(1).collect());
    println!(
        "codec: body {} B, batch {} messages, {} rounds, seed {SEED:#x}",
        parameters.body_bytes, parameters.batch_messages, parameters.rounds
    );
    println!("{:<24} {:>12} {:>12}  checksum", "step", "ns/batch", "ns/message");
    let key = QueueKey { topic: TopicId(1), queue: QueueNumber(3) };
    let body = random_bytes(parameters.body_bytes);
    let batch = build(&parameters, &body);
    let placed = place(&batch, key);
    let request = produce_request(key, &batch);
    let reply = produce_reply();
    let mut resealed = batch.clone();
    let (mut born, mut records) = (0, Vec::new());
    let steps: Vec<Step<'_>> = vec![
        ("build and seal", Box::new(|| sum(&build(&parameters, &body)))),
        // What the broker does with its own batches, and what checking them as a client's would cost it.
        (
            "build, to be placed",
            Box::new(|| sum(fill(&parameters, &body).finish_checked().view().as_bytes())),
        ),
        (
            "build, seal and check",
            Box::new(|| {
                let batch = build(&parameters, &body);
                sum(CheckedBatch::check_incoming(&batch).expect("whole").as_bytes())
            }),
        ),
        (
            "reseal",
            Box::new(move || {
                born += 1;
                reseal(&mut resealed, Timestamp(born));
                sum(&resealed)
            }),
        ),
        ("crc32c", Box::new(|| u64::from(crc32c::crc32c(black_box(&batch))))),
        (
            "check, as on arrival",
            Box::new(|| u64::from(CheckedBatch::check(black_box(&batch)).expect("whole").record_count())),
        ),
        ("place", Box::new(|| sum(&place_header(&batch, key)))),
        (
            "decode stored header",
            Box::new(|| BatchHeader::decode(black_box(&placed)).expect("whole").end_offset().0),
        ),
        (
            "verify and walk, as read",
            Box::new(|| {
                assert!(records_match(black_box(&placed)), "whole");
                stored_records(&placed).map(|record| record.body().len() as u64).sum()
            }),
        ),
        (
            "decode request envelope",
            Box::new(|| {
                let frame = frame::cut(black_box(&request)).expect("well formed").expect("whole");
                black_box(decode_request(&frame).expect("well formed"));
                frame.frame_bytes as u64
            }),
        ),
        ("encode reply", Box::new(|| sum(&produce_reply()))),
        // What a pull of RocketMQ's clients costs per message, and what of that is the checksum of its body.
        ("write RocketMQ's records", Box::new(|| write_records(black_box(&placed), key, &mut records))),
        (
            "crc32 of the bodies",
            Box::new(|| stored_records(&placed).map(|record| u64::from(body_checksum(record.body()))).sum()),
        ),
        (
            "decode reply",
            Box::new(|| {
                let frame = frame::cut(black_box(&reply)).expect("well formed").expect("whole");
                black_box(decode_reply(&frame).expect("well formed"));
                frame.frame_bytes as u64
            }),
        ),
    ];
    for (name, mut step) in steps {
        measure(name, &parameters, &mut step);
    }
}

/// Writes the messages of a stored batch as RocketMQ's clients read them.
fn write_records(stored: &[u8], key: QueueKey, output: &mut Vec<u8>) -> u64 {
    output.clear();
    let header = BatchHeader::decode(stored).expect("whole");
    let terms = RecordTerms {
        topic: "orders",
        queue: key.queue.0,
        store_host: ([127, 0, 0, 1], 10911).into(),
        cluster: "DefaultCluster",
    };
    for (index, record) in stored_records(stored).enumerate() {
        let placed = PlacedRecord {
            record,
            offset: header.base_offset.advance(index as u64),
            location: RecordLocation { position: header.position, index: index as u16 },
            born_time: header.born_time,
            store_time: header.store_time,
        };
        write_record(&terms, &placed, output);
    }
    output.len() as u64
}

/// Without `--bench`, which `cargo bench` adds, this is a test run.
fn parse(arguments: Vec<String>) -> Parameters {
    let value = |name: &str, default: u64| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)).map_or(default, |text| {
            text.parse().unwrap_or_else(|_| panic!("{name} takes a number, not `{text}`"))
        })
    };
    let smoke = !arguments.iter().any(|argument| argument == "--bench");
    Parameters {
        body_bytes: value("--body", 100) as usize,
        batch_messages: value("--batch", 500) as u32,
        rounds: value("--rounds", if smoke { 3 } else { 20_000 }),
    }
}

fn measure(name: &str, parameters: &Parameters, step: &mut dyn FnMut() -> u64) {
    let mut checksum = 0_u64;
    // Once before, so that caches and branch predictors have seen it.
    black_box(step());
    let begin = Instant::now();
    for round in 0..parameters.rounds {
        checksum = checksum.rotate_left(5) ^ step().wrapping_add(round);
    }
    let nanoseconds = begin.elapsed().as_nanos() as f64 / parameters.rounds as f64;
    let per_message = nanoseconds / f64::from(parameters.batch_messages);
    println!("{name:<24} {nanoseconds:>12.1} {per_message:>12.2}  {checksum:016x}");
}

fn build(parameters: &Parameters, body: &[u8]) -> Vec<u8> {
    fill(parameters, body).finish()
}

fn fill(parameters: &Parameters, body: &[u8]) -> BatchBuilder {
    let mut builder = BatchBuilder::new(Timestamp(1_700_000_000_000));
    for _ in 0..parameters.batch_messages {
        builder.push(&Record { body, ..Record::default() });
    }
    builder
}

fn place_header(batch: &[u8], key: QueueKey) -> Vec<u8> {
    let checked = CheckedBatch::check(batch).expect("whole");
    let placing = Placing {
        continues: false,
        position: LogPosition(4096),
        previous_end: LogPosition(4096),
        flushed_end: LogPosition(4096),
        epoch: 1,
        key,
        base_offset: QueueOffset(1_000_000),
        store_time: Timestamp(1_700_000_000_001),
    };
    checked.placed_header(&placing).to_vec()
}

/// The batch as it is stored.
fn place(batch: &[u8], key: QueueKey) -> Vec<u8> {
    let mut stored = place_header(batch, key);
    stored.extend_from_slice(&batch[stored.len()..]);
    stored
}

fn produce_request(key: QueueKey, batch: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    RequestEncoder::new()
        .begin_produce(&mut bytes, 7, key, Some(Level::Durable), batch.len())
        .expect("a batch within the limits");
    bytes.extend_from_slice(batch);
    bytes
}

fn produce_reply() -> Vec<u8> {
    let produced = Produced {
        base_offset: QueueOffset(1_000_000),
        position: LogPosition(4096),
        store_time: Timestamp(1_700_000_000_001),
        level: Level::Durable,
    };
    let mut bytes = Vec::new();
    ReplyEncoder::new().encode(&mut bytes, 7, &Ok(Reply::Produced(produced)));
    bytes
}

/// A few bytes of every result, so that none of it can be left out.
fn sum(bytes: &[u8]) -> u64 {
    let ends = bytes.iter().take(64).chain(bytes.iter().rev().take(64));
    ends.fold(bytes.len() as u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)))
}

fn random_bytes(count: usize) -> Vec<u8> {
    let mut state = SEED;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..count).map(|_| next()).collect()
}
