//! One core: an executor and the shards that run on it.

use std::net::TcpListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use glommio::{Latency, LocalExecutorBuilder, Placement, Shares, TaskQueueHandle};

use super::device::{DeviceSpeed, measure};
use super::gate::Gate;
use super::mailbox::{Letter, Letterbox, Mailbox, ShardPeers, SharedPeers};
use super::pulse::{Pulse, Pulses};
use crate::access::{AccessError, NodeSecret};
use crate::admin::{Question, ShardStanding};
use crate::api::{SettingChange, ShardAddress};
use crate::broker::{Broker, BrokerOptions, OpenedBroker, PeerRequest, StartError};
use crate::clock::SharedClock;
use crate::disk::DiskError;
use crate::disk::bounded::BoundedDisk;
use crate::disk::glommio::{Access as DiskAccess, GlommioDisk};
use crate::log::Report;
use crate::metrics::ShardMetrics;
use crate::net::TlsError;
use crate::runtime::host;
use crate::runtime::{Glommio, SystemClock, heartbeat};
use crate::server::{
    Access, ConnectionDescriptors, Connections, CoreTurns, CostlyStepSender, Door, DoorRules,
};
use crate::server::{Doors, HandshakeMakers, HttpOptions, HttpPort, RemotingOptions, RemotingPort};
use crate::server::{ShardBroker, Tls};
use crate::types::ShardId;

/// Memory that glommio registers with each of its three rings; small, since the limit of locked memory is.
const RING_MEMORY_BYTES: usize = 64 * 1024;
/// How long a stopping shard waits for answers to leave.
const STOP_GRACE: Duration = Duration::from_secs(3);
/// Reading a backlog gets this many shares against 1,000 of everything else.
const CATCH_UP_SHARES: usize = 200;
const HOUSEKEEPING_SHARES: usize = 100;
const KEY_INDEX_SHARES: usize = 50;

/// A shard to be run.
pub(super) struct ShardPlan {
    pub options: BrokerOptions,
    pub listener: TcpListener,
    pub mailbox: Mailbox,
}

/// Everything a core's thread needs; it crosses to that thread.
pub(super) struct CorePlan {
    pub core: usize,
    pub shards: Vec<ShardPlan>,
    pub node_listener: Option<TcpListener>,
    pub http_listener: Option<TcpListener>,
    pub namesrv_listener: Option<TcpListener>,
    pub doors: DoorPlan,
    pub secret: NodeSecret,
    pub letterboxes: Vec<Letterbox>,
    pub addresses: Vec<ShardAddress>,
    pub access: DiskAccess,
    pub data: PathBuf,
    pub files_per_shard: usize,
    pub connection_descriptors: ConnectionDescriptors,
    /// One core of the node measures the device before it starts its shards.
    pub measures_device: bool,
    pub gate: Gate,
    pub pulses: Pulses,
    pub start: Instant,
    pub events: mpsc::Sender<CoreEvent>,
}

/// What every door of the node is opened with.
#[derive(Clone)]
pub(super) struct DoorPlan {
    pub rules: DoorRules,
    /// `None`: HTTP is not spoken.
    pub http: Option<HttpOptions>,
    /// `None`: RocketMQ's own protocol is not spoken.
    pub remoting: Option<RemotingOptions>,
    /// Certificate and key; `None`: without TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// What of handshakes takes long goes there; `None`: without TLS.
    pub costly_steps: Option<CostlyStepSender>,
    /// `None`: everybody may do everything.
    pub access_keys: Option<PathBuf>,
}

/// What a core tells the node.
pub(super) enum CoreEvent {
    /// The shard's files are what they must be. It waits for the others' at the gate.
    Judged,
    Ready {
        shard: ShardId,
        report: Report,
        rebuilt: Option<String>,
        took: Duration,
    },
    Failed {
        shard: ShardId,
        error: CoreError,
    },
    EpochsNoted,
    /// A client of the shard asks for the settings, or changes some.
    Settings {
        shard: ShardId,
        /// Of the letter with the answer.
        ticket: u64,
        changes: Vec<SettingChange>,
    },
    TopicsSynced(Result<(), String>),
    Device {
        speed: DeviceSpeed,
        /// What kept it from being measured, and other files than usual from being used.
        warnings: Vec<String>,
    },
    Ended,
}

