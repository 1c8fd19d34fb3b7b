//! The broker of one shard: what it owns.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::find::KeyIndexing;
use super::groups::Gates;
use super::groups::Groups;
use super::groups::Receivers;
use super::hold::Recallers;
use super::options::{BrokerOptions, LiveOptions};
use super::peers::Peers;
use super::queue::{Arrivals, Queue};
use super::queue_ends::messages_in;
use super::reader::{BatchCache, Stretches, UnmadeTopics};
use super::readers::{ReaderCommits, ReaderLocks, Readers, Spreading};
use super::receive::{PairLocks, Passed, Refusal};
use super::stats::Rates;
use super::steady::SteadyTime;
use super::time_slice::{LongTasks, TimeSlice};
use super::topics::TopicMakers;
use super::upkeep::CheckpointDone;
use super::upkeep::IndexHealth;
use super::upkeep::Notices;
use super::writer::Writer;
use crate::api::{Failure, ShardAddress, Status};
use crate::clock::SharedClock;
use crate::disk::Disk;
use crate::index::Index;
use crate::log::{CommitLog, Damage, GivenUpRange, Report};
use crate::metrics::ShardMetrics;
use crate::state::{State, Topic};
use crate::types::{
    ClientMemory, GroupName, LogPosition, QueueKey, QueueNumber, QueueOffset, ShardId, TaskMutex, Throttle,
    TopicId, TopicName, WakerList,
};

/// One shard's broker. Owned by one executor and shared by its tasks.
///
/// 1. `queues` holds exactly the queues of the topics in `state` that this shard owns.
/// 2. `state`, index and `durable_end` of the queues change by what stands in the log only: when it is placed,
///    in `writer`, and when it is durable, in `apply`.
pub struct Broker<D: Disk> {
    pub(super) disk: D,
    pub(super) options: BrokerOptions,
    /// What counts of `options` where it can be changed.
    pub(super) live: Cell<LiveOptions>,
    pub(super) clock: SharedClock,
    pub(super) metrics: Rc<ShardMetrics>,
    pub(super) memory: Rc<ClientMemory>,
    pub(super) notices: Notices,
    pub(super) log: CommitLog<D>,
    pub(super) index: Index<D>,
    pub(super) writer: Writer<D>,
    pub(super) keys: KeyIndexing<D>,
    /// What the log makes of the shard. Borrowed for a moment, never over a wait. The writer tells it what was placed.
    pub(super) state: Rc<RefCell<State>>,
    pub(super) queues: RefCell<HashMap<QueueKey, Rc<Queue>>>,
    /// How far filters have looked for groups that have received nothing.
    pub(super) passed: RefCell<Passed>,
    /// The time that leases are measured by.
    pub(super) steady: SteadyTime,
    /// The last receive that a bound has refused.
    pub(super) refused: RefCell<Option<Refusal>>,
    pub(super) refusals_said: Throttle,
    pub(super) dead_letters_said: Throttle,
    /// Who chooses messages for a group in a queue.
    pub(super) pair_locks: PairLocks,
    /// What looks at thousands of things.
    pub(super) long_tasks: LongTasks,
    /// Batches that receives took some messages of.
    pub(super) batch_cache: RefCell<BatchCache>,
    /// What was read around batches that were looked into.
    pub(super) stretches: Rc<Stretches<D>>,
    /// Counts messages that are published without a queue and without a key, so that they go around the queues.
    pub(super) publish_round_robin: Cell<u32>,
    /// Counts receives, so that each starts at another queue.
    pub(super) receive_round_robin: Cell<u64>,
    /// What receivers of groups that have members may take.
    pub(super) gates: RefCell<Gates>,
    /// Who reads, whichever shard it said so to.
    pub(super) readers: RefCell<Readers>,
    pub(super) spreading: Spreading,
    /// What readers have committed and is not durable yet.
    pub(super) reader_commits: ReaderCommits,
    pub(super) reader_locks: ReaderLocks,
    /// Who receives through this shard.
    pub(super) receivers: RefCell<Receivers>,
    pub(super) arrivals: RefCell<HashMap<TopicId, Rc<Arrivals>>>,
    pub(super) unmade_topics: Rc<UnmadeTopics>,
    /// Used on the control shard only.
    pub(super) groups: RefCell<Groups>,
    /// One change of topics at a time, and none while a checkpoint is written.
    pub(super) topic_change: TaskMutex,
    /// Held by whoever moves delayed messages or halves about: loading, releasing, giving up, placing again.
    pub(super) held_lock: TaskMutex,
    /// Who has taken back what waits for its time.
    pub(super) recallers: RefCell<Recallers>,
    /// On the control shard: who has caused topics to be made.
    pub(super) topic_makers: RefCell<TopicMakers>,
    /// Woken for the timer task.
    pub(super) held_changed: WakerList,
    /// Woken when a half may be due earlier than the waiting know.
    pub(super) halves_changed: WakerList,
    /// Pending messages are placed again for retention when the log has reached this.
    pub(super) held_roll_at: Cell<LogPosition>,
    pub(super) peers: RefCell<Option<Rc<dyn Peers>>>,
    /// Refuses new messages while the shard is being stopped.
    pub(super) is_shutting_down: Cell<bool>,
    /// Base of the segment in which the newest checkpoint of the tables begins, once it is complete.
    pub(super) checkpoint_segment: Cell<Option<LogPosition>>,
    /// What that checkpoint was like.
    pub(super) checkpoint_done: Cell<Option<CheckpointDone>>,
    /// Groups for which something was stored since the control shard asked last.
    pub(super) used_groups: RefCell<HashSet<GroupName>>,
    /// Everything below is in a durable snapshot.
    pub(super) snapshot_position: Cell<LogPosition>,
    pub(super) snapshot_slot: Cell<u64>,
    /// Woken for the task that keeps house.
    pub(super) published: WakerList,
    /// The log position at which that task looks again.
    pub(super) housekeeping_at: Cell<LogPosition>,
    /// What recovery found damaged.
    pub(super) damage: Vec<Damage>,
    /// What of the log an operator gave up.
    pub(super) given_up: Vec<GivenUpRange>,
    /// The topics that come now are older than the log: this shard has lost what it had of them.
    pub(super) is_adopting: Cell<bool>,
    pub(super) index_health: Rc<IndexHealth>,
    /// What goes in and out in a second.
    pub(super) rates: RefCell<Rates>,
    /// What only the program around the shard can count.
    pub(super) host: RefCell<Option<HostCounters>>,
}

