//! What a client says to one shard comes to all of them before it is answered: so whichever shard it asks next knows it, and
//! names it among its group's members. RocketMQ's clients give up their queues when they are not in that list.
//!
//! 1. The control shard hears of a change before the other shards, so that each change of a group is found by one of them.
//! 2. The members of a group are told of a change when all shards know it: whichever of them they ask then has it.
//! 3. One word of this shard's is on its way at a time, the newest one of a client and a connection: none overtakes another.
//! 4. What a shard could not be told is told later: see [`retell_readers`](Broker::retell_readers).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use futures_util::future::join_all;

use super::members::Readers;
use super::precedence::Precedence;
use super::questions::QuestionNotice;
use super::replies::ReplyNotice;
use crate::api::{
    ClientQuestion, ConnectionId, Failure, GroupClient, LeftGroups, Producer, ReaderClient, ReaderGroup,
    ReplyMessage, Status, Subscription,
};
use crate::broker::client_requests::{CONTROL_SHARD, unexpected};
use crate::broker::groups::Gate;
use crate::broker::hold::ProducerNotice;
use crate::broker::peers::{PeerReply, PeerRequest};
use crate::broker::shard_broker::Broker;
use crate::broker::shares::SharedBytes;
use crate::disk::Disk;
use crate::types::{Account, GroupName, QueueKey, Reservation, ShardId, TaskMutex, TopicName};

/// Tells a client, over a connection of this shard, that a group of its has other members.
pub type MembersNotice = Rc<dyn Fn(&str, &GroupName)>;

/// A connection of this shard and a client that was heard over it.
type Word = (u64, String);

/// What was said, and from where.
type Said = (Box<ReaderClient>, String);

/// What one shard tells another of clients.
#[derive(Clone, Debug)]
pub enum ReaderNews {
    /// What one has said over a connection of the asking shard, and from where; `None`: that is over.
    Said { client: String, connection: ConnectionId, said: Option<Said> },
    /// It leaves groups, whichever shards it is connected to.
    Left { client: String, left: LeftGroups },
    /// Which of these groups does the shard expect members of?
    Expected(Vec<GroupName>),
    /// All shards know that these groups have other clients, or read other topics: theirs are to be told.
    Changed(Vec<GroupName>),
    /// A reply for a client of the shard asked.
    Reply { client: String, reply: Box<ReplyMessage> },
    /// A question to such a client.
    Question { client: String, question: Box<ClientQuestion> },
}

/// What became of a client's word on the shard that it was said to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeardReader {
    /// Whether all shards know it.
    pub is_known: bool,
    /// The groups that were left out of it, because they are native members'.
    pub withheld: Vec<GroupName>,
}

/// What is still to be told to other shards.
#[derive(Default)]
pub(in crate::broker) struct Spreading {
    one_at_a_time: TaskMutex,
    /// Connections of this shard and their clients, with the groups of which a change was found already.
    untold: RefCell<BTreeMap<Word, BTreeSet<GroupName>>>,
    notice: RefCell<Option<MembersNotice>>,
    /// How producers that are connected to this shard are asked.
    pub(in crate::broker) producer_notice: RefCell<Option<ProducerNotice>>,
    /// How they are handed replies.
    pub(super) reply_notice: RefCell<Option<ReplyNotice>>,
    /// How clients that are connected to this shard are asked.
    pub(super) question_notice: RefCell<Option<QuestionNotice>>,
    /// Which groups are members'.
    pub(super) precedence: Precedence,
}

impl<D: Disk> Broker<D> {
    /// Sets how clients are told.
    pub fn set_members_notice(&self, notice: MembersNotice) {
        *self.spreading.notice.borrow_mut() = Some(notice);
    }

    /// How clients are told, once that is known.
    pub(in crate::broker) fn members_notice(&self) -> Option<MembersNotice> {
        self.spreading.notice.borrow().clone()
    }

    /// A client has said over a connection of this shard what it reads, and produces as: this shard knows it from now on. Unless all
    /// do, [`tell_reader`](Broker::tell_reader) has it told.
    pub fn hear_reader(
        &self,
        connection: u64,
        id: &str,
        address: &str,
        mut client: ReaderClient,
    ) -> Result<HeardReader, Failure> {
        let withheld = self.withhold(id, address, &mut client);
        let word = (connection, id.to_owned());
        let at = self.reader_connection(connection);
        let client = (!client.is_of_no_group()).then_some(client);
        let is_known = self.readers.borrow().said(id, at).map(|(known, _)| &**known) == client.as_ref();
        if !is_known {
            let changed = self.take_word(id, at, address, client)?;
            self.note_taken(&word, changed);
        }
        let is_known = !self.spreading.untold.borrow().contains_key(&word);
        Ok(HeardReader { is_known, withheld })
    }

