//! Groups go: by command, and by themselves when nobody has used them for long.
//!
//! The control shard decides. How long a group was not used is counted in running time of that shard, which writes down
//! now and then who uses what: so neither a broker that stood still nor a clock that was wrong makes a group old.

use std::collections::{BTreeSet, HashSet};
use std::rc::Rc;
use std::time::Duration;

use crate::api::{Failure, Reply, Status};
use crate::broker::client_requests::{CONTROL_SHARD, unexpected};
use crate::broker::peers::{PeerReply, PeerRequest};
use crate::broker::shard_broker::Broker;
use crate::broker::topics::Others;
use crate::disk::Disk;
use crate::state::Change;
use crate::types::{GroupName, Level};

/// The time without use is looked at this often while it passes.
const LOOKS: u32 = 16;
const LOOK_INTERVAL_MIN: Duration = Duration::from_secs(1);
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(3600);
/// Groups in one record.
const SLICE_GROUPS: usize = 1024;

/// The groups of one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupsInUse {
    /// Those that have places or leases, or are written down as used.
    pub known: Vec<GroupName>,
    /// Those that somebody uses.
    pub used: Vec<GroupName>,
}

impl<D: Disk> Broker<D> {
    /// Forgets everything about a group, on every shard.
    pub(in crate::broker) async fn delete_group(self: &Rc<Self>, group: GroupName) -> Result<Reply, Failure> {
        self.groups.borrow_mut().expire(self.clock.monotonic());
        if self.groups.borrow().has_members(&group) {
            let message = format!("group {group} has members: stop them first");
            return Err(Failure::new(Status::GroupHasMembers, message));
        }
        self.check_not_read(&group)?;
        if !self.group_receivers(&group).await?.is_empty() {
            let message = format!(
                "somebody receives for group {group}, or has within the last half minute: stop them, wait, try again"
            );
            return Err(Failure::new(Status::GroupHasMembers, message));
        }
        if !self.remove_group(&group, Forget::Everything).await? {
            return Err(Failure::new(Status::GroupNotExist, format!("there is no group {group}")));
        }
        tracing::info!(target: "groups", %group, "group removed");
        Ok(Reply::Done)
    }

    /// Returns whether any shard knew the group.
    async fn remove_group(&self, group: &GroupName, forget: Forget) -> Result<bool, Failure> {
        let (settings, only_unused) = match forget {
            Forget::Everything => (true, false),
            Forget::OffsetsUnlessUsed => (false, true),
        };
        let request = || PeerRequest::RemoveGroup { group: group.clone(), settings, only_unused };
        let mut was_known = false;
        for reply in self.ask_all(request, Others::AndThis).await? {
            match reply {
                PeerReply::GroupRemoved(known) => was_known |= known,
                other => return Err(unexpected(&other)),
            }
        }
        Ok(was_known)
    }

    /// Forgets a group on this shard; durable on return. Returns whether anything was known of it.
    pub(in crate::broker) async fn remove_group_here(
        &self,
        group: &GroupName,
        settings: bool,
        only_unused: bool,
    ) -> Result<bool, Failure> {
        // No checkpoint repeats meanwhile what it has read before.
        let _guard = self.topic_change.lock().await;
        let removing = self.writer.place(|| {
            self.passed.borrow_mut().remove_group(group);
            self.reader_commits.remove_group(group);
            self.expect_no_more(group);
            if !self.knows_group(group) || (only_unused && self.is_in_use(group)) {
                return Ok(None);
            }
            let removed = Change::GroupRemoved { group: group.clone(), settings };
            self.writer.try_changes([removed], Level::Durable).map(Some)
        });
        let Some(placement) = removing.await? else { return Ok(false) };
        self.writer.settled(Level::Durable, placement).await?;
        Ok(true)
    }

    fn knows_group(&self, group: &GroupName) -> bool {
        let tables = self.tables();
        tables.has_offsets(group)
            || tables.group_settings(group).is_some()
            || tables.used(group).is_some()
            || self.leases().holding(group).pairs > 0
            || self.locks().has_group(group)
    }

