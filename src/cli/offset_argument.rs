//! Offsets of a queue as people name them: `first`, `last`, an offset, or a time.

use std::str::FromStr;
use std::time::Duration;

use crate::api::OffsetSpec;
use crate::cli::calendar::{now, parse_timestamp, rfc3339};
use crate::cli::error::CommandError;
use crate::cli::quantity::Span;
use crate::types::{QueueOffset, Timestamp};

/// How far ahead of this machine's clock another one, that a time was read from, may be.
const CLOCKS_APART_MS_MAX: u64 = 60_000;

/// Help for arguments of this type.
pub const OFFSET_HELP: &str = "An offset is first, last (after the newest message), a plain number, or a \
time: 2024-05-06T07:08:09Z, 2024-05-06, @1700000000000 (milliseconds since 1970), or -10m (before now)";

/// Where to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetArgument {
    First,
    Last,
    Offset(QueueOffset),
    At(Timestamp),
    /// This long before now, by the broker's clock.
    Ago(Duration),
}

/// A point in time, as one of the ways to name an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeArgument {
    At(Timestamp),
    /// This long before now, by the broker's clock.
    Ago(Duration),
}

/// A text that names no point in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no time: use one like 2024-05-06T07:08:09Z, 2024-05-06, @1700000000000 or -10m")]
pub struct TimeArgumentError(String);

impl TimeArgument {
    /// The first offset stored then or later.
    pub fn spec(self) -> OffsetSpec {
        match self {
            TimeArgument::At(time) => OffsetSpec::Time(time),
            TimeArgument::Ago(span) => OffsetSpec::Ago(span),
        }
    }

    /// Refuses a time of which no message can be yet.
    pub fn check_past(self, flag: &str) -> Result<(), CommandError> {
        match self {
            TimeArgument::At(time) => check_past(flag, time),
            TimeArgument::Ago(_) => Ok(()),
        }
    }

    /// As a time, where that is `now`.
    pub fn at(self, now: Timestamp) -> Timestamp {
        match self {
            TimeArgument::At(time) => time,
            TimeArgument::Ago(span) => {
                Timestamp(now.0.saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
            }
        }
    }
}

impl FromStr for TimeArgument {
    type Err = TimeArgumentError;

    fn from_str(text: &str) -> Result<Self, TimeArgumentError> {
        match text.parse() {
            Ok(OffsetArgument::At(time)) => Ok(TimeArgument::At(time)),
            Ok(OffsetArgument::Ago(span)) => Ok(TimeArgument::Ago(span)),
            Ok(OffsetArgument::First | OffsetArgument::Last | OffsetArgument::Offset(_)) | Err(_) => {
                Err(TimeArgumentError(text.to_owned()))
            }
        }
    }
}

/// A text that names no offset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no offset: use first, last, a number, or a time like 2024-05-06T07:08:09Z, @1700000000000 or -10m"
)]
pub struct OffsetArgumentError(String);

/// An offset as it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SentOffsetSpec {
    Offset(QueueOffset),
    /// The broker translates it into an offset.
    Asked(OffsetSpec),
}

impl OffsetArgument {
    /// No clock of this machine is asked: the messages' times are those of the broker's.
    pub fn sent(self) -> SentOffsetSpec {
        match self {
            OffsetArgument::First => SentOffsetSpec::Asked(OffsetSpec::First),
            OffsetArgument::Last => SentOffsetSpec::Asked(OffsetSpec::Last),
            OffsetArgument::Offset(offset) => SentOffsetSpec::Offset(offset),
            OffsetArgument::At(time) => SentOffsetSpec::Asked(OffsetSpec::Time(time)),
            OffsetArgument::Ago(span) => SentOffsetSpec::Asked(OffsetSpec::Ago(span)),
        }
    }

    /// Refuses a time of which no message can be yet.
    pub fn check_past(self, flag: &str) -> Result<(), CommandError> {
        match self {
            OffsetArgument::At(time) => check_past(flag, time),
            _ => Ok(()),
        }
    }
}

