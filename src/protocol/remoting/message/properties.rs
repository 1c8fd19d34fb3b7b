//! A message's properties on their way in and out. Keys and tag have places of their own in our records; what is a wish of
//! the producer's (`WAIT`, a delay's level, transactions) is carried out, and not stored; what brokers add is added when the
//! message is handed out. Everything else, the message's id among it, is stored as it came; the time that a message is to come
//! at is the last of it.

use std::time::Duration;

use crate::limits;
use crate::types::{DelayLevels, Timestamp};
use crate::wire::properties::{Properties, names};
use crate::wire::record::RecordView;

/// What the properties of an incoming message say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meaning<'a> {
    pub keys: &'a [u8],
    pub tag: &'a [u8],
    /// Whether the producer waits until the message is as safe as the broker makes it, as far as it says so.
    pub waits: Option<bool>,
    pub delay: Option<Delay<'a>>,
    /// The message is the half of a transaction.
    pub is_half: bool,
    pub producer_group: &'a [u8],
    /// Seconds in which the producer of a half does not want to be asked, as it says them.
    pub immunity_seconds: &'a [u8],
    /// The id that the producer gave the message.
    pub unique_id: &'a [u8],
}

/// When a message is to be delivered; what cannot be read is there as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delay<'a> {
    /// One of the node's levels; a higher one is the last.
    Level(u32),
    After(Duration),
    At(Timestamp),
    Unreadable(&'a [u8]),
}

/// Names that brokers give messages on their way out, and that come in again with messages that are sent on.
const OUTGOING: [&[u8]; 4] = [b"CLUSTER", b"MSG_REGION", b"TRACE_ON", b"POP_CK"];

/// What brokers call their place.
pub const REGION: &str = "DefaultRegion";

impl<'a> Meaning<'a> {
    /// Reads properties, and appends those that are stored as they are to `stored`, in their order.
    pub fn read(text: &'a [u8], stored: &mut Vec<u8>) -> Self {
        let mut meaning = Self::default();
        let mut delays = Delays::default();
        for (name, value) in Properties::new(text) {
            match name {
                b"KEYS" => meaning.keys = value,
                b"TAGS" => meaning.tag = value,
                b"WAIT" => meaning.waits = Some(!value.eq_ignore_ascii_case(b"false")),
                b"TRAN_MSG" => meaning.is_half = value.eq_ignore_ascii_case(b"true"),
                name if delays.take(name, value) => {}
                name if OUTGOING.contains(&name) => {}
                _ => {
                    match name {
                        b"PGROUP" => meaning.producer_group = value,
                        b"CHECK_IMMUNITY_TIME_IN_SECONDS" => meaning.immunity_seconds = value,
                        b"UNIQ_KEY" => meaning.unique_id = value,
                        _ => {}
                    }
                    push(stored, name, value);
                }
            }
        }
        meaning.delay = delays.first();
        if !matches!(meaning.delay, Some(Delay::Level(_))) {
            delays.times().for_each(|(name, value)| push(stored, name.as_bytes(), value));
        }
        meaning
    }
}

/// What a message says about its delivery, in the order in which RocketMQ looks at it.
#[derive(Default)]
struct Delays<'a>([Option<&'a [u8]>; 5]);

const DELAY_NAMES: [&str; 5] =
    [names::DELAY, names::DELAY_SECONDS, names::DELAY_MS, names::DELIVER_MS, names::START_DELIVERY_TIME];

impl<'a> Delays<'a> {
    fn take(&mut self, name: &[u8], value: &'a [u8]) -> bool {
        let found = DELAY_NAMES.iter().position(|known| known.as_bytes() == name);
        if let Some(at) = found {
            self.0[at] = Some(value);
        }
        found.is_some()
    }

    fn first(&self) -> Option<Delay<'a>> {
        self.said().find_map(|(name, value)| delay(name, value))
    }

    fn said(&self) -> impl Iterator<Item = (&'static str, &'a [u8])> {
        DELAY_NAMES.into_iter().zip(self.0).filter_map(|(name, value)| Some((name, value?)))
    }

    /// What was said but for the level.
    fn times(&self) -> impl Iterator<Item = (&'static str, &'a [u8])> {
        self.said().filter(|(name, _)| *name != names::DELAY)
    }
}

impl Delay<'_> {
    /// When a message is to be delivered that has come now; the error is what cannot be read.
    pub fn due(&self, now: Timestamp, levels: &DelayLevels) -> Result<Timestamp, String> {
        let after = |delay: Duration| {
            Timestamp(now.0.saturating_add(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)))
        };
        match self {
            Delay::Level(level) => Ok(after(levels.level(*level).1)),
            Delay::After(delay) => Ok(after(*delay)),
            Delay::At(time) => Ok(*time),
            Delay::Unreadable(value) => Err(String::from_utf8_lossy(value).chars().take(64).collect()),
        }
    }
}

