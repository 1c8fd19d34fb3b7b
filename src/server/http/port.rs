//! HTTP on one shard: the service behind it, the files it stands on, and what all its connections hold together.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use futures_rustls::TlsAcceptor;

use super::backend::BrokerBackend;
use crate::access::{NodeSecret, SharedKeys};
use crate::clock::SharedClock;
use crate::limits;
use crate::metrics::ShardMetrics;
use crate::net::{TlsError, TlsFiles, TlsRefreshed};
use crate::protocol::http::{Endpoint, ErrorCode, HttpError, HttpService};
use crate::server::connection::{Connections, ShardBroker};
use crate::server::handshakes::{HandshakePlace, Handshakes};
use crate::types::{Account, ByteBudget, Reservation, ShardId, Throttle};

/// Failed handshakes are told this often at most: a scanner of ports would fill the log otherwise.
const HANDSHAKE_NEWS_INTERVAL: Duration = Duration::from_secs(60);

/// A body of a message lies in memory twice: as it came and as text, then as text and as the batch that is stored.
const BODY_COPIES: usize = 2;
/// What is larger takes its whole share at once.
const SMALL_BODY_BYTES_MAX: usize = 64 * 1024;
/// A read of the socket takes this much at most: fits a core's cache.
const SCRATCH_BYTES: usize = 256 * 1024;
/// A large body waits for its share no longer than this.
const BODY_WAIT_MAX: Duration = Duration::from_secs(5);

/// What HTTP is told at the start.
#[derive(Clone, Debug)]
pub(crate) struct HttpOptions {
    /// Certificate and key; `None`: HTTP without TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    pub idle_timeout: Duration,
}

/// Why HTTP is not spoken.
#[derive(Debug, thiserror::Error)]
pub enum HttpPortError {
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// HTTP on one shard.
pub(crate) struct HttpPort {
    pub service: Rc<HttpService<BrokerBackend>>,
    pub idle_timeout: Duration,
    tls: Option<RefCell<TlsFiles>>,
    clock: SharedClock,
    metrics: Rc<ShardMetrics>,
    /// Every shard reads the files; one of them tells what it has found.
    tells: bool,
    handshake_news: Throttle,
    handshakes: Rc<Handshakes>,
    /// Room for answers to those who get little, see `HttpClient`.
    pub little: Rc<ByteBudget>,
    /// What is read goes here first: see `HttpStream`.
    pub scratch: RefCell<Vec<u8>>,
}

impl HttpPort {
    pub fn open(
        broker: &Rc<ShardBroker>,
        options: &HttpOptions,
        secret: &NodeSecret,
        keys: Option<Rc<SharedKeys>>,
        address: SocketAddr,
    ) -> Result<Self, HttpPortError> {
        let (clock, shard) = (broker.clock().clone(), broker.shard());
        let now = clock.monotonic();
        let backend = BrokerBackend::new(broker.clone(), &secret.0, secret.number(shard));
        let files = options.tls.as_ref().map(|(certificate, key)| TlsFiles::open(certificate, key, now));
        let tls = files.transpose()?.map(|(mut files, _)| {
            // The start has told of it.
            let _ = files.standing(clock.now());
            RefCell::new(files)
        });
        let endpoint = Endpoint { is_secure: tls.is_some(), address: address.to_string() };
        Ok(Self {
            service: Rc::new(HttpService::new(backend, shard, clock.clone(), keys, endpoint)),
            idle_timeout: options.idle_timeout,
            tls,
            handshakes: Handshakes::new(clock.clone()),
            little: Rc::new(ByteBudget::new(limits::BATCH_BYTES_MAX)),
            scratch: RefCell::new(vec![0; SCRATCH_BYTES]),
            clock,
            metrics: broker.metrics().clone(),
            tells: shard == ShardId(0),
            handshake_news: Throttle::new(HANDSHAKE_NEWS_INTERVAL),
        })
    }

    /// To be called about once a second.
    pub fn tick(&self) {
        let now = self.clock.monotonic();
        let tls = self.tls.as_ref().map(|files| files.borrow_mut().refresh(now));
        self.tell_certificate(tls, "the changed certificate is in use");
    }

    /// Reads the files now, and says what became of it.
    pub fn read_files_again(&self) {
        let now = self.clock.monotonic();
        let tls = self.tls.as_ref().map(|files| files.borrow_mut().read_again(now));
        self.tell_certificate(tls, "the certificate and its key were read again");
    }

