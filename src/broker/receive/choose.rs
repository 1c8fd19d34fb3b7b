//! Receiving from the queues of one shard.

use std::time::Duration;

use bytes::Bytes;

use super::answer_budget::AnswerBudget;
use super::pair_locks::{Pair, PairGuard};
use crate::api::{Failure, Receive, ReceivedMessage, Status};
use crate::broker::groups::Gate;
use crate::broker::reader::{Selection, StoredRecord, Taker};
use crate::broker::shard_broker::{Broker, owned_queues};
use crate::broker::steady::after;
use crate::broker::topics::topic_missing;
use crate::broker::writer::PlaceRefusal;
use crate::disk::Disk;
use crate::limits;
use crate::log::Placement;
use crate::state::{Change, LeaseChange, QueueLeases, Run};
use crate::types::{GroupName, Level, LogPosition, QueueKey, QueueOffset, Receipt, Timestamp, TopicId};

/// To look at more queues takes a good part of a slice of time, also where nothing is found.
const MANY_QUEUES: usize = 64;

/// What a receive on one shard came to.
#[derive(Clone, Debug, Default)]
pub struct Received {
    pub messages: Vec<ReceivedMessage>,
    /// Nothing was found, but it is worth asking again at once: a filter left out as many messages as one look covers,
    /// or dead letters were moved.
    pub again: bool,
    /// There is something that the group may not have now.
    pub refused: Option<Failure>,
}

/// How the messages of a group are leased.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) struct Terms {
    pub lease: Duration,
    pub deliveries_max: u32,
}

/// Messages chosen from one queue, and what is to be noted about them.
struct Choice {
    messages: Vec<ReceivedMessage>,
    changes: Vec<LeaseChange>,
    /// What the redelivered messages were in when they were chosen.
    redelivered: Vec<(QueueOffset, Run)>,
    again: bool,
    refused: Option<Failure>,
    left: AnswerBudget,
}

/// What the leases say about a queue before messages are chosen.
struct Look {
    next: QueueOffset,
    /// To be delivered again.
    ended: Vec<(QueueOffset, Run)>,
    /// Delivered as often as the group allows.
    exhausted: Vec<(QueueOffset, Run)>,
    /// In order, and a lease is running.
    is_blocked: bool,
}

impl<D: Disk> Broker<D> {
    /// Leases messages of this shard's queues, without waiting for any to come. The leases have reached the device when
    /// this is answered.
    pub(in crate::broker) async fn receive_here(&self, receive: &Receive) -> Result<Received, Failure> {
        if self.is_shutting_down.get() {
            return Err(Failure::new(Status::ShuttingDown, "the broker is shutting down: try again later"));
        }
        let (topic, queue_count) = self.topic_layout(&receive.topic)?;
        let terms = self.terms(receive);
        let mut keys: Vec<_> = match receive.scope.queue() {
            Some(queue) => vec![QueueKey { topic, queue }],
            None => owned_queues(topic, queue_count, &self.options).collect(),
        };
        let count = self.receive_round_robin.get();
        self.receive_round_robin.set(count.wrapping_add(1));
        let rotation = count as usize % keys.len().max(1);
        keys.rotate_left(rotation);
        let mut received = Received::default();
        let mut end = None;
        let mut budget = AnswerBudget::of(receive);
        let mut taken = Vec::new();
        let mut slice = self.time_slice();
        if keys.len() > MANY_QUEUES {
            slice.next().await;
        }
        for key in keys {
            slice.yield_if_over().await;
            if budget.is_full() {
                break;
            }
            match self.pair_locks.try_lock(Pair { key, group: receive.group.clone() }) {
                Some(guard) => {
                    let placed =
                        self.receive_from(guard, receive, &terms, &mut budget, &mut received).await?;
                    end = end.max(placed);
                }
                None => taken.push(key),
            }
        }
        // Others are choosing there, and may leave something.
        for key in taken {
            if !received.messages.is_empty() {
                break;
            }
            let guard = self.pair_locks.lock(Pair { key, group: receive.group.clone() }).await;
            end = end.max(self.receive_from(guard, receive, &terms, &mut budget, &mut received).await?);
        }
        if let Some(end) = end {
            self.writer.reached(Level::Written, end).await?;
        }
        self.note_received(&received.messages);
        let mut tallies = self.metrics.tallies.borrow_mut();
        for message in &received.messages {
            tallies.given(Some(&receive.group), message.receipt.key.topic, 1, message.record.len() as u64);
        }
        drop(tallies);
        received.again &= received.messages.is_empty();
        Ok(received)
    }

