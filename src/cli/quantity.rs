//! Sizes, durations and core lists as people write them, on the command line and in the configuration file. Exact: a
//! value that does not fit or that has a fraction of a byte or of a nanosecond is refused, never rounded.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};

/// Bytes: `4096`, `64KiB`, `64MiB`, `1GiB`, or decimal `64kB`, `64MB`, `1GB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A length of time: `500us`, `10ms`, `10s`, `5m`, `72h`, `7d`, and sums like `1h30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// Cores: `0,1`, or ranges like `0-3,6`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreList(pub Vec<usize>);

/// A bound that can be lifted: `none`, or the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrNone<T>(pub Option<T>);

/// Why a text is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("`{0}` is no size: write it like 4096, 64KiB, 64MiB or 1GiB")]
    Size(String),
    #[error("`{0}` is no duration: write it like 500us, 10ms, 10s, 5m, 72h or 1h30m")]
    Span(String),
    #[error("`{0}` is no list of cores: write it like 0,1 or 0-3")]
    Cores(String),
    #[error("`{0}` is too large")]
    TooLarge(String),
    #[error("after `{0}` nobody has read a message: write none to keep them without limit, or 1s and more")]
    NoTime(String),
}

/// Unit and its bytes, largest first within each family, as `Display` picks them.
const SIZE_UNITS: [(&str, u64); 10] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Unit and its nanoseconds, largest first.
const SPAN_UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// More cores than any machine has; a longer range is a slip of the finger, not worth the memory.
const CORES_MAX: usize = 4096;

impl FromStr for ByteSize {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let refused = || QuantityError::Size(text.to_owned());
        let (number, unit) = split_number(text).ok_or_else(refused)?;
        let factor = match unit {
            "" => 1,
            _ => SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(refused)?.1,
        };
        scaled(number, factor).map(ByteSize).map_err(|unfit| unfit.named(text, refused))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = |(_, factor): &&(&str, u64)| self.0 > 0 && self.0.is_multiple_of(*factor);
        match SIZE_UNITS[..4].iter().find(exact) {
            Some((unit, factor)) => write!(formatter, "{}{unit}", self.0 / factor),
            None => write!(formatter, "{}", self.0),
        }
    }
}

impl FromStr for Span {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let refused = || QuantityError::Span(text.to_owned());
        if text == "0" {
            return Ok(Span(Duration::ZERO));
        }
        let (mut rest, mut total, mut last) = (text, 0_u64, u64::MAX);
        while !rest.is_empty() {
            let (number, behind) = split_number(rest).ok_or_else(refused)?;
            let unit_end =
                behind.find(|character: char| !character.is_ascii_alphabetic()).unwrap_or(behind.len());
            let (unit, after) = behind.split_at(unit_end);
            let factor = SPAN_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(refused)?.1;
            // `30m1h` and `1s1s` are slips of the finger.
            if factor >= last {
                return Err(refused());
            }
            let part = scaled(number, factor).map_err(|unfit| unfit.named(text, refused))?;
            total = total.checked_add(part).ok_or_else(|| QuantityError::TooLarge(text.to_owned()))?;
            (rest, last) = (after, factor);
        }
        if last == u64::MAX { Err(refused()) } else { Ok(Span(Duration::from_nanos(total))) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_nanos();
        if rest == 0 {
            return formatter.write_str("0");
        }
        for (unit, factor) in SPAN_UNITS {
            let (count, remainder) = (rest / u128::from(factor), rest % u128::from(factor));
            if count > 0 {
                write!(formatter, "{count}{unit}")?;
            }
            rest = remainder;
        }
        Ok(())
    }
}

impl FromStr for CoreList {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let refused = || QuantityError::Cores(text.to_owned());
        let mut cores = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first: usize = first.trim().parse().map_err(|_| refused())?;
            let last: usize = last.trim().parse().map_err(|_| refused())?;
            if first > last || last >= CORES_MAX {
                return Err(refused());
            }
            cores.extend(first..=last);
        }
        Ok(CoreList(cores))
    }
}

impl<T: FromStr> FromStr for OrNone<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        if text == "none" { Ok(OrNone(None)) } else { text.parse().map(|value| OrNone(Some(value))) }
    }
}

/// A number as written: whole part and decimal places.
#[derive(Clone, Copy)]
struct Decimal<'a> {
    whole: &'a str,
    fraction: &'a str,
}

/// Why a number times its unit is no `u64`.
enum Unfit {
    Fraction,
    TooLarge,
}

impl Unfit {
    fn named(self, text: &str, refused: impl Fn() -> QuantityError) -> QuantityError {
        match self {
            Unfit::Fraction => refused(),
            Unfit::TooLarge => QuantityError::TooLarge(text.to_owned()),
        }
    }
}

/// Cuts digits, and a decimal point with digits, off the front.
fn split_number(text: &str) -> Option<(Decimal<'_>, &str)> {
    let digits = |text: &str| text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (whole, rest) = text.split_at(digits(text));
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(behind) => behind.split_at(digits(behind)),
        None => ("", rest),
    };
    let pointed = text.len() > whole.len() && text.as_bytes()[whole.len()] == b'.';
    if whole.is_empty() || (pointed && fraction.is_empty()) {
        None
    } else {
        Some((Decimal { whole, fraction }, rest))
    }
}

