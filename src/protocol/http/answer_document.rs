//! The documents that answers carry.
//!
//! XML 1.0 cannot tell every byte: control characters but three have no form at all, not even as a numeric reference, and
//! bytes that are no UTF-8 are none of its business. A body that came by another protocol and cannot be told is sent in
//! base64 with the property [`BODY_ENCODING`] saying so: nothing is lost, and no reader mistakes mangled text for the
//! message. `MessageBodyMD5` is that of the stored bytes either way. In tags and messages of errors, which people read,
//! such a character becomes U+FFFD.
//!
//! The Python client takes the first child of an element for its whole text, and an element without children for a
//! missing one. So text is escaped rather than put in a CDATA section, and an empty body is written as an empty comment.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use md5::{Digest as _, Md5};

use super::answer::{Answer, Part, reference};
use super::error::{ErrorCode, HttpError};
use super::request_id::RequestId;
use super::xml::{forbidden_character, is_xml_character};
use crate::types::Timestamp;

pub const NAMESPACE: &str = "http://mq.aliyuncs.com/doc/v1/";
/// The name space of an `Error` lacks the slash. The vendor's Java client looks for elements in exactly this one
/// (`com/aliyun/mq/http/model/ErrorMessage.java`), and calls every other document damaged; the others do not look.
pub const ERROR_NAMESPACE: &str = "http://mq.aliyuncs.com/doc/v1";
/// The property that says how a body was encoded because XML cannot tell it.
pub const BODY_ENCODING: &str = "__BODYENCODING";

/// A body of more bytes is written while the answer goes out.
const INLINE_BYTES_MAX: usize = 16 * 1024;

const PROLOGUE: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

/// What a publisher is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedMessage {
    pub message_id: String,
    /// Of a transaction's half only: what commits it or rolls it back.
    pub receipt_handle: Option<String>,
}

/// What a consumer gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveredMessage {
    pub message_id: String,
    pub receipt_handle: String,
    pub body: Bytes,
    pub tag: Option<String>,
    /// In their text form.
    pub properties: String,
    pub publish_time: Timestamp,
    pub first_consume_time: Timestamp,
    /// The end of the lease.
    pub next_consume_time: Timestamp,
    /// Deliveries so far, this one included.
    pub attempt: u32,
}

/// A receipt handle that was not acknowledged, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandleFailure {
    pub receipt_handle: String,
    pub code: ErrorCode,
    pub message: String,
}

const HEXADECIMAL: &[u8; 16] = b"0123456789ABCDEF";

/// The check value of a body: MD5 in upper-case hexadecimal digits.
pub fn body_md5(body: &[u8]) -> String {
    md5_text(&Md5::digest(body))
}

/// The check value from a digest that was made piece by piece.
pub fn md5_text(digest: &[u8]) -> String {
    let digits = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let text = digits.map(|digit| HEXADECIMAL[usize::from(digit)]).collect();
    String::from_utf8(text).expect("hexadecimal digits")
}

/// The `Message` that answers a publish; `md5` is the [`body_md5`] of what was published.
pub fn write_published(published: &PublishedMessage, md5: &str) -> String {
    let mut document = Document::new("Message", 256);
    document.element("MessageId", &published.message_id);
    document.element("MessageBodyMD5", md5);
    if let Some(handle) = &published.receipt_handle {
        document.element("ReceiptHandle", handle);
    }
    document.finish()
}

/// The `Messages` that answer a consume, as they are put together.
pub struct MessagesDocument(Document);

impl MessagesDocument {
    pub fn new(messages: &[DeliveredMessage]) -> Self {
        let inline = |message: &DeliveredMessage| message.body.len().min(INLINE_BYTES_MAX) + 1024;
        Self(Document::new("Messages", messages.iter().map(inline).sum()))
    }

    /// Adds a message; `md5` is the [`body_md5`] of its body.
    pub fn push(&mut self, message: &DeliveredMessage, md5: &str) {
        self.0.open("Message");
        self.0.message(message, md5);
        self.0.close("Message");
    }

    pub fn finish(self) -> Answer {
        self.0.finish_parts()
    }
}

/// The `Messages` in one piece.
pub fn write_messages(messages: &[DeliveredMessage]) -> String {
    let mut document = MessagesDocument::new(messages);
    messages.iter().for_each(|message| document.push(message, &body_md5(&message.body)));
    String::from_utf8(document.finish().into_bytes().to_vec()).expect("every part is text")
}

/// The `Error` that answers what was not carried out. `host` is where the request was sent, as the client named it.
pub fn write_error(error: &HttpError, request_id: RequestId, host: &str) -> String {
    let mut document = Document::within(ERROR_NAMESPACE, "Error", 512);
    document.element("Code", error.code.name());
    document.element("Message", &error.message);
    document.element("RequestId", &request_id.to_string());
    document.element("HostId", host);
    document.finish()
}

