//! Requests of the HTTP access protocol, as bytes.

use memchr::memmem;

use crate::Target;

/// Messages of one receive: the protocol's most.
pub const RECEIVE_MESSAGES: usize = 16;

const HANDLE: (&[u8], &[u8]) = (b"<ReceiptHandle>", b"</ReceiptHandle>");

/// A message of `body` bytes, due at `due` milliseconds since 1970 if that is said.
pub fn publish(target: &Target, body: &str, due: Option<u64>) -> Vec<u8> {
    let properties =
        due.map_or_else(String::new, |due| format!("<Properties>__STARTDELIVERTIME:{due}|</Properties>"));
    let xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Message xmlns=\"http://mq.aliyuncs.com/doc/v1\">\
         <MessageBody>{body}</MessageBody><MessageTag></MessageTag>{properties}</Message>"
    );
    request("POST", target, "", &xml)
}

pub fn receive(target: &Target, group: &str, wait_seconds: u64) -> Vec<u8> {
    let query = format!("?consumer={group}&numOfMessages={RECEIVE_MESSAGES}&waitseconds={wait_seconds}");
    request("GET", target, &query, "")
}

pub fn acknowledge(target: &Target, group: &str, handles: &[String]) -> Vec<u8> {
    let handles: String =
        handles.iter().map(|handle| format!("<ReceiptHandle>{handle}</ReceiptHandle>")).collect();
    let xml = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?><ReceiptHandles>{handles}</ReceiptHandles>");
    request("DELETE", target, &format!("?consumer={group}"), &xml)
}

/// The handles in an answer to a receive.
pub fn handles(answer: &[u8]) -> Vec<String> {
    elements(answer, HANDLE)
}

/// The bodies in an answer to a receive.
pub fn bodies(answer: &[u8]) -> Vec<String> {
    elements(answer, (b"<MessageBody>", b"</MessageBody>"))
}

fn elements(answer: &[u8], (open, close): (&[u8], &[u8])) -> Vec<String> {
    let ends = memmem::find_iter(answer, close);
    let starts = memmem::find_iter(answer, open).map(|at| at + open.len());
    starts.zip(ends).map(|(start, end)| String::from_utf8_lossy(&answer[start..end]).into_owned()).collect()
}

fn request(method: &str, target: &Target, query: &str, body: &str) -> Vec<u8> {
    format!(
        "{method} /topics/{}/messages{query} HTTP/1.1\r\nHost: {}\r\nx-mq-version: 2015-06-06\r\n\
         Content-Type: text/xml;charset=utf-8\r\nContent-Length: {}\r\n\r\n{body}",
        target.topic,
        target.server,
        body.len(),
    )
    .into_bytes()
}
