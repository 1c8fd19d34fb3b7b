//! Bodies of requests and answers, as types of their own: what name servers, brokers and tools tell one another.

mod cluster;
mod configuration;
mod consumer_places;
mod consumption;
mod data_version;
mod heartbeat;
mod lists;
mod queues;
mod registration;
mod route;
mod told;
mod users;

pub use cluster::{ClusterBroker, ClusterInfo};
pub use configuration::{
    CUSTOMIZED, EXPONENTIAL, GroupConfiguration, TopicConfiguration, write_group_table, write_readable,
    write_topic_table,
};
pub use consumer_places::{ConsumerPlace, write_consumer_places};
pub use consumption::{
    BrokerConsumption, ClientConnection, ConsumedQueue, ConsumerConnections, QueueKeyed, StoredQueue,
    SubscriptionShown, tag_hash, write_connections, write_consume_stats, write_counts, write_producers,
    write_queue_offsets, write_topic_stats,
};
pub use data_version::DataVersion;
pub use heartbeat::{ClientCheck, Consumer, Heartbeat, Subscription};
pub use lists::{write_client_ids, write_groups, write_table, write_topics, write_topics_at};
pub use queues::{QueueEntries, QueueEntry, QueueTimes, write_queue_times, write_subscription};
pub use registration::{RegisteredTopic, RegisteredTopics, RegistrationError};
pub use route::{BrokerAddresses, QueueNumbers, TopicRoute};
pub use told::{
    BrokerQueue, ToldBounds, ToldClient, ToldConsumers, ToldCount, ToldCounts, ToldError, ToldPlace,
    ToldProgress, ToldSubscription, ToldTopic, read_names, read_queue_numbers, read_queue_offsets,
    read_route, read_table,
};
pub use users::{RulesShown, UserShown, write_rules, write_users};
