//! Characters of XML 1.0 (fifth edition) §2.2, those of ASCII in names (§2.3), and the meaning of references (§4.1, §4.6).

/// Whether XML 1.0 allows `c` anywhere in a document (§2.2).
pub fn is_xml_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// What an ASCII byte may be in a qualified name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum NameClass {
    /// Letters and `_`: anywhere.
    Start,
    /// Digits, `-` and `.`: not first.
    Rest,
    Colon,
    Other,
}

/// Class of each ASCII byte; bytes from 0x80 are decoded and asked of `names`.
pub(super) static NAME_CLASS: [NameClass; 128] = {
    let mut table = [NameClass::Other; 128];
    let mut byte = 0u8;
    while byte < 128 {
        table[byte as usize] = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => NameClass::Start,
            b'0'..=b'9' | b'-' | b'.' => NameClass::Rest,
            b':' => NameClass::Colon,
            _ => NameClass::Other,
        };
        byte += 1;
    }
    table
};

pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Whether `doc` holds only characters that XML allows; `doc` is already known to be UTF-8.
///
/// One pass without branches over the bytes; the noncharacters U+FFFE and U+FFFF are looked for only where there is
/// anything beyond ASCII.
pub(super) fn has_only_xml_chars(doc: &str) -> bool {
    let (bad, all) = doc.bytes().fold((false, 0u8), |(bad, all), b| {
        (bad | ((b < 0x20) & (b != b'\t') & (b != b'\n') & (b != b'\r')), all | b)
    });
    if bad {
        return false;
    }
    if all < 0x80 {
        return true;
    }
    let bytes = doc.as_bytes();
    memchr::memchr_iter(0xef, bytes)
        .all(|at| !matches!(bytes.get(at..at + 3), Some([_, 0xbf, 0xbe | 0xbf])))
}

/// What a reference stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reference {
    Char(char),
    /// A name that is none of the five predefined entities: nothing declares it, as a DTD is refused.
    Undefined,
    Malformed,
}

/// Longest text between `&` and `;` that is looked at: `&#x0010FFFF;` has room to spare.
const REFERENCE_BYTES_MAX: usize = 32;

/// Reads the reference at the start of `text`, which begins behind the `&`; gives its length without the `&`.
pub(super) fn reference(text: &[u8]) -> (Reference, usize) {
    let window = text.get(..REFERENCE_BYTES_MAX).unwrap_or(text);
    let Some(end) = memchr::memchr(b';', window) else {
        return (Reference::Malformed, 0);
    };
    let name = window.get(..end).unwrap_or_default();
    let meaning = match name {
        b"lt" => Reference::Char('<'),
        b"gt" => Reference::Char('>'),
        b"amp" => Reference::Char('&'),
        b"apos" => Reference::Char('\''),
        b"quot" => Reference::Char('"'),
        [b'#', b'x', hex @ ..] => number(hex, 16),
        [b'#', decimal @ ..] => number(decimal, 10),
        [first, rest @ ..] if is_plain_name(*first, rest) => Reference::Undefined,
        _ => Reference::Malformed,
    };
    (meaning, end + 1)
}

/// Good enough to tell an entity that nobody declared from a stray `&`: both are refused, by different conditions.
fn is_plain_name(first: u8, rest: &[u8]) -> bool {
    (first.is_ascii_alphabetic() || first == b'_' || first >= 0x80)
        && rest.iter().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(b) || *b >= 0x80)
}

fn number(digits: &[u8], radix: u32) -> Reference {
    if digits.is_empty() {
        return Reference::Malformed;
    }
    let mut value = 0u32;
    for &byte in digits {
        let Some(digit) = char::from(byte).to_digit(radix) else {
            return Reference::Malformed;
        };
        value = value.saturating_mul(radix).saturating_add(digit);
    }
    match char::from_u32(value) {
        Some(c) if is_xml_char(c) => Reference::Char(c),
        _ => Reference::Malformed,
    }
}

/// Appends an attribute value as a parser reports it: references resolved, each end of line and each white space
/// character as a blank (XML 1.0 §2.11, §3.3.3).
pub(in crate::xmpp) fn unescape_attr(raw: &str, out: &mut String) {
    let mut rest = raw;
    let special = |b: &u8| matches!(b, b'&' | b'\r' | b'\n' | b'\t');
    while let Some(at) = rest.as_bytes().iter().position(special) {
        let (plain, tail) = rest.split_at(at);
        out.push_str(plain);
        let (put, used) = match tail.as_bytes() {
            [b'&', name @ ..] => match reference(name) {
                (Reference::Char(c), used) => (c, used + 1),
                // Only text that passed the walk comes here, so this stands for nothing a peer can send.
                (Reference::Undefined | Reference::Malformed, _) => ('&', 1),
            },
            [b'\r', b'\n', ..] => (' ', 2),
            _ => (' ', 1),
        };
        out.push(put);
        rest = tail.get(used..).unwrap_or_default();
    }
    out.push_str(rest);
}

/// Whether an attribute value reads as it stands.
pub(in crate::xmpp) fn is_plain_attr(raw: &str) -> bool {
    !raw.bytes().any(|b| matches!(b, b'&' | b'\t' | b'\n' | b'\r'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_mean_characters_or_are_refused() {
        for (text, expected) in [
            (&b"lt;"[..], Reference::Char('<')),
            (b"#65;", Reference::Char('A')),
            (b"#x41;", Reference::Char('A')),
            (b"#x0010FFFF;", Reference::Char('\u{10ffff}')),
            (b"#x0;", Reference::Malformed),
            (b"#x1F;", Reference::Malformed),
            (b"#xFFFE;", Reference::Malformed),
            (b"#xD800;", Reference::Malformed),
            (b"#x110000;", Reference::Malformed),
            (b"#99999999999999;", Reference::Malformed),
            (b"#X41;", Reference::Malformed),
            (b"#;", Reference::Malformed),
            (b"#x;", Reference::Malformed),
            (b"#+5;", Reference::Malformed),
            (b"nbsp;", Reference::Undefined),
            (b"LT;", Reference::Undefined),
            (b";", Reference::Malformed),
            (b" lt;", Reference::Malformed),
            (b"lt", Reference::Malformed),
        ] {
            assert_eq!(reference(text).0, expected, "{:?}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn white_space_is_normalised_as_a_parser_would() {
        let mut attr = String::new();
        unescape_attr("a\r\nb\rc\nd&#10;e\tf", &mut attr);
        assert_eq!(attr, "a b c d\ne f");
    }

    #[test]
    fn characters_outside_xml_are_found_anywhere() {
        for bad in ["\u{0}", "\u{b}", "\u{1f}", "\u{fffe}", "\u{ffff}"] {
            assert!(!has_only_xml_chars(&format!("some text of length {bad} and é more")));
        }
        assert!(has_only_xml_chars(
            "tab\t nl\n cr\r del\u{7f} nel\u{85} \u{fffd} \u{1fffe} \u{feff}"
        ));
    }
}
