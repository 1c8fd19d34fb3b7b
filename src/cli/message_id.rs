//! The id of a message: where it is stored. Every command shows it as `id`, and `message find --id` finds it without being
//! told the topic; the id that its producer gave a message is its `unique_id`.

use std::net::{SocketAddr, ToSocketAddrs};

use crate::api::ShardAddress;
use crate::types::{IdText, OffsetMessageId, RecordLocation, ShardId};

/// The addresses that stand in the ids of one node's messages.
#[derive(Debug, Default)]
pub struct MessageIds {
    shards: Vec<ShardAddress>,
    /// One for each shard; `None` where its name leads nowhere.
    addresses: Vec<Option<SocketAddr>>,
}

impl MessageIds {
    pub fn of<'a>(shards: impl Iterator<Item = &'a ShardAddress>) -> Self {
        let shards: Vec<_> = shards.cloned().collect();
        let addresses = shards.iter().map(|shard| addresses(shard).next()).collect();
        Self { shards, addresses }
    }

    /// Looks the addresses up again when the shards have others than before: a broker may be started at other ones.
    pub fn follow<'a>(&mut self, shards: impl Iterator<Item = &'a ShardAddress> + Clone) {
        if !shards.clone().eq(&self.shards) {
            *self = Self::of(shards);
        }
    }

    /// `None` when the shard has no address here, or nothing can be stored at the location.
    pub fn id(&self, shard: ShardId, location: RecordLocation) -> Option<IdText> {
        let address = (*self.addresses.get(usize::from(shard.0))?)?;
        OffsetMessageId::of_location(address, location).map(|id| id.text())
    }

    pub fn shard_count(&self) -> u16 {
        self.shards.len() as u16
    }

    /// The shard and the location that an id names, when it is one of this node's.
    pub fn location_of(&self, id: &str) -> Option<(ShardId, RecordLocation)> {
        let id = OffsetMessageId::parse(id).ok()?;
        let location = RecordLocation::of_physical_offset(id.physical_offset)?;
        let is_named = |shard: &ShardAddress| addresses(shard).any(|address| address == id.address);
        let index = self.shards.iter().position(is_named)?;
        Some((ShardId(u16::try_from(index).ok()?), location))
    }
}

fn addresses(shard: &ShardAddress) -> impl Iterator<Item = SocketAddr> {
    shard.address.to_socket_addrs().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::LogPosition;

    #[test]
    fn an_id_names_the_place_that_it_was_made_of() {
        let shard = |id: u16, address: &str| ShardAddress { shard: ShardId(id), address: address.to_owned() };
        let shards = [shard(0, "127.0.0.1:10911"), shard(1, "127.0.0.1:10921"), shard(2, "no address")];
        let mut ids = MessageIds::of(shards.iter());
        let location = RecordLocation { position: LogPosition(8 * 77), index: 3 };
        let id = ids.id(ShardId(1), location).expect("it has an address");
        assert_eq!(&*id, "7F00000100002AA900000000004D0003");
        assert_eq!(ids.location_of(&id), Some((ShardId(1), location)));
        assert!(ids.id(ShardId(2), location).is_none() && ids.id(ShardId(3), location).is_none());
        // The same broker, started at other addresses.
        let moved = [shard(0, "127.0.0.1:20911"), shard(1, "127.0.0.1:20921")];
        ids.follow(moved.iter());
        assert_eq!(ids.location_of(&id), None);
        assert_eq!(
            &*ids.id(ShardId(1), location).expect("it has an address"),
            "7F000001000051B900000000004D0003"
        );
    }
}
