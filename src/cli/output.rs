//! What a command prints on standard output: text for people, JSON for programs. And whether the standard streams are
//! there at all.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, Write};

use anstream::stream::RawStream;
use anstyle::{AnsiColor, Style};
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement};
use serde::Serialize;

use crate::cli::error::CommandError;
use crate::runtime::host::{self, StandardStream};

/// `-o`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object, or one a line.
    Json,
}

/// Between two columns.
const GAP: u16 = 2;
const HEADER: Style = Style::new().bold();
/// What says that something went wrong.
pub const ERROR: Style = AnsiColor::Red.on_default().bold();

/// A table with aligned columns.
pub struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

/// How many cells a line of standard output has; `None` where it is no terminal, and a line has as many as there are.
pub fn terminal_width() -> Option<usize> {
    let (terminal_size::Width(width), _) = terminal_size::terminal_size_of(io::stdout())?;
    Some(usize::from(width).max(1))
}

/// Whether there is a standard output to print to; to be asked before anything is done.
pub fn check_output() -> Result<(), CommandError> {
    if host::is_unusable(StandardStream::Output) {
        return Err(CommandError::failed(
            "cannot write to standard output: it is closed; nothing was done. Send it to /dev/null if it does not matter",
        ));
    }
    Ok(())
}

/// Whether there is a standard input to read from: one that is closed would look like an empty one.
pub fn check_input() -> Result<(), CommandError> {
    if host::is_unusable(StandardStream::Input) {
        return Err(CommandError::failed("cannot read standard input: it is closed; nothing was sent"));
    }
    Ok(())
}

/// Writes a result in the format asked for.
pub fn print<T: Serialize>(
    format: OutputFormat,
    value: &T,
    text: impl FnOnce(&T) -> String,
) -> Result<(), CommandError> {
    print_text(&match format {
        OutputFormat::Text => text(value),
        OutputFormat::Json => to_json(value),
    })
}

/// Writes whole lines: the last one's newline is added where it is missing.
pub fn print_text(text: &str) -> Result<(), CommandError> {
    let newline = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    let mut output = io::stdout().lock();
    let written = output.write_all(text.as_bytes()).and_then(|()| output.write_all(newline.as_bytes()));
    written.and_then(|()| output.flush()).map_err(CommandError::output)
}

/// Text in which nothing moves the cursor or colours what follows: a terminal obeys whoever wrote it. Lines and tabs stay. What is
/// escaped is written as in JSON, so that it means the same there.
pub fn without_controls(text: &str) -> Cow<'_, str> {
    escape(text, |character| character.is_control() && !matches!(character, '\n' | '\t'))
}

/// The same where a field a line is shown: lines that follow are set in, and none of them looks like a field.
pub fn set_in(text: &str, columns: usize) -> String {
    without_controls(text).replace('\n', &format!("\n{:columns$}", ""))
}

/// The same, on one line.
pub fn on_one_line(text: &str) -> Cow<'_, str> {
    escape(text, char::is_control)
}

fn escape(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match is_escaped(character) {
            true => escaped += &format!("\\u{:04x}", u32::from(character)),
            false => escaped.push(character),
        }
    }
    Cow::Owned(escaped)
}

/// A value of our own types as one line of JSON. Control characters that JSON leaves as they are, of which some terminals obey one,
/// are escaped as the others: they only stand in texts, and mean the same.
pub fn to_json<T: Serialize>(value: &T) -> String {
    let text =
        serde_json::to_string(value).expect("our own types have string keys and no failing serializers");
    let escaped = match escape(&text, char::is_control) {
        Cow::Borrowed(_) => None,
        Cow::Owned(escaped) => Some(escaped),
    };
    escaped.unwrap_or(text)
}

/// A sentence on standard error beside what a command does, on one line: a server's words may be in it.
pub fn warn(sentence: impl Display) {
    tell(format_args!("turbopump: {}", on_one_line(&sentence.to_string())));
}

/// A line on standard error, written at once. That it cannot be written ends nothing: there is nobody to hear of it.
pub fn tell(line: impl Display) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

impl Table {
    pub fn new<const COLUMNS: usize>(header: [&'static str; COLUMNS]) -> Self {
        Self { header: header.to_vec(), rows: Vec::new() }
    }

    /// A row of cells, whose line ends and control characters are shown as such.
    pub fn row<const COLUMNS: usize>(&mut self, cells: [String; COLUMNS]) {
        assert_eq!(cells.len(), self.header.len(), "a row has a cell for every column");
        self.rows.push(cells.iter().map(|cell| on_one_line(cell).into_owned()).collect());
    }

    /// Header and rows, columns two spaces apart, in lines that the terminal has room for: cells that do not fit go on in the next
    /// line. A column that holds numbers only is aligned to the right, and not broken.
    pub fn render(&self) -> String {
        let text = self.fitted(terminal_width());
        match text.split_once('\n') {
            Some((header, rows)) => format!("{}\n{rows}", styled(&io::stdout(), HEADER, header)),
            None => text,
        }
    }

    fn fitted(&self, width: Option<usize>) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(NOTHING).set_header(self.header.clone());
        table.add_rows(self.rows.iter());
        if let Some(width) = width {
            // The last column's gap is cut off.
            table.set_width(u16::try_from(width + usize::from(GAP)).unwrap_or(u16::MAX));
            table.set_content_arrangement(ContentArrangement::Dynamic);
        }
        let cells = |column: usize| self.rows.iter().map(move |row| row[column].as_str());
        for (number, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, GAP));
            if cells(number).all(is_numeric) {
                column.set_cell_alignment(CellAlignment::Right);
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }
}