    /// Has all shards told what a client has said. On return they know. Returns the groups that were left out of it on the way.
    pub async fn tell_reader(&self, connection: u64, id: &str) -> Result<Vec<GroupName>, Failure> {
        let word = (connection, id.to_owned());
        let told = self.tell_word(&word).await;
        if told.is_err() {
            // It says it again, and what some shards know by then goes from them.
            self.forget_word(&word);
        }
        told
    }

    /// A client's connection has ended, or its time is over.
    pub async fn reader_gone(&self, connection: u64, id: &str) {
        let word = (connection, id.to_owned());
        self.forget_word(&word);
        let _ = self.tell_word(&word).await;
    }

    /// A client leaves groups, in what it has said over connections of this shard: it has from now on. What it says afterwards
    /// counts. [`reader_left`](Broker::reader_left) has it told, and takes it out over the other shards' connections.
    pub fn hear_reader_leave(&self, id: &str, left: &LeftGroups) -> Result<(), Failure> {
        for (connection, address, client) in self.words_of(id) {
            if let Some(rest) = client.without(left) {
                self.hear_reader(connection, id, &address, rest)?;
            }
        }
        Ok(())
    }

    /// A client has left groups, as this shard has heard: it leaves them over all of its connections. On return all shards know.
    pub async fn reader_left(&self, id: &str, left: &LeftGroups) -> Result<(), Failure> {
        self.give_up_locks_of(left, id).await;
        self.tell_words_of(id).await?;
        let own = self.options.shard;
        let shards = (0..self.options.shard_count).map(ShardId).filter(|shard| *shard != own);
        let peers = self.peers()?;
        let asked = shards.map(|shard| {
            peers.ask(
                shard,
                PeerRequest::Readers(ReaderNews::Left { client: id.to_owned(), left: left.clone() }),
            )
        });
        join_all(asked).await.into_iter().try_for_each(|answer| answer.map(drop))
    }

    /// Another shard has heard that a client leaves groups.
    async fn reader_left_here(&self, id: &str, left: &LeftGroups) -> Result<PeerReply, Failure> {
        self.hear_reader_leave(id, left)?;
        self.give_up_locks_of(left, id).await;
        self.tell_words_of(id).await?;
        Ok(PeerReply::Done)
    }

    /// Has all shards told what is new of a client over connections of this shard.
    async fn tell_words_of(&self, id: &str) -> Result<(), Failure> {
        let is_its = |(_, client): &&Word| client == id;
        let words: Vec<_> = self.spreading.untold.borrow().keys().filter(is_its).cloned().collect();
        for (connection, id) in words {
            self.tell_reader(connection, &id).await?;
        }
        Ok(())
    }

    /// What a client has said over connections of this shard.
    fn words_of(&self, id: &str) -> Vec<(u64, String, Rc<ReaderClient>)> {
        let readers = self.readers.borrow();
        let words = readers.words(id).filter(|(connection, ..)| connection.shard == self.options.shard);
        words
            .map(|(connection, client, address)| (connection.number, address.to_owned(), client.clone()))
            .collect()
    }

    /// The connections of this shard over which a client has said what it reads.
    pub fn reader_connections(&self, id: &str) -> Vec<u64> {
        self.words_of(id).into_iter().map(|(connection, ..)| connection).collect()
    }

    /// What a client has said over a connection of this shard.
    pub fn reader_groups(&self, connection: u64, id: &str) -> Vec<ReaderGroup> {
        let readers = self.readers.borrow();
        let said = readers.said(id, self.reader_connection(connection));
        said.map(|(client, _)| client.groups.clone()).unwrap_or_default()
    }

    fn reader_connection(&self, number: u64) -> ConnectionId {
        ConnectionId { shard: self.options.shard, number }
    }

    fn note_untold(&self, word: &Word, changed: impl IntoIterator<Item = GroupName>) {
        let mut untold = self.spreading.untold.borrow_mut();
        untold.entry(word.clone()).or_default().extend(changed);
    }

