//! The ids of a node's messages, which say where each is stored.

use std::net::SocketAddr;

use crate::api::ShardAddress;
use crate::types::{IdText, OffsetMessageId, RecordLocation, ShardId};

/// The addresses that stand in them, one for each shard. Names are not looked up here, where that would keep everybody waiting:
/// a shard that is known by one has none, and its messages have no such id.
#[derive(Debug)]
pub(super) struct Ids(Vec<Option<SocketAddr>>);

impl Ids {
    pub fn of(shards: &[ShardAddress]) -> Self {
        Self(shards.iter().map(|shard| shard.address.parse().ok()).collect())
    }

    pub fn id(&self, shard: ShardId, location: RecordLocation) -> Option<IdText> {
        let address = (*self.0.get(usize::from(shard.0))?)?;
        OffsetMessageId::of_location(address, location).map(|id| id.text())
    }

    /// The shard and the location that an id names, when it is one of this node's.
    pub fn location_of(&self, id: &str) -> Option<(ShardId, RecordLocation)> {
        let id = OffsetMessageId::parse(id).ok()?;
        let location = RecordLocation::of_physical_offset(id.physical_offset)?;
        let index = self.0.iter().position(|address| *address == Some(id.address))?;
        Some((ShardId(u16::try_from(index).ok()?), location))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::LogPosition;

    #[test]
    fn an_id_leads_back_to_its_place() {
        let shard = |id: u16, address: &str| ShardAddress { shard: ShardId(id), address: address.to_owned() };
        let ids = Ids::of(&[
            shard(0, "127.0.0.1:10911"),
            shard(1, "broker.example.org:10921"),
            shard(2, "[::1]:1"),
        ]);
        let location = RecordLocation { position: LogPosition(8 * 77), index: 3 };
        for known in [0, 2] {
            let id = ids.id(ShardId(known), location).expect("it has an address");
            assert_eq!(ids.location_of(&id), Some((ShardId(known), location)));
        }
        assert!(ids.id(ShardId(1), location).is_none() && ids.id(ShardId(3), location).is_none());
        assert_eq!(ids.location_of("7F00000100002AA900000000004D0003"), None, "another broker's");
        assert_eq!(ids.location_of("not an id"), None);
    }
}
