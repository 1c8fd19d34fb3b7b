//! How a shard's broker is set up.

use std::path::PathBuf;
use std::time::Duration;

use crate::log::CommitOptions;
use crate::types::{DelayLevels, Level, NodeId, ShardId};

/// Settings of one shard, the same in kind on all of a node.
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    /// The shard's directory: `log`, `index` and the snapshots lie below it.
    pub directory: PathBuf,
    /// Told in routes, so that nothing is sent to another node that answers at this one's address.
    pub node: NodeId,
    pub shard: ShardId,
    pub shard_count: u16,
    /// The shard was used before: what is not there was lost.
    pub is_made: bool,
    /// Level of produce requests when neither they nor their topic name one.
    pub level: Level,
    pub segment_bytes: u64,
    pub tail_cache_bytes: usize,
    /// What clients may cause of memory on this shard: see [`ClientMemory`](crate::types::ClientMemory).
    pub client_memory_bytes: usize,
    pub zero_fill: bool,
    /// How groups reach the disk.
    pub commit: CommitOptions,
    /// Age at which messages of topics without a retention of their own may go; `None`: never.
    pub retention_age: Option<Duration>,
    /// Bytes of segments that this shard keeps at most; `None`: as many as the disk takes.
    pub retention_bytes: Option<u64>,
    /// Queues of a topic that is made because something is written to it; `None`: topics are made by command only.
    pub auto_create_topics: Option<u32>,
    /// Names of which no topic is made by being written to: they mean something else to RocketMQ's clients.
    pub reserved_topics: Vec<String>,
    /// How groups without settings of their own are treated.
    pub leases: LeaseDefaults,
    /// A group that nobody has used while the node ran for this long is forgotten. `None`: never.
    pub group_idle: Option<Duration>,
    /// A client that consumes in order has a queue to itself for this long after it has asked for it last: RocketMQ's
    /// `rocketmq.broker.rebalance.lockMaxLiveTime`.
    pub lock_lease: Duration,
    /// How long messages of RocketMQ's levels wait: `messageDelayLevel`.
    pub delay_levels: DelayLevels,
    /// A random number, for a shard that is made by this start: see `log`.
    pub secret: u64,
    /// A producer has at least this long to decide on a half message before it is asked: RocketMQ's
    /// `transactionTimeOut`.
    pub transaction_immunity: Duration,
    /// Then it is asked at this interval: `transactionCheckInterval`.
    pub transaction_check_interval: Duration,
    /// And this often: `transactionCheckMax`.
    pub transaction_checks_max: u32,
    /// The program's version, for `status`.
    pub version: String,
    /// The core this shard runs on, for `status`.
    pub core: Option<u32>,
}

/// Those settings of a shard that can be changed while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveOptions {
    /// As in [`BrokerOptions`], all of them.
    pub level: Level,
    pub retention_age: Option<Duration>,
    pub retention_bytes: Option<u64>,
    pub auto_create_topics: Option<u32>,
    pub leases: LeaseDefaults,
    pub transaction_immunity: Duration,
    pub transaction_check_interval: Duration,
}

impl BrokerOptions {
    pub fn live(&self) -> LiveOptions {
        LiveOptions {
            level: self.level,
            retention_age: self.retention_age,
            retention_bytes: self.retention_bytes,
            auto_create_topics: self.auto_create_topics,
            leases: self.leases,
            transaction_immunity: self.transaction_immunity,
            transaction_check_interval: self.transaction_check_interval,
        }
    }
}

/// How the messages of a group are leased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseDefaults {
    /// Deliveries of a message before it goes to the dead letters: RocketMQ's `retryMaxTimes`
    /// (`remoting/.../subscription/SubscriptionGroupConfig.java`).
    pub deliveries_max: u32,
    pub lease: Duration,
    /// The length of leases of messages that are received in order.
    pub ordered_lease: Duration,
}

impl Default for LeaseDefaults {
    fn default() -> Self {
        Self { deliveries_max: 16, lease: Duration::from_secs(300), ordered_lease: Duration::from_secs(60) }
    }
}
