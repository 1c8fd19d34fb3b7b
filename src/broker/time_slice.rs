//! Long computations in slices of time: whoever looks at thousands of things lets everybody else go on in between.

use std::time::Duration;

use crate::clock::SharedClock;
use crate::types::MonotonicTime;

/// How long a slice is: as long as a full group takes to be parsed, which others wait for anyway.
const SLICE: Duration = Duration::from_micros(300);

/// Steps from one look at the clock to the next: a look costs as much as a step.
const STEPS_PER_LOOK: u32 = 16;

/// The slice of a task that has much to do.
pub(super) struct TimeSlice<'a> {
    clock: &'a SharedClock,
    began: MonotonicTime,
    /// Steps until the clock is looked at.
    left: u32,
}

impl<'a> TimeSlice<'a> {
    pub fn begin(clock: &'a SharedClock) -> Self {
        Self { clock, began: clock.monotonic(), left: STEPS_PER_LOOK }
    }

    /// To be called between two steps. When the slice is used up, the executor looks at everything else first.
    pub async fn yield_if_over(&mut self) {
        self.left -= 1;
        if self.left > 0 {
            return;
        }
        self.left = STEPS_PER_LOOK;
        if self.clock.monotonic().since(self.began) >= SLICE {
            // Through the reactor: a task that only yields is put straight back among the ready ones.
            self.clock.sleep(Duration::ZERO).await;
            self.began = self.clock.monotonic();
        }
    }
}
