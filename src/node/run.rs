//! A node: its shards on its cores, from start to stop.
//!
//! Start: check the machine, take the data directory, bind every address, make the directory if it is not there, start the cores, judge the files of every shard
//! before any of them is changed, let every shard recover, tell each how far the others have got, bring their topics in line,
//! accept connections. Stop, on SIGTERM or SIGINT: accept no more, answer what was taken,
//! flush, take a last snapshot, end; at most [`STOP_TIMEOUT`] in all. SIGHUP makes the shards read their settings' files again.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::SocketAddr;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::admin::{AdminThread, Known};
use super::core::{self, CoreError, CoreEvent, CorePlan, DoorPlan, ShardPlan};
use super::data_directory::{DataDirectory, DirectoryError, Making};
use super::descriptors::DescriptorPlan;
use super::device::DeviceSpeed;
use super::gate::Gate;
use super::handshake_threads::HandshakeThreads;
use super::keeper::SettingsKeeper;
use super::mailbox::{Letter, Letterbox, Mailbox, mailbox};
use super::memory::ShardMemory;
use super::options::{OptionsError, ServeOptions};
use super::preflight::{self, PreflightError};
use super::pulse::{PulseWatch, Pulses};
use super::service::ServiceManager;
use super::sockets::{self, NodeAddresses, Sockets};
use crate::access::NodeSecret;
use crate::access::{AccessError, AccessFile};
use crate::admin::{AdminError, NodePhase, PhaseBoard};
use crate::api::{Failure, SettingChange, SettingInfo, ShardAddress};
use crate::broker::{BrokerOptions, LiveOptions, PeerReply};
use crate::disk::glommio::Access;
use crate::disk::{DiskError, DiskErrorKind};
use crate::log::{CommitOptions, Report};
use crate::namesrv::OwnNode;
use crate::net::{CertificateSource, ListenError, TlsError, TlsFiles};
use crate::runtime::host;
use crate::server::{ConnectionDescriptors, CostlyStepSender, DoorRules, HttpOptions, RemotingOptions};
use crate::types::{MonotonicTime, NodeId, ShardId, Timestamp};

/// A stop takes at most this long; a shard that is not done then is left to recovery.
const STOP_TIMEOUT: Duration = Duration::from_millis(4_800);
/// How often it is looked whether the data directory is still the one that was locked.
const DIRECTORY_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// What a service manager shows meanwhile.
const SERVING: &str = "takes requests";

/// Why a node does not start or has ended.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error(transparent)]
    Options(#[from] OptionsError),
    #[error(transparent)]
    Preflight(#[from] PreflightError),
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(
        "the file system of {0} takes no direct I/O: choose a directory on ext4 or xfs with --data, or add --buffered-io \
         to try things out without it"
    )]
    NoDirectIo(String),
    #[error("shard {shard}: {error}")]
    Shard { shard: ShardId, error: CoreError },
    /// The files of several shards are refused.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Shards(Vec<NodeError>),
    #[error("the shards' topics cannot be brought in line: {0}")]
    Topics(String),
    #[error("--access-keys {path}: {error}")]
    Access { path: String, error: AccessError },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error("signals cannot be received: {0}")]
    Signals(std::io::Error),
    #[error("the node did not stop within {0:?}; the next start recovers what was acknowledged")]
    StopTimeout(Duration),
}

/// What happens to a node.
enum Event {
    Core(CoreEvent),
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP, with the settings that count from now on.
    ReadAgain(Option<LiveOptions>),
}

/// What a started node tells about itself, for whoever prints it.
#[derive(Clone, Debug)]
pub struct Started {
    pub shards: Vec<StartedShard>,
    pub bound: NodeAddresses,
    /// The node's name to RocketMQ's clients.
    pub name: String,
    /// Whether this machine reaches its shards by what clients are told. `None`: that is what they have bound.
    pub is_reached: Option<bool>,
    /// What works and should be otherwise.
    pub warnings: Vec<String>,
    pub took: Duration,
    pub is_new: bool,
    pub node: NodeId,
    pub device: DeviceSpeed,
}

/// One shard of a started node.
#[derive(Clone, Debug)]
pub struct StartedShard {
    pub shard: ShardId,
    pub core: usize,
    /// What clients are told.
    pub address: String,
    pub report: Report,
    pub rebuilt: Option<String>,
    pub took: Duration,
}

