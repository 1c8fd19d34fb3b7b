//! A consumer's place in its group: when to say that it lives, and what an assignment changes. No I/O.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::api::{ActingMember, Assignment, JoinGroup, SessionLife};
use crate::types::{GroupName, QueueKey, Timestamp, TopicName};

/// How soon to ask again while a former owner still holds a queue.
const UNSETTLED_INTERVAL: Duration = Duration::from_millis(100);

/// What an assignment changes for its member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) assigned: Vec<QueueKey>,
    pub(super) revoked: Vec<QueueKey>,
}

/// A name that no other member of a group has: of a process that runs at `now`.
pub(super) fn member_name(now: Timestamp) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{now}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

pub(super) struct Membership {
    group: GroupName,
    member: String,
    topics: Vec<TopicName>,
    session_timeout: Duration,
    /// The last generation that was carried out; 0 before the first.
    generation: u64,
    /// The generation of the newest assignment; 0 before the first.
    assigned: u64,
    /// An assignment that is carried out once the caller has had the chance to commit.
    releasing: Option<u64>,
    owned: HashSet<QueueKey>,
    /// Whether no former owner holds a queue of this member.
    settled: bool,
    /// What its fetches say; 0 before the first assignment.
    session: u64,
    /// Whether the broker has answered since a connection was lost. Until then it may be one that has begun anew, and knows
    /// nothing of this member.
    confirmed: bool,
    /// When to send the next request; `None`: now.
    due: Option<Instant>,
}

impl Membership {
    pub(super) fn new(
        group: GroupName,
        member: String,
        topics: Vec<TopicName>,
        session_timeout: Duration,
    ) -> Self {
        Self {
            group,
            member,
            topics,
            session_timeout,
            generation: 0,
            assigned: 0,
            releasing: None,
            owned: HashSet::new(),
            settled: false,
            session: 0,
            confirmed: true,
            due: None,
        }
    }

    pub(super) fn group(&self) -> &GroupName {
        &self.group
    }

    pub(super) fn member(&self) -> &str {
        &self.member
    }

