//! The server behind the admin address: a thread's worth of connections, and who they are served for.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use async_channel::Receiver;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::{AbortHandle, LocalSet, spawn_local};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::connection::{self, Pace};
use super::console::Survey;
use super::phase::PhaseBoard;
use super::request::Request;
use super::router::no_look;
use super::shards::{Facts, Post, Shards};
use crate::access::Peer;
use crate::api::{self, Failure, Reply};
use crate::limits;
use crate::net::{ALPN_HTTP_1_1, CertificateSource, TlsError, TlsFiles, TlsRefreshed};
use crate::runtime::is_clock_tellable;
use crate::types::MonotonicTime;

/// A handshake must be complete within this time.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failed accept, which mostly means that descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The first byte of a TLS handshake (RFC 8446, 5.1).
const TLS_FIRST_BYTE: u8 = 0x16;
/// A fatal alert `unexpected_message` (RFC 8446, 6.2), in the record version that every client takes.
const TLS_ALERT: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 10];
const NO_ROOM: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nConnection: close\r\n\
    Content-Length: 70\r\n\r\ntoo many connections to the admin address are being served: try again\n";

/// Why the admin address cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("the admin address cannot be served: {0}; --admin none does without it")]
    Runtime(#[from] io::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The certificate of the admin address, which is that of all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminTls {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Whether nobody is served without it.
    pub is_required: bool,
}

/// What the admin address is served with.
pub struct AdminSetup {
    pub facts: Facts,
    pub post: Box<dyn Post + Send>,
    pub phase: PhaseBoard,
    /// Only this machine reaches it.
    pub is_loopback: bool,
    /// The node has access keys.
    pub has_keys: bool,
    pub tls: Option<AdminTls>,
}

/// A server that has everything it needs to begin.
pub struct AdminServer {
    runtime: Runtime,
    listener: tokio::net::TcpListener,
    setup: AdminSetup,
    certificate: Option<TlsFiles>,
}

/// What all connections share.
pub(super) struct Admin {
    pub facts: Facts,
    pub shards: Shards,
    pub phase: PhaseBoard,
    pub is_loopback: bool,
    pub has_keys: bool,
    pub console: Survey,
    certificate: Option<Certificate>,
    began: Instant,
    open: OpenConnections,
}

/// A certificate that is read again when it changes.
struct Certificate {
    files: RefCell<TlsFiles>,
    acceptor: RefCell<TlsAcceptor>,
    is_required: bool,
}

/// Somebody at the other end of a connection.
pub(super) struct Visit {
    pub admin: Rc<Admin>,
    pub peer: Peer,
    /// How far the connection has got.
    pub pace: Rc<Pace>,
    /// TLS is asked for, and this is none.
    pub lacks_tls: bool,
}

impl AdminServer {
    /// Takes over a listening socket, and reads the certificate.
    pub fn open(listener: TcpListener, setup: AdminSetup) -> Result<Self, AdminError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        listener.set_nonblocking(true)?;
        let listener = {
            let _entered = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let open = |tls: &AdminTls| TlsFiles::open(&tls.certificate, &tls.key, MonotonicTime(0));
        // What is not as it should be with the files, the start has told.
        let certificate = setup.tls.as_ref().map(open).transpose()?.map(|(files, _)| files);
        Ok(Self { runtime, listener, setup, certificate })
    }

    /// Serves until the other end of `stopped` is dropped. To be called on a thread of its own.
    pub fn run(self, stopped: &Receiver<Infallible>) {
        let Self { runtime, listener, setup, certificate } = self;
        let AdminSetup { facts, post, phase, is_loopback, has_keys, tls } = setup;
        let is_required = tls.is_some_and(|tls| tls.is_required);
        let admin = Rc::new(Admin {
            shards: Shards::new(post, facts.shard_count),
            facts,
            phase,
            is_loopback,
            has_keys,
            console: Survey::default(),
            certificate: certificate.map(|files| Certificate::new(files, is_required)),
            began: Instant::now(),
            open: OpenConnections::default(),
        });
        let local = LocalSet::new();
        runtime.block_on(local.run_until(async {
            tokio::select! {
                () = admin.accept_from(&listener) => {}
                // Nothing is ever sent: it is closed.
                _ = stopped.recv() => {}
            }
        }));
    }
}

impl Certificate {
    fn new(files: TlsFiles, is_required: bool) -> Self {
        let acceptor = RefCell::new(acceptor(&files));
        Self { files: RefCell::new(files), acceptor, is_required }
    }

    /// What handshakes are made with now. What is found of the files, a shard tells.
    fn acceptor(&self, now: MonotonicTime) -> TlsAcceptor {
        let mut files = self.files.borrow_mut();
        if files.refresh(now) == TlsRefreshed::Read {
            self.acceptor.replace(acceptor(&files));
        }
        self.acceptor.borrow().clone()
    }
}

fn acceptor(files: &TlsFiles) -> TlsAcceptor {
    let mut config = rustls::ServerConfig::clone(files.config());
    config.alpn_protocols = vec![ALPN_HTTP_1_1.to_vec()];
    TlsAcceptor::from(std::sync::Arc::new(config))
}

