//! The open connections of a shard: counted, watched, and ended.

use std::cell::{Cell, Ref, RefCell};
use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use super::Connection;
use crate::limits;
use crate::server::context::ShardContext;
use crate::types::{MonotonicTime, WakerList, wider_network_of};

/// A connection must say which protocol it speaks, and complete a frame that it has begun, within this time.
pub(super) const INCOMPLETE_TIMEOUT: Duration = Duration::from_secs(60);
/// A connection that is told that its time is over has this long to say so.
pub(crate) const EXPIRY_GRACE: Duration = Duration::from_secs(2);
/// Who has received and sent nothing for so long may have to give way to others, wherever they come from.
const REST_MIN: Duration = Duration::from_secs(limits::REST_SECONDS_MIN);
/// A request that has been coming for so long may have to give way to others.
const STUCK_AFTER: Duration = Duration::from_secs(1);
/// Who was found to give way to nobody is asked again after this.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// Connections that were ended have this long to be over.
const END_GRACE: Duration = Duration::from_millis(500);

/// All connections that a shard has at the moment.
pub(crate) struct OpenConnections {
    context: Rc<ShardContext>,
    open: RefCell<HashMap<u64, Rc<Connection>>>,
    next_id: Cell<u64>,
    /// Connections that have not said what they speak, the oldest first; some of them may have done so since.
    silent: RefCell<VecDeque<Rc<Connection>>>,
    /// Woken when a connection is over.
    closed: WakerList,
    /// For whom none was found last that could give way, and when: a look at all of them for each newcomer would keep the core busy.
    looked_in_vain: Cell<(Option<IpAddr>, MonotonicTime)>,
}

impl OpenConnections {
    pub fn new(context: &Rc<ShardContext>) -> Self {
        Self {
            context: context.clone(),
            open: RefCell::default(),
            next_id: Cell::new(0),
            silent: RefCell::default(),
            closed: WakerList::new(),
            looked_in_vain: Cell::default(),
        }
    }

    /// Begins a connection, which has not said yet what it speaks.
    pub fn begin(&self, fd: i32) -> Rc<Connection> {
        let id = self.next_id.replace(self.next_id.get() + 1);
        let connection = Rc::new(Connection::new(id, fd, &self.context));
        self.note_silent(&connection);
        self.open.borrow_mut().insert(id, connection.clone());
        self.context.metrics.connections_accepted.add(1);
        self.context.metrics.connections.add(1);
        connection
    }

    /// Takes note that nothing serves a connection any more.
    pub fn close(&self, connection: &Connection) {
        connection.leave();
        let found = self.open.borrow_mut().remove(&connection.id);
        assert!(found.is_some(), "connection {} was open", connection.id);
        self.context.metrics.connections.subtract(1);
        self.closed.wake();
    }

    pub fn count(&self) -> usize {
        self.open.borrow().len()
    }

    /// All of them by their numbers. None may begin or be closed while this is held.
    pub fn all(&self) -> Ref<'_, HashMap<u64, Rc<Connection>>> {
        self.open.borrow()
    }

    /// Ends connections whose peer does not read its answers, or never completes what it has begun, or whose deadline has
    /// passed. To be called about once a second, after `note_progress` of each.
    pub fn end_overdue(&self, now: MonotonicTime) {
        let over = |since: &Cell<Option<MonotonicTime>>, timeout| {
            since.get().is_some_and(|since| now.since(since) > timeout)
        };
        let stall = Duration::from_secs(limits::CLIENT_STALL_SECONDS);
        for connection in self.open.borrow().values() {
            let deadline = connection.deadline.get();
            let is_late = deadline.is_some_and(|deadline| now > deadline);
            let is_incomplete = over(&connection.incomplete_since, INCOMPLETE_TIMEOUT);
            let is_stalled = over(&connection.write_stalled_since, stall)
                || (is_incomplete && !connection.takes_expiry.get());
            if is_late && !is_stalled && connection.takes_expiry.take() {
                connection.deadline.set(Some(now.after(EXPIRY_GRACE)));
                connection.expired.wake();
            } else if is_late || is_stalled {
                self.context.metrics.connections_dropped.add(1);
                connection.end();
            }
        }
    }

    /// Takes no more requests, lets the answers out that are due within `grace`, and ends every connection.
    pub async fn finish(&self, grace: Duration) {
        self.context.stop();
        let clock = &self.context.clock;
        let deadline = clock.monotonic().after(grace);
        let is_quiet = || self.open.borrow().values().all(|connection| connection.is_quiet());
        while !is_quiet() && clock.monotonic() < deadline {
            clock.sleep(Duration::from_millis(2)).await;
        }
        self.open.borrow().values().for_each(|connection| connection.end_with_broker());
        while self.count() > 0 && clock.monotonic() < deadline.after(END_GRACE) {
            futures_lite::future::or(self.closed.changed(), clock.sleep(Duration::from_millis(10))).await;
        }
    }

    /// Ends the oldest of those that have not said what they speak, if it has had the time to. False when there is none.
    pub fn end_silent(&self, now: MonotonicTime) -> bool {
        let mut silent = self.silent.borrow_mut();
        silent.retain(|connection| !connection.is_known.get() && !connection.outbox.is_closed());
        let is_due = silent.front().is_some_and(|oldest| is_stuck(oldest, now));
        if is_due && let Some(oldest) = silent.pop_front() {
            oldest.end();
        }
        is_due
    }

    /// How many have not said what they speak.
    pub fn silent_count(&self) -> usize {
        let silent = self.silent.borrow();
        silent
            .iter()
            .filter(|connection| !connection.is_known.get() && !connection.outbox.is_closed())
            .count()
    }

    /// Ends one for `newcomer`, who finds no memory. Of these the oldest goes, from where the most are, and none of a later kind
    /// while there is one of an earlier:
    ///
    /// 1. those whose request does not come to its end;
    /// 2. those that rest, and then those that wait or do not read, where there are more than twice as many as from where the
    ///    newcomer is: from its network, or from the wider one around it, since who has one address often has its neighbours;
    /// 3. those that have rested for long;
    /// 4. those that are to end within a moment anyway.
    ///
    /// False when there is none.
    pub fn end_stuck(&self, newcomer: &Connection, now: MonotonicTime) -> bool {
        let (asked_from, asked_at) = self.looked_in_vain.get();
        let from = wider_network(newcomer);
        if asked_from == from && now.since(asked_at) < LOOK_PAUSE {
            return false;
        }
        let open = self.open.borrow();
        let found = Newcomer::look(&open, newcomer, now);
        match found {
            Some(connection) => connection.give_way(now),
            None => self.looked_in_vain.set((from, now)),
        }
        found.is_some()
    }

    /// Takes note of a connection that has not said what it speaks. Of too many such, the oldest goes: they cost their peer
    /// nothing.
    fn note_silent(&self, connection: &Rc<Connection>) {
        let mut silent = self.silent.borrow_mut();
        silent.push_back(connection.clone());
        if silent.len() <= limits::CONNECTIONS_SILENT_MAX {
            return;
        }
        silent.retain(|connection| !connection.is_known.get() && !connection.outbox.is_closed());
        if silent.len() > limits::CONNECTIONS_SILENT_MAX
            && let Some(oldest) = silent.pop_front()
        {
            self.context.metrics.connections_dropped.add(1);
            oldest.end();
        }
    }
}

