//! Pulls: answered where they are taken when what they ask for is in memory, parked while there is nothing for them, and
//! carried out by a few tasks when the disk has to be read, or the peer leaves its answers unread. They do not stop the
//! connection's reading: its client's heartbeats come over the same one.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::answer::Asker;
use super::connection::Remoting;
use super::records::Records;
use super::requests::Refused;
use crate::api::{Filter, RequestSubject, RequestTopic};
use crate::broker::{FetchWait, Pull, Pulled, QueueSpan, Standing, TopicWait};
use crate::limits;
use crate::metrics::Timeline;
use crate::namesrv::retried_group;
use crate::protocol::remoting::call::pull::{
    PullAnswer, PullOutcome, PullRefusal, PullRequest, SQL92, Wants, read_subscription,
};
use crate::protocol::remoting::{Frame, Header};
use crate::server::called::Called;
use crate::server::framed::{Call, CallTerms};
use crate::server::parked::{LookReason, ParkedCall};
use crate::types::{Account, MonotonicTime, QueueKey, QueueNumber, QueueOffset, Reservation};

/// Where a connection has as many pulls parked as it may, the next one is told after this that there is nothing.
const PUT_OFF: Duration = Duration::from_secs(1);

/// What a message counts for among the bytes of work that a pull is, whether it is wanted or not.
const LOOK_BYTES: usize = 64;
/// The same of a step of an expression: a pull that has evaluated as much as it may is all of a turn.
const STEP_BYTES: usize = 11;

/// The pulls of one connection that are not parked.
pub(super) struct Pulls {
    called: Rc<Called<WaitingPull>>,
    /// Those that were put off.
    put_off: Cell<usize>,
}

/// A pull that is not answered yet.
struct WaitingPull {
    call: Call,
    asker: Asker,
    pull: PullRequest,
}

/// One that waits for a message.
struct ParkedPull {
    remoting: Rc<Remoting>,
    waiting: WaitingPull,
    end: MonotonicTime,
    wait: PullWait,
}

/// What it waits for.
enum PullWait {
    Message {
        _entry: FetchWait,
    },
    /// Its topic is not there yet.
    Topic {
        _entry: TopicWait,
    },
}

/// One for whose wait there is no room.
struct PutOff {
    remoting: Rc<Remoting>,
    asker: Asker,
    answer: PullAnswer,
    _share: Reservation,
}

/// What a pull is about.
struct Target {
    /// `None`: the topic of the group's retries, of which there are none yet.
    key: Option<QueueKey>,
    filter: Rc<Filter>,
}

/// Whether a pull may wait when there is nothing for it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Patience {
    No,
    /// When the queue has nothing more.
    Yes,
    /// It has waited and was called: also when it does not want what has come.
    GoesOn,
}

/// What a look at a pull came to.
enum Step {
    /// It was answered; what that weighs.
    Answered(usize),
    /// There is nothing for it yet.
    Waits(QueueSpan),
    /// Nothing of what has come is wanted, up to the queue's end: it goes on waiting there.
    Passed { next: QueueOffset, looked_at: usize },
    /// The disk has to be read, or the peer has to read.
    Later,
}

impl Pulls {
    pub fn new() -> Self {
        Self { called: Called::new(), put_off: Cell::new(0) }
    }
}

impl Remoting {
    /// Takes a pull. Returns what that weighs.
    pub(super) async fn take_pull(self: &Rc<Self>, header: &Header<'_>, frame: &Frame<'_>) -> usize {
        let asker = Asker::of(header, frame.form);
        let step = match self.read_pull(header, frame.body) {
            Ok(pull) => match self.first_look(asker, &pull).await {
                Ok(Step::Answered(bytes)) => Ok(bytes),
                Ok(step) => return self.begin_pull(asker, pull, step).await,
                Err(refused) => Err(refused),
            },
            Err(refused) => Err(refused),
        };
        self.connections.metrics.requests.add(1);
        frame.frame_bytes + step.unwrap_or_else(|refused| self.refuse_pull(asker, refused))
    }