/// `number * factor`, when that is a whole `u64`.
fn scaled(number: Decimal<'_>, factor: u64) -> Result<u64, Unfit> {
    let fraction = number.fraction.trim_end_matches('0');
    let parse = |digits: &str| digits.parse::<u64>().map_err(|_| Unfit::TooLarge);
    let whole = parse(number.whole)?.checked_mul(factor).ok_or(Unfit::TooLarge)?;
    if fraction.is_empty() {
        return Ok(whole);
    }
    // 18 digits fit 64 bits; more cannot come out even for any unit here but are legal to write, so they are refused.
    let scale =
        10_u128.checked_pow(fraction.len() as u32).filter(|_| fraction.len() <= 18).ok_or(Unfit::Fraction)?;
    let part = u128::from(parse(fraction)?) * u128::from(factor);
    if part % scale != 0 {
        return Err(Unfit::Fraction);
    }
    whole.checked_add((part / scale) as u64).ok_or(Unfit::TooLarge)
}

/// Reads a value of the configuration file from its text, or from a whole number where `number` gives one a meaning.
struct TextOrNumber<T> {
    expected: &'static str,
    number: fn(u64) -> Option<T>,
}

impl<T: FromStr<Err = QuantityError>> Visitor<'_> for TextOrNumber<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<T, E> {
        let number = u64::try_from(value).ok().and_then(self.number);
        number.ok_or_else(|| E::invalid_value(de::Unexpected::Signed(value), &self))
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = |bytes| Some(ByteSize(bytes));
        deserializer.deserialize_any(TextOrNumber { expected: "a size like \"64MiB\" or 67108864", number })
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A bare number would leave its unit to guesswork.
        let number = |value| (value == 0).then_some(Span(Duration::ZERO));
        deserializer.deserialize_any(TextOrNumber { expected: "a duration like \"72h\"", number })
    }
}

impl<'de> Deserialize<'de> for OrNone<ByteSize> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = |bytes| Some(OrNone(Some(ByteSize(bytes))));
        deserializer.deserialize_any(TextOrNumber { expected: "a size like \"64GiB\", or \"none\"", number })
    }
}

impl<'de> Deserialize<'de> for OrNone<Span> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = |_| None;
        deserializer
            .deserialize_any(TextOrNumber { expected: "a duration like \"72h\", or \"none\"", number })
    }
}

impl<'de> Deserialize<'de> for CoreList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged, expecting = "cores like [0, 1] or \"0-3\"")]
        enum Form {
            Numbers(Vec<usize>),
            Text(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Numbers(cores) => Ok(CoreList(cores)),
            Form::Text(text) => text.parse().map_err(de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_exact() {
        let cases = [
            ("0", 0),
            ("4096", 4096),
            ("1B", 1),
            ("64KiB", 65_536),
            ("1.5MiB", 1_572_864),
            ("1GiB", 1 << 30),
            ("2TiB", 1 << 41),
            ("64MB", 64_000_000),
            ("1kB", 1000),
            ("16777215TiB", 16_777_215 << 40),
        ];
        for (text, bytes) in cases {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "KiB", "1 KiB", "1kib", "-1", "1.KiB", ".5MiB", "1.5", "0.3KiB", "1e3", "0x10"] {
            assert_eq!(text.parse::<ByteSize>(), Err(QuantityError::Size(text.into())), "{text}");
        }
        for text in ["18446744073709551616", "16777216TiB"] {
            assert_eq!(text.parse::<ByteSize>(), Err(QuantityError::TooLarge(text.into())), "{text}");
        }
    }

    #[test]
    fn durations_are_exact() {
        let nanos = |text: &str| text.parse::<Span>().map(|span| span.0.as_nanos());
        let cases: [(&str, u128); 9] = [
            ("0", 0),
            ("0s", 0),
            ("250ns", 250),
            ("500us", 500_000),
            ("1.5ms", 1_500_000),
            ("10s", 10_000_000_000),
            ("72h", 259_200_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("7d", 604_800_000_000_000),
        ];
        for (text, expected) in cases {
            assert_eq!(nanos(text), Ok(expected), "{text}");
        }
        for text in ["", "10", "s", "10 s", "30m1h", "1s1s", "0.5ns", "-1s", "10sec", "1h 30m"] {
            assert_eq!(nanos(text), Err(QuantityError::Span(text.into())), "{text}");
        }
        assert_eq!(nanos("300000d"), Err(QuantityError::TooLarge("300000d".into())));
    }

    #[test]
    fn what_is_printed_reads_back() {
        for bytes in [0, 1, 1023, 1024, 1536, 67_108_864, 1 << 40, u64::MAX] {
            assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
        }
        for nanos in [0, 1, 999, 90_061_001_002_003, 5_400_000_000_000, u64::MAX] {
            let span = Span(Duration::from_nanos(nanos));
            assert_eq!(span.to_string().parse(), Ok(span), "{span}");
        }
        assert_eq!(ByteSize(67_108_864).to_string(), "64MiB");
        assert_eq!(Span(Duration::from_secs(5400)).to_string(), "1h30m");
    }

    #[test]
    fn cores_are_lists_and_ranges() {
        assert_eq!("0".parse(), Ok(CoreList(vec![0])));
        assert_eq!("0,1".parse(), Ok(CoreList(vec![0, 1])));
        assert_eq!("0-2,5".parse(), Ok(CoreList(vec![0, 1, 2, 5])));
        for text in ["", ",", "a", "3-1", "0-", "-1", "0-99999999"] {
            assert!(text.parse::<CoreList>().is_err(), "{text:?}");
        }
    }
}
