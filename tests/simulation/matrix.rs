//! What may happen to a whole file while the broker is away, for every kind of file: missing, empty, cut off, too long,
//! swapped, of another shard, flipped, zeroed; after a clean stop and after a kill, with snapshots and index and without.
//!
//! Whatever it is, one of three holds: everything that was acknowledged is there; or the start is refused in words, and
//! `log repair` goes on without what is missing; or what is missing is named by the start and by the check of the log. No
//! start takes away a file, and no offset is given out again.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future::block_on;
use turbopump::api::{Produce, Reply, Request};
use turbopump::broker::{ShardHome, StartError, check_shard, repair_shard, verify_shard};
use turbopump::disk::faulty::{AfterCrash, FaultPlan, FaultyDisk, Restart, Rule, When};
use turbopump::disk::{Disk, DiskErrorKind, DiskFile, OpenMode, Operation};
use turbopump::log::{Act, GivenUpRange, Known, Manifest, OpenError, parse_segment_name, scan, segment_name};
use turbopump::testing::{Random, generators};
use turbopump::types::{Level, LogPosition, QueueKey, QueueNumber, QueueOffset, ShardId, Timestamp};
use turbopump::wire::batch::{BatchHeader, LogSecret};

use super::checks::{Nothing, live_queues, remove_derived};
use super::ledger::Ledger;
use super::node::{Node, Setup, log_directory, on_node, shard_directory};
use super::sweep::{is_full, run_until_crash, stride};
use super::workload::{Books, create, produce, produce_sized};

const SHARDS: u16 = 2;

pub(super) fn setup() -> Setup {
    Setup { shard_count: SHARDS, ..Setup::default() }
}

/// What happens to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    Missing,
    Empty,
    ByteLess,
    ByteMore,
    Halved,
    Swapped,
    OfAnotherShard,
    FlippedAtStart,
    FlippedInTheMiddle,
    FlippedAtEnd,
    ZeroedAtStart,
    /// The header and the first batches.
    ZeroedBeginning,
    /// The header is there.
    ZeroedFirstBatches,
    ZeroedInTheMiddle,
    /// The last MB of what was stored in it.
    ZeroedEnd,
    GarbageAtEnd,
    Zeroed,
}

const DAMAGES: [Damage; 17] = [
    Damage::Missing,
    Damage::Empty,
    Damage::ByteLess,
    Damage::ByteMore,
    Damage::Halved,
    Damage::Swapped,
    Damage::OfAnotherShard,
    Damage::FlippedAtStart,
    Damage::FlippedInTheMiddle,
    Damage::FlippedAtEnd,
    Damage::ZeroedAtStart,
    Damage::ZeroedBeginning,
    Damage::ZeroedFirstBatches,
    Damage::ZeroedInTheMiddle,
    Damage::ZeroedEnd,
    Damage::GarbageAtEnd,
    Damage::Zeroed,
];

/// A node that was filled, and what it had acknowledged.
pub(super) struct Filled {
    pub disk: FaultyDisk,
    pub ledger: Ledger,
    pub label: &'static str,
    /// Of each shard, as the check of the whole log counts them.
    pub messages: Vec<u64>,
}

impl Filled {
    fn new(disk: FaultyDisk, ledger: Ledger, label: &'static str) -> Self {
        let count = |shard| {
            let directory = shard_directory(shard);
            let checked = block_on(verify_shard(&disk, &home(&directory, shard), &|_| ()));
            assert!(checked.damage.is_empty() && checked.unread.is_empty(), "{label}: {checked:?}");
            checked.messages
        };
        // Which is all that is held against it.
        let messages = if label == "stopped" { (0..SHARDS).map(count).collect() } else { Vec::new() };
        Self { disk, ledger, label, messages }
    }
}

async fn fill(node: &Node, books: &Books) {
    let topic = create(node, books, "t", 4).await.expect("a topic").id;
    let key = |queue| QueueKey { topic, queue: QueueNumber(queue) };
    for round in 0..3 {
        for number in 0..8 {
            let seed = round * 100 + number;
            produce(node, books, key((number % 4) as u32), Some(Level::Durable), seed, 900)
                .await
                .expect("healthy");
        }
        for number in 0..8 {
            produce_sized(node, books, key((number % 2) as u32), Some(Level::Durable), number, 3_900_000)
                .await
                .expect("healthy");
        }
        // For the checkpoint of the segment in use, a snapshot, and the note in the manifest.
        node.clock.sleep(Duration::from_secs(7)).await;
    }
    // Behind the last snapshot.
    for number in 0..8 {
        let seed = 1000 + number;
        produce(node, books, key((number % 4) as u32), Some(Level::Durable), seed, 900)
            .await
            .expect("healthy");
    }
}

/// Stopped well, and killed at the end; with everything, and with nothing but the log.
pub(super) fn images() -> Vec<Filled> {
    let disk = FaultyDisk::new(1, FaultPlan::none());
    let books: Books = Rc::new(RefCell::default());
    let killed = on_node(&disk, &setup(), 1, async |node| {
        fill(node, &books).await;
        disk.outcome(Restart::ProcessKill, 1)
    });
    let killed = killed.expect("an empty disk");
    let mut images = Vec::new();
    for (disk, bare, label) in [
        (&disk, false, "stopped"),
        (&killed, false, "killed"),
        (&disk, true, "stopped, bare"),
        (&killed, true, "killed, bare"),
    ] {
        let disk = disk.outcome(Restart::ProcessKill, 2);
        if bare {
            remove_derived(&disk, &setup());
        }
        images.push(Filled::new(disk, books.borrow().clone(), label));
    }
    images
}

