//! What `top` draws: lines that are as wide as the screen, however narrow that is.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;
use unicode_width::UnicodeWidthStr;

use super::grid::{Cell, Column, Fit, GAP, shortened};
use super::keys::View;
use super::live::Shown;
use super::picture::{NodeFigures, Picture, ShardFigures};
use crate::cli::output::{age_for_people, bytes_for_people, on_one_line, rate_for_people};

/// A picture that is older than this is not what goes on now.
const OLD_SECONDS: u64 = 10;

const HELP: [&str; 12] = [
    "1 2 3 4, Tab, arrows  topics, groups, shards, members of a group",
    "up, down, PgUp, PgDn  the marked row",
    "Enter                 from a topic to its groups, from a group to its members",
    "Esc                   back",
    "/                     show rows only that have a text in their name",
    "p, space              pause, and go on",
    "r                     reverse the order",
    "q, Ctrl-C             quit",
    "h, ?                  this help, and back",
    "",
    "A letter sorts by its column; the same one again reverses:",
    "",
];

pub fn draw(frame: &mut Frame<'_>, shown: &Shown) {
    let area = frame.area();
    let lines = lines(shown, area);
    frame.render_widget(Paragraph::new(lines), area);
}

/// All lines of the screen.
fn lines(shown: &Shown, area: Rect) -> Vec<Line<'static>> {
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    let styles = Styles { is_coloured: shown.is_coloured };
    let mut lines = head(shown, width, styles);
    lines.push(views(shown, width, styles));
    let room = height.saturating_sub(lines.len() + 1);
    let body = match (&shown.picture, shown.looks.shows_help) {
        (_, true) => help(shown.looks.view.columns(), width),
        (Some(_), false) => rows(shown, width, room, styles),
        (None, false) => vec![Line::from("waiting for the broker's first answer")],
    };
    lines.extend(body.into_iter().take(room));
    lines.resize(height.saturating_sub(1), Line::default());
    lines.push(foot(shown, width, styles));
    lines.truncate(height);
    lines
}

/// Without colours, what stands out does so by being bold or reversed.
#[derive(Clone, Copy)]
struct Styles {
    is_coloured: bool,
}

impl Styles {
    fn coloured(self, color: Color) -> Style {
        if self.is_coloured { Style::new().fg(color) } else { Style::new() }
    }

    fn alarm(self) -> Style {
        self.coloured(Color::Red).add_modifier(Modifier::BOLD)
    }

    fn title(self) -> Style {
        self.coloured(Color::Cyan).add_modifier(Modifier::BOLD)
    }

    fn marked(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }
}

fn head(shown: &Shown, width: usize, styles: Styles) -> Vec<Line<'static>> {
    let node = shown.picture.as_ref().and_then(|picture| picture.node.as_ref());
    let mut first = match node {
        Some(node) => format!("{}, at {}", title(node), shown.server),
        None => format!("turbopump at {}", shown.server),
    };
    if shown.looks.is_paused {
        first = format!("PAUSED  {first}");
    }
    let mut lines = vec![Line::styled(shortened(&first, width), styles.title())];
    let figures = shown.picture.as_ref().map(|picture| figures(picture)).unwrap_or_default();
    lines.push(Line::from(shortened(&figures, width)));
    let alarm = alarm(shown, node);
    lines.push(Line::styled(shortened(&alarm, width), styles.alarm()));
    lines
}

/// The node in two lines, as they are printed; in more where a terminal of `width` columns has no room for that.
pub fn summary(picture: &Picture, width: Option<usize>) -> String {
    let node = picture.node.as_ref().map_or_else(String::new, title);
    format!("{node}\n{}\n", broken(&figures(picture), width.unwrap_or(usize::MAX)))
}

/// Figures are two blanks apart: a line ends between them.
fn broken(figures: &str, width: usize) -> String {
    let mut text = String::new();
    let mut used = 0;
    for figure in figures.split("  ") {
        let length = figure.chars().count();
        if used > 0 && used + 2 + length > width {
            text.push('\n');
            used = 0;
        } else if used > 0 {
            text += "  ";
            used += 2;
        }
        text += figure;
        used += length;
    }
    text
}

fn title(node: &NodeFigures) -> String {
    let uptime =
        node.summary.uptime_ms.map_or_else(String::new, |up| format!(", up {}", age_for_people(up as f64)));
    format!("turbopump {}{uptime}, {}", on_one_line(&node.summary.version), node.summary.level)
}

/// What goes in and out of the whole node, and what room there is.
fn figures(picture: &Picture) -> String {
    let Some(node) = &picture.node else { return String::new() };
    let sum = |rate: fn(&ShardFigures) -> Option<f64>| node.shards.iter().filter_map(rate).sum::<f64>();
    let direction =
        |messages: f64, bytes: f64| format!("{}/s {}/s", rate_for_people(messages), bytes_for_people(bytes));
    let mut text = format!(
        "in {}  out {}",
        direction(sum(|shard| shard.messages_in_per_second), sum(|shard| shard.bytes_in_per_second)),
        direction(sum(|shard| shard.messages_out_per_second), sum(|shard| shard.bytes_out_per_second)),
    );
    if let Some(available) = node.summary.disk_available_bytes {
        text += &format!("  disk {} free", bytes_for_people(available as f64));
    }
    text + &format!(
        "  log {}  memory {}  clients {}",
        bytes_for_people(node.summary.log_bytes as f64),
        bytes_for_people(node.summary.resident_bytes as f64),
        node.summary.connections
    )
}