/// Runs a node until it is told to stop. `started` is called once, when it takes requests; `keeper` is asked for settings, and told of
/// each SIGHUP by a thread that may wait for a file.
pub fn run(
    options: &ServeOptions,
    started: impl FnOnce(&Started),
    keeper: Box<dyn SettingsKeeper>,
) -> Result<(), NodeError> {
    options.check()?;
    let begin = Instant::now();
    // First of all: without a handler the signal would end the process.
    let (signals, manager) = (watch_signals()?, ServiceManager::of_process());
    let (events, inbox) = mpsc::channel();
    let keeper = forward_signals(signals, events.clone(), keeper);
    let cores = options.cores.clone().unwrap_or_else(host::available_cores);
    preflight::check(&cores)?;
    let mut warnings = Vec::new();
    note_all(&mut warnings, check_files(options)?);
    let mut directory = take_directory(options, cores.len() as u16)?;
    note_all(&mut warnings, directory.linked_files());
    let (mut sockets, left_out) = Sockets::bind(options, directory.shard_count(), &cores)?;
    note_all(&mut warnings, left_out);
    let (addresses, bound) = (sockets.addresses(options), sockets.bound);
    let (letterboxes, mailboxes): (Vec<_>, Vec<_>) = (0..directory.shard_count()).map(|_| mailbox()).unzip();
    let (secret, renewed) = directory.secret()?;
    note_all(&mut warnings, renewed);
    let (node, phase) = (secret.node(), PhaseBoard::default());
    let known = Known { node, name: directory.node_name(), letterboxes: &letterboxes, phase: &phase };
    let start_admin = |listener| AdminThread::start(listener, options, &known);
    let _admin = sockets.admin.take().map(start_admin).transpose()?;
    let descriptors = plan_descriptors(&cores, directory.shard_count())?;
    note_all(&mut warnings, descriptors.warning());
    let handshake_threads = start_handshake_threads(options, cores_used(&cores, &directory), &mut warnings);
    directory.make()?;
    let (gate, pulses) = (Gate::new(), Pulses::new(directory.shard_count()));
    let layout = Layout {
        options,
        directory: &directory,
        secret: secret.clone(),
        cores: &cores,
        memory: ShardMemory::of(options, directory.shard_count()),
        descriptors,
        begin,
        gate: &gate,
        pulses: &pulses,
        costly_steps: handshake_threads.as_ref().map(HandshakeThreads::steps),
    };
    let plans = layout.plans(sockets, mailboxes, &letterboxes, &addresses, &events);
    let core_count = plans.len();
    plans.into_iter().for_each(core::spawn);
    // Told to stop before anything was answered: what the shards are at, the next start does again.
    let Some(device) = wait_until_judged(&inbox, directory.shard_count(), options, &mut warnings)? else {
        return Ok(());
    };
    directory.take_up(&secret)?;
    gate.open(directory.shard_count());
    let Some(shards) = wait_until_ready(&inbox, &addresses, &cores, options)? else {
        return Ok(());
    };
    if !note_epochs(&letterboxes, &inbox, &shards)? || !sync_topics(&letterboxes, &inbox)? {
        return Ok(());
    }
    directory.note_started()?;
    letterboxes.iter().for_each(|letterbox| send(letterbox, Letter::Listen));
    phase.set(NodePhase::Serving);
    let is_reached = try_reach(options, &addresses, &mut warnings);
    let (took, is_new, name) = (begin.elapsed(), directory.is_new(), directory.node_name().to_owned());
    let start = Started { shards, bound, name, is_reached, warnings, took, is_new, node, device };
    tell_started(options, &start);
    started(&start);
    let attendance = Attendance::begin(manager, pulses.watch(), keeper);
    wait_for_stop(&inbox, &letterboxes, &mut directory, attendance)?;
    phase.set(NodePhase::Stopping);
    stop(&letterboxes, &inbox, core_count, handshake_threads)
}

fn take_directory(options: &ServeOptions, shards_default: u16) -> Result<DataDirectory, DirectoryError> {
    let making = Making { shards: options.shards, shards_default, node: options.node.as_deref() };
    let directory = DataDirectory::open(&options.data, &making)?;
    directory.check_writable()?;
    Ok(directory)
}

