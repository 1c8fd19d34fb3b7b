//! Clients that are asked for tools: how a consumer is and what its threads are at, what it makes of a message, where it is. It may
//! be connected to any shard.

use std::rc::Rc;

use futures_util::future::join_all;

use super::groups::parsed;
use crate::api::{ClientOutcome, ClientQuestion, FindMessages, GroupClient};
use crate::limits;
use crate::protocol::remoting::body::{ConsumerPlace, write_consumer_places};
use crate::protocol::remoting::call::inquiry::{self, Consulted};
use crate::protocol::remoting::{Header, ResponseCode};
use crate::server::framed::{CallTerms, Waited};
use crate::server::remoting::answer::{Answer, Asker};
use crate::server::remoting::connection::Remoting;
use crate::server::remoting::requests::Refused;
use crate::server::remoting::signed::Sender;
use crate::types::{Account, GroupName, RecordLocation};

/// Clients of a group that are asked for one answer.
const CLIENTS_ASKED_MAX: usize = 64;
/// What each of them may say.
const PLACES_BYTES_MAX: usize = 2 * limits::REMOTING_BODY_BYTES_MAX / CLIENTS_ASKED_MAX;

impl Remoting {
    /// Begins to answer how a consumer is, by its own word.
    pub(super) async fn consumer_condition(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        header: &Header<'_>,
    ) -> Result<Option<Answer>, Refused> {
        self.check_admin(sender, "ask consumers")?;
        let consulted = Consulted::read(&header.fields)?;
        let with_stacks = header.fields.boolean("jstackEnable");
        let remoting = self.clone();
        let told = async move {
            let group = remoting.consulted_group(&consulted)?;
            remoting.consult(&consulted, ClientQuestion::Condition { group, with_stacks }).await
        };
        self.begin_inquiry(asker, limits::REMOTING_BODY_BYTES_MAX, told).await
    }

    /// Begins to have a consumer process a message of this broker, and to answer what it made of it.
    pub(super) async fn process_directly(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        header: &Header<'_>,
    ) -> Result<Option<Answer>, Refused> {
        self.check_admin(sender, "have messages processed")?;
        let consulted = Consulted::read(&header.fields)?;
        let id = header.fields.required_text("msgId")?.into_owned();
        let remoting = self.clone();
        let told = async move {
            let group = remoting.consulted_group(&consulted)?;
            let RecordLocation { position, index } = inquiry::message_place(&id)?;
            let broker = &remoting.connections.broker;
            let find = FindMessages::Position { shard: broker.shard(), position, index };
            let mut found = broker.find_own(find).await.map_err(Refused::failed)?;
            let message = Box::new(found.messages.pop().ok_or_else(|| inquiry::no_message(&id))?);
            remoting.consult(&consulted, ClientQuestion::Process { group, message, id }).await
        };
        self.begin_inquiry(asker, 2 * limits::REMOTING_BODY_BYTES_MAX, told).await
    }

    /// Begins what waits for clients. It goes when its asker does, and when others need the room for its answer.
    async fn begin_inquiry(
        self: &Rc<Self>,
        asker: Asker,
        bytes: usize,
        inquiry: impl Future<Output = Result<Answer, Refused>> + 'static,
    ) -> Result<Option<Answer>, Refused> {
        let terms = CallTerms { carried_bytes: 0, waits_long: true, is_parked: false, deadline: None };
        let Some(call) = self.calls.begin(terms, None).await else { return Ok(None) };
        let remoting = self.clone();
        let task = async move {
            let Some(_room) = call.reserve_answer(Account::Answers, bytes).await else { return };
            let outcome = match call.while_there(inquiry).await {
                Waited::Over(outcome) => outcome,
                Waited::Cut | Waited::Late => {
                    let remark =
                        "others need the memory that the consumer's answer would take: ask again later";
                    Err(Refused::new(ResponseCode::SystemBusy, remark))
                }
                Waited::Left => return,
            };
            remoting.answer(asker, outcome);
        };
        glommio::spawn_local(task).detach();
        Ok(None)
    }

    /// The group of a client that consumes as it and can be asked.
    fn consulted_group(&self, consulted: &Consulted) -> Result<GroupName, Refused> {
        let group = consulted.group.parse::<GroupName>().map_err(|_| consulted.not_online())?;
        let clients = self.connections.broker.group_clients(&group);
        let client = clients.iter().find(|client| client.client == consulted.client);
        consulted.check_version(client.ok_or_else(|| consulted.not_online())?.version)?;
        Ok(group)
    }

    async fn consult(&self, consulted: &Consulted, question: ClientQuestion) -> Result<Answer, Refused> {
        let outcome = self.connections.broker.ask_client(&consulted.client, question).await;
        match outcome.map_err(Refused::failed)? {
            ClientOutcome::Answered(words) if words.code == ResponseCode::Success.number() => {
                Ok(Answer { fields: Vec::new(), body: words.document })
            }
            ClientOutcome::Answered(words) => {
                let remark = words.remark.unwrap_or_else(|| "the consumer refuses it without a word".into());
                Err(Refused::new(ResponseCode::SystemError, remark))
            }
            ClientOutcome::NoClient => Err(consulted.not_online().into()),
            ClientOutcome::Late => Err(consulted.late().into()),
        }
    }

    /// Begins to answer where the clients of a group are in a topic, by their own word; those that do not answer are left out.
    pub(super) async fn consumer_places(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        header: &Header<'_>,
    ) -> Result<Option<Answer>, Refused> {
        self.check_admin(sender, "ask consumers")?;
        let group = parsed(&header.fields.required_text("group")?)?;
        let topic = header.fields.required_text("topic")?.into_owned();
        let client = header.fields.text("clientAddr").filter(|client| !client.trim().is_empty());
        let client = client.map(|client| client.into_owned());
        let remoting = self.clone();
        let told = async move { remoting.places_of_clients(group, topic, client).await };
        self.begin_inquiry(asker, 2 * limits::REMOTING_BODY_BYTES_MAX, told).await
    }

    async fn places_of_clients(
        &self,
        group: GroupName,
        topic: String,
        wanted: Option<String>,
    ) -> Result<Answer, Refused> {
        let broker = &self.connections.broker;
        let clients = broker.group_clients(&group);
        if clients.is_empty() {
            let remark = format!("No Any Consumer online in the consumer group: [{group}]");
            return Err(Refused::new(ResponseCode::SystemError, remark));
        }
        let is_wanted = |client: &&GroupClient| {
            inquiry::answers(client.version) && wanted.as_ref().is_none_or(|wanted| *wanted == client.client)
        };
        let asked = clients.iter().filter(is_wanted).take(CLIENTS_ASKED_MAX).map(async |client| {
            let (group, topic) = (group.clone(), topic.clone());
            match broker.ask_client(&client.client, ClientQuestion::Places { group, topic }).await {
                Ok(ClientOutcome::Answered(words))
                    if words.code == ResponseCode::Success.number()
                        && words.document.len() <= PLACES_BYTES_MAX =>
                {
                    Some((client.client.clone(), ConsumerPlace::read_all(&words.document).ok()?))
                }
                _ => None,
            }
        });
        let told: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
        Ok(Answer::body(|output| write_consumer_places(&told, output)))
    }
}