/// Segments of shard 0, oldest first; the last one that is returned is in use.
pub(super) fn segments(disk: &FaultyDisk) -> Vec<PathBuf> {
    let directory = log_directory(0);
    let mut found = Vec::new();
    for (path, _) in disk.files() {
        let path = Path::new("/").join(path);
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        let is_used = || disk.clean_bytes(&path).iter().any(|byte| *byte != 0);
        if path.parent() == Some(&directory) && parse_segment_name(&name).is_some() && is_used() {
            found.push(path);
        }
    }
    found
}

/// Files of shard 0 to be damaged, each with its neighbour.
fn targets(disk: &FaultyDisk) -> Vec<(PathBuf, Option<PathBuf>)> {
    let segments = segments(disk);
    assert!(segments.len() >= 3, "{segments:?}");
    let last = segments.len() - 1;
    let mut targets: Vec<_> = [(0, 1), (1, 2), (last, last - 1)]
        .iter()
        .map(|(at, neighbour)| (segments[*at].clone(), Some(segments[*neighbour].clone())))
        .collect();
    let directory = shard_directory(0);
    targets.push((log_directory(0).join("manifest"), None));
    let snapshots = [directory.join("snapshot-0"), directory.join("snapshot-1")];
    if disk.exists(&snapshots[0]) && disk.exists(&snapshots[1]) {
        targets.push((snapshots[0].clone(), Some(snapshots[1].clone())));
        targets.push((snapshots[1].clone(), Some(snapshots[0].clone())));
    }
    let derived = disk.files().into_iter().map(|(path, _)| Path::new("/").join(path));
    targets.extend(
        derived
            .filter(|path| {
                path.starts_with(directory.join("index")) || path.starts_with(directory.join("keys"))
            })
            .map(|path| (path, None)),
    );
    targets
}

/// The same file of shard 1.
fn counterpart(disk: &FaultyDisk, path: &Path) -> Option<PathBuf> {
    let text = path.to_str().expect("UTF-8").replace("shard-0", "shard-1");
    Some(PathBuf::from(text)).filter(|path| disk.exists(path))
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "segment")
}

/// Where the last byte is that something was written to, in a file of the log.
pub(super) fn used_end(disk: &FaultyDisk, path: &Path) -> u64 {
    let bytes = disk.clean_bytes(path);
    let last = bytes.iter().rposition(|byte| *byte != 0).expect("something was stored in it");
    (last as u64 + 1).next_multiple_of(8)
}

/// Makes something else of bytes than was written: no header among them is one any more.
pub(super) fn garble(disk: &FaultyDisk, path: &Path, bytes: Range<u64>) {
    bytes.step_by(16).for_each(|byte| disk.flip_bit(path, byte, 5));
}

/// False when this cannot happen to that file.
fn strike(disk: &FaultyDisk, (path, neighbour): &(PathBuf, Option<PathBuf>), damage: Damage) -> bool {
    let bytes = disk.size(path);
    let block = 4096;
    match damage {
        Damage::Missing => disk.lose(path),
        Damage::Empty => disk.set_size(path, 0),
        Damage::ByteLess if bytes > 0 => disk.set_size(path, bytes - 1),
        Damage::ByteMore => disk.set_size(path, bytes + 1),
        Damage::Halved => disk.set_size(path, bytes / 2),
        Damage::Swapped => match neighbour {
            Some(neighbour) => disk.swap(path, neighbour),
            None => return false,
        },
        Damage::OfAnotherShard => match counterpart(disk, path) {
            Some(other) => disk.replace(path, (disk, &other)),
            None => return false,
        },
        Damage::FlippedAtStart if bytes > 0 => disk.flip_bit(path, 0, 3),
        Damage::FlippedInTheMiddle if bytes > 0 => disk.flip_bit(path, bytes / 2, 3),
        Damage::FlippedAtEnd if bytes > 0 => disk.flip_bit(path, bytes - 1, 3),
        Damage::ZeroedAtStart if bytes > 0 => disk.zero(path, 0..block),
        Damage::ZeroedInTheMiddle if bytes > 0 => disk.zero(path, bytes / 2..bytes / 2 + block),
        Damage::ZeroedBeginning if is_segment(path) => disk.zero(path, 0..1_000_000),
        Damage::ZeroedFirstBatches if is_segment(path) => disk.zero(path, block..1_000_000),
        Damage::ZeroedEnd if is_segment(path) => disk.zero(path, used_end(disk, path) - 1_000_000..bytes),
        Damage::GarbageAtEnd if is_segment(path) => {
            let end = used_end(disk, path);
            garble(disk, path, end - 1_000_000..end);
        }
        Damage::Zeroed if bytes > 0 => disk.zero(path, 0..bytes),
        _ => return false,
    }
    true
}

