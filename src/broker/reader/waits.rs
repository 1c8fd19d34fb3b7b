//! Who waits for messages: entries in a list, each with what it waits for and whom to call.
//!
//! Fetches and watches stand in the list of each queue that they wait for, receives in their topic's. An arrival calls those
//! whom it concerns, once: "look now" does not say that there is something, since others may be faster. An entry costs
//! nothing until then, and it leaves with its [`Waiting`], before anything is looked up or leased for it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::selection::Selection;
use crate::index::IndexEntry;
use crate::types::{QueueNumber, QueueOffset};

/// Entries for which a list keeps its memory.
const KEPT_MIN: usize = 4;

/// Who is called when it is time to look. The call must not come back to the list.
pub trait LookNow {
    fn look_now(&self);
}

/// What an entry waits for: a message of one queue, or of any of the list's, from an offset on, that a filter may want.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::broker) struct WaitFor {
    queue: Option<QueueNumber>,
    from: QueueOffset,
    /// The bits of a tag summary of which one must be set; `None`: any message.
    tags: Option<u32>,
}

/// Those who wait, in the order in which they came.
#[derive(Default)]
pub(in crate::broker) struct WaitList {
    /// Counts what could be worth a look.
    changes: Cell<u64>,
    next_number: Cell<u64>,
    /// By number. Those who have left stay until there are as many of them as of the others.
    entries: RefCell<Vec<Entry>>,
    left: Cell<usize>,
}

struct Entry {
    number: u64,
    wait: WaitFor,
    /// `None`: it has left.
    caller: Option<Rc<dyn LookNow>>,
}

/// An entry's place in its list. It leaves when this is dropped.
pub(in crate::broker) struct Waiting<'a> {
    list: &'a WaitList,
    number: u64,
}

/// The task of a future as one who is called.
#[derive(Default)]
pub(in crate::broker) struct TaskCaller {
    is_called: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl WaitFor {
    /// A message of the list's queue at `from` or after it.
    pub fn from(from: QueueOffset) -> Self {
        Self { from, ..Self::default() }
    }

    /// A message of one queue, or of any, that the selection may want.
    pub fn wanted(queue: Option<QueueNumber>, selection: &Selection<'_>) -> Self {
        Self { queue, from: QueueOffset::ZERO, tags: selection.tags() }
    }

    /// A message of the list's queue at `from` or after it that the selection may want.
    pub fn wanted_from(from: QueueOffset, selection: &Selection<'_>) -> Self {
        Self { from, tags: selection.tags(), queue: None }
    }

    fn concerns(&self, queue: QueueNumber, batch: &IndexEntry) -> bool {
        self.queue.is_none_or(|wanted| wanted == queue)
            && batch.end_offset() > self.from
            && self.tags.is_none_or(|bits| batch.tag_summary & bits != 0)
    }
}

impl WaitList {
    /// What has changed so far. Taken before a look: [`wait`](WaitList::wait) knows by it what has come since.
    pub fn changes(&self) -> u64 {
        self.changes.get()
    }

    /// Adds an entry, to be called once.
    pub fn park(&self, wait: WaitFor, caller: Rc<dyn LookNow>) -> Waiting<'_> {
        Waiting { list: self, number: self.add(wait, caller) }
    }

    /// Adds an entry that its owner takes off again: see [`leave`](WaitList::leave).
    pub fn add(&self, wait: WaitFor, caller: Rc<dyn LookNow>) -> u64 {
        let number = self.next_number.get();
        self.next_number.set(number + 1);
        self.entries.borrow_mut().push(Entry { number, wait, caller: Some(caller) });
        number
    }

    /// Takes an entry off that was not called.
    pub fn leave(&self, number: u64) {
        let mut entries = self.entries.borrow_mut();
        let Ok(at) = entries.binary_search_by_key(&number, |entry| entry.number) else { return };
        entries[at].caller = None;
        self.left.set(self.left.get() + 1);
        if 2 * self.left.get() >= entries.len() {
            entries.retain(|entry| entry.caller.is_some());
            self.left.set(0);
            let room = entries.len().max(KEPT_MIN);
            if entries.capacity() > 4 * room {
                entries.shrink_to(2 * room);
            }
        }
    }

    /// Waits until it is time to look, which it is at once when anything has changed since `changes`.
    pub async fn wait(&self, changes: u64, wait: WaitFor) {
        if self.changes.get() != changes {
            return;
        }
        let caller = Rc::<TaskCaller>::default();
        let _waiting = self.park(wait, caller.clone());
        caller.called().await;
    }

    /// A batch has come to a queue: calls those whom it concerns.
    pub fn arrived(&self, queue: QueueNumber, batch: &IndexEntry) {
        self.call(|wait| wait.concerns(queue, batch));
    }

