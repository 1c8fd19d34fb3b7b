//! Receiving from all shards, and waiting for what comes.

use std::rc::Rc;
use std::time::Duration;

use crate::api::{Failure, Receive, ReceiveScope, ReceivedMessage, Status};
use crate::broker::client_requests::unexpected;
use crate::broker::groups::{Gate, TELL_INTERVAL};
use crate::broker::peers::{PeerReply, PeerRequest};
use crate::broker::queue::Arrivals;
use crate::broker::reader::{LookNow, Selection, WaitFor};
use crate::broker::recipient::Recipient;
use crate::broker::shard_broker::{Broker, owned_queues};
use crate::disk::Disk;
use crate::limits;
use crate::types::{GroupName, MonotonicTime, QueueKey, Receipt, ShardId, Timestamp, TopicId};

use super::choose::Received;

/// Every so many receives another shard than this one is asked first: otherwise its messages would wait for as long as
/// there are any here.
const OTHERS_FIRST: u64 = 4;
/// Between two tries when a filter leaves out message after message: others get to run.
const AGAIN_PAUSE: Duration = Duration::from_micros(100);
/// A lease that ends now is looked at after this long.
const NAP_MIN: Duration = Duration::from_millis(1);
/// When a shard cannot be asked to tell of arrivals, it is asked again after this long.
const WATCH_RETRY: Duration = Duration::from_millis(200);

/// What a shard knows about messages to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prospect {
    /// There is something to receive now.
    pub receivable: bool,
    /// A lease ends after this long, and its messages can be received.
    pub lease_left: Option<Duration>,
}

/// A receive under way: looks for messages, and waits between two looks, in a task of its caller's or as an entry. It is over
/// when this is dropped.
pub struct ReceiveCall<D: Disk> {
    broker: Rc<Broker<D>>,
    receive: Receive,
    topic: TopicId,
    arrivals: Rc<Arrivals>,
    deadline: MonotonicTime,
}

/// What a look of a receive has come to.
pub enum ReceiveLook {
    /// These are the messages. There are none when the time is up, or nobody is there to have them.
    Over(Vec<ReceivedMessage>),
    /// There is nothing yet.
    Waits(ReceivePause),
}

/// How long a receive waits for messages until it looks again.
pub struct ReceivePause {
    /// What it has seen. With something new since, it is to look at once.
    changes: u64,
    /// When it looks again, whatever has come: its own end, or that of a lease.
    until: MonotonicTime,
    /// The group has members as well, whom the waiting is told of.
    shares: bool,
}

/// A receive that waits as an entry of its topic's list, which it leaves when this is dropped.
pub struct ReceiveWait {
    arrivals: Rc<Arrivals>,
    number: u64,
}

impl Drop for ReceiveWait {
    fn drop(&mut self) {
        self.arrivals.waits.leave(self.number);
    }
}

impl<D: Disk> Drop for ReceiveCall<D> {
    fn drop(&mut self) {
        self.broker.note_receive_ended(&self.receive, self.topic);
    }
}

impl<D: Disk> ReceiveCall<D> {
    /// Looks for messages until there are some, or there is nothing to do but wait.
    pub async fn look(&self, recipient: &impl Recipient) -> Result<ReceiveLook, Failure> {
        let Self { broker, receive, topic, arrivals, deadline } = self;
        loop {
            // Taken before the look, so that nothing that comes after it is missed.
            let changes = arrivals.waits.changes();
            broker.check_may_receive(receive, *topic)?;
            broker.tell_of_receivers(&receive.group, *topic).await;
            let Some(reservation) = recipient.reserve().await else {
                return Ok(ReceiveLook::Over(Vec::new()));
            };
            let received = broker.receive_once(receive).await?;
            drop(reservation);
            if !received.messages.is_empty() && !recipient.is_here() {
                broker.give_back(&receive.group, &received.messages).await;
                return Ok(ReceiveLook::Over(Vec::new()));
            }
            let now = broker.clock.monotonic();
            if !received.messages.is_empty() || now >= *deadline || broker.is_shutting_down.get() {
                return broker.answer(received).map(ReceiveLook::Over);
            }
            if received.again {
                broker.clock.sleep(AGAIN_PAUSE).await;
                continue;
            }
            let prospect = broker.watch_all(receive, *topic).await;
            if prospect.receivable {
                broker.clock.sleep(AGAIN_PAUSE).await;
                continue;
            }
            let left = deadline.since(now);
            let nap = prospect.lease_left.map_or(left, |lease_left| lease_left.max(NAP_MIN).min(left));
            let shares = broker.gates.borrow().have_members(&receive.group, *topic);
            return Ok(ReceiveLook::Waits(ReceivePause { changes, until: now.after(nap), shares }));
        }
    }

