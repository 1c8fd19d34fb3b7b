//! How a shard's broker is set up.

use std::path::PathBuf;
use std::time::Duration;

use crate::types::{Level, ShardId};

/// Settings of one shard, the same in kind on all of a node.
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    /// The shard's directory: `log`, `index` and the snapshots lie below it.
    pub directory: PathBuf,
    pub shard: ShardId,
    pub shard_count: u16,
    /// Level of produce requests when neither they nor their topic name one.
    pub level: Level,
    pub segment_bytes: u64,
    pub tail_cache_bytes: usize,
    pub zero_fill: bool,
    /// Age at which messages of topics without a retention of their own may go; `None`: never.
    pub retention_age: Option<Duration>,
    /// Bytes of segments that this shard keeps at most; `None`: as many as the disk takes.
    pub retention_bytes: Option<u64>,
    /// The program's version, for `status`.
    pub version: String,
    /// The core this shard runs on, for `status`.
    pub core: Option<u32>,
}
