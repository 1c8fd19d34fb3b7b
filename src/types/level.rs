//! Durability levels.

use std::fmt;
use std::str::FromStr;

/// How safe a batch is. The order is the order of the watermarks: every level includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// In the broker's memory: lost when the process dies.
    Accepted,
    /// Written to the device, not flushed: survives the process's death, not a loss of power.
    Written,
    /// Written and flushed (fdatasync): survives a loss of power.
    Durable,
}

impl Level {
    pub const ALL: [Level; 3] = [Level::Accepted, Level::Written, Level::Durable];

    pub fn name(self) -> &'static str {
        match self {
            Level::Accepted => "accepted",
            Level::Written => "written",
            Level::Durable => "durable",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Level::ALL
            .into_iter()
            .find(|level| level.name() == text)
            .ok_or_else(|| format!("`{text}` is no durability level: use durable, written or accepted"))
    }
}