    /// Something else has changed, such as the end of a lease or of a queue: calls everybody.
    pub fn look_again(&self) {
        self.call(|_| true);
    }

    fn call(&self, concerns: impl Fn(&WaitFor) -> bool) {
        self.changes.set(self.changes.get() + 1);
        if self.entries.borrow().is_empty() {
            return;
        }
        // Taken out, and put back with its memory: nothing is borrowed while somebody is called.
        let mut entries = self.entries.take();
        self.left.set(0);
        entries.retain(|entry| {
            let Some(caller) = &entry.caller else { return false };
            let is_called = concerns(&entry.wait);
            if is_called {
                caller.look_now();
            }
            !is_called
        });
        let added = self.entries.replace(entries);
        assert!(added.is_empty(), "somebody who was called has come back to the list");
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.list.leave(self.number);
    }
}

impl TaskCaller {
    /// Completes when it has been called.
    pub async fn called(&self) {
        poll_fn(|context| {
            if self.is_called.get() {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl LookNow for TaskCaller {
    fn look_now(&self) {
        self.is_called.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;
    use crate::api::TagFilter;
    use crate::types::{LogPosition, Timestamp};
    use crate::wire::record::{tag_hash, tag_summary_bit};

    #[derive(Default)]
    struct Counted(Cell<u32>);

    impl LookNow for Counted {
        fn look_now(&self) {
            self.0.set(self.0.get() + 1);
        }
    }

    fn batch(offset: u64, tag: &str) -> IndexEntry {
        IndexEntry {
            base_offset: QueueOffset(offset),
            record_count: 1,
            position: LogPosition(8 * offset),
            batch_bytes: 100,
            tag_summary: tag_summary_bit(tag_hash(tag.as_bytes())),
            store_time: Timestamp(0),
        }
    }

    #[test]
    fn an_arrival_calls_those_whom_it_concerns_once() {
        let list = WaitList::default();
        let filter = TagFilter::parse(Some("a"));
        let (tagged, all) = (Selection::of_tags(&filter), TagFilter::default());
        let waits = [
            WaitFor::from(QueueOffset(3)),
            WaitFor::wanted(Some(QueueNumber(1)), &Selection::of_tags(&all)),
            WaitFor::wanted(None, &tagged),
        ];
        let callers: Vec<_> = waits.iter().map(|_| Rc::<Counted>::default()).collect();
        let park = |index: usize| list.park(waits[index], callers[index].clone());
        let _waiting: Vec<_> = (0..3).map(park).collect();
        let counts = || callers.iter().map(|caller| caller.0.get()).collect::<Vec<_>>();
        list.arrived(QueueNumber(0), &batch(2, "b"));
        assert_eq!(counts(), [0, 0, 0], "below the offset, of another queue, with another tag");
        list.arrived(QueueNumber(0), &batch(3, "b"));
        assert_eq!(counts(), [1, 0, 0]);
        list.arrived(QueueNumber(1), &batch(0, "a"));
        assert_eq!(counts(), [1, 1, 1]);
        list.arrived(QueueNumber(1), &batch(9, "a"));
        list.look_again();
        assert_eq!(counts(), [1, 1, 1], "once");
        let _again = park(2);
        list.look_again();
        assert_eq!(counts(), [1, 1, 2], "whatever it waits for");
    }

    #[test]
    fn who_has_left_is_not_called_and_leaves_nothing() {
        let list = WaitList::default();
        let callers: Vec<_> = (0..1000).map(|_| Rc::<Counted>::default()).collect();
        let mut waiting: Vec<_> =
            callers.iter().map(|caller| Some(list.park(WaitFor::default(), caller.clone()))).collect();
        (0..1000).step_by(3).for_each(|at| waiting[at] = None);
        list.look_again();
        let called: Vec<_> = (0..1000).filter(|at| callers[*at].0.get() == 1).collect();
        assert_eq!(called, (0..1000).filter(|at| at % 3 != 0).collect::<Vec<_>>());
        drop(waiting);
        assert!(list.entries.borrow().is_empty());
    }

    #[test]
    fn what_came_since_the_last_look_ends_a_wait_before_it_begins() {
        let list = WaitList::default();
        let before = list.changes();
        list.arrived(QueueNumber(0), &batch(0, ""));
        assert!(block_on(poll_once(list.wait(before, WaitFor::default()))).is_some());
        let mut waiting = Box::pin(list.wait(list.changes(), WaitFor::from(QueueOffset(1))));
        assert!(block_on(poll_once(&mut waiting)).is_none());
        list.arrived(QueueNumber(0), &batch(0, ""));
        assert!(block_on(poll_once(&mut waiting)).is_none(), "it was not concerned");
        list.arrived(QueueNumber(0), &batch(1, ""));
        assert!(block_on(poll_once(&mut waiting)).is_some());
        drop(waiting);
        assert!(list.entries.borrow().is_empty());
    }
}
