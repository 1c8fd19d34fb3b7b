//! What parts of an expression come to, and how values of different kinds are compared
//! (`filter/.../expression/ComparisonExpression.java`). Texts become numbers as Java's `valueOf` reads them.

use std::cmp::Ordering;

use crate::limits;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    Truth(bool),
    /// Whole numbers up to 32 bits are a kind of their own: a text beyond them is none to be compared with.
    Integer(i32),
    Long(i64),
    Double(f64),
    Text(&'a [u8]),
}

/// Two values are of kinds that cannot be compared, or a text is no such number: then the whole expression is not true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Incomparable;

impl Value<'_> {
    /// Of what comes from a condition; anything else is nothing.
    pub fn truth(self) -> Option<bool> {
        match self {
            Value::Truth(truth) => Some(truth),
            _ => None,
        }
    }

    pub fn negated(self) -> Self {
        match self {
            Value::Integer(number) => Value::Integer(number.wrapping_neg()),
            Value::Long(number) => Value::Long(number.wrapping_neg()),
            Value::Double(number) => Value::Double(-number),
            Value::Null | Value::Truth(_) | Value::Text(_) => Value::Null,
        }
    }

    /// How two values that are not null compare. Kinds that have nothing to do with each other are "less", as in RocketMQ.
    pub fn compare(self, other: Value<'_>) -> Result<Ordering, Incomparable> {
        use Value::{Double, Integer, Long, Text, Truth};
        Ok(match (self, other) {
            (Truth(left), Truth(right)) => left.cmp(&right),
            (Integer(left), Integer(right)) => left.cmp(&right),
            (Integer(left), Long(right)) => i64::from(left).cmp(&right),
            (Long(left), Integer(right)) => left.cmp(&right.into()),
            (Long(left), Long(right)) => left.cmp(&right),
            (Integer(left), Double(right)) => f64::from(left).total_cmp(&right),
            (Double(left), Integer(right)) => left.total_cmp(&right.into()),
            (Long(left), Double(right)) => (left as f64).total_cmp(&right),
            (Double(left), Long(right)) => left.total_cmp(&(right as f64)),
            (Double(left), Double(right)) => left.total_cmp(&right),
            (Text(left), Text(right)) => left.cmp(right),
            (Text(left), Truth(right)) => left.eq_ignore_ascii_case(b"true").cmp(&right),
            (Text(left), Integer(right)) => whole::<i32>(left)?.cmp(&right),
            (Text(left), Long(right)) => whole::<i64>(left)?.cmp(&right),
            (Text(left), Double(right)) => double(left)?.total_cmp(&right),
            (Integer(left), Text(right)) => left.cmp(&whole(right)?),
            (Long(left), Text(right)) => left.cmp(&whole(right)?),
            (Double(left), Text(right)) => left.total_cmp(&double(right)?),
            (Truth(_), Text(_)) => return Err(Incomparable),
            (Truth(_), _) | (_, Truth(_)) | (Value::Null, _) | (_, Value::Null) => Ordering::Less,
        })
    }

    /// How two values compare as numbers: two texts are two numbers as well.
    pub fn compare_numbers(self, other: Value<'_>) -> Result<Ordering, Incomparable> {
        match (self, other) {
            (Value::Text(left), Value::Text(right)) => Ok(double(left)?.total_cmp(&double(right)?)),
            _ => self.compare(other),
        }
    }
}

/// The text of a number. One of more digits than anybody writes is none, or reading it would take long.
fn number_text(text: &[u8]) -> Result<&str, Incomparable> {
    if text.len() > limits::EXPRESSION_NUMBER_BYTES_MAX {
        return Err(Incomparable);
    }
    std::str::from_utf8(text).map_err(|_| Incomparable)
}

fn whole<T: std::str::FromStr>(text: &[u8]) -> Result<T, Incomparable> {
    number_text(text)?.parse().map_err(|_| Incomparable)
}

