//! TLS on one shard: the certificate that all its doors have in common, and handshakes, counted and limited.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::future;
use glommio::net::TcpStream;
use rustls::{ServerConfig, ServerConnection};

use super::connection::ShardBroker;
use super::core_turns::CoreTurns;
use super::costly_steps::{CostlyStepSender, CostlySteps, Stepped};
use super::doors::{Door, DoorRules, tls_refusal};
use super::handshakes::{GivenUp, HandshakePermit, Handshakes};
use super::refused_connections::Reason;
use super::sessions::Connection;
use super::stream::{Replayed, TlsStream};
use super::tls_handshake;
use crate::clock::SharedClock;
use crate::limits;
use crate::metrics::ShardMetrics;
use crate::net::{CertificateSource, ReceiveBuffer, TlsError, TlsFiles, TlsRefreshed, door_config};
use crate::runtime::{host, is_clock_tellable, yield_to_reactor};
use crate::types::{MonotonicTime, ShardId, Throttle};

/// A handshake must be complete this long after its first byte.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Failed handshakes are told this often at most: a scanner of ports would fill the log otherwise.
const HANDSHAKE_NEWS_INTERVAL: Duration = Duration::from_secs(60);
/// So are those that were given up, of which each is a connection's end.
const GIVEN_UP_NEWS_INTERVAL: Duration = Duration::from_secs(10);
/// What a session keeps of answers that the socket does not take, in clear or encrypted. Its own limit is more than
/// [`limits::TLS_CONNECTION_BYTES`].
const UNSENT_BYTES_MAX: usize = 16 * 1024;

/// What a client is told whose handshake is given up for another one.
const GIVEN_UP: &str =
    "too many TLS handshakes are under way, most of them from where this one comes: try again";

/// TLS on one shard.
pub(crate) struct Tls {
    source: RefCell<Box<dyn CertificateSource>>,
    rules: DoorRules,
    /// By the number of the door: they may offer different protocols.
    configs: RefCell<Configs>,
    clock: SharedClock,
    metrics: Rc<ShardMetrics>,
    /// Every shard reads the files; one of them tells what it has found.
    tells: bool,
    news: Throttle,
    given_up_news: Throttle,
    handshakes: Rc<Handshakes>,
    turns: Rc<CoreTurns>,
    /// `None`: there are no threads for them.
    costly_steps: Option<CostlySteps>,
}

type Configs = [Arc<ServerConfig>; Door::ALL.len()];

/// Who makes the steps of handshakes: threads of the node, if there are any, and the shard's core in turns.
pub(crate) struct HandshakeMakers {
    pub threads: Option<CostlyStepSender>,
    pub turns: Rc<CoreTurns>,
}

impl Tls {
    /// Reads certificate and key.
    pub fn open(
        broker: &ShardBroker,
        (certificate, key): &(PathBuf, PathBuf),
        rules: DoorRules,
        makers: HandshakeMakers,
    ) -> Result<Self, TlsError> {
        let clock = broker.clock().clone();
        let (mut files, _) = TlsFiles::open(certificate, key, clock.monotonic())?;
        // The start has told of it.
        let _ = files.standing(clock.now());
        Ok(Self {
            configs: RefCell::new(configs(&files, rules)),
            source: RefCell::new(Box::new(files)),
            rules,
            handshakes: Rc::default(),
            turns: makers.turns,
            costly_steps: makers.threads.map(|threads| CostlySteps::new(clock.clone(), threads)),
            clock,
            metrics: broker.metrics().clone(),
            tells: broker.shard() == ShardId(0),
            news: Throttle::new(HANDSHAKE_NEWS_INTERVAL),
            given_up_news: Throttle::new(GIVEN_UP_NEWS_INTERVAL),
        })
    }

    /// To be called about once a second.
    pub fn tick(&self) {
        let refreshed = self.source.borrow_mut().refresh(self.clock.monotonic());
        self.took_over(refreshed, "the changed certificate is in use");
    }

