//! Messages that consumers give back.

use std::rc::Rc;

use super::answer::{Answer, Asker};
use super::connection::Remoting;
use super::requests::Refused;
use super::signed::Sender;
use crate::access::Need;
use crate::broker::{RetryDelay, SendBack};
use crate::protocol::remoting::Header;
use crate::protocol::remoting::call::send_back::SentBack;
use crate::types::OffsetMessageId;

impl Remoting {
    /// Begins to store a message once more, for its group alone.
    pub(super) async fn send_back(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        header: &Header<'_>,
    ) -> Result<Option<Answer>, Refused> {
        let back = SentBack::read(&header.fields)?;
        self.check(sender, Need::ActFor { group: back.group.as_str() }).map_err(Refused::failed)?;
        let (remoting, sender) = (self.clone(), sender.clone());
        self.begin(asker, async move { remoting.store_sent_back(&sender, back).await }).await
    }

    async fn store_sent_back(&self, sender: &Sender, back: SentBack) -> Result<Answer, Refused> {
        let broker = &self.connections.broker;
        if !broker.keeps_retries(&back.group) {
            return Ok(Answer::done());
        }
        let Some(location) = back.location() else { return Err(back.not_found().into()) };
        let message = broker.message_to_return(location).await.map_err(Refused::failed)?;
        let Some(message) = message else { return Err(back.not_found().into()) };
        // It is given to the group, whatever place its sender has named.
        self.check_consumer(sender, message.topic.as_str(), back.group.as_str())?;
        let id = OffsetMessageId { address: self.port().store_host(), physical_offset: back.physical_offset };
        let delay = match back.level {
            ..0 => RetryDelay::Never,
            0 => RetryDelay::ByCount,
            level => RetryDelay::Level(level.unsigned_abs()),
        };
        let terms =
            SendBack { group: back.group, retries_max: back.retries_max, delay, network: self.network() };
        broker.send_back(&terms, &message, &id.text()).await.map_err(Refused::failed)?;
        Ok(Answer::done())
    }
}
