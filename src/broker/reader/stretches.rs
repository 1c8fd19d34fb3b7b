//! Stretches of the log that were read for those who look into batches, kept for whoever reads there next: the queues of a log
//! lie side by side in it, so that what one reader needs is in what was read for another.
//!
//! ```text
//!             taken of          follows         follow
//! log  ... [ passed ] [ passed ] [ in use ] [ read ahead ] [ read ahead ] ...
//! ```
//!
//! * A stretch is read as a whole once a quarter of it is wanted, by whomever: a reader that finds a message here and there
//!   reads those alone.
//! * Once a quarter of a stretch was taken, those that follow it are read ahead.
//! * Memory is a part of what clients may cause to be read ahead. A new stretch takes the place of one that its readers have
//!   passed, the longest unused first, or that nobody has used for a while; else there is no room, and the reader reads what it
//!   needs alone. So many readers in many places do not take from one another what they are about to use.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use super::batches::want;
use crate::broker::shard_broker::Broker;
use crate::disk::Disk;
use crate::index::IndexEntry;
use crate::limits::{READ_BYTES, STRETCHES_BYTES_MAX};
use crate::log::{GAP_BYTES_MAX, Stretch, Want};
use crate::types::{Account, ByteBudget, ClientMemory, LogPosition, MonotonicTime, Reservation, WakerList};

/// So much has to be wanted of a stretch, lately and by all readers together, that it is read as a whole.
const WANTED_BYTES: usize = READ_BYTES / 4;
/// Stretches of which it is known what was read of them alone.
const ALONE_MAX: usize = 256;
/// Once so much of a stretch was taken, those that follow it are read.
const TAKEN_BYTES: usize = READ_BYTES / 4;
/// How many of them: at 2 GB/s they come while one is being looked at.
const AHEAD: usize = 4;
/// What nobody has used for so long is let go.
const KEPT: Duration = Duration::from_secs(1);

/// The stretches of one shard.
///
/// 1. A place is `Reading` exactly as long as there is a [`Reading`] for it.
/// 2. Every place holds a share of `READ_BYTES` of `memory`; there are at most `places_max`.
pub(in crate::broker) struct Stretches<D: Disk> {
    memory: ByteBudget,
    places_max: usize,
    /// By where they begin.
    places: RefCell<BTreeMap<LogPosition, Place<D>>>,
    /// Bytes that were read of stretches without the rest of them, the newest last.
    alone: RefCell<VecDeque<(LogPosition, usize)>>,
    /// After which stretches others are to be read: the ends of those.
    followed: RefCell<Vec<LogPosition>>,
    /// Woken when a read has ended.
    changed: WakerList,
}

enum Place<D: Disk> {
    Reading,
    Kept(Kept<D>),
}

struct Kept<D: Disk> {
    end: LogPosition,
    /// `None`: it could not be read. Whoever needs something of it reads that alone, and is told why that fails.
    stretch: Option<Stretch<D>>,
    share: Reservation,
    used_at: MonotonicTime,
    /// Bytes of batches.
    taken: usize,
    /// Somebody has gone on to the next one since it was used last.
    is_passed: bool,
    is_followed: bool,
}

/// A place that is being read. Dropped before its end, it leaves nothing.
struct Reading<D: Disk> {
    stretches: Rc<Stretches<D>>,
    range: Range<LogPosition>,
    share: Option<Reservation>,
}

impl<D: Disk> Place<D> {
    fn kept(&self) -> Option<&Kept<D>> {
        match self {
            Place::Reading => None,
            Place::Kept(kept) => Some(kept),
        }
    }
}

impl<D: Disk> Kept<D> {
    fn may_go(&self, now: MonotonicTime) -> bool {
        self.is_passed || now.since(self.used_at) >= KEPT
    }

    /// Whether it was read before what ends at `end` became durable.
    fn is_too_short(&self, end: LogPosition) -> bool {
        self.stretch.as_ref().is_some_and(|stretch| stretch.end() < end.min(self.end))
    }
}

impl<D: Disk> Stretches<D> {
    pub fn new(memory: &ClientMemory) -> Rc<Self> {
        let memory = memory.budget(Account::Ahead).clone();
        Rc::new(Self {
            // The other half is for clients that are sent batches as they are.
            places_max: STRETCHES_BYTES_MAX.min(memory.bytes_max() / 2) / READ_BYTES,
            memory,
            places: RefCell::default(),
            alone: RefCell::default(),
            followed: RefCell::default(),
            changed: WakerList::new(),
        })
    }

