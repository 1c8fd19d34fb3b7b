//! `turbopump slow`.

use std::time::Duration;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::api::{ListSlow, RequestProtocol, SlowRequest, StageTimes};
use crate::cli::calendar::Moment;
use crate::cli::error::CommandError;
use crate::cli::output::{OutputFormat, Table, nanoseconds_for_people, on_one_line, print};
use crate::cli::server::ServerArguments;
use crate::limits;
use crate::types::{ShardId, Timestamp, TopicName};

/// A stage with less of a request's time than this share is left out where people read.
const SHOWN_SHARE: f64 = 0.05;

pub const HELP: &str = "\
TIME is the broker's part: neither what a client took to send its request, nor what it wanted to wait for messages.
WHERE has the stages that took most of it, MEANWHILE what the shard did besides. docs/latency.md tells what each means.

Example: the five slowest sends to a topic that came over RocketMQ's protocol
  turbopump slow --topic orders --protocol remoting --count 5";

#[derive(Debug, Args)]
pub struct SlowArguments {
    /// Requests about this topic only
    #[arg(long)]
    pub topic: Option<TopicName>,
    /// Requests of this shard only
    #[arg(long, value_name = "N")]
    pub shard: Option<u16>,
    /// Requests that came over this protocol only
    #[arg(long)]
    pub protocol: Option<ProtocolArgument>,
    /// How many requests to show
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=limits::SLOW_REQUESTS_MAX as i64))]
    pub count: u32,
    #[command(flatten)]
    pub server: ServerArguments,
}

/// A protocol as it is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtocolArgument(pub RequestProtocol);

impl ValueEnum for ProtocolArgument {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            ProtocolArgument(RequestProtocol::Native),
            ProtocolArgument(RequestProtocol::Http),
            ProtocolArgument(RequestProtocol::Remoting),
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.name()))
    }
}

#[derive(Serialize)]
struct SlowView {
    requests: Vec<RequestView>,
}

#[derive(Serialize)]
struct RequestView {
    answered: String,
    shard: u16,
    protocol: &'static str,
    request: String,
    topic: Option<String>,
    queue: Option<u32>,
    offset: Option<u64>,
    client: Option<String>,
    /// The broker's part.
    total_ns: u64,
    stages_ns: StagesView,
    meanwhile_ns: Map<String, Value>,
}

pub fn run(arguments: &SlowArguments, format: OutputFormat) -> Result<(), CommandError> {
    let list = ListSlow {
        shard: arguments.shard.map(ShardId),
        protocol: arguments.protocol.map(|protocol| protocol.0),
        topic: arguments.topic.clone(),
        count: arguments.count,
    };
    let slow = arguments.server.connect()?.list_slow(list)?;
    let view = SlowView { requests: slow.iter().map(RequestView::new).collect() };
    print(format, &view, |_| render(&slow))
}

fn render(slow: &[SlowRequest]) -> String {
    if slow.is_empty() {
        return "no request of the last ten minutes is kept\n".to_owned();
    }
    let mut table = Table::new([
        "ANSWERED",
        "SHARD",
        "PROTOCOL",
        "REQUEST",
        "TOPIC",
        "QUEUE",
        "TIME",
        "WHERE",
        "MEANWHILE",
    ]);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    for request in slow {
        let meanwhile = request.meanwhile.iter().map(|(activity, time)| with_time(activity.name(), *time));
        let meanwhile: Vec<_> = meanwhile.collect();
        table.row([
            rfc_3339(request.answered),
            request.shard.to_string(),
            request.protocol.name().to_owned(),
            on_one_line(&request.kind).into_owned(),
            or_dash(request.topic.as_ref().map(TopicName::to_string)),
            or_dash(request.queue.map(|queue| queue.to_string())),
            for_people(request.times.brokers()),
            where_it_went(&request.times),
            or_dash((!meanwhile.is_empty()).then(|| meanwhile.join(", "))),
        ]);
    }
    table.render()
}

/// The stages that took most, the longest first.
fn where_it_went(times: &StageTimes) -> String {
    let least = times.brokers().as_secs_f64() * SHOWN_SHARE;
    let mut shown: Vec<_> =
        times.iter().filter(|(stage, time)| stage.is_brokers() && time.as_secs_f64() >= least).collect();
    shown.retain(|(_, time)| !time.is_zero());
    shown.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
    shown.iter().map(|(stage, time)| with_time(stage.name(), *time)).collect::<Vec<_>>().join(", ")
}

/// What took no time was a moment.
fn with_time(name: &str, time: Duration) -> String {
    if time.is_zero() { name.to_owned() } else { format!("{name} {}", for_people(time)) }
}

fn for_people(time: Duration) -> String {
    nanoseconds_for_people(time.as_nanos() as f64)
}

fn rfc_3339(time: Timestamp) -> String {
    let Moment { year, month, day, hour, minute, second, millisecond } = Moment::of(time);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}Z")
}

/// Each stage with its nanoseconds, in the order of a request's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StagesView(pub StageTimes);

impl StagesView {
    /// A line for each stage that took any time.
    pub fn lines(&self) -> String {
        let taken = self.0.iter().filter(|(_, time)| !time.is_zero());
        taken.map(|(stage, time)| format!("{:<9}  {}\n", stage.name(), for_people(time))).collect()
    }
}

impl Serialize for StagesView {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(stage, time)| (stage.name(), nanoseconds(time))))
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl RequestView {
    fn new(slow: &SlowRequest) -> Self {
        let meanwhile = slow.meanwhile.iter();
        Self {
            answered: rfc_3339(slow.answered),
            shard: slow.shard.0,
            protocol: slow.protocol.name(),
            request: slow.kind.clone(),
            topic: slow.topic.as_ref().map(TopicName::to_string),
            queue: slow.queue.map(|queue| queue.0),
            offset: slow.offset.map(|offset| offset.0),
            client: slow.client.map(|client| client.to_string()),
            total_ns: nanoseconds(slow.times.brokers()),
            stages_ns: StagesView(slow.times),
            meanwhile_ns: meanwhile
                .map(|(activity, time)| (activity.name().to_owned(), nanoseconds(*time).into()))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Activity, RequestStage};
    use crate::types::QueueNumber;

    #[test]
    fn people_see_where_the_time_went_and_what_the_shard_did() {
        let mut times = StageTimes::default();
        times.set(RequestStage::Receive, Duration::from_secs(3));
        times.set(RequestStage::Append, Duration::from_millis(12));
        times.set(RequestStage::Flush, Duration::from_millis(180));
        times.set(RequestStage::Reply, Duration::from_micros(9));
        let slow = SlowRequest {
            shard: ShardId(3),
            answered: Timestamp(1_700_000_000_123),
            protocol: RequestProtocol::Remoting,
            kind: "send".to_owned(),
            topic: Some("orders".parse().expect("a good name")),
            queue: Some(QueueNumber(7)),
            offset: None,
            client: None,
            times,
            meanwhile: vec![
                (Activity::Segment, Duration::ZERO),
                (Activity::LateWakeup, Duration::from_millis(21)),
            ],
        };
        let text = render(&[slow]);
        for part in [
            "2023-11-14T22:13:20.123Z",
            "remoting",
            "192 ms",
            "flush 180 ms, append 12.0 ms ",
            "segment, late-wakeup 21.0 ms",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        assert!(!text.contains("3.00 s") && !text.contains("reply"), "{text}");
        assert!(render(&[]).contains("no request"));
    }
}
