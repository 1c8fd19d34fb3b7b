//! Memory that was let go goes back to the system when a shard is at rest.
//!
//! The allocator keeps pages that were freed for whoever asks next, and looks in passing, in later calls, whether it has kept
//! them for long enough. Who is at rest makes no such calls: what a burst took would be kept until the next one. So the watch
//! over the connections asks for it, where that is in nobody's way: after a second of next to no traffic, and only when clients
//! have let memory go since it was asked for last, or the process has become larger.

use std::cell::Cell;

use crate::limits;

/// What was seen at the last looks.
#[derive(Default)]
pub(crate) struct IdleMemory {
    /// Bytes that had come and gone.
    traffic: Cell<u64>,
    /// The most that clients have held since the last time that something was given back.
    held: Cell<u64>,
    /// The process's memory then, or less.
    resident: Cell<u64>,
}

/// What a shard is at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// All bytes that have come and gone so far.
    pub traffic: u64,
    /// What all accounts of clients hold.
    pub held: u64,
}

impl IdleMemory {
    /// Gives back what was freed, if that is due. `resident` tells the process's memory. To be called about once a second.
    pub fn look(&self, look: Look, resident: impl Fn() -> u64, give_back: impl FnOnce()) {
        let passed = look.traffic - self.traffic.replace(look.traffic);
        self.held.set(self.held.get().max(look.held));
        if passed > limits::REST_BYTES_PER_SECOND_MAX {
            return;
        }
        let now = resident();
        let least = limits::REST_MEMORY_BYTES_MIN;
        if now < self.resident.get() + least && self.held.get() < look.held + least {
            self.resident.set(self.resident.get().min(now));
            return;
        }
        give_back();
        self.held.set(look.held);
        self.resident.set(resident());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_is_kept_is_asked_for_at_rest_and_once_for_each_reason() {
        let memory = IdleMemory::default();
        let resident = Cell::new(40 * MIB);
        let asked = Cell::new(0);
        let look = |traffic: u64, held: u64, kept: u64| {
            let give_back = || {
                asked.set(asked.get() + 1);
                resident.set(kept);
            };
            memory.look(Look { traffic: traffic * MIB, held: held * MIB }, || resident.get(), give_back);
            asked.get()
        };
        assert_eq!(look(0, 0, 40 * MIB), 1, "nobody knows yet how small it gets");
        assert_eq!(look(0, 0, 0), 1);
        resident.set(300 * MIB);
        assert_eq!(look(64, 0, 0), 1, "messages come");
        assert_eq!(look(64, 250, 300 * MIB), 2);
        assert_eq!(look(64, 250, 0), 2, "what is in use is not asked for again and again");
        assert_eq!(look(64, 0, 50 * MIB), 3, "it was let go");
        resident.set(30 * MIB);
        assert_eq!(look(64, 0, 0), 3);
        resident.set(40 * MIB);
        assert_eq!(look(64, 0, 30 * MIB), 4);
    }
}
