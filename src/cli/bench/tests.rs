//! The generator against a broker that errs on purpose: each fault must be found, told from the others, and counted.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;

use crate::api::{Failure, Fetch, Fetched, Produced, QueueInfo, Reply, Request, Status, TopicInfo};
use crate::cli::bench::arguments::{BenchCommand, Kind, LoadArguments};
use crate::cli::bench::clock::BenchClock;
use crate::cli::bench::load::{LoadPlan, Speech};
use crate::cli::bench::message::RunId;
use crate::cli::bench::socket::ShardEndpoint;
use crate::cli::bench::tracker::Faults;
use crate::cli::bench::verdict::Verdict;
use crate::protocol::native::{DecodedRequest, ReplyEncoder, decode_request};
use crate::types::{
    Level, LogPosition, QueueKey, QueueNumber, QueueOffset, Retention, ShardId, Timestamp, TopicId,
};
use crate::wire::batch::{BATCH_ALIGNMENT, BatchHeader, CheckedBatch, Placing};
use crate::wire::frame;

const BATCH: u64 = 10;
/// The batch, counted over all queues, with which the broker errs.
const WRONG_BATCH: u64 = 5;

/// What the broker does with one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Acknowledges it and throws it away.
    Lose,
    /// Stores it at two places.
    StoreTwice,
    /// Stores it after the next one.
    Swap,
    /// Acknowledges it at the offsets of an earlier one.
    RepeatOffsets,
    /// Stores other bytes.
    Damage,
    Refuse,
}

#[derive(Default)]
struct Store {
    /// Placed batches, by queue.
    queues: HashMap<u32, Vec<Vec<u8>>>,
    ends: HashMap<u32, u64>,
    batches: u64,
    /// Waits for the next one, with [`Fault::Swap`].
    held: Option<(QueueKey, Vec<u8>)>,
}

impl Store {
    fn place(&mut self, key: QueueKey, batch: &[u8]) -> u64 {
        let checked = CheckedBatch::check(batch).expect("the generator sends whole batches");
        let end = self.ends.entry(key.queue.0).or_default();
        let base = *end;
        *end += u64::from(checked.record_count());
        let placing = Placing {
            continues: false,
            position: LogPosition(0),
            previous_end: LogPosition(0),
            flushed_end: LogPosition(0),
            epoch: 1,
            key,
            base_offset: QueueOffset(base),
            store_time: Timestamp(1),
        };
        let mut stored = checked.placed_header(&placing).to_vec();
        stored.extend_from_slice(checked.payload());
        self.queues.entry(key.queue.0).or_default().push(stored);
        base
    }

    fn produce(&mut self, key: QueueKey, batch: &[u8], fault: Fault) -> Result<Reply, Failure> {
        self.batches += 1;
        let wrong = self.batches == WRONG_BATCH;
        let end = self.ends.get(&key.queue.0).copied().unwrap_or(0);
        let base = match fault {
            Fault::Lose if wrong => end,
            Fault::Refuse if wrong => return Err(Failure::new(Status::Busy, "not now")),
            Fault::Swap if wrong => {
                self.held = Some((key, batch.to_vec()));
                end + BATCH
            }
            Fault::RepeatOffsets if wrong => {
                self.place(key, batch);
                end - BATCH
            }
            Fault::StoreTwice if wrong => {
                self.place(key, batch);
                self.place(key, batch)
            }
            Fault::Damage if wrong => {
                let base = self.place(key, batch);
                let stored = self.queues.get_mut(&key.queue.0).and_then(|queue| queue.last_mut());
                *stored.and_then(|bytes| bytes.last_mut()).expect("just placed") ^= 1;
                base
            }
            _ => {
                let base = self.place(key, batch);
                if let Some((key, batch)) = self.held.take_if(|(held, _)| *held == key) {
                    self.place(key, &batch);
                }
                base
            }
        };
        Ok(Reply::Produced(Produced {
            base_offset: QueueOffset(base),
            position: LogPosition(0),
            store_time: Timestamp(1),
            level: Level::Durable,
        }))
    }

    fn fetch(&self, fetch: &Fetch) -> Reply {
        let mut fetched = Fetched {
            batches: Vec::new(),
            next_offset: fetch.offset,
            first_offset: QueueOffset(0),
            end_offset: QueueOffset(self.ends.get(&fetch.key.queue.0).copied().unwrap_or(0)),
            damaged: None,
        };
        for batch in self.queues.get(&fetch.key.queue.0).into_iter().flatten() {
            let end = BatchHeader::decode(batch).expect("placed here").end_offset();
            if end > fetch.offset && fetched.batches.len() < fetch.bytes_max as usize {
                fetched.batches.resize(fetched.batches.len().next_multiple_of(BATCH_ALIGNMENT), 0);
                fetched.batches.extend_from_slice(batch);
                fetched.next_offset = end;
            }
        }
        Reply::Fetched(fetched)
    }
}

