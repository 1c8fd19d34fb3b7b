//! What a process spent on a run, as the kernel counts it: for brokers that do not tell it themselves.

use std::fs;

use crate::cli::bench::server_cost::ServerCost;
use crate::cli::error::CommandError;

/// A process's counters at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessSample {
    /// Of all its threads, those that have ended among them, in user and kernel mode.
    cpu_ns: u64,
    resident_bytes: u64,
}

/// In `/proc/PID/stat`, counted from the one after the name, which may hold blanks: the process's state is 0.
const USER_TICKS: usize = 11;
const RESIDENT_PAGES: usize = 21;

impl ProcessSample {
    pub fn take(process: u32) -> Result<Self, CommandError> {
        let path = format!("/proc/{process}/stat");
        let text = fs::read_to_string(&path).map_err(|error| {
            CommandError::failed(format!("cannot read {path}, see --server-pid: {error}"))
        })?;
        let (ticks, page) = (rustix::param::clock_ticks_per_second(), rustix::param::page_size() as u64);
        Self::read(&text, ticks, page)
            .ok_or_else(|| CommandError::failed(format!("{path} is not what it is known to be")))
    }

    fn read(stat: &str, ticks_per_second: u64, page_bytes: u64) -> Option<Self> {
        let (_, fields) = stat.rsplit_once(')')?;
        let numbers: Vec<_> = fields.split_ascii_whitespace().collect();
        let number = |at: usize| numbers.get(at)?.parse::<u64>().ok();
        let ticks = number(USER_TICKS)? + number(USER_TICKS + 1)?;
        Some(Self {
            cpu_ns: ticks * 1_000_000_000 / ticks_per_second,
            resident_bytes: number(RESIDENT_PAGES)? * page_bytes,
        })
    }

    /// The cost of `messages` since `earlier`.
    pub fn cost_since(&self, earlier: &ProcessSample, messages: u64) -> ServerCost {
        let spent_ns = self.cpu_ns.saturating_sub(earlier.cpu_ns) as f64;
        ServerCost {
            core_ns_per_message: (messages > 0).then(|| (spent_ns / messages as f64 * 100.0).round() / 100.0),
            resident_bytes: self.resident_bytes,
            ..ServerCost::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 9 0 0 0 150 50 0 0 20 0 3 0 77 1000000 25 18446744073709551615";
        let before = ProcessSample::read(stat, 100, 4096).expect("a line of the kernel's");
        assert_eq!(before, ProcessSample { cpu_ns: 2_000_000_000, resident_bytes: 102_400 });
        let after = ProcessSample { cpu_ns: 2_500_000_000, ..before };
        assert_eq!(after.cost_since(&before, 1000).core_ns_per_message, Some(500_000.0));
        assert_eq!(after.cost_since(&before, 0).core_ns_per_message, None);
        assert_eq!(ProcessSample::read("", 100, 4096), None);
    }

    #[test]
    fn the_kernel_tells_of_this_process() {
        assert!(ProcessSample::take(std::process::id()).expect("it runs").resident_bytes > 0);
    }
}
