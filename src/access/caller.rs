//! Who sends a request that is proved with the secret itself, as HTTP's Basic authentication has it (RFC 7617).

use std::net::IpAddr;

use super::Secret;

/// What such a request says of its sender. It crosses threads: whoever has the keys judges it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Where it comes from, as far as that is known.
    pub address: Option<IpAddr>,
    /// The key that it names. `None`: it names none.
    pub key: Option<NamedKey>,
}

/// A key, and what is to prove it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedKey {
    pub id: String,
    pub secret: Secret,
    /// It was proved over the same connection, and no proof has failed there since: see [`Peer`](super::Peer).
    pub was_proved: bool,
}
