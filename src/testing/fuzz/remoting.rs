//! The readers of RocketMQ's own protocol: arbitrary bytes are refused or understood, and what was understood says the same
//! when it is written in either form and read again.

use std::net::SocketAddr;

use crate::limits;
use crate::protocol::remoting::body::{ConsumerPlace, Heartbeat, RegisteredTopics};
use crate::protocol::remoting::call::inquiry::{self, Consulted};
use crate::protocol::remoting::call::lock::QueueLocks;
use crate::protocol::remoting::call::offsets::{OffsetCommit, OffsetQuery, TimeSearch};
use crate::protocol::remoting::call::pull::{PullAnswer, PullOutcome, PullRequest};
use crate::protocol::remoting::call::recall::{RecallHandle, RecallRequest};
use crate::protocol::remoting::call::reply::{self, ReplyRequest};
use crate::protocol::remoting::call::resets::OffsetReset;
use crate::protocol::remoting::call::send::{self, Messages, Send};
use crate::protocol::remoting::call::send_back::SentBack;
use crate::protocol::remoting::call::set_up::{GroupAsked, TopicAsked};
use crate::protocol::remoting::call::transaction::EndRequest;
use crate::protocol::remoting::json::Value;
use crate::protocol::remoting::json_writer::{write_array, write_object};
use crate::protocol::remoting::{
    Cut, FieldValue, Frame, Head, Header, HeaderForm, Refusal, ResponseCode, cut,
};
use crate::testing::Random;
use crate::types::{QueueOffset, ShardId, Timestamp};
use crate::wire::batch::CheckedBatch;

/// Reads `bytes` as a connection's frames.
pub fn fuzz_frame(bytes: &[u8]) {
    let mut rest = bytes;
    loop {
        match cut(rest) {
            Err(_) => return,
            Ok(Cut::Incomplete { needed }) => {
                let longest = 8 + limits::REMOTING_HEADER_BYTES_MAX + limits::REMOTING_BODY_BYTES_MAX;
                assert!(needed > rest.len() && needed <= longest, "{needed} bytes are awaited");
                return;
            }
            Ok(Cut::Oversized { frame, body_bytes }) => {
                assert!(body_bytes > limits::REMOTING_BODY_BYTES_MAX);
                fuzz_header(frame.form, frame.header);
                return;
            }
            Ok(Cut::Frame(frame)) => {
                assert!(frame.frame_bytes <= rest.len(), "a frame lies within its buffer");
                fuzz_header(frame.form, frame.header);
                fuzz_body(frame.body);
                fuzz_send(&frame);
                fuzz_offsets(&frame);
                fuzz_administration(&frame);
                fuzz_pull(&frame);
                fuzz_second_thoughts(&frame);
                rest = &rest[frame.frame_bytes..];
            }
        }
    }
}

/// Reads a frame as our own writer makes it but for a few bytes.
pub fn fuzz_changed_frame(seed: u64) {
    let mut random = Random::new(seed);
    let form = *random.pick(&[HeaderForm::Json, HeaderForm::Binary]);
    let text = |random: &mut Random| -> Vec<u8> {
        let length = random.index(20);
        (0..length).map(|_| *random.pick(b"ab1\x01\x02\"\\ \n\xc3\xa9\xff{}[]:,")).collect()
    };
    let (first, second) = (text(&mut random), text(&mut random));
    let remark = String::from_utf8_lossy(&text(&mut random)).into_owned();
    let fields = [
        ("i", FieldValue::Bytes(&first)),
        ("a", FieldValue::Bytes(&second)),
        ("e", FieldValue::Number(random.number() as i64)),
        ("m", FieldValue::Boolean(random.chance(0.5))),
    ];
    let head = Head {
        code: random.number() as i32,
        opaque: random.number() as i32,
        remark: random.chance(0.5).then_some(&remark),
        fields: &fields[..random.range(0..=4) as usize],
        ..Head::default()
    };
    let mut bytes = Vec::new();
    head.write(form, b"{\"a\":{{\"b\":1}:2,3:[null]}}\n", &mut bytes);
    fuzz_frame(&bytes);
    for _ in 0..random.range(1..=4) {
        let at = random.index(bytes.len());
        bytes[at] = *random.pick(b"\x00\x01\x02\x7f\x80\xff\"\\{}[]:,u");
    }
    fuzz_frame(&bytes);
}

/// Reads `bytes` as a header.
pub fn fuzz_header(form: HeaderForm, bytes: &[u8]) {
    let Ok(header) = Header::read(form, bytes) else { return };
    assert!(header.fields.len() <= limits::REMOTING_FIELDS_MAX);
    for (name, value) in header.fields.iter() {
        assert!(name.len() <= bytes.len() && value.len() <= bytes.len(), "nothing grows");
    }
    for form in [HeaderForm::Json, HeaderForm::Binary] {
        check_written(&header, form);
    }
}