    fn tell_certificate(&self, refreshed: Option<TlsRefreshed>, news: &str) {
        if !self.tells {
            return;
        }
        match refreshed {
            None | Some(TlsRefreshed::Unchanged) => {}
            Some(TlsRefreshed::Read) => tracing::info!(target: "tls", "{news}"),
            Some(TlsRefreshed::Failed(error)) => {
                tracing::error!(target: "tls", "the certificate stays as it was: {error}");
            }
        }
        // After the renewal, if there was one: it is told of what is in use now.
        let standing = self.tls.as_ref().and_then(|files| files.borrow_mut().standing(self.clock.now()));
        if let Some(warning) = standing {
            tracing::warn!(target: "tls", "{warning}");
        }
    }

    pub fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// What makes handshakes; `None` when HTTP is spoken without TLS.
    pub fn acceptor(&self) -> Option<TlsAcceptor> {
        self.tls.as_ref().map(|files| files.borrow().acceptor())
    }

    /// A place for one more handshake, or none, which is counted and told of now and then.
    pub fn handshake_place(&self) -> Option<HandshakePlace> {
        let place = self.handshakes.place();
        if place.is_none() {
            self.metrics.tls_handshakes_refused.add(1);
            if let Some(left_out) = self.handshake_news.allows(self.clock.monotonic()) {
                let most = limits::SHARD_HANDSHAKES_MAX;
                tracing::warn!(target: "tls", left_out, "a connection was closed: {most} handshakes are under way");
            }
        }
        place
    }

    /// Counts a failed handshake, and tells of one now and then.
    pub fn handshake_failed(&self, peer: Option<SocketAddr>, reason: &std::io::Error) {
        self.metrics.tls_handshakes_failed.add(1);
        let Some(left_out) = self.handshake_news.allows(self.clock.monotonic()) else { return };
        let peer = peer.map_or_else(|| "a client".to_owned(), |peer| peer.to_string());
        tracing::warn!(target: "tls", left_out, "{peer} did not complete its TLS handshake: {reason}");
    }
}

/// The refusal of a body beyond the limit.
pub(crate) fn body_too_large() -> HttpError {
    let most = limits::HTTP_BODY_BYTES_MAX;
    HttpError::new(ErrorCode::BodyTooLarge, format!("the body is too large: {most} bytes are the most"))
}

/// A body's share of the shard's memory; given back when dropped. What is small is counted as it comes in, since a peer may
/// announce what it never sends. A large body takes its whole share before the rest of it is read: two that each had half
/// of what they need would wait for each other.
pub(crate) struct BodyBytes {
    connections: Rc<Connections>,
    bytes: usize,
    share: Reservation,
}

impl BodyBytes {
    pub fn new(connections: &Rc<Connections>) -> Self {
        let share = connections.memory.count(Account::HttpBodies, 0);
        Self { connections: connections.clone(), bytes: 0, share }
    }

    /// `count` bytes more have come; `left` is what is still to come at most.
    pub async fn add(&mut self, count: usize, left: Option<u64>) -> Result<(), HttpError> {
        self.bytes += count;
        if self.bytes > limits::HTTP_BODY_BYTES_MAX {
            return Err(body_too_large());
        }
        let needed = self.bytes * BODY_COPIES;
        if needed <= self.share.bytes() {
            return Ok(());
        }
        let memory = self.connections.memory.clone();
        let budget = memory.budget(Account::HttpBodies);
        if self.bytes <= SMALL_BODY_BYTES_MAX {
            if budget.is_full() {
                return Err(too_many_bodies());
            }
            self.share.set(needed);
            return Ok(());
        }
        let left = left.and_then(|left| usize::try_from(left).ok()).unwrap_or(limits::HTTP_BODY_BYTES_MAX);
        let whole = (self.bytes.saturating_add(left)).min(limits::HTTP_BODY_BYTES_MAX) * BODY_COPIES;
        // With nothing of this account in hand, but what has come is there all the same: it counts as received, of which half
        // is left to those who need it.
        let received = memory.budget(Account::Received);
        if received.bytes() + needed > received.bytes_max() / 2 {
            return Err(too_many_bodies());
        }
        let _in_hand = received.count(needed);
        self.share.set(0);
        let late = async {
            self.connections.clock.sleep(BODY_WAIT_MAX).await;
            None
        };
        let share = async { Some(budget.reserve(whole).await) };
        let share = futures_lite::future::or(share, late).await;
        self.share = share.ok_or_else(too_many_bodies)?;
        Ok(())
    }
}

fn too_many_bodies() -> HttpError {
    HttpError::new(ErrorCode::Unavailable, "too many bodies at once: try again")
}
