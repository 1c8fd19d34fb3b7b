//! Places in a queue as people name them: `first`, `last`, an offset, or a time.

use std::str::FromStr;
use std::time::Duration;

use crate::api::OffsetPlace;
use crate::cli::calendar::parse_timestamp;
use crate::cli::quantity::Span;
use crate::types::{QueueOffset, Timestamp};

/// Help for arguments of this type.
pub const PLACE_HELP: &str = "A place is first, last (behind the newest message), an offset (a plain number), or a \
time: 2024-05-06T07:08:09Z, 2024-05-06, @1700000000000 (milliseconds since 1970), or -10m (before now)";

/// Where to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    First,
    Last,
    Offset(QueueOffset),
    At(Timestamp),
    /// This long before now, by the broker's clock.
    Ago(Duration),
}

/// A text that names no place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no place: use first, last, an offset, or a time like 2024-05-06T07:08:09Z, @1700000000000 or -10m"
)]
pub struct PlaceError(String);

/// A place as it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SentPlace {
    Offset(QueueOffset),
    /// The broker translates it into an offset.
    Asked(OffsetPlace),
}

impl Place {
    /// No clock of this machine is asked: the messages' times are those of the broker's.
    pub fn sent(self) -> SentPlace {
        match self {
            Place::First => SentPlace::Asked(OffsetPlace::First),
            Place::Last => SentPlace::Asked(OffsetPlace::Last),
            Place::Offset(offset) => SentPlace::Offset(offset),
            Place::At(time) => SentPlace::Asked(OffsetPlace::Time(time)),
            Place::Ago(span) => SentPlace::Asked(OffsetPlace::Ago(span)),
        }
    }
}

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        let refused = || PlaceError(text.to_owned());
        let number = |digits: &str| {
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| digits.parse::<u64>().ok()).flatten()
        };
        if let Some(millis) = text.strip_prefix('@') {
            return number(millis).map(|millis| Place::At(Timestamp(millis))).ok_or_else(refused);
        }
        if let Some(span) = text.strip_prefix('-') {
            return span.parse().map(|Span(span)| Place::Ago(span)).map_err(|_| refused());
        }
        match text {
            "first" => Ok(Place::First),
            "last" => Ok(Place::Last),
            _ => match number(text) {
                Some(offset) => Ok(Place::Offset(QueueOffset(offset))),
                None => parse_timestamp(text).map(Place::At).ok_or_else(refused),
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
            ("first", Place::First),
            ("last", Place::Last),
            ("0", Place::Offset(QueueOffset(0))),
            ("1700000000000", Place::Offset(QueueOffset(1_700_000_000_000))),
            ("@1700000000000", Place::At(Timestamp(1_700_000_000_000))),
            ("2023-11-14T22:13:20Z", Place::At(Timestamp(1_700_000_000_000))),
            ("2023-11-14", Place::At(Timestamp(1_699_920_000_000))),
            ("-10m", Place::Ago(Duration::from_secs(600))),
            ("-1h30m", Place::Ago(Duration::from_secs(5400))),
        ];
        for (text, place) in cases {
            assert_eq!(text.parse(), Ok(place), "{text}");
        }
        for text in ["", "newest", "-5", "@", "@x", "@-1", "+1", "1.5", "-", "18446744073709551616"] {
            assert_eq!(text.parse::<Place>(), Err(PlaceError(text.into())), "{text}");
        }
    }

    #[test]
    fn a_duration_is_sent_as_one() {
        let span = Duration::from_secs(600);
        assert_eq!(Place::Ago(span).sent(), SentPlace::Asked(OffsetPlace::Ago(span)));
        let time = OffsetPlace::Ago(span).fixed(Timestamp(1_000_000));
        assert_eq!(time, OffsetPlace::Time(Timestamp(400_000)));
        let early = OffsetPlace::Ago(span).fixed(Timestamp(1_000));
        assert_eq!(early, OffsetPlace::Time(Timestamp(0)), "not before 1970");
    }
}