    /// Takes note of what was taken here. The control shard finds the changes.
    fn note_taken(&self, word: &Word, changed: BTreeSet<GroupName>) {
        let found = if self.options.shard == CONTROL_SHARD { changed } else { BTreeSet::new() };
        self.note_untold(word, found);
    }

    fn forget_word(&self, word: &Word) {
        let connection = self.reader_connection(word.0);
        if self.readers.borrow().said(&word.1, connection).is_some() {
            let changed = self.take_word(&word.1, connection, "", None);
            self.note_taken(word, changed.unwrap_or_default());
        }
    }

    /// Takes what a client has said, here; `None`: it is gone. Returns the groups that have changed.
    fn take_word(
        &self,
        id: &str,
        connection: ConnectionId,
        address: &str,
        client: Option<ReaderClient>,
    ) -> Result<BTreeSet<GroupName>, Failure> {
        let before = self.readers.borrow().said(id, connection).map(|(client, _)| client.clone());
        let mut topics: BTreeSet<String> = BTreeSet::new();
        let words = before.as_deref().into_iter().chain(&client);
        topics.extend(words.flat_map(Readers::shared_topics).map(str::to_owned));
        let changed = match client {
            Some(client) => {
                let memory = self.reserve_word(id, connection, address, &client)?;
                let produces = !client.produces.is_empty();
                let changed = self.readers.borrow_mut().set(id, connection, address, client, memory);
                // There may be something to ask it.
                if produces {
                    self.halves_changed.wake();
                }
                changed
            }
            None => self.readers.borrow_mut().remove(id, connection),
        };
        // Those who receive them look again what they may have.
        for topic in topics.iter().filter_map(|name| name.parse::<TopicName>().ok()) {
            let found = self.tables().topic_named(&topic).map(|topic| topic.id);
            found.into_iter().for_each(|id| self.announce(id));
        }
        Ok(changed)
    }

    /// Memory for what a client has said; the shard that it was said to sees to it that others have room as well.
    fn reserve_word(
        &self,
        id: &str,
        connection: ConnectionId,
        address: &str,
        client: &ReaderClient,
    ) -> Result<Reservation, Failure> {
        let readers = self.readers.borrow();
        let bytes = readers.entry_bytes(id, address, client);
        let budget = self.memory.budget(Account::Members);
        let before = readers.kept(id, connection);
        if bytes <= before {
            // What it takes the place of goes.
            return Ok(budget.count(bytes));
        }
        let own = readers.kept_of(address).saturating_sub(before);
        let share = SharedBytes { bytes_max: budget.bytes_max(), used: budget.bytes() - before };
        let is_owed = connection.shard != self.options.shard || share.takes(own, bytes);
        let refused = || {
            let message = format!(
                "client {id:?} at {address} is not taken up: {bytes} bytes of groups and subscriptions are more than is left \
                 for its address, of whose clients {own} bytes are kept, and {} of all clients, of {}: stop some, or give the \
                 broker more --client-memory",
                share.used, share.bytes_max
            );
            let failure = Failure::new(Status::Busy, message);
            self.metrics.heartbeats_refused.add(1);
            self.note_refusal(&failure);
            failure
        };
        is_owed.then(|| budget.try_reserve(bytes)).flatten().ok_or_else(refused)
    }

    /// Tells the others what stands here of a client and a connection, if they do not know it, and then the groups' clients.
    /// Returns the groups that were left out because they are members'.
    async fn tell_word(&self, word: &Word) -> Result<Vec<GroupName>, Failure> {
        let _one = self.spreading.one_at_a_time.lock().await;
        if let Some(Some((client, _))) = self.untold(word) {
            self.learn_expected(&client).await?;
        }
        let mut withheld = self.withhold_from(word, &[])?;
        let Some(mut said) = self.untold(word) else { return Ok(withheld) };
        let peers = self.peers()?;
        if self.options.shard != CONTROL_SHARD {
            let (changed, members) = match peers.ask(CONTROL_SHARD, self.news(word, said.clone())).await? {
                PeerReply::ReadersChanged { changed, withheld } => (changed, withheld),
                other => return Err(unexpected(&other)),
            };
            self.note_untold(word, changed);
            withheld.extend(self.withhold_from(word, &members)?);
            if let Some((client, address)) = &mut said {
                client.leave_out(|group| members.contains(group));
                self.note_turned_away(&word.1, address, &members);
            }
            withheld.extend(members);
        }
        let said = said.filter(|(client, _)| !client.is_of_no_group());
        let shards = || (0..self.options.shard_count).map(ShardId);
        let others = shards().filter(|shard| *shard != CONTROL_SHARD && *shard != self.options.shard);
        let asked = others.map(|shard| peers.ask(shard, self.news(word, said.clone())));
        join_all(asked).await.into_iter().try_for_each(|answer| answer.map(drop))?;
        let told = said.as_ref().map(|(client, _)| &**client);
        told.into_iter().for_each(|client| self.note_taken_over(client));
        let changed: Vec<_> = self.note_told(word, told).into_iter().collect();
        if !changed.is_empty() {
            // Who is not told of a change finds it within half a minute.
            join_all(
                shards().map(|shard| {
                    peers.ask(shard, PeerRequest::Readers(ReaderNews::Changed(changed.clone())))
                }),
            )
            .await;
        }
        Ok(withheld)
    }

