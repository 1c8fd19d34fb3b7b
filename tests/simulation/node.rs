//! Shards on a faulty disk, with the tasks that a core would run for them.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::time::Duration;

use turbopump::api::{Failure, Fetch, Fetched, Reply, Request, ShardAddress, TopicChange};
use turbopump::broker::{
    Broker, BrokerOptions, ClientFetches, LeaseDefaults, OpenedBroker, PeerFuture, PeerReply, PeerRequest,
    Peers, StartError,
};
use turbopump::clock::SharedClock;
use turbopump::disk::bounded::BoundedDisk;
use turbopump::disk::faulty::FaultyDisk;
use turbopump::disk::{Disk, DiskFile, OpenMode};
use turbopump::limits;
use turbopump::log::{CommitOptions, LogOptions, Placed, Report};
use turbopump::metrics::ShardMetrics;
use turbopump::testing::{JoinHandle, SeededExecutor, Spawner, VirtualClock};
use turbopump::types::{
    DelayLevels, GroupName, Level, NodeId, QueueKey, QueueOffset, ShardId, TopicId, TopicName,
};
use turbopump::wire::batch::LogSecret;

pub type TestBroker = Broker<BoundedDisk<FaultyDisk>>;

/// Files that a shard has open because they were read: so few that it opens and closes them all the time.
const FILES_MAX: usize = 2;

/// So many commit groups of a run are followed by a look at the whole state, and later ones now and then: what a test of
/// bounds has made takes long to look at.
const GROUPS_CHECKED: u64 = 256;

/// Every group is written while the one before it is being flushed.
pub const OVERLAPPED: CommitOptions = CommitOptions { overlap_bytes: 1, synced_bytes: 0 };

/// How the shards of a node are set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub shard_count: u16,
    pub segment_bytes: u64,
    pub retention_bytes: Option<u64>,
    pub zero_fill: bool,
    pub commit: CommitOptions,
    pub retention_age: Option<Duration>,
    pub group_idle: Option<Duration>,
    pub auto_create_topics: Option<u32>,
    pub transaction_checks_max: u32,
    pub check_interval: Duration,
}

impl Default for Setup {
    fn default() -> Self {
        let segment_bytes = limits::SEGMENT_BYTES_MIN;
        let commit = CommitOptions::default();
        Self {
            shard_count: 1,
            segment_bytes,
            retention_bytes: None,
            zero_fill: false,
            commit,
            retention_age: None,
            group_idle: None,
            auto_create_topics: None,
            transaction_checks_max: 15,
            check_interval: Duration::from_secs(30),
        }
    }
}

/// A running node.
pub struct Node {
    pub brokers: Vec<Rc<TestBroker>>,
    pub reports: Vec<Report>,
    pub rebuilt: Vec<Option<String>>,
    pub clock: SharedClock,
    /// The most shards that were asked at once for what they have found.
    pub look_ups_peak: Rc<Cell<usize>>,
    overheard: Rc<RefCell<Option<Overheard>>>,
    tasks: Vec<JoinHandle<()>>,
}

/// What shards ask of each other.
pub type Overheard = Rc<RefCell<Vec<PeerRequest>>>;

/// Looks at a shard whenever it has published a group.
pub type Watcher = Rc<dyn Fn(&FaultyDisk, &Setup, &TestBroker)>;

thread_local! {
    static WATCHER: RefCell<Option<Watcher>> = const { RefCell::new(None) };
}

/// Runs `work`; `watcher` looks at every shard that it starts.
pub fn watched(watcher: Watcher, work: impl FnOnce()) {
    WATCHER.set(Some(watcher));
    work();
    WATCHER.set(None);
}

/// What a shard has in its tables once it has recovered from this disk.
pub fn state_after_recovery(disk: &FaultyDisk, setup: &Setup, shard: u16) -> Vec<u8> {
    let executor = SeededExecutor::new(1);
    executor.run_until(async {
        let is_made = is_made(disk).await.expect("a healthy disk");
        let options = options(setup, shard, is_made);
        let (disk, metrics) = (BoundedDisk::new(disk.clone(), FILES_MAX), Rc::new(ShardMetrics::new()));
        let opened = Broker::open(disk, options, executor.shared_clock(), metrics).await;
        let OpenedBroker { broker, report, .. } = opened.expect("it starts");
        assert!(report.damage.is_empty(), "damage without damage: {report:?}");
        broker.check_state();
        let state = broker.state_bytes();
        broker.log().clone().close().await.expect("a healthy disk");
        broker.index().close().await.expect("a healthy disk");
        state
    })
}