    /// Waits in the caller's task.
    pub async fn wait(&self, pause: ReceivePause, recipient: &impl Recipient) {
        let Self { broker, receive, topic, arrivals, .. } = self;
        let arrived = arrivals.waits.wait(pause.changes, self.wanted());
        let nap = broker.clock.sleep(pause.until.since(broker.clock.monotonic()));
        let waiting = futures_lite::future::or(arrived, nap);
        let waiting = futures_lite::future::or(waiting, recipient.gone());
        if pause.shares {
            let telling = broker.keep_telling_of_receivers(&receive.group, *topic);
            futures_lite::future::or(waiting, telling).await;
        } else {
            waiting.await;
        }
    }

    /// Lets the receive wait without anybody's doing until a time: `caller` is called, once, when there may be something before
    /// that. Whichever comes first, it is to look again; when the pause is not [over](ReceiveCall::is_over) then, it is to
    /// [tell](ReceiveCall::telling) and to be parked again. `None` when it is to look at once.
    pub fn park(
        &self,
        pause: &ReceivePause,
        caller: impl FnOnce() -> Rc<dyn LookNow>,
    ) -> Option<(MonotonicTime, ReceiveWait)> {
        let waits = &self.arrivals.waits;
        if waits.changes() != pause.changes {
            return None;
        }
        let number = waits.add(self.wanted(), caller());
        let until = match pause.shares {
            true => pause.until.min(self.broker.clock.monotonic().after(TELL_INTERVAL)),
            false => pause.until,
        };
        Some((until, ReceiveWait { arrivals: self.arrivals.clone(), number }))
    }

    /// Whether the receive is to look again, although nothing has come.
    pub fn is_over(&self, pause: &ReceivePause) -> bool {
        self.broker.clock.monotonic() >= pause.until
    }

    /// Tells the control shard of the group's receivers. `None` while another receive of the group has done so of late.
    pub fn telling(&self) -> Option<impl Future<Output = ()> + use<D>> {
        let (broker, group, topic) = (self.broker.clone(), self.receive.group.clone(), self.topic);
        let is_due = broker.telling_is_due(&group, topic);
        is_due.then_some(async move { broker.tell(group, topic).await })
    }

    fn wanted(&self) -> WaitFor {
        WaitFor::wanted(self.receive.scope.queue(), &Selection::new(&self.receive.filter))
    }
}

impl<D: Disk> Broker<D> {
    /// Begins a receive, which waits for messages as long as it says.
    pub fn begin_receive(self: &Rc<Self>, receive: Receive) -> Result<ReceiveCall<D>, Failure> {
        check_receive(&receive)?;
        let (topic, queue_count) = self.topic_layout(&receive.topic)?;
        self.check_scope(&receive, queue_count)?;
        self.note_receive_begun(&receive, topic);
        let wait = receive.wait.min(Duration::from_millis(u64::from(limits::RECEIVE_WAIT_MS_MAX)));
        let deadline = self.clock.monotonic().after(wait);
        let arrivals = self.arrivals(topic);
        Ok(ReceiveCall { broker: self.clone(), receive, topic, arrivals, deadline })
    }

    /// Leases messages from whichever shards have them, waiting for one to come as long as the request says, or until
    /// the recipient is gone.
    pub(in crate::broker) async fn receive(
        self: &Rc<Self>,
        receive: Receive,
        recipient: &impl Recipient,
    ) -> Result<Vec<ReceivedMessage>, Failure> {
        let call = self.begin_receive(receive)?;
        loop {
            match call.look(recipient).await? {
                ReceiveLook::Over(messages) => return Ok(messages),
                ReceiveLook::Waits(pause) => {
                    let began = self.clock.monotonic();
                    call.wait(pause, recipient).await;
                    self.metrics.flight.waited(self.clock.monotonic().since(began));
                }
            }
        }
    }

    fn check_scope(&self, receive: &Receive, queue_count: u32) -> Result<(), Failure> {
        let message = match receive.scope {
            ReceiveScope::Queue(queue) if queue.0 >= queue_count => {
                format!("topic {} has queues 0 to {}, not {queue}", receive.topic, queue_count - 1)
            }
            ReceiveScope::Shard(shard) if shard.0 >= self.options.shard_count => {
                let last = self.options.shard_count - 1;
                return Err(Failure::invalid(format!("the node has shards 0 to {last}, not {shard}")));
            }
            _ => return Ok(()),
        };
        Err(Failure::new(Status::QueueNotExist, message))
    }

