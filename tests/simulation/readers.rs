//! Readers: where they commit, where they go on, and where a group begins that has never read.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use turbopump::api::{
    ActingMember, Assignment, CommitOffset, Failure, JoinGroup, LeftGroups, OffsetSpec, ReaderClient,
    ReaderGroup, ReaderMode, Reply, Request, ResetGroup, ResetTarget, SessionLife, Status, Subscription,
};
use turbopump::disk::faulty::{Restart, Survival};
use turbopump::limits;
use turbopump::types::{Account, QueueKey, QueueNumber, QueueOffset, TopicId};

use super::leases::{acknowledge, bodies, create, disk, killed, publish, receipts, receive, received};
use super::node::{Node, Setup, TestBroker, group_name, on_node, topic_name};

/// Where they come from.
const CLIENTS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn queue(topic: TopicId, queue: u32) -> QueueKey {
    QueueKey { topic, queue: QueueNumber(queue) }
}

/// Commits, and waits until that is durable.
async fn commit(node: &Node, key: QueueKey, offset: u64) {
    let taken = node.broker().commit_as_reader(&group_name("g"), key, QueueOffset(offset), CLIENTS).await;
    taken.expect("it is in the queue").settled().await.expect("a healthy disk");
}

async fn committed(node: &Node, key: QueueKey) -> Option<u64> {
    let found = node.broker().committed_for_reader(&group_name("g"), key).await;
    found.expect("it is there").map(|offset| offset.0)
}

#[test]
fn commits_are_read_back_at_once_and_stored_together() {
    let (disk, setup) = disk();
    let ran = on_node(&disk, &setup, 1, async |node| {
        let topic = create(node, "t", 4).await;
        for number in 0..8 {
            publish(node, topic, number % 4, "", "m").await;
        }
        let before = node.broker().log().watermarks().appended_end();
        let mut taken = Vec::new();
        for offset in [0, 1, 2, 1] {
            for number in 0..4 {
                let (group, key) = (group_name("g"), queue(topic, number));
                let commit = node.broker().commit_as_reader(&group, key, QueueOffset(offset), CLIENTS).await;
                taken.push(commit.expect("it is in the queue"));
                assert_eq!(committed(node, key).await, Some(offset), "the last one counts");
            }
        }
        assert_eq!(node.broker().log().watermarks().appended_end(), before, "they are gathered");
        for commit in &taken {
            commit.settled().await.expect("a healthy disk");
        }
        let written = node.broker().log().watermarks().appended_end().0 - before.0;
        assert!(written < 8192, "{written} bytes for four offsets");
        for number in 0..4 {
            assert_eq!(committed(node, queue(topic, number)).await, Some(1), "back as well as forward");
        }
        topic
    });
    let topic = ran.expect("a healthy disk");
    for restart in [Restart::ProcessKill, Restart::PowerLoss(Survival::Nothing)] {
        let ran = on_node(&disk.outcome(restart, 9), &setup, 1, async |node| {
            for number in 0..4 {
                assert_eq!(committed(node, queue(topic, number)).await, Some(1), "{restart:?}");
            }
        });
        ran.expect("a healthy disk");
    }
}

#[test]
fn a_commit_after_the_end_is_refused_and_so_is_one_in_no_queue() {
    let (disk, setup) = disk();
    let ran = on_node(&disk, &setup, 1, async |node| {
        let topic = create(node, "t", 1).await;
        publish(node, topic, 0, "", "m").await;
        let refused = async |key, offset| {
            let taken =
                node.broker().commit_as_reader(&group_name("g"), key, QueueOffset(offset), CLIENTS).await;
            taken.err().map(|failure: Failure| failure.status)
        };
        assert_eq!(refused(queue(topic, 0), 1).await, None, "the end is where the next message comes");
        assert_eq!(refused(queue(topic, 0), 2).await, Some(Status::OffsetOutOfRange));
        assert_eq!(refused(queue(topic, 0), u64::MAX).await, Some(Status::OffsetOutOfRange));
        assert_eq!(refused(queue(topic, 1), 0).await, Some(Status::QueueNotExist));
        assert_eq!(refused(queue(TopicId(99), 0), 0).await, Some(Status::TopicNotExist));
    });
    ran.expect("a healthy disk");
}

