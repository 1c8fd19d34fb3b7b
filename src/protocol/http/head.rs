//! What HTTP itself asks of a request's head, beyond what its parser looks at: who is meant by it is said once and can be
//! read, and how its body comes is a way that is undone here. A proxy before the broker may have read either differently.

use http::header::{AsHeaderName, CONTENT_ENCODING, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, Version};

use super::error::{ErrorCode, HttpError};

/// Of a header field that is wrong, so much is shown.
const FIELD_SHOWN_BYTES: usize = 64;

/// The error says what is wrong. After one of a transfer coding nobody can tell where the body ends, see
/// [`is_body_end_doubtful`].
pub(super) fn check_head(head: &Parts) -> Result<(), HttpError> {
    check_host(head)?;
    check_transfer_encoding(&head.headers)?;
    check_content_encoding(&head.headers)
}

/// Whether another reader of this head may see the body's end elsewhere: its connection is not to be used any more.
pub fn is_body_end_doubtful(head: &Parts) -> bool {
    check_transfer_encoding(&head.headers).is_err()
}

/// What is wrong with a head that could not be read, as far as its header fields tell it. It may be cut off at its end.
pub fn unreadable_field(head: &[u8]) -> Option<String> {
    let begin = head.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    let mut lines = head[begin..].split_inclusive(|&byte| byte == b'\n').skip(1);
    lines.find_map(|line| match line.strip_suffix(b"\n") {
        Some(line) => wrong_field(line.strip_suffix(b"\r").unwrap_or(line), true),
        None => wrong_field(line, false),
    })
}

/// What is wrong with a line that is to be a header field (RFC 9112, 5). Of one that `is_whole` not, only what has come.
fn wrong_field(line: &[u8], is_whole: bool) -> Option<String> {
    let shown = |bytes: &[u8]| bytes[..bytes.len().min(FIELD_SHOWN_BYTES)].escape_ascii().to_string();
    let is_control = |byte: &u8| (*byte < b' ' && *byte != b'\t') || *byte == 0x7F;
    let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    if line.first().is_some_and(|first| matches!(first, b' ' | b'\t')) {
        return Some(format!(
            "the header line `{}` begins with a blank: a field stands on one line",
            shown(line)
        ));
    }
    let colon = line.iter().position(|&byte| byte == b':');
    let (name, value) = line.split_at(colon.unwrap_or(line.len()));
    if colon.is_none() && is_whole && !line.is_empty() {
        return Some(format!("the header line `{}` has no colon", shown(line)));
    }
    if colon == Some(0) {
        return Some(format!("the header line `{}` has no name before its colon", shown(line)));
    }
    if !name.iter().all(is_of_name) {
        let name = shown(name);
        return Some(format!(
            "`{name}` is no name of a header: it has letters, digits, `-` and `_`, and no blank before the colon"
        ));
    }
    value
        .iter()
        .any(is_control)
        .then(|| format!("the header `{}` has a control character in it", shown(name)))
}

/// RFC 9112, 3.2: one `Host` in every request of HTTP/1.1. RFC 9110, 7.2: a host, and a port if there is one.
fn check_host(head: &Parts) -> Result<(), HttpError> {
    let mut hosts = head.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => Err(HttpError::invalid("the header `Host` stands there twice")),
        (Some(host), None) if is_host(host.as_bytes()) => Ok(()),
        (Some(host), None) => {
            let host = String::from_utf8_lossy(host.as_bytes());
            Err(HttpError::invalid(format!("the header `Host` is a host and perhaps a port, not `{host}`")))
        }
        (None, _) if head.version < Version::HTTP_11 => Ok(()),
        (None, _) => Err(HttpError::invalid("the header `Host` is missing, which every request has to have")),
    }
}

/// `uri-host [ ":" port ]` (RFC 3986, 3.2.2); nothing at all is fine as well.
fn is_host(value: &[u8]) -> bool {
    let (name, port) = match value.strip_prefix(b"[") {
        Some(rest) => match rest.iter().position(|&byte| byte == b']') {
            Some(end) if end > 0 => (&rest[..end], &rest[end + 1..]),
            _ => return false,
        },
        None => value.split_at(value.iter().position(|&byte| byte == b':').unwrap_or(value.len())),
    };
    // An address within brackets has colons.
    let is_bracketed = value.first() == Some(&b'[');
    let is_of_name = |&byte: &u8| {
        byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&byte) || (is_bracketed && byte == b':')
    };
    let is_port = match port.strip_prefix(b":") {
        Some(digits) => digits.iter().all(u8::is_ascii_digit),
        None => port.is_empty(),
    };
    is_port && name.iter().all(is_of_name)
}

/// RFC 9112, 6.1 and 7: `chunked`, once, is what can be undone here.
fn check_transfer_encoding(headers: &HeaderMap) -> Result<(), HttpError> {
    let mut chunked = 0;
    for coding in codings(headers, TRANSFER_ENCODING) {
        if !coding.eq_ignore_ascii_case(b"chunked") {
            let coding = String::from_utf8_lossy(coding);
            let message = format!(
                "the transfer coding `{coding}` is not known here: send the body as it is, or chunked"
            );
            return Err(HttpError::new(ErrorCode::NotImplemented, message));
        }
        chunked += 1;
    }
    if chunked > 1 {
        return Err(HttpError::invalid("the transfer coding `chunked` stands there twice"));
    }
    Ok(())
}