    fn is_in_use(&self, group: &GroupName) -> bool {
        let now = self.clock.monotonic();
        self.used_groups.borrow().contains(group)
            || !self.receivers.borrow().of_group(group, now).is_empty()
            || self.readers.borrow().has_group(group)
            || self.groups.borrow().has_members(group)
    }

    /// Something was stored for the group.
    pub(in crate::broker) fn note_use(&self, group: &GroupName) {
        if self.options.group_idle.is_some() && !self.used_groups.borrow().contains(group) {
            self.used_groups.borrow_mut().insert(group.clone());
        }
    }

    pub(in crate::broker) fn groups_in_use(&self, interval: Duration) -> GroupsInUse {
        let tables = self.tables();
        let leases = self.leases();
        let known = tables.groups().chain(leases.groups()).chain(tables.used_groups());
        let known: BTreeSet<_> = known.collect();
        let receivers = self.receivers.borrow();
        let seen = receivers.seen_within(interval, self.clock.monotonic()).cloned();
        let mut used = self.used_groups.take();
        used.extend(seen);
        used.extend(self.readers.borrow().groups().cloned());
        GroupsInUse { known: known.into_iter().cloned().collect(), used: used.into_iter().collect() }
    }

    /// The task that forgets groups; ends after [`stop`](Broker::stop).
    pub async fn run_group_ageing(&self) {
        let is_here = self.options.shard == CONTROL_SHARD;
        let Some(idle) = self.options.group_idle.filter(|_| is_here) else { return };
        let interval = (idle / LOOKS).clamp(LOOK_INTERVAL_MIN, LOOK_INTERVAL_MAX);
        let mut next = self.clock.monotonic().after(interval);
        while !self.writer.is_stopped() {
            let now = self.clock.monotonic();
            if now < next {
                // It is woken by the end as well.
                futures_lite::future::or(self.clock.sleep(next.since(now)), self.published.changed()).await;
                continue;
            }
            next = now.after(interval);
            if let Err(failure) = self.age_groups(idle, interval).await {
                tracing::debug!(target: "groups", "groups were not looked at: {failure}");
            }
        }
    }

    /// Writes down which groups are used, and forgets those that have not been for `idle`.
    async fn age_groups(&self, idle: Duration, interval: Duration) -> Result<(), Failure> {
        let mut known = BTreeSet::new();
        let mut used = HashSet::new();
        for reply in self.ask_all(|| PeerRequest::GroupsInUse { interval }, Others::AndThis).await? {
            match reply {
                PeerReply::GroupsInUse(groups) => {
                    known.extend(groups.known);
                    used.extend(groups.used);
                }
                other => return Err(unexpected(&other)),
            }
        }
        self.groups.borrow_mut().expire(self.clock.monotonic());
        used.extend(self.groups.borrow().names().cloned());
        let now = self.steady.running();
        let (mut seen, mut unused) = (Vec::new(), Vec::new());
        {
            let tables = self.tables();
            for group in known {
                let age = tables.used(&group).map(|at| now.since(at));
                let is_used = used.contains(&group);
                match age {
                    Some(age) if is_used && age < idle / LOOKS => {}
                    Some(age) if !is_used && age >= idle => unused.push(group),
                    Some(_) if !is_used => {}
                    // Used, or of an older release.
                    _ => seen.push(Change::GroupUsed { group, time: now }),
                }
            }
        }
        for slice in seen.chunks(SLICE_GROUPS) {
            self.change(slice).await?;
        }
        for group in unused {
            if self.remove_group(&group, Forget::OffsetsUnlessUsed).await? {
                tracing::info!(target: "groups", %group, "nobody has used the group for {idle:?}: it is forgotten");
            }
        }
        Ok(())
    }
}

/// What goes with a group.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Forget {
    Everything,
    /// Settings were made by command, and stay.
    OffsetsUnlessUsed,
}
