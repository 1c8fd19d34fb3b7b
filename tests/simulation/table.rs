//! Rows of the table in `log::recovery` that crashes and flipped bits do not reach.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

use futures_lite::future::block_on;
use turbopump::broker::{ShardHome, StartError, repair_shard};
use turbopump::disk::faulty::{FaultPlan, FaultyDisk, Landing, Restart, Rule, When};
use turbopump::disk::{Disk, DiskBuffer, DiskFile, OpenMode};
use turbopump::limits::BLOCK_BYTES;
use turbopump::log::{Act, Flaw, OpenError, SEGMENT_HEADER_BYTES, segment_name};
use turbopump::types::{Level, LogPosition, QueueKey, QueueNumber, QueueOffset, ShardId};
use turbopump::wire::batch::{BATCH_HEADER_BYTES, BATCH_MAGIC, BatchHeader, LogSecret};

use super::checks::{check_ledger, check_restart, live_queues, remove_derived};
use super::ledger::Ledger;
use super::node::{Node, Setup, log_directory, on_node, shard_directory};
use super::workload::{Books, create, produce, produce_sized};

const DURABLE: Option<Level> = Some(Level::Durable);
/// Byte map of a batch's header: see `wire::batch`.
const HEADER_CRC: usize = 12;

/// A disk with a topic and some batches, stopped well.
fn filled(seed: u64) -> (FaultyDisk, Ledger) {
    let disk = FaultyDisk::new(seed, FaultPlan::none());
    let books: Books = Rc::new(RefCell::default());
    let made = on_node(&disk, &Setup::default(), 1, async |node| {
        let topic = create(node, &books, "t", 2).await.expect("a topic").id;
        for number in 0..12 {
            let key = QueueKey { topic, queue: QueueNumber((number % 2) as u32) };
            produce(node, &books, key, DURABLE, number, 900).await.expect("a healthy disk");
        }
    });
    made.expect("an empty disk");
    (disk, books.take())
}

/// Changes a block of a file in place.
fn patch(disk: &FaultyDisk, path: &Path, block: u64, change: impl FnOnce(&mut [u8])) {
    block_on(async {
        let file = disk.open(path, OpenMode::Existing).await.expect("a file that is there");
        let at = block * BLOCK_BYTES as u64;
        let found = file.read(at, BLOCK_BYTES).await.expect("a healthy disk");
        let mut buffer = disk.allocate(BLOCK_BYTES);
        buffer.as_mut_slice().copy_from_slice(&found);
        change(buffer.as_mut_slice());
        file.write(at, Rc::new(buffer)).await.expect("a healthy disk");
        file.sync().await.expect("a healthy disk");
        file.close().await.expect("a healthy disk");
    });
}

/// Changes a byte of checked bytes and moves their checksum along. The checksum is linear, so nothing but the two
/// versions of the bytes is needed for that.
fn forge(bytes: &mut [u8], at: usize, value: u8, checksum_at: usize, sum: impl Fn(&[u8]) -> u32) {
    let before = sum(bytes);
    bytes[at] = value;
    let stored = u32::from_le_bytes(bytes[checksum_at..checksum_at + 4].try_into().expect("four bytes"));
    let moved = stored ^ before ^ sum(bytes);
    bytes[checksum_at..checksum_at + 4].copy_from_slice(&moved.to_le_bytes());
}

fn batch_checksum(header: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[..HEADER_CRC]), &header[16..BATCH_HEADER_BYTES])
}

fn start(disk: &FaultyDisk) -> Result<(), StartError> {
    on_node(disk, &Setup::default(), 3, async |_| {})
}

/// A start is refused by name, and what is stored stays as it is: without the change all is there.
fn check_newer(label: &str, name: &str, block: u64, change: impl Fn(&mut [u8])) {
    let (disk, ledger) = filled(1);
    remove_derived(&disk, &Setup::default());
    let path = log_directory(0).join(name);
    let before = disk.clean_bytes(&path);
    patch(&disk, &path, block, &change);
    match start(&disk) {
        Err(StartError::Log(OpenError::Newer { file, .. })) => {
            assert!(file.ends_with(name), "{label}: {file}")
        }
        other => panic!("{label}: {other:?}"),
    }
    let at = block as usize * BLOCK_BYTES;
    patch(&disk, &path, block, |bytes| bytes.copy_from_slice(&before[at..at + BLOCK_BYTES]));
    check_restart(&disk, &Setup::default(), &ledger, Restart::ProcessKill, label);
}

