//! A page of the admin address, for commands that want what is there.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::cli::error::CommandError;
use crate::cli::output::on_one_line;
use crate::cli::server::ServerArguments;
use crate::cli::stream::{Stream, left};

/// How long a page may take, connecting included.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of an answer's head.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// The body of the page at `path`, which has at most so many bytes. The access key goes there within TLS only: what is asked for is
/// its secret.
pub fn page_of(
    address: &str,
    path: &str,
    server: &ServerArguments,
    bytes_max: u64,
) -> Result<Vec<u8>, CommandError> {
    let deadline = Instant::now() + PATIENCE;
    let tls = server.tls.tls()?;
    let proof = match (&tls, server.key.key()?) {
        (Some(_), Some((id, secret))) => {
            let pair = [id.as_bytes(), b":", secret.bytes()].concat();
            format!("Authorization: Basic {}\r\n", STANDARD.encode(pair))
        }
        _ => String::new(),
    };
    let failed = |error: &dyn std::fmt::Display| {
        CommandError::failed(format!("{address} does not say what is at {path}: {error}"))
    };
    let mut stream = Stream::connect(address, tls.as_ref(), PATIENCE).map_err(|error| failed(&error))?;
    // Of that version an answer is whole at its end, and not in pieces.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n{proof}\r\n");
    let answer = exchange(&mut stream, request.as_bytes(), bytes_max, deadline);
    let answer = answer.map_err(|error| failed(&error))?;
    let (status, body) =
        parted(&answer).ok_or_else(|| failed(&"what answers there is not HTTP, or breaks off"))?;
    match status {
        200 if body.len() as u64 <= bytes_max => Ok(body.to_vec()),
        200 => Err(failed(&format_args!("it has more than {bytes_max} bytes"))),
        401 | 403 if tls.is_none() => Err(failed(&format_args!(
            "status {status}: it wants an operator's access key, which is sent within TLS only (--tls)"
        ))),
        _ => {
            let told: String = String::from_utf8_lossy(body).trim().chars().take(200).collect();
            Err(failed(&format_args!("status {status}: {}", on_one_line(&told))))
        }
    }
}

/// Everything that comes until the other side closes, or until it is too much.
fn exchange(stream: &mut Stream, request: &[u8], bytes_max: u64, deadline: Instant) -> io::Result<Vec<u8>> {
    stream.allow(left(deadline))?;
    stream.write_all(request)?;
    stream.flush()?;
    let (mut answer, mut piece) = (Vec::new(), [0; 64 * 1024]);
    while (answer.len() as u64) <= bytes_max + HEAD_BYTES_MAX as u64 {
        // Who says a little now and then is not waited for either.
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.allow(left(deadline))?;
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(answer)
}

/// The status and the body.
fn parted(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).take(HEAD_BYTES_MAX).position(|bytes| bytes == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let (version, rest) = head.split_once(' ')?;
    let status = rest.split([' ', '\r']).next()?.parse().ok()?;
    let body = &answer[end + 4..];
    let lengths = head.split("\r\n").filter_map(|line| line.split_once(':'));
    let length = lengths.filter(|(name, _)| name.eq_ignore_ascii_case("content-length")).last();
    let is_whole = length.is_none_or(|(_, length)| length.trim().parse() == Ok(body.len()));
    (version.starts_with("HTTP/1.") && is_whole).then_some((status, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_status_and_body() {
        assert_eq!(parted(b"HTTP/1.0 200 OK\r\nA: b\r\n\r\nbody\r\n\r\n"), Some((200, &b"body\r\n\r\n"[..])));
        assert_eq!(parted(b"HTTP/1.1 401\r\n\r\n"), Some((401, &b""[..])));
        assert_eq!(parted(b"HTTP/1.1 200 OK\r\ncontent-Length: 2\r\n\r\nab"), Some((200, &b"ab"[..])));
        let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab";
        for wrong in [
            &b""[..],
            cut,
            b"HTTP/1.0 200 OK\r\n",
            b"SSH-2.0\r\n\r\n",
            b"HTTP/1.0 x\r\n\r\n",
            b"\xff 200\r\n\r\n",
        ] {
            assert_eq!(parted(wrong), None);
        }
    }
}
