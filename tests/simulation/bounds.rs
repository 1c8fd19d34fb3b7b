//! Tables that clients can grow: nobody takes what others need, nothing is stored for nothing, and what is stored costs
//! what it is worth.

use std::time::Duration;

use bytes::Bytes;
use turbopump::api::{
    CommitOffset, Failure, Filter, GroupSettings, Held, JoinGroup, Produce, Receive, ReceivedMessage,
    Release, Reply, Request, SessionLife, Status,
};
use turbopump::broker::Recall;
use turbopump::disk::faulty::{FaultPlan, FaultyDisk};
use turbopump::limits;
use turbopump::types::{Level, QueueKey, QueueNumber, QueueOffset, TopicId};
use turbopump::wire::batch::BatchBuilder;
use turbopump::wire::record::Record;

use super::checks::remove_derived;
use super::held::{TOPIC, after, create_topic, half_of, hold};
use super::leases::{SECOND, bodies, create, described, disk, killed, publish, receipts, receive, received};
use super::node::{Node, Setup, group_name, on_node, topic_name};

const HOUR: Duration = Duration::from_secs(3600);

/// Half as many messages as a shard has leases for.
async fn publish_many(node: &Node, topic: TopicId) {
    const BATCH: usize = 256;
    let mut builder = BatchBuilder::new(node.clock.now());
    for _ in 0..BATCH {
        builder.push(&Record { body: b"m", ..Record::default() });
    }
    let batch = Bytes::from(builder.finish());
    let key = QueueKey { topic, queue: QueueNumber(0) };
    for _ in 0..limits::SHARD_LEASED_MESSAGES_MAX / 2 / BATCH {
        let produce = Produce { key, level: None, batch: batch.clone() };
        node.handle(Request::Produce(produce)).await.expect("a healthy disk");
    }
}

fn of_group(group: &str, count: u32) -> Receive {
    Receive { group: group_name(group), lease: Some(12 * HOUR), ..receive(count) }
}

async fn try_receive(node: &Node, receive: Receive) -> Result<Vec<ReceivedMessage>, Failure> {
    match node.handle(Request::Receive(receive)).await? {
        Reply::Received(messages) => Ok(messages),
        other => panic!("{other:?}"),
    }
}

async fn acknowledge_all(node: &Node, group: &str, messages: &[ReceivedMessage]) {
    if messages.is_empty() {
        return;
    }
    let request = turbopump::api::Acknowledge { group: group_name(group), receipts: receipts(messages) };
    node.handle(Request::Acknowledge(request)).await.expect("a healthy disk");
}

/// Receives until it is refused; returns how many there were, the last messages, and the refusal.
async fn take_all(node: &Node, group: &str) -> (usize, Vec<ReceivedMessage>, Failure) {
    let (mut count, mut last) = (0, Vec::new());
    loop {
        match try_receive(node, of_group(group, 32)).await {
            Ok(messages) => {
                assert!(!messages.is_empty(), "there are more");
                count += messages.len();
                last = if last.len() >= 256 { messages } else { [last, messages].concat() };
            }
            Err(failure) => return (count, last, failure),
        }
    }
}

#[test]
fn no_group_takes_the_leases_that_others_need() {
    let (disk, setup) = disk();
    let most = limits::SHARD_LEASED_MESSAGES_MAX;
    let ran = on_node(&disk, &setup, 1, async |node| {
        let topic = create(node, "t", 1).await;
        publish_many(node, topic).await;
        let (taken, last, refusal) = take_all(node, "greedy").await;
        assert_eq!(refusal.status, Status::LimitReached);
        assert!((most / 8 * 3..most / 8 * 3 + 64).contains(&taken), "{taken} of {most}");
        assert!(refusal.message.contains("group greedy gets nothing new"), "{}", refusal.message);
        // Shown to whoever looks.
        assert_eq!(node.broker().condition(), refusal.message);
        assert_eq!(described(node, "greedy").await.refused, std::slice::from_ref(&refusal.message));
        assert!(described(node, "greedy").await.queues[0].leased as usize >= taken);
        // Also when it waits, and then it is told at the end.
        let begun = node.clock.monotonic();
        let waited = try_receive(node, Receive { wait: 5 * SECOND, ..of_group("greedy", 1) }).await;
        assert_eq!(waited, Err(refusal));
        assert!(node.clock.monotonic().since(begun) >= 5 * SECOND);
        // Others have theirs, one name after the other.
        for name in ["a", "b", "c"] {
            let messages = try_receive(node, of_group(name, 32)).await.expect("others have room");
            assert_eq!(messages.len(), 32);
        }
        assert!(described(node, "a").await.refused.is_empty());
        // What is acknowledged makes room.
        assert!(last.len() >= 128);
        acknowledge_all(node, "greedy", &last).await;
        assert_eq!(try_receive(node, of_group("greedy", 16)).await.expect("room").len(), 16);
        node.clock.sleep(120 * SECOND).await;
        assert_eq!(node.broker().condition(), "");
        killed(&disk)
    });
    let disk = ran.expect("an empty disk");
    let ran = on_node(&disk, &setup, 2, async |node| {
        let messages = try_receive(node, of_group("late", 32)).await.expect("a new group has room");
        assert_eq!(messages.len(), 32);
    });
    ran.expect("a healthy disk");
}

