//! Some of what was stored in a file of the log is not there, though the file is: damaged, or of an older copy. Without a
//! snapshot nothing may say what a queue had there, and offsets must not be given out again; nor does anything but retention move
//! where a queue begins.

use std::cell::RefCell;
use std::rc::Rc;

use futures_lite::future::block_on;
use turbopump::broker::{check_shard, repair_shard, verify_shard};
use turbopump::disk::faulty::{FaultPlan, FaultyDisk, Restart};
use turbopump::log::{Act, Flaw, Manifest, parse_segment_name};
use turbopump::types::{Level, LogPosition, QueueKey, QueueNumber};
use turbopump::wire::batch::{BatchHeader, Kind, LogSecret};

use super::checks::remove_derived;
use super::matrix::{Filled, garble, go_on, home, images, segments, setup, start, used_end};
use super::node::{log_directory, on_node, shard_directory};
use super::sweep::stride;
use super::workload::{Books, create, produce};

fn reached(disk: &FaultyDisk) -> LogPosition {
    let manifest = block_on(Manifest::read(disk, &log_directory(0))).expect("readable").expect("written");
    manifest.holdings.expect("segments").reached
}

fn bare(images: &[Filled]) -> impl Iterator<Item = &Filled> {
    images.iter().filter(|filled| filled.label.contains("bare"))
}

/// The file is there and as long as it was: only the manifest knows that something was stored at its end.
#[test]
fn an_end_that_cannot_be_read_is_refused_as_a_missing_one() {
    for filled in bare(&images()) {
        let last = segments(&filled.disk).pop().expect("there are some");
        let base = last.file_name().and_then(|name| parse_segment_name(name.to_str()?)).expect("a segment");
        let (reached, end) = (reached(&filled.disk).since(base), used_end(&filled.disk, &last));
        assert!(reached > 4096, "{}: the manifest does not say how far the log got into it", filled.label);
        // The last batch that the manifest of the killed one knows is a large one.
        let lost: &[u64] =
            if filled.label.contains("killed") { &[u64::MAX] } else { &[4096, 16_384, 1_000_000, u64::MAX] };
        for &bytes in lost {
            for is_zeroed in [true, false] {
                let disk = filled.disk.outcome(Restart::ProcessKill, 3);
                let from = (reached.saturating_sub(bytes).max(4096)) / 8 * 8;
                let label = format!("{}, {bytes} bytes, zeroed: {is_zeroed}", filled.label);
                if is_zeroed {
                    disk.zero(&last, from..end)
                } else {
                    garble(&disk, &last, from..end)
                }
                let words = start(&disk, &filled.ledger, &label).expect_err("it is refused").to_string();
                let named = format!("{} does not hold what was stored in it from byte", last.display());
                assert!(words.contains(&named), "{label}: {words}");
                assert_eq!(go_on(&disk, filled, &label), "given up", "{label}");
            }
        }
    }
}

/// What nobody was answered lies after everything that is known.
#[test]
fn an_unanswered_tail_is_no_missing_end() {
    for filled in bare(&images()) {
        let last = segments(&filled.disk).pop().expect("there are some");
        let base = last.file_name().and_then(|name| parse_segment_name(name.to_str()?)).expect("a segment");
        let (reached, end) = (reached(&filled.disk).since(base), used_end(&filled.disk, &last));
        for from in (reached.next_multiple_of(4096)..=end).step_by(stride(7) * 4096) {
            let disk = filled.disk.outcome(Restart::ProcessKill, 3);
            disk.zero(&last, from..end);
            let directory = shard_directory(0);
            let found = block_on(check_shard(&disk, &home(&directory, 0))).expect("a log");
            assert_eq!(found, [], "{}: cut off at {from}", filled.label);
        }
    }
}

/// A segment of an older copy beside one that is lost: what it lacks is told by all, and given up with the other.
#[test]
fn what_an_older_segment_lacks_before_a_lost_one_is_told() {
    for filled in images() {
        let files = segments(&filled.disk);
        for at in 1..files.len() {
            let disk = filled.disk.outcome(Restart::ProcessKill, 3);
            let older = &files[at - 1];
            disk.zero(older, 1_000_000..disk.size(older));
            disk.lose(&files[at]);
            let label = format!("{}: {} is older", filled.label, older.display());
            let directory = shard_directory(0);
            let found = block_on(check_shard(&disk, &home(&directory, 0))).expect("a log");
            let of_older = |file: &str| file == older.to_str().expect("UTF-8");
            let lacking = found.iter().find(|found| of_older(&found.file));
            let lacking = lacking.unwrap_or_else(|| panic!("{label}: {found:?}"));
            assert!(
                matches!(lacking.flaw, Flaw::EndUnreadable { position } if position < 5_000_000),
                "{label}"
            );
            let checked = block_on(verify_shard(&disk, &home(&directory, 0), &|_| ()));
            assert!(checked.damage.iter().any(|finding| of_older(&finding.file)), "{label}: {checked:?}");
            let repaired = block_on(repair_shard(&disk, &home(&directory, 0), LogSecret(9), Act::Tell));
            let steps = repaired.expect("it can be told").steps;
            assert!(steps.iter().any(|step| step.contains("stays as it is")), "{label}: {steps:?}");
            assert_eq!(go_on(&disk, &filled, &label), "given up", "{label}");
        }
    }
}

/// A few messages in each queue, one after the other, in one segment. There is nothing but the log.
fn some_messages() -> Filled {
    let disk = FaultyDisk::new(1, FaultPlan::none());
    let books: Books = Rc::new(RefCell::default());
    let run = on_node(&disk, &setup(), 1, async |node| {
        let topic = create(node, &books, "t", 6).await.expect("a topic").id;
        for number in 0..12 {
            let key = QueueKey { topic, queue: QueueNumber(number / 2) };
            produce(node, &books, key, Some(Level::Durable), u64::from(number), 900).await.expect("healthy");
        }
    });
    run.expect("an empty disk");
    remove_derived(&disk, &setup());
    Filled { disk, ledger: books.take(), label: "a few messages", messages: Vec::new() }
}

/// Of each batch in turn nothing is left: the first and the last one of the log, and of each queue.
#[test]
fn a_lost_batch_gives_no_offset_out_again_and_moves_no_beginning() {
    let filled = some_messages();
    let files = segments(&filled.disk);
    let [file] = &files[..] else { panic!("{files:?}") };
    let bytes = filled.disk.clean_bytes(file);
    let manifest =
        block_on(Manifest::read(&filled.disk, &log_directory(0))).expect("readable").expect("written");
    let header = |at: &usize| BatchHeader::decode_stored(&bytes[*at..], manifest.secret).ok();
    let mut batches: Vec<_> = (4096..bytes.len() - 88).step_by(8).filter_map(|at| header(&at)).collect();
    // How long the shard has run is noted at some time, and nobody misses it.
    let topic = batches[0].position;
    batches.retain(|batch| batch.kind == Kind::Messages || batch.position == topic);
    assert!(batches.len() >= 7, "{batches:?}");
    let mut outcomes = Vec::new();
    for batch in &batches {
        let disk = filled.disk.outcome(Restart::ProcessKill, 3);
        disk.zero(file, batch.position.0..batch.end_position().0);
        outcomes.push(go_on(&disk, &filled, &format!("without {batch:?}")));
    }
    let (first, last) = (outcomes[0], outcomes.pop().expect("there are some"));
    assert!(first != "named", "without the topic: {outcomes:?}");
    assert_eq!(last, "given up");
    assert!(outcomes[1..].iter().all(|outcome| *outcome == "named"), "{outcomes:?}");
}
