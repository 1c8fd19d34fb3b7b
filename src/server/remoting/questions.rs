//! What brokers ask the clients that are connected to this shard: what becomes of a half, to take a reply, and how they are.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::port::address_of;
use super::queries::{FoundAt, write_found};
use super::sessions::{Audience, ClientRequest, RemotingClients};
use crate::api::{ClientOutcome, ClientQuestion, ReplyMessage, ReplyOutcome};
use crate::broker::ProducerCheck;
use crate::namesrv::OwnNode;
use crate::protocol::remoting::ResponseCode;
use crate::protocol::remoting::call::transaction::CheckRequest;
use crate::protocol::remoting::call::{inquiry, reply};
use crate::protocol::remoting::code::request;
use crate::protocol::remoting::message::{PlacedRecord, RecordTerms, write_record};
use crate::server::connection::ShardBroker;
use crate::server::sessions::Unanswered;
use crate::types::{QueueOffset, RecordLocation, ShardId};
use crate::wire::properties::{Properties, names};
use crate::wire::record::RecordView;

/// How long a client may take to answer that it has a reply: whoever has sent it waits for three seconds.
const REPLY_WAIT: Duration = Duration::from_millis(2_500);
/// How long a consumer may take to answer a tool's question. Where several are asked for one answer, tools wait for five seconds.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
const SHARED_WAIT: Duration = Duration::from_secs(3);

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
    pub fn new(broker: &Rc<ShardBroker>, clients: &Rc<RemotingClients>, node: &OwnNode) -> Rc<Self> {
        Rc::new(Self {
            broker: Rc::downgrade(broker),
            clients: clients.clone(),
            node: node.clone(),
            addresses: RefCell::default(),
        })
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
            shown_to: Some(Audience::Publishers { topic: check.topic.clone() }),
        };
        self.clients.tell(client, request)
    }

    /// Has the broker ask through this.
    pub fn take_from(self: Rc<Self>, broker: &ShardBroker) {
        let (asking, questions) = (self.clone(), self.clone());
        broker.set_producer_notice(Rc::new(move |client, check| asking.ask(client, check)));
        broker.set_reply_notice(Rc::new(move |client, reply| {
            let questions = questions.clone();
            Box::pin(async move { questions.deliver(&client, &reply).await })
        }));
        let questions = self.clone();
        broker.set_question_notice(Rc::new(move |client, question| {
            let questions = questions.clone();
            Box::pin(async move { questions.inquire(&client, &question).await })
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
        let request = ClientRequest { code, fields, body, shown_to: None };
        match self.clients.ask(client, request, REPLY_WAIT).await {
            Ok(words) if words.code == ResponseCode::Success.number() => ReplyOutcome::Delivered,
            Err(Unanswered::NotSent) => ReplyOutcome::NoClient,
            Ok(_) | Err(_) => ReplyOutcome::NotTaken,
        }
    }

    /// Asks a client for whoever wants to know, and waits for the answer.
    async fn inquire(&self, client: &str, question: &ClientQuestion) -> ClientOutcome {
        let Some(broker) = self.broker.upgrade() else { return ClientOutcome::NoClient };
        let request = self.inquiry(&broker, client, question);
        drop(broker);
        let wait = match question {
            ClientQuestion::Places { .. } => SHARED_WAIT,
            ClientQuestion::Condition { .. } | ClientQuestion::Process { .. } => ANSWER_WAIT,
        };
        match self.clients.ask(client, request, wait).await {
            Ok(words) => ClientOutcome::Answered(words),
            Err(Unanswered::NotSent | Unanswered::Gone) => ClientOutcome::NoClient,
            Err(Unanswered::Late | Unanswered::TooMany) => ClientOutcome::Late,
        }
    }

    fn inquiry(&self, broker: &ShardBroker, client: &str, question: &ClientQuestion) -> ClientRequest {
        let ClientQuestion::Process { group, message, .. } = question else {
            let (code, fields) = inquiry::asked(question, client, "");
            return ClientRequest { code, fields, ..ClientRequest::default() };
        };
        let (code, fields) = inquiry::asked(question, client, &self.node.broker(message.shard.0.into()));
        let host = self.address(broker, message.shard);
        let at = FoundAt {
            store_host: host.unwrap_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))),
            cluster: &self.node.cluster,
            shards: broker.options().shard_count,
        };
        let mut body = Vec::new();
        write_found(&at, message, &mut body);
        let shown_to = Audience::Consumers { topic: message.topic.clone(), group: group.clone() };
        ClientRequest { code, fields, body, shown_to: Some(shown_to) }
    }

    fn address(&self, broker: &ShardBroker, shard: ShardId) -> Option<SocketAddr> {
        *self.addresses.borrow_mut().entry(shard).or_insert_with(|| address_of(broker, shard))
    }
}