/// Writes a header in a form, and compares what is read of it.
fn check_written(header: &Header<'_>, form: HeaderForm) {
    let names: Vec<_> = header.fields.iter().map(|(name, _)| std::str::from_utf8(name)).collect();
    let fits = |name: &Result<&str, _>| name.is_ok_and(|name| name.len() <= usize::from(u16::MAX));
    if !names.iter().all(fits) {
        return;
    }
    let values = header.fields.iter().map(|(_, value)| FieldValue::Bytes(value));
    let fields: Vec<_> = names.into_iter().flatten().zip(values).collect();
    let head = Head {
        code: header.code,
        language: header.language,
        version: header.version,
        opaque: header.opaque,
        flag: header.flag,
        remark: header.remark.as_deref(),
        fields: &fields,
    };
    let mut bytes = Vec::new();
    head.write(form, b"", &mut bytes);
    let Ok(Cut::Frame(Frame { header: again, .. })) = cut(&bytes) else {
        // A binary header may become longer in JSON than any that is read.
        assert!(bytes.len() > limits::REMOTING_HEADER_BYTES_MAX, "this program wrote it");
        return;
    };
    let again = Header::read(form, again).expect("this program wrote it");
    if form == HeaderForm::Json {
        return assert_eq!(again, *header);
    }
    // Code and version have 16 bits there, and no remark is an empty one.
    assert_eq!((again.code as u16, again.version as i16), (header.code as u16, header.version as i16));
    assert_eq!((again.opaque, again.flag, again.language), (header.opaque, header.flag, header.language));
    assert_eq!(
        (again.remark.unwrap_or_default(), again.fields),
        (header.remark.clone().unwrap_or_default(), header.fields.clone())
    );
}

/// Reads a frame as a send, if it is one: what is understood can be stored.
fn fuzz_send(frame: &Frame<'_>) {
    let Ok(header) = Header::read(frame.form, frame.header) else { return };
    if !send::is_send(header.code) {
        return;
    }
    match Send::read(&header, frame.body, SocketAddr::from(([10, 0, 0, 1], 4000))) {
        Err(refusal) => {
            assert!(
                refusal.code != ResponseCode::Success && !refusal.remark.is_empty(),
                "a refusal says why"
            );
        }
        Ok(Send { messages: Messages::Single(message), .. }) => {
            let record = message.record();
            assert!(record.check().is_ok() && record.check_text().is_ok());
        }
        Ok(Send { messages: Messages::Batch(batch), .. }) => {
            CheckedBatch::check_incoming(batch.view().as_bytes()).expect("this program built it");
        }
    }
}

/// Reads a frame as a pull: what is understood is within its bounds, and its answer is a frame.
fn fuzz_pull(frame: &Frame<'_>) {
    let Ok(header) = Header::read(frame.form, frame.header) else { return };
    let Ok(pull) = PullRequest::read(&header) else { return };
    assert!((1..=limits::PULL_MESSAGES_MAX).contains(&pull.message_count));
    assert!(pull.bytes_max <= limits::PULL_BYTES_MAX);
    let carried_max = limits::FILTER_BYTES_MAX + 32 * limits::FILTER_TAGS_MAX;
    assert!(pull.carried_bytes() <= carried_max, "{} bytes wait with it", pull.carried_bytes());
    let place = QueueOffset(pull.offset.unsigned_abs() >> 1);
    let answer = PullAnswer { outcome: PullOutcome::Nothing, next: place, first: place, end: place };
    let mut bytes = Vec::new();
    answer.begin(header.opaque, frame.form, 0, None, &mut bytes);
    assert!(matches!(cut(&bytes), Ok(Cut::Frame(_))), "this program wrote it");
}

