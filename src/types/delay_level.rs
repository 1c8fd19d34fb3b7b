//! Delays by RocketMQ's levels (`store/.../config/MessageStoreConfig.java`, `messageDelayLevel`).

use std::time::Duration;

const SECONDS: [u64; DELAY_LEVELS as usize] =
    [1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1_200, 1_800, 3_600, 7_200];

/// They begin with 1.
pub const DELAY_LEVELS: u32 = 18;

/// How long a message of a level waits. A higher one is the last; 0 waits for nothing.
pub fn delay_of_level(level: u32) -> Duration {
    match level.min(DELAY_LEVELS) {
        0 => Duration::ZERO,
        level => Duration::from_secs(SECONDS[level as usize - 1]),
    }
}
