//! The client of an HTTP connection, as the broker sees it: whether it is still there.
//!
//! Who closes a connection and who only says that nothing more will come look the same from here: the end of their
//! direction arrives. The second is owed its answer (RFC 9112, 9.6), and to the first no message may be leased. So when the
//! end arrives while a call waits for messages, the first byte of the answer is sent ahead, which is the same whatever the
//! answer will be: the system of a client that has closed answers it with a reset.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::host;
use crate::broker::Recipient;
use crate::clock::SharedClock;
use crate::types::WakerList;

/// The first byte of every answer.
pub(super) const ANSWER_START: &[u8] = b"H";
/// How long after the byte was sent ahead its outcome is looked for, first and at most: each look doubles it.
const LOOK_PAUSE_MIN: Duration = Duration::from_millis(1);
const LOOK_PAUSE_MAX: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    Here,
    /// It will send nothing more; the first byte of its answer is on its way.
    HalfClosed,
    Gone,
}

/// The client of one connection, one of whose calls is carried out at a time.
pub(super) struct HttpClient {
    fd: i32,
    clock: SharedClock,
    presence: Cell<Presence>,
    /// Whether its call waits for messages to come.
    is_waiting: Cell<bool>,
    changed: WakerList,
}

/// While this is held, the client's call is carried out; dropped before its end, the connection has ended.
pub(super) struct ClientCall {
    client: Rc<HttpClient>,
    is_over: bool,
}

impl HttpClient {
    pub fn new(fd: i32, clock: SharedClock) -> Rc<Self> {
        Rc::new(Self {
            fd,
            clock,
            presence: Cell::new(Presence::Here),
            is_waiting: Cell::new(false),
            changed: WakerList::new(),
        })
    }

    /// To be called when a call begins whose answer may `wait` for messages to come.
    pub fn begin_call(self: &Rc<Self>, wait: Duration) -> ClientCall {
        // Of an earlier call: what is true now is noticed again.
        self.presence.set(Presence::Here);
        self.is_waiting.set(!wait.is_zero());
        ClientCall { client: self.clone(), is_over: false }
    }

    /// Whether the end of its direction would be of interest now.
    pub fn is_watched(&self) -> bool {
        self.is_waiting.get() && self.presence.get() == Presence::Here
    }

    /// The end of its direction has come, and [`ANSWER_START`] is sent.
    pub fn half_closed(&self) {
        self.set(Presence::HalfClosed);
    }

    pub fn left(&self) {
        self.set(Presence::Gone);
    }

    fn set(&self, presence: Presence) {
        self.presence.set(presence);
        self.changed.wake();
    }

    /// What is known of a client that has half closed: nothing, as long as the byte that was sent ahead is on its way.
    fn look(&self) -> Option<bool> {
        match self.presence.get() {
            Presence::Here => Some(true),
            Presence::Gone => Some(false),
            Presence::HalfClosed if host::is_reset(self.fd) => {
                self.set(Presence::Gone);
                Some(false)
            }
            Presence::HalfClosed => (host::unacknowledged_bytes(self.fd) == 0).then_some(true),
        }
    }
}

impl ClientCall {
    pub fn client(&self) -> &Rc<HttpClient> {
        &self.client
    }

    pub fn end(mut self) {
        self.is_over = true;
    }
}

impl Drop for ClientCall {
    fn drop(&mut self) {
        self.client.is_waiting.set(false);
        if !self.is_over {
            self.client.left();
        }
    }
}

impl Recipient for HttpClient {
    /// One call of a connection is carried out at a time, and its answer has a bound.
    type Room = ();

    async fn room(&self) -> Option<()> {
        let mut pause = LOOK_PAUSE_MIN;
        loop {
            match self.look() {
                Some(is_here) => return is_here.then_some(()),
                None => self.clock.sleep(pause).await,
            }
            pause = LOOK_PAUSE_MAX.min(2 * pause);
        }
    }

    async fn gone(&self) {
        let mut pause = LOOK_PAUSE_MIN;
        loop {
            let changed = self.changed.changed();
            match (self.look(), self.presence.get()) {
                (Some(false), _) => return,
                (_, Presence::Here) => changed.await,
                _ => {
                    futures_lite::future::or(changed, self.clock.sleep(pause)).await;
                    pause = LOOK_PAUSE_MAX.min(2 * pause);
                }
            }
        }
    }
}
