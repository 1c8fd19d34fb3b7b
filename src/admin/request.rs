//! A request to the admin address, read as far as every page needs it.

use std::cell::RefCell;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::request::Parts;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, HOST, HeaderName};
use hyper::{Method, StatusCode};
use tokio::time::timeout;

use super::answer::Answer;
use crate::access::{Caller, NamedKey, Peer, Secret};
use crate::api::{Failure, Status};
use crate::limits;

/// A body must have come within this time.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// One request. `segments` and `parameters` have their escapes undone.
pub(super) struct Request {
    parts: Parts,
    body: RefCell<Option<Incoming>>,
    pub segments: Vec<String>,
    parameters: Vec<(String, String)>,
    pub caller: Caller,
}

impl Request {
    /// What cannot be read is answered as such. `peer` is who is at the other end, and which key was proved there.
    pub fn read(request: hyper::Request<Incoming>, peer: &Peer) -> Result<Self, Box<Answer>> {
        let bad = |reason: &str| Box::new(Answer::text(StatusCode::BAD_REQUEST, reason));
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().trim_matches('/');
        let segments = path.split('/').filter(|segment| !segment.is_empty()).map(unescaped);
        let segments: Option<Vec<_>> = segments.collect();
        let segments = segments.ok_or_else(|| bad("the path has an escape that stands for no text"))?;
        let parameters = parts.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let parameters = parameters.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((unescaped(name)?, unescaped(&value.replace('+', " "))?))
        });
        let parameters: Option<Vec<_>> = parameters.collect();
        let parameters = parameters.ok_or_else(|| bad("the query has an escape that stands for no text"))?;
        let key = match parts.headers.get(AUTHORIZATION) {
            None => None,
            Some(value) => Some(basic(value.as_bytes(), peer).ok_or_else(|| {
                let text = "the header `Authorization` is to be `Basic` and, in Base64, an access key, a colon and its secret";
                Box::new(Answer::text(StatusCode::UNAUTHORIZED, text).asking_for_key())
            })?),
        };
        let caller = Caller { address: peer.address, key };
        Ok(Self { parts, body: RefCell::new(Some(body)), segments, parameters, caller })
    }

    pub fn method(&self) -> &Method {
        &self.parts.method
    }

    /// Whether it only asks.
    pub fn only_reads(&self) -> bool {
        matches!(*self.method(), Method::GET | Method::HEAD)
    }

    /// A header's value, if it is text.
    pub fn header(&self, name: HeaderName) -> Option<&str> {
        self.parts.headers.get(name)?.to_str().ok()
    }

    /// Whether whoever asks is a browser that shows a page.
    pub fn wants_html(&self) -> bool {
        self.header(ACCEPT).is_some_and(|accepted| accepted.contains("text/html"))
    }

    /// The name that the client has for this server: that of the request line, or of `Host`. One that is no text is nobody's.
    pub fn authority(&self) -> Option<&str> {
        match self.parts.uri.authority() {
            Some(authority) => Some(authority.as_str()),
            None => self.parts.headers.get(HOST).map(|host| host.to_str().unwrap_or_default()),
        }
    }

    /// The first parameter of the query with this name.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(named, _)| named == name).map(|(_, value)| value.as_str())
    }

    /// Reads the body; empty when it was read before.
    pub async fn body(&self) -> Result<Bytes, Failure> {
        let Some(body) = self.body.take() else { return Ok(Bytes::new()) };
        let limited = Limited::new(body, limits::ADMIN_BODY_BYTES_MAX);
        match timeout(BODY_TIMEOUT, limited.collect()).await {
            Ok(Ok(collected)) => Ok(collected.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                let most = limits::ADMIN_BODY_BYTES_MAX;
                Err(Failure::new(
                    Status::MessageTooLarge,
                    format!("the body has more than {most} bytes, which are the most"),
                ))
            }
            Ok(Err(error)) => Err(Failure::invalid(format!("the body cannot be read: {error}"))),
            Err(_) => Err(Failure::invalid("the body did not come in whole in time")),
        }
    }

    /// Takes note of what became of it: whoever has proved a key goes on with it on this connection.
    pub fn note_outcome<T>(&self, peer: &Peer, outcome: &Result<T, Failure>) {
        let Some(named) = &self.caller.key else { return };
        match outcome {
            Err(failure) if failure.status == Status::Unauthenticated => peer.fails(),
            // A barred address was not looked at.
            Err(failure) if failure.status == Status::Busy => {}
            _ => peer.proves(&named.id),
        }
    }
}

/// The key and secret of Basic authentication.
fn basic(value: &[u8], peer: &Peer) -> Option<NamedKey> {
    let (scheme, rest) = std::str::from_utf8(value).ok()?.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    if id.len() > limits::ACCESS_KEY_ID_BYTES_MAX || id.chars().any(char::is_control) {
        return None;
    }
    Some(NamedKey { id: id.to_owned(), secret: Secret::new(secret), was_proved: peer.has_proved(id) })
}

/// A text with its percent escapes undone; `None` when that is no UTF-8, or one of them is none.
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok()?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone_or_refused() {
        for (text, plain) in
            [("orders", "orders"), ("%25RETRY%25g", "%RETRY%g"), ("a%2Fb", "a/b"), ("%C3%A4", "\u{e4}")]
        {
            assert_eq!(unescaped(text).as_deref(), Some(plain), "{text}");
        }
        for text in ["%", "%4", "%zz", "%+1", "%ff", "a%C3"] {
            assert_eq!(unescaped(text), None, "{text}");
        }
    }

    #[test]
    fn basic_authentication_is_read_or_refused() {
        let peer = Peer::at(None);
        let header = |text: &str| format!("Basic {}", STANDARD.encode(text));
        let named = basic(header("root:a:b").as_bytes(), &peer).expect("well formed");
        assert_eq!((named.id.as_str(), named.secret.bytes()), ("root", b"a:b".as_slice()));
        assert!(!named.was_proved);
        peer.proves("root");
        assert!(basic(header("root:x").as_bytes(), &peer).expect("well formed").was_proved);
        assert!(basic(b"bASIC  cjpz ", &peer).is_some(), "blanks and letters are as they come");
        let long = header(&format!("{}:s", "k".repeat(limits::ACCESS_KEY_ID_BYTES_MAX + 1)));
        let refused =
            ["Basic", "Basic !", "Bearer cjpz", "Basic cm9vdA==", "Basic //79", &long, &header("a\nb:c")];
        for text in refused {
            assert!(basic(text.as_bytes(), &peer).is_none(), "{text}");
        }
    }
}
