//! One stretch of load: connections, workers, a line every second, and what all of them found.

use std::collections::HashMap;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::api::TopicInfo;
use crate::cli::bench::arguments::{Kind, LoadArguments};
use crate::cli::bench::assignment::{assign_consumers, assign_producers};
use crate::cli::bench::clock::BenchClock;
use crate::cli::bench::consume_lane::{ConsumeLane, ConsumePlan, LatencyOf, ReadMode, ReadRange};
use crate::cli::bench::ledger::OffsetLedger;
use crate::cli::bench::link::{Link, NativeLink};
use crate::cli::bench::message::{RunId, StreamId};
use crate::cli::bench::plot::Interval;
use crate::cli::bench::produce_lane::{ProduceLane, ProducePlan};
use crate::cli::bench::pull_lane::{PullLane, PullPlan, PullRange};
use crate::cli::bench::read_lane::ReadLane;
use crate::cli::bench::remoting_link::RemotingLink;
use crate::cli::bench::remoting_topic::RemotingTopic;
use crate::cli::bench::schedule::Schedule;
use crate::cli::bench::send_frame::SendFrame;
use crate::cli::bench::socket::{BenchSocket, ShardEndpoint, SocketError};
use crate::cli::bench::window::{Tally, Window};
use crate::cli::bench::worker::{Producing, Timetable, Worker, prepare_thread};
use crate::cli::error::CommandError;
use crate::cli::output::{bytes_for_people, grouped, nanoseconds_for_people, tell};
use crate::types::{QueueKey, QueueNumber, ShardId};

/// How long answers are waited for after the last batch was sent.
const LATE_ANSWERS_MAX: Duration = Duration::from_secs(15);
/// Between making the connections and the first batch, so that every thread is ready.
const LEAD: Duration = Duration::from_millis(20);
/// Receive buffer of a connection that gets acknowledgements.
const ANSWER_BYTES: usize = 64 * 1024;
/// Receive buffer of a connection that gets batches, which are taken one by one as they come: what is larger falls out of
/// the cache.
const BATCHES_BYTES: usize = 256 * 1024;

/// What to do, and to whom.
pub struct LoadPlan<'a> {
    pub kind: Kind,
    pub arguments: &'a LoadArguments,
    pub clock: BenchClock,
    pub run: RunId,
    pub duration: Duration,
    /// The topic with its queues as they are now.
    pub topic: &'a TopicInfo,
    pub speech: Speech<'a>,
    /// Whether to print a line every second.
    pub lines: bool,
}

