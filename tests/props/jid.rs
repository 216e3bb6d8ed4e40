//! Addresses: preparing is stable, and the parts never blur.

use corefire::xmpp::jid::{BareJid, Jid, JidCache};
use proptest::prelude::*;

/// Characters that preparation maps, reorders or refuses, among plain ones.
fn part() -> impl Strategy<Value = String> {
    let plain = prop::sample::select("abcXYZ019-._ ".chars().collect::<Vec<_>>());
    let odd = prop::sample::select(
        "\u{df}\u{e9}\u{130}\u{131}\u{1c5}\u{300}\u{30a}\u{345}\u{3a3}\u{3c2}\u{5d0}\u{627}\u{660}\u{200d}\u{94d}\
         \u{1e9e}\u{212a}\u{2126}\u{3000}\u{3002}\u{ff21}\u{ff20}\u{ff0f}\u{ff76}\u{ff9e}\u{ac00}\u{1100}\u{1161}\
         \u{13a0}\u{ab70}\u{10400}\u{1f600}\u{a0}\u{b7}l\u{7}@/'&<"
            .chars()
            .collect::<Vec<_>>(),
    );
    prop::collection::vec(prop_oneof![6 => plain, 3 => odd, 1 => any::<char>()], 0..12)
        .prop_map(String::from_iter)
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        (part(), part(), part())
            .prop_map(|(local, domain, resource)| format!("{local}@{domain}/{resource}")),
        (part(), part()).prop_map(|(local, domain)| format!("{local}@{domain}.example")),
        ("[a-zA-Z0-9.]{1,20}", "[a-z0-9-]{1,9}(\\.[a-z0-9]{1,9}){0,3}\\.?", "[ -~]{1,20}")
            .prop_map(|(local, domain, resource)| format!("{local}@{domain}/{resource}")),
        part(),
        any::<String>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn preparing_twice_is_preparing_once(raw in text()) {
        if let Ok(jid) = Jid::parse(&raw) {
            let prepared = jid.to_string();
            let again = Jid::parse(&prepared);
            prop_assert_eq!(again.as_ref(), Ok(&jid), "{:?} became {:?}", raw, prepared);
            prop_assert_eq!(jid.text_len(), prepared.len());
            prop_assert!(jid.is(&prepared));
            let again = again?;
            prop_assert_eq!(again.resource(), jid.resource());
            prop_assert_eq!(again.bare().hash64(), jid.bare().hash64());
        }
    }

    #[test]
    fn parts_hold_no_separator_and_stay_within_their_size(raw in text()) {
        if let Ok(jid) = Jid::parse(&raw) {
            let local = jid.local();
            prop_assert!(local.is_none_or(|local| !local.is_empty() && local.len() <= 1023));
            prop_assert!(local.is_none_or(|local| !local.contains(['@', '/', ' ', '"', '&', '\'', ':', '<', '>'])));
            prop_assert!(!jid.domain().is_empty() && jid.domain().len() <= 1023);
            prop_assert!(!jid.domain().contains(['@', '/', ' ', '"', '&', '\'', '<', '>']));
            prop_assert!(jid.resource().is_none_or(|resource| !resource.is_empty() && resource.len() <= 1023));
            prop_assert!(!jid.to_string().contains(char::is_control));
            prop_assert_eq!(BareJid::from_parts(local, jid.domain()), Ok(jid.bare().clone()));
        }
    }

    #[test]
    fn ascii_case_makes_no_difference_to_a_bare_jid(raw in "[ -~]{0,20}@[a-zA-Z0-9.-]{0,20}") {
        prop_assert_eq!(BareJid::parse(&raw), BareJid::parse(&raw.to_ascii_uppercase()));
    }

    #[test]
    fn a_cache_answers_as_the_parser_does(raws in prop::collection::vec(text(), 1..40), capacity in 0usize..12) {
        let mut cache = JidCache::new(capacity);
        for raw in raws.iter().chain(&raws) {
            prop_assert_eq!(cache.parse(raw), Jid::parse(raw));
            prop_assert!(cache.len() <= capacity.max(2));
        }
    }
}
