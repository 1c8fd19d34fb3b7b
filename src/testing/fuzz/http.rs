//! The HTTP protocol's readers: arbitrary bytes are refused with a sentence or understood, and what was understood says
//! the same when it is written and read again.

use bytes::Bytes;
use http::Method;

use crate::api::Filter;
use crate::limits;
use crate::protocol::http::{
    BODY_ENCODING, Call, DeliveredMessage, Properties, parse_publish, parse_receipt_handles, write_messages,
};
use crate::types::Timestamp;

/// Reads `bytes` as each of the documents that clients send.
pub fn fuzz_document(bytes: &[u8]) {
    if let Ok(handles) = parse_receipt_handles(bytes) {
        let count = handles.handles.len() + handles.failures.len();
        assert!((1..=limits::HTTP_RECEIVE_MESSAGES_MAX).contains(&count));
        let fits = |handle: &String| (1..=limits::RECEIPT_HANDLE_BYTES_MAX).contains(&handle.len());
        assert!(handles.handles.iter().all(fits));
    }
    match parse_publish(bytes) {
        Err(error) => assert!(!error.message.is_empty(), "a refusal says why"),
        Ok(message) => {
            let body = Bytes::copy_from_slice(message.body.as_bytes());
            let mut properties = String::new();
            message.properties.write(&mut properties);
            let again = through_document(body, message.tag.clone(), properties);
            assert_eq!(parse_publish(again.as_bytes()), Ok(message));
        }
    }
}

/// Writes `bytes` as the body of a message: whatever they are, a document comes out that says them.
pub fn fuzz_body(bytes: &[u8]) {
    let document = through_document(Bytes::copy_from_slice(bytes), None, String::new());
    match parse_publish(document.as_bytes()) {
        Ok(message) if message.properties.get(BODY_ENCODING).is_none() => {
            assert_eq!(message.body.as_bytes(), bytes);
        }
        Ok(message) => assert!(message.body.is_ascii(), "base64"),
        Err(error) => assert!(bytes.is_empty(), "{error}: {document}"),
    }
}

/// Reads `bytes` as properties.
pub fn fuzz_properties(bytes: &[u8]) {
    let Ok(properties) = Properties::parse(&String::from_utf8_lossy(bytes)) else { return };
    let mut text = String::new();
    properties.write(&mut text);
    assert_eq!(Properties::parse(&text), Ok(properties));
}

/// Reads `bytes` as a target, alone and after the path of a topic.
pub fn fuzz_target(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for target in [text.clone().into_owned(), format!("/topics/t/messages?consumer=g&{text}")] {
        for method in [Method::GET, Method::POST, Method::DELETE, Method::PUT] {
            match Call::parse(&method, &target) {
                Err(error) => assert!(!error.message.is_empty(), "a refusal says why"),
                Ok(Call::Consume(consume)) => {
                    assert!((1..=limits::HTTP_RECEIVE_MESSAGES_MAX).contains(&usize::from(consume.count)));
                    assert!(consume.wait.as_secs() <= limits::HTTP_RECEIVE_WAIT_SECONDS_MAX);
                    match &consume.filter {
                        Filter::Tags(tags) => assert!(tags.tags().len() <= limits::FILTER_TAGS_MAX),
                        Filter::Expression(expression) => {
                            assert!(expression.text().len() <= limits::EXPRESSION_BYTES_MAX);
                        }
                    }
                }
                Ok(_) => assert!(method != Method::PUT),
            }
        }
    }
}

/// The message element of an answer with these in it.
fn through_document(body: Bytes, tag: Option<String>, properties: String) -> String {
    let zero = Timestamp(0);
    let message = DeliveredMessage {
        message_id: "id".into(),
        receipt_handle: "handle".into(),
        body,
        tag,
        properties,
        publish_time: zero,
        first_consume_time: zero,
        next_consume_time: zero,
        attempt: 1,
    };
    let document = write_messages(&[message]);
    let start = document.find("<Message>").expect("one message");
    let end = document.rfind("</Messages>").expect("its end");
    document[start..end].to_owned()
}