#[test]
fn what_a_command_says_of_a_group_counts_more_than_what_was_gathered_before() {
    let (disk, setup) = disk();
    let ran = on_node(&disk, &setup, 1, async |node| {
        let topic = create(node, "t", 1).await;
        for _ in 0..4 {
            publish(node, topic, 0, "", "m").await;
        }
        let (group, key) = (group_name("g"), queue(topic, 0));
        let gathered = async |offset| {
            let taken = node.broker().commit_as_reader(&group, key, QueueOffset(offset), CLIENTS).await;
            taken.expect("it is in the queue")
        };
        let before = gathered(3).await;
        let reset = ResetGroup {
            group: group.clone(),
            topic: topic_name("t"),
            target: ResetTarget::Every(OffsetSpec::First),
        };
        node.handle(Request::ResetGroup(reset)).await.expect("it has no members");
        before.settled().await.expect("a healthy disk");
        assert_eq!(committed(node, key).await, Some(0));
        let before = gathered(2).await;
        node.handle(Request::DeleteGroup(group.clone())).await.expect("it is there");
        before.settled().await.expect("a healthy disk");
        assert_eq!(committed(node, key).await, None, "it does not come back");
        let before = gathered(2).await;
        node.handle(Request::DeleteTopic(topic_name("t"))).await.expect("it is there");
        before.settled().await.expect("a healthy disk");
    });
    ran.expect("a healthy disk");
}

#[test]
fn readers_that_follow_receivers_leave_them_what_they_were_given() {
    let (disk, setup) = disk();
    let ran = on_node(&disk, &setup, 1, async |node| {
        let topic = create(node, "t", 1).await;
        let key = queue(topic, 0);
        for number in 0..10 {
            publish(node, topic, 0, "", &format!("m{number}")).await;
        }
        let given = received(node, receive(6)).await;
        acknowledge(node, &receipts(&given[..2])).await;
        assert_eq!(committed(node, key).await, Some(6), "what was given stays the receivers'");
        commit(node, key, 8).await;
        assert_eq!(committed(node, key).await, Some(8));
        node.clock.sleep(Duration::from_secs(11)).await;
        assert_eq!(
            bodies(&received(node, receive(4)).await),
            ["m2", "m3", "m4", "m5"],
            "their lease has ended"
        );
        // Back to between what they have not acknowledged: those before it would be lost.
        commit(node, key, 4).await;
        assert_eq!(committed(node, key).await, Some(8));
        // Back to before all of it: the readers get it again.
        commit(node, key, 1).await;
        assert_eq!(committed(node, key).await, Some(1));
        node.clock.sleep(Duration::from_secs(11)).await;
        assert_eq!(bodies(&received(node, receive(2)).await), ["m1", "m2"]);
    });
    ran.expect("a healthy disk");
    let disk = killed(&disk);
    on_node(&disk, &setup, 1, async |node| node.broker().check_state()).expect("a healthy disk");
}

#[test]
fn a_new_group_begins_at_the_first_message_of_a_new_queue_only() {
    let (disk, setup) = disk();
    let ran = on_node(&disk, &setup, 1, async |node| {
        let topic = create(node, "t", 2).await;
        let begins =
            async |number| node.broker().begins_at_first(queue(topic, number)).await.expect("it is there");
        assert!(begins(0).await, "nothing is in it");
        publish(node, topic, 0, "", "first").await;
        assert!(begins(0).await);
        let body = "x".repeat(1024 * 1024);
        let segments = || node.broker().log().segments().len();
        while segments() < 2 {
            publish(node, topic, 1, "", &body).await;
        }
        assert!(begins(0).await, "it lies in the last but one");
        while segments() < 3 {
            publish(node, topic, 1, "", &body).await;
        }
        assert!(!begins(0).await && !begins(1).await, "the client decides");
    });
    ran.expect("a healthy disk");
}

