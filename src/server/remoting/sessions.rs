//! Who is connected to this shard over RocketMQ's protocol: clients by their ids, and the groups that they are of
//! (`broker/.../client/ConsumerManager.java`, `ProducerManager.java`). Each client tells every broker that it knows of, so a
//! shard knows all that concern it.
//!
//! 1. A client is in `groups` as long as `sessions` has it, and no longer than it says so.
//! 2. What is kept of a client is counted, and paid for by the connections over which it was heard; it goes with them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use super::answer::Answer;
use super::connection::Remoting;
use super::requests::Refused;
use super::signed::Sender;
use crate::clock::SharedClock;
use crate::limits;
use crate::protocol::remoting::body::{Heartbeat, write_client_ids};
use crate::protocol::remoting::{Head, Header, HeaderForm, ResponseCode};
use crate::server::context::OUTBOX_PAUSE_BYTES;
use crate::server::sessions::{ClientConnection, ClientSessions, Connection, SessionTerms};
use crate::types::{Account, ClientMemory, Reservation};

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
#[derive(Clone, Debug)]
pub(crate) struct ClientRequest {
    pub code: i32,
    pub group: String,
}

/// One connection as the way to a client.
pub(crate) struct RemotingClient {
    connection: Rc<Connection>,
}

/// The clients of a shard.
pub(crate) struct RemotingClients {
    sessions: ClientSessions<RemotingClient, ()>,
    /// The clients that consume as a group, and over how many connections they have said so.
    groups: RefCell<BTreeMap<String, BTreeMap<String, usize>>>,
}

/// The clients that were heard of over one connection, and what they have of the shard's memory.
pub(super) struct Heard {
    /// The groups that each consumes as.
    clients: BTreeMap<String, BTreeSet<String>>,
    memory: Reservation,
}

impl RemotingClient {
    pub fn new(connection: &Rc<Connection>) -> Rc<Self> {
        Rc::new(Self { connection: connection.clone() })
    }
}

impl ClientConnection for RemotingClient {
    type Request = ClientRequest;

    fn send(&self, number: Option<u64>, request: &ClientRequest) -> bool {
        let outbox = &self.connection.outbox;
        if !self.connection.is_here() || outbox.bytes() > OUTBOX_PAUSE_BYTES {
            return false;
        }
        let fields = [("consumerGroup", crate::protocol::remoting::FieldValue::Text(&request.group))];
        let opaque = number.map_or(0, |number| number as i32);
        let head = Head { fields: &fields, ..Head::one_way(request.code, opaque) };
        // Every client reads this form.
        outbox.push_with(|output| head.write(HeaderForm::Json, b"", output));
        true
    }
}

impl RemotingClients {
    pub fn new(clock: SharedClock) -> Self {
        Self { sessions: ClientSessions::new(clock, TERMS), groups: RefCell::default() }
    }

    /// A client consumes as these groups, over a connection over which it consumed as `before`.
    fn change_groups(&self, client: &str, before: &BTreeSet<String>, now: &BTreeSet<String>) {
        let mut groups = self.groups.borrow_mut();
        for group in now.difference(before) {
            *groups.entry(group.clone()).or_default().entry(client.to_owned()).or_default() += 1;
        }
        for group in before.difference(now) {
            let Some(members) = groups.get_mut(group) else { continue };
            if let Some(count) = members.get_mut(client) {
                *count -= 1;
            }
            members.retain(|_, count| *count > 0);
            if members.is_empty() {
                groups.remove(group);
            }
        }
    }

    /// A connection over which a client was heard has ended.
    fn disconnected(&self, client: &str, groups: &BTreeSet<String>, number: u64) {
        self.change_groups(client, groups, &BTreeSet::new());
        self.sessions.disconnected(client, number);
        if !self.sessions.is_connected(client) {
            self.sessions.end(client);
        }
    }

    pub fn end_overdue(&self) {
        let ended = self.sessions.end_overdue();
        if ended.is_empty() {
            return;
        }
        self.groups.borrow_mut().retain(|_, members| {
            members.retain(|client, _| !ended.contains(client));
            !members.is_empty()
        });
    }

    /// The clients of a group, in the order of their ids.
    fn members(&self, group: &str) -> Vec<String> {
        self.groups.borrow().get(group).map(|members| members.keys().cloned().collect()).unwrap_or_default()
    }
}

impl Heard {
    pub fn new(memory: &ClientMemory) -> Self {
        Self { clients: BTreeMap::new(), memory: memory.count(Account::Members, 0) }
    }

