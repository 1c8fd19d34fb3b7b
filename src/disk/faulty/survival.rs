//! What a loss of power leaves of the changes that were not synced.

use std::collections::BTreeMap;

use crate::disk::pages::{Page, Pages, page_of};
use crate::limits::BLOCK_BYTES;
use crate::testing::Random;

/// The smallest unit that a device writes wholly or not at all.
const SECTOR_BYTES: usize = 512;

/// How the process comes to its end before a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// SIGKILL: all that was written stays, though not durable by it. Writes that were in flight may be torn.
    ProcessKill,
    PowerLoss(Survival),
}

/// Which unsynced changes survive a loss of power. What was synced always does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    Nothing,
    /// All, and writes in flight as well: the device was quicker than its answers.
    Everything,
    /// All before some moment, none after it; the write at that moment is torn.
    Prefix,
    /// Each write wholly or not at all, whatever their order.
    Whole,
    /// Each write wholly, not at all, or in part.
    Torn(TearUnit),
    /// Any of the above, by the seed.
    Mixed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TearUnit {
    /// 512 bytes.
    Sector,
    /// 4 KiB.
    Block,
}

/// Number of a change in the order in which changes took effect, over the whole disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ChangeNumber(pub(super) u64);

/// Number of a write call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WriteId(pub(super) u64);

/// What becomes of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Lost,
    Whole,
    Torn(TearUnit),
}

/// Decides about one loss of power. The seed decides; the same questions in the same order get the same answers.
pub(super) struct Fates {
    survival: Survival,
    random: Random,
    /// For `Prefix`: the change that was under way.
    moment: ChangeNumber,
    /// The pieces of a write share its fate.
    writes: BTreeMap<WriteId, Fate>,
}

impl ChangeNumber {
    /// What was in flight: after all that has happened.
    pub(super) const IN_FLIGHT: ChangeNumber = ChangeNumber(u64::MAX - 1);
    const NEVER: ChangeNumber = ChangeNumber(u64::MAX);
}

impl Restart {
    /// Every way to end, for sweeps.
    pub const ALL: [Restart; 7] = [
        Restart::ProcessKill,
        Restart::PowerLoss(Survival::Nothing),
        Restart::PowerLoss(Survival::Everything),
        Restart::PowerLoss(Survival::Prefix),
        Restart::PowerLoss(Survival::Whole),
        Restart::PowerLoss(Survival::Torn(TearUnit::Sector)),
        Restart::PowerLoss(Survival::Torn(TearUnit::Block)),
    ];
}

impl TearUnit {
    fn bytes(self) -> usize {
        match self {
            TearUnit::Sector => SECTOR_BYTES,
            TearUnit::Block => BLOCK_BYTES,
        }
    }

    fn any(random: &mut Random) -> Self {
        *random.pick(&[TearUnit::Sector, TearUnit::Block])
    }
}

impl Fate {
    pub(super) fn any(random: &mut Random) -> Self {
        match random.index(4) {
            0 => Fate::Lost,
            1 => Fate::Whole,
            _ => Fate::Torn(TearUnit::any(random)),
        }
    }
}

impl Fates {
    /// `outstanding` are the changes that are not durable, in any order.
    pub(super) fn new(survival: Survival, mut random: Random, mut outstanding: Vec<ChangeNumber>) -> Self {
        let survival = match survival {
            Survival::Mixed => *random.pick(&[
                Survival::Nothing,
                Survival::Everything,
                Survival::Prefix,
                Survival::Whole,
                Survival::Torn(TearUnit::Sector),
                Survival::Torn(TearUnit::Block),
            ]),
            given => given,
        };
        outstanding.sort_unstable();
        outstanding.dedup();
        outstanding.push(ChangeNumber::NEVER);
        let moment = *random.pick(&outstanding);
        Self { survival, random, moment, writes: BTreeMap::new() }
    }

    pub(super) fn of_write(&mut self, number: ChangeNumber, write: WriteId) -> Fate {
        match self.survival {
            Survival::Nothing => Fate::Lost,
            Survival::Everything => Fate::Whole,
            Survival::Prefix if number < self.moment => Fate::Whole,
            Survival::Prefix if number == self.moment => Fate::Torn(TearUnit::any(&mut self.random)),
            Survival::Prefix => Fate::Lost,
            Survival::Whole | Survival::Mixed => {
                self.of_whole_write(write, |random| if random.chance(0.5) { Fate::Whole } else { Fate::Lost })
            }
            Survival::Torn(unit) => self.of_whole_write(write, |random| {
                *random.pick(&[Fate::Lost, Fate::Whole, Fate::Torn(unit), Fate::Torn(unit)])
            }),
        }
    }

    /// Whether a change of a file's size survives.
    pub(super) fn of_size(&mut self, number: ChangeNumber) -> bool {
        match self.survival {
            Survival::Nothing => false,
            Survival::Everything => true,
            Survival::Prefix => number <= self.moment,
            Survival::Whole | Survival::Torn(_) | Survival::Mixed => self.random.chance(0.5),
        }
    }

    /// How many of the changes of one directory survive: those before one that is lost are kept, as a journal keeps
    /// them.
    pub(super) fn of_directory(&mut self, numbers: &[ChangeNumber]) -> usize {
        match self.survival {
            Survival::Nothing => 0,
            Survival::Everything => numbers.len(),
            Survival::Prefix => numbers.partition_point(|&number| number < self.moment),
            Survival::Whole | Survival::Torn(_) | Survival::Mixed => self.random.index(numbers.len() + 1),
        }
    }

