//! An HTTP/1.1 connection that costs the load generator as little as it can: prepared requests out, and of an answer only
//! what is needed to find its end.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;

use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const READ_BYTES: usize = 16 * 1024;
/// No answer is longer: 16 messages of a few KiB.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
}

pub struct Answer<'a> {
    pub status: u16,
    pub body: &'a [u8],
}

impl Connection {
    pub async fn open(server: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; READ_BYTES], filled: 0 })
    }

    /// Sends one request and reads its answer, which lasts until the next one.
    pub async fn exchange(&mut self, request: &[u8]) -> Result<Answer<'_>> {
        self.stream.write_all(request).await?;
        self.filled = 0;
        let head = loop {
            self.read().await?;
            if let Some(end) = memmem::find(&self.buffer[..self.filled], b"\r\n\r\n") {
                break end + 4;
            }
        };
        let (status, length) = parse_head(&self.buffer[..head])?;
        while self.filled < head + length {
            self.read().await?;
        }
        Ok(Answer { status, body: &self.buffer[head..head + length] })
    }

    async fn read(&mut self) -> Result<()> {
        if self.filled == self.buffer.len() {
            if self.filled >= ANSWER_BYTES_MAX {
                return Err(Error::new(ErrorKind::InvalidData, "the answer is too long"));
            }
            self.buffer.resize(self.filled * 2, 0);
        }
        match self.stream.read(&mut self.buffer[self.filled..]).await? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            count => {
                self.filled += count;
                Ok(())
            }
        }
    }
}

/// Status and length of the body.
fn parse_head(head: &[u8]) -> Result<(u16, usize)> {
    let invalid = || Error::new(ErrorKind::InvalidData, "not an answer of HTTP/1.1");
    let head = std::str::from_utf8(head).map_err(|_| invalid())?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
    let length = lines
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(Some(0), |(_, value)| value.parse().ok());
    Ok((status.ok_or_else(invalid)?, length.ok_or_else(invalid)?))
}