pub(super) fn home(directory: &Path, shard: u16) -> ShardHome<'_> {
    ShardHome { directory, shard: ShardId(shard), shard_count: SHARDS, is_made: true }
}

/// What a check of the logs finds, however they look: contradictions, and damage.
fn checked(disk: &FaultyDisk) -> (usize, usize) {
    let (mut contradictions, mut damage) = (0, 0);
    for shard in 0..SHARDS {
        let directory = shard_directory(shard);
        let found = block_on(check_shard(disk, &home(&directory, shard)));
        contradictions += found.map_or(1, |found| found.len());
        let known = Known::nothing(ShardId(shard), SHARDS);
        let report = block_on(scan(disk, &log_directory(shard), &known, &mut Nothing));
        damage += report.map_or(0, |report| report.damage.len() + report.given_up.len());
    }
    (contradictions, damage)
}

/// What is missing of what was acknowledged, in messages; everything that is served was sent, and stands where it was.
async fn missing(node: &Node, ledger: &Ledger, label: &str) -> (u64, usize) {
    let (mut missing, mut holes_of_all) = (0, 0);
    let live = live_queues(node);
    for (key, sent) in &ledger.queues {
        let mut holes = 0;
        let mut served: BTreeMap<QueueOffset, u32> = BTreeMap::new();
        if live.contains(key) {
            let (mut offset, end) = node.owner(*key).index().bounds(*key).expect("a live queue");
            let given_up = &node.reports[usize::from(key.queue.shard(SHARDS).0)].given_up;
            assert!(
                offset == QueueOffset::ZERO || given_up.iter().any(GivenUpRange::may_hold_queues),
                "{label}: {key} begins at {offset}, which only retention may do"
            );
            while offset < end {
                let fetched = node
                    .fetch(*key, offset)
                    .await
                    .unwrap_or_else(|failure| panic!("{label}: {key} at {offset}: {failure:?}"));
                assert!(
                    !fetched.batches.is_empty() || fetched.damaged.is_some(),
                    "{label}: {key}: a silent hole at {offset}"
                );
                holes += usize::from(fetched.damaged.is_some());
                let mut rest = &fetched.batches[..];
                while !rest.is_empty() {
                    let header = BatchHeader::decode(rest).expect("a whole batch");
                    let batch = &rest[..header.batch_bytes as usize];
                    let wanted = sent.iter().find(|sent| sent.base_offset == header.base_offset);
                    let wanted = wanted.unwrap_or_else(|| {
                        panic!("{label}: {key}: nothing was sent at {}", header.base_offset)
                    });
                    assert!(
                        wanted.bytes[72..] == batch[72..],
                        "{label}: {key} at {} differs",
                        header.base_offset
                    );
                    served.insert(header.base_offset, header.record_count);
                    rest = &rest[batch.len().next_multiple_of(8).min(rest.len())..];
                }
                assert!(fetched.next_offset > offset, "{label}: {key}: stuck at {offset}");
                offset = fetched.next_offset;
            }
        }
        // What was not answered when the power failed may be there or not.
        let promised = sent.iter().filter(|sent| sent.answered == Some(Level::Durable));
        let gone = promised.filter(|sent| !served.contains_key(&sent.base_offset));
        let gone: u64 = gone.map(|sent| u64::from(sent.count)).sum();
        let report = &node.reports[usize::from(key.queue.shard(SHARDS).0)];
        let is_told = holes > 0 || !report.damage.is_empty() || !report.given_up.is_empty();
        assert!(
            gone == 0 || is_told,
            "{label}: {gone} messages of {key} are gone, and its shard tells nothing"
        );
        missing += gone;
        holes_of_all += holes;
    }
    (missing, holes_of_all)
}

/// New messages are taken, and get no offset that was given out before.
async fn check_offsets(node: &Node, ledger: &Ledger, label: &str) {
    let live = live_queues(node);
    for (key, sent) in ledger.queues.iter().filter(|(key, _)| live.contains(key)) {
        let message = generators::messages(&mut Random::new(77), 1, 100);
        let batch = generators::batch(&message, Timestamp(1)).into();
        let request = Request::Produce(Produce { key: *key, level: Some(Level::Durable), batch });
        let produced = match node.handle(request).await {
            Ok(Reply::Produced(produced)) => produced,
            other => panic!("{label}: {key}: {other:?}"),
        };
        let last = sent.iter().rev().find(|sent| sent.answered == Some(Level::Durable));
        let end = last.map_or(QueueOffset::ZERO, |last| last.base_offset.advance(last.count.into()));
        assert!(produced.base_offset >= end, "{label}: {key}: {} is given out again", produced.base_offset);
    }
}

/// Starts and checks that nothing is missing without being named; how many messages are.
pub(super) fn start(disk: &FaultyDisk, ledger: &Ledger, label: &str) -> Result<u64, StartError> {
    let (contradictions, scanned) = checked(disk);
    on_node(disk, &setup(), 5, async |node| {
        let (missing, holes) = missing(node, ledger, label).await;
        let named: usize =
            node.reports.iter().map(|report| report.damage.len() + report.given_up.len()).sum();
        if missing > 0 {
            assert!(named + holes > 0, "{label}: {missing} messages are missing in silence");
            assert!(
                scanned + contradictions > 0,
                "{label}: the check of the log misses nothing, {missing} are gone"
            );
        }
        check_offsets(node, ledger, label).await;
        missing
    })
}

