//! Asking producers that are connected about their undecided messages, as RocketMQ's brokers do
//! (`broker/.../transaction/queue/TransactionalMessageServiceImpl.java`, `check`). Those that receive them ask by themselves:
//! `receive_halves`. Both count together.
//!
//! What no producer could be asked about is not counted, and stays due.

use std::rc::Rc;
use std::time::Duration;

use super::receive_halves::{Checked, fitting};
use crate::api::{Failure, HalfMessage, Producer};
use crate::broker::client_requests::unexpected;
use crate::broker::copied_message::undecided_message;
use crate::broker::peers::{HalvesRequest, PeerReply, PeerRequest};
use crate::broker::shard_broker::Broker;
use crate::disk::Disk;
use crate::state::{Change, Half, HeldChange};
use crate::types::{GroupName, Level, ShardId, Timestamp, TopicName};
use crate::wire::batch::{BatchHeader, stored_records};
use crate::wire::properties::names;

/// Halves of one group that are asked about before others have their turn.
const ROUND_HALVES: usize = 128;
/// The pause between two rounds, in which others run.
const ROUND_PAUSE: Duration = Duration::from_millis(20);
/// Groups that are looked at in one go.
const GROUPS_AT_ONCE: usize = 256;
/// When those are asked again that did not take a question, and after a failure.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Producers of a group that are tried for one half, as RocketMQ's `getAvailableChannel` does.
const PRODUCERS_TRIED: usize = 3;

/// A question to a producer.
#[derive(Clone, Debug)]
pub struct ProducerCheck {
    pub producer_group: GroupName,
    /// The shard that has the half.
    pub shard: ShardId,
    pub topic: TopicName,
    /// Its record has the properties that say what it is.
    pub half: HalfMessage,
}

/// How a client that is connected to this shard is asked; whether one of its connections has taken the question.
pub type ProducerNotice = Rc<dyn Fn(&str, &ProducerCheck) -> bool>;

impl<D: Disk> Broker<D> {
    /// Sets how producers are asked.
    pub fn set_producer_notice(&self, notice: ProducerNotice) {
        *self.spreading.producer_notice.borrow_mut() = Some(notice);
    }

    /// The task that asks producers; ends after [`stop`](Broker::stop), or when the log has failed.
    pub async fn run_checks(self: &Rc<Self>) {
        while !self.writer.is_stopped() && !self.log.watermarks().has_failed() {
            let next = match self.check_round().await {
                Ok(next) => next,
                // The reason is shown by `status`, or is the topic of the next try.
                Err(_) => Some(self.steady.end_of(LOOK_AGAIN)),
            };
            match next {
                Some(next) => {
                    let wait = Duration::from_millis(next.0.saturating_sub(self.steady.now().0));
                    let timer = self.clock.sleep(wait);
                    futures_lite::future::or(self.halves_changed.changed(), timer).await;
                }
                None => self.halves_changed.changed().await,
            }
            self.clock.sleep(ROUND_PAUSE).await;
        }
    }

    /// Asks about what is due, and says when to look again: `None` while there is nothing that anybody is to be asked about.
    async fn check_round(self: &Rc<Self>) -> Result<Option<Timestamp>, Failure> {
        let mut again = None;
        let mut last = None;
        for number in 1_usize.. {
            let Some(group) = self.held().halves.next_group(last.as_ref()) else { break };
            // A group's first producer wakes the task.
            if self.next_producer(&group, None).is_some() {
                self.check_group(&group).await?;
                again = again.into_iter().chain(self.held().halves.next_check_of_group(&group)).min();
            }
            last = Some(group);
            if number % GROUPS_AT_ONCE == 0 {
                self.clock.sleep(ROUND_PAUSE).await;
            }
        }
        Ok(again)
    }

