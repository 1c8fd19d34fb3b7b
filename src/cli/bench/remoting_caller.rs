//! Questions to a broker or a name server of RocketMQ's, one after the other.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::cli::bench::socket::SocketError;
use crate::protocol::remoting::body::TopicRoute;
use crate::protocol::remoting::client::{Answer, AnswerError, ClientCore};
use crate::protocol::remoting::code::request;
use crate::protocol::remoting::{FieldValue, ResponseCode};
use crate::types::{QueueOffset, TopicName};

const PATIENCE: Duration = Duration::from_secs(10);

/// What was answered when a route was asked for.
pub enum Found {
    Route(TopicRoute),
    Nothing,
    /// Who answers knows no routes at all.
    NoNameServer,
}

/// A connection with one request on its way at a time.
pub struct Caller {
    stream: TcpStream,
    address: String,
    core: ClientCore,
}

impl Caller {
    pub fn connect(address: &str) -> Result<Self, SocketError> {
        let refused = |source| SocketError::Connect { address: address.to_owned(), source };
        let stream = TcpStream::connect(address).map_err(refused)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(refused)?;
        Ok(Self { stream, address: address.to_owned(), core: ClientCore::default() })
    }

    pub fn route(&mut self, topic: &str) -> Result<Found, SocketError> {
        let fields = [("topic", FieldValue::Text(topic))];
        self.ask(request::GET_ROUTEINFO_BY_TOPIC, &fields, |answer| {
            let code = answer.header.code;
            if code == ResponseCode::TopicNotExist.number() {
                return Ok(Found::Nothing);
            }
            if code == ResponseCode::RequestCodeNotSupported.number() {
                return Ok(Found::NoNameServer);
            }
            check_success(answer)?;
            TopicRoute::read(answer.body).map(Found::Route).map_err(|error| error.to_string())
        })
    }

    /// Where a queue of this broker begins and ends.
    pub fn bounds(&mut self, topic: &TopicName, queue: u32) -> Result<[QueueOffset; 2], SocketError> {
        let fields =
            [("topic", FieldValue::Text(topic.as_str())), ("queueId", FieldValue::Number(queue.into()))];
        let mut offset = |code| {
            self.ask(code, &fields, |answer| {
                check_success(answer)?;
                answer.header.fields.required_number("offset").map_err(|error| error.to_string())
            })
        };
        Ok([offset(request::GET_MIN_OFFSET)?, offset(request::GET_MAX_OFFSET)?].map(QueueOffset))
    }

    /// Asks, and has `read` read the answer.
    fn ask<T>(
        &mut self,
        code: i32,
        fields: &[(&str, FieldValue<'_>)],
        read: impl FnOnce(&Answer<'_>) -> Result<T, String>,
    ) -> Result<T, SocketError> {
        self.core.request(code, fields, b"");
        self.exchange()?;
        let answer = self.core.next_answer().map_err(|error| broken(&self.address, error))?;
        let answer = answer.expect("it was waited for");
        read(&answer).map_err(|reason| SocketError::Refused { address: self.address.clone(), reason })
    }

    /// Sends what is to be sent, and reads until an answer is there.
    fn exchange(&mut self) -> Result<(), SocketError> {
        let address = &self.address;
        let lost = |source| SocketError::Lost { address: address.clone(), source };
        self.stream.write_all(self.core.outgoing()).map_err(lost)?;
        self.core.sent(self.core.outgoing().len());
        let mut piece = [0; 4096];
        while !self.core.has_answer().map_err(|error| broken(address, error))? {
            match self.stream.read(&mut piece).map_err(lost)? {
                0 => return Err(SocketError::Closed { address: address.clone() }),
                count => self.core.received(&piece[..count]),
            }
        }
        Ok(())
    }

    /// An error of what was answered.
    pub fn refused(&self, reason: String) -> SocketError {
        SocketError::Refused { address: self.address.clone(), reason }
    }
}

fn broken(address: &str, error: AnswerError) -> SocketError {
    SocketError::Protocol { address: address.to_owned(), reason: error.to_string() }
}

fn check_success(answer: &Answer<'_>) -> Result<(), String> {
    let (code, remark) = (answer.header.code, answer.header.remark.as_deref().unwrap_or_default());
    if code == ResponseCode::Success.number() { Ok(()) } else { Err(format!("code {code}: {remark}")) }
}
