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

pub use own::{OwnNode, OwnTopic, is_retry_topic};
pub use settings::Settings;
pub use table::{BrokerIdentity, BrokerTable, RegisterError, Registration};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a node's name server has been told, for all of its shards: whichever is asked gives the same answer. Brokers say
/// something every 30 seconds, and look-ups are short, so one lock does.
#[derive(Debug, Default)]
pub struct NameServer {
    told: Mutex<Told>,
}

/// The tables of a name server.
#[derive(Debug, Default)]
pub struct Told {
    pub brokers: BrokerTable,
    pub settings: Settings,
}

impl NameServer {
    /// Nothing is waited for while this is held.
    pub fn told(&self) -> MutexGuard<'_, Told> {
        // Nothing between two consistent states of the tables can fail.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
