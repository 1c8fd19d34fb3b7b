//! A half message by its place: what clients have of one that know neither queue nor topic.

use crate::api::{Failure, FoundHalf};
use crate::broker::client_requests::unexpected;
use crate::broker::peers::{HalvesRequest, PeerReply, PeerRequest};
use crate::broker::shard_broker::Broker;
use crate::disk::Disk;
use crate::state::Half;
use crate::types::{HalfReceipt, RecordLocation, ShardId};
use crate::wire::batch::stored_records;
use crate::wire::properties::{Properties, names};

impl<D: Disk> Broker<D> {
    /// The undecided half message of a shard at a place.
    pub async fn find_half(
        &self,
        shard: ShardId,
        location: RecordLocation,
    ) -> Result<Option<FoundHalf>, Failure> {
        if shard == self.options.shard {
            return self.find_half_here(location).await;
        }
        match self.peers()?.ask(shard, PeerRequest::Halves(HalvesRequest::Find(location))).await? {
            PeerReply::FoundHalf(found) => Ok(found),
            other => Err(unexpected(&other)),
        }
    }

    pub(in crate::broker) async fn find_half_here(
        &self,
        location: RecordLocation,
    ) -> Result<Option<FoundHalf>, Failure> {
        let location = location.in_log(self.log.watermarks().durable_end());
        let half = {
            let held = self.held();
            let half = held.halves.open(location.position).filter(|half| !half.waits_for_its_time());
            half.filter(|_| location.index == 0).cloned()
        };
        let Some(half) = half else { return Ok(None) };
        let awaits_check = self.is_asked(&half) && self.has_own_immunity(&half).await?;
        let receipt = HalfReceipt { key: half.key, position: half.position };
        Ok(Some(FoundHalf { receipt, producer_group: half.producer_group, awaits_check }))
    }

    /// Whether the time has come in which its producer is asked about a half.
    fn is_asked(&self, half: &Half) -> bool {
        half.checks > 0 || self.steady.now() >= half.first_check
    }

    /// Whether the producer of a half has said itself how long it is not to be asked.
    async fn has_own_immunity(&self, half: &Half) -> Result<bool, Failure> {
        let Some(bytes) = self.half_bytes(half).await? else { return Ok(false) };
        let Some(record) = stored_records(&bytes).next() else { return Ok(false) };
        let is_said = |(name, _): (&[u8], &[u8])| name == names::CHECK_IMMUNITY_SECONDS.as_bytes();
        Ok(Properties::new(record.properties()).any(is_said))
    }
}