    pub(super) fn topics(&self) -> &[TopicName] {
        &self.topics
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| due <= now)
    }

    /// When the next request is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn request(&self) -> JoinGroup {
        JoinGroup {
            group: self.group.clone(),
            member: self.member.clone(),
            topics: self.topics.clone(),
            session_timeout: self.session_timeout,
            generation: self.generation,
            life: SessionLife::Connected(None),
        }
    }

    /// For fetches: the broker takes them while this session holds the queue.
    pub(super) fn session(&self) -> u64 {
        self.session
    }

    /// Whether this member may read, as far as it knows.
    pub(super) fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    /// A connection to the broker has ended: the member is asked for before anything is read on.
    pub(super) fn lost(&mut self) {
        if self.confirmed {
            (self.confirmed, self.due) = (false, None);
        }
    }

    /// For commits: the broker takes them while this member holds the queue.
    pub(super) fn acting(&self) -> ActingMember {
        ActingMember { member: self.member.clone(), generation: self.assigned }
    }

    /// The broker's answer. Queues that are revoked stay owned until [`released`](Self::released).
    pub(super) fn assigned(&mut self, assignment: &Assignment, now: Instant) -> Change {
        let target: HashSet<QueueKey> = assignment.queues.iter().copied().collect();
        let mut change = Change {
            assigned: target.difference(&self.owned).copied().collect(),
            revoked: self.owned.difference(&target).copied().collect(),
        };
        change.assigned.sort_unstable();
        change.revoked.sort_unstable();
        self.settled = assignment.settled;
        (self.session, self.confirmed) = (assignment.session, true);
        let confirmed = self.generation == assignment.generation;
        self.owned = target;
        self.assigned = assignment.generation;
        if change.revoked.is_empty() {
            self.generation = assignment.generation;
        } else {
            self.releasing = Some(assignment.generation);
        }
        let interval = match assignment.settled {
            true => self.session_timeout / 3,
            false => UNSETTLED_INTERVAL.min(self.session_timeout / 3),
        };
        // That a generation was carried out is told at once: others wait for it.
        self.due = confirmed.then_some(now + interval);
        if !change.revoked.is_empty() {
            self.due = Some(now + self.session_timeout / 3);
        }
        change
    }

    /// The revoked queues were given up: true when there were any, and the broker is to be told.
    pub(super) fn released(&mut self) -> bool {
        let Some(generation) = self.releasing.take() else { return false };
        self.generation = generation;
        self.due = None;
        true
    }

    /// Whether this member has all the queues it is to have.
    pub(super) fn is_settled(&self) -> bool {
        self.settled && self.generation != 0
    }

    /// The session has ended: nothing is owned any more, and the member joins anew.
    pub(super) fn expired(&mut self, now: Instant) -> Change {
        // Whoever is unknown as a newcomer, too, asks again after a while.
        self.due = (self.generation == 0).then_some(now + UNSETTLED_INTERVAL);
        (self.generation, self.assigned) = (0, 0);
        self.releasing = None;
        // Nothing is owned that could be read.
        (self.settled, self.session, self.confirmed) = (false, 0, true);
        let mut revoked: Vec<QueueKey> = self.owned.drain().collect();
        revoked.sort_unstable();
        Change { assigned: Vec::new(), revoked }
    }

    /// The next request is due at once.
    pub(super) fn ask_again(&mut self) {
        self.due = None;
    }

    /// The request failed: the next one is due after a while.
    pub(super) fn failed(&mut self, now: Instant) {
        self.due = Some(now + UNSETTLED_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{QueueNumber, TopicId};

    fn keys(queues: &[u32]) -> Vec<QueueKey> {
        queues.iter().map(|&queue| QueueKey { topic: TopicId(1), queue: QueueNumber(queue) }).collect()
    }

    fn assignment(generation: u64, queues: &[u32], settled: bool) -> Assignment {
        Assignment { generation, queues: keys(queues), settled, session: 70 + generation }
    }

    fn membership() -> Membership {
        let group = "readers".parse().expect("a good name");
        Membership::new(group, "me".to_owned(), Vec::new(), Duration::from_secs(3))
    }

    #[test]
    fn a_generation_is_confirmed_at_once_and_then_kept_alive() {
        let now = Instant::now();
        let mut member = membership();
        assert!(member.is_due(now));
        assert_eq!(member.request().generation, 0);
        let change = member.assigned(&assignment(7, &[1, 0], true), now);
        assert_eq!(change, Change { assigned: keys(&[0, 1]), revoked: Vec::new() });
        assert!(member.is_due(now), "the confirmation");
        assert_eq!(member.request().generation, 7);
        assert_eq!(member.assigned(&assignment(7, &[0, 1], true), now), Change::default());
        assert!(!member.is_due(now));
        assert_eq!(member.next_deadline(), Some(now + Duration::from_secs(1)));
        assert!(member.is_settled());
    }

    #[test]
    fn what_is_revoked_is_confirmed_only_when_it_was_given_up() {
        let now = Instant::now();
        let mut member = membership();
        member.assigned(&assignment(1, &[0, 1], true), now);
        let change = member.assigned(&assignment(2, &[0], true), now);
        assert_eq!(change.revoked, keys(&[1]));
        assert_eq!(member.request().generation, 1);
        assert_eq!(member.acting().generation, 2, "what is new in 2 is committed already");
        assert!(!member.is_due(now));
        assert!(member.released());
        assert!(member.is_due(now));
        assert_eq!(member.request().generation, 2);
        assert!(!member.released());
    }

    #[test]
    fn queues_that_others_still_hold_are_asked_for_soon() {
        let now = Instant::now();
        let mut member = membership();
        member.assigned(&assignment(4, &[0], false), now);
        assert_eq!(member.assigned(&assignment(4, &[0], false), now), Change::default());
        assert_eq!(member.next_deadline(), Some(now + UNSETTLED_INTERVAL));
        assert!(!member.is_settled());
        assert_eq!(member.assigned(&assignment(4, &[0, 1], true), now).assigned, keys(&[1]));
    }

    #[test]
    fn nothing_is_read_between_a_lost_connection_and_the_next_answer() {
        let now = Instant::now();
        let mut member = membership();
        member.assigned(&assignment(1, &[0], true), now);
        member.assigned(&assignment(1, &[0], true), now);
        assert!(member.is_confirmed() && !member.is_due(now));
        member.lost();
        assert!(!member.is_confirmed() && member.is_due(now), "it joins at once");
        member.failed(now);
        member.lost();
        assert!(!member.is_due(now), "another loss is no reason to hurry");
        member.assigned(&assignment(1, &[0], true), now);
        assert_eq!((member.is_confirmed(), member.session()), (true, 71));
        member.lost();
        member.expired(now);
        assert_eq!((member.is_confirmed(), member.session()), (true, 0));
    }

    #[test]
    fn an_ended_session_gives_everything_up_and_starts_anew() {
        let now = Instant::now();
        let mut member = membership();
        member.assigned(&assignment(4, &[0, 1], true), now);
        assert_eq!(member.expired(now).revoked, keys(&[0, 1]));
        assert!(member.is_due(now) && !member.is_settled());
        assert_eq!((member.request().generation, member.acting().generation), (0, 0));
        assert_eq!(member.expired(now), Change::default());
        assert!(!member.is_due(now), "no hurry when even a newcomer is unknown");
    }
}
