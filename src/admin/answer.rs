//! Answers of the admin address.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, HeaderValue,
    IF_NONE_MATCH, REFERRER_POLICY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::{Response, StatusCode};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::request::Request;
use crate::api::{Failure, Status};

pub(super) const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// What pages of the broker may load: what the broker itself serves, and nothing of another host's.
const CONTENT_POLICY: &str = "default-src 'self'; img-src 'self' data:; style-src 'self'; script-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
/// Of a digest, enough that no two answers are taken for one another.
const TAG_BYTES: usize = 12;
/// What a browser asks its user for.
const CHALLENGE: &str = "Basic realm=\"turbopump\", charset=\"UTF-8\"";

/// One answer, whole in memory.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub status: StatusCode,
    content_type: &'static str,
    body: Bytes,
    more: Vec<(HeaderName, HeaderValue)>,
}

/// What a call of the API is told that failed.
#[derive(Serialize)]
struct ErrorView<'a> {
    /// The name of one of `api::Status`.
    status: String,
    message: &'a str,
}

impl Answer {
    pub fn new(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { status, content_type, body: body.into(), more: Vec::new() }
    }

    /// A sentence for whoever reads it.
    pub fn text(status: StatusCode, text: impl Into<String>) -> Self {
        let mut text = text.into();
        text.push('\n');
        Self::new(status, TEXT, text)
    }

    /// A value as JSON.
    pub fn json(value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::new(StatusCode::OK, JSON, body),
            Err(error) => {
                let failure =
                    Failure::new(Status::Internal, format!("the answer cannot be written: {error}"));
                Self::failure(&failure)
            }
        }
    }

    /// Why a call of the API was not carried out: `{"error":{"status":"TopicNotExist","message":"..."}}`.
    pub fn failure(failure: &Failure) -> Self {
        let view = ErrorView { status: format!("{:?}", failure.status), message: &failure.message };
        let body = serde_json::json!({ "error": view }).to_string();
        let answer = Self::new(http_status(failure.status), JSON, body);
        if failure.status == Status::Unauthenticated { answer.asking_for_key() } else { answer }
    }

    /// Nothing is there, or nothing by this method.
    pub fn not_found() -> Self {
        Self::text(StatusCode::NOT_FOUND, "there is nothing here; / lists what there is")
    }

    pub fn not_allowed(methods: &'static str) -> Self {
        let text = format!("only {methods} can be asked for here");
        Self::text(StatusCode::METHOD_NOT_ALLOWED, text).with(ALLOW, HeaderValue::from_static(methods))
    }

    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.more.push((name, value));
        self
    }

    /// Marks the answer with a tag of what it holds, and leaves that out for a client that says it has it.
    pub fn told_by_its_content(mut self, request: &Request) -> Self {
        if self.status != StatusCode::OK {
            return self;
        }
        let digest = Sha256::digest(&self.body);
        let tag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(&digest[..TAG_BYTES]));
        let has_it = request.header(IF_NONE_MATCH).is_some_and(|tags| tags == "*" || tags.contains(&tag));
        if has_it {
            (self.status, self.body) = (StatusCode::NOT_MODIFIED, Bytes::new());
        }
        // Base64 is ASCII.
        let tag = HeaderValue::from_str(&tag).expect("a header's value");
        self.with(ETAG, tag).with(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"))
    }

    /// Has a browser ask its user for an access key.
    pub fn asking_for_key(self) -> Self {
        self.with(WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE))
    }

    pub fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        for (name, value) in [
            (CONTENT_TYPE, self.content_type),
            (CACHE_CONTROL, "no-store"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (X_FRAME_OPTIONS, "DENY"),
            (REFERRER_POLICY, "no-referrer"),
            (CONTENT_SECURITY_POLICY, CONTENT_POLICY),
            // No page of another site loads it as a part of its own, or holds on to a window that shows it.
            (RESOURCE_POLICY, "same-origin"),
            (OPENER_POLICY, "same-origin"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        // What was said last counts.
        for (name, value) in self.more {
            headers.insert(name, value);
        }
        response
    }
}

/// The status of HTTP that says best what became of a request.
fn http_status(status: Status) -> StatusCode {
    match status {
        Status::Ok => StatusCode::OK,
        Status::InvalidArgument | Status::MalformedFrame | Status::ChecksumMismatch => {
            StatusCode::BAD_REQUEST
        }
        Status::UnsupportedVersion | Status::UnsupportedRequest => StatusCode::NOT_IMPLEMENTED,
        Status::MessageTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Status::TopicNotExist | Status::QueueNotExist | Status::GroupNotExist => StatusCode::NOT_FOUND,
        Status::TopicExists
        | Status::GroupHasMembers
        | Status::MemberUnknown
        | Status::GenerationStale
        | Status::ReceiptExpired => StatusCode::CONFLICT,
        Status::OffsetOutOfRange => StatusCode::RANGE_NOT_SATISFIABLE,
        Status::LimitReached | Status::Busy | Status::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
        Status::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
        Status::StorageFailed | Status::OutcomeUnknown | Status::Damaged | Status::Internal => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
        Status::Unauthenticated => StatusCode::UNAUTHORIZED,
        Status::PermissionDenied => StatusCode::FORBIDDEN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_failure_is_told_as_a_success() {
        for status in Status::ALL.into_iter().filter(|status| *status != Status::Ok) {
            let answer = Answer::failure(&Failure::new(status, "why \"so\""));
            assert!(answer.status.is_client_error() || answer.status.is_server_error(), "{status:?}");
            let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
            assert_eq!(body["error"]["status"], format!("{status:?}"));
            assert_eq!(body["error"]["message"], "why \"so\"");
        }
    }

    #[test]
    fn no_answer_is_kept_or_framed() {
        let response = Answer::text(StatusCode::OK, "ok").into_response();
        for (name, value) in [("cache-control", "no-store"), ("x-frame-options", "DENY")] {
            assert_eq!(response.headers()[name], value);
        }
        let policy = response.headers()["content-security-policy"].to_str().expect("ASCII");
        assert!(!policy.contains("http") && !policy.contains('*'), "{policy}");
    }
}
