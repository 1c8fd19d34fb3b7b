//! How much of a table that all clients share one of them may take: no client can take what the others need.

use crate::limits;

/// Memory of a shard, as of now.
#[derive(Clone, Copy, Debug)]
pub(super) struct SharedBytes {
    pub bytes_max: usize,
    /// Of all clients together.
    pub used: usize,
}

impl SharedBytes {
    /// Whether somebody who has `own` bytes may have `more`: by the rule of [`SharedTable`].
    pub fn takes(self, own: usize, more: usize) -> bool {
        if own + more <= limits::SHARE_BYTES_GUARANTEED {
            return self.used + more <= self.bytes_max;
        }
        let common = self.bytes_max / 4 * 3;
        own + more <= common.saturating_sub(self.used)
    }
}

/// A table of a shard, as of now.
#[derive(Clone, Copy, Debug)]
pub(super) struct SharedTable {
    pub entries_max: usize,
    /// Entries that there are, of all clients together.
    pub used: usize,
}

impl SharedTable {
    /// Whether somebody who has `own` entries may have another one. A quarter of the table is for those who have little;
    /// of the rest nobody has more than is left. So one alone has three eighths of the table, and when he has them there
    /// is as much again for the others.
    pub fn takes(self, own: usize) -> bool {
        if own < limits::SHARE_GUARANTEED {
            return self.used < self.entries_max;
        }
        let common = self.entries_max / 4 * 3;
        own < common.saturating_sub(self.used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRIES_MAX: usize = 8192;

    /// Takes as much as one may have beside `used` entries of others.
    fn fill(used: usize) -> usize {
        let table = |own| SharedTable { entries_max: ENTRIES_MAX, used: used + own };
        (0..).find(|own| !table(*own).takes(*own)).expect("a table has an end")
    }

    #[test]
    fn one_alone_has_three_eighths() {
        assert_eq!(fill(0), ENTRIES_MAX / 8 * 3);
    }

    #[test]
    fn many_who_take_all_they_can_leave_room_for_those_who_need_little() {
        let mut used = 0;
        // Each of the twenty is another client to the table.
        for _ in 0..20 {
            used += fill(used);
        }
        assert!(used < ENTRIES_MAX, "{used}");
        assert!(fill(used) >= limits::SHARE_GUARANTEED);
    }

    #[test]
    fn of_memory_too_nobody_takes_what_others_need() {
        const BYTES_MAX: usize = 8 * 1024 * 1024;
        let mut used = 0;
        for taker in 0..20 {
            let mut own = 0;
            while (SharedBytes { bytes_max: BYTES_MAX, used }).takes(own, 4_000) {
                (own, used) = (own + 4_000, used + 4_000);
            }
            assert!(taker > 0 || own / 4_000 == BYTES_MAX / 8 * 3 / 4_000, "{own} of one alone");
            assert!(own + 4_000 > limits::SHARE_BYTES_GUARANTEED, "{own}");
        }
        assert!(SharedBytes { bytes_max: BYTES_MAX, used }.takes(0, 4_000), "{used}");
        assert!(!SharedBytes { bytes_max: BYTES_MAX, used: BYTES_MAX }.takes(0, 1));
    }

    #[test]
    fn a_full_table_takes_nothing() {
        assert!(!SharedTable { entries_max: ENTRIES_MAX, used: ENTRIES_MAX }.takes(0));
    }
}
