//! Who is connected to this shard over RocketMQ's protocol: clients by their ids, what they say that they consume, and as whom
//! they produce (`broker/.../client/ConsumerManager.java`, `ProducerManager.java`). The broker has all shards know it (`broker/readers`).
//!
//! 1. A client reads for a group as long as `sessions` has it, and no longer than it says so.
//! 2. What is kept of a client is counted, and paid for by the connections over which it was heard; it goes with them.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use super::answer::{Answer, Asker};
use super::connection::Remoting;
use super::requests::Refused;
use super::signed::{Sender, may_read};
use crate::access::{AccessKeys, Need, Session};
use crate::api::{ClientWords, LeftGroups, ReaderClient, ReaderGroup, ReaderMode, Subscription};
use crate::broker::HeardReader;
use crate::clock::SharedClock;
use crate::limits;
use crate::protocol::remoting::body::{ClientCheck, Consumer, Heartbeat, write_client_ids};
use crate::protocol::remoting::call::pull::{TAG, read_subscription};
use crate::protocol::remoting::code::request;
use crate::protocol::remoting::{FieldValue, Head, Header, HeaderForm, ResponseCode, consumer_group};
use crate::server::connection::Connections;
use crate::server::context::OUTBOX_PAUSE_BYTES;
use crate::server::sessions::{
    ClientConnection, ClientSessions, Clients, Connection, SessionTerms, Unanswered,
};
use crate::types::{Account, ClientMemory, GroupName, Reservation, TopicName};

/// As RocketMQ's: gone at once with the last connection, and after two minutes without a heartbeat.
const TERMS: SessionTerms = SessionTerms {
    absence: Duration::ZERO,
    silence: Duration::from_secs(limits::REMOTING_SILENCE_SECONDS),
    clients_max: limits::REMOTING_CLIENTS_MAX,
    asked_max: limits::REMOTING_ASKED_MAX,
};

/// Of an entry in a table, beside its name.
const ENTRY_BYTES: usize = 64;

/// A request to a client.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientRequest {
    pub code: i32,
    pub fields: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// Only who may do this is to see it.
    pub shown_to: Option<Audience>,
}

/// What the key of a client is to allow.
#[derive(Clone, Debug)]
pub(crate) enum Audience {
    Publishers { topic: TopicName },
    Consumers { topic: TopicName, group: GroupName },
}

/// One connection as the way to a client.
pub(crate) struct RemotingClient {
    connection: Rc<Connection>,
    /// `None` where the node has no keys.
    keys: Option<Rc<HeardKeys>>,
}

/// The clients of a shard.
pub(crate) struct RemotingClients {
    sessions: ClientSessions<RemotingClient, ClientWords>,
    keys: Rc<HeardKeys>,
}

/// By whose key each client was heard last over each connection, where the node has keys.
#[derive(Default)]
struct HeardKeys {
    sessions: RefCell<BTreeMap<(u64, String), Session>>,
}

/// The clients that were heard of over one connection, and what they have of the shard's memory.
pub(super) struct Heard {
    clients: BTreeSet<String>,
    memory: Reservation,
}

impl RemotingClient {
    pub fn new(connection: &Rc<Connection>, connections: &Connections) -> Rc<Self> {
        let port = connections.remoting.as_ref().filter(|_| connections.access.is_some());
        let keys = port.map(|port| port.clients.keys.clone());
        Rc::new(Self { connection: connection.clone(), keys })
    }

    /// Whether a key that is there still lets the client see a request.
    fn may_see(&self, client: &str, request: &ClientRequest) -> bool {
        let (Some(keys), Some(audience)) = (&self.keys, &request.shown_to) else { return true };
        keys.allow(self.connection.id, client, |session| match audience {
            Audience::Publishers { topic } => session.check(Need::Publish { topic: topic.as_str() }).is_ok(),
            Audience::Consumers { topic, group } => {
                may_read(session, group.as_str(), [topic.as_str()]).is_ok()
            }
        })
    }
}

impl ClientConnection for RemotingClient {
    type Request = ClientRequest;

    fn send(&self, client: &str, number: Option<u64>, request: &ClientRequest) -> bool {
        let outbox = &self.connection.outbox;
        let is_reading = self.connection.is_here() && outbox.bytes() <= OUTBOX_PAUSE_BYTES;
        if !is_reading || !self.may_see(client, request) {
            return false;
        }
        let fields = request.fields.iter().map(|(name, value)| (*name, FieldValue::Text(value)));
        let fields: Vec<_> = fields.collect();
        let head = match number {
            Some(number) => Head { code: request.code, opaque: number as i32, ..Head::default() },
            None => Head::one_way(request.code, 0),
        };
        let head = Head { fields: &fields, ..head };
        // Every client reads this form.
        outbox.push_with(|output| head.write(HeaderForm::Json, &request.body, output));
        true
    }
}

