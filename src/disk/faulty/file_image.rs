//! One file on a faulty disk: what is read, what survives for certain, and the changes between the two.
//!
//! 1. `written` is what a faultless disk would read: every answered write, and the landed pieces of those in flight.
//! 2. `durable` is `written` as of the last sync. Changes later than that are in `unsynced`, oldest first, and those
//!    of one write carry its number.
//! 3. A sync makes durable what had been answered when it was called, and nothing that was in flight then.
//! 4. `damage` lies over `written`: what the device gives instead. Taking it away shows the clean bytes again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use super::survival::{ChangeNumber, Fate, Fates, WriteId, tear};
use crate::disk::pages::{Page, Pages, page_of};
use crate::limits::BLOCK_BYTES;
use crate::testing::Random;

const BLOCK: u64 = BLOCK_BYTES as u64;

#[derive(Clone, Default)]
pub(super) struct FileImage {
    written: Pages,
    durable: Pages,
    unsynced: Vec<Change>,
    in_flight: Vec<Flight>,
    /// By page; `None` is a page of zeros.
    damage: BTreeMap<u64, Option<Page>>,
    /// Pages that the device can not read. Writing one heals it.
    unreadable: BTreeSet<u64>,
    /// Handles that were not closed.
    pub(super) open_count: usize,
}

/// A change that is in `written` and not yet in `durable`.
#[derive(Clone)]
struct Change {
    number: ChangeNumber,
    /// The call that it is a part of; `None` for changes that take effect at once.
    write: Option<WriteId>,
    what: What,
}

#[derive(Clone)]
enum What {
    /// The size is at least this. Not an exact size: writes that overlap in time extend a file in any order.
    Grow(u64),
    Cut(u64),
    Data {
        first: u64,
        pages: Rc<[Option<Page>]>,
    },
}

/// A write that was called and not answered.
#[derive(Clone)]
struct Flight {
    write: WriteId,
    first: u64,
    pages: Rc<[Option<Page>]>,
    /// Pages that are in `written` already.
    landed: usize,
}

/// What a sync covers: fixed when it is called.
pub(super) struct SyncPoint {
    end: ChangeNumber,
    in_flight: Vec<WriteId>,
}

/// Why a read fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadFault {
    OutOfRange,
    Unreadable,
}

impl FileImage {
    pub(super) fn bytes(&self) -> u64 {
        self.written.bytes()
    }

    /// The bytes as the device gives them.
    pub(super) fn read(&self, position: u64, bytes: usize) -> Result<Bytes, ReadFault> {
        let clean = self.written.read(position, bytes).ok_or(ReadFault::OutOfRange)?;
        let pages = position / BLOCK..(position + bytes as u64).div_ceil(BLOCK);
        if self.unreadable.range(pages.clone()).next().is_some() {
            return Err(ReadFault::Unreadable);
        }
        if self.damage.range(pages.clone()).next().is_none() {
            return Ok(clean);
        }
        let mut damaged = BytesMut::from(&clean[..]);
        for (index, page) in self.damage.range(pages.clone()) {
            let start = ((index - pages.start) * BLOCK) as usize;
            let end = bytes.min(start + BLOCK_BYTES);
            match page {
                Some(page) => damaged[start..end].copy_from_slice(&page[..end - start]),
                None => damaged[start..end].fill(0),
            }
        }
        Ok(damaged.freeze())
    }

    pub(super) fn resize(&mut self, bytes: u64, number: ChangeNumber) {
        let what = if bytes >= self.written.bytes() { What::Grow(bytes) } else { What::Cut(bytes) };
        self.written.set_bytes(bytes);
        self.unsynced.push(Change { number, write: None, what });
        let end = bytes.div_ceil(BLOCK);
        self.damage.split_off(&end);
        self.unreadable.split_off(&end);
    }

    /// Registers a write; nothing has landed yet.
    pub(super) fn start_write(&mut self, write: WriteId, position: u64, pages: Rc<[Option<Page>]>) {
        let first = position / BLOCK;
        let range = first..first + pages.len() as u64;
        let overlaps =
            |flight: &&Flight| flight.range().start < range.end && range.start < flight.range().end;
        if let Some(other) = self.in_flight.iter().find(overlaps) {
            panic!(
                "a write of blocks {range:?} overlaps one of blocks {:?} that is in flight",
                other.range()
            );
        }
        self.in_flight.push(Flight { write, first, pages, landed: 0 });
    }

