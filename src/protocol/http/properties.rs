//! Properties of a message in their text form: `key:value|key:value|`.
//!
//! Neither keys nor values can hold `:` or `|`, and there is no escape. Reading refuses what does not split into pairs:
//! a property that vanished silently would be missed far from here. Writing leaves out pairs that came by another
//! protocol and cannot be told in this form; a reader of this one would take them for others.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use foldhash::quality::RandomState;

use super::xml::is_xml_character;
use crate::types::Timestamp;

/// The business key that a message can be found by.
pub const KEYS: &str = "KEYS";
/// Messages with the same one go to the same queue.
pub const SHARDING_KEY: &str = "__SHARDINGKEY";
/// When a message may be delivered first, milliseconds since the epoch.
pub const START_DELIVERY_TIME: &str = "__STARTDELIVERTIME";
/// Marks a transaction message: seconds until its producer is asked about it.
pub const TRANSACTION_CHECK_SECONDS: &str = "__TransCheckT";

/// Why a text is no list of properties.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PropertiesError {
    #[error(
        "`{pair}` is no property: it should be KEY:VALUE, neither of them empty nor with `:` or `|` in it"
    )]
    Pair { pair: String },
    #[error("the property `{key}` is given twice")]
    Twice { key: String },
    #[error("the property `{key}` is a number, not `{value}`")]
    Number { key: &'static str, value: String },
}

/// Pairs in the order in which they were given, no key twice, nothing empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties(Vec<(String, String)>);

impl Properties {
    /// Reads the text form. Empty parts are none: a trailing bar is the rule.
    pub fn parse(text: &str) -> Result<Self, PropertiesError> {
        let mut properties = Self::default();
        for pair in text.split('|').filter(|pair| !pair.is_empty()) {
            let parts = pair.split_once(':');
            let Some((key, value)) = parts.filter(|(key, value)| is_tellable(key) && is_tellable(value))
            else {
                return Err(PropertiesError::Pair { pair: pair.chars().take(256).collect() });
            };
            properties.0.push((key.to_owned(), value.to_owned()));
        }
        // Sorting finds a double among thousands of keys without comparing each with each.
        let mut keys: Vec<_> = properties.0.iter().map(|(key, _)| key).collect();
        keys.sort_unstable();
        match keys.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(PropertiesError::Twice { key: pair[0].clone() }),
            None => Ok(properties),
        }
    }

    /// Appends the text form of every pair that has one.
    pub fn write(&self, output: &mut String) {
        self.iter().for_each(|(key, value)| write_pair(key, value, output));
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn keys(&self) -> Option<&str> {
        self.get(KEYS)
    }

    pub fn sharding_key(&self) -> Option<&str> {
        self.get(SHARDING_KEY)
    }

    /// When the message may be delivered first; a time that has passed means at once.
    pub fn start_delivery_time(&self) -> Result<Option<Timestamp>, PropertiesError> {
        Ok(self.number(START_DELIVERY_TIME)?.map(Timestamp))
    }

    /// `Some` makes a message the half of a transaction, whose producer is asked about it after this time.
    pub fn transaction_check_after(&self) -> Result<Option<Duration>, PropertiesError> {
        Ok(self.number(TRANSACTION_CHECK_SECONDS)?.map(Duration::from_secs))
    }

    fn number(&self, key: &'static str) -> Result<Option<u64>, PropertiesError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let digits = value.bytes().all(|byte| byte.is_ascii_digit());
        let number = value.parse().ok().filter(|_| digits);
        number.map(Some).ok_or_else(|| PropertiesError::Number { key, value: value.to_owned() })
    }
}

/// Pairs from one rest to the next, in [`property_text`]: less than a tenth of a millisecond's work.
const PAIRS_PER_TURN: usize = 512;

/// The text form of stored pairs, as far as they have one. Where a name comes twice its last value counts, at the place of
/// the first. Takes time in the order of the pairs' bytes; a message may have six thousand of them, so that others are let
/// have their turn in between, by `rest`.
pub async fn property_text<'a>(
    pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    rest: impl AsyncFn(),
) -> String {
    let mut values: Vec<(&[u8], &[u8])> = Vec::new();
    let mut places: HashMap<&[u8], usize, RandomState> = HashMap::default();
    for (number, (key, value)) in pairs.enumerate() {
        if number % PAIRS_PER_TURN == PAIRS_PER_TURN - 1 {
            rest().await;
        }
        match places.entry(key) {
            Entry::Occupied(place) => values[*place.get()].1 = value,
            Entry::Vacant(place) => {
                place.insert(values.len());
                values.push((key, value));
            }
        }
    }
    let mut output = String::new();
    for (turn, values) in values.chunks(PAIRS_PER_TURN).enumerate() {
        if turn > 0 {
            rest().await;
        }
        for (key, value) in values {
            write_pair(&String::from_utf8_lossy(key), &String::from_utf8_lossy(value), &mut output);
        }
    }
    output
}

