//! Waiting for room in the log: a shutdown ends it, and what is placed after it was decided after it.

use std::time::Duration;

use bytes::Bytes;
use futures_lite::future::{or, zip};
use futures_util::future::{LocalBoxFuture, join_all};
use turbopump::api::{
    Acknowledge, ChangeLease, CommitOffset, Decision, EndTransaction, Failure, Hold, Produce, ProduceCopies,
    Release, Reply, Request, Status,
};
use turbopump::broker::{Backpressure, PlaceRefusal};
use turbopump::disk::faulty::{FaultPlan, FaultyDisk};
use turbopump::limits::DISK_STALL;
use turbopump::testing::generators;
use turbopump::types::{Level, QueueKey, QueueNumber, QueueOffset, Timestamp};

use super::held;
use super::leases::{SECOND, create, disk, publish, receive, received};
use super::node::{Node, group_name, on_node, topic_change};

const HOUR: Duration = Duration::from_secs(3600);

pub fn batch(body_bytes: usize) -> Bytes {
    let message = generators::Message { body: vec![7; body_bytes], ..Default::default() };
    generators::batch(&[message], Timestamp(1_000)).into()
}

/// From here on every operation of the disk takes up to `latency`, and neither the group that is being written nor the next
/// one has room for anything.
pub async fn fill(node: &Node, disk: &FaultyDisk, key: QueueKey, latency: Duration) {
    // What is still on its way to the disk would hold the first group up.
    node.clock.sleep(SECOND).await;
    disk.set_clock(node.clock.clone());
    disk.set_plan(FaultPlan { latency_max: latency, ..FaultPlan::none() });
    let bytes = batch(3_900_000);
    let broker = node.owner(key);
    let large = broker.check_batch(&bytes).expect("a whole batch");
    for _ in 0..2 {
        broker.produce(key, None, &large).expect("it has room");
        // The commit task takes the group.
        node.clock.sleep(Duration::from_millis(1)).await;
    }
    let refused = broker.produce(key, None, &large);
    assert!(matches!(refused, Err(PlaceRefusal::Wait(Backpressure::Log))), "{refused:?}");
}

/// Copies are stored where they belong or not at all: so a batch that is sent again is not stored twice, and what was on its way
/// behind one that was lost is refused with it.
#[test]
fn copies_for_another_offset_are_refused() {
    let (disk, setup) = disk();
    let ran = on_node(&disk, &setup, 3, async |node| {
        let topic = create(node, "t", 2).await;
        for queue in [0, 1].map(QueueNumber) {
            let key = QueueKey { topic, queue };
            let store = async |at: Option<u64>| {
                let produce = Produce { key, level: Some(Level::Durable), batch: batch(10) };
                let copies = ProduceCopies { produce, at: at.map(QueueOffset) };
                match node.handle(Request::ProduceCopies(copies)).await {
                    Ok(Reply::Produced(produced)) => Ok(produced.base_offset.0),
                    Ok(other) => panic!("{other:?}"),
                    Err(failure) => Err(failure.status),
                }
            };
            assert_eq!(store(Some(1)).await, Err(Status::OffsetOutOfRange));
            assert_eq!(store(Some(0)).await, Ok(0));
            assert_eq!(store(Some(0)).await, Err(Status::OffsetOutOfRange), "it is there already");
            assert_eq!(store(Some(1)).await, Ok(1));
            assert_eq!(store(None).await, Ok(2));
            // Of several on their way those behind a missing one are not stored.
            let (first, second) = zip(store(Some(4)), store(Some(3))).await;
            assert_eq!((first, second), (Err(Status::OffsetOutOfRange), Ok(3)));
        }
    });
    ran.expect("the disk works");
}

