//! Whose a group is that native members and RocketMQ's clients both want: theirs who were there first. Members own the queues
//! that they read, so no client's word may put them out.
//!
//! 1. While a group has members, nobody else shares its messages: it is left out of what a client says, who is told so. The
//!    control shard decides, as it does when members join; the others refuse what they know that it would.
//! 2. Membership is not stored. After a start, groups whose newest commit is a member's are *expected* to have members again:
//!    until one has joined, or for `MEMBERS_EXPECTED_MS`.
//! 3. A shard knows what was committed in its own queues. What the others expect, it asks before it has anybody told of a client.
//! 4. Where clients take over a group that was members', the log says so at once, and not only with their first commit in each
//!    shard: the next start would take the group for the members' again.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;

use crate::api::{Failure, ReaderClient, ReaderGroup, Status};
use crate::broker::client_requests::unexpected;
use crate::broker::peers::{PeerReply, PeerRequest};
use crate::broker::readers::ReaderNews;
use crate::broker::shard_broker::Broker;
use crate::disk::Disk;
use crate::limits;
use crate::state::Change;
use crate::types::{GroupName, Level, MonotonicTime, ShardId, Throttle};

/// Who was turned away is shown for this long: clients come again every 30 seconds.
const SHOWN_FOR: Duration = Duration::from_secs(90);
const SAY_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// Groups of which it is shown who was turned away.
const SHOWN_MAX: usize = 1_024;

const EXPECTED_FOR: Duration = Duration::from_millis(limits::MEMBERS_EXPECTED_MS);

/// What a shard knows of groups that are members'.
pub(super) struct Precedence {
    /// Of the groups that had members before the start, those that have had none since.
    expected: RefCell<BTreeSet<GroupName>>,
    /// When the shard has begun to take requests.
    begun: Cell<Option<MonotonicTime>>,
    turned_away: RefCell<BTreeMap<GroupName, TurnedAway>>,
    said: Throttle,
}

/// The last client that was not taken into a group.
struct TurnedAway {
    client: String,
    address: String,
    at: MonotonicTime,
}

impl Default for Precedence {
    fn default() -> Self {
        Self {
            expected: RefCell::default(),
            begun: Cell::new(None),
            turned_away: RefCell::default(),
            said: Throttle::new(SAY_AGAIN_AFTER),
        }
    }
}

impl Precedence {
    fn expects(&self, group: &GroupName, now: MonotonicTime) -> bool {
        self.is_early(now) && self.expected.borrow().contains(group)
    }

    fn is_early(&self, now: MonotonicTime) -> bool {
        self.begun.get().is_none_or(|begun| now.since(begun) < EXPECTED_FOR)
    }

    fn note(&self, group: &GroupName, client: &str, address: &str, now: MonotonicTime) {
        let mut turned_away = self.turned_away.borrow_mut();
        turned_away.retain(|_, last| now.since(last.at) < SHOWN_FOR);
        if turned_away.len() < SHOWN_MAX || turned_away.contains_key(group) {
            let last = TurnedAway { client: client.to_owned(), address: address.to_owned(), at: now };
            turned_away.insert(group.clone(), last);
        }
    }
}

impl ReaderClient {
    /// The groups whose messages it shares with others.
    fn shared_groups(&self) -> impl Iterator<Item = &GroupName> {
        self.groups.iter().filter(|group| group.shares_messages()).map(|group| &group.group)
    }

    /// Takes out those of them that are others'. Returns them.
    pub(super) fn leave_out(&mut self, is_others: impl Fn(&GroupName) -> bool) -> Vec<GroupName> {
        let is_left_out = |of: &mut ReaderGroup| of.shares_messages() && is_others(&of.group);
        self.groups.extract_if(.., is_left_out).map(|group| group.group).collect()
    }
}

impl<D: Disk> Broker<D> {
    /// The time in which members of an earlier life may come back begins.
    pub(in crate::broker) fn begin_expecting(&self) {
        let expected = self.tables().groups_of_members();
        self.spreading.precedence.expected.replace(expected);
        self.spreading.precedence.begun.set(Some(self.clock.monotonic()));
    }

    /// The group has members, or is forgotten: nothing is expected of those it had before.
    pub(in crate::broker) fn expect_no_more(&self, group: &GroupName) {
        self.spreading.precedence.expected.borrow_mut().remove(group);
    }

