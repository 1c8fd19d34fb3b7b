//! The latency plot of a run, as SVG: the percentile curve, and latency and throughput second by second.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::cli::bench::histogram::Latencies;
use crate::cli::output::nanoseconds_for_people;
use crate::cli::plot_axes::{COLORS, FONT, GRID, INK, LatencyAxis, NinesAxis};

const SIZE: (u32, u32) = (1000, 900);

/// One second of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// From the start of the run to the interval's end.
    pub seconds: f64,
    pub messages_per_second: f64,
    pub p50_ns: u64,
    pub p99_ns: u64,
    pub max_ns: u64,
}

/// What a plot shows.
pub struct PlotData<'a> {
    pub title: String,
    pub subtitle: String,
    pub latencies: &'a Latencies,
    pub intervals: &'a [Interval],
}

/// Why a plot could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw {path}: {reason}")]
pub struct PlotError {
    path: String,
    reason: String,
}

type DrawResult = Result<(), Box<dyn std::error::Error>>;

/// Draws the plot into a file.
pub fn write_plot(path: &Path, data: &PlotData<'_>) -> Result<(), PlotError> {
    let mut svg = String::new();
    draw(&mut svg, data)
        .and_then(|()| std::fs::write(path, &svg).map_err(Into::into))
        .map_err(|error| PlotError { path: path.display().to_string(), reason: error.to_string() })
}