/// What somebody has to know before everything else; empty when all is well.
fn alarm(shown: &Shown, node: Option<&NodeFigures>) -> String {
    let age = shown.taken.elapsed().as_secs();
    if let Some(reason) = &shown.lost {
        let old =
            if shown.picture.is_some() { format!("; these figures are {age}s old") } else { String::new() };
        return format!("no connection, trying again: {}{old}", on_one_line(reason));
    }
    if shown.picture.is_some() && !shown.looks.is_paused && age >= OLD_SECONDS {
        return format!("the broker has not answered for {age}s");
    }
    let failed = node.into_iter().flat_map(|node| &node.shards).find(|shard| shard.state != "ok");
    failed.map_or_else(String::new, |shard| format!("shard {}: {}", shard.shard, on_one_line(&shard.state)))
}

/// The names of the views, the one that is shown marked.
fn views(shown: &Shown, width: usize, styles: Styles) -> Line<'static> {
    let looks = &shown.looks;
    let mut left = width;
    let mut spans = Vec::new();
    for (number, view) in View::ALL.into_iter().enumerate() {
        let of = match view {
            View::Groups => looks.topic.as_ref().map(|topic| format!(" of {topic}")),
            View::Members => looks.group.as_ref().map(|group| format!(" of {group}")),
            View::Topics | View::Shards => None,
        };
        let name = format!(" {} {}{} ", number + 1, view.name(), of.unwrap_or_default());
        let name = shortened(&name, left.min(40));
        left = left.saturating_sub(name.width());
        spans.push(Span::styled(name, if view == looks.view { styles.marked() } else { Style::new() }));
    }
    Line::from(spans)
}

fn rows(shown: &Shown, width: usize, room: usize, styles: Styles) -> Vec<Line<'static>> {
    let grid = &shown.grid;
    let fit = grid.fit(width);
    let sorting = shown.looks.sorting();
    let mut lines = vec![header(&grid.columns, &fit, sorting.column, styles)];
    if grid.rows.is_empty() {
        lines.push(Line::styled(nothing(shown), styles.dim()));
        return lines;
    }
    let selected = shown.looks.selected().min(grid.rows.len() - 1);
    let visible = room.saturating_sub(1).max(1);
    let first = (selected + 1).saturating_sub(visible);
    for (at, row) in grid.rows.iter().enumerate().skip(first).take(visible) {
        let line = row_line(row, &grid.columns, &fit, styles);
        lines.push(if at == selected { line.style(styles.marked()) } else { line });
    }
    lines
}

fn nothing(shown: &Shown) -> String {
    if !shown.looks.filter.is_empty() {
        return format!("nothing has `{}` in its name", shown.looks.filter);
    }
    match shown.looks.view {
        View::Topics => "no topics: turbopump topic create NAME makes one",
        View::Groups => "no groups",
        View::Shards => "no shards",
        View::Members if shown.looks.group.is_none() => "choose a group: 2, then Enter",
        View::Members => "nobody consumes as this group now",
    }
    .to_owned()
}

fn header(columns: &[Column], fit: &Fit, sorted: usize, styles: Styles) -> Line<'static> {
    let mut spans = Vec::new();
    for (at, width) in &fit.columns {
        let sorted = if *at == sorted { Modifier::UNDERLINED } else { Modifier::empty() };
        push_cell(
            &mut spans,
            &columns[*at],
            *width,
            Span::styled(columns[*at].title, styles.title().add_modifier(sorted)),
        );
    }
    Line::from(spans)
}

fn row_line(row: &[Cell], columns: &[Column], fit: &Fit, styles: Styles) -> Line<'static> {
    let mut spans = Vec::new();
    for (at, width) in &fit.columns {
        let style = if row[*at].is_alarming { styles.alarm() } else { Style::new() };
        push_cell(&mut spans, &columns[*at], *width, Span::styled(shortened(&row[*at].text, *width), style));
    }
    Line::from(spans)
}

/// Adds a cell, after a gap where there is one before it.
fn push_cell(spans: &mut Vec<Span<'static>>, column: &Column, width: usize, cell: Span<'static>) {
    if !spans.is_empty() {
        spans.push(Span::raw(" ".repeat(GAP)));
    }
    let padding = Span::raw(" ".repeat(width.saturating_sub(cell.width())));
    match column.is_numeric {
        true => spans.extend([padding, cell]),
        false => spans.extend([cell, padding]),
    }
}

fn help(columns: &[Column], width: usize) -> Vec<Line<'static>> {
    let keys = columns.iter().map(|column| format!("  {}  {}", column.key, column.title));
    let lines = HELP.into_iter().map(str::to_owned).chain(keys);
    lines.map(|line| Line::from(shortened(&line, width))).collect()
}

fn foot(shown: &Shown, width: usize, styles: Styles) -> Line<'static> {
    let looks = &shown.looks;
    if looks.types_filter {
        return Line::from(shortened(&format!("show only: {}_  (Enter, Esc)", looks.filter), width));
    }
    let filter = match looks.filter.as_str() {
        "" => String::new(),
        filter => format!("only `{filter}`  "),
    };
    let text = format!("{filter}q quit  p pause  ? help  / filter  Enter closer  Esc back  letters sort");
    Line::styled(shortened(&text, width), styles.dim())
}