    /// By how much the file would grow if `count` more pages of the write landed.
    pub(super) fn growth(&self, write: WriteId, count: usize) -> u64 {
        let flight = self.flight(write);
        let end = (flight.first + (flight.landed + count) as u64) * BLOCK;
        end.saturating_sub(self.written.bytes())
    }

    /// The next `count` pages of the write are in the file.
    pub(super) fn land(&mut self, write: WriteId, count: usize, number: ChangeNumber) {
        let flight =
            self.in_flight.iter_mut().find(|flight| flight.write == write).expect("a write in flight");
        let landing = flight.landed..flight.landed + count;
        let first = flight.first + landing.start as u64;
        let pages: Rc<[_]> = match landing.len() == flight.pages.len() {
            true => flight.pages.clone(),
            false => flight.pages[landing.clone()].into(),
        };
        flight.landed = landing.end;
        self.put(Some(write), number, first, pages);
    }

    /// The write is answered.
    pub(super) fn end_write(&mut self, write: WriteId) {
        self.in_flight.retain(|flight| flight.write != write);
    }

    /// The write fails: a seeded part of what had not landed lands.
    pub(super) fn fail_write(&mut self, write: WriteId, number: ChangeNumber, random: &mut Random) {
        let flight = self.flight(write).clone();
        self.end_write(write);
        self.settle(&flight, number, random);
    }

    /// To be called when a sync begins, with the number of the next change.
    pub(super) fn sync_point(&self, end: ChangeNumber) -> SyncPoint {
        SyncPoint { end, in_flight: self.in_flight.iter().map(|flight| flight.write).collect() }
    }

    /// What the sync covers is durable.
    pub(super) fn sync(&mut self, point: &SyncPoint) {
        for change in self.take_covered(point) {
            apply(&mut self.durable, &change.what);
        }
    }

    /// A seeded part of what the sync covers is durable. The rest stays readable and is never tried again: so does the
    /// kernel, which marks pages clean after a failed write-back.
    pub(super) fn fail_sync(&mut self, point: &SyncPoint, random: &mut Random) {
        let mut size = self.durable.bytes();
        for change in self.take_covered(point) {
            match (&change.what, Fate::any(random)) {
                (_, Fate::Lost) | (What::Grow(_) | What::Cut(_), Fate::Torn(_)) => {}
                (what, fate) => survive(&mut self.durable, &mut size, what, fate, random),
            }
        }
        self.durable.set_bytes(size);
    }

    /// Numbers of the changes that are not durable.
    pub(super) fn outstanding(&self) -> impl Iterator<Item = ChangeNumber> {
        let in_flight = self.in_flight.iter().map(|_| ChangeNumber::IN_FLIGHT);
        self.unsynced.iter().map(|change| change.number).chain(in_flight)
    }

    /// The file after the power has come back.
    pub(super) fn after_power_loss(&self, fates: &mut Fates) -> Self {
        let mut image = self.durable.clone();
        let mut size = image.bytes();
        let unlanded = self.in_flight.iter().flat_map(Flight::unlanded);
        for change in self.unsynced.iter().cloned().chain(unlanded) {
            let fate = match (&change.what, change.write) {
                (What::Data { .. }, Some(write)) => fates.of_write(change.number, write),
                _ if fates.of_size(change.number) => Fate::Whole,
                _ => Fate::Lost,
            };
            survive(&mut image, &mut size, &change.what, fate, fates.random());
        }
        image.set_bytes(size);
        Self {
            written: image.clone(),
            durable: image,
            damage: self.damage.clone(),
            unreadable: self.unreadable.clone(),
            ..Self::default()
        }
    }

    /// The file after the process has died: as it was read, with writes in flight settled.
    pub(super) fn after_kill(&self, number: ChangeNumber, random: &mut Random) -> Self {
        let mut image = Self { in_flight: Vec::new(), open_count: 0, ..self.clone() };
        self.in_flight.iter().for_each(|flight| image.settle(flight, number, random));
        image
    }

    /// The bytes without damage.
    pub(super) fn clean(&self) -> &Pages {
        &self.written
    }

    /// The bytes that survive any loss of power.
    pub(super) fn durable(&self) -> &Pages {
        &self.durable
    }

    /// The pages as the device gives them; pages beyond the end are zeros.
    pub(super) fn visible_pages(&self, pages: Range<u64>) -> Vec<Option<Page>> {
        let visible = |index: u64| match self.damage.get(&index) {
            Some(damaged) => damaged.clone(),
            None => self.written.page(index).cloned(),
        };
        pages.map(visible).collect()
    }

