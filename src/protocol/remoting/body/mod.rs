//! Bodies of requests and answers, as types of their own: what name servers, brokers and tools tell one another.

mod cluster;
mod data_version;
mod heartbeat;
mod lists;
mod registration;
mod route;

pub use cluster::{ClusterBroker, ClusterInfo};
pub use data_version::DataVersion;
pub use heartbeat::{ClientCheck, Consumer, Heartbeat, Subscription};
pub use lists::{write_client_ids, write_table, write_topics};
pub use registration::{RegisteredTopic, RegisteredTopics, RegistrationError};
pub use route::{BrokerAddresses, QueueNumbers, TopicRoute};
