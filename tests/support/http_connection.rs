//! HTTP/1.1 byte by byte, within TLS or without.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::node::{Node, PATIENCE};

pub const PUBLISH: &str = "<Message><MessageBody>abc</MessageBody></Message>";
pub const POST: &str = "POST /topics/orders/messages HTTP/1.1\r\nHost: h\r\n";
pub const GET: &str = "GET /topics/orders/messages?consumer=g&numOfMessages=1 HTTP/1.1\r\nHost: h\r\n\r\n";

/// One answer; its head in lower case.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// A connection that is read one answer at a time.
pub struct Connection<S = TcpStream> {
    pub stream: S,
    unread: Vec<u8>,
}

/// TLS over a socket.
pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

fn http_of(node: &Node) -> &str {
    node.http_address.as_ref().expect("HTTP was asked for")
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the broker listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.set_nodelay(true).expect("a socket");
    stream
}

impl Connection {
    pub fn open(node: &Node) -> Self {
        Self::over(connect(http_of(node)))
    }
}

impl Connection<TlsStream> {
    /// With the certificate in this PEM text, which alone is trusted; an error is that of the handshake.
    pub fn open_tls(node: &Node, certificate: &str) -> std::io::Result<Self> {
        tls(connect(http_of(node)), certificate, &[]).map(Self::over)
    }
}

/// TLS over a socket, with these names of protocols; an error is that of the handshake.
pub fn tls<S: Read + Write>(
    socket: S,
    certificate: &str,
    protocols: &[&[u8]],
) -> std::io::Result<StreamOwned<ClientConnection, S>> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate");
    roots.add(certificate).expect("a usable one");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions that the provider has")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from("localhost").expect("a name");
    let session = ClientConnection::new(Arc::new(config), name).expect("a session");
    let mut stream = StreamOwned::new(session, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

impl<S: Read + Write> Connection<S> {
    pub fn over(stream: S) -> Self {
        Self { stream, unread: Vec::new() }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the broker reads");
    }

    /// Reads until `end` is among the unread bytes; false when the connection ends before.
    fn fill(&mut self, end: impl Fn(&[u8]) -> bool) -> bool {
        let mut buffer = [0; 16 * 1024];
        while !end(&self.unread) {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => self.unread.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return false,
                Err(error) => {
                    panic!("no answer: {error}; so far {:?}", String::from_utf8_lossy(&self.unread))
                }
            }
        }
        true
    }

    pub fn next(&mut self) -> Option<Answer> {
        let head_end = |bytes: &[u8]| bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
        if !self.fill(|bytes| head_end(bytes).is_some()) {
            return None;
        }
        let head: Vec<_> = self.unread.drain(..head_end(&self.unread).expect("it is there")).collect();
        let head = String::from_utf8(head).expect("ASCII").to_lowercase();
        let length = head
            .split("content-length: ")
            .nth(1)
            .map_or(0, |rest| rest.split("\r\n").next().expect("a line").parse::<usize>().expect("a number"));
        assert!(self.fill(|bytes| bytes.len() >= length), "the body ends early");
        let body = String::from_utf8(self.unread.drain(..length).collect()).expect("UTF-8");
        let status = head[9..12].parse().expect("a status");
        Some(Answer { status, head, body })
    }

    /// The status and code of the next answer, which must have the form that clients need.
    pub fn expect(&mut self, status: u16, code: &str) -> Answer {
        let answer = self.next().expect("an answer");
        assert_eq!(answer.status, status, "{}{}", answer.head, answer.body);
        assert!(answer.head.contains("\r\nx-mq-request-id: "), "{}", answer.head);
        assert!(answer.head.contains("\r\ncontent-type: text/xml"), "{}", answer.head);
        assert!(answer.body.contains(&format!("<Code>{code}</Code>")), "{}", answer.body);
        answer
    }

    pub fn expect_end(&mut self) {
        assert!(!self.fill(|_| false), "the connection has ended");
        assert!(self.unread.is_empty(), "{:?}", String::from_utf8_lossy(&self.unread));
    }
}

/// A request that publishes this document.
pub fn publish(body: &str) -> String {
    format!("{POST}Content-Length: {}\r\n\r\n{body}", body.len())
}
