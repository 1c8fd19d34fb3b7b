//! Wall clock times: now, and RFC 3339 as `--from` takes it.

use std::time::SystemTime;

use crate::types::Timestamp;
pub use crate::types::calendar::{Moment, parse_timestamp, rfc3339};

/// The wall clock. A clock set before 1970 reads as 1970.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
