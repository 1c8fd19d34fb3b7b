//! What each request of the native protocol needs a key for.
//!
//! | request | what the key needs |
//! | --- | --- |
//! | store a message, now or later; end a transaction, be asked about it; open a topic for writing | to publish to the topic |
//! | receive, acknowledge, change a lease, commit and look up offsets, join | to consume the topic as the group |
//! | fetch, watch, find offsets, look messages up by key | to consume the topic, as any group |
//! | where a topic is, how long its queues are, and one topic's figures | either |
//! | send dead letters of a group to a topic | to consume its topic of dead letters as the group, and to publish to the other |
//! | which dead letters were sent once more | to consume that topic, as any group |
//! | take a delayed message back | to publish to the topic |
//! | list those that wait | to consume the topic, as any group |
//! | leave a group | to consume something as that group |
//! | where the shards are | any key |
//! | everything else: topics, groups, instances, counters, messages by their location | `admin = true` |
//!
//! A topic that this shard does not know of is refused: another shard may know of it already, and would carry the request out.

use std::collections::BTreeSet;

use crate::access::{Denied, Need, Session};
use crate::api::{Failure, FindMessages, Redrive, Request, StatsAsked, StatsOf, Status};
use crate::types::{GroupTopic, TopicId, TopicName};

/// Checks requests of one session. `topic_name` gives the name of a topic that exists.
pub(super) struct Check<'a, F> {
    pub session: &'a Session,
    pub topic_name: F,
}

