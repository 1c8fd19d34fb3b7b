//! Long computations in turns: whoever looks at thousands of things lets everybody else go on in between.

use std::time::Duration;

use crate::clock::SharedClock;
use crate::types::MonotonicTime;

/// As long as a full group takes to be parsed: what others wait for anyway.
const TURN: Duration = Duration::from_micros(300);

/// The turn of a task that has much to do.
pub(super) struct Turn<'a> {
    clock: &'a SharedClock,
    began: MonotonicTime,
}

impl<'a> Turn<'a> {
    pub fn begin(clock: &'a SharedClock) -> Self {
        Self { clock, began: clock.monotonic() }
    }

    /// To be called between two steps. When the turn has been long, the executor looks at everything else first.
    pub async fn pass(&mut self) {
        if self.clock.monotonic().since(self.began) >= TURN {
            // Through the reactor: a task that only yields is put straight back among the ready ones.
            self.clock.sleep(Duration::ZERO).await;
            self.began = self.clock.monotonic();
        }
    }
}
