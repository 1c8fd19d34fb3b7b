//! One connection, whatever it speaks: what it owes and is owed, and how its end is told.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::access::Session;
use crate::clock::SharedClock;
use crate::limits;
use crate::metrics::{Answered, Timeline};
use crate::net::Outbox;
use crate::runtime::host;
use crate::server::context::ShardContext;
use crate::server::parked::Parked;
use crate::server::relief::Pace;
use crate::types::{Account, MonotonicTime, WakerList};

/// One connection, as its tasks and the watch see it.
pub(crate) struct Connection {
    /// No other connection of the shard has the same.
    pub id: u64,
    fd: i32,
    pub outbox: Outbox,
    /// When the peer last took bytes that were waiting for it, or began a frame that is not complete; `None` when
    /// nothing is owed either way. One byte is enough: there is no lowest rate, since what a slow reader holds is
    /// bounded by `CONNECTION_ANSWER_BYTES_MAX` however long it takes.
    pub write_stalled_since: Cell<Option<MonotonicTime>>,
    /// Bytes in the socket that the peer had not taken at the last look.
    unacknowledged: Cell<usize>,
    pub incomplete_since: Cell<Option<MonotonicTime>>,
    /// When the connection ends unless something happens before; set by protocols with time-outs of their own.
    pub deadline: Cell<Option<MonotonicTime>>,
    /// Whether the protocol has something to say when the deadline passes; then `expired` is woken first.
    pub takes_expiry: Cell<bool>,
    pub expired: WakerList,
    /// Whether the protocol has something to say when the connection gives way to others; then it is woken and ends it.
    pub has_last_words: Cell<bool>,
    gives_way: Cell<bool>,
    gave_way: WakerList,
    /// Requests that were taken and not answered.
    pub unanswered: Cell<usize>,
    pub answered: WakerList,
    /// The peer sends nothing more, or the connection has ended: nobody is there to wait for.
    has_left: Cell<bool>,
    left: WakerList,
    /// Calls that wait, each an entry.
    pub parked: Rc<Parked>,
    /// Whether its protocol is known.
    pub is_known: Cell<bool>,
    /// Where its peer is, as far as that tells peers apart.
    pub network: Cell<Option<IpAddr>>,
    /// What `relief` looks at, and tells.
    pub pace: Pace,
    /// Whose requests these are, where a connection says that once and for all.
    pub session: RefCell<Session>,
    /// Of the request that is being taken; a call that it becomes takes it along.
    pub timeline: Cell<Option<Timeline>>,
    /// Slow requests whose answers wait to be sent.
    slow: RefCell<Vec<Answered>>,
    /// The system resets it when the process dies, and the broker when it stops.
    resets: Cell<bool>,
}

impl Connection {
    /// One that has begun now. The descriptor stays the caller's, and open until the last call here.
    pub fn new(id: u64, fd: i32, context: &ShardContext) -> Self {
        Self {
            id,
            fd,
            outbox: Outbox::new(context.metrics.clone(), context.memory.count(Account::Answers, 0)),
            write_stalled_since: Cell::new(None),
            unacknowledged: Cell::new(0),
            incomplete_since: Cell::new(Some(context.clock.monotonic())),
            deadline: Cell::new(None),
            takes_expiry: Cell::new(false),
            expired: WakerList::new(),
            has_last_words: Cell::new(false),
            gives_way: Cell::new(false),
            gave_way: WakerList::new(),
            unanswered: Cell::new(0),
            answered: WakerList::new(),
            has_left: Cell::new(false),
            left: WakerList::new(),
            parked: Parked::new(&context.parked),
            is_known: Cell::new(false),
            network: Cell::new(None),
            pace: Pace::begin(context.clock.monotonic()),
            session: RefCell::default(),
            timeline: Cell::new(None),
            slow: RefCell::default(),
            resets: Cell::new(false),
        }
    }

    /// Takes note of a slow request whose answer waits to be sent. It is given back where nobody can tell when that is: a
    /// peer that does not read is not the broker's time.
    pub fn note_slow(&self, answered: Answered) -> Option<Answered> {
        let mut slow = self.slow.borrow_mut();
        if self.write_stalled_since.get().is_some() || slow.len() == limits::SLOW_REQUESTS_KEPT {
            return Some(answered);
        }
        slow.push(answered);
        None
    }

    /// Waits on behalf of the request that is being taken: for room.
    pub async fn queued(&self, clock: &SharedClock, waiting: impl Future<Output = ()>) {
        let began = clock.monotonic();
        waiting.await;
        if let Some(mut timeline) = self.timeline.get() {
            timeline.queued += clock.monotonic().since(began);
            self.timeline.set(Some(timeline));
        }
    }