/// `None` for a delay of nothing.
fn delay<'a>(name: &str, value: &'a [u8]) -> Option<Delay<'a>> {
    let number: Option<i64> = std::str::from_utf8(value).ok().and_then(|text| text.trim_ascii().parse().ok());
    let Some(number) = number else { return Some(Delay::Unreadable(value)) };
    let number = u64::try_from(number).ok().filter(|number| *number > 0)?;
    Some(match name {
        names::DELAY => Delay::Level(u32::try_from(number).unwrap_or(u32::MAX)),
        names::DELAY_SECONDS => Delay::After(Duration::from_secs(number)),
        names::DELAY_MS => Delay::After(Duration::from_millis(number)),
        _ => Delay::At(Timestamp(number)),
    })
}

fn push(text: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    text.extend_from_slice(name);
    text.push(1);
    text.extend_from_slice(value);
    text.push(2);
}

/// Properties that messages get on their way out, after their own.
#[derive(Debug)]
pub struct AddedProperties {
    /// As they are written.
    text: Vec<u8>,
    /// Of the first one.
    first_bytes: usize,
}

impl AddedProperties {
    pub fn new(list: &[(&str, &str)]) -> Self {
        let (mut text, mut first_bytes) = (Vec::with_capacity(128), 0);
        for (index, (name, value)) in list.iter().enumerate() {
            if !value.is_empty() {
                push(&mut text, name.as_bytes(), value.as_bytes());
            }
            if index == 0 {
                first_bytes = text.len();
            }
        }
        Self { text, first_bytes }
    }

    /// How many bytes are written for a record at most, before anything is left out.
    pub fn bytes_max(&self, record: &RecordView<'_>) -> usize {
        let own = own_properties(record).map(|(name, value)| name.len() + value.len() + 2);
        record.properties().len() + 1 + own.iter().sum::<usize>() + self.text.len()
    }

    /// Appends a stored message's properties as clients are to see them, and after them all of these, or all but the first one.
    /// What does not fit any more is left out: first what is added, then the keys.
    pub fn write(&self, record: &RecordView<'_>, with_first: bool, output: &mut Vec<u8>) {
        let added = &self.text[if with_first { 0 } else { self.first_bytes }..];
        let (start, properties) = (output.len(), record.properties());
        output.extend_from_slice(properties);
        let is_full = properties.len() >= limits::PROPERTIES_BYTES_MAX;
        if !is_full && properties.last().is_some_and(|last| *last != 2) {
            output.push(2);
        }
        let own = own_properties(record).into_iter();
        if self.bytes_max(record) <= limits::PROPERTIES_BYTES_MAX {
            own.filter(|(_, value)| !value.is_empty()).for_each(|(name, value)| push(output, name, value));
            return output.extend_from_slice(added);
        }
        for (name, value) in own.chain(Properties::new(added)) {
            let bytes = output.len() - start + name.len() + value.len() + 2;
            if !value.is_empty() && bytes <= limits::PROPERTIES_BYTES_MAX {
                push(output, name, value);
            }
        }
    }
}