    /// Begins to read a stretch that is not there, if there is room for it.
    fn begin(self: &Rc<Self>, range: Range<LogPosition>, now: MonotonicTime) -> Option<Reading<D>> {
        let mut places = self.places.borrow_mut();
        if places.contains_key(&range.start) {
            return None;
        }
        let is_free = places.len() < self.places_max;
        let share = is_free.then(|| self.memory.try_reserve(READ_BYTES)).flatten();
        let share = share.or_else(|| {
            let kept = places.iter().filter_map(|(start, place)| Some((*start, place.kept()?)));
            let passed = kept.filter(|(_, kept)| kept.may_go(now));
            let (start, _) = passed.min_by_key(|(_, kept)| kept.used_at)?;
            match places.remove(&start) {
                Some(Place::Kept(kept)) => Some(kept.share),
                _ => None,
            }
        })?;
        places.insert(range.start, Place::Reading);
        self.alone.borrow_mut().retain(|(start, _)| *start != range.start);
        Some(Reading { stretches: self.clone(), range, share: Some(share) })
    }

    /// Takes note that a batch was taken of the stretches that begin at `first` and after it.
    fn note_taken(&self, first: LogPosition, want: &Want, now: MonotonicTime) {
        let mut places = self.places.borrow_mut();
        let end = want.position.advance(u64::from(want.batch_bytes));
        for (start, place) in places.range_mut(first..end) {
            let Place::Kept(kept) = place else { continue };
            kept.used_at = now;
            kept.is_passed = false;
            kept.taken += end.min(kept.end).since(want.position.max(*start)) as usize;
            if kept.taken >= TAKEN_BYTES && !kept.is_followed {
                kept.is_followed = true;
                self.follow(kept.end);
            }
        }
        pass_before(&mut places, first);
    }

    /// Has what begins at `end` read ahead by whoever asks next what is to be.
    fn follow(&self, end: LogPosition) {
        let mut followed = self.followed.borrow_mut();
        // Nobody has asked for long.
        if followed.len() == AHEAD {
            followed.remove(0);
        }
        followed.push(end);
    }

    /// Counts what is to be read of a stretch without the rest of it. Returns what that is, lately and together.
    fn wanted_alone(&self, start: LogPosition, bytes: usize) -> usize {
        let mut alone = self.alone.borrow_mut();
        if let Some((_, before)) = alone.iter_mut().rfind(|(other, _)| *other == start) {
            *before += bytes;
            return *before;
        }
        if alone.len() == ALONE_MAX {
            alone.pop_front();
        }
        alone.push_back((start, bytes));
        bytes
    }
}

/// Takes note that somebody has come to the stretch that begins at `start`: the one before it was passed.
fn pass_before<D: Disk>(places: &mut BTreeMap<LogPosition, Place<D>>, start: LogPosition) {
    if let Some((_, Place::Kept(before))) = places.range_mut(..start).next_back() {
        before.is_passed |= before.end == start;
    }
}

impl<D: Disk> Reading<D> {
    fn end(mut self, stretch: Option<Stretch<D>>, now: MonotonicTime) {
        let share = self.share.take().expect("it ends once");
        let (end, used_at) = (self.range.end, now);
        let kept = Kept { end, stretch, share, used_at, taken: 0, is_passed: false, is_followed: false };
        self.stretches.places.borrow_mut().insert(self.range.start, Place::Kept(kept));
    }
}

impl<D: Disk> Drop for Reading<D> {
    fn drop(&mut self) {
        if self.share.is_some() {
            self.stretches.places.borrow_mut().remove(&self.range.start);
        }
        self.stretches.changed.wake();
    }
}

impl<D: Disk> Broker<D> {
    /// A batch, if it lies in stretches that are kept, unharmed.
    pub(super) fn kept_batch(&self, want: &Want) -> Option<Bytes> {
        let (batch, first) = {
            let places = self.stretches.places.borrow();
            let end = want.position.advance(u64::from(want.batch_bytes));
            let (first, _) = places.range(..=want.position).next_back()?;
            let (mut around, mut at) = (Vec::with_capacity(2), *first);
            while at < end {
                let kept = places.get(&at)?.kept()?;
                around.push(kept.stretch.as_ref()?);
                at = kept.end;
            }
            (self.log.batch_in(&around, want)?, *first)
        };
        self.stretches.note_taken(first, want, self.clock.monotonic());
        Some(batch)
    }