    fn read_pull(&self, header: &Header<'_>, body: &[u8]) -> Result<PullRequest, Refused> {
        let sender = self.sender(header, body).map_err(Refused::failed)?;
        let pull = PullRequest::read(header)?;
        self.check_consumer(&sender, pull.topic.as_str(), pull.group.as_str())?;
        Ok(pull)
    }

    /// Looks at a pull that has just come, and takes note of what its reader says by the way.
    async fn first_look(&self, asker: Asker, pull: &PullRequest) -> Result<Step, Refused> {
        let target = self.pull_target(pull)?;
        if let (Some(offset), Some(key)) = (pull.committed, target.key) {
            // Nobody is told what became of it, as in RocketMQ.
            let broker = &self.connections.broker;
            let _ = broker.commit_as_reader(&pull.group, key, QueueOffset(offset), self.network()).await;
        }
        self.look(asker, pull, if pull.wait.is_zero() { Patience::No } else { Patience::Yes })
    }

    fn refuse_pull(&self, asker: Asker, refused: Refused) -> usize {
        asker.answer(&self.connection.outbox, &Err(refused.told(asker.version)));
        0
    }

    /// Begins a call for a pull that could not be answered in a look.
    async fn begin_pull(self: &Rc<Self>, asker: Asker, pull: PullRequest, step: Step) -> usize {
        if let Step::Waits(span) = step
            && !self.calls.may_park()
            && self.put_off(asker, &pull, span)
        {
            return 0;
        }
        let carried_bytes = pull.carried_bytes();
        let terms = CallTerms { carried_bytes, waits_long: true, is_parked: true, deadline: None };
        let Some(call) = self.calls.begin(terms, None).await else { return 0 };
        call.describe(self.subject_of(&pull));
        let wait = pull.wait.min(Duration::from_millis(u64::from(limits::FETCH_WAIT_MS_MAX)));
        let waiting = WaitingPull { call, asker, pull };
        match step {
            Step::Waits(_) => {
                self.connections.metrics.fetches_waited.add(1);
                self.park_pull(waiting, self.connections.clock.monotonic().after(wait))
            }
            Step::Answered(_) | Step::Passed { .. } | Step::Later => self.carry_out_pull(waiting),
        }
    }

    fn subject_of(&self, pull: &PullRequest) -> RequestSubject {
        let broker = &self.connections.broker;
        let (shard, shards) = (u32::from(broker.shard().0), u32::from(broker.options().shard_count));
        let number = |queue: u32| queue.checked_mul(shards)?.checked_add(shard);
        RequestSubject {
            kind: "pull",
            topic: RequestTopic::Name(pull.topic.clone()),
            queue: u32::try_from(pull.queue).ok().and_then(number).map(QueueNumber),
            offset: u64::try_from(pull.offset).ok().map(QueueOffset),
        }
    }

    /// Has a pull told after a while that there is nothing; false when there is no room even for that.
    fn put_off(self: &Rc<Self>, asker: Asker, pull: &PullRequest, span: QueueSpan) -> bool {
        let count = &self.pulls.put_off;
        if count.get() >= limits::CONNECTION_PARKED_MAX {
            return false;
        }
        let waits = self.connections.memory.budget(Account::Waits);
        let Some(share) = waits.try_reserve(limits::PARKED_BYTES) else { return false };
        count.set(count.get() + 1);
        self.connections.metrics.requests.add(1);
        let answer = answer(PullOutcome::Nothing, span.end, span);
        let end = self.connections.clock.monotonic().after(PUT_OFF.min(pull.wait));
        let put_off = PutOff { remoting: self.clone(), asker, answer, _share: share };
        self.connection.parked.slot().park(end, Box::new(put_off));
        true
    }

