//! Members of a group on a real node, and what becomes of their queues when they die.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use turbopump::client::{Consumer, ConsumerOptions, Delivery};
use turbopump::types::{QueueKey, QueueNumber, QueueOffset};

use crate::start::{stop_command, wait_for_members};
use crate::support::command;
use crate::support::directory::test_directory;
use crate::support::load::{create_topic, produce, topic};
use crate::support::node::{Node, PATIENCE, Setup};

const QUEUES: u32 = 6;
const MESSAGES: u64 = 200;
const SESSION: Duration = Duration::from_secs(2);

/// A member and what it has seen.
struct Member {
    consumer: Consumer,
    queues: BTreeSet<u32>,
    seen: BTreeMap<u32, BTreeSet<u64>>,
}

impl Member {
    fn join(node: &Node) -> Self {
        let options = ConsumerOptions { session_timeout: SESSION, ..ConsumerOptions::default() };
        let group = "readers".parse().expect("a name");
        let consumer = Consumer::subscribe(node.client(), group, vec![topic("orders")], options);
        let consumer = consumer.expect("the topic exists");
        Self { consumer, queues: BTreeSet::new(), seen: BTreeMap::new() }
    }

    fn poll(&mut self, timeout: Duration) {
        match self.consumer.poll(timeout).expect("the broker answers") {
            Some(Delivery::Messages(batch)) => {
                let queue = batch.queue().0;
                assert!(self.queues.contains(&queue), "queue {queue} is not ours");
                let seen = self.seen.entry(queue).or_default();
                seen.extend(batch.messages().map(|message| message.offset.0));
            }
            Some(Delivery::Rebalanced { assigned, revoked }) => {
                for name in &revoked {
                    self.queues.remove(&name.queue.0);
                }
                self.queues.extend(assigned.iter().map(|queue| queue.queue.0));
            }
            Some(Delivery::Damaged(_) | Delivery::Moved { .. } | Delivery::End) => panic!("not expected"),
            None => {}
        }
    }

    fn seen_count(&self) -> u64 {
        self.seen.values().map(|offsets| offsets.len() as u64).sum()
    }
}

/// Polls all members until `done` says so.
fn poll_until(members: &mut [Member], what: &str, done: impl Fn(&[Member]) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done(members) {
        assert!(Instant::now() < deadline, "{what}");
        members.iter_mut().for_each(|member| member.poll(Duration::from_millis(10)));
    }
}

fn feed(node: &Node) {
    for queue in 0..QUEUES {
        let bodies: Vec<_> = (0..MESSAGES).map(u64::to_le_bytes).collect();
        produce(node, "orders", queue, bodies.iter().map(|body| &body[..]));
    }
}

/// Half of the queues each, no queue twice.
fn is_shared(members: &[Member]) -> bool {
    let [one, other] = members else { unreachable!("two members") };
    one.queues.len() == 3 && other.queues.len() == 3 && one.queues.is_disjoint(&other.queues)
}

#[test]
fn a_member_that_dies_hands_its_queues_on_within_its_session_timeout() {
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(&["--shards", "2"]).start();
    create_topic(&mut node.client(), "orders", QUEUES);
    let mut members = vec![Member::join(&node), Member::join(&node)];
    poll_until(&mut members, "the queues are shared", is_shared);
    feed(&node);
    let all = u64::from(QUEUES) * MESSAGES;
    poll_until(&mut members, "everything is delivered", |members| {
        members.iter().map(Member::seen_count).sum::<u64>() == all
    });
    // Neither leaves nor commits: as if its process had been killed.
    let dead = members.remove(0);
    drop(dead.consumer);
    let died = Instant::now();
    poll_until(&mut members, "the queues move on", |members| members[0].queues.len() == QUEUES as usize);
    let took = died.elapsed();
    assert!(took <= SESSION + Duration::from_secs(2), "{took:?}");
    // What the dead one had not committed comes again.
    poll_until(&mut members, "nothing is lost", |members| members[0].seen_count() == all);
}

