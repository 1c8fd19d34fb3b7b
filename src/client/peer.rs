//! Who is to answer at an address. What a route says may be true for the broker and not for its clients: behind a tunnel,
//! or in a container, another broker listens at the same address.

use crate::types::{Identity, NodeId, ShardId};

use super::error::ClientError;

/// What a route says about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The node.
    pub node: NodeId,
    /// `None`: any of its shards.
    pub shard: Option<ShardId>,
}

impl Expected {
    /// Compares it with what the peer said first, before anything is sent to it.
    pub fn check(&self, address: &str, found: Option<Identity>) -> Result<(), ClientError> {
        let is_meant =
            |found: Identity| found.node == self.node && self.shard.is_none_or(|shard| shard == found.shard);
        if found.is_some_and(is_meant) {
            return Ok(());
        }
        let address = address.to_owned();
        let answers = match found {
            Some(identity) => identity.to_string(),
            None => "a broker of an earlier release, which does not say who it is".to_owned(),
        };
        Err(match self.shard {
            Some(shard) => {
                let meant = Identity { node: self.node, shard }.to_string();
                ClientError::OtherPeer { address, meant, answers }
            }
            None => ClientError::OtherNode { address, meant: self.node.to_string(), answers },
        })
    }
}

/// Whether an address that a broker tells leads nowhere in particular: earlier releases tell a wildcard that they listen
/// on, and whoever connects to it meets himself.
pub(super) fn is_wildcard(address: &str) -> bool {
    address.parse::<std::net::SocketAddr>().is_ok_and(|address| address.ip().is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_node_and_another_shard_are_told_with_what_was_meant() {
        let (node, other) = (NodeId(1), NodeId(2));
        let identity = |node, shard| Some(Identity { node, shard: ShardId(shard) });
        let meant = Expected { node, shard: Some(ShardId(3)) };
        let check = |found| meant.check("host:1", found).map_err(|error| error.to_string());
        assert_eq!(check(identity(node, 3)), Ok(()));
        for found in [identity(other, 3), identity(node, 4), None] {
            let text = check(found).expect_err("not who is meant");
            let parts = ["host:1", "shard 3 of node 00000000000000000000000000000001", "--advertise"];
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        }
        let text = check(identity(other, 0)).expect_err("another node");
        assert!(text.contains("shard 0 of node 00000000000000000000000000000002"), "{text}");
        let any = Expected { node, shard: None };
        assert!(any.check("host:1", identity(node, 9)).is_ok());
        assert!(matches!(any.check("host:1", identity(other, 9)), Err(ClientError::OtherNode { .. })));
    }

    #[test]
    fn wildcards_are_recognised() {
        for address in ["0.0.0.0:10911", "[::]:1"] {
            assert!(is_wildcard(address), "{address}");
        }
        for address in ["127.0.0.1:10911", "[::1]:1", "host:1"] {
            assert!(!is_wildcard(address), "{address}");
        }
    }
}