#[test]
fn what_a_newer_release_wrote_is_refused_by_name() {
    let segment = segment_name(LogPosition::ZERO);
    check_newer("batch", &segment, 1, |block| forge(block, 4, 9, HEADER_CRC, batch_checksum));
    check_newer("kind", &segment, 1, |block| forge(block, 5, 9, HEADER_CRC, batch_checksum));
    let (disk, _) = filled(1);
    let bytes = disk.clean_bytes(&log_directory(0).join(&segment));
    let last =
        bytes.chunks(BLOCK_BYTES).rposition(|block| block[..4] == BATCH_MAGIC).expect("it has batches");
    check_newer("last batch", &segment, last as u64, |block| forge(block, 4, 9, HEADER_CRC, batch_checksum));
    let whole = |bytes: usize| move |block: &[u8]| crc32c::crc32c(&block[..bytes]);
    let checksum_at = |block: &[u8], magic: &[u8; 4]| {
        assert_eq!(&block[..4], magic);
        (4..256).step_by(4).find(|at| {
            u32::from_le_bytes(block[*at..*at + 4].try_into().expect("four bytes")) == whole(*at)(block)
        })
    };
    for (label, name, magic) in [("segment", &*segment, b"TPSG"), ("manifest", "manifest", b"TPMF")] {
        check_newer(label, name, 0, |block| {
            let at = checksum_at(block, magic).expect("a checksum behind what it covers");
            forge(block, 4, 200, at, whole(at));
        });
    }
}

#[test]
fn a_log_that_cannot_be_read_is_left_alone() {
    for at in [0, SEGMENT_HEADER_BYTES as u64, 3 * BLOCK_BYTES as u64] {
        let (disk, ledger) = filled(2);
        remove_derived(&disk, &Setup::default());
        let path = log_directory(0).join(segment_name(LogPosition::ZERO));
        let before = disk.clean_bytes(&path);
        disk.fail_reads(&path, at..at + BLOCK_BYTES as u64);
        let refused = start(&disk);
        assert!(
            matches!(refused, Err(StartError::Disk(_) | StartError::Log(OpenError::Disk(_)))),
            "at {at}: {refused:?}"
        );
        assert!(disk.clean_bytes(&path) == before, "at {at}: the segment was changed");
        disk.lift_damage();
        check_restart(&disk, &Setup::default(), &ledger, Restart::ProcessKill, &format!("read again, {at}"));
    }
}

/// What is served at each offset is what was sent there; nothing is served twice, and every hole is reported.
async fn check_honest(node: &Node, ledger: &Ledger, label: &str) -> usize {
    let mut holes = 0;
    for key in live_queues(node) {
        let (mut offset, end) = node.owner(key).index().bounds(key).expect("a live queue");
        let sent = ledger.queues.get(&key).map_or(&[][..], |sent| sent);
        while offset < end {
            let fetched =
                node.fetch(key, offset).await.unwrap_or_else(|failure| panic!("{label}: {failure:?}"));
            let mut rest = &fetched.batches[..];
            assert!(
                !rest.is_empty() || fetched.damaged.is_some(),
                "{label}: {key}: a silent hole at {offset}"
            );
            holes += usize::from(fetched.damaged.is_some());
            while !rest.is_empty() {
                let header = BatchHeader::decode(rest).expect("a whole batch");
                let batch = &rest[..header.batch_bytes as usize];
                assert_eq!(header.base_offset, offset, "{label}: {key}");
                let wanted = sent.iter().find(|sent| sent.base_offset == offset);
                let wanted = wanted.unwrap_or_else(|| panic!("{label}: {key}: nothing was sent at {offset}"));
                assert!(wanted.bytes[72..] == batch[72..], "{label}: {key} at {offset} differs");
                offset = header.end_offset();
                rest = &rest[batch.len().next_multiple_of(8).min(rest.len())..];
            }
            assert!(fetched.next_offset >= offset, "{label}: {key}");
            offset = fetched.next_offset;
        }
    }
    holes
}

/// Two runs on a disk that misdirects one write; what was sent.
fn misdirected(disk: &FaultyDisk) -> Ledger {
    let books: Books = Rc::new(RefCell::default());
    for run in 0..2 {
        let ended = on_node(disk, &Setup::default(), run + 1, async |node| {
            if run == 0 {
                create(node, &books, "t", 2).await.expect("a disk that says yes");
            }
            let topic = books.borrow().topics.values().next().and_then(|topic| topic.id).expect("made");
            for number in 0..10 {
                let key = QueueKey { topic, queue: QueueNumber((number % 2) as u32) };
                let sent = produce(node, &books, key, DURABLE, run * 100 + number, 3000).await;
                sent.expect("a disk that says yes");
            }
        });
        // What the first run has lost may keep the second from starting, or from knowing the queues.
        if ended.is_err() || !disk.injected().is_empty() {
            break;
        }
    }
    books.take()
}