#[test]
fn a_member_that_leaves_hands_its_queues_on_at_once() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    create_topic(&mut node.client(), "orders", QUEUES);
    feed(&node);
    let mut members = vec![Member::join(&node), Member::join(&node)];
    let all = u64::from(QUEUES) * MESSAGES;
    poll_until(&mut members, "the queues are shared", is_shared);
    poll_until(&mut members, "everything is delivered", |members| {
        let together: BTreeSet<_> = members
            .iter()
            .flat_map(|member| &member.seen)
            .flat_map(|(queue, offsets)| offsets.iter().map(move |offset| (*queue, *offset)))
            .collect();
        together.len() as u64 == all
    });
    let mut left = members.remove(0);
    left.consumer.commit().expect("the broker answers");
    left.consumer.close().expect("the broker answers");
    let gone = Instant::now();
    let (mine, before) = (members[0].queues.clone(), members[0].seen.clone());
    poll_until(&mut members, "the queues move on", |members| members[0].queues.len() == QUEUES as usize);
    assert!(gone.elapsed() < SESSION, "{:?}", gone.elapsed());
    for _ in 0..20 {
        members[0].poll(Duration::from_millis(5));
    }
    for queue in (0..QUEUES).filter(|queue| !mine.contains(queue)) {
        assert_eq!(members[0].seen.get(&queue), before.get(&queue), "queue {queue} was committed");
    }
}

#[test]
fn members_come_back_after_the_broker_was_killed() {
    let directory = test_directory();
    // An address of this test alone, so that the port is still free after the death.
    let node = Setup::new(directory.path()).with(&["--listen", "127.0.1.77:0"]).start();
    create_topic(&mut node.client(), "orders", QUEUES);
    let address = node.address().to_owned();
    let mut following =
        command::spawn(Some(&address), &["consume", "orders", "--group", "readers", "--follow"], false);
    let lines = following.stdout.take().expect("it is piped");
    let (sender, received) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        use std::io::BufRead;
        for line in std::io::BufReader::new(lines).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    wait_for_members(&node, 1);
    produce(&node, "orders", 1, [&b"before"[..]]);
    assert_eq!(received.recv_timeout(PATIENCE).as_deref(), Ok("before"));
    node.kill();
    let node = Setup::new(directory.path()).with(&["--listen", &address]).start();
    produce(&node, "orders", 2, [&b"after"[..]]);
    let mut line = received.recv_timeout(PATIENCE).expect("it goes on");
    // Its last commit may not have been made.
    while line == "before" {
        line = received.recv_timeout(PATIENCE).expect("it goes on");
    }
    assert_eq!(line, "after");
    stop_command(following);
}

/// A member that slept through its session still knows its old places: were its commit taken, the offset of whoever has
/// the queue now would go back, and what was read would be read again.
#[test]
fn a_member_whose_session_ended_does_not_move_an_offset_back() {
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(&["--shards", "2"]).start();
    create_topic(&mut node.client(), "orders", QUEUES);
    feed(&node);
    let all = u64::from(QUEUES) * MESSAGES;
    let everything = |members: &[Member]| members[0].seen_count() == all;
    let mut late = vec![Member::join(&node)];
    poll_until(&mut late, "the first batches are delivered", |members| members[0].seen_count() > 0);
    let held = late[0].seen_count();
    assert!(held < all, "the rest is for the other");
    // Nobody hears of the first member until its session is over.
    let mut awake = vec![Member::join(&node)];
    poll_until(&mut awake, "everything is delivered to the other", everything);
    awake[0].consumer.commit().expect("the broker answers");
    let error = late[0].consumer.commit().expect_err("the queues are another's");
    assert!(error.to_string().contains("join again"), "{error}");
    let group = &"readers".parse().expect("a name");
    let lag = |node: &Node| -> u64 {
        let described = node.client().describe_group(group).expect("the group exists");
        described.queues.iter().map(|queue| queue.lag).sum()
    };
    assert_eq!(lag(&node), 0, "no offset has moved back");
    // It hears that it has no queues any more, and joins again.
    let mut members = vec![late.remove(0), awake.remove(0)];
    poll_until(&mut members, "the queues are shared again", is_shared);
    members[0].consumer.commit().expect("it is a member again");
    assert_eq!(lag(&node), 0);
    assert_eq!(members[0].seen_count(), held, "nothing was read twice");
}

/// Tools and consumers of fixed queues commit without being members.
#[test]
fn offsets_are_committed_without_a_member() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    create_topic(&mut node.client(), "orders", QUEUES);
    feed(&node);
    let mut members = vec![Member::join(&node)];
    poll_until(&mut members, "it has all queues", |members| members[0].queues.len() == QUEUES as usize);
    let mut client = node.client();
    let id = client.topic(&topic("orders")).expect("it exists").id;
    let group = "readers".parse().expect("a name");
    let key = QueueKey { topic: id, queue: QueueNumber(1) };
    client.commit_offset(&group, key, QueueOffset(7)).expect("it names no member");
    assert_eq!(client.committed_offset(&group, key).expect("the broker answers"), Some(QueueOffset(7)));
}