#[test]
fn messages_that_come_again_need_no_new_room() {
    let (disk, setup) = disk();
    let ran = on_node(&disk, &setup, 1, async |node| {
        let topic = create(node, "t", 1).await;
        publish_many(node, topic).await;
        take_all(node, "greedy").await;
        let messages = node.broker().leases_held().messages;
        node.clock.sleep(13 * HOUR).await;
        for _ in 0..500 {
            // Each is a lease of its own from now on.
            assert_eq!(
                try_receive(node, of_group("greedy", 1)).await.expect("it has those")[0].deliveries,
                2
            );
        }
        assert_eq!(node.broker().leases_held().messages, messages);
    });
    ran.expect("an empty disk");
}

#[test]
fn no_producer_takes_the_halves_that_others_need() {
    let (disk, setup) = (FaultyDisk::new(1, FaultPlan::none()), Setup::default());
    let ran = on_node(&disk, &setup, 1, async |node| {
        let key = create_topic(node, TOPIC, 1).await.expect("an empty disk");
        let mut stored = 0;
        let refusal = 'all: loop {
            let some = (0..512).map(|_| hold(node, key, Level::Durable, 1, half_of(Some("greedy"))));
            for held in futures_util::future::join_all(some).await {
                match held {
                    Ok(_) => stored += 1,
                    Err(refusal) => break 'all refusal,
                }
            }
        };
        assert_eq!(refusal.status, Status::LimitReached);
        assert!(refusal.message.contains("for group greedy"), "{}", refusal.message);
        let most = limits::SHARD_HALVES_MAX;
        assert!((most / 4..most / 8 * 3 + 512).contains(&stored), "{stored} of {most}");
        for group in [Some("good"), None] {
            hold(node, key, Level::Durable, 1, half_of(group)).await.expect("others have room");
        }
        // An operator is told of it as well.
        let condition = node.broker().condition();
        assert!(condition.contains("for group greedy"), "{condition}");
        node.clock.sleep(120 * SECOND).await;
        assert_eq!(node.broker().condition(), "");
    });
    ran.expect("an empty disk");
}

#[test]
fn nobody_takes_the_recalls_that_others_need() {
    let (disk, setup) = (FaultyDisk::new(1, FaultPlan::none()), Setup::default());
    let ran = on_node(&disk, &setup, 1, async |node| {
        let key = create_topic(node, TOPIC, 1).await.expect("an empty disk");
        let delayed = || hold(node, key, Level::Durable, 1, Release::At(after(node, 3_600_000)));
        let recall_from = |held: Held, network: [u8; 4]| {
            let due = held.due.expect("it waits for its time");
            let (topic, unique_id, position) = (topic_name(TOPIC), "1".to_owned(), held.position);
            Recall { topic, due, unique_id: Some(unique_id), position, network: network.into() }
        };
        let (greedy, other) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        let mut taken_back = 0;
        let refusal = 'all: loop {
            let held = futures_util::future::join_all((0..512).map(|_| delayed())).await.into_iter();
            let some: Vec<_> = held.map(|held| recall_from(held.expect("there is room"), greedy)).collect();
            for recalled in
                futures_util::future::join_all(some.iter().map(|recall| node.broker().recall(recall))).await
            {
                match recalled {
                    Ok(()) => taken_back += 1,
                    Err(refusal) => break 'all refusal,
                }
            }
        };
        assert_eq!(refusal.status, Status::LimitReached);
        assert!(refusal.message.contains("for clients at 10.0.0.1"), "{}", refusal.message);
        assert_eq!(taken_back, limits::SHARD_RECALLS_MAX / 8 * 3);
        let condition = node.broker().condition();
        assert!(condition.contains("for clients at 10.0.0.1"), "{condition}");
        let of_other = recall_from(delayed().await.expect("there is room"), other);
        node.broker().recall(&of_other).await.expect("others have room");
        // Once their times have come, there is room again.
        node.clock.sleep(3_601 * SECOND).await;
        let again = recall_from(delayed().await.expect("there is room"), greedy);
        node.broker().recall(&again).await.expect("nothing else of theirs waits");
    });
    ran.expect("an empty disk");
}