/// RFC 9110, 8.4: a document is stored as it comes.
fn check_content_encoding(headers: &HeaderMap) -> Result<(), HttpError> {
    let coded = codings(headers, CONTENT_ENCODING).find(|coding| !coding.eq_ignore_ascii_case(b"identity"));
    coded.map_or(Ok(()), |coding| {
        let coding = String::from_utf8_lossy(coding);
        Err(HttpError::invalid(format!(
            "the content coding `{coding}` is not known here: send the document as it is"
        )))
    })
}

/// The parts of a list, over all lines of that name.
fn codings(headers: &HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(name).into_iter();
    let parts = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    parts.map(<[u8]>::trim_ascii).filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn judged(version: Version, fields: &[(&str, &[u8])]) -> Result<(), ErrorCode> {
        let mut request = Request::builder().version(version).uri("/topics/t/messages");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let head = request.body(()).expect("a request").into_parts().0;
        check_head(&head).map_err(|error| error.code)
    }

    #[test]
    fn a_field_that_cannot_be_read_is_named() {
        let told =
            |fields: &str| unreadable_field(format!("\r\nGET / HTTP/1.1\r\nHost: h\r\n{fields}").as_bytes());
        for (fields, part) in [
            ("Foo bar\r\n\r\n", "`Foo bar` has no colon"),
            ("Foo bar", "`Foo bar` is no name"),
            ("Bad Name: x\r\n\r\n", "`Bad Name` is no name"),
            ("Foo : x\r\n\r\n", "`Foo ` is no name"),
            ("F\u{E4}: x\r\n", "`F\\xc3\\xa4` is no name"),
            (": x\r\n", "`: x` has no name"),
            (" folded: x\r\n", "` folded: x` begins with a blank"),
            ("Foo: a\u{1}b\r\n", "`Foo` has a control character"),
            ("Foo: a\rb\r\n", "`Foo` has a control character"),
            ("Ok: x\nFoo\n\n", "`Foo` has no colon"),
        ] {
            let told = told(fields).unwrap_or_default();
            assert!(told.contains(part), "{fields:?}: {told}");
        }
        for fields in ["", "\r\n", "Foo: b\u{E4}r\tx\r\n\r\n", "Fo", "Foo:"] {
            assert_eq!(told(fields), None, "{fields:?}");
        }
        assert_eq!(unreadable_field(b"nonsense"), None);
    }

    #[test]
    fn a_host_is_said_once_and_can_be_read() {
        let hosts: [&[u8]; 9] =
            [b"", b"h", b"h:80", b"h:", b"10.0.0.1:8080", b"[::1]", b"[fe80::1]:443", b"a_b-c.d~e", b"%41"];
        for host in hosts {
            assert_eq!(judged(Version::HTTP_11, &[("host", host)]), Ok(()), "{host:?}");
        }
        let wrong: [&[u8]; 12] = [
            b"a b", b"a/b", b"u@h", b"h:80:80", b"h:x", b"[::1", b"::1", b"[]", b"[::1]80", b"\xff", b"a#",
            b"a?b",
        ];
        for host in wrong {
            assert_eq!(
                judged(Version::HTTP_11, &[("host", host)]),
                Err(ErrorCode::InvalidArgument),
                "{host:?}"
            );
        }
        for version in [Version::HTTP_10, Version::HTTP_11] {
            let twice = judged(version, &[("host", b"h"), ("host", b"h")]);
            assert_eq!(twice, Err(ErrorCode::InvalidArgument));
        }
        assert_eq!(judged(Version::HTTP_11, &[]), Err(ErrorCode::InvalidArgument));
        assert_eq!(judged(Version::HTTP_10, &[]), Ok(()));
    }

    #[test]
    fn what_is_not_undone_here_is_refused() {
        let coded = |name: &str, values: &[&str]| {
            let mut fields: Vec<(&str, &[u8])> = vec![("host", b"h")];
            fields.extend(values.iter().map(|value| (name, value.as_bytes())));
            judged(Version::HTTP_11, &fields)
        };
        let transfer = |values: &[&str]| coded("transfer-encoding", values);
        for fine in [&["chunked"][..], &["Chunked"], &[" , chunked,"], &["", "chunked"]] {
            assert_eq!(transfer(fine), Ok(()), "{fine:?}");
        }
        for unknown in
            [&["gzip, chunked"][..], &["gzip", "chunked"], &["x;q=1, chunked"], &["identity, chunked"]]
        {
            assert_eq!(transfer(unknown), Err(ErrorCode::NotImplemented), "{unknown:?}");
        }
        for twice in [&["chunked, chunked"][..], &["chunked", "CHUNKED"]] {
            assert_eq!(transfer(twice), Err(ErrorCode::InvalidArgument), "{twice:?}");
        }
        assert_eq!(coded("content-encoding", &["identity"]), Ok(()));
        assert_eq!(coded("content-encoding", &["gzip"]), Err(ErrorCode::InvalidArgument));
    }
}
