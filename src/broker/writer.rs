//! The writer: the only caller of the log's append.
//!
//! What it places is a batch, a change of state, or both as one step of the log.
//!
//! 1. What is decided is decided in the moment of placing. [`Writer::place`] takes a closure that decides and tries; it cannot
//!    await in between. After each wait for room it is called again, since what was so before the wait may be so no more.
//! 2. What is placed is carried out in the same call, before anything else can be placed: the state learns here, and nowhere
//!    else, that a change or a held message stands in the log.
//! 3. A shard that has stopped places nothing: its commit task may have ended. Whoever waits for room then is told so.
//! 4. The level of a placed batch is waited for here only, so that there is one place that says what "durable" means.
//!
//! 5. Messages of one queue are placed in the order in which they were taken: single ones that are being gathered
//!    (`gathering`) go before a batch that comes after them.
//!
//! A native connection places its batches by the `try_` functions, without a future.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use super::gathering::{Gathered, Gathering, PlacedMessage, Single, Ticket};
use super::queue::Queue;
use super::upkeep::IndexHealth;
use crate::api::{Failure, Status};
use crate::clock::SharedClock;
use crate::disk::{Disk, DiskError};
use crate::index::Index;
use crate::limits;
use crate::log::{AppendRefusal, CommitLog, LogFailure, Placement};
use crate::metrics::ShardMetrics;
use crate::state::{Change, Effect, Stage, State};
use crate::types::{
    Level, LogPosition, MonotonicTime, QueueKey, QueueNumber, QueueOffset, TopicId, WakerList,
};
use crate::wire::batch::{CheckedBatch, StateBatch};

/// How often whoever waits for the index looks whether it has failed.
const RELIEF_CHECK: Duration = Duration::from_millis(100);

/// The largest change that may be one step with a batch: names of full length, and numbers.
const STEP_CHANGE_BYTES_MAX: usize = 128 + limits::GROUP_NAME_BYTES_MAX;

/// Where state batches go.
const STATE_KEY: QueueKey = QueueKey { topic: TopicId::BROKER, queue: QueueNumber(0) };

/// Places batches and changes of state in the log of one shard.
pub(super) struct Writer<D: Disk> {
    log: CommitLog<D>,
    index: Index<D>,
    index_health: Rc<IndexHealth>,
    state: Rc<RefCell<State>>,
    clock: SharedClock,
    metrics: Rc<ShardMetrics>,
    gathering: Gathering,
    stopped: Cell<bool>,
    /// Woken when the shard stops.
    stopping: WakerList,
}

/// Somebody waits for room, and is counted for as long as this is there: who waits may go away.
struct Waiting<'a>(&'a ShardMetrics);

impl<'a> Waiting<'a> {
    fn begin(metrics: &'a ShardMetrics) -> Self {
        metrics.placements_waiting.add(1);
        Self(metrics)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.placements_waiting.subtract(1);
    }
}

/// Where a batch of messages goes.
#[derive(Clone, Copy)]
pub(super) enum Destination<'a> {
    /// To the end of a queue of this shard.
    Queue(&'a Queue),
    /// Out of consumers' sight: the queue that the messages are meant for, and what stands in the place of an offset.
    Held { key: QueueKey, offset: QueueOffset },
}

/// Where a batch of messages was placed.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlacedBatch {
    /// Of its first message; of a held one, what stands in its place.
    pub base_offset: QueueOffset,
    pub placement: Placement,
}

/// Where the two batches of a step were placed.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlacedStep {
    pub batch: Placement,
    /// Both have reached a level when this one has.
    pub change: Placement,
}

/// Why nothing was placed.
#[derive(Clone, Debug)]
pub enum PlaceRefusal {
    /// There is no room now. Nobody needs to be told: wait for it, then decide and try again.
    Wait(Backpressure),
    Failed(Failure),
}

/// What takes no more for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backpressure {
    /// The open group is full, or the next segment is being prepared.
    Log,
    /// More of the index waits for the disk than memory is to hold.
    Index,
}

impl<'a> Destination<'a> {
    fn key(self) -> QueueKey {
        match self {
            Destination::Queue(queue) => queue.key,
            Destination::Held { key, .. } => key,
        }
    }

    fn base_offset(self) -> QueueOffset {
        match self {
            Destination::Queue(queue) => queue.next_offset.get(),
            Destination::Held { offset, .. } => offset,
        }
    }
}

impl From<Failure> for PlaceRefusal {
    fn from(failure: Failure) -> Self {
        PlaceRefusal::Failed(failure)
    }
}