impl<F: Fn(TopicId) -> Option<TopicName>> Check<'_, F> {
    /// Whether the request may be carried out. Exhaustive, so that a new request cannot be forgotten.
    pub fn request(&self, request: &Request) -> Result<(), Failure> {
        let administer = |what| self.need(Need::Administer { what });
        match request {
            Request::Produce(produce) => self.publish(produce.key.topic),
            Request::ProduceCopies(copies) => self.publish(copies.produce.key.topic),
            Request::Hold(hold) => self.publish(hold.key.topic),
            Request::EndTransaction(end) => self.publish(end.receipt.key.topic),
            Request::OpenTopic(topic) => self.need(Need::Publish { topic: topic.as_str() }),
            Request::ReceiveHalves(receive) => self.need(Need::Publish { topic: receive.topic.as_str() }),

            Request::Receive(receive) => {
                self.need(Need::Consume { topic: receive.topic.as_str(), group: receive.group.as_str() })
            }
            Request::Acknowledge(acknowledge) => {
                let topics = acknowledge.receipts.iter().map(|receipt| receipt.key.topic);
                self.each_known(topics, Use::Consume { group: acknowledge.group.as_str() })?;
                self.need(Need::ActFor { group: acknowledge.group.as_str() })
            }
            Request::ChangeLease(change) => self.consume(change.receipt.key.topic, change.group.as_str()),
            Request::CommitOffset(commit) => self.consume(commit.key.topic, commit.group.as_str()),
            Request::CommittedOffset { group, key } => self.consume(key.topic, group.as_str()),
            Request::JoinGroup(join) => {
                let group = join.group.as_str();
                let mut topics = join.topics.iter();
                topics.try_for_each(|topic| self.need(Need::Consume { topic: topic.as_str(), group }))?;
                self.need(Need::ActFor { group })
            }
            Request::LeaveGroup { group, member: _ } => self.need(Need::ActFor { group: group.as_str() }),

            Request::Fetch(fetch) => self.read(fetch.key.topic),
            Request::FindOffset { key, spec: _ } => self.read(key.topic),
            Request::Watch(watch) => {
                self.each_known(watch.queues.iter().map(|(key, _)| key.topic), Use::Read)?;
                self.need(Need::AnyKey)
            }
            Request::FindMessages(FindMessages::Key { topic, .. }) => {
                self.need(Need::Read { topic: topic.as_str() })
            }

            Request::Redrive(redrive) => self.redrive(redrive),
            Request::RedrivenRanges { group, queue: _, from: _ } => {
                self.need(Need::Read { topic: GroupTopic::DeadLetters.of(group).as_str() })
            }

            Request::DescribeTopic(topic) | Request::Route(Some(topic)) => {
                self.need(Need::Describe { topic: topic.as_str() })
            }
            Request::Route(None) => self.need(Need::AnyKey),

            Request::FindMessages(FindMessages::Position { .. }) => {
                administer("look messages up by their place in the log")
            }
            Request::ListDelayed(list) => self.need(Need::Read { topic: list.topic.as_str() }),
            Request::RecallDelayed(recall) => self.need(Need::Publish { topic: recall.topic.as_str() }),

            Request::CreateTopic(_) => administer("create topics"),
            Request::AlterTopic(_) | Request::PermitTopic { .. } => administer("alter topics"),
            Request::DeleteTopic(_) | Request::PurgeTopic(_) => administer("delete topics"),
            Request::ListGroups => administer("list groups"),
            Request::DescribeGroup(_) | Request::GroupStats(_) => administer("describe groups"),
            Request::DeleteGroup(_) => administer("delete groups"),
            Request::ResetGroup(_) => administer("reset groups"),
            Request::AlterGroup(_) | Request::SetUpGroup(_) => administer("alter groups"),
            Request::CreateInstance(_) => administer("create instances"),
            Request::DeleteInstance(_) => administer("delete instances"),
            Request::ListInstances => administer("list instances"),
            Request::Settings(changes) if changes.is_empty() => administer("read the broker's settings"),
            Request::Settings(_) => administer("change the broker's settings"),
            Request::DescribeNode { count_syscalls: _ } => administer("read the broker's counters"),
            Request::TopicStats(StatsAsked { of: StatsOf::One(topic), .. }) => {
                self.need(Need::Describe { topic: topic.as_str() })
            }
            Request::ListTopics | Request::TopicStats(_) => administer("list topics"),
            Request::ListSlow(_) | Request::MeasureLatency(_) => administer("see where requests' time goes"),
        }
    }

    fn redrive(&self, redrive: &Redrive) -> Result<(), Failure> {
        let (topic, group) = (GroupTopic::DeadLetters.of(&redrive.group), redrive.group.as_str());
        self.need(Need::Consume { topic: topic.as_str(), group })?;
        self.need(Need::Publish { topic: redrive.to.as_str() })
    }

    pub fn publish(&self, topic: TopicId) -> Result<(), Failure> {
        self.topic(topic, Use::Publish)
    }

    fn consume(&self, topic: TopicId, group: &str) -> Result<(), Failure> {
        self.topic(topic, Use::Consume { group })
    }

    fn read(&self, topic: TopicId) -> Result<(), Failure> {
        self.topic(topic, Use::Read)
    }

    fn topic(&self, topic: TopicId, wanted: Use<'_>) -> Result<(), Failure> {
        // A stranger does not learn which topics there are.
        self.need(Need::AnyKey)?;
        match (self.topic_name)(topic) {
            Some(name) => self.named(topic, &name, wanted),
            None => {
                let message = "the topic does not exist, or not any more: ask for its route";
                Err(Failure::new(Status::TopicNotExist, message))
            }
        }
    }

    /// A key that may do nothing with a topic does not learn what it is called, by whatever number it asks for.
    fn named(&self, topic: TopicId, name: &TopicName, wanted: Use<'_>) -> Result<(), Failure> {
        let refused = match self.need(wanted.of(name.as_str())) {
            Err(refused) => refused,
            Ok(()) => return Ok(()),
        };
        if self.need(Need::Describe { topic: name.as_str() }).is_ok() {
            return Err(refused);
        }
        let message = format!(
            "the access key may do nothing with topic number {topic}: ask for its route by its name, and the answer says which \
             rule the key lacks"
        );
        Err(Failure::new(refused.status, message))
    }

    /// For requests of many topics: those that do not exist any more do not keep the others from being dealt with.
    fn each_known(&self, topics: impl Iterator<Item = TopicId>, wanted: Use<'_>) -> Result<(), Failure> {
        self.need(Need::AnyKey)?;
        let topics: BTreeSet<TopicId> = topics.collect();
        topics.into_iter().try_for_each(|topic| match (self.topic_name)(topic) {
            Some(name) => self.named(topic, &name, wanted),
            None => Ok(()),
        })
    }

    fn need(&self, need: Need<'_>) -> Result<(), Failure> {
        self.session.check(need).map_err(refusal)
    }
}

/// What is to be done with a topic.
#[derive(Clone, Copy)]
enum Use<'a> {
    Publish,
    Read,
    Consume { group: &'a str },
}

impl<'a> Use<'a> {
    fn of(self, topic: &'a str) -> Need<'a> {
        match self {
            Use::Publish => Need::Publish { topic },
            Use::Read => Need::Read { topic },
            Use::Consume { group } => Need::Consume { topic, group },
        }
    }
}

/// A denial as the native protocol says it.
pub(in crate::server) fn refusal(denied: Denied) -> Failure {
    let status = match denied {
        Denied::NoKey | Denied::Revoked { .. } => Status::Unauthenticated,
        Denied::NotAllowed { .. } => Status::PermissionDenied,
    };
    Failure::new(status, denied.to_string())
}

#[cfg(test)]
mod tests;