    /// What stands here of a client and a connection, if some shard does not know it.
    fn untold(&self, word: &Word) -> Option<Option<Said>> {
        self.spreading.untold.borrow().contains_key(word).then(|| self.said_here(word))
    }

    fn said_here(&self, word: &Word) -> Option<Said> {
        let readers = self.readers.borrow();
        let said = readers.said(&word.1, self.reader_connection(word.0));
        said.map(|(client, address)| (Box::new((**client).clone()), address.to_owned()))
    }

    fn news(&self, word: &Word, said: Option<Said>) -> PeerRequest {
        let (client, connection) = (word.1.clone(), self.reader_connection(word.0));
        PeerRequest::Readers(ReaderNews::Said { client, connection, said })
    }

    /// Takes these groups out of what a client has said, and those that have turned out to be members' since it was heard, which
    /// are returned.
    fn withhold_from(&self, word: &Word, groups: &[GroupName]) -> Result<Vec<GroupName>, Failure> {
        let Some((mut client, address)) = self.said_here(word) else { return Ok(Vec::new()) };
        client.leave_out(|group| groups.contains(group));
        Ok(self.hear_reader(word.0, &word.1, &address, *client)?.withheld)
    }

    /// All have been told this, but it may have changed meanwhile. Returns the groups that have other members by it.
    fn note_told(&self, word: &Word, told: Option<&ReaderClient>) -> BTreeSet<GroupName> {
        let readers = self.readers.borrow();
        let now = readers.said(&word.1, self.reader_connection(word.0)).map(|(client, _)| &**client);
        let mut untold = self.spreading.untold.borrow_mut();
        let changed = untold.get_mut(word).map(std::mem::take).unwrap_or_default();
        if now == told {
            untold.remove(word);
        }
        changed
    }

    /// Carries out what another shard tells of clients.
    pub(in crate::broker) async fn hear_of_readers(&self, news: ReaderNews) -> Result<PeerReply, Failure> {
        match news {
            ReaderNews::Said { client, connection, said } => self.reader_said(&client, connection, said),
            ReaderNews::Left { client, left } => self.reader_left_here(&client, &left).await,
            ReaderNews::Expected(groups) => Ok(self.expected_here(groups)),
            ReaderNews::Changed(groups) => Ok(self.notify_readers(&groups)),
            ReaderNews::Reply { client, reply } => {
                Ok(PeerReply::ReplyDelivered(self.deliver_reply_here(client, reply).await))
            }
            ReaderNews::Question { client, question } => {
                let outcome = self.ask_client_here(client, question).await;
                Ok(PeerReply::ClientAnswered(Box::new(outcome)))
            }
        }
    }

    fn reader_said(
        &self,
        id: &str,
        connection: ConnectionId,
        said: Option<Said>,
    ) -> Result<PeerReply, Failure> {
        let (mut client, address) =
            said.map_or((None, String::new()), |(client, address)| (Some(*client), address));
        // What members want as well, the control shard decides: from here on nobody joins a group that is read.
        let withheld = match &mut client {
            Some(client) if self.options.shard == CONTROL_SHARD => self.withhold(id, &address, client),
            _ => Vec::new(),
        };
        let client = client.filter(|client| !client.is_of_no_group());
        client.iter().for_each(|client| self.note_taken_over(client));
        let changed = self.take_word(id, connection, &address, client)?.into_iter().collect();
        Ok(PeerReply::ReadersChanged { changed, withheld })
    }