    /// The device gives `pages` from page `first` on, whatever was written.
    pub(super) fn put_damage(&mut self, first: u64, pages: Vec<Option<Page>>) {
        self.damage.extend((first..).zip(pages));
    }

    pub(super) fn flip_bit(&mut self, byte: u64, bit: u8) {
        assert!(byte < self.bytes(), "byte {byte} is beyond the end of the file, {}", self.bytes());
        assert!(bit < 8, "a byte has no bit {bit}");
        let index = byte / BLOCK;
        let page = self.visible_pages(index..index + 1).remove(0);
        let mut contents = page.map_or([0; BLOCK_BYTES], |page| *page);
        contents[(byte % BLOCK) as usize] ^= 1 << bit;
        self.damage.insert(index, page_of(&contents));
    }

    /// Changes the size at rest: durably.
    pub(super) fn set_size_at_rest(&mut self, bytes: u64) {
        self.written.set_bytes(bytes);
        self.settle_at_rest();
    }

    /// Everything that was written is durable, and no more.
    fn settle_at_rest(&mut self) {
        self.durable = self.written.clone();
        self.unsynced.clear();
        let end = self.written.bytes().div_ceil(BLOCK);
        self.damage.split_off(&end);
        self.unreadable.split_off(&end);
    }

    /// Has the contents of the other one from now on, durably.
    pub(super) fn take_contents(&mut self, other: &FileImage) {
        self.written = other.written.clone();
        self.damage = other.damage.clone();
        self.unreadable = other.unreadable.clone();
        self.settle_at_rest();
    }

    pub(super) fn zero(&mut self, bytes: Range<u64>) {
        let pages = bytes.start / BLOCK..bytes.end.div_ceil(BLOCK).min(self.written.bytes().div_ceil(BLOCK));
        self.damage.extend(pages.map(|page| (page, None)));
    }

    pub(super) fn fail_reads(&mut self, bytes: Range<u64>) {
        self.unreadable.extend(bytes.start / BLOCK..bytes.end.div_ceil(BLOCK));
    }

    pub(super) fn damaged_blocks(&self) -> impl Iterator<Item = u64> {
        let damaged = self.damage.iter().filter(|(index, page)| page.as_ref() != self.written.page(**index));
        damaged.map(|(index, _)| index * BLOCK)
    }

    pub(super) fn lift_damage(&mut self) {
        self.damage.clear();
        self.unreadable.clear();
    }

    fn flight(&self, write: WriteId) -> &Flight {
        self.in_flight.iter().find(|flight| flight.write == write).expect("a write in flight")
    }

    fn put(&mut self, write: Option<WriteId>, number: ChangeNumber, first: u64, pages: Rc<[Option<Page>]>) {
        if pages.is_empty() {
            return;
        }
        let end = first + pages.len() as u64;
        if end * BLOCK > self.written.bytes() {
            self.unsynced.push(Change { number, write, what: What::Grow(end * BLOCK) });
        }
        let what = What::Data { first, pages };
        apply(&mut self.written, &what);
        self.unsynced.push(Change { number, write, what });
        if !self.damage.is_empty() || !self.unreadable.is_empty() {
            self.damage.retain(|index, _| !(first..end).contains(index));
            self.unreadable.retain(|index| !(first..end).contains(index));
        }
    }

    /// Ends a write that was not answered: the rest of it lands, or not, or in part.
    fn settle(&mut self, flight: &Flight, number: ChangeNumber, random: &mut Random) {
        let first = flight.first + flight.landed as u64;
        let rest = &flight.pages[flight.landed..];
        match Fate::any(random) {
            Fate::Lost => {}
            Fate::Whole => self.put(Some(flight.write), number, first, rest.into()),
            Fate::Torn(unit) => {
                let mut image = self.written.clone();
                tear(&mut image, first, rest, unit, random);
                let end = (first + rest.len() as u64).min(image.bytes().div_ceil(BLOCK));
                let torn = (first..end).map(|index| image.page(index).cloned()).collect();
                self.put(Some(flight.write), number, first, torn);
            }
        }
    }

    /// Takes the changes that a sync covers out of `unsynced` (invariant 3).
    fn take_covered(&mut self, point: &SyncPoint) -> Vec<Change> {
        let covers = |change: &mut Change| {
            let in_flight = change.write.is_some_and(|write| point.in_flight.contains(&write));
            change.number < point.end && !in_flight
        };
        self.unsynced.extract_if(.., covers).collect()
    }
}

