//! Replies: messages for one client, over a connection of it to whichever shard.

use std::pin::Pin;
use std::rc::Rc;

use super::ReaderNews;
use crate::api::{Failure, ReplyMessage, ReplyOutcome};
use crate::broker::client_requests::unexpected;
use crate::broker::peers::{PeerReply, PeerRequest};
use crate::broker::shard_broker::Broker;
use crate::disk::Disk;
use crate::types::ShardId;

/// How a client that is connected to this shard is handed a reply.
pub type ReplyNotice = Rc<dyn Fn(String, Box<ReplyMessage>) -> Pin<Box<dyn Future<Output = ReplyOutcome>>>>;

impl<D: Disk> Broker<D> {
    /// Sets how clients are handed replies.
    pub fn set_reply_notice(&self, notice: ReplyNotice) {
        *self.spreading.reply_notice.borrow_mut() = Some(notice);
    }

    /// Hands a client a reply.
    pub async fn deliver_reply(&self, client: &str, reply: ReplyMessage) -> Result<ReplyOutcome, Failure> {
        let Some(shard) = self.way_to(client) else { return Ok(ReplyOutcome::NoClient) };
        let (client, reply) = (client.to_owned(), Box::new(reply));
        if shard == self.options.shard {
            return Ok(self.deliver_reply_here(client, reply).await);
        }
        match self.peers()?.ask(shard, PeerRequest::Readers(ReaderNews::Reply { client, reply })).await? {
            PeerReply::ReplyDelivered(outcome) => Ok(outcome),
            other => Err(unexpected(&other)),
        }
    }

    /// A shard that a client is connected to.
    pub(super) fn way_to(&self, client: &str) -> Option<ShardId> {
        let readers = self.readers.borrow();
        let mut shards = readers.words(client).map(|(connection, ..)| connection.shard);
        let first = shards.next();
        // This shard's own connection before the others.
        if shards.any(|shard| shard == self.options.shard) { Some(self.options.shard) } else { first }
    }

    /// Hands it to a client of this shard.
    pub(super) async fn deliver_reply_here(&self, client: String, reply: Box<ReplyMessage>) -> ReplyOutcome {
        let notice = self.spreading.reply_notice.borrow().clone();
        match notice {
            Some(notice) => notice(client, reply).await,
            None => ReplyOutcome::NoClient,
        }
    }
}
