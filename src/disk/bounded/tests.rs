use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::disk::DiskBuffer;
use crate::disk::faulty::{FaultPlan, FaultyDisk};
use crate::disk::memory::MemoryDisk;
use crate::limits::BLOCK_BYTES;
use crate::testing::SeededExecutor;
use futures_lite::future::block_on;

type Bounded = BoundedDisk<MemoryDisk>;

fn bounded(files_max: usize) -> (MemoryDisk, Bounded) {
    let memory = MemoryDisk::new();
    block_on(memory.create_directory(Path::new("/data"))).expect("a directory");
    (memory.clone(), BoundedDisk::new(memory, files_max))
}

fn at(number: usize) -> PathBuf {
    PathBuf::from(format!("/data/{number}"))
}

fn block<D: Disk>(disk: &D, byte: usize) -> Rc<D::Buffer> {
    let mut buffer = disk.allocate(BLOCK_BYTES);
    buffer.as_mut_slice().fill(byte as u8);
    Rc::new(buffer)
}

/// A flushed file of one block, full of its number.
fn stored(disk: &Bounded, number: usize) -> BoundedFile<MemoryDisk> {
    block_on(async {
        let file = disk.open(&at(number), OpenMode::Create).await.expect("it opens");
        file.write(0, block(disk, number)).await.expect("it is written");
        file.sync().await.expect("it is flushed");
        file
    })
}

fn byte_of<D: Disk>(file: &BoundedFile<D>) -> usize {
    usize::from(block_on(file.read(0, BLOCK_BYTES)).expect("it is read")[0])
}

#[test]
fn many_files_are_read_through_few_descriptors() {
    let (memory, disk) = bounded(3);
    let files: Vec<_> = (0..100).map(|number| stored(&disk, number)).collect();
    assert_eq!((memory.open_files(), disk.open_files()), (3, 3));
    for number in (0..100).rev().chain([5, 5, 99, 5, 0]) {
        assert_eq!(byte_of(&files[number]), number);
        assert!(memory.open_files() <= 3);
    }
    files.into_iter().for_each(|file| block_on(file.close()).expect("it closes"));
    assert_eq!((memory.open_files(), disk.open_files()), (0, 0));
}

#[test]
fn what_was_used_last_stays_open() {
    let (_, disk) = bounded(2);
    let files: Vec<_> = (0..3).map(|number| stored(&disk, number)).collect();
    let is_open = |number: usize| files[number].entry.file.borrow().is_some();
    assert_eq!([0, 1, 2].map(is_open), [false, true, true]);
    byte_of(&files[1]);
    byte_of(&files[0]);
    assert_eq!([0, 1, 2].map(is_open), [true, true, false]);
}

#[test]
fn a_file_that_is_kept_or_not_flushed_is_not_closed_and_takes_no_room() {
    let (memory, disk) = bounded(1);
    let kept = stored(&disk, 0);
    kept.keep_open();
    let written = stored(&disk, 1);
    block_on(written.write(0, block(&disk, 1))).expect("it is written");
    let others: Vec<_> = (2..5).map(|number| stored(&disk, number)).collect();
    assert_eq!(memory.open_files(), 3);
    assert_eq!([byte_of(&kept), byte_of(&written), byte_of(&others[0])], [0, 1, 2]);
    block_on(written.sync()).expect("it is flushed");
    assert_eq!(memory.open_files(), 2, "it counts now, and what was used before it is closed");
    block_on(kept.let_go()).expect("it is closed");
    assert_eq!(memory.open_files(), 1);
    assert_eq!([byte_of(&kept), byte_of(&written)], [0, 1]);
    assert_eq!(memory.open_files(), 1);
}

#[test]
fn a_write_with_its_flush_covers_no_other_write() {
    let (_, disk) = bounded(1);
    let file = stored(&disk, 0);
    block_on(file.write_synced(0, block(&disk, 1))).expect("it is written");
    assert!(file.entry.is_flushed());
    block_on(file.write(0, block(&disk, 2))).expect("it is written");
    block_on(file.write_synced(0, block(&disk, 3))).expect("it is written");
    assert!(!file.entry.is_flushed());
    block_on(file.let_go()).expect("it is closed");
    assert!(file.entry.is_flushed(), "it was flushed before");
}

#[test]
fn a_file_without_its_name_is_read_on_by_who_has_it() {
    let (memory, disk) = bounded(1);
    let [removed, replaced, moved, other] = [0, 1, 2, 3].map(|number| stored(&disk, number));
    block_on(disk.remove(&at(0))).expect("it is removed");
    block_on(disk.rename(&at(2), &at(1))).expect("it is renamed");
    let new = stored(&disk, 0);
    block_on(new.write(0, block(&disk, 77))).expect("it is written");
    block_on(new.sync()).expect("it is flushed");
    for _ in 0..2 {
        assert_eq!([&removed, &replaced, &moved, &other, &new].map(byte_of), [0, 1, 2, 3, 77]);
    }
    assert_eq!(memory.open_files(), 3, "the two without a name, and one more");
    for file in [removed, replaced, moved, other, new] {
        block_on(file.close()).expect("it closes");
    }
    assert_eq!((memory.open_files(), disk.open_files()), (0, 0));
    assert!(disk.files.named.borrow().is_empty());
}