    /// What a pull is about, once all that RocketMQ looks at has been looked at, in its order.
    fn pull_target(&self, pull: &PullRequest) -> Result<Target, Refused> {
        let broker = &self.connections.broker;
        let (group, topic) = (pull.group.as_str(), pull.topic.as_str());
        if !broker.may_consume(&pull.group) {
            return Err(PullRefusal::GroupClosed { group }.into());
        }
        broker.check_no_members(&pull.group).map_err(Refused::failed)?;
        let Some(shown) = broker.shown_topic(&pull.topic) else {
            return match retried_group(topic) == Some(group) && pull.queue == 0 {
                true => Ok(Target { key: None, filter: Rc::default() }),
                false => Err(PullRefusal::NoTopic { topic }.into()),
            };
        };
        if !shown.is_readable() {
            return Err(PullRefusal::TopicClosed { topic }.into());
        }
        let key = self.pulled_queue(pull)?;
        let filter = match &pull.wants {
            Wants::These(filter) => filter.clone(),
            Wants::OfGroup { version } => self.group_filter(pull, *version)?,
        };
        Ok(Target { key: Some(key), filter })
    }

    /// What a group's clients have said that they want of a topic.
    fn group_filter(&self, pull: &PullRequest, version: i64) -> Result<Rc<Filter>, Refused> {
        let broker = &self.connections.broker;
        if !broker.may_broadcast(&pull.group) && broker.broadcasts(&pull.group) {
            return Err(PullRefusal::BroadcastClosed { group: pull.group.as_str() }.into());
        }
        match broker.reader_subscription(&pull.group, pull.topic.as_str()) {
            (_, Some(said)) if said.version < version => Err(PullRefusal::NotLatest.into()),
            (_, Some(said)) => {
                let read = |text: &str| self.port().expressions.read(text);
                let filter = read_subscription(&said.expression, &said.kind, read);
                let filter = filter.map_err(|refusal| match said.kind.as_str() {
                    SQL92 => PullRefusal::GroupExpression { why: &refusal.remark }.into(),
                    _ => refusal,
                })?;
                Ok(Rc::new(filter))
            }
            (true, None) => Err(PullRefusal::NotSubscribed.into()),
            (false, None) => Err(PullRefusal::NoConsumer.into()),
        }
    }

    /// The queue of this broker that readers are shown under a number.
    fn pulled_queue(&self, pull: &PullRequest) -> Result<QueueKey, Refused> {
        let broker = &self.connections.broker;
        let (topic, queue_count) = broker.topic_layout(&pull.topic).map_err(Refused::failed)?;
        let shown = broker.shown_topic(&pull.topic).and_then(|shown| shown.read_queues);
        let (shard, shards) = (u32::from(broker.shard().0), u32::from(broker.options().shard_count));
        let read_queues = shown.map_or(queue_count, |shown| shown.min(queue_count));
        let read_queues = read_queues.saturating_sub(shard).div_ceil(shards);
        match u32::try_from(pull.queue) {
            Ok(queue) if queue < read_queues => {
                Ok(QueueKey { topic, queue: QueueNumber(queue * shards + shard) })
            }
            _ => {
                let topic = pull.topic.as_str();
                Err(PullRefusal::NoQueue { queue: pull.queue, topic, read_queues }.into())
            }
        }
    }

    /// What a queue has, and where in it a pull is.
    fn place(&self, target: &Target, pull: &PullRequest) -> Result<(QueueSpan, Standing), Refused> {
        let span = match target.key {
            Some(key) => self.connections.broker.queue_span(key).map_err(Refused::failed)?,
            None => QueueSpan::default(),
        };
        Ok((span, span.standing(pull.offset)))
    }

    /// Where a reader is to go on whose group was moved.
    fn moved(&self, target: &Target, pull: &PullRequest) -> Option<Standing> {
        let offset = self.connections.broker.take_move(&pull.group, target.key?)?;
        Some(Standing::Before(offset))
    }

