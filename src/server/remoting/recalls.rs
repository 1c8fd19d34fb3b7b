//! Producers that take back what is to be delivered later.

use std::rc::Rc;

use super::answer::{Answer, Asker};
use super::connection::Remoting;
use super::requests::Refused;
use super::signed::Sender;
use crate::access::Need;
use crate::api::{Failure, Held, Status};
use crate::broker::Recall;
use crate::protocol::remoting::call::recall::{RecallHandle, RecallRequest, illegal};
use crate::protocol::remoting::{Header, ResponseCode};

impl Remoting {
    /// Begins to take a message back before its time.
    pub(super) async fn recall(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        header: &Header<'_>,
    ) -> Result<Option<Answer>, Refused> {
        let RecallRequest { topic, broker: name, due, unique_id, position } =
            RecallRequest::read(&header.fields)?;
        self.check(sender, Need::Publish { topic: topic.as_str() }).map_err(Refused::failed)?;
        if name != self.broker_name() {
            return Err(illegal("broker service not available").into());
        }
        // One without a place is no handle of this broker's.
        let Some(position) = position else { return Err(illegal("broker service not available").into()) };
        let broker = self.connections.broker.clone();
        let (network, id) = (self.network(), unique_id.clone());
        let recall = Recall { topic, due, unique_id: Some(unique_id), position, network };
        let recalled = async move {
            broker.recall(&recall).await.map_err(refused)?;
            Ok(Answer::field("msgId", id))
        };
        self.begin(asker, recalled).await
    }

    fn broker_name(&self) -> String {
        self.port().node.broker(usize::from(self.connections.broker.shard().0))
    }

    /// What a producer takes a held message back with; `None` for one that waits for no time.
    pub(super) fn recall_handle(&self, unique_id: &str, held: &Held) -> Option<String> {
        let due = held.due.filter(|_| held.offset.is_none())?;
        let topic = self.connections.broker.topic_name(held.receipt.key.topic)?;
        let (topic, broker) = (topic.as_str(), &*self.broker_name());
        Some(RecallHandle { topic, broker, due, unique_id, position: Some(held.position) }.text())
    }
}

fn refused(failure: Failure) -> Refused {
    match failure.status {
        Status::ReceiptExpired => illegal(&failure.message).into(),
        Status::TopicNotExist => {
            Refused::new(ResponseCode::TopicNotExist, format!("recall failed, {}", failure.message))
        }
        _ => Refused::failed(failure),
    }
}
