//! Members of a group over virtual time: no queue is read by two, and none is left alone for long.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use turbopump::api::{Assignment, ConnectionId, JoinGroup, SessionLife};
use turbopump::broker::Groups;
use turbopump::testing::Random;
use turbopump::types::{MonotonicTime, QueueKey, QueueNumber, ShardId, TopicId};

use super::node::{group_name, topic_name};

const QUEUES: u32 = 7;
const TIMEOUT: Duration = Duration::from_secs(10);

/// A member as its client sees it.
#[derive(Default)]
struct Member {
    generation: u64,
    reads: Vec<QueueKey>,
    joined_at: MonotonicTime,
    /// What it says with its fetches.
    session: u64,
    /// Its connections that have ended, and whether the last one has.
    connections: u64,
    is_gone: bool,
}

impl Member {
    fn connection(&self, name: &str) -> ConnectionId {
        let digit = name.bytes().last().expect("a name");
        ConnectionId { shard: ShardId(u16::from(digit)), number: self.connections }
    }
}

struct Scene {
    groups: Groups,
    members: BTreeMap<String, Member>,
    now: MonotonicTime,
    seed: u64,
    random: Random,
    /// What the shard lets no receiver take from, and where leases of theirs still run.
    closed: BTreeSet<QueueKey>,
    draining: BTreeSet<QueueKey>,
    /// Whose fetches the shard answers.
    holders: BTreeMap<QueueKey, u64>,
}

fn all_queues() -> impl Iterator<Item = QueueKey> {
    (0..QUEUES).map(|queue| QueueKey { topic: TopicId(1), queue: QueueNumber(queue) })
}

impl Scene {
    fn join(&mut self, name: &str) -> Assignment {
        let member = self.members.entry(name.to_owned()).or_default();
        if self.now.since(member.joined_at) > TIMEOUT {
            // Its session has ended: it reads nothing until it has joined again.
            (member.generation, member.reads) = (0, Vec::new());
        }
        if std::mem::take(&mut member.is_gone) {
            // Another connection: its session may have ended with the last one, of which it would hear.
            member.connections += 1;
            (member.generation, member.reads) = (0, Vec::new());
        }
        let join = JoinGroup {
            group: group_name("g"),
            member: name.to_owned(),
            topics: vec![topic_name("t")],
            session_timeout: TIMEOUT,
            generation: member.generation,
            life: SessionLife::Connected(Some(member.connection(name))),
        };
        self.groups.join(&join, self.now, |_| Some((TopicId(1), QUEUES))).expect("within the limits");
        self.carry_out();
        if self.groups.grant(&join.group, name).expect("it has joined") {
            self.carry_out();
        }
        let assignment = self.groups.assignment(&join.group, name).expect("it has joined");
        let member = self.members.get_mut(name).expect("it was entered");
        member.generation = assignment.generation;
        member.reads.clone_from(&assignment.queues);
        member.session = assignment.session;
        member.joined_at = self.now;
        self.check();
        assignment
    }

    /// The shards carry out what they are told, but some queues drain slowly, and some letters are lost.
    fn carry_out(&mut self) {
        let group = group_name("g");
        let grants = self.groups.take_ended().into_iter();
        let grants: Vec<_> =
            grants.map(|(_, grants)| grants).chain(self.groups.unsettled_grants(&group)).collect();
        for grants in grants {
            if self.random.chance(0.1) {
                continue;
            }
            let is_closed =
                |key: &QueueKey| grants.topics.contains_key(&key.topic) && !grants.open.contains(key);
            let closed: BTreeSet<_> = all_queues().filter(is_closed).collect();
            let newly = closed.difference(&self.closed);
            self.draining.retain(|key| closed.contains(key));
            self.draining.extend(newly.filter(|_| self.random.chance(0.3)));
            self.draining.retain(|_| self.random.chance(0.5));
            self.closed = closed;
            self.holders.clone_from(&grants.holders);
            self.groups.carried_out(&group, &grants, &[Some(self.draining.iter().copied().collect())]);
        }
    }

    /// Members whose sessions last read disjoint queues, of which receivers take nothing.
    fn check(&self) {
        let receivers = all_queues().filter(|key| !self.closed.contains(key) || self.draining.contains(key));
        let mut reader: BTreeMap<QueueKey, &str> = receivers.map(|key| (key, "receivers")).collect();
        for (name, member) in &self.members {
            if self.now.since(member.joined_at) <= TIMEOUT && !member.is_gone {
                for key in &member.reads {
                    let holder = self.holders.get(key);
                    assert_eq!(holder, Some(&member.session), "seed {}: {name} reads {key}", self.seed);
                    let other = reader.insert(*key, name);
                    assert_eq!(other, None, "seed {}: {key} is read by {name} as well", self.seed);
                }
            }
        }
    }

    /// A member's connection ends; it may have begun another one before that is known.
    fn disconnect(&mut self, name: &str) {
        let Some(member) = self.members.get_mut(name) else { return };
        let ended = member.connection(name);
        member.is_gone = true;
        if self.random.chance(0.2) {
            self.join(name);
        }
        self.groups.connection_ended(&[group_name("g")], ended, self.now);
    }

    fn settle(&mut self, live: &[String]) {
        let mut settled = Vec::new();
        for _ in 0..40 {
            settled = live.iter().map(|name| self.join(name)).collect();
        }
        assert!(settled.iter().all(|assignment| assignment.settled), "seed {}: {settled:?}", self.seed);
        let count: usize = settled.iter().map(|assignment| assignment.queues.len()).sum();
        let open = all_queues().filter(|key| !self.closed.contains(key)).count();
        assert_eq!(count + open, QUEUES as usize, "seed {}: {settled:?}", self.seed);
    }
}

#[test]
fn a_queue_has_one_reader_and_never_stays_without() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let (groups, members) = (Groups::default(), BTreeMap::new());
        let (closed, draining, holders) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        let fork = random.fork();
        let mut scene =
            Scene { groups, members, now: MonotonicTime(0), seed, random: fork, closed, draining, holders };
        for _ in 0..80 {
            let name = format!("member-{}", random.index(5));
            match random.index(10) {
                0 => {
                    let _ = scene.groups.leave(&group_name("g"), &name);
                    scene.members.remove(&name);
                }
                1 => scene.groups.note_receivers(&group_name("g"), TopicId(1), scene.now),
                2 => scene.disconnect(&name),
                3 => scene.now = scene.now.after(Duration::from_millis(random.range(0..12_000))),
                _ => {
                    scene.join(&name);
                }
            }
        }
        // The dead are noticed within their session, and the living share what they had.
        let live: Vec<_> = ["member-1", "member-3"].map(str::to_owned).into();
        for name in &live {
            scene.join(name);
        }
        scene.now = scene.now.after(TIMEOUT / 2);
        for name in &live {
            scene.join(name);
        }
        scene.now = scene.now.after(TIMEOUT / 2 + Duration::from_millis(1));
        scene.settle(&live);
    }
}
