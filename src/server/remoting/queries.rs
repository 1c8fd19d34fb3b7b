//! Look-ups of stored messages, among those of this shard: clients and tools ask every broker of a topic.

use std::net::SocketAddr;
use std::rc::Rc;

use super::answer::{Answer, Asker};
use super::connection::Remoting;
use super::requests::Refused;
use super::signed::Sender;
use crate::api::{FindMessages, FoundMessage};
use crate::limits;
use crate::protocol::remoting::Header;
use crate::protocol::remoting::call::query::{MessageQuery, MessageView};
use crate::protocol::remoting::code::request;
use crate::protocol::remoting::message::{PlacedRecord, RecordTerms, write_record};
use crate::server::framed::CallTerms;
use crate::types::{Account, RecordLocation, Timestamp};
use crate::wire::record::RecordView;

/// What is looked for.
enum Query {
    Key(MessageQuery),
    Place(MessageView),
}

impl Remoting {
    /// Begins a look-up. What it finds is held twice, as it is stored and as it is answered.
    pub(super) async fn begin_query(
        self: &Rc<Self>,
        asker: Asker,
        sender: Sender,
        header: &Header<'_>,
    ) -> Result<Option<Answer>, Refused> {
        let query = match header.code {
            request::QUERY_MESSAGE => {
                let query = MessageQuery::read(&header.fields)?;
                self.check_reader(&sender, &query.topic)?;
                Query::Key(query)
            }
            _ => {
                self.check_group(&sender, None).map_err(Refused::failed)?;
                Query::Place(MessageView::read(&header.fields)?)
            }
        };
        let terms = CallTerms { carried_bytes: 0, waits_long: false, is_parked: false, deadline: None };
        let Some(call) = self.calls.begin(terms, None).await else { return Ok(None) };
        let remoting = self.clone();
        let task = async move {
            let bytes = 2 * limits::BATCH_BYTES_MAX;
            let Some(_reservation) = call.reserve_answer(Account::Answers, bytes).await else { return };
            let outcome = match query {
                Query::Key(query) => remoting.find_by_key(query).await,
                Query::Place(view) => remoting.find_by_place(view, &sender).await,
            };
            let outcome = outcome.map_err(|refused| refused.told(asker.version));
            asker.answer(&remoting.connection.outbox, &outcome);
        };
        glommio::spawn_local(task).detach();
        Ok(None)
    }

    async fn find_by_key(&self, query: MessageQuery) -> Result<Answer, Refused> {
        let MessageQuery { topic, key, count, from, to } = query;
        let broker = &self.connections.broker;
        // A key has no blanks, which separate keys; and a topic that is not there has no messages.
        let Ok(topic) = topic.parse() else { return Err(MessageQuery::not_found(true).into()) };
        if count == 0 || key.is_empty() || key.contains(' ') || broker.shown_topic(&topic).is_none() {
            return Err(MessageQuery::not_found(true).into());
        }
        let find = FindMessages::Key { topic, key, count, from, to, before: Vec::new() };
        let found = broker.find_own(find).await.map_err(Refused::failed)?;
        let Some(newest) = found.messages.first() else {
            return Err(MessageQuery::not_found(found.complete).into());
        };
        let fields = vec![
            ("indexLastUpdateTimestamp", newest.store_time.0.to_string()),
            ("indexLastUpdatePhyoffset", location(newest).physical_offset().to_string()),
        ];
        let mut body = Vec::new();
        // As RocketMQ does, the oldest one first.
        found.messages.iter().rev().for_each(|message| self.write_found(message, &mut body));
        Ok(Answer { fields, body })
    }

    async fn find_by_place(&self, view: MessageView, sender: &Sender) -> Result<Answer, Refused> {
        let broker = &self.connections.broker;
        let Some(RecordLocation { position, index }) = view.location() else {
            return Err(view.not_found().into());
        };
        let find = FindMessages::Position { shard: broker.shard(), position, index };
        let found = broker.find_own(find).await.map_err(Refused::failed)?;
        let message = found.messages.first().ok_or_else(|| view.not_found())?;
        self.check_reader(sender, message.topic.as_str())?;
        Ok(Answer::body(|output| self.write_found(message, output)))
    }

    fn write_found(&self, message: &FoundMessage, output: &mut Vec<u8>) {
        let port = self.port();
        let (store_host, cluster) = (port.store_host(), &*port.node.cluster);
        let shards = self.connections.broker.options().shard_count;
        write_found(&FoundAt { store_host, cluster, shards }, message, output);
    }
}

/// Whose messages were found.
pub(super) struct FoundAt<'a> {
    pub store_host: SocketAddr,
    pub cluster: &'a str,
    pub shards: u16,
}

/// Appends a message as clients get it.
pub(super) fn write_found(at: &FoundAt<'_>, message: &FoundMessage, output: &mut Vec<u8>) {
    // The broker has checked that it is a whole record.
    let Ok((record, _)) = RecordView::cut(&message.record) else { return };
    let terms = RecordTerms {
        topic: message.topic.as_str(),
        queue: message.key.queue.0 / u32::from(at.shards),
        store_host: at.store_host,
        cluster: at.cluster,
    };
    let born_ms = message.born_time.0.saturating_add_signed(-i64::from(record.born_delta_ms()));
    let placed = PlacedRecord {
        record,
        offset: message.offset,
        location: location(message),
        born_time: Timestamp(born_ms),
        store_time: message.store_time,
    };
    write_record(&terms, &placed, output);
}

fn location(message: &FoundMessage) -> RecordLocation {
    RecordLocation { position: message.position, index: message.index }
}
