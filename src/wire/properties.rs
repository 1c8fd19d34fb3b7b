//! A message's properties as text: `name \x01 value \x02`, repeated (`common/.../message/MessageDecoder.java`,
//! `messageProperties2String`).
//!
//! Clients differ in how they write it, so reading is tolerant: the last separator may be missing, and entries without a
//! name, or without exactly one separator within, are passed over, as RocketMQ's clients do. Values are bytes: most are
//! UTF-8, nobody has checked.

use crate::limits;

const NAME_END: u8 = 1;
const ENTRY_END: u8 = 2;

/// Names with a meaning (`common/.../message/MessageConst.java`); producers must not use them for their own.
pub mod names {
    /// Keys to find the message by, separated by blanks.
    pub const KEYS: &str = "KEYS";
    pub const TAGS: &str = "TAGS";
    /// Whether the producer waits for the flush.
    pub const WAIT: &str = "WAIT";
    /// Delay level, 1 to 18.
    pub const DELAY: &str = "DELAY";
    /// The topic that a retried message was sent to.
    pub const RETRY_TOPIC: &str = "RETRY_TOPIC";
    /// Where a half or delayed message belongs.
    pub const REAL_TOPIC: &str = "REAL_TOPIC";
    pub const REAL_QUEUE: &str = "REAL_QID";
    /// `true` on the half of a transaction.
    pub const TRANSACTION_PREPARED: &str = "TRAN_MSG";
    pub const PRODUCER_GROUP: &str = "PGROUP";
    pub const MIN_OFFSET: &str = "MIN_OFFSET";
    pub const MAX_OFFSET: &str = "MAX_OFFSET";
    pub const ORIGIN_MESSAGE_ID: &str = "ORIGIN_MESSAGE_ID";
    pub const RECONSUME_TIMES: &str = "RECONSUME_TIME";
    pub const RECONSUME_TIMES_MAX: &str = "MAX_RECONSUME_TIMES";
    /// The id that the producer gave the message, see `types::UniqueId`.
    pub const UNIQUE_ID: &str = "UNIQ_KEY";
    /// Seconds before the producer of a half message is asked.
    pub const CHECK_IMMUNITY_SECONDS: &str = "CHECK_IMMUNITY_TIME_IN_SECONDS";
    pub const TRANSACTION_ID: &str = "__transactionId__";
    pub const TRANSACTION_CHECKS: &str = "TRANSACTION_CHECK_TIMES";
    /// The topic of a dead letter before it was one.
    pub const DEAD_LETTER_TOPIC: &str = "DLQ_ORIGIN_TOPIC";
    pub const INSTANCE: &str = "INSTANCE_ID";
    pub const CORRELATION_ID: &str = "CORRELATION_ID";
    pub const REPLY_TO_CLIENT: &str = "REPLY_TO_CLIENT";
    pub const MESSAGE_TYPE: &str = "MSG_TYPE";
    /// Receipt of a popped message.
    pub const POP_RECEIPT: &str = "POP_CK";
    /// When the message was first popped, milliseconds.
    pub const FIRST_POP_TIME: &str = "1ST_POP_TIME";
    /// Messages of one such key keep their order.
    pub const SHARDING_KEY: &str = "__SHARDINGKEY";
    pub const DELAY_SECONDS: &str = "TIMER_DELAY_SEC";
    pub const DELAY_MS: &str = "TIMER_DELAY_MS";
    /// Due time, milliseconds since 1970.
    pub const DELIVER_MS: &str = "TIMER_DELIVER_MS";
    /// The same as brokers tell it.
    pub const OUT_MS: &str = "TIMER_OUT_MS";
    /// The due time as the HTTP protocol names it, milliseconds since 1970.
    pub const START_DELIVERY_TIME: &str = "__STARTDELIVERTIME";
    /// That protocol's mark of a transaction: seconds before its producer is asked.
    pub const TRANSACTION_CHECK_SECONDS: &str = "__TransCheckT";
}

