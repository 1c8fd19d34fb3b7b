//! Pulls of what is no longer in memory: what lies side by side in the log is read once, whoever needs what of it.

use futures_lite::future::block_on;
use turbopump::api::{Filter, Produce, Reply, Request};
use turbopump::broker::{Pull, StoredRecord, Taker};
use turbopump::disk::faulty::{FaultPlan, FaultyDisk, Restart};
use turbopump::disk::faulty::{Rule, When};
use turbopump::disk::{Disk, DiskBuffer, DiskErrorKind, DiskFile, OpenMode, Operation};
use turbopump::limits::{BLOCK_BYTES, READ_BYTES};
use turbopump::log::{StretchBatch, Want, segment_name};
use turbopump::types::{Level, LogPosition, QueueKey, QueueNumber, QueueOffset, Timestamp, TopicId};
use turbopump::wire::batch::{BATCH_HEADER_BYTES, BatchBuilder};
use turbopump::wire::record::{RECORD_HEADER_BYTES, Record};

use super::leases::{SECOND, create};
use super::node::{Node, Setup, log_directory, on_node};

/// Messages of a batch, and of a pull.
const BATCH: u64 = 100;
const PULL: usize = 32;

/// A log without anything of it in memory, and where its batches begin, in the order in which they were stored.
struct Filled {
    disk: FaultyDisk,
    topic: TopicId,
    positions: Vec<LogPosition>,
}

/// What a pull was given.
struct Taken {
    missing: usize,
    bodies: Vec<(u64, Vec<u8>)>,
}

impl Taker for Taken {
    fn missing(&self) -> usize {
        self.missing
    }

    fn take(&mut self, record: &StoredRecord<'_>) -> bool {
        self.missing -= 1;
        self.bodies.push((record.offset.0, record.record.body().to_vec()));
        true
    }
}

/// Someone who reads one queue in order.
struct Reader {
    key: QueueKey,
    next: u64,
    /// Pulls that were answered without a wait.
    at_once: u64,
    pulls: u64,
    skipped: u64,
}

impl Reader {
    fn new(topic: TopicId, queue: u32, next: u64) -> Self {
        Self { key: QueueKey { topic, queue: QueueNumber(queue) }, next, at_once: 0, pulls: 0, skipped: 0 }
    }

    /// Pulls once, has read what follows, and checks what came.
    async fn pull(&mut self, node: &Node) {
        let (broker, filter) = (node.broker(), Filter::default());
        let pull = Pull { key: self.key, offset: QueueOffset(self.next), filter: &filter };
        let mut taken = Taken { missing: PULL, bodies: Vec::new() };
        let pulled = match broker.pull_now(&pull, &mut taken).expect("a healthy disk") {
            Some(pulled) => {
                self.at_once += 1;
                pulled
            }
            None => broker.pull(&pull, &mut taken).await.expect("a healthy disk"),
        };
        self.pulls += 1;
        if let Some(reading) = broker.read_stretches_ahead() {
            reading.await;
        }
        for (offset, body) in &taken.bodies {
            assert_eq!(*body, body_of(self.key.queue.0, *offset));
        }
        assert!(pulled.next.0 > self.next, "no further than {}", self.next);
        self.skipped += pulled.next.0 - self.next - taken.bodies.len() as u64;
        self.next = pulled.next.0;
    }
}

fn body_of(queue: u32, offset: u64) -> Vec<u8> {
    let mut body = format!("{queue} {offset}").into_bytes();
    body.resize(256, b'-');
    body
}

/// Stores batches queue after queue, round after round.
async fn store(node: &Node, topic: TopicId, queues: u32, rounds: std::ops::Range<u64>) -> Vec<LogPosition> {
    let mut positions = Vec::new();
    for round in rounds {
        for queue in 0..queues {
            let mut builder = BatchBuilder::new(Timestamp(1));
            for number in 0..BATCH {
                let body = body_of(queue, round * BATCH + number);
                builder.push(&Record { body: &body, ..Record::default() });
            }
            let key = QueueKey { topic, queue: QueueNumber(queue) };
            let produce = Produce { key, level: Some(Level::Durable), batch: builder.finish().into() };
            match node.handle(Request::Produce(produce)).await {
                Ok(Reply::Produced(produced)) => positions.push(produced.position),
                other => panic!("not stored: {other:?}"),
            }
        }
    }
    positions
}

