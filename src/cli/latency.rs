//! `turbopump latency TOPIC`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::api::{HistogramInfo, KindLatency, LatencyInfo, MeasureLatency, RequestStage};
use crate::cli::error::CommandError;
use crate::cli::latency_svg::write_svg;
use crate::cli::output::{
    OutputFormat, Table, grouped, nanoseconds_for_people, on_one_line, print, terminal_width,
};
use crate::cli::quantity::Span;
use crate::cli::server::ServerArguments;
use crate::cli::slow::in_lines;
use crate::limits;
use crate::types::TopicName;
use crate::views::{LatencyView, nanoseconds};

/// Characters of the longest bar, and of a plot, where the terminal has room for them; and the fewest that show anything.
const BAR_WIDTH: usize = 40;
const BAR_WIDTH_MIN: usize = 4;
const PLOT_WIDTH: usize = 60;
const PLOT_WIDTH_MIN: usize = 16;
const PLOT_HEIGHT: usize = 12;
/// Before a plot its scale, and behind it what the last label needs.
const SCALE_WIDTH: usize = 10;
const LABEL_REST: usize = 4;
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

pub fn run(arguments: &LatencyArguments, format: OutputFormat) -> Result<(), CommandError> {
    let (topic, time) = (&arguments.topic, arguments.time.0);
    let mut client = arguments.server.connect()?;
    let latency = client.measure_latency(MeasureLatency { topic: topic.clone(), time })?;
    let view = LatencyView::new(topic, time, &latency);
    // First what has been looked for: a file that cannot be written is not to cost it.
    print(format, &view, |_| render(topic, time, &latency, terminal_width()))?;
    if let Some(path) = &arguments.svg {
        let title = format!("{topic}: where the time goes");
        write_svg(path, &title, &latency).map_err(CommandError::failed)?;
    }
    Ok(())
}

fn parse_time(text: &str) -> Result<Span, String> {
    let span: Span = text.parse().map_err(|error| format!("{error}"))?;
    let most = Duration::from_millis(limits::MEASURED_MS_MAX.into());
    if span.0 < Duration::from_millis(1) || span.0 > most {
        return Err("choose 1ms to 1m".to_owned());
    }
    Ok(span)
}

/// In lines of `width` characters, where that is known.
fn render(topic: &TopicName, time: Duration, latency: &LatencyInfo, width: Option<usize>) -> String {
    if latency.kinds.is_empty() {
        return format!("no request about {topic} was answered within {time:?}\n");
    }
    let kinds: Vec<String> = latency.kinds.iter().map(|kind| render_kind(kind, time, width)).collect();
    kinds.join("\n")
}

fn render_kind(kind: &KindLatency, time: Duration, width: Option<usize>) -> String {
    let (count, mean) = (kind.total.count, for_people(nanoseconds(kind.mean)));
    let requests = if count == 1 { "request" } else { "requests" };
    let what = format!("{} {}:", kind.protocol.name(), on_one_line(&kind.kind));
    let words = [
        format!("{} {requests}", grouped(count)),
        format!("in {time:?},"),
        format!("{mean} each"),
        "on average".to_owned(),
    ];
    let head = in_lines(&format!("{what} "), " ", &words, width.unwrap_or(usize::MAX)) + "\n";
    let longest = shown_stages(kind).map(|(mean, _)| *mean).max().unwrap_or_default();
    let cells = |(mean, stage): &(Duration, HistogramInfo)| {
        let times = [nanoseconds(*mean), stage.p50_ns, stage.p99_ns, stage.p99_9_ns, stage.max_ns];
        let [mean, p50, p99, p99_9, max] = times.map(for_people);
        [stage.stage.clone(), mean, p50, p99, p99_9, max]
    };
    let rows: Vec<_> = shown_stages(kind).map(cells).collect();
    // Two characters between columns, whose heads have five at most.
    let of_column = |column: usize| rows.iter().map(move |row| row[column].chars().count()).max();
    let taken: usize = (0..6).map(|column| of_column(column).unwrap_or_default().max(5) + 2).sum();
    let bars = width.map_or(BAR_WIDTH, |width| width.saturating_sub(taken).min(BAR_WIDTH));
    let mut table = Table::new(["STAGE", "MEAN", "P50", "P99", "P99.9", "MAX", ""]);
    if width.is_some_and(|width| width + 2 < taken) {
        return head + &render_narrow(&rows, width.unwrap_or_default()) + "\n" + &plot_of(kind, width);
    }
    for ((mean, _), cells) in shown_stages(kind).zip(rows.iter().cloned()) {
        let [stage, mean_cell, p50, p99, p99_9, max] = cells;
        let share = mean.as_secs_f64() / longest.as_secs_f64().max(f64::MIN_POSITIVE);
        let bar = if bars < BAR_WIDTH_MIN { String::new() } else { bar(share, bars) };
        table.row([stage, mean_cell, p50, p99, p99_9, max, bar]);
    }
    head + &table.render() + "\n" + &plot_of(kind, width)
}

/// Some lines for each stage: a table would break its cells.
fn render_narrow(rows: &[[String; 6]], width: usize) -> String {
    let mut text = String::new();
    for [stage, mean, p50, p99, p99_9, max] in rows {
        let words = [
            format!("mean {mean}"),
            format!("p50 {p50}"),
            format!("p99 {p99}"),
            format!("p99.9 {p99_9}"),
            format!("max {max}"),
        ];
        text += &format!("{stage}\n");
        text += &in_lines("  ", ", ", &words, width);
    }
    text
}

