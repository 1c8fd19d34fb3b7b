//! Connections for which there is no room, or whose protocol is not spoken: what they are told, and what the operator is.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

use glommio::net::TcpStream;

use super::doors::Door;
use crate::limits::{CONNECTIONS_MAX, REFUSED_CONNECTIONS_MAX};
use crate::metrics::{Counter, ShardMetrics};
use crate::runtime::host;
use crate::types::{MonotonicTime, Throttle};

/// How long such a connection is kept after its answer. Closed at once with something unread, the kernel would send a
/// reset, which may overtake the answer. One that has said nothing yet has as long to do so.
const KEPT_FOR: Duration = Duration::from_secs(1);
/// Enough to tell every protocol, and for the first request of one that answers requests only.
const FIRST_BYTES_MAX: usize = 1_024;
const NEWS_INTERVAL: Duration = Duration::from_secs(10);

/// The last ones that were refused.
pub(crate) struct RefusedConnections {
    kept: RefCell<VecDeque<Kept>>,
    metrics: Rc<ShardMetrics>,
    /// When each reason was told last, in the order of [`Reason::ALL`].
    told: [Throttle; Reason::ALL.len()],
}

/// Why a connection was closed that nobody had begun to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// There are as many as there may be.
    Number,
    Descriptors,
    Memory,
    /// Its first bytes are of a protocol that is not spoken there, or not in that way, or of none.
    Stranger,
    /// The system gave none, although one may wait.
    NotAccepted,
}

impl Reason {
    const ALL: [Reason; 5] =
        [Reason::Number, Reason::Descriptors, Reason::Memory, Reason::Stranger, Reason::NotAccepted];

    /// What the client is told, and the operator.
    pub fn text(self) -> String {
        match self {
            Reason::Number => {
                format!("this shard has {CONNECTIONS_MAX} connections, which are the most")
            }
            Reason::Descriptors => {
                "the broker has no descriptors left for more connections: raise its limit of open \
                                    files"
                    .to_owned()
            }
            Reason::Memory => {
                "the broker has no memory left for more connections: give it more with --client-memory"
                    .to_owned()
            }
            Reason::Stranger => "it speaks another protocol".to_owned(),
            Reason::NotAccepted => "the system gives none".to_owned(),
        }
    }

    fn counter(self, metrics: &ShardMetrics) -> &Counter {
        match self {
            Reason::Number => &metrics.refused_for_number,
            Reason::Descriptors => &metrics.refused_for_descriptors,
            Reason::Memory => &metrics.refused_for_memory,
            Reason::Stranger => &metrics.refused_as_strangers,
            Reason::NotAccepted => &metrics.accepts_failed,
        }
    }
}

struct Kept {
    since: MonotonicTime,
    stream: TcpStream,
    /// What is to be said once it is known in which protocol; `None` when it was.
    unsaid: Option<Unsaid>,
}

/// A refusal that has not been put into words.
pub(crate) struct Unsaid {
    pub door: Door,
    pub reason: Reason,
}

/// A refusal in the words of whoever begins with these bytes; `None` if they are too few to tell, and it is not the last time.
pub(crate) type Words<'a> = &'a dyn Fn(&Unsaid, &[u8], bool) -> Option<Vec<u8>>;

impl RefusedConnections {
    pub fn new(metrics: Rc<ShardMetrics>) -> Self {
        Self { kept: RefCell::default(), metrics, told: Reason::ALL.map(|_| Throttle::new(NEWS_INTERVAL)) }
    }

    /// Counts one. With how many were left out since this reason was told, when it is to be told now.
    fn note(&self, reason: Reason, now: MonotonicTime) -> Option<u64> {
        reason.counter(&self.metrics).add(1);
        self.told[reason as usize].allows(now)
    }

    /// Refuses a connection, with the words that its first bytes ask for: at once if they are there, and otherwise when they come.
    /// True when there are some to be waited for, see [`say`](Self::say). Who says nothing is given those of its door.
    pub fn refuse(&self, stream: TcpStream, unsaid: Unsaid, words: Words<'_>, now: MonotonicTime) -> bool {
        if let Some(left_out) = self.note(unsaid.reason, now) {
            let peer = shown(stream.peer_addr().ok());
            let reason = unsaid.reason.text();
            tracing::warn!(target: "net", left_out, peer, "a connection was closed at once: {reason}");
        }
        let mut refused = Kept { since: now, stream, unsaid: Some(unsaid) };
        let is_said = refused.say(words, false, now);
        self.keep(refused, words, now);
        !is_said
    }