impl Admin {
    async fn accept_from(self: &Rc<Self>, listener: &tokio::net::TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, address)) => self.begin(stream, address),
                // Those that are open are not hurt.
                Err(_) => sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    /// Begins to serve a connection, in the place of one that waits for its client if need be.
    fn begin(self: &Rc<Self>, stream: TcpStream, address: SocketAddr) {
        if self.open.is_full() && !self.open.end_waiting() {
            // What the socket does not take at once is not worth waiting for.
            let _ = stream.try_write(NO_ROOM);
            return;
        }
        let (admin, pace) = (self.clone(), Pace::new());
        let number = self.open.next_number();
        let place = Place { admin: admin.clone(), number };
        let watched = pace.clone();
        let task = spawn_local(async move {
            let _place = place;
            tokio::select! {
                () = admin.serve(stream, address, pace.clone()) => {}
                () = pace.over() => {}
            }
        });
        self.open.insert(number, watched, task.abort_handle());
    }

    async fn serve(self: Rc<Self>, mut stream: TcpStream, address: SocketAddr, pace: Rc<Pace>) {
        let mut first = [0];
        let is_tls = match stream.peek(&mut first).await {
            Ok(1) => first[0] == TLS_FIRST_BYTE,
            _ => return,
        };
        // Answers are whole: waiting for more would only delay them.
        let _ = stream.set_nodelay(true);
        let lacks_tls =
            !is_tls && self.certificate.as_ref().is_some_and(|certificate| certificate.is_required);
        let peer = Peer::at(Some(address.ip()));
        let visit = Rc::new(Visit { admin: self.clone(), peer, pace, lacks_tls });
        match (&self.certificate, is_tls) {
            (_, false) => connection::serve(visit, stream).await,
            (None, true) => {
                // Who has gone needs no answer.
                let _ = stream.write_all(&TLS_ALERT).await;
            }
            (Some(certificate), true) => {
                // rustls would end the process.
                if !is_clock_tellable() {
                    return;
                }
                let now = MonotonicTime(self.began.elapsed().as_nanos() as u64);
                let handshake = certificate.acceptor(now).accept(stream);
                if let Ok(Ok(stream)) = timeout(HANDSHAKE_TIMEOUT, handshake).await {
                    connection::serve(visit, stream).await;
                }
            }
        }
    }
}

impl Visit {
    /// Has a request carried out for whoever has sent `asked`: as a native client that has proved its key, if it names one.
    pub async fn carry_out(&self, asked: &Request, request: api::Request) -> Result<Reply, Failure> {
        let outcome = self.admin.shards.request(asked.caller.clone(), request).await;
        asked.note_outcome(&self.peer, &outcome);
        outcome
    }

    /// Whether whoever asks may see what the node counts: everybody on this machine, and who may read the counters.
    pub async fn may_look(&self, asked: &Request) -> Result<(), Failure> {
        if self.admin.is_loopback || !self.admin.has_keys {
            return Ok(());
        }
        if asked.caller.key.is_none() {
            return Err(no_look());
        }
        self.may_administer(asked).await
    }

    /// Whether whoever asks has a key with `admin = true`, where there are keys.
    pub async fn may_administer(&self, asked: &Request) -> Result<(), Failure> {
        if !self.admin.has_keys {
            return Ok(());
        }
        let outcome = self.admin.shards.may_look(asked.caller.clone()).await;
        asked.note_outcome(&self.peer, &outcome);
        outcome
    }
}

/// The open connections, oldest first.
#[derive(Default)]
struct OpenConnections {
    open: RefCell<BTreeMap<u64, (Rc<Pace>, AbortHandle)>>,
    next: Cell<u64>,
}

impl OpenConnections {
    fn next_number(&self) -> u64 {
        self.next.replace(self.next.get() + 1)
    }

    fn is_full(&self) -> bool {
        self.open.borrow().len() >= limits::ADMIN_CONNECTIONS_MAX
    }

    fn insert(&self, number: u64, pace: Rc<Pace>, task: AbortHandle) {
        self.open.borrow_mut().insert(number, (pace, task));
    }

    /// Ends the connection that has waited longest for its client; false when none waits.
    fn end_waiting(&self) -> bool {
        let longest = {
            let open = self.open.borrow();
            let waiting =
                open.iter().filter_map(|(number, (pace, _))| Some((pace.waiting_since()?, *number)));
            waiting.min().map(|(_, number)| number)
        };
        let Some((_, task)) = longest.and_then(|number| self.open.borrow_mut().remove(&number)) else {
            return false;
        };
        task.abort();
        true
    }
}

/// A connection's place among the open ones, given up when its task ends or is ended.
struct Place {
    admin: Rc<Admin>,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.admin.open.open.borrow_mut().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_without_room_has_the_length_that_it_says() {
        let text = std::str::from_utf8(NO_ROOM).expect("ASCII");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{head}: {}", body.len());
    }
}