/// As wide as a terminal of so many characters has room for.
fn plot_of(kind: &KindLatency, width: Option<usize>) -> String {
    let beside = SCALE_WIDTH + LABEL_REST;
    let columns =
        width.map_or(PLOT_WIDTH, |width| width.saturating_sub(beside).clamp(PLOT_WIDTH_MIN, PLOT_WIDTH));
    plot(&kind.curve, columns)
}

/// Stages of the broker's time in which any request was for a moment, in their order.
pub fn shown_stages(kind: &KindLatency) -> impl Iterator<Item = &(Duration, HistogramInfo)> {
    let stages = RequestStage::ALL.into_iter().zip(&kind.stages);
    let shown = stages.filter(|(stage, (_, spread))| stage.is_brokers() && spread.max_ns > 0);
    shown.map(|(_, stage)| stage)
}

/// A bar for a share of the longest one, which has so many characters.
fn bar(share: f64, longest: usize) -> String {
    let eighths = (share.clamp(0.0, 1.0) * (longest * 8) as f64).round() as usize;
    let mut bar: String = std::iter::repeat_n(BLOCKS[7], eighths / 8).collect();
    if !eighths.is_multiple_of(8) {
        bar.push(BLOCKS[eighths % 8 - 1]);
    } else if eighths == 0 {
        bar.push(BLOCKS[0]);
    }
    bar
}

/// Latency by percentile: each step to the right is one nine more, each step up ten times as long.
fn plot(curve: &[(f64, Duration)], columns: usize) -> String {
    let power = |time: Duration| (nanoseconds(time).max(1) as f64).log10();
    let (Some(first), Some(last)) = (curve.first(), curve.last()) else { return String::new() };
    let low = power(first.1).floor();
    let high = power(last.1).ceil().max(low + 1.0);
    let nines = nines_of(curve);
    let mut rows = vec![vec![' '; columns]; PLOT_HEIGHT];
    let heights = (0..columns).map(|column| {
        let share = 1.0 - 10_f64.powf(-(column as f64) / (columns - 1) as f64 * nines);
        let at = curve.iter().find(|(of, _)| *of >= share).unwrap_or(last).1;
        let height = (power(at) - low) / (high - low) * (PLOT_HEIGHT - 1) as f64;
        (height.round() as usize).min(PLOT_HEIGHT - 1)
    });
    for (column, height) in heights.enumerate() {
        rows[PLOT_HEIGHT - 1 - height][column] = '*';
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
    text + &axis(nines, columns)
}

/// As many as there are requests for: the last point but one is the last share that is less than all.
pub fn nines_of(curve: &[(f64, Duration)]) -> f64 {
    let told = curve.iter().rev().find(|(share, _)| *share < 1.0);
    told.map_or(1.0, |(share, _)| -(1.0 - share).log10()).max(1.0)
}

fn axis(nines: f64, columns: usize) -> String {
    let mut line: Vec<char> = vec!['-'; columns];
    let mut labels = String::new();
    // The last share is told in binary: three nines may be a little less.
    for step in 0..=(nines + 1e-6).floor() as usize {
        let column = (step as f64 / nines * (columns - 1) as f64).round() as usize;
        let column = column.min(columns - 1);
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
        let text = render(&topic, Duration::from_secs(10), &some_latency(), None);
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
        let nothing = render(&topic, Duration::from_secs(1), &LatencyInfo::default(), None);
        assert!(nothing.contains("no request"));
    }

    #[test]
    fn a_drawing_fits_narrow_terminals() {
        let topic = "orders".parse().expect("a good name");
        for width in [1, 40, 60, 72, 80, 200] {
            let text = render(&topic, Duration::from_secs(10), &some_latency(), Some(width));
            let most = text.lines().map(|line| line.chars().count()).max().expect("lines");
            assert!(most <= width.max(32), "{width}: {most}\n{text}");
            assert!(text.contains("p99.9 1.60 ms") == (width < 50), "{text}");
            assert_eq!(text.contains(BLOCKS[7]), width >= 60, "{text}");
        }
    }

    #[test]
    fn a_plot_rises_to_the_right() {
        let plot = plot(&some_latency().kinds[0].curve, PLOT_WIDTH);
        let rows: Vec<&str> = plot.lines().take(PLOT_HEIGHT).map(|line| &line[10..]).collect();
        let of = |column: usize| rows.iter().position(|row| row.as_bytes().get(column) == Some(&b'*'));
        let heights: Vec<_> = (0..PLOT_WIDTH).map(|column| of(column).expect("a point")).collect();
        assert!(heights.is_sorted_by(|left, right| left >= right), "{plot}");
    }

    #[test]
    fn one_request_is_drawn_as_well() {
        let only = Duration::from_micros(7);
        assert!(plot(&[(0.0, only), (1.0, only)], PLOT_WIDTH).contains('*'));
        assert_eq!(plot(&[], PLOT_WIDTH), "");
        assert!(parse_time("2m").is_err() && parse_time("0s").is_err() && parse_time("30s").is_ok());
    }
}