/// Files of the node, with their sizes, but for those that are made from others.
pub(super) fn inventory(disk: &FaultyDisk) -> Vec<(PathBuf, u64)> {
    let is_log = |path: &Path| path.extension().is_some_and(|extension| extension == "segment");
    disk.files().into_iter().filter(|(path, _)| is_log(path)).collect()
}

/// One case. Returns what came of it.
fn check(filled: &Filled, target: &(PathBuf, Option<PathBuf>), damage: Damage) -> Option<&'static str> {
    let disk = filled.disk.outcome(Restart::ProcessKill, 3);
    // What a run that was killed stored last nobody can tell from a tail that was not answered.
    let is_of_end = matches!(damage, Damage::ZeroedEnd | Damage::GarbageAtEnd);
    if (is_of_end && filled.label.contains("killed")) || !strike(&disk, target, damage) {
        return None;
    }
    let label = format!("{}: {} {damage:?}", filled.label, target.0.display());
    Some(go_on(&disk, filled, &label))
}

/// The check of the log accuses the file that was struck, and no other.
fn check_names(
    disk: &FaultyDisk,
    filled: &Filled,
    (struck, neighbour): &(PathBuf, Option<PathBuf>),
    damage: Damage,
    label: &str,
) {
    // Of the other shard nothing was touched.
    for shard in 0..if is_full() { SHARDS } else { 1 } {
        let directory = shard_directory(shard);
        let checked = block_on(verify_shard(disk, &home(&directory, shard), &|_| ()));
        assert!(checked.unread.is_empty(), "{label}: {:?}", checked.unread);
        // Without a snapshot nobody knows what a queue had at its end.
        let missing = checked.messages_missing + checked.messages;
        let is_known =
            filled.label == "stopped" && checked.damage.iter().all(|finding| finding.messages.is_some());
        assert!(
            !is_known || missing >= filled.messages[usize::from(shard)],
            "{label}: {missing} are told of: {checked:?}"
        );
        for finding in &checked.damage {
            let file = Path::new(&finding.file);
            let is_struck =
                file == struck || (damage == Damage::Swapped && Some(file) == neighbour.as_deref());
            assert!(is_struck, "{label}: {finding:?}");
            let end = finding.position + finding.bytes;
            let is_within = damage != Damage::Halved || finding.position >= disk.size(struck) || end == 0;
            assert!(is_within, "{label}: bytes that are there are accused: {finding:?}");
        }
    }
}

/// Starts; when that is refused, repairs and starts again.
pub(super) fn go_on(disk: &FaultyDisk, filled: &Filled, label: &str) -> &'static str {
    let before = inventory(disk);
    let refused = match start(disk, &filled.ledger, label) {
        Ok(0) => return "whole",
        Ok(_) => return "named",
        Err(error) => error,
    };
    let words = refused.to_string();
    assert_eq!(inventory(disk), before, "{label}: a start that was refused has changed something: {words}");
    assert!(
        matches!(refused, StartError::Log(OpenError::Lacking { .. } | OpenError::WrongShard { .. })),
        "{label}: {words}"
    );
    if matches!(refused, StartError::Log(OpenError::WrongShard { .. })) {
        return "refused";
    }
    assert!(words.contains("log repair") && words.contains("shard-"), "{label}: {words}");
    let (contradictions, _) = checked(disk);
    assert!(contradictions > 0, "{label}: the check does not see what the start refuses: {words}");
    let total = |disk: &FaultyDisk| disk.files().len();
    let files = total(disk);
    for act in [Act::Tell, Act::Do] {
        let mut steps = 0;
        for shard in 0..SHARDS {
            let directory = shard_directory(shard);
            let repaired = block_on(repair_shard(disk, &home(&directory, shard), LogSecret(99), act));
            let repaired = repaired.unwrap_or_else(|error| panic!("{label}: {error}"));
            assert_eq!(
                repaired.contradictions.is_empty(),
                repaired.steps.is_empty(),
                "{label}: {repaired:?}"
            );
            steps += repaired.steps.len();
        }
        assert!(steps > 0, "{label}");
    }
    assert!(total(disk) >= files, "{label}: a repair has removed a file");
    let again = disk.outcome(Restart::ProcessKill, 4);
    let missing = start(disk, &filled.ledger, &format!("{label}, repaired"));
    let missing = missing.unwrap_or_else(|error| panic!("{label}: not repaired: {error}"));
    // The same without what is made from the log.
    remove_derived(&again, &setup());
    let label = format!("{label}, repaired, bare");
    start(&again, &filled.ledger, &label).unwrap_or_else(|error| panic!("{label}: {error}"));
    if missing > 0 { "given up" } else { "repaired" }
}

#[test]
fn whatever_happens_to_a_file_nothing_is_lost_in_silence() {
    let mut tried: BTreeMap<&str, usize> = BTreeMap::new();
    let stride = stride(9);
    let mut number = 0;
    for filled in images() {
        for target in targets(&filled.disk) {
            for damage in DAMAGES {
                number += 1;
                if number % stride == 0
                    && let Some(outcome) = check(&filled, &target, damage)
                {
                    *tried.entry(outcome).or_default() += 1;
                }
            }
        }
    }
    println!("{tried:?}");
    assert!(tried.contains_key("whole") && tried.contains_key("given up"), "{tried:?}");
}

