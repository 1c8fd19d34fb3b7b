//! Time for tests: it moves only when told to.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::clock::{Clock, SharedClock};
use crate::types::{MonotonicTime, Timestamp};

/// What the wall clock shows at the start: 2023-11-14, a date that no test confuses with zero.
pub const START: Timestamp = Timestamp(1_700_000_000_000);

/// A clock that stands still. The executor that it belongs to moves it to the next timer when nobody can work; a test
/// may move it as well. A clone is the same clock.
#[derive(Clone, Default)]
pub struct VirtualClock {
    state: Rc<State>,
}

#[derive(Default)]
struct State {
    elapsed_ns: Cell<u64>,
    /// Added to the wall clock only: operators and NTP set it back.
    wall_shift_ms: Cell<i64>,
    /// Waiting sleeps, by deadline and then by the order of their first polls.
    timers: RefCell<BTreeMap<TimerKey, Waker>>,
    timers_made: Cell<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct TimerKey {
    deadline_ns: u64,
    number: u64,
}

/// A sleep. Dropping it takes its timer back, so that an abandoned time-out does not move the time.
struct Sleep {
    clock: Rc<State>,
    deadline_ns: u64,
    /// Set by the first poll. A timer that is no longer in the table has fired.
    timer: Option<TimerKey>,
}

impl VirtualClock {
    pub fn new() -> Self {
        Self::default()
    }

    /// This clock as the broker takes it.
    pub fn shared(&self) -> SharedClock {
        Rc::new(self.clone())
    }

    /// Moves the time and wakes everyone whose time has come.
    pub fn advance(&self, duration: Duration) {
        self.move_to(self.monotonic().after(duration));
    }

    /// Sets the wall clock forwards or back; durations do not notice.
    pub fn shift_wall_clock(&self, milliseconds: i64) {
        self.state.wall_shift_ms.set(self.state.wall_shift_ms.get() + milliseconds);
    }

    /// When the next sleep ends.
    pub fn next_timer(&self) -> Option<MonotonicTime> {
        self.state.timers.borrow().first_key_value().map(|(key, _)| MonotonicTime(key.deadline_ns))
    }

    /// Moves the time to `time` unless it is there already, and wakes everyone whose time has come.
    pub(super) fn move_to(&self, time: MonotonicTime) {
        self.state.elapsed_ns.set(self.state.elapsed_ns.get().max(time.0));
        loop {
            // Waking runs foreign code, which may come back here: no borrow is held.
            let due = {
                let mut timers = self.state.timers.borrow_mut();
                timers
                    .first_entry()
                    .filter(|first| first.key().deadline_ns <= self.state.elapsed_ns.get())
                    .map(|first| first.remove())
            };
            match due {
                Some(waker) => waker.wake(),
                None => break,
            }
        }
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        let milliseconds = START.0 + self.state.elapsed_ns.get() / 1_000_000;
        Timestamp(milliseconds.saturating_add_signed(self.state.wall_shift_ms.get()))
    }

    fn monotonic(&self) -> MonotonicTime {
        MonotonicTime(self.state.elapsed_ns.get())
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()>>> {
        let deadline_ns = self.monotonic().after(duration).0;
        Box::pin(Sleep { clock: self.state.clone(), deadline_ns, timer: None })
    }
}

impl Future for Sleep {
    type Output = ();

    /// Pending at least once, so that a loop around a sleep of zero lets others run.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let clock = self.clock.clone();
        let mut timers = clock.timers.borrow_mut();
        match self.timer {
            None => {
                let number = clock.timers_made.replace(clock.timers_made.get() + 1);
                let key = TimerKey { deadline_ns: self.deadline_ns, number };
                timers.insert(key, context.waker().clone());
                self.timer = Some(key);
                Poll::Pending
            }
            Some(key) => match timers.get_mut(&key) {
                None => Poll::Ready(()),
                Some(waker) => {
                    waker.clone_from(context.waker());
                    Poll::Pending
                }
            },
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.timer {
            self.clock.timers.borrow_mut().remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    fn is_done(future: &mut Pin<Box<dyn Future<Output = ()>>>) -> bool {
        block_on(poll_once(future)).is_some()
    }

    #[test]
    fn a_sleep_ends_at_its_time_and_not_before() {
        let clock = VirtualClock::new();
        let mut sleep = clock.sleep(Duration::from_millis(10));
        assert!(!is_done(&mut sleep));
        clock.advance(Duration::from_micros(9_999));
        assert!(!is_done(&mut sleep));
        clock.advance(Duration::from_micros(1));
        assert!(is_done(&mut sleep));
        assert_eq!(clock.now(), Timestamp(START.0 + 10));
        assert_eq!(clock.monotonic(), MonotonicTime(10_000_000));
    }

    #[test]
    fn a_sleep_that_was_dropped_leaves_no_timer() {
        let clock = VirtualClock::new();
        let mut sleep = clock.sleep(Duration::from_secs(1));
        assert!(!is_done(&mut sleep));
        assert_eq!(clock.next_timer(), Some(MonotonicTime(1_000_000_000)));
        drop(sleep);
        assert_eq!(clock.next_timer(), None);
    }

    #[test]
    fn setting_the_wall_clock_back_does_not_lengthen_a_sleep() {
        let clock = VirtualClock::new();
        let mut sleep = clock.sleep(Duration::from_secs(1));
        assert!(!is_done(&mut sleep));
        clock.shift_wall_clock(-3_600_000);
        assert_eq!(clock.now(), Timestamp(START.0 - 3_600_000));
        clock.advance(Duration::from_secs(1));
        assert!(is_done(&mut sleep));
    }
}