    /// Answers a pull that takes no waiting and no reading.
    fn look(&self, asker: Asker, pull: &PullRequest, patience: Patience) -> Result<Step, Refused> {
        let target = self.pull_target(pull)?;
        let (span, standing) = self.place(&target, pull)?;
        let standing = self.moved(&target, pull).unwrap_or(standing);
        let (Standing::Messages(offset), Some(key)) = (standing, target.key) else {
            if patience != Patience::No && matches!(standing, Standing::End(_)) {
                return Ok(Step::Waits(span));
            }
            return Ok(Step::Answered(self.answer_without(asker, standing, span)));
        };
        if self.connection.outbox.bytes() > self.connections.unread_bytes_max() {
            return Ok(Step::Later);
        }
        // Held until the answer is counted where it goes to.
        let answers = self.connections.memory.budget(Account::Answers);
        let Some(_share) = answers.try_reserve(pull.bytes_max) else { return Ok(Step::Later) };
        let mut records = Records::new(self, pull, key.queue);
        let asked = Pull { key, offset, filter: &target.filter };
        let broker = &self.connections.broker;
        let pulled = broker.pull_now(&asked, &mut records).map_err(Refused::failed)?;
        self.read_ahead();
        let passes = |pulled: &Pulled| records.is_empty() && pulled.next == pulled.span.end;
        let goes_on = patience == Patience::GoesOn && matches!(*target.filter, Filter::Expression(_));
        let looked_at =
            |pulled: &Pulled| LOOK_BYTES * (pulled.next.0 - offset.0) as usize + STEP_BYTES * pulled.steps;
        Ok(match pulled {
            Some(pulled) if goes_on && passes(&pulled) => {
                Step::Passed { next: pulled.next, looked_at: looked_at(&pulled) }
            }
            Some(pulled) => {
                let looked_at = looked_at(&pulled);
                broker.note_given(&pull.group, key, pulled.next, records.amount());
                Step::Answered(looked_at + self.answer_pulled(asker, pulled, records))
            }
            None => Step::Later,
        })
    }

    /// Lets a pull wait as an entry, if there is still nothing for it.
    fn park_pull(self: &Rc<Self>, waiting: WaitingPull, end: MonotonicTime) -> usize {
        let WaitingPull { asker, pull, .. } = &waiting;
        let slot = self.connection.parked.slot();
        let parked = self.pull_target(pull).and_then(|target| {
            let Some(key) = target.key else {
                let _entry = self.connections.broker.await_topic(&pull.topic, slot.caller());
                return Ok(Some(PullWait::Topic { _entry }));
            };
            let offset = QueueOffset(u64::try_from(pull.offset).unwrap_or(u64::MAX));
            let asked = Pull { key, offset, filter: &target.filter };
            let wait = self.connections.broker.park_pull(&asked, || slot.caller());
            Ok(wait.map_err(Refused::failed)?.map(|_entry| PullWait::Message { _entry }))
        });
        match parked {
            Ok(Some(wait)) => {
                let remoting = self.clone();
                slot.park(end, Box::new(ParkedPull { remoting, waiting, end, wait }));
                0
            }
            Ok(None) => self.look_again(waiting, Patience::No, end),
            Err(refused) => self.refuse_pull(*asker, refused),
        }
    }

    /// Looks at a pull that has waited. Who vanished meanwhile, or lost what it read, is told so.
    fn look_again(
        self: &Rc<Self>,
        mut waiting: WaitingPull,
        patience: Patience,
        end: MonotonicTime,
    ) -> usize {
        match self.look(waiting.asker, &waiting.pull, patience) {
            Ok(Step::Answered(bytes)) => bytes,
            Ok(Step::Waits(_)) => self.park_pull(waiting, end),
            Ok(Step::Passed { next, looked_at }) => {
                waiting.pull.offset = next.0 as i64;
                looked_at + self.park_pull(waiting, end)
            }
            Ok(Step::Later) => self.carry_out_pull(waiting),
            Err(refused) => self.refuse_pull(waiting.asker, refused),
        }
    }

    /// Has a pull carried out that takes more than a look.
    fn carry_out_pull(self: &Rc<Self>, waiting: WaitingPull) -> usize {
        let remoting = self.clone();
        let task = self.pulls.called.add(waiting, async move |waiting| {
            waiting.call.traced(remoting.pull_later(&waiting)).await;
        });
        if let Some(task) = task {
            self.connections.spawn_catch_up(task);
        }
        0
    }

