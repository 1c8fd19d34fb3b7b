//! One at a time.

use std::cell::Cell;

use crate::types::WakerList;

/// Lets one task of an executor in; the others wait.
#[derive(Default)]
pub struct Turn {
    taken: Cell<bool>,
    freed: WakerList,
}

/// The right to go on. Dropping it lets the next one in.
pub struct TurnGuard<'a> {
    turn: &'a Turn,
}

impl Turn {
    pub async fn take(&self) -> TurnGuard<'_> {
        while self.taken.get() {
            self.freed.changed().await;
        }
        self.taken.set(true);
        TurnGuard { turn: self }
    }
}

impl Drop for TurnGuard<'_> {
    fn drop(&mut self) {
        self.turn.taken.set(false);
        self.turn.freed.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    #[test]
    fn the_second_waits_for_the_first() {
        let turn = Turn::default();
        let first = block_on(turn.take());
        let mut second = Box::pin(turn.take());
        assert!(block_on(poll_once(&mut second)).is_none());
        drop(first);
        assert!(block_on(poll_once(&mut second)).is_some());
    }
}
