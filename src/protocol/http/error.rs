//! What a request that was not carried out is answered: a code that clients test for, its HTTP status, and a sentence.

use http::StatusCode;

use crate::api::{Failure, Status};

/// The codes of the protocol, each with one HTTP status. The first eight are those that the vendor's clients know; the
/// rest say more with the status than with the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    InvalidArgument,
    MalformedXml,
    AccessDenied,
    TopicNotExist,
    SubscriptionNotExist,
    /// Nothing to receive: the usual answer to a consumer that has read everything.
    MessageNotExist,
    /// A receipt handle that is expired, used, foreign or forged.
    ReceiptHandleError,
    ServerError,
    /// A path that is none of the protocol's.
    PathNotExist,
    MethodNotAllowed,
    BodyTooLarge,
    /// A request line and header fields beyond the limit.
    HeadTooLarge,
    /// A request that did not come in whole in time.
    RequestTimeout,
    /// The broker cannot do this: `ServerError` to clients, with its own status.
    NotImplemented,
    /// Not now; nothing was stored. `ServerError` to clients, with its own status.
    Unavailable,
}

impl ErrorCode {
    /// Every code, for tests.
    pub const ALL: [ErrorCode; 15] = [
        ErrorCode::InvalidArgument,
        ErrorCode::MalformedXml,
        ErrorCode::AccessDenied,
        ErrorCode::TopicNotExist,
        ErrorCode::SubscriptionNotExist,
        ErrorCode::MessageNotExist,
        ErrorCode::ReceiptHandleError,
        ErrorCode::ServerError,
        ErrorCode::PathNotExist,
        ErrorCode::MethodNotAllowed,
        ErrorCode::BodyTooLarge,
        ErrorCode::HeadTooLarge,
        ErrorCode::RequestTimeout,
        ErrorCode::NotImplemented,
        ErrorCode::Unavailable,
    ];

    /// The text in a document's `Code`.
    pub fn name(self) -> &'static str {
        match self {
            ErrorCode::InvalidArgument => "InvalidArgument",
            ErrorCode::MalformedXml => "MalformedXML",
            ErrorCode::AccessDenied => "AccessDenied",
            ErrorCode::TopicNotExist => "TopicNotExist",
            ErrorCode::SubscriptionNotExist => "SubscriptionNotExist",
            ErrorCode::MessageNotExist => "MessageNotExist",
            ErrorCode::ReceiptHandleError => "ReceiptHandleError",
            ErrorCode::PathNotExist => "PathNotExist",
            ErrorCode::MethodNotAllowed => "MethodNotAllowed",
            ErrorCode::BodyTooLarge => "BodyTooLarge",
            ErrorCode::HeadTooLarge => "HeadTooLarge",
            ErrorCode::RequestTimeout => "RequestTimeout",
            ErrorCode::ServerError | ErrorCode::NotImplemented | ErrorCode::Unavailable => "ServerError",
        }
    }

    /// The status line. Clients read a document from 400 to 600 only.
    pub fn status(self) -> StatusCode {
        match self {
            ErrorCode::InvalidArgument | ErrorCode::MalformedXml => StatusCode::BAD_REQUEST,
            ErrorCode::AccessDenied => StatusCode::FORBIDDEN,
            ErrorCode::TopicNotExist
            | ErrorCode::SubscriptionNotExist
            | ErrorCode::MessageNotExist
            | ErrorCode::ReceiptHandleError
            | ErrorCode::PathNotExist => StatusCode::NOT_FOUND,
            ErrorCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            ErrorCode::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorCode::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            ErrorCode::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            ErrorCode::ServerError => StatusCode::INTERNAL_SERVER_ERROR,
            ErrorCode::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// Why a request gets no other answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({})", code.name())]
pub struct HttpError {
    pub code: ErrorCode,
    pub message: String,
}

impl HttpError {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// An argument that is wrong in itself.
    pub fn invalid(message: impl std::fmt::Display) -> Self {
        Self::new(ErrorCode::InvalidArgument, message.to_string())
    }
}

impl From<Failure> for HttpError {
    fn from(failure: Failure) -> Self {
        Self { code: code_of(failure.status), message: failure.message }
    }
}

/// The code for an outcome. `Ok` is none: a failure never has it, and a program that asks is told of an error of ours.
pub fn code_of(status: Status) -> ErrorCode {
    match status {
        Status::InvalidArgument | Status::MessageTooLarge | Status::OffsetOutOfRange => {
            ErrorCode::InvalidArgument
        }
        // A transaction that was decided on, or given up: its handle is that of no message any more.
        Status::ReceiptExpired => ErrorCode::MessageNotExist,
        Status::TopicNotExist | Status::QueueNotExist => ErrorCode::TopicNotExist,
        Status::GroupNotExist => ErrorCode::SubscriptionNotExist,
        Status::UnsupportedVersion | Status::UnsupportedRequest => ErrorCode::NotImplemented,
        Status::LimitReached
        | Status::Busy
        | Status::NoSpace
        | Status::ShuttingDown
        | Status::StorageFailed => ErrorCode::Unavailable,
        Status::Unauthenticated | Status::PermissionDenied => ErrorCode::AccessDenied,
        // What another shard or the disk made of a request is none of the client's mistakes.
        Status::Ok
        | Status::MalformedFrame
        | Status::ChecksumMismatch
        | Status::TopicExists
        | Status::MemberUnknown
        | Status::GenerationStale
        | Status::GroupHasMembers
        | Status::OutcomeUnknown
        | Status::Damaged
        | Status::Internal => ErrorCode::ServerError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_find_a_document_behind_every_code() {
        for code in ErrorCode::ALL {
            assert!((400..=600).contains(&code.status().as_u16()), "{code:?}");
            assert!(code.name().chars().all(|letter| letter.is_ascii_alphabetic()), "{code:?}");
        }
    }

    #[test]
    fn every_status_has_a_code_and_only_stored_nothing_says_try_again() {
        for status in Status::ALL {
            let code = code_of(status);
            if code == ErrorCode::Unavailable {
                assert!(status.not_stored(), "{status:?}");
            }
            if status.is_transient() {
                assert_eq!(code, ErrorCode::Unavailable, "{status:?}");
            }
        }
        assert_eq!(code_of(Status::OutcomeUnknown), ErrorCode::ServerError);
        let failure = Failure::new(Status::TopicNotExist, "there is no topic `x`");
        assert_eq!(HttpError::from(failure).to_string(), "there is no topic `x` (TopicNotExist)");
    }
}
