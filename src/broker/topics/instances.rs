//! Instances: name spaces of topics and groups. A topic `INSTANCE%TOPIC` belongs to one, a topic without it to the default
//! instance, and a group's own topics (`%DLQ%INSTANCE%GROUP`) to that of the group.
//!
//! An instance exists when it was made by command, or has topics: those of directories that are older than this registry.
//! Which ones were made is a set of names, small and rarely changed, so that a change says the whole of it.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::api::{Failure, InstanceInfo, Reply, Status};
use crate::broker::peers::PeerRequest;
use crate::broker::shard_broker::Broker;
use crate::disk::Disk;
use crate::limits;
use crate::state::Change;
use crate::state::Tables;
use crate::types::{InstanceName, TopicName};

/// The failure for a topic that is not there; when its instance is not there either, that is what to see to first.
pub(in crate::broker) fn topic_missing(tables: &Tables, topic: &TopicName) -> Failure {
    let message = match topic.instance().filter(|instance| !tables.has_instance(instance)) {
        Some(instance) => instance_missing(&instance),
        None => format!("topic {topic} does not exist: create it with `turbopump topic create {topic}`"),
    };
    Failure::new(Status::TopicNotExist, message)
}

/// What is told of a topic that is meant to be there and is not: nobody makes one to delete it.
pub(in crate::broker) fn topic_unknown(tables: &Tables, topic: &TopicName) -> Failure {
    let message = match topic.instance().filter(|instance| !tables.has_instance(instance)) {
        Some(instance) => {
            format!("instance {instance} does not exist: `turbopump instance list` shows those that do")
        }
        None => format!("topic {topic} does not exist: `turbopump topic list` shows those that do"),
    };
    Failure::new(Status::TopicNotExist, message)
}

fn instance_missing(instance: &InstanceName) -> String {
    format!("instance {instance} does not exist: create it with `turbopump instance create {instance}`")
}

/// Refuses a new topic of an instance that does not exist: the instance's name is mistyped more often than meant. The
/// topics of a group are the broker's to make.
pub(in crate::broker) fn check_instance(tables: &Tables, topic: &TopicName) -> Result<(), Failure> {
    match topic.instance() {
        Some(instance) if !topic.is_of_group() && !tables.has_instance(&instance) => {
            Err(Failure::invalid(instance_missing(&instance)))
        }
        _ => Ok(()),
    }
}

impl<D: Disk> Broker<D> {
    pub(in crate::broker) async fn create_instance(
        self: &Rc<Self>,
        instance: InstanceName,
    ) -> Result<Reply, Failure> {
        let _guard = self.topic_change.lock().await;
        let mut instances = self.tables().instances().clone();
        if instances.len() >= limits::INSTANCES_MAX {
            let message = format!("there are {} instances, no more are taken", instances.len());
            return Err(Failure::new(Status::LimitReached, message));
        }
        if !instances.insert(instance.clone()) {
            return Err(Failure::invalid(format_args!("instance {instance} exists already")));
        }
        let reply = self.put_instances(instances).await?;
        tracing::info!(target: "topics", %instance, "instance made");
        Ok(reply)
    }

    pub(in crate::broker) async fn delete_instance(
        self: &Rc<Self>,
        instance: &InstanceName,
    ) -> Result<Reply, Failure> {
        let _guard = self.topic_change.lock().await;
        let instances = {
            let tables = self.tables();
            let topic_count = tables.topics_of(instance).count();
            if topic_count > 0 {
                return Err(Failure::invalid(format_args!(
                    "instance {instance} has {topic_count} topics: see `turbopump topic list --instance {instance}`, and \
                     delete them first"
                )));
            }
            let mut instances = tables.instances().clone();
            if !instances.remove(instance) {
                let message = format!(
                    "instance {instance} does not exist: `turbopump instance list` shows those that do"
                );
                return Err(Failure::invalid(message));
            }
            instances
        };
        let reply = self.put_instances(instances).await?;
        tracing::info!(target: "topics", %instance, "instance removed");
        Ok(reply)
    }

    /// Makes the set durable on every shard, this one first. The caller holds `topic_change`.
    async fn put_instances(self: &Rc<Self>, instances: BTreeSet<InstanceName>) -> Result<Reply, Failure> {
        self.change(&[Change::Instances(instances.clone())]).await?;
        self.ask_others(|| PeerRequest::PutInstances(instances.clone())).await?;
        Ok(Reply::Done)
    }

    /// The default instance first, then the others by name.
    pub(in crate::broker) async fn list_instances(&self) -> Result<Vec<InstanceInfo>, Failure> {
        let groups = self.list_groups().await?;
        let tables = self.tables();
        let mut counts: BTreeMap<Option<InstanceName>, (u32, u32)> = BTreeMap::new();
        counts.insert(None, (0, 0));
        counts.extend(tables.instances().iter().map(|instance| (Some(instance.clone()), (0, 0))));
        for topic in tables.topics() {
            counts.entry(topic.name.instance()).or_default().0 += 1;
        }
        for group in groups {
            // A group alone makes no instance: whoever mistypes a name while receiving makes a group.
            let instance = counts.get_mut(&group.instance());
            instance.into_iter().for_each(|(_, group_count)| *group_count += 1);
        }
        let info =
            |(instance, (topic_count, group_count))| InstanceInfo { instance, topic_count, group_count };
        Ok(counts.into_iter().map(info).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Stage, State, Topic, TopicPolicy};
    use crate::types::{LogPosition, Retention, TopicId};

    fn tables(topics: &[&str], instances: &[&str]) -> Tables {
        let mut state = State::new(15);
        let mut apply = |change| drop(state.apply(change, LogPosition(1), Stage::Replayed));
        for (id, name) in (1..).zip(topics) {
            let topic = Topic {
                name: name.parse().expect("a name"),
                id: TopicId(id),
                queue_count: 1,
                retention: Retention::Inherited,
                level: None,
                policy: TopicPolicy::default(),
            };
            apply(Change::Topic(topic));
        }
        let instances = instances.iter().map(|name| name.parse().expect("a name")).collect();
        apply(Change::Instances(instances));
        state.tables().clone()
    }

    #[test]
    fn an_instance_exists_when_it_was_made_or_has_topics() {
        let tables = tables(&["old%t", "%DLQ%other%g", "plain"], &["made"]);
        for (topic, is_allowed) in [
            ("made%t", true),
            ("old%u", true),
            ("other%t", true),
            ("t", true),
            ("nowhere%t", false),
            ("%DLQ%nowhere%g", true),
            ("%RETRY%g", true),
            ("a|b%t", true),
        ] {
            let checked = check_instance(&tables, &topic.parse().expect("a name"));
            assert_eq!(checked.is_ok(), is_allowed, "{topic}");
        }
        let missing = |topic: &str| topic_missing(&tables, &topic.parse().expect("a name"));
        assert!(missing("nowhere%t").message.contains("`turbopump instance create nowhere`"));
        assert!(missing("made%u").message.contains("`turbopump topic create made%u`"));
        assert_eq!(missing("nowhere%t").status, Status::TopicNotExist);
        for (topic, part) in
            [("nowhere%t", "`turbopump instance list`"), ("made%u", "`turbopump topic list`")]
        {
            let unknown = topic_unknown(&tables, &topic.parse().expect("a name"));
            assert!(unknown.message.contains(part) && !unknown.message.contains("create"), "{unknown}");
        }
    }
}
