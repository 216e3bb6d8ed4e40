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
    use super::*;

    #[test]
    fn known_moments_are_written_as_xep_0082_does() {
        assert_eq!(format(Wall(0)), "1970-01-01T00:00:00.000Z");
        // From `date -u -d @N`.
        assert_eq!(format(Wall(951_782_400_000_000)), "2000-02-29T00:00:00.000Z");
        assert_eq!(format(Wall(1_709_251_199_123_456)), "2024-02-29T23:59:59.123Z");
        assert_eq!(format(Wall(4_107_542_400_000_000)), "2100-03-01T00:00:00.000Z");
    }
}