#[test]
fn a_misdirected_write_is_never_taken_for_what_it_is_not() {
    let mut struck = 0;
    let mut found = 0;
    for landing in [Landing::SameFile, Landing::OtherFile, Landing::Nowhere] {
        for number in 1..25 {
            let rule = Rule::misdirect(When::Once(number), landing).in_path(".segment");
            let disk = FaultyDisk::new(number, FaultPlan::none().with(rule));
            let ledger = misdirected(&disk);
            if disk.injected().is_empty() {
                continue;
            }
            struck += 1;
            for bare in [false, true] {
                let label = format!("{landing:?}, write {number}, bare {bare}");
                let disk = disk.outcome(Restart::ProcessKill, 1);
                if bare {
                    remove_derived(&disk, &Setup::default());
                }
                let look = || {
                    on_node(&disk, &Setup::default(), 9, async |node| {
                        let damage: usize = node.reports.iter().map(|report| report.damage.len()).sum();
                        damage + check_honest(node, &ledger, &label).await
                    })
                };
                let seen = match look() {
                    // The log's first batch, or its last one: without a snapshot the operator is asked.
                    Err(StartError::Log(OpenError::Lacking { contradictions, .. })) if bare => {
                        let unreadable = |flaw| {
                            matches!(flaw, Flaw::BeginningUnreadable { .. } | Flaw::EndUnreadable { .. })
                        };
                        assert!(contradictions.iter().all(|found| unreadable(found.flaw)), "{label}");
                        let directory = shard_directory(0);
                        let shard = ShardId(0);
                        let home = ShardHome { directory: &directory, shard, shard_count: 1, is_made: true };
                        let repaired = block_on(repair_shard(&disk, &home, LogSecret(1), Act::Do));
                        repaired.expect("it can be given up");
                        look()
                    }
                    seen => seen,
                };
                match seen {
                    Ok(holes) => found += usize::from(holes > 0),
                    // It may have hit the manifest: then the operator is asked.
                    Err(StartError::Log(OpenError::ManifestLost { .. })) => {}
                    Err(error) => panic!("{label}: {error}"),
                }
            }
        }
    }
    assert!(struck >= 40 && found >= 40, "{struck} struck, {found} found");
}

/// Old headers after the log's end, in the file that is in use.
fn stale_headers(disk: &FaultyDisk, end: LogPosition, base: LogPosition) -> usize {
    let bytes = disk.clean_bytes(&log_directory(0).join(segment_name(base)));
    let from = (end.since(base) as usize).next_multiple_of(8);
    let heads = (from..bytes.len() - BATCH_HEADER_BYTES).step_by(8);
    heads.filter(|at| bytes[*at..*at + 4] == BATCH_MAGIC).count()
}

#[test]
fn batches_of_a_segments_former_life_stay_dead() {
    let disk = FaultyDisk::new(7, FaultPlan::none());
    let plain = Setup::default();
    let setup = Setup { retention_bytes: Some(2 * plain.segment_bytes), ..plain };
    let books: Books = Rc::new(RefCell::default());
    let crashed = on_node(&disk, &setup, 1, async |node| {
        let topic = create(node, &books, "t", 1).await.expect("a topic").id;
        let key = QueueKey { topic, queue: QueueNumber(0) };
        for round in 0..5 {
            // Many small groups, so that the file keeps many headers on block boundaries.
            for number in 0..600 {
                let seed = round * 1000 + number;
                produce_sized(node, &books, key, DURABLE, seed, 20_000).await.expect("healthy");
            }
            node.clock.sleep(std::time::Duration::from_secs(3)).await;
        }
        let segments = node.broker().log().segments();
        let active = segments.iter().rev().find(|segment| segment.newest.is_some()).expect("one in use").base;
        // On the way when it comes.
        let _ = produce(node, &books, key, Some(Level::Accepted), 1, 2000).await;
        (active, node.broker().log().watermarks().durable_end(), disk.outcome(Restart::ProcessKill, 1))
    });
    let (active, end, crashed) = crashed.expect("an empty disk");
    assert!(active.0 > 2 * plain.segment_bytes);
    let stale = stale_headers(&crashed, end, active);
    assert!(stale > 20, "only {stale} old headers behind the end");
    let ledger = books.borrow().clone();
    for (how, seed, outcome) in crashed.outcomes(0..2) {
        check_restart(&outcome, &setup, &ledger, how, &format!("{how:?}, outcome {seed}"));
    }
    // Damage makes the scan search through them.
    let first = active.0 + SEGMENT_HEADER_BYTES as u64;
    for at in [first + 3, end.0 / 4096 * 4096 - 4096 + 20] {
        let harmed = crashed.outcome(Restart::ProcessKill, 2);
        harmed.flip_bit(&log_directory(0).join(segment_name(active)), at - active.0, 1);
        remove_derived(&harmed, &setup);
        let label = format!("byte {at}");
        let last = on_node(&harmed, &setup, 2, async |node| {
            check_honest(node, &ledger, &label).await;
            node.reports[0].end
        });
        let last = last.unwrap_or_else(|error| panic!("{label}: {error}"));
        assert!(
            last <= LogPosition(end.0 + 64 * 1024),
            "{label}: the log goes on to {last}, it ended at {end}"
        );
    }
    assert!(ledger.queues.values().flatten().any(|sent| sent.base_offset > QueueOffset::ZERO));
    on_node(&crashed, &setup, 2, async |node| {
        check_ledger(node, &ledger, Level::Written, "left alone").await
    })
    .expect("a healthy disk");
}