#[test]
fn a_shutdown_ends_every_wait_for_room() {
    let (disk, setup) = disk();
    let ran = on_node(&disk, &setup, 3, async |node| {
        let topic = create(node, "t", 1).await;
        let key = QueueKey { topic, queue: QueueNumber(0) };
        for body in ["acknowledged", "extended", "fresh"] {
            publish(node, topic, 0, "", body).await;
        }
        let leased: Vec<_> =
            received(node, receive(2)).await.into_iter().map(|message| message.receipt).collect();
        let half = held::half(node, key, 1, None).await;
        let group = group_name("g");
        let commit = CommitOffset { group: group_name("other"), key, offset: QueueOffset(1), member: None };
        node.handle(Request::CommitOffset(commit.clone())).await.expect("a healthy disk");
        fill(node, &disk, key, 100 * HOUR).await;

        let (small, level) = (batch(10), Some(Level::Durable));
        let hold = |release| Request::Hold(Hold { key, level, batch: small.clone(), release });
        let (lease, decision) = (20 * SECOND, Decision::Rollback);
        let requests = [
            Request::Produce(Produce { key, level, batch: small.clone() }),
            hold(Release::After(HOUR)),
            hold(held::half_of(None)),
            Request::CommitOffset(CommitOffset { offset: QueueOffset(2), ..commit }),
            Request::Acknowledge(Acknowledge { group: group.clone(), receipts: vec![leased[0]] }),
            Request::ChangeLease(ChangeLease { group: group.clone(), receipt: leased[1], lease }),
            Request::Receive(receive(1)),
            Request::EndTransaction(EndTransaction { receipt: half, producer_group: None, decision }),
            Request::CreateTopic(topic_change("another", 1)),
            Request::DeleteGroup(group_name("other")),
        ];
        let begun = node.clock.monotonic();
        let waiting = requests.map(|request| -> LocalBoxFuture<'_, Result<Reply, Failure>> {
            Box::pin(async move {
                let name = format!("{request:?}");
                let patience = async {
                    node.clock.sleep(HOUR).await;
                    panic!("it still waits: {name}")
                };
                or(node.handle(request), patience).await
            })
        });
        let stopping = async {
            node.clock.sleep(SECOND).await;
            node.broker().stop();
        };
        let (answers, ()) = zip(join_all(waiting), stopping).await;
        assert!(node.clock.monotonic().since(begun) < 2 * SECOND, "at once");
        for answer in answers {
            assert_eq!(answer.map_err(|failure| failure.status).err(), Some(Status::ShuttingDown));
        }
        disk.set_plan(FaultPlan::none());
    });
    ran.expect("an empty disk");
}

#[test]
fn what_waits_for_room_is_decided_when_there_is_room() {
    let (disk, setup) = disk();
    let ran = on_node(&disk, &setup, 3, async |node| {
        let topic = create(node, "t", 1).await;
        let key = QueueKey { topic, queue: QueueNumber(0) };
        let half = held::half(node, key, 1, None).await;
        fill(node, &disk, key, 60 * SECOND).await;

        let begun = node.clock.monotonic();
        let due = Timestamp(node.clock.now().0 + 1_000);
        let delayed = held::hold(node, key, Level::Durable, 2, Release::At(due));
        let ends = zip(held::end(node, half, Decision::Rollback), held::end(node, half, Decision::Rollback));
        let (delayed, (one, other)) = zip(delayed, ends).await;
        assert!(node.clock.monotonic().since(begun) > SECOND, "the disk was to be slow");
        let offset = delayed.expect("a healthy disk").offset;
        assert_eq!(offset, Some(QueueOffset(2)), "its time has come: it is in its queue");
        let mut ended = [one.map_err(|failure| failure.status), other.map_err(|failure| failure.status)];
        ended.sort_by_key(Result::is_err);
        assert_eq!(ended, [Ok(()), Err(Status::ReceiptExpired)], "a half ends once");
        disk.set_plan(FaultPlan::none());
    });
    ran.expect("an empty disk");
}

/// What the disk kept the log waiting is told apart from what was slow elsewhere: by its counters, to the nanosecond.
#[test]
fn a_disk_that_stops_for_a_moment_is_told_by_its_time() {
    let (disk, setup) = disk();
    let ran = on_node(&disk, &setup, 3, async |node| {
        let topic = create(node, "t", 1).await;
        let key = QueueKey { topic, queue: QueueNumber(0) };
        let bytes = batch(10);
        let store = async || {
            let begun = node.clock.monotonic();
            let produce = Produce { key, level: Some(Level::Durable), batch: bytes.clone() };
            node.handle(Request::Produce(produce)).await.expect("a healthy disk");
            node.clock.monotonic().since(begun)
        };
        let metrics = node.owner(key).metrics().clone();
        let told = || (metrics.disk_stalls.get(), Duration::from_nanos(metrics.disk_stalled_ns.get()));
        store().await;
        assert_eq!(told(), (0, Duration::ZERO), "a disk that takes no time");

        disk.set_clock(node.clock.clone());
        disk.set_plan(FaultPlan { latency_max: DISK_STALL / 3, ..FaultPlan::none() });
        let mut waits = Vec::new();
        for _ in 0..20 {
            // One at a time, so that the time of each is the disk's.
            waits.push(store().await);
        }
        disk.set_plan(FaultPlan::none());
        let stalls: Vec<Duration> = waits.iter().copied().filter(|wait| *wait >= DISK_STALL).collect();
        assert!((1..20).contains(&stalls.len()), "{waits:?}");
        assert_eq!(told(), (stalls.len() as u64, stalls.into_iter().sum()), "{waits:?}");
    });
    ran.expect("an empty disk");
}
