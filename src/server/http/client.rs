//! The client of an HTTP connection, as the broker sees it: whether it is still there.
//!
//! Who closes a connection and who only says that nothing more will come look the same from here: the end of their
//! direction arrives. The second is owed its answer (RFC 9112, 9.6), and to the first no message may be leased. So when the
//! end arrives while a call waits for messages, the first byte of the answer is sent ahead, which is the same whatever the
//! answer will be: the system of a client that has closed answers it with a reset.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

use crate::api::Reply;
use crate::broker::Recipient;
use crate::clock::SharedClock;
use crate::limits;
use crate::metrics::Timeline;
use crate::protocol::http::HttpError;
use crate::runtime::host;
use crate::server::connection::Connections;
use crate::types::{Account, ByteBudget, ClientMemory, Reservation, WakerList};

/// The first byte of every answer.
pub(crate) const ANSWER_START: &[u8] = b"H";
/// How long after the byte was sent ahead its outcome is looked for, first and at most: each look doubles it.
const LOOK_PAUSE_MIN: Duration = Duration::from_millis(1);
const LOOK_PAUSE_MAX: Duration = Duration::from_millis(500);

/// An answer waits for its room no longer than this; then the call is refused. With the longest wait for messages it is
/// less than the time-out of the clients' sockets, and it is time enough for the watch over connections to end those that
/// read nothing.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(25);
/// Whose last answer was no larger gets little.
const LITTLE_BYTES_MAX: usize = 64 * 1024;
/// What a call that waits takes: its task, its request, its places in the rows of those who wait.
const WAIT_BYTES: usize = 4 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    Here,
    /// It will send nothing more; the first byte of its answer is on its way.
    HalfClosed,
    Gone,
}

/// The client of one connection, one of whose calls is carried out at a time.
pub(crate) struct HttpClient {
    fd: i32,
    /// Where it is, as far as that tells clients apart.
    pub network: IpAddr,
    clock: SharedClock,
    memory: Rc<ClientMemory>,
    presence: Cell<Presence>,
    /// Whether its call waits for messages to come.
    is_waiting: Cell<bool>,
    changed: WakerList,
    /// There was no room for its answer.
    is_refused: Cell<bool>,
    /// Why nothing is given to its call any more, although it is there.
    denied: RefCell<Option<HttpError>>,
    /// Its last answer was small. It does not wait behind those who get large ones, but in a row of its own, for a room
    /// that is beside the account and is used by one at a time.
    gets_little: Cell<bool>,
    little: Rc<ByteBudget>,
    /// Of the request that is carried out, or was last.
    pub timeline: Cell<Timeline>,
    /// The share of its answer, from the moment that messages were chosen until they are sent.
    answer: RefCell<Option<Reservation>>,
}

/// While this is held, the client's call is carried out; dropped before its end, the connection has ended.
pub(crate) struct ClientCall {
    client: Rc<HttpClient>,
    is_over: bool,
    _share: Reservation,
}

impl HttpClient {
    pub fn new(fd: i32, network: Option<IpAddr>, connections: &Connections) -> Rc<Self> {
        let http = connections.http.as_ref().expect("connections come here through a listener for HTTP");
        Rc::new(Self {
            fd,
            network: network.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            clock: connections.clock.clone(),
            memory: connections.memory.clone(),
            little: http.little.clone(),
            gets_little: Cell::new(false),
            presence: Cell::new(Presence::Here),
            is_waiting: Cell::new(false),
            changed: WakerList::new(),
            is_refused: Cell::new(false),
            denied: RefCell::default(),
            timeline: Cell::default(),
            answer: RefCell::default(),
        })
    }

    /// To be called when a call begins whose answer may `wait` for messages to come; `None` when too many wait already.
    pub fn begin_call(self: &Rc<Self>, wait: Duration) -> Option<ClientCall> {
        if wait.is_zero() {
            return Some(self.begin_look());
        }
        let share = self.memory.budget(Account::Waits).try_reserve(WAIT_BYTES)?;
        Some(self.call(share, true))
    }