#[test]
fn the_check_of_the_log_accuses_what_is_wrong_and_nothing_else() {
    for filled in
        images().iter().filter(|filled| is_full() || ["stopped", "killed, bare"].contains(&filled.label))
    {
        let targets = targets(&filled.disk);
        for target in if is_full() { &targets[..] } else { &targets[..4] } {
            let within = [Damage::Zeroed, Damage::ZeroedBeginning, Damage::ZeroedEnd, Damage::GarbageAtEnd];
            let within = within.iter().filter(|damage| {
                !filled.label.contains("killed") || matches!(damage, Damage::Zeroed | Damage::ZeroedBeginning)
            });
            for damage in OF_WHOLE_FILES.into_iter().chain(within.copied()) {
                let disk = filled.disk.outcome(Restart::ProcessKill, 3);
                if strike(&disk, target, damage) {
                    let label = format!("{}: {} {damage:?}", filled.label, target.0.display());
                    check_names(&disk, filled, target, damage, &label);
                }
            }
        }
    }
}

#[test]
fn a_directory_that_is_gone_is_refused() {
    for filled in images() {
        for gone in [log_directory(0), shard_directory(0), log_directory(1)] {
            let disk = filled.disk.outcome(Restart::ProcessKill, 3);
            disk.lose(&gone);
            let label = format!("{}: {} gone", filled.label, gone.display());
            let refused = start(&disk, &filled.ledger, &label);
            let words = refused.expect_err("it is refused").to_string();
            assert!(words.contains("log repair"), "{label}: {words}");
            assert!(!disk.exists(&gone), "{label}: it was made again");
            go_on(&disk, &filled, &label);
        }
    }
}

#[test]
fn all_segments_gone_are_refused_and_given_up_by_command_only() {
    for filled in images() {
        let disk = filled.disk.outcome(Restart::ProcessKill, 3);
        segments(&disk).iter().for_each(|path| disk.lose(path));
        assert_eq!(go_on(&disk, &filled, &format!("{}: no segment", filled.label)), "given up");
    }
}

/// The first segment, the only one in use, and the one that was prepared behind it: nothing but the header of the first says
/// that something was stored where an empty file stands now.
#[test]
fn a_segment_that_was_swapped_with_a_prepared_one_is_put_back() {
    let disk = FaultyDisk::new(1, FaultPlan::none());
    let books: Books = Rc::new(RefCell::default());
    let killed = on_node(&disk, &setup(), 1, async |node| {
        let topic = create(node, &books, "t", 1).await.expect("a topic").id;
        let key = QueueKey { topic, queue: QueueNumber(0) };
        produce(node, &books, key, Some(Level::Durable), 1, 900).await.expect("healthy");
        node.clock.sleep(Duration::from_secs(1)).await;
        disk.outcome(Restart::ProcessKill, 1)
    });
    let disk = killed.expect("an empty disk");
    remove_derived(&disk, &setup());
    let path = |base| log_directory(0).join(segment_name(LogPosition(base)));
    let segment_bytes = setup().segment_bytes;
    block_on(async {
        disk.rename(&path(0), &path(segment_bytes)).await?;
        let prepared = disk.open(&path(0), OpenMode::Create).await?;
        prepared.preallocate(segment_bytes).await?;
        prepared.sync().await?;
        prepared.close().await?;
        disk.sync_directory(&log_directory(0)).await
    })
    .expect("a healthy disk");
    let filled = Filled { disk: disk.clone(), ledger: books.take(), label: "killed", messages: Vec::new() };
    assert_eq!(go_on(&disk, &filled, "swapped with a prepared one"), "repaired");
}

/// Every combination of two lost segments: holes side by side, at the start, at the end.
#[test]
fn several_lost_segments_are_given_up_together() {
    for filled in images() {
        let segments = segments(&filled.disk);
        for one in 0..segments.len() {
            for other in one + 1..segments.len() {
                let disk = filled.disk.outcome(Restart::ProcessKill, 3);
                disk.lose(&segments[one]);
                disk.set_size(&segments[other], 5_000_000);
                go_on(&disk, &filled, &format!("{}: {one} and {other} gone", filled.label));
            }
        }
    }
}

/// A node whose process died when the log had just gone on into its second segment, which no file says yet: there is no
/// snapshot, and the manifest only says that the segment was made. The first one has much room left at its end.
fn killed_before_its_note(seed: u64) -> Option<Filled> {
    let disk = FaultyDisk::new(1, FaultPlan::none());
    let books: Books = Rc::new(RefCell::default());
    let killed = on_node(&disk, &setup(), seed, async |node| {
        let topic = create(node, &books, "t", 1).await.expect("a topic").id;
        let key = QueueKey { topic, queue: QueueNumber(0) };
        for number in 0..5 {
            produce_sized(node, &books, key, Some(Level::Durable), number, 3_900_000).await.expect("healthy");
        }
        disk.outcome(Restart::ProcessKill, 1)
    });
    let killed = killed.expect("an empty disk");
    let manifest = block_on(Manifest::read(&killed, &log_directory(0))).expect("readable").expect("written");
    let is_noted = manifest.holdings.expect("segments").reached >= LogPosition(setup().segment_bytes);
    (!is_noted).then(|| Filled { disk: killed, ledger: books.take(), label: "killed", messages: Vec::new() })
}

