//! Calls: the requests of a connection that are carried out beside its reader, and end in any order.
//!
//! What bounds a request belongs to its call, and goes with it; the connection has the sums. Shares are taken in this order: of
//! the waiting requests, then, when the answer may be large, the connection's permit to answer, and memory for the answer.
//! Whatever only waits ends when nobody is there any more to wait for.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::api::{RequestProtocol, RequestSubject};
use crate::broker::Recipient;
use crate::limits;
use crate::metrics::{Answered, Timeline};
use crate::server::context::ShardContext;
use crate::server::parked::Deadline;
use crate::server::sessions::Connection;
use crate::types::{Account, ByteBudget, MonotonicTime, Reservation, WakerList};

/// The calls of one connection.
pub(crate) struct Calls {
    context: Rc<ShardContext>,
    connection: Rc<Connection>,
    protocol: RequestProtocol,
    /// In tasks.
    count: Cell<usize>,
    /// Parked, or called since.
    parked_count: Cell<usize>,
    /// Woken when a call has ended.
    ended: WakerList,
    /// Large answers that are being put together: one at a time, since each may be as large as a batch.
    answering: ByteBudget,
}

/// What a request asks of its connection while it is carried out.
#[derive(Clone, Copy)]
pub(crate) struct CallTerms {
    /// Memory that it takes beyond that of its task and of its batch.
    pub carried_bytes: usize,
    /// Its answer may take as long as the client said it would wait. The end of the connection does not wait for it.
    pub waits_long: bool,
    /// It is parked for as long as it waits (`Connection::parked`), and has no task meanwhile.
    pub is_parked: bool,
    /// When it stops waiting, whatever its connection and its other calls do; `None`: what it waits for has an end.
    pub deadline: Option<MonotonicTime>,
}

/// A request that was taken and has not been answered. Dropping it gives back whatever it holds.
pub(crate) struct Call {
    calls: Rc<Calls>,
    terms: CallTerms,
    /// Of what waiting requests may take together.
    share: Option<Reservation>,
    /// What its batch counts for, which lies no longer in the connection's buffer.
    _forwarded: Option<Reservation>,
    /// Its own: a call that is late ends, and nobody else does.
    deadline: Option<Deadline>,
    /// A wait has ended early: there is to be no other one.
    is_over: Cell<bool>,
    pub timeline: Cell<Timeline>,
    /// What it is about. Without a kind it is not among the slow ones: it waits in ways that nobody tells from work.
    subject: RefCell<RequestSubject>,
}

/// Room for a large answer, and the connection's permit to have one made.
pub(crate) type AnswerReservation = (Reservation, Reservation);

/// How a wait ended.
pub(crate) enum Waited<T> {
    Over(T),
    /// Others need its memory.
    Cut,
    /// Nobody is there any more.
    Left,
    /// Its deadline has passed.
    Late,
}

impl Calls {
    pub fn new(
        context: &Rc<ShardContext>,
        connection: &Rc<Connection>,
        protocol: RequestProtocol,
    ) -> Rc<Self> {
        Rc::new(Self {
            context: context.clone(),
            connection: connection.clone(),
            protocol,
            count: Cell::new(0),
            parked_count: Cell::new(0),
            ended: WakerList::new(),
            answering: ByteBudget::new(1),
        })
    }

    /// Begins a call. With too many of them, or with too much in them, the connection waits; `None` when it has ended
    /// meanwhile. `forwarded` is what the request's batch counts for.
    pub async fn begin(self: &Rc<Self>, terms: CallTerms, forwarded: Option<Reservation>) -> Option<Call> {
        let timeline = self.connection.timeline.take();
        let (count, most) = self.counted(terms);
        if count.get() >= most {
            let fewer = async {
                while count.get() >= most {
                    self.ended.changed().await;
                }
            };
            self.parked(fewer).await?;
        }
        let share = self.reserve_wait(terms).await?;
        count.set(count.get() + 1);
        self.context.metrics.requests.add(1);
        if !terms.waits_long {
            self.connection.note_taken();
        }
        let deadline = terms.deadline.map(|end| self.context.parked.deadline(end));
        Some(Call {
            calls: self.clone(),
            terms,
            share,
            _forwarded: forwarded,
            deadline,
            is_over: Cell::new(false),
            timeline: Cell::new(timeline.unwrap_or_else(|| Timeline::at(self.context.clock.monotonic()))),
            subject: RefCell::default(),
        })
    }

    /// Whether one more call may be parked. A protocol that asks does not wait for it.
    pub fn may_park(&self) -> bool {
        self.parked_count.get() < limits::CONNECTION_PARKED_MAX
    }

    /// How many there are of such calls, and may be.
    fn counted(&self, terms: CallTerms) -> (&Cell<usize>, usize) {
        match terms.is_parked {
            true => (&self.parked_count, limits::CONNECTION_PARKED_MAX),
            false => (&self.count, limits::CONNECTION_WAITING_MAX),
        }
    }

    /// Room for a batch that leaves the connection's buffer; `None` when the connection has ended meanwhile.
    pub async fn reserve_forwarded(&self, bytes: usize) -> Option<Reservation> {
        let forwarded = self.context.memory.budget(Account::Forwarded);
        match forwarded.try_reserve(bytes) {
            Some(share) => Some(share),
            None => self.parked(forwarded.reserve(bytes)).await,
        }
    }