/// Serves until the peer goes.
fn serve(mut stream: TcpStream, store: &Mutex<Store>, fault: Fault) -> std::io::Result<()> {
    let mut input = vec![0; frame::PREFACE_BYTES];
    stream.read_exact(&mut input)?;
    stream.write_all(&frame::preface())?;
    input.clear();
    let mut chunk = vec![0; 65_536];
    loop {
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            return Ok(());
        }
        input.extend_from_slice(&chunk[..count]);
        let mut output = Vec::new();
        let mut used = 0;
        while let Some(frame) = frame::cut(&input[used..]).expect("well formed") {
            let reply = match decode_request(&frame).expect("well formed") {
                DecodedRequest::Produce { key, batch, .. } => {
                    store.lock().expect("no panic").produce(key, batch, fault)
                }
                DecodedRequest::Other(Request::Fetch(fetch)) => {
                    let reply = store.lock().expect("no panic").fetch(&fetch);
                    if matches!(&reply, Reply::Fetched(fetched) if fetched.batches.is_empty()) {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    Ok(reply)
                }
                other => panic!("the generator does not send {other:?}"),
            };
            ReplyEncoder::new().encode(&mut output, frame.correlation, &reply);
            used += frame.frame_bytes;
        }
        input.drain(..used);
        stream.write_all(&output)?;
    }
}

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    command: BenchCommand,
}

fn arguments(kind: Kind) -> LoadArguments {
    let line = format!(
        "bench {} t --rate 2000 --batch {BATCH} --body 64 --duration 300ms --connections 2 --threads 2",
        kind.name()
    );
    let line = Line::try_parse_from(line.split_whitespace()).expect("valid");
    line.command.split().1
}

fn topic(store: &Store) -> TopicInfo {
    let queue = |number| QueueInfo {
        queue: QueueNumber(number),
        shard: ShardId(0),
        first_offset: QueueOffset(0),
        end_offset: QueueOffset(store.ends.get(&number).copied().unwrap_or(0)),
    };
    TopicInfo {
        topic: "t".parse().expect("a name"),
        id: TopicId(1),
        queue_count: 2,
        retention: Retention::Inherited,
        level: None,
        permission: 6,
        consumers: None,
        queues: vec![queue(0), queue(1)],
    }
}

/// Runs against a broker with a fault. Returns what was found, and what was counted.
fn run(kind: Kind, fault: Fault) -> (Faults, u64, u64) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback");
    let address = listener.local_addr().expect("bound").to_string();
    let endpoints = [ShardEndpoint { address, expected: None, credentials: None }];
    let store = Arc::new(Mutex::new(Store::default()));
    let shared = Arc::clone(&store);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let store = Arc::clone(&shared);
            // A generator that has ended may leave a connection in any state.
            std::thread::spawn(move || serve(stream, &store, fault).unwrap_or_default());
        }
    });
    let arguments = arguments(kind);
    let before = topic(&store.lock().expect("no panic"));
    let run = RunId(77);
    let plan = LoadPlan {
        kind,
        arguments: &arguments,
        clock: BenchClock::start(),
        run,
        duration: arguments.duration.0,
        topic: &before,
        speech: Speech::Native(&endpoints),
        lines: false,
    };
    let result = plan.run().expect("connections to the fake broker");
    let (errors, messages) = (result.total.errors, result.total.produced.messages);
    let mut verdict = Verdict::new(kind, run, result);
    let now = topic(&store.lock().expect("no panic"));
    verdict.check_offsets(&now);
    if kind == Kind::Produce {
        let ranges = verdict.written_ranges(&before, &now);
        verdict.check_contents(plan.verify(ranges).expect("connections to the fake broker"));
        assert!(verdict.verified());
    }
    (verdict.faults(), errors, messages)
}

#[test]
fn a_sound_broker_gets_a_clean_verdict() {
    for kind in [Kind::Produce, Kind::EndToEnd] {
        let (faults, errors, messages) = run(kind, Fault::None);
        assert_eq!((faults, errors), (Faults::default(), 0), "{kind:?}");
        // A busy machine may not start all 60 batches in time; whatever was started is accounted for.
        assert!(messages > 0 && messages.is_multiple_of(BATCH), "{messages}");
    }
}

#[test]
fn every_fault_is_found_by_reading_back() {
    let of = |lost, duplicated, disordered, damaged| Faults { lost, duplicated, disordered, damaged };
    for kind in [Kind::Produce, Kind::EndToEnd] {
        // The next batch gets the offsets that the lost one was promised.
        assert_eq!(run(kind, Fault::Lose).0, of(BATCH, BATCH, 0, 0), "{kind:?}");
        assert_eq!(run(kind, Fault::StoreTwice).0, of(0, BATCH, 0, 0), "{kind:?}");
        let (faults, _, _) = run(kind, Fault::RepeatOffsets);
        assert_eq!((faults.lost, faults.duplicated), (0, BATCH), "{kind:?}");
        let (faults, _, _) = run(kind, Fault::Damage);
        assert_eq!((faults.lost, faults.damaged), (BATCH, BATCH), "{kind:?}");
    }
}

#[test]
fn a_batch_after_its_successor_is_disorder() {
    let (faults, _, _) = run(Kind::Produce, Fault::Swap);
    assert_eq!((faults.lost, faults.damaged), (0, 0));
    assert!(faults.disordered >= BATCH, "{faults:?}");
}

#[test]
fn a_refused_batch_is_an_error_and_no_loss() {
    for kind in [Kind::Produce, Kind::EndToEnd] {
        let (faults, errors, _) = run(kind, Fault::Refuse);
        assert_eq!((faults, errors), (Faults::default(), 1), "{kind:?}");
    }
}
