//! A single-threaded executor whose order of polls is picked by a seed, with time that jumps.
//!
//! 1. One seed, one program: one order of polls, one trace. Nothing here reads a clock, a thread or an address.
//! 2. Among the tasks that are ready, any may be next. So each seed is another schedule, and over many seeds every
//!    order that the program allows comes up.
//! 3. Time stands still while a task is ready, unless [`set_poll_cost`](SeededExecutor::set_poll_cost) says what a
//!    poll takes. When nobody is ready it jumps to the next timer.
//! 4. A main future that can never end panics: nothing ready and no timer is a deadlock, too many polls a livelock.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::Location;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::task::{JoinHandle, Spawner, Task, TaskId, TaskWake, WokenQueue};
use super::{Random, Trace, VirtualClock};
use crate::clock::{Clock, SharedClock};

/// Polls in one call of a `run` function, unless [`SeededExecutor::set_polls_max`] says otherwise.
const POLLS_MAX: u64 = 20_000_000;
/// Waiting tasks named in the message about a deadlock.
const TASKS_SHOWN_MAX: usize = 20;

/// Runs futures that are not `Send`, in a seeded order. Dropping it drops its tasks where they stand.
pub struct SeededExecutor {
    scheduler: Rc<Scheduler>,
}

/// What tasks reach of their executor.
pub(super) struct Scheduler {
    seed: u64,
    random: RefCell<Random>,
    tasks: RefCell<BTreeMap<TaskId, Task>>,
    tasks_made: Cell<u64>,
    woken: WokenQueue,
    /// Woken tasks that wait for their turn; may name tasks that have ended since.
    ready: RefCell<Vec<TaskId>>,
    clock: VirtualClock,
    trace: Trace,
    polls: Cell<u64>,
    polls_max: Cell<u64>,
    poll_cost: Cell<Duration>,
}

impl SeededExecutor {
    pub fn new(seed: u64) -> Self {
        let scheduler = Scheduler {
            seed,
            random: RefCell::new(Random::new(seed)),
            tasks: RefCell::default(),
            tasks_made: Cell::new(0),
            woken: WokenQueue::default(),
            ready: RefCell::default(),
            clock: VirtualClock::new(),
            trace: Trace::new(),
            polls: Cell::new(0),
            polls_max: Cell::new(POLLS_MAX),
            poll_cost: Cell::new(Duration::ZERO),
        };
        Self { scheduler: Rc::new(scheduler) }
    }

    /// What a poll takes in virtual time: from zero up to twice `cost`, seeded. Without it no timer fires while anyone
    /// is busy, and a time-out never meets work that is half done.
    pub fn set_poll_cost(&self, cost: Duration) {
        self.scheduler.poll_cost.set(cost);
    }

    /// Polls after which a `run` function gives up.
    pub fn set_polls_max(&self, polls: u64) {
        self.scheduler.polls_max.set(polls);
    }

    pub fn seed(&self) -> u64 {
        self.scheduler.seed
    }

    pub fn clock(&self) -> VirtualClock {
        self.scheduler.clock.clone()
    }

    pub fn shared_clock(&self) -> SharedClock {
        self.scheduler.clock.shared()
    }

    pub fn trace(&self) -> Trace {
        self.scheduler.trace.clone()
    }

    /// Starts tasks from inside tasks.
    pub fn spawner(&self) -> Spawner {
        Spawner { scheduler: Rc::downgrade(&self.scheduler) }
    }

    /// Starts a task: its first poll comes when the seed picks it.
    #[track_caller]
    pub fn spawn<F: Future + 'static>(&self, future: F) -> JoinHandle<F::Output> {
        self.spawner().spawn(future)
    }

    /// Tasks that have not ended.
    pub fn task_count(&self) -> usize {
        self.scheduler.tasks.borrow().len()
    }

    /// Drops every task where it stands, as the death of the process would. Time and trace go on.
    pub fn cancel_all(&self) {
        self.scheduler.cancel_all();
    }

    /// Runs `main` and the tasks until `main` has ended; the tasks may be half done then.
    pub fn run_until<F: Future>(&self, main: F) -> F::Output {
        let scheduler = &self.scheduler;
        let mut main = pin!(main);
        let id = scheduler.next_id();
        let wake = TaskWake::new(id, scheduler.woken.clone());
        let waker = Waker::from(wake.clone());
        waker.wake_by_ref();
        let polls_end = scheduler.polls_end();
        loop {
            match scheduler.next_ready(Some(id)) {
                Some(next) if next == id => {
                    scheduler.count_poll(id, polls_end);
                    wake.begin_poll();
                    if let Poll::Ready(output) = main.as_mut().poll(&mut Context::from_waker(&waker)) {
                        return output;
                    }
                }
                Some(next) => scheduler.poll_task(next, polls_end),
                None => match scheduler.clock.next_timer() {
                    Some(time) => scheduler.clock.move_to(time),
                    None => panic!("{}", scheduler.deadlock()),
                },
            }
        }
    }

    /// Runs the tasks until none is ready. Time does not move.
    pub fn run_until_idle(&self) {
        let polls_end = self.scheduler.polls_end();
        while let Some(next) = self.scheduler.next_ready(None) {
            self.scheduler.poll_task(next, polls_end);
        }
    }

    /// Runs the tasks until `duration` of virtual time has passed.
    pub fn run_for(&self, duration: Duration) {
        let clock = &self.scheduler.clock;
        let end = clock.monotonic().after(duration);
        let polls_end = self.scheduler.polls_end();
        loop {
            match self.scheduler.next_ready(None) {
                Some(next) => self.scheduler.poll_task(next, polls_end),
                None => match clock.next_timer() {
                    Some(time) if time <= end => clock.move_to(time),
                    _ => return clock.move_to(end),
                },
            }
        }
    }
}

