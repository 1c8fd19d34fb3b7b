//! Clients by their ids, and the way back to them: a client may have several connections to a shard, and outlives each of them.
//!
//! 1. A session begins with the first connection that says its id. It ends by word, when no connection of that id has been
//!    there for a time, or when nothing has come of the client for a time; never by the end of one connection.
//! 2. A request to a client has a number that no other request of the shard has. It is answered once at most, by the client that
//!    it was sent to, over whichever of its connections; or its asker hears why there is no answer.
//! 3. Everything here is memory: after a start, clients come back by themselves.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use crate::clock::SharedClock;
use crate::types::{MonotonicTime, WakerList};

/// How clients are asked, as those see it who know neither connections nor protocols.
pub trait Clients {
    type Request;
    type Answer;

    /// Sends a request to a client, and waits for its answer for this long at most.
    async fn ask(
        &self,
        client: &str,
        request: Self::Request,
        wait: Duration,
    ) -> Result<Self::Answer, Unanswered>;

    /// Sends a request that wants no answer; whether one of the client's connections has taken it.
    fn tell(&self, client: &str, request: Self::Request) -> bool;
}

/// Why a request to a client has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// There is no such client, or none of its connections takes the request: it was not sent.
    NotSent,
    /// As many requests as the client may have are waiting for its answers: it was not sent.
    TooMany,
    /// The client may have got it and does not answer in time.
    Late,
    /// The client's session has ended meanwhile.
    Gone,
}

/// A client's connection, by the protocol that it speaks.
pub trait ClientConnection {
    type Request;

    /// Sends one of its clients a request, who answers by its number, where it has one. False when nothing more may be sent over
    /// this connection: it is ending, or the client does not read.
    fn send(&self, client: &str, number: Option<u64>, request: &Self::Request) -> bool;
}

/// When sessions end, and how many there may be.
#[derive(Clone, Copy, Debug)]
pub struct SessionTerms {
    /// A client without a connection is gone after this.
    pub absence: Duration,
    /// A client of which nothing has come is gone after this, whatever connections it has.
    pub silence: Duration,
    pub clients_max: usize,
    /// Requests of one client's that wait for its answer.
    pub asked_max: usize,
}

/// The sessions of a shard's clients.
pub struct ClientSessions<C: ClientConnection, A> {
    clock: SharedClock,
    terms: SessionTerms,
    sessions: RefCell<BTreeMap<String, Session<C>>>,
    /// Requests that wait for their answers, by their numbers.
    asked: RefCell<BTreeMap<u64, Asked<A>>>,
    next_number: Cell<u64>,
    /// Woken when a request was answered, or a session has ended.
    answered: WakerList,
}

struct Session<C> {
    /// By their numbers; the one that came last is asked first.
    connections: Vec<(u64, Rc<C>)>,
    heard_at: MonotonicTime,
    /// When the last connection went; valid while there is none.
    absent_since: MonotonicTime,
    /// Requests that wait for its answers.
    asked: Rc<Cell<usize>>,
}

struct Asked<A> {
    client: String,
    outcome: Option<Result<A, Unanswered>>,
}

impl<C: ClientConnection, A> ClientSessions<C, A> {
    pub fn new(clock: SharedClock, terms: SessionTerms) -> Self {
        Self {
            clock,
            terms,
            sessions: RefCell::default(),
            asked: RefCell::default(),
            next_number: Cell::new(1),
            answered: WakerList::new(),
        }
    }

    /// Something has come of a client over this connection. False when it is a client more than there may be: nothing is kept
    /// of it.
    pub fn heard(&self, client: &str, number: u64, connection: &Rc<C>) -> bool {
        let now = self.clock.monotonic();
        let mut sessions = self.sessions.borrow_mut();
        if !sessions.contains_key(client) {
            if sessions.len() >= self.terms.clients_max {
                return false;
            }
            let session =
                Session { connections: Vec::new(), heard_at: now, absent_since: now, asked: Rc::default() };
            sessions.insert(client.to_owned(), session);
        }
        let session = sessions.get_mut(client).expect("it is there now");
        session.heard_at = now;
        if !session.connections.iter().any(|(other, _)| *other == number) {
            session.connections.push((number, connection.clone()));
        }
        true
    }

    /// A connection over which a client was heard has ended. The client stays for a while.
    pub fn disconnected(&self, client: &str, number: u64) {
        let mut sessions = self.sessions.borrow_mut();
        let Some(session) = sessions.get_mut(client) else { return };
        let before = session.connections.len();
        session.connections.retain(|(other, _)| *other != number);
        if session.connections.is_empty() && before > 0 {
            session.absent_since = self.clock.monotonic();
        }
    }

    /// Whether the client has a connection.
    pub fn is_connected(&self, client: &str) -> bool {
        self.sessions.borrow().get(client).is_some_and(|session| !session.connections.is_empty())
    }

