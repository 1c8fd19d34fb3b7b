//! Requests that are not carried out.

use super::code::ResponseCode;
use super::fields::FieldError;
use super::status::{Asked, code_of, remark_of};
use crate::api::Failure;

/// What a client is told, and people are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Never `Success`.
    pub code: ResponseCode,
    pub remark: String,
}

impl Refusal {
    pub fn new(code: ResponseCode, remark: impl Into<String>) -> Self {
        Self { code, remark: remark.into() }
    }

    /// Of a request that the broker has not carried out, for a client of that version.
    pub fn of(failure: &Failure, asked: Asked, client_version: i32) -> Self {
        Self { code: code_of(failure.status, asked, client_version), remark: remark_of(failure) }
    }

    /// Of a request that this release does not carry out. It is never taken and forgotten.
    pub fn unsupported(what: &str) -> Self {
        let remark = format!("{what} is not supported by this release of turbopump over RocketMQ's protocol");
        Self::new(ResponseCode::RequestCodeNotSupported, remark)
    }
}

/// As in RocketMQ, where reading a header fails with an exception.
impl From<FieldError> for Refusal {
    fn from(error: FieldError) -> Self {
        Self::new(ResponseCode::SystemError, error.to_string())
    }
}