fn log_end(node: &Node) -> u64 {
    node.broker().log().watermarks().appended_end().0
}

#[test]
fn nothing_is_stored_for_groups_that_get_nothing() {
    let (disk, setup) = disk();
    const QUEUES: u32 = 64;
    let looking = |group: u32| Receive {
        filter: Filter::parse(Some("nobody-has-it")),
        ..of_group(&format!("looker-{group}"), 16)
    };
    let ran = on_node(&disk, &setup, 1, async |node| {
        let topic = create(node, "t", QUEUES).await;
        for queue in 0..QUEUES {
            publish(node, topic, queue, "a", "m").await;
        }
        // Longer than one look.
        for number in 0..3000 {
            publish(node, topic, 0, "a", &number.to_string()).await;
        }
        node.clock.sleep(SECOND).await;
        let end = log_end(node);
        for group in 0..50 {
            let wait = SECOND;
            assert!(try_receive(node, Receive { wait, ..looking(group) }).await.expect("nothing").is_empty());
        }
        assert_eq!((log_end(node), node.broker().leases_held().pairs), (end, 0));
        // They have looked at all the same, and find what comes.
        publish(node, topic, 0, "nobody-has-it", "news").await;
        assert_eq!(bodies(&try_receive(node, looking(7)).await.expect("a healthy disk")), ["news"]);
        assert_eq!(node.broker().leases_held().pairs, 1);
        // Of a group that has a place it is kept what its filter left out.
        publish(node, topic, 5, "a", "m").await;
        assert!(try_receive(node, looking(7)).await.expect("a healthy disk").is_empty());
        assert_eq!(node.broker().leases_held().pairs, 2);
        let groups = node.handle(Request::ListGroups).await.expect("a healthy disk");
        let Reply::Groups(groups) = groups else { panic!("{groups:?}") };
        assert!(
            (20..50).contains(&groups.len()),
            "those who receive are shown for half a minute: {}",
            groups.len()
        );
        node.clock.sleep(120 * SECOND).await;
        let groups = node.handle(Request::ListGroups).await.expect("a healthy disk");
        assert!(matches!(groups, Reply::Groups(groups) if groups.len() == 1));
    });
    ran.expect("an empty disk");
}

/// Tables of more than a segment: names of full length, in many queues.
#[test]
fn a_checkpoint_that_is_larger_than_a_segment_is_no_reason_for_the_next_one() {
    const QUEUES: u32 = 256;
    const GROUPS: u32 = 256;
    let plain = Setup::default();
    let setup = Setup { retention_bytes: Some(6 * plain.segment_bytes), ..plain };
    let disk = FaultyDisk::new(1, FaultPlan::none());
    let name = |group: u32| format!("{group:0>width$}", width = limits::GROUP_NAME_BYTES_MAX);
    let ran = on_node(&disk, &setup, 1, async |node| {
        let topic = create(node, "t", QUEUES).await;
        let all = (0..QUEUES).map(|queue| publish(node, topic, queue, "", "m"));
        futures_util::future::join_all(all).await;
        for group in 0..GROUPS {
            let mut rest = QUEUES as usize;
            while rest > 0 {
                let messages = received(node, of_group(&name(group), 32)).await;
                acknowledge_all(node, &name(group), &messages).await;
                rest -= messages.len();
            }
        }
        assert_eq!(node.broker().leases_held().pairs, (QUEUES * GROUPS) as usize);
        node.clock.sleep(60 * SECOND).await;
        let end = log_end(node);
        assert!(end > setup.segment_bytes, "not enough to begin a segment");
        node.clock.sleep(300 * SECOND).await;
        let grown = log_end(node) - end;
        assert!(grown < 64 * 1024, "the log grew by {grown} bytes with nobody there");
        // Who writes as much as the tables are long gets one more, and messages that are read in time stay.
        for _ in 0..12 {
            publish(node, topic, 0, "", &"x".repeat(3_000_000)).await;
            node.clock.sleep(SECOND).await;
        }
        node.clock.sleep(60 * SECOND).await;
        let end = log_end(node);
        node.clock.sleep(300 * SECOND).await;
        assert!(log_end(node) - end < 64 * 1024);
        killed(&disk)
    });
    let killed_disk = ran.expect("an empty disk");
    for bare in [false, true] {
        let disk = killed(&killed_disk);
        if bare {
            remove_derived(&disk, &setup);
        }
        let ran = on_node(&disk, &setup, 2, async |node| {
            assert_eq!(node.broker().leases_held().pairs, (QUEUES * GROUPS) as usize, "bare: {bare}");
            let lag =
                described(node, &name(GROUPS - 1)).await.queues.iter().filter(|queue| queue.lag > 0).count();
            assert_eq!(lag, 1, "bare: {bare}: what came after its places were noted");
        });
        ran.expect("a healthy disk");
    }
}