/// Whether clients get to the shards by what they are told, where that is not what the shards have bound; adds to `warnings`
/// why not.
fn try_reach(options: &ServeOptions, addresses: &[ShardAddress], warnings: &mut Vec<String>) -> Option<bool> {
    let not_reached = sockets::not_reached(options.advertise.as_ref()?, addresses);
    let is_reached = not_reached.is_empty();
    note_all(warnings, not_reached);
    Some(is_reached)
}

fn stop(
    letterboxes: &[Letterbox],
    inbox: &mpsc::Receiver<Event>,
    core_count: usize,
    handshake_threads: Option<HandshakeThreads>,
) -> Result<(), NodeError> {
    let begin = Instant::now();
    letterboxes.iter().for_each(|letterbox| send(letterbox, Letter::Stop));
    wait_until_ended(inbox, core_count)?;
    if let Some(threads) = handshake_threads {
        threads.end();
    }
    tracing::info!(target: "node", ms = in_milliseconds(begin.elapsed()), "stopped");
    Ok(())
}

/// What the start has done, for whoever reads the log and not the banner.
fn tell_started(options: &ServeOptions, started: &Started) {
    for shard in &started.shards {
        let report = &shard.report;
        tracing::info!(
            target: "node",
            shard = shard.shard.0,
            core = shard.core,
            address = %shard.address,
            batches = report.batches,
            log_end = report.end.0,
            ms = in_milliseconds(shard.took),
            "the shard has recovered"
        );
    }
    let data = options.data.display();
    let made = if started.is_new { "made" } else { "opened" };
    tracing::info!(
        target: "node",
        version = env!("CARGO_PKG_VERSION"),
        node = %started.node,
        shards = started.shards.len(),
        ms = in_milliseconds(started.took),
        "{made} {data}, and takes requests"
    );
}

fn in_milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn send(letterbox: &Letterbox, letter: Letter) {
    // A shard that has ended gets no letters.
    let _ = letterbox.try_send(letter);
}

/// Reads the files of access keys and of the certificate. Returns what is not as it should be.
fn check_files(options: &ServeOptions) -> Result<Vec<String>, NodeError> {
    let mut warnings = check_access(options)?;
    warnings.extend(check_tls(options, wall_clock())?);
    Ok(warnings)
}

/// Reads the file of access keys once, so that what is wrong with it is told before anything is started. Returns what
/// is not as it should be.
fn check_access(options: &ServeOptions) -> Result<Vec<String>, NodeError> {
    let Some(path) = &options.access_keys else { return Ok(Vec::new()) };
    let opened = AccessFile::open(path, MonotonicTime(0));
    let (_, warning) =
        opened.map_err(|error| NodeError::Access { path: path.display().to_string(), error })?;
    Ok(warning.into_iter().map(|warning| warning.to_string()).collect())
}

/// Reads the certificate and its key once, so that a start with unusable ones ends in words.
fn check_tls(options: &ServeOptions, now: Timestamp) -> Result<Vec<String>, NodeError> {
    let Some((certificate, key)) = options.tls_files() else { return Ok(Vec::new()) };
    let (mut files, warning) = TlsFiles::open(&certificate, &key, MonotonicTime(0))?;
    Ok(warning.into_iter().chain(files.standing(now)).map(|warning| warning.to_string()).collect())
}

/// The node as RocketMQ's clients see it; `name` is what its brokers' names begin with.
fn own_node(options: &ServeOptions, name: &str) -> OwnNode {
    OwnNode {
        cluster: options.cluster.clone(),
        name: name.to_owned(),
        makes_topics: !options.no_auto_create_topics,
    }
}

/// What all doors are opened with; `http` is where HTTP listens, if it does.
fn door_plan(options: &ServeOptions, http: Option<SocketAddr>, name: &str) -> DoorPlan {
    let idle_timeout = options.http_idle_timeout;
    let tls = options.tls_files();
    let node = own_node(options, name);
    DoorPlan {
        rules: DoorRules {
            has_http: http.is_some(),
            has_remoting: options.remoting,
            is_separate: options.separate_protocols,
            has_tls: tls.is_some(),
            tls_mode: options.tls_mode,
        },
        http: http.map(|address| HttpOptions { address, idle_timeout }),
        remoting: options.remoting.then(|| RemotingOptions { node, names: Arc::default() }),
        tls,
        costly_steps: None,
        access_keys: options.access_keys.clone(),
    }
}