/// Counters of the thread that runs the shard (processor time, allocations, system calls), read for `status`. The
/// argument asks for system calls to be counted from now on.
pub type HostCounters = Box<dyn Fn(bool) -> Vec<(String, u64)>>;

/// A broker that has recovered, and what recovery found.
pub struct OpenedBroker<D: Disk> {
    pub broker: Rc<Broker<D>>,
    pub report: Report,
    /// Why the index was built from the log, when it was.
    pub rebuilt: Option<String>,
}

impl<D: Disk> Broker<D> {
    pub fn shard(&self) -> ShardId {
        self.options.shard
    }

    /// For a task of this shard that has much to do.
    pub(super) fn time_slice(&self) -> TimeSlice<'_> {
        TimeSlice::begin(&self.clock, &self.long_tasks)
    }

    /// Lets everybody else have the core, in the row of those who have much to do.
    pub async fn rest(&self) {
        self.time_slice().next().await;
    }

    pub fn options(&self) -> &BrokerOptions {
        &self.options
    }

    /// The settings that can be changed, as they are now.
    pub fn live(&self) -> LiveOptions {
        self.live.get()
    }

    /// Has others count from now on. What was decided by those before stays.
    pub fn set_live(&self, live: LiveOptions) {
        self.live.set(live);
    }

    pub fn metrics(&self) -> &Rc<ShardMetrics> {
        &self.metrics
    }

    /// What everything that is done for clients takes its memory from.
    pub fn memory(&self) -> &Rc<ClientMemory> {
        &self.memory
    }

    pub fn clock(&self) -> &SharedClock {
        &self.clock
    }

    pub fn log(&self) -> &CommitLog<D> {
        &self.log
    }

    pub fn index(&self) -> &Index<D> {
        &self.index
    }

    /// Gives the shard the counters of its thread.
    pub fn set_host_counters(&self, host: HostCounters) {
        *self.host.borrow_mut() = Some(host);
    }

    /// Connects the shard with the others of its node. Until then every request that needs one is refused.
    pub fn set_peers(&self, peers: Rc<dyn Peers>) {
        *self.peers.borrow_mut() = Some(peers);
        self.begin_expecting();
    }

    /// What clients are told of where each shard listens; empty while the node starts.
    pub fn shard_addresses(&self) -> Vec<ShardAddress> {
        self.peers.borrow().as_ref().map_or_else(Vec::new, |peers| peers.addresses())
    }

    pub(super) fn peers(&self) -> Result<Rc<dyn Peers>, Failure> {
        let starting = || Failure::new(Status::Busy, "the node is starting: try again");
        self.peers.borrow().clone().ok_or_else(starting)
    }

    /// The name of a topic, as far as this shard knows of it.
    pub fn topic_name(&self, id: TopicId) -> Option<TopicName> {
        self.tables().topic(id).map(|topic| topic.name.clone())
    }

    /// A queue by the name of its topic, for a sentence that a person reads.
    pub(super) fn queue_text(&self, key: QueueKey) -> String {
        self.tables().queue_text(key)
    }

    /// The queue, or why it cannot be used.
    pub(super) fn queue(&self, key: QueueKey) -> Result<Rc<Queue>, Failure> {
        if let Some(queue) = self.queues.borrow().get(&key) {
            return Ok(queue.clone());
        }
        let tables = self.tables();
        Err(match tables.topic(key.topic) {
            None => Failure::new(
                Status::TopicNotExist,
                "the topic does not exist, or not any more: ask for its route",
            ),
            Some(topic) if key.queue.0 >= topic.queue_count => Failure::new(
                Status::QueueNotExist,
                format!("topic {} has queues 0 to {}, not {}", topic.name, topic.queue_count - 1, key.queue),
            ),
            Some(topic) => Failure::new(
                Status::Internal,
                format!("queue {} of topic {} is not on shard {}", key.queue, topic.name, self.options.shard),
            ),
        })
    }

    /// Makes the queues of `topic` that this shard owns and does not have yet.
    pub(super) fn make_queues(&self, topic: &Topic) {
        let mut queues = self.queues.borrow_mut();
        let arrivals = self.arrivals(topic.id);
        for key in owned_queues(topic.id, topic.queue_count, &self.options) {
            queues.entry(key).or_insert_with(|| {
                let first = self.first_offset();
                match self.index.bounds(key) {
                    Some((_, end)) => Rc::new(Queue::new(key, end, arrivals.clone())),
                    // Readers are told that what was there before cannot be read.
                    None if self.is_adopting.get() => {
                        self.index.ensure_queue(key);
                        Rc::new(Queue::new(key, first, arrivals.clone()))
                    }
                    None => {
                        self.index.ensure_queue_at(key, first);
                        Rc::new(Queue::new(key, first, arrivals.clone()))
                    }
                }
            });
        }
    }

    /// Where a queue begins of which nothing is known: where the log's beginning was given up, or its end since some day, it
    /// may have had messages.
    pub(super) fn first_offset(&self) -> QueueOffset {
        let ranges = self.given_up.iter().filter(|range| range.may_hold_queues());
        QueueOffset(ranges.map(|range| messages_in(range.bytes)).sum())
    }

    pub(super) fn remove_queues(&self, id: TopicId) {
        let removed: Vec<_> = self.queues.borrow_mut().extract_if(|key, _| key.topic == id).collect();
        for (_, queue) in removed {
            queue.deleted.set(true);
            queue.waits.look_again();
        }
        self.passed.borrow_mut().remove_topic(id);
        self.metrics.tallies.borrow_mut().remove_topic(id);
        let arrivals = self.arrivals.borrow_mut().remove(&id);
        if let Some(arrivals) = arrivals {
            self.announce_to(id, &arrivals);
        }
    }

    /// Refuses messages from now on; what was taken is finished.
    pub fn begin_shutdown(&self) {
        self.is_shutting_down.set(true);
    }

    /// Lets the background tasks end: housekeeping first, then the commit task, after the last group.
    pub fn stop(&self) {
        self.is_shutting_down.set(true);
        self.writer.stop();
        self.published.wake();
        self.keys.stop();
        self.reader_commits.stop();
        self.held_changed.wake();
        self.halves_changed.wake();
    }

    /// Whether it takes messages. It gives those that it has in any case.
    pub fn takes_messages(&self) -> bool {
        !self.is_shutting_down.get() && self.writer.closed_because().is_none()
    }

    /// Empty, or why the shard does not take messages, or give some.
    pub fn condition(&self) -> String {
        let closed = self.writer.closed_because();
        if let Some(state) = closed.or_else(|| self.index_state()) {
            return state;
        }
        if self.is_shutting_down.get() {
            return "shutting down".to_owned();
        }
        self.recent_refusal().unwrap_or_default()
    }
}

/// The queues of a topic that the shard owns.
pub(super) fn owned_queues(
    id: TopicId,
    queue_count: u32,
    options: &BrokerOptions,
) -> impl Iterator<Item = QueueKey> {
    let first = u32::from(options.shard.0);
    (first..queue_count)
        .step_by(usize::from(options.shard_count))
        .map(move |queue| QueueKey { topic: id, queue: QueueNumber(queue) })
}
