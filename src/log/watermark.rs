//! How far the log is at each durability level, and waiting for it.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::error::LogFailure;
use super::mark_waiters::{MarkWaiters, WaiterKey};
use crate::types::{Level, LogPosition, WakerList};

/// Exclusive ends of what has been placed, written and flushed. Invariant 1 of the log is checked on every change.
pub struct Watermarks {
    appended: Cell<LogPosition>,
    written: Cell<LogPosition>,
    durable: Cell<LogPosition>,
    failure: RefCell<Option<LogFailure>>,
    /// Those who wait for the written and for the durable mark.
    waiting_written: MarkWaiters,
    waiting_durable: MarkWaiters,
    /// Those who look at everything, whatever moves.
    changed: WakerList,
}

/// Future of [`Watermarks::level_reached`].
pub struct Reached<'a> {
    marks: &'a Watermarks,
    level: Level,
    end: LogPosition,
    key: Option<WaiterKey>,
}

impl Watermarks {
    /// All three at the end that recovery found.
    pub(super) fn new(end: LogPosition) -> Self {
        Self {
            appended: Cell::new(end),
            written: Cell::new(end),
            durable: Cell::new(end),
            failure: RefCell::new(None),
            waiting_written: MarkWaiters::default(),
            waiting_durable: MarkWaiters::default(),
            changed: WakerList::new(),
        }
    }

    pub fn appended_end(&self) -> LogPosition {
        self.appended.get()
    }

    pub fn written_end(&self) -> LogPosition {
        self.written.get()
    }

    pub fn durable_end(&self) -> LogPosition {
        self.durable.get()
    }

    /// The end at `level`.
    pub fn end(&self, level: Level) -> LogPosition {
        match level {
            Level::Accepted => self.appended.get(),
            Level::Written => self.written.get(),
            Level::Durable => self.durable.get(),
        }
    }

    /// The highest level at which everything below `end` is.
    pub fn level_of(&self, end: LogPosition) -> Level {
        if end <= self.durable.get() {
            Level::Durable
        } else if end <= self.written.get() {
            Level::Written
        } else {
            Level::Accepted
        }
    }

    pub fn failure(&self) -> Option<LogFailure> {
        self.failure.borrow().clone()
    }

    pub fn has_failed(&self) -> bool {
        self.failure.borrow().is_some()
    }

    /// The list that is woken whenever a mark moves or the log fails.
    pub fn changes(&self) -> &WakerList {
        &self.changed
    }

    /// Waits until everything below `end`, which was placed, is at `level`, or the log has failed.
    pub fn level_reached(&self, level: Level, end: LogPosition) -> Reached<'_> {
        Reached { marks: self, level, end, key: None }
    }

    /// Wakes somebody when everything below `end` is at `level`, or the log has failed. Whoever would come to
    /// [`level_reached`](Watermarks::level_reached) for something that is only being placed has itself woken once this way.
    pub fn wake_at(&self, level: Level, end: LogPosition, waker: Waker) {
        if end <= self.end(level) || self.has_failed() {
            waker.wake();
        } else {
            self.waiters(level).add(end, waker);
        }
    }

    /// Where one who waits for a level is noted. What was placed is accepted, so nobody waits for that.
    fn waiters(&self, level: Level) -> &MarkWaiters {
        match level {
            Level::Accepted | Level::Written => &self.waiting_written,
            Level::Durable => &self.waiting_durable,
        }
    }

    pub(super) fn set_appended(&self, end: LogPosition) {
        assert!(end >= self.appended.get(), "appended end falls from {} to {end}", self.appended.get());
        self.appended.set(end);
    }

    pub(super) fn set_written(&self, end: LogPosition) {
        assert!(end >= self.written.get(), "written end falls from {} to {end}", self.written.get());
        assert!(
            end <= self.appended.get(),
            "written end {end} is beyond appended end {}",
            self.appended.get()
        );
        self.written.set(end);
        self.waiting_written.wake_to(end);
        self.changed.wake();
    }

    /// The caller wakes the waiters with [`publish`](Watermarks::publish) once everybody's tables are up to date.
    pub(super) fn set_durable(&self, end: LogPosition) {
        assert!(end >= self.durable.get(), "durable end falls from {} to {end}", self.durable.get());
        assert!(end <= self.written.get(), "durable end {end} is beyond written end {}", self.written.get());
        self.durable.set(end);
    }

    pub(super) fn publish(&self) {
        self.waiting_durable.wake_to(self.durable.get());
        self.changed.wake();
    }

    /// Latches the first failure.
    pub(super) fn fail(&self, failure: LogFailure) {
        let mut latched = self.failure.borrow_mut();
        if latched.is_none() {
            *latched = Some(failure);
        }
        drop(latched);
        self.waiting_written.wake_to(LogPosition(u64::MAX));
        self.waiting_durable.wake_to(LogPosition(u64::MAX));
        self.changed.wake();
    }
}

impl Future for Reached<'_> {
    type Output = Result<(), LogFailure>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let marks = self.marks;
        if self.end <= marks.end(self.level) {
            return Poll::Ready(Ok(()));
        }
        if let Some(failure) = marks.failure() {
            return Poll::Ready(Err(failure));
        }
        let waiters = marks.waiters(self.level);
        if !self.key.is_some_and(|key| waiters.renew(key, context.waker())) {
            self.key = Some(waiters.add(self.end, context.waker().clone()));
        }
        Poll::Pending
    }
}

impl Drop for Reached<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.marks.waiters(self.level).remove(key);
        }
    }
}
