//! What a topic's permission, and a group's settings, keep clients from that know nothing of either: those of the native protocol
//! and of HTTP. RocketMQ's own find permissions in routes, and their broker refuses pulls only; what they are told is in their own
//! protocol's words.

use crate::api::{Failure, Receive, Status};
use crate::broker::shard_broker::Broker;
use crate::disk::Disk;
use crate::state::{Permission, Topic};
use crate::types::{GroupName, TopicId, TopicName};

/// What somebody is about to do with a topic.
#[derive(Clone, Copy)]
enum Way {
    Read,
    Write,
}

impl<D: Disk> Broker<D> {
    /// Whether producers may store messages of a topic. One that does not exist is not refused here.
    pub fn check_writable(&self, topic: TopicId) -> Result<(), Failure> {
        check(self.tables().topic(topic), Way::Write)
    }

    /// The same, by its name.
    pub fn check_writable_by_name(&self, topic: &TopicName) -> Result<(), Failure> {
        check(self.tables().topic_named(topic), Way::Write)
    }

    /// Whether consumers may have messages of a topic.
    pub(in crate::broker) fn check_readable(&self, topic: TopicId) -> Result<(), Failure> {
        check(self.tables().topic(topic), Way::Read)
    }

    /// Whether a receive may be given anything.
    pub(in crate::broker) fn check_may_receive(
        &self,
        receive: &Receive,
        topic: TopicId,
    ) -> Result<(), Failure> {
        self.check_open(&receive.group)?;
        self.check_readable(topic)
    }

    /// Whether the settings of a group let it consume.
    pub(in crate::broker) fn check_open(&self, group: &GroupName) -> Result<(), Failure> {
        match self.closed_by_settings(group) {
            Some(message) => Err(Failure::new(Status::PermissionDenied, message)),
            None => Ok(()),
        }
    }

    /// Why the settings of a group do not let it consume.
    pub(in crate::broker) fn closed_by_settings(&self, group: &GroupName) -> Option<String> {
        let words = "may not consume, as its settings have it";
        let command = format!("`turbopump group alter {group} --consume true` lets it");
        (!self.may_consume(group)).then(|| format!("group {group} {words}: {command}"))
    }
}

fn check(topic: Option<&Topic>, way: Way) -> Result<(), Failure> {
    let Some(topic) = topic else { return Ok(()) };
    let (bit, what) = match way {
        Way::Read => (Permission::READ, "read"),
        Way::Write => (Permission::WRITE, "written to"),
    };
    let Permission(permission) = topic.policy.permission;
    if permission & bit != 0 {
        return Ok(());
    }
    let name = &topic.name;
    let message = format!(
        "topic {name} may not be {what}: its permission is {permission}, of 4 to read and 2 to write; `turbopump topic \
         alter {name} --permission read-write` changes it"
    );
    Err(Failure::new(Status::PermissionDenied, message))
}
