//! Values for people: three digits and a unit.

/// Microseconds as `417 µs`, `1.23 ms`, `12.3 s`.
pub(crate) fn microseconds(us: f64) -> String {
    match us {
        us if us < 999.5 => format!("{} µs", digits(us)),
        us if us < 999_500.0 => format!("{} ms", digits(us / 1e3)),
        us => format!("{} s", digits(us / 1e6)),
    }
}

/// `1 234`, and from a million on `1.23 M`.
pub(crate) fn count(count: f64) -> String {
    match count {
        count if count < 10.0 && count.fract() != 0.0 => digits(count),
        count if count < 1e6 => grouped(count.round() as u64),
        count if count < 1e9 => format!("{} M", digits(count / 1e6)),
        count => format!("{} G", digits(count / 1e9)),
    }
}

/// All digits in groups of three, with narrow spaces that do not break.
pub(crate) fn grouped(count: u64) -> String {
    let plain = count.to_string();
    let mut grouped = String::new();
    for (at, c) in plain.chars().enumerate() {
        if at > 0 && (plain.len() - at).is_multiple_of(3) {
            grouped.push('\u{202f}');
        }
        grouped.push(c);
    }
    grouped
}

/// Powers of 1024, as memory is counted.
pub(crate) fn bytes(bytes: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{} {}", digits(value), units[unit])
}

/// Seconds of a run as `42 s` or `1:05:09`.
pub(crate) fn clock(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        whole if whole < 120 => format!("{whole} s"),
        whole if whole < 3600 => format!("{}:{:02}", whole / 60, whole % 60),
        whole => format!("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60),
    }
}

/// Three significant digits, without zeros at the end.
pub(crate) fn digits(value: f64) -> String {
    let places = match value.abs() {
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    };
    let text = format!("{value:.places$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_with_three_digits_and_their_unit() {
        let written: Vec<String> =
            [1.0, 417.0, 999.6, 1230.0, 12_300.0, 999_400.0, 1_204_000.0, 3_600_000_000.0]
                .map(microseconds)
                .into();
        assert_eq!(
            written,
            ["1 µs", "417 µs", "1 ms", "1.23 ms", "12.3 ms", "999 ms", "1.2 s", "3600 s"]
        );
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(bytes(2874.0), "2.81 KiB");
        assert_eq!(
            (clock(42.2), clock(125.0), clock(3909.0)),
            ("42 s".into(), "2:05".into(), "1:05:09".into())
        );
        assert_eq!(
            (count(2000.0), count(0.25), count(1.5e6)),
            ("2\u{202f}000".into(), "0.25".into(), "1.5 M".into())
        );
    }
}
