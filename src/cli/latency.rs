//! `turbopump latency TOPIC`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::api::{HistogramInfo, KindLatency, LatencyInfo, MeasureLatency, RequestStage};
use crate::cli::error::CommandError;
use crate::cli::latency_svg::write_svg;
use crate::cli::output::{OutputFormat, Table, grouped, nanoseconds_for_people, on_one_line, print};
use crate::cli::quantity::Span;
use crate::cli::server::ServerArguments;
use crate::limits;
use crate::types::TopicName;

/// Characters of the longest bar, and of a plot.
const BAR_WIDTH: usize = 40;
const PLOT_WIDTH: usize = 60;
const PLOT_HEIGHT: usize = 12;
/// Eighths of a full block, from one to eight.
const BLOCKS: [char; 8] =
    ['\u{258f}', '\u{258e}', '\u{258d}', '\u{258c}', '\u{258b}', '\u{258a}', '\u{2589}', '\u{2588}'];

pub const HELP: &str = "\
Every request about the topic that is answered meanwhile counts, over whichever protocol. The time is the broker's part: neither
what a client took to send its request, nor what it wanted to wait for messages. docs/latency.md tells what each stage is.

Example: half a minute of a topic, as a picture as well
  turbopump latency orders --for 30s --svg orders.svg";

#[derive(Debug, Args)]
pub struct LatencyArguments {
    pub topic: TopicName,
    /// How long to look: up to a minute
    #[arg(long = "for", value_name = "DURATION", default_value = "10s", value_parser = parse_time)]
    pub time: Span,
    /// Draw it into this file as well
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Serialize)]
struct LatencyView {
    topic: String,
    measured_ns: u64,
    requests: Vec<KindView>,
}

#[derive(Serialize)]
struct KindView {
    protocol: &'static str,
    request: String,
    total_ns: SpreadView,
    stages_ns: Vec<SpreadView>,
    /// A share of all requests, and what each of them took no longer than.
    curve: Vec<PointView>,
}

#[derive(Serialize)]
struct SpreadView {
    stage: String,
    count: u64,
    mean: u64,
    p50: u64,
    p90: u64,
    p99: u64,
    p99_9: u64,
    p99_99: u64,
    max: u64,
}

#[derive(Serialize)]
struct PointView {
    share: f64,
    ns: u64,
}

pub fn run(arguments: &LatencyArguments, format: OutputFormat) -> Result<(), CommandError> {
    let (topic, time) = (&arguments.topic, arguments.time.0);
    let mut client = arguments.server.connect()?;
    let latency = client.measure_latency(MeasureLatency { topic: topic.clone(), time })?;
    if let Some(path) = &arguments.svg {
        let title = format!("{topic}: where the time goes");
        write_svg(path, &title, &latency).map_err(CommandError::failed)?;
    }
    let view = LatencyView {
        topic: topic.to_string(),
        measured_ns: nanoseconds(time),
        requests: latency.kinds.iter().map(KindView::new).collect(),
    };
    print(format, &view, |_| render(topic, time, &latency))
}

fn parse_time(text: &str) -> Result<Span, String> {
    let span: Span = text.parse().map_err(|error| format!("{error}"))?;
    let most = Duration::from_millis(limits::MEASURED_MS_MAX.into());
    if span.0 < Duration::from_millis(1) || span.0 > most {
        return Err("choose 1ms to 1m".to_owned());
    }
    Ok(span)
}

fn render(topic: &TopicName, time: Duration, latency: &LatencyInfo) -> String {
    if latency.kinds.is_empty() {
        return format!("no request about {topic} was answered within {time:?}\n");
    }
    let kinds: Vec<String> = latency.kinds.iter().map(|kind| render_kind(kind, time)).collect();
    kinds.join("\n")
}

fn render_kind(kind: &KindLatency, time: Duration) -> String {
    let (count, mean) = (kind.total.count, for_people(nanoseconds(kind.mean)));
    let head = format!(
        "{} {}: {} requests in {time:?}, {mean} each on average\n\n",
        kind.protocol.name(),
        on_one_line(&kind.kind),
        grouped(count)
    );
    let mut table = Table::new(["STAGE", "MEAN", "P50", "P99", "P99.9", "MAX", ""]);
    let longest = shown_stages(kind).map(|(mean, _)| *mean).max().unwrap_or_default();
    for (mean, stage) in shown_stages(kind) {
        table.row([
            stage.stage.clone(),
            for_people(nanoseconds(*mean)),
            for_people(stage.p50_ns),
            for_people(stage.p99_ns),
            for_people(stage.p99_9_ns),
            for_people(stage.max_ns),
            bar(mean.as_secs_f64() / longest.as_secs_f64().max(f64::MIN_POSITIVE)),
        ]);
    }
    head + &table.render() + "\n" + &plot(&kind.curve)
}