/// A clock set before 1970 reads as 1970.
fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// After everything is opened that the node has for itself.
fn plan_descriptors(cores: &[usize], shard_count: u16) -> Result<DescriptorPlan, PreflightError> {
    let shards = usize::from(shard_count);
    DescriptorPlan::of_process(host::raise_open_files(), cores.len().min(shards), shards)
}

/// How many of these cores have a shard.
fn cores_used(cores: &[usize], directory: &DataDirectory) -> usize {
    cores.len().min(usize::from(directory.shard_count()))
}

/// As many as are asked for, if there is a certificate; adds to `warnings` what keeps them from being started.
fn start_handshake_threads(
    options: &ServeOptions,
    count: usize,
    warnings: &mut Vec<String>,
) -> Option<HandshakeThreads> {
    options.tls_files()?;
    let (threads, missing) = HandshakeThreads::spawn(count);
    note_all(warnings, missing);
    Some(threads)
}

fn watch_signals() -> Result<Signals, NodeError> {
    Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(NodeError::Signals)
}

/// Returns the keeper, whom the thread of signals asks as well.
fn forward_signals(
    mut signals: Signals,
    events: mpsc::Sender<Event>,
    keeper: Box<dyn SettingsKeeper>,
) -> SharedKeeper {
    let shared: SharedKeeper = Arc::new(Mutex::new(keeper));
    let keeper = shared.clone();
    std::thread::spawn(move || {
        for signal in signals.forever() {
            let event = match signal {
                SIGHUP => {
                    tracing::info!(target: "node", "SIGHUP: settings are read again");
                    let options = locked(&keeper).read_again();
                    Event::ReadAgain(options.map(|options| live_options(&options)))
                }
                SIGINT => {
                    tracing::info!(target: "node", "SIGINT: the broker stops");
                    Event::Stop
                }
                _ => {
                    tracing::info!(target: "node", "SIGTERM: the broker stops");
                    Event::Stop
                }
            };
            if events.send(event).is_err() {
                return;
            }
        }
    });
    shared
}

struct Layout<'a> {
    options: &'a ServeOptions,
    directory: &'a DataDirectory,
    secret: NodeSecret,
    cores: &'a [usize],
    memory: ShardMemory,
    descriptors: DescriptorPlan,
    begin: Instant,
    gate: &'a Gate,
    pulses: &'a Pulses,
    costly_steps: Option<CostlyStepSender>,
}

impl Layout<'_> {
    /// Deals the shards out to the cores, round robin. Cores beyond the number of shards stay free.
    fn plans(
        &self,
        sockets: Sockets,
        mailboxes: Vec<Mailbox>,
        letterboxes: &[Letterbox],
        addresses: &[ShardAddress],
        events: &mpsc::Sender<Event>,
    ) -> Vec<CorePlan> {
        let used = cores_used(self.cores, self.directory);
        let mut node_listeners = sockets.node.into_iter();
        let mut http_listeners = sockets.http.into_iter();
        let mut namesrv_listener = sockets.namesrv;
        let mut doors = door_plan(self.options, sockets.bound.http, self.directory.node_name());
        doors.costly_steps = self.costly_steps.clone();
        let connection_descriptors = ConnectionDescriptors::new(self.descriptors.connections);
        let mut plans: Vec<_> = self.cores[..used]
            .iter()
            .map(|&core| CorePlan {
                core,
                shards: Vec::new(),
                node_listener: node_listeners.next(),
                http_listener: http_listeners.next(),
                namesrv_listener: namesrv_listener.take(),
                doors: doors.clone(),
                secret: self.secret.clone(),
                letterboxes: letterboxes.to_vec(),
                addresses: addresses.to_vec(),
                access: if self.options.buffered_io { Access::Buffered } else { Access::Direct },
                data: self.directory.path().to_owned(),
                start: self.begin,
                files_per_shard: self.descriptors.files_per_shard,
                connection_descriptors: connection_descriptors.clone(),
                measures_device: core == self.cores[0],
                gate: self.gate.clone(),
                pulses: self.pulses.clone(),
                events: core_events(events),
            })
            .collect();
        for (index, ((listener, _), mailbox)) in sockets.shards.into_iter().zip(mailboxes).enumerate() {
            let plan = &mut plans[index % used];
            let options = self.broker_options(index as u16, plan.core);
            plan.shards.push(ShardPlan { options, listener, mailbox });
        }
        plans
    }

    fn broker_options(&self, shard: u16, core: usize) -> BrokerOptions {
        BrokerOptions {
            directory: self.directory.shard(shard),
            node: self.secret.node(),
            shard: ShardId(shard),
            shard_count: self.directory.shard_count(),
            is_made: self.directory.is_started(),
            level: self.options.level,
            segment_bytes: self.options.segment_bytes,
            tail_cache_bytes: self.memory.tail_cache_bytes,
            client_memory_bytes: self.memory.client_bytes,
            zero_fill: true,
            commit: CommitOptions::default(),
            retention_age: self.options.retention_age,
            retention_bytes: self.options.retention_bytes,
            auto_create_topics: self.options.auto_create_topics,
            reserved_topics: own_node(self.options, self.directory.node_name())
                .reserved_topics(usize::from(self.directory.shard_count())),
            leases: self.options.leases,
            group_idle: self.options.group_idle,
            lock_lease: self.options.lock_lease,
            delay_levels: self.options.delay_levels.clone(),
            // Keys of the standard library's hash maps come from the system's random numbers.
            secret: RandomState::new().build_hasher().finish(),
            transaction_immunity: self.options.transaction_immunity,
            transaction_check_interval: self.options.transaction_check_interval,
            transaction_checks_max: self.options.transaction_checks,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            core: Some(core as u32),
        }
    }
}

