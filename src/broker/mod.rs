//! The rules of one shard: topics, queues, produce, fetch, groups, offsets. Knows neither sockets nor codes of any
//! protocol; runs on whatever executor polls it.
//!
//! * What changes is first a batch in the log, then, when durable, an entry in a table (`state`, the index): the same
//!   [`State::apply`](crate::state::State::apply) runs after a commit and in recovery.
//! * One shard, the **control shard** (0), makes changes of topics and keeps the groups' members. It asks the others
//!   through [`Peers`]. Any shard takes any request and hands it to the one it belongs to.

mod apply;
mod client_requests;
mod copied_message;
mod find;
mod gathering;
mod groups;
mod hold;
mod invariants;
mod makers;
mod of_late;
mod open;
mod options;
mod peers;
mod produce;
mod queue;
mod queue_ends;
mod reader;
mod readers;
mod receive;
mod recipient;
mod shard_broker;
mod shares;
mod slow;
mod stats;
mod steady;
mod time_slice;
mod topics;
mod upkeep;
mod writer;

pub use find::FindHere;
pub use gathering::Single;
pub use groups::{GroupShape, Groups, QueueGrants, RECEIVERS, SeenGroup, SeenReceivers};
pub use hold::{PendingHold, ProducerCheck, ProducerNotice, Recall};
pub use of_late::SPANS;
pub use open::StartError;
pub use options::{BrokerOptions, LeaseDefaults, LiveOptions};
pub use peers::{GroupOffset, PeerFuture, PeerReply, PeerRequest, Peers, TimeRequest};
pub use produce::{PendingProduce, PendingSingle};
pub use reader::{
    ClientFetches, FetchWait, LookNow, Pull, Pulled, QueueSpan, SharedFetched, Standing, StoredRecord, Taker,
    TopicWait, WatchWait, fetch_share, watch_time,
};
pub use readers::{
    Amount, GivenOfLate, HeardReader, MembersNotice, QuestionNotice, QueueProgress, READER_CLIENTS,
    ReaderCommit, ReplyNotice, RetryDelay, SendBack,
};
pub use receive::{Prospect, ReceiveCall, ReceiveLook, ReceivePause, ReceiveWait, dead_letter_topic};
pub use recipient::Recipient;
pub use shard_broker::{Broker, HostCounters, OpenedBroker};
pub use stats::{StatsReply, StatsRequest};
pub use topics::{
    LOG_PLACED, MessageType, Publication, Publish, Published, ShownTopic, StoredQueue, TopicShape,
};
pub use upkeep::{
    Checked, Finding, LogStanding, ShardHome, Snapshot, Witnesses, check_shard, repair_shard, verify_shard,
};
pub use writer::{Backpressure, PlaceRefusal};