/// Why a shard does not run.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("{0}")]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the access keys: {0}")]
    AccessKeys(#[from] AccessError),
    #[error("the executor of core {core} does not start: {reason}")]
    Executor { core: usize, reason: String },
}

/// Starts the core's thread.
pub(super) fn spawn(plan: CorePlan) {
    let events = plan.events.clone();
    let core = plan.core;
    let shard = plan.shards[0].options.shard;
    let built = LocalExecutorBuilder::new(Placement::Fixed(core))
        .name(&format!("core-{core}"))
        .io_memory(RING_MEMORY_BYTES)
        .spawn(move || run_core(plan));
    if let Err(error) = built {
        let error = CoreError::Executor { core, reason: error.to_string() };
        let _ = events.send(CoreEvent::Failed { shard, error });
    }
}

async fn run_core(plan: CorePlan) {
    let events = plan.events.clone();
    let disk = match GlommioDisk::attach(&plan.data, plan.access).await {
        Ok(disk) => disk,
        Err(error) => {
            let shard = plan.shards[0].options.shard;
            let _ = events.send(CoreEvent::Failed { shard, error: error.into() });
            return;
        }
    };
    if plan.measures_device {
        let probe = disk.probe_error().map(|error| format!("{error}; another file is used instead"));
        let mut warnings = Vec::from_iter(probe);
        // A speed that cannot be told is no reason not to start.
        let speed = measure(&disk, &plan.data).await.unwrap_or_else(|error| {
            warnings.push(format!("the device's speed is not measured: {error}"));
            DeviceSpeed::default()
        });
        let _ = events.send(CoreEvent::Device { speed, warnings });
    }
    let catch_up = glommio::executor().create_task_queue(
        Shares::Static(CATCH_UP_SHARES),
        Latency::NotImportant,
        "catch-up",
    );
    let housekeeping = glommio::executor().create_task_queue(
        Shares::Static(HOUSEKEEPING_SHARES),
        Latency::NotImportant,
        "housekeeping",
    );
    let key_index = glommio::executor().create_task_queue(
        Shares::Static(KEY_INDEX_SHARES),
        Latency::NotImportant,
        "key-index",
    );
    let queues = Queues { catch_up, housekeeping, key_index };
    let turns = CoreTurns::new(SystemClock::shared(plan.start));
    let (mut node_listener, mut http_listener) = (plan.node_listener, plan.http_listener);
    let mut namesrv_listener = plan.namesrv_listener;
    let mut tasks = Vec::new();
    for (index, shard) in plan.shards.into_iter().enumerate() {
        let seat = Seat {
            disk: BoundedDisk::new(disk.clone(), plan.files_per_shard),
            letterboxes: plan.letterboxes.clone(),
            addresses: plan.addresses.clone(),
            node_listener: node_listener.take(),
            http_listener: http_listener.take(),
            namesrv_listener: namesrv_listener.take(),
            doors: plan.doors.clone(),
            secret: plan.secret.clone(),
            start: plan.start,
            events: events.clone(),
            gate: plan.gate.clone(),
            pulse: plan.pulses.of(shard.options.shard.0),
            queues,
            turns: turns.clone(),
            connection_descriptors: plan.connection_descriptors.clone(),
            counts_thread: index == 0,
        };
        tasks.push(glommio::spawn_local(run_shard(shard, seat)));
    }
    for task in tasks {
        task.await;
    }
    let _ = events.send(CoreEvent::Ended);
}

/// Task queues of an executor besides the default one.
#[derive(Clone, Copy)]
struct Queues {
    catch_up: TaskQueueHandle,
    housekeeping: TaskQueueHandle,
    key_index: TaskQueueHandle,
}