impl RemotingClients {
    pub fn new(clock: SharedClock) -> Self {
        Self { sessions: ClientSessions::new(clock, TERMS), keys: Rc::default() }
    }

    /// Tells a client, if it is connected to this shard, that a group has other members.
    pub fn notify(&self, client: &str, group: &GroupName) {
        let fields = vec![("consumerGroup", group.as_str().to_owned())];
        // Who does not read what is sent to it looks again by itself, every 20 seconds.
        let code = request::NOTIFY_CONSUMER_IDS_CHANGED;
        let _ = self.sessions.tell(client, ClientRequest { code, fields, ..ClientRequest::default() });
    }

    /// Sends a client that is connected to this shard a request that wants no answer; whether it is on its way.
    pub fn tell(&self, client: &str, request: ClientRequest) -> bool {
        self.sessions.tell(client, request)
    }

    /// Asks a client that is connected to this shard, and waits this long for its answer.
    pub async fn ask(
        &self,
        client: &str,
        request: ClientRequest,
        wait: Duration,
    ) -> Result<ClientWords, Unanswered> {
        self.sessions.ask(client, request, wait).await
    }

    /// A client has answered; false when it was not asked. `answer` makes a copy of what it says.
    pub fn answer(&self, client: &str, opaque: i32, answer: impl FnOnce() -> ClientWords) -> bool {
        let number = u64::from(opaque as u32);
        self.sessions.is_asked(client, number) && self.sessions.answer(client, number, answer())
    }

    /// Ends the sessions of those that are silent. Returns their clients.
    pub fn end_overdue(&self) -> Vec<String> {
        self.sessions.end_overdue()
    }

    /// The keys were read again. Returns the connections and clients that were heard by a key that may no more, by `may`.
    pub fn renew(&self, keys: &AccessKeys, may: impl Fn(u64, &str, &Session) -> bool) -> Vec<(u64, String)> {
        let mut sessions = self.keys.sessions.borrow_mut();
        sessions.values_mut().for_each(|session| session.renew(keys));
        let stays = |number, client: &str, session: &Session| {
            session.denial().is_none() && may(number, client, session)
        };
        let denied = sessions.iter().filter(|((number, client), session)| !stays(*number, client, session));
        denied.map(|(heard, _)| heard.clone()).collect()
    }

    /// A connection over which a client was heard has ended.
    fn disconnected(&self, client: &str, number: u64) {
        self.keys.forget(number, client);
        self.sessions.disconnected(client, number);
        if !self.sessions.is_connected(client) {
            self.sessions.end(client);
        }
    }
}

impl HeardKeys {
    /// A client was heard over a connection, by its holder's key.
    fn note(&self, number: u64, client: &str, session: Session) {
        if !session.is_open() {
            self.sessions.borrow_mut().insert((number, client.to_owned()), session);
        }
    }

    /// Whether the key allows something. It is renewed as soon as the keys are.
    fn allow(&self, number: u64, client: &str, may: impl FnOnce(&Session) -> bool) -> bool {
        let sessions = self.sessions.borrow();
        sessions.get(&(number, client.to_owned())).is_some_and(may)
    }

    fn forget(&self, number: u64, client: &str) {
        self.sessions.borrow_mut().remove(&(number, client.to_owned()));
    }
}

impl Heard {
    pub fn new(memory: &ClientMemory) -> Self {
        Self { clients: BTreeSet::new(), memory: memory.count(Account::Members, 0) }
    }

    pub fn clients(&self) -> impl Iterator<Item = &str> {
        self.clients.iter().map(String::as_str)
    }

    /// Room for one more client; false when there is none.
    fn reserve(&mut self, client: &str, memory: &ClientMemory) -> bool {
        if self.clients.contains(client) {
            return true;
        }
        if self.clients.len() >= limits::REMOTING_CONNECTION_CLIENTS_MAX {
            return false;
        }
        // Its name stands in several tables.
        let bytes = 3 * (client.len() + ENTRY_BYTES);
        let Some(more) = memory.budget(Account::Members).try_reserve(bytes) else { return false };
        self.memory.merge(more);
        self.clients.insert(client.to_owned());
        true
    }
}