    /// Tells what was left out of what is told now and then: see [`Throttle::left_out`].
    pub fn tell_left_out(&self, now: Option<MonotonicTime>) {
        if let Some(left_out) = self.news.left_out(now) {
            tracing::warn!(target: "tls", left_out, "more TLS handshakes were not completed since that was told");
        }
        if let Some(left_out) = self.given_up_news.left_out(now) {
            tracing::warn!(target: "tls", left_out, "more handshakes were given up for new ones since that was told");
        }
    }

    /// Reads the certificate now, and says what became of it.
    pub fn read_again(&self) {
        let refreshed = self.source.borrow_mut().read_again(self.clock.monotonic());
        self.took_over(refreshed, "the certificate and its key were read again");
    }

    fn took_over(&self, refreshed: TlsRefreshed, news: &str) {
        if refreshed == TlsRefreshed::Read {
            self.configs.replace(configs(&**self.source.borrow(), self.rules));
        }
        if !self.tells {
            return;
        }
        match refreshed {
            TlsRefreshed::Unchanged => {}
            TlsRefreshed::Read => tracing::info!(target: "tls", "{news}"),
            TlsRefreshed::Failed(error) => {
                tracing::error!(target: "tls", "the certificate stays as it was: {error}");
            }
        }
        // After the renewal, if there was one: it is told of what is in use now.
        if let Some(warning) = self.source.borrow_mut().standing(self.clock.now()) {
            tracing::warn!(target: "tls", "{warning}");
        }
    }

    /// Carries out the handshake of a connection whose first bytes are in `buffer`, within `time` at most; `None` when the
    /// connection has ended, which is counted and told.
    pub async fn shake_hands(
        &self,
        connection: &Connection,
        door: Door,
        stream: TcpStream,
        buffer: ReceiveBuffer,
        time: Duration,
    ) -> Option<TlsStream> {
        if !is_clock_tellable() {
            self.metrics.connections_dropped.add(1);
            return ended(connection, stream);
        }
        connection.incomplete_since.set(None);
        connection.end_after(self.clock.monotonic(), HANDSHAKE_TIMEOUT.min(time));
        let peer = stream.peer_addr().ok();
        let permit = self.permit(peer);
        let config = self.configs.borrow()[door as usize].clone();
        let has_answered = Rc::new(Cell::new(false));
        let mut io = Replayed::new(stream, buffer, &has_answered);
        let is_late = || connection.deadline.get().is_some_and(|deadline| self.clock.monotonic() > deadline);
        // Before the first step an end of the peer's direction is the end: it cannot go on without our answer.
        let has_begun = Cell::new(false);
        let is_there = || if has_begun.replace(true) { !connection.is_reset() } else { connection.is_open() };
        connection.has_last_words.set(true);
        let outcome = {
            let cut_short = async {
                future::or(connection.given_way(), permit.given_up()).await;
                None
            };
            let is_wanted = || !is_late() && is_there();
            future::or(cut_short, self.carry_out(&permit, config.clone(), &mut io, is_wanted)).await
        };
        connection.has_last_words.set(false);
        let given_up = permit.is_given_up().then(|| GIVEN_UP.to_owned());
        let reason = given_up.or_else(|| connection.gives_way().then(|| Reason::Memory.text()));
        drop(permit);
        // It has cost as much as hundreds of requests.
        yield_to_reactor().await;
        match (outcome, reason) {
            (Some(Ok(session)), _) => match tls_handshake::stream_of(io, *session, config).await {
                Ok(stream) => {
                    self.metrics.tls_handshakes.add(1);
                    Some(stream)
                }
                Err((error, io)) => {
                    self.failed(peer, &error);
                    ended(connection, io)
                }
            },
            (Some(Err(error)), _) => {
                self.failed(peer, &error);
                ended(connection, io)
            }
            (None, Some(reason)) => {
                // Later it would have to be told within what was agreed, which only the session knows.
                if !has_answered.get() {
                    let _ = host::send_parts(connection.fd(), &[IoSlice::new(&tls_refusal(&reason))]);
                }
                ended(connection, io)
            }
            (None, None) => {
                self.failed(peer, &io::ErrorKind::ConnectionAborted.into());
                ended(connection, io)
            }
        }
    }

