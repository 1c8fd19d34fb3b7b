//! `turbopump bench`: from the arguments to the report.

use std::time::Duration;

use crate::api::{Status, TopicChange, TopicInfo};
use crate::cli::bench::arguments::{BenchArguments, Kind, LoadArguments};
use crate::cli::bench::baseline::Baseline;
use crate::cli::bench::clock::BenchClock;
use crate::cli::bench::evenness::Evenness;
use crate::cli::bench::load::{LoadPlan, LoadResult, measured};
use crate::cli::bench::message::RunId;
use crate::cli::bench::ownership::check_own;
use crate::cli::bench::plot::{PlotData, write_plot};
use crate::cli::bench::report::Report;
use crate::cli::bench::server_cost::ServerSample;
use crate::cli::bench::socket::{ShardEndpoint, shard_endpoints};
use crate::cli::bench::verdict::Verdict;
use crate::cli::calendar;
use crate::cli::error::CommandError;
use crate::cli::output::{OutputFormat, print};
use crate::cli::server::print_notices;
use crate::client::{Client, ClientError};
use crate::node;
use crate::types::Level;

/// A bench in progress.
struct Bench<'a> {
    kind: Kind,
    arguments: &'a LoadArguments,
    client: Client,
    clock: BenchClock,
    endpoints: Vec<ShardEndpoint>,
    seed: u64,
}

pub fn run(arguments: BenchArguments, format: OutputFormat) -> Result<(), CommandError> {
    let (kind, arguments) = arguments.command.split();
    arguments.check(kind)?;
    if arguments.baseline {
        // The raw device is measured as the broker uses it.
        node::check_io_uring().map_err(CommandError::failed)?;
    }
    let mut client = arguments.server.connect()?;
    if client.options().tls.is_some() {
        let message = "bench measures without TLS: leave --tls, --tls-ca and --tls-server-name out, and their variables unset";
        return Err(CommandError::usage(message));
    }
    ensure_topic(&mut client, kind, &arguments)?;
    let endpoints = shard_endpoints(&mut client)?;
    print_notices(&mut client);
    let seed = arguments.seed.unwrap_or_else(|| calendar::now().0);
    let bench = Bench { kind, arguments: &arguments, client, clock: BenchClock::start(), endpoints, seed };
    bench.run(format)
}

/// Creates the topic if it is missing, and refuses one that is not the bench's to write into. Reading from a topic that is
/// not there makes no sense.
fn ensure_topic(client: &mut Client, kind: Kind, arguments: &LoadArguments) -> Result<(), CommandError> {
    match client.describe_topic(&arguments.topic) {
        Ok(topic) if kind != Kind::Consume && !arguments.existing => check_own(client, &topic),
        Ok(_) => Ok(()),
        Err(ClientError::Refused(failure))
            if failure.status == Status::TopicNotExist && kind != Kind::Consume =>
        {
            let change = TopicChange {
                topic: arguments.topic.clone(),
                queues: Some(arguments.queues),
                retention: None,
                level: None,
            };
            Ok(client.create_topic(change)?)
        }
        Err(error) => Err(error.into()),
    }
}

