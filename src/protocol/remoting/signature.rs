//! Who sent a request: the field `Signature`, an HMAC-SHA1 over the values of all other fields, in the order of their names,
//! and the body (`acl/.../common/AclUtils.java`). What else stands in a header is not signed, and nothing says when it was
//! signed: whoever listens in can send a request again, so keys want TLS.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;

use super::fields::FieldValue;
use super::header::Header;
use crate::access::Secret;

const KEY: &str = "AccessKey";
const SIGNATURE: &str = "Signature";
/// Clients up to this version (4.9.3) do not sign this field.
const UNSIGNED_UP_TO: i32 = 399;
const UNSIGNED: &[u8] = b"_UNIQUE_KEY_QUERY";

/// A request that says who sent it, not yet believed.
pub struct SignedRequest<'a> {
    /// The key that it names.
    pub key_id: Cow<'a, str>,
    /// By their names.
    fields: BTreeMap<&'a [u8], &'a [u8]>,
    body: &'a [u8],
    signature: Vec<u8>,
}

/// Why a request's sender is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error(
        "this broker asks for an access key, and the request names none: give the client an access key and its secret"
    )]
    Missing,
    #[error("the request names an access key and has no signature, or one that is no base64")]
    Form,
}

impl<'a> SignedRequest<'a> {
    pub fn read(header: &'a Header<'_>, body: &'a [u8]) -> Result<Self, SignatureError> {
        // C++ clients without a key send an empty one.
        let key_id = header.fields.text(KEY).filter(|key| !key.is_empty()).ok_or(SignatureError::Missing)?;
        let signature = header.fields.bytes(SIGNATURE).ok_or(SignatureError::Form)?;
        let signature = STANDARD.decode(signature).map_err(|_| SignatureError::Form)?;
        let is_signed = |name: &[u8]| {
            name != SIGNATURE.as_bytes() && (name != UNSIGNED || header.version > UNSIGNED_UP_TO)
        };
        let fields = header.fields.iter().filter(|(name, _)| is_signed(name)).collect();
        Ok(Self { key_id, fields, body, signature })
    }

    /// Whether it was signed with this secret. Takes the same time however much is right.
    pub fn is_signed_with(&self, secret: &Secret) -> bool {
        let mut mac = Hmac::<Sha1>::new_from_slice(secret.bytes()).expect("a key of any length will do");
        self.fields.values().for_each(|value| mac.update(value));
        mac.update(self.body);
        mac.verify_slice(&self.signature).is_ok()
    }
}

/// What a client signs a request with: the fields that are to be added to its own.
pub fn sign<'a>(
    key_id: &'a str,
    secret: &Secret,
    fields: &[(&'a str, FieldValue<'a>)],
    body: &[u8],
) -> [(&'static str, String); 2] {
    let mut signed: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    for (name, value) in fields.iter().chain([&(KEY, FieldValue::Text(key_id))]) {
        let mut text = Vec::new();
        value.append(&mut text, |output, bytes| output.extend_from_slice(bytes));
        signed.insert(name, text);
    }
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.bytes()).expect("a key of any length will do");
    signed.values().for_each(|value| mac.update(value));
    mac.update(body);
    [(KEY, key_id.to_owned()), (SIGNATURE, STANDARD.encode(mac.finalize().into_bytes()))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::remoting::HeaderForm;

    fn is_right(fields: &[(&str, &str)], body: &[u8], secret: &str) -> Result<bool, SignatureError> {
        let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name:?}:{value:?}")).collect();
        let header =
            format!("{{\"code\":105,\"opaque\":1,\"version\":479,\"extFields\":{{{}}}}}", fields.join(","));
        let header = Header::read(HeaderForm::Json, header.as_bytes()).expect("a header");
        SignedRequest::read(&header, body).map(|request| request.is_signed_with(&Secret::new(secret)))
    }

    /// As the wheel 0.4.4 has signed them.
    #[test]
    fn requests_of_a_client_are_believed() {
        let topic = ("topic", "TopicA");
        let key = [("AccessKey", "AK"), ("OnsChannel", "CH")];
        let signed = |signature| [&key[..], &[topic, ("Signature", signature)]].concat();
        let signature = "OqfQ5XTZmeCRc/Jf2SZDt+2GQaQ=";
        assert_eq!(is_right(&signed(signature), b"", "SK"), Ok(true));
        assert_eq!(is_right(&signed(signature), b"", "another"), Ok(false));
        assert_eq!(is_right(&signed(signature), b"x", "SK"), Ok(false));
        let body =
            b"{\"clientID\":\"21358-127.0.0.1@DEFAULT\",\"producerDataSet\":[{\"groupName\":\"PG1\"}]}\n";
        let heartbeat = [&key[..], &[("Signature", "cjGotJcuMDED0qZccA97MWWLAK0=")]].concat();
        assert_eq!(is_right(&heartbeat, body, "SK"), Ok(true));
    }

    #[test]
    fn what_is_signed_here_is_believed() {
        let secret = Secret::new("SK");
        let fields = [("topic", FieldValue::Text("TopicA")), ("Zone", FieldValue::Number(-1))];
        let added = sign("AK", &secret, &fields, b"body");
        let all: Vec<(&str, &str)> = [("topic", "TopicA"), ("Zone", "-1")]
            .into_iter()
            .chain(added.iter().map(|(name, value)| (*name, value.as_str())))
            .collect();
        assert_eq!(is_right(&all, b"body", "SK"), Ok(true));
        assert_eq!(is_right(&all, b"bodY", "SK"), Ok(false));
        // The same as the wheel's.
        let fields = [("topic", FieldValue::Text("TopicA")), ("OnsChannel", FieldValue::Text("CH"))];
        assert_eq!(sign("AK", &secret, &fields, b"")[1].1, "OqfQ5XTZmeCRc/Jf2SZDt+2GQaQ=");
    }

    #[test]
    fn what_is_not_signed_is_told_from_what_is_signed_wrongly() {
        assert_eq!(is_right(&[("topic", "T")], b"", "SK"), Err(SignatureError::Missing));
        let empty = [("AccessKey", ""), ("Signature", "AAAA")];
        assert_eq!(is_right(&empty, b"", ""), Err(SignatureError::Missing));
        assert_eq!(is_right(&[("AccessKey", "AK")], b"", "SK"), Err(SignatureError::Form));
        let garbage = [("AccessKey", "AK"), ("Signature", "?")];
        assert_eq!(is_right(&garbage, b"", "SK"), Err(SignatureError::Form));
    }
}
