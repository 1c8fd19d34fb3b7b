//! `turbopump bench`: from the arguments to the report.

use std::time::Duration;

use crate::api::{Status, TopicChange, TopicInfo};
use crate::cli::bench::arguments::{BenchArguments, Kind, LoadArguments, Protocol};
use crate::cli::bench::baseline::Baseline;
use crate::cli::bench::clock::BenchClock;
use crate::cli::bench::load::{LoadPlan, LoadResult, Speech};
use crate::cli::bench::ownership::check_own;
use crate::cli::bench::remoting_run;
use crate::cli::bench::report::Report;
use crate::cli::bench::server_cost::ServerSample;
use crate::cli::bench::setting::Setting;
use crate::cli::bench::socket::{ShardEndpoint, shard_endpoints};
use crate::cli::bench::verdict::Verdict;
use crate::cli::calendar;
use crate::cli::error::CommandError;
use crate::cli::output::{OutputFormat, print};
use crate::cli::server::print_notices;
use crate::client::{Client, ClientError};
use crate::node;

/// A bench in progress.
struct Bench<'a> {
    setting: Setting<'a>,
    client: Client,
    endpoints: Vec<ShardEndpoint>,
}

pub fn run(arguments: BenchArguments, format: OutputFormat) -> Result<(), CommandError> {
    let (kind, arguments) = arguments.command.split();
    arguments.check(kind)?;
    let seed = arguments.seed.unwrap_or_else(|| calendar::now().0);
    let setting = Setting { kind, arguments: &arguments, clock: BenchClock::start(), seed };
    match arguments.protocol {
        Protocol::Native => run_native(setting, format),
        Protocol::Remoting => remoting_run::run(setting, format),
    }
}

fn run_native(setting: Setting<'_>, format: OutputFormat) -> Result<(), CommandError> {
    let Setting { kind, arguments, .. } = setting;
    if arguments.baseline {
        // The raw device is measured as the broker uses it.
        node::check_io_uring().map_err(CommandError::failed)?;
    }
    let mut client = arguments.server.connect()?;
    if client.options().tls.is_some() {
        let message = "bench measures without TLS: leave --tls, --tls-ca and --tls-server-name out, and their variables unset";
        return Err(CommandError::usage(message));
    }
    ensure_topic(&mut client, kind, arguments)?;
    let endpoints = shard_endpoints(&mut client)?;
    print_notices(&mut client);
    Bench { setting, client, endpoints }.run(format)
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
        let first = ServerSample::take(&mut self.client, self.setting.arguments.count_syscalls)?;
        let baseline = self
            .setting
            .arguments
            .baseline
            .then(|| Baseline::new(self.setting.kind, self.setting.arguments, &first));
        let setting = self.setting;
        setting.warm_up(|duration| {
            let topic = self.topic()?;
            self.plan(&topic, 1, duration).run()
        })?;
        let warm = self.sample()?;
        let raw_before = match &baseline {
            Some(baseline) => Some(baseline.measure(warm.group_bytes_since(&first))?),
            None => None,
        };
        let topic = self.topic()?;
        let before = self.sample()?;
        let result = self.plan(&topic, 0, setting.arguments.duration.0).run()?;
        let after = self.sample()?;
        let verdict = self.judge(&topic, result)?;
        let mut report = setting.report(&topic, &verdict);
        report.server = after.cost_since(&before, report.messages);
        if let (Some(baseline), Some(raw_before)) = (&baseline, raw_before) {
            let group_bytes = after.group_bytes_since(&before);
            let raw_after = baseline.measure(group_bytes)?;
            report.baseline =
                Some(baseline.report([raw_before, raw_after], group_bytes, report.stored_bytes_per_second));
        }
        setting.write_files(&report, &verdict)?;
        print(format, &report, Report::render)?;
        verdict.into_result(&report)
    }

    fn sample(&mut self) -> Result<ServerSample, CommandError> {
        // `false` leaves the counting as it is.
        Ok(ServerSample::take(&mut self.client, self.setting.arguments.count_syscalls)?)
    }

    /// The topic with its queues as they are now.
    fn topic(&mut self) -> Result<TopicInfo, CommandError> {
        let topic = self.client.describe_topic(&self.setting.arguments.topic)?;
        let empty = topic.queues.iter().all(|queue| queue.first_offset >= queue.end_offset);
        if self.setting.kind == Kind::Consume && empty {
            return Err(CommandError::failed(format!(
                "topic {topic} is empty: fill it with `turbopump bench produce {topic} --existing`",
                topic = self.setting.arguments.topic
            )));
        }
        Ok(topic)
    }

    /// One stretch of load; the measured one has number 0.
    fn plan<'p>(&'p self, topic: &'p TopicInfo, stretch: u64, duration: Duration) -> LoadPlan<'p> {
        self.setting.plan(topic, Speech::Native(&self.endpoints), stretch, duration)
    }

    /// Finds out what is wrong with a run, reading everything back if asked.
    fn judge(&mut self, topic: &TopicInfo, result: LoadResult) -> Result<Verdict, CommandError> {
        let mut verdict = Verdict::new(self.setting.kind, self.setting.run_id(0), result);
        if self.setting.kind != Kind::Consume {
            let now = self.client.describe_topic(&self.setting.arguments.topic)?;
            verdict.check_offsets(&now);
            if self.setting.kind == Kind::Produce && self.setting.arguments.verify {
                let ranges = verdict.written_ranges(topic, &now);
                let readers = self.plan(topic, 0, Duration::ZERO).verify(ranges)?;
                verdict.check_contents(readers);
            }
        }
        verdict.finish(self.setting.arguments.rate, self.setting.arguments.duration.0);
        Ok(verdict)
    }
}
