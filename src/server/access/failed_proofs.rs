//! How often proofs of access keys may fail: secrets are not to be found by trying.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::limits;
use crate::types::{MonotonicTime, network_of};

/// After as long, one more proof may fail.
const FAILURE_COSTS: Duration = Duration::from_secs(1);

/// The proofs that have failed on one shard, by where they came from. Whoever fails too often is not looked at for a while,
/// while others are: nobody is kept out by what somebody else tries from another place.
#[derive(Debug, Default)]
pub(super) struct FailedProofs {
    /// When all of them are forgotten.
    forgotten_at: HashMap<IpAddr, MonotonicTime>,
}

impl FailedProofs {
    /// How long no proof from there is looked at; `None`: it is.
    pub fn barred(&self, address: IpAddr, now: MonotonicTime) -> Option<Duration> {
        let most = FAILURE_COSTS * limits::FAILED_PROOFS_MAX;
        let owed = self.forgotten_at.get(&network_of(address))?.since(now);
        // What one more failure would make of it.
        let over = (owed + FAILURE_COSTS).saturating_sub(most);
        (!over.is_zero()).then_some(over)
    }

    /// Counts a failure.
    pub fn count(&mut self, address: IpAddr, now: MonotonicTime) {
        let network = network_of(address);
        if self.forgotten_at.len() >= limits::FAILED_PROOF_ADDRESSES_MAX
            && !self.forgotten_at.contains_key(&network)
        {
            self.forgotten_at.retain(|_, forgotten_at| *forgotten_at > now);
            let nearest = self.forgotten_at.iter().min_by_key(|(_, at)| **at).map(|(network, _)| *network);
            if let Some(nearest) = nearest
                && self.forgotten_at.len() >= limits::FAILED_PROOF_ADDRESSES_MAX
            {
                self.forgotten_at.remove(&nearest);
            }
        }
        let forgotten_at = self.forgotten_at.entry(network).or_insert(now);
        *forgotten_at = (*forgotten_at).max(now).after(FAILURE_COSTS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn whoever_fails_too_often_waits_and_others_do_not() {
        let mut failures = FailedProofs::default();
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        for count in 0..limits::FAILED_PROOFS_MAX {
            assert_eq!(failures.barred(one, MonotonicTime(0)), None, "{count} have failed");
            failures.count(one, MonotonicTime(0));
        }
        assert_eq!(failures.barred(one, MonotonicTime(0)), Some(Duration::from_secs(1)));
        assert_eq!(failures.barred(address("::ffff:192.0.2.1"), MonotonicTime(0)), Some(FAILURE_COSTS));
        assert_eq!(failures.barred(other, MonotonicTime(0)), None);
        assert!(failures.barred(one, MonotonicTime(SECOND - 1)).is_some());
        assert_eq!(failures.barred(one, MonotonicTime(SECOND)), None, "one more may fail");
        failures.count(one, MonotonicTime(SECOND));
        assert!(failures.barred(one, MonotonicTime(SECOND)).is_some());
        assert_eq!(failures.barred(one, MonotonicTime(100 * SECOND)), None);
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let mut failures = FailedProofs::default();
        for host in 0..limits::FAILED_PROOFS_MAX {
            failures.count(address(&format!("2001:db8::{host:x}")), MonotonicTime(0));
        }
        assert!(failures.barred(address("2001:db8::ffff"), MonotonicTime(0)).is_some());
        assert_eq!(failures.barred(address("2001:db8:0:1::1"), MonotonicTime(0)), None);
    }

    #[test]
    fn so_many_addresses_are_remembered_and_the_newest_of_them() {
        let mut failures = FailedProofs::default();
        let most = u32::try_from(limits::FAILED_PROOF_ADDRESSES_MAX).expect("a small number");
        for number in 0..2 * most {
            let now = MonotonicTime(u64::from(number));
            (0..limits::FAILED_PROOFS_MAX)
                .for_each(|_| failures.count(IpAddr::from(number.to_be_bytes()), now));
        }
        assert_eq!(failures.forgotten_at.len(), limits::FAILED_PROOF_ADDRESSES_MAX);
        let now = MonotonicTime(u64::from(2 * most));
        assert_eq!(failures.barred(IpAddr::from(0_u32.to_be_bytes()), now), None, "forgotten");
        assert!(failures.barred(IpAddr::from((2 * most - 1).to_be_bytes()), now).is_some());
    }
}
