//! Instances over deaths: which there are is said by the log, on every shard.

use turbopump::api::{InstanceInfo, Reply, Request, Status};
use turbopump::disk::faulty::{FaultPlan, FaultyDisk, Restart, Rule, When};
use turbopump::disk::{DiskErrorKind, Operation};
use turbopump::limits;
use turbopump::types::InstanceName;

use super::checks::remove_derived;
use super::node::{Node, Setup, on_node, topic_change, topic_name};

fn name(text: &str) -> InstanceName {
    text.parse().expect("a name")
}

async fn listed(node: &Node) -> Vec<(String, u32)> {
    let named =
        |info: InstanceInfo| (info.instance.map_or(String::new(), |name| name.to_string()), info.topic_count);
    match node.handle(Request::ListInstances).await.expect("a healthy disk") {
        Reply::Instances(instances) => instances.into_iter().map(named).collect(),
        other => panic!("{other:?}"),
    }
}

/// What each shard says of a topic that is not there tells whether it knows the instance.
async fn known(node: &Node, instance: &str) -> Vec<bool> {
    let topic = topic_name(&format!("{instance}%none"));
    let mut known = Vec::new();
    for broker in &node.brokers {
        let failure = broker.handle(Request::Route(Some(topic.clone()))).await.expect_err("no such topic");
        assert_eq!(failure.status, Status::TopicNotExist);
        known.push(!failure.message.contains("instance create"));
    }
    known
}

async fn all_shards_know(node: &Node, instance: &str) -> bool {
    let known = known(node, instance).await;
    assert!(known.iter().all(|one| *one == known[0]), "they are not in line: {known:?}");
    known[0]
}

#[test]
fn instances_are_there_after_a_death_and_in_the_log_alone() {
    let disk = FaultyDisk::new(1, FaultPlan::none());
    let setup = Setup { shard_count: 3, ..Setup::default() };
    let ran = on_node(&disk, &setup, 1, async |node| {
        for instance in ["kept", "gone", "empty"] {
            node.brokers[1].handle(Request::CreateInstance(name(instance))).await.expect("a healthy disk");
        }
        node.handle(Request::CreateTopic(topic_change("kept%t", 2))).await.expect("its instance exists");
        let refused = node.handle(Request::CreateTopic(topic_change("none%t", 2))).await;
        assert_eq!(refused.expect_err("no such instance").status, Status::InvalidArgument);
        node.handle(Request::DeleteInstance(name("gone"))).await.expect("it is empty");
        let refused = node.handle(Request::DeleteInstance(name("kept"))).await;
        assert!(refused.expect_err("it has a topic").message.contains("1 topics"));
    });
    ran.expect("an empty disk");
    let killed = disk.outcome(Restart::ProcessKill, 9);
    let rebuilt = disk.outcome(Restart::ProcessKill, 9);
    remove_derived(&rebuilt, &setup);
    for disk in [killed, rebuilt] {
        let ran = on_node(&disk, &setup, 2, async |node| {
            let expected = [("", 0), ("empty", 0), ("kept", 1)];
            assert_eq!(listed(node).await, expected.map(|(name, topics)| (name.to_owned(), topics)));
            assert!(all_shards_know(node, "kept").await && all_shards_know(node, "empty").await);
            assert!(!all_shards_know(node, "gone").await);
        });
        ran.expect("a disk of ours");
    }
}

#[test]
fn a_shard_that_missed_a_change_is_brought_in_line() {
    let disk = FaultyDisk::new(1, FaultPlan::none());
    let setup = Setup { shard_count: 2, ..Setup::default() };
    let ran = on_node(&disk, &setup, 1, async |node| {
        // The change is durable on the first shard when the second one cannot store it.
        let rule = Rule::error(Operation::Write, When::From(0), DiskErrorKind::Failed);
        disk.set_plan(FaultPlan::none().with(rule.in_path("shard-1/log")));
        node.handle(Request::CreateInstance(name("i"))).await.expect_err("the second shard's disk fails");
        assert_eq!(known(node, "i").await, [true, false]);
    });
    ran.expect("an empty disk");
    let ran = on_node(&disk.outcome(Restart::ProcessKill, 9), &setup, 2, async |node| {
        assert!(all_shards_know(node, "i").await);
    });
    ran.expect("a disk of ours");
}

#[test]
fn there_are_no_more_instances_than_fit_one_change() {
    let disk = FaultyDisk::new(1, FaultPlan::none());
    let ran = on_node(&disk, &Setup::default(), 1, async |node| {
        let longest = |number: usize| {
            let digits = number.to_string();
            let rest = "i".repeat(limits::INSTANCE_NAME_BYTES_MAX - digits.len());
            Request::CreateInstance(name(&(rest + &digits)))
        };
        for number in 0..limits::INSTANCES_MAX {
            node.handle(longest(number)).await.expect("there is room");
        }
        let refused = node.handle(longest(limits::INSTANCES_MAX)).await;
        assert_eq!(refused.expect_err("no more").status, Status::LimitReached);
    });
    ran.expect("an empty disk");
}
