//! What brokers ask the clients that are connected to this shard: what becomes of a half, and to take a reply.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::port::address_of;
use super::sessions::{ClientRequest, RemotingClients};
use crate::api::{ReplyMessage, ReplyOutcome};
use crate::broker::ProducerCheck;
use crate::namesrv::OwnNode;
use crate::protocol::remoting::ResponseCode;
use crate::protocol::remoting::call::reply;
use crate::protocol::remoting::call::transaction::CheckRequest;
use crate::protocol::remoting::code::request;
use crate::protocol::remoting::message::{PlacedRecord, RecordTerms, write_record};
use crate::server::connection::ShardBroker;
use crate::server::sessions::Unanswered;
use crate::types::{QueueOffset, RecordLocation, ShardId};
use crate::wire::properties::{Properties, names};
use crate::wire::record::RecordView;

/// How long a client may take to answer that it has a reply: whoever has sent it waits for three seconds.
const REPLY_WAIT: Duration = Duration::from_millis(2_500);

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
    fn ask(&self, client: &str, check: &ProducerCheck) -> bool {
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

    /// Has the broker ask through this.
    pub fn take_from(self, broker: &ShardBroker) {
        let questions = Rc::new(self);
        let asking = questions.clone();
        broker.set_producer_notice(Rc::new(move |client, check| asking.ask(client, check)));
        broker.set_reply_notice(Rc::new(move |client, reply| {
            let questions = questions.clone();
            Box::pin(async move { questions.deliver(&client, &reply).await })
        }));
    }

    /// Hands a client a reply that has come to any shard.
    async fn deliver(&self, client: &str, message: &ReplyMessage) -> ReplyOutcome {
        let Some(broker) = self.broker.upgrade() else { return ReplyOutcome::NoClient };
        let host = self.address(&broker, message.shard);
        let host = host.unwrap_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        drop(broker);
        let Some(pushed) = reply::push(message, host, &self.node.cluster) else {
            return ReplyOutcome::NotTaken;
        };
        let reply::PushedReply { fields, body } = pushed;
        let code = request::PUSH_REPLY_MESSAGE_TO_CLIENT;
        let request = ClientRequest { code, fields, body, publishes_to: None };
        match self.clients.ask(client, request, REPLY_WAIT).await {
            Ok(code) if code == ResponseCode::Success.number() => ReplyOutcome::Delivered,
            Err(Unanswered::NotSent) => ReplyOutcome::NoClient,
            Ok(_) | Err(_) => ReplyOutcome::NotTaken,
        }
    }

    fn address(&self, broker: &ShardBroker, shard: ShardId) -> Option<SocketAddr> {
        *self.addresses.borrow_mut().entry(shard).or_insert_with(|| address_of(broker, shard))
    }
}
