//! The secret that makes a data directory this node's.

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

use crate::types::{NodeId, ShardId};

/// What makes this node's id and receipt handles its own. Made with the directory, readable by its owner only; a directory whose
/// file was lost gets a new one, and the handles given out before count no more.
#[derive(Clone)]
pub struct NodeSecret(pub [u8; Self::BYTES]);

impl NodeSecret {
    pub const BYTES: usize = 32;

    /// The node's id. It is told to everybody and tells nothing of the secret, and directories that were made before nodes
    /// had one have it as well.
    pub fn node(&self) -> NodeId {
        let mut mac = Hmac::<Sha1>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(b"turbopump node");
        let code = mac.finalize().into_bytes();
        NodeId(u128::from_be_bytes(code[..16].try_into().expect("twenty bytes")))
    }

    /// A number for a shard that other directories' shards do not have, as good as surely.
    pub fn number(&self, shard: ShardId) -> u32 {
        crc32c::crc32c_append(u32::from(shard.0), &self.0)
    }
}
