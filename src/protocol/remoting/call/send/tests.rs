use super::*;
use crate::protocol::remoting::message::InnerMessage;
use crate::protocol::remoting::{Cut, Fields, Language, cut};
use crate::types::{DelayLevels, LogPosition, QueueOffset};
use crate::wire::batch::CheckedBatch;
use crate::wire::inflate::inflate;
use crate::wire::origin::BodyEncoding;

macro_rules! captured {
    ($name:literal) => {
        include_bytes!(concat!("../../../../../tests/data/remoting/", $name))
    };
}

const BORN: &str = "10.1.2.3:4567";

/// What `check` finds in a send of a real client.
fn read_captured<T>(bytes: &[u8], check: impl FnOnce(Result<Send<'_>, Refusal>) -> T) -> T {
    let Ok(Cut::Frame(frame)) = cut(bytes) else { panic!("a frame") };
    let header = Header::read(frame.form, frame.header).expect("a header");
    assert!(is_send(header.code));
    check(Send::read(&header, frame.body, BORN.parse().expect("an address")))
}

fn single<'s, 'a>(send: &'s Send<'a>) -> &'s SingleMessage<'a> {
    match &send.messages {
        Messages::Single(message) => message,
        Messages::Batch(_) => panic!("one message"),
    }
}

#[test]
fn single_messages_of_every_client_are_understood() {
    for (file, keys) in [
        (&captured!("java-4.9.8-send")[..], "k1 k2"),
        (captured!("java-5.5.0-send"), "k1 k2"),
        (captured!("java-5.5.0-binary-send"), "k1 k2"),
        (captured!("go-2.1.2-send"), "k1 k2"),
        (captured!("wheel-0.4.4-send"), "k1"),
    ] {
        read_captured(file, |send| {
            let send = send.expect("a send");
            assert_eq!((send.topic.as_str(), send.queues_wished, send.level), ("orders", Some(4), None));
            assert!(send.queue.is_some_and(|queue| queue < 4));
            let message = single(&send);
            assert_eq!((message.key, message.tag), (keys.as_bytes(), &b"TagA"[..]));
            assert_eq!((message.body, message.attributes), (&b"hello"[..], Attributes::default()));
            assert_eq!(message.origin.born.to_string(), BORN);
            assert!(message.born_time > Timestamp(1_700_000_000_000));
            assert!(message.unique_id.len() >= 32);
            let text = String::from_utf8_lossy(&message.properties).into_owned();
            assert!(text.contains("color\u{1}red\u{2}") && text.contains("UNIQ_KEY\u{1}"), "{text}");
            assert!(!text.contains("WAIT") && !text.contains("KEYS") && !text.contains("TAGS"), "{text}");
        });
    }
}

#[test]
fn compressed_bodies_stay_as_they_are_and_say_how() {
    for file in [
        &captured!("java-5.5.0-send-compressed")[..],
        captured!("go-2.1.2-send-compressed"),
        captured!("wheel-0.4.4-send-compressed"),
    ] {
        read_captured(file, |send| {
            let send = send.expect("a send");
            let message = single(&send);
            assert_eq!(message.attributes.encoding, BodyEncoding::Zlib);
            let plain = inflate(message.body, BodyEncoding::Zlib, limits::BODY_BYTES_MAX).expect("zlib");
            assert_eq!(plain.len(), 8192);
        });
    }
}

#[test]
fn batches_of_every_client_are_what_they_are() {
    for (file, has_ids) in [
        (&captured!("java-4.9.8-send-batch")[..], true),
        (captured!("java-5.5.0-send-batch"), true),
        (captured!("java-5.5.0-binary-send-batch"), true),
        (captured!("go-2.1.2-send-batch"), false),
        (captured!("wheel-0.4.4-send-batch"), true),
    ] {
        read_captured(file, |send| {
            let send = send.expect("a send");
            let Messages::Batch(batch) = &send.messages else { panic!("a batch") };
            let batch = CheckedBatch::check_incoming(batch.view().as_bytes()).expect("a batch of ours");
            let bodies: Vec<_> = batch.records().map(|record| record.body()).collect();
            assert_eq!(bodies, [b"batch-0", b"batch-1", b"batch-2"]);
            for record in batch.records() {
                assert_eq!(record.tag(), b"TagD");
                assert_eq!(record.origin().map(|origin| origin.born.to_string()).as_deref(), Some(BORN));
                assert_eq!(!record.properties().is_empty(), has_ids);
            }
        });
    }
}

#[test]
fn who_does_not_wait_is_answered_at_once() {
    read_captured(captured!("java-5.5.0-send-unflushed"), |send| {
        assert_eq!(send.expect("a send").level, Some(Level::Accepted));
    });
}

#[test]
fn who_receives_a_delayed_message_is_told_of_its_delay() {
    read_captured(captured!("java-5.5.0-send-delayed"), |send| {
        let send = send.expect("a send");
        let mut message = single(&send).clone();
        assert!(matches!(message.delay, Some(Delay::Level(3))), "{:?}", message.delay);
        assert_eq!(
            message.take_due(Timestamp(1_000), &send.topic, 2, &DelayLevels::default()),
            Ok(Some(Timestamp(11_000)))
        );
        let text = String::from_utf8_lossy(&message.properties).into_owned();
        let said = format!("DELAY\u{1}3\u{2}REAL_TOPIC\u{1}{}\u{2}REAL_QID\u{1}2\u{2}", send.topic);
        assert!(text.ends_with(&said), "{text}");
        assert_eq!(
            message.take_due(Timestamp(1_000), &send.topic, 2, &DelayLevels::default()),
            Ok(None),
            "once"
        );
    });
}

#[test]
fn a_half_waits_for_its_producers_commit() {
    let half = |properties: &str| {
        let mut fields = Fields::default();
        let usual = [("a", "g"), ("b", "t"), ("c", "TBW102"), ("d", "4"), ("e", "0"), ("g", "1"), ("h", "0")];
        let own = [("f", "4"), ("i", properties)];
        for (name, value) in usual.into_iter().chain(own) {
            fields.push(name.as_bytes().into(), value.as_bytes().to_vec().into());
        }
        let code = request::SEND_MESSAGE_V2;
        let header =
            Header { code, language: Language::Java, version: 409, opaque: 1, flag: 0, remark: None, fields };
        let send = Send::read(&header, b"body", BORN.parse().expect("an address")).expect("a half");
        let message = single(&send);
        assert!(message.attributes.committed, "once it is seen, it was");
        message.release.clone()
    };
    let release = |seconds| {
        let producer_group = Some("pg".parse().expect("a name"));
        Some(Release::Commit { producer_group, immunity: Duration::from_secs(seconds) })
    };
    let of_group = "TRAN_MSG\u{1}true\u{2}PGROUP\u{1}pg\u{2}";
    assert_eq!(half(of_group), release(0));
    for (said, seconds) in [("90", 90), ("soon", 0), ("-1", 0), ("", 0)] {
        let text = format!("{of_group}CHECK_IMMUNITY_TIME_IN_SECONDS\u{1}{said}\u{2}");
        assert_eq!(half(&text), release(seconds), "{said}");
    }
}

#[test]
fn a_time_is_refused_that_is_none_or_too_far_off_and_one_that_has_passed_is_none() {
    let message = |delay| SingleMessage {
        born_time: Timestamp(0),
        key: b"",
        tag: b"",
        properties: Vec::new(),
        body: b"",
        attributes: Attributes::default(),
        origin: Origin::new(0, 0, BORN.parse().expect("an address")),
        unique_id: b"",
        release: None,
        delay: Some(delay),
    };
    let topic = "t".parse().expect("a name");
    let due = |delay| {
        message(delay)
            .take_due(Timestamp(1_000), &topic, 0, &DelayLevels::default())
            .map_err(|error| error.code)
    };
    assert_eq!(due(Delay::At(Timestamp(1_000))), Ok(None));
    assert_eq!(due(Delay::At(Timestamp(1_001))), Ok(Some(Timestamp(1_001))));
    let last = 1_000 + limits::DELAY_MS_MAX;
    assert_eq!(due(Delay::At(Timestamp(last))), Ok(Some(Timestamp(last))));
    assert_eq!(due(Delay::At(Timestamp(last + 1))), Err(ResponseCode::MessageIllegal));
    assert_eq!(due(Delay::Unreadable(b"soon")), Err(ResponseCode::MessageIllegal));
}

/// The fields of a send, by its short names, with some of them changed; `None` takes one away.
fn refused(changes: &[(&'static str, Option<&str>)], body: &[u8]) -> Result<(), (i32, String)> {
    let usual =
        [("a", "g"), ("b", "t"), ("c", "TBW102"), ("d", "4"), ("e", "0"), ("f", "0"), ("g", "1"), ("h", "0")];
    let mut entries: Vec<_> = usual.iter().map(|(name, value)| (*name, Some(*value))).collect();
    entries.extend_from_slice(changes);
    let mut fields = Fields::default();
    for (name, value) in entries {
        // A field that is no number, or no text, is one that is not there.
        let value = value.unwrap_or("\u{0}none");
        fields.push(name.as_bytes().into(), value.as_bytes().to_vec().into());
    }
    let header = Header {
        code: request::SEND_MESSAGE_V2,
        language: Language::Java,
        version: 409,
        opaque: 1,
        flag: 0,
        remark: None,
        fields,
    };
    let born = BORN.parse().expect("an address");
    Send::read(&header, body, born).map(|_| ()).map_err(|refusal| (refusal.code.number(), refusal.remark))
}

#[test]
fn refusals_have_rocketmqs_numbers() {
    assert_eq!(refused(&[], b"body"), Ok(()));
    let long = "x".repeat(128);
    let properties = "p\u{1}v\u{2}".repeat(limits::PROPERTIES_BYTES_MAX / 4 + 1);
    for (name, value, code) in [
        ("e", None, 1),
        ("b", Some(""), 29),
        ("b", Some("a b"), 29),
        ("b", Some(&long[..]), 29),
        ("b", Some(concat!("SCHEDULE_TOPIC_XX", "XX")), 16),
        ("b", Some("%RETRY%"), 29),
        ("i", Some(&properties[..]), 13),
        ("i", Some("KEYS\u{1}a\tb\u{2}"), 13),
        ("i", Some("TAGS\u{1}a||b\u{2}"), 13),
        ("i", Some("TRAN_MSG\u{1}true\u{2}"), 13),
        ("f", Some("4"), 13),
        ("f", Some("1025"), 13),
        ("m", Some("true"), 13),
    ] {
        let (found, remark) = refused(&[(name, value)], b"body").expect_err(name);
        assert_eq!(found, code, "{name} = {value:?}: {remark}");
        assert!(!remark.is_empty());
    }
    let body = vec![0; limits::BODY_BYTES_MAX + 1];
    assert_eq!(refused(&[], &body), Err((13, too_large().remark)));
}

#[test]
fn any_queue_is_asked_for_by_a_number_below_zero() {
    let header = |queue: &str| {
        let mut fields = Fields::default();
        for (name, value) in [
            ("a", "g"),
            ("b", "t"),
            ("c", "TBW102"),
            ("d", "1000"),
            ("e", queue),
            ("f", "0"),
            ("g", "-1"),
            ("h", "-7"),
        ] {
            fields.push(name.as_bytes().to_vec().into(), value.as_bytes().to_vec().into());
        }
        Header {
            code: request::SEND_MESSAGE_V2,
            language: Language::Go,
            version: 317,
            opaque: 1,
            flag: 0,
            remark: None,
            fields,
        }
    };
    let born = BORN.parse().expect("an address");
    let header = header("-1");
    let send = Send::read(&header, b"", born).expect("a send");
    assert_eq!((send.queue, send.queues_wished), (None, Some(WISHED_QUEUES_MAX)));
    assert_eq!((single(&send).origin.flag, single(&send).born_time), (-7_i32 as u32, Timestamp(0)));
}

#[test]
fn an_answer_has_the_id_of_every_message() {
    let location = RecordLocation { position: LogPosition(16), index: 1 };
    let sent = Sent {
        stored: Stored { offset: QueueOffset(7), location, store_time: Timestamp(1), level: Level::Durable },
        message_count: 2,
        queue: 3,
        address: Some("127.0.0.1:10911".parse().expect("an address")),
        unique_id: Some("ID"),
        recall_handle: None,
        stages: None,
    };
    let mut output = Vec::new();
    sent.write(42, HeaderForm::Json, &mut output);
    let header = br#"{"code":0,"extFields":{"msgId":"7F00000100002A9F0000000000020001,7F00000100002A9F0000000000020002","queueId":"3","queueOffset":"7","MSG_REGION":"DefaultRegion","TRACE_ON":"true","transactionId":"ID"},"flag":1,"language":"JAVA","opaque":42,"version":479}"#;
    assert_eq!(&output[8..], header);
}

/// The smallest messages become the longest by what is stored with each.
#[test]
fn a_batch_takes_no_more_than_is_reserved_for_it() {
    let mut body = Vec::new();
    let count = 1_000;
    for _ in 0..count {
        InnerMessage { flag: 0, body: b"", properties: b"" }.write(&mut body);
    }
    let mut fields = Fields::default();
    for (name, value) in
        [("a", "g"), ("b", "t"), ("c", "TBW102"), ("d", "4"), ("e", "0"), ("f", "0"), ("g", "1"), ("h", "0")]
    {
        fields.push(name.as_bytes().into(), value.as_bytes().into());
    }
    let header = Header {
        code: request::SEND_BATCH_MESSAGE,
        language: Language::Java,
        version: 409,
        opaque: 1,
        flag: 0,
        remark: None,
        fields,
    };
    let send = Send::read(&header, &body, "[::2]:1".parse().expect("an address")).expect("a send");
    let Messages::Batch(batch) = &send.messages else { panic!("a batch") };
    let (taken, reserved) = (batch.view().batch_bytes(), built_bytes(&header, &body));
    assert!(taken <= reserved, "{taken} of {reserved} bytes");
    assert_eq!(batch.view().record_count(), count);
    let single = Header { code: request::SEND_MESSAGE_V2, ..header.clone() };
    assert_eq!(built_bytes(&single, &body), 0);
}