/// What a property of a reserved name asks for, or says, that it can not as a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// The message's keys: it would not be found by them.
    Keys,
    /// The message's tag: no filter would see it.
    Tag,
    /// Messages of one key in one queue.
    ShardingKey,
    /// The message's id, which its producer makes.
    Id,
    /// A later delivery: it would be delivered at once.
    Delay,
    /// The half of a transaction: it would be delivered without a decision.
    Transaction,
    /// How many deliveries there may be, which is the group's.
    Deliveries,
    /// Whether to wait for the flush, which is the request's level.
    Level,
    /// What brokers and clients write themselves, for whoever reads the message.
    Internal,
}

/// What a name is reserved for, if it is: the names of `MessageConst.STRING_HASH_SET`, which RocketMQ's clients refuse in
/// `Message.putUserProperty`, those of its later releases, and those of the HTTP protocol.
pub fn reserved(name: &[u8]) -> Option<Reserved> {
    Some(match name {
        b"KEYS" => Reserved::Keys,
        b"TAGS" => Reserved::Tag,
        b"__SHARDINGKEY" => Reserved::ShardingKey,
        b"UNIQ_KEY" | b"EXTEND_UNIQ_INFO" => Reserved::Id,
        b"DELAY"
        | b"TIMER_DELAY_SEC"
        | b"TIMER_DELAY_MS"
        | b"TIMER_DELIVER_MS"
        | b"TIMER_DELAY_LEVEL"
        | b"__STARTDELIVERTIME" => Reserved::Delay,
        b"TRAN_MSG"
        | b"__TransCheckT"
        | b"CHECK_IMMUNITY_TIME_IN_SECONDS"
        | b"__transactionId__"
        | b"TRAN_PREPARED_QUEUE_OFFSET"
        | b"TRANSACTION_CHECK_TIMES" => Reserved::Transaction,
        b"RECONSUME_TIME" | b"MAX_RECONSUME_TIMES" => Reserved::Deliveries,
        b"WAIT" => Reserved::Level,
        b"RETRY_TOPIC"
        | b"REAL_TOPIC"
        | b"REAL_QID"
        | b"PGROUP"
        | b"MIN_OFFSET"
        | b"MAX_OFFSET"
        | b"BUYER_ID"
        | b"ORIGIN_MESSAGE_ID"
        | b"TRANSFER_FLAG"
        | b"CORRECTION_FLAG"
        | b"MQ2_FLAG"
        | b"MSG_REGION"
        | b"TRACE_ON"
        | b"CONSUME_START_TIME"
        | b"INNER_NUM"
        | b"INNER_BASE"
        | b"DUP_INFO"
        | b"INSTANCE_ID"
        | b"CORRELATION_ID"
        | b"REPLY_TO_CLIENT"
        | b"TTL"
        | b"ARRIVE_TIME"
        | b"PUSH_REPLY_TIME"
        | b"CLUSTER"
        | b"MSG_TYPE"
        | b"POP_CK"
        | b"POP_CK_OFFSET"
        | b"1ST_POP_TIME"
        | b"PROPERTY_FORWARD_QUEUE_ID"
        | b"REDIRECT"
        | b"INNER_MULTI_DISPATCH"
        | b"INNER_MULTI_QUEUE_OFFSET"
        | b"TRACE_CONTEXT"
        | b"TIMER_ENQUEUE_MS"
        | b"TIMER_DEQUEUE_MS"
        | b"TIMER_ROLL_TIMES"
        | b"TIMER_OUT_MS"
        | b"TIMER_DEL_UNIQKEY"
        | b"__BORNHOST"
        | b"BORN_TIMESTAMP" => Reserved::Internal,
        _ if name.starts_with(b"__RMQ.TRANSIENT.") => Reserved::Internal,
        _ => return None,
    })
}