impl<D: Disk> Writer<D> {
    pub fn new(
        log: &CommitLog<D>,
        index: &Index<D>,
        index_health: &Rc<IndexHealth>,
        state: &Rc<RefCell<State>>,
        clock: &SharedClock,
        metrics: &Rc<ShardMetrics>,
    ) -> Self {
        Self {
            log: log.clone(),
            index: index.clone(),
            index_health: index_health.clone(),
            state: state.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            gathering: Gathering::default(),
            stopped: Cell::new(false),
            stopping: WakerList::new(),
        }
    }

    /// From here on nothing is placed, and nobody waits for room.
    pub fn stop(&self) {
        self.stopped.set(true);
        self.stopping.wake();
        while let Some(queue) = self.gathering.first() {
            if let Some(gathered) = self.gathering.take(&queue) {
                self.refuse_gathered(&gathered, &shutting_down());
            }
            self.gathering.remove_first();
        }
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.get()
    }

    /// Decides and places by `attempt`, which uses the `try_` functions, again and again while there is no room.
    pub async fn place<T>(&self, attempt: impl FnMut() -> Result<T, PlaceRefusal>) -> Result<T, Failure> {
        self.place_after(async || Ok(()), attempt).await
    }

    /// Like [`place`](Self::place), for whoever waits for space at most `wait_max`: after that nothing is placed.
    pub async fn place_within<T>(
        &self,
        wait_max: Duration,
        mut attempt: impl FnMut() -> Result<T, PlaceRefusal>,
    ) -> Result<T, Failure> {
        let mut deadline = None;
        loop {
            let backpressure = match attempt() {
                Ok(placed) => return Ok(placed),
                Err(PlaceRefusal::Failed(failure)) => return Err(failure),
                Err(PlaceRefusal::Wait(backpressure)) => backpressure,
            };
            let now = self.clock.monotonic();
            let left = deadline.get_or_insert_with(|| now.after(wait_max)).since(now);
            if left.is_zero() {
                return Err(no_space_in(wait_max));
            }
            futures_lite::future::or(self.wait_out(backpressure), self.clock.sleep(left)).await;
        }
    }

    /// Like [`place`](Self::place), for what may only be decided after something was asked: `ask` comes before each attempt.
    pub async fn place_after<T>(
        &self,
        ask: impl AsyncFn() -> Result<(), Failure>,
        mut attempt: impl FnMut() -> Result<T, PlaceRefusal>,
    ) -> Result<T, Failure> {
        loop {
            ask().await?;
            match attempt() {
                Ok(placed) => return Ok(placed),
                Err(PlaceRefusal::Failed(failure)) => return Err(failure),
                Err(PlaceRefusal::Wait(backpressure)) => self.wait_out(backpressure).await,
            }
        }
    }

    /// Waits until a refused attempt is worth another try: there may be room, or the shard stops.
    pub async fn wait_out(&self, backpressure: Backpressure) {
        let _waiting = Waiting::begin(&self.metrics);
        let since = self.traced_since();
        let stopping = self.stopping.changed();
        match backpressure {
            Backpressure::Log => futures_lite::future::or(self.log.space_freed().changed(), stopping).await,
            Backpressure::Index => {
                // Nobody is relieved when the index fails meanwhile: the next attempt says so.
                let relieved =
                    futures_lite::future::or(self.index.relieved(), self.clock.sleep(RELIEF_CHECK));
                futures_lite::future::or(relieved, stopping).await;
            }
        }
        if let Some(since) = since {
            self.metrics.flight.queued(self.clock.monotonic().since(since));
        }
    }

    /// Places a batch of messages. `level` only tells whether somebody will wait for the flush.
    pub fn try_batch(
        &self,
        to: Destination<'_>,
        batch: &CheckedBatch<'_>,
        level: Level,
    ) -> Result<PlacedBatch, PlaceRefusal> {
        self.check(to)?;
        self.place_earlier(to)?;
        self.append(to, batch, level)
    }

    /// Places a batch of messages if the first of them gets this offset.
    pub fn try_batch_at(
        &self,
        queue: &Queue,
        offset: QueueOffset,
        batch: &CheckedBatch<'_>,
        level: Level,
    ) -> Result<PlacedBatch, PlaceRefusal> {
        let to = Destination::Queue(queue);
        self.check(to)?;
        self.place_earlier(to)?;
        let next = queue.next_offset.get();
        if next != offset {
            return Err(Failure::new(
                Status::OffsetOutOfRange,
                format!("nothing was stored: the next message of the queue gets offset {next}, not {offset}"),
            )
            .into());
        }
        self.append(to, batch, level)
    }

