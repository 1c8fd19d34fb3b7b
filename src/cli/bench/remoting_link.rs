//! A producing connection over RocketMQ's protocol. Requests are small, so all that are due are sent with one call.

use crate::cli::bench::batch_frame::Stamp;
use crate::cli::bench::link::Answer;
use crate::cli::bench::send_frame::{NUMBERS, NUMBERS_FIRST, SendFrame};
use crate::cli::bench::socket::{BenchSocket, SocketError};
use crate::protocol::remoting::ResponseCode;
use crate::protocol::remoting::call::send::SendReceipt;
use crate::protocol::remoting::client;

/// No request is begun while so much is unsent: the socket would not take more at once.
const UNSENT_BYTES_MAX: usize = 128 * 1024;
/// Answers after which the message may be stored all the same: a flush or a replica that was late, and failures of any kind.
const MAYBE_STORED: [ResponseCode; 2] = [ResponseCode::SystemError, ResponseCode::FlushDiskTimeout];
/// Of replicas: late, and not there.
const MAYBE_STORED_ELSEWHERE: [i32; 2] = [11, 12];

pub struct RemotingLink {
    socket: BenchSocket,
    frames: Vec<SendFrame>,
    output: Vec<u8>,
    /// Bytes of `output` that the socket has taken.
    sent: usize,
    /// Correlation of the next request.
    next: u64,
}

impl RemotingLink {
    pub fn new(socket: BenchSocket, frames: Vec<SendFrame>) -> Self {
        Self { socket, frames, output: Vec::new(), sent: 0, next: 0 }
    }

    pub fn socket(&self) -> &BenchSocket {
        &self.socket
    }

    pub fn socket_mut(&mut self) -> &mut BenchSocket {
        &mut self.socket
    }

    /// Topics and queues have names of one length or nearly so.
    pub fn request_bytes(&self) -> usize {
        self.frames.first().map_or(0, SendFrame::bytes)
    }

    pub fn is_flushed(&self) -> bool {
        self.sent == self.output.len()
    }

    pub fn has_room(&self) -> bool {
        self.output.len() - self.sent < UNSENT_BYTES_MAX
    }

    pub fn add(&mut self, stream: usize, stamp: Stamp) {
        self.next = stamp.correlation + 1;
        self.frames[stream].write(stamp, &mut self.output);
    }

    pub fn flush(&mut self) -> Result<(), SocketError> {
        if !self.is_flushed() {
            self.sent += self.socket.write(&self.output[self.sent..])?;
        }
        if self.is_flushed() {
            self.discard();
        }
        Ok(())
    }

    pub fn discard(&mut self) {
        self.output.clear();
        self.sent = 0;
    }

    pub fn next_answer(&mut self) -> Result<Option<(u64, Answer)>, SocketError> {
        loop {
            let received = client::receive(self.socket.unread());
            let (taken, found) = match received.map_err(|error| self.socket.protocol_error(error))? {
                client::Received::Incomplete { needed } => {
                    self.socket.want(needed);
                    return Ok(None);
                }
                client::Received::Request { frame_bytes } => (frame_bytes, None),
                client::Received::Answer { answer, frame_bytes } => {
                    let correlation = correlation_of(answer.header.opaque, self.next);
                    let read = read(&answer).map_err(|reason| self.socket.protocol_error(reason))?;
                    (frame_bytes, Some((correlation, read)))
                }
            };
            self.socket.consume(taken);
            if found.is_some() {
                return Ok(found);
            }
        }
    }
}

/// Which request has that number: the last one before `next`.
fn correlation_of(opaque: i32, next: u64) -> u64 {
    let low = (i64::from(opaque) - i64::from(NUMBERS_FIRST)).rem_euclid(NUMBERS as i64) as u64;
    let last = next.saturating_sub(1);
    let behind = (last + NUMBERS - low) % NUMBERS;
    // What was never sent has a correlation that nobody knows.
    last.checked_sub(behind).unwrap_or(u64::MAX)
}

fn read(answer: &client::Answer<'_>) -> Result<Answer, String> {
    let code = answer.header.code;
    if code == ResponseCode::Success.number() {
        let receipt = SendReceipt::read(answer).map_err(|error| error.to_string())?;
        return Ok(Answer::Stored { base: receipt.offset.0, level: None });
    }
    let maybe_stored =
        MAYBE_STORED.iter().any(|maybe| maybe.number() == code) || MAYBE_STORED_ELSEWHERE.contains(&code);
    let remark = answer.header.remark.as_deref().unwrap_or_default();
    Ok(Answer::Refused { not_stored: !maybe_stored, message: format!("code {code}: {remark}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_round() {
        for sent in [0, 5, NUMBERS - 1, NUMBERS, 7 * NUMBERS + 3] {
            let opaque = NUMBERS_FIRST + (sent % NUMBERS) as i32;
            for next in [sent + 1, sent + 100_000] {
                assert_eq!(correlation_of(opaque, next), sent);
            }
        }
        assert_eq!(correlation_of(NUMBERS_FIRST + 9, 3), u64::MAX, "never sent");
    }
}
