//! Long computations in slices of time: whoever looks at thousands of things lets everybody else go on in between.

use std::time::Duration;

use crate::clock::SharedClock;
use crate::types::{ByteBudget, MonotonicTime};

/// How long a slice is: a tenth of a millisecond, since who publishes a durable message waits for one at each of four turns of the
/// executor (to be read, written, flushed and answered), and should be done within the time that a device takes for it.
const SLICE: Duration = Duration::from_micros(100);

/// Steps from one look at the clock to the next: a look costs as much as a step.
const STEPS_PER_LOOK: u32 = 16;

/// The row of a shard's tasks that have much to do: the executor looks at everything else before it lets the next one of them
/// have its slice, so that however many they are, nobody waits for more than one.
pub(super) struct LongTasks {
    next: ByteBudget,
}

/// The slice of a task that has much to do.
pub(super) struct TimeSlice<'a> {
    clock: &'a SharedClock,
    row: &'a LongTasks,
    began: MonotonicTime,
    /// Steps until the clock is looked at.
    left: u32,
}

impl LongTasks {
    pub fn new() -> Self {
        Self { next: ByteBudget::new(1) }
    }
}

impl<'a> TimeSlice<'a> {
    pub fn begin(clock: &'a SharedClock, row: &'a LongTasks) -> Self {
        Self { clock, row, began: clock.monotonic(), left: STEPS_PER_LOOK }
    }

    /// To be called between two steps. When the slice is used up, the executor looks at everything else first.
    pub async fn yield_if_over(&mut self) {
        self.left -= 1;
        if self.left > 0 {
            return;
        }
        self.left = STEPS_PER_LOOK;
        if self.clock.monotonic().since(self.began) >= SLICE {
            self.next().await;
        }
    }

    /// Waits for a slice. To be called by whoever knows before it begins that it has much to do.
    pub async fn next(&mut self) {
        // Held during the wait and not during the slice, in which a task may wait for others of the row.
        let turn = self.row.next.reserve(1).await;
        // Through the reactor: a task that only yields is put straight back among the ready ones.
        self.clock.sleep(Duration::ZERO).await;
        drop(turn);
        self.began = self.clock.monotonic();
    }
}