    /// Nobody is told that there is nothing when there is something that he may not have.
    fn answer(&self, received: Received) -> Result<Vec<ReceivedMessage>, Failure> {
        match received.refused.filter(|_| received.messages.is_empty()) {
            Some(refused) => {
                self.note_refused_receive(&refused);
                Err(refused)
            }
            None => Ok(received.messages),
        }
    }

    /// One look at every shard until one has something.
    async fn receive_once(&self, receive: &Receive) -> Result<Received, Failure> {
        let shard_count = u64::from(self.options.shard_count);
        let here = u64::from(self.options.shard.0);
        if let Some(shard) = receive.scope.shard(self.options.shard_count) {
            return self.receive_on(shard, receive).await;
        }
        let count = self.receive_round_robin.get();
        let first = if count.is_multiple_of(OTHERS_FIRST) { here + count / OTHERS_FIRST } else { here };
        let mut nothing = Received::default();
        let mut failed = None;
        for step in 0..shard_count {
            let shard = ShardId(((first + step) % shard_count) as u16);
            let received = match self.receive_on(shard, receive).await {
                Ok(received) => received,
                // The others may have something all the same.
                Err(failure) => {
                    failed = Some(failure);
                    continue;
                }
            };
            if !received.messages.is_empty() {
                return Ok(received);
            }
            nothing.again |= received.again;
            nothing.refused = nothing.refused.or(received.refused);
        }
        match failed {
            Some(failure) => Err(failure),
            None => Ok(nothing),
        }
    }

    async fn receive_on(&self, shard: ShardId, receive: &Receive) -> Result<Received, Failure> {
        if shard == self.options.shard {
            return self.receive_here(receive).await;
        }
        match self.peers()?.ask(shard, PeerRequest::Receive(receive.clone())).await? {
            PeerReply::Received(received) => Ok(received),
            other => Err(unexpected(&other)),
        }
    }

    /// What is to be expected from all shards; each tells this one of the next arrival.
    async fn watch_all(&self, receive: &Receive, topic: TopicId) -> Prospect {
        let mut prospect = self.prospect(receive, topic).await;
        let Ok(peers) = self.peers() else { return prospect };
        let shard_count = self.options.shard_count;
        let meant = receive.scope.shard(shard_count);
        let others = (0..shard_count).map(ShardId).filter(|shard| *shard != self.options.shard);
        let others = others.filter(|shard| meant.is_none_or(|meant| meant == *shard));
        let watch = || PeerRequest::WatchTopic { from: self.options.shard, receive: receive.clone() };
        let asked: Vec<_> = others.map(|shard| peers.ask(shard, watch())).collect();
        for answer in futures_util::future::join_all(asked).await {
            match answer {
                Ok(PeerReply::Prospect(other)) => prospect = prospect.joined(other),
                _ => {
                    prospect = prospect.joined(Prospect { receivable: false, lease_left: Some(WATCH_RETRY) });
                }
            }
        }
        prospect
    }

    /// What this shard's queues hold for the group.
    pub(in crate::broker) async fn prospect(&self, receive: &Receive, topic: TopicId) -> Prospect {
        let queue_count = self.tables().topic(topic).map_or(0, |topic| topic.queue_count);
        let now = self.steady.now();
        let mut prospect = Prospect { receivable: false, lease_left: None };
        let mut slice = self.time_slice();
        for key in owned_queues(topic, queue_count, &self.options) {
            slice.yield_if_over().await;
            if receive.scope.holds(key.queue, self.options.shard_count) {
                prospect = prospect.joined(self.prospect_of(receive, key, now));
            }
        }
        prospect
    }