impl Flight {
    fn range(&self) -> Range<u64> {
        self.first..self.first + self.pages.len() as u64
    }

    /// What is still to land, as changes to come.
    fn unlanded(&self) -> [Change; 2] {
        let (number, write) = (ChangeNumber::IN_FLIGHT, Some(self.write));
        let data =
            What::Data { first: self.first + self.landed as u64, pages: self.pages[self.landed..].into() };
        [
            Change { number, write, what: What::Grow(self.range().end * BLOCK) },
            Change { number, write, what: data },
        ]
    }
}

/// Makes a change in full.
fn apply(image: &mut Pages, what: &What) {
    match what {
        What::Grow(bytes) => image.set_bytes(image.bytes().max(*bytes)),
        What::Cut(bytes) => image.set_bytes(*bytes),
        What::Data { first, pages } => {
            (*first..).zip(pages.iter()).for_each(|(index, page)| image.set_page(index, page.clone()));
        }
    }
}

/// Makes a change as far as it survives. Data may survive without the size that it needs: it is put into `image`, and
/// `size` says where the file ends when all changes are made.
fn survive(image: &mut Pages, size: &mut u64, what: &What, fate: Fate, random: &mut Random) {
    match (what, fate) {
        (_, Fate::Lost) => {}
        (What::Grow(bytes), _) => *size = (*size).max(*bytes),
        (What::Cut(bytes), _) => {
            *size = *bytes;
            image.set_bytes(image.bytes().min(*bytes));
        }
        (What::Data { .. }, Fate::Whole) => apply(image, what),
        (What::Data { first, pages }, Fate::Torn(unit)) => tear(image, *first, pages, unit, random),
    }
}

#[cfg(test)]
mod tests {
    use super::super::survival::{Survival, TearUnit};
    use super::*;
    use crate::disk::pages::cut;

    /// A file of four durable blocks of 1, and a number for the next change.
    fn durable_ones() -> FileImage {
        let mut file = FileImage::default();
        write(&mut file, 1, 0, &[1; 4 * BLOCK_BYTES]);
        file.sync(&file.sync_point(ChangeNumber(2)));
        assert_eq!(file.outstanding().count(), 0);
        file
    }

    fn write(file: &mut FileImage, number: u64, position: u64, bytes: &[u8]) {
        file.start_write(WriteId(number), position, cut(bytes));
        file.land(WriteId(number), bytes.len() / BLOCK_BYTES, ChangeNumber(number));
        file.end_write(WriteId(number));
    }

    fn after(file: &FileImage, survival: Survival, seed: u64) -> Vec<u8> {
        let mut fates = Fates::new(survival, Random::new(seed), file.outstanding().collect());
        let file = file.after_power_loss(&mut fates);
        file.read(0, file.bytes() as usize).expect("inside the file").to_vec()
    }

    #[test]
    fn a_sync_covers_what_was_answered_before_it_only() {
        let mut file = durable_ones();
        file.start_write(WriteId(10), 0, cut(&[2; 2 * BLOCK_BYTES]));
        file.land(WriteId(10), 1, ChangeNumber(10));
        write(&mut file, 11, 2 * BLOCK, &[3; BLOCK_BYTES]);
        let point = file.sync_point(ChangeNumber(12));
        file.land(WriteId(10), 1, ChangeNumber(12));
        file.end_write(WriteId(10));
        write(&mut file, 13, 3 * BLOCK, &[4; BLOCK_BYTES]);
        file.sync(&point);
        let left = after(&file, Survival::Nothing, 1);
        let firsts: Vec<_> = left.chunks(BLOCK_BYTES).map(|block| block[0]).collect();
        assert_eq!(firsts, [1, 1, 3, 1]);
    }

    #[test]
    fn size_and_data_of_an_unsynced_extension_are_lost_apart() {
        let mut file = durable_ones();
        write(&mut file, 10, 4 * BLOCK, &[2; BLOCK_BYTES]);
        let outcomes: BTreeSet<_> =
            (0..50).map(|seed| after(&file, Survival::Whole, seed)[3 * BLOCK_BYTES..].to_vec()).collect();
        let blocks = |last: &[u8]| [&[1; BLOCK_BYTES], last].concat();
        assert_eq!(
            outcomes,
            BTreeSet::from([blocks(&[]), blocks(&[0; BLOCK_BYTES]), blocks(&[2; BLOCK_BYTES])])
        );
    }

