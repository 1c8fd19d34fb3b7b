//! Who is at the other end of a connection, as far as proofs of keys are concerned.

use std::cell::RefCell;
use std::net::IpAddr;

/// Where the requests of one connection come from, and which key the last of them has proved that proved one.
#[derive(Debug, Default)]
pub struct Peer {
    /// As far as it is known.
    pub address: Option<IpAddr>,
    proved: RefCell<Option<Box<str>>>,
}

impl Peer {
    pub fn at(address: Option<IpAddr>) -> Self {
        Self { address, proved: RefCell::default() }
    }

    /// Whether this key was proved here, and no proof has failed since. Whoever has done so does not guess it.
    pub fn has_proved(&self, key_id: &str) -> bool {
        self.proved.borrow().as_deref() == Some(key_id)
    }

    pub fn proves(&self, key_id: &str) {
        if !self.has_proved(key_id) {
            self.proved.replace(Some(key_id.into()));
        }
    }

    pub fn fails(&self) {
        self.proved.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_proved_holds_until_a_proof_fails() {
        let peer = Peer::at(None);
        assert!(!peer.has_proved("a"));
        peer.proves("a");
        assert!(peer.has_proved("a") && !peer.has_proved("b"));
        peer.proves("b");
        assert!(peer.has_proved("b") && !peer.has_proved("a"));
        peer.fails();
        assert!(!peer.has_proved("b"));
    }
}