fn filled(queues: u32, rounds: u64) -> Filled {
    let disk = FaultyDisk::new(1, FaultPlan::none());
    let ran = on_node(&disk, &Setup::default(), 1, async |node| {
        let topic = create(node, "t", queues).await;
        (topic, store(node, topic, queues, 0..rounds).await)
    });
    let (topic, positions) = ran.expect("an empty disk");
    Filled { disk: disk.outcome(Restart::ProcessKill, 1), topic, positions }
}

/// The counter, once nothing but readers makes it grow.
async fn counter_at_rest(node: &Node, name: &str) -> u64 {
    node.clock.sleep(10 * SECOND).await;
    counter(node, name)
}

fn counter(node: &Node, name: &str) -> u64 {
    let broker = node.broker();
    let counters = broker.metrics().counters().into_iter().chain(broker.memory().counters());
    counters.filter(|(counter, _)| counter == name).map(|(_, value)| value).sum()
}

#[test]
fn readers_of_all_queues_read_the_log_once_and_ahead() {
    let (queues, rounds) = (8, 40);
    let filled = filled(queues, rounds);
    let ran = on_node(&filled.disk, &Setup::default(), 1, async |node| {
        let bytes = counter_at_rest(node, "disk_bytes_read").await;
        let reads = counter(node, "disk_reads");
        let mut readers: Vec<_> = (0..queues).map(|queue| Reader::new(filled.topic, queue, 0)).collect();
        while readers[0].next < rounds * BATCH {
            for reader in &mut readers {
                reader.pull(node).await;
            }
        }
        let (reads, bytes) = (counter(node, "disk_reads") - reads, counter(node, "disk_bytes_read") - bytes);
        let stored = filled.positions.last().expect("batches").0;
        let stretches = stored.div_ceil(READ_BYTES as u64) + 1;
        assert!(reads <= stretches + 4, "{reads} reads of {stretches} stretches");
        assert!(bytes <= stored + stored / 10, "{bytes} bytes were read of {stored}");
        let (pulls, at_once) = readers
            .iter()
            .fold((0, 0), |(pulls, at_once), reader| (pulls + reader.pulls, at_once + reader.at_once));
        assert!(pulls - at_once <= pulls / 10, "{at_once} of {pulls} pulls found what they needed in memory");
        let full = counter(node, "memory_ahead");
        assert!(full <= 64 * 1024 * 1024 / 17 / 2, "{full} bytes are kept");
        assert!(full > 0, "nothing is kept");
        node.clock.sleep(2 * SECOND).await;
        node.broker().let_stretches_go();
        assert_eq!(counter(node, "memory_ahead"), 0, "it goes back");
    });
    ran.expect("a healthy disk");
}

/// Readers that begin at as many places of one queue, each of which reads so many messages. Returns the bytes that were read for
/// one that was wanted.
fn share_of_readers(count: u64, each: u64) -> f64 {
    let filled = filled(1, count * each / BATCH);
    let ran = on_node(&filled.disk, &Setup::default(), 1, async |node| {
        let bytes = counter_at_rest(node, "disk_bytes_read").await;
        let mut readers: Vec<_> =
            (0..count).map(|number| Reader::new(filled.topic, 0, number * each)).collect();
        for _ in 0..each / PULL as u64 {
            for reader in &mut readers {
                reader.pull(node).await;
            }
        }
        let last = filled.positions.last().expect("batches").0;
        (counter(node, "disk_bytes_read") - bytes) as f64 / last as f64
    });
    ran.expect("a healthy disk")
}

#[test]
fn two_readers_far_apart_do_not_read_anything_twice() {
    let share = share_of_readers(2, 24_000);
    assert!(share < 1.2, "{share} bytes were read for one that was wanted");
}

/// So many that no more than one in ten has a stretch of its own.
#[test]
fn many_readers_in_many_places_do_not_take_from_one_another() {
    let share = share_of_readers(70, 1_600);
    assert!(share < 1.5, "{share} bytes were read for one that was wanted");
}