impl Remoting {
    /// Takes what a client says of itself. What is new in it is answered when all shards know.
    pub(super) async fn heartbeat(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        header: &Header<'_>,
        body: &[u8],
    ) -> Result<Option<Answer>, Refused> {
        let heartbeat = read_heartbeat(body)?;
        self.check_heartbeat(sender, &heartbeat).map_err(Refused::failed)?;
        let (id, number) = (heartbeat.client.clone(), self.connection.id);
        let client = self.reader_client(heartbeat, header)?;
        if !self.note_client(&id) {
            return Err(Refused::new(
                ResponseCode::SystemBusy,
                "this broker knows as many clients as it may",
            ));
        }
        self.port().clients.keys.note(number, &id, sender.session());
        let broker = self.connections.broker.clone();
        let heard = broker.hear_reader(number, &id, &self.born.to_string(), client);
        let HeardReader { is_known, mut withheld } = heard.map_err(Refused::failed)?;
        if is_known {
            return heard_answer(&withheld).map(Some);
        }
        let told = async move {
            withheld.extend(broker.tell_reader(number, &id).await.map_err(Refused::failed)?);
            heard_answer(&withheld)
        };
        self.begin(asker, told).await
    }

    /// False when there is no room for the client.
    fn note_client(&self, client: &str) -> bool {
        let has_room = self.heard.borrow_mut().reserve(client, &self.connections.memory);
        has_room && self.port().clients.sessions.heard(client, self.connection.id, &self.client)
    }

    /// Whether the client was heard over this connection.
    pub(super) fn heard_client(&self, client: &str) -> bool {
        self.heard.borrow().clients.contains(client)
    }

    /// What a client reads and produces as, in the broker's words.
    fn reader_client(&self, heartbeat: Heartbeat, header: &Header<'_>) -> Result<ReaderClient, Refused> {
        let before = match heartbeat.lacks_subscriptions {
            true => self.connections.broker.reader_groups(self.connection.id, &heartbeat.client),
            false => Vec::new(),
        };
        let mut groups = BTreeMap::new();
        for consumer in heartbeat.consumers {
            let group = consumer_group(&consumer.group).map_err(|error| {
                let remark = format!("`{}` is no name of a consumer group: {error}", consumer.group);
                Refused::new(ResponseCode::SystemError, remark)
            })?;
            let known = before.iter().find(|known| known.group == group);
            groups.insert(group.clone(), reader_group(group, consumer, known));
        }
        let groups: Vec<_> = groups.into_values().collect();
        // Nothing is ever asked of a producer whose group has no name that there can be.
        let named: BTreeSet<_> = heartbeat.producers.iter().filter_map(|group| group.parse().ok()).collect();
        let produces = named.into_iter().collect();
        let client =
            ReaderClient { language: header.language.name(), version: header.version, groups, produces };
        check_size(&client)?;
        Ok(client)
    }

    /// Tells a client that is about to consume whether its expression is understood
    /// (`broker/.../processor/ClientManageProcessor.java`, `checkClientConfig`).
    pub(super) fn check_client(&self, sender: &Sender, body: &[u8]) -> Result<Answer, Refused> {
        let refused = |remark| Refused::new(ResponseCode::SystemError, remark);
        let asked =
            ClientCheck::read(body).map_err(|error| refused(format!("the body is no JSON: {error}")))?;
        let Some(ClientCheck { group, subscription }) = asked else {
            self.check_group(sender, None).map_err(Refused::failed)?;
            return Ok(Answer::done());
        };
        self.check_consumer(sender, &subscription.topic, &group)?;
        let read = |text: &str| self.port().expressions.read(text);
        let checked = match subscription.kind.as_str() {
            // Tags mean something whatever they are, and have not been looked at.
            "" | TAG => return Ok(Answer::done()),
            kind => read_subscription(&subscription.expression, kind, read),
        };
        match checked {
            Ok(_) => Ok(Answer::done()),
            Err(refusal) => Err(Refused::new(ResponseCode::SubscriptionParseFailed, refusal.remark)),
        }
    }

    /// A client leaves a group that it consumes or produces as, or one of each, everywhere.
    pub(super) async fn unregister_client(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        header: &Header<'_>,
    ) -> Result<Option<Answer>, Refused> {
        let client = header.fields.required_text("clientID")?.into_owned();
        let group = header.fields.text("consumerGroup");
        self.check_group(sender, group.as_ref()).map_err(Refused::failed)?;
        // Nobody takes others off: the client was heard over this connection.
        let is_heard = self.heard_client(&client);
        let named = |name: Option<Cow<'_, str>>| name.and_then(|name| name.parse::<GroupName>().ok());
        let left = LeftGroups { reads: named(group), produces: named(header.fields.text("producerGroup")) };
        if !is_heard || left == LeftGroups::default() {
            return Ok(Some(Answer::done()));
        }
        let broker = self.connections.broker.clone();
        // Before what the client says next, which may be that it is of the group again.
        broker.hear_reader_leave(&client, &left).map_err(Refused::failed)?;
        let gone = async move {
            broker.reader_left(&client, &left).await.map_err(Refused::failed)?;
            Ok(Answer::done())
        };
        self.begin(asker, gone).await
    }