    pub(super) fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    fn of_whole_write(&mut self, write: WriteId, decide: impl FnOnce(&mut Random) -> Fate) -> Fate {
        *self.writes.entry(write).or_insert_with(|| decide(&mut self.random))
    }
}

/// Puts a seeded part of `new` over `image`, from page `first` on, in whole units.
pub(super) fn tear(image: &mut Pages, first: u64, new: &[Option<Page>], unit: TearUnit, random: &mut Random) {
    let units_per_page = BLOCK_BYTES / unit.bytes();
    let mut survives = surviving_units(new.len() * units_per_page, random);
    for (index, new_page) in (first..).zip(new) {
        let kept: Vec<bool> = survives.by_ref().take(units_per_page).collect();
        if kept.iter().all(|&kept| kept) {
            image.set_page(index, new_page.clone());
        } else if kept.contains(&true) {
            let mut mixed = image.page(index).map_or([0; BLOCK_BYTES], |page| **page);
            for (unit_index, _) in kept.iter().enumerate().filter(|(_, kept)| **kept) {
                let range = unit_index * unit.bytes()..(unit_index + 1) * unit.bytes();
                match new_page {
                    Some(page) => mixed[range.clone()].copy_from_slice(&page[range]),
                    None => mixed[range].fill(0),
                }
            }
            image.set_page(index, page_of(&mixed));
        }
    }
}

/// Which of the units of a torn write survive. Beside coins for each: the patterns that find the most mistakes, a
/// beginning, a single hole, and a single survivor.
fn surviving_units(count: usize, random: &mut Random) -> impl Iterator<Item = bool> + use<> {
    let pattern = random.index(4);
    let chosen = random.index(count.max(1));
    let mut coins = random.fork();
    (0..count).map(move |unit| match pattern {
        0 => unit < chosen,
        1 => unit != chosen,
        2 => unit == chosen,
        _ => coins.chance(0.5),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::pages::cut;

    /// Tears a write of four blocks of 2 over blocks of 1; which units of the size survived.
    fn torn(unit: TearUnit, seed: u64) -> Vec<bool> {
        let mut image = Pages::default();
        image.write(0, &cut(&[1; 6 * BLOCK_BYTES]));
        let new = cut(&[2; 4 * BLOCK_BYTES]);
        tear(&mut image, 1, &new, unit, &mut Random::new(seed));
        let bytes = image.read(0, 6 * BLOCK_BYTES).expect("inside the file");
        let (before, rest) = bytes.split_at(BLOCK_BYTES);
        let (range, after) = rest.split_at(4 * BLOCK_BYTES);
        assert!(before.iter().chain(after).all(|&byte| byte == 1), "only the range of the write changes");
        let survived = |unit: &[u8]| {
            assert!(unit.iter().all(|byte| *byte == unit[0]), "a unit is old or new, never both");
            unit[0] == 2
        };
        range.chunks(unit.bytes()).map(survived).collect()
    }

    #[test]
    fn tears_follow_units_and_reach_every_pattern() {
        for (unit, count) in [(TearUnit::Sector, 32), (TearUnit::Block, 4)] {
            let outcomes: Vec<_> = (0..200).map(|seed| torn(unit, seed)).collect();
            let survivors = |outcome: &Vec<bool>| outcome.iter().filter(|survived| **survived).count();
            assert!(outcomes.iter().all(|outcome| outcome.len() == count));
            assert!(outcomes.iter().any(|outcome| survivors(outcome) == 1));
            assert!(outcomes.iter().any(|outcome| survivors(outcome) == count - 1));
            let beginning = |outcome: &Vec<bool>| outcome.is_sorted_by(|left, right| left >= right);
            assert!(outcomes.iter().any(|outcome| beginning(outcome) && survivors(outcome) == count / 2));
        }
    }

    #[test]
    fn a_torn_write_of_zeros_erases_units() {
        let mut image = Pages::default();
        image.write(0, &cut(&[1; BLOCK_BYTES]));
        tear(&mut image, 0, &[None], TearUnit::Sector, &mut Random::new(2));
        let bytes = image.read(0, BLOCK_BYTES).expect("inside the file");
        assert!(bytes.contains(&0) && bytes.contains(&1));
    }

    #[test]
    fn a_prefix_keeps_all_before_its_moment() {
        let numbers: Vec<_> = [3, 5, 8, 13].map(ChangeNumber).to_vec();
        let mut lengths: Vec<_> = (0..100)
            .map(|seed| {
                let mut fates = Fates::new(Survival::Prefix, Random::new(seed), numbers.clone());
                let kept = fates.of_directory(&numbers);
                let whole = |(index, number): (usize, &ChangeNumber)| {
                    (fates.of_write(*number, WriteId(1)) == Fate::Whole) == (index < kept)
                };
                assert!(numbers.iter().enumerate().all(whole));
                kept
            })
            .collect();
        lengths.sort_unstable();
        lengths.dedup();
        assert_eq!(lengths, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn the_pieces_of_a_write_share_its_fate() {
        for seed in 0..50 {
            let mut fates = Fates::new(Survival::Whole, Random::new(seed), Vec::new());
            let first = fates.of_write(ChangeNumber(1), WriteId(7));
            fates.of_write(ChangeNumber(2), WriteId(8));
            assert_eq!(fates.of_write(ChangeNumber(3), WriteId(7)), first);
        }
    }
}
