//! A mutex for the tasks of one executor.

use std::cell::Cell;

use super::wake::WakerList;

/// Lets one task of an executor in; the others wait. Whoever asks first after it is free has it: waiting gives no order.
#[derive(Default)]
pub struct TaskMutex {
    is_locked: Cell<bool>,
    unlocked: WakerList,
}

/// The mutex is locked until this is dropped.
pub struct TaskMutexGuard<'a>(&'a TaskMutex);

impl TaskMutex {
    /// Dropping the future gives up the wait and changes nothing.
    pub async fn lock(&self) -> TaskMutexGuard<'_> {
        while self.is_locked.get() {
            self.unlocked.changed().await;
        }
        self.is_locked.set(true);
        TaskMutexGuard(self)
    }
}

impl Drop for TaskMutexGuard<'_> {
    fn drop(&mut self) {
        self.0.is_locked.set(false);
        self.0.unlocked.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    #[test]
    fn the_second_waits_for_the_first() {
        let mutex = TaskMutex::default();
        let first = block_on(mutex.lock());
        let mut second = Box::pin(mutex.lock());
        assert!(block_on(poll_once(&mut second)).is_none());
        drop(first);
        assert!(block_on(poll_once(&mut second)).is_some());
    }
}