#[test]
fn a_segment_that_is_lost_before_its_use_was_noted_is_given_up_with_its_offsets() {
    let filled = (1..=50).find_map(killed_before_its_note).expect("some order of the tasks leaves it so");
    let segments = segments(&filled.disk);
    let [_, last] = &segments[..] else { panic!("two segments are in use: {segments:?}") };
    for damage in [Damage::Missing, Damage::Empty] {
        let disk = filled.disk.outcome(Restart::ProcessKill, 2);
        assert!(strike(&disk, &(last.clone(), None), damage));
        assert_eq!(go_on(&disk, &filled, &format!("{damage:?}")), "given up", "{damage:?}");
    }
}

/// A later run on the disk of an earlier one, and what both had acknowledged.
pub(super) fn later_run(earlier: &FaultyDisk, ledger: &Ledger, large: u64) -> Filled {
    let disk = earlier.outcome(Restart::ProcessKill, 4);
    let books: Books = Rc::new(RefCell::new(ledger.clone()));
    let keys: Vec<QueueKey> = ledger.queues.keys().copied().collect();
    let run = on_node(&disk, &setup(), 6, async |node| {
        for number in 0..large {
            let key = keys[number as usize % 2];
            produce_sized(node, &books, key, Some(Level::Durable), number, 3_900_000).await.expect("healthy");
        }
        for number in 0..8 {
            let key = keys[number % keys.len()];
            produce(node, &books, key, Some(Level::Durable), 2000 + number as u64, 900)
                .await
                .expect("healthy");
        }
        node.clock.sleep(Duration::from_secs(7)).await;
    });
    run.expect("what the earlier run left is whole");
    let label = if large > 0 { "segments later" } else { "messages later" };
    Filled { disk, ledger: books.take(), label, messages: Vec::new() }
}

/// As a restore leaves it that brings back only a part of what it should.
#[test]
fn a_manifest_of_an_earlier_day_is_refused_and_costs_no_message() {
    let manifest = log_directory(0).join("manifest");
    let snapshots = ["snapshot-0", "snapshot-1"].map(|name| shard_directory(0).join(name));
    for earlier in images().iter().filter(|earlier| !earlier.label.contains("bare")) {
        for large in [0, 16] {
            let later = later_run(&earlier.disk, &earlier.ledger, large);
            for with in ["the snapshots of that day", "today's snapshots", "no snapshots"] {
                let label = format!("{}, {}, {with}", earlier.label, later.label);
                let disk = later.disk.outcome(Restart::ProcessKill, 5);
                disk.replace(&manifest, (&earlier.disk, &manifest));
                match with {
                    "no snapshots" => remove_derived(&disk, &setup()),
                    "today's snapshots" => {}
                    _ => snapshots.iter().for_each(|path| disk.replace(path, (&earlier.disk, path))),
                }
                let before = disk.files();
                let found = match start(&disk, &later.ledger, &label) {
                    Ok(missing) => panic!("{label}: it starts, {missing} messages are missing"),
                    Err(error) => error.to_string(),
                };
                assert!(found.contains("is older than the log: it knows epoch"), "{label}: {found}");
                assert_eq!(disk.files(), before, "{label}: something was changed");
                let bytes = |disk: &FaultyDisk| disk.clean_bytes(&manifest);
                assert!(bytes(&disk) == bytes(&earlier.disk), "{label}: the manifest was changed");
                assert_eq!(go_on(&disk, &later, &label), "repaired", "{label}");
            }
        }
    }
}

/// As a restore leaves it that brings back one shard of an earlier day: nothing within that shard contradicts it.
#[test]
fn a_shard_of_an_earlier_day_is_refused_and_given_up_by_command_only() {
    for earlier in
        images().iter().filter(|earlier| is_full() || ["stopped", "killed, bare"].contains(&earlier.label))
    {
        for large in [0, 16] {
            let later = later_run(&earlier.disk, &earlier.ledger, large);
            let label = format!("{}, {}", earlier.label, later.label);
            let disk = later.disk.outcome(Restart::ProcessKill, 5);
            put_back(&disk, &earlier.disk, &shard_directory(0));
            let before = disk.files();
            let refused = start(&disk, &later.ledger, &label);
            let words = refused.expect_err("a shard is older than the other").to_string();
            let named = format!("{}/ is older than the other shards", log_directory(0).display());
            assert!(words.contains(&named), "{label}: {words}");
            assert_eq!(disk.files(), before, "{label}: something was changed");
            assert_eq!(go_on(&disk, &later, &label), "given up", "{label}");
        }
        // All shards of one day belong together, whatever was there since.
        let later = later_run(&earlier.disk, &earlier.ledger, 16);
        let disk = later.disk.outcome(Restart::ProcessKill, 5);
        (0..SHARDS).for_each(|shard| put_back(&disk, &earlier.disk, &shard_directory(shard)));
        start(&disk, &earlier.ledger, earlier.label).expect("they are of one day");
    }
}

