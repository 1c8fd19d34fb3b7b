//! What stands in a frame's header, whichever of the two forms it has.

use super::fields::Fields;
use super::language::Language;
use super::scanner::JsonError;
use super::{header_binary, header_json};
use crate::limits;

/// The form of a header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderForm {
    #[default]
    Json,
    /// RocketMQ calls it `ROCKETMQ`.
    Binary,
}

/// A header inside a receive buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Of a request, or of an answer.
    pub code: i32,
    pub language: Language,
    /// What the sender is, as an ordinal in `common/.../MQVersion.java`.
    pub version: i32,
    /// Chosen by the one who asks, returned with the answer.
    pub opaque: i32,
    pub flag: i32,
    /// Text for people.
    pub remark: Option<Box<str>>,
    pub fields: Fields<'a>,
}

/// Why a header is none. The connection ends: there is nothing to answer to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("the header is no JSON: {0}")]
    Json(#[from] JsonError),
    #[error("the header has no number as `{0}`")]
    Number(&'static str),
    #[error("the header ends within its {0}")]
    Truncated(&'static str),
    #[error("the header has more than {max} fields", max = limits::REMOTING_FIELDS_MAX)]
    TooManyFields,
}

/// In `flag`: the frame is an answer.
pub(super) const ANSWER: i32 = 1;
/// In `flag`: no answer is wanted.
pub(super) const ONE_WAY: i32 = 2;

impl HeaderForm {
    pub fn number(self) -> u8 {
        match self {
            HeaderForm::Json => 0,
            HeaderForm::Binary => 1,
        }
    }

    pub(super) fn of(number: u8) -> Option<Self> {
        match number {
            0 => Some(HeaderForm::Json),
            1 => Some(HeaderForm::Binary),
            _ => None,
        }
    }
}

impl<'a> Header<'a> {
    pub fn read(form: HeaderForm, bytes: &'a [u8]) -> Result<Self, HeaderError> {
        match form {
            HeaderForm::Json => header_json::read(bytes),
            HeaderForm::Binary => header_binary::read(bytes),
        }
    }

    pub fn is_answer(&self) -> bool {
        self.flag & ANSWER != 0
    }

    /// Whether the sender wants no answer. Clients in C++ and Go do not say so, and take one.
    pub fn is_one_way(&self) -> bool {
        self.flag & ONE_WAY != 0
    }
}