/// Whether what a client of the native protocol gives as properties has their form and is what they are for. Its library writes
/// the id and the sharding key there; everything else that is reserved has a place of its own in a request. What has another
/// form would be stored, and shown to nobody.
pub fn check_incoming(text: &[u8]) -> Result<(), IncomingError> {
    let mut rest = text;
    while !rest.is_empty() {
        // The end of the last one may be left out, as some of RocketMQ's clients do.
        let end = memchr::memchr(ENTRY_END, rest).unwrap_or(rest.len());
        let entry = &rest[..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        let (name, value) = entry_of(entry).ok_or(IncomingError::Form)?;
        if name.is_empty() || memchr::memchr(NAME_END, value).is_some() {
            return Err(IncomingError::Form);
        }
        check_name(name)?;
    }
    Ok(())
}

/// The name and the value of one property.
fn entry_of(entry: &[u8]) -> Option<(&[u8], &[u8])> {
    memchr::memchr(NAME_END, entry).map(|name_end| (&entry[..name_end], &entry[name_end + 1..]))
}

/// Whether a client of the native protocol may give a property of this name.
pub fn check_name(name: &[u8]) -> Result<(), ReservedError> {
    match reserved(name) {
        None | Some(Reserved::Id | Reserved::ShardingKey) => Ok(()),
        Some(reserved) => Err(ReservedError { name: String::from_utf8_lossy(name).into_owned(), reserved }),
    }
}

/// Why properties are not stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IncomingError {
    #[error("its properties have another form than a name, byte 1, a value and byte 2, for each of them")]
    Form,
    #[error(transparent)]
    Reserved(#[from] ReservedError),
}

/// A property with a name that is not its producer's to use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the property {name} has a meaning of its own and would not have it here: {}", reserved.instead())]
pub struct ReservedError {
    pub name: String,
    pub reserved: Reserved,
}

impl Reserved {
    /// Where in a request it goes.
    pub fn instead(self) -> &'static str {
        match self {
            Reserved::Keys => "the message's key field holds its keys",
            Reserved::Tag => "the message's tag field holds its tag",
            Reserved::ShardingKey => "it says which queue the message goes to",
            Reserved::Id => "it is the message's id, which is made for it",
            Reserved::Delay => {
                "a later delivery is asked for with __STARTDELIVERTIME over HTTP, and natively by a request of its own (Hold)"
            }
            Reserved::Transaction => {
                "a transaction begins with __TransCheckT over HTTP, and natively with a request of its own (Hold)"
            }
            Reserved::Deliveries => "how often a message is delivered is a setting of the group",
            Reserved::Level => "how safe a message is before it is answered is the request's level",
            Reserved::Internal => "brokers and clients write it themselves",
        }
    }
}

/// Why a property can not be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PropertyError {
    #[error("a property needs a name")]
    NoName,
    #[error("a property must not contain the bytes 1 and 2, which separate properties")]
    Separator,
    #[error("the properties of a message take at most {max} bytes", max = limits::PROPERTIES_BYTES_MAX)]
    TooLarge,
}

/// Iterator over the entries of a text, in its order.
#[derive(Clone)]
pub struct Properties<'a> {
    rest: &'a [u8],
}

impl<'a> Properties<'a> {
    pub fn new(text: &'a [u8]) -> Self {
        Self { rest: text }
    }
}

impl<'a> Iterator for Properties<'a> {
    /// Name and value.
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            let end = memchr::memchr(ENTRY_END, self.rest);
            let entry = &self.rest[..end.unwrap_or(self.rest.len())];
            self.rest = end.map_or(&[], |end| &self.rest[end + 1..]);
            let Some((name, value)) = entry_of(entry) else { continue };
            if !name.is_empty() && memchr::memchr(NAME_END, value).is_none() {
                return Some((name, value));
            }
        }
        None
    }
}

/// The value of the first property of that name.
pub fn get<'a>(text: &'a [u8], name: &str) -> Option<&'a [u8]> {
    Properties::new(text).find(|(found, _)| *found == name.as_bytes()).map(|(_, value)| value)
}