    fn append(
        &self,
        to: Destination<'_>,
        batch: &CheckedBatch<'_>,
        level: Level,
    ) -> Result<PlacedBatch, PlaceRefusal> {
        let base_offset = to.base_offset();
        let placed = self.log.append_batch(batch, to.key(), base_offset, level);
        let placement = placed.map_err(|refusal| self.batch_refused(refusal))?;
        self.batch_placed(to, batch, placement);
        Ok(PlacedBatch { base_offset, placement })
    }

    /// Takes a message for the end of a queue, and places it with others that come before a commit group is taken. Nobody
    /// waits for the flush of what is only accepted, so that is placed at once.
    pub fn try_gather(
        &self,
        queue: &Rc<Queue>,
        message: &Single<'_>,
        level: Level,
    ) -> Result<Ticket, PlaceRefusal> {
        self.check(Destination::Queue(queue))?;
        if let Some(failure) = self.log.watermarks().failure() {
            return Err(self.batch_refused(AppendRefusal::Failed(failure)));
        }
        if !self.gathering.has_space(message.record.encoded_bytes()) {
            self.try_place_gathered().map_err(PlaceRefusal::Wait)?;
        }
        if !self.gathering.goes_on(queue, message) {
            self.place_gathered_of(queue).map_err(PlaceRefusal::Wait)?;
        }
        let ticket = self.gathering.add(queue, message, level);
        // Where the log has no space they wait for it as they are.
        if level == Level::Accepted {
            _ = self.place_gathered_of(queue);
        }
        if self.gathering.is_full() {
            _ = self.try_place_gathered();
        }
        self.announce_gathered();
        Ok(ticket)
    }

    /// Waits until a message that was taken has reached its level.
    pub async fn gathered(&self, ticket: Ticket) -> Result<(PlacedMessage, Level), Failure> {
        let since = self.traced_since();
        let message = ticket.placed().await?;
        self.note_wait(since, ticket.level, message.placement);
        let level = self.level_reached(ticket.level, message.placement).await?;
        Ok((message, level))
    }

    /// The same for one who looks whenever the log moves on; `None`: not yet.
    pub fn gathered_outcome(&self, ticket: &Ticket) -> Option<Result<(PlacedMessage, Level), Failure>> {
        let message = match ticket.outcome()? {
            Ok(message) => message,
            Err(failure) => return Some(Err(failure)),
        };
        let outcome = self.outcome(ticket.level, message.placement)?;
        Some(outcome.map(|level| (message, level)))
    }

    /// Places what was gathered, as far as the log has space.
    pub fn place_gathered(&self) {
        _ = self.try_place_gathered();
        self.announce_gathered();
    }

    fn announce_gathered(&self) {
        if !self.gathering.is_empty() {
            self.log.announce();
        }
    }

    fn try_place_gathered(&self) -> Result<(), Backpressure> {
        while let Some(queue) = self.gathering.first() {
            self.place_gathered_of(&queue)?;
            self.gathering.remove_first();
        }
        Ok(())
    }

    /// Places what was gathered for one queue, or tells those who wait why it is refused.
    fn place_gathered_of(&self, queue: &Queue) -> Result<(), Backpressure> {
        let Some(mut gathered) = self.gathering.take(queue) else { return Ok(()) };
        let batch = gathered.batch.checked();
        let placed = match queue.deleted.get() {
            true => Err(topic_deleted().into()),
            false => self.append(Destination::Queue(queue), &batch, gathered.level),
        };
        match placed {
            Ok(placed) => {
                self.note_produced(&batch);
                gathered.placed(placed, self.log.watermarks());
            }
            Err(PlaceRefusal::Failed(failure)) => self.refuse_gathered(&gathered, &failure),
            Err(PlaceRefusal::Wait(backpressure)) => {
                self.gathering.put_back(queue, gathered);
                return Err(backpressure);
            }
        }
        self.gathering.give_back(gathered);
        Ok(())
    }

    /// Those who look whenever the log moves on are told as well: it may not move on.
    fn refuse_gathered(&self, gathered: &Gathered, failure: &Failure) {
        gathered.refused(failure);
        self.log.watermarks().changes().wake();
    }

    /// Counts a batch of a producer.
    pub fn note_produced(&self, batch: &CheckedBatch<'_>) {
        self.metrics.batches_produced.add(1);
        self.metrics.messages_produced.add(u64::from(batch.record_count()));
        self.metrics.bytes_produced.add(batch.batch_bytes() as u64);
    }