/// Stages of the broker's time in which any request was for a moment, in their order.
pub fn shown_stages(kind: &KindLatency) -> impl Iterator<Item = &(Duration, HistogramInfo)> {
    let stages = RequestStage::ALL.into_iter().zip(&kind.stages);
    let shown = stages.filter(|(stage, (_, spread))| stage.is_brokers() && spread.max_ns > 0);
    shown.map(|(_, stage)| stage)
}

/// A bar for a share of the longest one.
fn bar(share: f64) -> String {
    let eighths = (share.clamp(0.0, 1.0) * (BAR_WIDTH * 8) as f64).round() as usize;
    let mut bar: String = std::iter::repeat_n(BLOCKS[7], eighths / 8).collect();
    if !eighths.is_multiple_of(8) {
        bar.push(BLOCKS[eighths % 8 - 1]);
    } else if eighths == 0 {
        bar.push(BLOCKS[0]);
    }
    bar
}

/// Latency by percentile: each step to the right is one nine more, each step up ten times as long.
fn plot(curve: &[(f64, Duration)]) -> String {
    let power = |time: Duration| (nanoseconds(time).max(1) as f64).log10();
    let (Some(first), Some(last)) = (curve.first(), curve.last()) else { return String::new() };
    let low = power(first.1).floor();
    let high = power(last.1).ceil().max(low + 1.0);
    let nines = nines_of(curve);
    let mut rows = vec![vec![' '; PLOT_WIDTH]; PLOT_HEIGHT];
    for (column, cell) in (0..PLOT_WIDTH).enumerate() {
        let share = 1.0 - 10_f64.powf(-(cell as f64) / (PLOT_WIDTH - 1) as f64 * nines);
        let at = curve.iter().find(|(of, _)| *of >= share).unwrap_or(last).1;
        let height = (power(at) - low) / (high - low) * (PLOT_HEIGHT - 1) as f64;
        rows[PLOT_HEIGHT - 1 - (height.round() as usize).min(PLOT_HEIGHT - 1)][column] = '*';
    }
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let at = high - (high - low) * number as f64 / (PLOT_HEIGHT - 1) as f64;
        let label = if number % 3 == 0 || number + 1 == PLOT_HEIGHT {
            for_people(10_f64.powf(at) as u64)
        } else {
            String::new()
        };
        text += &format!("{label:>8} |{}\n", row.iter().collect::<String>().trim_end());
    }
    text + &axis(nines)
}

/// As many as there are requests for: the last point but one is the last share that is less than all.
pub fn nines_of(curve: &[(f64, Duration)]) -> f64 {
    let told = curve.iter().rev().find(|(share, _)| *share < 1.0);
    told.map_or(1.0, |(share, _)| -(1.0 - share).log10()).max(1.0)
}

fn axis(nines: f64) -> String {
    let mut line: Vec<char> = vec!['-'; PLOT_WIDTH];
    let mut labels = String::new();
    // The last share is told in binary: three nines may be a little less.
    for step in 0..=(nines + 1e-6).floor() as usize {
        let column = (step as f64 / nines * (PLOT_WIDTH - 1) as f64).round() as usize;
        let column = column.min(PLOT_WIDTH - 1);
        line[column] = '+';
        let decimals = step.saturating_sub(2);
        let label = format!("{:.*}%", decimals, 100.0 - 100.0 / 10_f64.powi(step as i32));
        let at = column.saturating_sub(label.len() / 2);
        if labels.chars().count() <= at {
            labels += &" ".repeat(at - labels.chars().count());
            labels += &label;
            labels.push(' ');
        }
    }
    format!("{:>8} +{}\n{:>10}{}\n", "", line.into_iter().collect::<String>(), "", labels.trim_end())
}