fn draw(svg: &mut String, data: &PlotData<'_>) -> DrawResult {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let body = root.titled(&data.title, (FONT, 21).into_font().color(&INK))?;
    let body = body.titled(&data.subtitle, (FONT, 15).into_font().color(&INK))?;
    let (curve, below) = body.split_vertically(430);
    let (timeline, throughput) = below.split_vertically(230);
    draw_curve(&curve, data.latencies)?;
    draw_timeline(&timeline, data.intervals)?;
    draw_throughput(&throughput, data.intervals)?;
    root.present()?;
    Ok(())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn draw_curve(area: &Area<'_>, latencies: &Latencies) -> DrawResult {
    let points = latencies.curve();
    let highest = latencies.max_ns().max(1000);
    // As many nines as there are samples for.
    let nines = (latencies.summary().count.max(10) as f64).log10().floor().clamp(1.0, 8.0);
    let x_of = |share: f64| if share >= 1.0 { nines } else { (-(1.0 - share).log10()).min(nines) };
    let lowest = points.first().map_or(1000, |point| point.1);
    let mut chart = ChartBuilder::on(area)
        .caption("Latency by percentile", (FONT, 17).into_font().color(&INK))
        .margin(12)
        .margin_right(40)
        .x_label_area_size(42)
        .y_label_area_size(78)
        .build_cartesian_2d(NinesAxis::new(nines as usize), LatencyAxis::new(lowest, highest))?;
    chart
        .configure_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .label_style((FONT, 14).into_font().color(&INK))
        .x_labels(nines as usize + 1)
        .x_desc("share of all messages that were at least as fast")
        .draw()?;
    let line = points.iter().map(|&(share, value)| (x_of(share), (value.max(1) as f64).log10()));
    chart.draw_series(LineSeries::new(line, COLORS[0].stroke_width(3)))?;
    for share in [0.5, 0.99, 0.999, 0.9999] {
        if x_of(share) > nines - 0.001 {
            continue;
        }
        let value = latencies.at_quantile(share);
        let label = format!("{} {}", percentile_name(share), nanoseconds_for_people(value as f64));
        let place = (x_of(share), (value.max(1) as f64).log10());
        // The curve rises to the right, so there is room above to the left, or below to the right at the left end.
        let (side, offset) = if share > 0.5 {
            (Pos::new(HPos::Right, VPos::Bottom), (-4, -8))
        } else {
            (Pos::new(HPos::Left, VPos::Top), (4, 8))
        };
        let style = (FONT, 14).into_font().color(&INK).pos(side);
        let element = EmptyElement::at(place)
            + Circle::new((0, 0), 4, COLORS[0].filled())
            + Text::new(label, offset, style);
        chart.draw_series(std::iter::once(element))?;
    }
    Ok(())
}

fn draw_timeline(area: &Area<'_>, intervals: &[Interval]) -> DrawResult {
    let last = intervals.last().map_or(1.0, |interval| interval.seconds);
    let lowest = intervals.iter().map(|interval| interval.p50_ns).min().unwrap_or(1000);
    let highest = intervals.iter().map(|interval| interval.max_ns).max().unwrap_or(1000);
    let mut chart = ChartBuilder::on(area)
        .caption("Latency, second by second", (FONT, 17).into_font().color(&INK))
        .margin(12)
        .margin_right(40)
        .x_label_area_size(24)
        .y_label_area_size(78)
        .build_cartesian_2d(0.0..last, LatencyAxis::new(lowest, highest))?;
    chart
        .configure_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .label_style((FONT, 14).into_font().color(&INK))
        .x_label_formatter(&|x| seconds_label(*x, last))
        .draw()?;
    type Pick = fn(&Interval) -> u64;
    let series: [(&str, Pick); 3] = [("p50", |i| i.p50_ns), ("p99", |i| i.p99_ns), ("max", |i| i.max_ns)];
    for (index, (name, pick)) in series.into_iter().enumerate() {
        let color = COLORS[index];
        let line = steps(intervals, |interval| (pick(interval).max(1) as f64).log10());
        chart
            .draw_series(LineSeries::new(line, color.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(3)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .border_style(GRID)
        .label_font((FONT, 14).into_font().color(&INK))
        .draw()?;
    Ok(())
}

fn draw_throughput(area: &Area<'_>, intervals: &[Interval]) -> DrawResult {
    let last = intervals.last().map_or(1.0, |interval| interval.seconds);
    let highest = intervals.iter().map(|interval| interval.messages_per_second).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption("Messages per second", (FONT, 17).into_font().color(&INK))
        .margin(12)
        .margin_right(40)
        .x_label_area_size(24)
        .y_label_area_size(78)
        .build_cartesian_2d(0.0..last, 0.0..highest * 1.1)?;
    chart
        .configure_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .label_style((FONT, 14).into_font().color(&INK))
        .y_labels(5)
        .x_label_formatter(&|x| seconds_label(*x, last))
        .y_label_formatter(&|y| count_label(*y))
        .draw()?;
    let line = steps(intervals, |interval| interval.messages_per_second);
    chart.draw_series(LineSeries::new(line, COLORS[0].stroke_width(2)))?;
    Ok(())
}

/// A line that stays level for the length of each interval.
fn steps(intervals: &[Interval], value: impl Fn(&Interval) -> f64) -> Vec<(f64, f64)> {
    let starts = std::iter::once(0.0).chain(intervals.iter().map(|interval| interval.seconds));
    starts
        .zip(intervals)
        .flat_map(|(start, interval)| [(start, value(interval)), (interval.seconds, value(interval))])
        .collect()
}

fn percentile_name(share: f64) -> String {
    format!("p{}", (share * 1_000_000.0).round() / 10_000.0)
}

/// Short runs need decimals for their labels to differ.
fn seconds_label(seconds: f64, last: f64) -> String {
    if last < 10.0 { format!("{seconds:.1} s") } else { format!("{seconds:.0} s") }
}

fn count_label(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.1} M", value / 1e6),
        value if value >= 1e3 => format!("{:.0} k", value / 1e3),
        value => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn svg(latencies: &Latencies, intervals: &[Interval]) -> String {
        let mut svg = String::new();
        let data = PlotData { title: "title".into(), subtitle: "subtitle".into(), latencies, intervals };
        draw(&mut svg, &data).expect("drawing into memory");
        svg
    }

    #[test]
    fn axes_are_labelled_for_people() {
        let mut latencies = Latencies::default();
        (0..100_000_u64).for_each(|index| latencies.record(200_000 + index * index / 2000, 1));
        let interval = |second: u64| Interval {
            seconds: second as f64,
            messages_per_second: 1_000_000.0 + second as f64 * 20_000.0,
            p50_ns: 400_000,
            p99_ns: 2_000_000,
            max_ns: 30_000_000,
        };
        let svg = svg(&latencies, &(1..=10).map(interval).collect::<Vec<_>>());
        for label in [
            "0 %",
            "90 %",
            "99.9 %",
            "99.99 %",
            "100 us",
            "1 ms",
            "10 s",
            "p99 ",
            "p99.9 ",
            "Messages per second",
        ] {
            assert!(svg.contains(label), "{label} is missing");
        }
    }

    #[test]
    fn an_empty_run_draws_too() {
        assert!(svg(&Latencies::default(), &[]).contains("Latency by percentile"));
    }
}