/// A sender of core events into the node's queue.
fn core_events(events: &mpsc::Sender<Event>) -> mpsc::Sender<CoreEvent> {
    let (sender, receiver) = mpsc::channel();
    let events = events.clone();
    std::thread::spawn(move || {
        for event in receiver {
            if events.send(Event::Core(event)).is_err() {
                return;
            }
        }
    });
    sender
}

/// Tells what should be otherwise at once, and keeps it for the banner.
fn note_all(warnings: &mut Vec<String>, more: impl IntoIterator<Item = String>) {
    for warning in more {
        tracing::warn!(target: "node", "{warning}");
        warnings.push(warning);
    }
}

/// Waits until the files of every shard are judged; adds to `warnings` what was found on the way. `None` when a signal came
/// first.
fn wait_until_judged(
    inbox: &mpsc::Receiver<Event>,
    shard_count: u16,
    options: &ServeOptions,
    warnings: &mut Vec<String>,
) -> Result<Option<DeviceSpeed>, NodeError> {
    let (mut judged, mut device) = (0, DeviceSpeed::default());
    let mut refused: Vec<(ShardId, NodeError)> = Vec::new();
    while judged + refused.len() < usize::from(shard_count) {
        match inbox.recv().expect("this function's caller holds a sender") {
            Event::Core(CoreEvent::Judged) => judged += 1,
            // Its core sends it before it judges.
            Event::Core(CoreEvent::Device { speed, warnings: told }) => {
                told.iter().for_each(|warning| tracing::warn!(target: "storage", "{warning}"));
                warnings.extend(told);
                device = speed;
            }
            Event::Core(CoreEvent::Failed { shard, error }) => {
                // What is found of the files is told of all shards; of anything else the others may say nothing.
                let is_judgement = matches!(error, CoreError::Start(_));
                refused.push((shard, start_error(shard, error, options)));
                if !is_judgement {
                    break;
                }
            }
            // Not before the gate is open.
            Event::Core(
                CoreEvent::Ready { .. }
                | CoreEvent::EpochsNoted
                | CoreEvent::Settings { .. }
                | CoreEvent::TopicsSynced(_)
                | CoreEvent::Ended,
            ) => {}
            Event::Stop if refused.is_empty() => return Ok(None),
            Event::Stop => break,
            // Shards that are starting read their files now.
            Event::ReadAgain(_) => {}
        }
    }
    refused.sort_by_key(|(shard, _)| *shard);
    let mut refused: Vec<_> = refused.into_iter().map(|(_, error)| error).collect();
    match refused.len() {
        0 => Ok(Some(device)),
        1 => Err(refused.remove(0)),
        _ => Err(NodeError::Shards(refused)),
    }
}