#[test]
fn so_many_groups_are_kept_and_a_further_one_is_told() {
    let (disk, setup) = disk();
    let ran = on_node(&disk, &setup, 1, async |node| {
        let topic = create(node, "t", 1).await;
        publish(node, topic, 0, "", "m").await;
        for group in 0..limits::GROUPS_MAX {
            let group = format!("g{group}");
            let messages = try_receive(node, of_group(&group, 1)).await.expect("within the bound");
            acknowledge_all(node, &group, &messages).await;
        }
        let refusal = try_receive(node, of_group("late", 1)).await.expect_err("too many");
        assert_eq!(refusal.status, Status::LimitReached);
        publish(node, topic, 0, "", "news").await;
        assert_eq!(try_receive(node, of_group("g7", 1)).await.expect("it is known").len(), 1);
        node.clock.sleep(60 * SECOND).await;
        node.handle(Request::DeleteGroup(group_name("g8"))).await.expect("nobody uses it");
        assert_eq!(try_receive(node, of_group("late", 1)).await.expect("there is room").len(), 1);
        // The same for those who commit.
        let key = QueueKey { topic, queue: QueueNumber(0) };
        let commit = |group: &str| {
            let commit = CommitOffset { group: group_name(group), key, offset: QueueOffset(1), member: None };
            node.handle(Request::CommitOffset(commit))
        };
        for group in 0..limits::GROUPS_MAX {
            commit(&format!("c{group}")).await.expect("within the bound");
        }
        assert_eq!(commit("late-too").await.expect_err("too many").status, Status::LimitReached);
    });
    ran.expect("an empty disk");
}

async fn settings(node: &Node, group: &str) {
    let settings =
        GroupSettings { group: group_name(group), deliveries_max: Some(1), lease: None, ordered_lease: None };
    node.handle(Request::AlterGroup(settings)).await.expect("a healthy disk");
}