    /// To be called when a call begins that is answered with what there is.
    pub fn begin_look(self: &Rc<Self>) -> ClientCall {
        self.call(self.memory.budget(Account::Waits).count(WAIT_BYTES), false)
    }

    fn call(self: &Rc<Self>, share: Reservation, is_waiting: bool) -> ClientCall {
        // Of an earlier call: what is true now is noticed again.
        self.presence.set(Presence::Here);
        self.is_refused.set(false);
        self.denied.take();
        self.is_waiting.set(is_waiting);
        ClientCall { client: self.clone(), is_over: false, _share: share }
    }

    /// Keeps the share of messages that were chosen for this client. To be called in the moment in which the room for them
    /// is given back: nobody is between the two.
    pub fn hold(&self, reply: &Reply) {
        let bytes = match reply {
            Reply::Received(messages) => messages.iter().map(|message| message.record.len()).sum(),
            Reply::Halves(halves) => halves.iter().map(|half| half.record.len()).sum(),
            _ => 0_usize,
        };
        let share = (bytes > 0).then(|| self.memory.count(Account::HttpAnswers, bytes));
        self.answer.replace(share);
        self.gets_little.set(bytes <= LITTLE_BYTES_MAX);
    }

    /// Takes note of what the answer holds that was made of them, or of anything else.
    pub fn hold_answer(&self, bytes: usize) {
        let mut answer = self.answer.borrow_mut();
        answer.get_or_insert_with(|| self.memory.count(Account::HttpAnswers, 0)).set(bytes);
    }

    /// The answer was sent.
    pub fn release_answer(&self) {
        self.answer.replace(None);
    }

    /// Whether the last call chose nothing because there was no room for its answer.
    pub fn is_refused(&self) -> bool {
        self.is_refused.get()
    }

    /// Ends the wait of its call: nothing more is chosen for it.
    pub fn deny(&self, error: HttpError) {
        self.denied.replace(Some(error));
        self.changed.wake();
    }

    /// Why the last call was given nothing more, if it was denied that.
    pub fn denial(&self) -> Option<HttpError> {
        self.denied.take()
    }

    /// Waits until it is known whether the client is there.
    async fn known_to_be_here(&self) -> bool {
        let mut pause = LOOK_PAUSE_MIN;
        loop {
            match self.look() {
                Some(is_here) => return is_here,
                None => self.clock.sleep(pause).await,
            }
            pause = LOOK_PAUSE_MAX.min(2 * pause);
        }
    }

    async fn reserve_in_time(&self) -> Option<Reservation> {
        let answers = self.memory.budget(Account::HttpAnswers);
        // Who got little may get much this time: that goes beyond the account by no more than one answer.
        let is_little =
            self.gets_little.get() && answers.bytes() <= answers.bytes_max().max(limits::BATCH_BYTES_MAX);
        let row = if is_little { &*self.little } else { answers };
        let reservation = async { Some(row.reserve(limits::BATCH_BYTES_MAX).await) };
        let late = async {
            self.clock.sleep(ROOM_WAIT_MAX).await;
            self.is_refused.set(true);
            None
        };
        let gone = async {
            self.gone().await;
            None
        };
        futures_lite::future::or(reservation, futures_lite::future::or(gone, late)).await
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

    /// Whether anything is to be given to it, as far as that is known. Of a client that has half closed nothing is, as long as the
    /// byte that was sent ahead is on its way.
    fn look(&self) -> Option<bool> {
        if self.denied.borrow().is_some() {
            return Some(false);
        }
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
    /// For the largest answer: see [`hold`](HttpClient::hold).
    type Reservation = Reservation;

    async fn reserve(&self) -> Option<Reservation> {
        while self.known_to_be_here().await {
            let reservation =
                match self.memory.budget(Account::HttpAnswers).try_reserve(limits::BATCH_BYTES_MAX) {
                    Some(reservation) => reservation,
                    None => self.reserve_in_time().await?,
                };
            // It may have closed its direction meanwhile.
            if self.look() == Some(true) {
                return Some(reservation);
            }
        }
        None
    }

    /// As long as it is not known whether a client that has half closed is there, it may be.
    fn is_here(&self) -> bool {
        self.look() != Some(false)
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
