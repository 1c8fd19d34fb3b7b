//! A run in RocketMQ's protocol, against any broker of it.

use crate::api::TopicInfo;
use crate::cli::bench::arguments::{Kind, LoadArguments};
use crate::cli::bench::load::Speech;
use crate::cli::bench::process_cost::ProcessSample;
use crate::cli::bench::remoting_topic::RemotingTopic;
use crate::cli::bench::report::Report;
use crate::cli::bench::setting::Setting;
use crate::cli::bench::verdict::Verdict;
use crate::cli::error::CommandError;
use crate::cli::output::{OutputFormat, print};

pub fn run(setting: Setting<'_>, format: OutputFormat) -> Result<(), CommandError> {
    let arguments = setting.arguments;
    if arguments.server.asks_for_tls() {
        let message = "bench measures without TLS: leave --tls, --tls-ca and --tls-server-name out, and their variables unset";
        return Err(CommandError::usage(message));
    }
    let (topic, info) = find_topic(&setting)?;
    let load = |stretch, duration| setting.plan(&info, Speech::Remoting(&topic), stretch, duration).run();
    setting.warm_up(|duration| load(1, duration))?;
    let sample = || arguments.server_pid.map(ProcessSample::take).transpose();
    let before = sample()?;
    let result = load(0, arguments.duration.0)?;
    let after = sample()?;
    let mut verdict = Verdict::new(setting.kind, setting.run_id(0), result);
    if setting.kind == Kind::Produce {
        // Against each other: where queues end is not asked.
        verdict.check_offsets(&info);
        verdict.finish(arguments.rate, arguments.duration.0);
    }
    let mut report = setting.report(&info, &verdict);
    if let (Some(before), Some(after)) = (before, after) {
        report.server = after.cost_since(&before, report.messages);
    }
    setting.write_files(&report, &verdict)?;
    print(format, &report, Report::render)?;
    verdict.into_result(&report)
}

/// Finds where the topic's queues are. What is in one that exists cannot be looked at, so it is taken on demand only.
fn find_topic(setting: &Setting<'_>) -> Result<(RemotingTopic, TopicInfo), CommandError> {
    let arguments = setting.arguments;
    if setting.kind == Kind::Consume {
        return find_read(setting);
    }
    let topic = RemotingTopic::find(&arguments.server.server, &arguments.topic, arguments.queues)?;
    if topic.exists && !arguments.existing {
        return Err(CommandError::failed(format!(
            "topic {} exists: name one that does not, which bench makes, or say --existing to write into this one",
            topic.topic
        )));
    }
    if topic.brokers.is_empty() {
        return Err(CommandError::failed(format!("topic {} has no queue that takes messages", topic.topic)));
    }
    let info = topic.info();
    Ok((topic, info))
}

fn find_read(setting: &Setting<'_>) -> Result<(RemotingTopic, TopicInfo), CommandError> {
    let LoadArguments { server, topic, queues, .. } = setting.arguments;
    let (found, info) = RemotingTopic::find_read(&server.server, topic, *queues)?;
    if info.queues.iter().all(|queue| queue.first_offset >= queue.end_offset) {
        return Err(CommandError::failed(format!(
            "topic {topic} is empty: fill it with `turbopump bench produce {topic} --protocol remoting --existing`"
        )));
    }
    Ok((found, info))
}
