//! HTTP on one shard: the service behind it, and what all its connections hold together.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::backend::BrokerBackend;
use crate::access::NodeSecret;
use crate::limits;
use crate::protocol::http::{Authentication, ErrorCode, HttpError, HttpService};
use crate::server::access::Access;
use crate::server::connection::{Connections, ShardBroker};
use crate::types::{Account, ByteBudget, MonotonicTime, Reservation, Throttle};

/// A body of a message lies in memory twice: as it came and as text, then as text and as the batch that is stored.
const BODY_COPIES: usize = 2;
/// What is larger takes its whole share at once.
const SMALL_BODY_BYTES_MAX: usize = 64 * 1024;
/// A read of the socket takes this much at most: fits a core's cache.
const SCRATCH_BYTES: usize = 256 * 1024;
/// A large body waits for its share no longer than this.
const BODY_WAIT_MAX: Duration = Duration::from_secs(5);
/// That a body cannot be read is said once in this time.
const SAY_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// What HTTP is told at the start.
#[derive(Clone, Debug)]
pub(crate) struct HttpOptions {
    /// What `--http` names.
    pub address: SocketAddr,
    pub idle_timeout: Duration,
}

/// HTTP on one shard.
pub(crate) struct HttpPort {
    pub service: Rc<HttpService<BrokerBackend>>,
    pub idle_timeout: Duration,
    /// Room for answers to those who get little, see `HttpClient`.
    pub little: Rc<ByteBudget>,
    /// What is read goes here first: see `HttpStream`.
    pub scratch: RefCell<Vec<u8>>,
    unreadable_said: Rc<Throttle>,
}

impl HttpPort {
    pub fn open(
        broker: &Rc<ShardBroker>,
        options: &HttpOptions,
        secret: &NodeSecret,
        access: Option<Rc<Access>>,
    ) -> Self {
        let access = access.map(|access| access as Rc<dyn Authentication>);
        let (clock, shard) = (broker.clock().clone(), broker.shard());
        let unreadable_said = Rc::new(Throttle::new(SAY_AGAIN_AFTER));
        let (said, random) = (unreadable_said.clone(), secret.number(shard));
        let backend = BrokerBackend::new(broker.clone(), &secret.0, random, said);
        let address = options.address.to_string();
        Self {
            service: Rc::new(HttpService::new(backend, shard, clock, access, address)),
            idle_timeout: options.idle_timeout,
            little: Rc::new(ByteBudget::new(limits::BATCH_BYTES_MAX)),
            scratch: RefCell::new(vec![0; SCRATCH_BYTES]),
            unreadable_said,
        }
    }

    /// Tells what was left out of what is told now and then: see [`Throttle::left_out`].
    pub fn tell_left_out(&self, now: Option<MonotonicTime>) {
        if let Some(left_out) = self.unreadable_said.left_out(now) {
            tracing::warn!(target: "net", left_out, "more messages were given to nobody over HTTP since that was told");
        }
    }
}

/// The refusal of a body beyond the limit.
pub(crate) fn body_too_large() -> HttpError {
    let most = limits::HTTP_BODY_BYTES_MAX;
    HttpError::new(ErrorCode::BodyTooLarge, format!("the body is too large: {most} bytes are the most"))
}

/// A body's share of the shard's memory; given back when dropped. What is small is counted as it comes in, since a peer may
/// announce what it never sends. A large body takes its whole share before the rest of it is read: two that each had half
/// of what they need would wait for each other.
pub(crate) struct BodyBytes {
    connections: Rc<Connections>,
    bytes: usize,
    share: Reservation,
}

impl BodyBytes {
    pub fn new(connections: &Rc<Connections>) -> Self {
        let share = connections.memory.count(Account::HttpBodies, 0);
        Self { connections: connections.clone(), bytes: 0, share }
    }

    /// `count` bytes more have come; `left` is what is still to come at most.
    pub async fn add(&mut self, count: usize, left: Option<u64>) -> Result<(), HttpError> {
        self.bytes += count;
        if self.bytes > limits::HTTP_BODY_BYTES_MAX {
            return Err(body_too_large());
        }
        let needed = self.bytes * BODY_COPIES;
        if needed <= self.share.bytes() {
            return Ok(());
        }
        let memory = self.connections.memory.clone();
        let budget = memory.budget(Account::HttpBodies);
        if self.bytes <= SMALL_BODY_BYTES_MAX {
            if budget.is_full() {
                return Err(too_many_bodies());
            }
            self.share.set(needed);
            return Ok(());
        }
        let left = left.and_then(|left| usize::try_from(left).ok()).unwrap_or(limits::HTTP_BODY_BYTES_MAX);
        let whole = (self.bytes.saturating_add(left)).min(limits::HTTP_BODY_BYTES_MAX) * BODY_COPIES;
        // With nothing of this account in hand, but what has come is there all the same: it counts as received, of which half
        // is left to those who need it.
        let received = memory.budget(Account::Received);
        if received.bytes() + needed > received.bytes_max() / 2 {
            return Err(too_many_bodies());
        }
        let _in_hand = received.count(needed);
        self.share.set(0);
        let late = async {
            self.connections.clock.sleep(BODY_WAIT_MAX).await;
            None
        };
        let share = async { Some(budget.reserve(whole).await) };
        let share = futures_lite::future::or(share, late).await;
        self.share = share.ok_or_else(too_many_bodies)?;
        Ok(())
    }
}

fn too_many_bodies() -> HttpError {
    HttpError::new(ErrorCode::Unavailable, "too many bodies at once: try again")
}