fn write_pair(key: &str, value: &str, output: &mut String) {
    if is_tellable(key) && is_tellable(value) {
        output.extend([key, ":", value, "|"]);
    }
}

/// Whether a key or a value has a text form.
fn is_tellable(part: &str) -> bool {
    let is_plain = |character: char| character != ':' && character != '|' && is_xml_character(character);
    !part.is_empty() && part.chars().all(is_plain)
}

#[cfg(test)]
mod tests {
    use futures_lite::future::block_on;

    use super::*;

    fn written(properties: &Properties) -> String {
        let mut text = String::new();
        properties.write(&mut text);
        text
    }

    #[test]
    fn pairs_survive_both_ways() {
        let text = "KEYS:k|b:2|a: 1 |__SHARDINGKEY:s|";
        let properties = Properties::parse(text).expect("well formed");
        assert_eq!(written(&properties), text);
        assert_eq!((properties.keys(), properties.sharding_key()), (Some("k"), Some("s")));
        assert_eq!((properties.get("a"), properties.get("c")), (Some(" 1 "), None));
        for (text, same) in [("", ""), ("||", ""), ("a:1", "a:1|"), ("|a:1||b:2", "a:1|b:2|")] {
            assert_eq!(written(&Properties::parse(text).expect(text)), same);
        }
    }

    #[test]
    fn what_is_no_pair_is_refused() {
        for text in ["a", "a:", ":1", "a:1:2", "b:1|a", ":", "a:\u{1}"] {
            assert!(matches!(Properties::parse(text), Err(PropertiesError::Pair { .. })), "{text}");
        }
        assert_eq!(Properties::parse("a:1|b:2|a:1|"), Err(PropertiesError::Twice { key: "a".into() }));
    }

    fn told(pairs: &[(&str, &str)]) -> String {
        let pairs = pairs.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes()));
        block_on(property_text(pairs, async || panic!("these are few")))
    }

    #[test]
    fn others_have_their_turn_between_many_pairs() {
        let pairs: Vec<_> = (0..6_142).map(|number| number.to_string().into_bytes()).collect();
        let rests = std::cell::Cell::new(0);
        let pairs = pairs.iter().map(|pair| (&pair[..], &b"v"[..]));
        block_on(property_text(pairs, async || rests.set(rests.get() + 1)));
        // They are gone through twice: to find what comes twice, and to be written.
        assert_eq!(rests.get(), 2 * (6_142 / PAIRS_PER_TURN));
    }

    #[test]
    fn what_has_no_text_form_is_left_out() {
        let pairs = [("url", "http://x"), ("a", "1"), ("", "2"), ("b", ""), ("c|d", "3"), ("e", "\u{0}")];
        assert_eq!(told(&pairs), "a:1|");
    }

    #[test]
    fn the_last_value_of_a_stored_name_counts_where_the_first_stood() {
        assert_eq!(told(&[("a", "1"), ("b", "2"), ("a", "3"), ("c", "4"), ("a", "5")]), "a:5|b:2|c:4|");
    }

    /// Ten times as many take about ten times as long; comparing each with each, a hundred times.
    #[test]
    fn many_stored_pairs_take_time_in_their_order() {
        let time = |count: usize| {
            let pairs: Vec<_> = (0..count).map(|number| number.to_string().into_bytes()).collect();
            let tell = || {
                let begun = std::time::Instant::now();
                let pairs = pairs.iter().map(|pair| (&pair[..], &b"v"[..]));
                let text = block_on(property_text(pairs, async || {}));
                assert_eq!(text.matches(":v|").count(), count);
                begun.elapsed()
            };
            (0..9).map(|_| tell()).min().expect("some")
        };
        let (few, many) = (time(614), time(6_140));
        assert!(many < 40 * few, "{few:?} for 614, {many:?} for 6,140");
    }

    #[test]
    fn numbers_are_numbers() {
        let properties =
            Properties::parse("__STARTDELIVERTIME:1700000000123|__TransCheckT:10|").expect("pairs");
        assert_eq!(properties.start_delivery_time(), Ok(Some(Timestamp(1_700_000_000_123))));
        assert_eq!(properties.transaction_check_after(), Ok(Some(Duration::from_secs(10))));
        assert_eq!(Properties::default().start_delivery_time(), Ok(None));
        for value in ["soon", "-1", "+1", "1.5", "99999999999999999999"] {
            let properties = Properties::parse(&format!("{START_DELIVERY_TIME}:{value}")).expect("a pair");
            assert!(properties.start_delivery_time().is_err(), "{value}");
        }
    }
}
