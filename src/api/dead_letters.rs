//! Dead letters that are sent once more.

use std::ops::Range;

use super::status::Failure;
use crate::types::{GroupName, QueueNumber, QueueOffset, TopicName};

/// Send dead letters of a group to a topic, each as it was. What was sent before, or is gone, is told and left alone, so the same may
/// be asked again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redrive {
    pub group: GroupName,
    /// Of the topic of the group's dead letters.
    pub queue: QueueNumber,
    /// Up to `limits::REDRIVE_MESSAGES_MAX`, of that queue. None: nothing is done, and what would be refused is.
    pub offsets: Vec<QueueOffset>,
    pub to: TopicName,
}

/// What became of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redriven {
    /// It is stored there, durably, and is no dead letter any more.
    Moved { queue: QueueNumber, offset: QueueOffset },
    /// It was none any more.
    Before,
    /// Nothing is stored at that offset, not any more or not yet, or it cannot be read.
    Gone,
}

/// The answer to a redrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedriveReport {
    /// In the order of the offsets that were asked for: fewer when one could not be moved.
    pub outcomes: Vec<Redriven>,
    /// Why the next one could not, and nothing after it was tried.
    pub stopped: Option<Failure>,
}

/// Which messages of a queue of dead letters are none any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedrivenRanges {
    /// In order, apart from each other. Those that end before the asked offset are left out.
    pub ranges: Vec<Range<QueueOffset>>,
    /// Nothing is told of messages from here on: ask again from there. `None`: these are all.
    pub next: Option<QueueOffset>,
    /// One that is on its way to another shard: it is settled which topic gets it, and it is finished with the next redrive of the
    /// queue.
    pub moving: Option<QueueOffset>,
}
