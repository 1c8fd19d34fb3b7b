//! Acknowledging leased messages, and moving the end of a lease.

use crate::api::{Acknowledge, ChangeLease, Failure, ReceiptOutcome, Status};
use crate::broker::shard_broker::Broker;
use crate::disk::Disk;
use crate::state::{LeaseChange, Mask};
use crate::state::{QueueLeases, Run};
use crate::types::{GroupName, Level, QueueKey, Receipt, ShardId, Timestamp};

impl<D: Disk> Broker<D> {
    /// Ends the leases of receipts for queues of this shard; durable when answered.
    pub(in crate::broker) async fn acknowledge_here(
        &self,
        group: &GroupName,
        receipts: &[Receipt],
    ) -> Result<Vec<ReceiptOutcome>, Failure> {
        // Whether a lease runs is decided when there is room in the log: else an acknowledgement that has waited could
        // stand after the next delivery of its message, and take that one's lease.
        let decide = || self.end_leases(group, receipts);
        let (placed, outcomes) = self.place_decided(Level::Durable, decide).await?;
        let Some(placement) = placed else { return Ok(outcomes) };
        let acknowledged = || outcomes.iter().zip(receipts).filter(|(outcome, _)| is_acknowledged(outcome));
        // Where messages are received in order, the next ones were waiting for these.
        let mut topics: Vec<_> = acknowledged().map(|(_, receipt)| receipt.key.topic).collect();
        topics.dedup();
        topics.into_iter().for_each(|topic| self.announce(topic));
        self.writer.settled(Level::Durable, placement).await?;
        self.metrics.messages_acknowledged.add(acknowledged().count() as u64);
        Ok(outcomes)
    }

    /// What acknowledging these receipts changes now, and what each of them comes to.
    fn end_leases(&self, group: &GroupName, receipts: &[Receipt]) -> (Vec<LeaseChange>, Vec<ReceiptOutcome>) {
        let now = self.steady.now();
        let mut outcomes = vec![ReceiptOutcome::NothingOpen; receipts.len()];
        let mut ended: Vec<(QueueKey, Vec<_>)> = Vec::new();
        let leases = self.leases();
        for (outcome, receipt) in outcomes.iter_mut().zip(receipts) {
            let pair = leases.get(group, receipt.key);
            let Some(pair) = pair.filter(|pair| pair.find(receipt.offset).is_some()) else { continue };
            if pair.leased(receipt, now).is_none() {
                *outcome = ReceiptOutcome::NotLeased;
                continue;
            }
            *outcome = ReceiptOutcome::Acknowledged;
            match ended.iter_mut().find(|(key, _)| *key == receipt.key) {
                Some((_, offsets)) => offsets.push(receipt.offset),
                None => ended.push((receipt.key, vec![receipt.offset])),
            }
        }
        let mut changes = Vec::new();
        for (key, offsets) in &mut ended {
            offsets.sort_unstable();
            offsets.dedup();
            let masks = QueueLeases::masks(offsets).into_iter();
            changes.extend(masks.map(|mask| LeaseChange::Ended { group: group.clone(), key: *key, mask }));
        }
        (changes, outcomes)
    }

    /// Moves the end of one lease. The old receipt counts no more.
    pub(in crate::broker) async fn change_lease(&self, change: &ChangeLease) -> Result<Receipt, Failure> {
        let decide = || match self.moved_lease(change) {
            Some((change, run)) => (vec![change], Some(run)),
            None => (Vec::new(), None),
        };
        let (Some(placement), Some(moved)) = self.place_decided(Level::Written, decide).await? else {
            return Err(Failure::new(
                Status::ReceiptExpired,
                "the lease has ended, or the message was acknowledged or delivered again",
            ));
        };
        let receipt = &change.receipt;
        self.announce(receipt.key.topic);
        self.writer.settled(Level::Written, placement).await?;
        let lease_until = self.steady.on_the_wall(moved.lease_until);
        Ok(Receipt { leased_at: moved.leased_at, lease_until, ..*receipt })
    }

    /// The lease as it is to be from now on; `None` when it does not run any more.
    fn moved_lease(&self, change: &ChangeLease) -> Option<(LeaseChange, Run)> {
        let now = self.steady.now();
        let ChangeLease { group, receipt, lease } = change;
        let leases = self.leases();
        let (_, run) = leases.get(group, receipt.key)?.leased(receipt, now)?;
        let moved = Run {
            open: 1,
            leased_at: Timestamp(now.0.max(run.leased_at.0 + 1)),
            lease_until: self.steady.end_of(*lease),
            ..run
        };
        let change = LeaseChange::Leased {
            group: group.clone(),
            key: receipt.key,
            next: receipt.offset.advance(1),
            mask: Mask { first: receipt.offset, bits: 1 },
            run: moved,
        };
        Some((change, moved))
    }

    /// Acknowledges wherever the queues are. A shard that can not be asked fails its receipts, not the others.
    pub(in crate::broker) async fn acknowledge(
        &self,
        acknowledge: Acknowledge,
    ) -> Result<Vec<ReceiptOutcome>, Failure> {
        let max = crate::limits::ACKNOWLEDGE_RECEIPTS_MAX;
        if acknowledge.receipts.is_empty() || acknowledge.receipts.len() > max {
            let count = acknowledge.receipts.len();
            return Err(Failure::invalid(format_args!(
                "1 to {max} receipts are acknowledged at once, not {count}"
            )));
        }
        let Acknowledge { group, receipts } = acknowledge;
        let shard_count = self.options.shard_count;
        let of_shard = |shard: ShardId| -> Vec<usize> {
            let indices = receipts.iter().enumerate();
            indices
                .filter(|(_, receipt)| receipt.key.queue.shard(shard_count) == shard)
                .map(|(at, _)| at)
                .collect()
        };
        let asked = (0..shard_count).map(ShardId).map(|shard| (shard, of_shard(shard)));
        let answers = asked.filter(|(_, indices)| !indices.is_empty()).map(|(shard, indices)| {
            let chosen: Vec<_> = indices.iter().map(|at| receipts[*at]).collect();
            let group = group.clone();
            async move { (indices, self.acknowledge_on(shard, group, chosen).await) }
        });
        let answers = futures_util::future::join_all(answers).await;
        let all_failed = answers.iter().all(|(_, answer)| answer.is_err());
        let mut outcomes = vec![ReceiptOutcome::Failed; receipts.len()];
        for (indices, answer) in answers {
            match answer {
                Ok(found) => indices.into_iter().zip(found).for_each(|(at, outcome)| outcomes[at] = outcome),
                Err(failure) if all_failed => return Err(failure),
                Err(_) => {}
            }
        }
        Ok(outcomes)
    }
}

fn is_acknowledged(outcome: &ReceiptOutcome) -> bool {
    *outcome == ReceiptOutcome::Acknowledged
}
