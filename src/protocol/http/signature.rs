//! Who sent a request: `Authorization: MQ KEY:SIGNATURE`, an HMAC-SHA1 over the method, a few headers and the target
//! exactly as sent. The body is not covered by it, unless the client sends its check value in `content-md5`, as the
//! JavaScript client does; then it must be right.

use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::header::{AUTHORIZATION, CONTENT_TYPE, DATE};
use http::{HeaderMap, HeaderName, Method};
use md5::{Digest as _, Md5};
use sha1::Sha1;

use super::error::{ErrorCode, HttpError};
use crate::access::Secret;
use crate::types::Timestamp;

/// How far a client's clock may be from ours, so that a request that was listened to cannot be sent again much later.
pub const SKEW_MAX: Duration = Duration::from_secs(15 * 60);

const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");
const OWN_HEADERS: &str = "x-mq-";
const SCHEME: &str = "MQ ";

/// Why a request's sender is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("the request is not signed: it has no header Authorization")]
    Missing,
    #[error("the header Authorization should be `MQ KEY:SIGNATURE`")]
    Form,
    #[error("the request has no header Date, which a signed one needs")]
    NoDate,
    #[error("the header Date is none: `{given}`")]
    Date { given: String },
    #[error("the request's date is {seconds} s away from the broker's clock, {} are the most", SKEW_MAX.as_secs())]
    Skew { seconds: u64 },
    #[error("the body is not what the header Content-MD5 says")]
    BodyDigest,
}

impl From<SignatureError> for HttpError {
    fn from(error: SignatureError) -> Self {
        let code = match error {
            SignatureError::BodyDigest => ErrorCode::InvalidArgument,
            _ => ErrorCode::AccessDenied,
        };
        HttpError::new(code, error.to_string())
    }
}

/// A request that says who sent it, not yet believed.
pub struct SignedRequest<'a> {
    method: &'a Method,
    target: &'a str,
    headers: &'a HeaderMap,
    /// The key that it names.
    pub key_id: &'a str,
    signature: Vec<u8>,
}

impl<'a> SignedRequest<'a> {
    /// Reads the header `Authorization`. `target` is path and query as sent.
    pub fn read(method: &'a Method, target: &'a str, headers: &'a HeaderMap) -> Result<Self, SignatureError> {
        let authorization = headers.get(AUTHORIZATION).ok_or(SignatureError::Missing)?;
        let credentials = authorization.to_str().ok().and_then(|text| text.strip_prefix(SCHEME));
        let (key_id, signature) =
            credentials.and_then(|text| text.trim().split_once(':')).ok_or(SignatureError::Form)?;
        let signature = STANDARD.decode(signature).map_err(|_| SignatureError::Form)?;
        Ok(Self { method, target, headers, key_id, signature })
    }

    /// Whether it was signed with this secret. Takes the same time however much is right.
    pub fn is_signed_with(&self, secret: &Secret) -> bool {
        authenticator(secret, self.method, self.target, self.headers).verify_slice(&self.signature).is_ok()
    }

    /// Whether it was sent about now.
    pub fn check_date(&self, now: Timestamp) -> Result<(), SignatureError> {
        let date = self.headers.get(DATE).ok_or(SignatureError::NoDate)?;
        let parsed = date.to_str().ok().and_then(|text| httpdate::parse_http_date(text).ok());
        let sent = parsed.and_then(|date| date.duration_since(UNIX_EPOCH).ok()).ok_or_else(|| {
            SignatureError::Date {
                given: String::from_utf8_lossy(date.as_bytes()).chars().take(64).collect(),
            }
        })?;
        let skew = Duration::from_millis(now.0).abs_diff(sent);
        if skew > SKEW_MAX { Err(SignatureError::Skew { seconds: skew.as_secs() }) } else { Ok(()) }
    }
}

/// The signature of a request with these headers: what a client sends, for tests and for clients of ours.
pub fn sign(secret: &Secret, method: &Method, target: &str, headers: &HeaderMap) -> String {
    STANDARD.encode(authenticator(secret, method, target, headers).finalize().into_bytes())
}

/// Whether the body is what `content-md5` says, if the header is there: base64 of the digest's hexadecimal digits, as
/// the vendor's clients write it, or of the digest itself, as RFC 1864 wants it.
pub(super) fn check_body_digest(headers: &HeaderMap, body: &[u8]) -> Result<(), SignatureError> {
    let Some(given) = headers.get(CONTENT_MD5) else { return Ok(()) };
    let given = STANDARD.decode(given.as_bytes()).map_err(|_| SignatureError::BodyDigest)?;
    let digest = Md5::digest(body);
    let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let is_digits = given.eq_ignore_ascii_case(digits.as_bytes());
    if is_digits || given == digest[..] { Ok(()) } else { Err(SignatureError::BodyDigest) }
}