    /// A handshake from its first step to its last; `None` when a step was due that was not wanted any more.
    async fn carry_out(
        &self,
        permit: &HandshakePermit,
        config: Arc<ServerConfig>,
        io: &mut Replayed,
        is_wanted: impl Fn() -> bool,
    ) -> Option<io::Result<Box<ServerConnection>>> {
        let is_costly = self.source.borrow().signs_slowly();
        let mut session = match ServerConnection::new(config) {
            Ok(session) => Box::new(session),
            Err(error) => return Some(Err(io::Error::other(error))),
        };
        session.set_buffer_limit(Some(UNSENT_BYTES_MAX));
        let step = async |session: Box<ServerConnection>| {
            // The signature is made in the step in which keys are agreed on, or before.
            let costly = self.costly_steps.as_ref();
            let costly = costly.filter(|_| is_costly && session.negotiated_key_exchange_group().is_none());
            match costly {
                Some(costly) => costly.carry_out(session, permit.network(), &self.turns, &is_wanted).await,
                None => self.turns.carry_out(&is_wanted, || Stepped::of(session)).await,
            }
        };
        tls_handshake::shake_hands(io, session, step).await
    }

    /// Takes back what threads have made of handshakes, until [`end`](Self::end).
    pub async fn run(&self) {
        if let Some(costly_steps) = &self.costly_steps {
            costly_steps.run().await;
        }
    }

    /// Lets [`run`](Self::run) end: handshakes that a thread has then are not completed.
    pub fn end(&self) {
        if let Some(costly_steps) = &self.costly_steps {
            costly_steps.end();
        }
    }

    /// A permit for one more handshake. Another one that is given up for it is counted, and told of now and then.
    fn permit(&self, peer: Option<SocketAddr>) -> HandshakePermit {
        let (permit, given_up) = self.handshakes.permit(peer.map(|peer| peer.ip()));
        if let Some(GivenUp { network, count }) = given_up {
            self.metrics.tls_handshakes_given_up.add(1);
            if let Some(left_out) = self.given_up_news.allows(self.clock.monotonic()) {
                let network =
                    network.map_or_else(|| "clients that have gone".to_owned(), |at| at.to_string());
                let most = limits::SHARD_HANDSHAKES_MAX;
                tracing::warn!(target: "tls", left_out, "of {most} handshakes {count} are not completed by {network}: \
                    the oldest of them was given up for a new one");
            }
        }
        permit
    }

    /// Takes note of a connection that is closed because there is no memory for its session.
    pub fn note_refused_for_memory(&self) {
        self.metrics.tls_handshakes_refused.add(1);
        if let Some(left_out) = self.news.allows(self.clock.monotonic()) {
            tracing::warn!(
                target: "tls",
                left_out,
                "a connection was closed: the broker has no memory left for it: give it more with --client-memory"
            );
        }
    }

    /// Counts a failed handshake, and tells of one now and then.
    fn failed(&self, peer: Option<SocketAddr>, reason: &io::Error) {
        self.metrics.tls_handshakes_failed.add(1);
        let Some(left_out) = self.news.allows(self.clock.monotonic()) else { return };
        let peer = peer.map_or_else(|| "a client".to_owned(), |peer| peer.to_string());
        tracing::warn!(target: "tls", left_out, "{peer} did not complete its TLS handshake: {reason}");
    }
}

/// Ends a connection before its stream is closed: another one gets the number of its descriptor then.
fn ended(connection: &Connection, stream: impl Sized) -> Option<TlsStream> {
    connection.end();
    drop(stream);
    None
}

fn configs(source: &dyn CertificateSource, rules: DoorRules) -> Configs {
    Door::ALL.map(|door| door_config(source, &rules.protocol_names(door)))
}