    /// Room for what a client says; false when there is none.
    fn reserve(&mut self, heartbeat: &Heartbeat, memory: &ClientMemory) -> bool {
        let is_new = !self.clients.contains_key(&heartbeat.client);
        if (is_new && self.clients.len() >= limits::REMOTING_CONNECTION_CLIENTS_MAX)
            || heartbeat.consumers.len() > limits::REMOTING_CLIENT_GROUPS_MAX
        {
            return false;
        }
        let others = self.clients.iter().filter(|(client, _)| **client != heartbeat.client);
        let of_others: usize =
            others.map(|(client, groups)| client_bytes(client, groups.iter().map(String::as_str))).sum();
        let groups = heartbeat.consumers.iter().map(|consumer| consumer.group.as_str());
        let bytes = of_others + client_bytes(&heartbeat.client, groups);
        let missing = bytes.saturating_sub(self.memory.bytes());
        if missing > 0 {
            let Some(more) = memory.budget(Account::Members).try_reserve(missing) else { return false };
            self.memory.merge(more);
        }
        self.memory.set(bytes);
        true
    }
}

/// What is kept of a client and its groups: both names stand in several tables.
fn client_bytes<'a>(client: &str, groups: impl Iterator<Item = &'a str>) -> usize {
    let of_group = |group: &str| 2 * (group.len() + ENTRY_BYTES) + client.len();
    3 * (client.len() + ENTRY_BYTES) + groups.map(of_group).sum::<usize>()
}

impl Remoting {
    pub(super) fn heartbeat(&self, sender: &Sender, body: &[u8]) -> Result<Answer, Refused> {
        let heartbeat = Heartbeat::read(body).map_err(|error| {
            Refused::new(ResponseCode::SystemError, format!("the heartbeat is no JSON: {error}"))
        })?;
        let heartbeat = heartbeat
            .filter(|heartbeat| heartbeat.client.len() <= limits::REMOTING_CLIENT_ID_BYTES_MAX)
            .ok_or_else(|| {
                Refused::new(
                    ResponseCode::SystemError,
                    "the heartbeat names no client, or one with too long an id",
                )
            })?;
        self.check_heartbeat(sender, &heartbeat).map_err(Refused::failed)?;
        if let Some(group) =
            heartbeat.consumers.iter().map(|consumer| &consumer.group).find(|group| !is_group(group))
        {
            let remark = format!("`{group}` is no name of a consumer group");
            return Err(Refused::new(ResponseCode::SystemError, remark));
        }
        if !self.note_client(&heartbeat) {
            return Err(Refused::new(
                ResponseCode::SystemBusy,
                "this broker knows as many clients as it may",
            ));
        }
        Ok(Answer::done())
    }

    /// False when there is no room for the client or its groups.
    fn note_client(&self, heartbeat: &Heartbeat) -> bool {
        let mut heard = self.heard.borrow_mut();
        if !heard.reserve(heartbeat, &self.connections.memory) {
            return false;
        }
        let clients = &self.port().clients;
        // One whose time was over is in no group any more.
        let was_there = clients.sessions.is_connected(&heartbeat.client);
        if !clients.sessions.heard(&heartbeat.client, self.connection.id, &self.client) {
            return false;
        }
        let groups = heartbeat.consumers.iter().map(|consumer| consumer.group.clone()).collect();
        let before = heard.clients.remove(&heartbeat.client).filter(|_| was_there).unwrap_or_default();
        clients.change_groups(&heartbeat.client, &before, &groups);
        heard.clients.insert(heartbeat.client.clone(), groups);
        true
    }

    pub(super) fn unregister_client(&self, sender: &Sender, header: &Header<'_>) -> Result<Answer, Refused> {
        let client = header.fields.required_text("clientID")?;
        let group = header.fields.text("consumerGroup");
        self.check_group(sender, group.as_ref()).map_err(Refused::failed)?;
        // Nobody takes others off: the client was heard over this connection.
        if let Some(group) = group
            && let Some(groups) = self.heard.borrow_mut().clients.get_mut(&*client)
        {
            let before = groups.clone();
            groups.remove(&*group);
            self.port().clients.change_groups(&client, &before, groups);
        }
        Ok(Answer::done())
    }

    pub(super) fn consumer_list(&self, sender: &Sender, header: &Header<'_>) -> Result<Answer, Refused> {
        let group = header.fields.required_text("consumerGroup")?;
        self.check_group(sender, Some(&group)).map_err(Refused::failed)?;
        let members = self.port().clients.members(&group);
        if members.is_empty() {
            let remark = format!("no consumer for this group, {group}");
            return Err(Refused::new(ResponseCode::SystemError, remark));
        }
        Ok(Answer::body(|output| write_client_ids(members.iter().map(String::as_str), output)))
    }

    /// The connection has ended.
    pub(super) fn forget_clients(&self) {
        let heard = self.heard.replace(Heard::new(&self.connections.memory));
        for (client, groups) in &heard.clients {
            self.port().clients.disconnected(client, groups, self.connection.id);
        }
    }
}

fn is_group(name: &str) -> bool {
    name.parse::<crate::types::GroupName>().is_ok()
}