/// Whom the connections lead to, and how they speak.
#[derive(Clone, Copy)]
pub enum Speech<'a> {
    /// To the shards, in the order of their ids.
    Native(&'a [ShardEndpoint]),
    /// To brokers, which take the place of shards, in RocketMQ's protocol.
    Remoting(&'a RemotingTopic),
}

/// What became of it.
pub struct LoadResult {
    pub total: Window,
    pub intervals: Vec<Interval>,
    pub start_ns: u64,
    /// With every lane in it.
    pub workers: Vec<Worker>,
    /// Offsets that were acknowledged, by queue.
    pub ledgers: HashMap<QueueNumber, Arc<Mutex<OffsetLedger>>>,
    /// Connections that were used.
    pub connections: usize,
}

impl LoadPlan<'_> {
    fn key(&self, queue: QueueNumber) -> QueueKey {
        QueueKey { topic: self.topic.id, queue }
    }

    /// Carries the plan out.
    pub fn run(&self) -> Result<LoadResult, CommandError> {
        let ledgers: HashMap<_, _> = self
            .topic
            .queues
            .iter()
            .map(|queue| (queue.queue, Arc::new(Mutex::new(OffsetLedger::default()))))
            .collect();
        let producers = match self.kind {
            Kind::Produce | Kind::EndToEnd => self.producers(&ledgers)?,
            Kind::Consume => Vec::new(),
        };
        let consumers = match self.kind {
            Kind::Produce => Vec::new(),
            Kind::Consume => self.consumers(ReadMode::Repeat, LatencyOf::Fetch)?,
            Kind::EndToEnd => self.consumers(ReadMode::Follow, LatencyOf::Message(self.run))?,
        };
        let connections = producers.len() + consumers.len();
        let producing = Producing::new(producers.len());
        let workers = spread(producers, consumers, self.arguments.threads());
        let (total, intervals, start_ns, workers) = self.drive(workers, &producing)?;
        Ok(LoadResult { total, intervals, start_ns, workers, ledgers, connections })
    }

    fn producers(
        &self,
        ledgers: &HashMap<QueueNumber, Arc<Mutex<OffsetLedger>>>,
    ) -> Result<Vec<ProduceLane>, CommandError> {
        let assigned = assign_producers(&self.topic.queues, self.arguments.connections);
        let connections = assigned.len();
        let mut streams = (0..).map(StreamId);
        let mut lanes = Vec::with_capacity(connections);
        for (index, one) in assigned.iter().enumerate() {
            let queue_plan = |&queue: &QueueNumber| {
                let stream = streams.next().expect("an endless range");
                (self.key(queue), stream, Arc::clone(&ledgers[&queue]))
            };
            let schedule =
                self.arguments.rate.map(|rate| Schedule::new(rate, self.arguments.batch, connections, index));
            let plan = ProducePlan {
                shape: self.arguments.shape(),
                window: self.arguments.in_flight(),
                schedule,
                queues: one.queues.iter().map(queue_plan).collect(),
            };
            let link = self.link(one.shard, &plan)?;
            lanes.push(ProduceLane::new(link, self.clock, plan));
        }
        Ok(lanes)
    }

    /// The connection of a plan.
    fn link(&self, shard: ShardId, plan: &ProducePlan) -> Result<Link, SocketError> {
        let queues = plan.queues.iter().map(|(key, stream, _)| (*key, *stream));
        match self.speech {
            Speech::Native(endpoints) => {
                let socket = BenchSocket::connect(&endpoints[usize::from(shard.0)], ANSWER_BYTES)?;
                let level = self.arguments.level;
                Ok(Link::Native(NativeLink::new(socket, self.run, plan.shape, level, queues)?))
            }
            Speech::Remoting(topic) => {
                let address = &topic.brokers[usize::from(shard.0)];
                let socket = BenchSocket::connect_plain(address, ANSWER_BYTES)?;
                let frame = |(key, stream): (QueueKey, StreamId)| {
                    SendFrame::new(self.run, stream, plan.shape, topic.target(key.queue))
                };
                Ok(Link::Remoting(RemotingLink::new(socket, queues.map(frame).collect())))
            }
        }
    }

    /// Readers of all queues: from their first message to their end, or from their end on.
    fn consumers(&self, mode: ReadMode, latency: LatencyOf) -> Result<Vec<ReadLane>, CommandError> {
        let range = |queue: &QueueNumber| {
            let info =
                self.topic.queues.iter().find(|info| info.queue == *queue).expect("an assigned queue exists");
            let first = if mode == ReadMode::Follow { info.end_offset } else { info.first_offset };
            ReadRange { key: self.key(*queue), first, end: info.end_offset }
        };
        let ranges = self.topic.queues.iter().map(|info| range(&info.queue)).collect();
        self.readers(ranges, mode, latency)
    }

    /// Readers of given ranges, one of each queue.
    fn readers(
        &self,
        ranges: Vec<ReadRange>,
        mode: ReadMode,
        latency: LatencyOf,
    ) -> Result<Vec<ReadLane>, CommandError> {
        let fetch_bytes = self.arguments.fetch_bytes.0 as u32;
        let mut by_queue: HashMap<QueueNumber, ReadRange> =
            ranges.into_iter().map(|range| (range.key.queue, range)).collect();
        let mut lanes = Vec::new();
        for one in assign_consumers(&self.topic.queues, self.arguments.connections) {
            let queues = one.queues.iter().filter_map(|queue| by_queue.remove(queue));
            let shard = usize::from(one.shard.0);
            lanes.push(match self.speech {
                Speech::Native(endpoints) => {
                    let socket = BenchSocket::connect(&endpoints[shard], BATCHES_BYTES)?;
                    let plan = ConsumePlan { mode, latency, fetch_bytes, queues: queues.collect() };
                    ReadLane::Native(ConsumeLane::new(socket, self.clock, plan))
                }
                Speech::Remoting(topic) => {
                    let socket = BenchSocket::connect_plain(&topic.brokers[shard], BATCHES_BYTES)?;
                    ReadLane::Remoting(PullLane::new(socket, self.clock, self.pulls(topic, queues)))
                }
            });
        }
        Ok(lanes)
    }

    /// Pulls of given ranges, again and again.
    fn pulls(&self, topic: &RemotingTopic, ranges: impl Iterator<Item = ReadRange>) -> PullPlan {
        let pulled = |range: ReadRange| PullRange {
            queue: topic.target(range.key.queue).queue,
            first: range.first,
            end: range.end,
        };
        PullPlan {
            topic: topic.topic.to_string(),
            messages: self.arguments.pull_messages,
            queues: ranges.map(pulled).collect(),
        }
    }

    /// Reads given ranges once and checks every message.
    pub fn verify(&self, ranges: Vec<ReadRange>) -> Result<Vec<Worker>, CommandError> {
        let lanes = self.readers(ranges, ReadMode::Once, LatencyOf::Fetch)?;
        let workers = spread(Vec::new(), lanes, self.arguments.threads());
        let quiet = LoadPlan { lines: false, duration: Duration::from_secs(3600), ..*self };
        let (_, _, _, workers) = quiet.drive(workers, &Producing::new(0))?;
        Ok(workers)
    }

    /// Runs the workers in threads of their own and gathers what they count.
    fn drive(
        &self,
        workers: Vec<Worker>,
        producing: &Producing,
    ) -> Result<(Window, Vec<Interval>, u64, Vec<Worker>), CommandError> {
        let nanoseconds = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4);
        let start_ns = self.clock.now_ns() + nanoseconds(LEAD);
        let stop_ns = start_ns + nanoseconds(self.duration);
        let times = Timetable { start_ns, stop_ns, give_up_ns: stop_ns + nanoseconds(LATE_ANSWERS_MAX) };
        let windows: Vec<Mutex<Window>> = workers.iter().map(|_| Mutex::default()).collect();
        let mut reporter = Reporter::new(self, start_ns, &windows);
        let (done_sender, done) = channel();
        let workers = std::thread::scope(|scope| {
            let threads: Vec<_> = workers
                .into_iter()
                .zip(&windows)
                .enumerate()
                .map(|(index, (worker, window))| {
                    let task = WorkerTask {
                        worker,
                        clock: self.clock,
                        times,
                        core: self.arguments.pin.as_ref().map(|cores| cores.0[index % cores.0.len()]),
                        done: done_sender.clone(),
                    };
                    scope.spawn(move || task.run(window, producing))
                })
                .collect();
            drop(done_sender);
            // The channel closes when the last worker has ended.
            while done.recv_timeout(reporter.until_next_line()) != Err(RecvTimeoutError::Disconnected) {
                reporter.look();
            }
            let ended: Result<Vec<Worker>, CommandError> =
                threads.into_iter().map(|thread| thread.join().expect("workers do not panic")).collect();
            ended
        })?;
        reporter.finish();
        Ok((reporter.total, reporter.intervals, start_ns, workers))
    }
}