/// Reads a number as `Double.valueOf` does, but for hexadecimal ones.
fn double(text: &[u8]) -> Result<f64, Incomparable> {
    let text = number_text(text)?.trim_matches(|character: char| character <= ' ');
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    match unsigned {
        // There is one that is no number, whatever its sign, above all others.
        "NaN" => return Ok(f64::NAN),
        "Infinity" => return Ok(if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY }),
        _ => {}
    }
    let digits = text.strip_suffix(['f', 'F', 'd', 'D']).unwrap_or(text);
    // The words that Rust knows for such numbers are none here.
    if !unsigned.starts_with(|first: char| first == '.' || first.is_ascii_digit()) {
        return Err(Incomparable);
    }
    digits.parse().map_err(|_| Incomparable)
}

/// A whole number of an expression; `None` when it is too large.
pub(super) fn read_whole(digits: &str) -> Option<Value<'static>> {
    let number: i64 = digits.parse().ok()?;
    Some(i32::try_from(number).map_or(Value::Long(number), Value::Integer))
}

/// Another number of an expression; `None` when it is too large.
pub(super) fn read_double(text: &str) -> Option<Value<'static>> {
    text.parse().ok().filter(|number: &f64| number.is_finite()).map(Value::Double)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(left: Value<'_>, right: Value<'_>) -> Result<Ordering, Incomparable> {
        left.compare(right)
    }

    #[test]
    fn texts_become_whole_numbers_as_java_reads_them() {
        let is_five = |text: &str| compare(Value::Text(text.as_bytes()), Value::Integer(5));
        for text in ["5", "+5", "05", "0000000005"] {
            assert_eq!(is_five(text), Ok(Ordering::Equal), "{text}");
        }
        for text in ["", " 5", "5 ", "5.0", "5L", "five", "+", "-", "2147483648", "0x5"] {
            assert_eq!(is_five(text), Err(Incomparable), "{text}");
        }
        assert_eq!(compare(Value::Text(b"2147483648"), Value::Long(1 << 31)), Ok(Ordering::Equal));
        assert_eq!(compare(Value::Long(5), Value::Text(b"9223372036854775808")), Err(Incomparable));
    }

    #[test]
    fn texts_become_other_numbers_as_java_reads_them() {
        let half = |text: &str| compare(Value::Text(text.as_bytes()), Value::Double(0.5));
        for text in ["0.5", ".5", "+.5", " 0.5\t", "5e-1", "5E-1", "0.5f", "0.5D", "00.50"] {
            assert_eq!(half(text), Ok(Ordering::Equal), "{text}");
        }
        for text in ["", ".", "e5", "0.5x", "0.5ff", "inf", "nan", "infinity", "0. 5", "0x1p-1", "f", "1e"] {
            assert_eq!(half(text), Err(Incomparable), "{text}");
        }
        assert_eq!(half("NaN"), Ok(Ordering::Greater));
        assert_eq!(half("-NaN"), Ok(Ordering::Greater));
        assert_eq!(half("-Infinity"), Ok(Ordering::Less));
        let long = "0".repeat(limits::EXPRESSION_NUMBER_BYTES_MAX + 1);
        assert_eq!(half(&long), Err(Incomparable));
    }

    #[test]
    fn kinds_that_have_nothing_in_common_are_less() {
        assert_eq!(compare(Value::Truth(true), Value::Integer(1)), Ok(Ordering::Less));
        assert_eq!(compare(Value::Integer(1), Value::Truth(true)), Ok(Ordering::Less));
        assert_eq!(compare(Value::Truth(true), Value::Text(b"true")), Err(Incomparable));
        assert_eq!(compare(Value::Text(b"TRUE"), Value::Truth(true)), Ok(Ordering::Equal));
        assert_eq!(compare(Value::Text(b"yes"), Value::Truth(false)), Ok(Ordering::Equal));
    }

    #[test]
    fn texts_are_numbers_where_they_are_ordered() {
        let (nine, ten) = (Value::Text(b"9"), Value::Text(b"10"));
        assert_eq!(nine.compare_numbers(ten), Ok(Ordering::Less));
        assert_eq!(nine.compare_numbers(Value::Text(b"x")), Err(Incomparable));
        assert_eq!(Value::Text(b"-0.0").compare_numbers(Value::Text(b"0.0")), Ok(Ordering::Less));
    }
}
