//! When memory for clients is short: who holds it without getting on lets it go.
//!
//! A peer decides how long it takes to complete a request or to read an answer, and meanwhile holds what that takes. As long
//! as nobody waits for it that is its own affair. While somebody does, once a second:
//!
//! * a request that is not complete is refused when its bytes do not come, or hardly do, or when it has been coming for long;
//! * a connection that hardly reads its answers is ended: nothing can be told to it;
//! * waits end early for those who have more of them than an even part of the whole.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::connection::Connections;
use super::sessions::Connection;
use crate::limits;
use crate::types::{Account, MonotonicTime, WakerList};

/// A connection's pace and what it holds, as far as anybody might be waiting for it.
#[derive(Default)]
pub(crate) struct Pace {
    /// Bytes read so far.
    pub received_bytes: Cell<u64>,
    /// Memory of its receive buffer.
    pub buffer_bytes: Cell<usize>,
    /// Shares that its waiting requests hold.
    pub wait_bytes: Cell<usize>,
    /// It is not read from, because there is no memory for what comes, or its answers are not read.
    pub is_parked: Cell<bool>,
    /// Its incomplete request is to be refused.
    pub is_refused: Cell<bool>,
    /// Woken for the reader to look: at `is_refused`, and whether its buffer is larger than it needs.
    pub nudged: WakerList,
    /// Woken when waits are to end early.
    pub cut: WakerList,
    /// When the watch last found that bytes had come or gone.
    pub moved_at: Cell<MonotonicTime>,
    /// At the last look.
    seen_received: Cell<u64>,
    seen_sent: Cell<u64>,
    /// How many looks in a row found next to no progress.
    slow_receiving: Cell<u32>,
    slow_sending: Cell<u32>,
}

/// What memory is short of.
#[derive(Clone, Copy)]
struct Shortage {
    received: bool,
    answers: bool,
}

impl Pace {
    pub fn begin(now: MonotonicTime) -> Self {
        Self { moved_at: Cell::new(now), ..Self::default() }
    }
}

impl Connections {
    /// Looks at all connections; to be called once a second.
    pub(crate) fn relieve<'a>(
        &self,
        open: impl Iterator<Item = &'a Rc<Connection>> + Clone,
        now: MonotonicTime,
    ) {
        let is_short = |account| self.memory.budget(account).is_waited_for();
        let shortage =
            Shortage { received: is_short(Account::Received), answers: is_short(Account::Answers) };
        open.clone().for_each(|connection| self.relieve_of(connection, shortage, now));
        if is_short(Account::Waits) {
            self.cut_waits(open);
        }
    }

    fn relieve_of(&self, connection: &Connection, shortage: Shortage, now: MonotonicTime) {
        let pace = &connection.pace;
        let received = pace.received_bytes.get();
        let came = received - pace.seen_received.replace(received);
        let sent = connection.outbox.sent_bytes();
        let went = sent - pace.seen_sent.replace(sent);
        if came + went > 0 {
            pace.moved_at.set(now);
        }
        let holds_request = pace.buffer_bytes.get() > limits::CONNECTION_BUFFER_BYTES
            && connection.incomplete_since.get().is_some();
        let is_receiving_slowly =
            holds_request && !pace.is_parked.get() && came < limits::SHORTAGE_BYTES_PER_SECOND_MIN;
        let receiving = count_in_a_row(&pace.slow_receiving, is_receiving_slowly);
        let holds_answers = connection.outbox.bytes() as u64 > limits::SHORTAGE_BYTES_PER_SECOND_MIN;
        let is_sending_slowly = holds_answers && went < limits::SHORTAGE_BYTES_PER_SECOND_MIN;
        let sending = count_in_a_row(&pace.slow_sending, is_sending_slowly);
        if pace.is_parked.get() && connection.has_hung_up() {
            connection.leave();
        }
        let age = connection.incomplete_since.get().map(|since| now.since(since));
        let is_older = |seconds| age.is_some_and(|age| age > Duration::from_secs(seconds));
        let is_old = !pace.is_parked.get()
            && (is_older(limits::SHORTAGE_REQUEST_SECONDS_MAX) || (came == 0 && is_older(1)));
        if shortage.answers && sending >= 2 {
            self.tell_of_shortage("its answers are not read while others wait for memory");
            connection.end();
        } else if shortage.received && holds_request && (receiving >= 2 || is_old) {
            self.tell_of_shortage("its request comes slowly while others wait for memory");
            pace.is_refused.set(true);
            pace.nudged.wake();
        } else if came == 0 && pace.buffer_bytes.get() > limits::CONNECTION_BUFFER_BYTES {
            pace.nudged.wake();
        }
    }

    pub(super) fn tell_of_shortage(&self, reason: &str) {
        self.metrics.connections_dropped.add(1);
        self.metrics.ended_for_memory.add(1);
        let Some(left_out) = self.shortage_news.allows(self.clock.monotonic()) else { return };
        tracing::warn!(target: "net", shard = %self.broker.shard(), left_out, "a connection is ended: {reason}");
    }

    /// Tells how often what is told only now and then has happened since, once that is long enough ago, or now.
    pub(super) fn tell_left_out(&self, now: Option<MonotonicTime>) {
        self.refused.tell_left_out(now);
        self.broker.tell_left_out(now);
        if let Some(tls) = &self.tls {
            tls.tell_left_out(now);
        }
        if let Some(access) = &self.access {
            access.tell_left_out(now);
        }
        if let Some(http) = &self.http {
            http.tell_left_out(now);
        }
        let Some(left_out) = self.shortage_news.left_out(now) else { return };
        tracing::warn!(
            target: "net",
            shard = %self.broker.shard(),
            left_out,
            "more connections were ended since that was told: others wait for memory that they hold"
        );
    }

    /// Ends the waits of those who hold more than half of an even part.
    fn cut_waits<'a>(&self, open: impl Iterator<Item = &'a Rc<Connection>> + Clone) {
        let holders = open.clone().filter(|connection| connection.pace.wait_bytes.get() > 0).count();
        let even = self.memory.budget(Account::Waits).bytes_max() / (2 * holders.max(1));
        let over = open.filter(|connection| connection.pace.wait_bytes.get() >= even.max(1));
        over.for_each(|connection| connection.cut_waits());
    }
}

/// Counts how often in a row something was so.
fn count_in_a_row(count: &Cell<u32>, is_so: bool) -> u32 {
    count.set(if is_so { count.get() + 1 } else { 0 });
    count.get()
}
