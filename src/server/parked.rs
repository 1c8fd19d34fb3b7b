//! Calls that wait: an entry each, without a task or a timer of its own.
//!
//! A call that can do nothing but wait is *parked*, until an end. It is looked at once: when somebody calls it, when its end has
//! come, or when its memory is needed. Looking is done by one task of the shard for all of them, which has one timer, and
//! between two ends that are near each other it does not wake. A look does not wait: what cannot be answered at once is carried
//! out elsewhere, or parked again.
//!
//! A call in a task that is to end in time has its *deadline* in the same row, so that it has no timer either.
//!
//! What is parked goes with its connection: who has left is not looked at any more, so nothing is leased to it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use crate::api::Activity;
use crate::broker::LookNow;
use crate::clock::SharedClock;
use crate::limits;
use crate::metrics::{ShardMetrics, Timeline};
use crate::runtime::Executor;
use crate::types::{MonotonicTime, WakerList};

/// Ends come in steps of this: a wait is longer than was asked for by less.
pub(super) const END_STEP: Duration = Duration::from_millis(10);
/// Work between two looks at the executor's rings, and what a look counts for beyond what it has answered.
const YIELD_BYTES: usize = 512 * 1024;
const LOOK_BYTES: usize = 8 * 1024;

/// A call that waits. Dropping it gives back whatever it holds, and takes it off every list that it stands in.
pub(crate) trait ParkedCall {
    /// Takes note that it has waited until `since`. Returns its timeline.
    fn woken(&self, since: MonotonicTime) -> Timeline;

    /// Answers, or has somebody answer. Returns what that weighs, in bytes of work.
    fn look(self: Box<Self>, reason: LookReason) -> usize;
}

/// Why a parked call is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LookReason {
    /// There may be something.
    Called,
    /// It has waited for as long as it was to.
    Over,
    /// Others need its memory, or it is to be asked for anew.
    Cut,
}

/// All parked calls of a shard: when they end, and which ones are to be looked at.
pub(crate) struct ParkedCalls {
    clock: SharedClock,
    metrics: Rc<ShardMetrics>,
    next_number: Cell<u64>,
    ends: RefCell<BTreeMap<(MonotonicTime, u64), End>>,
    /// In the order in which they became due. Some of them may have left since, or have been looked at.
    due: RefCell<VecDeque<Due>>,
    /// When the last of them became due, up to a turn.
    due_since: Cell<MonotonicTime>,
    /// Woken when something is due, and when an end comes before all others.
    changed: WakerList,
}

/// What ends at a time.
enum End {
    /// A wait of this connection.
    Wait(Rc<Parked>),
    Deadline(Rc<Passing>),
}

/// The end of the time that a call has, whatever it does meanwhile. Until it is dropped it stands among the ends of waits.
pub(crate) struct Deadline {
    all: Rc<ParkedCalls>,
    end: MonotonicTime,
    number: u64,
    passing: Rc<Passing>,
}

#[derive(Default)]
struct Passing {
    has_passed: Cell<bool>,
    passed: WakerList,
}

/// The parked calls of one connection.
pub(crate) struct Parked {
    all: Rc<ParkedCalls>,
    calls: RefCell<BTreeMap<u64, Entry>>,
    /// Nobody is there any more to wait for.
    has_left: Cell<bool>,
}

struct Entry {
    end: MonotonicTime,
    call: Box<dyn ParkedCall>,
}

struct Due {
    of: Rc<Parked>,
    number: u64,
    reason: LookReason,
    since: MonotonicTime,
}

/// Where a call is about to be parked.
pub(crate) struct Slot<'a> {
    parked: &'a Rc<Parked>,
    number: u64,
}

/// Calls one parked call, which may stand in several lists: one arrival may call it from each.
struct Caller {
    parked: Rc<Parked>,
    number: u64,
    has_called: Cell<bool>,
}

impl ParkedCalls {
    pub fn new(clock: &SharedClock, metrics: &Rc<ShardMetrics>) -> Rc<Self> {
        Rc::new(Self {
            clock: clock.clone(),
            metrics: metrics.clone(),
            next_number: Cell::new(0),
            ends: RefCell::default(),
            due: RefCell::default(),
            due_since: Cell::new(clock.monotonic()),
            changed: WakerList::new(),
        })
    }

    /// Looks at what is due, for as long as the shard runs.
    pub async fn run(self: Rc<Self>, executor: impl Executor) {
        let mut timer = Timer { clock: self.clock.clone(), until: self.clock.monotonic(), sleep: None };
        let mut bytes = 0;
        loop {
            self.note_ends();
            let (mut looks, mut called_at) = (0, self.due_since.get());
            while let Some(look) = self.next_due() {
                if looks == 0 {
                    called_at = look.since;
                }
                looks += 1;
                let timeline = look.call.woken(look.since);
                bytes += LOOK_BYTES + self.metrics.flight.within(timeline, || look.call.look(look.reason));
                if bytes >= YIELD_BYTES {
                    bytes = 0;
                    executor.yield_to_reactor().await;
                    self.due_since.set(self.clock.monotonic());
                }
            }
            if looks >= limits::WAKE_STORM {
                self.metrics.flight.note(Activity::WakeStorm, called_at, self.clock.monotonic());
            }
            let first = self.first_end();
            futures_lite::future::or(self.changed.changed(), timer.until(first)).await;
        }
    }