fn for_people(nanoseconds: u64) -> String {
    nanoseconds_for_people(nanoseconds as f64)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl KindView {
    fn new(kind: &KindLatency) -> Self {
        Self {
            protocol: kind.protocol.name(),
            request: kind.kind.clone(),
            total_ns: SpreadView::new(kind.mean, &kind.total),
            stages_ns: kind.stages.iter().map(|(mean, stage)| SpreadView::new(*mean, stage)).collect(),
            curve: kind
                .curve
                .iter()
                .map(|(share, time)| PointView { share: *share, ns: nanoseconds(*time) })
                .collect(),
        }
    }
}

impl SpreadView {
    fn new(mean: Duration, histogram: &HistogramInfo) -> Self {
        Self {
            stage: histogram.stage.clone(),
            count: histogram.count,
            mean: nanoseconds(mean),
            p50: histogram.p50_ns,
            p90: histogram.p90_ns,
            p99: histogram.p99_ns,
            p99_9: histogram.p99_9_ns,
            p99_99: histogram.p99_99_ns,
            max: histogram.max_ns,
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::api::RequestProtocol;

    /// Two stages that took some time.
    pub fn some_latency() -> LatencyInfo {
        let histogram = |stage: &str, time_us: u64| HistogramInfo {
            stage: stage.to_owned(),
            count: 1_000,
            p50_ns: time_us * 1_000,
            p90_ns: time_us * 1_100,
            p99_ns: time_us * 2_000,
            p99_9_ns: time_us * 10_000,
            p99_99_ns: time_us * 10_000,
            max_ns: time_us * 10_000,
        };
        let time_of = |stage| match stage {
            RequestStage::Receive => 7_000,
            RequestStage::Append => 20,
            RequestStage::Flush => 160,
            _ => 0,
        };
        let stage = |stage: RequestStage| {
            (Duration::from_micros(time_of(stage)), histogram(stage.name(), time_of(stage)))
        };
        let share = |step: u32| 1.0 - 10_f64.powf(-f64::from(step) / 10.0);
        let curve = (0..=30).map(|step| (share(step), Duration::from_micros(100 + u64::from(step * step))));
        let kind = KindLatency {
            protocol: RequestProtocol::Http,
            kind: "publish".to_owned(),
            total: histogram("total", 180),
            mean: Duration::from_micros(180),
            curve: curve.chain([(1.0, Duration::from_millis(2))]).collect(),
            stages: RequestStage::ALL.map(stage).to_vec(),
        };
        LatencyInfo { kinds: vec![kind] }
    }

    #[test]
    fn stages_are_bars_and_percentiles_a_plot() {
        let topic = "orders".parse().expect("a good name");
        let text = render(&topic, Duration::from_secs(10), &some_latency());
        for part in [
            "http publish: 1,000 requests in 10s, 180 us each",
            "flush",
            "1.60 ms",
            "10.0 ms |",
            "99.9%",
            "90%",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert!(!text.contains("receive") && !text.contains("device"), "{text}");
        let full: String = std::iter::repeat_n(BLOCKS[7], BAR_WIDTH).collect();
        assert!(text.lines().any(|line| line.starts_with("flush") && line.ends_with(&full)), "{text}");
        assert!(
            text.lines().any(|line| line.starts_with("append") && line.ends_with(&full[..5 * 3])),
            "{text}"
        );
        assert!(text.lines().all(|line| line.chars().count() <= 110), "{text}");
        assert!(render(&topic, Duration::from_secs(1), &LatencyInfo::default()).contains("no request"));
    }

    #[test]
    fn a_plot_rises_to_the_right() {
        let plot = plot(&some_latency().kinds[0].curve);
        let rows: Vec<&str> = plot.lines().take(PLOT_HEIGHT).map(|line| &line[10..]).collect();
        let of = |column: usize| rows.iter().position(|row| row.as_bytes().get(column) == Some(&b'*'));
        let heights: Vec<_> = (0..PLOT_WIDTH).map(|column| of(column).expect("a point")).collect();
        assert!(heights.is_sorted_by(|left, right| left >= right), "{plot}");
    }

    #[test]
    fn one_request_is_drawn_as_well() {
        assert!(plot(&[(0.0, Duration::from_micros(7)), (1.0, Duration::from_micros(7))]).contains('*'));
        assert_eq!(plot(&[]), "");
        assert!(parse_time("2m").is_err() && parse_time("0s").is_err() && parse_time("30s").is_ok());
    }
}
