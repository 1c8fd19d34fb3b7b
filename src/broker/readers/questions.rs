//! Questions to one client of a group, over a connection of it to whichever shard: how it is, and what it makes of a message.

use std::pin::Pin;
use std::rc::Rc;

use super::ReaderNews;
use crate::api::{ClientOutcome, ClientQuestion, Failure};
use crate::broker::client_requests::unexpected;
use crate::broker::peers::{PeerReply, PeerRequest};
use crate::broker::shard_broker::Broker;
use crate::disk::Disk;

/// How a client that is connected to this shard is asked.
pub type QuestionNotice =
    Rc<dyn Fn(String, Box<ClientQuestion>) -> Pin<Box<dyn Future<Output = ClientOutcome>>>>;

impl<D: Disk> Broker<D> {
    /// Sets how clients are asked.
    pub fn set_question_notice(&self, notice: QuestionNotice) {
        *self.spreading.question_notice.borrow_mut() = Some(notice);
    }

    /// Asks a client, and waits for its answer.
    pub async fn ask_client(&self, client: &str, question: ClientQuestion) -> Result<ClientOutcome, Failure> {
        let Some(shard) = self.way_to(client) else { return Ok(ClientOutcome::NoClient) };
        let (client, question) = (client.to_owned(), Box::new(question));
        if shard == self.options.shard {
            return Ok(self.ask_client_here(client, question).await);
        }
        let asked = ReaderNews::Question { client, question };
        match self.peers()?.ask(shard, PeerRequest::Readers(asked)).await? {
            PeerReply::ClientAnswered(outcome) => Ok(*outcome),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks a client of this shard.
    pub(super) async fn ask_client_here(
        &self,
        client: String,
        question: Box<ClientQuestion>,
    ) -> ClientOutcome {
        let notice = self.spreading.question_notice.borrow().clone();
        match notice {
            Some(notice) => notice(client, question).await,
            None => ClientOutcome::NoClient,
        }
    }
}
