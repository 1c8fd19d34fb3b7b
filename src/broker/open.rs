//! Starting a shard: snapshot, replay, and the index from the log when it cannot be trusted.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use super::apply::{LogBatch, follow, remove_topic};
use super::find::KeyIndexing;
use super::groups::Groups;
use super::options::BrokerOptions;
use super::queue_ends::QueueEnds;
use super::reader::{BatchCache, Stretches};
use super::readers::{ReaderCommits, ReaderLocks, Spreading};
use super::receive::PairLocks;
use super::shard_broker::{Broker, OpenedBroker};
use super::steady::SteadyTime;
use super::time_slice::LongTasks;
use super::upkeep::IndexHealth;
use super::upkeep::Notices;
use super::upkeep::Snapshot;
use super::upkeep::{ShardHome, Witnesses, refused_names};
use super::writer::Writer;
use crate::clock::SharedClock;
use crate::disk::{Disk, DiskError};
use crate::index::{Index, IndexEntry, IndexError, IndexOptions, TrimProgress, distrust, mark_distrust};
use crate::limits;
use crate::log::{CommitLog, LogOptions, Lost, Manifest, OpenError, Replay, Report, StartAt};
use crate::metrics::ShardMetrics;
use crate::state::{Change, ChangeError, Effect, Stage, State, Tables, adopted_topics, decode_changes};
use crate::types::{
    Account, ClientMemory, LogPosition, QueueKey, QueueOffset, TaskMutex, Throttle, TopicId, WakerList,
};
use crate::wire::batch::{BatchHeader, LogSecret};

/// Queues looked at between two chances for others to run.
const TRIM_STEP_QUEUES: usize = 256;

/// What clients can bring about again and again is said once in this time.
const SAY_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Why the index is built anew where nothing else is wrong.
const NO_SNAPSHOT: &str = "no snapshot is left that says what is in it";

/// Why a shard does not start. Nothing stored was changed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Log(#[from] OpenError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(
        "the log was written by a newer release ({0}): start that release, or use another data directory"
    )]
    Newer(#[from] ChangeError),
}

/// What replay builds, and what it stumbled over.
pub(super) struct Rebuild<D: Disk> {
    state: State,
    pub index: Index<D>,
    pub ends: QueueEnds,
    /// The snapshot does not fit the log, or the index contradicts it: start again without.
    distrust: Option<String>,
    unreadable: Option<ChangeError>,
}

impl<D: Disk> Rebuild<D> {
    pub fn new(index: Index<D>, checks_max: u32) -> Self {
        Self {
            state: State::new(checks_max),
            index,
            ends: QueueEnds::default(),
            distrust: None,
            unreadable: None,
        }
    }

    /// Why what was built is of no use.
    pub fn objection(&self) -> Option<String> {
        self.distrust.clone().or_else(|| self.unreadable.as_ref().map(ChangeError::to_string))
    }

    /// Carries out what a snapshot says that was taken at `position`.
    fn load(&mut self, payload: &[u8], position: LogPosition) {
        match decode_changes(payload) {
            Ok(changes) => {
                let Self { state, index, ends, .. } = self;
                ends.has_beginning = Some(true);
                state.load(changes, position, |effect| carry_out(index, ends, effect));
            }
            Err(error) => self.unreadable = Some(error),
        }
    }

    /// Carries out a batch, in the order of the log.
    pub fn replay(&mut self, batch: LogBatch<'_>) {
        match batch {
            LogBatch::Messages { key, entry } => self.replay_entry(key, entry),
            LogBatch::Held(batch) => {
                if let Some((bucket, entry)) = self.state.held_stored(&batch, Stage::Replayed) {
                    self.replay_entry(bucket, entry);
                }
            }
            LogBatch::State { payload, position } => match decode_changes(payload) {
                Ok(changes) => {
                    self.ends.note_adopted(adopted_topics(&changes));
                    changes.into_iter().for_each(|change| self.apply(change, position));
                }
                Err(error) => self.unreadable = Some(error),
            },
        }
    }