    /// Asks the producers of a group about some of its halves.
    async fn check_group(self: &Rc<Self>, group: &GroupName) -> Result<(), Failure> {
        let now = self.steady.now();
        let interval = self.live.get().transaction_check_interval.max(Duration::from_millis(1));
        let checked = Checked { now, next_check: self.steady.end_of(interval) };
        let due = {
            let mut state = self.state.borrow_mut();
            let mut due = state.held().halves.due_of_group(group, now, ROUND_HALVES);
            due.truncate(fitting(&due));
            // From here on nobody else gets them.
            due.iter().for_each(|half| state.hand_out(half.position, checked.next_check));
            due
        };
        let wanted: Vec<_> = due.iter().map(|half| (half.current, half.batch_bytes)).collect();
        let found = self.batches_at(&wanted).await?;
        let mut asked = Vec::new();
        let mut producer = None;
        for (half, bytes) in due.iter().zip(&found) {
            let Some(check) = bytes.as_deref().and_then(|bytes| self.producer_check(half, bytes, checked))
            else {
                // It waits for the end of its time.
                continue;
            };
            match self.ask_producer(check, &mut producer).await {
                true => asked.push(half),
                false => self.state.borrow_mut().hand_out(half.position, self.steady.end_of(LOOK_AGAIN)),
            }
        }
        self.count_checks(&asked, checked).await
    }

    /// Stores that producers were asked about these halves, as far as they have not answered meanwhile.
    async fn count_checks(&self, asked: &[&Half], checked: Checked) -> Result<(), Failure> {
        let Checked { now, next_check } = checked;
        let placing = self.writer.place(|| {
            let is_open = |half: &&&Half| self.held().halves.open(half.position).is_some();
            let counted = |half: &&Half| {
                let (half, checks) = (half.position, half.checks + 1);
                Change::Held(HeldChange::HalfChecked { half, checks, checked: now, next_check })
            };
            let changes: Vec<_> = asked.iter().filter(is_open).map(counted).collect();
            if changes.is_empty() {
                return Ok(None);
            }
            self.writer.try_changes(changes, Level::Written).map(Some)
        });
        if let Some(placement) = placing.await? {
            self.writer.settled(Level::Written, placement).await?;
        }
        self.metrics.transactions_checked.add(asked.len() as u64);
        Ok(())
    }

    /// The question about a half; `None` where its topic is gone, or its bytes are.
    fn producer_check(&self, half: &Half, bytes: &[u8], checked: Checked) -> Option<ProducerCheck> {
        let header = BatchHeader::decode(bytes).ok()?;
        let topic = self.topic_name(half.key.topic)?;
        // Clients count the queues of one broker.
        let queue = (half.key.queue.0 / u32::from(self.options.shard_count)).to_string();
        let checks = (half.checks + 1).to_string();
        let said = [
            (names::TRANSACTION_PREPARED, "true"),
            (names::REAL_TOPIC, topic.as_str()),
            (names::REAL_QUEUE, &queue),
            (names::TRANSACTION_CHECKS, &checks),
        ];
        let shown = undecided_message(stored_records(bytes).next()?, header.born_time, &said);
        let record = stored_records(shown.view().as_bytes()).next()?.as_bytes().to_vec().into();
        let half_message = HalfMessage { record, ..self.half_message(half, bytes, checked)? };
        Some(ProducerCheck {
            producer_group: half.producer_group.clone()?,
            shard: self.options.shard,
            topic,
            half: half_message,
        })
    }

    /// Asks the producer that comes after `last`, or one after that; whether one of them has taken the question.
    async fn ask_producer(&self, check: ProducerCheck, last: &mut Option<Producer>) -> bool {
        for _ in 0..PRODUCERS_TRIED {
            let Some(producer) = self.next_producer(&check.producer_group, last.as_ref()) else {
                return false;
            };
            let (shard, client) = (producer.connection.shard, producer.client.clone());
            *last = Some(producer);
            let is_asked = match shard == self.options.shard {
                true => self.ask_producer_here(&client, &check),
                false => self.ask_producer_there(shard, client, &check).await.unwrap_or(false),
            };
            if is_asked {
                return true;
            }
        }
        false
    }

    async fn ask_producer_there(
        &self,
        shard: ShardId,
        client: String,
        check: &ProducerCheck,
    ) -> Result<bool, Failure> {
        let request = HalvesRequest::AskProducer { client, check: Box::new(check.clone()) };
        match self.peers()?.ask(shard, PeerRequest::Halves(request)).await? {
            PeerReply::ProducerAsked(is_asked) => Ok(is_asked),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks a client that is connected to this shard.
    pub(in crate::broker) fn ask_producer_here(&self, client: &str, check: &ProducerCheck) -> bool {
        let notice = self.spreading.producer_notice.borrow().clone();
        notice.is_some_and(|notice| notice(client, check))
    }
}
