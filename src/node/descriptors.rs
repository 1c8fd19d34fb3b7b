//! How the descriptors that the system allows this process are shared out, computed once at the start.
//!
//! What the log needs comes first, or clients that only hold connections would stop the next segment from being made.
//! Then come the files that are read, and connections get the rest: see `docs/limits.md`.

use super::preflight::PreflightError;
use crate::limits::{REFUSED_CONNECTIONS_MAX, SHARD_FILES_MAX, SHARD_FILES_MIN};
use crate::runtime::host;

/// Of an executor: three rings, what wakes it, and one while it opens something.
const CORE: usize = 6;
/// Of a shard beyond the files that its bounded disk counts: the segment in use and the next one, each with a second
/// descriptor for writes that are flushed at once, the one before until it is let go, and a few that are written to and
/// not flushed yet: snapshot, manifest, index, keys, a directory.
const SHARD: usize = 14;
/// Of the node: files of keys and certificates while they are read again, and as many for what nobody thought of.
const NODE: usize = 6;
/// Connections that must find room, or there is no use in a start.
const CONNECTIONS_MIN: usize = 4;
/// Room for fewer connections is worth a warning.
const CONNECTIONS_WISHED: usize = 256;
/// Descriptors that a connection holds at most: one for each direction.
const PER_CONNECTION: usize = 2;

/// Who gets how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DescriptorPlan {
    pub limit: usize,
    /// Files of each shard that are open because they were read.
    pub files_per_shard: usize,
    /// For the connections of all shards together.
    pub connections: usize,
}

impl DescriptorPlan {
    /// For a process that may have `limit` descriptors and has `open` of them now, its listening sockets among them.
    pub fn new(limit: u64, open: usize, cores: usize, shards: usize) -> Result<Self, PreflightError> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let fixed = open + NODE + REFUSED_CONNECTIONS_MAX * shards + cores * CORE + shards * SHARD;
        let needed = fixed + shards * SHARD_FILES_MIN + CONNECTIONS_MIN * PER_CONNECTION;
        if limit < needed {
            return Err(PreflightError::Descriptors { limit, needed });
        }
        let free = limit - fixed;
        let files_per_shard = (free / 4 / shards).clamp(SHARD_FILES_MIN, SHARD_FILES_MAX);
        Ok(Self { limit, files_per_shard, connections: free - shards * files_per_shard })
    }

    /// Plans for this process, with the descriptors that it has open now.
    pub fn of_process(limit: u64, cores: usize, shards: usize) -> Result<Self, PreflightError> {
        Self::new(limit, host::open_descriptors(), cores, shards)
    }

    /// What to tell where the limit is low.
    pub fn warning(&self) -> Option<String> {
        let Self { limit, files_per_shard, connections } = self;
        let room = connections / PER_CONNECTION;
        (room < CONNECTIONS_WISHED).then(|| {
            format!(
                "the limit of open files is {limit}: that leaves room for {room} connections, and for {files_per_shard} \
                 open files of old messages per shard; raise it with `ulimit -n 65536`, or LimitNOFILE=65536 in a systemd \
                 unit"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_limit_nothing_is_given_out_twice() {
        for (cores, shards) in [(1, 1), (2, 2), (2, 4), (16, 256)] {
            for limit in 0..5_000 {
                match DescriptorPlan::new(limit, 12, cores, shards) {
                    Ok(plan) => {
                        let own = 12 + NODE + cores * CORE + shards * (SHARD + REFUSED_CONNECTIONS_MAX);
                        let sum = own + shards * plan.files_per_shard + plan.connections;
                        assert_eq!(sum, plan.limit);
                        assert!(plan.files_per_shard >= SHARD_FILES_MIN);
                        assert!(plan.connections >= CONNECTIONS_MIN * PER_CONNECTION);
                    }
                    Err(PreflightError::Descriptors { limit, needed }) => assert!(limit < needed),
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    #[test]
    fn a_low_limit_is_told_and_a_usual_one_is_not() {
        let plan = |limit| DescriptorPlan::new(limit, 12, 2, 2).expect("it is enough");
        assert!(plan(1_024).warning().is_none());
        assert!(plan(90).warning().expect("it is low").contains("the limit of open files is 90"));
        let plenty = plan(1 << 20);
        assert_eq!(plenty.files_per_shard, SHARD_FILES_MAX);
    }
}