    fn note_received(&self, messages: &[ReceivedMessage]) {
        let queues = self.queues.borrow();
        for message in messages {
            let bytes = message.record.len() as u64;
            self.metrics.bytes_received.add(bytes);
            if let Some(queue) = queues.get(&message.receipt.key) {
                queue.traffic.note_given(1, bytes);
            }
        }
        self.metrics.messages_received.add(messages.len() as u64);
    }

    /// Adds what one queue has, and returns where the leases end in the log.
    async fn receive_from(
        &self,
        guard: PairGuard<'_>,
        receive: &Receive,
        terms: &Terms,
        budget: &mut AnswerBudget,
        received: &mut Received,
    ) -> Result<Option<LogPosition>, Failure> {
        let key = guard.key();
        let gate_now = || self.gate(&receive.group, key);
        let (gate, resets) = (gate_now(), self.state.borrow().lease_resets());
        if gate == Gate::Draining {
            return Ok(None);
        }
        let now = self.steady.upcoming();
        let until = after(now, terms.lease);
        let deal = Deal { receive, key, gate, terms, now, until };
        let choice = self.choose(&deal, *budget).await?;
        received.again |= choice.again;
        if choice.refused.is_some() {
            received.refused = choice.refused;
        }
        if choice.changes.is_empty() {
            return Ok(None);
        }
        // Whoever waits for room may have been overtaken: by a reset, by another holder of the queue, or by an
        // acknowledgement, where the clock has been set back since the lease ended.
        let still_valid = || {
            let leases = self.leases();
            let pair = leases.get(&receive.group, key);
            let is_as_chosen = |(first, run): &(QueueOffset, Run)| {
                pair.is_some_and(|pair| pair.find(*first) == Some((*first, *run)))
            };
            self.state.borrow().lease_resets() == resets
                && gate_now() == gate
                && choice.redelivered.iter().all(is_as_chosen)
        };
        let Some(placement) = self.place_leases(&choice.changes, Level::Written, still_valid).await? else {
            received.again = true;
            return Ok(None);
        };
        self.note_use(&receive.group);
        *budget = choice.left;
        received.messages.extend(choice.messages);
        Ok(Some(placement.end))
    }

    /// Id and number of queues of a topic.
    pub fn topic_layout(&self, name: &crate::types::TopicName) -> Result<(TopicId, u32), Failure> {
        let tables = self.tables();
        let topic = tables.topic_named(name).ok_or_else(|| topic_missing(&tables, name))?;
        Ok((topic.id, topic.queue_count))
    }

    pub(in crate::broker) fn terms(&self, receive: &Receive) -> Terms {
        let tables = self.tables();
        let settings = tables.group_settings(&receive.group);
        let defaults = self.live.get().leases;
        let of_group = |ordered: bool| match (settings, ordered) {
            (Some(settings), false) => settings.lease.unwrap_or(defaults.lease),
            (Some(settings), true) => settings.ordered_lease.unwrap_or(defaults.ordered_lease),
            (None, false) => defaults.lease,
            (None, true) => defaults.ordered_lease,
        };
        let deliveries_max = settings.and_then(|settings| settings.deliveries_max);
        Terms {
            lease: receive.lease.unwrap_or_else(|| of_group(receive.ordered)),
            deliveries_max: deliveries_max.unwrap_or(defaults.deliveries_max),
        }
    }

    /// Where a group goes on that has not received from the queue before: where it committed, or at the first message.
    /// A start at the end, RocketMQ's choice for old topics, would lose what was sent before the consumer.
    fn first_look(&self, group: &GroupName, key: QueueKey) -> Result<QueueOffset, Failure> {
        let queue = self.queue(key)?;
        let (first, end) = self.bounds(&queue);
        let committed = self.tables().committed(group, key);
        Ok(committed.map_or(first, |committed| committed.clamp(first, end)))
    }

