//! Which protocol a connection speaks, from its first bytes.

use crate::wire::frame::PREFACE_MAGIC;

/// What the first bytes of a connection belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detected {
    /// Too few bytes to tell.
    NeedMore,
    Native,
    /// A TLS handshake record (RFC 8446, 5.1).
    Tls,
    /// The connection preface of HTTP/2 (RFC 9113, 3.4), as gRPC sends it.
    Http2,
    /// A request line (RFC 9112, 3), or what is most likely meant as one: line ends before it, a method in small letters.
    Http1,
    /// A RocketMQ remoting frame: a big-endian length below 16 MiB (`remoting/.../netty/NettyDecoder.java`).
    Remoting,
    Unknown,
}

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// Looks at the first bytes of a connection. Four are enough for all but HTTP/2.
pub fn detect(bytes: &[u8]) -> Detected {
    let Some(&first) = bytes.first() else { return Detected::NeedMore };
    match first {
        0x16 => Detected::Tls,
        0x00 | 0x01 => Detected::Remoting,
        first if first == PREFACE_MAGIC[0] => match bytes.get(..PREFACE_MAGIC.len()) {
            None => Detected::NeedMore,
            Some(magic) if magic == PREFACE_MAGIC => Detected::Native,
            Some(_) => Detected::Unknown,
        },
        b'A'..=b'Z' => {
            let compared = bytes.len().min(HTTP2_PREFACE.len());
            if bytes[..compared] != HTTP2_PREFACE[..compared] {
                Detected::Http1
            } else if compared == HTTP2_PREFACE.len() {
                Detected::Http2
            } else {
                Detected::NeedMore
            }
        }
        b'a'..=b'z' | b'\r' | b'\n' => Detected::Http1,
        _ => Detected::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_protocol_is_told_by_its_first_bytes() {
        let cases: [(&[u8], Detected); 12] = [
            (b"", Detected::NeedMore),
            (&[0xF5, b'T', b'P'], Detected::NeedMore),
            (&[0xF5, b'T', b'P', b'N', 1], Detected::Native),
            (&[0xF5, b'X', b'P', b'N'], Detected::Unknown),
            (&[0x16, 3, 1], Detected::Tls),
            (b"GET / HTTP/1.1", Detected::Http1),
            (b"get / HTTP/1.1", Detected::Http1),
            (b"\r\nGET / HTTP/1.1", Detected::Http1),
            (b"PRI * HT", Detected::NeedMore),
            (b"PRI * HTTP/2.0\r\n", Detected::Http2),
            (&[0, 0, 1, 0x44], Detected::Remoting),
            (&[0xFF], Detected::Unknown),
        ];
        for (bytes, expected) in cases {
            assert_eq!(detect(bytes), expected, "{bytes:?}");
        }
    }
}
