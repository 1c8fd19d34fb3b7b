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
//! * Once a quarter of a stretch was taken, those that follow it are read ahead, as far as readers come before they are let go.
//! * A batch is checked when it is first asked for, and then looked at where it lies for as long as its stretch is kept. When
//!   that goes, what readers have begun and not finished is copied to the cache of such batches.
//! * Memory is a part of what clients may cause to be read ahead. A new stretch takes the place of one that its readers have
//!   passed, the longest unused first, or that nobody has used for a while; else there is no room, and the reader reads what it
//!   needs alone. So many readers in many places do not take from one another what they are about to use.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;

use super::batches::{BatchBytes, want};
use crate::broker::shard_broker::Broker;
use crate::disk::Disk;
use crate::index::IndexEntry;
use crate::limits::{READ_BYTES, STRETCHES_BYTES_MAX};
use crate::log::{GAP_BYTES_MAX, STRETCH_BYTES, Stretch, StretchBatch, Want};
use crate::types::{Account, ByteBudget, ClientMemory, LogPosition, MonotonicTime, Reservation, WakerList};

/// So much has to be wanted of a stretch, lately and by all readers together, that it is read as a whole.
const WANTED_BYTES: usize = READ_BYTES / 4;
/// Stretches of which it is known what was read of them alone.
const ALONE_MAX: usize = 256;
/// Once so much of a stretch was taken, those that follow it are read.
const TAKEN_BYTES: usize = READ_BYTES / 4;
/// How many of them: at 2 GB/s they come while one is being looked at. The further readers get ahead of one another the less of
/// what was read for one is there for the others: nobody goes on without them further than this.
const AHEAD: usize = 2;
/// Stretches of which it is kept in mind that what follows them is to be read.
const FOLLOWED_MAX: usize = 4;
/// Batches of a stretch of which it is known that somebody has begun them.
const BEGUN_MAX: usize = 16;
/// What nobody has used for so long is let go.
const KEPT: Duration = Duration::from_secs(1);

/// The stretches of one shard.
///
/// 1. A place is `Reading` exactly as long as there is a [`Reading`] for it.
/// 2. Every place holds a share of `STRETCH_BYTES` of `memory`; there are at most `places_max`.
pub(in crate::broker) struct Stretches<D: Disk> {
    memory: ByteBudget,
    places_max: usize,
    /// By where they begin.
    places: RefCell<BTreeMap<LogPosition, Place<D>>>,
    /// Bytes that were read of stretches without the rest of them, the newest last.
    alone: RefCell<VecDeque<(LogPosition, usize)>>,
    /// After which stretches others are to be read, and how many: the ends of those.
    followed: RefCell<Vec<(LogPosition, usize)>>,
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
    /// Bytes of batches that were asked for.
    taken: usize,
    /// When the first of them was.
    taken_from: Option<MonotonicTime>,
    /// Batches that lie in it wholly and were begun, the newest last.
    begun: Vec<Want>,
    /// Somebody has gone on to the next one since it was used last.
    is_passed: bool,
    is_followed: bool,
}

/// A stretch that was kept, and batches that readers have begun in it.
struct Gone<D: Disk> {
    stretch: Option<Stretch<D>>,
    begun: Vec<Want>,
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

