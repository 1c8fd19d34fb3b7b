//! Asking producers about their undecided messages.

use std::rc::Rc;
use std::time::Duration;

use futures_util::future::select_all;

use crate::api::{Failure, HalfMessage, ReceiveHalves, Status};
use crate::broker::client_requests::unexpected;
use crate::broker::peers::{HalvesRequest, PeerReply, PeerRequest};
use crate::broker::recipient::Recipient;
use crate::broker::shard_broker::Broker;
use crate::disk::Disk;
use crate::limits;
use crate::state::Change;
use crate::state::{Half, HeldChange};
use crate::types::{HalfReceipt, Level, MonotonicTime, ShardId, Timestamp, TopicId};
use crate::wire::batch::{BatchHeader, stored_records};

/// How long a wait lasts at most until the shards are asked again.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// The pause when a shard has too many requests waiting to be waited on.
const BUSY_PAUSE: Duration = Duration::from_millis(200);

impl<D: Disk> Broker<D> {
    /// Hands out undecided messages of the whole node: this shard's first, and the first shard's that has any.
    pub(in crate::broker) async fn receive_halves(
        self: &Rc<Self>,
        request: ReceiveHalves,
        recipient: &impl Recipient,
    ) -> Result<Vec<HalfMessage>, Failure> {
        if !(1..=limits::RECEIVE_MESSAGES_MAX).contains(&request.count) {
            let max = limits::RECEIVE_MESSAGES_MAX;
            return Err(Failure::invalid(format!("1 to {max} messages are received, not {}", request.count)));
        }
        let wait = request.wait.min(Duration::from_millis(u64::from(limits::RECEIVE_WAIT_MS_MAX)));
        let deadline = self.clock.monotonic().after(wait);
        loop {
            self.topic_of(&request)?;
            let Some(reservation) = recipient.reserve().await else { return Ok(Vec::new()) };
            let found = self.halves_anywhere(&request).await?;
            drop(reservation);
            if !found.is_empty() || self.clock.monotonic() >= deadline || self.is_shutting_down.get() {
                return Ok(found);
            }
            let waiting = self.wait_anywhere(&request, deadline);
            futures_lite::future::or(waiting, recipient.gone()).await;
        }
    }

    /// Carries out what another shard asks about halves.
    pub(in crate::broker) async fn handle_halves(
        &self,
        request: HalvesRequest,
    ) -> Result<PeerReply, Failure> {
        match request {
            HalvesRequest::Find(location) => self.find_half_here(location).await.map(PeerReply::FoundHalf),
            HalvesRequest::Take(request) => self.take_halves(&request).await.map(PeerReply::Halves),
            HalvesRequest::Await(request) => {
                self.await_halves(&request).await;
                Ok(PeerReply::Done)
            }
            HalvesRequest::AskProducer { client, check } => {
                Ok(PeerReply::ProducerAsked(self.ask_producer_here(&client, &check)))
            }
        }
    }

    async fn halves_anywhere(self: &Rc<Self>, request: &ReceiveHalves) -> Result<Vec<HalfMessage>, Failure> {
        let found = self.take_halves(request).await?;
        if !found.is_empty() {
            return Ok(found);
        }
        for shard in self.other_shards() {
            match self.peers()?.ask(shard, PeerRequest::Halves(HalvesRequest::Take(request.clone()))).await? {
                PeerReply::Halves(found) if found.is_empty() => {}
                PeerReply::Halves(found) => return Ok(found),
                other => return Err(unexpected(&other)),
            }
        }
        Ok(Vec::new())
    }

    /// Waits until some shard may have something, or the time is up.
    async fn wait_anywhere(self: &Rc<Self>, request: &ReceiveHalves, deadline: MonotonicTime) {
        let left = deadline.since(self.clock.monotonic()).min(WAIT_MAX);
        let request = ReceiveHalves { wait: left, ..request.clone() };
        let mut waits: Vec<std::pin::Pin<Box<dyn Future<Output = ()>>>> = Vec::new();
        let own = self.clone();
        let here = request.clone();
        waits.push(Box::pin(async move { own.await_halves(&here).await }));
        if let Ok(peers) = self.peers() {
            for shard in self.other_shards() {
                let answer = peers.ask(shard, PeerRequest::Halves(HalvesRequest::Await(request.clone())));
                let clock = self.clock.clone();
                waits.push(Box::pin(async move {
                    if answer.await.is_err() {
                        clock.sleep(BUSY_PAUSE).await;
                    }
                }));
            }
        }
        select_all(waits).await;
    }

    fn other_shards(&self) -> impl Iterator<Item = ShardId> + use<D> {
        let own = self.options.shard;
        (0..self.options.shard_count).map(ShardId).filter(move |shard| *shard != own)
    }

    fn topic_of(&self, request: &ReceiveHalves) -> Result<TopicId, Failure> {
        let tables = self.tables();
        let missing =
            || Failure::new(Status::TopicNotExist, format!("topic {} does not exist", request.topic));
        tables.topic_named(&request.topic).map(|topic| topic.id).ok_or_else(missing)
    }