impl Drop for SeededExecutor {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let polls = self.scheduler.polls.get();
            eprintln!("the seeded executor had seed {} and had made {polls} polls", self.scheduler.seed);
        }
        self.scheduler.cancel_all();
    }
}

impl Scheduler {
    pub(super) fn insert(
        &self,
        future: Pin<Box<dyn Future<Output = ()>>>,
        spawned_at: &'static Location<'static>,
    ) -> TaskId {
        let id = self.next_id();
        let wake = TaskWake::new(id, self.woken.clone());
        let waker = Waker::from(wake.clone());
        waker.wake_by_ref();
        self.tasks.borrow_mut().insert(id, Task { future: Some(future), wake, waker, spawned_at });
        id
    }

    /// Drops a task. One that is just being polled is dropped after this poll.
    pub(super) fn cancel(&self, id: TaskId) {
        // Out of the table first: dropping a future runs code that may come back here.
        let task = self.tasks.borrow_mut().remove(&id);
        drop(task);
    }

    fn cancel_all(&self) {
        // What a task's drop spawns is dropped as well.
        loop {
            let first = self.tasks.borrow_mut().pop_first();
            match first {
                Some(task) => drop(task),
                None => break,
            }
        }
    }

    fn next_id(&self) -> TaskId {
        TaskId(self.tasks_made.replace(self.tasks_made.get() + 1))
    }

    fn polls_end(&self) -> u64 {
        self.polls.get().saturating_add(self.polls_max.get())
    }

    /// Picks a ready task; `main` is ready without being in the table.
    fn next_ready(&self, main: Option<TaskId>) -> Option<TaskId> {
        self.clock.move_to(self.clock.monotonic());
        let mut ready = self.ready.borrow_mut();
        ready.append(&mut self.woken.lock().expect("no thread panics while it holds the queue"));
        while !ready.is_empty() {
            let index = self.random.borrow_mut().index(ready.len());
            let id = ready.swap_remove(index);
            if main == Some(id) || self.tasks.borrow().contains_key(&id) {
                return Some(id);
            }
        }
        None
    }

    fn poll_task(&self, id: TaskId, polls_end: u64) {
        self.count_poll(id, polls_end);
        let (mut future, wake, waker) = {
            let mut tasks = self.tasks.borrow_mut();
            let task = tasks.get_mut(&id).expect("only tasks in the table are picked");
            let future = task.future.take().expect("no task is polled inside its own poll");
            (future, task.wake.clone(), task.waker.clone())
        };
        wake.begin_poll();
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(()) => self.cancel(id),
            Poll::Pending => {
                // Missing when it was cancelled meanwhile.
                if let Some(task) = self.tasks.borrow_mut().get_mut(&id) {
                    task.future = Some(future);
                }
            }
        }
    }

    fn count_poll(&self, id: TaskId, polls_end: u64) {
        self.polls.set(self.polls.get() + 1);
        assert!(
            self.polls.get() <= polls_end,
            "no end after {} polls with seed {}: {}",
            self.polls_max.get(),
            self.seed,
            self.waiting()
        );
        let cost_ns = u64::try_from(self.poll_cost.get().as_nanos()).unwrap_or(u64::MAX / 2);
        if cost_ns > 0 {
            let nanoseconds = self.random.borrow_mut().range(0..=cost_ns.saturating_mul(2));
            self.clock.advance(Duration::from_nanos(nanoseconds));
        }
        self.trace.event("poll", "task", &[id.0, self.clock.monotonic().0]);
    }

    fn deadlock(&self) -> String {
        format!(
            "deadlock with seed {} after {} polls: the main future waits, no task is ready, no timer is set; {}",
            self.seed,
            self.polls.get(),
            self.waiting()
        )
    }

    fn waiting(&self) -> String {
        let tasks = self.tasks.borrow();
        let shown = tasks.iter().take(TASKS_SHOWN_MAX);
        let places: Vec<_> =
            shown.map(|(id, task)| format!("task {} from {}", id.0, task.spawned_at)).collect();
        format!("{} tasks have not ended: {}", tasks.len(), places.join(", "))
    }
}

#[cfg(test)]
mod tests;