    async fn choose(&self, deal: &Deal<'_>, budget: AnswerBudget) -> Result<Choice, Failure> {
        let Deal { receive, key, .. } = *deal;
        let look = self.look(deal)?;
        let nothing = Choice {
            messages: Vec::new(),
            changes: Vec::new(),
            redelivered: Vec::new(),
            again: false,
            refused: None,
            left: budget,
        };
        let mut choice = nothing;
        if look.is_blocked {
            return Ok(choice);
        }
        let stuck = self.dead_letter_all(&receive.group, key, &look.exhausted).await;
        choice.again |= stuck.len() < look.exhausted.len();
        for (first, run) in &look.ended {
            if choice.left.is_full() {
                break;
            }
            self.deliver_again(deal, *first, run, &mut choice).await?;
        }
        // In order, nothing new comes before the old is dealt with.
        let open = self.leases().get(&receive.group, key).map_or(0, QueueLeases::open_count);
        let stuck: u64 = stuck.iter().map(|(_, run)| u64::from(run.open.count_ones())).sum();
        let must_wait = (receive.ordered && open > stuck) || deal.gate == Gate::Closed;
        if !choice.left.is_full() && !must_wait {
            self.deliver_new(deal, look.next, &mut choice).await?;
        }
        Ok(choice)
    }

    fn look(&self, deal: &Deal<'_>) -> Result<Look, Failure> {
        let Deal { receive, key, terms, now, .. } = *deal;
        let leases = self.leases();
        let Some(pair) = leases.get(&receive.group, key) else {
            let first = self.first_look(&receive.group, key)?;
            let passed = self.passed.borrow().get(&receive.group, key).unwrap_or(first);
            let (ended, exhausted) = (Vec::new(), Vec::new());
            return Ok(Look { next: passed.max(first), ended, exhausted, is_blocked: false });
        };
        let count = limits::RECEIVE_MESSAGES_MAX as usize;
        let is_exhausted = |run: &Run| run.deliveries >= terms.deliveries_max;
        Ok(Look {
            next: pair.next(),
            ended: pair.ended_of(now, count, |run| !is_exhausted(run)),
            exhausted: pair.ended_of(now, count, is_exhausted),
            is_blocked: receive.ordered && pair.has_running(now),
        })
    }

    /// Messages whose lease has ended, as far as they are wanted.
    async fn deliver_again(
        &self,
        deal: &Deal<'_>,
        first: QueueOffset,
        run: &Run,
        choice: &mut Choice,
    ) -> Result<(), Failure> {
        let leased_at = Timestamp(deal.now.0.max(run.leased_at.0 + 1));
        let lease_until = deal.until;
        // One that was given back was delivered to nobody yet.
        let first_delivery = if run.deliveries == 0 { deal.now } else { run.first_delivery };
        let (shown_until, shown_first) =
            (self.steady.on_the_wall(lease_until), self.steady.on_the_wall(first_delivery));
        let (mut found, mut gone) = (Vec::new(), Vec::new());
        for offset in run.offsets(first) {
            if choice.left.is_full() {
                break;
            }
            match self.message(deal.key, offset).await? {
                Some(message) if !choice.left.take(message.record.len()) => break,
                Some(message) => {
                    found.push(offset);
                    choice.messages.push(ReceivedMessage {
                        receipt: Receipt { key: deal.key, offset, leased_at, lease_until: shown_until },
                        location: Some(message.location),
                        record: message.record,
                        born_time: message.born_time,
                        store_time: message.store_time,
                        first_delivery: shown_first,
                        deliveries: run.deliveries + 1,
                    });
                }
                // Retention took it, or its bytes are damaged.
                None => gone.push(offset),
            }
        }
        if !found.is_empty() || !gone.is_empty() {
            choice.redelivered.push((first, *run));
        }
        let (group, key) = (deal.receive.group.clone(), deal.key);
        for mask in QueueLeases::masks(&gone) {
            choice.changes.push(LeaseChange::Ended { group: group.clone(), key, mask });
        }
        for mask in QueueLeases::masks(&found) {
            let deliveries = run.deliveries + 1;
            let run = Run { open: mask.bits, leased_at, lease_until, first_delivery, deliveries };
            // What is delivered again lies below what was looked at.
            let next = QueueOffset::ZERO;
            choice.changes.push(LeaseChange::Leased { group: group.clone(), key, next, mask, run });
        }
        Ok(())
    }

