//! The access key of a client.

use rustix::rand::{GetRandomFlags, getrandom};

use crate::limits;
use crate::protocol::native::{NONCE_BYTES, ProofContext, Prove};
use crate::types::{Identity, Secret};
use crate::wire::frame::CHALLENGE_BYTES;

/// An access key and its secret. The secret is never sent: a connection proves that it has it, and has the broker prove the
/// same. It is never shown either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    key_id: String,
    secret: Secret,
}

/// No broker has such a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    #[error(
        "an access key has 1 to {} visible ASCII characters and no colon",
        limits::ACCESS_KEY_ID_BYTES_MAX
    )]
    KeyId,
    #[error("the secret of access key `{key_id}` is empty")]
    EmptySecret { key_id: String },
}

/// A proof that was sent, until it is answered.
pub(super) struct SentProof {
    pub correlation: u64,
    identity: Identity,
    challenge: [u8; CHALLENGE_BYTES],
    nonce: [u8; NONCE_BYTES],
}

impl Credentials {
    /// `key_id` is the key's name in the broker's file of keys.
    pub fn new(key_id: impl Into<String>, secret: impl Into<Secret>) -> Result<Self, CredentialsError> {
        let (key_id, secret) = (key_id.into(), secret.into());
        let is_plain = key_id.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
        if !(1..=limits::ACCESS_KEY_ID_BYTES_MAX).contains(&key_id.len()) || !is_plain {
            return Err(CredentialsError::KeyId);
        }
        if secret.bytes().is_empty() {
            return Err(CredentialsError::EmptySecret { key_id });
        }
        Ok(Self { key_id, secret })
    }

    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The answer to a broker's challenge.
    pub(super) fn prove(
        &self,
        correlation: u64,
        identity: Identity,
        challenge: [u8; CHALLENGE_BYTES],
    ) -> (Prove, SentProof) {
        let mut nonce = [0; NONCE_BYTES];
        let count = getrandom(&mut nonce, GetRandomFlags::empty());
        assert_eq!(count, Ok(NONCE_BYTES), "the kernel draws random bytes");
        let sent = SentProof { correlation, identity, challenge, nonce };
        let proof = self.context(&sent).client_proof(&self.secret);
        (Prove { key_id: self.key_id.clone(), nonce, proof }, sent)
    }

    /// Whether the broker has shown that it has the secret as well.
    pub(super) fn is_brokers(&self, sent: &SentProof, proof: &[u8; 32]) -> bool {
        self.context(sent).is_brokers(&self.secret, proof)
    }

    fn context<'a>(&'a self, sent: &'a SentProof) -> ProofContext<'a> {
        ProofContext {
            identity: sent.identity,
            challenge: &sent.challenge,
            nonce: &sent.nonce,
            key_id: &self.key_id,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_broker_can_have_is_refused_and_no_secret_is_shown() {
        assert_eq!(Credentials::new("", "s".to_owned()), Err(CredentialsError::KeyId));
        assert_eq!(Credentials::new("a b", "s".to_owned()), Err(CredentialsError::KeyId));
        assert_eq!(Credentials::new("a:b", "s".to_owned()), Err(CredentialsError::KeyId));
        assert_eq!(Credentials::new("a".repeat(257), "s".to_owned()), Err(CredentialsError::KeyId));
        let empty = Err(CredentialsError::EmptySecret { key_id: "shop".into() });
        assert_eq!(Credentials::new("shop", String::new()), empty);
        let credentials = Credentials::new("shop", "hunter2".to_owned()).expect("a key");
        assert!(!format!("{credentials:?} {credentials:#?}").contains("hunter2"));
    }
}