/// Makes the files below `directory` those of another disk.
pub(super) fn put_back(disk: &FaultyDisk, from: &FaultyDisk, directory: &Path) {
    let files = |disk: &FaultyDisk| {
        let paths = disk.files().into_iter().map(|(path, _)| Path::new("/").join(path));
        paths.filter(|path| path.starts_with(directory)).collect::<Vec<_>>()
    };
    files(disk).iter().filter(|path| !from.exists(path)).for_each(|path| disk.lose(path));
    for path in files(from) {
        if !disk.exists(&path) {
            let made = block_on(async { disk.open(&path, OpenMode::Create).await?.close().await });
            made.expect("a healthy disk");
        }
        disk.replace(&path, (from, &path));
    }
}

/// Damage hides how the later run began: the scan meets it all the same, and cuts nothing off.
#[test]
fn a_later_run_after_damage_is_not_cut_off() {
    let earlier = FaultyDisk::new(1, FaultPlan::none());
    let books: Books = Rc::new(RefCell::default());
    let run = on_node(&earlier, &setup(), 1, async |node| {
        let topic = create(node, &books, "t", 4).await.expect("a topic").id;
        for queue in [0, 1] {
            let key = QueueKey { topic, queue: QueueNumber(queue) };
            produce(node, &books, key, Some(Level::Durable), 1, 900).await.expect("healthy");
        }
    });
    run.expect("an empty disk");
    let known = Known::nothing(ShardId(0), SHARDS);
    let scanned = block_on(scan(&earlier, &log_directory(0), &known, &mut Nothing)).expect("a log");
    // What is first of it on shard 0 is the large batch.
    let later = later_run(&earlier, &books.take(), 2);
    let disk = later.disk.outcome(Restart::ProcessKill, 5);
    let files = segments(&disk);
    assert_eq!(files.len(), 1, "the later run began a segment");
    let manifest = log_directory(0).join("manifest");
    disk.replace(&manifest, (&earlier, &manifest));
    remove_derived(&disk, &setup());
    let begun = scanned.end.0.next_multiple_of(4096);
    disk.zero(&files[0], begun..begun + 3_000_000);
    let before = inventory(&disk);
    // As often as it is tried: an epoch more with each start would make the manifest look as if it were today's.
    for _ in 0..3 {
        let found = match start(&disk, &later.ledger, "damaged") {
            Ok(missing) => panic!("it starts, {missing} messages are missing"),
            Err(error) => error.to_string(),
        };
        assert!(found.contains("is older than the log: it knows epoch"), "{found}");
        assert_eq!(inventory(&disk), before, "a segment was changed");
        let bytes = |disk: &FaultyDisk| disk.clean_bytes(&manifest);
        assert!(bytes(&disk) == bytes(&earlier), "the manifest was changed");
    }
    // What is refused can be repaired: what is said of it then is said after this.
    assert_eq!(go_on(&disk, &later, "damaged"), "given up");
}

/// What cannot be read ends the start as well, and that is no start.
#[test]
fn a_start_that_the_device_refuses_leaves_the_manifest_as_it_was() {
    let images = images();
    let filled = images.iter().find(|filled| filled.label == "killed, bare").expect("one of them");
    let disk = filled.disk.outcome(Restart::ProcessKill, 3);
    let manifest = log_directory(0).join("manifest");
    let before = disk.clean_bytes(&manifest);
    let first = segments(&disk).swap_remove(0);
    disk.fail_reads(&first, 8_000_000..8_100_000);
    for _ in 0..2 {
        let refused = start(&disk, &filled.ledger, "unreadable").expect_err("it cannot be read").to_string();
        assert!(refused.contains("cannot read"), "{refused}");
        assert!(disk.clean_bytes(&manifest) == before, "the manifest was changed");
    }
}

/// What may not be read by whoever checks is no damage, and nothing is known of it.
#[test]
fn what_may_not_be_read_is_not_called_damaged() {
    let images = images();
    let filled = images.iter().find(|filled| filled.label == "stopped").expect("one of them");
    for part in [".segment", "manifest", "snapshot-0", "distrusted", ".keys"] {
        let disk = filled.disk.outcome(Restart::ProcessKill, 3);
        let rule = Rule::error(Operation::Open, When::From(0), DiskErrorKind::PermissionDenied);
        disk.set_plan(FaultPlan::none().with(rule.in_path(part)));
        let directory = shard_directory(0);
        let checked = block_on(verify_shard(&disk, &home(&directory, 0), &|_| ()));
        assert_eq!((checked.damage.len(), checked.derived.len()), (0, 0), "{part}: {checked:?}");
        let [unread] = &checked.unread[..] else { panic!("{part}: {checked:?}") };
        assert!(unread.file.contains(part), "{part}: {unread:?}");
    }
}

