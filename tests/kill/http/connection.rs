//! The calls of the HTTP SDK over one connection that is kept alive.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::node::PATIENCE;

const READ_BYTES: usize = 64 * 1024;

/// One client.
pub struct Connection {
    stream: TcpStream,
    unread: Vec<u8>,
}

pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// Which messages a receive asks for, and whose they are then.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    pub topic: &'a str,
    pub group: &'a str,
    /// The parameter `trans`: empty, `order` or `pop`.
    pub mode: &'a str,
    pub count: usize,
    pub wait_seconds: u64,
}

/// A message as it came.
#[derive(Clone, Debug)]
pub struct Delivered {
    pub body: String,
    pub handle: String,
    /// When its lease ends, by the broker's clock, which is ours.
    pub lease_until_ms: u64,
    pub attempt: u32,
}

/// A handle that was not taken, and the code that says why.
#[derive(Clone, Debug)]
pub struct Refused {
    pub handle: String,
    pub code: String,
}

pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
    now.as_millis() as u64
}

impl Connection {
    pub fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, unread: Vec::new() })
    }

    /// Sends one request and reads its answer. An error means that there is none: what was asked for may have happened.
    pub fn request(&mut self, method: &str, target: &str, body: &str) -> Result<Answer> {
        let length = body.len();
        let head = format!("{method} {target} HTTP/1.1\r\nHost: broker\r\nContent-Length: {length}\r\n\r\n");
        self.stream.write_all((head + body).as_bytes())?;
        let head_bytes = loop {
            let end = self.unread.windows(4).position(|four| four == b"\r\n\r\n");
            match end {
                Some(end) => break end + 4,
                None => self.read_more()?,
            }
        };
        let head: Vec<_> = self.unread.drain(..head_bytes).collect();
        let head = String::from_utf8(head).expect("ASCII").to_lowercase();
        let length = head
            .split("content-length: ")
            .nth(1)
            .map_or("0", |rest| rest.split("\r\n").next().expect("a line"));
        let length: usize = length.parse().expect("a number of bytes");
        while self.unread.len() < length {
            self.read_more()?;
        }
        let body = String::from_utf8(self.unread.drain(..length).collect()).expect("UTF-8");
        let status = head[9..12].parse().expect("a status");
        Ok(Answer { status, body })
    }

    fn read_more(&mut self) -> Result<()> {
        let mut buffer = [0; READ_BYTES];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(Error::new(ErrorKind::UnexpectedEof, "the connection has ended")),
            Ok(count) => {
                self.unread.extend_from_slice(&buffer[..count]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                panic!("no answer within {PATIENCE:?}; so far {:?}", String::from_utf8_lossy(&self.unread))
            }
            Err(error) => Err(error),
        }
    }

    /// Publishes a message. Returns the handle that decides on it, when it is a transaction's.
    pub fn publish(&mut self, topic: &str, body: &str, properties: &str) -> Result<Option<String>> {
        let document = format!(
            "<Message><MessageBody>{body}</MessageBody><Properties>{properties}</Properties></Message>"
        );
        let answer = self.request("POST", &format!("/topics/{topic}/messages"), &document)?;
        assert_eq!(answer.status, 201, "a publish: {}", answer.body);
        Ok(element(&answer.body, "ReceiptHandle").map(str::to_owned))
    }

    /// Receives messages; none is no error.
    pub fn receive(&mut self, wanted: Wanted<'_>) -> Result<Vec<Delivered>> {
        let Wanted { topic, group, mode, count, wait_seconds } = wanted;
        let trans = if mode.is_empty() { String::new() } else { format!("&trans={mode}") };
        let target = format!(
            "/topics/{topic}/messages?consumer={group}&numOfMessages={count}&waitseconds={wait_seconds}{trans}"
        );
        let answer = self.request("GET", &target, "")?;
        if answer.status == 404 {
            assert_eq!(element(&answer.body, "Code"), Some("MessageNotExist"), "{}", answer.body);
            return Ok(Vec::new());
        }
        assert_eq!(answer.status, 200, "a receive: {}", answer.body);
        Ok(answer.body.split("<Message>").skip(1).map(delivered).collect())
    }

    /// Ends leases, or with a `mode` transactions. Returns the handles that were not taken.
    pub fn acknowledge(
        &mut self,
        topic: &str,
        group: &str,
        mode: &str,
        handles: &[&str],
    ) -> Result<Vec<Refused>> {
        let trans = if mode.is_empty() { String::new() } else { format!("&trans={mode}") };
        let target = format!("/topics/{topic}/messages?consumer={group}{trans}");
        let handles: String =
            handles.iter().map(|handle| format!("<ReceiptHandle>{handle}</ReceiptHandle>")).collect();
        let document = format!("<ReceiptHandles>{handles}</ReceiptHandles>");
        let answer = self.request("DELETE", &target, &document)?;
        if answer.status == 204 {
            return Ok(Vec::new());
        }
        assert_eq!(answer.status, 404, "an acknowledgement: {}", answer.body);
        let refused = answer.body.split("<Error>").skip(1).map(|error| Refused {
            handle: element(error, "ReceiptHandle").expect("each error names its handle").to_owned(),
            code: element(error, "ErrorCode").expect("each error has a code").to_owned(),
        });
        let refused: Vec<_> = refused.collect();
        assert!(!refused.is_empty(), "an acknowledgement: {}", answer.body);
        Ok(refused)
    }
}

fn delivered(message: &str) -> Delivered {
    let text = |name| element(message, name).unwrap_or_else(|| panic!("no {name} in {message}"));
    let number = |name| text(name).parse::<u64>().unwrap_or_else(|error| panic!("{name}: {error}"));
    Delivered {
        body: text("MessageBody").to_owned(),
        handle: text("ReceiptHandle").to_owned(),
        lease_until_ms: number("NextConsumeTime"),
        attempt: number("ConsumedTimes") as u32,
    }
}

/// The text of the first element of this name; none of ours has anything that is escaped.
fn element<'a>(document: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = document.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(text, _)| text)
}
