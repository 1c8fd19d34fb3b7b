//! What stands beside the shards in a data directory, for whoever copies one and makes another of the copy.

use std::fs::File;
use std::path::Path;

use super::data_directory::{
    Description, DirectoryError, SECRET, io_error, keep_secret, make_secret, not_described, read_description,
    read_secret, write_description,
};
use crate::access::NodeSecret;
use crate::types::NodeId;

/// The description of a data directory and its secret.
#[derive(Clone)]
pub struct NodeFiles {
    /// Version of the layout.
    pub format: u32,
    pub shards: u16,
    /// The node's name to RocketMQ's clients. `None`: the next start gives it the host's, or the one that it is told.
    pub node_name: Option<String>,
    secret: NodeSecret,
}

impl NodeFiles {
    pub const SECRET_BYTES: usize = NodeSecret::BYTES;

    /// As they were taken apart before.
    pub fn new(
        format: u32,
        shards: u16,
        node_name: Option<String>,
        secret: [u8; Self::SECRET_BYTES],
    ) -> Self {
        Self { format, shards, node_name, secret: NodeSecret(secret) }
    }

    pub fn node(&self) -> NodeId {
        self.secret.node()
    }

    pub fn secret(&self) -> &[u8; Self::SECRET_BYTES] {
        &self.secret.0
    }

    /// Reads them, whether a broker uses the directory or not. Fails for a directory whose shards have not all started yet, and for
    /// one without a secret.
    pub fn read(data: &Path) -> Result<Self, DirectoryError> {
        if !data.is_dir() {
            return Err(DirectoryError::Missing { path: data.to_owned() });
        }
        let Description { format, shards, node: node_name, started } =
            read_description(data)?.ok_or_else(|| not_described(data))?;
        let secret = read_secret(&data.join(SECRET))?.filter(|_| started);
        let secret = secret.ok_or_else(|| DirectoryError::NeverStarted { path: data.to_owned() })?;
        Ok(Self { format, shards, node_name, secret })
    }

    /// Another node with the same shards: it has a secret of its own, and no name yet.
    pub fn into_new_node(self) -> Result<Self, DirectoryError> {
        let secret = make_secret().map_err(io_error(Path::new("/dev/urandom")))?;
        Ok(Self { node_name: None, secret, ..self })
    }

    /// Makes a data directory of one that has the shards already, durably. Before this no broker starts on it.
    pub fn write(&self, data: &Path) -> Result<(), DirectoryError> {
        let file = data.join(SECRET);
        keep_secret(&file, &self.secret).map_err(io_error(&file))?;
        File::open(data).and_then(|data| data.sync_all()).map_err(io_error(data))?;
        let Self { format, shards, node_name: node, .. } = self.clone();
        write_description(data, &Description { format, shards, node, started: true })
    }
}