#[test]
fn more_commits_than_a_round_holds_wait_for_the_next_one() {
    let (disk, setup) = disk();
    let ran = on_node(&disk, &setup, 1, async |node| {
        let topic = create(node, "t", 1).await;
        publish(node, topic, 0, "", "m").await;
        let key = queue(topic, 0);
        let mut taken = Vec::new();
        for number in 0..2 * limits::READER_COMMITS_MAX + 7 {
            let group = group_name(&format!("g{number}"));
            let network = IpAddr::from([10, 0, 0, (number % 8) as u8]);
            let commit = node.broker().commit_as_reader(&group, key, QueueOffset(1), network).await;
            taken.push(commit.expect("there is room in the end"));
        }
        for commit in taken {
            commit.settled().await.expect("a healthy disk");
        }
        let last = group_name(&format!("g{}", 2 * limits::READER_COMMITS_MAX + 6));
        let found = node.broker().committed_for_reader(&last, key).await.expect("it is there");
        assert_eq!(found, Some(QueueOffset(1)));
    });
    ran.expect("a healthy disk");
}

/// Whichever shard has a question to a group's producers, it knows the way to one.
#[test]
fn producers_are_known_on_every_shard_until_they_leave_or_are_gone() {
    let (disk, setup) = disk();
    let setup = Setup { shard_count: 2, ..setup };
    let ran = on_node(&disk, &setup, 1, async |node| {
        let topic = create(node, "t", 2).await;
        let (first, second) = (node.owner(queue(topic, 0)), node.owner(queue(topic, 1)));
        let group = group_name("p");
        let client = || ReaderClient {
            language: "GO",
            version: 317,
            groups: Vec::new(),
            produces: vec![group.clone()],
        };
        for (broker, id, number) in [(first, "a@1", 1), (second, "a@1", 2), (second, "b@1", 3)] {
            let heard = broker.hear_reader(number, id, "c:1", client()).expect("there is room");
            assert!(!heard.is_known, "another shard has not heard of it");
            broker.tell_reader(number, id).await.expect("the shards are there");
            let again = broker.hear_reader(number, id, "c:1", client()).expect("there is room");
            assert!(again.is_known, "it is not new");
        }
        let ways = |broker: &TestBroker| {
            let found = broker.producers_of(&group).into_iter();
            found.map(|way| (way.client, way.connection.shard.0, way.connection.number)).collect::<Vec<_>>()
        };
        let way = |client: &str, shard, number| (client.to_owned(), shard, number);
        for broker in [first, second] {
            assert_eq!(ways(broker), [way("a@1", 0, 1), way("a@1", 1, 2), way("b@1", 1, 3)]);
            assert!(broker.readers_of(&group).is_empty(), "it is no group of readers");
        }
        let asked = first.next_producer(&group, None).expect("there is one");
        assert_eq!((asked.client.as_str(), asked.connection.shard), ("a@1", first.shard()));
        let left = LeftGroups { reads: None, produces: Some(group.clone()) };
        first.hear_reader_leave("a@1", &left).expect("there is room");
        first.reader_left("a@1", &left).await.expect("the shards are there");
        for broker in [first, second] {
            assert_eq!(ways(broker), [way("b@1", 1, 3)]);
            let asked = broker.next_producer(&group, None).expect("there is one");
            assert_eq!(asked.connection.shard, second.shard(), "the one that is left");
        }
        second.reader_gone(3, "b@1").await;
        assert_eq!((ways(first), ways(second)), (Vec::new(), Vec::new()));
    });
    ran.expect("a healthy disk");
}

async fn join(node: &Node, generation: u64) -> Result<Assignment, Failure> {
    let join = JoinGroup {
        group: group_name("g"),
        member: "m".to_owned(),
        topics: vec![topic_name("t")],
        session_timeout: Duration::from_secs(6),
        generation,
        life: SessionLife::Timed,
    };
    match node.handle(Request::JoinGroup(join)).await? {
        Reply::Assignment(assignment) => Ok(assignment),
        other => panic!("{other:?}"),
    }
}

