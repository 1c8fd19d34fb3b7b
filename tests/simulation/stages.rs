//! Where the time of requests goes, on a disk whose time is virtual.

use std::cell::Cell;
use std::time::Duration;

use turbopump::api::{
    Activity, ListSlow, Produce, Reply, Request, RequestProtocol, RequestStage, RequestSubject,
};
use turbopump::disk::faulty::FaultPlan;
use turbopump::metrics::{Answered, Timeline};
use turbopump::types::{Level, QueueKey, QueueNumber};

use super::leases::{SECOND, create, disk};
use super::node::{Node, on_node};
use super::writing::batch;

/// A produce as a connection has it carried out: its timeline, and that it was answered.
async fn produce(node: &Node, key: QueueKey, level: Level) -> Timeline {
    let timeline = Cell::new(Timeline::at(node.clock.monotonic()));
    let produce = Produce { key, level: Some(level), batch: batch(100) };
    let flight = &node.broker().metrics().flight;
    let reply = flight.trace(&timeline, node.handle(Request::Produce(produce))).await;
    reply.expect("it is stored");
    timeline.get()
}

#[test]
fn a_slow_disk_is_device_and_flush() {
    let (disk, setup) = disk();
    let ran = on_node(&disk, &setup, 5, async |node| {
        let topic = create(node, "t", 1).await;
        let key = QueueKey { topic, queue: QueueNumber(0) };
        node.clock.sleep(SECOND).await;
        disk.set_clock(node.clock.clone());
        disk.set_plan(FaultPlan { latency_max: SECOND, ..FaultPlan::none() });
        let (mut of_disk, mut all) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..20 {
            let timeline = produce(node, key, Level::Durable).await;
            let now = node.clock.monotonic();
            let times = node.broker().metrics().flight.stages(&timeline, now);
            assert_eq!(times.brokers(), now.since(timeline.complete), "nothing of its time is missing");
            of_disk += times.get(RequestStage::Device) + times.get(RequestStage::Flush);
            all += times.brokers();
            // Whose group was not held up by another one's write.
            node.clock.sleep(3 * SECOND).await;
        }
        assert!(all > 5 * SECOND, "{all:?}");
        assert!(of_disk > all * 9 / 10, "{of_disk:?} of {all:?}");
        // Nobody waits for the disk.
        let timeline = produce(node, key, Level::Accepted).await;
        let times = node.broker().metrics().flight.stages(&timeline, node.clock.monotonic());
        assert!(times.brokers() < Duration::from_millis(10), "{times}");
        disk.set_plan(FaultPlan::none());
    });
    ran.expect("a healthy disk");
}

/// What waits for a group that another one keeps from the disk waits in the open group.
#[test]
fn what_comes_behind_a_write_is_in_the_open_group() {
    let (disk, setup) = disk();
    let ran = on_node(&disk, &setup, 6, async |node| {
        let topic = create(node, "t", 1).await;
        let key = QueueKey { topic, queue: QueueNumber(0) };
        node.clock.sleep(SECOND).await;
        disk.set_clock(node.clock.clone());
        disk.set_plan(FaultPlan { latency_max: SECOND, ..FaultPlan::none() });
        let mut appended = Duration::ZERO;
        for _ in 0..10 {
            let later = async {
                node.clock.sleep(Duration::from_millis(1)).await;
                produce(node, key, Level::Durable).await
            };
            let (_, timeline) = futures_lite::future::zip(produce(node, key, Level::Durable), later).await;
            let times = node.broker().metrics().flight.stages(&timeline, node.clock.monotonic());
            appended += times.get(RequestStage::Append);
        }
        assert!(appended > SECOND, "{appended:?}");
        disk.set_plan(FaultPlan::none());
    });
    ran.expect("a healthy disk");
}

#[test]
fn a_snapshot_is_told_with_the_requests_that_met_it() {
    let (disk, setup) = disk();
    let ran = on_node(&disk, &setup, 7, async |node| {
        let topic = create(node, "t", 1).await;
        let key = QueueKey { topic, queue: QueueNumber(0) };
        disk.set_clock(node.clock.clone());
        disk.set_plan(FaultPlan { latency_max: SECOND, ..FaultPlan::none() });
        let snapshot = async { node.broker().take_snapshot().await.expect("a healthy disk") };
        let (_, timeline) = futures_lite::future::zip(snapshot, produce(node, key, Level::Durable)).await;
        disk.set_plan(FaultPlan::none());
        let now = node.clock.monotonic();
        let (protocol, subject) = (RequestProtocol::Http, RequestSubject::of_queue("publish", key, None));
        let answered = Answered { protocol, subject, client: None, timeline, at: now };
        node.broker().metrics().flight.record(answered, now);
        let list = ListSlow { count: 3, ..ListSlow::default() };
        let listed = node.handle(Request::ListSlow(list.clone())).await;
        let Ok(Reply::Slow(slow)) = listed else { panic!("{listed:?}") };
        assert_eq!(slow[0].topic.as_ref().map(|topic| topic.as_str()), Some("t"));
        assert!(slow[0].meanwhile.iter().any(|(activity, _)| *activity == Activity::Snapshot), "{slow:?}");
        let other = ListSlow { topic: Some("other".parse().expect("a name")), ..list };
        let listed = node.handle(Request::ListSlow(other)).await;
        assert!(matches!(&listed, Ok(Reply::Slow(slow)) if slow.is_empty()), "{listed:?}");
    });
    ran.expect("a healthy disk");
}
