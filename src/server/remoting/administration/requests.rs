//! What tools ask a broker for, by its codes.

use std::rc::Rc;

use crate::protocol::remoting::Header;
use crate::protocol::remoting::call::set_up::GroupAsked;
use crate::protocol::remoting::code::request;
use crate::server::remoting::answer::{Answer, Asker};
use crate::server::remoting::connection::Remoting;
use crate::server::remoting::requests::Refused;
use crate::server::remoting::signed::Sender;

impl Remoting {
    /// Carries out what tools ask for, or begins to. `None`: it is answered later, or not at all.
    pub(in crate::server::remoting) async fn administer(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        header: &Header<'_>,
        body: &[u8],
    ) -> Result<Option<Answer>, Refused> {
        match header.code {
            request::GET_CONSUMER_CONNECTION_LIST => self.consumer_connections(asker, sender, header).await,
            request::GET_CONSUME_STATS => self.consume_stats(asker, sender, header).await,
            request::QUERY_TOPIC_CONSUME_BY_WHO => self.consuming_groups(asker, sender, header).await,
            request::VIEW_BROKER_STATS_DATA => self.counted_of_late(asker, sender, header).await,
            request::GET_BROKER_CONSUME_STATS => self.broker_consumption(asker, sender).await,
            request::QUERY_TOPICS_BY_CONSUMER => self.consumed_topics(asker, sender, header).await,
            request::GET_TOPIC_STATS_INFO => self.topic_stats(asker, sender, header).await,
            request::GET_ALL_TOPIC_CONFIG => self.topic_table(asker, sender, header).await,
            request::UPDATE_AND_CREATE_TOPIC => self.set_up_topic(asker, sender, header).await,
            request::UPDATE_AND_CREATE_TOPIC_LIST => self.set_up_topics(asker, sender, body).await,
            request::DELETE_TOPIC_IN_BROKER => self.delete_topic(asker, sender, header).await,
            request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP => {
                self.set_up_groups(asker, sender, body, GroupAsked::one).await
            }
            request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST => {
                self.set_up_groups(asker, sender, body, GroupAsked::list).await
            }
            request::DELETE_SUBSCRIPTIONGROUP => self.delete_group(asker, sender, header).await,
            request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG => self.group_table(asker, sender, header).await,
            request::GET_SUBSCRIPTIONGROUP_CONFIG => self.group_configuration(asker, sender, header).await,
            request::INVOKE_BROKER_TO_RESET_OFFSET => self.reset_offsets(asker, sender, header).await,
            request::GET_BROKER_RUNTIME_INFO => self.runtime_info(asker, sender).await,
            request::GET_CONSUMER_RUNNING_INFO => self.consumer_condition(asker, sender, header).await,
            request::CONSUME_MESSAGE_DIRECTLY => self.process_directly(asker, sender, header).await,
            request::INVOKE_BROKER_TO_GET_CONSUMER_STATUS => {
                self.consumer_places(asker, sender, header).await
            }
            request::QUERY_CONSUME_QUEUE => self.queue_entries(asker, sender, header).await,
            request::QUERY_CONSUME_TIME_SPAN => self.consumed_times(asker, sender, header).await,
            request::CLONE_GROUP_OFFSET => self.clone_places(asker, sender, header).await,
            request::UPDATE_BROKER_CONFIG => self.change_settings(asker, sender, body).await,
            request::AUTH_LIST_USER => self.users(asker, sender, header).await,
            request::AUTH_LIST_ACL => self.rules(asker, sender, header).await,
            _ => self.administer_at_once(sender, header, body).map(Some),
        }
    }

    /// What is answered at once. What is nothing of a broker's administration goes on from here.
    fn administer_at_once(
        &self,
        sender: &Sender,
        header: &Header<'_>,
        body: &[u8],
    ) -> Result<Answer, Refused> {
        match header.code {
            request::GET_BROKER_CONFIG => self.settings(sender),
            request::GET_PRODUCER_CONNECTION_LIST => self.producer_connections(sender, header),
            request::GET_ALL_PRODUCER_INFO => self.all_producers(sender),
            request::GET_TOPIC_CONFIG => self.topic_configuration(sender, header),
            request::GET_SYSTEM_TOPIC_LIST_FROM_BROKER => self.reserved_topics(sender),
            request::CLEAN_EXPIRED_CONSUMEQUEUE
            | request::DELETE_EXPIRED_COMMITLOG
            | request::CLEAN_UNUSED_TOPIC => self.clean(sender),
            request::QUERY_SUBSCRIPTION_BY_CONSUMER => self.group_subscription(sender, header),
            request::UPDATE_AND_GET_GROUP_FORBIDDEN => self.readable_by(sender, header),
            request::AUTH_GET_USER => self.user(sender, header),
            request::AUTH_GET_ACL => self.user_rules(sender, header),
            request::AUTH_CREATE_USER
            | request::AUTH_UPDATE_USER
            | request::AUTH_DELETE_USER
            | request::AUTH_CREATE_ACL
            | request::AUTH_UPDATE_ACL
            | request::AUTH_DELETE_ACL => self.change_users(sender),
            _ => self.carry_out(sender, header, body),
        }
    }
}