    fn prospect_of(&self, receive: &Receive, key: QueueKey, now: Timestamp) -> Prospect {
        let nothing = Prospect { receivable: false, lease_left: None };
        let Ok(queue) = self.queue(key) else { return nothing };
        let gate = self.gate(&receive.group, key);
        if gate == Gate::Draining {
            return nothing;
        }
        let (first, end) = self.bounds(&queue);
        let leases = self.leases();
        let pair = leases.get(&receive.group, key);
        let next = match pair {
            Some(pair) => pair.next(),
            None => {
                let committed = self.tables().committed(&receive.group, key).unwrap_or(first);
                committed.max(self.passed.borrow().get(&receive.group, key).unwrap_or(first))
            }
        };
        let may_have_new = || self.lease_refusal(&receive.group, Some(key)).is_none();
        let has_new = next.max(first) < end && gate == Gate::Open && may_have_new();
        let Some(pair) = pair else { return Prospect { receivable: has_new, lease_left: None } };
        let lease_end = pair.earliest_end();
        let has_ended = lease_end.is_some_and(|end| end <= now);
        let receivable = if receive.ordered {
            !pair.has_running(now) && (has_ended || (has_new && pair.open_count() == 0))
        } else {
            has_ended || has_new
        };
        // In order, the last lease to end opens the queue; the earliest is early enough to look.
        let lease_left = lease_end.filter(|end| *end > now).map(|end| Duration::from_millis(end.0 - now.0));
        Prospect { receivable, lease_left }
    }

    /// Answers another shard that waits for messages of a topic, and remembers to tell it of the next one.
    pub(in crate::broker) async fn watch_topic(
        &self,
        from: ShardId,
        receive: &Receive,
    ) -> Result<Prospect, Failure> {
        let (topic, _) = self.topic_layout(&receive.topic)?;
        // Before the look, so that nothing that comes during it is missed.
        let arrivals = self.arrivals(topic);
        let is_watching = arrivals.watchers.borrow().contains(&from);
        if !is_watching {
            arrivals.watchers.borrow_mut().push(from);
        }
        Ok(self.prospect(receive, topic).await)
    }

    /// Those who wait for messages of a topic on this shard.
    pub(in crate::broker) fn arrivals(&self, topic: TopicId) -> Rc<Arrivals> {
        self.arrivals.borrow_mut().entry(topic).or_default().clone()
    }

    /// Something of the topic can be received here now.
    pub(in crate::broker) fn announce(&self, topic: TopicId) {
        let arrivals = self.arrivals.borrow().get(&topic).cloned();
        if let Some(arrivals) = arrivals {
            self.announce_to(topic, &arrivals);
        }
    }

    pub(in crate::broker) fn announce_to(&self, topic: TopicId, arrivals: &Arrivals) {
        arrivals.waits.look_again();
        self.tell_watchers(topic, arrivals);
    }

    /// Tells the shards that want to know of the next message here.
    pub(in crate::broker) fn tell_watchers(&self, topic: TopicId, arrivals: &Arrivals) {
        if arrivals.watchers.borrow().is_empty() {
            return;
        }
        let Ok(peers) = self.peers() else { return };
        for shard in arrivals.watchers.take() {
            peers.arrived(shard, topic);
        }
    }

    /// Another shard has something of the topic.
    pub fn arrived(&self, topic: TopicId) {
        let arrivals = self.arrivals.borrow().get(&topic).cloned();
        if let Some(arrivals) = arrivals {
            arrivals.waits.look_again();
        }
    }

    /// Acknowledges on one shard, which may be this one.
    pub(in crate::broker) async fn acknowledge_on(
        &self,
        shard: ShardId,
        group: GroupName,
        receipts: Vec<Receipt>,
    ) -> Result<Vec<crate::api::ReceiptOutcome>, Failure> {
        if shard == self.options.shard {
            return self.acknowledge_here(&group, &receipts).await;
        }
        match self.peers()?.ask(shard, PeerRequest::Acknowledge { group, receipts }).await? {
            PeerReply::Acknowledged(outcomes) => Ok(outcomes),
            other => Err(unexpected(&other)),
        }
    }
}

impl Prospect {
    fn joined(self, other: Prospect) -> Prospect {
        let lease_left = match (self.lease_left, other.lease_left) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
        Prospect { receivable: self.receivable || other.receivable, lease_left }
    }
}

fn check_receive(receive: &Receive) -> Result<(), Failure> {
    let max = limits::RECEIVE_MESSAGES_MAX;
    if !(1..=max).contains(&receive.count) {
        return Err(Failure::invalid(format_args!(
            "a receive takes 1 to {max} messages, not {}",
            receive.count
        )));
    }
    let range = Duration::from_millis(limits::LEASE_MS_MIN)..=Duration::from_millis(limits::LEASE_MS_MAX);
    if let Some(lease) = receive.lease.filter(|lease| !range.contains(lease)) {
        return Err(Failure::invalid(format_args!(
            "a lease lasts {} ms to {} ms, not {} ms",
            limits::LEASE_MS_MIN,
            limits::LEASE_MS_MAX,
            lease.as_millis()
        )));
    }
    Ok(())
}