/// The `Errors` that answer an acknowledgement of which some or all handles failed. An entry holds these three elements
/// and no other: the client calls anything else damaged.
pub fn write_errors(failures: &[HandleFailure]) -> String {
    let mut document = Document::new("Errors", failures.len() * 512);
    for failure in failures {
        document.open("Error");
        document.element("ErrorCode", failure.code.name());
        document.element("ErrorMessage", &failure.message);
        document.element("ReceiptHandle", &failure.receipt_handle);
        document.close("Error");
    }
    document.finish()
}

/// A document that is being written.
struct Document {
    root: &'static str,
    /// What comes before the text.
    parts: VecDeque<Part>,
    text: String,
}

impl Document {
    fn new(root: &'static str, bytes: usize) -> Self {
        Self::within(NAMESPACE, root, bytes)
    }

    fn within(namespace: &str, root: &'static str, bytes: usize) -> Self {
        let mut text = String::with_capacity(PROLOGUE.len() + namespace.len() + 64 + bytes);
        text.extend([PROLOGUE, "<", root, " xmlns=\"", namespace, "\">"]);
        Self { root, parts: VecDeque::new(), text }
    }

    /// For documents of text alone.
    fn finish(mut self) -> String {
        assert!(self.parts.is_empty(), "{} has large bodies", self.root);
        self.close(self.root);
        self.text
    }

    fn finish_parts(mut self) -> Answer {
        self.close(self.root);
        self.parts.push_back(Part::Ready(self.text.into()));
        Answer::of_parts(self.parts)
    }

    /// An element with this in it, which is written later.
    fn later(&mut self, name: &str, part: Part) {
        self.open(name);
        let before = std::mem::take(&mut self.text);
        self.parts.extend([Part::Ready(before.into()), part]);
        self.close(name);
    }

    fn open(&mut self, name: &str) {
        self.text.extend(["<", name, ">"]);
    }

    fn close(&mut self, name: &str) {
        self.text.extend(["</", name, ">"]);
    }

    /// An element with text in it. Clients take one without for a missing one.
    fn element(&mut self, name: &str, text: &str) {
        self.open(name);
        if text.is_empty() {
            self.text.push_str("<!---->");
        }
        escape(text, &mut self.text);
        self.close(name);
    }

    fn number(&mut self, name: &str, value: u64) {
        self.open(name);
        let _ = write!(self.text, "{value}");
        self.close(name);
    }

    fn message(&mut self, message: &DeliveredMessage, md5: &str) {
        self.element("MessageId", &message.message_id);
        self.element("MessageBodyMD5", md5);
        let mut properties = Cow::Borrowed(&message.properties[..]);
        let is_large = message.body.len() > INLINE_BYTES_MAX;
        match tellable(&message.body) {
            Some(_) if is_large => self.later("MessageBody", Part::Escaped(message.body.clone())),
            Some(text) => self.element("MessageBody", text),
            None => {
                if is_large {
                    self.later("MessageBody", Part::Base64(message.body.clone()));
                } else {
                    self.element("MessageBody", &STANDARD.encode(&message.body));
                }
                properties.to_mut().extend([BODY_ENCODING, ":base64|"]);
            }
        }
        self.element("ReceiptHandle", &message.receipt_handle);
        self.number("PublishTime", message.publish_time.0);
        self.number("FirstConsumeTime", message.first_consume_time.0);
        self.number("NextConsumeTime", message.next_consume_time.0);
        self.number("ConsumedTimes", message.attempt.into());
        if let Some(tag) = message.tag.as_deref().filter(|tag| !tag.is_empty()) {
            self.element("MessageTag", tag);
        }
        if !properties.is_empty() {
            self.element("Properties", &properties);
        }
    }
}

/// The body as text, if XML can tell it.
fn tellable(body: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(body).ok()?;
    forbidden_character(text).is_none().then_some(text)
}

/// Appends text so that a reader gets it back.
fn escape(text: &str, output: &mut String) {
    // Most texts need nothing: this looks at all bytes without a branch.
    let needs = |byte: u8| matches!(byte, b'&' | b'<' | b'>' | b'"' | 0xEF) | (byte < b' ');
    if !text.bytes().fold(false, |any, byte| any | needs(byte)) {
        output.push_str(text);
        return;
    }
    let mut plain_from = 0;
    for (index, character) in text.char_indices() {
        let written = match u8::try_from(character).ok().and_then(reference) {
            Some(reference) => reference,
            None if is_xml_character(character) => continue,
            None => "\u{FFFD}",
        };
        output.push_str(&text[plain_from..index]);
        output.push_str(written);
        plain_from = index + character.len_utf8();
    }
    output.push_str(&text[plain_from..]);
}

#[cfg(test)]
mod tests;