    /// Takes a share of what waiting requests may take together; a few small ones of each connection need none. `None` when
    /// the connection has ended meanwhile.
    async fn reserve_wait(&self, terms: CallTerms) -> Option<Option<Reservation>> {
        let is_small = terms.carried_bytes <= limits::WAIT_CARRIED_BYTES_FREE;
        if self.count.get() + self.parked_count.get() < limits::CONNECTION_WAITS_FREE && is_small {
            return Some(None);
        }
        let own_bytes = if terms.is_parked { limits::PARKED_BYTES } else { limits::WAIT_BYTES };
        let bytes = own_bytes + terms.carried_bytes;
        let waits = self.context.memory.budget(Account::Waits);
        let share = match waits.try_reserve(bytes) {
            Some(share) => share,
            // What gives its share back by itself goes before what waits for messages.
            None => self.parked(waits.reserve_ranked(bytes, usize::from(terms.waits_long), 0)).await?,
        };
        let held = &self.connection.pace.wait_bytes;
        held.set(held.get() + bytes);
        Some(Some(share))
    }

    /// Waits for something that is not the peer; `None` when the connection has ended meanwhile.
    async fn parked<T>(&self, waiting: impl Future<Output = T>) -> Option<T> {
        let pace = &self.connection.pace;
        pace.is_parked.set(true);
        let outcome = self.unless_closed(waiting).await;
        pace.is_parked.set(false);
        outcome
    }

    async fn unless_closed<T>(&self, waiting: impl Future<Output = T>) -> Option<T> {
        let closed = async {
            self.connection.outbox.closed().await;
            None
        };
        futures_lite::future::or(async { Some(waiting.await) }, closed).await
    }
}

impl Call {
    /// Says what it is about, and that its time counts.
    pub fn describe(&self, subject: RequestSubject) {
        self.subject.replace(subject);
    }

    /// It has waited for messages until now.
    pub fn woken(&self, now: MonotonicTime) -> Timeline {
        let mut timeline = self.timeline.get();
        timeline.woken(now);
        self.timeline.set(timeline);
        timeline
    }

    /// What it waits for is entered in its timeline while `future` is polled.
    pub async fn traced<T>(&self, future: impl Future<Output = T>) -> T {
        self.calls.context.metrics.flight.trace(&self.timeline, future).await
    }

    /// Takes note of it, if it was answered and was slow.
    fn note_time(&self) {
        let Calls { context, connection, protocol, .. } = &*self.calls;
        if self.subject.borrow().kind.is_empty() || !connection.is_here() {
            return;
        }
        let (timeline, at) = (self.timeline.get(), context.clock.monotonic());
        if !context.metrics.flight.is_slow(timeline.took(at), at) {
            return;
        }
        let (subject, client) = (self.subject.take(), connection.network.get());
        let answered = Answered { protocol: *protocol, subject, client, timeline, at };
        if let Some(unsent) = connection.note_slow(answered) {
            context.metrics.flight.record(unsent, at);
        }
    }

    /// Waits until the connection may have another large answer made, and there is room for this one. `None` when the
    /// connection has ended meanwhile.
    pub async fn reserve_answer(&self, account: Account, bytes: usize) -> Option<AnswerReservation> {
        let permit = self.calls.answering.reserve(1).await;
        Some((permit, self.reserve_beside(account, bytes).await?))
    }

    /// Waits until the peer has read enough of its answers, and there is room for this one, which may be made while others
    /// of the connection are. `None` when the connection has ended meanwhile.
    pub async fn reserve_beside(&self, account: Account, bytes: usize) -> Option<Reservation> {
        let Calls { context, connection, .. } = &*self.calls;
        connection.outbox.sent_down_to(context.unread_bytes_max()).await;
        let answers = context.memory.budget(account);
        let reservation = match answers.try_reserve(bytes) {
            Some(reservation) => reservation,
            None => self.calls.unless_closed(answers.reserve(bytes)).await?,
        };
        (!connection.outbox.is_closed()).then_some(reservation)
    }

    /// Waits as long as somebody is there and nobody else needs the memory. `waiting` is dropped otherwise.
    pub async fn while_there<T>(&self, waiting: impl Future<Output = T>) -> Waited<T> {
        let connection = &self.calls.connection;
        let over = async { Waited::Over(waiting.await) };
        let left = async {
            connection.left().await;
            Waited::Left
        };
        let cut = async {
            connection.pace.cut.changed().await;
            Waited::Cut
        };
        let late = async {
            match &self.deadline {
                Some(deadline) => deadline.passed().await,
                None => std::future::pending().await,
            }
            Waited::Late
        };
        let ended = futures_lite::future::or(left, futures_lite::future::or(cut, late));
        futures_lite::future::or(over, ended).await
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.note_time();
        let Calls { connection, ended, .. } = &*self.calls;
        let (count, _) = self.calls.counted(self.terms);
        if !self.terms.waits_long {
            connection.note_answered();
        }
        let held = &connection.pace.wait_bytes;
        held.set(held.get() - self.share.as_ref().map_or(0, Reservation::bytes));
        count.set(count.get() - 1);
        ended.wake();
    }
}

/// A call that leases messages, or waits for some.
impl Recipient for Call {
    type Reservation = AnswerReservation;

    async fn reserve(&self) -> Option<AnswerReservation> {
        if self.is_over.get() {
            return None;
        }
        self.reserve_answer(Account::Receives, limits::BATCH_BYTES_MAX).await
    }

    async fn gone(&self) {
        self.while_there(std::future::pending::<()>()).await;
        self.is_over.set(true);
    }

    fn is_here(&self) -> bool {
        self.calls.connection.is_here()
    }
}