/// The properties of a message that have places of their own in its record.
fn own_properties<'a>(record: &RecordView<'a>) -> [(&'a [u8], &'a [u8]); 2] {
    [(b"TAGS", record.tag()), (b"KEYS", record.key())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::record::Record;

    fn read(text: &[u8]) -> (Meaning<'_>, Vec<u8>) {
        let mut stored = Vec::new();
        let meaning = Meaning::read(text, &mut stored);
        (meaning, stored)
    }

    #[test]
    fn what_has_a_place_of_its_own_is_not_stored_twice() {
        let (meaning, stored) = read(
            b"color\x01red\x02KEYS\x01k1 k2\x02UNIQ_KEY\x01ID\x02WAIT\x01true\x02CLUSTER\x01c\x02MSG_REGION\x01r\x02TRACE_ON\x01true\x02TAGS\x01TagA",
        );
        assert_eq!((meaning.keys, meaning.tag, meaning.unique_id), (&b"k1 k2"[..], &b"TagA"[..], &b"ID"[..]));
        assert_eq!((meaning.waits, meaning.delay, meaning.is_half), (Some(true), None, false));
        assert_eq!(stored, b"color\x01red\x02UNIQ_KEY\x01ID\x02");
    }

    #[test]
    fn wishes_are_read_and_not_stored() {
        let (meaning, stored) = read(
            b"WAIT\x01false\x02TRAN_MSG\x01true\x02PGROUP\x01pg\x02CHECK_IMMUNITY_TIME_IN_SECONDS\x0190\x02DELAY\x013\x02",
        );
        assert_eq!((meaning.waits, meaning.is_half), (Some(false), true));
        assert_eq!((meaning.producer_group, meaning.immunity_seconds), (&b"pg"[..], &b"90"[..]));
        assert_eq!(meaning.delay, Some(Delay::Level(3)));
        assert_eq!(stored, b"PGROUP\x01pg\x02CHECK_IMMUNITY_TIME_IN_SECONDS\x0190\x02");
    }

    #[test]
    fn one_delay_of_several_counts() {
        let delay = |text: &'static [u8]| read(text).0.delay;
        assert_eq!(delay(b"TIMER_DELAY_MS\x011500\x02DELAY\x012\x02"), Some(Delay::Level(2)));
        assert_eq!(
            delay(b"DELAY\x010\x02TIMER_DELAY_SEC\x012\x02"),
            Some(Delay::After(Duration::from_secs(2)))
        );
        assert_eq!(delay(b"TIMER_DELAY_MS\x011500\x02"), Some(Delay::After(Duration::from_millis(1500))));
        assert_eq!(delay(b"TIMER_DELIVER_MS\x017\x02"), Some(Delay::At(Timestamp(7))));
        assert_eq!(delay(b"__STARTDELIVERTIME\x018\x02"), Some(Delay::At(Timestamp(8))));
        assert_eq!(delay(b"DELAY\x01soon\x02"), Some(Delay::Unreadable(b"soon")));
        assert_eq!(delay(b"DELAY\x01-1\x02"), None);
        assert_eq!(delay(b"DELAY\x0199\x02"), Some(Delay::Level(99)));
        assert_eq!(delay(b"DELAY\x015000000000\x02"), Some(Delay::Level(u32::MAX)));
    }

    #[test]
    fn a_time_is_stored_beside_the_other_properties_and_a_level_is_not() {
        let stored = |text: &'static [u8]| read(text).1;
        assert_eq!(stored(b"TIMER_DELAY_MS\x011500\x02a\x01b\x02"), b"a\x01b\x02TIMER_DELAY_MS\x011500\x02");
        assert_eq!(stored(b"TIMER_DELAY_MS\x011500\x02DELAY\x012\x02a\x01b\x02"), b"a\x01b\x02");
    }

    #[test]
    fn delays_count_from_now_and_levels_are_the_nodes() {
        let levels = DelayLevels::default();
        let due = |delay: Delay<'_>| delay.due(Timestamp(1_000), &levels).map(|due| due.0);
        assert_eq!(due(Delay::Level(1)), Ok(2_000));
        assert_eq!(due(Delay::Level(18)), Ok(7_201_000));
        assert_eq!(due(Delay::Level(99)), Ok(7_201_000), "the last one");
        assert_eq!(due(Delay::After(Duration::MAX)), Ok(u64::MAX));
        assert_eq!(due(Delay::At(Timestamp(7))), Ok(7));
        assert_eq!(due(Delay::Unreadable(b"soon")), Err("soon".to_owned()));
    }

    fn written(record: &Record<'_>, added: &[(&str, &str)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        let (view, _) = RecordView::cut(&bytes).expect("a record");
        let (mut output, mut without) = (Vec::new(), Vec::new());
        AddedProperties::new(added).write(&view, true, &mut output);
        AddedProperties::new(&[&[("LEFT", "out")], added].concat()).write(&view, false, &mut without);
        assert_eq!(without, output);
        output
    }

    #[test]
    fn keys_and_tag_go_out_as_properties() {
        let record = Record { key: b"k", tag: b"t", properties: b"a\x01b", ..Record::default() };
        let text = written(&record, &[("CLUSTER", "DefaultCluster")]);
        assert_eq!(text, b"a\x01b\x02TAGS\x01t\x02KEYS\x01k\x02CLUSTER\x01DefaultCluster\x02");
        assert_eq!(written(&Record::default(), &[]), b"");
    }

    #[test]
    fn what_does_not_fit_is_left_out_keys_last_of_all() {
        let key = [b'k'; 60];
        let most = limits::PROPERTIES_BYTES_MAX;
        let text = |free: usize| {
            let properties = [b"a\x01", &vec![b'x'; most - free - 3][..], b"\x02"].concat();
            let record = Record { key: &key, tag: b"t", properties: &properties, ..Record::default() };
            written(&record, &[("CLUSTER", "c")])
        };
        assert_eq!(text(100).len(), most - 100 + 7 + 66 + 10);
        assert_eq!(text(75).len(), most - 75 + 7 + 66);
        assert_eq!(text(20).len(), most - 20 + 7 + 10);
        assert_eq!(text(5).len(), most - 5);
    }
}
