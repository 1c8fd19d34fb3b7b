use std::cell::RefCell;
use std::collections::BTreeSet;

use futures_lite::future::{or, pending, yield_now};

use super::*;
use crate::types::{MonotonicTime, WakerList};

/// Three tasks that each note their number three times; the order in which the notes came.
fn interleaving(seed: u64) -> (Vec<u32>, Vec<String>) {
    let executor = SeededExecutor::new(seed);
    executor.trace().record_lines();
    let notes = Rc::new(RefCell::new(Vec::new()));
    for task in 0..3 {
        let notes = notes.clone();
        executor.spawn(async move {
            for _ in 0..3 {
                notes.borrow_mut().push(task);
                yield_now().await;
            }
        });
    }
    executor.run_until_idle();
    assert_eq!(executor.task_count(), 0);
    (notes.take(), executor.trace().lines())
}

#[test]
fn one_seed_is_one_schedule() {
    for seed in 0..20 {
        assert_eq!(interleaving(seed), interleaving(seed));
    }
}

#[test]
fn many_seeds_are_many_schedules() {
    let orders: BTreeSet<_> = (0..200).map(|seed| interleaving(seed).0).collect();
    assert!(orders.len() > 150, "{} orders", orders.len());
    assert!(orders.iter().any(|order| order[..3] == [2, 2, 2]), "a task may run three times in a row");
}

#[test]
fn results_come_through_handles_and_tasks_spawn_tasks() {
    let executor = SeededExecutor::new(1);
    let spawner = executor.spawner();
    let outer = executor.spawn(async move {
        let inner = spawner.spawn(async { 20 });
        inner.await + 1
    });
    assert_eq!(executor.run_until(async { outer.await * 2 }), 42);
}

#[test]
fn time_jumps_to_the_next_timer_when_all_wait() {
    let executor = SeededExecutor::new(2);
    let clock = executor.clock();
    let ends = Rc::new(RefCell::new(Vec::new()));
    for seconds in [30, 10, 20] {
        let (clock, ends) = (clock.clone(), ends.clone());
        executor.spawn(async move {
            clock.sleep(Duration::from_secs(seconds)).await;
            ends.borrow_mut().push((seconds, clock.monotonic().0 / 1_000_000_000));
        });
    }
    executor.run_until_idle();
    assert_eq!(clock.monotonic(), MonotonicTime(0));
    executor.run_for(Duration::from_secs(20));
    assert_eq!(*ends.borrow(), [(10, 10), (20, 20)]);
    executor.run_until(clock.sleep(Duration::from_secs(3600)));
    assert_eq!(ends.borrow().last(), Some(&(30, 30)));
    assert_eq!(clock.monotonic(), MonotonicTime(3_620_000_000_000));
}

#[test]
fn a_timer_fires_amid_work_only_when_polls_take_time() {
    let done_before_timeout = |cost: Duration| {
        let executor = SeededExecutor::new(3);
        executor.set_poll_cost(cost);
        let clock = executor.clock();
        let work = async {
            for _ in 0..1_000 {
                yield_now().await;
            }
            true
        };
        let timeout = async {
            clock.sleep(Duration::from_micros(100)).await;
            false
        };
        executor.run_until(or(work, timeout))
    };
    assert!(done_before_timeout(Duration::ZERO));
    assert!(!done_before_timeout(Duration::from_micros(1)));
}

#[test]
#[should_panic(expected = "deadlock with seed 4")]
fn a_deadlock_panics() {
    let executor = SeededExecutor::new(4);
    let list = Rc::new(WakerList::new());
    let waiting = list.clone();
    executor.spawn(async move { waiting.changed().await });
    executor.run_until(list.changed());
}

#[test]
#[should_panic(expected = "no end after 1000 polls with seed 5")]
fn a_livelock_panics() {
    let executor = SeededExecutor::new(5);
    executor.set_polls_max(1_000);
    executor.spawn(async {
        loop {
            yield_now().await;
        }
    });
    executor.run_until(pending::<()>());
}

#[test]
fn a_cancelled_task_is_dropped_where_it_stands() {
    let executor = SeededExecutor::new(6);
    let alive = Rc::new(());
    let held = alive.clone();
    let handle = executor.spawn(async move {
        let _held = held;
        pending::<()>().await;
    });
    executor.run_until_idle();
    assert_eq!(Rc::strong_count(&alive), 2);
    assert!(!handle.is_finished());
    handle.cancel();
    assert_eq!(Rc::strong_count(&alive), 1);
    assert!(handle.is_finished());
    assert_eq!(handle.try_take(), None);
}

#[test]
#[should_panic(expected = "the awaited task was cancelled")]
fn waiting_for_a_cancelled_task_panics() {
    let executor = SeededExecutor::new(7);
    let handle = executor.spawn(pending::<()>());
    handle.cancel();
    executor.run_until(handle);
}

#[test]
fn dropping_the_executor_drops_tasks_that_know_it() {
    let executor = SeededExecutor::new(8);
    let alive = Rc::new(());
    let (held, spawner) = (alive.clone(), executor.spawner());
    executor.spawn(async move {
        pending::<()>().await;
        spawner.spawn(async move { drop(held) });
    });
    executor.run_until_idle();
    drop(executor);
    assert_eq!(Rc::strong_count(&alive), 1);
}