/// A worker on its way into its thread.
struct WorkerTask {
    worker: Worker,
    clock: BenchClock,
    times: Timetable,
    core: Option<usize>,
    done: Sender<()>,
}

impl WorkerTask {
    fn run(mut self, window: &Mutex<Window>, producing: &Producing) -> Result<Worker, CommandError> {
        prepare_thread(self.core).map_err(|error| {
            let core = self.core.map_or_else(String::new, |core| format!(" to core {core}"));
            CommandError::failed(format!("cannot pin a thread{core}: {error}; see --pin"))
        })?;
        let wait = self.times.start_ns.saturating_sub(self.clock.now_ns());
        std::thread::sleep(Duration::from_nanos(wait));
        self.worker.run(self.clock, self.times, window, producing);
        // The reporter may have gone; then nobody needs to know.
        let _ = self.done.send(());
        Ok(self.worker)
    }
}

/// Deals lanes out to threads.
fn spread(producers: Vec<ProduceLane>, consumers: Vec<ReadLane>, threads: usize) -> Vec<Worker> {
    let threads = threads.min((producers.len() + consumers.len()).max(1));
    let mut workers: Vec<Worker> = (0..threads).map(|_| Worker::default()).collect();
    let mut thread = (0..threads).cycle();
    let mut next = || thread.next().expect("at least one thread");
    producers.into_iter().for_each(|lane| workers[next()].producers.push(lane));
    consumers.into_iter().for_each(|lane| workers[next()].consumers.push(lane));
    workers
}