    /// Places a batch of messages and a change of state as one step: after any death the log holds both or neither. `change`
    /// gets the batch's place.
    pub fn try_step(
        &self,
        to: Destination<'_>,
        batch: &CheckedBatch<'_>,
        level: Level,
        change: impl FnOnce(Placement) -> Change,
    ) -> Result<PlacedStep, PlaceRefusal> {
        self.check(to)?;
        self.place_earlier(to)?;
        let step = (batch, to.key(), to.base_offset());
        let mut made = None;
        let state = |first| {
            let mut payload = Vec::new();
            made.insert(change(first)).encode(&mut payload);
            payload
        };
        let placed = self.log.append_step(step, level, STEP_CHANGE_BYTES_MAX, state);
        let (first, second) = placed.map_err(|refusal| self.batch_refused(refusal))?;
        self.batch_placed(to, batch, first);
        self.change_placed(made.expect("a step has a change"), second);
        Ok(PlacedStep { batch: first, change: second })
    }

    /// Places changes of state, in one batch.
    pub fn try_changes<C>(&self, changes: C, level: Level) -> Result<Placement, PlaceRefusal>
    where
        C: AsRef<[Change]> + IntoIterator<Item = Change>,
    {
        let mut payload = Vec::new();
        changes.as_ref().iter().for_each(|change| change.encode(&mut payload));
        let placement = self.try_repeated(&payload, level)?;
        changes.into_iter().for_each(|change| self.change_placed(change, placement));
        Ok(placement)
    }

    /// Places encoded changes that say what is so already, as checkpoints do: there is nothing to carry out.
    pub fn try_repeated(&self, changes: &[u8], level: Level) -> Result<Placement, PlaceRefusal> {
        self.check_running()?;
        let state = StateBatch::new(changes, self.clock.now());
        let placed = self.log.append_batch(&state.view(), STATE_KEY, QueueOffset::ZERO, level);
        placed.map_err(|refusal| self.refused(refusal))
    }

    /// What was placed at the end of a queue has its offsets from now on; what is held is on its way.
    fn batch_placed(&self, to: Destination<'_>, batch: &CheckedBatch<'_>, placement: Placement) {
        match to {
            Destination::Queue(queue) => {
                let end = queue.next_offset.get().advance(u64::from(batch.record_count()));
                queue.next_offset.set(end);
            }
            Destination::Held { offset, .. } => {
                self.state.borrow_mut().held_placed(offset, placement.position);
            }
        }
    }

    fn change_placed(&self, change: Change, placement: Placement) {
        let effect = self.state.borrow_mut().apply(change, placement.position, Stage::Placed);
        assert_eq!(effect, Effect::None, "invariant 3 of the state");
    }

    /// Whether the index keeps up with what is placed.
    pub fn check_index(&self) -> Result<(), PlaceRefusal> {
        if !self.index.is_overfull() {
            return Ok(());
        }
        Err(match self.index_health.failure() {
            Some(reason) => PlaceRefusal::Failed(Failure::new(
                Status::StorageFailed,
                format!(
                    "the consume index of shard {} cannot be saved, which is tried on: {reason}",
                    self.log.shard()
                ),
            )),
            None => PlaceRefusal::Wait(Backpressure::Index),
        })
    }

    /// Waits until a placed batch has reached `level`; returns the one that it has reached by then.
    pub async fn settled(&self, level: Level, placement: Placement) -> Result<Level, Failure> {
        self.note_wait(self.traced_since(), level, placement);
        self.level_reached(level, placement).await
    }

    /// Now, where somebody wants to know when that was.
    fn traced_since(&self) -> Option<MonotonicTime> {
        self.metrics.flight.is_tracing().then(|| self.clock.monotonic())
    }

    fn note_wait(&self, since: Option<MonotonicTime>, level: Level, placement: Placement) {
        if let Some(since) = since {
            self.metrics.flight.placed(placement.end, level, since);
        }
    }

    async fn level_reached(&self, level: Level, placement: Placement) -> Result<Level, Failure> {
        match self.log.watermarks().level_reached(level, placement.end).await {
            Ok(()) => Ok(self.log.watermarks().level_of(placement.end)),
            Err(failure) => Err(self.lost(placement.position, &failure)),
        }
    }

    /// What [`settled`](Writer::settled) would return now; `None` while it would wait.
    pub fn outcome(&self, level: Level, placement: Placement) -> Option<Result<Level, Failure>> {
        let watermarks = self.log.watermarks();
        if placement.end <= watermarks.end(level) {
            return Some(Ok(watermarks.level_of(placement.end)));
        }
        watermarks.failure().map(|failure| Err(self.lost(placement.position, &failure)))
    }

    /// Waits until everything placed below `end` has reached `level`, whoever placed it.
    pub async fn reached(&self, level: Level, end: LogPosition) -> Result<(), Failure> {
        let reached = self.log.watermarks().level_reached(level, end).await;
        reached.map_err(|failure| self.storage_failed(&failure))
    }

