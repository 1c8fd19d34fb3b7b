//! Long computations in turns: whoever looks at thousands of things lets everybody else go on in between.

use std::time::Duration;

use crate::clock::SharedClock;
use crate::types::MonotonicTime;

/// As long as a full group takes to be parsed: what others wait for anyway.
const TURN: Duration = Duration::from_micros(300);

/// Steps for each look at the clock, which costs as much as one.
const STEPS: u32 = 16;

/// The turn of a task that has much to do.
pub(super) struct Turn<'a> {
    clock: &'a SharedClock,
    began: MonotonicTime,
    /// Steps until the clock is looked at.
    left: u32,
}

impl<'a> Turn<'a> {
    pub fn begin(clock: &'a SharedClock) -> Self {
        Self { clock, began: clock.monotonic(), left: STEPS }
    }

    /// To be called between two steps. When the turn has been long, the executor looks at everything else first.
    pub async fn pass(&mut self) {
        self.left -= 1;
        if self.left > 0 {
            return;
        }
        self.left = STEPS;
        if self.clock.monotonic().since(self.began) >= TURN {
            // Through the reactor: a task that only yields is put straight back among the ready ones.
            self.clock.sleep(Duration::ZERO).await;
            self.began = self.clock.monotonic();
        }
    }
}
