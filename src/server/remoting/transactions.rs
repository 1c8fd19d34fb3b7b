//! Transactions: producers' decisions on their half messages, which may be another shard's.

use std::rc::Rc;

use super::answer::{Answer, Asker};
use super::connection::Remoting;
use super::requests::Refused;
use super::signed::Sender;
use crate::access::Need;
use crate::api::{EndTransaction, FoundHalf, Request, Status};
use crate::protocol::remoting::call::transaction::EndRequest;
use crate::protocol::remoting::{Header, ResponseCode};
use crate::types::{GroupName, ShardId};

// As RocketMQ says it: people look for the words.
const NOT_FOUND: &str = "Find prepared transaction message failed";
const OTHER_GROUP: &str = "The producer group wrong";
const NO_SHARD: &str = "The transaction state table offset wrong";

impl Remoting {
    /// Begins to carry out a producer's decision.
    pub(super) async fn end_transaction(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        header: &Header<'_>,
    ) -> Result<Option<Answer>, Refused> {
        self.check(sender, Need::AnyKey).map_err(Refused::failed)?;
        let end = EndRequest::read(&header.fields)?;
        let (remoting, sender) = (self.clone(), sender.clone());
        self.begin(asker, async move { remoting.end_half(&sender, &end).await }).await
    }

    async fn end_half(&self, sender: &Sender, end: &EndRequest) -> Result<Answer, Refused> {
        // It is asked again, as if it had said nothing.
        let Some(decision) = end.decision else { return Ok(Answer::done()) };
        let half = self.decided_half(end).await?;
        let broker = &self.connections.broker;
        if !sender.is_open() {
            let topic = broker.topic_name(half.receipt.key.topic);
            let topic = topic.ok_or_else(|| failed(NOT_FOUND))?;
            self.check(sender, Need::Publish { topic: topic.as_str() }).map_err(Refused::failed)?;
        }
        if half.awaits_check && !end.is_asked {
            return Err(Refused::new(
                ResponseCode::IllegalOperation,
                "the time that the producer has set for its own decision is over: it counts when the producer is asked",
            ));
        }
        let end = EndTransaction { receipt: half.receipt, producer_group: None, decision };
        match broker.handle(Request::EndTransaction(end)).await {
            Ok(_) => Ok(Answer::done()),
            Err(failure) if failure.status == Status::ReceiptExpired => Err(failed(NOT_FOUND)),
            Err(failure) => Err(Refused::failed(failure)),
        }
    }

    /// The half that a decision is about, on whichever shard it is.
    async fn decided_half(&self, end: &EndRequest) -> Result<FoundHalf, Refused> {
        let broker = &self.connections.broker;
        let shard = u16::try_from(end.shard).ok().filter(|shard| *shard < broker.options().shard_count);
        let shard = ShardId(shard.ok_or_else(|| failed(NO_SHARD))?);
        let location = end.location.ok_or_else(|| failed(NOT_FOUND))?;
        let found = broker.find_half(shard, location).await.map_err(Refused::failed)?;
        let half = found.ok_or_else(|| failed(NOT_FOUND))?;
        // What has come over other protocols may have no group: it is ended over those.
        if half.producer_group.as_ref().map(GroupName::as_str) != Some(end.group.as_str()) {
            return Err(failed(OTHER_GROUP));
        }
        Ok(half)
    }
}

fn failed(remark: &str) -> Refused {
    Refused::new(ResponseCode::SystemError, remark)
}
