//! Latencies by stage and by percentile, as SVG.

use std::path::Path;

use plotters::prelude::*;

use crate::api::{KindLatency, LatencyInfo, RequestStage};
use crate::cli::latency::{nines_of, shown_stages};
use crate::cli::output::{grouped, nanoseconds_for_people, on_one_line};
use crate::cli::plot_axes::{COLORS, FONT, GRID, INK, LatencyAxis, NinesAxis};

const WIDTH: u32 = 1_000;
/// Of the title, and of each kind of requests.
const TITLE_HEIGHT: u32 = 50;
const KIND_HEIGHT: u32 = 620;
const BARS_HEIGHT: u32 = 230;
/// Colours of the stages that are the broker's, in their order: each has its own, whichever others are shown.
const STAGES: [RGBColor; 7] = [
    RGBColor(120, 144, 156),
    RGBColor(141, 110, 99),
    RGBColor(255, 179, 0),
    RGBColor(124, 179, 66),
    RGBColor(239, 108, 0),
    RGBColor(198, 40, 40),
    RGBColor(2, 119, 189),
];

type DrawResult = Result<(), Box<dyn std::error::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// Draws it into a file, or says why not.
pub fn write_svg(path: &Path, title: &str, latency: &LatencyInfo) -> Result<(), String> {
    let mut svg = String::new();
    draw(&mut svg, title, latency)
        .and_then(|()| std::fs::write(path, &svg).map_err(Into::into))
        .map_err(|error| format!("cannot draw {}: {error}", path.display()))
}

fn draw(svg: &mut String, title: &str, latency: &LatencyInfo) -> DrawResult {
    let kinds = u32::try_from(latency.kinds.len().max(1))?;
    let root = SVGBackend::with_string(svg, (WIDTH, TITLE_HEIGHT + kinds * KIND_HEIGHT)).into_drawing_area();
    root.fill(&WHITE)?;
    let (head, mut rest) = root.split_vertically(TITLE_HEIGHT);
    head.titled(title, (FONT, 21).into_font().color(&INK))?;
    if latency.kinds.is_empty() {
        rest.titled("no request was answered meanwhile", (FONT, 17).into_font().color(&INK))?;
    }
    for kind in &latency.kinds {
        let (area, below) = rest.split_vertically(KIND_HEIGHT);
        draw_kind(&area, kind)?;
        rest = below;
    }
    root.present()?;
    Ok(())
}

fn draw_kind(area: &Area<'_>, kind: &KindLatency) -> DrawResult {
    let mean = nanoseconds_for_people(kind.mean.as_nanos() as f64);
    let count = grouped(kind.total.count);
    // XML has no words for control characters, whatever a broker says.
    let named = on_one_line(&kind.kind);
    let title = format!("{} {named}: {count} requests, {mean} on average", kind.protocol.name());
    let body = area.titled(&title, (FONT, 17).into_font().color(&INK))?;
    let (bars, curve) = body.split_vertically(BARS_HEIGHT);
    draw_bars(&bars, kind)?;
    draw_curve(&curve, kind)
}

/// A bar for each stage, as long as its mean.
fn draw_bars(area: &Area<'_>, kind: &KindLatency) -> DrawResult {
    let stages: Vec<_> = shown_stages(kind).collect();
    let longest = stages.iter().map(|(mean, _)| *mean).max().unwrap_or_default();
    let text = (FONT, 14).into_font().color(&INK);
    let (left, right, height) = (90, WIDTH as i32 - 320, 26);
    for (row, (mean, stage)) in (0..).zip(&stages) {
        let top = 12 + row * (height + 4);
        let share = mean.as_secs_f64() / longest.as_secs_f64().max(f64::MIN_POSITIVE);
        let length = (share * f64::from(right - left)) as i32;
        let color = color_of(&stage.stage);
        area.draw(&Rectangle::new([(left, top), (left + length.max(1), top + height)], color.filled()))?;
        area.draw(&Text::new(on_one_line(&stage.stage).into_owned(), (12, top + 6), text.clone()))?;
        let times =
            [mean.as_nanos() as u64, stage.p99_ns, stage.max_ns].map(|ns| nanoseconds_for_people(ns as f64));
        let label = format!("{}, p99 {}, max {}", times[0], times[1], times[2]);
        area.draw(&Text::new(label, (left + length.max(1) + 8, top + 6), text.clone()))?;
    }
    Ok(())
}

fn color_of(stage: &str) -> RGBColor {
    let mut brokers = RequestStage::ALL.into_iter().filter(|stage| stage.is_brokers());
    let at = brokers.position(|of| of.name() == stage).unwrap_or_default();
    STAGES[at % STAGES.len()]
}

fn draw_curve(area: &Area<'_>, kind: &KindLatency) -> DrawResult {
    let nines = nines_of(&kind.curve);
    let ns = |time: &std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let lowest = kind.curve.first().map_or(1_000, |(_, time)| ns(time));
    let highest = kind.curve.last().map_or(1_000, |(_, time)| ns(time));
    let whole = (nines - 1e-6).ceil().max(1.0);
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .margin_right(40)
        .x_label_area_size(42)
        .y_label_area_size(78)
        .build_cartesian_2d(NinesAxis::new(whole as usize), LatencyAxis::new(lowest, highest))?;
    chart
        .configure_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .label_style((FONT, 14).into_font().color(&INK))
        .x_labels(whole as usize + 1)
        .x_desc("share of all requests that were at least as fast")
        .draw()?;
    let x_of = |share: f64| if share >= 1.0 { whole } else { (-(1.0 - share).log10()).min(whole) };
    let line = kind.curve.iter().map(|(share, time)| (x_of(*share), (ns(time).max(1) as f64).log10()));
    chart.draw_series(LineSeries::new(line, COLORS[0].stroke_width(3)))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::cli::latency::tests::some_latency;

    #[test]
    fn bars_and_curve_are_labelled() {
        let mut svg = String::new();
        draw(&mut svg, "orders", &some_latency()).expect("drawing into memory");
        for label in
            ["orders", "http publish: 1,000 requests", "flush", "append", "p99 320 us", "99.9 %", "1 ms"]
        {
            assert!(svg.contains(label), "{label} is missing");
        }
        let mut empty = String::new();
        draw(&mut empty, "orders", &LatencyInfo::default()).expect("drawing into memory");
        assert!(empty.contains("no request"));
    }

    #[test]
    fn each_stage_has_a_colour_of_its_own() {
        let brokers = RequestStage::ALL.into_iter().filter(|stage| stage.is_brokers());
        let colors: HashSet<_> = brokers.map(|stage| color_of(stage.name()).rgb()).collect();
        assert_eq!(colors.len(), STAGES.len());
    }

    #[test]
    fn long_times_and_odd_words_are_drawn() {
        let mut latency = some_latency();
        let kind = &mut latency.kinds[0];
        kind.kind = "<pub\u{1b}[2J&lish>".to_owned();
        for (mean, stage) in &mut kind.stages {
            *mean *= 1_000_000;
            stage.stage.push('\u{7}');
        }
        let mut svg = String::new();
        draw(&mut svg, "orders", &latency).expect("drawing into memory");
        assert!(svg.contains("&lt;pub\\u001b[2J&amp;lish&gt;"), "{svg}");
        assert!(!svg.contains(|character: char| character.is_control() && character != '\n'), "{svg:?}");
        let widths = svg
            .split("<rect ")
            .skip(1)
            .filter_map(|rect| rect.split("width=\"").nth(1)?.split('"').next()?.parse::<u32>().ok());
        assert_eq!(widths.filter(|width| *width > WIDTH).count(), 0, "{svg}");
    }
}
