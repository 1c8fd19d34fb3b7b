//! Time as the broker sees it: real on a node, virtual in tests.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use crate::types::{MonotonicTime, Timestamp};

/// Source of time for one executor. Behind a pointer, because it is asked once per batch, never per message.
pub trait Clock {
    /// Wall clock.
    fn now(&self) -> Timestamp;

    /// Monotonic clock.
    fn monotonic(&self) -> MonotonicTime;

    /// Completes `duration` from now. For work in the background: it may be late by a round of the scheduler.
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()>>>;
}

/// A clock that many owners on one executor share.
pub type SharedClock = Rc<dyn Clock>;