    /// The first batch of `entries`, from stretches that are read for it if they have to be. `None`: it is to be read alone.
    pub(super) async fn batch_of_stretch(&self, entries: &[IndexEntry]) -> Option<Bytes> {
        let want = want(&entries[0]);
        let end = want.position.advance(u64::from(want.batch_bytes));
        if want.batch_bytes as usize > READ_BYTES || !self.is_worth_a_stretch(entries) {
            return None;
        }
        let mut at = want.position;
        while at < end {
            let range = self.log.stretch_at(at)?;
            at = range.end;
            self.keep_stretch(range, end).await?;
        }
        self.kept_batch(&want)
    }

    /// Whether the stretch is there in which `entries` begin, or enough of it is wanted.
    fn is_worth_a_stretch(&self, entries: &[IndexEntry]) -> bool {
        let Some(range) = self.log.stretch_at(entries[0].position) else { return false };
        match self.stretches.places.borrow().get(&range.start) {
            Some(Place::Reading) => return true,
            Some(Place::Kept(kept)) => return kept.stretch.is_some(),
            None => {}
        }
        let mut end = entries[0].position;
        let run = entries.iter().take_while(|entry| {
            let is_near = entry.position >= end && entry.position.since(end) <= GAP_BYTES_MAX;
            end = entry.position.advance(u64::from(entry.batch_bytes));
            is_near && entry.position < range.end
        });
        let last = run.last().map_or(end, |last| last.position.advance(u64::from(last.batch_bytes)));
        let bytes = last.min(range.end).since(entries[0].position) as usize;
        self.stretches.wanted_alone(range.start, bytes) >= WANTED_BYTES
    }

    /// Reads a stretch in which something ends at `end`, unless it is kept; `None` when there is no room for it.
    async fn keep_stretch(&self, range: Range<LogPosition>, end: LogPosition) -> Option<()> {
        let stretches = &self.stretches;
        loop {
            let is_read = {
                let mut places = stretches.places.borrow_mut();
                let is_read = match places.get(&range.start) {
                    Some(Place::Reading) => true,
                    Some(Place::Kept(kept)) if !kept.is_too_short(end) => return Some(()),
                    Some(Place::Kept(_)) => {
                        places.remove(&range.start);
                        false
                    }
                    None => false,
                };
                pass_before(&mut places, range.start);
                is_read
            };
            match is_read {
                true => stretches.changed.changed().await,
                false => self.read_place(stretches.begin(range.clone(), self.clock.monotonic())?).await,
            }
        }
    }

    async fn read_place(&self, reading: Reading<D>) {
        // Why it fails is told to whoever reads alone what is needed of it.
        let stretch = self.log.read_stretch(&reading.range).await.ok().flatten();
        reading.end(stretch, self.clock.monotonic());
    }

    /// Reads what follows the stretches that were being taken of, where there is room: to be run beside the answers.
    pub fn read_stretches_ahead(self: &Rc<Self>) -> Option<impl Future<Output = ()> + 'static> {
        let mut readings = Vec::new();
        let durable_end = self.log.watermarks().durable_end();
        while let Some(mut at) = self.stretches.followed.borrow_mut().pop() {
            for _ in 0..AHEAD {
                let range = match at < durable_end && !self.log.is_in_tail(at) {
                    true => self.log.stretch_at(at),
                    false => None,
                };
                let Some(range) = range else { break };
                at = range.end;
                readings.extend(self.stretches.begin(range, self.clock.monotonic()));
            }
        }
        let broker = self.clone();
        (!readings.is_empty()).then_some(async move {
            join_all(readings.into_iter().map(|reading| broker.read_place(reading))).await;
        })
    }

    /// Lets stretches go that nobody has used for a while. To be called about once a second.
    pub fn let_stretches_go(&self) {
        let now = self.clock.monotonic();
        let is_old = |kept: &Kept<D>| now.since(kept.used_at) >= KEPT;
        self.stretches.places.borrow_mut().retain(|_, place| !place.kept().is_some_and(is_old));
    }
}
