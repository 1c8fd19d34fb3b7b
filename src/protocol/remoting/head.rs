//! What goes out ahead of a body: the header of an answer, or of a request to a client.

use super::code::ResponseCode;
use super::fields::FieldValue;
use super::frame;
use super::header::{ANSWER, Header, HeaderForm, ONE_WAY};
use super::language::Language;
use super::refusal::Refusal;
use super::{header_binary, header_json, json_writer};

/// The release of RocketMQ whose behaviour this is, as an ordinal in `common/.../MQVersion.java`: 5.3.3. Clients ask for
/// filters in SQL only of brokers from 232 on.
pub const BROKER_VERSION: i32 = 479;

/// A header that goes out. What it says of the sender is what clients expect of a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    pub code: i32,
    pub language: Language,
    pub version: i32,
    pub opaque: i32,
    pub flag: i32,
    pub remark: Option<&'a str>,
    /// With names that are theirs: no control characters. All that a code has, or none: clients take one for all.
    pub fields: &'a [(&'a str, FieldValue<'a>)],
}

impl Default for Head<'_> {
    fn default() -> Self {
        Self {
            code: 0,
            language: Language::Java,
            version: BROKER_VERSION,
            opaque: 0,
            flag: 0,
            remark: None,
            fields: &[],
        }
    }
}

impl<'a> Head<'a> {
    /// The answer to a request.
    pub fn answer(request: &Header<'_>, code: ResponseCode) -> Self {
        Self::answer_to(request.opaque, code)
    }

    /// The answer to the request of that number, for one that is answered when its header is gone.
    pub fn answer_to(opaque: i32, code: ResponseCode) -> Self {
        Self { code: code.number(), opaque, flag: ANSWER, ..Self::default() }
    }

    /// A refusal of a request, in words.
    pub fn refusal(request: &Header<'_>, code: ResponseCode, remark: &'a str) -> Self {
        Self { remark: Some(remark), ..Self::answer(request, code) }
    }

    /// The refusal of the request of that number.
    pub fn refusal_of(opaque: i32, refusal: &'a Refusal) -> Self {
        Self { remark: Some(&refusal.remark), ..Self::answer_to(opaque, refusal.code) }
    }

    /// A request that is not to be answered.
    pub fn one_way(code: i32, opaque: i32) -> Self {
        Self { code, opaque, flag: ONE_WAY, ..Self::default() }
    }

    /// Appends the frame up to its body, of which the caller appends exactly `body_bytes`.
    pub fn begin(&self, form: HeaderForm, body_bytes: usize, output: &mut Vec<u8>) {
        frame::begin(output, form, body_bytes, |output| match form {
            HeaderForm::Json => header_json::write(self, output),
            HeaderForm::Binary => header_binary::write(self, output),
        });
    }

    /// Appends the whole frame.
    pub fn write(&self, form: HeaderForm, body: &[u8], output: &mut Vec<u8>) {
        self.begin(form, body.len(), output);
        output.extend_from_slice(body);
    }
}

impl FieldValue<'_> {
    /// Appends the value as text; `push` appends text that may hold anything.
    pub(super) fn append(&self, output: &mut Vec<u8>, push: impl FnOnce(&mut Vec<u8>, &[u8])) {
        match *self {
            FieldValue::Text(text) => push(output, text.as_bytes()),
            FieldValue::Bytes(bytes) => push(output, bytes),
            FieldValue::Number(number) => json_writer::push_number(output, number),
            FieldValue::Boolean(true) => output.extend_from_slice(b"true"),
            FieldValue::Boolean(false) => output.extend_from_slice(b"false"),
        }
    }
}