async fn group_names(node: &Node) -> Vec<String> {
    match node.handle(Request::ListGroups).await.expect("a healthy disk") {
        Reply::Groups(groups) => groups.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_deleted_group_is_gone_on_every_shard_and_after_every_restart() {
    let disk = FaultyDisk::new(1, FaultPlan::none());
    let setup = Setup { shard_count: 2, ..Setup::default() };
    let ran = on_node(&disk, &setup, 1, async |node| {
        let topic = create(node, "t", 4).await;
        for queue in 0..4 {
            publish(node, topic, queue, "", &queue.to_string()).await;
        }
        let delete = |group: &str| node.handle(Request::DeleteGroup(group_name(group)));
        assert_eq!(delete("gone").await.expect_err("nobody").status, Status::GroupNotExist);
        settings(node, "gone").await;
        let mut messages = try_receive(node, of_group("gone", 4)).await.expect("a healthy disk");
        messages.extend(try_receive(node, of_group("gone", 4)).await.expect("a healthy disk"));
        assert_eq!(messages.len(), 4);
        let stays = try_receive(node, of_group("stays", 4)).await.expect("a healthy disk");
        acknowledge_all(node, "stays", &stays).await;
        assert_eq!(delete("gone").await.expect_err("it receives").status, Status::GroupHasMembers);
        let join = JoinGroup {
            group: group_name("joined"),
            member: "m".to_owned(),
            topics: vec![topic_name("t")],
            session_timeout: 10 * SECOND,
            generation: 0,
            life: SessionLife::Timed,
        };
        node.handle(Request::JoinGroup(join)).await.expect("a healthy disk");
        assert_eq!(delete("joined").await.expect_err("a member").status, Status::GroupHasMembers);
        node.clock.sleep(31 * SECOND).await;
        delete("gone").await.expect("nobody uses it");
        assert_eq!(group_names(node).await, ["stays"]);
        // What it was given counts no more.
        let request =
            turbopump::api::Acknowledge { group: group_name("gone"), receipts: receipts(&messages) };
        let Ok(Reply::Acknowledged(outcomes)) = node.handle(Request::Acknowledge(request)).await else {
            panic!("not answered")
        };
        assert_eq!(outcomes, vec![turbopump::api::ReceiptOutcome::NothingOpen; 4]);
        assert_eq!(group_names(node).await, ["stays"]);
        killed(&disk)
    });
    let killed_disk = ran.expect("an empty disk");
    for bare in [false, true] {
        let disk = killed(&killed_disk);
        if bare {
            remove_derived(&disk, &setup);
        }
        let ran = on_node(&disk, &setup, 2, async |node| {
            assert_eq!(group_names(node).await, ["stays"], "bare: {bare}");
            let mut again = try_receive(node, of_group("gone", 4)).await.expect("a healthy disk");
            again.extend(try_receive(node, of_group("gone", 4)).await.expect("a healthy disk"));
            assert_eq!(again.len(), 4, "it starts at the first message");
            assert!(again.iter().all(|message| message.deliveries == 1));
        });
        ran.expect("a healthy disk");
    }
}

#[test]
fn a_group_that_nobody_uses_is_forgotten_and_one_that_finds_nothing_is_not() {
    let disk = FaultyDisk::new(1, FaultPlan::none());
    let setup = Setup { shard_count: 2, group_idle: Some(24 * HOUR), ..Setup::default() };
    let looks = async |node: &Node| {
        let messages = try_receive(node, of_group("looks", 4)).await.expect("a healthy disk");
        acknowledge_all(node, "looks", &messages).await;
    };
    let ran = on_node(&disk, &setup, 1, async |node| {
        let topic = create(node, "t", 2).await;
        for queue in 0..2 {
            publish(node, topic, queue, "", "m").await;
            let key = QueueKey { topic, queue: QueueNumber(queue) };
            let commit =
                CommitOffset { group: group_name("committed"), key, offset: QueueOffset(1), member: None };
            node.handle(Request::CommitOffset(commit)).await.expect("a healthy disk");
        }
        settings(node, "idle").await;
        let messages = try_receive(node, of_group("idle", 4)).await.expect("a healthy disk");
        acknowledge_all(node, "idle", &messages).await;
        for _ in 0..20 {
            looks(node).await;
            node.clock.sleep(HOUR).await;
        }
        assert_eq!(group_names(node).await, ["committed", "idle", "looks"]);
    });
    ran.expect("an empty disk");
    // What has passed counts, whatever the clock of the next run shows.
    let ran = on_node(&disk, &setup, 2, async |node| {
        for _ in 0..8 {
            looks(node).await;
            node.clock.sleep(HOUR).await;
        }
        assert_eq!(group_names(node).await, ["idle", "looks"], "settings were made by command");
        let idle = described(node, "idle").await;
        assert!(idle.queues.is_empty() && idle.settings.is_some());
        let lags: Vec<_> = described(node, "looks").await.queues.iter().map(|queue| queue.lag).collect();
        assert_eq!(lags, [0, 0]);
    });
    ran.expect("a healthy disk");
}

/// A user made the topic of the dead letters, with fewer queues than there are shards.
#[test]
fn dead_letters_find_a_queue_whoever_made_their_topic() {
    for queues in [1, 2, 7] {
        let disk = FaultyDisk::new(1, FaultPlan::none());
        let setup = Setup { shard_count: 4, ..Setup::default() };
        let ran = on_node(&disk, &setup, 1, async |node| {
            let topic = create(node, "t", 4).await;
            create(node, "%DLQ%g", queues).await;
            settings(node, "g").await;
            for queue in 0..4 {
                publish(node, topic, queue, "", &format!("old-{queue}")).await;
            }
            let mut seen = 0;
            while seen < 4 {
                seen += received(node, receive(4)).await.len();
            }
            node.clock.sleep(10 * SECOND + Duration::from_millis(1)).await;
            for queue in 0..4 {
                publish(node, topic, queue, "", &format!("new-{queue}")).await;
            }
            let mut fresh = Vec::new();
            for _ in 0..8 {
                let messages = received(node, receive(4)).await;
                acknowledge_all(node, "g", &messages).await;
                fresh.extend(bodies(&messages));
            }
            fresh.sort();
            assert_eq!(fresh, ["new-0", "new-1", "new-2", "new-3"], "{queues} queues");
            node.clock.sleep(SECOND).await;
            let mut dead = Vec::new();
            for _ in 0..8 {
                let dead_letters = Receive { topic: topic_name("%DLQ%g"), ..of_group("reader", 4) };
                dead.extend(bodies(&try_receive(node, dead_letters).await.expect("a healthy disk")));
            }
            dead.sort();
            assert_eq!(dead, ["old-0", "old-1", "old-2", "old-3"], "{queues} queues");
        });
        ran.expect("an empty disk");
    }
}

#[test]
fn fresh_messages_come_when_dead_letters_have_no_place_to_go() {
    let (disk, setup) = disk();
    let ran = on_node(&disk, &setup, 1, async |node| {
        let topic = create(node, "t", 1).await;
        // No queue more fits.
        create(node, "one", limits::TOPIC_QUEUES_MAX).await;
        create(node, "other", limits::SHARD_QUEUES_MAX as u32 - limits::TOPIC_QUEUES_MAX - 1).await;
        settings(node, "g").await;
        for number in 0..40 {
            publish(node, topic, 0, "", &format!("old-{number}")).await;
        }
        for _ in 0..40 {
            assert_eq!(received(node, receive(1)).await.len(), 1);
        }
        node.clock.sleep(11 * SECOND).await;
        publish(node, topic, 0, "", "fresh").await;
        for ordered in [false, true] {
            let messages = received(node, Receive { ordered, ..receive(1) }).await;
            if !ordered {
                assert_eq!(bodies(&messages), ["fresh"]);
                acknowledge_all(node, "g", &messages).await;
            }
        }
        assert_eq!(described(node, "g").await.queues[0].waiting, 40, "they are shown");
        node.handle(Request::DeleteTopic(topic_name("other"))).await.expect("a healthy disk");
        node.clock.sleep(2 * SECOND).await;
        let info = described(node, "g").await;
        assert_eq!((info.queues[0].waiting, info.queues[0].dead_letters), (0, 40));
    });
    ran.expect("an empty disk");
}

/// Receivers have left something acknowledged in the middle, and a member goes on after all of it.
#[test]
fn the_place_that_is_shown_of_a_group_does_not_depend_on_who_has_the_queue_now() {
    let (disk, setup) = disk();
    let committed = async |node: &Node| described(node, "g").await.queues[0].committed.map(|offset| offset.0);
    let ran = on_node(&disk, &setup, 1, async |node| {
        let topic = create(node, "t", 1).await;
        for number in 0..6 {
            publish(node, topic, 0, "", &number.to_string()).await;
        }
        let messages = received(node, receive(6)).await;
        acknowledge_all(node, "g", &messages[1..2]).await;
        assert_eq!(committed(node).await, Some(0));
        let mut generation = 0;
        for _ in 0..20 {
            let join = JoinGroup {
                group: group_name("g"),
                member: "m".to_owned(),
                topics: vec![topic_name("t")],
                session_timeout: 10 * SECOND,
                generation,
                life: SessionLife::Timed,
            };
            let joined = node.handle(Request::JoinGroup(join)).await.expect("a healthy disk");
            let Reply::Assignment(assignment) = joined else { panic!("{joined:?}") };
            generation = assignment.generation;
            node.clock.sleep(2 * SECOND).await;
            assert_eq!(committed(node).await, Some(0), "whatever the gates");
        }
        let key = QueueKey { topic, queue: QueueNumber(0) };
        let place = node.handle(Request::CommittedOffset { group: group_name("g"), key }).await;
        assert_eq!(place, Ok(Reply::Offset(Some(QueueOffset(6)))), "the member goes on behind");
        assert_eq!(committed(node).await, Some(0));
    });
    ran.expect("an empty disk");
    let ran = on_node(&disk, &setup, 2, async |node| assert_eq!(committed(node).await, Some(0)));
    ran.expect("a healthy disk");
}