    fn replay_entry(&mut self, key: QueueKey, entry: IndexEntry) {
        if self.distrust.is_some() {
            return;
        }
        let is_new = self.ends.lost_to.is_some() && self.index.bounds(key).is_none();
        if let Err(error) = self.index.replay(key, entry) {
            self.distrust = Some(error.to_string());
            return;
        }
        if let Some(lost_to) = self.ends.lost_to {
            self.ends.note(key, entry.end_offset());
            if key.topic != TopicId::DELAYED && self.state.tables().topic(key.topic).is_none() {
                // What made the topic is lost as well. No other one may get its id, and with it these messages.
                self.apply(Change::NextTopicId(TopicId(key.topic.0 + 1)), entry.position);
            }
            // What it had before is damaged, and was not removed: it begins where it began.
            let had_more = self.ends.may_begin_before(entry.base_offset) || self.ends.is_adopted(key.topic);
            if is_new && key.topic != TopicId::DELAYED && had_more {
                self.index.begin_at(key, QueueOffset::ZERO, lost_to);
            }
        }
    }

    fn apply(&mut self, change: Change, position: LogPosition) {
        let effect = self.state.apply(change, position, Stage::Replayed);
        carry_out(&self.index, &mut self.ends, effect);
    }
}

/// Lets the index and the noted ends of the queues follow a change.
fn carry_out<D: Disk>(index: &Index<D>, ends: &mut QueueEnds, effect: Effect) {
    follow(index, &effect);
    match effect {
        Effect::TopicRemoved(id) => ends.retain(|topic| topic != id),
        Effect::OnlyTopics(live) => ends.retain(|topic| live.contains(&topic)),
        Effect::QueueEnd { key, offset } => ends.note(key, offset),
        // Queues are made, and timers started, when everything was read.
        Effect::TopicPut(_)
        | Effect::Purged { .. }
        | Effect::Released(_)
        | Effect::Moved { .. }
        | Effect::HalfStored
        | Effect::HalfUsedUp
        | Effect::None => {}
    }
}

impl<D: Disk> Replay for Rebuild<D> {
    fn restart(&mut self) {
        self.distrust = Some("the snapshot's place in the log is gone".to_owned());
    }

    fn whole(&mut self, header: &BatchHeader, bytes: &[u8]) {
        self.ends.begin_at(header.position);
        self.replay(LogBatch::of_stored(header, bytes));
    }

    fn harmed(&mut self, header: &BatchHeader) {
        self.ends.begin_at(header.position);
        if let Some(batch) = LogBatch::of_harmed(header) {
            self.replay(batch);
        }
    }

    fn lost(&mut self, lost: Lost) {
        self.ends.begin_at(lost.from);
        self.ends.lose(lost);
    }

    fn has_to_write(&self) -> bool {
        self.index.spill_needed()
    }

    async fn settle(&mut self) -> Result<(), DiskError> {
        if self.has_to_write() {
            match self.index.spill().await {
                Err(IndexError::Disk(error)) => return Err(error),
                Err(error) => self.distrust = Some(error.to_string()),
                Ok(()) => {}
            }
        }
        Ok(())
    }
}

impl<D: Disk> Broker<D> {
    /// Opens the shard in its directory, made when missing.
    pub async fn open(
        disk: D,
        options: BrokerOptions,
        clock: SharedClock,
        metrics: Rc<ShardMetrics>,
    ) -> Result<OpenedBroker<D>, StartError> {
        let witnesses = Self::judge(&disk, &options).await?;
        Self::open_judged(disk, options, witnesses, clock, metrics).await
    }

    /// Holds the shard's files against each other, before any of them is touched.
    pub async fn judge(disk: &D, options: &BrokerOptions) -> Result<Witnesses, StartError> {
        check(disk, options).await
    }

