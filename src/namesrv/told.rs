//! What a name server has been told, for everybody who asks it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::settings::Settings;
use super::table::BrokerTable;

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