/// With a style, where the stream goes to a terminal that has colours, and `NO_COLOR` does not say otherwise.
pub fn styled(stream: &impl RawStream, style: Style, text: &str) -> String {
    match anstream::AutoStream::choice(stream) {
        anstream::ColorChoice::Never => text.to_owned(),
        _ => format!("{style}{text}{style:#}"),
    }
}

fn is_numeric(cell: &str) -> bool {
    cell == "-" || cell.starts_with(|character: char| character.is_ascii_digit())
}

/// `1234567` as `1,234,567`.
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes for people, three significant digits: `1.23 GB`.
pub fn bytes_for_people(bytes: f64) -> String {
    let (value, unit) = match bytes {
        bytes if bytes >= 1e12 => (bytes / 1e12, "TB"),
        bytes if bytes >= 1e9 => (bytes / 1e9, "GB"),
        bytes if bytes >= 1e6 => (bytes / 1e6, "MB"),
        bytes if bytes >= 1e3 => (bytes / 1e3, "kB"),
        _ => return format!("{bytes:.0} B"),
    };
    format!("{} {unit}", three_digits(value))
}

/// So many a second, for people: `0.25`, `12.3`, `1,234`, `1.23 M`.
pub fn rate_for_people(rate: f64) -> String {
    match rate {
        rate if rate >= 999_999.5 => format!("{} M", three_digits(rate / 1e6)),
        rate if rate >= 999.5 => grouped(rate.round() as u64),
        rate if rate >= 0.005 => three_digits(rate),
        _ => "0".to_owned(),
    }
}

/// An age in milliseconds for people, the largest two of its units: `3d 4h`, `12m 30s`, `1.5s`.
pub fn age_for_people(milliseconds: f64) -> String {
    let seconds = (milliseconds / 1e3) as u64;
    let two = |larger: u64, unit: &str, smaller: u64, of: &str| match smaller {
        0 => format!("{larger}{unit}"),
        smaller => format!("{larger}{unit} {smaller}{of}"),
    };
    match seconds {
        seconds if seconds >= 86_400 => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
        seconds if seconds >= 3_600 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "m"),
        seconds if seconds >= 60 => two(seconds / 60, "m", seconds % 60, "s"),
        seconds if seconds >= 10 => format!("{seconds}s"),
        _ => format!("{:.1}s", milliseconds / 1e3),
    }
}

/// Nanoseconds for people, three significant digits: `1.23 ms`.
pub fn nanoseconds_for_people(nanoseconds: f64) -> String {
    let (value, unit) = match nanoseconds {
        nanoseconds if nanoseconds >= 1e9 => (nanoseconds / 1e9, "s"),
        nanoseconds if nanoseconds >= 1e6 => (nanoseconds / 1e6, "ms"),
        nanoseconds if nanoseconds >= 1e3 => (nanoseconds / 1e3, "us"),
        _ => (nanoseconds, "ns"),
    };
    format!("{} {unit}", three_digits(value))
}

fn three_digits(value: f64) -> String {
    match value {
        value if value >= 99.95 => format!("{value:.0}"),
        value if value >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(["TOPIC", "QUEUES", "LEVEL"]);
        table.row(["orders".into(), "4".into(), "durable".into()]);
        table.row(["x".into(), "10000".into(), "-".into()]);
        assert_eq!(table.fitted(None), "TOPIC   QUEUES  LEVEL\norders       4  durable\nx        10000  -\n");
    }

    #[test]
    fn a_table_fits_the_terminal() {
        let mut table = Table::new(["GROUP", "LAG", "STATE"]);
        table.row(["billing".into(), "1,234,567".into(), "two of its members have not been heard of".into()]);
        let text = table.fitted(Some(40));
        assert!(text.lines().all(|line| line.len() <= 40), "{text}");
        assert!(text.contains("1,234,567") && text.lines().count() > 2, "{text}");
        assert_eq!(table.fitted(None).lines().count(), 2);
        assert_eq!(table.fitted(Some(200)), table.fitted(None));
        table.row(["a\nb".into(), "1".into(), "\u{1b}[2J".into()]);
        assert!(table.fitted(None).contains("a\\u000ab") && !table.fitted(None).contains('\u{1b}'));
    }

    #[test]
    fn a_terminal_is_told_nothing() {
        assert_eq!(without_controls("a\tb\n"), "a\tb\n");
        assert_eq!(
            without_controls("\u{1b}[2J\r\u{9b}0m\u{7f}\u{e9}"),
            "\\u001b[2J\\u000d\\u009b0m\\u007f\u{e9}"
        );
        assert_eq!(on_one_line("a\nb"), "a\\u000ab");
        assert_eq!(set_in("a\nid  1\u{1b}", 3), "a\n   id  1\\u001b");
        assert_eq!(to_json(&"\u{7f}\u{9b}2J\u{e9}\n"), "\"\\u007f\\u009b2J\u{e9}\\n\"");
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(
            ["0", "999", "1,000", "12,345,678"],
            [0, 999, 1000, 12_345_678].map(grouped).each_ref().map(|s| s.as_str())
        );
        assert_eq!(bytes_for_people(1_234_567_890.0), "1.23 GB");
        assert_eq!(bytes_for_people(512.0), "512 B");
        assert_eq!(nanoseconds_for_people(45_600.0), "45.6 us");
        assert_eq!(nanoseconds_for_people(999.0), "999 ns");
        assert_eq!(
            [0.0, 0.25, 12.34, 1_234.4, 12_345_678.0].map(rate_for_people),
            ["0", "0.25", "12.3", "1,234", "12.3 M"]
        );
        assert_eq!(
            [0.0, 1_540.0, 59_000.0, 60_000.0, 750_000.0, 3.6e6, 2.7e8].map(age_for_people),
            ["0.0s", "1.5s", "59s", "1m", "12m 30s", "1h", "3d 3h"]
        );
    }
}