    /// Looks whether those have begun to speak whose protocol was not known. True when there are more of them.
    pub fn say(&self, words: Words<'_>, now: MonotonicTime) -> bool {
        let mut is_any_left = false;
        for refused in self.kept.borrow_mut().iter_mut() {
            let is_last_time = now.since(refused.since) >= KEPT_FOR;
            is_any_left |= !refused.say(words, is_last_time, now);
        }
        is_any_left
    }

    /// Only a few are kept: more would need the room that there is not.
    fn keep(&self, refused: Kept, words: Words<'_>, now: MonotonicTime) {
        let mut kept = self.kept.borrow_mut();
        if kept.len() >= REFUSED_CONNECTIONS_MAX
            && let Some(mut oldest) = kept.pop_front()
        {
            oldest.say(words, true, now);
        }
        kept.push_back(refused);
    }

    /// A connection is closed that has said something.
    pub fn tell(&self, reason: Reason, peer: Option<SocketAddr>, now: MonotonicTime) {
        if let Some(left_out) = self.note(reason, now) {
            let (peer, reason) = (shown(peer), reason.text());
            tracing::warn!(target: "net", left_out, peer, "a connection was closed: {reason}");
        }
    }

    /// Tells how many there were of each reason since it was told last: once that is long enough ago, or now, when there will be
    /// no other time. To be called about once a second.
    pub fn tell_left_out(&self, now: Option<MonotonicTime>) {
        for (reason, told) in Reason::ALL.into_iter().zip(&self.told) {
            let Some(left_out) = told.left_out(now) else { continue };
            let reason = reason.text();
            tracing::warn!(target: "net", left_out, "more connections were closed since that was told: {reason}");
        }
    }

    /// Sends an answer and ends the connection, as far as the socket takes it without waiting; without an answer it is closed at
    /// once.
    pub fn send_last(&self, stream: TcpStream, answer: &[u8], words: Words<'_>, now: MonotonicTime) {
        if answer.is_empty() {
            return;
        }
        let refused = Kept { since: now, stream, unsaid: None };
        refused.answer(answer);
        self.keep(refused, words, now);
    }

    /// To be called about once a second.
    pub fn let_go(&self, now: MonotonicTime) {
        let is_kept = |refused: &Kept| refused.unsaid.is_some() || now.since(refused.since) < KEPT_FOR;
        self.kept.borrow_mut().retain(is_kept);
    }

    /// The system gave no connection, although one may wait.
    pub fn not_accepted(&self, error: &str, now: MonotonicTime) {
        if let Some(left_out) = self.note(Reason::NotAccepted, now) {
            tracing::error!(target: "net", left_out, "connections cannot be accepted: {error}");
        }
    }
}

impl Kept {
    /// Answers if it is known in which words, or if it has to be now. False when there was none yet.
    fn say(&mut self, words: Words<'_>, is_last_time: bool, now: MonotonicTime) -> bool {
        let Some(unsaid) = &self.unsaid else { return true };
        let mut bytes = [0; FIRST_BYTES_MAX];
        let count = host::peek(self.stream.as_raw_fd(), &mut bytes);
        let Some(answer) = words(unsaid, &bytes[..count], is_last_time) else { return false };
        self.answer(&answer);
        (self.unsaid, self.since) = (None, now);
        true
    }

    fn answer(&self, answer: &[u8]) {
        // A client that is gone needs no answer.
        let _ = host::send_parts(self.stream.as_raw_fd(), &[IoSlice::new(answer)]);
        host::end_sending(self.stream.as_raw_fd());
    }
}

/// For a line of the log; a peer that has gone has no address any more.
fn shown(peer: Option<SocketAddr>) -> String {
    peer.map_or_else(|| "gone".to_owned(), |peer| peer.to_string())
}
