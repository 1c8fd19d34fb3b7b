//! How far the log is at each durability level, and waiting for it.

use std::cell::{Cell, RefCell};

use super::error::LogFailure;
use crate::types::{Level, LogPosition, WakerList};

/// Exclusive ends of what has been placed, written and flushed. Invariant 1 of the log is checked on every change.
pub struct Watermarks {
    appended: Cell<LogPosition>,
    written: Cell<LogPosition>,
    durable: Cell<LogPosition>,
    failure: RefCell<Option<LogFailure>>,
    changed: WakerList,
}

impl Watermarks {
    /// All three at the end that recovery found.
    pub(super) fn new(end: LogPosition) -> Self {
        Self {
            appended: Cell::new(end),
            written: Cell::new(end),
            durable: Cell::new(end),
            failure: RefCell::new(None),
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

    /// Waits until everything below `end` is at `level`, or the log has failed.
    pub async fn wait(&self, level: Level, end: LogPosition) -> Result<(), LogFailure> {
        loop {
            if end <= self.end(level) {
                return Ok(());
            }
            if let Some(failure) = self.failure() {
                return Err(failure);
            }
            self.changed.changed().await;
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
        self.changed.wake();
    }

    /// The caller wakes the waiters with [`publish`](Watermarks::publish) once everybody's tables are up to date.
    pub(super) fn set_durable(&self, end: LogPosition) {
        assert!(end >= self.durable.get(), "durable end falls from {} to {end}", self.durable.get());
        assert!(end <= self.written.get(), "durable end {end} is beyond written end {}", self.written.get());
        self.durable.set(end);
    }

    pub(super) fn publish(&self) {
        self.changed.wake();
    }

    /// Latches the first failure.
    pub(super) fn fail(&self, failure: LogFailure) {
        let mut latched = self.failure.borrow_mut();
        if latched.is_none() {
            *latched = Some(failure);
        }
        drop(latched);
        self.changed.wake();
    }
}
