//! `turbopump slow`.

use std::time::Duration;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};

use crate::api::{ListSlow, RequestProtocol, SlowRequest, StageTimes};
use crate::cli::calendar::rfc3339;
use crate::cli::error::CommandError;
use crate::cli::output::{OutputFormat, Table, nanoseconds_for_people, on_one_line, print, terminal_width};
use crate::cli::server::ServerArguments;
use crate::limits;
use crate::types::{ShardId, TopicName};
use crate::views::{SlowView, StagesView};

/// A stage with less of a request's time than this share is left out where people read.
const SHOWN_SHARE: f64 = 0.05;

/// A terminal that is narrower is shown no table.
const TABLE_WIDTH_MIN: usize = 120;

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

pub fn run(arguments: &SlowArguments, format: OutputFormat) -> Result<(), CommandError> {
    let list = ListSlow {
        shard: arguments.shard.map(ShardId),
        protocol: arguments.protocol.map(|protocol| protocol.0),
        topic: arguments.topic.clone(),
        count: arguments.count,
    };
    let mut client = arguments.server.connect()?;
    let slow = client.list_slow(list)?;
    let view = SlowView::new(&slow);
    if let Some(topic) = arguments.topic.as_ref().filter(|_| slow.is_empty()) {
        // Requests about topics that are not there are kept as well, so that is no mistake; without any it may be one.
        client.describe_topic(topic)?;
    }
    print(format, &view, |_| match terminal_width() {
        _ if slow.is_empty() => arguments.none(),
        Some(width) if width < TABLE_WIDTH_MIN => render_narrow(&slow, width),
        _ => render(&slow),
    })
}

impl SlowArguments {
    /// What is said of no request.
    fn none(&self) -> String {
        let is_filtered = self.topic.is_some() || self.shard.is_some() || self.protocol.is_some();
        format!("no {}request of the last ten minutes is kept\n", if is_filtered { "such " } else { "" })
    }
}

fn render(slow: &[SlowRequest]) -> String {
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
        let meanwhile = meanwhile(request);
        table.row([
            rfc3339(request.answered),
            request.shard.to_string(),
            request.protocol.name().to_owned(),
            on_one_line(&request.kind).into_owned(),
            or_dash(request.topic.as_ref().map(TopicName::to_string)),
            or_dash(request.queue.map(|queue| queue.to_string())),
            for_people(request.times.brokers()),
            where_it_went(&request.times).join(", "),
            or_dash((!meanwhile.is_empty()).then(|| meanwhile.join(", "))),
        ]);
    }
    table.render()
}

/// Some lines for each request: a table would break its cells.
fn render_narrow(slow: &[SlowRequest], width: usize) -> String {
    let mut text = String::new();
    for request in slow {
        let mut what = vec![
            for_people(request.times.brokers()),
            request.protocol.name().to_owned(),
            on_one_line(&request.kind).into_owned(),
        ];
        what.extend(request.topic.as_ref().map(TopicName::to_string));
        what.extend(request.queue.map(|queue| format!("queue {queue}")));
        what.push(format!("shard {}", request.shard));
        text += &format!("{}\n", rfc3339(request.answered));
        text += &in_lines("  ", " ", &what, width);
        text += &in_lines("  where: ", ", ", &where_it_went(&request.times), width);
        text += &in_lines("  meanwhile: ", ", ", &meanwhile(request), width);
    }
    text
}

/// Words after a head, in as many lines as they need; nothing where there are none.
pub fn in_lines(head: &str, between: &str, words: &[String], width: usize) -> String {
    let Some((first, rest)) = words.split_first() else { return String::new() };
    let mut text = format!("{head}{first}");
    let mut taken = text.chars().count();
    for word in rest {
        let length = word.chars().count();
        taken += between.len() + length;
        text += between;
        if taken >= width {
            text.truncate(text.trim_end().len());
            text += "\n    ";
            taken = 4 + length;
        }
        text += word;
    }
    text + "\n"
}

fn meanwhile(request: &SlowRequest) -> Vec<String> {
    request.meanwhile.iter().map(|(activity, time)| with_time(activity.name(), *time)).collect()
}

/// The stages that took most, the longest first.
fn where_it_went(times: &StageTimes) -> Vec<String> {
    let least = times.brokers().as_secs_f64() * SHOWN_SHARE;
    let mut shown: Vec<_> =
        times.iter().filter(|(stage, time)| stage.is_brokers() && time.as_secs_f64() >= least).collect();
    shown.retain(|(_, time)| !time.is_zero());
    shown.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
    shown.iter().map(|(stage, time)| with_time(stage.name(), *time)).collect()
}

/// What took no time was a moment.
fn with_time(name: &str, time: Duration) -> String {
    if time.is_zero() { name.to_owned() } else { format!("{name} {}", for_people(time)) }
}

fn for_people(time: Duration) -> String {
    nanoseconds_for_people(time.as_nanos() as f64)
}

/// A line for each stage that took any time.
pub fn lines_of(stages: &StagesView) -> String {
    let taken = stages.0.iter().filter(|(_, time)| !time.is_zero());
    taken.map(|(stage, time)| format!("{:<9}  {}\n", stage.name(), for_people(time))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Activity, RequestStage};
    use crate::types::{QueueNumber, Timestamp};

    #[test]
    fn people_see_where_the_time_went_and_what_the_shard_did() {
        let text = render(&[some_slow()]);
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
    }

    #[test]
    fn a_narrow_terminal_has_lines_instead_of_a_table() {
        assert_eq!(
            render_narrow(&[some_slow()], 119),
            "2023-11-14T22:13:20.123Z\n  192 ms remoting send orders queue 7 shard 3\n  where: flush 180 ms, append 12.0 ms\n  \
             meanwhile: segment, late-wakeup 21.0 ms\n"
        );
        for width in 32..60 {
            let text = render_narrow(&[some_slow()], width);
            assert!(text.lines().all(|line| line.len() <= width), "{width}\n{text}");
        }
        assert!(render_narrow(&[some_slow()], 1).contains("orders"));
    }

    fn some_slow() -> SlowRequest {
        let mut times = StageTimes::default();
        times.set(RequestStage::Receive, Duration::from_secs(3));
        times.set(RequestStage::Append, Duration::from_millis(12));
        times.set(RequestStage::Flush, Duration::from_millis(180));
        times.set(RequestStage::Reply, Duration::from_micros(9));
        SlowRequest {
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
        }
    }
}