/// A shard's place on its core.
struct Seat {
    disk: BoundedDisk<GlommioDisk>,
    letterboxes: Vec<Letterbox>,
    addresses: Vec<ShardAddress>,
    node_listener: Option<TcpListener>,
    http_listener: Option<TcpListener>,
    namesrv_listener: Option<TcpListener>,
    doors: DoorPlan,
    secret: NodeSecret,
    start: Instant,
    events: mpsc::Sender<CoreEvent>,
    gate: Gate,
    pulse: Pulse,
    queues: Queues,
    turns: Rc<CoreTurns>,
    connection_descriptors: ConnectionDescriptors,
    /// Counters of the thread are told by one of its shards only.
    counts_thread: bool,
}

impl Seat {
    /// The access keys, HTTP, RocketMQ's protocol and TLS, as far as the node has them.
    fn open_doors(&self, broker: &Rc<ShardBroker>) -> Result<Doors, CoreError> {
        let plan = &self.doors;
        let open = |path: &PathBuf| {
            let (clock, metrics) = (broker.clock().clone(), broker.metrics().clone());
            Access::open(path, broker.shard(), &self.secret, clock, metrics).map(Rc::new)
        };
        let access = plan.access_keys.as_ref().map(open).transpose()?;
        let open_http = |options| HttpPort::open(broker, options, &self.secret, access.clone());
        let http = plan.http.as_ref().map(open_http);
        let open_remoting = |options| RemotingPort::open(broker, options, &self.secret);
        let remoting = plan.remoting.as_ref().map(open_remoting);
        let makers = || HandshakeMakers { threads: plan.costly_steps.clone(), turns: self.turns.clone() };
        let open_tls = |files| Tls::open(broker, files, plan.rules, makers());
        let tls = plan.tls.as_ref().map(open_tls).transpose()?;
        Ok(Doors { rules: plan.rules, http, remoting, tls, access })
    }
}

/// One shard from its recovery to its end.
async fn run_shard(plan: ShardPlan, seat: Seat) {
    let shard = plan.options.shard;
    let clock = SystemClock::shared(seat.start);
    let metrics = Rc::new(ShardMetrics::new());
    let opened = open_shard(&seat, plan.options, &clock, &metrics).await;
    let (OpenedBroker { broker, report, rebuilt }, took) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let _ = seat.events.send(CoreEvent::Failed { shard, error: error.into() });
            return;
        }
    };
    let doors = match seat.open_doors(&broker) {
        Ok(doors) => doors,
        Err(error) => {
            let _ = seat.events.send(CoreEvent::Failed { shard, error });
            return;
        }
    };
    let counts_thread = seat.counts_thread;
    broker.set_host_counters(Box::new(move |count| host_counters(counts_thread, count)));
    let peers = Rc::new(ShardPeers::new(shard, seat.letterboxes, seat.addresses, seat.events.clone()));
    broker.set_peers(Rc::new(SharedPeers(peers.clone())));
    let tasks = ShardTasks::begin(&broker, &seat.queues);
    let pulse = seat.pulse;
    glommio::spawn_local(heartbeat(clock, metrics, move || pulse.beat())).detach();
    let _ = seat.events.send(CoreEvent::Ready { shard, report, rebuilt, took });
    let connections =
        Connections::new(broker.clone(), seat.queues.catch_up, doors, seat.connection_descriptors);
    let mut listeners = vec![(plan.listener, Door::Native)];
    listeners.extend(seat.node_listener.map(|listener| (listener, Door::Native)));
    listeners.extend(seat.http_listener.map(|listener| (listener, Door::Http)));
    listeners.extend(seat.namesrv_listener.map(|listener| (listener, Door::NameServer)));
    let handshakes = connections.clone();
    let handshakes = glommio::spawn_local(async move { handshakes.run_handshakes().await });
    run_mail(&broker, &peers, plan.mailbox, &connections, listeners, &seat.events).await;
    broker.begin_shutdown();
    connections.finish(STOP_GRACE).await;
    handshakes.await;
    futures_lite::future::or(broker.settle_reader_commits(), broker.clock().sleep(STOP_GRACE)).await;
    broker.stop();
    tasks.ended().await;
    broker.take_leave().await;
}

