//! HTTP on one shard: the service behind it, the files it stands on, and what all its connections hold together.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use futures_rustls::TlsAcceptor;

use super::connection::ShardBroker;
use super::data_directory::NodeSecret;
use super::http_backend::BrokerBackend;
use crate::access::{AccessError, AccessFile, Refreshed};
use crate::clock::SharedClock;
use crate::limits;
use crate::metrics::ShardMetrics;
use crate::net::{TlsError, TlsFiles, TlsRefreshed};
use crate::protocol::http::{Endpoint, ErrorCode, HttpError, HttpService};
use crate::types::{ShardId, Throttle};

/// Failed handshakes are told this often at most: a scanner of ports would fill the log otherwise.
const HANDSHAKE_NEWS_INTERVAL: Duration = Duration::from_secs(60);

/// What HTTP is told at the start.
#[derive(Clone, Debug)]
pub(super) struct HttpOptions {
    /// `None`: everybody may do everything.
    pub access_keys: Option<PathBuf>,
    /// Certificate and key; `None`: HTTP without TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    pub idle_timeout: Duration,
}

/// Why HTTP is not spoken.
#[derive(Debug, thiserror::Error)]
pub enum HttpPortError {
    #[error("the access keys: {0}")]
    Access(#[from] AccessError),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// HTTP on one shard.
pub(super) struct HttpPort {
    pub service: Rc<HttpService<BrokerBackend>>,
    pub idle_timeout: Duration,
    tls: Option<RefCell<TlsFiles>>,
    body_bytes: Cell<usize>,
    clock: SharedClock,
    metrics: Rc<ShardMetrics>,
    /// Every shard reads the files; one of them tells what it has found.
    tells: bool,
    handshake_news: Throttle,
}

impl HttpPort {
    pub fn open(
        broker: &Rc<ShardBroker>,
        options: &HttpOptions,
        secret: &NodeSecret,
        address: SocketAddr,
    ) -> Result<Self, HttpPortError> {
        let (clock, shard) = (broker.clock().clone(), broker.shard());
        let now = clock.monotonic();
        let backend = BrokerBackend::new(broker.clone(), &secret.0, secret.number(shard));
        let access = options.access_keys.as_deref().map(|path| AccessFile::open(path, now)).transpose()?;
        let files = options.tls.as_ref().map(|(certificate, key)| TlsFiles::open(certificate, key, now));
        let tls = files.transpose()?.map(|(mut files, _)| {
            // The start has told of it.
            let _ = files.standing(clock.now());
            RefCell::new(files)
        });
        let endpoint = Endpoint { is_secure: tls.is_some(), address: address.to_string() };
        let access = access.map(|(file, _)| file);
        Ok(Self {
            service: Rc::new(HttpService::new(backend, shard, clock.clone(), access, endpoint)),
            idle_timeout: options.idle_timeout,
            tls,
            body_bytes: Cell::new(0),
            clock,
            metrics: broker.metrics().clone(),
            tells: shard == ShardId(0),
            handshake_news: Throttle::new(HANDSHAKE_NEWS_INTERVAL),
        })
    }

    /// To be called about once a second.
    pub fn tick(&self) {
        let keys = self.service.tick();
        let now = self.clock.monotonic();
        let tls = self.tls.as_ref().map(|files| files.borrow_mut().refresh(now));
        if !self.tells {
            return;
        }
        match keys {
            Refreshed::Unchanged | Refreshed::Read { warning: None } => {}
            Refreshed::Read { warning: Some(warning) } => tracing::warn!(target: "access", "{warning}"),
            Refreshed::Failed(error) => {
                tracing::error!(target: "access", "the access keys stay as they were: {error}");
            }
        }
        match tls {
            None | Some(TlsRefreshed::Unchanged) => {}
            Some(TlsRefreshed::Read) => tracing::info!(target: "tls", "the changed certificate is in use"),
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

    /// Counts a failed handshake, and tells of one now and then.
    pub fn handshake_failed(&self, peer: Option<SocketAddr>, reason: &std::io::Error) {
        self.metrics.tls_handshakes_failed.add(1);
        let Some(left_out) = self.handshake_news.allows(self.clock.monotonic()) else { return };
        let peer = peer.map_or_else(|| "a client".to_owned(), |peer| peer.to_string());
        tracing::warn!(target: "tls", left_out, "{peer} did not complete its TLS handshake: {reason}");
    }
}

/// The refusal of a body beyond the limit.
pub(super) fn body_too_large() -> HttpError {
    let most = limits::HTTP_BODY_BYTES_MAX;
    HttpError::new(ErrorCode::BodyTooLarge, format!("the body is too large: {most} bytes are the most"))
}

/// A body's share of what the shard holds; given back when dropped. Counted as it comes in, since a peer may announce
/// what it never sends.
pub(super) struct BodyBytes<'a> {
    port: &'a HttpPort,
    bytes: Cell<usize>,
}

impl<'a> BodyBytes<'a> {
    pub fn new(port: &'a HttpPort) -> Self {
        Self { port, bytes: Cell::new(0) }
    }

    pub fn add(&self, count: usize) -> Result<(), HttpError> {
        let bytes = self.bytes.get() + count;
        let sum = self.port.body_bytes.get() + count;
        if bytes > limits::HTTP_BODY_BYTES_MAX {
            return Err(body_too_large());
        }
        if sum > limits::SHARD_HTTP_BODY_BYTES_MAX {
            return Err(HttpError::new(ErrorCode::Unavailable, "too many bodies at once: try again"));
        }
        self.bytes.set(bytes);
        self.port.body_bytes.set(sum);
        Ok(())
    }
}

impl Drop for BodyBytes<'_> {
    fn drop(&mut self) {
        self.port.body_bytes.set(self.port.body_bytes.get() - self.bytes.get());
    }
}
