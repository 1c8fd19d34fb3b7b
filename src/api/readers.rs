//! Readers: clients that divide the queues of their topics among themselves, and tell the broker only what they consume. And
//! producers, as far as they say who they are.

use bytes::Bytes;

use super::{ConnectionId, FoundMessage};
use crate::types::{GroupName, ShardId, Timestamp};

/// What a client has said of itself over one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReaderClient {
    /// What it is written in, by its protocol's name for that.
    pub language: &'static str,
    /// As its protocol numbers releases.
    pub version: i32,
    /// The groups that it reads for, each once.
    pub groups: Vec<ReaderGroup>,
    /// Those that it produces as, in their order, each once. They have nothing to do with groups of readers.
    pub produces: Vec<GroupName>,
}

/// What a client gives up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftGroups {
    /// The group that it reads for no longer.
    pub reads: Option<GroupName>,
    /// The group that it produces as no longer.
    pub produces: Option<GroupName>,
}

/// A client over a connection, as one that produces as a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    /// The way to it, of the shard that this names.
    pub connection: ConnectionId,
    /// By its own id.
    pub client: String,
    pub language: &'static str,
    pub version: i32,
    /// Where the connection comes from.
    pub address: String,
}

impl ReaderGroup {
    /// Whether it shares messages with the group's other clients.
    pub fn shares_messages(&self) -> bool {
        self.mode == ReaderMode::Clustering
    }
}

impl ReaderClient {
    /// Whether it says nothing that anybody has to know.
    pub fn is_of_no_group(&self) -> bool {
        self.groups.is_empty() && self.produces.is_empty()
    }

    /// What is left of it; `None` when it does not lose anything.
    pub fn without(&self, left: &LeftGroups) -> Option<Self> {
        let groups: Vec<_> =
            self.groups.iter().filter(|of| Some(&of.group) != left.reads.as_ref()).cloned().collect();
        let produces: Vec<_> =
            self.produces.iter().filter(|of| Some(*of) != left.produces.as_ref()).cloned().collect();
        let is_less = groups.len() < self.groups.len() || produces.len() < self.produces.len();
        is_less.then_some(Self { groups, produces, ..*self })
    }
}

/// A message that answers a client's, which waits for it: it is handed to that client, and not stored.
#[derive(Clone, Debug)]
pub struct ReplyMessage {
    /// Of its sender.
    pub producer_group: String,
    /// As its sender names them; nobody has checked whether there are such.
    pub topic: String,
    pub queue: i32,
    /// One, as records are stored: see `wire::record`.
    pub record: Bytes,
    pub born_time: Timestamp,
    /// The shard that it came to, and when.
    pub shard: ShardId,
    pub came: Timestamp,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyOutcome {
    Delivered,
    /// No shard has a connection of the client.
    NoClient,
    /// The client does not answer, or refuses it.
    NotTaken,
}

/// What a client is asked about itself as one of a group's.
#[derive(Clone, Debug)]
pub enum ClientQuestion {
    /// How it is: what it has of each queue, and how fast it is; with what its threads are at, where that is wanted.
    Condition { group: GroupName, with_stacks: bool },
    /// Where it is in the queues of a topic, whose name nobody has checked.
    Places { group: GroupName, topic: String },
    /// What becomes of a message when it processes it now. The group's place has nothing to do with it.
    Process { group: GroupName, message: Box<FoundMessage>, id: String },
}

impl ClientQuestion {
    pub fn group(&self) -> &GroupName {
        match self {
            ClientQuestion::Condition { group, .. }
            | ClientQuestion::Places { group, .. }
            | ClientQuestion::Process { group, .. } => group,
        }
    }
}

/// What became of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientOutcome {
    Answered(ClientWords),
    /// No shard has a connection of the client that takes the question.
    NoClient,
    /// The client does not answer.
    Late,
}

/// A client's answer, in the words of its protocol: only who asks reads them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientWords {
    pub code: i32,
    pub remark: Option<Box<str>>,
    pub document: Vec<u8>,
}

/// A group as one client reads for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReaderGroup {
    pub group: GroupName,
    pub mode: ReaderMode,
    /// How it gets messages, and where it begins in a queue that the group has no place in, by its protocol's names for that.
    pub kind: &'static str,
    pub start: &'static str,
    /// Each topic once.
    pub subscriptions: Vec<Subscription>,
}

/// What a group's clients do with its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReaderMode {
    /// Each message is one client's.
    Clustering,
    /// Each client gets every message, and keeps for itself where it is: the group's name says nothing to the broker.
    Broadcasting,
}

/// What is wanted of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// As the client names it: nobody has checked that there is such a topic.
    pub topic: String,
    pub expression: String,
    /// The language of the expression, by its protocol's name for that.
    pub kind: String,
    /// Of the group's subscriptions to a topic, the one of the highest version counts.
    pub version: i64,
}

/// A client of a group, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReaderInfo {
    /// By its own id.
    pub client: String,
    pub language: String,
    pub version: i32,
    /// Where its first connection comes from.
    pub address: String,
    pub mode: ReaderMode,
    /// Topics and expressions.
    pub subscriptions: Vec<(String, String)>,
}

/// A client of a group, with what it has said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupClient {
    pub client: String,
    pub language: &'static str,
    pub version: i32,
    pub address: String,
    pub said: ReaderGroup,
}
