//! Access keys on one shard: who has proved which, and what that allows. Every protocol asks here; how each of them carries a
//! proof is its own matter.
//!
//! A native connection is a stranger's until a key was proved on it, with the one challenge that it has been given. The keys are
//! read again when their file changes: sessions then have the rules that are there now, and a session whose key is gone, or has
//! another secret, is refused everything and has [`limits::PROOF_SECONDS`] until its connection ends.

mod failed_proofs;
mod needs;

use std::cell::RefCell;
use std::net::IpAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};
use sha2::{Digest, Sha256};

use self::failed_proofs::FailedProofs;
use self::needs::Check;
pub(super) use self::needs::refusal;
use crate::access::{
    AccessError, AccessKey, Caller, NodeSecret, Peer, Refreshed, Secret, Session, SharedKeys,
};
use crate::api::{Failure, Request, Status};
use crate::clock::SharedClock;
use crate::limits;
use crate::metrics::ShardMetrics;
use crate::protocol::http::Authentication;
use crate::protocol::native::{DecodedRequest, PROOF_BYTES, ProofContext};
use crate::server::connection::ShardBroker;
use crate::types::{MonotonicTime, ShardId, Throttle};
use crate::wire::frame::CHALLENGE_BYTES;

/// Failed proofs and refused requests are told of this often at most: whoever likes can cause them.
const NEWS_INTERVAL: Duration = Duration::from_secs(60);

/// The keys of one shard, and what keeps them from being guessed.
pub(crate) struct Access {
    keys: Rc<SharedKeys>,
    clock: SharedClock,
    metrics: Rc<ShardMetrics>,
    /// A key that is not known is tried with this secret, so that it takes as long as one that is.
    stand_in: Secret,
    failures: RefCell<FailedProofs>,
    news: Throttle,
    /// Every shard reads the file; one of them tells what it has found.
    tells: bool,
}

impl Access {
    /// Reads the file of keys. What is not as it should be with it, the start has told.
    pub fn open(
        path: &Path,
        shard: ShardId,
        secret: &NodeSecret,
        clock: SharedClock,
        metrics: Rc<ShardMetrics>,
    ) -> Result<Self, AccessError> {
        let (keys, _) = SharedKeys::open(path, clock.monotonic())?;
        Ok(Self {
            keys: Rc::new(keys),
            clock,
            metrics,
            stand_in: Secret::new(secret.0),
            failures: RefCell::default(),
            news: Throttle::new(NEWS_INTERVAL),
            tells: shard == ShardId(0),
        })
    }

    pub fn keys(&self) -> &Rc<SharedKeys> {
        &self.keys
    }

    /// Reads the file again if it has changed; whether sessions are to be renewed. To be called about once a second.
    pub fn tick(&self) -> bool {
        self.took_over(self.keys.refresh(self.clock.monotonic()), "the changed access keys are in use")
    }

    /// Reads the file now, whether it has changed or not; whether sessions are to be renewed.
    pub fn read_again(&self) -> bool {
        self.took_over(self.keys.read_again(self.clock.monotonic()), "the access keys were read again")
    }

    /// Tells what a look at the file has found; whether there are keys that were read just now.
    fn took_over(&self, refreshed: Refreshed, news: &str) -> bool {
        match refreshed {
            Refreshed::Unchanged => false,
            Refreshed::Read { warning } => {
                if self.tells {
                    tracing::info!(target: "access", "{news}");
                }
                if let Some(warning) = warning.filter(|_| self.tells) {
                    tracing::warn!(target: "access", "{warning}");
                }
                true
            }
            Refreshed::Failed(error) => {
                if self.tells {
                    tracing::error!(target: "access", "the access keys stay as they were: {error}");
                }
                false
            }
        }
    }

    /// Tells what was left out of what is told now and then: see [`Throttle::left_out`].
    pub fn tell_left_out(&self, now: Option<MonotonicTime>) {
        if let Some(left_out) = self.news.left_out(now) {
            tracing::warn!(target: "access", left_out, "more access keys were not proved since that was told");
        }
    }

    /// What a native client is to prove a key with, once.
    pub fn challenge(&self) -> [u8; CHALLENGE_BYTES] {
        let mut challenge = [0; CHALLENGE_BYTES];
        let count = getrandom(&mut challenge, GetRandomFlags::empty());
        // The kernel gives up to 256 bytes whole once it has begun to, which it had before this process.
        assert_eq!(count, Ok(CHALLENGE_BYTES), "the kernel draws random bytes");
        challenge
    }

    /// The session of whoever has made `proof`, and the broker's own proof. After a failure the connection is to end.
    pub fn prove(
        &self,
        context: &ProofContext<'_>,
        proof: &[u8; PROOF_BYTES],
        peer: Option<IpAddr>,
    ) -> Result<(Session, [u8; PROOF_BYTES]), Failure> {
        let key =
            self.holder(context.key_id, &Peer::at(peer), &|secret| context.is_clients(secret, proof))?;
        let own = context.broker_proof(&key.secret);
        Ok((Session::Key(key), own))
    }

