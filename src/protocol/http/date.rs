//! The time as HTTP writes it.

use std::time::{Duration, SystemTime};

use crate::types::Timestamp;

/// 9999-12-31 23:59:59 UTC: the form has four digits for a year.
const LAST: Timestamp = Timestamp(253_402_300_799_000);

/// Like `Sun, 06 Nov 1994 08:49:37 GMT`. What comes after the year 9999 is told as its end.
pub fn http_date(time: Timestamp) -> String {
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_millis(time.min(LAST).0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_has_a_text() {
        for (time, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777_000, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (253_402_300_799_999, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (253_402_300_800_000, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(http_date(Timestamp(time)), text);
        }
    }
}