    /// Messages from `next` on that pass the filter.
    async fn deliver_new(
        &self,
        deal: &Deal<'_>,
        next: QueueOffset,
        choice: &mut Choice,
    ) -> Result<(), Failure> {
        let queue = self.queue(deal.key)?;
        // As of one moment: a lease that began before its message came would have a delayed one leased before its time.
        let now = self.steady.upcoming();
        let until = after(now, deal.terms.lease);
        let deal = &Deal { now, until, ..*deal };
        let (first, end) = self.bounds(&queue);
        let from = next.max(first);
        if from >= end {
            return Ok(());
        }
        choice.refused = self.lease_refusal(&deal.receive.group, Some(deal.key));
        if choice.refused.is_some() {
            return Ok(());
        }
        let shown_until = self.steady.on_the_wall(deal.until);
        let shown_now = self.steady.on_the_wall(deal.now);
        let mut fresh = Fresh { deal, shown_until, shown_now, choice, offsets: Vec::new() };
        let selection = Selection::new(&deal.receive.filter);
        let walked_to = self.walk(deal.key, from..end, &selection, &mut fresh).await?;
        let offsets = fresh.offsets;
        let (group, key) = (deal.receive.group.clone(), deal.key);
        if offsets.is_empty() && walked_to > next {
            choice.again |= walked_to < end;
            if self.is_stored(&group) {
                choice.changes.push(LeaseChange::Passed { group, key, next: walked_to });
            } else {
                // Nothing is stored for a group that has got nothing: whoever makes up names would fill the log.
                self.passed.borrow_mut().set(group, key, walked_to, limits::SHARD_PASSED_MAX);
            }
            return Ok(());
        }
        for mask in QueueLeases::masks(&offsets) {
            let Deal { now, until, .. } = *deal;
            let run = Run {
                open: mask.bits,
                leased_at: now,
                lease_until: until,
                first_delivery: now,
                deliveries: 1,
            };
            let group = group.clone();
            choice.changes.push(LeaseChange::Leased { group, key, next: walked_to, mask, run });
        }
        Ok(())
    }

    /// Whether anything is stored of a group but its settings.
    fn is_stored(&self, group: &GroupName) -> bool {
        self.leases().holding(group).pairs > 0 || self.tables().has_offsets(group)
    }

    /// Places changes of leases in the log; `None` when they are not valid any more by the time
    /// there is room for them.
    pub(in crate::broker) async fn place_leases(
        &self,
        changes: &[LeaseChange],
        level: Level,
        still_valid: impl Fn() -> bool,
    ) -> Result<Option<Placement>, Failure> {
        let attempt = || match still_valid() {
            true => self.try_place_leases(changes, level).map(Some),
            false => Ok(None),
        };
        self.writer.place(attempt).await
    }

    /// Places the changes that `decide` decides on; returns what else it has decided. Without changes
    /// nothing is placed.
    pub(in crate::broker) async fn place_decided<T>(
        &self,
        level: Level,
        decide: impl Fn() -> (Vec<LeaseChange>, T),
    ) -> Result<(Option<Placement>, T), Failure> {
        let attempt = || {
            let (changes, decision) = decide();
            if changes.is_empty() {
                return Ok((None, decision));
            }
            let placement = self.try_place_leases(&changes, level)?;
            Ok((Some(placement), decision))
        };
        self.writer.place(attempt).await
    }

    fn try_place_leases(&self, changes: &[LeaseChange], level: Level) -> Result<Placement, PlaceRefusal> {
        let changes: Vec<_> = changes.iter().cloned().map(Change::Lease).collect();
        self.writer.try_changes(changes, level)
    }
}

/// A receive of one queue at one moment.
struct Deal<'a> {
    receive: &'a Receive,
    key: QueueKey,
    gate: Gate,
    terms: &'a Terms,
    now: Timestamp,
    /// When the leases end.
    until: Timestamp,
}

/// Messages that are given to the group for the first time.
struct Fresh<'a> {
    deal: &'a Deal<'a>,
    shown_until: Timestamp,
    shown_now: Timestamp,
    choice: &'a mut Choice,
    offsets: Vec<QueueOffset>,
}

impl Taker for Fresh<'_> {
    fn missing(&self) -> usize {
        let left = &self.choice.left;
        if left.is_full() { 0 } else { left.messages }
    }

    fn take(&mut self, stored: &StoredRecord<'_>) -> bool {
        let record = stored.record.as_bytes();
        if !self.choice.left.take(record.len()) {
            return false;
        }
        let Deal { key, now, .. } = *self.deal;
        self.offsets.push(stored.offset);
        self.choice.messages.push(ReceivedMessage {
            receipt: Receipt { key, offset: stored.offset, leased_at: now, lease_until: self.shown_until },
            location: Some(stored.location),
            record: Bytes::copy_from_slice(record),
            born_time: stored.born_time,
            store_time: stored.store_time,
            first_delivery: self.shown_now,
            deliveries: 1,
        });
        true
    }
}