#[test]
fn a_name_that_could_not_be_taken_away_stays() {
    let (_, disk) = bounded(1);
    let file = stored(&disk, 0);
    let missing = block_on(disk.rename(&at(0), Path::new("/nowhere/0"))).expect_err("no such directory");
    assert_eq!(missing.kind, DiskErrorKind::NotFound);
    let _other = stored(&disk, 1);
    assert_eq!(byte_of(&file), 0, "it is opened again by its old name");
}

#[test]
fn a_file_that_is_gone_is_an_error_for_its_reader_and_costs_nothing() {
    let (memory, disk) = bounded(1);
    let file = stored(&disk, 0);
    let other = stored(&disk, 1);
    block_on(memory.remove(&at(0))).expect("behind our back");
    for _ in 0..3 {
        let error = block_on(file.read(0, BLOCK_BYTES)).expect_err("it is not there");
        assert_eq!(error.kind, DiskErrorKind::NotFound);
    }
    assert_eq!(byte_of(&other), 1);
    drop(file);
    assert_eq!((memory.open_files(), disk.open_files()), (1, 1));
}

/// ext4 becomes read-only when a write of its journal has failed. What a shard has stored is read on.
#[test]
fn a_file_system_that_has_become_read_only_is_read_on() {
    let (memory, disk) = bounded(2);
    let files: Vec<_> = (0..4).map(|number| stored(&disk, number)).collect();
    memory.set_read_only(true);
    for _ in 0..2 {
        assert_eq!([0, 1, 2, 3].map(|number| byte_of(&files[number])), [0, 1, 2, 3]);
    }
    let write = || block_on(files[3].write(0, block(&disk, 7)));
    assert_eq!(write().expect_err("it takes none").kind, DiskErrorKind::PermissionDenied);
    assert_eq!(byte_of(&files[3]), 3);
    memory.set_read_only(false);
    write().expect("it takes writes again");
    block_on(files[3].sync()).expect("it is flushed");
    assert_eq!([0, 3].map(|number| byte_of(&files[number])), [0, 7]);
    assert!(memory.open_files() <= 2, "{} are open", memory.open_files());
}

#[test]
fn a_reader_waits_while_all_that_may_be_open_are_read() {
    let (_, disk) = bounded(1);
    let [first, second] = [0, 1].map(|number| stored(&disk, number));
    let reading = block_on(first.using()).expect("it is open");
    let mut context = Context::from_waker(Waker::noop());
    {
        let mut waiting = pin!(second.read(0, BLOCK_BYTES));
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        drop(reading);
        let Poll::Ready(read) = waiting.as_mut().poll(&mut context) else { panic!("there is room") };
        assert_eq!(read.expect("it is read")[0], 1);
    }
    assert_eq!(byte_of(&first), 0);
}

/// Over a disk on which every operation takes its time, so that opens, reads and closes cross each other.
#[test]
fn many_readers_at_once_neither_exceed_the_bound_nor_wait_for_ever() {
    for seed in 0..20 {
        let faulty = FaultyDisk::new(seed, FaultPlan::reordered());
        let disk = BoundedDisk::new(faulty, 4);
        let executor = SeededExecutor::new(seed);
        let spawner = executor.spawner();
        let done = executor.run_until(async move {
            disk.create_directory(Path::new("/data")).await.expect("a directory");
            let mut files = Vec::new();
            for number in 0..30 {
                let file = disk.open(&at(number), OpenMode::Create).await.expect("it opens");
                file.write(0, block(&disk, number)).await.expect("it is written");
                file.sync().await.expect("it is flushed");
                files.push(Rc::new(file));
            }
            let tasks: Vec<_> = (0..200)
                .map(|task| {
                    let (disk, file) = (disk.clone(), files[task * 7 % 30].clone());
                    spawner.spawn(async move {
                        let read = file.read(0, BLOCK_BYTES).await.expect("it is read");
                        assert_eq!(usize::from(read[0]), task * 7 % 30);
                        // And those without a name.
                        assert!(disk.open_files() <= 4 + 4);
                        if task % 50 == 0 && task < 150 {
                            disk.remove(&at(task * 7 % 30)).await.expect("it is removed");
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await;
            }
            for file in files {
                let file = Rc::into_inner(file).expect("the readers are done");
                file.close().await.expect("it closes");
            }
            disk.open_files()
        });
        assert_eq!(done, 0);
    }
}