    #[test]
    fn extensions_that_overlap_in_time_never_shrink_the_file() {
        let mut file = FileImage::default();
        file.start_write(WriteId(1), 0, cut(&[1; BLOCK_BYTES]));
        file.land(WriteId(1), 1, ChangeNumber(1));
        write(&mut file, 2, BLOCK, &[2; BLOCK_BYTES]);
        file.sync(&file.sync_point(ChangeNumber(3)));
        file.end_write(WriteId(1));
        file.sync(&file.sync_point(ChangeNumber(3)));
        assert_eq!(file.durable().bytes(), 2 * BLOCK);
    }

    #[test]
    fn a_failed_sync_leaves_what_no_later_sync_makes_durable() {
        let lost = |seed| {
            let mut file = durable_ones();
            write(&mut file, 10, 0, &[2; BLOCK_BYTES]);
            file.fail_sync(&file.sync_point(ChangeNumber(11)), &mut Random::new(seed));
            assert_eq!(file.read(0, 1).as_deref(), Ok(&[2][..]), "still readable");
            file.sync(&file.sync_point(ChangeNumber(11)));
            after(&file, Survival::Everything, 1)[..BLOCK_BYTES].contains(&1)
        };
        let losses = (0..100).filter(|&seed| lost(seed)).count();
        assert!((30..95).contains(&losses), "{losses} of 100");
    }

    #[test]
    fn damage_hides_clean_bytes_until_lifted_or_overwritten() {
        let mut file = durable_ones();
        file.flip_bit(BLOCK + 5, 7);
        file.fail_reads(2 * BLOCK..2 * BLOCK + 1);
        assert_eq!(file.read(BLOCK, BLOCK_BYTES).expect("inside the file")[5], 0x81);
        assert_eq!(file.read(2 * BLOCK, BLOCK_BYTES), Err(ReadFault::Unreadable));
        assert_eq!(file.damaged_blocks().collect::<Vec<_>>(), [BLOCK]);
        let mut lifted = file.clone();
        lifted.lift_damage();
        assert_eq!(lifted.read(0, 4 * BLOCK_BYTES).as_deref(), Ok(&[1; 4 * BLOCK_BYTES][..]));
        write(&mut file, 10, BLOCK, &[3; 2 * BLOCK_BYTES]);
        assert_eq!(file.read(BLOCK, 2 * BLOCK_BYTES).as_deref(), Ok(&[3; 2 * BLOCK_BYTES][..]));
    }

    #[test]
    fn a_killed_write_lands_in_part_and_stays_unsynced() {
        let mut file = durable_ones();
        file.start_write(WriteId(10), 0, cut(&[2; 4 * BLOCK_BYTES]));
        file.land(WriteId(10), 1, ChangeNumber(10));
        let twos: BTreeSet<_> = (0..100)
            .map(|seed| {
                let killed = file.after_kill(ChangeNumber(11), &mut Random::new(seed));
                assert!(after(&killed, Survival::Nothing, seed).iter().all(|&byte| byte == 1));
                let bytes = killed.read(0, 4 * BLOCK_BYTES).expect("inside the file");
                assert!(bytes[..BLOCK_BYTES].iter().all(|&byte| byte == 2), "what has landed stays");
                bytes.iter().filter(|&&byte| byte == 2).count()
            })
            .collect();
        assert!(
            twos.len() > 5 && twos.contains(&BLOCK_BYTES) && twos.contains(&(4 * BLOCK_BYTES)),
            "{twos:?}"
        );
    }

    #[test]
    fn torn_writes_are_torn_at_their_unit() {
        let mut file = durable_ones();
        write(&mut file, 10, 0, &[2; 4 * BLOCK_BYTES]);
        for (unit, bytes) in [(TearUnit::Sector, 512), (TearUnit::Block, BLOCK_BYTES)] {
            let outcomes: Vec<_> = (0..50).map(|seed| after(&file, Survival::Torn(unit), seed)).collect();
            let uniform = |outcome: &Vec<u8>| {
                outcome.chunks(bytes).all(|unit| unit.iter().all(|byte| *byte == unit[0]))
            };
            assert!(outcomes.iter().all(uniform));
            assert!(outcomes.iter().any(|outcome| outcome.contains(&1) && outcome.contains(&2)));
        }
    }

    #[test]
    #[should_panic(expected = "overlaps one of blocks 0..2")]
    fn writes_that_overlap_in_range_and_time_panic() {
        let mut file = FileImage::default();
        file.start_write(WriteId(1), 0, cut(&[1; 2 * BLOCK_BYTES]));
        file.start_write(WriteId(2), BLOCK, cut(&[1; BLOCK_BYTES]));
    }
}
