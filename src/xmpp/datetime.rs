//! XEP-0082: dates and times as XMPP writes them, in UTC.

use crate::base::instant::Wall;

/// `2026-11-23T12:00:00.000Z`, to the millisecond.
pub fn format(at: Wall) -> String {
    let millis = at.0 / 1_000;
    let (year, month, day) = civil(millis / 86_400_000);
    let of_day = millis % 86_400_000;
    let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
    let (second, milli) = (of_day / 1_000 % 60, of_day % 1_000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// A moment in the form of XEP-0082 §3.2, with any number of digits behind the second, in any zone.
///
/// - gives: `None` for what is none, and for what lies before 1970
pub fn parse(text: &str) -> Option<Wall> {
    let (date, time) = text.split_once('T')?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let zone = time.find(['Z', '+', '-'])?;
    let (time, zone) = time.split_at(zone);
    let (time, fraction) = match time.split_once('.') {
        Some((time, digits)) => (time, micros(digits)?),
        None => (time, 0),
    };
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    let offset_minutes = match zone.split_at(1) {
        ("Z", "") => 0,
        (sign, offset) if sign != "Z" => {
            let [hours, minutes] = numbers(offset, ':', [2, 2])?;
            let ahead = (hours <= 14 && minutes < 60).then_some(hours * 60 + minutes)?;
            if sign == "-" { -ahead } else { ahead }
        }
        _ => return None,
    };
    // The last second of a day may be a leap second.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = days_since_1970(year, month, day)?;
    let seconds = days * 86_400 + (hour * 60 + minute - offset_minutes) * 60 + second;
    let micros = seconds.checked_mul(1_000_000)?.checked_add(fraction)?;
    u64::try_from(micros).ok().map(Wall)
}

/// Numbers of so many digits, with a separator between them.
fn numbers<const N: usize>(text: &str, separator: char, digits: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(separator);
    let mut numbers = [0; N];
    for (number, digits) in numbers.iter_mut().zip(digits) {
        let part = parts.next()?;
        let is_number = part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit());
        *number = is_number.then(|| part.parse().ok())??;
    }
    parts.next().is_none().then_some(numbers)
}

/// The digits behind the point of a second, as microseconds; more than six are cut off.
fn micros(digits: &str) -> Option<i64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let shown: String = digits.chars().chain("000000".chars()).take(6).collect();
    shown.parse().ok()
}

/// As `civil`, the other way; `None` for a day that the calendar does not have.
fn days_since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=last).contains(&day) {
        return None;
    }
    // The year begins in March, so that the leap day is its last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * month + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

/// A moment in the form of XEP-0091, which has no zone: `20261123T12:00:00`.
pub fn parse_legacy(text: &str) -> Option<Wall> {
    let (date, time) = text.split_once('T').filter(|(date, _)| date.len() == 8)?;
    let (year, month, day) = (date.get(..4)?, date.get(4..6)?, date.get(6..)?);
    parse(&format!("{year}-{month}-{day}T{time}Z"))
}

/// As `format`, to the microsecond.
pub fn format_micros(at: Wall) -> String {
    let mut text = format(at);
    text.pop();
    text.push_str(&format!("{:03}Z", at.0 % 1_000));
    text
}

/// Year, month and day of the Gregorian calendar, `days` after 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    // Counted from 1 March of year 0, so that leap days end years; 400 years have 146 097 days.
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_written_reads_back() {
        for at in [
            0,
            1,
            951_782_399_999_000,
            951_868_800_000_000,
            1_700_000_000_123_000,
            4_107_542_399_999_000,
        ] {
            let at = Wall(at / 1_000 * 1_000);
            assert_eq!(parse(&format(at)), Some(at), "{}", format(at));
        }
        for day in 0..60_000 {
            let at = Wall(day * 86_400_000_000);
            assert_eq!(parse(&format(at)), Some(at));
        }
    }

    #[test]
    fn times_of_other_zones_and_precisions_are_read() {
        let noon = parse("2026-11-26T12:00:00Z");
        assert!(noon.is_some());
        for same in [
            "2026-11-26T12:00:00.000Z",
            "2026-11-26T12:00:00.0000009Z",
            "2026-11-26T13:30:00+01:30",
            "2026-11-26T01:00:00-11:00",
            "2026-11-27T02:00:00+14:00",
        ] {
            assert_eq!(parse(same), noon, "{same}");
        }
        assert_eq!(parse("1970-01-01T00:00:00.25Z"), Some(Wall(250_000)));
        assert_eq!(parse("2016-12-31T23:59:60Z"), parse("2017-01-01T00:00:00Z"));
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "now",
            "T",
            "2026-11-26",
            "2026-11-26T12:00:00",
            "2026-11-26T12:00Z",
            "2026-11-26 12:00:00Z",
            "2026-11-26T12:00:00.Z",
            "2026-11-26T12:00:00ZZ",
            "2026-11-26T12:00:00+0100",
            "2026-11-26T12:00:00+15:00",
            "2026-11-26T24:00:00Z",
            "2026-11-26T12:60:00Z",
            "2026-13-01T12:00:00Z",
            "2026-02-29T12:00:00Z",
            "2026-11-00T12:00:00Z",
            "26-11-26T12:00:00Z",
            "2026-+1-26T12:00:00Z",
            "1969-12-31T23:59:59Z",
            "2026-11-26T1é:00:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    use super::*;

    #[test]
    fn known_moments_are_written_as_xep_0082_does() {
        assert_eq!(format(Wall(0)), "1970-01-01T00:00:00.000Z");
        // From `date -u -d @N`.
        assert_eq!(format(Wall(951_782_400_000_000)), "2000-02-29T00:00:00.000Z");
        assert_eq!(format(Wall(1_709_251_199_123_456)), "2024-02-29T23:59:59.123Z");
        assert_eq!(format(Wall(4_107_542_400_000_000)), "2100-03-01T00:00:00.000Z");
        assert_eq!(format_micros(Wall(1_709_251_199_123_456)), "2024-02-29T23:59:59.123456Z");
    }

    #[test]
    fn the_older_form_has_no_zone_and_microseconds_survive() {
        let at = Wall(1_709_251_199_000_000);
        assert_eq!(parse_legacy("20240229T23:59:59"), Some(at));
        for text in [
            "20240229T23:59:59Z",
            "2024-02-29T23:59:59",
            "20240230T00:00:00",
            "T",
            "2024\u{e9}29T00:00:00",
        ] {
            assert_eq!(parse_legacy(text), None, "{text}");
        }
        let at = Wall(at.0 + 123_456);
        assert_eq!(parse(&format_micros(at)), Some(at));
    }
}
