//! Topics that are made because a client does something, and nobody by name: clients at one place of the network get a share of
//! them, so that no program that makes names up takes what others need.

use std::net::IpAddr;
use std::rc::Rc;

use crate::api::{Failure, Reply, Request, Status};
use crate::broker::makers::Makers;
use crate::broker::peers::PeerReply;
use crate::broker::shard_broker::Broker;
use crate::broker::shares::SharedTable;
use crate::disk::Disk;
use crate::limits;
use crate::types::TopicName;

/// Who has caused which topics to be made, in this life of the node.
#[derive(Default)]
pub(in crate::broker) struct TopicMakers {
    /// By writing to them.
    by_use: Makers<TopicName>,
    /// By giving messages back: those of groups.
    of_groups: Makers<TopicName>,
}

impl TopicMakers {
    fn of(&mut self, name: &TopicName) -> &mut Makers<TopicName> {
        if name.is_of_group() { &mut self.of_groups } else { &mut self.by_use }
    }

    pub fn note(&mut self, name: &TopicName, maker: IpAddr) {
        self.of(name).note(name, maker);
    }
}

impl<D: Disk> Broker<D> {
    /// Refuses a topic that clients at a place of the network are the cause of, when they have their share.
    pub(super) fn check_maker(&self, name: &TopicName, maker: IpAddr) -> Result<(), Failure> {
        let tables = self.tables();
        let of_groups = tables.group_topic_count();
        let (used, entries_max) = match name.is_of_group() {
            true => (of_groups, limits::GROUP_TOPICS_MAX),
            false => (tables.topic_count() - of_groups, limits::AUTO_CREATE_TOPICS_MAX),
        };
        let table = SharedTable { entries_max, used };
        let mut makers = self.topic_makers.borrow_mut();
        let makers = makers.of(name);
        if !table.takes(makers.count(maker)) {
            makers.look(self.clock.monotonic(), |name| tables.topic_named(name).is_some());
        }
        let own = makers.count(maker);
        if table.takes(own) {
            return Ok(());
        }
        let kind =
            if name.is_of_group() { "of groups' retries and dead letters" } else { "beside those of groups" };
        let message = format!(
            "topic {name} is not made for clients at {maker}: they have caused {own} topics to be made since the start, and there are \
             {used} {kind}, of {entries_max}, so that is their share: the rest is for others"
        );
        Err(Failure::new(Status::LimitReached, message))
    }

    /// Carries out, on the control shard, what makes a topic of a group that a client is the cause of.
    pub(super) async fn make_group_topic(
        self: &Rc<Self>,
        request: Request,
        maker: IpAddr,
    ) -> Result<PeerReply, Failure> {
        let made = match &request {
            Request::CreateTopic(change) => Some(change.topic.clone()),
            _ => None,
        };
        if let Some(name) = made.as_ref().filter(|name| self.tables().topic_named(name).is_none()) {
            self.check_maker(name, maker)?;
        }
        let reply: Reply = self.handle_here(request).await?;
        if let Some(name) = made {
            self.topic_makers.borrow_mut().note(&name, maker);
        }
        Ok(PeerReply::Client(reply))
    }
}
