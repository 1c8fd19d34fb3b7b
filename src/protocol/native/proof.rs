//! How a client proves that it has the secret of an access key, and the broker that it has it too, without sending it.
//!
//! The broker's introduction carries a challenge (see `wire::frame`); the client answers with the request `Prove`, and the broker
//! with `Proved`:
//!
//! ```text
//! proof = HMAC-SHA256(secret, WHO node shard challenge nonce key_id)
//!
//! WHO        "turbopump client" in Prove, "turbopump broker" in Proved: 16 bytes
//! node       16 bytes of the broker's identity, big-endian
//! shard      u16, big-endian
//! challenge  32 bytes that the broker has drawn for this connection
//! nonce      32 bytes that the client has drawn for this connection
//! key_id     to the end
//! ```
//!
//! Everything before the key's id has a fixed length, so that no two inputs are the same bytes. A proof that was listened to is
//! of no use: another connection has another challenge, and another broker another identity.

use flatbuffers::Vector;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::api::{Failure, Status};
use crate::limits;
use crate::types::{Identity, Secret};
use crate::wire::frame::CHALLENGE_BYTES;
use crate::wire::generated as schema;

/// Bytes of a proof.
pub const PROOF_BYTES: usize = 32;
/// Bytes that a client draws for a connection.
pub const NONCE_BYTES: usize = 32;

const BY_CLIENT: &[u8; 16] = b"turbopump client";
const BY_BROKER: &[u8; 16] = b"turbopump broker";

/// What both sides know of a connection on which a key is proved.
#[derive(Clone, Copy, Debug)]
pub struct ProofContext<'a> {
    /// Of the broker, as it has introduced itself.
    pub identity: Identity,
    pub challenge: &'a [u8; CHALLENGE_BYTES],
    pub nonce: &'a [u8; NONCE_BYTES],
    pub key_id: &'a str,
}

/// A client's request to be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prove {
    pub key_id: String,
    pub nonce: [u8; NONCE_BYTES],
    pub proof: [u8; PROOF_BYTES],
}

impl ProofContext<'_> {
    /// What the client sends.
    pub fn client_proof(&self, secret: &Secret) -> [u8; PROOF_BYTES] {
        self.authenticator(secret, BY_CLIENT).finalize().into_bytes().into()
    }

    /// Whether the client has the secret. Takes the same time however much of the proof is right.
    pub fn is_clients(&self, secret: &Secret, proof: &[u8; PROOF_BYTES]) -> bool {
        self.authenticator(secret, BY_CLIENT).verify_slice(proof).is_ok()
    }

    /// What the broker answers.
    pub fn broker_proof(&self, secret: &Secret) -> [u8; PROOF_BYTES] {
        self.authenticator(secret, BY_BROKER).finalize().into_bytes().into()
    }

    /// Whether the broker has the secret.
    pub fn is_brokers(&self, secret: &Secret, proof: &[u8; PROOF_BYTES]) -> bool {
        self.authenticator(secret, BY_BROKER).verify_slice(proof).is_ok()
    }

    fn authenticator(&self, secret: &Secret, who: &[u8; 16]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.bytes()).expect("HMAC takes a key of any length");
        mac.update(who);
        mac.update(&self.identity.node.0.to_be_bytes());
        mac.update(&self.identity.shard.0.to_be_bytes());
        mac.update(self.challenge);
        mac.update(self.nonce);
        mac.update(self.key_id.as_bytes());
        mac
    }
}

/// Reads a request to be believed.
pub(super) fn known_prove(body: schema::Prove<'_>) -> Result<Prove, Failure> {
    let malformed = |what: &str| Failure::new(Status::MalformedFrame, what);
    let key_id = body.key_id();
    let is_plain = key_id.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
    if !(1..=limits::ACCESS_KEY_ID_BYTES_MAX).contains(&key_id.len()) || !is_plain {
        let most = limits::ACCESS_KEY_ID_BYTES_MAX;
        let text = format!("an access key's id has 1 to {most} visible ASCII characters and no colon");
        return Err(malformed(&text));
    }
    let nonce = fixed(body.nonce()).ok_or_else(|| malformed("a nonce has 32 bytes"))?;
    let proof = fixed(body.proof()).ok_or_else(|| malformed("a proof has 32 bytes"))?;
    Ok(Prove { key_id: key_id.to_owned(), nonce, proof })
}

pub(super) fn fixed<const N: usize>(bytes: Vector<'_, u8>) -> Option<[u8; N]> {
    bytes.bytes().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{NodeId, ShardId};

    const IDENTITY: Identity = Identity { node: NodeId(0x0102_0304), shard: ShardId(5) };

    fn context<'a>(challenge: &'a [u8; 32], nonce: &'a [u8; 32]) -> ProofContext<'a> {
        ProofContext { identity: IDENTITY, challenge, nonce, key_id: "shop" }
    }

    /// Computed with Python's `hmac`: what a client in another language can be compared with.
    #[test]
    fn the_proof_that_other_languages_compute() {
        let hexadecimal = |bytes: [u8; 32]| bytes.map(|byte| format!("{byte:02x}")).concat();
        let context = context(&[1; 32], &[2; 32]);
        let secret = Secret::new("hunter2");
        assert_eq!(
            hexadecimal(context.client_proof(&secret)),
            "eb81fe65ee4afd56b366c30d283ea590ecc6e18d66db5e8e3157f0860d4335a5"
        );
        assert_eq!(
            hexadecimal(context.broker_proof(&secret)),
            "e12f06182397e98ec2f7a92d48f8d818321bfb16c29206d2acb58004cacd8596"
        );
    }

    #[test]
    fn a_proof_counts_for_one_connection_of_one_client_with_one_broker() {
        let (challenge, nonce, secret) = ([1; 32], [2; 32], Secret::new("hunter2"));
        let context = context(&challenge, &nonce);
        let proof = context.client_proof(&secret);
        assert!(context.is_clients(&secret, &proof));
        assert!(!context.is_brokers(&secret, &proof), "a broker that sends it back has shown nothing");
        assert!(!context.is_clients(&Secret::new("hunter3"), &proof));
        let other_node = Identity { node: NodeId(1), ..IDENTITY };
        let other_shard = Identity { shard: ShardId(6), ..IDENTITY };
        for other in [
            ProofContext { identity: other_node, ..context },
            ProofContext { identity: other_shard, ..context },
            ProofContext { challenge: &[3; 32], ..context },
            ProofContext { nonce: &[3; 32], ..context },
            ProofContext { key_id: "shoq", ..context },
        ] {
            assert!(!other.is_clients(&secret, &proof), "{other:?}");
        }
        for bit in 0..8 * PROOF_BYTES {
            let mut changed = proof;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!context.is_clients(&secret, &changed), "bit {bit}");
        }
    }
}