/// Who finds no memory, and what is open besides.
struct Newcomer<'a> {
    connection: &'a Connection,
    now: MonotonicTime,
    /// Connections of each network, and of each wider one.
    counts: HashMap<Option<IpAddr>, usize>,
    wider_counts: HashMap<Option<IpAddr>, usize>,
}

impl<'a> Newcomer<'a> {
    /// The one that has to go.
    fn look<'b>(
        open: &'b HashMap<u64, Rc<Connection>>,
        connection: &'a Connection,
        now: MonotonicTime,
    ) -> Option<&'b Rc<Connection>> {
        let mut newcomer =
            Self { connection, now, counts: HashMap::default(), wider_counts: HashMap::default() };
        for connection in open.values() {
            *newcomer.counts.entry(connection.network.get()).or_default() += 1;
            *newcomer.wider_counts.entry(wider_network(connection)).or_default() += 1;
        }
        let found = open.values().filter_map(|other| Some((newcomer.kind(other)?, other)));
        let rank = |kind, other: &Connection| {
            let (count, wider_count) = newcomer.counts_around(other);
            (Reverse(kind), count, wider_count, Reverse(other.id))
        };
        found.max_by_key(|(kind, other)| rank(*kind, other)).map(|(_, other)| other)
    }

    /// How soon it goes; `None`: it does not.
    fn kind(&self, other: &Connection) -> Option<u32> {
        let is_ending = other.outbox.is_closed() || other.gives_way();
        if other.id == self.connection.id || !other.is_known.get() || is_ending {
            return None;
        }
        if other.deadline.get().is_some_and(|deadline| deadline <= self.now.after(EXPIRY_GRACE)) {
            return Some(4);
        }
        let ((count, wider), (own, own_wider)) =
            (self.counts_around(other), self.counts_around(self.connection));
        let is_of_many = count > 2 * own || wider > 2 * own_wider;
        let has_rested = self.now.since(other.pace.moved_at.get()) >= REST_MIN;
        match other.is_quiet() {
            _ if is_stuck(other, self.now) && other.only_receives() => Some(0),
            true if is_of_many => Some(1),
            false if is_of_many => Some(2),
            true if has_rested => Some(3),
            _ => None,
        }
    }

    fn counts_around(&self, connection: &Connection) -> (usize, usize) {
        let count = self.counts.get(&connection.network.get()).copied();
        let wider = self.wider_counts.get(&wider_network(connection)).copied();
        (count.unwrap_or(0), wider.unwrap_or(0))
    }
}

fn wider_network(connection: &Connection) -> Option<IpAddr> {
    connection.network.get().map(wider_network_of)
}

/// Whether what a connection has begun, if only to say what it speaks, has been coming for long.
fn is_stuck(connection: &Connection, now: MonotonicTime) -> bool {
    connection.incomplete_since.get().is_some_and(|since| now.since(since) >= STUCK_AFTER)
}