    fn note_begun(&mut self, want: &Want) {
        if self.begun.contains(want) {
            return;
        }
        if self.begun.len() == BEGUN_MAX {
            self.begun.remove(0);
        }
        self.begun.push(*want);
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
            places_max: STRETCHES_BYTES_MAX.min(memory.bytes_max() / 2) / STRETCH_BYTES,
            memory,
            places: RefCell::default(),
            alone: RefCell::default(),
            followed: RefCell::default(),
            changed: WakerList::new(),
        })
    }

    /// Begins to read a stretch that is not there, if there is room for it: maybe that of another one, which is returned.
    fn begin(
        self: &Rc<Self>,
        range: Range<LogPosition>,
        now: MonotonicTime,
    ) -> Option<(Reading<D>, Option<Gone<D>>)> {
        let mut places = self.places.borrow_mut();
        if places.contains_key(&range.start) {
            return None;
        }
        let is_free = places.len() < self.places_max;
        let (share, gone) = match is_free.then(|| self.memory.try_reserve(STRETCH_BYTES)).flatten() {
            Some(share) => (share, None),
            None => {
                let kept = places.iter().filter_map(|(start, place)| Some((*start, place.kept()?)));
                let passed = kept.filter(|(_, kept)| kept.may_go(now));
                let (start, _) = passed.min_by_key(|(_, kept)| kept.used_at)?;
                let Some(Place::Kept(kept)) = places.remove(&start) else { return None };
                let Kept { share, stretch, begun, .. } = kept;
                (share, Some(Gone { stretch, begun }))
            }
        };
        places.insert(range.start, Place::Reading);
        self.alone.borrow_mut().retain(|(start, _)| *start != range.start);
        Some((Reading { stretches: self.clone(), range, share: Some(share) }, gone))
    }

    /// Takes note that a batch is taken of, in the stretches that begin at `first` and after it.
    fn note_taken(&self, first: LogPosition, want: &Want, batch: &StretchBatch, now: MonotonicTime) {
        let mut places = self.places.borrow_mut();
        let end = want.position.advance(u64::from(want.batch_bytes));
        // When the stretch before was begun.
        let mut before = places.range(..first).next_back().and_then(|(_, place)| {
            let kept = place.kept().filter(|kept| kept.end == first)?;
            kept.taken_from
        });
        for (start, place) in places.range_mut(first..end) {
            let Place::Kept(kept) = place else { continue };
            kept.used_at = now;
            kept.is_passed = false;
            match batch {
                StretchBatch::InPlace { is_new, .. } => {
                    kept.note_begun(want);
                    if !is_new {
                        continue;
                    }
                }
                StretchBatch::Copied(_) => {}
            }
            kept.taken_from.get_or_insert(now);
            kept.taken += end.min(kept.end).since(want.position.max(*start)) as usize;
            if kept.taken >= TAKEN_BYTES && !kept.is_followed {
                kept.is_followed = true;
                self.follow(kept.end, before.map_or(AHEAD, |before| reached(now.since(before))));
            }
            before = kept.taken_from;
        }
        pass_before(&mut places, first);
    }

    /// Takes note that a batch was taken to its end, by one of its readers.
    pub fn note_finished(&self, position: LogPosition) {
        let mut places = self.places.borrow_mut();
        if let Some((_, Place::Kept(kept))) = places.range_mut(..=position).next_back() {
            kept.begun.retain(|want| want.position != position);
        }
    }

    /// Has so many stretches from `end` on read ahead by whoever asks next what is to be.
    fn follow(&self, end: LogPosition, count: usize) {
        let mut followed = self.followed.borrow_mut();
        // Nobody has asked for long.
        if followed.len() == FOLLOWED_MAX {
            followed.remove(0);
        }
        followed.push((end, count));
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

/// How many of the stretches that follow are reached before they are let go, where one takes so long.
fn reached(pace: Duration) -> usize {
    (KEPT.as_nanos() / pace.as_nanos().max(1)).min(AHEAD as u128) as usize
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
        let kept = Kept {
            end,
            stretch,
            share,
            used_at,
            taken: 0,
            taken_from: None,
            begun: Vec::new(),
            is_passed: false,
            is_followed: false,
        };
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
    pub(super) fn kept_batch(&self, want: &Want) -> Option<BatchBytes> {
        let (batch, first) = {
            let places = self.stretches.places.borrow();
            let end = want.position.advance(u64::from(want.batch_bytes));
            let (first, place) = places.range(..=want.position).next_back()?;
            let (kept, mut around) = (place.kept()?, Vec::new());
            let stretch = kept.stretch.as_ref()?;
            let mut at = kept.end;
            while at < end {
                let kept = places.get(&at)?.kept()?;
                around.push(kept.stretch.as_ref()?);
                at = kept.end;
            }
            let batch = match around.is_empty() {
                true => self.log.batch_in(&[stretch], want)?,
                false => self.log.batch_in(&[&[stretch], &around[..]].concat(), want)?,
            };
            (batch, *first)
        };
        self.stretches.note_taken(first, want, &batch, self.clock.monotonic());
        Some(match batch {
            StretchBatch::InPlace { batch, .. } => BatchBytes::InStretch(batch),
            StretchBatch::Copied(batch) => BatchBytes::Copied(batch),
        })
    }

    /// Keeps what readers have begun of a stretch that goes.
    fn keep_begun(&self, gone: &Gone<D>) {
        let Some(stretch) = &gone.stretch else { return };
        for want in &gone.begun {
            if let Some(StretchBatch::InPlace { batch, .. }) = self.log.batch_in(&[stretch], want) {
                self.batch_cache.borrow_mut().insert(want.position, self.log.copied_out(&batch));
            }
        }
    }

    /// Begins to read a stretch that is not there, if there is room for it.
    fn begin_stretch(&self, range: Range<LogPosition>) -> Option<Reading<D>> {
        let (reading, gone) = self.stretches.begin(range, self.clock.monotonic())?;
        if let Some(gone) = gone {
            self.keep_begun(&gone);
        }
        Some(reading)
    }

    /// The first batch of `entries`, from stretches that are read for it if they have to be. `None`: it is to be read alone.
    pub(super) async fn batch_of_stretch(&self, entries: &[IndexEntry]) -> Option<BatchBytes> {
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
                false => self.read_place(self.begin_stretch(range.clone())?).await,
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
        while let Some((mut at, count)) = self.stretches.followed.borrow_mut().pop() {
            for _ in 0..count {
                let range = match at < durable_end && !self.log.is_in_tail(at) {
                    true => self.log.stretch_at(at),
                    false => None,
                };
                let Some(range) = range else { break };
                at = range.end;
                readings.extend(self.begin_stretch(range));
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
        let is_old = |place: &Place<D>| place.kept().is_some_and(|kept| now.since(kept.used_at) >= KEPT);
        let places = &self.stretches.places;
        let old: Vec<_> =
            places.borrow().iter().filter(|(_, place)| is_old(place)).map(|(at, _)| *at).collect();
        for start in old {
            let place = places.borrow_mut().remove(&start);
            if let Some(Place::Kept(Kept { stretch, begun, .. })) = place {
                self.keep_begun(&Gone { stretch, begun });
            }
        }
    }
}
