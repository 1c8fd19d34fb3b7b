//! Giving back what was leased to a call that it cannot be handed to any more.

use crate::api::ReceivedMessage;
use crate::broker::peers::PeerRequest;
use crate::broker::shard_broker::Broker;
use crate::disk::Disk;
use crate::state::{LeaseChange, Mask, Run};
use crate::types::{GroupName, Level, QueueOffset, Receipt, ShardId};

impl<D: Disk> Broker<D> {
    /// Ends leases of messages that nobody was given, wherever their queues are: whoever asks next gets them at once, and the
    /// delivery that was none does not count. A lease that cannot be ended ends by itself.
    pub async fn give_back(&self, group: &GroupName, messages: &[ReceivedMessage]) {
        for shard in (0..self.options.shard_count).map(ShardId) {
            let is_there = |receipt: &Receipt| receipt.key.queue.shard(self.options.shard_count) == shard;
            let receipts = messages.iter().map(|message| message.receipt).filter(is_there);
            let receipts: Vec<_> = receipts.collect();
            if receipts.is_empty() {
                continue;
            }
            if shard == self.options.shard {
                self.give_back_here(group, &receipts).await;
            } else if let Ok(peers) = self.peers() {
                _ = peers.ask(shard, PeerRequest::GiveBack { group: group.clone(), receipts }).await;
            }
        }
    }

    /// Gives back leases of this shard's queues.
    pub(in crate::broker) async fn give_back_here(&self, group: &GroupName, receipts: &[Receipt]) {
        let decide = || (receipts.iter().filter_map(|receipt| self.given_back(group, receipt)).collect(), ());
        if let Ok((Some(_), ())) = self.place_decided(Level::Written, decide).await {
            let mut topics: Vec<_> = receipts.iter().map(|receipt| receipt.key.topic).collect();
            topics.dedup();
            topics.into_iter().for_each(|topic| self.announce(topic));
        }
    }

    /// The lease as if the message had not been delivered; `None` when it does not run any more.
    fn given_back(&self, group: &GroupName, receipt: &Receipt) -> Option<LeaseChange> {
        let now = self.steady.now();
        let leases = self.leases();
        let (_, run) = leases.get(group, receipt.key)?.leased(receipt, now)?;
        Some(LeaseChange::Leased {
            group: group.clone(),
            key: receipt.key,
            next: QueueOffset::ZERO,
            mask: Mask { first: receipt.offset, bits: 1 },
            run: Run { open: 1, lease_until: now, deliveries: run.deliveries.saturating_sub(1), ..run },
        })
    }
}
