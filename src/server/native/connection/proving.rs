//! Who sends the requests of a connection, where the node has access keys; see `server::access`.

use super::{Native, PlacedProduce};
use crate::access::Session;
use crate::api::Failure;
use crate::protocol::native::{DecodedRequest, ProofContext, Prove};
use crate::server::connection::PROOF_TIMEOUT;
use crate::server::framed::Taken;
use crate::types::Identity;
use crate::wire::frame::{self, CHALLENGE_BYTES, PREFACE_BYTES};

impl Native {
    /// Begins with a client of which only the preface is known. Returns the challenge that it is to be sent.
    pub(super) fn begin_session(&self, preface: &[u8; PREFACE_BYTES]) -> Option<[u8; CHALLENGE_BYTES]> {
        let access = self.connections.access.as_ref()?;
        *self.connection.session.borrow_mut() = Session::Stranger;
        self.connection.end_after(self.connections.clock.monotonic(), PROOF_TIMEOUT);
        let challenge = frame::has_challenge(preface).then(|| access.challenge());
        self.challenge.set(challenge);
        challenge
    }

    /// Takes the client's proof, which is the only one: whoever fails connects again, and is counted.
    pub(super) fn prove(&self, correlation: u64, prove: &Prove) -> Taken<PlacedProduce> {
        let (Some(access), Some(challenge)) = (&self.connections.access, self.challenge.take()) else {
            let message = "there is nothing to be proved on this connection: either the broker has no access keys, or the \
                client has not asked for a challenge, or it has answered it already";
            self.answer(correlation, Err(Failure::invalid(message)));
            return Taken::Last;
        };
        let options = self.connections.broker.options();
        let context = ProofContext {
            identity: Identity { node: options.node, shard: options.shard },
            challenge: &challenge,
            nonce: &prove.nonce,
            key_id: &prove.key_id,
        };
        match access.prove(&context, &prove.proof, self.peer) {
            Ok((session, proof)) => {
                *self.connection.session.borrow_mut() = session;
                self.connection.deadline.set(None);
                self.connection.outbox.push_with(|output| {
                    self.connections.encoder.borrow_mut().encode_proved(output, correlation, &proof);
                });
                Taken::Weighing(0)
            }
            Err(failure) => {
                self.answer(correlation, Err(failure));
                Taken::Last
            }
        }
    }

    /// The request, if its sender may have it carried out.
    pub(super) fn allowed<'a>(&self, request: DecodedRequest<'a>) -> Result<DecodedRequest<'a>, Failure> {
        if let Some(access) = &self.connections.access {
            let session = self.connection.session.borrow();
            access.check(&session, &request, &self.connections.broker)?;
        }
        Ok(request)
    }
}
