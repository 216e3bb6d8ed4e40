//! SASLprep (RFC 4013): names and passwords in one form, whatever keyboard they were typed on.

use std::borrow::Cow;

use stringprep::tables;

/// Prepares a string that is compared with what is stored: code points that Unicode 3.2 did not assign pass as they
/// are (RFC 3454 §7). `None` for prohibited characters, mixed directions, or nothing left.
pub(super) fn prepare_query(text: &str) -> Option<Cow<'_, str>> {
    if let Some(prepared) = prepare_stored(text) {
        return Some(prepared);
    }
    if !text.contains(tables::unassigned_code_point) {
        return None;
    }
    // Unicode 3.2 has no composition with a code point that it does not know, so that what stands between two such
    // can be prepared alone. Directions are checked in each part and, because one part can contradict another, once
    // over the whole.
    let mut prepared = String::with_capacity(text.len());
    for part in text.split_inclusive(tables::unassigned_code_point) {
        let known = part.trim_end_matches(tables::unassigned_code_point);
        if !known.is_empty() {
            prepared.push_str(&stringprep::saslprep(known).ok()?);
        }
        prepared.push_str(&part[known.len()..]);
    }
    (!mixes_directions(&prepared)).then_some(Cow::Owned(prepared))
}

/// Prepares a string that is stored, or that keys are derived from: unassigned code points are refused as well
/// (RFC 5802 §2.2). `None` as above.
pub(super) fn prepare_stored(text: &str) -> Option<Cow<'_, str>> {
    stringprep::saslprep(text).ok().filter(|prepared| !prepared.is_empty())
}

/// RFC 3454 §6, rules 2 and 3.
fn mixes_directions(text: &str) -> bool {
    let ends_in_right_to_left = text.starts_with(tables::bidi_r_or_al)
        && text.ends_with(tables::bidi_r_or_al)
        && !text.contains(tables::bidi_l);
    text.contains(tables::bidi_r_or_al) && !ends_in_right_to_left
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// RFC 4013 §3.
    #[test]
    fn examples_of_the_rfc_hold() {
        assert_eq!(prepare_stored("I\u{AD}X").unwrap(), "IX");
        assert_eq!(prepare_stored("user").unwrap(), "user");
        assert_eq!(prepare_stored("USER").unwrap(), "USER");
        assert_eq!(prepare_stored("\u{AA}").unwrap(), "a");
        assert_eq!(prepare_stored("\u{2168}").unwrap(), "IX");
        assert_eq!(prepare_stored("\u{7}"), None);
        assert_eq!(prepare_stored("\u{627}1"), None);
    }

    #[test]
    fn nothing_left_is_refused() {
        assert_eq!(prepare_stored(""), None);
        assert_eq!(prepare_query(""), None);
        assert_eq!(prepare_stored("\u{AD}"), None);
        assert_eq!(prepare_query("\u{AD}"), None);
    }

    #[test]
    fn unassigned_code_point_passes_only_in_a_query() {
        let later = "caf\u{E9}\u{1F600}\u{2168}";
        assert_eq!(prepare_stored(later), None);
        assert_eq!(prepare_query(later).unwrap(), "caf\u{E9}\u{1F600}IX");
        assert_eq!(prepare_query("\u{1F600}\u{1F600}").unwrap(), "\u{1F600}\u{1F600}");
        assert_eq!(prepare_query("\u{1F600}\u{7}"), None);
        assert_eq!(prepare_query("a\u{1F600}\u{627}"), None);
        assert_eq!(prepare_query("\u{627}\u{1F600}\u{627}").unwrap(), "\u{627}\u{1F600}\u{627}");
    }

    #[test]
    fn prepared_query_is_stable() {
        for text in ["alice", "\u{AA}\u{1F600}\u{AD}b", "\u{FB01}n", "\u{3000}x", "n\u{303}"] {
            let once = prepare_query(text).unwrap();
            assert_eq!(prepare_query(&once).unwrap(), once);
        }
    }
}
