//! RocketMQ's name server: which brokers there are, where their topics' queues are, and settings that they share.
//!
//! Brokers of other programs register, and are known as long as they are heard of. This node's own are never registered: what
//! they have is told from their own tables at the moment of asking ([`OwnNode`]), so it is never out of date.
//!
//! Everything is memory, as RocketMQ's is: after a start, brokers come back by themselves. It knows neither sockets nor
//! clocks; the time comes with each call.

mod own;
mod settings;
mod table;
mod told;

pub use own::{OwnNode, OwnTopic, is_retry_topic, retried_group, retry_topic};
pub use settings::Settings;
pub use table::{BrokerIdentity, BrokerTable, RegisterError, Registration};
pub use told::{NameServer, Told};
