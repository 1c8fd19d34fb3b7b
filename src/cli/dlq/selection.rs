//! Which of a group's dead letters a command is about.

use clap::Args;

use crate::cli::calendar::{now, rfc3339};
use crate::cli::dlq::reading::DeadLetter;
use crate::cli::error::CommandError;
use crate::cli::offset_argument::TimeArgument;
use crate::types::TopicName;

#[derive(Debug, Args)]
pub struct SelectionArguments {
    /// Only messages with this key
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Only messages that came from this topic
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<TopicName>,
    /// Only the message with this id: the one that `dlq list` prints, or its unique id
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// Only what became a dead letter at this time or later, like 2024-05-06T07:08:09Z, or -10m (before now)
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub from: Option<TimeArgument>,
    /// Only what became a dead letter before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub until: Option<TimeArgument>,
}

impl SelectionArguments {
    /// Refuses times between which nothing can lie.
    pub fn check(&self) -> Result<(), CommandError> {
        for (flag, time) in [("--from", self.from), ("--until", self.until)] {
            time.map_or(Ok(()), |time| time.check_past(flag))?;
        }
        let now = now();
        match (self.from.map(|from| from.at(now)), self.until.map(|until| until.at(now))) {
            (Some(from), Some(until)) if from >= until => Err(CommandError::usage(format!(
                "--from is {}, and --until is not after that but {}: no dead letter lies between",
                rfc3339(from),
                rfc3339(until)
            ))),
            _ => Ok(()),
        }
    }

    /// Whether it is one of these. Times are not looked at: the broker has found the offsets of those.
    pub fn wants(&self, letter: &DeadLetter<'_>) -> bool {
        let has_key = |key: &String| {
            let mut keys = letter.message.key().split(|byte| *byte == b' ');
            letter.message.key() == key.as_bytes() || keys.any(|own| own == key.as_bytes())
        };
        let has_id = |id: &String| {
            let unique_id = letter.unique_id().is_some_and(|own| own == id.as_bytes());
            unique_id || letter.id().is_some_and(|own| own.eq_ignore_ascii_case(id))
        };
        self.key.as_ref().is_none_or(has_key)
            && self.id.as_ref().is_none_or(has_id)
            && self.topic.as_ref().is_none_or(|topic| letter.topic() == Some(topic.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_between_which_nothing_lies_are_refused() {
        let check = |from: Option<&str>, until: Option<&str>| {
            let time = |text: Option<&str>| text.map(|text| text.parse().expect("a time"));
            let selection =
                SelectionArguments { key: None, topic: None, id: None, from: time(from), until: time(until) };
            selection.check().map_err(|error| error.exit_code())
        };
        for (from, until) in [
            (None, None),
            (Some("2024-05-06"), Some("2024-05-07")),
            (Some("2024-05-06"), Some("-1h")),
            (Some("-2h"), Some("-1h")),
        ] {
            assert_eq!(check(from, until), Ok(()), "{from:?} {until:?}");
        }
        for (from, until) in [
            (Some("9999-01-01"), None),
            (None, Some("9999-01-01")),
            (Some("2024-05-07"), Some("2024-05-06")),
            (Some("2024-05-06"), Some("2024-05-06")),
            (Some("-1h"), Some("-2h")),
            (Some("-1h"), Some("2024-05-06")),
        ] {
            assert_eq!(check(from, until), Err(2), "{from:?} {until:?}");
        }
    }
}