/// What the shards say, in their order. `None` when a signal came first.
fn wait_until_ready(
    inbox: &mpsc::Receiver<Event>,
    addresses: &[ShardAddress],
    cores: &[usize],
    options: &ServeOptions,
) -> Result<Option<Vec<StartedShard>>, NodeError> {
    let mut shards = Vec::new();
    let used = cores.len().min(addresses.len());
    while shards.len() < addresses.len() {
        match inbox.recv().expect("this function's caller holds a sender") {
            Event::Core(CoreEvent::Ready { shard, report, rebuilt, took }) => {
                tell(shard, &report);
                let index = usize::from(shard.0);
                let address = addresses[index].address.clone();
                shards.push(StartedShard {
                    shard,
                    core: cores[index % used],
                    address,
                    report,
                    rebuilt,
                    took,
                });
            }
            Event::Core(CoreEvent::Failed { shard, error }) => {
                return Err(start_error(shard, error, options));
            }
            Event::Core(
                CoreEvent::Judged
                | CoreEvent::Device { .. }
                | CoreEvent::EpochsNoted
                | CoreEvent::Settings { .. }
                | CoreEvent::TopicsSynced(_)
                | CoreEvent::Ended,
            ) => {}
            Event::Stop => return Ok(None),
            // Shards that are starting read their files now.
            Event::ReadAgain(_) => {}
        }
    }
    shards.sort_by_key(|shard| shard.shard);
    Ok(Some(shards))
}

/// Says on standard error what a start has found that is not as it should be.
fn tell(shard: ShardId, report: &Report) {
    let shard = shard.0;
    for range in &report.given_up {
        tracing::warn!(target: "log", shard, "given up by log repair: {range}");
    }
    for notice in &report.notices {
        tracing::warn!(target: "log", shard, "{notice}");
    }
}

fn start_error(shard: ShardId, error: CoreError, options: &ServeOptions) -> NodeError {
    match &error {
        CoreError::Disk(DiskError { kind: DiskErrorKind::NoDirectIo, .. }) if !options.buffered_io => {
            NodeError::NoDirectIo(options.data.display().to_string())
        }
        _ => NodeError::Shard { shard, error },
    }
}

/// Every shard has made its epoch durable; each notes those of all. False when a signal came first.
fn note_epochs(
    letterboxes: &[Letterbox],
    inbox: &mpsc::Receiver<Event>,
    shards: &[StartedShard],
) -> Result<bool, NodeError> {
    let epochs: Arc<[u32]> = shards.iter().map(|shard| shard.report.epoch).collect();
    letterboxes.iter().for_each(|letterbox| send(letterbox, Letter::NoteEpochs(epochs.clone())));
    let mut noted = 0;
    while noted < shards.len() {
        match inbox.recv().expect("this function's caller holds a sender") {
            Event::Core(CoreEvent::EpochsNoted) => noted += 1,
            Event::Core(CoreEvent::Failed { shard, error }) => return Err(NodeError::Shard { shard, error }),
            Event::Stop => return Ok(false),
            Event::Core(_) | Event::ReadAgain(_) => {}
        }
    }
    Ok(true)
}

/// False when a signal came first.
fn sync_topics(letterboxes: &[Letterbox], inbox: &mpsc::Receiver<Event>) -> Result<bool, NodeError> {
    send(&letterboxes[0], Letter::SyncTopics);
    loop {
        match inbox.recv().expect("this function's caller holds a sender") {
            Event::Core(CoreEvent::TopicsSynced(synced)) => {
                return synced.map(|()| true).map_err(NodeError::Topics);
            }
            Event::Core(CoreEvent::Failed { shard, error }) => return Err(NodeError::Shard { shard, error }),
            Event::Core(
                CoreEvent::Judged
                | CoreEvent::Ready { .. }
                | CoreEvent::EpochsNoted
                | CoreEvent::Settings { .. }
                | CoreEvent::Device { .. }
                | CoreEvent::Ended,
            ) => {}
            Event::Stop => return Ok(false),
            Event::ReadAgain(_) => {}
        }
    }
}

type SharedKeeper = Arc<Mutex<Box<dyn SettingsKeeper>>>;

/// One that has panicked has ended the process.
fn locked(keeper: &SharedKeeper) -> MutexGuard<'_, Box<dyn SettingsKeeper>> {
    keeper.lock().unwrap_or_else(PoisonError::into_inner)
}

