//! Numbers from a seed: xoshiro256++, filled by SplitMix64, both by Blackman and Vigna (public domain).
//!
//! The sequence of a seed never changes, because a seed written down with a bug has to find it again.

use std::ops::{Bound, RangeBounds};

/// A source of numbers. Two of the same seed give the same numbers, on every machine.
#[derive(Clone, Debug)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        };
        Self { state: [next(), next(), next(), next()] }
    }

    /// A source of its own, so that one consumer of numbers does not shift those of another.
    pub fn fork(&mut self) -> Self {
        Self::new(self.number())
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        let state = &mut self.state;
        let result = state[0].wrapping_add(state[3]).rotate_left(23).wrapping_add(state[0]);
        let shifted = state[1] << 17;
        state[2] ^= state[0];
        state[3] ^= state[1];
        state[1] ^= state[2];
        state[0] ^= state[3];
        state[2] ^= shifted;
        state[3] = state[3].rotate_left(45);
        result
    }

    /// A number in `range`, which must not be empty.
    pub fn range(&mut self, range: impl RangeBounds<u64>) -> u64 {
        let first = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&before) => before + 1,
            Bound::Unbounded => 0,
        };
        let last = match range.end_bound() {
            Bound::Included(&last) => last,
            Bound::Excluded(&end) => end.checked_sub(1).expect("a range to pick from is not empty"),
            Bound::Unbounded => u64::MAX,
        };
        assert!(first <= last, "a range to pick from is not empty, this one is {first}..={last}");
        match (last - first).checked_add(1) {
            // The high half of a product: as even as 64 bits allow, without a division.
            Some(count) => first + ((u128::from(self.number()) * u128::from(count)) >> 64) as u64,
            None => self.number(),
        }
    }

    /// An index into something of `length` elements, at least one.
    pub fn index(&mut self, length: usize) -> usize {
        self.range(0..length as u64) as usize
    }

    /// True with this probability, 0 to 1.
    pub fn chance(&mut self, probability: f64) -> bool {
        assert!((0.0..=1.0).contains(&probability), "{probability} is no probability");
        // 53 bits are what a double holds exactly: 0 is never true, 1 always.
        ((self.number() >> 11) as f64) < probability * (1u64 << 53) as f64
    }

    /// One of the choices, of which there is at least one.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.index(choices.len())]
    }

    pub fn fill(&mut self, output: &mut [u8]) {
        for chunk in output.chunks_mut(8) {
            chunk.copy_from_slice(&self.number().to_le_bytes()[..chunk.len()]);
        }
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.fill(&mut bytes);
        bytes
    }

    pub fn shuffle<T>(&mut self, elements: &mut [T]) {
        for end in (2..=elements.len()).rev() {
            elements.swap(self.index(end), end - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_of_a_seed_is_for_ever() {
        let mut random = Random::new(1);
        let numbers = [random.number(), random.number(), random.number()];
        assert_eq!(numbers, [0xcfc5_d07f_6f03_c29b, 0xbf42_4132_963f_e08d, 0x19a3_7d57_57aa_f520]);
    }

    #[test]
    fn seeds_and_forks_give_different_numbers() {
        let mut one = Random::new(1);
        let mut fork = one.fork();
        let mut other = Random::new(2);
        let numbers = [one.number(), fork.number(), other.number()];
        assert!(numbers[0] != numbers[1] && numbers[1] != numbers[2] && numbers[0] != numbers[2]);
    }

    #[test]
    fn a_range_gives_each_of_its_numbers_about_equally_often() {
        let mut random = Random::new(3);
        let mut counts = [0; 5];
        for _ in 0..5_000 {
            counts[random.range(10..=14) as usize - 10] += 1;
        }
        assert!(counts.iter().all(|count| (850..1_150).contains(count)), "{counts:?}");
        assert_eq!(random.range(7..8), 7);
        random.range(..);
    }

    #[test]
    #[should_panic(expected = "not empty")]
    fn an_empty_range_panics() {
        Random::new(4).range(0..0);
    }

    #[test]
    fn chances_hold_what_they_say() {
        let mut random = Random::new(5);
        assert!(!(0..1_000).any(|_| random.chance(0.0)));
        assert!((0..1_000).all(|_| random.chance(1.0)));
        let hits = (0..10_000).filter(|_| random.chance(0.1)).count();
        assert!((850..1_150).contains(&hits), "{hits}");
    }

    #[test]
    fn shuffling_keeps_the_elements() {
        let mut random = Random::new(6);
        let mut elements: Vec<u32> = (0..100).collect();
        random.shuffle(&mut elements);
        assert_ne!(elements, (0..100).collect::<Vec<_>>());
        elements.sort_unstable();
        assert_eq!(elements, (0..100).collect::<Vec<_>>());
        assert_eq!(random.bytes(13).len(), 13);
    }
}