    /// Opens the shard as [`open`](Self::open) does, with what its [judgement](Self::judge) has found: for a node that
    /// judges all of its shards before it opens any. Nobody may have changed the files since.
    pub async fn open_judged(
        disk: D,
        options: BrokerOptions,
        witnesses: Witnesses,
        clock: SharedClock,
        metrics: Rc<ShardMetrics>,
    ) -> Result<OpenedBroker<D>, StartError> {
        make_directories(&disk, &options).await?;
        let attempt = Attempt {
            disk: &disk,
            options: &options,
            witnesses: &witnesses,
            clock: &clock,
            metrics: &metrics,
        };
        let (opened, rebuilt) = attempt.run_or_rebuild().await?;
        let health = Rc::new(IndexHealth::new(rebuilt.is_some()));
        let (broker, mut report) = Self::assemble(disk, options, clock, metrics, opened, health);
        if let Some(snapshot) = &witnesses.snapshot {
            broker.snapshot_slot.set(snapshot.sequence);
            if rebuilt.is_none() {
                broker.snapshot_position.set(snapshot.position);
            }
        }
        report.notices.extend(witnesses.notices.iter().cloned());
        broker.metrics.index_renewals.add(rebuilt.is_some().into());
        broker.metrics.snapshots_missing.add(witnesses.lost_snapshots.len() as u64);
        Ok(OpenedBroker { broker: Rc::new(broker), report, rebuilt })
    }

    /// Puts the shard together from what replay has built, with its queues, as if there had been no snapshot.
    fn assemble(
        disk: D,
        options: BrokerOptions,
        clock: SharedClock,
        metrics: Rc<ShardMetrics>,
        Opened { log, state, index, ends, report }: Opened<D>,
        index_health: Rc<IndexHealth>,
    ) -> (Self, Report) {
        let (memory, live) = (ClientMemory::new(options.client_memory_bytes), Cell::new(options.live()));
        let (steady, state) = (steady_time(&state, &options, &clock), Rc::new(RefCell::new(state)));
        let broker = Broker {
            live,
            steady,
            snapshot_position: Cell::new(log.first_position()),
            writer: Writer::new(&log, &index, &index_health, &state, &clock, &metrics),
            groups: RefCell::new(Groups::new(log.epoch(), memory.budget(Account::Members).clone())),
            disk,
            clock,
            metrics,
            notices: Notices::default(),
            keys: KeyIndexing::new(log.watermarks().durable_end()),
            log,
            index,
            state,
            queues: RefCell::default(),
            passed: RefCell::default(),
            readers: RefCell::default(),
            spreading: Spreading::default(),
            reader_commits: ReaderCommits::default(),
            reader_locks: ReaderLocks::default(),
            refused: RefCell::new(None),
            refusals_said: Throttle::new(SAY_AGAIN_AFTER),
            dead_letters_said: Throttle::new(SAY_AGAIN_AFTER),
            pair_locks: PairLocks::default(),
            long_tasks: LongTasks::new(),
            batch_cache: RefCell::new(BatchCache::new(limits::RECEIVE_CACHE_BYTES)),
            stretches: Stretches::new(&memory),
            memory,
            publish_round_robin: Cell::new(0),
            receive_round_robin: Cell::new(0),
            gates: RefCell::default(),
            receivers: RefCell::default(),
            arrivals: RefCell::default(),
            unmade_topics: Rc::default(),
            topic_change: TaskMutex::default(),
            held_lock: TaskMutex::default(),
            recallers: RefCell::default(),
            topic_makers: RefCell::default(),
            held_changed: WakerList::new(),
            halves_changed: WakerList::new(),
            held_roll_at: Cell::new(LogPosition::ZERO),
            peers: RefCell::new(None),
            is_shutting_down: Cell::new(false),
            checkpoint_segment: Cell::new(None),
            checkpoint_done: Cell::new(None),
            used_groups: RefCell::default(),
            snapshot_slot: Cell::new(0),
            published: WakerList::new(),
            housekeeping_at: Cell::new(LogPosition::ZERO),
            damage: report.damage.clone(),
            given_up: report.given_up.clone(),
            is_adopting: Cell::new(false),
            index_health,
            rates: RefCell::default(),
            host: RefCell::new(None),
            options,
        };
        broker.make_all_queues(&ends);
        (broker, report)
    }