    /// Waits until everything that was placed so far is durable.
    pub async fn all_durable(&self) -> Result<(), Failure> {
        self.reached(Level::Durable, self.log.watermarks().appended_end()).await
    }

    /// The failure a client sees for a failed log: for batches that were not handed to the disk.
    pub fn storage_failed(&self, failure: &LogFailure) -> Failure {
        Failure::new(Status::StorageFailed, self.failed_since(&failure.error.without_path()))
    }

    /// What the operator is told while the shard takes no messages, file and all; `None` while it does.
    pub fn closed_because(&self) -> Option<String> {
        if let Some(failure) = self.log.watermarks().failure() {
            return Some(self.failed_since(&failure.error.to_string()));
        }
        if let Some(error) = self.log.supply_failure() {
            return Some(self.without_segment(&error.to_string()));
        }
        let is_full = self.log.is_out_of_space();
        is_full.then(|| self.without_space(self.log.shortage().map(|error| error.to_string())))
    }

    /// The failure a client sees while no segment can be made.
    fn no_segment(&self, error: &DiskError) -> Failure {
        Failure::new(Status::StorageFailed, self.without_segment(&error.without_path()))
    }

    /// And while the next segment finds no room on the disk.
    fn no_space(&self) -> Failure {
        let why = self.log.shortage().map(|error| error.detail.clone());
        Failure::new(Status::NoSpace, self.without_space(why))
    }

    fn failed_since(&self, why: &str) -> String {
        format!("shard {} takes no messages since: {why}; restart the broker", self.log.shard())
    }

    fn without_segment(&self, why: &str) -> String {
        format!(
            "shard {} takes no messages while its next segment cannot be made, which it tries every second: {why}",
            self.log.shard()
        )
    }

    /// `why`: it may have been made since.
    fn without_space(&self, why: Option<String>) -> String {
        let why = why.map_or_else(String::new, |why| format!(": {why}"));
        format!(
            "the disk of shard {} is full, and its next segment cannot be made{why}; free space there, or shorten the \
             retention",
            self.log.shard()
        )
    }

    /// The answer for a batch that was placed before the log failed.
    fn lost(&self, position: LogPosition, failure: &LogFailure) -> Failure {
        if position >= failure.unknown_end {
            return self.storage_failed(failure);
        }
        let (shard, why) = (self.log.shard(), failure.error.without_path());
        let message = format!(
            "the disk of shard {shard} failed while it had the batch, which may be stored or not: {why}"
        );
        Failure::new(Status::OutcomeUnknown, message)
    }

    fn check(&self, to: Destination<'_>) -> Result<(), PlaceRefusal> {
        self.check_running()?;
        match to {
            Destination::Queue(_) => self.check_index(),
            // Whoever makes room for the index places them again.
            Destination::Held { .. } => Ok(()),
        }
    }

    /// Places the single messages that were taken for this queue before.
    fn place_earlier(&self, to: Destination<'_>) -> Result<(), PlaceRefusal> {
        match to {
            Destination::Queue(queue) => self.place_gathered_of(queue).map_err(PlaceRefusal::Wait),
            Destination::Held { .. } => Ok(()),
        }
    }

    fn check_running(&self) -> Result<(), PlaceRefusal> {
        if self.stopped.get() {
            return Err(shutting_down().into());
        }
        Ok(())
    }

    fn batch_refused(&self, refusal: AppendRefusal) -> PlaceRefusal {
        let refused = self.refused(refusal);
        if let PlaceRefusal::Failed(_) = refused {
            self.metrics.produce_refused.add(1);
        }
        refused
    }

    /// What a refusal of the log comes to.
    fn refused(&self, refusal: AppendRefusal) -> PlaceRefusal {
        PlaceRefusal::Failed(match refusal {
            AppendRefusal::Wait => return PlaceRefusal::Wait(Backpressure::Log),
            AppendRefusal::NoSpace => self.no_space(),
            AppendRefusal::NoSegment(error) => self.no_segment(&error),
            AppendRefusal::Failed(failure) => self.storage_failed(&failure),
        })
    }
}

fn shutting_down() -> Failure {
    Failure::new(Status::ShuttingDown, "the broker is shutting down")
}

fn topic_deleted() -> Failure {
    Failure::new(Status::TopicNotExist, "the topic was deleted while the message was on its way")
}

fn no_space_in(wait: Duration) -> Failure {
    let message = format!("the log had no space within {wait:?}, and nothing is stored: try again");
    Failure::new(Status::Busy, message)
}