    /// Why nobody may read for a group beside its members, if it has some or is waiting for them.
    fn members_refusal(&self, group: &GroupName) -> Option<Failure> {
        let now = self.clock.monotonic();
        self.groups.borrow_mut().end_sessions(group, now);
        let message = if self.gates.borrow().have_any_members(group)
            || self.groups.borrow().has_members(group)
        {
            format!(
                "group {group} is consumed by native members, which own their queues: consume as another group, or stop them"
            )
        } else if self.spreading.precedence.expects(group, now) {
            format!(
                "group {group} was consumed by native members before the broker was started, and they are waited for until {} s \
                 after that: try again then, or consume as another group",
                EXPECTED_FOR.as_secs()
            )
        } else {
            return None;
        };
        Some(Failure::new(Status::GroupHasMembers, message))
    }

    /// Members own the queues that they read, so there are no readers beside them.
    pub fn check_no_members(&self, group: &GroupName) -> Result<(), Failure> {
        self.members_refusal(group).map_or(Ok(()), Err)
    }

    /// Takes what is the members' out of what a client says. Returns those groups.
    pub(super) fn withhold(&self, id: &str, address: &str, client: &mut ReaderClient) -> Vec<GroupName> {
        let withheld = client.leave_out(|group| self.members_refusal(group).is_some());
        self.note_turned_away(id, address, &withheld);
        withheld
    }

    pub(super) fn note_turned_away(&self, id: &str, address: &str, groups: &[GroupName]) {
        let now = self.clock.monotonic();
        for group in groups {
            self.spreading.precedence.note(group, id, address, now);
            if let Some(left_out) = self.spreading.precedence.said.allows(now) {
                // A client chooses its id: shown so that it stays on its line.
                tracing::warn!(
                    target: "groups", shard = self.options.shard.0, %group, client = ?id, address, left_out,
                    "a client of RocketMQ's protocol was not taken into a group of native members"
                );
            }
        }
    }

    /// Who was not taken into a group lately, and whom it waits for, for its description.
    pub(in crate::broker) fn precedence_notes(&self, group: &GroupName) -> Vec<String> {
        let now = self.clock.monotonic();
        let mut notes = Vec::new();
        if self.spreading.precedence.expects(group, now) {
            notes.push(format!(
                "native members consumed as this group before the broker was started: until {} s after that nobody else is \
                 taken into it",
                EXPECTED_FOR.as_secs()
            ));
        }
        let turned_away = self.spreading.precedence.turned_away.borrow();
        if let Some(last) = turned_away.get(group).filter(|last| now.since(last.at) < SHOWN_FOR) {
            notes.push(format!(
                "a client of RocketMQ's protocol wants to consume as this group and is refused, since the group is native \
                 members': {:?} at {}",
                last.client, last.address
            ));
        }
        notes
    }

    /// Asks the other shards which of a client's groups they expect members of, and takes those as expected here.
    pub(super) async fn learn_expected(&self, client: &ReaderClient) -> Result<(), Failure> {
        let groups: Vec<_> = client.shared_groups().cloned().collect();
        if groups.is_empty() || !self.spreading.precedence.is_early(self.clock.monotonic()) {
            return Ok(());
        }
        let shards = (0..self.options.shard_count).map(ShardId);
        let others = shards.filter(|shard| *shard != self.options.shard);
        let peers = self.peers()?;
        let asked =
            others.map(|shard| peers.ask(shard, PeerRequest::Readers(ReaderNews::Expected(groups.clone()))));
        for answer in join_all(asked).await {
            match answer? {
                PeerReply::GroupNames(expected) => {
                    let mut known = self.spreading.precedence.expected.borrow_mut();
                    // Those that have joined meanwhile are there already.
                    let gates = self.gates.borrow();
                    known.extend(expected.into_iter().filter(|group| !gates.have_any_members(group)));
                }
                other => return Err(unexpected(&other)),
            }
        }
        Ok(())
    }

    /// Those of some groups that this shard expects members of.
    pub(super) fn expected_here(&self, groups: Vec<GroupName>) -> PeerReply {
        let now = self.clock.monotonic();
        let is_expected = |group: &GroupName| self.spreading.precedence.expects(group, now);
        PeerReply::GroupNames(groups.into_iter().filter(is_expected).collect())
    }

    /// Has the log say of this client's groups that they are not the members' any more.
    pub(super) fn note_taken_over(&self, client: &ReaderClient) {
        for group in client.shared_groups() {
            let newest = self.tables().newest_commit(group).filter(|(_, newest)| newest.by_member);
            let Some((key, newest)) = newest else { continue };
            let (group, offset) = (group.clone(), newest.offset);
            let change = Change::Offset { group, key, offset, origin: None, by_member: false };
            // Without room for it, the next start waits for members who do not come.
            let _ = self.writer.try_changes([change], Level::Durable);
        }
    }
}