/// Refuses a time of which no message can be yet. Where one was meant that has passed, as in another zone, all messages would be taken
/// for older than it.
pub fn check_past(flag: &str, time: Timestamp) -> Result<(), CommandError> {
    if time.0 <= now().0.saturating_add(CLOCKS_APART_MS_MAX) {
        return Ok(());
    }
    Err(CommandError::usage(format!(
        "{flag} is {}, which is in the future: no message was stored then or later. A time without a zone is UTC, and -10m is ten \
         minutes ago",
        rfc3339(time)
    )))
}

impl FromStr for OffsetArgument {
    type Err = OffsetArgumentError;

    fn from_str(text: &str) -> Result<Self, OffsetArgumentError> {
        let refused = || OffsetArgumentError(text.to_owned());
        let number = |digits: &str| {
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| digits.parse::<u64>().ok()).flatten()
        };
        if let Some(millis) = text.strip_prefix('@') {
            return number(millis).map(|millis| OffsetArgument::At(Timestamp(millis))).ok_or_else(refused);
        }
        if let Some(span) = text.strip_prefix('-') {
            return span.parse().map(|Span(span)| OffsetArgument::Ago(span)).map_err(|_| refused());
        }
        match text {
            "first" => Ok(OffsetArgument::First),
            "last" => Ok(OffsetArgument::Last),
            _ => match number(text) {
                Some(offset) => Ok(OffsetArgument::Offset(QueueOffset(offset))),
                None => parse_timestamp(text).map(OffsetArgument::At).ok_or_else(refused),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_told_apart() {
        let cases = [
            ("first", OffsetArgument::First),
            ("last", OffsetArgument::Last),
            ("0", OffsetArgument::Offset(QueueOffset(0))),
            ("1700000000000", OffsetArgument::Offset(QueueOffset(1_700_000_000_000))),
            ("@1700000000000", OffsetArgument::At(Timestamp(1_700_000_000_000))),
            ("2023-11-14T22:13:20Z", OffsetArgument::At(Timestamp(1_700_000_000_000))),
            ("2023-11-14", OffsetArgument::At(Timestamp(1_699_920_000_000))),
            ("-10m", OffsetArgument::Ago(Duration::from_secs(600))),
            ("-1h30m", OffsetArgument::Ago(Duration::from_secs(5400))),
        ];
        for (text, spec) in cases {
            assert_eq!(text.parse(), Ok(spec), "{text}");
        }
        for text in ["", "newest", "-5", "@", "@x", "@-1", "+1", "1.5", "-", "18446744073709551616"] {
            assert_eq!(text.parse::<OffsetArgument>(), Err(OffsetArgumentError(text.into())), "{text}");
        }
    }

    #[test]
    fn a_time_is_no_offset() {
        assert_eq!("2023-11-14".parse(), Ok(TimeArgument::At(Timestamp(1_699_920_000_000))));
        assert_eq!("-10m".parse(), Ok(TimeArgument::Ago(Duration::from_secs(600))));
        for text in ["first", "last", "17", "", "soon"] {
            assert_eq!(text.parse::<TimeArgument>(), Err(TimeArgumentError(text.into())), "{text}");
        }
    }

    #[test]
    fn a_duration_is_sent_as_one() {
        let span = Duration::from_secs(600);
        assert_eq!(OffsetArgument::Ago(span).sent(), SentOffsetSpec::Asked(OffsetSpec::Ago(span)));
        let time = OffsetSpec::Ago(span).fixed(Timestamp(1_000_000));
        assert_eq!(time, OffsetSpec::Time(Timestamp(400_000)));
        let early = OffsetSpec::Ago(span).fixed(Timestamp(1_000));
        assert_eq!(early, OffsetSpec::Time(Timestamp(0)), "not before 1970");
    }
}