    /// The session of whoever sends the secret itself.
    pub fn session_of(&self, caller: &Caller) -> Result<Session, Failure> {
        let Some(named) = &caller.key else { return Ok(Session::Stranger) };
        let peer = Peer::at(caller.address);
        if named.was_proved {
            peer.proves(&named.id);
        }
        // Digests, so that how long it takes says nothing of how much was right.
        let said = Sha256::digest(named.secret.bytes());
        let is_right = |secret: &Secret| Sha256::digest(secret.bytes()) == said;
        self.holder(&named.id, &peer, &is_right).map(Session::Key)
    }

    /// The key, when `is_right` says of its secret that whoever names the key has it.
    fn holder(
        &self,
        key_id: &str,
        peer: &Peer,
        is_right: &dyn Fn(&Secret) -> bool,
    ) -> Result<Rc<AccessKey>, Failure> {
        let now = self.clock.monotonic();
        // Whoever has proved it on this connection goes on with it, whatever others try from the same address.
        let suspect = peer.address.filter(|_| !peer.has_proved(key_id));
        let barred = suspect.and_then(|address| self.failures.borrow().barred(address, now));
        if let Some(wait) = barred {
            self.metrics.proofs_failed.add(1);
            let seconds = wait.as_secs() + 1;
            let message = format!(
                "too many proofs of access keys from your address have failed: try again in {seconds} s, with the right secret"
            );
            return Err(Failure::new(Status::Busy, message));
        }
        let key = self.keys.keys().find(key_id).cloned();
        let is_right = is_right(key.as_ref().map_or(&self.stand_in, |key| &key.secret));
        // One answer for both: whoever guesses does not learn which keys there are.
        match key.filter(|_| is_right) {
            Some(key) => {
                peer.proves(key_id);
                Ok(key)
            }
            None => {
                peer.fails();
                Err(self.failed(key_id, peer.address))
            }
        }
    }

    fn failed(&self, key_id: &str, peer: Option<IpAddr>) -> Failure {
        let now = self.clock.monotonic();
        self.metrics.proofs_failed.add(1);
        if let Some(peer) = peer {
            self.failures.borrow_mut().count(peer, now);
        }
        if let Some(left_out) = self.news.allows(now) {
            let peer = peer.map_or_else(|| "a client".to_owned(), |peer| peer.to_string());
            tracing::warn!(target: "access", left_out, "{peer} did not prove the access key `{key_id}`");
        }
        let message = format!(
            "the access key `{key_id}` is not known to this broker, or the secret is not the one that it has: check both"
        );
        Failure::new(Status::Unauthenticated, message)
    }

    /// Whether a native request may be carried out.
    pub fn check(
        &self,
        session: &Session,
        request: &DecodedRequest<'_>,
        broker: &ShardBroker,
    ) -> Result<(), Failure> {
        let check = Check { session, topic_name: |id| broker.topic_name(id) };
        let checked = match request {
            DecodedRequest::Produce { key, .. } | DecodedRequest::ProduceCopies { key, .. } => {
                check.publish(key.topic)
            }
            DecodedRequest::Other(request) => check.request(request),
            DecodedRequest::Prove(_) => Ok(()),
        };
        if checked.is_err() {
            self.metrics.requests_denied.add(1);
        }
        checked
    }

    /// Whether a request may be carried out.
    pub fn check_request(
        &self,
        session: &Session,
        request: &Request,
        broker: &ShardBroker,
    ) -> Result<(), Failure> {
        let checked = Check { session, topic_name: |id| broker.topic_name(id) }.request(request);
        if checked.is_err() {
            self.metrics.requests_denied.add(1);
        }
        checked
    }

    /// Why a frame of this size is not read; `None`: it is. Those who have proved nothing get no memory for large requests.
    pub fn frame_refusal(&self, session: &Session, frame_bytes: usize) -> Option<Failure> {
        if frame_bytes <= limits::UNPROVED_FRAME_BYTES_MAX {
            return None;
        }
        let denied = session.denial()?;
        self.metrics.requests_denied.add(1);
        Some(refusal(denied))
    }
}

/// Requests over HTTP prove a key by their signature, each of them.
impl Authentication for Access {
    fn authenticate(
        &self,
        key_id: &str,
        peer: &Peer,
        is_signed_with: &dyn Fn(&Secret) -> bool,
    ) -> Result<Session, Failure> {
        self.holder(key_id, peer, is_signed_with).map(Session::Key)
    }

    fn denied(&self) {
        self.metrics.requests_denied.add(1);
    }
}
