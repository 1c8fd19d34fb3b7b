//! What a start would take where its options leave it open: shown before, changed by nothing.

use super::data_directory::{self, DirectoryError};
use super::memory::ShardMemory;
use super::options::ServeOptions;
use crate::runtime::host;

/// The outcome of options on this machine and for this data directory. It is looked at only: nothing is made or locked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prospect {
    /// The data directory was made before, and keeps its shards and its name.
    pub is_made: bool,
    pub shards: u16,
    /// The node's name to RocketMQ's clients.
    pub node: String,
    pub cores: Vec<usize>,
    /// Of the whole node.
    pub client_memory_bytes: u64,
    /// Of each shard.
    pub tail_cache_bytes: u64,
}

impl Prospect {
    /// Looks at the machine and at the data directory, and refuses what a start refuses to have otherwise than the directory was
    /// made with.
    pub fn of(options: &ServeOptions) -> Result<Self, DirectoryError> {
        let made = data_directory::made_with(&options.data)?;
        let is_made = made.is_some();
        let (made_shards, made_name) = made.map_or((None, None), |made| (Some(made.0), made.1));
        let path = || options.data.clone();
        if let (Some(made), Some(asked)) =
            (made_shards, options.shards.filter(|asked| made_shards != Some(*asked)))
        {
            return Err(DirectoryError::Shards { path: path(), made, asked });
        }
        if let (Some(made), Some(asked)) =
            (&made_name, options.node.as_ref().filter(|asked| made_name.as_ref() != Some(*asked)))
        {
            return Err(DirectoryError::Name { path: path(), made: made.clone(), asked: asked.clone() });
        }
        let cores = options.cores.clone().unwrap_or_else(host::available_cores);
        let shards = made_shards.or(options.shards).unwrap_or(cores.len() as u16).max(1);
        let memory = ShardMemory::of(options, shards);
        Ok(Self {
            is_made,
            shards,
            node: made_name.or_else(|| options.node.clone()).unwrap_or_else(data_directory::host_name),
            cores,
            client_memory_bytes: memory.client_bytes as u64 * u64::from(shards),
            tail_cache_bytes: memory.tail_cache_bytes as u64,
        })
    }
}