/// Adds a property at the end of `text`, which stays as it is when that fails.
pub fn append(text: &mut Vec<u8>, name: &[u8], value: &[u8]) -> Result<(), PropertyError> {
    if name.is_empty() {
        return Err(PropertyError::NoName);
    }
    if [name, value].iter().any(|part| memchr::memchr2(NAME_END, ENTRY_END, part).is_some()) {
        return Err(PropertyError::Separator);
    }
    let unfinished = text.last().is_some_and(|last| *last != ENTRY_END);
    if text.len() + usize::from(unfinished) + name.len() + value.len() + 2 > limits::PROPERTIES_BYTES_MAX {
        return Err(PropertyError::TooLarge);
    }
    if unfinished {
        text.push(ENTRY_END);
    }
    text.extend_from_slice(name);
    text.push(NAME_END);
    text.extend_from_slice(value);
    text.push(ENTRY_END);
    Ok(())
}

/// Adds several properties (names and values) at the end of `text`: all of them, or none when one cannot be added.
pub fn append_all(text: &mut Vec<u8>, added: &[(&str, &str)]) -> Result<(), PropertyError> {
    let before = text.len();
    for (name, value) in added {
        append(text, name.as_bytes(), value.as_bytes()).inspect_err(|_| text.truncate(before))?;
    }
    Ok(())
}

/// The text with properties of these names and values in place of those that it has of these names. What is no property is left
/// out.
pub fn replaced(text: &[u8], by: &[(&str, &str)]) -> Result<Vec<u8>, PropertyError> {
    let mut output = without(text, by);
    append_all(&mut output, by)?;
    Ok(output)
}

/// The same, each as far as there is room.
pub fn replaced_as_far_as_fits(text: &[u8], by: &[(&str, &str)]) -> Vec<u8> {
    let mut output = without(text, by);
    for (name, value) in by {
        let _ = append(&mut output, name.as_bytes(), value.as_bytes());
    }
    output
}

/// The text without properties of these names.
pub fn left_out(text: &[u8], names: &[&str]) -> Vec<u8> {
    let by: Vec<_> = names.iter().map(|name| (*name, "")).collect();
    without(text, &by)
}

/// The text without properties of the names that `by` has.
fn without(text: &[u8], by: &[(&str, &str)]) -> Vec<u8> {
    let mut output = Vec::with_capacity(text.len() + 64);
    let is_kept = |name: &[u8]| !by.iter().any(|(replaced, _)| replaced.as_bytes() == name);
    for (name, value) in Properties::new(text).filter(|(name, _)| is_kept(name)) {
        // It came from a text that had room for it.
        let _ = append(&mut output, name, value);
    }
    output
}