#[test]
fn a_reader_here_and_there_reads_what_it_needs_alone() {
    let filled = filled(64, 12);
    let ran = on_node(&filled.disk, &Setup::default(), 1, async |node| {
        let bytes = counter_at_rest(node, "disk_bytes_read").await;
        let mut reader = Reader::new(filled.topic, 7, 0);
        while reader.next < 12 * BATCH {
            reader.pull(node).await;
        }
        let bytes = counter(node, "disk_bytes_read") - bytes;
        assert!(bytes < 12 * 10 * BLOCK_BYTES as u64, "{bytes} bytes for 12 batches of 30 KB");
    });
    ran.expect("a healthy disk");
}

/// Changes one byte of the log on the disk.
fn flip(disk: &FaultyDisk, position: LogPosition) {
    block_on(async {
        let path = log_directory(0).join(segment_name(LogPosition(0)));
        let file = disk.open(&path, OpenMode::Existing).await.expect("a segment");
        let at = position.0 / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        let mut buffer = disk.allocate(BLOCK_BYTES);
        buffer.as_mut_slice().copy_from_slice(&file.read(at, BLOCK_BYTES).await.expect("a healthy disk"));
        buffer.as_mut_slice()[(position.0 - at) as usize] ^= 1;
        file.write(at, std::rc::Rc::new(buffer)).await.expect("a healthy disk");
        file.close().await.expect("a healthy disk");
    });
}

#[test]
fn damage_in_a_stretch_is_told_and_the_batches_around_it_are_handed_out() {
    let (queues, rounds, harmed) = (4, 20, 33);
    let filled = filled(queues, rounds);
    flip(&filled.disk, filled.positions[harmed].advance(10_000));
    let ran = on_node(&filled.disk, &Setup::default(), 1, async |node| {
        counter_at_rest(node, "disk_reads").await;
        let mut readers: Vec<_> = (0..queues).map(|queue| Reader::new(filled.topic, queue, 0)).collect();
        for reader in &mut readers {
            while reader.next < rounds * BATCH {
                reader.pull(node).await;
            }
        }
        let skipped: Vec<u64> = readers.iter().map(|reader| reader.skipped).collect();
        let expected = (0..queues).map(|queue| if queue == harmed as u32 % queues { BATCH } else { 0 });
        assert_eq!(skipped, expected.collect::<Vec<_>>());
        assert_eq!(counter(node, "damaged_batches"), 1);
    });
    ran.expect("a healthy disk");
}

#[test]
fn a_batch_of_a_stretch_is_checked_when_it_is_first_asked_for() {
    let harmed = 3;
    let filled = filled(1, 7);
    flip(&filled.disk, filled.positions[harmed].advance(10_000));
    let ran = on_node(&filled.disk, &Setup::default(), 1, async |node| {
        let log = node.broker().log();
        let range = log.stretch_at(filled.positions[0]).expect("a segment");
        let read = log.read_stretch(&range).await.expect("a healthy disk");
        let stretch = read.expect("all of it is durable");
        let batch_bytes = BATCH_HEADER_BYTES + BATCH as usize * (RECORD_HEADER_BYTES + 256);
        // Whether it is found, and for the first time.
        let found = |position: LogPosition, bytes: usize| {
            let want = Want { position, batch_bytes: bytes as u32 };
            log.batch_in(&[&stretch], &want).map(|batch| match batch {
                StretchBatch::InPlace { batch, is_new } => {
                    assert_eq!(batch.len(), bytes);
                    is_new
                }
                StretchBatch::Copied(_) => panic!("it lies in one stretch"),
            })
        };
        for (index, position) in filled.positions.iter().enumerate() {
            let expected = if index == harmed { [None, None] } else { [Some(true), Some(false)] };
            assert_eq!([(); 2].map(|()| found(*position, batch_bytes)), expected, "batch {index}");
            assert_eq!(found(*position, batch_bytes - 8), None, "another length of batch {index}");
            assert_eq!(found(position.advance(8), batch_bytes), None, "within batch {index}");
            assert_eq!(found(position.advance(1), batch_bytes), None, "where no batch begins");
        }
    });
    ran.expect("a healthy disk");
}

