//! Dates and times between their text form, which is what is stored, and PostgreSQL's binary form:
//! days or microseconds since the start of the year 2000.

/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

/// Days from 1970-01-01 to 2000-01-01.
const EPOCH_DAYS: i64 = 10_957;

/// Days since 2000 of a `YYYY-MM-DD` text.
pub fn date_from_text(text: &str) -> Option<i32> {
    let (days, rest) = date(text)?;
    // A time of day may follow; PostgreSQL drops it too.
    if rest.is_empty() || rest.starts_with([' ', 'T']) { i32::try_from(days).ok() } else { None }
}

/// Microseconds since 2000 of a `YYYY-MM-DD HH:MM:SS.ffffff+ZZ` text; a zone is applied if `zoned`.
pub fn timestamp_from_text(text: &str, zoned: bool) -> Option<i64> {
    let (days, rest) = date(text)?;
    let (micros, zone) = match rest.strip_prefix([' ', 'T']) {
        None if rest.is_empty() => (0, 0),
        None => return None,
        Some(clock) => time(clock)?,
    };
    days.checked_mul(DAY)?.checked_add(micros)?.checked_sub(if zoned { zone } else { 0 })
}

/// Microseconds since midnight of a `HH:MM:SS.ffffff` text.
pub fn time_from_text(text: &str) -> Option<i64> {
    time(text).map(|(micros, _)| micros)
}

/// The text of days since 2000.
pub fn date_text(days: i32) -> String {
    let (year, month, day) = civil(i64::from(days) + EPOCH_DAYS);
    format!("{year:04}-{month:02}-{day:02}")
}

/// The text of microseconds since 2000.
pub fn timestamp_text(micros: i64) -> String {
    let day = micros.div_euclid(DAY);
    let (year, month, date) = civil(day + EPOCH_DAYS);
    format!("{year:04}-{month:02}-{date:02} {}", time_text(micros.rem_euclid(DAY)))
}

/// The text of microseconds since midnight.
pub fn time_text(micros: i64) -> String {
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let clock = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if fraction == 0 {
        return clock;
    }
    format!("{clock}.{}", format!("{fraction:06}").trim_end_matches('0'))
}

/// Days since 2000 and what follows the date.
fn date(text: &str) -> Option<(i64, &str)> {
    let (year, rest) = number(text, 4, 6)?;
    let (month, rest) = number(rest.strip_prefix('-')?, 2, 2)?;
    let (day, rest) = number(rest.strip_prefix('-')?, 2, 2)?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    // Days since 1970-01-01, by the usual shift of the year's start to March.
    let shifted = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let (era, year_of_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
    let days =
        era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    Some((days - EPOCH_DAYS, rest))
}

/// Year, month, day of days since 1970-01-01.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// Microseconds since midnight, and microseconds the zone is ahead of UTC.
fn time(text: &str) -> Option<(i64, i64)> {
    let (hours, rest) = number(text, 2, 2)?;
    let (minutes, rest) = number(rest.strip_prefix(':')?, 2, 2)?;
    let (seconds, rest) = match rest.strip_prefix(':') {
        Some(rest) => number(rest, 2, 2)?,
        None => (0, rest),
    };
    let (micros, rest) = match rest.strip_prefix('.') {
        Some(rest) => {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (fraction, kept) = (rest.get(..digits)?, digits.min(6));
            let value: i64 = fraction.get(..kept)?.parse().ok()?;
            (value * 10i64.pow(6 - kept as u32), &rest[digits..])
        }
        None => (0, rest),
    };
    if hours > 24 || minutes > 59 || seconds > 59 {
        return None;
    }
    Some((((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros, zone(rest.trim_start())?))
}

fn zone(text: &str) -> Option<i64> {
    let (sign, rest) = match text.as_bytes().first() {
        None => return Some(0),
        Some(b'Z' | b'z') if text.len() == 1 => return Some(0),
        Some(b'+') => (1, &text[1..]),
        Some(b'-') => (-1, &text[1..]),
        _ => return None,
    };
    let (hours, rest) = number(rest, 2, 2)?;
    let minutes = match rest.strip_prefix(':').unwrap_or(rest) {
        "" => 0,
        minutes => number(minutes, 2, 2).filter(|(_, rest)| rest.is_empty())?.0,
    };
    Some(sign * (hours * 60 + minutes) * 60_000_000)
}

fn number(text: &str, least: usize, most: usize) -> Option<(i64, &str)> {
    let digits = text.bytes().take(most).take_while(u8::is_ascii_digit).count();
    if digits < least {
        return None;
    }
    Some((text[..digits].parse().ok()?, &text[digits..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_round_trip() {
        for (text, days) in
            [("2000-01-01", 0), ("1999-12-31", -1), ("2024-02-29", 8825), ("1970-01-01", -10_957)]
        {
            assert_eq!(date_from_text(text), Some(days));
            assert_eq!(date_text(days), text);
        }
        for text in ["2026-11-23 06:28:33.5", "1969-07-20 20:17:40", "2000-01-01 00:00:00.000001"] {
            let micros = timestamp_from_text(text, false).unwrap();
            assert_eq!(timestamp_text(micros), text);
        }
        let zoned = timestamp_from_text("2000-01-01T02:00:00+02:00", true);
        assert_eq!(zoned, Some(0));
        assert_eq!(timestamp_from_text("2000-01-01 00:00:00Z", true), Some(0));
    }

    #[test]
    fn what_is_no_date_is_not_one() {
        for text in
            ["", "now", "2023-02-29", "2000-13-01", "2000-01-01x", "2000-01-01 25:00:00", "2000-01-01 1"]
        {
            assert_eq!(timestamp_from_text(text, true), None, "{text}");
        }
    }
}
