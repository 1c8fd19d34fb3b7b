//! Tasks of the [`SeededExecutor`](super::SeededExecutor): starting them, waiting for them, ending them.

use std::cell::RefCell;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use super::executor::Scheduler;

/// Number of a task in the order of starting; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct TaskId(pub(super) u64);

/// A task that has not ended.
pub(super) struct Task {
    /// Taken out while it is polled.
    pub(super) future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    pub(super) wake: Arc<TaskWake>,
    pub(super) waker: Waker,
    /// For messages: tasks have no names.
    pub(super) spawned_at: &'static Location<'static>,
}

/// What the waker of a task does. Wakers have to be `Send`, even though nothing here ever leaves its thread.
pub(super) struct TaskWake {
    id: TaskId,
    /// Whether the task waits for its turn already.
    woken: AtomicBool,
    queue: WokenQueue,
}

/// Tasks that were woken since the executor last looked.
pub(super) type WokenQueue = Arc<Mutex<Vec<TaskId>>>;

/// Starts tasks from inside tasks. Keeps nothing alive: once the executor is gone, what is spawned is dropped.
#[derive(Clone)]
pub struct Spawner {
    pub(super) scheduler: Weak<Scheduler>,
}

/// The result of a task, to be awaited. Dropping the handle leaves the task running.
pub struct JoinHandle<T> {
    outcome: Rc<RefCell<Outcome<T>>>,
    task: Option<TaskId>,
    scheduler: Weak<Scheduler>,
}

/// Where a task puts its result.
struct Outcome<T> {
    result: Option<T>,
    /// The future is gone: it has ended or was cancelled.
    ended: bool,
    waiter: Option<Waker>,
}

/// The task's side of an [`Outcome`]: its drop says that the task has ended, however it did.
struct Promise<T> {
    outcome: Rc<RefCell<Outcome<T>>>,
}

impl Spawner {
    /// Starts a task: its first poll comes when the seed picks it.
    #[track_caller]
    pub fn spawn<F: Future + 'static>(&self, future: F) -> JoinHandle<F::Output> {
        let spawned_at = Location::caller();
        let outcome = Rc::new(RefCell::new(Outcome { result: None, ended: false, waiter: None }));
        let promise = Promise { outcome: outcome.clone() };
        let task = self.scheduler.upgrade().map(|scheduler| {
            let run = async move {
                let result = future.await;
                promise.outcome.borrow_mut().result = Some(result);
            };
            scheduler.insert(Box::pin(run), spawned_at)
        });
        JoinHandle { outcome, task, scheduler: self.scheduler.clone() }
    }
}

impl<T> JoinHandle<T> {
    /// Ends the task where it stands, as a crash would.
    pub fn cancel(&self) {
        if let (Some(scheduler), Some(task)) = (self.scheduler.upgrade(), self.task) {
            scheduler.cancel(task);
        }
    }

    /// Whether the task has returned or was cancelled.
    pub fn is_finished(&self) -> bool {
        self.outcome.borrow().ended
    }

    /// The result, once, when there is one.
    pub fn try_take(&self) -> Option<T> {
        self.outcome.borrow_mut().result.take()
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = T;

    /// Panics when the task was cancelled: nobody may wait for what will never come.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut outcome = self.outcome.borrow_mut();
        match outcome.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                assert!(!outcome.ended, "the awaited task was cancelled, or its result was taken already");
                outcome.waiter = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        let waiter = {
            let mut outcome = self.outcome.borrow_mut();
            outcome.ended = true;
            outcome.waiter.take()
        };
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }
}

impl TaskWake {
    pub(super) fn new(id: TaskId, queue: WokenQueue) -> Arc<Self> {
        Arc::new(Self { id, woken: AtomicBool::new(false), queue })
    }

    /// To be called before a poll: what happens during the poll wakes again.
    pub(super) fn begin_poll(&self) {
        self.woken.store(false, Ordering::Relaxed);
    }
}

impl Wake for TaskWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Ordering::Relaxed) {
            self.queue.lock().expect("no thread panics while it holds the queue").push(self.id);
        }
    }
}