    async fn pull_later(&self, waiting: &WaitingPull) {
        let WaitingPull { call, asker, pull } = waiting;
        // The first message is given whatever its size.
        let bytes = pull.bytes_max.max(limits::BATCH_BYTES_MAX);
        let Some(_share) = call.reserve_beside(Account::Answers, bytes).await else { return };
        if let Err(refused) = self.pull_and_answer(*asker, pull).await {
            self.refuse_pull(*asker, refused);
        }
    }

    async fn pull_and_answer(&self, asker: Asker, pull: &PullRequest) -> Result<(), Refused> {
        let target = self.pull_target(pull)?;
        let (span, standing) = self.place(&target, pull)?;
        let standing = self.moved(&target, pull).unwrap_or(standing);
        let (Standing::Messages(offset), Some(key)) = (standing, target.key) else {
            self.answer_without(asker, standing, span);
            return Ok(());
        };
        let mut records = Records::new(self, pull, key.queue);
        let asked = Pull { key, offset, filter: &target.filter };
        let broker = &self.connections.broker;
        let pulled = broker.pull(&asked, &mut records).await.map_err(Refused::failed)?;
        broker.note_given(&pull.group, key, pulled.next, records.amount());
        self.answer_pulled(asker, pulled, records);
        self.read_ahead();
        Ok(())
    }

    /// Has the disk read what pulls go on to, while what they were given is sent.
    fn read_ahead(&self) {
        if let Some(reading) = self.connections.broker.read_stretches_ahead() {
            self.connections.spawn_catch_up(reading);
        }
    }

    /// Answers a pull for which there are no messages. Returns what that weighs.
    fn answer_without(&self, asker: Asker, standing: Standing, span: QueueSpan) -> usize {
        let (outcome, next) = match standing {
            Standing::Messages(offset) => (PullOutcome::Passed, offset),
            Standing::End(offset) => (PullOutcome::Nothing, offset),
            Standing::Before(first) => (PullOutcome::Before, first),
            Standing::After(end) => (PullOutcome::After, end),
        };
        let answer = answer(outcome, next, span);
        let stages = self.asked_stages();
        asker.push(&self.connection.outbox, |opaque, form, output| {
            answer.begin(opaque, form, 0, stages.as_deref(), output);
        });
        0
    }

    /// Answers with what was found. Returns what that weighs.
    fn answer_pulled(&self, asker: Asker, pulled: Pulled, records: Records<'_>) -> usize {
        let outcome = if records.is_empty() { PullOutcome::Passed } else { PullOutcome::Found };
        let answer = answer(outcome, pulled.next, pulled.span);
        let (body, count) = records.finish();
        let bytes = body.len();
        self.connections.metrics.messages_fetched.add(count as u64);
        self.connections.metrics.bytes_fetched.add(bytes as u64);
        let stages = self.asked_stages();
        asker.push_with_body(&self.connection.outbox, body, |opaque, form, output| {
            answer.begin(opaque, form, bytes, stages.as_deref(), output);
        });
        bytes
    }
}

fn answer(outcome: PullOutcome, next: QueueOffset, span: QueueSpan) -> PullAnswer {
    PullAnswer { outcome, next, first: span.first, end: span.end }
}

impl ParkedCall for ParkedPull {
    fn woken(&self, since: MonotonicTime) -> Timeline {
        self.waiting.call.woken(since)
    }

    fn look(self: Box<Self>, reason: LookReason) -> usize {
        let Self { remoting, waiting, end, wait } = *self;
        drop(wait);
        match remoting.connection.is_here() {
            true => {
                let patience = if reason == LookReason::Called { Patience::GoesOn } else { Patience::No };
                remoting.look_again(waiting, patience, end)
            }
            false => 0,
        }
    }
}

impl ParkedCall for PutOff {
    fn woken(&self, since: MonotonicTime) -> Timeline {
        Timeline::at(since)
    }

    fn look(self: Box<Self>, _reason: LookReason) -> usize {
        let Self { remoting, asker, answer, .. } = *self;
        remoting.pulls.put_off.set(remoting.pulls.put_off.get() - 1);
        asker.push(&remoting.connection.outbox, |opaque, form, output| {
            answer.begin(opaque, form, 0, None, output);
        });
        0
    }
}