/// Of whatever goes wrong, clients are told what it is, and never where the files are.
fn check_words(failure: &Failure) {
    assert!(!failure.message.contains(DATA), "clients are told where files are: {failure:?}");
}

/// The shards as one of them sees them: letters arrive at once.
struct Neighbours {
    shards: Vec<Weak<TestBroker>>,
    look_ups: Rc<Cell<usize>>,
    look_ups_peak: Rc<Cell<usize>>,
    overheard: Rc<RefCell<Option<Overheard>>>,
}

impl Peers for Neighbours {
    fn ask(&self, shard: ShardId, request: PeerRequest) -> PeerFuture {
        let broker = self.shards[usize::from(shard.0)].upgrade();
        if let Some(overheard) = &*self.overheard.borrow() {
            overheard.borrow_mut().push(request.clone());
        }
        let (look_ups, peak) = (self.look_ups.clone(), self.look_ups_peak.clone());
        let count = usize::from(matches!(request, PeerRequest::FindHere(_)));
        Box::pin(async move {
            look_ups.set(look_ups.get() + count);
            peak.set(peak.get().max(look_ups.get()));
            let reply = match broker {
                Some(broker) => broker.handle_peer(request).await,
                None => Ok(PeerReply::Done),
            };
            look_ups.set(look_ups.get() - count);
            reply
        })
    }

    fn arrived(&self, shard: ShardId, topic: TopicId) {
        if let Some(broker) = self.shards[usize::from(shard.0)].upgrade() {
            broker.arrived(topic);
        }
    }

    fn addresses(&self) -> Vec<ShardAddress> {
        let address = |shard| ShardAddress { shard: ShardId(shard), address: format!("localhost:{shard}") };
        (0..self.shards.len() as u16).map(address).collect()
    }
}

pub fn shard_directory(shard: u16) -> PathBuf {
    PathBuf::from(format!("/data/shard-{shard}"))
}

pub fn log_directory(shard: u16) -> PathBuf {
    shard_directory(shard).join("log")
}

/// A log by itself, which keeps nothing in memory.
pub fn log_options(directory: &Path) -> LogOptions {
    LogOptions {
        directory: directory.to_owned(),
        shard: ShardId(0),
        segment_bytes: limits::SEGMENT_BYTES_MIN,
        tail_cache_bytes: 0,
        zero_fill: false,
        commit: CommitOptions::default(),
        device_sharers: 1,
        secret: LogSecret(7),
        shard_count: 1,
        is_made: false,
        reached: Vec::new(),
    }
}

/// The data directory of all nodes.
const DATA: &str = "/data";
/// What says that the node's shards were started once, as the description of a data directory does.
const MADE: &str = "/data/made";

async fn is_made(disk: &FaultyDisk) -> Result<bool, StartError> {
    Ok(disk.list(Path::new("/data")).await?.iter().any(|name| MADE.ends_with(name)))
}

fn options(setup: &Setup, shard: u16, is_made: bool) -> BrokerOptions {
    BrokerOptions {
        directory: shard_directory(shard),
        node: NodeId(7),
        shard: ShardId(shard),
        shard_count: setup.shard_count,
        is_made,
        level: Level::Durable,
        segment_bytes: setup.segment_bytes,
        tail_cache_bytes: 1024 * 1024,
        client_memory_bytes: 64 * 1024 * 1024,
        zero_fill: setup.zero_fill,
        commit: setup.commit,
        retention_age: setup.retention_age,
        group_idle: setup.group_idle,
        lock_lease: Duration::from_secs(60),
        delay_levels: DelayLevels::default(),
        retention_bytes: setup.retention_bytes,
        leases: LeaseDefaults::default(),
        secret: 0x5eed ^ u64::from(shard),
        transaction_immunity: Duration::from_secs(6),
        transaction_check_interval: setup.check_interval,
        transaction_checks_max: setup.transaction_checks_max,
        auto_create_topics: setup.auto_create_topics,
        reserved_topics: vec!["reserved".to_owned()],
        version: "test".to_owned(),
        core: None,
    }
}

