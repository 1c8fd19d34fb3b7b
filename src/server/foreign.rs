//! What a peer is told that speaks a protocol which is not spoken where it came: its own program can show that, and a closed
//! connection says nothing.

use super::connection::Door;
use crate::net::Detected;

/// A fatal alert `unexpected_message` (RFC 8446, 6.2), in the record version that every client takes.
const TLS_ALERT: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 10];
const NATIVE_PORT: &str = "This port speaks turbopump's native protocol and no HTTP. HTTP is spoken at the address that the broker \
    was given with --http, if it was.\n";
const HTTP_PORT: &str = "This port speaks HTTP/1.1, with TLS only if the broker has a certificate. turbopump's native protocol is \
    spoken at the address that the broker was given with --listen.\n";

/// The last bytes for a peer of this protocol; none when there is nothing that it would understand.
pub(super) fn foreign_answer(detected: Detected, door: Door) -> Vec<u8> {
    match (detected, door) {
        (Detected::Tls, _) => TLS_ALERT.to_vec(),
        (Detected::Http1 | Detected::Http2, Door::Native) => bad_request(NATIVE_PORT),
        // A native client tells from any such answer that this is not its broker's port.
        (Detected::Native | Detected::Http1 | Detected::Http2 | Detected::Remoting, Door::Http) => {
            bad_request(HTTP_PORT)
        }
        (Detected::Native | Detected::Remoting, Door::Native)
        | (Detected::NeedMore | Detected::Unknown, _) => Vec::new(),
    }
}

fn bad_request(text: &str) -> Vec<u8> {
    let head = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length:";
    format!("{head} {}\r\n\r\n{text}", text.len()).into_bytes()
}