    /// Slow requests whose answers are sent now.
    pub fn take_slow(&self) -> Vec<Answered> {
        if self.slow.borrow().is_empty() { Vec::new() } else { self.slow.take() }
    }

    /// Has the connection reset, and not ended, when the process dies or the broker stops: for peers that do not see an end, and
    /// wait on for what they have asked for.
    pub fn reset_with_broker(&self) {
        self.resets.set(true);
        host::set_reset_when_closed(self.fd, true);
    }

    /// Ends the connection because the broker stops.
    pub fn end_with_broker(&self) {
        // What the peer has not got yet would be lost.
        if self.resets.get() && host::unacknowledged_bytes(self.fd) == 0 {
            host::reset(self.fd);
        }
        self.end();
    }

    /// Whether the peer may still send: it has neither ended its direction nor answered with a reset.
    pub fn is_open(&self) -> bool {
        host::is_established(self.fd)
    }

    /// Whether the peer has answered with a reset.
    pub fn is_reset(&self) -> bool {
        host::is_reset(self.fd)
    }

    pub fn fd(&self) -> i32 {
        self.fd
    }

    /// Ends the connection: its tasks meet the end of the stream, which must not be closed before, since the next
    /// connection gets the number of its descriptor.
    pub fn end(&self) {
        if self.resets.take() {
            host::set_reset_when_closed(self.fd, false);
        }
        host::shut_down(self.fd);
        self.outbox.close();
        self.leave();
    }

    /// Ends the connection, since others need the memory that it holds. Who has something to say about it says so first, if the
    /// peer has read what was said before: so it takes no longer than until its task runs, or the watch looks next.
    pub fn give_way(&self, now: MonotonicTime) {
        if !self.has_last_words.get() || host::unacknowledged_bytes(self.fd) > 0 {
            return self.end();
        }
        self.deadline.set(Some(now));
        self.gives_way.set(true);
        self.gave_way.wake();
    }

    pub fn gives_way(&self) -> bool {
        self.gives_way.get()
    }

    /// Completes when the connection gives way to others, and has something to say about it.
    pub async fn given_way(&self) {
        while !self.gives_way.get() {
            self.gave_way.changed().await;
        }
    }

    /// Ends the connection when that much time has passed, unless the deadline is taken away before.
    pub fn end_after(&self, now: MonotonicTime, time: Duration) {
        self.deadline.set(Some(now.after(time)));
    }

    /// Takes note of a request that is to be answered before the connection goes.
    pub fn note_taken(&self) {
        self.unanswered.set(self.unanswered.get() + 1);
    }

    /// Takes note that such a request was answered.
    pub fn note_answered(&self) {
        self.unanswered.set(self.unanswered.get() - 1);
        self.answered.wake();
    }

    /// Waits until every request was answered that is to be, or the connection has ended.
    pub async fn all_answered(&self) {
        while self.unanswered.get() > 0 && !self.outbox.is_closed() {
            self.answered.changed().await;
        }
    }

    /// Takes note that nobody is there any more to wait for.
    pub fn leave(&self) {
        self.has_left.set(true);
        self.left.wake();
        self.parked.leave();
    }

    /// Ends what waits early, with what there is.
    pub fn cut_waits(&self) {
        self.pace.cut.wake();
        self.parked.cut();
    }

    /// Whether somebody is there to be handed something.
    pub fn is_here(&self) -> bool {
        !self.has_left.get() && !self.outbox.is_closed()
    }

    /// Completes when nobody is there any more to wait for.
    pub async fn left(&self) {
        while !self.has_left.get() {
            self.left.changed().await;
        }
    }

    /// Whether the peer has ended its side, which a reader notices by itself unless it is busy with what came before.
    pub fn has_hung_up(&self) -> bool {
        host::has_hung_up(self.fd)
    }

    /// Looks whether the peer took bytes out of the full socket. The socket reports room for more only when a third of
    /// it is free, megabytes that a slow reader takes minutes for; nothing is added meanwhile, so that less is progress.
    pub fn note_progress(&self, now: MonotonicTime) {
        if self.write_stalled_since.get().is_none() {
            return;
        }
        let left = host::unacknowledged_bytes(self.fd);
        if left < self.unacknowledged.replace(left) {
            self.write_stalled_since.set(Some(now));
        }
    }

    /// Whether nothing is owed to the peer but what follows from a request that is still coming.
    pub fn only_receives(&self) -> bool {
        self.outbox.bytes() == 0 && (self.unanswered.get() == 0 || self.takes_expiry.get())
    }

    pub fn is_quiet(&self) -> bool {
        let is_taken = !self.resets.get() || host::unacknowledged_bytes(self.fd) == 0;
        self.unanswered.get() == 0 && self.outbox.bytes() == 0 && is_taken
    }
}
