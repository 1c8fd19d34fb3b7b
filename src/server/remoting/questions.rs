//! Questions of brokers to the clients that are connected to this shard: what becomes of a half.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::{Rc, Weak};

use super::port::address_of;
use super::sessions::{ClientRequest, RemotingClients};
use crate::broker::ProducerCheck;
use crate::namesrv::OwnNode;
use crate::protocol::remoting::call::transaction::CheckRequest;
use crate::protocol::remoting::code::request;
use crate::protocol::remoting::message::{PlacedRecord, RecordTerms, write_record};
use crate::server::connection::ShardBroker;
use crate::types::{QueueOffset, RecordLocation, ShardId};
use crate::wire::properties::{Properties, names};
use crate::wire::record::RecordView;

/// Asks the clients of one shard.
pub(super) struct Questions {
    /// Which asks here.
    broker: Weak<ShardBroker>,
    clients: Rc<RemotingClients>,
    node: OwnNode,
    /// What clients reach the shards at that have asked.
    addresses: RefCell<BTreeMap<ShardId, Option<SocketAddr>>>,
}

impl Questions {
    pub fn new(broker: &Rc<ShardBroker>, clients: &Rc<RemotingClients>, node: &OwnNode) -> Self {
        Self {
            broker: Rc::downgrade(broker),
            clients: clients.clone(),
            node: node.clone(),
            addresses: RefCell::default(),
        }
    }

    /// Asks a client about a half of any shard; whether the question is on its way. The answer is a decision as any other one.
    pub fn ask(&self, client: &str, check: &ProducerCheck) -> bool {
        let Some(broker) = self.broker.upgrade() else { return false };
        let Ok((record, _)) = RecordView::cut(&check.half.record) else { return false };
        let address = self.address(&broker, check.shard);
        let location = RecordLocation { position: check.half.receipt.position, index: 0 };
        let terms = RecordTerms {
            topic: check.topic.as_str(),
            queue: check.half.receipt.key.queue.0 / u32::from(broker.options().shard_count),
            store_host: address.unwrap_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))),
            cluster: &self.node.cluster,
        };
        let placed = PlacedRecord {
            record,
            // As in the half's answer.
            offset: QueueOffset(check.shard.0.into()),
            location,
            born_time: check.half.born_time,
            store_time: check.half.store_time,
        };
        let mut body = Vec::new();
        write_record(&terms, &placed, &mut body);
        let mut properties = Properties::new(record.properties());
        let id = properties.find(|(name, _)| *name == names::UNIQUE_ID.as_bytes()).map(|(_, value)| value);
        let asked = CheckRequest {
            shard: check.shard,
            broker: &self.node.broker(check.shard.0.into()),
            address,
            topic: check.topic.as_str(),
            location,
            unique_id: &String::from_utf8_lossy(id.unwrap_or_default()),
        };
        let request = ClientRequest {
            code: request::CHECK_TRANSACTION_STATE,
            fields: asked.fields(),
            body,
            publishes_to: Some(check.topic.clone()),
        };
        self.clients.tell(client, request)
    }

    fn address(&self, broker: &ShardBroker, shard: ShardId) -> Option<SocketAddr> {
        *self.addresses.borrow_mut().entry(shard).or_insert_with(|| address_of(broker, shard))
    }
}