/// Empties the workers' windows every second.
struct Reporter<'a> {
    kind: Kind,
    lines: bool,
    clock: BenchClock,
    start_ns: u64,
    last_ns: u64,
    windows: &'a [Mutex<Window>],
    total: Window,
    intervals: Vec<Interval>,
    /// Kept, because a histogram is large.
    second: Window,
}

impl<'a> Reporter<'a> {
    fn new(plan: &LoadPlan<'_>, start_ns: u64, windows: &'a [Mutex<Window>]) -> Self {
        Self {
            kind: plan.kind,
            lines: plan.lines,
            clock: plan.clock,
            start_ns,
            last_ns: start_ns,
            windows,
            total: Window::default(),
            intervals: Vec::new(),
            second: Window::default(),
        }
    }

    fn until_next_line(&self) -> Duration {
        Duration::from_nanos((self.last_ns + 1_000_000_000).saturating_sub(self.clock.now_ns()))
    }

    /// Closes the second if it is over.
    fn look(&mut self) {
        let now_ns = self.clock.now_ns();
        if now_ns >= self.last_ns + 1_000_000_000 {
            self.collect();
            self.close(now_ns);
        }
    }

    /// Takes what is left. A rest that is too short for a rate makes no interval.
    fn finish(&mut self) {
        self.collect();
        let now_ns = self.clock.now_ns();
        if now_ns >= self.last_ns + 300_000_000 && self.measured().messages > 0 {
            self.close(now_ns);
        } else {
            self.total.add(&self.second);
            self.second.clear();
        }
    }

    fn collect(&mut self) {
        for window in self.windows {
            let mut window = window.lock().expect("no worker panics with its window");
            self.second.add(&window);
            window.clear();
        }
    }

    fn measured(&self) -> &Tally {
        measured(self.kind, &self.second)
    }

    fn close(&mut self, now_ns: u64) {
        let seconds = (now_ns - self.last_ns) as f64 / 1e9;
        let tally = self.measured();
        let interval = Interval {
            seconds: (now_ns - self.start_ns) as f64 / 1e9,
            messages_per_second: tally.messages as f64 / seconds,
            p50_ns: tally.latencies.at_quantile(0.5),
            p99_ns: tally.latencies.at_quantile(0.99),
            max_ns: tally.latencies.max_ns(),
        };
        if self.lines {
            let time = |nanoseconds: u64| nanoseconds_for_people(nanoseconds as f64);
            tell(format_args!(
                "{:>6.1} s {:>13} msg/s {:>9}/s   p50 {:>7}   p99 {:>7}   max {:>7}{}",
                interval.seconds,
                grouped(interval.messages_per_second as u64),
                bytes_for_people(tally.stored_bytes as f64 / seconds),
                time(interval.p50_ns),
                time(interval.p99_ns),
                time(interval.max_ns),
                if self.second.errors > 0 {
                    format!("   {} errors", self.second.errors)
                } else {
                    String::new()
                }
            ));
        }
        self.intervals.push(interval);
        self.total.add(&self.second);
        self.second.clear();
        self.last_ns = now_ns;
    }
}

/// The direction that a kind of run is about.
pub fn measured(kind: Kind, window: &Window) -> &Tally {
    match kind {
        Kind::Produce => &window.produced,
        Kind::Consume | Kind::EndToEnd => &window.consumed,
    }
}

impl From<SocketError> for CommandError {
    fn from(error: SocketError) -> Self {
        CommandError::failed(error)
    }
}