    fn make_all_queues(&self, ends: &QueueEnds) {
        let topics: Vec<_> = self.tables().topics().cloned().collect();
        for topic in &topics {
            self.is_adopting.set(ends.is_adopted(topic.id));
            self.make_queues(topic);
        }
        self.is_adopting.set(false);
        self.raise_ends(ends);
    }

    /// Lets no queue end before an offset that it has given out. The batches in between are gone, and those that damage has
    /// taken are told of: only retention moves a queue's first offset.
    fn raise_ends(&self, ends: &QueueEnds) {
        for queue in self.queues.borrow().values() {
            let indexed = queue.durable_end.get();
            let is_empty = self.index.bounds(queue.key).is_none_or(|(first, end)| first == end);
            let end = ends.end_of(queue.key, indexed, is_empty);
            if end == indexed {
                continue;
            }
            // Of a queue whose every message has expired nothing is left but its end. One that begins at zero on a shard whose
            // beginning was given up has lost what it had.
            let has_lost_all = indexed == QueueOffset::ZERO && self.first_offset() > QueueOffset::ZERO;
            if is_empty
                && !has_lost_all
                && let Some(noted) = ends.expired_to(queue.key)
            {
                self.index.ensure_queue_at(queue.key, noted);
            }
            queue.durable_end.set(end);
            queue.next_offset.set(end);
        }
    }
}

fn contradiction(options: &BrokerOptions, detail: String) -> OpenError {
    OpenError::Contradiction { directory: options.directory.display().to_string(), detail }
}

/// Holds the shard's files against each other before any of them is touched, the index's among them.
async fn check<D: Disk>(disk: &D, options: &BrokerOptions) -> Result<Witnesses, StartError> {
    let (shard, shard_count) = (options.shard, options.shard_count);
    let home = ShardHome { directory: &options.directory, shard, shard_count, is_made: options.is_made };
    let refused = refused_names(disk, &options.directory).await?.into_iter().next();
    let mut witnesses = Witnesses::hear(disk, &home).await?;
    let found = witnesses.contradictions(disk, &home).await?;
    if found.is_empty() {
        return refused.map_or(Ok(witnesses), |error| Err(error.into()));
    }
    Err(OpenError::Lacking { directory: options.directory.join("log"), contradictions: found }.into())
}

/// Makes the directories of a new shard, and that of the index, which is made from the log.
async fn make_directories<D: Disk>(disk: &D, options: &BrokerOptions) -> Result<(), StartError> {
    disk.create_directory(&options.directory.join("log")).await?;
    disk.create_directory(&options.directory.join("index")).await?;
    Ok(disk.sync_directory(&options.directory).await?)
}

struct Attempt<'a, D: Disk> {
    disk: &'a D,
    options: &'a BrokerOptions,
    witnesses: &'a Witnesses,
    clock: &'a SharedClock,
    metrics: &'a Rc<ShardMetrics>,
}

struct Opened<D: Disk> {
    log: CommitLog<D>,
    state: State,
    index: Index<D>,
    ends: QueueEnds,
    report: Report,
}

