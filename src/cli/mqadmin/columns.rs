//! Names, times and releases as `mqadmin` prints them, times in UTC; and all of it without what a terminal would obey, since peers
//! have written it.

use std::borrow::Cow;

use serde::Serialize;

use crate::cli::calendar::Moment;
use crate::cli::error::CommandError;
use crate::cli::output::{self, OutputFormat, on_one_line, to_json, without_controls};
use crate::types::Timestamp;

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

/// Writes whole lines.
pub fn print_text(text: &str) -> Result<(), CommandError> {
    output::print_text(&without_controls(text))
}

/// The first `width` characters: longer names would move the columns, and line ends make rows.
pub fn cut(text: &str, width: usize) -> Cow<'_, str> {
    on_one_line(text.char_indices().nth(width).map_or(text, |(end, _)| &text[..end]))
}

/// `2026-11-30 14:03:05,123`.
pub fn time(milliseconds: i64) -> String {
    let moment = Moment::of(timestamp(milliseconds));
    format!("{},{:03}", second_of(&moment), moment.millisecond)
}

/// `2026-11-30 14:03:05`.
pub fn second(milliseconds: i64) -> String {
    second_of(&Moment::of(timestamp(milliseconds)))
}

fn timestamp(milliseconds: i64) -> Timestamp {
    Timestamp(u64::try_from(milliseconds).unwrap_or(0))
}

fn second_of(moment: &Moment) -> String {
    let Moment { year, month, day, hour, minute, second, .. } = moment;
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_rocketmqs_tools_tell_them() {
        assert_eq!(time(1_700_000_000_009), "2023-11-14 22:13:20,009");
        assert_eq!(
            (second(951_825_600_000), second(-1)),
            ("2000-02-29 12:00:00".into(), "1970-01-01 00:00:00".into())
        );
        assert_eq!(
            (cut("orders", 3), cut("orders", 6), cut("\u{e9}\u{e9}", 1)),
            ("ord".into(), "orders".into(), "\u{e9}".into())
        );
        assert_eq!(cut("a\nb", 3), "a\\u000ab");
    }
}