async fn leave(node: &Node) {
    let leave = Request::LeaveGroup { group: group_name("g"), member: "m".to_owned() };
    node.handle(leave).await.expect("it is a member");
}

/// A client says over a connection of a shard that it reads for the group. Returns what is withheld from it.
async fn beat(broker: &TestBroker, mode: ReaderMode) -> usize {
    let groups = vec![ReaderGroup {
        group: group_name("g"),
        mode,
        kind: "push",
        start: "last",
        subscriptions: Vec::new(),
    }];
    let client = ReaderClient { language: "JAVA", version: 479, groups, produces: Vec::new() };
    let heard = broker.hear_reader(1, "a@1", "c:1", client).expect("there is room");
    let told = broker.tell_reader(1, "a@1").await.expect("the shards are there");
    heard.withheld.len() + told.len()
}

/// One stray heartbeat put all members of a group out with the next restart: they were refused to join.
#[test]
fn whose_a_group_is_was_there_first_also_after_a_restart() {
    let (disk, setup) = disk();
    let of_three = Setup { shard_count: 3, ..setup };
    let commit = async |node: &Node, key, assignment: &Assignment| {
        let member = Some(ActingMember { member: "m".to_owned(), generation: assignment.generation });
        let commit = CommitOffset { group: group_name("g"), key, offset: QueueOffset(1), member };
        node.handle(Request::CommitOffset(commit)).await.expect("it has the queue");
    };
    // Of three shards, only the last one has the queue.
    let ran = on_node(&disk, &of_three, 5, async |node| {
        let topic = create(node, "t", 3).await;
        let key = queue(topic, 2);
        publish(node, topic, 2, "", "m").await;
        let mut assignment = join(node, 0).await.expect("nobody is there");
        assignment = join(node, assignment.generation).await.expect("it is a member");
        commit(node, key, &assignment).await;
        for broker in &node.brokers {
            assert_eq!(beat(broker, ReaderMode::Clustering).await, 1, "it has a member");
            assert!(node.brokers.iter().all(|other| other.readers_of(&group_name("g")).is_empty()));
            assert_eq!(beat(broker, ReaderMode::Broadcasting).await, 0, "nothing is taken from it");
            broker.reader_gone(1, "a@1").await;
        }
        key
    });
    let key = ran.expect("a healthy disk");
    let members = |broker: &TestBroker| broker.readers_of(&group_name("g")).len();
    for (seed, wait) in [(2, 0), (3, 29)] {
        let disk = disk.outcome(Restart::ProcessKill, seed);
        let ran = on_node(&disk, &of_three, 5, async |node| {
            node.clock.sleep(Duration::from_secs(wait)).await;
            for broker in &node.brokers {
                assert_eq!(beat(broker, ReaderMode::Clustering).await, 1, "its member may come back");
                assert!(node.brokers.iter().all(|other| members(other) == 0));
                let stray = broker.commit_as_reader(&group_name("g"), key, QueueOffset(0), CLIENTS).await;
                assert!(broker.shard() != node.owner(key).shard() || stray.is_err(), "nobody moves it");
            }
            join(node, 0).await.expect("it is its group");
            assert_eq!(beat(&node.brokers[1], ReaderMode::Clustering).await, 1);
            leave(node).await;
            assert_eq!(beat(&node.brokers[1], ReaderMode::Clustering).await, 0, "it has left");
            let refused = join(node, 0).await.expect_err("others are there now");
            assert_eq!(refused.status, Status::GroupHasMembers);
        });
        ran.expect("a healthy disk");
        // The group is theirs now, in the log as well.
        let ran = on_node(&disk.outcome(Restart::ProcessKill, seed), &of_three, 5, async |node| {
            assert_eq!(beat(&node.brokers[0], ReaderMode::Clustering).await, 0);
        });
        ran.expect("a healthy disk");
    }
    let ran = on_node(&disk, &of_three, 5, async |node| {
        node.clock.sleep(Duration::from_secs(31)).await;
        assert_eq!(beat(&node.brokers[1], ReaderMode::Clustering).await, 0, "its members have not come back");
    });
    ran.expect("a healthy disk");
}

