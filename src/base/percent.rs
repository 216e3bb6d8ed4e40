//! Percent-encoding (RFC 3986 §2.1).

/// Undoes `%` and two hexadecimal digits; all else stands for itself. `None` for a `%` without them, and for what is not
/// UTF-8 then.
pub fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As in the names of Prosody's files.
    #[test]
    fn escapes_stand_for_bytes_and_what_is_none_is_refused() {
        assert_eq!(decoded("ro%2emeo%2dx%5fy").as_deref(), Some("ro.meo-x_y"));
        assert_eq!(decoded("%c3%a9").as_deref(), Some("\u{e9}"));
        for faulty in ["%", "%2", "%+1", "%zz", "%ff"] {
            assert_eq!(decoded(faulty), None, "{faulty}");
        }
    }
}
