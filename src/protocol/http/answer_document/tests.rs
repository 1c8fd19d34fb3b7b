use super::super::RequestIds;
use super::*;
use crate::protocol::http::parse_publish;
use crate::types::ShardId;

fn delivered(body: &[u8]) -> DeliveredMessage {
    DeliveredMessage {
        message_id: "ID1".into(),
        receipt_handle: "h-1".into(),
        body: Bytes::copy_from_slice(body),
        tag: Some("t&g".into()),
        properties: "KEYS:k|a:1|".into(),
        publish_time: Timestamp(1),
        first_consume_time: Timestamp(2),
        next_consume_time: Timestamp(3),
        attempt: 4,
    }
}

#[test]
fn documents_are_byte_for_byte_these() {
    let prologue = |root: &str| {
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{root} xmlns=\"http://mq.aliyuncs.com/doc/v1/\">"
        )
    };
    let published = PublishedMessage { message_id: "ID1".into(), receipt_handle: None };
    let expected = "<MessageId>ID1</MessageId><MessageBodyMD5>900150983CD24FB0D6963F7D28E17F72</MessageBodyMD5></Message>";
    assert_eq!(write_published(&published, &body_md5(b"abc")), prologue("Message") + expected);
    let published = PublishedMessage { receipt_handle: Some("h".into()), ..published };
    assert!(
        write_published(&published, &body_md5(b"abc"))
            .ends_with("<ReceiptHandle>h</ReceiptHandle></Message>")
    );
    let expected = "<Message><MessageId>ID1</MessageId><MessageBodyMD5>900150983CD24FB0D6963F7D28E17F72</MessageBodyMD5>\
        <MessageBody>abc</MessageBody><ReceiptHandle>h-1</ReceiptHandle><PublishTime>1</PublishTime>\
        <FirstConsumeTime>2</FirstConsumeTime><NextConsumeTime>3</NextConsumeTime><ConsumedTimes>4</ConsumedTimes>\
        <MessageTag>t&amp;g</MessageTag><Properties>KEYS:k|a:1|</Properties></Message></Messages>";
    assert_eq!(write_messages(&[delivered(b"abc")]), prologue("Messages") + expected);
    let id = RequestIds::new(ShardId(1)).next(Timestamp(0));
    let error = write_error(&HttpError::new(ErrorCode::MalformedXml, "a < b"), id, "http://h:1");
    let expected = "<Code>MalformedXML</Code><Message>a &lt; b</Message><RequestId>000000000000000100000000</RequestId>\
        <HostId>http://h:1</HostId></Error>";
    assert_eq!(error, prologue("Error").replace("/v1/", "/v1") + expected);
    let failure = HandleFailure {
        receipt_handle: "x".into(),
        code: ErrorCode::ReceiptHandleError,
        message: "gone".into(),
    };
    let expected = "<Error><ErrorCode>ReceiptHandleError</ErrorCode><ErrorMessage>gone</ErrorMessage>\
        <ReceiptHandle>x</ReceiptHandle></Error></Errors>";
    assert_eq!(write_errors(&[failure]), prologue("Errors") + expected);
}

/// What one document says, another parser reads: the requests' own.
#[test]
fn every_body_comes_back() {
    let large = "<\u{4f60}\r\"&>".repeat(INLINE_BYTES_MAX);
    let bodies: [&[u8]; 11] = [
        b"plain",
        b" \t\r\n\r kept ",
        b"<a b=\"c\">&amp;]]></a>",
        "\u{4f60}\u{597d} \u{1F600} \u{FFFD} \u{85}".as_bytes(),
        b"\0",
        b"nul \x0b",
        b"\xff\xfe",
        "\u{FFFE}".as_bytes(),
        b"\xed\xa0\x80",
        large.as_bytes(),
        &vec![0xFF; INLINE_BYTES_MAX + 1],
    ];
    for body in bodies {
        let document = write_messages(&[delivered(body)]);
        let inner =
            document.split_once("<Message>").expect("one").1.rsplit_once("</Message>").expect("one").0;
        let read = parse_publish(format!("<Message>{inner}</Message>").as_bytes()).expect("well formed");
        let read_body = match read.properties.get(BODY_ENCODING) {
            Some("base64") => STANDARD.decode(&read.body).expect("base64"),
            _ => read.body.into_bytes(),
        };
        assert_eq!(read_body, body);
        assert!(document.contains(&body_md5(body)), "the value is that of the stored bytes");
        assert_eq!(read.tag.as_deref(), Some("t&g"));
    }
}

#[test]
fn what_people_read_is_never_broken_by_what_they_sent() {
    let id = RequestIds::new(ShardId(1)).next(Timestamp(0));
    let error = write_error(&HttpError::invalid("`\u{0}\u{1b}[2J</Message>`"), id, "");
    assert!(error.contains("<Message>`\u{FFFD}\u{FFFD}[2J&lt;/Message&gt;`</Message>"), "{error}");
    assert!(error.contains("<HostId><!----></HostId>"), "{error}");
    assert!(write_messages(&[delivered(b"")]).contains("<MessageBody><!----></MessageBody>"));
}