/// A repair that was killed: nothing starts from what it left, the check says so, and another repair goes on.
#[test]
fn a_repair_that_was_killed_is_gone_on_with_before_a_start() {
    let images = images();
    let filled = images.iter().find(|filled| filled.label == "stopped").expect("one of them");
    let target = &targets(&filled.disk)[0];
    let directory = shard_directory(0);
    let repair =
        |disk: &FaultyDisk| block_on(repair_shard(disk, &home(&directory, 0), LogSecret(99), Act::Do));
    for damage in [Damage::Swapped, Damage::ByteMore, Damage::Missing] {
        let disk = filled.disk.outcome(Restart::ProcessKill, 3);
        assert!(strike(&disk, target, damage));
        let calm = disk.outcome(Restart::ProcessKill, 3);
        repair(&calm).expect("a healthy disk");
        let steps = calm.step_list();
        let renames = steps.iter().enumerate().filter(|(_, step)| step.operation == Operation::Rename);
        let mut interrupted = 0;
        for (step, _) in renames.step_by(stride(3)) {
            let label = format!("{damage:?}: killed after step {step}");
            let killed = disk.outcome(Restart::ProcessKill, 3);
            killed.set_plan(FaultPlan::crash_at(step as u64 + 1));
            assert!(repair(&killed).is_err(), "{label}");
            let left = killed.outcome(Restart::ProcessKill, 4);
            let before = inventory(&left);
            if left.exists(&directory.join("repair-1")) || left.exists(&directory.join("repair-2")) {
                interrupted += 1;
                let started = on_node(&left, &setup(), 5, async |_| ());
                let words = started.expect_err("it is refused").to_string();
                let goes_on = "was interrupted: `turbopump log repair --data";
                assert!(words.contains(goes_on) && words.contains("goes on"), "{label}: {words}");
                let checked = block_on(verify_shard(&left, &home(&directory, 0), &|_| ()));
                let [found] = &checked.damage[..] else { panic!("{label}: {checked:?}") };
                assert!(found.detail.contains("a repair was interrupted"), "{label}: {found:?}");
                assert_eq!(inventory(&left), before, "{label}: something was changed");
            }
            repair(&left).unwrap_or_else(|error| panic!("{label}: {error}"));
            let missing = start(&left, &filled.ledger, &label);
            let missing = missing.unwrap_or_else(|error| panic!("{label}: {error}"));
            assert_eq!(missing > 0, damage == Damage::Missing, "{label}: {missing} messages are missing");
        }
        assert!(interrupted > 0, "{damage:?}: never interrupted");
    }
}

/// Fills a node until it is done or the disk crashes, and returns what was sent and answered.
fn fill_until_crash(disk: &FaultyDisk, seed: u64) -> Ledger {
    let books: Books = Rc::new(RefCell::default());
    run_until_crash(disk, seed, async |executor| {
        let started = Node::start(disk, &setup(), executor.shared_clock(), &executor.spawner()).await;
        let node = started.expect("an empty disk");
        fill(&node, &books).await;
        node.stop().await;
    });
    books.take()
}

/// What may happen to a file as a whole, after a crash: bytes that are flipped in the last group cannot be told from a group
/// that was not finished.
const OF_WHOLE_FILES: [Damage; 7] = [
    Damage::Missing,
    Damage::Empty,
    Damage::ByteLess,
    Damage::ByteMore,
    Damage::Halved,
    Damage::Swapped,
    Damage::OfAnotherShard,
];

/// A file of shard 0 that has something in it, and another one of its kind, if there is one.
fn random_target(disk: &FaultyDisk, random: &mut Random) -> (PathBuf, Option<PathBuf>) {
    let files = disk.files().into_iter().filter(|(_, bytes)| *bytes > 0);
    let files = files.map(|(path, _)| Path::new("/").join(path));
    let files: Vec<_> = files.filter(|path| path.starts_with(shard_directory(0))).collect();
    let path = random.pick(&files).clone();
    let is_alike = |other: &&PathBuf| {
        **other != path && other.parent() == path.parent() && other.extension() == path.extension()
    };
    let neighbour = files.iter().find(is_alike).cloned();
    (path, neighbour)
}

/// The power fails or the process dies at a random moment, and what is left of a file is not what was written.
#[test]
fn whatever_happens_to_a_file_after_a_crash_nothing_is_lost_in_silence() {
    let calm = FaultyDisk::new(1, FaultPlan::none());
    fill_until_crash(&calm, 1);
    let steps = calm.step_count();
    let mut random = Random::new(6);
    let mut tried: BTreeMap<&str, usize> = BTreeMap::new();
    for case in 0..if is_full() { 400 } else { 16 } {
        let crash_at = Some(random.range(steps / 20..=steps));
        let plan = FaultPlan { crash_at, after_crash: AfterCrash::Hang, ..FaultPlan::none() };
        let disk = FaultyDisk::new(case, plan);
        let ledger = fill_until_crash(&disk, 1);
        let outcomes: Vec<_> = disk.outcomes(case..case + 1).collect();
        let (how, _, disk) = random.pick(&outcomes);
        let target = random_target(disk, &mut random);
        let damage = *random.pick(&OF_WHOLE_FILES);
        if strike(disk, &target, damage) {
            let label = format!("case {case}: {crash_at:?}, {how:?}: {} {damage:?}", target.0.display());
            let filled = Filled { disk: disk.clone(), ledger, label: "crashed", messages: Vec::new() };
            *tried.entry(go_on(disk, &filled, &label)).or_default() += 1;
        }
    }
    println!("{tried:?}");
    assert!(tried.len() >= 2, "{tried:?}");
}