    /// Tells the clients that this shard speaks to, of groups that have other members.
    fn notify_readers(&self, groups: &[GroupName]) -> PeerReply {
        let Some(notice) = self.members_notice() else { return PeerReply::Done };
        for group in groups {
            let members = self.readers.borrow().members_of_shard(group, self.options.shard);
            members.iter().for_each(|client| notice(client, group));
        }
        PeerReply::Done
    }

    /// Whether a shard could not be told something.
    pub fn has_untold_readers(&self) -> bool {
        !self.spreading.untold.borrow().is_empty()
    }

    /// Tells what a shard could not be told before. To be called about once a second, while there is something.
    pub async fn retell_readers(&self) {
        let words: Vec<_> = self.spreading.untold.borrow().keys().cloned().collect();
        for word in words {
            if self.tell_word(&word).await.is_err() {
                return;
            }
        }
    }

    /// Whether a client reads for a group.
    pub fn is_reader(&self, group: &GroupName, id: &str) -> bool {
        self.readers.borrow().has_client(group, id)
    }

    /// The clients that read for a group, in the order of their ids.
    pub fn readers_of(&self, group: &GroupName) -> Vec<String> {
        self.readers.borrow().members(group)
    }

    /// Who produces as a group, on whatever shard; a client over each of its connections.
    pub fn producers_of(&self, group: &GroupName) -> Vec<Producer> {
        self.readers.borrow().producers(group).collect()
    }

    /// The groups that somebody produces as.
    pub fn producer_groups(&self) -> Vec<GroupName> {
        self.readers.borrow().producer_groups().cloned().collect()
    }

    /// The next one of them to be asked something, after `last`: of those connected to this shard, where there are any. It is
    /// asked by its id, on the shard that its connection names.
    pub fn next_producer(&self, group: &GroupName, last: Option<&Producer>) -> Option<Producer> {
        self.readers.borrow().producer_after(group, self.options.shard, last)
    }

    /// Whether somebody reads for a group, and what it wants of a topic.
    pub fn reader_subscription(&self, group: &GroupName, topic: &str) -> (bool, Option<Subscription>) {
        let readers = self.readers.borrow();
        (readers.has_group(group), readers.subscription(group, topic).cloned())
    }

    /// The clients that read for a group, with what they have said of it, in the order of their ids.
    pub fn group_clients(&self, group: &GroupName) -> Vec<GroupClient> {
        self.readers.borrow().clients(group)
    }

    /// Whether a group has clients, and all of them get every message.
    pub fn broadcasts(&self, group: &GroupName) -> bool {
        let readers = self.readers.borrow();
        readers.has_group(group) && !readers.is_read(group)
    }

    /// What a group wants of its topics, in the order of their names.
    pub fn group_subscriptions(&self, group: &GroupName) -> Vec<Subscription> {
        self.readers.borrow().subscriptions(group).cloned().collect()
    }

    /// Refuses what readers would undo, or be hurt by.
    pub(in crate::broker) fn check_not_read(&self, group: &GroupName) -> Result<(), Failure> {
        if !self.readers.borrow().is_read(group) {
            return Ok(());
        }
        let message = format!(
            "group {group} is consumed by RocketMQ's own clients, which divide its queues among themselves: stop them first"
        );
        Err(Failure::new(Status::GroupHasMembers, message))
    }

    /// Why those who receive for a group get nothing new, when it is read.
    pub(in crate::broker) fn closed_by_readers(&self, group: &GroupName) -> Option<String> {
        if self.gates.borrow().have_any_members(group) || !self.readers.borrow().is_read(group) {
            return None;
        }
        let message = "RocketMQ's own clients consume as this group: those who receive get nothing new of the topics that \
                       these subscribe to";
        Some(message.to_owned())
    }

    /// What receivers of a group may take from a queue of this shard. While the group has members, their grants say so; what is
    /// read for it is closed to receivers, and so is what a client has to itself.
    pub(in crate::broker) fn gate(&self, group: &GroupName, key: QueueKey) -> Gate {
        if self.is_locked(group, key) {
            return Gate::Closed;
        }
        let gates = self.gates.borrow();
        if gates.have_any_members(group) || !self.readers.borrow().is_read(group) {
            return gates.gate(group, key);
        }
        let tables = self.tables();
        let topic = tables.topic(key.topic);
        match topic.is_some_and(|topic| self.readers.borrow().reads(group, topic.name.as_str())) {
            true => Gate::Closed,
            false => Gate::Open,
        }
    }
}
