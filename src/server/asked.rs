//! Requests that came over the admin address: from another thread, already taken apart, each with what is to prove its key.

use std::rc::Rc;
use std::time::Duration;

use super::connection::Connections;
use super::native::{is_heavy, without_consumers};
use crate::access::{Caller, Need, Session};
use crate::api::{Failure, Reply, Request};
use crate::broker::fetch_share;
use crate::limits;
use crate::protocol::native::check_properties;
use crate::server::access::refusal;
use crate::types::{Account, Reservation};

/// After work that keeps a core busy, the next piece of it rests for so many times as long, as with native clients.
const HEAVY_RESTS: u32 = 3;
const HEAVY_REST_MAX: Duration = Duration::from_secs(1);

impl Connections {
    /// Whether a caller may see what operators see.
    pub fn check_operator(&self, caller: &Caller) -> Result<(), Failure> {
        let need = Need::Administer { what: "read the broker's counters" };
        self.session_of(caller)?.check(need).map_err(refusal)
    }

    fn session_of(&self, caller: &Caller) -> Result<Session, Failure> {
        self.access.as_ref().map_or(Ok(Session::Open), |access| access.session_of(caller))
    }

    /// Carries a request out as if a native client had sent it that has proved the caller's key, except that what it would wait
    /// for is not waited for.
    pub async fn carry_out(self: &Rc<Self>, caller: &Caller, request: Request) -> Result<Reply, Failure> {
        let session = self.session_of(caller)?;
        if let Some(access) = &self.access {
            access.check_request(&session, &request, &self.broker)?;
        }
        self.check_stored(&request)?;
        let request = without_wait(request);
        self.metrics.requests.add(1);
        let _room = self.answer_room(&request).await;
        let heavy = match is_heavy(&request) {
            true => Some((self.heavy.reserve(1).await, self.clock.monotonic())),
            false => None,
        };
        let outcome = self.broker.handle(request).await;
        if let Some((permit, began)) = heavy {
            let clock = self.clock.clone();
            let rest = (HEAVY_RESTS * clock.monotonic().since(began)).min(HEAVY_REST_MAX);
            self.spawn_catch_up(async move {
                clock.sleep(rest).await;
                drop(permit);
            });
        }
        outcome.map(|reply| without_consumers(reply, &session))
    }

    /// What native clients' batches are checked for before they are handed on.
    fn check_stored(&self, request: &Request) -> Result<(), Failure> {
        let (key, batch) = match request {
            Request::Produce(produce) => (produce.key, &produce.batch),
            // Copies keep the properties that they have.
            Request::ProduceCopies(copies) => return self.broker.check_writable(copies.produce.key.topic),
            Request::Hold(hold) => (hold.key, &hold.batch),
            _ => return Ok(()),
        };
        self.broker.check_writable(key.topic)?;
        check_properties(batch)
    }

    /// Room for the answer while it is made.
    async fn answer_room(&self, request: &Request) -> Option<Reservation> {
        let bytes = match request {
            Request::Fetch(fetch) => fetch_share(fetch),
            Request::Receive(_) | Request::ReceiveHalves(_) => limits::BATCH_BYTES_MAX,
            request => self.broker.answer_bytes_max(request),
        };
        if bytes == 0 { None } else { Some(self.memory.budget(Account::Answers).reserve(bytes).await) }
    }
}

/// The request as one that is answered with what there is. Whoever waits over the admin address asks again.
fn without_wait(mut request: Request) -> Request {
    match &mut request {
        Request::Fetch(fetch) => fetch.wait = Duration::ZERO,
        Request::Watch(watch) => watch.wait = Duration::ZERO,
        Request::Receive(receive) => receive.wait = Duration::ZERO,
        Request::ReceiveHalves(receive) => receive.wait = Duration::ZERO,
        _ => {}
    }
    request
}
