//! Readers: clients that divide the queues of their topics among themselves, and tell the broker only what they consume.

use crate::types::GroupName;

/// What a client has said of itself over one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReaderClient {
    /// What it is written in, by its protocol's name for that.
    pub language: &'static str,
    /// As its protocol numbers releases.
    pub version: i32,
    /// The groups that it reads for, each once.
    pub groups: Vec<ReaderGroup>,
}

/// A group as one client reads for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReaderGroup {
    pub group: GroupName,
    pub mode: ReaderMode,
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
