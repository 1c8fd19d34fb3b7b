//! What a name server has been told, for everybody who asks it.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::settings::Settings;
use super::table::BrokerTable;
use crate::protocol::remoting::body::TopicRoute;

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
    /// Brokers of this node to which producers are not to send, until that is taken back or the node starts again.
    closed: BTreeSet<String>,
}

/// The permission bit to write.
const WRITE: u32 = 2;

impl Told {
    pub fn set_own_writable(&mut self, broker: &str, is_writable: bool) {
        if is_writable {
            self.closed.remove(broker);
        } else {
            self.closed.insert(broker.to_owned());
        }
    }

    /// Takes the right to write from those brokers in a route that has this node's only.
    pub fn close_own(&self, route: &mut TopicRoute) {
        for queues in route.queues.iter_mut().filter(|queues| self.closed.contains(&queues.broker)) {
            queues.permission &= !WRITE;
        }
    }
}

impl NameServer {
    /// Nothing is waited for while this is held.
    pub fn told(&self) -> MutexGuard<'_, Told> {
        // Nothing between two consistent states of the tables can fail.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::remoting::body::QueueNumbers;

    #[test]
    fn a_closed_broker_keeps_its_place_in_routes() {
        let queues =
            |broker: &str| QueueNumbers { broker: broker.into(), read: 4, write: 4, permission: 7, flags: 0 };
        let mut told = Told::default();
        let permissions = |told: &Told| {
            let mut route = TopicRoute { brokers: Vec::new(), queues: vec![queues("a"), queues("b")] };
            told.close_own(&mut route);
            route.queues.iter().map(|queues| queues.permission).collect::<Vec<_>>()
        };
        told.set_own_writable("b", false);
        assert_eq!(permissions(&told), [7, 5]);
        told.set_own_writable("b", true);
        assert_eq!(permissions(&told), [7, 7]);
    }
}