impl Bench<'_> {
    fn run(mut self, format: OutputFormat) -> Result<(), CommandError> {
        // Counting system calls starts with the first look.
        let first = ServerSample::take(&mut self.client, self.arguments.count_syscalls)?;
        let baseline = self.arguments.baseline.then(|| Baseline::new(self.kind, self.arguments, &first));
        self.warm_up()?;
        let warm = self.sample()?;
        let raw_before = match &baseline {
            Some(baseline) => Some(baseline.measure(warm.group_bytes_since(&first))?),
            None => None,
        };
        let topic = self.topic()?;
        let before = self.sample()?;
        let result = self.load(&topic, 0, self.arguments.duration.0)?;
        let after = self.sample()?;
        let verdict = self.judge(&topic, result)?;
        let mut report = self.report(&topic, &verdict);
        report.server = after.cost_since(&before, report.messages);
        if let (Some(baseline), Some(raw_before)) = (&baseline, raw_before) {
            let group_bytes = after.group_bytes_since(&before);
            let raw_after = baseline.measure(group_bytes)?;
            report.baseline =
                Some(baseline.report([raw_before, raw_after], group_bytes, report.stored_bytes_per_second));
        }
        self.write_files(&report, &verdict)?;
        print(format, &report, Report::render)?;
        verdict.into_result(&report)
    }

    fn sample(&mut self) -> Result<ServerSample, CommandError> {
        // `false` leaves the counting as it is.
        Ok(ServerSample::take(&mut self.client, self.arguments.count_syscalls)?)
    }

    /// The topic with its queues as they are now.
    fn topic(&mut self) -> Result<TopicInfo, CommandError> {
        let topic = self.client.describe_topic(&self.arguments.topic)?;
        let empty = topic.queues.iter().all(|queue| queue.first_offset >= queue.end_offset);
        if self.kind == Kind::Consume && empty {
            return Err(CommandError::failed(format!(
                "topic {topic} is empty: fill it with `turbopump bench produce {topic} --existing`",
                topic = self.arguments.topic
            )));
        }
        Ok(topic)
    }

    fn warm_up(&mut self) -> Result<(), CommandError> {
        if self.arguments.warmup.0.is_zero() {
            return Ok(());
        }
        let topic = self.topic()?;
        let result = self.load(&topic, 1, self.arguments.warmup.0)?;
        match result.workers.into_iter().find_map(|worker| worker.failure) {
            Some(failure) => Err(failure.into()),
            None => Ok(()),
        }
    }

    fn plan<'p>(&'p self, topic: &'p TopicInfo, stretch: u64, duration: Duration) -> LoadPlan<'p> {
        LoadPlan {
            kind: self.kind,
            arguments: self.arguments,
            clock: self.clock,
            run: self.run_id(stretch),
            duration,
            topic,
            endpoints: &self.endpoints,
            lines: stretch == 0,
        }
    }

    /// One stretch of load; the measured one has number 0.
    fn load(
        &mut self,
        topic: &TopicInfo,
        stretch: u64,
        duration: Duration,
    ) -> Result<LoadResult, CommandError> {
        self.plan(topic, stretch, duration).run()
    }

    /// Runs with other seeds, and the stretches of one run, have messages that cannot be confused.
    fn run_id(&self, stretch: u64) -> RunId {
        let mixed = (self.seed ^ stretch << 63).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        RunId((mixed >> 32) as u32)
    }

    /// Finds out what is wrong with a run, reading everything back if asked.
    fn judge(&mut self, topic: &TopicInfo, result: LoadResult) -> Result<Verdict, CommandError> {
        let mut verdict = Verdict::new(self.kind, self.run_id(0), result);
        if self.kind != Kind::Consume {
            let now = self.client.describe_topic(&self.arguments.topic)?;
            verdict.check_offsets(&now);
            if self.kind == Kind::Produce && self.arguments.verify {
                let ranges = verdict.written_ranges(topic, &now);
                let readers = self.plan(topic, 0, Duration::ZERO).verify(ranges)?;
                verdict.check_contents(readers);
            }
        }
        verdict.finish(self.arguments.rate, self.arguments.duration.0);
        Ok(verdict)
    }

    fn report(&self, topic: &TopicInfo, verdict: &Verdict) -> Report {
        let result = verdict.result();
        let tally = measured(self.kind, &result.total);
        let elapsed_ns = tally.last_ns.saturating_sub(result.start_ns).max(1);
        let seconds = elapsed_ns as f64 / 1e9;
        let faults = verdict.faults();
        let sends = self.kind != Kind::Consume;
        let mean_body = tally.body_bytes.checked_div(tally.messages).unwrap_or(0);
        Report {
            messages_per_second: (tally.messages as f64 / seconds).round(),
            bytes_per_second: (tally.body_bytes as f64 / seconds).round(),
            latency_us: tally.latencies.summary(),
            lost: faults.lost,
            duplicated: faults.duplicated,
            disordered: faults.disordered,
            damaged: faults.damaged,
            seconds: Evenness::of(&result.intervals),
            level: verdict.level().map(Level::name),
            server: Default::default(),
            baseline: None,
            bench: self.kind.name(),
            topic: self.arguments.topic.to_string(),
            body: if sends { self.arguments.shape().body_bytes as u64 } else { mean_body },
            batch: sends.then_some(self.arguments.batch),
            queues: topic.queue_count,
            connections: result.connections,
            in_flight: sends.then(|| self.arguments.in_flight()),
            rate: self.arguments.rate,
            overloaded: verdict.overloaded(),
            duration_seconds: (seconds * 1000.0).round() / 1000.0,
            messages: tally.messages,
            errors: result.total.errors,
            unanswered: verdict.unanswered(),
            stored_bytes_per_second: (tally.stored_bytes as f64 / seconds).round(),
            latency_of: match self.kind {
                Kind::Produce => "acknowledgement",
                Kind::Consume => "fetch",
                Kind::EndToEnd => "delivery",
            },
            acknowledgement_us: (self.kind == Kind::EndToEnd)
                .then(|| result.total.produced.latencies.summary()),
            verified: verdict.verified(),
            passes: verdict.passes(),
            threads: self.arguments.threads(),
            pin: self.arguments.pin.as_ref().map(|cores| cores.0.clone()),
            seed: self.seed,
            server_address: self.arguments.server.server.clone(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    fn write_files(&self, report: &Report, verdict: &Verdict) -> Result<(), CommandError> {
        let result = verdict.result();
        let latencies = &measured(self.kind, &result.total).latencies;
        if let Some(path) = &self.arguments.hgrm {
            std::fs::write(path, latencies.to_hgrm())
                .map_err(|error| CommandError::failed(format!("cannot write {}: {error}", path.display())))?;
        }
        if let Some(path) = &self.arguments.plot {
            let [title, subtitle] = report.headlines();
            let data = PlotData { title, subtitle, latencies, intervals: &result.intervals };
            write_plot(path, &data).map_err(CommandError::failed)?;
        }
        Ok(())
    }
}
