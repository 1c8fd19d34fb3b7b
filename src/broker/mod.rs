//! The rules of one shard: topics, queues, produce, fetch, groups, offsets. Knows neither sockets nor codes of any
//! protocol; runs on whatever executor polls it.
//!
//! * What changes is first a batch in the log, then, when durable, an entry in a table ([`Tables`], the index): the same
//!   `apply` runs behind a commit and in recovery.
//! * One shard, the **control shard** (0), makes changes of topics and keeps the groups' members. It asks the others
//!   through [`Peers`]. Any shard takes any request and hands it to the one it belongs to.

mod ages;
mod apply;
mod client_requests;
mod condition;
mod control;
mod fetch;
mod find;
mod first_use;
mod gates;
mod group_removal;
mod group_requests;
mod groups;
mod held;
mod housekeeping;
mod index_health;
mod index_renewal;
mod instances;
mod key_indexing;
mod leases;
mod notices;
mod open;
mod options;
mod peers;
mod produce;
mod queue;
mod receivers;
mod recipient;
mod shard_broker;
mod shares;
mod sharing;
mod snapshot;
mod state_record;
mod steady;
mod tables;
mod turn;
mod verify;
mod watch;

pub use condition::{ShardPlace, Witnesses, check_shard, repair_shard};
pub use fetch::{FetchStep, SharedFetched};
pub use find::FindHere;
pub use groups::{GateOrders, Groups, RECEIVERS};
pub use held::{Half, HeldChange};
pub use leases::{Holding, LeaseChange, Leases, Prospect, QueueLeases, Run, dead_letter_topic};
pub use open::StartError;
pub use options::{BrokerOptions, LeaseDefaults};
pub use peers::{GroupOffset, PeerFuture, PeerReply, PeerRequest, Peers};
pub use produce::{PendingProduce, ProduceRefusal};
pub use receivers::SeenReceivers;
pub use recipient::Recipient;
pub use shard_broker::{Broker, HostCounters, OpenedBroker};
pub use snapshot::Snapshot;
pub use state_record::{Change, decode_changes};
pub use tables::{CommittedOffset, Tables, Topic};
pub use verify::{Checked, Finding, verify_shard};