impl Node {
    /// Opens every shard and starts its tasks.
    pub async fn start(
        disk: &FaultyDisk,
        setup: &Setup,
        clock: SharedClock,
        spawner: &Spawner,
    ) -> Result<Self, StartError> {
        let mut node = Self {
            brokers: Vec::new(),
            reports: Vec::new(),
            rebuilt: Vec::new(),
            clock,
            look_ups_peak: Rc::default(),
            overheard: Rc::default(),
            tasks: Vec::new(),
        };
        disk.create_directory(Path::new("/data")).await?;
        disk.sync_directory(Path::new("/")).await?;
        let is_made = is_made(disk).await?;
        for shard in 0..setup.shard_count {
            if !is_made {
                disk.create_directory(&shard_directory(shard)).await?;
                disk.sync_directory(Path::new("/data")).await?;
            }
            let metrics = Rc::new(ShardMetrics::new());
            let bounded = BoundedDisk::new(disk.clone(), FILES_MAX);
            let opened = Broker::open(bounded, options(setup, shard, is_made), node.clock.clone(), metrics);
            let OpenedBroker { broker, report, rebuilt } = opened.await?;
            broker.check_state();
            node.brokers.push(broker);
            node.reports.push(report);
            node.rebuilt.push(rebuilt);
        }
        if !is_made {
            disk.open(Path::new(MADE), OpenMode::Create).await?.close().await?;
            disk.sync_directory(Path::new("/data")).await?;
        }
        let neighbours = Rc::new(Neighbours {
            shards: node.brokers.iter().map(Rc::downgrade).collect(),
            look_ups: Rc::default(),
            look_ups_peak: node.look_ups_peak.clone(),
            overheard: node.overheard.clone(),
        });
        for broker in &node.brokers {
            broker.set_peers(neighbours.clone());
            let (committing, disk, setup) = (broker.clone(), disk.clone(), *setup);
            node.tasks.push(spawner.spawn(async move {
                let mut groups = 0u64;
                let watcher = WATCHER.with_borrow(Option::clone);
                let publish = |batches: &[Placed]| {
                    committing.publish(batches);
                    groups += 1;
                    if groups <= GROUPS_CHECKED || groups.is_multiple_of(GROUPS_CHECKED) {
                        committing.check_state();
                    }
                    if let Some(watcher) = &watcher {
                        watcher(&disk, &setup, &committing);
                    }
                };
                committing.log().run_commit(|| committing.place_gathered(), publish).await;
            }));
            let supplying = broker.log().clone();
            node.tasks.push(spawner.spawn(async move { supplying.run_supply().await }));
            let timing = broker.clone();
            node.tasks.push(spawner.spawn(async move { timing.run_timers().await }));
            let checking = broker.clone();
            node.tasks.push(spawner.spawn(async move { checking.run_checks().await }));
            let gathering = broker.clone();
            node.tasks.push(spawner.spawn(async move { gathering.run_reader_commits().await }));
            let keeping = broker.clone();
            node.tasks.push(spawner.spawn(async move { keeping.run_housekeeping().await }));
            let sweeping = broker.clone();
            node.tasks.push(spawner.spawn(async move { sweeping.run_dead_letters().await }));
            let ageing = broker.clone();
            node.tasks.push(spawner.spawn(async move { ageing.run_group_ageing().await }));
            let indexing = broker.clone();
            node.tasks.push(spawner.spawn(async move { indexing.run_key_indexing().await }));
        }
        let epochs: Vec<u32> = node.reports.iter().map(|report| report.epoch).collect();
        for broker in &node.brokers {
            broker.log().note_shard_epochs(&epochs).await?;
        }
        let synced = node.brokers[0].sync_topics().await;
        assert!(synced.is_ok() || disk.is_crashed(), "topics are not in line: {synced:?}");
        Ok(node)
    }