/// Sixteen thousand groups, each made by one commit that nobody waits for, left none to anybody.
#[test]
fn one_place_does_not_make_the_groups_of_all() {
    let (disk, setup) = disk();
    let ran = on_node(&disk, &setup, 1, async |node| {
        let topic = create(node, "t", 1).await;
        publish(node, topic, 0, "", "m").await;
        let key = queue(topic, 0);
        let commit = async |number: usize, network| {
            let group = group_name(&format!("g{number}"));
            node.broker().commit_as_reader(&group, key, QueueOffset(1), network).await.map(drop)
        };
        let mut made = 0;
        let refused = loop {
            match commit(made, CLIENTS).await {
                Ok(()) => made += 1,
                Err(failure) => break failure,
            }
        };
        assert_eq!((made, refused.status), (limits::GROUPS_MAX / 8 * 3, Status::LimitReached));
        assert_eq!(node.broker().metrics().commits_refused.get(), 1);
        let shown = node.broker().condition();
        assert!(shown.contains("is not made for clients at 127.0.0.1"), "{shown}");
        commit(0, CLIENTS).await.expect("it has that one");
        commit(made, IpAddr::from([10, 0, 0, 2])).await.expect("there is room for others");
        // What goes is not counted.
        node.broker().settle_reader_commits().await;
        node.handle(Request::DeleteGroup(group_name("g7"))).await.expect("it is there");
        commit(made + 1, CLIENTS).await.expect("in its place");
    });
    ran.expect("a healthy disk");
}

/// Five connections with 16 clients of many topics each left newcomers no room, until they went.
#[test]
fn one_place_does_not_take_the_room_of_all_clients() {
    let (disk, setup) = disk();
    let setup = Setup { shard_count: 2, ..setup };
    let ran = on_node(&disk, &setup, 1, async |node| {
        let client = |topics: usize| {
            let subscription = |number: usize| Subscription {
                topic: format!("topic-{number}"),
                expression: "*".to_owned(),
                kind: "TAG".to_owned(),
                version: 1,
            };
            let subscriptions = (0..topics).map(subscription).collect();
            let groups = vec![ReaderGroup {
                group: group_name("g"),
                mode: ReaderMode::Broadcasting,
                kind: "push",
                start: "last",
                subscriptions,
            }];
            ReaderClient { language: "JAVA", version: 479, groups, produces: Vec::new() }
        };
        let hear = async |shard: usize, number: u64, address: &str, topics| {
            let (broker, id) = (&node.brokers[shard], format!("{number}@{address}"));
            broker.hear_reader(number, &id, address, client(topics))?;
            broker.tell_reader(number, &id).await
        };
        let members = |shard: usize| node.brokers[shard].memory().budget(Account::Members);
        for shard in [0, 1] {
            let mut number = 0;
            let refused = loop {
                number += 1;
                if let Err(failure) = hear(shard, number, "10.0.0.9:1", 1_000).await {
                    break failure;
                }
            };
            assert_eq!(refused.status, Status::Busy, "{}", refused.message);
            assert!(refused.message.contains("more than is left for its address"), "{}", refused.message);
            assert_eq!(node.brokers[shard].metrics().heartbeats_refused.get(), 1);
            assert!(node.brokers[shard].condition().contains("10.0.0.9"));
            assert!(members(shard).bytes() < members(shard).bytes_max() / 2);
        }
        // Another shard has no other share for the same place, and the others have room.
        for number in 0..40 {
            hear(1, 1_000 + number, &format!("10.0.1.{number}:1"), 10).await.expect("there is room");
        }
        hear(1, 1_000, "10.0.1.0:1", 9).await.expect("less than before");
    });
    ran.expect("a healthy disk");
}