/// Reads a frame as what clients do with messages that were sent before: what is understood is a place, a client, or a handle that
/// says the same when it is written again.
fn fuzz_second_thoughts(frame: &Frame<'_>) {
    let Ok(header) = Header::read(frame.form, frame.header) else { return };
    let says_why = |refusal: Refusal| {
        assert!(refusal.code != ResponseCode::Success && !refusal.remark.is_empty(), "a refusal says why");
    };
    let _ = SentBack::read(&header.fields).map(|back| back.location()).map_err(says_why);
    let _ = EndRequest::read(&header.fields).map_err(says_why);
    match QueueLocks::read(frame.body) {
        Ok(locks) => assert!(!locks.group.is_empty() && !locks.client.is_empty()),
        Err(refusal) => says_why(refusal),
    }
    match RecallRequest::read(&header.fields) {
        Ok(RecallRequest { topic, broker, due, unique_id, position }) => {
            let handle =
                RecallHandle { topic: topic.as_str(), broker: &broker, due, unique_id: &unique_id, position };
            let text = handle.text();
            let fields =
                [("topic", FieldValue::Text(topic.as_str())), ("recallHandle", FieldValue::Text(&text))];
            let mut bytes = Vec::new();
            Head { fields: &fields, ..Head::default() }.write(HeaderForm::Binary, b"", &mut bytes);
            let Ok(Cut::Frame(written)) = cut(&bytes) else { panic!("this program wrote it") };
            let written = Header::read(written.form, written.header).expect("this program wrote it");
            let again = RecallRequest::read(&written.fields).expect("this program wrote it");
            assert_eq!((again.due, again.position), (due, position));
        }
        Err(refusal) => says_why(refusal),
    }
    let (born, came) = (SocketAddr::from(([10, 0, 0, 1], 4000)), (ShardId(0), Timestamp(1)));
    match ReplyRequest::read(&header, frame.body, born, came) {
        Ok(ReplyRequest { reply, .. }) => {
            let pushed = reply::push(&reply, born, "c").expect("a record of this program's");
            assert!(pushed.fields.iter().any(|(name, _)| *name == "properties"));
        }
        Err(refusal) => says_why(refusal),
    }
}

/// Reads a frame as what tools want: what is understood is a topic and a group that there can be.
fn fuzz_administration(frame: &Frame<'_>) {
    let Ok(header) = Header::read(frame.form, frame.header) else { return };
    let mut topics: Vec<_> = TopicAsked::read(&header.fields).into_iter().collect();
    if let Ok(value) = Value::parse(frame.body) {
        topics.extend(TopicAsked::of(&value));
        if let Ok(group) = GroupAsked::of(&value) {
            assert!(group.group.as_str().len() <= limits::GROUP_NAME_BYTES_MAX);
            assert!(group.retries.delays.len() <= 64);
        }
    }
    for topic in topics {
        assert!(topic.permission <= 7 && topic.attributes.iter().all(|change| !change.name.is_empty()));
    }
    let _ = OffsetReset::read(&header.fields);
    if let Ok(consulted) = Consulted::read(&header.fields) {
        let _ = inquiry::message_place(&consulted.client);
    }
}

/// Reads a frame as a request about offsets: what is understood is one that a queue can have.
fn fuzz_offsets(frame: &Frame<'_>) {
    let Ok(header) = Header::read(frame.form, frame.header) else { return };
    let _ = OffsetQuery::read(&header.fields);
    let _ = TimeSearch::read(&header.fields);
    match OffsetCommit::read(&header.fields) {
        Ok(commit) => assert!(i64::try_from(commit.offset).is_ok()),
        Err(refusal) => assert!(refusal.code != ResponseCode::Success && !refusal.remark.is_empty()),
    }
}

/// Reads `bytes` as the JSON of a body.
pub fn fuzz_body(bytes: &[u8]) {
    // Their own rules, over the same text.
    let _ = Heartbeat::read(bytes);
    let _ = ConsumerPlace::read_all(bytes);
    let _ = std::str::from_utf8(bytes).map(inquiry::message_place);
    for (is_compressed, version) in [(false, 0), (false, 479), (true, 479)] {
        let _ = RegisteredTopics::read(bytes, is_compressed, version);
    }
    let Ok(value) = Value::parse(bytes) else { return };
    let mut again = Vec::new();
    write_value(&value, &mut again);
    assert_eq!(Value::parse(&again).as_ref(), Ok(&value), "{}", String::from_utf8_lossy(&again));
}

fn write_value(value: &Value<'_>, output: &mut Vec<u8>) {
    match value {
        Value::Null => output.extend_from_slice(b"null"),
        Value::Boolean(value) => output.extend_from_slice(value.to_string().as_bytes()),
        Value::Word(word) => output.extend_from_slice(word.as_bytes()),
        Value::Text(text) => {
            let mut array = Vec::new();
            write_array(&mut array, |array| array.text(text));
            output.extend_from_slice(&array[1..array.len() - 1]);
        }
        Value::Array(items) => {
            write_array(output, |array| {
                items.iter().for_each(|item| array.value(|output| write_value(item, output)))
            });
        }
        Value::Object(entries) => write_object(output, |object| {
            for (key, value) in entries {
                object.keyed(|output| write_value(key, output), |output| write_value(value, output));
            }
        }),
    }
}