/// What a shard does beside serving. Each task ends by itself once the broker has stopped.
struct ShardTasks {
    commit: glommio::Task<()>,
    supply: glommio::Task<()>,
    housekeeping: glommio::Task<()>,
    dead_letters: glommio::Task<()>,
    group_ageing: glommio::Task<()>,
    key_indexing: glommio::Task<()>,
    timers: glommio::Task<()>,
    checks: glommio::Task<()>,
    reader_commits: glommio::Task<()>,
}

impl ShardTasks {
    fn begin(broker: &Rc<ShardBroker>, queues: &Queues) -> Self {
        let broker = || broker.clone();
        let (committing, housekeeping, sweeping) = (broker(), broker(), broker());
        let (ageing, indexing, timing, log) = (broker(), broker(), broker(), broker().log().clone());
        let (gathering, checking) = (broker(), broker());
        Self {
            commit: glommio::spawn_local(async move { committing.run_commit().await }),
            supply: in_queue(async move { log.run_supply().await }, queues.housekeeping),
            housekeeping: in_queue(async move { housekeeping.run_housekeeping().await }, queues.housekeeping),
            dead_letters: in_queue(async move { sweeping.run_dead_letters().await }, queues.housekeeping),
            group_ageing: in_queue(async move { ageing.run_group_ageing().await }, queues.housekeeping),
            key_indexing: in_queue(async move { indexing.run_key_indexing().await }, queues.key_index),
            timers: glommio::spawn_local(async move { timing.run_timers().await }),
            checks: in_queue(async move { checking.run_checks().await }, queues.housekeeping),
            reader_commits: glommio::spawn_local(async move { gathering.run_reader_commits().await }),
        }
    }

    /// Returns when all have ended: those that place in the log before the one that commits it.
    async fn ended(self) {
        self.dead_letters.await;
        self.group_ageing.await;
        self.timers.await;
        self.checks.await;
        self.reader_commits.await;
        self.housekeeping.await;
        self.commit.await;
        self.supply.await;
        self.key_indexing.await;
    }
}

/// Judges the shard's files and, when those of all shards are judged, opens it. Returns how long that took without the wait.
async fn open_shard(
    seat: &Seat,
    options: BrokerOptions,
    clock: &SharedClock,
    metrics: &Rc<ShardMetrics>,
) -> Result<(OpenedBroker<BoundedDisk<GlommioDisk>>, Duration), StartError> {
    let begun = clock.monotonic();
    let witnesses = Broker::judge(&seat.disk, &options).await?;
    let judging = clock.monotonic().since(begun);
    let _ = seat.events.send(CoreEvent::Judged);
    seat.gate.pass().await;
    let begun = clock.monotonic();
    let opened =
        Broker::open_judged(seat.disk.clone(), options, witnesses, clock.clone(), metrics.clone()).await?;
    opened.tell();
    Ok((opened, judging + clock.monotonic().since(begun)))
}

fn in_queue(task: impl Future<Output = ()> + 'static, queue: TaskQueueHandle) -> glommio::Task<()> {
    glommio::spawn_local_into(task, queue).expect("the queue was made by this executor")
}

