//! Who has made what of a table that all clients share, by places of the network. After a start nobody has made anything.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

use crate::types::MonotonicTime;

pub(super) struct Makers<Name> {
    made: HashMap<Name, IpAddr>,
    counts: HashMap<IpAddr, usize>,
    looked_at: Option<MonotonicTime>,
}

impl<Name> Default for Makers<Name> {
    fn default() -> Self {
        Self { made: HashMap::new(), counts: HashMap::new(), looked_at: None }
    }
}

impl<Name: Clone + Eq + Hash> Makers<Name> {
    pub fn count(&self, maker: IpAddr) -> usize {
        self.counts.get(&maker).copied().unwrap_or(0)
    }

    pub fn note(&mut self, name: &Name, maker: IpAddr) {
        self.forget(name);
        self.made.insert(name.clone(), maker);
        *self.counts.entry(maker).or_default() += 1;
    }

    pub fn forget(&mut self, name: &Name) {
        let Some(maker) = self.made.remove(name) else { return };
        if let Some(count) = self.counts.get_mut(&maker) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&maker);
            }
        }
    }

    /// Forgets what is gone; now and then, as there may be much.
    pub fn look(&mut self, now: MonotonicTime, is_there: impl Fn(&Name) -> bool) {
        if self.looked_at.is_some_and(|looked_at| now.since(looked_at) < Duration::from_secs(1)) {
            return;
        }
        self.looked_at = Some(now);
        let gone: Vec<_> = self.made.keys().filter(|name| !is_there(name)).cloned().collect();
        gone.iter().for_each(|name| self.forget(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::GroupName;

    #[test]
    fn what_was_made_counts_for_who_has_made_it_until_it_is_gone() {
        let mut makers = Makers::default();
        let group = |number: u32| format!("g{number}").parse::<GroupName>().expect("a name");
        let [one, other] = [1, 2].map(|last| IpAddr::from([10, 0, 0, last]));
        (0..5).for_each(|number| makers.note(&group(number), one));
        makers.note(&group(5), other);
        makers.note(&group(0), other);
        assert_eq!((makers.count(one), makers.count(other)), (4, 2), "whose it was last");
        makers.forget(&group(5));
        makers.look(MonotonicTime(0), |group| group.as_str() != "g1");
        makers.look(MonotonicTime(1), |_| false);
        assert_eq!((makers.count(one), makers.count(other)), (3, 1), "looked at once a second");
        makers.look(MonotonicTime(2_000_000_000), |_| false);
        assert!(makers.made.is_empty() && makers.counts.is_empty());
    }
}