/// Fed with the text that is signed.
fn authenticator(secret: &Secret, method: &Method, target: &str, headers: &HeaderMap) -> Hmac<Sha1> {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.bytes()).expect("HMAC takes keys of any length");
    let mut feed = |parts: &[&[u8]]| parts.iter().for_each(|part| mac.update(part));
    let value = |name: &HeaderName| headers.get(name).map_or(&b""[..], |value| value.as_bytes());
    feed(&[method.as_str().as_bytes(), b"\n"]);
    [&CONTENT_MD5, &CONTENT_TYPE, &DATE].into_iter().for_each(|name| feed(&[value(name), b"\n"]));
    let mut own: Vec<_> = headers.iter().filter(|(name, _)| name.as_str().starts_with(OWN_HEADERS)).collect();
    own.sort_by_key(|(name, _)| name.as_str());
    for (name, value) in own {
        feed(&[name.as_str().as_bytes(), b":", value.as_bytes(), b"\n"]);
    }
    feed(&[target.as_bytes()]);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    /// 2023-11-14 22:13:20 UTC.
    const NOW: Timestamp = Timestamp(1_700_000_000_000);
    const TARGET: &str =
        "/topics/orders/messages?consumer=GID&numOfMessages=3&ns=I&waitseconds=3&tag=a%7C%7Cb";

    fn headers(signature: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("date", HeaderValue::from_static("Tue, 14 Nov 2023 22:13:20 GMT"));
        headers.insert("x-mq-version", HeaderValue::from_static("2015-06-06"));
        headers.insert("content-type", HeaderValue::from_static("text/xml;charset=UTF-8"));
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("MQ key:{signature}")).expect("ASCII"));
        headers
    }

    fn check(headers: &HeaderMap, now: Timestamp) -> Result<bool, SignatureError> {
        let request = SignedRequest::read(&Method::GET, TARGET, headers)?;
        request.check_date(now)?;
        Ok(request.is_signed_with(&Secret::new("secret")))
    }

    /// Computed by the Python client 1.0.3, `MQClient.get_signature`.
    const BY_PYTHON: &str = "/HV0KNxJfK3sw+kxg3TTpMPG+Vg=";

    #[test]
    fn the_python_clients_signature_is_ours() {
        let headers = headers(BY_PYTHON);
        assert_eq!(sign(&Secret::new("secret"), &Method::GET, TARGET, &headers), BY_PYTHON);
        assert_eq!(check(&headers, NOW), Ok(true));
    }

    #[test]
    fn any_change_is_noticed() {
        for (name, value) in [
            ("x-mq-version", "2015-06-07"),
            ("x-mq-more", "1"),
            ("content-type", "text/xml"),
            ("content-md5", "x"),
            ("date", "Tue, 14 Nov 2023 22:13:21 GMT"),
        ] {
            let mut headers = headers(BY_PYTHON);
            headers.insert(name, HeaderValue::from_static(value));
            assert_eq!(check(&headers, NOW), Ok(false), "{name}");
        }
        let signed = headers(BY_PYTHON);
        for (method, target, secret) in [
            (Method::POST, TARGET, "secret"),
            (Method::GET, &TARGET[1..], "secret"),
            (Method::GET, TARGET, "Secret"),
        ] {
            let request = SignedRequest::read(&method, target, &signed).expect("well formed");
            assert!(!request.is_signed_with(&Secret::new(secret)), "{method} {target}");
        }
        assert_eq!(check(&headers("AAAA"), NOW), Ok(false), "a short one");
    }

    #[test]
    fn a_clock_may_be_a_quarter_of_an_hour_off() {
        let headers = headers(BY_PYTHON);
        for offset in [-900_000_i64, 900_000] {
            assert_eq!(check(&headers, Timestamp(NOW.0.saturating_add_signed(offset))), Ok(true));
        }
        for offset in [-901_000_i64, 901_000] {
            let skewed = check(&headers, Timestamp(NOW.0.saturating_add_signed(offset)));
            assert_eq!(skewed, Err(SignatureError::Skew { seconds: 901 }));
        }
    }

    #[test]
    fn what_is_no_signature_is_told() {
        let with = |name: HeaderName, value: Option<&'static str>| {
            let mut headers = headers(BY_PYTHON);
            headers.remove(&name);
            if let Some(value) = value {
                headers.insert(name, HeaderValue::from_static(value));
            }
            check(&headers, NOW).expect_err("it is wrong")
        };
        assert_eq!(with(AUTHORIZATION, None), SignatureError::Missing);
        for form in ["Basic a:b", "MQ", "MQ key", "MQ key:%%%", "MQ key:AAA"] {
            assert_eq!(with(AUTHORIZATION, Some(form)), SignatureError::Form, "{form}");
        }
        assert_eq!(with(DATE, None), SignatureError::NoDate);
        assert!(matches!(with(DATE, Some("yesterday")), SignatureError::Date { .. }));
    }

    #[test]
    fn a_digest_must_be_the_bodys() {
        let check = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_MD5, HeaderValue::from_static(value));
            check_body_digest(&headers, b"abc")
        };
        assert_eq!(check("kAFQmDzST7DWlj99KOF/cg=="), Ok(()));
        assert_eq!(check("OTAwMTUwOTgzY2QyNGZiMGQ2OTYzZjdkMjhlMTdmNzI="), Ok(()));
        assert_eq!(check("kAFQmDzST7DWlj99KOF/cw=="), Err(SignatureError::BodyDigest));
        assert_eq!(check("???"), Err(SignatureError::BodyDigest));
        assert_eq!(check_body_digest(&HeaderMap::new(), b"abc"), Ok(()));
    }
}