/// The mail task: letters until the node says stop.
async fn run_mail(
    broker: &Rc<ShardBroker>,
    peers: &Rc<ShardPeers>,
    mailbox: Mailbox,
    connections: &Rc<Connections>,
    mut listeners: Vec<(TcpListener, Door)>,
    events: &mpsc::Sender<CoreEvent>,
) {
    while let Ok(letter) = mailbox.recv().await {
        match letter {
            Letter::Ask { from, ticket, request } => {
                let (broker, peers) = (broker.clone(), peers.clone());
                let waits = request.only_waits().then(|| peers.note_wait(from, ticket));
                let is_heavy = request.is_heavy();
                let answer = async move {
                    let handled = handle(&broker, request);
                    match waits {
                        Some(waits) => peers.answer_wait((from, ticket), waits, handled).await,
                        None => peers.answer(from, ticket, handled.await),
                    }
                };
                match is_heavy {
                    true => connections.spawn_catch_up(answer),
                    false => drop(glommio::spawn_local(answer).detach()),
                }
            }
            Letter::Cancel { from, ticket } => peers.cancelled(from, ticket),
            Letter::Answer { ticket, result } => peers.answered(ticket, result),
            Letter::Arrived(topic) => broker.arrived(topic),
            Letter::NoteEpochs(epochs) => note_epochs(broker, &epochs, events).await,
            Letter::SyncTopics => {
                let (broker, events) = (broker.clone(), events.clone());
                let sync = async move {
                    let synced = broker.sync_topics().await.map_err(|failure| failure.to_string());
                    let _ = events.send(CoreEvent::TopicsSynced(synced));
                };
                glommio::spawn_local(sync).detach();
            }
            Letter::Question(question) => answer(connections, question),
            Letter::Listen => {
                for (listener, door) in listeners.drain(..) {
                    let accepting = connections.clone().accept_from(host::listener_of(listener), door);
                    glommio::spawn_local(accepting).detach();
                }
                glommio::spawn_local(connections.clone().watch()).detach();
                connections.spawn_catch_up(connections.context.parked.clone().run(Glommio));
            }
            Letter::ReadAgain => connections.read_files_again(),
            Letter::Live(live) => broker.set_live(live),
            Letter::Stop => return,
        }
    }
}

/// Answers what the admin address asks: what is looked up at once, and the rest in the queue of those who have time.
fn answer(connections: &Rc<Connections>, question: Question) {
    match question {
        Question::Standing(slot) => slot.fill(ShardStanding {
            is_serving: connections.broker.takes_messages(),
            condition: connections.broker.condition(),
        }),
        Question::Reading(slot) => {
            let broker = connections.broker.clone();
            connections.spawn_catch_up(async move { slot.fill(Box::new(broker.reading().await)) });
        }
        Question::MayLook(caller, slot) => slot.fill(connections.check_operator(&caller)),
        Question::Request(caller, request, slot) => {
            let carrying_out = connections.clone();
            let answer = async move { slot.fill(carrying_out.carry_out(&caller, *request).await) };
            connections.spawn_catch_up(answer);
        }
    }
}

async fn note_epochs(broker: &Rc<ShardBroker>, epochs: &[u32], events: &mpsc::Sender<CoreEvent>) {
    let noted = broker.log().note_shard_epochs(epochs).await;
    let failed = |error: DiskError| CoreEvent::Failed { shard: broker.shard(), error: error.into() };
    let _ = events.send(noted.map_or_else(failed, |()| CoreEvent::EpochsNoted));
}

async fn handle(
    broker: &Rc<ShardBroker>,
    request: PeerRequest,
) -> Result<crate::broker::PeerReply, crate::api::Failure> {
    broker.handle_peer(request).await
}

/// Counters of the thread: told once per thread, by its first shard.
fn host_counters(counts_thread: bool, count_syscalls: bool) -> Vec<(String, u64)> {
    if !counts_thread {
        return Vec::new();
    }
    let mut counters = vec![
        ("cpu_ns".to_owned(), host::thread_cpu_ns()),
        ("process_cpu_ns".to_owned(), host::process_cpu_ns()),
        ("allocations".to_owned(), host::allocations()),
        ("resident_bytes".to_owned(), host::resident_bytes()),
    ];
    counters.extend(host::syscalls(count_syscalls).map(|count| ("syscalls".to_owned(), count)));
    counters
}