    /// Ends a client's session by its word; whether there was one.
    pub fn end(&self, client: &str) -> bool {
        let was_there = self.sessions.borrow_mut().remove(client).is_some();
        if was_there {
            self.give_up(client);
        }
        was_there
    }

    /// Ends the sessions whose time is over. Returns their clients. To be called about once a second.
    pub fn end_overdue(&self) -> Vec<String> {
        let now = self.clock.monotonic();
        let is_overdue = |session: &Session<C>| {
            let is_absent =
                session.connections.is_empty() && now.since(session.absent_since) > self.terms.absence;
            is_absent || now.since(session.heard_at) > self.terms.silence
        };
        let mut ended = Vec::new();
        self.sessions.borrow_mut().retain(|client, session| {
            if is_overdue(session) {
                ended.push(client.clone());
                return false;
            }
            true
        });
        ended.iter().for_each(|client| self.give_up(client));
        ended
    }

    /// Who is there, in the order of their ids, and over how many connections.
    pub fn clients(&self) -> Vec<(String, usize)> {
        let sessions = self.sessions.borrow();
        sessions.iter().map(|(client, session)| (client.clone(), session.connections.len())).collect()
    }

    /// Whether the client was asked this, and its answer is awaited.
    pub fn is_asked(&self, client: &str, number: u64) -> bool {
        let asked = self.asked.borrow();
        asked.get(&number).is_some_and(|waiting| waiting.client == client && waiting.outcome.is_none())
    }

    /// A client's answer; false when nobody waits for it, or another client was asked: it is dropped then.
    pub fn answer(&self, client: &str, number: u64, answer: A) -> bool {
        let mut asked = self.asked.borrow_mut();
        let Some(waiting) = asked.get_mut(&number) else { return false };
        if waiting.client != client || waiting.outcome.is_some() {
            return false;
        }
        waiting.outcome = Some(Ok(answer));
        self.answered.wake();
        true
    }

    fn give_up(&self, client: &str) {
        let mut asked = self.asked.borrow_mut();
        let of_it =
            asked.values_mut().filter(|waiting| waiting.client == client && waiting.outcome.is_none());
        of_it.for_each(|waiting| waiting.outcome = Some(Err(Unanswered::Gone)));
        self.answered.wake();
    }

    fn send(&self, client: &str, number: Option<u64>, request: &C::Request) -> bool {
        let connections: Vec<_> = match self.sessions.borrow().get(client) {
            Some(session) => session.connections.iter().rev().map(|(_, way)| way.clone()).collect(),
            None => return false,
        };
        connections.iter().any(|connection| connection.send(client, number, request))
    }

    /// Numbers a request to a client.
    fn note_asked(&self, client: &str) -> Result<Ticket<'_, A>, Unanswered> {
        let sessions = self.sessions.borrow();
        let count = &sessions.get(client).ok_or(Unanswered::NotSent)?.asked;
        if count.get() >= self.terms.asked_max {
            return Err(Unanswered::TooMany);
        }
        count.set(count.get() + 1);
        let number = self.next_number.replace(self.next_number.get() + 1);
        self.asked.borrow_mut().insert(number, Asked { client: client.to_owned(), outcome: None });
        Ok(Ticket { asked: &self.asked, number, count: count.clone() })
    }

    async fn outcome(&self, number: u64) -> Result<A, Unanswered> {
        loop {
            let outcome = self.asked.borrow_mut().get_mut(&number).and_then(|asked| asked.outcome.take());
            if let Some(outcome) = outcome {
                return outcome;
            }
            self.answered.changed().await;
        }
    }
}

impl<C: ClientConnection, A> Clients for ClientSessions<C, A> {
    type Request = C::Request;
    type Answer = A;

    async fn ask(&self, client: &str, request: C::Request, wait: Duration) -> Result<A, Unanswered> {
        let ticket = self.note_asked(client)?;
        if !self.send(client, Some(ticket.number), &request) {
            return Err(Unanswered::NotSent);
        }
        let late = async {
            self.clock.sleep(wait).await;
            Err(Unanswered::Late)
        };
        futures_lite::future::or(self.outcome(ticket.number), late).await
    }

    fn tell(&self, client: &str, request: C::Request) -> bool {
        self.send(client, None, &request)
    }
}

/// A request to a client, until its asker has the answer or asks no more.
struct Ticket<'a, A> {
    asked: &'a RefCell<BTreeMap<u64, Asked<A>>>,
    number: u64,
    count: Rc<Cell<usize>>,
}

impl<A> Drop for Ticket<'_, A> {
    fn drop(&mut self) {
        self.asked.borrow_mut().remove(&self.number);
        self.count.set(self.count.get() - 1);
    }
}