    /// Waits until this shard may have a half to hand out, or the request's time is up.
    pub(in crate::broker) async fn await_halves(&self, request: &ReceiveHalves) {
        let deadline = self.clock.monotonic().after(request.wait.min(WAIT_MAX));
        while let Ok(topic) = self.topic_of(request) {
            let left = deadline.since(self.clock.monotonic());
            let now = self.steady.now();
            let next = self.held().halves.next_check(topic, &request.producer_group);
            let until_next = next.map_or(left, |next| Duration::from_millis(next.0.saturating_sub(now.0)));
            if left.is_zero() || until_next.is_zero() || self.writer.is_stopped() {
                return;
            }
            let timer = self.clock.sleep(left.min(until_next));
            futures_lite::future::or(self.halves_changed.changed(), timer).await;
        }
    }

    /// Hands out halves of this shard.
    pub(in crate::broker) async fn take_halves(
        &self,
        request: &ReceiveHalves,
    ) -> Result<Vec<HalfMessage>, Failure> {
        let topic = self.topic_of(request)?;
        let now = self.steady.now();
        let count = request.count.min(limits::RECEIVE_MESSAGES_MAX) as usize;
        let interval = self.live.get().transaction_check_interval.max(Duration::from_millis(1));
        let next_check = self.steady.end_of(interval);
        let due = {
            let mut state = self.state.borrow_mut();
            let mut due = state.held().halves.due(topic, &request.producer_group, now, count);
            due.truncate(fitting(&due));
            // From here on nobody else gets them.
            due.iter().for_each(|half| state.hand_out(half.position, next_check));
            due
        };
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let wanted: Vec<_> = due.iter().map(|half| (half.current, half.batch_bytes)).collect();
        let found = self.batches_at(&wanted).await?;
        let checked = Checked { now, next_check };
        let placing = self.writer.place(|| {
            // Some may be decided on while this waits for the disk, or for room in the log.
            let open = |half: &Half| self.held().halves.open(half.position).is_some();
            let read = due.iter().zip(&found).filter(|(half, _)| open(half));
            let messages: Vec<_> = read
                .filter_map(|(half, bytes)| self.half_message(half, bytes.as_deref()?, checked))
                .collect();
            if messages.is_empty() {
                return Ok(None);
            }
            let changed = |message: &HalfMessage| {
                let (half, checks) = (message.receipt.position, message.checks);
                Change::Held(HeldChange::HalfChecked { half, checks, checked: now, next_check })
            };
            let changes: Vec<_> = messages.iter().map(changed).collect();
            let placement = self.writer.try_changes(changes, Level::Written)?;
            Ok(Some((placement, messages)))
        });
        let Some((placement, messages)) = placing.await? else { return Ok(Vec::new()) };
        self.writer.settled(Level::Written, placement).await?;
        self.metrics.transactions_checked.add(messages.len() as u64);
        Ok(messages)
    }

    pub(super) fn half_message(&self, half: &Half, bytes: &[u8], checked: Checked) -> Option<HalfMessage> {
        let header = BatchHeader::decode(bytes).ok()?;
        let record = stored_records(bytes).next()?;
        let shown = |moment| self.steady.on_the_wall(moment);
        Some(HalfMessage {
            receipt: HalfReceipt { key: half.key, position: half.position },
            record: record.as_bytes().to_vec().into(),
            born_time: header.born_time,
            store_time: shown(half.store_time),
            first_check: shown(if half.checks == 0 { checked.now } else { half.first_check }),
            next_check: shown(checked.next_check),
            checks: half.checks + 1,
        })
    }
}

/// When halves are handed out, and when next.
#[derive(Clone, Copy)]
pub(super) struct Checked {
    pub now: Timestamp,
    pub next_check: Timestamp,
}

/// How many of these one answer holds: the first always, whatever its size.
pub(super) fn fitting(due: &[Half]) -> usize {
    let mut bytes = 0;
    let fits = |half: &&Half| {
        let is_first = bytes == 0;
        bytes += half.batch_bytes as usize;
        is_first || bytes <= limits::RECEIVE_BYTES_MAX
    };
    due.iter().take_while(fits).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{LogPosition, QueueKey, QueueNumber};

    #[test]
    fn an_answer_holds_the_first_half_whatever_its_size_and_others_while_they_fit() {
        let half = |batch_bytes: usize| Half {
            key: QueueKey { topic: TopicId(1), queue: QueueNumber(0) },
            position: LogPosition(8),
            current: LogPosition(8),
            batch_bytes: batch_bytes as u32,
            store_time: Timestamp(0),
            first_check: Timestamp(0),
            next_check: Timestamp(0),
            checks: 0,
            producer_group: None,
        };
        let fitting_of = |sizes: &[usize]| fitting(&sizes.iter().map(|size| half(*size)).collect::<Vec<_>>());
        let most = limits::RECEIVE_BYTES_MAX;
        assert_eq!(fitting_of(&[]), 0);
        assert_eq!(fitting_of(&[limits::BATCH_BYTES_MAX, 100]), 1);
        assert_eq!(fitting_of(&[most - 100, 100, 100]), 2);
        assert_eq!(fitting_of(&[100; 32]), 32);
    }
}
