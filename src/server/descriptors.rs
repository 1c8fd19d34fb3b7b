//! The descriptors that connections may have, of what the process is allowed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What is left for connections, shared by all shards: they have one limit.
#[derive(Clone)]
pub(crate) struct ConnectionDescriptors(Arc<AtomicUsize>);

/// Descriptors of one connection; given back when dropped.
pub(crate) struct ConnectionShare {
    left: Arc<AtomicUsize>,
    count: usize,
}

impl ConnectionDescriptors {
    pub fn new(count: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(count)))
    }

    /// `None` when no more are left.
    pub fn take(&self, count: usize) -> Option<ConnectionShare> {
        let taken = |left: usize| left.checked_sub(count);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).ok()?;
        Some(ConnectionShare { left: self.0.clone(), count })
    }
}

impl Drop for ConnectionShare {
    fn drop(&mut self) {
        self.left.fetch_add(self.count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_gives_back_what_it_took() {
        let left = ConnectionDescriptors::new(3);
        let first = left.take(2).expect("there are three");
        assert!(left.take(2).is_none());
        let second = left.take(1).expect("one is left");
        drop(first);
        assert!(left.take(2).is_some());
        drop(second);
        assert!(left.take(3).is_some());
    }
}