    pub fn broker(&self) -> &Rc<TestBroker> {
        &self.brokers[0]
    }

    pub fn owner(&self, key: QueueKey) -> &Rc<TestBroker> {
        &self.brokers[usize::from(key.queue.shard(self.brokers.len() as u16).0)]
    }

    /// Notes what shards ask of each other from now on.
    pub fn overhear(&self, overheard: Overheard) {
        *self.overheard.borrow_mut() = Some(overheard);
    }

    pub async fn handle(&self, request: Request) -> Result<Reply, Failure> {
        let told = self.broker().handle(request).await;
        told.inspect_err(check_words)
    }

    pub async fn fetch(&self, key: QueueKey, offset: QueueOffset) -> Result<Fetched, Failure> {
        self.fetch_for(0, key, offset).await
    }

    /// Fetches for the session of a group's member.
    pub async fn fetch_for(
        &self,
        session: u64,
        key: QueueKey,
        offset: QueueOffset,
    ) -> Result<Fetched, Failure> {
        let fetch = Fetch {
            session,
            key,
            offset,
            bytes_max: 1024 * 1024,
            records_max: u32::MAX,
            wait: Duration::ZERO,
        };
        let fetched = self.owner(key).fetch(fetch).await.inspect_err(check_words)?;
        if let Some(damaged) = &fetched.damaged {
            assert!(!damaged.file.contains(DATA), "clients are told where files are: {damaged:?}");
        }
        // Where the batches are still in memory, readers get them from there without a copy: the same bytes.
        if let Some(tail) = ClientFetches::new(self.owner(key)).at_once(&fetch)?
            && tail.head.next_offset == fetched.next_offset
        {
            let parts: Vec<&[u8]> = tail.batches.iter().map(|slice| &slice[..]).collect();
            assert_eq!(parts.concat(), fetched.batches);
        }
        Ok(fetched)
    }

    /// Stops as a core does: takes nothing more, finishes what was taken, says so in a snapshot.
    pub async fn stop(mut self) {
        for broker in &self.brokers {
            broker.stop();
        }
        for task in self.tasks.drain(..) {
            task.await;
        }
        for broker in self.brokers.drain(..) {
            broker.check_state();
            broker.take_leave().await;
            // Closing reports what the disk says; a failed disk may say it again here.
            let _ = broker.log().clone().close().await;
            let _ = broker.index().close().await;
        }
    }
}

/// Runs `main` on a node that was started on `disk`, and leaves it where it stands.
pub fn on_node<T>(
    disk: &FaultyDisk,
    setup: &Setup,
    seed: u64,
    main: impl AsyncFnOnce(&Node) -> T,
) -> Result<T, StartError> {
    let executor = SeededExecutor::new(seed);
    executor.run_until(async {
        let node = Node::start(disk, setup, executor.shared_clock(), &executor.spawner()).await?;
        let result = main(&node).await;
        node.stop().await;
        Ok(result)
    })
}

/// Runs a node with the clock at hand, whose wall clock is set by `shift_ms` before the node starts.
pub fn on_node_with_clock<T>(
    disk: &FaultyDisk,
    setup: &Setup,
    shift_ms: i64,
    main: impl AsyncFnOnce(&Node, &VirtualClock) -> T,
) -> Result<T, StartError> {
    let executor = SeededExecutor::new(1);
    executor.set_polls_max(u64::MAX);
    let clock = executor.clock();
    clock.shift_wall_clock(shift_ms);
    executor.run_until(async {
        let node = Node::start(disk, setup, executor.shared_clock(), &executor.spawner()).await?;
        let result = main(&node, &clock).await;
        node.stop().await;
        Ok(result)
    })
}

pub fn topic_name(name: &str) -> TopicName {
    name.parse().expect("a topic name")
}

pub fn group_name(name: &str) -> GroupName {
    name.parse().expect("a group name")
}

pub fn topic_change(name: &str, queues: u32) -> TopicChange {
    TopicChange { topic: topic_name(name), queues: Some(queues), retention: None, level: None }
}