impl<D: Disk> Attempt<'_, D> {
    /// Opens with the snapshot, or without where it or the index contradicts the log. Returns why it was without.
    async fn run_or_rebuild(&self) -> Result<(Opened<D>, Option<String>), StartError> {
        let found = match distrust(self.disk, &self.options.directory.join("index")).await? {
            Some(reason) => Err(reason),
            None if self.witnesses.has_lost_snapshots() => Err(NO_SNAPSHOT.to_owned()),
            None => self.run(self.witnesses.snapshot.as_ref()).await?,
        };
        let reason = match found {
            Ok(opened) => return Ok((opened, None)),
            Err(reason) => reason,
        };
        match self.rebuild(&reason).await? {
            Ok(opened) => Ok((opened, Some(reason))),
            // Without a snapshot there is nothing left to distrust: the log itself contradicts the rules.
            Err(reason) => Err(StartError::Log(contradiction(self.options, reason))),
        }
    }

    /// Replays the whole log, without a snapshot. From here on no start trusts an index that another one may have begun to
    /// overwrite.
    async fn rebuild(&self, reason: &str) -> Result<Result<Opened<D>, String>, StartError> {
        mark_distrust(self.disk, &self.options.directory.join("index"), reason).await?;
        self.run(None).await
    }

    /// One try; the inner error says why the snapshot must not be used.
    async fn run(&self, snapshot: Option<&Snapshot>) -> Result<Result<Opened<D>, String>, StartError> {
        let log_directory = self.options.directory.join("log");
        let epoch = Manifest::read(self.disk, &log_directory).await?.map_or(0, |manifest| manifest.epoch) + 1;
        let index_directory = self.options.directory.join("index");
        let saved = snapshot.map(|snapshot| &snapshot.index[..]);
        let index_options = IndexOptions::new(epoch);
        let index = match Index::open(self.disk.clone(), &index_directory, index_options, saved).await {
            Ok(index) => index,
            Err(IndexError::Disk(error)) => return Err(error.into()),
            Err(error) => return Ok(Err(error.to_string())),
        };
        let stored = index.stored();
        let start = match snapshot {
            Some(snapshot) => StartAt::Position {
                position: snapshot.position,
                epoch: snapshot.epoch,
                newest: snapshot.newest,
            },
            None => StartAt::Beginning,
        };
        let mut rebuild = Rebuild::new(index, self.options.transaction_checks_max);
        if let Some(snapshot) = snapshot {
            rebuild.load(&snapshot.tables, snapshot.position);
        }
        let log_options = LogOptions {
            directory: log_directory,
            shard: self.options.shard,
            segment_bytes: self.options.segment_bytes,
            tail_cache_bytes: self.options.tail_cache_bytes,
            zero_fill: self.options.zero_fill,
            commit: self.options.commit,
            device_sharers: self.options.shard_count,
            secret: LogSecret(self.options.secret),
            shard_count: self.options.shard_count,
            is_made: self.options.is_made,
            reached: self.witnesses.known.reached.clone(),
        };
        let (disk, clock, metrics) = (self.disk.clone(), self.clock.clone(), self.metrics.clone());
        let (log, report) = CommitLog::open(disk, log_options, clock, metrics, start, &mut rebuild).await?;
        if let Some(error) = rebuild.unreadable {
            return Err(error.into());
        }
        let Rebuild { mut state, index, ends, distrust, .. } = rebuild;
        state.forget_stored_below(log.first_position());
        let distrust = match distrust {
            None => self.settle(state.tables(), &index, log.first_position(), &stored).await?,
            some => some,
        };
        match distrust {
            None => Ok(Ok(Opened { log, state, index, ends, report })),
            Some(reason) => {
                log.close().await?;
                index.close().await?;
                Ok(Err(reason))
            }
        }
    }

    /// Brings the index in line with the tables and the log's start.
    async fn settle(
        &self,
        tables: &Tables,
        index: &Index<D>,
        first_position: LogPosition,
        stored: &[(u32, u64)],
    ) -> Result<Option<String>, StartError> {
        // Batches that were on their way when their topic was deleted.
        remove_topic(index, |key| tables.topic(key.topic).is_none());
        let mut trim = index.trim(first_position);
        loop {
            match trim.step(TRIM_STEP_QUEUES).await {
                Ok(TrimProgress::More) => {}
                Ok(TrimProgress::Done) => break,
                Err(IndexError::Disk(error)) => return Err(error.into()),
                Err(error) => return Ok(Some(error.to_string())),
            }
        }
        match index.check_stored(stored).await {
            Ok(()) => Ok(None),
            Err(IndexError::Disk(error)) => Err(error.into()),
            Err(error) => Ok(Some(error.to_string())),
        }
    }
}

/// Goes on from the latest moment that the state names.
fn steady_time(state: &State, options: &BrokerOptions, clock: &SharedClock) -> SteadyTime {
    let newest = state.newest_moment(options.transaction_check_interval).unwrap_or_default();
    SteadyTime::new(clock.clone(), newest, state.tables().running())
}
