//! Connections for which there is no room, or whose protocol is not spoken: what they are told, and what the operator is.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use glommio::net::TcpStream;

use crate::limits::REFUSED_CONNECTIONS_MAX;
use crate::runtime::host;
use crate::types::{MonotonicTime, Throttle};

/// How long such a connection is kept after its answer. Closed at once with something unread, the kernel would send a
/// reset, which may overtake the answer.
const KEPT_FOR: Duration = Duration::from_secs(1);
const NEWS_INTERVAL: Duration = Duration::from_secs(10);

/// The last ones that were refused.
pub(crate) struct RefusedConnections {
    kept: RefCell<VecDeque<(MonotonicTime, TcpStream)>>,
    refusals: Throttle,
    strangers: Throttle,
    failures: Throttle,
}

impl Default for RefusedConnections {
    fn default() -> Self {
        let [refusals, strangers, failures] = [(); 3].map(|()| Throttle::new(NEWS_INTERVAL));
        Self { kept: RefCell::default(), refusals, strangers, failures }
    }
}

impl RefusedConnections {
    /// Answers with `refusal`, as far as the socket takes it without waiting, and ends the connection. Only a few are kept:
    /// more would need the room that there is not.
    pub fn refuse(&self, stream: TcpStream, refusal: Vec<u8>, reason: &str, now: MonotonicTime) {
        if let Some(left_out) = self.refusals.allows(now) {
            let peer = shown(stream.peer_addr().ok());
            tracing::warn!(target: "net", left_out, peer, "a connection was closed at once: {reason}");
        }
        self.send_last(stream, &refusal, now);
    }

    /// The first bytes of a connection are of a protocol that is not spoken there, or not in that way, or of none.
    pub fn tell_stranger(&self, peer: Option<SocketAddr>, now: MonotonicTime) {
        if let Some(left_out) = self.strangers.allows(now) {
            let peer = shown(peer);
            tracing::warn!(target: "net", left_out, peer, "a connection was closed: it speaks another protocol");
        }
    }

    /// Sends an answer and ends the connection; without an answer it is closed at once.
    pub fn send_last(&self, stream: TcpStream, answer: &[u8], now: MonotonicTime) {
        if answer.is_empty() {
            return;
        }
        let mut kept = self.kept.borrow_mut();
        if kept.len() >= REFUSED_CONNECTIONS_MAX {
            kept.pop_front();
        }
        // A client that is gone needs no answer.
        let _ = host::send_parts(stream.as_raw_fd(), &[IoSlice::new(answer)]);
        host::end_sending(stream.as_raw_fd());
        kept.push_back((now, stream));
    }

    /// To be called about once a second.
    pub fn let_go(&self, now: MonotonicTime) {
        self.kept.borrow_mut().retain(|(since, _)| now.since(*since) < KEPT_FOR);
    }

    /// The system gave no connection, although one may wait.
    pub fn not_accepted(&self, error: &str, now: MonotonicTime) {
        if let Some(left_out) = self.failures.allows(now) {
            tracing::error!(target: "net", left_out, "connections cannot be accepted: {error}");
        }
    }
}

/// For a line of the log; a peer that has gone has no address any more.
fn shown(peer: Option<SocketAddr>) -> String {
    peer.map_or_else(|| "gone".to_owned(), |peer| peer.to_string())
}