    /// Those whose end has come are due.
    fn note_ends(&self) {
        let now = self.clock.monotonic();
        let mut ends = self.ends.borrow_mut();
        let mut due = self.due.borrow_mut();
        while let Some(first) = ends.first_entry().filter(|first| first.key().0 <= now) {
            match first.remove_entry() {
                ((_, number), End::Wait(of)) => {
                    due.push_back(Due { of, number, reason: LookReason::Over, since: now });
                }
                (_, End::Deadline(passing)) => {
                    passing.has_passed.set(true);
                    passing.passed.wake();
                }
            }
        }
    }

    /// A deadline of its own for one call.
    pub fn deadline(self: &Rc<Self>, end: MonotonicTime) -> Deadline {
        let number = self.next_number.replace(self.next_number.get() + 1);
        let (end, passing) = (step_after(end), Rc::<Passing>::default());
        self.add_end(end, number, End::Deadline(passing.clone()));
        Deadline { all: self.clone(), end, number, passing }
    }

    fn add_end(&self, end: MonotonicTime, number: u64, of: End) {
        let is_first = self.first_end().is_none_or(|first| end < first);
        self.ends.borrow_mut().insert((end, number), of);
        if is_first {
            self.changed.wake();
        }
    }

    /// The next call to be looked at, which stands in no list any more.
    fn next_due(&self) -> Option<Look> {
        loop {
            let Due { of, number, reason, since } = self.due.borrow_mut().pop_front()?;
            if let Some(call) = of.take(number) {
                return Some(Look { call, reason, since });
            }
        }
    }

    /// The time, read once for all that becomes due together.
    fn due_now(&self) -> MonotonicTime {
        if self.due.borrow().is_empty() {
            self.due_since.set(self.clock.monotonic());
        }
        self.due_since.get()
    }

    fn first_end(&self) -> Option<MonotonicTime> {
        self.ends.borrow().first_key_value().map(|((end, _), _)| *end)
    }
}

struct Look {
    call: Box<dyn ParkedCall>,
    reason: LookReason,
    since: MonotonicTime,
}

impl Parked {
    pub fn new(all: &Rc<ParkedCalls>) -> Rc<Self> {
        Rc::new(Self { all: all.clone(), calls: RefCell::default(), has_left: Cell::new(false) })
    }

    /// A slot for one more call.
    pub fn slot(self: &Rc<Self>) -> Slot<'_> {
        let next = &self.all.next_number;
        Slot { parked: self, number: next.replace(next.get() + 1) }
    }

    /// All of them are looked at now.
    pub fn cut(self: &Rc<Self>) {
        let calls = self.calls.borrow();
        let since = self.all.due_now();
        let due = |number: &u64| Due { of: self.clone(), number: *number, reason: LookReason::Cut, since };
        self.all.due.borrow_mut().extend(calls.keys().map(due));
        self.all.changed.wake();
    }

    /// Nobody is there any more: all of them are dropped, and so are those that come after.
    pub fn leave(&self) {
        self.has_left.set(true);
        let calls = self.calls.take();
        let mut ends = self.all.ends.borrow_mut();
        calls.iter().for_each(|(number, entry)| drop(ends.remove(&(entry.end, *number))));
    }

    fn take(&self, number: u64) -> Option<Box<dyn ParkedCall>> {
        let Entry { end, call } = self.calls.borrow_mut().remove(&number)?;
        self.all.ends.borrow_mut().remove(&(end, number));
        Some(call)
    }
}

impl Slot<'_> {
    /// Calls what is parked here, once it is.
    pub fn caller(&self) -> Rc<dyn LookNow> {
        Rc::new(Caller { parked: self.parked.clone(), number: self.number, has_called: Cell::new(false) })
    }

    /// Parks a call until `end`. Nothing may have called it before.
    pub fn park(self, end: MonotonicTime, call: Box<dyn ParkedCall>) {
        let Slot { parked, number } = self;
        if parked.has_left.get() {
            return;
        }
        let end = step_after(end);
        parked.calls.borrow_mut().insert(number, Entry { end, call });
        parked.all.add_end(end, number, End::Wait(parked.clone()));
    }
}

impl Deadline {
    /// Completes when it has passed.
    pub async fn passed(&self) {
        while !self.passing.has_passed.get() {
            self.passing.passed.changed().await;
        }
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.all.ends.borrow_mut().remove(&(self.end, self.number));
    }
}

impl LookNow for Caller {
    fn look_now(&self) {
        let Self { parked, number, has_called } = self;
        if has_called.replace(true) {
            return;
        }
        let since = parked.all.due_now();
        parked.all.due.borrow_mut().push_back(Due {
            of: parked.clone(),
            number: *number,
            reason: LookReason::Called,
            since,
        });
        parked.all.changed.wake();
    }
}

fn step_after(time: MonotonicTime) -> MonotonicTime {
    let step = END_STEP.as_nanos() as u64;
    MonotonicTime(time.0.div_ceil(step).saturating_mul(step))
}

/// One sleep that is kept while nothing is to end before it is over: a wait that begins makes no other.
struct Timer {
    clock: SharedClock,
    /// When the sleep is over, if there is one.
    until: MonotonicTime,
    sleep: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl Timer {
    /// Completes at `end` or before it; never without one.
    async fn until(&mut self, end: Option<MonotonicTime>) {
        let Some(end) = end else { return std::future::pending().await };
        if self.sleep.is_none() || self.until > end {
            self.until = end;
            self.sleep = Some(self.clock.sleep(end.since(self.clock.monotonic())));
        }
        if let Some(sleep) = &mut self.sleep {
            sleep.await;
        }
        self.sleep = None;
    }
}