/// The keys in a `KEYS` property or in a record's key: separated by blanks.
pub fn keys(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b' ').filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Vec<(&[u8], &[u8])> {
        Properties::new(text).collect()
    }

    #[test]
    fn what_was_added_is_read_in_order() {
        let mut text = Vec::new();
        for (name, value) in [("KEYS", "a b"), ("empty", ""), ("KEYS", "second")] {
            append(&mut text, name.as_bytes(), value.as_bytes()).unwrap();
        }
        assert_eq!(text, b"KEYS\x01a b\x02empty\x01\x02KEYS\x01second\x02");
        assert_eq!(read(&text), [(&b"KEYS"[..], &b"a b"[..]), (b"empty", b""), (b"KEYS", b"second")]);
        assert_eq!(get(&text, names::KEYS), Some(&b"a b"[..]));
        assert_eq!(get(&text, "KEY"), None);
    }

    #[test]
    fn what_has_another_form_is_not_taken() {
        for text in ["", "a\x01b\x02", "a\x01\x02c\x01d\x02", "a\x01b\x02c\x01d"] {
            assert_eq!(check_incoming(text.as_bytes()), Ok(()), "{text:?}");
        }
        for text in
            ["a", "\x01", "\x02", "a\x02", "\x01b\x02", "a\x01b\x01c\x02", "a\x01b\x02\x02", "a\x01b\x02c"]
        {
            assert_eq!(check_incoming(text.as_bytes()), Err(IncomingError::Form), "{text:?}");
        }
        let reserved = check_incoming(b"a\x01b\x02DELAY\x013\x02");
        assert!(matches!(reserved, Err(IncomingError::Reserved(_))), "{reserved:?}");
    }

    #[test]
    fn a_missing_last_separator_is_no_fault() {
        let mut text = b"a\x011\x02b\x012".to_vec();
        assert_eq!(read(&text), [(&b"a"[..], &b"1"[..]), (b"b", b"2")]);
        append(&mut text, b"c", b"3").unwrap();
        assert_eq!(text, b"a\x011\x02b\x012\x02c\x013\x02");
    }

    #[test]
    fn what_is_no_property_is_passed_over() {
        assert_eq!(
            read(b"\x02\x02no separator\x02\x01no name\x02two\x01of\x01them\x02a\x01b"),
            [(&b"a"[..], &b"b"[..])]
        );
        assert_eq!(read(b"\x01\x02\x01"), []);
    }

    #[test]
    fn what_would_break_the_text_is_refused() {
        let mut text = b"a\x01b".to_vec();
        assert_eq!(append(&mut text, b"", b"x"), Err(PropertyError::NoName));
        assert_eq!(append(&mut text, b"n\x01", b"x"), Err(PropertyError::Separator));
        assert_eq!(append(&mut text, b"n", b"\x02"), Err(PropertyError::Separator));
        let most = limits::PROPERTIES_BYTES_MAX - text.len() - 1 - 3;
        assert_eq!(append(&mut text, b"n", &vec![b'x'; most + 1]), Err(PropertyError::TooLarge));
        assert_eq!(text, b"a\x01b");
        assert_eq!(append(&mut text, b"n", &vec![b'x'; most]), Ok(()));
        assert_eq!(text.len(), limits::PROPERTIES_BYTES_MAX);
    }

    #[test]
    fn properties_are_replaced_and_what_has_no_room_is_left_out() {
        let by = [("a", "4"), ("d", "5")];
        let text = b"a\x011\x02b\x012\x02\x02a\x013\x02c\x01";
        let expected = b"b\x012\x02c\x01\x02a\x014\x02d\x015\x02".to_vec();
        assert_eq!(replaced_as_far_as_fits(text, &by), expected);
        assert_eq!(replaced(text, &by), Ok(expected));
        let mut long = b"x\x01".to_vec();
        long.resize(limits::PROPERTIES_BYTES_MAX - 6, b'y');
        long.push(2);
        let by = [("A", "12"), ("B", "1")];
        assert_eq!(replaced_as_far_as_fits(&long, &by), [&long[..], b"A\x0112\x02"].concat());
        assert_eq!(replaced(&long, &by), Err(PropertyError::TooLarge));
        assert!(replaced(&long, &by[..1]).is_ok());
    }

    #[test]
    fn what_has_a_meaning_is_no_property() {
        for name in [
            names::KEYS,
            names::DELAY,
            names::START_DELIVERY_TIME,
            names::TRANSACTION_PREPARED,
            names::INSTANCE,
        ] {
            let mut text = Vec::new();
            append(&mut text, b"mine", b"1").unwrap();
            append(&mut text, name.as_bytes(), b"1").unwrap();
            let error = check_incoming(&text).expect_err(name);
            assert!(error.to_string().contains(name), "{error}");
        }
        let mut text = Vec::new();
        for name in [names::UNIQUE_ID, names::SHARDING_KEY, "keys", "DLQ_ORIGIN_TOPIC", "__RMQ"] {
            append(&mut text, name.as_bytes(), b"1").unwrap();
        }
        assert_eq!(check_incoming(&text), Ok(()));
        assert_eq!(reserved(b"__RMQ.TRANSIENT.TOPIC_SYS_FLAG"), Some(Reserved::Internal));
    }

    #[test]
    fn keys_are_separated_by_any_number_of_blanks() {
        assert_eq!(keys(b"  a bc   d ").collect::<Vec<_>>(), [&b"a"[..], b"bc", b"d"]);
        assert_eq!(keys(b" ").count(), 0);
    }
}
