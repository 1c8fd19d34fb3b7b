//! Who consumes a topic, as which groups, in whichever way.

use std::collections::{BTreeMap, BTreeSet};

use super::receivers::SeenReceivers;
use crate::api::{Failure, ReceiverInfo, TopicConsumers, TopicGroup, TopicInfo};
use crate::broker::client_requests::unexpected;
use crate::broker::peers::{PeerReply, PeerRequest};
use crate::broker::readers::shown_bytes;
use crate::broker::shard_broker::{Broker, owned_queues};
use crate::broker::topics::Others;
use crate::disk::Disk;
use crate::limits;
use crate::types::{GroupName, TopicId};

/// Of a group or receivers, beside names.
const ENTRY_BYTES: usize = 96;

/// What a shard knows of a group that has a place in a topic, or receives from it.
#[derive(Clone, Debug)]
pub struct SeenGroup {
    pub group: GroupName,
    pub receivers: Vec<SeenReceivers>,
}

/// The groups that are shown, as they are found.
#[derive(Default)]
struct Shown {
    groups: BTreeMap<GroupName, TopicGroup>,
    bytes: usize,
    left_out: u32,
}

impl Shown {
    /// The group's entry, where there is room for this much more.
    fn group(&mut self, name: &GroupName, bytes: usize) -> Option<&mut TopicGroup> {
        let is_known = self.groups.contains_key(name);
        let of_group = if is_known { 0 } else { name.as_str().len() + ENTRY_BYTES };
        if self.bytes + of_group + bytes > limits::SHOWN_CONSUMERS_BYTES_MAX {
            self.left_out += 1;
            return None;
        }
        self.bytes += of_group + bytes;
        Some(self.groups.entry(name.clone()).or_insert_with(|| TopicGroup {
            group: name.clone(),
            members: 0,
            receivers: Vec::new(),
            readers: Vec::new(),
        }))
    }
}

fn receiver_bytes(info: &ReceiverInfo) -> usize {
    info.topic.as_str().len() + info.filter.text().len() + ENTRY_BYTES
}

impl<D: Disk> Broker<D> {
    /// The groups of a topic, in the order of their names, and who consumes it as each of them. Asked of the control shard.
    pub(in crate::broker) async fn topic_consumers(
        &self,
        topic: &TopicInfo,
    ) -> Result<TopicConsumers, Failure> {
        let mut receivers: BTreeMap<GroupName, Vec<SeenReceivers>> = BTreeMap::new();
        for reply in self.ask_all(|| PeerRequest::TopicGroups(topic.id), Others::AndThis).await? {
            let PeerReply::TopicGroups(seen) = reply else { return Err(unexpected(&reply)) };
            for seen in seen {
                receivers.entry(seen.group).or_default().extend(seen.receivers);
            }
        }
        let mut shown = Shown::default();
        for (name, seen) in receivers {
            let infos = self.receiver_infos(seen);
            if let Some(group) = shown.group(&name, infos.iter().map(receiver_bytes).sum()) {
                group.receivers = infos;
            }
        }
        self.groups.borrow_mut().expire(self.clock.monotonic());
        for (name, count) in self.groups.borrow().members_of_topic(&topic.topic) {
            if let Some(group) = shown.group(name, 0) {
                group.members = count;
            }
        }
        for (name, reader) in self.readers.borrow().of_topic(topic.topic.as_str()) {
            if let Some(group) = shown.group(name, shown_bytes(&reader)) {
                group.readers.push(reader);
            }
        }
        let Shown { groups, left_out, .. } = shown;
        Ok(TopicConsumers { groups: groups.into_values().collect(), left_out })
    }

    /// The groups that have a place in this shard's queues of a topic, or receive from it through this shard.
    pub(in crate::broker) async fn own_topic_groups(&self, id: TopicId) -> Vec<SeenGroup> {
        let names: Vec<_> = self.tables().groups().cloned().collect();
        let mut found = BTreeSet::new();
        let mut slice = self.time_slice();
        for group in names {
            if self.tables().has_offsets_in(&group, id) {
                found.insert(group);
            }
            slice.yield_if_over().await;
        }
        let queue_count = self.tables().topic(id).map_or(0, |topic| topic.queue_count);
        for key in owned_queues(id, queue_count, &self.options) {
            found.extend(self.leases().groups_of(key).cloned());
            slice.yield_if_over().await;
        }
        let receivers = self.receivers.borrow();
        let mut seen: BTreeMap<_, _> = found.into_iter().map(|group| (group, Vec::new())).collect();
        seen.extend(receivers.of_topic(id, self.clock.monotonic()).map(|(group, of)| (group.clone(), of)));
        seen.into_iter().map(|(group, receivers)| SeenGroup { group, receivers }).collect()
    }
}
