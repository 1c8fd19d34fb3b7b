//! Times of the wall clock by their parts, and as RFC 3339 writes them, in UTC. The proleptic Gregorian calendar over the years 1970 to
//! 9999, which is what RFC 3339 can write of it.

use super::Timestamp;

const DAY_MS: u64 = 86_400_000;
const MONTH_DAYS: [u64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
const YEAR_FIRST: u64 = 1970;
const YEAR_LAST: u64 = 9999;

/// A moment by its parts, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    pub year: u64,
    /// From 1 on, as `day`.
    pub month: u64,
    pub day: u64,
    pub hour: u64,
    pub minute: u64,
    pub second: u64,
    pub millisecond: u64,
}

impl Moment {
    /// The last moment of the year 9999 for what comes after it.
    pub fn of(time: Timestamp) -> Self {
        let end = days_before_year(YEAR_LAST + 1) * DAY_MS;
        let ms = time.0.min(end - 1);
        let days = ms / DAY_MS;
        // No year is longer than that, so it is this one or a later one.
        let mut year = YEAR_FIRST + days / 366;
        while days_before_year(year + 1) <= days {
            year += 1;
        }
        let mut day = days - days_before_year(year);
        let mut month = 1;
        while day >= days_in_month(year, month) {
            day -= days_in_month(year, month);
            month += 1;
        }
        let second = ms % DAY_MS / 1000;
        Self {
            year,
            month,
            day: day + 1,
            hour: second / 3600,
            minute: second / 60 % 60,
            second: second % 60,
            millisecond: ms % 1000,
        }
    }
}

/// A time as RFC 3339 writes it, in UTC and to the millisecond.
pub fn rfc3339(time: Timestamp) -> String {
    let Moment { year, month, day, hour, minute, second, millisecond } = Moment::of(time);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}Z")
}

/// Reads `2024-05-06T07:08:09Z`, with fractions of a second, with an offset like `+02:00`, with a space for the `T`,
/// or a date alone, which is its midnight. Without a zone it is UTC. `None`: it is none of these.
pub fn parse_timestamp(text: &str) -> Option<Timestamp> {
    let (date, time) = match text.split_once(['T', 't', ' ']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let date_ms = parse_date(date)? * DAY_MS;
    let Some(time) = time else { return Some(Timestamp(date_ms)) };
    let (time, offset_ms) = split_offset(time)?;
    let total = i64::try_from(date_ms + parse_time(time)?).ok()? - offset_ms;
    u64::try_from(total).ok().map(Timestamp)
}

/// Days since the epoch.
fn parse_date(text: &str) -> Option<u64> {
    let mut parts = text.split('-');
    let year = digits(parts.next()?, 4)?;
    let month = digits(parts.next()?, 2)?;
    let day = digits(parts.next()?, 2)?;
    let known =
        (YEAR_FIRST..=YEAR_LAST).contains(&year) && (1..=12).contains(&month) && parts.next().is_none();
    if !known || !(1..=days_in_month(year, month)).contains(&day) {
        return None;
    }
    let months: u64 = (1..month).map(|earlier| days_in_month(year, earlier)).sum();
    Some(days_before_year(year) + months + day - 1)
}

/// Milliseconds since midnight.
fn parse_time(text: &str) -> Option<u64> {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let mut parts = clock.split(':');
    let (hours, minutes) = (digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let seconds = parts.next().map_or(Some(0), |seconds| digits(seconds, 2))?;
    if parts.next().is_some() || hours > 23 || minutes > 59 || seconds > 59 {
        return None;
    }
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let millis: u64 = format!("{fraction:0<3}")[..3].parse().ok()?;
    Some(((hours * 60 + minutes) * 60 + seconds) * 1000 + millis)
}

/// The time of day, and how many milliseconds its zone is ahead of UTC.
fn split_offset(text: &str) -> Option<(&str, i64)> {
    if let Some(time) = text.strip_suffix(['Z', 'z']) {
        return Some((time, 0));
    }
    let Some(at) = text.find(['+', '-']) else { return Some((text, 0)) };
    let (hours, minutes) = text[at + 1..].split_once(':')?;
    let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let ahead = i64::try_from((hours * 60 + minutes) * 60_000).ok()?;
    Some((&text[..at], if text.as_bytes()[at] == b'-' { -ahead } else { ahead }))
}

/// A number of exactly `width` digits.
fn digits(text: &str, width: usize) -> Option<u64> {
    let well_formed = text.len() == width && text.bytes().all(|byte| byte.is_ascii_digit());
    well_formed.then(|| text.parse().ok()).flatten()
}

/// Days from the epoch to the first of January of `year`.
fn days_before_year(year: u64) -> u64 {
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    (year - YEAR_FIRST) * 365 + leap_days(year - 1) - leap_days(YEAR_FIRST - 1)
}

fn days_in_month(year: u64, month: u64) -> u64 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    MONTH_DAYS[month as usize - 1] + u64::from(leap && month == 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_the_parts_that_are_read() {
        let mut ms = 0;
        while ms < 253_402_300_799_999 {
            let Moment { year, month, day, hour, minute, second, millisecond } = Moment::of(Timestamp(ms));
            let text =
                format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}Z");
            assert_eq!(parse_timestamp(&text), Some(Timestamp(ms)), "{text}");
            // A little over 40 days, so that every day of a month comes up.
            ms += 3_461_234_567;
        }
        assert_eq!(Moment::of(Timestamp(u64::MAX)), Moment::of(Timestamp(253_402_300_799_999)));
    }

    #[test]
    fn known_instants() {
        let cases = [
            ("1970-01-01T00:00:00.000Z", 0),
            ("2000-02-29T12:00:00.000Z", 951_825_600_000),
            ("2023-11-14T22:13:20.000Z", 1_700_000_000_000),
            ("2024-12-31T23:59:59.999Z", 1_735_689_599_999),
            ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
        ];
        for (text, millis) in cases {
            assert_eq!(parse_timestamp(text), Some(Timestamp(millis)), "{text}");
        }
    }

    #[test]
    fn days_follow_one_another() {
        let mut expected = 0;
        for year in 1970..2500 {
            for month in 1..=12 {
                for day in 1..=days_in_month(year, month) {
                    let text = format!("{year:04}-{month:02}-{day:02}");
                    assert_eq!(parse_timestamp(&text), Some(Timestamp(expected * DAY_MS)), "{text}");
                    expected += 1;
                }
            }
        }
    }

    #[test]
    fn looser_forms_mean_what_they_say() {
        let millis = |text| parse_timestamp(text).map(|time| time.0);
        assert_eq!(millis("2023-11-14"), Some(1_699_920_000_000));
        assert_eq!(millis("2023-11-14 22:13:20"), Some(1_700_000_000_000));
        assert_eq!(millis("2023-11-14T22:13Z"), Some(1_699_999_980_000));
        assert_eq!(millis("2023-11-15T00:13:20+02:00"), Some(1_700_000_000_000));
        assert_eq!(millis("2023-11-14T17:13:20.5-05:00"), Some(1_700_000_000_500));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "now",
            "1700000000",
            "2023-13-01",
            "2023-02-29",
            "2023-1-1",
            "1969-12-31",
            "2023-11-14T24:00:00Z",
            "2023-11-14T12:60:00Z",
            "2023-11-14T12:00:00.Z",
            "2023-11-14T12:00:00.1x",
            "2023-11-14T",
            "2023-11-14T1:00Z",
            "1970-01-01T00:00:00+01:00",
            "2023-11-14T12:00:00+2:00",
        ] {
            assert_eq!(parse_timestamp(text), None, "{text}");
        }
    }
}