    pub(super) fn consumer_list(&self, sender: &Sender, header: &Header<'_>) -> Result<Answer, Refused> {
        let group = header.fields.required_text("consumerGroup")?;
        self.check_group(sender, Some(&group)).map_err(Refused::failed)?;
        let members =
            group.parse().map_or_else(|_| Vec::new(), |group| self.connections.broker.readers_of(&group));
        if members.is_empty() {
            let remark = format!("no consumer for this group, {group}");
            return Err(Refused::new(ResponseCode::SystemError, remark));
        }
        Ok(Answer::body(|output| write_client_ids(members.iter().map(String::as_str), output)))
    }

    /// The connection has ended.
    pub(super) fn forget_clients(&self) {
        let heard = self.heard.replace(Heard::new(&self.connections.memory));
        let (broker, number) = (self.connections.broker.clone(), self.connection.id);
        heard.clients.iter().for_each(|client| self.port().clients.disconnected(client, number));
        let gone = async move {
            for client in &heard.clients {
                broker.reader_gone(number, client).await;
            }
        };
        glommio::spawn_local(gone).detach();
    }
}

/// What is the members' is told; the rest of the heartbeat counts.
fn heard_answer(withheld: &[GroupName]) -> Result<Answer, Refused> {
    let Some(group) = withheld.first() else { return Ok(Answer::done()) };
    let remark = format!(
        "group {group} is consumed by native members, which own their queues: consume as another group, or stop them, and wait \
         30 s where the broker was started just now"
    );
    Err(Refused::new(ResponseCode::SystemError, remark))
}

fn read_heartbeat(body: &[u8]) -> Result<Heartbeat, Refused> {
    let refused = |remark: String| Refused::new(ResponseCode::SystemError, remark);
    let heartbeat =
        Heartbeat::read(body).map_err(|error| refused(format!("the heartbeat is no JSON: {error}")))?;
    let heartbeat =
        heartbeat.filter(|heartbeat| heartbeat.client.len() <= limits::REMOTING_CLIENT_ID_BYTES_MAX);
    heartbeat.ok_or_else(|| refused("the heartbeat names no client, or one with too long an id".to_owned()))
}

/// A group as its client says it; `known` has the subscriptions of one that says the others only.
fn reader_group(group: GroupName, consumer: Consumer, known: Option<&ReaderGroup>) -> ReaderGroup {
    let mode = match consumer.model {
        "BROADCASTING" => ReaderMode::Broadcasting,
        _ => ReaderMode::Clustering,
    };
    let said = consumer.subscriptions.into_iter().map(|said| Subscription {
        topic: said.topic,
        expression: said.expression,
        kind: said.kind,
        version: said.version,
    });
    let before = known.into_iter().flat_map(|known| known.subscriptions.clone());
    let by_topic: BTreeMap<_, _> = before.chain(said).map(|said| (said.topic.clone(), said)).collect();
    let (kind, start) = (consumer.kind, consumer.start);
    ReaderGroup { group, mode, kind, start, subscriptions: by_topic.into_values().collect() }
}

/// Refuses what nobody would keep for a client.
fn check_size(client: &ReaderClient) -> Result<(), Refused> {
    let groups = &client.groups;
    for (does, count) in [("consumes", groups.len()), ("produces", client.produces.len())] {
        if count > limits::REMOTING_CLIENT_GROUPS_MAX {
            let most = limits::REMOTING_CLIENT_GROUPS_MAX;
            let remark = format!("a client {does} as {most} groups at most, not as {count}");
            return Err(Refused::new(ResponseCode::SystemBusy, remark));
        }
    }
    let subscriptions = || groups.iter().flat_map(|group| &group.subscriptions);
    let bytes: usize = subscriptions().map(|of| of.topic.len() + of.expression.len() + of.kind.len()).sum();
    if subscriptions().count() > limits::REMOTING_CLIENT_SUBSCRIPTIONS_MAX
        || bytes > limits::REMOTING_CLIENT_SUBSCRIPTION_BYTES_MAX
    {
        let remark = format!(
            "a client has {} subscriptions of {} bytes together at most",
            limits::REMOTING_CLIENT_SUBSCRIPTIONS_MAX,
            limits::REMOTING_CLIENT_SUBSCRIPTION_BYTES_MAX
        );
        return Err(Refused::new(ResponseCode::SystemBusy, remark));
    }
    Ok(())
}