fn send_live(letterboxes: &[Letterbox], live: LiveOptions) {
    letterboxes.iter().for_each(|letterbox| send(letterbox, Letter::Live(live)));
}

/// What shards go by, where it can be changed.
fn live_options(options: &ServeOptions) -> LiveOptions {
    LiveOptions {
        level: options.level,
        retention_age: options.retention_age,
        retention_bytes: options.retention_bytes,
        auto_create_topics: options.auto_create_topics,
        leases: options.leases,
        transaction_immunity: options.transaction_immunity,
        transaction_check_interval: options.transaction_check_interval,
    }
}

/// What is looked after while the shards serve.
struct Attendance {
    manager: ServiceManager,
    keeper: SharedKeeper,
    pulses: PulseWatch,
    /// How long it may take until the next look.
    interval: Duration,
    looked_at: Instant,
}

impl Attendance {
    /// The node takes requests.
    fn begin(manager: ServiceManager, pulses: PulseWatch, keeper: SharedKeeper) -> Self {
        manager.ready(SERVING);
        let watchdog = manager.watchdog_interval().unwrap_or(DIRECTORY_CHECK_INTERVAL);
        Self {
            manager,
            keeper,
            pulses,
            interval: watchdog.min(DIRECTORY_CHECK_INTERVAL),
            looked_at: Instant::now(),
        }
    }

    /// Makes changes, if any, has the shards go by them, and tells how all settings are then.
    fn settings(
        &self,
        changes: &[SettingChange],
        letterboxes: &[Letterbox],
    ) -> Result<Vec<SettingInfo>, Failure> {
        let mut keeper = locked(&self.keeper);
        if !changes.is_empty() {
            let options = keeper.change(changes)?;
            // Ahead of the answer in every mailbox.
            send_live(letterboxes, live_options(&options));
        }
        keeper.describe()
    }

    fn until_next_look(&self) -> Duration {
        self.interval.saturating_sub(self.looked_at.elapsed())
    }

    /// The manager hears that the broker is alive as long as all shards turn, and no longer: it then ends and starts it anew.
    fn look(&mut self) {
        self.looked_at = Instant::now();
        if self.pulses.have_all_beaten() {
            self.manager.alive();
        }
    }
}

fn wait_for_stop(
    inbox: &mpsc::Receiver<Event>,
    letterboxes: &[Letterbox],
    directory: &mut DataDirectory,
    mut attendance: Attendance,
) -> Result<(), NodeError> {
    loop {
        match inbox.recv_timeout(attendance.until_next_look()) {
            Ok(Event::Stop) => {
                attendance.manager.stopping();
                return Ok(());
            }
            Ok(Event::ReadAgain(live)) => {
                attendance.manager.reloading();
                live.into_iter().for_each(|live| send_live(letterboxes, live));
                letterboxes.iter().for_each(|letterbox| send(letterbox, Letter::ReadAgain));
                attendance.manager.ready(SERVING);
            }
            Ok(Event::Core(CoreEvent::Failed { shard, error })) => {
                return Err(NodeError::Shard { shard, error });
            }
            Ok(Event::Core(CoreEvent::Settings { shard, ticket, changes })) => {
                let result = attendance.settings(&changes, letterboxes).map(PeerReply::Settings);
                send(&letterboxes[usize::from(shard.0)], Letter::Answer { ticket, result });
            }
            Ok(Event::Core(_)) => {}
            // A last snapshot would go to whatever has the name now: what was acknowledged is safe without it.
            Err(RecvTimeoutError::Timeout) => {
                attendance.look();
                if let Some(done) = directory.check()? {
                    tracing::warn!(target: "storage", "{done}");
                }
            }
            Err(RecvTimeoutError::Disconnected) => panic!("this function's caller holds a sender"),
        }
    }
}

fn wait_until_ended(inbox: &mpsc::Receiver<Event>, core_count: usize) -> Result<(), NodeError> {
    let deadline = Instant::now() + STOP_TIMEOUT;
    let mut ended = 0;
    while ended < core_count {
        let left = deadline.saturating_duration_since(Instant::now());
        match inbox.recv_timeout(left) {
            Ok(Event::Core(CoreEvent::Ended)) => ended += 1,
            Ok(_) => {}
            Err(_) => return Err(NodeError::StopTimeout(STOP_TIMEOUT)),
        }
    }
    Ok(())
}