/// It is looked at where it lies, which its stretch is no longer when the reader comes back.
#[test]
fn what_a_slow_reader_has_begun_is_there_when_its_stretch_has_gone() {
    let queues = 4;
    let filled = filled(queues, 20);
    let ran = on_node(&filled.disk, &Setup::default(), 1, async |node| {
        counter_at_rest(node, "disk_reads").await;
        let mut readers: Vec<_> = (0..queues).map(|queue| Reader::new(filled.topic, queue, 0)).collect();
        while readers[0].next < 2 * BATCH + PULL as u64 {
            for reader in &mut readers {
                reader.pull(node).await;
            }
        }
        let reads = counter(node, "disk_reads");
        node.clock.sleep(2 * SECOND).await;
        node.broker().let_stretches_go();
        assert_eq!(counter(node, "memory_ahead"), 0);
        for reader in &mut readers {
            reader.pull(node).await;
        }
        assert_eq!(counter(node, "disk_reads"), reads);
        assert!(readers.iter().all(|reader| reader.next < 3 * BATCH));
    });
    ran.expect("a healthy disk");
}

/// What is read ahead of readers who come there after it was let go is read for nothing.
#[test]
fn nothing_is_read_ahead_of_slow_readers() {
    let (queues, rounds) = (8, 30);
    let filled = filled(queues, rounds);
    let ran = on_node(&filled.disk, &Setup::default(), 1, async |node| {
        let bytes = counter_at_rest(node, "disk_bytes_read").await;
        let mut readers: Vec<_> = (0..queues).map(|queue| Reader::new(filled.topic, queue, 0)).collect();
        while readers[0].next < rounds * BATCH {
            for reader in &mut readers {
                reader.pull(node).await;
            }
            node.clock.sleep(SECOND / 4).await;
            node.broker().let_stretches_go();
        }
        let bytes = counter(node, "disk_bytes_read") - bytes;
        let stored = filled.positions.last().expect("batches").0;
        assert!(bytes <= stored + stored / 3, "{bytes} bytes were read of {stored}");
    });
    ran.expect("a healthy disk");
}

#[test]
fn a_stretch_that_cannot_be_read_costs_its_readers_no_more_than_what_they_need() {
    let (queues, rounds) = (4, 20);
    let filled = filled(queues, rounds);
    let ran = on_node(&filled.disk, &Setup::default(), 1, async |node| {
        counter_at_rest(node, "disk_reads").await;
        let mut readers: Vec<_> = (0..queues).map(|queue| Reader::new(filled.topic, queue, 0)).collect();
        // Two batches are read alone, and the third with what is around it.
        while readers[0].next < 2 * BATCH {
            readers[0].pull(node).await;
        }
        let reads = counter(node, "disk_bytes_read");
        let fails = Rule::error(Operation::Read, When::Once(0), DiskErrorKind::Failed);
        filled.disk.set_plan(FaultPlan::none().with(fails));
        while readers[1].next < rounds * BATCH {
            for reader in readers.iter_mut().filter(|reader| reader.next < rounds * BATCH) {
                reader.pull(node).await;
            }
        }
        assert!(readers.iter().all(|reader| reader.skipped == 0));
        let (bytes, stored) =
            (counter(node, "disk_bytes_read") - reads, filled.positions.last().expect("batches").0);
        assert!(bytes <= stored + stored / 4, "{bytes} bytes were read of {stored}");
    });
    ran.expect("a healthy disk");
}

#[test]
fn a_segment_may_go_under_its_readers() {
    let plain = Setup::default();
    let setup = Setup { retention_bytes: Some(2 * plain.segment_bytes), ..plain };
    let filled = filled(2, 20);
    let ran = on_node(&filled.disk, &setup, 1, async |node| {
        counter_at_rest(node, "disk_reads").await;
        let mut reader = Reader::new(filled.topic, 0, 0);
        for _ in 0..8 {
            reader.pull(node).await;
        }
        let mut rounds = 20;
        while node.broker().log().first_position() == LogPosition(0) {
            store(node, filled.topic, 2, rounds..rounds + 100).await;
            rounds += 100;
            node.clock.sleep(2 * SECOND).await;
        }
        // As if it had found the place before the segment went.
        let first = node.broker().queue_span(reader.key).expect("it is there").first;
        assert!(first.0 > reader.next);
        reader.pull(node).await;
        assert!(reader.next >= first.0);
        let skipped = reader.skipped;
        while reader.next < rounds * BATCH {
            reader.pull(node).await;
        }
        assert_eq!(reader.skipped, skipped);
    });
    ran.expect("a healthy disk");
}
